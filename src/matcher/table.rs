// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `vfio_pci:` entries of the module tables: `modules.alias`, `modules.builtin.modinfo`, and modprobe.d's `alias`
//! lines. Takes what is read from them, gives entries in the order they were written.

use std::fmt;
use std::io::{self, Read, Seek};

use memchr::{memchr, memchr_iter, memmem, memrchr};
use serde::Serialize;

use super::pattern::Pattern;
use crate::kernel_name::ModuleName;

/// Where an entry was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Source {
    /// An `alias` line of a modprobe.d file.
    #[serde(rename = "modprobe.d")]
    ModprobeD,
    /// `modules.alias`, as depmod wrote it.
    #[serde(rename = "modules.alias")]
    ModulesAlias,
    /// `modules.builtin.modinfo`: a driver built into the kernel (there since 6.18).
    #[serde(rename = "modules.builtin.modinfo")]
    BuiltinModinfo,
    /// A driver registered in `/sys/bus/pci/drivers` that no table names, with its ids from the catalogue.
    #[serde(rename = "registered")]
    Registered,
    /// No `modules.alias` at all: the generic driver is taken to be there.
    #[serde(rename = "assumed")]
    Assumed,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::ModprobeD => "modprobe.d",
            Source::ModulesAlias => "modules.alias",
            Source::BuiltinModinfo => "modules.builtin.modinfo",
            Source::Registered => "registered",
            Source::Assumed => "assumed",
        })
    }
}

/// A pattern and the module it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The alias pattern.
    pub pattern: Pattern,
    /// The module.
    pub module: ModuleName,
    /// Where it stands.
    pub source: Source,
}

/// Something in a table that no device can match, or that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Oddity {
    /// The table.
    pub source: Source,
    /// Line number in `modules.alias` or a modprobe.d file, record number in `modules.builtin.modinfo`; from 1, and 0 for
    /// what has none.
    pub line: usize,
    /// The text as it stands, escaped.
    pub text: String,
    /// What is wrong with it.
    pub kind: OddityKind,
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}: {}", self.source, self.kind, self.text),
            line => write!(f, "{}:{line}: {}: {}", self.source, self.kind, self.text),
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OddityKind {
    /// `alias PATTERN` and nothing after it.
    #[error("names no module")]
    NoModule,
    /// A module's name that is none.
    #[error("the module's name is not one")]
    BadModule,
    /// kmod drops these as well.
    #[error("unbalanced bracket in the pattern")]
    UnbalancedBracket,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// Kept, since it is well formed, but it can match nothing.
    #[error("lower-case hex digits match no device: the kernel's modaliases are upper-case")]
    LowerCaseHex,
}

impl OddityKind {
    /// Was the line left out of the table?
    pub fn is_skipped(self) -> bool {
        self != OddityKind::LowerCaseHex
    }
}

/// The `vfio_pci:` entries of one kernel, from all its sources.
#[derive(Clone, Default, Debug)]
pub struct Table {
    /// Entries in order: source by source, each as written.
    pub entries: Vec<Entry>,
    /// What was odd on the way.
    pub oddities: Vec<Oddity>,
}

impl Table {
    /// Adds the entries of a `modules.alias` file.
    ///
    /// Only its few `vfio_pci:` lines are looked at; the file has tens of thousands. A `-` for the `_` is as good
    /// for kmod, so both are found.
    pub fn read_modules_alias(&mut self, mut file: impl Read + Seek) -> io::Result<()> {
        let finder = memmem::Finder::new(b"alias vfio");
        let known = self.oddities.len();
        for_whole_records(&mut file, b'\n', |bytes, offset| {
            for at in finder.find_iter(bytes) {
                if at > 0 && bytes[at - 1] != b'\n' {
                    continue;
                }
                let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |length| at + length);
                let alias = &bytes[at + b"alias ".len()..end];
                if is_vfio_pci(alias) {
                    self.add(Source::ModulesAlias, alias, offset + at);
                }
            }
        })?;
        number_records(file, b'\n', &mut self.oddities[known..])
    }

    /// Adds the entries of a `modules.builtin.modinfo` file: NUL-separated `MODULE.alias=PATTERN` records.
    pub fn read_builtin_modinfo(&mut self, mut file: impl Read + Seek) -> io::Result<()> {
        let finder = memmem::Finder::new(b".alias=vfio");
        let known = self.oddities.len();
        for_whole_records(&mut file, 0, |bytes, offset| {
            for at in finder.find_iter(bytes) {
                let start = memrchr(0, &bytes[..at]).map_or(0, |nul| nul + 1);
                // The first dot ends the module's name (libkmod/libkmod-builtin.c, get_modname); a value may have this text.
                if memchr(b'.', &bytes[start..at]).is_some() {
                    continue;
                }
                let end = memchr(0, &bytes[at..]).map_or(bytes.len(), |length| at + length);
                let pattern = &bytes[at + b".alias=".len()..end];
                if is_vfio_pci(pattern) {
                    let alias = [pattern, b" ", &bytes[start..at]].concat();
                    self.add(Source::BuiltinModinfo, &alias, offset + start);
                }
            }
        })?;
        number_records(file, 0, &mut self.oddities[known..])
    }

    /// Adds an entry of one of depmod's indexes: they have what `modules.alias` and `modules.builtin.modinfo` have, each
    /// pattern normalised, and no line numbers.
    pub fn add_indexed(&mut self, source: Source, pattern: &[u8], module: &[u8]) {
        self.add(source, &[pattern, b" ", module].concat(), 0);
    }

    /// Adds what an `alias` line of modprobe.d says, if it is about VFIO: `words` has the pattern and the module. What
    /// follows those is nothing to kmod.
    pub fn read_modprobe_alias<'a>(&mut self, words: impl Iterator<Item = &'a str>, line: usize) {
        let alias = words.take(2).collect::<Vec<_>>().join(" ");
        if is_vfio_pci(alias.as_bytes()) {
            self.add(Source::ModprobeD, alias.as_bytes(), line);
        }
    }

    /// Adds a driver that is registered in the kernel, whose ids no table tells.
    pub fn add_registered(&mut self, module: &str, pattern: &str) {
        self.add(Source::Registered, format!("{pattern} {module}").as_bytes(), 0);
    }

    /// Adds the generic driver's own alias, for a host whose tables cannot be read.
    pub fn add_assumed_generic(&mut self) {
        self.add(Source::Assumed, b"vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci", 0);
    }

    /// Does an entry name this module?
    pub fn names(&self, module: &str) -> bool {
        self.entries.iter().any(|entry| entry.module.as_str() == module)
    }

    /// `alias` is what stands after the word: pattern, space, module. A pattern may have spaces, so the module is what
    /// comes after the last one.
    fn add(&mut self, source: Source, alias: &[u8], line: usize) {
        let mut odd = |kind| {
            let text = alias.escape_ascii().to_string();
            self.oddities.push(Oddity { source, line, text, kind });
        };
        let Ok(text) = std::str::from_utf8(alias) else {
            return odd(OddityKind::Encoding);
        };
        // What else may be white is part of a word to kmod.
        let blanks = [' ', '\t'];
        let Some((pattern, module)) = text.trim_end_matches(blanks).rsplit_once(blanks) else {
            return odd(OddityKind::NoModule);
        };
        let Ok(module) = module.parse() else {
            return odd(OddityKind::BadModule);
        };
        let Ok(pattern) = Pattern::new(pattern.trim_end_matches(blanks)) else {
            return odd(OddityKind::UnbalancedBracket);
        };
        if pattern.has_lower_case_hex() {
            odd(OddityKind::LowerCaseHex);
        }
        self.entries.push(Entry { pattern, module, source });
    }
}

/// Hands over a file piece by piece, cut only behind a separator, with each piece's offset. A piece fits the processor's
/// cache; to map or hold the whole file costs a page fault for every 4 KiB of it, which is most of what a look-up takes.
fn for_whole_records(mut file: impl Read, separator: u8, mut visit: impl FnMut(&[u8], usize)) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    let (mut filled, mut offset) = (0, 0);
    loop {
        let count = match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += count;
        if let Some(last) = memrchr(separator, &buffer[..filled]) {
            visit(&buffer[..=last], offset);
            buffer.copy_within(last + 1..filled, 0);
            filled -= last + 1;
            offset += last + 1;
        }
        if filled == buffer.len() {
            // A record longer than the buffer.
            buffer.resize(2 * filled, 0);
        }
    }
    visit(&buffer[..filled], offset);
    Ok(())
}

/// Turns offsets of oddities into record numbers, from 1: a second look at the file, which only an odd one needs.
fn number_records(mut file: impl Read + Seek, separator: u8, oddities: &mut [Oddity]) -> io::Result<()> {
    if oddities.is_empty() {
        return Ok(());
    }
    file.rewind()?;
    let mut before = 1;
    let mut rest = oddities.iter_mut().peekable();
    for_whole_records(file, separator, |bytes, offset| {
        while let Some(oddity) = rest.next_if(|oddity| oddity.line < offset + bytes.len()) {
            oddity.line = before + memchr_iter(separator, &bytes[..oddity.line - offset]).count();
        }
        before += memchr_iter(separator, bytes).count();
    })
}

fn is_vfio_pci(alias: &[u8]) -> bool {
    alias.starts_with(b"vfio_pci:") || alias.starts_with(b"vfio-pci:")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Table {
        let mut table = Table::default();
        table.read_modules_alias(Cursor::new(text)).unwrap();
        table
    }

    fn pairs(table: &Table) -> Vec<(&str, &str)> {
        table.entries.iter().map(|e| (e.pattern.as_str(), e.module.as_str())).collect()
    }

    #[test]
    fn only_vfio_lines_in_order() {
        let table = read(
            "# Aliases extracted from modules themselves.\n\
             alias pci:v*d*sv*sd*bc03sc*i* gpu\n\
             alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n\
             alias my alias vfio_pci:v1 decoy\n\
             alias vfio_platform:x vfio_platform\n\
             alias vfio-pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5-vfio-pci\n",
        );
        assert_eq!(
            pairs(&table),
            [
                ("vfio_pci:v*d*sv*sd*bc*sc*i*", "vfio_pci"),
                ("vfio-pci:v000015B3d0000101Esv*sd*bc*sc*i*", "mlx5_vfio_pci"),
            ]
        );
        assert!(table.oddities.is_empty());
    }

    #[test]
    fn the_first_line_counts_and_the_last_needs_no_newline() {
        assert_eq!(
            pairs(&read("alias vfio_pci:v* a\nalias vfio_pci:v1* b")),
            [("vfio_pci:v*", "a"), ("vfio_pci:v1*", "b")]
        );
    }

    #[test]
    fn what_only_looks_blank_is_part_of_a_name() {
        let table = read("alias vfio_pci:v* card \t\nalias vfio_pci:v1* card\u{b}\n");
        assert_eq!(pairs(&table), [("vfio_pci:v*", "card")]);
        assert_eq!(table.oddities[0].kind, OddityKind::BadModule);
    }

    #[test]
    fn a_pattern_may_have_spaces() {
        assert_eq!(pairs(&read("alias vfio_pci:some card* card\n")), [("vfio_pci:some card*", "card")]);
    }

    #[test]
    fn malformed_lines_are_skipped_and_counted() {
        let table = read("alias vfio_pci:v*\nalias vfio_pci:v[ a\n\nalias vfio_pci:v* ok\n");
        assert_eq!(pairs(&table), [("vfio_pci:v*", "ok")]);
        let odd: Vec<(usize, OddityKind)> = table.oddities.iter().map(|o| (o.line, o.kind)).collect();
        assert_eq!(odd, [(1, OddityKind::NoModule), (2, OddityKind::UnbalancedBracket)]);
        assert!(table.oddities.iter().all(|o| o.kind.is_skipped()));
    }

    #[test]
    fn bytes_that_are_not_text() {
        let mut table = Table::default();
        table.read_modules_alias(Cursor::new(b"alias vfio_pci:\xff\xfe a\n")).unwrap();
        assert_eq!(table.oddities[0].kind, OddityKind::Encoding);
        assert_eq!(table.oddities[0].text, "vfio_pci:\\xff\\xfe a");
    }

    #[test]
    fn lower_case_hex_is_kept_but_said() {
        let table = read("alias vfio_pci:v000015b3d0000101esv*sd*bc*sc*i* mlx5_vfio_pci\n");
        assert_eq!(table.entries.len(), 1);
        assert_eq!(table.oddities[0].kind, OddityKind::LowerCaseHex);
    }

    #[test]
    fn builtin_modinfo_records() {
        let mut table = Table::default();
        let modinfo: &[u8] = b"vfio_pci.license=GPL v2\0vfio_pci.alias=vfio_pci:v*d*sv*sd*bc*sc*i*\0\
              8250.alias=pnp:d\0mlx5-vfio-pci.alias=vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*\0";
        table.read_builtin_modinfo(Cursor::new(modinfo)).unwrap();
        assert_eq!(
            pairs(&table),
            [
                ("vfio_pci:v*d*sv*sd*bc*sc*i*", "vfio_pci"),
                ("vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*", "mlx5_vfio_pci"),
            ]
        );
        assert!(table.entries.iter().all(|entry| entry.source == Source::BuiltinModinfo));
    }

    #[test]
    fn a_value_of_modinfo_is_not_taken_for_a_key() {
        let mut table = Table::default();
        let modinfo: &[u8] = b"a.alias=vfio_pci:v1.alias=vfio_pci:v2*\0b.description=c.alias=vfio_pci:v3\0";
        table.read_builtin_modinfo(Cursor::new(modinfo)).unwrap();
        assert_eq!(pairs(&table), [("vfio_pci:v1.alias=vfio_pci:v2*", "a")]);
    }

    #[test]
    fn a_table_of_more_than_8_mib() {
        let mut text = "alias pci:v00008086d00001234sv*sd*bc*sc*i* some_native_driver\n".repeat(160_000);
        assert!(text.len() > 8 << 20);
        text.push_str("alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n");
        assert_eq!(pairs(&read(&text)), [("vfio_pci:v*d*sv*sd*bc*sc*i*", "vfio_pci")]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut table = Table::default();
            for bytes in [bytes.clone(), [b"alias vfio_pci:", bytes.as_slice()].concat()] {
                table.read_modules_alias(Cursor::new(bytes)).unwrap();
            }
            for bytes in [bytes.clone(), [b"m.alias=vfio_pci:", bytes.as_slice()].concat()] {
                table.read_builtin_modinfo(Cursor::new(bytes)).unwrap();
            }
        }

        /// However the file comes in pieces, and wherever a long line stands, the same is read.
        #[test]
        fn pieces_make_no_difference(lengths in prop::collection::vec(0..100_000_usize, 1..6), piece in 1..70_000_usize) {
            let mut text = String::new();
            for length in lengths {
                text.push_str("alias pci:");
                text.push_str(&"x".repeat(length));
                text.push_str(" native\nalias vfio_pci:v1* a\nalias vfio_pci:v[ b\n");
            }
            let whole = read(&text);
            let mut table = Table::default();
            table.read_modules_alias(Pieces { file: Cursor::new(text.as_bytes()), piece }).unwrap();
            prop_assert_eq!(table.entries, whole.entries);
            prop_assert_eq!(&table.oddities, &whole.oddities);
            let lines: Vec<usize> = (1..).zip(text.lines()).filter(|(_, l)| l.ends_with(" b")).map(|(n, _)| n).collect();
            prop_assert_eq!(table.oddities.iter().map(|o| o.line).collect::<Vec<_>>(), lines);
        }
    }

    struct Pieces<'a> {
        file: Cursor<&'a [u8]>,
        piece: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.piece.min(buffer.len());
            self.file.read(&mut buffer[..count])
        }
    }

    impl Seek for Pieces<'_> {
        fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }
}
