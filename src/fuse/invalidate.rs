//! Tells the kernel what to forget.
//!
//! The kernel takes locks of the directory or the pages concerned before it forgets them, and holds just these while it waits
//! for the answer to a request. A request's own thread that told it would wait for itself. So a thread of its own does it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use fuser::{INodeNo, Notifier};

use crate::fs::{News, Stale, Vfs};

/// Passes on what `vfs` reports as stale, until `vfs` is dropped or the mount is gone.
///
/// # Errors
/// The thread could not be started.
pub(super) fn spawn(vfs: &Vfs, notifier: Notifier) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel::<News>();
    thread::Builder::new()
        .name("invalidate".into())
        .spawn(move || pass_on(&receiver, &notifier))?;
    vfs.on_news(Box::new(move |news| {
        // Without a receiver the mount is gone, and its caches with it.
        let _ = sender.send(news);
    }));
    Ok(())
}

fn pass_on(receiver: &Receiver<News>, notifier: &Notifier) {
    for News { stale, heard } in receiver {
        for stale in &stale {
            match tell(notifier, stale) {
                Ok(()) => log::debug!("the kernel forgets {stale:?}"),
                Err(error) if is_disconnected(&error) => return,
                Err(error) => {
                    log::warn!(
                        "the kernel may go on showing what is no longer so: {stale:?}: {error}"
                    );
                }
            }
        }
        if let Some(heard) = heard {
            // Who asked may have lost patience.
            let _ = heard.try_send(());
        }
    }
}

/// That the kernel does not know an inode or a name is not an error: `fuser` drops its `ENOENT`.
fn tell(notifier: &Notifier, stale: &Stale) -> io::Result<()> {
    match stale {
        Stale::Name { parent, name } => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
        }
        // fs/fuse/inode.c, fuse_reverse_inval_inode: a negative offset leaves the pages alone, a length of 0 is "to the end".
        Stale::Attributes(ino) => notifier.inval_inode(INodeNo(ino.0), -1, 0),
        Stale::Content(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
    }
}

fn is_disconnected(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENODEV | libc::ENOTCONN | libc::EPERM)
    )
}
