# SPDX-License-Identifier: MIT OR Apache-2.0
"""The root file system of guests that run domains: that of guests with systemd, and libvirtd and a QEMU besides."""

import os
import shutil

import fetch
import guestroot

# With all they depend on. The libraries are for the daemon and its drivers.
PACKAGES = ["libvirt-clients", "qemu-system-x86", "libpciaccess0", "libtirpc3t64"]
# The rest of what these depend on is for polkit, D-Bus and firewalls. What libvirtd runs as it starts has to be there: a child
# that cannot run it says so by gettext, and waits for ever if a thread of the daemon was in gettext when it was forked.
WITHOUT_CLOSURE = [
    "dmidecode",
    "libvirt-daemon",
    "libvirt-daemon-common",
    "libvirt-daemon-driver-nodedev",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-log",
    "mdevctl",
]

# Besides guestroot.NOT_NEEDED. libvirtd asks each emulator it finds what it can do, which is slow where those are emulated
# themselves; firmware is for machines and boot devices that the domains do not have.
NOT_NEEDED = [
    "etc/default/libvirt-guests",
    "usr/bin/qemu-system-amd64",
    "usr/bin/qemu-system-i386",
    "usr/bin/qemu-system-x86_64-microvm",
    "usr/lib/ipxe",
    "usr/lib/systemd/system/libvirt-guests.service",
    "usr/share/alsa",
    "usr/share/libvirt/schemas",
    "usr/share/qemu/edk2-x86_64-code.fd",
]

FILES = {
    # As root and unconfined, as the devices' nodes and what a case reads of a process are root's. cgroups and namespaces are
    # neither what is tested nor what an initialised guest of seconds needs, and there is no virtlogd.
    "etc/libvirt/qemu.conf": 'user = "root"\n'
    'group = "root"\n'
    'security_driver = "none"\n'
    "cgroup_controllers = []\n"
    "namespaces = []\n"
    'stdio_handler = "file"\n',
    # By a script in the package. It is looked for though nothing runs as it here.
    "usr/lib/sysusers.d/libvirt-qemu.conf": 'u libvirt-qemu 64055 "Libvirt Qemu" /var/lib/libvirt\n',
    # Without translations a thread takes no lock of gettext's that a child of another would wait for.
    "usr/lib/systemd/system/libvirtd.service.d/guest.conf": "[Service]\nEnvironment=LC_ALL=C\n",
}
# Where the client looks for the daemon's sockets.
LINKS = {"var/run": "/run"}


def tree(cache):
    """The tree of guestroot with libvirt in it."""
    base = guestroot.tree(cache)
    contents = {name: globals()[name] for name in ("PACKAGES", "WITHOUT_CLOSURE", "NOT_NEEDED", "FILES", "LINKS")}

    def make(directory):
        archive = fetch.archive(cache, guestroot.SUITE)
        debs = archive.added(guestroot.PACKAGES, PACKAGES) + archive.exactly(*WITHOUT_CLOSURE)
        # Links to the files, and so no second copy of them; whatever comes in the place of one is a new file.
        shutil.copytree(base, directory, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
        fetch.unpack(debs, directory)
        settle(directory)

    return fetch.keyed(cache, "guest-libvirt", {"base": base.name} | contents, make)


def settle(root):
    for name in guestroot.NOT_NEEDED + NOT_NEEDED:
        if (root / name).is_dir():
            shutil.rmtree(root / name)
        else:
            (root / name).unlink(missing_ok=True)
    for name, text in FILES.items():
        (root / name).unlink(missing_ok=True)
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    for name, target in LINKS.items():
        (root / name).rmdir()
        (root / name).symlink_to(target)
    guestroot.run(root, "usr/bin/systemd-sysusers", f"--root={root}")
