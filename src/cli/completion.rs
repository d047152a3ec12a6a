// SPDX-License-Identifier: MIT OR Apache-2.0
//! What could come next on a command line that is being typed: from the words up to the cursor and the parser's own tables, so
//! that a new option is completed without another word. Pure; what the machine has is for `command::complete`.

use std::collections::BTreeMap;

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// The first argument of a call that shells make for completions: the words up to the cursor follow, the program's name first.
/// It is no command of the user's.
pub const ARGUMENT: &str = "--complete";

/// A place on the command line.
pub struct Place {
    command: Command,
    /// The verb, with its own verb if it has any: `libvirt xml`; empty before there is one.
    pub verb: String,
    /// The words before it that belong to no option.
    pub operands: Vec<String>,
    /// The values of options before it, by the names of these.
    pub options: BTreeMap<String, Vec<String>>,
    /// The part of its word that stays: `--driver=`, or the values before a comma.
    pub lead: String,
    /// What is typed of the rest.
    pub typed: String,
    /// What goes there.
    pub expected: Expected,
}

/// What goes to a place.
pub enum Expected {
    /// A verb.
    Verb,
    /// An option.
    Option,
    /// A value of this argument.
    Value(Box<Arg>),
    /// Nothing that is known.
    Nothing,
}

/// A word that could go there, and what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The word.
    pub word: String,
    /// For people; may be empty.
    pub help: String,
}

impl Candidate {
    /// A word with its description.
    pub fn new(word: impl Into<String>, help: impl Into<String>) -> Candidate {
        Candidate { word: word.into(), help: help.into() }
    }
}

impl Place {
    /// Where the last of these words goes, which is typed as far as the cursor; the first is the program's name.
    pub fn find(words: &[String]) -> Place {
        let mut command = Cli::command();
        command.build();
        let mut place = Place {
            command,
            verb: String::new(),
            operands: Vec::new(),
            options: BTreeMap::new(),
            lead: String::new(),
            typed: String::new(),
            expected: Expected::Nothing,
        };
        let Some((last, before)) = words.get(1..).and_then(|words| words.split_last()) else { return place };
        let mut awaiting: Option<Arg> = None;
        let mut is_over = false;
        for word in before {
            match awaiting.take() {
                Some(option) => place.note(&option, word),
                None if is_over => place.operands.push(word.clone()),
                None if word == "--" => is_over = true,
                None if is_option(word) => awaiting = place.pass_option(word),
                None => place.pass_word(word),
            }
        }
        place.typed.clone_from(last);
        place.expected = match awaiting {
            Some(option) => place.at_value(option),
            None if is_over => place.at_operand(),
            None => match last.split_once('=').and_then(|(name, value)| Some((place.option(name)?, name, value))) {
                Some((option, name, value)) => {
                    (place.lead, place.typed) = (format!("{name}="), value.to_string());
                    place.at_value(option)
                }
                None if last.starts_with('-') => Expected::Option,
                None => place.at_operand(),
            },
        };
        place
    }

    /// What can be told without the machine: verbs, options, and values of which there are only so many.
    pub fn known(&self) -> Vec<Candidate> {
        let first_line = |help: Option<&clap::builder::StyledStr>| {
            help.map(|help| help.to_string().lines().next().unwrap_or_default().to_string()).unwrap_or_default()
        };
        match &self.expected {
            Expected::Verb => {
                let verbs = self.command.get_subcommands().filter(|verb| !verb.is_hide_set());
                verbs.map(|verb| Candidate::new(verb.get_name(), first_line(verb.get_about()))).collect()
            }
            Expected::Option => {
                let is_open = |option: &&Arg| {
                    let is_given = self.options.contains_key(option.get_id().as_str());
                    !option.is_hide_set() && (!is_given || matches!(option.get_action(), clap::ArgAction::Append))
                };
                let options = self.command.get_arguments().filter(is_open);
                let words = options.filter_map(|option| {
                    let equals = if option.is_require_equals_set() { "=" } else { "" };
                    Some(Candidate::new(format!("--{}{equals}", option.get_long()?), first_line(option.get_help())))
                });
                words.collect()
            }
            Expected::Value(argument) => {
                let values = argument.get_possible_values().into_iter().filter(|value| !value.is_hide_set());
                values.map(|value| Candidate::new(value.get_name(), first_line(value.get_help()))).collect()
            }
            Expected::Nothing => Vec::new(),
        }
    }

    /// The last value of an option before the place.
    pub fn option_value(&self, name: &str) -> Option<&str> {
        self.options.get(name)?.last().map(String::as_str)
    }

    fn note(&mut self, option: &Arg, value: &str) {
        self.options.entry(option.get_id().to_string()).or_default().push(value.to_string());
    }

    /// The option of a name as it is typed, without its value.
    fn option(&self, name: &str) -> Option<Arg> {
        let is_it = |option: &&Arg| match name.strip_prefix("--") {
            Some(long) => option.get_long() == Some(long),
            // The last of several in one word may have a value.
            None => option.get_short().is_some_and(|short| name.ends_with(short)),
        };
        self.command.get_arguments().find(is_it).cloned()
    }

    /// Goes on behind a word that begins with a dash; the option whose value is the next comes back.
    fn pass_option(&mut self, word: &str) -> Option<Arg> {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let option = self.option(name)?;
        let takes_next = option.get_action().takes_values() && !option.is_require_equals_set();
        match value {
            None if takes_next => Some(option),
            value => {
                self.note(&option, value.unwrap_or_default());
                None
            }
        }
    }

    fn pass_word(&mut self, word: &str) {
        match self.command.find_subcommand(word).filter(|_| self.operands.is_empty()) {
            Some(verb) => {
                let name = verb.get_name().to_string();
                self.verb = if self.verb.is_empty() { name } else { format!("{} {name}", self.verb) };
                self.command = verb.clone();
            }
            None => self.operands.push(word.to_string()),
        }
    }

    fn at_operand(&self) -> Expected {
        if self.command.has_subcommands() {
            return if self.operands.is_empty() { Expected::Verb } else { Expected::Nothing };
        }
        let mut positionals = self.command.get_positionals();
        let is_repeated = |argument: &&Arg| matches!(argument.get_action(), clap::ArgAction::Append);
        let last = self.command.get_positionals().last().filter(is_repeated);
        match positionals.nth(self.operands.len()).or(last) {
            Some(argument) => Expected::Value(Box::new(argument.clone())),
            None => Expected::Nothing,
        }
    }

    /// Of a list the last value alone is typed.
    fn at_value(&mut self, argument: Arg) -> Expected {
        let end = argument.get_value_delimiter().and_then(|delimiter| self.typed.rfind(delimiter));
        if let Some(end) = end {
            let rest = self.typed.split_off(end + 1);
            self.lead.push_str(&self.typed);
            self.typed = rest;
        }
        Expected::Value(Box::new(argument))
    }
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(typed: &str) -> (Place, String) {
        let place = Place::find(&typed.split(' ').map(str::to_string).collect::<Vec<_>>());
        let expected = match &place.expected {
            Expected::Verb => "verb".to_string(),
            Expected::Option => "option".to_string(),
            Expected::Value(argument) => argument.get_id().to_string(),
            Expected::Nothing => "nothing".to_string(),
        };
        let shown = format!("{}|{}|{expected}|{}|{}", place.verb, place.operands.join(","), place.lead, place.typed);
        (place, shown)
    }

    #[test]
    fn every_place_is_found() {
        for (typed, expected) in [
            ("vfioctl", "||nothing||"),
            ("vfioctl ", "||verb||"),
            ("vfioctl bi", "||verb||bi"),
            ("vfioctl --root /mnt -v ", "||verb||"),
            ("vfioctl --ro", "||option||--ro"),
            ("vfioctl bind 3b:00.", "bind||addresses||3b:00."),
            ("vfioctl bind --group 3b:00.1 3b", "bind|3b:00.1|addresses||3b"),
            ("vfioctl bind 3b:00.1 --driver ", "bind|3b:00.1|driver||"),
            ("vfioctl bind --driver=mlx", "bind||driver|--driver=|mlx"),
            ("vfioctl bind --driver mlx5_vfio_pci 3", "bind||addresses||3"),
            ("vfioctl bind --force 3", "bind||addresses||3"),
            ("vfioctl bind --force=network,di", "bind||force|--force=network,|di"),
            ("vfioctl bind --require migration,", "bind||require|migration,|"),
            ("vfioctl bind -", "bind||option||-"),
            ("vfioctl bind -- 3", "bind||addresses||3"),
            ("vfioctl show 3b:00.1 ", "show|3b:00.1|nothing||"),
            ("vfioctl sriov 3b:00.0 ", "sriov|3b:00.0|count||"),
            ("vfioctl list --group ", "list||group||"),
            ("vfioctl list --root=/x --kernel ", "list||kernel||"),
            ("vfioctl libvirt xml ", "libvirt xml||addresses||"),
            ("vfioctl libvirt ", "libvirt||verb||"),
            ("vfioctl driverctl --bus pci set-override 3b:00.1 ", "driverctl set-override|3b:00.1|driver||"),
            ("vfioctl frobnicate ", "|frobnicate|nothing||"),
        ] {
            assert_eq!(at(typed).1, expected, "{typed}");
        }
    }

    #[test]
    fn what_is_known_comes_with_its_help() {
        let words = |typed: &str| at(typed).0.known().into_iter().map(|known| known.word).collect::<Vec<_>>();
        assert!(words("vfioctl ").contains(&"bind".to_string()));
        let options = words("vfioctl bind --strict --require x --");
        assert!(options.contains(&"--force=".to_string()) && options.contains(&"--require".to_string()), "{options:?}");
        assert!(!options.contains(&"--strict".to_string()), "{options:?}");
        assert_eq!(words("vfioctl list --color "), ["auto", "always", "never"]);
        assert!(words("vfioctl bind --force=").contains(&"root-disk".to_string()));
        let all =
            ["", "bind --", "sriov --", "list --", "bind --force=", "bind --require ", "driverctl ", "libvirt xml --"];
        for place in all {
            for candidate in at(&format!("vfioctl {place}")).0.known() {
                assert!(!candidate.help.is_empty(), "{place}{}", candidate.word);
            }
        }
    }
}
