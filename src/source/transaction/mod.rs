//! [`Transaction`]: a file that is changed as a whole or not at all.
//!
//! What lies below the *boundary*, the end of what the file's content refers to, is not touched before [`Transaction::apply`]: writes
//! there are held back in memory, and reads see them. What lies at or behind the boundary is written at once, since nothing refers to it
//! yet. `apply` makes that part durable first, then writes what was held back.
//!
//! Not yet safe against a crash of the machine while the held-back part is written: that takes a journal, which belongs between the two
//! halves of `apply`, where all that will be overwritten is known and nothing of it has been.

mod held_back;
mod storage;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::{Identity, Source, SourceError};
use held_back::HeldBack;
use storage::Storage;

/// How long a lock that another program holds is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

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
}

/// A file opened for writing and locked against all others. Dropped without [`Transaction::apply`], it leaves the file's length and every
/// byte below the boundary as they were.
#[derive(Debug)]
pub struct Transaction {
    storage: Box<dyn Storage>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Length of the file before.
    old_len_bytes: u64,
    /// See [`Transaction::boundary`].
    boundary: u64,
    /// Length of the file as readers of the transaction see it.
    len_bytes: u64,
    held: HeldBack,
    /// Whether bytes at or behind the boundary, or the length, were changed in the file.
    appended: bool,
    /// Whether the part at or behind the boundary is durable, and as long as it will be.
    is_synced: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Open,
    /// Nothing is written any more: what still comes stays in memory, so that whoever writes can come to an end in peace.
    GivenUp(Option<TransactionError>),
    /// The held-back part is being written, or was.
    Applying,
}

impl Transaction {
    /// Opens the file at `path` for reading and writing and takes an exclusive lock (`flock`) on it. The boundary is the file's length until
    /// [`Transaction::set_boundary`].
    ///
    /// # Errors
    /// [`TransactionError::Busy`] where another program holds a lock for longer than a second; [`TransactionError::Io`].
    pub fn begin(path: &Path) -> Result<Self, TransactionError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(io_error("opening the file for writing"))?;
        lock(&file)?;
        Self::on(Box::new(file))
    }

    fn on(storage: Box<dyn Storage>) -> Result<Self, TransactionError> {
        let len_bytes = storage.identity()?.len_bytes;
        Ok(Self {
            storage,
            state: Mutex::new(State {
                old_len_bytes: len_bytes,
                boundary: len_bytes,
                len_bytes,
                held: HeldBack::default(),
                appended: false,
                is_synced: false,
                phase: Phase::Open,
            }),
        })
    }

    /// The first byte that nothing in the file refers to: from there on writes go to the file at once.
    #[must_use]
    pub fn boundary(&self) -> u64 {
        self.state().boundary
    }

    /// Says where the boundary is, before anything was written. What the file holds behind it (left by a program that crashed) will be
    /// overwritten, and the file seems to end there.
    ///
    /// # Errors
    /// [`TransactionError::Offset`] where it is beyond the end of the file.
    pub fn set_boundary(&self, boundary: u64) -> Result<(), TransactionError> {
        let mut state = self.state();
        if boundary > state.old_len_bytes {
            return Err(TransactionError::Offset { offset: boundary });
        }
        state.boundary = boundary;
        state.len_bytes = boundary;
        Ok(())
    }

    /// Writes `bytes` at `offset`. After a failure nothing more reaches the file, but the bytes can be read all the same.
    ///
    /// # Errors
    /// [`TransactionError::Write`], [`TransactionError::Offset`], [`TransactionError::GivenUp`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), TransactionError> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|&end| i64::try_from(end).is_ok())
            .ok_or(TransactionError::Offset { offset })?;
        let mut state = self.state();
        state.len_bytes = state.len_bytes.max(end);
        match &state.phase {
            Phase::Open => {}
            Phase::GivenUp(failure) => {
                let failure = failure.clone().unwrap_or(TransactionError::GivenUp);
                state.held.write(offset, bytes);
                return Err(failure);
            }
            Phase::Applying => return Err(TransactionError::GivenUp),
        }
        let below = state.boundary.saturating_sub(offset);
        let below = usize::try_from(below).map_or(bytes.len(), |below| below.min(bytes.len()));
        let (held, appended) = bytes.split_at(below);
        state.held.write(offset, held);
        if appended.is_empty() {
            return Ok(());
        }
        state.appended = true;
        state.is_synced = false;
        let at = offset + held.len() as u64;
        let written = self.storage.write_all_at(appended, at);
        written.map_err(|error| {
            state.held.write(at, appended);
            let failure = TransactionError::Write {
                offset: at,
                len_bytes: appended.len() as u64,
                error: Arc::new(error),
            };
            state.phase = Phase::GivenUp(Some(failure.clone()));
            failure
        })
    }

    /// Makes the file `len_bytes` long: what is cut off is gone when the change is applied, what is added reads as zeros.
    pub fn set_len(&self, len_bytes: u64) {
        let mut state = self.state();
        let boundary = state.boundary;
        // What was appended stays in the file until the change is applied or taken back.
        if len_bytes < boundary || matches!(state.phase, Phase::GivenUp(_)) {
            state.held.truncate(len_bytes);
        }
        state.len_bytes = len_bytes;
        state.is_synced = false;
    }

    /// The failure after which nothing more is written, if there was one.
    #[must_use]
    pub fn failure(&self) -> Option<TransactionError> {
        match &self.state().phase {
            Phase::GivenUp(failure) => failure.clone(),
            Phase::Open | Phase::Applying => None,
        }
    }

    /// Lets nothing more reach the file: what is written from now on is kept in memory until the transaction is dropped.
    pub fn give_up(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::GivenUp(None);
        }
    }

    /// Gives up because of `failure`, unless it was given up for another one before.
    pub fn fail(&self, failure: TransactionError) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Open | Phase::GivenUp(None)) {
            state.phase = Phase::GivenUp(Some(failure));
        }
    }

    /// Makes the appended part durable, which takes long, while all that the file held before can still be read.
    ///
    /// # Errors
    /// Where the transaction was given up, or the operating system refuses. The file is then as it was before.
    pub fn sync_appended(&self) -> Result<(), TransactionError> {
        self.sync_appended_of(&mut self.state())
    }

    fn sync_appended_of(&self, state: &mut State) -> Result<(), TransactionError> {
        match &state.phase {
            Phase::Open => {}
            Phase::GivenUp(failure) => {
                return Err(failure.clone().unwrap_or(TransactionError::GivenUp));
            }
            Phase::Applying => return Err(TransactionError::GivenUp),
        }
        if state.is_synced {
            return Ok(());
        }
        // Space that was allocated and never written lies behind the last byte.
        let longer = state.len_bytes.max(state.boundary);
        self.storage
            .set_len(longer)
            .map_err(io_error("setting the length of the file"))?;
        state.appended = true;
        self.storage
            .sync()
            .map_err(io_error("making the appended part durable"))?;
        state.is_synced = true;
        Ok(())
    }

    /// Makes the changes durable and visible: the appended part first, if that was not done, then what was held back.
    ///
    /// # Errors
    /// Where the transaction was given up, or the appended part cannot be made durable, the file is as it was before. An error after
    /// that leaves a part of the changes in the file; [`Transaction::is_applying`] tells the two apart.
    pub fn apply(&self) -> Result<(), TransactionError> {
        let mut state = self.state();
        self.sync_appended_of(&mut state)?;
        state.phase = Phase::Applying;
        for (offset, bytes) in state.held.iter() {
            self.storage
                .write_all_at(bytes, offset)
                .map_err(|error| TransactionError::Write {
                    offset,
                    len_bytes: bytes.len() as u64,
                    error: Arc::new(error),
                })?;
        }
        if state.len_bytes < state.boundary {
            self.storage
                .set_len(state.len_bytes)
                .map_err(io_error("setting the length of the file"))?;
        }
        self.storage
            .sync()
            .map_err(io_error("making the changes durable"))
    }

    /// Whether [`Transaction::apply`] has begun to write what was held back.
    #[must_use]
    pub fn is_applying(&self) -> bool {
        matches!(self.state().phase, Phase::Applying)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_unfinished = state.appended && !matches!(state.phase, Phase::Applying);
        if is_unfinished && let Err(error) = self.storage.set_len(state.old_len_bytes) {
            // What is left lies behind the end that the superblock names, so it is no part of the file's content.
            log::warn!("the end of an unfinished change could not be cut off: {error}");
        }
    }
}

impl Source for Transaction {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let state = self.state();
        let beyond = SourceError::BeyondEnd {
            offset,
            want_bytes: buffer.len() as u64,
            file_len_bytes: state.len_bytes,
        };
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > state.len_bytes) {
            return Err(beyond);
        }
        let read = self.storage.read_up_to_at(buffer, offset);
        let read = read.map_err(|error| SourceError::Io {
            offset,
            error: Arc::new(error),
        })?;
        // Space behind the end of the file that was allocated and is not yet written.
        buffer[read..].fill(0);
        state.held.overlay(offset, buffer);
        Ok(())
    }

    fn len_bytes(&self) -> Result<u64, SourceError> {
        Ok(self.state().len_bytes)
    }

    fn identity(&self) -> Result<Identity, SourceError> {
        self.storage.identity()
    }
}

/// What failed, with what the operating system said.
fn io_error(action: &'static str) -> impl Fn(io::Error) -> TransactionError {
    move |error| TransactionError::Io {
        action,
        error: Arc::new(error),
    }
}

/// Takes the lock that the HDF5 library takes on a file that it writes.
fn lock(file: &File) -> Result<(), TransactionError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_INTERVAL);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(TransactionError::Busy),
            Err(error) => return Err(io_error("locking the file")(error.into())),
        }
    }
}
