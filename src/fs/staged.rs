//! What `staging/` shows: its names, their attributes, and the handles of files that are open in it.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::SystemTime;

use super::control::Control;
use super::inode::{InodeTable, Node, View};
use super::stat::writable_permissions;
use super::{Attr, FsError, Ino, Kind, Stale, directory, views};
use crate::staging::{NodeId, StagedKind, Staging, StagingError};

/// The node of something staged.
pub(crate) fn node(view: View, id: NodeId, kind: StagedKind) -> Node {
    match kind {
        StagedKind::Group => Node::StagedGroup(view, id),
        StagedKind::Dataset => Node::StagedFile(view, id),
    }
}

/// The node that `name` means in a staged group. Control files are there whatever is staged.
pub(crate) fn find(
    staging: &Staging,
    view: View,
    group: NodeId,
    name: &[u8],
) -> Result<Node, FsError> {
    if view != View::Raw {
        return views::find_staged(staging, view, group, name);
    }
    if let Some(control) = control(group, name) {
        return Ok(Node::Control(control));
    }
    let id = staging.lookup(group, name)?;
    Ok(node(view, id, staging.kind(id)?))
}

/// The control file that `name` means in a staged group, if there is any.
pub(crate) fn control(group: NodeId, name: &[u8]) -> Option<Control> {
    (group == NodeId::ROOT)
        .then(|| Control::of_name(name))
        .flatten()
}

/// A name that can be removed or taken by something else.
///
/// # Errors
/// [`FsError::NotPermitted`] for that of a control file.
pub(crate) fn not_control(group: NodeId, name: &[u8]) -> Result<&[u8], FsError> {
    match control(group, name) {
        Some(_) => Err(FsError::NotPermitted),
        None => Ok(name),
    }
}

/// Everything in a staged group except the control files.
pub(crate) fn list(
    staging: &Staging,
    view: View,
    group: NodeId,
) -> Result<Vec<(Vec<u8>, Node)>, FsError> {
    if view != View::Raw {
        return views::list_staged(staging, view, group);
    }
    let children = staging.list(group)?;
    Ok(children
        .into_iter()
        .map(|child| (child.name, node(view, child.node, child.kind)))
        .collect())
}

/// What `stat` says of something staged or of a control file. `owner` is FILE.
pub(crate) fn attr(
    staging: &Staging,
    owner: &Metadata,
    node: &Node,
    ino: Ino,
) -> Result<Attr, FsError> {
    let kind = directory::kind(node);
    let mut attr = Attr {
        ino,
        kind,
        size_bytes: 0,
        blocks: 0,
        mtime: SystemTime::UNIX_EPOCH,
        permissions: writable_permissions(kind, owner.mode()),
        link_count: 1,
        uid: owner.uid(),
        gid: owner.gid(),
    };
    match node {
        Node::StagedGroup(_, NodeId::ROOT) => attr.mtime = root_modified(staging, owner),
        Node::StagedGroup(view, id) | Node::StagedFile(view, id) => {
            let stat = match view {
                View::Npy => staging.stat_npy(*id)?,
                View::Raw | View::Meta => staging.stat(*id)?,
            };
            attr.size_bytes = stat.size_bytes;
            attr.blocks = stat.stored_bytes.div_ceil(512);
            attr.mtime = stat.modified;
            if matches!(staging.parent(*id), Err(StagingError::Stale)) {
                // Removed, and still open.
                attr.link_count = 0;
            }
            if !stat.writable && kind == Kind::File {
                attr.permissions &= 0o444;
            }
        }
        Node::Control(control) => {
            attr.mtime = root_modified(staging, owner);
            if !control.is_writable() {
                attr.permissions &= 0o444;
                attr.size_bytes = staging.status().len() as u64;
            }
        }
        _ => return Err(FsError::Stale),
    }
    Ok(attr)
}

/// When anything was last changed in staging. Where nothing is to be had of it, which `.status` explains, the directory and the control
/// files are there all the same.
fn root_modified(staging: &Staging, owner: &Metadata) -> SystemTime {
    staging.stat(NodeId::ROOT).map_or_else(
        |_| owner.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        |stat| stat.modified,
    )
}

/// What the kernel has to forget of `nodes`, whose content is another one now.
pub(crate) fn replaced(inodes: &InodeTable, nodes: &[NodeId]) -> Vec<Stale> {
    let nodes: HashSet<NodeId> = nodes.iter().copied().collect();
    inodes
        .known()
        .into_iter()
        .filter_map(|(ino, node)| match node {
            Node::StagedFile(_, id) if nodes.contains(&id) => Some(Stale::Content(ino)),
            Node::StagedGroup(_, id) if nodes.contains(&id) => Some(Stale::Attributes(ino)),
            _ => None,
        })
        .collect()
}

/// A control file that is open.
#[derive(Debug)]
pub(crate) struct OpenControl {
    pub(crate) control: Control,
    /// What reading it gives: what was so when it was opened, so that a reader gets one text however it reads.
    pub(crate) text: Vec<u8>,
}

impl OpenControl {
    pub(crate) fn new(staging: &Staging, control: Control) -> Arc<Self> {
        let text = match control {
            Control::Status => staging.status(),
            Control::Commit | Control::Reset => Vec::new(),
        };
        Arc::new(Self { control, text })
    }

    /// Fills `buffer` with the text from `offset` on, and says how many bytes there were.
    pub(crate) fn read_into(&self, offset: u64, buffer: &mut [u8]) -> usize {
        read_text(&self.text, offset, buffer)
    }
}

/// Fills `buffer` with `text` from `offset` on, and says how many bytes there were.
pub(crate) fn read_text(text: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = text.get(start..).unwrap_or_default();
    let count = rest.len().min(buffer.len());
    buffer[..count].copy_from_slice(&rest[..count]);
    count
}
