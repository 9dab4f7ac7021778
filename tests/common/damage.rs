//! Damaged copies of small versioned files, and what a walk over everything in them finds.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, process, thread};

use serde_json::Value;
use tempfile::TempDir;
use vh5fs::fs::{FsError, Ino, Kind, Seek, Vfs, VfsOptions};

/// More entries than any of the files has, however it is damaged.
const MAX_ENTRIES: usize = 20_000;
/// How much of a file is read from its beginning; a damaged one may claim to be of any length.
const MAX_HEAD_BYTES: u64 = 1 << 20;
/// How much of a longer file is read from its end.
const TAIL_BYTES: u64 = 1 << 12;

/// What can be changed in a file without notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard<'a> {
    /// Nothing: a checksum covers it.
    Checksum,
    /// The bytes of this dataset.
    Dataset(&'a str),
    /// Texts that nothing guards.
    Heap,
    /// Anything.
    Open,
}

/// A sound file and what is known of its bytes.
#[derive(Debug)]
pub struct Sound {
    pub name: String,
    pub bytes: Vec<u8>,
    facts: Value,
}

impl Sound {
    /// Makes them all.
    pub fn make_all() -> Vec<Self> {
        let folder = tempfile::tempdir().unwrap();
        Self::write_all(folder.path());
        Self::load_all(folder.path())
    }

    /// Makes them in a folder.
    pub fn write_all(folder: &Path) {
        super::common::run_python(include_str!("make_damage.py"), &[&folder]);
    }

    /// Those that are in a folder.
    pub fn load_all(folder: &Path) -> Vec<Self> {
        let mut files: Vec<Self> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension() == Some(OsStr::new("h5")))
            .map(|path| Self {
                name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                bytes: fs::read(&path).unwrap(),
                facts: serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap())
                    .unwrap(),
            })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files
    }

    /// What guards the byte at `at`.
    pub fn guard(&self, at: usize) -> Guard<'_> {
        let covers = |range: &Value| {
            let end = |i: usize| usize::try_from(range[i].as_u64().unwrap()).unwrap();
            (end(0)..end(1)).contains(&at)
        };
        let find = |name: &str| {
            let mut ranges = self.facts[name].as_array().unwrap().iter();
            ranges.find(|range| covers(range))
        };
        if find("protected").is_some() {
            return Guard::Checksum;
        }
        match find("open") {
            Some(range) => range[2].as_str().map_or(Guard::Heap, Guard::Dataset),
            None if self.facts["checksummed"].as_bool().unwrap() => Guard::Checksum,
            None => Guard::Open,
        }
    }
}

/// xorshift64: the same numbers in each run.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 8).unwrap() % end
    }
}

/// A place for one damaged file after the other.
#[derive(Debug)]
pub struct Bench {
    folder: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The file with these bytes. It looks as if it had not been written to for long.
    pub fn put(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("damaged.h5");
        // A new inode, so that no state of the file before can be taken for it.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000))
            .unwrap();
        path
    }

    /// Removes what a mount staged over the file.
    pub fn forget_staged(&self) {
        let _ = fs::remove_dir_all(self.folder.path().join(".damaged.h5.vh5fs"));
    }
}

/// Memory of this process.
pub fn resident_bytes() -> u64 {
    status_kib("VmRSS:") * 1024
}

fn status_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let size = lines.find_map(|line| line.strip_prefix(field)).unwrap();
    size.split_whitespace().next().unwrap().parse().unwrap()
}

/// Ends the process, with the name of the case, when a case takes too long.
#[derive(Debug, Clone)]
pub struct Watchdog(Arc<Mutex<Option<(String, Instant)>>>);

impl Watchdog {
    pub fn new(limit: Duration) -> Self {
        let case: Arc<Mutex<Option<(String, Instant)>>> = Arc::default();
        let watched = Arc::downgrade(&case);
        thread::spawn(move || {
            while let Some(case) = watched.upgrade() {
                if let Some((name, start)) = &*case.lock().unwrap()
                    && start.elapsed() > limit
                {
                    eprintln!("{name}: hangs");
                    process::abort();
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self(case)
    }

    /// The next case begins.
    pub fn begin(&self, name: impl Into<String>) {
        *self.0.lock().unwrap() = Some((name.into(), Instant::now()));
    }

    /// There is nothing to watch.
    pub fn rest(&self) {
        *self.0.lock().unwrap() = None;
    }
}

/// Bytes of address space that this process may still take.
pub fn limit_memory(further_bytes: u64) {
    let limit = rustix::process::Rlimit {
        current: Some(status_kib("VmSize:") * 1024 + further_bytes),
        maximum: None,
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
}

/// What there is under a name. An error is its errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Error(i32),
    Directory {
        /// Whether it could be listed.
        listed: Result<(), i32>,
        xattrs: BTreeMap<Vec<u8>, Result<Vec<u8>, i32>>,
    },
    Link(Result<OsString, i32>),
    File {
        len_bytes: u64,
        /// The beginning, and the end of what is long.
        content: Result<Vec<u8>, i32>,
        /// Beginnings of data and holes.
        holes: Result<Vec<u64>, i32>,
        xattrs: BTreeMap<Vec<u8>, Result<Vec<u8>, i32>>,
    },
}

/// Everything in a tree, by path.
pub type Tree = BTreeMap<OsString, Found>;

/// Paths that were listed, with what was found under their names.
type Pending = Vec<(OsString, Result<Ino, i32>)>;

/// Opens a file as a mount does that is read-only.
pub fn open(path: &Path) -> Result<Vfs, FsError> {
    open_as(path, true, false)
}

/// Opens a file as a mount does.
pub fn open_as(path: &Path, read_only: bool, verify: bool) -> Result<Vfs, FsError> {
    Vfs::open(
        path,
        &VfsOptions {
            read_only,
            cache_bytes: 1 << 20,
            decode_threads: 2,
            verify,
        },
    )
}

/// Looks at everything below the root.
pub fn walk(vfs: &Vfs) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![(OsString::new(), Ok(Ino::ROOT))];
    while let Some((path, ino)) = pending.pop() {
        let found = match ino {
            Ok(ino) => look_at(vfs, ino, &path, &mut pending),
            Err(errno) => Found::Error(errno),
        };
        tree.insert(path, found);
        assert!(tree.len() < MAX_ENTRIES, "a tree without end");
    }
    tree
}

fn look_at(vfs: &Vfs, ino: Ino, path: &OsStr, pending: &mut Pending) -> Found {
    let attr = match vfs.getattr(ino) {
        Ok((attr, _)) => attr,
        Err(error) => return Found::Error(error.errno()),
    };
    match attr.kind {
        Kind::Directory => Found::Directory {
            listed: list(vfs, ino, path, pending),
            xattrs: xattrs(vfs, ino),
        },
        Kind::Symlink => Found::Link(
            vfs.readlink(ino)
                .map(OsString::from_vec)
                .map_err(|error| error.errno()),
        ),
        Kind::File => {
            let (content, holes) = match vfs.open_file(ino, libc::O_RDONLY) {
                Ok(opened) => {
                    let content = read(vfs, opened.handle, attr.size_bytes);
                    let holes = seek(vfs, opened.handle);
                    vfs.release(opened.handle);
                    (content, holes)
                }
                Err(error) => (Err(error.errno()), Err(error.errno())),
            };
            Found::File {
                len_bytes: attr.size_bytes,
                content,
                holes,
                xattrs: xattrs(vfs, ino),
            }
        }
    }
}

/// Adds what the directory contains to `pending`, each found by its name.
fn list(vfs: &Vfs, ino: Ino, path: &OsStr, pending: &mut Pending) -> Result<(), i32> {
    let errno = |error: FsError| error.errno();
    let handle = vfs.open_directory(ino).map_err(errno)?;
    let mut names = Vec::new();
    let listed = vfs.read_directory(handle, 0, &mut |entry| {
        names.push(entry.name.clone());
        true
    });
    // With attributes too, as the kernel asks for them.
    let with_attributes = vfs.read_directory_plus(handle, 0, &mut |_, _| true);
    vfs.release(handle);
    listed.and(with_attributes).map_err(errno)?;
    for name in names {
        if name == b"." || name == b".." {
            continue;
        }
        let name = OsStr::from_bytes(&name);
        let child = Path::new(path).join(name).into_os_string();
        let found = vfs.lookup(ino, name).map_err(errno);
        pending.push((child, found.map(|entry| entry.attr.ino)));
    }
    Ok(())
}

fn read(vfs: &Vfs, handle: vh5fs::fs::HandleId, len_bytes: u64) -> Result<Vec<u8>, i32> {
    let mut content = Vec::new();
    let head_bytes = len_bytes.min(MAX_HEAD_BYTES);
    let mut pieces = vec![(0, head_bytes)];
    if len_bytes > head_bytes {
        let tail_bytes = TAIL_BYTES.min(len_bytes - head_bytes);
        pieces.push((len_bytes - tail_bytes, tail_bytes));
    }
    for (offset, piece_bytes) in pieces {
        let mut buffer = vec![0; usize::try_from(piece_bytes).unwrap()];
        let count = vfs
            .read_into(handle, offset, &mut buffer)
            .map_err(|error| error.errno())?;
        assert_eq!(count, buffer.len(), "a file shorter than its length");
        content.extend(buffer);
    }
    Ok(content)
}

fn seek(vfs: &Vfs, handle: vh5fs::fs::HandleId) -> Result<Vec<u64>, i32> {
    const MOST: usize = 1000;
    let mut places = Vec::new();
    let (mut at, mut kind) = (0, Seek::Data);
    while places.len() < MOST {
        match vfs.seek(handle, at, kind) {
            Ok(next) => {
                places.push(next);
                assert!(next >= at, "seeking goes back");
                at = next;
            }
            Err(FsError::NoSuchOffset) => return Ok(places),
            Err(error) => return Err(error.errno()),
        }
        kind = match kind {
            Seek::Data => Seek::Hole,
            Seek::Hole => Seek::Data,
        };
    }
    Ok(places)
}

fn xattrs(vfs: &Vfs, ino: Ino) -> BTreeMap<Vec<u8>, Result<Vec<u8>, i32>> {
    match vfs.listxattr(ino) {
        Ok(names) => names
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| {
                let value = vfs.getxattr(ino, OsStr::from_bytes(name));
                (name.to_vec(), value.map_err(|error| error.errno()))
            })
            .collect(),
        Err(error) => BTreeMap::from([(Vec::new(), Err(error.errno()))]),
    }
}

/// What in `damaged` differs from `sound` without an error that says so, where `guard` does not allow it.
pub fn differences(sound: &Tree, damaged: &Tree, guard: Guard<'_>) -> Vec<String> {
    let mut differences = Vec::new();
    if guard == Guard::Open {
        return differences;
    }
    for (path, before) in sound {
        let differs = match (before, damaged.get(path)) {
            (_, Some(Found::Error(_))) => None,
            (before, Some(now)) => difference(path, before, now, guard),
            // What leads to versions by texts of the heap, or to one that cannot be read.
            (Found::Link(_), None) if guard == Guard::Heap => None,
            (Found::Link(Ok(target)), None) if leads_to_error(target, damaged) => None,
            (_, None) => {
                let is_excused =
                    is_below_error(path, damaged) || is_unreadable_there(Path::new(path), damaged);
                (!is_excused).then(|| "is missing".to_owned())
            }
        };
        differences.extend(differs.map(|what| format!("{}: {what}", path.display())));
    }
    for (path, found) in damaged {
        let is_unreadable = matches!(found, Found::Error(_))
            && is_unreadable_there(&Path::new(path).with_extension(""), damaged);
        if !sound.contains_key(path) && guard != Guard::Heap && !is_unreadable {
            differences.push(format!("{}: is new", path.display()));
        }
    }
    differences
}

/// Whether what is at `path` in one of the views of `versions/` is, there, or lies below, what cannot be read: the views take that for a dataset,
/// whatever it was.
fn is_unreadable_there(path: &Path, tree: &Tree) -> bool {
    let shown = path
        .strip_prefix("npy")
        .or_else(|_| path.strip_prefix("meta"));
    shown.is_ok_and(|there| {
        matches!(tree.get(there.as_os_str()), Some(Found::Error(_)))
            || is_below_error(there.as_os_str(), tree)
    })
}

/// Whether the version that a link in `at/` led to could not be listed.
fn leads_to_error(target: &OsStr, tree: &Tree) -> bool {
    let version = Path::new(target).strip_prefix("..");
    let found = version.ok().and_then(|path| tree.get(path.as_os_str()));
    matches!(
        found,
        Some(Found::Error(_) | Found::Directory { listed: Err(_), .. })
    )
}

/// Whether a directory above it could not be listed.
fn is_below_error(path: &OsStr, tree: &Tree) -> bool {
    Path::new(path).ancestors().skip(1).any(|above| {
        matches!(
            tree.get(above.as_os_str()),
            Some(Found::Error(_) | Found::Directory { listed: Err(_), .. })
        )
    })
}

fn difference(path: &OsStr, before: &Found, now: &Found, guard: Guard<'_>) -> Option<String> {
    // The same dataset in `npy/`.
    let dataset = path.as_bytes();
    let dataset = OsStr::from_bytes(dataset.strip_suffix(b".npy").unwrap_or(dataset));
    // Times and attributes that are texts of the heap are in `meta/`.
    let is_text =
        dataset.as_bytes().ends_with(b"inner/text") || dataset.as_bytes().starts_with(b"meta/");
    let heap = guard == Guard::Heap;
    match (before, now) {
        (
            Found::File {
                len_bytes,
                content,
                holes,
                xattrs,
                ..
            },
            Found::File {
                len_bytes: len_now,
                content: content_now,
                holes: holes_now,
                xattrs: xattrs_now,
                ..
            },
        ) => {
            let is_open = |name: &str| Path::new(dataset).ends_with(name);
            if matches!(guard, Guard::Dataset(dataset) if is_open(dataset)) || heap && is_text {
                return None;
            }
            if content_now.is_ok() && content_now != content {
                return Some("other bytes".to_owned());
            }
            if len_now != len_bytes {
                return Some(format!("{len_now} bytes instead of {len_bytes}"));
            }
            if holes_now.is_ok() && holes_now != holes {
                return Some(format!("holes {holes_now:?} instead of {holes:?}"));
            }
            difference_of_xattrs(xattrs, xattrs_now, heap)
        }
        (Found::Directory { xattrs, .. }, Found::Directory { xattrs: now, .. }) => {
            difference_of_xattrs(xattrs, now, heap)
        }
        (Found::Link(before), Found::Link(now)) => (!heap && now.is_ok() && now != before)
            .then(|| format!("leads to {now:?} instead of {before:?}")),
        _ => Some("is of another kind".to_owned()),
    }
}

fn difference_of_xattrs(
    before: &BTreeMap<Vec<u8>, Result<Vec<u8>, i32>>,
    now: &BTreeMap<Vec<u8>, Result<Vec<u8>, i32>>,
    heap: bool,
) -> Option<String> {
    // None of them can be listed.
    if now.contains_key(&Vec::new()) {
        return None;
    }
    before.iter().find_map(|(name, value)| {
        let is_text =
            heap && !name.starts_with(b"user.h5.") && !name.starts_with(b"user.attribute");
        match now.get(name) {
            _ if is_text => None,
            Some(Err(_)) => None,
            Some(now) if now == value => None,
            now => Some(format!(
                "{} is {now:?} instead of {value:?}",
                name.escape_ascii()
            )),
        }
    })
}

/// Reads everything below `root` through the kernel: how many files could be read, and how many could not.
pub fn walk_mounted(root: &Path) -> (usize, usize) {
    let (mut good, mut bad) = (0, 0);
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let read = fs::symlink_metadata(&path).and_then(|metadata| {
            if metadata.is_symlink() {
                fs::read_link(&path)?;
            } else if metadata.is_dir() {
                for entry in fs::read_dir(&path)? {
                    pending.push(entry?.path());
                }
            } else {
                let mut file = fs::File::open(&path)?;
                let mut head = io::Read::by_ref(&mut file);
                io::copy(
                    &mut io::Read::take(&mut head, MAX_HEAD_BYTES),
                    &mut io::sink(),
                )?;
            }
            Ok(())
        });
        match read {
            Ok(()) => good += 1,
            Err(_) => bad += 1,
        }
        assert!(good + bad < MAX_ENTRIES, "a tree without end");
    }
    (good, bad)
}
