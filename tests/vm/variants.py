# SPDX-License-Identifier: MIT OR Apache-2.0
"""The variant drivers of drivers/, built for a kernel of the table, and that kernel with them installed.

A module wants the kernel's headers and the compiler that the kernel was built with, which is often newer
than this machine's. Both are unpacked into a tree of their own, and make runs with that as its root: for
that it takes root, or a user namespace.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess

import fetch
import kernels

SOURCES = pathlib.Path(__file__).resolve().parents[2] / "drivers"

# For a guest that has them: these, and what a case makes a PF's VFs with when igb is not to have it.
MODULES = ["edu_vfio_pci", "igbvf_vfio_pci", "pci-pf-stub"]

# What kbuild runs, besides the compiler.
TOOLS = ["make", "binutils", "dash", "coreutils", "sed", "grep", "findutils", "mawk", "base-files"]

# Beside the kernel's own; depmod prefers them (depmod.d(5)).
PLACE = "updates"

# Those of the kernel's build, which depmod reads. The others it makes.
BUILD_TABLES = ("modules.order", "modules.builtin", "modules.builtin.modinfo")

# $1 is the tree, $2 a copy of the sources. objtool reads /proc; the mounts go with their namespace.
MAKE = """
set -e
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --bind "$2" "$1/build"
exec chroot "$1" /usr/bin/env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 \
    make -s -C /build KDIR="/usr/src/linux-headers-$3" KCFLAGS=-Werror modules
"""


def installed(cache, kernel, tools):
    """`kernel` with the modules of drivers/ among its own."""
    return place(kernel, tree(cache, kernel), tools)


def place(kernel, built, tools):
    """`kernel` with the modules that were built in the tree `built`, and in its module tables, as depmod makes them."""
    modules = sorted((built / "modules").glob("*.ko"))

    def make(directory):
        release = directory / "lib/modules" / kernel.release
        # Hard links: the files are many and stay as they are.
        shutil.copytree(kernel.modules / "kernel", release / "kernel", copy_function=os.link)
        for name in BUILD_TABLES:
            shutil.copy(kernel.modules / name, release)
        (release / PLACE).mkdir()
        for module in modules:
            shutil.copy(module, release / PLACE)
        kernels.depmod(tools, directory, kernel.release)

    whole = fetch.tree(built / "installed", make)
    return dataclasses.replace(kernel, modules=whole / "lib/modules" / kernel.release)


def tree(cache, kernel):
    """The directory of what was built, named by what it was built from."""

    def make_tree(directory):
        work = directory / "work"
        work.mkdir()
        for path in sources():
            shutil.copy(path, work)
        make(cache, kernel, work, f"drivers/ for {kernel.release}")
        keep(work, directory)

    contents = [(path.name, path.read_bytes()) for path in sources()]
    return fetch.keyed(cache, f"variants-{kernel.release}", contents, make_tree)


def sources():
    """The files of drivers/ that modules are built from."""
    return [SOURCES / "Makefile", SOURCES / "Kbuild", *sorted(SOURCES.glob("*.[ch]"))]


def make(cache, kernel, work, what):
    """Build the modules of the sources in `work`, there."""
    headers = prepare(cache, kernel)
    print(f"building {what}", flush=True)
    subprocess.run([*private_root(), "sh", "-c", MAKE, "sh", headers, work, kernel.release], check=True)


def keep(work, directory):
    """The modules out of `work`, which goes."""
    (directory / "modules").mkdir()
    for module in work.glob("*.ko"):
        shutil.move(module, directory / "modules")
    shutil.rmtree(work)


def prepare(cache, kernel):
    """The tree to build in: the kernel's headers, its compiler and what make runs."""
    suite, _, _ = kernels.KERNELS[kernel.name]
    package = f"linux-headers-{kernel.release}"

    def make(directory):
        archive = fetch.archive(cache, suite)
        try:
            # Without what else they depend on: some want the kernel's image too.
            headers = archive.depends(package, "linux-(headers|kbuild|compiler)-.*")
            # The compiler, and what kbuild's own programs are linked with.
            needed = archive.depends(package, r"gcc-\d+(-for-host)?|libelf1(t64)?|libssl3(t64)?")
        except fetch.FetchError as error:
            raise fetch.FetchError(
                f"{error}\nif the mirror has a newer kernel by now: remove {cache}/kernel-{kernel.name} and run again"
            ) from None
        fetch.unpack(archive.exactly(*headers), directory)
        fetch.unpack(archive.closure(*sorted(needed), *TOOLS), directory)
        (directory / "build").mkdir()
        # By dpkg's alternatives on an installed system.
        (directory / "usr/bin/awk").symlink_to("mawk")

    return fetch.tree(cache / f"headers-{kernel.release}", make)


def private_root():
    """The start of a command line that runs as root, or seemingly so, and in mounts of its own."""
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    if (tried := subprocess.run([*command, "true"], capture_output=True, text=True)).returncode != 0:
        raise PermissionError(
            f"{' '.join(command)}: {tried.stderr.strip()}: modules are built with a root of their own. Run this as "
            "root, in a container with --privileged, or allow user namespaces "
            "(sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0)"
        )
    return command
