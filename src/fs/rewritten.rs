//! What becomes of names and numbers that the kernel holds when another program rewrites the file's history: deletes versions, makes
//! them anew under their old names, changes a dataset's type in all of them, or puts another file in the place of this one.
//!
//! A name or an inode that somebody has open stays in the kernel's caches, even where the directory above it is dropped. So
//! each such name is dropped by itself, and an inode whose content can no longer be had keeps its number, which nothing else is
//! given: the pages that the kernel has of it are never mixed with those of what came in its place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::inode::{InodeTable, Node, View};
use super::{Ino, OpenDataset, Snapshot, Stale, VersionedFile, views};

/// Every name below a version that the kernel may hold.
pub(crate) fn names(inodes: &InodeTable) -> Vec<Stale> {
    let known = inodes.known();
    let mut names: HashMap<(View, &[u8]), HashSet<Vec<u8>>> = HashMap::new();
    for (_, node) in &known {
        let (Node::Group { view, path, .. } | Node::Dataset { view, path, .. }) = node else {
            continue;
        };
        if path.is_empty() {
            continue;
        }
        let (folder, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(end) => (&path[..end], &path[end + 1..]),
            None => (&b""[..], &path[..]),
        };
        let is_group = matches!(node, Node::Group { .. });
        let forms = view.forms(name, is_group);
        names.entry((*view, folder)).or_default().extend(forms);
    }
    let mut stale = Vec::new();
    for (ino, node) in &known {
        let Node::Group { view, path, .. } = node else {
            continue;
        };
        let parent = *ino;
        let below = names.get(&(*view, &path[..])).into_iter().flatten();
        stale.extend(below.map(|name| Stale::Name {
            parent,
            name: name.clone(),
        }));
        if *view == View::Meta {
            let name = views::ABOUT.to_vec();
            stale.push(Stale::Name { parent, name });
        }
    }
    stale
}

/// Sets aside the numbers of open files that cannot be read on in the state `new`.
pub(crate) fn retire(
    inodes: &InodeTable,
    file: &VersionedFile,
    new: &Arc<Snapshot>,
    open: &[(Ino, Arc<OpenDataset>)],
) {
    let mut seen = HashSet::new();
    for (ino, dataset) in open {
        if seen.insert(*ino) && !file.goes_on(dataset, new) {
            inodes.become_node(*ino, Node::Retired(*ino));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{VersionKey, shown_forms};

    #[test]
    fn names_are_those_of_every_known_version() {
        let inodes = InodeTable::new();
        let version = |name: &str| VersionKey {
            name: name.as_bytes().into(),
            timestamp_ns: 1,
        };
        let group = |name: &str, path: &str| Node::Group {
            view: View::Raw,
            version: version(name),
            path: path.as_bytes().into(),
        };
        let dataset = |path: &[u8]| Node::Dataset {
            view: View::Raw,
            origin: version("r1"),
            path: path.into(),
        };
        for node in [
            group("r1", ""),
            group("r2", ""),
            group("r2", "g"),
            dataset(b"x"),
            dataset(b"g/.."),
        ] {
            inodes.look_up(&node);
        }
        let mut found: Vec<_> = names(&inodes)
            .into_iter()
            .map(|stale| match stale {
                Stale::Name { parent, name } => (parent, name),
                other => panic!("{other:?}"),
            })
            .collect();
        let mut expected: Vec<_> = [("r1", "x"), ("r1", "g"), ("r2", "x"), ("r2", "g")]
            .map(|(name, child)| (inodes.ino(&group(name, "")), child.into()))
            .into();
        let below = inodes.ino(&group("r2", "g"));
        expected.extend(shown_forms(b"..").into_iter().map(|name| (below, name)));
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}
