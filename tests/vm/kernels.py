# SPDX-License-Identifier: MIT OR Apache-2.0
"""The kernels the tests run on: a row each, and what is made of its packages."""

import dataclasses
import pathlib
import re
import subprocess

import fetch
import unpacked

# name: (suite, package whose linux-* dependencies are the kernel, run when --kernel is not given)
KERNELS = {
    "6.1": ("bookworm", "linux-image-amd64", True),
    "6.12": ("bookworm-backports", "linux-image-amd64", True),
    "7": ("trixie-backports", "linux-image-amd64", False),
}


def defaults():
    return [name for name, row in KERNELS.items() if row[2]]


@dataclasses.dataclass
class Kernel:
    name: str
    release: str
    image: pathlib.Path
    modules: pathlib.Path

    def find_modules(self, names):
        """The files of `names` and of all they depend on, relative to the modules directory."""
        files = {}
        depends = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            file, _, rest = line.partition(":")
            files[module_name(file)] = file
            depends[module_name(file)] = [module_name(other) for other in rest.split()]
        for line in (self.modules / "modules.softdep").read_text().splitlines():
            if line.startswith("softdep "):
                _, module, *rest = line.split()
                # Those that do not exist here are optional (modprobe.d(5)).
                depends.setdefault(module, []).extend(name for name in map(plain, rest) if name in files)
        builtin = {module_name(line) for line in (self.modules / "modules.builtin").read_text().splitlines()}
        found = set()
        waiting = [plain(name) for name in names]
        while waiting:
            name = waiting.pop()
            if files.get(name) in found or (name in builtin and name not in files):
                continue
            if name not in files:
                raise FileNotFoundError(f"kernel {self.release}: no module {name}; see MODULES in image.py")
            found.add(files[name])
            waiting += depends.get(name, [])
        return sorted(found)


def plain(name):
    return name.replace("-", "_")


def module_name(path):
    return plain(pathlib.Path(path).name.partition(".ko")[0])


def prepare(cache, name, tools):
    """The kernel `name`, fetched and with its module tables made, from the cache if it is there."""
    suite, package, _ = KERNELS[name]

    def make(directory):
        archive = fetch.archive(cache, suite)
        # Newer kernels are split over several packages, all of them linux-*.
        fetch.unpack(archive.exactly(*archive.depends(package, "linux-.*")), directory)
        if not (directory / "lib/modules").exists():
            (directory / "lib").mkdir(exist_ok=True)
            (directory / "lib/modules").symlink_to("../usr/lib/modules")
        kmod = unpacked.command(tools, "bin/kmod")
        # kmod goes by the name it is called; its loader passes ours on.
        depmod = [kmod[0], "--argv0", "depmod", *kmod[1:]]
        subprocess.run([*depmod, "--basedir", directory, release_of(directory).name], check=True)

    tree = fetch.tree(cache / f"kernel-{name}", make)
    modules = release_of(tree)
    # Beside its modules from about 6.19 on.
    images = (tree / "boot" / f"vmlinuz-{modules.name}", modules / "vmlinuz")
    image = next((path for path in images if path.is_file()), None)
    if image is None:
        raise FileNotFoundError(f"no {images[0]} and no {images[1]}; remove {tree} and run again")
    return Kernel(name, modules.name, image, modules)


def release_of(tree):
    found = [path for path in (tree / "lib/modules").iterdir() if re.match(r"\d", path.name)]
    if len(found) != 1:
        raise FileNotFoundError(f"{tree}/lib/modules: {len(found)} kernels instead of one; remove {tree} and run again")
    return found[0]
