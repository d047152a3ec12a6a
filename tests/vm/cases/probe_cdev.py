# SPDX-License-Identifier: MIT OR Apache-2.0
"""On a kernel with iommufd a device is asked through its own node, and one in use there is left alone."""

from check import equal, expect
from machine import expect_unchanged, quiet

# Debian's kernels have no iommufd, so that it is built for one of them.
IOMMUFD = True
KERNELS = ["6.12"]
DEVICES = [
    "pcie-root-port,id=edu-port,chassis=11,slot=11,addr=0x16",
    "edu,bus=edu-port",
    "virtio-net-pci,bus=conventional,addr=0x2,romfile=",
]

EDU = "1234:11e8"
TESTDEV = "1b36:0005"
REFUSED = 4


def run(vm):
    nic, _ = vm.nics()
    (edu,) = (address for address in vm.with_id(EDU) if not address.startswith("0000:00:"))
    (testdev,) = vm.with_id(TESTDEV)
    for address in (nic, edu, testdev):
        vm.result("bind", address, "--no-save")
    bound = vm.devices()
    equal("edu: migration", ask(vm, edu, "edu_vfio_pci")["migration"], ["stop_copy"])
    answers = ask(vm, nic, "vfio-pci")
    equal("NIC: migration", answers["migration"], [])
    equal("NIC: regions", answers["regions"], 9)
    # Through the group it says the same. The node is udev's to remove, not ours: aside it goes, and back.
    vm.ok("mv /dev/iommu /dev/iommu.aside")
    by_group = ask(vm, nic, "vfio-pci", "group")
    vm.ok("mv /dev/iommu.aside /dev/iommu")
    differ = ("interface", "nodes")
    equal("by group", without(by_group, differ), without(answers, differ))

    in_use(vm, nic)
    refused(vm, testdev, "on virtio-pci")
    expect_unchanged(bound, vm.devices())
    vm.ok(f"vfio-use {nic} {vm.group(nic)}")
    vm.result("unbind", nic, "--no-save")
    quiet(vm)


def node(vm, address):
    name = vm.ok(f"ls /sys/bus/pci/devices/{address}/vfio-dev").strip()
    return f"/dev/vfio/devices/{name}"


def ask(vm, address, driver, interface="cdev"):
    document = vm.vfioctl("probe", address)
    group = [f"/dev/vfio/{vm.group(address)}", "/dev/vfio/vfio"]
    cdev = [node(vm, address), "/dev/iommu"]
    equal(f"probe {address}: driver", document["driver"], driver)
    equal(f"probe {address}: interface", document["interface"], interface)
    equal(f"probe {address}: nodes", document["nodes"], cdev if interface == "cdev" else group)
    equal(f"probe {address}: low_power", document["low_power"], True)
    if interface == "cdev":
        equal(f"show {address}: nodes", vm.vfioctl("show", address)["nodes"], group + cdev)
    return document


def without(document, names):
    return {name: value for name, value in document.items() if name not in names}


def refused(vm, address, words):
    error = vm.vfioctl("probe", address, status=REFUSED)["error"]
    expect(words in error["message"], f"probe {address}: {words!r} is not in {error}")


def in_use(vm, nic):
    """By its own node, if only opened; and by its group, when the kernel would have refused."""
    own = node(vm, nic)
    pid = int(vm.ok(f"sleep 100 <>{own} >/dev/null 2>&1 & echo $!"))
    refused(vm, nic, f"sleep (pid {pid}) has {own} open")
    vm.ok(f"kill {pid}")
    vm.wait("sleep is gone", f"! readlink /proc/{pid}/exe")
    vm.ok(f"vfio-use {nic} {vm.group(nic)} device >/run/holder 2>&1 & echo $! >/run/holder.pid")
    vm.wait("the holder has the device", "grep -q held /run/holder")
    refused(vm, nic, "cannot see")
    vm.ok("kill $(cat /run/holder.pid)")
    vm.wait("the holder is gone", "! readlink /proc/$(cat /run/holder.pid)/exe")
