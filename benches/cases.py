# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is measured beside what. Each case gives the commands that take turns, and looks whether what they print is
right: a program that fails at once would be the fastest."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import trees
import turns
import world
from trees import REPOSITORY
from turns import Command, Wrong

# The package of each peer, for who lacks one.
PACKAGES = {
    "driverctl": "driverctl",
    "dpdk-devbind.py": "dpdk",
    "lspci": "pciutils",
    "modprobe": "kmod",
    "true": "coreutils",
    "unshare": "util-linux",
    "mount": "mount",
}


@dataclass
class Row:
    """One comparison: a name for each side, by which targets find it, and what a reader is told of each."""

    ours: str
    peer: str
    we_do: str
    they_do: str


LISTED = "`vfioctl list`, 4,096 functions"
ROWS = [
    Row("list", "driverctl", LISTED, "`driverctl list-devices`"),
    Row("list", "dpdk-devbind", LISTED, "`dpdk-devbind.py -s`"),
    Row("list", "lspci", LISTED, "`lspci -Dnnk`"),
    Row("list", "bare", LISTED, "its reads alone"),
    Row("list --json", "bare", "`vfioctl list --json`, 4,096 functions", "its reads alone"),
    Row("match ADDR", "modprobe", "`vfioctl match ADDR`", "`modprobe -R ALIAS`"),
    Row("match --modalias", "modprobe", "`vfioctl match --modalias M`", "`modprobe -R ALIAS`"),
    Row("claim", "driverctl", "`vfioctl claim --udev ADDR`", "`driverctl load-override ADDR`"),
    Row("claim", "true", "`vfioctl claim --udev ADDR`", "`/bin/true`"),
    Row("bind 16", "driverctl", "`vfioctl bind` of 16 VFs", "`driverctl set-override`, in a loop"),
    Row("bind 16", "hand", "`vfioctl bind` of 16 VFs", "`echo` in a shell's loop, nothing looked at"),
    Row("bind 64", "driverctl", "`vfioctl bind` of 64 VFs", "`driverctl set-override`, in a loop"),
    Row("bind 64", "hand", "`vfioctl bind` of 64 VFs", "`echo` in a shell's loop, nothing looked at"),
    Row("bind 256", "bare", "`vfioctl bind` of 256 VFs, each probe 20 ms", "its writes alone, many at once"),
]


class Programs:
    """Where everything is that is run."""

    def __init__(self, directory):
        self.vfioctl, self.bare, self.simhost = (str(directory / name) for name in ("vfioctl", "bare", "simhost"))
        for path in (self.vfioctl, self.bare, self.simhost):
            if not Path(path).is_file():
                raise FileNotFoundError(f"no {path}: `make bench` builds it")
        for name, package in PACKAGES.items():
            path = shutil.which(name, path=turns.ENVIRONMENT["PATH"])
            if path is None:
                raise FileNotFoundError(f"no {name} to compare with: apt-get install {package}")
            setattr(self, name.split(".")[0].replace("-", "_"), path)


def expect(truth, command, output):
    if not truth:
        raise Wrong(f"`{' '.join(command)[:200]}` printed something else than is wanted: {output[:2000]!r}")


# Listing


def listing(programs, tree, runs, peers):
    """`list` and its peers on the tree that is shown as /sys; `peers`: the runs of those that take long."""
    commands = {
        "list": Command([programs.vfioctl, "list"], runs),
        "bare": Command([programs.bare, "list"], runs),
        "list --json": Command([programs.vfioctl, "list", "--json"], runs),
        "bare --overrides": Command([programs.bare, "list", "--overrides"], runs),
    }
    if peers:
        commands |= {
            "lspci": Command([programs.lspci, "-Dnnk"], peers["lspci"]),
            "dpdk-devbind": Command([programs.dpdk_devbind, "-s"], peers["dpdk-devbind"]),
            "driverctl": Command([programs.driverctl, "list-devices"], peers["driverctl"]),
        }
    done = turns.take_turns(commands)
    drivers = expected_drivers(tree)
    for name, command in commands.items():
        found = DRIVERS_IN[name](done[name].output, drivers)
        expect(found == drivers, command.argv, done[name].output)
    return done


def expected_drivers(tree):
    """The driver of each device, read without any of the programs."""
    links = {address: tree.root / "sys/bus/pci/devices" / address / "driver" for address in tree.addresses}
    return {address: link.readlink().name if link.is_symlink() else "" for address, link in links.items()}


def of_list(output, _):
    # A class may have two words.
    rows = [line.split("  ") for line in output.splitlines()[1:]]
    rows = [[cell.strip() for cell in row if cell] for row in rows]
    return {row[0]: row[3].removeprefix("-") for row in rows}


def of_document(output, _):
    return {device["address"]: device["driver"] or "" for device in json.loads(output)["devices"]}


def of_bare(output, _):
    rows = [line.split() for line in output.splitlines()]
    return {row[0]: row[2].removeprefix("-") for row in rows}


def of_lspci(output, _):
    found = {}
    for line in output.splitlines():
        if not line.startswith("\t"):
            address = line.split()[0]
            found[address] = ""
        elif line.startswith("\tKernel driver in use: "):
            found[address] = line.split(": ")[1]
    return found


def of_driverctl(output, _):
    rows = [line.split() for line in output.splitlines()]
    return {row[0]: row[1].replace("(none)", "") for row in rows}


def of_dpdk(output, drivers):
    """It knows NICs, and some kinds of accelerators: of the others nothing is wanted."""
    lines = re.finditer(r"^(\S+:\S+) '.*?'(?:.* drv=(\S+))?.*$", output, re.MULTILINE)
    found = {match[1]: match[2] or "" for match in lines}
    return drivers | found if len(found) >= len(drivers) // 4 else found


DRIVERS_IN = {
    "list": of_list,
    "list --json": of_document,
    "bare": of_bare,
    "bare --overrides": of_bare,
    "lspci": of_lspci,
    "dpdk-devbind": of_dpdk,
    "driverctl": of_driverctl,
}


def peak(programs, argv):
    """The greatest resident size of a command, in KiB."""
    command = Command([programs.bare, "peak", *argv], 1)
    return int(turns.take_turns({"peak": command})["peak"].output)


# Matching

HOST = REPOSITORY / "tests/fixtures/connectx"
RELEASE = "7.0.0-43-generic"
ADDRESS = "0000:3b:00.1"
BEST = "mlx5_vfio_pci"


def matching(programs, scratch, runs):
    """`match` and `modprobe -R` on a fixture host, with the whole module tables of its kernel."""
    for name in ("sys", "proc"):
        shutil.copytree(HOST / name, scratch / name, symlinks=True)
    world.write_tables(scratch / "lib/modules" / RELEASE)
    (scratch / "etc/modprobe.d").mkdir(parents=True)
    modalias = (scratch / "sys/bus/pci/devices" / ADDRESS / "modalias").read_text().strip()
    match = [programs.vfioctl, "match", "--root", str(scratch)]
    resolve = [programs.modprobe, "-C", f"{scratch}/etc/modprobe.d", "-d", str(scratch), "-S", RELEASE, "-R"]
    commands = {
        "modprobe": Command([*resolve, f"vfio_{modalias}"], runs),
        "match --modalias": Command([*match, "--modalias", modalias], runs),
        "match ADDR": Command([*match, ADDRESS], runs),
    }
    done = turns.take_turns(commands)
    for name, command in commands.items():
        expect(BEST in done[name].output.split(), command.argv, done[name].output)
    return done


# Claiming


def claiming(programs, tree, runs):
    """What udev has run for a device that appears and that a choice is about, on the tree that is shown as /sys."""
    # Two of a kind: what driverctl keeps a driver for is not claimed.
    address, other = tree.unbound[:2]
    text = f"[[device]]\naddress = '{address}'\nid = '15b3:101e'\ndriver = 'auto'\n"
    Path(f"/etc/vfioctl.d/{address}.toml").write_text(text)
    Path(f"/etc/driverctl.d/pci-{other}").write_text(f"{BEST}\n")
    # No kernel is behind the tree, so that it would find no driver after a probe: driverctl is spared that too.
    load = [programs.driverctl, "--noprobe", "load-override", other]
    override = Path("/sys/bus/pci/devices") / other / "driver_override"
    commands = {
        "true": Command([programs.true], runs),
        "claim": Command([programs.vfioctl, "claim", "--udev", address], runs),
        "driverctl": Command(load, min(runs, 40)),
    }
    done = turns.take_turns(commands)
    claimed = done["claim"].output
    expect(claimed.split() == ["VFIOCTL_CLAIMED=1", f"VFIOCTL_DRIVER={BEST}"], commands["claim"].argv, claimed)
    expect(override.read_text() == f"{BEST}\n", load, override.read_text())
    return done


# Binding

DRIVER = "vfio-pci"
NATIVE = "mlx5_core"
BY_HAND = f"""for device; do
    cd /sys/bus/pci/devices/$device
    echo {DRIVER} >driver_override
    echo $device >driver/unbind
    echo $device >/sys/bus/pci/drivers/{DRIVER}/bind
done"""
IN_A_LOOP = f"for device; do driverctl set-override $device {DRIVER}; done"
# With fewer the probes take longer, with more they wait for each other in FUSE. Which is better depends on the machine;
# the better one counts.
AT_ONCE = [32, 64]
PER_PF = 128


def binding(programs, scratch, count, runs, peers):
    """Gives VFs on a simulated host from their native driver to vfio-pci."""
    tree, settled = adapters(programs, scratch, count)
    vfs = tree.native
    commands = {
        "modules": Command(["/bin/sh", "-c", f"modprobe {DRIVER}"], 1),
        f"bind {count}": Command([programs.vfioctl, "bind", "--driver", DRIVER, *vfs], runs, settled),
        "hand": Command(["/bin/sh", "-c", BY_HAND, "sh", *vfs], runs, settled),
        "driverctl": Command(["/bin/sh", "-c", IN_A_LOOP, "sh", *vfs], peers, settled),
    }
    return turns.on_host(programs.simhost, str(tree.root), [], commands)


def slow_binding(programs, scratch, count, runs):
    """The same where each probe takes 20 ms, beside what the kernel's locks allow."""
    tree, settled = adapters(programs, scratch, count)
    commands = {
        "modules": Command(["/bin/sh", "-c", f"modprobe {DRIVER}"], 1),
        f"bind {count}": Command([programs.vfioctl, "bind", "--driver", DRIVER, *tree.native], runs, settled),
    }
    for number in AT_ONCE:
        commands[f"bare {number}"] = Command([programs.bare, "bind", str(number), DRIVER, *tree.native], runs, settled)
    done = turns.on_host(programs.simhost, str(tree.root), ["*:probe:delay=20"], commands)
    done["bare"] = min((done[f"bare {number}"] for number in AT_ONCE), key=lambda one: one.median)
    return done


def adapters(programs, scratch, count):
    tree = trees.adapters(scratch / f"adapters-{count}", count, min(count, PER_PF))
    settled = [
        [programs.bare, "are-on", DRIVER, *tree.native],
        [programs.bare, "give-back", NATIVE, *tree.native],
        [programs.bare, "are-on", NATIVE, *tree.native],
        ["/bin/sh", "-c", "rm -f /etc/vfioctl.d/* /etc/driverctl.d/*"],
    ]
    return tree, settled
