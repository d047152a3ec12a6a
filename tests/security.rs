// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program does with what others have put in its way: names that would leave their directory, files that are none,
//! text that steers a terminal, rights that were lent. SECURITY.md says what is promised.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::ran;
use vfioctl::printable::is_plain;

/// A device of the fixture, and its directory.
const DEVICE: &str = "0000:02:00.0";

/// Clears the screen and sets the title; then a C1 control, what turns words around, what does not show, and what would pass
/// for a line of ours.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\u{200b}";

fn device(host: &Path) -> std::path::PathBuf {
    fs::canonicalize(host.join("sys/bus/pci/devices").join(DEVICE)).unwrap()
}

fn vfioctl(host: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(support::VFIOCTL);
    in_time(command.arg("--root").arg(host).args(arguments))
}

/// Runs a command that is not to wait for anybody.
fn in_time(command: &mut Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut streams = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdout = thread::spawn(move || {
        let mut bytes = Vec::new();
        streams.0.read_to_end(&mut bytes).map(|_| bytes)
    });
    let stderr = thread::spawn(move || {
        let mut bytes = Vec::new();
        streams.1.read_to_end(&mut bytes).map(|_| bytes)
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("{command:?} waits");
        }
        thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: stdout.join().unwrap().unwrap(), stderr: stderr.join().unwrap().unwrap() }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn fifo(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

// ---- names

#[test]
fn a_name_that_would_leave_its_directory_is_none() {
    let host = ran::copy("virtio-guest");
    for arguments in [
        &["--kernel", "../../../etc", "list"][..],
        &["--kernel", "..", "list"],
        &["--kernel", "/etc", "list"],
        &["show", "../../../../etc/passwd"],
        &["show", "0000:02:00.0/../x"],
        &["bind", "--dry-run", "--driver", "../vfio-pci", DEVICE],
        &["list", "--driver", "../../x"],
        &["match", "--modalias", "../x"],
    ] {
        let output = vfioctl(host.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
    }
    // What is called the release is no path, whoever wrote it there.
    write(&host.path().join("proc/sys/kernel/osrelease"), "../../../etc\n");
    let output = vfioctl(host.path(), &["list"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("'../../../etc' is not a kernel release"), "{}", text(&output));
}

#[test]
fn files_name_no_driver_by_a_path() {
    let host = ran::copy("virtio-guest");
    let policy = host.path().join("etc/vfioctl.d/90-x.toml");
    write(&policy, &format!("[[device]]\naddress = \"{DEVICE}\"\ndriver = \"../../../tmp/x\"\n"));
    let output = vfioctl(host.path(), &["apply", "--dry-run", DEVICE]);
    assert!(text(&output).contains("90-x.toml: TOML parse error"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1));
    fs::remove_file(policy).unwrap();

    let driverctl = host.path().join("etc/driverctl.d");
    write(&driverctl.join("pci-0000:02:00.0"), "../../x\n");
    write(&driverctl.join("pci-..:02:00.0"), "vfio-pci\n");
    let output = vfioctl(host.path(), &["import-driverctl", "--dry-run", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((document["results"].as_array().unwrap().len(), document["left"].as_array().unwrap().len()), (0, 2));

    // What the hook has written down, had somebody else written it.
    let uuid = "5e1d0e5c-0d5f-4d54-9f1b-3f4f2c3a1b00";
    for (driver, address) in [("../x", DEVICE), ("vfio-pci", "../../x")] {
        let state = format!(
            "{{\"schema\":1,\"uuid\":\"{uuid}\",\"name\":\"x\",\"devices\":[{{\"address\":\"{address}\",\
             \"incarnation\":null,\"driver\":\"{driver}\",\"before\":null,\"prepared\":[]}}]}}"
        );
        write(&host.path().join(format!("run/vfioctl/libvirt/{uuid}.json")), &state);
        let xml = host.path().join("domain.xml");
        write(&xml, "<domain><name>x</name></domain>");
        let output = vfioctl(host.path(), &["libvirt", "check", xml.to_str().unwrap()]);
        assert!(text(&output).contains(&format!("cannot read {}", host.path().display())), "{}", text(&output));
    }
}

#[test]
fn a_link_in_sysfs_names_one_thing() {
    let host = ran::copy("virtio-guest");
    let driver = device(host.path()).join("driver");
    for (target, expected) in [("../../../../../etc/passwd", "passwd"), ("../..", "null"), ("/", "null")] {
        let _ = fs::remove_file(&driver);
        symlink(target, &driver).unwrap();
        let output = vfioctl(host.path(), &["show", "--json", DEVICE]);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert_eq!(document["device"]["driver"].to_string().trim_matches('"'), expected, "{}", text(&output));
    }
}

// ---- files

/// Nothing is waited for, whatever is a FIFO.
#[test]
fn a_fifo_is_not_waited_for() {
    for place in [
        "proc/sys/kernel/osrelease",
        "etc/vfioctl.d/0000:02:00.0.toml",
        "etc/vfioctl.d/50-x.toml",
        "etc/modprobe.d/x.conf",
        "etc/driverctl.d/pci-0000:02:00.0",
        "etc/libvirt/hooks/qemu",
        "run/vfioctl/libvirt/x.json",
        "modalias",
        "driver_override",
        "modules.alias",
        "modules.builtin",
        "modules.dep",
        "modules.builtin.modinfo",
    ] {
        let host = ran::copy("virtio-guest");
        let release = fs::read_to_string(host.path().join("proc/sys/kernel/osrelease")).unwrap();
        let path = match place {
            "modalias" | "driver_override" => device(host.path()).join(place),
            name if name.starts_with("modules.") => host.path().join("lib/modules").join(release.trim_end()).join(name),
            path => host.path().join(path),
        };
        fifo(&path);
        let xml = host.path().join("domain.xml");
        write(&xml, "<domain><name>x</name></domain>");
        for arguments in [
            &["list"][..],
            &["show", DEVICE],
            &["drivers"],
            &["bind", "--dry-run", DEVICE],
            &["unbind", "--dry-run", DEVICE],
            &["apply", "--dry-run"],
            &["import-driverctl", "--dry-run"],
            &["libvirt", "check", xml.to_str().unwrap()],
        ] {
            vfioctl(host.path(), arguments);
        }
    }
}

#[test]
fn what_is_too_long_is_not_read() {
    let host = ran::copy("virtio-guest");
    let longer_than_anybody_writes = fs::File::create(host.path().join("etc/vfioctl.d/99-long.toml")).unwrap();
    // All of it holes: it costs nothing but the time of who reads it.
    longer_than_anybody_writes.set_len(1 << 40).unwrap();
    let attribute = fs::File::create(device(host.path()).join("modalias")).unwrap();
    attribute.set_len(1 << 40).unwrap();
    let output = vfioctl(host.path(), &["list"]);
    let text = text(&output);
    assert!(text.contains("99-long.toml: it is longer than 16777216 bytes"), "{text}");
    assert!(text.contains("modalias: it is longer than 1048576 bytes"), "{text}");
}

// ---- text

/// A host of which everything that can be called anything is called so.
fn hostile_host() -> tempfile::TempDir {
    let host = ran::copy("virtio-guest");
    let root = host.path();
    let device = device(root);
    write(&device.join("driver_override"), &format!("{HOSTILE}\n"));
    let driver = format!("evil{HOSTILE}");
    fs::create_dir_all(root.join("sys/bus/pci/drivers").join(&driver)).unwrap();
    let _ = fs::remove_file(device.join("driver"));
    symlink(root.join("sys/bus/pci/drivers").join(&driver), device.join("driver")).unwrap();
    let name = format!("20-{HOSTILE}.toml");
    write(&root.join("etc/vfioctl.d").join(name), &format!("x = '{}'\n", HOSTILE.replace('\u{7}', "")));
    write(&root.join("etc/vfioctl.d/21-x.toml"), "[[device]]\nid = \"\\u001b[2J\\u202e\"\ndriver = \"auto\"\n");
    write(&root.join(format!("etc/modprobe.d/{HOSTILE}.conf")), "blacklist vfio_pci\n");
    write(&root.join(format!("etc/driverctl.d/pci-{HOSTILE}")), HOSTILE);
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap();
    let alias = root.join("lib/modules").join(release.trim_end()).join("modules.alias");
    let table = fs::read_to_string(&alias).unwrap();
    fs::write(&alias, format!("{table}alias vfio_pci:v{HOSTILE} x{HOSTILE}\n")).unwrap();
    write(
        &root.join("domain.xml"),
        "<domain><name>a&#x9b;31m&#x202e;</name><devices><hostdev mode='subsystem' type='pci' managed='no'>\
         <driver name='vfio' model='x&#x9b;'/><source><address domain='0' bus='2' slot='0' function='0'/></source>\
         </hostdev></devices></domain>",
    );
    // Who holds the device has a name of its own choice.
    write(&root.join("proc/4711/comm"), &format!("{}\n", &HOSTILE[..4]));
    fs::create_dir_all(root.join("proc/4711/fd")).unwrap();
    let group = fs::read_link(device.join("iommu_group")).ok();
    if let Some(group) = group.and_then(|path| Some(path.file_name()?.to_str()?.to_string())) {
        symlink(format!("/dev/vfio/{group}"), root.join("proc/4711/fd/3")).unwrap();
    }
    host
}

/// What is left where our own styles are taken away.
fn without_styles(text: &str) -> String {
    let styles = ["\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"];
    styles.iter().fold(text.to_string(), |text, style| text.replace(style, ""))
}

#[test]
fn nothing_foreign_steers_a_terminal() {
    let host = hostile_host();
    let xml = host.path().join("domain.xml");
    let mut replaced = 0;
    for arguments in [
        &["list", "-v"][..],
        &["show", DEVICE],
        &["match", DEVICE],
        &["explain", "-v", DEVICE],
        &["drivers"],
        &["bind", "--dry-run", DEVICE],
        &["unbind", "--dry-run", DEVICE],
        &["apply", "--dry-run"],
        &["claim", "--dry-run"],
        &["import-driverctl", "--dry-run"],
        &["libvirt", "check", xml.to_str().unwrap()],
        &["libvirt", "xml", DEVICE],
        &["driverctl", "-v", "list-devices"],
        &["driverctl", "list-overrides"],
        &["sriov"],
        &["show", HOSTILE],
        &["bind", "--driver", HOSTILE, DEVICE],
        &["--kernel", HOSTILE, "list"],
    ] {
        for color in ["always", "never"] {
            let output = vfioctl(host.path(), &[&["--color", color], arguments].concat());
            let text = text(&output);
            let plain = if color == "always" { without_styles(&text) } else { text.clone() };
            let bad: Vec<char> = plain.chars().filter(|&c| c != '\n' && !is_plain(c)).collect();
            assert!(bad.is_empty(), "{arguments:?} {color}: {bad:?} in {text:?}");
            replaced += text.matches('\u{fffd}').count();
        }
        let output = vfioctl(host.path(), &[&["--json"], arguments].concat());
        let text = text(&output);
        assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "{arguments:?} --json: {text:?}");
    }
    assert!(replaced > 50, "the host is not as hostile as it should be: {replaced}");
}

#[test]
fn json_says_exactly_what_is_there() {
    let host = hostile_host();
    let output = vfioctl(host.path(), &["show", "--json", DEVICE]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["device"]["driver_override"], HOSTILE);
    assert_eq!(document["device"]["driver"], format!("evil{HOSTILE}"));
}

// ---- rights

/// Whoever made it set-user-ID would hand root to everybody: it does nothing then.
#[test]
fn lent_rights_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("vfioctl");
    support::copy_program(Path::new(support::VFIOCTL), &program);
    let run = |mode, uid| {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        in_time(Command::new(&program).arg("--version").uid(uid).gid(uid))
    };
    if rustix::process::geteuid().is_root() {
        for mode in [0o4755, 0o2755] {
            let output = run(mode, 65534);
            assert_eq!(output.status.code(), Some(6), "{mode:o}: {}", text(&output));
            assert!(text(&output).contains("rights that its user does not have"), "{}", text(&output));
        }
        assert!(run(0o755, 65534).status.success());
        assert!(run(0o4755, 0).status.success(), "root lends itself nothing");
    } else {
        // Only root can be another user: a user's own set-user-ID program has what the user has.
        let own = rustix::process::geteuid().as_raw();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(in_time(Command::new(&program).arg("--version").uid(own)).status.success());
    }
}

// ---- code

/// The only file with unsafe code, and the one line elsewhere that a trait has so.
#[test]
fn unsafe_code_is_in_one_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The compiler refuses it everywhere else.
    for (file, setting) in [
        ("Cargo.toml", "[workspace.lints.rust]\nunsafe_code = \"deny\""),
        ("Cargo.toml", "[lints]\nworkspace = true"),
        ("tests/simhost/Cargo.toml", "[lints]\nworkspace = true"),
        ("benches/bare/Cargo.toml", "[lints]\nworkspace = true"),
    ] {
        assert!(fs::read_to_string(root.join(file)).unwrap().contains(setting), "{file}: {setting}");
    }
    let mut allowed = Vec::new();
    for directory in ["src", "tests/simhost/src", "benches/bare/src"] {
        for entry in walkdir::WalkDir::new(root.join(directory)).sort_by_file_name() {
            let path = entry.unwrap().into_path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let count = fs::read_to_string(&path).unwrap().matches("(unsafe_code)").count();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                allowed.extend((count > 0).then_some((name, count)));
            }
        }
    }
    assert_eq!(allowed, [("src/sysfs/node.rs".to_string(), 1), ("src/vfio/ioctl.rs".to_string(), 1)]);
    // Each with its reason right above.
    let file = fs::read_to_string(root.join("src/vfio/ioctl.rs")).unwrap();
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    let mut reviewed = 0;
    for (number, line) in lines.iter().enumerate() {
        if line.contains("unsafe {") || line.starts_with("unsafe impl") {
            reviewed += 1;
            let above = lines[..number].iter().rev().take_while(|line| line.starts_with("//"));
            let mut above = above;
            assert!(above.any(|line| line.starts_with("// SAFETY: ")), "no reason above line {}", number + 1);
        }
    }
    assert_eq!(reviewed, 10, "SECURITY.md says how many there are");
}
