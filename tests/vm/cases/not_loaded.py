# SPDX-License-Identifier: MIT OR Apache-2.0
"""Neither vfio-pci nor the native module is loaded: bind loads the one it needs and leaves the other alone."""

from check import equal, expect
from machine import UNSET, expect_bound


def run(vm):
    before = vm.devices()
    nic, twin = vm.nics()
    equal(f"{nic}: driver at first", before[nic].driver, None)
    for module in ("e1000e", "vfio_pci"):
        expect(not vm.loaded(module), f"{module} is loaded already")

    result = vm.result("bind", nic)
    equal("bind: outcome", result["outcome"], "bound")
    equal("bind: previous_driver", result["previous_driver"], None)
    expect_bound(before, vm.devices(), nic)
    expect(not vm.loaded("e1000e"), "bind loaded the native module e1000e")

    # The override holds when the native module comes later, and only for the one device.
    vm.load("e1000e")
    late = vm.devices()
    equal(f"{nic}: driver after e1000e came", late[nic].driver, "vfio-pci")
    equal(f"{twin}: driver after e1000e came", late[twin].driver, "e1000e")

    equal("unbind: outcome", vm.result("unbind", nic)["outcome"], "unbound")
    after = vm.devices()
    equal(f"{nic}: driver after unbind", after[nic].driver, "e1000e")
    equal(f"{nic}: driver_override after unbind", after[nic].override, UNSET)
