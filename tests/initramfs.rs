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
    assert_eq!(lines.len(), 6);
    assert_eq!(
        lines[4..],
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

/// As where an image for another machine is made: what the rules say by themselves.
#[test]
fn without_sysfs_the_rules_are_what_there_is() {
    let host = host(POLICY);
    fs::remove_dir_all(host.path().join("sys")).unwrap();
    let output = initramfs(host.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let script = text(&output.stdout);
    let lines: Vec<&str> = script.lines().filter(|line| line.contains("0x")).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "0000:09:00.0/0x10de/0x2204/*/*/*) driver=vfio-pci ;;",
            "*/0x8086/0x1533/0x15d9/0x1533/*) driver=none ;;",
            "*/*/*/*/*/0x0108*) driver=none ;;",
        ]
    );
    assert!(text(&output.stderr).contains("sys/bus/pci/devices is not there"), "{}", text(&output.stderr));
}

const NIC: &str = "0000:02:00.0";
const DISK: &str = "0000:5e:00.0";

/// The script of a policy about a NIC and a disk, run by a shell where none of them has a driver yet, as before udev's start;
/// then the kernel looks for drivers. `before` is run between making the script and running it.
fn early(shell: &str, before: &str) -> Ran {
    let policy =
        format!("[[device]]\naddress = '{DISK}'\ndriver = 'auto'\n[[device]]\nid = '8086:1533'\ndriver = 'none'");
    script(
        "connectx",
        &[],
        &format!(
            "mkdir -p /etc/vfioctl.d && echo \"{policy}\" >/etc/vfioctl.d/50-test.toml
             vfioctl initramfs >/run/claim || exit
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
    let told = "'update-initramfs -u'";
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
