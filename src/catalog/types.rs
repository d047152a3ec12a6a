// SPDX-License-Identifier: MIT OR Apache-2.0
//! The catalogue's types: what `data/drivers.json` is read into when the program is built, and written from into the
//! program. So nothing is parsed when it runs.

use std::borrow::Cow;
use std::fmt;

use databake::Bake;
use serde::{Deserialize, Serialize};

/// The bundled set of drivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'static"))]
pub struct Catalog {
    /// The version of the file's format.
    pub schema: u32,
    /// The module below all drivers.
    pub core: Core,
    /// All drivers, the generic one first.
    pub drivers: Cow<'static, [Driver]>,
}

/// The module that every driver here is built on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// The module's name.
    pub module: &'static str,
    /// The build option, which each driver's own selects.
    pub kconfig: &'static str,
    /// The first release that has the module.
    pub first_kernel: KernelVersion,
    /// What it turns away, whichever driver asks.
    pub refuses: Cow<'static, [CoreRefusal]>,
    /// Where that is known from.
    pub sources: CoreSources,
}

/// A kind of device that no VFIO PCI driver can be bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct CoreRefusal {
    /// The kind of device.
    pub what: &'static str,
    /// What the write to `bind` answers.
    pub errno: Errno,
}

/// Where the facts about the core are from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct CoreSources {
    /// Source of [`Core::refuses`].
    pub refuses: &'static str,
    /// Source of [`Core::first_kernel`].
    pub first_kernel: &'static str,
}

/// One VFIO PCI driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Driver {
    /// The module's name, as the alias tables have it.
    pub module: &'static str,
    /// The driver's name, as `driver_override` needs it; not always the module's.
    pub driver: &'static str,
    /// The devices it is for.
    pub title: &'static str,
    /// What it adds to plain `vfio-pci`.
    pub summary: &'static str,
    /// The kernel's build option; `None`: it is no part of the kernel, but of this project's `drivers/`.
    pub kconfig: Option<&'static str>,
    /// What the build option depends on: Kconfig expressions, all of which must hold.
    pub depends: Cow<'static, [&'static str]>,
    /// The machines it is built for, as `uname -m` names them; empty: any.
    pub architectures: Cow<'static, [&'static str]>,
    /// The first release that has the driver.
    pub first_kernel: KernelVersion,
    /// The kind of function that it is meant for.
    pub function: Function,
    /// It takes any device: the generic driver.
    pub catch_all: bool,
    /// The ids in its table.
    pub ids: Cow<'static, [Id]>,
    /// The ids that it refuses to be bound to.
    pub denylist: Cow<'static, [Denied]>,
    /// The drivers of which a VF's PF must be on one; empty: it does not matter.
    pub pf_drivers: Cow<'static, [&'static str]>,
    /// The modules of these drivers, in the same order.
    pub pf_modules: Cow<'static, [&'static str]>,
    /// What happens on a VF whose PF is on none of [`Driver::pf_drivers`].
    pub without_pf_driver: Option<Shortfall>,
    /// What else the PF must be; `None`: nothing that user space can see.
    pub pf_state: Option<PfState>,
    /// What happens on a function that is no VF; `None`: all is well.
    pub on_non_vf: Option<Shortfall>,
    /// What it can do that plain `vfio-pci` cannot.
    pub features: Features,
    /// What hardware, firmware and kernel must offer for its features.
    pub requires: Cow<'static, [&'static str]>,
    /// What the administrator has to do for its features.
    pub preparation: Cow<'static, [Preparation]>,
    /// Native drivers' modules that come in with it, and take unbound devices.
    pub loads: Cow<'static, [&'static str]>,
    /// The longest that binding is known to take, in seconds; `None`: no time worth mentioning.
    pub probe_seconds: Option<u32>,
    /// What else is worth knowing.
    pub notes: Cow<'static, [&'static str]>,
    /// Where all this is known from.
    pub sources: Sources,
}

/// A kind of PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// A virtual function.
    Vf,
    /// A physical function.
    Pf,
    /// Either.
    Any,
}

/// A device that a driver's table lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Id {
    /// PCI vendor id.
    #[serde(with = "hex")]
    pub vendor: u16,
    /// PCI device id.
    #[serde(with = "hex")]
    pub device: u16,
    /// What it is.
    pub name: &'static str,
    /// The first release known to list it, if that is later than the driver.
    pub since: Option<KernelVersion>,
}

/// A device that a driver refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Denied {
    /// PCI vendor id.
    #[serde(with = "hex")]
    pub vendor: u16,
    /// PCI device id.
    #[serde(with = "hex")]
    pub device: u16,
    /// What it is.
    pub name: &'static str,
    /// Why it is refused.
    pub reason: &'static str,
}

/// How a driver falls short of what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Shortfall {
    /// How far.
    pub outcome: Outcome,
    /// What the probe fails with, where it fails.
    pub errno: Option<Errno>,
    /// Why, to be shown.
    pub reason: &'static str,
}

/// What a PF must be, beyond being on the right driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct PfState {
    /// What shows that it is.
    pub sign: PfSign,
    /// What happens on a VF if it is not.
    pub otherwise: Shortfall,
    /// The command that mends that, with `{pf}` to be filled in.
    pub mend: &'static str,
    /// Where that is known from.
    pub source: &'static str,
}

/// Something in a PF's directory of sysfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PfSign {
    /// An attribute's value; where the attribute is not there it says nothing.
    Attribute {
        /// The attribute, below the PF's directory.
        path: &'static str,
        /// What it must read.
        value: &'static str,
    },
    /// An entry.
    Entry {
        /// How its name begins.
        prefix: &'static str,
    },
}

/// How far a driver falls short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It binds, but does no more than plain `vfio-pci` would.
    Limited,
    /// It cannot be bound.
    Fails,
}

/// The errors that probes are known to fail with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(rename_all = "UPPERCASE")]
pub enum Errno {
    /// Device or resource busy.
    Ebusy,
    /// Invalid argument.
    Einval,
    /// No such device.
    Enodev,
}

/// What a driver adds to plain `vfio-pci`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// Live migration, by release, oldest first; empty: none.
    pub migration: Cow<'static, [Migration]>,
    /// Whether the device itself tracks the pages it writes.
    pub dirty_tracking: DirtyTracking,
    /// What that depends on, or what does it instead.
    pub dirty_tracking_note: Option<&'static str>,
    /// The guest sees memory that is coherent with the processor's.
    pub coherent_memory: bool,
    /// A guest with old drivers sees the I/O ports that they need.
    pub legacy_io: bool,
}

/// What migration can do from a release on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// The first release known to do it.
    pub since: KernelVersion,
    /// What it can do.
    pub flags: Cow<'static, [MigrationFlag]>,
}

/// The kernel's `VFIO_MIGRATION_*` flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(rename_all = "snake_case")]
pub enum MigrationFlag {
    /// The state is copied while the device stands still.
    StopCopy,
    /// Devices that talk to each other can be stopped together.
    P2p,
    /// The state is copied while the device runs.
    PreCopy,
}

/// Whether a device tracks the pages it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(rename_all = "snake_case")]
pub enum DirtyTracking {
    /// It does not.
    None,
    /// It does.
    Yes,
    /// Some do.
    Depends,
}

/// Something the administrator has to do for a driver's features. Never done unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// What is to be done.
    pub what: &'static str,
    /// The command that does it, with `{pf}` and `{port}` to be filled in; `None`: the administrator's own doing.
    pub command: Option<Cow<'static, [&'static str]>>,
    /// The command that puts it back.
    pub undo: Option<Cow<'static, [&'static str]>>,
    /// How one sees that it is done.
    pub done_when: Option<Sign>,
    /// When it is to be done.
    pub when: When,
    /// The first release known to need it; `None`: all do.
    pub since: Option<KernelVersion>,
    /// Where that is known from.
    pub source: &'static str,
}

/// What shows that a preparation is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sign {
    /// An attribute of the function behind the VF's devlink port.
    PortFunction {
        /// Its name.
        attribute: &'static str,
        /// Its value.
        is: &'static str,
    },
    /// An attribute in the PF's directory.
    PfAttribute {
        /// Its path there.
        attribute: &'static str,
        /// Its value.
        is: &'static str,
    },
}

/// When a preparation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Before the PF's VFs are made.
    BeforeVfs,
    /// Before the device is bound.
    BeforeBind,
}

/// Where the facts about a driver are from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// Source of the id table.
    pub ids: &'static str,
    /// Source of how the probe ends.
    pub probe: &'static str,
    /// Source of the features.
    pub features: &'static str,
    /// Source of the first release.
    pub first_kernel: &'static str,
}

/// A kernel release, as far as features depend on it: `6.12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Bake)]
#[databake(path = crate::catalog)]
#[serde(try_from = "&str", into = "String")]
pub struct KernelVersion {
    /// The first number.
    pub major: u16,
    /// The second number.
    pub minor: u16,
}

impl KernelVersion {
    /// Version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Reads the version that a release such as `6.12.107+deb13-amd64` begins with.
    pub fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: number(major)?, minor: number(&rest[..end])? })
    }
}

/// A decimal number without a sign.
fn number(digits: &str) -> Option<u16> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<KernelVersion> for String {
    fn from(version: KernelVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<&str> for KernelVersion {
    type Error = String;

    /// Takes nothing but `major.minor`, so that the catalogue is spelt in one way.
    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let version = Self::parse(text).filter(|v| v.to_string() == text);
        version.ok_or_else(|| format!("not a kernel version: {text:?}"))
    }
}

/// PCI ids as sysfs has them, without the `0x`: four hex digits in lower case.
mod hex {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(id: &u16, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{id:04x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let is_id = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let id = (text.len() == 4 && text.bytes().all(is_id)).then(|| u16::from_str_radix(text, 16).ok()).flatten();
        id.ok_or_else(|| D::Error::custom(format!("not four hex digits in lower case: {text:?}")))
    }
}
