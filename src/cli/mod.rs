// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was typed. Asks the machine nothing.

pub mod completion;
pub mod driverctl;
pub mod libvirt;

use std::ffi::OsString;
use std::mem;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ColorChoice, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use uuid::Uuid;

use crate::address::Address;
use crate::class::ClassFilter;
use crate::guard::{Use, Uses};
use crate::kernel_name::DriverName;
use crate::matcher::Modalias;
use crate::require::Feature;
use driverctl::Driverctl;
use libvirt::Libvirt;

/// Give a PCI device the VFIO driver that fits it.
#[derive(Parser, Debug)]
#[command(name = "vfioctl", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Exit status: 0 done, or nothing to do; 1 failed and put back; 2 usage; 3 no such device; 4 refused as unsafe; \
5 no driver matches; 6 not permitted; 7 timed out, the device may be stuck; 8 failed and could not be put back. \
Of several devices, the highest.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
}

impl Cli {
    /// Reads what was typed, the program's name first.
    pub fn parse_typed(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
        let arguments: Vec<OsString> = arguments.collect();
        match Cli::parse_one_verb(&arguments) {
            Some(cli) => Ok(cli),
            None => Cli::try_parse_from(arguments),
        }
    }

    /// The same with the options of one verb alone, for those that are run for one device after another: to set up the parser
    /// for all verbs takes longer than to choose a driver. What is mistyped, or a question for help, is left to that parser.
    fn parse_one_verb(arguments: &[OsString]) -> Option<Cli> {
        fn parse<A: Args>(arguments: &[OsString], command: fn(A) -> Command) -> Option<Cli> {
            let mut parser = Common::augment_args(A::augment_args(clap::Command::new("vfioctl")));
            let mut matches = parser.try_get_matches_from_mut(arguments).ok()?;
            // To take it apart takes as long as to put it together, and the program is short.
            mem::forget(parser);
            let command = command(A::from_arg_matches_mut(&mut matches).ok()?);
            Some(Cli { command, common: Common::from_arg_matches_mut(&mut matches).ok()? })
        }
        let (verb, arguments) = (arguments.get(1)?.to_str()?, &arguments[1..]);
        match verb {
            "list" => parse(arguments, Command::List),
            "show" => parse(arguments, Command::Show),
            "match" => parse(arguments, Command::Match),
            "explain" => parse(arguments, Command::Explain),
            "bind" => parse(arguments, Command::Bind),
            "unbind" => parse(arguments, Command::Unbind),
            "apply" => parse(arguments, Command::Apply),
            "claim" => parse(arguments, Command::Claim),
            _ => None,
        }
    }
}

/// Options of every command.
#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Look at the host whose root directory is DIR
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true, value_hint = ValueHint::DirPath)]
    pub root: PathBuf,

    /// Choose for this kernel release instead of the one that runs
    #[arg(long, global = true, value_name = "RELEASE")]
    pub kernel: Option<String>,

    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,

    /// Say what would be done, and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,

    /// Give up on a call into the kernel after S seconds, not 60
    #[arg(long, global = true, value_name = "S", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,

    /// Say every step, and what was odd in the tables
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List devices: driver, IOMMU group, best VFIO driver
    List(List),
    /// Show everything about one device
    Show(Show),
    /// Print the name of the best VFIO driver, and nothing else
    Match(Subject),
    /// Show every driver that matches, in order, with verdict and reasons
    Explain(Subject),
    /// Bind devices to their best VFIO driver, and keep the choice
    Bind(Bind),
    /// Give devices back to the kernel's own choice, and forget what was kept
    Unbind(Unbind),
    /// Do what the choices kept in vfioctl.d say: at boot, or by hand
    Apply(Apply),
    /// Keep native drivers off the devices of vfioctl.d, before they are loaded: at boot
    Claim(Claim),
    /// Ask a device on a VFIO driver what it can do; this resets it
    Probe(Probe),
    /// Show PFs and their VFs, or make and bind VFs
    Sriov(Sriov),
    /// Set the VFIO drivers that exist against those this kernel has
    Drivers,
    /// Show IOMMU groups as a tree: what goes to a VM together, and what keeps it from going
    Groups(Groups),
    /// Say whether this host is ready for VFIO, and what mends it where it is not
    Doctor,
    /// Write down what this program reads of the host, for a bug report or to look at elsewhere with --root
    Snapshot(Snapshot),
    /// Print what an initramfs needs, so that native drivers in it keep off the devices of vfioctl.d
    Initramfs(Initramfs),
    /// Prepare devices for libvirt's domains, and say what libvirt would do with them
    #[command(subcommand)]
    Libvirt(Libvirt),
    /// Take driverctl's verbs and options; vfio-pci means the best VFIO driver
    Driverctl(Driverctl),
    /// Take over the overrides that driverctl keeps in /etc/driverctl.d
    ImportDriverctl(ImportDriverctl),
}

/// Which devices to list.
#[derive(Args, Debug)]
pub struct List {
    /// Only devices of this class: a name (network, nvme) or hex digits (0108)
    #[arg(long, value_name = "C")]
    pub class: Option<ClassFilter>,

    /// Only devices on this driver; none: on no driver
    #[arg(long, value_name = "D")]
    pub driver: Option<DriverName>,

    /// Only devices of this IOMMU group
    #[arg(long, value_name = "N")]
    pub group: Option<u32>,

    /// Only VFIO devices
    #[arg(long)]
    pub vfio: bool,

    /// Go on, and print what changes as it does
    #[arg(long)]
    pub watch: bool,
}

/// Which groups, and how.
#[derive(Args, Debug)]
pub struct Groups {
    /// Only the groups of these devices
    pub addresses: Vec<Address>,

    /// How to print them
    #[arg(long, value_name = "FORMAT", default_value = "text", conflicts_with = "json")]
    pub format: GroupsFormat,
}

/// How groups are printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupsFormat {
    /// A tree
    Text,
    /// One JSON document, as with --json
    Json,
    /// A graph for Graphviz
    Dot,
    /// A picture; Graphviz draws it
    Svg,
}

/// Where to write it.
#[derive(Args, Debug)]
pub struct Snapshot {
    /// A directory that is not there yet, or a file whose name ends with .tar.zst
    pub path: PathBuf,
}

/// What to print for an initramfs.
#[derive(Args, Debug)]
pub struct Initramfs {
    /// For which of the image's files
    #[arg(long, value_name = "FORMAT", default_value = "script")]
    pub format: InitramfsFormat,
}

/// What is printed for an initramfs.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum InitramfsFormat {
    /// A shell script that runs before udev, for devices that are there
    Script,
    /// udev rules, for devices that appear later
    Rules,
}

/// What to show.
#[derive(Args, Debug)]
pub struct Show {
    /// PCI address, like 0000:3b:00.1 or 3b:00.1
    pub address: Address,
}

/// What to apply.
#[derive(Args, Debug)]
pub struct Apply {
    /// Only these devices
    pub addresses: Vec<Address>,

    /// With --dry-run: what would be done if DIR were /etc/vfioctl.d
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub policy: Option<PathBuf>,
}

/// A device, or a modalias in place of one.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Subject {
    /// PCI address, like 0000:3b:00.1 or 3b:00.1
    pub address: Option<Address>,

    /// A modalias in place of a device
    #[arg(long, value_name = "M")]
    pub modalias: Option<Modalias>,
}

/// How to bind.
#[derive(Args, Debug)]
pub struct Bind {
    /// PCI addresses, like 0000:3b:00.1 or 3b:00.1
    #[arg(required = true)]
    pub addresses: Vec<Address>,

    /// Take this driver ('-' and '_' alike); none: keep all drivers off
    #[arg(long, value_name = "D")]
    pub driver: Option<DriverName>,

    /// Take the best driver or none: no fallback
    #[arg(long)]
    pub strict: bool,

    /// Refuse a driver that does not give this here
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub require: Vec<Feature>,

    /// Do it in spite of what speaks against it
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "driver", value_delimiter = ',')]
    pub force: Vec<Force>,

    /// Do not keep the choice
    #[arg(long)]
    pub no_save: bool,

    /// Take the whole IOMMU group of each device, its bridges left out
    #[arg(long)]
    pub group: bool,

    /// Do what is known to be due before the driver comes, and keep that; see vfioctl.d(5)
    #[arg(long, conflicts_with = "no_prepare")]
    pub prepare: bool,

    /// Do nothing of that kind, not even what is kept for the device
    #[arg(long)]
    pub no_prepare: bool,
}

/// What may be overridden.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Force {
    /// The driver does not list the device.
    Driver,
    /// Another framework has made a VFIO device of it.
    Vfio,
    /// This host uses it.
    Used(Use),
}

impl Force {
    /// The uses that are acknowledged.
    pub fn uses(all: &[Force]) -> Uses {
        all.iter().filter_map(|force| if let Force::Used(used_as) = force { Some(*used_as) } else { None }).collect()
    }
}

impl ValueEnum for Force {
    fn value_variants<'a>() -> &'a [Force] {
        static ALL: LazyLock<Vec<Force>> = LazyLock::new(|| {
            let uses = Use::value_variants().iter().map(|used_as| Force::Used(*used_as));
            [Force::Driver, Force::Vfio].into_iter().chain(uses).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Force::Driver => Some(PossibleValue::new("driver").help("The driver does not list the device")),
            Force::Vfio => Some(PossibleValue::new("vfio").help("Another framework has made a VFIO device of it")),
            // What VFs alone were looked at for was called so.
            Force::Used(Use::Network) => Use::Network.to_possible_value().map(|value| value.alias("interface")),
            Force::Used(used_as) => used_as.to_possible_value(),
        }
    }
}

/// What to ask.
#[derive(Args, Debug)]
pub struct Probe {
    /// PCI address, like 0000:3b:00.1 or 3b:00.1
    pub address: Address,

    /// The token of a VF whose PF is on a VFIO driver too
    #[arg(long, value_name = "UUID")]
    pub vf_token: Option<Uuid>,
}

/// How to claim.
#[derive(Args, Debug)]
pub struct Claim {
    /// Write nothing; print the driver for this device as the udev rule wants it
    #[arg(long, value_name = "ADDRESS")]
    pub udev: Option<Address>,
}

/// How to give back.
#[derive(Args, Debug)]
pub struct Unbind {
    /// PCI addresses, like 0000:3b:00.1 or 3b:00.1
    #[arg(required = true)]
    pub addresses: Vec<Address>,

    /// Bind to this driver instead of the kernel's own choice
    #[arg(long, value_name = "D", value_parser = some_driver)]
    pub driver: Option<DriverName>,

    /// Leave the choice that is kept
    #[arg(long)]
    pub no_save: bool,

    /// Take it away although this host uses it as that
    #[arg(long, value_name = "KIND", require_equals = true, value_delimiter = ',')]
    pub force: Vec<Use>,
}

/// A PF, and how many VFs it shall have.
#[derive(Args, Debug)]
pub struct Sriov {
    /// PCI address of a PF; without, all PFs are listed
    pub pf: Option<Address>,

    /// Give it so many VFs and bind them, by vfioctl.d or by the kernel's own choice; 0: remove them
    pub count: Option<u16>,

    /// Bind its VFs to this driver; auto: the best VFIO driver; none: keep all drivers off
    #[arg(long, value_name = "D", requires = "count")]
    pub driver: Option<DriverName>,

    /// Do it in spite of what speaks against it
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "driver", value_delimiter = ',', requires = "count")]
    pub force: Vec<Force>,

    /// Keep the VFs that could be bound if others cannot
    #[arg(long, requires = "count")]
    pub keep_going: bool,
}

/// How to take over.
#[derive(Args, Debug)]
pub struct ImportDriverctl {
    /// Do it: without, it is only said what would be done
    #[arg(long)]
    pub yes: bool,
}

fn some_driver(text: &str) -> Result<DriverName, String> {
    match text {
        "none" => Err("to keep all drivers off, say 'vfioctl bind --driver none'".to_string()),
        name => name.parse().map_err(|error: crate::kernel_name::NameError| error.to_string()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(timeout) if !timeout.is_zero() => Ok(timeout),
        _ => Err("must be more than 0 seconds, and finite".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one verb's options or with all, what is typed means the same.
    #[test]
    fn one_verb_is_read_as_all_are() {
        for (typed, is_alone) in [
            ("list", true),
            ("list --json --class network --driver none --group 7 --vfio", true),
            ("match 3b:00.1 --root /mnt -v", true),
            ("match --kernel 6.1 --modalias pci:v00008086d00001533sv00008086sd00001533bc02sc00i00", true),
            ("explain 0000:3b:00.1 --color never", true),
            ("bind --driver vfio-pci 3b:00.1 3b:00.2 --force --timeout 5 --dry-run", true),
            ("bind 3b:00.1 --force=network,tpm --require migration --no-save --group --prepare --strict", true),
            ("unbind 3b:00.1 --driver mlx5_core --force=disk", true),
            ("claim --udev 0000:3b:00.1", true),
            ("--json list", false),
            ("show 3b:00.1 --json", true),
            ("apply 3b:00.1 3b:00.2 --dry-run", true),
            ("apply --dry-run --policy /tmp/x", true),
            ("sriov", false),
        ] {
            let words = || ["vfioctl"].into_iter().chain(typed.split(' ')).map(OsString::from);
            let alone = Cli::parse_one_verb(&words().collect::<Vec<_>>());
            assert_eq!(alone.is_some(), is_alone, "{typed}");
            let all = Cli::try_parse_from(words()).unwrap();
            assert_eq!(format!("{:?}", Cli::parse_typed(words()).unwrap()), format!("{all:?}"), "{typed}");
        }
    }

    #[test]
    fn what_is_mistyped_is_said_by_the_parser_of_all_verbs() {
        for typed in
            ["match", "match 3b:00.1 3b:00.2", "list --help", "bind --prepare --no-prepare 3b:00.1", "list list"]
        {
            let words = || ["vfioctl"].into_iter().chain(typed.split(' ')).map(OsString::from);
            let (ours, theirs) = (Cli::parse_typed(words()).unwrap_err(), Cli::try_parse_from(words()).unwrap_err());
            assert_eq!(ours.to_string(), theirs.to_string(), "{typed}");
        }
    }
}
