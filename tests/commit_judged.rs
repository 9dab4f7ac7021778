//! What a commit leaves in the file, judged by the Python library: it reads every version, goes on from there, and would have written the
//! same.

mod common;
#[path = "common/staging.rs"]
mod staging;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Interpreter, Mount, Random, literal};
use serde_json::Value;
use staging::{bytes_of, set};

/// A file of a few kinds of datasets.
const FIRST: &str = r#"
def first(path, libver="earliest"):
    with h5py.File(path, "w", libver=libver) as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("r0") as group:
            group.create_dataset("x", data=np.arange(5000, dtype="<i4"), chunks=(512,))
            group.create_dataset("deep/grid", data=np.arange(1200, dtype=">f8").reshape(40, 30), chunks=(16, 8), compression="gzip")
            group.create_dataset("text", data=np.array([f"row {n}" for n in range(40)], dtype=object), dtype=h5py.string_dtype(), chunks=(16,))
            group["x"].attrs["unit"] = "m"
        versions.close()
"#;

fn overwrite(path: &Path, first: u64, numbers: &[i32]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&bytes_of(numbers.iter().copied()), first * 4)
        .unwrap();
}

/// Everything in `.staging` that differs between two files that were edited alike.
fn differences(python: &mut Interpreter, ours: &Path, theirs: &Path) -> Vec<String> {
    let found = python.run(&format!(
        "result = library.differences(library.internals({0}), library.internals({1}), 'vh5fs against library') \
         + library.differences(library.states({0}), library.states({1}), 'vh5fs against library')",
        literal(ours),
        literal(theirs)
    ));
    let words = |value: &Value| value.as_str().unwrap().to_owned();
    found.as_array().unwrap().iter().map(words).collect()
}

/// Every case of `tests/same_edits.py`.
#[test]
fn the_same_edits_give_the_same_file_as_the_library() {
    let mut python = Interpreter::new();
    let cases =
        python.run("result = {name: kind.steps for name, kind in same_edits.CASES.items()}");
    let scratch = python.scratch().to_owned();
    let mut wrong = Vec::new();
    for (case, steps) in cases.as_object().unwrap() {
        let files = python.run(&format!(
            "result = same_edits.prepare({case:?}, Path({}))",
            literal(&scratch)
        ));
        let [ours, theirs] = [0, 1].map(|n| PathBuf::from(files[n].as_str().unwrap()));
        let mount = Mount::new(&ours, &[]);
        for step in 0..steps.as_u64().unwrap() {
            python.run(&format!(
                "same_edits.by_library({case:?}, {}, {step})",
                literal(&theirs)
            ));
            let root = literal(&mount.staging(""));
            python.run(&format!("same_edits.by_staging({case:?}, {root}, {step})"));
            let name = format!("r{}", step + 1);
            if let Err(error) = mount.try_commit(&name) {
                wrong.push(format!("{case} {name}: {error}: {}", mount.status()));
                break;
            }
            let found = differences(&mut python, &ours, &theirs);
            wrong.extend(found.iter().map(|line| format!("{case} {name}: {line}")));
            if !found.is_empty() {
                break;
            }
        }
        drop(mount);
        let rebuilt = python.run(&format!(
            "library.dump({0}); result = library.rebuilt_differences({0})",
            literal(&ours)
        ));
        for line in rebuilt.as_array().unwrap() {
            wrong.push(format!("{case}, rebuilt: {}", line.as_str().unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A hundred commits, every second one by the library, of random edits.
#[test]
fn the_library_and_vh5fs_commit_in_turn() {
    const COUNT: u32 = 100;
    for libver in ["earliest", "latest"] {
        let mut python = Interpreter::new();
        let file = python.scratch().join("turns.h5");
        python.run(FIRST);
        python.run(&format!(
            "path = {}; first(path, {libver:?}); states = library.checked(path)",
            literal(&file)
        ));
        let mount = Mount::new(&file, &[]);
        let mut wanted: Vec<i32> = (0..5000).collect();
        let mut random = Random(11);
        for number in 1..=COUNT {
            let name = format!("r{number}");
            let value = i32::try_from(number).unwrap();
            let at = random.below(wanted.len());
            wanted[at] = -value;
            wanted.push(value);
            if number % 2 == 0 {
                python.run(&format!(
                    "with version(path, {name:?}) as group:\n    \
                     x = group['x']\n    x[{at}] = -{value}\n    x.resize((x.shape[0] + 1,))\n    x[-1] = {value}\n    \
                     group['deep/grid'][{number} % 40, 3] = {number}\n    group['text'][{number} % 40] = 'by the library {number}'"
                ));
            } else {
                let x = mount.staging("x");
                overwrite(&x, at as u64, &[-value]);
                overwrite(&x, wanted.len() as u64 - 1, &[value]);
                let grid = OpenOptions::new()
                    .write(true)
                    .open(mount.staging("deep/grid"))
                    .unwrap();
                let row = u64::from(number % 40);
                grid.write_all_at(&f64::from(number).to_be_bytes(), (row * 30 + 3) * 8)
                    .unwrap();
                let text = fs::read_to_string(mount.staging("text")).unwrap();
                let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
                lines[number as usize % 40] = format!("by vh5fs {number}");
                fs::write(mount.staging("text"), lines.join("\n") + "\n").unwrap();
                drop(grid);
                mount.commit(&name);
            }
            let found = fs::read(mount.version(&name, "x")).unwrap();
            assert!(
                found == bytes_of(wanted.iter().copied()),
                "{name}: wrong bytes"
            );
            assert_eq!(
                fs::read_link(mount.path().join("current")).unwrap(),
                Path::new("versions").join(&name)
            );
            if number % 20 == 0 || number == COUNT {
                python.run("states = library.checked(path, states)");
                python.judge(&file, &mount);
            }
        }
        let count = python.run("result = [len(states), library.parents(path)['r100']]");
        assert_eq!(
            (&count[0], &count[1]),
            (&Value::from(COUNT + 1), &Value::from("r99"))
        );
        drop(mount);
        if libver == "earliest" {
            // The h5dump that distributions have does not know the newest format.
            python.run("library.dump(path)");
        }
        let rebuilt = python.run("result = library.rebuilt_differences(path)");
        assert_eq!(rebuilt, Value::Array(Vec::new()));
    }
}

/// Three versions by vh5fs, over one by the library: edits, growth, a new dataset, one that goes.
fn three_versions(python: &mut Interpreter, file: &Path) -> Mount {
    python.run(FIRST);
    python.run(&format!("path = {}; first(path)", literal(file)));
    let mount = Mount::new(file, &[]);
    overwrite(&mount.staging("x"), 700, &[-1, -2, -3]);
    mount.commit("r1");
    overwrite(&mount.staging("x"), 5000, &[8; 900]);
    fs::create_dir(mount.staging("made")).unwrap();
    fs::write(mount.staging("made/numbers"), bytes_of(0..3000)).unwrap();
    set(&mount.staging("made/numbers"), "h5.dtype", "<i4");
    set(&mount.staging("made/numbers"), "unit", "s");
    set(&mount.staging("made"), "note", "by hand");
    mount.commit("r2");
    fs::remove_file(mount.staging("deep/grid")).unwrap();
    fs::write(mount.staging("text"), "only\nthree\nlines\n").unwrap();
    mount.commit("r3");
    python.run("states = library.checked(path)");
    mount
}

#[test]
fn the_library_stages_on_top() {
    let mut python = Interpreter::new();
    let file = python.scratch().join("file.h5");
    let mount = three_versions(&mut python, &file);
    python.run(
        r#"
with version(path, "p4") as group:
    assert np.array_equal(group["x"][700:703], [-1, -2, -3]) and group["x"].shape == (5900,)
    assert list(group["text"][()]) == [b"only", b"three", b"lines"]
    assert group["made/numbers"].attrs["unit"] == "s" and group["made"].attrs["note"] == "by hand"
    group["made/numbers"].resize((3500,))
    group["made/numbers"][3000:] = 4
    group["x"][699] = 5
    group["text"][1] = "four"
    group.create_dataset("deep/grid2", data=np.arange(6.0).reshape(2, 3), chunks=(2, 2))
with version(path, "p5", prev_version="r1", make_current=False) as group:
    group["deep/grid"][0, 0] = 99
states = library.checked(path, states)
assert library.rebuilt_differences(path) == []
states = library.checked(path, states)
library.dump(path)
"#,
    );
    // And vh5fs on top of that, also on the branch.
    overwrite(&mount.staging("made/numbers"), 0, &[77]);
    mount.commit("r6");
    mount.reset("p5");
    overwrite(&mount.staging("x"), 0, &[78]);
    mount.commit("r7");
    python.run(
        r#"
states = library.checked(path, states)
assert library.parents(path)["r7"] == "p5" and library.parents(path)["r6"] == "p4"
with h5py.File(path) as file:
    versions = VersionedHDF5File(file)
    assert versions["r7"]["x"][0] == 78 and versions["r7"]["deep/grid"][0, 0] == 99 and versions["r6"]["made/numbers"][0] == 77
assert library.rebuilt_differences(path) == []
"#,
    );
    python.judge(&file, &mount);
}

#[test]
fn the_library_deletes_versions_that_vh5fs_made_or_stood_on() {
    for deleted in [&["r1"][..], &["r0", "r2"], &["r3"], &["r0", "r1", "r2"]] {
        let mut python = Interpreter::new();
        let file = python.scratch().join("file.h5");
        let mount = three_versions(&mut python, &file);
        python.run(&format!(
            r#"
deleted = {deleted:?}
with h5py.File(path, "r+") as file:
    delete_versions(file, deleted)
left = {{name: state for name, state in states.items() if name not in deleted}}
states = library.checked(path, left)
assert set(states) == set(left)
assert library.rebuilt_differences(path) == []
"#
        ));
        let current = fs::read_link(mount.path().join("current")).unwrap();
        let newest = ["r3", "r2", "r1", "r0"]
            .into_iter()
            .find(|name| !deleted.contains(name))
            .unwrap();
        assert_eq!(current, Path::new("versions").join(newest));
        overwrite(&mount.staging("x"), 3, &[-4]);
        mount.commit("after");
        python.run("states = library.checked(path, states); assert library.rebuilt_differences(path) == []");
        python.judge(&file, &mount);
    }
}

#[test]
fn the_library_modifies_metadata_of_what_vh5fs_made() {
    let mut python = Interpreter::new();
    let file = python.scratch().join("file.h5");
    let mount = three_versions(&mut python, &file);
    python.run(
        r#"
from versioned_hdf5 import modify_metadata
with h5py.File(path, "r+") as file:
    versions = VersionedHDF5File(file)
    modify_metadata(versions, "x", dtype="f8", chunks=(300,))
    modify_metadata(versions, "made/numbers", compression="gzip", compression_opts=3)
    modify_metadata(versions, "deep/grid", chunks=(7, 9))
with h5py.File(path) as file:
    versions = VersionedHDF5File(file)
    for name, state in states.items():
        for place, item in library.walk(versions[name]):
            if isinstance(item, h5py.Dataset) and item.dtype != object:
                before = np.frombuffer(state[place][2], "<i4" if place != "deep/grid" else ">f8").reshape(item.shape)
                assert np.array_equal(item[()], before), (name, place)
states = library.checked(path)
"#,
    );
    // A double now, in other chunks.
    let x = OpenOptions::new()
        .write(true)
        .open(mount.staging("x"))
        .unwrap();
    x.write_all_at(&0.5_f64.to_le_bytes(), 8 * 299).unwrap();
    drop(x);
    overwrite(&mount.staging("made/numbers"), 2999, &[-1]);
    mount.commit("after");
    python.run(
        r#"
states = library.checked(path, states)
with h5py.File(path) as file:
    versions = VersionedHDF5File(file)
    assert versions["after"]["x"][299] == 0.5 and versions["after"]["made/numbers"][2999] == -1
assert library.rebuilt_differences(path) == []
"#,
    );
    python.judge(&file, &mount);
}

#[test]
fn h5dump_reads_all_that_was_written() {
    let mut python = Interpreter::new();
    let file = python.scratch().join("file.h5");
    let _mount = three_versions(&mut python, &file);
    python.run("library.dump(path)");
}

/// A file that vh5fs itself made is one to the library.
#[test]
fn a_created_file_is_the_librarys_own() {
    let mut python = Interpreter::new();
    let file = python.scratch().join("new.h5");
    python.run(FIRST);
    let mount = Mount::new(&file, &["--create"]);
    python.run(&format!(
        r#"
path, theirs = {}, {}
with h5py.File(theirs, "w") as file:
    VersionedHDF5File(file)
assert library.differences(library.internals(path), library.internals(theirs)) == []
assert library.states(path) == {{}}
"#,
        literal(&file),
        literal(&python.scratch().join("theirs.h5"))
    ));
    fs::write(mount.staging("first"), bytes_of(0..10_000)).unwrap();
    set(&mount.staging("first"), "h5.dtype", "<i4");
    mount.commit("r0");
    python.run(
        r#"
states = library.checked(path)
with version(path, "p1") as group:
    assert np.array_equal(group["first"][()], np.arange(10_000))
    group["first"][9999] = 1
states = library.checked(path, states)
assert library.rebuilt_differences(path) == []
library.dump(path)
"#,
    );
    overwrite(&mount.staging("first"), 0, &[5]);
    mount.commit("r2");
    python.run("states = library.checked(path, states)");
    python.judge(&file, &mount);
}

/// The rules for what a text that is set becomes.
#[test]
fn attributes_are_stored_as_the_contract_types_them() {
    let mut python = Interpreter::new();
    let file = python.scratch().join("file.h5");
    python.run(FIRST);
    python.run(&format!(
        r#"
path = {}
first(path)
with version(path, "r1") as group:
    attributes = group["x"].attrs
    attributes["short"] = np.int16(1)
    attributes["single"] = np.float32(1)
    attributes["fixed"] = np.bytes_(b"12345")
    attributes["three"] = np.array([1, 2, 3], ">u2")
    attributes["string"] = "5"
    attributes["too small"] = np.int8(1)
"#,
        literal(&file)
    ));
    let mount = Mount::new(&file, &[]);
    let x = mount.staging("x");
    for (name, text) in [
        ("int", "5"),
        ("large", "18446744073709551615"),
        ("negative", "-9223372036854775808"),
        ("float", "0.5"),
        ("bool", "true"),
        ("array", "[1, 2, 3]"),
        ("mixed", "[1, 2.5]"),
        ("nested", "[[1, 2], [3, 4]]"),
        ("quoted", "\"abc\""),
        ("plain", "abc def"),
        ("object", "{\"a\": 1}"),
        ("empty", ""),
        ("short", "7"),
        ("single", "0.25"),
        ("fixed", "abc"),
        ("three", "[4, 5, 6]"),
        ("string", "6"),
        ("too small", "300"),
    ] {
        set(&x, name, text);
        assert_eq!(staging::get(&x, name), text);
    }
    mount.commit("r2");
    python.run(
        r#"
with h5py.File(path) as file:
    attributes = dict(VersionedHDF5File(file)["r2"]["x"].attrs)
def check_one(name, value, dtype=None):
    found = attributes[name]
    assert np.array_equal(found, value) and np.shape(found) == np.shape(value), (name, found, value)
    assert dtype is None or found.dtype == np.dtype(dtype), (name, found.dtype)
    assert dtype is not None or type(found) is type(value), (name, type(found))
check_one("int", 5, "<i8")
check_one("large", 2**64 - 1, "<u8")
check_one("negative", -2**63, "<i8")
check_one("float", 0.5, "<f8")
check_one("bool", True, "?")
check_one("array", [1, 2, 3], "<i8")
check_one("mixed", [1, 2.5], "<f8")
check_one("nested", [[1, 2], [3, 4]], "<i8")
check_one("quoted", "abc")
check_one("plain", "abc def")
check_one("object", '{"a": 1}')
check_one("empty", "")
check_one("short", 7, "<i2")
check_one("single", 0.25, "<f4")
check_one("fixed", np.bytes_(b"abc"))
check_one("three", [4, 5, 6], ">u2")
check_one("string", "6")
check_one("too small", 300, "<i8")
check_one("unit", "m")
"#,
    );
    python.judge(&file, &mount);
}
