// SPDX-License-Identifier: MIT OR Apache-2.0
//! Policy: `vfioctl.d/*.toml`.

use std::path::Path;

use vfioctl::host::Host;
use vfioctl::policy::{Draft, Policy, Rule, Terms, parse};

/// What a rule asks for is kept in the words in which it can be read again.
pub fn policy(data: &[u8]) {
    let data = super::grown(data);
    let Ok(text) = std::str::from_utf8(&data) else { return };
    match super::in_time(|| parse(text, Path::new("x.toml"))) {
        Ok(rules) => {
            for rule in &rules {
                in_bounds(rule);
            }
            if let Some(rule) = rules.first() {
                kept(rule);
            }
        }
        Err(message) => assert!(!message.trim().is_empty()),
    }
}

fn in_bounds(rule: &Rule) {
    let selector = rule.selector();
    let is_about = [
        selector.address.is_some(),
        selector.id.is_some(),
        selector.subsystem.is_some(),
        selector.class.is_some(),
        selector.pf.is_some(),
    ];
    assert!(is_about.contains(&true), "a rule about every device");
    for id in [&selector.id, &selector.subsystem].into_iter().flatten() {
        assert!(id.len() == 9 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b':')), "{id:?}");
    }
    let recipe = rule.recipe();
    if rule.driver.to_string() == "none" {
        assert!(recipe.is_none() && rule.require.is_empty());
    }
    if let Some(recipe) = recipe {
        let shown = recipe.to_string();
        assert!(!super::has_control(&shown), "on one line, and harmless: {shown:?}");
        let again =
            parse(&format!("[[device]]\nclass = '02'\ndriver = 'auto'\nprepare = {shown}\n"), Path::new("x.toml"));
        let again = again.unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(again[0].recipe(), Some(recipe), "{shown}");
    }
}

/// Written as `bind` writes it, and read as `apply` reads it.
fn kept(rule: &Rule) {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let root = tempfile::tempdir_in(base).expect("a directory");
    let host = Host::new(root.path(), None).expect("it is there");
    let address = rule.address().unwrap_or("0000:3b:00.1".parse().expect("an address"));
    let modalias = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00".parse().expect("a modalias");
    let terms =
        Terms { driver: &rule.driver, require: &rule.require, acknowledged: rule.acknowledged, recipe: rule.recipe() };
    Draft::write(&host, address, &modalias, terms).and_then(Draft::commit).expect("it can be written");
    let (policy, errors) = Policy::read(&host);
    assert!(errors.is_empty(), "{errors:?}");
    let [read] = policy.rules.as_slice() else { panic!("{:?}", policy.rules) };
    assert_eq!((read.address(), read.selector().id.as_deref()), (Some(address), Some("15b3:101e")));
    assert_eq!((&read.driver, &read.require, read.recipe()), (&rule.driver, &rule.require, rule.recipe()));
    assert_eq!(read.acknowledged, rule.acknowledged);
}
