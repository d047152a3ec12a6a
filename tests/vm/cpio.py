# SPDX-License-Identifier: MIT OR Apache-2.0
"""An initramfs as the kernel takes it: a "newc" cpio archive.

Documentation/driver-api/early-userspace/buffer-format.rst. Written here because that needs neither a cpio
program nor root for the device node.
"""

import os
import pathlib
import stat


class Root:
    """The files of a root directory, collected and then written at once; what is put later wins."""

    def __init__(self):
        self.entries = {}

    def file(self, path, content, mode=0o644):
        self.put(path, stat.S_IFREG | mode, content)

    def copy(self, path, source, mode=0o644):
        self.file(path, pathlib.Path(source).read_bytes(), mode)

    def tree(self, path, source):
        """Everything below the directory `source`."""
        for found in sorted(pathlib.Path(source).rglob("*")):
            name = f"{path}/{found.relative_to(source)}"
            if found.is_symlink():
                self.link(name, os.readlink(found))
            elif found.is_dir():
                self.directory(name, stat.S_IMODE(found.stat().st_mode))
            else:
                self.copy(name, found, stat.S_IMODE(found.stat().st_mode))

    def link(self, path, target):
        self.put(path, stat.S_IFLNK | 0o777, target.encode())

    def directory(self, path, mode=0o755):
        self.put(path, stat.S_IFDIR | mode, b"")

    def character_device(self, path, major, minor, mode=0o600):
        self.put(path, stat.S_IFCHR | mode, b"", (major, minor))

    def put(self, path, mode, content, device=(0, 0)):
        parent = pathlib.PurePosixPath(path).parent
        if str(parent) != "." and str(parent) not in self.entries:
            self.directory(str(parent))
        self.entries[path] = (mode, content, device)

    def write(self, path):
        with open(path, "wb") as out:
            # By path, so that a directory comes before what is in it.
            for number, name in enumerate(sorted(self.entries), 1):
                write_entry(out, number, name, *self.entries[name])
            write_entry(out, 0, "TRAILER!!!", 0, b"", (0, 0))


def write_entry(out, inode, name, mode, content, device):
    encoded = name.encode() + b"\0"
    links = 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    out.write(padded(header + encoded))
    out.write(padded(content))


def padded(data):
    return data + b"\0" * (-len(data) % 4)
