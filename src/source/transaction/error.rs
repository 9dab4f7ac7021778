//! Why a file could not be changed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::SourceError;

/// Why a file could not be changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransactionError {
    /// Another program holds a lock on the file.
    #[error("another program has the file open")]
    Busy,
    /// The operating system refused.
    #[error("{action}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        error: Arc<io::Error>,
    },
    /// Bytes could not be read.
    #[error(transparent)]
    Read(#[from] SourceError),
    /// Bytes could not be written.
    #[error("writing {len_bytes} bytes at byte {offset}: {error}")]
    Write {
        /// First byte.
        offset: u64,
        /// How many.
        len_bytes: u64,
        /// What the operating system said.
        error: Arc<io::Error>,
    },
    /// An offset or a length is beyond what a file can have.
    #[error("byte {offset} is beyond the largest file")]
    Offset {
        /// The offset.
        offset: u64,
    },
    /// The transaction was given up before.
    #[error("the change of the file was given up")]
    GivenUp,
    /// A file that was to be new has something in it.
    #[error("the new file has {len_bytes} bytes already")]
    NotNew {
        /// How many.
        len_bytes: u64,
    },
    /// More is to be overwritten than a journal may hold.
    #[error("{len_bytes} bytes are to be overwritten, more than a journal holds")]
    JournalTooLong {
        /// How many.
        len_bytes: u64,
    },
    /// An earlier change was interrupted, and has to be finished first.
    #[error(
        "{} is left of a change that was interrupted, which has to be finished first: \
         unmount and mount again, or run `vh5fs recover`",
        path.display()
    )]
    Pending {
        /// The journal.
        path: PathBuf,
    },
    /// The operating system refused when bytes were to be overwritten, or after that.
    #[error("overwriting what was there: {error}")]
    Interrupted {
        /// What failed.
        error: Arc<TransactionError>,
        /// What became of the file.
        left: Left,
    },
}

/// What a change that failed at its end left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The file is as it was.
    Restored,
    /// The file is as it was, but its journal may be there: recovery takes the change back, or finishes it.
    Undecided,
    /// The file has some of the new bytes, and its journal is there: recovery finishes the change.
    HalfChanged,
}

impl TransactionError {
    /// What the operating system said, where that is the reason.
    #[must_use]
    pub fn io_error(&self) -> Option<&Arc<io::Error>> {
        match self {
            Self::Io { error, .. }
            | Self::Write { error, .. }
            | Self::Read(SourceError::Io { error, .. }) => Some(error),
            Self::Interrupted { error, .. } => error.io_error(),
            Self::Busy
            | Self::Read(SourceError::BeyondEnd { .. })
            | Self::Offset { .. }
            | Self::GivenUp
            | Self::NotNew { .. }
            | Self::JournalTooLong { .. }
            | Self::Pending { .. } => None,
        }
    }
}

/// What failed, with what the operating system said.
pub(super) fn io_error(action: &'static str) -> impl Fn(io::Error) -> TransactionError {
    move |error| TransactionError::Io {
        action,
        error: Arc::new(error),
    }
}
