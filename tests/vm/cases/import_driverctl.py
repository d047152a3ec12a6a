# SPDX-License-Identifier: MIT OR Apache-2.0
"""What driverctl keeps is taken over: at no time, and at no boot, do both tools claim a device."""

from check import equal, expect
from machine import POLICY

SYSTEM = True
# Of no kernel in particular, and long.
KERNELS = ["6.12"]


def run(vm):
    nic, twin = vm.address("nic1"), vm.address("nic2")
    vm.ok(f"driverctl set-override {nic} vfio-pci", timeout=60)
    error = vm.result("bind", nic, status=4)["error"]
    expect(f"/etc/driverctl.d/pci-{nic}" in error["message"] + error["hint"], str(error))

    shown = vm.ok("vfioctl import-driverctl")
    expect(nic in shown, shown)
    expect(nic in vm.ok("driverctl list-persisted"), "showing the plan did something")
    vm.ok("vfioctl import-driverctl --yes")
    equal("kept by driverctl", vm.ok("driverctl list-persisted || true").strip(), "")
    equal("kept by vfioctl", list(vm.policies()), [f"{nic}.toml"])

    vm.reboot()
    vm.wait_driver(nic, "vfio-pci")
    vm.wait_applied(nic)
    equal(f"{twin}: driver", vm.devices()[twin].driver, "e1000e")
    expect(f"e1000e {nic}" not in vm.dmesg(), f"e1000e has touched {nic}")
    equal("driverctl's unit", vm.unit(f"driverctl@pci-{nic}.service", "ActiveState")["ActiveState"], "inactive")

    # Its own name, its own words.
    vm.ok("mkdir -p /opt/bin && ln -s /usr/sbin/vfioctl /opt/bin/driverctl")
    equal("list-overrides", vm.ok("/opt/bin/driverctl list-overrides"), f"{nic} vfio-pci\n")
    vm.ok(f"/opt/bin/driverctl unset-override {nic}")
    vm.wait_driver(nic, "e1000e")
    equal("files of the policy", vm.ok(f"ls {POLICY}"), "")
