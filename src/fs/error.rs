//! From what went wrong to an errno: the only place that does so.

use libc::c_int;
use log::Level;

use super::ControlError;
use crate::codec::CodecError;
use crate::h5::H5Error;
use crate::store::StoreError;
use crate::store::json::ValueError;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The inode was there once.
    #[error("the file or directory is no longer there")]
    Stale,
    /// A name was looked up in something that is not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// A directory was used as a file.
    #[error("is a directory")]
    IsADirectory,
    /// Committed versions are never changed.
    #[error("committed versions are read-only")]
    ReadOnly,
    /// Not something that can be done to a file of this kind.
    #[error("operation not permitted")]
    NotPermitted,
    /// The file cannot be opened or used like this.
    #[error("permission denied")]
    AccessDenied,
    /// The name is taken.
    #[error("the file or directory exists")]
    Exists,
    /// The file is closed, or was opened for something else.
    #[error("the file is not open for this")]
    BadHandle,
    /// What was written to a control file is not understood.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// No extended attribute of that name.
    #[error("no such attribute")]
    NoAttribute,
    /// The attribute exceeds 64 KiB.
    #[error("the attribute's value is too big for an extended attribute")]
    AttributeTooBig,
    /// Not something this file system does.
    #[error("not supported")]
    NotSupported,
    /// A handle or an argument that makes no sense.
    #[error("invalid argument")]
    Invalid,
    /// Nothing there to seek to.
    #[error("no data at or behind the offset")]
    NoSuchOffset,
    /// The operating system refused.
    #[error("{0}")]
    Io(std::io::Error),
    /// Something is wrong with the versioned file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FsError {
    /// The number that a system call returns for it.
    #[must_use]
    pub fn errno(&self) -> c_int {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Stale => libc::ESTALE,
            Self::NotADirectory => libc::ENOTDIR,
            Self::IsADirectory => libc::EISDIR,
            Self::ReadOnly => libc::EROFS,
            Self::NotPermitted => libc::EPERM,
            Self::AccessDenied => libc::EACCES,
            Self::Exists => libc::EEXIST,
            Self::BadHandle => libc::EBADF,
            Self::NoAttribute => libc::ENODATA,
            Self::AttributeTooBig => libc::E2BIG,
            Self::NotSupported => libc::ENOTSUP,
            Self::Invalid | Self::Control(_) => libc::EINVAL,
            Self::NoSuchOffset => libc::ENXIO,
            Self::Io(error) => error.raw_os_error().unwrap_or(libc::EIO),
            Self::Store(error) => match error {
                StoreError::VersionGone { .. } => libc::ESTALE,
                StoreError::Open { error, .. } => error.raw_os_error().unwrap_or(libc::EIO),
                StoreError::Filter {
                    error: CodecError::UnknownFilter { .. } | CodecError::UnsupportedForm { .. },
                    ..
                }
                | StoreError::ChunkDecode {
                    error: CodecError::UnsupportedForm { .. },
                    ..
                }
                | StoreError::Object {
                    error: H5Error::Unsupported { .. },
                    ..
                }
                | StoreError::RawData {
                    error: H5Error::Unsupported { .. },
                    ..
                }
                | StoreError::Attribute {
                    error: ValueError::Heap(H5Error::Unsupported { .. }),
                    ..
                } => libc::EOPNOTSUPP,
                StoreError::NotAFile { .. }
                | StoreError::Busy { .. }
                | StoreError::NotHdf5 { .. }
                | StoreError::NotVersioned { .. }
                | StoreError::Damaged { .. }
                | StoreError::Object { .. }
                | StoreError::RawData { .. }
                | StoreError::Inconsistent { .. }
                | StoreError::Filter { .. }
                | StoreError::ChunkMissing { .. }
                | StoreError::ChunkLength { .. }
                | StoreError::ChunkRead { .. }
                | StoreError::ChunkDecode { .. }
                | StoreError::HashTable { .. }
                | StoreError::ChunkHash { .. }
                | StoreError::Unhashable { .. }
                | StoreError::Value { .. }
                | StoreError::Attribute { .. }
                | StoreError::Unsettled { .. } => libc::EIO,
            },
        }
    }

    /// How loudly it is logged: what only the log can explain is an error there, what the caller asked for is not.
    #[must_use]
    pub fn log_level(&self) -> Level {
        match self {
            Self::Store(StoreError::VersionGone { .. }) => Level::Info,
            Self::Io(_) | Self::Store(_) => Level::Error,
            _ => Level::Debug,
        }
    }
}
