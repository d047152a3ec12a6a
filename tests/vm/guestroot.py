# SPDX-License-Identifier: MIT OR Apache-2.0
"""The root file system of guests with systemd: Debian packages unpacked, settled, and made into an image.

No maintainer script runs and nothing is mounted, so that this needs no root; what those scripts would have left and
the guest needs is made here. Everything comes from the packages, the programs that make it included.
"""

import os
import shutil
import subprocess

import fetch
import unpacked

SUITE = "trixie"
PACKAGES = [
    "systemd-sysv",
    "udev",
    "base-files",
    "base-passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "dmsetup",
    "driverctl",
    "e2fsprogs",
    "findutils",
    "gawk",
    "grep",
    "iproute2",
    "kmod",
    "libc-bin",
    "mount",
    "nvme-cli",
    "pciutils",
    "procps",
    "python3",
    "sed",
    "strace",
    "util-linux",
]
# For dpdk-devbind.py alone: the rest of what it depends on is DPDK.
WITHOUT_CLOSURE = ["dpdk"]

# Modules of test devices, and what the tests load, with all they depend on. The tables stay those of the whole kernel.
MODULES = [
    "8021q",
    "ahci",
    "autofs4",
    "bonding",
    "bridge",
    "dm-mod",
    "e1000",
    "e1000e",
    "ext4",
    "igb",
    "igbvf",
    "loop",
    "nvme",
    "vfio-pci",
    "vfio_iommu_type1",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "xhci_pci",
]

# Not for a guest that lives for seconds. Masked below /usr: a case may have an empty /etc.
MASKED = [
    "dpdk.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "ldconfig.service",
    "nvmefc-boot-connections.service",
    "nvmf-autoconnect.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "systemd-binfmt.service",
    "systemd-creds.socket",
    "systemd-firstboot.service",
    "systemd-hostnamed.socket",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-logind.service",
    "systemd-networkd.socket",
    "systemd-pcrmachine.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tpm2-setup-early.service",
    "systemd-tpm2-setup.service",
    "systemd-update-done.service",
    "systemd-user-sessions.service",
    "uuidd.socket",
]

NOT_NEEDED = ["usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo"]

FILES = {
    "etc/fstab": "",
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost guest\n",
    # Without one it would be a first boot, with every unit's preset applied.
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    # With an empty /etc it is one.
    "usr/lib/systemd/system-preset/00-guest.preset": "disable *\n",
}
LINKS = {"usr/bin/awk": "gawk", "usr/lib/systemd/system/default.target": "multi-user.target"}

IMAGE_SIZE = "2G"
# Fast to make and to mount.
FEATURES = "^metadata_csum,^64bit,^resize_inode"


def tree(cache):
    """The unpacked packages, ready to boot."""
    packages = {name: globals()[name] for name in ("SUITE", "PACKAGES", "WITHOUT_CLOSURE", "MASKED", "FILES", "LINKS")}

    def make(directory):
        archive = fetch.archive(cache, SUITE)
        debs = archive.closure(*PACKAGES) + archive.exactly(*WITHOUT_CLOSURE)
        # The links /bin, /lib and so on are its: before anything is unpacked through them.
        debs.sort(key=lambda deb: not deb.name.startswith("base-files_"))
        fetch.unpack(debs, directory)
        settle(directory)

    return fetch.keyed(cache, "guest", packages, make)


def settle(root):
    """What the packages' scripts would have left."""
    for name in NOT_NEEDED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / f"etc/{name}")
    for name, text in FILES.items():
        (root / name).write_text(text)
    for unit in MASKED:
        replace_by_link(root / "usr/lib/systemd/system" / unit, "/dev/null")
    for name, target in LINKS.items():
        replace_by_link(root / name, target)
    run(root, "usr/bin/systemd-sysusers", f"--root={root}")
    run(root, "usr/bin/systemd-hwdb", f"--root={root}", "--usr", "update")


def replace_by_link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def image(cache, root, kernels):
    """An ext4 image of the tree `root` with the modules of all `kernels`; for reading only, see qcow2.py."""
    contents = {"tree": root.name, "modules": MODULES, "kernels": [kernel.release for kernel in kernels]}

    def make(directory):
        whole = directory / "root"
        # Links to the files, and so no second copy of them.
        shutil.copytree(root, whole, symlinks=True, copy_function=os.link)
        for kernel in kernels:
            add_modules(kernel, whole / "usr/lib/modules" / kernel.release)
        make_file_system(root, directory / "image", IMAGE_SIZE, whole)
        shutil.rmtree(whole)

    return fetch.keyed(cache, f"{root.name.rpartition('-')[0]}-image", contents, make) / "image"


def add_modules(kernel, directory):
    for file in kernel.find_modules(MODULES):
        target = directory / file
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(kernel.modules / file, target)
    for table in kernel.modules.glob("modules.*"):
        os.link(table, directory / table.name)


def disk(cache):
    """An ext4 image for the test's own disk, empty."""

    def make(directory):
        make_file_system(tree(cache), directory / "image", "64M")

    return fetch.keyed(cache, "guest-disk", {"tree": tree(cache).name}, make) / "image"


def make_file_system(root, path, size, contents=None):
    arguments = ["-q", "-F", "-t", "ext4", "-O", FEATURES, "-m", "0", "-E", "root_owner=0:0"]
    arguments += ["-d", str(contents)] if contents else []
    run(root, "usr/sbin/mke2fs", *arguments, str(path), size, MKE2FS_CONFIG=str(root / "etc/mke2fs.conf"))


def run(root, program, *arguments, **environment):
    """A program of the tree, as the owner of its files."""
    command = unpacked.command(root, program, "usr/lib/x86_64-linux-gnu/systemd")
    if os.geteuid() != 0:
        command = ["unshare", "--map-root-user", *command]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=dict(os.environ, **environment))
    if done.returncode != 0:
        raise fetch.FetchError(f"{program} in {root}: {done.stderr.strip()}")
