// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mount namespace in which the machine looks like the host.
//!
//! Nothing outside it changes: what has to be there and is not is made on overlays and tmpfs that go with the namespace.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid};
use walkdir::WalkDir;

use crate::fuse;

/// The directory, inside, of what only the namespace has.
pub const HOME: &str = "/run/simhost";
/// Programs that come first in PATH.
pub const PROGRAMS: &str = "/run/simhost/bin";
/// The device nodes of groups.
pub const VFIO_NODES: &str = "/dev/vfio";

/// Directories whose content would make a test depend on the machine it runs on.
const EMPTIED: [&str; 5] = [
    "/usr/lib/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/vfioctl.d",
    "/usr/local/lib/vfioctl.d",
    "/usr/lib/vfioctl",
];
/// Directories of /etc that the host has whether its fixture does or not.
const ETC: [&str; 3] = ["vfioctl.d", "driverctl.d", "modprobe.d"];
/// Where the programs that load modules are: none of them may reach the real kernel.
const LOADERS: [&str; 6] =
    ["/sbin/modprobe", "/usr/sbin/modprobe", "/sbin/insmod", "/sbin/rmmod", "/usr/bin/kmod", "/bin/kmod"];
/// The first paths at which the udev libraries look for names.
const HWDB: [&str; 2] = ["/etc/systemd/hwdb/hwdb.bin", "/etc/udev/hwdb.bin"];

const NO_DATA: Option<&str> = None;

/// Moves this process, which must have one thread yet, to a mount namespace of its own, as another user than root to a
/// user namespace too.
pub fn enter() -> Result<()> {
    File::options().read(true).write(true).open("/dev/fuse").context(
        "/dev/fuse cannot be opened: simhost needs FUSE (modprobe fuse), as root or with /dev/fuse open to everyone",
    )?;
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        unshare(CloneFlags::CLONE_NEWNS)
            .context("no mount namespace: root without CAP_SYS_ADMIN, as in a container?")?;
    } else {
        let way_out = "no user namespace for an ordinary user: run simhost as root, or allow them \
            (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)";
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context(way_out)?;
        for (file, text) in
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
        {
            fs::write(format!("/proc/self/{file}"), text).context(way_out)?;
        }
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NO_DATA)
        .context("the namespace cannot be made private")
}

/// Makes the namespace look like the host in a directory, but for /sys, which is left empty.
pub fn furnish(own: &Path, root: &Path, release: &str) -> Result<()> {
    let mut namespace = Namespace {
        covered: BTreeSet::new(),
        in_user_namespace: fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295")),
    };
    namespace.replace_run(root)?;
    namespace.cover(Path::new("/etc"))?;
    namespace.put_etc(root)?;
    namespace.put_modules(root, release)?;
    namespace.put_proc(root)?;
    namespace.put_names(root)?;
    namespace.put_programs(own)?;
    replace_dev()?;
    // What would be seen if the file system on it went away: nothing.
    tmpfs(Path::new("/sys"), MsFlags::MS_RDONLY)
}

/// Is /sys, here, a file system of ours? To be asked before anything that might write to it runs.
pub fn verify() -> Result<()> {
    let kind = statfs("/sys").context("/sys")?.filesystem_type();
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let last = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/sys"));
    let ours = format!(" - fuse {} ", fuse::NAME);
    if kind != FUSE_SUPER_MAGIC || !last.is_some_and(|line| line.contains(&ours)) {
        bail!("/sys is not simhost's file system: nothing is started, so that the real one is not written to");
    }
    Ok(())
}

struct Namespace {
    covered: BTreeSet<PathBuf>,
    in_user_namespace: bool,
}

impl Namespace {
    /// An empty /run: without the real one's sockets nothing here reaches the real udev and systemd.
    fn replace_run(&mut self, root: &Path) -> Result<()> {
        let run = Path::new("/run");
        if root.starts_with(run) {
            bail!("{}: a host cannot be under /run, which is replaced", root.display());
        }
        // NixOS has its programs behind links there.
        let entries = fs::read_dir(run).context("/run")?.filter_map(Result::ok);
        let links: Vec<_> =
            entries.filter_map(|entry| Some((entry.path(), fs::read_link(entry.path()).ok()?))).collect();
        tmpfs(run, MsFlags::empty())?;
        for (path, target) in links {
            symlink(target, &path).with_context(|| path.display().to_string())?;
        }
        for directory in [HOME, PROGRAMS, "/run/simhost/empty", "/run/vfioctl", "/run/lock"] {
            create_directory(Path::new(directory))?;
        }
        Ok(())
    }

    /// Lets things be made in a directory without making them.
    fn cover(&mut self, directory: &Path) -> Result<()> {
        let directory = directory.canonicalize().with_context(|| directory.display().to_string())?;
        if self.covered.contains(&directory) {
            return Ok(());
        }
        let over = Path::new(HOME).join("over").join(self.covered.len().to_string());
        let (upper, work) = (over.join("upper"), over.join("work"));
        create_directory(&upper)?;
        create_directory(&work)?;
        let mode = fs::metadata(&directory).with_context(|| directory.display().to_string())?.permissions().mode();
        fs::set_permissions(&upper, fs::Permissions::from_mode(mode)).with_context(|| upper.display().to_string())?;
        let mut options =
            format!("lowerdir={},upperdir={},workdir={}", directory.display(), upper.display(), work.display());
        if self.in_user_namespace {
            options += ",userxattr";
        }
        mount(Some("simhost"), &directory, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("no overlay over {} (modprobe overlay)", directory.display()))?;
        self.covered.insert(directory);
        Ok(())
    }

    /// Makes sure that there is something to mount on.
    fn mountpoint(&mut self, path: &Path, is_file: bool) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let ancestor = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
        self.cover(ancestor)?;
        if !is_file {
            return create_directory(path);
        }
        create_directory(path.parent().unwrap_or(Path::new("/")))?;
        // What is in the way is a link to nowhere.
        let _ = fs::remove_file(path);
        File::create(path).map(drop).with_context(|| path.display().to_string())
    }

    /// Private copies of the host's directories in /etc.
    fn put_etc(&mut self, root: &Path) -> Result<()> {
        let mut names: BTreeSet<String> = ETC.map(str::to_owned).into();
        if let Ok(entries) = fs::read_dir(root.join("etc")) {
            names.extend(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()));
        }
        for name in names {
            let (from, copy, at) =
                (root.join("etc").join(&name), Path::new(HOME).join("etc").join(&name), Path::new("/etc").join(&name));
            create_directory(&copy)?;
            if from.exists() {
                copy_directory(&from, &copy)?;
            }
            self.mountpoint(&at, false)?;
            bind(&copy, &at)?;
        }
        for path in EMPTIED.map(Path::new) {
            if path.is_dir() {
                bind(Path::new("/run/simhost/empty"), path)?;
            }
        }
        Ok(())
    }

    fn put_modules(&mut self, root: &Path, release: &str) -> Result<()> {
        let at = Path::new("/lib/modules");
        self.mountpoint(at, false)?;
        let modules = root.join("lib/modules");
        if modules.is_dir() {
            return bind(&modules, at);
        }
        let none = Path::new(HOME).join("modules");
        create_directory(&none.join(release))?;
        bind(&none, at)
    }

    /// The host's files of /proc over the machine's.
    fn put_proc(&mut self, root: &Path) -> Result<()> {
        let from = root.join("proc");
        for entry in WalkDir::new(&from) {
            let entry = entry?;
            // What a process sees of itself is each one's own: nothing can be put over it.
            let is_of_process = entry.path().starts_with(from.join("self"));
            if !entry.file_type().is_file() || entry.file_name() == ".gitkeep" || is_of_process {
                continue;
            }
            let path = entry.path();
            let at = Path::new("/proc").join(path.strip_prefix(&from)?);
            if !at.is_file() {
                bail!("{}: the machine has no {} to put it over", path.display(), at.display());
            }
            bind(path, &at)?;
        }
        Ok(())
    }

    /// The same hardware names on every machine.
    fn put_names(&mut self, root: &Path) -> Result<()> {
        let Some(names) = root.parent().map(|fixtures| fixtures.join("hwdb.bin")).filter(|path| path.is_file()) else {
            return Ok(());
        };
        for at in HWDB.map(Path::new) {
            self.mountpoint(at, true)?;
            bind(&names, at)?;
        }
        Ok(())
    }

    /// This program under the names of those that load modules.
    fn put_programs(&mut self, own: &Path) -> Result<()> {
        for name in ["simhost", "modprobe"] {
            let at = Path::new(PROGRAMS).join(name);
            File::create(&at).with_context(|| at.display().to_string())?;
            bind(own, &at)?;
        }
        let mut done = BTreeSet::new();
        self.mountpoint(Path::new(LOADERS[0]), true)?;
        for path in LOADERS.map(Path::new) {
            let Ok(real) = path.canonicalize() else { continue };
            let shared = real.file_name().is_some_and(|name| name == "busybox" || name == "toybox");
            let real = match shared {
                false => real,
                // The program behind the link is many others too: replace the link.
                true => {
                    let parent = path.parent().unwrap_or(path);
                    self.cover(parent)?;
                    fs::remove_file(path).with_context(|| path.display().to_string())?;
                    File::create(path).with_context(|| path.display().to_string())?;
                    path.canonicalize()?
                }
            };
            if done.insert(real.clone()) {
                bind(own, &real)?;
            }
        }
        Ok(())
    }
}

/// A small /dev, as containers have it, with a /dev/vfio of its own.
fn replace_dev() -> Result<()> {
    let new = Path::new(HOME).join("dev");
    create_directory(&new)?;
    tmpfs(&new, MsFlags::empty())?;
    for name in ["null", "zero", "full", "random", "urandom", "tty", "fuse"] {
        let (from, at) = (Path::new("/dev").join(name), new.join(name));
        if let Ok(target) = fs::read_link(&from) {
            symlink(target, &at).with_context(|| at.display().to_string())?;
        } else if from.exists() {
            File::create(&at).with_context(|| at.display().to_string())?;
            bind(&from, &at)?;
        }
    }
    for name in ["pts", "shm", "mqueue"] {
        let (from, at) = (Path::new("/dev").join(name), new.join(name));
        if from.is_dir() {
            create_directory(&at)?;
            bind(&from, &at)?;
        }
    }
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(Path::new("/proc/self").join(target), new.join(name)).context("/dev")?;
    }
    // A bind mount of the node would do for nothing: it looks for its devpts beside itself.
    symlink("pts/ptmx", new.join("ptmx")).context("/dev/ptmx")?;
    create_directory(&new.join("vfio"))?;
    mount(Some(&new), "/dev", None::<&str>, MsFlags::MS_MOVE, NO_DATA).context("/dev cannot be replaced")
}

/// The file that this program was started from. To be asked before [`enter`]: seen from a namespace that was made in a
/// chroot, its path begins outside.
pub fn own_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("simhost's own program")?;
    match own.starts_with("/run") || own.starts_with("/dev") {
        true => Err(anyhow!("{}: simhost cannot run from a directory that it replaces", own.display())),
        false => Ok(own),
    }
}

fn tmpfs(at: &Path, flags: MsFlags) -> Result<()> {
    mount(Some("simhost"), at, Some("tmpfs"), flags, Some("mode=0755"))
        .with_context(|| format!("no tmpfs on {}", at.display()))
}

fn bind(from: &Path, at: &Path) -> Result<()> {
    mount(Some(from), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, NO_DATA)
        .with_context(|| format!("{} cannot be shown at {}", from.display(), at.display()))
}

fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| path.display().to_string())
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    for entry in WalkDir::new(from) {
        let entry = entry?;
        let path = to.join(entry.path().strip_prefix(from)?);
        let context = || path.display().to_string();
        if entry.file_type().is_dir() {
            create_directory(&path)?;
        } else if entry.file_type().is_symlink() {
            symlink(fs::read_link(entry.path())?, &path).with_context(context)?;
        } else if entry.file_name() != ".gitkeep" {
            fs::copy(entry.path(), &path).with_context(context)?;
        }
    }
    Ok(())
}
