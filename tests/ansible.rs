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
    // Whatever is installed here: no initramfs of this machine is touched. Each fails as often as there is a file that says so.
    for builder in ["update-initramfs", "dracut", "mkinitcpio"] {
        let path = home.path().join("bin").join(builder);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            &path,
            format!(
                "#!/bin/sh\n! rm {0}/fails 2>/dev/null || exit 1\necho {builder} \"$@\" >>{0}/built\n",
                home.path().display()
            ),
        )
        .unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    let directory = Path::new(support::VFIOCTL).parent().unwrap();
    let setup = format!(
        "export HOME={home} ANSIBLE_COLLECTIONS_PATH={home} ANSIBLE_LOCALHOST_WARNING=False ANSIBLE_NOCOLOR=1 PATH={home}/bin:{bin}:$PATH
         cd {home}
         mount -t tmpfs none /var/lib
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

/// Once, also where a device is refused, and by the next run where that has failed.
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
             play --check >&2; test ! -e built || echo built; touch fails; play >&2; test ! -e built || echo built
             play; test ! -e /var/lib/vfioctl/ansible-initramfs-due || echo due; play >&2; cat built"
        ),
    );
    assert!(ran.stdout.contains("failed=1 "), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.ends_with("\nupdate-initramfs -u -k all\n"), "{}{}", ran.stdout, ran.stderr);
    for word in ["\nupdate-initramfs", "\nbuilt\n", "\ndue\n"] {
        assert_eq!(ran.stdout.matches(word).count(), usize::from(word.contains('-')), "{}", ran.stdout);
    }
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

/// A task whatever becomes of it.
fn task(name: &str, is_checked: bool, arguments: &Value) -> Value {
    json!({
        "name": name, "vfioctl.vfioctl.policy": arguments, "check_mode": is_checked, "ignore_errors": true, "register": name,
    })
}

fn shell(command: &str) -> Value {
    json!({"ansible.builtin.shell": command})
}

/// Runs these tasks, prints what was registered, and runs a script.
fn registered(mut tasks: Vec<Value>, script: &str) -> Ran {
    let names = tasks.iter().filter_map(|task| task["register"].as_str());
    let all: Vec<String> = names.map(|name| format!("'{name}': {name}")).collect();
    let all = format!("{{{{ {{ {} }} | to_json }}}}", all.join(", "));
    tasks.push(json!({"ansible.builtin.copy": {"content": all, "dest": "results.json", "mode": "0600"}}));
    let playbook = json!([{"hosts": "all", "gather_facts": false, "tasks": tasks}]);
    ansible(&playbook.to_string(), &format!("play >&2; cat results.json; {script}"))
}

/// What is leaving is known by the policy alone: one that says nothing of it any more is not written before it has left.
#[test]
fn a_device_that_could_not_be_given_back_is_given_back_by_the_next_run() {
    let kept = json!({"devices": [{"address": "3b:00.1", "driver": "vfio-pci"}]});
    let none = json!({"devices": [], "give_back": true});
    let ran = registered(
        vec![
            task("bound", false, &kept),
            shell("simhost ctl fault 0000:3b:00.1:unbind:errno=EIO:once"),
            task("failed", false, &none),
            shell("grep -q 3b:00.1 /etc/vfioctl.d/ansible.toml"),
            task("given", false, &none),
            task("again", true, &none),
        ],
        "",
    );
    let results = ran.json();
    assert_eq!(results["bound"]["changed"], true, "{results}");
    let failed = &results["failed"];
    assert_eq!((&failed["failed"], &failed["changed"], &failed["rc"]), (&json!(true), &json!(false), &json!(1)));
    assert!(failed["msg"].as_str().unwrap().contains("The policy is as it was"), "{failed}");
    assert_eq!(results["given"]["results"][0]["diff"]["after"]["driver"], "mlx5_core", "{results}");
    assert_eq!(results["again"]["changed"], false, "{results}");
    assert_eq!((ran.changed(), ran.policy()), (vec![], vec!["mine.toml"]));
}

/// Others' files are tried as they are: a link leads where it did, and what belongs to somebody else is believed no more.
#[test]
fn a_policy_is_tried_beside_the_files_that_are_there() {
    let rule =
        |function: u8| format!("printf '[[device]]\\naddress = \"3b:00.{function}\"\\ndriver = \"vfio-pci\"\\n'");
    let ran = registered(
        vec![
            shell(&format!(
                "mkdir /etc/vfioctl.d/more; {} >/etc/vfioctl.d/more/x; ln -s more/x /etc/vfioctl.d/x.toml",
                rule(2)
            )),
            shell(&format!("{} >/etc/vfioctl.d/y.toml; chown 65534 /etc/vfioctl.d/y.toml", rule(3))),
            task("tried", true, &json!({"devices": [{"address": "3b:00.1", "driver": "auto"}]})),
        ],
        "",
    );
    let results = ran.json();
    let results = results["tried"]["results"].as_array().unwrap_or_else(|| panic!("{results}"));
    let addresses: Vec<&str> = results.iter().map(|result| result["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["0000:3b:00.1", "0000:3b:00.2"]);
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
        ("line", false, json!({"devices": [vf], "name": "line\n"})),
        ("odd", false, json!({"devices": [vf, odd], "name": "second"})),
        ("refused", true, json!({"devices": [vf, bridge], "name": "second"})),
        ("absent", true, json!({"devices": [vf], "executable": "no-such-program"})),
        ("leaving", true, json!({"devices": [], "give_back": true})),
        ("gone", false, json!({"devices": [], "give_back": true})),
        ("again", false, json!({"devices": [], "give_back": true})),
    ];
    let tasks = calls.iter().map(|(name, is_checked, arguments)| task(name, *is_checked, arguments)).collect();
    let ran = registered(tasks, "ls /run >&2");
    let results = ran.json();
    assert!(!results.to_string().contains("still names it"), "{results}");
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
    assert!(message("line").contains("cannot be the name"), "{results}");
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
