# SPDX-License-Identifier: MIT OR Apache-2.0
"""vfioctl sriov while udev and its units do the same by policy: each VF is bound once, nothing fails, igbvf sees none."""

from check import equal, expect
from machine import POLICY, SYSFS

SYSTEM = True
# Of no kernel in particular, and long.
KERNELS = ["6.12"]

VF_ID = "8086:10ca"
COUNT = 7
ROUNDS = 2
SECONDS = 30


def run(vm):
    pf = vm.address("pf")
    vm.write(f"{POLICY}/50-vfs.toml", f"[[device]]\npf = '{pf}'\ndriver = 'auto'\n")
    vm.ok("vfioctl apply && modprobe igbvf")
    for _ in range(ROUNDS):
        vm.ok("dmesg -C")
        document = vm.vfioctl("sriov", pf, str(COUNT), timeout=120)
        equal("outcome", document["outcome"], "made")
        equal("steps that failed", [result for result in document["results"] if result["error"]], [])
        vfs = vm.with_id(VF_ID)
        vm.settle()
        vm.wait_applied(*vfs)
        devices = vm.devices()
        equal("drivers", {vf: devices[vf].driver for vf in vfs}, dict.fromkeys(vfs, "vfio-pci"))
        log = vm.dmesg()
        expect(not any(f"igbvf {vf}" in log for vf in vfs), f"igbvf came first:\n{log}")
        equal("autoprobe", vm.ok(f"cat {SYSFS}/{pf}/sriov_drivers_autoprobe").strip(), "1")
        equal("units that failed", vm.failed_units(), [])
        equal("outcome", vm.vfioctl("sriov", pf, "0", timeout=120)["outcome"], "removed")
        vm.settle()

    # Without the policy, by the name of a driver: udev has nothing to say.
    vm.ok(f"rm {POLICY}/50-vfs.toml; vfioctl apply")
    vm.ok("dmesg -C")
    vm.vfioctl("sriov", pf, str(COUNT), "--driver", "vfio-pci", timeout=120)
    vm.settle()
    vm.ok("sleep 2")
    vfs = vm.with_id(VF_ID)
    vm.wait_driver(vfs, "vfio-pci", SECONDS)
    log = vm.dmesg()
    expect(not any(f"igbvf {vf}" in log for vf in vfs), f"igbvf came first:\n{log}")
    # Nor is there a choice: the native driver has them.
    vm.vfioctl("sriov", pf, "2", timeout=120)
    vm.wait_driver(vm.with_id(VF_ID), "igbvf", SECONDS)
    equal("units that failed", vm.failed_units(), [])
