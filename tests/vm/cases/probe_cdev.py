# SPDX-License-Identifier: MIT OR Apache-2.0
"""On a kernel with iommufd a device is asked through its own node, and one in use there is left alone."""

import probing
from check import equal, expect
from machine import SYSFS, expect_unchanged, quiet
from probing import NOT_PERMITTED, OTHER_TOKEN, PF, REFUSED, TESTDEV, TOKEN, VF, find_edu

# Debian's kernels have no iommufd, so that it is built for one, from 170 MB of source; 6.1 is from before devices had nodes.
IOMMUFD = True
KERNELS = ["7"]
DEVICES = probing.DEVICES


def run(vm):
    nic, _ = vm.nics()
    edu = find_edu(vm)
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
    token(vm)
    quiet(vm)


def node(vm, address):
    name = vm.ok(f"ls /sys/bus/pci/devices/{address}/vfio-dev").strip()
    return f"/dev/vfio/devices/{name}"


def ask(vm, address, driver, interface="cdev", options=()):
    document = vm.vfioctl("probe", address, *options)
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


def refused(vm, address, words, options=(), status=REFUSED):
    error = vm.vfioctl("probe", address, *options, status=status)["error"]
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
    tells = vm.run("grep -q vfio-device-syspath /proc/$(cat /run/holder.pid)/fdinfo/*").status == 0
    refused(vm, nic, "has the device open" if tells else "cannot see")
    vm.ok("kill $(cat /run/holder.pid)")
    vm.wait("the holder is gone", "! readlink /proc/$(cat /run/holder.pid)/exe")


def token(vm):
    """A VF whose PF is on vfio-pci too. With a token it goes through the group, since older kernels take none elsewhere."""
    vm.load("igb")
    (pf,) = vm.with_id(PF)
    vm.result("bind", pf, "--no-save")
    vm.ok(f"vfio-use '{pf} vf_token={TOKEN}' {vm.group(pf)}")
    vm.ok("echo 1 >/sys/module/vfio_pci/parameters/enable_sriov")
    vm.ok(f"echo 1 >{SYSFS}/{pf}/sriov_numvfs")
    (vf,) = vm.with_id(VF)
    vm.result("bind", vf, "--driver", "vfio-pci", "--no-save")
    right, wrong = ("--vf-token", TOKEN), ("--vf-token", OTHER_TOKEN)
    equal("VF: vf_token_required", ask(vm, vf, "vfio-pci", "group", right)["vf_token_required"], True)

    group = vm.group(vf)
    vm.ok(f"mv /dev/vfio/{group} /dev/vfio/aside")
    if vm.ok("uname -r").startswith("6.12"):
        refused(vm, vf, "VFIO_DEVICE_BIND_IOMMUFD", right)
        answers = vm.vfioctl("probe", vf)
    else:
        refused(vm, vf, "it takes the token", status=NOT_PERMITTED)
        refused(vm, vf, "not the token", wrong, status=NOT_PERMITTED)
        answers = vm.vfioctl("probe", vf, *right)
        equal("VF: vf_token_required", answers["vf_token_required"], True)
    equal("VF: interface", answers["interface"], "cdev")
    vm.ok(f"mv /dev/vfio/aside /dev/vfio/{group}")
