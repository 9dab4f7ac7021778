//! Every fixture, mounted and held against the truth about it: names, bytes, stat, extended attributes, times.
//!
//! `tests/fixtures/make.py` makes the files with versioned-hdf5 and h5py and writes down what they hold; `tests/fixtures/judge.py`
//! compares a mount with it.

mod common;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use common::{Mount, MountPoint, fixtures, script, vh5fs, words};
use serde_json::Value;

/// Forms of HDF5 that versioned-hdf5 cannot write: refused as a whole, since nothing of them can be read.
const NOT_SUPPORTED: [&str; 2] = ["layout-offsets-4", "layout-shared-messages"];

/// Keys of all fixtures and their files.
fn files() -> VecDeque<(String, PathBuf)> {
    let manifest = fs::read(fixtures().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["files"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, truth)| {
            let path = fixtures().join(truth["path"].as_str().unwrap());
            (key.clone(), path)
        })
        .collect()
}

fn file_of(key: &str) -> PathBuf {
    files()
        .into_iter()
        .find(|(found, _)| found == key)
        .unwrap()
        .1
}

/// Mounts the fixture `key` and gives what the judge says, if there is any difference.
fn judge(key: &str, file: &Path) -> Result<(), String> {
    let mount = Mount::new(file, &[]);
    let output = script("fixtures/judge.py")
        .arg(mount.path())
        .arg(fixtures().join("manifest.json"))
        .arg(key)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &words(&output);
    let checks = said.lines().find_map(|line| {
        let counts = line.strip_prefix(key)?.strip_prefix(": ")?;
        counts
            .strip_suffix(" checks, 0 differences")?
            .parse::<u32>()
            .ok()
    });
    if output.status.success() && checks.is_some_and(|checks| checks > 0) {
        println!("{key}: {} checks", checks.unwrap());
        return Ok(());
    }
    let shown: Vec<_> = said.lines().take(20).collect();
    Err(format!(
        "{key}: {}\n    {}",
        output.status,
        shown.join("\n    ")
    ))
}

#[test]
fn every_fixture_shows_the_truth() {
    let mut files = files();
    assert!(files.len() >= 59, "{} fixtures", files.len());
    files.retain(|(key, _)| !NOT_SUPPORTED.contains(&key.as_str()));
    let queue = Mutex::new(files);
    let differences = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some((key, file)) = queue.lock().unwrap().pop_front() else {
                        return;
                    };
                    if let Err(said) = judge(&key, &file) {
                        differences.lock().unwrap().push(said);
                    }
                }
            });
        }
    });
    let differences = differences.into_inner().unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn forms_that_nobody_writes_are_refused_in_one_line() {
    for key in NOT_SUPPORTED {
        let file = file_of(key);
        let mount_point = MountPoint::new();
        let output = vh5fs()
            .arg("mount")
            .args([file.as_path(), mount_point.path()])
            .output()
            .unwrap();
        let words = words(&output);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(
            words.starts_with(&format!("vh5fs: {}: ", file.display())),
            "{words}"
        );
        assert!(words.contains("not supported"), "{words}");
        assert_eq!(words.matches('\n').count(), 1, "{words}");
        assert!(!mount_point.is_mounted());
    }
}

#[test]
fn an_unknown_filter_is_named_in_the_log_and_keeps_nothing_else_from_being_read() {
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    let mount = Mount::logging_to(&log, &file_of("filters-unknown"));
    let version = mount.path().join("versions/r1");
    assert_eq!(
        fs::metadata(version.join("unreadable")).unwrap().len(),
        4800
    );
    let error = fs::read(version.join("unreadable")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    assert_eq!(fs::read(version.join("readable")).unwrap().len(), 4800);
    drop(mount);
    let log = fs::read_to_string(&log).unwrap();
    assert!(
        log.lines()
            .any(|line| line.contains("32767") && line.contains("unreadable")),
        "{log}"
    );
}
