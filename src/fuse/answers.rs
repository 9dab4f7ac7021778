//! From values of the tree to those of the kernel, and back.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, OpenAccMode, OpenFlags,
    ReplyAttr, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr, TimeOrNow,
};

use crate::fs::{Attr, Entry, FsError, HandleId, Ino, Kind, NewTime, Opened, Seek};

/// Inode numbers are never given to anything else.
pub(super) const GENERATION: Generation = Generation(0);

/// Calls `work` and gives its error as an errno. A panic is logged and becomes EIO.
pub(super) fn call<T>(what: &str, work: impl FnOnce() -> Result<T, FsError>) -> Result<T, Errno> {
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

pub(super) fn ino_of(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

pub(super) fn handle_of(handle: FileHandle) -> HandleId {
    HandleId(handle.0)
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
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
pub(super) fn open_reply_flags(opened: Opened, flags: OpenFlags) -> FopenFlags {
    let mut reply = FopenFlags::empty();
    if opened.keep_cache {
        reply |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    if opened.direct_io {
        reply |= FopenFlags::FOPEN_DIRECT_IO;
    }
    if flags.acc_mode() == OpenAccMode::O_RDONLY {
        reply |= FopenFlags::FOPEN_NOFLUSH;
    }
    reply
}

/// What `getxattr(2)` and `listxattr(2)` are answered: the length for a room of 0, the value where it fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum XattrAnswer {
    Len(u32),
    Value,
    TooSmall,
    TooBig,
}

pub(super) fn xattr_answer(len_bytes: usize, room_bytes: u32) -> XattrAnswer {
    match u32::try_from(len_bytes) {
        Err(_) => XattrAnswer::TooBig,
        Ok(len) if room_bytes == 0 => XattrAnswer::Len(len),
        Ok(len) if len > room_bytes => XattrAnswer::TooSmall,
        Ok(_) => XattrAnswer::Value,
    }
}

/// Answers what gives nothing back.
pub(super) fn reply_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

/// Answers with how many bytes were written.
pub(super) fn reply_write(reply: ReplyWrite, written: Result<u32, Errno>) {
    match written {
        Ok(count) => reply.written(count),
        Err(errno) => reply.error(errno),
    }
}

/// Answers with a name's inode.
pub(super) fn reply_entry(reply: ReplyEntry, entry: Result<Entry, Errno>) {
    match entry {
        Ok(Entry {
            attr,
            name_ttl,
            attr_ttl,
        }) => reply.entry_with_ttls(&attr_ttl, &name_ttl, &file_attr(&attr), GENERATION),
        Err(errno) => reply.error(errno),
    }
}

/// Answers with attributes and how long they hold.
pub(super) fn reply_attr(reply: ReplyAttr, attr: Result<(Attr, Duration), Errno>) {
    match attr {
        Ok((attr, ttl)) => reply.attr(&ttl, &file_attr(&attr)),
        Err(errno) => reply.error(errno),
    }
}

/// Answers with an xattr's value or its length, as the caller has room.
pub(super) fn reply_xattr(reply: ReplyXattr, room_bytes: u32, value: Result<Vec<u8>, Errno>) {
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

/// `SEEK_DATA` and `SEEK_HOLE` from `lseek(2)`; the kernel does the others itself.
pub(super) fn seek_of(offset: i64, whence: i32) -> Result<(u64, Seek), Errno> {
    let seek = match whence {
        libc::SEEK_DATA => Seek::Data,
        libc::SEEK_HOLE => Seek::Hole,
        _ => return Err(Errno::EINVAL),
    };
    let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
    Ok((offset, seek))
}

/// The modification time that `utimensat(2)` sets.
pub(super) fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::SpecificTime(time) => NewTime::At(as_set(time)),
        TimeOrNow::Now => NewTime::Now,
    }
}

/// The time that was set, of what `fuser` makes of it: before 1970 it takes the nanoseconds, which count forwards from the second, off it too.
fn as_set(time: SystemTime) -> SystemTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => time,
        Err(before) => {
            let nanoseconds = Duration::from_nanos(before.duration().subsec_nanos().into());
            time + 2 * nanoseconds
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_those_that_were_set() {
        for (seconds, nanoseconds) in [(-1, 500_000_000), (-1, 0), (-2, 1), (0, 7), (5, 1)] {
            // As `fuser` has it.
            let given = match u64::try_from(seconds) {
                Ok(seconds) => UNIX_EPOCH + Duration::new(seconds, nanoseconds),
                Err(_) => UNIX_EPOCH - Duration::new(i64::unsigned_abs(seconds), nanoseconds),
            };
            let NewTime::At(set) = new_time(TimeOrNow::SpecificTime(given)) else {
                panic!("a time was set");
            };
            let set = chrono::DateTime::<chrono::Utc>::from(set);
            assert_eq!(
                (set.timestamp(), set.timestamp_subsec_nanos()),
                (seconds, nanoseconds)
            );
        }
    }

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
            direct_io: false,
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
