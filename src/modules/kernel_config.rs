// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration a kernel was built with, and what it tells about drivers that are not there.

use crate::catalog::{Catalog, Driver, KernelVersion};
use crate::file;
use crate::host::Host;

/// A kernel's build configuration, where the distribution installs it.
#[derive(Debug)]
pub struct KernelConfig {
    release: String,
    text: Option<String>,
    architecture: Option<&'static str>,
}

impl KernelConfig {
    /// Reads that of `release`.
    pub fn read(host: &Host, release: &str) -> KernelConfig {
        let text = host.kernel_configs(release).iter().find_map(|path| file::read_to_string(path, file::TABLE).ok());
        // The configuration names its architecture; without one, only this machine's own is known.
        let marks = [("CONFIG_X86_64=y", "x86_64"), ("CONFIG_ARM64=y", "aarch64"), ("CONFIG_S390=y", "s390x")];
        let architecture = match &text {
            Some(text) => marks.iter().find(|(mark, _)| text.lines().any(|line| line == *mark)).map(|(_, name)| *name),
            None => host.is_this_machine().then_some(std::env::consts::ARCH),
        };
        KernelConfig { release: release.to_string(), text, architecture }
    }

    /// Was the kernel built with this driver? `None`: the configuration does not say.
    fn has(&self, driver: &Driver) -> Option<bool> {
        self.is_set(driver.kconfig?)
    }

    /// Was it built with this option (`CONFIG_…`), as a module or not? `None`: the configuration does not say, or there is none.
    pub fn is_set(&self, symbol: &str) -> Option<bool> {
        let [module, built_in, unset] =
            [format!("{symbol}=m"), format!("{symbol}=y"), format!("# {symbol} is not set")];
        self.text.as_ref()?.lines().find_map(|line| match line {
            line if line == module || line == built_in => Some(true),
            line if line == unset => Some(false),
            _ => None,
        })
    }

    /// Was it built with a driver other than the generic one?
    pub fn has_variant(&self) -> bool {
        Catalog::bundled().drivers().iter().any(|driver| !driver.catch_all && self.has(driver) == Some(true))
    }

    /// Why a driver is missing, the surest reason first.
    pub fn why_missing(&self, driver: &Driver) -> String {
        match self.has(driver) {
            Some(true) => format!(
                "{}: this kernel was built with it, but its modules are not all installed (a package such as \
                 linux-modules-extra-{} may have it)",
                driver.title, self.release
            ),
            _ => self.why_not(driver).unwrap_or_else(|| match driver.kconfig {
                Some(symbol) => format!("{}: needs a kernel with {symbol}", driver.title),
                None => format!("{}: not a part of the kernel; vfioctl's source has it in drivers/", driver.title),
            }),
        }
    }

    /// What is to be said of a driver of which it is not known whether it is there.
    pub fn why_unknown(&self, driver: &Driver) -> String {
        match self.has(driver) {
            Some(true) => format!("{}: this kernel was built with it", driver.title),
            _ => self.why_not(driver).unwrap_or_else(|| format!("{}: not known without modules.dep", driver.title)),
        }
    }

    /// Why the kernel cannot be expected to have a driver, if there is a reason.
    fn why_not(&self, driver: &Driver) -> Option<String> {
        let title = driver.title;
        if let Some(here) = self.architecture.filter(|here| !driver.runs_on(here)) {
            return Some(format!("{title}: for {} only, not for {here}", driver.architectures.join(", ")));
        }
        if KernelVersion::parse(&self.release).is_some_and(|version| version < driver.first_kernel) {
            return Some(format!("{title}: in kernels from {} on", driver.first_kernel));
        }
        let symbol = driver.kconfig.filter(|_| self.has(driver) == Some(false))?;
        Some(format!("{title}: this kernel was built with {symbol} not set"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(release: &str, text: &str) -> KernelConfig {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        fs::create_dir(root.path().join("boot")).unwrap();
        if !text.is_empty() {
            fs::write(root.path().join("boot").join(format!("config-{release}")), text).unwrap();
        }
        KernelConfig::read(&host, release)
    }

    fn driver(module: &str) -> &'static Driver {
        Catalog::bundled().by_module(module).unwrap()
    }

    #[test]
    fn the_surest_reason_why_a_driver_is_missing() {
        let text = "CONFIG_X86_64=y\nCONFIG_MLX5_VFIO_PCI=m\nCONFIG_QAT_VFIO_PCI=y\n# CONFIG_PDS_VFIO_PCI is not set\n\
                    CONFIG_XE_VFIO_PCI_EXTRA=m\n";
        let config = config("6.12.0-1", text);
        for (module, expected) in [
            ("mlx5_vfio_pci", "was built with it, but its modules are not all installed"),
            ("mlx5_vfio_pci", "linux-modules-extra-6.12.0-1 may have it"),
            ("qat_vfio_pci", "was built with it"),
            ("pds_vfio_pci", "was built with CONFIG_PDS_VFIO_PCI not set"),
            ("hisi_acc_vfio_pci", "for aarch64 only, not for x86_64"),
            ("xe_vfio_pci", "in kernels from 6.19 on"),
            ("virtio_vfio_pci", "needs a kernel with CONFIG_VIRTIO_VFIO_PCI"),
        ] {
            let reason = config.why_missing(driver(module));
            assert!(reason.contains(expected), "{module}: {reason}");
        }
        assert!(config.has_variant());
    }

    #[test]
    fn what_is_unknown_is_not_called_missing() {
        let config = config("6.12.0-1", "CONFIG_X86_64=y\nCONFIG_MLX5_VFIO_PCI=m\n");
        for (module, expected) in [
            ("mlx5_vfio_pci", "this kernel was built with it"),
            ("ism_vfio_pci", "for s390x only"),
            ("virtio_vfio_pci", "not known without modules.dep"),
        ] {
            let reason = config.why_unknown(driver(module));
            assert!(reason.contains(expected) && !reason.contains("needs"), "{module}: {reason}");
        }
    }

    #[test]
    fn a_backported_driver_is_believed() {
        let config = config("5.14.0-500.el9.x86_64", "CONFIG_MLX5_VFIO_PCI=m\n");
        assert!(config.why_missing(driver("mlx5_vfio_pci")).contains("was built with it"));
    }

    #[test]
    fn the_generic_driver_is_no_variant() {
        assert!(!config("6.12.0", "CONFIG_VFIO_PCI=m\n# CONFIG_MLX5_VFIO_PCI is not set\n").has_variant());
        assert!(!config("6.12.0", "").has_variant());
    }
}
