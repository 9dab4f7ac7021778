//! Plain values that go in and out of staging.

use std::time::SystemTime;

use chrono::{DateTime, Utc};

use crate::store::AttributeText;

/// A group or dataset of the staged tree. A number stays with its object through renames, commits and resets, and is never given
/// to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The version's own group.
    pub const ROOT: Self = Self(0);
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StagedKind {
    /// A group, shown as a directory.
    Group,
    /// A dataset, shown as a file.
    Dataset,
}

/// One name of a staged group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedEntry {
    /// The name as a path carries it.
    pub name: Vec<u8>,
    /// What it stands for.
    pub node: NodeId,
    /// What that is.
    pub kind: StagedKind,
}

/// What `stat` says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedStat {
    /// Group or dataset.
    pub kind: StagedKind,
    /// Length in bytes; 0 for a group.
    pub size_bytes: u64,
    /// Bytes really stored: of the version's chunks, and of what is staged.
    pub stored_bytes: u64,
    /// When it was last changed in staging; when its content first appeared, if it was not.
    pub modified: SystemTime,
    /// Whether its bytes can be changed.
    pub writable: bool,
}

/// The extended attributes of a node, names without their namespace, not yet held against the limits of an operating system.
#[derive(Debug, Default)]
pub struct StagedAttributes {
    /// What describes the array: `h5.dtype` and so on.
    pub structural: Vec<(Vec<u8>, Vec<u8>)>,
    /// The attributes of the object, in the byte order of their names.
    pub attributes: Vec<AttributeText>,
}

/// What becomes of the name that something is renamed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// What has it is replaced.
    Replace,
    /// It must not be taken (`RENAME_NOREPLACE`).
    NoReplace,
    /// Both change places (`RENAME_EXCHANGE`).
    Exchange,
}

/// What `fallocate(2)` is to do to a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// Make the file at least that long.
    Extend,
    /// Nothing that can be seen (`FALLOC_FL_KEEP_SIZE`).
    Reserve,
    /// Zeros that take no room; the length stays (`FALLOC_FL_PUNCH_HOLE`).
    PunchHole,
    /// Zeros (`FALLOC_FL_ZERO_RANGE`).
    ZeroRange {
        /// Whether the length stays.
        keep_size: bool,
    },
}

/// Whether an attribute must be there before it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    /// It may be.
    Any,
    /// It must not (`XATTR_CREATE`).
    Create,
    /// It must (`XATTR_REPLACE`).
    Replace,
}

/// What a commit is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRequest {
    /// The version's name; made from the time if there is none.
    pub name: Option<Vec<u8>>,
    /// The version's time; now if there is none.
    pub timestamp: Option<DateTime<Utc>>,
    /// Whether it becomes the current version.
    pub make_current: bool,
}

impl Default for CommitRequest {
    fn default() -> Self {
        Self {
            name: None,
            timestamp: None,
            make_current: true,
        }
    }
}
