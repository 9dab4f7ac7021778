//! The bytes of a file, wherever they lie: reading at an offset, the length, whether the file is still the one it was, and changing it as a
//! whole or not at all.
//!
//! Nothing here knows what the bytes mean.

mod local;
mod transaction;

pub use local::LocalFile;
#[cfg(any(test, fuzzing))]
pub(crate) use transaction::fuzzing;
#[cfg(test)]
pub(crate) use transaction::testing;
pub use transaction::{
    JournalFolder, Left, Pending, Recovery, Transaction, TransactionError, pending, recover,
};

use std::io::IoSliceMut;
use std::sync::Arc;

/// What tells one state of a file from another: two equal identities mean that no byte was written in between, as far
/// as the file system's timestamps can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device that holds the file (`st_dev`).
    pub device: u64,
    /// Inode number on that device (`st_ino`).
    pub inode: u64,
    /// Number of names that it has; 0 for one that was deleted (`st_nlink`).
    pub link_count: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Last change of the inode, nanoseconds since 1970.
    pub ctime_ns: i128,
}

/// Why bytes could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The read would pass the end of the file.
    #[error("bytes {offset}..{} lie beyond the end of the file ({file_len_bytes} bytes)", offset.saturating_add(*want_bytes))]
    BeyondEnd {
        /// First byte wanted.
        offset: u64,
        /// How many bytes were wanted.
        want_bytes: u64,
        /// How long the file is.
        file_len_bytes: u64,
    },
    /// The operating system refused.
    #[error("reading at byte {offset}: {error}")]
    Io {
        /// First byte wanted.
        offset: u64,
        /// What the operating system said.
        error: Arc<std::io::Error>,
    },
}

/// Random access to the bytes of one file. Offsets and lengths are in bytes.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`SourceError::BeyondEnd`] where the file ends before the buffer is full; [`SourceError::Io`] for anything else.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError>;

    /// Fills `pieces`, one behind the other, with the bytes from `offset` on.
    ///
    /// # Errors
    /// As for [`Source::read_exact_at`].
    fn read_exact_vectored_at(
        &self,
        pieces: &mut [IoSliceMut<'_>],
        offset: u64,
    ) -> Result<(), SourceError> {
        let mut offset = offset;
        for piece in pieces {
            self.read_exact_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// How long the file is now.
    ///
    /// # Errors
    /// [`SourceError::Io`].
    fn len_bytes(&self) -> Result<u64, SourceError>;

    /// The state of the opened file now.
    ///
    /// # Errors
    /// [`SourceError::Io`].
    fn identity(&self) -> Result<Identity, SourceError>;
}

/// Bytes in memory, for tests and for parsers that were handed a block.
impl Source for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        let Some(found) = found else {
            return Err(SourceError::BeyondEnd {
                offset,
                want_bytes: buffer.len() as u64,
                file_len_bytes: self.len() as u64,
            });
        };
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn len_bytes(&self) -> Result<u64, SourceError> {
        Ok(self.len() as u64)
    }

    fn identity(&self) -> Result<Identity, SourceError> {
        Ok(Identity {
            device: 0,
            inode: 0,
            link_count: 1,
            len_bytes: self.len() as u64,
            mtime_ns: 0,
            ctime_ns: 0,
        })
    }
}
