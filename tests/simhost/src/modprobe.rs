// SPDX-License-Identifier: MIT OR Apache-2.0
//! A modprobe for simulated hosts: kmod's options, searches, messages and exit status.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::control::{Client, Request};
use crate::fixture;
use crate::model::Errno;
use crate::model::modules::{Config, Tables};

#[derive(Parser)]
#[command(name = "modprobe", disable_version_flag = true)]
struct Options {
    /// Not a word when the module is not found
    #[arg(short, long)]
    quiet: bool,
    /// Say what is done
    #[arg(short, long)]
    verbose: bool,
    /// Hold to the blacklist for names too, not only for aliases
    #[arg(short = 'b', long)]
    use_blacklist: bool,
    /// Every argument is a module
    #[arg(short, long)]
    all: bool,
    /// Do nothing
    #[arg(short = 'n', long, alias = "show")]
    dry_run: bool,
    /// Say what would be inserted
    #[arg(short = 'D', long)]
    show_depends: bool,
    /// Say which modules the name leads to
    #[arg(short = 'R', long)]
    resolve_alias: bool,
    /// Remove
    #[arg(short, long)]
    remove: bool,
    /// Fail when it is in already, or not in
    #[arg(long)]
    first_time: bool,
    /// Of another kernel release
    #[arg(short = 'S', long)]
    set_version: Option<String>,
    /// Below another root
    #[arg(short, long)]
    dirname: Option<PathBuf>,
    /// Log to syslog: there is none
    #[arg(short, long)]
    syslog: bool,
    /// Pay no heed to install and remove commands: there are none
    #[arg(short, long, alias = "ignore-remove")]
    ignore_install: bool,
    /// Module or alias, then its parameters
    #[arg(required = true, trailing_var_arg = false)]
    arguments: Vec<String>,
}

/// Runs as modprobe.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let typed: Vec<String> = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match run(&options, &typed.join(" ")) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("modprobe: FATAL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Notes the call in the machine's journal and makes it.
fn run(options: &Options, typed: &str) -> Result<u8> {
    let client = Client::connect()?;
    let begin = Request::Begin { arguments: typed.to_owned(), pid: std::process::id() };
    let number = client.ask(&begin)?.ok().and_then(|value| value.as_u64());
    let modprobe = Modprobe::new(options, &client)?;
    let status = u8::from(!modprobe.work_on_all()?);
    if let Some(number) = number {
        let number = number as usize;
        let _ = client.ask(&Request::End { number, status })?;
    }
    Ok(status)
}

struct Modprobe<'a> {
    options: &'a Options,
    client: &'a Client,
    root: PathBuf,
    release: String,
    tables: Tables,
    config: Config,
}

impl<'a> Modprobe<'a> {
    fn new(options: &'a Options, client: &'a Client) -> Result<Self> {
        let root = options.dirname.clone().unwrap_or_else(|| PathBuf::from("/"));
        let release = match &options.set_version {
            Some(release) => release.clone(),
            None => fixture::release(Path::new("/")).context("the kernel's release")?,
        };
        Ok(Self {
            tables: fixture::tables(&fixture::modules_directory(&root, &release))?,
            config: fixture::modprobe_config(&root)?,
            options,
            client,
            root,
            release,
        })
    }

    /// Works on each name; one that fails does not keep the next from its turn. Without -a and -r the rest of the
    /// arguments are the module's parameters.
    fn work_on_all(&self) -> Result<bool> {
        let count = if self.options.all || self.options.remove { usize::MAX } else { 1 };
        let mut well = true;
        for name in self.options.arguments.iter().take(count) {
            well &= self.work(name)?;
        }
        Ok(well)
    }

    fn directory(&self) -> PathBuf {
        fixture::modules_directory(&self.root, &self.release)
    }

    fn fatal(&self, message: &str) -> Result<bool> {
        eprintln!("modprobe: FATAL: {message}");
        Ok(false)
    }

    fn work(&self, name: &str) -> Result<bool> {
        let found = self.tables.lookup(&self.config, name);
        if found.is_empty() {
            return match self.options.quiet {
                true => Ok(false),
                false => self.fatal(&format!("Module {name} not found in directory {}", self.directory().display())),
            };
        }
        let is_alias = found != [crate::model::modules::normalise(name)];
        let mut well = true;
        for module in found {
            // Blacklists hold for aliases; for names only when asked to (kmod_module_probe_insert_module).
            let hidden = (is_alias || self.options.use_blacklist) && self.config.is_blacklisted(&module);
            well &= match self.options {
                Options { resolve_alias: true, .. } => {
                    println!("{module}");
                    true
                }
                _ if hidden => true,
                Options { remove: true, .. } => self.remove(&module)?,
                _ => self.insert(&module)?,
            };
        }
        Ok(well)
    }

    /// Inserts a module, first what it needs, and behind each what softdep asks for.
    fn insert(&self, module: &str) -> Result<bool> {
        let builtin = self.tables.is_builtin(module) && !self.tables.has(module);
        if self.options.first_time && (builtin || Path::new("/sys/module").join(module).exists()) {
            eprintln!("modprobe: ERROR: could not insert '{module}': Module already in kernel");
            return Ok(false);
        }
        for (next, needed) in self.tables.probe_list(module) {
            if !self.insert_one(&next, next == module)? && needed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn insert_one(&self, module: &str, is_last: bool) -> Result<bool> {
        if self.tables.is_builtin(module) && !self.tables.has(module) {
            if self.options.show_depends {
                println!("builtin {module}");
            }
            return Ok(true);
        }
        if self.options.show_depends || self.options.verbose {
            let path = self.tables.path(module).unwrap_or_default();
            let parameters = if is_last && !self.options.all { &self.options.arguments[1..] } else { &[] };
            println!("insmod {} {}", self.directory().join(path).display(), parameters.join(" "));
        }
        if self.options.dry_run || self.options.show_depends {
            return Ok(true);
        }
        let Err(errno) = self.client.ask(&Request::Insert(module.to_owned()))? else {
            return Ok(true);
        };
        // kmod's mod_strerror
        let reason = match errno {
            Errno::ENOEXEC => "Invalid module format",
            Errno::ENOENT => "Unknown symbol in module, or unknown parameter (see dmesg)",
            Errno::ESRCH => "Module has wrong symbol version (see dmesg)",
            errno => errno.message(),
        };
        eprintln!("modprobe: ERROR: could not insert '{module}': {reason}");
        Ok(false)
    }

    /// Removes a module, then what it needed as far as nothing else does.
    fn remove(&self, module: &str) -> Result<bool> {
        if self.tables.is_builtin(module) && !self.tables.has(module) {
            return self.fatal(&format!("Module {module} is builtin."));
        }
        if self.options.verbose {
            println!("rmmod {module}");
        }
        if self.options.dry_run {
            return Ok(true);
        }
        match self.client.ask(&Request::Remove(module.to_owned()))? {
            Ok(_) => {}
            Err(Errno::ENOENT) if self.options.first_time => {
                return self.fatal(&format!("Module {module} is not in kernel."));
            }
            Err(Errno::ENOENT) => return Ok(true),
            Err(Errno::EAGAIN) => return self.fatal(&format!("Module {module} is in use.")),
            Err(errno) => {
                eprintln!("modprobe: ERROR: could not remove '{module}': {}", errno.message());
                return Ok(false);
            }
        }
        for needed in self.tables.needs(module).iter().rev() {
            let _ = self.client.ask(&Request::Remove(needed.clone()))?;
        }
        Ok(true)
    }
}
