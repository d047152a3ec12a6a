# SPDX-License-Identifier: MIT OR Apache-2.0
"""What cannot be given away is refused, an address without a device is said to have none, and nothing changes."""

from check import equal, expect
from machine import expect_unchanged

NO_SUCH_DEVICE = 3
REFUSED = 4
ROOT_PORT = "1b36:000c"
CONVENTIONAL_BRIDGE = "1b36:000e"
ABSENT = "0000:7f:1f.7"


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    for bridge in (vm.with_id(ROOT_PORT)[0], vm.with_id(CONVENTIONAL_BRIDGE)[0]):
        result = vm.result("bind", bridge, status=REFUSED)
        equal(f"bind of the bridge {bridge}: outcome", result["outcome"], "refused")
        expect(result["error"], f"bind of the bridge {bridge}: no error in {result}")
        expect_unchanged(before, vm.devices())

    for command in ("bind", "unbind", "explain"):
        vm.vfioctl(command, ABSENT, status=NO_SUCH_DEVICE)
    expect_unchanged(before, vm.devices())
    equal("policy files", vm.policies(), {})
