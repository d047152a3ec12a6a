// SPDX-License-Identifier: MIT OR Apache-2.0
//! IOMMU groups as a graph in Graphviz's language (<https://graphviz.org/doc/info/lang.html>): a box a function, an arrow from
//! what it hangs from, a frame around what goes to a VM together. Boxes have their own ground, so that the picture can be read
//! on paper and on a dark screen.

use std::collections::BTreeSet;

use super::{GroupsView, printable};
use crate::class;
use crate::kernel_name::DriverName;
use crate::topology::{Fate, Function, State};

/// So much of a name fits a box.
const NAME: usize = 52;

/// What a graph begins with.
const HEAD: &str = "\
digraph groups {
    rankdir=LR
    bgcolor=transparent
    fontname=\"Helvetica,Arial,sans-serif\"
    fontsize=11
    nodesep=0.06
    ranksep=0.4
    node [shape=box, style=filled, fontname=\"Helvetica,Arial,sans-serif\", fontsize=10, fontcolor=\"#202020\", height=0.25, margin=\"0.17,0.04\"]
    edge [color=\"#8a8a8a\", arrowsize=0.5]
";

/// How something is painted: its ground and its border.
#[derive(Clone, Copy)]
struct Paint(&'static str, &'static str);

impl State {
    fn paint(self) -> Paint {
        match self {
            State::Ready => Paint("#c9ebcb", "#2e7d32"),
            State::Free => Paint("#d6e9fb", "#1565c0"),
            State::Native => Paint("#fdf0cf", "#b07d12"),
            State::Blocked | State::Reserved | State::NoIommu => Paint("#f9cfcf", "#c62828"),
            State::Bridges => Paint("#ececec", "#8a8a8a"),
        }
    }
}

/// The graph.
pub fn graph(view: &GroupsView<'_>) -> String {
    let rows = view.rows();
    let tree = view.tree();
    let mut text = HEAD.to_string();
    let columns = columns(rows.len());
    text.push_str(&format!("    pack=6\n    packmode=\"array_uct{columns}\"\n"));
    text.push_str(&legend(view));
    // Frames are drawn around groups of several; what is alone says so itself.
    let is_framed = |row: usize| view.is_wanted(row) && tree.group_of(row).is_some_and(|fate| fate.rows.len() > 1);
    for row in from_below(view, &rows, columns) {
        text.push_str(&format!("    {}\n", node(view, row, is_framed(row))));
    }
    let frames: Vec<&Fate> = view.groups().filter(|fate| fate.rows.len() > 1).collect();
    for fate in frames.into_iter().rev() {
        let Paint(_, border) = fate.state.paint();
        let members: Vec<String> =
            fate.rows.iter().map(|row| format!("\"{}\"", tree.rows[*row].function.device.address)).collect();
        text.push_str(&format!(
            "    subgraph cluster_{} {{\n        label={}\n        labeljust=l\n        style=\"filled,rounded\"\n        \
             fillcolor=\"#fafafa\"\n        color=\"{border}\"\n        fontcolor=\"{border}\"\n        penwidth=1.5\n        \
             margin=6\n        {}\n    }}\n",
            fate.group.number,
            quoted(&state(fate)),
            members.join("; ")
        ));
    }
    for row in &rows {
        let Some(above) = tree.rows[*row].above else { continue };
        let (from, to) = (tree.rows[above].function.device, tree.rows[*row].function.device);
        // A VF is no device behind its PF.
        let style = if to.pf == Some(from.address) { " [style=dashed]" } else { "" };
        text.push_str(&format!("    \"{}\" -> \"{}\"{style}\n", from.address, to.address));
    }
    text.push_str("}\n");
    text
}

/// In how many columns parts stand that do not hang together: in several where there is more than a screen of them.
fn columns(rows: usize) -> usize {
    match rows {
        0..=60 => 1,
        many => (many as f64 / 40.0).sqrt().ceil() as usize,
    }
}

/// The lines so that parts come to stand in bus order: Graphviz fills an array from below.
fn from_below(view: &GroupsView<'_>, rows: &BTreeSet<usize>, columns: usize) -> Vec<usize> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    for row in rows {
        // What hangs together, or has a frame around it.
        let belongs = |part: &&mut Vec<usize>| {
            let [own, last] = [row, &part[part.len() - 1]].map(|row| &view.tree().rows[*row]);
            own.above.is_some() || own.group.is_some() && own.group == last.group
        };
        match parts.last_mut().filter(belongs) {
            Some(part) => part.push(*row),
            None => parts.push(vec![*row]),
        }
    }
    parts.rchunks(columns).flatten().flatten().copied().collect()
}

/// What the colours mean, of those that occur.
fn legend(view: &GroupsView<'_>) -> String {
    let cell = |state: &State| {
        let Paint(ground, border) = state.paint();
        format!("<td bgcolor=\"{ground}\" color=\"{border}\"><font color=\"#202020\">{}</font></td>", meaning(*state))
    };
    let occurs = |state: &&State| view.groups().any(|fate| fate.state == **state);
    let cells: String = State::ALL.iter().filter(occurs).map(cell).collect::<Vec<_>>().concat();
    match cells.as_str() {
        "" => String::new(),
        cells => format!(
            "    labelloc=t\n    label=<<table border=\"0\" cellborder=\"1\" cellspacing=\"6\" cellpadding=\"4\"><tr>{cells}</tr></table>>\n"
        ),
    }
}

fn meaning(state: State) -> &'static str {
    match state {
        State::Ready => "ready for a VM",
        State::Free => "free: no driver has it",
        State::Native => "native: on this host's drivers",
        State::Blocked => "blocked: partly on VFIO",
        State::Reserved => "reserved by firmware",
        State::NoIommu => "without an IOMMU: unsafe",
        State::Bridges => "bridges",
    }
}

fn state(fate: &Fate) -> String {
    format!("group {}: {}", fate.group.number, fate.state.name())
}

/// A function's box. In a frame it shows what the function does to its group.
fn node(view: &GroupsView<'_>, row: usize, is_framed: bool) -> String {
    let function = &view.tree().rows[row].function;
    let fate = view.tree().group_of(row);
    let device = function.device;
    let mut first = vec![device.address.to_string()];
    first.push(device.driver.as_ref().map_or("no driver", DriverName::as_str).to_string());
    if !is_framed {
        first.push(fate.map_or("no group".to_string(), state));
    }
    let first = first.join("  ·  ");
    let mut label = escaped(&first);
    let name = view.label(row);
    // What a VF is shows from its PF.
    if device.pf.is_none() {
        label = format!("{label}\\l{}\\l", escaped(&short(&name)));
    }
    let Paint(ground, border) = match fate {
        None => Paint("#ffffff", "#8a8a8a"),
        Some(fate) if is_framed => within(function, fate).paint(),
        Some(fate) => fate.state.paint(),
    };
    // What only leads to what was asked for.
    let outline = if view.is_wanted(row) { "" } else { ", style=\"filled,dotted\"" };
    let tooltip = quoted(&format!("{first}, {}: {name}", class::name(&device.modalias.class())));
    format!(
        "\"{}\" [label=\"{label}\", tooltip={tooltip}, fillcolor=\"{ground}\", color=\"{border}\"{outline}]",
        device.address
    )
}

/// A member of a group of several.
fn within(function: &Function<'_>, fate: &Fate) -> State {
    match fate.state {
        _ if function.is_vfio => State::Ready,
        State::Blocked if function.blocks_group() => State::Blocked,
        _ if function.blocks_group() => State::Native,
        _ if function.is_hosts_bridge() => State::Bridges,
        _ => State::Free,
    }
}

fn short(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", name[..end].trim_end()),
        None => name.to_string(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Text as a part of a quoted label, where backslashes begin escapes and ampersands entities.
fn escaped(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_label_is_made_of_ends_none() {
        for (text, expected) in [
            ("vfio-pci", "vfio-pci"),
            ("a\"]; b -> c [label=\"", "a\\\"]; b -> c [label=\\\""),
            ("\\N \\", "\\\\N \\\\"),
            ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
            ("<table>", "<table>"),
            ("a\nb\u{1b}[2J", "a\u{fffd}b\u{fffd}[2J"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(short("日本"), "日本");
        assert_eq!(short(&"日".repeat(NAME)), "日".repeat(NAME));
        assert_eq!(short(&"日".repeat(NAME + 1)), format!("{}…", "日".repeat(NAME)));
    }
}
