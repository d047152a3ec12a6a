// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a domain's XML to the PCI devices of the host that it asks for. Pure, and with bounds on everything: a file may come
//! from anywhere.
//!
//! What is read is what libvirt reads (`src/conf/domain_conf.c`, `virDomainHostdevDefParseXML`, `virDomainNetDefParseXML`,
//! `virDomainDiskSourceNVMeParse`), and numbers are read as it reads them: it is not for us to be stricter.

use std::collections::BTreeMap;
use std::fmt;

use memchr::{memchr_iter, memmem};
use roxmltree::{Document, Node, ParsingOptions, TextPos};

use crate::address::Address;
use crate::kernel_name::DriverName;

/// The longest XML that is read.
pub const LONGEST: usize = 8 << 20;

/// libxml2 stops at this depth, and so then does libvirt (`xmlParserMaxDepth`).
const DEEPEST: usize = 256;
/// The most elements, attributes of one of them, namespaces and devices. The parser compares each attribute of an element, and
/// each namespace in scope, with all of the others.
const MOST_NODES: u32 = 200_000;
const MOST_ATTRIBUTES: usize = 256;
const MOST_NAMESPACES: usize = 256;
const MOST_DEVICES: usize = 1024;

/// What a domain asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Domain {
    /// Its name.
    pub name: Option<String>,
    /// Its UUID; a definition may leave that to libvirt.
    pub uuid: Option<Uuid>,
    /// The PCI devices of the host, in the order of the document.
    pub devices: Vec<HostDevice>,
    /// The networks of its `<interface type='network'>`. Such a network may be a pool of VFs; which one is taken is known to
    /// libvirt alone, and only after the hook has run.
    pub networks: Vec<String>,
}

/// A PCI device of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostDevice {
    /// Where it is.
    pub address: Address,
    /// What asks for it.
    pub element: Element,
    /// Is libvirt to take it from its driver, and to give it back?
    pub is_managed: bool,
    /// The driver that is named for it.
    pub model: Option<DriverName>,
    /// What is to give it to the guest, if that is not VFIO.
    pub other_backend: Option<String>,
    /// The line it begins on.
    pub line: usize,
}

/// What asks for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element {
    /// `<hostdev mode='subsystem' type='pci'>`.
    Hostdev,
    /// `<interface type='hostdev'>`.
    Interface,
    /// `<disk type='nvme'>`.
    Disk,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::Hostdev => "hostdev",
            Element::Interface => "interface",
            Element::Disk => "disk",
        })
    }
}

/// A domain's UUID, in libvirt's own spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Uuid(String);

impl Uuid {
    /// The text: lower-case digits in groups of 8, 4, 4, 4 and 12.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads 32 hex digits, with hyphens or without (`virUUIDParse`).
    pub fn parse(text: &str) -> Option<Uuid> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let digits = digits.to_ascii_lowercase();
        let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        Some(Uuid(groups.join("-")))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no domain's XML, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct XmlError {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong there.
    pub message: String,
}

/// Reads a domain's XML.
pub fn parse(bytes: &[u8]) -> Result<Domain, XmlError> {
    if bytes.len() > LONGEST {
        return Err(at(bytes, LONGEST, format!("longer than {} MiB", LONGEST >> 20)));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| at(bytes, error.valid_up_to(), "not UTF-8, which is all that libvirt writes".to_string()))?;
    check_bounds(text)?;
    // Without a DTD there are no entities but the five of XML itself.
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(malformed)?;
    check_depth(&document)?;
    Reader { text }.domain(document.root_element())
}

/// What would take the parser long. An attribute's value may not have a `<`, so a tag ends before the next one at the latest.
fn check_bounds(text: &str) -> Result<(), XmlError> {
    let bytes = text.as_bytes();
    if let Some(offset) = memmem::find_iter(bytes, "xmlns").nth(MOST_NAMESPACES) {
        return Err(at(bytes, offset, format!("more than {MOST_NAMESPACES} namespaces")));
    }
    for start in memchr_iter(b'<', bytes) {
        let mut quote = None;
        let mut attributes = 0;
        for &byte in bytes[start + 1..].iter().take_while(|byte| **byte != b'<') {
            match (quote, byte) {
                (Some(open), byte) if open == byte => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'>') => break,
                (None, b'=') => attributes += 1,
                (None, _) => {}
            }
        }
        if attributes > MOST_ATTRIBUTES {
            return Err(at(bytes, start, format!("an element with more than {MOST_ATTRIBUTES} attributes")));
        }
    }
    Ok(())
}

fn check_depth(document: &Document<'_>) -> Result<(), XmlError> {
    let mut depth = 0;
    let mut node = document.root();
    // On foot, since neither the stack nor the time is to grow with the depth.
    loop {
        if let Some(child) = node.first_child() {
            depth += 1;
            if depth > DEEPEST {
                let text = document.input_text().as_bytes();
                return Err(at(text, child.range().start, format!("nested deeper than {DEEPEST} elements")));
            }
            node = child;
            continue;
        }
        loop {
            if let Some(next) = node.next_sibling() {
                node = next;
                break;
            }
            let Some(parent) = node.parent() else { return Ok(()) };
            depth -= 1;
            node = parent;
        }
    }
}

/// The parser's own error, without the position that its text ends with.
fn malformed(error: roxmltree::Error) -> XmlError {
    let TextPos { row: line, col: column } = error.pos();
    let message = match error {
        roxmltree::Error::DtdDetected => "a DTD, which libvirt's XML never has: refused".to_string(),
        roxmltree::Error::NodesLimitReached => format!("more than {MOST_NODES} elements and texts"),
        error => {
            let text = error.to_string();
            text.strip_suffix(&format!(" at {line}:{column}")).unwrap_or(&text).to_string()
        }
    };
    XmlError { line, column, message }
}

fn at(bytes: &[u8], offset: usize, message: String) -> XmlError {
    let before = &bytes[..offset.min(bytes.len())];
    let line = 1 + memchr_iter(b'\n', before).count();
    let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let column = 1 + String::from_utf8_lossy(&before[start..]).chars().count();
    XmlError { line: line as u32, column: column as u32, message }
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn fail(&self, node: Node<'_, '_>, message: String) -> XmlError {
        at(self.text.as_bytes(), node.range().start, message)
    }

    fn domain(&self, root: Node<'_, '_>) -> Result<Domain, XmlError> {
        if !root.has_tag_name("domain") {
            let name = root.tag_name().name();
            return Err(self.fail(root, format!("this is a <{name}>, not a <domain>, as 'virsh dumpxml' prints it")));
        }
        let mut domain = Domain { name: text_of(root, "name"), ..Domain::default() };
        if let Some(node) = child(root, "uuid") {
            let text = node.text().unwrap_or_default();
            let uuid = Uuid::parse(text);
            domain.uuid = Some(uuid.ok_or_else(|| self.fail(node, format!("'{}' is no UUID", text.escape_debug())))?);
        }
        let mut lines = Lines { bytes: self.text.as_bytes(), line: 1, offset: 0 };
        let mut seen: BTreeMap<Address, (Element, usize)> = BTreeMap::new();
        for node in root.children().filter(|node| node.has_tag_name("devices")).flat_map(|devices| devices.children()) {
            if node.has_tag_name("interface") && node.attribute("type") == Some("network") {
                let network = child(node, "source").and_then(|source| source.attribute("network"));
                domain.networks.extend(network.map(str::to_string));
            }
            let Some(mut device) = self.device(node)? else { continue };
            device.line = lines.of(node.range().start);
            match seen.get(&device.address) {
                None => {
                    seen.insert(device.address, (device.element, device.line));
                }
                // Two disks can be two namespaces of one NVMe controller.
                Some((Element::Disk, _)) if device.element == Element::Disk => continue,
                Some((element, line)) => {
                    let message = format!("device {} is asked for twice: <{element}> in line {line}", device.address);
                    return Err(self.fail(node, message));
                }
            }
            if domain.devices.len() == MOST_DEVICES {
                return Err(self.fail(node, format!("more than {MOST_DEVICES} PCI devices")));
            }
            domain.devices.push(device);
        }
        Ok(domain)
    }

    /// A device of the domain, if it is a PCI device of the host.
    fn device(&self, node: Node<'_, '_>) -> Result<Option<HostDevice>, XmlError> {
        let element = match node.tag_name().name() {
            _ if node.tag_name().namespace().is_some() => return Ok(None),
            // Without a mode it is `subsystem`.
            "hostdev" if node.attribute("mode").is_none_or(|mode| mode == "subsystem") => Element::Hostdev,
            "interface" if node.attribute("type") == Some("hostdev") => Element::Interface,
            "disk" if node.attribute("type") == Some("nvme") => Element::Disk,
            _ => return Ok(None),
        };
        if element == Element::Hostdev {
            match node.attribute("type") {
                Some("pci") => {}
                Some(_) => return Ok(None),
                None => return Err(self.fail(node, "a <hostdev> without a type (pci, usb, …)".to_string())),
            }
        }
        let Some(source) = child(node, "source") else {
            return Err(self.fail(node, format!("a <{element}> without a <source>")));
        };
        let Some(address) = child(source, "address") else {
            return Err(self.fail(source, format!("the <source> of a <{element}> without an <address>")));
        };
        if element == Element::Interface && address.attribute("type").is_some_and(|kind| kind != "pci") {
            return Ok(None);
        }
        let driver = child(node, "driver");
        let model = driver.and_then(|driver| driver.attribute("model").map(|model| (driver, model)));
        let model = model
            .map(|(driver, model)| model.parse().map_err(|error| self.fail(driver, format!("model: {error}"))))
            .transpose()?;
        let backend = driver.and_then(|driver| driver.attribute("name")).filter(|_| element != Element::Disk);
        Ok(Some(HostDevice {
            address: self.address(address)?,
            element,
            is_managed: self.is_managed(if element == Element::Disk { source } else { node })?,
            model: model.filter(|_| element != Element::Disk),
            other_backend: backend.filter(|name| !["vfio", "default"].contains(name)).map(str::to_string),
            line: 0,
        }))
    }

    fn is_managed(&self, node: Node<'_, '_>) -> Result<bool, XmlError> {
        match node.attribute("managed") {
            Some("yes") => Ok(true),
            None | Some("no") => Ok(false),
            Some(other) => Err(self.fail(node, format!("managed='{}': it is either yes or no", other.escape_debug()))),
        }
    }

    fn address(&self, node: Node<'_, '_>) -> Result<Address, XmlError> {
        let [domain, bus, slot, function] = [
            self.number(node, "domain", u32::MAX)?,
            self.number(node, "bus", 0xff)?,
            self.number(node, "slot", 0x1f)?,
            self.number(node, "function", 7)?,
        ];
        // `virPCIDeviceAddressIsEmpty`: the address of the host bridge stands for none.
        if (domain, bus, slot) == (0, 0, 0) {
            return Err(self.fail(node, "no PCI address: one of domain, bus and slot must be more than 0".to_string()));
        }
        Ok(Address::new(domain, bus, slot, function).expect("each number was held to its range"))
    }

    /// A number that may be missing, which is 0.
    fn number(&self, node: Node<'_, '_>, name: &str, most: u32) -> Result<u32, XmlError> {
        let Some(text) = node.attribute(name) else { return Ok(0) };
        let shown = || text.chars().take(40).collect::<String>().escape_debug().to_string();
        let Some(number) = number(text) else {
            let message = format!(
                "{name}='{}' is no number to libvirt: 0x1f is hexadecimal, 31 decimal, and what begins with 0 octal",
                shown()
            );
            return Err(self.fail(node, message));
        };
        if number > u64::from(most) {
            return Err(self.fail(node, format!("{name}='{}' is out of range: at most {most:#x}", shown())));
        }
        Ok(number as u32)
    }
}

/// As strtoul(3) with base 0 reads it; the whole text must be a number (`virStrToLong_uip`).
fn number(text: &str) -> Option<u64> {
    let digits = text.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let (digits, radix) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    // `from_str_radix` takes a sign.
    let is_digits = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, radix).ok().filter(|_| is_digits)
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn text_of(node: Node<'_, '_>, name: &str) -> Option<String> {
    Some(child(node, name)?.text()?.trim().to_string())
}

/// Line numbers of offsets that only grow.
struct Lines<'a> {
    bytes: &'a [u8],
    line: usize,
    offset: usize,
}

impl Lines<'_> {
    fn of(&mut self, offset: usize) -> usize {
        self.line += memchr_iter(b'\n', &self.bytes[self.offset..offset]).count();
        self.offset = offset;
        self.line
    }
}
