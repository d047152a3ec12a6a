// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl initramfs`: what an image is told of the policy, and what the script made of it does on a simulated host. Real
//! images are made and booted by tests/vm (`early_boot`).

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use vfioctl::builder::Builder;
use walkdir::WalkDir;

use support::ran::{Ran, copy, script};

const POLICY: &str = "
    [[device]]\nclass = 'nvme'\ndriver = 'auto'
    [[device]]\nid = '8086:1533'\nsubsystem = '15d9:1533'\ndriver = 'none'
    [[device]]\naddress = '00:02.0'\ndriver = 'auto'
    [[device]]\naddress = '09:00.0'\nid = '10de:2204'\ndriver = 'vfio_pci'
    [[device]]\naddress = '0a:00.0'\ndriver = 'auto'
    [[device]]\naddress = '00:1c.0'\ndriver = 'auto'
    [[device]]\npf = '05:00.0'\ndriver = 'auto'";

/// A server with its root on one NVMe disk and its swap on the other, with a policy.
fn host(policy: &str) -> tempfile::TempDir {
    let host = copy("in-use");
    let directory = host.path().join("etc/vfioctl.d");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("50-test.toml"), policy).unwrap();
    host
}

fn initramfs(host: &Path, arguments: &[&str]) -> Output {
    support::run(Command::new(support::VFIOCTL).arg("--root").arg(host).arg("initramfs").args(arguments))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_here_comes_first_then_what_the_rules_say_of_others() {
    let host = host(POLICY);
    let output = initramfs(host.path(), &["--json"]);
    // A bridge and what the host lives on are refused.
    assert_eq!(output.status.code(), Some(4));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["schema"], &document["command"]), (&json!(1), &json!("initramfs")));
    assert_eq!(document["release"], "6.1.0-56-amd64");
    let claims = document["claims"].as_array().unwrap().iter().map(|claim| {
        let key = |name: &str| claim[name].as_str().unwrap_or("*").to_string();
        let names = ["address", "vendor", "device", "subsystem_vendor", "subsystem_device", "class", "driver"];
        names.map(key).join(" ")
    });
    assert_eq!(
        claims.collect::<Vec<_>>(),
        [
            "0000:00:02.0 8086 3e9a 15d9 1c72 * vfio-pci",
            "0000:00:1c.0 8086 a331 15d9 1c72 * *",
            "0000:01:00.0 144d a80a 144d a801 * *",
            "0000:02:00.0 144d a80a 144d a801 * *",
            // Nothing of class 0108 in general, of 0000:0a:00.0 and of VFs.
            "0000:09:00.0 10de 2204 * * * vfio-pci",
            "* 8086 1533 15d9 1533 * none",
        ]
    );
    let errors: Vec<&str> =
        document["errors"].as_array().unwrap().iter().map(|error| error["message"].as_str().unwrap()).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[1].starts_with("0000:01:00.0 (root-disk): / (ext4) is mounted from nvme0n1p2"), "{errors:?}");
    assert!(errors[2].starts_with("0000:02:00.0 (root-disk): the system swaps to nvme1n1p2"), "{errors:?}");
    assert_eq!(document["errors"][1]["findings"][0]["kind"], "root-disk");
    let said = text(&output.stderr);
    assert!(said.contains("no device 0000:0a:00.0 here, and no id to know it by"), "{said}");
    assert!(said.contains("a device too that this host cannot do without"), "{said}");
}

/// Both say the same of the same devices; the words are those of sysfs.
#[test]
fn script_and_rules_are_made_of_the_same_lines() {
    let host = host(POLICY);
    let printed = |format: &[&str]| text(&initramfs(host.path(), format).stdout);
    let script = printed(&[]);
    assert_eq!(script, printed(&["--format", "script"]));
    let lines: Vec<&str> = script.lines().filter(|line| line.contains("0x")).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "*/0x0604* | */0x0607*) continue ;;",
            "0000:00:02.0/0x8086/0x3e9a/0x15d9/0x1c72/*) driver=vfio-pci ;;",
            "0000:00:1c.0/0x8086/0xa331/0x15d9/0x1c72/*) continue ;;",
            "0000:01:00.0/0x144d/0xa80a/0x144d/0xa801/*) continue ;;",
            "0000:02:00.0/0x144d/0xa80a/0x144d/0xa801/*) continue ;;",
            "0000:09:00.0/0x10de/0x2204/*/*/*) driver=vfio-pci ;;",
            "*/0x8086/0x1533/0x15d9/0x1533/*) driver=none ;;",
        ]
    );
    let rules = printed(&["--format", "rules"]);
    let lines: Vec<&str> = rules.lines().filter(|line| line.contains("0x")).collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[0], r#"ATTR{class}=="0x0604*|0x0607*", GOTO="vfioctl_initramfs_end""#);
    assert_eq!(
        lines[5..],
        [
            r#"KERNEL=="0000:09:00.0", ATTR{vendor}=="0x10de", ATTR{device}=="0x2204", ATTR{driver_override}="vfio-pci", ENV{MODALIAS}="", GOTO="vfioctl_initramfs_end""#,
            r#"ATTR{vendor}=="0x8086", ATTR{device}=="0x1533", ATTR{subsystem_vendor}=="0x15d9", ATTR{subsystem_device}=="0x1533", ATTR{driver_override}="none", ENV{MODALIAS}="", GOTO="vfioctl_initramfs_end""#,
        ]
    );
    // What udev makes of the rules tests/vm asks it.
    let file = host.path().join("claim");
    fs::write(&file, script).unwrap();
    let output = support::run(Command::new("shellcheck").arg(&file));
    assert!(output.status.success(), "{}", support::transcript(&output));
}

#[test]
fn without_a_choice_there_is_nothing_for_the_image() {
    let host = copy("in-use");
    for format in ["script", "rules"] {
        let output = initramfs(host.path(), &["--format", format]);
        assert_eq!(
            (output.status.code(), text(&output.stdout), text(&output.stderr)),
            (Some(0), String::new(), String::new())
        );
    }
    // Nor where all that is left to say is what to leave alone.
    let host = self::host("[[device]]\nclass = 'nvme'\ndriver = 'auto'");
    let output = initramfs(host.path(), &[]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(4), String::new()));
}

/// Each for a reason of its own; the exit status is the highest.
#[test]
fn what_cannot_be_claimed_is_left_alone_and_said() {
    let gpu = "[[device]]\naddress = '00:02.0'\ndriver = 'auto'\n";
    for (driver, status, said) in [
        ("auto", 4, "driverctl keeps an override for it"),
        ("nosuch", 5, "no driver nosuch"),
        ("mlx5_vfio_pci", 5, "no driver mlx5_vfio_pci"),
    ] {
        let host = host(&format!("{gpu}[[device]]\nid = '8086:1533'\ndriver = '{driver}'"));
        if driver == "auto" {
            fs::create_dir_all(host.path().join("etc/driverctl.d")).unwrap();
            for address in ["0000:03:00.0", "0000:04:00.0", "0000:05:00.0"] {
                fs::write(host.path().join("etc/driverctl.d").join(format!("pci-{address}")), "vfio-pci\n").unwrap();
            }
        }
        let output = initramfs(host.path(), &[]);
        let (script, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{driver}: {stderr}");
        // What names no device is said once.
        assert_eq!(stderr.matches(said).count(), if driver == "auto" { 3 } else { 1 }, "{driver}: {stderr}");
        assert!(script.contains("0000:00:02.0/") && script.contains(") driver=vfio-pci ;;"), "{driver}: {script}");
        for address in ["0000:03:00.0", "0000:04:00.0", "0000:05:00.0"] {
            assert!(script.lines().any(|line| line.contains(address) && line.ends_with(") continue ;;")), "{script}");
        }
    }
}

/// The others count all the same.
#[test]
fn a_file_that_is_no_policy_is_named_and_costs_the_exit_status() {
    let host = host("[[device]]\naddress = '05:00.0'\ndriver = 'auto'");
    fs::write(host.path().join("etc/vfioctl.d/40-broken.toml"), "[[device]\n").unwrap();
    let output = initramfs(host.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("0000:05:00.0/0x8086/0x1533/"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("40-broken.toml"), "{}", text(&output.stderr));
}

/// The script's lines but for that about bridges.
fn lines(output: &Output) -> Vec<String> {
    let script = text(&output.stdout);
    let lines = script.lines().filter(|line| line.contains("0x") && !line.contains("0x0604"));
    lines.map(|line| line.trim().to_string()).collect()
}

const DISPLAY: &str = "[[device]]\nclass = 'display'\ndriver = 'auto'\n";
const UNSEEN: &str = "and a rule without an address may be about it: nothing of that rule is in the image";

/// As where an image for another machine is made: what the rules say by themselves, unless it may be about the root disk.
#[test]
fn without_sysfs_no_rule_may_be_about_the_root_disk() {
    let host = host(&format!("{POLICY}\n{DISPLAY}"));
    fs::remove_dir_all(host.path().join("sys")).unwrap();
    let output = initramfs(host.path(), &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert_eq!(
        lines(&output),
        ["0000:09:00.0/0x10de/0x2204/*/*/*) driver=vfio-pci ;;", "*/*/*/*/*/0x03*) driver=none ;;"]
    );
    assert!(said.contains("sys/bus/pci/devices is not there"), "{said}");
    // Two such rules, one file.
    assert_eq!(said.matches(UNSEEN).count(), 1, "{said}");
}

/// As in a container: the devices are there, and the root file system is none of theirs.
#[test]
fn where_the_root_disk_is_not_seen_no_rule_may_be_about_it() {
    let host = host(&format!("{POLICY}\n{DISPLAY}"));
    let container = "22 1 0:50 / / rw - overlay overlay rw,lowerdir=/var/lib/x/lower,upperdir=/var/lib/x/upper\n\
                     23 22 259:1 /hosts /etc/hosts rw - ext4 /dev/nvme0n1p1 rw\n";
    fs::write(host.path().join("proc/self/mountinfo"), container).unwrap();
    let output = initramfs(host.path(), &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    let lines = lines(&output);
    assert_eq!(lines.last().unwrap(), "*/*/*/*/*/0x03*) driver=none ;;");
    for here in ["0000:01:00.0", "0000:02:00.0", "0000:05:00.0"] {
        assert!(!lines.iter().any(|line| line.contains(here) && line.contains("driver=")), "{here}: {lines:?}");
    }
    // What was meant.
    assert!(lines.iter().any(|line| line.starts_with("0000:00:02.0/") && line.ends_with("driver=vfio-pci ;;")));
    assert!(!lines.iter().any(|line| line.contains("0x0108") || line.starts_with("*/0x8086/0x1533")), "{lines:?}");
    assert_eq!(said.matches(UNSEEN).count(), 1, "{said}");
    // Without such a rule there is nothing to miss.
    let host = self::host("[[device]]\naddress = '05:00.0'\ndriver = 'auto'");
    fs::write(host.path().join("proc/self/mountinfo"), container).unwrap();
    assert_eq!(initramfs(host.path(), &[]).status.code(), Some(0));
}

/// What fstab(5) has without `nofail` the next start waits for. Other uses begin anew by then: they are named.
#[test]
fn what_is_mounted_is_left_alone_unless_the_rule_says_otherwise() {
    let disk = "[[device]]\naddress = '02:00.0'\ndriver = 'auto'\n";
    for (rule, status, is_claimed) in [(disk.to_string(), 4, false), (format!("{disk}force = ['disk']"), 0, true)] {
        let host = host(&rule);
        fs::write(host.path().join("proc/swaps"), "Filename\tType\tSize\tUsed\tPriority\n").unwrap();
        let output = initramfs(host.path(), &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert_eq!(lines(&output).iter().any(|line| line.ends_with("driver=vfio-pci ;;")), is_claimed, "{said}");
        let reason = "0000:02:00.0 (disk): /srv/with space (xfs) is mounted from nvme1n1p1";
        assert_eq!(said.contains(reason), !is_claimed, "{said}");
        assert_eq!(
            said.contains("take it out of there; or have force = [\"disk\"] in the rule"),
            !is_claimed,
            "{said}"
        );
    }
    // In a container's namespace it is mounted when that is started, if at all.
    let host = host(disk);
    fs::write(host.path().join("proc/swaps"), "").unwrap();
    let table = fs::read_to_string(host.path().join("proc/self/mountinfo")).unwrap();
    let own: Vec<&str> = table.lines().filter(|line| !line.contains("/srv")).collect();
    fs::write(host.path().join("proc/self/mountinfo"), own.join("\n")).unwrap();
    let process = host.path().join("proc/71");
    fs::create_dir_all(process.join("ns")).unwrap();
    fs::write(process.join("mountinfo"), &table).unwrap();
    fs::write(process.join("comm"), "guest\n").unwrap();
    std::os::unix::fs::symlink("mnt:[71]", process.join("ns/mnt")).unwrap();
    let output = initramfs(host.path(), &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("in the mount namespace of guest (pid 71): it is in the image all the same"), "{said}");
}

#[test]
fn what_is_in_use_now_is_named_where_it_is_claimed() {
    let used = "0000:00:02.0 (display): ";
    for (force, is_named) in [("", true), ("force = ['display', 'console']", false)] {
        let host = host(&format!("[[device]]\naddress = '00:02.0'\ndriver = 'auto'\n{force}"));
        let output = initramfs(host.path(), &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(lines(&output)[0].ends_with("driver=vfio-pci ;;"), "{:?}", lines(&output));
        let line = said.lines().any(|line| line.contains(used) && line.ends_with(": it is in the image all the same"));
        assert_eq!(line, is_named, "{said}");
    }
}

const NIC: &str = "0000:02:00.0";
const DISK: &str = "0000:5e:00.0";

/// The script of a policy about a NIC and a disk, run by a shell where none of them has a driver yet, as before udev's start;
/// then the kernel looks for drivers. `before` is run between making the script and running it.
fn early(shell: &str, before: &str) -> Ran {
    early_with(
        &format!("[[device]]\naddress = '{DISK}'\ndriver = 'auto'\n[[device]]\naddress = '{NIC}'\ndriver = 'none'"),
        shell,
        before,
    )
}

fn early_with(policy: &str, shell: &str, before: &str) -> Ran {
    script(
        "connectx",
        &[],
        &format!(
            "mkdir -p /etc/vfioctl.d && echo \"{policy}\" >/etc/vfioctl.d/50-test.toml
             vfioctl initramfs >/run/claim || [ -s /run/claim ] || exit
             echo {NIC} >/sys/bus/pci/drivers/igb/unbind
             echo {DISK} >/sys/bus/pci/drivers/nvme/unbind
             : >/dev/kmsg
             {before}
             {shell} /run/claim || exit
             echo {NIC} >/sys/bus/pci/drivers_probe
             echo {DISK} >/sys/bus/pci/drivers_probe
             cat /dev/kmsg"
        ),
    )
}

#[test]
fn any_shell_claims_what_no_driver_has() {
    for shell in ["dash", "bash", "bash --posix"] {
        let ran = early(shell, &format!("echo {NIC} >/sys/bus/pci/drivers_probe"));
        ran.assert_status(0);
        let (disk, nic) = (ran.device("after", DISK), ran.device("after", NIC));
        assert_eq!((&disk["driver"], &disk["driver_override"]), (&Value::Null, &json!("vfio-pci")), "{shell}");
        // Its driver was faster, as one that is built in.
        assert_eq!((&nic["driver"], &nic["driver_override"]), (&json!("igb"), &Value::Null), "{shell}");
        // Each write to the kernel's log is a line of its own; here the last is what is left.
        assert!(ran.stdout.contains(&format!("<5>vfioctl: {DISK}: claimed for vfio-pci")), "{}", ran.stdout);
        assert_eq!(ran.stderr, "");
    }
    let ran = early("sh", "");
    let nic = ran.device("after", NIC);
    assert_eq!((&nic["driver"], &nic["driver_override"]), (&Value::Null, &json!("none")), "{}", ran.stderr);
}

#[test]
fn another_device_at_the_address_is_left_alone() {
    let vendor = format!("/sys/bus/pci/devices/{DISK}/subsystem_device");
    let ran = early("sh", &format!("echo 0x9999 >/run/id && mount --bind /run/id {vendor}"));
    ran.assert_status(0);
    assert_eq!(ran.device("after", DISK)["driver"], "nvme");
    assert!(!ran.stdout.contains(DISK), "{}", ran.stdout);
}

/// Nothing is to take a bridge, whatever the policy says of its class; one that comes later is known by nothing else.
#[test]
fn bridges_are_left_alone() {
    let policy = "[[device]]\nclass = 'bridge'\ndriver = 'auto'";
    for (class, expected) in [("0x060400", Value::Null), ("0x060700", Value::Null), ("0x068000", json!("none"))] {
        let class = format!("echo {class} >/run/class && mount --bind /run/class /sys/bus/pci/devices/{NIC}/class");
        let ran = early_with(policy, "sh", &class);
        assert_eq!(ran.device("after", NIC)["driver_override"], expected, "{class}: {}", ran.stderr);
    }
}

#[test]
fn the_kernels_command_line_turns_it_off() {
    for (words, is_off) in
        [("quiet vfioctl.early=0", true), ("vfioctl.early=0 ro", true), ("xvfioctl.early=0 vfioctl.early=00", false)]
    {
        let ran = early("sh", &format!("echo '{words}' >/run/cmdline && mount --bind /run/cmdline /proc/cmdline"));
        ran.assert_status(0);
        let expected = if is_off { json!("nvme") } else { Value::Null };
        assert_eq!(ran.device("after", DISK)["driver"], expected, "{words}: {}", ran.stderr);
    }
}

/// The one command, and only where an image has choices in it.
#[test]
fn who_keeps_a_choice_is_told_how_it_comes_into_the_initramfs() {
    let hook = "mount -t tmpfs tmpfs /usr/share && mkdir -p /usr/share/initramfs-tools/hooks && : >/usr/share/initramfs-tools/hooks/vfioctl";
    let told = "'update-initramfs -u -k all'";
    for (before, commands, count) in [
        (":", format!("vfioctl bind {DISK} --force=disk; vfioctl unbind {DISK}"), 0),
        (hook, format!("vfioctl bind {DISK} --force=disk"), 1),
        (hook, format!("vfioctl bind {DISK} --force=disk --json"), 1),
        (hook, format!("vfioctl bind {DISK} --force=disk --no-save; vfioctl bind {DISK} --dry-run"), 0),
        (hook, format!("vfioctl bind {DISK} --force=disk 2>&1; vfioctl unbind {DISK}"), 1),
        (hook, format!("vfioctl driverctl set-override {NIC} vfio-pci"), 1),
    ] {
        let ran = script("connectx", &[], &format!("{before}\n{commands}"));
        assert_eq!(ran.stderr.matches(told).count(), count, "{commands}: {}", ran.stderr);
        assert!(!ran.stderr.contains("dracut") && !ran.stderr.contains("mkinitcpio"), "{}", ran.stderr);
    }
}

/// One image of several may not be that which is started next.
#[test]
fn what_is_told_makes_all_images_or_that_of_a_kernel() {
    let commands = Builder::ALL.map(|builder| [builder.command(None), builder.command(Some(RELEASE))]);
    assert_eq!(
        commands.as_flattened(),
        [
            "dracut --force --regenerate-all",
            "dracut --force --kver 6.1.0-56-amd64",
            "update-initramfs -u -k all",
            "update-initramfs -u -k 6.1.0-56-amd64",
            "mkinitcpio -P",
            "mkinitcpio -P",
        ]
    );
}

/// The paths by which it is known whether a hook is installed are those where make installs it.
#[test]
fn hooks_are_looked_for_where_they_are_installed() {
    let root = tempfile::tempdir().unwrap();
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).arg(format!("DESTDIR={}", root.path().display()));
    make.args(["install-initramfs-tools", "install-dracut", "install-mkinitcpio"]);
    assert!(support::run(&mut make).status.success());
    let host = vfioctl::host::Host::new(root.path(), None).unwrap();
    for builder in Builder::ALL {
        assert!(builder.hook(&host).is_some(), "{builder:?}");
    }
}

/// What the builders' own programs would provide, in the least form in which what is asked of them can be seen.
const DRACUT: &str = r#"
    dwarn() { echo "dwarn: $*" >&2; }
    inst_multiple() { echo "inst_multiple $*"; }
    inst_simple() { mkdir -p "$initdir${2%/*}"; cp "$1" "$initdir$2"; }
    inst_hook() { echo "inst_hook $1 $2 ${3##*/}"; [ -f "$3" ]; }
    dracut_module_included() { [[ " $modules " == *" $1 "* ]]; }
    . "$moddir/module-setup.sh"
"#;
const MKINITCPIO: &str = r#"
    warning() { local text=$1; shift; printf "==> WARNING: $text\n" "$@" >&2; }
    error() { local text=$1; shift; printf "==> ERROR: $text\n" "$@" >&2; return 1; }
    add_dir() { mkdir -p "$BUILDROOT$1"; }
    add_file() { install -Dm"$3" "$1" "$BUILDROOT$2"; }
    add_symlink() { mkdir -p "$BUILDROOT${1%/*}"; ln -sfn "$2" "$BUILDROOT$1"; }
    add_binary() { echo "add_binary $*"; install -D "$1" "$BUILDROOT$1"; }
    add_runscript() { local name=${BASH_SOURCE[1]##*/}; [ -f "$hooks/$name" ] && echo "add_runscript $name"; }
    . "$install/vfioctl"
"#;

/// Everything installed for images, with a vfioctl that looks at a host, and a directory for an image.
struct Builders {
    directory: tempfile::TempDir,
}

impl Builders {
    fn new(host: &Path) -> Builders {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let program = path.join("sbin/vfioctl");
        fs::create_dir_all(path.join("sbin")).unwrap();
        fs::write(&program, format!("#!/bin/sh\nexec {} --root {} \"$@\"\n", support::VFIOCTL, host.display()))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut make = Command::new("make");
        make.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "install-initramfs-tools",
            "install-dracut",
            "install-mkinitcpio",
        ]);
        for (variable, name) in [
            ("SBINDIR", "sbin"),
            ("UNITDIR", "units"),
            ("DRACUTDIR", "dracut"),
            ("INITRAMFSTOOLSDIR", "initramfs-tools"),
            ("INITCPIODIR", "initcpio"),
        ] {
            make.arg(format!("{variable}={}", path.join(name).display()));
        }
        let output = support::run(&mut make);
        assert!(output.status.success(), "{}", support::transcript(&output));
        Builders { directory }
    }

    /// Runs a script of bash into an empty image.
    fn run(&self, script: &str) -> Output {
        let path = self.directory.path();
        let _ = fs::remove_dir_all(path.join("image"));
        fs::create_dir(path.join("image")).unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-c", script]).env("moddir", path.join("dracut/modules.d/50vfioctl")).env("kernel", RELEASE);
        bash.env("hooks", path.join("initcpio/hooks")).env("install", path.join("initcpio/install"));
        bash.env("KERNELVERSION", RELEASE)
            .env("version", RELEASE)
            .env("hook", path.join("initramfs-tools/hooks/vfioctl"));
        for image in ["initdir", "BUILDROOT", "DESTDIR"] {
            bash.env(image, path.join("image"));
        }
        support::run(&mut bash)
    }

    /// The files and links of the image.
    fn image(&self) -> Vec<String> {
        let image = self.directory.path().join("image");
        let entries = WalkDir::new(&image).sort_by_file_name().into_iter().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| !entry.file_type().is_dir());
        files.map(|file| file.path().strip_prefix(&image).unwrap().display().to_string()).collect()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join("image").join(name)).unwrap()
    }
}

const RELEASE: &str = "6.1.0-56-amd64";
const CLAIM: &str = "usr/lib/vfioctl/claim";
const RULES: &str = "usr/lib/udev/rules.d/05-vfioctl-initramfs.rules";
const UNIT: &str = "usr/lib/systemd/system/vfioctl-initramfs.service";
const WANTED: &str = "usr/lib/systemd/system/sysinit.target.wants/vfioctl-initramfs.service";

const HOOK: &str = "\"$hook\"";
const INSTALL: &str = "modules=systemd; install";
const BUILD: &str = "build";

fn each_builder() -> [(String, Vec<&'static str>); 3] {
    [
        (HOOK.to_string(), vec!["conf/conf.d/vfioctl", RULES, CLAIM]),
        (format!("{DRACUT}{INSTALL}"), vec![WANTED, UNIT, RULES, CLAIM]),
        (
            format!("{MKINITCPIO}mkdir -p \"$BUILDROOT/usr/bin\"; : >\"$BUILDROOT/usr/bin/sh\"; {BUILD}"),
            vec!["usr/bin/sh", WANTED, UNIT, RULES, CLAIM],
        ),
    ]
}

#[test]
fn each_builder_puts_script_and_rules_where_they_are_found() {
    let host = host("[[device]]\naddress = '05:00.0'\ndriver = 'auto'");
    let builders = Builders::new(host.path());
    for (script, mut expected) in each_builder() {
        let output = builders.run(&script);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", support::transcript(&output));
        expected.sort_unstable();
        assert_eq!(builders.image(), expected);
        assert_eq!(builders.file(CLAIM), text(&initramfs(host.path(), &[]).stdout));
        assert_eq!(builders.file(RULES), text(&initramfs(host.path(), &["--format", "rules"]).stdout));
        if expected.contains(&WANTED) {
            // The link leads to the unit, and the unit to the script.
            assert!(builders.file(WANTED).contains(&format!("\nExecStart=/bin/sh /{CLAIM}\n")));
        }
    }
    let output = builders.run(&format!("{MKINITCPIO}build; help"));
    let said = text(&output.stdout);
    assert!(said.contains("add_runscript vfioctl\nadd_binary /usr/bin/bash\n"), "{said}");
    assert!(said.contains("Must stand before 'udev' in HOOKS"), "{said}");
    let hook = fs::read_to_string(builders.directory.path().join("initcpio/hooks/vfioctl")).unwrap();
    assert!(hook.contains(&format!("run_earlyhook() {{\n    sh /{CLAIM}\n}}")), "{hook}");
    // Without systemd dracut has hooks.
    let output = builders.run(&format!("{DRACUT}modules=; install"));
    assert_eq!(text(&output.stdout), "inst_multiple sh\ninst_hook pre-udev 00 vfioctl-claim.sh\n");
    assert_eq!(builders.image(), [RULES, CLAIM]);
}

/// A kernel without an image is worse than an image without a claim. What is wrong is said, by vfioctl and by the builder's means.
#[test]
fn no_builder_fails_for_a_choice_that_cannot_be_had() {
    let nvme = "[[device]]\nclass = 'nvme'\ndriver = 'auto'";
    for (policy, said, files) in [
        // Nothing of it can be had, and some of it.
        (nvme.to_string(), "0000:01:00.0 (root-disk)", 0),
        (format!("{nvme}\n[[device]]\naddress = '05:00.0'\ndriver = 'auto'"), "0000:01:00.0 (root-disk)", 3),
        ("[[device]\n".to_string(), "50-test.toml", 0),
    ] {
        let host = host(&policy);
        let builders = Builders::new(host.path());
        for (script, _) in each_builder() {
            let output = builders.run(&script);
            assert!(output.status.success(), "{policy}: {}", support::transcript(&output));
            let stderr = text(&output.stderr);
            let shouts = ["W: vfioctl: not all", "dwarn: vfioctl: not all", "==> ERROR: vfioctl: not all"];
            assert_eq!(shouts.iter().filter(|words| stderr.contains(**words)).count(), 1, "{policy}: {stderr}");
            assert!(stderr.contains(said) && stderr.contains(RELEASE), "{policy}: {stderr}");
            assert_eq!(stderr.matches(said).count(), 1, "said once: {stderr}");
            let image = builders.image();
            assert_eq!(image.iter().any(|name| name == CLAIM), files > 0, "{policy}: {image:?}");
        }
    }
}

#[test]
fn without_a_choice_no_builder_has_anything_to_do() {
    let host = copy("in-use");
    let builders = Builders::new(host.path());
    for (script, _) in each_builder() {
        let output = builders.run(&script);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", support::transcript(&output));
        assert!(builders.image().iter().all(|name| name == "usr/bin/sh"), "{:?}", builders.image());
    }
    assert_eq!(text(&builders.run("\"$hook\" prereqs").stdout), "\n");
}

/// dracut puts the choices into an image for this host; into one for any host if it is told to by name (255).
#[test]
fn dracut_takes_choices_into_images_of_this_host() {
    let with_choice = host("[[device]]\naddress = '05:00.0'\ndriver = 'auto'");
    let (without, broken) = (copy("in-use"), host("[[device]\n"));
    for (host, hostonly, status) in
        [(&with_choice, "yes", 0), (&with_choice, "", 255), (&without, "yes", 255), (&broken, "yes", 0)]
    {
        let builders = Builders::new(host.path());
        let output = builders.run(&format!("{DRACUT}hostonly={hostonly} check"));
        assert_eq!(output.status.code(), Some(status), "{}", support::transcript(&output));
    }
}

/// With the choices of the host that runs dracut an image for another root would claim that one's devices.
#[test]
fn dracut_keeps_choices_out_of_images_of_another_root() {
    let host = host("[[device]]\naddress = '05:00.0'\ndriver = 'auto'");
    let builders = Builders::new(host.path());
    let output = builders.run(&format!("{DRACUT}hostonly=yes dracutsysrootdir=/mnt check"));
    assert_eq!(output.status.code(), Some(255), "{}", support::transcript(&output));
    // Asked for by name it is installed all the same, but for the choices.
    let output = builders.run(&format!("{DRACUT}modules=systemd; dracutsysrootdir=/mnt; install"));
    assert!(output.status.success(), "{}", support::transcript(&output));
    assert!(text(&output.stderr).contains("dwarn: vfioctl: the choices are this host's, not those of /mnt"));
    assert!(builders.image().is_empty(), "{:?}", builders.image());
}

/// Behind 'udev' it would run when drivers have the devices.
#[test]
fn mkinitcpio_says_when_it_comes_too_late() {
    let host = host("[[device]]\naddress = '05:00.0'\ndriver = 'auto'");
    let builders = Builders::new(host.path());
    for (hooks, is_late) in [
        ("base vfioctl udev block", false),
        ("base udev autodetect vfioctl block", true),
        ("base systemd autodetect vfioctl block", false),
    ] {
        let output = builders.run(&format!("{MKINITCPIO}HOOKS=({hooks}); build"));
        assert!(output.status.success(), "{}", support::transcript(&output));
        let said = text(&output.stderr);
        assert_eq!(said.contains("==> WARNING: vfioctl: it stands behind 'udev' in HOOKS"), is_late, "{hooks}: {said}");
        assert!(builders.image().iter().any(|name| name == CLAIM), "{hooks}");
    }
}
