//! What can go wrong in staging.

use std::path::PathBuf;
use std::sync::Arc;

use crate::source::TransactionError;
use crate::store::description::DescriptionError;
use crate::store::text::TextError;
use crate::store::{CommitError, NpyError, StagedReadError, StoreError, WideTextError};

/// Why something staged could not be had or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StagingError {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The node was removed, or is not in the version that staging starts from now.
    #[error("the file or directory is no longer there")]
    Stale,
    /// The name is taken.
    #[error("the name exists already")]
    Exists,
    /// A group that is not empty.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A dataset was used as a group.
    #[error("not a directory")]
    NotADirectory,
    /// A group was used as a dataset.
    #[error("is a directory")]
    IsADirectory,
    /// A group cannot be moved into itself.
    #[error("a directory cannot be moved into itself")]
    IntoItself,
    /// The format, or this kind of dataset, does not have it.
    #[error("not permitted: {what}")]
    NotPermitted {
        /// What.
        what: &'static str,
    },
    /// No object can have that name.
    #[error("\"{}\" cannot be a name here: {what}", name.escape_ascii())]
    BadName {
        /// The name.
        name: Vec<u8>,
        /// Why not.
        what: &'static str,
    },
    /// A name of more than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// No attribute of that name.
    #[error("no such attribute")]
    NoAttribute,
    /// There is an attribute of that name.
    #[error("the attribute exists already")]
    AttributeExists,
    /// More than 64 KiB.
    #[error("the attribute's value is longer than 64 KiB")]
    AttributeTooBig,
    /// An attribute's name that is empty or too long.
    #[error("an attribute's name has 1 to 250 bytes")]
    AttributeName,
    /// A value that does not describe an array.
    #[error("attribute h5.{name}: {error}")]
    Description {
        /// The attribute without its prefix.
        name: &'static str,
        /// What is wrong.
        error: DescriptionError,
    },
    /// A shape that does not go with the dataset.
    #[error("the shape {shape:?} cannot be given to this dataset: {what}")]
    Shape {
        /// As it was given.
        shape: Vec<u64>,
        /// Why not.
        what: &'static str,
    },
    /// What is written as a .npy file is none, or not one that its dataset can become.
    #[error("{}.npy: {error}", dataset.escape_ascii())]
    Npy {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// What is wrong.
        error: NpyError,
    },
    /// A file without a header was to be a .npy file, or its header was cut.
    #[error("{}.npy: its header was not written to its end: save it again, or remove it", dataset.escape_ascii())]
    NpyUnfinished {
        /// The dataset's path.
        dataset: Vec<u8>,
    },
    /// A .npy file has more or less data than its header says.
    #[error(
        "{}.npy: its header says {want_bytes} bytes of data, and it has {got_bytes}: save it again",
        dataset.escape_ascii()
    )]
    NpyLength {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// What the header says.
        want_bytes: u64,
        /// What there is.
        got_bytes: u64,
    },
    /// A string of a .npy file cannot be stored.
    #[error("{}.npy: string {element}: {error}", dataset.escape_ascii())]
    NpyText {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Which one, in C order, counted from 0.
        element: u64,
        /// What is wrong.
        error: WideTextError,
    },
    /// Strings of which one is so much longer than the others that the array would be nearly all padding.
    #[error(
        "{}.npy: as <U{chars} the array would be nearly all padding: read the lines in staging/",
        dataset.escape_ascii()
    )]
    NpyTooWide {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// Characters of the longest string.
        chars: u64,
    },
    /// Staged text that stands for no strings.
    #[error("{}: {error}", dataset.escape_ascii())]
    Text {
        /// The dataset's path.
        dataset: Vec<u8>,
        /// What is wrong.
        error: TextError,
    },
    /// Writing to a file whose header was refused, or that has become another one.
    #[error("what was written before was refused, or is another file now: open it anew")]
    NpyRefused,
    /// Longer than a file can be.
    #[error("the file would be too long")]
    TooLong,
    /// Nothing there to seek to.
    #[error("no data at or behind the offset")]
    NoSuchOffset,
    /// Another process stages changes of the same file.
    #[error(
        "{} is in use by another mount (process {}): \
         unmount that one, or change the file there",
        path.display(),
        pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
    )]
    Held {
        /// The folder of staged state.
        path: PathBuf,
        /// Who holds it, as far as it says so.
        pid: Option<u32>,
    },
    /// The version that was edited is not in the file any more.
    #[error(
        "the changes are based on version {}, which is no longer in the file: \
         copy what is needed, then reset",
        version.escape_ascii()
    )]
    BaseGone {
        /// Its name.
        version: Vec<u8>,
    },
    /// A reset to a version that is not there.
    #[error("there is no version {}", name.escape_ascii())]
    NoSuchVersion {
        /// The name.
        name: Vec<u8>,
    },
    /// The folder of staged state could not be read or written.
    #[error("{}: {error}", path.display())]
    Sidecar {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the operating system said.
        error: Arc<std::io::Error>,
    },
    /// The folder of staged state is not one that this program made.
    #[error("{}: {what}: move it away to go on", path.display())]
    SidecarForeign {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// What is in the folder of staged state is damaged, or of another file.
    #[error("{}: {what}", path.display())]
    SidecarDamaged {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A commit that was interrupted by a crash can be neither finished nor taken back now.
    #[error("{}: no interrupted commit can be looked for or finished: {error}", path.display())]
    Recovery {
        /// The versioned file.
        path: PathBuf,
        /// Why not.
        error: TransactionError,
    },
    /// A commit was interrupted by a crash when it overwrote what was in the file, which can only be read when that is finished.
    #[error(
        "{0} was left half changed by a commit that was interrupted: \
         run `vh5fs recover {0}`, or mount it with write access",
        path.display()
    )]
    HalfChanged {
        /// The versioned file.
        path: PathBuf,
    },
    /// A commit failed when it overwrote what was in the file; nothing can be staged any more.
    #[error("nothing more can be staged: {error}")]
    Latched {
        /// How it failed.
        error: Arc<CommitError>,
    },
    /// Something is wrong with the versioned file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Staged bytes could not be read.
    #[error(transparent)]
    Read(#[from] StagedReadError),
    /// The version could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
