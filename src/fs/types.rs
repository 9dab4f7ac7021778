//! What the tree says of itself: plain values, as a kernel wants them.

use std::time::{Duration, SystemTime};

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
    /// Whether the kernel passes on each read and write as it is, without its page cache.
    pub direct_io: bool,
}

/// A file that was made and opened in one.
#[derive(Debug, Clone, Copy)]
pub struct Created {
    /// The file.
    pub entry: Entry,
    /// How it was opened.
    pub opened: Opened,
}

/// What `setattr` sets, of what is not accepted and forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// The new length in bytes.
    pub size_bytes: Option<u64>,
    /// The new modification time.
    pub mtime: Option<NewTime>,
}

/// A time as `utimensat(2)` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTime {
    /// `UTIME_NOW`.
    Now,
    /// Any other.
    At(SystemTime),
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
    /// Whether each chunk is held against its stored SHA-256 as it is read.
    pub verify: bool,
}
