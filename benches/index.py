# SPDX-License-Identifier: MIT OR Apache-2.0
"""depmod's indexes of the tables that the fixtures have as text: kmod asks only these, and so does vfioctl where they are.

src/modules/index.rs has the format.
"""

import struct
import sys

MAGIC, VERSION = 0xB007F457, 0x00020001
PREFIX, VALUES, CHILDREN = 0x80000000, 0x40000000, 0x20000000


def write_indexes(directory):
    """Those of a directory of modules, but for the aliases', which the fixtures have."""
    dep = (directory / "modules.dep").read_bytes().splitlines()
    builtin = (directory / "modules.builtin").read_bytes().splitlines()
    records = (directory / "modules.builtin.modinfo").read_bytes().split(b"\0")
    pairs = (record.split(b".alias=", 1) for record in records if b".alias=" in record)
    aliases = [(alias.replace(b"-", b"_"), 0, module) for module, alias in pairs if b"." not in module]
    for name, entries in {
        "modules.dep.bin": [(module(line.split(b":")[0]), number, line) for number, line in enumerate(dep)],
        "modules.builtin.bin": [(module(line), 0, b"") for line in builtin],
        "modules.builtin.alias.bin": aliases,
        # Nobody here asks for a symbol.
        "modules.symbols.bin": [],
    }.items():
        (directory / name).write_bytes(index(entries))


def module(path):
    return path.rsplit(b"/", 1)[-1].split(b".ko")[0].replace(b"-", b"_")


class Node:
    def __init__(self):
        self.children, self.values = {}, []


def index(entries):
    """An index of (key, priority, value), each node before its children."""
    sys.setrecursionlimit(10_000)
    root = Node()
    for key, priority, value in entries:
        node = root
        for byte in key:
            node = node.children.setdefault(byte, Node())
        node.values.append((priority, value))
    written = bytearray(struct.pack(">III", MAGIC, VERSION, 0))
    struct.pack_into(">I", written, 8, write(root, written))
    return bytes(written)


def write(node, written):
    """Appends a node and what is below it, and gives what leads to it: its offset and its flags."""
    prefix = bytearray()
    while len(node.children) == 1 and not node.values:
        ((byte, node),) = node.children.items()
        prefix.append(byte)
    leads, hole = len(written), 0
    if prefix:
        leads |= PREFIX
        written += prefix + b"\0"
    if node.children:
        leads |= CHILDREN
        first, last = min(node.children), max(node.children)
        written += bytes([first, last])
        hole = len(written) - 4 * first
        written += bytes(4 * (last - first + 1))
    if node.values:
        leads |= VALUES
        written += struct.pack(">I", len(node.values))
        for priority, value in node.values:
            written += struct.pack(">I", priority) + value + b"\0"
    for byte in sorted(node.children):
        struct.pack_into(">I", written, hole + 4 * byte, write(node.children[byte], written))
    return leads
