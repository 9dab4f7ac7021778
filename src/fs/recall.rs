//! What a number stands for that the kernel has forgotten, or that was given out by an earlier mount of the file.
//!
//! Whoever keeps handles instead of names, as a server of NFS does (`name_to_handle_at(2)`), comes back with nothing but the
//! number; the kernel, where it has forgotten it, looks `.` up in it (`fuse_get_dentry` in the kernel's `fs/fuse/inode.c`).
//!
//! Numbers are hashes of what they stand for ([`Node`]), so a number is found by hashing all that is shown. That is done once for
//! each state of the file, and only where somebody asks; 16 bytes are then kept for each inode that a version adds. Not found are
//! names in `at/` that are not listed, what an earlier mount had in `staging/`, and the number that a node was given because
//! its own was taken, which is as rare as two equal hashes of 63 bits.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::control::Control;
use super::inode::{InodeTable, Node, View};
use super::{ChildKind, FsError, Ino, Snapshot, VersionIndex, directory, staged};
use crate::staging::{NodeId, Staging};
use crate::store::{StoreError, time};

const VIEWS: [View; 3] = [View::Raw, View::Npy, View::Meta];

/// Where to look for a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Above all versions.
    Top,
    /// In a version, and in no other before it.
    Version(VersionIndex),
}

/// The numbers of one state of the file.
#[derive(Debug)]
struct Index {
    of: Weak<Snapshot>,
    /// Sorted.
    places: Vec<(Ino, Place)>,
    /// Where numbers could not be had; to be asked again, as what failed may pass.
    missing: Vec<Place>,
}

/// Finds nodes by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    /// Of the state that was last asked for. Held while it is made: nobody makes it twice.
    index: Mutex<Option<Index>>,
}

impl Recall {
    /// The node whose number in `inodes` is `ino`.
    ///
    /// # Errors
    /// [`FsError::Stale`] where there is none, or what is wrong with a version that may have it.
    pub(crate) fn node(
        &self,
        snapshot: &Arc<Snapshot>,
        staging: Option<&Staging>,
        inodes: &InodeTable,
        ino: Ino,
    ) -> Result<Node, FsError> {
        let is_meant = |node: &Node| inodes.ino(node) == ino;
        let error = match self.place(snapshot, inodes, ino) {
            Ok(Some(place)) => {
                let mut nodes = nodes_in(snapshot, place)?.into_iter();
                return nodes.find(is_meant).ok_or(FsError::Stale);
            }
            Ok(None) => FsError::Stale,
            Err(error) => error.into(),
        };
        let mut staged = staging.into_iter().flat_map(staged_nodes);
        staged.find(is_meant).ok_or(error)
    }

    /// Where a number is; `None` where it is nowhere.
    fn place(
        &self,
        snapshot: &Arc<Snapshot>,
        inodes: &InodeTable,
        ino: Ino,
    ) -> Result<Option<Place>, StoreError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match &mut *index {
            Some(index) if std::ptr::eq(index.of.as_ptr(), Arc::as_ptr(snapshot)) => index,
            other => other.insert(Index::of(snapshot)),
        };
        if let Some(place) = index.find(ino) {
            return Ok(Some(place));
        }
        let failed = index.complete(snapshot, inodes);
        match (index.find(ino), failed) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }
}

impl Index {
    /// Nothing yet of a state of the file.
    fn of(snapshot: &Arc<Snapshot>) -> Self {
        let versions = snapshot.history().iter();
        let versions = versions.map(|(index, _)| Place::Version(index));
        Self {
            of: Arc::downgrade(snapshot),
            places: Vec::new(),
            missing: [Place::Top].into_iter().chain(versions).collect(),
        }
    }

    fn find(&self, ino: Ino) -> Option<Place> {
        let found = self.places.binary_search_by_key(&ino, |&(ino, _)| ino);
        found.ok().map(|at| self.places[at].1)
    }

    /// Adds the numbers that are missing, and says why some of them still are.
    fn complete(&mut self, snapshot: &Snapshot, inodes: &InodeTable) -> Option<StoreError> {
        if self.missing.is_empty() {
            return None;
        }
        let mut failed = None;
        let Self {
            places, missing, ..
        } = self;
        missing.retain(|&place| match nodes_in(snapshot, place) {
            Ok(nodes) => {
                places.extend(nodes.iter().map(|node| (inodes.ino(node), place)));
                false
            }
            Err(error) => {
                log::debug!("numbers of {place:?}: {error}");
                failed.get_or_insert(error);
                true
            }
        });
        places.sort_unstable();
        places.shrink_to_fit();
        failed
    }
}

fn nodes_in(snapshot: &Snapshot, place: Place) -> Result<Vec<Node>, StoreError> {
    match place {
        Place::Top => Ok(top_nodes(snapshot)),
        Place::Version(version) => nodes_of_version(snapshot, version),
    }
}

/// Everything that belongs to no version: the folders, and the links to versions.
fn top_nodes(snapshot: &Snapshot) -> Vec<Node> {
    let history = snapshot.history();
    let mut nodes = vec![Node::At];
    for view in VIEWS {
        nodes.extend([Node::Top(view), Node::Versions(view)]);
        // Not as many as a circle of parents in a damaged file has: each version is there once.
        for steps in
            (0..history.len() as u64).take_while(|&steps| history.before_current(steps).is_some())
        {
            nodes.push(Node::Current {
                view,
                steps,
                name: directory::current_name(steps).into(),
            });
        }
    }
    nodes.extend(history.times().map(|(instant, _)| {
        let name = time::shown(instant).into_bytes();
        Node::Time(name.into())
    }));
    nodes
}

/// A version's groups, and the datasets whose content first appeared in it, in all views.
fn nodes_of_version(snapshot: &Snapshot, index: VersionIndex) -> Result<Vec<Node>, StoreError> {
    let version = &snapshot.history().version(index).key;
    let tree = snapshot.tree(index)?;
    let sharing = snapshot.sharing()?;
    let mut nodes = Vec::new();
    let mut add_group = |path: &Arc<[u8]>| {
        nodes.extend(VIEWS.map(|view| Node::Group {
            view,
            version: version.clone(),
            path: path.clone(),
        }));
        nodes.push(Node::About {
            version: version.clone(),
            path: path.clone(),
        });
    };
    add_group(&Arc::from(&b""[..]));
    for child in tree.objects() {
        if matches!(child.kind, ChildKind::Group) {
            add_group(&child.path);
        }
    }
    let is_first = |path: &[u8]| {
        sharing
            .class_of(index, path)
            .is_none_or(|class| sharing.class(class).origin == index)
    };
    for child in tree.objects() {
        if !matches!(child.kind, ChildKind::Group) && is_first(&child.path) {
            nodes.extend(VIEWS.map(|view| Node::Dataset {
                view,
                origin: version.clone(),
                path: child.path.clone(),
            }));
        }
    }
    Ok(nodes)
}

/// Everything in `staging/`.
fn staged_nodes(staging: &Staging) -> impl Iterator<Item = Node> {
    let controls = Control::ALL.into_iter().map(Node::Control);
    let objects = staging.nodes().into_iter();
    let views = [View::Raw, View::Npy];
    let groups = views.map(|view| Node::StagedGroup(view, NodeId::ROOT));
    let objects =
        objects.flat_map(move |(id, kind)| views.map(|view| staged::node(view, id, kind)));
    controls.chain(groups).chain(objects)
}
