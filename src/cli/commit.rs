//! `vh5fs commit`

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

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
    let written = OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(request.to_string().as_bytes()));
    let told = status::staged(&mounted)?.unwrap_or_default();
    let outcome = String::from_utf8_lossy(&told);
    let outcome = outcome.lines().next_back().unwrap_or_default();
    if let Err(error) = written {
        return Err(error).with_context(|| format!("{}: {outcome}", mounted.file.display()));
    }
    report::print(|output| writeln!(output, "{outcome}"))
}
