# SPDX-License-Identifier: MIT OR Apache-2.0
"""Two edu devices get edu_vfio_pci from the alias table; state moves from one to the other, and nothing else does."""

from check import equal, expect
from machine import expect_bound, expect_unchanged, quiet

# The oldest and the newest: what lies between has nothing of its own here.
KERNELS = ["6.1", "7"]
VARIANTS = True
# Each alone behind a root port: a group of its own, and a bus that can be reset.
DEVICES = [
    "pcie-root-port,id=edu-port1,chassis=11,slot=11,addr=0x16",
    "pcie-root-port,id=edu-port2,chassis=12,slot=12,addr=0x17",
    "edu,bus=edu-port1",
    "edu,bus=edu-port2",
]

EDU = "1234:11e8"
DRIVER = "edu_vfio_pci"
STREAM = "/run/stream"
LENGTH = 56

# VFIO_MIGRATION_STOP_COPY, and neither P2P nor PRE_COPY.
FLAGS = "0x1"
# VFIO_DEVICE_FEATURE_: _MIGRATION, _MIG_DEVICE_STATE, _DMA_LOGGING_START, _DMA_LOGGING_REPORT.
MIGRATION, STATE, LOGGING_START, LOGGING_REPORT = 1, 2, 6, 8


def run(vm):
    before = vm.devices()
    source, target = (address for address in vm.with_id(EDU) if not address.startswith("0000:00:"))
    for address in (source, target):
        equal(f"match {address}", vm.ok(f"vfioctl match {address}").strip(), DRIVER)
    for address in (source, target):
        result = vm.result("bind", address)
        equal(f"bind {address}: outcome", result["outcome"], "bound")
        equal(f"bind {address}: driver", result["driver"], DRIVER)
    bound = vm.devices()
    for address in (source, target):
        expect_bound({**bound, address: before[address]}, bound, address, DRIVER)
    expect(not vm.loaded("vfio_pci"), "vfio_pci was loaded as well")

    pair = (source, target)
    offers_what_it_has(vm, pair)
    moves_registers(vm, pair)
    leaves_the_source_alone(vm, pair)
    refuses_streams(vm, pair)
    waits_until_idle(vm, pair)
    keeps_interrupts(vm, pair)
    runs_after_reset(vm, pair)

    vm.vfioctl("unbind", source, target)
    expect_unchanged(before, vm.devices())
    quiet(vm)


def offers_what_it_has(vm, pair):
    data_size = "ENOTTY" if vm.run("uname -r | grep -q '^6[.]1[.]'").status == 0 else str(LENGTH)
    steps(
        vm,
        pair,
        ("a flags", FLAGS),
        (f"a has {MIGRATION} get", "ok"),
        (f"a has {MIGRATION} set", "EINVAL"),
        (f"a has {STATE} get", "ok"),
        (f"a has {STATE} set", "ok"),
        (f"a has {LOGGING_START} set", "ENOTTY"),
        (f"a has {LOGGING_REPORT} get", "ENOTTY"),
        ("a size", data_size),
        ("a state", "RUNNING"),
        # What it does not offer is no way either.
        ("a set RUNNING_P2P", "EINVAL"),
        ("a set PRE_COPY", "EINVAL"),
        ("a state", "RUNNING"),
    )


# (offset, size, what to write, what is read then); the last three are the DMA engine's.
REGISTERS = [
    (0x04, 4, 0x12345678, 0xEDCBA987),
    (0x08, 4, 12, 479001600),
    (0x20, 4, 0x80, 0x80),
    (0x80, 8, 0x0123456789ABC, 0x0123456789ABC),
    (0x88, 8, 0x40010, 0x40010),
    (0x90, 8, 0x20, 0x20),
]
WRITTEN = [(f"a write {offset:#x} {size} {value:#x}", "ok") for offset, size, value, _ in REGISTERS]


def read_back(device):
    return [(f"{device} read {offset:#x} {size}", f"{value:#x}") for offset, size, _, value in REGISTERS]


def moves_registers(vm, pair):
    steps(
        vm,
        pair,
        ("b write 0x04 4 0x5555", "ok"),
        ("b write 0x08 4 5", "ok"),
        ("b set STOP", "ok"),
        ("b read 0x08 4", f"{120:#x}"),
        *WRITTEN,
        ("a set STOP", "ok"),
        ("a set STOP_COPY", "ok"),
        ("a state", "STOP_COPY"),
        (f"a save {STREAM}", str(LENGTH)),
        ("b set RESUMING", "ok"),
        ("b state", "RESUMING"),
        # In two pieces, the first one without all of the header.
        (f"b load {STREAM} 0 7", "7"),
        (f"b load {STREAM} 7 {LENGTH}", str(LENGTH - 7)),
        ("b set STOP", "ok"),
        *read_back("b"),
        ("b set RUNNING", "ok"),
        ("b state", "RUNNING"),
        *read_back("b"),
        # It runs: what it is told to do it does.
        ("b write 0x08 4 6", "ok"),
        ("b set STOP", "ok"),
        ("b read 0x08 4", f"{720:#x}"),
    )


def leaves_the_source_alone(vm, pair):
    """A migration that is given up; by several arcs at once, and with memory decoding off meanwhile."""
    steps(
        vm,
        pair,
        *WRITTEN,
        ("a config-write 4 2 0", "ok"),
        ("a set STOP_COPY", "ok"),
        ("a config-read 4 2", "0x0"),
        (f"a save {STREAM}", str(LENGTH)),
        ("a config-write 4 2 0x6", "ok"),
        ("a set RUNNING", "ok"),
        # The descriptor is there, and leads nowhere.
        (f"a save {STREAM}.late", "ENODEV"),
        ("a state", "RUNNING"),
        *read_back("a"),
        ("b config-write 4 2 0", "ok"),
        ("b set RESUMING", "ok"),
        (f"b load {STREAM} 0 {LENGTH}", str(LENGTH)),
        ("b set RUNNING", "ok"),
        ("b config-write 4 2 0x2", "ok"),
        *read_back("b"),
        # No more than the user has allowed.
        ("b config-read 4 2", "0x2"),
    )


def refuses_streams(vm, pair):
    vm.ok(f"sed s/eduM/eduN/ {STREAM} >{STREAM}.foreign")
    vm.ok(f"cat {STREAM} {STREAM} >{STREAM}.twice")
    # Its version, its length, the device's id, the factorial and the status.
    for name, offset in (("version", 4), ("length", 8), ("id", 12), ("factorial", 20), ("status", 24)):
        vm.ok(
            f"cp {STREAM} {STREAM}.{name} && "
            f"printf '\\003' | dd of={STREAM}.{name} bs=1 seek={offset} conv=notrunc 2>/dev/null"
        )
    kept = [("b read 0x04 4", f"{0xFFFFAAAA:#x}")]
    refused = [("b state", "RESUMING"), *kept]
    steps(
        vm,
        pair,
        ("b write 0x04 4 0x5555", "ok"),
        ("b set RESUMING", "ok"),
        # Nothing at all, too little, and then the rest.
        ("b set STOP", "ENODATA"),
        *refused,
        (f"b load {STREAM} 0 20", "20"),
        ("b set RUNNING", "ENODATA"),
        *refused,
        (f"b load {STREAM}.twice 20 {LENGTH + 1}", "EFBIG"),
        (f"b load {STREAM}.twice 0 {LENGTH + 1}", "EFBIG"),
        (f"b load {STREAM} 20 {LENGTH}", str(LENGTH - 20)),
        ("b set RUNNING", "ok"),
        ("b read 0x04 4", f"{0xEDCBA987:#x}"),
        # Those that the header tells are refused at once, the others with the last step.
        ("b write 0x04 4 0x5555", "ok"),
        ("b set RESUMING", "ok"),
        (f"b load {STREAM}.foreign 0 {LENGTH}", "EINVAL"),
        (f"b load {STREAM}.version 0 {LENGTH}", "EOPNOTSUPP"),
        (f"b load {STREAM}.length 0 {LENGTH}", "EINVAL"),
        ("b set STOP", "ENODATA"),
        *refused,
        *refused_late("id", "ENXIO", kept),
        *refused_late("factorial", "EINVAL", kept),
        *refused_late("status", "EINVAL", kept),
        # None of it was in the way of a good one.
        ("b set RESUMING", "ok"),
        (f"b load {STREAM} 0 {LENGTH}", str(LENGTH)),
        ("b set RUNNING", "ok"),
        *read_back("b"),
    )


def refused_late(name, errno, kept):
    return [
        ("b reset", "ok"),
        ("b state", "RUNNING"),
        ("b set RESUMING", "ok"),
        (f"b load {STREAM}.{name} 0 {LENGTH}", str(LENGTH)),
        ("b set STOP", errno),
        ("b state", "RESUMING"),
        *kept,
        ("b reset", "ok"),
    ]


def waits_until_idle(vm, pair):
    page = 0x100000
    steps(
        vm,
        pair,
        (f"map {page:#x}", "ok"),
        ("a config-write 4 2 0x6", "ok"),
        # The device's buffer to memory, whose bytes are all ones before.
        ("a write 0x80 8 0x40000", "ok"),
        (f"a write 0x88 8 {page:#x}", "ok"),
        ("a write 0x90 8 16", "ok"),
        ("a write 0x98 8 3", "ok"),
        ("a set STOP", "ok"),
        ("a read 0x98 8", "0x2"),
        ("memory 0", "0x0"),
        ("memory 16", "0xff"),
        ("a set RUNNING", "ok"),
        # A second of computing, whose interrupt has to be in the state as well.
        ("a write 0x64 4 0xffffffff", "ok"),
        ("a write 0x20 4 0x80", "ok"),
        ("a write 0x08 4 0x20000000", "ok"),
        ("a set STOP_COPY", "ok"),
        ("a read 0x20 4", "0x80"),
        ("a read 0x24 4", "0x1"),
        # It drives a stopped device: no state is given of that.
        ("a set STOP", "ok"),
        ("a write 0x08 4 0x60000000", "ok"),
        ("a set STOP_COPY", "EBUSY"),
        ("a state", "STOP"),
        ("a set RUNNING", "ok"),
        ("a set STOP_COPY", "ok"),
    )


def keeps_interrupts(vm, pair):
    """One that the source has had is in the target's status, and comes no second time."""
    steps(
        vm,
        pair,
        ("a config-write 4 2 0x6", "ok"),
        ("b config-write 4 2 0x6", "ok"),
        ("a irq msi", "ok"),
        ("b irq msi", "ok"),
        ("a write 0x64 4 0xffffffff", "ok"),
        ("b write 0x64 4 0xffffffff", "ok"),
        ("a interrupts", "0"),
        ("a write 0x60 4 0x100", "ok"),
        ("a interrupts", "1"),
        # What the target had before is gone, as are all of its registers.
        ("b write 0x60 4 0x2", "ok"),
        ("b interrupts", "1"),
        ("a set STOP_COPY", "ok"),
        (f"a save {STREAM}", str(LENGTH)),
        ("b set RESUMING", "ok"),
        (f"b load {STREAM} 0 {LENGTH}", str(LENGTH)),
        ("b set RUNNING", "ok"),
        ("b read 0x24 4", "0x100"),
        ("b interrupts", "0"),
        # The next one does come.
        ("b write 0x64 4 0x100", "ok"),
        ("b write 0x60 4 0x1", "ok"),
        ("b interrupts", "1"),
    )


def runs_after_reset(vm, pair):
    for state in ("STOP", "STOP_COPY", "RESUMING"):
        steps(
            vm,
            pair,
            (f"a set {state}", "ok"),
            ("a reset", "ok"),
            ("a state", "RUNNING"),
            ("a set STOP_COPY", "ok"),
            (f"a save {STREAM}", str(LENGTH)),
        )


def steps(vm, pair, *expected):
    """Answers of vfio-migrate to its steps, compared one by one: a is the first device, b the second."""
    devices = " ".join(f"{address} {vm.group(address)}" for address in pair)
    script = "\n".join(line for line, _ in expected)
    answers = vm.ok(f"vfio-migrate {devices} <<'END'\n{script}\nEND", timeout=60).splitlines()
    for number, (line, wanted) in enumerate(expected):
        found = answers[number] if number < len(answers) else None
        equal(f"step {number}, {line}", found, wanted)
