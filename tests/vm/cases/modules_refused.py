# SPDX-License-Identifier: MIT OR Apache-2.0
"""modprobe.d and kernel.modules_disabled keep vfio-pci from being loaded: named, and the device is as before."""

from check import equal, expect
from machine import expect_bound, expect_unchanged

CONFIGURATION = "/etc/modprobe.d/local.conf"


def run(vm):
    vm.load("e1000e")
    nic = vm.nics()[0]
    before = vm.devices()
    for line, status, words in [
        ("install vfio_pci /usr/bin/false", 1, "install command"),
        # It succeeds, and nothing is loaded.
        ("install vfio-pci /usr/bin/true", 1, "succeeded, but the module is not there"),
        ("blacklist vfio_pci", 5, f"blacklisted by {CONFIGURATION}:1"),
    ]:
        vm.ok(f"mkdir -p /etc/modprobe.d; echo '{line}' >{CONFIGURATION}")
        error = vm.result("bind", nic, status=status)["error"]
        expect(words in error["message"], f"{line}: {error}")
        expect_unchanged(before, vm.devices())
        expect(not vm.loaded("vfio_pci"), f"{line}: vfio_pci is loaded")
        equal(f"{line}: policy", vm.policies(), {})
    vm.ok(f"rm {CONFIGURATION}")

    # What is loaded needs no loading: a blacklist is about what is loaded by itself.
    vm.load("vfio-pci")
    vm.ok(f"echo 'blacklist vfio_pci' >{CONFIGURATION}; echo 1 >/proc/sys/kernel/modules_disabled")
    vm.result("bind", nic)
    expect_bound(before, vm.devices(), nic)
    vm.result("unbind", nic)
    expect_unchanged(before, vm.devices())


