//! The log of changes: an append-only file in the sidecar, from which the staged tree is made again after a crash.
//!
//! A record is its length in bytes (32-bit little-endian), the first eight bytes of the SHA-256 of its text, and its text, which is JSON. A
//! record is written with one call as the change happens, so that the log survives the end of the process.
//!
//! # A record that is not whole
//!
//! - *The process ended while it was written.* Then it is the last one, and cut off: the change that it was to tell of was never reported as done.
//! - *The machine went down before it was synced.* Sectors reach the disk in any order, so that what comes behind may be whole. None of it was
//!   promised, and it does not make sense without what is missing: the log ends before the gap, and whoever takes it up is told.
//! - *The file was damaged.* Changes that were promised are lost, and those behind may mean something else without them: the log is
//!   refused, and with it all that is staged, which is kept but not taken up.
//!
//! They are told apart by what the log says of itself. The log's first record, and one at each new start of the machine, name
//! that start: as long as the machine has been running since, nothing can be missing but the end of a record at the very end. After another start, damage is
//! what lies before the end of what is said, by a record further behind, to have been durable. Each sync of the log is preceded by such a record, which
//! says what earlier syncs achieved, and followed by one, which says what it achieved itself and becomes durable at some later time.
//!
//! # When syncing fails
//!
//! The kernel then forgets which bytes it could not write, and the next sync succeeds without them. So all that may be missing is read and written
//! again before the next sync. Where the kernel gave up its pages meanwhile, what is read is not what was written, which the records' checksums tell: then no sync
//! succeeds any more, that of a commit among them, until all that is staged was dropped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::StagingError;
use super::boot::{is_this_boot, this_boot};
use super::change::{Begin, FORMAT, Record};
use super::sidecar::Sidecar;

const NAME: &str = "changes";
/// A log that was not synced yet, and so may be anything after the machine went down.
const NEW_NAME: &str = "changes.new";
/// Length and checksum.
const HEAD_BYTES: usize = 12;

/// The longest log. It is read into memory as a whole.
const MAX_BYTES: u64 = 1 << 30;

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    sidecar: Arc<Sidecar>,
    file: File,
    /// Shared with whoever syncs the log elsewhere ([`Log::syncing`]).
    end: Arc<Mutex<End>>,
    /// Of the records that were there when it was opened, where each ends.
    ends: Vec<u64>,
    /// Whether it has its final name, which it gets when it is synced first.
    is_named: Arc<AtomicBool>,
}

/// How far a log goes.
#[derive(Debug, Default)]
struct End {
    len_bytes: u64,
    /// Where the last record ends that has to become durable.
    promised_bytes: u64,
    /// How much is durable.
    durable_bytes: u64,
    /// Whether the end of the file could not be brought back to `len_bytes`: nothing may be added to it then.
    is_broken: bool,
    /// Why a sync failed.
    failure: Option<Arc<io::Error>>,
}

impl End {
    /// # Errors
    /// What made a sync fail, if one did.
    fn check_synced(&self) -> io::Result<()> {
        match &self.failure {
            Some(error) => Err(io::Error::new(error.kind(), error.clone())),
            None => Ok(()),
        }
    }
}

fn locked(end: &Mutex<End>) -> MutexGuard<'_, End> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the log's bytes durable, those among them that a sync before this one failed to write.
fn sync_data(file: &File, end: &Mutex<End>) -> io::Result<()> {
    let mut state = locked(end);
    if state.failure.is_some() {
        write_again(file, &state)?;
        file.sync_data()?;
        state.failure = None;
        return Ok(());
    }
    drop(state);
    // Not under the lock: changes go on meanwhile.
    if let Err(error) = file.sync_data() {
        let mut end = locked(end);
        // Another sync may have been told instead of this one: the first failure counts.
        end.failure.get_or_insert(Arc::new(error));
        return end.check_synced();
    }
    // Of two at the same time, the system tells only one that bytes were lost.
    locked(end).check_synced()
}

/// Writes again what is not known to be durable, if it can still be read as it was written.
fn write_again(file: &File, end: &End) -> io::Result<()> {
    let lost = |_| {
        end.check_synced()
            .err()
            .unwrap_or(io::ErrorKind::Other.into())
    };
    let len = usize::try_from(end.len_bytes).map_err(lost)?;
    let durable = usize::try_from(end.durable_bytes).map_err(lost)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    let (_, ends) = decode(&bytes);
    match bytes.get(durable..) {
        Some(unsynced) if ends.last() == Some(&end.len_bytes) => {
            file.write_all_at(unsynced, end.durable_bytes)
        }
        _ => end.check_synced(),
    }
}

/// What a log was found to hold.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) begin: Begin,
    /// What happened since.
    pub(super) records: Vec<Record>,
    /// Whether the machine has been running without a break since it was last written.
    pub(super) is_same_boot: bool,
    /// Whether records were lost that had been written, but not synced, when the machine went down.
    pub(super) is_cut: bool,
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
            end: Arc::default(),
            ends: Vec::new(),
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

    /// The log that is there; `None` where there is none, or one that was never synced and did not outlive the machine.
    ///
    /// # Errors
    /// What the operating system says; [`StagingError::SidecarDamaged`] where its first record is not understood, or one in its middle is damaged.
    pub(super) fn open(sidecar: &Arc<Sidecar>) -> Result<Option<Opened>, StagingError> {
        let is_named = sidecar.has(NAME)?;
        let name = if is_named { NAME } else { NEW_NAME };
        if !sidecar.has(name)? {
            return Ok(None);
        }
        let file = sidecar.open(name)?;
        let failed = |error: io::Error| sidecar.failed(name, error);
        let foreign = |what| StagingError::SidecarDamaged {
            path: sidecar.path().join(name),
            what,
        };
        let len_bytes = file.metadata().map_err(failed)?.len();
        if len_bytes > MAX_BYTES {
            return Err(foreign("it is too long to be a log of staged changes"));
        }
        let mut bytes = vec![0; usize::try_from(len_bytes).map_err(|_| StagingError::TooLong)?];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let found = read(&bytes);
        let mut records = found.records.into_iter();
        let begin = match records.next() {
            Some(Record::Begin(begin)) => begin,
            None if !is_named => return Ok(None),
            _ => return Err(foreign("it is not a log of staged changes")),
        };
        if begin.format != FORMAT {
            return Err(foreign("it was written by another version of this program"));
        }
        if found.is_damaged {
            return Err(foreign("a record in its middle is damaged"));
        }
        let whole_bytes = found.ends.last().copied().unwrap_or(0);
        file.set_len(whole_bytes).map_err(failed)?;
        let log = Self {
            sidecar: sidecar.clone(),
            file,
            end: Arc::new(Mutex::new(End {
                len_bytes: whole_bytes,
                promised_bytes: whole_bytes,
                durable_bytes: if found.is_same_boot {
                    found.durable_bytes
                } else {
                    // What was read after another start of the machine came from the disk.
                    whole_bytes
                },
                ..End::default()
            })),
            ends: found.ends,
            is_named: Arc::new(AtomicBool::new(is_named)),
        };
        Ok(Some(Opened {
            log,
            begin,
            records: records.collect(),
            is_same_boot: found.is_same_boot,
            is_cut: !found.is_same_boot && whole_bytes < len_bytes,
        }))
    }

    /// Notes that what comes behind is written after another start of the machine than what is there.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn note_boot(&mut self) -> Result<(), StagingError> {
        self.append(&Record::Boot {
            boot: this_boot().map(str::to_owned),
        })
    }

    /// Takes back the records from the one with this number on, counted from 0 without the first one.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn cut(&mut self, record: usize) -> Result<(), StagingError> {
        if let Some(&len_bytes) = self.ends.get(record) {
            self.file
                .set_len(len_bytes)
                .map_err(|error| self.failed(error))?;
            self.ends.truncate(record + 1);
            let mut end = self.end();
            end.len_bytes = len_bytes;
            end.promised_bytes = len_bytes;
            end.durable_bytes = end.durable_bytes.min(len_bytes);
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
        self.append_all(std::slice::from_ref(record))
    }

    /// Adds records, with one write.
    ///
    /// # Errors
    /// What the operating system says; the log is then as it was.
    pub(super) fn append_all(&mut self, records: &[Record]) -> Result<(), StagingError> {
        let mut end = self.end();
        self.append_at(&mut end, records)?;
        end.promised_bytes = end.len_bytes;
        Ok(())
    }

    fn append_at(&self, end: &mut End, records: &[Record]) -> Result<(), StagingError> {
        if end.is_broken {
            let cut = self.file.set_len(end.len_bytes);
            cut.map_err(|error| self.failed(error))?;
            end.is_broken = false;
        }
        let bytes = records.iter().map(encode).collect::<Vec<_>>().concat();
        if let Err(error) = self.file.write_all_at(&bytes, end.len_bytes) {
            end.is_broken = self.file.set_len(end.len_bytes).is_err();
            return Err(self.failed(error));
        }
        end.len_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes all records durable, and the log's name.
    ///
    /// # Errors
    /// What the operating system says; of a sync before this one too, where that cannot be made good.
    pub(super) fn sync(&self) -> Result<(), StagingError> {
        self.sync_records()?;
        if !self.is_named.load(Ordering::Acquire) {
            name(&self.sidecar, &self.is_named)?;
            self.sidecar.sync()?;
        }
        Ok(())
    }

    fn sync_records(&self) -> Result<(), StagingError> {
        let len_bytes = {
            let mut end = self.end();
            if end.failure.is_none() && end.promised_bytes <= end.durable_bytes {
                return Ok(());
            }
            let durable_bytes = end.durable_bytes;
            self.append_at(&mut end, &[Record::Synced { durable_bytes }])?;
            end.len_bytes
        };
        sync_data(&self.file, &self.end).map_err(|error| self.failed(error))?;
        let mut end = self.end();
        end.durable_bytes = end.durable_bytes.max(len_bytes);
        let durable_bytes = end.durable_bytes;
        if let Err(error) = self.append_at(&mut end, &[Record::Synced { durable_bytes }]) {
            // All is durable. Only damage that comes over the end of it would now be taken for what a power failure left.
            log::debug!("{error}");
        }
        Ok(())
    }

    /// Does the same, when it is called, but leaves it to others to make names in the sidecar durable.
    ///
    /// # Errors
    /// What the operating system says. Of what is given: that too, and of a sync before it or of one that [`Log::sync`] made.
    pub(super) fn syncing(
        &self,
    ) -> Result<impl Fn() -> io::Result<()> + Send + Sync + 'static, StagingError> {
        let file = self.file.try_clone().map_err(|error| self.failed(error))?;
        let (sidecar, is_named) = (Arc::clone(&self.sidecar), Arc::clone(&self.is_named));
        let end = Arc::clone(&self.end);
        Ok(move || {
            sync_data(&file, &end)?;
            if is_named.load(Ordering::Acquire) {
                return Ok(());
            }
            name(&sidecar, &is_named).map_err(io::Error::other)
        })
    }

    fn end(&self) -> MutexGuard<'_, End> {
        locked(&self.end)
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

/// What the bytes of a log are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Those up to the first that is not whole, the log's first one among them.
    pub(super) records: Vec<Record>,
    /// Where each of them ends.
    pub(super) ends: Vec<u64>,
    /// See [`Opened::is_same_boot`].
    is_same_boot: bool,
    /// How much is said to have been durable, by records that are whole.
    durable_bytes: u64,
    /// Whether what is behind the records is neither what a process leaves that ended nor what a machine leaves that went down.
    pub(super) is_damaged: bool,
}

/// What `bytes` are as a log. Whatever they are, no more memory is taken than they justify.
pub(super) fn read(bytes: &[u8]) -> Found {
    let (records, ends) = decode(bytes);
    let whole_bytes = ends.last().copied().unwrap_or(0);
    let whole = bytes
        .len()
        .min(usize::try_from(whole_bytes).unwrap_or(usize::MAX));
    let rest = &bytes[whole..];
    let (behind, is_searched) = whole_records_behind(rest);
    let boot = records
        .iter()
        .chain(&behind)
        .rev()
        .find_map(|record| match record {
            Record::Begin(begin) => Some(begin.boot.as_deref()),
            Record::Boot { boot } => Some(boot.as_deref()),
            _ => None,
        });
    let is_same_boot = is_this_boot(boot.flatten());
    let durable = |records: &[Record]| {
        let durable = records.iter().map(|record| match record {
            Record::Synced { durable_bytes } => *durable_bytes,
            _ => 0,
        });
        durable.max().unwrap_or(0)
    };
    let durable_behind = durable(&behind);
    let is_damaged = if rest.is_empty() {
        false
    } else if is_same_boot {
        // A process that ends in a write leaves the beginning of a record.
        !behind.is_empty() || !is_searched || !is_cut_off(rest)
    } else {
        durable_behind > whole_bytes || !is_searched
    };
    Found {
        durable_bytes: durable(&records).min(whole_bytes),
        records,
        ends,
        is_same_boot,
        is_damaged,
    }
}

/// Whether what is there is shorter than the record that it begins.
fn is_cut_off(rest: &[u8]) -> bool {
    rest.first_chunk().is_none_or(|length| {
        let end = HEAD_BYTES as u64 + u64::from(u32::from_le_bytes(*length));
        end > rest.len() as u64
    })
}

/// The whole records behind one that is not whole, and whether all of `rest` could be searched for them: it takes a hash of each text that may be that of a
/// record, so that not more than a few times the whole is hashed.
fn whole_records_behind(rest: &[u8]) -> (Vec<Record>, bool) {
    let mut left_bytes = rest.len().saturating_mul(4).saturating_add(1 << 20);
    let mut records = Vec::new();
    let mut at = 1;
    while let Some(candidate) = rest.get(at..)
        && candidate.len() > HEAD_BYTES
    {
        // The text is an object of JSON.
        let length = candidate
            .first_chunk()
            .map(|length| u32::from_le_bytes(*length) as usize);
        let text = length.and_then(|length| candidate[HEAD_BYTES..].get(..length));
        let Some(text) = text.filter(|text| text.starts_with(b"{\"") && text.ends_with(b"}"))
        else {
            at += 1;
            continue;
        };
        if text.len() > left_bytes {
            return (records, false);
        }
        left_bytes -= text.len();
        match decode_one(candidate) {
            Some((record, behind)) => {
                records.push(record);
                at = rest.len() - behind.len();
            }
            None => at += 1,
        }
    }
    (records, true)
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
mod tests;
