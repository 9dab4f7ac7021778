//! Why a file could not be written.

use std::io;
use std::sync::Arc;

use crate::h5::{Address, H5Error};
use crate::source::TransactionError;

/// Why a file could not be written. Until [`FileWriter::finish`](super::FileWriter::finish) has begun to apply, the file is unchanged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Opening, locking, reading or writing the file failed.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// What is in the file could not be read, or the C library refused.
    #[error(transparent)]
    H5(#[from] H5Error),
    /// The superblock says that a program has the file open for writing, or had and never closed it.
    #[error(
        "the file is marked as open for writing; if no program has it open, clear the mark with `h5clear -s`"
    )]
    MarkedOpen,
    /// The file manages its free space in a way that only the C library may write.
    #[error(
        "the file's space is managed by {what}, which is not supported for writing; `h5repack -S FSM_AGGR` makes a file that can be written"
    )]
    FileSpace {
        /// Which way.
        what: &'static str,
    },
    /// A name or path that the format cannot hold.
    #[error("{name:?} cannot be the name of an object: {what}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An object is there already.
    #[error("{path:?} exists")]
    Exists {
        /// Its path.
        path: String,
    },
    /// An element type that cannot be made into one of the C library.
    #[error("the element type cannot be written: {what}")]
    Datatype {
        /// What is in the way.
        what: &'static str,
    },
    /// Numbers that do not fit each other (shape and chunk shape, data and element size).
    #[error("{object}: {what}")]
    Mismatch {
        /// The object's path.
        object: String,
        /// What does not fit.
        what: &'static str,
    },
    /// The C library stores other parameters of a filter than those given, so that chunks would not be decoded as they were encoded.
    #[error("{object}: filter {filter} cannot be stored with the given parameters")]
    FilterParameters {
        /// The dataset's path.
        object: String,
        /// The filter's registered number.
        filter: u16,
    },
    /// Something is too large for the format.
    #[error("{what} is too large for the format: {size}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size, in bytes or elements as `what` says.
        size: u64,
    },
    /// The object whose mappings are to be set is not a virtual dataset without mappings.
    #[error("the object at byte {} is no virtual dataset without mappings", address.0)]
    NotVirtual {
        /// Its header.
        address: Address,
    },
    /// A new file could not be made.
    #[error("{action} {path}: {error}")]
    Create {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: String,
        /// What the operating system said.
        error: Arc<io::Error>,
    },
}
