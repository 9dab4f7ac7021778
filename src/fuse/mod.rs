//! The kernel: the only place that names `fuser`.
//!
//! [`session`] mounts, serves and unmounts; [`mount_point`] makes sure that a directory can be mounted on and takes mounts
//! away; [`background`] starts the daemon behind the caller's back. Nothing here knows HDF5, nor what the tree looks like.

mod adapter;
mod answers;
pub mod background;
mod error;
mod invalidate;
mod jobs;
mod kernel_mount;
pub mod mount_point;
mod mount_table;
pub mod queue;
pub mod session;

pub use adapter::{CAPABILITIES, MAX_BACKGROUND};
pub use error::MountError;

/// Type of the mounts as `/proc/mounts` shows it.
pub const FS_TYPE: &str = "fuse.vh5fs";
