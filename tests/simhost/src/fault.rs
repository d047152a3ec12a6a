// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to go wrong, where and when.

use std::str::FromStr;
use std::time::Duration;

use crate::model::{Address, Errno, Place, Step};

/// How faults are written, for `--help`.
pub const SYNTAX: &str = "\
A fault is WHERE:KIND[:WHEN].
  WHERE  ADDR:STEP      a step with a device (ADDR may be *):
           override       a write to driver_override
           bind           a write to a driver's bind, before the probe
           probe          a driver's probe, whoever asked for it
           unbind         a driver's remove, whoever asked for it
           drivers_probe  a write to drivers_probe, before the probe
           sriov          a write to sriov_numvfs
           vf_autoprobe   a write to sriov_drivers_autoprobe
         module=NAME    the loading of a module
  KIND   errno=NAME     it fails so, before it has done anything (a probe: after its delays)
         delay=MS       it lasts so long, the device locked
         block          it lasts until `simhost ctl release`
         vanish         the device is pulled out meanwhile
         kill           whoever asked for it is killed meanwhile, and whose child that is; it goes on
         before=COMMAND, after=COMMAND
                        somebody else acts: the shell command runs just before the write (the loading) or when it is
                        over and not yet answered, with the device in $DEVICE. Not at probe, which is no write.
  WHEN   always (the default), once, nth=N: of the times it comes there
Examples: 0000:3b:00.1:probe:errno=EIO:once   0000:3b:00.1:unbind:block   module=vfio_pci:errno=EPERM
          0000:3b:00.1:bind:before=echo none >/sys/bus/pci/devices/$DEVICE/driver_override:once";

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    place: Pattern,
    kind: Kind,
    when: When,
    passed: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Pattern {
    Device(Option<Address>, Step),
    Module(String),
}

/// How it goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// It fails.
    Errno(Errno),
    /// It lasts.
    Delay(Duration),
    /// It lasts until it is released.
    Block,
    /// The device is pulled out.
    Vanish,
    /// Who asked for it is killed.
    Kill,
    /// Somebody else does something.
    Act(Moment, String),
}

/// When somebody else acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the step has begun.
    Before,
    /// When it is over.
    After,
}

#[derive(Clone, Debug, PartialEq)]
enum When {
    Always,
    Nth(u32),
}

impl Fault {
    /// Is this its place?
    pub fn is_at(&self, place: &Place) -> bool {
        match (&self.place, place) {
            (Pattern::Device(wanted, step), Place::Device(address, at)) => {
                wanted.is_none_or(|wanted| wanted == *address) && step == at
            }
            (Pattern::Module(wanted), Place::Module(name)) => wanted == name,
            _ => false,
        }
    }

    /// How it goes wrong.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// An operation comes to its place: does it strike this time?
    pub fn strikes(&mut self) -> bool {
        self.passed += 1;
        match self.when {
            When::Always => true,
            When::Nth(nth) => nth == self.passed,
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |reason: String| format!("fault {text:?}: {reason}");
        let (place, rest) = place(text).map_err(wrong)?;
        let (kind, when) = kind_and_when(rest).map_err(wrong)?;
        let fault = Self { place, kind, when, passed: 0 };
        match fault {
            Self { place: Pattern::Module(_), kind: Kind::Vanish, .. } => Err(wrong("a module cannot vanish".into())),
            Self { place: Pattern::Device(_, Step::Probe), kind: Kind::Act(..), .. } => {
                Err(wrong("a probe is no write: take the one that leads to it".into()))
            }
            fault => Ok(fault),
        }
    }
}

/// The place, and what follows it.
fn place(text: &str) -> Result<(Pattern, &str), String> {
    let short = || "too short: WHERE:KIND[:WHEN]".to_owned();
    if let Some(rest) = text.strip_prefix("module=") {
        let (name, rest) = rest.split_once(':').ok_or_else(short)?;
        return Ok((Pattern::Module(crate::model::modules::normalise(name)), rest));
    }
    let (address, rest) = match text.strip_prefix("*:") {
        Some(rest) => (None, rest),
        None => {
            // The address has two colons of its own.
            let (end, _) = text.match_indices(':').nth(2).ok_or_else(short)?;
            (Some(text[..end].parse()?), &text[end + 1..])
        }
    };
    let (step, rest) = rest.split_once(':').ok_or_else(short)?;
    Ok((Pattern::Device(address, step.parse()?), rest))
}

fn kind_and_when(text: &str) -> Result<(Kind, When), String> {
    for (word, moment) in [("before=", Moment::Before), ("after=", Moment::After)] {
        let Some(rest) = text.strip_prefix(word) else { continue };
        // The command may have colons of its own.
        let timed = rest.rsplit_once(':').and_then(|(command, when)| Some((command, when_of(when).ok()?)));
        let (command, when) = timed.unwrap_or((rest, When::Always));
        return match command.trim() {
            "" => Err("no command".to_owned()),
            command => Ok((Kind::Act(moment, command.to_owned()), when)),
        };
    }
    let (kind, when) = text.split_once(':').unwrap_or((text, "always"));
    Ok((kind_of(kind)?, when_of(when)?))
}

fn kind_of(text: &str) -> Result<Kind, String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("errno", name) => name.parse().map(Kind::Errno),
        ("delay", ms) => {
            let ms = ms.parse().map_err(|_| format!("{ms:?} is not a number of milliseconds"))?;
            Ok(Kind::Delay(Duration::from_millis(ms)))
        }
        ("block", "") => Ok(Kind::Block),
        ("vanish", "") => Ok(Kind::Vanish),
        ("kill", "") => Ok(Kind::Kill),
        _ => Err(format!("{text:?} is not errno=NAME, delay=MS, block, vanish, kill, before=COMMAND or after=COMMAND")),
    }
}

fn when_of(text: &str) -> Result<When, String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("always", "") => Ok(When::Always),
        ("once", "") => Ok(When::Nth(1)),
        ("nth", number) => {
            let nth = number.parse().ok().filter(|nth| *nth > 0);
            nth.map(When::Nth).ok_or_else(|| format!("{number:?} is not a number from 1"))
        }
        _ => Err(format!("{text:?} is not always, once or nth=N")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Kind, Moment, When};
    use crate::model::{Place, Step};

    #[test]
    fn written_faults() {
        for good in [
            "0000:3b:00.1:probe:errno=EIO",
            "0000:3b:00.1:probe:errno=EIO:once",
            "*:unbind:block",
            "10000:e1:00.0:bind:delay=250:nth=2",
            "0000:3b:00.1:sriov:vanish:always",
            "module=vfio-pci:errno=EPERM",
            "0000:3b:00.1:unbind:kill:once",
            "module=vfio-pci:after=echo 0 >/sys/bus/pci/devices/0000:3b:00.0/sriov_numvfs:nth=2",
        ] {
            assert!(good.parse::<Fault>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "0000:3b:00.1",
            "0000:3b:00.1:probe",
            "3b:00.1:probe:block",
            "0000:3b:00.1:dance:block",
            "0000:3b:00.1:probe:errno=EWHAT",
            "0000:3b:00.1:probe:delay=long",
            "0000:3b:00.1:probe:block:nth=0",
            "0000:3b:00.1:probe:block=1",
            "module=vfio_pci:vanish",
            "0000:3b:00.1:probe:before=true",
            "0000:3b:00.1:bind:before=:once",
        ] {
            let error = bad.parse::<Fault>().unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_command_is_taken_with_its_colons() {
        let fault = |text: &str| text.parse::<Fault>().unwrap();
        let command = "echo 0000:3b:00.1 >unbind".to_owned();
        let once = fault("0000:3b:00.1:bind:before=echo 0000:3b:00.1 >unbind:once");
        assert_eq!((once.kind, once.when), (Kind::Act(Moment::Before, command.clone()), When::Nth(1)));
        let always = fault("module=vfio_pci:after=echo 0000:3b:00.1 >unbind");
        assert_eq!((always.kind, always.when), (Kind::Act(Moment::After, command), When::Always));
    }

    #[test]
    fn faults_strike_where_and_when_they_should() {
        let address = "0000:3b:00.1".parse().unwrap();
        let mut fault: Fault = "0000:3b:00.1:probe:block:nth=2".parse().unwrap();
        assert!(fault.is_at(&Place::Device(address, Step::Probe)));
        assert!(!fault.is_at(&Place::Device(address, Step::Bind)));
        assert!(!fault.is_at(&Place::Module("vfio_pci".into())));
        assert_eq!([fault.strikes(), fault.strikes(), fault.strikes()], [false, true, false]);
    }
}
