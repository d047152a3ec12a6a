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
    "7": ("trixie-backports", "linux-image-amd64", True),
}


def defaults():
    return [name for name, row in KERNELS.items() if row[2]]


@dataclasses.dataclass(frozen=True)
class Kernel:
    name: str
    release: str
    image: pathlib.Path
    modules: pathlib.Path

    def has_module(self, name):
        """Whether the kernel has it as a file."""
        return any(self.modules.rglob(f"{name}.ko*"))

    def find_modules(self, names):
        """The files of `names` and of all they depend on, in an order to load them, below the modules directory."""
        files, before, after = {}, {}, {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            file, _, rest = line.partition(":")
            files[module_name(file)] = file
            before[module_name(file)] = [module_name(other) for other in rest.split()]
        for line in (self.modules / "modules.softdep").read_text().splitlines():
            if line.startswith("softdep "):
                _, module, *rest = line.split()
                listed = before
                for word in rest:
                    if word in ("pre:", "post:"):
                        listed = before if word == "pre:" else after
                    elif plain(word) in files:
                        # Those that do not exist here are optional (modprobe.d(5)).
                        listed.setdefault(plain(module), []).append(plain(word))
        builtin = {module_name(line) for line in (self.modules / "modules.builtin").read_text().splitlines()}
        found = {}

        def add(name):
            if files.get(name) in found or (name in builtin and name not in files):
                return
            if name not in files:
                raise FileNotFoundError(f"kernel {self.release}: no module {name}, which the guest is to have")
            for other in before.get(name, []):
                add(other)
            found[files[name]] = None
            for other in after.get(name, []):
                add(other)

        for name in map(plain, names):
            add(name)
        return list(found)


def depmod(tools, base, release):
    kmod = unpacked.command(tools, "bin/kmod")
    # kmod goes by the name it is called; its loader passes ours on.
    subprocess.run([kmod[0], "--argv0", "depmod", *kmod[1:], "--basedir", base, release], check=True)


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
        depmod(tools, directory, release_of(directory).name)

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
