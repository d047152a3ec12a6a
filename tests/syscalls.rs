// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the commands that look ask of the kernel, counted by strace: how much a device of a listing costs, what is read of it
//! and what is not, and that nothing grows that need not.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use support::ran::{copy, on};

const PF: &str = "0000:3b:00.0";
const VF: &str = "0000:3b:00.2";
/// One that no driver has, where that is so.
const FREE: &str = "0000:3b:00.3";

/// A kernel on which an override is read without the device's lock, and one on which it is not.
const NEW: &str = "7.2.0-1-amd64";
const OLD: &str = "6.1.0-56-amd64";

/// What of a device is not read by those that only look: it reaches the hardware, wakes a device, is long, or waits for a lock.
const NOT_READ: [&str; 12] = [
    "config",
    "vpd",
    "current_link_speed",
    "current_link_width",
    "max_link_width",
    "resource",
    "resource0",
    "rom",
    "uevent",
    "sriov_numvfs",
    "secondary_bus_number",
    "subordinate_bus_number",
];

/// A host with one PF and its VFs behind a bridge, half of them on vfio-pci, as sysfs shows them; the PF is on the driver that
/// its VFs' variant needs.
fn host(functions: usize) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let write = |path: &str, text: &str| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    };
    let link = |path: &str, target: &str| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        symlink(target, at(path)).unwrap();
    };
    write("proc/sys/kernel/osrelease", NEW);
    let aliases = "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n\
                   alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci\n";
    for release in [NEW, OLD] {
        write(&format!("lib/modules/{release}/modules.alias"), aliases);
    }
    for index in 0..functions {
        let address = format!("0000:{:02x}:{:02x}.{}", 0x3b + index / 256, index / 8 % 32, index % 8);
        let place = format!("pci0000:3a/0000:3a:02.0/{address}");
        let device = format!("sys/devices/{place}");
        let (id, driver) = match index {
            0 => ("101D", "mlx5_core"),
            _ if index % 2 == 0 => ("101E", "vfio-pci"),
            _ => ("101E", "mlx5_core"),
        };
        write(&format!("{device}/modalias"), &format!("pci:v000015B3d0000{id}sv000015B3sd00000023bc02sc00i00\n"));
        write(&format!("{device}/driver_override"), "(null)\n");
        for attribute in NOT_READ {
            write(&format!("{device}/{attribute}"), "0\n");
        }
        link(&format!("{device}/driver"), &format!("../../../../bus/pci/drivers/{driver}"));
        link(&format!("{device}/iommu_group"), &format!("../../../../kernel/iommu_groups/{index}"));
        link(&format!("sys/kernel/iommu_groups/{index}/devices/{address}"), &format!("../../../../devices/{place}"));
        link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../devices/{place}"));
        match index {
            0 => write(&format!("{device}/mlx5_core.eth.0/uevent"), ""),
            _ => {
                link(&format!("{device}/physfn"), &format!("../{PF}"));
                let number = index - 1;
                link(&format!("sys/devices/pci0000:3a/0000:3a:02.0/{PF}/virtfn{number}"), &format!("../{address}"));
            }
        }
        if driver == "vfio-pci" {
            fs::create_dir_all(at(&format!("{device}/vfio-dev/vfio{index}"))).unwrap();
        }
    }
    root
}

/// Another kernel runs on a host from now on.
fn boot(root: &Path, release: &str) {
    fs::write(root.join("proc/sys/kernel/osrelease"), format!("{release}\n")).unwrap();
}

/// What a run asked of the kernel.
#[derive(Default)]
struct Asked {
    /// How often, by the call's name.
    calls: BTreeMap<String, usize>,
    /// How often about the host's own files.
    on_host: BTreeMap<String, usize>,
    /// What was opened, or read as a link, below the devices: the names alone; `ADDRESS` for a device's directory.
    touched: BTreeSet<String>,
    /// Which of these by a process that is not the one that was started.
    by_others: BTreeSet<String>,
}

impl Asked {
    fn count(&self, call: &str) -> usize {
        self.calls.get(call).copied().unwrap_or(0)
    }

    /// Processes and threads that were started.
    fn started(&self) -> usize {
        ["clone", "clone3", "fork", "vfork"].iter().map(|call| self.count(call)).sum()
    }
}

/// Runs `vfioctl ARGUMENTS` on a host. Whatever it is, it ends well and what it shows is not empty.
fn ask(root: &Path, arguments: &[&str]) -> Asked {
    let arguments = [&["--root", root.to_str().unwrap()], arguments].concat();
    trace(root, &arguments)
}

/// The same with nothing before the arguments.
fn trace(root: &Path, arguments: &[&str]) -> Asked {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "4096", "-o"]).arg(log.path()).arg(support::VFIOCTL);
    let output = support::run(strace.args(arguments));
    assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}: {}", support::transcript(&output));
    let text = fs::read_to_string(log.path()).unwrap();
    let mut asked = Asked::default();
    let root = root.to_str().unwrap();
    let first = text.split_whitespace().next().unwrap();
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        // The rest of a call whose beginning has counted, and what is none.
        let Some((name, arguments)) = call.trim_start().split_once('(').filter(|(name, _)| !name.contains(' ')) else {
            continue;
        };
        // Where assertions are on, the standard library makes sure that what it closes is open.
        if name == "fcntl" && cfg!(debug_assertions) {
            continue;
        }
        *asked.calls.entry(name.to_string()).or_default() += 1;
        if name != "execve" && arguments.contains(root) {
            *asked.on_host.entry(name.to_string()).or_default() += 1;
        }
        if !matches!(name, "openat" | "open" | "readlink" | "readlinkat" | "stat" | "statx" | "newfstatat" | "access") {
            continue;
        }
        // A path, or a directory that is open and a path below it.
        let open = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path);
        let path = arguments.split('"').nth(1).unwrap_or_default();
        let path = if path.starts_with('/') { path.to_string() } else { format!("{open}/{path}") };
        let below = ["/sys/bus/pci/devices/", "/sys/devices/"].iter().find_map(|place| path.split_once(place));
        let Some((_, below)) = below else { continue };
        let name = below.trim_end_matches('/').rsplit('/').next().unwrap();
        let name = if is_address(name) { "ADDRESS" } else { name };
        asked.touched.insert(name.to_string());
        if pid != first {
            asked.by_others.insert(name.to_string());
        }
    }
    assert!(asked.count("execve") >= 1, "strace has seen nothing: {text}");
    asked
}

fn is_address(name: &str) -> bool {
    name.len() == PF.len() && name.starts_with("0000:")
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// What one device more costs, exactly: the same calls, whatever there is besides.
#[test]
fn a_device_of_a_listing_costs_so_many_calls() {
    let (few, many) = (16, 80);
    let hosts = [few, many].map(host);
    let base = ["ADDRESS", "modalias", "driver", "iommu_group", "physfn"];
    let listing = BTreeMap::from([("openat", 2), ("read", 1), ("readlinkat", 3), ("close", 2)]);
    let with_override = BTreeMap::from([("openat", 3), ("read", 2), ("readlinkat", 3), ("close", 3)]);
    for (release, arguments, per_device, more) in [
        (NEW, &["list"][..], &listing, None),
        (NEW, &["list", "--class", "network"], &listing, None),
        (NEW, &["list", "--json"], &with_override, Some("driver_override")),
        (NEW, &["driverctl", "list-devices"], &with_override, Some("driver_override")),
        // What would wait for the devices' locks is not read, since it is not shown.
        (OLD, &["list"], &listing, None),
    ] {
        hosts.iter().for_each(|host| boot(host.path(), release));
        let [fewer, more_of_them] = [0, 1].map(|index| ask(hosts[index].path(), arguments));
        for (call, each) in per_device {
            let difference = more_of_them.count(call) - fewer.count(call);
            assert_eq!(difference, each * (many - few), "{call} of {arguments:?} on {release}");
        }
        // Memory, entries of directories, and what is written: a call for ten devices at most.
        let others = |asked: &Asked| -> usize {
            asked.calls.iter().filter(|(call, _)| !per_device.contains_key(call.as_str())).map(|(_, count)| count).sum()
        };
        let difference = others(&more_of_them).saturating_sub(others(&fewer));
        assert!(difference <= (many - few) / 10, "{difference} other calls: {:?}", more_of_them.calls);
        let expected = names(&base).into_iter().chain(more.map(str::to_string)).collect();
        assert_eq!(more_of_them.touched, expected, "{arguments:?} on {release}");
        assert_eq!((more_of_them.started(), more_of_them.count("execve")), (0, 1), "{arguments:?}");
    }
}

/// On a kernel where that may wait, another process reads the overrides that are asked for: one for all devices.
#[test]
fn where_an_override_may_wait_one_process_reads_them_all() {
    let [few, many] = [8, 32].map(|functions| {
        let host = host(functions);
        boot(host.path(), OLD);
        ask(host.path(), &["list", "--json"])
    });
    assert_eq!(few.started(), many.started());
    assert_eq!((few.count("execve"), many.count("execve")), (2, 2), "{:?}", many.calls);
    assert_eq!(many.by_others, names(&["driver_override"]), "and that is all it does");
    let first = many.touched.iter().filter(|name| !many.by_others.contains(*name));
    assert!(first.eq(names(&["ADDRESS", "modalias", "driver", "iommu_group", "physfn"]).iter()), "{:?}", many.touched);
}

/// Where a device's lock is held, a listing without overrides has nothing to wait for, and nothing to say.
#[test]
fn a_listing_in_columns_takes_no_devices_lock() {
    let host = copy("connectx");
    let modules = host.path().join("lib/modules");
    fs::rename(modules.join("7.0.0-43-generic"), modules.join(OLD)).unwrap();
    fs::write(host.path().join("proc/sys/kernel/osrelease"), format!("{OLD}\n")).unwrap();
    let text = format!(
        "echo 0000:3b:00.1 > /sys/bus/pci/drivers/mlx5_core/unbind &
         until simhost ctl blocked | grep -q unbind; do sleep 0.05; done
         {own} list; echo; {own} list --json >/dev/null",
        own = support::VFIOCTL
    );
    let ran = on(host.path(), &["0000:3b:00.1:unbind:block"], &["sh", "-c", &text]);
    ran.assert_status(0);
    assert!(ran.stdout.contains("0000:3b:00.1"), "{}", ran.stdout);
    // Said once: by the one that was to show it.
    assert_eq!(ran.stderr.matches("lock is held").count(), 1, "{}", ran.stderr);
}

/// Whatever only looks keeps off what reaches the hardware or takes a lock, starts no process and has no threads.
#[test]
fn what_only_looks_leaves_the_device_alone() {
    let host = host(16);
    for arguments in [
        &["list"][..],
        &["list", "--vfio"],
        &["list", "--json"],
        &["show", VF],
        &["show", PF],
        &["match", VF],
        &["explain", VF],
        &["sriov"],
        &["drivers"],
        &["doctor", "-v"],
        &["driverctl", "list-devices"],
    ] {
        let asked = ask(host.path(), arguments);
        let wrong: Vec<&str> = NOT_READ.into_iter().filter(|name| asked.touched.contains(*name)).collect();
        assert_eq!(wrong, [""; 0], "{arguments:?}");
        assert_eq!((asked.started(), asked.count("execve")), (0, 1), "{arguments:?}: {:?}", asked.calls);
    }
}

/// Nor does whoever presses Tab: also where an override can be read, that waits for nobody, and nothing is started.
#[test]
fn completing_leaves_devices_alone() {
    let host = host(16);
    for kernel in [NEW, OLD] {
        boot(host.path(), kernel);
        let root = host.path().to_str().unwrap();
        for words in [
            &["bind", ""][..],
            &["unbind", ""],
            &["probe", ""],
            &["show", "3b:0"],
            &["bind", VF, "--driver", ""],
            &["list", "--group", ""],
            &["list", "--driver", ""],
            &["list", "--kernel", ""],
        ] {
            let words = [&["--complete", "vfioctl", "--root", root], words].concat();
            let asked = trace(host.path(), &words);
            let wrong: Vec<&str> = NOT_READ.into_iter().filter(|name| asked.touched.contains(*name)).collect();
            assert_eq!(wrong, [""; 0], "{words:?}");
            assert!(kernel == NEW || !asked.touched.contains("driver_override"), "{words:?}");
            assert_eq!((asked.started(), asked.count("execve")), (0, 1), "{words:?}: {:?}", asked.calls);
        }
    }
}

/// A device more costs `doctor` as much as the one before, with a choice for each.
#[test]
fn a_device_of_doctor_costs_so_many_calls() {
    let [few, more, most] = [16, 48, 80].map(|functions| {
        let host = host(functions);
        let policy = host.path().join("etc/vfioctl.d");
        fs::create_dir_all(&policy).unwrap();
        for entry in fs::read_dir(host.path().join("sys/bus/pci/devices")).unwrap() {
            let address = entry.unwrap().file_name().into_string().unwrap();
            let rule = format!("[[device]]\naddress = '{address}'\nid = '15b3:101e'\ndriver = 'auto'\n");
            fs::write(policy.join(format!("{address}.toml")), rule).unwrap();
        }
        fs::write(policy.join("50-all.toml"), "[[device]]\nclass = 'network'\ndriver = 'auto'\n").unwrap();
        ask(host.path(), &["doctor"]).calls.values().sum::<usize>()
    });
    let (first, second) = (more - few, most - more);
    assert!(first.abs_diff(second) <= first / 20, "{few} {more} {most}");
    assert!(second <= 32 * 32, "{} calls for a device", second / 32);
}

/// One device costs what it costs, however many there are besides: the host's files are asked for no more often than so.
#[test]
fn looking_at_one_device_costs_the_same_among_many() {
    let hosts = [8, 40].map(host);
    // And functions on other buses.
    for number in 0..32 {
        let (address, root) = (format!("0000:10:{number:02x}.0"), hosts[1].path().join("sys"));
        let place = format!("devices/pci0000:0f/0000:0f:01.0/{address}");
        fs::create_dir_all(root.join(&place)).unwrap();
        fs::write(root.join(&place).join("modalias"), "pci:v00008086d00001533sv00008086sd00000001bc02sc00i00\n")
            .unwrap();
        symlink(format!("../../../{place}"), root.join("bus/pci/devices").join(address)).unwrap();
    }
    for host in &hosts {
        let device = |address: &str| host.path().join("sys/bus/pci/devices").join(address);
        // So it is when it has just been announced.
        fs::remove_file(device(FREE).join("driver")).unwrap();
        fs::remove_file(device(FREE).join("physfn")).unwrap();
        let of_pf = [("totalvfs", "40"), ("offset", "1"), ("stride", "1"), ("vf_device", "101e")];
        for (name, value) in of_pf {
            fs::write(device(PF).join(format!("sriov_{name}")), value).unwrap();
        }
        fs::write(device(PF).join("vendor"), "0x15b3").unwrap();
        let policy = host.path().join("etc/vfioctl.d");
        fs::create_dir_all(&policy).unwrap();
        fs::write(policy.join("vfs.toml"), "[[device]]\nid = '15b3:101e'\ndriver = 'auto'\n").unwrap();
    }
    for (arguments, most) in
        [(&["match", VF][..], 55), (&["explain", VF], 75), (&["show", VF], 135), (&["claim", "--udev", FREE], 140)]
    {
        let [few, many] = [0, 1].map(|index| ask(hosts[index].path(), arguments).on_host);
        assert_eq!(few, many, "{arguments:?}");
        let total: usize = many.values().sum();
        assert!(total <= most, "{arguments:?}: {total} calls: {many:?}");
    }
}
