// SPDX-License-Identifier: MIT OR Apache-2.0
//! depmod's indexes, `modules.*.bin`: what `modules.alias` and its like say, as a tree that can be asked for a key without
//! reading all of it. A look-up takes some kilobytes of the two megabytes that a distribution's kernel has.
//!
//! The format is kmod's (`libkmod/libkmod-index.c`, and `index_write` in `tools/depmod.c`), version 2.1, all numbers
//! big-endian: magic, version, and the offset of the root. What a node has is told by flags of the offset that leads to it:
//! a prefix; children, by the next byte of the key; values, each with its module's place in the order of modules. A node is
//! written right before its children, by older kmods right after them, so that what belongs together lies together.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::file;

const MAGIC: u32 = 0xb007_f457;
/// Major version 2; minor ones only add to it.
const MAJOR_VERSION: u32 = 2;
const HEADER: usize = 12;

const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
const OFFSET: u32 = 0x0fff_ffff;

/// How much is read around a node, for its children: twice what those of `vfio_pci:` take.
const AROUND: usize = 4 << 10;
/// How much most nodes fit in.
const NODE: usize = 1 << 10;

/// The longest key that is believed: those of today's kernels have some hundred bytes.
const LONGEST_KEY: usize = 4096;
/// The most nodes that are believed to be below one key: a hundred times those of `vfio_pci:` today.
const MOST_NODES: usize = 1 << 14;

/// A key with one of its values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key, such as an alias; a `-` in it outside brackets has become a `_`.
    pub key: Vec<u8>,
    /// The value, such as the name of a module.
    pub value: Vec<u8>,
}

/// What can be read from any place, as a file.
pub trait ReadAt {
    /// Reads into the buffer from `offset` on, and tells how much that was: 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// An index that is read from as it is asked.
pub struct Index<R> {
    file: R,
    root: u32,
    /// What was read last: so much of it, from there on, and whether the file ends with it.
    buffer: Vec<u8>,
    filled: usize,
    start: u64,
    is_last: bool,
}

struct Node {
    prefix: Vec<u8>,
    children: Vec<(u8, u32)>,
    values: Vec<(u32, Vec<u8>)>,
}

/// Opens an index. An empty one is none: depmod leaves it so where there is nothing to make it from, and some versions left
/// that of the aliases of what is built in so always.
pub fn open(path: &Path) -> io::Result<Index<File>> {
    let file = file::open_within(path, file::TABLE)?;
    match file.metadata()?.len() {
        0 => Err(io::ErrorKind::NotFound.into()),
        _ => Index::new(file),
    }
}

impl<R: ReadAt> Index<R> {
    /// Takes an index. What is none, or of a version yet to come, is an error of kind `InvalidData`.
    pub fn new(file: R) -> io::Result<Index<R>> {
        let mut index = Index { file, root: 0, buffer: Vec::new(), filled: 0, start: 0, is_last: false };
        let mut header = index.bytes(0, HEADER)?;
        let words = (number(&mut header), number(&mut header), number(&mut header));
        let (Some(MAGIC), Some(version), Some(root)) = words else {
            return Err(malformed("it has not the magic number"));
        };
        if version >> 16 != MAJOR_VERSION {
            return Err(malformed("it is of another version"));
        }
        index.root = root;
        Ok(index)
    }

    /// All entries whose keys begin with `prefix`, in the order of their modules.
    pub fn starting_with(&mut self, prefix: &[u8]) -> io::Result<Vec<Entry>> {
        self.find(prefix, false)
    }

    /// The value of a key; the first module's, where several have it.
    pub fn get(&mut self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.find(key, true)?.into_iter().next().map(|entry| entry.value))
    }

    fn find(&mut self, prefix: &[u8], is_exact: bool) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        let mut ahead = vec![(self.root, Vec::new())];
        for _ in 0..MOST_NODES {
            let Some((offset, mut key)) = ahead.pop() else {
                // Stable: within a module the order is that of the keys.
                found.sort_by_key(|(priority, _)| *priority);
                return Ok(found.into_iter().map(|(_, entry)| entry).collect());
            };
            let node = self.node(offset)?;
            key.extend_from_slice(&node.prefix);
            // So it has an end also where a node leads back to itself.
            if key.len() > LONGEST_KEY {
                return Err(malformed("a key is too long"));
            }
            let common = key.len().min(prefix.len());
            if key[..common] != prefix[..common] {
                continue;
            }
            if is_exact && key.len() > prefix.len() {
                continue;
            }
            let wanted = prefix.get(key.len());
            if wanted.is_none() {
                found.extend(
                    node.values.into_iter().map(|(priority, value)| (priority, Entry { key: key.clone(), value })),
                );
            }
            if is_exact && wanted.is_none() {
                continue;
            }
            for (byte, child) in node.children.into_iter().rev() {
                if wanted.is_none_or(|wanted| *wanted == byte) {
                    ahead.push((child, [key.as_slice(), &[byte]].concat()));
                }
            }
        }
        Err(malformed("it has too many entries"))
    }

    fn node(&mut self, offset: u32) -> io::Result<Node> {
        let mut length = NODE;
        loop {
            let bytes = self.bytes(u64::from(offset & OFFSET), length)?;
            if let Some(node) = parse(bytes, offset) {
                return Ok(node);
            }
            if bytes.len() < length {
                return Err(malformed("it ends within a node"));
            }
            length *= 4;
        }
    }

    /// The bytes from `offset` on: `length`, or as many as there are.
    fn bytes(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let end = self.start + self.filled as u64;
        if offset < self.start || (offset + length as u64 > end && !self.is_last) {
            let start = offset.saturating_sub(AROUND as u64);
            let wanted = (offset - start) as usize + length + AROUND;
            // It only grows: zeroing it each time would take longer than the reading.
            self.buffer.resize(self.buffer.len().max(wanted), 0);
            let mut filled = 0;
            while filled < wanted {
                match self.file.read_at(&mut self.buffer[filled..wanted], start + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            (self.start, self.filled, self.is_last) = (start, filled, filled < wanted);
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let bytes = self.buffer[..self.filled].get(from..).unwrap_or_default();
        Ok(&bytes[..bytes.len().min(length)])
    }
}

/// `None`: it goes on behind the bytes.
fn parse(mut bytes: &[u8], flags: u32) -> Option<Node> {
    let mut node = Node { prefix: Vec::new(), children: Vec::new(), values: Vec::new() };
    if flags & HAS_PREFIX != 0 {
        node.prefix = text(&mut bytes)?;
    }
    if flags & HAS_CHILDREN != 0 {
        let (first, last) = (byte(&mut bytes)?, byte(&mut bytes)?);
        for next in first..=last {
            let child = number(&mut bytes)?;
            // Not every byte between the first and the last leads on.
            if child & OFFSET != 0 {
                node.children.push((next, child));
            }
        }
    }
    if flags & HAS_VALUES != 0 {
        for _ in 0..number(&mut bytes)? {
            node.values.push((number(&mut bytes)?, text(&mut bytes)?));
        }
    }
    Some(node)
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*first))
}

/// Up to a NUL.
fn text(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = bytes[..end].to_vec();
    *bytes = &bytes[end + 1..];
    Some(text)
}

fn malformed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an index of depmod's: {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Read in pieces, as a file may be.
    struct Pieces<'a>(&'a [u8]);

    impl ReadAt for Pieces<'_> {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let count = buffer.len().min(5000);
            self.0.read_at(&mut buffer[..count], offset)
        }
    }

    fn index(bytes: &[u8]) -> io::Result<Index<Pieces<'_>>> {
        Index::new(Pieces(bytes))
    }

    fn found(bytes: &[u8], prefix: &str) -> Vec<(String, String)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let entries = index(bytes).unwrap().starting_with(prefix.as_bytes()).unwrap();
        entries.into_iter().map(|entry| (text(entry.key), text(entry.value))).collect()
    }

    /// "ab" → second (7), first (3); "abc" → a long one (5); "x" → other (1); "z" and 5000 times "y" → none to be believed.
    fn small() -> Vec<u8> {
        let mut bytes = [MAGIC.to_be_bytes(), 0x0002_0001_u32.to_be_bytes(), [0; 4]].concat();
        let mut add = |flags: u32, parts: &[&[u8]]| {
            let offset = bytes.len() as u32 | flags;
            bytes.extend(parts.concat());
            offset.to_be_bytes()
        };
        let long = |byte: u8, length| [vec![byte; length], vec![0]].concat();
        let [one, two, three, five, seven] = [1_u32, 2, 3, 5, 7].map(u32::to_be_bytes);
        let c = add(HAS_VALUES, &[&one, &five, &long(b'l', 9000)]);
        let values = [&two[..], &seven, b"second\0", &three, b"first\0"].concat();
        let ab = add(HAS_PREFIX | HAS_CHILDREN | HAS_VALUES, &[b"b\0", b"cc", &c, &values]);
        let x = add(HAS_VALUES, &[&one, &one, b"other\0"]);
        let z = add(HAS_PREFIX | HAS_VALUES, &[&long(b'y', 5000), &one, &one, b"none\0"]);
        let between = [0; 4 * (b'x' - b'a' - 1) as usize];
        let root = add(HAS_CHILDREN, &[b"az", &ab, &between, &x, &[0; 4], &z]);
        bytes[8..12].copy_from_slice(&root);
        bytes
    }

    #[test]
    fn entries_come_in_the_order_of_their_modules() {
        let bytes = small();
        let values = |prefix| found(&bytes, prefix).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        let long = "l".repeat(9000);
        assert_eq!(values("a"), ["first", &long, "second"]);
        assert_eq!(values("ab"), ["first", &long, "second"]);
        assert_eq!(values("abc"), [long.as_str()]);
        assert_eq!(values("x"), ["other"]);
        for nothing in ["b", "abd", "xx", "y"] {
            assert!(values(nothing).is_empty(), "{nothing}");
        }
        let get = |key: &str| index(&bytes).unwrap().get(key.as_bytes()).unwrap();
        assert_eq!(get("ab").as_deref(), Some(&b"first"[..]));
        assert_eq!(get("x").as_deref(), Some(&b"other"[..]));
        for nothing in ["", "a", "abcd", "y"] {
            assert_eq!(get(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_no_index_is_said() {
        let small = small();
        let mut newer = small.clone();
        newer[5] = 3;
        let mut circle = small.clone();
        let root = small.len() - 4 * usize::from(b'z' - b'a' + 1) - 2;
        circle[root + 2..root + 6].copy_from_slice(&(root as u32 | HAS_CHILDREN).to_be_bytes());
        for (bytes, prefix, words) in [
            (&b""[..], "", "magic"),
            (b"alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n", "", "magic"),
            (&newer, "", "another version"),
            (&small[..small.len() - 1], "", "ends within a node"),
            (&circle, "", "too long"),
            (&small, "z", "too long"),
        ] {
            let error = index(bytes).and_then(|mut index| index.starting_with(prefix.as_bytes())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = small();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for prefix in ["", "a", "abc"] {
                let _ = index(&bytes).and_then(|mut index| index.starting_with(prefix.as_bytes()));
            }
            bytes.truncate(cut.index(bytes.len()));
            let _ = index(&bytes).and_then(|mut index| index.starting_with(b""));
        }
    }
}
