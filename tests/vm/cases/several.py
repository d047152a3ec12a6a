# SPDX-License-Identifier: MIT OR Apache-2.0
"""Both twins at once, after a dry run that touches nothing; --no-save leaves no policy; short addresses are taken."""

from check import equal, expect
from machine import changed, expect_unchanged


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    twins = vm.nics()
    short = [address.removeprefix("0000:") for address in twins]

    equal("dry run: outcomes", outcomes(vm, "bind", *short, "--dry-run"), dict.fromkeys(twins, "planned"))
    expect_unchanged(before, vm.devices())
    expect(not vm.loaded("vfio_pci"), "a dry run loaded vfio_pci")
    equal("policy files after a dry run", vm.policies(), {})

    # The two find the module not loaded, and each loads it.
    equal("bind: outcomes", outcomes(vm, "bind", *short), dict.fromkeys(twins, "bound"))
    bound = vm.devices()
    equal("devices that changed", list(changed(before, bound)), twins)
    for address in twins:
        expect(bound[address].vfio, f"{address}: no vfio-dev directory, so no VFIO driver has it")
        vm.ok(f"vfio-use {address} {vm.group(address)}")
    equal("policy files", sorted(vm.policies()), [f"{address}.toml" for address in twins])

    # What the kernel shows of its IOMMU and of its interrupts is what doctor looks for.
    told = vm.vfioctl("doctor")
    for check in ("iommu", "interrupt-remapping", "policy-drivers"):
        severities = [found["severity"] for found in told["findings"] if found["check"] == check]
        equal(f"doctor: severities of {check}", severities, ["pass"])

    equal("unbind: outcomes", outcomes(vm, "unbind", *short), dict.fromkeys(twins, "unbound"))
    expect_unchanged(before, vm.devices())
    equal("policy files after unbind", vm.policies(), {})

    equal("bind --no-save: outcomes", outcomes(vm, "bind", *short, "--no-save"), dict.fromkeys(twins, "bound"))
    equal("policy files after bind --no-save", vm.policies(), {})


def outcomes(vm, *arguments):
    return {result["address"]: result["outcome"] for result in vm.vfioctl(*arguments)["results"]}
