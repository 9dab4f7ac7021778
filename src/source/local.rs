//! A file on a local (or network-mounted) file system, read with `pread`.

use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::{Identity, Source, SourceError};

const NANOSECONDS: i128 = 1_000_000_000;

/// An open file. Keeps no lock and no position.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
    path: PathBuf,
    reads: AtomicU64,
}

impl LocalFile {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            path: path.to_owned(),
            reads: AtomicU64::new(0),
        })
    }

    /// The state of whatever lies at the path now, which another program may have put there since.
    ///
    /// # Errors
    /// What `stat(2)` says.
    pub fn identity_at_path(path: &Path) -> io::Result<Identity> {
        Ok(identity_of(&std::fs::metadata(path)?))
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often bytes were read so far, by whomever: what was found between two equal counts came from memory.
    #[must_use]
    pub fn read_count(&self) -> u64 {
        self.reads.load(Ordering::Acquire)
    }

    /// Owner, group, permissions and times of the opened file.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Gives the file a modification time that no write after this call will give it, and says which state it is in then. So a state of the file
    /// that was written only just now is told from any later one, though the file system's times go by ticks.
    ///
    /// A write takes its time from a clock that stands still between the kernel's ticks, and the time given is between the last tick and
    /// now: every later time is that of this tick, or of one to come. To be called while no other program writes to the file. `None` where
    /// that cannot be done: only the owner may set times, some file systems keep coarse ones, a tick may just have passed.
    #[must_use]
    pub fn stamp(&self) -> Option<Identity> {
        use rustix::time::{ClockId, clock_gettime};
        let nanoseconds = |clock| {
            let time = clock_gettime(clock);
            i128::from(time.tv_sec) * NANOSECONDS + i128::from(time.tv_nsec)
        };
        let tick = nanoseconds(ClockId::RealtimeCoarse);
        let stamp = nanoseconds(ClockId::Realtime) - 1;
        let written = self.identity().ok()?.mtime_ns;
        if stamp <= tick || stamp <= written || nanoseconds(ClockId::RealtimeCoarse) != tick {
            return None;
        }
        let since_1970 = Duration::from_nanos(u64::try_from(stamp).ok()?);
        self.file.set_modified(UNIX_EPOCH + since_1970).ok()?;
        let stamped = self.identity().ok()?;
        (stamped.mtime_ns == stamp).then_some(stamped)
    }

    /// The open file itself, for system calls that want a descriptor.
    #[must_use]
    pub fn as_file(&self) -> &File {
        &self.file
    }
}

impl Source for LocalFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.reads.fetch_add(1, Ordering::AcqRel);
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => SourceError::BeyondEnd {
                    offset,
                    want_bytes: buffer.len() as u64,
                    file_len_bytes: self.file.metadata().map_or(0, |m| m.len()),
                },
                _ => SourceError::Io {
                    offset,
                    error: Arc::new(error),
                },
            })
    }

    fn read_exact_vectored_at(
        &self,
        pieces: &mut [IoSliceMut<'_>],
        offset: u64,
    ) -> Result<(), SourceError> {
        self.reads.fetch_add(1, Ordering::AcqRel);
        let (mut pieces, mut offset) = (pieces, offset);
        while pieces.iter().any(|piece| !piece.is_empty()) {
            let count = match rustix::io::preadv(&self.file, pieces, offset) {
                Ok(0) => {
                    return Err(SourceError::BeyondEnd {
                        offset,
                        want_bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
                        file_len_bytes: self.file.metadata().map_or(0, |m| m.len()),
                    });
                }
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => 0,
                Err(error) => {
                    return Err(SourceError::Io {
                        offset,
                        error: Arc::new(error.into()),
                    });
                }
            };
            IoSliceMut::advance_slices(&mut pieces, count);
            offset += count as u64;
        }
        Ok(())
    }

    fn len_bytes(&self) -> Result<u64, SourceError> {
        Ok(self.identity()?.len_bytes)
    }

    fn identity(&self) -> Result<Identity, SourceError> {
        match self.file.metadata() {
            Ok(metadata) => Ok(identity_of(&metadata)),
            Err(error) => Err(SourceError::Io {
                offset: 0,
                error: Arc::new(error),
            }),
        }
    }
}

pub(in crate::source) fn identity_of(metadata: &Metadata) -> Identity {
    let nanoseconds =
        |seconds: i64, rest: i64| i128::from(seconds) * NANOSECONDS + i128::from(rest);
    Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        link_count: metadata.nlink(),
        len_bytes: metadata.len(),
        mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However soon a write follows, the state that was stamped is told from the one behind it.
    #[test]
    fn a_stamp_is_told_from_every_later_write() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ours = LocalFile::open(file.path()).unwrap();
        let mut stamps = 0;
        for round in 0..2000u32 {
            file.as_file().write_at(&round.to_le_bytes(), 0).unwrap();
            let Some(stamped) = ours.stamp() else {
                continue;
            };
            stamps += 1;
            assert_eq!(ours.identity().unwrap(), stamped);
            file.as_file().write_at(&round.to_le_bytes(), 0).unwrap();
            let later = ours.identity().unwrap();
            assert_ne!(later.mtime_ns, stamped.mtime_ns, "round {round}");
            assert_eq!(later.len_bytes, 4);
        }
        assert!(stamps > 1000, "{stamps}");
    }
}
