//! The open file in one state, and what is read of it once and kept: never anything that was read while the file changed.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::StoreError;
use super::own_commit::OwnCommit;
use super::verification::Verification;
use crate::h5::library::LibraryFile;
use crate::h5::{H5Error, H5File};
use crate::source::{Identity, LocalFile, Source};

/// Epochs are never used twice in a process.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// A number that no other raw data or rendered dataset has.
pub(crate) fn new_epoch() -> u64 {
    NEXT_EPOCH.fetch_add(1, Ordering::Relaxed)
}

/// The open file in one state.
#[derive(Debug)]
pub(crate) struct FileState {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its bytes.
    pub(crate) source: Arc<LocalFile>,
    /// Its superblock.
    pub(crate) h5: H5File,
    /// Which state.
    pub(crate) identity: Identity,
    /// See [`FileState::is_complete`].
    complete: AtomicBool,
    /// What this process itself does to the file.
    own_commit: Arc<OwnCommit>,
    /// The layout's number.
    pub(crate) data_version: i64,
    /// Whether what is read is held against its hashes.
    pub(crate) verification: Arc<Verification>,
}

/// What all states of one opened file have in common.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedStates {
    /// What this process itself does to the file.
    pub(crate) own_commit: Arc<OwnCommit>,
    /// Whether what is read is held against its hashes.
    pub(crate) verification: Arc<Verification>,
    /// Whether the end of the file may be missing.
    pub(crate) may_be_cut: bool,
}

/// Something that is read once, and kept only if the file did not change while it was read.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    value: OnceLock<Result<T, StoreError>>,
    reading: Mutex<()>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            value: OnceLock::new(),
            reading: Mutex::default(),
        }
    }
}

impl<T> Kept<T> {
    /// What is kept, or else what `read` finds in `file`.
    ///
    /// # Errors
    /// Those of `read`; [`StoreError::Unsettled`].
    pub(crate) fn get_or_read(
        &self,
        file: &FileState,
        read: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<&T, StoreError> {
        if self.value.get().is_none() {
            let _one_reader = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            if self.value.get().is_none() {
                let found = file.settled(|| Ok(read()))?;
                self.value.get_or_init(|| found);
            }
        }
        match self.value.get() {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(error.clone()),
            None => Err(file.unsettled()),
        }
    }
}

impl<T> Kept<T> {
    /// What is kept, if it is sound.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get()?.as_ref().ok()
    }
}

impl FileState {
    /// The file at `path`, opened as `source`, in the state `identity`; not yet known to be complete.
    pub(crate) fn new(
        path: &Path,
        source: Arc<LocalFile>,
        h5: H5File,
        identity: Identity,
        shared: &SharedStates,
        data_version: i64,
    ) -> Self {
        Self {
            path: path.to_owned(),
            source,
            h5,
            identity,
            complete: AtomicBool::new(false),
            own_commit: shared.own_commit.clone(),
            data_version,
            verification: shared.verification.clone(),
        }
    }

    /// What `read` finds in the file, if that is still in this state afterwards: whatever is kept for later must have
    /// passed through here.
    ///
    /// # Errors
    /// Those of `read`; [`StoreError::Unsettled`].
    pub(crate) fn settled<T>(
        &self,
        read: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let found = read();
        if self.is_unchanged() {
            found
        } else {
            Err(self.unsettled())
        }
    }

    /// Whether no other program had the file open for writing in this state. One that has may keep in its memory what the
    /// metadata says already; then chunks are believed by their hashes alone.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// To be called once no other program has had the file open for writing, and then it is still in this state.
    pub(crate) fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// What this state has in common with others of the same opened file.
    pub(crate) fn shared(&self) -> SharedStates {
        SharedStates {
            own_commit: Arc::clone(&self.own_commit),
            verification: Arc::clone(&self.verification),
            // Nothing is ever added to one whose end is missing.
            may_be_cut: false,
        }
    }

    pub(crate) fn unsettled(&self) -> StoreError {
        StoreError::Unsettled {
            path: self.path.clone(),
        }
    }

    /// What `ask` finds in the file by the C library, for what is not decoded here.
    ///
    /// The library takes two openings of one file for one, with the metadata that the first one read. So there is never more
    /// than one, and it is of this very file, whatever lies at the path by now.
    ///
    /// # Errors
    /// [`H5Error::Library`], of opening or of `ask`.
    pub(crate) fn ask_library<T>(
        &self,
        ask: impl FnOnce(&LibraryFile) -> Result<T, H5Error>,
    ) -> Result<T, H5Error> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = self.source.as_file().as_raw_fd();
        let file = LibraryFile::open(Path::new(&format!("/proc/self/fd/{descriptor}")))?;
        ask(&file)
    }

    /// Whether the file is still in this state. One that was deleted, or replaced by another, is: whoever did that changed the
    /// time of its inode, but no byte. So is one to which this process only appends.
    pub(crate) fn is_unchanged(&self) -> bool {
        let Ok(now) = self.source.identity() else {
            return false;
        };
        now == self.identity
            || self.own_commit.keeps(&self.identity)
            || now.link_count == 0
                && (now.len_bytes, now.mtime_ns)
                    == (self.identity.len_bytes, self.identity.mtime_ns)
    }
}
