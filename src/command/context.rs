// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every verb has: the host, the options, and where to report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::address::Address;
use crate::apply::{Recoveries, Setting, step_record};
use crate::builder::Builder;
use crate::cli::Common;
use crate::file;
use crate::gather::Chooser;
use crate::host::Host;
use crate::interrupt;
use crate::modules::Tables;
use crate::outcome::{DeviceResult, Failure, Kind, Outcome, State};
use crate::plan::{self, Action, Binding, Step};
use crate::policy::{self, Decision, Policy, PolicyError, Renewed};
use crate::progress::Progress;
use crate::report::{Output, PolicyView};
use crate::sysfs::attendant;
use crate::sysfs::{self, Device, Directory, Listing, Overrides, ReadError};
use crate::unfinished::Unfinished;

/// How many devices are worked on at a time: the kernel's probes are what takes long, not we, and each is under the lock of its
/// device alone.
const PARALLEL: usize = 64;

/// How many at most, where most of these are in calls that last: each call has a process, and where calls are short more of
/// these would cost more than they gain.
const MOST: usize = 256;

/// How often one looks whether they do.
const GLANCE: Duration = Duration::from_millis(10);

/// How many files are open for one device, and some to spare: its lock, twice, the way to whoever makes its calls, what is read
/// of it.
const FILES: usize = 16;

/// How long a call into the kernel may take, unless the user says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What every verb has.
pub struct Context {
    /// The host.
    pub host: Host,
    /// Where to report.
    pub output: Output,
    /// How long a call into the kernel may take.
    pub timeout: Duration,
    /// Did the user say so?
    pub is_timeout_fixed: bool,
    /// Only say what would be done?
    pub is_dry_run: bool,
    /// Where to say how far many devices are.
    pub progress: Progress,
    /// What was put back of earlier runs, and is not reported yet.
    pub recoveries: Recoveries,
    policy: OnceLock<(Policy, Vec<PolicyError>)>,
}

impl Context {
    /// Looks at the host that the options name.
    pub fn new(common: &Common) -> Result<Context> {
        let output = Output { is_json: common.json, color: common.color, is_verbose: common.verbose };
        Ok(Context {
            host: Host::new(&common.root, common.kernel.clone())?,
            output,
            timeout: common.timeout.unwrap_or(TIMEOUT),
            is_timeout_fixed: common.timeout.is_some(),
            is_dry_run: common.dry_run,
            progress: Progress::hidden(),
            recoveries: Recoveries::default(),
            policy: OnceLock::new(),
        })
    }

    /// Reads the alias tables, and says what is missing or, with -v, odd.
    pub fn chooser(&self) -> Result<Chooser<'_>> {
        let chooser = Chooser::new(&self.host)?;
        self.remark(&chooser.tables);
        Ok(chooser)
    }

    fn remark(&self, tables: &Tables) {
        for warning in &tables.warnings {
            self.output.warn(warning);
        }
        if let Some(path) = &tables.missing {
            self.output.warn(&format!(
                "{} is not there: which variant drivers kernel {} has is unknown, so vfio-pci is taken",
                path.display(),
                tables.release
            ));
        }
        if self.output.is_verbose {
            for oddity in &tables.table.oddities {
                self.output.note(&oddity.to_string());
            }
            let skipped = tables.table.oddities.iter().filter(|oddity| oddity.kind.is_skipped()).count();
            if skipped > 0 {
                self.output.note(&format!("{skipped} malformed lines skipped"));
            }
        }
    }

    /// All devices; what is odd about one is said, and costs no other its place.
    pub fn list(&self) -> Result<Vec<Device>> {
        Ok(self.without_odd_ones(sysfs::list(&self.host)?))
    }

    /// All devices, and the overrides of those that are wanted, in whichever way costs this kernel least.
    pub fn list_with_overrides(
        &self,
        reader: &mut Overrides<'_>,
        is_wanted: impl Fn(&Device) -> bool,
    ) -> Result<(Vec<Device>, BTreeMap<Address, Override>)> {
        let mut overrides = BTreeMap::new();
        if !reader.may_block() {
            let look = |directory: &Directory, device: &Device| {
                if is_wanted(device) {
                    overrides.insert(device.address, reader.read_of(directory, device.address));
                }
            };
            let devices = self.without_odd_ones(sysfs::list_looking(&self.host, look)?);
            return Ok((devices, overrides));
        }
        let devices = self.list()?;
        let wanted = devices.iter().filter(|device| is_wanted(device)).map(|device| device.address);
        let wanted: Vec<Address> = wanted.collect();
        overrides.extend(wanted.iter().copied().zip(reader.read_all(&wanted)));
        Ok((devices, overrides))
    }

    fn without_odd_ones(&self, listing: Listing) -> Vec<Device> {
        for error in &listing.errors {
            self.output.warn(&format!("left out: {error}"));
        }
        listing.devices
    }

    /// A module of another kernel cannot be loaded into this one.
    pub fn refuse_other_kernel(&self, chooser: &Chooser<'_>) -> Result<()> {
        let running = self.host.running()?;
        if !self.is_dry_run && chooser.tables.release != running {
            anyhow::bail!(UsageError(format!(
                "--kernel {}: kernel {running} runs here, and only its modules can be loaded; --dry-run shows the plan",
                chooser.tables.release
            )));
        }
        Ok(())
    }

    /// What work on a device needs.
    pub fn setting<'a>(&'a self, observe: &'a (dyn Fn(Address, &str) + Sync)) -> Setting<'a> {
        let (timeout, is_timeout_fixed) = (self.timeout, self.is_timeout_fixed);
        Setting { host: &self.host, timeout, is_timeout_fixed, observe, recoveries: &self.recoveries }
    }

    /// The policy as this run first read it, with the files that are left out named; the second value is why.
    pub fn policy(&self) -> (&Policy, &[PolicyError]) {
        let (policy, errors) = self.policy_read();
        for error in errors {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            self.output.warn(&format!("policy left out: {error}{hint}"));
        }
        (policy, errors)
    }

    /// The same for a device whose lock is held: whoever has bound it or given it back until now has its way. What is about
    /// many devices is as it was when this run began.
    pub fn policy_now(&self, address: Address) -> Renewed<'_> {
        self.policy_read().0.renew(&self.host, address)
    }

    /// The same without a word.
    pub fn policy_read(&self) -> &(Policy, Vec<PolicyError>) {
        self.policy.get_or_init(|| Policy::read(&self.host))
    }

    /// Writes down for udev which devices the policy's selectors may be about; `true`: it is something else than before.
    pub fn write_udev_rules(&self) -> Result<bool> {
        policy::refresh_rules(&self.host).map_err(|error| {
            let path = self.host.udev_rules();
            anyhow::anyhow!("cannot write {}: {error}; devices that come later are not claimed", path.display())
        })
    }

    /// A device that must be there.
    pub fn device(&self, address: Address) -> Result<Device, Failure> {
        match Device::read(&self.host, address) {
            Ok(Some(device)) => Ok(device),
            Ok(None) => Err(self.no_device(address)),
            Err(error) => Err(Failure::plain(Kind::Failed, format!("{address}: {error}"))),
        }
    }

    /// That there is no such device.
    pub fn no_device(&self, address: Address) -> Failure {
        Failure::new(
            Kind::NoDevice,
            format!("no PCI device {address} ({} is not there)", self.host.device(address).display()),
            "'vfioctl list' shows those there are",
        )
    }

    /// Says why nothing can be shown; with --json as a document too.
    pub fn refuse(&self, command: &str, failure: &Failure) -> Result<u8> {
        self.output.refuse(command, failure)?;
        Ok(failure.kind.exit_status())
    }

    /// Hears of each step as it begins; with -v so does the user.
    pub fn observe(&self, address: Address, text: &str) {
        if self.output.is_verbose {
            self.output.note(&format!("{address}: {text}"));
        }
    }

    /// A device is as it was chosen again: from here on that is to hold.
    pub fn take_again(&self, result: &DeviceResult) {
        if result.error.is_none() && !self.is_dry_run {
            self.forget_given_away(result.address);
        }
    }

    /// It is not given away, or not any more.
    pub fn forget_given_away(&self, address: Address) {
        if let Err(error) = policy::take_again(&self.host, address) {
            self.output.warn(&format!("cannot remove {}: {error}", self.host.given_away(address).display()));
        }
    }

    /// A result for a device to which nothing was done.
    pub fn unchanged(&self, address: Address) -> DeviceResult {
        let driver = crate::gather::driver_of(&self.host, address).ok().flatten();
        DeviceResult::unchanged(address, driver, policy::has_own_file(&self.host, address))
    }

    /// A result for a device to which nothing could be done.
    pub fn untouched(&self, address: Address, failure: Failure) -> DeviceResult {
        let outcome = if failure.kind.is_refusal() { Outcome::Refused } else { Outcome::Failed };
        DeviceResult { outcome, error: Some(failure), ..self.unchanged(address) }
    }

    /// What `--dry-run` has to say of a device that is bound so `before`.
    pub fn planned(&self, address: Address, before: &Binding, steps: &[Step], warnings: Vec<String>) -> DeviceResult {
        let before = State::from(before);
        self.planned_from(address, (before.clone(), plan::foresee(&before, steps)), steps, warnings)
    }

    /// The same where not all of that is known, or more of what it will come to.
    pub fn planned_from(
        &self,
        address: Address,
        (before, after): (State, State),
        steps: &[Step],
        warnings: Vec<String>,
    ) -> DeviceResult {
        let unchanged = self.unchanged(address);
        let kept = Some(unchanged.persisted);
        let (before, after) = (State { persisted: kept, ..before }, State { persisted: kept, ..after });
        let result = DeviceResult {
            outcome: Outcome::Planned,
            changed: steps.iter().any(|step| !matches!(step.action, Action::LoadNative | Action::Probe)),
            steps: steps.iter().map(step_record).collect(),
            warnings,
            ..unchanged
        };
        result.compared(before, after)
    }

    /// Works on several devices at once; the results come in the order of the addresses.
    pub fn each<F>(&self, addresses: &[Address], work: F) -> Vec<DeviceResult>
    where
        F: Fn(Address) -> Result<DeviceResult, Failure> + Sync,
    {
        self.take_signals();
        self.in_parallel(addresses, |address| match interrupt::is_wanted() {
            true => Err(Failure::plain(Kind::Interrupted, format!("{address}: interrupted; nothing was touched"))),
            false => work(address),
        })
    }

    /// From now on Ctrl-C is a wish to stop, where there is anything to be left half done.
    pub fn take_signals(&self) {
        if !self.is_dry_run {
            if let Err(error) = interrupt::take_over() {
                self.output.warn(&format!("Ctrl-C will end this at once: {error}"));
            }
        }
    }

    /// The same, whoever wishes to stop: for putting things back.
    pub fn in_parallel<F>(&self, addresses: &[Address], work: F) -> Vec<DeviceResult>
    where
        F: Fn(Address) -> Result<DeviceResult, Failure> + Sync,
    {
        let results: Mutex<Vec<Option<DeviceResult>>> = Mutex::new(vec![None; addresses.len()]);
        let queue = Mutex::new(addresses.iter().enumerate());
        let work_through = || {
            loop {
                let next = queue.lock().expect("no thread panics with the queue").next();
                let Some((index, &address)) = next else { break };
                let mut result = work(address).unwrap_or_else(|failure| self.untouched(address, failure));
                self.tell_of_earlier(&mut result);
                results.lock().expect("no thread panics with the results")[index] = Some(result);
                self.progress.step();
            }
        };
        let most = at_a_time(addresses.len());
        thread::scope(|scope| {
            // Where there may be no more threads, there are fewer at work.
            let start = || thread::Builder::new().spawn_scoped(scope, work_through).is_ok();
            let mut threads = (1..most.min(PARALLEL)).take_while(|_| start()).count() + 1;
            let is_waiting = || queue.lock().expect("no thread panics with the queue").len() > 0;
            // Where not one could be started, nobody else is at work.
            while threads > 1 && threads < most && is_waiting() {
                thread::sleep(GLANCE);
                if attendant::lasting_calls() * 2 > threads {
                    let more = (threads..most).take(PARALLEL).take_while(|_| start()).count();
                    threads += more;
                    if more == 0 {
                        break;
                    }
                }
            }
            work_through();
        });
        let results = results.into_inner().expect("no thread panics with the results");
        results.into_iter().map(|result| result.expect("every device was worked on")).collect()
    }

    /// Adds what an earlier run was killed at, and what became of that.
    fn tell_of_earlier(&self, result: &mut DeviceResult) {
        if let (true, Some(found)) = (self.is_dry_run, Unfinished::abandoned(&self.host, result.address)) {
            result.warnings.insert(0, format!("{found}; it is put back first, and these steps are from how it is now"));
            result.changed = true;
        }
        let Some(recovery) = self.recoveries.take(result.address) else { return };
        result.changed |= recovery.steps.iter().any(|step| step.done);
        result.steps.splice(0..0, recovery.steps);
        result.warnings.splice(0..0, recovery.warnings);
        // What is asked for can make good what failed.
        if let (None, Outcome::Unchanged) = (&result.error, result.outcome) {
            result.outcome = if recovery.failure.is_some() { Outcome::Failed } else { Outcome::PutBack };
            result.error = recovery.failure;
        }
    }

    /// The verb of an earlier run that was killed at a device; that is said.
    pub fn unfinished(&self, address: Address) -> Option<String> {
        let found = Unfinished::abandoned(&self.host, address)?;
        self.output.warn(&format!("{address}: {found}: 'vfioctl apply {address}' puts it back"));
        Some(found.verb)
    }

    /// Reports results and gives the exit status: the highest.
    pub fn conclude(&self, command: &str, results: &[DeviceResult]) -> Result<u8> {
        let status = results.iter().map(DeviceResult::exit_status).max().unwrap_or(0);
        let errors = self.policy.get().map_or(&[][..], |(_, errors)| errors);
        let reported = crate::report::results(self.output, command, results, errors);
        self.remind_of_initramfs(results.iter());
        match reported {
            Ok(()) => Ok(status),
            // What became of the devices counts for more than that it could not be shown.
            Err(error) if status > 0 => {
                self.output.note(&format!("cannot write the results: {error}"));
                Ok(status)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An initramfs keeps the choices that were there when it was made. To make one is the administrator's: it takes a minute,
    /// and can go wrong.
    pub fn remind_of_initramfs<'a>(&self, mut results: impl Iterator<Item = &'a DeviceResult>) {
        if !results.any(|result| result.steps.iter().any(|step| step.done && matches!(step.step, "save" | "forget"))) {
            return;
        }
        for builder in Builder::ALL.into_iter().filter(|builder| builder.hook(&self.host).is_some()) {
            let command = builder.command(None);
            self.output.note(&format!("the initramfs has the choices from before: '{command}' takes these into it"));
        }
    }
}

/// What was read of a device's override.
pub type Override = Result<Option<String>, ReadError>;

/// What was typed cannot be done, whatever the host: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// How many of so many devices can be worked on at a time: as many as there may be files open for.
fn at_a_time(devices: usize) -> usize {
    let wanted = devices.min(MOST);
    wanted.min(file::allow_open(wanted * FILES) / FILES)
}

/// Addresses without their repetitions, in the order given.
pub fn distinct(addresses: &[Address]) -> Vec<Address> {
    let mut seen = BTreeSet::new();
    addresses.iter().copied().filter(|address| seen.insert(*address)).collect()
}

/// What the policy says about a device, for showing.
pub fn policy_view(policy: &Policy, device: &Device) -> Option<PolicyView> {
    let (rule, mismatch) = match policy.decide(device)? {
        Decision::Rule(rule) => (rule, None),
        Decision::OtherDevice(rule) => (rule, Some(rule.mismatch(device))),
    };
    let prepare = rule.recipe().cloned();
    let (require, force) = (rule.require.clone(), rule.acknowledged.to_keep().collect());
    let file = rule.file.display().to_string();
    Some(PolicyView { driver: rule.driver.clone(), require, force, file, mismatch, prepare })
}
