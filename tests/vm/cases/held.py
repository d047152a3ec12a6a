# SPDX-License-Identifier: MIT OR Apache-2.0
"""A device somebody holds open is not waited for, whatever the kernel does: all come back in time, and say who waits where."""

import time

from check import Late, equal, expect
from machine import expect_bound, expect_unchanged

# --timeout and what the program may need besides, on an emulated processor; and what it may need that only looks.
TIMEOUT = 3
LIMIT = 6
LOOK_LIMIT = 3

# The processes of ours, but for those that look for them.
OURS = "grep -lx vfioctl /proc/[0-9]*/comm"

REFUSED = 4
TIMED_OUT = 7


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    nic, _ = vm.nics()
    vm.vfioctl("bind", nic)
    vm.ok(f"vfio-use {nic} {vm.group(nic)} hold >/run/holder 2>&1 & echo $! >/run/holder.pid")
    vm.wait("the holder has the device", "grep -q held /run/holder")

    unbind = ("unbind", nic, "--timeout", str(TIMEOUT))
    result = timed("unbind of a device in use", LIMIT, lambda: vm.result(*unbind, status=(REFUSED, TIMED_OUT)))
    expect(result["error"], f"unbind of a device in use: no error in {result}")
    if vm.status == REFUSED:
        # Only then is it safe to look: while the kernel waits, reading driver_override does so too (6.1).
        equal("unbind of a device in use: outcome", result["outcome"], "refused")
        expect_bound(before, vm.devices(), nic)
        equal("policy files after a refusal", list(vm.policies()), [f"{nic}.toml"])

    hidden(vm, nic)

    vm.ok("kill $(cat /run/holder.pid)")
    vm.wait("the holder is gone", "! readlink /proc/$(cat /run/holder.pid)/exe")
    # What was left behind ends with it.
    vm.wait("no process of ours is left", f"! {OURS}")
    vm.vfioctl("bind", nic)
    vm.ok(f"vfio-use {nic} {vm.group(nic)}")
    vm.result("unbind", nic)
    expect_unchanged(before, vm.devices())
    equal("policy files after unbind", vm.policies(), {})
    vm.vfioctl("bind", nic)
    vm.ok(f"vfio-use {nic} {vm.group(nic)}")


def hidden(vm, nic):
    """The holder cannot be seen, as one in another PID namespace: the kernel waits for it."""
    vm.ok("mount -t tmpfs none /proc/$(cat /run/holder.pid)/fd")
    unbind = ("unbind", nic, "--timeout", str(TIMEOUT))
    result = timed("unbind of a device that is held unseen", LIMIT, lambda: vm.result(*unbind, status=TIMED_OUT))
    error = result["error"]
    equal("the error's kind", error["kind"], "timeout")
    expect("/sys/bus/pci/drivers/vfio-pci/unbind" in error["message"], f"the attribute is not named: {error}")
    expect("vfio_unregister_group_dev" in error["waiting_in"], f"the kernel's function is not named: {error}")
    expect("in vfio_unregister_group_dev" in error["message"], f"nor in the message: {error}")
    equal("what is left of ours", vm.ok(OURS).split(), [f"/proc/{error['waiting_pid']}/comm"])

    for command, status in ((("list",), 0), (("sriov",), 0), (("match", nic), 0), (("show", nic), (0, TIMED_OUT))):
        timed(f"{command[0]} beside a stuck device", LOOK_LIMIT, lambda: vm.vfioctl(*command, status=status))

    # Who comes next is told whom it waits for, and now that it can be seen, whom the kernel does.
    vm.ok("umount /proc/$(cat /run/holder.pid)/fd")
    result = timed("the next unbind", LIMIT, lambda: vm.result(*unbind, status=TIMED_OUT))
    equal("the next one waits for", result["error"]["waiting_pid"], error["waiting_pid"])
    equal("the holder", [holder["command"] for holder in result["error"]["holders"]], ["vfio-use"])


def timed(what, limit, work):
    started = time.monotonic()
    result = work()
    took = time.monotonic() - started
    if took >= limit:
        raise Late(f"{what} came back after {took:.1f} s instead of within {limit} s")
    return result
