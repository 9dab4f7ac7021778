//! The tree that users see, as plain methods on [`Vfs`] that tests call without a mount.

mod directory;
mod error;
mod inode;
mod rewritten;
mod stat;
mod types;
mod xattr;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use directory::Listing;
pub use error::FsError;
use inode::{InodeTable, Node};
pub use types::{
    Attr, DirEntry, Entry, FsStat, HandleId, Ino, Kind, Opened, Seek, Stale, VfsOptions,
};
use xattr::Xattrs;

use crate::store::{
    ChildKind, OpenDataset, Snapshot, StoreOptions, VersionIndex, VersionKey, VersionedFile, time,
};

/// For what never changes; the kernel is told when it does all the same.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A mounted file.
#[derive(Debug)]
pub struct Vfs {
    file: VersionedFile,
    inodes: Arc<InodeTable>,
    handles: Arc<Handles>,
    next_handle: AtomicU64,
    on_stale: Arc<OnceLock<StaleSink>>,
}

/// Where news for the kernel goes.
struct StaleSink(Box<dyn Fn(Vec<Stale>) + Send + Sync>);

impl std::fmt::Debug for StaleSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StaleSink")
    }
}

#[derive(Debug, Clone)]
enum Handle {
    File(Ino, Arc<OpenDataset>),
    Directory(Arc<Listing>),
}

type Handles = RwLock<HashMap<HandleId, Handle>>;

impl Vfs {
    /// Opens the file `path` and reads its history.
    ///
    /// # Errors
    /// Whatever keeps it from being mounted, as one line for people that names the file and says what to do.
    pub fn open(path: &Path, options: &VfsOptions) -> Result<Self, FsError> {
        let file = VersionedFile::open(
            path,
            &StoreOptions {
                cache_bytes: options.cache_bytes,
                decode_threads: options.decode_threads,
            },
        )?;
        let inodes = Arc::new(InodeTable::new());
        let on_stale: Arc<OnceLock<StaleSink>> = Arc::default();
        let handles: Arc<Handles> = Arc::default();
        file.on_change(Box::new({
            let (inodes, on_stale) = (inodes.clone(), on_stale.clone());
            let handles = handles.clone();
            move |file, old, new, extends| {
                let mut stale = Vec::new();
                if !extends {
                    stat::follow(&inodes, old, new);
                    stale = rewritten::names(&inodes);
                    rewritten::retire(&inodes, file, new, &open_files(&handles));
                }
                stale.extend(stat::stale(&inodes, old, new, extends));
                if let Some(StaleSink(sink)) = on_stale.get() {
                    sink(stale);
                }
            }
        }));
        Ok(Self {
            file,
            inodes,
            handles,
            next_handle: AtomicU64::new(1),
            on_stale,
        })
    }

    /// Reads ahead what the first listing needs: which versions share their datasets.
    pub fn warm_up(&self) {
        if let Err(error) = self.file.ask(|snapshot| snapshot.sharing().map(|_| ())) {
            log::debug!("warming up: {error}");
        }
    }

    /// Calls `sink` whenever the kernel has to forget something. `sink` must not wait for the kernel.
    pub fn on_stale(&self, sink: Box<dyn Fn(Vec<Stale>) + Send + Sync>) {
        // A second mount of one Vfs has no use.
        let _ = self.on_stale.set(StaleSink(sink));
    }

    /// Finds `name` in the directory `parent` and counts one more lookup of its inode.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NotADirectory`], or what is wrong with the file.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Entry, FsError> {
        let directory = self.inodes.node(parent)?;
        let name = name.as_bytes();
        let (node, attr) = self.ask(|snapshot| {
            let node = directory::find(snapshot, &directory, name)?;
            let attr = self.attr(snapshot, &node)?;
            Ok((node, attr))
        })?;
        self.inodes.look_up(&node);
        Ok(entry(&node, attr))
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
        let attr = self.ask(|snapshot| self.attr(snapshot, &node))?;
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
    /// [`FsError::ReadOnly`] for any flag that would write, [`FsError::IsADirectory`], or what is wrong with the file.
    pub fn open_file(&self, ino: Ino, flags: i32) -> Result<Opened, FsError> {
        let Node::Dataset { origin, path } = self.inodes.node(ino)? else {
            return Err(FsError::IsADirectory);
        };
        if flags & libc::O_ACCMODE != libc::O_RDONLY
            || flags & (libc::O_TRUNC | libc::O_APPEND) != 0
        {
            return Err(FsError::ReadOnly);
        }
        let dataset = self.file.open_dataset(&origin, &path)?;
        Ok(Opened {
            handle: self.add_handle(Handle::File(ino, Arc::new(dataset))),
            keep_cache: true,
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
        let open = self.file_handle(handle)?;
        Ok(self.file.read_dataset(&open, offset, buffer)?)
    }

    /// `SEEK_DATA` and `SEEK_HOLE`.
    ///
    /// # Errors
    /// [`FsError::NoSuchOffset`] beyond the end, or what is wrong with the file.
    pub fn seek(&self, handle: HandleId, offset: u64, seek: Seek) -> Result<u64, FsError> {
        let open = self.file_handle(handle)?;
        let found = self
            .file
            .ask_dataset(&open, |dataset| dataset.seek(offset, seek == Seek::Hole))?;
        found.ok_or(FsError::NoSuchOffset)
    }

    /// Closes a file or directory.
    pub fn release(&self, handle: HandleId) {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.remove(&handle);
    }

    /// Opens a directory; its listing stays as it is until it is closed.
    ///
    /// # Errors
    /// As for [`Vfs::getattr`].
    pub fn open_directory(&self, ino: Ino) -> Result<HandleId, FsError> {
        let node = self.inodes.node(ino)?;
        let listing = self.ask(|snapshot| directory::list(snapshot, &node))?;
        Ok(self.add_handle(Handle::Directory(Arc::new(listing))))
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
        let listing = self.directory_handle(handle)?;
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
        let listing = self.directory_handle(handle)?;
        for (next, name, node) in listing.entries_behind(offset) {
            let is_dots = name == b"." || name == b"..";
            let shown = DirEntry {
                offset: next,
                name: name.to_vec(),
                ino: self.inodes.ino(node),
                kind: directory::kind(node),
            };
            let entry = match self.ask(|snapshot| self.attr(snapshot, node)) {
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

    fn attr(&self, snapshot: &Arc<Snapshot>, node: &Node) -> Result<Attr, FsError> {
        stat::of_node(&self.file, snapshot, node, self.inodes.ino(node))
    }

    fn xattrs(&self, ino: Ino) -> Result<Xattrs, FsError> {
        match self.inodes.node(ino)? {
            Node::Group { version, path } => self.ask(|snapshot| {
                let index = version_index(snapshot, &version)?;
                let attributes = snapshot.attributes(index, &path)?;
                Ok(if path.is_empty() {
                    Xattrs::of_version(snapshot, index, attributes)
                } else {
                    Xattrs::of_group(attributes)
                })
            }),
            Node::Dataset { origin, path } => self.ask(|snapshot| {
                let attributes = snapshot.attributes(version_index(snapshot, &origin)?, &path)?;
                let dataset =
                    self.file
                        .dataset_in(snapshot, version_index(snapshot, &origin)?, &path)?;
                Ok(Xattrs::of_dataset(&dataset, attributes)?)
            }),
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

    fn add_handle(&self, handle: Handle) -> HandleId {
        let id = HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed));
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.insert(id, handle);
        id
    }

    fn handle(&self, id: HandleId) -> Result<Handle, FsError> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.get(&id).cloned().ok_or(FsError::Invalid)
    }

    fn file_handle(&self, id: HandleId) -> Result<Arc<OpenDataset>, FsError> {
        match self.handle(id)? {
            Handle::File(_, open) => Ok(open),
            Handle::Directory(_) => Err(FsError::IsADirectory),
        }
    }

    fn directory_handle(&self, id: HandleId) -> Result<Arc<Listing>, FsError> {
        match self.handle(id)? {
            Handle::Directory(listing) => Ok(listing),
            Handle::File(..) => Err(FsError::NotADirectory),
        }
    }
}

fn open_files(handles: &Handles) -> Vec<(Ino, Arc<OpenDataset>)> {
    let handles = handles.read().unwrap_or_else(PoisonError::into_inner);
    handles
        .values()
        .filter_map(|handle| match handle {
            Handle::File(ino, open) => Some((*ino, open.clone())),
            Handle::Directory(_) => None,
        })
        .collect()
}

/// The version's place in the state of the file now.
fn version_index(snapshot: &Snapshot, version: &VersionKey) -> Result<VersionIndex, FsError> {
    snapshot.history().by_key(version).ok_or(FsError::Stale)
}

fn entry(node: &Node, attr: Attr) -> Entry {
    // Another program may delete a version, commit one, or make another one current at any time.
    let changes = match node {
        Node::Group { path, .. } => path.is_empty(),
        Node::Current { .. } | Node::Time(_) => true,
        _ => false,
    };
    Entry {
        attr,
        name_ttl: if changes { Duration::ZERO } else { FOREVER },
        attr_ttl: attr_ttl(node),
    }
}

fn attr_ttl(node: &Node) -> Duration {
    match node {
        Node::Group { .. } | Node::Dataset { .. } => FOREVER,
        _ => Duration::ZERO,
    }
}
