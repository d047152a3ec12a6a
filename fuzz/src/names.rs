// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that become paths: of devices, drivers, modules; and what else a user types in one word.

use std::path::{Component, Path};
use std::sync::LazyLock;

use regex::Regex;
use vfioctl::address::Address;
use vfioctl::class::ClassFilter;
use vfioctl::kernel_name::{DriverName, ModuleName};
use vfioctl::libvirt::Uuid;
use vfioctl::policy::Choice;

/// Whatever is taken for a name is one path component, and is written as it is read.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    pci(text);
    names(text);
    if let Some(uuid) = Uuid::parse(text) {
        assert_eq!(Uuid::parse(uuid.as_str()).as_ref(), Some(&uuid));
        assert_eq!(uuid.as_str().len(), 36);
        assert!(uuid.as_str().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')));
    }
    if let Ok(class) = text.parse::<ClassFilter>() {
        // A name may look like digits: `3d` is one.
        let prefix = class.prefix();
        assert!(matches!(prefix.len(), 2 | 4 | 6) && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        assert!(class.matches(&format!("{prefix:0<6}")), "{text:?}");
        assert_eq!(format!("0x{prefix}").parse().as_ref(), Ok(&class), "{text:?}");
    }
}

fn pci(text: &str) {
    static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
        let shape = r"\A(?:([0-9A-Fa-f]{4,8}):)?([0-9A-Fa-f]{2}):([01][0-9A-Fa-f])\.([0-7])\z";
        Regex::new(shape).expect("a constant pattern")
    });
    let captures = SHAPE.captures(text);
    let address = match text.parse::<Address>() {
        Ok(address) => address,
        Err(error) => {
            assert!(captures.is_none(), "{text:?}");
            assert!(!super::has_control(&error.to_string()), "{error:?}");
            return;
        }
    };
    let captures = captures.unwrap_or_else(|| panic!("{text:?} is taken for {address}"));
    let number = |group| captures.get(group).map_or(0, |field| u32::from_str_radix(field.as_str(), 16).unwrap());
    let canonical = format!("{:04x}:{:02x}:{:02x}.{:x}", number(1), number(2), number(3), number(4));
    assert_eq!(address.to_string(), canonical);
    assert_eq!(canonical.parse(), Ok(address));
    assert_eq!(Address::new(number(1), number(2), number(3), number(4)), Some(address));
    assert_eq!(address.with_routing_id(address.routing_id()), address);
    one_component(&canonical);
}

fn names(text: &str) {
    let (driver, module) = (text.parse::<DriverName>(), text.parse::<ModuleName>());
    assert_eq!(driver.is_ok(), module.is_ok());
    let choice = Choice::parse(text);
    assert_eq!(choice.is_ok(), driver.is_ok());
    match (driver, module) {
        (Ok(driver), Ok(module)) => {
            assert_eq!(driver.as_str(), text);
            assert_eq!(module.as_str(), text.replace('-', "_"));
            assert_eq!(module.as_str().parse(), Ok(module.clone()));
            assert!(driver.is_spelled_like(module.as_str()));
            one_component(driver.as_str());
            one_component(module.as_str());
            assert_eq!(choice.unwrap().to_string(), text);
        }
        (Err(error), _) | (_, Err(error)) => assert!(!super::has_control(&error.to_string()), "{error:?}"),
    }
}

/// Joined to a directory it is in that directory, and as an argument it is no option.
fn one_component(name: &str) {
    let components: Vec<Component<'_>> = Path::new(name).components().collect();
    assert_eq!(components, [Component::Normal(name.as_ref())], "{name:?}");
    assert!(![".", ".."].contains(&name) && !name.starts_with('-') && name.len() <= 255);
    assert!(name.bytes().all(|b| b.is_ascii_graphic() && b != b'/'), "{name:?}");
}
