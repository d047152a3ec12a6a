// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a recipe to steps that can be run on one device: what they need is found out before anything is touched.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use super::port::{self, Port, PortError};
use super::program;
use super::recipe::{Placeholder, Recipe, Template, Written};
use super::{Preparation, shown};
use crate::address::Address;
use crate::catalog::{self, Catalog, KernelVersion, Sign, When};
use crate::environment;
use crate::host::Host;
use crate::outcome::{Failure, Kind};
use crate::process::{self, Answer, RunError};
use crate::sysfs::{Device, Node, vf_index};

/// How much devlink may say: some hundred bytes a port, and some thousand ports.
const PORTS: usize = 4 << 20;

/// What an entry of the catalogue and a step of a rule have in common.
struct Wanted {
    what: String,
    written: Option<Written>,
    sign: Option<Sign>,
}

/// Makes a device's steps ready.
pub struct Preparer<'a> {
    host: &'a Host,
    device: &'a Device,
    kernel: Option<KernelVersion>,
    timeout: Duration,
    /// Nothing of this machine is asked, because it is about another.
    is_elsewhere: bool,
    directories: Vec<PathBuf>,
    vf_index: OnceCell<Option<u32>>,
    port: OnceCell<Port>,
}

impl<'a> Preparer<'a> {
    /// For a device on a kernel; `timeout` is for asking devlink. Steps are run on this machine alone: for another host they
    /// can be shown, where `is_dry_run`.
    pub fn new(
        host: &'a Host,
        device: &'a Device,
        release: &str,
        timeout: Duration,
        is_dry_run: bool,
    ) -> Result<Preparer<'a>, Failure> {
        let is_elsewhere = !host.is_this_machine();
        if is_elsewhere && !is_dry_run {
            return Err(Failure::new(
                Kind::Unsafe,
                format!(
                    "{}: its prepare steps would be run on this machine, not on the host in {}; nothing was touched",
                    device.address,
                    host.root().display()
                ),
                "run vfioctl there (chroot, nsenter); 'vfioctl bind --no-prepare' does without",
            ));
        }
        Ok(Preparer {
            host,
            device,
            kernel: KernelVersion::parse(release),
            timeout,
            is_elsewhere,
            directories: environment::search_path(),
            vf_index: OnceCell::new(),
            port: OnceCell::new(),
        })
    }

    /// The steps before the device is bound to `driver`.
    pub fn steps(&self, recipe: &Recipe, driver: &str) -> Result<Vec<Preparation>, Failure> {
        let mut steps = Vec::new();
        for wanted in self.wanted(recipe, driver) {
            let is_done = match wanted.sign {
                Some(sign) if !self.is_elsewhere => self.shows(sign, driver)? == Shows::Done,
                _ => false,
            };
            match wanted.written {
                Some(written) => steps.push(self.step(wanted.what, &written, is_done, driver)?),
                // What is the administrator's to do.
                None if is_done || self.is_elsewhere => {}
                None => return Err(self.not_done(&wanted, driver)),
            }
        }
        Ok(steps)
    }

    /// What a driver that has the device already did not find done when it was bound: it would have to be bound anew.
    pub fn missed(&self, recipe: &Recipe, driver: &str) -> Vec<String> {
        if self.is_elsewhere || *recipe != Recipe::Auto {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        for wanted in self.wanted(recipe, driver) {
            let Some(sign @ Sign::PortFunction { .. }) = wanted.sign else { continue };
            match self.shows(sign, driver) {
                Ok(Shows::Done) => {}
                Ok(Shows::Value(value)) => warnings.push(format!(
                    "{driver} was bound unprepared, {} is {value}: 'vfioctl unbind --no-save' it, then bind it again, to {}",
                    attribute(sign),
                    wanted.what
                )),
                Err(failure) => {
                    let own = format!("{}: ", self.device.address);
                    let message = failure.message.replace(&own, "").replace("; nothing was touched", "");
                    warnings.push(format!("whether it is prepared cannot be told: {message}"));
                }
            }
        }
        warnings
    }

    fn wanted(&self, recipe: &Recipe, driver: &str) -> Vec<Wanted> {
        let steps = match recipe {
            Recipe::Steps(steps) => steps,
            Recipe::Auto => {
                let known = Catalog::bundled().by_driver(driver);
                let known = known.into_iter().flat_map(|driver| driver.preparation_before_bind(self.kernel));
                return known.map(from_catalog).collect();
            }
        };
        let of_rule = |step: &Written| Wanted {
            what: "as vfioctl.d has it".to_string(),
            written: Some(step.clone()),
            sign: None,
        };
        steps.iter().map(of_rule).collect()
    }

    fn step(&self, what: String, written: &Written, is_done: bool, driver: &str) -> Result<Preparation, Failure> {
        let undo = written.undo.as_ref().map(|undo| self.fill(undo, driver)).transpose()?;
        let mut variables =
            vec![("VFIOCTL_ADDRESS", self.device.address.to_string()), ("VFIOCTL_DRIVER", driver.to_string())];
        variables.extend(self.device.pf.map(|pf| ("VFIOCTL_PF", pf.to_string())));
        let variables = variables.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Ok(Preparation {
            what,
            command: self.fill(&written.run, driver)?,
            undo,
            timeout: written.timeout,
            is_done,
            variables,
        })
    }

    /// A template's words: its program found, its placeholders filled in.
    fn fill(&self, template: &Template, driver: &str) -> Result<Vec<String>, Failure> {
        let mut words = match template.asks_for(Placeholder::Port) && !self.is_elsewhere {
            true => {
                let port = &self.port(driver)?.name;
                template.fill(|placeholder| match placeholder {
                    Placeholder::Port => Some(port.clone()),
                    placeholder => self.value(placeholder),
                })
            }
            false => template.fill(|placeholder| self.value(placeholder)),
        }
        .map_err(|missing| self.no_vf(&missing.to_string()))?;
        if !self.is_elsewhere {
            words[0] = self.program(&words[0])?;
        }
        Ok(words)
    }

    fn value(&self, placeholder: Placeholder) -> Option<String> {
        match placeholder {
            Placeholder::Address => Some(self.device.address.to_string()),
            Placeholder::Pf => self.device.pf.map(|pf| pf.to_string()),
            Placeholder::VfIndex => self.vf_index().map(|index| index.to_string()),
            // Of another host it cannot be known.
            Placeholder::Port => self.vf_index().map(|_| placeholder.to_string()),
        }
    }

    fn vf_index(&self) -> Option<u32> {
        *self.vf_index.get_or_init(|| vf_index(self.host, self.device.pf?, self.device.address).ok().flatten())
    }

    fn program(&self, word: &str) -> Result<String, Failure> {
        match program::resolve(word, &self.directories) {
            // What is not UTF-8 cannot have come from a word, but from PATH.
            Some(path) => path.into_os_string().into_string().map_err(|path| {
                self.refusal(format!("the program {} has no name in UTF-8", path.to_string_lossy()), "mend PATH")
            }),
            None if word.starts_with('/') => Err(self.refusal(
                format!("a prepare step runs {word}, which is no program here"),
                "install it, or mend the step in vfioctl.d",
            )),
            None => {
                let hint = match word {
                    "devlink" => "install the package iproute2".to_string(),
                    _ => "install it, or write its absolute path".to_string(),
                };
                let directories: Vec<String> =
                    self.directories.iter().map(|directory| directory.display().to_string()).collect();
                Err(self.refusal(
                    format!("a prepare step runs {word}, which is in none of {}", directories.join(", ")),
                    hint,
                ))
            }
        }
    }

    /// The VF's devlink port. Asked for once.
    fn port(&self, driver: &str) -> Result<&Port, Failure> {
        if let Some(port) = self.port.get() {
            return Ok(port);
        }
        let (Some(pf), Some(vf_index)) = (self.device.pf, self.vf_index()) else {
            return Err(self.no_vf(&Placeholder::Port.to_string()));
        };
        let devlink = self.program("devlink")?;
        let address = self.device.address;
        let failed = |kind, message: String| {
            Failure::new(
                kind,
                format!("{address}: {message}; nothing was touched"),
                format!("'devlink port show' by hand may say more, and 'devlink dev eswitch show pci/{pf}'"),
            )
        };
        let mut command = program::command(OsStr::new(&devlink), []);
        let answer = process::ask(command.args(["-j", "port", "show"]), &[], self.timeout, PORTS).map_err(|error| {
            let kind = match &error {
                RunError::TimedOut { .. } => Kind::Timeout,
                RunError::Start { .. } => Kind::Failed,
            };
            failed(kind, format!("cannot ask for its devlink port: {error}"))
        })?;
        let Answer { status, stdout, stderr } = answer;
        if !status.success() {
            return Err(failed(
                Kind::Failed,
                format!("{devlink} -j port show: {}", reason(&status.to_string(), &stderr)),
            ));
        }
        if stdout.is_cut {
            return Err(failed(Kind::Failed, format!("{devlink} -j port show prints more than {PORTS} bytes")));
        }
        let port = port::find(&stdout.bytes, pf, vf_index).map_err(|error| match error {
            PortError::None => self.no_port(pf, driver),
            error => failed(Kind::Failed, error.to_string()),
        })?;
        Ok(self.port.get_or_init(|| port))
    }

    fn shows(&self, sign: Sign, driver: &str) -> Result<Shows, Failure> {
        let address = self.device.address;
        let (value, is) = match sign {
            Sign::PortFunction { attribute, is } => (self.port(driver)?.function.get(attribute).cloned(), is),
            Sign::PfAttribute { attribute, is } => {
                let Some(pf) = self.device.pf else { return Err(self.no_vf(&Placeholder::Pf.to_string())) };
                let value = Node::new(self.host.device(pf)).read_if_there(attribute);
                let value = value.map_err(|error| Failure::plain(Kind::Failed, format!("{address}: {error}")))?;
                (value, is)
            }
        };
        Ok(match value {
            Some(value) if value == is => Shows::Done,
            value => Shows::Value(value.unwrap_or("not there".to_string())),
        })
    }

    fn not_done(&self, wanted: &Wanted, driver: &str) -> Failure {
        let (Some(sign), Some(pf)) = (wanted.sign, self.device.pf) else {
            return self.refusal(format!("before {driver}: {}", wanted.what), "do that, then try again");
        };
        let value = match self.shows(sign, driver) {
            Ok(Shows::Value(value)) => value,
            Ok(Shows::Done) => "as it should be by now".to_string(),
            Err(failure) => return failure,
        };
        let hint = match sign {
            Sign::PfAttribute { attribute, is } => {
                format!("echo {is} > {}", self.host.device(pf).join(attribute).display())
            }
            Sign::PortFunction { .. } => "do that, then try again".to_string(),
        };
        self.refusal(
            format!("PF {pf} is not ready for {driver}: {} is {value}: {}", attribute(sign), wanted.what),
            hint,
        )
    }

    fn no_port(&self, pf: Address, driver: &str) -> Failure {
        // How it gets one is known of drivers that need one.
        let known = Catalog::bundled().by_driver(driver).into_iter().flat_map(|driver| driver.preparation.iter());
        let mut commands = known.filter(|p| p.when == When::BeforeVfs).filter_map(|p| p.command.as_ref());
        let hint = commands.next().map(|words| {
            let words: Vec<String> = words.iter().map(|word| word.replace("{pf}", &pf.to_string())).collect();
            shown(&words)
        });
        let hint = hint.unwrap_or_else(|| format!("devlink dev eswitch set pci/{pf} mode switchdev"));
        self.refusal(
            "it has no devlink port: VFs have one while their PF's e-switch is in switchdev mode".to_string(),
            format!("'{hint}' before the PF's VFs are made ('devlink dev eswitch show pci/{pf}' tells the mode)"),
        )
    }

    fn no_vf(&self, placeholder: &str) -> Failure {
        self.refusal(
            format!("a prepare step uses {placeholder}, and this device is no VF"),
            "mend the step or its selectors in vfioctl.d; 'vfioctl bind --no-prepare' does without",
        )
    }

    fn refusal(&self, message: String, hint: impl Into<String>) -> Failure {
        Failure::new(Kind::Unsafe, format!("{}: {message}; nothing was touched", self.device.address), hint)
    }
}

#[derive(PartialEq, Eq)]
enum Shows {
    Done,
    Value(String),
}

fn from_catalog(entry: &catalog::Preparation) -> Wanted {
    let template = |words: &Cow<[&str]>| {
        let words = words.iter().map(|word| word.to_string()).collect();
        Template::parse(words).expect("a test has parsed all of the catalogue's")
    };
    let written = entry.command.as_ref().map(|command| Written {
        run: template(command),
        undo: entry.undo.as_ref().map(template),
        timeout: None,
    });
    Wanted { what: entry.what.to_string(), written, sign: entry.done_when }
}

fn attribute(sign: Sign) -> &'static str {
    match sign {
        Sign::PortFunction { attribute, .. } | Sign::PfAttribute { attribute, .. } => attribute,
    }
}

fn reason(status: &str, stderr: &str) -> String {
    if stderr.is_empty() { status.to_string() } else { format!("{status}: {}", stderr.replace('\n', "; ")) }
}
