# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is bound is so after a reboot: its native driver never touched it, its twin is as ever, nobody else costs a process."""

from check import equal, expect
from machine import POLICY, UNSET, expect_unchanged

SYSTEM = True

CALLS = "/run/vfioctl-calls"
# In place of the program, which still does the work.
WRAPPER = f"""#!/bin/sh
echo "$*" >>{CALLS}
exec /usr/sbin/vfioctl.real "$@"
"""


RULE = "/usr/lib/udev/rules.d/05-vfioctl.rules"
SELECTORS = "/run/udev/rules.d/04-vfioctl-selectors.rules"
UNITS = ["vfioctl-claim.service", "vfioctl@.service"]


def run(vm):
    check_installed(vm)
    nic, twin = vm.address("nic1"), vm.address("nic2")
    at_first = vm.devices()
    vm.result("bind", nic)
    vm.ok("mv /usr/sbin/vfioctl /usr/sbin/vfioctl.real")
    vm.write("/usr/sbin/vfioctl", WRAPPER)
    vm.ok("chmod 755 /usr/sbin/vfioctl")

    vm.reboot()
    check_claimed(vm, nic, twin)
    calls = sorted(vm.ok(f"cat {CALLS}").splitlines())
    equal("calls of vfioctl", calls, [f"--timeout 300 apply {nic}", "claim", f"claim --udev {nic}"])

    check_without_systemd(vm, nic)

    vm.result("unbind", nic)
    expect_unchanged(at_first, vm.devices())
    equal("files of the policy", vm.policies(), {})


def check_claimed(vm, nic, twin):
    unit = f"vfioctl@{nic}.service"
    vm.wait_applied(nic)
    devices = vm.devices()
    equal(f"{nic}: driver", devices[nic].driver, "vfio-pci")
    equal(f"{nic}: driver_override", devices[nic].override, "vfio-pci")
    expect(devices[nic].vfio, f"{nic}: no VFIO device")
    equal(f"{twin}: driver", devices[twin].driver, "e1000e")
    equal(f"{twin}: driver_override", devices[twin].override, UNSET)
    log = vm.dmesg()
    expect(f"e1000e {twin}" in log, f"no line of e1000e about {twin}")
    expect(f"e1000e {nic}" not in log, f"e1000e has touched {nic}")
    claim, bind = vm.journal("vfioctl-claim.service"), vm.journal(unit)
    expect(f"{nic}: claimed for vfio-pci" in claim, claim)
    expect(f"{nic}: bound to vfio-pci (was on no driver)" in bind, bind)
    equal("units that failed", vm.failed_units(), [])


def check_installed(vm):
    """udev and systemd find nothing wrong, with what is made of every kind of selector either."""
    vm.write(
        f"{POLICY}/50-all.toml",
        "[[device]]\nid = '15b3:101e'\nsubsystem = '15b3:0023'\nclass = 'ethernet'\npf = '3b:00.0'\ndriver = 'auto'\n"
        "[[device]]\naddress = '3b:00.1'\ndriver = 'none'\n",
    )
    vm.vfioctl("apply")
    vm.ok(f"udevadm verify {RULE} {SELECTORS}")
    vm.ok(f"rm {POLICY}/50-all.toml")
    vm.vfioctl("apply")
    vm.ok(f"! test -e {SELECTORS}")
    for unit in UNITS:
        answer = vm.run(f"systemd-analyze verify --man=no --recursive-errors=no /usr/lib/systemd/system/{unit}")
        equal(f"systemd-analyze verify {unit}", (answer.status, answer.stdout + answer.stderr), (0, ""))
    equal("claims at boot", vm.unit("vfioctl-claim.service", "WantedBy")["WantedBy"], "sysinit.target")


def check_without_systemd(vm, nic):
    """There udev starts what systemd's unit does. udevadm says what it would run, and runs nothing."""
    rules = f"udevadm test --action=add /sys/bus/pci/devices/{nic} 2>&1"
    with_systemd = vm.ok(rules)
    expect(f"vfioctl@{nic}.service" in with_systemd and f"vfioctl apply {nic}" not in with_systemd, with_systemd)
    without = vm.ok(f"unshare --mount sh -c 'mount -t tmpfs tmpfs /run/systemd && {rules}'")
    expect(f"/usr/sbin/vfioctl apply {nic}" in without and f"vfioctl@{nic}.service" not in without, without)
