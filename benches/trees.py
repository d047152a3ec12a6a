# SPDX-License-Identifier: MIT OR Apache-2.0
"""The hosts that are measured: as large as is asked for, in the shape of the fixtures, written by their generator."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/fixtures"))

import generate
import hosts

# A port, a PF behind it and its VFs.
UNIT = 64
# So many ports to a root bus, so many buses below it.
UNITS_OF_DOMAIN = 16


@dataclass
class Tree:
    """A host on disk, and its devices by what they are good for."""

    root: Path
    addresses: list[str]
    # ConnectX VFs that no driver has, their PF being on its own
    unbound: list[str]
    # ConnectX VFs on mlx5_core
    native: list[str]


def server(root, count):
    """A host of `count` functions, a multiple of 64: NICs, accelerators and disks with their VFs. Of these a third is on
    the native driver (if that takes VFs), a third on a VFIO one and the rest on none."""
    host = generate.Host("server", "", hosts.connectx().release, hosts.UBUNTU, hosts.DRIVERS, numa=0, loaded=VFIO)
    numbers = iter(range(count))
    for unit in range(count // UNIT):
        kind = KINDS[unit % len(KINDS)]
        pf = add_pf(host, unit, kind.pf)
        functions = [kind.vf(number, next(numbers)) for number in range(UNIT - 2)]
        host.vfs(pf, UNIT - 2, functions=functions, **kind.vfs)
    return write(host, root)


def adapters(root, count, per_pf):
    """A host of `count` ConnectX VFs, all on the native driver, for simhost."""
    title = "ConnectX PFs with many VFs"
    host = generate.Host("adapters", title, hosts.connectx().release, hosts.UBUNTU, hosts.DRIVERS)
    for unit in range(count // per_pf):
        pf = add_pf(host, unit, {"driver": "mlx5_core", **hosts.CONNECTX7})
        host.vfs(pf, per_pf, functions=[{"driver": "mlx5_core"} for _ in range(per_pf)], **hosts.CONNECTX7_VF)
    return write(host, root)


VFIO = {"vfio", "vfio_pci", "mlx5_vfio_pci", "qat_vfio_pci", "pds_vfio_pci"}


@dataclass
class Kind:
    """What a unit is: its PF, what all its VFs have, and their drivers in turn."""

    pf: dict
    vfs: dict
    native: str | None
    vfio: str

    def vf(self, number, unique):
        if number % 3 == 0 and self.native:
            return {"driver": self.native}
        if number % 3 == 1:
            return {"driver": self.vfio, "override": self.vfio, "shows": hosts.vfio(unique)}
        return {}


KINDS = [
    Kind({"driver": "mlx5_core", **hosts.CONNECTX7}, hosts.CONNECTX7_VF, "mlx5_core", "mlx5_vfio_pci"),
    Kind(
        {
            "id": "8086:4940",
            "class_": "0b4000",
            "subsystem": "8086:0000",
            "revision": 0x40,
            "driver": "4xxx",
            "bars": {0: "64p:256K", 2: "64p:4M"},
        },
        {"device": "4941", "bars": {0: "64p:8K"}},
        None,
        "qat_vfio_pci",
    ),
    Kind(
        {"driver": "nvme", **hosts.PM173X, "bars": {0: "64p:32K"}},
        {"device": "a824", "bars": {0: "64p:16K"}},
        "nvme",
        "vfio-pci",
    ),
    Kind(
        {"id": "1dd8:100c", "class_": "020000", "subsystem": "1dd8:4001", "driver": "pds_core", "bars": {0: "64p:32K"}},
        {"device": "1003", "bars": {0: "64p:32K", 2: "64p:4K"}},
        "ionic",
        "pds_vfio_pci",
    ),
]


def add_pf(host, unit, pf):
    """The unit's port and the PF behind it."""
    domain, number = divmod(unit, UNITS_OF_DOMAIN)
    bus = 0x20 + number
    port = host.port(f"{domain:04x}:00:{number + 1:02x}.0", "8086:352a", "8086:0000", (bus, bus), revision=0x10)
    shows = {}
    if pf["driver"] == "mlx5_core":
        shows = hosts.mlx5(unit, f"ens{unit}np0", f"b8:3f:d2:9a:{unit >> 8:02x}:{unit & 255:02x}", "down")
    return host.device(f"{domain:04x}:{bus:02x}:00.0", under=port, shows=shows, **pf)


def write(host, root):
    tree = host.tree()
    made = set()
    for path, content in tree.items():
        kind, content = generate.encode(path, content)
        directory, name = os.path.split(os.path.join(root, path))
        if directory not in made:
            os.makedirs(directory, exist_ok=True)
            made.add(directory)
        if kind == "link":
            os.symlink(content, os.path.join(directory, name))
        else:
            with open(os.path.join(directory, name), "wb") as file:
                file.write(content)
    adapters = [device for device in host.devices if device.pf and device.id == "15b3:101e"]
    return Tree(
        root=Path(root),
        addresses=[device.address for device in host.devices],
        unbound=[device.address for device in adapters if not device.driver],
        native=[device.address for device in adapters if device.driver == "mlx5_core"],
    )
