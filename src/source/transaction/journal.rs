//! The journal: what makes a change of a file survive a crash as a whole, or leave nothing.
//!
//! # Protocol
//!
//! A [`Transaction`](super::Transaction) writes in this order, each step durable before the next one where it says so:
//!
//! 1. The journal is made with its *head* (how long the file is, where its content ends, and a digest of the *guard*: bytes that every change of the
//!    content changes, the superblock). Not synced. The file is then appended to; meanwhile another thread makes the journal's name durable, and whatever
//!    else the folder's owner wants to be so before the file is overwritten.
//! 2. The appended part is synced.
//! 3. The *body*: each run of bytes that is to be overwritten, with what is there and what is to be there. The journal is synced, and
//!    the other thread waited for. From here on the change will happen, whatever crashes.
//! 4. The runs are written, and the file is synced.
//! 5. The journal is removed, and its folder synced.
//!
//! What the journal holds are the differing bytes of metadata: kilobytes, however much was appended.
//!
//! # Invariants
//!
//! - No byte below the end of the content is written while there is no whole, durable journal that has its old and its new value.
//! - As long as a whole journal is there, each byte of each run in the file is the old one or the new one, and the file has the length and the appended
//!   part that the journal says. So applying it is idempotent, and a crash while that is done changes nothing.
//! - A journal is removed only when the file has all of the new bytes durably, or all of the old ones.
//!
//! # Recovery
//!
//! [`recover`](super::recover) is called with the folder locked, and takes the file's lock. What it finds, and does:
//!
//! | journal | file | done |
//! | --- | --- | --- |
//! | no whole head | any | the journal is removed: nothing but the end of the file was written, and nothing says where that began |
//! | head, no whole body | same inode, guard unchanged, longer than it was | what was appended is cut off, the journal removed |
//! | head, no whole body | any other | the journal is removed: nothing was overwritten, and what is in the file is not this change's |
//! | whole | has every new byte | the journal is removed: the crash came before that |
//! | whole | has the length, the appended part, and of each byte the old or the new one | the runs are written, synced, and the journal removed |
//! | whole | anything else | the journal is moved out of the folder, with a message, and the file not touched |
//!
//! So content decides, not names or numbers. The device and inode that are recorded are told in messages, and the inode is asked after before anything
//! is cut off; but after a power failure a disk may come back under another device number, and a file may be copied away and put back:
//!
//! - *Another program wrote to the file although a commit was interrupted.* The HDF5 library sets the file's length when it closes it, and a commit of
//!   the Python library changes the superblock and appends where our appended part is. One of length, appended part and runs differs: the journal is
//!   set aside. If runs had been applied already, that program has written to a file that was half changed, and only checking the file tells what it is
//!   worth.
//! - *The file was copied away and put back*, after the crash: the same bytes in another inode. They are as half changed as the original ones, and the journal
//!   proves to be theirs, so it is applied.
//! - *The file was restored from a backup* of before the change: its length is another one, or its appended part is missing. It is sound as it is, and
//!   the journal is set aside. Of after the change: every new byte is there.
//! - *Another file was put in its place*: as with a backup.
//!
//! # Layout
//!
//! Numbers are little-endian; offsets and lengths are in bytes.
//!
//! ```text
//! head   0  "vh5fsjnl"
//!        8  u32 version of the layout, 1        12  u32 length of the guard
//!       16  u64 device                          24  u64 inode
//!       32  u64 length of the file before       40  u64 end of its content (the boundary)
//!       48  u64 offset of the guard             56  SHA-256 of the guard (32)
//!       88  first 8 bytes of the SHA-256 of bytes 0 to 87
//! body  96  "overruns"
//!      104  u64 length of the journal, with its last digest
//!      112  u64 length of the file once it was appended to
//!      120  u64 length of the file in the end; less where the change makes the content shorter
//!      128  SHA-256 of samples of the appended part (32): see `sample`
//!      160  u64 number of runs
//!      168  each run: u64 offset, u64 length, the old bytes, the new bytes
//!  end - 32  SHA-256 of all before
//! ```

use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use std::os::fd::OwnedFd;

use sha2::{Digest, Sha256};

use super::error::{TransactionError, io_error};
use super::runs::Run;
use super::storage::{Folder, Storage};

/// The journal's name in its folder.
pub(super) const NAME: &str = "journal";
const HEAD_MAGIC: &[u8; 8] = b"vh5fsjnl";
const BODY_MAGIC: &[u8; 8] = b"overruns";
const LAYOUT: u32 = 1;
/// Length of the head.
pub(super) const HEAD_BYTES: usize = 96;
const HEAD_CHECKSUM_BYTES: usize = 8;
const DIGEST_BYTES: usize = 32;
/// The longest journal. It is read into memory as a whole.
const MAX_BYTES: u64 = 1 << 30;
/// No file is longer (`off_t`).
const MAX_FILE_BYTES: u64 = i64::MAX as u64;
/// How much of the appended part is sampled: all of a small one, pieces of a large one, its beginning and its end among them.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4096;

/// A SHA-256.
pub(super) type Hash = [u8; DIGEST_BYTES];

/// The folder in which the journal of one file is kept.
#[derive(Clone)]
pub struct JournalFolder {
    pub(super) folder: Arc<dyn Folder>,
    path: PathBuf,
    companion: Option<Arc<Companion>>,
}

/// Makes something durable that has to be so before a file is overwritten.
type Companion = dyn Fn() -> io::Result<()> + Send + Sync;

impl std::fmt::Debug for JournalFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalFolder")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl JournalFolder {
    /// The open folder `directory`, which is at `path` and is to be locked against other processes as long as this is used.
    #[must_use]
    pub fn new(directory: OwnedFd, path: PathBuf) -> Self {
        Self {
            folder: Arc::new(directory),
            path,
            companion: None,
        }
    }

    /// The same folder, where `companion` is to succeed before a journal counts as durable. It is called in a thread of its own while the
    /// file is appended to.
    #[must_use]
    pub fn with_companion(
        self,
        companion: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            companion: Some(Arc::new(companion)),
            ..self
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn on(folder: Arc<dyn Folder>, path: PathBuf) -> Self {
        Self {
            folder,
            path,
            companion: None,
        }
    }

    /// Where the journal is, if there is one.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.path.join(NAME)
    }

    /// Where the folder is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What is known before anything is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Length of the file.
    pub(super) old_len_bytes: u64,
    /// Where its content ends.
    pub(super) boundary: u64,
    pub(super) guard: Guard,
}

/// Bytes that every change of the file's content changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) offset: u64,
    pub(super) len_bytes: u32,
    pub(super) digest: Hash,
}

/// What is known when all is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// Length of the file with the appended part.
    pub(super) new_len_bytes: u64,
    /// Length of the file when the change is done.
    pub(super) final_len_bytes: u64,
    /// See [`sample`].
    pub(super) sample: Hash,
    /// By their offsets; none overlaps another.
    pub(super) runs: Vec<Run>,
}

/// A journal that was read, as far as it is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Not even the head.
    Torn,
    /// The head; nothing was overwritten yet.
    Begun(Head),
    Whole(Head, Body),
}

/// The journal of a transaction that goes on.
#[derive(Debug)]
pub(super) struct Journal {
    folder: JournalFolder,
    file: Option<Box<dyn Storage>>,
    /// Makes its name durable, and what the folder's companion does, while the file is appended to.
    names: Option<JoinHandle<io::Result<()>>>,
}

impl Journal {
    /// One that is not there yet.
    pub(super) fn new(folder: JournalFolder) -> Self {
        Self {
            folder,
            file: None,
            names: None,
        }
    }

    /// Makes it, with its head, unless it is there already.
    pub(super) fn begin(&mut self, head: &Head) -> Result<(), TransactionError> {
        if self.file.is_some() {
            return Ok(());
        }
        let made = self.folder.folder.create(NAME);
        let file = made.map_err(io_error("making the journal"))?;
        let written = file.write_all_at(&encode_head(head), 0);
        self.file = Some(file);
        written.map_err(io_error("writing the journal"))?;
        let JournalFolder {
            folder, companion, ..
        } = self.folder.clone();
        let spawned = thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                companion.map_or(Ok(()), |companion| companion())?;
                folder.sync()
            });
        self.names = Some(spawned.map_err(io_error("making the journal"))?);
        Ok(())
    }

    /// Completes it, durably. After an error it may be there or not.
    pub(super) fn complete(&mut self, head: &Head, body: &Body) -> Result<(), TransactionError> {
        let bytes = encode(head, body);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(TransactionError::JournalTooLong {
                len_bytes: bytes.len() as u64,
            });
        }
        self.begin(head)?;
        if let Some(file) = &self.file {
            file.write_all_at(&bytes[HEAD_BYTES..], HEAD_BYTES as u64)
                .map_err(io_error("writing the journal"))?;
            file.sync()
                .map_err(io_error("making the journal durable"))?;
        }
        let named = match self.names.take().map(JoinHandle::join) {
            Some(Ok(named)) => named,
            Some(Err(panic)) => resume_unwind(panic),
            None => Ok(()),
        };
        named.map_err(io_error("making the journal's folder durable"))
    }

    /// Removes it, durably.
    pub(super) fn remove(&mut self) -> Result<(), TransactionError> {
        if self.take_back()? {
            self.sync_folder()?;
        }
        Ok(())
    }

    /// Removes it, if it is there. It may come back by a crash of the machine, so that is for one of which nothing was overwritten.
    pub(super) fn take_back(&mut self) -> Result<bool, TransactionError> {
        if self.file.is_none() {
            return Ok(false);
        }
        // What it finds is of no use any more.
        let _ = self.names.take().map(JoinHandle::join);
        let removed = self.folder.folder.remove(NAME);
        removed.map_err(io_error("removing the journal"))?;
        self.file = None;
        Ok(true)
    }

    fn sync_folder(&self) -> Result<(), TransactionError> {
        let synced = self.folder.folder.sync();
        synced.map_err(io_error("making the journal's folder durable"))
    }
}

/// The journal in a folder; `None` where there is none.
///
/// # Errors
/// What the operating system says. [`io::ErrorKind::InvalidData`] where it is too long to be one.
pub(super) fn read(folder: &JournalFolder) -> io::Result<Option<Decoded>> {
    let Some(file) = folder.folder.open(NAME)? else {
        return Ok(None);
    };
    let identity = file.identity().map_err(io::Error::other)?;
    if identity.len_bytes > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is too long to be a journal",
        ));
    }
    let mut bytes = vec![0; usize::try_from(identity.len_bytes).map_err(io::Error::other)?];
    let read = file.read_up_to_at(&mut bytes, 0)?;
    Ok(Some(decode(&bytes[..read])))
}

/// What `storage` holds from `start` to `end`: the SHA-256 of all of it up to 256 KiB, else of 64 pieces of 4 KiB spread evenly over it. `None` where it
/// ends before.
pub(super) fn sample(storage: &dyn Storage, start: u64, end: u64) -> io::Result<Option<Hash>> {
    let len_bytes = end.saturating_sub(start);
    let mut hasher = Sha256::new();
    let mut add = |offset: u64, count: u64| -> io::Result<bool> {
        let mut piece = vec![0; usize::try_from(count).map_err(io::Error::other)?];
        let read = storage.read_up_to_at(&mut piece, offset)?;
        hasher.update(&piece);
        Ok(read == piece.len())
    };
    if len_bytes <= SAMPLES * SAMPLE_BYTES {
        if !add(start, len_bytes)? {
            return Ok(None);
        }
    } else {
        // In 128 bits: the length of a file times a small number.
        let room = u128::from(len_bytes - SAMPLE_BYTES);
        for piece in 0..SAMPLES {
            let at = room * u128::from(piece) / u128::from(SAMPLES - 1);
            let at = start + u64::try_from(at).map_err(io::Error::other)?;
            if !add(at, SAMPLE_BYTES)? {
                return Ok(None);
            }
        }
    }
    Ok(Some(hasher.finalize().into()))
}

/// The SHA-256 of the guard; of what there is of it, where the file is shorter.
pub(super) fn guard_digest(storage: &dyn Storage, offset: u64, len_bytes: u32) -> io::Result<Hash> {
    let file_bytes = storage.identity().map_err(io::Error::other)?.len_bytes;
    let there = file_bytes.saturating_sub(offset).min(len_bytes.into());
    let mut bytes = vec![0; usize::try_from(there).map_err(io::Error::other)?];
    let read = storage.read_up_to_at(&mut bytes, offset)?;
    Ok(Sha256::digest(&bytes[..read]).into())
}

fn encode_head(head: &Head) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    bytes.extend_from_slice(HEAD_MAGIC);
    bytes.extend_from_slice(&LAYOUT.to_le_bytes());
    bytes.extend_from_slice(&head.guard.len_bytes.to_le_bytes());
    for number in [
        head.device,
        head.inode,
        head.old_len_bytes,
        head.boundary,
        head.guard.offset,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&head.guard.digest);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum[..HEAD_CHECKSUM_BYTES]);
    bytes
}

pub(super) fn encode(head: &Head, body: &Body) -> Vec<u8> {
    let mut bytes = encode_head(head);
    let runs: usize = body.runs.iter().map(|run| 16 + 2 * run.new.len()).sum();
    let len_bytes = bytes.len() + 72 + runs + DIGEST_BYTES;
    bytes.reserve_exact(len_bytes - bytes.len());
    bytes.extend_from_slice(BODY_MAGIC);
    for number in [len_bytes as u64, body.new_len_bytes, body.final_len_bytes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&body.sample);
    bytes.extend_from_slice(&(body.runs.len() as u64).to_le_bytes());
    for run in &body.runs {
        bytes.extend_from_slice(&run.offset.to_le_bytes());
        bytes.extend_from_slice(&(run.new.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&run.old);
        bytes.extend_from_slice(&run.new);
    }
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// What `bytes` are as a journal. Whatever they are, no more memory is taken than they justify.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let Some(head) = decode_head(bytes) else {
        return Decoded::Torn;
    };
    match decode_body(bytes, &head) {
        Some(body) => Decoded::Whole(head, body),
        None => Decoded::Begun(head),
    }
}

fn decode_head(bytes: &[u8]) -> Option<Head> {
    let bytes = bytes.get(..HEAD_BYTES)?;
    let (fields, checksum) = bytes.split_at(HEAD_BYTES - HEAD_CHECKSUM_BYTES);
    if Sha256::digest(fields)[..HEAD_CHECKSUM_BYTES] != *checksum {
        return None;
    }
    let mut fields = Fields(fields);
    if fields.take(8)? != HEAD_MAGIC || fields.u32()? != LAYOUT {
        return None;
    }
    let len_bytes = fields.u32()?;
    let head = Head {
        device: fields.u64()?,
        inode: fields.u64()?,
        old_len_bytes: fields.u64()?,
        boundary: fields.u64()?,
        guard: Guard {
            offset: fields.u64()?,
            len_bytes,
            digest: fields.hash()?,
        },
    };
    let places = [head.old_len_bytes, head.boundary, head.guard.offset];
    let is_place = |&place: &u64| place <= MAX_FILE_BYTES;
    places.iter().all(is_place).then_some(head)
}

fn decode_body(bytes: &[u8], head: &Head) -> Option<Body> {
    let mut length = Fields(bytes.get(HEAD_BYTES..)?);
    if length.take(8)? != BODY_MAGIC {
        return None;
    }
    let bytes = bytes.get(..usize::try_from(length.u64()?).ok()?)?;
    let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
    if *Sha256::digest(content) != *digest {
        return None;
    }
    let mut fields = Fields(content.get(HEAD_BYTES + 16..)?);
    let (new_len_bytes, final_len_bytes) = (fields.u64()?, fields.u64()?);
    let sample = fields.hash()?;
    let count = fields.u64()?;
    let mut runs = Vec::new();
    let mut last_end = 0;
    for _ in 0..count {
        let (offset, len_bytes) = (fields.u64()?, fields.u64()?);
        let len_bytes = usize::try_from(len_bytes).ok()?;
        let end = offset.checked_add(len_bytes as u64)?;
        if offset < last_end || end > head.boundary {
            return None;
        }
        last_end = end;
        runs.push(Run {
            offset,
            old: fields.take(len_bytes)?.to_vec(),
            new: fields.take(len_bytes)?.to_vec(),
        });
    }
    let fits = head.boundary <= new_len_bytes
        && final_len_bytes <= new_len_bytes
        && new_len_bytes <= MAX_FILE_BYTES;
    (fits && fields.0.is_empty()).then_some(Body {
        new_len_bytes,
        final_len_bytes,
        sample,
        runs,
    })
}

/// What is left to be decoded.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    fn hash(&mut self) -> Option<Hash> {
        self.take(DIGEST_BYTES)?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> (Head, Body) {
        let head = Head {
            device: 1,
            inode: 2,
            old_len_bytes: 1000,
            boundary: 900,
            guard: Guard {
                offset: 0,
                len_bytes: 96,
                digest: [7; 32],
            },
        };
        let body = Body {
            new_len_bytes: 5000,
            final_len_bytes: 5000,
            sample: [9; 32],
            runs: vec![
                Run {
                    offset: 28,
                    old: vec![1; 20],
                    new: vec![2; 20],
                },
                Run {
                    offset: 890,
                    old: vec![3; 10],
                    new: vec![4; 10],
                },
            ],
        };
        (head, body)
    }

    #[test]
    fn comes_back_as_it_was() {
        let (head, body) = some();
        let bytes = encode(&head, &body);
        assert_eq!(bytes.len(), HEAD_BYTES + 72 + 2 * 16 + 60 + 32);
        assert_eq!(decode(&bytes), Decoded::Whole(head, body));
    }

    #[test]
    fn one_that_was_cut_is_not_whole() {
        let (head, body) = some();
        let bytes = encode(&head, &body);
        for len in 0..bytes.len() {
            let want = if len < HEAD_BYTES {
                Decoded::Torn
            } else {
                Decoded::Begun(head.clone())
            };
            assert_eq!(decode(&bytes[..len]), want, "{len}");
        }
        // What an earlier, longer one left behind its end does not matter.
        let mut longer = bytes.clone();
        longer.extend_from_slice(&bytes);
        assert_eq!(decode(&longer), Decoded::Whole(head, body));
    }

    #[test]
    fn one_with_a_flipped_bit_is_not_whole() {
        let (head, body) = some();
        let bytes = encode(&head, &body);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let want = if bit / 8 < HEAD_BYTES {
                Decoded::Torn
            } else {
                Decoded::Begun(head.clone())
            };
            assert_eq!(decode(&damaged), want, "{bit}");
        }
    }

    /// Whoever can compute a checksum still cannot make it write where a change never does.
    #[test]
    fn runs_that_no_change_makes_are_refused() {
        let spoil: [fn(&mut Body); 6] = [
            |body| body.runs[1].offset = 891,
            |body| body.runs[1].offset = u64::MAX - 3,
            |body| body.runs[1].offset = 40,
            |body| body.new_len_bytes = 899,
            |body| body.final_len_bytes = 5001,
            |body| body.new_len_bytes = 1 << 63,
        ];
        for spoil in spoil {
            let (head, mut body) = some();
            spoil(&mut body);
            let bytes = encode(&head, &body);
            assert_eq!(decode(&bytes), Decoded::Begun(head), "{body:?}");
        }
    }

    #[test]
    fn a_sample_has_the_beginning_and_the_end() {
        let file = tempfile::tempfile().unwrap();
        let len = 1_000_000;
        file.set_len(len).unwrap();
        let before = sample(&file, 100, len).unwrap().unwrap();
        for (at, differs) in [(99, false), (100, true), (len - 1, true)] {
            Storage::write_all_at(&file, &[1], at).unwrap();
            let after = sample(&file, 100, len).unwrap().unwrap();
            assert_eq!(after != before, differs, "{at}");
            Storage::write_all_at(&file, &[0], at).unwrap();
        }
        assert_eq!(sample(&file, 100, len + 1).unwrap(), None);
        assert_eq!(sample(&file, len - 5, len + 1).unwrap(), None);
    }
}
