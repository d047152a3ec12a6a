// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many vfioctl at once, on one device and on several, with udev's calls among them: each report is true, and what is left
//! is what some order of them, one after another, would have left. What runs is drawn from seeds.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::ran::{Ran, script};

const VFS: [&str; 4] = ["0000:3b:00.1", "0000:3b:00.2", "0000:3b:00.3", "0000:3b:00.4"];
const AT_ONCE: usize = 16;

/// Numbers that look drawn, and are the same each time (Knuth's MMIX).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// What a verb leaves: driver, override and policy; `None`: what the policy says already.
type Left = Option<(&'static str, Option<&'static str>, Option<&'static str>)>;

/// What can be asked for of a VF, and what that leaves.
const VERBS: [(&str, Left); 4] = [
    ("bind", Some(("mlx5_vfio_pci", Some("mlx5_vfio_pci"), Some("auto")))),
    ("bind --driver vfio-pci", Some(("vfio-pci", Some("vfio-pci"), Some("vfio-pci")))),
    ("unbind", Some(("mlx5_core", None, None))),
    ("apply", None),
];

/// One call, and what came of it.
struct Call {
    verb: usize,
    vf: usize,
    begun: u64,
    ended: u64,
    status: i32,
    stderr: String,
    result: Value,
}

/// udev, as its rule has it of a device that has appeared: it looks for such all the time. It writes the override that it is
/// told, which is done for no other device than a new one.
const UDEV: &str = "
udev() {
    while [ ! -e $work/over ]; do
        for device in 1 2 3 4; do
            at=/sys/bus/pci/devices/0000:3b:00.$device
            incarnation=$(stat -L -c %i $at 2>/dev/null) || continue
            if [ \"$incarnation\" = \"$(cat $work/seen.$device 2>/dev/null)\" ]; then
                case $new in 1) continue;; esac
                vfioctl claim --udev 3b:00.$device >>$work/udev 2>&1
                vfioctl apply 3b:00.$device >>$work/udev 2>&1
                continue
            fi
            echo $incarnation >$work/seen.$device
            driver=$(vfioctl claim --udev 3b:00.$device 2>>$work/udev | sed -n 's/^VFIOCTL_DRIVER=//p')
            [ -z \"$driver\" ] || echo $driver >$at/driver_override 2>/dev/null
            vfioctl apply 3b:00.$device >>$work/udev 2>&1
        done
        sleep 0.05
    done
}
call() {
    number=$1; shift
    date +%s%N >$work/$number.begun
    vfioctl \"$@\" >$work/$number.out 2>$work/$number.err
    echo $? >$work/$number.status
    date +%s%N >$work/$number.ended
}
modprobe mlx5_vfio_pci; modprobe vfio_pci
for device in 1 2 3 4; do stat -L -c %i /sys/bus/pci/devices/0000:3b:00.$device >$work/seen.$device; done
";

/// Makes so many calls at once, drawn from a seed, on the first so many VFs.
///
/// `besides` runs as well; without, udev has an event for every device again and again.
fn calls(seed: u64, vfs: usize, besides: &str) -> (Ran, Vec<Call>) {
    let mut draw = Draw(seed);
    let drawn: Vec<(usize, usize)> = (0..AT_ONCE).map(|_| (draw.below(VERBS.len()), draw.below(vfs))).collect();
    let directory = tempfile::tempdir().unwrap();
    let lines = drawn.iter().enumerate().map(|(number, (verb, vf))| {
        let pause = draw.below(4) as f32 / 10.0;
        format!("(sleep {pause}; call {number} {} --json {}) & calls=\"$calls $!\"\n", VERBS[*verb].0, VFS[*vf])
    });
    let text = format!(
        "work={}\nnew={}\n{UDEV}udev & udev=$!\n{}{besides}wait $calls; touch $work/over; wait $udev
         [ $new = 0 ] || for device in 1 2 3; do
             [ -e /etc/vfioctl.d/0000:3b:00.$device.toml ] || vfioctl unbind 3b:00.$device >>$work/udev 2>&1
         done
         ls -A /etc/vfioctl.d /run/udev/rules.d 2>/dev/null; true",
        directory.path().display(),
        u8::from(!besides.is_empty()),
        lines.collect::<String>()
    );
    let ran = script("connectx", &[], &text);
    let made = drawn.iter().enumerate().map(|(number, (verb, vf))| read(directory.path(), number, *verb, *vf));
    let made = made.collect();
    let of_udev = fs::read_to_string(directory.path().join("udev")).unwrap_or_default();
    assert!(!of_udev.contains("panicked"), "seed {seed}: {of_udev}");
    (ran, made)
}

fn read(directory: &Path, number: usize, verb: usize, vf: usize) -> Call {
    let text = |name: &str| fs::read_to_string(directory.join(format!("{number}.{name}"))).unwrap();
    let time = |name: &str| text(name).trim().parse().unwrap();
    let document: Value = serde_json::from_str(&text("out")).unwrap_or_else(|error| panic!("{error}: {}", text("err")));
    Call {
        verb,
        vf,
        begun: time("begun"),
        ended: time("ended"),
        status: text("status").trim().parse().unwrap(),
        stderr: text("err"),
        result: document["results"][0].clone(),
    }
}

/// The driver, override and choice that are there in the end.
fn left(ran: &Ran, address: &str) -> (String, Option<String>, Option<String>) {
    let device = ran.device("after", address);
    let policy = ran.journal["after"]["policy"][format!("{address}.toml")].as_str();
    let choice = policy.map(|text| {
        let table: toml::Table = text.parse().unwrap();
        table["device"][0]["driver"].as_str().unwrap().to_string()
    });
    let text = |value: &Value| value.as_str().map(str::to_string);
    (text(&device["driver"]).unwrap_or_default(), text(&device["driver_override"]), choice)
}

fn nothing_is_left_over(ran: &Ran, seed: u64) {
    for line in ran.stdout.lines().filter(|line| !line.is_empty() && !line.ends_with(':')) {
        assert!(!line.starts_with('.'), "seed {seed}: a file was left: {line}");
    }
}

#[test]
fn one_after_another_on_each_device() {
    let started = Instant::now();
    for (seed, vfs) in [(1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, 2)] {
        let (ran, calls) = calls(seed, vfs, "");
        nothing_is_left_over(&ran, seed);
        for call in &calls {
            let Call { status, stderr, result, .. } = call;
            let (verb, wanted) = VERBS[call.verb];
            let what = format!("seed {seed}: {verb} {}: {result}\n{stderr}", VFS[call.vf]);
            assert_eq!((*status, &result["error"]), (0, &Value::Null), "{what}");
            let driver = &result["driver"];
            match wanted {
                Some((wanted, ..)) => assert_eq!(driver, wanted, "{what}"),
                None => {
                    let is_known = VERBS.iter().any(|(_, left)| left.is_some_and(|left| driver == left.0));
                    assert!(is_known || *driver == ran.device("before", VFS[call.vf])["driver"], "{what}");
                }
            }
        }
        for (index, address) in VFS.iter().enumerate().take(vfs) {
            let found = left(&ran, address);
            let of_vf: Vec<&Call> =
                calls.iter().filter(|call| call.vf == index && VERBS[call.verb].1.is_some()).collect();
            // Whatever began after another had ended came after it.
            let latest = of_vf.iter().map(|call| call.begun).max().unwrap_or(0);
            let possible: Vec<(String, Option<String>, Option<String>)> = of_vf
                .iter()
                .filter(|call| call.ended >= latest)
                .map(|call| {
                    let (driver, override_, policy) = VERBS[call.verb].1.unwrap();
                    (driver.to_string(), override_.map(str::to_string), policy.map(str::to_string))
                })
                .collect();
            let before = ran.device("before", address);
            let is_untouched = of_vf.is_empty() && before == ran.device("after", address);
            assert!(
                is_untouched || possible.contains(&found),
                "seed {seed}: {address} is {found:?}, of {possible:?}\n{:?}",
                ran.writes()
            );
        }
    }
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
}

/// VFs are removed and made anew meanwhile, and udev tells of them.
#[test]
fn while_vfs_come_and_go() {
    for seed in [11, 12] {
        let besides = "(sleep 0.3; call 100 sriov --json 3b:00.0 3) & calls=\"$calls $!\"
                       (sleep 0.6; call 101 sriov --json 3b:00.0 4) & calls=\"$calls $!\"\n";
        let (ran, calls) = calls(seed, 3, besides);
        nothing_is_left_over(&ran, seed);
        for call in &calls {
            let (verb, _) = VERBS[call.verb];
            let what = format!("seed {seed}: {verb} {}: {}\n{}", VFS[call.vf], call.result, call.stderr);
            assert!(!call.stderr.contains("panicked"), "{what}");
            let kind = call.result["error"]["kind"].as_str();
            let expected = match kind {
                None => 0,
                Some("no-device") => 3,
                Some("failed") => 1,
                Some("unsafe") => 4,
                // udev or the kernel may have had it between two steps of ours.
                Some("not-restored") => 8,
                Some(_) => panic!("{what}"),
            };
            assert_eq!(call.status, expected, "{what}");
            assert!(
                kind.is_none() || call.result["error"]["message"].as_str().unwrap().contains(VFS[call.vf]),
                "{what}"
            );
        }
        // What is kept is so, once there is peace, and what is not kept can be had: udev's rule writes an override outside of our
        // lock, and so may a moment after somebody has cleared it.
        let mut choices: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for address in &VFS[..3] {
            let (driver, override_, choice) = left(&ran, address);
            let is_so = match choice.as_deref() {
                Some("auto") => driver == "mlx5_vfio_pci" && override_.as_deref() == Some("mlx5_vfio_pci"),
                Some(name) => driver == name && override_.as_deref() == Some(name),
                None => override_.is_none(),
            };
            assert!(
                is_so,
                "seed {seed}: {address} is on {driver} with {override_:?}, and kept is {choice:?}\n{:#?}",
                ran.writes()
            );
            choices.insert(address, choice);
        }
        assert_eq!(choices.len(), 3);
    }
}

/// Of two that write udev's rules at once, the later one has seen the policy of the earlier.
#[test]
fn the_rules_for_udev_are_those_of_the_last_policy() {
    for round in 0..4 {
        let text = "edit() {
                printf '[[device]]\\nid = \"10de:00%02x\"\\ndriver = \"auto\"\\n' $1 >/etc/vfioctl.d/.new.$1
                mv /etc/vfioctl.d/.new.$1 /etc/vfioctl.d/50-$1.toml
            }
            mkdir -p /etc/vfioctl.d
            for number in $(seq 12); do edit $number; vfioctl apply >/dev/null 2>>/run/errors & done
            for number in $(seq 13 16); do edit $number; vfioctl claim >/dev/null 2>>/run/errors & done
            wait; cat /run/errors >&2; ls -A /run/udev/rules.d; cat /run/udev/rules.d/04-vfioctl-selectors.rules";
        let ran = script("connectx", &[], text);
        ran.assert_status(0);
        assert_eq!(ran.stderr, "", "round {round}");
        assert!(!ran.stdout.contains(".vfioctl."), "round {round}: {}", ran.stdout);
        for number in 1..=16 {
            let rule = format!("ATTR{{device}}==\"0x00{number:02x}\"");
            assert_eq!(ran.stdout.matches(&rule).count(), 1, "round {round}: {rule}\n{}", ran.stdout);
        }
    }
}

/// A machine may be out of threads and processes. With one at least the work is done, one device after the other; without, nothing
/// is touched. strace lets each thread start none, or one and no more.
#[test]
fn with_few_processes_it_takes_longer_and_without_nothing_is_touched() {
    for (from, expected) in [(1, ["1", "0", "0"]), (2, ["0", "4", "4"])] {
        let starts = "clone,clone3,fork,vfork";
        let text = format!(
            "modprobe vfio-pci
             strace -f -o /dev/null -e trace={starts} -e inject={starts}:error=EAGAIN:when={from}+ \
                 {} bind --driver vfio-pci 3b:00.1 3b:00.2 3b:00.3 3b:00.4 >&2; echo $?
             ls -d /sys/bus/pci/drivers/vfio-pci/0000:3b:00.? 2>/dev/null | wc -l; ls /etc/vfioctl.d | grep -c toml",
            support::VFIOCTL
        );
        let ran = script("connectx", &[], &text);
        assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), expected, "{from}: {}", ran.stderr);
        if expected[0] == "1" {
            assert_eq!(ran.stderr.matches("Resource temporarily unavailable").count(), 4, "{}", ran.stderr);
        }
    }
}
