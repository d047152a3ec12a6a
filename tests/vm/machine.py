# SPDX-License-Identifier: MIT OR Apache-2.0
"""A guest as a case sees it: commands, vfioctl, and what the guest's kernel says about its PCI devices."""

import dataclasses
import json
import shlex
import time

import agent
import qemu
from check import Failure, Late, equal, expect

BOOT_SECONDS = 60

SYSFS = "/sys/bus/pci/devices"
POLICY = "/etc/vfioctl.d"
UNSET = "(null)"
# By its path: busybox's shell takes its own modprobe and modinfo before those of the PATH.
KMOD = "/usr/sbin"

# What a fault in a module leaves in the kernel's log.
COMPLAINTS = r"WARNING:|BUG:|Oops|general protection|Call Trace|blocked for more than|refcount_t|irq [0-9]+: nobody cared"

# One line a device: address, driver, driver_override, "vfio" where a VFIO driver has it, vendor:device.
SNAPSHOT = f"""
cd {SYSFS}
for address in *; do
    driver=-
    [ -e $address/driver ] && driver=$(readlink $address/driver)
    vfio=-
    [ -d $address/vfio-dev ] && vfio=vfio
    read -r override <$address/driver_override
    read -r vendor <$address/vendor
    read -r device <$address/device
    echo "$address ${{driver##*/}} $override $vfio ${{vendor#0x}}:${{device#0x}}"
done
"""


@dataclasses.dataclass(frozen=True)
class Device:
    driver: str | None
    override: str
    vfio: bool
    id: str


class Machine:
    def __init__(self, agent_, process):
        self.agent = agent_
        self.process = process
        # The exit status of the last vfioctl.
        self.status = None

    @classmethod
    def boot(cls, seconds=BOOT_SECONDS, **options):
        directory = options["directory"]
        transcript = directory / "transcript.log"
        transcript.unlink(missing_ok=True)
        process = qemu.Process(**options)
        try:
            channel = agent.Agent(process, transcript)
            channel.wait_ready(seconds)
        except BaseException:
            process.end()
            raise
        return cls(channel, process)

    def end(self):
        self.process.end()

    def save_logs(self):
        (self.process.log.parent / "dmesg.log").write_text(self.run("dmesg").stdout)

    def run(self, command, timeout=30):
        return self.agent.run(command, timeout)

    def ok(self, command, timeout=30):
        """The output of a command that has to succeed."""
        answer = self.run(command, timeout)
        expect(answer.status == 0, str(answer))
        return answer.stdout

    def vfioctl(self, *arguments, status=0, timeout=60):
        """The JSON document of a vfioctl that ends with (one of) `status`; None if it failed without one."""
        command = shlex.join(["vfioctl", *arguments, "--json"])
        answer = self.run(command, timeout)
        allowed = (status,) if isinstance(status, int) else status
        expect(answer.status in allowed, f"{answer}\nexit status {answer.status} instead of {status}")
        self.status = answer.status
        if not answer.stdout.strip():
            expect(answer.status != 0, f"{answer}\nnothing on stdout instead of a JSON document")
            return None
        try:
            document = json.loads(answer.stdout)
        except ValueError as error:
            raise Failure(f"{answer}\nstdout is not one JSON document: {error}") from None
        equal(f"{command}: schema", document.get("schema"), 1)
        equal(f"{command}: command", document.get("command"), arguments[0])
        return document

    def result(self, *arguments, **options):
        """The one result of a vfioctl that works on one device."""
        document = self.vfioctl(*arguments, **options)
        expect(document is not None, f"vfioctl {' '.join(arguments)} --json: no document on stdout")
        results = document.get("results", [])
        equal(f"vfioctl {' '.join(arguments)}: number of results", len(results), 1)
        return results[0]

    def devices(self):
        found = {}
        for line in self.ok(SNAPSHOT).splitlines():
            address, driver, override, vfio, ids = line.split()
            found[address] = Device(None if driver == "-" else driver, override, vfio == "vfio", ids)
        return found

    def with_id(self, ids):
        return [address for address, device in self.devices().items() if device.id == ids]

    def nics(self):
        """The two NICs of one kind."""
        found = self.with_id("8086:10d3")
        equal("number of e1000e NICs", len(found), 2)
        return found

    def group(self, address):
        return self.ok(f"readlink {SYSFS}/{address}/iommu_group").strip().rpartition("/")[2]

    def policies(self):
        """Name and text of each policy file."""
        names = self.ok(f"ls -A {POLICY} 2>/dev/null || true").split()
        return {name: self.ok(f"cat {POLICY}/{name}") for name in names}

    def loaded(self, module):
        return self.run(f"test -d /sys/module/{module.replace('-', '_')}").status == 0

    def load(self, *modules):
        for module in modules:
            self.ok(f"{KMOD}/modprobe {module}")

    def wait_driver(self, addresses, driver, seconds=10):
        """Until a device, or each of several, is on the driver."""
        addresses = addresses.split() if isinstance(addresses, str) else addresses
        tests = [f"test {SYSFS}/{address}/driver -ef /sys/bus/pci/drivers/{driver}" for address in addresses]
        self.wait(f"{' '.join(addresses)} on {driver}", " && ".join(tests), seconds)

    def wait(self, what, command, seconds=10):
        """Until a command succeeds."""
        deadline = time.monotonic() + seconds
        while self.run(command).status != 0:
            if time.monotonic() > deadline:
                raise Late(f"{what}: not within {seconds} s")
            time.sleep(0.2)


def changed(before, after):
    """What differs between two snapshots, as {address: (before, after)}."""
    return {
        address: (before.get(address), after.get(address))
        for address in sorted(before.keys() | after.keys())
        if before.get(address) != after.get(address)
    }


def expect_bound(before, after, address, driver="vfio-pci"):
    """Of all devices exactly this one went to `driver`, by its override."""
    equal("devices that changed", list(changed(before, after)), [address])
    device = after[address]
    equal(f"{address}: driver", device.driver, driver)
    equal(f"{address}: driver_override", device.override, driver)
    expect(device.vfio, f"{address}: no vfio-dev directory, so no VFIO driver has it")


def expect_unchanged(before, after):
    equal("devices that changed", changed(before, after), {})


def quiet(vm):
    """The kernel has complained about nothing since the boot."""
    complaints = vm.run(f"dmesg | grep -E '{COMPLAINTS}'").stdout
    expect(not complaints, f"the kernel's log:\n{complaints}")
