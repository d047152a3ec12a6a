// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl snapshot`: what this program reads of a host, as a host of its own.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Result;

use super::context::Context;
use crate::cli;
use crate::outcome::{Failure, Kind};
use crate::report::{self, SnapshotView, Unread};
use crate::snapshot::{self, Form, Snapshot, WriteError};

/// How long all overrides together are waited for that are not read at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes one and writes it.
pub fn run(context: &Context, options: &cli::Snapshot) -> Result<u8> {
    let path = &options.path;
    if let Err(error) = snapshot::refuse_existing(path) {
        return context.refuse("snapshot", &failure(error));
    }
    // Says what is odd about the tables here, of which a snapshot keeps the sound part.
    if let Err(error) = context.chooser() {
        context.output.warn(&error.to_string());
    }
    let snapshot = snapshot::take(&context.host, context.timeout.min(PATIENCE))?;
    context.take_signals();
    let bytes = match context.is_dry_run {
        true => snapshot.tree.bytes() as u64,
        false => match snapshot::write(&snapshot.tree, path) {
            Ok(bytes) => bytes,
            Err(error) => return context.refuse("snapshot", &failure(error)),
        },
    };
    let view = SnapshotView {
        path: path.clone(),
        is_archive: Form::of(path) == Form::Archive,
        is_written: !context.is_dry_run,
        devices: snapshot.devices,
        files: snapshot.tree.files(),
        bytes,
        masked: snapshot.masked.clone(),
        unread: unread(&snapshot),
        left_out: snapshot.remarks.clone(),
    };
    report::snapshot(context.output, &view)?;
    Ok(snapshot.unread.values().map(|error| status(error.kind())).max().unwrap_or(0))
}

fn unread(snapshot: &Snapshot) -> Vec<Unread> {
    let unread = snapshot.unread.iter();
    unread.map(|(path, error)| Unread { path: path.clone(), reason: error.to_string() }).collect()
}

/// What it says that something could not be read.
fn status(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::PermissionDenied => Kind::Permission.exit_status(),
        ErrorKind::TimedOut => Kind::Timeout.exit_status(),
        _ => Kind::Failed.exit_status(),
    }
}

fn failure(error: WriteError) -> Failure {
    let message = error.to_string();
    match error {
        WriteError::Exists(_) => {
            Failure::new(Kind::Unsafe, message, "name one that is not there yet: nothing is overwritten")
        }
        WriteError::Interrupted => Failure::plain(Kind::Interrupted, message),
        WriteError::Write { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            Failure::plain(Kind::Permission, message)
        }
        WriteError::Write { .. } => Failure::plain(Kind::Failed, message),
    }
}
