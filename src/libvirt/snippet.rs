// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a domain's XML needs for a device. Pure.

use super::xml::Element;
use crate::address::Address;
use crate::kernel_name::DriverName;
use crate::printable::printable;

/// A device, as a domain asks for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snippet<'a> {
    /// Where it is.
    pub address: Address,
    /// As what it is asked for.
    pub element: Element,
    /// Is libvirt to take it from its driver, and to give it back?
    pub is_managed: bool,
    /// The driver to name for it.
    pub model: Option<&'a DriverName>,
    /// What it is called, for a comment.
    pub name: Option<&'a str>,
}

impl Snippet<'_> {
    /// The XML, in lines.
    pub fn text(&self) -> String {
        let managed = if self.is_managed { "yes" } else { "no" };
        let (open, close, kind) = match self.element {
            Element::Interface => ("interface type='hostdev'", "interface", " type='pci'"),
            Element::Hostdev | Element::Disk => ("hostdev mode='subsystem' type='pci'", "hostdev", ""),
        };
        let [bus, slot, function] = [8, 3, 0].map(|shift| self.address.routing_id() >> shift);
        let mut text = format!("<{open} managed='{managed}'>\n");
        if let Some(name) = self.name {
            text.push_str(&format!("  <!-- {} -->\n", commented(name)));
        }
        if let Some(model) = self.model {
            text.push_str(&format!("  <driver name='vfio' model='{}'/>\n", quoted(model.as_str())));
        }
        text.push_str(&format!(
            "  <source>\n    <address{kind} domain='0x{:04x}' bus='0x{bus:02x}' slot='0x{:02x}' function='0x{:x}'/>\n  </source>\n",
            self.address.domain(),
            slot & 0x1f,
            function & 7
        ));
        text.push_str(&format!("</{close}>\n"));
        text
    }
}

/// A comment may have no two hyphens in a row (XML 1.0, 2.5), nor what XML cannot have at all.
fn commented(name: &str) -> String {
    let name = printable(name).replace(['\u{fffe}', '\u{ffff}'], "");
    name.replace("--", "- -").replace("--", "- -")
}

fn quoted(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt;

    fn snippet<'a>(element: Element, model: Option<&'a DriverName>, name: Option<&'a str>) -> Snippet<'a> {
        Snippet { address: "10000:e1:1f.7".parse().unwrap(), element, is_managed: true, model, name }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let model: DriverName = "it's<a>&b".parse().unwrap();
        for element in [Element::Hostdev, Element::Interface] {
            for model in [None, Some(&model)] {
                for name in [None, Some("Acme -----> <x> & Co. --"), Some("\u{1b}[31m\u{0}\u{ffff}-")] {
                    let text = snippet(element, model, name).text();
                    let domain = format!("<domain><devices>{text}</devices></domain>");
                    let domain = libvirt::parse(domain.as_bytes()).unwrap_or_else(|error| panic!("{error}:\n{text}"));
                    let [device] = domain.devices.as_slice() else { panic!("{text}") };
                    assert_eq!(device.address.to_string(), "10000:e1:1f.7");
                    assert_eq!((device.element, device.is_managed, device.model.as_ref()), (element, true, model));
                }
            }
        }
    }
}
