//! What a [`Transaction`](super::Transaction) and its journal need of files: the seam at which tests let the n-th call fail.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::source::{Identity, SourceError, local};

/// A file that is read and written at offsets.
pub(super) trait Storage: Debug + Send + Sync {
    /// Fills `buffer` from `offset` on as far as the file goes, and says how far that is.
    fn read_up_to_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file that long.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;
    /// Waits until all that was written, and the length, are durable.
    fn sync(&self) -> io::Result<()>;
    /// The state of the file now.
    fn identity(&self) -> Result<Identity, SourceError>;
}

/// A folder whose files are named, made and removed.
pub(super) trait Folder: Debug + Send + Sync {
    /// Opens a file for reading; `None` where there is none.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Storage>>>;
    /// Makes an empty file, which must not be there.
    fn create(&self, name: &str) -> io::Result<Box<dyn Storage>>;
    /// Removes a file, if it is there.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Moves a file out of the folder to a path where there must be nothing.
    fn move_to(&self, name: &str, path: &Path) -> io::Result<()>;
    /// Waits until the names in it are durable.
    fn sync(&self) -> io::Result<()>;
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
        // The length counts as data (fdatasync(2)); times do not matter.
        self.sync_data()
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

/// No symbolic link is followed in it.
impl Folder for OwnedFd {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Storage>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(self, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} is not a regular file"),
            ));
        }
        Ok(Some(Box::new(file)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Storage>> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Box::new(File::from(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(self, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn move_to(&self, name: &str, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(
            self,
            name,
            CWD,
            path,
            RenameFlags::NOREPLACE,
        )?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self)?)
    }
}
