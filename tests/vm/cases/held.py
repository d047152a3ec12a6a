# SPDX-License-Identifier: MIT OR Apache-2.0
"""A device somebody holds open is not waited for, whatever the kernel does: unbind comes back in time."""

import time

from check import equal, expect
from machine import expect_bound, expect_unchanged

# --timeout and what the program may need besides, on an emulated processor.
TIMEOUT = 3
LIMIT = 6

REFUSED = 4
TIMED_OUT = 7


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    nic, _ = vm.nics()
    vm.vfioctl("bind", nic)
    vm.ok(f"vfio-use {nic} {vm.group(nic)} hold >/run/holder 2>&1 & echo $! >/run/holder.pid")
    vm.wait("the holder has the device", "grep -q held /run/holder")

    started = time.monotonic()
    result = vm.result("unbind", nic, "--timeout", str(TIMEOUT), status=(REFUSED, TIMED_OUT), timeout=20)
    took = time.monotonic() - started
    expect(took < LIMIT, f"unbind of a device in use came back after {took:.1f} s instead of within {LIMIT} s")
    expect(result["error"], f"unbind of a device in use: no error in {result}")
    if vm.status == REFUSED:
        # Only then is it safe to look: while the kernel waits, reading driver_override does so too (6.1).
        equal("unbind of a device in use: outcome", result["outcome"], "refused")
        expect_bound(before, vm.devices(), nic)
        equal("policy files after a refusal", list(vm.policies()), [f"{nic}.toml"])

    vm.ok("kill $(cat /run/holder.pid)")
    vm.wait("the holder is gone", "! readlink /proc/$(cat /run/holder.pid)/exe")
    vm.result("unbind", nic)
    expect_unchanged(before, vm.devices())
    equal("policy files after unbind", vm.policies(), {})
    vm.vfioctl("bind", nic)
    vm.ok(f"vfio-use {nic} {vm.group(nic)}")
