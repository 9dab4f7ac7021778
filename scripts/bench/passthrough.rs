//! The ceiling of the kernel's path: a FUSE file system that does nothing but pass reads through.
//!
//! ```text
//! cargo build --release --locked --example passthrough
//! target/release/examples/passthrough FOLDER MOUNTPOINT &       stays in the foreground; prints `ready` once it answers
//! fusermount3 -u MOUNTPOINT                                     or SIGINT, SIGTERM
//! ```
//!
//! It shows the plain files of FOLDER as they were when it started, without its subfolders, read-only. Each read is one `pread` into a buffer and
//! one reply from it. All that decides how fast the kernel's path is, is what vh5fs has on a read-only mount: mount options, capabilities, sizes
//! of requests, reading ahead, event loops and how many of them read at a time, a page cache that is kept, answers that hold forever. The constants
//! are those of [`vh5fs::fuse`] themselves. Memory: what the kernel keeps of it, and a megabyte or so for each thread that reads.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, Request, Session, SessionUnmounter,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vh5fs::fuse::queue::Queue;
use vh5fs::fuse::session::{CHANGE_LOOPS, METADATA_LOOPS, READ_AHEAD_KIB};
use vh5fs::fuse::{CAPABILITIES, MAX_BACKGROUND};

/// As for everything in a committed version.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

const GENERATION: Generation = Generation(0);

thread_local! {
    /// What a read is answered from; as long as the longest read so far.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A file of the folder. It stays open: opening is not what is measured.
struct Served {
    name: OsString,
    file: File,
    attr: FileAttr,
}

/// A read that the kernel waits for; `index` is that of the file.
struct Read {
    index: usize,
    offset: u64,
    len_bytes: usize,
    reply: ReplyData,
}

/// The folder. The root's inode is 1, that of the file at index `i` is `i + 2`.
struct Passthrough {
    root: FileAttr,
    files: Vec<Served>,
    reads: Queue<Read>,
}

impl Passthrough {
    /// # Errors
    /// The folder or one of its files cannot be read.
    fn new(folder: &Path, max_reads: usize) -> Result<Self> {
        let mut files = Vec::new();
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            let path = entry.path();
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            let ino = INodeNo(files.len() as u64 + 2);
            let attr = attr_of(&file.metadata()?, ino, FileType::RegularFile)?;
            files.push(Served {
                name: entry.file_name(),
                file,
                attr,
            });
        }
        Ok(Self {
            root: attr_of(&fs::metadata(folder)?, INodeNo::ROOT, FileType::Directory)?,
            files,
            reads: Queue::new(max_reads),
        })
    }

    fn index_of(&self, ino: INodeNo) -> Option<usize> {
        let index = usize::try_from(ino.0.checked_sub(2)?).ok()?;
        (index < self.files.len()).then_some(index)
    }

    fn attr(&self, ino: INodeNo) -> Option<&FileAttr> {
        if ino == INodeNo::ROOT {
            return Some(&self.root);
        }
        Some(&self.files[self.index_of(ino)?].attr)
    }

    /// Name and attributes of each entry of the root from the one after `offset` on, with the offset to go on after it.
    fn entries_after(&self, offset: u64) -> impl Iterator<Item = (u64, &OsStr, &FileAttr)> {
        let own = [
            (OsStr::new("."), &self.root),
            (OsStr::new(".."), &self.root),
        ];
        let files = self
            .files
            .iter()
            .map(|served| (&*served.name, &served.attr));
        (1..)
            .zip(own.into_iter().chain(files))
            .map(|(next, (name, attr))| (next, name, attr))
            .skip_while(move |&(next, ..)| next <= offset)
    }

    fn answer_read(&self, read: Read) {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < read.len_bytes {
                buffer.resize(read.len_bytes, 0);
            }
            let buffer = &mut buffer[..read.len_bytes];
            match read_full_at(&self.files[read.index].file, buffer, read.offset) {
                Ok(count) => read.reply.data(&buffer[..count]),
                Err(error) => read.reply.error(error.into()),
            }
        });
    }
}

impl Filesystem for Passthrough {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in CAPABILITIES {
            // What this kernel does not have, vh5fs goes without as well.
            let _ = config.add_capabilities(capability);
        }
        config
            .set_max_background(MAX_BACKGROUND)
            .map_err(|nearest| {
                io::Error::other(format!("at most {nearest} requests in the background"))
            })?;
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.files.iter().find(|served| served.name == name);
        match found {
            Some(served) if parent == INodeNo::ROOT => {
                reply.entry(&FOREVER, &served.attr, GENERATION);
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&FOREVER, attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.index_of(ino) {
            Some(index) => reply.opened(
                FileHandle(index as u64),
                FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
            ),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(index) = self.index_of(ino) else {
            reply.error(Errno::EBADF);
            return;
        };
        let read = Read {
            index,
            offset,
            len_bytes: size as usize,
            reply,
        };
        self.reads.run(read, |read| self.answer_read(read));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (next, name, attr) in self.entries_after(offset) {
            if reply.add(attr.ino, next, attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        for (next, name, attr) in self.entries_after(offset) {
            if reply.add(attr.ino, next, name, &FOREVER, attr, GENERATION) {
                break;
            }
        }
        reply.ok();
    }
}

/// Reads from `offset` until `buffer` is full or the file ends; gives the bytes read.
fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// # Errors
/// A time before 1970, or a number that FUSE has no room for.
fn attr_of(metadata: &fs::Metadata, ino: INodeNo, kind: FileType) -> Result<FileAttr> {
    let mtime = UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.mtime())?);
    Ok(FileAttr {
        ino,
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind,
        perm: u16::try_from(metadata.mode() & 0o555)?,
        nlink: u32::try_from(metadata.nlink())?,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

/// Sets how far the kernel reads ahead, as vh5fs does for its own mounts, and says that the tree is usable. Looking at the mount
/// needs the loops to be running.
fn get_ready(mount_point: &Path) -> Result<()> {
    let device = fs::metadata(mount_point)?.dev();
    let setting = format!(
        "/sys/class/bdi/{}:{}/read_ahead_kb",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    // Only root may; where vh5fs goes without, so must this.
    if let Err(error) = fs::write(&setting, READ_AHEAD_KIB.to_string()) {
        eprintln!("{setting}: {error}");
    }
    println!("ready");
    Ok(io::stdout().flush()?)
}

fn unmount_on_signal(mut unmounter: SessionUnmounter) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if let Err(error) = unmounter.unmount() {
                eprintln!("cannot be unmounted: {error}");
            }
        }
    });
    Ok(())
}

fn main() -> Result<()> {
    let [folder, mount_point] = std::env::args_os()
        .skip(1)
        .map(PathBuf::from)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| anyhow::anyhow!("usage: passthrough FOLDER MOUNTPOINT"))?;
    let readers = thread::available_parallelism().map_or(1, usize::from);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        MountOption::FSName(folder.display().to_string()),
        MountOption::Subtype("passthrough".into()),
    ];
    config.n_threads = Some(readers + CHANGE_LOOPS + METADATA_LOOPS);
    config.clone_fd = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_ok();
    let files = Passthrough::new(&folder, readers)?;
    if files.files.is_empty() {
        bail!("{}: no files", folder.display());
    }
    let mut session = Session::new(files, &mount_point, &config)
        .with_context(|| format!("cannot be mounted on {}", mount_point.display()))?;
    unmount_on_signal(session.unmount_callable())?;
    let ready = thread::spawn(move || get_ready(&mount_point));
    session.run()?;
    match ready.join() {
        Ok(ready) => ready,
        Err(_) => bail!("the thread that looks at the mount panicked"),
    }
}
