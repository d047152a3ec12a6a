// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device said it can do.

use std::io;

use serde::Serialize;

use super::{BOLD, GOOD, Output, printable, styled};
use crate::address::Address;
use crate::kernel_name::DriverName;
use crate::sysfs::Device;
use crate::vfio::features::Features;
use crate::vfio::open::{Interface, Way};

/// What was asked, and the answers.
#[derive(Serialize, Debug)]
pub struct ProbeView {
    address: Address,
    driver: Option<DriverName>,
    /// Through what it was, or with `--dry-run` would be, opened.
    interface: Interface,
    nodes: Vec<String>,
    /// Did it take its PF's token to open it?
    vf_token_required: bool,
    /// `None` with `--dry-run`.
    #[serde(flatten)]
    features: Option<Features>,
}

impl ProbeView {
    /// For a device and how it was opened. The kernel takes a token only where one is required.
    pub fn new(device: &Device, way: &Way, features: Option<Features>) -> ProbeView {
        ProbeView {
            address: device.address,
            driver: device.driver.clone(),
            interface: way.interface,
            nodes: way.nodes().map(|path| path.display().to_string()).to_vec(),
            vf_token_required: way.token.is_some(),
            features,
        }
    }
}

/// Shows it.
pub fn probe(output: Output, view: &ProbeView) -> io::Result<()> {
    if output.is_json {
        return output.print_json("probe", view);
    }
    let address = view.address;
    let nodes = view.nodes.join(" and ");
    let Some(features) = &view.features else {
        return output.print(&format!("{address}: would open {nodes}, which resets it, ask, and let go\n"));
    };
    let driver = view.driver.as_ref().map_or("no driver", DriverName::as_str);
    let mut text = format!("{BOLD}{address}{BOLD:#}  on {}, asked through {nodes}\n", printable(driver));
    for (name, value) in rows(view.vf_token_required, features) {
        text.push_str(&format!("  {name:<15} {value}\n"));
    }
    output.print(&text)
}

fn rows(vf_token_required: bool, features: &Features) -> Vec<(&'static str, String)> {
    let yes = |text: &str| styled(GOOD, text);
    let whether = |is: bool| if is { yes("yes") } else { "no".to_string() };
    let low_power = match (features.low_power, features.low_power_wakeup) {
        (true, true) => yes("yes, and wakes up by itself"),
        (is, _) => whether(is),
    };
    let token = match (vf_token_required, features.keeps_vf_token) {
        (true, _) => "its PF's is needed",
        (false, true) => "none needed; it keeps one for its VFs",
        (false, false) => "none needed",
    };
    vec![
        (
            "migration",
            match features.migration.is_empty() {
                true => "no".to_string(),
                false => yes(&features.migration.join(", ")),
            },
        ),
        ("dirty tracking", whether(features.dirty_tracking)),
        ("low power", low_power),
        ("DMA-BUF", whether(features.dma_buf)),
        ("VF token", token.to_string()),
        ("reset", whether(features.reset)),
        ("regions", features.regions.to_string()),
        ("interrupts", features.interrupts.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_in_words() {
        let nothing = Features {
            migration: Vec::new(),
            dirty_tracking: false,
            low_power: false,
            low_power_wakeup: false,
            dma_buf: false,
            keeps_vf_token: false,
            reset: false,
            regions: 9,
            interrupts: 5,
            errors: Vec::new(),
        };
        let all = Features {
            migration: vec!["stop_copy".to_string(), "p2p".to_string()],
            dirty_tracking: true,
            low_power: true,
            low_power_wakeup: true,
            keeps_vf_token: true,
            ..nothing.clone()
        };
        for (features, vf_token_required, expected) in [
            (&nothing, false, ["no", "no", "no", "no", "none needed", "no", "9", "5"]),
            (&nothing, true, ["no", "no", "no", "no", "its PF's is needed", "no", "9", "5"]),
            (
                &all,
                false,
                [
                    "stop_copy, p2p",
                    "yes",
                    "yes, and wakes up by itself",
                    "no",
                    "none needed; it keeps one for its VFs",
                    "no",
                    "9",
                    "5",
                ],
            ),
        ] {
            let values = rows(vf_token_required, features).into_iter().map(|(_, value)| value);
            let plain: Vec<String> = values.map(|value| anstream::adapter::strip_str(&value).to_string()).collect();
            assert_eq!(plain, expected);
        }
    }
}
