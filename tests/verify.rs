//! Damage never passes for data: `vh5fs verify` finds each flipped bit and each contradiction, and a mount with `--verify` serves no byte
//! that is not what its hash says.

mod common;
#[path = "common/staging.rs"]
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use common::{Mount, fixtures, made, run, script, vh5fs, words};
use serde_json::{Value, json};

/// Bytes of an element of all datasets of numbers with flipped bits.
const ELEMENT_BYTES: u64 = 8;

/// The exit status of `vh5fs verify --json`, and what it prints.
#[track_caller]
fn verify(file: &Path, arguments: &[&str]) -> (i32, Value) {
    let output = vh5fs()
        .args(["verify", "--json"])
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert!(words(&output).matches('\n').count() <= 1, "{output:?}");
    (output.status.code().unwrap(), said)
}

/// The findings of one severity, each as `KIND OBJECT`.
fn facts(said: &Value, severity: &str) -> Vec<String> {
    let findings = said["findings"].as_array().unwrap();
    let mut facts: Vec<String> = findings
        .iter()
        .filter(|finding| finding["severity"] == severity)
        .map(|finding| {
            let object = finding["object"].as_str().unwrap_or_default();
            format!("{} {object}", finding["kind"].as_str().unwrap())
                .trim()
                .to_owned()
        })
        .collect();
    facts.sort();
    facts
}

/// Files with 1,000 flipped bits and without, and the truth about them.
fn flipped() -> (PathBuf, Value) {
    let folder = made("flipped", &["common/make_flipped.py"], |folder| {
        fs::create_dir_all(folder).unwrap();
        run(script("common/make_flipped.py").arg(folder));
    });
    let truth = fs::read(folder.join("truth.json")).unwrap();
    (folder, serde_json::from_slice(&truth).unwrap())
}

/// Numbers of the damaged chunks of each dataset.
fn damaged_chunks(truth: &Value) -> BTreeMap<String, BTreeSet<u64>> {
    serde_json::from_value(truth["damaged"].clone()).unwrap()
}

#[test]
fn each_of_1000_flipped_bits_is_found_and_nothing_else() {
    let (folder, truth) = flipped();
    let (status, said) = verify(&folder.join("sound.h5"), &[]);
    assert_eq!((status, &said["findings"]), (0, &json!([])));
    let stored = said["chunks_right"].as_u64().unwrap();

    let (status, said) = verify(&folder.join("flipped.h5"), &[]);
    assert_eq!(status, 1);
    let sorted = |places: Vec<Value>| {
        let mut places: Vec<String> = places.iter().map(ToString::to_string).collect();
        places.sort();
        places
    };
    let findings = said["findings"].as_array().unwrap();
    let found = findings.iter().map(|finding| {
        let field = |name: &str| finding[name].clone();
        json!([
            field("object"),
            field("chunk"),
            field("versions"),
            field("start"),
            field("stop")
        ])
    });
    let wanted = truth["flipped"].as_array().unwrap().clone();
    assert_eq!(sorted(found.collect()), sorted(wanted));
    let chunks: usize = damaged_chunks(&truth).values().map(BTreeSet::len).sum();
    assert_eq!(chunks, 1000);
    assert_eq!(said["chunks_right"], stored - 1000);

    // What one version or dataset loses can be asked for alone.
    let of = |arguments: &[&str]| verify(&folder.join("flipped.h5"), arguments);
    let (status, said) = of(&["--dataset", "kept"]);
    assert_eq!((status, said["chunks_right"].as_u64()), (0, Some(10)));
    let (status, said) = of(&["--version", "r2", "--dataset", "/grid/gzip"]);
    let lost = damaged_chunks(&truth)["grid/gzip"].len();
    assert_eq!(status, 1);
    assert!(
        facts(&said, "damage").len() < lost,
        "r3 has some of its own"
    );
    assert!(
        said["findings"]
            .as_array()
            .unwrap()
            .iter()
            .all(|finding| finding["versions"] == json!(["r2"]))
    );
}

/// Reads the box of a chunk row by row; `None` where each of them is an I/O error, as all of one chunk must be.
#[track_caller]
fn read_box(file: &File, shape: &[u64], start: &[u64], stop: &[u64]) -> Option<Vec<u8>> {
    let row_elements = stop[stop.len() - 1] - start[start.len() - 1];
    let rows: Vec<u64> = match (shape, start, stop) {
        ([_], [first], _) => vec![*first],
        ([_, columns], [first, column], [last, _]) => {
            (*first..*last).map(|row| row * columns + column).collect()
        }
        _ => panic!("more than two axes"),
    };
    let mut row = vec![0; usize::try_from(row_elements * ELEMENT_BYTES).unwrap()];
    let mut bytes = Vec::new();
    let mut failed = 0;
    for &element in &rows {
        match file.read_exact_at(&mut row, element * ELEMENT_BYTES) {
            Ok(()) => bytes.extend_from_slice(&row),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                failed += 1;
            }
        }
    }
    assert!(failed == 0 || failed == rows.len(), "part of a chunk");
    (failed == 0).then_some(bytes)
}

#[test]
fn a_mount_that_verifies_answers_eio_for_exactly_the_damaged_chunks() {
    let (folder, truth) = flipped();
    let damaged = damaged_chunks(&truth);
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    let mount = Mount::logging_with(&log, &folder.join("flipped.h5"), &["--verify"]);
    let mut refused = BTreeSet::new();
    for (version, datasets) in truth["versions"].as_object().unwrap() {
        for (name, cells) in datasets.as_object().unwrap() {
            let raw = folder.join("raw").join(version).join(name);
            let path = mount.path().join("versions").join(version).join(name);
            if name == "text" {
                // Of text that cannot be read nobody knows how long it is.
                let error = fs::metadata(&path)
                    .and_then(|_| fs::read(&path))
                    .unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                continue;
            }
            if name.starts_with("kept") {
                assert_eq!(fs::read(&path).unwrap(), fs::read(&raw).unwrap(), "{name}");
                continue;
            }
            let numbers =
                |value: &Value| -> Vec<u64> { serde_json::from_value(value.clone()).unwrap() };
            let boxes: Vec<(u64, Vec<u64>, Vec<u64>)> = cells
                .as_array()
                .unwrap()
                .iter()
                .map(|cell| {
                    (
                        cell[0].as_u64().unwrap(),
                        numbers(&cell[1]),
                        numbers(&cell[2]),
                    )
                })
                .collect();
            let rank = boxes[0].1.len();
            let shape: Vec<u64> = (0..rank)
                .map(|axis| boxes.iter().map(|cell| cell.2[axis]).max().unwrap())
                .collect();
            let raw = File::open(raw).unwrap();
            // Around the page cache, whose pages have other boundaries than chunks; and through it, where they have the same.
            let mut ways = vec![libc::O_DIRECT];
            ways.extend((rank == 1).then_some(0));
            for way in ways {
                let file = OpenOptions::new()
                    .read(true)
                    .custom_flags(way)
                    .open(&path)
                    .unwrap();
                for (chunk, start, stop) in &boxes {
                    let read = read_box(&file, &shape, start, stop);
                    let is_damaged = damaged
                        .get(name)
                        .is_some_and(|chunks| chunks.contains(chunk));
                    if is_damaged {
                        refused.insert((name.clone(), *chunk));
                    }
                    let wanted =
                        (!is_damaged).then(|| read_box(&raw, &shape, start, stop).unwrap());
                    assert!(
                        read == wanted,
                        "{version}, {name}, chunk {chunk} at {start:?}"
                    );
                }
            }
        }
    }
    let numbers = damaged.iter().filter(|(name, _)| *name != "text");
    let wanted: usize = numbers.map(|(_, chunks)| chunks.len()).sum();
    assert_eq!(refused.len(), wanted);
    drop(mount);
    let log = fs::read_to_string(log).unwrap();
    let chunk = damaged["plain"].iter().find(|chunk| **chunk < 330).unwrap();
    let place = format!("plain[{}:{}]", chunk * 512, chunk * 512 + 512);
    let line = log
        .lines()
        .find(|line| line.contains(&place))
        .expect(&place);
    assert!(
        line.contains("version r1") && line.contains("SHA-256"),
        "{line}"
    );
}

#[test]
fn without_the_option_a_flipped_bit_is_served() {
    // What the other test would not notice, if nothing were checked there.
    let (folder, truth) = flipped();
    let chunk = *damaged_chunks(&truth)["plain"]
        .iter()
        .find(|chunk| **chunk < 330)
        .unwrap();
    let mount = Mount::new(&folder.join("flipped.h5"), &["--read-only"]);
    let read = |path: &Path| {
        let mut bytes = vec![0; 4096];
        File::open(path)
            .unwrap()
            .read_exact_at(&mut bytes, chunk * 4096)
            .unwrap();
        bytes
    };
    let (served, right) = (
        read(&mount.version("r1", "plain")),
        read(&folder.join("raw/r1/plain")),
    );
    let bits: u32 = served
        .iter()
        .zip(&right)
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    assert_eq!(bits, 1);
}

#[test]
fn a_commit_takes_over_nothing_that_is_damaged() {
    let (folder, truth) = flipped();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("flipped.h5");
    fs::copy(folder.join("flipped.h5"), &file).unwrap();
    let before = fs::read(&file).unwrap();
    // Chunks as r3, the current version, has them.
    let cells = truth["versions"]["r3"]["plain"].as_array().unwrap().clone();
    let damaged = damaged_chunks(&truth)["plain"].clone();
    let place = |is_damaged: bool| {
        let mut found = cells
            .iter()
            .filter(|cell| damaged.contains(&cell[0].as_u64().unwrap()) == is_damaged);
        found.next().unwrap()[1][0].as_u64().unwrap() * ELEMENT_BYTES
    };
    let mount = Mount::new(&file, &["--verify"]);
    let write = |offset: u64| {
        let staged = OpenOptions::new()
            .write(true)
            .open(mount.staging("plain"))
            .unwrap();
        staged.write_all_at(&7.5f64.to_le_bytes(), offset + 16)
    };
    // One element of a damaged chunk leaves the others as they are, which nobody knows.
    let outcome = write(place(true)).and_then(|()| mount.try_commit("r4"));
    assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(!mount.version("r4", "").exists());
    mount.reset("");
    write(place(false)).unwrap();
    mount.commit("r4");
    drop(mount);
    let (_, said) = verify(&file, &["--version", "r4", "--dataset", "plain"]);
    let of_r3 = verify(&file, &["--version", "r3", "--dataset", "plain"]).1;
    assert_eq!(said["damages"], of_r3["damages"]);
    assert_ne!(fs::read(&file).unwrap(), before);
}

#[test]
fn every_contradiction_is_named() {
    let folder = made(
        "contradictions",
        &["common/make_contradictions.py"],
        |folder| {
            fs::create_dir_all(folder).unwrap();
            run(script("common/make_contradictions.py").arg(folder));
        },
    );
    let expected = fs::read(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() >= 27);
    let mut differences = Vec::new();
    for (name, wanted) in expected {
        let (status, said) = verify(&folder.join(&name).with_extension("h5"), &[]);
        let findings = said["findings"].as_array().unwrap();
        let mut found: Vec<Value> = findings
            .iter()
            .filter(|finding| finding["severity"] == "damage")
            .map(|finding| {
                let elements = match &finding["start"] {
                    Value::Null => Value::Null,
                    start => json!([start, finding["stop"]]),
                };
                json!([
                    finding["kind"],
                    finding["object"],
                    elements,
                    finding["versions"]
                ])
            })
            .collect();
        found.sort_by_key(ToString::to_string);
        let mut wanted = wanted.as_array().unwrap().clone();
        wanted.sort_by_key(ToString::to_string);
        if found != wanted || status != 1 {
            differences.push(format!("{name}: {status}, {said}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(verify(&folder.join("sound.h5"), &[]).0, 0);
}

#[test]
fn a_file_that_is_cut_short_is_checked_as_far_as_it_goes() {
    let (folder, _) = flipped();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("cut.h5");
    let whole = fs::read(folder.join("sound.h5")).unwrap();
    for part in [99, 90, 50, 10, 1] {
        fs::write(&file, &whole[..whole.len() * part / 100]).unwrap();
        let (status, said) = verify(&file, &[]);
        assert_eq!(status, 1, "{part} %: {said}");
        let found = facts(&said, "damage");
        assert!(found.contains(&"file".to_owned()), "{part} %: {found:?}");
    }
    // The file grew version by version, so that the beginning of its data is sound.
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let (_, said) = verify(&file, &[]);
    assert!(said["chunks_right"].as_u64().unwrap() > 500, "{said}");
}

/// What is to be said of fixtures that are not plainly sound: the exit status, damages and notes.
fn expected_of(fixture: &str) -> (i32, Vec<&'static str>, Vec<&'static str>) {
    match fixture {
        "crafted-mappings" => (
            1,
            vec![
                "mapping-form merged",
                "mapping-form merged",
                "mapping-form shifted",
                "mapping-form strided",
            ],
            vec![
                "unmapped merged",
                "unmapped shifted",
                "unmapped strided",
                "unmapped unordered",
            ],
        ),
        "crafted-vlen" => (
            0,
            vec![],
            vec![
                "unverifiable compound_with_ragged",
                "unverifiable compound_with_string",
                "unverifiable ragged_f8_be",
                "unverifiable ragged_i4",
                "unverifiable references",
            ],
        ),
        "data-version-2" | "data-version-3" => (0, vec![], vec!["old-layout"]),
        "filters-scaleoffset" => (0, vec![], vec!["unverifiable i4_bits"]),
        "filters-unknown" => (0, vec![], vec!["unsupported-filter unreadable"]),
        "history-deleted" => (0, vec![], vec!["parent-deleted"]),
        "history-over-unfinished" => (0, vec![], vec!["unfinished"]),
        "history-unfinished" => (
            0,
            vec![],
            vec!["current-unfinished", "unfinished", "unfinished"],
        ),
        "hostile-cycle" => (1, vec!["parent-circle", "parent-circle"], vec![]),
        "layout-offsets-4" | "layout-shared-messages" => (2, vec![], vec![]),
        "old-1.0" | "old-1.3.14" => (0, vec![], vec!["unverifiable text"]),
        "old-1.4.2" | "old-1.5.0" => (0, vec![], vec!["old-layout", "unverifiable text"]),
        _ => (0, vec![], vec![]),
    }
}

#[test]
fn every_fixture_is_sound_or_known_not_to_be() {
    let manifest = fs::read(fixtures().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let files = manifest["files"].as_object().unwrap();
    assert!(files.len() >= 59);
    for (key, truth) in files {
        let file = fixtures().join(truth["path"].as_str().unwrap());
        let (status, said) = verify(&file, &[]);
        let (wanted, damages, notes) = expected_of(key);
        assert_eq!(status, wanted, "{key}: {said}");
        if status < 2 {
            assert_eq!(facts(&said, "damage"), damages, "{key}: {said}");
            assert_eq!(facts(&said, "note"), notes, "{key}: {said}");
        }
    }
}

#[test]
fn what_cannot_be_checked_is_served_with_one_warning() {
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    let (checked, plain) = (
        Mount::logging_with(
            &log,
            &fixtures().join("old-1.5.0.h5"),
            &["--verify", "--read-only"],
        ),
        Mount::new(&fixtures().join("old-1.5.0.h5"), &["--read-only"]),
    );
    let mut names = 0;
    for version in fs::read_dir(plain.path().join("versions")).unwrap() {
        let version = version.unwrap().file_name();
        for name in ["text", "plain"] {
            let [a, b] = [&checked, &plain].map(|mount| {
                fs::read(mount.path().join("versions").join(&version).join(name)).ok()
            });
            assert!(a == b, "{version:?}, {name}");
            names += usize::from(a.is_some());
        }
    }
    assert!(names > 4);
    drop(checked);
    let log = fs::read_to_string(log).unwrap();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("cannot be checked"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("dataset text: ") && warnings[0].contains("data_version 3"),
        "{log}"
    );
}

#[test]
fn what_cannot_be_opened_could_not_be_checked() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    File::create(path("text.h5"))
        .unwrap()
        .write_all(b"not HDF5")
        .unwrap();
    for (file, said) in [
        ("none.h5", "No such file"),
        ("text.h5", "not an HDF5 file"),
        (".", "not a regular file"),
    ] {
        let output = vh5fs().arg("verify").arg(path(file)).output().unwrap();
        let words = words(&output);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(
            words.starts_with("vh5fs: ") && words.contains(said),
            "{words}"
        );
        assert_eq!(words.matches('\n').count(), 1, "{words}");
        assert!(output.stdout.is_empty());
    }
    let (folder, _) = flipped();
    for arguments in [
        ["--version", "r9"],
        ["--version", "current~9"],
        ["--dataset", "none"],
    ] {
        assert_eq!(verify(&folder.join("sound.h5"), &arguments).0, 2);
    }
    // Whatever else names a version.
    let of = |version: &str| {
        let output = vh5fs()
            .args(["verify", "--version", version])
            .arg(folder.join("sound.h5"))
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(of("r3").contains(" in 1 version, "));
    for same in ["current", "versions/r3", "2999"] {
        assert_eq!(of(same), of("r3"));
    }
    assert_eq!(of("r3~1"), of("r2"));
    let output = vh5fs()
        .arg("verify")
        .arg(folder.join("sound.h5"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.ends_with(
            "sound.h5: sound; 9 datasets in 3 versions, 1054 stored chunks as their hashes say\n"
        ),
        "{text}"
    );
}

#[test]
fn what_the_python_library_leaves_behind_is_no_damage() {
    const SCRIPT: &str = r#"
import sys, h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File, delete_versions
with h5py.File(sys.argv[1], "w") as f:
    v = VersionedHDF5File(f)
    for n in range(6):
        with v.stage_version(f"r{n}") as g:
            if n == 0:
                g.create_dataset("x", data=np.arange(1000.0), chunks=(64,))
                g.create_dataset("grid", data=np.arange(600).reshape(20, 30), chunks=(8, 8))
                g.create_dataset("text", data=np.array(["a", "b"] * 50, dtype=object), dtype=h5py.string_dtype(), chunks=(16,))
            else:
                g["x"][n * 100] = -n
                g["grid"][n, 29] = -n
                g["text"][n] = "c" * n
    del v["r3"]
    delete_versions(f, ["r1", "r2"])
    del v["r5"]
"#;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("left.h5");
    common::run_python(SCRIPT, &[&file]);
    let (status, said) = verify(&file, &[]);
    assert_eq!((status, facts(&said, "damage")), (0, Vec::new()), "{said}");
    let notes = facts(&said, "note");
    assert!(notes.contains(&"unmapped x".to_owned()), "{notes:?}");
}

#[test]
fn a_file_that_another_program_writes_to_could_not_be_checked() {
    let (folder, _) = flipped();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("held.h5");
    fs::copy(folder.join("sound.h5"), &file).unwrap();
    let held = File::options().read(true).write(true).open(&file).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let output = vh5fs().arg("verify").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(words(&output).contains("open for writing"), "{output:?}");
    drop(held);
    assert_eq!(verify(&file, &[]).0, 0);
    // A check leaves nothing beside the file.
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}
