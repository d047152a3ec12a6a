// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text of foreign origin, made fit to be looked at. A device, a kernel module, a process, a mount point or a domain may be
//! called anything: what would steer a terminal, turn the order of words around or hide is shown as U+FFFD.

/// One line of text: what does not show, or shows elsewhere, is replaced, line breaks as well.
pub fn printable(text: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_string();
    }
    text.chars().map(|c| if is_plain(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The same of several lines: each after the first is indented, so that none can pass for one of ours.
pub fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.trim_end_matches('\n').split('\n').map(printable).collect();
    lines.join("\n  ")
}

/// Is a character what it looks like? Those that are not: controls (Unicode's category Cc, C1 among them, which some
/// terminals obey), formats (Cf: zero widths, marks and overrides of direction, tags), and separators of lines (Zl, Zp).
pub fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_or_hides_is_replaced() {
        for (text, expected) in [
            ("Mellanox ConnectX®-7 «Ünïcode» 日本", "Mellanox ConnectX®-7 «Ünïcode» 日本"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\u{fffd}[2J\u{fffd}]0;title\u{fffd}"),
            ("a\r\nb\tc\u{7f}", "a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}"),
            ("\u{9b}31m\u{85}", "\u{fffd}31m\u{fffd}"),
            ("vfio\u{200b}-pci\u{202e}icp\u{2066}\u{2069}", "vfio\u{fffd}-pci\u{fffd}icp\u{fffd}\u{fffd}"),
            ("\u{feff}x\u{2028}y\u{e0041}", "\u{fffd}x\u{fffd}y\u{fffd}"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn no_line_begins_like_one_of_ours() {
        assert_eq!(printable_lines("a\nvfioctl: b\r\n"), "a\n  vfioctl: b\u{fffd}");
        assert_eq!(printable_lines("a"), "a");
        assert_eq!(printable_lines(""), "");
    }
}
