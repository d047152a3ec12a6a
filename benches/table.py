# SPDX-License-Identifier: MIT OR Apache-2.0
"""Figures as text: for a terminal, and for the documents that show them."""

import os
import subprocess
import time
from dataclasses import dataclass

import cases
import targets

BEGIN = "<!-- Written by `benches/run --write`: begin -->\n"
END = "<!-- Written by `benches/run --write`: end -->\n"


@dataclass
class Line:
    """The straight line through times: nanoseconds, and nanoseconds a function."""

    base: float
    each: float
    r_squared: float
    # the greatest difference from it, as a part of what was measured
    deviation: float

    @classmethod
    def through(cls, points):
        numbers, times = list(points), list(points.values())
        mean_n, mean_t = sum(numbers) / len(points), sum(times) / len(points)
        spread = sum((n - mean_n) ** 2 for n in numbers)
        each = sum((n - mean_n) * (t - mean_t) for n, t in points.items()) / spread
        base = mean_t - each * mean_n
        left = sum((t - base - each * n) ** 2 for n, t in points.items())
        whole = sum((t - mean_t) ** 2 for t in times)
        deviation = max(abs(t - base - each * n) / t for n, t in points.items())
        return cls(base, each, 1 - left / whole, deviation)


def duration(nanoseconds):
    """Three digits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        value = nanoseconds / size
        if abs(value) >= 1 or unit == "µs":
            return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f} {unit}"


def ratio(value):
    return f"1/{1 / value:.0f}" if value < 0.1 else f"{value:.2f}"


def markdown(headings, rows):
    """All but the first column are numbers, unless a heading begins with a space."""
    align = ["---"] + ["---" if heading.startswith(" ") else "---:" for heading in headings[1:]]
    lines = [[heading.strip() for heading in headings], align, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def comparisons(figures, rows=None):
    """The table of the README. Without figures: its shape."""
    lines = []
    for row in rows or cases.ROWS:
        takes, other, part = "", "", ""
        if figures:
            ours, theirs = figures.pair(row)
            takes, other, part = duration(ours), duration(theirs), ratio(ours / theirs)
        lines.append([row.we_do, takes, row.they_do, other, part])
    return markdown(["", "takes", " beside", "takes", "ratio"], lines)


def machine():
    """Where and when this was."""
    release = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line)
    cores = os.cpu_count()
    virtual = " virtual" if " hypervisor" in open("/proc/cpuinfo").read() else ""
    noun = "core" if cores == 1 else "cores"
    number = {1: "one", 2: "two", 4: "four", 8: "eight"}.get(cores, cores)
    system = release["PRETTY_NAME"].strip('"')
    return f"{time.strftime('%Y-%m-%d')}, {number}{virtual} {noun}, {system}, kernel {os.uname().release.split('-')[0]}"


def versions():
    """Of the peers, as their packages have them."""
    names = ["driverctl", "dpdk", "pciutils", "kmod"]
    form = "-f=${Package} ${Version}\n"
    shown = subprocess.run(["dpkg-query", "-W", form, *names], capture_output=True, text=True)
    return ", ".join(shown.stdout.split("\n")[:-1]) if shown.returncode == 0 else ""


def readme(figures):
    return f"{comparisons(figures)}\n{machine()}; command `make bench`.\n"


def details(figures):
    """What docs/speed.md has beside that."""
    heading = ["functions", *(f"{n:,}" for n in figures.sizes)]
    rows = []
    for name in ("list", "list --json"):
        rows.append([f"`vfioctl {name}`", *(duration(figures.sizes[n][name]) for n in figures.sizes)])
        other = "bare" if name == "list" else "bare --overrides"
        rows.append(["its reads alone", *(duration(figures.sizes[n][other]) for n in figures.sizes)])
        ratios = (ratio(figures.sizes[n][name] / figures.sizes[n][other]) for n in figures.sizes)
        rows.append(["ratio", *ratios])
    text = f"{machine()}; {versions()}.\n\n{markdown(heading, rows)}\n"
    for name, line in figures.lines().items():
        slope, furthest = duration(line.each), f"{100 * line.deviation:.0f} %"
        text += (
            f"The straight line through the fastest runs of `vfioctl {name}`: {duration(line.base)}, and {slope}\n"
            f"for each function; R² = {line.r_squared:.5f}, and none is further than {furthest} from it.\n\n"
        )
    peaks = figures.peaks.items()
    rows = [[f"`vfioctl {name}`, {count:,} functions", f"{kib / 1024:.1f} MiB"] for (name, count), kib in peaks]
    text += markdown(["greatest resident size", ""], rows)
    text += f"\nThe program has {figures.binary:,} bytes.\n"
    return text + aims(figures)


def aims(figures):
    """What is aimed at and not reached."""
    rows = []
    for row in cases.ROWS:
        target = targets.RATIOS.get((row.ours, row.peer))
        if target and target.aim:
            ours, theirs = figures.pair(row)
            if ours > target.aim * theirs:
                rows.append([row.we_do, row.they_do, ratio(ours / theirs), ratio(target.aim), target.limit])
    if not rows:
        return ""
    return "\nWhat is aimed at and not reached:\n\n" + markdown(
        ["", " beside", "ratio", "aimed at", " what stands in the way"], rows
    )


def put(path, text):
    """Between the markers of a document."""
    whole = path.read_text()
    before, found, rest = whole.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found and found_end):
        raise ValueError(f"{path} has no place for this: {BEGIN}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
