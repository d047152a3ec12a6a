# SPDX-License-Identifier: MIT OR Apache-2.0
"""A VF of igb gets igbvf_vfio_pci; with its PF on another driver the probe fails, and vfio-pci has it with a warning."""

from check import among, equal, expect
from machine import KMOD, SYSFS, expect_bound, expect_unchanged, quiet

# The oldest and the newest: what lies between has nothing of its own here.
KERNELS = ["6.1", "7"]
VARIANTS = True

PF = "8086:10c9"
VF = "8086:10ca"
DRIVER = "igbvf_vfio_pci"
STUB = "pci-pf-stub"

# Tried and put back, or known beforehand.
NOT_BOUND = (1, 4)


def run(vm):
    vm.load("igb", "igbvf")
    (pf,) = vm.with_id(PF)
    make_vfs(vm, pf)
    before = vm.devices()
    vf, _ = vm.with_id(VF)
    equal(f"{vf}: driver at first", before[vf].driver, "igbvf")

    expect_variant(vm, vf, before)
    vm.ok(f"vfio-use {vf} {vm.group(vf)}")
    equal("unbind: outcome", vm.result("unbind", vf)["outcome"], "unbound")
    expect_unchanged(before, vm.devices())

    # Without the mailbox's other end. The VFs go with igb, and the stub makes others.
    vm.ok(f"echo {pf} >/sys/bus/pci/drivers/igb/unbind")
    vm.ok(f"echo {STUB} >{SYSFS}/{pf}/driver_override")
    vm.load(STUB)
    make_vfs(vm, pf)
    stubbed = vm.devices()
    equal(f"{pf}: driver", stubbed[pf].driver, STUB)
    kernel_refuses(vm, vf, pf)
    expect_unchanged(stubbed, vm.devices())

    result = vm.result("bind", vf)
    equal("bind without igb: outcome", result["outcome"], "bound")
    expect(any("ENODEV" in warning for warning in result["warnings"]), f"bind without igb: no warning in {result}")
    fallen_back = vm.devices()
    expect_bound(stubbed, fallen_back, vf)
    vm.ok(f"vfio-use {vf} {vm.group(vf)}")

    result = vm.result("bind", vf, "--driver", DRIVER, status=NOT_BOUND)
    among("bind --driver without igb: outcome", result["outcome"], ("failed", "refused"))
    expect("ENODEV" in str(result["error"]), f"bind --driver without igb: no errno in {result}")
    expect_unchanged(fallen_back, vm.devices())

    # With igb back, what was saved is the choice of the best and not of vfio-pci.
    vm.ok(f"echo 0 >{SYSFS}/{pf}/sriov_numvfs")
    vm.ok(f"echo {pf} >/sys/bus/pci/drivers/{STUB}/unbind")
    vm.ok(f"echo >{SYSFS}/{pf}/driver_override")
    vm.ok(f"echo {pf} >/sys/bus/pci/drivers/igb/bind")
    make_vfs(vm, pf)
    expect_unchanged(before, vm.devices())
    equal("apply: driver", vm.result("apply", vf)["driver"], DRIVER)
    expect_bound(before, vm.devices(), vf, DRIVER)
    quiet(vm)


def expect_variant(vm, vf, before):
    equal("match", vm.ok(f"vfioctl match {vf}").strip(), DRIVER)
    result = vm.result("bind", vf)
    equal("bind: outcome", result["outcome"], "bound")
    equal("bind: warnings", result["warnings"], [])
    expect_bound(before, vm.devices(), vf, DRIVER)
    expect(not vm.loaded("vfio_pci"), "vfio_pci was loaded as well")


def kernel_refuses(vm, vf, pf):
    """ENODEV, and a line in the log that says what to do."""
    driver = vm.devices()[vf].driver
    vm.ok(f"echo {vf} >{SYSFS}/{vf}/driver/unbind")
    vm.ok(f"echo {DRIVER} >{SYSFS}/{vf}/driver_override")
    answer = vm.run(f"echo {vf} >/sys/bus/pci/drivers/{DRIVER}/bind")
    expect("No such device" in answer.stderr, f"{answer}\nnot ENODEV")
    expect(not vm.devices()[vf].vfio, f"{vf}: a VFIO device without a probe")
    vm.ok(f"dmesg | grep '{vf}: PF {pf} has to be on driver igb, and is on {STUB}'")
    vm.ok(f"echo >{SYSFS}/{vf}/driver_override")
    vm.ok(f"echo {vf} >/sys/bus/pci/drivers/{driver}/bind")
    vm.ok(f"{KMOD}/rmmod {DRIVER}")


def make_vfs(vm, pf):
    vm.ok(f"echo 2 >{SYSFS}/{pf}/sriov_numvfs")
