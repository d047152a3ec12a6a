# SPDX-License-Identifier: MIT OR Apache-2.0
"""Debian's initramfs-tools and dracut, run on the root file system of guests to make real images for them.

They run in that root, in a user and mount namespace of their own, as on the guest itself, which would take minutes to run
them where it is emulated. What they see of the guest's devices is what the guest has told.
"""

import os
import shutil
import subprocess

import fetch
import guestroot
import system
from machine import SYSFS

# These without the packages that have them run by themselves, of which there can be only one.
PACKAGES = ["initramfs-tools-core", "dracut-core", "zstd"]

# Besides what its own hooks bring: the native driver of what is claimed, and what the root is on.
MODULES = ["nvme", "virtio_pci", "virtio_blk", "ext4"]

# $1 the root, $2 a directory for the image, and the command.
IN_ROOT = """
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
# Mounts, as far as dracut looks: else it makes an image for any host.
mount --bind "$1/sys" "$1/sys"
mount -t tmpfs tmpfs "$1/run"
mount -t tmpfs tmpfs "$1/tmp"
mkdir "$1/tmp/image"
mount --bind "$2" "$1/tmp/image"
root=$1
shift 2
# dracut knows by it where libraries are that nothing is linked with.
chroot "$root" ldconfig
exec chroot "$root" "$@"
"""

BUILDERS = {
    "initramfs-tools": lambda release: ["mkinitramfs", "-o", "/tmp/image/image", release],
    "dracut": lambda release: [
        *["dracut", "--force", "--hostonly", "--no-hostonly-cmdline", "--no-hostonly-default-device"],
        *["--add-drivers", " ".join(MODULES), "--kver", release, "/tmp/image/image"],
    ],
}


def tree(cache):
    """The tree of guestroot with both in it."""
    base = guestroot.tree(cache)

    def make(directory):
        debs = fetch.archive(cache, guestroot.SUITE).added(guestroot.PACKAGES, PACKAGES)
        # Links to the files, and so no second copy of them; whatever comes in the place of one is a new file.
        shutil.copytree(base, directory, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
        fetch.unpack(debs, directory)

    return fetch.keyed(cache, "guest-early", {"base": base.name, "packages": PACKAGES}, make)


def build(vm, builder, policy):
    """An image for the guest by `builder`, with our part of it installed and the files `policy` in force; its path."""
    root, images = vm.directory / "early", vm.directory / f"image-{builder}"
    shutil.rmtree(root, ignore_errors=True)
    images.mkdir()
    shutil.copytree(tree(vm.host.cache), root, symlinks=True, copy_function=os.link)
    try:
        guestroot.add_modules(vm.kernel, root / "usr/lib/modules" / vm.kernel.release)
        system.make(vm.host.vfioctl, root, "install", f"install-{builder}")
        write(root / "etc/initramfs-tools/modules", "\n".join(MODULES))
        for path, text in policy.items():
            write(root / path.removeprefix("/"), text)
        # Which driver a device is to have its modalias says.
        told = vm.ok(f'cd {SYSFS} && for address in *; do echo "$address $(cat $address/modalias)"; done')
        for address, modalias in map(str.split, told.splitlines()):
            write(root / SYSFS.removeprefix("/") / address / "modalias", f"{modalias}\n")
        command = ["unshare", "--map-root-user", "--mount", "sh", "-ec", IN_ROOT, "sh", str(root), str(images)]
        done = subprocess.run(
            [*command, *BUILDERS[builder](vm.kernel.release)],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8"},
        )
        if done.returncode != 0 or not (images / "image").is_file():
            raise RuntimeError(f"{builder}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return images / "image"
    finally:
        shutil.rmtree(root)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not into the file of another tree.
    path.unlink(missing_ok=True)
    path.write_text(text)
