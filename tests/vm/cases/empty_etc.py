# SPDX-License-Identifier: MIT OR Apache-2.0
"""/usr cannot be written, /etc has nothing but the policy: selectors claim at the very first boot."""

from check import equal, expect

SYSTEM = True
# Of no kernel in particular, and long.
KERNELS = ["6.12"]
READ_ONLY_USR = True
EMPTY_ETC = True
FILES = {
    "/etc/vfioctl.d/50-nics.toml": """
[[device]]
id = "8086:10d3"
driver = "auto"

[[device]]
class = "usb"
driver = "none"
""",
    # Loaded before udev looks at any device, and after the claim.
    "/etc/modules-load.d/vfio.conf": "vfio-pci\n",
}


def run(vm):
    expect(vm.run("test -e /etc/driverctl.d").status != 0, "/etc still has what Debian's packages put there")
    expect(vm.run("touch /usr/sbin/vfioctl").status != 0, "/usr can be written")
    nics, usb = [vm.address("nic1"), vm.address("nic2")], vm.address("multi1")
    for nic in nics:
        vm.wait_driver(nic, "vfio-pci")
    devices, log = vm.devices(), vm.dmesg()
    for nic in nics:
        expect(devices[nic].vfio, f"{nic}: no VFIO device")
        expect(f"e1000e {nic}" not in log, f"e1000e has touched {nic}")
    # Nobody else needs it.
    expect(not vm.loaded("e1000e"), "e1000e is loaded")
    equal(f"{usb}: driver_override", devices[usb].override, "none")
    equal(f"{usb}: driver", devices[usb].driver, None)
    times = [f"ExecMain{when}TimestampMonotonic" for when in ("Start", "Exit")]
    claim = vm.unit("vfioctl-claim.service", *times)
    start, end = (int(claim[when]) / 1e6 for when in times)
    expect(end - start < 5, f"vfioctl-claim.service held up the boot for {end - start:.1f} s")
    equal("files of the policy", list(vm.policies()), ["50-nics.toml"])
    expect(not {unit for unit in vm.failed_units() if "vfioctl" in unit}, f"units that failed: {vm.failed_units()}")
