//! A file and a journal's folder whose n-th change fails, for tests of whatever writes through a [`Transaction`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::io::Errno;

use super::storage::{Folder, Storage};
use super::{JournalFolder, Transaction, TransactionError};
use crate::source::{Identity, SourceError};

/// Which changes of a file and its journal fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
    /// The one with this number, counted from 0.
    Only(i64),
    /// The one with this number, and all that come after it.
    From(i64),
    /// The sync of a file with this number, counted from 0.
    Sync(i64),
}

/// Counts changes (writes, lengths, syncs, names), and lets some fail.
#[derive(Debug)]
struct Faults {
    fail: Fail,
    errno: Errno,
    changes: AtomicI64,
    syncs: AtomicI64,
}

impl Faults {
    fn change(&self) -> io::Result<()> {
        let number = self.changes.fetch_add(1, Ordering::Relaxed);
        let fails = match self.fail {
            Fail::Only(n) => number == n,
            Fail::From(n) => number >= n,
            Fail::Sync(_) => false,
        };
        self.fail_if(fails)
    }

    /// A change that is a sync of a file.
    fn sync(&self) -> io::Result<()> {
        self.change()?;
        let number = self.syncs.fetch_add(1, Ordering::Relaxed);
        self.fail_if(self.fail == Fail::Sync(number))
    }

    fn fail_if(&self, fails: bool) -> io::Result<()> {
        if fails {
            return Err(self.errno.into());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FailingFile {
    file: Box<dyn Storage>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct FailingFolder {
    folder: OwnedFd,
    faults: Arc<Faults>,
}

/// A transaction on the file at `path`, of whose changes some fail as they do on a full disk.
pub(crate) fn begin_failing(path: &Path, fail: Fail) -> Transaction {
    begin_failing_with(path, fail, Errno::NOSPC).unwrap()
}

/// The same with another error, where it may be refused from the start.
pub(crate) fn begin_failing_with(
    path: &Path,
    fail: Fail,
    errno: Errno,
) -> Result<Transaction, TransactionError> {
    let (storage, folder) = failing(path, fail, errno);
    Transaction::on(storage, Some(folder))
}

/// The file at `path` and the folder of its journal, of whose changes some fail.
pub(super) fn failing(path: &Path, fail: Fail, errno: Errno) -> (Box<dyn Storage>, JournalFolder) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let faults = Arc::new(Faults {
        fail,
        errno,
        changes: AtomicI64::new(0),
        syncs: AtomicI64::new(0),
    });
    let folder_path = folder_path(path);
    let folder = FailingFolder {
        folder: open_folder(&folder_path),
        faults: faults.clone(),
    };
    let storage = FailingFile {
        file: Box::new(file),
        faults,
    };
    (
        Box::new(storage),
        JournalFolder::on(Arc::new(folder), folder_path),
    )
}

/// The folder for the journal of the file at `path` that the tests of a transaction use.
pub(crate) fn journal_beside(path: &Path) -> JournalFolder {
    let folder = folder_path(path);
    JournalFolder::new(open_folder(&folder), folder)
}

fn folder_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap().to_owned();
    name.push(".journals");
    path.with_file_name(name)
}

fn open_folder(path: &Path) -> OwnedFd {
    if let Err(error) = std::fs::create_dir(path) {
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
    File::open(path).unwrap().into()
}

impl Storage for FailingFile {
    fn read_up_to_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_up_to_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.faults.change() {
            // A full disk takes a part of it.
            self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.faults.change()?;
        self.file.set_len(len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.file.sync()
    }

    fn identity(&self) -> Result<Identity, SourceError> {
        self.file.identity()
    }
}

impl Folder for FailingFolder {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Storage>>> {
        self.folder.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Storage>> {
        self.faults.change()?;
        Ok(Box::new(FailingFile {
            file: self.folder.create(name)?,
            faults: self.faults.clone(),
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.change()?;
        self.folder.remove(name)
    }

    fn move_to(&self, name: &str, path: &Path) -> io::Result<()> {
        self.faults.change()?;
        self.folder.move_to(name, path)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.change()?;
        self.folder.sync()
    }
}
