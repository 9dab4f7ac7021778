//! Each request of the kernel becomes one call of [`Vfs`] and one reply. No logic, no locks, and a panic ends a request only.
//!
//! What is refused is never answered ENOSYS: the kernel remembers that and stops asking for good.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::answers::{
    GENERATION, call, file_attr, file_type, handle_of, ino_of, new_time, open_reply_flags,
    reply_attr, reply_empty, reply_entry, reply_write, reply_xattr, seek_of,
};
use super::jobs::{Change, Read, Write, answer_read, answer_write};
use super::queue::Queue;
use crate::fs::{AttrChange, Created, Vfs};

/// What is asked for where the kernel offers it. Not `FUSE_CACHE_SYMLINKS`: `current` moves. Not `FUSE_AUTO_INVAL_DATA`:
/// what changes is announced. Not `FUSE_WRITEBACK_CACHE`: a write that fails is to fail where it is made. With
/// `FUSE_HANDLE_KILLPRIV_V2` the kernel does not ask for `security.capability` before each write: no file of ours has any.
pub const CAPABILITIES: [InitFlags; 7] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_EXPORT_SUPPORT,
];

/// Reads ahead that the kernel may have under way, and from where on it holds back.
pub const MAX_BACKGROUND: u16 = 64;

/// The kernel's view of a [`Vfs`].
pub(super) struct Adapter {
    vfs: Arc<Vfs>,
    reads: Queue<Read>,
    changes: Queue<Change>,
}

impl Adapter {
    /// Shows `vfs`, with at most `max_reads` reads and `max_changes` changes under way at a time.
    pub(super) fn new(vfs: Arc<Vfs>, max_reads: usize, max_changes: usize) -> Self {
        Self {
            vfs,
            reads: Queue::new(max_reads),
            changes: Queue::new(max_changes),
        }
    }

    /// Makes a change, now or when those before it are made. `change` replies, and does not panic outside of [`call`].
    fn change(&self, change: impl FnOnce(&Vfs) + Send + 'static) {
        self.changes
            .run(Change(Box::new(change)), |Change(change)| change(&self.vfs));
    }
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
        reply_entry(
            reply,
            call("lookup", || self.vfs.lookup(ino_of(parent), name)),
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        // There is no reply; `call` has logged what there is to say.
        let _ = call("forget", || {
            self.vfs.forget(ino_of(ino), nlookup);
            Ok(())
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(reply, call("getattr", || self.vfs.getattr(ino_of(ino))));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match call("readlink", || self.vfs.readlink(ino_of(ino))) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = move |vfs: &Vfs| match call("open", || vfs.open_file(ino_of(ino), flags.0)) {
            Ok(opened) => {
                reply.opened(FileHandle(opened.handle.0), open_reply_flags(opened, flags));
            }
            Err(errno) => reply.error(errno),
        };
        if flags.0 & libc::O_TRUNC == 0 {
            open(&self.vfs);
        } else {
            self.change(open);
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
        self.reads.run(read, |read| answer_read(&self.vfs, read));
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
        fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let handle = handle_of(fh);
        if self.vfs.is_finished_by_closing(handle) {
            self.change(move |vfs| reply_empty(reply, call("flush", || vfs.flush(handle))));
        } else {
            reply.ok();
        }
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.change(move |vfs| {
            reply_empty(reply, call("fsync", || vfs.fsync(handle_of(fh))));
        });
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.change(move |vfs| {
            reply_empty(reply, call("fsyncdir", || vfs.fsync_directory(ino_of(ino))));
        });
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
        let handle = handle_of(fh);
        let release = move |vfs: &Vfs| {
            let released = call("release", || {
                vfs.release(handle);
                Ok(())
            });
            reply_empty(reply, released);
        };
        if self.vfs.is_finished_by_closing(handle) {
            self.change(release);
        } else {
            release(&self.vfs);
        }
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match call("opendir", || self.vfs.open_directory(ino_of(ino))) {
            Ok(handle) => {
                // Without these flags, the kernel forgets at opening what it kept of a listing.
                let flags = if self.vfs.lists_as_before(ino_of(ino)) {
                    FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
                } else {
                    FopenFlags::empty()
                };
                reply.opened(FileHandle(handle.0), flags);
            }
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
        let released = call("releasedir", || {
            self.vfs.release(handle_of(fh));
            Ok(())
        });
        reply_empty(reply, released);
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
        reply_empty(
            reply,
            call("access", || self.vfs.access(ino_of(ino), mask.bits())),
        );
    }

    // From here on: what changes the tree.

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = AttrChange {
            size_bytes: size,
            mtime: mtime.map(new_time),
        };
        self.change(move |vfs| {
            reply_attr(reply, call("setattr", || vfs.setattr(ino_of(ino), change)));
        });
    }

    fn mknod(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let name = name.to_owned();
        self.change(move |vfs| {
            reply_entry(
                reply,
                call("mknod", || vfs.mknod(ino_of(parent), &name, mode)),
            );
        });
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let name = name.to_owned();
        self.change(move |vfs| {
            reply_entry(reply, call("mkdir", || vfs.mkdir(ino_of(parent), &name)));
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |vfs| {
            reply_empty(reply, call("unlink", || vfs.unlink(ino_of(parent), &name)));
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |vfs| {
            reply_empty(reply, call("rmdir", || vfs.rmdir(ino_of(parent), &name)));
        });
    }

    fn symlink(
        &self,
        _req: &Request,
        parent: INodeNo,
        _link_name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply_entry(
            reply,
            call("symlink", || Err(self.vfs.no_link_in(ino_of(parent)))),
        );
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.change(move |vfs| {
            let renamed = call("rename", || {
                let (from, to) = ((ino_of(parent), &*name), (ino_of(newparent), &*newname));
                vfs.rename(from, to, flags.bits())
            });
            reply_empty(reply, renamed);
        });
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        reply_entry(
            reply,
            call("link", || Err(self.vfs.no_link_in(ino_of(newparent)))),
        );
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        self.change(move |vfs| {
            match call("create", || vfs.create(ino_of(parent), &name, flags)) {
                Ok(Created { entry, opened }) => reply.created(
                    // `fuser` takes one time for both.
                    &entry.name_ttl.min(entry.attr_ttl),
                    &file_attr(&entry.attr),
                    GENERATION,
                    FileHandle(opened.handle.0),
                    open_reply_flags(opened, OpenFlags(flags)),
                ),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // What comes from a mapping has its place, however the file was opened.
        let appends =
            flags.0 & libc::O_APPEND != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let write = Write {
            handle: handle_of(fh),
            offset,
            data,
            appends,
            reply,
        };
        self.changes.run_or_keep(
            write,
            |write| answer_write(&self.vfs, write),
            Write::kept,
            |Change(change)| change(&self.vfs),
        );
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.change(move |vfs| {
            let set = call("setxattr", || {
                vfs.setxattr(ino_of(ino), &name, &value, flags)
            });
            reply_empty(reply, set);
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |vfs| {
            reply_empty(
                reply,
                call("removexattr", || vfs.removexattr(ino_of(ino), &name)),
            );
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.change(move |vfs| {
            let done = call("fallocate", || {
                vfs.fallocate(handle_of(fh), offset, length, mode)
            });
            reply_empty(reply, done);
        });
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.change(move |vfs| {
            let copied = call("copy_file_range", || {
                let from = (handle_of(fh_in), offset_in);
                vfs.copy_range(from, (handle_of(fh_out), offset_out), len)
            });
            reply_write(reply, copied);
        });
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
