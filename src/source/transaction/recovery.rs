//! What becomes of the journal that a crash left: see the head of [`journal`](super::journal).

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{TransactionError, io_error};
use super::journal::{self, Body, Decoded, Head, JournalFolder, NAME};
use super::lock::lock;
use super::runs::Found;
use super::storage::Storage;

/// How many names are tried for a journal that is set aside.
const ASIDE_NAMES: u32 = 1000;

/// What a recovery found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// There was no journal.
    NothingToDo,
    /// The change was not far enough to be finished; nothing that the file held had been touched. What it had appended is cut off.
    TakenBack {
        /// How many bytes were cut off.
        cut_bytes: u64,
    },
    /// The change was finished.
    Finished {
        /// How many bytes had still to be overwritten; 0 where only the journal was left.
        overwritten_bytes: u64,
    },
    /// The journal is not of what the file is now. The file was not touched.
    SetAside {
        /// Where the journal is now.
        path: PathBuf,
        /// What the file and the journal do not agree about.
        reason: &'static str,
    },
}

/// What a journal means for one who cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// The file can be read as it is: with the old content or the new one.
    Sound,
    /// It is half changed.
    HalfChanged,
}

/// What a whole journal and the file have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The file has every new byte.
    Done,
    /// The file has the appended part, and every old byte.
    Untouched,
    /// The file has the appended part, and old and new bytes.
    HalfChanged,
    /// The journal is not of this content.
    Foreign(&'static str),
}

/// Deals with the journal in `folder` of a change of the file at `path`. Afterwards there is none. To be called with the folder locked.
///
/// # Errors
/// [`TransactionError::Busy`] where another program holds a lock on the file; [`TransactionError::Io`], [`TransactionError::Write`]: the journal is
/// then there as it was, and recovering again does what is left to be done.
pub fn recover(path: &Path, folder: &JournalFolder) -> Result<Recovery, TransactionError> {
    if read_journal(folder)?.is_none() {
        return Ok(Recovery::NothingToDo);
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io_error("opening the file for writing"))?;
    lock(&file)?;
    recover_storage(&file, folder)
}

/// The same on a file that is open and locked.
pub(super) fn recover_storage(
    storage: &dyn Storage,
    folder: &JournalFolder,
) -> Result<Recovery, TransactionError> {
    let recovery = match read_journal(folder)? {
        None => return Ok(Recovery::NothingToDo),
        Some(Decoded::Torn) => Recovery::TakenBack { cut_bytes: 0 },
        Some(Decoded::Begun(head)) => Recovery::TakenBack {
            cut_bytes: cut_off(storage, &head)?,
        },
        Some(Decoded::Whole(head, body)) => match judge(storage, &head, &body)? {
            Verdict::Done => Recovery::Finished {
                overwritten_bytes: 0,
            },
            Verdict::Untouched | Verdict::HalfChanged => finish(storage, &body)?,
            Verdict::Foreign(reason) => {
                return Ok(Recovery::SetAside {
                    path: set_aside(folder)?,
                    reason,
                });
            }
        },
    };
    folder
        .folder
        .remove(NAME)
        .and_then(|()| folder.folder.sync())
        .map_err(io_error("removing the journal"))?;
    Ok(recovery)
}

/// Deals with the journal of an earlier change of the file, before another one begins: where nothing of it is to be finished.
///
/// # Errors
/// [`TransactionError::Pending`] where something is; as for [`recover`].
pub(super) fn clear(storage: &dyn Storage, folder: &JournalFolder) -> Result<(), TransactionError> {
    if let Some(Decoded::Whole(head, body)) = read_journal(folder)?
        && judge(storage, &head, &body)? != Verdict::Done
    {
        return Err(TransactionError::Pending {
            path: folder.journal_path(),
        });
    }
    recover_storage(storage, folder).map(drop)
}

/// What the journal in `folder` means for one who only reads the file at `path`.
///
/// # Errors
/// What the operating system says.
pub fn pending(path: &Path, folder: &JournalFolder) -> Result<Pending, TransactionError> {
    let Some(Decoded::Whole(head, body)) = read_journal(folder)? else {
        return Ok(Pending::Sound);
    };
    let file = File::open(path).map_err(io_error("opening the file"))?;
    Ok(match judge(&file, &head, &body)? {
        Verdict::HalfChanged => Pending::HalfChanged,
        Verdict::Done | Verdict::Untouched | Verdict::Foreign(_) => Pending::Sound,
    })
}

fn read_journal(folder: &JournalFolder) -> Result<Option<Decoded>, TransactionError> {
    journal::read(folder).map_err(io_error("reading the journal"))
}

/// Cuts off what a change appended, if it is provably that, and says how much it was.
fn cut_off(storage: &dyn Storage, head: &Head) -> Result<u64, TransactionError> {
    let now = storage.identity()?;
    let guard = head.guard;
    let digest = journal::guard_digest(storage, guard.offset, guard.len_bytes)
        .map_err(io_error("reading the file"))?;
    let is_ours = now.inode == head.inode && digest == guard.digest;
    if !is_ours || now.len_bytes <= head.old_len_bytes {
        return Ok(0);
    }
    storage
        .set_len(head.old_len_bytes)
        .and_then(|()| storage.sync())
        .map_err(io_error("cutting off what was appended"))?;
    Ok(now.len_bytes - head.old_len_bytes)
}

fn judge(storage: &dyn Storage, head: &Head, body: &Body) -> Result<Verdict, TransactionError> {
    let failed = io_error("reading the file");
    let len_bytes = storage.identity()?.len_bytes;
    let (mut has_old, mut has_new) = (false, false);
    for run in &body.runs {
        match run.find(storage).map_err(&failed)? {
            Found::Old => has_old = true,
            Found::New => has_new = true,
            Found::Mixed => (has_old, has_new) = (true, true),
            Found::Other => {
                return Ok(Verdict::Foreign(
                    "bytes that the change overwrites were written by somebody else since",
                ));
            }
        }
    }
    let is_shorter = body.final_len_bytes < body.new_len_bytes;
    // A later change may have made it longer.
    if !has_old
        && (len_bytes == body.final_len_bytes || !is_shorter && len_bytes > body.new_len_bytes)
    {
        return Ok(Verdict::Done);
    }
    if len_bytes != body.new_len_bytes && !(is_shorter && len_bytes == body.final_len_bytes) {
        return Ok(Verdict::Foreign(
            "the file is not as long as the change made it",
        ));
    }
    let sample = journal::sample(storage, head.boundary, body.new_len_bytes).map_err(failed)?;
    if head.boundary < body.new_len_bytes && sample != Some(body.sample) {
        return Ok(Verdict::Foreign(
            "what the change appended is not in the file",
        ));
    }
    Ok(if has_new {
        Verdict::HalfChanged
    } else {
        Verdict::Untouched
    })
}

/// Does what is left to be done of a change.
fn finish(storage: &dyn Storage, body: &Body) -> Result<Recovery, TransactionError> {
    overwrite(storage, body)?;
    Ok(Recovery::Finished {
        overwritten_bytes: body.runs.iter().map(|run| run.new.len() as u64).sum(),
    })
}

/// Writes the new bytes of all runs, and makes them durable.
pub(super) fn overwrite(storage: &dyn Storage, body: &Body) -> Result<(), TransactionError> {
    for run in &body.runs {
        write(storage, run.offset, &run.new)?;
    }
    if body.final_len_bytes < body.new_len_bytes {
        storage
            .set_len(body.final_len_bytes)
            .map_err(io_error("setting the length of the file"))?;
    }
    storage
        .sync()
        .map_err(io_error("making the changes durable"))
}

/// Writes the old bytes of all runs, and makes them durable.
pub(super) fn undo(storage: &dyn Storage, body: &Body) -> Result<(), TransactionError> {
    for run in &body.runs {
        write(storage, run.offset, &run.old)?;
    }
    storage
        .sync()
        .map_err(io_error("making durable what was put back"))
}

fn write(storage: &dyn Storage, offset: u64, bytes: &[u8]) -> Result<(), TransactionError> {
    storage
        .write_all_at(bytes, offset)
        .map_err(|error| TransactionError::Write {
            offset,
            len_bytes: bytes.len() as u64,
            error: std::sync::Arc::new(error),
        })
}

/// Moves the journal out of its folder, to a name of its own beside that.
fn set_aside(folder: &JournalFolder) -> Result<PathBuf, TransactionError> {
    let failed = io_error("setting the journal aside");
    for number in 1..=ASIDE_NAMES {
        let mut name = folder.path().file_name().unwrap_or_default().to_owned();
        name.push(format!(".journal-{number}"));
        let path = folder.path().with_file_name(name);
        match folder.folder.move_to(NAME, &path) {
            Ok(()) => {
                folder.folder.sync().map_err(&failed)?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}
