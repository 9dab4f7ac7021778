//! `vh5fs status`

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::report;
use crate::fuse::mount_point::{self, Mounted};

/// Tell what a mount shows, and what is staged in it
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Where it is mounted
    mountpoint: PathBuf,
}

/// Prints what the mount says of itself.
///
/// # Errors
/// Nothing of ours is mounted there, or it does not answer.
pub(super) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let mounted = mount_point::mounted(&args.mountpoint)?;
    let current = fs::read_link(mounted.mount_point.join("current"));
    let staged = staged(&mounted)?;
    report::print(|output| {
        let (file, place) = (mounted.file.display(), mounted.mount_point.display());
        writeln!(output, "{file} on {place}")?;
        match current {
            Ok(target) => {
                let name = target.strip_prefix("versions").unwrap_or(&target);
                writeln!(output, "The current version is {}.", name.display())?;
            }
            Err(_) => writeln!(output, "It has no version yet.")?,
        }
        match &staged {
            Some(text) => output.write_all(text),
            None => writeln!(output, "It is mounted read-only."),
        }
    })
}

/// What the mount's `.status` says; `None` where it is read-only.
///
/// # Errors
/// The mount does not answer.
pub(super) fn staged(mounted: &Mounted) -> anyhow::Result<Option<Vec<u8>>> {
    let path = mounted.mount_point.join("staging/.status");
    match fs::read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(path.display().to_string()),
    }
}
