# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs of an unpacked package tree, run with that tree's own loader and libraries."""

import pathlib
import subprocess

LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = "x86_64-linux-gnu"


def command(tree, program, *more):
    """The start of a command line that runs `program` (a path inside `tree`) with nothing of the machine's.

    `more` are directories inside the tree where it has libraries besides the usual ones.
    """
    directories = [tree / "usr/lib" / LIBRARIES, tree / "lib" / LIBRARIES, *(tree / name for name in more)]
    loader = next((d / LOADER for d in directories if (d / LOADER).is_file()), None)
    if loader is None:
        raise FileNotFoundError(f"{tree}: no {LOADER} in it; remove that directory and run again")
    return [str(loader), "--library-path", ":".join(map(str, directories)), str(tree / program)]


def libraries(tree, program):
    """The shared objects `program` needs, loader included, as (name, path)."""
    loader, *rest = command(tree, program)
    listed = subprocess.run([loader, "--list", *rest], check=True, capture_output=True, text=True).stdout
    return [*objects(listed), (LOADER, pathlib.Path(loader))]


def machine_libraries(program):
    """The same for a program of this machine; none for a static one or a script."""
    listed = subprocess.run(["ldd", program], check=False, capture_output=True, text=True)
    if listed.returncode != 0:
        return []
    if "not found" in listed.stdout:
        raise FileNotFoundError(f"{program}: not every library is there:\n{listed.stdout}")
    loaders = [word for word in listed.stdout.split() if word.endswith("/" + LOADER)]
    return [*objects(listed.stdout), *((LOADER, pathlib.Path(path)) for path in loaders[:1])]


def objects(listed):
    """Lines of the form "NAME => PATH (ADDRESS)"."""
    for line in listed.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow and "/" not in name:
            yield name, pathlib.Path(rest.split()[0])
