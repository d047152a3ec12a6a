# SPDX-License-Identifier: MIT OR Apache-2.0
"""One VF of two goes to vfio-pci; its PF is refused meanwhile; VFs made anew get it back from apply."""

from check import equal
from machine import SYSFS, expect_bound, expect_unchanged

REFUSED = 4
PF = "8086:10c9"
VF = "8086:10ca"


def run(vm):
    vm.load("igb", "igbvf")
    (pf,) = vm.with_id(PF)
    make_vfs(vm, pf, 2)
    before = vm.devices()
    vf, other = vm.with_id(VF)
    for address in (vf, other):
        equal(f"{address}: driver at first", before[address].driver, "igbvf")
    listed = {device["address"]: device for device in vm.vfioctl("list")["devices"]}
    equal(f"list: {vf}: pf", listed[vf]["pf"], pf)

    equal("bind of the VF: outcome", vm.result("bind", vf)["outcome"], "bound")
    bound = vm.devices()
    expect_bound(before, bound, vf)
    vm.ok(f"vfio-use {vf} {vm.group(vf)}")

    # The kernel would answer EBUSY, but only after the native driver's unbind took the VFs away.
    equal("bind of the PF: outcome", vm.result("bind", pf, status=REFUSED)["outcome"], "refused")
    expect_unchanged(bound, vm.devices())

    # An override goes with its device; the policy does not.
    make_vfs(vm, pf, 0)
    make_vfs(vm, pf, 2)
    expect_unchanged(before, vm.devices())
    equal("apply: outcome", vm.result("apply", vf)["outcome"], "bound")
    expect_bound(before, vm.devices(), vf)

    vm.result("unbind", vf)
    expect_unchanged(before, vm.devices())


def make_vfs(vm, pf, number):
    vm.ok(f"echo {number} >{SYSFS}/{pf}/sriov_numvfs")
