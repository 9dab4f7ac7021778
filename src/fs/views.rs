//! `npy/` and `meta/`: the tree of versions again, each dataset as a .npy file, or as JSON that describes it.
//!
//! Groups have the names that they have in `versions/`, and a dataset's name has a suffix. Where both want the same name, or the suffix makes it too
//! long, the group keeps its own, and the dataset's has a hash before the suffix.

use std::collections::HashSet;
use std::sync::Arc;

use super::directory::child_node;
use super::handles::Handle;
use super::inode::{Node, View};
use super::{
    ChildKind, FsError, Ino, Opened, Snapshot, VersionIndex, VersionKey, Vfs, staged, version_index,
};
use crate::staging::{NodeId, StagedKind, Staging, StagingError, is_temporary_name};
use crate::store::{Child, NAME_MAX_BYTES, shown_forms, suffixed_forms};

/// In each directory of a version in `meta/`, what describes that directory.
pub(crate) const ABOUT: &[u8] = b".json";

impl View {
    /// What a dataset's name ends with.
    fn suffix(self) -> &'static [u8] {
        match self {
            Self::Raw => b"",
            Self::Npy => b".npy",
            Self::Meta => b".json",
        }
    }

    /// All forms in which a directory may show the HDF5 name of a group or dataset, whatever else it contains.
    pub(crate) fn forms(self, name: &[u8], is_group: bool) -> Vec<Vec<u8>> {
        let shown = shown_forms(name);
        if self == Self::Raw {
            return shown;
        }
        let suffix = if is_group { b"" } else { self.suffix() };
        shown
            .iter()
            .flat_map(|shown| suffixed_forms(name, shown, suffix))
            .collect()
    }

    fn suffix_of(self, child: &Child) -> &'static [u8] {
        if is_group(child) { b"" } else { self.suffix() }
    }

    /// Whether no group or dataset can have a name.
    fn is_reserved(self, name: &[u8]) -> bool {
        self == Self::Meta && name == ABOUT
    }
}

/// What `name` means in a group of a version.
pub(crate) fn find(
    snapshot: &Snapshot,
    view: View,
    version: &VersionKey,
    path: &Arc<[u8]>,
    name: &[u8],
) -> Result<Node, FsError> {
    let index = version_index(snapshot, version)?;
    if view.is_reserved(name) {
        return Ok(about(version, path));
    }
    let tree = snapshot.tree(index)?;
    let shown_as = |name| tree.child_shown_as(path, name);
    let child = shown_as(name).filter(|child| is_group(child)).or_else(|| {
        let shown = name.strip_suffix(view.suffix())?;
        shown_as(shown).filter(|child| !is_group(child))
    });
    let child = match child {
        Some(child) => child,
        // Every name that is not the first one wanted has a hash in it.
        None if name.contains(&b'%') => {
            let children = tree.children(path).ok_or(FsError::Stale)?;
            let mut names = names(view, children).into_iter();
            let found = names.find(|(shown, _)| shown == name);
            found.ok_or(FsError::NotFound)?.1
        }
        None => return Err(FsError::NotFound),
    };
    if !is_shown(snapshot, view, index, child)? {
        return Err(FsError::NotFound);
    }
    child_node(snapshot, view, index, version, child)
}

/// Everything in a group of a version.
pub(crate) fn list(
    snapshot: &Snapshot,
    view: View,
    version: &VersionKey,
    path: &Arc<[u8]>,
) -> Result<Vec<(Vec<u8>, Node)>, FsError> {
    let index = version_index(snapshot, version)?;
    let tree = snapshot.tree(index)?;
    let children = tree.children(path).ok_or(FsError::Stale)?;
    let mut entries = Vec::with_capacity(children.len() + 1);
    if view == View::Meta {
        entries.push((ABOUT.to_vec(), about(version, path)));
    }
    for (name, child) in names(view, children) {
        if is_shown(snapshot, view, index, child)? {
            entries.push((name, child_node(snapshot, view, index, version, child)?));
        }
    }
    Ok(entries)
}

fn about(version: &VersionKey, path: &Arc<[u8]>) -> Node {
    Node::About {
        version: version.clone(),
        path: path.clone(),
    }
}

fn is_group(child: &Child) -> bool {
    matches!(child.kind, ChildKind::Group)
}

/// Whether something is there at all in a view.
fn is_shown(
    snapshot: &Snapshot,
    view: View,
    index: VersionIndex,
    child: &Child,
) -> Result<bool, FsError> {
    Ok(view != View::Npy || is_group(child) || snapshot.has_npy(index, &child.path)?)
}

/// What wants a name in a view.
struct Wanting<'n, T> {
    /// Its name where groups and datasets have their own.
    shown: &'n [u8],
    /// Its HDF5 name.
    name: &'n [u8],
    is_group: bool,
    /// What is behind its name.
    suffix: &'static [u8],
    it: T,
}

/// The names of all that a group contains, each another one.
fn names(view: View, children: &[Child]) -> Vec<(Vec<u8>, &Child)> {
    let wanting = children.iter().map(|child| {
        let start = child.path.iter().rposition(|&byte| byte == b'/');
        Wanting {
            shown: &child.shown_name,
            name: &child.path[start.map_or(0, |slash| slash + 1)..],
            is_group: is_group(child),
            suffix: view.suffix_of(child),
            it: child,
        }
    });
    given_names(view, wanting.collect())
}

fn given_names<T>(view: View, wanting: Vec<Wanting<'_, T>>) -> Vec<(Vec<u8>, T)> {
    let mut names = Vec::with_capacity(wanting.len());
    let mut taken = HashSet::new();
    let mut later = Vec::new();
    let (groups, datasets): (Vec<_>, Vec<_>) =
        wanting.into_iter().partition(|wanting| wanting.is_group);
    for wanting in groups.into_iter().chain(datasets) {
        let name = [wanting.shown, wanting.suffix].concat();
        let fits = name.len() <= NAME_MAX_BYTES && !view.is_reserved(&name);
        if fits && taken.insert(name.clone()) {
            names.push((name, wanting.it));
        } else {
            later.push(wanting);
        }
    }
    for wanting in later {
        let forms = suffixed_forms(wanting.name, wanting.shown, wanting.suffix);
        let free = forms
            .into_iter()
            .find(|form| !view.is_reserved(form) && taken.insert(form.clone()));
        if let Some(free) = free {
            names.push((free, wanting.it));
        }
    }
    names
}

/// What `name` means in a group of `npy/staging/`.
pub(crate) fn find_staged(
    staging: &Staging,
    view: View,
    group: NodeId,
    name: &[u8],
) -> Result<Node, FsError> {
    let shown_as = |name: &[u8], kind| match staging.lookup(group, name) {
        Ok(id) => Ok((staging.kind(id)? == kind).then_some(id)),
        Err(StagingError::NotFound) => Ok(None),
        Err(error) => Err(error),
    };
    if let Some(id) = shown_as(name, StagedKind::Group)? {
        return Ok(Node::StagedGroup(view, id));
    }
    let (dataset, may_be_hashed) = match name.strip_suffix(view.suffix()) {
        Some(shown) => (shown_as(shown, StagedKind::Dataset)?, name.contains(&b'%')),
        None if is_temporary_name(name) => (shown_as(name, StagedKind::Dataset)?, false),
        None => (None, false),
    };
    if dataset.is_none() && !may_be_hashed {
        return Err(FsError::NotFound);
    }
    // Whether it is shown, and just so.
    let mut found = list_staged(staging, view, group)?.into_iter();
    let found = found.find(|(shown, _)| shown == name);
    found.map(|(_, node)| node).ok_or(FsError::NotFound)
}

/// Everything in a group of `npy/staging/`.
pub(crate) fn list_staged(
    staging: &Staging,
    view: View,
    group: NodeId,
) -> Result<Vec<(Vec<u8>, Node)>, FsError> {
    let children = staging.list_npy(group)?;
    let wanting = children.iter().map(|child| {
        let is_group = child.kind == StagedKind::Group;
        Wanting {
            shown: &child.shown,
            name: &child.name,
            is_group,
            suffix: if is_group || child.is_temporary {
                b""
            } else {
                view.suffix()
            },
            it: staged::node(view, child.node, child.kind),
        }
    });
    Ok(given_names(view, wanting.collect()))
}

/// The name that a dataset of `npy/staging/` has in `staging/`, if it is called `name` here.
///
/// # Errors
/// [`FsError::NotNpy`].
pub(crate) fn staged_name(name: &[u8]) -> Result<&[u8], FsError> {
    match name.strip_suffix(View::Npy.suffix()) {
        Some(name) if !name.is_empty() => Ok(name),
        None if is_temporary_name(name) => Ok(name),
        _ => Err(FsError::NotNpy),
    }
}

impl Vfs {
    /// Opens a file of `npy/` or `meta/` for reading.
    pub(super) fn open_view(&self, ino: Ino, node: &Node) -> Result<Opened, FsError> {
        let handle = match node {
            Node::Dataset {
                view: View::Npy,
                origin,
                path,
            } => {
                let open = self.file.open_npy(origin, path)?;
                Handle::Npy(ino, Arc::new(open.ok_or(FsError::Stale)?))
            }
            Node::Dataset { origin, path, .. } => {
                let text = self.ask(|snapshot| {
                    let index = version_index(snapshot, origin)?;
                    let dataset = self.file.dataset_in(snapshot, index, path)?;
                    Ok(snapshot.dataset_json(index, &dataset)?)
                })?;
                Handle::Text(text.into())
            }
            Node::About { version, path } => {
                let text = self.ask(|snapshot| {
                    let index = version_index(snapshot, version)?;
                    Ok(snapshot.group_json(index, path)?)
                })?;
                Handle::Text(text.into())
            }
            _ => return Err(FsError::Invalid),
        };
        // Pages that the kernel keeps would have to be kept apart from those of what another program puts in their place.
        let is_text = matches!(handle, Handle::Text(_));
        Ok(Opened {
            handle: self.handles.add(handle),
            keep_cache: !is_text,
            direct_io: is_text,
        })
    }
}

/// As `lseek(2)` has it: all of a text is data.
pub(crate) fn seek_text(text: &[u8], offset: u64, is_hole: bool) -> Option<u64> {
    let len_bytes = text.len() as u64;
    (offset < len_bytes).then_some(if is_hole { len_bytes } else { offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::{Address, H5Error};

    fn child(name: &str, is_group: bool) -> Child {
        Child {
            shown_name: shown_forms(name.as_bytes()).remove(0),
            path: name.as_bytes().into(),
            header: Address(0),
            kind: if is_group {
                ChildKind::Group
            } else {
                ChildKind::Dataset(Err(H5Error::NotHdf5))
            },
        }
    }

    fn is_npy(name: &str) -> bool {
        name.as_bytes().ends_with(b".npy")
    }

    /// Names of groups, which end with `/` here, and datasets, in a view.
    fn shown(view: View, wanted: &[&str]) -> Vec<String> {
        let children: Vec<Child> = wanted
            .iter()
            .map(|name| child(name.trim_end_matches('/'), name.ends_with('/')))
            .collect();
        let names = names(view, &children);
        assert_eq!(names.len(), wanted.len());
        let distinct: HashSet<_> = names.iter().map(|(name, _)| name).collect();
        assert_eq!(distinct.len(), wanted.len());
        for (name, child) in &names {
            let forms = view.forms(&child.path, is_group(child));
            assert!(forms.contains(name), "{forms:?}");
        }
        let text = |name: Vec<u8>| String::from_utf8(name).unwrap();
        names.into_iter().map(|(name, _)| text(name)).collect()
    }

    #[test]
    fn a_dataset_has_a_suffix_and_a_group_none() {
        assert_eq!(shown(View::Npy, &["g/", "x"]), ["g", "x.npy"]);
        assert_eq!(shown(View::Meta, &["g/", "x"]), ["g", "x.json"]);
        assert_eq!(
            shown(View::Npy, &["x", "x.npy", "y.json/"]),
            ["y.json", "x.npy", "x.npy.npy"]
        );
    }

    #[test]
    fn whoever_comes_second_has_a_hash() {
        let names = shown(View::Npy, &["x", "x.npy/"]);
        assert_eq!(names[0], "x.npy");
        assert!(names[1].starts_with("x%") && is_npy(&names[1]));
        assert_eq!(names[1].len(), "x%0123456789abcdef.npy".len());
        // Even where somebody has taken that name too.
        let taken = format!("{}/", names[1]);
        let more = shown(View::Npy, &["x", "x.npy/", &taken]);
        assert_eq!(more[..2], names[..]);
        assert!(more[2].starts_with("x%") && is_npy(&more[2]));

        let names = shown(View::Meta, &[".json/", "y"]);
        assert_eq!(names[0], "y.json");
        assert!(names[1].starts_with(".json%"));
    }

    #[test]
    fn a_long_name_is_cut_before_its_suffix() {
        let (fits, long) = ("x".repeat(251), "y".repeat(252));
        let names = shown(View::Npy, &[&fits, &long, &"z".repeat(300)]);
        assert_eq!(names[0], format!("{fits}.npy"));
        assert!(names[1..].iter().all(|name| name.len() == 255));
        assert!(names[1..].iter().all(|name| is_npy(name)));
    }
}
