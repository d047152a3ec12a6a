# SPDX-License-Identifier: MIT OR Apache-2.0
"""QEMU: which one, with which machine, and its process from start to end."""

import os
import re
import shutil
import socket
import subprocess

import fetch
import unpacked

PROGRAM = "qemu-system-x86_64"
# The first with igb, the cheapest PF with VFs.
OLDEST = (8, 0)
SUITE = "bookworm-backports"

# panic=-1 with -no-reboot: a kernel that gives up ends QEMU at once. tsc=reliable: with a loaded host the clocksource
# watchdog complains. no_timer_check: with a loaded host it misses the interrupts it looks for, and panics.
# hung_task_timeout_secs: what a task waits for is on the console before a case gives up on the guest.
APPEND = (
    "console=ttyS0 loglevel=5 panic=-1 mitigations=off random.trust_cpu=on nowatchdog tsc=reliable no_timer_check"
    " sysctl.kernel.hung_task_timeout_secs=30"
)

# QEMU wants it before the devices it is to translate for; Debian's kernels leave it off unless told.
IOMMU_DEVICE = "intel-iommu,intremap=on,caching-mode=on"
IOMMU_APPEND = "intel_iommu=on"

# Goes when this program goes, however it goes, and is the first to when memory runs out.
TIED = ["setpriv", "--pdeathsig", "KILL", "choom", "-n", "1000", "--"]

# Two NICs of one kind, each alone in its IOMMU group: a root port has ACS. Then one thing of each other kind.
DEVICES = [
    "pcie-root-port,id=port1,chassis=1,slot=1,addr=0x10",
    "pcie-root-port,id=port2,chassis=2,slot=2,addr=0x11",
    "pcie-root-port,id=port3,chassis=3,slot=3,addr=0x12",
    "pcie-root-port,id=port4,chassis=4,slot=4,addr=0x13",
    "pcie-root-port,id=port5,chassis=5,slot=5,addr=0x15",
    "e1000e,bus=port1,romfile=",
    "e1000e,bus=port2,romfile=",
    "virtio-net-pci,bus=port3,romfile=",
    "pcie-pci-bridge,id=conventional,bus=port4",
    "pci-testdev,bus=conventional,addr=0x1",
    "edu,addr=0x14",
    "igb,bus=port5,romfile=",
]

ACCELERATORS = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
}


def find(cache):
    """The QEMU to use, as the start of a command line and its environment: an installed one if new enough."""
    installed = shutil.which(PROGRAM)
    if installed and version([installed]) >= OLDEST:
        return [installed], {}

    def make(directory):
        fetch.unpack(fetch.archive(cache, SUITE).closure("qemu-system-x86"), directory)

    tree = fetch.tree(cache / "qemu", make)
    command = unpacked.command(tree, f"usr/bin/{PROGRAM}")
    command += ["-L", str(tree / "usr/share/qemu"), "-L", str(tree / "usr/share/seabios")]
    return command, {"QEMU_MODULE_DIR": str(tree / "usr/lib" / unpacked.LIBRARIES / "qemu")}


def version(command):
    out = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", out)
    return (int(found[1]), int(found[2])) if found else (0, 0)


# Those that run, for end_all().
RUNNING = set()


def end_all():
    """End each QEMU: what waits for its guest then hears that it is gone."""
    for process in list(RUNNING):
        process.kill()


class Process:
    """One running QEMU.

    `channel` is our end of the guest's agent port and `control` that of QEMU's own commands: socket pairs, nothing
    listens anywhere. `drives` are images by the name their device has for them, `devices` as `-device` takes them.
    """

    def __init__(
        self,
        qemu,
        accelerator,
        kernel,
        initramfs,
        directory,
        iommu=True,
        devices=DEVICES,
        drives=None,
        append="",
        memory=512,
    ):
        command, environment = qemu
        self.log = directory / "serial.log"
        self.channel, agent = socket.socketpair()
        self.control, control = socket.socketpair()
        arguments = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        # One processor: a second one costs an emulated guest a fifth more time than it gains beside another guest, and
        # processors that wait for each other are what stalls.
        arguments += ["-machine", "q35,kernel-irqchip=split", "-m", str(memory), "-smp", "1"]
        arguments += ACCELERATORS[accelerator]
        arguments += ["-kernel", str(kernel.image), "-initrd", str(initramfs)]
        arguments += ["-append", " ".join([APPEND, IOMMU_APPEND if iommu else "", append])]
        arguments += ["-device", IOMMU_DEVICE] if iommu else []
        arguments += ["-chardev", f"file,id=log,path={self.log}", "-serial", "chardev:log"]
        arguments += ["-chardev", f"socket,id=control,fd={control.fileno()}", "-mon", "chardev=control,mode=control"]
        arguments += ["-chardev", f"socket,id=agent,fd={agent.fileno()}"]
        arguments += ["-device", "virtio-serial-pci,id=serial,addr=0x1d"]
        arguments += ["-device", "virtserialport,bus=serial.0,chardev=agent,name=vfioctl.agent"]
        for name, path in (drives or {}).items():
            arguments += ["-drive", f"if=none,id={name},format=qcow2,cache=unsafe,file={path}"]
        for device in devices:
            arguments += ["-device", device]
        messages = open(directory / "qemu.log", "wb")
        with messages, agent, control:
            self.process = subprocess.Popen(
                [*TIED, *command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                env=dict(os.environ, **environment),
                pass_fds=[agent.fileno(), control.fileno()],
                # Ctrl-C is for this program, which then ends the guest.
                start_new_session=True,
            )
        RUNNING.add(self.process)

    def ended(self):
        return self.process.poll() is not None

    def wait(self):
        return self.process.wait()

    def panic(self):
        """The line of the guest's log with which its kernel gave up, if it did."""
        return self.logged("Kernel panic")

    def stall(self):
        """The line with which the guest's kernel says that an emulated processor got no time from a busy host."""
        return self.logged("rcu_preempt detected stalls") or self.logged("self-detected stall")

    def logged(self, words):
        if not self.log.exists():
            return None
        with open(self.log, errors="replace") as log:
            return next((line.strip() for line in log if words in line), None)

    def end(self):
        if not self.ended():
            self.process.kill()
        self.process.wait()
        RUNNING.discard(self.process)
        self.channel.close()
        self.control.close()
