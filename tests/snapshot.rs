// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots: that a host looks the same in its own, whatever is asked; that all is in it that is read, by strace; that what is
//! nobody else's business is not; and that one is there whole or not at all.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

/// What is asked of a host, and of each of its devices.
const OF_HOST: [&[&str]; 8] = [
    &["doctor"],
    &["doctor", "--json"],
    &["groups", "--json"],
    &["list"],
    &["list", "--json"],
    &["drivers", "--json"],
    &["apply", "--dry-run", "--json"],
    &["sriov", "--json"],
];
const OF_DEVICE: [&[&str]; 3] = [&["show"], &["explain", "-v"], &["bind", "--dry-run", "--json"]];

/// Runs vfioctl on the host `parent/name`, called by its name, so that paths in what it says are the same everywhere.
fn vfioctl(parent: &Path, name: &str, arguments: &[&str]) -> Output {
    support::run(Command::new(support::VFIOCTL).current_dir(parent).args(["--root", name]).args(arguments))
}

fn snapshot(parent: &Path, name: &str, to: &Path) -> Output {
    let output = vfioctl(parent, name, &["snapshot", to.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{name}: {}", support::transcript(&output));
    output
}

fn devices(host: &Path) -> Vec<String> {
    let names = fs::read_dir(host.join("sys/bus/pci/devices")).unwrap();
    let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All questions about a host, each with its answer.
fn answers(parent: &Path, name: &str) -> Vec<(String, String)> {
    let ask = |arguments: &[&str]| (arguments.join(" "), support::transcript(&vfioctl(parent, name, arguments)));
    let mut answers: Vec<(String, String)> = OF_HOST.iter().map(|arguments| ask(arguments)).collect();
    for device in devices(&parent.join(name)) {
        answers.extend(OF_DEVICE.iter().map(|arguments| ask(&[*arguments, &[device.as_str()]].concat())));
    }
    answers
}

/// Everything below a directory: files with what is in them, links with where they lead.
fn contents(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            let text = if data.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if data.is_dir() {
                walk(root, &path, found);
                "/".to_string()
            } else {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            };
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), text);
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// Text with all that may be masked taken out of it.
fn without_masked(text: &str) -> String {
    let pattern = regex::Regex::new(r"(?-u:\b[0-9]{1,3}(\.[0-9]{1,3}){3}\b)|'?/srv/(name1|with space)'?").unwrap();
    pattern.replace_all(text, "MASKED").into_owned()
}

/// Byte for byte, but for what is masked; and of a snapshot the snapshot is the same, file by file.
#[test]
fn a_host_looks_the_same_in_its_snapshot() {
    let hosts = support::hosts();
    let halves: Vec<&[String]> = hosts.chunks(hosts.len().div_ceil(2)).collect();
    thread::scope(|scope| {
        for half in halves {
            scope.spawn(move || {
                for host in half {
                    let directory = tempfile::tempdir().unwrap();
                    let (first, again) = (directory.path().join(host), directory.path().join("again"));
                    let said = snapshot(&support::fixtures(), host, &first);
                    snapshot(directory.path(), host, &again);
                    assert_eq!(contents(&first), contents(&again), "{host}");

                    let is_masked = serde_json::from_slice::<Value>(&said.stdout).unwrap()["masked"]
                        != Value::Object(Default::default());
                    let (here, there) = (answers(&support::fixtures(), host), answers(directory.path(), host));
                    for ((question, here), (_, there)) in here.into_iter().zip(there) {
                        let (here, there) = match is_masked {
                            true => (without_masked(&here), without_masked(&there)),
                            false => (here, there),
                        };
                        assert_eq!(here, there, "{host}: {question}");
                    }
                }
            });
        }
    });
}

/// What some runs, one after the other, have asked for below a host's root, by its path there: what they have opened, read as a
/// link or found to be there; and what they would have, had it been there.
fn asked_for(root: &Path, questions: &[Vec<&str>]) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-y", "-s", "4096", "-e", "trace=%file", "-o"]).arg(log.path());
    let run = |question: &Vec<&str>| format!("\"$0\" --root \"$1\" {}", question.join(" "));
    let script = questions.iter().map(run).collect::<Vec<_>>().join("\n");
    let output = support::run(strace.args(["sh", "-c", &script, support::VFIOCTL]).arg(root));
    assert!(!output.stdout.is_empty(), "{}", support::transcript(&output));
    let text = fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("execve"), "strace has seen nothing: {text}");
    let (mut found, mut missed) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.contains("execve(")) {
        let Some((_, arguments)) = line.split_once('(') else { continue };
        // A path, or a directory that is open and a path below it.
        let open = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path);
        let path = arguments.split('"').nth(1).unwrap_or_default();
        let path = if path.starts_with('/') { PathBuf::from(path) } else { Path::new(open).join(path) };
        let Ok(path) = path.strip_prefix(root) else { continue };
        if !line.contains(" = -1 ") {
            found.insert(path.to_path_buf());
        } else if line.contains("ENOENT") && !line.contains("O_DIRECTORY") {
            missed.insert(path.to_path_buf());
        }
    }
    (found, missed)
}

/// Whoever has the program read something new and does not add it to src/snapshot/contents.rs learns of it here.
#[test]
fn all_that_is_read_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    for host in support::hosts() {
        let (root, copy) = (support::fixtures().join(&host), directory.path().join(&host));
        snapshot(&support::fixtures(), &host, &copy);
        let all = devices(&root);
        // One device of each driver and class is as good as all.
        let mut seen = BTreeSet::new();
        let kind = |device: &&String| {
            let path = root.join("sys/bus/pci/devices").join(device);
            (fs::read_to_string(path.join("class")).unwrap(), fs::read_link(path.join("driver")).ok())
        };
        let some = all.iter().filter(|device| seen.insert(kind(device)));
        let of_devices = some.flat_map(|device| OF_DEVICE.iter().map(|words| [*words, &[device.as_str()]].concat()));
        let questions: Vec<Vec<&str>> = OF_HOST.iter().map(|words| words.to_vec()).chain(of_devices).collect();
        let (touched, _) = asked_for(&root, &questions);
        let count = touched.len();
        // A directory in which nothing is read is as good as none. Of a call that strace saw in two pieces it is not known here
        // whether anything was found.
        let is_entry = |path: &&PathBuf| root.join(path).symlink_metadata().is_ok_and(|data| !data.is_dir());
        let is_missing = |path: &&PathBuf| copy.join(path).symlink_metadata().is_err();
        let missing: Vec<&PathBuf> = touched.iter().filter(is_entry).filter(is_missing).collect();
        assert!(count > 50, "{host}: {count}");
        assert!(missing.is_empty(), "{host}: {missing:#?}");
    }
}

/// The same of files that no fixture has: made where they are looked for, they are in the snapshot. /sys and /proc are in fixtures.
#[test]
fn all_that_is_looked_for_would_be_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("in-use");
    assert!(
        support::run(Command::new("cp").arg("-a").arg(support::fixtures().join("in-use")).arg(&root)).status.success()
    );
    fs::create_dir_all(root.join("run/systemd/system")).unwrap();
    let questions = [
        vec!["doctor"],
        vec!["groups"],
        vec!["list", "--json"],
        vec!["drivers"],
        vec!["show", "0000:02:00.0"],
        vec!["bind", "--dry-run", "0000:05:00.0"],
    ];
    let is_elsewhere = |path: &PathBuf| {
        // Tables as text stand in for indexes, one configuration of the kernel for another; what runs and domains are at is of
        // the moment.
        let is_index = path.extension().is_some_and(|extension| extension == "bin") || path.ends_with("config");
        let is_of_moment = path.starts_with("run/vfioctl") && !path.starts_with("run/vfioctl/given-away");
        ["sys", "proc"].iter().any(|place| path.starts_with(place)) || is_index || is_of_moment
    };
    // As what it is looked for.
    let make = |path: &Path| -> bool {
        let (place, name) = (root.join(path), path.file_name().unwrap().to_string_lossy());
        let is_directory = name.ends_with(".d") || ["sriov-operator", "validations", "50vfioctl"].contains(&&*name);
        let is_link = name == "libvirt.so.0" || path.to_string_lossy().contains(".wants/");
        let made = fs::create_dir_all(place.parent().unwrap()).and_then(|()| match (is_directory, is_link) {
            (true, _) => fs::create_dir(&place),
            (_, true) => symlink("nowhere", &place),
            _ => fs::write(&place, ""),
        });
        made.is_ok()
    };
    // What is found leads on to more, but for what ends a search.
    let mut made = BTreeSet::new();
    for _ in 0..3 {
        let (_, missed) = asked_for(&root, &questions);
        made.extend(missed.into_iter().filter(|path| !is_elsewhere(path)).filter(|path| make(path)));
        for stops in ["etc/NIXOS", "run/ostree-booted"] {
            let _ = fs::remove_file(root.join(stops));
        }
    }
    fs::write(root.join("etc/NIXOS"), "").unwrap();
    fs::write(root.join("run/ostree-booted"), "").unwrap();
    let copy = directory.path().join("copy");
    snapshot(directory.path(), "in-use", &copy);
    let missing: Vec<&PathBuf> = made.iter().filter(|path| copy.join(path).symlink_metadata().is_err()).collect();
    assert!(made.len() > 50 && missing.is_empty(), "of {}: {missing:#?}", made.len());
}

/// A copy of the fixture `in-use` with what people would rather not send around.
fn private_host(parent: &Path) -> PathBuf {
    let root = parent.join("private");
    assert!(
        support::run(Command::new("cp").arg("-a").arg(support::fixtures().join("in-use")).arg(&root)).status.success()
    );
    let at = |path: &str| root.join(path);
    let write = |path: &str, text: &str| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    };
    let link = |path: &str, target: &str| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        symlink(target, at(path)).unwrap();
    };
    let append = |path: &str, text: &str| {
        let old = fs::read_to_string(at(path)).unwrap();
        fs::write(at(path), old + text).unwrap();
    };
    write("proc/sys/kernel/hostname", "orion.example.org\n");
    write(
        "proc/cmdline",
        "root=UUID=6f1b0d3e-52c4-4c8e-9d7e-0f2a4b6c8d10 rd.iscsi.password=geheim ip=192.168.77.5::192.168.77.1 \
         modprobe.blacklist=nouveau intel_iommu=on\n",
    );

    // An interface that is called after its address, with a route.
    let net = "sys/devices/pci0000:00/0000:00:1c.4/0000:05:00.0/net";
    fs::rename(at(net).join("enp5s0"), at(net).join("enx525400abcdef")).unwrap();
    fs::remove_file(at("sys/class/net/enp5s0")).unwrap();
    link(
        "sys/class/net/enx525400abcdef",
        &format!("../../{}", net.trim_start_matches("sys/").to_string() + "/enx525400abcdef"),
    );
    write(&format!("{net}/enx525400abcdef/flags"), "0x1003\n");
    write(&format!("{net}/enx525400abcdef/operstate"), "up\n");
    write(&format!("{net}/enx525400abcdef/address"), "52:54:00:ab:cd:ef\n");
    append("proc/net/route", "enx525400abcdef\t004DA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
    append("proc/net/if_inet6", "20010db8000000000000000000c0ffee 04 40 00 80 enx525400abcdef\n");

    // A disk that is encrypted, and mounted in a directory with a name; a file of somebody's; a share of another host's.
    let disk = "sys/devices/pci0000:00/0000:00:1c.1/0000:02:00.0/nvme/nvme1/nvme1n1/nvme1n1p2";
    let mapper = "sys/devices/virtual/block/dm-0";
    let luks = "luks-6f1b0d3e-52c4-4c8e-9d7e-0f2a4b6c8d10";
    write(&format!("{mapper}/dev"), "253:0\n");
    write(&format!("{mapper}/uevent"), "MAJOR=253\nMINOR=0\nDEVNAME=dm-0\nDEVTYPE=disk\n");
    write(&format!("{mapper}/dm/name"), &format!("{luks}\n"));
    write(&format!("{mapper}/dm/uuid"), &format!("CRYPT-LUKS2-6f1b0d3e52c44c8e9d7e0f2a4b6c8d10-{luks}\n"));
    link(&format!("{mapper}/slaves/nvme1n1p2"), &format!("../../../../{}", disk.trim_start_matches("sys/devices/")));
    link(&format!("{disk}/holders/dm-0"), "../../../../../../../../virtual/block/dm-0");
    link("sys/class/block/dm-0", "../../devices/virtual/block/dm-0");
    link(&format!("dev/mapper/{luks}"), "../dm-0");
    link("dev/disk/by-id/nvme-Samsung_SSD_990_S5GXNX0R123456-part1", "../../nvme1n1p1");
    append(
        "proc/self/mountinfo",
        &format!(
            "40 22 253:0 / /media/anna/Backup rw shared:9 - ext4 /dev/mapper/{luks} rw\n\
             41 22 0:60 / /home/anna/share rw shared:10 - cifs //fileserver/anna rw,username=anna,addr=192.168.77.9\n\
             42 22 0:61 / /var/tmp rw - btrfs /dev/disk/by-id/nvme-Samsung_SSD_990_S5GXNX0R123456-part1 rw\n"
        ),
    );
    write("run/udev/data/b259:9", "E:ID_SERIAL=S5GXNX0R123456\nE:ID_FS_TYPE=xfs\nE:ID_FS_LABEL=annas-disk\n");
    link(
        "sys/fs/btrfs/1e4ab9c0-77aa-4d3e-8f00-5c1d2e3f4a5b/devices/nvme1n1p1",
        "../../../../devices/pci0000:00/0000:00:1c.1/0000:02:00.0/nvme/nvme1/nvme1n1/nvme1n1p1",
    );

    // A VM that has a disk, and what else processes have; one with nothing of a device's.
    write("proc/4711/comm", "qemu-system-x86\n");
    write("proc/4711/cmdline", "qemu-system-x86\0-vnc\0password=geheim\0");
    write("proc/4711/environ", "SSH_CONNECTION=192.168.77.5 50000 192.168.77.1 22\0");
    link("proc/4711/fd/12", "/home/anna/vm.qcow2");
    link("proc/4711/fd/13", "/dev/nvme1n1");
    link("proc/4711/ns/mnt", "mnt:[4026532999]");
    write("proc/4711/mountinfo", "50 49 253:0 / /backup rw - ext4 /dev/dm-0 rw\n");
    write("proc/4712/comm", "editor-of-anna\n");
    link("proc/4712/fd/3", "/home/anna/letter");

    write(
        "etc/vfioctl.d/10-nic.toml",
        "# Not 52:54:00:ab:cd:ef of orion.\n[[device]]\naddress = \"0000:04:00.0\"\ndriver = \"vfio-pci\"\n",
    );
    write("etc/modprobe.d/vfio.conf", "# 192.168.77.5\nblacklist nouveau\noptions vfio-pci ids=8086:1533\n");

    // What is installed: one as it should be, one masked, one older than this version; an initramfs older than a choice.
    write("usr/sbin/vfioctl", "");
    write("opt/vfioctl/vfioctl", "");
    write("usr/sbin/update-grub", "");
    write("etc/default/grub", "GRUB_CMDLINE_LINUX=\"rd.luks.uuid=6f1b0d3e iommu=pt\"\nGRUB_PASSWORD=geheim\n");
    write("boot/grub/grub.cfg", "password geheim\n");
    write("usr/lib/udev/rules.d/05-vfioctl.rules", "# orion\nIMPORT{program}=\"/usr/sbin/vfioctl\"\n");
    link("etc/systemd/system/vfioctl-claim.service", "/dev/null");
    link(
        "etc/systemd/system/sysinit.target.wants/vfioctl-claim.service",
        "/usr/lib/systemd/system/vfioctl-claim.service",
    );
    write("usr/lib/systemd/system/vfioctl@.service", "[Service]\nExecStart=/opt/vfioctl/vfioctl apply %i\n");
    fs::create_dir_all(at("run/systemd/system")).unwrap();
    write("usr/share/initramfs-tools/hooks/vfioctl", "#!/bin/sh\n");
    write("boot/initrd.img-6.1.0-56-amd64", "");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(at("boot/initrd.img-6.1.0-56-amd64")).unwrap().set_modified(long_ago).unwrap();
    write("etc/libvirt/hooks/qemu", "#!/bin/sh\n# geheim\nvfioctl libvirt hook \"$@\"\n");
    link("usr/lib/x86_64-linux-gnu/libvirt.so.0", "libvirt.so.0.11003.0");
    write("run/vfioctl/given-away/0000:04:00.0", "");
    write("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
    root
}

/// What must not be anywhere in its snapshot.
const SECRETS: [&str; 14] = [
    "anna",
    "orion",
    "example.org",
    "geheim",
    "525400abcdef",
    "52:54:00",
    "6f1b0d3e",
    "1e4ab9c0",
    "192.168.77",
    "4da8c0",
    "c0ffee",
    "s5gxnx0r",
    "fileserver",
    "cmdline\0",
];

#[test]
fn what_is_nobody_elses_business_is_not_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = private_host(directory.path());
    let copy = directory.path().join("copy");
    let said: Value = serde_json::from_slice(&snapshot(directory.path(), "private", &copy).stdout).unwrap();
    for (kind, number) in [("mac", 1), ("uuid", 2), ("host", 1), ("serial", 1)] {
        assert_eq!(said["masked"][kind], number, "{said}");
    }
    for (path, text) in contents(&copy) {
        let all = format!("{} {text}", path.display()).to_lowercase();
        let found: Vec<&&str> = SECRETS.iter().filter(|secret| all.contains(**secret)).collect();
        assert!(found.is_empty(), "{found:?} in {all}");
    }
    assert!(!copy.join("proc/4712").exists(), "a process that has nothing to do with devices");
    assert!(!copy.join("proc/4711/environ").exists() && !copy.join("proc/4711/fd/12").exists());

    // And yet the same is found, in the same words but for what is masked.
    let words = |text: &str| -> String {
        let masked = "(?-u:[0-9]{1,3}(\\.[0-9]{1,3}){3}|2001:[0-9a-f:]+|enx[0-9a-f]{12}|(luks-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\
                      |/(home|media|srv)/[^ \"]+( space)?";
        regex::Regex::new(masked).unwrap().replace_all(text, "MASKED").replace("'MASKED'", "MASKED")
    };
    for address in devices(&root) {
        let [here, there] = [&root, &copy]
            .map(|host| vfioctl(host, ".", &["show", "--json", &address]))
            .map(|output| support::transcript(&output));
        assert_eq!(words(&here), words(&there), "{address}");
    }
    let [here, there] = [&root, &copy].map(|host| support::transcript(&vfioctl(host, ".", &["doctor"])));
    assert_eq!(here, there);
    assert!(there.contains("the initramfs is older than") && there.contains("mode without x"), "{there}");
    let shown = support::transcript(&vfioctl(&copy, ".", &["show", "0000:02:00.0"]));
    for expected in [
        "/media/name2/name3 (ext4) is mounted from nvme1n1p2 through dm-0 (luks-00000000-0000-4000-8000-000000000002)",
        "qemu-system-x86 (pid 4711) has /dev/nvme1n1 open",
        "/var/tmp (btrfs) is mounted from nvme1n1p1",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let shown = support::transcript(&vfioctl(&copy, ".", &["show", "0000:05:00.0"]));
    assert!(shown.contains("network interface enx020000000001 is up") && shown.contains("cifs file system"), "{shown}");

    // All that is read of it is there, unless by another name, or of a process that has nothing of a device's.
    let questions =
        [vec!["doctor"], vec!["show", "0000:02:00.0"], vec!["show", "0000:05:00.0"], vec!["show", "0000:00:02.0"]];
    let is_plain = |path: &&PathBuf| {
        let text = path.to_string_lossy().to_lowercase();
        !SECRETS.iter().any(|secret| text.contains(secret)) && !text.starts_with("proc/471")
    };
    let is_missing = |path: &&PathBuf| {
        let data = root.join(path).symlink_metadata();
        data.is_ok_and(|data| !data.is_dir()) && copy.join(path).symlink_metadata().is_err()
    };
    let (touched, _) = asked_for(&root, &questions);
    let missing: Vec<&PathBuf> = touched.iter().filter(is_plain).filter(is_missing).collect();
    assert!(touched.len() > 100 && missing.is_empty(), "{missing:#?}");
}

/// An archive unpacks, with other programs than ours, into a directory of its name and the same files.
#[test]
fn an_archive_has_what_a_directory_has() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    snapshot(&support::fixtures(), "qat", &at("plain"));
    let said: Value =
        serde_json::from_slice(&snapshot(&support::fixtures(), "qat", &at("qat.tar.zst")).stdout).unwrap();
    assert_eq!((&said["format"], &said["devices"]), (&Value::from("archive"), &Value::from(19)), "{said}");
    assert_eq!(said["bytes"], fs::metadata(at("qat.tar.zst")).unwrap().len());
    let unpacked = support::run(Command::new("tar").args(["-xf", "qat.tar.zst"]).current_dir(directory.path()));
    assert!(unpacked.status.success(), "{}", support::transcript(&unpacked));
    assert_eq!(contents(&at("qat")), contents(&at("plain")));
    // Root's view of a host is for whoever root gives it to.
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("qat.tar.zst"), mode("plain")), (0o600, 0o700));
}

#[test]
fn it_is_there_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let names = || -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let take = |to: &Path, more: &[&str]| {
        vfioctl(&support::fixtures(), "qat", &[&["snapshot", to.to_str().unwrap()], more].concat())
    };
    fs::create_dir(at("directory")).unwrap();
    fs::write(at("file.tar.zst"), "mine").unwrap();
    symlink("nowhere", at("link")).unwrap();
    for name in ["directory", "file.tar.zst", "link"] {
        let output = take(&at(name), &["--json"]);
        assert_eq!(output.status.code(), Some(4), "{}", support::transcript(&output));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(said["error"]["message"].as_str().unwrap().ends_with("is there already"), "{said}");
    }
    assert_eq!(fs::read_to_string(at("file.tar.zst")).unwrap(), "mine");
    assert_eq!(take(&at("nowhere/x"), &[]).status.code(), Some(1));
    assert_eq!(take(&at("nowhere/x.tar.zst"), &[]).status.code(), Some(1));
    let planned = take(&at("planned"), &["--dry-run"]);
    assert!(planned.status.success() && planned.stdout.starts_with(at("planned").to_str().unwrap().as_bytes()));
    assert_eq!(names(), ["directory", "file.tar.zst", "link"]);

    // No file may have more than these bytes: a disk that is full.
    let limited = |to: &str| {
        let script = "ulimit -f 1; trap '' XFSZ; exec \"$0\" --root qat snapshot \"$1\"";
        let mut shell = Command::new("sh");
        support::run(shell.args(["-c", script, support::VFIOCTL]).arg(at(to)).current_dir(support::fixtures()))
    };
    for name in ["full", "full.tar.zst"] {
        let output = limited(name);
        assert_eq!(output.status.code(), Some(1), "{}", support::transcript(&output));
    }
    assert_eq!(names(), ["directory", "file.tar.zst", "link"]);
}

/// What cannot be read is named, and costs nothing else.
#[test]
fn what_cannot_be_read_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    assert!(
        support::run(Command::new("cp").arg("-a").arg(support::fixtures().join("qat")).arg(at("qat"))).status.success()
    );
    support::copy_program(Path::new(support::VFIOCTL), &at("vfioctl"));
    let closed = at("qat/etc/vfioctl.d/50-qat-vfs.toml");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(at("vfioctl"));
    command.arg("--root").arg(at("qat")).arg("snapshot").arg(at("copy")).arg("--json");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = support::run(&mut command);
    assert_eq!(output.status.code(), Some(6), "{}", support::transcript(&output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["unread"][0]["path"], closed.to_str().unwrap(), "{said}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("50-qat-vfs.toml: Permission denied"));
    assert_eq!(said["devices"], 19);
}

/// The machine that the tests run on: what its /sys is like is in no fixture.
#[test]
fn this_machine_looks_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    let mut command = Command::new(support::VFIOCTL);
    let output = support::run(command.args(["snapshot", "--json"]).arg(&copy));
    // Without root's rights some of it is missing.
    assert!([0, 6].contains(&output.status.code().unwrap()), "{}", support::transcript(&output));
    let ask = |root: &Path, arguments: &[&str]| {
        let output = support::run(Command::new(support::VFIOCTL).arg("--root").arg(root).args(arguments));
        String::from_utf8(output.stdout).unwrap()
    };
    let questions: [&[&str]; 5] =
        [&["list", "--json"], &["drivers", "--json"], &["sriov", "--json"], &["groups", "--json"], &["doctor", "-v"]];
    for question in questions {
        assert_eq!(ask(Path::new("/"), question), ask(&copy, question), "{question:?}");
    }
    for address in devices(Path::new("/")) {
        assert_eq!(ask(Path::new("/"), &["explain", &address]), ask(&copy, &["explain", &address]), "{address}");
    }
}
