# SPDX-License-Identifier: MIT OR Apache-2.0
"""The guest's root: busybox, kmod, the kernel's module tables, vfioctl and the helpers of guest/."""

import pathlib
import subprocess

import cpio
import fetch
import unpacked

HERE = pathlib.Path(__file__).parent
CONFORMANCE = HERE.parent / "conformance"
LIBRARIES = f"usr/lib/{unpacked.LIBRARIES}"

# With what they depend on. The tables stay those of the whole kernel, as on an installed machine.
MODULES = [
    "virtio_pci",
    "virtio_console",
    "vfio-pci",
    "vfio_iommu_type1",
    "e1000e",
    "virtio_net",
    "igb",
    "igbvf",
    "nvme",
    "pci-pf-stub",
]
TABLES = "modules.*"

# Where the kernel's modules, and vfioctl, look for them with /usr merged.
MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
HELPERS = ("vfio-use", "vfio-migrate")
KMOD = ("depmod", "insmod", "lsmod", "modinfo", "modprobe", "rmmod")


def tools(cache):
    """busybox and kmod, from the oldest suite in use: what is built there runs with any newer libc."""

    def make(directory):
        fetch.unpack(fetch.archive(cache, "bookworm").closure("kmod", "busybox-static"), directory)

    return fetch.tree(cache / "tools", make)


def build(path, tools_tree, kernel, vfioctl, work, extra=()):
    """Write the initramfs for `kernel` to `path`, with the modules `extra` besides the usual."""
    root = cpio.Root()
    for link, target in MERGED.items():
        root.directory(target)
        root.link(link, target)
    for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/lib/modprobe.d"):
        root.directory(name)
    # The kernel opens it for init before anything is mounted.
    root.character_device("dev/console", 5, 1)

    root.copy("usr/bin/busybox", tools_tree / "bin/busybox", 0o755)
    root.copy("usr/bin/kmod", tools_tree / "bin/kmod", 0o755)
    for name in KMOD:
        root.link(f"usr/sbin/{name}", "../bin/kmod")
    add_libraries(root, unpacked.libraries(tools_tree, "bin/kmod"))

    root.copy("usr/bin/vfioctl", vfioctl, 0o755)
    add_libraries(root, unpacked.machine_libraries(vfioctl))
    for name in HELPERS:
        root.copy(f"usr/bin/{name}", compile_helper(HERE / f"guest/{name}.c", work), 0o755)
    root.copy("usr/bin/sysop", compile_helper(CONFORMANCE / "sysop.c", work), 0o755)
    root.copy("usr/share/conformance/operations.sh", CONFORMANCE / "operations.sh")
    root.copy("init", HERE / "guest/init", 0o755)
    root.copy("usr/lib/guest/agent", HERE / "guest/agent", 0o755)

    modules = f"usr/lib/modules/{kernel.release}"
    for file in kernel.find_modules([*MODULES, *extra]):
        root.copy(f"{modules}/{file}", kernel.modules / file)
    for table in kernel.modules.glob(TABLES):
        root.copy(f"{modules}/{table.name}", table)
    root.write(path)


def add_libraries(root, libraries):
    for name, path in libraries:
        root.copy(f"{LIBRARIES}/{name}", path, 0o755)
        if name == unpacked.LOADER:
            root.link(f"usr/lib64/{name}", f"../lib/{unpacked.LIBRARIES}/{name}")


def compile_helper(source, work):
    """A static program for the guest, whose libc need not be this machine's."""
    target = work / source.stem
    command = ["cc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source)]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise FileNotFoundError("no C compiler, `cc`: apt-get install gcc libc6-dev") from None
    return target
