# SPDX-License-Identifier: MIT OR Apache-2.0
"""kernel.modules_disabled with vfio-pci not in: the setting is named, and the device is as before."""

from check import equal, expect
from machine import expect_unchanged


def run(vm):
    vm.load("e1000e")
    nic = vm.nics()[0]
    before = vm.devices()
    vm.ok("echo 1 >/proc/sys/kernel/modules_disabled")
    error = vm.result("bind", nic, status=1)["error"]
    equal("kind", error["kind"], "module")
    expect("kernel.modules_disabled is 1" in error["hint"], str(error))
    expect_unchanged(before, vm.devices())
    equal("policy", vm.policies(), {})
