# SPDX-License-Identifier: MIT OR Apache-2.0
"""A NIC that the guest's network or the caller's SSH session depends on is not taken away unasked, through whatever layers."""

import json
import shlex

from check import equal, expect
from machine import SYSFS, expect_bound, expect_unchanged

SYSTEM = True
# The oldest and the newest: between them nothing of this is another.
KERNELS = ["6.1", "7"]

REFUSED = 4
LOCAL, PEER, GATEWAY = "192.0.2.2", "192.0.2.7", "192.0.2.1"


def run(vm):
    network(vm)


def network(vm):
    nic = vm.address("nic1")
    name = interface(vm, nic)
    other = interface(vm, vm.address("nic2"))
    before = vm.devices()

    def refused(kinds, *words, command=None):
        """It is in use as these kinds, and said to be in these words; nothing is touched."""
        shown = vm.vfioctl("show", nic)["in_use"]
        document = (command or bind)(vm, nic, status=REFUSED)
        findings = error(document)["findings"]
        if command is None:
            equal("what show says", shown, findings)
        equal("kinds", [finding["kind"] for finding in findings], kinds)
        text = " ".join(finding["message"] for finding in findings)
        for word in (name, *words):
            expect(word in text, f"{word!r} is not in {text!r}")
        equal("kind of the error", error(document)["kind"], "unsafe")
        expect_unchanged(before, vm.devices())
        return findings

    # Down, and with what is left from before.
    equal("in use while down", vm.vfioctl("show", nic)["in_use"], [])

    vm.ok(f"ip link set {name} up && ip address add {LOCAL}/24 dev {name}")
    (finding,) = refused(["network"], "has a route to 192.0.2.0/24")
    equal("what ends it", finding["mend"], f"ip link set dev {name} down")
    vm.ok(f"ip route add default via {GATEWAY} dev {name} onlink")
    (finding,) = refused(["network"], "has the default route")
    equal("what ends it", finding["mend"], None)

    session(vm, nic, refused, name)

    # The bridge has the address then, a VLAN of it or a bond.
    vm.ok(f"ip address flush dev {name}")
    for kind, make in (
        ("bridge top", f"ip link add top type bridge && ip link set {name} master top"),
        ("top", f"ip link add link {name} name top type vlan id 5"),
        ("bond top", f"ip link add top type bond mode active-backup && ip link set {name} down && ip link set {name} master top"),
    ):
        vm.ok(f"{make} && ip link set {name} up && ip link set top up && ip address add {LOCAL}/24 dev top")
        vm.ok(f"ip route add default via {GATEWAY} dev top onlink")
        refused(["network"], f"is part of {kind}, which has the default route")
        refused(["session", "network"], f"comes in by top, which {name} is part of", command=over_ssh)
        if kind == "bond top":
            # The other one carries on.
            vm.ok(f"ip link set {other} down && ip link set {other} master top && ip link set {other} up")
            vm.wait(f"{other} is up", f"grep -q up /sys/class/net/{other}/operstate")
            (finding,) = refused(["network"], f"and still has {other}")
            equal("what ends it", finding["mend"], f"ip link set dev {name} nomaster")
            refused(["network"], f"and still has {other}", command=over_ssh)
        vm.ok("ip link delete top")
    vm.ok(f"ip link set {other} down")

    # In another network namespace, with a process there.
    holder = vm.ok("unshare --net sleep 600 >/dev/null 2>&1 & echo $!").strip()
    vm.wait("the namespace", f"! test /proc/{holder}/ns/net -ef /proc/self/ns/net")
    vm.ok(f"ip link set {name} down && ip link set {name} netns {holder}")
    document = bind(vm, nic, status=REFUSED)
    (finding,) = error(document)["findings"]
    expect("in another network namespace" in finding["message"], finding)
    expect(f"sleep (pid {holder})" in finding["message"], finding)
    expect_unchanged(before, vm.devices())
    vm.ok(f"nsenter --net=/proc/{holder}/ns/net ip link set {name} netns 1 && kill {holder}")
    vm.wait(f"{name} is back", f"test -e {SYSFS}/{nic}/net/{name}")

    # Down again.
    vm.ok(f"ip link set {name} down")
    bind(vm, nic, status=0)
    expect_bound(before, vm.devices(), nic)
    vm.vfioctl("unbind", nic)
    vm.wait_driver(nic, "e1000e")
    expect_unchanged(before, vm.devices())


def session(vm, nic, refused, name):
    """Whoever came in by the interface is told so, also without SSH_CONNECTION of their own."""
    refused(["session", "network"], f"this SSH session (from {PEER}) comes in by {name}", command=over_ssh)
    for force in ("network", "session"):
        findings = error(over_ssh(vm, nic, f"--force={force}", status=REFUSED))["findings"]
        expect(force not in [finding["kind"] for finding in findings], findings)
        equal("driver", vm.devices()[nic].driver, "e1000e")
    over_ssh(vm, nic, "--force=network,session", status=0)
    equal("driver", vm.devices()[nic].driver, "vfio-pci")
    vm.vfioctl("unbind", nic)
    vm.wait_driver(nic, "e1000e")
    vm.wait(f"{name} is back", f"test -e {SYSFS}/{nic}/net/{name}")
    vm.settle()
    vm.ok(f"ip link set {name} up && ip address add {LOCAL}/24 dev {name}")
    vm.ok(f"ip route add default via {GATEWAY} dev {name} onlink")


def interface(vm, address):
    return vm.ok(f"ls {SYSFS}/{address}/net").strip()


def bind(vm, nic, *options, status):
    return vm.vfioctl("bind", nic, *options, status=status)


def over_ssh(vm, nic, *options, status):
    """As somebody who has come in by SSH and become root: only an ancestor has the variable."""
    inner = shlex.join(["vfioctl", "bind", nic, "--json", *options])
    shell = shlex.quote(f"env -u SSH_CONNECTION {inner}; exit $?")
    answer = vm.run(f"SSH_CONNECTION='{PEER} 50000 {LOCAL} 22' sh -c {shell}", 60)
    equal(f"{answer}: exit status", answer.status, status)
    return json.loads(answer.stdout)


def error(document):
    """Of the one result."""
    (result,) = document["results"]
    return result["error"]
