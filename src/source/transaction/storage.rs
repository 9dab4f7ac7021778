//! What a [`Transaction`](super::Transaction) needs of a file: the seam at which tests let the n-th call fail.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::source::{Identity, SourceError, local};

/// A file that is read and written at offsets.
pub(super) trait Storage: Debug + Send + Sync {
    /// Fills `buffer` from `offset` on as far as the file goes, and says how far that is.
    fn read_up_to_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file that long.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;
    /// Waits until all that was written is durable.
    fn sync(&self) -> io::Result<()>;
    /// The state of the file now.
    fn identity(&self) -> Result<Identity, SourceError>;
}

impl Storage for File {
    fn read_up_to_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        File::set_len(self, len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn identity(&self) -> Result<Identity, SourceError> {
        match self.metadata() {
            Ok(metadata) => Ok(local::identity_of(&metadata)),
            Err(error) => Err(SourceError::Io {
                offset: 0,
                error: Arc::new(error),
            }),
        }
    }
}
