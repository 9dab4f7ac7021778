//! What can be wrong with a versioned file.

use std::path::PathBuf;
use std::sync::Arc;

use super::chunk_hash::HashError;
use super::elements::ElementBox;
use super::json::ValueError;
use super::shown_path;
use crate::codec::CodecError;
use crate::h5::H5Error;
use crate::source::SourceError;

/// Why something of a versioned file could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened.
    #[error("{}: {error}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: Arc<std::io::Error>,
    },
    /// Not a regular file.
    #[error("{} is not a regular file: give the HDF5 file itself", path.display())]
    NotAFile {
        /// What was to be opened.
        path: PathBuf,
    },
    /// Another program has the file open for writing, and what it has written so far does not make sense yet.
    #[error("{} is open for writing in another program: try again when that has closed it", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// No superblock.
    #[error("{} is not an HDF5 file", path.display())]
    NotHdf5 {
        /// The file.
        path: PathBuf,
    },
    /// An HDF5 file without `/_version_data/versions`.
    #[error(
        "{} is an HDF5 file, but not a versioned one (it has no /_version_data/versions): \
         create it with the Python library versioned-hdf5",
        path.display()
    )]
    NotVersioned {
        /// The file.
        path: PathBuf,
    },
    /// The file's structure is damaged where all versions depend on it.
    #[error("{}: {error}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: H5Error,
    },
    /// The version was there and is no longer.
    #[error("version {} is no longer in the file", version.escape_ascii())]
    VersionGone {
        /// The version's name.
        version: Vec<u8>,
    },
    /// A dataset or group is no longer in the version, which another program made anew under its name and time.
    #[error("version {}: {} is no longer in it", .version.escape_ascii(), .object.escape_ascii())]
    ObjectGone {
        /// Name of the version.
        version: Vec<u8>,
        /// Path of the object below it.
        object: Vec<u8>,
    },
    /// A structure of a version or dataset is damaged or not supported.
    #[error("version {}, {}: {error}", version.escape_ascii(), shown_path(object))]
    Object {
        /// The version's name.
        version: Vec<u8>,
        /// The path below the version.
        object: Vec<u8>,
        /// What is wrong.
        error: H5Error,
    },
    /// The index of a dataset's stored chunks is damaged.
    #[error("dataset {}: {error}", shown_path(dataset))]
    RawData {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// What is wrong.
        error: H5Error,
    },
    /// What a dataset's header says does not fit together.
    #[error("version {}, dataset {}: {what}", version.escape_ascii(), shown_path(dataset))]
    Inconsistent {
        /// The version's name.
        version: Vec<u8>,
        /// The path below the version.
        dataset: Vec<u8>,
        /// What does not fit.
        what: &'static str,
    },
    /// A version maps a chunk that is not in the file.
    #[error(
        "dataset {}: chunk {chunk} is mapped, but not stored",
        shown_path(dataset)
    )]
    ChunkMissing {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Number of the chunk in raw data.
        chunk: u64,
    },
    /// A stored chunk has the wrong length.
    #[error(
        "dataset {}: chunk {chunk} has {got_bytes} bytes, and needs {want_bytes}",
        shown_path(dataset)
    )]
    ChunkLength {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Number of the chunk in raw data.
        chunk: u64,
        /// How long it must be.
        want_bytes: u64,
        /// How long it is.
        got_bytes: u64,
    },
    /// A stored chunk could not be read.
    #[error("dataset {}: chunk {chunk}: {error}", shown_path(dataset))]
    ChunkRead {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Number of the chunk in raw data.
        chunk: u64,
        /// What went wrong.
        error: SourceError,
    },
    /// A stored chunk could not be decoded.
    #[error("dataset {}: chunk {chunk}: {error}", shown_path(dataset))]
    ChunkDecode {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Number of the chunk in raw data.
        chunk: u64,
        /// What went wrong.
        error: CodecError,
    },
    /// A hash table is not what one is.
    #[error("dataset {}: its hash table is damaged: {what}", shown_path(dataset))]
    HashTable {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// What is wrong.
        what: &'static str,
    },
    /// A stored chunk is not the one that its hash was made of, or nothing is known of it.
    #[error(
        "dataset {}: chunk {chunk} is not what its hash says",
        shown_path(dataset)
    )]
    ChunkHash {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Number of the chunk in raw data.
        chunk: u64,
    },
    /// The file is meant to be checked as it is read, and a stored chunk is not the one that its hash was made of.
    #[error(
        "version {}, dataset {}{elements}: damaged, as stored chunk {chunk} is not what its SHA-256 says",
        version.escape_ascii(),
        shown_path(dataset)
    )]
    ChunkDamaged {
        /// A version that has it.
        version: Vec<u8>,
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Number of the chunk in raw data.
        chunk: u64,
        /// The elements of the dataset that are lost.
        elements: ElementBox,
    },
    /// The hash of a stored chunk could not be computed.
    #[error("dataset {}: chunk {chunk}: {error}", shown_path(dataset))]
    Unhashable {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Number of the chunk in raw data.
        chunk: u64,
        /// Why not.
        error: HashError,
    },
    /// The dataset's filters are not all known.
    #[error("dataset {}: {error}", shown_path(dataset))]
    Filter {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Which filter.
        error: CodecError,
    },
    /// A value of a variable-length or reference type could not be had.
    #[error(
        "dataset {}: among the elements from {first_element} on: {error}",
        shown_path(dataset)
    )]
    Value {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// The first of the elements that were read together, in C order.
        first_element: u64,
        /// What went wrong.
        error: ValueError,
    },
    /// Text of which the longest element is so much longer than the others that an array of NumPy would be nearly all padding.
    #[error(
        "dataset {}: as NumPy's <U{longest_chars} it would take {len_bytes} bytes, nearly all of them padding: \
         read it as text, from versions/",
        shown_path(dataset)
    )]
    TooWide {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Characters of its longest element.
        longest_chars: u64,
        /// What the array would take.
        len_bytes: u64,
    },
    /// An attribute's value is damaged or of a type that is not supported.
    #[error("attribute {}: {error}", name.escape_ascii())]
    Attribute {
        /// The attribute's name.
        name: Vec<u8>,
        /// What is wrong.
        error: ValueError,
    },
    /// A commit of this process failed when the file was being changed, and what was there could not be put back.
    #[error(
        "{} is half changed by a commit that failed: unmount, and mount again or run `vh5fs recover`",
        path.display()
    )]
    HalfChanged {
        /// The file.
        path: PathBuf,
    },
    /// Another program went on writing for too long.
    #[error("{} keeps changing, and what was asked for could not be read in a settled state", path.display())]
    Unsettled {
        /// The file.
        path: PathBuf,
    },
}
