# SPDX-License-Identifier: MIT OR Apache-2.0
"""What was bound and saved, then taken back by hand, is brought again by apply."""

from check import equal
from machine import SYSFS, expect_bound, expect_unchanged


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    nic, _ = vm.nics()
    vm.vfioctl("bind", nic)

    vm.ok(f"echo {nic} >/sys/bus/pci/drivers/vfio-pci/unbind")
    vm.ok(f"echo >{SYSFS}/{nic}/driver_override")
    vm.ok(f"echo {nic} >/sys/bus/pci/drivers/e1000e/bind")
    expect_unchanged(before, vm.devices())

    equal("apply: outcome", vm.result("apply", nic)["outcome"], "bound")
    expect_bound(before, vm.devices(), nic)
    equal("second apply: outcome", vm.result("apply", nic)["outcome"], "unchanged")

    # Without addresses it does the whole policy.
    vm.ok(f"echo {nic} >/sys/bus/pci/drivers/vfio-pci/unbind")
    outcomes = {result["address"]: result["outcome"] for result in vm.vfioctl("apply")["results"]}
    equal("apply of everything: outcome", outcomes.get(nic), "bound")
    expect_bound(before, vm.devices(), nic)

    vm.vfioctl("unbind", nic)
    equal("apply without a policy: results", vm.vfioctl("apply")["results"], [])
    expect_unchanged(before, vm.devices())
