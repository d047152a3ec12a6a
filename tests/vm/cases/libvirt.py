# SPDX-License-Identifier: MIT OR Apache-2.0
"""A real libvirtd: what it does with devices by itself, and with the hook, which gives them back as they were."""

import json
import re

from check import equal, expect
from machine import SYSFS, UNSET, expect_unchanged

SYSTEM = True
# Of no kernel in particular, and long.
KERNELS = ["6.12", "7"]
VARIANTS = True
LIBVIRT = True

RULE = "06-vfioctl-reattach.rules"
HOOK = "/etc/libvirt/hooks/qemu.d/vfioctl"
# A QEMU in an emulated guest.
SECONDS = 120
# On an emulated processor that others want too.
HOOK_MILLISECONDS = 2000
VF_ID = "8086:10ca"
ELSEWHERE = "mlx5_vfio_pci"

# Its processors never run: what is looked at are its devices.
DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
{devices}
  </devices>
</domain>
"""


def run(vm):
    edu, other, nic = (vm.address(name) for name in ("edu1", "edu2", "nic1"))
    vf = make_vf(vm)
    vm.ok("systemctl start libvirtd && virsh version", SECONDS)
    # What is kept for one of the two is not what libvirt would take.
    vm.vfioctl("bind", "--driver", "vfio-pci", other)
    vm.result("bind", nic)
    before = vm.devices()

    by_itself(vm, other)
    expect_unchanged(before, vm.devices())
    by_hand(vm, nic)
    expect_unchanged(before, vm.devices())

    vm.ok(f"install -D -m755 /usr/share/vfioctl/libvirt-hook {HOOK} && systemctl restart libvirtd", SECONDS)
    stays_kept(vm, nic, other)
    costs_little(vm)
    together(vm, before, edu, other, nic, vf)
    expect_unchanged(before, vm.devices())
    refuses(vm, edu, other)
    expect_unchanged(before, vm.devices())
    equal("what the hook keeps", vm.run("ls /run/vfioctl/libvirt/*.json").stdout, "")
    equal("units that failed", vm.failed_units(), [])


def make_vf(vm):
    """A VF on its native driver, of a PF that libvirt can set the VF's MAC address by."""
    pf = vm.address("pf")
    vm.ok(f"ip link set $(ls {SYSFS}/{pf}/net) up && modprobe igbvf && echo 1 >{SYSFS}/{pf}/sriov_numvfs", 60)
    vm.settle()
    (vf,) = vm.with_id(VF_ID)
    vm.wait_driver(vf, "igbvf", 60)
    return vf


def by_itself(vm, address):
    """Without the hook: libvirt takes the variant, and at the end the choice that was kept is not in force any more."""
    define(vm, "alone", unnamed(xml(vm, address)))
    start(vm, "alone")
    equal(f"{address} in the domain: driver", vm.devices()[address].driver, "edu_vfio_pci")
    stop(vm, "alone")
    equal(f"{address} after it: override", vm.devices()[address].override, UNSET)
    expect(vm.devices()[address].driver is None, f"{address}: on a driver after the domain")
    vm.vfioctl("apply", address)


def by_hand(vm, address):
    """libvirt calls no hook here: reattaching is how an administrator gives a device away, until `vfioctl apply`."""
    name = "pci_" + address.replace(":", "_").replace(".", "_")
    vm.ok(f"virsh nodedev-detach {name}", SECONDS)
    equal(f"{address} detached: driver", vm.devices()[address].driver, "vfio-pci")
    vm.ok(f"virsh nodedev-reattach {name}", SECONDS)
    vm.settle()
    vm.ok("sleep 2")
    device = vm.devices()[address]
    equal(f"{address} reattached", (device.driver, device.override), ("e1000e", UNSET))
    vm.vfioctl("apply", address)


def stays_kept(vm, nic, other):
    """With the rule that comes with the hook, a kept choice holds although libvirt clears it; but not against vfioctl."""
    vm.ok(f"cp /usr/share/vfioctl/{RULE} /etc/udev/rules.d/ && udevadm verify /etc/udev/rules.d/{RULE} && udevadm control --reload")
    before = vm.devices()
    # One goes to its native driver, the other has none.
    for address in (nic, other):
        name = "pci_" + address.replace(":", "_").replace(".", "_")
        vm.ok(f"virsh nodedev-detach {name} && virsh nodedev-reattach {name}", SECONDS)
        vm.settle()
        vm.wait_driver(address, "vfio-pci", 60)
        vm.wait_applied(address)
    expect_unchanged(before, vm.devices())
    vm.vfioctl("unbind", "--no-save", nic)
    vm.settle()
    vm.ok("sleep 3")
    equal(f"{nic} given away: driver", vm.devices()[nic].driver, "e1000e")
    vm.vfioctl("apply", nic)
    vm.settle()
    expect_unchanged(before, vm.devices())


def costs_little(vm):
    """A domain without devices starts, and the hook has nothing to do for it."""
    define(vm, "plain", "")
    start(vm, "plain")
    stop(vm, "plain")
    clock = "$(date +%s%N)"
    took = vm.ok(
        f"virsh dumpxml plain >/run/plain && begin={clock} && {HOOK} plain prepare begin - </run/plain && "
        f"echo $((({clock} - begin) / 1000000))"
    )
    expect(int(took) < HOOK_MILLISECONDS, f"the hook took {took} ms for a domain without devices")


def together(vm, before, edu, other, nic, vf):
    """Each device is on the driver that was foretold while the domain has it, and the hook put it there, not libvirt."""
    devices = xml(vm, edu) + unnamed(xml(vm, other)) + xml(vm, nic, managed="no") + xml(vm, vf, interface=True)
    define(vm, "all", devices)
    foretold = check(vm, "all")
    expect(foretold["would_start"], f"foretold: {foretold}")
    start(vm, "all")
    wanted = {edu: "edu_vfio_pci", other: "edu_vfio_pci", nic: "vfio-pci", vf: "igbvf_vfio_pci"}
    during = vm.devices()
    equal("drivers in the domain", {address: during[address].driver for address in wanted}, wanted)
    equal("drivers foretold", {device["address"]: device["hook_driver"] for device in foretold["devices"]}, wanted)
    (state,) = vm.ok("cat /run/vfioctl/libvirt/*.json").splitlines()
    taken = {held["address"] for held in json.loads(state)["devices"] if held["before"]}
    equal("taken by the hook, and so not by libvirt", taken, {edu, other, vf})
    others = before.keys() - wanted.keys()
    expect_unchanged({name: before[name] for name in others}, {name: during[name] for name in others})
    for address in wanted:
        refused = vm.run(f"vfioctl unbind --no-save {address}", 60)
        expect(refused.status != 0 and "qemu-system" in refused.stderr, f"while the domain has it: {refused}")
    stop(vm, "all")


def refuses(vm, edu, other):
    """What cannot be had ends the start with the hook's own words, and the devices that were bound before go back."""
    # Of another maker's devices.
    wrong = xml(vm, other).replace("model='vfio-pci'", f"model='{ELSEWHERE}'")
    define(vm, "wrong", xml(vm, edu) + wrong)
    stays_away(vm, "wrong", f"{other}: the domain names driver {ELSEWHERE}")

    vm.ok(f"vfio-use {other} {vm.group(other)} hold >/run/holder 2>&1 & echo $! >/run/holder.pid")
    vm.wait("the holder has the device", "grep -q held /run/holder")
    define(vm, "held", xml(vm, edu) + unnamed(xml(vm, other)))
    stays_away(vm, "held", f"{other} is in use")
    vm.ok("kill $(cat /run/holder.pid)")
    vm.wait("the holder is gone", "! readlink /proc/$(cat /run/holder.pid)/exe")


def stays_away(vm, name, words):
    at_first = vm.devices()
    foretold = check(vm, name, 4)
    expect(not foretold["would_start"], f"foretold of {name}: {foretold}")
    answer = vm.run(f"virsh start --paused {name}", SECONDS)
    expect(answer.status != 0 and words in answer.stderr, f"{words!r} not in\n{answer}")
    expect_unchanged(at_first, vm.devices())


def xml(vm, *addresses, managed="yes", interface=False):
    options = f"--managed {managed}" + " --interface" * interface
    return vm.ok(f"vfioctl libvirt xml {options} {' '.join(addresses)}")


def unnamed(devices):
    """Without the driver that the policy names: so it is for libvirt to choose."""
    return re.sub("<driver .*/>\n", "", devices)


def define(vm, name, devices):
    vm.write(f"/run/{name}.xml", DOMAIN.format(name=name, devices=devices))
    vm.ok(f"virsh define /run/{name}.xml", SECONDS)


def start(vm, name):
    vm.ok(f"virsh start --paused {name}", SECONDS)


def stop(vm, name):
    vm.ok(f"virsh destroy {name}", SECONDS)
    vm.settle()


def check(vm, name, status=0):
    """What `vfioctl libvirt check` says of the XML that libvirt has made of it."""
    answer = vm.run(f"virsh dumpxml {name} | vfioctl libvirt check --json -", SECONDS)
    equal(f"vfioctl libvirt check of {name}: exit status", answer.status, status)
    return json.loads(answer.stdout)
