//! The journal as a fuzz target; see [`crate::fuzzing`]. Whoever can write a journal can compute its digests, so they are right here, or nothing behind
//! them would be looked at.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::journal::{self, Body, Decoded, Guard, Head, JournalFolder};
use super::recovery::recover_storage;
use super::runs::Run;
use super::storage::{Folder, Storage};
use super::{Recovery, TransactionError};
use crate::fuzzing::Input;
use crate::source::{Identity, SourceError};

/// The longest file that a journal is tried on.
const MAX_FILE_BYTES: u16 = 4096;
const INODE: u64 = 7;

/// A file in memory that fails once its changes are used up.
#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    /// Writes and lengths: first byte and end of what each changed.
    changes: Vec<(u64, u64)>,
    left: Option<usize>,
}

impl Disk {
    fn change(&mut self, start: u64, end: u64) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::Other)?;
        }
        self.changes.push((start, end));
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Disk>>);

impl Memory {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            bytes,
            ..Disk::default()
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> Vec<u8> {
        self.disk().bytes.clone()
    }
}

fn index(offset: u64) -> io::Result<usize> {
    // As pread(2) has it.
    if i64::try_from(offset).is_err() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    usize::try_from(offset).map_err(io::Error::other)
}

impl Storage for Memory {
    fn read_up_to_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk();
        let found = disk.bytes.get(index(offset)?..).unwrap_or_default();
        let count = found.len().min(buffer.len());
        buffer[..count].copy_from_slice(&found[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk();
        let end = offset + bytes.len() as u64;
        assert!(end <= disk.bytes.len() as u64, "a write beyond the end");
        disk.change(offset, end)?;
        disk.bytes[index(offset)?..index(end)?].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let mut disk = self.disk();
        let old = disk.bytes.len() as u64;
        assert!(len_bytes <= old, "a file is made longer");
        disk.change(len_bytes, old)?;
        disk.bytes.truncate(index(len_bytes)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn identity(&self) -> Result<Identity, SourceError> {
        Ok(Identity {
            device: 1,
            inode: INODE,
            link_count: 1,
            len_bytes: self.disk().bytes.len() as u64,
            mtime_ns: 0,
            ctime_ns: 0,
        })
    }
}

/// A folder that holds a journal or nothing.
#[derive(Debug, Clone, Default)]
struct MemoryFolder(Arc<Mutex<Option<Vec<u8>>>>);

impl MemoryFolder {
    fn journal(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Folder for MemoryFolder {
    fn open(&self, _: &str) -> io::Result<Option<Box<dyn Storage>>> {
        let journal = self.journal().clone();
        Ok(journal.map(|bytes| Box::new(Memory::of(bytes)) as Box<dyn Storage>))
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn Storage>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        *self.journal() = None;
        Ok(())
    }

    fn move_to(&self, _: &str, _: &Path) -> io::Result<()> {
        *self.journal() = None;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Any bytes, and a journal made of them, over a small file: nothing but what the journal speaks of is changed, and a crash on the way changes nothing
/// of what comes out.
pub(crate) fn journal(bytes: &[u8]) {
    let decoded = journal::decode(bytes);
    if let Decoded::Whole(head, body) = &decoded {
        let again = journal::encode(head, body);
        assert_eq!(again, bytes[..again.len()]);
    }
    let mut input = Input::new(bytes);
    let file = some_file(&mut input);
    let (head, body) = some_journal(&mut input, &file);
    let mut journal = journal::encode(&head, &body);
    match input.u8() % 4 {
        0 => journal.truncate(usize::from(input.u16())),
        1 => journal.extend_from_slice(input.rest()),
        _ => {}
    }
    let (recovery, after) = recover_from(&file, &journal, None);
    let recovery = recovery.expect("nothing fails");
    match recovery {
        Recovery::NothingToDo => panic!("there is a journal"),
        Recovery::SetAside { .. } => assert_eq!(after, file),
        Recovery::TakenBack { cut_bytes } => {
            assert_eq!(after.len() as u64 + cut_bytes, file.len() as u64);
            assert_eq!(after, file[..after.len()]);
        }
        Recovery::Finished { .. } => assert_finished(&file, &after, &head, &body),
    }
    for left in 0..4 {
        let (_, again) = recover_from(&file, &journal, Some(left));
        assert_eq!(again, after, "after a crash at change {left}");
    }
}

/// What becomes of a file, where the first recovery fails after so many changes and another one follows.
fn recover_from(
    file: &[u8],
    journal: &[u8],
    left: Option<usize>,
) -> (Result<Recovery, TransactionError>, Vec<u8>) {
    let storage = Memory::of(file.to_vec());
    storage.disk().left = left;
    let folder = MemoryFolder(Arc::new(Mutex::new(Some(journal.to_vec()))));
    let journals = JournalFolder::on(Arc::new(folder.clone()), "journals".into());
    let recovery = recover_storage(&storage, &journals);
    assert_eq!(recovery.is_ok(), folder.journal().is_none());
    storage.disk().left = None;
    let again = recover_storage(&storage, &journals);
    if recovery.is_ok() {
        assert!(matches!(again, Ok(Recovery::NothingToDo)));
    }
    assert!(folder.journal().is_none());
    let bytes = storage.bytes();
    (recovery, bytes)
}

fn assert_finished(file: &[u8], after: &[u8], head: &Head, body: &Body) {
    assert!(after.len() <= file.len());
    for (at, (before, after)) in file.iter().zip(after).enumerate() {
        let at = at as u64;
        let new = body.runs.iter().find_map(|run| {
            let within = at.checked_sub(run.offset)?;
            run.new.get(usize::try_from(within).ok()?)
        });
        assert_eq!(*after, *new.unwrap_or(before), "byte {at}");
        assert!(before == after || at < head.boundary, "byte {at}");
    }
    assert!(after.len() == file.len() || after.len() as u64 == body.final_len_bytes);
}

fn some_file(input: &mut Input<'_>) -> Vec<u8> {
    let len = usize::from(input.u16() % MAX_FILE_BYTES);
    let seed = input.u8();
    (0..len)
        .map(|at| seed.wrapping_add((at % 251).to_le_bytes()[0]))
        .collect()
}

/// A number that is mostly one of a place in the file or about its end, and else anything.
fn some_place(input: &mut Input<'_>, file: &[u8]) -> u64 {
    let len = file.len() as u64;
    match input.u8() % 8 {
        0 => input.u64(),
        1 => len,
        2 => len + u64::from(input.u8()),
        3 => len.saturating_sub(u64::from(input.u8())),
        _ => u64::from(input.u16()) % (len + 1),
    }
}

fn some_journal(input: &mut Input<'_>, file: &[u8]) -> (Head, Body) {
    let storage = Memory::of(file.to_vec());
    let (offset, len_bytes) = (some_place(input, file), input.u32());
    let digest = match input.u8() % 4 {
        0 => [1; 32],
        _ => journal::guard_digest(&storage, offset, len_bytes).unwrap_or([2; 32]),
    };
    let head = Head {
        device: 1,
        inode: if input.u8().is_multiple_of(4) {
            1
        } else {
            INODE
        },
        old_len_bytes: some_place(input, file),
        boundary: some_place(input, file),
        guard: Guard {
            offset,
            len_bytes,
            digest,
        },
    };
    let mut runs = Vec::new();
    for _ in 0..input.u8() % 5 {
        let offset = some_place(input, file);
        let new = input.take(64).to_vec();
        let found = usize::try_from(offset).ok().and_then(|at| file.get(at..));
        let found = found.and_then(|found| found.get(..new.len()));
        let old = match (found, input.u8() % 8) {
            (Some(found), 1..) => found.to_vec(),
            _ => vec![input.u8(); new.len()],
        };
        runs.push(Run { offset, old, new });
    }
    if !input.u8().is_multiple_of(8) {
        runs.sort_by_key(|run| run.offset);
    }
    let new_len_bytes = some_place(input, file);
    let sample = match input.u8() % 4 {
        0 => [3; 32],
        _ => journal::sample(&storage, head.boundary, new_len_bytes)
            .ok()
            .flatten()
            .unwrap_or([4; 32]),
    };
    let body = Body {
        new_len_bytes,
        final_len_bytes: some_place(input, file),
        sample,
        runs,
    };
    (head, body)
}
