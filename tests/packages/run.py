#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Installs, uses, upgrades, removes and purges the packages in clean root file systems. See packaging/README.md.

The roots have no /sys but a simulated one: no device of this machine is touched. Debian's are made by mmdebstrap from
the mirror that this machine's apt uses; rpm's is one of them with a database of rpm's in place of dpkg's.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

# The working tree stays as it was found.
sys.dont_write_bytecode = True

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/vm"))

import fetch
from check import equal, expect

# Suite: what is in its root beside the essential packages. vfioctl depends on kmod; what builds an initramfs is for the
# package that goes with it.
SUITES = {"bookworm": ["kmod", "dracut"], "trixie": ["kmod", "initramfs-tools", "systemd"]}
EARLY = {"bookworm": "vfioctl-dracut", "trixie": "vfioctl-initramfs"}
# Package managers wait for the disk much of the time.
JOBS = 2
FIXTURE = REPOSITORY / "tests/fixtures/connectx"
VF = "0000:3b:00.1"
OLD = "0.0.9-1"
# In the old package and not in the new.
OBSOLETE = "usr/share/vfioctl/obsolete"
# What package managers, and those who rebuild an initramfs, write themselves.
BOOKKEEPING = re.compile(r"(var/(lib/(apt|dpkg|rpm|systemd|initramfs-tools)|cache|log)|tmp|run|etc/ld\.so\.cache)(/|$)")
SHIPPED = [
    "etc/vfioctl.d",
    "usr/sbin/vfioctl",
    "usr/lib/systemd/system/vfioctl@.service",
    "usr/lib/systemd/system/vfioctl-claim.service",
    "usr/lib/systemd/system/sysinit.target.wants/vfioctl-claim.service",
    "usr/lib/udev/rules.d/05-vfioctl.rules",
    "usr/share/bash-completion/completions/vfioctl",
    "usr/share/fish/vendor_completions.d/vfioctl.fish",
    "usr/share/man/man8/vfioctl.8.gz",
    "usr/share/man/man5/vfioctl.d.5.gz",
    "usr/share/vfioctl/libvirt-hook",
]
# Fedora's package `filesystem` owns these, and they stay.
FILESYSTEM = ["usr/share/fish/vendor_completions.d", "usr/share/licenses", "usr/share/zsh/site-functions"]
# What an rpm may want of others. There is no repository to ask here.
WANTED = re.compile(r"kmod|dracut|/bin/(ba)?sh|lib(c|udev)\.so\.\d\(.*|rtld\(GNU_HASH\)|rpmlib\(.*|vfioctl .*")


class Root:
    """A root file system that is gone in the end."""

    def __init__(self, tarball, simhost, directory):
        self.path = pathlib.Path(directory)
        self.simhost = simhost
        run("tar", "--extract", "--directory", self.path, "--file", tarball)
        # Mount points for a simulated host.
        (self.path / "usr/lib/modules").mkdir(exist_ok=True)

    def call(self, *command):
        """A command in the root, without /sys."""
        return run("chroot", self.path, "env", "DEBIAN_FRONTEND=noninteractive", *command)

    def on_host(self, *command):
        """A command in the root on a simulated host."""
        # Shared: systemd-sysext mounts in a namespace of its own, from where it is to come here.
        script = """
            root=$1; shift
            mount --bind "$root" "$root"; mount --make-shared "$root"
            for name in dev proc run sys usr/lib/modules; do mount --rbind "/$name" "$root/$name"; done
            exec chroot "$root" "$@"
        """
        return run(self.simhost, "run", FIXTURE, "--", "sh", "-euc", script, "sh", self.path, *command)

    def text(self, name):
        return (self.path / name).read_text()

    def has(self, name):
        return os.path.lexists(self.path / name)

    def files(self):
        """Each path with what it is, but for bookkeeping."""
        found = {}
        for directory, directories, names in os.walk(self.path):
            for name in directories + names:
                path = pathlib.Path(directory, name)
                relative = str(path.relative_to(self.path))
                if not BOOKKEEPING.match(relative):
                    status = path.lstat()
                    link = os.readlink(path) if path.is_symlink() else ""
                    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                    found[relative] = (status.st_mode, status.st_uid, status.st_gid, size, link)
        return found


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("tests/packages/run.py: package managers want to be root: run this as root")
    cache = options.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(len(SUITES)) as pool:
        tarballs = dict(zip(SUITES, pool.map(lambda suite: tarball(cache, suite), SUITES)))
    tests = [
        ("Debian bookworm", tarballs["bookworm"], lambda root: debian(root, "bookworm", options)),
        ("Debian trixie", tarballs["trixie"], lambda root: debian(root, "trixie", options)),
        ("source", tarballs["bookworm"], lambda root: source(root, options)),
        ("rpm", tarballs["bookworm"], lambda root: rpm(root, options)),
        ("system extension", tarballs["trixie"], lambda root: extension(root, options)),
        ("container", tarballs["trixie"], lambda root: container(root, options)),
    ]
    tests = [test for test in tests if not options.test or test[0] in options.test]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        failed = list(pool.map(lambda test: try_one(*test, options), tests)).count(False)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0


def try_one(name, archive, test, options):
    """Whether the test passes, in a root of its own."""
    with tempfile.TemporaryDirectory(prefix="vfioctl-root-") as directory:
        os.chmod(directory, 0o755)
        try:
            test(Root(archive, options.simhost.resolve(), directory))
        except Exception as error:
            print(f"FAIL  {name}: {error}", flush=True)
            return False
        print(f"ok    {name}", flush=True)
        return True


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("test", nargs="*", metavar="TEST", help="only these, by the names that are shown")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    for name, default, help in [
        ("packages", target / "packages", "where `make packages` put them"),
        ("simhost", target / "debug/simhost", "the program that shows a simulated host"),
        ("cache", REPOSITORY / ".vm-cache", "where root file systems are kept for the next run"),
    ]:
        parser.add_argument(f"--{name}", type=pathlib.Path, metavar="PATH", default=default, help=help)
    return parser.parse_args()


def tarball(cache, suite):
    """A minimal root of the suite, as a tar archive."""

    def make(directory):
        mirror = fetch.mirror()
        print(f"making a root of {suite} from {mirror}", flush=True)
        options = ["--quiet", "--variant=apt", "--dpkgopt=path-exclude=/usr/share/locale/*"]
        run("mmdebstrap", *options, f"--include={','.join(SUITES[suite])}", suite, directory / "root.tar", mirror)

    return fetch.keyed(cache, f"packages-{suite}", SUITES[suite], make) / "root.tar"


def extension(root, options):
    """The system extension, merged by the systemd of a Debian root."""
    (root.path / "var/lib/extensions").mkdir()
    unpacked = root.path / "var/lib/extensions/vfioctl"
    run("unsquashfs", "-quiet", "-no-progress", "-dest", unpacked, options.packages / "vfioctl.raw")
    programs = (root.path / "usr/sbin").resolve()
    there = set(programs.iterdir())
    script = """
        systemd-sysext merge --no-reload >&2
        vfioctl bind "$1"
        cd /usr/lib/systemd/system
        systemd-analyze verify --man=no ./vfioctl-apply.target ./vfioctl-apply.service ./vfioctl@.service
        ls /usr/sbin
        systemd-sysext unmerge --no-reload >&2
    """
    said = root.on_host("sh", "-euc", script, "sh", VF)
    expect("bound to mlx5_vfio_pci" in said, said)
    equal("programs hidden by the extension", sorted(path.name for path in there if path.name not in said.split()), [])
    expect(root.has(f"etc/vfioctl.d/{VF}.toml"), "no choice was kept")
    expect(not root.has("usr/bin/vfioctl"), "the extension is not gone")
    starter = unpacked / "usr/lib/systemd/system/multi-user.target.d/10-vfioctl.conf"
    expect(starter.is_file(), "nothing would start it at boot")


def container(root, options):
    """What packaging/container makes an image of, on the host that is mounted in it."""
    deb = one(options.packages, "vfioctl_*.deb")
    shutil.copy(deb, root.path / "tmp")
    root.call("apt-get", "install", "--yes", "--no-install-recommends", "-oDpkg::Use-Pty=0", f"/tmp/{deb.name}")
    # The Containerfile does the same, and starts what is there.
    text = (REPOSITORY / "packaging/container/Containerfile").read_text()
    expect("apt-get install --yes --no-install-recommends /tmp/vfioctl_*.deb" in text, text)
    expect('ENTRYPOINT ["vfioctl", "--root", "/host"]' in text, text)
    script = """
        root=$1 device=$2
        for name in dev etc proc run sys usr/lib/modules; do
            mkdir -p "$root/host/$name"
            mount --rbind "/$name" "$root/host/$name"
        done
        ln -s usr/lib "$root/host/lib"
        for name in proc run; do mount --rbind "/$name" "$root/$name"; done
        mkdir -p /etc/vfioctl.d
        printf '[[device]]\\naddress = "%s"\\ndriver = "auto"\\n' "$device" >/etc/vfioctl.d/50-own.toml
        chroot "$root" vfioctl --root /host apply
        basename "$(readlink "/sys/bus/pci/devices/$device/driver")"
    """
    said = run(options.simhost, "run", FIXTURE, "--", "sh", "-euc", script, "sh", root.path, VF)
    equal("the device's driver", said.split()[-1], "mlx5_vfio_pci")


def source(root, options):
    """The tarball is the same bytes whoever makes it, what it says of itself agrees, and the binary is shut."""
    tarball = one(options.packages.parent / "dist", "*.tar.xz")
    run("sh", "-euc", f"umask 077; TZ=Asia/Tokyo {REPOSITORY}/packaging/dist $1", "sh", root.path / "tmp")
    again = root.path / "tmp" / tarball.name
    expect(again.read_bytes() == tarball.read_bytes(), f"{tarball} is not what is made again: is it of another commit?")
    version = run(REPOSITORY / "packaging/version").strip()
    written = {"debian/changelog": f"vfioctl ({version}-", "vfioctl.spec": f"\nVersion:        {version}\n"}
    for name, wanted in written.items():
        expect(wanted in (REPOSITORY / "packaging" / name).read_text(), f"packaging/{name} is not of version {version}")
    run("dpkg-deb", "--extract", one(options.packages, "vfioctl_*.deb"), root.path / "tmp/deb")
    binary = root.path / "tmp/deb/usr/sbin/vfioctl"
    headers = run("readelf", "--wide", "--file-header", "--program-headers", "--dynamic", binary)
    for mark in ("(Position-Independent Executable file)", "GNU_RELRO", "Flags: NOW PIE"):
        expect(mark in headers, f"{mark} is missing: {headers}")
    for path in (options.packages.resolve(), pathlib.Path.home() / ".cargo"):
        expect(os.fsencode(path) not in binary.read_bytes(), f"the path {path} is in the program")


def debian(root, suite, options):
    debs = {name: one(options.packages, f"{name}_*.deb") for name in ("vfioctl", EARLY[suite])}
    version = run("dpkg-deb", "--field", debs["vfioctl"], "Version").strip()
    for deb in debs.values():
        shutil.copy(deb, root.path / "tmp")
    old = older_deb(debs["vfioctl"], root.path / "tmp")
    before = root.files()

    def install(*names):
        # Without lists of packages apt has nothing to fetch: what they depend on is there, and nothing else is wanted.
        return root.call("apt-get", "install", "--yes", "--no-install-recommends", "-oDpkg::Use-Pty=0", *names)

    install(f"/tmp/{old.name}")
    check_installed(root)
    equal("zsh's completions", root.has("usr/share/zsh/vendor-completions/_vfioctl"), True)
    listed = root.call("dpkg", "--listfiles", "vfioctl").split()
    aliased = [path for path in listed if re.match(r"/(bin|sbin|lib)(/|$)", path)]
    equal("files by way of the links of merged /usr", aliased, [])
    equal("conffiles", root.call("dpkg-query", "--show", "--showformat=${Conffiles}", "vfioctl").strip(), "")
    expect(root.has(OBSOLETE), "the old package is not what was installed")
    choice, own = use(root)

    install(f"/tmp/{debs['vfioctl'].name}")
    equal("version after the upgrade", root.call("dpkg-query", "--show", "--showformat=${Version}", "vfioctl"), version)
    check_kept(root, choice, own)
    expect(not root.has(OBSOLETE), "what only the old package had is there after the upgrade")
    equal("what is not as it was packed", root.call("dpkg", "--verify", "vfioctl"), "")

    said = install(f"/tmp/{debs[EARLY[suite]].name}")
    expect("triggers for" in said, f"no initramfs would be built anew: {said}")
    check_early(root, EARLY[suite])
    said = root.call("apt-get", "remove", "--yes", EARLY[suite])
    expect("triggers for" in said, f"no initramfs would be built anew: {said}")

    root.call("apt-get", "remove", "--yes", "vfioctl")
    expect(not root.has("usr/sbin/vfioctl"), "the program is there after it was removed")
    check_kept(root, choice, own)
    root.call("apt-get", "purge", "--yes", "vfioctl", EARLY[suite])
    expect(not root.has(choice), "what `bind` kept is there after the purge")
    expect(root.has(own), "the administrator's own rules are gone with the purge")
    (root.path / own).unlink()
    (root.path / own).parent.rmdir()
    check_nothing_left(before, root.files())

    # Where there are no rules of the administrator's nothing is left at all.
    install(f"/tmp/{debs['vfioctl'].name}")
    root.on_host("vfioctl", "bind", VF)
    root.call("apt-get", "purge", "--yes", "vfioctl")
    check_nothing_left(before, root.files())


def rpm(root, options):
    """Fedora's paths and rpm's own doings. The programs in the root are Debian's, which rpm does not know of."""
    rpms = [one(options.packages, f"{name}-[0-9]*.rpm", "*.src.rpm") for name in ("vfioctl", "dracut-vfioctl")]
    for path in rpms:
        wanted = run("rpm", "--query", "--package", "--requires", path).splitlines()
        equal(f"what {path.name} wants that no system has", [name for name in wanted if not WANTED.fullmatch(name)], [])
    old = older_rpm(rpms[0], root.path / "tmp")
    for name in FILESYSTEM:
        (root.path / name).mkdir(parents=True, exist_ok=True)
    before = root.files()

    def manage(*arguments):
        # Debian's rpm has its database in the home directory.
        return run("rpm", "--root", root.path, "--dbpath", "/var/lib/rpm", *arguments)

    manage("--initdb")
    manage("--install", "--nodeps", old)
    check_installed(root)
    equal("zsh's completions", root.has("usr/share/zsh/site-functions/_vfioctl"), True)
    expect(root.has(OBSOLETE), "the old package is not what was installed")
    choice, own = use(root)

    manage("--upgrade", "--nodeps", *rpms)
    check_kept(root, choice, own)
    expect(not root.has(OBSOLETE), "what only the old package had is there after the upgrade")
    equal("what is not as it was packed", manage("--verify", "--nodeps", "vfioctl", "dracut-vfioctl"), "")
    check_early(root, "vfioctl-dracut")
    licences = manage("--query", "--licensefiles", "vfioctl").split()
    expect(len(licences) == 3 and all(root.has(path[1:]) for path in licences), f"licences: {licences}")

    manage("--erase", "vfioctl", "dracut-vfioctl")
    check_kept(root, choice, own)
    shutil.rmtree(root.path / "etc/vfioctl.d")
    check_nothing_left(before, root.files())


def check_installed(root):
    equal("--version", root.call("vfioctl", "--version"), f"vfioctl {run(REPOSITORY / 'packaging/version')}")
    equal("what is not installed", [name for name in SHIPPED if not root.has(name)], [])
    # Nothing that a rule, a unit or a hook calls is elsewhere than it is installed.
    called = set()
    for name in SHIPPED:
        if name.endswith((".service", ".rules", "-hook")):
            lines = [line for line in root.text(name).splitlines() if not line.startswith("#")]
            called |= set(re.findall(r'(?:ExecStart=|"|exec )(/(?:usr/)?s?bin/[\w-]+)', "\n".join(lines)))
            expect(not re.search(r"@[a-z]+@", root.text(name)), f"{name} is not filled in")
    equal("what is called", called, {"/usr/sbin/vfioctl"})
    for page in ("8/vfioctl.8", "5/vfioctl.d.5"):
        text = run("gzip", "--decompress", "--stdout", root.path / f"usr/share/man/man{page}.gz")
        expect(".Sh NAME" in text, f"{page} is no manual")
    if root.has("usr/bin/systemd-analyze"):
        for unit in ("vfioctl-claim.service", "vfioctl@.service"):
            root.call("systemd-analyze", "verify", "--man=no", f"/usr/lib/systemd/system/{unit}")
        root.call("udevadm", "verify", "/usr/lib/udev/rules.d/05-vfioctl.rules")


def check_early(root, package):
    if package == "vfioctl-initramfs":
        equal("prereqs", root.call("sh", "/usr/share/initramfs-tools/hooks/vfioctl", "prereqs"), "\n")
        text = root.text("usr/share/initramfs-tools/hooks/vfioctl")
    else:
        text = root.text("usr/lib/dracut/modules.d/50vfioctl/module-setup.sh")
        root.call("bash", "-n", "/usr/lib/dracut/modules.d/50vfioctl/module-setup.sh")
    expect("/usr/sbin/vfioctl initramfs" in text, f"{package} does not call what is installed")


def use(root):
    """Binds a device; gives the file that keeps the choice, and one of the administrator's own."""
    said = root.on_host("vfioctl", "list", "--class", "network")
    expect("mlx5_vfio_pci" in said, f"list: {said}")
    root.on_host("vfioctl", "bind", VF)
    choice, own = f"etc/vfioctl.d/{VF}.toml", "etc/vfioctl.d/50-own.toml"
    expect(root.text(choice).startswith("# Written by 'vfioctl "), root.text(choice))
    (root.path / own).write_text('[[device]]\naddress = "0000:3b:00.2"\ndriver = "vfio-pci"\n')
    return choice, own


def check_kept(root, *names):
    equal("choices that are gone", [name for name in names if not root.has(name)], [])


def check_nothing_left(before, after):
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    equal("what is not as it was before", sorted(changed), [])


def older_deb(deb, directory):
    """The package as it might have been before."""
    tree = directory / "older"
    run("dpkg-deb", "--raw-extract", deb, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", f"Version: {OLD}", control.read_text(), flags=re.MULTILINE))
    (tree / OBSOLETE).write_text("")
    path = directory / f"vfioctl_{OLD}_older.deb"
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, path)
    shutil.rmtree(tree)
    return path


def older_rpm(rpm, directory):
    """The same of the rpm."""
    tree = directory / "older"
    tree.mkdir()
    run("sh", "-euc", 'rpm2cpio "$1" | (cd "$2" && cpio --extract --make-directories --quiet)', "sh", rpm, tree)
    (tree / OBSOLETE).write_text("")
    spec = directory / "older.spec"
    paths = run("rpm", "--query", "--package", "--list", rpm).splitlines()
    listed = "\n".join(f'"{path}"' for path in paths if not (tree / path[1:]).is_dir())
    spec.write_text(
        f"Name: vfioctl\nVersion: {OLD.split('-')[0]}\nRelease: 1\nSummary: older\nLicense: MIT\n%description\n"
        "%install\n"
        f"cp -a {tree}/. %{{buildroot}}/\n%files\n%dir /etc/vfioctl.d\n%dir /usr/share/vfioctl\n{listed}\n/{OBSOLETE}\n"
    )
    macros = [f"_topdir {directory}/rpmbuild", f"_rpmdir {directory}", "_rpmfilename older.rpm"]
    macros += ["__brp_strip %{nil}", "__brp_compress %{nil}"]
    run("rpmbuild", "-bb", "--quiet", *(f"--define={macro}" for macro in macros), spec)
    shutil.rmtree(tree)
    return directory / "older.rpm"


def one(directory, pattern, unless="/"):
    found = [path for path in directory.glob(pattern) if not path.match(unless)]
    expect(len(found) == 1, f"{pattern} in {directory}: {len(found)} files: run `make packages`")
    return found[0]


def run(*command):
    """Its standard output; an error where it fails."""
    # A mirror's or an administrator's locale is not in the root.
    environment = dict(os.environ, LC_ALL="C.UTF-8")
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    expect(done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
