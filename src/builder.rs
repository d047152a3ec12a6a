// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who makes a host's initramfs, and what of ours it takes into it.

use std::path::PathBuf;

use crate::host::Host;

/// Who makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Builder {
    /// dracut(8).
    Dracut,
    /// initramfs-tools(7).
    InitramfsTools,
    /// mkinitcpio(8).
    Mkinitcpio,
}

impl Builder {
    /// All that are known.
    pub const ALL: [Builder; 3] = [Builder::Dracut, Builder::InitramfsTools, Builder::Mkinitcpio];

    /// The program that makes the image.
    pub fn program(self) -> &'static str {
        match self {
            Builder::Dracut => "dracut",
            Builder::InitramfsTools => "mkinitramfs",
            Builder::Mkinitcpio => "mkinitcpio",
        }
    }

    /// What makes it anew: for this release, or for all there are, of which one is started next.
    pub fn command(self, release: Option<&str>) -> String {
        match (self, release) {
            (Builder::Dracut, Some(release)) => format!("dracut --force --kver {release}"),
            (Builder::Dracut, None) => "dracut --force --regenerate-all".to_string(),
            (Builder::InitramfsTools, release) => format!("update-initramfs -u -k {}", release.unwrap_or("all")),
            // It knows images by presets, not by releases.
            (Builder::Mkinitcpio, _) => "mkinitcpio -P".to_string(),
        }
    }

    /// What of our Makefile installs our hook for it.
    pub fn target(self) -> &'static str {
        match self {
            Builder::Dracut => "install-dracut",
            Builder::InitramfsTools => "install-initramfs-tools",
            Builder::Mkinitcpio => "install-mkinitcpio",
        }
    }

    /// Our hook for it, where that is installed.
    pub fn hook(self, host: &Host) -> Option<PathBuf> {
        let places = match self {
            Builder::Dracut => host.dracut_hooks(),
            Builder::InitramfsTools => host.initramfs_tools_hooks(),
            Builder::Mkinitcpio => host.mkinitcpio_hooks(),
        };
        places.into_iter().find(|path| path.exists())
    }
}
