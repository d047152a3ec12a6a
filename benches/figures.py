# SPDX-License-Identifier: MIT OR Apache-2.0
"""What was measured, and what of it misses its target."""

from dataclasses import dataclass, field

import cases
import targets
from table import Line, ratio

# The number of functions at which everything is compared.
COUNT = 4096


@dataclass
class Figures:
    """Medians in nanoseconds, by the case and the command; `list` by the number of functions too, and the fastest runs
    there. Peaks in KiB."""

    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    sizes: dict[int, dict[str, float]] = field(default_factory=dict)
    fastest: dict[int, dict[str, float]] = field(default_factory=dict)
    peaks: dict[tuple[str, int], int] = field(default_factory=dict)
    binary: int = 0

    def has(self, row):
        return row.ours in self.groups.get(group_of(row.ours), {})

    def pair(self, row):
        medians = self.groups[group_of(row.ours)]
        return medians[row.ours], medians[row.peer]

    def lines(self):
        """Through the fastest: the trees do not take turns, and what else the machine does only adds."""
        names = ("list", "list --json")
        return {name: Line.through({n: times[name] for n, times in self.fastest.items()}) for name in names}

    def forgotten(self):
        """Targets of what was not measured."""
        return targets.RATIOS.keys() - {(row.ours, row.peer) for row in cases.ROWS if self.has(row)}

    def missed(self):
        """What misses its target, by the name of what was measured and of what it is held against."""
        wrong = {}
        for row in filter(self.has, cases.ROWS):
            target = targets.RATIOS.get((row.ours, row.peer))
            ours, theirs = self.pair(row)
            if target and ours > target.most * theirs:
                wrong[row.ours, row.peer] = (
                    f"{row.we_do} takes {ratio(ours / theirs)} of what {row.they_do} does, "
                    f"at most {ratio(target.most)} is wanted: {target.reason}"
                )
        for name in ("list", "list --json"):
            few, many = (self.fastest[count][name] / count for count in (COUNT // 4, COUNT))
            if many > targets.MOST_GROWTH * few:
                wrong[name, "growth"] = (
                    f"a function costs {name} {many / few:.2f} times as much among {COUNT:,} as among {COUNT // 4:,}, "
                    f"at most {targets.MOST_GROWTH} is wanted"
                )
        for (name, count), kib in self.peaks.items():
            most = targets.MOST_RESIDENT_KIB
            if count == COUNT and kib > most:
                wrong[name, "peak"] = f"{name} of {count} functions has {kib} KiB resident, at most {most} are wanted"
        most = targets.MOST_BYTES_OF_BINARY
        if self.binary > most:
            wrong["binary", "size"] = f"the binary has {self.binary} bytes, at most {most} are wanted"
        return wrong


def group_of(name):
    """`bind 16` and `bind 64` have peers of the same name, and `list --json` a peer of its own."""
    return name if name.startswith(("bind", "list --json")) else name.split()[0]
