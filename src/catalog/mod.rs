// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's VFIO PCI drivers: what each is for, what it needs and what it adds.
//!
//! A typed view of `data/drivers.json`, which is part of the binary; `data/README.md` explains the fields.
//! Knowledge about drivers belongs in that file, never in code. Nothing here does I/O or looks at the machine:
//! which modules a kernel has is known by its alias tables, and they win where they differ from the catalogue.

mod types;

// The constant below names it.
extern crate alloc;
use std::fmt;

use crate::kernel_name::is_same_name;
pub use types::*;

/// `data/drivers.json`, as `build.rs` has read it.
static BUNDLED: Catalog = include!(concat!(env!("OUT_DIR"), "/catalog.rs"));

impl Catalog {
    /// The catalogue in the binary.
    pub fn bundled() -> &'static Self {
        &BUNDLED
    }

    /// All drivers, the generic one first.
    pub fn drivers(&self) -> &[Driver] {
        &self.drivers
    }

    /// The driver in the module of exactly this name.
    pub fn by_module(&self, module: &str) -> Option<&Driver> {
        self.drivers.iter().find(|d| d.module == module)
    }

    /// The driver of exactly this name.
    pub fn by_driver(&self, driver: &str) -> Option<&Driver> {
        self.drivers.iter().find(|d| d.driver == driver)
    }

    /// The driver that someone means, with '-' or '_', by the driver's name or the module's.
    pub fn by_any_name(&self, name: &str) -> Option<&Driver> {
        self.drivers.iter().find(|d| is_same_name(d.module, name) || is_same_name(d.driver, name))
    }

    /// The drivers whose tables list this device; the generic driver's lists none.
    pub fn for_id(&self, vendor: u16, device: u16) -> impl Iterator<Item = &Driver> {
        self.drivers.iter().filter(move |d| d.id(vendor, device).is_some())
    }
}

impl Driver {
    /// The entry for this device in the driver's table.
    pub fn id(&self, vendor: u16, device: u16) -> Option<&Id> {
        self.ids.iter().find(|id| (id.vendor, id.device) == (vendor, device))
    }

    /// What is to be done before a device is bound, on this kernel; all of it where the kernel is not known.
    pub fn preparation_before_bind(&self, kernel: Option<KernelVersion>) -> impl Iterator<Item = &Preparation> {
        let is_needed = move |p: &&Preparation| p.since.is_none_or(|since| kernel.is_none_or(|kernel| kernel >= since));
        self.preparation.iter().filter(|p| p.when == When::BeforeBind).filter(is_needed)
    }

    /// Does it do anything that plain `vfio-pci` does not?
    pub fn adds_something(&self) -> bool {
        let Features { migration, dirty_tracking, dirty_tracking_note: _, coherent_memory, legacy_io } = &self.features;
        !migration.is_empty() || *dirty_tracking != DirtyTracking::None || *coherent_memory || *legacy_io
    }

    /// The aliases that its module has in `modules.alias`, rebuilt from its ids.
    pub fn alias_patterns(&self) -> impl Iterator<Item = String> {
        let any = self.catch_all.then(|| "vfio_pci:v*d*sv*sd*bc*sc*i*".to_string());
        let ids = self
            .ids
            .iter()
            .map(|Id { vendor, device, .. }| format!("vfio_pci:v{vendor:08X}d{device:08X}sv*sd*bc*sc*i*"));
        any.into_iter().chain(ids)
    }

    /// The entry for this device in the driver's list of those it refuses.
    pub fn denied(&self, vendor: u16, device: u16) -> Option<&Denied> {
        self.denylist.iter().find(|id| (id.vendor, id.device) == (vendor, device))
    }

    /// Whether it can be built for a machine, as `uname -m` names it.
    pub fn runs_on(&self, architecture: &str) -> bool {
        self.architectures.is_empty() || self.architectures.contains(&architecture)
    }

    /// How it falls short on a function that is no VF.
    pub fn shortfall_on_non_vf(&self) -> Option<&Shortfall> {
        self.on_non_vf.as_ref()
    }

    /// How it falls short on a VF whose PF is on `pf_driver`, if on any.
    pub fn shortfall_on_vf(&self, pf_driver: Option<&str>) -> Option<&Shortfall> {
        self.without_pf_driver.as_ref().filter(|_| !self.is_served_by(pf_driver))
    }

    /// The PF's driver that a module of [`Driver::pf_modules`] registers.
    pub fn pf_driver_of(&self, module: &str) -> Option<&'static str> {
        let index = self.pf_modules.iter().position(|known| *known == module)?;
        self.pf_drivers.get(index).copied()
    }

    /// Whether a VF's PF is on a driver that serves it, where that matters.
    pub fn is_served_by(&self, pf_driver: Option<&str>) -> bool {
        self.pf_drivers.is_empty() || pf_driver.is_some_and(|pf| self.pf_drivers.contains(&pf))
    }

    /// The first release known to migrate, where `release` has the driver and is older. A release that is older than the
    /// driver has it backported, and then its number says nothing about what it can do.
    pub fn migrates_only_since(&self, release: &str) -> Option<KernelVersion> {
        let kernel = KernelVersion::parse(release).filter(|kernel| *kernel >= self.first_kernel)?;
        self.features.migration.first().map(|first| first.since).filter(|since| kernel < *since)
    }

    /// What migration can do on a kernel release; `None` if nothing, or if the release says nothing.
    ///
    /// Whether a device can be migrated is up to its firmware too, and known only once it is bound.
    pub fn migration_on(&self, release: &str) -> Option<&[MigrationFlag]> {
        let kernel = KernelVersion::parse(release)?;
        let there = self.features.migration.iter().filter(|m| m.since <= kernel);
        there.max_by_key(|m| m.since).map(|m| &*m.flags)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ebusy => "EBUSY",
            Self::Einval => "EINVAL",
            Self::Enodev => "ENODEV",
        })
    }
}

impl fmt::Display for MigrationFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StopCopy => "stop-copy",
            Self::P2p => "p2p",
            Self::PreCopy => "pre-copy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::Template;

    /// Module and driver, as the kernel names them.
    const NAMES: [(&str, &str); 11] = [
        ("vfio_pci", "vfio-pci"),
        ("mlx5_vfio_pci", "mlx5_vfio_pci"),
        ("hisi_acc_vfio_pci", "hisi_acc_vfio_pci"),
        ("pds_vfio_pci", "pds_vfio_pci"),
        ("virtio_vfio_pci", "virtio_vfio_pci"),
        ("nvgrace_gpu_vfio_pci", "nvgrace_gpu_vfio_pci"),
        ("qat_vfio_pci", "qat_vfio_pci"),
        ("xe_vfio_pci", "xe-vfio-pci"),
        ("ism_vfio_pci", "ism_vfio_pci"),
        ("edu_vfio_pci", "edu_vfio_pci"),
        ("igbvf_vfio_pci", "igbvf_vfio_pci"),
    ];

    /// The `vfio_pci:` aliases of a 7.2 kernel with every variant built: module, vendor, devices.
    /// That of ISM is from the driver's source, since it builds for s390 only; the last are of `drivers/` here.
    #[rustfmt::skip]
    const ALIASES: [(&str, u16, &[u16]); 10] = [
        ("hisi_acc_vfio_pci", 0x19e5, &[0xa251, 0xa256, 0xa259]),
        ("mlx5_vfio_pci", 0x15b3, &[0x101e]),
        ("nvgrace_gpu_vfio_pci", 0x10de, &[0x2342, 0x2345, 0x2348, 0x2941, 0x31c2]),
        ("pds_vfio_pci", 0x1dd8, &[0x1003]),
        ("qat_vfio_pci", 0x8086, &[0x4941, 0x4943, 0x4945, 0x4947, 0x4949]),
        ("virtio_vfio_pci", 0x1af4, &[0x1041, 0x1042]),
        ("xe_vfio_pci", 0x8086, &[
            0xb080, 0xb081, 0xb082, 0xb083, 0xb084, 0xb085, 0xb086, 0xb087, 0xb08f,
            0xb090, 0xb0a0, 0xb0b0, 0xe202, 0xe209, 0xe20b, 0xe20c, 0xe20d, 0xe210,
            0xe211, 0xe212, 0xe216, 0xe220, 0xe221, 0xe222, 0xe223, 0xfd80, 0xfd81,
        ]),
        ("ism_vfio_pci", 0x1014, &[0x04ed]),
        ("edu_vfio_pci", 0x1234, &[0x11e8]),
        ("igbvf_vfio_pci", 0x8086, &[0x10ca]),
    ];

    fn driver(module: &str) -> &'static Driver {
        Catalog::bundled().by_module(module).unwrap()
    }

    fn version(text: &str) -> KernelVersion {
        KernelVersion::parse(text).unwrap()
    }

    #[test]
    fn the_bundled_catalogue_parses_and_survives_a_round_trip() {
        let bundled = Catalog::bundled();
        assert_eq!(bundled.schema, 1);
        let file: serde_json::Value = serde_json::from_str(include_str!("../../data/drivers.json")).unwrap();
        assert_eq!(serde_json::to_value(bundled).unwrap(), file, "every field is spelt out");
    }

    #[test]
    fn modules_and_drivers_are_named_as_in_the_kernel() {
        let names = Catalog::bundled().drivers().iter().map(|d| (d.module, d.driver));
        assert!(names.eq(NAMES));
    }

    #[test]
    fn ids_are_those_of_the_kernels_alias_table_each_in_one_driver() {
        let mut kernel: Vec<_> =
            ALIASES.iter().flat_map(|&(module, vendor, ids)| ids.iter().map(move |&id| (vendor, id, module))).collect();
        kernel.sort_unstable();
        assert_eq!(kernel.len(), 47);

        let mut listed: Vec<_> = Catalog::bundled()
            .drivers()
            .iter()
            .flat_map(|d| d.ids.iter().map(|id| (id.vendor, id.device, d.module)))
            .collect();
        listed.sort_unstable();
        assert_eq!(listed, kernel);
        assert!(listed.windows(2).all(|w| (w[0].0, w[0].1) != (w[1].0, w[1].1)));
    }

    #[test]
    fn ids_are_spelt_as_in_sysfs() {
        let parse = |vendor: &str| {
            let text = format!(r#"{{"vendor":"{vendor}","device":"04ed","name":"","since":null}}"#);
            serde_json::from_str::<Id>(text.leak()).ok().map(|id| id.vendor)
        };
        assert_eq!(parse("15b3"), Some(0x15b3));
        for wrong in ["15B3", "0x15b3", "5b3", "015b3", "+5b3", "15bg", ""] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn for_id_finds_variants_only() {
        let modules =
            |vendor, device| -> Vec<_> { Catalog::bundled().for_id(vendor, device).map(|d| d.module).collect() };
        assert_eq!(modules(0x8086, 0xe20b), ["xe_vfio_pci"]);
        assert_eq!(modules(0x15b3, 0x101e), ["mlx5_vfio_pci"]);
        assert!(modules(0x8086, 0x10d3).is_empty());
        assert!(modules(0x101e, 0x15b3).is_empty());
    }

    #[test]
    fn aliases_are_as_depmod_writes_them() {
        let aliases = |module| driver(module).alias_patterns().collect::<Vec<_>>();
        assert_eq!(aliases("vfio_pci"), ["vfio_pci:v*d*sv*sd*bc*sc*i*"]);
        assert_eq!(aliases("mlx5_vfio_pci"), ["vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*"]);
        assert_eq!(aliases("ism_vfio_pci"), ["vfio_pci:v00001014d000004EDsv*sd*bc*sc*i*"]);
        assert_eq!(aliases("xe_vfio_pci").len(), 27);
    }

    #[test]
    fn drivers_are_found_by_either_spelling() {
        let catalog = Catalog::bundled();
        for (module, driver) in NAMES {
            assert_eq!(catalog.by_module(module).unwrap().driver, driver);
            assert_eq!(catalog.by_driver(driver).unwrap().module, module);
            for name in [module, driver, &module.replace('_', "-"), &driver.replace('-', "_")] {
                assert_eq!(catalog.by_any_name(name).unwrap().module, module, "{name}");
            }
        }
        assert_eq!(catalog.by_driver("vfio_pci"), None);
        assert_eq!(catalog.by_module("vfio-pci"), None);
        for name in ["", "vfio", "vfio-pci ", "VFIO-PCI", "mlx5_core", "vfio_pci_core"] {
            assert_eq!(catalog.by_any_name(name), None, "{name}");
        }
    }

    #[test]
    fn kernel_versions_are_numbers_not_text() {
        assert!(version("6.2") < version("6.12"));
        assert!(version("6.19") < version("7.0"));
        assert_eq!(version("6.12.107+deb13-amd64"), version("6.12"));
        assert_eq!(version("7.0.0-43-generic").to_string(), "7.0");
        assert_eq!(version("6.19-rc1"), version("6.19"));
        assert_eq!(version("5.15").to_string(), "5.15");
        for garbage in ["", "6", "6.", ".12", "six.twelve", "v6.12", " 6.12", "+6.12", "6.99999"] {
            assert_eq!(KernelVersion::parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn kernel_versions_in_the_catalogue_are_major_and_minor() {
        let parse = |text: &str| serde_json::from_str::<KernelVersion>(&format!("{text:?}")).ok();
        assert_eq!(parse("6.12"), Some(version("6.12")));
        for wrong in ["6.12.1", "06.12", "6", "6.12-rc1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn migration_depends_on_the_kernel() {
        use MigrationFlag::{P2p, PreCopy, StopCopy};
        let cases: [(&str, &str, Option<&[MigrationFlag]>); 13] = [
            ("mlx5_vfio_pci", "5.15.0-91-generic", None),
            ("mlx5_vfio_pci", "6.1.0-56-amd64", Some(&[StopCopy, P2p])),
            ("mlx5_vfio_pci", "7.0.0-43-generic", Some(&[StopCopy, P2p, PreCopy])),
            ("mlx5_vfio_pci", "garbage", None),
            ("hisi_acc_vfio_pci", "6.1.0-56-arm64", Some(&[StopCopy])),
            ("hisi_acc_vfio_pci", "6.12.107+deb13-arm64", Some(&[StopCopy, PreCopy])),
            ("pds_vfio_pci", "6.12.107+deb13-amd64", Some(&[StopCopy, P2p])),
            ("virtio_vfio_pci", "6.8.0-149-generic", None),
            ("virtio_vfio_pci", "6.12.107+deb13-amd64", None),
            ("virtio_vfio_pci", "7.0.0-43-generic", Some(&[StopCopy, P2p, PreCopy])),
            ("xe_vfio_pci", "7.0.0-43-generic", Some(&[StopCopy, P2p])),
            ("nvgrace_gpu_vfio_pci", "7.3.4+deb13-arm64", None),
            ("vfio_pci", "7.3.4+deb13-amd64", None),
        ];
        for (module, release, flags) in cases {
            assert_eq!(driver(module).migration_on(release), flags, "{module} on {release}");
        }
    }

    #[test]
    fn a_kernel_can_have_the_driver_without_migration() {
        for (module, release, since) in [
            ("virtio_vfio_pci", "6.8.0-149-generic", Some("6.13")),
            ("virtio_vfio_pci", "6.12.107+deb13-amd64", Some("6.13")),
            ("virtio_vfio_pci", "6.13.0", None),
            ("virtio_vfio_pci", "5.14.0-570.el9.x86_64", None),
            ("virtio_vfio_pci", "garbage", None),
            ("mlx5_vfio_pci", "5.18.0", None),
            ("mlx5_vfio_pci", "5.14.0-570.el9.x86_64", None),
            ("vfio_pci", "6.12.0", None),
        ] {
            assert_eq!(driver(module).migrates_only_since(release), since.map(version), "{module} on {release}");
        }
    }

    #[test]
    fn shortfalls_are_those_of_the_probes() {
        use Errno::{Einval, Enodev};
        use Outcome::{Fails, Limited};
        let seen = |s: Option<&Shortfall>| s.map(|s| (s.outcome, s.errno));
        let limited = Some((Limited, None));
        let cases = [
            ("vfio_pci", None, None),
            ("mlx5_vfio_pci", limited, limited),
            ("hisi_acc_vfio_pci", limited, limited),
            ("pds_vfio_pci", Some((Fails, Some(Einval))), Some((Fails, Some(Einval)))),
            ("virtio_vfio_pci", limited, limited),
            ("nvgrace_gpu_vfio_pci", None, None),
            ("qat_vfio_pci", Some((Fails, Some(Enodev))), Some((Fails, Some(Enodev)))),
            ("xe_vfio_pci", Some((Fails, Some(Enodev))), limited),
            ("ism_vfio_pci", None, None),
        ];
        for (module, without_pf_driver, on_non_vf) in cases {
            let driver = driver(module);
            for pf in [None, Some("vfio-pci")] {
                assert_eq!(seen(driver.shortfall_on_vf(pf)), without_pf_driver, "{module}");
            }
            assert_eq!(seen(driver.shortfall_on_non_vf()), on_non_vf, "{module}");
            for pf in driver.pf_drivers.iter() {
                assert_eq!(driver.shortfall_on_vf(Some(pf)), None, "{module} with {pf}");
            }
        }
    }

    #[test]
    fn entries_hold_together() {
        let machines = ["x86_64", "aarch64", "s390x", "ppc64le", "riscv64", "loongarch64"];
        for d in Catalog::bundled().drivers() {
            let name = &d.module;
            assert_eq!(d.catch_all, *name == "vfio_pci", "{name}");
            assert_eq!(d.catch_all, d.ids.is_empty(), "{name}");
            assert!(d.architectures.iter().all(|a| machines.contains(&&**a)), "{name}");
            assert!(d.kconfig.is_none_or(|symbol| symbol.starts_with("CONFIG_")), "{name}");
            assert_eq!(d.pf_drivers.is_empty(), d.without_pf_driver.is_none(), "{name}");
            assert_eq!(d.pf_drivers.len(), d.pf_modules.len(), "{name}");
            for (driver, module) in d.pf_drivers.iter().zip(d.pf_modules.iter()) {
                assert_eq!(d.pf_driver_of(module), Some(*driver), "{name}");
            }
            assert!(d.pf_state.is_none() || !d.pf_drivers.is_empty(), "{name}");
            assert!(d.pf_state.as_ref().is_none_or(|state| state.mend.contains("{pf}")), "{name}");
            assert_eq!(d.function == Function::Vf, d.on_non_vf.is_some(), "{name}");
            let otherwise = d.pf_state.as_ref().map(|state| &state.otherwise);
            for s in [d.without_pf_driver.as_ref(), d.on_non_vf.as_ref(), otherwise].into_iter().flatten() {
                assert_eq!(s.errno.is_some(), s.outcome == Outcome::Fails, "{name}");
            }
            let migration = &d.features.migration;
            assert!(migration.is_sorted_by(|a, b| a.since < b.since), "{name}");
            assert!(migration.iter().all(|m| m.since >= d.first_kernel), "{name}");
            assert!(migration.iter().all(|m| m.flags.contains(&MigrationFlag::StopCopy)), "{name}");
            let since = d.ids.iter().filter_map(|id| id.since);
            assert!(since.into_iter().all(|v| v > d.first_kernel), "{name}");
        }
    }

    #[test]
    fn preparations_can_be_carried_out_or_looked_at() {
        for d in Catalog::bundled().drivers() {
            for p in d.preparation.iter() {
                for words in p.command.iter().chain(&p.undo) {
                    Template::parse(words.iter().map(|word| word.to_string()).collect())
                        .unwrap_or_else(|error| panic!("{}: {words:?}: {error}", d.module));
                }
                assert!(p.undo.is_none() || p.command.is_some(), "{}: {}", d.module, p.what);
                let is_ours = p.when == When::BeforeBind;
                assert!(!is_ours || p.command.is_some() || p.done_when.is_some(), "{}: {}", d.module, p.what);
            }
        }
        let prepared = |module: &str, kernel| {
            let kernel = KernelVersion::parse(kernel);
            driver(module).preparation_before_bind(kernel).map(|p| p.done_when).collect::<Vec<_>>()
        };
        let migratable = Some(Sign::PortFunction { attribute: "migratable", is: "enable" });
        assert_eq!(prepared("mlx5_vfio_pci", "6.12.107+deb13-amd64"), [migratable]);
        assert_eq!(prepared("mlx5_vfio_pci", "6.1.0-42-amd64"), []);
        assert_eq!(prepared("mlx5_vfio_pci", "unknown"), [migratable]);
        let up = Some(Sign::PfAttribute { attribute: "qat/state", is: "up" });
        assert_eq!(prepared("qat_vfio_pci", "6.12"), [up]);
        assert_eq!(prepared("vfio_pci", "6.12"), []);
    }

    #[test]
    fn only_the_generic_driver_refuses_ids() {
        for d in Catalog::bundled().drivers() {
            assert_eq!(d.denylist.is_empty(), !d.catch_all, "{}", d.module);
        }
        let generic = driver("vfio_pci");
        assert_eq!(generic.denied(0x8086, 0x0b25).unwrap().device, 0x0b25);
        assert_eq!(generic.denied(0x8086, 0x4941), None);
    }

    #[test]
    fn architectures_limit_where_a_driver_runs() {
        assert!(driver("vfio_pci").runs_on("riscv64"));
        assert!(driver("ism_vfio_pci").runs_on("s390x"));
        assert!(!driver("ism_vfio_pci").runs_on("x86_64"));
        assert!(!driver("nvgrace_gpu_vfio_pci").runs_on("x86_64"));
    }
}
