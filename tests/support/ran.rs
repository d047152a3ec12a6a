// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole program on a simulated host, and what it left there. Each run shows a fixture as /sys in a mount namespace of its
//! own and writes a journal: the state before and after, and every write to sysfs. This takes root (or a user namespace) and
//! /dev/fuse; where these are missing the tests fail and say so.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What a run left.
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    pub journal: Value,
}

/// Runs `vfioctl ARGUMENTS` on a host.
pub fn vfioctl(host: &str, faults: &[&str], arguments: &[&str]) -> Ran {
    on(&super::fixtures().join(host), faults, &[&[super::VFIOCTL], arguments].concat())
}

/// Runs a shell script on a host, in which `vfioctl` is ours.
pub fn script(host: &str, faults: &[&str], script: &str) -> Ran {
    let function = format!("vfioctl() {{ {} \"$@\"; }}\n{script}", super::VFIOCTL);
    on(&super::fixtures().join(host), faults, &["sh", "-c", &function])
}

pub fn on(host: &Path, faults: &[&str], command: &[&str]) -> Ran {
    let journal = tempfile::NamedTempFile::new().unwrap();
    let mut simhost = Command::new(super::simhost());
    simhost.arg("run").arg(host).arg("--journal").arg(journal.path());
    for fault in faults {
        simhost.args(["--fault", fault]);
    }
    let output = super::run(simhost.arg("--").args(command));
    let text = fs::read_to_string(journal.path()).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let ran = Ran {
        status: output.status.code().expect("simhost was not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        journal: serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("simhost left no journal ({error}); it needs root and /dev/fuse: {stderr}")),
        stderr,
    };
    // Whatever else happens: new_id captures every device with the same ids.
    assert!(!ran.writes().iter().any(|write| write.contains("new_id")), "{:?}", ran.writes());
    ran
}

impl Ran {
    /// The writes, in order, each as `ATTRIBUTE VALUE`; modprobe's as `modprobe ARGUMENTS`.
    pub fn writes(&self) -> Vec<String> {
        let operations = self.journal["operations"].as_array().unwrap();
        let line = |operation: &Value| {
            let path = operation["path"].as_str().unwrap();
            let data = operation["data"].as_str().unwrap().trim_end().to_string();
            let parts: Vec<&str> = path.rsplitn(3, '/').collect();
            match parts.as_slice() {
                ["bind" | "unbind", driver, _] => format!("{driver}/{} {data}", parts[0]),
                [attribute, ..] => format!("{attribute} {data}").trim_end().to_string(),
                [] => unreachable!(),
            }
        };
        operations.iter().map(line).collect()
    }

    pub fn device(&self, when: &str, address: &str) -> &Value {
        let device = &self.journal[when]["devices"][address];
        assert!(device.is_object(), "no device {address} {when}");
        device
    }

    /// The addresses whose driver, override or VFIO device changed.
    pub fn changed(&self) -> Vec<&str> {
        let after = self.journal["after"]["devices"].as_object().unwrap();
        after
            .iter()
            .filter(|(address, state)| self.journal["before"]["devices"][address.as_str()] != **state)
            .map(|(a, _)| a.as_str())
            .collect()
    }

    /// The names of the policy files left.
    pub fn policy(&self) -> Vec<&str> {
        self.journal["after"]["policy"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    pub fn assert_as_before(&self) {
        assert_eq!(self.changed(), Vec::<&str>::new(), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.journal["before"]["policy"], self.journal["after"]["policy"]);
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    /// The one result of a `--json` run.
    pub fn result(&self) -> Value {
        let document = self.json();
        let results = document["results"].as_array().unwrap();
        assert_eq!(results.len(), 1, "{document}");
        results[0].clone()
    }

    #[track_caller]
    pub fn assert_status(&self, status: i32) {
        assert_eq!(self.status, status, "\n{}{}", self.stdout, self.stderr);
    }
}

/// A copy of a fixture, to be changed.
pub fn copy(host: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let from: PathBuf = super::fixtures().join(host).join(".");
    let output = super::run(Command::new("cp").arg("-a").arg(from).arg(directory.path()));
    assert!(output.status.success(), "{output:?}");
    directory
}
