//! What can be wrong with an HDF5 file.

use super::Address;
use crate::source::SourceError;

/// Why a structure of the file could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum H5Error {
    /// No signature where a superblock may be.
    #[error("not an HDF5 file")]
    NotHdf5,
    /// The bytes could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file ends before the end that its superblock names.
    #[error("the file is truncated: it should be {want_bytes} bytes long and is {got_bytes}")]
    Truncated {
        /// How long it should be at least.
        want_bytes: u64,
        /// How long it is.
        got_bytes: u64,
    },
    /// A structure is not what the format demands.
    #[error("damaged {structure} at byte {}: {what}", address.0)]
    Damaged {
        /// The structure's name in the specification.
        structure: &'static str,
        /// Where it begins.
        address: Address,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A structure is whole, but of a form that is not decoded here.
    #[error("{structure} at byte {} is of a form that is not supported: {what}", address.0)]
    Unsupported {
        /// The structure's name in the specification.
        structure: &'static str,
        /// Where it begins.
        address: Address,
        /// Which form.
        what: &'static str,
    },
    /// The C library refused.
    #[error("the HDF5 library could not {action}: {message}")]
    Library {
        /// What was asked of it.
        action: &'static str,
        /// The innermost message of its error stack.
        message: String,
    },
}
