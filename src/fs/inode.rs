//! Inodes: what a number stands for, and numbers that stay the same across mounts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use super::control::Control;
use super::{FsError, Ino};
use crate::staging::NodeId;
use crate::store::VersionKey;

/// In which form a part of the tree shows versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum View {
    /// At the mount point itself: datasets are their elements.
    Raw,
    /// `npy/`: datasets are .npy files.
    Npy,
    /// `meta/`: datasets, groups and versions are what describes them.
    Meta,
}

/// What an inode stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// The mount point, `npy/` or `meta/`.
    Top(View),
    /// `versions/`.
    Versions(View),
    /// `at/`.
    At,
    /// `current~N`; `current` with 0.
    Current {
        /// Where.
        view: View,
        /// How many parents back.
        steps: u64,
        /// The name that was looked up.
        name: Arc<[u8]>,
    },
    /// A link in `at/`, by the name that was looked up.
    Time(Arc<[u8]>),
    /// A directory below `versions/`: a version where the path is empty, or a group.
    Group {
        /// Where.
        view: View,
        /// The version.
        version: VersionKey,
        /// HDF5 names joined by `/`.
        path: Arc<[u8]>,
    },
    /// The file in `meta/` that describes the directory which holds it.
    About {
        /// The version.
        version: VersionKey,
        /// HDF5 names of the group joined by `/`; empty for the version itself.
        path: Arc<[u8]>,
    },
    /// A dataset, by the version in which its content first appeared: all versions that share the content share the inode.
    Dataset {
        /// Where.
        view: View,
        /// The version of origin.
        origin: VersionKey,
        /// HDF5 names joined by `/`.
        path: Arc<[u8]>,
    },
    /// `staging/` itself or a group in it. Never in `meta/`, as nothing staged is below.
    StagedGroup(View, NodeId),
    /// A dataset in `staging/`.
    StagedFile(View, NodeId),
    /// A control file of `staging/`.
    Control(Control),
    /// What is no longer there, though somebody has it open: its number must not come to mean anything else.
    Retired(Ino),
}

impl Node {
    /// In which part of the tree it is.
    pub(crate) fn view(&self) -> View {
        match self {
            Self::Top(view)
            | Self::Versions(view)
            | Self::Current { view, .. }
            | Self::Group { view, .. }
            | Self::StagedGroup(view, _)
            | Self::StagedFile(view, _)
            | Self::Dataset { view, .. } => *view,
            Self::About { .. } => View::Meta,
            Self::At | Self::Time(_) | Self::Control(_) | Self::Retired(_) => View::Raw,
        }
    }

    /// The number that the node has unless another one came first: the beginning of the SHA-256 of what identifies it. `mount` tells
    /// apart what has one in this mount only.
    fn preferred_ino(&self, mount: u64) -> Ino {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        // Numbers at the mount point are those that they were before there were other views.
        match self.view() {
            View::Raw => {}
            View::Npy => add(b"in npy"),
            View::Meta => add(b"in meta"),
        }
        match self {
            Self::Top(View::Raw) => return Ino::ROOT,
            Self::Retired(ino) => return *ino,
            Self::Top(_) => add(b"top"),
            Self::Versions(_) => add(b"versions"),
            Self::At => add(b"at"),
            Self::Current { name, .. } => {
                add(b"current");
                add(name);
            }
            Self::Time(name) => {
                add(b"time");
                add(name);
            }
            Self::About { version, path } => {
                add(b"about");
                add(&version.name);
                add(&version.timestamp_ns.to_le_bytes());
                add(path);
            }
            Self::Group { version, path, .. } => {
                add(b"group");
                add(&version.name);
                add(&version.timestamp_ns.to_le_bytes());
                add(path);
            }
            Self::Dataset { origin, path, .. } => {
                add(b"dataset");
                add(&origin.name);
                add(&origin.timestamp_ns.to_le_bytes());
                add(path);
            }
            Self::StagedGroup(_, NodeId::ROOT) => {
                add(b"staged");
                add(&NodeId::ROOT.0.to_le_bytes());
            }
            // The same file under every name that it is given, and in this mount only.
            Self::StagedGroup(_, id) | Self::StagedFile(_, id) => {
                add(b"staged");
                add(&id.0.to_le_bytes());
                add(&mount.to_le_bytes());
            }
            Self::Control(control) => {
                add(b"control");
                add(control.name());
            }
        }
        let digest = hash.finalize();
        let first = digest.first_chunk().expect("SHA-256 has 32 bytes");
        // Signed 64-bit numbers are all that some archivers can store.
        Ino(u64::from_le_bytes(*first) >> 1).after_reserved()
    }
}

impl Ino {
    /// 0 is no inode, and 1 is the root's.
    fn after_reserved(self) -> Self {
        Self(self.0.max(2))
    }
}

/// The inodes that the kernel knows of, with how often it looked each up.
#[derive(Debug)]
pub(crate) struct InodeTable {
    known: RwLock<HashMap<Ino, (Node, u64)>>,
    /// A number of this mount's own: a handle of a staged file that an earlier mount gave out is to lead nowhere, never to
    /// another file.
    mount: u64,
}

impl InodeTable {
    pub(crate) fn new() -> Self {
        let root = HashMap::from([(Ino::ROOT, (Node::Top(View::Raw), 1))]);
        Self {
            known: RwLock::new(root),
            mount: RandomState::new().hash_one(std::process::id()),
        }
    }

    /// What `ino` stands for.
    pub(crate) fn node(&self, ino: Ino) -> Result<Node, FsError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&ino)
            .map(|(node, _)| node.clone())
            .ok_or(FsError::Stale)
    }

    /// The number of a node, without a lookup of it.
    pub(crate) fn ino(&self, node: &Node) -> Ino {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        self.probe(&known, node)
    }

    /// The number of a node that the kernel is told of.
    pub(crate) fn look_up(&self, node: &Node) -> Ino {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let ino = self.probe(&known, node);
        known.entry(ino).or_insert_with(|| (node.clone(), 0)).1 += 1;
        ino
    }

    /// The kernel drops `count` lookups.
    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, lookups)) = known.get_mut(&ino) {
            *lookups = lookups.saturating_sub(count);
            if *lookups == 0 && ino != Ino::ROOT {
                known.remove(&ino);
            }
        }
    }

    /// The first number from the preferred one on that is free or already the node's.
    fn probe(&self, known: &HashMap<Ino, (Node, u64)>, node: &Node) -> Ino {
        let mut ino = node.preferred_ino(self.mount);
        while known.get(&ino).is_some_and(|(other, _)| other != node) {
            ino = Ino((ino.0 + 1) & (u64::MAX >> 1)).after_reserved();
        }
        ino
    }

    /// From now on `ino` stands for `node`.
    pub(crate) fn become_node(&self, ino: Ino, node: Node) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known.get_mut(&ino) {
            entry.0 = node;
        }
    }

    /// Everything that the kernel knows.
    pub(crate) fn known(&self) -> Vec<(Ino, Node)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .map(|(&ino, (node, _))| (ino, node.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(path: &str) -> Node {
        Node::Dataset {
            view: View::Raw,
            origin: VersionKey {
                name: Arc::from(&b"r1"[..]),
                timestamp_ns: 5,
            },
            path: Arc::from(path.as_bytes()),
        }
    }

    #[test]
    fn numbers_are_the_same_in_every_table() {
        let (a, b) = (InodeTable::new(), InodeTable::new());
        b.look_up(&dataset("y"));
        assert_eq!(a.look_up(&dataset("x")), b.look_up(&dataset("x")));
        assert_ne!(a.ino(&dataset("x")), a.ino(&dataset("y")));
        let Node::Dataset { origin, path, .. } = dataset("x") else {
            unreachable!()
        };
        let npy = Node::Dataset {
            view: View::Npy,
            origin,
            path,
        };
        assert_ne!(a.ino(&dataset("x")), a.ino(&npy));
        assert_eq!(
            a.ino(&dataset("x")),
            Ino(530_831_330_618_964_643),
            "the hash must not change between releases"
        );
    }

    #[test]
    fn a_number_is_known_until_every_lookup_is_dropped() {
        let table = InodeTable::new();
        let ino = table.look_up(&dataset("x"));
        assert_eq!(table.look_up(&dataset("x")), ino);
        table.forget(ino, 1);
        assert_eq!(table.node(ino).unwrap(), dataset("x"));
        table.forget(ino, 1);
        assert!(matches!(table.node(ino), Err(FsError::Stale)));
        table.forget(Ino::ROOT, 1);
        assert_eq!(table.node(Ino::ROOT).unwrap(), Node::Top(View::Raw));
    }

    #[test]
    fn a_taken_number_is_passed_over() {
        let table = InodeTable::new();
        let preferred = table.ino(&dataset("x"));
        table
            .known
            .write()
            .unwrap()
            .insert(preferred, (dataset("collides"), 1));
        assert_eq!(table.look_up(&dataset("x")), Ino(preferred.0 + 1));
        assert_eq!(table.look_up(&dataset("x")), Ino(preferred.0 + 1));
    }
}
