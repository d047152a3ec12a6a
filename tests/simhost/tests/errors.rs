// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which error each write gives, and that a refused write changes nothing.

mod support;

use simhost::model::{Errno, Host, load_module};
use support::{BRIDGE, Fixture, NIC, NOWHERE, PF, STRAY, TWIN, VF, driver, read};

/// A name, what comes before, the file and what is written to it, and the answer.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str, Option<Errno>);

const NIC_OVERRIDE: &str = "bus/pci/devices/0000:00:02.0/driver_override";
const TWIN_OVERRIDE: &str = "bus/pci/devices/0000:00:03.0/driver_override";
const STRAY_OVERRIDE: &str = "bus/pci/devices/0000:00:04.0/driver_override";
const BRIDGE_OVERRIDE: &str = "bus/pci/devices/0000:00:01.0/driver_override";
const PF_OVERRIDE: &str = "bus/pci/devices/0000:01:00.0/driver_override";
const VF_OVERRIDE: &str = "bus/pci/devices/0000:01:10.0/driver_override";
const NUMVFS: &str = "bus/pci/devices/0000:01:00.0/sriov_numvfs";
const AUTOPROBE: &str = "bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe";
const RESET: &str = "bus/pci/devices/0000:01:00.0/reset";
const REMOVE: &str = "bus/pci/devices/0000:00:03.0/remove";
const PROBE: &str = "bus/pci/drivers_probe";
const RESCAN: &str = "bus/pci/rescan";
const E1000E: &str = "bus/pci/drivers/e1000e/bind";
const E1000E_UNBIND: &str = "bus/pci/drivers/e1000e/unbind";
const PCIEPORT_UNBIND: &str = "bus/pci/drivers/pcieport/unbind";
const IGB_UNBIND: &str = "bus/pci/drivers/igb/unbind";
const STUB_UNBIND: &str = "bus/pci/drivers/pf-stub/unbind";
const IGBVF: &str = "bus/pci/drivers/igbvf/bind";
const IGBVF_UNBIND: &str = "bus/pci/drivers/igbvf/unbind";
const VFIO: &str = "bus/pci/drivers/vfio-pci/bind";
const VARIANT: &str = "bus/pci/drivers/vf_vfio_pci/bind";
const NEW_ID: &str = "bus/pci/drivers/e1000e/new_id";
const REMOVE_ID: &str = "bus/pci/drivers/e1000e/remove_id";
const VFIO_NEW_ID: &str = "bus/pci/drivers/vfio-pci/new_id";

const CASES: &[Case] = &[
    ("bind, no such device", &[], E1000E, NOWHERE, Some(Errno::ENODEV)),
    ("bind, short name", &[], E1000E, "00:03.0", Some(Errno::ENODEV)),
    ("bind, upper case", &[(E1000E_UNBIND, NIC)], E1000E, "0000:00:02.0 ", Some(Errno::ENODEV)),
    ("bind, two newlines", &[], E1000E, "0000:00:03.0\n\n", Some(Errno::ENODEV)),
    ("bind", &[], E1000E, TWIN, None),
    ("bind, one newline", &[], E1000E, "0000:00:03.0\n", None),
    ("bind, driver does not match", &[], VFIO, TWIN, Some(Errno::ENODEV)),
    ("bind, override for another driver", &[(TWIN_OVERRIDE, "vfio-pci")], E1000E, TWIN, Some(Errno::ENODEV)),
    ("bind, override that names no driver", &[(TWIN_OVERRIDE, "vfio_pci")], VFIO, TWIN, Some(Errno::ENODEV)),
    ("bind, override with spaces", &[(TWIN_OVERRIDE, " vfio-pci ")], VFIO, TWIN, Some(Errno::ENODEV)),
    ("bind, already bound and matching", &[], E1000E, NIC, Some(Errno::EBUSY)),
    ("bind, already bound to another", &[(NIC_OVERRIDE, "vfio-pci")], VFIO, NIC, Some(Errno::EBUSY)),
    ("bind by override", &[(TWIN_OVERRIDE, "vfio-pci\n")], VFIO, TWIN, None),
    ("bind vf, autoprobe off", &[(AUTOPROBE, "0"), (NUMVFS, "1")], IGBVF, VF, Some(Errno::ENODEV)),
    (
        "bind vf, autoprobe off but override",
        &[(AUTOPROBE, "0"), (NUMVFS, "1"), (VF_OVERRIDE, "vfio-pci")],
        VFIO,
        VF,
        None,
    ),
    ("bind, probe fails with ENODEV", &[(TWIN_OVERRIDE, "vf_vfio_pci")], VARIANT, TWIN, Some(Errno::ENODEV)),
    (
        "bind vf to a variant that has its pf",
        &[(NUMVFS, "1"), (IGBVF_UNBIND, VF), (VF_OVERRIDE, "vf_vfio_pci")],
        VARIANT,
        VF,
        None,
    ),
    (
        "bind vfio, bridge",
        &[(PCIEPORT_UNBIND, BRIDGE), (BRIDGE_OVERRIDE, "vfio-pci")],
        VFIO,
        BRIDGE,
        Some(Errno::EINVAL),
    ),
    ("bind vfio, no group", &[(STRAY_OVERRIDE, "vfio-pci")], VFIO, STRAY, Some(Errno::EINVAL)),
    (
        "bind vfio, pf with vfs",
        &[
            (IGB_UNBIND, PF),
            (PF_OVERRIDE, "pf-stub"),
            (PROBE, PF),
            (NUMVFS, "1"),
            (STUB_UNBIND, PF),
            (PF_OVERRIDE, "vfio-pci"),
        ],
        VFIO,
        PF,
        Some(Errno::EBUSY),
    ),
    ("unbind, not bound", &[], E1000E_UNBIND, TWIN, Some(Errno::ENODEV)),
    ("unbind, bound to another", &[], E1000E_UNBIND, PF, Some(Errno::ENODEV)),
    ("unbind, no such device", &[], E1000E_UNBIND, NOWHERE, Some(Errno::ENODEV)),
    ("unbind", &[], E1000E_UNBIND, NIC, None),
    ("drivers_probe, no such device", &[], PROBE, NOWHERE, Some(Errno::ENODEV)),
    ("drivers_probe, bound", &[], PROBE, NIC, None),
    ("drivers_probe, no match", &[], PROBE, STRAY, None),
    ("drivers_probe, bogus override", &[(TWIN_OVERRIDE, "bogus")], PROBE, TWIN, None),
    ("drivers_probe, probe fails", &[(TWIN_OVERRIDE, "vf_vfio_pci")], PROBE, TWIN, None),
    ("new_id, one field", &[], NEW_ID, "8086", Some(Errno::EINVAL)),
    ("new_id, in the table", &[], NEW_ID, "8086 10d3", Some(Errno::EEXIST)),
    ("new_id, twice", &[(NEW_ID, "1234 5678")], NEW_ID, "1234 5678", Some(Errno::EEXIST)),
    ("new_id, in the override table", &[], VFIO_NEW_ID, "8086 10d3", None),
    ("remove_id, unknown", &[], REMOVE_ID, "1234 5678", Some(Errno::ENODEV)),
    ("remove_id, static", &[], REMOVE_ID, "8086 10d3", Some(Errno::ENODEV)),
    ("remove_id, one field", &[], REMOVE_ID, "1234", Some(Errno::EINVAL)),
    ("remove_id", &[(NEW_ID, "1234 5678")], REMOVE_ID, "1234 5678", None),
    ("numvfs, too many", &[], NUMVFS, "8", Some(Errno::ERANGE)),
    ("numvfs, junk", &[], NUMVFS, "many", Some(Errno::EINVAL)),
    ("numvfs, negative", &[], NUMVFS, "-1", Some(Errno::EINVAL)),
    ("numvfs, over 16 bits", &[], NUMVFS, "65536", Some(Errno::EINVAL)),
    ("numvfs, hexadecimal", &[], NUMVFS, "0x2\n", None),
    ("numvfs, other than there are", &[(NUMVFS, "2")], NUMVFS, "3", Some(Errno::EBUSY)),
    ("numvfs, as many as there are", &[(NUMVFS, "2")], NUMVFS, "2", None),
    ("numvfs, none", &[(NUMVFS, "2")], NUMVFS, "0\n", None),
    ("numvfs, pf unbound", &[(IGB_UNBIND, PF)], NUMVFS, "1", Some(Errno::ENOENT)),
    (
        "numvfs, driver without sriov_configure",
        &[(IGB_UNBIND, PF), (PF_OVERRIDE, "vfio-pci"), (PROBE, PF)],
        NUMVFS,
        "1",
        Some(Errno::ENOENT),
    ),
    ("autoprobe, junk", &[], AUTOPROBE, "x", Some(Errno::EINVAL)),
    ("reset, 1", &[], RESET, "1\n", None),
    ("reset, 2", &[], RESET, "2", Some(Errno::EINVAL)),
    ("reset, 0", &[], RESET, "0", Some(Errno::EINVAL)),
    ("remove, junk", &[], REMOVE, "x", Some(Errno::EINVAL)),
    ("remove, 0", &[], REMOVE, "0", None),
    ("rescan, junk", &[], RESCAN, "x", Some(Errno::EINVAL)),
    ("remove of a vf", &[(NUMVFS, "1")], "bus/pci/devices/0000:01:10.0/remove", "1", Some(Errno::ENOENT)),
    ("read-only file", &[], "bus/pci/devices/0000:00:02.0/vendor", "1", Some(Errno::EACCES)),
    ("missing file", &[], "bus/pci/devices/0000:00:02.0/nothing", "1", Some(Errno::ENOENT)),
];

fn host() -> Host {
    let mut host = Fixture::new().load();
    for module in ["igbvf", "pf_stub", "vfio_pci", "vf_vfio_pci"] {
        load_module(&mut host, module).unwrap();
    }
    // e1000e would have it, and the cases want it free.
    assert_eq!(driver(&host, TWIN), None);
    host
}

#[test]
fn every_write_gives_the_kernels_error() {
    let fresh = host();
    for (name, before, path, data, error) in CASES {
        let mut host = fresh.clone();
        for (path, data) in *before {
            host.write(path, data).unwrap_or_else(|errno| panic!("{name}: before, {path}: {errno}"));
        }
        let untouched = host.clone();
        assert_eq!(host.write(path, data).err(), *error, "{name}");
        if error.is_some() {
            assert!(host == untouched, "{name}: refused, and yet something changed");
        }
    }
}

#[test]
fn driver_override_takes_what_the_kernel_takes() {
    let mut host = Fixture::new().load();
    let longest = "x".repeat(4094);
    for (name, data, result, reads) in [
        ("text", "vfio-pci".as_bytes(), Ok(()), "vfio-pci\n"),
        ("up to the newline", b"one\ntwo", Ok(()), "one\n"),
        ("up to the NUL", b"one\0two", Ok(()), "one\n"),
        ("spaces stay", b" foo ", Ok(()), " foo \n"),
        ("nothing changes nothing", b"", Ok(()), " foo \n"),
        ("a newline clears", b"\n", Ok(()), "(null)\n"),
        ("longest", longest.as_bytes(), Ok(()), &format!("{longest}\n")),
        ("too long", "x".repeat(4095).as_bytes(), Err(Errno::EINVAL), &format!("{longest}\n")),
        ("a NUL clears", b"\0", Ok(()), "(null)\n"),
        ("(null) is text", b"(null)\n", Ok(()), "(null)\n"),
    ] {
        assert_eq!(host.write(NIC_OVERRIDE, data), result, "{name}");
        assert_eq!(read(&host, NIC_OVERRIDE).as_deref(), Ok(reads), "{name}");
    }
    // As text it keeps every driver off.
    host.write(E1000E_UNBIND, NIC).unwrap();
    host.write(PROBE, NIC).unwrap();
    assert_eq!(driver(&host, NIC), None);
}
