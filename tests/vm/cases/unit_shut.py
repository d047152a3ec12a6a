# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a prepare step can do in the device's unit, and what it cannot until a drop-in lets it."""

from check import equal, expect

SYSTEM = True
# Of no kernel in particular, and long.
KERNELS = ["6.12"]

STEP = """#!/bin/sh
# One word for each that worked.
try() { name=$1; shift; "$@" >/dev/null 2>&1 && echo "$name"; }
{
    try run touch /run/made-by-step
    try sysfs test -w /sys/bus/pci/drivers_probe
    try modules test -e "/lib/modules/$(uname -r)/modules.dep"
    try processes test -r /proc/1/fd/0
    try netlink busybox ip link
    try etc touch /etc/made-by-step
    try usr touch /usr/made-by-step
    try root touch /root/made-by-step
    try clock date -s @0
    # Nobody else sees it.
    mount -t tmpfs -o size=4k none /mnt
} >/run/step-could
"""
ALWAYS = ["run", "sysfs", "modules", "processes", "netlink"]
DROP_IN = "[Service]\nReadWritePaths=/etc\n"


def run(vm):
    nic = vm.address("nic1")
    unit = f"vfioctl@{nic}.service"
    vm.write("/usr/local/sbin/step", STEP)
    vm.ok("chmod 755 /usr/local/sbin/step")
    vm.ok("mkdir -p /etc/vfioctl.d /mnt")
    rule = f'[[device]]\naddress = "{nic}"\ndriver = "auto"\nprepare = [["/usr/local/sbin/step"]]\n'
    vm.write("/etc/vfioctl.d/50-nic.toml", rule)
    for drop_in, more in [(None, []), (DROP_IN, ["etc"])]:
        if drop_in:
            vm.ok("mkdir -p /etc/systemd/system/vfioctl@.service.d")
            vm.write("/etc/systemd/system/vfioctl@.service.d/step.conf", drop_in)
            vm.ok("systemctl daemon-reload")
        vm.ok(f"systemctl start {unit}")
        equal(f"{nic}: driver", vm.devices()[nic].driver, "vfio-pci")
        equal("what the step could do", vm.ok("cat /run/step-could").split(), ALWAYS + more)
        expect(vm.run("grep -q ' /mnt ' /proc/mounts").status != 0, "what a step mounts is everybody's")
        vm.vfioctl("unbind", "--no-save", nic)
        equal(f"{nic}: driver", vm.devices()[nic].driver, "e1000e")
    # What others can change is not done.
    vm.ok("rm /run/step-could; chmod 664 /etc/vfioctl.d/50-nic.toml")
    expect(vm.run(f"systemctl start {unit}").status != 0, f"{unit} has taken what others could change")
    expect("chmod go-w /etc/vfioctl.d/50-nic.toml" in vm.journal(unit), vm.journal(unit))
    equal(f"{nic}: driver", vm.devices()[nic].driver, "e1000e")
    expect(vm.run("test -e /run/step-could").status != 0, "the step was run")
