// SPDX-License-Identifier: MIT OR Apache-2.0
//! IOMMU groups: the PCI tree with the groups marked in it, and why a group cannot go to a VM.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use serde::Serialize;

use super::{BAD, BOLD, Blocker, DIM, GOOD, Output, printable, styled, table};
use crate::address::Address;
use crate::class;
use crate::kernel_name::DriverName;
use crate::topology::{self, Fate, State, Tree};

/// Groups to be shown, in a tree that may have more.
pub struct GroupsView<'a> {
    tree: &'a Tree<'a>,
    /// The lines that were asked for: whole groups, and devices without one.
    rows: BTreeSet<usize>,
    /// By modalias.
    names: BTreeMap<&'a str, Option<Rc<str>>>,
}

/// A group as it is written.
#[derive(Serialize)]
struct Group<'a> {
    number: u32,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    state: State,
    is_viable: bool,
    is_direct_mapped: bool,
    blocked_by: Vec<Blocker>,
    ports: &'a [Address],
    devices: Vec<Function<'a>>,
}

/// A function as it is written.
#[derive(Serialize)]
struct Function<'a> {
    address: Address,
    vendor: String,
    device: String,
    subsystem_vendor: String,
    subsystem_device: String,
    class: String,
    modalias: &'a str,
    name: Option<&'a str>,
    driver: Option<&'a DriverName>,
    iommu_group: Option<u32>,
    pf: Option<Address>,
    vfs: Option<&'a [Address]>,
    port: Option<Address>,
    is_vfio: bool,
}

#[derive(Serialize)]
struct Groups<'a> {
    groups: Vec<Group<'a>>,
    ungrouped: Vec<Function<'a>>,
}

impl<'a> GroupsView<'a> {
    /// The groups of these lines; `None`: all there is.
    pub fn new(tree: &'a Tree<'a>, wanted: Option<&[usize]>, names: BTreeMap<&'a str, Option<Rc<str>>>) -> Self {
        let rows = match wanted {
            None => (0..tree.rows.len()).collect(),
            Some(wanted) => {
                let members = wanted.iter().filter_map(|row| tree.group_of(*row)).flat_map(|fate| &fate.rows);
                wanted.iter().chain(members).copied().collect()
            }
        };
        GroupsView { tree, rows, names }
    }

    /// The tree.
    pub fn tree(&self) -> &Tree<'a> {
        self.tree
    }

    /// The lines that are shown: those that were asked for, and what leads to them.
    pub fn rows(&self) -> BTreeSet<usize> {
        self.tree.with_ways(self.rows.iter().copied())
    }

    /// Was this line asked for, or does it only lead to one that was?
    pub fn is_wanted(&self, row: usize) -> bool {
        self.rows.contains(&row)
    }

    /// The groups, in the tree's order.
    pub fn groups(&self) -> impl Iterator<Item = &Fate> {
        self.tree.groups.iter().filter(|fate| fate.rows.iter().any(|row| self.rows.contains(row)))
    }

    /// A function's name, or the ids of what has none.
    pub fn label(&self, row: usize) -> String {
        let modalias = &self.tree.rows[row].function.device.modalias;
        match self.name(row) {
            Some(name) => printable(name),
            None => format!("{}:{}", modalias.vendor(), modalias.device()),
        }
    }

    fn name(&self, row: usize) -> Option<&str> {
        self.names.get(self.tree.rows[row].function.device.modalias.as_str())?.as_deref()
    }

    fn address(&self, row: usize) -> Address {
        self.tree.rows[row].function.device.address
    }

    fn document(&self) -> Groups<'_> {
        let is_ungrouped = |row: &usize| self.tree.rows[*row].group.is_none();
        Groups {
            groups: self.groups().map(|fate| self.group(fate)).collect(),
            ungrouped: self.rows.iter().copied().filter(is_ungrouped).map(|row| self.function(row)).collect(),
        }
    }

    fn group<'b>(&'b self, fate: &'b Fate) -> Group<'b> {
        let blocker = |row: &usize| {
            let driver = self.tree.rows[*row].function.device.driver.clone()?;
            Some(Blocker { address: self.address(*row), driver })
        };
        Group {
            number: fate.group.number,
            kind: fate.group.kind.as_deref(),
            state: fate.state,
            is_viable: fate.is_viable(),
            is_direct_mapped: fate.group.is_direct_mapped,
            blocked_by: fate.blockers.iter().filter_map(blocker).collect(),
            ports: &fate.ports,
            devices: fate.rows.iter().map(|row| self.function(*row)).collect(),
        }
    }

    fn function(&self, row: usize) -> Function<'_> {
        let function = &self.tree.rows[row].function;
        let device = function.device;
        Function {
            address: device.address,
            vendor: device.modalias.vendor(),
            device: device.modalias.device(),
            subsystem_vendor: device.modalias.subsystem_vendor(),
            subsystem_device: device.modalias.subsystem_device(),
            class: device.modalias.class(),
            modalias: device.modalias.as_str(),
            name: self.name(row),
            driver: device.driver.as_ref(),
            iommu_group: device.iommu_group,
            pf: device.pf,
            vfs: Some(device.vfs.as_slice()).filter(|vfs| !vfs.is_empty()),
            port: function.ports.last().copied(),
            is_vfio: function.is_vfio,
        }
    }
}

/// Shows groups.
pub fn groups(output: Output, view: &GroupsView<'_>) -> io::Result<()> {
    match output.is_json {
        true => output.print_json("groups", view.document()),
        false => output.print(&text(view)),
    }
}

/// Prints a graph, or a picture of one.
pub fn drawing(output: Output, text: &str) -> io::Result<()> {
    output.print(text)
}

fn text(view: &GroupsView<'_>) -> String {
    let headings = ["GROUP", "STATE", "DEVICE", "CLASS", "DRIVER", "NAME"];
    let rows: Vec<usize> = view.rows().into_iter().collect();
    let branches = branches(view.tree, &rows);
    let number = |place: usize| {
        let row = &view.tree.rows[rows[place]];
        row.function.device.iommu_group.filter(|_| view.is_wanted(rows[place]))
    };
    let line = |(place, row): (usize, &usize)| {
        let same = |other: Option<usize>| {
            let other = other.filter(|other| *other < rows.len());
            number(place).is_some() && other.is_some_and(|other| number(other) == number(place))
        };
        // What stands together is held together.
        let mark = match (same(place.checked_sub(1)), same(Some(place + 1))) {
            (false, true) => "┌ ",
            (true, true) => "│ ",
            (true, false) => "└ ",
            (false, false) => "  ",
        };
        cells(view, *row, mark, &branches[place])
    };
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str(&table::render(&headings, rows.iter().enumerate().map(line)));
    }
    let mut remarks = view.groups().filter_map(|fate| remark(view, fate)).peekable();
    if remarks.peek().is_some() {
        text.push('\n');
        remarks.for_each(|remark| text.push_str(&remark));
    }
    text.push_str(&format!("\n{}", summary(view)));
    text.trim_start_matches('\n').to_string()
}

/// A line's cells.
fn cells(view: &GroupsView<'_>, row: usize, mark: &str, branch: &str) -> Vec<String> {
    let dash = || "-".to_string();
    let function = &view.tree.rows[row].function;
    let (device, fate) = (function.device, view.tree.group_of(row));
    let group = device.iommu_group.map_or_else(dash, |number| number.to_string());
    let (address, driver) =
        (device.address.to_string(), device.driver.as_ref().map_or_else(dash, DriverName::to_string));
    let mut cells = vec![
        format!("{mark}{group}"),
        fate.map_or_else(dash, |fate| fate.state.name().to_string()),
        format!("{branch}{address}"),
        class::name(&device.modalias.class()).to_string(),
        driver.clone(),
        view.label(row),
    ];
    if !view.is_wanted(row) {
        cells[..2].iter_mut().for_each(String::clear);
        return cells.iter().map(|cell| styled(DIM, cell)).collect();
    }
    if let Some(fate) = fate {
        cells[1] = in_colour(fate.state);
        let is_partly_given = fate.state == State::Blocked;
        if function.is_vfio {
            cells[4] = styled(GOOD, &driver);
        } else if is_partly_given && function.blocks_group() {
            cells[4] = styled(BAD, &driver);
        }
    }
    cells
}

fn in_colour(state: State) -> String {
    match state {
        State::Ready => styled(GOOD, state.name()),
        State::Blocked | State::Reserved | State::NoIommu => styled(BAD, state.name()),
        State::Bridges => styled(DIM, state.name()),
        State::Free | State::Native => state.name().to_string(),
    }
}

/// What is drawn before each address. Lines that are left out are not drawn to.
fn branches(tree: &Tree<'_>, rows: &[usize]) -> Vec<String> {
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for row in rows {
        if let Some(above) = tree.rows[*row].above {
            last.insert(above, *row);
        }
    }
    // What is drawn before those that hang from a line.
    let mut below: BTreeMap<usize, String> = BTreeMap::new();
    let branch = |row: &usize| {
        let Some(above) = tree.rows[*row].above else {
            below.insert(*row, String::new());
            return String::new();
        };
        let before = below.get(&above).cloned().unwrap_or_default();
        let (own, onward) = if last.get(&above) == Some(row) { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        below.insert(*row, format!("{before}{onward}"));
        format!("{before}{own}")
    };
    rows.iter().map(branch).collect()
}

/// What is to be said of a group, if its line does not say all.
fn remark(view: &GroupsView<'_>, fate: &Fate) -> Option<String> {
    let functions = fate.rows.iter().map(|row| &view.tree.rows[*row].function);
    let worth: Vec<&topology::Function> = functions.filter(|function| !function.is_hosts_bridge()).collect();
    let (first, number) = (worth.first()?.device.address, fate.group.number);
    let on = |row: &usize| {
        let device = view.tree.rows[*row].function.device;
        format!("{} is on {}", device.address, device.driver.as_ref().map_or("no driver", DriverName::as_str))
    };
    let blockers: Vec<String> = fate.blockers.iter().map(on).collect();
    let reason = match fate.state {
        State::Reserved => "firmware has reserved a mapping in it, which keeps VFIO out".to_string(),
        State::NoIommu => {
            "it is VFIO's own for a device without an IOMMU: what opens it can read and write all of this host's memory"
                .to_string()
        }
        State::Blocked => format!("no VM can have it while {}", in_words(&blockers)),
        State::Native if worth.len() > 1 => format!("no VM can have it while {}", in_words(&blockers)),
        State::Ready | State::Free | State::Native | State::Bridges => return None,
    };
    let mut text = format!("{BOLD}Group {number}{BOLD:#}: {reason}\n");
    let slot = |function: &&topology::Function| {
        let address = function.device.pf.unwrap_or(function.device.address);
        (address.domain(), address.routing_id() >> 3)
    };
    let slots: BTreeSet<(u32, u16)> = worth.iter().map(slot).collect();
    if slots.len() > 1 {
        let place = fate.ports.last().map(|port| format!(", all below {port}")).unwrap_or_default();
        let slots = slots.len();
        text.push_str(&format!("  It spans {slots} slots{place}: the kernel found no isolation (ACS) between them\n"));
    }
    let mut next_steps = Vec::new();
    // No VFIO driver takes a bridge, and bind refuses it.
    let (bridges, others): (Vec<usize>, Vec<usize>) =
        fate.blockers.iter().partition(|row| view.tree.rows[**row].function.device.is_bridge());
    match fate.state {
        State::Reserved => next_steps.push(
            "Look for a firmware setting that shares it with the management controller (RMRR), and turn it off"
                .to_string(),
        ),
        State::NoIommu => next_steps.push("Turn the IOMMU on: 'vfioctl doctor' says what is missing".to_string()),
        _ if !others.is_empty() || fate.state == State::Native => {
            next_steps.push(format!("To give all of it away: vfioctl bind --group {first}"))
        }
        _ => {}
    }
    if matches!(fate.state, State::Blocked | State::Native) {
        for row in bridges {
            let device = view.tree.rows[row].function.device;
            let command = device.driver.as_ref().map(|driver| topology::from_driver(device.address, driver));
            next_steps
                .extend(command.map(|command| format!("To take the bridge off its driver: {}", printable(&command))));
        }
    }
    next_steps.iter().for_each(|step| text.push_str(&format!("  {DIM}{step}{DIM:#}\n")));
    Some(text)
}

fn in_words(parts: &[String]) -> String {
    match parts {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        parts => parts.concat(),
    }
}

fn summary(view: &GroupsView<'_>) -> String {
    let ungrouped: Vec<Address> =
        view.rows.iter().filter(|row| view.tree.rows[**row].group.is_none()).map(|row| view.address(*row)).collect();
    let mut text = String::new();
    if view.tree.rows.is_empty() {
        return "There is no PCI device here\n".to_string();
    }
    let of = |state: State| view.groups().filter(move |fate| fate.state == state);
    let count = |state: State| {
        let count = of(state).count();
        let what = match state {
            State::Ready => format!("ready for a VM ({})", devices(of(state).map(|fate| given(view, fate)).sum())),
            State::Free => "free (no driver has them)".to_string(),
            State::Native => "native (on this host's drivers)".to_string(),
            State::Blocked => "blocked (partly on VFIO)".to_string(),
            State::Reserved => "reserved by firmware".to_string(),
            State::NoIommu => "without an IOMMU (unsafe)".to_string(),
            State::Bridges => "of bridges alone".to_string(),
        };
        (count > 0).then(|| format!("{count} {what}"))
    };
    let counts: Vec<String> = State::ALL.into_iter().filter_map(count).collect();
    let groups = view.groups().count();
    if groups > 0 {
        text.push_str(&format!("{groups} group{}: {}\n", if groups == 1 { "" } else { "s" }, counts.join(", ")));
    }
    if groups == 0 && !ungrouped.is_empty() {
        text.push_str("No device has an IOMMU group, and VFIO needs an IOMMU: 'vfioctl doctor' says what is missing\n");
    } else if !ungrouped.is_empty() {
        let without = match ungrouped.as_slice() {
            [one] => format!("{one} has"),
            more => format!("{} devices have", more.len()),
        };
        text.push_str(&format!(
            "{without} no IOMMU group, so no VM can have {}\n",
            if ungrouped.len() == 1 { "it" } else { "them" }
        ));
    }
    text
}

/// How many of a group's functions are on VFIO.
fn given(view: &GroupsView<'_>, fate: &Fate) -> usize {
    fate.rows.iter().filter(|row| view.tree.rows[**row].function.is_vfio).count()
}

fn devices(count: usize) -> String {
    format!("{count} device{}", if count == 1 { "" } else { "s" })
}
