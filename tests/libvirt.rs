// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hook for libvirt on simulated hosts: what a domain finds when it starts, and what is left when it has ended.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::ran::{Ran, copy, on, script};

const UUID: &str = "6b1f3c9a-8a3e-4c7e-9b8e-1f2d3c4b5a69";
const OTHER: &str = "7b1f3c9a-8a3e-4c7e-9b8e-1f2d3c4b5a69";
const FIRST: &str = "0000:3b:00.1";
const THIRD: &str = "0000:3b:00.3";

/// A domain with these devices, as libvirt hands it to its hooks.
fn domain(uuid: &str, devices: &[String]) -> String {
    format!(
        "<domain type='kvm' id='1'>\n  <name>guest</name>\n  <uuid>{uuid}</uuid>\n  <devices>\n{}  </devices>\n</domain>\n",
        devices.concat()
    )
}

fn source(address: &str, kind: &str) -> String {
    let fields: Vec<&str> = address.split([':', '.']).collect();
    let [domain, bus, slot, function] = fields.as_slice() else { panic!("{address}") };
    format!(
        "<source><address{kind} domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source>"
    )
}

/// A `<hostdev>`; `inside` is what else stands in it.
fn hostdev(address: &str, managed: &str, inside: &str) -> String {
    let source = source(address, "");
    format!("    <hostdev mode='subsystem' type='pci' managed='{managed}'>{inside}{source}</hostdev>\n")
}

fn interface(address: &str, managed: &str) -> String {
    format!("    <interface type='hostdev' managed='{managed}'>{}</interface>\n", source(address, " type='pci'"))
}

/// Runs a script in which `prepare N` and `release N` are what libvirt does for the Nth domain.
fn with_domains(host: &str, faults: &[&str], domains: &[String], text: &str) -> Ran {
    with_libvirt("11.3.0", &support::fixtures().join(host), faults, domains, text)
}

fn with_libvirt(version: &str, host: &std::path::Path, faults: &[&str], domains: &[String], text: &str) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    for (number, domain) in domains.iter().enumerate() {
        std::fs::write(directory.path().join((number + 1).to_string()), domain).unwrap();
    }
    let functions = format!(
        "vfioctl() {{ {0} \"$@\"; }}\n\
         hook() {{ vfioctl libvirt hook --libvirt-version {version} -- guest \"$2\" \"$3\" - <{1}/\"$1\"; }}\n\
         prepare() {{ hook \"$1\" prepare begin; }}\n\
         release() {{ hook \"$1\" release end; }}\n\
         killed() {{ exec {0} libvirt hook --libvirt-version {version} -- guest \"$2\" \"$3\" - <{1}/\"$1\"; }}\n\
         driver() {{ basename \"$(readlink /sys/bus/pci/devices/\"$1\"/driver || echo none)\"; }}\n\
         reattach() {{ echo >/sys/bus/pci/devices/$1/driver_override; echo $1 >/sys/bus/pci/devices/$1/driver/unbind; \
         echo $1 >/sys/bus/pci/drivers_probe; }}\n",
        support::VFIOCTL,
        directory.path().display()
    );
    on(host, faults, &["sh", "-c", &format!("{functions}{text}")])
}

// ---- a domain starts and ends

#[test]
fn an_override_for_another_driver_than_it_was_on_comes_back() {
    let ran = with_domains(
        "connectx",
        &[],
        &[domain(UUID, &[hostdev(FIRST, "yes", "")])],
        "override=/sys/bus/pci/devices/0000:3b:00.1/driver_override; echo vfio-pci >$override
         prepare 1 && driver 0000:3b:00.1 && release 1; echo $?; driver 0000:3b:00.1; cat $override; ls /run/vfioctl/libvirt",
    );
    ran.assert_status(0);
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| !line.ends_with(".lock")).collect();
    assert_eq!(lines, ["mlx5_vfio_pci", "0", "mlx5_core", "vfio-pci"], "{}", ran.stderr);
}

#[test]
fn a_domain_finds_its_devices_and_leaves_them_as_they_were() {
    let devices = [hostdev(FIRST, "yes", "<driver name='vfio'/>"), interface(THIRD, "no")];
    let ran = with_domains(
        "connectx",
        &[],
        &[domain(UUID, &devices)],
        &format!(
            "prepare 1 && driver {FIRST} && driver {THIRD} && hook 1 start begin && hook 1 started begin && hook 1 stopped end && release 1"
        ),
    );
    ran.assert_status(0);
    assert_eq!(ran.stdout, "mlx5_vfio_pci\nmlx5_vfio_pci\n");
    assert_eq!(ran.stderr, "");
    ran.assert_as_before();
}

#[test]
fn what_libvirt_would_take_it_finds() {
    for (version, managed, inside, expected) in [
        ("11.3.0", "yes", "", "mlx5_vfio_pci"),
        ("11.3.0", "no", "", "mlx5_vfio_pci"),
        ("9.0.0", "yes", "", "vfio-pci"),
        ("9.10.0", "no", "", "vfio-pci"),
        ("10.0.0", "yes", "<driver name='vfio' model='vfio-pci'/>", "vfio-pci"),
        ("10.0.0", "no", "<driver model='vfio_pci'/>", "vfio-pci"),
        ("10.0.0", "yes", "<driver name='vfio' model='mlx5-vfio-pci'/>", "mlx5_vfio_pci"),
        ("11.3.0", "yes", "<driver name='xen'/>", "mlx5_core"),
    ] {
        let host = support::fixtures().join("connectx");
        let domains = [domain(UUID, &[hostdev(FIRST, managed, inside)])];
        let ran = with_libvirt(version, &host, &[], &domains, &format!("prepare 1 && driver {FIRST} && release 1"));
        ran.assert_status(0);
        assert_eq!(ran.stdout, format!("{expected}\n"), "{version} {managed} {inside}");
        ran.assert_as_before();
    }
}

#[test]
fn an_nvme_disk_is_a_device_too() {
    let disk = |namespace: u32| {
        let source = source("0000:5e:00.0", "")
            .replace("<source>", &format!("<source type='pci' managed='yes' namespace='{namespace}'>"));
        format!("    <disk type='nvme' device='disk'>{source}<target dev='vd{namespace}'/></disk>\n")
    };
    let domains = [domain(UUID, &[disk(1), disk(2)])];
    let ran = with_domains("connectx", &[], &domains, "prepare 1 && driver 0000:5e:00.0 && release 1");
    ran.assert_status(0);
    assert_eq!(ran.stdout, "vfio-pci\n");
    ran.assert_as_before();
}

#[test]
fn what_is_right_already_stays() {
    for (managed, before) in [("yes", "vfioctl bind -v 3b:00.1"), ("no", "vfioctl bind --driver vfio-pci 3b:00.1")] {
        let domains = [domain(UUID, &[hostdev(FIRST, managed, "")])];
        let ran = with_domains("connectx", &[], &domains, &format!("{before} >/dev/null 2>&1; prepare 1 && release 1"));
        ran.assert_status(0);
        let expected = if managed == "yes" { "mlx5_vfio_pci" } else { "vfio-pci" };
        assert_eq!(ran.device("after", FIRST)["driver"], expected);
        assert_eq!(ran.device("after", FIRST)["driver_override"], expected);
        assert_eq!(ran.writes().len(), 3, "only bind writes: {:?}", ran.writes());
    }
}

#[test]
fn what_was_bound_otherwise_is_bound_so_again() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")])];
    let before = "vfioctl bind --no-save --driver vfio-pci 3b:00.1 >/dev/null 2>&1";
    let ran = with_domains("connectx", &[], &domains, &format!("{before}; prepare 1 && driver {FIRST} && release 1"));
    ran.assert_status(0);
    assert_eq!(ran.stdout, "mlx5_vfio_pci\n");
    assert_eq!(ran.device("after", FIRST)["driver"], "vfio-pci");
    assert_eq!(ran.device("after", FIRST)["driver_override"], "vfio-pci");
}

#[test]
fn the_policy_has_its_say_where_libvirt_has_none() {
    let domains = [domain(UUID, &[hostdev(FIRST, "no", ""), hostdev(THIRD, "yes", "")])];
    let policy = format!(
        "mkdir -p /etc/vfioctl.d; for a in {FIRST} {THIRD}; do \
         printf '[[device]]\\naddress = \"%s\"\\nid = \"15b3:101e\"\\ndriver = \"vfio-pci\"\\n' $a >/etc/vfioctl.d/$a.toml; done"
    );
    let ran = with_domains(
        "connectx",
        &[],
        &domains,
        &format!("{policy}; prepare 1; driver {FIRST}; driver {THIRD}; release 1"),
    );
    ran.assert_status(0);
    assert_eq!(ran.stdout, "vfio-pci\nmlx5_vfio_pci\n");
    assert_eq!(ran.changed(), Vec::<&str>::new());
}

#[test]
fn a_kept_choice_that_libvirts_reattach_has_cleared_is_made_good() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")])];
    // Whether the hook had taken it or had found it right.
    for before in ["vfioctl bind --driver vfio-pci 3b:00.1", "vfioctl bind 3b:00.1"] {
        let text = format!(
            "{before} >/dev/null 2>&1; prepare 1; driver {FIRST}; reattach {FIRST}; driver {FIRST}; release 1; driver {FIRST}"
        );
        let ran = with_domains("connectx", &[], &domains, &text);
        ran.assert_status(0);
        let expected = if before.contains("--driver") { "vfio-pci" } else { "mlx5_vfio_pci" };
        assert_eq!(ran.stdout, format!("mlx5_vfio_pci\nmlx5_core\n{expected}\n"), "{}", ran.stderr);
        assert_eq!(ran.device("after", FIRST)["driver_override"], expected);
    }
    // Where nothing is kept, libvirt's word stands.
    let ran = with_domains("connectx", &[], &domains, &format!("prepare 1; reattach {FIRST}; release 1"));
    ran.assert_status(0);
    ran.assert_as_before();
}

#[test]
fn what_was_plugged_in_meanwhile_is_made_good_too() {
    let domains = [domain(UUID, &[]), domain(UUID, &[hostdev(FIRST, "yes", ""), hostdev(THIRD, "no", "")])];
    // libvirt hands the hook what the domain had in the end.
    let text = format!(
        "vfioctl bind 3b:00.1 3b:00.3 >/dev/null 2>&1; prepare 1; reattach {FIRST}; reattach {THIRD}; release 2; \
         driver {FIRST}; driver {THIRD}"
    );
    let ran = with_domains("connectx", &[], &domains, &text);
    ran.assert_status(0);
    // The other is none of libvirt's business.
    assert_eq!(ran.stdout, "mlx5_vfio_pci\nmlx5_core\n", "{}", ran.stderr);
}

#[test]
fn what_was_prepared_for_a_domain_is_undone_when_it_ends_or_does_not_start() {
    let step = "[[device.prepare]]\\nrun = [\"touch\", \"/run/{address}\"]\\nundo = [\"rm\", \"/run/{address}\"]";
    let rule = format!(
        "mkdir -p /etc/vfioctl.d; printf '[[device]]\\naddress = \"3b:00.1\"\\ndriver = \"auto\"\\n{step}\\n' > /etc/vfioctl.d/50.toml"
    );
    let domains = [
        domain(UUID, &[hostdev(FIRST, "yes", "")]),
        domain(UUID, &[hostdev(FIRST, "yes", ""), hostdev("0000:99:00.0", "yes", "")]),
    ];
    let text = format!(
        "{rule}; prepare 1; ls /run/{FIRST}; release 1; ls /run/{FIRST} 2>&1; prepare 2; echo $?; ls /run/{FIRST} 2>&1; driver {FIRST}"
    );
    let ran = with_domains("connectx", &[], &domains, &text);
    let gone = format!("ls: cannot access '/run/{FIRST}': No such file or directory");
    assert_eq!(ran.stdout, format!("/run/{FIRST}\n{gone}\n3\n{gone}\nmlx5_core\n"), "{}", ran.stderr);
}

// ---- what does not work

#[test]
fn what_would_fail_keeps_the_domain_from_starting() {
    let domains = [
        domain(UUID, &[hostdev("0000:75:00.2", "yes", "")]),
        domain(UUID, &[hostdev("0000:75:00.2", "yes", "<driver name='vfio' model='vfio-pci'/>")]),
    ];
    let ran = with_domains("qat", &[], &domains, "prepare 1");
    ran.assert_status(4);
    for part in
        ["qat_vfio_pci", "ENODEV", "pci-pf-stub", "<driver name='vfio' model='vfio-pci'/>", "<hostdev> in line 5"]
    {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    ran.assert_as_before();
    let ran = with_domains("qat", &[], &domains, "prepare 2 && driver 0000:75:00.2 && release 2");
    ran.assert_status(0);
    assert_eq!(ran.stdout, "vfio-pci\n");
    ran.assert_as_before();
}

#[test]
fn a_driver_for_other_devices_keeps_the_domain_from_starting() {
    let domains = [domain(UUID, &[hostdev("0000:5e:00.0", "yes", "<driver name='vfio' model='mlx5_vfio_pci'/>")])];
    let ran = with_domains("connectx", &[], &domains, "prepare 1");
    ran.assert_status(4);
    assert!(
        ran.stderr.contains("names driver mlx5_vfio_pci for it in line 5, which is not for 144d:a824"),
        "{}",
        ran.stderr
    );
    ran.assert_as_before();
}

#[test]
fn if_one_device_fails_the_others_are_given_back() {
    let devices = [hostdev(FIRST, "yes", ""), hostdev(THIRD, "yes", ""), hostdev("0000:3b:00.2", "no", "")];
    let domains = [domain(UUID, &devices)];
    let text = "modprobe mlx5_vfio_pci; prepare 1; status=$?; ls /run/vfioctl/libvirt | grep -c json; release 1 || exit 99; exit $status";
    let ran = with_domains("connectx", &["0000:3b:00.2:probe:errno=EIO:nth=1"], &domains, text);
    ran.assert_status(1);
    assert_eq!(ran.stdout, "0\n", "nothing is left to be given back");
    assert!(ran.stderr.contains("0000:3b:00.2: ") && ran.stderr.contains("EIO"), "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn a_device_that_is_not_there_costs_no_other_its_driver() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", ""), hostdev("0000:99:00.0", "yes", "")])];
    let ran = with_domains("connectx", &[], &domains, "prepare 1");
    ran.assert_status(3);
    assert!(ran.stderr.contains("no PCI device 0000:99:00.0"), "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn no_guest_is_given_another_device_than_was_chosen() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")])];
    let rule = "mkdir -p /etc/vfioctl.d; printf '[[device]]\\naddress = \"3b:00.1\"\\nid = \"8086:1234\"\\ndriver = \"auto\"\\n' \
                >/etc/vfioctl.d/nic.toml";
    let ran = with_domains("connectx", &[], &domains, &format!("{rule}; prepare 1"));
    ran.assert_status(4);
    assert!(ran.stderr.contains("is about device 8086:1234, but 15b3:101e is there now"), "{}", ran.stderr);
    assert_eq!(ran.changed(), Vec::<&str>::new());
}

#[test]
fn a_hook_that_was_killed_leaves_word_of_what_it_did() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", ""), hostdev(THIRD, "yes", "")])];
    let text = format!(
        "killed 1 prepare begin & sleep 1; kill -KILL $!; wait; sleep 2; driver {THIRD}; release 1; ls /run/vfioctl/libvirt | grep -c json"
    );
    let ran = with_domains("connectx", &["0000:3b:00.1:probe:delay=2000"], &domains, &text);
    assert_eq!(ran.stdout, "mlx5_vfio_pci\n0\n", "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn what_is_no_domain_is_refused_with_its_place() {
    let domains = [
        "<domain>\n<devices>\n<hostdev".to_string(),
        "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]>\n<domain>&b;</domain>".to_string(),
        domain(UUID, &[hostdev(FIRST, "yes", ""), hostdev(FIRST, "no", "")]),
        domain(UUID, &[hostdev("0000:3b:20.1", "yes", "")]),
        domain("nonsense", &[hostdev(FIRST, "yes", "")]),
        format!("<domain>{}</domain>", "<a>".repeat(100_000)),
    ];
    for (number, expected) in (1..).zip([
        "line 3, column",
        "line 1, column 1: a DTD",
        "line 6, column 5",
        "slot='0x20'",
        "line 3, column 3",
        "malformed XML",
    ]) {
        for operation in ["prepare", "release"] {
            let ran = with_domains("connectx", &[], &domains, &format!("{operation} {number}"));
            ran.assert_status(2);
            assert!(ran.stderr.contains(expected), "{number}: {}", ran.stderr);
            assert_eq!(ran.stdout, "");
            ran.assert_as_before();
        }
    }
}

// ---- what happens in between

#[test]
fn a_device_goes_from_one_domain_to_the_next() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")]), domain(OTHER, &[hostdev(FIRST, "yes", "")])];
    // The next one starts before the first is done with.
    let text = format!("prepare 1; prepare 2; release 1; driver {FIRST}; release 2; driver {FIRST}");
    let ran = with_domains("connectx", &[], &domains, &text);
    ran.assert_status(0);
    assert_eq!(ran.stdout, "mlx5_vfio_pci\nmlx5_core\n");
    ran.assert_as_before();
    // The next one fails, since the first has it.
    let text = format!("prepare 1; prepare 2; release 2; driver {FIRST}; release 1; driver {FIRST}");
    let ran = with_domains("connectx", &[], &domains, &text);
    ran.assert_status(0);
    assert_eq!(ran.stdout, "mlx5_vfio_pci\nmlx5_core\n");
    ran.assert_as_before();
}

#[test]
fn a_release_that_never_came_is_made_good_at_the_next_start() {
    let domains = [
        domain(UUID, &[hostdev(FIRST, "yes", ""), hostdev(THIRD, "yes", "")]),
        domain(UUID, &[hostdev(FIRST, "yes", "")]),
        domain(UUID, &[]),
    ];
    let text = format!("prepare 1; prepare 2; driver {THIRD}; driver {FIRST}; release 2");
    let ran = with_domains("connectx", &[], &domains, &text);
    ran.assert_status(0);
    assert_eq!(ran.stdout, "none\nmlx5_vfio_pci\n");
    ran.assert_as_before();
    let ran = with_domains("connectx", &[], &domains, "prepare 1; prepare 3; ls /run/vfioctl/libvirt | grep -c json");
    assert_eq!(ran.stdout, "0\n", "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn a_state_that_cannot_be_read_keeps_no_domain_from_starting() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")])];
    let spoil = format!("mkdir -p /run/vfioctl/libvirt; echo '{{' >/run/vfioctl/libvirt/{UUID}.json");
    let ran = with_domains("connectx", &[], &domains, &format!("{spoil}; prepare 1 && driver {FIRST} && release 1"));
    ran.assert_status(0);
    assert_eq!(ran.stdout, "mlx5_vfio_pci\n");
    assert!(ran.stderr.contains(&format!("cannot read /run/vfioctl/libvirt/{UUID}.json")), "{}", ran.stderr);
    ran.assert_as_before();
    // After the domain has run, there is nothing else to go by.
    let ran = with_domains("connectx", &[], &domains, &format!("{spoil}; release 1"));
    ran.assert_status(1);
    assert!(ran.stderr.contains(&format!("{UUID}.json")), "{}", ran.stderr);
}

#[test]
fn a_release_without_a_start_does_nothing() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")])];
    let ran = with_domains("connectx", &[], &domains, "vfioctl bind 3b:00.1 >/dev/null; release 1");
    ran.assert_status(0);
    assert_eq!(ran.device("after", FIRST)["driver"], "mlx5_vfio_pci");
}

#[test]
fn what_is_gone_or_made_anew_is_not_given_back() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")])];
    let numvfs = "/sys/bus/pci/devices/0000:3b:00.0/sriov_numvfs";
    let ran = with_domains(
        "connectx",
        &[],
        &domains,
        &format!("prepare 1; echo 0 >{numvfs}; release 1; ls /run/vfioctl/libvirt | grep -c json"),
    );
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("0\n", ""));
    let text = format!(
        "prepare 1; echo 0 >{numvfs}; echo 4 >{numvfs}; vfioctl bind --no-save 3b:00.1 >/dev/null; release 1; driver {FIRST}"
    );
    let ran = with_domains("connectx", &[], &domains, &text);
    ran.assert_status(0);
    assert_eq!(ran.stdout, "mlx5_vfio_pci\n", "it is another one, bound by somebody else");
}

#[test]
fn what_somebody_has_open_is_not_given_back() {
    // Of all tests' devices this one's alone: /proc is the machine's.
    let fourth = "0000:3b:00.4";
    let domains = [domain(UUID, &[hostdev(fourth, "yes", "")])];
    // A node that a process has open; simhost's own are none.
    let text = format!(
        "prepare 1; touch /dev/vfio/10; sleep 30 3</dev/vfio/10 & release 1; status=$?; driver {fourth}; kill $!; exit $status"
    );
    let ran = with_domains("connectx", &[], &domains, &text);
    ran.assert_status(0);
    assert_eq!(ran.stdout, "mlx5_vfio_pci\n");
    assert!(ran.stderr.contains("not given back") && ran.stderr.contains("sleep"), "{}", ran.stderr);
}

#[test]
fn a_native_driver_that_was_unloaded_meanwhile_is_loaded_again() {
    let domains = [domain(UUID, &[hostdev("0000:5e:00.0", "yes", "")])];
    let ran = with_domains("connectx", &[], &domains, "prepare 1; modprobe -r nvme; release 1; driver 0000:5e:00.0");
    ran.assert_status(0);
    assert_eq!(ran.stdout, "nvme\n", "{}", ran.stderr);
}

// ---- what is none of the hook's business

#[test]
fn a_domain_without_devices_costs_nothing() {
    let host = copy("connectx");
    // Nobody could read that.
    let spoil = "cd /lib/modules/7.0.0-43-generic; mv modules.alias aside; mkdir modules.alias";
    let mend = "status=$?; rmdir modules.alias; mv aside modules.alias; exit $status";
    let domains = [domain(UUID, &["<interface type='network'><source network='default'/></interface>".to_string()])];
    let ran = with_libvirt(
        "11.3.0",
        host.path(),
        &[],
        &domains,
        &format!("{spoil}; prepare 1 && release 1 && ls -A /run/vfioctl; {mend}"),
    );
    ran.assert_status(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert_eq!(ran.writes(), Vec::<String>::new());
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")])];
    let ran = with_libvirt("11.3.0", host.path(), &[], &domains, &format!("{spoil}; prepare 1; {mend}"));
    assert_ne!(ran.status, 0, "it is read for one that has devices");
}

/// libvirt takes what a hook prints at `migrate` and `restore` for the domain's new XML, and is not to find a broken pipe.
#[test]
fn other_operations_are_left_to_others() {
    let xml = domain(UUID, &[hostdev(FIRST, "yes", "")]).replace("guest", &"x".repeat(1 << 20));
    for operation in ["start", "started", "stopped", "migrate", "restore", "reconnect", "attach", "new-in-libvirt-13"] {
        let mut command = Command::new(support::VFIOCTL);
        command.args(["libvirt", "hook", "--", "-guest", operation, "begin", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
        let started = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(output.status.code(), Some(0), "{operation}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{operation}: {output:?}");
    }
}

#[test]
fn a_dry_run_says_what_would_be_done() {
    let domains = [domain(UUID, &[hostdev(FIRST, "yes", "")])];
    let text =
        "vfioctl libvirt hook --dry-run --libvirt-version 11.3.0 -- guest prepare begin - <$FILE; ls -A /run/vfioctl";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("domain.xml");
    std::fs::write(&file, &domains[0]).unwrap();
    let ran = script("connectx", &[], &format!("FILE={}; {text}", file.display()));
    ran.assert_status(0);
    assert!(ran.stdout.contains("would\n  1. override mlx5_vfio_pci"), "{}", ran.stdout);
    ran.assert_as_before();
}

// ---- check

#[test]
fn check_knows_of_the_hook_and_of_other_domains() {
    let domains = [domain(UUID, &[hostdev(FIRST, "no", "")]), domain(OTHER, &[hostdev(FIRST, "no", "")])];
    let check = |number: usize| format!("sed -n p <&{number} | vfioctl libvirt check --libvirt-version 11.3.0 -");
    let install =
        "mkdir -p /etc/libvirt/hooks/qemu.d; echo 'exec vfioctl libvirt hook -- \"$@\"' >/etc/libvirt/hooks/qemu.d/v";
    let directory = tempfile::tempdir().unwrap();
    let files: Vec<String> = domains
        .iter()
        .enumerate()
        .map(|(number, domain)| {
            let path = directory.path().join(number.to_string());
            std::fs::write(&path, domain).unwrap();
            path.display().to_string()
        })
        .collect();
    let text = format!(
        "exec 3<{0}; {check}; echo $?; {install}; exec 3<{0}; {check}; echo $?; prepare 1; exec 3<{1}; {check}; echo $?",
        files[0],
        files[1],
        check = check(3)
    );
    let ran = with_domains("connectx", &[], &domains, &text);
    let answers: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("  start") || line.len() == 1).collect();
    assert_eq!(
        answers,
        [
            "  start        would fail: 0000:3b:00.1: with managed='no' libvirt takes it only if it is on a VFIO driver already",
            "4",
            "  start        would work",
            "0",
            "  start        would fail: 0000:3b:00.1: domain guest has it",
            "4",
        ],
        "{}{}",
        ran.stdout,
        ran.stderr
    );
}
