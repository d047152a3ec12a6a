# SPDX-License-Identifier: MIT OR Apache-2.0
"""A mount namespace whose /sys is a tree of ours, for programs that know no other root: nothing outside it changes."""

import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import index
from trees import REPOSITORY

INSIDE = "VFIOCTL_BENCH_NAMESPACE"
TABLES = REPOSITORY / "tests/fixtures/tables/ubuntu-7.0.0-43-generic-amd64"


def enter():
    """Starts this program again, in a mount namespace of its own."""
    outside = os.environ.get(INSIDE)
    if outside is None:
        argv = ["unshare", "--mount", "--propagation", "private"]
        if os.geteuid() != 0:
            argv += ["--user", "--map-root-user"]
        os.environ[INSIDE] = os.readlink("/proc/self/ns/mnt")
        os.execvp(argv[0], [*argv, sys.executable, *sys.argv])
    if outside == os.readlink("/proc/self/ns/mnt"):
        raise RuntimeError(f"{INSIDE} is set, and this is no namespace of its own: unset it")


class World:
    """What is seen in the namespace: no /sys at first, an empty /run, the choices of nobody, and the modules of an
    Ubuntu kernel in the place of those of the kernel that runs."""

    def __init__(self, scratch):
        self.scratch = Path(scratch)
        self.overlays = 0
        self.scratch.mkdir()
        mount("-t", "tmpfs", "-o", "nr_inodes=0,size=90%", "bench", self.scratch)
        mount("-t", "tmpfs", "-o", "ro", "bench", "/sys")
        mount("-t", "tmpfs", "-o", "mode=755", "bench", "/run")
        for path in ("/etc/vfioctl.d", "/etc/driverctl.d", "/lib/modules"):
            self.make_directory(path)
            self.replace(path)
        for path in ("/usr/local/lib/vfioctl.d", "/usr/lib/vfioctl.d"):
            if os.path.isdir(path):
                self.replace(path)
        write_tables(Path("/lib/modules") / os.uname().release)

    def close(self):
        """Takes away what it has in the scratch directory. What is over the machine's own directories stays there."""
        subprocess.run(["umount", "--lazy", self.scratch], check=True)

    def show(self, tree):
        """From now on this is /sys, which may be written to; until `hide`."""
        mount("--bind", tree.root / "sys", "/sys")
        kind = subprocess.run(["stat", "-f", "-c", "%T", "/sys"], capture_output=True, text=True).stdout.strip()
        if kind != "tmpfs":
            raise RuntimeError(f"/sys is {kind}, no tree of ours: nothing is started, lest the real one be written to")

    def hide(self, tree):
        """An empty /sys, which cannot be written to, and the tree is gone."""
        subprocess.run(["umount", "/sys"], check=True)
        shutil.rmtree(tree.root)

    def replace(self, path):
        """An empty directory of ours in the place of one."""
        empty = self.scratch / "empty" / path.lstrip("/")
        empty.mkdir(parents=True)
        mount("--bind", empty, path)

    def make_directory(self, path):
        """Where there is none, on an overlay that goes with the namespace."""
        if os.path.isdir(path):
            return
        at = os.path.realpath(os.path.dirname(path))
        self.overlays += 1
        upper, work = (self.scratch / f"{name}{self.overlays}" for name in ("upper", "work"))
        upper.mkdir()
        work.mkdir()
        upper.chmod(0o755)
        options = f"lowerdir={at},upperdir={upper},workdir={work}"
        if INSIDE in os.environ and "4294967295" not in Path("/proc/self/uid_map").read_text():
            options += ",userxattr"
        mount("-t", "overlay", "-o", options, "bench", at)
        os.mkdir(path)


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def write_tables(directory):
    """The whole module tables of a distribution's kernel, their indexes, and an empty file for each module that VFIO has or needs."""
    directory.mkdir(parents=True)
    for table in TABLES.glob("*.xz"):
        (directory / table.stem).write_bytes(lzma.decompress(table.read_bytes()))
    index.write_indexes(directory)
    for line in (directory / "modules.dep").read_text().splitlines():
        if "/vfio/" in line.split(":")[0]:
            for path in line.replace(":", "").split():
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                (directory / path).touch()
