// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changes while one watches: a line a change.

use std::io;

use serde::Serialize;

use super::{BAD, BOLD, DeviceView, GOOD, Output, printable, styled};
use crate::address::Address;
use crate::catalog::Catalog;
use crate::changes::{Change, Kind};
use crate::class;
use crate::kernel_name::DriverName;

/// A change as it is written.
#[derive(Serialize)]
struct Event<'a> {
    change: Kind,
    address: Address,
    previous_driver: Option<&'a DriverName>,
    previous_iommu_group: Option<u32>,
    device: Option<DeviceView<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    event: Event<'a>,
}

/// Prints a change as a JSON document on a line.
pub fn change_as_json(output: Output, change: &Change<'_>, device: Option<DeviceView<'_>>) -> io::Result<()> {
    let event = Event {
        change: change.kind,
        address: change.address,
        previous_driver: change.before.and_then(|device| device.driver.as_ref()),
        previous_iommu_group: change.before.and_then(|device| device.iommu_group),
        device,
    };
    output.print_json_line("list", Document { event })
}

/// Prints a change.
pub fn change(output: Output, change: &Change<'_>, name: Option<&str>) -> io::Result<()> {
    output.print(&text(change, name))
}

fn text(change: &Change<'_>, name: Option<&str>) -> String {
    let address = styled(BOLD, &change.address.to_string());
    let line = |word: &str, rest: String| format!("{address}  {word:<8}  {rest}\n");
    let moved = || match (change.before, change.after) {
        (Some(before), Some(after)) => {
            format!("{} -> {}", driver(before.driver.as_ref()), driver(after.driver.as_ref()))
        }
        _ => String::new(),
    };
    match (change.kind, change.before, change.after) {
        (Kind::Added, _, Some(device)) => {
            let class = device.modalias.class();
            let ids = || format!("{}:{}", device.modalias.vendor(), device.modalias.device());
            let (class, name) = (class::name(&class), name.map_or_else(ids, printable));
            let driver = driver(device.driver.as_ref());
            line(&styled_word(GOOD, "added"), format!("{driver}, group {}, {class}: {name}", group(device.iommu_group)))
        }
        (Kind::Removed, Some(device), _) => line(&styled_word(BAD, "removed"), driver(device.driver.as_ref())),
        (Kind::Listed, ..) => line("listed", moved()),
        (Kind::Unlisted, ..) => line("unlisted", moved()),
        (_, Some(before), Some(after)) => {
            let mut text = String::new();
            if before.driver != after.driver {
                text.push_str(&line("driver", moved()));
            }
            if before.iommu_group != after.iommu_group {
                let groups = [before, after].map(|device| group(device.iommu_group));
                text.push_str(&line("group", groups.join(" -> ")));
            }
            text
        }
        (Kind::Added | Kind::Removed | Kind::Changed, ..) => String::new(),
    }
}

/// A word as wide as the column, whatever its style.
fn styled_word(style: anstyle::Style, word: &str) -> String {
    styled(style, &format!("{word:<8}"))
}

fn driver(driver: Option<&DriverName>) -> String {
    let name = driver.map_or("-", DriverName::as_str);
    match Catalog::bundled().by_driver(name) {
        Some(_) => styled(GOOD, name),
        None => name.to_string(),
    }
}

fn group(group: Option<u32>) -> String {
    group.map_or("-".to_string(), |number| number.to_string())
}
