// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps as they are written: `prepare` in vfioctl.d(5), `command` and `undo` in the catalogue. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use toml::{Table, Value};

/// What a rule says is to be done before a device is bound.
#[derive(Clone, PartialEq, Debug)]
pub enum Recipe {
    /// `auto`: what the catalogue knows of the driver that is chosen.
    Auto,
    /// These steps, in this order.
    Steps(Vec<Written>),
}

/// A step as it is written.
#[derive(Clone, PartialEq, Debug)]
pub struct Written {
    /// What does it.
    pub run: Template,
    /// What puts it back.
    pub undo: Option<Template>,
    /// How long either may take.
    pub timeout: Option<Duration>,
}

/// A command whose words may have placeholders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    words: Vec<String>,
    parts: Vec<Vec<Part>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Place(Placeholder),
}

/// What a word can leave to be filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placeholder {
    /// The device's address.
    Address,
    /// Its PF's.
    Pf,
    /// Which of the PF's VFs it is, from 0.
    VfIndex,
    /// Its devlink port.
    Port,
}

/// How they are written.
const PLACEHOLDERS: [(&str, Placeholder); 4] = [
    ("address", Placeholder::Address),
    ("pf", Placeholder::Pf),
    ("vf_index", Placeholder::VfIndex),
    ("port", Placeholder::Port),
];

/// Steps that are not written as they should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecipeError {
    /// Neither `auto` nor a list.
    #[error("prepare is \"auto\" or a list of steps, each a list of words, as in [[\"devlink\", \"port\", \"show\"]]")]
    NotAList,
    /// What is in the list.
    #[error("prepare, step {number}: {error}")]
    Step {
        /// Which, from 1.
        number: usize,
        /// Why.
        error: StepError,
    },
}

/// A step that is not written as it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StepError {
    /// Something else than a list of words or a table.
    #[error(
        "a step is a list of words, or a table with run, undo and timeout; there is no shell to take one text apart"
    )]
    NotWords,
    /// A table without what is to be run.
    #[error("run is missing")]
    NoRun,
    /// A key that is none.
    #[error("unknown key '{0}': there are run, undo and timeout")]
    Key(String),
    /// A time that is none.
    #[error("timeout is a number of seconds, more than 0")]
    Timeout,
    /// No program.
    #[error("the first word, the program, is missing")]
    Empty,
    /// A program relative to nobody knows what.
    #[error("'{0}' is relative: a program is one word, looked for in PATH, or begins with /")]
    Relative(String),
    /// A program that depends on the device.
    #[error("the program '{0}' has a placeholder: only its arguments may")]
    Program(String),
    /// A placeholder that is none.
    #[error("'{word}': unknown placeholder {{{name}}}: there are {{address}}, {{pf}}, {{vf_index}} and {{port}}")]
    Placeholder {
        /// The word it is in.
        word: String,
        /// Its name.
        name: String,
    },
    /// A brace alone.
    #[error("'{0}': a brace alone; {{{{ and }}}} stand for one each")]
    Brace(String),
    /// What no program can be given.
    #[error("a word has a NUL byte")]
    Nul,
}

impl Recipe {
    /// Reads the value of `prepare`.
    pub fn parse(value: &Value) -> Result<Recipe, RecipeError> {
        match value {
            Value::String(text) if text == "auto" => Ok(Recipe::Auto),
            Value::Array(steps) => {
                let steps = (1..)
                    .zip(steps)
                    .map(|(number, step)| Written::parse(step).map_err(|error| RecipeError::Step { number, error }));
                Ok(Recipe::Steps(steps.collect::<Result<_, _>>()?))
            }
            _ => Err(RecipeError::NotAList),
        }
    }

    /// Is there nothing to be done, whatever the driver?
    pub fn is_empty(&self) -> bool {
        matches!(self, Recipe::Steps(steps) if steps.is_empty())
    }

    /// As it is written.
    fn to_toml(&self) -> Value {
        match self {
            Recipe::Auto => Value::String("auto".to_string()),
            Recipe::Steps(steps) => Value::Array(steps.iter().map(Written::to_toml).collect()),
        }
    }
}

/// As TOML on one line, whatever the words have in them.
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&on_one_line(&self.to_toml()))
    }
}

/// The crate's own way spreads a text with newlines over lines, and leaves other control characters as they are.
fn on_one_line(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(on_one_line).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key} = {}", on_one_line(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        number => number.to_string(),
    }
}

/// A basic string, without what a terminal would not print.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\'' => quoted.push(character),
            // As in Rust, but for the braces and the number of digits.
            other if other.escape_debug().len() > 1 => quoted.push_str(&format!("\\U{:08X}", u32::from(other))),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

impl Serialize for Recipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_toml().serialize(serializer)
    }
}

impl Written {
    fn parse(value: &Value) -> Result<Written, StepError> {
        let table = match value {
            Value::Array(_) => return Ok(Written { run: words(value)?, undo: None, timeout: None }),
            Value::Table(table) => table,
            _ => return Err(StepError::NotWords),
        };
        if let Some(key) = table.keys().find(|key| !["run", "undo", "timeout"].contains(&key.as_str())) {
            return Err(StepError::Key(key.clone()));
        }
        Ok(Written {
            run: words(table.get("run").ok_or(StepError::NoRun)?)?,
            undo: table.get("undo").map(words).transpose()?,
            timeout: table.get("timeout").map(timeout).transpose()?,
        })
    }

    fn to_toml(&self) -> Value {
        let words = |template: &Template| Value::Array(template.words.iter().cloned().map(Value::String).collect());
        let Written { run, undo, timeout } = self;
        if undo.is_none() && timeout.is_none() {
            return words(run);
        }
        let mut table = Table::new();
        table.insert("run".to_string(), words(run));
        if let Some(undo) = undo {
            table.insert("undo".to_string(), words(undo));
        }
        if let Some(timeout) = timeout {
            let whole = i64::try_from(timeout.as_secs()).ok().filter(|_| timeout.subsec_nanos() == 0);
            let seconds = whole.map_or(Value::Float(timeout.as_secs_f64()), Value::Integer);
            table.insert("timeout".to_string(), seconds);
        }
        Value::Table(table)
    }
}

fn words(value: &Value) -> Result<Template, StepError> {
    let words = value.as_array().ok_or(StepError::NotWords)?;
    let words = words.iter().map(|word| word.as_str().map(str::to_string).ok_or(StepError::NotWords));
    Template::parse(words.collect::<Result<_, _>>()?)
}

fn timeout(value: &Value) -> Result<Duration, StepError> {
    let seconds = match value {
        Value::Integer(seconds) => *seconds as f64,
        Value::Float(seconds) => *seconds,
        _ => return Err(StepError::Timeout),
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero()).ok_or(StepError::Timeout)
}

impl Template {
    /// Reads words.
    pub fn parse(words: Vec<String>) -> Result<Template, StepError> {
        let program = words.first().filter(|program| !program.is_empty()).ok_or(StepError::Empty)?;
        if program.contains('/') && !program.starts_with('/') {
            return Err(StepError::Relative(program.clone()));
        }
        let parts = words.iter().map(|word| parts(word)).collect::<Result<Vec<_>, _>>()?;
        if parts[0].iter().any(|part| matches!(part, Part::Place(_))) {
            return Err(StepError::Program(program.clone()));
        }
        Ok(Template { words, parts })
    }

    /// Does a word leave this to be filled in?
    pub fn asks_for(&self, placeholder: Placeholder) -> bool {
        self.parts.iter().flatten().any(|part| *part == Part::Place(placeholder))
    }

    /// The words, filled in by `value`; where that has none, the placeholder comes back.
    pub fn fill(&self, value: impl Fn(Placeholder) -> Option<String>) -> Result<Vec<String>, Placeholder> {
        let fill = |part: &Part| match part {
            Part::Text(text) => Ok(text.clone()),
            Part::Place(placeholder) => value(*placeholder).ok_or(*placeholder),
        };
        self.parts.iter().map(|parts| parts.iter().map(fill).collect()).collect()
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = PLACEHOLDERS.iter().find(|(_, placeholder)| placeholder == self).expect("each has a name");
        write!(f, "{{{name}}}")
    }
}

fn parts(word: &str) -> Result<Vec<Part>, StepError> {
    if word.contains('\0') {
        return Err(StepError::Nul);
    }
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((brace, after)) = ["{{", "}}"].iter().find_map(|two| Some((&two[..1], rest.strip_prefix(two)?))) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((name, after)) = inner.filter(|(name, _)| !name.contains('{')) else {
            return Err(StepError::Brace(word.to_string()));
        };
        let Some((_, placeholder)) = PLACEHOLDERS.iter().find(|(known, _)| *known == name) else {
            return Err(StepError::Placeholder { word: word.to_string(), name: name.to_string() });
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Place(*placeholder));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe, RecipeError> {
        let table: Table = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        Recipe::parse(&table["prepare"])
    }

    fn filled(word: &str) -> String {
        let template = Template::parse(vec!["x".to_string(), word.to_string()]).unwrap();
        let value = |placeholder| match placeholder {
            Placeholder::Address => Some("0000:3b:00.1".to_string()),
            Placeholder::Pf => Some("0000:3b:00.0".to_string()),
            Placeholder::VfIndex => Some("0".to_string()),
            Placeholder::Port => None,
        };
        template.fill(value).map_or_else(|missing| format!("no {missing}"), |words| words[1].clone())
    }

    #[test]
    fn placeholders_are_filled_in() {
        for (word, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("{address}", "0000:3b:00.1"),
            ("pci/{pf}/{vf_index}", "pci/0000:3b:00.0/0"),
            ("{pf}{pf}", "0000:3b:00.00000:3b:00.0"),
            ("{{pf}}", "{pf}"),
            ("{{{pf}}}", "{0000:3b:00.0}"),
            ("a{{b}}c", "a{b}c"),
            ("$(reboot); `x` *", "$(reboot); `x` *"),
            ("{port}", "no {port}"),
            ("x{vf_index}é{port}", "no {port}"),
        ] {
            assert_eq!(filled(word), expected, "{word}");
        }
    }

    #[test]
    fn recipes_are_read_and_written_back() {
        for (text, is_empty) in [
            ("prepare = 'auto'", false),
            ("prepare = []", true),
            ("prepare = [['devlink', 'port', 'function', 'set', '{port}', 'migratable', 'enable']]", false),
            (
                "prepare = [{ run = ['/bin/x', '{{}}'], undo = ['y', '{pf}'], timeout = 2.5 }, ['z', 'a b', '\"']]",
                false,
            ),
            ("prepare = [{ run = ['x'], timeout = 30 }]", false),
            ("prepare = [['x', \"a\\n\\tb\\u0007\\u001b[2J\\u007f\\u009b\\u202e\\\\'\\\"é\"]]", false),
        ] {
            let recipe = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(recipe.is_empty(), is_empty, "{text}");
            let again = format!("prepare = {recipe}");
            assert!(!again.contains(char::is_control), "{again:?}");
            assert_eq!(parse(&again), Ok(recipe), "{again}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("'yes'", "\"auto\" or a list"),
            ("true", "\"auto\" or a list"),
            ("['devlink', 'port']", "step 1: a step is a list of words"),
            ("[['x'], 'devlink port show']", "step 2: a step is a list of words"),
            ("[['x', 1]]", "a list of words"),
            ("[[]]", "the program, is missing"),
            ("[['']]", "the program, is missing"),
            ("[['bin/x']]", "'bin/x' is relative"),
            ("[['./x']]", "'./x' is relative"),
            ("[['{pf}']]", "only its arguments may"),
            ("[['x', '{vf}']]", "unknown placeholder {vf}"),
            ("[['x', 'a{}']]", "unknown placeholder {}"),
            ("[['x', '{ pf }']]", "unknown placeholder { pf }"),
            ("[['x', '{pf']]", "'{pf': a brace alone"),
            ("[['x', 'pf}']]", "'pf}': a brace alone"),
            ("[['x', '{{pf}']]", "a brace alone"),
            ("[['x', '{a{pf}}']]", "a brace alone"),
            ("[['x', \"\\u0000\"]]", "NUL"),
            ("[{ undo = ['x'] }]", "run is missing"),
            ("[{ run = 'x' }]", "a list of words"),
            ("[{ run = ['x'], undo = ['{x}'] }]", "unknown placeholder {x}"),
            ("[{ run = ['x'], when = 'now' }]", "unknown key 'when'"),
            ("[{ run = ['x'], timeout = 0 }]", "more than 0"),
            ("[{ run = ['x'], timeout = -1.5 }]", "more than 0"),
            ("[{ run = ['x'], timeout = inf }]", "more than 0"),
            ("[{ run = ['x'], timeout = '1' }]", "more than 0"),
        ] {
            let error = parse(&format!("prepare = {text}")).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
