// SPDX-License-Identifier: MIT OR Apache-2.0
//! mkinitcpio.conf(5): where our hook stands in `HOOKS`. It is a script of bash, of which assignments are understood.

/// Where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nowhere.
    Missing,
    /// Behind `udev`, which has drivers loaded.
    Late,
    /// Where it runs before any driver is loaded; with `systemd` that is anywhere.
    Early,
}

/// Where ours stands; `configuration` is the file and those beside it, in the order in which they are read.
pub fn place(configuration: &str) -> Place {
    let hooks = hooks(configuration);
    match hooks.iter().find(|hook| ["vfioctl", "udev"].contains(&hook.as_str())).map(String::as_str) {
        Some("vfioctl") => Place::Early,
        Some(_) if hooks.iter().any(|hook| hook == "vfioctl") => Place::Late,
        _ => Place::Missing,
    }
}

/// The words of `HOOKS=(…)`, which may be over several lines, and of each `HOOKS+=(…)`; a string is one as well.
fn hooks(configuration: &str) -> Vec<String> {
    let mut hooks = Vec::new();
    let mut lines = configuration.lines().map(without_comment);
    while let Some(line) = lines.next() {
        let Some(assigned) = line.trim_start().strip_prefix("HOOKS") else { continue };
        let (value, is_more) = match (assigned.strip_prefix("+="), assigned.strip_prefix('=')) {
            (Some(value), _) => (value, true),
            (None, Some(value)) => (value, false),
            (None, None) => continue,
        };
        let end = match value.chars().next() {
            Some('(') => Some(')'),
            quote @ Some('"' | '\'') => quote,
            _ => None,
        };
        let mut value = value.trim_start_matches(['(', '"', '\'']).to_string();
        if let Some(end) = end {
            while !value.contains(end) {
                let Some(next) = lines.next() else { break };
                value.push(' ');
                value.push_str(next);
            }
            value.truncate(value.find(end).unwrap_or(value.len()));
        }
        if !is_more {
            hooks.clear();
        }
        let words = value.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_string());
        hooks.extend(words.filter(|word| word != "\\"));
    }
    hooks
}

/// `#` begins one where a word could begin.
fn without_comment(line: &str) -> &str {
    let is_comment = |at: &usize| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let at = line.match_indices('#').map(|(at, _)| at).find(is_comment);
    &line[..at.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_ours_stands() {
        use Place::{Early, Late, Missing};
        for (configuration, expected) in [
            ("", Missing),
            ("HOOKS=(base vfioctl udev autodetect)", Early),
            ("HOOKS=\"base vfioctl udev\"", Early),
            ("HOOKS=('base' \"vfioctl\" udev)", Early),
            ("HOOKS=(base udev vfioctl autodetect)", Late),
            ("HOOKS=(base systemd autodetect vfioctl)", Early),
            ("HOOKS=(base udev vfioctl-other)", Missing),
            ("HOOKS=(base \\\n  vfioctl  # early\n  udev\n  block)\nFILES=()", Early),
            ("  HOOKS=(base udev\n  autodetect\n  vfioctl)", Late),
            ("HOOKS=(base systemd)\nHOOKS+=(vfioctl)", Early),
            ("HOOKS=(base udev)\nHOOKS+=(vfioctl)", Late),
            // The last counts; what is a comment does not, nor another variable.
            ("HOOKS=(base vfioctl udev)\nHOOKS=(base udev)", Missing),
            ("#HOOKS=(base vfioctl udev)\n# HOOKS=(vfioctl)", Missing),
            ("HOOKS=(base # vfioctl\n udev)", Missing),
            ("BINARIES=(vfioctl)\nHOOKS_X=(vfioctl)\nHOOKS=(base)", Missing),
            ("HOOKS=(base vfioctl", Early),
        ] {
            assert_eq!(place(configuration), expected, "{configuration}");
        }
    }
}
