//! `vh5fs commit`

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{report, status};
use crate::fuse::mount_point;

/// Make a version of what is staged in a mount; as `touch MOUNTPOINT/staging/.commit`, with words
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CommitArgs {
    /// Where FILE is mounted
    mountpoint: PathBuf,
    /// The version's name; made from the time if it is not given
    name: Option<String>,
    /// The version's time in ISO 8601, such as 2026-11-22T21:34:00Z; now if it is not given
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,
    /// Leave `current` where it is
    #[arg(long)]
    no_current: bool,
}

const EXAMPLES: &str = "\
Examples:
  vh5fs commit /mnt
  vh5fs commit /mnt 2026-11-release --timestamp 2026-11-22T21:34:00Z
  vh5fs commit /mnt trial --no-current    a version beside the line of the current one";

/// How often the mount is asked how far the commit is.
const INTERVAL: Duration = Duration::from_millis(100);

/// Commits, and prints what became of it once the version is in FILE and durable.
///
/// # Errors
/// The commit's: FILE is then as it was, and all is still staged.
pub(super) fn run(args: &CommitArgs) -> anyhow::Result<()> {
    let mounted = mount_point::mounted(&args.mountpoint)?;
    let path = mounted.mount_point.join("staging/.commit");
    if status::staged(&mounted)?.is_none() {
        bail!(
            "{}: mounted read-only; mount {} without --read-only to commit",
            mounted.mount_point.display(),
            mounted.file.display()
        );
    }
    let request = json!({
        "name": args.name,
        "timestamp": args.timestamp,
        "make_current": !args.no_current,
    });
    let written = with_progress(&path, || {
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.write_all(request.to_string().as_bytes())
    })?;
    let told = status::staged(&mounted)?.unwrap_or_default();
    let outcome = String::from_utf8_lossy(&told);
    let outcome = outcome.lines().next_back().unwrap_or_default();
    if let Err(error) = written {
        return Err(error).with_context(|| format!("{}: {outcome}", mounted.file.display()));
    }
    report::print(|output| writeln!(output, "{outcome}"))
}

/// Makes a commit, and shows on a terminal how far it is; the inner result is the commit's.
fn with_progress(
    path: &Path,
    commit: impl FnOnce() -> io::Result<()> + Send,
) -> anyhow::Result<io::Result<()>> {
    // Drawn on stderr, and not at all where that is no terminal.
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{msg} {bar:30} {pos} of {len} chunks",
    )?);
    let committed = thread::scope(|scope| {
        let (done, is_done) = mpsc::sync_channel(1);
        let committing = scope.spawn(move || {
            let committed = commit();
            // Nobody waits for it if he was interrupted.
            let _ = done.send(());
            committed
        });
        while !bar.is_hidden() && is_done.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if let Some((step, done, of)) = progress(path) {
                bar.set_message(step);
                bar.set_length(of);
                bar.set_position(done);
            }
        }
        committing.join()
    });
    bar.finish_and_clear();
    Ok(committed.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// What is done, of how many chunks, and of how many it has to be; `None` where that is not to be known now.
fn progress(path: &Path) -> Option<(String, u64, u64)> {
    let mut text = [0; 256];
    let len = rustix::fs::getxattr(path, "user.progress", &mut text[..]).ok()?;
    let progress: Value = serde_json::from_slice(text.get(..len)?).ok()?;
    let count = |key: &str| progress.get(key)?.as_u64();
    let step = progress.get("step")?.as_str()?.to_owned();
    Some((step, count("done")?, count("of")?))
}
