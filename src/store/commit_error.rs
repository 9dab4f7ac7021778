//! Why a version could not be committed.

use std::path::PathBuf;
use std::sync::Arc;

use super::description::DescriptionError;
use super::text::TextError;
use super::{StagedReadError, StoreError, shown_path};
use crate::codec::CodecError;
use crate::h5::writer::WriteError;
use crate::source::{Left, TransactionError};

/// Why a version could not be committed. The file is then as it was; with [`CommitError::Interrupted`] it says whether.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// There is a version of that name.
    #[error("there is a version {} already: give another name", name.escape_ascii())]
    NameTaken {
        /// The name.
        name: Vec<u8>,
    },
    /// The format cannot hold a version of that name.
    #[error("\"{}\" cannot be the name of a version: {what}", name.escape_ascii())]
    BadVersionName {
        /// The name.
        name: Vec<u8>,
        /// Why not.
        what: &'static str,
    },
    /// The format cannot hold an object at that path.
    #[error("{} cannot be stored: {what}", shown_path(path))]
    BadPath {
        /// The path below the version.
        path: Vec<u8>,
        /// Why not.
        what: &'static str,
    },
    /// The timestamp cannot be written as the format wants it.
    #[error("the timestamp {timestamp} cannot be stored: its year must have four digits")]
    Timestamp {
        /// As it was given.
        timestamp: chrono::DateTime<chrono::Utc>,
    },
    /// The length of a staged file is not that of an array.
    #[error(
        "{}: {len_bytes} bytes are not a whole number of {unit} of {unit_bytes} bytes",
        shown_path(dataset)
    )]
    Length {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// How long it is.
        len_bytes: u64,
        /// Elements or rows.
        unit: &'static str,
        /// The length of one.
        unit_bytes: u64,
    },
    /// What was said of an array contradicts itself, or cannot be stored.
    #[error("{}: {error}", shown_path(dataset))]
    Description {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// What is wrong.
        error: DescriptionError,
    },
    /// A path has one type, chunk shape, fill value and filter pipeline for ever, and this is another one.
    #[error(
        "{}: its {what} is {given}, but all versions of this path have {stored}: \
         give it that one, or store it under another name",
        shown_path(dataset)
    )]
    Differs {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// What differs.
        what: &'static str,
        /// As it was given.
        given: String,
        /// As the file has it.
        stored: String,
    },
    /// Text that does not stand for strings.
    #[error("{}: {error}", shown_path(dataset))]
    Text {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// What is wrong.
        error: TextError,
    },
    /// An attribute that cannot be stored.
    #[error("{}: attribute {}: {what}", shown_path(object), name.escape_ascii())]
    Attribute {
        /// The object's path; the version's own group where it is empty.
        object: Vec<u8>,
        /// The attribute's name.
        name: Vec<u8>,
        /// What is wrong.
        what: &'static str,
    },
    /// Elements of this type cannot be written.
    #[error(
        "{}: datasets of its type can be kept, removed and described, but not written",
        shown_path(dataset)
    )]
    Type {
        /// The dataset's path.
        dataset: Vec<u8>,
    },
    /// Another program holds the file open.
    #[error("{} is open in another program: try again when that has closed it", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file may not be written to.
    #[error("{} cannot be written to: {error}", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: Arc<std::io::Error>,
    },
    /// The file is of a layout that is not known.
    #[error("{} has data_version {data_version}, which is not known: it was made by a later version of versioned-hdf5", path.display())]
    UnknownLayout {
        /// The file.
        path: PathBuf,
        /// The layout's number.
        data_version: i64,
    },
    /// The file is of a layout whose hash tables are wrong.
    #[error(
        "{} has data_version {data_version}, whose hash tables are not reliable{}: rebuild them with Python, \
         `import h5py; from versioned_hdf5 import VersionedHDF5File; f = h5py.File(PATH, 'r+'); {}`, and try again",
        path.display(),
        if *has_strings { " for strings of variable length" } else { "" },
        if *has_strings {
            "VersionedHDF5File(f).rebuild_object_dtype_hashtables()"
        } else {
            // The library opens no file that says to be of such a layout.
            "f['_version_data/versions'].attrs['data_version'] = 4; VersionedHDF5File(f).rebuild_hashtables()"
        }
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// The layout's number.
        data_version: i64,
        /// Whether that is so since it has strings.
        has_strings: bool,
    },
    /// There is no room for the new version.
    #[error("{}: there is no room for the new version: {error}", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: Arc<std::io::Error>,
    },
    /// The version that was edited is not in the file any more.
    #[error(
        "version {}, which was edited, is no longer in the file",
        version.escape_ascii()
    )]
    BaseGone {
        /// Its name.
        version: Vec<u8>,
    },
    /// A chunk could not be encoded.
    #[error("{}: {error}", shown_path(dataset))]
    Encode {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Why not.
        error: CodecError,
    },
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// Staged bytes could not be read.
    #[error("{}: {error}", shown_path(dataset))]
    Staged {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Why not.
        error: StagedReadError,
    },
    /// Writing failed.
    #[error("{}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: WriteError,
    },
    /// Writing failed when the file was being changed. No further version is written.
    #[error(
        "{}: {error}; {}",
        path.display(),
        match left {
            Left::Restored => "the file is as it was: unmount and mount again to go on",
            Left::Undecided => "the file is as it was, and the next mount finishes the commit or takes it back: unmount and mount again",
            Left::HalfChanged => "the file is half changed: unmount, and mount again or run `vh5fs recover`, which finishes the commit",
        }
    )]
    Interrupted {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: Arc<TransactionError>,
        /// What became of the file.
        left: Left,
    },
    /// The version needs something that cannot be written.
    #[error("{}: {what}", shown_path(object))]
    Unsupported {
        /// The object's path.
        object: Vec<u8>,
        /// What.
        what: &'static str,
    },
}
