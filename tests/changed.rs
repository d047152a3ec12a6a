// SPDX-License-Identifier: MIT OR Apache-2.0
//! `changed` and `diff`: what a program that manages many hosts goes by. What is foretold is what then happens, and what is so
//! already is not done again.

mod support;

use serde_json::{Value, json};

use support::ran::{Ran, copy, on, script, vfioctl};

const VF: &str = "0000:3b:00.1";
const POLICY: &str =
    "printf '[[device]]\\nclass = \"network\"\\npf = \"0000:3b:00.0\"\\ndriver = \"auto\"\\n' >/etc/vfioctl.d/vfs.toml";

/// The documents that a script has printed, one after the other.
fn documents(ran: &Ran) -> Vec<Value> {
    let documents = serde_json::Deserializer::from_str(&ran.stdout).into_iter::<Value>();
    documents.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr))
}

fn one(document: &Value) -> &Value {
    let results = document["results"].as_array().unwrap();
    results.iter().find(|result| result["address"] == VF).unwrap_or_else(|| panic!("{document}"))
}

#[test]
fn apply_foretells_what_it_changes_and_changes_it_once() {
    let ran = script(
        "connectx",
        &[],
        &format!(
            "{POLICY}; vfioctl apply --json --dry-run; vfioctl apply --json; vfioctl apply --json --dry-run; vfioctl apply --json"
        ),
    );
    ran.assert_status(0);
    let documents = documents(&ran);
    let [foretold, done, foretold_again, again] = documents.as_slice() else { panic!("{}", ran.stdout) };
    assert_eq!((&foretold["changed"], &done["changed"]), (&json!(true), &json!(true)), "{}", ran.stdout);
    let diff = json!({
        "before": {"driver": "mlx5_core", "driver_override": null, "persisted": false},
        "after": {"driver": "mlx5_vfio_pci", "driver_override": "mlx5_vfio_pci", "persisted": false},
    });
    assert_eq!((&one(foretold)["diff"], &one(done)["diff"]), (&diff, &diff));
    // Of each device of the policy, not of one alone.
    for (foretold, done) in foretold["results"].as_array().unwrap().iter().zip(done["results"].as_array().unwrap()) {
        assert_eq!((&foretold["address"], &foretold["diff"]), (&done["address"], &done["diff"]));
    }
    for document in [foretold_again, again] {
        assert_eq!(document["changed"], false);
        for result in document["results"].as_array().unwrap() {
            assert_eq!((&result["changed"], &result["diff"]), (&json!(false), &Value::Null), "{result}");
        }
    }
}

#[test]
fn what_is_refused_or_put_back_has_not_changed() {
    // A PF with VFs.
    let ran = vfioctl("connectx", &[], &["bind", "--json", "3b:00.0"]);
    ran.assert_status(4);
    assert_eq!((&ran.json()["changed"], &ran.result()["changed"]), (&json!(false), &json!(false)));

    let ran = script(
        "connectx",
        &[],
        "simhost ctl fault 0000:3b:00.1:bind:errno=EIO:nth=1; modprobe mlx5_vfio_pci; vfioctl bind --strict --json 3b:00.1",
    );
    ran.assert_status(1);
    assert_eq!((&ran.result()["outcome"], &ran.result()["changed"]), (&json!("failed"), &json!(false)));
    ran.assert_as_before();
}

#[test]
fn what_could_not_be_put_back_has_changed() {
    let ran = script("connectx", &["0000:3b:00.1:probe:errno=EIO"], "vfioctl bind --strict --json 3b:00.1");
    ran.assert_status(8);
    let result = ran.result();
    assert_eq!((&result["outcome"], &result["changed"]), (&json!("failed"), &json!(true)));
    assert_eq!(ran.changed(), [VF]);
    assert_eq!(result["diff"]["after"], json!({"driver": null, "driver_override": null, "persisted": false}));
}

#[test]
fn a_choice_that_is_kept_counts_and_the_same_choice_again_does_not() {
    let ran = script(
        "connectx",
        &[],
        "v() { vfioctl \"$@\" --json --dry-run 3b:00.1; vfioctl \"$@\" --json 3b:00.1; }
         v bind --no-save; v bind; v bind; v bind --driver mlx5_vfio_pci; v unbind; v unbind",
    );
    ran.assert_status(0);
    let documents = documents(&ran);
    let seen: Vec<(bool, Value)> = documents
        .iter()
        .map(|document| (document["changed"].as_bool().unwrap(), one(document)["diff"].clone()))
        .collect();
    for (number, run) in seen.chunks(2).enumerate() {
        let [foretold, done] = run else { unreachable!() };
        assert_eq!(foretold.0, done.0, "{number}: {foretold:?} {done:?}");
    }
    let done: Vec<bool> = seen.iter().skip(1).step_by(2).map(|(changed, _)| *changed).collect();
    assert_eq!(done, [true, true, false, true, true, false], "{seen:?}");
    // Which driver the kernel chooses is not foretold, and not said to be none.
    assert_eq!(seen[8].1["after"], json!({"driver_override": null, "persisted": false}));
    assert_eq!(seen[9].1["after"], json!({"driver": "mlx5_core", "driver_override": null, "persisted": false}));
}

/// The kernel is asked, and has no driver for it.
#[test]
fn a_device_without_a_native_driver_is_given_back_once() {
    let ran = script(
        "connectx",
        &[],
        "v() { vfioctl \"$@\" --json --dry-run 00:00.0; vfioctl \"$@\" --json 00:00.0; }
         v unbind; echo none >/sys/bus/pci/devices/0000:00:00.0/driver_override; v unbind; v unbind",
    );
    ran.assert_status(0);
    let documents = documents(&ran);
    let seen: Vec<(&Value, &Value)> =
        documents.iter().map(|document| (&document["changed"], &document["results"][0]["diff"])).collect();
    let diff = json!({
        "before": {"driver": null, "driver_override": "none", "persisted": false},
        "after": {"driver": null, "driver_override": null, "persisted": false},
    });
    let (same, another) = ((&json!(false), &Value::Null), (&json!(true), &diff));
    assert_eq!(seen, [same, same, another, another, same, same]);
}

#[test]
fn a_claimed_device_is_told_by_what_is_known_of_it() {
    let host = copy("connectx");
    let claim = "printf '[[device]]\\naddress = \"3b:00.3\"\\n' >/etc/vfioctl.d/x.toml
                 v=$1; for dry in --dry-run ''; do $v claim --json $dry; done";
    let ran = on(host.path(), &[], &["sh", "-c", claim, "sh", support::VFIOCTL]);
    for document in documents(&ran) {
        for result in document["results"].as_array().unwrap() {
            let is_done = matches!(result["outcome"].as_str(), Some("claimed" | "planned"));
            assert_eq!(result["changed"], is_done, "{result}");
            if is_done {
                assert_eq!(result["diff"]["before"].get("driver_override"), None, "{result}");
            }
        }
    }
}

#[test]
fn a_file_that_is_left_out_is_in_the_document() {
    let ran = script(
        "connectx",
        &[],
        "echo 'x = 1' >/etc/vfioctl.d/odd.toml; echo >/etc/vfioctl.d/others.toml; chmod 666 /etc/vfioctl.d/others.toml
         vfioctl apply --json --dry-run",
    );
    ran.assert_status(1);
    let document = &documents(&ran)[0];
    let files: Vec<&Value> = document["left_out"].as_array().unwrap().iter().map(|file| &file["file"]).collect();
    assert_eq!(files, ["/etc/vfioctl.d/odd.toml", "/etc/vfioctl.d/others.toml"], "{document}");
    assert!(document["left_out"][0]["message"].as_str().unwrap().contains("unknown field"), "{document}");
    assert!(document["left_out"][1]["hint"].as_str().unwrap().contains("chmod go-w"), "{document}");
}

#[test]
fn where_all_fails_there_is_no_document() {
    let ran = script("connectx", &[], "mkdir /run/none; vfioctl --json --root /run/none apply");
    ran.assert_status(1);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("cannot read /run/none/sys/bus/pci/devices"), "{}", ran.stderr);
}

/// A policy is tried before it is in force.
#[test]
fn another_directory_can_be_supposed_in_place_of_etc() {
    let ran = script(
        "connectx",
        &[],
        "printf '[[device]]\\naddress = \"3b:00.2\"\\ndriver = \"auto\"\\n' >/etc/vfioctl.d/now.toml
         mkdir /run/candidate; printf '[[device]]\\naddress = \"3b:00.1\"\\ndriver = \"vfio-pci\"\\n' >/run/candidate/then.toml
         vfioctl apply --dry-run --json --policy /run/candidate
         for bad in '--policy /run/candidate' '--dry-run --policy /run/candidate/then.toml'; do
             vfioctl apply $bad >&2; echo $? >&2
         done",
    );
    let document = &documents(&ran)[0];
    assert_eq!(document["results"].as_array().unwrap().len(), 1, "{document}");
    assert_eq!(one(document)["diff"]["after"]["driver"], "vfio-pci");
    assert_eq!(ran.stderr.lines().filter(|line| *line == "2").count(), 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("--policy without --dry-run"), "{}", ran.stderr);
    assert!(ran.stderr.contains("it is not a directory"), "{}", ran.stderr);
    assert_eq!((ran.changed(), ran.writes()), (vec![], vec![]));
}
