# SPDX-License-Identifier: MIT OR Apache-2.0
"""Real images by initramfs-tools and dracut have nvme, and it never touches the NVMe device that is claimed, nor misses its twin."""

import re

import earlyroot
from check import equal, expect
from machine import POLICY, UNSET
from system import TEST_DEVICES

# What is asked is the builders' doing, not the kernel's.
KERNELS = ["7"]
SYSTEM = True
# Nothing else that would take time to come up.
NEEDED = {"port6", "nvme", "empty1", "empty2"}
DEVICES = {name: None for name in TEST_DEVICES if name not in NEEDED}
DEVICES["claimed"] = "nvme,bus=empty1,serial=guest-claimed"


def run(vm):
    claimed, twin = vm.address("claimed"), vm.address("nvme")
    # Else nothing could be seen of it later.
    log = vm.dmesg()
    expect(touched(log, claimed) and touched(log, twin), log)
    check_rules(vm)
    vm.result("bind", claimed)
    policy = {f"{POLICY}/{name}": text for name, text in vm.policies().items()}

    for builder in ("dracut", "initramfs-tools"):
        vm.reboot(image=earlyroot.build(vm, builder, policy))
        check_claimed(vm, claimed, twin)
    vm.reboot(append="vfioctl.early=0")
    log = vm.dmesg()
    expect(touched(log, claimed) and "vfioctl:" not in log, log)


def check_rules(vm):
    """The image's rules alone keep nvme off a device that is plugged."""
    chosen, rules = f"{POLICY}/50-nvme.toml", "/run/udev/rules.d/05-vfioctl-initramfs.rules"
    vm.write(chosen, "[[device]]\nclass = 'nvme'\ndriver = 'auto'\n")
    vm.ok(f"mkdir -p {rules.rpartition('/')[0]} && vfioctl initramfs --format rules >{rules} && udevadm verify {rules}")
    vm.ok(f"rm {chosen} && udevadm control --reload")
    # What is loaded has a device before its uevent.
    vm.ok("modprobe -r nvme")
    plugged = vm.plug("plugged", "nvme,bus=empty2,serial=guest-plugged")
    equal(f"{plugged}: driver_override", vm.devices()[plugged].override, "none")
    expect(not vm.loaded("nvme"), "nvme was loaded for a device that is not to have it")
    vm.load("nvme")
    equal(f"{plugged}: driver", vm.devices()[plugged].driver, None)
    vm.unplug("plugged")
    vm.ok(f"rm {rules} && udevadm control --reload")


def touched(log, address):
    """Has nvme said anything of the device?"""
    return re.search(rf"nvme .*{re.escape(address)}", log) is not None


def check_claimed(vm, claimed, twin):
    vm.wait_applied(claimed)
    devices = vm.devices()
    equal(f"{claimed}: driver", devices[claimed].driver, "vfio-pci")
    equal(f"{claimed}: driver_override", devices[claimed].override, "vfio-pci")
    equal(f"{twin}: driver", devices[twin].driver, "nvme")
    equal(f"{twin}: driver_override", devices[twin].override, UNSET)
    equal("units that failed", vm.failed_units(), [])
    log = vm.dmesg()
    expect(not touched(log, claimed), f"nvme has touched {claimed}\n{log}")
    # All of it in the initramfs.
    steps = [f"vfioctl: {claimed}: claimed for vfio-pci", f"pci function {twin}", "EXT4-fs (vda): mounted"]
    places = [log.find(words) for words in steps]
    expect(-1 not in places and places == sorted(places), f"not in this order: {steps}\n{log}")
