//! Names: what a directory contains, what a name in it means, and where links lead.

use std::sync::{Arc, Mutex, PoisonError};

use super::inode::{Node, View};
use super::{ChildKind, FsError, Kind, Snapshot, VersionIndex, VersionKey, time, version_index};
use super::{staged, views};
use crate::staging::{NodeId, Staging};
use crate::store::{Child, steps_back};

const CURRENT: &[u8] = b"current";
const VERSIONS: &[u8] = b"versions";
const AT: &[u8] = b"at";
const STAGING: &[u8] = b"staging";
const NPY: &[u8] = b"npy";
const META: &[u8] = b"meta";

/// What a directory contained when it was opened, in the order in which it is listed.
#[derive(Debug)]
pub(crate) struct Listing {
    entries: Vec<(Vec<u8>, Node)>,
}

impl Listing {
    /// The entries behind `offset`, each with the offset behind itself.
    pub(crate) fn entries_behind(&self, offset: u64) -> impl Iterator<Item = (u64, &[u8], &Node)> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        (start as u64 + 1..)
            .zip(&self.entries[start..])
            .map(|(next, (name, node))| (next, name.as_slice(), node))
    }
}

/// A directory that is open.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    node: Node,
    /// What it contained when it was opened or last read from its beginning, and whether anything of that was read.
    listing: Mutex<(Arc<Listing>, bool)>,
}

impl OpenDirectory {
    pub(crate) fn new(node: Node, listing: Listing) -> Self {
        Self {
            node,
            listing: Mutex::new((Arc::new(listing), false)),
        }
    }

    /// What is read from `offset` on: made anew by `list` for whoever goes back to the beginning (`rewinddir(3)`).
    ///
    /// # Errors
    /// Those of `list`.
    pub(crate) fn read_from(
        &self,
        offset: u64,
        list: impl FnOnce(&Node) -> Result<Listing, FsError>,
    ) -> Result<Arc<Listing>, FsError> {
        // The kernel reads a directory for one at a time.
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if offset == 0 && std::mem::replace(&mut listing.1, true) {
            listing.0 = Arc::new(list(&self.node)?);
        }
        Ok(listing.0.clone())
    }
}

/// Whether a node is a directory, a file or a link.
pub(crate) fn kind(node: &Node) -> Kind {
    match node {
        Node::Top(_)
        | Node::Versions(_)
        | Node::At
        | Node::Group { .. }
        | Node::StagedGroup(..) => Kind::Directory,
        Node::Current { .. } | Node::Time(_) => Kind::Symlink,
        Node::About { .. }
        | Node::Dataset { .. }
        | Node::StagedFile(..)
        | Node::Control(_)
        | Node::Retired(_) => Kind::File,
    }
}

/// The node that `name` means in `directory`.
pub(crate) fn find(
    snapshot: &Snapshot,
    staging: Option<&Staging>,
    directory: &Node,
    name: &[u8],
) -> Result<Node, FsError> {
    // Asked for by whoever holds no name, such as a server of NFS.
    match name {
        b"." => return Ok(directory.clone()),
        b".." => return parent(staging, directory),
        _ => {}
    }
    match directory {
        Node::Top(view) => match (view, name) {
            (_, VERSIONS) => Ok(Node::Versions(*view)),
            (View::Raw, AT) => Ok(Node::At),
            (View::Raw, NPY) => Ok(Node::Top(View::Npy)),
            (View::Raw, META) => Ok(Node::Top(View::Meta)),
            (View::Raw | View::Npy, STAGING) if staging.is_some() => {
                Ok(Node::StagedGroup(*view, NodeId::ROOT))
            }
            _ => {
                let steps = parse_current(name).ok_or(FsError::NotFound)?;
                snapshot
                    .history()
                    .before_current(steps)
                    .ok_or(FsError::NotFound)?;
                Ok(Node::Current {
                    view: *view,
                    steps,
                    name: name.into(),
                })
            }
        },
        Node::Versions(view) => {
            let index = snapshot
                .history()
                .by_shown_name(name)
                .ok_or(FsError::NotFound)?;
            Ok(version_directory(snapshot, *view, index))
        }
        Node::At => {
            version_at(snapshot, name)?;
            Ok(Node::Time(name.into()))
        }
        Node::Group {
            view: View::Raw,
            version,
            path,
        } => {
            let index = version_index(snapshot, version)?;
            let tree = snapshot.tree(index)?;
            let child = tree.child_shown_as(path, name).ok_or(FsError::NotFound)?;
            child_node(snapshot, View::Raw, index, version, child)
        }
        Node::Group {
            view,
            version,
            path,
        } => views::find(snapshot, *view, version, path, name),
        Node::StagedGroup(view, id) => {
            staged::find(staging.ok_or(FsError::Stale)?, *view, *id, name)
        }
        Node::About { .. }
        | Node::Dataset { .. }
        | Node::Current { .. }
        | Node::Time(_)
        | Node::StagedFile(..)
        | Node::Control(_)
        | Node::Retired(_) => Err(FsError::NotADirectory),
    }
}

/// Everything in `directory`, `.` and `..` first.
pub(crate) fn list(
    snapshot: &Snapshot,
    staging: Option<&Staging>,
    directory: &Node,
) -> Result<Listing, FsError> {
    let mut entries = vec![
        (b".".to_vec(), directory.clone()),
        (b"..".to_vec(), parent(staging, directory)?),
    ];
    match directory {
        Node::Top(view) => {
            let is_root = *view == View::Raw;
            if is_root {
                entries.push((AT.to_vec(), Node::At));
            }
            if snapshot.history().current().is_some() {
                let current = Node::Current {
                    view: *view,
                    steps: 0,
                    name: CURRENT.into(),
                };
                entries.push((CURRENT.to_vec(), current));
            }
            if is_root {
                entries.push((META.to_vec(), Node::Top(View::Meta)));
                entries.push((NPY.to_vec(), Node::Top(View::Npy)));
            }
            if *view != View::Meta && staging.is_some() {
                entries.push((STAGING.to_vec(), Node::StagedGroup(*view, NodeId::ROOT)));
            }
            entries.push((VERSIONS.to_vec(), Node::Versions(*view)));
        }
        Node::Versions(view) => {
            let versions = snapshot.history().iter();
            entries.extend(versions.map(|(index, version)| {
                (
                    version.shown_name.clone(),
                    version_directory(snapshot, *view, index),
                )
            }));
        }
        Node::At => {
            entries.extend(snapshot.history().times().map(|(instant, _)| {
                let name = time::shown(instant).into_bytes();
                (name.clone(), Node::Time(name.into()))
            }));
        }
        Node::Group {
            view: View::Raw,
            version,
            path,
        } => {
            let index = version_index(snapshot, version)?;
            let tree = snapshot.tree(index)?;
            for child in tree.children(path).ok_or(FsError::Stale)? {
                entries.push((
                    child.shown_name.clone(),
                    child_node(snapshot, View::Raw, index, version, child)?,
                ));
            }
        }
        Node::Group {
            view,
            version,
            path,
        } => entries.extend(views::list(snapshot, *view, version, path)?),
        Node::StagedGroup(view, id) => {
            entries.extend(staged::list(staging.ok_or(FsError::Stale)?, *view, *id)?);
        }
        Node::About { .. }
        | Node::Dataset { .. }
        | Node::Current { .. }
        | Node::Time(_)
        | Node::StagedFile(..)
        | Node::Control(_)
        | Node::Retired(_) => return Err(FsError::NotADirectory),
    }
    Ok(Listing { entries })
}

/// Where a link leads, from the directory that holds it.
pub(crate) fn link_target(snapshot: &Snapshot, node: &Node) -> Result<Vec<u8>, FsError> {
    let prefix: &[u8] = match node {
        Node::Time(_) => b"../versions/",
        _ => b"versions/",
    };
    let version = snapshot.history().version(linked_version(snapshot, node)?);
    Ok([prefix, &version.shown_name].concat())
}

/// The version that a link leads to.
pub(crate) fn linked_version(snapshot: &Snapshot, node: &Node) -> Result<VersionIndex, FsError> {
    match node {
        Node::Current { steps, .. } => snapshot
            .history()
            .before_current(*steps)
            .ok_or(FsError::NotFound),
        Node::Time(name) => version_at(snapshot, name),
        _ => Err(FsError::Invalid),
    }
}

/// The directory of a version.
fn version_directory(snapshot: &Snapshot, view: View, index: VersionIndex) -> Node {
    Node::Group {
        view,
        version: snapshot.history().version(index).key.clone(),
        path: Arc::from(&b""[..]),
    }
}

/// The version that a name in `at/` means.
fn version_at(snapshot: &Snapshot, name: &[u8]) -> Result<VersionIndex, FsError> {
    std::str::from_utf8(name)
        .ok()
        .and_then(time::parse_iso8601)
        .and_then(|instant| snapshot.history().at_or_before(instant))
        .ok_or(FsError::NotFound)
}

/// The node of something in a group of a version.
pub(crate) fn child_node(
    snapshot: &Snapshot,
    view: View,
    index: VersionIndex,
    version: &VersionKey,
    child: &Child,
) -> Result<Node, FsError> {
    if matches!(child.kind, ChildKind::Group) {
        return Ok(Node::Group {
            view,
            version: version.clone(),
            path: child.path.clone(),
        });
    }
    Ok(Node::Dataset {
        view,
        origin: origin(snapshot, index, &child.path)?,
        path: child.path.clone(),
    })
}

/// The version in which the content of a version's dataset first appeared.
pub(crate) fn origin(
    snapshot: &Snapshot,
    version: VersionIndex,
    path: &[u8],
) -> Result<VersionKey, FsError> {
    let sharing = snapshot.sharing()?;
    // What is damaged is shared with nothing.
    let origin = sharing
        .class_of(version, path)
        .map_or(version, |class| sharing.class(class).origin);
    Ok(snapshot.history().version(origin).key.clone())
}

/// The directory above a node; of a dataset that several versions share, the one in its version of origin.
fn parent(staging: Option<&Staging>, node: &Node) -> Result<Node, FsError> {
    Ok(match node {
        Node::Group { view, path, .. } if path.is_empty() => Node::Versions(*view),
        Node::About { version, path } => Node::Group {
            view: View::Meta,
            version: version.clone(),
            path: path.clone(),
        },
        Node::Group {
            view,
            version,
            path,
        }
        | Node::Dataset {
            view,
            origin: version,
            path,
        } => {
            let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            Node::Group {
                view: *view,
                version: version.clone(),
                path: path[..end].into(),
            }
        }
        Node::Time(_) => Node::At,
        Node::Control(_) => Node::StagedGroup(View::Raw, NodeId::ROOT),
        Node::Top(_) | Node::At | Node::Retired(_) => Node::Top(View::Raw),
        Node::Versions(view)
        | Node::Current { view, .. }
        | Node::StagedGroup(view, NodeId::ROOT) => Node::Top(*view),
        Node::StagedGroup(view, id) | Node::StagedFile(view, id) => {
            Node::StagedGroup(*view, staging.ok_or(FsError::Stale)?.parent(*id)?)
        }
    })
}

/// The name of what is `steps` before the current version.
pub(crate) fn current_name(steps: u64) -> Vec<u8> {
    match steps {
        0 => CURRENT.to_vec(),
        steps => [CURRENT, format!("~{steps}").as_bytes()].concat(),
    }
}

/// `current` is 0 steps back, `current~N` is N.
fn parse_current(name: &[u8]) -> Option<u64> {
    let (name, steps) = steps_back(name)?;
    (name == CURRENT).then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_before_the_current_version() {
        assert_eq!(parse_current(b"current"), Some(0));
        assert_eq!(parse_current(b"current~12"), Some(12));
        for name in [&b"current~"[..], b"current1", b"curren", b"currents~1"] {
            assert_eq!(parse_current(name), None);
        }
    }
}
