// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other people's programs, unmodified, on a host: what they take for /sys is good enough for ours.

mod support;

use std::process::Command;

use support::Fixture;

/// These tests need other packages, and say so rather than pass without them.
fn needs(program: &str, package: &str) {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap();
    assert!(found.status.success(), "{program} is not installed: apt-get install {package}");
}

#[test]
fn driverctl() {
    needs("driverctl", "driverctl");
    let fixture = Fixture::new();
    let printed = fixture.sh(
        &[],
        "driverctl list-devices
        driverctl set-override 0000:00:02.0 vfio-pci; echo $?
        driverctl list-overrides
        ls /etc/driverctl.d
        basename $(readlink /sys/bus/pci/devices/0000:00:02.0/driver)
        driverctl unset-override 0000:00:02.0; echo $?
        basename $(readlink /sys/bus/pci/devices/0000:00:02.0/driver)",
    );
    assert_eq!(
        printed,
        "0000:00:01.0 pcieport\n0000:00:02.0 e1000e\n0000:00:03.0 (none)\n0000:00:04.0 (none)\n0000:01:00.0 igb\n\
         0\n0000:00:02.0 vfio-pci\npci-0000:00:02.0\nvfio-pci\n0\ne1000e\n"
    );
}

#[test]
fn driverctl_leaves_a_device_without_driver_when_the_probe_fails() {
    needs("driverctl", "driverctl");
    let fixture = Fixture::new();
    let printed = fixture.sh(
        &["--fault", "0000:00:02.0:probe:errno=EINVAL"],
        "driverctl set-override 0000:00:02.0 vfio-pci 2>&1; echo $?
        cat /sys/bus/pci/devices/0000:00:02.0/driver_override
        ls /sys/bus/pci/devices/0000:00:02.0/driver 2>&1 | grep -c 'No such'",
    );
    assert_eq!(printed, "driverctl: failed to bind device 0000:00:02.0 to driver vfio-pci\n1\nvfio-pci\n1\n");
}

#[test]
fn lspci() {
    needs("lspci", "pciutils");
    let printed = Fixture::new().sh(&[], "lspci -Dnnk -s 0000:00:02.0; lspci -Dn | wc -l");
    assert!(printed.starts_with("0000:00:02.0 Ethernet controller [0200]:"), "{printed}");
    assert!(printed.contains("[8086:10d3]"), "{printed}");
    assert!(printed.contains("\tKernel driver in use: e1000e\n"), "{printed}");
    assert!(printed.ends_with("\n5\n"), "{printed}");
}

#[test]
fn dpdk_devbind() {
    needs("dpdk-devbind.py", "dpdk");
    let printed = Fixture::new().sh(
        &[],
        "modprobe vfio-pci
        dpdk-devbind.py --status-dev net
        dpdk-devbind.py -b vfio-pci 0000:00:02.0 --force 2>&1; echo $?
        basename $(readlink /sys/bus/pci/devices/0000:00:02.0/driver)
        cat /sys/bus/pci/devices/0000:00:02.0/driver_override
        dpdk-devbind.py -u 0000:00:02.0; ls /sys/bus/pci/drivers/vfio-pci",
    );
    assert!(printed.contains("0000:00:02.0"), "{printed}");
    assert!(printed.contains("drv=e1000e"), "{printed}");
    // It clears the override at once, by a NUL: whatever probes the device again gives it back.
    let rest = printed.split("\n0\nvfio-pci\n").nth(1);
    assert_eq!(rest, Some("(null)\nbind\nmodule\nnew_id\nremove_id\nuevent\nunbind\n"), "{printed}");
}
