// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl groups`: IOMMU groups, as a tree.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::NamedTempFile;

use super::context::{Context, distinct};
use crate::cli::{Groups, GroupsFormat};
use crate::environment;
use crate::gather;
use crate::names::Database;
use crate::process::{self, RunError};
use crate::report::{self, GroupsView, Output};

/// How large a picture may be: one of a thousand functions has 2 MiB.
const PICTURE: usize = 1 << 26;

/// Shows them, or draws them.
pub fn run(context: &Context, options: &Groups) -> Result<u8> {
    let is_json = context.output.is_json || options.format == GroupsFormat::Json;
    let output = Output { is_json, ..context.output };
    let devices = context.list()?;
    let (tree, unread) = gather::tree(&context.host, &devices)?;
    unread.iter().for_each(|error| output.warn(&format!("{error}; what it would say of its group is not known")));
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
    let names = devices.iter().map(|device| (device.modalias.as_str(), database.device(&device.modalias))).collect();
    let wanted = Some(wanted.as_slice()).filter(|wanted| !wanted.is_empty());
    let view = GroupsView::new(&tree, wanted, names);
    match options.format {
        GroupsFormat::Text | GroupsFormat::Json => report::groups(output, &view)?,
        GroupsFormat::Dot => report::drawing(output, &report::graph(&view))?,
        GroupsFormat::Svg => report::drawing(output, &picture(&report::graph(&view), context.timeout)?)?,
    }
    Ok(0)
}

/// Has Graphviz draw a graph.
fn picture(graph: &str, timeout: Duration) -> Result<String> {
    // From a file: a program that reads nothing could keep us from writing for ever.
    let mut file = NamedTempFile::new().context("cannot write the graph to a temporary file")?;
    file.write_all(graph.as_bytes()).context("cannot write the graph to a temporary file")?;
    let mut command = environment::command(OsStr::new("dot"));
    let answer = match process::ask(command.arg("-Tsvg").arg(file.path()), &[], timeout, PICTURE) {
        Ok(answer) => answer,
        Err(RunError::Start { source, .. }) if source.kind() == ErrorKind::NotFound => bail!(
            "Graphviz is not installed: apt install graphviz, or dnf install graphviz; or take --format dot, and draw it elsewhere"
        ),
        Err(error) => bail!("{error}; --timeout gives it longer, and --format dot can be drawn elsewhere"),
    };
    if !answer.status.success() {
        bail!("Graphviz could not draw it (dot: {}): {}", answer.status, answer.stderr);
    }
    if answer.stdout.is_cut {
        bail!("the picture is larger than {} MiB: ask for some of the devices, or take --format dot", PICTURE >> 20);
    }
    String::from_utf8(answer.stdout.bytes).context("Graphviz has drawn something that is no text")
}
