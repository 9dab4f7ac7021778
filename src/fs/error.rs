//! From what went wrong to an errno: the only place that does so.

use libc::c_int;
use log::Level;

use super::ControlError;
use crate::codec::CodecError;
use crate::h5::H5Error;
use crate::source::TransactionError;
use crate::staging::StagingError;
use crate::store::json::ValueError;
use crate::store::{CommitFailure, StagedReadError, StoreError};

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// No name is longer than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
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
    /// A file of `npy/staging/` that would be no .npy file.
    #[error("the names of files in npy/staging/ end with .npy")]
    NotNpy,
    /// A file of `staging/` cannot be moved to `npy/staging/`, nor the other way round.
    #[error("a file cannot be moved from one view of staging/ to another")]
    OtherView,
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
    /// The next version cannot be had, changed or committed like this.
    #[error(transparent)]
    Staging(StagingError),
}

impl From<StagingError> for FsError {
    fn from(error: StagingError) -> Self {
        match error {
            StagingError::NotFound => Self::NotFound,
            error => Self::Staging(error),
        }
    }
}

impl FsError {
    /// The number that a system call returns for it.
    #[must_use]
    pub fn errno(&self) -> c_int {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::NameTooLong => libc::ENAMETOOLONG,
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
            Self::OtherView => libc::EXDEV,
            Self::Invalid | Self::NotNpy | Self::Control(_) => libc::EINVAL,
            Self::NoSuchOffset => libc::ENXIO,
            Self::Io(error) => error.raw_os_error().unwrap_or(libc::EIO),
            Self::Store(error) => store_errno(error),
            Self::Staging(error) => staging_errno(error),
        }
    }

    /// How loudly it is logged: what only the log can explain is an error there, what the caller asked for is not.
    #[must_use]
    pub fn log_level(&self) -> Level {
        match self {
            Self::Store(StoreError::VersionGone { .. } | StoreError::ObjectGone { .. }) => {
                Level::Info
            }
            Self::Io(_) | Self::Store(_) => Level::Error,
            // Nobody but the log and `.status` can say more than the number.
            Self::Control(_) => Level::Warn,
            Self::Staging(error) => match error {
                StagingError::Sidecar { .. }
                | StagingError::SidecarForeign { .. }
                | StagingError::SidecarDamaged { .. }
                | StagingError::Recovery { .. }
                | StagingError::HalfChanged { .. }
                | StagingError::Store(_)
                | StagingError::Read(_) => Level::Error,
                StagingError::Held { .. }
                | StagingError::BaseGone { .. }
                | StagingError::Npy { .. }
                | StagingError::NpyText { .. }
                | StagingError::NpyTooWide { .. }
                | StagingError::Text { .. }
                | StagingError::Latched { .. } => Level::Warn,
                // A commit that fails is logged where it does.
                _ => Level::Debug,
            },
            _ => Level::Debug,
        }
    }
}

fn store_errno(error: &StoreError) -> c_int {
    match error {
        StoreError::VersionGone { .. } | StoreError::ObjectGone { .. } => libc::ESTALE,
        StoreError::TooWide { .. } => libc::EFBIG,
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
        | StoreError::ChunkDamaged { .. }
        | StoreError::Unhashable { .. }
        | StoreError::Value { .. }
        | StoreError::Attribute { .. }
        | StoreError::HalfChanged { .. }
        | StoreError::Unsettled { .. } => libc::EIO,
    }
}

fn staging_errno(error: &StagingError) -> c_int {
    match error {
        StagingError::NotFound | StagingError::NoSuchVersion { .. } => libc::ENOENT,
        StagingError::Stale | StagingError::BaseGone { .. } => libc::ESTALE,
        StagingError::Exists | StagingError::AttributeExists => libc::EEXIST,
        StagingError::NotEmpty => libc::ENOTEMPTY,
        StagingError::NotADirectory => libc::ENOTDIR,
        StagingError::IsADirectory => libc::EISDIR,
        StagingError::NotPermitted { .. } => libc::EPERM,
        StagingError::NameTooLong => libc::ENAMETOOLONG,
        StagingError::NoAttribute => libc::ENODATA,
        StagingError::AttributeTooBig => libc::E2BIG,
        StagingError::IntoItself
        | StagingError::BadName { .. }
        | StagingError::AttributeName
        | StagingError::Description { .. }
        | StagingError::Shape { .. }
        | StagingError::Npy { .. }
        | StagingError::NpyUnfinished { .. }
        | StagingError::NpyLength { .. }
        | StagingError::NpyText { .. }
        | StagingError::NpyRefused
        | StagingError::Text { .. } => libc::EINVAL,
        StagingError::NpyTooWide { .. } | StagingError::TooLong => libc::EFBIG,
        StagingError::NoSuchOffset => libc::ENXIO,
        StagingError::Held { .. } => libc::EBUSY,
        StagingError::Sidecar { error, .. }
        | StagingError::Read(StagedReadError::Overlay { error, .. }) => {
            error.raw_os_error().unwrap_or(libc::EIO)
        }
        StagingError::SidecarForeign { .. }
        | StagingError::SidecarDamaged { .. }
        | StagingError::HalfChanged { .. }
        | StagingError::Latched { .. } => libc::EIO,
        StagingError::Recovery { error, .. } => match error {
            TransactionError::Busy => libc::EBUSY,
            error => {
                let reason = error.io_error();
                reason
                    .and_then(|error| error.raw_os_error())
                    .unwrap_or(libc::EIO)
            }
        },
        StagingError::Store(error) | StagingError::Read(StagedReadError::Base(error)) => {
            store_errno(error)
        }
        StagingError::Commit(error) => match error.failure() {
            CommitFailure::Exists => libc::EEXIST,
            CommitFailure::Invalid => libc::EINVAL,
            CommitFailure::Busy => libc::EBUSY,
            CommitFailure::ReadOnly => libc::EROFS,
            CommitFailure::NoSpace => libc::ENOSPC,
            CommitFailure::Stale => libc::ESTALE,
            CommitFailure::Unsupported => libc::EOPNOTSUPP,
            CommitFailure::Io => libc::EIO,
        },
    }
}
