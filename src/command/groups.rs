// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl groups`: IOMMU groups, as a tree.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;

use super::context::{Context, distinct};
use crate::cli::{Groups, GroupsFormat};
use crate::gather;
use crate::names::Database;
use crate::report::{self, GroupsView, Output};

/// Shows them, or draws them.
pub fn run(context: &Context, options: &Groups) -> Result<u8> {
    let is_json = context.output.is_json || options.format == GroupsFormat::Json;
    let output = Output { is_json, ..context.output };
    let devices = context.list()?;
    let tree = gather::tree(&context.host, &devices)?;
    let mut wanted = Vec::new();
    for address in distinct(&options.addresses) {
        match tree.row(address) {
            Some(row) => wanted.push(row),
            None => {
                let failure = context.no_device(address);
                output.refuse("groups", &failure)?;
                return Ok(failure.kind.exit_status());
            }
        }
    }
    let database = Database::open();
    let mut names: BTreeMap<&str, Option<Rc<str>>> = BTreeMap::new();
    for device in &devices {
        let name = || database.look_up(&device.modalias).device.map(Rc::from);
        names.entry(device.modalias.as_str()).or_insert_with(name);
    }
    let wanted = Some(wanted.as_slice()).filter(|wanted| !wanted.is_empty());
    let view = GroupsView::new(&tree, wanted, names);
    match options.format {
        GroupsFormat::Text | GroupsFormat::Json => report::groups(output, &view)?,
        GroupsFormat::Dot | GroupsFormat::Svg => anyhow::bail!("not written yet"),
    }
    Ok(0)
}
