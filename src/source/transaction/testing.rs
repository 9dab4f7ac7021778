//! A file whose n-th change fails, for tests of whatever writes through a [`Transaction`].

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Transaction;
use super::storage::Storage;
use crate::source::{Identity, SourceError};

/// Which changes of a file fail, all as they do on a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
    /// The one with this number, counted from 0.
    Only(i64),
    /// The one with this number, and all that come after it.
    From(i64),
}

#[derive(Debug)]
struct FailingFile {
    file: File,
    fail: Fail,
    changes: AtomicI64,
}

/// A transaction on the file at `path`, of whose changes (writes, lengths, syncs) some fail.
pub(crate) fn begin_failing(path: &Path, fail: Fail) -> Transaction {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    Transaction::on(Box::new(FailingFile {
        file,
        fail,
        changes: AtomicI64::new(0),
    }))
    .unwrap()
}

impl FailingFile {
    fn change(&self) -> io::Result<()> {
        let number = self.changes.fetch_add(1, Ordering::Relaxed);
        let fails = match self.fail {
            Fail::Only(n) => number == n,
            Fail::From(n) => number >= n,
        };
        if fails {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }
}

impl Storage for FailingFile {
    fn read_up_to_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_up_to_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.change() {
            // A full disk takes a part of it.
            Storage::write_all_at(&self.file, &bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        Storage::write_all_at(&self.file, bytes, offset)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.change()?;
        Storage::set_len(&self.file, len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.change()?;
        Storage::sync(&self.file)
    }

    fn identity(&self) -> Result<Identity, SourceError> {
        self.file.identity()
    }
}
