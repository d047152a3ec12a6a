# SPDX-License-Identifier: MIT OR Apache-2.0
"""A device that this host uses is not taken away: its root disk, and a disk that is mounted, swapped to, mapped or held open."""

import base64
import shlex
import struct

from check import equal, expect
from machine import expect_bound, expect_unchanged

SYSTEM = True
# The oldest and the newest: between them nothing of this is another.
KERNELS = ["6.1", "7"]

REFUSED = 4

# What is not asked about only makes the boot longer.
OTHERS = ["nic1", "nic2", "virtio", "edu1", "edu2", "bridge", "behind", "pf", "multi0", "multi1", "multi2", "nvme"]
# One disk with two controllers, besides the root disk.
DEVICES = {
    **dict.fromkeys(OTHERS),
    "paths": "nvme-subsys",
    "path1": "nvme,bus=port6,serial=guest-disk,subsys=paths",
    "path2": "nvme,bus=empty1,serial=guest-disk,subsys=paths",
    "shared": "nvme-ns,drive=disk,bus=path1,nsid=1,shared=on",
}

# Start and size of each, in sectors.
PARTITIONS = [(2048, 65536), (67584, 61440)]


def run(vm):
    root_disk(vm)
    disks(vm)


def root_disk(vm):
    """What the guest lives on; whatever is forced besides."""
    path = vm.ok("readlink -f /sys/block/vda/device").strip()
    address = path.split("/")[-2]
    refused(vm, address, "root-disk", "/ (ext4) is mounted from vda")
    refused(vm, address, "root-disk", "/ (ext4) is mounted from vda", force="disk")


def disks(vm):
    one, other = vm.address("path1"), vm.address("path2")
    disk = found(vm)
    partition(vm, disk)
    with_two_paths(vm, one, other, disk)

    # From here on there is one path.
    before = vm.devices()
    vm.result("bind", "--no-save", other)
    expect_bound(before, vm.devices(), other)
    for use in (mounted, swapped, mapped, looped, held, elsewhere, unseen):
        use(vm, one, disk)
        unused(vm, one)

    before = vm.devices()
    vm.result("bind", "--no-save", one)
    expect_bound(before, vm.devices(), one)
    vm.ok(f"! test -e /sys/block/{disk}")
    vm.result("unbind", one)
    vm.wait("the disk is back", "test -b /dev/disk/by-id/nvme-*guest-disk-part1", 20)
    vm.settle()
    disk = vm.ok("readlink -f /dev/disk/by-id/nvme-*guest-disk").strip().removeprefix("/dev/")

    # As one wishes.
    vm.ok(f"mount /dev/{disk}p1 /mnt")
    before = vm.devices()
    result = vm.result("bind", "--no-save", "--force=disk", one)
    expect(any("/mnt (ext4)" in warning for warning in result["warnings"]), f"not said: {result['warnings']}")
    expect_bound(before, vm.devices(), one)


def found(vm):
    """The disk's name, which is by whichever controller came first."""
    link = "/dev/disk/by-id/nvme-*guest-disk"
    vm.wait("the disk", f"test -b {link} && test $(ls -d /sys/block/nvme*c*n1 | wc -l) = 2", 30)
    return vm.ok(f"readlink -f {link}").strip().removeprefix("/dev/")


def partition(vm, disk):
    """A table of partitions, and an ext4 on the first."""
    entries = b"".join(struct.pack("<B3xB3xII", 0, 0x83, start, size) for start, size in PARTITIONS)
    sector = base64.b64encode(entries.rjust(510 - 2 * 16, b"\0").ljust(510, b"\0") + b"\x55\xaa").decode()
    vm.ok(f"echo {sector} | base64 -d | dd of=/dev/{disk} conv=notrunc,fsync && udevadm settle && blockdev --rereadpt /dev/{disk}")
    vm.settle()
    vm.ok(f"mke2fs -q -F -t ext4 /dev/{disk}p1 && udevadm settle && mkdir -p /mnt /boot")


def with_two_paths(vm, one, other, disk):
    """Either path can go while the other stays; that is said where somebody uses the disk."""
    unused(vm, one)
    unused(vm, other)
    vm.ok(f"mount /dev/{disk}p1 /mnt")
    for address in (one, other):
        refused(vm, address, "disk", "would lose its path nvme", f"/mnt (ext4) is mounted from {disk}p1")
    vm.ok("umount /mnt")


def mounted(vm, address, disk):
    vm.ok(f"mkdir -p '/srv/a b' && mount /dev/{disk}p1 '/srv/a b' && mount --bind '/srv/a b' /mnt")
    found = refused(vm, address, "disk", f"/mnt and 1 more mount (ext4) are mounted from {disk}p1")
    end(vm, found)
    vm.ok(f"mount /dev/{disk}p1 '/srv/a b'")
    found = refused(vm, address, "disk", f"/srv/a b (ext4) is mounted from {disk}p1")
    end(vm, found)
    # What the system boots from is more.
    vm.ok(f"mount /dev/{disk}p1 /boot")
    found = refused(vm, address, "root-disk", f"/boot (ext4) is mounted from {disk}p1")
    end(vm, found)


def swapped(vm, address, disk):
    vm.ok(f"mkswap /dev/{disk}p2 && swapon /dev/{disk}p2")
    found = refused(vm, address, "root-disk", f"the system swaps to {disk}p2")
    end(vm, found)


def mapped(vm, address, disk):
    vm.ok(f"modprobe dm_mod && dmsetup create guest-disk --table '0 {PARTITIONS[0][1]} linear /dev/{disk}p1 0'")
    found = refused(vm, address, "disk", f"dm-0 (guest-disk) is active on {disk}p1")
    vm.ok("udevadm settle && mount /dev/mapper/guest-disk /mnt")
    over = refused(vm, address, "disk", f"/mnt (ext4) is mounted from {disk}p1 through dm-0 (guest-disk)")
    end(vm, over)
    end(vm, found)


def looped(vm, address, disk):
    vm.ok(f"modprobe loop && mount /dev/{disk}p1 /mnt && truncate -s 1M /mnt/image && losetup -f --show /mnt/image >/run/loop")
    name = vm.ok("cat /run/loop").strip().removeprefix("/dev/")
    refused(vm, address, "disk", f"{name} (/mnt/image) is active on {disk}p1", f"/mnt (ext4) is mounted from {disk}p1")
    vm.ok(f"losetup -d /dev/{name} && udevadm settle && umount /mnt")


def held(vm, address, disk):
    vm.ok(f"mkdir -p /dev/test && mknod /dev/test/disk b $(stat -c '0x%t 0x%T' /dev/{disk})")
    for node, words in ((f"/dev/{disk}", f"has /dev/{disk} open"), ("/dev/test/disk", f"has /dev/test/disk open, which is on {disk}")):
        pid = sleeper(vm, f"exec 9<{node}; exec sleep 1000")
        refused(vm, address, "disk", f"sleep (pid {pid}) {words}")
        stop(vm, pid)


def elsewhere(vm, address, disk):
    """A mount in a namespace of its own."""
    pid = sleeper(vm, f"exec unshare --mount --propagation private sh -c 'mount /dev/{disk}p1 /mnt; exec sleep 1000'")
    vm.wait("mounted in a namespace", f"grep -q ' /mnt ' /proc/{pid}/mountinfo")
    vm.ok("! grep -q ' /mnt ' /proc/self/mountinfo")
    found = refused(
        vm, address, "disk", f"/mnt (ext4) is mounted from {disk}p1, in the mount namespace of sleep (pid {pid})"
    )
    end(vm, found)
    stop(vm, pid)


def unseen(vm, address, disk):
    """Unmounted lazily: somebody is still there."""
    vm.ok(f"mount /dev/{disk}p1 /mnt")
    pid = sleeper(vm, "cd /mnt; exec sleep 1000")
    vm.ok("umount --lazy /mnt")
    refused(vm, address, "disk", f"a file system (ext4) of {disk}p1 is still in use, though no longer mounted")
    stop(vm, pid)


def refused(vm, address, kind, *words, force=None):
    """bind refuses for these reasons, touches nothing, and show says the same; the findings."""
    before = vm.devices()
    options = [f"--force={force}"] if force else []
    result = vm.result("bind", "--no-save", *options, address, status=REFUSED)
    error = result["error"]
    equal(f"{address}: outcome and kind", (result["outcome"], error["kind"]), ("refused", "unsafe"))
    findings = error["findings"]
    messages = [finding["message"] for finding in findings]
    for word in words:
        expect(any(word in message for message in messages), f"{address}: no '{word}' in {messages}")
    equal(f"{address}: the worst", findings[0]["kind"], kind)
    expect(f"--force={kind}" in error["hint"], f"{address}: no way named: {error['hint']}")
    expect_unchanged(before, vm.devices())
    if not force:
        equal(f"{address}: what show says", vm.vfioctl("show", address)["in_use"], findings)
    return findings


def unused(vm, address):
    vm.settle()
    equal(f"{address}: in use", vm.vfioctl("show", address)["in_use"], [])


def end(vm, findings):
    """Do what is said to mend it."""
    (finding,) = findings
    expect(finding["mend"], f"no mend: {finding}")
    vm.ok(f"{finding['mend']} && udevadm settle")


def sleeper(vm, script):
    """Runs a script that becomes `sleep`; its process."""
    vm.ok(f"sh -c {shlex.quote(script)} >/dev/null 2>&1 & echo $! >/run/sleeper")
    pid = vm.ok("cat /run/sleeper").strip()
    vm.wait("the process sleeps", f"grep -q sleep /proc/{pid}/comm")
    return pid


def stop(vm, pid):
    vm.ok(f"kill {pid}")
    vm.wait(f"{pid} gone", f"! test -d /proc/{pid}")
