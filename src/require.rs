// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must come with a driver, or nothing is done: `bind --require`, and `require` in a policy. Pure.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::catalog::{Catalog, Driver};
use crate::outcome::{Failure, Kind};
use crate::verdict::{Ability, Candidate, Verdict, chosen, to_mend};

/// Something that a driver can give a device.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Live migration
    Migration,
    /// Dirty page tracking by the device itself
    DirtyTracking,
}

impl Feature {
    /// As it is typed and kept.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Migration => "migration",
            Feature::DirtyTracking => "dirty-tracking",
        }
    }

    fn of(self, candidate: &Candidate) -> Ability {
        match self {
            Feature::Migration => candidate.migration,
            Feature::DirtyTracking => candidate.dirty_tracking,
        }
    }
}

/// What is required of the driver that a device gets.
#[derive(Clone, Copy, Debug)]
pub struct Requirement<'a> {
    /// All of this.
    pub features: &'a [Feature],
    /// The driver that was asked for by name, if one was.
    pub named: Option<&'a str>,
    /// The best driver or none.
    pub is_strict: bool,
    /// What is said of drivers that were made for the device and that the kernel has not got.
    pub absent: &'a [String],
}

impl Requirement<'_> {
    fn is_about(&self, candidate: &Candidate) -> bool {
        self.named.is_none_or(|name| candidate.name() == name)
    }
}

/// Features, as they are typed.
pub fn names(features: &[Feature]) -> String {
    features.iter().map(|feature| feature.name()).collect::<Vec<_>>().join(",")
}

/// The candidates that can be had with all that is required, and what is to be said of the one that will be taken. Those
/// that would fail anyway stay: they are passed over as ever.
pub fn meet(
    address: Address,
    requirement: &Requirement<'_>,
    candidates: Vec<Candidate>,
) -> Result<(Vec<Candidate>, Vec<String>), Failure> {
    let required = requirement.features;
    if required.is_empty() {
        return Ok((candidates, Vec::new()));
    }
    let missing = |candidate: &Candidate| lacking(candidate, required);
    let is_able = |candidate: &Candidate| requirement.is_about(candidate) && missing(candidate).is_empty();
    let is_strict = requirement.is_strict && requirement.named.is_none();
    let is_best_unable = is_strict && candidates.first().is_some_and(|first| !missing(first).is_empty());
    let able: Vec<Candidate> =
        candidates.iter().filter(|c| is_able(c) || c.verdict == Verdict::Blocked).cloned().collect();
    let Some(taken) = chosen(&able).filter(|_| !is_best_unable) else {
        return Err(refusal(address, requirement, &candidates));
    };
    let mut remarks = Vec::new();
    let passed_over = candidates.iter().take_while(|c| *c != taken && requirement.named.is_none());
    for passed in passed_over.filter(|c| c.verdict != Verdict::Blocked) {
        remarks.push(format!("{} passed over: {}", passed.name(), missing(passed).join("; ")));
    }
    for feature in required.iter().filter(|feature| feature.of(taken) == Ability::Depends) {
        remarks.push(format!(
            "whether {} gives {} depends on {}: 'vfioctl probe {address}' tells once it is bound",
            taken.name(),
            feature.name(),
            conditions(taken, *feature)
        ));
    }
    Ok((able, remarks))
}

/// Why a candidate does not give what is required; empty: it does, or may.
fn lacking(candidate: &Candidate, required: &[Feature]) -> Vec<String> {
    let missing = required.iter().filter(|feature| feature.of(candidate) == Ability::No);
    let mut why: Vec<String> = Vec::new();
    for feature in missing {
        let known = known(candidate);
        let reason = match known.filter(|driver| !gives(driver, *feature)) {
            Some(driver) => match driver.features.dirty_tracking_note.filter(|_| *feature == Feature::DirtyTracking) {
                Some(note) => format!("has no {}: {note}", feature.name()),
                None => format!("has no {}", feature.name()),
            },
            // It is the device's position, or the kernel, that speaks against it.
            None => candidate.reasons.join("; "),
        };
        if !why.contains(&reason) {
            why.push(reason);
        }
    }
    why
}

/// Does the driver give this anywhere?
fn gives(driver: &Driver, feature: Feature) -> bool {
    match feature {
        Feature::Migration => !driver.features.migration.is_empty(),
        Feature::DirtyTracking => driver.features.dirty_tracking != crate::catalog::DirtyTracking::None,
    }
}

fn known(candidate: &Candidate) -> Option<&'static Driver> {
    Catalog::bundled().by_module(candidate.module.as_str())
}

/// What a feature that depends depends on.
fn conditions(candidate: &Candidate, feature: Feature) -> String {
    let Some(driver) = known(candidate) else { return "a driver that vfioctl does not know".to_string() };
    let note = driver.features.dirty_tracking_note.filter(|_| feature == Feature::DirtyTracking);
    let conditions: Vec<&str> = driver.requires.iter().copied().chain(note).collect();
    format!("hardware and firmware ({})", conditions.join("; "))
}

fn refusal(address: Address, requirement: &Requirement<'_>, candidates: &[Candidate]) -> Failure {
    let required = requirement.features;
    let mut whys = Vec::new();
    let mut commands: Option<&[String]> = None;
    for candidate in candidates.iter().filter(|candidate| requirement.is_about(candidate)) {
        let mut why = lacking(candidate, required);
        if why.is_empty() {
            why = candidate.reasons.clone();
        }
        whys.push(format!("{}: {}", candidate.name(), why.join("; ")));
        let could_give = known(candidate).is_none_or(|driver| required.iter().all(|feature| gives(driver, *feature)));
        if commands.is_none() && could_give && !candidate.mend.is_empty() {
            commands = Some(&candidate.mend);
        }
    }
    if whys.is_empty() {
        whys.push(match requirement.named {
            Some(name) => format!("{name}: not a VFIO driver that lists the device"),
            None => "no VFIO driver matches it".to_string(),
        });
    }
    whys.extend(requirement.absent.iter().cloned());
    let without = "or do without what is required";
    Failure::new(
        Kind::Requirement,
        format!("{address}: {} cannot be had: {}; nothing was touched", names(required), whys.join(". ")),
        match commands.and_then(to_mend) {
            Some(how) => format!("{how}; {without}"),
            None => format!("'vfioctl explain {address}' shows what there is; mend that, {without}"),
        },
    )
    .mended_by(commands.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Source;

    fn candidate(module: &str, driver: &str, verdict: Verdict, abilities: (Ability, Ability)) -> Candidate {
        let falls_short = matches!(verdict, Verdict::Limited | Verdict::Blocked);
        let text = |text: &str| if falls_short { vec![text.to_string()] } else { Vec::new() };
        Candidate {
            module: module.parse().unwrap(),
            driver: Some(driver.parse().unwrap()),
            alias: String::new(),
            wildcards: 5,
            source: Source::ModulesAlias,
            verdict,
            reasons: text("a reason"),
            mend: text("a command"),
            migration: abilities.0,
            dirty_tracking: abilities.1,
        }
    }

    use Ability::{Depends, No, Yes};
    use Feature::{DirtyTracking, Migration};
    use Verdict::{Best, Blocked, Fallback, Limited};

    fn mlx5(verdict: Verdict) -> Candidate {
        let ability = if verdict == Best { Depends } else { No };
        candidate("mlx5_vfio_pci", "mlx5_vfio_pci", verdict, (ability, ability))
    }

    fn generic(verdict: Verdict) -> Candidate {
        candidate("vfio_pci", "vfio-pci", verdict, (No, No))
    }

    fn met(required: &[Feature], candidates: &[Candidate], named: Option<&str>) -> Result<Vec<String>, String> {
        let address = "0000:3b:00.1".parse().unwrap();
        let requirement = Requirement { features: required, named, is_strict: false, absent: &[] };
        match meet(address, &requirement, candidates.to_vec()) {
            Ok((able, _)) => Ok(able.iter().map(|candidate| candidate.name().to_string()).collect()),
            Err(failure) => Err(format!("{} / {}", failure.message, failure.hint.unwrap_or_default())),
        }
    }

    #[test]
    fn only_what_can_give_it_is_left() {
        let usual = [mlx5(Best), generic(Fallback)];
        let qat = candidate("qat_vfio_pci", "qat_vfio_pci", Best, (Depends, No));
        let edu = candidate("edu_vfio_pci", "edu_vfio_pci", Best, (Yes, No));
        let unknown = candidate("new_vfio_pci", "new-vfio-pci", Best, (Depends, Depends));
        let both = [Migration, DirtyTracking];
        for (required, candidates, named, expected) in [
            (&[] as &[Feature], usual.clone(), None, Some(vec!["mlx5_vfio_pci", "vfio-pci"])),
            (&[Migration], usual.clone(), None, Some(vec!["mlx5_vfio_pci"])),
            (&both, usual.clone(), None, Some(vec!["mlx5_vfio_pci"])),
            (&[Migration], usual.clone(), Some("mlx5_vfio_pci"), Some(vec!["mlx5_vfio_pci"])),
            (&[Migration], usual.clone(), Some("vfio-pci"), None),
            (&[Migration], usual.clone(), Some("igb"), None),
            (&[Migration], [mlx5(Limited), generic(Fallback)], None, None),
            (&[Migration], [mlx5(Blocked), generic(Best)], None, None),
            (&[Migration], [qat.clone(), generic(Fallback)], None, Some(vec!["qat_vfio_pci"])),
            (&both, [qat, generic(Fallback)], None, None),
            (&[Migration], [edu, generic(Fallback)], None, Some(vec!["edu_vfio_pci"])),
            (&both, [unknown.clone(), generic(Fallback)], None, Some(vec!["new-vfio-pci"])),
            // The best is passed over for one that can.
            (&[Migration], [mlx5(Limited), unknown], None, Some(vec!["new-vfio-pci"])),
        ] {
            let names = met(required, &candidates, named).ok();
            assert_eq!(
                names,
                expected.map(|names| names.iter().map(|n| n.to_string()).collect()),
                "{required:?} {named:?}"
            );
        }
        assert!(met(&[Migration], &[], None).unwrap_err().contains("no VFIO driver matches it"));
    }

    #[test]
    fn a_refusal_names_each_candidate_its_reason_and_what_mends_it() {
        let text = met(&[Migration], &[mlx5(Limited), generic(Fallback)], None).unwrap_err();
        assert!(
            text.contains("migration cannot be had: mlx5_vfio_pci: a reason. vfio-pci: has no migration"),
            "{text}"
        );
        assert!(text.contains("to mend: a command"), "{text}");
        let virtio = candidate("virtio_vfio_pci", "virtio_vfio_pci", Best, (Depends, No));
        let text = met(&[DirtyTracking], &[virtio, generic(Fallback)], None).unwrap_err();
        assert!(text.contains("has no dirty-tracking: left to the IOMMU, through IOMMUFD"), "{text}");
        // A command that would mend something else is not offered.
        let qat = candidate("qat_vfio_pci", "qat_vfio_pci", Blocked, (No, No));
        let text = met(&[DirtyTracking], &[qat, generic(Best)], None).unwrap_err();
        assert!(!text.contains("a command"), "{text}");
    }

    #[test]
    fn what_depends_is_allowed_and_said() {
        let address = "0000:3b:00.1".parse().unwrap();
        let requirement = Requirement { features: &[Migration], named: None, is_strict: false, absent: &[] };
        let remarks = |candidates: Vec<Candidate>| meet(address, &requirement, candidates).unwrap().1;
        let said = remarks(vec![mlx5(Best), generic(Fallback)]);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("firmware capability: migration") && said[0].contains("vfioctl probe 0000:3b:00.1"));
        let edu = candidate("edu_vfio_pci", "edu_vfio_pci", Best, (Yes, No));
        assert!(remarks(vec![edu, generic(Fallback)]).is_empty());
    }

    #[test]
    fn strict_takes_no_second_best() {
        let address = "0000:3b:00.1".parse().unwrap();
        let second = candidate("new_vfio_pci", "new-vfio-pci", Fallback, (Depends, Depends));
        let candidates = vec![mlx5(Limited), second];
        let is_met = |is_strict| {
            let requirement = Requirement { features: &[Migration], named: None, is_strict, absent: &[] };
            meet(address, &requirement, candidates.clone()).is_ok()
        };
        assert!(is_met(false) && !is_met(true));
    }
}
