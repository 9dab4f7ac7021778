//! What a check of a file finds: facts, each with its place, a name for programs, and what to do.

use std::fmt;
use std::sync::Arc;

use crate::codec::CodecError;
use crate::h5::H5Error;
use crate::source::SourceError;
use crate::store::chunk_hash::HashError;
use crate::store::json::ValueError;
use crate::store::{ElementBox, StoreError, Unverifiable, shown_path};

/// Names of versions that a finding keeps; of more there is the number.
pub(super) const MOST_NAMES: usize = 64;
/// Names of versions that are shown on a line.
const SHOWN_NAMES: usize = 3;

/// Versions that a finding is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AffectedVersions {
    /// The names of the first 64.
    pub names: Vec<Arc<[u8]>>,
    /// How many there are in all.
    pub count: u64,
}

/// Something that was found, and where.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The versions that it is about; none where it is about the file, or about what no version has.
    pub versions: AffectedVersions,
    /// The path of the dataset or group, where it is about one.
    pub object: Option<Arc<[u8]>>,
    /// Which elements of it.
    pub elements: Option<ElementBox>,
    /// Number of the stored chunk.
    pub chunk: Option<u64>,
    /// What was found.
    pub fact: Fact,
}

/// What was found.
#[derive(Debug, Clone)]
pub enum Fact {
    /// Something is lost, or contradicts itself.
    Damage(Damage),
    /// Worth knowing, and no damage.
    Note(Note),
}

/// What is lost, or contradicts itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Damage {
    /// What all versions depend on.
    #[error(transparent)]
    File(H5Error),
    /// An attribute of a version, or of the group of all versions.
    #[error("attribute {attribute} {what}")]
    VersionAttribute {
        /// Its name.
        attribute: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file's current version is none.
    #[error("current_version is {}, which is not in the file", name.escape_ascii())]
    CurrentVersion {
        /// As the file says.
        name: Vec<u8>,
    },
    /// A version is its own ancestor.
    #[error("its line of parents leads back to itself")]
    ParentCircle,
    /// A group, a dataset's header or its mappings.
    #[error("{0}")]
    Object(H5Error),
    /// What a dataset's header says does not fit to what else is said.
    #[error("{what}")]
    Inconsistent {
        /// What does not fit.
        what: &'static str,
    },
    /// The value of an attribute.
    #[error("attribute {}: {error}", name.escape_ascii())]
    AttributeValue {
        /// Its name.
        name: Vec<u8>,
        /// What is wrong.
        error: ValueError,
    },
    /// A mapping names something that is not in the file.
    #[error("it maps {}, which is not in the file", shown_path(source_dataset))]
    MappingSource {
        /// What it names.
        source_dataset: Vec<u8>,
    },
    /// A mapping names something that is not the dataset's own.
    #[error(
        "it maps {}, which is not its own raw_data",
        shown_path(source_dataset)
    )]
    MappingForeign {
        /// What it names.
        source_dataset: Vec<u8>,
    },
    /// A mapping is not one chunk.
    #[error("a mapping is not that of one chunk: {what}")]
    MappingForm {
        /// What it is.
        what: &'static str,
    },
    /// A mapping takes more than there is.
    #[error("it maps rows of raw_data that are not there")]
    MappingOutside,
    /// Two mappings of the same elements.
    #[error("two mappings cover the same elements")]
    MappingOverlap,
    /// A mapped chunk was never stored.
    #[error("the chunk is not stored")]
    ChunkMissing,
    /// The bytes of a chunk could not be had.
    #[error("the stored chunk cannot be read: {0}")]
    ChunkRead(SourceError),
    /// The stored bytes are not those of a chunk.
    #[error("the stored chunk cannot be decoded: {0}")]
    ChunkDecode(CodecError),
    /// The stored bytes are too many or too few.
    #[error("the stored chunk has {got_bytes} bytes and needs {want_bytes}")]
    ChunkLength {
        /// How many it needs.
        want_bytes: u64,
        /// How many there are.
        got_bytes: u64,
    },
    /// What the chunk's elements point to.
    #[error("what the stored chunk points to: {0}")]
    ChunkPointers(HashError),
    /// The chunk is not what was hashed.
    #[error("the stored chunk is not what its SHA-256 says")]
    ChunkHash,
    /// The part of the chunk that is mapped is not the part that was hashed.
    #[error(
        "{mapped_rows} rows of the stored chunk are mapped, and its hash is that of {hashed_rows}"
    )]
    ChunkRows {
        /// As mapped.
        mapped_rows: u64,
        /// As hashed.
        hashed_rows: u64,
    },
    /// The hash table does not know the chunk, nor any that is equal to it.
    #[error("no row of the hash table is that of the stored chunk")]
    ChunkUnknown,
    /// Raw data as a whole.
    #[error("its raw_data: {0}")]
    RawData(H5Error),
    /// The filters that its chunks went through.
    #[error("its raw_data: {0}")]
    Filters(CodecError),
    /// The hash table as a whole, or many of its rows.
    #[error("its hash table: {0}")]
    HashTable(TableDamage),
    /// A row of the hash table.
    #[error("row {row} of its hash table {what}")]
    HashRow {
        /// Which row.
        row: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Anything else that kept it from being read.
    #[error(transparent)]
    Unread(Box<StoreError>),
}

/// What is wrong with a hash table.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TableDamage {
    /// Its header, or the index of its chunks.
    #[error(transparent)]
    Object(H5Error),
    /// It is not what a hash table is.
    #[error("{what}")]
    Form {
        /// What differs.
        what: &'static str,
    },
    /// Some of its rows were never stored.
    #[error("rows are missing")]
    RowsMissing,
    /// Some of its rows cannot be had.
    #[error("rows from {first_row} on: {damage}")]
    Rows {
        /// The first of them.
        first_row: u64,
        /// What is wrong with the chunk that holds them.
        damage: Box<Damage>,
    },
}

/// What is worth knowing, and no damage.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Note {
    /// A version that was begun.
    #[error("was never finished, and is not shown")]
    Unfinished,
    /// The file's current version is one that was begun.
    #[error("current_version is {}, which was never finished", name.escape_ascii())]
    CurrentUnfinished {
        /// As the file says.
        name: Vec<u8>,
    },
    /// `del` of the Python library leaves the children of a version without a parent.
    #[error("was made from {}, which was deleted", parent.escape_ascii())]
    ParentDeleted {
        /// As the file says.
        parent: Vec<u8>,
    },
    /// The file is of a layout with faults.
    #[error(
        "data_version is {data_version}: hash tables of that layout are known to be wrong, so not every chunk can be checked"
    )]
    OldLayout {
        /// The layout's number.
        data_version: i64,
    },
    /// The file is of a later layout.
    #[error(
        "data_version is {data_version}, which is not known: what it changed could not be checked"
    )]
    UnknownLayout {
        /// The layout's number.
        data_version: i64,
    },
    /// Something is of a form that is not supported.
    #[error("could not be checked: {0}")]
    UnsupportedForm(H5Error),
    /// Chunks go through a filter that is not there.
    #[error("its chunks could not be checked: {0}")]
    UnsupportedFilter(CodecError),
    /// Elements that are not in chunks have no hash.
    #[error("is not stored in chunks, and so has no hashes")]
    NoChunks,
    /// Chunks may differ from their hashes without being damaged.
    #[error("{chunks} of {of} stored chunks could be decoded, but not checked: {reason}")]
    Unverifiable {
        /// How many do.
        chunks: u64,
        /// How many the dataset has.
        of: u64,
        /// Why.
        reason: Unverifiable,
    },
    /// Chunks of versions that were deleted.
    #[error("{chunks} stored chunks are sound, but no version maps them")]
    Unmapped {
        /// How many.
        chunks: u64,
    },
    /// The same in several dimensions, where only a mapping says how much of a chunk was hashed.
    #[error(
        "{chunks} stored chunks that no version maps could not be checked: which part of them was hashed is not known"
    )]
    UnmappedUnknown {
        /// How many.
        chunks: u64,
    },
    /// Chunks that an unfinished commit left.
    #[error("{chunks} stored chunks ({bytes} bytes) are in no version and have no hash")]
    Garbage {
        /// How many.
        chunks: u64,
        /// Bytes that they take in the file.
        bytes: u64,
    },
    /// Chunks that are stored several times.
    #[error(
        "{chunks} stored chunks have no row in the hash table, which names another chunk of the same content"
    )]
    Repeated {
        /// How many.
        chunks: u64,
    },
    /// More was found than is kept.
    #[error("{findings} more findings are not listed")]
    Omitted {
        /// How many.
        findings: u64,
    },
}

impl Finding {
    pub(super) fn new(fact: Fact) -> Self {
        Self {
            versions: AffectedVersions::default(),
            object: None,
            elements: None,
            chunk: None,
            fact,
        }
    }

    pub(super) fn in_versions(mut self, versions: &AffectedVersions) -> Self {
        self.versions = versions.clone();
        self
    }

    pub(super) fn in_version(self, name: &Arc<[u8]>) -> Self {
        self.in_versions(&AffectedVersions {
            names: vec![name.clone()],
            count: 1,
        })
    }

    pub(super) fn of(mut self, object: &Arc<[u8]>) -> Self {
        self.object = Some(object.clone());
        self
    }

    pub(super) fn at(mut self, elements: ElementBox) -> Self {
        self.elements = Some(elements);
        self
    }

    pub(super) fn with_chunk(mut self, chunk: u64) -> Self {
        self.chunk = Some(chunk);
        self
    }

    /// Whether it is damage.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self.fact, Fact::Damage(_))
    }

    /// The name of the fact, for programs; it does not change.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.fact {
            Fact::Damage(damage) => damage.name(),
            Fact::Note(note) => note.name(),
        }
    }
}

impl AffectedVersions {
    /// Takes in others, which are none of these.
    pub(super) fn extend(&mut self, others: &Self) {
        let room = MOST_NAMES.saturating_sub(self.names.len());
        self.names.extend(others.names.iter().take(room).cloned());
        self.count += others.count;
    }
}

impl fmt::Display for AffectedVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.count == 1 {
            "version "
        } else {
            "versions "
        })?;
        for (number, name) in self.names.iter().take(SHOWN_NAMES).enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{}", name.escape_ascii())?;
        }
        match self.count.saturating_sub(SHOWN_NAMES as u64) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.versions.count > 0 {
            parts.push(self.versions.to_string());
        }
        if let Some(object) = &self.object {
            let elements = self.elements.as_ref().map(ToString::to_string);
            parts.push(shown_path(object).to_string() + &elements.unwrap_or_default());
        }
        if let Some(chunk) = self.chunk {
            parts.push(format!("stored chunk {chunk}"));
        }
        let place = parts.join(", ");
        let colon = if place.is_empty() { "" } else { ": " };
        match &self.fact {
            Fact::Damage(damage) => write!(f, "{place}{colon}{damage}"),
            Fact::Note(note) => write!(f, "{place}{colon}{note}"),
        }
    }
}

impl Damage {
    /// What an error of reading one chunk means.
    pub(super) fn of_chunk(error: StoreError) -> Self {
        match error {
            StoreError::ChunkMissing { .. } => Self::ChunkMissing,
            StoreError::ChunkRead { error, .. } => Self::ChunkRead(error),
            StoreError::ChunkDecode { error, .. } => Self::ChunkDecode(error),
            StoreError::ChunkLength {
                want_bytes,
                got_bytes,
                ..
            } => Self::ChunkLength {
                want_bytes,
                got_bytes,
            },
            StoreError::Filter { error, .. } => Self::Filters(error),
            error => Self::Unread(Box::new(error)),
        }
    }

    /// What an error of opening a hash table means.
    pub(super) fn of_table(error: StoreError) -> Self {
        match error {
            StoreError::Object { error, .. } | StoreError::RawData { error, .. } => {
                Self::HashTable(TableDamage::Object(error))
            }
            StoreError::Inconsistent { what, .. } | StoreError::HashTable { what, .. } => {
                Self::HashTable(TableDamage::Form { what })
            }
            error => Self::of_chunk(error),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::VersionAttribute { .. } => "version-attribute",
            Self::CurrentVersion { .. } => "current-version",
            Self::ParentCircle => "parent-circle",
            Self::Object(_) => "object",
            Self::Inconsistent { .. } => "inconsistent",
            Self::AttributeValue { .. } => "attribute",
            Self::MappingSource { .. } => "mapping-source",
            Self::MappingForeign { .. } => "mapping-foreign",
            Self::MappingForm { .. } => "mapping-form",
            Self::MappingOutside => "mapping-outside",
            Self::MappingOverlap => "mapping-overlap",
            Self::ChunkMissing => "chunk-missing",
            Self::ChunkRead(_) => "chunk-read",
            Self::ChunkDecode(_) => "chunk-decode",
            Self::ChunkLength { .. } => "chunk-length",
            Self::ChunkPointers(_) => "chunk-pointers",
            Self::ChunkHash => "chunk-hash",
            Self::ChunkRows { .. } => "chunk-rows",
            Self::ChunkUnknown => "chunk-unknown",
            Self::RawData(_) => "raw-data",
            Self::Filters(_) => "filters",
            Self::Unread(_) => "unread",
            Self::HashTable(_) => "hash-table",
            Self::HashRow { .. } => "hash-row",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::File(_) => {
                "The file is cut short, or damaged where everything begins: restore it from a backup, or copy what can still be read out of a read-only mount."
            }
            Self::VersionAttribute { .. } | Self::CurrentVersion { .. } | Self::ParentCircle => {
                "The data is untouched: copy the file, set the attribute right with h5py (f['_version_data/versions/NAME'].attrs), and verify again."
            }
            Self::HashTable(_) | Self::HashRow { .. } | Self::ChunkUnknown => {
                "Without its hash a chunk cannot be told from a damaged one. If all data is known to be right by other means, copy the file and rebuild \
                 the tables with Python: VersionedHDF5File(f).rebuild_hashtables()."
            }
            Self::MappingForm { .. } => {
                "Such an array reads as it is mapped, but cannot be checked, and versioned-hdf5 would lose data when it edits it: store it anew."
            }
            Self::Object(_)
            | Self::Inconsistent { .. }
            | Self::AttributeValue { .. }
            | Self::MappingSource { .. }
            | Self::MappingForeign { .. }
            | Self::MappingOutside
            | Self::MappingOverlap
            | Self::RawData(_)
            | Self::Filters(_)
            | Self::Unread(_) => {
                "The named object cannot be read, or not as it was written: restore it from a backup. Other versions and datasets are not affected unless they are named too."
            }
            Self::ChunkMissing
            | Self::ChunkRead(_)
            | Self::ChunkDecode(_)
            | Self::ChunkLength { .. }
            | Self::ChunkPointers(_)
            | Self::ChunkHash
            | Self::ChunkRows { .. } => {
                "The named elements are lost in the named versions: take them from a backup and commit them anew. Mount with --verify so that they are never served; all else is right."
            }
        }
    }
}

impl Note {
    fn name(&self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::CurrentUnfinished { .. } => "current-unfinished",
            Self::ParentDeleted { .. } => "parent-deleted",
            Self::OldLayout { .. } => "old-layout",
            Self::UnknownLayout { .. } => "unknown-layout",
            Self::UnsupportedForm(_) => "unsupported-form",
            Self::UnsupportedFilter(_) => "unsupported-filter",
            Self::NoChunks => "no-chunks",
            Self::Unverifiable { .. } => "unverifiable",
            Self::Unmapped { .. } => "unmapped",
            Self::UnmappedUnknown { .. } => "unmapped-unknown",
            Self::Garbage { .. } => "garbage",
            Self::Repeated { .. } => "repeated",
            Self::Omitted { .. } => "omitted",
        }
    }
}
