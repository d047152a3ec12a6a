# SPDX-License-Identifier: MIT OR Apache-2.0
"""auto follows the kernel: one that has the variant gets it, one that has not falls back to vfio-pci; the journal says so."""

from check import equal, expect

SYSTEM = True
VARIANTS = True
# It goes on to another by itself.
KERNELS = ["6.12"]

OTHER = {"6.12": "7"}
FILES = {"/etc/vfioctl.d/50-edu.toml": '[[device]]\nid = "1234:11e8"\ndriver = "auto"\n'}


def run(vm):
    check(vm, "edu_vfio_pci")

    other = OTHER[vm.kernel.name]
    release = vm.host.kernels[other].release
    vm.ok(f"rm /usr/lib/modules/{release}/updates/edu_vfio_pci.ko && depmod {release}", timeout=120)
    vm.reboot(kernel=other)
    for journal in check(vm, "vfio-pci"):
        expect(f"edu_vfio_pci is made for it, but kernel {release} has not got it" in journal, journal)


def check(vm, driver):
    """Both devices are on it, and came from no driver; the journals of their units."""
    journals = []
    for name in ("edu1", "edu2"):
        address = vm.address(name)
        vm.wait_driver(address, driver)
        vm.wait_applied(address)
        equal(f"{address}: driver_override", vm.devices()[address].override, driver)
        journals.append(vm.journal(f"vfioctl@{address}.service"))
        # The module that the unit of the one has loaded takes both.
        words = (f"{address}: bound to {driver} (was on no driver)", f"{address}: unchanged, on {driver}")
        expect(any(word in journals[-1] for word in words), journals[-1])
        expect(f"{address}: claimed for {driver}" in vm.journal("vfioctl-claim.service"), f"{address}: not claimed")
    equal("units that failed", vm.failed_units(), [])
    return journals
