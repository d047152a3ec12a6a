# SPDX-License-Identifier: MIT OR Apache-2.0
"""A qcow2 image that has nothing of its own yet over a raw one: what a guest writes goes into it.

docs/interop/qcow2.rst of QEMU. Written here because qemu-img would be one more package to fetch.
"""

import struct

MAGIC = b"QFI\xfb"
VERSION = 3
CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
REFCOUNT_ORDER = 4
HEADER_LENGTH = 104
END_OF_EXTENSIONS = 0
BACKING_FORMAT = 0xE2792ACA

# A cluster each: the header, the table of refcount blocks, the one such block, then the table of guest addresses.
REFCOUNT_TABLE = 1 * CLUSTER
REFCOUNT_BLOCK = 2 * CLUSTER
L1_TABLE = 3 * CLUSTER
CLUSTERS = 4


def overlay(path, base):
    """Write an empty overlay on the raw image `base` to `path`."""
    size = base.stat().st_size
    # A cluster's worth of addresses is an L2 table, which an L1 entry refers to.
    entries = -(-size // (CLUSTER * (CLUSTER // 8)))
    name = str(base).encode()
    extensions = struct.pack(">II8s", BACKING_FORMAT, len(b"raw"), b"raw") + struct.pack(">II", END_OF_EXTENSIONS, 0)
    header = MAGIC + struct.pack(
        ">IQIIQIIQQIIQQQQII",
        VERSION,
        HEADER_LENGTH + len(extensions),
        len(name),
        CLUSTER_BITS,
        size,
        0,  # not encrypted
        entries,
        L1_TABLE,
        REFCOUNT_TABLE,
        1,  # clusters of that table
        0,  # no snapshots
        0,
        0,  # no incompatible, compatible or autoclear features
        0,
        0,
        REFCOUNT_ORDER,
        HEADER_LENGTH,
    )
    with open(path, "wb") as out:
        out.write(header + extensions + name)
        out.seek(REFCOUNT_TABLE)
        out.write(struct.pack(">Q", REFCOUNT_BLOCK))
        out.seek(REFCOUNT_BLOCK)
        out.write(struct.pack(">H", 1) * CLUSTERS)
        out.truncate(CLUSTERS * CLUSTER)
