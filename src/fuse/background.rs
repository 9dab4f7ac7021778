//! A daemon without `fork`: the program runs itself again, and waits for the new process to say that it serves the mount.
//!
//! The new process has a pipe as its standard output. What it writes there is its report: [`READY`], or one line that says what
//! went wrong; the pipe's end without a report means that it died. After its report it lets go of the terminal.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{MountError, kernel_mount};

const READY: &str = "ready\n";

/// The running program, even if its file was replaced meanwhile.
const MYSELF: &str = "/proc/self/exe";

/// Runs this program with `arguments` as a daemon and returns when `mount_point` answers. The new process has to call
/// [`Report::new`].
///
/// # Errors
/// [`MountError::Daemon`] with the line that it reported, [`MountError::DaemonDied`], [`MountError::Start`], or what a look at
/// the new mount says; then it is not left behind.
pub fn start(
    arguments: impl IntoIterator<Item = OsString>,
    mount_point: &Path,
) -> Result<(), MountError> {
    let mut daemon = Command::new(MYSELF)
        .arg0(env!("CARGO_PKG_NAME"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(MountError::Start)?;
    let mut report = String::new();
    if let Some(mut stdout) = daemon.stdout.take() {
        stdout
            .read_to_string(&mut report)
            .map_err(MountError::Start)?;
    }
    if report == READY {
        return look_at(mount_point);
    }
    let ended = match daemon.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    match report.trim_end() {
        "" => Err(MountError::DaemonDied(ended)),
        line => Err(MountError::Daemon(line.to_owned())),
    }
}

/// The first request of the mount. From here and not from the daemon; [`super::session`] says why.
fn look_at(mount_point: &Path) -> Result<(), MountError> {
    let looked = fs::metadata(mount_point);
    looked.map(drop).map_err(|source| {
        if let Err(error) = kernel_mount::unmount(mount_point, true) {
            log::error!("{}: cannot be unmounted: {error}", mount_point.display());
        }
        MountError::System {
            what: "look at the new mount",
            mount_point: mount_point.to_path_buf(),
            source,
        }
    })
}

/// The daemon's side.
#[derive(Debug)]
pub struct Report(());

impl Report {
    /// Makes this process a daemon: a session of its own, no working directory that it would keep busy, and a name.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        rustix::process::setsid()?;
        std::env::set_current_dir("/")?;
        // It was started as `exe`. Whether `ps` shows it is not worth a failure.
        let _ = fs::write("/proc/self/comm", env!("CARGO_PKG_NAME"));
        Ok(Self(()))
    }

    /// Says that requests are answered, and lets go of the terminal.
    ///
    /// # Errors
    /// The one who waited is gone.
    pub fn ready(&self) -> io::Result<()> {
        send(READY)?;
        let nowhere = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nowhere)?;
        rustix::stdio::dup2_stderr(&nowhere)?;
        // The last one: it closes the pipe, for which the other side waits.
        rustix::stdio::dup2_stdout(&nowhere)?;
        Ok(())
    }

    /// Says in one line what went wrong.
    pub fn failed(&self, line: &str) {
        // Where nobody listens any more, nobody can be told.
        let _ = send(&format!("{}\n", line.replace('\n', " ")));
    }
}

fn send(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
