# SPDX-License-Identifier: MIT OR Apache-2.0
"""A variant driver bound, given back, unloaded and loaded again, ten times, and pulled from under a device."""

from check import equal, expect
from machine import KMOD, SYSFS, UNSET, expect_bound, expect_unchanged, quiet

# The oldest and the newest: what lies between has nothing of its own here.
KERNELS = ["6.1", "7"]
VARIANTS = True

EDU = "1234:11e8"
DRIVER = "edu_vfio_pci"
TIMES = 10


def run(vm):
    before = vm.devices()
    (edu,) = vm.with_id(EDU)

    for _ in range(TIMES):
        equal("bind: driver", vm.result("bind", edu)["driver"], DRIVER)
        expect_bound(before, vm.devices(), edu, DRIVER)
        vm.ok(f"vfio-use {edu} {vm.group(edu)}")
        equal("unbind: outcome", vm.result("unbind", edu)["outcome"], "unbound")
        expect_unchanged(before, vm.devices())
        vm.ok(f"{KMOD}/rmmod {DRIVER}")

    # Unloaded while bound: the device is left without a driver, and taken again by its override.
    vm.result("bind", edu)
    vm.ok(f"{KMOD}/rmmod {DRIVER}")
    unloaded = vm.devices()[edu]
    equal(f"{edu}: driver without the module", unloaded.driver, None)
    equal(f"{edu}: driver_override without the module", unloaded.override, DRIVER)
    expect(not unloaded.vfio, f"{edu}: a VFIO device without its driver")
    vm.load(DRIVER)
    expect_bound(before, vm.devices(), edu, DRIVER)

    # Not while somebody has it open.
    vm.ok(f"vfio-use {edu} {vm.group(edu)} hold >/run/holder 2>&1 & echo $! >/run/holder.pid")
    vm.wait("the holder has the device", "grep -q held /run/holder")
    answer = vm.run(f"{KMOD}/rmmod {DRIVER}")
    expect(answer.status != 0, f"{answer}\nthe module of a device in use was unloaded")
    expect_bound(before, vm.devices(), edu, DRIVER)
    vm.ok("kill $(cat /run/holder.pid)")
    vm.wait("the holder is gone", "! readlink /proc/$(cat /run/holder.pid)/exe")

    takes_no_other_device(vm)
    vm.vfioctl("unbind", edu)
    expect_unchanged(before, vm.devices())
    vm.ok(f"{KMOD}/rmmod {DRIVER}")
    quiet(vm)


def takes_no_other_device(vm):
    """Whatever an override says: it would write to registers that are not edu's."""
    nic, _ = vm.nics()
    vm.ok(f"echo {DRIVER} >{SYSFS}/{nic}/driver_override")
    answer = vm.run(f"echo {nic} >/sys/bus/pci/drivers/{DRIVER}/bind")
    expect("No such device" in answer.stderr, f"{answer}\nnot ENODEV")
    vm.ok(f"echo >{SYSFS}/{nic}/driver_override")
    device = vm.devices()[nic]
    equal(f"{nic}: driver, override", (device.driver, device.override), (None, UNSET))
