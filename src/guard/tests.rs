// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts made of files, and what is found there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

const NIC: &str = "0000:01:00.0";
const OTHER: &str = "0000:02:00.0";
/// The process that asks, on each of these hosts.
const US: u32 = 900;

/// A keyboard's keys, and a power button's.
const KEYBOARD: &str = "1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe";
const BUTTON: &str = "10000000000000 0";

struct Tree {
    root: tempfile::TempDir,
    host: Host,
}

impl Tree {
    fn new() -> Tree {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let tree = Tree { root, host };
        for device in [NIC, OTHER] {
            fs::create_dir_all(tree.at(&format!("sys/devices/{device}"))).unwrap();
            tree.link(&format!("sys/bus/pci/devices/{device}"), &format!("../../../devices/{device}"));
        }
        tree
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }

    fn file(&self, path: &str, text: &str) -> &Tree {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), format!("{text}\n")).unwrap();
        self
    }

    fn link(&self, path: &str, target: &str) -> &Tree {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        symlink(target, self.at(path)).unwrap();
        self
    }

    /// An object of a class below a device, or of none.
    fn object(&self, device: &str, path: &str, class: &str, attributes: &[(&str, &str)]) -> &Tree {
        let directory = format!("sys/devices/{device}/{path}");
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        self.link(&format!("{directory}/subsystem"), &format!("/sys/class/{class}"));
        self.link(&format!("sys/class/{class}/{name}"), &format!("../../devices/{device}/{path}"));
        for (attribute, value) in attributes {
            self.file(&format!("{directory}/{attribute}"), value);
        }
        self
    }

    fn interface(&self, device: &str, name: &str, flags: &str, state: &str) -> &Tree {
        self.object(device, &format!("net/{name}"), "net", &[("flags", flags), ("operstate", state), ("ifindex", "7")]);
        match device {
            "virtual" => self,
            _ => self.link(&format!("sys/devices/{device}/net/{name}/device"), "../.."),
        }
    }

    /// Makes one interface a part of another.
    fn stack(&self, lower: &str, upper: &str) -> &Tree {
        self.link(&format!("sys/class/net/{lower}/upper_{upper}"), upper);
        self.link(&format!("sys/class/net/{upper}/lower_{lower}"), lower)
    }

    fn process(&self, pid: u32, parent: u32, command: &str, open: &[&str]) -> &Tree {
        self.file(&format!("proc/{pid}/comm"), command);
        self.file(&format!("proc/{pid}/status"), &format!("Name:\t{command}\nPPid:\t{parent}"));
        for (number, target) in (3..).zip(open) {
            self.link(&format!("proc/{pid}/fd/{number}"), target);
        }
        self
    }

    fn routes(&self, lines: &[&str]) -> &Tree {
        self.file("proc/net/route", &["Iface\tDestination", &lines.join("\n")].join("\n"))
    }

    /// What is found, as `KIND: MESSAGE`, and `| MEND` where there is one.
    fn found(&self, device: &str) -> Vec<String> {
        self.found_with(device, &[])
    }

    /// The same, where others go together with it.
    fn found_with(&self, device: &str, together: &[&str]) -> Vec<String> {
        let together: Vec<Address> = together.iter().map(|address| address.parse().unwrap()).collect();
        let findings = findings_for(&self.host, device.parse().unwrap(), &together, US).unwrap();
        let line = |finding: Finding| {
            let mend = finding.mend.map(|mend| format!(" | {mend}")).unwrap_or_default();
            format!("{}: {}{mend}", finding.used_as.name(), finding.message)
        };
        findings.into_iter().map(line).collect()
    }

    #[track_caller]
    fn finds(&self, expected: &[&str]) {
        assert_eq!(self.found(NIC), expected);
    }
}

/// Lines of `/proc/net/route`: `192.0.2.0/24`, and the default by a gateway there.
#[cfg(target_endian = "little")]
fn near(interface: &str) -> String {
    format!("{interface}\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0")
}

#[cfg(target_endian = "little")]
fn default(interface: &str) -> String {
    format!("{interface}\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0")
}

const UP: &str = "0x1003";
const DOWN: &str = "0x1002";

#[test]
fn an_interface_that_is_not_used() {
    for (flags, state) in [(DOWN, "down"), (UP, "down"), (UP, "lowerlayerdown")] {
        let tree = Tree::new();
        tree.interface(NIC, "eth0", flags, state);
        // Left from when it was used.
        tree.file("sys/class/net/eth0/statistics/rx_packets", "12");
        // What every interface has.
        tree.file("proc/net/if_inet6", "fe8000000000000000fc00fffe000001 04 40 20 80     eth0");
        tree.finds(&[]);
    }
    // One of another device is not this one's.
    let tree = Tree::new();
    tree.interface(OTHER, "eth1", UP, "up").routes(&[&near("eth1"), &default("eth1")]);
    tree.finds(&[]);
}

#[test]
#[cfg(target_endian = "little")]
fn what_an_interface_carries() {
    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "up").routes(&[&near("eth0"), &default("eth0")]);
    tree.file("proc/net/if_inet6", "fd000000000000000000000000000002 04 40 00 82     eth0");
    tree.finds(&["network: network interface eth0 is up and has the default route, the address fd00::2 and a route \
                  to 192.0.2.0/24"]);

    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "down")
        .interface(OTHER, "eth1", UP, "up")
        .routes(&[&near("eth0"), &default("eth1")]);
    tree.finds(&["network: network interface eth0 is up and has a route to 192.0.2.0/24 | ip link set dev eth0 down"]);

    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "up").file("sys/class/net/eth0/statistics/rx_packets", "0");
    tree.finds(&[]);
    tree.file("sys/class/net/eth0/statistics/tx_packets", "3");
    tree.finds(&["network: network interface eth0 is up and has carried packets | ip link set dev eth0 down"]);
    tree.file("proc/net/packet", "sk\nffff8f3a0a4a7000 3      3    0003   7     1 0      0      31337");
    tree.process(41, 1, "tcpdump", &["socket:[31337]", "socket:[4]"]);
    tree.finds(&[
        "network: network interface eth0 is up and has a packet socket of tcpdump (pid 41) | ip link set dev eth0 \
                  down",
    ]);

    // A name that a shell would not leave alone.
    let tree = Tree::new();
    tree.interface(NIC, "e;reboot", UP, "up").file("sys/class/net/e;reboot/statistics/rx_packets", "1");
    tree.finds(&[
        "network: network interface e;reboot is up and has carried packets | ip link set dev 'e;reboot' down",
    ]);
}

#[test]
#[cfg(target_endian = "little")]
fn what_an_interface_is_part_of() {
    // A VLAN of a bond in a bridge.
    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "up")
        .interface("virtual", "bond0", UP, "up")
        .interface("virtual", "bond0.5", UP, "up");
    tree.interface("virtual", "br0", UP, "up").stack("eth0", "bond0").stack("bond0", "bond0.5").stack("bond0.5", "br0");
    tree.file("sys/class/net/bond0/bonding/slaves", "").file("sys/class/net/br0/bridge/bridge_id", "");
    tree.routes(&[&near("br0"), &default("br0")]);
    let expected = "network: network interface eth0 is up and is part of bond bond0, is part of bond0.5 and is part of bridge \
                    br0, which has the default route and a route to 192.0.2.0/24";
    tree.finds(&[expected]);
    // Another one in the bond that cannot carry it.
    tree.interface(OTHER, "eth1", UP, "down").stack("eth1", "bond0");
    tree.finds(&[expected]);
    // One that can.
    tree.file("sys/class/net/eth1/operstate", "up");
    let lesser = "network: network interface eth0 is up and is part of bond bond0 and still has eth1 | ip link set dev eth0 \
                  nomaster";
    tree.finds(&[lesser]);
    // A VLAN of its own in the bond is no other one.
    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "up")
        .interface("virtual", "eth0.5", UP, "up")
        .interface("virtual", "bond0", UP, "up");
    tree.stack("eth0", "eth0.5").stack("eth0.5", "bond0").file("sys/class/net/bond0/bonding/slaves", "");
    tree.finds(&[
        "network: network interface eth0 is up and is part of eth0.5 and is part of bond bond0 | ip link set dev eth0 \
                  down",
    ]);

    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "down").link("sys/class/net/eth0/master", "../../../virtual/net/ovs-system");
    tree.finds(&["network: network interface eth0 is up and is a port of Open vSwitch | ip link set dev eth0 down"]);

    // Links that go round must not keep us.
    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "down").interface("virtual", "a", UP, "up").stack("eth0", "a").stack("a", "eth0");
    tree.finds(&["network: network interface eth0 is up and is part of a | ip link set dev eth0 down"]);
}

#[test]
fn an_interface_elsewhere() {
    let tree = Tree::new();
    fs::create_dir_all(tree.at(&format!("sys/devices/{NIC}/net"))).unwrap();
    tree.finds(&["network: its network interface is in another network namespace"]);
    tree.link("proc/self/ns/net", "net:[1]");
    for (pid, namespace) in [(1, 1), (41, 2), (42, 2), (50, 3)] {
        tree.process(pid, 0, &format!("process{pid}"), &[])
            .link(&format!("proc/{pid}/ns/net"), &format!("net:[{namespace}]"));
    }
    tree.finds(&[
        "network: its network interface is in another network namespace, perhaps that of process41 (pid 41) or \
                  process50 (pid 50)",
    ]);
    // virtio's interface is a step further down.
    let tree = Tree::new();
    tree.object(NIC, "virtio3", "virtio", &[]);
    fs::create_dir_all(tree.at(&format!("sys/devices/{NIC}/virtio3/net"))).unwrap();
    tree.finds(&["network: its network interface is in another network namespace"]);
}

#[test]
#[cfg(target_endian = "little")]
fn file_systems_over_the_network() {
    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "up").interface(OTHER, "eth1", UP, "up").routes(&[&near("eth0"), &default("eth1")]);
    tree.file(
        "proc/self/mountinfo",
        "22 1 0:21 / / rw,relatime shared:1 - nfs4 192.0.2.9:/root rw,vers=4.2,addr=192.0.2.9
23 22 0:22 / /srv rw - cifs //192.0.2.9/share rw,addr=192.0.2.9
24 22 0:23 / /far rw - nfs 203.0.113.1:/far rw,addr=203.0.113.1
25 22 0:24 / /odd rw - nfs nobody:/x rw
26 22 8:1 / /home rw - ext4 /dev/sda1 rw",
    );
    tree.finds(&[
        "root-disk: nfs4 file system on / comes from 192.0.2.9 by eth0",
        "disk: cifs file system on /srv comes from 192.0.2.9 by eth0",
        "network: network interface eth0 is up and has a route to 192.0.2.0/24 | ip link set dev eth0 down",
    ]);
    assert_eq!(tree.found(OTHER).len(), 2);
    for (device, expected) in [(NIC, true), (OTHER, false)] {
        assert_eq!(is_root_seen(&tree.host, &[device.parse().unwrap()]).unwrap(), expected, "{device}");
    }
}

/// An interface with the network of the session, and ourselves below sudo below a shell below sshd.
#[cfg(target_endian = "little")]
fn logged_in(environment: &str) -> Tree {
    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "up").interface(OTHER, "eth1", UP, "up").routes(&[&near("eth0"), &default("eth1")]);
    tree.process(1, 0, "systemd", &[]).process(700, 1, "sshd", &["socket:[10]"]).process(800, 700, "sh", &[]);
    tree.process(850, 800, "sudo", &["socket:[99]"]).process(US, 850, "vfioctl", &[]);
    tree.file(&format!("proc/{US}/environ"), "PATH=/bin\0HOME=/root\0");
    tree.file("proc/800/environ", &format!("PATH=/bin\0{environment}\0"));
    tree
}

#[test]
#[cfg(target_endian = "little")]
fn the_session_by_what_sshd_told() {
    for (environment, expected) in [
        ("SSH_CONNECTION=192.0.2.7 50000 192.0.2.2 22", Some("this SSH session (from 192.0.2.7) comes in by eth0")),
        (
            "SSH_CONNECTION=::ffff:192.0.2.7 50000 ::ffff:192.0.2.2 22",
            Some("this SSH session (from 192.0.2.7) comes in by eth0"),
        ),
        // From far away, but to this interface's network.
        ("SSH_CONNECTION=203.0.113.9 50000 192.0.2.2 22", Some("this SSH session (from 203.0.113.9) comes in by eth0")),
        ("SSH_CONNECTION=fe80::7%eth0 50000 fe80::1%eth0 22", Some("this SSH session (from fe80::7) comes in by eth0")),
        ("SSH_CONNECTION=fe80::7%eth1 50000 fe80::1%eth1 22", None),
        ("SSH_CONNECTION=203.0.113.9 50000 198.51.100.2 22", None),
        ("SSH_CONNECTION=UNKNOWN 65535 UNKNOWN 65535", None),
        ("SSH_CONNECTION=", None),
        ("NO_SSH_CONNECTION=192.0.2.7 50000 192.0.2.2 22", None),
    ] {
        let found = logged_in(environment).found(NIC);
        let session: Vec<&String> = found.iter().filter(|line| line.starts_with("session: ")).collect();
        let expected: Vec<String> = expected.iter().map(|message| format!("session: {message}")).collect();
        assert_eq!(session, expected.iter().collect::<Vec<_>>(), "{environment}");
        // It comes first.
        assert_eq!(
            found.first().is_some_and(|line| line.starts_with("session")),
            !expected.is_empty(),
            "{environment}"
        );
    }
}

#[test]
#[cfg(target_endian = "little")]
fn the_session_by_who_is_connected() {
    let connected = |inode: u32| {
        let line = |peer: &str, state: &str, inode: u32| {
            format!("  0: 020200C0:0016 {peer}:C350 {state} 0:0 0:0 0 0 0 {inode} 1 0")
        };
        [line("00000000", "0A", 10), line("0100007F", "01", 99), line("070200C0", "01", inode)].join("\n")
    };
    let session = |tree: &Tree| tree.found(NIC).into_iter().find(|line| line.starts_with("session: "));
    let tree = logged_in("");
    assert_eq!(session(&tree), None);
    // sshd's own socket; and one that it listens on, and one to ourselves, are none.
    tree.file("proc/net/tcp", &connected(10));
    assert_eq!(session(&tree).unwrap(), "session: this SSH session (from 192.0.2.7) comes in by eth0");
    tree.file("proc/net/tcp", &connected(11));
    assert_eq!(session(&tree), None);
    tree.file("proc/net/tcp", &connected(99)).file("proc/850/comm", "salt-minion");
    assert_eq!(
        session(&tree).unwrap(),
        "session: the connection of salt-minion (pid 850), which asks for this, (from 192.0.2.7) comes in by eth0"
    );
    // Parents that go round must not keep us.
    tree.file("proc/net/tcp", "").file("proc/1/status", "PPid:\t900");
    assert_eq!(session(&tree), None);
}

#[test]
#[cfg(target_endian = "little")]
fn the_session_through_other_interfaces() {
    let session = |tree: &Tree, device: &str| tree.found(device).into_iter().find(|line| line.starts_with("session: "));
    let told = "SSH_CONNECTION=192.0.2.7 50000 192.0.2.2 22";
    // The bridge has the address, of which both are parts.
    let tree = logged_in(told);
    tree.interface("virtual", "br0", UP, "up").stack("eth0", "br0").routes(&[&near("br0"), &default("br0")]);
    let expected = "session: this SSH session (from 192.0.2.7) comes in by br0, which eth0 is part of";
    assert_eq!(session(&tree, NIC).as_deref(), Some(expected));
    assert_eq!(session(&tree, OTHER), None);
    // One that is down carries nothing.
    tree.file("sys/class/net/eth0/flags", DOWN);
    assert_eq!(session(&tree, NIC), None);
    // A bond that carries on without it.
    let tree = logged_in(told);
    tree.interface("virtual", "bond0", UP, "up").stack("eth0", "bond0").routes(&[&near("bond0"), &default("bond0")]);
    tree.file("sys/class/net/bond0/bonding/slaves", "");
    let expected = "session: this SSH session (from 192.0.2.7) comes in by bond0, which eth0 is part of";
    assert_eq!(session(&tree, NIC).as_deref(), Some(expected));
    tree.stack("eth1", "bond0");
    assert_eq!(session(&tree, NIC), None);
    // Both of its ports, in one go; and one by a part of its own.
    let both = |tree: &Tree| tree.found_with(NIC, &[NIC, OTHER]);
    assert_eq!(both(&tree)[0], expected);
    let lost = "network: network interface eth0 is up and is part of bond bond0, which has the default route and a route to \
                192.0.2.0/24";
    assert_eq!(both(&tree)[1], lost);
    let vlan = logged_in(told);
    vlan.interface("virtual", "bond0", UP, "up").interface("virtual", "eth1.5", UP, "up");
    vlan.stack("eth0", "bond0")
        .stack("eth1", "eth1.5")
        .stack("eth1.5", "bond0")
        .file("sys/class/net/bond0/bonding/x", "");
    vlan.routes(&[&near("bond0"), &default("bond0")]);
    assert_eq!(session(&vlan, NIC), None);
    assert_eq!(both(&vlan)[0], expected);
    tree.file("sys/class/net/eth1/operstate", "down");
    assert_eq!(session(&tree, NIC).as_deref(), Some(expected));
    // Two in one network, and the one with the lower metric is not the one with the address.
    let tree = logged_in(told);
    tree.routes(&[&near("eth1"), &near("eth0"), &default("eth1")]);
    let perhaps = "session: this SSH session (from 192.0.2.7) comes in perhaps by";
    assert_eq!(session(&tree, NIC), Some(format!("{perhaps} eth0")));
    assert_eq!(session(&tree, OTHER), Some(format!("{perhaps} eth1")));
    // Routes in other tables, which nobody shows: it may be any that is up.
    tree.routes(&[]);
    assert_eq!(session(&tree, NIC), Some(format!("{perhaps} eth0")));
    assert_eq!(session(&tree, OTHER), Some(format!("{perhaps} eth1")));
    tree.file("sys/class/net/eth1/flags", DOWN);
    assert_eq!(session(&tree, OTHER), None);
    tree.file("sys/class/net/eth1/flags", UP);
    tree.interface("virtual", "bond0", UP, "up").file("sys/class/net/bond0/bonding/slaves", "");
    tree.stack("eth0", "bond0").stack("eth1", "bond0");
    assert_eq!(session(&tree, NIC), None);
    assert_eq!(tree.found_with(NIC, &[NIC, OTHER])[0], format!("{perhaps} eth0"));
    // A tunnel: what it goes through is not linked to it, but the default route is likely.
    let tree = logged_in(told);
    tree.interface("virtual", "wg0", UP, "unknown").routes(&[&near("wg0"), &default("eth1")]);
    assert_eq!(session(&tree, NIC), None);
    let expected = "session: this SSH session (from 192.0.2.7) comes in by wg0, and that perhaps by eth1";
    assert_eq!(session(&tree, OTHER).as_deref(), Some(expected));
    // A port of Open vSwitch beside the interface.
    tree.link("sys/class/net/eth0/master", "ovs-system");
    let expected = "session: this SSH session (from 192.0.2.7) comes in by wg0, and that perhaps by eth0";
    assert_eq!(session(&tree, NIC).as_deref(), Some(expected));
    // From this host itself: somebody's forwarded port.
    let tree = logged_in("SSH_CONNECTION=127.0.0.1 50000 127.0.0.1 22");
    tree.interface("virtual", "lo", "0x9", "unknown");
    assert_eq!(session(&tree, NIC), None);
    let expected = "session: this SSH session (from 127.0.0.1) comes in by lo, and that perhaps by eth1";
    assert_eq!(session(&tree, OTHER).as_deref(), Some(expected));
}

/// A GPU with a monitor that shows something, one that is not there, and the framebuffer `name` of its own.
fn gpu(name: &str, status: &str) -> Tree {
    let tree = Tree::new();
    tree.file(&format!("sys/devices/{NIC}/class"), "0x030000").file(&format!("sys/devices/{NIC}/boot_vga"), "1");
    tree.object(NIC, "drm/card0", "drm", &[("dev", "226:0")]);
    tree.object(NIC, "drm/renderD128", "drm", &[("dev", "226:128")]);
    tree.object(NIC, "drm/card0/card0-HDMI-A-1", "drm", &[("status", status), ("enabled", "enabled")]);
    tree.object(NIC, "drm/card0/card0-DP-1", "drm", &[("status", "disconnected"), ("enabled", "disabled")]);
    tree.object(NIC, &format!("graphics/{name}"), "graphics", &[("dev", "29:0")]);
    tree.file("sys/class/vtconsole/vtcon0/name", "(S) dummy device").file("sys/class/vtconsole/vtcon0/bind", "0");
    tree.file("sys/class/vtconsole/vtcon1/name", "(M) frame buffer device")
        .file("sys/class/vtconsole/vtcon1/bind", "1");
    tree.link("dev/char/226:0", "../dri/card0")
        .link("dev/char/226:128", "../dri/renderD128")
        .link("dev/char/29:0", "../fb0");
    tree
}

#[test]
fn where_the_console_is_shown() {
    let expected = "display: the console is shown on it (fb0, HDMI-A-1) | echo 0 >/sys/class/vtconsole/vtcon1/bind";
    let tree = gpu("fb0", "connected");
    tree.finds(&[expected]);
    // No more, although the monitor still shows what was drawn last.
    tree.file("sys/class/vtconsole/vtcon1/bind", "0");
    tree.finds(&[]);
    // No monitor; and a second GPU, where the console is not.
    gpu("fb0", "disconnected").finds(&[]);
    let tree = gpu("fb1", "connected");
    tree.object(OTHER, "graphics/fb0", "graphics", &[]);
    tree.finds(&[]);

    // The firmware's, without a driver.
    let tree = Tree::new();
    tree.file(&format!("sys/devices/{NIC}/class"), "0x030000");
    let iomem = |owner: &str| {
        format!(
            "c0000000-dfffffff : PCI Bus 0000:00\n  c0000000-cfffffff : {owner}\n    c0000000-c02fffff : BOOTFB\n  \
                 d0000000-d0ffffff : 0000:03:00.0"
        )
    };
    tree.file("sys/class/vtconsole/vtcon1/name", "(M) frame buffer device")
        .file("sys/class/vtconsole/vtcon1/bind", "1");
    tree.file("proc/iomem", &iomem(NIC));
    tree.finds(&["display: the console is shown on it (the firmware's framebuffer, BOOTFB) | echo 0 \
                  >/sys/class/vtconsole/vtcon1/bind"]);
    tree.file("proc/iomem", &iomem(OTHER));
    tree.finds(&[]);

    // VGA text, until there is a framebuffer.
    let tree = Tree::new();
    tree.file(&format!("sys/devices/{NIC}/class"), "0x030000").file(&format!("sys/devices/{NIC}/boot_vga"), "1");
    tree.finds(&[]);
    tree.file("sys/class/vtconsole/vtcon0/name", "(S) VGA+").file("sys/class/vtconsole/vtcon0/bind", "1");
    tree.finds(&["display: the console is shown on it (VGA text)"]);
    tree.file(&format!("sys/devices/{NIC}/boot_vga"), "0");
    tree.finds(&[]);
}

#[test]
fn who_has_nodes_open() {
    let tree = gpu("fb1", "connected");
    tree.object(OTHER, "graphics/fb0", "graphics", &[]);
    tree.process(41, 1, "Xorg", &["/dev/dri/card0", "/dev/input/event3"]).process(
        42,
        1,
        "compute",
        &["/dev/dri/renderD128"],
    );
    tree.process(43, 1, "elsewhere", &["/dev/dri/card1", "/dev/nvidia1"]);
    tree.object(NIC, "input/input5/event3", "input", &[("dev", "13:67")]).link("dev/char/13:67", "../input/event3");
    tree.finds(&[
        "display: Xorg (pid 41) has /dev/dri/card0 open",
        "display: compute (pid 42) has /dev/dri/renderD128 open",
    ]);
    // NVIDIA's own driver.
    let tree = Tree::new();
    tree.file(&format!("proc/driver/nvidia/gpus/{NIC}/information"), "Model: \t\t A\nDevice Minor: \t 1");
    tree.process(41, 1, "train", &["/dev/nvidia1", "/dev/nvidiactl"]).process(42, 1, "other", &["/dev/nvidia0"]);
    tree.finds(&["display: train (pid 41) has /dev/nvidia1 open"]);
    // Sound that plays, and a mixer that is merely open; a serial line; and what has no kind of its own.
    let tree = Tree::new();
    tree.object(NIC, "sound/card0/pcmC0D0p", "sound", &[("dev", "116:3")]).link("dev/char/116:3", "../snd/pcmC0D0p");
    tree.object(NIC, "sound/card0/controlC0", "sound", &[("dev", "116:2")]).link("dev/char/116:2", "../snd/controlC0");
    tree.object(NIC, "tty/ttyS4", "tty", &[("dev", "4:68")]).link("dev/char/4:68", "../ttyS4");
    tree.object(NIC, "usb1/1-1", "usb", &[("dev", "189:1")]).link("dev/char/189:1", "../bus/usb/001/002");
    tree.object(NIC, "block/sda", "block", &[("dev", "8:0")]);
    tree.process(41, 1, "pipewire", &["/dev/snd/pcmC0D0p", "/dev/snd/controlC0"]).process(
        42,
        1,
        "agetty",
        &["/dev/ttyS4"],
    );
    tree.process(43, 1, "qemu", &["/dev/bus/usb/001/002"]).process(44, 1, "dd", &["/dev/sda"]);
    tree.finds(&[
        "console: agetty (pid 42) has /dev/ttyS4 open",
        "sound: pipewire (pid 41) has /dev/snd/pcmC0D0p open",
        "process: qemu (pid 43) has /dev/bus/usb/001/002 open",
    ]);
    // Very many.
    let tree = gpu("fb1", "connected");
    tree.object(OTHER, "graphics/fb0", "graphics", &[]);
    for pid in 41..61 {
        tree.process(pid, 1, "compute", &["/dev/dri/renderD128"]);
    }
    let found = tree.found(NIC);
    assert_eq!(
        (found.len(), found.contains(&"display: 12 more have its nodes open".to_string())),
        (9, true),
        "{found:?}"
    );
    // A link of udev's that leads elsewhere names no node.
    let tree = Tree::new();
    tree.object(NIC, "tty/ttyS4", "tty", &[("dev", "4:68")]).link("dev/char/4:68", "../../etc/passwd");
    tree.process(41, 1, "cat", &["/dev/etc/passwd", "/etc/passwd"]);
    tree.finds(&[]);
}

#[test]
#[cfg(target_endian = "little")]
fn where_messages_go() {
    let tree = Tree::new();
    tree.object(NIC, "tty/ttyS4", "tty", &[]).file("sys/class/tty/console/active", "tty0 ttyS0");
    tree.finds(&[]);
    tree.file("sys/class/tty/console/active", "tty0 ttyS4");
    tree.finds(&["console: ttyS4 is a console of the kernel"]);

    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "down").interface("virtual", "br0", UP, "down").stack("eth0", "br0");
    tree.file("sys/kernel/config/netconsole/far/dev_name", "br0").file("sys/kernel/config/netconsole/far/enabled", "0");
    let part = "network: network interface eth0 is up and is part of br0 | ip link set dev eth0 down";
    tree.finds(&[part]);
    tree.file("sys/kernel/config/netconsole/far/enabled", "1");
    tree.finds(&[part, "console: the kernel's messages go out by br0, which eth0 is part of (netconsole far)"]);
    tree.file("sys/kernel/config/netconsole/far/dev_name", "eth1");
    tree.finds(&[part]);
}

#[test]
fn the_only_keyboard() {
    let tree = Tree::new();
    tree.object(OTHER, "input/input0", "input", &[("capabilities/key", BUTTON), ("name", "Power Button")]);
    tree.finds(&[]);
    tree.object(
        NIC,
        "usb1/1-1/input/input5",
        "input",
        &[("capabilities/key", KEYBOARD), ("name", "USB\u{1b}[2J Keyboard")],
    );
    tree.finds(&["input: no keyboard is left without input5 (USB[2J Keyboard)"]);
    // Two, and both on it.
    tree.object(NIC, "usb1/1-2/input/input6", "input", &[("capabilities/key", KEYBOARD), ("name", "Second")]);
    assert_eq!(tree.found(NIC).len(), 2);
    tree.object(OTHER, "input/input1", "input", &[("capabilities/key", KEYBOARD), ("name", "Elsewhere")]);
    tree.finds(&[]);
    assert_eq!(tree.found_with(NIC, &[OTHER, NIC]).len(), 2);
    // A mouse is none.
    let tree = Tree::new();
    tree.object(NIC, "usb1/1-1/input/input5", "input", &[("capabilities/key", "1f0000 0 0 0 0"), ("name", "Mouse")]);
    tree.finds(&[]);
}

#[test]
fn what_the_machine_relies_on() {
    let tree = Tree::new();
    tree.object(NIC, "tpm/tpm0", "tpm", &[("dev", "10:224")]);
    tree.object(NIC, "iTCO_wdt/watchdog/watchdog0", "watchdog", &[("state", "inactive")]);
    tree.finds(&["tpm: tpm0 is the machine's trusted platform module"]);
    tree.file("sys/class/watchdog/watchdog0/state", "active");
    tree.finds(&[
        "tpm: tpm0 is the machine's trusted platform module",
        "watchdog: watchdog0 counts: the machine resets unless it is fed",
    ]);
    assert!(tree.found(OTHER).is_empty());
    assert!(tree.found("0000:99:00.0").is_empty());
}

#[test]
#[cfg(target_endian = "little")]
fn disks_of_other_hosts() {
    let disks = |tree: &Tree, device: &str| -> Vec<String> {
        let below = below::below(&tree.host, device.parse().unwrap()).unwrap();
        let disks = remote::disks(&tree.host, &below, &Going::new(&tree.host, &[])).unwrap();
        disks.into_iter().filter(|below| below.subsystem == "block").map(|below| below.name).collect()
    };
    let tree = Tree::new();
    tree.interface(NIC, "eth0", UP, "up").interface(OTHER, "eth1", UP, "up").routes(&[&near("eth0"), &default("eth1")]);
    for (session, address, disk) in [("session1", "192.0.2.9", "sda"), ("session2", "203.0.113.9", "sdb")] {
        let connection = format!("{session}/connection/iscsi_connection/connection-{session}");
        tree.object("platform/host3", &connection, "iscsi_connection", &[("persistent_address", address)]);
        tree.object("platform/host3", &format!("{session}/target3:0:0/3:0:0:0/block/{disk}"), "block", &[]);
        tree.object("platform/host3", &format!("{session}/target3:0:0/3:0:0:0/block/{disk}/{disk}1"), "block", &[]);
    }
    // With and without a disk that may have several paths; and one that has two.
    for (name, transport, address) in [
        ("nvme0", "tcp", "192.0.2.9"),
        ("nvme1", "tcp", "192.0.2.9"),
        ("nvme2", "rdma", "192.0.2.10"),
        ("nvme3", "tcp", "203.0.113.9"),
        ("nvme4", "pcie", "0000:05:00.0"),
    ] {
        let address = if transport == "pcie" { address.to_string() } else { format!("traddr={address},trsvcid=4420") };
        tree.object("virtual", &format!("fabrics/{name}"), "nvme", &[("transport", transport), ("address", &address)]);
    }
    tree.object("virtual", "fabrics/nvme0/nvme0n1", "block", &[]);
    for (subsystem, disk, controllers) in
        [("nvme-subsys1", "nvme1n1", &["nvme1"][..]), ("nvme-subsys2", "nvme2n1", &["nvme2", "nvme3"])]
    {
        tree.object("virtual", &format!("subsystem/{subsystem}"), "nvme-subsystem", &[]);
        tree.object("virtual", &format!("subsystem/{subsystem}/{disk}"), "block", &[]);
        for controller in controllers {
            tree.link(&format!("sys/devices/virtual/subsystem/{subsystem}/{controller}"), "elsewhere");
        }
    }
    assert_eq!(disks(&tree, NIC), ["sda", "sda1", "nvme0n1", "nvme1n1"]);
    assert_eq!(disks(&tree, OTHER), ["sdb", "sdb1"]);
    tree.file("sys/class/net/eth0/flags", DOWN);
    assert!(disks(&tree, NIC).is_empty());
}
