// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VF's devlink port, as `devlink -j port show` tells it. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::address::Address;

/// A port and the function behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name: `pci/0000:3b:00.0/196609`.
    pub name: String,
    /// What can be set of the function, and how it is.
    pub function: BTreeMap<String, String>,
}

/// Why a VF's port is not known.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub enum PortError {
    /// Nothing that devlink would say.
    #[error("'devlink -j port show' printed what is not its JSON: {0}")]
    Json(String),
    /// It has none.
    #[error("it has no devlink port")]
    None,
    /// It has more than one.
    #[error("it has several devlink ports: {}", .0.join(", "))]
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Answer {
    port: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    flavour: String,
    vfnum: Option<u32>,
    /// A port of another host's function, as a SmartNIC has them.
    #[serde(default)]
    external: bool,
    #[serde(default)]
    function: BTreeMap<String, Value>,
}

/// Finds the port of one of a PF's VFs.
pub fn find(answer: &[u8], pf: Address, vf_index: u32) -> Result<Port, PortError> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| PortError::Json(error.to_string()))?;
    let handle = format!("pci/{pf}/");
    let is_it = |name: &str, entry: &Entry| {
        name.starts_with(&handle) && entry.flavour == "pcivf" && entry.vfnum == Some(vf_index) && !entry.external
    };
    let mut found: Vec<(String, Entry)> = answer.port.into_iter().filter(|(name, entry)| is_it(name, entry)).collect();
    match found.len() {
        0 => Err(PortError::None),
        1 => {
            let (name, entry) = found.remove(0);
            let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
            let function = entry.function.into_iter().map(|(name, value)| (name, text(value))).collect();
            Ok(Port { name, function })
        }
        _ => Err(PortError::Several(found.into_iter().map(|(name, _)| name).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As devlink 6.10 prints them.
    const PORTS: &str = r#"{"port":{
        "pci/0000:3b:00.0/65535":{"type":"eth","netdev":"ens1np0","flavour":"physical","port":0,"splittable":false},
        "pci/0000:3b:00.0/196608":{"type":"eth","netdev":"eth2","flavour":"pcipf","controller":0,"pfnum":0,"external":false},
        "pci/0000:3b:00.0/196609":{"type":"eth","netdev":"eth3","flavour":"pcivf","controller":0,"pfnum":0,"vfnum":0,
            "external":false,"splittable":false,"function":{"hw_addr":"00:00:00:00:00:00","roce":"enable",
            "migratable":"disable","max_io_eqs":32}},
        "pci/0000:3b:00.0/196610":{"type":"notset","flavour":"pcivf","controller":0,"pfnum":0,"vfnum":1,"external":false},
        "pci/0000:3b:00.0/262145":{"type":"notset","flavour":"pcivf","controller":1,"pfnum":0,"vfnum":1,"external":true},
        "pci/0000:3b:00.0/98304":{"type":"eth","flavour":"pcisf","controller":0,"pfnum":0,"sfnum":88},
        "pci/0000:3b:00.0/7":{"flavour":"pcivf","vfnum":2},
        "pci/0000:3b:00.0/8":{"flavour":"pcivf","vfnum":2},
        "pci/0000:3b:00.1/262145":{"type":"eth","flavour":"pcivf","controller":0,"pfnum":1,"vfnum":0},
        "auxiliary/mlx5_core.eth.0/131071":{"type":"eth","netdev":"ens1v0","flavour":"virtual","splittable":false}}}"#;

    fn found(answer: &str, pf: &str, vf_index: u32) -> Result<Port, PortError> {
        find(answer.as_bytes(), pf.parse().unwrap(), vf_index)
    }

    #[test]
    fn a_vf_has_one_port() {
        let port = found(PORTS, "0000:3b:00.0", 0).unwrap();
        assert_eq!(port.name, "pci/0000:3b:00.0/196609");
        assert_eq!(port.function["migratable"], "disable");
        assert_eq!(port.function["max_io_eqs"], "32");
        // Another host's VF of the same number is another one.
        let port = found(PORTS, "0000:3b:00.0", 1).unwrap();
        assert_eq!((port.name.as_str(), port.function.len()), ("pci/0000:3b:00.0/196610", 0));
        assert_eq!(found(PORTS, "0000:3b:00.1", 0).unwrap().name, "pci/0000:3b:00.1/262145");
    }

    #[test]
    fn what_is_no_port_of_it() {
        assert_eq!(found(PORTS, "0000:3b:00.0", 3), Err(PortError::None));
        assert_eq!(found(PORTS, "0000:3b:00.10".get(..12).unwrap(), 7), Err(PortError::None));
        assert_eq!(found(r#"{"port":{}}"#, "0000:3b:00.0", 0), Err(PortError::None));
        let both = ["pci/0000:3b:00.0/7", "pci/0000:3b:00.0/8"].map(str::to_string).to_vec();
        assert_eq!(found(PORTS, "0000:3b:00.0", 2), Err(PortError::Several(both)));
        for answer in ["", "{", "[]", "{}", r#"{"port":[]}"#, r#"{"port":{"pci/0000:3b:00.0/1":{"vfnum":"x"}}}"#] {
            assert!(matches!(found(answer, "0000:3b:00.0", 0), Err(PortError::Json(_))), "{answer}");
        }
    }
}
