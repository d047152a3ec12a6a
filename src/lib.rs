// SPDX-License-Identifier: MIT OR Apache-2.0
//! vfioctl: give a PCI device the VFIO driver that fits it.
//!
//! This library is the program's own; it is one so that tests can reach its parts. Imports run one way: [`command`] →
//! {[`policy`], [`plan`], [`apply`], [`gather`], [`prepare`], [`vfio`], [`libvirt`]} → {[`sysfs`], [`matcher`], [`modules`],
//! [`catalog`], [`host`]}.
//!
//! * [`cli`] is what was typed, in [`cli::driverctl`] with driverctl's verbs, and in [`cli::completion`] what could come next; it asks
//!   the machine nothing.
//! * [`command`] has a file a verb: gather, choose, plan, apply, report; short, without rules of its own.
//! * [`host`] is the root directory and the kernel release, and the only place that spells a path.
//! * [`address`] and [`kernel_name`] are the names of things: devices, drivers, modules.
//! * [`class`] has short names for device classes.
//! * [`sysfs`] is what the kernel says, typed, and in [`sysfs::control`] the only writes;
//!   what can block is done by [`sysfs::attendant`], a process that can be left behind; [`sysfs::stuck`] tells who waits where.
//! * [`matcher`] is pure: from a modalias and alias tables to a ranking.
//! * [`modules`] reads the tables' files, knows which modules can be had, and runs modprobe.
//! * [`catalog`] is `data/drivers.json`, typed.
//! * [`verdict`] is pure: what each match is good for on a device, by what the catalogue knows.
//! * [`policy`] is the administrator's persisted choices, and the only writer to /etc; it tells udev what they select.
//! * [`drop_in`] has the rules of drop-in directories, for policy and for modprobe.d.
//! * [`guard`] finds out who is using a device.
//! * [`vfio`] asks a bound device what it can do; its `ioctl.rs` has all `unsafe` code there is.
//! * [`gather`] reads what the pure parts decide on.
//! * [`prepare`] has the programs that are run before a driver comes: as written, and made ready for one device.
//! * [`target`] goes from a driver's name, as typed, to a driver that can be bound.
//! * [`plan`] is pure: from facts to a plan or a refusal.
//! * [`snapshot`] writes down what is read of a host, as a host for `--root`; what is nobody else's business is masked.
//! * [`sriov`] is pure: from a PF and the number of VFs it shall have to steps or a refusal.
//! * [`apply`] carries a plan out, checks each step and undoes what failed; [`lock`] keeps two of us from one device.
//! * [`unfinished`] is what a run is at, written down, so that the next can put it back should the one be killed.
//! * [`outcome`] is what became of a device, and the exit status that says so.
//! * [`builder`] is who makes a host's initramfs, and what of ours it takes into it.
//! * [`initramfs`] is pure: from the policy to what an image for the early boot is told of it.
//! * [`doctor`] is whether a host is ready: facts are read, then judged, a file for each kind of check.
//! * [`libvirt`] is what there is to know about libvirt: its domain XML, which driver it takes, what the hook has taken.
//! * [`interrupt`] turns Ctrl-C into a wish to stop, at a point where nothing is half done.
//! * [`process`] runs another program, but not for ever; [`processes`] is what procfs tells of those that run already.
//! * [`fresh`] lets those who ask for the same at a time share one look.
//! * [`environment`] is what other programs find around them, and [`file`] reads files that somebody else may have put there.
//! * [`private`] is our directory below /run.
//! * [`privilege`] is whether this program was lent rights that its user does not have.
//! * [`progress`] is the line on a terminal that says how far many devices are.
//! * [`printable`] makes foreign text fit for a terminal; everybody may use it.
//! * [`names`] are hardware names from udev's hwdb.
//! * [`changes`] is pure: from two listings to what has changed between them; [`uevents`] says when to look.
//! * [`topology`] is pure: from functions and what leads to them to a tree, and to how its IOMMU groups stand.
//! * [`require`] is pure: what must come with a driver, or nothing is done.
//! * [`consumers`] looks for software on the host that knows a device by the string vfio-pci alone.
//! * [`report`] shows one result as text or as JSON.

pub mod address;
pub mod apply;
pub mod builder;
pub mod catalog;
pub mod changes;
pub mod class;
pub mod cli;
pub mod command;
pub mod consumers;
pub mod doctor;
pub mod drop_in;
pub mod environment;
pub mod file;
pub mod fresh;
pub mod gather;
pub mod guard;
pub mod host;
pub mod initramfs;
pub mod interrupt;
pub mod kernel_name;
pub mod libvirt;
pub mod lock;
pub mod matcher;
pub mod modules;
pub mod names;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod prepare;
pub mod printable;
pub mod private;
pub mod privilege;
pub mod process;
pub mod processes;
pub mod progress;
pub mod report;
pub mod require;
pub mod snapshot;
pub mod sriov;
pub mod sysfs;
pub mod target;
pub mod topology;
pub mod uevents;
pub mod unfinished;
pub mod verdict;
pub mod vfio;
