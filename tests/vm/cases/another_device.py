# SPDX-License-Identifier: MIT OR Apache-2.0
"""Another device at the address than the one that was chosen: left alone, loudly; the chosen one is bound when it is back."""

from check import equal, expect
from machine import UNSET

# The oldest and the newest: what lies between has nothing of its own here.
KERNELS = ["6.1", "7"]
SYSTEM = True

# The first of the twin NICs; the policy is about a device that used to be there.
NIC = "0000:01:00.0"
FILES = {f"/etc/vfioctl.d/{NIC}.toml": f'[[device]]\naddress = "{NIC}"\nid = "1af4:1041"\ndriver = "auto"\n'}


def run(vm):
    equal("address of the first NIC", vm.address("nic1"), NIC)
    check_left_alone(vm, NIC, "e1000e", "is about device 1af4:1041, but 8086:10d3 is there now")
    expect("vfioctl-claim.service" in vm.failed_units(), f"units that failed: {vm.failed_units()}")
    vm.ok("systemctl reset-failed")

    # The same with a slot whose card is changed while the machine runs.
    chosen, other = "e1000e,bus=empty1,romfile=", "virtio-net-pci,bus=empty1,romfile="
    slot = vm.plug("card", chosen)
    vm.result("bind", slot)
    vm.unplug("card")
    equal("address of the other card", vm.plug("card", other), slot)
    check_left_alone(vm, slot, "virtio-pci", "is about device 8086:10d3, but 1af4:1041 is there now")
    expect(f"{slot}.toml" in vm.policies(), "the choice was forgotten")
    vm.unplug("card")
    equal("address of the chosen card", vm.plug("card", chosen), slot)
    vm.wait_driver(slot, "vfio-pci")
    vm.wait_applied(slot)
    equal("units that failed", vm.failed_units(), [])


def check_left_alone(vm, address, native, words):
    unit = f"vfioctl@{address}.service"
    vm.wait(f"{unit} failed", f"systemctl is-failed {unit}")
    device = vm.devices()[address]
    equal(f"{address}: driver", device.driver, native)
    equal(f"{address}: driver_override", device.override, UNSET)
    expect(words in vm.journal(unit), vm.journal(unit))
