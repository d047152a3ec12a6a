// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl bind`, and the part of it that `apply` needs too.

use anyhow::Result;

use super::context::{Context, UsageError, distinct};
use crate::address::Address;
use crate::apply::{Job, explain_wait, save_record, store_failure, unreadable};
use crate::cli::{Bind, Force};
use crate::consumers;
use crate::gather::{self, Chooser};
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::outcome::{DeviceResult, Failure, Kind};
use crate::plan::{self, BindPlan, Binding, Facts, Manner, Target, Wanted};
use crate::policy::{self, Choice, Decision, Draft, PolicyError, Rule, Terms};
use crate::prepare::{Preparer, Recipe};
use crate::require::{self, Feature, Requirement};
use crate::sysfs::{Device, Group, ReadError};
use crate::target;
use crate::verdict::Candidate;

/// Binds devices.
pub fn run(context: &Context, options: &Bind) -> Result<u8> {
    let mut addresses = distinct(&options.addresses);
    if options.group {
        addresses = with_groups(context, &addresses)?;
    }
    let choice = match &options.driver {
        None => Choice::Auto,
        Some(driver) => Choice::parse(driver.as_str())?,
    };
    if options.prepare && choice == Choice::None {
        anyhow::bail!(UsageError("--prepare with --driver none: there is no driver to prepare the device for".into()));
    }
    if !options.require.is_empty() && choice == Choice::None {
        anyhow::bail!(UsageError("--require with --driver none: without a driver nothing can be had".into()));
    }
    let request = Request {
        choice,
        preparing: match (options.prepare, options.no_prepare) {
            (true, _) => Preparing::Known,
            (false, true) => Preparing::Nothing,
            (false, false) => Preparing::AsKept,
        },
        manner: Manner {
            is_strict: options.strict,
            any_driver: options.force.contains(&Force::Driver),
            take_over: options.force.contains(&Force::Vfio),
            acknowledged: Force::uses(&options.force),
            is_unprobed: false,
        },
        is_saving: !options.no_save,
        require: options.require.clone(),
        must_be_vfio: true,
    };
    let results = bind_all(context, &addresses, &request)?;
    context.conclude("bind", &results)
}

/// Does to each of these devices what is asked for.
pub fn bind_all(context: &Context, addresses: &[Address], request: &Request) -> Result<Vec<DeviceResult>> {
    let chooser = context.chooser()?.with_modules();
    context.refuse_other_kernel(&chooser)?;
    if matches!(request.preparing, Preparing::AsKept) {
        // A file that is left out may have something to say of what comes before the driver.
        let _ = context.policy();
    }
    let binder = Binder { context, chooser, together: addresses.to_vec() };
    Ok(context.each(addresses, |address| {
        let result = binder.bind(address, |_| Ok(Some(request.clone())))?;
        context.take_again(&result);
        Ok(result)
    }))
}

/// What driverctl keeps an override for is driverctl's: two tools that each keep a choice would each have their way.
pub fn leave_to_driverctl(context: &Context, address: Address) -> Result<(), Failure> {
    match policy::driverctl::claim(&context.host, address) {
        None => Ok(()),
        Some(path) => Err(Failure::new(
            Kind::Conflict,
            format!("{address}: driverctl keeps an override for it in {}: it was left alone", path.display()),
            "'vfioctl import-driverctl' takes over what driverctl keeps; 'vfioctl bind --no-save' keeps nothing",
        )),
    }
}

/// The members of the devices' groups, but for bridges.
fn with_groups(context: &Context, addresses: &[Address]) -> Result<Vec<Address>> {
    let mut all = Vec::new();
    for &address in addresses {
        all.push(address);
        let group = context.device(address).ok().and_then(|device| device.iommu_group);
        for member in
            group.map(|number| Group::read(&context.host, number)).transpose()?.iter().flat_map(|g| &g.devices)
        {
            if !context.device(*member).is_ok_and(|device| device.is_bridge()) {
                all.push(*member);
            }
        }
    }
    Ok(distinct(&all))
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The driver.
    pub choice: Choice,
    /// What comes before the driver.
    pub preparing: Preparing,
    /// How.
    pub manner: Manner,
    /// Is the choice to be kept?
    pub is_saving: bool,
    /// What must come with the driver.
    pub require: Vec<Feature>,
    /// Must the driver make a VFIO device? A policy may name any driver, and driverctl's users one that lists the device.
    pub must_be_vfio: bool,
}

/// What is to be done to a device before its driver comes.
#[derive(Clone, Debug)]
pub enum Preparing {
    /// What the policy says of the device now: whoever binds it anew does not lose that.
    AsKept,
    /// What this rule says.
    OfRule(Box<Rule>),
    /// What the catalogue knows of the driver.
    Known,
    /// Nothing.
    Nothing,
}

/// Binds devices, with one reading of the tables.
pub struct Binder<'a> {
    /// The host and how to work on it.
    pub context: &'a Context,
    /// The tables, with the lists of modules.
    pub chooser: Chooser<'a>,
    /// The devices that are bound in one go: these need not be warned of as each other's siblings, and none carries on for
    /// another.
    pub together: Vec<Address>,
}

impl Binder<'_> {
    /// Binds one device as `ask` says of it, or with `--dry-run` says how. It is asked under the device's lock; `None`:
    /// nothing is asked for.
    pub fn bind<F>(&self, address: Address, ask: F) -> Result<DeviceResult, Failure>
    where
        F: Fn(&Device) -> Result<Option<Request>, Failure>,
    {
        let context = self.context;
        // A device that is not there needs no lock, nor root, to be told so.
        if !Device::is_there(&context.host, address) {
            context.device(address)?;
        }
        let observe = |address: Address, text: &str| context.observe(address, text);
        let setting = context.setting(&observe);
        let job = if context.is_dry_run { None } else { Some(Job::start(&setting, address)?) };
        // Only now, under the lock, is what is read what counts.
        let device = context.device(address)?;
        let Some(request) = ask(&device)? else {
            let warnings = vec!["no policy names this device".to_string()];
            return Ok(DeviceResult { warnings, ..context.unchanged(address) });
        };
        if request.is_saving {
            leave_to_driverctl(context, address)?;
        }
        let (recipe, request) = self.with_rule(&device, request)?;
        let (facts, plan) = self.plan(device, &request, recipe.as_ref())?;
        let driver = kept(&request.choice, &facts.device, &plan);
        let terms = Terms {
            driver: &driver,
            require: &request.require,
            acknowledged: request.manner.acknowledged,
            recipe: recipe.as_ref(),
        };
        let Some(job) = job else {
            let steps: Vec<_> = plan.attempts.into_iter().take(1).flat_map(|attempt| attempt.steps).collect();
            let mut result = context.planned(address, &Binding::from(&facts), &steps, plan.warnings);
            if request.is_saving {
                policy::check_replaceable(&context.host, address).map_err(|error| store_failure(address, &error))?;
                result.steps.push(save_record(&context.host, address));
                let is_news = !policy::is_kept(&context.host, address, &facts.device.modalias, terms);
                result = result.keeping(true, is_news);
            }
            return Ok(result);
        };
        let draft = if request.is_saving { Some(self.draft(&facts.device, terms)?) } else { None };
        Ok(job.bind(&facts, plan, draft))
    }

    /// What is to be done before the driver comes, and the request with what the rule that is in force now requires: whoever
    /// keeps a choice anew does not lose that, unless by naming a driver.
    pub fn with_rule(&self, device: &Device, mut request: Request) -> Result<(Option<Recipe>, Request), Failure> {
        let address = device.address;
        if let Preparing::OfRule(rule) = &request.preparing {
            return Ok((rule.recipe().cloned(), request));
        }
        let is_as_kept = matches!(request.preparing, Preparing::AsKept);
        let policy = self.context.policy_now(address);
        if request.is_saving && is_as_kept {
            check_readable(&self.context.host, address, &policy.errors)?;
        }
        let rule = match policy.decide(device) {
            Some(Decision::Rule(rule)) => Some(rule),
            _ => None,
        };
        let recipe = match request.preparing {
            Preparing::Known => Some(Recipe::Auto),
            Preparing::AsKept => rule.and_then(Rule::recipe).filter(|recipe| !recipe.is_empty()).cloned(),
            _ => None,
        };
        let Some(rule) = rule else { return Ok((recipe, request)) };
        if is_as_kept && recipe.is_some() && request.choice == Choice::None {
            return Err(Failure::new(
                Kind::Conflict,
                format!(
                    "{address}: {} has prepare steps for it, and with --driver none there is no driver to prepare it for",
                    rule.file.display()
                ),
                "--no-prepare leaves them out",
            ));
        }
        request.manner.acknowledged = request.manner.acknowledged.and(rule.acknowledged);
        if request.choice == Choice::Auto && request.require.is_empty() {
            request.require.clone_from(&rule.require);
        }
        Ok((recipe, request))
    }

    /// The steps before each driver that may be tried.
    fn prepare(&self, facts: &Facts, plan: &mut BindPlan, recipe: &Recipe, request: &Request) -> Result<(), Failure> {
        // For whoever probes the device it is set up by whoever does that.
        if recipe.is_empty() || request.manner.is_unprobed {
            return Ok(());
        }
        let Context { host, timeout, is_dry_run, .. } = self.context;
        let preparer = Preparer::new(host, &facts.device, &self.chooser.tables.release, *timeout, *is_dry_run)?;
        if let (true, Some(driver)) = (plan.attempts.is_empty(), &facts.device.driver) {
            plan.warnings.extend(preparer.missed(recipe, driver.as_str()));
        }
        for attempt in &mut plan.attempts {
            let Some(target) = &attempt.target else { continue };
            let steps = preparer.steps(recipe, target.name())?;
            attempt.prepare(steps);
        }
        let is_idle = plan.attempts.first().is_some_and(|attempt| !attempt.is_prepared());
        if let (Preparing::Known, true, Some(attempt)) = (&request.preparing, is_idle, plan.attempts.first()) {
            let driver = attempt.target.as_ref().map_or("none", |target| target.name());
            plan.warnings.push(format!("nothing is known that is to be run before {driver} comes"));
        }
        Ok(())
    }

    fn plan(&self, device: Device, request: &Request, recipe: Option<&Recipe>) -> Result<(Facts, BindPlan), Failure> {
        let address = device.address;
        let (wanted, doubts) = self.wanted(&device, request)?;
        let mut facts = gather::facts_but_users(&self.context.host, device, self.context.timeout)
            .map_err(|error| held(&self.context.host, address, error))?;
        facts.siblings.retain(|sibling| !self.together.contains(&sibling.address));
        let mut plan = plan::bind(&facts, &wanted, request.manner)?;
        // Who is on the right driver stays there, whoever holds it.
        if !plan.attempts.is_empty() {
            facts = gather::with_users(&self.context.host, facts, &self.together)
                .map_err(|error| held(&self.context.host, address, error))?;
            plan = plan::bind(&facts, &wanted, request.manner)?;
        }
        plan.warnings.extend(doubts);
        if let Some(recipe) = recipe {
            self.prepare(&facts, &mut plan, recipe, request)?;
        }
        if request.choice == Choice::Auto {
            let first = plan.attempts.first().and_then(|attempt| attempt.target.as_ref());
            let driver = first.map(Target::name).or(facts.device.driver.as_ref().map(DriverName::as_str));
            let remarks = driver.map(|name| consumers::remarks(&self.context.host, &facts.device, name));
            plan.warnings.extend(remarks.into_iter().flatten());
        }
        Ok((facts, plan))
    }

    /// Which drivers come into question, and what is to be said of that.
    pub fn wanted(&self, device: &Device, request: &Request) -> Result<(Wanted, Vec<String>), Failure> {
        let address = device.address;
        let unreadable = |error: ReadError| Failure::plain(Kind::Failed, format!("{address}: {error}"));
        let candidates = self.chooser.for_device(device).map_err(unreadable)?;
        let absent = target::absent(device, &candidates, &self.chooser.tables.release);
        let meet = |candidates: Vec<Candidate>, named: Option<&str>| {
            let is_strict = request.manner.is_strict;
            let requirement = Requirement { features: &request.require, named, is_strict, absent: &absent };
            require::meet(address, &requirement, candidates)
        };
        let mut doubts = Vec::new();
        let wanted = match &request.choice {
            Choice::None => Wanted::NoDriver,
            Choice::Auto => {
                let (candidates, remarks) = meet(candidates, None)?;
                doubts.extend(remarks.into_iter().chain(absent));
                let with_state = |candidate: Candidate| {
                    let state = self.chooser.state(&candidate.module);
                    (candidate, state)
                };
                Wanted::Best(candidates.into_iter().map(with_state).collect())
            }
            Choice::Named(name) => match target::among(&candidates, &self.chooser, name) {
                Some((target, speaks_against)) => {
                    let (_, remarks) = meet(candidates, Some(target.name()))?;
                    doubts.extend(speaks_against.into_iter().chain(remarks));
                    Wanted::Named(target)
                }
                None => {
                    let mut target = target::resolve(&self.context.host, &self.chooser, name)?;
                    target.is_vfio |= request.must_be_vfio;
                    if request.manner.any_driver {
                        target.reason = "as asked for, whatever the tables say".to_string();
                    } else if target.is_vfio || self.chooser.lists_vfio_devices(&target) {
                        return Err(target::not_for_device(device, &target, &candidates));
                    } else {
                        target::check_native(&self.context.host, &self.chooser, device, &target)?;
                    }
                    meet(candidates, Some(target.name()))?;
                    Wanted::Named(target)
                }
            },
        };
        Ok((wanted, doubts))
    }

    fn draft(&self, device: &Device, terms: Terms<'_>) -> Result<Draft, Failure> {
        let address = device.address;
        let draft = Draft::write(&self.context.host, address, &device.modalias, terms).map_err(|error| {
            let mut failure = store_failure(address, &error);
            failure.message.push_str("; nothing was touched");
            failure
        })?;
        let distrust = match draft.check_trust(&self.context.host) {
            Ok(()) => return Ok(draft),
            Err(distrust) => distrust,
        };
        Err(Failure::new(
            Kind::Unsafe,
            format!(
                "{address}: what is kept in {} would not be believed at the next boot: {distrust}; nothing was touched",
                policy::own_file(&self.context.host, address).display()
            ),
            distrust.hint(),
        ))
    }
}

/// A file that cannot be read as policy may say what is to be done before the driver comes: it is not written over.
fn check_readable(host: &Host, address: Address, errors: &[PolicyError]) -> Result<(), Failure> {
    let own = policy::own_file(host, address);
    match errors.iter().find(|error| error.path() == Some(&own)) {
        Some(error) if policy::has_own_file(host, address) => Err(Failure::new(
            Kind::Conflict,
            format!("{address}: {error}; nothing was touched"),
            "mend or remove that file; --prepare or --no-prepare writes it anew",
        )),
        _ => Ok(()),
    }
}

/// A device whose attributes cannot be read, with who may hold its lock.
pub fn held(host: &Host, address: Address, error: ReadError) -> Failure {
    let failure = unreadable(address, &error);
    match failure.is_stuck {
        true => explain_wait(host, address, failure.waiting(None, &[])),
        false => failure,
    }
}

/// The choice to keep: a driver that was named in another spelling under its own name, where that is known.
fn kept(choice: &Choice, device: &Device, plan: &BindPlan) -> Choice {
    let driver = match plan.attempts.first() {
        Some(attempt) => attempt.target.as_ref().and_then(|target| target.driver.as_ref()),
        None => device.driver.as_ref(),
    };
    match (choice, driver) {
        (Choice::Named(_), Some(driver)) => Choice::Named(driver.clone()),
        (choice, _) => choice.clone(),
    }
}
