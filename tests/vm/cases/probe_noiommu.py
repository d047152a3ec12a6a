# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where VFIO may do without an IOMMU, a device is bound, shown and asked through the group that stands in for one."""

from check import equal
from machine import KMOD

IOMMU = False
# For its VFIO, which is built with that option.
IOMMUFD = True
KERNELS = ["7"]


def run(vm):
    nic, _ = vm.nics()
    vm.ok(f"{KMOD}/modprobe vfio enable_unsafe_noiommu_mode=1")
    vm.result("bind", nic, "--no-save")
    nodes = [f"/dev/vfio/noiommu-{vm.group(nic)}", "/dev/vfio/vfio"]
    equal("show: nodes", vm.vfioctl("show", nic)["nodes"], nodes)
    document = vm.vfioctl("probe", nic)
    equal("probe: interface", document["interface"], "group")
    equal("probe: nodes", document["nodes"], nodes)
    equal("probe: regions", document["regions"], 9)
    vm.result("unbind", nic, "--no-save")
