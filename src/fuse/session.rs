//! A mount from its beginning to its end.
//!
//! Threads: `fuser` runs event loops, each of which takes a request from the kernel and answers it. Reads, which decode, run in at
//! most as many loops as there are decode threads, and changes of `staging/`, which may wait for a commit, in at most
//! [`CHANGE_LOOPS`]; [`METADATA_LOOPS`] more are always free for everything else, so that a `stat` never waits for either. A loop's buffer of 16 MiB is address space, not memory, until a request fills it, and
//! ours are small.
//!
//! This process never looks at its own mount: killed while it waits for its own answer, it could not end, as the kernel takes the
//! connection from it only after its last thread, and gives that thread no answer before.
//!
//! The end: whoever unmounts, the kernel closes the connection and the loops end. Where the mount is still in use (a shell stands in
//! it) it is detached, gone for everyone who looks; the connection would live on until that shell leaves, so the process
//! ends without it and the shell gets ENOTCONN.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, Session, SessionACL};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::adapter::Adapter;
use super::mount_table::{mount_at, read_mounts};
use super::{MountError, invalidate, kernel_mount};
use crate::fs::Vfs;

/// Event loops that no read and no change ever occupies.
pub const METADATA_LOOPS: usize = 8;

/// Event loops that may be changing something. One of them may be at work on a commit.
pub const CHANGE_LOOPS: usize = 4;

/// How long to wait, after the mount was detached, for its users to be gone.
const GRACE: Duration = Duration::from_millis(500);

/// How far the kernel reads ahead, where we may say so: one request of the largest usual size. More would be paid by
/// each page fault of a random reader.
pub const READ_AHEAD_KIB: u32 = 1024;

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountConfig {
    /// What the mount table names as the source. Absolute.
    pub file: PathBuf,
    /// Where; see [`super::mount_point::prepare`].
    pub mount_point: PathBuf,
    /// The kernel refuses writes by itself.
    pub read_only: bool,
    /// Nothing can be executed from it.
    pub no_exec: bool,
    /// Who may enter.
    pub access: Access,
    /// How many threads decode.
    pub decode_threads: usize,
}

/// Who may enter a mount, and whether the kernel checks permissions there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// The one who mounts, to everything.
    Owner,
    /// The one who mounts, as permissions allow.
    OwnerChecked,
    /// Every user, as permissions allow.
    Everyone,
}

/// How a mount ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything is closed.
    Closed,
    /// It is gone from the tree, but some process still held it when we left. Threads are still running: end the process without
    /// the clean-up of libraries that they use.
    InUse,
}

/// What makes a session end.
#[derive(Debug)]
enum Event {
    Signal(i32),
    LoopsEnded(io::Result<()>),
}

/// A mount, which is taken away on drop.
#[derive(Debug)]
struct Mounted {
    /// The connection has ended, and with it usually the mount. Another one may have its place and number by now.
    only_if_dead: bool,
    /// `major:minor`, by which it is found wherever it was moved to.
    device: Option<String>,
    config: MountConfig,
}

/// Mounts `vfs`, calls `ready` when requests are answered, and serves until somebody unmounts it or SIGINT, SIGTERM or SIGHUP
/// comes.
///
/// # Errors
/// It cannot be mounted, or `ready` failed; then nothing stays mounted.
pub fn serve(
    vfs: Vfs,
    config: &MountConfig,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<Ending, MountError> {
    let system = |what| {
        move |source| MountError::System {
            what,
            mount_point: config.mount_point.clone(),
            source,
        }
    };
    let (sender, events) = mpsc::channel();
    // Before the mount, so that no signal finds it unguarded.
    watch_signals(sender.clone()).map_err(system("watch the signals for"))?;
    let connection = kernel_mount::mount(config)?;
    let mounted = Mounted::new(config);
    let vfs = Arc::new(vfs);
    start_loops(&vfs, config, connection, sender).map_err(system("serve"))?;
    mounted.set_read_ahead();
    log::info!(
        "{} is mounted on {}",
        config.file.display(),
        config.mount_point.display()
    );
    ready().map_err(system("report the mount of"))?;
    let ending = wait(&events, mounted);
    // Not left to its end, which never comes where the mount is still in use.
    vfs.close();
    Ok(ending)
}

/// Runs the event loops in threads of their own. Their end is an [`Event`].
fn start_loops(
    vfs: &Arc<Vfs>,
    config: &MountConfig,
    connection: OwnedFd,
    sender: Sender<Event>,
) -> io::Result<()> {
    let mut fuser_config = Config::default();
    fuser_config.acl = if config.access == Access::Everyone {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    fuser_config.n_threads = Some(
        config
            .decode_threads
            .saturating_add(CHANGE_LOOPS + METADATA_LOOPS),
    );
    fuser_config.clone_fd = kernel_mount::can_clone_device();
    let vfs = Arc::clone(vfs);
    let adapter = Adapter::new(Arc::clone(&vfs), config.decode_threads, CHANGE_LOOPS);
    let session = Session::from_fd(adapter, connection, fuser_config.acl, fuser_config)?;
    invalidate::spawn(&vfs, session.notifier())?;
    thread::Builder::new()
        .name("warm-up".into())
        .spawn(move || vfs.warm_up())?;
    thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            let ended = session.run();
            // Nobody listens any more where the process is about to end.
            let _ = sender.send(Event::LoopsEnded(ended));
        })?;
    Ok(())
}

/// From now on these signals are events. A second one finds the first being dealt with, and changes nothing.
fn watch_signals(sender: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                // The handlers stay in place even when nobody listens any more.
                let _ = sender.send(Event::Signal(signal));
            }
        })?;
    Ok(())
}

/// Waits for the end and brings it about.
fn wait(events: &Receiver<Event>, mut mounted: Mounted) -> Ending {
    match events.recv() {
        Ok(Event::Signal(signal)) => {
            log::info!("signal {signal}: unmounting");
            drop(mounted);
            wait_for_loops(events)
        }
        Ok(Event::LoopsEnded(ended)) => {
            if let Err(error) = ended {
                log::error!("the connection to the kernel broke: {error}");
            }
            mounted.only_if_dead = true;
            Ending::Closed
        }
        // Each thread that holds a sender outlives its last event.
        Err(mpsc::RecvError) => Ending::InUse,
    }
}

fn wait_for_loops(events: &Receiver<Event>) -> Ending {
    let deadline = Instant::now() + GRACE;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::LoopsEnded(_)) => return Ending::Closed,
            Ok(Event::Signal(_)) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                log::info!("the mount is still in use; closing it all the same");
                return Ending::InUse;
            }
        }
    }
}

impl Mounted {
    fn new(config: &MountConfig) -> Self {
        let device = match mount_at(&config.mount_point) {
            Ok(mount) => mount.map(|mount| mount.device),
            Err(error) => {
                log::warn!("/proc/self/mountinfo: {error}");
                None
            }
        };
        Self {
            only_if_dead: false,
            device,
            config: config.clone(),
        }
    }

    /// The kernel's default is 128 KiB. Only root may change it; a mount of a user does without.
    fn set_read_ahead(&self) {
        if let Some(device) = &self.device {
            let setting = format!("/sys/class/bdi/{device}/read_ahead_kb");
            if let Err(error) = fs::write(&setting, READ_AHEAD_KIB.to_string()) {
                log::debug!("{setting}: {error}");
            }
        }
    }

    /// Where the mount is now.
    fn places(&self) -> Vec<PathBuf> {
        let Some(device) = &self.device else {
            return vec![self.config.mount_point.clone()];
        };
        match read_mounts() {
            Ok(mounts) => mounts
                .into_iter()
                .rev()
                .filter(|mount| mount.device == *device)
                .map(|mount| mount.mount_point)
                .collect(),
            Err(_) => vec![self.config.mount_point.clone()],
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for place in self.places() {
            if self.only_if_dead && !kernel_mount::is_dead(&place) {
                continue;
            }
            if let Err(error) = kernel_mount::unmount(&place, true) {
                log::error!("{} could not be unmounted: {error}", place.display());
            }
        }
    }
}
