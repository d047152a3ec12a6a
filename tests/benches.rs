// SPDX-License-Identifier: MIT OR Apache-2.0
//! `benches/run --check` fails where a target is missed, and there alone. What it measures is made up here.

mod support;

use std::path::Path;
use std::process::Command;

/// Runs a script that knows the modules of benches/, and gives what it prints.
fn python(script: &str) -> String {
    let mut python = Command::new("python3");
    python.args(["-B", "-c", script]).env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("benches"));
    let output = support::run(&mut python);
    assert!(output.status.success(), "{}", support::transcript(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Every comparison, each of vfioctl's times at its target and this much over it.
fn missed(over: f64, further: &str) -> String {
    python(&format!(
        "
import cases, figures, targets
made = figures.Figures(binary=targets.MOST_BYTES_OF_BINARY)
made.fastest = {{n: {{'list': 5e6 + 1e4 * n, 'list --json': 5e6 + 2e4 * n}} for n in (64, 1024, 4096)}}
made.peaks = {{('list', 4096): targets.MOST_RESIDENT_KIB, ('list', 16384): 2 * targets.MOST_RESIDENT_KIB}}
for row in cases.ROWS:
    medians = made.groups.setdefault(figures.group_of(row.ours), {{}})
    medians[row.ours] = 1e6
    target = targets.RATIOS.get((row.ours, row.peer))
    medians[row.peer] = 1e6 / (target.most if target else 1) / {over}
assert targets.RATIOS.keys() <= {{(row.ours, row.peer) for row in cases.ROWS}}
{further}
print(*sorted(' '.join(name) for name in made.missed()), sep='; ', end='')
"
    ))
}

#[test]
fn what_is_at_its_target_is_well() {
    assert_eq!(missed(1.0 - 1e-9, ""), "");
}

#[test]
fn each_target_that_is_missed_is_named() {
    let all = missed(1.01, "");
    assert_eq!(all.split("; ").count(), 12, "{all}");
    for one in ["list driverctl", "list bare", "match ADDR modprobe", "claim true", "bind 256 bare"] {
        assert!(all.split("; ").any(|name| name == one), "{one}: {all}");
    }
    let further = "
made.binary += 1
made.peaks['list', 4096] += 1
made.fastest[4096]['list'] *= 1.9";
    assert_eq!(missed(0.99, further), "binary size; list growth; list peak");
}

#[test]
fn a_straight_line_is_found() {
    let line = "import table; l = table.Line.through({1: 5.0, 2: 7.0, 10: 23.0}); print(l.base, l.each, l.r_squared)";
    assert_eq!(python(line), "3.0 2.0 1.0\n");
    let bent = "import table; print(table.Line.through({1: 5.0, 2: 7.0, 10: 40.0}).deviation > 0.1)";
    assert_eq!(python(bent), "True\n");
}

#[test]
fn times_and_ratios_are_shown_with_three_digits() {
    let script = "import table
print(*map(table.duration, (662.4e3, 6.894e6, 20.04e6, 341e6, 1.72e9, 24.31e9)), *map(table.ratio, (1/200, 0.5, 4.655)))";
    assert_eq!(python(script), "662 µs 6.89 ms 20.0 ms 341 ms 1.72 s 24.3 s 1/200 0.50 4.66\n");
}
