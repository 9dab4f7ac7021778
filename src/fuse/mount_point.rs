//! The directory: made ready for a mount, or freed of one.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::mount_table::{MountEntry, mount_at};
use super::{MountError, kernel_mount};

/// How many dead mounts, one on the other, are taken away.
const MAX_STACKED: usize = 64;

/// How many users of a busy mount are named.
const MAX_NAMED_USERS: usize = 5;

/// Makes sure that `path` can be mounted on and gives its absolute name. Where a daemon died, its mount is taken away first.
///
/// # Errors
/// [`MountError::AlreadyMounted`] where a daemon is alive, [`MountError::MountPointMissing`],
/// [`MountError::MountPointNotADirectory`], or what the system says.
pub fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let failed = |source| MountError::MountPoint {
        path: path.to_path_buf(),
        source,
    };
    let resolved = resolve(path)?;
    for _ in 0..MAX_STACKED {
        match mount_at(&resolved).map_err(failed)? {
            Some(mount) if mount.is_ours() => heal(&mount)?,
            _ => break,
        }
    }
    let metadata = fs::metadata(&resolved).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(MountError::MountPointNotADirectory(path.to_path_buf()));
    }
    Ok(resolved)
}

/// A mount of ours that somebody is to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its absolute name.
    pub mount_point: PathBuf,
    /// What it shows.
    pub file: PathBuf,
}

/// What [`crate::fuse`] has mounted on `path`.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::NotOurs`], or what the system says.
pub fn mounted(path: &Path) -> Result<Mounted, MountError> {
    let mount_point = resolve(path)?;
    let mount = mount_at(&mount_point)
        .map_err(|source| MountError::MountPoint {
            path: mount_point.clone(),
            source,
        })?
        .ok_or_else(|| MountError::NotMounted(path.to_path_buf()))?;
    if !mount.is_ours() {
        return Err(MountError::NotOurs {
            mount_point,
            fs_type: mount.fs_type.to_string_lossy().into_owned(),
        });
    }
    Ok(Mounted {
        mount_point,
        file: mount.source,
    })
}

/// Unmounts what [`crate::fuse`] mounted on `path`, unless it is in use.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::NotOurs`], [`MountError::Busy`], or what the system says.
pub fn unmount(path: &Path) -> Result<(), MountError> {
    let Mounted { mount_point, .. } = mounted(path)?;
    let system = |source| MountError::System {
        what: "unmount",
        mount_point: mount_point.clone(),
        source,
    };
    match kernel_mount::unmount(&mount_point, false) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(busy(&mount_point)),
        unmounted => unmounted.map_err(system),
    }
}

/// Takes a mount away whose daemon is dead.
fn heal(mount: &MountEntry) -> Result<(), MountError> {
    if !kernel_mount::is_dead(&mount.mount_point) {
        return Err(MountError::AlreadyMounted {
            mount_point: mount.mount_point.clone(),
            file: mount.source.clone(),
        });
    }
    log::info!(
        "{}: the daemon that served {} is gone; taking its mount away",
        mount.mount_point.display(),
        mount.source.display()
    );
    kernel_mount::unmount(&mount.mount_point, true).map_err(|source| MountError::System {
        what: "take the dead mount away from",
        mount_point: mount.mount_point.clone(),
        source,
    })
}

/// The absolute name without symbolic links, also of a directory that does not answer.
fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            return MountError::MountPointMissing(path.to_path_buf());
        }
        MountError::MountPoint {
            path: path.to_path_buf(),
            source,
        }
    };
    match path.canonicalize() {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let absolute = std::path::absolute(path).map_err(failed)?;
            let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Ok(absolute);
            };
            Ok(parent.canonicalize().map_err(failed)?.join(name))
        }
        resolved => resolved.map_err(failed),
    }
}

fn busy(mount_point: &Path) -> MountError {
    let users = users_of(mount_point);
    let mut names: Vec<String> = users
        .iter()
        .take(MAX_NAMED_USERS)
        .map(|(pid, name)| format!("{name} ({pid})"))
        .collect();
    if users.len() > MAX_NAMED_USERS {
        names.push("others".into());
    }
    MountError::Busy {
        users: if names.is_empty() {
            String::new()
        } else {
            format!(", used by {}", names.join(", "))
        },
        daemon: daemon_of(mount_point)
            .map_or_else(|| "with SIGTERM".into(), |pid| format!("with kill {pid}")),
        mount_point: mount_point.to_path_buf(),
    }
}

/// The processes that stand in `mount_point`, or have a file of it open or mapped, as far as we may look.
fn users_of(mount_point: &Path) -> Vec<(u32, String)> {
    processes()
        .filter(|(pid, _)| *pid != std::process::id() && uses(*pid, mount_point))
        .collect()
}

fn uses(pid: u32, mount_point: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let leads_inside =
        |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(mount_point));
    let descriptors = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|descriptor| descriptor.path());
    [process.join("cwd"), process.join("root")]
        .into_iter()
        .chain(descriptors)
        .any(leads_inside)
        || maps(&process, mount_point)
}

fn maps(process: &Path, mount_point: &Path) -> bool {
    let Ok(maps) = fs::read(process.join("maps")) else {
        return false;
    };
    let prefix = [b" ".as_slice(), mount_point.as_os_str().as_bytes(), b"/"].concat();
    maps.windows(prefix.len()).any(|window| window == prefix)
}

/// The process that serves `mount_point`: the one of ours with the name among its arguments.
fn daemon_of(mount_point: &Path) -> Option<u32> {
    processes()
        .filter(|(_, name)| name == env!("CARGO_PKG_NAME"))
        .map(|(pid, _)| pid)
        .filter(|pid| *pid != std::process::id())
        .find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| {
                arguments
                    .split(|&byte| byte == 0)
                    .any(|argument| argument == mount_point.as_os_str().as_bytes())
            })
        })
}

/// Number and name of each process.
fn processes() -> impl Iterator<Item = (u32, String)> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((pid, name.trim_end().to_owned()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_mount_points_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(
            matches!(prepare(&missing), Err(MountError::MountPointMissing(path)) if path == missing)
        );
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        assert!(
            matches!(prepare(&file), Err(MountError::MountPointNotADirectory(path)) if path == file)
        );
        assert_eq!(
            prepare(dir.path()).unwrap(),
            dir.path().canonicalize().unwrap()
        );
    }

    #[test]
    fn what_is_not_ours_is_not_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            unmount(dir.path()),
            Err(MountError::NotMounted(_))
        ));
        assert!(
            matches!(unmount(Path::new("/proc")), Err(MountError::NotOurs { fs_type, .. }) if fs_type == "proc")
        );
    }

    #[test]
    fn a_process_is_found_by_what_it_has_open() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        assert!(!uses(std::process::id(), &dir));
        let file = fs::File::create(dir.join("open")).unwrap();
        assert!(uses(std::process::id(), &dir));
        drop(file);
    }
}
