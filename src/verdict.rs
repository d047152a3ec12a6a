// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each matching driver would be good for on this very device: the rank comes from the aliases, the verdict from the
//! catalogue. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::address::Address;
use crate::catalog::{Catalog, Driver, Outcome, Shortfall};
use crate::kernel_name::{DriverName, ModuleName};
use crate::matcher::{FIELDS, Match, Modalias, Source};
use crate::sysfs::Device;

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
}

/// What a candidate is good for on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The one to take.
    Best,
    /// The one to take, but as things are it adds nothing to vfio-pci.
    Limited,
    /// Would work; another is better.
    Fallback,
    /// Would not work here.
    Blocked,
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
}

/// The candidate to take: the first that would work.
pub fn chosen(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().find(|candidate| candidate.verdict != Verdict::Blocked)
}

/// What counts for a verdict beyond the modalias.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Position {
    /// Only a modalias is known.
    Unknown,
    /// A bridge.
    Bridge,
    /// Not a VF.
    NotVf,
    /// A VF, its PF, and the driver the PF is on.
    Vf {
        /// The PF.
        pf: Address,
        /// The PF's driver.
        pf_driver: Option<DriverName>,
    },
}

impl Position {
    /// Where a device stands whose PF, if it has one, is on `pf_driver`.
    pub fn of(device: &Device, pf_driver: Option<DriverName>) -> Position {
        match device.pf {
            _ if device.is_bridge() => Position::Bridge,
            Some(pf) => Position::Vf { pf, pf_driver },
            None => Position::NotVf,
        }
    }
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

/// Gives each match its verdict. `matches` is in rank order, and so is the result.
pub fn judge(matches: Vec<Match>, modalias: &Modalias, position: &Position, modules: &ModuleFacts) -> Vec<Candidate> {
    let mut is_taken = false;
    let mut previous: Option<ModuleName> = None;
    let mut candidates = Vec::with_capacity(matches.len());
    for found in matches {
        let mut reasons = Vec::new();
        if let Some(previous) = previous.filter(|_| found.tied_with_previous && found.wildcards < FIELDS) {
            reasons.push(format!("as specific as {previous}; the first in the table wins"));
        }
        if modules.missing.contains(&found.module) {
            reasons.push(format!("module {} is named by the alias table, but not installed", found.module));
        }
        let finding = finding(&found, modalias, position, modules);
        let fails = matches!(finding, Some((Outcome::Fails, _)));
        let is_limited = matches!(finding, Some((Outcome::Limited, _)));
        reasons.extend(finding.map(|(_, reason)| reason));
        let verdict = match (fails, is_taken, is_limited) {
            (true, _, _) => Verdict::Blocked,
            (false, true, _) => Verdict::Fallback,
            (false, false, true) => Verdict::Limited,
            (false, false, false) => Verdict::Best,
        };
        is_taken |= !fails;
        previous = Some(found.module.clone());
        candidates.push(Candidate {
            driver: modules.drivers.get(&found.module).cloned(),
            module: found.module,
            alias: found.alias,
            wildcards: found.wildcards,
            source: found.source,
            verdict,
            reasons,
        });
    }
    candidates
}

/// What speaks against a match.
fn finding(
    found: &Match,
    modalias: &Modalias,
    position: &Position,
    modules: &ModuleFacts,
) -> Option<(Outcome, String)> {
    if *position == Position::Bridge {
        return Some((Outcome::Fails, "a bridge: no VFIO driver takes one".to_string()));
    }
    if let Some(place) = modules.blacklisted.get(&found.module) {
        return Some((Outcome::Fails, format!("module {} is blacklisted by {place}", found.module)));
    }
    match Catalog::bundled().by_module(found.module.as_str()) {
        Some(driver) => check(driver, modalias, position),
        // Such modules exist out of tree, and need not be VFIO drivers at all.
        None if found.wildcards == FIELDS => {
            Some((Outcome::Fails, "claims every device, which is vfio_pci's part: never taken unasked".to_string()))
        }
        None => None,
    }
}

/// What the catalogue knows to go wrong with this driver on a device in this position, and what to do about it.
fn check(driver: &Driver, modalias: &Modalias, position: &Position) -> Option<(Outcome, String)> {
    if let Some(entry) = driver.denied(modalias.vendor_id(), modalias.device_id()) {
        return Some((Outcome::Fails, format!("on the denylist of {}: {}", driver.driver, entry.reason)));
    }
    match position {
        Position::Unknown | Position::Bridge => None,
        Position::NotVf => {
            let shortfall = driver.shortfall_on_non_vf()?;
            Some((shortfall.outcome, sentence(shortfall, "")))
        }
        Position::Vf { pf, pf_driver } => {
            let shortfall = driver.shortfall_on_vf(pf_driver.as_ref().map(DriverName::as_str))?;
            let on = pf_driver.as_ref().map_or("no driver".to_string(), |name| format!("driver {name}"));
            let remedy = format!("; PF {pf} is on {on}: bind that to {} first", driver.pf_drivers.join(" or "));
            Some((shortfall.outcome, sentence(shortfall, &remedy)))
        }
    }
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
    const DSA: &str = "pci:v00008086d00000B25sv00008086sd00000000bc08sc80i00";

    fn judged(modalias: &str, position: &Position, blacklisted: &[&str]) -> Vec<(String, Verdict)> {
        let mut table = Table::default();
        for driver in Catalog::bundled().drivers() {
            for pattern in driver.alias_patterns() {
                table.add_registered(driver.module, &pattern);
            }
        }
        let modalias: Modalias = modalias.parse().unwrap();
        let blacklisted = blacklisted.iter().map(|m| (m.parse().unwrap(), "x.conf:1".to_string())).collect();
        let modules = ModuleFacts { blacklisted, ..ModuleFacts::default() };
        let candidates = judge(rank(&table, &modalias), &modalias, position, &modules);
        candidates.iter().map(|c| (c.module.to_string(), c.verdict)).collect()
    }

    fn vf(pf_driver: Option<&str>) -> Position {
        Position::Vf { pf: "0000:3b:00.0".parse().unwrap(), pf_driver: pf_driver.map(|name| name.parse().unwrap()) }
    }

    #[test]
    fn verdicts() {
        use Verdict::{Best, Blocked, Fallback, Limited};
        let cases = [
            (MLX5_VF, vf(Some("mlx5_core")), [("mlx5_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (MLX5_VF, vf(None), [("mlx5_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (MLX5_VF, Position::NotVf, [("mlx5_vfio_pci", Limited), ("vfio_pci", Fallback)]),
            (MLX5_VF, Position::Unknown, [("mlx5_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (QAT_VF, vf(Some("4xxx")), [("qat_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (QAT_VF, vf(Some("vfio-pci")), [("qat_vfio_pci", Blocked), ("vfio_pci", Best)]),
            (QAT_VF, Position::NotVf, [("qat_vfio_pci", Blocked), ("vfio_pci", Best)]),
            (XE, vf(Some("xe")), [("xe_vfio_pci", Best), ("vfio_pci", Fallback)]),
            (XE, vf(Some("vfio-pci")), [("xe_vfio_pci", Blocked), ("vfio_pci", Best)]),
            (XE, Position::NotVf, [("xe_vfio_pci", Limited), ("vfio_pci", Fallback)]),
        ];
        for (modalias, position, expected) in cases {
            let expected: Vec<(String, Verdict)> = expected.iter().map(|(m, v)| (m.to_string(), *v)).collect();
            assert_eq!(judged(modalias, &position, &[]), expected, "{modalias} {position:?}");
        }
    }

    #[test]
    fn nothing_takes_a_bridge() {
        let blocked: Vec<Verdict> = judged(MLX5_VF, &Position::Bridge, &[]).into_iter().map(|(_, v)| v).collect();
        assert_eq!(blocked, [Verdict::Blocked; 2]);
    }

    #[test]
    fn a_denied_device_has_no_candidate() {
        assert_eq!(judged(DSA, &Position::NotVf, &[]), [("vfio_pci".to_string(), Verdict::Blocked)]);
    }

    #[test]
    fn only_vfio_pci_may_claim_every_device() {
        let mut table = Table::default();
        let text = "alias vfio_pci:v*d*sv*sd*bc*sc*i* poweroff_pci\nalias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n";
        table.read_modules_alias(std::io::Cursor::new(text)).unwrap();
        let modalias: Modalias = MLX5_VF.parse().unwrap();
        let candidates = judge(rank(&table, &modalias), &modalias, &Position::Unknown, &ModuleFacts::default());
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
