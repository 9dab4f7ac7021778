//! What a tree holds, looked at as the daemon does, without a mount.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use vh5fs::fs::{FsError, Ino, Kind, Vfs, VfsOptions};

/// Opens a file as a mount does.
pub fn open(file: &Path, read_only: bool) -> Result<Vfs, FsError> {
    let options = VfsOptions {
        read_only,
        cache_bytes: 1 << 20,
        decode_threads: 1,
        verify: false,
    };
    Vfs::open(file, &options)
}

/// Every dataset below `staging`, `versions`, or another entry of the root, and its bytes.
pub fn datasets(vfs: &Vfs, name: &str) -> BTreeMap<String, Vec<u8>> {
    let root = vfs.lookup(Ino::ROOT, OsStr::new(name)).unwrap();
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), root.attr.ino)];
    while let Some((path, folder)) = open.pop() {
        let handle = vfs.open_directory(folder).unwrap();
        let mut names = Vec::new();
        vfs.read_directory(handle, 0, &mut |entry| {
            names.push(String::from_utf8(entry.name.clone()).unwrap());
            true
        })
        .unwrap();
        vfs.release(handle);
        for name in names.into_iter().filter(|name| name != "." && name != "..") {
            let entry = vfs.lookup(folder, OsStr::new(&name)).unwrap();
            let path = format!("{path}{name}");
            if entry.attr.kind == Kind::Directory {
                open.push((format!("{path}/"), entry.attr.ino));
            } else {
                found.insert(path, read(vfs, entry.attr.ino));
            }
        }
    }
    found
}

fn read(vfs: &Vfs, ino: Ino) -> Vec<u8> {
    let handle = vfs.open_file(ino, libc::O_RDONLY).unwrap().handle;
    let mut bytes = vec![0; 1 << 17];
    let count = vfs.read_into(handle, 0, &mut bytes).unwrap();
    vfs.release(handle);
    bytes.truncate(count);
    bytes
}

/// What `staging/.status` says.
pub fn status(vfs: &Vfs) -> String {
    let staging = vfs.lookup(Ino::ROOT, OsStr::new("staging")).unwrap();
    let entry = vfs.lookup(staging.attr.ino, OsStr::new(".status")).unwrap();
    String::from_utf8(read(vfs, entry.attr.ino)).unwrap()
}
