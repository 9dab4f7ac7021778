//! Damaged files by the thousand: no crash, no hang, no growth of memory, no wrong byte without an error where chunks are held against their hashes, and
//! no commit that harms what is there.
//!
//! Few of them by default; `scripts/damage.sh` runs ten thousand. The cases are the same in each run: a number or a range of numbers
//! (`5000..10000`) in `VH5FS_DAMAGED_FILES` says which of them are looked at, so that several runs can share them. Each is looked at in a process of its own kind:
//! a worker takes the cases one after the other, and where it dies, the case that it died of is reported, and another one goes on behind it.

mod common;
#[path = "common/damage.rs"]
mod damage;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use damage::{Bench, Found, Guard, Random, Sound, Tree, Watchdog, differences, open_as, walk};
use vh5fs::fs::{AttrChange, FsError, Ino, NewTime, Vfs};

/// How many cases are run where nobody says.
const USUAL_CASES: Range<usize> = 0..150;
/// No case may take longer.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// What a worker may take beyond what it has when it starts, in address space.
const MEMORY_BYTES: u64 = 2 << 30;
/// What it may keep, from its first cases to its last.
const GROWTH_BYTES: u64 = 128 << 20;
/// Cases before what a worker keeps is measured first: caches and arenas are filled by then.
const WARM_CASES: usize = 40;
/// Of so many cases, one is also committed to.
const COMMIT_STEP: usize = 4;

/// Bytes that are changed, each range with what it becomes.
type Change = Vec<(usize, Vec<u8>)>;

/// The case of that number: which file, what is done to it in words, and how long it is after it.
struct Case<'a> {
    file: &'a Sound,
    what: String,
    changes: Change,
    len: usize,
}

impl<'a> Case<'a> {
    fn new(files: &'a [Sound], number: usize) -> Self {
        let mut random = Random((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.below(2);
        }
        let file = &files[number % files.len()];
        let len = file.bytes.len();
        let mut case = Self {
            file,
            what: String::new(),
            changes: Vec::new(),
            len,
        };
        let kind = random.below(16);
        let at = case.place(&mut random);
        let room = |want: usize| want.min(len - at);
        match kind {
            0..=4 => {
                let bit = random.below(8);
                case.what = format!("bit {bit} of byte {at} flipped");
                case.changes = vec![(at, vec![file.bytes[at] ^ (1 << bit)])];
            }
            5..=8 => {
                let width = room([1, 2, 4, 8][random.below(4)]);
                let value = extreme(&mut random, len);
                case.what = format!("{width} bytes at {at} set to {value:#x}");
                case.changes = vec![(at, value.to_le_bytes()[..width].to_vec())];
            }
            9..=11 => {
                let count = room([8, 64, 512, 4096][random.below(4)]);
                let value = [0, 0, 0xff, 0x5a][random.below(4)];
                case.what = format!("{count} bytes at {at} all {value:#x}");
                case.changes = vec![(at, vec![value; count])];
            }
            12 => {
                let count = room([8, 64, 512][random.below(3)]);
                case.what = format!("{count} bytes at {at} noise");
                let noise = (0..count).map(|_| u8::try_from(random.below(256)).unwrap());
                case.changes = vec![(at, noise.collect())];
            }
            13 | 14 => {
                let other = case.place(&mut random);
                let count = room([16, 64, 512, 4096][random.below(4)]).min(len - other);
                case.what = format!("{count} bytes at {at} and at {other} swapped");
                case.changes = vec![
                    (at, file.bytes[other..other + count].to_vec()),
                    (other, file.bytes[at..at + count].to_vec()),
                ];
            }
            _ => {
                case.len = at;
                case.what = format!("cut to {at} bytes");
            }
        }
        case
    }

    /// A place to be damaged: half of them in metadata, a quarter where the file begins.
    fn place(&self, random: &mut Random) -> usize {
        let len = self.file.bytes.len();
        match random.below(4) {
            0 => random.below(4096),
            1 | 2 => (0..100)
                .map(|_| random.below(len))
                .find(|&at| !matches!(self.file.guard(at), Guard::Dataset(_)))
                .unwrap_or(0),
            _ => random.below(len),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.file.bytes.clone();
        for (at, new) in &self.changes {
            bytes[*at..at + new.len()].copy_from_slice(new);
        }
        bytes.truncate(self.len);
        bytes
    }

    /// The weakest guard of the bytes that are changed. Those of datasets are guarded by the hashes of their chunks.
    fn guard(&self, damaged: &[u8]) -> Guard<'_> {
        let sound = &self.file.bytes;
        let changed = (0..damaged.len()).filter(|&at| damaged[at] != sound[at]);
        let guards: Vec<Guard<'_>> = changed.map(|at| self.file.guard(at)).collect();
        for weak in [Guard::Open, Guard::Heap] {
            if guards.contains(&weak) {
                return weak;
            }
        }
        Guard::Checksum
    }
}

/// A number at the edge of some type's range, or about the length of the file.
fn extreme(random: &mut Random, len: usize) -> u64 {
    let len = len as u64;
    let values = [
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        u64::MAX / 8,
        i64::MAX as u64,
        u64::MAX - 1,
        u64::MAX,
        len,
        len - 1,
        len / 2,
    ];
    values[random.below(values.len())]
}

/// What a look at the damaged file finds that it must not. Everything is read with chunks held against their hashes.
fn complaints(bench: &Bench, case: &Case<'_>, sound: &Tree) -> Vec<String> {
    let damaged = case.bytes();
    if damaged == case.file.bytes {
        return Vec::new();
    }
    let vfs = match open_as(&bench.put(&damaged), true, true) {
        Ok(vfs) => vfs,
        Err(error) => return unfit(&error),
    };
    let tree = walk(&vfs);
    let guard = case.guard(&damaged);
    let mut found = differences(sound, &tree, guard);
    if guard == Guard::Heap {
        found.extend(other_texts(sound, &tree));
    }
    found
}

/// What is wrong with the message of a file that cannot be opened.
fn unfit(error: &FsError) -> Vec<String> {
    let message = error.to_string();
    if message.contains("damaged.h5") && !message.contains('\n') {
        Vec::new()
    } else {
        vec![format!("the message {message:?}")]
    }
}

/// Datasets of strings that have other strings without an error: those are hashed, though nothing else guards them. What `meta/` tells of
/// attributes is not.
fn other_texts(sound: &Tree, damaged: &Tree) -> Vec<String> {
    let mut others = Vec::new();
    for (path, before) in sound {
        if let (Found::File { content, .. }, Some(Found::File { content: now, .. })) =
            (before, damaged.get(path))
            && now.is_ok()
            && now != content
            && !path.as_encoded_bytes().starts_with(b"meta/")
        {
            others.push(format!("{}: other strings", path.display()));
        }
    }
    others
}

/// Stages an edit and a new dataset over the damaged file and commits. What could be read before must read the same after; where the commit
/// fails, no byte of the file may be another.
fn complaints_about_commit(bench: &Bench, case: &Case<'_>) -> Vec<String> {
    let damaged = case.bytes();
    let path = bench.put(&damaged);
    let Ok(vfs) = open_as(&path, false, false) else {
        return Vec::new();
    };
    let before = versions(&vfs);
    let committed = stage_and_commit(&vfs);
    vfs.close();
    drop(vfs);
    let found = match committed {
        Err(_) if fs::read(&path).unwrap() == damaged => Vec::new(),
        Err(error) => vec![format!("the failed commit ({error}) changed the file")],
        Ok(()) => match open_as(&path, true, false) {
            Ok(vfs) => {
                let after = versions(&vfs);
                let kept = before.iter().filter(|(path, _)| !is_new(path));
                kept.filter(|(path, found)| after.get(*path) != Some(found))
                    .map(|(path, found)| {
                        format!(
                            "{} is {:?} after a commit, and was {found:?}",
                            path.display(),
                            after.get(path)
                        )
                    })
                    .collect()
            }
            Err(error) => vec![format!("after the commit: {error}")],
        },
    };
    bench.forget_staged();
    found
}

/// The version that is committed.
const NEW: &str = "new";

fn is_new(path: &OsStr) -> bool {
    Path::new(path).starts_with(Path::new("versions").join(NEW))
}

/// What is there of committed versions, without what depends on how many versions there are.
fn versions(vfs: &Vfs) -> Tree {
    let mut tree = walk(vfs);
    tree.retain(|path, found| {
        let is_below = Path::new(path).starts_with("versions") && path != "versions";
        is_below && !matches!(found, Found::Error(_))
    });
    tree
}

fn stage_and_commit(vfs: &Vfs) -> Result<(), FsError> {
    let find = |parent, name: &str| vfs.lookup(parent, OsStr::new(name));
    let staging = find(Ino::ROOT, "staging")?.attr.ino;
    for name in ["plain", "gzip", "fletcher"] {
        if let Ok(entry) = find(staging, name)
            && let Ok(opened) = vfs.open_file(entry.attr.ino, libc::O_RDWR)
        {
            let _ = vfs.write(opened.handle, 8, &[1, 2, 3, 4, 5, 6, 7, 8], false);
            vfs.release(opened.handle);
        }
    }
    let created = vfs.create(staging, OsStr::new("made"), libc::O_RDWR)?;
    vfs.write(created.opened.handle, 0, &[7; 5000], false)?;
    vfs.release(created.opened.handle);
    let commit = find(staging, ".commit")?.attr.ino;
    let opened = vfs.open_file(commit, libc::O_WRONLY)?;
    let committed = vfs.write(opened.handle, 0, NEW.as_bytes(), false);
    vfs.release(opened.handle);
    committed?;
    // What a touch of `.reset` starts over is what a next mount would take up.
    let reset = find(staging, ".reset")?.attr.ino;
    let now = AttrChange {
        mtime: Some(NewTime::Now),
        ..AttrChange::default()
    };
    vfs.setattr(reset, now)?;
    Ok(())
}

/// What the parent tells a worker, and what each line begins with that the worker tells the parent.
const RANGE: &str = "VH5FS_DAMAGED_RANGE";
const FILES: &str = "VH5FS_DAMAGED_FOLDER";
const BEGINS: &str = "@begins ";
const ENDS: &str = "@ends ";
const WRONG: &str = "@wrong ";

/// Takes the cases of a range, one after the other.
#[test]
#[ignore = "a worker of another test"]
fn worker() {
    let range = env::var(RANGE).unwrap();
    let numbers = cases_of(&range);
    let files = Sound::load_all(Path::new(&env::var_os(FILES).unwrap()));
    let bench = Bench::new();
    let sound: Vec<Tree> = files
        .iter()
        .map(|file| walk(&open_as(&bench.put(&file.bytes), true, true).unwrap()))
        .collect();
    let watchdog = Watchdog::new(CASE_LIMIT);
    damage::limit_memory(MEMORY_BYTES);
    let mut warm_bytes = None;
    for number in numbers.clone() {
        let case = Case::new(&files, number);
        let name = format!("{number}: {}, {}", case.file.name, case.what);
        println!("\n{BEGINS}{name}");
        std::io::stdout().flush().unwrap();
        watchdog.begin(&name);
        let begin = Instant::now();
        let found = panic::catch_unwind(|| {
            let mut found = complaints(&bench, &case, &sound[number % files.len()]);
            if number % COMMIT_STEP == 0 {
                found.extend(complaints_about_commit(&bench, &case));
            }
            found
        });
        for what in found.unwrap_or_else(|_| vec!["panics".to_owned()]) {
            println!("\n{WRONG}{name}: {}", what.replace('\n', " "));
        }
        let kept_bytes = damage::resident_bytes();
        if number == numbers.start + WARM_CASES {
            warm_bytes = Some(kept_bytes);
        }
        let grown_bytes = warm_bytes.map_or(0, |warm| kept_bytes.saturating_sub(warm));
        println!("\n{ENDS}{} {grown_bytes}", begin.elapsed().as_millis());
        if grown_bytes > GROWTH_BYTES {
            println!("\n{WRONG}{name}: memory grew to {kept_bytes} bytes");
            return;
        }
    }
    watchdog.rest();
}

/// What a run has seen.
#[derive(Debug, Default)]
struct Report {
    seen: BTreeSet<usize>,
    wrong: Vec<String>,
    slowest_ms: u64,
    /// The most that any worker kept beyond what it had when it was warm.
    grown_bytes: u64,
}

/// Runs workers until all cases were looked at.
fn look_at_all(cases: &Range<usize>, folder: &Path) -> Report {
    let mut report = Report::default();
    let mut next = cases.start;
    while next < cases.end {
        let mut worker = Command::new(env::current_exe().unwrap())
            .args(["--exact", "worker", "--ignored", "--nocapture"])
            .env(RANGE, format!("{next}..{}", cases.end))
            .env(FILES, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut last = String::new();
        for line in BufReader::new(worker.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(case) = line.strip_prefix(BEGINS) {
                case.clone_into(&mut last);
                let number: usize = case.split(':').next().unwrap().parse().unwrap();
                report.seen.insert(number);
                next = number + 1;
                if number % 1000 == 999 {
                    eprintln!(
                        "{next} of {} damaged files, {} complaints",
                        cases.end,
                        report.wrong.len()
                    );
                }
            } else if let Some(figures) = line.strip_prefix(ENDS) {
                let (ms, bytes) = figures.split_once(' ').unwrap();
                report.slowest_ms = report.slowest_ms.max(ms.parse().unwrap());
                report.grown_bytes = report.grown_bytes.max(bytes.parse().unwrap());
            } else if let Some(what) = line.strip_prefix(WRONG) {
                eprintln!("{what}");
                report.wrong.push(what.to_owned());
            }
        }
        let status = worker.wait().unwrap();
        if !status.success() {
            assert!(!last.is_empty(), "the worker did not begin: {status}");
            let what = format!("{last}: the process died or hung: {status}");
            eprintln!("{what}");
            report.wrong.push(what);
        }
    }
    report
}

/// `10` is the first ten cases, `10..20` the next ten.
fn cases_of(text: &str) -> Range<usize> {
    let (start, end) = text.split_once("..").unwrap_or(("0", text));
    start.parse().unwrap()..end.parse().unwrap()
}

#[test]
fn no_damage_is_fatal_or_passes_for_data() {
    let cases = env::var("VH5FS_DAMAGED_FILES").map_or(USUAL_CASES, |text| cases_of(&text));
    let folder = tempfile::tempdir().unwrap();
    Sound::write_all(folder.path());
    let report = look_at_all(&cases, folder.path());
    eprintln!(
        "{} damaged files, {} complaints; the slowest took {} ms; memory grew by {} bytes at most",
        report.seen.len(),
        report.wrong.len(),
        report.slowest_ms,
        report.grown_bytes
    );
    assert!(
        report.wrong.is_empty(),
        "{} complaints:\n{}",
        report.wrong.len(),
        report.wrong.join("\n")
    );
    assert_eq!(report.seen.len(), cases.len());
}
