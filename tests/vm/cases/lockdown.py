# SPDX-License-Identifier: MIT OR Apache-2.0
"""A variant that is not signed, on a kernel locked down: the next best is taken, or the reason is named."""

from check import equal, expect
from machine import UNSET, expect_unchanged

VARIANTS = True
APPEND = "lockdown=integrity"


def run(vm):
    vm.load("e1000e")
    edu = vm.with_id("1234:11e8")[0]
    before = vm.devices()
    expect("[integrity]" in vm.ok("mount -t securityfs none /sys/kernel/security; cat /sys/kernel/security/lockdown"), "")
    equal("best", vm.vfioctl("match", edu)["best"]["driver"], "edu_vfio_pci")

    error = vm.result("bind", "--strict", edu, status=1)["error"]
    expect("edu_vfio_pci" in error["message"] and "lockdown: integrity" in error["hint"], str(error))
    equal(f"{edu}: driver_override", vm.devices()[edu].override, UNSET)
    expect_unchanged(before, vm.devices())

    # The distribution's own modules are signed.
    result = vm.result("bind", edu)
    equal("bound to", result["driver"], "vfio-pci")
    expect(any("edu_vfio_pci" in warning for warning in result["warnings"]), str(result))
    vm.result("unbind", edu)
    expect_unchanged(before, vm.devices())
