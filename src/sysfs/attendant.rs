// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that reads and writes attributes for us, and can be left behind.
//!
//! A write to `bind` or `unbind` can sleep in the kernel for ever, and on older kernels so can a read of `driver_override`.
//! A thread stuck there keeps its whole process from ending, SIGKILL or not. So such calls are made by a child process,
//! this program again: it is told one at a time and answers with what came of it. There are as many of these as there are
//! calls in the kernel at a time, whatever the number of devices.
//!
//! With each call goes the device's lock, an open file: should this process be killed, the device stays locked until the
//! call is over.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, shutdown, socketpair,
};
use serde::{Deserialize, Serialize};
use sysfs_class::SysClass;

use super::node::Node;
use super::stuck;
use crate::file;
use crate::interrupt;

/// The argument with which this program is the attendant.
pub const ARGUMENT: &str = "--attend-attributes";

/// How often one looks whether the user wishes to stop.
const GLANCE: Duration = Duration::from_millis(100);

/// A call that is not answered by then lasts.
const A_WHILE: Duration = Duration::from_millis(40);

/// How long the end of those that have nothing to do is waited for.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many reads it is told of beforehand, where there are several. All of them fit the socket.
const AHEAD: usize = 32;

/// More than any request has.
const REQUEST: usize = 1 << 14;

/// More than any answer has: a page of an attribute, each byte of it as JSON may have it.
const ANSWER: usize = 1 << 15;

/// Makes calls by way of such a process: whichever has nothing to do at that moment.
#[derive(Default)]
pub struct Attendant {
    is_undoing: bool,
    lock: Option<OwnedFd>,
}

/// The way to such a process and back: each request is one message, and so is each answer.
struct Channel {
    child: Child,
    socket: OwnedFd,
}

/// A channel at work. One that is not put back is left behind, or of no use any more.
struct AtWork {
    channel: Option<Channel>,
}

/// Those that have nothing to do: for hundreds of devices in turn, starting one each would be most of the work.
struct Idle {
    channels: Vec<Channel>,
    /// Is one being started? Only one at a time is: those that are at work may be done before it is there.
    is_starting: bool,
    at_work: usize,
    /// Those whose end is to be heard of, lest they stay as zombies.
    left_behind: Vec<Child>,
}

static IDLE: Mutex<Idle> =
    Mutex::new(Idle { channels: Vec::new(), is_starting: false, at_work: 0, left_behind: Vec::new() });

/// How many calls last.
static LASTING: AtomicUsize = AtomicUsize::new(0);

/// One has nothing to do any more, or is started.
static CHANGED: Condvar = Condvar::new();

fn idle() -> MutexGuard<'static, Idle> {
    IDLE.lock().expect("no thread panics with it")
}

#[derive(Serialize, Deserialize)]
struct Request {
    directory: PathBuf,
    attribute: String,
    /// What to write; to read, if there is nothing.
    value: Option<String>,
    /// The device that is written about: held open meanwhile, so that it shows who waits for what.
    device: Option<PathBuf>,
}

/// What came of a request.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was written, or this was read.
    Done(String),
    /// The attribute could not be opened.
    NotOpened(i32),
    /// It was opened, but the kernel refused the call itself.
    Refused(i32),
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum AttendantError {
    /// Not in time. The process is left behind: it ends when the kernel lets go of it.
    #[error("no answer from the kernel{}", stuck::in_words(.0.within.as_slice()))]
    TimedOut(GivenUp),
    /// The process could not be started, or ended.
    #[error("the process that reads and writes sysfs: {0}")]
    Process(#[from] io::Error),
}

/// A call that was given up on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// Did the wish to stop cut the time short?
    pub is_interrupted: bool,
    /// The process that is left behind.
    pub pid: u32,
    /// The kernel's functions it is in, as far as that is told.
    pub within: Vec<String>,
}

impl Channel {
    fn open() -> io::Result<Channel> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new("/proc/self/exe")
            .arg0("vfioctl")
            .arg(ARGUMENT)
            .stdin(theirs)
            // A pipe of the caller's that a stuck process held open would make the caller wait as well.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Nor is a file system to stay in use for it.
            .current_dir("/")
            // Ctrl-C is for us: a call that was begun is to come to its end.
            .process_group(0)
            .spawn()?;
        Ok(Channel { child, socket })
    }

    /// Waits for something to be there to read: an answer, or the end. `false`: there is nothing.
    fn wait(&self, time: Duration) -> io::Result<bool> {
        let time =
            Timespec { tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&time)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn answer(&self) -> io::Result<Answer> {
        let mut bytes = vec![0; ANSWER];
        match recv(&self.socket, &mut bytes[..], RecvFlags::empty())?.0 {
            0 => Err(io::Error::new(io::ErrorKind::BrokenPipe, "it has ended")),
            length => Ok(serde_json::from_slice(&bytes[..length])?),
        }
    }
}

impl AtWork {
    /// One with nothing to do, or a new one. Where there may be no more processes, one that is at work is waited for until
    /// `limit`.
    fn get(limit: Instant) -> io::Result<AtWork> {
        let mut idle = idle();
        idle.left_behind.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        loop {
            if let Some(channel) = idle.channels.pop() {
                // Whoever waits still starts one, unless that is under way.
                if !idle.is_starting {
                    CHANGED.notify_one();
                }
                return Ok(AtWork::new(idle, channel));
            }
            if idle.is_starting {
                idle = CHANGED.wait(idle).expect("no thread panics with it");
                continue;
            }
            idle.is_starting = true;
            drop(idle);
            let opened = Channel::open();
            idle = self::idle();
            idle.is_starting = false;
            CHANGED.notify_one();
            match opened {
                Ok(channel) => return Ok(AtWork::new(idle, channel)),
                Err(error) => {
                    let left = limit.saturating_duration_since(Instant::now());
                    if idle.at_work == 0 || left.is_zero() {
                        return Err(error);
                    }
                    idle = CHANGED.wait_timeout(idle, left.min(GLANCE)).expect("no thread panics with it").0;
                }
            }
        }
    }

    fn new(mut idle: MutexGuard<'_, Idle>, channel: Channel) -> AtWork {
        idle.at_work += 1;
        AtWork { channel: Some(channel) }
    }

    fn channel(&self) -> &Channel {
        self.channel.as_ref().expect("it is put back at the end")
    }

    /// Tells it something while it has nothing to do.
    fn tell_first(&mut self, request: &[u8], lock: Option<&OwnedFd>) -> io::Result<()> {
        match tell(&self.channel().socket, request, lock) {
            // It has ended meanwhile, and was told nothing.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                let ended = self.channel.replace(Channel::open()?);
                idle().left_behind.extend(ended.map(|ended| ended.child));
                tell(&self.channel().socket, request, lock)
            }
            told => told,
        }
    }

    /// The next answer. Where it does not come within `timeout`, the process is left behind.
    fn answer(&self, timeout: Duration, is_undoing: bool) -> Result<Answer, AttendantError> {
        let channel = self.channel();
        let begun = Instant::now();
        let limit = begun + timeout;
        let mut lasting = None;
        loop {
            let wished = interrupt::deadline(begun, is_undoing).filter(|wished| *wished < limit);
            let left = wished.unwrap_or(limit).saturating_duration_since(Instant::now());
            let glance = if lasting.is_none() { A_WHILE } else { GLANCE };
            if channel.wait(left.min(glance))? {
                return Ok(channel.answer()?);
            }
            lasting.get_or_insert_with(Lasting::begin);
            if left.is_zero() {
                let (is_interrupted, pid) = (wished.is_some(), channel.child.id());
                let within = stuck::within(pid);
                return Err(AttendantError::TimedOut(GivenUp { is_interrupted, pid, within }));
            }
        }
    }

    /// It has nothing to do any more.
    fn put_back(mut self) {
        let channel = self.channel.take();
        idle().channels.extend(channel);
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut idle = idle();
        idle.at_work -= 1;
        // It ends once the kernel lets go of it and it finds nobody at the other end.
        idle.left_behind.extend(self.channel.take().map(|channel| channel.child));
        CHANGED.notify_one();
    }
}

/// A call that lasts, until it is answered or given up on.
struct Lasting;

impl Lasting {
    fn begin() -> Lasting {
        LASTING.fetch_add(1, Ordering::Relaxed);
        Lasting
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        LASTING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many calls have been in the kernel for a while.
pub fn lasting_calls() -> usize {
    LASTING.load(Ordering::Relaxed)
}

impl Attendant {
    /// Can calls be made? If not, better now than in the middle of the work.
    pub fn check(timeout: Duration) -> io::Result<()> {
        AtWork::get(Instant::now() + timeout).map(AtWork::put_back)
    }

    /// From now on, every call keeps this lock until it is over, whatever becomes of us.
    pub fn hold(&mut self, lock: OwnedFd) {
        self.lock = Some(lock);
    }

    /// From now on, calls put something back: who wishes to stop wishes for these too.
    pub fn set_undoing(&mut self) {
        self.is_undoing = true;
    }

    /// Writes `value` to an attribute, on behalf of the device with the directory `device`.
    pub fn write(
        &mut self,
        directory: &Path,
        attribute: &str,
        value: &str,
        device: &Path,
        timeout: Duration,
    ) -> Result<Answer, AttendantError> {
        self.ask(directory, attribute, Some(value.to_string()), Some(device), timeout)
    }

    /// Reads an attribute. What is not UTF-8 in it is replaced.
    pub fn read(&mut self, directory: &Path, attribute: &str, timeout: Duration) -> Result<Answer, AttendantError> {
        self.ask(directory, attribute, None, None, timeout)
    }

    /// Reads the same attribute in several directories, of which the process is told beforehand: nobody need be woken for
    /// each. Gives the answers in their order, up to the first that does not come within `timeout`, and then why.
    pub fn read_several(
        &mut self,
        directories: &[PathBuf],
        attribute: &str,
        timeout: Duration,
    ) -> (Vec<Answer>, Result<(), AttendantError>) {
        let mut answers = Vec::with_capacity(directories.len());
        let result = self.ask_several(directories, attribute, timeout, &mut answers);
        (answers, result)
    }

    fn ask_several(
        &mut self,
        directories: &[PathBuf],
        attribute: &str,
        timeout: Duration,
        answers: &mut Vec<Answer>,
    ) -> Result<(), AttendantError> {
        let mut at_work = AtWork::get(Instant::now() + timeout)?;
        for some in directories.chunks(AHEAD) {
            let mut requests = some.iter().map(|directory| request(directory, attribute, None, None));
            if let Some(first) = requests.next() {
                at_work.tell_first(&first?, None)?;
            }
            for request in requests {
                tell(&at_work.channel().socket, &request?, None)?;
            }
            for _ in some {
                interrupt::check(self.is_undoing)?;
                answers.push(at_work.answer(timeout, self.is_undoing)?);
            }
        }
        at_work.put_back();
        Ok(())
    }

    fn ask(
        &mut self,
        directory: &Path,
        attribute: &str,
        value: Option<String>,
        device: Option<&Path>,
        timeout: Duration,
    ) -> Result<Answer, AttendantError> {
        interrupt::check(self.is_undoing)?;
        let request = request(directory, attribute, value, device)?;
        let mut at_work = AtWork::get(Instant::now() + timeout)?;
        at_work.tell_first(&request, self.lock.as_ref())?;
        // The time is the kernel's: to start a process may take longer than one has patience for a device.
        let answer = at_work.answer(timeout, self.is_undoing)?;
        at_work.put_back();
        Ok(answer)
    }
}

fn request(directory: &Path, attribute: &str, value: Option<String>, device: Option<&Path>) -> io::Result<Vec<u8>> {
    // The process is in another directory than we.
    let (directory, device) = (path::absolute(directory)?, device.map(path::absolute).transpose()?);
    let attribute = attribute.to_string();
    Ok(serde_json::to_vec(&Request { directory, attribute, value, device })?)
}

fn tell(socket: &OwnedFd, request: &[u8], lock: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let lock: Vec<_> = lock.into_iter().map(AsFd::as_fd).collect();
    if !lock.is_empty() {
        rights.push(SendAncillaryMessage::ScmRights(&lock));
    }
    sendmsg(socket, &[IoSlice::new(request)], &mut rights, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A request, and the lock that came with it; `None`: nobody is there any more.
fn receive(socket: impl AsFd) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; REQUEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let length = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut rights, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if length == 0 {
        return Ok(None);
    }
    let locks = rights.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(locks) => locks.collect(),
        _ => Vec::new(),
    });
    let locks = locks.collect();
    Ok(Some((serde_json::from_slice(&bytes[..length])?, locks)))
}

/// Ends those that have nothing to do, and waits for that: what is left when a service's main process ends, systemd kills,
/// and says so.
pub fn dismiss() {
    let channels = std::mem::take(&mut idle().channels);
    let ending = channels.into_iter().filter(|channel| shutdown(&channel.socket, Shutdown::Write).is_ok());
    let ending: Vec<Channel> = ending.collect();
    let started = Instant::now();
    for mut channel in ending {
        // No answer comes any more: the other end is gone once the process is about to.
        if channel.wait(FAREWELL.saturating_sub(started.elapsed())).unwrap_or(false) {
            let _ = channel.child.wait();
        }
    }
}

/// The process's own side: does what it is told by `socket`, answers there, ends with it.
pub fn serve(socket: impl AsFd) -> io::Result<()> {
    // A service that is stopped has the signal sent to all its processes: what was begun, and putting it back, goes on.
    interrupt::take_over()?;
    // Started through /proc/self/exe it would show as "exe" to someone who looks for what is stuck.
    rustix::thread::set_name(c"vfioctl")?;
    while let Some((request, lock)) = receive(&socket)? {
        let answer = attend(&request);
        // Whoever hears of the end finds the device as unlocked as we leave it.
        drop(lock);
        send(&socket, &serde_json::to_vec(&answer)?, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

fn attend(request: &Request) -> Answer {
    // A call that failed without an errno was cut short.
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    let node = Node::new(request.directory.clone());
    let path = request.directory.join(&request.attribute);
    // One that has gone needs no one to wait for it.
    let _device = request.device.as_ref().and_then(|device| File::open(device).ok());
    let result = match &request.value {
        // Opened without O_CREAT: what the kernel has not made is ENOENT, not EACCES.
        Some(value) => node.write_file(&request.attribute, value).map(|()| String::new()),
        None => file::open_at_once(&path)
            .and_then(file::read_attribute)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    };
    let error = match result {
        Ok(text) => return Answer::Done(text),
        Err(error) => error,
    };
    // Which of the two failed is asked only now: to open it once more does nothing to the device.
    match OpenOptions::new().read(request.value.is_none()).write(request.value.is_some()).open(&path) {
        Ok(_) => Answer::Refused(errno(error)),
        Err(error) => Answer::NotOpened(errno(error)),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn a_request_under_way_keeps_its_lock() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lock");
        std::fs::write(&path, "").unwrap();
        let open = || OwnedFd::from(std::fs::File::open(&path).unwrap());
        let is_locked = || flock(open(), FlockOperation::NonBlockingLockExclusive).is_err();
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let lock = open();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let (directory, attribute) = (root.path().to_path_buf(), "lock".to_string());
        let request = Request { directory, attribute, value: None, device: None };
        tell(&ours, &serde_json::to_vec(&request).unwrap(), Some(&lock)).unwrap();
        // So it is when the one process is killed: sent and not yet read, read and not yet done, done.
        drop((lock, ours));
        assert!(is_locked());
        let received = receive(&theirs).unwrap().unwrap();
        assert!(is_locked());
        drop(received);
        assert!(!is_locked());
        assert!(receive(&theirs).unwrap().is_none());
    }

    #[test]
    fn it_reads_writes_and_answers() {
        let root = tempfile::tempdir().unwrap();
        let attribute = root.path().join("driver_override");
        std::fs::write(&attribute, "(null)\n").unwrap();
        let request = |attribute: &str, value: Option<&str>| {
            let request = Request {
                directory: root.path().to_path_buf(),
                attribute: attribute.to_string(),
                value: value.map(str::to_string),
                device: None,
            };
            serde_json::to_vec(&request).unwrap()
        };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let lock = OwnedFd::from(std::fs::File::open(&attribute).unwrap());
        tell(&ours, &request("driver_override", None), None).unwrap();
        tell(&ours, &request("driver_override", Some("vfio-pci")), Some(&lock)).unwrap();
        tell(&ours, &request("no_such_attribute", Some("x")), Some(&lock)).unwrap();
        shutdown(&ours, Shutdown::Write).unwrap();
        serve(theirs).unwrap();
        let answers = [(); 3].map(|()| {
            let mut bytes = [0; 256];
            let (length, _) = recv(&ours, &mut bytes[..], RecvFlags::empty()).unwrap();
            serde_json::from_slice::<Answer>(&bytes[..length]).unwrap()
        });
        let missing = Answer::NotOpened(Errno::NOENT.raw_os_error());
        assert_eq!(answers, [Answer::Done("(null)\n".into()), Answer::Done(String::new()), missing]);
        assert!(std::fs::read_to_string(attribute).unwrap().starts_with("vfio-pci"));
        assert!(!root.path().join("no_such_attribute").exists());
    }
}
