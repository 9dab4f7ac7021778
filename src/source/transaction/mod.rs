//! [`Transaction`]: a file that is changed as a whole or not at all.
//!
//! What lies below the *boundary*, the end of what the file's content refers to, is not touched before [`Transaction::apply`]: writes
//! there are held back in memory, and reads see them. What lies at or behind the boundary is written at once, since nothing refers to it
//! yet. `apply` makes that part durable first, then writes down in a [`journal`] what will be overwritten, and then overwrites it. A crash at any
//! moment leaves what [`recover`] makes the old file or the new one of.

mod early_sync;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod held_back;
mod journal;
mod lock;
mod recovery;
#[cfg(test)]
mod recovery_tests;
mod runs;
mod storage;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Identity, Source, SourceError};
use early_sync::{EarlySync, WORTH_A_SYNC_BYTES};
use error::io_error;
pub use error::{Left, TransactionError};
use held_back::HeldBack;
pub use journal::JournalFolder;
use journal::{Body, Guard, Head, Journal};
use lock::lock;
pub use recovery::{Pending, Recovery, pending, recover};
use storage::Storage;

/// A file opened for writing and locked against all others. Dropped without [`Transaction::apply`], it leaves the file's length and every
/// byte below the boundary as they were.
#[derive(Debug)]
pub struct Transaction {
    storage: Arc<dyn Storage>,
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
    /// Bytes that every change of the content changes, by which a journal knows the file.
    guard: Range<u64>,
    /// `None` for a new file, which has no content that could be overwritten.
    journal: Option<Journal>,
    /// What the journal begins with, once anything was changed in the file.
    head: Option<Head>,
    /// Whether bytes at or behind the boundary, or the length, were changed in the file.
    appended: bool,
    /// How much was appended since the last early sync was asked for.
    unsynced_bytes: u64,
    early_sync: Option<EarlySync>,
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
    /// Nothing of it is in the file, but there may be a journal of it.
    Undecided,
}

impl Transaction {
    /// Opens the file at `path` for reading and writing and takes an exclusive lock (`flock`) on it. The boundary is the file's length until
    /// [`Transaction::set_boundary`]. Until the end of the transaction there may be a journal in `folder`.
    ///
    /// # Errors
    /// [`TransactionError::Busy`] where another program holds a lock for longer than a second; [`TransactionError::Pending`] where an earlier
    /// change has yet to be finished; [`TransactionError::Io`].
    pub fn begin(path: &Path, folder: JournalFolder) -> Result<Self, TransactionError> {
        Self::on(open_locked(path)?, Some(folder))
    }

    /// The same for a file that has nothing in it yet, and so needs no journal.
    ///
    /// # Errors
    /// [`TransactionError::Busy`]; [`TransactionError::NotNew`]; [`TransactionError::Io`].
    pub fn begin_new(path: &Path) -> Result<Self, TransactionError> {
        let storage = open_locked(path)?;
        let len_bytes = storage.identity()?.len_bytes;
        if len_bytes > 0 {
            return Err(TransactionError::NotNew { len_bytes });
        }
        Self::on(storage, None)
    }

    fn on(
        storage: Box<dyn Storage>,
        folder: Option<JournalFolder>,
    ) -> Result<Self, TransactionError> {
        if let Some(folder) = &folder {
            recovery::clear(&*storage, folder)?;
        }
        let len_bytes = storage.identity()?.len_bytes;
        let journal = folder.map(Journal::new);
        Ok(Self {
            storage: Arc::from(storage),
            state: Mutex::new(State {
                old_len_bytes: len_bytes,
                boundary: len_bytes,
                len_bytes,
                held: HeldBack::default(),
                guard: 0..0,
                journal,
                head: None,
                appended: false,
                unsynced_bytes: 0,
                early_sync: None,
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
    /// overwritten, and the file seems to end there. `guard` are the bytes, at most some hundred, that every change of the content changes.
    ///
    /// # Errors
    /// [`TransactionError::Offset`] where the boundary is beyond the end of the file.
    pub fn set_boundary(&self, boundary: u64, guard: Range<u64>) -> Result<(), TransactionError> {
        let mut state = self.state();
        if boundary > state.old_len_bytes {
            return Err(TransactionError::Offset { offset: boundary });
        }
        state.guard = guard;
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
            Phase::Applying | Phase::Undecided => return Err(TransactionError::GivenUp),
        }
        let below = state.boundary.saturating_sub(offset);
        let below = usize::try_from(below).map_or(bytes.len(), |below| below.min(bytes.len()));
        let (held, appended) = bytes.split_at(below);
        state.held.write(offset, held);
        if appended.is_empty() {
            return Ok(());
        }
        state.is_synced = false;
        let at = offset + held.len() as u64;
        let written = self.begin_changing(&mut state).and_then(|()| {
            self.storage
                .write_all_at(appended, at)
                .map_err(|error| TransactionError::Write {
                    offset: at,
                    len_bytes: appended.len() as u64,
                    error: Arc::new(error),
                })
        });
        match &written {
            Ok(()) => self.sync_early(&mut state, appended.len() as u64),
            Err(failure) => {
                state.held.write(at, appended);
                state.phase = Phase::GivenUp(Some(failure.clone()));
            }
        }
        written
    }

    /// Lets the disk begin once much was appended, of which `len_bytes` are new.
    fn sync_early(&self, state: &mut State, len_bytes: u64) {
        state.unsynced_bytes += len_bytes;
        if state.unsynced_bytes < WORTH_A_SYNC_BYTES {
            return;
        }
        state.unsynced_bytes = 0;
        if state.early_sync.is_none() {
            state.early_sync = EarlySync::start(Arc::clone(&self.storage));
        }
        if let Some(early_sync) = &state.early_sync {
            early_sync.ask();
        }
    }

    /// To be called before anything is changed in the file: begins the journal.
    fn begin_changing(&self, state: &mut State) -> Result<(), TransactionError> {
        if state.appended {
            return Ok(());
        }
        if let Some(journal) = &mut state.journal {
            let identity = self.storage.identity()?;
            let offset = state.guard.start;
            let len_bytes = u32::try_from(state.guard.end.saturating_sub(offset))
                .map_err(|_| TransactionError::Offset { offset })?;
            let digest = journal::guard_digest(&*self.storage, offset, len_bytes)
                .map_err(io_error("reading the file"))?;
            let head = state.head.insert(Head {
                device: identity.device,
                inode: identity.inode,
                old_len_bytes: state.old_len_bytes,
                boundary: state.boundary,
                guard: Guard {
                    offset,
                    len_bytes,
                    digest,
                },
            });
            journal.begin(head)?;
        }
        state.appended = true;
        Ok(())
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
            Phase::Open | Phase::Applying | Phase::Undecided => None,
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
            Phase::Applying | Phase::Undecided => return Err(TransactionError::GivenUp),
        }
        if state.is_synced {
            return Ok(());
        }
        // Space that was allocated and never written lies behind the last byte.
        let longer = state.len_bytes.max(state.boundary);
        if longer != self.storage.identity()?.len_bytes {
            self.begin_changing(state)?;
            self.storage
                .set_len(longer)
                .map_err(io_error("setting the length of the file"))?;
        }
        let early = state.early_sync.take().map_or(Ok(()), EarlySync::finish);
        early
            .and_then(|()| self.storage.sync())
            .map_err(io_error("making the appended part durable"))?;
        state.is_synced = true;
        Ok(())
    }

    /// Makes the changes durable and visible: the appended part first, if that was not done, then what was held back.
    ///
    /// # Errors
    /// Where the transaction was given up, or the appended part or the journal cannot be made durable, the file is as it was before.
    /// [`TransactionError::Interrupted`] where it fails later, and says what is left of it.
    pub fn apply(&self) -> Result<(), TransactionError> {
        let mut state = self.state();
        self.sync_appended_of(&mut state)?;
        let body = self.plan(&state)?;
        let is_shorter = body.final_len_bytes < body.new_len_bytes;
        if body.runs.is_empty() && !is_shorter {
            state.phase = Phase::Applying;
            if let Some(journal) = &mut state.journal
                && let Err(error) = journal.remove()
            {
                log::warn!("{error}: it is dealt with at the next mount");
            }
            return Ok(());
        }
        self.begin_changing(&mut state)?;
        let State { journal, head, .. } = &mut *state;
        let (Some(journal), Some(head)) = (journal, head) else {
            // A new file has no content: its boundary is 0, below which nothing lies.
            return Err(TransactionError::GivenUp);
        };
        if let Err(failure) = journal.complete(head, &body) {
            // It may be whole on the disk all the same, and must not be when the file is cut.
            return Err(match journal.remove() {
                Ok(()) => {
                    state.phase = Phase::GivenUp(Some(failure.clone()));
                    failure
                }
                Err(error) => {
                    log::error!("{error}");
                    state.phase = Phase::Undecided;
                    interrupted(failure, Left::Undecided)
                }
            });
        }
        state.phase = Phase::Applying;
        if let Err(failure) = recovery::overwrite(&*self.storage, &body) {
            let left = if is_shorter {
                // What was cut off is nowhere else.
                Left::HalfChanged
            } else {
                self.put_back(&mut state, &body)
            };
            let failure = interrupted(failure, left);
            state.phase = match left {
                Left::Restored => Phase::GivenUp(Some(failure.clone())),
                Left::Undecided => Phase::Undecided,
                Left::HalfChanged => Phase::Applying,
            };
            return Err(failure);
        }
        if let Some(journal) = &mut state.journal
            && let Err(error) = journal.remove()
        {
            // The change is made, and durable. No other one begins while the journal is there.
            log::error!("{error}: it is dealt with at the next mount");
        }
        Ok(())
    }

    /// What is to be overwritten.
    fn plan(&self, state: &State) -> Result<Body, TransactionError> {
        let failed = io_error("reading the file");
        let mut runs = Vec::new();
        for (offset, bytes) in state.held.iter() {
            runs::differences(&*self.storage, offset, bytes, &mut runs).map_err(&failed)?;
        }
        let new_len_bytes = state.len_bytes.max(state.boundary);
        let sample = journal::sample(&*self.storage, state.boundary, new_len_bytes);
        Ok(Body {
            new_len_bytes,
            final_len_bytes: state.len_bytes,
            sample: sample.map_err(failed)?.ok_or_else(|| {
                TransactionError::Read(self.beyond(state.boundary, new_len_bytes))
            })?,
            runs,
        })
    }

    /// Puts back what was overwritten, as far as that can be done.
    fn put_back(&self, state: &mut State, body: &Body) -> Left {
        if let Err(error) = recovery::undo(&*self.storage, body) {
            log::error!("the file could not be put back as it was: {error}");
            return Left::HalfChanged;
        }
        match state.journal.as_mut().map_or(Ok(()), Journal::remove) {
            Ok(()) => Left::Restored,
            Err(error) => {
                log::error!("{error}");
                Left::Undecided
            }
        }
    }

    fn beyond(&self, offset: u64, end: u64) -> SourceError {
        SourceError::BeyondEnd {
            offset,
            want_bytes: end.saturating_sub(offset),
            file_len_bytes: self.storage.identity().map_or(0, |now| now.len_bytes),
        }
    }

    /// Whether the file may have new bytes below the boundary: [`Transaction::apply`] has written them, or failed to put back what was there.
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
        // Who gave up does not care; but until then the file is open, and so locked.
        let _ = state.early_sync.take().map(EarlySync::finish);
        if matches!(state.phase, Phase::Applying | Phase::Undecided) {
            return;
        }
        if state.appended
            && let Err(error) = self.storage.set_len(state.old_len_bytes)
        {
            // What is left lies behind the end that the superblock names, so it is no part of the file's content. By the journal it is cut off
            // at the next mount.
            log::warn!("the end of an unfinished change could not be cut off: {error}");
            return;
        }
        if let Some(journal) = &mut state.journal
            && let Err(error) = journal.take_back()
        {
            log::warn!("{error}: it is dealt with at the next mount");
        }
    }
}

fn interrupted(failure: TransactionError, left: Left) -> TransactionError {
    TransactionError::Interrupted {
        error: Arc::new(failure),
        left,
    }
}

fn open_locked(path: &Path) -> Result<Box<dyn Storage>, TransactionError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io_error("opening the file for writing"))?;
    lock(&file)?;
    Ok(Box::new(file))
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
