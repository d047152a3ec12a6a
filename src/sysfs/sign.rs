// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shows in a PF's directory that it is up, in the sense that its VFs' variant driver needs.

use super::node::{Node, ReadError};
use crate::address::Address;
use crate::catalog::PfSign;
use crate::host::Host;

/// What shows that a PF is not up, in a few words; `None`: it is, or there is no telling.
pub fn not_up(host: &Host, pf: Address, sign: &PfSign) -> Result<Option<String>, ReadError> {
    let node = Node::new(host.device(pf));
    match sign {
        PfSign::Attribute { path, value } => match node.read_if_there(path) {
            // Kernels differ in which devices have such an attribute.
            Ok(None) => Ok(None),
            Ok(Some(text)) => Ok((text != *value).then(|| format!("{path} is {text}"))),
            // A driver that has lost its device answers so (`adf_sysfs.c`, `state_show`: EINVAL).
            Err(error) => Ok(Some(error.to_string())),
        },
        PfSign::Entry { prefix } => {
            let is_there = node.names_in("")?.iter().any(|name| name.starts_with(prefix));
            Ok((!is_there).then(|| format!("no {prefix}* in its directory")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn signs() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let pf: Address = "0000:6b:00.0".parse().unwrap();
        let directory = host.device(pf);
        fs::create_dir_all(directory.join("qat")).unwrap();
        let not_up = |sign: &PfSign| not_up(&host, pf, sign).unwrap();
        let state = PfSign::Attribute { path: "qat/state", value: "up" };
        let core = PfSign::Entry { prefix: "mlx5_core." };

        assert_eq!(not_up(&state), None, "not there: no telling");
        assert_eq!(not_up(&core).unwrap(), "no mlx5_core.* in its directory");
        fs::write(directory.join("qat/state"), "down\n").unwrap();
        fs::create_dir(directory.join("mlx5_core.eth.0")).unwrap();
        assert_eq!(not_up(&state).unwrap(), "qat/state is down");
        assert_eq!(not_up(&core), None);
        fs::write(directory.join("qat/state"), "up\n").unwrap();
        assert_eq!(not_up(&state), None);
        fs::remove_file(directory.join("qat/state")).unwrap();
        fs::create_dir(directory.join("qat/state")).unwrap();
        assert!(not_up(&state).unwrap().contains("cannot read"), "unreadable");
    }
}
