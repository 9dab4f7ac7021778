//! What backup programs make of `versions/`: what is in several versions is read and stored once, a second backup reads nothing, and what
//! is restored has the same bytes, times and links. Also after another mount of the file.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Interpreter, Mount, MountPoint, literal, made, made_by, run};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Bytes of random numbers, which nobody can compress: 4 datasets of 8 MiB, one of which has a second content.
const FILE: &str = r#"
rng = np.random.default_rng(5)
with version(FILE, "r1", timestamp=when(1)) as group:
    for number in range(4):
        group.create_dataset(f"big/{number}", data=rng.integers(0, 1 << 60, 1 << 20), chunks=(1 << 17,))
    group.create_dataset("small", data=np.arange(100), chunks=(100,))
    group["small"].attrs["unit"] = "K"
with version(FILE, "r2", timestamp=when(2)) as group:
    group["big/1"][5] = 1
with version(FILE, "r3", timestamp=when(3)) as group:
    group["small"][5] = 1
"#;

const MIB: u64 = 1 << 20;

/// What differs, once.
const DISTINCT_BYTES: u64 = 5 * 8 * MIB + 2 * 800;

/// Answers to everything that a backup program asks without reading: some 100 bytes each.
const ANSWER_BYTES: u64 = 256 << 10;

fn file() -> PathBuf {
    made_by(FILE, "backup.rs", "backup.h5")
}

/// A program that keeps all it has in `scratch`, and works in `folder`.
fn program(name: &str, scratch: &TempDir, folder: &Path) -> Command {
    let mut command = Command::new(name);
    command
        .current_dir(folder)
        .env("HOME", scratch.path())
        .env("LC_ALL", "C")
        .env("BORG_REPO", scratch.path().join("borg"))
        .env("BORG_BASE_DIR", scratch.path())
        .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
        .env("RESTIC_REPOSITORY", scratch.path().join("restic"))
        .env("RESTIC_PASSWORD", "secret")
        .env("RESTIC_CACHE_DIR", scratch.path().join("cache"));
    command
}

/// Lines of JSON.
fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Everything below a folder: length or kind, time, and bytes; and which names are one file.
type Tree = (BTreeMap<PathBuf, String>, BTreeSet<Vec<PathBuf>>);

fn tree(root: &Path) -> Tree {
    let mut things = BTreeMap::new();
    let mut files: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let time = (found.mtime(), found.mtime_nsec());
            let what = if found.is_dir() {
                pending.push(path);
                format!("folder of {time:?}")
            } else {
                files.entry(found.ino()).or_default().push(name.clone());
                let hash = Sha256::digest(fs::read(&path).unwrap());
                format!("{} bytes of {time:?}: {hash:x?}", found.len())
            };
            things.insert(name, what);
        }
    }
    let same = files.into_values().map(|mut names| {
        names.sort();
        names
    });
    (things, same.collect())
}

/// That what was restored is what is mounted.
#[track_caller]
fn assert_restored(mount: &Mount, restored: &Path) {
    let expected = tree(&mount.path().join("versions"));
    assert_eq!(expected.1.len(), 7, "{:?}", expected.1);
    let (things, same) = tree(restored);
    assert_eq!(things, expected.0);
    assert_eq!(same, expected.1);
}

/// Where the file is mounted anew for each backup: programs know what they have seen by its full path.
struct Place(Option<MountPoint>);

impl Place {
    fn new() -> Self {
        Self(Some(MountPoint::new()))
    }

    /// How much a backup by `back_up` reads through a mount of its own.
    fn bytes_read_by(&mut self, back_up: impl FnOnce(&Mount)) -> u64 {
        let mount = Mount::on(self.0.take().unwrap(), &file(), &["--read-only"]);
        let before = mount.answered_bytes();
        back_up(&mount);
        let after = mount.answered_bytes();
        self.0 = Some(mount.unmount());
        after - before
    }
}

#[test]
fn borg_reads_and_stores_each_content_once() {
    let (scratch, mut place) = (tempfile::tempdir().unwrap(), Place::new());
    run(program("borg", &scratch, scratch.path()).args(["init", "-e", "none"]));
    // borg reads the newest file of a backup again next time, as it may have been written to since: this one.
    let stamp = scratch.path().join("stamp");
    fs::write(&stamp, "").unwrap();
    let back_up = |mount: &Mount, name: &str| {
        let output = program("borg", &scratch, mount.path())
            .args(["create", "--list", "--json", "--log-json"])
            .arg(format!("::{name}"))
            .arg("versions")
            .arg(&stamp)
            .output()
            .unwrap();
        let words = common::words(&output);
        assert!(output.status.success(), "{words}");
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for line in json_lines(&words) {
            if line["path"]
                .as_str()
                .is_some_and(|p| p.starts_with("versions"))
            {
                *count
                    .entry(line["status"].as_str().unwrap().into())
                    .or_default() += 1;
            }
        }
        let stats: Value = serde_json::from_slice(&output.stdout).unwrap();
        let stored = stats["cache"]["stats"]["unique_size"].as_u64().unwrap();
        (count, stored)
    };
    let counts = |pairs: &[(&str, usize)]| -> BTreeMap<String, usize> {
        pairs.iter().map(|&(key, n)| (key.to_owned(), n)).collect()
    };

    let read = place.bytes_read_by(|mount| {
        let (count, stored) = back_up(mount, "first");
        // A for added, d for folders, h for another name of a file that was there already.
        assert_eq!(count, counts(&[("A", 7), ("d", 7), ("h", 8)]));
        assert!(stored < DISTINCT_BYTES + MIB, "{stored}");
    });
    assert!(
        (DISTINCT_BYTES..DISTINCT_BYTES + ANSWER_BYTES).contains(&read),
        "{read}"
    );
    let read = place.bytes_read_by(|mount| {
        let (count, stored) = back_up(mount, "second");
        assert_eq!(count, counts(&[("U", 7), ("d", 7), ("h", 8)]));
        assert!(stored < DISTINCT_BYTES + MIB, "{stored}");
    });
    assert!(read < ANSWER_BYTES, "{read}");

    let restored = scratch.path().join("restored");
    fs::create_dir(&restored).unwrap();
    run(program("borg", &scratch, &restored).args(["extract", "::second", "versions"]));
    let mount = Mount::new(&file(), &["--read-only"]);
    assert_restored(&mount, &restored.join("versions"));
}

#[test]
fn restic_reads_nothing_twice_and_stores_each_content_once() {
    let (scratch, mut place) = (tempfile::tempdir().unwrap(), Place::new());
    run(program("restic", &scratch, scratch.path()).args(["init", "-q"]));
    let back_up = |mount: &Mount| {
        let printed =
            run(program("restic", &scratch, mount.path()).args(["backup", "--json", "versions"]));
        let last = json_lines(&printed).pop().unwrap();
        let number = |key: &str| last[key].as_u64().unwrap();
        (
            ["files_new", "files_changed", "files_unmodified"].map(number),
            number("data_added"),
        )
    };
    place.bytes_read_by(|mount| {
        let (files, added_bytes) = back_up(mount);
        assert_eq!(files, [15, 0, 0]);
        assert!(added_bytes < DISTINCT_BYTES + MIB, "{added_bytes}");
    });
    let read = place.bytes_read_by(|mount| assert_eq!(back_up(mount), ([0, 0, 15], 0)));
    assert!(read < ANSWER_BYTES, "{read}");

    let restored = scratch.path().join("restored");
    run(program("restic", &scratch, scratch.path())
        .args(["restore", "latest", "-q", "--target"])
        .arg(&restored));
    let mount = Mount::new(&file(), &["--read-only"]);
    assert_restored(&mount, &restored.join("versions"));
}

#[test]
fn rsync_copies_links_as_links_and_then_nothing() {
    let (scratch, mut place) = (tempfile::tempdir().unwrap(), Place::new());
    let restored = scratch.path().join("restored");
    let copy = |mount: &Mount| {
        run(program("rsync", &scratch, mount.path())
            .args(["-aH", "--itemize-changes", "versions/"])
            .arg(&restored))
    };
    let read = place.bytes_read_by(|mount| {
        copy(mount);
    });
    assert!(
        (DISTINCT_BYTES..DISTINCT_BYTES + ANSWER_BYTES).contains(&read),
        "{read}"
    );
    let read = place.bytes_read_by(|mount| assert_eq!(copy(mount), ""));
    assert!(read < ANSWER_BYTES, "{read}");
    let mount = Mount::new(&file(), &["--read-only"]);
    assert_restored(&mount, &restored);
}

/// 32 datasets of 64 MiB, each of eight chunks of one number of its own.
const TWO_GIB: &str = r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    for number in range(32):
        data = np.repeat(np.arange(8.0) + 8 * number + 1, 1 << 20)
        group.create_dataset(f"part/{number}", data=data, chunks=(1 << 20,), compression="lzf")
with version(FILE, "r2", timestamp=when(2)) as group:
    group["part/17"][4_000_000] = -1
"#;

#[test]
fn diff_of_two_gibibytes_reads_what_changed() {
    let file = made(
        "two-gib.h5",
        &["backup.rs", "interpreter.py", "fixtures/vh5fix"],
        |path| {
            let mut python = Interpreter::new();
            python.run(&format!("FILE = {}\n{TWO_GIB}", literal(path)));
        },
    );
    let mount = Mount::new(&file, &["--read-only"]);
    let total: u64 = fs::read_dir(mount.path().join("versions/r1/part"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(total, 2 << 30);
    let before = mount.answered_bytes();
    let output = Command::new("diff")
        .args(["-r", "r1", "r2"])
        .current_dir(mount.path().join("versions"))
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let read = mount.answered_bytes() - before;
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "Binary files r1/part/17 and r2/part/17 differ\n"
    );
    // Up to the 4,000,000th of 8,388,608 numbers in each of both, and what the kernel reads ahead.
    assert!(
        (2 * 4_000_000 * 8..2 * 64 * MIB + ANSWER_BYTES).contains(&read),
        "{read}"
    );

    // The rest was not touched: it can still be read, and is what it was.
    let mut first = [0; 8];
    let mut part = File::open(mount.path().join("versions/r2/part/31")).unwrap();
    part.read_exact(&mut first).unwrap();
    assert!((f64::from_le_bytes(first) - 249.0).abs() < f64::EPSILON);
}
