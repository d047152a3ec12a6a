// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules: which devices they are about and what driver these shall have.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, de};
use toml_parser::lexer::TokenKind;

use super::trust::{self, Distrust};
use crate::address::Address;
use crate::class::ClassFilter;
use crate::drop_in::{self, DropInError};
use crate::file;
use crate::guard::{Use, Uses};
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::prepare::Recipe;
use crate::require::Feature;
use crate::sysfs::Device;

/// How deep brackets may stand within each other. A rule needs four.
const DEEPEST: usize = 64;

/// All rules in force, in the order in which they are read: a later one wins.
#[derive(Debug, Default)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Where those are that name an address: each of thousands of devices may have its own.
    by_address: BTreeMap<Address, Vec<usize>>,
    /// And where the others are.
    others: Vec<usize>,
}

/// A policy with one device's own file as it is now.
#[derive(Debug)]
pub struct Renewed<'a> {
    policy: &'a Policy,
    /// The file's name, which it may have in several directories.
    name: PathBuf,
    own: Vec<Rule>,
    /// What is wrong with that file.
    pub errors: Vec<PolicyError>,
}

/// One `[[device]]` table.
#[derive(Clone, Debug)]
pub struct Rule {
    selector: Selector,
    /// The driver such a device shall have.
    pub driver: Choice,
    /// What must come with it.
    pub require: Vec<Feature>,
    /// What this host may lose with such a device.
    pub acknowledged: Uses,
    /// The file it stands in.
    pub file: PathBuf,
    /// What is to be done before.
    recipe: Option<Recipe>,
}

/// The driver a rule asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// `auto`: the best on whatever kernel runs.
    Auto,
    /// `none`: no driver at all.
    None,
    /// This driver.
    Named(DriverName),
}

/// What the policy has to say about a device.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// This rule is the last that is about it.
    Rule(&'a Rule),
    /// A rule is about the device that used to be at this address: this one is to be left alone.
    OtherDevice(&'a Rule),
}

/// A file that cannot be read as policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read at all.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what vfioctl.d(5) describes.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why, in the parser's words.
        message: String,
    },
    /// Others than root could change it: what it says is not done.
    #[error("others than root could change {path}: {distrust}")]
    Distrusted {
        /// The file, or the directory of such files.
        path: PathBuf,
        /// Why.
        distrust: Distrust,
    },
    /// A directory cannot be read.
    #[error(transparent)]
    Directory(#[from] DropInError),
}

impl PolicyError {
    /// What to do about it, where that does not go without saying.
    pub fn hint(&self) -> Option<String> {
        match self {
            PolicyError::Distrusted { distrust, .. } => Some(distrust.hint()),
            _ => None,
        }
    }

    /// The file it is about, if it is about one.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            PolicyError::Read { path, .. }
            | PolicyError::Malformed { path, .. }
            | PolicyError::Distrusted { path, .. } => Some(path),
            PolicyError::Directory(_) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    device: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default, deserialize_with = "address")]
    address: Option<Address>,
    #[serde(default, deserialize_with = "ids")]
    id: Option<String>,
    #[serde(default, deserialize_with = "ids")]
    subsystem: Option<String>,
    #[serde(default, deserialize_with = "class")]
    class: Option<ClassFilter>,
    #[serde(default, deserialize_with = "address")]
    pf: Option<Address>,
    driver: Choice,
    #[serde(default)]
    require: Vec<Feature>,
    #[serde(default)]
    force: Vec<Use>,
    #[serde(default, deserialize_with = "recipe")]
    prepare: Option<Recipe>,
}

/// What a device must be for a rule to be about it: all that is given must hold.
#[derive(Clone, Debug)]
pub struct Selector {
    /// It is here.
    pub address: Option<Address>,
    /// It has these ids: `vendor:device`, in lower case.
    pub id: Option<String>,
    /// It has these subsystem ids.
    pub subsystem: Option<String>,
    /// It is of this class.
    pub class: Option<ClassFilter>,
    /// It is a VF of this PF.
    pub pf: Option<Address>,
}

impl Selector {
    fn is_empty(&self) -> bool {
        let Selector { address, id, subsystem, class, pf } = self;
        address.is_none() && id.is_none() && subsystem.is_none() && class.is_none() && pf.is_none()
    }

    /// Is it about this device?
    pub fn holds(&self, device: &Device) -> bool {
        let modalias = &device.modalias;
        let pair = |vendor: String, device: String| format!("{vendor}:{device}");
        self.address.is_none_or(|address| address == device.address)
            && self.pf.is_none_or(|pf| Some(pf) == device.pf)
            && self.id.as_ref().is_none_or(|id| *id == pair(modalias.vendor(), modalias.device()))
            && self
                .subsystem
                .as_ref()
                .is_none_or(|id| *id == pair(modalias.subsystem_vendor(), modalias.subsystem_device()))
            && self.class.as_ref().is_none_or(|class| class.matches(&modalias.class()))
    }
}

impl Policy {
    /// Reads all drop-ins. A file that is no policy is left out and named; the others count all the same, so that one
    /// mistake does not cost a host its other devices at boot.
    pub fn read(host: &Host) -> (Policy, Vec<PolicyError>) {
        let mut policy = Policy::default();
        let mut errors = Vec::new();
        let mut directories = host.policy_directories().to_vec();
        // Not even to hide others' files: what lies in a directory is the word of whoever may write to it.
        directories.retain(|path| match trust::check_directory(host, path) {
            Ok(()) => true,
            Err(distrust) => {
                errors.push(PolicyError::Distrusted { path: path.clone(), distrust });
                false
            }
        });
        let files = match drop_in::files(&directories, ".toml") {
            Ok(files) => files,
            Err(error) => {
                errors.push(error.into());
                return (policy, errors);
            }
        };
        for path in files {
            match read_file(host, &path) {
                Ok(rules) => policy.add(rules),
                Err(error) => errors.push(error),
            }
        }
        (policy, errors)
    }

    /// Adds rules that are read after those that are there.
    fn add(&mut self, rules: Vec<Rule>) {
        for rule in rules {
            let place = self.rules.len();
            match rule.selector.address {
                Some(address) => self.by_address.entry(address).or_default().push(place),
                None => self.others.push(place),
            }
            self.rules.push(rule);
        }
    }

    /// The same, but for the one file that the verbs write and remove under the device's lock: that is read anew.
    pub fn renew(&self, host: &Host, address: Address) -> Renewed<'_> {
        let name = PathBuf::from(format!("{address}.toml"));
        let (mut own, mut errors) = (Vec::new(), Vec::new());
        for directory in host.policy_directories() {
            let path = directory.join(&name);
            match path.symlink_metadata() {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                // What is there could outrank whatever else there is.
                Err(source) => {
                    errors.push(PolicyError::Read { path, source });
                    break;
                }
            }
            if let Err(distrust) = trust::check_directory(host, &directory) {
                errors.push(PolicyError::Distrusted { path: directory, distrust });
                continue;
            }
            if !drop_in::is_mask(&path) {
                match read_file(host, &path) {
                    Ok(rules) => own = rules,
                    Err(error) => errors.push(error),
                }
            }
            break;
        }
        Renewed { policy: self, name, own, errors }
    }

    /// What it says about a device; `None`: nothing. A rule that names the address outranks those that do not, so that a
    /// choice for one device stands whatever the files are called; among equals the later one wins.
    pub fn decide(&self, device: &Device) -> Option<Decision<'_>> {
        choose(self.naming(device.address), self.without_address(), device)
    }

    /// All rules in the order in which they are asked: the first that is about a device has the say.
    pub fn by_precedence(&self) -> impl Iterator<Item = &Rule> {
        let naming = self.rules.iter().rev().filter(|rule| rule.address().is_some());
        naming.chain(self.without_address().rev())
    }

    fn naming(&self, address: Address) -> impl DoubleEndedIterator<Item = &Rule> + Clone {
        self.by_address.get(&address).into_iter().flatten().map(|&place| &self.rules[place])
    }

    fn without_address(&self) -> impl DoubleEndedIterator<Item = &Rule> + Clone {
        self.others.iter().map(|&place| &self.rules[place])
    }
}

impl Renewed<'_> {
    /// What it says about a device, as [`Policy::decide`].
    pub fn decide(&self, device: &Device) -> Option<Decision<'_>> {
        let is_as_read = |rule: &&Rule| !rule.is_in(self.name.as_os_str());
        let own = |is_naming: bool| self.own.iter().filter(move |rule| rule.address().is_some() == is_naming);
        let own_naming = own(true).filter(|rule| rule.address() == Some(device.address));
        let naming = in_order(self.policy.naming(device.address).filter(is_as_read).chain(own_naming));
        let without_address = in_order(self.policy.without_address().filter(is_as_read).chain(own(false)));
        choose(naming.into_iter(), without_address.into_iter(), device)
    }
}

/// As their files are read; within each the order is kept.
fn in_order<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<&'a Rule> {
    let mut rules: Vec<&Rule> = rules.collect();
    rules.sort_by_key(|rule| rule.file.file_name());
    rules
}

/// Which of the rules that name a device's address, and of those that name none, it is.
fn choose<'a>(
    naming: impl DoubleEndedIterator<Item = &'a Rule> + Clone,
    without_address: impl DoubleEndedIterator<Item = &'a Rule>,
    device: &Device,
) -> Option<Decision<'a>> {
    let holds = |rule: &&Rule| rule.selector.holds(device);
    if let Some(rule) = naming.clone().rev().find(holds).or_else(|| without_address.rev().find(holds)) {
        return Some(Decision::Rule(rule));
    }
    naming.last().map(Decision::OtherDevice)
}

impl Rule {
    /// What a device must be for the rule to be about it.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// What is to be done before a device is bound, if anything.
    pub fn recipe(&self) -> Option<&Recipe> {
        self.recipe.as_ref()
    }

    /// Is it in a file of that name?
    fn is_in(&self, name: &OsStr) -> bool {
        self.file.file_name() == Some(name)
    }

    /// Is it about this device, whatever other rule may come before it?
    pub fn is_about(&self, device: &Device) -> bool {
        self.selector.holds(device)
    }

    /// The address the rule is about, if it names one.
    pub fn address(&self) -> Option<Address> {
        self.selector.address
    }

    /// How this rule is about another device than the one that is at its address now.
    pub fn mismatch(&self, device: &Device) -> String {
        format!(
            "{} is about {}, but {}:{} is there now",
            self.file.display(),
            self.selector.id.as_ref().map_or("another device".to_string(), |id| format!("device {id}")),
            device.modalias.vendor(),
            device.modalias.device()
        )
    }
}

/// The rules of one file.
fn read_file(host: &Host, path: &Path) -> Result<Vec<Rule>, PolicyError> {
    let failed = |source| PolicyError::Read { path: path.to_path_buf(), source };
    let mut opened = file::open(path).map_err(failed)?;
    trust::check(host, &opened, path)
        .map_err(|distrust| PolicyError::Distrusted { path: path.to_path_buf(), distrust })?;
    let text = file::read_open(&mut opened, file::SETTINGS).and_then(file::text).map_err(failed)?;
    parse(&text, path).map_err(|message| PolicyError::Malformed { path: path.to_path_buf(), message })
}

/// Reads the rules of one file, whose text this is; an error says where and why, in the parser's words.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Rule>, String> {
    check_depth(text)?;
    let file: File = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_string())?;
    let mut rules = Vec::with_capacity(file.device.len());
    for Table { address, id, subsystem, class, pf, driver, require, force, prepare } in file.device {
        let selector = Selector { address, id, subsystem, class, pf };
        if selector.is_empty() {
            return Err(
                "a [[device]] without any of address, id, subsystem, class, pf would be about every device".into()
            );
        }
        if driver == Choice::None && !require.is_empty() {
            return Err("require with driver = \"none\": without a driver nothing can be had".into());
        }
        if driver == Choice::None && prepare.is_some() {
            return Err("driver = \"none\" with prepare: there is no driver to prepare the device for".into());
        }
        if let Some(fatal) = force.iter().find(|used_as| used_as.is_fatal()) {
            return Err(format!(
                "force = [\"{}\"]: what this host cannot be without is never given away by a rule",
                fatal.name()
            ));
        }
        let (acknowledged, file) = (force.into_iter().collect(), path.to_path_buf());
        rules.push(Rule { selector, driver, require, acknowledged, file, recipe: prepare });
    }
    Ok(rules)
}

/// The parser's own guard of its stack (`toml_parser` 1.1, `RecursionGuard`) loses count where a table stands in another
/// without a key: many of those would have the stack overflow, which no program survives.
fn check_depth(text: &str) -> Result<(), String> {
    let mut open = Vec::new();
    for token in toml_parser::Source::new(text).lex() {
        let opening = match token.kind() {
            kind @ (TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket) => {
                open.push(kind);
                if open.len() > DEEPEST {
                    let line = 1 + text[..token.span().start()].matches('\n').count();
                    return Err(format!("line {line}: more than {DEEPEST} brackets within each other"));
                }
                continue;
            }
            TokenKind::RightSquareBracket => TokenKind::LeftSquareBracket,
            TokenKind::RightCurlyBracket => TokenKind::LeftCurlyBracket,
            _ => continue,
        };
        if open.last() == Some(&opening) {
            open.pop();
        }
    }
    Ok(())
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

/// `vendor:device`, four hex digits each, in any case.
fn ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_id = |id: &str| id.len() == 4 && id.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split_once(':') {
        Some((vendor, device)) if is_id(vendor) && is_id(device) => Ok(Some(text.to_ascii_lowercase())),
        _ => Err(de::Error::custom(format!(
            "'{}' is not VENDOR:DEVICE, four hex digits each (like 15b3:101e)",
            text.escape_default()
        ))),
    }
}

/// Steps, or the word for those that are known.
fn recipe<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Recipe>, D::Error> {
    Recipe::parse(&toml::Value::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

/// A class by name or by hex digits, as `list --class` takes it.
fn class<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ClassFilter>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|error| de::Error::custom(format!("'{}' is {error}", text.escape_default())))
}

impl Choice {
    /// Reads `auto`, `none` or a driver's name.
    pub fn parse(text: &str) -> Result<Choice, crate::kernel_name::NameError> {
        match text {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            name => name.parse().map(Choice::Named),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.pad("auto"),
            Choice::None => f.pad("none"),
            Choice::Named(driver) => driver.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Choice, D::Error> {
        Choice::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Choice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(address: &str, modalias: &str, pf: Option<&str>) -> Device {
        Device {
            address: address.parse().unwrap(),
            modalias: modalias.parse().unwrap(),
            driver: None,
            iommu_group: None,
            pf: pf.map(|pf| pf.parse().unwrap()),
            vfs: Vec::new(),
        }
    }

    fn vf() -> Device {
        let modalias = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";
        device("0000:3b:00.1", modalias, Some("0000:3b:00.0"))
    }

    fn policy(text: &str) -> Policy {
        let mut policy = Policy::default();
        policy.add(parse(text, Path::new("x.toml")).unwrap());
        policy
    }

    #[test]
    fn every_selector_holds_or_does_not() {
        for (selector, expected) in [
            ("address = '0000:3b:00.1'", true),
            ("address = '3b:00.1'", true),
            ("address = '0000:3b:00.2'", false),
            ("id = '15b3:101e'", true),
            ("id = '15B3:101E'", true),
            ("id = '15b3:1021'", false),
            ("subsystem = '15b3:0023'", true),
            ("subsystem = '15b3:0024'", false),
            ("class = '02'", true),
            ("class = '0200'", true),
            ("class = '020000'", true),
            ("class = '0207'", false),
            ("class = 'network'", true),
            ("class = 'nvme'", false),
            ("pf = '0000:3b:00.0'", true),
            ("pf = '0000:3b:00.1'", false),
            ("id = '15b3:101e'\npf = '0000:3c:00.0'", false),
        ] {
            let rules = policy(&format!("[[device]]\n{selector}\ndriver = 'auto'"));
            let holds = matches!(rules.decide(&vf()), Some(Decision::Rule(_)));
            assert_eq!(holds, expected, "{selector}");
        }
    }

    #[test]
    fn the_last_rule_wins() {
        let rules =
            policy("[[device]]\nclass = '02'\ndriver = 'auto'\n[[device]]\nid = '15b3:101e'\ndriver = 'vfio-pci'");
        let Some(Decision::Rule(rule)) = rules.decide(&vf()) else { panic!() };
        assert_eq!(rule.driver.to_string(), "vfio-pci");
    }

    #[test]
    fn a_rule_for_the_address_outranks_any_other() {
        let rules =
            policy("[[device]]\naddress = '0000:3b:00.1'\ndriver = 'auto'\n[[device]]\nclass = '02'\ndriver = 'none'");
        let Some(Decision::Rule(rule)) = rules.decide(&vf()) else { panic!() };
        assert_eq!(rule.driver, Choice::Auto);
    }

    #[test]
    fn another_device_at_the_address_is_left_alone() {
        let rules = policy("[[device]]\naddress = '0000:3b:00.1'\nid = '8086:1572'\ndriver = 'auto'");
        assert!(matches!(rules.decide(&vf()), Some(Decision::OtherDevice(_))));
        // ... unless another rule is about it.
        let rules = policy(
            "[[device]]\nclass = '02'\ndriver = 'auto'\n\
             [[device]]\naddress = '0000:3b:00.1'\nid = '8086:1572'\ndriver = 'auto'",
        );
        assert!(matches!(rules.decide(&vf()), Some(Decision::Rule(_))));
    }

    #[test]
    fn what_comes_before_the_driver_can_be_written_in_tables() {
        let rules = policy(
            "[[device]]\nclass = '02'\ndriver = 'auto'\n[[device.prepare]]\nrun = ['x', '{pf}']\nundo = ['y']\n\
             [[device.prepare]]\nrun = ['z']\ntimeout = 5\n[[device]]\nid = '15b3:101e'\ndriver = 'auto'",
        );
        let [first, second] = rules.rules.as_slice() else { panic!() };
        let recipe = first.recipe().unwrap().to_string();
        assert_eq!(recipe, r#"[{ run = ["x", "{pf}"], undo = ["y"] }, { run = ["z"], timeout = 5 }]"#);
        assert_eq!(second.recipe(), None);
    }

    #[test]
    fn what_is_required_is_read() {
        let rules = policy(
            "[[device]]\nclass = '01'\ndriver = 'auto'\n\
             [[device]]\nclass = '02'\ndriver = 'auto'\nrequire = ['migration', 'dirty-tracking']",
        );
        let required: Vec<&[Feature]> = rules.rules.iter().map(|rule| rule.require.as_slice()).collect();
        assert_eq!(required, [&[] as &[Feature], &[Feature::Migration, Feature::DirtyTracking]]);
    }

    #[test]
    fn what_may_be_lost_is_read() {
        let rules = policy("[[device]]\nclass = '02'\ndriver = 'auto'\nforce = ['network', 'sound']");
        let acknowledged = rules.rules[0].acknowledged;
        assert!(acknowledged.contains(Use::Network) && !acknowledged.contains(Use::Disk));
    }

    #[test]
    fn brackets_without_end_are_refused() {
        let rule = "[[device]]\nclass = '02'\ndriver = 'auto'\n";
        for (text, expected) in [
            (format!("{rule}prepare = {}", "[".repeat(100_000)), "line 4: more than 64 brackets"),
            (format!("{rule}prepare = {}", "{a=".repeat(100_000)), "line 4: more than 64 brackets"),
            // Each inner table without a key is taken for one level less.
            (format!("x = [{}", "{{}},[".repeat(50_000)), "line 1: more than 64 brackets"),
            (format!("x = [{}", "{{}}\n[".repeat(50_000)), "line 63: more than 64 brackets"),
        ] {
            let message = parse(&text, Path::new("x.toml")).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let many = format!("{rule}prepare = [{}]\n", "['x', '[[[', '{{{{'], ".repeat(1000)).repeat(20);
        assert_eq!(policy(&many).rules.len(), 20);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("[[device]]\ndriver = 'auto'", "every device"),
            ("[[device]]\naddress = '3b'\ndriver = 'auto'", "not a PCI address"),
            ("[[device]]\nid = '15b3'\ndriver = 'auto'", "VENDOR:DEVICE"),
            ("[[device]]\nclass = 'net'\ndriver = 'auto'", "not a class"),
            ("[[device]]\nclass = '02'\ndriver = '../x'", "not a name"),
            ("[[device]]\nclass = '02'", "driver"),
            ("[[device]]\nclass = '02'\ndriver = 'auto'\ndevice_id = 1", "device_id"),
            ("[[device]]\nclass = '02'\ndriver = 'auto'\nprepare = 'yes'", "\"auto\" or a list"),
            ("[[device]]\nclass = '02'\ndriver = 'auto'\nprepare = [['x', '{slot}']]", "unknown placeholder {slot}"),
            ("[[device]]\nclass = '02'\ndriver = 'none'\nprepare = [['x']]", "no driver to prepare"),
            ("[device]\nclass = '02'\ndriver = 'auto'", "sequence"),
            ("[[device]]\nclass = '02'\ndriver = 'auto'\nrequire = ['migrate']", "unknown variant `migrate`"),
            ("[[device]]\nclass = '02'\ndriver = 'auto'\nrequire = 'migration'", "sequence"),
            ("[[device]]\nclass = '02'\ndriver = 'none'\nrequire = ['migration']", "nothing can be had"),
            ("[[device]]\nclass = '02'\ndriver = 'auto'\nforce = ['session']", "never given away by a rule"),
            ("[[device]]\nclass = '02'\ndriver = 'auto'\nforce = ['net']", "unknown variant `net`"),
            ("[[device", "expected"),
        ] {
            let message = parse(text, Path::new("x.toml")).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }

    /// What is in force for a device is that of its own file now, and of the others as they were.
    #[test]
    fn one_file_is_read_anew() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let [etc, .., usr] = host.policy_directories();
        for directory in [&etc, &usr] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let (own, rule) = ("0000:3b:00.1.toml", |address: &str, driver: &str| {
            format!("[[device]]\naddress = \"{address}\"\ndriver = \"{driver}\"\n")
        });
        let by_id = "[[device]]\nid = \"15b3:101e\"\ndriver = \"by-id\"\n";
        std::fs::write(usr.join("50.toml"), by_id).unwrap();
        std::fs::write(etc.join(own), rule("3b:00.1", "first")).unwrap();
        let (before, _) = Policy::read(&host);
        let check = |file: Option<&str>, expected: &str| {
            match file {
                Some(text) => std::fs::write(etc.join(own), text).unwrap(),
                None => std::fs::remove_file(etc.join(own)).unwrap(),
            }
            let (whole, errors) = Policy::read(&host);
            let renewed = before.renew(&host, vf().address);
            assert_eq!(renewed.errors.len(), errors.len(), "{file:?}");
            for decision in [renewed.decide(&vf()), whole.decide(&vf())] {
                let found = match decision {
                    Some(Decision::Rule(rule)) => rule.driver.to_string(),
                    Some(Decision::OtherDevice(_)) => "other".to_string(),
                    None => "none".to_string(),
                };
                assert_eq!(found, expected, "{file:?}");
            }
        };
        check(Some(&rule("3b:00.1", "second")), "second");
        check(Some(&rule("3b:00.2", "of-another")), "by-id");
        check(Some(&format!("{by_id}{}", rule("3b:00.1", "third"))), "third");
        check(Some(&by_id.replace("by-id", "earlier-by-name")), "by-id");
        check(Some("[[device]]\n"), "by-id");
        check(None, "by-id");
        std::fs::write(usr.join(own), rule("3b:00.1", "lower")).unwrap();
        check(Some(""), "by-id");
        check(None, "lower");
    }
}
