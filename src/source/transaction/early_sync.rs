//! Lets the disk begin with what is appended while more of it is made: the sync at the end then finds little left to wait for.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use super::storage::Storage;

/// So many appended bytes are worth a sync of their own.
pub(super) const WORTH_A_SYNC_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 32 << 20 };

/// A thread that syncs a file whenever it is asked to.
#[derive(Debug)]
pub(super) struct EarlySync {
    requests: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl EarlySync {
    /// `None` where there is no thread to be had, and nobody needs one.
    pub(super) fn start(storage: Arc<dyn Storage>) -> Option<Self> {
        let (requests, asked) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("early-sync".into())
            .spawn(move || asked.iter().try_for_each(|()| storage.sync()))
            .ok()?;
        Some(Self { requests, thread })
    }

    /// Asks for one more sync, unless one was asked for that has not begun.
    pub(super) fn ask(&self) {
        // After a failure nobody listens; `finish` tells it.
        let _ = self.requests.try_send(());
    }

    /// Waits until all that was asked for is done.
    ///
    /// # Errors
    /// The first failure. The operating system may not report it again to whoever syncs later.
    pub(super) fn finish(self) -> io::Result<()> {
        drop(self.requests);
        self.thread
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    }
}
