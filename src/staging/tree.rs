//! The staged tree: which groups and datasets the next version has, and where each comes from. In memory only, and without any bytes.
//!
//! Two kinds of paths occur. *Shown* paths are made of names as a user sees them, and are what the log holds; *true* paths are
//! made of names as the file has them, and are what the base version is asked for. They differ only for names of the base
//! that no path can carry.

mod changes;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

pub(super) use self::changes::Applied;
use super::{NodeId, StagedKind, StagingError};
use crate::store::{ChildKind, VersionTree};

/// Attributes that describe the array begin with this.
pub(super) const STRUCTURAL: &[u8] = b"h5.";

/// A group or dataset.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The group that holds it; `None` for the root, and for what was removed.
    pub(super) parent: Option<NodeId>,
    /// Its name in the file.
    pub(super) name: Vec<u8>,
    /// Its name as shown.
    pub(super) shown: Vec<u8>,
    /// Its true path in the base version; `None` for what is new.
    pub(super) origin: Option<Arc<[u8]>>,
    /// The object of the base version whose attributes it has, but for `attributes`.
    pub(super) attributes_from: Option<Arc<[u8]>>,
    /// Attributes that were set (as they were given) or removed.
    pub(super) attributes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// When it was last changed, short of a dataset's bytes.
    pub(super) modified: Option<SystemTime>,
    pub(super) content: NodeContent,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum NodeContent {
    /// A group, with what it holds by the names as shown.
    Group(BTreeMap<Vec<u8>, NodeId>),
    Dataset(DatasetNode),
}

/// A dataset.
#[derive(Debug, Clone, Default)]
pub(super) struct DatasetNode {
    /// The overlay with its edited bytes.
    pub(super) overlay: Option<u64>,
    /// The dataset of the base version that has its type, as far as it was not declared: itself, or one that it replaced.
    pub(super) described_by: Option<Arc<[u8]>>,
    /// Attributes `h5.*` that were set, as they were given.
    pub(super) declared: BTreeMap<Vec<u8>, Vec<u8>>,
    /// As which .npy file it is being written.
    pub(super) npy: Option<NpyNode>,
}

/// A .npy file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NpyNode {
    /// As much of its header as was written.
    pub(super) header: Vec<u8>,
    /// The overlay with its data, where the dataset is yet to be made of that.
    pub(super) draft: Option<u64>,
}

impl DatasetNode {
    /// The overlays that belong to it.
    pub(super) fn overlays(&self) -> impl Iterator<Item = u64> {
        let draft = self.npy.as_ref().and_then(|npy| npy.draft);
        self.overlay.into_iter().chain(draft)
    }
}

impl Node {
    pub(super) fn kind(&self) -> StagedKind {
        match self.content {
            NodeContent::Group(_) => StagedKind::Group,
            NodeContent::Dataset(_) => StagedKind::Dataset,
        }
    }

    pub(super) fn dataset(&self) -> Option<&DatasetNode> {
        match &self.content {
            NodeContent::Dataset(dataset) => Some(dataset),
            NodeContent::Group(_) => None,
        }
    }

    fn children(&self) -> Result<&BTreeMap<Vec<u8>, NodeId>, StagingError> {
        match &self.content {
            NodeContent::Group(children) => Ok(children),
            NodeContent::Dataset(_) => Err(StagingError::NotADirectory),
        }
    }
}

/// How a path of the tree differs from the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    Added,
    Modified,
    Deleted,
}

/// All groups and datasets.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: HashMap<NodeId, Node>,
    /// What the base version has, by true path.
    base: BTreeMap<Arc<[u8]>, StagedKind>,
    next: u64,
}

impl Tree {
    /// The tree of a base version, or of none. What `old` has at the same path keeps its number.
    pub(super) fn of_base(base: Option<&VersionTree>, old: Option<&Self>) -> Self {
        let old_ids: HashMap<Vec<u8>, (NodeId, StagedKind)> = old
            .map(|old| {
                let objects = old.objects().into_iter();
                objects
                    .filter_map(|(path, id)| {
                        Some((path.to_vec(), (id, old.nodes.get(&id)?.kind())))
                    })
                    .collect()
            })
            .unwrap_or_default();
        let mut tree = Self {
            nodes: HashMap::new(),
            base: BTreeMap::new(),
            next: old.map_or(1, |old| old.next),
        };
        tree.nodes.insert(
            NodeId::ROOT,
            new_node(None, b"", b"", NodeContent::Group(BTreeMap::new())),
        );
        let mut pending: Vec<(Arc<[u8]>, NodeId)> = vec![(Arc::from(&b""[..]), NodeId::ROOT)];
        while let (Some((path, group)), Some(base)) = (pending.pop(), base) {
            for child in base.children(&path).unwrap_or_default() {
                let (kind, content) = match child.kind {
                    ChildKind::Group => (StagedKind::Group, NodeContent::Group(BTreeMap::new())),
                    // What is unreadable says so when it is opened.
                    ChildKind::Dataset(_) | ChildKind::Unreadable(_) => {
                        let dataset = DatasetNode {
                            described_by: Some(child.path.clone()),
                            ..DatasetNode::default()
                        };
                        (StagedKind::Dataset, NodeContent::Dataset(dataset))
                    }
                };
                let id = match old_ids.get(&*child.path) {
                    Some(&(id, old_kind)) if old_kind == kind => id,
                    _ => tree.new_id(),
                };
                let start = if path.is_empty() { 0 } else { path.len() + 1 };
                let mut node = new_node(
                    Some(group),
                    &child.path[start..],
                    &child.shown_name,
                    content,
                );
                node.origin = Some(child.path.clone());
                node.attributes_from = Some(child.path.clone());
                tree.nodes.insert(id, node);
                tree.link(group, &child.shown_name, id);
                tree.base.insert(child.path.clone(), kind);
                if kind == StagedKind::Group {
                    pending.push((child.path.clone(), id));
                }
            }
        }
        tree
    }

    /// # Errors
    /// [`StagingError::Stale`].
    pub(super) fn node(&self, id: NodeId) -> Result<&Node, StagingError> {
        self.nodes.get(&id).ok_or(StagingError::Stale)
    }

    /// To change what is not of the tree's form.
    pub(super) fn node_mut(&mut self, id: NodeId) -> Result<&mut Node, StagingError> {
        self.nodes.get_mut(&id).ok_or(StagingError::Stale)
    }

    /// Forgets a node that was removed, and that nobody has open.
    pub(super) fn forget(&mut self, id: NodeId) {
        if id != NodeId::ROOT
            && self
                .nodes
                .get(&id)
                .is_some_and(|node| node.parent.is_none())
        {
            self.nodes.remove(&id);
        }
    }

    /// Keeps a node of another tree that is in no group any more, and that this tree's base knows nothing of.
    pub(super) fn keep_removed(&mut self, id: NodeId, mut node: Node) {
        node.parent = None;
        node.origin = None;
        node.attributes_from = None;
        if let NodeContent::Dataset(dataset) = &mut node.content {
            dataset.described_by = None;
        }
        self.nodes.entry(id).or_insert(node);
    }

    /// What a group holds, by the names as shown.
    pub(super) fn children(&self, id: NodeId) -> Result<&BTreeMap<Vec<u8>, NodeId>, StagingError> {
        self.node(id)?.children()
    }

    /// The node at a shown path.
    pub(super) fn find(&self, path: &[u8]) -> Result<NodeId, StagingError> {
        let mut id = NodeId::ROOT;
        if path.is_empty() {
            return Ok(id);
        }
        for name in path.split(|&byte| byte == b'/') {
            let children = self.children(id)?;
            id = *children.get(name).ok_or(StagingError::NotFound)?;
        }
        Ok(id)
    }

    /// The path of a node, as shown or as the file has it.
    ///
    /// # Errors
    /// [`StagingError::Stale`] for what was removed.
    pub(super) fn path(&self, id: NodeId, as_shown: bool) -> Result<Vec<u8>, StagingError> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT {
            let node = self.node(at)?;
            names.push(if as_shown { &node.shown } else { &node.name });
            at = node.parent.ok_or(StagingError::Stale)?;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// The shown path of `name` in a group, which need not be there.
    pub(super) fn path_in(&self, group: NodeId, name: &[u8]) -> Result<Vec<u8>, StagingError> {
        self.children(group)?;
        let mut path = self.path(group, true)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }

    /// Whether `id` is `above`, or below it.
    fn is_within(&self, id: NodeId, above: NodeId) -> bool {
        let mut at = Some(id);
        while let Some(id) = at {
            if id == above {
                return true;
            }
            at = self.nodes.get(&id).and_then(|node| node.parent);
        }
        false
    }

    /// Everything but the root by its true path, in the byte order of paths.
    pub(super) fn objects(&self) -> BTreeMap<Arc<[u8]>, NodeId> {
        let mut objects = BTreeMap::new();
        let mut pending = vec![(Vec::new(), NodeId::ROOT)];
        while let Some((path, id)) = pending.pop() {
            let Some(Node {
                content: NodeContent::Group(children),
                ..
            }) = self.nodes.get(&id)
            else {
                continue;
            };
            for (&child, node) in children
                .values()
                .filter_map(|id| Some((id, self.nodes.get(id)?)))
            {
                let mut child_path = path.clone();
                if !path.is_empty() {
                    child_path.push(b'/');
                }
                child_path.extend_from_slice(&node.name);
                objects.insert(Arc::from(&*child_path), child);
                pending.push((child_path, child));
            }
        }
        objects
    }

    /// All datasets at or below a node.
    pub(super) fn datasets_within(&self, id: NodeId) -> Vec<NodeId> {
        let mut found = Vec::new();
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            match self.nodes.get(&id).map(|node| &node.content) {
                Some(NodeContent::Group(children)) => pending.extend(children.values()),
                Some(NodeContent::Dataset(_)) => found.push(id),
                None => {}
            }
        }
        found
    }

    /// What differs from the base, in the byte order of true paths.
    pub(super) fn differences(&self) -> Vec<(Arc<[u8]>, Difference, Option<NodeId>)> {
        let objects = self.objects();
        let mut found: Vec<_> = objects
            .iter()
            .filter_map(|(path, id)| {
                let node = self.nodes.get(id)?;
                let difference = match self.base.get(path) {
                    None => Difference::Added,
                    Some(_) if is_modified(path, node) => Difference::Modified,
                    Some(_) => return None,
                };
                Some((path.clone(), difference, Some(*id)))
            })
            .collect();
        let gone = self.base.keys().filter(|path| !objects.contains_key(*path));
        found.extend(gone.map(|path| (path.clone(), Difference::Deleted, None)));
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// What the base has at a true path.
    pub(super) fn base_kind(&self, path: &[u8]) -> Option<StagedKind> {
        self.base.get(path).copied()
    }

    /// Whether nothing differs from the base.
    pub(super) fn is_pristine(&self) -> bool {
        self.differences().is_empty()
            && self
                .nodes
                .get(&NodeId::ROOT)
                .is_none_or(|root| root.attributes.is_empty())
    }

    fn link(&mut self, group: NodeId, name: &[u8], id: NodeId) {
        if let Some(Node {
            content: NodeContent::Group(children),
            ..
        }) = self.nodes.get_mut(&group)
        {
            children.insert(name.to_vec(), id);
        }
    }

    fn new_id(&mut self) -> NodeId {
        let id = NodeId(self.next);
        self.next += 1;
        id
    }
}

fn new_node(parent: Option<NodeId>, name: &[u8], shown: &[u8], content: NodeContent) -> Node {
    Node {
        parent,
        name: name.to_vec(),
        shown: shown.to_vec(),
        origin: None,
        attributes_from: None,
        attributes: BTreeMap::new(),
        modified: None,
        content,
    }
}

fn is_modified(path: &Arc<[u8]>, node: &Node) -> bool {
    node.origin.as_ref() != Some(path)
        || !node.attributes.is_empty()
        || node.dataset().is_some_and(|dataset| {
            dataset.overlay.is_some() || dataset.npy.is_some() || !dataset.declared.is_empty()
        })
}

#[cfg(test)]
mod tests;
