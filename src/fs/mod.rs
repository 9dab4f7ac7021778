//! The tree that users see, as plain methods on [`Vfs`] that tests call without a mount.

mod changes;
mod control;
mod directory;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handles;
mod inode;
mod news;
mod orders;
mod recall;
mod rewritten;
mod staged;
mod staged_npy;
mod stat;
mod types;
mod views;
mod xattr;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use changes::Place;
use control::Control;
pub use control::ControlError;
use directory::{Listing, OpenDirectory};
pub use error::FsError;
use handles::{Handle, Handles};
use inode::{InodeTable, Node, View};
use news::Announcer;
pub use news::News;
use recall::Recall;
pub use types::{
    Attr, AttrChange, Created, DirEntry, Entry, FsStat, HandleId, Ino, Kind, NewTime, Opened, Seek,
    Stale, VfsOptions,
};
use xattr::Xattrs;

use crate::staging::{self, Staging};
use crate::store::{
    ChildKind, NAME_MAX_BYTES, OpenDataset, Snapshot, StoreOptions, VersionIndex, VersionKey,
    VersionedFile, time,
};

/// For so long a version that another program deletes may still be found, where nothing else is asked for meanwhile. Without it, each path below a version
/// would cost a request of its own; the file's own times tell nothing sooner.
const DELETED_VERSION_SEEN: Duration = Duration::from_millis(10);
/// For what never changes; the kernel is told when it does all the same.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A mounted file.
#[derive(Debug)]
pub struct Vfs {
    file: Arc<VersionedFile>,
    /// The next version; none where FILE cannot be written to or is not to be.
    staging: Option<Staging>,
    inodes: Arc<InodeTable>,
    recall: Recall,
    handles: Arc<Handles>,
    announcer: Arc<Announcer>,
    /// Whether another program ever changed more of the file than it added.
    is_rewritten: Arc<AtomicBool>,
}

impl Vfs {
    /// Opens the file `path` and reads its history.
    ///
    /// # Errors
    /// Whatever keeps it from being mounted, as one line for people that names the file and says what to do.
    pub fn open(path: &Path, options: &VfsOptions) -> Result<Self, FsError> {
        let may_write = !options.read_only && stat::is_writable(path).unwrap_or(false);
        staging::settle(path, may_write)?;
        let file = Arc::new(VersionedFile::open(
            path,
            &StoreOptions {
                cache_bytes: options.cache_bytes,
                decode_threads: options.decode_threads,
                verify: options.verify,
            },
        )?);
        let inodes = Arc::new(InodeTable::new());
        let announcer: Arc<Announcer> = Arc::default();
        let handles: Arc<Handles> = Arc::default();
        let is_rewritten: Arc<AtomicBool> = Arc::default();
        file.on_change(Box::new({
            let (inodes, announcer) = (inodes.clone(), announcer.clone());
            let (handles, is_rewritten) = (handles.clone(), is_rewritten.clone());
            move |file, old, new, extends| {
                let mut stale = Vec::new();
                if !extends {
                    is_rewritten.store(true, Ordering::SeqCst);
                    stat::follow(&inodes, old, new);
                    stale = rewritten::names(&inodes);
                    rewritten::retire(&inodes, file, new, &handles.files());
                }
                stale.extend(stat::stale(&inodes, old, new, extends));
                announcer.tell(stale);
            }
        }));
        let staging = if options.read_only || !stat::is_writable(path)? {
            None
        } else {
            Some(open_staging(&file, &inodes, &announcer))
        };
        Ok(Self {
            file,
            staging,
            inodes,
            recall: Recall::default(),
            handles,
            announcer,
            is_rewritten,
        })
    }

    /// Reads ahead what the first listing needs: which versions share their datasets.
    pub fn warm_up(&self) {
        if let Err(error) = self.file.ask(|snapshot| snapshot.sharing().map(|_| ())) {
            log::debug!("warming up: {error}");
        }
    }

    /// Puts away what is staged, at the end of the mount: for the next one where there is anything.
    pub fn close(&self) {
        if let Some(staging) = &self.staging
            && let Err(error) = staging.close()
        {
            log::error!("what is staged may not be there at the next mount: {error}");
        }
    }

    /// Calls `sink` with news for the kernel, which it must not wait for.
    pub fn on_news(&self, sink: Box<dyn Fn(News) + Send + Sync>) {
        self.announcer.set(sink);
    }

    /// Finds `name` in the directory `parent` and counts one more lookup of its inode.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NameTooLong`], [`FsError::NotADirectory`], or what is wrong with the file.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Entry, FsError> {
        let name = name.as_bytes();
        let directory = match self.inodes.node(parent) {
            // By whoever came back with the number alone.
            Err(FsError::Stale) if name == b"." => self.recalled(parent)?,
            known => known?,
        };
        if name.len() > NAME_MAX_BYTES {
            return Err(FsError::NameTooLong);
        }
        let (node, attr) = if matches!(directory, Node::StagedGroup(..)) {
            let node = directory::find(&self.file.look(), self.staging.as_ref(), &directory, name)?;
            let attr = self.attr_now(&node)?;
            (node, attr)
        } else {
            self.ask(|snapshot| {
                let node = directory::find(snapshot, self.staging.as_ref(), &directory, name)?;
                let attr = self.attr(snapshot, &node)?;
                Ok((node, attr))
            })?
        };
        self.inodes.look_up(&node);
        Ok(entry(&node, attr))
    }

    /// What a number stands for that the kernel has forgotten.
    fn recalled(&self, ino: Ino) -> Result<Node, FsError> {
        self.ask(|snapshot| {
            self.recall
                .node(snapshot, self.staging.as_ref(), &self.inodes, ino)
        })
    }

    /// The kernel drops `count` lookups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// Attributes and how long they hold.
    ///
    /// # Errors
    /// [`FsError::Stale`] for an inode that is no longer there, or what is wrong with the file.
    pub fn getattr(&self, ino: Ino) -> Result<(Attr, Duration), FsError> {
        let node = self.inodes.node(ino)?;
        let attr = self.attr_now(&node)?;
        Ok((attr, attr_ttl(&node)))
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// [`FsError::Invalid`] for anything else, otherwise as for [`Vfs::getattr`].
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let node = self.inodes.node(ino)?;
        directory::link_target(&self.file.look(), &node)
    }

    /// Opens a file with the flags of `open(2)`.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`] for any flag that would write outside `staging/`, [`FsError::NotPermitted`] for one that would write what
    /// is read-only there, [`FsError::IsADirectory`], or what is wrong with the file.
    pub fn open_file(&self, ino: Ino, flags: i32) -> Result<Opened, FsError> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let handle = match self.inodes.node(ino)? {
            Node::Dataset { .. } | Node::About { .. }
                if writes || flags & (libc::O_TRUNC | libc::O_APPEND) != 0 =>
            {
                return Err(FsError::ReadOnly);
            }
            Node::Dataset {
                view: View::Raw,
                origin,
                path,
            } => {
                let dataset = self.file.open_dataset(&origin, &path)?;
                return Ok(Opened {
                    handle: self.handles.add(Handle::File(ino, Arc::new(dataset))),
                    keep_cache: true,
                    direct_io: false,
                });
            }
            node @ (Node::Dataset { .. } | Node::About { .. }) => {
                return self.open_view(ino, &node);
            }
            Node::StagedFile(view, id) => {
                let truncates = flags & libc::O_TRUNC != 0;
                let staging = self.staging()?;
                if view == View::Npy {
                    Handle::StagedNpy(Arc::new(staging.open_npy(id, writes, truncates)?))
                } else {
                    let open = staging.open(id, writes || truncates, truncates)?;
                    Handle::Staged(Arc::new(open))
                }
            }
            Node::Control(control) => return self.open_control(control, flags),
            // The kernel looks the name up anew.
            Node::Retired(_) => return Err(FsError::Stale),
            _ => return Err(FsError::IsADirectory),
        };
        Ok(Opened {
            handle: self.handles.add(handle),
            keep_cache: false,
            direct_io: false,
        })
    }

    /// Fills `buffer` with the file's bytes from `offset` on, and says how many there were: fewer only at the end.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read_into(
        &self,
        handle: HandleId,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, FsError> {
        match self.handle(handle)? {
            Handle::File(_, open) => Ok(self.file.read_dataset(&open, offset, buffer)?),
            Handle::Npy(_, open) => Ok(self.file.read_npy(&open, offset, buffer)?),
            Handle::Text(text) => Ok(staged::read_text(&text, offset, buffer)),
            Handle::Staged(open) => Ok(self.staging()?.read_at(&open, offset, buffer)?),
            Handle::StagedNpy(open) => Ok(self.staging()?.read_npy_at(&open, offset, buffer)?),
            Handle::Control(open) => Ok(open.read_into(offset, buffer)),
            Handle::Directory(_) => Err(FsError::IsADirectory),
        }
    }

    /// `SEEK_DATA` and `SEEK_HOLE`.
    ///
    /// # Errors
    /// [`FsError::NoSuchOffset`] beyond the end, or what is wrong with the file.
    pub fn seek(&self, handle: HandleId, offset: u64, seek: Seek) -> Result<u64, FsError> {
        let is_hole = seek == Seek::Hole;
        let found = match self.handle(handle)? {
            Handle::File(_, open) => self
                .file
                .ask_dataset(&open, |dataset| dataset.seek(offset, is_hole))?,
            Handle::Npy(_, open) => self.file.seek_npy(&open, offset, is_hole)?,
            Handle::Text(text) => views::seek_text(&text, offset, is_hole),
            Handle::Staged(open) => return Ok(self.staging()?.seek(&open, offset, is_hole)?),
            Handle::StagedNpy(open) => {
                return Ok(self.staging()?.seek_npy(&open, offset, is_hole)?);
            }
            Handle::Control(_) => return Err(FsError::Invalid),
            Handle::Directory(_) => return Err(FsError::IsADirectory),
        };
        found.ok_or(FsError::NoSuchOffset)
    }

    /// Closes a file or directory.
    pub fn release(&self, handle: HandleId) {
        if let Some(Handle::StagedNpy(open)) = self.handles.remove(handle)
            && let Some(staging) = &self.staging
            && let Err(error) = staging.close_npy(&open)
        {
            log::warn!("closing a .npy file: {error}");
        }
    }

    /// Whether closing a file is something to be waited for.
    #[must_use]
    pub fn is_finished_by_closing(&self, handle: HandleId) -> bool {
        matches!(self.handles.get(handle), Ok(Handle::StagedNpy(_)))
    }

    /// A file is closed by one of those who have it open.
    ///
    /// # Errors
    /// What keeps a dataset from being made of what was written as a .npy file.
    pub fn flush(&self, handle: HandleId) -> Result<(), FsError> {
        if let Handle::StagedNpy(open) = self.handle(handle)? {
            self.staging()?.flush_npy(&open)?;
            self.changed_as(View::Npy, open.node());
        }
        Ok(())
    }

    /// Opens a directory; its listing stays as it is until it is closed or read anew from its beginning.
    ///
    /// # Errors
    /// As for [`Vfs::getattr`].
    pub fn open_directory(&self, ino: Ino) -> Result<HandleId, FsError> {
        let node = self.inodes.node(ino)?;
        let listing = self.listing(&node)?;
        let open = OpenDirectory::new(node, listing);
        Ok(self.handles.add(Handle::Directory(Arc::new(open))))
    }

    /// Whether what was listed of the directory `ino` before is what it contains now, and will be: to be asked after it was opened.
    #[must_use]
    pub fn lists_as_before(&self, ino: Ino) -> bool {
        let is_in_version = matches!(self.inodes.node(ino), Ok(Node::Group { .. }));
        is_in_version && !self.is_rewritten.load(Ordering::SeqCst)
    }

    fn listing(&self, node: &Node) -> Result<Listing, FsError> {
        self.ask(|snapshot| directory::list(snapshot, self.staging.as_ref(), node))
    }

    /// The names behind `offset` (0 at the start), `.` and `..` first, until `each` returns false for "full".
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read_directory(
        &self,
        handle: HandleId,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<(), FsError> {
        let listing = self.listing_of(handle, offset)?;
        for (next, name, node) in listing.entries_behind(offset) {
            let shown = DirEntry {
                offset: next,
                name: name.to_vec(),
                ino: self.inodes.ino(node),
                kind: directory::kind(node),
            };
            if !each(&shown) {
                break;
            }
        }
        Ok(())
    }

    /// The same with attributes. Each entry for which `each` returns true counts as looked up, except `.` and `..`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read_directory_plus(
        &self,
        handle: HandleId,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<(), FsError> {
        let listing = self.listing_of(handle, offset)?;
        for (next, name, node) in listing.entries_behind(offset) {
            let is_dots = name == b"." || name == b"..";
            let shown = DirEntry {
                offset: next,
                name: name.to_vec(),
                ino: self.inodes.ino(node),
                kind: directory::kind(node),
            };
            let entry = match self.attr_now(node) {
                Ok(attr) => entry(node, attr),
                // The name is there all the same; whoever asks for more is told what is wrong.
                Err(error) => {
                    log::debug!("listing {}: {error}", name.escape_ascii());
                    Entry {
                        attr: stat::unknown(shown.ino, shown.kind),
                        name_ttl: Duration::ZERO,
                        attr_ttl: Duration::ZERO,
                    }
                }
            };
            if !is_dots {
                self.inodes.look_up(node);
            }
            if !each(&shown, &entry) {
                if !is_dots {
                    self.inodes.forget(shown.ino, 1);
                }
                break;
            }
        }
        Ok(())
    }

    /// Value of one extended attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`], [`FsError::AttributeTooBig`], [`FsError::NotSupported`] for another namespace, or what is
    /// wrong with the file.
    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>, FsError> {
        // Asked for before every write by some tools; what is in no namespace of ours needs no look at the file.
        if !name.as_bytes().starts_with(b"user.") {
            return Err(FsError::NotSupported);
        }
        self.xattrs(ino)?.value(name.as_bytes())
    }

    /// Names of all extended attributes, each followed by a NUL.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        Ok(self.xattrs(ino)?.list())
    }

    /// Room on the file system that holds the file.
    ///
    /// # Errors
    /// What `statvfs(3)` says.
    pub fn statfs(&self) -> Result<FsStat, FsError> {
        stat::of_file_system(self.file.path())
    }

    /// What `stat` says of a node now.
    fn attr_now(&self, node: &Node) -> Result<Attr, FsError> {
        match node {
            Node::StagedGroup(..) | Node::StagedFile(..) | Node::Control(_) => {
                self.staged_attr(node)
            }
            _ => self.ask(|snapshot| self.attr(snapshot, node)),
        }
    }

    fn staged_attr(&self, node: &Node) -> Result<Attr, FsError> {
        let owner = self.file.look().metadata()?;
        staged::attr(self.staging()?, &owner, node, self.inodes.ino(node))
    }

    fn staging(&self) -> Result<&Staging, FsError> {
        self.staging.as_ref().ok_or(FsError::Stale)
    }

    fn attr(&self, snapshot: &Arc<Snapshot>, node: &Node) -> Result<Attr, FsError> {
        if matches!(
            node,
            Node::StagedGroup(..) | Node::StagedFile(..) | Node::Control(_)
        ) {
            return self.staged_attr(node);
        }
        stat::of_node(&self.file, snapshot, node, self.inodes.ino(node))
    }

    fn xattrs(&self, ino: Ino) -> Result<Xattrs, FsError> {
        match self.inodes.node(ino)? {
            Node::Group {
                view: View::Raw | View::Npy,
                version,
                path,
            } => self.ask(|snapshot| {
                let index = version_index(snapshot, &version)?;
                let attributes = snapshot.attributes(index, &path)?;
                Ok(if path.is_empty() {
                    Xattrs::of_version(snapshot, index, attributes)
                } else {
                    Xattrs::of_group(attributes)
                })
            }),
            Node::Dataset {
                view: view @ (View::Raw | View::Npy),
                origin,
                path,
            } => self.ask(|snapshot| {
                let index = version_index(snapshot, &origin)?;
                let attributes = snapshot.attributes(index, &path)?;
                if view == View::Npy {
                    // Its header says the rest; and a copy into `staging/` is not to take the header for elements.
                    return Ok(Xattrs::of_group(attributes));
                }
                let dataset = self.file.dataset_in(snapshot, index, &path)?;
                Ok(Xattrs::of_dataset(&dataset, attributes)?)
            }),
            Node::StagedFile(View::Npy, id) => {
                // Its header says the rest.
                let attributes = self.staging()?.own_attributes_of(id)?;
                Ok(Xattrs::of_group(attributes))
            }
            Node::StagedGroup(_, id) | Node::StagedFile(_, id) => {
                Ok(Xattrs::of_staged(self.staging()?.attributes(id)?))
            }
            Node::Control(Control::Commit) => Ok(Xattrs::of_commit(self.staging()?.progress())),
            _ => Ok(Xattrs::none()),
        }
    }

    /// What `ask` finds in a settled state of the file; an [`FsError`] that is not the store's counts as an answer.
    fn ask<T>(&self, ask: impl Fn(&Arc<Snapshot>) -> Result<T, FsError>) -> Result<T, FsError> {
        self.file.ask(|snapshot| match ask(snapshot) {
            Err(FsError::Store(error)) => Err(error),
            other => Ok(other),
        })?
    }

    fn handle(&self, id: HandleId) -> Result<Handle, FsError> {
        self.handles.get(id)
    }

    /// The listing of an open directory that is read from `offset` on.
    fn listing_of(&self, id: HandleId, offset: u64) -> Result<Arc<Listing>, FsError> {
        match self.handle(id)? {
            Handle::Directory(open) => open.read_from(offset, |node| self.listing(node)),
            _ => Err(FsError::NotADirectory),
        }
    }
}

/// An attribute's name without the namespace.
fn user_attribute(name: &OsStr) -> Result<&[u8], FsError> {
    name.as_bytes()
        .strip_prefix(b"user.")
        .ok_or(FsError::NotSupported)
}

/// The staging of `file`, with what an earlier mount left there.
fn open_staging(
    file: &Arc<VersionedFile>,
    inodes: &Arc<InodeTable>,
    announcer: &Arc<Announcer>,
) -> Staging {
    let staging = Staging::new(file.clone());
    let (inodes, announcer) = (inodes.clone(), announcer.clone());
    staging.on_replaced(Box::new(move |nodes| {
        announcer.tell(staged::replaced(&inodes, nodes));
    }));
    if let Err(error) = staging.recover() {
        log::warn!("staging/ cannot be used: {error}");
    }
    staging
}

/// The version's place in the state of the file now.
fn version_index(snapshot: &Snapshot, version: &VersionKey) -> Result<VersionIndex, FsError> {
    snapshot.history().by_key(version).ok_or(FsError::Stale)
}

fn entry(node: &Node, attr: Attr) -> Entry {
    let name_ttl = match node {
        Node::Group { path, .. } if path.is_empty() => DELETED_VERSION_SEEN,
        // Another program may commit a version or make another one current at any time; what is staged changes with each commit and reset.
        Node::Current { .. }
        | Node::Time(_)
        | Node::StagedGroup(..)
        | Node::StagedFile(..)
        | Node::Control(_) => Duration::ZERO,
        _ => FOREVER,
    };
    Entry {
        attr,
        name_ttl,
        attr_ttl: attr_ttl(node),
    }
}

fn attr_ttl(node: &Node) -> Duration {
    match node {
        Node::Group { .. } | Node::Dataset { .. } | Node::About { .. } => FOREVER,
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests;
