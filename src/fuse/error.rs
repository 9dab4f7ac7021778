//! What can go wrong with a mount, each as one line that says what to do. What the system says is its source, not repeated.

use std::io;
use std::path::PathBuf;

/// Why a mount, or an unmount, did not work.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Nothing of that name.
    #[error("{}: no such directory; create it first", .0.display())]
    MountPointMissing(PathBuf),
    /// Something else than a directory.
    #[error("{}: not a directory; mount on a directory", .0.display())]
    MountPointNotADirectory(PathBuf),
    /// It cannot be looked at.
    #[error("{path}", path = path.display())]
    MountPoint {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Served by a daemon that is alive.
    #[error("{mount_point}: already shows {file}; unmount it first: vh5fs umount {mount_point}", mount_point = mount_point.display(), file = file.display())]
    AlreadyMounted {
        /// The directory.
        mount_point: PathBuf,
        /// What is mounted there.
        file: PathBuf,
    },
    /// Nothing mounted.
    #[error("{}: nothing is mounted there", .0.display())]
    NotMounted(PathBuf),
    /// Mounted by another program.
    #[error("{mount_point}: not a vh5fs mount but {fs_type}; use umount", mount_point = mount_point.display())]
    NotOurs {
        /// The directory.
        mount_point: PathBuf,
        /// Its type.
        fs_type: String,
    },
    /// Somebody is in it.
    #[error("{mount_point}: busy{users}; end what uses it and try again, or end the daemon {daemon}, which unmounts it all the same", mount_point = mount_point.display())]
    Busy {
        /// The directory.
        mount_point: PathBuf,
        /// `, used by NAME (PID), ...`, or nothing where that is not known.
        users: String,
        /// How to end the daemon.
        daemon: String,
    },
    /// No FUSE in this kernel or container.
    #[error(
        "/dev/fuse: {0}; load the kernel's module with `modprobe fuse`, or give the container `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    NoDevice(io::Error),
    /// Only root can do without the helper.
    #[error("fusermount3 not found, without which only root can mount; install the package fuse3")]
    NoHelper,
    /// The administrator does not let users open their mounts to others.
    #[error("--allow-other needs the line `user_allow_other` in /etc/fuse.conf")]
    AllowOther,
    /// The helper refused.
    #[error("{mount_point}: {message}", mount_point = mount_point.display())]
    Helper {
        /// The directory.
        mount_point: PathBuf,
        /// The helper's words.
        message: String,
    },
    /// A system call failed.
    #[error("{what} {mount_point}", mount_point = mount_point.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// The directory.
        mount_point: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The daemon did not get as far as to say what is wrong.
    #[error("the daemon ended before the mount was usable ({0}); try again with -f to see why")]
    DaemonDied(String),
    /// The daemon said so.
    #[error("{0}")]
    Daemon(String),
    /// The daemon could not be started.
    #[error("the daemon could not be started")]
    Start(#[source] io::Error),
}
