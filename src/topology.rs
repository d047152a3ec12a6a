// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where functions are in the PCI tree, and which go to a VM together: from plain values to a tree and its IOMMU groups.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::Serialize;

use crate::address::Address;
use crate::kernel_name::DriverName;
use crate::sysfs::{Device, Group};

/// What is to be known of a function.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    /// The function.
    pub device: &'a Device,
    /// What leads to it, from the root down: ports and other bridges.
    pub ports: Rc<[Address]>,
    /// Has its driver made a VFIO device of it?
    pub is_vfio: bool,
}

impl Function<'_> {
    /// Does it keep its group from a guest?
    pub fn blocks_group(&self) -> bool {
        blocks_group(self.device.driver.as_ref(), self.is_vfio)
    }

    /// Is it there for the host alone? Bridges to PCI and CardBus, the host's own and those to ISA; NVSwitches, which VMs are
    /// given, are bridges too, of no such kind.
    pub fn is_hosts_bridge(&self) -> bool {
        matches!(&self.device.modalias.class()[..4], "0600" | "0601" | "0604" | "0607")
    }
}

/// Does a function on this driver keep its group from a guest? What is unbound or on VFIO does not; nor do the two native
/// drivers that leave DMA alone (`driver_managed_dma` in `drivers/pci/pcie/portdrv.c` and `drivers/pci/pci-stub.c`).
pub fn blocks_group(driver: Option<&DriverName>, is_vfio: bool) -> bool {
    let harmless = |driver: &DriverName| ["pcieport", "pci-stub"].contains(&driver.as_str());
    !is_vfio && driver.is_some_and(|driver| !harmless(driver))
}

/// The command that takes a function off its driver where `unbind` does not: a bridge, which can be on nothing of VFIO's.
pub fn from_driver(address: Address, driver: &DriverName) -> String {
    let path = format!("/sys/bus/pci/drivers/{driver}/unbind");
    let path = shlex::try_quote(&path).map_or_else(|_| path.clone(), String::from);
    format!("echo {address} > {path}")
}

/// How a group stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A VM can have it: something of it is on VFIO, and nothing of it on a driver that does DMA for this host.
    Ready,
    /// No driver has it, so it only need be bound.
    Free,
    /// This host's drivers have it.
    Native,
    /// Something of it is on VFIO, which is no use while the host's drivers have the rest.
    Blocked,
    /// Firmware has reserved a mapping, which keeps VFIO out.
    Reserved,
    /// VFIO's own group of a device without an IOMMU: what has the device can read and write all memory.
    NoIommu,
    /// Bridges of the host: there is nothing to give.
    Bridges,
}

impl State {
    /// All of them, the best first.
    pub const ALL: [State; 7] =
        [State::Ready, State::Free, State::Native, State::Blocked, State::Reserved, State::NoIommu, State::Bridges];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Free => "free",
            State::Native => "native",
            State::Blocked => "blocked",
            State::Reserved => "reserved",
            State::NoIommu => "no-iommu",
            State::Bridges => "bridges",
        }
    }
}

/// A function's line in the tree.
#[derive(Debug)]
pub struct Row<'a> {
    /// The function.
    pub function: Function<'a>,
    /// The line it hangs from: that of the PF for a VF, else that of the port that leads to it.
    pub above: Option<usize>,
    /// Is there no other one after it that hangs from the same line?
    pub is_last: bool,
    /// The place of its group among the tree's.
    pub group: Option<usize>,
}

/// A group, and what becomes of it.
#[derive(Debug)]
pub struct Fate {
    /// The group as it was read.
    pub group: Group,
    /// The lines of its members.
    pub rows: Vec<usize>,
    /// How it stands.
    pub state: State,
    /// The lines of those whose drivers keep it from being given to a guest.
    pub blockers: Vec<usize>,
    /// Ports outside the group that lead to all of it, from the root down.
    pub ports: Vec<Address>,
}

impl Fate {
    /// Would the kernel hand it to a guest as things are?
    pub fn is_viable(&self) -> bool {
        self.blockers.is_empty() && !self.group.is_direct_mapped && !self.group.is_no_iommu
    }
}

/// The PCI tree, a line a function, what hangs from one after it; and the groups in it.
#[derive(Debug)]
pub struct Tree<'a> {
    /// All functions.
    pub rows: Vec<Row<'a>>,
    /// Groups, in the order in which the tree comes to them.
    pub groups: Vec<Fate>,
}

impl<'a> Tree<'a> {
    /// The tree of functions that are given in bus order.
    pub fn new(functions: Vec<Function<'a>>, groups: BTreeMap<u32, Group>) -> Tree<'a> {
        let mut tree = Tree { rows: rows(functions), groups: Vec::new() };
        tree.groups = tree.fates(groups);
        tree
    }

    /// The line of a function.
    pub fn row(&self, address: Address) -> Option<usize> {
        self.rows.iter().position(|row| row.function.device.address == address)
    }

    /// The group that a line belongs to.
    pub fn group_of(&self, row: usize) -> Option<&Fate> {
        self.rows[row].group.map(|place| &self.groups[place])
    }

    /// These lines and those they hang from.
    pub fn with_ways(&self, rows: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        for row in rows {
            let mut next = Some(row);
            while let Some(row) = next.filter(|row| all.insert(*row)) {
                next = self.rows[row].above;
            }
        }
        all
    }

    fn fates(&mut self, mut groups: BTreeMap<u32, Group>) -> Vec<Fate> {
        let mut members: Vec<(u32, Vec<usize>)> = Vec::new();
        let mut places: BTreeMap<u32, usize> = BTreeMap::new();
        for (index, row) in self.rows.iter_mut().enumerate() {
            let Some(number) = row.function.device.iommu_group else { continue };
            let place = *places.entry(number).or_insert_with(|| {
                members.push((number, Vec::new()));
                members.len() - 1
            });
            members[place].1.push(index);
            row.group = Some(place);
        }
        let fate = |(number, rows): (u32, Vec<usize>)| {
            let unread =
                || Group { number, kind: None, devices: Vec::new(), is_direct_mapped: false, is_no_iommu: false };
            let group = groups.remove(&number).unwrap_or_else(unread);
            let functions: Vec<&Function> = rows.iter().map(|row| &self.rows[*row].function).collect();
            let state = state(&functions, &group);
            let blockers = rows.iter().copied().filter(|row| self.rows[*row].function.blocks_group()).collect();
            let ports = common_ports(&functions);
            Fate { group, rows, state, blockers, ports }
        };
        members.into_iter().map(fate).collect()
    }
}

fn state(members: &[&Function<'_>], group: &Group) -> State {
    let is_blocked = members.iter().any(|function| function.blocks_group());
    let is_vfio = members.iter().any(|function| function.is_vfio);
    match (is_vfio, is_blocked) {
        _ if group.is_no_iommu => State::NoIommu,
        (false, _) if members.iter().all(|function| function.is_hosts_bridge()) => State::Bridges,
        _ if group.is_direct_mapped => State::Reserved,
        (true, true) => State::Blocked,
        (true, false) => State::Ready,
        (false, true) => State::Native,
        (false, false) => State::Free,
    }
}

/// The ports that lead to all of these and are none of them.
fn common_ports(members: &[&Function<'_>]) -> Vec<Address> {
    let Some((first, others)) = members.split_first() else { return Vec::new() };
    let mut common: &[Address] = &first.ports;
    for function in others {
        let same = common.iter().zip(function.ports.iter()).take_while(|(one, other)| one == other).count();
        common = &common[..same];
    }
    let own: BTreeSet<Address> = members.iter().map(|function| function.device.address).collect();
    common.iter().copied().filter(|port| !own.contains(port)).collect()
}

/// Puts functions where they hang. Each has its line, whatever nonsense is told of what leads where.
fn rows(functions: Vec<Function<'_>>) -> Vec<Row<'_>> {
    let places: BTreeMap<Address, usize> =
        functions.iter().enumerate().map(|(place, function)| (function.device.address, place)).collect();
    let mut below: Vec<Vec<usize>> = vec![Vec::new(); functions.len()];
    let mut roots = Vec::new();
    for (place, function) in functions.iter().enumerate() {
        // A port that was left out of the listing leads on to the one before it.
        let ways = function.device.pf.iter().chain(function.ports.iter().rev());
        match ways.filter_map(|way| places.get(way)).find(|way| **way != place) {
            Some(way) => below[*way].push(place),
            None => roots.push(place),
        }
    }
    let mut rows: Vec<Row> = Vec::with_capacity(functions.len());
    let mut functions: Vec<Option<Function>> = functions.into_iter().map(Some).collect();
    let everything = 0..functions.len();
    // In circles there is no root: whoever was not come to is one.
    for root in roots.into_iter().chain(everything) {
        let mut next = vec![(root, None, true)];
        while let Some((place, above, is_last)) = next.pop() {
            let Some(function) = functions[place].take() else { continue };
            rows.push(Row { function, above, is_last, group: None });
            let (row, hanging) = (rows.len() - 1, std::mem::take(&mut below[place]));
            let last = hanging.last().copied();
            next.extend(hanging.into_iter().rev().map(|place| (place, Some(row), Some(place) == last)));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: &str = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";
    const PORT: &str = "pci:v00008086d00002030sv00008086sd00000000bc06sc04i00";
    const HOST_BRIDGE: &str = "pci:v00008086d00002020sv00008086sd00000000bc06sc00i00";
    const NVSWITCH: &str = "pci:v000010DEd000022A3sv000010DEsd00000000bc06sc80i00";

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    /// `ADDRESS MODALIAS GROUP DRIVER PF`; `-` where there is none, and `vfio` is a driver that made a VFIO device.
    fn device(line: &str) -> Device {
        let words: Vec<&str> = line.split(' ').collect();
        let [place, modalias, group, driver, pf] = words.as_slice() else { panic!("{line}") };
        Device {
            address: address(place),
            modalias: modalias.parse().unwrap(),
            driver: (*driver != "-").then(|| DriverName::from_kernel(driver.to_string())),
            iommu_group: group.parse().ok(),
            pf: pf.parse().ok(),
            vfs: Vec::new(),
        }
    }

    fn function<'a>(device: &'a Device, ports: &[&str]) -> Function<'a> {
        let is_vfio = device.driver.as_ref().is_some_and(|driver| driver.as_str() == "vfio");
        Function { device, ports: ports.iter().map(|port| address(port)).collect(), is_vfio }
    }

    /// The tree as indented addresses.
    fn drawn(tree: &Tree<'_>) -> Vec<String> {
        let depth = |row: usize| {
            let mut depth = 0;
            let mut above = tree.rows[row].above;
            while let Some(row) = above {
                (depth, above) = (depth + 1, tree.rows[row].above);
            }
            depth
        };
        let line = |(index, row): (usize, &Row)| {
            format!("{}{}{}", ".".repeat(depth(index)), row.function.device.address, if row.is_last { "$" } else { "" })
        };
        tree.rows.iter().enumerate().map(line).collect()
    }

    #[test]
    fn functions_hang_from_ports_and_vfs_from_their_pf() {
        let devices = [
            format!("0000:00:00.0 {HOST_BRIDGE} 0 - -"),
            format!("0000:00:01.0 {PORT} 1 pcieport -"),
            format!("0000:01:00.0 {NIC} 2 mlx5_core -"),
            format!("0000:01:00.1 {NIC} 3 vfio 0000:01:00.0"),
            // On a bus of its own, as many VFs are.
            format!("0000:02:00.0 {NIC} 4 - 0000:01:00.0"),
            format!("10000:e1:00.0 {NIC} - - -"),
        ]
        .map(|line| device(&line));
        let functions = vec![
            function(&devices[0], &[]),
            function(&devices[1], &[]),
            function(&devices[2], &["0000:00:01.0"]),
            function(&devices[3], &["0000:00:01.0"]),
            function(&devices[4], &["0000:00:01.0"]),
            // Its port is not in the listing: the one before it is.
            function(&devices[5], &["0000:00:00.0", "10000:e0:06.0"]),
        ];
        let tree = Tree::new(functions, BTreeMap::new());
        let expected = [
            "0000:00:00.0$",
            ".10000:e1:00.0$",
            "0000:00:01.0$",
            ".0000:01:00.0$",
            "..0000:01:00.1",
            "..0000:02:00.0$",
        ];
        assert_eq!(drawn(&tree), expected);
        let states: Vec<(u32, State)> = tree.groups.iter().map(|fate| (fate.group.number, fate.state)).collect();
        let expected =
            [(0, State::Bridges), (1, State::Bridges), (2, State::Native), (3, State::Ready), (4, State::Free)];
        assert_eq!(states, expected);
        assert_eq!(tree.groups[3].ports, [address("0000:00:01.0")]);
        assert_eq!(tree.with_ways([tree.row(address("0000:02:00.0")).unwrap()]).len(), 3);
    }

    #[test]
    fn who_hangs_from_each_other_has_a_line_all_the_same() {
        let devices = [format!("0000:01:00.0 {PORT} 1 - -"), format!("0000:02:00.0 {PORT} 1 - 0000:02:00.0")]
            .map(|line| device(&line));
        let functions =
            vec![function(&devices[0], &["0000:02:00.0"]), function(&devices[1], &["0000:01:00.0", "0000:02:00.0"])];
        assert_eq!(drawn(&Tree::new(functions, BTreeMap::new())), ["0000:01:00.0$", ".0000:02:00.0$"]);
    }

    #[test]
    fn a_group_stands_as_its_members_do() {
        type Members<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Members, bool, State, usize); 11] = [
            (&[(NIC, "vfio")], false, State::Ready, 0),
            (&[(NIC, "vfio"), (NIC, "-")], false, State::Ready, 0),
            (&[(NIC, "vfio"), (PORT, "pcieport"), (NIC, "pci-stub")], false, State::Ready, 0),
            (&[(NIC, "vfio"), (NIC, "mlx5_core"), (NIC, "nvme")], false, State::Blocked, 2),
            // A bridge on a driver of another name does what every driver may.
            (&[(NIC, "vfio"), (PORT, "shpchp")], false, State::Blocked, 1),
            (&[(NIC, "mlx5_core"), (NIC, "-")], false, State::Native, 1),
            (&[(NIC, "-"), (NIC, "pci-stub")], false, State::Free, 0),
            (&[(NIC, "vfio")], true, State::Reserved, 0),
            (&[(HOST_BRIDGE, "-"), (PORT, "pcieport")], true, State::Bridges, 0),
            (&[(NVSWITCH, "-")], false, State::Free, 0),
            (&[(HOST_BRIDGE, "vfio")], false, State::Ready, 0),
        ];
        for (members, is_direct_mapped, expected, blockers) in cases {
            let device = |(index, (modalias, driver)): (usize, &(&str, &str))| {
                device(&format!("0000:00:{index:02x}.0 {modalias} 7 {driver} -"))
            };
            let devices: Vec<Device> = members.iter().enumerate().map(device).collect();
            let functions = devices.iter().map(|device| function(device, &[])).collect();
            let group = Group { number: 7, kind: None, devices: Vec::new(), is_direct_mapped, is_no_iommu: false };
            let tree = Tree::new(functions, BTreeMap::from([(7, group)]));
            let fate = &tree.groups[0];
            assert_eq!((fate.state, fate.blockers.len()), (expected, blockers), "{members:?}");
            assert_eq!(fate.is_viable(), blockers == 0 && !is_direct_mapped, "{members:?}");
        }
        let device = device(&format!("0000:00:01.0 {NIC} 7 vfio -"));
        let group = Group { number: 7, kind: None, devices: Vec::new(), is_direct_mapped: false, is_no_iommu: true };
        let tree = Tree::new(vec![function(&device, &[])], BTreeMap::from([(7, group)]));
        assert_eq!((tree.groups[0].state, tree.groups[0].is_viable()), (State::NoIommu, false));
    }

    #[test]
    fn a_groups_ports_lead_to_all_of_it_and_are_outside() {
        let devices = [
            format!("0000:01:00.0 {PORT} 7 pcieport -"),
            format!("0000:02:00.0 {NIC} 7 - -"),
            format!("0000:03:00.0 {NIC} 7 - -"),
        ]
        .map(|line| device(&line));
        let way = ["0000:00:1c.0", "0000:01:00.0", "0000:02:01.0"];
        let functions =
            vec![function(&devices[0], &way[..1]), function(&devices[1], &way[..2]), function(&devices[2], &way)];
        assert_eq!(Tree::new(functions, BTreeMap::new()).groups[0].ports, [address(way[0])]);
    }
}
