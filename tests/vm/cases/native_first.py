# SPDX-License-Identifier: MIT OR Apache-2.0
"""A native driver that is built in, or comes before the claim, has the device first: the unit moves it, in seconds."""

from check import equal, expect

# The oldest and the newest: what lies between has nothing of its own here.
KERNELS = ["6.1", "7"]
SYSTEM = True

# The virtio NIC, whose driver is built into Debian's kernels, and the second of the twins.
VIRTIO, NIC = "0000:03:00.0", "0000:02:00.0"
FILES = {
    "/etc/vfioctl.d/50-nics.toml": "".join(
        f'[[device]]\naddress = "{address}"\ndriver = "auto"\n' for address in (VIRTIO, NIC)
    ),
    # Empty: masked. Now the selectors are told to nobody, and the first twin's uevent loads the driver of both.
    "/etc/systemd/system/vfioctl-claim.service": "",
}


def run(vm):
    equal("addresses", (vm.address("virtio"), vm.address("nic2")), (VIRTIO, NIC))
    equal("drivers at first", [vm.devices()[address].driver for address in (VIRTIO, NIC)], ["virtio-pci", "e1000e"])
    # The early claim is what writes down the selectors for udev; it does no harm when it comes late.
    vm.vfioctl("claim")
    vm.ok("udevadm control --reload && udevadm trigger --action=add --subsystem-match=pci")
    vm.settle()
    for address, native in ((VIRTIO, "virtio-pci"), (NIC, "e1000e")):
        vm.wait_driver(address, "vfio-pci")
        vm.wait_applied(address)
        device = vm.devices()[address]
        equal(f"{address}: driver_override", device.override, "vfio-pci")
        expect(device.vfio, f"{address}: no VFIO device")
        journal = vm.journal(f"vfioctl@{address}.service")
        expect(f"(was on {native})" in journal, journal)
    equal("units that failed", vm.failed_units(), [])
