# SPDX-License-Identifier: MIT OR Apache-2.0
"""A hot-plugged device comes to its driver again, ten times: claimed where its native driver is not loaded, moved where it is."""

import time

from check import Late, equal, expect

SYSTEM = True

NIC = "e1000e,bus=empty1,romfile="
ROUNDS = 5
# From the plug to the driver, udev and systemd and TCG included.
SECONDS = 15


def run(vm):
    twin = vm.address("nic1")
    nic = vm.plug("extra", NIC)
    vm.ok("setsid sh -c 'echo $$ > /run/watch.pid; exec vfioctl list --watch' > /run/watch 2>&1 < /dev/null &")
    vm.wait("the list that is watched", f"grep -q '^{nic} ' /run/watch")
    vm.result("bind", nic)
    # The kernel may be seen between the two.
    watched(vm, f"{nic}  driver    .* -> vfio-pci")
    vm.unplug("extra")
    watched(vm, f"{nic}  removed   vfio-pci")
    equal("address after the plug", vm.plug("extra", NIC), nic)
    watched(vm, f"{nic}  added     .*, ethernet: .*")
    vm.ok("kill $(cat /run/watch.pid)")
    equal("what was said besides", vm.ok("grep -c warning /run/watch || true").strip(), "0")
    vm.wait_driver(nic, "vfio-pci", SECONDS)
    vm.wait_applied(nic)
    for is_loaded in (False, True):
        for _ in range(ROUNDS):
            vm.unplug("extra")
            vm.ok(f"modprobe {'' if is_loaded else '-r'} e1000e && dmesg -C")
            started = time.monotonic()
            equal("address after the plug", vm.plug("extra", NIC), nic)
            vm.wait_driver(nic, "vfio-pci", SECONDS)
            if time.monotonic() - started > SECONDS:
                raise Late(f"{nic}: on vfio-pci, but not within {SECONDS} s")
            vm.wait_applied(nic)
            devices = vm.devices()
            equal(f"{nic}: driver_override", devices[nic].override, "vfio-pci")
            expect(devices[nic].vfio, f"{nic}: no VFIO device")
            touched = f"e1000e {nic}" in vm.dmesg()
            # The kernel probes before user space hears of the device, if it has a driver to probe with.
            equal(f"{nic}: touched by e1000e, which was loaded: {is_loaded}", touched, is_loaded)
            # Nor is that loaded for a device that is claimed.
            equal(f"{twin}: driver", devices[twin].driver, "e1000e" if is_loaded else None)
    equal("units that failed", vm.failed_units(), [])

    # Given back, it is the native driver's, plugged or replugged.
    vm.result("unbind", nic)
    vm.unplug("extra")
    vm.plug("extra", NIC)
    equal(f"{nic}: driver after unbind", vm.devices()[nic].driver, "e1000e")


def watched(vm, line):
    vm.wait(f"in the list that is watched: {line}", f"grep -qx '{line}' /run/watch", SECONDS)
