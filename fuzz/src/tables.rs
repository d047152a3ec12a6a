// SPDX-License-Identifier: MIT OR Apache-2.0
//! Alias tables: which lines are kept, and what is said of the others.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use vfioctl::kernel_name::ModuleName;
use vfioctl::matcher::{OddityKind, Pattern, Table};

/// `modules.alias`.
pub fn alias_table(data: &[u8]) {
    check(
        data,
        b'\n',
        |table, file| table.read_modules_alias(file),
        |line| line.strip_prefix(b"alias ").map(<[u8]>::to_vec),
    );
}

/// `modules.builtin.modinfo`.
pub fn modinfo(data: &[u8]) {
    // MODULE.KEY=VALUE, and a module's name has no dot.
    let alias = |record: &[u8]| {
        let dot = record.iter().position(|byte| *byte == b'.')?;
        let pattern = record[dot..].strip_prefix(b".alias=")?;
        Some([pattern, b" ", &record[..dot]].concat())
    };
    check(data, 0, |table, file| table.read_builtin_modinfo(file), alias);
}

/// What a record is to give: an entry, and what is odd about it.
type Reading = (Option<(String, ModuleName)>, Option<OddityKind>);

/// Of bytes that begin with 0xfe the next three say in which pieces the file is read, and how much stands before it: the
/// reader's buffer has 32 KiB, and a record may lie across its end.
fn check(
    data: &[u8],
    separator: u8,
    read: impl Fn(&mut Table, Pieces) -> io::Result<()>,
    alias: impl Fn(&[u8]) -> Option<Vec<u8>>,
) {
    let (bytes, piece) = match data {
        [0xfe, piece, high, low, rest @ ..] => {
            let mut bytes = vec![b'#'; (usize::from(*high) << 8) | usize::from(*low)];
            bytes.push(separator);
            bytes.extend(rest);
            (bytes, 1 + usize::from(*piece) * 200)
        }
        data => (data.to_vec(), usize::MAX),
    };
    let records: Vec<&[u8]> = bytes.split(|byte| *byte == separator).collect();
    let expected = (1..).zip(&records).filter_map(|(number, record)| Some((number, plain(&alias(record)?)?)));
    let (mut entries, mut oddities) = (Vec::new(), Vec::new());
    for (number, (entry, oddity)) in expected {
        entries.extend(entry);
        oddities.extend(oddity.map(|kind| (number, kind)));
    }

    let mut table = Table::default();
    super::in_time(|| read(&mut table, Pieces { file: Cursor::new(bytes.clone()), piece })).expect("in memory");
    let found: Vec<(String, ModuleName)> =
        table.entries.iter().map(|entry| (entry.pattern.as_str().to_string(), entry.module.clone())).collect();
    assert_eq!(found, entries);
    let found: Vec<(usize, OddityKind)> = table.oddities.iter().map(|oddity| (oddity.line, oddity.kind)).collect();
    assert_eq!(found, oddities);
    for oddity in &table.oddities {
        assert!((1..=records.len()).contains(&oddity.line), "{oddity:?} of {}", records.len());
        assert!(!super::has_control(&oddity.to_string()) && oddity.to_string().is_ascii(), "{oddity:?}");
    }
    for entry in &table.entries {
        let text = entry.pattern.as_str();
        assert!(text.starts_with("vfio_pci:") || text.starts_with("vfio-pci:"), "{text:?}");
        let plain = super::in_plain_words(text).expect("what kmod drops is not kept");
        for key in [KEY, &text.replace('-', "_"), &text.replace(['*', '['], "")] {
            assert_eq!(entry.pattern.matches(key), plain.matches(key.as_bytes()), "{text:?} {key:?}");
        }
    }
}

const KEY: &str = "vfio_pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";

/// `PATTERN MODULE` in plain words; `None`: it is not about VFIO.
fn plain(alias: &[u8]) -> Option<Reading> {
    if !alias.starts_with(b"vfio_pci:") && !alias.starts_with(b"vfio-pci:") {
        return None;
    }
    let Ok(text) = std::str::from_utf8(alias) else { return Some((None, Some(OddityKind::Encoding))) };
    let blanks = [' ', '\t'];
    let words = text.trim_end_matches(blanks);
    let Some(at) = words.rfind(blanks) else { return Some((None, Some(OddityKind::NoModule))) };
    let (pattern, module) = (words[..at].trim_end_matches(blanks), &words[at + 1..]);
    let Ok(module) = module.parse::<ModuleName>() else { return Some((None, Some(OddityKind::BadModule))) };
    if super::in_plain_words(pattern).is_none() {
        return Some((None, Some(OddityKind::UnbalancedBracket)));
    }
    let is_lower = Pattern::new(pattern).expect("balanced").has_lower_case_hex();
    Some((Some((pattern.to_string(), module)), is_lower.then_some(OddityKind::LowerCaseHex)))
}

/// A file that is read some bytes at a time.
struct Pieces {
    file: Cursor<Vec<u8>>,
    piece: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.piece.min(buffer.len());
        self.file.read(&mut buffer[..count])
    }
}

impl Seek for Pieces {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
