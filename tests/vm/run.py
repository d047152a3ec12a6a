#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run vfioctl on real kernels in QEMU. See README.md beside this file."""

import argparse
import contextlib
import fcntl
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback

# The working tree stays as it was found.
sys.dont_write_bytecode = True

import image
import kernels
import qemu
from agent import GuestLost
from check import Failure
from fetch import FetchError
from machine import Machine

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CACHE_VARIABLE = "VFIOCTL_VM_CACHE"
KVM_BOOT_SECONDS = 25


def main():
    options = arguments()
    if options.list:
        for name in case_names():
            print(f"{name:20} {importlib.import_module(f'cases.{name}').__doc__}")
        return 0
    vfioctl = options.vfioctl.resolve()
    if not vfioctl.is_file():
        raise FileNotFoundError(f"no {vfioctl}: build it with `cargo build --release`, or name one with --vfioctl")

    cache = pathlib.Path(os.environ.get(CACHE_VARIABLE) or REPOSITORY / ".vm-cache").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run that uses {cache}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        runner = Runner(cache, vfioctl, options.keep)
        for kernel in options.kernel or kernels.defaults():
            runner.run_kernel(kernel, options.case or case_names())
    print(f"{runner.passed} passed, {runner.failed} failed")
    return 1 if runner.failed else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", metavar="CASE", help="only these cases; see --list")
    parser.add_argument("--kernel", action="append", choices=kernels.KERNELS, help="only this kernel; may be repeated")
    parser.add_argument(
        "--vfioctl",
        type=pathlib.Path,
        metavar="PATH",
        default=REPOSITORY / "target/release/vfioctl",
        help="the binary to test (target/release/vfioctl)",
    )
    parser.add_argument("--keep", action="store_true", help="after each case, a prompt for commands in its guest")
    parser.add_argument("--list", action="store_true", help="say what each case shows, and end")
    options = parser.parse_args()
    if unknown := set(options.case) - set(case_names()):
        parser.error(f"no case {', '.join(sorted(unknown))}: there are {', '.join(case_names())}")
    return options


def case_names():
    return sorted(path.stem for path in (HERE / "cases").glob("*.py"))


class Runner:
    def __init__(self, cache, vfioctl, keep):
        self.cache = cache
        self.vfioctl = vfioctl
        self.keep = keep
        self.tools = image.tools(cache)
        self.qemu = qemu.find(cache)
        self.passed = 0
        self.failed = 0

    def run_kernel(self, name, cases):
        kernel = kernels.prepare(self.cache, name, self.tools)
        runs = self.cache / "runs" / name
        runs.mkdir(parents=True, exist_ok=True)
        initramfs = runs / "initramfs"
        image.build(initramfs, self.tools, kernel, self.vfioctl, runs)
        accelerator = self.accelerator(kernel, initramfs, runs)
        print(f"kernel {kernel.release}, {accelerator}", flush=True)
        for case in cases:
            directory = runs / case
            directory.mkdir(exist_ok=True)
            self.run_case(case, dict(accelerator=accelerator, kernel=kernel, initramfs=initramfs, directory=directory))

    def run_case(self, name, machine):
        case = importlib.import_module(f"cases.{name}")
        machine |= {"qemu": self.qemu, "iommu": getattr(case, "IOMMU", True)}
        started = time.monotonic()
        problem = self.attempt(case, machine)
        if isinstance(problem, GuestLost) and problem.again:
            print(f"{name}: {problem}; trying once more", flush=True)
            problem = self.attempt(case, machine)
        label = f"{machine['kernel'].name:5} {name:20} {time.monotonic() - started:5.1f} s"
        if problem is None:
            self.passed += 1
            print(f"ok    {label}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL  {label}\n{problem}\nlogs: {machine['directory']}", flush=True)

    def attempt(self, case, machine):
        """Boot a guest and run the case in it; the problem, if there was one."""
        try:
            vm = Machine.boot(**machine)
        except GuestLost as lost:
            lost.again = True
            return lost
        try:
            problem = outcome(case, vm)
            if isinstance(problem, GuestLost):
                return problem
            with contextlib.suppress(GuestLost):
                (machine["directory"] / "dmesg.log").write_text(vm.run("dmesg").stdout)
                if self.keep:
                    prompt(vm)
            return problem
        finally:
            vm.end()

    def accelerator(self, kernel, initramfs, directory):
        """kvm only where a guest really comes up with it.

        A host without VMX or SVM may have a /dev/kvm that emulates each instruction, for minutes.
        """
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "tcg"
        known = self.cache / "accelerator"
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if known.is_file() and known.read_text().split()[:1] == [boot]:
            return known.read_text().split()[1]
        print(f"trying kvm, for {KVM_BOOT_SECONDS} s at most", flush=True)
        try:
            Machine.boot(
                seconds=KVM_BOOT_SECONDS,
                qemu=self.qemu,
                accelerator="kvm",
                kernel=kernel,
                initramfs=initramfs,
                directory=directory,
            ).end()
            found = "kvm"
        except GuestLost:
            found = "tcg"
        known.write_text(f"{boot} {found}\n")
        return found


def outcome(case, vm):
    """Run a case; what went wrong, or None."""
    try:
        case.run(vm)
    except (Failure, GuestLost) as problem:
        return problem
    except Exception:
        # Most likely a document of vfioctl's without what the case reads from it.
        return traceback.format_exc()
    return None


def prompt(vm):
    print("commands run in the guest; end of input ends it")
    while True:
        try:
            print(vm.run(input("guest# "), timeout=600))
        except EOFError:
            print()
            return


def terminate(*_):
    """As an exception, so that the guest is ended on the way out."""
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (FetchError, OSError, subprocess.CalledProcessError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        sys.exit(2)
