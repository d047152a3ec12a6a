// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's command line, as the kernel takes it apart.

use crate::file;
use crate::host::Host;

/// The parameters, in order; later ones win, as far as the kernel has it so.
#[derive(Clone, Default, Debug)]
pub struct CommandLine {
    words: Vec<String>,
}

impl CommandLine {
    /// Reads that of the kernel that runs.
    pub fn read(host: &Host) -> CommandLine {
        // Bytes that are no text, in a path or a label, cost no other parameter.
        let bytes = file::read(&host.kernel_command_line(), file::ATTRIBUTE).unwrap_or_default();
        CommandLine::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Takes a line apart. Quotes keep spaces together; what follows `--` is for init (`kernel/params.c`, `parse_args`).
    pub fn parse(text: &str) -> CommandLine {
        let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
        for c in text.trim().chars().chain([' ']) {
            match c {
                '"' => is_quoted = !is_quoted,
                c if c.is_ascii_whitespace() && !is_quoted => {
                    if word == "--" {
                        break;
                    }
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                }
                c => word.push(c),
            }
        }
        CommandLine { words }
    }

    /// The parameters of a name, each with its value; to the kernel '-' and '_' are the same in names (`parameq`).
    pub fn named<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = (&'a str, &'a str)> {
        self.words.iter().filter_map(move |word| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (key.replace('-', "_") == name).then_some((word.as_str(), value))
        })
    }

    /// The parameter that has this among its values, which commas part.
    pub fn with_value<'a>(&'a self, name: &'a str, wanted: &str) -> Option<&'a str> {
        let mut named = self.named(name);
        named.find(|(_, value)| value.split(',').any(|item| item == wanted)).map(|(word, _)| word)
    }

    /// The last of `on` and `off` among the values of a parameter, and the parameter.
    pub fn switch<'a>(&'a self, name: &'a str) -> Option<(&'a str, bool)> {
        let mut last = None;
        for (word, value) in self.named(name) {
            for item in value.split(',') {
                match item {
                    "on" => last = Some((word, true)),
                    "off" => last = Some((word, false)),
                    _ => {}
                }
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_as_the_kernel_reads_them() {
        let line =
            CommandLine::parse("root=/dev/sda1 vfio-pci.ids=10de:1234 dyndbg=\"file a +p\" -- vfio_pci.ids=none\n");
        assert_eq!(line.named("vfio_pci.ids").collect::<Vec<_>>(), [("vfio-pci.ids=10de:1234", "10de:1234")]);
        assert_eq!(line.named("dyndbg").next(), Some(("dyndbg=file a +p", "file a +p")));
        assert_eq!(line.named("root").count(), 1);
    }

    #[test]
    fn the_last_switch_counts() {
        for (text, expected) in [
            ("quiet", None),
            ("intel_iommu=on", Some(true)),
            ("intel_iommu=on,sm_on", Some(true)),
            ("intel_iommu=on intel_iommu=off", Some(false)),
            ("intel_iommu=igfx_off", None),
        ] {
            assert_eq!(CommandLine::parse(text).switch("intel_iommu").map(|(_, on)| on), expected, "{text}");
        }
        assert_eq!(CommandLine::parse("iommu=pt,off").with_value("iommu", "off"), Some("iommu=pt,off"));
        assert_eq!(CommandLine::parse("iommu=pt").with_value("iommu", "off"), None);
    }
}
