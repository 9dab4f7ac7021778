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
use damage::{
    Bench, Found, Guard, Random, Sound, Tree, Watchdog, differences, limit_memory, open, walk,
};

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
            len: if number < 20 {
                number * 7
            } else {
                random.below(len)
            },
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
    let versions = ["r1", "r2", "r3"];
    let arrays = versions.map(|version| format!("npy/versions/{version}/plain.npy: other bytes"));
    let files = versions.map(|version| format!("versions/{version}/plain: other bytes"));
    assert_eq!(seen, [arrays, files].concat());
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

/// A mount that fails with one line, which contains `words`.
#[track_caller]
fn assert_refused(file: &Path, words: &str) {
    let mount_point = MountPoint::new();
    let said = mount(file, &mount_point).unwrap_err();
    assert_one_line(&said, file);
    assert!(said.contains(words), "{said:?}");
}

#[test]
fn what_is_no_versioned_file_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    common::run_python(
        "import sys, h5py; h5py.File(sys.argv[1], 'w')['x'] = 1",
        &[&at("other.h5")],
    );
    fs::write(at("text.h5"), "no HDF5 here\n".repeat(1000)).unwrap();
    fs::write(at("empty.h5"), "").unwrap();
    fs::write(at("signature.h5"), b"\x89HDF\r\n\x1a\n").unwrap();
    let pipe = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe.h5"),
        rustix::fs::FileType::Fifo,
        pipe,
        0,
    )
    .unwrap();
    assert_refused(&at("other.h5"), "not a versioned one");
    assert_refused(&at("text.h5"), "is not an HDF5 file");
    assert_refused(&at("empty.h5"), "is not an HDF5 file");
    assert_refused(&at("signature.h5"), "damaged superblock");
    assert_refused(&at("pipe.h5"), "not a regular file");
    assert_refused(folder.path(), "is a directory");
    assert_refused(&at("none.h5"), "no such file");
}

#[test]
fn a_file_that_may_not_be_read_is_refused_in_one_line() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let everyone = |path: &Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    everyone(folder.path());
    let (file, directory) = (folder.path().join("secret.h5"), folder.path().join("mnt"));
    fs::write(&file, &sound_files()[0].bytes).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::create_dir(&directory).unwrap();
    if !rustix::process::geteuid().is_root() {
        // Nobody else to be: the owner is kept out.
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    }
    let program = folder.path().join("vh5fs");
    fs::copy(env!("CARGO_BIN_EXE_vh5fs"), &program).unwrap();
    let mut command = std::process::Command::new(&program);
    if rustix::process::geteuid().is_root() {
        command = std::process::Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program);
        std::os::unix::fs::chown(&directory, Some(65534), Some(65534)).unwrap();
    }
    let output = command
        .args([Path::new("mount"), &file, &directory])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = common::words(&output);
    assert_one_line(&said, &file);
    assert!(said.contains("permission denied"), "{said:?}");
}

#[test]
fn a_file_that_another_program_writes_to_is_refused_in_one_line() {
    let bench = Bench::new();
    let path = bench.put(&sound_files()[0].bytes);
    let mut writer = std::process::Command::new(common::python())
        .args([
            "-c",
            "import sys, h5py; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()",
        ])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut ready).unwrap();
    assert_eq!(&ready, b"open\n");
    assert_refused(&path, "is open for writing in another program: try again");
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
    let mount_point = MountPoint::new();
    let daemon = mount(&path, &mount_point).unwrap();
    unmount(&mount_point, daemon);
}

#[test]
fn absurd_numbers_harm_nothing_but_what_they_describe() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    common::run_python(
        include_str!("common/make_hostile.py"),
        &[&folder.path(), &fixtures],
    );
    let watchdog = Watchdog::new(CASE_LIMIT);
    let fine: Vec<u8> = (0..10i32).flat_map(i32::to_le_bytes).collect();
    let content = |tree: &Tree, path: &str| match tree.get(std::ffi::OsStr::new(path)) {
        Some(Found::File {
            len_bytes, content, ..
        }) => content.clone().map(|content| (*len_bytes, content)),
        Some(Found::Error(errno)) => Err(*errno),
        other => panic!("{path}: {other:?}"),
    };
    let mut walked = 0;
    let mut trees = std::collections::BTreeMap::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        watchdog.begin(&name);
        limit_memory(MEMORY_BYTES);
        match open(&path) {
            Ok(vfs) => {
                let tree = walk(&vfs);
                let version = if name == "parents" { "own" } else { "r1" };
                let path = format!("versions/{version}/fine");
                assert_eq!(content(&tree, &path), Ok((40, fine.clone())), "{name}");
                walked += 1;
                trees.insert(name, tree);
            }
            Err(error) => {
                // The same few groups are reached by more paths than the file can have.
                assert!(name.starts_with("lattice"), "{name}: {error}");
                assert!(error.to_string().contains("more links"), "{error}");
            }
        }
    }
    watchdog.rest();
    assert_eq!(walked, 8);
    let shapes = |path: &str| content(&trees["shapes"], &format!("versions/r1/{path}"));
    let all = |value: u8| vec![value; (1 << 20) + (1 << 12)];
    assert_eq!(shapes("all_holes"), Ok((1 << 62, all(0))));
    assert_eq!(shapes("all_fill"), Ok((1 << 62, all(7))));
    assert_eq!(shapes("too_long"), Err(libc::EIO));
    assert_eq!(shapes("product_overflows"), Err(libc::EIO));
    assert_eq!(shapes("empty_times_much"), Err(libc::EIO));
    assert_eq!(shapes("texts"), Err(libc::EIO));
    let with_data = |value: u8| [&[0, 1, 2, 3], &all(value)[4..]].concat();
    assert_eq!(shapes("small_chunks"), Ok((1 << 60, with_data(0))));
    assert_eq!(shapes("small_chunks_fill"), Ok((1 << 60, with_data(7))));
    let chunks = |path: &str| content(&trees["chunks"], &format!("versions/r1/{path}"));
    assert_eq!(chunks("huge_chunks"), Err(libc::EIO));
    assert_eq!(chunks("many"), Ok((8, vec![0; 8])));
    let texts = |path: &str| content(&trees["texts"], &format!("versions/r1/{path}"));
    assert_eq!(texts("same_string"), Err(libc::EIO));
    assert_eq!(texts("same_list"), Err(libc::EIO));
    for libver in ["earliest", "latest"] {
        let circles = &trees[&format!("circles_{libver}")];
        assert_eq!(
            content(circles, "versions/r1/itself"),
            Err(libc::EIO),
            "{libver}"
        );
        assert_eq!(content(circles, "versions/r1/a/b/c/up"), Err(libc::EIO));
    }
}
