//! The tree that users see, as plain methods on [`Vfs`] that tests call without a mount.

mod error;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use error::FsError;

/// The number of an inode. 1 is the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The mount point.
    pub const ROOT: Self = Self(1);
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// What `stat` says of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Bytes really stored, in units of 512.
    pub blocks: u64,
    /// Last change of content and of inode.
    pub mtime: SystemTime,
    /// Permission bits.
    pub permissions: u16,
    /// Number of names.
    pub link_count: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// An inode and how long the kernel may believe what it was told.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The inode.
    pub attr: Attr,
    /// How long the name stands for this inode.
    pub name_ttl: Duration,
    /// How long the attributes hold.
    pub attr_ttl: Duration,
}

/// A number for an open file or directory, given out by `open` and `opendir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// An opened file.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// To read it by.
    pub handle: HandleId,
    /// Whether what the kernel has in its page cache for the inode still holds.
    pub keep_cache: bool,
}

/// One name of a directory. `offset` is what the kernel hands back to go on behind it.
#[derive(Debug, Clone)]
pub struct DirEntry {
    /// Where to go on.
    pub offset: u64,
    /// The name's bytes.
    pub name: Vec<u8>,
    /// The inode's number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
}

/// What `statfs` says, from the file system that holds the file.
#[derive(Debug, Clone, Copy)]
pub struct FsStat {
    /// Blocks of `fragment_bytes`.
    pub blocks: u64,
    /// Free ones.
    pub blocks_free: u64,
    /// Free ones for users.
    pub blocks_available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Preferred block size.
    pub block_bytes: u32,
    /// Unit of the block counts.
    pub fragment_bytes: u32,
    /// Longest name in bytes.
    pub name_max: u32,
}

/// Where `lseek` is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

/// What the kernel has to forget, since the file was changed by another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stale {
    /// The name `name` in the directory `parent`.
    Name {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// Attributes of an inode.
    Attributes(Ino),
    /// Attributes and cached pages of an inode.
    Content(Ino),
}

/// Choices of the one who mounts.
#[derive(Debug, Clone)]
pub struct VfsOptions {
    /// No `staging/`; the file is never opened for writing.
    pub read_only: bool,
    /// How many bytes of decoded chunks to keep.
    pub cache_bytes: u64,
    /// How many threads decode.
    pub decode_threads: usize,
}

/// A mounted file.
#[derive(Debug)]
pub struct Vfs {}

impl Vfs {
    /// Opens the file `path` and reads its history.
    ///
    /// # Errors
    /// Whatever keeps it from being mounted, as one line for people that names the file and says what to do.
    pub fn open(_path: &Path, _options: &VfsOptions) -> Result<Self, FsError> {
        Ok(Self {})
    }

    /// Calls `sink` whenever the kernel has to forget something. `sink` must not wait for the kernel.
    pub fn on_stale(&self, _sink: Box<dyn Fn(Vec<Stale>) + Send + Sync>) {}

    /// Finds `name` in the directory `parent` and counts one more lookup of its inode.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NotADirectory`], or what is wrong with the file.
    pub fn lookup(&self, _parent: Ino, _name: &OsStr) -> Result<Entry, FsError> {
        Err(FsError::NotFound)
    }

    /// The kernel drops `count` lookups of `ino`.
    pub fn forget(&self, _ino: Ino, _count: u64) {}

    /// Attributes and how long they hold.
    ///
    /// # Errors
    /// [`FsError::Stale`] for an inode that is no longer there, or what is wrong with the file.
    pub fn getattr(&self, _ino: Ino) -> Result<(Attr, Duration), FsError> {
        Err(FsError::NotFound)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// As for [`Vfs::getattr`].
    pub fn readlink(&self, _ino: Ino) -> Result<Vec<u8>, FsError> {
        Err(FsError::NotFound)
    }

    /// Opens a file with the flags of `open(2)`.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`] for any flag that would write, [`FsError::IsADirectory`], or what is wrong with the file.
    pub fn open_file(&self, _ino: Ino, _flags: i32) -> Result<Opened, FsError> {
        Err(FsError::NotFound)
    }

    /// Up to `len` bytes from `offset` on; fewer only at the end.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(&self, _handle: HandleId, _offset: u64, _len: usize) -> Result<Arc<[u8]>, FsError> {
        Err(FsError::NotFound)
    }

    /// `SEEK_DATA` and `SEEK_HOLE`.
    ///
    /// # Errors
    /// [`FsError::NoSuchOffset`] beyond the end, or what is wrong with the file.
    pub fn seek(&self, _handle: HandleId, _offset: u64, _seek: Seek) -> Result<u64, FsError> {
        Err(FsError::NotFound)
    }

    /// Closes a file or directory.
    pub fn release(&self, _handle: HandleId) {}

    /// Opens a directory; its listing stays as it is until it is closed.
    ///
    /// # Errors
    /// As for [`Vfs::getattr`].
    pub fn open_directory(&self, _ino: Ino) -> Result<HandleId, FsError> {
        Err(FsError::NotFound)
    }

    /// The names behind `offset` (0 at the start), `.` and `..` first, until `each` returns false for "full".
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read_directory(
        &self,
        _handle: HandleId,
        _offset: u64,
        _each: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<(), FsError> {
        Ok(())
    }

    /// The same with attributes. Each entry for which `each` returns true counts as looked up, except `.` and `..`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read_directory_plus(
        &self,
        _handle: HandleId,
        _offset: u64,
        _each: &mut dyn FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<(), FsError> {
        Ok(())
    }

    /// Value of one extended attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`], [`FsError::AttributeTooBig`], [`FsError::NotSupported`] for another namespace, or what is
    /// wrong with the file.
    pub fn getxattr(&self, _ino: Ino, _name: &OsStr) -> Result<Vec<u8>, FsError> {
        Err(FsError::NoAttribute)
    }

    /// Names of all extended attributes, each followed by a NUL.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn listxattr(&self, _ino: Ino) -> Result<Vec<u8>, FsError> {
        Ok(Vec::new())
    }

    /// Room on the file system that holds the file.
    ///
    /// # Errors
    /// What `statvfs(3)` says.
    pub fn statfs(&self) -> Result<FsStat, FsError> {
        Err(FsError::NotFound)
    }
}
