// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of one verb with something going wrong, and what there is to say of it afterwards: the state before and after, the
//! writes in between, and the report.
#![allow(dead_code)]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// The fixture.
    pub host: String,
    /// Shell words before anything goes wrong.
    pub setup: String,
    /// What goes wrong from then on.
    pub faults: Vec<String>,
    /// The shell words that are tried; `vfioctl` is ours.
    pub command: String,
    /// Shell words after the state was looked at, `$status` being what the command gave.
    pub afterwards: String,
}

/// What came of it.
#[derive(Debug)]
pub struct Trace {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    /// How long the command took.
    pub took: Duration,
    /// The state before and after the command.
    pub before: Value,
    pub after: Value,
    /// The state at the very end.
    pub finally: Value,
    /// What was written in between, and by whom.
    pub operations: Vec<Operation>,
    /// The places that operations came to, those of the setup included.
    pub passed: Vec<String>,
    /// The files below /run/vfioctl.
    pub runtime: Vec<String>,
    /// What `afterwards` printed.
    pub afterwards: String,
}

/// A write, or the loading of a module.
#[derive(Clone, Debug)]
pub struct Operation {
    pub path: String,
    pub data: String,
    /// `None` while it lasts.
    pub result: Option<i64>,
    pub error: Option<String>,
    pub is_ours: bool,
}

impl Operation {
    /// Is it this device's, and by this attribute?
    pub fn is_of(&self, address: &str, attribute: &str) -> bool {
        let of_driver = self.data.trim_end() == address && self.path.starts_with("/sys/bus/pci/");
        let file = self.path.rsplit('/').next().unwrap_or_default();
        file == attribute && (of_driver || self.path.contains(&format!("/{address}/")))
    }

    /// Did the kernel do it?
    pub fn is_done(&self) -> bool {
        self.result == Some(0)
    }
}

impl Trial {
    /// Runs it on a host of its own.
    pub fn run(&self) -> Trace {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let faults: String =
            self.faults.iter().map(|fault| format!("simhost ctl fault '{fault}'\n")).collect::<Vec<_>>().concat();
        let script = format!(
            "vfioctl() {{ {vfioctl} \"$@\"; }}
             work={work}
             {{ {setup}
             }} >$work/setup 2>&1
             simhost ctl state >$work/before; simhost ctl journal >$work/earlier
             {faults}
             date +%s%N >$work/begun
             {{ {command}
             }} >$work/stdout 2>$work/stderr
             status=$?; echo $status >$work/status; date +%s%N >$work/ended
             simhost ctl state >$work/after; simhost ctl journal >$work/journal
             find /run/vfioctl -type f >$work/runtime
             {{ {afterwards}
             }} >$work/afterwards 2>&1; true",
            vfioctl = super::VFIOCTL,
            work = directory.path().display(),
            setup = or_nothing(&self.setup),
            command = self.command,
            afterwards = or_nothing(&self.afterwards),
        );
        let mut simhost = Command::new(super::simhost());
        simhost.arg("run").arg(super::fixtures().join(&self.host)).arg("--journal").arg(at("all"));
        let output = super::run(simhost.args(["--", "sh", "-c", &script]));
        let text = |name: &str| {
            let bytes = fs::read(at(name)).unwrap_or_else(|error| {
                panic!("simhost left no {name} ({error}); it needs root and /dev/fuse: {}", super::transcript(&output))
            });
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let document = |name: &str| -> Value {
            serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}: {}", text(name)))
        };
        let number = |name: &str| -> u64 { text(name).trim().parse().unwrap() };
        let all = document("all");
        let earlier = document("earlier").as_array().unwrap().len();
        let lines = |name: &str| text(name).lines().map(str::to_string).collect();
        Trace {
            status: text("status").trim().parse().unwrap(),
            stdout: text("stdout"),
            stderr: text("stderr") + &String::from_utf8_lossy(&output.stderr),
            took: Duration::from_nanos(number("ended") - number("begun")),
            before: document("before"),
            after: document("after"),
            finally: all["after"].clone(),
            operations: document("journal").as_array().unwrap()[earlier..].iter().map(operation).collect(),
            passed: all["passed"].as_array().unwrap().iter().map(|place| place.as_str().unwrap().to_string()).collect(),
            runtime: lines("runtime"),
            afterwards: text("afterwards"),
        }
    }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "true" } else { text }
}

fn operation(value: &Value) -> Operation {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_string();
    Operation {
        path: text("path"),
        data: text("data"),
        result: value["result"].as_i64(),
        error: value["error"].as_str().map(str::to_string),
        is_ours: value["command"] == "vfioctl",
    }
}

impl Trace {
    /// The report.
    pub fn document(&self) -> Option<Value> {
        serde_json::from_str(&self.stdout).ok()
    }

    /// A device before or after.
    pub fn device<'a>(state: &'a Value, address: &str) -> &'a Value {
        &state["devices"][address]
    }

    /// The policy files' names and texts.
    pub fn policy(state: &Value) -> Vec<(&str, &str)> {
        let files = state["policy"].as_object().unwrap();
        files.iter().map(|(name, text)| (name.as_str(), text.as_str().unwrap())).collect()
    }

    /// For a message about it.
    pub fn shown(&self) -> String {
        let operations: Vec<String> = self
            .operations
            .iter()
            .map(|operation| {
                let who = if operation.is_ours { "" } else { " (somebody else)" };
                let file: Vec<&str> = operation.path.rsplit('/').take(2).collect();
                let answer = match (&operation.error, operation.result) {
                    (Some(error), _) => error.clone(),
                    (None, result) => result.map_or("under way".to_string(), |result| result.to_string()),
                };
                format!("    {}/{} {:?}: {answer}{who}", file.last().unwrap(), file[0], operation.data)
            })
            .collect();
        format!(
            "  status {} after {:.1} s\n{}\n  {}\n  {}",
            self.status,
            self.took.as_secs_f32(),
            operations.join("\n"),
            self.stderr.trim_end().replace('\n', "\n  "),
            self.afterwards.trim_end().replace('\n', "\n  ")
        )
    }
}

/// Runs work on each item with so many threads: most of the time is spent waiting.
pub fn in_parallel<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let queue = std::sync::Mutex::new(items.iter().enumerate());
    let results = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((index, item)) = queue.lock().unwrap().next() else { break };
                    let result = work(item);
                    results.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// How long something took, for summaries.
pub fn since(started: Instant) -> String {
    format!("{:.0} s", started.elapsed().as_secs_f32())
}
