//! `vh5fs umount`

use std::path::PathBuf;

use clap::Args;

use crate::fuse::mount_point;

/// Unmount what vh5fs has mounted, unless it is in use
#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    /// Where it is mounted
    mountpoint: PathBuf,
}

/// Unmounts. The daemon ends by itself.
///
/// # Errors
/// It is not mounted, not by us, or in use.
pub(super) fn run(args: &UmountArgs) -> anyhow::Result<()> {
    Ok(mount_point::unmount(&args.mountpoint)?)
}
