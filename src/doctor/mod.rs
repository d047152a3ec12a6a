// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is a host ready for VFIO? A file for each kind of check: `gather` reads what it needs, `judge` says what that means and what
//! mends it, and does no I/O. Nothing here writes, starts a process or wakes a device.

mod boot;
mod claimants;
mod command_line;
mod finding;
mod groups;
mod initramfs;
mod installed;
mod interrupts;
mod iommu;
mod iommufd;
mod kept;
mod libvirt;
mod loading;
mod mkinitcpio;
mod modules;
mod overrides;
mod pci;
mod policy;
mod processor;
mod variants;

use std::collections::BTreeMap;
use std::path::Path;

use crate::address::Address;
use crate::catalog::KernelVersion;
use crate::gather::{self, BestOf, Chooser};
use crate::host::Host;
use crate::modules::{KernelConfig, TableError};
use crate::policy::{Policy, PolicyError};
use crate::sysfs::{Device, Group, ReadError};

use boot::BootLoader;
use command_line::CommandLine;
use processor::Processor;

pub use finding::{Finding, Severity};
pub use variants::no_variant;

/// What several checks ask about: read once.
pub struct Scene<'a> {
    host: &'a Host,
    /// The kernel that is asked about.
    release: String,
    version: Option<KernelVersion>,
    config: KernelConfig,
    command_line: CommandLine,
    processor: Processor,
    loader: BootLoader,
    /// In bus order.
    devices: &'a [Device],
    /// The groups that they are in.
    groups: BTreeMap<u32, Result<Group, ReadError>>,
    chooser: Chooser<'a>,
    policy: &'a Policy,
    errors: &'a [PolicyError],
}

/// Why a host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// Its tables cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Something of sysfs cannot.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Scene<'_> {
    /// A path as the host's own processes spell it.
    fn at(&self, path: &Path) -> String {
        self.host.inside(path).display().to_string()
    }

    /// Is it a group that an IOMMU has made? One that cannot be read is one.
    fn is_of_an_iommu(&self, group: u32) -> bool {
        !self.groups.get(&group).is_some_and(|group| group.as_ref().is_ok_and(|group| group.is_no_iommu))
    }

    /// An error as the host's own processes spell its path.
    fn said(&self, error: &ReadError) -> (String, String) {
        (self.at(&error.path), error.source.to_string())
    }

    /// A device that is there.
    fn device(&self, address: Address) -> Option<&Device> {
        let found = self.devices.binary_search_by_key(&address, |device| device.address).ok()?;
        Some(&self.devices[found])
    }
}

/// Looks at a host whose devices and policy are these; the findings come in the order of the checks.
pub fn examine(
    host: &Host,
    devices: &[Device],
    policy: &Policy,
    errors: &[PolicyError],
) -> Result<Vec<Finding>, DoctorError> {
    let chooser = Chooser::new(host)?.with_modules();
    let release = chooser.tables.release.clone();
    let scene = Scene {
        host,
        version: KernelVersion::parse(&release),
        config: KernelConfig::read(host, &release),
        command_line: CommandLine::read(host),
        processor: Processor::read(host),
        loader: BootLoader::find(host, &release),
        release,
        groups: gather::groups(host, devices),
        devices,
        chooser,
        policy,
        errors,
    };
    // Once for all checks that ask which driver is the best.
    let mut best = BestOf::new(Chooser::new(host)?.with_modules());
    let kept = kept::gather(&scene, &mut best)?;
    let mut findings = pci::judge(&pci::gather(&scene));
    findings.extend(iommu::judge(&iommu::gather(&scene)));
    findings.extend(interrupts::judge(&interrupts::gather(&scene)));
    findings.extend(groups::judge(&groups::gather(&scene)?));
    findings.extend(modules::judge(&modules::gather(&scene)));
    findings.extend(loading::judge(&loading::gather(&scene)));
    findings.extend(iommufd::judge(&iommufd::gather(&scene)));
    findings.extend(variants::judge(&variants::gather(&scene)));
    findings.extend(claimants::judge(&claimants::gather(&scene, &mut best)?));
    findings.extend(policy::judge(&policy::gather(&scene, &kept)));
    findings.extend(overrides::judge(&overrides::gather(&scene)));
    findings.extend(installed::judge(&installed::gather(&scene)));
    findings.extend(initramfs::judge(&initramfs::gather(&scene, &kept)));
    findings.extend(libvirt::judge(&libvirt::gather(&scene)));
    Ok(findings)
}
