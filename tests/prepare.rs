// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is run before a device's driver comes, on simulated hosts: in which order, with what around it, and what is left when it
//! fails. devlink is a script that writes down its calls, and where the VF was at that moment.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::ran::{Ran, copy, on, script};

const VF: &str = "0000:3b:00.1";
const PORT: &str = "pci/0000:3b:00.0/196609";

/// Answers as devlink 6.10 does. `mode` says what goes wrong.
const DEVLINK: &str = include_str!("support/devlink");

/// A directory that comes first in PATH.
struct Tools {
    directory: tempfile::TempDir,
}

impl Tools {
    fn new(mode: &str) -> Tools {
        let tools = Tools { directory: tempfile::tempdir().unwrap() };
        tools.add("devlink", DEVLINK);
        tools.set("mode", mode);
        tools.set("migratable", "disable");
        tools.set("calls", "");
        tools
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_string()
    }

    fn set(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn add(&self, name: &str, text: &str) {
        self.set(name, text);
        fs::set_permissions(self.path(name), Permissions::from_mode(0o755)).unwrap();
    }

    /// A program that writes its name down and ends as told.
    fn add_step(&self, name: &str, status: u8) {
        let text = format!("#!/bin/sh\necho \"{name} $*\" >> {}\nexit {status}\n", self.path("calls"));
        self.add(name, &text);
    }

    /// What was called, without the questions.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap();
        calls.lines().filter(|line| !line.starts_with("devlink -j")).map(str::to_string).collect()
    }

    fn questions(&self) -> usize {
        fs::read_to_string(self.path("calls")).unwrap().lines().filter(|line| line.starts_with("devlink -j")).count()
    }

    /// Runs a script with these tools.
    fn run(&self, faults: &[&str], text: &str) -> Ran {
        script("connectx", faults, &self.with_path(text))
    }

    fn with_path(&self, text: &str) -> String {
        format!("PATH={}:$PATH; export PATH\n{text}", self.directory.path().display())
    }
}

/// A policy file for the VF, to be put into a script.
fn policy(prepare: &str) -> String {
    format!(
        "cat > /etc/vfioctl.d/50-vf.toml <<'EOF'\n[[device]]\npf = '0000:3b:00.0'\nid = '15b3:101e'\ndriver = 'auto'\nprepare = {prepare}\nEOF\n"
    )
}

fn programs(result: &Value) -> Vec<&Value> {
    let steps = result["steps"].as_array().unwrap();
    steps.iter().filter(|step| matches!(step["step"].as_str(), Some("prepare" | "unprepare"))).collect()
}

fn steps(result: &Value) -> Vec<&str> {
    result["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect()
}

fn message(result: &Value) -> String {
    format!(
        "{}\n{}",
        result["error"]["message"].as_str().unwrap(),
        result["error"]["hint"].as_str().unwrap_or_default()
    )
}

fn kept(ran: &Ran) -> &str {
    ran.journal["after"]["policy"][format!("{VF}.toml")].as_str().unwrap_or_default()
}

fn set(is: &str) -> String {
    format!("devlink port function set {PORT} migratable {is}, driver none, override mlx5_vfio_pci")
}

// ---- what is known of a driver

#[test]
fn a_connectx_vf_is_made_migratable_between_the_drivers() {
    let tools = Tools::new("");
    let ran = tools.run(&[], "vfioctl bind --prepare --json 3b:00.1");
    ran.assert_status(0);
    assert_eq!(tools.calls(), [set("enable")]);
    let result = ran.result();
    assert_eq!(steps(&result), ["override", "unbind", "prepare", "load", "bind", "save"]);
    let step = programs(&result)[0];
    let command = [&*tools.path("devlink"), "port", "function", "set", PORT, "migratable", "enable"];
    assert_eq!(step["command"], json!(command));
    assert_eq!(step["target"], command.join(" "));
    assert_eq!(step["undo"], json!([&command[..6], &["disable"]].concat()));
    assert_eq!((&step["exit_status"], &step["output"]), (&json!(0), &json!("enabled\n")));
    assert_eq!((&step["already"], &step["timed_out"], &step["done"]), (&json!(false), &json!(false), &json!(true)));
    assert_eq!(ran.changed(), [VF]);
    assert!(kept(&ran).contains("prepare = \"auto\""), "{}", kept(&ran));
    assert_eq!(fs::read_to_string(tools.path("migratable")).unwrap(), "enable\n");
}

#[test]
fn a_module_that_is_in_already_does_not_have_it_sooner() {
    let tools = Tools::new("");
    let ran = tools.run(&[], "modprobe mlx5_vfio_pci; vfioctl bind --prepare 3b:00.1");
    ran.assert_status(0);
    assert_eq!(tools.calls(), [set("enable")]);
    assert!(
        ran.stdout.contains(&format!("prepared: {} port function set {PORT} migratable enable", tools.path("devlink"))),
        "{}",
        ran.stdout
    );
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci");
}

#[test]
fn what_is_so_already_is_not_done_again() {
    let tools = Tools::new("");
    tools.set("migratable", "enable");
    let ran = tools.run(
        &[],
        "vfioctl bind --prepare 3b:00.1 >&2; vfioctl unbind --no-save 3b:00.1 >&2; vfioctl apply --json 3b:00.1",
    );
    ran.assert_status(0);
    assert_eq!(tools.calls(), Vec::<String>::new());
    assert!(ran.stderr.contains("already prepared: "), "{}", ran.stderr);
    let result = ran.result();
    assert_eq!(result["outcome"], "bound", "{result}");
    let step = programs(&result)[0];
    assert_eq!((&step["already"], &step["exit_status"], &step["output"]), (&json!(true), &Value::Null, &Value::Null));
    // Nor is it put back by whoever has not done it.
    let ran = tools.run(
        &["0000:3b:00.1:probe:errno=EIO:nth=1"],
        "modprobe mlx5_vfio_pci; vfioctl bind --strict --prepare 3b:00.1",
    );
    ran.assert_status(1);
    ran.assert_as_before();
    assert_eq!(tools.calls(), Vec::<String>::new());
}

#[test]
fn nothing_is_done_unasked() {
    let tools = Tools::new("");
    let ran = tools.run(&[], "vfioctl bind 3b:00.1");
    ran.assert_status(0);
    assert_eq!((tools.calls().len(), tools.questions()), (0, 0));
    assert!(!kept(&ran).contains("prepare"));
}

#[test]
fn a_driver_that_needs_nothing_is_said_to() {
    let tools = Tools::new("");
    let ran = tools.run(&[], "vfioctl bind --prepare --driver vfio-pci 3b:00.1");
    ran.assert_status(0);
    assert!(ran.stderr.contains("nothing is known that is to be run before vfio-pci"), "{}", ran.stderr);
    assert_eq!((tools.calls().len(), tools.questions()), (0, 0));
}

#[test]
fn a_kernel_from_before_it_was_needed_is_spared() {
    let tools = Tools::new("");
    let host = copy("connectx");
    let modules = host.path().join("lib/modules");
    fs::rename(modules.join("7.0.0-43-generic"), modules.join("6.1.0-56-amd64")).unwrap();
    fs::write(host.path().join("proc/sys/kernel/osrelease"), "6.1.0-56-amd64\n").unwrap();
    let command = tools.with_path(&format!("{} bind --prepare 3b:00.1", support::VFIOCTL));
    let ran = on(host.path(), &[], &["sh", "-c", &command]);
    ran.assert_status(0);
    assert_eq!((tools.calls().len(), tools.questions()), (0, 0));
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci");
}

#[test]
fn a_device_that_has_its_driver_is_not_prepared_any_more() {
    let tools = Tools::new("");
    let ran = tools.run(&[], "vfioctl bind 3b:00.1 >/dev/null; vfioctl bind --prepare --json 3b:00.1");
    ran.assert_status(0);
    assert_eq!(ran.result()["outcome"], "unchanged");
    assert!(ran.result()["warnings"][0].as_str().unwrap().contains("migratable is disable"), "{}", ran.stdout);
    assert!(tools.calls().is_empty());
    // The choice is kept all the same: for the next time.
    assert!(kept(&ran).contains("prepare = \"auto\""));
    let ran = tools.run(&[], "vfioctl bind --prepare 3b:00.1 >/dev/null; vfioctl bind --json 3b:00.1");
    assert_eq!(ran.result()["warnings"], json!([]));
}

#[test]
fn what_is_for_the_administrator_to_do_is_looked_at() {
    for (state, status) in [("down\n", 4), ("up\n", 0)] {
        let host = copy("qat");
        let pf = fs::canonicalize(host.path().join("sys/bus/pci/devices/0000:6b:00.0")).unwrap();
        fs::write(pf.join("qat/state"), state).unwrap();
        let ran = on(host.path(), &[], &[support::VFIOCTL, "bind", "--prepare", "6b:00.1"]);
        ran.assert_status(status);
        if status == 4 {
            ran.assert_as_before();
            assert!(ran.writes().is_empty());
            assert!(ran.stderr.contains("qat/state is down"), "{}", ran.stderr);
            assert!(ran.stderr.contains("echo up > /sys/bus/pci/devices/0000:6b:00.0/qat/state"), "{}", ran.stderr);
        }
    }
}

// ---- what goes wrong

#[test]
fn a_step_that_fails_keeps_the_driver_away() {
    let tools = Tools::new("set-fails");
    let ran = tools.run(&[], "vfioctl bind --prepare --json 3b:00.1");
    ran.assert_status(1);
    let result = ran.result();
    assert_eq!(result["error"]["kind"], "preparation");
    let message = message(&result);
    for words in [
        "migratable enable: exit status: 1: one; devlink answers: Operation not supported",
        "put back: it is on mlx5_core",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let step = programs(&result)[0];
    assert_eq!((&step["exit_status"], &step["done"]), (&json!(1), &json!(false)));
    assert_eq!(step["output"], "one\ndevlink answers: Operation not supported\n");
    // No driver was tried, not the next best one either.
    assert!(
        !ran.writes().iter().any(|write| write.contains("vfio") && !write.starts_with("driver_override")),
        "{:?}",
        ran.writes()
    );
    ran.assert_as_before();
}

#[test]
fn a_step_that_does_not_end_is_killed_with_its_children() {
    let tools = Tools::new("set-hangs");
    let started = Instant::now();
    let ran = tools.run(&[], "vfioctl --timeout 1 bind --prepare --json 3b:00.1");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    ran.assert_status(7);
    ran.assert_as_before();
    let result = ran.result();
    assert_eq!(result["error"]["kind"], "timeout");
    assert!(message(&result).contains("still ran after 1 s, and was killed"), "{}", message(&result));
    let step = programs(&result)[0];
    assert_eq!(
        (&step["timed_out"], &step["exit_status"], &step["output"]),
        (&json!(true), &Value::Null, &json!("begun\n"))
    );
    for pid in fs::read_to_string(tools.path("pids")).unwrap().split_whitespace() {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(status.is_empty() || status.contains(") Z "), "{status}");
    }
}

#[test]
fn a_step_can_have_a_time_of_its_own() {
    let tools = Tools::new("");
    let long = policy("[{ run = ['sleep', '2'], timeout = 30 }]");
    tools.run(&[], &format!("{long}vfioctl --timeout 1 apply 3b:00.1")).assert_status(0);
    let short = policy("[{ run = ['sleep', '30'], timeout = 0.5 }]");
    let ran = tools.run(&[], &format!("{short}vfioctl apply 3b:00.1"));
    ran.assert_status(7);
    assert!(ran.stderr.contains("sleep 30 still ran after 0.5 s"), "{}", ran.stderr);
    assert!(ran.changed().is_empty(), "{:?}", ran.changed());
}

#[test]
fn what_was_done_before_is_put_back_in_reverse() {
    let tools = Tools::new("");
    for (name, status) in [("a", 0), ("b", 0), ("c", 0), ("d", 3)] {
        tools.add_step(name, status);
    }
    let rule = policy(
        "[{ run = ['a', '{address}'], undo = ['a', 'back'] }, ['b', '{vf_index}', '{{x}}'],\n\
         { run = ['c', 'x y'], undo = ['c', '{pf}'] }, { run = ['d'], undo = ['d', 'back'] }, ['c', 'never']]",
    );
    let ran = tools.run(&[], &format!("{rule}vfioctl apply --json 3b:00.1"));
    ran.assert_status(1);
    assert_eq!(tools.calls(), [&*format!("a {VF}"), "b 0 {x}", "c x y", "d ", "c 0000:3b:00.0", "a back"]);
    let result = ran.result();
    assert!(message(&result).contains(&format!("; still done: {} 0 ", tools.path("b"))), "{}", message(&result));
    assert!(ran.changed().is_empty(), "{:?}", ran.changed());
    assert_eq!(
        steps(&result),
        [
            "override",
            "unbind",
            "prepare",
            "prepare",
            "prepare",
            "prepare",
            "unprepare",
            "unprepare",
            "override",
            "bind",
            "clear-override"
        ]
    );
}

#[test]
fn a_driver_that_does_not_take_it_leaves_it_as_it_was() {
    let fault = ["0000:3b:00.1:probe:errno=EIO:nth=1"];
    let tools = Tools::new("");
    let ran = tools.run(&fault, "modprobe mlx5_vfio_pci; vfioctl bind --strict --prepare --json 3b:00.1");
    ran.assert_status(1);
    ran.assert_as_before();
    assert_eq!(tools.calls(), [set("enable"), set("disable")]);
    let result = ran.result();
    assert_eq!(
        steps(&result),
        ["override", "unbind", "prepare", "bind", "unprepare", "override", "bind", "clear-override"]
    );
    // The next best driver finds it as it was, too.
    let tools = Tools::new("");
    let ran = tools.run(&fault, "modprobe mlx5_vfio_pci; vfioctl bind --prepare 3b:00.1");
    ran.assert_status(0);
    assert_eq!(ran.device("after", VF)["driver"], "vfio-pci");
    assert_eq!(tools.calls(), [set("enable"), set("disable")]);
    assert!(!ran.stdout.contains("prepared"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_put_back_is_said() {
    let tools = Tools::new("undo-fails");
    let ran = tools.run(
        &["0000:3b:00.1:probe:errno=EIO:nth=1"],
        "modprobe mlx5_vfio_pci; vfioctl bind --strict --prepare --json 3b:00.1",
    );
    ran.assert_status(8);
    let message = message(&ran.result());
    for words in
        ["putting it back failed as well", "migratable disable: exit status: 1: kernel answers: busy", "still done: "]
    {
        assert!(message.contains(words), "{message}");
    }
    // The rest was put back.
    ran.assert_as_before();
}

#[test]
fn output_is_bounded() {
    let tools = Tools::new("");
    let rule = policy("[['seq', '100000']]");
    let ran = tools.run(&[], &format!("{rule}vfioctl apply --json 3b:00.1"));
    ran.assert_status(0);
    let result = ran.result();
    let output = programs(&result)[0]["output"].as_str().unwrap();
    assert!(output.len() <= 4096 + 10 && output.starts_with("[...]\n") && output.ends_with("\n100000\n"), "{output}");
}

#[test]
fn a_port_that_cannot_be_told_stops_it_before_anything_is_touched() {
    for (mode, status, words) in [
        ("legacy", 4, "'devlink dev eswitch set pci/0000:3b:00.0 mode switchdev' before the PF's VFs are made"),
        ("several", 1, "several devlink ports: pci/0000:3b:00.0/1, pci/0000:3b:00.0/2"),
        ("show-fails", 1, "port show: exit status: 1: devlink answers: Operation not permitted"),
        ("show-babbles", 1, "not its JSON"),
        ("show-hangs", 7, "cannot ask for its devlink port"),
    ] {
        let tools = Tools::new(mode);
        let ran = tools.run(&[], "vfioctl --timeout 2 bind --prepare --json 3b:00.1");
        ran.assert_status(status);
        ran.assert_as_before();
        assert!(ran.writes().is_empty(), "{mode}: {:?}", ran.writes());
        let message = message(&ran.result());
        assert!(message.contains(words) && message.contains("nothing was touched"), "{mode}: {message}");
        assert_eq!(tools.questions(), 1, "{mode}");
    }
}

#[test]
fn a_missing_program_stops_it_before_anything_is_touched() {
    let tools = Tools::new("");
    fs::remove_file(tools.path("devlink")).unwrap();
    // Whatever the machine has.
    let hide = "for d in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do \
                if [ -e $d/devlink ]; then mount --bind /dev/null $d/devlink || exit 99; fi; done\n";
    let ran = tools.run(&[], &format!("{hide}vfioctl bind --prepare --json 3b:00.1"));
    ran.assert_status(4);
    ran.assert_as_before();
    assert!(ran.writes().is_empty());
    assert!(message(&ran.result()).contains("install the package iproute2"), "{}", message(&ran.result()));

    tools.add_step("a", 0);
    tools.set("text", "no program");
    for (program, words) in
        [("no-such-tool", "which is in none of"), (&tools.path("text"), "no program"), (&tools.path("x"), "no program")]
    {
        let rule = policy(&format!("[['a'], ['{program}']]"));
        let ran = tools.run(&[], &format!("{rule}vfioctl apply 3b:00.1"));
        ran.assert_status(4);
        assert!(ran.writes().is_empty() && tools.calls().is_empty(), "{program}");
        assert!(ran.stderr.contains(words) && ran.stderr.contains(program), "{}", ran.stderr);
    }
}

#[test]
fn what_is_no_vf_has_no_pf() {
    let tools = Tools::new("");
    let rule = "printf '[[device]]\\naddress = \"0000:02:00.0\"\\ndriver = \"auto\"\\nprepare = [[\"true\", \"{pf}\"]]\\n' \
                > /etc/vfioctl.d/50.toml\n";
    let ran = tools.run(&[], &format!("{rule}vfioctl apply 02:00.0"));
    ran.assert_status(4);
    assert!(ran.writes().is_empty());
    assert!(ran.stderr.contains("uses {pf}, and this device is no VF"), "{}", ran.stderr);
}

#[test]
fn a_choice_that_cannot_be_kept_undoes_it() {
    let tools = Tools::new("");
    tools.add_step("a", 0);
    // What is written beside the file's place is gone when it is to be put there.
    tools.add("spoil", "#!/bin/sh\nrm /etc/vfioctl.d/.0000*\n");
    let rule = policy("[{ run = ['a'], undo = ['a', 'back'] }, ['spoil']]");
    let ran = tools.run(&[], &format!("{rule}modprobe mlx5_vfio_pci; vfioctl bind --json 3b:00.1"));
    ran.assert_status(1);
    assert!(ran.changed().is_empty(), "{:?}", ran.changed());
    let result = ran.result();
    assert_eq!(
        steps(&result)[5..],
        ["save", "unbind", "unprepare", "override", "bind", "clear-override"],
        "between the drivers, as it was done"
    );
    assert_eq!(tools.calls(), ["a ", "a back"]);
    assert!(message(&result).contains("; still done: "), "{}", message(&result));
}

#[test]
fn a_driver_that_blocks_or_a_device_that_goes_leaves_it_done_and_says_so() {
    for (fault, status) in [("probe:block", 7), ("bind:vanish", 3)] {
        let tools = Tools::new("");
        let text = "modprobe mlx5_vfio_pci; vfioctl --timeout 1 bind --prepare --json 3b:00.1";
        let ran = tools.run(&[&format!("0000:3b:00.1:{fault}")], text);
        ran.assert_status(status);
        assert_eq!(tools.calls(), [set("enable")]);
        let message = message(&ran.result());
        assert!(message.contains("; still done: ") && message.contains("migratable enable"), "{message}");
    }
}

#[test]
fn an_interrupt_lets_the_step_end_and_undoes_it() {
    let tools = Tools::new("");
    tools.add_step("a", 0);
    tools.add(
        "slow",
        &format!("#!/bin/sh\n: > {0}\nsleep 1\necho slow >> {1}\n", tools.path("begun"), tools.path("calls")),
    );
    let rule =
        policy("[{ run = ['a'], undo = ['a', 'back'] }, { run = ['slow'], undo = ['a', 'slow'] }, ['a', 'never']]");
    let text = format!(
        "{rule}exec 2>&1; env --default-signal=TERM {} apply 3b:00.1 & until [ -e {} ]; do sleep 0.02; done\n\
         kill -TERM $!; wait $!; echo status $?",
        support::VFIOCTL,
        tools.path("begun")
    );
    let ran = tools.run(&[], &text);
    assert!(ran.stdout.contains("status 1") && ran.stdout.contains("interrupted"), "{}", ran.stdout);
    assert_eq!(tools.calls(), ["a ", "slow", "a slow", "a back"]);
    assert!(ran.changed().is_empty(), "{:?}", ran.changed());
}

#[test]
fn each_device_has_its_own() {
    let tools = Tools::new("");
    tools.add_step("a", 0);
    let rule = policy("[['a', '{address}', '{vf_index}']]");
    let ran = tools.run(&[], &format!("{rule}vfioctl apply --json"));
    ran.assert_status(0);
    let mut calls = tools.calls();
    calls.sort();
    let expected: Vec<String> = (0..4).map(|index| format!("a 0000:3b:00.{} {index}", index + 1)).collect();
    assert_eq!(calls, expected);
    // Of two, the one without a port is refused, and the other is not held up.
    let tools = Tools::new("");
    let ran = tools.run(&[], "vfioctl bind --prepare --json 3b:00.1 3b:00.2");
    ran.assert_status(4);
    let document = ran.json();
    let outcomes = [0, 1].map(|index: usize| document["results"][index]["outcome"].as_str().unwrap());
    assert_eq!(outcomes, ["bound", "refused"]);
}

// ---- what rules say

#[test]
fn a_rules_steps_are_shown() {
    let tools = Tools::new("");
    let rule = policy("[['a', '{pf}']]");
    let ran = tools.run(&[], &format!("{rule}vfioctl show --json 3b:00.1"));
    assert_eq!(ran.json()["device"]["policy"]["prepare"], json!([["a", "{pf}"]]), "{}", ran.stdout);
    let ran = tools.run(&[], &format!("{rule}vfioctl show 3b:00.1"));
    assert!(ran.stdout.contains("auto, in /etc/vfioctl.d/50-vf.toml, prepare [[\"a\", \"{pf}\"]]"), "{}", ran.stdout);
    let ran = tools.run(&[], &format!("{rule}chmod 666 /etc/vfioctl.d/50-vf.toml; vfioctl show 3b:00.1"));
    assert!(ran.stdout.contains("  policy       none\n"), "{}", ran.stdout);
    assert!(ran.stderr.contains("50-vf.toml may be written by everybody (mode 0666)"), "{}", ran.stderr);
}

#[test]
fn a_dry_run_shows_the_words_and_runs_nothing() {
    let tools = Tools::new("");
    let ran = tools.run(&[], "vfioctl bind --prepare --dry-run 3b:00.1");
    ran.assert_status(0);
    let line = format!(
        "  3. prepare {} port function set {PORT} migratable enable: make the VF migratable",
        tools.path("devlink")
    );
    assert!(ran.stdout.contains(&line), "{}", ran.stdout);
    let rule = policy("[['echo', 'a b', '{address}']]");
    let ran = tools.run(&[], &format!("{rule}vfioctl apply --dry-run --json 3b:00.1"));
    ran.assert_status(0);
    let result = ran.result();
    let step = programs(&result)[0];
    assert_eq!(step["command"].as_array().unwrap()[1..], [json!("a b"), json!(VF)]);
    assert!(step["target"].as_str().unwrap().ends_with("/echo 'a b' 0000:3b:00.1"), "{step}");
    assert_eq!((&step["done"], &step["exit_status"], &step["output"]), (&json!(false), &Value::Null, &Value::Null));
    assert!(ran.writes().is_empty() && tools.calls().is_empty());
}

#[test]
fn another_host_is_planned_for_and_asked_nothing() {
    let tools = Tools::new("");
    let host = copy("connectx");
    let ran = tools.run(&[], &format!("vfioctl --root {} bind --prepare --dry-run 3b:00.1", host.path().display()));
    ran.assert_status(0);
    assert!(ran.stdout.contains("prepare devlink port function set '{port}' migratable enable"), "{}", ran.stdout);
    let ran = tools.run(&[], &format!("vfioctl --root {} bind --prepare --no-save 3b:00.1", host.path().display()));
    assert_eq!(ran.status, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("would be run on this machine"), "{}", ran.stderr);
    assert_eq!((tools.calls().len(), tools.questions()), (0, 0));
}

#[test]
fn apply_runs_what_a_rule_says_and_claim_does_not() {
    let tools = Tools::new("");
    let rule = policy("[['devlink', 'port', 'function', 'set', '{port}', 'migratable', 'enable']]");
    let ran = tools.run(&[], &format!("{rule}vfioctl claim; vfioctl claim --udev 3b:00.3"));
    assert_eq!((tools.calls().len(), tools.questions()), (0, 0), "{}", ran.stderr);
    let ran = tools.run(&[], &format!("{rule}vfioctl apply --json 3b:00.1"));
    ran.assert_status(0);
    assert_eq!(tools.calls(), [set("enable")]);
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci");
    // Giving back does not undo: who is next may want it so.
    let ran = tools.run(&[], &format!("{rule}vfioctl apply 3b:00.1 && vfioctl unbind 3b:00.1"));
    ran.assert_status(0);
    assert_eq!(tools.calls().len(), 2);
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_core");
}

#[test]
fn a_step_finds_nothing_of_ours_around_it() {
    let tools = Tools::new("");
    tools.add("look", "#!/bin/sh\nenv | sort; pwd; ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/fd/0\n");
    let rule = policy("[['look']]");
    let ran = tools.run(&[], &format!("{rule}exec 7</etc/passwd; export SECRET=x; vfioctl apply --json 3b:00.1"));
    ran.assert_status(0);
    let result = ran.result();
    let lines: Vec<&str> = programs(&result)[0]["output"].as_str().unwrap().lines().collect();
    let mut names: Vec<&str> = lines.iter().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // What the shell itself adds.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    assert_eq!(names, ["LANG", "PATH", "VFIOCTL_ADDRESS", "VFIOCTL_DRIVER", "VFIOCTL_PF"], "{lines:?}");
    for line in ["VFIOCTL_DRIVER=mlx5_vfio_pci", "VFIOCTL_PF=0000:3b:00.0", "/", "LANG=C.UTF-8"] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
    // ls has its own directory open as 3.
    assert_eq!(lines.last(), Some(&"0 1 2 3 /dev/null"), "{lines:?}");
}

#[test]
fn only_what_root_alone_can_change_is_run() {
    let tools = Tools::new("");
    tools.add_step("a", 0);
    let rule = policy("[['a']]");
    let file = "/etc/vfioctl.d/50-vf.toml";
    let linked =
        "mkdir -m 777 /run/open; mv /etc/vfioctl.d/50-vf.toml /run/open/x; ln -s /run/open/x /etc/vfioctl.d/50-vf.toml";
    for (change, words) in [
        (format!("chmod 664 {file}"), format!("chmod go-w {file}")),
        (format!("chmod 646 {file}"), format!("chmod go-w {file}")),
        ("chmod 1777 /etc/vfioctl.d".to_string(), "chmod go-w /etc/vfioctl.d".to_string()),
        (linked.to_string(), "chmod go-w /run/open".to_string()),
    ] {
        let ran = tools.run(&[], &format!("{rule}{change}\nvfioctl apply 3b:00.1"));
        ran.assert_status(1);
        assert!(
            ran.stderr.contains(&words) && ran.stderr.contains("others than root could change /etc"),
            "{}",
            ran.stderr
        );
        assert!(ran.writes().is_empty() && tools.calls().is_empty(), "{change}");
    }
    // A file that is left out is nothing to bind, which says so.
    let ran = tools.run(&[], &format!("{rule}chmod 666 {file}\nvfioctl bind --no-save 3b:00.1"));
    ran.assert_status(0);
    assert!(ran.stderr.contains("chmod go-w /etc/vfioctl.d/50-vf.toml") && tools.calls().is_empty(), "{}", ran.stderr);
    // A link that only root can change is as good as a file.
    let linked = format!("mkdir /run/shut; mv {file} /run/shut/x; ln -s ../../run/shut/x {file}");
    let ran = tools.run(&[], &format!("{}{linked}\nvfioctl apply 3b:00.1", policy("[['a']]")));
    ran.assert_status(0);
    assert_eq!(tools.calls(), ["a "]);
}

#[test]
fn what_would_not_be_believed_is_not_kept() {
    let tools = Tools::new("");
    for option in ["", "--prepare"] {
        let ran = tools.run(&[], &format!("chmod 775 /etc/vfioctl.d; vfioctl bind {option} 3b:00.1"));
        ran.assert_status(4);
        assert!(
            ran.stderr.contains("would not be believed at the next boot: /etc/vfioctl.d may be written by its group"),
            "{}",
            ran.stderr
        );
        assert!(ran.writes().is_empty() && tools.calls().is_empty() && ran.policy().is_empty());
    }
    tools.run(&[], "chmod 775 /etc/vfioctl.d; vfioctl bind --no-save --prepare 3b:00.1").assert_status(0);
}

/// Another user's file, where this user may give files away; elsewhere there are none of another user's to be had.
#[test]
fn what_belongs_to_somebody_else_is_not_run() {
    let tools = Tools::new("");
    tools.add_step("a", 0);
    let rule = policy("[['a']]");
    let text = format!("{rule}chown 1 /etc/vfioctl.d/50-vf.toml 2>/dev/null || exit 77\nvfioctl apply 3b:00.1");
    let ran = tools.run(&[], &text);
    if rustix::process::geteuid().is_root() {
        ran.assert_status(1);
        assert!(
            ran.stderr.contains("belongs to uid 1") && ran.stderr.contains("chown root:root /etc/vfioctl.d/50-vf.toml"),
            "{}",
            ran.stderr
        );
    } else {
        assert_eq!(ran.status, 77, "a user namespace has one user: {}", ran.stderr);
    }
    assert!(ran.writes().is_empty() && tools.calls().is_empty());
}

#[test]
fn a_rule_with_a_mistake_is_left_out_and_named() {
    let tools = Tools::new("");
    let ran = tools.run(&[], &format!("{}vfioctl apply 3b:00.1", policy("[['a', '{slot}']]")));
    ran.assert_status(1);
    assert!(ran.writes().is_empty());
    for words in ["50-vf.toml", "unknown placeholder {slot}", "{vf_index}"] {
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
}

// ---- what bind keeps

#[test]
fn steps_written_by_hand_are_not_lost() {
    let own = format!("/etc/vfioctl.d/{VF}.toml");
    let by_hand = format!(
        "vfioctl bind 3b:00.1 >/dev/null; vfioctl unbind --no-save 3b:00.1 >/dev/null; echo 'prepare = [[\"a\", \"{{pf}}\"]]' >> {own}\n"
    );
    let case = |first: &str, then: &str| {
        let tools = Tools::new("");
        tools.add_step("a", 0);
        let ran = tools.run(&[], &format!("{first}vfioctl {then}"));
        (ran, tools)
    };
    for (options, expected, calls) in [
        ("", "prepare = [[\"a\", \"{pf}\"]]", &["a 0000:3b:00.0"][..]),
        ("--driver vfio-pci", "prepare = [[\"a\", \"{pf}\"]]", &["a 0000:3b:00.0"]),
        ("--no-save", "prepare = [[\"a\", \"{pf}\"]]", &["a 0000:3b:00.0"]),
        ("--no-prepare", "", &[]),
    ] {
        let (ran, tools) = case(&by_hand, &format!("bind {options} 3b:00.1"));
        ran.assert_status(0);
        assert_eq!(kept(&ran).contains("prepare"), !expected.is_empty(), "{options}: {}", kept(&ran));
        assert!(kept(&ran).contains(expected), "{options}: {}", kept(&ran));
        assert_eq!(tools.calls(), calls, "{options}");
    }
    let (ran, tools) = case(&by_hand, "bind --prepare 3b:00.1");
    ran.assert_status(0);
    assert!(kept(&ran).contains("prepare = \"auto\""), "{}", kept(&ran));
    assert_eq!(tools.calls(), [set("enable")]);

    // What a rule of another file says goes along into the device's own, which outranks it.
    let (ran, _) = case(&policy("[['a', '{vf_index}']]"), "bind 3b:00.1");
    ran.assert_status(0);
    assert!(kept(&ran).contains("prepare = [[\"a\", \"{vf_index}\"]]"), "{}", kept(&ran));

    let (ran, _) = case(&by_hand, "bind --driver none 3b:00.1");
    ran.assert_status(4);
    assert!(ran.stderr.contains("--no-prepare leaves them out"), "{}", ran.stderr);
    let (ran, _) = case(&by_hand, "driverctl set-override 3b:00.1 vfio-pci");
    ran.assert_status(0);
    assert!(kept(&ran).contains("prepare = [["), "{}", kept(&ran));
}

#[test]
fn what_is_taken_over_from_driverctl_is_prepared_as_the_rule_has_it() {
    let tools = Tools::new("");
    tools.add_step("a", 0);
    let rule = policy("[['a', '{address}']]");
    let claim = format!("echo vfio-pci > /etc/driverctl.d/pci-{VF}\n");
    let ran = tools.run(&[], &format!("{rule}{claim}vfioctl import-driverctl --yes >&2; vfioctl apply 3b:00.1"));
    ran.assert_status(0);
    assert!(kept(&ran).contains("prepare = [[\"a\", \"{address}\"]]"), "{}", kept(&ran));
    assert_eq!(tools.calls(), [format!("a {VF}")]);
    let ran =
        tools.run(&[], &format!("{rule}{claim}chmod 666 /etc/vfioctl.d/50-vf.toml; vfioctl import-driverctl --yes"));
    ran.assert_status(4);
    assert!(kept(&ran).is_empty() && ran.stderr.contains("driverctl keeps the device"), "{}", ran.stderr);
}

#[test]
fn a_file_that_cannot_be_read_is_not_written_over() {
    let own = format!("/etc/vfioctl.d/{VF}.toml");
    let broken = format!(
        "vfioctl bind 3b:00.1 >/dev/null; vfioctl unbind --no-save 3b:00.1 >/dev/null; echo 'prepare = [[\"a\", \"{{slot}}\"]]' >> {own}\n"
    );
    let tools = Tools::new("");
    let ran = tools.run(&[], &format!("{broken}vfioctl bind 3b:00.1"));
    ran.assert_status(4);
    assert!(ran.stderr.contains("unknown placeholder {slot}"), "{}", ran.stderr);
    assert!(kept(&ran).contains("{slot}"));
    tools.run(&[], &format!("{broken}vfioctl bind --no-prepare 3b:00.1")).assert_status(0);
}

#[test]
fn contradictions_are_usage_errors() {
    let tools = Tools::new("");
    for options in ["--prepare --no-prepare", "--prepare --driver none"] {
        let ran = tools.run(&[], &format!("vfioctl bind {options} 3b:00.1"));
        ran.assert_status(2);
        assert!(ran.writes().is_empty());
    }
    assert!(Path::new(&tools.path("devlink")).exists() && tools.questions() == 0);
}
