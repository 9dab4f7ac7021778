//! `npy/` and `meta/`: what NumPy loads and what JSON says, against h5py; names, inodes, and what happens to both when the file is damaged or
//! another program writes to it.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use common::{
    DEADLINE, Interpreter, Mount, fixtures, literal, names_in, run_python, script, wait_until,
    words,
};
use rustix::fs::SeekFrom::{Data, Hole};
use rustix::fs::{Advice, SeekFrom, fadvise};
use rustix::io::Errno;
use serde_json::Value;

/// Forms of HDF5 that are refused as a whole.
const NOT_SUPPORTED: [&str; 2] = ["layout-offsets-4.h5", "layout-shared-messages.h5"];

/// A new file, made by Python code that finds its path in `FILE`.
fn file_of(python: &mut Interpreter, code: &str) -> PathBuf {
    let file = python.scratch().join("views.h5");
    python.run(&format!("FILE = {}\n{code}", literal(&file)));
    file
}

/// Runs Python that finds the mount in `M`.
fn load(mount: &Mount, code: &str) -> String {
    let code = format!("import json, sys, numpy as np\nM = sys.argv[1]\n{code}");
    run_python(&code, &[&mount.path()])
}

fn is_npy(name: &str) -> bool {
    name.as_bytes().ends_with(b".npy")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[track_caller]
fn assert_errno<T: std::fmt::Debug>(result: std::io::Result<T>, errno: Errno) {
    let error = result.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
}

/// A copy of a file under the name that its mappings have for it, where that is another one: h5py finds nothing without.
fn with_its_own_name(file: &Path) -> Option<(tempfile::TempDir, PathBuf)> {
    let name = file.file_name().unwrap().to_str().unwrap();
    let own_name = name.strip_suffix("-renamed.h5")?;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(format!("{own_name}.h5"));
    fs::copy(file, &copy).unwrap();
    Some((folder, copy))
}

#[test]
fn numpy_and_json_read_every_fixture_as_h5py_does() {
    let mut files: Vec<PathBuf> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "h5"))
        .filter(|path| !NOT_SUPPORTED.iter().any(|name| path.ends_with(name)))
        .collect();
    files.sort();
    assert!(files.len() >= 57, "{} fixtures", files.len());
    let queue = Mutex::new(files);
    let said = Mutex::new((0, 0, Vec::new()));
    let workers = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(file) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    let mount = Mount::new(&file, &[]);
                    let named = with_its_own_name(&file);
                    let file = named.as_ref().map_or(file, |(_, file)| file.clone());
                    let mut views = script("views.py");
                    let output = views.arg(mount.path()).arg(&file).output().unwrap();
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    let counts: Vec<usize> = text
                        .lines()
                        .last()
                        .unwrap_or_default()
                        .split(", ")
                        .filter_map(|count| count.split(' ').next()?.parse().ok())
                        .collect();
                    let mut said = said.lock().unwrap();
                    if let (true, [arrays, texts]) = (output.status.success(), &counts[..]) {
                        said.0 += arrays;
                        said.1 += texts;
                    } else {
                        let file = file.display();
                        said.2.push(format!("{file}: {text}{}", words(&output)));
                    }
                }
            });
        }
    });
    let (arrays, texts, differences) = said.into_inner().unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(arrays > 2000 && texts > arrays, "{arrays}, {texts}");
}

#[test]
fn names_that_clash_are_told_apart() {
    let mut python = Interpreter::new();
    let file = file_of(
        &mut python,
        r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    for number, name in enumerate(["x", "x.npy/y", "x.json/y", ".json/y", "n" * 251, "n" * 252, "n" * 253, "npy/meta"]):
        group.create_dataset(name, data=np.full(3, number), chunks=(4,))
"#,
    );
    let mount = Mount::new(&file, &[]);
    let npy = mount.path().join("npy/current");
    let loaded = load(
        &mount,
        r#"
import os, glob
found = {}
for folder, _, files in os.walk(M + "/npy/versions/r1"):
    for name in files:
        array = np.load(os.path.join(folder, name))
        found.setdefault(int(array[0]), []).append(os.path.relpath(os.path.join(folder, name), M + "/npy/versions/r1"))
result = [found[number][0] for number in range(8)]
assert all(len(names) == 1 for names in found.values()), found
print(json.dumps(result))
"#,
    );
    let loaded: Vec<String> = serde_json::from_str(&loaded).unwrap();
    // A group keeps its name, and the dataset that wants it has a hash before its suffix.
    assert!(loaded[0].starts_with("x%") && is_npy(&loaded[0]));
    assert_eq!(loaded[1..4], ["x.npy/y.npy", "x.json/y.npy", ".json/y.npy"]);
    assert_eq!(loaded[4], format!("{}.npy", "n".repeat(251)));
    for name in &loaded[5..7] {
        assert!(name.len() == 255 && is_npy(name), "{name}");
    }
    assert_eq!(loaded[7], "npy/meta.npy");
    assert_eq!(names_in(&npy.join("x.npy")), ["y.npy"]);
    assert_errno(fs::metadata(npy.join("x")), Errno::NOENT);
    assert_errno(fs::metadata(npy.join("x.json.npy")), Errno::NOENT);

    let meta = mount.path().join("meta/current");
    assert_eq!(json(&meta.join(".json"))["kind"], "version");
    let names = names_in(&meta);
    let hashed: Vec<&String> = names
        .iter()
        .filter(|name| name.starts_with(".json%") || name.starts_with("x%"))
        .collect();
    assert_eq!(hashed.len(), 2, "{names:?}");
    assert_eq!(names_in(&meta.join(hashed[0])), [".json", "y.json"]);
    assert_eq!(json(&meta.join(hashed[1]))["shape"], serde_json::json!([3]));

    // In `staging/` the names of the views are names like any other.
    let staging = mount.path().join("staging");
    fs::write(staging.join("meta"), "abc").unwrap();
    assert_eq!(names_in(&staging.join("npy")), ["meta"]);
}

#[test]
fn views_are_read_only() {
    let mount = Mount::new(&fixtures().join("strings.h5"), &[]);
    for (view, file) in [("npy", "text.npy"), ("meta", "text.json")] {
        let folder = mount.path().join(view).join("versions/r1");
        assert_errno(File::create(folder.join("new")), Errno::ROFS);
        assert_errno(fs::remove_file(folder.join(file)), Errno::ROFS);
        assert_errno(fs::create_dir(folder.join("new")), Errno::ROFS);
        let open = fs::OpenOptions::new().write(true).open(folder.join(file));
        assert_errno(open, Errno::ROFS);
        assert_errno(
            fs::metadata(mount.path().join(view).join("at")),
            Errno::NOENT,
        );
    }
}

#[test]
fn strings_that_would_be_nearly_all_padding_are_refused() {
    let mut python = Interpreter::new();
    let file = file_of(
        &mut python,
        r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    words = np.array(["x"] * 100_000, dtype=object)
    words[77] = "y" * 3000
    group.create_dataset("wide", data=words.copy(), dtype=h5py.string_dtype())
    words[77] = "y" * 2000
    group.create_dataset("fair", data=words, dtype=h5py.string_dtype())
"#,
    );
    let log = python.scratch().join("log");
    let mount = Mount::logging_to(&log, &file);
    let npy = mount.path().join("npy/current");
    // 100,000 x 3,000 characters of four bytes are more than 1 GiB, for 200 kB of text.
    assert_errno(fs::metadata(npy.join("wide.npy")), Errno::FBIG);
    assert_eq!(names_in(&npy), ["fair.npy", "wide.npy"]);
    let read = load(
        &mount,
        r#"
a = np.load(M + "/npy/current/fair.npy", mmap_mode="r")
print(a.dtype, a.shape, a[76], a[77] == "y" * 2000, a[78], a[-1])
"#,
    );
    assert_eq!(read, "<U2000 (100000,) x True x x\n");
    drop(mount);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("wide") && log.contains("<U3000"), "{log}");
}

#[test]
fn attributes_that_linux_has_no_room_for_are_in_meta() {
    let mut python = Interpreter::new();
    let file = file_of(
        &mut python,
        r#"
with h5py.File(FILE, "w", libver="latest") as f:
    v = VersionedHDF5File(f)
    with v.stage_version("r1", timestamp=when(1)) as group:
        group.create_dataset("x", data=np.arange(3))
        group["x"].attrs["n" * 300] = 1.5
        group["x"].attrs["long"] = "z" * (1 << 20)
        group["x"].attrs["numbers"] = np.arange(1 << 17)
    v.close()
with h5py.File(FILE, "r+") as f:
    x = f["_version_data/versions/r1/x"]
    x.attrs.create("not_text", np.bytes_(b"caf\xe9"))
    name = h5py.h5a.create(x.id, b"caf\xe9", h5py.h5t.NATIVE_INT32, h5py.h5s.create(h5py.h5s.SCALAR))
    name.write(np.array(7, dtype="i4"))
"#,
    );
    let mount = Mount::new(&file, &[]);
    let facts = load(
        &mount,
        r#"
import os
found = json.load(open(M + "/meta/current/x.json"))["attributes"]
assert sorted(found) == sorted(["n" * 300, "long", "numbers", "not_text", os.fsdecode(b"caf\xe9")]), found.keys()
assert found["n" * 300] == 1.5 and found["long"] == "z" * (1 << 20)
assert found["numbers"] == list(range(1 << 17))
assert os.fsencode(found["not_text"]) == b"caf\xe9" and found[os.fsdecode(b"caf\xe9")] == 7
print(sorted(os.listxattr(M + "/meta/current/x.json")), sorted(os.listxattr(M + "/npy/current/x.npy")))
"#,
    );
    // What is an extended attribute of the array is one of the .npy file, but not what its header says.
    assert!(facts.starts_with("[] ['user.caf\\udce9', "), "{facts}");
    assert!(facts.contains("'user.h5.omitted'") && !facts.contains("h5.shape"));
}

#[test]
fn versions_share_views_as_they_share_arrays() {
    let mut python = Interpreter::new();
    let file = file_of(
        &mut python,
        r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    group.create_dataset("same", data=np.arange(3000.0), chunks=(256,))
    group.create_dataset("g/text", data=np.array(["a", "b"] * 50, dtype=object), dtype=h5py.string_dtype())
    group.create_dataset("other", data=np.arange(5))
with version(FILE, "r2", timestamp=when(2)) as group:
    group["other"][2] = 9
"#,
    );
    let mount = Mount::new(&file, &[]);
    for (view, suffix) in [("npy", "npy"), ("meta", "json")] {
        let stat = |version: &str, name: &str| {
            let folder = mount.path().join(view).join("versions").join(version);
            fs::metadata(folder.join(format!("{name}.{suffix}"))).unwrap()
        };
        for (name, is_same) in [("same", true), ("g/text", true), ("other", false)] {
            let (a, b) = (stat("r1", name), stat("r2", name));
            assert_eq!(a.ino() == b.ino(), is_same, "{view} {name}");
            assert_eq!(a.nlink(), if is_same { 2 } else { 1 });
        }
    }
    let diff = |view: &str| {
        let versions = mount.path().join(view).join("versions");
        let output = Command::new("diff")
            .args(["-r", "-q", "r1", "r2"])
            .current_dir(versions)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(diff("npy"), "Files r1/other.npy and r2/other.npy differ\n");
    assert_eq!(diff("meta"), "Files r1/.json and r2/.json differ\n");

    // A version that another program commits is there at the next look, and what it shares has one more link.
    let held = File::open(mount.path().join("npy/versions/r1/same.npy")).unwrap();
    python
        .run("with version(FILE, 'r3', timestamp=when(3)) as group: group['g/text'][0] = 'c' * 9");
    let third = |view: &str| mount.path().join(view).join("versions/r3");
    wait_until("r3", DEADLINE, || third("npy").exists());
    assert_eq!(names_in(&third("npy")), ["g", "other.npy", "same.npy"]);
    assert_eq!(json(&third("meta").join(".json"))["parent"], "r2");
    let links = || held.metadata().unwrap().nlink();
    wait_until("three links", DEADLINE, || links() == 3);
    let loaded = load(
        &mount,
        "a = np.load(M + '/npy/current/g/text.npy'); print(a.dtype, a[0], a[1], a.shape)",
    );
    assert_eq!(loaded, "<U9 ccccccccc b (100,)\n");

    // One that is deleted disappears, and what others share is read on.
    python.run("with opened(FILE) as v: delete_versions(v.f, ['r1'])");
    let first = |view: &str| mount.path().join(view).join("versions/r1");
    wait_until("no r1", DEADLINE, || {
        !first("npy").exists() && !first("meta").exists()
    });
    let mut start = [0; 6];
    held.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start, *b"\x93NUMPY");
    let loaded = load(
        &mount,
        "print(np.array_equal(np.load(M + '/npy/versions/r2/same.npy'), np.arange(3000.0)))",
    );
    assert_eq!(loaded, "True\n");
}

#[test]
fn what_is_rewritten_is_shown_as_it_is_now() {
    let mut python = Interpreter::new();
    let file = file_of(
        &mut python,
        r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    group.create_dataset("x", data=np.arange(3000), chunks=(256,))
"#,
    );
    let mount = Mount::new(&file, &[]);
    let shown = || {
        load(
            &mount,
            r#"
a = np.load(M + "/npy/versions/r1/x.npy", mmap_mode="r")
print(a.dtype, a[5], json.load(open(M + "/meta/versions/r1/x.json"))["dtype"])
"#,
        )
    };
    assert_eq!(shown(), "int64 5 <i8\n");
    let held = File::open(mount.path().join("npy/versions/r1/x.npy")).unwrap();
    python.run("with opened(FILE) as v: modify_metadata(v.f, 'x', dtype='float32')");
    wait_until("the new type", DEADLINE, || shown() == "float32 5.0 <f4\n");
    // What the kernel still has of it is as it was.
    fadvise(&held, 0, None, Advice::DontNeed).unwrap();
    let mut end = [0; 8];
    // What was opened before is never mixed with it.
    assert_errno(held.read_exact_at(&mut end, 128 + 2000 * 8), Errno::STALE);
}

/// Flips a bit of a dataset's header in version r1, which has a checksum.
const DAMAGE_HEADER: &str = r#"
with h5py.File(FILE, "w", libver="latest") as f:
    v = VersionedHDF5File(f)
    with v.stage_version("r1", timestamp=when(1)) as group:
        for name in ("broken", "sound"):
            group.create_dataset(name, data=np.arange(600), chunks=(64,))
    v.close()
with h5py.File(FILE) as f:
    at = h5py.h5o.get_info(f["_version_data/versions/r1/broken"].id).addr
    chunk = f["_version_data/sound/raw_data"].id.get_chunk_info(2).byte_offset
def flip(at):
    with open(FILE, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 4]))
"#;

#[test]
fn a_damaged_header_is_an_error_of_its_files_alone() {
    let mut python = Interpreter::new();
    let file = file_of(&mut python, &format!("{DAMAGE_HEADER}\nflip(at + 40)"));
    let mount = Mount::new(&file, &[]);
    for (view, suffix) in [("npy", "npy"), ("meta", "json")] {
        let folder = mount.path().join(view).join("versions/r1");
        let broken = format!("broken.{suffix}");
        let sound = format!("sound.{suffix}");
        let names = names_in(&folder);
        assert!(
            names.contains(&broken) && names.contains(&sound),
            "{names:?}"
        );
        assert_errno(fs::read(folder.join(broken)), Errno::IO);
        assert!(!fs::read(folder.join(sound)).unwrap().is_empty());
    }
    assert_errno(fs::read(mount.path().join("versions/r1/broken")), Errno::IO);
    assert_eq!(json(&mount.path().join("meta/current/.json"))["name"], "r1");
}

#[test]
fn a_mount_that_verifies_verifies_arrays_of_numpy_too() {
    let mut python = Interpreter::new();
    let file = file_of(&mut python, &format!("{DAMAGE_HEADER}\nflip(chunk + 8)"));
    let path = |mount: &Mount| mount.path().join("npy/current/sound.npy");
    let plain = Mount::new(&file, &[]);
    assert_eq!(fs::read(path(&plain)).unwrap().len(), 128 + 600 * 8);
    drop(plain);
    let verifying = Mount::new(&file, &["--verify"]);
    assert_errno(fs::read(path(&verifying)), Errno::IO);
    assert_eq!(fs::metadata(path(&verifying)).unwrap().len(), 128 + 600 * 8);
}

#[test]
fn holes_lie_behind_the_header() {
    let mut python = Interpreter::new();
    let file = file_of(
        &mut python,
        r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    group.create_dataset("x", shape=(8192,), dtype="f8", chunks=(1024,), data=None)
    group["x"][4096:4100] = 1.0
    group.create_dataset("empty", shape=(0, 3), dtype="f4", data=None, chunks=(4, 4))
"#,
    );
    let mount = Mount::new(&file, &[]);
    let seek = |name: &str, from: SeekFrom| {
        let file = File::open(mount.path().join("npy/current").join(name)).unwrap();
        rustix::fs::seek(file, from)
    };
    assert_eq!(seek("x.npy", Data(0)), Ok(0));
    assert_eq!(seek("x.npy", Hole(0)), Ok(128));
    assert_eq!(seek("x.npy", Data(128)), Ok(128 + 4096 * 8));
    assert_eq!(seek("x.npy", Hole(128 + 4096 * 8)), Ok(128 + 5120 * 8));
    assert_eq!(seek("x.npy", Data(128 + 5120 * 8)), Err(Errno::NXIO));
    assert_eq!(seek("empty.npy", Data(0)), Ok(0));
    assert_eq!(seek("empty.npy", Hole(0)), Ok(128));
    let shape = load(&mount, "print(np.load(M + '/npy/current/empty.npy').shape)");
    assert_eq!(shape, "(0, 3)\n");
}
