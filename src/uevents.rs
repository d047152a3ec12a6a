// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is announced of PCI devices: by udev, when its rules are done, or by the kernel where no udev runs. That something was,
//! and no more, is told from here: announcements can be lost, and what is so by now the kernel says.

use std::io;
use std::os::fd::BorrowedFd;
#[cfg(feature = "names")]
use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

#[cfg(feature = "names")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One change is announced more than once: what comes this soon after another belongs to it.
#[cfg(feature = "names")]
const QUIET: Duration = Duration::from_millis(50);

/// Where it does not become quiet, one looks all the same.
#[cfg(feature = "names")]
const LONGEST: Duration = Duration::from_millis(500);

/// How many announcements are taken at a time.
#[cfg(feature = "names")]
const AT_A_TIME: usize = 4096;

/// Whose announcements are heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// udev's: its links and names are in place by then.
    Udev,
    /// The kernel's own.
    Kernel,
}

/// Why the wait is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// Something was announced, or announcements were lost.
    Announced,
    /// Nobody reads any more what is said of it.
    Unread,
}

/// Announcements about PCI devices, from the moment it was made.
pub struct Uevents {
    #[cfg(feature = "names")]
    socket: udev::MonitorSocket,
}

#[cfg(feature = "names")]
impl Uevents {
    /// Listens from now on.
    pub fn listen(source: Source) -> io::Result<Uevents> {
        let monitor = match source {
            Source::Udev => udev::MonitorBuilder::new()?,
            Source::Kernel => udev::MonitorBuilder::new_kernel()?,
        };
        Ok(Uevents { socket: monitor.match_subsystem("pci")?.listen()? })
    }

    /// Waits for an announcement, until those that come with it are in as well; or for the reader of `output` to go.
    pub fn wait(&self, output: BorrowedFd<'_>) -> io::Result<Woken> {
        loop {
            match self.wait_for(Some(output), None)? {
                Some(Woken::Announced) => break,
                Some(Woken::Unread) => return Ok(Woken::Unread),
                None => {}
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < LONGEST && self.wait_for(None, Some(QUIET))?.is_some() {}
        Ok(Woken::Announced)
    }

    /// Waits once. `None`: in vain, or for what is not about PCI devices.
    fn wait_for(&self, output: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<Option<Woken>> {
        let mut polled = vec![PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        // That its reader has gone is told whatever is asked.
        polled.extend(output.map(|output| PollFd::from_borrowed_fd(output, PollFlags::empty())));
        let timeout = timeout
            .map(|timeout| Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        if polled.get(1).is_some_and(|output| !output.revents().is_empty()) {
            return Ok(Some(Woken::Unread));
        }
        let found = polled[0].revents();
        if found.intersects(PollFlags::HUP | PollFlags::NVAL) {
            return Err(io::Error::other("the socket of uevents is closed"));
        }
        // There was no room for all (ENOBUFS): that is said once, as the next is read.
        let are_lost = found.contains(PollFlags::ERR);
        let heard = self.socket.iter().take(AT_A_TIME).count();
        Ok((heard > 0 || are_lost).then_some(Woken::Announced))
    }
}

#[cfg(not(feature = "names"))]
impl Uevents {
    /// Nothing is heard in this build.
    pub fn listen(_source: Source) -> io::Result<Uevents> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this vfioctl was built without libudev (feature 'names')"))
    }

    /// Never called: there is none.
    pub fn wait(&self, _output: BorrowedFd<'_>) -> io::Result<Woken> {
        Ok(Woken::Unread)
    }
}
