// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modaliases, and the patterns they are held against.

use regex::Regex;
use std::io::Cursor;
use std::sync::LazyLock;

use vfioctl::matcher::{FIELDS, Modalias, ModaliasError, Pattern, Table, rank, split};

/// The first line is a modalias or any other key, the others are patterns.
pub fn modalias(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (key, patterns) = text.split_once('\n').unwrap_or((text, ""));
    let modalias = modalias_alone(key);
    for pattern in patterns.lines() {
        pattern_alone(pattern);
        for (pattern, key) in [(pattern, key), (key, pattern)] {
            let (found, expected) = (Pattern::new(pattern), in_plain_words(pattern));
            assert_eq!(found.is_ok(), expected.is_some(), "{pattern:?}");
            if let (Ok(found), Some(expected)) = (found, expected) {
                assert_eq!(found.matches(key), expected.matches(key.as_bytes()), "{pattern:?} {key:?}");
            }
        }
    }
    if let Some(modalias) = modalias {
        ranking(&modalias, patterns);
    }
}

/// Read as the regular expression has it, and what it says of itself is in the text.
fn modalias_alone(text: &str) -> Option<Modalias> {
    static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
        let hex = |key: &str, width: usize| format!("{key}([0-9A-Fa-f]{{{width}}})");
        let ids = ["v", "d", "sv", "sd"].map(|key| hex(key, 8)).concat();
        let class = ["bc", "sc", "i"].map(|key| hex(key, 2)).concat();
        Regex::new(&format!(r"\A(?:vfio_)?(pci:{ids}{class})\z")).expect("a constant pattern")
    });
    let captures = SHAPE.captures(text);
    let modalias = match (text.parse::<Modalias>(), captures) {
        (Ok(modalias), Some(captures)) => {
            let (_, [whole, fields @ ..]) = captures.extract::<8>();
            assert_eq!(modalias.as_str(), whole);
            let low = |field: &str| field[field.len() - 4..].to_lowercase();
            assert_eq!(modalias.vendor(), low(fields[0]));
            assert_eq!(modalias.device(), low(fields[1]));
            assert_eq!(modalias.subsystem_vendor(), low(fields[2]));
            assert_eq!(modalias.subsystem_device(), low(fields[3]));
            assert_eq!(modalias.class(), fields[4..].concat().to_lowercase());
            assert_eq!(format!("{:04x}:{:04x}", modalias.vendor_id(), modalias.device_id()), {
                format!("{}:{}", modalias.vendor(), modalias.device())
            });
            let lower = |c: char| c.is_ascii_lowercase();
            assert!(!fields.iter().any(|field| field.contains(lower)), "the kernel's digits are upper-case: {text}");
            modalias
        }
        (Err(ModaliasError::LowerCase(_)), Some(captures)) => {
            let (_, [_, fields @ ..]) = captures.extract::<8>();
            assert!(fields.concat().contains(|c: char| c.is_ascii_lowercase()), "{text}");
            return None;
        }
        (Err(error @ ModaliasError::Shape(_)), None) => {
            assert!(!super::has_control(&error.to_string()), "{error:?}");
            return None;
        }
        (other, captures) => panic!("{text:?}: {other:?}, though the shape is there: {}", captures.is_some()),
    };
    for again in [modalias.as_str(), &modalias.vfio_key()] {
        assert_eq!(again.parse().as_ref(), Ok(&modalias));
    }
    let other = modalias.with_device("00ab").expect("four digits");
    assert_eq!((other.device_id(), other.vendor_id()), (0xab, modalias.vendor_id()));
    assert_eq!(other.with_device(&modalias.device()).map(|back| back.device_id()), Ok(modalias.device_id()));
    let pattern = Pattern::new(&modalias.vfio_key()).expect("no brackets");
    assert!(pattern.matches(&modalias.vfio_key()) && pattern.wildcards() == 0 && !pattern.has_lower_case_hex());
    assert!(modalias == other || !pattern.matches(&other.vfio_key()));
    Some(modalias)
}

/// What a pattern says of itself.
fn pattern_alone(text: &str) {
    if let Some(fields) = split(text) {
        let keys = ["v", "d", "sv", "sd", "bc", "sc", "i"];
        let again: Vec<String> = keys.iter().zip(fields).map(|(key, field)| format!("{key}{field}")).collect();
        assert_eq!(&text["vfio_pci:".len()..], again.concat());
    }
    let Ok(pattern) = Pattern::new(text) else { return };
    assert_eq!(pattern.as_str(), text);
    assert!(pattern.wildcards() <= FIELDS);
    if !text.contains(['*', '?', '[', '\\']) {
        let normal = text.replace('-', "_");
        assert!(pattern.matches(&normal), "{text:?}");
        assert!(!pattern.matches(&format!("{normal}0")) && !pattern.matches(&format!("0{normal}")));
    }
}

/// Those patterns of a table that match are ranked: each module once, by its best, and the best first.
fn ranking(modalias: &Modalias, patterns: &str) {
    let mut text = String::new();
    for (number, pattern) in patterns.lines().enumerate() {
        text.push_str(&format!("alias vfio_pci:{pattern} m{}\n", number % 5));
    }
    let mut table = Table::default();
    table.read_modules_alias(Cursor::new(text)).expect("in memory");
    let key = modalias.vfio_key();
    let matches = rank(&table, modalias);
    assert!(matches.windows(2).all(|two| two[0].wildcards <= two[1].wildcards));
    for (at, found) in matches.iter().enumerate() {
        assert!(matches[..at].iter().all(|earlier| earlier.module != found.module));
        let of_module = table.entries.iter().filter(|e| e.module == found.module && e.pattern.matches(&key));
        assert_eq!(of_module.map(|entry| entry.pattern.wildcards()).min(), Some(found.wildcards));
        assert_eq!(found.tied_with_previous, at > 0 && matches[at - 1].wildcards == found.wildcards);
    }
    let hits = table.entries.iter().filter(|entry| entry.pattern.matches(&key));
    assert!(hits.into_iter().all(|entry| matches.iter().any(|found| found.module == entry.module)));
}

/// A pattern as kmod normalises it (`shared/util.c`, `alias_normalize`), element by element as fnmatch(3) reads it.
pub struct Plain {
    /// What fnmatch is given.
    pub normalised: Vec<u8>,
    elements: Vec<Element>,
}

enum Element {
    Star,
    /// The bytes that one place may have.
    Of(Box<[bool; 256]>),
}

/// The same pattern in plain words; `None` where kmod drops it.
pub fn in_plain_words(pattern: &str) -> Option<Plain> {
    let mut normalised = Vec::new();
    let mut rest = pattern.as_bytes();
    while let [byte, tail @ ..] = rest {
        match byte {
            b']' => return None,
            b'[' => {
                let end = rest.iter().position(|byte| *byte == b']')?;
                normalised.extend(&rest[..=end]);
                rest = &rest[end + 1..];
                continue;
            }
            b'-' => normalised.push(b'_'),
            other => normalised.push(*other),
        }
        rest = tail;
    }
    let mut elements = Vec::new();
    let mut at = 0;
    while at < normalised.len() {
        let (element, length) = element(&normalised[at..]);
        elements.push(element);
        at += length;
    }
    Some(Plain { normalised, elements })
}

fn element(pattern: &[u8]) -> (Element, usize) {
    let one = |byte: u8| {
        let mut bytes = Box::new([false; 256]);
        bytes[usize::from(byte)] = true;
        Element::Of(bytes)
    };
    match pattern {
        [b'*', ..] => (Element::Star, 1),
        [b'?', ..] => (Element::Of(Box::new([true; 256])), 1),
        [b'\\'] => (Element::Of(Box::new([false; 256])), 1),
        [b'\\', byte, ..] => (one(*byte), 2),
        [b'[', ..] => bracket(pattern).unwrap_or((one(b'['), 1)),
        [byte, ..] => (one(*byte), 1),
        [] => unreachable!("there is at least a byte"),
    }
}

/// `[…]`, unless nothing closes it.
fn bracket(pattern: &[u8]) -> Option<(Element, usize)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    // A member is a byte, or the one after a backslash; with it where the next begins.
    let member = |at: usize| match *pattern.get(at)? {
        b'\\' if at + 1 < pattern.len() => Some((pattern[at + 1], at + 2)),
        byte => Some((byte, at + 1)),
    };
    let mut bytes = Box::new([negated; 256]);
    let mut at = first;
    while at == first || pattern.get(at)? != &b']' {
        let (low, after) = member(at)?;
        let is_range = pattern.get(after) == Some(&b'-') && pattern.get(after + 1).is_some_and(|next| *next != b']');
        let (high, after) = if is_range { member(after + 1)? } else { (low, after) };
        for byte in low..=high {
            bytes[usize::from(byte)] = !negated;
        }
        at = after;
    }
    Some((Element::Of(bytes), at + 1))
}

impl Plain {
    /// Does the whole of `key` match? Every way through the pattern is followed at once.
    pub fn matches(&self, key: &[u8]) -> bool {
        let mut here = vec![false; key.len() + 1];
        here[0] = true;
        for element in &self.elements {
            let mut next = vec![false; key.len() + 1];
            match element {
                Element::Star => {
                    let first = here.iter().position(|is_here| *is_here).unwrap_or(here.len());
                    next[first..].fill(true);
                }
                Element::Of(bytes) => {
                    for (at, byte) in key.iter().enumerate() {
                        next[at + 1] = here[at] && bytes[usize::from(*byte)];
                    }
                }
            }
            here = next;
        }
        here[key.len()]
    }
}
