//! The machine goes down at any moment of staging and of a commit: what the disk may then hold is recovered, and is the old set of versions or the
//! new one, all bytes right, with the edits still staged or none.
//!
//! The real program works on a file system that notes all it does ([`recorder`]), so no write or sync of it can be missed. Of each kind of commit, every
//! prefix of that is taken: with nothing of what was not synced, with all of it, and with some of its sectors, lengths and names.

mod common;
#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/staging.rs"]
mod staging;
#[path = "common/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{Interpreter, Mount, literal};
use recorder::{Recorder, Unsynced};
use sha2::{Digest, Sha256};
use staging::{bytes_of, set};
use vh5fs::fs::{Ino, Vfs};

const FILE: &str = "file.h5";
/// Random subsets of each prefix.
const SUBSETS: u64 = 3;

const FIRST: &str = r#"
def first(path, libver):
    with h5py.File(path, "w", libver=libver) as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("r0") as group:
            group.create_dataset("x", data=np.arange(3000, dtype="<i4"), chunks=(512,))
            group.create_dataset("deep/grid", data=np.arange(1200, dtype=">f8").reshape(40, 30), chunks=(16, 8), compression="gzip")
            group.create_dataset("text", data=np.array([f"row {n}" for n in range(40)], dtype=object), dtype=h5py.string_dtype(), chunks=(16,))
            group["x"].attrs["unit"] = "m"
        versions.close()

def empty(path):
    with h5py.File(path, "w") as file:
        VersionedHDF5File(file).close()

def judge(paths, old, new):
    """For each file, whether it has the old versions (0) or the new ones (1), every one of them as it is there."""
    answers = []
    for path in paths:
        found = library.states(path)
        which = [states for states in (old, new) if sorted(states) == sorted(found)]
        assert len(which) == 1, (path, sorted(found))
        for name, state in which[0].items():
            wrong = library.differences(state, found[name], name)
            assert not wrong, (path, wrong)
        assert library.misplaced_hashes(path) == [], path
        assert library.parents(path)[""] == (sorted(found)[-1] if found else "__first_version__"), path
        answers.append(int(which[0] is new))
    return answers
"#;

/// A kind of commit: what is staged before it.
type Stage = fn(&Mount);

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn make(mount: &Mount, name: &str, count: i32) {
    let path = mount.staging(name);
    fs::write(&path, bytes_of(0..count)).unwrap();
    set(&path, "h5.dtype", "<i4");
    set(&path, "h5.chunks", "[64]");
}

fn edit(mount: &Mount) {
    overwrite(&mount.staging("x"), 4000, &bytes_of([-1, -2]));
}

fn grow(mount: &Mount) {
    overwrite(&mount.staging("x"), 12000, &bytes_of(0..2000));
    set(&mount.staging("x"), "unit", "km");
}

fn delete(mount: &Mount) {
    fs::remove_file(mount.staging("x")).unwrap();
    fs::remove_file(mount.staging("deep/grid")).unwrap();
    fs::remove_dir(mount.staging("deep")).unwrap();
}

fn many(mount: &Mount) {
    fs::create_dir(mount.staging("new")).unwrap();
    for number in 0..5 {
        make(mount, &format!("new/n{number}"), 100 + number);
    }
}

fn compressed(mount: &Mount) {
    overwrite(&mount.staging("deep/grid"), 800, &[7; 2000]);
}

fn strings(mount: &Mount) {
    let lines: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
    fs::write(mount.staging("text"), lines.join("\n") + "\n").unwrap();
}

/// As editors and rsync do it.
fn replaced(mount: &Mount) {
    overwrite(&mount.staging("x"), 0, &bytes_of([5]));
    File::open(mount.staging("x")).unwrap().sync_all().unwrap();
    fs::write(mount.staging(".x.tmp"), bytes_of(7..2000)).unwrap();
    fs::rename(mount.staging(".x.tmp"), mount.staging("x")).unwrap();
    fs::rename(mount.staging("text"), mount.staging("words")).unwrap();
}

fn nothing(_: &Mount) {}

fn mounted(file: &Path) -> Vfs {
    tree::open(file, false).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn staged(vfs: &Vfs) -> BTreeMap<String, Vec<u8>> {
    tree::datasets(vfs, "staging")
}

/// A recovered file.
#[derive(Debug)]
struct Point {
    position: usize,
    unsynced: Unsynced,
    /// Of the file.
    hash: Vec<u8>,
    is_pristine: bool,
}

/// What a recording of one commit came to.
struct Recording {
    recorder: Recorder,
    ops: Vec<recorder::Op>,
    /// Before the edits, after the first of them was durable, and after the commit had succeeded.
    synced: usize,
    committed: usize,
    before: BTreeMap<String, Vec<u8>>,
    after: BTreeMap<String, Vec<u8>>,
}

fn record(base: &Path, stage: Stage) -> Recording {
    let recorder = Recorder::new(FILE, fs::read(base).unwrap());
    let file = recorder.path().join(FILE);
    let vfs = mounted(base);
    let before = staged(&vfs);
    vfs.close();
    drop(vfs);
    let mount = Mount::new(&file, &[]);
    stage(&mount);
    File::open(mount.staging("")).unwrap().sync_all().unwrap();
    let synced = recorder.position();
    mount.commit("r1");
    let committed = recorder.position();
    drop(mount);
    let vfs = mounted(&file);
    let after = staged(&vfs);
    vfs.close();
    drop(vfs);
    let ops = recorder.ops();
    Recording {
        recorder,
        ops,
        synced,
        committed,
        before,
        after,
    }
}

/// Makes the log of staged changes that of a machine that was started anew since: the recording was made in this run of the one that looks at it.
fn start_anew(sidecar: &Path) {
    const KEY: &[u8] = br#""boot":""#;
    for name in ["changes", "changes.new"] {
        let path = sidecar.join(name);
        let Ok(mut log) = fs::read(&path) else {
            continue;
        };
        // Its first record: the length of its text, eight bytes of the SHA-256 of that, and the text.
        let Some(length) = log.first_chunk() else {
            continue;
        };
        let end = 12 + u32::from_le_bytes(*length) as usize;
        let stored: [u8; 8] = log
            .get(4..12)
            .and_then(|sum| sum.try_into().ok())
            .unwrap_or_default();
        let Some(text) = log.get_mut(12..end) else {
            continue;
        };
        if Sha256::digest(&*text)[..8] != stored {
            continue;
        }
        let Some(at) = text.windows(KEY.len()).position(|found| found == KEY) else {
            continue;
        };
        text[at + KEY.len()..][..8].copy_from_slice(b"formerly");
        let checksum = Sha256::digest(&*text);
        log[4..12].copy_from_slice(&checksum[..8]);
        fs::write(&path, log).unwrap();
    }
}

impl Recording {
    /// Every prefix from the beginning of the commit on, and some of staging.
    fn points(&self) -> Vec<(usize, Unsynced)> {
        let mut points = Vec::new();
        for position in 0..=self.ops.len() {
            if position < self.synced && position % 5 > 0 {
                continue;
            }
            points.push((position, Unsynced::None));
            points.push((position, Unsynced::All));
            for subset in 0..SUBSETS {
                let seed = 1 + position as u64 * SUBSETS + subset;
                points.push((position, Unsynced::Some(seed * 0x9e37_79b9)));
            }
        }
        points
    }

    /// Recovers one by mounting it, and looks at what is staged.
    fn check(&self, position: usize, unsynced: Unsynced, folder: &Path) -> Point {
        self.recorder.crash(&self.ops, position, unsynced, folder);
        start_anew(&folder.join(format!(".{FILE}.vh5fs")));
        let file = folder.join(FILE);
        let what = format!("{position} of {}, {unsynced:?}", self.ops.len());
        let vfs = mounted(&file);
        let status = tree::status(&vfs);
        assert!(!status.contains("set aside"), "{what}: {status}");
        let is_pristine = status.contains("Nothing is staged");
        let has_version = vfs
            .lookup(Ino::ROOT, OsStr::new("versions"))
            .and_then(|versions| vfs.lookup(versions.attr.ino, OsStr::new("r1")))
            .is_ok();
        let found = staged(&vfs);
        let committed = has_version || position >= self.committed;
        assert_eq!(has_version, committed, "{what}: a finished commit is lost");
        if has_version {
            assert!(is_pristine, "{what}: staged again: {status}");
        }
        if has_version || position >= self.synced {
            assert!(found == self.after, "{what}: an edit is lost: {status}");
        } else if is_pristine {
            assert!(found == self.before, "{what}: {status}");
        }
        vfs.close();
        drop(vfs);
        let names: BTreeSet<String> = common::names_in(folder).into_iter().collect();
        let sidecar = format!(".{FILE}.vh5fs");
        assert!(
            names.iter().all(|name| *name == FILE || *name == sidecar),
            "{what}: {names:?}"
        );
        assert!(!folder.join(&sidecar).join("journal").exists(), "{what}");
        Point {
            position,
            unsynced,
            hash: Sha256::digest(fs::read(&file).unwrap()).to_vec(),
            is_pristine,
        }
    }
}

/// Records a commit on `base`, and judges each of its crash points. Gives how many there were, and how many ended with the new version.
fn crash_everywhere(
    python: &mut Interpreter,
    kind: &str,
    base: &Path,
    stage: Stage,
) -> (usize, usize) {
    let recording = record(base, stage);
    let scratch = common::fast_folder();
    let kept: Mutex<BTreeMap<Vec<u8>, PathBuf>> = Mutex::default();
    let points = recording.points();
    let next = AtomicUsize::new(0);
    let checked: Mutex<Vec<Point>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(position, unsynced)) = points.get(number) else {
                        break;
                    };
                    let folder = scratch.path().join(number.to_string());
                    let point = recording.check(position, unsynced, &folder);
                    // Most are equal: one of each is judged.
                    let known = kept.lock().unwrap().contains_key(&point.hash);
                    if known {
                        fs::remove_dir_all(&folder).unwrap();
                    } else {
                        kept.lock()
                            .unwrap()
                            .insert(point.hash.clone(), folder.join(FILE));
                    }
                    checked.lock().unwrap().push(point);
                }
            });
        }
    });
    let last = scratch.path().join("last");
    recording
        .recorder
        .crash(&recording.ops, recording.ops.len(), Unsynced::All, &last);
    let kept = kept.into_inner().unwrap();
    let paths: Vec<String> = kept.values().map(|path| literal(path)).collect();
    let answers = python.run(&format!(
        "result = judge([{}], library.states({}), library.states({}))",
        paths.join(", "),
        literal(base),
        literal(&last.join(FILE))
    ));
    let answers: BTreeMap<&Vec<u8>, bool> = kept
        .keys()
        .zip(answers.as_array().unwrap())
        .map(|(hash, answer)| (hash, answer == 1))
        .collect();
    let checked = checked.into_inner().unwrap();
    assert_eq!(checked.len(), points.len(), "{kind}");
    for point in &checked {
        let is_new = answers[&point.hash];
        assert!(
            is_new || point.position < recording.committed,
            "{kind}: {point:?}"
        );
        assert!(point.is_pristine || !is_new, "{kind}: {point:?}");
        if point.unsynced == Unsynced::All && point.position == recording.ops.len() {
            assert!(is_new, "{kind}");
        }
    }
    let new = checked.iter().filter(|point| answers[&point.hash]).count();
    println!(
        "{kind}: {} operations, {} points, {} different files, {new} with the new version",
        recording.ops.len(),
        checked.len(),
        kept.len()
    );
    assert!(
        new > 0 && new < checked.len(),
        "{kind}: {new} of {}",
        checked.len()
    );
    (checked.len(), new)
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_versions_or_the_new_ones() {
    let kinds: [(&str, Stage); 9] = [
        ("edit", edit),
        ("grow", grow),
        ("delete", delete),
        ("many", many),
        ("compressed", compressed),
        ("strings", strings),
        ("replaced", replaced),
        ("nothing", nothing),
        ("first", many),
    ];
    let mut python = Interpreter::new();
    python.run(FIRST);
    let mut count = 0;
    for (number, (kind, stage)) in kinds.into_iter().enumerate() {
        let base = python.scratch().join(format!("{kind}.h5"));
        let libver = ["earliest", "latest"][number % 2];
        let program = if kind == "first" {
            format!("empty({})", literal(&base))
        } else {
            format!("first({}, {libver:?})", literal(&base))
        };
        python.run(&program);
        count += crash_everywhere(&mut python, kind, &base, stage).0;
    }
    assert!(count >= 1000, "{count}");
}
