//! What a commit is given: a whole version, as its objects are to be, said relative to the version before it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{CommitError, CommitProgress, Snapshot, StoreError, VersionKey};
use crate::codec::FilterSpec;
use crate::h5::Datatype;
use crate::h5::writer::WriteError;

/// A version that is to be written.
pub struct NewVersion<'a> {
    /// Its name, of which there must be none in the file.
    pub name: Vec<u8>,
    /// When it was made; kept in microseconds.
    pub timestamp: DateTime<Utc>,
    /// Whether it becomes the file's current version.
    pub make_current: bool,
    /// The version that it is made from; `None`: none.
    pub base: Option<VersionKey>,
    /// Attributes of the version's own group, to which nothing is carried over from `base`.
    pub attributes: Vec<AttributeChange>,
    /// All groups and datasets, in the byte order of their paths, so that parents come before their children.
    pub objects: Vec<NewObject<'a>>,
    /// Where it is told how far the commit is.
    pub progress: &'a CommitProgress,
}

/// A group or dataset of a new version.
pub struct NewObject<'a> {
    /// Its path below the version: HDF5 names joined by `/`.
    pub path: Arc<[u8]>,
    /// The object of the base version whose attributes are carried over bit for bit.
    pub attributes_from: Option<Arc<[u8]>>,
    /// Changes on top of those.
    pub attributes: Vec<AttributeChange>,
    /// What it is.
    pub content: NewContent<'a>,
}

/// An attribute that is set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeChange {
    /// Its name.
    pub name: Vec<u8>,
    /// The value as text, which is given a type; `None` removes the attribute, if there is one.
    pub value: Option<Vec<u8>>,
}

/// What a new object is.
pub enum NewContent<'a> {
    /// A group.
    Group,
    /// The dataset at the same path of the base version, with its type, shape, fill value and bytes.
    Unchanged,
    /// A dataset with bytes of its own.
    Written(WrittenDataset<'a>),
}

/// A dataset whose bytes are given.
pub struct WrittenDataset<'a> {
    /// Whether `bytes` is an edit of the dataset at the same path of the base version; if not, all bytes are new.
    pub edits_base: bool,
    /// What its user said of it.
    pub description: Description,
    /// The bytes of its file.
    pub bytes: &'a dyn StagedBytes,
}

/// What a user said of an array. What was not said is as the file stores it under this path, or else the default: `uint8`,
/// one dimension, zeros, no filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The type of its elements.
    pub datatype: Option<Datatype>,
    /// Elements along each axis, slowest first. The first one follows the length of the bytes.
    pub shape: Option<Vec<u64>>,
    /// The shape of its chunks, in elements.
    pub chunk_shape: Option<Vec<u64>>,
    /// The value of elements that were never written, as an attribute would show it.
    pub fill_value: Option<Vec<u8>>,
    /// The filters that its chunks go through, in the order of encoding.
    pub filters: Option<Vec<FilterSpec>>,
}

/// The bytes of a staged file: an array's elements in C order, or lines of text for variable-length strings.
pub trait StagedBytes: Send + Sync {
    /// How many there are.
    fn len_bytes(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on, all of which lie within [`StagedBytes::len_bytes`].
    ///
    /// # Errors
    /// [`StagedReadError`].
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StagedReadError>;

    /// The first range at `offset` or behind it that may differ from the base (for an edit of it), or that was ever written
    /// (else). A range may be larger than what was written, and ends within [`StagedBytes::len_bytes`].
    fn next_written(&self, offset: u64) -> Option<Range<u64>>;
}

/// Why staged bytes could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StagedReadError {
    /// Of what was written in staging.
    #[error("reading what is staged at byte {offset}: {error}")]
    Overlay {
        /// First byte wanted.
        offset: u64,
        /// What the operating system said.
        error: Arc<std::io::Error>,
    },
    /// Of the version that is edited.
    #[error(transparent)]
    Base(#[from] StoreError),
}

/// What a commit did.
#[derive(Debug)]
pub struct CommitReport {
    /// The version that was made.
    pub version: VersionKey,
    /// A state of the file that has it.
    pub snapshot: Arc<Snapshot>,
    /// Chunks that were hashed.
    pub chunks_hashed: u64,
    /// Of these, how many the file did not have yet.
    pub chunks_stored: u64,
    /// Bytes by which the file grew.
    pub grown_bytes: u64,
}

/// What kind of failure a [`CommitError`] is, to those who tell it to an operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFailure {
    /// The version's name is taken.
    Exists,
    /// Something of what was given cannot be stored.
    Invalid,
    /// Another program holds the file.
    Busy,
    /// The file, its layout or its medium is not to be written to.
    ReadOnly,
    /// There is no room.
    NoSpace,
    /// The base version is not in the file any more.
    Stale,
    /// A filter or form that is not supported.
    Unsupported,
    /// Reading or writing failed, or what was read is damaged.
    Io,
}

impl CommitError {
    /// What kind of failure it is.
    #[must_use]
    pub fn failure(&self) -> CommitFailure {
        match self {
            Self::NameTaken { .. } => CommitFailure::Exists,
            Self::BadVersionName { .. }
            | Self::BadPath { .. }
            | Self::Timestamp { .. }
            | Self::Length { .. }
            | Self::Description { .. }
            | Self::Differs { .. }
            | Self::Text { .. }
            | Self::Attribute { .. }
            | Self::Type { .. } => CommitFailure::Invalid,
            Self::Busy { .. } => CommitFailure::Busy,
            Self::ReadOnly { .. } | Self::Layout { .. } | Self::UnknownLayout { .. } => {
                CommitFailure::ReadOnly
            }
            Self::NoSpace { .. } => CommitFailure::NoSpace,
            Self::BaseGone { .. } => CommitFailure::Stale,
            Self::Encode { .. } | Self::Unsupported { .. } => CommitFailure::Unsupported,
            Self::Write { error, .. } => match error {
                WriteError::MarkedOpen => CommitFailure::Busy,
                WriteError::FileSpace { .. } => CommitFailure::ReadOnly,
                WriteError::Name { .. }
                | WriteError::Datatype { .. }
                | WriteError::Mismatch { .. }
                | WriteError::FilterParameters { .. }
                | WriteError::TooLarge { .. } => CommitFailure::Invalid,
                _ => CommitFailure::Io,
            },
            Self::Interrupted { error, .. } => match error.io_error().map(|error| error.kind()) {
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    CommitFailure::NoSpace
                }
                _ => CommitFailure::Io,
            },
            Self::Read(_) | Self::Staged { .. } => CommitFailure::Io,
        }
    }
}
