// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows a machine as a file system.
//!
//! Entries and results follow sysfs: an attribute answers a write before `write` returns, a file that cannot be written
//! to refuses to be opened for it even by root, no file can be made. What may wait runs in a thread of its own, so that
//! it holds nothing else up.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenAccMode, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};

use crate::machine::{Machine, Operation};
use crate::model::{Attribute, Host, Node};

/// The mount's source, by which it is known again.
pub const NAME: &str = "simhost";

const PAGE_SIZE: usize = 4096;
/// What an inode is never changes, and these directories never go; every other name may with the next operation.
const FOREVER: Duration = Duration::from_secs(3600);
const LASTING: [&str; 9] = [
    "bus",
    "bus/pci",
    "bus/pci/devices",
    "bus/pci/drivers",
    "class",
    "devices",
    "kernel",
    "kernel/iommu_groups",
    "module",
];

/// How long the kernel may remember that a name is there.
fn time_to_live(path: &str) -> Duration {
    let root_bus = path.strip_prefix("devices/pci").is_some_and(|rest| !rest.contains('/'));
    if root_bus || LASTING.contains(&path) { FOREVER } else { Duration::ZERO }
}

/// Mounts a machine and serves it until the process ends.
pub fn mount(machine: Arc<Machine>, mountpoint: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(NAME.into()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoExec,
    ];
    config.acl = SessionACL::All;
    // What may wait has a thread of its own; the rest is too short to share.
    config.n_threads = Some(1);
    let skin = Skin {
        machine,
        inodes: Mutex::default(),
        listings: Mutex::default(),
        handles: AtomicU64::new(1),
        since: SystemTime::now(),
    };
    Session::new(skin, mountpoint, &config)?.spawn()
}

struct Skin {
    machine: Arc<Machine>,
    inodes: Mutex<Inodes>,
    listings: Mutex<HashMap<u64, Arc<[Listed]>>>,
    handles: AtomicU64,
    since: SystemTime,
}

type Listed = (u64, FileType, String);

/// Which inode is which path. The root is 1 and has the empty path.
struct Inodes {
    paths: HashMap<u64, Arc<str>>,
    /// By path, and by the birth of the device it is in: another device at the same address has inodes of its own.
    numbers: HashMap<(Arc<str>, u64), u64>,
    /// Those of `numbers`; the others are forgotten.
    lasting: HashSet<u64>,
    last: u64,
}

impl Default for Inodes {
    fn default() -> Self {
        let root: Arc<str> = "".into();
        Self {
            paths: HashMap::from([(1, root.clone())]),
            numbers: HashMap::from([((root, 0), 1)]),
            lasting: HashSet::from([1]),
            last: 1,
        }
    }
}

impl Inodes {
    fn path(&self, number: INodeNo) -> Option<Arc<str>> {
        self.paths.get(&number.0).cloned()
    }

    fn number(&mut self, path: &str, birth: u64) -> u64 {
        let key: (Arc<str>, u64) = (path.into(), birth);
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.fresh(key.0.clone());
        self.numbers.insert(key, number);
        self.lasting.insert(number);
        number
    }

    /// A number that no one else will get for this path. A write holds its inode's lock in the kernel, and an `O_TRUNC`
    /// waits for it; in sysfs two writers of one file do not see each other, so here each gets an inode of its own.
    fn fresh(&mut self, path: Arc<str>) -> u64 {
        self.last += 1;
        self.paths.insert(self.last, path);
        self.last
    }

    fn forget(&mut self, number: u64) {
        if !self.lasting.contains(&number) {
            self.paths.remove(&number);
        }
    }
}

/// What there is to know of a node without reading it.
struct Shape {
    kind: FileType,
    mode: u16,
    size: u64,
}

impl Shape {
    fn of(node: &Node) -> Self {
        let (kind, mode, size) = match node {
            Node::Dir(_) => (FileType::Directory, 0o755, 0),
            Node::Link(target) => (FileType::Symlink, 0o777, target.len()),
            Node::File(content) => (FileType::RegularFile, 0o444, content.len().max(PAGE_SIZE)),
            Node::Attribute(Attribute::Fixed(content)) => (FileType::RegularFile, 0o644, content.len().max(PAGE_SIZE)),
            Node::Attribute(attribute) => (FileType::RegularFile, attribute.mode(), PAGE_SIZE),
        };
        Self { kind, mode, size: size as u64 }
    }

    fn is_writable(&self) -> bool {
        self.kind == FileType::RegularFile && self.mode & 0o200 != 0
    }
}

impl Skin {
    fn inodes(&self) -> MutexGuard<'_, Inodes> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<u64, Arc<[Listed]>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `node`, if the path still leads to what was opened by this handle.
    fn opened<T>(&self, number: INodeNo, handle: FileHandle, at: impl FnOnce(&Node) -> T) -> Result<T, Errno> {
        let path = self.inodes().path(number).ok_or(Errno::ENODEV)?;
        let at = |host: &Host| host.node(&path).filter(|_| host.birth(&path) == handle.0).map(at);
        self.machine.look(at).ok_or(Errno::ENODEV)
    }

    /// Looks at the node behind an inode.
    fn node<T>(&self, number: INodeNo, at: impl FnOnce(&Node) -> T) -> Result<T, Errno> {
        let path = self.inodes().path(number).ok_or(Errno::ENOENT)?;
        self.machine.look(|host| host.node(&path).map(at)).ok_or(Errno::ENOENT)
    }

    fn attr(&self, number: u64, shape: &Shape) -> FileAttr {
        FileAttr {
            ino: INodeNo(number),
            size: shape.size,
            blocks: 0,
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind: shape.kind,
            perm: shape.mode,
            nlink: if shape.kind == FileType::Directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE_SIZE as u32,
            flags: 0,
        }
    }
}

fn errno(errno: crate::model::Errno) -> Errno {
    Errno::from_i32(errno.number())
}

fn join(directory: &str, name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    Some(match directory {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    })
}

/// The part of a content that was asked for.
fn part(content: &[u8], offset: u64, size: u32) -> &[u8] {
    let start = content.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
    let end = content.len().min(start.saturating_add(size as usize));
    &content[start..end]
}

impl Filesystem for Skin {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = (|| {
            let directory = self.inodes().path(parent)?;
            let path = join(&directory, name)?;
            let (shape, birth) =
                self.machine.look(|host| Some((host.node(&path).map(Shape::of)?, host.birth(&path))))?;
            let lasts = time_to_live(&path);
            let mut inodes = self.inodes();
            let number = match shape.is_writable() {
                true => inodes.fresh(path.into()),
                false => inodes.number(&path, birth),
            };
            Some((lasts, self.attr(number, &shape)))
        })();
        match found {
            Some((lasts, attr)) => reply.entry_with_ttls(&FOREVER, &lasts, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, _: u64) {
        self.inodes().forget(number.0);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(number, Shape::of) {
            Ok(shape) => reply.attr(&FOREVER, &self.attr(number.0, &shape)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        _size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Truncating, as a shell's `>` does, changes nothing and is well; owners and modes are not kept.
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(Errno::EPERM);
        }
        self.getattr(request, number, handle, reply);
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.node(number, |node| match node {
            Node::Link(target) => Some(target.clone()),
            _ => None,
        });
        match target {
            Ok(Some(target)) => reply.data(target.as_bytes()),
            Ok(None) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(error),
        }
    }

    // fs/kernfs/dir.c has no create: the VFS says EACCES. It has rmdir and mkdir only where the owner wants them: EPERM.
    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EACCES);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EACCES);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let shape = match self.node(number, Shape::of) {
            Ok(shape) => shape,
            Err(error) => return reply.error(error),
        };
        // fs/kernfs/file.c, kernfs_fop_open: the mode holds for root too.
        let (reads, writes) = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => (true, false),
            OpenAccMode::O_WRONLY => (false, true),
            OpenAccMode::O_RDWR => (true, true),
        };
        if reads && shape.mode & 0o400 == 0 || writes && shape.mode & 0o200 == 0 {
            return reply.error(Errno::EACCES);
        }
        let birth = self.inodes().path(number).map_or(0, |path| self.machine.look(|host| host.birth(&path)));
        reply.opened(FileHandle(birth), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let node = self.opened(number, handle, |node| match node {
            Node::File(content) => Some(Ok(content.clone())),
            Node::Attribute(attribute) => Some(Err(attribute.clone())),
            Node::Dir(_) | Node::Link(_) => None,
        });
        let attribute = match node {
            Ok(Some(Ok(content))) => return reply.data(part(&content, offset, size)),
            Ok(Some(Err(attribute))) => attribute,
            Ok(None) => return reply.error(Errno::EISDIR),
            Err(error) => return reply.error(error),
        };
        let waits = self.machine.look(|host| attribute.read_locks(host.release())).is_some();
        let machine = self.machine.clone();
        let answer = move || match machine.read(&attribute) {
            Ok(content) => reply.data(part(&content, offset, size)),
            Err(error) => reply.error(errno(error)),
        };
        match waits {
            true => drop(thread::spawn(answer)),
            false => answer(),
        }
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let path = self.inodes().path(number);
        let attribute = self.opened(number, handle, |node| match node {
            Node::Attribute(attribute) => Some(attribute.clone()),
            _ => None,
        });
        let found = attribute.ok().flatten().zip(path);
        let Some((attribute, path)) = found else {
            return reply.error(Errno::ENODEV);
        };
        // A store gets no more than a page at once (kernfs_fop_write_iter).
        let data = data[..data.len().min(PAGE_SIZE)].to_vec();
        let operation = Operation::new(&format!("/sys/{path}"), &data, request.pid());
        let machine = self.machine.clone();
        thread::spawn(move || match machine.write(&attribute, &data, operation) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let Some(path) = self.inodes().path(number) else {
            return reply.error(Errno::ENOENT);
        };
        let listed: Option<Vec<(FileType, String)>> = self.machine.look(|host| {
            let entries = host.list(&path)?;
            Some(entries.into_iter().map(|(name, node)| (Shape::of(node).kind, name.to_owned())).collect())
        });
        let Some(listed) = listed else {
            return reply.error(Errno::ENOENT);
        };
        let mut entries =
            vec![(number.0, FileType::Directory, ".".to_owned()), (number.0, FileType::Directory, "..".to_owned())];
        // Numbers are asked for by few; any but 0 will do.
        entries.extend(listed.into_iter().zip(2..).map(|((kind, name), number)| (number, kind, name)));
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.listings().insert(handle, entries.into());
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(listing) = self.listings().get(&handle.0).cloned() else {
            return reply.error(Errno::EBADF);
        };
        for (next, (number, kind, name)) in (1..).zip(listing.iter()).skip(offset as usize) {
            if reply.add(INodeNo(*number), next, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings().remove(&handle.0);
        reply.ok();
    }
}
