# SPDX-License-Identifier: MIT OR Apache-2.0
"""One of two twins goes to vfio-pci, can be used, and comes back; nothing else moves."""

from check import among, equal, expect
from machine import UNSET, expect_bound, expect_unchanged


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    nic, twin = vm.nics()
    for address in (nic, twin):
        equal(f"{address}: driver at first", before[address].driver, "e1000e")

    list_names_both(vm, nic, twin)
    explain_names_the_driver(vm, nic)

    result = vm.result("bind", nic)
    equal("bind: outcome", result["outcome"], "bound")
    equal("bind: driver", result["driver"], "vfio-pci")
    equal("bind: previous_driver", result["previous_driver"], "e1000e")
    expect(result["persisted"], "bind: persisted is not true")
    bound = vm.devices()
    expect_bound(before, bound, nic)
    equal(f"{twin}: driver", bound[twin].driver, "e1000e")
    equal(f"{twin}: driver_override", bound[twin].override, UNSET)
    policies = vm.policies()
    equal("policy files", list(policies), [f"{nic}.toml"])
    expect(nic in policies[f"{nic}.toml"], f"policy file of {nic} does not name it: {policies}")

    vm.ok(f"vfio-use {nic} {vm.group(nic)}")

    equal("second bind: outcome", vm.result("bind", nic)["outcome"], "unchanged")
    expect_bound(before, vm.devices(), nic)

    result = vm.result("unbind", nic)
    equal("unbind: outcome", result["outcome"], "unbound")
    equal("unbind: previous_driver", result["previous_driver"], "vfio-pci")
    expect_unchanged(before, vm.devices())
    equal("policy files after unbind", vm.policies(), {})


def list_names_both(vm, nic, twin):
    listed = {device["address"]: device for device in vm.vfioctl("list")["devices"]}
    equal("list: addresses", sorted(listed), sorted(vm.devices()))
    for address in (nic, twin):
        equal(f"list: {address}: driver", listed[address]["driver"], "e1000e")
        equal(f"list: {address}: driver_override", listed[address]["driver_override"], None)
        equal(f"list: {address}: group", str(listed[address]["iommu_group"]), vm.group(address))


def explain_names_the_driver(vm, nic):
    document = vm.vfioctl("explain", nic)
    equal("explain: best driver", document["best"]["driver"], "vfio-pci")
    among("explain: best module", document["best"]["module"], ("vfio_pci", "vfio-pci"))
