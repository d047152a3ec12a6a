# SPDX-License-Identifier: MIT OR Apache-2.0
"""Killed by SIGKILL in the middle of bind and unbind: the next run puts the device back or does what is asked, and says so."""

from check import equal, expect
from machine import SYSFS, expect_bound, expect_unchanged

RECORD = "/run/vfioctl/unfinished"


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    nic, _ = vm.nics()

    # Before its module is loaded, or meanwhile: the device is on no driver, and has its override.
    expect(not vm.loaded("vfio_pci"), "vfio_pci is loaded already")
    kill(vm, f"bind {nic}", f"[ ! -e {SYSFS}/{nic}/driver ]")
    expect(left(vm, nic), f"bind was killed, and {RECORD}/{nic} is not there")
    result = vm.result("apply", timeout=120)
    equal("apply after a killed bind: outcome", result["outcome"], "put-back")
    expect("killed" in result["warnings"][0], f"not a word of it: {result['warnings']}")
    as_before(vm, before, nic)
    # The module that was about to be loaded takes nothing when it comes.
    vm.load("vfio_pci")
    as_before(vm, before, nic)

    # As soon as anything is begun, by the record; then the same is asked for again.
    kill(vm, f"bind {nic}", f"[ -e {RECORD}/{nic} ]")
    vm.result("bind", nic)
    expect_bound(before, vm.devices(), nic)
    equal("files left", files(vm), [])
    vm.ok(f"vfio-use {nic} {vm.group(nic)}")

    # Unbinding: put back to VFIO, where its choice is still kept; or done.
    kill(vm, f"unbind {nic}", f"[ ! -e {SYSFS}/{nic}/driver ] || [ ! -e {RECORD}/{nic} ]", f"[ -e {RECORD}/{nic} ]")
    vm.vfioctl("apply")
    if vm.policies():
        expect_bound(before, vm.devices(), nic)
        vm.ok(f"vfio-use {nic} {vm.group(nic)}")
    else:
        expect_unchanged(before, vm.devices())
    equal("files left", files(vm), [])
    kill(vm, f"bind {nic}", f"[ -e {RECORD}/{nic} ]")
    vm.result("unbind", nic)
    as_before(vm, before, nic)


def kill(vm, command, condition, first="true"):
    """Kill a run as soon as something is so, if it has not ended by then."""
    vm.ok(
        f"vfioctl {command} >/dev/null 2>&1 & pid=$!\n"
        f"alive() {{ [ -e /proc/$pid/exe ]; }}\n"
        f"until {first} || ! alive; do :; done\n"
        f"until {condition} || ! alive; do :; done\n"
        f"kill -9 $pid 2>/dev/null; wait $pid; true",
        timeout=60,
    )


def left(vm, nic):
    return nic in files(vm)


def files(vm):
    return vm.ok(f"ls -A {RECORD} 2>/dev/null || true").split()


def as_before(vm, before, nic):
    expect_unchanged(before, vm.devices())
    equal("policy files", vm.policies(), {})
    equal("files left", files(vm), [])
