// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each matching driver would be good for on this very device: the rank comes from the aliases, the verdict from the
//! catalogue, and where that is not the best there could be, what mends it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::address::Address;
use crate::catalog::{Catalog, DirtyTracking, Driver, KernelVersion, Outcome, Shortfall};
use crate::kernel_name::{DriverName, ModuleName};
use crate::matcher::{FIELDS, Match, Modalias, Source};

/// A VFIO driver that matches a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Candidate {
    /// Its module.
    pub module: ModuleName,
    /// Its name; null where only loading the module can tell.
    pub driver: Option<DriverName>,
    /// The alias pattern that matches.
    pub alias: String,
    /// How many of the seven fields are wildcards.
    pub wildcards: usize,
    /// Where the alias stands.
    pub source: Source,
    /// What it is good for here.
    pub verdict: Verdict,
    /// Why, a sentence each.
    pub reasons: Vec<String>,
    /// The commands that mend that, in order, as one would type them; none where no command does.
    pub mend: Vec<String>,
    /// Does it give live migration here?
    pub migration: Ability,
    /// Does it give dirty page tracking by the device here?
    pub dirty_tracking: Ability,
}

/// What a candidate is good for on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The one to take.
    Best,
    /// The one to take, but as things are it falls short of what it is for.
    Limited,
    /// Would work; another is better.
    Fallback,
    /// Would not work here.
    Blocked,
}

/// Whether a driver gives a device a feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ability {
    /// It does not, as things are.
    No,
    /// That is up to hardware and firmware, and known once it is bound.
    Depends,
    /// It does.
    Yes,
}

impl Candidate {
    /// The driver's name, or the module's where that is all one knows.
    pub fn name(&self) -> &str {
        self.driver.as_ref().map_or(self.module.as_str(), DriverName::as_str)
    }

    /// What speaks for it.
    pub fn claim(&self) -> String {
        format!("matches {} ({} of {FIELDS} fields open)", self.alias, self.wildcards)
    }

    /// What speaks against it, and what mends that.
    pub fn doubt(&self) -> String {
        let reasons = self.reasons.join("; ");
        match to_mend(&self.mend) {
            Some(how) => format!("{reasons}; {how}"),
            None => reasons,
        }
    }
}

/// The commands as one sentence, and as one line for a shell; `None`: no command mends it.
pub fn to_mend(commands: &[String]) -> Option<String> {
    (!commands.is_empty()).then(|| format!("to mend: {}", commands.join(" && ")))
}

/// The candidate to take: the first that would work.
pub fn chosen(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().find(|candidate| candidate.verdict != Verdict::Blocked)
}

/// What counts for a verdict beyond the aliases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// What the device is.
    pub modalias: &'a Modalias,
    /// Where it is; `None` where only a modalias is known.
    pub address: Option<Address>,
    /// What kind of function it is.
    pub position: Position,
    /// The release of the kernel that is to bind it.
    pub release: &'a str,
}

/// What kind of function a device is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Position {
    /// Only a modalias is known.
    Unknown,
    /// A bridge.
    Bridge,
    /// Not a VF.
    NotVf {
        /// Its first VF, if it has any.
        vf: Option<Address>,
        /// Can it have VFs?
        can_have_vfs: bool,
    },
    /// A VF, of this PF.
    Vf(Pf),
}

/// A VF's PF, as far as verdicts ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pf {
    /// Where it is.
    pub address: Address,
    /// Its driver.
    pub driver: Option<DriverName>,
    /// What shows that it is not up, where its driver is the right one and has a sign of that.
    pub not_up: Option<String>,
    /// Which driver it could be on, where it is on a wrong one.
    pub native: Native,
    /// How many VFs it has; taking its driver away destroys them.
    pub vfs: u16,
}

/// The driver that a PF could be on, for the sake of its VFs' variant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Native {
    /// Not known: the kernel's tables do not say.
    Unknown,
    /// One from this module, which lists it.
    Module(ModuleName),
    /// None: this kernel's drivers that the variant works with do not list the PF.
    Unlisted,
}

/// What is known about the modules that match.
#[derive(Clone, Default, Debug)]
pub struct ModuleFacts {
    /// The driver each registers, where known.
    pub drivers: BTreeMap<ModuleName, DriverName>,
    /// Those that modprobe would not load, and where that is written.
    pub blacklisted: BTreeMap<ModuleName, String>,
    /// Those that an alias names, but that the kernel has not got.
    pub missing: BTreeSet<ModuleName>,
}

/// What speaks against a match.
struct Finding {
    outcome: Outcome,
    reason: String,
    mend: Vec<String>,
}

impl Finding {
    fn fails(reason: impl Into<String>) -> Finding {
        Finding { outcome: Outcome::Fails, reason: reason.into(), mend: Vec::new() }
    }
}

/// Gives each match its verdict. `matches` is in rank order, and so is the result.
pub fn judge(matches: Vec<Match>, subject: &Subject<'_>, modules: &ModuleFacts) -> Vec<Candidate> {
    let mut is_taken = false;
    let mut previous: Option<ModuleName> = None;
    let mut candidates = Vec::with_capacity(matches.len());
    for found in matches {
        let (mut reasons, mut mend) = (Vec::new(), Vec::new());
        if let Some(previous) = previous.filter(|_| found.tied_with_previous && found.wildcards < FIELDS) {
            reasons.push(format!("as specific as {previous}; the first in the table wins"));
        }
        if modules.missing.contains(&found.module) {
            reasons.push(format!("module {} is named by the alias table, but not installed", found.module));
            mend.push(format!("depmod -a {}", subject.release));
        }
        let finding = finding(&found, subject, modules);
        let known = Catalog::bundled().by_module(found.module.as_str());
        let (migration, dirty_tracking) = match (&finding, known) {
            (Some(_), _) => (Ability::No, Ability::No),
            (None, Some(driver)) => abilities(driver),
            (None, None) => (Ability::Depends, Ability::Depends),
        };
        let outcome = finding.as_ref().map(|finding| finding.outcome);
        if let Some(finding) = finding {
            reasons.push(finding.reason);
            mend.extend(finding.mend);
        }
        let verdict = match (outcome, is_taken) {
            (Some(Outcome::Fails), _) => Verdict::Blocked,
            (_, true) => Verdict::Fallback,
            (Some(Outcome::Limited), false) => Verdict::Limited,
            (None, false) => Verdict::Best,
        };
        if let Some((step, address)) = unprepared(known, subject).filter(|_| verdict == Verdict::Best) {
            reasons.push(format!("to be migrated it has to be prepared before: {step}"));
            mend.push(format!("vfioctl bind --prepare {address}"));
        }
        is_taken |= verdict != Verdict::Blocked;
        previous = Some(found.module.clone());
        candidates.push(Candidate {
            driver: modules.drivers.get(&found.module).cloned(),
            module: found.module,
            alias: found.alias,
            wildcards: found.wildcards,
            source: found.source,
            verdict,
            reasons,
            mend,
            migration,
            dirty_tracking,
        });
    }
    candidates
}

/// What is to be done to a VF before a driver comes that could then migrate it, and the VF.
fn unprepared(driver: Option<&Driver>, subject: &Subject<'_>) -> Option<(&'static str, Address)> {
    let address = subject.address.filter(|_| matches!(subject.position, Position::Vf(_)))?;
    let mut steps = driver?.preparation_before_bind(KernelVersion::parse(subject.release));
    steps.find(|step| step.command.is_some()).map(|step| (step.what, address))
}

/// What a driver that nothing speaks against gives.
fn abilities(driver: &Driver) -> (Ability, Ability) {
    let sure = if driver.requires.is_empty() { Ability::Yes } else { Ability::Depends };
    let migration = if driver.features.migration.is_empty() { Ability::No } else { sure };
    let dirty_tracking = match driver.features.dirty_tracking {
        DirtyTracking::None => Ability::No,
        DirtyTracking::Yes => sure,
        DirtyTracking::Depends => Ability::Depends,
    };
    (migration, dirty_tracking)
}

/// What speaks against a match.
fn finding(found: &Match, subject: &Subject<'_>, modules: &ModuleFacts) -> Option<Finding> {
    if subject.position == Position::Bridge {
        return Some(Finding::fails("a bridge: no VFIO driver takes one"));
    }
    if let Some(place) = modules.blacklisted.get(&found.module) {
        // A blacklist is about aliases: who names the driver gets it (modprobe.d(5)).
        let name = modules.drivers.get(&found.module).map_or(found.module.as_str(), DriverName::as_str);
        let mend = subject.address.map(|address| format!("vfioctl bind --driver {name} {address}"));
        let reason = format!("module {} is blacklisted by {place}", found.module);
        return Some(Finding { mend: mend.into_iter().collect(), ..Finding::fails(reason) });
    }
    match Catalog::bundled().by_module(found.module.as_str()) {
        Some(driver) => check(driver, subject),
        // Such modules exist out of tree, and need not be VFIO drivers at all.
        None if found.wildcards == FIELDS => {
            Some(Finding::fails("claims every device, which is vfio_pci's part: never taken unasked"))
        }
        None => None,
    }
}

/// What the catalogue knows to go wrong with this driver on a device in this position, and what to do about it.
fn check(driver: &Driver, subject: &Subject<'_>) -> Option<Finding> {
    let modalias = subject.modalias;
    if let Some(entry) = driver.denied(modalias.vendor_id(), modalias.device_id()) {
        return Some(Finding::fails(format!("on the denylist of {}: {}", driver.driver, entry.reason)));
    }
    let in_position = match &subject.position {
        Position::Unknown | Position::Bridge => None,
        Position::NotVf { vf, can_have_vfs } => driver.shortfall_on_non_vf().map(|shortfall| {
            let mend = match (vf, subject.address) {
                (Some(vf), _) => vec![format!("vfioctl bind {vf}")],
                (None, Some(pf)) if *can_have_vfs => vec![set_vfs(pf, 1)],
                _ => Vec::new(),
            };
            Finding { outcome: shortfall.outcome, reason: sentence(shortfall, ""), mend }
        }),
        Position::Vf(pf) => check_pf(driver, pf),
    };
    let too_old = || {
        let since = driver.migrates_only_since(subject.release)?;
        let reason = format!(
            "binds without live migration: the driver has that from kernel {since} on, and this is {}",
            subject.release
        );
        Some(Finding { outcome: Outcome::Limited, reason, mend: Vec::new() })
    };
    in_position.or_else(too_old)
}

fn check_pf(driver: &Driver, pf: &Pf) -> Option<Finding> {
    let address = pf.address;
    if let Some(shortfall) = driver.shortfall_on_vf(pf.driver.as_ref().map(DriverName::as_str)) {
        let on = pf.driver.as_ref().map_or("no driver".to_string(), |name| format!("driver {name}"));
        let wanted = driver.pf_drivers.join(" or ");
        let remedy = match &pf.native {
            Native::Module(module) => {
                format!(": bind that to {} first", driver.pf_driver_of(module.as_str()).unwrap_or(module.as_str()))
            }
            Native::Unknown => format!(": bind that to {wanted} first"),
            Native::Unlisted => format!(", and is not a device of {wanted}"),
        };
        let reason = sentence(shortfall, &format!("; PF {address} is on {on}{remedy}"));
        return Some(Finding { outcome: shortfall.outcome, reason, mend: give_pf_its_driver(pf) });
    }
    let (state, sign) = driver.pf_state.as_ref().zip(pf.not_up.as_ref())?;
    let reason = sentence(&state.otherwise, &format!("; PF {address}: {sign}"));
    let mend = vec![state.mend.replace("{pf}", &address.to_string())];
    Some(Finding { outcome: state.otherwise.outcome, reason, mend })
}

/// The commands that take a PF to the driver its VFs' variant needs. `unbind` is what gives a device to a native driver; it
/// does not take one away from a PF that has VFs, since that destroys them.
fn give_pf_its_driver(pf: &Pf) -> Vec<String> {
    let address = pf.address;
    let give = match &pf.native {
        Native::Unlisted => return Vec::new(),
        Native::Unknown => format!("vfioctl unbind {address}"),
        Native::Module(module) => format!("vfioctl unbind --driver {module} {address}"),
    };
    match pf.driver.is_some() && pf.vfs > 0 {
        true => vec![set_vfs(address, 0), give, set_vfs(address, pf.vfs)],
        false => vec![give],
    }
}

fn set_vfs(pf: Address, count: u16) -> String {
    format!("echo {count} > /sys/bus/pci/devices/{pf}/sriov_numvfs")
}

fn sentence(shortfall: &Shortfall, remedy: &str) -> String {
    match (shortfall.outcome, shortfall.errno) {
        (Outcome::Fails, Some(errno)) => {
            format!("its probe would fail with {errno}: {}{remedy}", shortfall.reason)
        }
        (Outcome::Fails, None) => format!("its probe would fail: {}{remedy}", shortfall.reason),
        (Outcome::Limited, _) => format!("{}{remedy}", shortfall.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::{Table, rank};

    const MLX5_VF: &str = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";
    const QAT_VF: &str = "pci:v00008086d00004941sv00008086sd00000000bc0Bsc40i00";
    const XE: &str = "pci:v00008086d0000E20Bsv00008086sd00001100bc03sc00i00";
    const PDS_VF: &str = "pci:v00001DD8d00001003sv00001DD8sd00004001bc02sc00i00";
    const HISI_VF: &str = "pci:v000019E5d0000A251sv000019E5sd0000A250bc12sc00i00";
    const IGB_VF: &str = "pci:v00008086d000010CAsv00008086sd00000000bc02sc00i00";
    const EDU: &str = "pci:v00001234d000011E8sv00001AF4sd00001100bc00scFFi00";
    const GRACE: &str = "pci:v000010DEd00002342sv000010DEsd000016EBbc03sc02i00";
    const DSA: &str = "pci:v00008086d00000B25sv00008086sd00000000bc08sc80i00";

    const VIRTIO: &str = "pci:v00001AF4d00001041sv00001AF4sd00001041bc02sc00i00";
    const VF: &str = "0000:3b:00.1";
    const KERNEL: &str = "7.0.0-43-generic";

    fn candidates(modalias: &str, position: &Position, release: &str, modules: &ModuleFacts) -> Vec<Candidate> {
        let mut table = Table::default();
        for driver in Catalog::bundled().drivers() {
            for pattern in driver.alias_patterns() {
                table.add_registered(driver.module, &pattern);
            }
        }
        let modalias: Modalias = modalias.parse().unwrap();
        let position = position.clone();
        let subject = Subject { modalias: &modalias, address: Some(VF.parse().unwrap()), position, release };
        judge(rank(&table, &modalias), &subject, modules)
    }

    fn verdicts_of(candidates: &[Candidate]) -> Vec<(String, Verdict)> {
        candidates.iter().map(|c| (c.module.to_string(), c.verdict)).collect()
    }

    fn judged(modalias: &str, position: &Position, blacklisted: &[&str]) -> Vec<(String, Verdict)> {
        let blacklisted = blacklisted.iter().map(|m| (m.parse().unwrap(), "x.conf:1".to_string())).collect();
        let modules = ModuleFacts { blacklisted, ..ModuleFacts::default() };
        verdicts_of(&candidates(modalias, position, KERNEL, &modules))
    }

    fn pf(driver: Option<&str>) -> Pf {
        let driver = driver.map(|name| name.parse().unwrap());
        Pf { address: "0000:3b:00.0".parse().unwrap(), driver, not_up: None, native: Native::Unknown, vfs: 4 }
    }

    fn vf(pf_driver: Option<&str>) -> Position {
        Position::Vf(pf(pf_driver))
    }

    const NOT_VF: Position = Position::NotVf { vf: None, can_have_vfs: false };

    #[test]
    fn verdicts() {
        use Verdict::{Best, Blocked, Fallback, Limited};
        let down = |driver: &str| Position::Vf(Pf { not_up: Some("a sign".to_string()), ..pf(Some(driver)) });
        let cases = [
            (MLX5_VF, vf(Some("mlx5_core")), [("mlx5_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (MLX5_VF, down("mlx5_core"), [("mlx5_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (MLX5_VF, vf(None), [("mlx5_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (MLX5_VF, NOT_VF, [("mlx5_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (MLX5_VF, Position::Unknown, [("mlx5_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (QAT_VF, vf(Some("4xxx")), [("qat_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (QAT_VF, down("4xxx"), [("qat_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (QAT_VF, vf(Some("vfio-pci")), [("qat_vfio_pci", Blocked), ("vfio_pci", Best)]),
            (QAT_VF, NOT_VF, [("qat_vfio_pci", Blocked), ("vfio_pci", Best)]),
            (PDS_VF, vf(Some("pds_core")), [("pds_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (PDS_VF, vf(Some("ionic")), [("pds_vfio_pci", Blocked), ("vfio_pci", Best)]),
            (HISI_VF, vf(Some("hisi_zip")), [("hisi_acc_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (HISI_VF, vf(None), [("hisi_acc_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (VIRTIO, vf(Some("virtio-pci")), [("virtio_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (VIRTIO, vf(None), [("virtio_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (VIRTIO, NOT_VF, [("virtio_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (XE, vf(Some("xe")), [("xe_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (XE, vf(Some("vfio-pci")), [("xe_vfio_pci", Blocked), ("vfio_pci", Best)]),
            (XE, NOT_VF, [("xe_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (IGB_VF, vf(Some("igb")), [("igbvf_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (IGB_VF, vf(None), [("igbvf_vfio_pci", Blocked), ("vfio_pci", Best)]),
        ];
        for (modalias, position, expected) in cases {
            let expected: Vec<(String, Verdict)> = expected.iter().map(|(m, v)| (m.to_string(), *v)).collect();
            assert_eq!(judged(modalias, &position, &[]), expected, "{modalias} {position:?}");
        }
    }

    #[test]
    fn a_kernel_with_the_driver_but_without_migration() {
        use Ability::{Depends, No};
        let served = vf(Some("virtio-pci"));
        for (release, verdict, migration) in [
            ("6.8.0-149-generic", Verdict::Limited, No),
            ("6.12.107+deb13-amd64", Verdict::Limited, No),
            ("6.13.0", Verdict::Best, Depends),
            // Backported: the number tells nothing.
            ("5.14.0-570.el9.x86_64", Verdict::Best, Depends),
        ] {
            let candidates = candidates(VIRTIO, &served, release, &ModuleFacts::default());
            assert_eq!((candidates[0].verdict, candidates[0].migration), (verdict, migration), "{release}");
            let says_since = candidates[0].reasons.iter().any(|reason| reason.contains("from kernel 6.13 on"));
            assert_eq!(says_since, verdict == Verdict::Limited, "{release}: {:?}", candidates[0].reasons);
        }
    }

    #[test]
    fn what_is_wrong_says_what_mends_it() {
        let with = |driver, native| Position::Vf(Pf { native, ..pf(driver) });
        let module = |name: &str| Native::Module(name.parse().unwrap());
        let numvfs = |count| format!("echo {count} > /sys/bus/pci/devices/0000:3b:00.0/sriov_numvfs");
        let give = |module: &str| format!("vfioctl unbind --driver {module} 0000:3b:00.0");
        let not_up = Some("qat/state is down".to_string());
        let cases = [
            (MLX5_VF, vf(Some("mlx5_core")), vec![format!("vfioctl bind --prepare {VF}")]),
            (MLX5_VF, with(None, module("mlx5_core")), vec![give("mlx5_core")]),
            (MLX5_VF, with(None, Native::Unknown), vec!["vfioctl unbind 0000:3b:00.0".to_string()]),
            (QAT_VF, with(Some("pci-pf-stub"), module("qat_4xxx")), vec![numvfs(0), give("qat_4xxx"), numvfs(4)]),
            (PDS_VF, with(Some("ionic"), Native::Unlisted), vec![]),
            (
                QAT_VF,
                Position::Vf(Pf { not_up, ..pf(Some("4xxx")) }),
                vec!["echo up > /sys/bus/pci/devices/0000:3b:00.0/qat/state".to_string()],
            ),
            (XE, Position::NotVf { vf: None, can_have_vfs: false }, vec![]),
            (
                XE,
                Position::NotVf { vf: None, can_have_vfs: true },
                vec![format!("echo 1 > /sys/bus/pci/devices/{VF}/sriov_numvfs")],
            ),
            (
                XE,
                Position::NotVf { vf: Some("0000:3b:00.2".parse().unwrap()), can_have_vfs: true },
                vec!["vfioctl bind 0000:3b:00.2".to_string()],
            ),
        ];
        for (modalias, position, expected) in cases {
            let candidates = candidates(modalias, &position, KERNEL, &ModuleFacts::default());
            assert_eq!(candidates[0].mend, expected, "{modalias} {position:?}");
            let is_well = candidates[0].verdict == Verdict::Best && candidates[0].mend.is_empty();
            assert_eq!(candidates[0].reasons.is_empty(), is_well, "{modalias} {position:?}");
        }
        let qat = candidates(QAT_VF, &with(None, module("qat_4xxx")), KERNEL, &ModuleFacts::default());
        assert!(qat[0].reasons[0].contains("is on no driver: bind that to 4xxx first"), "{:?}", qat[0].reasons);
        let pds = candidates(PDS_VF, &with(Some("ionic"), Native::Unlisted), KERNEL, &ModuleFacts::default());
        assert!(pds[0].reasons[0].contains("and is not a device of pds_core"), "{:?}", pds[0].reasons);
    }

    #[test]
    fn modules_that_are_kept_out_or_missing_say_what_mends_that() {
        let mlx5: ModuleName = "mlx5_vfio_pci".parse().unwrap();
        let drivers: BTreeMap<_, _> = [(mlx5.clone(), "mlx5_vfio_pci".parse().unwrap())].into();
        let served = vf(Some("mlx5_core"));
        let blacklisted = [(mlx5.clone(), "x.conf:1".to_string())].into();
        let modules = ModuleFacts { blacklisted, drivers: drivers.clone(), ..ModuleFacts::default() };
        assert_eq!(
            candidates(MLX5_VF, &served, KERNEL, &modules)[0].mend,
            [format!("vfioctl bind --driver mlx5_vfio_pci {VF}")]
        );
        let modules = ModuleFacts { missing: [mlx5].into(), drivers, ..ModuleFacts::default() };
        let prepare = format!("vfioctl bind --prepare {VF}");
        assert_eq!(candidates(MLX5_VF, &served, KERNEL, &modules)[0].mend, [format!("depmod -a {KERNEL}"), prepare]);
    }

    #[test]
    fn what_a_driver_gives() {
        use Ability::{Depends, No, Yes};
        for (modalias, position, migration, dirty_tracking) in [
            (MLX5_VF, vf(Some("mlx5_core")), Depends, Depends),
            (MLX5_VF, vf(None), No, No),
            (PDS_VF, vf(Some("pds_core")), Depends, Depends),
            (QAT_VF, vf(Some("4xxx")), Depends, No),
            (EDU, NOT_VF, Yes, No),
            (GRACE, NOT_VF, No, No),
        ] {
            let candidates = candidates(modalias, &position, KERNEL, &ModuleFacts::default());
            let given = candidates.iter().map(|c| (c.migration, c.dirty_tracking)).collect::<Vec<_>>();
            assert_eq!(given, [(migration, dirty_tracking), (No, No)], "{modalias} {position:?}");
        }
    }

    #[test]
    fn nothing_takes_a_bridge() {
        let blocked: Vec<Verdict> = judged(MLX5_VF, &Position::Bridge, &[]).into_iter().map(|(_, v)| v).collect();
        assert_eq!(blocked, [Verdict::Blocked; 2]);
    }

    #[test]
    fn a_denied_device_has_no_candidate() {
        assert_eq!(judged(DSA, &NOT_VF, &[]), [("vfio_pci".to_string(), Verdict::Blocked)]);
    }

    #[test]
    fn only_vfio_pci_may_claim_every_device() {
        let mut table = Table::default();
        let text = "alias vfio_pci:v*d*sv*sd*bc*sc*i* poweroff_pci\nalias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n";
        table.read_modules_alias(std::io::Cursor::new(text)).unwrap();
        let modalias: Modalias = MLX5_VF.parse().unwrap();
        let subject = Subject { modalias: &modalias, address: None, position: Position::Unknown, release: KERNEL };
        let candidates = judge(rank(&table, &modalias), &subject, &ModuleFacts::default());
        let verdicts: Vec<(&str, Verdict)> = candidates.iter().map(|c| (c.module.as_str(), c.verdict)).collect();
        assert_eq!(verdicts, [("vfio_pci", Verdict::Best), ("poweroff_pci", Verdict::Blocked)]);
    }

    #[test]
    fn a_blacklisted_module_is_blocked() {
        assert_eq!(
            judged(MLX5_VF, &vf(Some("mlx5_core")), &["mlx5_vfio_pci"]),
            [("mlx5_vfio_pci".to_string(), Verdict::Blocked), ("vfio_pci".to_string(), Verdict::Best)]
        );
    }
}
