// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel modules: the tables depmod writes, modprobe.d, and what a name leads to.

use std::collections::{BTreeMap, BTreeSet};

/// The tables of one kernel release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    aliases: Vec<(String, String)>,
    builtin_aliases: Vec<(String, String)>,
    after: BTreeMap<String, Vec<String>>,
}

/// A line of `modules.dep`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Module {
    path: String,
    needs: Vec<String>,
}

/// What modprobe.d says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    aliases: Vec<(String, String)>,
    blacklist: BTreeSet<String>,
}

impl Tables {
    /// Reads `modules.dep`.
    pub fn read_dep(&mut self, text: &str) {
        for line in text.lines() {
            let Some((path, needs)) = line.split_once(':') else {
                continue;
            };
            let needs = needs.split_whitespace().map(module_of_path).collect();
            let path = path.trim().to_owned();
            self.modules.insert(module_of_path(&path), Module { path, needs });
        }
    }

    /// Reads `modules.builtin`.
    pub fn read_builtin(&mut self, text: &str) {
        self.builtin.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(module_of_path));
    }

    /// Reads `modules.alias`. The module is what follows the last space: patterns may have spaces.
    pub fn read_alias(&mut self, text: &str) {
        let lines = text.lines().filter_map(|line| line.strip_prefix("alias "));
        let pairs = lines.filter_map(|rest| rest.rsplit_once(' '));
        self.aliases.extend(pairs.map(|(pattern, module)| (normalise(pattern), normalise(module.trim()))));
    }

    /// Reads `modules.builtin.modinfo`: `module.key=value`, each ended by a NUL.
    pub fn read_builtin_modinfo(&mut self, text: &str) {
        for entry in text.split('\0') {
            if let Some((module, pattern)) = entry.split_once(".alias=") {
                self.builtin_aliases.push((normalise(pattern), normalise(module)));
            }
        }
    }

    /// Reads the `post` parts of `modules.softdep`.
    pub fn read_softdep(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(module) = words.next() else { continue };
            let after = words.skip_while(|word| *word != "post:").skip(1).take_while(|word| *word != "pre:");
            self.after.entry(normalise(module)).or_default().extend(after.map(normalise));
        }
    }

    /// Is there such a module to load?
    pub fn has(&self, module: &str) -> bool {
        self.modules.contains_key(module)
    }

    /// Is it built into the kernel?
    pub fn is_builtin(&self, module: &str) -> bool {
        self.builtin.contains(module)
    }

    /// Its file, from the release's directory.
    pub fn path(&self, module: &str) -> Option<&str> {
        Some(&self.modules.get(module)?.path)
    }

    /// What must be in before it, in the order of loading: `modules.dep` has the nearest first.
    pub fn needs(&self, module: &str) -> Vec<String> {
        let needs = self.modules.get(module).map(|module| module.needs.as_slice());
        needs.unwrap_or_default().iter().rev().cloned().collect()
    }

    /// What needs it.
    pub fn needed_by<'a>(&'a self, module: &'a str) -> impl Iterator<Item = &'a str> {
        let needing = self.modules.iter().filter(move |(_, other)| other.needs.iter().any(|name| name == module));
        needing.map(|(name, _)| name.as_str())
    }

    /// What loading it means, in the order of loading: what must be in before it, itself, and behind each of them what
    /// softdep asks for after that one, as far as there is such a module. Whether the module is in is nobody's affair but
    /// that of those marked true (libkmod/libkmod-module.c, __kmod_module_get_probe_list).
    pub fn probe_list(&self, module: &str) -> Vec<(String, bool)> {
        let mut list = Vec::new();
        self.add_to_probe_list(module, true, &mut list);
        list
    }

    fn add_to_probe_list(&self, module: &str, needed: bool, list: &mut Vec<(String, bool)>) {
        for name in self.needs(module).into_iter().chain([module.to_owned()]) {
            if list.iter().any(|(other, _)| *other == name) {
                continue;
            }
            let after = self.after.get(&name).into_iter().flatten();
            list.push((name.clone(), needed));
            for other in after.filter(|other| self.has(other)) {
                self.add_to_probe_list(other, false, list);
            }
        }
    }

    /// What a name or alias leads to, in the order of the tables. As kmod does, the first source that has anything ends
    /// the search (libkmod/libkmod-module.c, kmod_module_new_from_lookup).
    pub fn lookup(&self, config: &Config, name: &str) -> Vec<String> {
        let key = normalise(name);
        let from = |table: &[(String, String)]| {
            let mut found: Vec<String> = Vec::new();
            for (pattern, module) in table {
                if fnmatch(pattern, &key) && !found.contains(module) {
                    found.push(module.clone());
                }
            }
            found
        };
        let by_config = from(&config.aliases);
        if !by_config.is_empty() {
            return by_config;
        }
        if self.has(&key) {
            return vec![key];
        }
        let by_alias = from(&self.aliases);
        if !by_alias.is_empty() {
            return by_alias;
        }
        if self.is_builtin(&key) {
            return vec![key];
        }
        from(&self.builtin_aliases)
    }
}

impl Config {
    /// Reads one file of modprobe.d.
    pub fn read(&mut self, text: &str) {
        for line in text.replace("\\\n", "").lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["alias", pattern, module] => self.aliases.push((normalise(pattern), normalise(module))),
                ["blacklist", module] => {
                    self.blacklist.insert(normalise(module));
                }
                _ => {}
            }
        }
    }

    /// Is it on the blacklist?
    pub fn is_blacklisted(&self, module: &str) -> bool {
        self.blacklist.contains(module)
    }
}

/// `kernel/drivers/vfio/pci/vfio-pci.ko.zst` is the module `vfio_pci`.
fn module_of_path(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or(path);
    normalise(file.split(".ko").next().unwrap_or(file))
}

/// A dash is an underscore but in brackets (kmod's alias_normalize).
pub fn normalise(name: &str) -> String {
    let mut inside = false;
    name.chars()
        .map(|c| {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                _ => {}
            }
            if c == '-' && !inside { '_' } else { c }
        })
        .collect()
}

/// fnmatch(3) without flags: `*`, `?`, `[a-z]`, `[!a]`.
pub fn fnmatch(pattern: &str, text: &str) -> bool {
    matches(pattern.as_bytes(), text.as_bytes())
}

fn matches(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // Where to go on after a mismatch: behind the last star, which takes one byte more each time.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern.first(), text.split_first()) {
            (Some(b'*'), _) => {
                retry = Some((&pattern[1..], text));
                pattern = &pattern[1..];
                continue;
            }
            (None, None) => return true,
            (Some(_), Some((&byte, rest))) => one(pattern, byte).map(|pattern| (pattern, rest)),
            _ => None,
        };
        match (step, retry) {
            (Some((next_pattern, next_text)), _) => (pattern, text) = (next_pattern, next_text),
            (None, Some((behind, [_, rest @ ..]))) => {
                (pattern, text) = (behind, rest);
                retry = Some((behind, rest));
            }
            (None, _) => return false,
        }
    }
}

/// The pattern behind its first element, if that matches the byte.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (&first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => {
            let negated = matches!(rest.first(), Some(b'!' | b'^'));
            let set = &rest[usize::from(negated)..];
            let end = 1 + set.get(1..)?.iter().position(|&c| c == b']')?;
            let (mut members, behind) = (&set[..end], &set[end + 1..]);
            let mut found = false;
            while let Some((&low, others)) = members.split_first() {
                let high = match others {
                    [b'-', high, ..] => *high,
                    _ => low,
                };
                found |= (low..=high).contains(&byte);
                members = if high == low { others } else { &others[2..] };
            }
            (found != negated).then_some(behind)
        }
        _ => (first == byte).then_some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Tables, fnmatch, normalise};

    #[test]
    fn fnmatch_as_the_c_library_has_it() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "a--b--bc", true),
            ("a*b*c", "a--b--b", false),
            ("v*d*sv*", "v1d2sv3", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[a]x", "bx", false),
            ("*01i02*", "bc01sc01i02", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(fnmatch(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn dashes() {
        assert_eq!(normalise("a-b[c-d]e-f"), "a_b[c-d]e_f");
    }

    fn tables() -> Tables {
        let mut tables = Tables::default();
        tables.read_dep(
            "kernel/vfio/vfio.ko:\nkernel/vfio/vfio-pci.ko.zst: kernel/vfio/vfio-pci-core.ko kernel/vfio/vfio.ko\n\
             kernel/vfio/vfio-pci-core.ko: kernel/vfio/vfio.ko\nkernel/vfio/mlx5-vfio-pci.ko.xz:\n",
        );
        tables.read_alias(
            "# Aliases\nalias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n\
             alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci\nalias with a space in-it mlx5_vfio_pci\n",
        );
        tables.read_builtin("kernel/fs/ext4/ext4.ko\n");
        tables.read_builtin_modinfo("ext4.license=GPL\0ext4.alias=fs-ext4\0");
        tables.read_softdep("softdep vfio pre: a post: vfio_pci b\n");
        tables
    }

    #[test]
    fn names_lead_to_modules() {
        let tables = tables();
        let mut config = Config::default();
        config.read("# x\nalias short vfio-pci\nblacklist mlx5-vfio-pci\n");
        let variant = "vfio_pci:v000015B3d0000101Esv00000000sd00000000bc02sc00i00";
        for (name, found) in [
            ("vfio-pci", vec!["vfio_pci"]),
            ("vfio_pci", vec!["vfio_pci"]),
            ("short", vec!["vfio_pci"]),
            (variant, vec!["vfio_pci", "mlx5_vfio_pci"]),
            (&variant.replace("vfio_pci:", "vfio-pci:"), vec!["vfio_pci", "mlx5_vfio_pci"]),
            ("with a space in_it", vec!["mlx5_vfio_pci"]),
            ("ext4", vec!["ext4"]),
            ("fs-ext4", vec!["ext4"]),
            ("nothing", vec![]),
        ] {
            assert_eq!(tables.lookup(&config, name), found, "{name}");
        }
        assert!(config.is_blacklisted("mlx5_vfio_pci"));
        assert_eq!(tables.needs("vfio_pci"), ["vfio", "vfio_pci_core"]);
        assert_eq!(tables.needed_by("vfio").collect::<Vec<_>>(), ["vfio_pci", "vfio_pci_core"]);
        let list = tables.probe_list("mlx5_vfio_pci");
        assert_eq!(list, [("mlx5_vfio_pci".to_owned(), true)]);
        let list = tables.probe_list("vfio");
        let names: Vec<(&str, bool)> = list.iter().map(|(name, needed)| (name.as_str(), *needed)).collect();
        assert_eq!(names, [("vfio", true), ("vfio_pci_core", false), ("vfio_pci", false)]);
    }
}
