# SPDX-License-Identifier: MIT OR Apache-2.0
"""vfioctl sriov makes all VFs of an igb and of an NVMe controller and binds them; no native driver's probe is called for one."""

import shlex

from check import equal, expect
from machine import POLICY, SYSFS, expect_unchanged

IGB, IGBVF = "8086:10c9", "8086:10ca"
NVME = "1b36:0010"
REFUSED = 4
COUNT = 7

# The VFs' queues and vectors are taken from the controller's own; a controller with VFs needs a subsystem.
DEVICES = [
    "pcie-root-port,id=port6,chassis=6,slot=6,addr=0x16",
    "nvme-subsys,id=subsys0",
    "nvme,bus=port6,serial=vfs,subsys=subsys0,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4",
]


def run(vm):
    vm.load("igb", "igbvf", "nvme")
    (igb,) = vm.with_id(IGB)
    (nvme,) = vm.with_id(NVME)
    listed = {pf["address"]: pf for pf in vm.vfioctl("sriov")["pfs"]}
    equal("PFs and what they can have", {pf: listed[pf]["total_vfs"] for pf in listed}, {igb: COUNT, nvme: 4})
    before = vm.devices()

    vm.ok("dmesg -c >/dev/null")
    made(vm, igb, COUNT, "--driver", "auto")
    quiet(vm, igb, "igbvf")
    in_use(vm, igb)
    # As many already: nothing is made anew.
    equal("as many again: outcome", vm.vfioctl("sriov", igb, str(COUNT), "--driver", "auto")["outcome"], "unchanged")
    # Less, by way of none.
    made(vm, igb, 2, "--driver", "vfio-pci")
    equal("removed: outcome", vm.vfioctl("sriov", igb, "0")["outcome"], "removed")
    expect_unchanged(before, vm.devices())

    # By policy, and what that does not name goes to the native driver, after it.
    write_policy(vm, f"[[device]]\npf = '{igb}'\ndriver = 'auto'\n")
    vm.ok("dmesg -c >/dev/null")
    vfs = made(vm, igb, COUNT)
    quiet(vm, igb, "igbvf")
    write_policy(vm, f"[[device]]\naddress = '{vfs[1]}'\ndriver = 'auto'\n")
    vm.vfioctl("sriov", igb, "3")
    drivers = {address: vm.devices()[address].driver for address in vfs[:3]}
    equal("by an address", drivers, {vfs[0]: "igbvf", vfs[1]: "vfio-pci", vfs[2]: "igbvf"})
    # An interface of the host's.
    name = vm.ok(f"ls {SYSFS}/{vfs[0]}/net").strip()
    vm.ok(f"ip link set {name} up")
    document = vm.vfioctl("sriov", igb, "0", status=REFUSED)
    expect(name in document["error"]["message"], f"{name} is not named: {document['error']}")
    vm.ok(f"ip link set {name} down")
    vm.vfioctl("sriov", igb, "0")
    vm.ok(f"rm {POLICY}/50-vfs.toml")
    expect_unchanged(before, vm.devices())

    # A driver that takes none of them: all is put back.
    document = vm.vfioctl("sriov", igb, "3", "--driver", "pcieport", "--force", status=(1, REFUSED, 8))
    expect(document["error"] is not None, f"bound to pcieport: {document}")
    expect_unchanged(before, vm.devices())
    autoprobe(vm, igb)

    vm.ok("dmesg -c >/dev/null")
    made(vm, nvme, 4, "--driver", "auto")
    quiet(vm, nvme, "nvme")
    vm.vfioctl("sriov", nvme, "0")
    expect_unchanged(before, vm.devices())

    # Its driver cannot: a PF that VFIO has, and one on no driver.
    vm.result("bind", "--no-save", igb)
    document = vm.vfioctl("sriov", igb, "2", status=REFUSED)
    expect("given to VFIO" in document["error"]["message"], str(document["error"]))
    vm.result("unbind", igb)
    vm.ok(f"echo {igb} >{SYSFS}/{igb}/driver/unbind")
    document = vm.vfioctl("sriov", igb, "2", status=REFUSED)
    expect("on no driver" in document["error"]["message"], str(document["error"]))


def made(vm, pf, count, *options):
    """Make VFs and see that each is a VFIO device."""
    document = vm.vfioctl("sriov", pf, str(count), *options, timeout=120)
    equal(f"{pf}: outcome", document["outcome"], "made")
    vfs = [vf["address"] for vf in document["vfs"]]
    equal(f"{pf}: sriov_numvfs", vm.ok(f"cat {SYSFS}/{pf}/sriov_numvfs").strip(), str(count))
    equal(f"{pf}: VFs", len(vfs), count)
    devices = vm.devices()
    for vf in vfs:
        equal(f"{vf}: driver and override", (devices[vf].driver, devices[vf].override), ("vfio-pci", "vfio-pci"))
        expect(devices[vf].vfio, f"{vf}: no vfio-dev directory, so no VFIO driver has it")
    autoprobe(vm, pf)
    return vfs


def write_policy(vm, text):
    quoted = shlex.quote(text)
    vm.ok(f"mkdir -p {POLICY} && echo {quoted} >{POLICY}/50-vfs.toml")


def quiet(vm, pf, native):
    """The kernel log has no word of the native driver's about a VF."""
    vfs = [vf["address"] for vf in vm.vfioctl("sriov", pf)["vfs"]]
    log = vm.ok("dmesg")
    spoken = [line for line in log.splitlines() if any(f"{native} {vf}" in line for vf in vfs)]
    equal(f"what {native} says of VFs", spoken, [])


def autoprobe(vm, pf):
    equal(f"{pf}: autoprobe", vm.ok(f"cat {SYSFS}/{pf}/sriov_drivers_autoprobe").strip(), "1")


def in_use(vm, pf):
    """A VF that a program holds keeps all of them."""
    vf = vm.vfioctl("sriov", pf)["vfs"][0]
    group = f"/dev/vfio/{vf['iommu_group']}"
    vm.ok(f"(exec 9<{group}; exec sleep 1000) >/dev/null 2>&1 & echo $! >/tmp/holder; sleep 1")
    for count in ("0", "3"):
        document = vm.vfioctl("sriov", pf, count, status=REFUSED)
        expect("sleep" in document["error"]["message"] and group in document["error"]["message"], str(document["error"]))
    vm.ok("kill $(cat /tmp/holder)")
    vm.wait("the holder gone", "! test -d /proc/$(cat /tmp/holder)")
