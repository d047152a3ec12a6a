// SPDX-License-Identifier: MIT OR Apache-2.0
//! The newer way in: iommufd, and a device node for each device.

use super::Scene;
use super::finding::Finding;
use crate::catalog::KernelVersion;
use crate::kernel_name::ModuleName;
use crate::modules::ModuleState;

const CHECK: &str = "iommufd";

/// What is there.
#[derive(Debug)]
pub struct Facts {
    release: String,
    version: Option<KernelVersion>,
    /// How module iommufd stands.
    state: ModuleState,
    /// Is /dev/iommu there?
    has_node: bool,
    /// CONFIG_IOMMUFD, CONFIG_VFIO_DEVICE_CDEV, CONFIG_IOMMUFD_VFIO_CONTAINER, as far as is known.
    options: [(&'static str, Option<bool>); 3],
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let module: ModuleName = "iommufd".parse().expect("a constant name");
    let options = ["CONFIG_IOMMUFD", "CONFIG_VFIO_DEVICE_CDEV", "CONFIG_IOMMUFD_VFIO_CONTAINER"];
    Facts {
        release: scene.release.clone(),
        version: scene.version,
        state: scene.chooser.state(&module),
        has_node: scene.chooser.tables.is_running && scene.host.iommufd_node().exists(),
        options: options.map(|option| (option, scene.config.is_set(option))),
    }
}

/// What it means: nobody needs it yet, so that nothing of this is more than a note.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let release = &facts.release;
    let [(_, iommufd), (_, cdev), (_, container)] = facts.options;
    let is_there = facts.has_node || !matches!(facts.state, ModuleState::Missing | ModuleState::Unknown);
    let with_options = |mut finding: Finding| {
        let known: Vec<String> = facts
            .options
            .iter()
            .filter_map(|(name, is_set)| {
                Some(if (*is_set)? { format!("{name} is set") } else { format!("{name} is not set") })
            })
            .collect();
        if facts.has_node {
            finding = finding.seen("/dev/iommu", "there");
        }
        if !known.is_empty() {
            finding = finding.seen(format!("configuration of kernel {release}"), known.join(", "));
        }
        finding
    };
    let finding = if !is_there {
        let why = match (facts.version, iommufd) {
            // The first release with drivers/iommu/iommufd.
            (Some(version), _) if version < KernelVersion::new(6, 2) => "in kernels from 6.2 on".to_string(),
            (_, Some(false)) => "this kernel was built without".to_string(),
            _ if facts.state == ModuleState::Unknown => "not known without modules.dep".to_string(),
            _ => "this kernel has no such module".to_string(),
        };
        Finding::note(CHECK, format!("no iommufd ({why}): programs use VFIO's groups and containers"))
    } else {
        match (cdev, container) {
            (Some(true), _) => Finding::pass(CHECK, "iommufd is there, and each VFIO device has a node of its own"),
            (Some(false), _) => Finding::note(
                CHECK,
                "iommufd is there, but no node for each device (CONFIG_VFIO_DEVICE_CDEV): QEMU's iommufd backend needs one",
            ),
            (None, _) => Finding::pass(CHECK, "iommufd is there"),
        }
    };
    let mut findings = vec![with_options(finding)];
    if container == Some(true) {
        findings.push(Finding::note(
            CHECK,
            "/dev/vfio/vfio is iommufd's emulation (CONFIG_IOMMUFD_VFIO_CONTAINER), which the kernel's own help calls one for testing",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn what_is_there() {
        let facts = |version: &str, state, has_node, set: [Option<bool>; 3]| Facts {
            release: version.to_string(),
            version: KernelVersion::parse(version),
            state,
            has_node,
            options: [
                ("CONFIG_IOMMUFD", set[0]),
                ("CONFIG_VFIO_DEVICE_CDEV", set[1]),
                ("CONFIG_IOMMUFD_VFIO_CONTAINER", set[2]),
            ],
        };
        use ModuleState::{Installed, Loaded, Missing, Unknown};
        let yes = Some(true);
        for (facts, severity, words) in [
            (facts("6.1.0", Missing, false, [None; 3]), Severity::Note, "from 6.2 on"),
            (facts("6.12.0", Missing, false, [Some(false), None, None]), Severity::Note, "was built without"),
            (facts("6.12.0", Unknown, false, [None; 3]), Severity::Note, "not known"),
            (facts("6.12.0", Installed, false, [yes, yes, None]), Severity::Pass, "node of its own"),
            (facts("6.12.0", Loaded, true, [yes, Some(false), None]), Severity::Note, "CONFIG_VFIO_DEVICE_CDEV"),
            (facts("6.12.0", Unknown, true, [None; 3]), Severity::Pass, "iommufd is there"),
        ] {
            let findings = judge(&facts);
            assert_eq!(findings.len(), 1);
            assert_eq!(findings[0].severity, severity, "{findings:?}");
            assert!(findings[0].message.contains(words), "{findings:?}");
        }
        assert_eq!(judge(&facts("6.12.0", Loaded, true, [yes; 3])).len(), 2);
    }
}
