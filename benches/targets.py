# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is held: how long vfioctl may take at most, as a part of what something else takes in the same run."""

from dataclasses import dataclass


@dataclass
class Target:
    """The greatest ratio of vfioctl's time to the other's that is let pass, and why this one. Where less is aimed at and is
    out of reach: what that is, and what stands in the way."""

    most: float
    reason: str
    aim: float | None = None
    limit: str = ""


START_UP = (
    "starting takes it: the C library and libudev are loaded and bound, Rust's runtime reads the stack's bounds from /proc, "
    "and 70 KiB of the program's constants are addresses that are set at each start. What comes after that takes less than a third "
    "of a millisecond"
)
RATIOS = {
    ("list", "driverctl"): Target(
        1 / 100,
        "driverctl starts processes for each device",
        aim=1 / 200,
        limit="the reads alone, by one processor, take 1/200; where there are more processors these share them",
    ),
    ("list", "dpdk-devbind"): Target(1 / 20, "it reads what lspci prints, and looks through all NICs' directories"),
    ("list", "lspci"): Target(1.0, "lspci reads more of each device, and chooses no driver"),
    ("list", "bare"): Target(1.5, "beside the reads there are choosing, names, and printing the table"),
    ("list --json", "bare"): Target(
        3.0,
        "before 7.1 a process of its own reads the overrides, since that can wait for ever; and megabytes are written",
        aim=1.5,
        limit="each override is a question to that process and an answer",
    ),
    ("match ADDR", "modprobe"): Target(
        1.0, "a script that asks for a driver should not notice it", aim=0.5, limit=START_UP
    ),
    ("match --modalias", "modprobe"): Target(1.0, "the same", aim=0.5, limit="the same"),
    ("claim", "true"): Target(
        3.5, "udev waits for it, once for each device that a choice is about", aim=1.5, limit=START_UP
    ),
    ("claim", "driverctl"): Target(1.0, "what it takes the place of"),
    ("bind 256", "bare"): Target(
        5.0,
        "VFs have no lock in common: the probes are to run at once",
        aim=1.3,
        limit="the host is simulated, by a process that answers some requests for each name that is looked up: what vfioctl "
        "looks at before and after its writes takes longer there than the probes. All probes are in the kernel at once, which "
        "`tests/sriov.rs` shows",
    ),
    ("bind 64", "driverctl"): Target(1.0, "one process for all, against some for each"),
    ("bind 16", "driverctl"): Target(1.0, "the same"),
}

# Of `list` with the most functions that are targeted, 4,096.
MOST_RESIDENT_KIB = 16 * 1024
# What a function costs `list` among 4,096, beside what it costs among 1,024: the time is to grow with their number, no faster.
MOST_GROWTH = 1.25
MOST_BYTES_OF_BINARY = 3_600_000
