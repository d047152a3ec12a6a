# SPDX-License-Identifier: MIT OR Apache-2.0
"""Without an IOMMU the kernel would not let vfio-pci have the device (EINVAL): refused before anything is touched."""

from check import equal, expect
from machine import expect_unchanged

IOMMU = False
REFUSED = 4


def run(vm):
    vm.load("e1000e", "virtio_net")
    before = vm.devices()
    nic, _ = vm.nics()
    listed = {device["address"]: device for device in vm.vfioctl("list")["devices"]}
    equal(f"list: {nic}: iommu_group", listed[nic]["iommu_group"], None)
    equal("bind: outcome", vm.result("bind", nic, status=REFUSED)["outcome"], "refused")
    expect_unchanged(before, vm.devices())
    told = vm.vfioctl("doctor", status=1)
    iommu = [found for found in told["findings"] if found["check"] == "iommu"]
    equal("doctor: severity of iommu", [found["severity"] for found in iommu], ["failure"])
    expect("a virtual machine" in iommu[0]["message"], f"doctor: {iommu}")
    equal("policy files", vm.policies(), {})
