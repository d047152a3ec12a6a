# SPDX-License-Identifier: MIT OR Apache-2.0
"""A guest with systemd: native drivers are bound, and vfioctl's reading verbs see groups and a mounted disk, and change nothing."""

from check import equal, expect
from machine import expect_unchanged

# The oldest and the newest: what lies between has nothing of its own here.
KERNELS = ["6.1", "7"]
SYSTEM = True

# By the name of the device; None where the kernel has no driver for it.
NATIVE = {
    "nic1": "e1000e",
    "nic2": "e1000e",
    "edu1": None,
    "edu2": None,
    "virtio": "virtio-pci",
    "behind": None,
    "pf": "igb",
    "nvme": "nvme",
    "multi0": "e1000",
    "multi1": "xhci_hcd",
    "multi2": None,
}


def run(vm):
    equal("kernel", vm.ok("uname -r").strip(), vm.kernel.release)
    equal("units that failed", vm.failed_units(), [])
    # Nothing is kept, so nothing was started.
    equal("vfioctl-claim.service", vm.unit("vfioctl-claim.service", "ConditionResult")["ConditionResult"], "no")
    vm.ok("mkdir -p /mnt/disk && mount /dev/disk/by-id/nvme-*guest-disk /mnt/disk && echo data >/mnt/disk/file")
    before = vm.devices()
    for name, driver in NATIVE.items():
        equal(f"{name}: driver", before[vm.address(name)].driver, driver)

    listed = {device["address"]: device for device in vm.vfioctl("list")["devices"]}
    equal("devices that vfioctl lists", sorted(listed), sorted(before))
    for address in before:
        equal(f"{address}: driver", listed[address]["driver"], before[address].driver)
    expect_group(vm, listed, "nvme")
    expect_group(vm, listed, "multi0", "multi1", "multi2")
    expect_group(vm, listed, "bridge", "behind")
    nvme = vm.address("nvme")
    equal("nvme: group", listed[nvme]["iommu_group"], int(vm.group(nvme)))
    for verb in ("show", "explain", "match"):
        vm.vfioctl(verb, nvme)

    expect_unchanged(before, vm.devices())
    vm.ok("sync && umount /mnt/disk && mount /dev/disk/by-id/nvme-*guest-disk /mnt/disk")
    equal("the file on the disk", vm.ok("cat /mnt/disk/file"), "data\n")


def expect_group(vm, listed, *names):
    """These share a group with each other and nothing else."""
    addresses = sorted(vm.address(name) for name in names)
    group = listed[addresses[0]]["iommu_group"]
    expect(group is not None, f"{addresses[0]}: no IOMMU group")
    together = sorted(address for address, device in listed.items() if device["iommu_group"] == group)
    equal(f"group {group}", together, addresses)
