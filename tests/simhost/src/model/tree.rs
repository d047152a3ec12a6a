// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directories, files and links of a sysfs, as kernfs keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attribute::Attribute;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory and what is in it.
    Dir(BTreeMap<String, Node>),
    /// A file that always reads the same.
    File(Arc<[u8]>),
    /// A file behind which is the driver core.
    Attribute(Attribute),
    /// A symbolic link.
    Link(String),
}

impl Node {
    /// An empty directory.
    pub fn dir() -> Self {
        Node::Dir(BTreeMap::new())
    }

    /// A file with this text.
    pub fn file(text: impl AsRef<[u8]>) -> Self {
        Node::File(text.as_ref().into())
    }

    /// What is in it; nothing in what is not a directory.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        let entries = match self {
            Node::Dir(entries) => Some(entries),
            _ => None,
        };
        entries.into_iter().flatten().map(|(name, node)| (name.as_str(), node))
    }

    /// The node at a path below this one; the empty path is the node itself.
    pub fn get(&self, path: &str) -> Option<&Node> {
        components(path).try_fold(self, |node, name| match node {
            Node::Dir(entries) => entries.get(name),
            _ => None,
        })
    }

    /// As `get`, to change it.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        components(path).try_fold(self, |node, name| match node {
            Node::Dir(entries) => entries.get_mut(name),
            _ => None,
        })
    }

    /// The content of a file that always reads the same.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match self.get(path)? {
            Node::File(content) | Node::Attribute(Attribute::Fixed(content)) => Some(content),
            _ => None,
        }
    }

    /// Puts a node at a path, making the directories that lead to it and replacing what was there.
    pub fn insert(&mut self, path: &str, node: Node) {
        let mut at = self;
        for name in components(path) {
            if !matches!(at, Node::Dir(_)) {
                *at = Node::dir();
            }
            let Node::Dir(entries) = at else { unreachable!("it was just made a directory") };
            at = entries.entry(name.to_owned()).or_insert_with(Node::dir);
        }
        *at = node;
    }

    /// Takes a node and what is below it away.
    pub fn remove(&mut self, path: &str) -> Option<Node> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        match self.get_mut(parent)? {
            Node::Dir(entries) => entries.remove(name),
            _ => None,
        }
    }

    /// Links `path` to `target`, both from the root, by a relative link of the right depth.
    pub fn link(&mut self, path: &str, target: &str) {
        let node = Node::Link(relative(path, target));
        self.insert(path, node);
    }
}

/// The names a path is made of.
fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// How a link at `path` spells `target`: as the kernel does, climbing to what has both in it and so out of a target that
/// has the link itself (fs/sysfs/symlink.c, sysfs_create_link → kernfs_get_target_path).
fn relative(path: &str, target: &str) -> String {
    let from: Vec<&str> = components(path).collect();
    let to: Vec<&str> = components(target).collect();
    let directory = &from[..from.len().saturating_sub(1)];
    let above = &to[..to.len().saturating_sub(1)];
    let common = directory.iter().zip(above).take_while(|(a, b)| a == b).count();
    let climb = std::iter::repeat_n("..", directory.len() - common);
    climb.chain(to[common..].iter().copied()).collect::<Vec<_>>().join("/")
}

/// The path from the root that a link at `path` leads to. None when it climbs out.
pub fn resolve(path: &str, target: &str) -> Option<String> {
    let mut at: Vec<&str> = components(path).collect();
    at.pop();
    if target.starts_with('/') {
        return None;
    }
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                at.pop()?;
            }
            name => at.push(name),
        }
    }
    Some(at.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{Node, resolve};

    #[test]
    fn links_have_the_depth_the_kernel_gives_them() {
        let mut tree = Node::dir();
        for (path, target, spelt) in [
            ("devices/pci0000:00/0000:00:01.0/driver", "bus/pci/drivers/e1000e", "../../../bus/pci/drivers/e1000e"),
            (
                "devices/pci0000:00/0000:00:01.0/0000:01:00.0/driver",
                "bus/pci/drivers/vfio-pci",
                "../../../../bus/pci/drivers/vfio-pci",
            ),
            (
                "bus/pci/drivers/e1000e/0000:00:01.0",
                "devices/pci0000:00/0000:00:01.0",
                "../../../../devices/pci0000:00/0000:00:01.0",
            ),
            ("devices/pci0000:00/0000:00:01.1/physfn", "devices/pci0000:00/0000:00:01.0", "../0000:00:01.0"),
            (
                "devices/pci0000:00/0000:00:01.0/vfio-dev/vfio0/device",
                "devices/pci0000:00/0000:00:01.0",
                "../../../0000:00:01.0",
            ),
        ] {
            tree.link(path, target);
            assert_eq!(tree.get(path), Some(&Node::Link(spelt.into())));
            assert_eq!(resolve(path, spelt).as_deref(), Some(target));
        }
        assert_eq!(resolve("a/b", "../../../c"), None);
    }

    #[test]
    fn nodes_come_and_go() {
        let mut tree = Node::dir();
        tree.insert("a/b/c", Node::file("1\n"));
        assert_eq!(tree.content("a/b/c"), Some(b"1\n".as_slice()));
        assert_eq!(tree.get("a").unwrap().entries().count(), 1);
        assert!(tree.get("a/b/c/d").is_none());
        assert!(tree.remove("a/b").is_some());
        assert!(tree.get("a/b/c").is_none());
        assert!(tree.remove("x/y").is_none());
    }
}
