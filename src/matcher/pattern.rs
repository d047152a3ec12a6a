// SPDX-License-Identifier: MIT OR Apache-2.0
//! Alias patterns, matched as kmod matches them: normalised (`shared/util.c`, `alias_normalize`), then
//! `fnmatch(3)` with no flags over the whole string.

use std::sync::OnceLock;

use super::fields::{self, FIELDS};

/// An alias pattern, such as `vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*`.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    /// Most patterns are of other devices from their first digits on, and never needed so.
    tokens: OnceLock<Vec<Token>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    /// Exactly this byte.
    Byte(u8),
    /// `?`: any one byte.
    One,
    /// `*`: any number of bytes.
    Any,
    /// `[…]`: one byte in (or, negated, not in) these ranges.
    Set { negated: bool, ranges: Vec<(u8, u8)> },
    /// A backslash at the end: fnmatch matches nothing with it.
    Never,
}

/// Why kmod would drop a pattern: a bracket without its partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unbalanced bracket")]
pub struct UnbalancedBracket;

impl Pattern {
    /// Normalises and compiles a pattern as it is written in a table.
    pub fn new(written: &str) -> Result<Pattern, UnbalancedBracket> {
        check_brackets(written)?;
        Ok(Pattern { text: written.to_string(), tokens: OnceLock::new() })
    }

    /// The pattern as written in its table.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Does the whole of `key` match?
    pub fn matches(&self, key: &str) -> bool {
        let is_other = |(want, have): (u8, u8)| match want {
            b'*' | b'?' | b'[' | b'\\' | b'-' => Some(false),
            literal => (literal != have).then_some(true),
        };
        if self.text.bytes().zip(key.bytes()).find_map(is_other) == Some(true) {
            return false;
        }
        matches(self.tokens.get_or_init(|| compile(normalise(&self.text).as_bytes())), key.as_bytes())
    }

    /// How many of the seven PCI fields are exactly `*`: the fewer, the better the match. This is upstream's rule (kernel
    /// commit cc6711b0bf36) and libvirt's (`virPCIDeviceFindBestVFIOVariant`). A field that is only in part a wildcard
    /// (`i01*`) is not counted. A pattern of any other shape pins nothing down for certain, and counts as all seven.
    pub fn wildcards(&self) -> usize {
        fields::split(&self.text).map_or(FIELDS, |fields| fields.iter().filter(|field| **field == "*").count())
    }

    /// A lower-case hex digit in an id or class: the kernel prints upper-case, so this pattern matches no device. Every
    /// lower-case letter beyond those of the prefix and the seven keys is one.
    pub fn has_lower_case_hex(&self) -> bool {
        const KEYS: usize = "vfiopci".len() + "vdsvsdbcsci".len();
        self.text.bytes().filter(u8::is_ascii_lowercase).count() > KEYS
    }
}

/// kmod drops a pattern whose brackets do not pair.
fn check_brackets(written: &str) -> Result<(), UnbalancedBracket> {
    let inside = written.bytes().try_fold(false, |inside, byte| match byte {
        b']' if !inside => Err(UnbalancedBracket),
        b']' => Ok(false),
        b'[' => Ok(true),
        _ => Ok(inside),
    })?;
    if inside { Err(UnbalancedBracket) } else { Ok(()) }
}

/// `-` becomes `_` outside brackets, as module names do.
fn normalise(written: &str) -> String {
    let mut inside = false;
    let normal = written.chars().map(|c| {
        inside = c == '[' || (inside && c != ']');
        if c == '-' && !inside { '_' } else { c }
    });
    normal.collect()
}

fn compile(pattern: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'?' => tokens.push(Token::One),
            // A run of stars is one star.
            b'*' if tokens.last() == Some(&Token::Any) => {}
            b'*' => tokens.push(Token::Any),
            b'\\' => match tail {
                [escaped, tail @ ..] => {
                    tokens.push(Token::Byte(*escaped));
                    rest = tail;
                }
                [] => tokens.push(Token::Never),
            },
            b'[' => match compile_set(tail) {
                Some((set, tail)) => {
                    tokens.push(set);
                    rest = tail;
                }
                // `[` that opens nothing stands for itself (POSIX, and what is left of `[]`).
                None => tokens.push(Token::Byte(b'[')),
            },
            literal => tokens.push(Token::Byte(*literal)),
        }
    }
    tokens
}

/// The set whose `[` was just read, and what follows its `]`; `None` where there is no `]` to close it.
fn compile_set(after_bracket: &[u8]) -> Option<(Token, &[u8])> {
    let (negated, mut rest) = match after_bracket {
        [b'!' | b'^', tail @ ..] => (true, tail),
        all => (false, all),
    };
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        let (low, tail) = match rest {
            [b']', tail @ ..] if !first => return Some((Token::Set { negated, ranges }, tail)),
            [b'\\', escaped, tail @ ..] => (*escaped, tail),
            [byte, tail @ ..] => (*byte, tail),
            [] => return None,
        };
        first = false;
        (rest, ranges) = match tail {
            // A `-` before the closing bracket stands for itself.
            [b'-', high, after @ ..] if *high != b']' => {
                let (high, after) = match (high, after) {
                    (b'\\', [escaped, after @ ..]) => (*escaped, after),
                    _ => (*high, after),
                };
                (after, push(ranges, (low, high)))
            }
            _ => (tail, push(ranges, (low, low))),
        };
    }
}

fn push(mut ranges: Vec<(u8, u8)>, range: (u8, u8)) -> Vec<(u8, u8)> {
    ranges.push(range);
    ranges
}

/// Greedy matching with one point to come back to, the last star: linear but for that star's retries.
fn matches(tokens: &[Token], key: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match (tokens.get(token), key.get(at)) {
            (None, None) => return true,
            (Some(Token::Any), _) => {
                star = Some((token, at));
                token += 1;
                continue;
            }
            (Some(Token::Byte(want)), Some(byte)) => want == byte,
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Set { negated, ranges }), Some(byte)) => {
                ranges.iter().any(|(low, high)| low <= byte && byte <= high) != *negated
            }
            _ => false,
        };
        if step {
            token += 1;
            at += 1;
            continue;
        }
        match star {
            Some((after, from)) if from < key.len() => {
                star = Some((after, from + 1));
                token = after + 1;
                at = from + 1;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "vfio_pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";

    fn hits(pattern: &str, key: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(key)
    }

    #[test]
    fn shapes_seen_in_tables() {
        for (pattern, expected) in [
            ("vfio_pci:v*d*sv*sd*bc*sc*i*", true),
            ("vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*", true),
            ("vfio-pci:v000015B3d0000101Esv*sd*bc*sc*i*", true),
            ("vfio_pci:v000015B3d0000101esv*sd*bc*sc*i*", false),
            ("vfio_pci:v000015B3d0000101Fsv*sd*bc*sc*i*", false),
            ("vfio_pci:v*d*sv*sd*bc02sc00i00*", true),
            ("vfio_pci:v*d*sv*sd*bc02sc00i0*", true),
            ("vfio_pci:v*d*sv*sd*bc02sc00i30*", false),
            ("vfio_pci:v000015B3d0000101[DE]sv*sd*bc*sc*i*", true),
            ("vfio_pci:v000015B3d0000101[!DE]sv*sd*bc*sc*i*", false),
            ("vfio_pci:v000015B3d0000101[A-F]sv*sd*bc*sc*i*", true),
            ("vfio_pci:v000015B3d0000101?sv*sd*bc*sc*i*", true),
            ("vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i", false),
            ("vfio_pci:*", true),
            ("*", true),
            ("", false),
        ] {
            assert_eq!(hits(pattern, KEY), expected, "{pattern}");
        }
    }

    #[test]
    fn fnmatch_corners() {
        for (pattern, key, expected) in [
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a\\", "a", false),
            ("a\\", "a\\", false),
            ("[a-]", "-", true),
            ("[!a]", "a", false),
            ("[^a]", "b", true),
            ("[]", "[]", true),
            ("[\\]x]", "]x]", false),
            ("a-b", "a_b", true),
            ("a[-]b", "a-b", true),
            ("a[-]b", "a_b", false),
            ("**a**", "ba", true),
            ("*a*b*c*", "xxaxbxxcx", true),
            ("*ab", "aab", true),
            ("?", "", false),
        ] {
            match Pattern::new(pattern) {
                Ok(pattern) => assert_eq!(pattern.matches(key), expected, "{pattern:?} {key}"),
                Err(UnbalancedBracket) => assert!(!expected, "{pattern} {key}"),
            }
        }
    }

    #[test]
    fn kmod_drops_what_is_unbalanced() {
        for pattern in ["a[b", "a]b", "[[:alpha:]]", "[]]"] {
            assert_eq!(Pattern::new(pattern), Err(UnbalancedBracket), "{pattern}");
        }
    }

    #[test]
    fn wildcard_fields() {
        for (pattern, expected) in [
            ("vfio_pci:v*d*sv*sd*bc*sc*i*", 7),
            ("vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*", 5),
            ("vfio-pci:v000015B3d0000101Esv*sd*bc*sc*i*", 5),
            ("vfio_pci:v*d*sv*sd*bc03sc02i*", 5),
            ("vfio_pci:v*d*sv*sd*bc01sc06i01*", 4),
            ("vfio_pci:v000010DEd*sv*sd*bc03sc*i*", 5),
            ("vfio_pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00", 0),
            ("vfio_pci:v000015B3*", 7),
            ("vfio_pci:*", 7),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().wildcards(), expected, "{pattern}");
        }
    }

    #[test]
    fn lower_case_hex_is_seen() {
        for (pattern, expected) in [
            ("vfio_pci:v000015b3d0000101Esv*sd*bc*sc*i*", true),
            ("vfio_pci:v000015B3d0000101esv*sd*bc*sc*i*", true),
            ("vfio_pci:v*d*sv*sd*bc0csc03i*", true),
            ("vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*", false),
            ("vfio_pci:v*d*sv*sd*bc*sc*i*", false),
            ("vfio_pci:*", false),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().has_lower_case_hex(), expected, "{pattern}");
        }
    }

    /// fnmatch(3) without flags, word for word and without care for speed: the oracle.
    fn plain_fnmatch(pattern: &[u8], key: &[u8]) -> bool {
        match pattern {
            [] => key.is_empty(),
            [b'*', rest @ ..] => (0..=key.len()).any(|skip| plain_fnmatch(rest, &key[skip..])),
            [b'?', rest @ ..] => !key.is_empty() && plain_fnmatch(rest, &key[1..]),
            [b'\\'] => false,
            [b'\\', c, rest @ ..] => key.first() == Some(c) && plain_fnmatch(rest, &key[1..]),
            [b'[', rest @ ..] => match rest.iter().skip(2).position(|b| *b == b']') {
                _ if rest.first() == Some(&b']') => key.first() == Some(&b'[') && plain_fnmatch(rest, &key[1..]),
                // The generator below writes only `[xy]` and `[!xy]`.
                Some(at) => {
                    let (set, rest) = (&rest[..at + 2], &rest[at + 3..]);
                    let (negated, set) = if set[0] == b'!' { (true, &set[1..]) } else { (false, set) };
                    !key.is_empty() && set.contains(&key[0]) != negated && plain_fnmatch(rest, &key[1..])
                }
                None => false,
            },
            [c, rest @ ..] => key.first() == Some(c) && plain_fnmatch(rest, &key[1..]),
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[ab_]",
            2 => Just("*".to_string()),
            1 => Just("?".to_string()),
            1 => "\\[[ab]{2}\\]",
            1 => "\\[![ab]{2}\\]",
            1 => Just("\\*".to_string()),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_fnmatch(
            pieces in prop::collection::vec(piece(), 0..12),
            key in "[ab_*]{0,12}",
        ) {
            let pattern = pieces.concat();
            prop_assert_eq!(hits(&pattern, &key), plain_fnmatch(pattern.as_bytes(), key.as_bytes()), "{} {}", pattern, key);
        }

        #[test]
        fn a_literal_matches_itself_alone(text in "[0-9A-Za-z:_.]{0,60}", other in "[0-9A-Za-z:_.]{0,60}") {
            prop_assert!(hits(&text, &text));
            prop_assert_eq!(hits(&text, &other), text == other);
        }

        #[test]
        fn any_bytes_compile_or_are_refused(text in "\\PC{0,40}", key in "\\PC{0,40}") {
            if let Ok(pattern) = Pattern::new(&text) {
                pattern.matches(&key);
                pattern.wildcards();
                pattern.has_lower_case_hex();
            }
        }
    }
}
