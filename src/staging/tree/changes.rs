//! Changes of the staged tree: whether each can be made, and what it makes of the tree.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::super::change::Change;
use super::{DatasetNode, NodeContent, NpyNode, STRUCTURAL, Tree, new_node};
use crate::staging::{NodeId, StagedKind, StagingError};
use crate::store::NAME_MAX_BYTES;

/// What a change did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::staging) struct Applied {
    /// What it is about.
    pub(in crate::staging) node: Option<NodeId>,
    /// What is no longer in the tree.
    pub(in crate::staging) removed: Option<NodeId>,
}

impl Tree {
    /// Whether a change can be made.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::staging) fn check(&self, change: &Change) -> Result<(), StagingError> {
        match change {
            Change::Mkdir { path } | Change::Create { path, .. } => {
                let (group, name) = self.split(path)?;
                check_name(group, name)?;
                if self.children(group)?.contains_key(name) {
                    return Err(StagingError::Exists);
                }
            }
            Change::Edit { path, .. } => {
                let node = self.node(self.find(path)?)?;
                let dataset = node.dataset().ok_or(StagingError::IsADirectory)?;
                if dataset.overlay.is_some() {
                    return Err(StagingError::Exists);
                }
            }
            Change::Remove { path } => {
                let id = self.find(path)?;
                if id == NodeId::ROOT {
                    return Err(StagingError::NotPermitted {
                        what: "removing all",
                    });
                }
                if let NodeContent::Group(children) = &self.node(id)?.content
                    && !children.is_empty()
                {
                    return Err(StagingError::NotEmpty);
                }
            }
            Change::Rename { from, to } => self.check_rename(from, to)?,
            Change::Exchange { from, to } => {
                let (a, b) = (self.find(from)?, self.find(to)?);
                for (path, other) in [(from, b), (to, a)] {
                    let (group, name) = self.split(path)?;
                    check_name(group, name)?;
                    if self.is_within(group, other) {
                        return Err(StagingError::IntoItself);
                    }
                }
            }
            Change::Npy { path, .. } => {
                let node = self.node(self.find(path)?)?;
                node.dataset().ok_or(StagingError::IsADirectory)?;
            }
            Change::Attribute { path, .. } => {
                self.find(path)?;
            }
        }
        Ok(())
    }

    fn check_rename(&self, from: &[u8], to: &[u8]) -> Result<(), StagingError> {
        let id = self.find(from)?;
        if id == NodeId::ROOT {
            return Err(StagingError::NotPermitted {
                what: "renaming all",
            });
        }
        let (group, name) = self.split(to)?;
        check_name(group, name)?;
        if self.is_within(group, id) {
            return Err(StagingError::IntoItself);
        }
        let Some(&target) = self.children(group)?.get(name) else {
            return Ok(());
        };
        match (self.node(id)?.kind(), &self.node(target)?.content) {
            (StagedKind::Dataset, NodeContent::Group(_)) => Err(StagingError::IsADirectory),
            (StagedKind::Group, NodeContent::Dataset(_)) => Err(StagingError::NotADirectory),
            (StagedKind::Group, NodeContent::Group(children))
                if !children.is_empty() && target != id =>
            {
                Err(StagingError::NotEmpty)
            }
            _ => Ok(()),
        }
    }

    /// Makes a change.
    ///
    /// # Errors
    /// As for [`Tree::check`]; nothing is changed then.
    pub(in crate::staging) fn apply(
        &mut self,
        change: &Change,
        now: Option<SystemTime>,
    ) -> Result<Applied, StagingError> {
        self.check(change)?;
        let mut applied = Applied::default();
        match change {
            Change::Mkdir { path } => {
                applied.node = Some(self.add(path, NodeContent::Group(BTreeMap::new()), now)?);
            }
            Change::Create { path, overlay } => {
                let dataset = DatasetNode {
                    overlay: Some(*overlay),
                    ..DatasetNode::default()
                };
                applied.node = Some(self.add(path, NodeContent::Dataset(dataset), now)?);
            }
            Change::Edit { path, overlay, .. } => {
                let id = self.find(path)?;
                if let NodeContent::Dataset(dataset) = &mut self.node_mut(id)?.content {
                    dataset.overlay = Some(*overlay);
                }
                applied.node = Some(id);
            }
            Change::Remove { path } => {
                let id = self.find(path)?;
                self.unlink(id, now)?;
                applied.removed = Some(id);
            }
            Change::Rename { from, to } => {
                let id = self.find(from)?;
                let (group, name) = self.split(to)?;
                applied.node = Some(id);
                let target = self.children(group)?.get(name).copied();
                if target == Some(id) {
                    return Ok(applied);
                }
                if let Some(target) = target {
                    self.inherit(id, target)?;
                    self.unlink(target, now)?;
                    applied.removed = Some(target);
                }
                self.unlink(id, now)?;
                self.place(id, group, name, now)?;
            }
            Change::Exchange { from, to } => {
                let (a, b) = (self.find(from)?, self.find(to)?);
                let (from_group, from_name) = self.split(from)?;
                let (to_group, to_name) = self.split(to)?;
                applied.node = Some(a);
                if a != b {
                    self.unlink(a, now)?;
                    self.unlink(b, now)?;
                    self.place(a, to_group, to_name, now)?;
                    self.place(b, from_group, from_name, now)?;
                }
            }
            Change::Npy {
                path,
                header,
                draft,
            } => {
                let id = self.find(path)?;
                let node = self.node_mut(id)?;
                node.modified = now.or(node.modified);
                if let NodeContent::Dataset(dataset) = &mut node.content {
                    dataset.npy = header.clone().map(|header| NpyNode {
                        header,
                        draft: *draft,
                    });
                }
                applied.node = Some(id);
            }
            Change::Attribute { path, name, value } => {
                let id = self.find(path)?;
                self.set_attribute(id, name, value.clone(), now)?;
                applied.node = Some(id);
            }
        }
        Ok(applied)
    }

    /// Sets or removes an attribute, of a node that need not be in a group any more.
    pub(in crate::staging) fn set_attribute(
        &mut self,
        id: NodeId,
        name: &[u8],
        value: Option<Vec<u8>>,
        now: Option<SystemTime>,
    ) -> Result<(), StagingError> {
        let node = self.node_mut(id)?;
        node.modified = now.or(node.modified);
        match (&mut node.content, value) {
            (NodeContent::Dataset(dataset), value) if name.starts_with(STRUCTURAL) => {
                match value {
                    Some(value) => dataset.declared.insert(name.to_vec(), value),
                    None => dataset.declared.remove(name),
                };
            }
            (_, None) if node.attributes_from.is_none() => {
                node.attributes.remove(name);
            }
            (_, value) => {
                node.attributes.insert(name.to_vec(), value);
            }
        }
        Ok(())
    }

    /// Gives a dataset what it has not, and the one that it replaces has.
    fn inherit(&mut self, id: NodeId, target: NodeId) -> Result<(), StagingError> {
        let replaced = self.node(target)?.clone();
        let node = self.node_mut(id)?;
        let (NodeContent::Dataset(dataset), NodeContent::Dataset(other)) =
            (&mut node.content, replaced.content)
        else {
            return Ok(());
        };
        if node.origin.is_some() {
            return Ok(());
        }
        if dataset.described_by.is_none() {
            dataset.described_by = other.described_by;
        }
        for (name, value) in other.declared {
            dataset.declared.entry(name).or_insert(value);
        }
        if node.attributes_from.is_none() {
            node.attributes_from = replaced.attributes_from;
        }
        for (name, value) in replaced.attributes {
            node.attributes.entry(name).or_insert(value);
        }
        Ok(())
    }

    /// The group that a path leads into, and the last name.
    fn split<'p>(&self, path: &'p [u8]) -> Result<(NodeId, &'p [u8]), StagingError> {
        let (group, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let group = self.find(group)?;
        self.children(group)?;
        Ok((group, name))
    }

    fn add(
        &mut self,
        path: &[u8],
        content: NodeContent,
        now: Option<SystemTime>,
    ) -> Result<NodeId, StagingError> {
        let (group, name) = self.split(path)?;
        let id = self.new_id();
        let mut node = new_node(None, name, name, content);
        node.modified = now;
        self.nodes.insert(id, node);
        self.place(id, group, name, now)?;
        Ok(id)
    }

    fn place(
        &mut self,
        id: NodeId,
        group: NodeId,
        name: &[u8],
        now: Option<SystemTime>,
    ) -> Result<(), StagingError> {
        let node = self.node_mut(id)?;
        node.parent = Some(group);
        if node.shown != name {
            node.name = name.to_vec();
            node.shown = name.to_vec();
        }
        self.link(group, name, id);
        self.touch(group, now);
        Ok(())
    }

    fn unlink(&mut self, id: NodeId, now: Option<SystemTime>) -> Result<(), StagingError> {
        let node = self.node_mut(id)?;
        let (parent, shown) = (node.parent.take(), node.shown.clone());
        if let Some(parent) = parent {
            if let NodeContent::Group(children) = &mut self.node_mut(parent)?.content {
                children.remove(&shown);
            }
            self.touch(parent, now);
        }
        Ok(())
    }

    fn touch(&mut self, group: NodeId, now: Option<SystemTime>) {
        if let Some(node) = self.nodes.get_mut(&group) {
            node.modified = now.or(node.modified);
        }
    }
}

/// Whether something new in `group` can have that name.
fn check_name(group: NodeId, name: &[u8]) -> Result<(), StagingError> {
    let bad = |what| StagingError::BadName {
        name: name.to_vec(),
        what,
    };
    if name.len() > NAME_MAX_BYTES {
        return Err(StagingError::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." {
        return Err(bad("it has a meaning of its own"));
    }
    if name.contains(&0) || name.contains(&b'/') {
        return Err(bad("it has a byte that no name can have"));
    }
    if group == NodeId::ROOT && name == b"versions" {
        return Err(bad("the format keeps its versions under that name"));
    }
    Ok(())
}
