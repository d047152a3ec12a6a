# SPDX-License-Identifier: MIT OR Apache-2.0
"""VFs that are destroyed and made again come to their driver each time, chosen by pf, id, class or address; PF and others do not."""

from check import equal, expect
from machine import POLICY, SYSFS

SYSTEM = True
# The oldest and the newest: between them nothing of this is another.
KERNELS = ["6.1", "7"]

VF_ID = "8086:10ca"
COUNT = 3
# In turns without the native driver and with it.
ROUNDS = 4
FAST_ROUNDS = "1 2 3 4 5 6 7 8"
SECONDS = 20


def run(vm):
    pf = vm.address("pf")
    selectors = [(f"pf = '{pf}'", ROUNDS), (f"id = '{VF_ID}'", 1), (f"class = 'ethernet'\npf = '{pf}'", 1)]
    for selector, rounds in selectors:
        vm.write(f"{POLICY}/50-vfs.toml", f"[[device]]\n{selector}\ndriver = 'auto'\n")
        vm.ok("vfioctl apply")
        for round_ in range(rounds):
            is_loaded = round_ % 2 == 1
            vfs = cycle(vm, pf, is_loaded)
            check(vm, pf, vfs)
            log = vm.dmesg()
            expect(is_loaded or not any(f"igbvf {vf}" in log for vf in vfs), f"igbvf came first:\n{log}")
    # As fast as can be: units begin for VFs that are gone, and systemd would stop starting them if it were told to.
    number = f"{SYSFS}/{pf}/sriov_numvfs"
    vm.ok(f"for round in {FAST_ROUNDS}; do echo 0 >{number}; echo {COUNT} >{number}; done", timeout=120)
    vm.settle()
    check(vm, pf, vfs)
    # Given back for a while; that somebody else wants udev to look at everything again changes nothing.
    vm.result("unbind", "--no-save", vfs[0])
    vm.ok("udevadm trigger --action=change --subsystem-match=pci")
    vm.settle()
    vm.ok("sleep 2")
    equal(f"{vfs[0]}: driver", vm.devices()[vfs[0]].driver, "igbvf")
    vm.ok(f"rm {POLICY}/50-vfs.toml; vfioctl apply")

    # One of them by its address: the others go to the native driver.
    vfs = cycle(vm, pf, True)
    vm.wait_driver(vfs, "igbvf", SECONDS)
    chosen = vfs[1]
    others = [vf for vf in vfs if vf != chosen]
    vm.result("bind", chosen)
    equal("addresses of the VFs", cycle(vm, pf, True), vfs)
    vm.wait_driver(chosen, "vfio-pci", SECONDS)
    vm.wait_driver(others, "igbvf", SECONDS)
    vm.wait_applied(chosen)
    equal("units that failed", vm.failed_units(), [])


def cycle(vm, pf, is_loaded):
    """Destroy the VFs, and make them again."""
    module = "modprobe igbvf" if is_loaded else "modprobe -r igbvf"
    number = f"{SYSFS}/{pf}/sriov_numvfs"
    vm.ok(f"echo 0 >{number} && {module} && dmesg -C && echo {COUNT} >{number}", timeout=60)
    vm.settle()
    vfs = vm.with_id(VF_ID)
    equal("number of VFs", len(vfs), COUNT)
    return vfs


def check(vm, pf, vfs):
    vm.wait_driver(vfs, "vfio-pci", SECONDS)
    vm.wait_applied(*vfs)
    devices = vm.devices()
    equal(f"{pf}: driver", devices[pf].driver, "igb")
    for vf in vfs:
        equal(f"{vf}: driver_override", devices[vf].override, "vfio-pci")
        expect(devices[vf].vfio, f"{vf}: no VFIO device")
