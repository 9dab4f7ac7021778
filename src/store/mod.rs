//! A versioned HDF5 file: its history, its datasets, their bytes.
//!
//! [`VersionedFile`] follows the file as other programs change it; a [`Snapshot`] is one state of it; a [`Dataset`] is read by its
//! chunk map. Nothing here knows of mounts and inodes.

mod attributes;
mod by_library;
mod cache;
mod chunk_hash;
mod chunked;
mod commit;
mod commit_error;
mod compare;
mod dataset;
mod elements;
mod error;
mod file_state;
mod fingerprint;
mod hash_table;
mod hexadecimal;
mod history;
mod literal;
mod live;
mod map_cache;
mod meta;
mod names;
mod new_version;
mod npy;
mod own_commit;
mod progress;
mod raw_data;
mod raw_places;
mod region;
mod rendered;
mod revision;
mod sharing;
mod snapshot;
mod structure;
pub mod time;
mod tree;
mod type_text;
mod verification;
mod writers;

pub mod description;
pub mod dtype;
pub mod json;
pub mod text;
pub mod typed_value;
pub mod verify;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod type_samples;

pub use attributes::AttributeText;
pub use chunk_hash::HashError;
pub use commit_error::CommitError;
pub use compare::{
    ArrayFacts, AttributeDifference, AttributeState, ChunkChange, Column, Comparison, Difference,
    Modification, ObjectChange, Rewrites, TypeChange, VersionRewrites,
};
pub use dataset::Dataset;
pub use elements::ElementBox;
pub use error::StoreError;
pub(crate) use hexadecimal::hexadecimal;
pub use history::{History, Version, VersionIndex, VersionKey};
pub use live::{OpenDataset, StoreOptions, VersionedFile};
pub use names::NAME_MAX_BYTES;
pub(crate) use names::{shown_forms, suffixed_forms};
pub use new_version::{
    AttributeChange, CommitFailure, CommitReport, Description, NewContent, NewObject, NewVersion,
    StagedBytes, StagedReadError, WrittenDataset,
};
pub use npy::{
    Beginning, Npy, NpyElement, NpyError, NpyHeader, OpenNpy, WideTextError, count_chars,
    fair_wide_bytes, npy_header, npy_text_header, write_line_of_wide, write_wide,
};
pub use progress::{CommitProgress, CommitState, CommitStep};
pub(crate) use raw_data::filter_specs;
pub use revision::RevisionError;
pub(crate) use revision::steps_back;
pub use sharing::{Class, ClassId, Sharing};
pub use snapshot::Snapshot;
pub use structure::{Structure, spaced_json, zero_text};
pub use tree::{Child, ChildKind, Signature, VersionTree};
pub use verification::Unverifiable;

/// A path of the file for a message: as text, what is not printable escaped.
fn shown_path(path: &[u8]) -> std::slice::EscapeAscii<'_> {
    path.escape_ascii()
}
