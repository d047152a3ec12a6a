# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is held: how long vfioctl may take at most, as a part of what something else takes in the same run."""

from dataclasses import dataclass


@dataclass
class Target:
    """The greatest ratio of vfioctl's time to the other's, and why this one."""

    most: float
    reason: str


RATIOS = {
    ("list", "driverctl"): Target(1 / 200, "driverctl starts processes for each device"),
    ("list", "dpdk-devbind"): Target(1 / 20, "it reads what lspci prints, and looks through all NICs' directories"),
    ("list", "lspci"): Target(1.0, "lspci reads more of each device, and chooses no driver"),
    ("list", "bare"): Target(1.5, "beside the reads there are choosing, names, and printing the table"),
    ("list --json", "bare"): Target(
        3.5, "before 7.1 a process of its own reads the overrides, since that can wait for ever; and megabytes are written"
    ),
    ("match ADDR", "modprobe"): Target(0.5, "a script that asks for a driver should not notice it"),
    ("match --modalias", "modprobe"): Target(0.5, "the same"),
    ("claim", "true"): Target(1.5, "udev waits for it, once for each device: as good as starting any program"),
    ("claim", "driverctl"): Target(1.0, "what it takes the place of"),
    ("bind 256", "bare"): Target(1.3, "VFs have no lock in common: the probes are to run at once"),
    ("bind 64", "driverctl"): Target(1.0, "one process for all, against some for each"),
    ("bind 16", "driverctl"): Target(1.0, "the same"),
}

# Of `list` with the most functions that are targeted, 4,096.
MOST_RESIDENT_KIB = 16 * 1024
# Of the straight line through the times of `list`.
LEAST_R_SQUARED = 0.99
MOST_BYTES_OF_BINARY = 3_000_000
