// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every fixture host through every command and both formats, as a user runs them; what is printed is compared whole with
//! `tests/fixtures/HOST/expected/`. UPDATE_EXPECTED=1 writes these files anew.
//!
//! Hardware names come from the machine's hwdb whatever the root, so the commands run in a mount namespace of their own
//! where `tests/fixtures/hwdb.bin` is that hwdb. This takes root or a user namespace.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where libudev looks, in its order (systemd, `src/libsystemd/sd-hwdb/sd-hwdb.c`).
const HWDB: [&str; 6] = [
    "/etc/systemd/hwdb/hwdb.bin",
    "/etc/udev/hwdb.bin",
    "/usr/lib/systemd/hwdb/hwdb.bin",
    "/lib/systemd/hwdb/hwdb.bin",
    "/usr/lib/udev/hwdb.bin",
    "/lib/udev/hwdb.bin",
];

/// Runs commands, one a line, where the fixtures' hwdb is the machine's; gives their transcripts.
fn run(host: &str, arguments: &[&str]) -> String {
    run_on(Stdio::null(), host, arguments)
}

/// The same with something on standard input.
fn run_on(input: Stdio, host: &str, arguments: &[&str]) -> String {
    let hwdb = HWDB.iter().find(|path| Path::new(path).exists());
    let hwdb =
        hwdb.expect("no hwdb.bin on this machine: install the package udev (on Debian 13: systemd-hwe-hwdb and udev)");
    let is_root = rustix::process::geteuid().is_root();
    let mut command = Command::new("unshare");
    command
        .arg(if is_root { "--mount" } else { "--map-root-user" })
        .arg("--mount")
        .args(["sh", "-ec", "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"", "sh"])
        .arg(support::fixtures().join("hwdb.bin"))
        .arg(hwdb)
        .args([support::VFIOCTL, "--root", host])
        .args(arguments)
        .current_dir(support::fixtures())
        .stdin(input);
    support::transcript(&support::run(&mut command))
}

/// The devices of a host, in bus order.
fn devices(host: &str) -> Vec<String> {
    let directory = support::fixtures().join(host).join("sys/bus/pci/devices");
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn for_every_device(host: &str, arguments: &[&str]) -> String {
    let mut text = String::new();
    for address in devices(host) {
        let arguments: Vec<&str> = arguments.iter().copied().chain([address.as_str()]).collect();
        text.push_str(&format!("$ vfioctl {}\n{}\n", arguments.join(" "), run(host, &arguments)));
    }
    text
}

fn compare(host: &str, name: &str, actual: &str) -> Result<(), String> {
    let path = support::fixtures().join(host).join("expected").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
        return Ok(());
    }
    let expected = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if expected == actual {
        return Ok(());
    }
    let line = expected.lines().zip(actual.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or(expected.lines().count().min(actual.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_string();
    Err(format!("{}:{}:\n  expected {}\n  got      {}", path.display(), line + 1, at(&expected), at(actual)))
}

fn check(name: &str, produce: impl Fn(&str) -> String) {
    let failures: Vec<String> =
        support::hosts().iter().filter_map(|host| compare(host, name, &produce(host)).err()).collect();
    assert!(failures.is_empty(), "\n{}\n(UPDATE_EXPECTED=1 writes the expected outputs anew)", failures.join("\n"));
}

#[test]
fn list() {
    check("list.txt", |host| run(host, &["list"]));
    check("list.json", |host| run(host, &["list", "--json"]));
}

#[test]
fn drivers() {
    check("drivers.txt", |host| run(host, &["drivers"]));
    check("drivers.json", |host| run(host, &["drivers", "--json"]));
}

#[test]
fn doctor() {
    check("doctor.txt", |host| run(host, &["doctor", "-v"]));
    check("doctor.json", |host| run(host, &["doctor", "--json"]));
}

#[test]
fn show() {
    check("show.txt", |host| for_every_device(host, &["show"]));
    check("show.json", |host| for_every_device(host, &["show", "--json"]));
}

#[test]
fn explain() {
    check("explain.txt", |host| for_every_device(host, &["explain", "-v"]));
    check("explain.json", |host| for_every_device(host, &["explain", "--json"]));
}

#[test]
fn matching() {
    check("match.txt", |host| for_every_device(host, &["match"]));
    check("match.json", |host| for_every_device(host, &["match", "--json"]));
}

#[test]
fn planned_binds() {
    check("bind-dry-run.txt", |host| for_every_device(host, &["bind", "--dry-run"]));
    check("bind-dry-run.json", |host| for_every_device(host, &["bind", "--dry-run", "--json"]));
}

#[test]
fn planned_unbinds() {
    check("unbind-dry-run.txt", |host| for_every_device(host, &["unbind", "--dry-run"]));
    check("unbind-dry-run.json", |host| for_every_device(host, &["unbind", "--dry-run", "--json"]));
}

#[test]
fn planned_probes() {
    check("probe-dry-run.txt", |host| for_every_device(host, &["probe", "--dry-run"]));
    check("probe-dry-run.json", |host| for_every_device(host, &["probe", "--dry-run", "--json"]));
}

#[test]
fn planned_policy() {
    check("apply-dry-run.txt", |host| run(host, &["apply", "--dry-run"]));
    check("apply-dry-run.json", |host| run(host, &["apply", "--dry-run", "--json"]));
}

/// Not the one of the machine on which the test runs.
const LIBVIRT: [&str; 2] = ["--libvirt-version", "11.3.0"];

#[test]
fn libvirts_xml() {
    let [option, version] = LIBVIRT;
    check("libvirt-xml.txt", |host| for_every_device(host, &["libvirt", "xml", option, version]));
    check("libvirt-xml.json", |host| for_every_device(host, &["libvirt", "xml", option, version, "--json"]));
}

/// A domain for each device; of every other one libvirt is not the master.
fn for_every_domain(host: &str, arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for (number, address) in devices(host).into_iter().enumerate() {
        let managed = if number % 2 == 0 { "yes" } else { "no" };
        let fields: Vec<&str> = address.split([':', '.']).collect();
        let [domain, bus, slot, function] = fields.as_slice() else { panic!("{address}") };
        let xml = format!(
            "<domain>\n  <name>guest{number}</name>\n  <devices>\n    <hostdev mode='subsystem' type='pci' managed='{managed}'>\n      \
             <source><address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source>\n    \
             </hostdev>\n  </devices>\n</domain>\n"
        );
        let file = directory.path().join("domain.xml");
        fs::write(&file, xml).unwrap();
        let [option, version] = LIBVIRT;
        let own = ["libvirt", "check", option, version, "-"];
        let arguments: Vec<&str> = own.iter().chain(arguments).copied().collect();
        text.push_str(&format!(
            "$ vfioctl libvirt check - (managed='{managed}')\n{}\n",
            run_on(File::open(&file).unwrap().into(), host, &arguments)
        ));
    }
    text
}

#[test]
fn libvirts_starts() {
    check("libvirt-check.txt", |host| for_every_domain(host, &[]));
    check("libvirt-check.json", |host| for_every_domain(host, &["--json"]));
}

#[test]
fn filters() {
    let filters: [&[&str]; 6] = [
        &["list", "--class", "network"],
        &["list", "--class", "0108"],
        &["list", "--driver", "none"],
        &["list", "--driver", "vfio_pci"],
        &["list", "--group", "1"],
        &["list", "--vfio"],
    ];
    check("filters.txt", |host| {
        let mut text = String::new();
        for filter in filters {
            text.push_str(&format!("$ vfioctl {}\n{}\n", filter.join(" "), run(host, filter)));
        }
        text
    });
}
