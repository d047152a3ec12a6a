# SPDX-License-Identifier: MIT OR Apache-2.0
"""Bound devices say what they can do, and are as before; one in use, unbound or in a shared group is left alone."""

import probing
from check import equal, expect
from machine import KMOD, SYSFS, expect_unchanged, quiet
from probing import NOT_PERMITTED, OTHER_TOKEN, PF, REFUSED, TESTDEV, TOKEN, VF, find_edu

VARIANTS = True
DEVICES = probing.DEVICES


def run(vm):
    nic, other = vm.nics()
    edu = find_edu(vm)
    unbound(vm, edu)

    for address in (edu, nic):
        vm.result("bind", address, "--no-save")
    bound = vm.devices()
    answers = ask(vm, edu, "edu_vfio_pci")
    equal("edu: migration", answers["migration"], ["stop_copy"])
    text = vm.ok(f"vfioctl probe {edu}")
    for line in ("  migration       stop_copy\n", "  dirty tracking  no\n", "  VF token        none needed\n"):
        expect(line in text, f"edu: {line!r} is not in:\n{text}")
    answers = ask(vm, nic, "vfio-pci")
    equal("NIC: migration", answers["migration"], [])
    equal("NIC: regions", answers["regions"], 9)
    equal("NIC: reset", answers["reset"], True)
    loads_what_a_container_needs(vm, nic)
    expect_unchanged(bound, vm.devices())
    vm.ok(f"vfio-use {nic} {vm.group(nic)}")

    plans(vm, nic)
    shows(vm, nic)
    in_use(vm, nic)
    handed_on(vm, nic)
    shared_group(vm)
    expect_unchanged(bound | {a: d for a, d in vm.devices().items() if d.id == TESTDEV}, vm.devices())
    vfs(vm)
    quiet(vm)


def ask(vm, address, driver, *options):
    document = vm.vfioctl("probe", address, *options)
    equal(f"probe {address}: address", document["address"], address)
    equal(f"probe {address}: driver", document["driver"], driver)
    equal(f"probe {address}: interface", document["interface"], "group")
    equal(f"probe {address}: nodes", document["nodes"], [f"/dev/vfio/{vm.group(address)}", "/dev/vfio/vfio"])
    # None of these devices logs what it writes, and each can be put to sleep.
    equal(f"probe {address}: dirty_tracking", document["dirty_tracking"], False)
    equal(f"probe {address}: low_power", document["low_power"], True)
    equal(f"probe {address}: low_power_wakeup", document["low_power_wakeup"], True)
    # A variant has to say where the memory is (get_dmabuf_phys), which ours do not.
    lends = driver == "vfio-pci" and vm.ok("uname -r").startswith("7")
    equal(f"probe {address}: dma_buf", document["dma_buf"], lends)
    equal(f"probe {address}: errors", document["errors"], [])
    return document


def refused(vm, address, *options, words, status=REFUSED, kind="unsafe"):
    error = vm.vfioctl("probe", address, *options, status=status)["error"]
    equal(f"probe {address}: kind", error["kind"], kind)
    for word in words:
        expect(word in error["message"], f"probe {address}: {word!r} is not in {error}")
    return error


def unbound(vm, address):
    error = refused(vm, address, words=["on no driver"])
    expect(f"vfioctl bind {address}" in error["hint"], f"probe of an unbound device: {error}")
    vm.vfioctl("probe", "0000:7f:1f.7", status=3)


def loads_what_a_container_needs(vm, nic):
    vm.ok(f"{KMOD}/rmmod vfio_iommu_type1")
    ask(vm, nic, "vfio-pci", "-v")
    expect(vm.loaded("vfio_iommu_type1"), "vfio_iommu_type1 was not loaded again")


def plans(vm, nic):
    document = vm.vfioctl("probe", nic, "--dry-run")
    equal("dry run: interface", document["interface"], "group")
    expect("migration" not in document, f"dry run: {document}")


def shows(vm, nic):
    group = vm.group(nic)
    shown = vm.vfioctl("show", nic)
    equal("show: nodes", shown["nodes"], [f"/dev/vfio/{group}", "/dev/vfio/vfio"])
    equal("show: holders", shown["holders"], [])


def hold(vm, nic, how):
    vm.ok(f"vfio-use {nic} {vm.group(nic)} {how} >/run/holder 2>&1 & echo $! >/run/holder.pid")
    vm.wait("the holder has the device", "grep -q held /run/holder")
    return int(vm.ok("cat /run/holder.pid"))


def let_go(vm, pid):
    # It has it still: nothing has reset it, nor waited for it.
    vm.ok(f"readlink /proc/{pid}/exe && kill {pid}")
    vm.wait("the holder is gone", f"! readlink /proc/{pid}/exe")


def tells_devices(vm, pid):
    return vm.run(f"grep -q vfio-device-syspath /proc/{pid}/fdinfo/*").status == 0


def in_use(vm, nic):
    pid = hold(vm, nic, "hold")
    node = f"/dev/vfio/{vm.group(nic)}"
    has_device = True if tells_devices(vm, pid) else None
    expected = {"pid": pid, "command": "vfio-use", "node": node, "has_device": has_device}
    equal("show: holders", vm.vfioctl("show", nic)["holders"], [expected])
    text = vm.ok(f"vfioctl show {nic}")
    expect(f"vfio-use (pid {pid}) has {node} open" in text, f"show: {text}")
    refused(vm, nic, words=[f"vfio-use (pid {pid}) has {node} open"])
    let_go(vm, pid)


def handed_on(vm, nic):
    """Only the newest kernels tell who has a device without its group's node; all of them keep us out."""
    pid = hold(vm, nic, "device")
    if tells_devices(vm, pid):
        expected = {"pid": pid, "command": "vfio-use", "node": None, "has_device": True}
        equal("show: holders", vm.vfioctl("show", nic)["holders"], [expected])
        refused(vm, nic, words=[f"vfio-use (pid {pid}) has the device open"])
    else:
        refused(vm, nic, words=["is in use", "cannot see"])
    let_go(vm, pid)


def shared_group(vm):
    (testdev,) = vm.with_id(TESTDEV)
    group = vm.ok(f"ls {SYSFS}/{testdev}/iommu_group/devices").split()
    vm.result("bind", testdev, "--no-save")
    native = [address for address in group if vm.devices()[address].driver == "virtio-pci"]
    equal("devices of the group on a native driver", len(native), 1)
    refused(vm, testdev, words=[f"{native[0]} on virtio-pci", f"group {vm.group(testdev)}"])
    # With that one out of the way it answers.
    vm.ok(f"echo {native[0]} >/sys/bus/pci/drivers/virtio-pci/unbind")
    vm.vfioctl("probe", testdev)
    vm.ok(f"echo {native[0]} >/sys/bus/pci/drivers/virtio-pci/bind")


def vfs(vm):
    """A variant's VF with its PF on igb; then with its PF on vfio-pci, when it takes the PF's token."""
    vm.load("igb", "igbvf")
    (pf,) = vm.with_id(PF)
    vm.ok(f"echo 1 >{SYSFS}/{pf}/sriov_numvfs")
    (vf,) = vm.with_id(VF)
    vm.result("bind", vf, "--no-save")
    answers = ask(vm, vf, "igbvf_vfio_pci")
    equal("VF: migration", answers["migration"], [])
    equal("VF: vf_token_required", answers["vf_token_required"], False)
    refused(vm, vf, "--vf-token", TOKEN, words=["EINVAL"])
    vm.ok(f"echo 0 >{SYSFS}/{pf}/sriov_numvfs")

    vm.result("bind", pf, "--no-save")
    answers = ask(vm, pf, "vfio-pci")
    equal("PF: keeps_vf_token", answers["keeps_vf_token"], True)
    refused(vm, pf, "--vf-token", TOKEN, words=["is no VF"])
    # The PF's user sets the token.
    vm.ok(f"vfio-use '{pf} vf_token={TOKEN}' {vm.group(pf)}")
    vm.ok("echo 1 >/sys/module/vfio_pci/parameters/enable_sriov")
    vm.ok(f"echo 1 >{SYSFS}/{pf}/sriov_numvfs")
    refused(vm, pf, words=["a PF with 1 VFs"])
    vm.result("bind", vf, "--driver", "vfio-pci", "--no-save")
    refused(vm, vf, status=NOT_PERMITTED, kind="permission", words=["EACCES", pf])
    refused(vm, vf, "--vf-token", OTHER_TOKEN, status=NOT_PERMITTED, kind="permission", words=["not the token"])
    equal("VF: vf_token_required", ask(vm, vf, "vfio-pci", "--vf-token", TOKEN)["vf_token_required"], True)
