// SPDX-License-Identifier: MIT OR Apache-2.0
//! The collection for Ansible, run by ansible-core itself on a simulated host: check mode changes nothing and says what would
//! change, a second run changes nothing, and what vfioctl refuses is told as it says it.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use support::ran::{Ran, on};

/// The blocks of code in docs/fleets.md.
fn shown() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fleets.md")).unwrap();
    let blocks = text.split("\n\n").filter(|block| block.starts_with("    "));
    blocks.map(|block| block.lines().map(|line| format!("{}\n", &line[4..])).collect::<Vec<_>>().concat()).collect()
}

/// Runs a script in which `play` runs the playbook, on a host with a file of somebody else's.
fn ansible(playbook: &str, script: &str) -> Ran {
    let missing = "ansible-playbook is not there: 'tests/prerequisites test' installs it (package ansible-core)";
    let is_there =
        Command::new("ansible-playbook").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(is_there, "{missing}");
    let home = tempfile::tempdir().unwrap();
    let collections = home.path().join("ansible_collections/vfioctl");
    fs::create_dir_all(&collections).unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/ansible");
    std::os::unix::fs::symlink(ours, collections.join("vfioctl")).unwrap();
    fs::write(home.path().join("play.yml"), playbook).unwrap();
    // Whatever is installed here: no initramfs of this machine is touched.
    for builder in ["update-initramfs", "dracut", "mkinitcpio"] {
        let path = home.path().join("bin").join(builder);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\necho {builder} \"$@\" >>{}/built\n", home.path().display())).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    let directory = Path::new(support::VFIOCTL).parent().unwrap();
    let setup = format!(
        "export HOME={home} ANSIBLE_COLLECTIONS_PATH={home} ANSIBLE_LOCALHOST_WARNING=False ANSIBLE_NOCOLOR=1 PATH={home}/bin:{bin}:$PATH
         cd {home}
         echo '# By hand.' >/etc/vfioctl.d/mine.toml
         play() {{
             ansible-playbook -i localhost, -c local -e ansible_python_interpreter='{{{{ ansible_playbook_python }}}}' play.yml \"$@\"
         }}
         {script}",
        home = home.path().display(),
        bin = directory.display(),
    );
    on(&support::fixtures().join("connectx"), &[], &["sh", "-c", &setup])
}

#[test]
fn the_role_changes_what_it_said_it_would_and_does_so_once() {
    let blocks = shown();
    let block = |start: &str| blocks.iter().find(|block| block.starts_with(start)).unwrap();
    let ran = ansible(block("- hosts"), "play --check --diff; simhost ctl state; play; play; test ! -e built");
    ran.assert_status(0);
    let recaps: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("localhost ")).collect();
    let is_changed: Vec<bool> = recaps.iter().map(|line| line.contains("changed=1 ")).collect();
    assert_eq!(is_changed, [true, true, false], "{}{}", ran.stdout, ran.stderr);
    assert!(recaps.iter().all(|line| line.contains("failed=0 ")), "{recaps:?}");
    // What the document shows, in that order.
    let mut lines = ran.stdout.lines();
    for line in block("TASK").lines() {
        assert!(lines.any(|printed| printed == line), "no {line}\n{}", ran.stdout);
    }
    // Check mode had left all as it was.
    let state = &ran.stdout[ran.stdout.find("\n{").unwrap()..];
    let state: Value = serde_json::Deserializer::from_str(state).into_iter().next().unwrap().unwrap();
    assert_eq!(state["devices"], ran.journal["before"]["devices"]);
    assert_eq!(state["policy"].as_object().unwrap().keys().collect::<Vec<_>>(), ["mine.toml"]);

    assert_eq!(ran.changed().len(), 4);
    assert_eq!(ran.policy(), ["ansible.toml", "mine.toml"]);
    let text = ran.journal["after"]["policy"]["ansible.toml"].as_str().unwrap();
    assert!(text.ends_with("\n[[device]]\npf = \"0000:3b:00.0\"\ndriver = \"auto\"\n"), "{text}");
}

/// Also where a device is refused: the next run would not know that the policy is another than in the initramfs.
#[test]
fn the_initramfs_is_rebuilt_where_vfioctl_is_part_of_it() {
    let role = json!([{"hosts": "all", "gather_facts": false, "roles": [{
        "role": "vfioctl.vfioctl.vfioctl",
        "vars": {"vfioctl_devices": [{"address": "3a:00.0", "driver": "auto"}]},
    }]}]);
    let overlay = "overlay -o lowerdir=/usr/share,upperdir=/run/share/upper,workdir=/run/share/work";
    let ran = ansible(
        &role.to_string(),
        &format!(
            "mkdir -p /run/share/upper /run/share/work
             mount -t {overlay} overlay /usr/share || mount -t {overlay},userxattr overlay /usr/share
             mkdir -p /usr/share/initramfs-tools/hooks; touch /usr/share/initramfs-tools/hooks/vfioctl
             play --check >&2; test ! -e built || echo built; play; play >&2; cat built"
        ),
    );
    assert!(ran.stdout.contains("failed=1 "), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.ends_with("\nupdate-initramfs -u\n"), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout.matches("\nupdate-initramfs").count(), 1, "{}", ran.stdout);
}

#[test]
fn the_collection_is_of_this_version_and_its_variables_are_documented() {
    let read = |name: &str| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/ansible").join(name)).unwrap()
    };
    let version = format!("\nversion: {}\n", env!("CARGO_PKG_VERSION"));
    assert!(read("galaxy.yml").contains(&version), "contrib/ansible/galaxy.yml lacks {version}");
    let (readme, defaults) = (read("README.md"), read("roles/vfioctl/defaults/main.yml"));
    let specs = read("roles/vfioctl/meta/argument_specs.yml");
    let variables = specs.lines().filter_map(|line| line.strip_prefix("      ")?.strip_suffix(':'));
    let variables: Vec<&str> = variables.filter(|name| name.starts_with("vfioctl_")).collect();
    assert!(variables.len() > 5, "{variables:?}");
    for name in variables {
        assert!(readme.contains(&format!("| `{name}` | ")), "the README lacks {name}");
        let is_required = name == "vfioctl_devices";
        assert_eq!(defaults.contains(&format!("\n{name}: ")), !is_required, "{name}");
    }
}

#[test]
fn the_module_tells_what_came_of_each_device() {
    let vf = json!({"address": "3b:00.1", "driver": "vfio-pci"});
    let bridge = json!({"address": "3a:00.0", "driver": "auto"});
    let odd = json!({"address": "nonsense", "driver": "auto"});
    let calls = [
        ("check", true, json!({"devices": [vf]})),
        ("first", false, json!({"devices": [vf], "name": "first"})),
        ("second", false, json!({"devices": [vf], "name": "second"})),
        ("mine", false, json!({"devices": [vf], "name": "mine"})),
        ("odd", false, json!({"devices": [vf, odd], "name": "second"})),
        ("refused", true, json!({"devices": [vf, bridge], "name": "second"})),
        ("absent", true, json!({"devices": [vf], "executable": "no-such-program"})),
        ("leaving", true, json!({"devices": [], "give_back": true})),
        ("gone", false, json!({"devices": [], "give_back": true})),
        ("again", false, json!({"devices": [], "give_back": true})),
    ];
    let task = |(name, is_checked, arguments): &(&str, bool, Value)| {
        json!({
            "name": name, "vfioctl.vfioctl.policy": arguments, "check_mode": is_checked, "ignore_errors": true, "register": name,
        })
    };
    let mut tasks: Vec<Value> = calls.iter().map(task).collect();
    let all: Vec<String> = calls.iter().map(|(name, ..)| format!("'{name}': {name}")).collect();
    let all = format!("{{{{ {{ {} }} | to_json }}}}", all.join(", "));
    tasks.push(json!({"ansible.builtin.copy": {"content": all, "dest": "results.json", "mode": "0600"}}));
    let playbook = json!([{"hosts": "all", "gather_facts": false, "tasks": tasks}]);
    let ran = ansible(&playbook.to_string(), "play >&2; cat results.json; ls /run >&2");
    let results = ran.json();
    for name in ["check", "first"] {
        assert_eq!(results[name]["changed"], true, "{results}");
        assert_eq!(results[name]["results"][0]["diff"]["after"]["driver"], "vfio-pci", "{results}");
    }
    // By another file's name: that is another, and the device as it was.
    let second = &results["second"];
    assert_eq!((&second["changed"], &second["results"][0]["changed"]), (&json!(true), &json!(false)), "{second}");
    let message = |name: &str| {
        assert_eq!(results[name]["failed"], true, "{results}");
        results[name]["msg"].as_str().unwrap().to_string()
    };
    assert!(message("mine").contains("not by this module's hand"), "{results}");
    let odd = message("odd");
    assert!(odd.contains("/etc/vfioctl.d/second.toml") && odd.contains("not a PCI address"), "{odd}");
    let refused = message("refused");
    assert!(refused.contains("0000:3a:00.0") && refused.contains("bridge"), "{refused}");
    assert_eq!(results["refused"]["rc"], 4);
    // Check mode comes before the package is installed.
    let absent = &results["absent"];
    assert_eq!((&absent["changed"], &absent["results"]), (&json!(true), &json!([])), "{absent}");
    assert!(absent["warnings"][0].as_str().unwrap().contains("not installed"), "{absent}");
    for name in ["leaving", "gone"] {
        assert_eq!(results[name]["changed"], true, "{results}");
        assert_eq!(results[name]["results"][0]["address"], "0000:3b:00.1", "{results}");
    }
    assert_eq!(results["again"]["changed"], false, "{results}");
    // As before, but for the file that is not ours; and no directory of candidates is left.
    assert_eq!(ran.changed(), Vec::<&str>::new());
    assert_eq!(ran.policy(), ["mine.toml"]);
    assert!(!ran.stderr.contains("vfioctl-ansible-"), "{}", ran.stderr);
}
