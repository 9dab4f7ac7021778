//! Each request of the kernel becomes one call of [`Vfs`] and one reply. No logic, no locks, and a panic ends a request only.
//!
//! What would change the tree is answered EROFS, never ENOSYS: the kernel remembers ENOSYS and stops asking for good.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenAccMode, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::reads::ReadQueue;
use crate::fs::{Attr, Entry, FsError, HandleId, Ino, Kind, Opened, Seek, Vfs};

/// What is asked for where the kernel offers it. Not `FUSE_CACHE_SYMLINKS`: `current` moves. Not `FUSE_AUTO_INVAL_DATA`:
/// what changes is announced.
const CAPABILITIES: [InitFlags; 5] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_EXPORT_SUPPORT,
];

/// Reads ahead that the kernel may have under way, and from where on it holds back.
const MAX_BACKGROUND: u16 = 64;

/// Inode numbers are never given to anything else.
const GENERATION: Generation = Generation(0);

thread_local! {
    /// What a read is answered from; as long as the longest read so far, a megabyte or so.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The kernel's view of a [`Vfs`].
#[derive(Debug)]
pub(super) struct Adapter {
    vfs: Arc<Vfs>,
    reads: ReadQueue<Read>,
}

/// A read that the kernel waits for.
#[derive(Debug)]
struct Read {
    handle: HandleId,
    offset: u64,
    len_bytes: usize,
    reply: ReplyData,
}

impl Adapter {
    /// Shows `vfs`, with at most `max_reads` reads under way at a time.
    pub(super) fn new(vfs: Arc<Vfs>, max_reads: usize) -> Self {
        Self {
            vfs,
            reads: ReadQueue::new(max_reads),
        }
    }

    fn answer_read(&self, read: Read) {
        let Read {
            handle,
            offset,
            len_bytes,
            reply,
        } = read;
        BUFFER.with_borrow_mut(|buffer| {
            // Never shrunk, so that a buffer is zeroed once and not for each read.
            if buffer.len() < len_bytes {
                buffer.resize(len_bytes, 0);
            }
            let buffer = &mut buffer[..len_bytes];
            match call("read", || self.vfs.read_into(handle, offset, buffer)) {
                Ok(count) => reply.data(&buffer[..count]),
                Err(errno) => reply.error(errno),
            }
        });
    }
}

/// Calls `work` and gives its error as an errno. A panic is logged and becomes EIO.
fn call<T>(what: &str, work: impl FnOnce() -> Result<T, FsError>) -> Result<T, Errno> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            log::log!(error.log_level(), "{what}: {error}");
            Err(Errno::from_i32(error.errno()))
        }
        Err(panic) => {
            log::error!(
                "{what}: a bug in vh5fs, answered with EIO: {}",
                panic_message(panic.as_ref())
            );
            Err(Errno::EIO)
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

fn ino_of(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

fn handle_of(handle: FileHandle) -> HandleId {
    HandleId(handle.0)
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
    }
}

fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size_bytes,
        blocks: attr.blocks,
        atime: attr.mtime,
        mtime: attr.mtime,
        ctime: attr.mtime,
        crtime: attr.mtime,
        kind: file_type(attr.kind),
        perm: attr.permissions,
        nlink: attr.link_count,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// How a file is opened: its page cache kept where [`Vfs`] says so, and no `flush` for one that nobody can write to.
fn open_reply_flags(opened: Opened, flags: OpenFlags) -> FopenFlags {
    let mut reply = FopenFlags::empty();
    if opened.keep_cache {
        reply |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    if flags.acc_mode() == OpenAccMode::O_RDONLY {
        reply |= FopenFlags::FOPEN_NOFLUSH;
    }
    reply
}

/// What `getxattr(2)` and `listxattr(2)` are answered: the length for a room of 0, the value where it fits.
#[derive(Debug, PartialEq, Eq)]
enum XattrAnswer {
    Len(u32),
    Value,
    TooSmall,
    TooBig,
}

fn xattr_answer(len_bytes: usize, room_bytes: u32) -> XattrAnswer {
    match u32::try_from(len_bytes) {
        Err(_) => XattrAnswer::TooBig,
        Ok(len) if room_bytes == 0 => XattrAnswer::Len(len),
        Ok(len) if len > room_bytes => XattrAnswer::TooSmall,
        Ok(_) => XattrAnswer::Value,
    }
}

fn reply_xattr(reply: ReplyXattr, room_bytes: u32, value: Result<Vec<u8>, Errno>) {
    match value {
        Err(errno) => reply.error(errno),
        Ok(value) => match xattr_answer(value.len(), room_bytes) {
            XattrAnswer::Len(len) => reply.size(len),
            XattrAnswer::Value => reply.data(&value),
            XattrAnswer::TooSmall => reply.error(Errno::ERANGE),
            XattrAnswer::TooBig => reply.error(Errno::from_i32(libc::E2BIG)),
        },
    }
}

/// `access(2)` of a file system that is not written to. The kernel asks only where it does not check permissions itself.
fn access_errno(attr: &Attr, mask: AccessFlags) -> Result<(), Errno> {
    if mask.contains(AccessFlags::W_OK) {
        return Err(Errno::EROFS);
    }
    if mask.contains(AccessFlags::X_OK) && attr.kind == Kind::File && attr.permissions & 0o111 == 0
    {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// `SEEK_DATA` and `SEEK_HOLE` from `lseek(2)`; the kernel does the others itself.
fn seek_of(offset: i64, whence: i32) -> Result<(u64, Seek), Errno> {
    let seek = match whence {
        libc::SEEK_DATA => Seek::Data,
        libc::SEEK_HOLE => Seek::Hole,
        _ => return Err(Errno::EINVAL),
    };
    let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
    Ok((offset, seek))
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for capability in CAPABILITIES {
            if config.add_capabilities(capability).is_err() {
                log::debug!("this kernel does not have {capability:?}");
            }
        }
        // The largest write, which is `fuser`'s default, is also what the size of a read is derived from: it stays.
        if config.set_max_background(MAX_BACKGROUND).is_err() {
            log::debug!("{MAX_BACKGROUND} requests in the background were refused");
        }
        Ok(())
    }

    fn destroy(&mut self) {
        log::debug!("the kernel has closed the session");
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match call("lookup", || self.vfs.lookup(ino_of(parent), name)) {
            Ok(Entry {
                attr,
                name_ttl,
                attr_ttl,
            }) => reply.entry_with_ttls(&attr_ttl, &name_ttl, &file_attr(&attr), GENERATION),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        // There is no reply; `call` has logged what there is to say.
        let _ = call("forget", || {
            self.vfs.forget(ino_of(ino), nlookup);
            Ok(())
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match call("getattr", || self.vfs.getattr(ino_of(ino))) {
            Ok((attr, ttl)) => reply.attr(&ttl, &file_attr(&attr)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match call("readlink", || self.vfs.readlink(ino_of(ino))) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match call("open", || self.vfs.open_file(ino_of(ino), flags.0)) {
            Ok(opened) => {
                reply.opened(FileHandle(opened.handle.0), open_reply_flags(opened, flags));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = Read {
            handle: handle_of(fh),
            offset,
            len_bytes: size as usize,
            reply,
        };
        self.reads.run(read, |read| self.answer_read(read));
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = seek_of(offset, whence)
            .and_then(|(offset, seek)| call("lseek", || self.vfs.seek(handle_of(fh), offset, seek)))
            .and_then(|found| i64::try_from(found).map_err(|_| Errno::EOVERFLOW));
        match found {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        match call("release", || {
            self.vfs.release(handle_of(fh));
            Ok(())
        }) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match call("opendir", || self.vfs.open_directory(ino_of(ino))) {
            Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let filled = call("readdir", || {
            self.vfs
                .read_directory(handle_of(fh), offset, &mut |entry| {
                    let name = OsStr::from_bytes(&entry.name);
                    !reply.add(
                        INodeNo(entry.ino.0),
                        entry.offset,
                        file_type(entry.kind),
                        name,
                    )
                })
        });
        match filled {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let filled = call("readdirplus", || {
            self.vfs
                .read_directory_plus(handle_of(fh), offset, &mut |name, entry| {
                    // `fuser` takes one time for both.
                    let ttl = entry.name_ttl.min(entry.attr_ttl);
                    !reply.add(
                        INodeNo(name.ino.0),
                        name.offset,
                        OsStr::from_bytes(&name.name),
                        &ttl,
                        &file_attr(&entry.attr),
                        GENERATION,
                    )
                })
        });
        match filled {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        match call("releasedir", || {
            self.vfs.release(handle_of(fh));
            Ok(())
        }) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match call("statfs", || self.vfs.statfs()) {
            Ok(stat) => reply.statfs(
                stat.blocks,
                stat.blocks_free,
                stat.blocks_available,
                stat.files,
                stat.files_free,
                stat.block_bytes,
                stat.name_max,
                stat.fragment_bytes,
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(
            reply,
            size,
            call("getxattr", || self.vfs.getxattr(ino_of(ino), name)),
        );
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(
            reply,
            size,
            call("listxattr", || self.vfs.listxattr(ino_of(ino))),
        );
    }

    fn access(&self, _req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let allowed = call("access", || self.vfs.getattr(ino_of(ino)))
            .and_then(|(attr, _)| access_errno(&attr, mask));
        match allowed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    // From here on: what would change the tree.

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _link_name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _newparent: INodeNo,
        _newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    // From here on: what is left to the kernel, which does it by itself once it has been told ENOSYS.

    fn getlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn setlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn attr(kind: Kind, permissions: u16) -> Attr {
        Attr {
            ino: Ino(7),
            kind,
            size_bytes: 80,
            blocks: 1,
            mtime: SystemTime::UNIX_EPOCH + Duration::new(1_593_475_101, 116_470_000),
            permissions,
            link_count: 3,
            uid: 1000,
            gid: 100,
        }
    }

    #[test]
    fn a_panic_is_an_io_error() {
        let answer: Result<(), Errno> = call("test", || panic!("of {}", "course"));
        assert_eq!(answer, Err(Errno::EIO));
        assert_eq!(call("test", || Ok(5)), Ok(5));
        let answer: Result<(), Errno> = call("test", || Err(FsError::AttributeTooBig));
        assert_eq!(answer.map_err(Errno::code), Err(libc::E2BIG));
    }

    #[test]
    fn an_xattr_is_sized_first_and_must_fit() {
        assert_eq!(xattr_answer(5, 0), XattrAnswer::Len(5));
        assert_eq!(xattr_answer(0, 0), XattrAnswer::Len(0));
        assert_eq!(xattr_answer(5, 5), XattrAnswer::Value);
        assert_eq!(xattr_answer(5, 4), XattrAnswer::TooSmall);
        assert_eq!(xattr_answer(1 << 32, 0), XattrAnswer::TooBig);
    }

    #[test]
    fn access_says_read_only() {
        let file = attr(Kind::File, 0o444);
        let directory = attr(Kind::Directory, 0o555);
        assert_eq!(access_errno(&file, AccessFlags::F_OK), Ok(()));
        assert_eq!(access_errno(&file, AccessFlags::R_OK), Ok(()));
        assert_eq!(access_errno(&file, AccessFlags::X_OK), Err(Errno::EACCES));
        assert_eq!(
            access_errno(&file, AccessFlags::R_OK | AccessFlags::W_OK),
            Err(Errno::EROFS)
        );
        assert_eq!(access_errno(&directory, AccessFlags::X_OK), Ok(()));
        assert_eq!(
            access_errno(&directory, AccessFlags::W_OK),
            Err(Errno::EROFS)
        );
    }

    #[test]
    fn only_data_and_hole_are_sought() {
        assert_eq!(seek_of(9, libc::SEEK_DATA), Ok((9, Seek::Data)));
        assert_eq!(seek_of(9, libc::SEEK_HOLE), Ok((9, Seek::Hole)));
        assert_eq!(seek_of(-1, libc::SEEK_HOLE), Err(Errno::ENXIO));
        assert_eq!(seek_of(9, libc::SEEK_END), Err(Errno::EINVAL));
    }

    #[test]
    fn attributes_keep_every_field() {
        let attr = attr(Kind::File, 0o444);
        let file = file_attr(&attr);
        assert_eq!((file.ino.0, file.size, file.blocks), (7, 80, 1));
        assert_eq!(
            (file.mtime, file.ctime, file.atime),
            (attr.mtime, attr.mtime, attr.mtime)
        );
        assert_eq!(
            (file.perm, file.nlink, file.uid, file.gid),
            (0o444, 3, 1000, 100)
        );
        assert_eq!(file.kind, FileType::RegularFile);
    }

    #[test]
    fn a_reader_keeps_the_cache_and_is_never_flushed() {
        let opened = Opened {
            handle: HandleId(1),
            keep_cache: true,
        };
        let read = open_reply_flags(opened, OpenFlags(libc::O_RDONLY));
        assert_eq!(
            read,
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
        );
        let opened = Opened {
            keep_cache: false,
            ..opened
        };
        assert_eq!(
            open_reply_flags(opened, OpenFlags(libc::O_RDWR)),
            FopenFlags::empty()
        );
    }
}
