//! Finishing, or taking back, a commit that a crash interrupted: before the versioned file is read, and before what is staged is taken up.
//!
//! Who can write does that. Who only reads looks whether the file is sound: with a journal that is not yet applied, or applied as a whole, it is. A file
//! that is half changed is not read at all, as nobody can tell what of it is true; showing it through the journal would need a second way to read for
//! a state that any mount with write access ends.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::StagingError;
use super::change_log::Log;
use super::sidecar::{self, Sidecar};
use crate::source::{self, Pending, Recovery, TransactionError};

/// How long a process that is overwriting bytes just now is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(10);

/// Deals with what an interrupted commit left of the versioned file at `path`.
///
/// # Errors
/// [`StagingError::Held`] where another process stages changes of it; [`StagingError::Recovery`]; [`StagingError::Sidecar`],
/// [`StagingError::SidecarForeign`].
pub fn recover(path: &Path) -> Result<Recovery, StagingError> {
    let path = resolved(path)?;
    let Some(sidecar) = Sidecar::take(&sidecar::path_for(&path))? else {
        return Ok(Recovery::NothingToDo);
    };
    let recovery = recover_in(&path, &sidecar)?;
    if !Log::is_in(&sidecar)? {
        sidecar.remove_all()?;
    }
    Ok(recovery)
}

/// The same in a sidecar that this process has.
pub(super) fn recover_in(path: &Path, sidecar: &Sidecar) -> Result<Recovery, StagingError> {
    let recovery = source::recover(path, &sidecar.journal_folder()?);
    recovery.map_err(|error| StagingError::Recovery {
        path: path.to_owned(),
        error,
    })
}

/// Says in the log what was done.
pub(super) fn log_recovery(path: &Path, recovery: &Recovery) {
    let file = path.display();
    match recovery {
        Recovery::NothingToDo => {}
        Recovery::TakenBack { cut_bytes } => log::warn!(
            "{file}: a commit that was interrupted was taken back ({cut_bytes} bytes cut off)"
        ),
        Recovery::Finished { overwritten_bytes } => log::warn!(
            "{file}: a commit that was interrupted was finished ({overwritten_bytes} bytes overwritten)"
        ),
        Recovery::SetAside {
            path: aside,
            reason,
        } => log::error!(
            "{file}: a commit that was interrupted cannot be finished, since {reason}; its journal was set aside as {}",
            aside.display()
        ),
    }
}

/// To be called before the versioned file at `path` is read: deals with what an interrupted commit left of it, where that can be done, and else sees
/// to it that the file can be read as it is.
///
/// # Errors
/// [`StagingError::HalfChanged`].
pub fn settle(path: &Path, may_write: bool) -> Result<(), StagingError> {
    if may_write && path.exists() {
        match recover(path) {
            Ok(recovery) => {
                log_recovery(path, &recovery);
                return Ok(());
            }
            // Another process has it, or the folder cannot be written to.
            Err(StagingError::Held { .. }) => {}
            Err(error) => log::warn!("{error}"),
        }
    }
    // One that is not there is found out when it is opened.
    let Ok(path) = path.canonicalize() else {
        return Ok(());
    };
    let deadline = Instant::now() + PATIENCE;
    while is_half_changed(&path) {
        if Instant::now() > deadline {
            return Err(StagingError::HalfChanged { path });
        }
        // Its process may live, and be about to end that.
        thread::sleep(INTERVAL);
    }
    Ok(())
}

fn is_half_changed(path: &Path) -> bool {
    let looked = match Sidecar::look_at(&sidecar::path_for(path)) {
        Ok(None) => return false,
        Ok(Some(folder)) => {
            source::pending(path, &folder).map_err(|error| StagingError::Recovery {
                path: path.to_owned(),
                error,
            })
        }
        Err(error) => Err(error),
    };
    match looked {
        Ok(pending) => pending == Pending::HalfChanged,
        Err(error) => {
            // Of another user, say. What is damaged by it is found when it is read.
            log::warn!("whether a commit was interrupted cannot be known: {error}");
            false
        }
    }
}

/// The file itself, beside which the sidecar is.
fn resolved(path: &Path) -> Result<PathBuf, StagingError> {
    path.canonicalize().map_err(|error| StagingError::Recovery {
        path: path.to_owned(),
        error: TransactionError::Io {
            action: "looking for the file",
            error: std::sync::Arc::new(error),
        },
    })
}
