// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DaemonSet and the Job: their volumes are mounted on a simulated host as a kubelet does it, in a root directory of a
//! container's own, and there their commands are run.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use support::ran::{Ran, on};

const VF: &str = "0000:3b:00.1";

/// The manifests' documents, by their kinds.
fn manifest(kind: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/kubernetes");
    let program = "import json, sys, yaml
json.dump([document for name in sys.argv[1:] for document in yaml.safe_load_all(open(name))], sys.stdout)";
    let files = ["daemonset.yaml", "unbind.yaml"].map(|name| directory.join(name));
    let output = support::run(Command::new("python3").args(["-c", program]).args(files));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let documents: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    documents.into_iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn by_name<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut all = list.as_array().unwrap().iter();
    all.find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// Runs what the DaemonSet's first container runs, so often, on a host where a shell script ran before.
fn pod(setup: &str, times: usize) -> Ran {
    let pod = &manifest("DaemonSet")["spec"]["template"]["spec"];
    run(pod, by_name(&pod["initContainers"], "apply"), setup, times)
}

fn run(pod: &Value, container: &Value, setup: &str, times: usize) -> Ran {
    let home = tempfile::tempdir().unwrap();
    // As the kubelet writes it: files are links into a directory that is a link.
    let policy = home.path().join("policy");
    fs::create_dir_all(policy.join("..2026_11_21")).unwrap();
    symlink("..2026_11_21", policy.join("..data")).unwrap();
    for (name, text) in manifest("ConfigMap")["data"].as_object().unwrap() {
        fs::write(policy.join("..2026_11_21").join(name), text.as_str().unwrap()).unwrap();
        symlink(Path::new("..data").join(name), policy.join(name)).unwrap();
    }
    let mut mounts = container["volumeMounts"].as_array().unwrap().clone();
    mounts.sort_by_key(|mount| mount["mountPath"].as_str().unwrap().len());
    let mut script = format!(
        "set -e\n{setup}\nimage=/run/image; mkdir $image; mount -t tmpfs image $image
         for name in usr bin sbin lib lib64 proc dev; do
             [ ! -e /$name ] || {{ mkdir $image/$name; mount --rbind /$name $image/$name; }}
         done
         # The image's own modules and settings are not the host's.
         mkdir -p $image/etc $image/run/simhost; mount --rbind /run/simhost $image/run/simhost
         mount -t tmpfs none $image/lib/modules
         touch $image/run/vfioctl-program; mount --bind {vfioctl} $image/run/vfioctl-program\n",
        vfioctl = support::VFIOCTL,
    );
    for mount in &mounts {
        let volume = by_name(&pod["volumes"], mount["name"].as_str().unwrap());
        let source = match volume["hostPath"]["path"].as_str() {
            Some(path) => path.to_string(),
            None => policy.display().to_string(),
        };
        let at = mount["mountPath"].as_str().unwrap();
        script.push_str(&format!("mkdir -p $image{at}; mount --rbind {source} $image{at}\n"));
    }
    let words: Vec<&str> = container["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words[0], "vfioctl");
    let command = format!("chroot $image /run/vfioctl-program {} --json", words[1..].join(" "));
    script.push_str(&format!("{command}\n").repeat(times));
    on(&support::fixtures().join("connectx"), &[], &["sh", "-c", &script])
}

#[test]
fn the_pod_binds_what_its_policy_names_and_does_so_once() {
    let ran = pod("", 2);
    ran.assert_status(0);
    let documents: Vec<Value> =
        serde_json::Deserializer::from_str(&ran.stdout).into_iter().map(Result::unwrap).collect();
    assert_eq!([&documents[0]["changed"], &documents[1]["changed"]], [&json!(true), &json!(false)], "{}", ran.stdout);
    assert_eq!(ran.changed(), ["0000:3b:00.1", "0000:3b:00.2", "0000:3b:00.3", "0000:3b:00.4"]);
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci");
    // Modules are the host's, whose directory is elsewhere in the container.
    assert!(ran.writes().contains(&"modprobe -d /host -- mlx5_vfio_pci".to_string()), "{:?}", ran.writes());
}

/// What the host's own vfioctl keeps counts as well, and so does what it is at: locks are where the host has them.
#[test]
fn what_the_host_keeps_outranks_what_the_pod_brings() {
    let file = "printf '[[device]]\\naddress = \"3b:00.1\"\\ndriver = \"vfio-pci\"\\n' >/etc/vfioctl.d/zz.toml";
    let ran = pod(file, 1);
    ran.assert_status(0);
    assert_eq!(ran.device("after", VF)["driver"], "vfio-pci");
    assert_eq!(ran.device("after", "0000:3b:00.2")["driver"], "mlx5_vfio_pci");
}

/// For that the DaemonSet's pod is no good: what is left of it sees nothing of the host.
#[test]
fn the_job_gives_back_what_the_pod_has_bound() {
    let pod = &manifest("Job")["spec"]["template"]["spec"];
    let container = by_name(&pod["containers"], "unbind");
    let bound = format!("{} bind --no-save 3b:00.1 3b:00.2 >&2", support::VFIOCTL);
    let ran = run(pod, container, &bound, 1);
    ran.assert_status(0);
    assert_eq!(ran.result()["diff"]["after"]["driver"], "mlx5_core", "{}", ran.stdout);
    assert_eq!(ran.changed(), ["0000:3b:00.2"]);
    // It sees what the DaemonSet's sees, but for the policy.
    let set = manifest("DaemonSet");
    let apply = &set["spec"]["template"]["spec"];
    for field in ["hostPID", "hostNetwork", "automountServiceAccountToken"] {
        assert_eq!(pod[field], apply[field], "{field}");
    }
    let apply = by_name(&apply["initContainers"], "apply");
    for field in ["image", "imagePullPolicy", "securityContext"] {
        assert_eq!(container[field], apply[field], "{field}");
    }
    assert_eq!(manifest("Job")["metadata"]["namespace"], set["metadata"]["namespace"]);
}

#[test]
fn the_pod_may_what_it_needs_and_its_second_container_nothing() {
    let set = manifest("DaemonSet");
    assert_eq!(set["apiVersion"], "apps/v1");
    let (labels, template) = (&set["spec"]["selector"]["matchLabels"], &set["spec"]["template"]);
    assert_eq!(*labels, template["metadata"]["labels"]);
    let pod = &template["spec"];
    // Whose interfaces and routes are looked at is decided by the network namespace of whoever looks.
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &json!(true)));
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_string()).collect()
    };
    let container = by_name(&pod["initContainers"], "apply");
    for name in names(&container["volumeMounts"]) {
        by_name(&pod["volumes"], &name);
    }
    assert_eq!(container["securityContext"]["privileged"], true);
    let host = by_name(&container["volumeMounts"], "host");
    assert_eq!((&host["mountPropagation"], &host["readOnly"]), (&json!("HostToContainer"), &Value::Null));
    let done = by_name(&pod["containers"], "done");
    assert_eq!((&done["securityContext"]["runAsNonRoot"], &done["volumeMounts"]), (&json!(true), &Value::Null));
    for container in [container, done] {
        // As `podman build --tag vfioctl:VERSION` names it. From no registry: whoever has that name there would be root.
        assert_eq!(container["image"], concat!("localhost/vfioctl:", env!("CARGO_PKG_VERSION")));
        assert_eq!(container["imagePullPolicy"], "Never");
    }
    // All in the one namespace, which lets such pods in.
    let namespace = manifest("Namespace");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
    for kind in ["ConfigMap", "DaemonSet"] {
        assert_eq!(manifest(kind)["metadata"]["namespace"], namespace["metadata"]["name"], "{kind}");
    }
    let map = by_name(&pod["volumes"], "policy");
    assert_eq!(map["configMap"]["name"], manifest("ConfigMap")["metadata"]["name"]);
}
