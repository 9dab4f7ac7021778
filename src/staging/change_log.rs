//! The log of changes: an append-only file in the sidecar, from which the staged tree is made again after a crash.
//!
//! A record is its length in bytes (32-bit little-endian), the first eight bytes of the SHA-256 of its text, and its text, which is JSON. A
//! record is written with one call as the change happens, so that the log survives the end of the process. A record that is
//! not whole is the last one: the change that it was to tell of was never reported as done.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::StagingError;
use super::change::{Begin, FORMAT, Record};
use super::sidecar::Sidecar;

const NAME: &str = "changes";
/// A log that was not synced yet, and so may be anything after the machine went down.
const NEW_NAME: &str = "changes.new";
/// Length and checksum.
const HEAD_BYTES: usize = 12;

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    sidecar: Arc<Sidecar>,
    file: File,
    len_bytes: u64,
    /// Of the records that were there when it was opened, where each ends.
    ends: Vec<u64>,
    /// Whether the end of the file could not be brought back to `len_bytes`: nothing may be added to it then.
    is_broken: bool,
    /// Whether it has its final name, which it gets when it is synced first.
    is_named: Arc<AtomicBool>,
}

impl Log {
    /// Begins a new log: in place of an old one, durably; where there is none, its first record and its name are durable when it is synced.
    ///
    /// # Errors
    /// What the operating system says; the old log is then as it was.
    pub(super) fn begin(sidecar: &Arc<Sidecar>, begin: &Begin) -> Result<Self, StagingError> {
        let mut log = Self {
            sidecar: sidecar.clone(),
            file: sidecar.create(NEW_NAME)?,
            len_bytes: 0,
            ends: Vec::new(),
            is_broken: false,
            is_named: Arc::default(),
        };
        log.append(&Record::Begin(begin.clone()))?;
        if sidecar.has(NAME)? {
            log.sync()?;
        }
        Ok(log)
    }

    /// Whether there is one.
    pub(super) fn is_in(sidecar: &Sidecar) -> Result<bool, StagingError> {
        Ok(sidecar.has(NAME)? || sidecar.has(NEW_NAME)?)
    }

    /// The log that is there, with what it is over and what happened since; `None` where there is none, or one that was never synced and did
    /// not outlive the machine.
    ///
    /// # Errors
    /// What the operating system says; [`StagingError::SidecarDamaged`] where its first record is not understood.
    pub(super) fn open(
        sidecar: &Arc<Sidecar>,
    ) -> Result<Option<(Self, Begin, Vec<Record>)>, StagingError> {
        let is_named = sidecar.has(NAME)?;
        let name = if is_named { NAME } else { NEW_NAME };
        if !sidecar.has(name)? {
            return Ok(None);
        }
        let file = sidecar.open(name)?;
        let failed = |error: io::Error| sidecar.failed(name, error);
        let len_bytes = file.metadata().map_err(failed)?.len();
        let mut bytes = vec![0; usize::try_from(len_bytes).map_err(|_| StagingError::TooLong)?];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let (records, ends) = decode(&bytes);
        let whole_bytes = ends.last().copied().unwrap_or(0);
        let foreign = |what| StagingError::SidecarDamaged {
            path: sidecar.path().join(name),
            what,
        };
        let mut records = records.into_iter();
        let begin = match records.next() {
            Some(Record::Begin(begin)) => begin,
            None if !is_named => return Ok(None),
            _ => return Err(foreign("it is not a log of staged changes")),
        };
        if begin.format != FORMAT {
            return Err(foreign("it was written by another version of this program"));
        }
        file.set_len(whole_bytes).map_err(failed)?;
        let log = Self {
            sidecar: sidecar.clone(),
            file,
            len_bytes: whole_bytes,
            ends,
            is_broken: false,
            is_named: Arc::new(AtomicBool::new(is_named)),
        };
        Ok(Some((log, begin, records.collect())))
    }

    /// Takes back the records from the one with this number on, counted from 0 without the first one.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn cut(&mut self, record: usize) -> Result<(), StagingError> {
        if let Some(&end) = self.ends.get(record) {
            self.file.set_len(end).map_err(|error| self.failed(error))?;
            self.len_bytes = end;
            self.ends.truncate(record + 1);
        }
        Ok(())
    }

    /// Removes the log: nothing is staged then. It may come back by a crash of the machine until the sidecar is synced.
    pub(super) fn remove(sidecar: &Sidecar) -> Result<(), StagingError> {
        sidecar.remove(NAME)?;
        sidecar.remove(NEW_NAME)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// What the operating system says; the log is then as it was.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), StagingError> {
        if self.is_broken {
            let cut = self.file.set_len(self.len_bytes);
            cut.map_err(|error| self.failed(error))?;
            self.is_broken = false;
        }
        let bytes = encode(record);
        if let Err(error) = self.file.write_all_at(&bytes, self.len_bytes) {
            self.is_broken = self.file.set_len(self.len_bytes).is_err();
            return Err(self.failed(error));
        }
        self.len_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes all records durable, and the log's name.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn sync(&self) -> Result<(), StagingError> {
        self.file.sync_data().map_err(|error| self.failed(error))?;
        if !self.is_named.load(Ordering::Acquire) {
            name(&self.sidecar, &self.is_named)?;
            self.sidecar.sync()?;
        }
        Ok(())
    }

    /// Does the same, when it is called, but leaves it to others to make names in the sidecar durable.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn syncing(
        &self,
    ) -> Result<impl Fn() -> io::Result<()> + Send + Sync + 'static, StagingError> {
        let file = self.file.try_clone().map_err(|error| self.failed(error))?;
        let (sidecar, is_named) = (Arc::clone(&self.sidecar), Arc::clone(&self.is_named));
        Ok(move || {
            file.sync_data()?;
            if is_named.load(Ordering::Acquire) {
                return Ok(());
            }
            name(&sidecar, &is_named).map_err(io::Error::other)
        })
    }

    fn failed(&self, error: io::Error) -> StagingError {
        self.sidecar.failed(NAME, error)
    }
}

/// Gives a log whose records are durable its name, and makes that of the sidecar durable.
fn name(sidecar: &Sidecar, is_named: &AtomicBool) -> Result<(), StagingError> {
    if sidecar.has(NEW_NAME)? {
        sidecar.replace(NEW_NAME, NAME)?;
    }
    sidecar.sync_own_name()?;
    is_named.store(true, Ordering::Release);
    Ok(())
}

fn checksum(text: &[u8]) -> [u8; 8] {
    *Sha256::digest(text)
        .first_chunk()
        .expect("SHA-256 has 32 bytes")
}

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let text = serde_json::to_vec(record).expect("JSON into memory");
    let length = u32::try_from(text.len()).expect("an attribute's value is at most 64 KiB long");
    [&length.to_le_bytes()[..], &checksum(&text), &text].concat()
}

/// The records up to the first that is not whole, and where each of them ends.
pub(super) fn decode(bytes: &[u8]) -> (Vec<Record>, Vec<u64>) {
    let (mut records, mut ends) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    while let Some((record, behind)) = decode_one(rest) {
        records.push(record);
        rest = behind;
        ends.push((bytes.len() - rest.len()) as u64);
    }
    (records, ends)
}

fn decode_one(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (length, stored) = head.split_first_chunk()?;
    let (text, behind) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if checksum(text) != stored {
        return None;
    }
    Some((serde_json::from_slice(text).ok()?, behind))
}

#[cfg(test)]
mod tests {
    use super::super::change::Change;
    use super::*;

    fn begin() -> Begin {
        Begin {
            format: FORMAT,
            device: 1,
            inode: 2,
            base: None,
            pinned: false,
        }
    }

    fn change(name: &str) -> Record {
        Record::Change(Change::Mkdir {
            path: name.as_bytes().to_vec(),
        })
    }

    #[test]
    fn a_log_that_was_cut_anywhere_holds_what_was_whole() {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::make(&directory.path().join("s")).unwrap();
        let mut log = Log::begin(&sidecar, &begin()).unwrap();
        log.sync().unwrap();
        let mut ends = vec![log.len_bytes];
        for name in ["a", "bb", "c"] {
            log.append(&change(name)).unwrap();
            ends.push(log.len_bytes);
        }
        let path = directory.path().join("s/changes");
        let whole = std::fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let complete = ends.iter().filter(|&&end| end <= len as u64).count();
            let opened = Log::open(&sidecar);
            if complete == 0 {
                assert!(
                    matches!(opened, Err(StagingError::SidecarDamaged { .. })),
                    "{len}"
                );
                continue;
            }
            let (mut log, found, records) = opened.unwrap().unwrap();
            assert_eq!(found, begin());
            assert_eq!(records.len(), complete - 1, "{len}");
            // What is added goes behind what is whole.
            log.append(&change("new")).unwrap();
            let (_, _, records) = Log::open(&sidecar).unwrap().unwrap();
            assert_eq!(records.len(), complete, "{len}");
            assert_eq!(records.last(), Some(&change("new")));
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::make(&directory.path().join("s")).unwrap();
        let mut log = Log::begin(&sidecar, &begin()).unwrap();
        let first = log.len_bytes;
        log.append(&change("a")).unwrap();
        log.append(&change("b")).unwrap();
        log.sync().unwrap();
        let path = directory.path().join("s/changes");
        let whole = std::fs::read(&path).unwrap();
        for byte in usize::try_from(first).unwrap()..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let (_, _, records) = Log::open(&sidecar).unwrap().unwrap();
            let expected = [change("a"), change("b")];
            assert!(records.len() < 2);
            assert_eq!(records, expected[..records.len()]);
        }
    }

    #[test]
    fn another_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::make(&directory.path().join("s")).unwrap();
        assert!(Log::open(&sidecar).unwrap().is_none());
        let other = Begin {
            format: FORMAT + 1,
            ..begin()
        };
        Log::begin(&sidecar, &other).unwrap();
        assert!(matches!(
            Log::open(&sidecar),
            Err(StagingError::SidecarDamaged { .. })
        ));
    }
}
