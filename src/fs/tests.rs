//! What the kernel asks for only when two of its users come at once, or never: it has checked before.

use std::ffi::OsStr;

use tempfile::TempDir;

use super::*;
use crate::h5::writer::create_versioned_file;

const WRITE: i32 = libc::O_RDWR;

/// A new versioned file without versions, and its tree.
fn empty() -> (TempDir, Vfs) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    create_versioned_file(&path).unwrap();
    let options = VfsOptions {
        read_only: false,
        cache_bytes: 1 << 20,
        decode_threads: 1,
        verify: false,
    };
    let vfs = Vfs::open(&path, &options).unwrap();
    (folder, vfs)
}

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn staging(vfs: &Vfs) -> Ino {
    vfs.lookup(Ino::ROOT, name("staging")).unwrap().attr.ino
}

fn read(vfs: &Vfs, handle: HandleId) -> Vec<u8> {
    let mut buffer = vec![0; 100];
    let count = vfs.read_into(handle, 0, &mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

#[test]
fn a_file_that_was_made_meanwhile_is_opened() {
    let (_folder, vfs) = empty();
    let staging = staging(&vfs);
    let first = vfs.create(staging, name("x"), WRITE).unwrap();
    assert_eq!(vfs.write(first.opened.handle, 0, b"abc", false).unwrap(), 3);
    let second = vfs.create(staging, name("x"), WRITE).unwrap();
    assert_eq!(first.entry.attr.ino, second.entry.attr.ino);
    assert_eq!(read(&vfs, second.opened.handle), b"abc");
    let third = vfs.create(staging, name("x"), WRITE | libc::O_TRUNC);
    assert_eq!(third.unwrap().entry.attr.ino, first.entry.attr.ino);
    assert_eq!(read(&vfs, second.opened.handle), b"");
    let exclusive = vfs.create(staging, name("x"), WRITE | libc::O_EXCL);
    assert!(matches!(exclusive, Err(FsError::Exists)));
    let exclusive = vfs.create(staging, name(".commit"), WRITE | libc::O_EXCL);
    assert!(matches!(exclusive, Err(FsError::Exists)));
    assert!(vfs.create(staging, name(".commit"), WRITE).is_ok());
}

#[test]
fn an_appender_writes_behind_what_it_has_not_seen() {
    let (_folder, vfs) = empty();
    let staging = staging(&vfs);
    let open = vfs.create(staging, name("x"), WRITE | libc::O_APPEND);
    let handle = open.unwrap().opened.handle;
    vfs.write(handle, 0, b"abc", true).unwrap();
    vfs.write(handle, 1, b"d", true).unwrap();
    vfs.write(handle, 4, b"e", true).unwrap();
    vfs.write(handle, 0, b"A", false).unwrap();
    assert_eq!(read(&vfs, handle), b"Abcde");
}

#[test]
fn what_is_not_open_for_it_is_not_written_to() {
    let (_folder, vfs) = empty();
    let unknown = HandleId(99);
    assert!(matches!(
        vfs.write(unknown, 0, b"x", false),
        Err(FsError::BadHandle)
    ));
    let directory = vfs.open_directory(staging(&vfs)).unwrap();
    assert!(matches!(
        vfs.write(directory, 0, b"x", false),
        Err(FsError::IsADirectory)
    ));
    assert!(matches!(
        vfs.fallocate(directory, 0, 1, 0),
        Err(FsError::BadHandle)
    ));
    vfs.release(directory);
    assert!(matches!(
        vfs.write(directory, 0, b"x", false),
        Err(FsError::BadHandle)
    ));
}

#[test]
fn a_number_stays_with_its_file_and_goes_to_no_other() {
    let (_folder, vfs) = empty();
    let staging = staging(&vfs);
    let ino = |path: &str| vfs.lookup(staging, name(path)).unwrap().attr.ino;
    let first = vfs.mknod(staging, name("x"), 0).unwrap().attr.ino;
    vfs.rename((staging, name("x")), (staging, name("y")), 0)
        .unwrap();
    assert_eq!(ino("y"), first);
    vfs.unlink(staging, name("y")).unwrap();
    let second = vfs.mknod(staging, name("y"), libc::S_IFREG).unwrap();
    assert_ne!(second.attr.ino, first);
    assert!(matches!(
        vfs.lookup(staging, name("x")),
        Err(FsError::NotFound)
    ));
    let group = vfs.mkdir(staging, name("group")).unwrap().attr.ino;
    assert_eq!(vfs.lookup(group, name("..")).unwrap().attr.ino, staging);
    assert_eq!(vfs.lookup(staging, name("..")).unwrap().attr.ino, Ino::ROOT);
}

#[test]
fn control_files_take_nobodys_place() {
    let (_folder, vfs) = empty();
    let staging = staging(&vfs);
    vfs.mknod(staging, name("x"), 0).unwrap();
    let rename = |to: &str, flags| vfs.rename((staging, name("x")), (staging, name(to)), flags);
    assert!(matches!(rename(".reset", 0), Err(FsError::NotPermitted)));
    assert!(matches!(
        rename(".reset", libc::RENAME_EXCHANGE),
        Err(FsError::NotPermitted)
    ));
    assert!(matches!(
        rename(".reset", libc::RENAME_NOREPLACE),
        Err(FsError::Exists)
    ));
    assert!(matches!(
        vfs.mknod(staging, name(".reset"), 0),
        Err(FsError::Exists)
    ));
    assert!(matches!(
        vfs.mkdir(staging, name(".status")),
        Err(FsError::Exists)
    ));
}

#[test]
fn a_directory_is_listed_anew_from_its_beginning() {
    let (_folder, vfs) = empty();
    let staging = staging(&vfs);
    let handle = vfs.open_directory(staging).unwrap();
    let names = |offset| {
        let mut names = Vec::new();
        let mut each = |entry: &DirEntry| {
            names.push(String::from_utf8(entry.name.clone()).unwrap());
            true
        };
        vfs.read_directory(handle, offset, &mut each).unwrap();
        names
    };
    assert_eq!(names(0), [".", ".."]);
    vfs.mkdir(staging, name("new")).unwrap();
    assert!(names(2).is_empty());
    assert_eq!(names(0), [".", "..", "new"]);
    assert_eq!(names(2), ["new"]);
}

#[test]
fn a_name_that_nothing_can_have_is_too_long() {
    let (_folder, vfs) = empty();
    let longest = "n".repeat(255);
    let longer = "n".repeat(256);
    for parent in [Ino::ROOT, staging(&vfs)] {
        let found = |name: &str| vfs.lookup(parent, OsStr::new(name)).map_err(|e| e.errno());
        assert_eq!(found(&longest).unwrap_err(), libc::ENOENT);
        assert_eq!(found(&longer).unwrap_err(), libc::ENAMETOOLONG);
    }
}

#[test]
fn what_was_forgotten_is_found_by_its_number_alone() {
    let (_folder, vfs) = empty();
    let look_up = |parent: Ino, child: &str| vfs.lookup(parent, name(child)).unwrap().attr.ino;
    let staging = staging(&vfs);
    let staged = vfs.create(staging, name("x"), WRITE).unwrap();
    vfs.write(staged.opened.handle, 0, b"abc", false).unwrap();
    let commit = vfs.create(staging, name(".commit"), WRITE).unwrap();
    vfs.write(commit.opened.handle, 0, b"r1\n", false).unwrap();

    let versions = look_up(Ino::ROOT, "versions");
    let version = look_up(versions, "r1");
    let (npy, meta) = (look_up(Ino::ROOT, "npy"), look_up(Ino::ROOT, "meta"));
    let npy_version = look_up(look_up(npy, "versions"), "r1");
    let meta_version = look_up(look_up(meta, "versions"), "r1");
    let all = [
        (versions, 1),
        (version, 1),
        (look_up(version, "x"), 1),
        (npy_version, 1),
        (look_up(npy_version, "x.npy"), 1),
        (look_up(meta_version, "x.json"), 1),
        (look_up(meta_version, ".json"), 1),
        (look_up(npy, "current"), 1),
        (look_up(staging, "x"), 2),
    ];
    for (ino, lookups) in all {
        let known = vfs.getattr(ino).unwrap().0;
        vfs.forget(ino, lookups);
        assert!(matches!(vfs.getattr(ino), Err(FsError::Stale)), "{ino:?}");
        assert_eq!(vfs.lookup(ino, name(".")).unwrap().attr, known);
        assert_eq!(vfs.getattr(ino).unwrap().0, known);
    }
    let nothing = Ino(all.iter().map(|(ino, _)| ino.0).max().unwrap() + 1);
    assert!(matches!(
        vfs.lookup(nothing, name(".")),
        Err(FsError::Stale)
    ));
    assert!(matches!(
        vfs.lookup(nothing, name("x")),
        Err(FsError::Stale)
    ));
}
