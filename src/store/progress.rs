//! How far a commit is: told by the threads that make it, and read by anybody meanwhile.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Chunks of the commit that runs, if any does.
#[derive(Debug, Default)]
pub struct CommitProgress {
    to_hash: AtomicU64,
    hashed: AtomicU64,
    to_store: AtomicU64,
    stored: AtomicU64,
}

/// What a commit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitStep {
    /// Looking which chunks are new.
    Hashing,
    /// Writing those that are.
    Storing,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitState {
    /// What it does.
    pub step: CommitStep,
    /// Chunks of which it has done that.
    pub done: u64,
    /// Chunks of which it is known that it has to.
    pub of: u64,
}

impl CommitProgress {
    /// Another commit begins.
    pub fn begin(&self) {
        for count in [&self.to_hash, &self.hashed, &self.to_store, &self.stored] {
            count.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn will_hash(&self, chunks: u64) {
        self.to_hash.fetch_add(chunks, Ordering::Relaxed);
    }

    pub(super) fn has_hashed(&self, chunks: u64) {
        self.hashed.fetch_add(chunks, Ordering::Relaxed);
    }

    pub(super) fn will_store(&self, chunks: u64) {
        self.to_store.fetch_add(chunks, Ordering::Relaxed);
    }

    pub(super) fn has_stored(&self, chunks: u64) {
        self.stored.fetch_add(chunks, Ordering::Relaxed);
    }

    /// How far it is.
    #[must_use]
    pub fn state(&self) -> CommitState {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (step, done, of) = match get(&self.to_store) {
            0 => (CommitStep::Hashing, get(&self.hashed), get(&self.to_hash)),
            of => (CommitStep::Storing, get(&self.stored), of),
        };
        CommitState { step, done, of }
    }
}

impl CommitStep {
    /// Its name, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hashing => "hashing",
            Self::Storing => "storing",
        }
    }
}

impl fmt::Display for CommitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chunks, done) = match self.step {
            CommitStep::Hashing => ("chunks", "hashed"),
            CommitStep::Storing => ("new chunks", "stored"),
        };
        write!(f, "{} of {} {chunks} are {done}", self.done, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_hashed_and_then_stored() {
        let progress = CommitProgress::default();
        progress.will_hash(40);
        progress.has_hashed(10);
        assert_eq!(progress.state().to_string(), "10 of 40 chunks are hashed");
        progress.will_store(3);
        progress.has_stored(2);
        assert_eq!(progress.state().to_string(), "2 of 3 new chunks are stored");
        progress.begin();
        assert_eq!(progress.state().of, 0);
    }
}
