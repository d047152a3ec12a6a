# SPDX-License-Identifier: MIT OR Apache-2.0
"""Debian packages into the cache, through an apt of our own.

The mirror is the one this machine's apt sources name. Nothing is installed: apt runs with its own
sources, lists and archives and an empty dpkg status, so that it knows of no installed package, brings
a package's whole closure, libc included, and leaves the machine's package database alone. apt checks the
signatures. No root is needed.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import urllib.parse

KEYRING = "debian-archive-keyring.gpg"
MIRROR_VARIABLE = "VFIOCTL_VM_MIRROR"


class FetchError(Exception):
    """What could not be had, why, and what to do."""


def mirror():
    """The URI of a Debian archive: from the environment, or the first one in this machine's apt sources."""
    given = os.environ.get(MIRROR_VARIABLE)
    if given:
        return given.rstrip("/")
    etc = pathlib.Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for path in files:
        if path.suffix in (".list", ".sources") and path.is_file():
            for uri in uris(path.read_text(errors="replace"), path.suffix == ".sources"):
                if is_debian(uri):
                    return uri.rstrip("/")
    raise FetchError(
        f"no URI ending in /debian in {etc}/sources.list or {etc}/sources.list.d: "
        f"set {MIRROR_VARIABLE} to the URI of a Debian archive"
    )


def uris(text, deb822):
    """The URIs of a sources file, a mirror list's members in its place."""
    if deb822:
        # A field goes on in the lines that start with a blank (sources.list(5)).
        fields = re.findall(r"^URIs:((?:.*\n?)(?:[ \t].*\n?)*)", text, re.MULTILINE | re.IGNORECASE)
        found = [uri for field in fields for uri in field.split()]
    else:
        found = re.findall(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)", text, re.MULTILINE)
    for uri in found:
        if uri.startswith("mirror+file:"):
            listed = pathlib.Path(urllib.parse.urlsplit(uri).path)
            if listed.is_file():
                yield from (line.split()[0] for line in listed.read_text().splitlines() if line.strip())
        else:
            yield uri


def is_debian(uri):
    return urllib.parse.urlsplit(uri).path.rstrip("/").endswith("/debian")


def tree(path, make):
    """The directory `path`, made by `make(directory)` if it is not there yet: whole or not at all."""
    if not path.is_dir():
        unfinished = path.with_name(path.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(path)
    return path


def keyed(cache, name, contents, make):
    """A directory of the cache, made by `make(directory)`, by the name of what goes into it.

    The one with other contents that it takes the place of is removed.
    """
    key = hashlib.sha256(repr(contents).encode()).hexdigest()[:12]
    path = cache / f"{name}-{key}"
    if not path.is_dir():
        for old in cache.glob(f"{name}-" + "[0-9a-f]" * 12 + "*"):
            shutil.rmtree(old)
    return tree(path, make)


def unpack(debs, directory):
    for deb in debs:
        subprocess.run(["dpkg-deb", "--extract", deb, directory], check=True)
        deb.unlink()


@functools.cache
def archive(cache, suite):
    """The archive of a suite, its lists fetched at most once a run."""
    return Archive(cache, suite)


class Archive:
    """One suite of the Debian archive, and the suites it builds on."""

    def __init__(self, cache, suite):
        self.suite = suite
        self.directory = cache / "apt" / suite
        self.mirror = mirror()
        base = suite.removesuffix("-backports")
        self.suites = [base] if base == suite else [base, suite]
        self.updated = False

    def closure(self, *packages):
        """Everything `packages` depend on, as a list of .deb files."""
        request = ["--no-install-recommends", "install", "-t", self.suite, *packages]
        lines = self.apt_get("--print-uris", "-qq", *request).splitlines()
        return self.download(packages[0], lines, ["--download-only", "-y", "-qq", *request])

    def added(self, packages, more):
        """What `more` depend on and `packages` do not, as a list of .deb files."""
        options = ["--print-uris", "-qq", "--no-install-recommends", "install", "-t", self.suite]
        known = set(self.apt_get(*options, *packages).splitlines())
        lines = [line for line in self.apt_get(*options, *packages, *more).splitlines() if line not in known]
        # A file is named NAME_VERSION_ARCHITECTURE.deb, with the version's colon as %3a.
        files = [line.split()[1].split("_") for line in lines if line.startswith("'")]
        versions = [f"{name}={urllib.parse.unquote(version)}" for name, version, _ in files]
        return self.download(more[0], lines, ["download", "-qq", *versions])

    def exactly(self, *packages):
        """These packages alone, as a list of .deb files."""
        lines = self.apt_get("download", "--print-uris", "-qq", *self.pinned(packages)).splitlines()
        return self.download(packages[0], lines, ["download", "-qq", *self.pinned(packages)])

    def depends(self, package, pattern):
        """The packages of `package`'s closure whose names match `pattern`, without alternatives that do not exist."""
        self.update()
        options = ["--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]
        options += ["--no-replaces", "--no-enhances"]
        out = self.apt("apt-cache", "-t", self.suite, "depends", *options, package)
        return [name for name in out.splitlines() if re.fullmatch(pattern, name)]

    def pinned(self, packages):
        return [f"{name}/{self.suite}" for name in packages]

    def download(self, name, lines, request):
        # A line of --print-uris: 'URI' FILE SIZE HASH
        listed = [line.split() for line in lines if line.startswith("'")]
        if not listed:
            raise FetchError(f"{name}: nothing to fetch from {self.mirror} {self.suite}; is the package there?")
        size = sum(int(fields[2]) for fields in listed)
        print(
            f"fetching {name}: {len(listed)} packages, {size // 1_000_000} MB, "
            f"from {self.mirror} {self.suite} into {self.directory}",
            flush=True,
        )
        self.apt_get(*request)
        archives = self.directory / "archives"
        return [archives / fields[1] for fields in listed]

    def apt_get(self, *arguments):
        self.update()
        return self.apt("apt-get", *arguments)

    def update(self):
        if self.updated:
            return
        self.configure()
        print(f"fetching package lists from {self.mirror} {' '.join(self.suites)} into {self.directory}", flush=True)
        self.apt("apt-get", "update", "-qq")
        self.updated = True

    def configure(self):
        # What an interrupted run left would be missing in apt's list of what it has to fetch.
        shutil.rmtree(self.directory / "archives", ignore_errors=True)
        for name in ("lists/partial", "archives/partial", "empty"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "status").write_text("")
        key = keyring(self.directory)
        (self.directory / "sources.list").write_text(
            "".join(f"deb [signed-by={key}] {self.mirror} {suite} main\n" for suite in self.suites)
        )
        # Of the machine's own configuration only how to reach a mirror is kept (proxies and the like):
        # its hooks would run for our downloads too.
        dump = subprocess.run(["apt-config", "dump", "Acquire"], check=True, capture_output=True, text=True).stdout
        kept = [line for line in dump.splitlines() if not line.startswith("Acquire::IndexTargets")]
        here = self.directory
        (here / "apt.conf").write_text(
            "\n".join(
                kept
                + [
                    f'Dir::Etc::parts "{here}/empty";',
                    'Dir::Etc::main "/dev/null";',
                    f'Dir::Etc::sourcelist "{here}/sources.list";',
                    f'Dir::Etc::sourceparts "{here}/empty";',
                    f'Dir::Etc::preferencesparts "{here}/empty";',
                    'Dir::Etc::preferences "/dev/null";',
                    f'Dir::State "{here}";',
                    f'Dir::State::lists "{here}/lists";',
                    f'Dir::State::status "{here}/status";',
                    f'Dir::Cache "{here}";',
                    f'Dir::Cache::archives "{here}/archives";',
                    # Tens of megabytes a suite that save half a second.
                    'Dir::Cache::pkgcache "";',
                    'Dir::Cache::srcpkgcache "";',
                    'Acquire::Languages "none";',
                    # The sandbox user cannot write into a directory of ours.
                    'APT::Sandbox::User "root";',
                    "",
                ]
            )
        )

    def apt(self, *command):
        environment = dict(os.environ, APT_CONFIG=str(self.directory / "apt.conf"), LC_ALL="C.UTF-8")
        done = subprocess.run(
            command, cwd=self.directory / "archives", env=environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise FetchError(f"{' '.join(command)} ({self.mirror} {self.suite}): {done.stderr.strip()}")
        return done.stdout


def keyring(directory):
    """Debian's archive keys: the machine's, or on another distribution those of its own keyring package."""
    for path in (pathlib.Path("/usr/share/keyrings") / KEYRING, directory / "usr/share/keyrings" / KEYRING):
        if path.is_file():
            return path
    package = "debian-archive-keyring"
    print(f"fetching {package} with this machine's own apt into {directory}", flush=True)
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["apt-get", "download", "-qq", package], cwd=directory, check=True)
        unpack(directory.glob(f"{package}_*.deb"), directory)
        return directory / "usr/share/keyrings" / KEYRING
    raise FetchError(f"no {KEYRING} in /usr/share/keyrings and no package {package}: apt-get install {package}")
