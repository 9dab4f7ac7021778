//! A file as a whole, opened as a mount opens it and looked at from the root on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::{fs, process, thread};

use crate::fs::{FsError, HandleId, Ino, Kind, Seek, Vfs, VfsOptions};

/// Names that are looked at; a file of a few kilobytes can have more by linking to one group often.
const MAX_ENTRIES: usize = 400;
/// How much is read at each place of a dataset.
const PIECE_BYTES: u64 = 1 << 12;

/// A file's bytes.
pub(super) fn whole_file(bytes: &[u8]) {
    let path = place();
    // A new inode, so that nothing that was known of the file before can be taken for it.
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).expect("a temporary file");
    let options = VfsOptions {
        read_only: true,
        cache_bytes: 1 << 20,
        decode_threads: 1,
        verify: bytes.len().is_multiple_of(2),
    };
    if let Ok(vfs) = Vfs::open(&path, &options) {
        walk(&vfs);
        vfs.close();
    }
    let _ = fs::remove_file(&path);
}

fn place() -> PathBuf {
    let name = format!(
        "vh5fs-fuzz-{}-{:?}.h5",
        process::id(),
        thread::current().id()
    );
    std::env::temp_dir().join(name)
}

fn walk(vfs: &Vfs) {
    let mut pending = vec![Ino::ROOT];
    let mut seen = 0;
    while let Some(ino) = pending.pop() {
        seen += 1;
        if seen > MAX_ENTRIES {
            return;
        }
        let Ok((attr, _)) = vfs.getattr(ino) else {
            continue;
        };
        if let Ok(names) = vfs.listxattr(ino) {
            for name in names
                .split(|&byte| byte == 0)
                .filter(|name| !name.is_empty())
            {
                let _ = vfs.getxattr(ino, OsStr::from_bytes(name));
            }
        }
        match attr.kind {
            Kind::Directory => {
                let _ = list(vfs, ino, &mut pending);
            }
            Kind::Symlink => {
                let _ = vfs.readlink(ino);
            }
            Kind::File => {
                if let Ok(opened) = vfs.open_file(ino, libc::O_RDONLY) {
                    read(vfs, opened.handle, attr.size_bytes);
                    vfs.release(opened.handle);
                }
            }
        }
    }
}

fn list(vfs: &Vfs, ino: Ino, pending: &mut Vec<Ino>) -> Result<(), FsError> {
    let handle = vfs.open_directory(ino)?;
    let mut names = Vec::new();
    let listed = vfs.read_directory(handle, 0, &mut |entry| {
        names.push(entry.name.clone());
        names.len() < MAX_ENTRIES
    });
    vfs.release(handle);
    listed?;
    for name in names.iter().filter(|name| *name != b"." && *name != b"..") {
        if let Ok(entry) = vfs.lookup(ino, OsStr::from_bytes(name)) {
            pending.push(entry.attr.ino);
        }
    }
    Ok(())
}

/// The beginning, the middle and the end.
fn read(vfs: &Vfs, handle: HandleId, len_bytes: u64) {
    let mut buffer = vec![0; usize::try_from(len_bytes.min(PIECE_BYTES)).expect("a piece")];
    let last = len_bytes - buffer.len() as u64;
    for offset in [0, last / 3, last / 2 + 1, last] {
        if let Ok(count) = vfs.read_into(handle, offset.min(last), &mut buffer) {
            assert_eq!(count, buffer.len(), "a file shorter than its length");
        }
    }
    let _ = vfs.seek(handle, 0, Seek::Hole);
    let _ = vfs.seek(handle, len_bytes / 2, Seek::Data);
}
