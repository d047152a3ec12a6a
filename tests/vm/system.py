# SPDX-License-Identifier: MIT OR Apache-2.0
"""A guest with Debian's systemd and udev on a disk of its own, which it keeps over reboots."""

import base64
import dataclasses
import lzma
import os
import pathlib
import shutil
import subprocess
import time

import agent
import cpio
import image
import qcow2
import qemu
import qmp
from check import Late, equal
from machine import SYSFS, Machine

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parents[1]

BOOT_SECONDS = 180
REBOOT_SECONDS = 90
# On a busy host an emulated guest takes its time.
PLUG_SECONDS = 60
MEMORY = 768

# To mount the root: no driver of the devices below but virtio_pci, which is the root disk's too and mostly built in.
INITRAMFS_MODULES = ["virtio_pci", "virtio_blk", "ext4"]
# What ext4 asks the kernel's crypto for by another name, where that is not built in.
INITRAMFS_MODULES_IF_ANY = ["crc32c_generic"]

# log_buf_len: the kernel's whole log is there when a case asks.
APPEND = "systemd.show_status=0 fsck.mode=skip audit=0 log_buf_len=4M"

# For an initramfs that is not ours.
ROOT = "root=/dev/vda rootfstype=ext4 rw"

# The guest's own, which no case touches.
OWN_DEVICES = ["virtio-blk-pci,drive=root,serial=guest-root,addr=0x1e"]
# By the name a case has for each. A root port gives what is behind it an IOMMU group of its own.
TEST_DEVICES = {
    "port1": "pcie-root-port,chassis=1,slot=1,addr=0x10",
    "port2": "pcie-root-port,chassis=2,slot=2,addr=0x11",
    "port3": "pcie-root-port,chassis=3,slot=3,addr=0x12",
    "port4": "pcie-root-port,chassis=4,slot=4,addr=0x13",
    "port5": "pcie-root-port,chassis=5,slot=5,addr=0x14",
    "port6": "pcie-root-port,chassis=6,slot=6,addr=0x15",
    # For what a case plugs.
    "empty1": "pcie-root-port,chassis=7,slot=7,addr=0x16",
    "empty2": "pcie-root-port,chassis=8,slot=8,addr=0x17",
    # Two NICs of one kind, and two devices without a native driver.
    "nic1": "e1000e,bus=port1,romfile=",
    "nic2": "e1000e,bus=port2,romfile=",
    "edu1": "edu,addr=0x18",
    "edu2": "edu,addr=0x19",
    "virtio": "virtio-net-pci,bus=port3,romfile=",
    "bridge": "pcie-pci-bridge,bus=port4",
    "behind": "pci-testdev,bus=bridge,addr=0x1",
    "pf": "igb,bus=port5,romfile=",
    "nvme": "nvme,drive=disk,bus=port6,serial=guest-disk",
    # Functions of one slot, and so of one group: each has to say that it is one of several.
    "multi0": "e1000,addr=0x1a.0,multifunction=on,romfile=",
    "multi1": "qemu-xhci,addr=0x1a.1,multifunction=on",
    "multi2": "pci-testdev,addr=0x1a.2,multifunction=on",
}

# What journald has not read yet comes first.
JOURNAL = "journalctl --sync && journalctl --no-pager --boot --output=short-monotonic"

UNITS = {"guest-agent.service": "sysinit.target", "guest-booted.service": "multi-user.target"}


@dataclasses.dataclass
class Host:
    """What the guests of a run have in common."""

    qemu: tuple
    kernels: dict
    # Images, which stay as they are.
    root: pathlib.Path
    disk: pathlib.Path
    # What is put into each root: see installed().
    files: cpio.Root
    busybox: pathlib.Path
    # For images made by those who make them on a real system: see earlyroot.py.
    cache: pathlib.Path
    vfioctl: pathlib.Path


def make(vfioctl, destination, *targets):
    """What make installs of the binary `vfioctl`, as a distribution would."""
    command = ["make", "--no-print-directory", "-s", "-C", str(REPOSITORY), *targets, f"VFIOCTL={vfioctl}"]
    command += [f"DESTDIR={destination}", "PREFIX=/usr", "SBINDIR=/usr/sbin", "SYSCONFDIR=/etc"]
    subprocess.run(command, check=True)


def installed(vfioctl, work, updates=()):
    """What a guest's root is to have besides Debian's packages, as files below `install`.

    That is what `make install` makes of the binary `vfioctl`, the helpers of guest/, and what the kernels `updates` have
    below updates/, with their module tables.
    """
    destination = work / "install"
    shutil.rmtree(destination, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    make(vfioctl, destination, "install")
    root = cpio.Root()
    root.tree("install", destination)
    helper = image.compile_helper(HERE / "guest/vfio-use.c", work)
    root.copy("install/usr/bin/vfio-use", helper, 0o755)
    root.copy("install/usr/lib/guest/agent", HERE / "guest/agent", 0o755)
    for unit, target in UNITS.items():
        units = "install/usr/lib/systemd/system"
        root.copy(f"{units}/{unit}", HERE / "guest" / unit)
        root.link(f"{units}/{target}.wants/{unit}", f"../{unit}")
    for kernel in updates:
        modules = f"install/usr/lib/modules/{kernel.release}"
        root.tree(f"{modules}/updates", kernel.modules / "updates")
        for table in kernel.modules.glob(image.TABLES):
            root.copy(f"{modules}/{table.name}", table)
    return root


class SystemMachine(Machine):
    """A case's guest over all its boots.

    What a case says of its guest are attributes of its module:
      FILES       {path: text} in the root before the first boot; executable if it starts with #!
      ENABLE      units enabled before the first boot
      DEVICES     {name: device} besides or instead of TEST_DEVICES; None: without that one
      APPEND      words for the kernel's command line, at each boot
      IOMMU       False: none
      EMPTY_ETC   True: nothing in /etc at the first boot but what `make install` and FILES put there
      READ_ONLY_USR   True: /usr cannot be written
    """

    def __init__(self, host, accelerator, kernel, directory, case):
        super().__init__(None, None)
        self.host = host
        self.accelerator = accelerator
        self.kernel = kernel
        self.directory = directory
        self.case = case
        self.devices_present = TEST_DEVICES
        self.change_devices(getattr(case, "DEVICES", {}))
        self.iommu = getattr(case, "IOMMU", True)
        self.boots = 0
        self.image = None
        self.qmp = None

    @classmethod
    def boot(cls, host, accelerator, kernel, directory, case):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        vm = cls(host, accelerator, kernel, directory, case)
        qcow2.overlay(directory / "root.qcow2", host.root)
        qcow2.overlay(directory / "disk.qcow2", host.disk)
        vm.start(first=True)
        return vm

    def end(self):
        super().end()
        for name in ("root.qcow2", "disk.qcow2"):
            (self.directory / name).unlink(missing_ok=True)
        for images in self.directory.glob("image-*"):
            shutil.rmtree(images)

    def start(self, first=False, append=""):
        self.boots += 1
        self.logs = self.directory / f"boot-{self.boots}"
        self.logs.mkdir()
        words = [APPEND, getattr(self.case, "APPEND", ""), append]
        if getattr(self.case, "READ_ONLY_USR", False):
            words.append("guest.usr=ro")
        if first and getattr(self.case, "EMPTY_ETC", False):
            words.append("guest.etc=empty")
        initramfs = self.directory / "initramfs"
        if self.image:
            words.append(ROOT)
            os.link(self.image, initramfs)
        else:
            self.initramfs(first).write(initramfs)
        self.process = qemu.Process(
            qemu=self.host.qemu,
            accelerator=self.accelerator,
            kernel=self.kernel,
            initramfs=initramfs,
            directory=self.logs,
            iommu=self.iommu,
            devices=[*OWN_DEVICES, *(f"{device},id={name}" for name, device in self.devices_present.items())],
            drives={"root": self.directory / "root.qcow2", "disk": self.directory / "disk.qcow2"},
            append=" ".join(words),
            memory=MEMORY,
        )
        try:
            self.qmp = qmp.Qmp(self.process.control)
            self.agent = agent.Agent(self.process, self.logs / "transcript.log")
            deadline = time.monotonic() + BOOT_SECONDS
            self.agent.wait_ready(BOOT_SECONDS)
            self.wait_booted(deadline)
        except BaseException:
            self.end()
            raise
        finally:
            initramfs.unlink()

    def initramfs(self, first):
        root = cpio.Root()
        for name in ("dev", "proc", "root", "sys"):
            root.directory(name)
        root.character_device("dev/console", 5, 1)
        root.copy("bin/busybox", self.host.busybox, 0o755)
        root.copy("init", HERE / "guest/initramfs-init", 0o755)
        modules = [*filter(self.kernel.has_module, INITRAMFS_MODULES_IF_ANY), *INITRAMFS_MODULES]
        for number, file in enumerate(self.kernel.find_modules(modules)):
            content = (self.kernel.modules / file).read_bytes()
            if file.endswith(".xz"):
                content = lzma.decompress(content)
            root.file(f"modules/{number:02}-{pathlib.Path(file).name.removesuffix('.xz')}", content)
        if first:
            root.entries |= self.host.files.entries
            for path, text in getattr(self.case, "FILES", {}).items():
                root.file(f"install{path}", text.encode(), 0o755 if text.startswith("#!") else 0o644)
            if units := getattr(self.case, "ENABLE", []):
                root.file("enable", "\n".join(units).encode())
                # With an empty /etc systemd applies the presets.
                presets = "".join(f"enable {unit}\n" for unit in units)
                root.file("install/usr/lib/systemd/system-preset/00-case.preset", presets.encode())
        return root

    def wait_booted(self, deadline):
        """Until multi-user.target is reached and udev has nothing left to do."""
        while self.run("test -e /run/guest-booted").status != 0:
            if time.monotonic() > deadline:
                jobs = self.run("systemctl --no-pager list-jobs").stdout
                self.save_logs()
                raise Late(f"multi-user.target: not within {BOOT_SECONDS} s; systemd still has\n{jobs}")
            time.sleep(0.3)
        self.settle()

    def reboot(self, kernel=None, devices=None, append="", iommu=None, image=None):
        """Shut the guest down as `systemctl reboot` does and start it anew with the same disk.

        `kernel` is a row of the table of kernels, `devices` as DEVICES of a case, `image` an initramfs in place of ours, and all
        stay so for later boots; `append` is for this boot alone.
        """
        self.save_logs()
        self.run("systemctl reboot --no-block")
        deadline = time.monotonic() + REBOOT_SECONDS
        while not self.process.ended():
            if panic := self.process.panic():
                raise agent.GuestLost(f"{panic} (during the shutdown; see {self.process.log})", again=True)
            if time.monotonic() > deadline:
                raise Late(f"not shut down within {REBOOT_SECONDS} s; see {self.process.log}")
            time.sleep(0.1)
        self.process.end()
        if kernel is not None:
            self.kernel = self.host.kernels[kernel]
        if iommu is not None:
            self.iommu = iommu
        if image is not None:
            self.image = image
        self.change_devices(devices or {})
        self.start(append=append)

    def change_devices(self, changes):
        together = self.devices_present | changes
        self.devices_present = {name: device for name, device in together.items() if device is not None}

    def address(self, name):
        """The PCI address of the device with this name in TEST_DEVICES, DEVICES or plug()."""
        return dict(qmp.functions(self.qmp.execute("query-pci")))[name]

    def plug(self, name, device):
        """Hot-plug a device, as `plug("nic3", "e1000e,bus=empty1,romfile=")`; its address, once udev is done."""
        driver, *properties = device.split(",")
        self.qmp.execute("device_add", driver=driver, id=name, **dict(word.split("=") for word in properties))
        address = self.address(name)
        self.wait(f"{name} at {address} after it was plugged", f"test -e {SYSFS}/{address}", PLUG_SECONDS)
        self.settle()
        return address

    def unplug(self, name, seconds=PLUG_SECONDS):
        """Hot-unplug a device: ask the guest to let it go, and wait until it did."""
        address = self.address(name)
        self.qmp.execute("device_del", id=name)
        gone = self.qmp.wait_event("DEVICE_DELETED", seconds, device=name)
        if not gone:
            raise Late(f"{name} at {address}: the guest did not let it go within {seconds} s")
        self.wait(f"{address} gone after it was unplugged", f"! test -e {SYSFS}/{address}", PLUG_SECONDS)
        self.settle()

    def settle(self):
        """Until udev has nothing left to do."""
        self.ok("udevadm settle --timeout=170", timeout=180)

    def write(self, path, text):
        """A file in the running guest."""
        encoded = base64.b64encode(text.encode()).decode()
        self.ok(f"mkdir -p {os.path.dirname(path)} && echo {encoded} | base64 -d >{path}")

    def dmesg(self):
        """The kernel's log of this boot."""
        return self.ok("dmesg")

    def journal(self, unit):
        """What a unit said and systemd said of it in this boot."""
        # What systemd says before journald runs comes by the kernel's log, and is not marked as being about a unit.
        said = self.ok(f"{JOURNAL} _SYSTEMD_UNIT={unit} + UNIT={unit} + SYSLOG_IDENTIFIER=systemd")
        return "".join(line for line in said.splitlines(True) if " systemd[1]: " not in line or unit in line)

    def unit(self, name, *properties):
        """Properties of a unit, as `systemctl show` has them."""
        shown = self.ok(f"systemctl show {name} " + " ".join(f"-p {name}" for name in properties))
        found = dict(line.split("=", 1) for line in shown.splitlines())
        equal(f"{name}: properties", set(found), set(properties))
        return found

    def wait_applied(self, *addresses):
        """Until the unit of each device is done with it, and the driver is right; each has to end well."""
        units = " ".join(f"vfioctl@{address}.service" for address in addresses)
        self.wait(f"{units} done", f"! systemctl show --value -p ActiveState {units} | grep -q activating", 30)
        results = self.ok(f"systemctl show --value -p Result {units}").split()
        equal(f"{units}: results", results, ["success"] * len(addresses))

    def failed_units(self):
        return [line.split()[0] for line in self.ok("systemctl --failed --plain --no-legend").splitlines()]

    def save_logs(self):
        # Says of each task that waits in the kernel what it waits for.
        self.run("echo w >/proc/sysrq-trigger")
        (self.logs / "dmesg.log").write_text(self.run("dmesg").stdout)
        (self.logs / "journal.log").write_text(self.run(JOURNAL).stdout)
