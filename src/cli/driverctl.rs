// SPDX-License-Identifier: MIT OR Apache-2.0
//! driverctl's command line, for those who have it in their fingers or in scripts: `driverctl …`, where that is a link to
//! vfioctl, or `vfioctl driverctl …`. What was typed, and nothing more.

use std::convert::Infallible;
use std::path::Path;
use std::str::FromStr;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use super::{Cli, Command, Common};
use crate::address::{Address, AddressError};
use crate::kernel_name::DriverName;

/// The name under which driverctl's command line is taken.
const NAME: &str = "driverctl";

/// The types of devices that can be listed: driverctl's names for the base classes 01 to 0c, which are ours too.
const TYPES: [&str; 13] = [
    "all",
    "storage",
    "network",
    "display",
    "multimedia",
    "memory",
    "bridge",
    "communication",
    "system",
    "input",
    "docking",
    "processor",
    "serial",
];

/// Was the program called by driverctl's name?
pub fn is_our_name() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == NAME))
}

/// Say which driver a PCI device shall have, with driverctl's verbs; vfio-pci means the best VFIO driver.
#[derive(Parser, Debug)]
#[command(name = NAME, version = concat!(env!("CARGO_PKG_VERSION"), " (vfioctl)"), max_term_width = 100)]
#[command(after_help = "\
This is vfioctl under driverctl's name: see FOR USERS OF driverctl in vfioctl(8). \
What is kept is kept in /etc/vfioctl.d; 'vfioctl import-driverctl' takes over what is in /etc/driverctl.d.")]
// It is refused: what scripts read here is what driverctl prints.
#[command(mut_arg("json", |json| json.hide(true)))]
pub struct Standalone {
    /// What to do.
    #[command(flatten)]
    pub driverctl: Driverctl,

    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
}

impl From<Standalone> for Cli {
    fn from(Standalone { driverctl, common }: Standalone) -> Cli {
        Cli { command: Command::Driverctl(driverctl), common }
    }
}

/// A verb of driverctl's and its options.
#[derive(Args, Debug)]
pub struct Driverctl {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,

    /// How.
    #[command(flatten)]
    pub options: Options,
}

/// driverctl's options; `-v` and `--verbose` are ours as well.
#[derive(Args, Debug)]
pub struct Options {
    /// The bus that devices are on: pci is the only one taken
    #[arg(short, long, global = true, value_name = "BUS", default_value = "pci", hide_default_value = true)]
    pub bus: String,

    /// Do not probe: leave the device on no driver until it is probed
    #[arg(long, global = true)]
    pub noprobe: bool,

    /// Do not keep the choice, or leave what is kept
    #[arg(long, global = true)]
    pub nosave: bool,

    /// Like --verbose
    #[arg(long, global = true)]
    pub debug: bool,
}

/// driverctl's verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Bind a device to a driver, and keep the choice
    SetOverride {
        /// PCI address, like 0000:3b:00.1 or 3b:00.1
        device: Device,
        /// vfio-pci: the best VFIO driver; none: no driver at all; else one that lists the device
        driver: DriverName,
    },
    /// Give a device back to the kernel's own choice, and forget what was kept
    UnsetOverride {
        /// PCI address, like 0000:3b:00.1 or 3b:00.1
        device: Device,
    },
    /// Do what the choice kept for a device says
    LoadOverride {
        /// PCI address, like 0000:3b:00.1 or 3b:00.1
        device: Device,
    },
    /// List devices and their drivers; overridden ones are marked with [*]
    ListDevices(Listed),
    /// List the devices whose driver is overridden
    ListOverrides(Listed),
    /// List the devices for which a choice is kept, and the choice
    ListPersisted,
}

/// Which devices to list.
#[derive(Args, Debug)]
pub struct Listed {
    /// Only devices of this type
    #[arg(value_name = "TYPE", default_value = "all", hide_default_value = true, value_parser = PossibleValuesParser::new(TYPES))]
    pub kind: String,
}

/// A device as driverctl has it: an address, or a bus and an address with a slash between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    bus: Option<String>,
    name: String,
}

impl FromStr for Device {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Device, Infallible> {
        Ok(match text.split_once('/') {
            Some((bus, name)) => Device { bus: Some(bus.to_string()), name: name.to_string() },
            None => Device { bus: None, name: text.to_string() },
        })
    }
}

impl Device {
    /// The bus it is on, where `default` is the one that `--bus` names.
    pub fn bus<'a>(&'a self, default: &'a str) -> &'a str {
        self.bus.as_deref().unwrap_or(default)
    }

    /// Its address, if it is on the PCI bus.
    pub fn address(&self) -> Result<Address, AddressError> {
        self.name.parse()
    }
}

impl Verb {
    /// The device it is about, if it is about one.
    pub fn device(&self) -> Option<&Device> {
        match self {
            Verb::SetOverride { device, .. } | Verb::UnsetOverride { device } | Verb::LoadOverride { device } => {
                Some(device)
            }
            Verb::ListDevices(_) | Verb::ListOverrides(_) | Verb::ListPersisted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::ClassFilter;

    fn parse(words: &str) -> Result<Driverctl, clap::Error> {
        Standalone::try_parse_from(words.split(' ')).map(|standalone| standalone.driverctl)
    }

    #[test]
    fn the_parser_is_sound() {
        use clap::CommandFactory;
        Standalone::command().debug_assert();
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_taken_before_and_after_the_verb() {
        for words in [
            "driverctl --noprobe --nosave -v -b pci set-override 3b:00.1 vfio-pci",
            "driverctl set-override 3b:00.1 vfio-pci --noprobe --nosave --debug --bus pci",
        ] {
            let typed = parse(words).unwrap();
            assert!(typed.options.noprobe && typed.options.nosave, "{words}");
            assert_eq!(typed.options.bus, "pci");
            let Verb::SetOverride { device, driver } = typed.verb else { panic!("{words}") };
            assert_eq!(device.address().unwrap().to_string(), "0000:3b:00.1");
            assert_eq!(driver.as_str(), "vfio-pci");
        }
    }

    #[test]
    fn a_device_may_name_its_bus() {
        for (text, bus) in [("0000:3b:00.1", "pci"), ("pci/0000:3b:00.1", "pci"), ("usb/1-1", "usb")] {
            assert_eq!(text.parse::<Device>().unwrap().bus("pci"), bus);
        }
        let device: Device = "pci/3b:00.1".parse().unwrap();
        assert_eq!(device.address().unwrap().to_string(), "0000:3b:00.1");
        assert!("pci/x".parse::<Device>().unwrap().address().is_err());
    }

    #[test]
    fn every_type_is_a_class() {
        for (number, kind) in TYPES.iter().enumerate().skip(1) {
            let class: ClassFilter = kind.parse().unwrap();
            assert!(class.matches(&format!("{number:02x}0000")), "{kind}");
        }
    }

    #[test]
    fn what_is_not_driverctls() {
        for words in [
            "driverctl",
            "driverctl bind 3b:00.1",
            "driverctl --frobnicate list-devices",
            "driverctl list-devices wireless",
            "driverctl set-override 3b:00.1",
            "driverctl set-override 3b:00.1 ../x",
            "driverctl list-persisted network",
        ] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words}");
        }
    }
}
