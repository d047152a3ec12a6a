# SPDX-License-Identifier: MIT OR Apache-2.0
"""The module does not load, half way through a bind: everything is put back, nothing is saved."""

from check import equal, expect
from machine import KMOD, expect_unchanged

FAILED = 1


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    nic, _ = vm.nics()
    file = vm.ok(f"{KMOD}/modinfo -n vfio-pci").strip()
    vm.ok(f"mv {file} {file}.good && echo broken >{file}")

    result = vm.result("bind", nic, status=FAILED)
    equal("bind: outcome", result["outcome"], "failed")
    expect(result["error"], f"bind: no error in {result}")
    expect_unchanged(before, vm.devices())
    equal("policy files", vm.policies(), {})

    # With the fault gone it works: nothing was left half done.
    vm.ok(f"mv {file}.good {file}")
    equal("bind afterwards: outcome", vm.result("bind", nic)["outcome"], "bound")
