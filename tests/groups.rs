// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl groups`: what stands in which group below which port, and the picture of it. What it prints of every fixture host
//! is compared in tests/fixture_outputs.rs.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::ran::{copy, script};

const GPU: &str = "gpu-shared-group";

fn vfioctl(root: &Path, arguments: &[&str]) -> Output {
    support::run(Command::new(support::VFIOCTL).arg("--root").arg(root).arg("groups").args(arguments))
}

fn json(root: &Path, arguments: &[&str]) -> Value {
    let output = vfioctl(root, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", support::transcript(&output)))
}

fn text(root: &Path, arguments: &[&str]) -> String {
    let output = vfioctl(root, arguments);
    assert!(output.status.success(), "{}", support::transcript(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What Graphviz makes of a graph, in another of its languages.
fn drawn(graph: &str, language: &str) -> String {
    let mut dot = Command::new("dot");
    dot.arg(format!("-T{language}")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut dot = dot.spawn().unwrap_or_else(|error| panic!("cannot run dot, of the package graphviz: {error}"));
    let mut input = dot.stdin.take().unwrap();
    let graph = graph.to_string();
    let writer = std::thread::spawn(move || input.write_all(graph.as_bytes()));
    let output = dot.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    // It says there what it has made a guess at.
    assert!(output.status.success() && output.stderr.is_empty(), "{}", support::transcript(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Ports with a PF behind each, and VFs in groups of their own; half of these on VFIO.
fn large(ports: usize, vfs: usize) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut add = |place: &str, id: &str, driver: &str, pf: Option<&str>| {
        let address = place.rsplit('/').next().unwrap();
        let device = root.path().join("sys/devices/pci0000:00").join(place);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("modalias"), format!("pci:{id}\n")).unwrap();
        let group = format!("sys/kernel/iommu_groups/{number}");
        let link = |to: &str, name: &Path| symlink(to, name).unwrap();
        link(&format!("../../../../{group}"), &device.join("iommu_group"));
        link(&format!("../../../../bus/pci/drivers/{driver}"), &device.join("driver"));
        pf.iter().for_each(|pf| link(&format!("../{pf}"), &device.join("physfn")));
        if driver == "vfio-pci" {
            fs::create_dir_all(device.join("vfio-dev/vfio0")).unwrap();
        }
        fs::create_dir_all(root.path().join(&group).join("devices").join(address)).unwrap();
        let bus = root.path().join("sys/bus/pci/devices");
        fs::create_dir_all(&bus).unwrap();
        link(&format!("../../../devices/pci0000:00/{place}"), &bus.join(address));
        number += 1;
    };
    for port in 0..ports {
        let (bridge, bus) = (format!("0000:00:{port:02x}.0"), 0x10 + port);
        add(&bridge, "v00008086d0000352Asv00008086sd00000000bc06sc04i00", "pcieport", None);
        let pf = format!("0000:{bus:02x}:00.0");
        add(&format!("{bridge}/{pf}"), "v000015B3d00001021sv000015B3sd00000023bc02sc00i00", "mlx5_core", None);
        for vf in 1..=vfs {
            let driver = if vf % 2 == 0 { "vfio-pci" } else { "mlx5_core" };
            let place = format!("{bridge}/0000:{bus:02x}:{:02x}.{}", vf / 8, vf % 8);
            add(&place, "v000015B3d0000101Esv000015B3sd00000023bc02sc00i00", driver, Some(&pf));
        }
    }
    root
}

#[test]
fn of_devices_the_whole_groups_are_shown_and_what_leads_there() {
    let root = support::fixtures().join(GPU);
    let document = json(&root, &["0000:02:00.0"]);
    let groups = document["groups"].as_array().unwrap();
    assert_eq!((groups.len(), groups[0]["number"].as_u64()), (1, Some(1)), "{document}");
    let members: Vec<&str> =
        groups[0]["devices"].as_array().unwrap().iter().map(|device| device["address"].as_str().unwrap()).collect();
    assert_eq!(members, ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1", "0000:00:01.1", "0000:02:00.0"]);
    assert!(document["groups"][0]["devices"][1].get("driver_override").is_none(), "it was not read");
    // Named twice, or by two of its members, a group is there once.
    assert_eq!(json(&root, &["02:00.0", "01:00.1", "0000:02:00.0"]), document);

    let connectx = support::fixtures().join("connectx");
    let document = json(&connectx, &["3b:00.2"]);
    assert_eq!(document["groups"].as_array().unwrap().len(), 1);
    assert_eq!(document["groups"][0]["ports"], serde_json::json!(["0000:3a:00.0"]));
    assert_eq!(document["groups"][0]["devices"][0]["port"], "0000:3a:00.0");
    assert_eq!(document["groups"][0]["devices"][0]["pf"], "0000:3b:00.0");
    // The port and the PF stand there without a group: they were not asked for.
    let shown = text(&connectx, &["3b:00.2"]);
    let groups: Vec<Option<u32>> =
        shown.lines().skip(1).take(3).map(|line| line.split_whitespace().next().unwrap().parse().ok()).collect();
    assert_eq!(groups, [None, None, Some(8)], "{shown}");
}

#[test]
fn a_device_that_is_not_there() {
    let root = support::fixtures().join(GPU);
    let output = vfioctl(&root, &["01:00.0", "77:00.0"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    for arguments in [&["77:00.0", "--json"][..], &["77:00.0", "--format", "json"]] {
        let output = vfioctl(&root, arguments);
        assert_eq!(output.status.code(), Some(3));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&document["command"], &document["error"]["kind"]), (&"groups".into(), &"no-device".into()));
    }
    assert_eq!(vfioctl(&root, &["--format", "dot", "--json"]).status.code(), Some(2));
}

#[test]
fn without_an_iommu_there_are_no_groups_and_that_is_said() {
    let root = support::fixtures().join("no-iommu");
    let shown = text(&root, &[]);
    assert!(shown.ends_with("'vfioctl doctor' says what is missing\n"), "{shown}");
    let document = json(&root, &[]);
    assert_eq!(document["groups"], serde_json::json!([]));
    assert_eq!(document["ungrouped"].as_array().unwrap().len(), 7);
    assert_eq!(json(&root, &["02:00.0"])["ungrouped"].as_array().unwrap().len(), 1);
    drawn(&text(&root, &["--format", "dot"]), "svg");
}

#[test]
fn a_group_of_no_iommu_is_not_ready() {
    let root = copy("connectx");
    let groups = root.path().join("sys/kernel/iommu_groups");
    let before = json(root.path(), &[]);
    let native = before["groups"].as_array().unwrap().iter().find(|group| group["state"] == "native").unwrap();
    fs::write(groups.join(native["number"].to_string()).join("name"), "vfio-noiommu\n").unwrap();
    let address = native["devices"][0]["address"].as_str().unwrap();
    let group = &json(root.path(), &[address])["groups"][0];
    assert_eq!((&group["state"], &group["is_viable"]), (&"no-iommu".into(), &false.into()));
    let shown = text(root.path(), &[address]);
    assert!(shown.contains("1 group: 1 without an IOMMU (unsafe)\n"), "{shown}");
    drawn(&text(root.path(), &["--format", "dot"]), "svg");
}

#[test]
fn a_group_that_cannot_be_read_costs_no_other_its_place() {
    let root = copy(GPU);
    let group = root.path().join("sys/kernel/iommu_groups/1");
    let before = json(root.path(), &[]);
    for spoil in [
        |group: &Path| fs::write(group.join("type"), b"\xff\n").unwrap(),
        |group: &Path| {
            let _ = fs::remove_file(group.join("reserved_regions"));
            fs::create_dir(group.join("reserved_regions")).unwrap();
        },
    ] {
        spoil(&group);
        let output = vfioctl(root.path(), &["--json"]);
        let warning = String::from_utf8_lossy(&output.stderr);
        assert!(warning.contains("iommu_groups/1/") && warning.lines().count() == 1, "{warning}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["groups"].as_array().unwrap().len(), before["groups"].as_array().unwrap().len());
    }
}

/// No VFIO driver takes a bridge, and `bind --group` passes it by.
#[test]
fn a_bridge_that_blocks_is_taken_off_its_driver() {
    let root = copy(GPU);
    let bridge = root.path().join("sys/bus/pci/devices/0000:00:01.0/driver");
    fs::remove_file(&bridge).unwrap();
    symlink("../../../../bus/pci/drivers/shpchp", &bridge).unwrap();
    let shown = text(root.path(), &["01:00.0"]);
    assert!(shown.contains("vfioctl bind --group 0000:01:00.0\n"), "{shown}");
    assert!(shown.contains("echo 0000:00:01.0 > /sys/bus/pci/drivers/shpchp/unbind\n"), "{shown}");
}

#[test]
fn a_host_without_devices_says_so() {
    let root = copy(GPU);
    fs::remove_dir_all(root.path().join("sys/bus/pci/devices")).unwrap();
    fs::create_dir(root.path().join("sys/bus/pci/devices")).unwrap();
    assert_eq!(text(root.path(), &[]), "There is no PCI device here\n");
}

/// What is bound shows: the group that is half given blocks, and says what to do; done, it is ready.
#[test]
fn a_group_is_blocked_until_all_of_it_is_given() {
    let ran = script(
        GPU,
        &[],
        "vfioctl bind --no-save 0000:01:00.0 >/dev/null 2>&1; vfioctl groups 01:00.0; \
         vfioctl bind --no-save --force=root-disk,disk,sound,network,session 0000:01:00.1 0000:02:00.0 >/dev/null 2>&1; vfioctl groups 01:00.0; \
         vfioctl show 01:00.0 --json",
    );
    let (before, rest) = ran.stdout.split_once("1 group: 1 blocked (partly on VFIO)\n").unwrap_or_else(|| {
        panic!("{}{}", ran.stdout, ran.stderr);
    });
    assert!(
        before.contains(
            "Group 1: no VM can have it while 0000:01:00.1 is on snd_hda_intel and 0000:02:00.0 is on nvme\n"
        ),
        "{before}"
    );
    assert!(before.contains("vfioctl bind --group 0000:01:00.0"), "{before}");
    let (after, shown) = rest.split_once("1 group: 1 ready for a VM (3 devices)\n").unwrap_or_else(|| {
        panic!("{}{}", ran.stdout, ran.stderr);
    });
    assert_eq!(after.matches("ready").count(), 5, "{after}");
    // Both commands tell the same of a group.
    let shown: Value = serde_json::from_str(shown).unwrap();
    assert_eq!(shown["group"]["blocked_by"], serde_json::json!([]));
}

#[test]
fn whatever_a_driver_is_called_the_graph_has_its_boxes_and_no_other() {
    let root = copy("connectx");
    let driver = root.path().join("sys/bus/pci/devices/0000:02:00.0/driver");
    for name in ["x\"]; a -> b [label=\"", "\\N\\", "&lt;&amp;", "<b>", "}", "\u{1b}[2J\u{202e}"] {
        fs::remove_file(&driver).unwrap();
        symlink(format!("../../../../bus/pci/drivers/{name}"), &driver).unwrap();
        let graph = text(root.path(), &["--format", "dot"]);
        assert!(!graph.contains(['\u{1b}', '\u{202e}']), "{graph}");
        let picture = drawn(&graph, "svg");
        assert_eq!(picture.matches("class=\"node\"").count(), 11, "{name}: {picture}");
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(&picture, options).unwrap();
        let name: String =
            name.chars().map(|c| if matches!(c, '\u{1b}' | '\u{202e}') { '\u{fffd}' } else { c }).collect();
        let is_there = document.descendants().filter_map(|node| node.text()).any(|text| text.contains(&name));
        assert!(is_there, "{name}: {picture}");
    }
}

#[test]
fn a_picture_of_five_hundred_functions_can_be_looked_at() {
    let root = large(8, 62);
    let shown = text(root.path(), &[]);
    assert!(
        shown.contains("\n512 groups: 248 ready for a VM (248 devices), 256 native"),
        "{}",
        &shown[shown.len() - 200..]
    );
    assert!(shown.lines().all(|line| line.len() < 200), "{shown}");
    let picture = text(root.path(), &["--format", "svg"]);
    assert_eq!(picture.matches("class=\"node\"").count(), 512);
    let side = |name: &str| -> f64 {
        let (_, rest) = picture.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once("pt").unwrap().0.parse().unwrap()
    };
    let (width, height) = (side("<svg width"), side(" height"));
    assert!(width < 6000.0 && height < 6000.0, "{width} by {height} points");
    // Each box has its own place, and each its text.
    let plain = drawn(&text(root.path(), &["--format", "dot"]), "plain");
    let places: BTreeSet<(&str, &str)> = plain
        .lines()
        .filter_map(|line| line.strip_prefix("node \""))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[1], words[2])
        })
        .collect();
    assert_eq!(places.len(), 512);
}

/// Programs called dot, and what becomes of a picture with them.
#[test]
fn graphviz_that_is_not_there_fails_or_does_not_end() {
    let root = support::fixtures().join(GPU);
    let programs = tempfile::tempdir().unwrap();
    let dot = programs.path().join("dot");
    let run = |text: &str| {
        fs::write(&dot, text).unwrap();
        fs::set_permissions(&dot, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(support::VFIOCTL);
        command.arg("--root").arg(&root).args(["groups", "--format", "svg", "--timeout", "0.5"]);
        let output = support::run(command.env("PATH", programs.path()));
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run("#!/bin/sh\necho 'no such layout' >&2\nexit 3\n");
    assert!(said.contains("could not draw it") && said.contains("no such layout"), "{said}");
    let said = run("#!/bin/sh\nexec sleep 60\n");
    assert!(said.contains("still ran after 0.5 s") && said.contains("--format dot"), "{said}");

    let is_root = rustix::process::geteuid().is_root();
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.arg(if is_root { "--mount" } else { "--map-root-user" }).arg("--mount");
    command.args(["sh", "-ec", "mount --bind \"$1\" /usr/bin; shift; exec \"$@\"", "sh"]).arg(empty.path());
    command.arg(support::VFIOCTL).arg("--root").arg(&root).args(["groups", "--format", "svg"]);
    let output = support::run(command.env("PATH", "/usr/bin:/bin"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Graphviz is not installed") && said.contains("--format dot"), "{said}");
}
