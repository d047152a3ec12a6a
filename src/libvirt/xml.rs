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
const MOST_ATTRIBUTES: usize = 128;
const MOST_NAMESPACES: usize = 256;
const MOST_DEVICES: usize = 1024;

/// The longest message: what is wrong with a document may be quoted from it.
const LONGEST_MESSAGE: usize = 400;

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

impl XmlError {
    /// Messages quote the document, and go to terminals and logs: what is not printable is escaped, what is long cut short.
    fn new(line: u32, column: u32, message: &str) -> XmlError {
        let mut shown = String::new();
        for (count, character) in message.chars().enumerate() {
            match character {
                _ if count == LONGEST_MESSAGE => {
                    shown.push('…');
                    break;
                }
                '\'' | '"' | '\\' => shown.push(character),
                other => shown.extend(other.escape_debug()),
            }
        }
        XmlError { line, column, message: shown }
    }
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
    let document = Document::parse_with_options(text, options).map_err(|error| malformed(text, error))?;
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
fn malformed(text: &str, error: roxmltree::Error) -> XmlError {
    let TextPos { row: line, col: column } = error.pos();
    let message = match error {
        roxmltree::Error::DtdDetected => "a DTD, which libvirt's XML never has: refused".to_string(),
        roxmltree::Error::NodesLimitReached => format!("more than {MOST_NODES} elements and texts"),
        roxmltree::Error::UnclosedRootNode => {
            return at(text.as_bytes(), text.len(), "malformed XML: it ends before its elements do".to_string());
        }
        error => {
            let text = error.to_string();
            format!("malformed XML: {}", text.replace(&format!(" at {line}:{column}"), ""))
        }
    };
    XmlError::new(line, column, &message)
}

fn at(bytes: &[u8], offset: usize, message: String) -> XmlError {
    let before = &bytes[..offset.min(bytes.len())];
    let line = 1 + memchr_iter(b'\n', before).count();
    let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let column = 1 + String::from_utf8_lossy(&before[start..]).chars().count();
    XmlError::new(line as u32, column as u32, &message)
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn fail(&self, node: Node<'_, '_>, message: String) -> XmlError {
        at(self.text.as_bytes(), node.range().start, message)
    }

    fn domain(&self, root: Node<'_, '_>) -> Result<Domain, XmlError> {
        if !is(root, "domain") {
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
        for node in root.children().filter(|node| is(*node, "devices")).flat_map(|devices| devices.children()) {
            if is(node, "interface") && node.attribute("type") == Some("network") {
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

/// Is it an element of this name, and of no other vocabulary?
fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name && node.tag_name().namespace().is_none()
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| is(*child, name))
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    const DOMAIN: &str = "<?xml version='1.0' encoding='UTF-8'?>
<!-- made by hand -->
<domain type='kvm' id='1' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>guest &amp; co</name>
  <uuid>6B1F3C9A8A3E-4c7e-9b8e-1f2d3c4b5a69</uuid>
  <devices>
    <disk type='file' device='disk'><source file='/a'/><target dev='vda'/></disk>
    <disk type='nvme' device='disk'>
      <driver name='qemu' type='raw'/>
      <source type='pci' managed='yes' namespace='1'><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>
      <target dev='vde'/>
    </disk>
    <disk type='nvme' device='disk'>
      <source type='pci' managed='yes' namespace='2'><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>
    </disk>
    <interface type='hostdev' managed='no'>
      <mac address='52:54:00:6d:90:02'/>
      <source><address type='pci' domain='0x0000' bus='0x3b' slot='0x00' function='0x3'/></source>
      <vlan><tag id='42'/></vlan>
      <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/>
    </interface>
    <interface type='network'><source network='passthrough'/></interface>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/></source></hostdev>
    <hostdev mode='subsystem' type='mdev' managed='no'><source><address uuid='x'/></source></hostdev>
    <hostdev mode='capabilities' type='net'><source><interface>eth0</interface></source></hostdev>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <driver name='vfio' model='mlx5_vfio_pci'/>
      <source><address domain='0x10000' bus='59' slot='037' function='0x7'/></source>
      <address type='pci' domain='0x0000' bus='0x07' slot='0x00' function='0x0'/>
    </hostdev>
    <hostdev type='pci'><driver name='kvm'/><source><address bus='0x5'/></source></hostdev>
  </devices>
  <qemu:commandline><qemu:arg value='-hostdev'/></qemu:commandline>
</domain>
";

    fn devices(text: &str) -> Vec<String> {
        let domain = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let line = |device: &HostDevice| {
            let managed = if device.is_managed { "yes" } else { "no" };
            let model = device.model.as_ref().map(|model| format!(" {model}")).unwrap_or_default();
            let other = device.other_backend.as_ref().map(|other| format!(" by {other}")).unwrap_or_default();
            format!("{}: {} {} {managed}{model}{other}", device.line, device.element, device.address)
        };
        domain.devices.iter().map(line).collect()
    }

    /// A hostdev in a domain.
    fn asking(hostdev: &str) -> String {
        format!("<domain>\n<devices>\n{hostdev}</devices>\n</domain>")
    }

    fn error(text: &[u8]) -> String {
        match parse(text) {
            Ok(domain) => panic!("{domain:?} from {}", String::from_utf8_lossy(&text[..text.len().min(500)])),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_libvirt_would_read() {
        assert_eq!(
            devices(DOMAIN),
            [
                "8: disk 0000:01:00.0 yes",
                "16: interface 0000:3b:00.3 no",
                "26: hostdev 10000:3b:1f.7 yes mlx5_vfio_pci",
                "31: hostdev 0000:05:00.0 no by kvm",
            ]
        );
        let domain = parse(DOMAIN.as_bytes()).unwrap();
        assert_eq!(domain.name.as_deref(), Some("guest & co"));
        assert_eq!(domain.uuid.unwrap().as_str(), "6b1f3c9a-8a3e-4c7e-9b8e-1f2d3c4b5a69");
        assert_eq!(domain.networks, ["passthrough"]);
        assert_eq!(parse(b"\xef\xbb\xbf<domain/>"), Ok(Domain::default()));
        // What another vocabulary calls a hostdev is none.
        for foreign in ["<a:devices><hostdev type='pci'/></a:devices>", "<devices><a:hostdev type='pci'/></devices>"] {
            let text = format!("<domain xmlns:a='b'>{foreign}</domain>");
            assert_eq!(parse(text.as_bytes()), Ok(Domain::default()), "{text}");
        }
    }

    #[test]
    fn numbers_as_strtoul_reads_them() {
        for (text, expected) in [
            ("0x1f", Some(31)),
            ("0X1F", Some(31)),
            ("31", Some(31)),
            ("037", Some(31)),
            ("0", Some(0)),
            ("0000", Some(0)),
            (" +0x0003", Some(3)),
            ("08", None),
            ("0x", None),
            ("", None),
            (" ", None),
            ("-1", None),
            ("+-1", None),
            ("0x-1", None),
            ("1 ", None),
            ("1f", None),
            ("\u{0663}", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let hostdev = |address: &str| {
            asking(&format!(
                "  <hostdev type='pci'>\n    <source>\n      <address {address}/>\n    </source>\n  </hostdev>\n"
            ))
        };
        for (text, expected) in [
            ("".to_string(), "line 1, column 1: malformed XML: the document does not have a root node"),
            (
                "<domain>\n<devices></domain>".to_string(),
                "line 2, column 10: malformed XML: expected 'devices' tag, not 'domain'",
            ),
            ("<domain>\n<a".to_string(), "line 2, column 3: malformed XML: it ends before its elements do"),
            ("<domain/><domain/>".to_string(), "line 1, column 10: malformed XML"),
            ("<domain a='1' a='2'/>".to_string(), "malformed XML: attribute 'a' is already defined"),
            ("<domain>&what;</domain>".to_string(), "malformed XML: unknown entity reference 'what'"),
            ("<domain>\u{0}</domain>".to_string(), "malformed XML: a non-XML character"),
            ("<domainsnapshot/>".to_string(), "line 1, column 1: this is a <domainsnapshot>, not a <domain>"),
            ("<domain xmlns='a'/>".to_string(), "not a <domain>"),
            ("<domain>\n <uuid>12</uuid></domain>".to_string(), "line 2, column 2: '12' is no UUID"),
            (hostdev("bus='0x3b' slot='0x20'"), "line 5, column 7: slot='0x20' is out of range: at most 0x1f"),
            (hostdev("bus='256'"), "bus='256' is out of range: at most 0xff"),
            (hostdev("bus='1' function='8'"), "function='8' is out of range: at most 0x7"),
            (hostdev("domain='0x100000000' bus='1'"), "domain='0x100000000' is out of range"),
            (
                hostdev("bus='08'"),
                "bus='08' is no number to libvirt: 0x1f is hexadecimal, 31 decimal, and what begins with 0 octal",
            ),
            (hostdev("bus='-1'"), "bus='-1' is no number"),
            (hostdev("function='1'"), "no PCI address: one of domain, bus and slot must be more than 0"),
            (asking("<hostdev/>"), "line 3, column 1: a <hostdev> without a type"),
            (asking("<hostdev type='pci'/>"), "a <hostdev> without a <source>"),
            (
                asking("<interface type='hostdev'><source/></interface>"),
                "the <source> of a <interface> without an <address>",
            ),
            (
                asking("<hostdev type='pci' managed='maybe'><source><address bus='1'/></source></hostdev>"),
                "managed='maybe': it is either yes or no",
            ),
            (
                asking("<hostdev type='pci'><driver model='../x'/><source><address bus='1'/></source></hostdev>"),
                "model: '../x' is not a name a kernel module or driver can have",
            ),
            (
                asking(&"<hostdev type='pci'><source><address bus='1'/></source></hostdev>\n".repeat(2)),
                "line 4, column 1: device 0000:01:00.0 is asked for twice: <hostdev> in line 3",
            ),
            (
                asking(
                    "<disk type='nvme'><source><address bus='1'/></source></disk><hostdev type='pci'><source><address bus='1'/></source></hostdev>",
                ),
                "is asked for twice: <disk> in line 3",
            ),
        ] {
            let error = error(text.as_bytes());
            assert!(error.contains(expected), "{text}\n{error}");
        }
        assert_eq!(
            error(b"<domain>\n \xe9\xff</domain>"),
            "line 2, column 2: not UTF-8, which is all that libvirt writes"
        );
    }

    #[test]
    fn what_is_quoted_is_printable_and_short() {
        for (text, expected) in [
            ("<domain a='1'\0/>", "expected a whitespace not '\\0'"),
            ("<domain><uuid>\u{9b}1m</uuid></domain>", "'\\u{9b}1m' is no UUID"),
        ] {
            let error = error(text.as_bytes());
            assert!(error.contains(expected) && !error.contains(char::is_control), "{error:?}");
        }
        let long = format!("<{}/>", "a".repeat(1 << 20));
        assert!(error(long.as_bytes()).len() < LONGEST_MESSAGE + 50);
    }

    #[test]
    fn hostile_documents_are_refused_in_time() {
        let mut laughs = "<!DOCTYPE domain [<!ENTITY a 'ha'>".to_string();
        for (name, of) in ('b'..='k').zip('a'..) {
            laughs.push_str(&format!("<!ENTITY {name} '{}'>", format!("&{of};").repeat(10)));
        }
        laughs.push_str("]><domain>&k;</domain>");
        let external = "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>".to_string();
        let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<String>();
        let attributes = many(100_000, &|number| format!(" a{number}=''"));
        let namespaces = many(5_000, &|number| format!("<a xmlns:a{number}='u{number}'>"));
        let hostdev = |number: usize| {
            let (bus, slot, function) = (1 + number / 256, number / 8 % 32, number % 8);
            format!(
                "<hostdev type='pci'><source><address bus='{bus}' slot='{slot}' function='{function}'/></source></hostdev>"
            )
        };
        for (text, expected) in [
            (laughs, "a DTD, which libvirt's XML never has: refused"),
            (external, "a DTD"),
            ("<a>".repeat(2_000_000), "more than 200000 elements and texts"),
            ("<a>".repeat(100_000), "malformed XML: it ends before its elements do"),
            (
                format!("<domain>{}{}</domain>", "<a>".repeat(90_000), "</a>".repeat(90_000)),
                "nested deeper than 256 elements",
            ),
            (format!("<domain>{}</domain>", "<a/>".repeat(1_000_000)), "more than 200000 elements and texts"),
            (format!("<domain><a{attributes}/></domain>"), "an element with more than 128 attributes"),
            (format!("<domain>{namespaces}"), "more than 256 namespaces"),
            (asking(&many(2_000, &hostdev)), "more than 1024 PCI devices"),
            (" ".repeat(LONGEST + 1), "longer than 8 MiB"),
            ("<".repeat(LONGEST), "malformed XML"),
            ("<a b='".repeat(LONGEST / 6), "malformed XML"),
        ] {
            let started = Instant::now();
            let found = error(text.as_bytes());
            let shown = &text[..text.len().min(60)];
            assert!(found.contains(expected), "{shown}: {found}");
            assert!(started.elapsed() < Duration::from_secs(20), "{shown}: {:?}", started.elapsed());
        }
        // What is big but well within bounds is read.
        let big = format!("<domain>{}<devices/></domain>", "<a b='=' c='&lt;'>=</a>".repeat(60_000));
        assert!(parse(big.as_bytes()).is_ok());
        let wide = format!("<domain>{}</domain>", format!("<a{}/>", many(128, &|n| format!(" a{n}=''"))).repeat(6_000));
        let started = Instant::now();
        assert!(parse(wide.as_bytes()).is_ok());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    proptest! {
        /// Whatever is done to a document: an answer, within its bounds, and in time.
        #[test]
        fn no_mutation_is_too_much(
            edits in prop::collection::vec((0..DOMAIN.len(), 0..DOMAIN.len(), 0..40usize, any::<u8>(), 0..5u8), 1..12)
        ) {
            let mut bytes = DOMAIN.as_bytes().to_vec();
            for (place, other, length, byte, kind) in edits {
                let place = place.min(bytes.len());
                let other = other.min(bytes.len());
                let end = (other + length).min(bytes.len());
                match kind {
                    0 => bytes.insert(place, byte),
                    1 if place < bytes.len() => bytes[place] = byte,
                    2 => drop(bytes.drain(other..end)),
                    3 => { let piece = bytes[other..end].to_vec(); bytes.splice(place..place, piece); }
                    _ => bytes.truncate(place.max(40)),
                }
            }
            let started = Instant::now();
            match parse(&bytes) {
                Ok(domain) => prop_assert!(domain.devices.len() <= 8),
                Err(error) => {
                    let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
                    prop_assert!((1..=lines).contains(&(error.line as usize)), "{}", error);
                    prop_assert!(!error.message.is_empty());
                }
            }
            prop_assert!(started.elapsed() < Duration::from_secs(5));
        }

        /// Attributes with whatever in them are an address or an error, never another address.
        #[test]
        fn addresses_are_within_their_ranges(values in prop::collection::vec("[ +-]?(0x|0|)[0-9a-fx]{0,9}", 4)) {
            let [domain, bus, slot, function] = values.as_slice() else { unreachable!() };
            let text = asking(&format!(
                "<hostdev type='pci'><source><address domain='{domain}' bus='{bus}' slot='{slot}' function='{function}'/></source></hostdev>"
            ));
            if let Ok(found) = parse(text.as_bytes()) {
                let numbers = [number(domain), number(bus), number(slot), number(function)].map(Option::unwrap);
                let [domain, bus, slot, function] = numbers;
                prop_assert_eq!(found.devices[0].address.to_string(), format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"));
            }
        }
    }
}
