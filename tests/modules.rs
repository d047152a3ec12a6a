// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts whose module tables are not as they should be: what commands say, and that they go on.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const RELEASE: &str = "7.0.0-43-generic";

/// A copy of the connectx host that may be spoilt.
fn host() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().join("host");
    let status = Command::new("cp").arg("-a").arg(support::fixtures().join("connectx")).arg(&host).status().unwrap();
    assert!(status.success());
    (directory, host)
}

fn vfioctl(host: &Path, arguments: &[&str]) -> String {
    support::transcript(&support::run(Command::new(support::VFIOCTL).arg("--root").arg(host).args(arguments)))
}

#[test]
fn a_kernel_that_is_not_installed_is_no_kernel_with_the_generic_driver_alone() {
    let (_directory, host) = host();
    for arguments in [["match", "3b:00.2"].as_slice(), &["list"], &["drivers"]] {
        let arguments = [&["--kernel", "nope"], arguments].concat();
        let text = vfioctl(&host, &arguments);
        assert!(text.contains("there is no kernel nope here") && text.ends_with("exit status 1\n"), "{text}");
    }
}

#[test]
fn without_modules_dep_nothing_is_called_installed() {
    let (_directory, host) = host();
    fs::remove_file(host.join("lib/modules").join(RELEASE).join("modules.dep")).unwrap();
    let text = vfioctl(&host, &["drivers"]);
    assert!(text.contains("unknown") && !text.contains("installed") && !text.contains("missing"), "{text}");
    let text = vfioctl(&host, &["bind", "--dry-run", "3b:00.2"]);
    assert!(text.contains("load mlx5_vfio_pci"), "modprobe has the last word: {text}");
}

#[test]
fn modprobe_files_that_cannot_be_read_keep_nothing_from_being_matched() {
    let (_directory, host) = host();
    let directory = host.join("etc/modprobe.d");
    fs::create_dir_all(directory.join("virtualbox-dkms.conf")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.join("gone.conf")).unwrap();
    let output = support::run(Command::new(support::VFIOCTL).arg("--root").arg(&host).args(["match", "3b:00.2"]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "mlx5_vfio_pci\n");
}
