//! Damaged files: every walk over one ends, with right bytes or an error, and no daemon dies of one.
//!
//! The corpus is made from sound files by changing single bits, runs of bytes, and by cutting the end off, at places that fixed seeds
//! give. What a change may do unnoticed follows from what guards the place: see [`damage::Guard`].

mod common;
#[path = "common/damage.rs"]
mod damage;

use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, panic};

use common::{DEADLINE, MountPoint, daemons_of, vh5fs, wait_until};
use damage::{Bench, Guard, Random, Sound, Tree, Watchdog, differences, limit_memory, open, walk};

/// Flips of one bit, of each file.
const FLIPS: usize = 400;
/// Runs of bytes that are overwritten, of each file.
const RUNS: usize = 100;
/// Cuts of each file.
const CUTS: usize = 60;
/// Of each file, how many of them through a mount.
const MOUNTED: usize = 24;
/// No case may take longer.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// No case may take more memory.
const MEMORY_BYTES: u64 = 3 << 30;

fn sound_files() -> &'static [Sound] {
    static FILES: OnceLock<Vec<Sound>> = OnceLock::new();
    FILES.get_or_init(Sound::make_all)
}

/// A change of a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit is another.
    Flip { at: usize, bit: u8 },
    /// Bytes are all `value`.
    Run { at: usize, len: usize, value: u8 },
    /// The file ends earlier.
    Cut { len: usize },
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Flip { at, bit } => bytes[at] ^= 1 << bit,
            Self::Run { at, len, value } => bytes[at..at + len].fill(value),
            Self::Cut { len } => bytes.truncate(len),
        }
    }

    /// What guards the bytes that it changes.
    fn guard(self, file: &Sound) -> Guard<'_> {
        match self {
            Self::Flip { at, .. } => file.guard(at),
            // Where it meets several kinds of bytes, anything may come of it.
            Self::Run { at, len, .. } => {
                let first = file.guard(at);
                let is_same = (at..at + len).all(|at| file.guard(at) == first);
                if is_same { first } else { Guard::Open }
            }
            Self::Cut { .. } => Guard::Checksum,
        }
    }
}

/// The whole corpus of one file.
fn corpus(file: &Sound) -> Vec<Damage> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let len = file.bytes.len();
    let mut corpus = Vec::new();
    for number in 0..FLIPS {
        // A third of them where the file begins, which is metadata.
        let end = if number % 3 == 0 { 4096 } else { len };
        corpus.push(Damage::Flip {
            at: random.below(end),
            bit: u8::try_from(random.below(8)).unwrap(),
        });
    }
    for number in 0..RUNS {
        let run = [1, 2, 4, 8, 64, 512][number % 6];
        corpus.push(Damage::Run {
            at: random.below(len - run),
            len: run,
            // To a Fletcher checksum, words of zeros and words of ones are the same.
            value: [0x01, 0x7f, 0x55][random.below(3)],
        });
    }
    for number in 0..CUTS {
        corpus.push(Damage::Cut {
            len: if number < 20 { number * 7 } else { random.below(len) },
        });
    }
    corpus
}

/// What a walk over the damaged file finds that it must not.
fn complaints(bench: &Bench, file: &Sound, sound: &Tree, damage: Damage) -> Vec<String> {
    let mut bytes = file.bytes.clone();
    damage.apply(&mut bytes);
    if bytes == file.bytes {
        return Vec::new();
    }
    let path = bench.put(&bytes);
    let found = panic::catch_unwind(|| match open(&path) {
        Ok(vfs) => Ok(walk(&vfs)),
        Err(error) => Err(error.to_string()),
    });
    match found {
        Ok(Ok(tree)) => differences(sound, &tree, damage.guard(file)),
        Ok(Err(message)) if message.contains("damaged.h5") && !message.contains('\n') => Vec::new(),
        Ok(Err(message)) => vec![format!("the message {message:?}")],
        Err(_) => vec!["panics".to_owned()],
    }
}

#[test]
fn every_walk_over_a_damaged_file_ends_with_right_bytes_or_an_error() {
    let watchdog = Watchdog::new(CASE_LIMIT);
    let bench = Bench::new();
    let mut failures = Vec::new();
    let mut cases = 0;
    let mut unharmed = 0;
    for file in sound_files() {
        let sound = walk(&open(&bench.put(&file.bytes)).unwrap());
        assert!(sound.len() > 60, "{}: {} entries", file.name, sound.len());
        limit_memory(MEMORY_BYTES);
        for damage in corpus(file) {
            let case = format!("{}, {damage:?}, {:?}", file.name, damage.guard(file));
            watchdog.begin(&case);
            let found = complaints(&bench, file, &sound, damage);
            cases += 1;
            unharmed += usize::from(found.is_empty());
            failures.extend(found.into_iter().map(|what| format!("{case}: {what}")));
        }
    }
    watchdog.rest();
    assert!(
        failures.is_empty(),
        "{unharmed} of {cases} cases are right; the others:\n{}",
        failures.join("\n")
    );
    assert!(cases >= 1500);
}

#[test]
fn the_judge_sees_changes() {
    let bench = Bench::new();
    let file = &sound_files()[0];
    let sound = walk(&open(&bench.put(&file.bytes)).unwrap());
    let plain = (0..file.bytes.len())
        .find(|&at| file.guard(at) == Guard::Dataset("plain"))
        .unwrap();
    let mut bytes = file.bytes.clone();
    bytes[plain] ^= 1;
    let damaged = walk(&open(&bench.put(&bytes)).unwrap());
    assert_eq!(differences(&sound, &sound, Guard::Checksum), [""; 0]);
    assert_eq!(
        differences(&sound, &damaged, Guard::Dataset("plain")),
        [""; 0]
    );
    // Three versions, of which the current one has a second path only as a link.
    let seen = differences(&sound, &damaged, Guard::Checksum);
    assert_eq!(
        seen,
        ["r1", "r2", "r3"].map(|version| format!("versions/{version}/plain: other bytes"))
    );
}

/// Mounts in the background: the daemon's process, or the line that says why not.
fn mount(file: &Path, mount_point: &MountPoint) -> Result<u32, String> {
    let output = vh5fs()
        .arg("mount")
        .args([file, mount_point.path()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = common::words(&output);
    if output.status.success() {
        assert_eq!(said, "");
        let daemons = daemons_of(mount_point.path());
        assert_eq!(daemons.len(), 1);
        return Ok(daemons[0]);
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!mount_point.is_mounted());
    Err(said)
}

fn unmount(mount_point: &MountPoint, daemon: u32) {
    let output = vh5fs()
        .arg("umount")
        .arg(mount_point.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", common::words(&output));
    wait_until("the daemon's end", DEADLINE, || !common::is_running(daemon));
}

/// Asserts that it is one line which names the file.
#[track_caller]
fn assert_one_line(said: &str, file: &Path) {
    let line = said.strip_suffix('\n').unwrap();
    assert!(
        !line.contains('\n') && line.contains(file.to_str().unwrap()),
        "{said:?}"
    );
}

#[test]
fn a_daemon_lives_through_every_damage() {
    let bench = Bench::new();
    let mount_point = MountPoint::new();
    let (mut mounted, mut refused, mut unreadable) = (0, 0, 0);
    for file in sound_files() {
        let corpus = corpus(file);
        for damage in corpus.iter().step_by(corpus.len() / MOUNTED) {
            let mut bytes = file.bytes.clone();
            damage.apply(&mut bytes);
            let path = bench.put(&bytes);
            match mount(&path, &mount_point) {
                Ok(daemon) => {
                    mounted += 1;
                    let (good, bad) = damage::walk_mounted(mount_point.path());
                    unreadable += bad;
                    assert!(good >= 1, "{damage:?}");
                    assert!(common::is_running(daemon), "{damage:?}");
                    assert!(fs::read_dir(mount_point.path()).unwrap().count() >= 2);
                    unmount(&mount_point, daemon);
                }
                Err(said) => {
                    refused += 1;
                    assert_one_line(&said, &path);
                }
            }
        }
    }
    assert!(mounted + refused >= 60 && mounted > 20 && refused > 5 && unreadable > 5);
}
