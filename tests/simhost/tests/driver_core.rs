// SPDX-License-Identifier: MIT OR Apache-2.0
//! What writes and modules do, on the model alone.

mod support;

use simhost::model::{Errno, Host, insert_module, load_module, unload_module};
use support::{BRIDGE, Fixture, NIC, PF, TWIN, VF, VF2, driver, fixtures, link, read};

fn device(address: &str, file: &str) -> String {
    format!("bus/pci/devices/{address}/{file}")
}

fn exists(host: &Host, path: &str) -> bool {
    host.walk(path).is_some()
}

fn with_vfio() -> Host {
    let mut host = Fixture::new().load();
    load_module(&mut host, "vfio_pci").unwrap();
    host
}

#[test]
fn every_fixture_of_the_repository_loads() {
    for path in fixtures() {
        Host::load(&path).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

#[test]
fn a_wrong_fixture_is_refused_by_name_and_reason() {
    for (file, content, reason) in [
        ("host.toml", "title = 1", "host.toml"),
        ("host.toml", "title = ''\n[[driver]]\nname='x'\nids=['zz']", "vendor:device"),
        ("host.toml", "title = ''", "host.toml has no such driver"),
        ("sys/devices/pci0000:00/0000:00:02.0/vendor", "intel", "vendor: \"intel\" is not a number"),
        ("sys/devices/pci0000:00/0000:00:02.0/device", "0x1000\n", "modalias"),
        ("proc/sys/kernel/osrelease", "new\n", "is not a kernel release"),
    ] {
        let fixture = Fixture::new();
        fixture.file(file, content);
        let error = format!("{:#}", Host::load(fixture.path()).unwrap_err());
        assert!(error.contains(reason), "{file}: {error}");
        assert!(error.contains(&fixture.path().display().to_string()), "{error}");
    }
}

#[test]
fn binding_moves_the_links_and_makes_the_entries() {
    let mut host = with_vfio();
    host.write("bus/pci/drivers/e1000e/unbind", NIC).unwrap();
    assert_eq!(driver(&host, NIC), None);
    assert!(!exists(&host, &format!("bus/pci/drivers/e1000e/{NIC}")));
    assert!(!exists(&host, &device(NIC, "net")), "what the driver made goes with it");
    host.write(&device(NIC, "driver_override"), "vfio-pci").unwrap();
    host.write("bus/pci/drivers/vfio-pci/bind", NIC).unwrap();
    assert_eq!(driver(&host, NIC).as_deref(), Some("vfio-pci"));
    assert_eq!(link(&host, &format!("bus/pci/drivers/vfio-pci/{NIC}")).as_deref(), Some(NIC));
    assert!(exists(&host, &device(NIC, "vfio-dev/vfio0/device")));
    assert_eq!(link(&host, "class/vfio-dev/vfio0").as_deref(), Some("vfio0"));
    assert!(read(&host, &device(NIC, "uevent")).unwrap().starts_with("DRIVER=vfio-pci\n"));
    host.write(&device(TWIN, "driver_override"), "vfio-pci").unwrap();
    host.write("bus/pci/drivers_probe", TWIN).unwrap();
    assert!(exists(&host, &device(TWIN, "vfio-dev/vfio1")));
    host.write("bus/pci/drivers/vfio-pci/unbind", NIC).unwrap();
    assert!(!exists(&host, &device(NIC, "vfio-dev")));
    assert!(!exists(&host, "class/vfio-dev/vfio0"));
    assert!(!read(&host, &device(NIC, "uevent")).unwrap().contains("DRIVER"));
    host.write(&device(NIC, "driver_override"), "\n").unwrap();
    host.write("bus/pci/drivers_probe", NIC).unwrap();
    assert_eq!(driver(&host, NIC).as_deref(), Some("e1000e"));
    assert_eq!(read(&host, &device(NIC, "net/eno1/address")).as_deref(), Ok("52:54:00:00:00:01\n"));
}

#[test]
fn there_and_back_is_the_same_host() {
    let mut host = with_vfio();
    let before = host.clone();
    for _ in 0..2 {
        host.write("bus/pci/drivers/e1000e/unbind", NIC).unwrap();
        host.write(&device(NIC, "driver_override"), "vfio-pci").unwrap();
        host.write("bus/pci/drivers_probe", NIC).unwrap();
        assert_ne!(host.state(), before.state());
        host.write("bus/pci/drivers/vfio-pci/unbind", NIC).unwrap();
        host.write(&device(NIC, "driver_override"), "\0").unwrap();
        host.write("bus/pci/drivers_probe", NIC).unwrap();
    }
    assert_eq!(host.state(), before.state());
    assert!(!exists(&host, &device(NIC, "vfio-dev")));
}

#[test]
fn before_6_1_there_is_no_vfio_dev() {
    let mut host = Fixture::with_release("5.15.0-100-generic").load();
    load_module(&mut host, "vfio_pci").unwrap();
    host.write(&device(TWIN, "driver_override"), "vfio-pci").unwrap();
    host.write("bus/pci/drivers/vfio-pci/bind", TWIN).unwrap();
    assert!(!exists(&host, &device(TWIN, "vfio-dev")));
    assert!(!exists(&host, "class/vfio-dev"));
}

#[test]
fn new_id_captures_every_unbound_twin() {
    let mut host = with_vfio();
    host.write("bus/pci/drivers/e1000e/unbind", NIC).unwrap();
    host.write("bus/pci/drivers/vfio-pci/new_id", "8086 10d3").unwrap();
    assert_eq!(driver(&host, NIC).as_deref(), Some("vfio-pci"));
    assert_eq!(driver(&host, TWIN).as_deref(), Some("vfio-pci"));
    host.write("bus/pci/drivers/vfio-pci/remove_id", "8086 10d3").unwrap();
    assert_eq!(driver(&host, TWIN).as_deref(), Some("vfio-pci"), "remove_id does not unbind");
}

#[test]
fn new_id_leaves_alone_what_an_override_keeps_for_another() {
    let mut host = with_vfio();
    host.write(&device(TWIN, "driver_override"), "none").unwrap();
    host.write("bus/pci/drivers/vfio-pci/new_id", "8086 10d3").unwrap();
    assert_eq!(driver(&host, TWIN), None);
    assert_eq!(driver(&host, NIC).as_deref(), Some("e1000e"), "nor what is bound");
}

#[test]
fn a_module_takes_what_is_free_when_it_is_loaded() {
    let mut host = Fixture::new().load();
    host.write(&device(PF, "sriov_numvfs"), "2").unwrap();
    assert_eq!(driver(&host, VF), None, "igbvf is not in");
    host.write(&device(VF2, "driver_override"), "vfio-pci").unwrap();
    load_module(&mut host, "igbvf").unwrap();
    assert_eq!(driver(&host, VF).as_deref(), Some("igbvf"));
    assert_eq!(driver(&host, VF2), None, "an override keeps it off");
    load_module(&mut host, "vfio_pci").unwrap();
    assert_eq!(driver(&host, VF2).as_deref(), Some("vfio-pci"), "and lets its own driver have it at once");
}

#[test]
fn loading_a_variant_loads_its_pf_driver_first() {
    let mut host = Fixture::new().load();
    unload_module(&mut host, "igb").unwrap();
    assert_eq!(driver(&host, PF), None);
    assert!(!exists(&host, "bus/pci/drivers/igb"));
    load_module(&mut host, "vf_vfio_pci").unwrap();
    assert_eq!(driver(&host, PF).as_deref(), Some("igb"));
    for module in ["vfio", "vfio_pci_core", "igb", "vf_vfio_pci"] {
        assert!(exists(&host, &format!("module/{module}")), "{module}");
    }
    assert_eq!(link(&host, "module/vf_vfio_pci/drivers/pci:vf_vfio_pci").as_deref(), Some("vf_vfio_pci"));
    assert_eq!(link(&host, "bus/pci/drivers/vf_vfio_pci/module").as_deref(), Some("vf_vfio_pci"));
}

#[test]
fn modules_come_and_go() {
    let mut host = Fixture::new().load();
    assert_eq!(insert_module(&mut host, "nothing"), Err(Errno::ENOENT));
    assert_eq!(load_module(&mut host, "nothing").unwrap_err().module, "nothing");
    assert_eq!(insert_module(&mut host, "pcieport"), Ok(()), "built in");
    load_module(&mut host, "vfio_pci").unwrap();
    load_module(&mut host, "vfio_pci").unwrap();
    assert_eq!(unload_module(&mut host, "vfio"), Err(Errno::EAGAIN), "needed");
    assert_eq!(unload_module(&mut host, "pf_stub"), Err(Errno::ENOENT), "not in");
    host.write(&device(TWIN, "driver_override"), "vfio-pci").unwrap();
    host.write("bus/pci/drivers_probe", TWIN).unwrap();
    unload_module(&mut host, "vfio_pci").unwrap();
    assert_eq!(driver(&host, TWIN), None);
    assert_eq!(read(&host, &device(TWIN, "driver_override")).as_deref(), Ok("vfio-pci\n"), "survives");
    assert!(exists(&host, "class/vfio-dev"));
    unload_module(&mut host, "vfio_pci_core").unwrap();
    unload_module(&mut host, "vfio").unwrap();
    assert!(!exists(&host, "class/vfio-dev"));
}

#[test]
fn bus_autoprobe_off_lets_nothing_bind_by_itself() {
    let mut host = Fixture::new().load();
    host.write("bus/pci/drivers_autoprobe", "0").unwrap();
    host.write("bus/pci/drivers/e1000e/unbind", NIC).unwrap();
    unload_module(&mut host, "e1000e").unwrap();
    load_module(&mut host, "e1000e").unwrap();
    assert_eq!(driver(&host, TWIN), None);
    host.write("bus/pci/drivers_autoprobe", "1").unwrap();
    unload_module(&mut host, "e1000e").unwrap();
    load_module(&mut host, "e1000e").unwrap();
    assert_eq!(driver(&host, TWIN).as_deref(), Some("e1000e"));
}

#[test]
fn vfs_are_made_and_unmade() {
    let mut host = Fixture::new().load();
    load_module(&mut host, "igbvf").unwrap();
    let before = host.state();
    host.write(&device(PF, "sriov_numvfs"), "2\n").unwrap();
    assert_eq!(read(&host, &device(PF, "sriov_numvfs")).as_deref(), Ok("2\n"));
    for (index, vf) in [VF, VF2].into_iter().enumerate() {
        assert_eq!(link(&host, &device(PF, &format!("virtfn{index}"))).as_deref(), Some(vf));
        assert_eq!(link(&host, &device(vf, "physfn")).as_deref(), Some(PF));
        assert_eq!(driver(&host, vf).as_deref(), Some("igbvf"));
        assert_eq!(
            read(&host, &device(vf, "modalias")).as_deref(),
            Ok("pci:v00008086d00001520sv00008086sd00000001bc02sc00i00\n")
        );
        let group = link(&host, &device(vf, "iommu_group")).unwrap();
        assert_eq!(group, (index * 5).to_string(), "the lowest free number");
        assert_eq!(read(&host, &format!("kernel/iommu_groups/{group}/type")).as_deref(), Ok("DMA-FQ\n"));
        assert!(!exists(&host, &device(vf, "remove")));
    }
    host.write(&device(PF, "sriov_numvfs"), "0").unwrap();
    assert_eq!(host.state(), before);
    assert!(!exists(&host, &device(PF, "virtfn0")));
    assert!(!exists(&host, "kernel/iommu_groups/0"));
}

#[test]
fn vfs_are_left_alone_without_autoprobe() {
    let mut host = Fixture::new().load();
    load_module(&mut host, "igbvf").unwrap();
    host.write(&device(PF, "sriov_drivers_autoprobe"), "0").unwrap();
    host.write(&device(PF, "sriov_numvfs"), "1").unwrap();
    assert_eq!(driver(&host, VF), None);
    host.write("bus/pci/drivers_probe", VF).unwrap();
    assert_eq!(driver(&host, VF), None, "drivers_probe says it is well and does nothing");
    host.write(&device(VF, "driver_override"), "igbvf").unwrap();
    host.write("bus/pci/drivers_probe", VF).unwrap();
    assert_eq!(driver(&host, VF).as_deref(), Some("igbvf"));
}

#[test]
fn unbinding_the_pf_takes_its_vfs_along() {
    let mut host = with_vfio();
    host.write(&device(PF, "sriov_numvfs"), "2").unwrap();
    host.write(&device(VF, "driver_override"), "vfio-pci").unwrap();
    host.write("bus/pci/drivers_probe", VF).unwrap();
    host.write("bus/pci/drivers/igb/unbind", PF).unwrap();
    for vf in [VF, VF2] {
        assert!(!exists(&host, &device(vf, "vendor")));
        assert!(!exists(&host, &format!("bus/pci/drivers/vfio-pci/{vf}")));
    }
    assert_eq!(read(&host, &device(PF, "sriov_numvfs")).as_deref(), Ok("0\n"));
}

#[test]
fn an_override_lasts_as_long_as_the_device() {
    let mut host = with_vfio();
    host.write(&device(PF, "sriov_numvfs"), "1").unwrap();
    host.write(&device(VF, "driver_override"), "vfio-pci").unwrap();
    host.write("bus/pci/drivers_probe", VF).unwrap();
    host.write("bus/pci/drivers/vfio-pci/unbind", VF).unwrap();
    assert_eq!(read(&host, &device(VF, "driver_override")).as_deref(), Ok("vfio-pci\n"));
    host.write(&device(PF, "sriov_numvfs"), "0").unwrap();
    host.write(&device(PF, "sriov_numvfs"), "1").unwrap();
    assert_eq!(read(&host, &device(VF, "driver_override")).as_deref(), Ok("(null)\n"));

    host.write("bus/pci/drivers/e1000e/unbind", NIC).unwrap();
    host.write(&device(NIC, "driver_override"), "vfio-pci").unwrap();
    host.write("bus/pci/drivers_probe", NIC).unwrap();
    host.write(&device(NIC, "remove"), "1").unwrap();
    assert!(!exists(&host, &device(NIC, "vendor")));
    assert!(!exists(&host, "kernel/iommu_groups/2"));
    assert!(!host.state().devices[NIC].exists);
    host.write("bus/pci/rescan", "1").unwrap();
    assert_eq!(read(&host, &device(NIC, "driver_override")).as_deref(), Ok("(null)\n"));
    assert_eq!(driver(&host, NIC).as_deref(), Some("e1000e"), "so the native driver has it back");
    assert_eq!(link(&host, &device(NIC, "iommu_group")).as_deref(), Some("2"), "the lowest free number");
}

#[test]
fn removing_a_bridge_removes_what_is_behind_it() {
    let mut host = Fixture::new().load();
    host.write(&device(PF, "sriov_numvfs"), "2").unwrap();
    host.write(&device(BRIDGE, "remove"), "1").unwrap();
    for gone in [BRIDGE, PF, VF, VF2] {
        assert!(!exists(&host, &device(gone, "vendor")), "{gone}");
    }
    host.write(&device(NIC, "rescan"), "1").unwrap();
    assert_eq!(driver(&host, BRIDGE).as_deref(), Some("pcieport"));
    assert_eq!(driver(&host, PF).as_deref(), Some("igb"));
    assert!(!exists(&host, &device(VF, "vendor")), "VFs are for the PF's driver to make");
    assert_eq!(read(&host, &device(PF, "sriov_numvfs")).as_deref(), Ok("0\n"));
}

#[test]
fn a_pf_starts_as_its_fixture_has_it() {
    let fixtures = fixtures();
    let gh200 = fixtures.iter().find(|path| path.ends_with("gh200")).unwrap();
    let mut host = Host::load(gh200).unwrap();
    let pf = "0002:01:00.0";
    assert_eq!(read(&host, &device(pf, "sriov_drivers_autoprobe")).as_deref(), Ok("0\n"));
    assert_eq!(read(&host, &device(pf, "sriov_totalvfs")).as_deref(), Ok("8\n"));
    host.write(&device(pf, "sriov_numvfs"), "0").unwrap();
    host.write(&device(pf, "sriov_numvfs"), "1").unwrap();
    assert_eq!(driver(&host, "0002:01:00.1"), None);
}
