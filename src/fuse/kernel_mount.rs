//! Mounting and unmounting: by system call where we may, else through `fusermount3`, which may.
//!
//! `fuser` would do it too, but shows root's mounts without their subtype, puts the options' text into its errors, and unmounts
//! whatever lies under a mount that is already gone.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::session::{Access, MountConfig};
use super::{FS_TYPE, MountError};

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
const SUBTYPE: &str = "vh5fs";

/// Mounts as `config` says and gives the connection to the kernel.
///
/// # Errors
/// [`MountError::NoDevice`], [`MountError::NoHelper`], [`MountError::AllowOther`], or what the kernel or the helper says.
pub(super) fn mount(config: &MountConfig) -> Result<OwnedFd, MountError> {
    match open_device() {
        Ok(device) => match mount_by_call(config, &device) {
            Ok(()) => Ok(device.into()),
            Err(Errno::PERM) => mount_by_helper(config),
            Err(errno) => Err(MountError::System {
                what: "mount on",
                mount_point: config.mount_point.clone(),
                source: errno.into(),
            }),
        },
        // The helper may open it for us.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => mount_by_helper(config),
        Err(error) => Err(MountError::NoDevice(error)),
    }
}

/// Whether this process may open further connections to the kernel for its threads.
pub(super) fn can_clone_device() -> bool {
    open_device().is_ok()
}

fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn mount_by_call(config: &MountConfig, device: &File) -> Result<(), Errno> {
    let mode = fs::metadata(&config.mount_point)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?
        .mode();
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={}",
        device.as_raw_fd(),
        mode & libc::S_IFMT,
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    for option in permission_options(config.access) {
        data.push(',');
        data.push_str(option);
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    flags.set(MountFlags::RDONLY, config.read_only);
    flags.set(MountFlags::NOEXEC, config.no_exec);
    rustix::mount::mount(
        &config.file,
        &config.mount_point,
        FS_TYPE,
        flags,
        data.as_c_str(),
    )
}

fn permission_options(access: Access) -> &'static [&'static str] {
    match access {
        Access::Owner => &[],
        Access::OwnerChecked => &["default_permissions"],
        Access::Everyone => &["allow_other", "default_permissions"],
    }
}

/// The helper opens the device, mounts, and sends the device over the socket that it finds as its standard input.
fn mount_by_helper(config: &MountConfig) -> Result<OwnedFd, MountError> {
    let failed = |message: String| MountError::Helper {
        mount_point: config.mount_point.clone(),
        message,
    };
    let (ours, theirs) = UnixStream::pair().map_err(MountError::Start)?;
    let mut command = Command::new(HELPER);
    command
        .arg("-o")
        .arg(helper_options(config))
        .arg("--")
        .arg(&config.mount_point)
        .env("_FUSE_COMMFD", "0")
        .env("LC_ALL", "C")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut helper = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::NoHelper,
        _ => failed(format!("{HELPER}: {error}")),
    })?;
    // Our copy of their end: as long as it is open, waiting for the device has no end.
    drop(command);
    let device = receive_device(&ours);
    let mut words = String::new();
    if let Some(mut stderr) = helper.stderr.take() {
        // Whatever can be read is better than nothing.
        let _ = stderr.read_to_string(&mut words);
    }
    // The device is what counts, not the exit status.
    let _ = helper.wait();
    match device {
        Ok(Some(device)) => Ok(device),
        Ok(None) if words.contains("user_allow_other") => Err(MountError::AllowOther),
        Ok(None) => Err(failed(one_line(&words))),
        Err(error) => Err(failed(format!("{HELPER}: {error}"))),
    }
}

fn helper_options(config: &MountConfig) -> OsString {
    let mut options = format!("subtype={SUBTYPE},nosuid,nodev,noatime").into_bytes();
    for (wanted, option) in [(config.read_only, "ro"), (config.no_exec, "noexec")] {
        if wanted {
            options.push(b',');
            options.extend_from_slice(option.as_bytes());
        }
    }
    for option in permission_options(config.access) {
        options.push(b',');
        options.extend_from_slice(option.as_bytes());
    }
    options.extend_from_slice(b",fsname=");
    for &byte in config.file.as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(byte);
    }
    OsString::from_vec(options)
}

/// The device, or nothing where the helper closed the socket without sending it.
fn receive_device(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut messages = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut messages,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    Ok(messages.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut devices) => devices.next(),
        _ => None,
    }))
}

/// Takes away what is mounted on `mount_point`; if `lazy` at once for those who look, even where somebody still uses it.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] if it is in use and not `lazy`, else what the kernel or the helper says.
pub(super) fn unmount(mount_point: &Path, lazy: bool) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    match rustix::mount::unmount(mount_point, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => unmount_by_helper(mount_point, lazy),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the daemon behind `mount_point` is gone. `statfs`, as the kernel may answer a `stat` by what it remembers.
pub(super) fn is_dead(mount_point: &Path) -> bool {
    matches!(
        rustix::fs::statfs(mount_point),
        Err(Errno::NOTCONN | Errno::CONNABORTED)
    )
}

fn unmount_by_helper(mount_point: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new(HELPER);
    command.arg("-u").env("LC_ALL", "C").stdin(Stdio::null());
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mount_point).output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = one_line(&String::from_utf8_lossy(&output.stderr));
    if words.contains("busy") {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    Err(io::Error::other(words))
}

fn one_line(words: &str) -> String {
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return format!("{HELPER} failed and does not say why");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_gets_the_file_name_with_its_commas() {
        let config = MountConfig {
            file: "/data/a,b\\c.h5".into(),
            mount_point: "/mnt".into(),
            read_only: true,
            no_exec: false,
            access: Access::Everyone,
            decode_threads: 1,
        };
        assert_eq!(
            helper_options(&config),
            "subtype=vh5fs,nosuid,nodev,noatime,ro,allow_other,default_permissions,fsname=/data/a\\,b\\\\c.h5"
        );
    }

    #[test]
    fn a_closed_socket_is_no_device() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(receive_device(&ours).unwrap().is_none());
    }

    #[test]
    fn words_of_the_helper_become_one_line() {
        assert_eq!(
            one_line("fusermount3: mount\n failed \n"),
            "fusermount3: mount failed"
        );
        assert_eq!(one_line(" \n"), "fusermount3 failed and does not say why");
    }
}
