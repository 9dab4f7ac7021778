//! `vh5fs recover`

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::logging;
use crate::source::Recovery;
use crate::staging;

/// Finish, or take back, a commit that a crash interrupted (a mount with write access does the same)
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// The versioned HDF5 file
    file: PathBuf,
}

/// Recovers, and says what was done.
///
/// # Errors
/// The file is mounted or open elsewhere, or cannot be written to; or what the commit left does not belong to what the file is now.
pub(super) fn run(args: &RecoverArgs) -> anyhow::Result<()> {
    logging::to_stderr();
    let file = args.file.display();
    match staging::recover(&args.file)? {
        Recovery::NothingToDo => println!("{file}: nothing to recover"),
        Recovery::TakenBack { cut_bytes: 0 } => {
            println!("{file}: a commit had begun and changed nothing; what it left was removed");
        }
        Recovery::TakenBack { cut_bytes } => println!(
            "{file}: a commit had begun; the {cut_bytes} bytes that it had appended were cut off, and the file is as it was before"
        ),
        Recovery::Finished {
            overwritten_bytes: 0,
        } => println!("{file}: the last commit was whole; what it left was removed"),
        Recovery::Finished { .. } => {
            println!("{file}: a commit was interrupted, and is finished now");
        }
        Recovery::SetAside { path, reason } => bail!(
            "{file}: a commit was interrupted and cannot be finished, since {reason}; its journal was set aside as {}, \
             and the file was not touched: check it with `vh5fs verify`, or restore it",
            path.display()
        ),
    }
    Ok(())
}
