#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run vfioctl on real kernels in QEMU. See README.md beside this file."""

import argparse
import concurrent.futures
import contextlib
import fcntl
import functools
import importlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import traceback

# The working tree stays as it was found.
sys.dont_write_bytecode = True

import guestroot
import image
import iommufd
import kernels
import libvirtroot
import qemu
import system
import variants
from agent import GuestLost
from check import Failure, Late
from fetch import FetchError
from machine import Machine
from system import SystemMachine

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CACHE_VARIABLE = "VFIOCTL_VM_CACHE"
KVM_BOOT_SECONDS = 25
# Guests wait much of the time.
JOBS = 2
# As many cases that were late are tried once more.
MOST_LATE = 5


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
        runner = Runner(cache, vfioctl, options)
        runner.run()
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
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help=f"guests at a time ({JOBS})")
    parser.add_argument("--keep", action="store_true", help="after each case, a prompt for commands in its guest")
    parser.add_argument("--list", action="store_true", help="say what each case shows, and end")
    options = parser.parse_args()
    if unknown := set(options.case) - set(case_names()):
        parser.error(f"no case {', '.join(sorted(unknown))}: there are {', '.join(case_names())}")
    return options


def case_names():
    return sorted(path.stem for path in (HERE / "cases").glob("*.py"))


class Runner:
    def __init__(self, cache, vfioctl, options):
        self.cache = cache
        self.vfioctl = vfioctl
        self.keep = options.keep
        self.jobs = 1 if options.keep else options.jobs
        self.names = options.kernel or kernels.defaults()
        self.asked = set(options.case)
        self.cases = {name: importlib.import_module(f"cases.{name}") for name in options.case or case_names()}
        self.runs = cache / "runs"
        self.tools = image.tools(cache)
        self.qemu = qemu.find(cache)
        self.passed = 0
        self.failed = 0

    def run(self):
        prepared = self.prepare_kernels()
        # Made when the first case wants it, by which modules it has besides the kernel's own.
        initramfs = functools.cache(self.initramfs)
        host = functools.cache(self.host)
        accelerator = self.accelerator(prepared[self.names[0]])
        releases = ", ".join(prepared[name].release for name in self.names)
        print(f"kernels {releases}; {accelerator}, {self.jobs} at a time", flush=True)
        jobs = [(prepared[kernel], name) for kernel in self.names for name in self.cases if self.runs_on(kernel, name)]
        # Not by the guests' threads, of which two may want the same.
        for kernel, name in jobs:
            case = self.cases[name]
            if is_system(case):
                host(has_variants(case), has_libvirt(case), *prepared.values())
            else:
                initramfs(kernel, modules(case))

        def boot(kernel, case, directory):
            if is_system(case):
                machine = host(has_variants(case), has_libvirt(case), *prepared.values())
                return SystemMachine.boot(machine, accelerator, kernel, directory, case)
            return Machine.boot(
                qemu=self.qemu,
                accelerator=accelerator,
                kernel=kernel,
                initramfs=initramfs(kernel, modules(case)),
                directory=directory,
                iommu=getattr(case, "IOMMU", True),
                devices=[*qemu.DEVICES, *getattr(case, "DEVICES", ())],
                append=getattr(case, "APPEND", ""),
            )

        with concurrent.futures.ThreadPoolExecutor(self.jobs) as executor:
            try:
                late = []
                # In this order, whichever ends first.
                for job, (problem, seconds) in zip(jobs, executor.map(lambda job: self.run_case(boot, *job), jobs)):
                    if is_late(problem):
                        late.append((*job, problem, seconds))
                    else:
                        self.report(*job, problem, seconds)
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                qemu.end_all()
                raise
        for case in late:
            # So many are late for a reason.
            if len(late) > MOST_LATE:
                self.report(*case)
            else:
                self.once_more(boot, *case)

    def prepare_kernels(self):
        """The kernels to run on; for a guest with systemd all, since it may go from one to another."""
        names = kernels.KERNELS if any(is_system(case) for case in self.cases.values()) else self.names
        return {name: kernels.prepare(self.cache, name, self.tools) for name in names}

    def runs_on(self, kernel, name):
        """Whether the case is for this kernel; one that was asked for and is for none is an error, not a pass."""
        only = getattr(self.cases[name], "KERNELS", kernels.KERNELS)
        if name in self.asked and not set(only) & set(self.names):
            raise FileNotFoundError(f"case {name} is for kernel {', '.join(only)} alone")
        return kernel in only

    def initramfs(self, kernel, extra=None):
        directory = self.runs / kernel.name
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / (f"initramfs-{extra.__name__}" if extra else "initramfs")
        if extra:
            kernel = extra.installed(self.cache, kernel, self.tools)
        image.build(path, self.tools, kernel, self.vfioctl, directory, variants.MODULES if extra else ())
        return path

    def host(self, with_variants, with_libvirt, *prepared):
        updates = [variants.installed(self.cache, kernel, self.tools) for kernel in prepared if with_variants]
        work = self.runs / f"system{'-variants' * with_variants}{'-libvirt' * with_libvirt}"
        root = libvirtroot.tree(self.cache) if with_libvirt else guestroot.tree(self.cache)
        return system.Host(
            qemu=self.qemu,
            kernels={kernel.name: kernel for kernel in prepared},
            root=guestroot.image(self.cache, root, list(prepared)),
            disk=guestroot.disk(self.cache),
            files=system.installed(self.vfioctl, work, updates),
            busybox=self.tools / "bin/busybox",
            cache=self.cache,
            vfioctl=self.vfioctl,
        )

    def run_case(self, boot, kernel, name):
        """The problem, or None; and how long it took."""
        directory = self.runs / kernel.name / name
        directory.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        problem = self.attempt(self.cases[name], boot, kernel, directory)
        return problem, time.monotonic() - started

    def report(self, kernel, name, problem, seconds):
        label = f"{kernel.name:5} {name:20} {seconds:5.1f} s"
        if problem is None:
            print(f"ok    {label}", flush=True)
        else:
            print(f"FAIL  {label}\n{problem}\nlogs: {self.runs / kernel.name / name}", flush=True)
        self.passed += problem is None
        self.failed += problem is not None

    def once_more(self, boot, kernel, name, problem, seconds):
        """Run a case again that was late, now with the machine for itself."""
        directory = self.runs / kernel.name / name
        late = directory.with_name(f"{name}-late")
        shutil.rmtree(late, ignore_errors=True)
        directory.rename(late)
        print(f"late  {kernel.name:5} {name:20} {seconds:5.1f} s\n{problem}", flush=True)
        print(f"once more, with nothing beside it; the logs are now in {late}", flush=True)
        self.report(kernel, name, *self.run_case(boot, kernel, name))

    def attempt(self, case, boot, kernel, directory):
        """Boot a guest and run the case in it; the problem, if there was one."""
        try:
            vm = boot(kernel, case, directory)
        except GuestLost as lost:
            lost.again = True
            return lost
        except Failure as failure:
            return failure
        try:
            problem = outcome(case, vm)
            if isinstance(problem, GuestLost):
                return problem
            with contextlib.suppress(GuestLost):
                vm.save_logs()
                if self.keep:
                    print(f"{kernel.name} {case.__name__}: {problem or 'passed'}")
                    prompt(vm)
            return problem
        finally:
            vm.end()

    def accelerator(self, kernel):
        """kvm only where a guest really comes up with it.

        A host without VMX or SVM may have a /dev/kvm that emulates each instruction, for minutes.
        """
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "tcg"
        known = self.cache / "accelerator"
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if known.is_file() and known.read_text().split()[:1] == [boot]:
            return known.read_text().split()[1]
        initramfs = self.initramfs(kernel)
        print(f"trying kvm, for {KVM_BOOT_SECONDS} s at most", flush=True)
        try:
            Machine.boot(
                seconds=KVM_BOOT_SECONDS,
                qemu=self.qemu,
                accelerator="kvm",
                kernel=kernel,
                initramfs=initramfs,
                directory=initramfs.parent,
            ).end()
            found = "kvm"
        except GuestLost:
            found = "tcg"
        known.write_text(f"{boot} {found}\n")
        return found


def is_system(case):
    return getattr(case, "SYSTEM", False)


def has_variants(case):
    return getattr(case, "VARIANTS", False)


def has_libvirt(case):
    return getattr(case, "LIBVIRT", False)


def is_late(problem):
    """May a busy host be the reason? Emulated guests also panic, or do not come up, now and then."""
    return isinstance(problem, Late) or (isinstance(problem, GuestLost) and problem.again)


def modules(case):
    """Where the modules come from that the case has besides the kernel's own, if any."""
    return iommufd if getattr(case, "IOMMUFD", False) else variants if has_variants(case) else None


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
