//! What readers of this process may still believe while the same process writes a new version.
//!
//! A commit appends to the file first and changes nothing that was there, though the file's length and times say that it did. Only then
//! are the old bytes overwritten that lead to the new version. So there are three phases: *appending*, in which the state that the commit
//! began with is still whole; *applying*, in which no state is to be had; and *published*, in which the file is still locked, so that
//! it holds what it held before and the new version, and nothing else. A commit that fails while it applies, and cannot put back what was there, leaves
//! the file *half changed*: nothing more is read of it by this process, whose last state stays the one before.
//!
//! What was written last has a time that tells it from any later write ([`LocalFile::stamp`]), so that the new state is settled at once.
//!
//! [`LocalFile::stamp`]: crate::source::LocalFile::stamp

use std::sync::{Arc, Mutex, PoisonError};

use crate::source::Identity;

/// Whether this process writes to the file, and how far it is.
#[derive(Debug, Default)]
pub(crate) struct OwnCommit {
    phase: Mutex<Phase>,
    /// The state that the last commit left, if its time is one that no later write gives.
    stamped: Mutex<Option<Identity>>,
}

/// What a commit added to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Added {
    /// Name of the version.
    pub(crate) version: Arc<[u8]>,
    /// Paths of datasets that had no raw data before.
    pub(crate) raw_data: Vec<Arc<[u8]>>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Phase {
    #[default]
    None,
    /// The file holds all that it held in this state.
    Appending(Identity),
    Applying,
    /// The file holds all that it held in this state, and what was added.
    Published(Identity, Arc<Added>),
    /// For good.
    HalfChanged,
}

/// A commit that goes on; ended when dropped.
#[derive(Debug)]
pub(crate) struct RunningCommit<'c> {
    commit: &'c OwnCommit,
    before: Identity,
}

impl OwnCommit {
    /// Says that from now on this process, which holds the lock on the file, appends to it in the state `before`.
    pub(crate) fn begin(&self, before: Identity) -> RunningCommit<'_> {
        self.set(Phase::Appending(before));
        RunningCommit {
            commit: self,
            before,
        }
    }

    /// Whether this process writes to the file.
    pub(crate) fn is_running(&self) -> bool {
        matches!(
            self.get(),
            Phase::Appending(_) | Phase::Applying | Phase::HalfChanged
        )
    }

    /// Whether a commit of this process failed half way.
    pub(crate) fn is_half_changed(&self) -> bool {
        self.get() == Phase::HalfChanged
    }

    /// What the file holds beside what it held in the state `before`; `None` where that is not known.
    pub(crate) fn added_to(&self, before: &Identity) -> Option<Arc<Added>> {
        match self.get() {
            Phase::Published(began_with, added) if began_with == *before => Some(added),
            _ => None,
        }
    }

    /// Whether any later write changes the file's times.
    pub(crate) fn is_stamped(&self, identity: &Identity) -> bool {
        let stamped = self.stamped.lock().unwrap_or_else(PoisonError::into_inner);
        *stamped == Some(*identity)
    }

    /// Whether all bytes of the state `identity` are still there, though the file was written to.
    pub(crate) fn keeps(&self, identity: &Identity) -> bool {
        self.get() == Phase::Appending(*identity)
    }

    fn get(&self) -> Phase {
        self.phase
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

impl RunningCommit<'_> {
    /// To be called before any byte is overwritten that was in the file.
    pub(crate) fn apply(&self) {
        self.commit.set(Phase::Applying);
    }

    /// To be called when the file can be neither changed nor put back.
    pub(crate) fn leave_half_changed(&self) {
        self.commit.set(Phase::HalfChanged);
    }

    /// To be called when the version is in the file, which stays locked until this is dropped. `stamped` is the file's state where that is
    /// known for sure.
    pub(crate) fn publish(&self, added: Added, stamped: Option<Identity>) {
        *self
            .commit
            .stamped
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = stamped;
        self.commit
            .set(Phase::Published(self.before, Arc::new(added)));
    }
}

impl Drop for RunningCommit<'_> {
    fn drop(&mut self) {
        if !self.commit.is_half_changed() {
            self.commit.set(Phase::None);
        }
    }
}
