// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `vfioctl sriov` does to the VFs of a PF, and how it comes to its PF's plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::apply::decide;
use super::bind::{Binder, Request, held};
use super::context::Context;
use super::sriov::read;
use crate::address::Address;
use crate::apply::{Intent, Job, PfJob, pf_step_record};
use crate::gather;
use crate::guard::Uses;
use crate::libvirt;
use crate::outcome::{DeviceResult, Failure, Kind, Outcome, StepRecord};
use crate::plan::{self, Action as DeviceAction, Attempt, BindPlan, Binding, Manner, Step as DeviceStep};
use crate::policy::{Choice, Decision};
use crate::prepare::Preparation;
use crate::require::Feature;
use crate::sriov::{self, Action, Facts};
use crate::sysfs::{Device, Pf, ReadError};

/// What became of a PF.
pub struct Done {
    /// How many VFs it had.
    pub previous: u16,
    /// What was done to it, or would be.
    pub steps: Vec<StepRecord>,
    /// Did all go well?
    pub result: Result<(), Failure>,
}

/// Work on the VFs of one PF.
pub struct VfWork<'a> {
    context: &'a Context,
    binder: Binder<'a>,
    pf: Address,
    /// The driver that was named; without, the policy says.
    request: Option<Request>,
    is_going_on: bool,
    unnamed: Mutex<BTreeSet<Address>>,
    /// What was done before the drivers of VFs came, and to which of those that were at that address.
    prepared: BTreeMap<Address, (Option<u64>, Vec<Preparation>)>,
    /// What became of the VFs.
    pub results: Vec<DeviceResult>,
}

impl<'a> VfWork<'a> {
    /// Work that has not begun. With `is_going_on`, VFs that cannot be bound cost the others nothing.
    pub fn new(
        context: &'a Context,
        binder: Binder<'a>,
        pf: Address,
        request: Option<Request>,
        is_going_on: bool,
    ) -> VfWork<'a> {
        let (unnamed, prepared, results) = (Mutex::default(), BTreeMap::new(), Vec::new());
        VfWork { context, binder, pf, request, is_going_on, unnamed, prepared, results }
    }

    /// Gives the PF `count` VFs, each its driver; an error: nothing was begun.
    pub fn set(&mut self, device: &Device, count: u16, acknowledged: Uses) -> Result<Done, Failure> {
        let (context, address) = (self.context, self.pf);
        let observe = |address: Address, text: &str| context.observe(address, text);
        let setting = context.setting(&observe);
        let mut job = if context.is_dry_run { None } else { Some(PfJob::start(&setting, address)?) };
        let counted =
            job.as_mut().map(PfJob::count).transpose().map_err(|error| held(&context.host, address, error))?;
        // Only now, under the lock, is what is read what counts.
        let (pf, _) = read(context, address)?;
        let facts = self.facts(&pf, counted, count)?;
        let steps = sriov::plan(&facts, count, acknowledged)?;
        let (expected, intents) = match steps.is_empty() {
            true => Default::default(),
            false => self.expected(device, &facts, &pf, count)?,
        };
        let Some(mut job) = job else {
            let mut records: Vec<StepRecord> = steps.iter().map(pf_step_record).collect();
            if let Some(record) = records.iter_mut().find(|record| record.step == "bind-vfs") {
                record.target = Some(expected);
            }
            return Ok(Done { previous: facts.count, steps: records, result: Ok(()) });
        };
        self.show_progress(&steps);
        let result = job.run(&facts, &steps, &intents, &mut |action| self.act(action));
        Ok(Done { previous: facts.count, steps: job.steps, result })
    }

    fn facts(&self, pf: &Pf, counted: Option<u16>, wanted: u16) -> Result<Facts, Failure> {
        let (context, address) = (self.context, self.pf);
        let failed = |error: ReadError| Failure::plain(Kind::Failed, format!("{address}: {error}"));
        let (mut vfs, errors) = gather::vfs(&context.host, pf, context.timeout).map_err(failed)?;
        for error in libvirt::name_domains(&context.host, &mut vfs) {
            context.output.warn(&error.to_string());
        }
        // How they were bound has to be known, to be put back.
        if let Some(error) = errors.into_iter().next() {
            return Err(held(&context.host, address, error));
        }
        let count = counted.unwrap_or(u16::try_from(pf.vfs.len()).unwrap_or(u16::MAX));
        if count != wanted {
            gather::add_uses(&context.host, &mut vfs).map_err(failed)?;
        }
        Ok(Facts {
            pf: address,
            driver: gather::driver_of(&context.host, address).map_err(failed)?,
            is_vfio_device: Device::is_vfio_device(&context.host, address).map_err(failed)?,
            total: pf.range.total,
            count,
            is_autoprobed: pf.is_autoprobed,
            vfs,
        })
    }

    /// Which drivers the VFs are to have, as far as can be told before they are there, and what may become of each: what will
    /// not do is refused now.
    fn expected(
        &self,
        pf: &Device,
        facts: &Facts,
        before: &Pf,
        count: u16,
    ) -> Result<(String, BTreeMap<Address, Intent>), Failure> {
        let vfs: Vec<Device> = match count == facts.count {
            true => facts.vfs.iter().map(|vf| vf.device.clone()).collect(),
            false => {
                let addresses = before.range.addresses().take(usize::from(count));
                addresses.filter_map(|vf| sriov::predicted(pf, vf, &before.range.device)).collect()
            }
        };
        let (policy, _) = self.context.policy_read();
        let mut known: BTreeMap<(String, Vec<Feature>), (String, BTreeSet<String>)> = BTreeMap::new();
        let mut intents = BTreeMap::new();
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        for vf in &vfs {
            let (name, names) = match self.request(policy.decide(vf), vf)? {
                None => ("the kernel's own choice".to_string(), BTreeSet::new()),
                // They are alike: what holds for one holds for all.
                Some(request) => {
                    let key = (request.choice.to_string(), request.require.clone());
                    match known.get(&key) {
                        Some(known) => known.clone(),
                        None => {
                            let (_, request) = self.binder.with_rule(vf, request)?;
                            let (wanted, _) = self.binder.wanted(vf, &request)?;
                            let name = plan::first_choice(vf, &wanted, request.manner)?;
                            let name = name.unwrap_or("no driver".to_string());
                            known.entry(key).or_insert((name, wanted.names())).clone()
                        }
                    }
                }
            };
            *numbers.entry(name).or_default() += 1;
            let is_prepared = match policy.decide(vf) {
                Some(Decision::Rule(rule)) => rule.recipe().is_some_and(|recipe| !recipe.is_empty()),
                _ => false,
            };
            intents.insert(vf.address, Intent { names, is_prepared });
        }
        let text: Vec<String> = numbers.iter().map(|(name, number)| format!("{number} to {name}")).collect();
        Ok((text.join(", "), intents))
    }

    /// What is asked for a VF: by the driver that was named, else by the policy; `None`: nothing.
    fn request(&self, decision: Option<Decision<'_>>, vf: &Device) -> Result<Option<Request>, Failure> {
        let Some(request) = &self.request else {
            return decide(self.context, decision, vf, Manner::default());
        };
        match decision {
            // udev has the policy applied to what appears: which of the two came last would be chance.
            Some(Decision::Rule(rule)) if !is_same(&rule.driver, &request.choice) => Err(Failure::new(
                Kind::Conflict,
                format!(
                    "{}: {} chooses driver {} for it, not {}",
                    vf.address,
                    rule.file.display(),
                    rule.driver,
                    request.choice
                ),
                "change that file, or leave --driver out",
            )),
            Some(Decision::Rule(rule)) => Ok(Some(Request { require: rule.require.clone(), ..request.clone() })),
            _ => Ok(Some(request.clone())),
        }
    }

    fn show_progress(&self, steps: &[sriov::Step]) {
        let output = self.context.output;
        if output.is_json || output.is_verbose {
            return;
        }
        let count = steps.iter().rev().find_map(|step| match step.action {
            Action::Count(count) => Some(count),
            _ => None,
        });
        match count {
            None => {}
            Some(0) => self.context.progress.show(format!("{}: removing VFs", self.pf), None),
            Some(count) => self.context.progress.show(format!("{}: making {count} VFs", self.pf), None),
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), Failure> {
        match action {
            Action::Bind => self.bind(),
            Action::Probe => self.probe(),
            Action::Restore(vfs) => self.restore(vfs),
            Action::Autoprobe(_) | Action::Count(_) => unreachable!("done to the PF"),
        }
    }

    fn bind(&mut self) -> Result<(), Failure> {
        let context = self.context;
        let failed = |error: ReadError| Failure::plain(Kind::Failed, format!("{}: {error}", self.pf));
        let pf = Pf::read(&context.host, self.pf).map_err(failed)?;
        let gone = || Failure::plain(Kind::NoDevice, format!("{}: the PF went away", self.pf));
        let vfs: Vec<Address> = pf.ok_or_else(gone)?.vfs.iter().map(|(_, vf)| *vf).collect();
        if !(context.output.is_json || context.output.is_verbose) {
            let text = format!("{}: {} VFs there; bound ", self.pf, vfs.len());
            context.progress.show(text, Some(vfs.len()));
        }
        self.binder.together.clone_from(&vfs);
        let results = context.each(&vfs, |vf| {
            self.binder.bind(vf, |device| {
                // Read again under the VF's lock: a bind or unbind that was faster has its way.
                let request = self.request(context.policy_now(vf).decide(device), device)?;
                if request.is_none() {
                    self.unnamed.lock().expect("no thread panics with it").insert(vf);
                }
                Ok(request)
            })
        });
        let failures: Vec<&DeviceResult> = results.iter().filter(|result| result.error.is_some()).collect();
        let failure = sriov::could_not(self.pf, vfs.len(), &failures);
        for mut result in results {
            if !result.prepared.is_empty() {
                let incarnation = Device::incarnation(&context.host, result.address);
                self.prepared.insert(result.address, (incarnation, std::mem::take(&mut result.prepared)));
            }
            if self.unnamed.lock().expect("no thread panics with it").contains(&result.address) {
                result.warnings.clear();
            }
            self.results.push(result);
        }
        self.unless_going_on(failure)
    }

    fn unless_going_on(&self, failure: Option<Failure>) -> Result<(), Failure> {
        match failure {
            Some(failure) if !self.is_going_on || failure.kind == Kind::Interrupted => Err(failure),
            _ => Ok(()),
        }
    }

    fn probe(&mut self) -> Result<(), Failure> {
        let vfs: Vec<Address> = self.unnamed.lock().expect("no thread panics with it").iter().copied().collect();
        let results = self.context.each(&vfs, |vf| self.probe_one(vf));
        let failure =
            sriov::could_not(self.pf, vfs.len(), &results.iter().filter(|r| r.error.is_some()).collect::<Vec<_>>());
        self.results.retain(|result| !vfs.contains(&result.address));
        self.results.extend(results);
        self.results.sort_by_key(|result| result.address);
        self.unless_going_on(failure)
    }

    fn probe_one(&self, vf: Address) -> Result<DeviceResult, Failure> {
        let context = self.context;
        let observe = |address: Address, text: &str| context.observe(address, text);
        let setting = context.setting(&observe);
        let job = Job::start(&setting, vf)?;
        let facts = gather::facts(&context.host, context.device(vf)?, context.timeout)
            .map_err(|e| held(&context.host, vf, e))?;
        if facts.device.driver.is_some() {
            return Ok(context.unchanged(vf));
        }
        let step = DeviceStep { action: DeviceAction::Probe, reason: "no choice is about it".to_string() };
        let attempts = vec![Attempt { target: None, steps: vec![step] }];
        let mut result = job.bind(&facts, BindPlan { attempts, warnings: Vec::new(), acknowledged: Uses::NONE }, None);
        match &result.error {
            None if result.driver.is_none() => (result.outcome, result.changed) = (Outcome::Unchanged, false),
            // What the kernel chose is its own affair, also if that fails.
            Some(failure) if failure.kind == Kind::Failed => {
                result.warnings.push(failure.message.clone());
                (result.outcome, result.error) = (Outcome::Unchanged, None);
            }
            _ => {}
        }
        Ok(result)
    }

    fn restore(&self, before: &[(Address, Binding)]) -> Result<(), Failure> {
        let context = self.context;
        let bindings: BTreeMap<Address, &Binding> = before.iter().map(|(vf, binding)| (*vf, binding)).collect();
        let vfs: Vec<Address> = bindings.keys().copied().collect();
        let results = context.in_parallel(&vfs, |vf| {
            let observe = |address: Address, text: &str| context.observe(address, text);
            let setting = context.setting(&observe);
            let job = Job::start_undoing(&setting, vf)?;
            let facts = gather::facts_but_users(&context.host, context.device(vf)?, context.timeout)
                .map_err(|e| held(&context.host, vf, e))?;
            let incarnation = Device::incarnation(&context.host, vf);
            let prepared = self.prepared.get(&vf).filter(|(of, _)| *of == incarnation);
            Ok(job.restore(facts, bindings[&vf], prepared.map_or(&[], |(_, prepared)| prepared.as_slice())))
        });
        sriov::not_restored(results.into_iter().filter_map(|result| result.error).collect())
    }
}

/// A driver may be written in two ways.
fn is_same(one: &Choice, other: &Choice) -> bool {
    match (one, other) {
        (Choice::Named(one), Choice::Named(other)) => one.is_spelled_like(other.as_str()),
        (one, other) => one == other,
    }
}
