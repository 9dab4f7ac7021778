//! Every way in which a commit can fail, provoked for real: the errno of the call, the words of `.status`, a file that is byte for byte as it
//! was, and edits that are still there for the next try.

mod common;
#[path = "common/staging.rs"]
mod staging;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Interpreter, Mount, literal, names_in, run, vh5fs, words};
use staging::{bytes_of, get, hash_of, numbers_of, set, sidecar, touch, try_set};

const FIRST: &str = r#"
def first(path):
    with version(path, "r0") as group:
        group.create_dataset("x", data=np.arange(5000, dtype="<i4"), chunks=(512,))
        group.create_dataset("grid", data=np.arange(60, dtype="<i4").reshape(10, 6), chunks=(4, 4))
        group.create_dataset("text", data=np.array(["a", "b"], dtype=object), dtype=h5py.string_dtype(), chunks=(16,))
    with version(path, "r1") as group:
        group["x"][0] = 1
        del group["text"]
"#;

/// A mounted file in which `x` begins with an edit that is not committed.
struct Bench {
    python: Interpreter,
    file: PathBuf,
    mount: Mount,
    hash: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let python = Interpreter::new();
        let file = python.scratch().join("file.h5");
        Self::at(python, file)
    }

    fn at(mut python: Interpreter, file: PathBuf) -> Self {
        python.run(FIRST);
        python.run(&format!("path = {}; first(path)", literal(&file)));
        let mount = Mount::new(&file, &[]);
        overwrite(&mount.staging("x"), 0, &[-7]);
        let hash = hash_of(&file);
        Self {
            python,
            file,
            mount,
            hash,
        }
    }

    /// A commit fails, and nothing is lost by that.
    #[track_caller]
    fn fails(&self, text: &str, errno: i32, words: &[&str]) {
        self.mount.fail_to_commit(text, errno, words);
        self.assert_as_before();
    }

    #[track_caller]
    fn assert_as_before(&self) {
        assert!(hash_of(&self.file) == self.hash, "the file has changed");
        let x = fs::read(self.mount.staging("x")).unwrap();
        assert_eq!(numbers_of(&x[..4]), [-7]);
        assert_eq!(names_in(&self.mount.version("", "")), ["r0", "r1"]);
    }

    /// The next try works, and Python sees the edit.
    #[track_caller]
    fn succeeds(&mut self) {
        self.mount.commit("after");
        self.python.run(
            r#"
with h5py.File(path) as file:
    group = VersionedHDF5File(file)["after"]
    assert group["x"][0] == -7 and group["x"][1] == 1
assert library.misplaced_hashes(path) == [] and library.rebuilt_differences(path) == []
"#,
        );
        self.python.judge(&self.file, &self.mount);
    }
}

fn overwrite(path: &Path, first: u64, numbers: &[i32]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&bytes_of(numbers.iter().copied()), first * 4)
        .unwrap();
}

#[test]
fn a_name_that_is_taken() {
    let mut bench = Bench::new();
    for name in ["r1", "r0"] {
        bench.fails(name, libc::EEXIST, &[name]);
    }
    bench.fails(r#"{"name": "r0"}"#, libc::EEXIST, &["r0"]);
    bench.succeeds();
}

/// One that another program took while edits were staged.
#[test]
fn a_name_that_was_taken_meanwhile() {
    let mut bench = Bench::new();
    bench
        .python
        .run("with version(path, 'r2') as group:\n    group['x'][4999] = 0");
    let hash = hash_of(&bench.file);
    bench.mount.fail_to_commit("r2", libc::EEXIST, &["r2"]);
    assert!(hash_of(&bench.file) == hash);
    // The base is still what the edits were made on.
    bench.succeeds();
    let parents = bench.python.run("result = library.parents(path)");
    assert_eq!(
        (&parents["after"], &parents["r2"]),
        (&"r1".into(), &"r1".into())
    );
}

#[test]
fn bad_names() {
    let mut bench = Bench::new();
    for name in ["a/b", ".", "..", "/"] {
        bench.fails(name, libc::EINVAL, &["name"]);
    }
    for name in ["a/b", "..", "nul\\u0000", " \\n"] {
        bench.fails(&format!(r#"{{"name": "{name}"}}"#), libc::EINVAL, &["name"]);
    }
    bench.succeeds();
}

#[test]
fn bad_requests() {
    let mut bench = Bench::new();
    for text in [
        r#"{"name": "r2", "time": "2026-01-01"}"#,
        r#"{"name": 5}"#,
        r#"{"name": "r2", "make_current": "yes"}"#,
        r#"{"name": "r2", "#,
    ] {
        bench.fails(text, libc::EINVAL, &[]);
    }
    bench.succeeds();
}

#[test]
fn bad_timestamps() {
    let mut bench = Bench::new();
    for time in [
        "yesterday",
        "2026-13-01",
        "2026-02-30",
        "2026-01-01T25:00",
        "",
        "10000-01-01",
    ] {
        let text = format!(r#"{{"name": "r2", "timestamp": "{time}"}}"#);
        bench.fails(&text, libc::EINVAL, &["time"]);
    }
    // What no text of a timestamp can say.
    let error = touch(&bench.mount.staging(".commit"), Some(400_000_000_000)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    bench.assert_as_before();
    bench.succeeds();
}

#[test]
fn a_size_that_is_no_whole_number_of_elements_or_rows() {
    let mut bench = Bench::new();
    let x = OpenOptions::new()
        .append(true)
        .open(bench.mount.staging("x"))
        .unwrap();
    (&x).write_all(b"odd").unwrap();
    bench.fails("r2", libc::EINVAL, &["x", "20003"]);
    x.set_len(20_000).unwrap();
    // A whole element, but not a whole row.
    let grid = OpenOptions::new()
        .append(true)
        .open(bench.mount.staging("grid"))
        .unwrap();
    grid.set_len(61 * 4).unwrap();
    bench.fails("r2", libc::EINVAL, &["grid", "244"]);
    grid.set_len(66 * 4).unwrap();
    bench.succeeds();
    assert_eq!(
        get(&bench.mount.version("after", "grid"), "h5.shape"),
        "[11, 6]"
    );
}

#[test]
fn text_that_cannot_be_parsed() {
    let mut bench = Bench::new();
    bench.mount.reset("r0");
    overwrite(&bench.mount.staging("x"), 0, &[-7, 1]);
    for bad in [&b"one\ntwo\\x\n"[..], b"one\n\\", b"nul\0\n"] {
        fs::write(bench.mount.staging("text"), bad).unwrap();
        bench.fails("r2", libc::EINVAL, &["text"]);
    }
    fs::write(bench.mount.staging("text"), "one\ntwo\\n\n").unwrap();
    bench.succeeds();
}

/// One path has one type for ever.
#[test]
fn a_type_that_differs_from_what_the_path_had() {
    let mut bench = Bench::new();
    // Gone since r1, but its raw data is there.
    let text = bench.mount.staging("text");
    fs::write(&text, [0; 80]).unwrap();
    set(&text, "h5.dtype", "<f8");
    bench.fails("r2", libc::EINVAL, &["text", "<f8"]);
    fs::remove_file(&text).unwrap();
    // Something else moved to where it was.
    fs::rename(bench.mount.staging("grid"), &text).unwrap();
    bench.fails("r2", libc::EINVAL, &["text"]);
    fs::rename(&text, bench.mount.staging("grid")).unwrap();
    // The same type in other chunks.
    fs::rename(bench.mount.staging("x"), bench.mount.staging("kept")).unwrap();
    fs::write(bench.mount.staging("x"), bytes_of([-7])).unwrap();
    set(&bench.mount.staging("x"), "h5.chunks", "[100]");
    bench.fails("r2", libc::EINVAL, &["x", "512"]);
    fs::rename(bench.mount.staging("kept"), bench.mount.staging("x")).unwrap();
    bench.succeeds();
}

/// What cannot be the type of anything is refused at once.
#[test]
fn attributes_that_describe_nothing() {
    let mut bench = Bench::new();
    let new = bench.mount.staging("added");
    fs::write(&new, "12345678").unwrap();
    for (name, text) in [
        ("h5.dtype", "<q9"),
        ("h5.dtype", "<U4"),
        ("h5.dtype", "[[\"a\"]]"),
        ("h5.shape", "[-1]"),
        ("h5.shape", "two"),
        ("h5.chunks", "[0]"),
        ("h5.chunks", "{}"),
        ("h5.filters", "[\"no such filter\"]"),
    ] {
        let error = try_set(&new, name, text).expect_err(text);
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name} {text}");
    }
    // What only the whole tells.
    set(&new, "h5.dtype", "<i4");
    set(&new, "h5.chunks", "[2, 2]");
    bench.fails("r2", libc::EINVAL, &["added"]);
    set(&new, "h5.chunks", "[2]");
    bench.succeeds();
}

#[test]
fn another_program_holds_the_file() {
    for mode in ["r", "r+"] {
        let mut bench = Bench::new();
        bench
            .python
            .run(&format!("held = h5py.File(path, {mode:?})"));
        // What Python flushes when it opens for writing is not our change.
        bench.hash = hash_of(&bench.file);
        bench.fails("r2", libc::EBUSY, &["file.h5"]);
        let error = touch(&bench.mount.staging(".commit"), None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        bench.assert_as_before();
        bench.python.run("held.close()");
        bench.succeeds();
    }
}

/// Without a lock nobody is in the way.
#[test]
fn a_reader_that_does_not_lock_is_no_hindrance() {
    let mut bench = Bench::new();
    // In a process of its own, as the HDF5 library opens no file both with a lock and without.
    let mut reader = Interpreter::new();
    reader.run(&format!(
        "held = h5py.File({}, 'r', locking=False); old = held['_version_data/versions/r1/x'][()]",
        literal(&bench.file)
    ));
    bench.succeeds();
    reader.run("assert np.array_equal(held['_version_data/versions/r1/x'][()], old); held.close()");
}

#[test]
fn hash_tables_that_an_old_layout_got_wrong() {
    for data_version in [2, 3] {
        let mut bench = Bench::new();
        bench.python.run(&format!(
            "with h5py.File(path, 'r+') as file:\n    file['_version_data/versions'].attrs['data_version'] = {data_version}"
        ));
        bench.hash = hash_of(&bench.file);
        bench.fails(
            "r2",
            libc::EROFS,
            &[
                "rebuild_hashtables",
                "data_version",
                &data_version.to_string(),
            ],
        );
        // As the message says.
        bench.python.run(
            r#"
with h5py.File(path, "r+") as file:
    file["_version_data/versions"].attrs["data_version"] = 4
    VersionedHDF5File(file).rebuild_hashtables()
"#,
        );
        bench.succeeds();
    }
}

/// Layout 1 is raised where there are no object strings, as the library does.
#[test]
fn the_first_layout() {
    for has_strings in [false, true] {
        let mut python = Interpreter::new();
        let file = python.scratch().join("file.h5");
        python.run(&format!(
            r#"
path = {}
with version(path, "r0") as group:
    group.create_dataset("x", data=np.arange(10), chunks=(4,))
    if {}:
        group.create_dataset("text", data=np.array(["a"], dtype=object), dtype=h5py.string_dtype(), chunks=(4,))
with h5py.File(path, "r+") as file:
    file["_version_data/versions"].attrs["data_version"] = 1
"#,
            literal(&file),
            if has_strings { "True" } else { "False" }
        ));
        let mount = Mount::new(&file, &[]);
        OpenOptions::new()
            .write(true)
            .open(mount.staging("x"))
            .unwrap()
            .write_all_at(&[9], 8)
            .unwrap();
        let hash = hash_of(&file);
        if has_strings {
            mount.fail_to_commit("r1", libc::EROFS, &["rebuild_object_dtype_hashtables"]);
            assert!(hash_of(&file) == hash);
            python.run(
                "with h5py.File(path, 'r+') as file:\n    VersionedHDF5File(file).rebuild_object_dtype_hashtables()",
            );
        }
        mount.commit("r1");
        let version = python.run(
            r#"
with h5py.File(path) as file:
    assert np.array_equal(VersionedHDF5File(file)["r1"]["x"][:3], [0, 9, 2])
    result = int(file["_version_data/versions"].attrs["data_version"])
"#,
        );
        assert_eq!(version, 4);
    }
}

/// Without permission to write there is nothing to write to, and nothing is made beside the file.
#[test]
fn a_file_that_may_not_be_written() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.h5");
    fs::copy(&bench.file, &file).unwrap();
    let look = |arguments: &[&str]| {
        let mount = Mount::new(&file, arguments);
        assert_eq!(
            names_in(mount.path()),
            ["at", "current", "meta", "npy", "versions"]
        );
        let error = fs::write(mount.staging("added"), "").unwrap_err();
        assert!(
            [libc::ENOENT, libc::EROFS].contains(&error.raw_os_error().unwrap()),
            "{error}"
        );
        assert_eq!(names_in(folder.path()), ["file.h5"]);
    };
    look(&["--read-only"]);
    look(&["-o", "ro"]);
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    look(&[]);
    assert_eq!(hash_of(&file), hash_of(&bench.file));
}

/// How many there were.
static DISKS: AtomicUsize = AtomicUsize::new(1);

/// A small file system of its own.
struct Disk {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn new(mib: u32) -> Self {
        common::need_root("a file system of its own");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::create_dir(&path).unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "vh5fs-test"])
            .arg(&path));
        // Locks are told by the number of an inode alone, and each such file system counts anew.
        for number in 0..100 * DISKS.fetch_add(1, Ordering::SeqCst) {
            fs::write(path.join(format!("filler{number}")), "").unwrap();
        }
        Self {
            path,
            _folder: folder,
        }
    }

    /// Lays the same directory over itself, not to be written to.
    fn make_read_only(&self) {
        run(Command::new("mount")
            .arg("--bind")
            .args([&self.path, &self.path]));
        run(Command::new("mount")
            .args(["-o", "remount,bind,ro"])
            .arg(&self.path));
    }

    fn make_writable(&self) {
        run(Command::new("umount").arg(&self.path));
    }

    /// Fills it up but for some bytes, and gives the file that does.
    fn fill(&self, leave_bytes: u64) -> PathBuf {
        let ballast = self.path.join("ballast");
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let file = File::create(&ballast).unwrap();
        rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::empty(),
            0,
            free - leave_bytes,
        )
        .unwrap();
        ballast
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        while !common::mounts_at(&self.path).is_empty() {
            run(Command::new("umount").arg("-l").arg(&self.path));
        }
    }
}

/// Bytes that no filter makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut random = common::Random(99);
    (0..len / 4)
        .flat_map(|_| u32::try_from(random.below(1 << 32)).unwrap().to_le_bytes())
        .collect()
}

#[test]
fn a_disk_that_is_full_when_something_is_staged() {
    let disk = Disk::new(12);
    let mut bench = Bench::at(Interpreter::new(), disk.path.join("file.h5"));
    let ballast = disk.fill(256 << 10);
    let new = File::create(bench.mount.staging("added")).unwrap();
    let noise = noise(4 << 20);
    let mut written = 0;
    let error = loop {
        assert!(written < noise.len(), "the disk is not full");
        match new.write_at(&noise[written..(written + 65536)], written as u64) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    // What was written before is there, and nothing of what was not.
    let staged = fs::read(bench.mount.staging("added")).unwrap();
    assert!(staged == noise[..staged.len()] && staged.len() >= written);
    bench.assert_as_before();
    // And so it is after the daemon was killed.
    let mount_point = bench.mount.kill();
    bench.mount = Mount::on(mount_point, &bench.file, &[]);
    assert!(fs::read(bench.mount.staging("added")).unwrap() == staged);
    bench.assert_as_before();
    fs::remove_file(ballast).unwrap();
    bench.succeeds();
    assert!(fs::read(bench.mount.version("after", "added")).unwrap() == staged);
}

#[test]
fn a_disk_that_has_no_room_for_the_commit() {
    let disk = Disk::new(24);
    let mut bench = Bench::at(Interpreter::new(), disk.path.join("file.h5"));
    let noise = noise(4 << 20);
    fs::write(bench.mount.staging("added"), &noise).unwrap();
    for leave_bytes in [0, 64 << 10, 1 << 20, (4 << 20) - (8 << 10)] {
        let ballast = disk.fill(leave_bytes);
        bench.fails("r2", libc::ENOSPC, &["file.h5"]);
        assert!(fs::read(bench.mount.staging("added")).unwrap() == noise);
        fs::remove_file(ballast).unwrap();
    }
    bench.succeeds();
    assert!(fs::read(bench.mount.version("after", "added")).unwrap() == noise);
}

/// What compresses may fit where its bytes would not.
#[test]
fn a_disk_that_has_room_for_what_compresses() {
    let disk = Disk::new(24);
    let mut bench = Bench::at(Interpreter::new(), disk.path.join("file.h5"));
    let new = bench.mount.staging("added");
    let rows: Vec<u8> = (0..8_u32 << 20)
        .map(|n| u8::try_from(n >> 16 & 0xff).unwrap() | 1)
        .collect();
    fs::write(&new, &rows).unwrap();
    set(&new, "h5.chunks", "[65536]");
    let ballast = disk.fill(2 << 20);
    set(&bench.mount.staging("x"), "note", "text");
    bench.fails("r2", libc::ENOSPC, &["file.h5"]);
    set(&new, "h5.filters", "[\"gzip\"]");
    bench.succeeds();
    assert!(fs::read(bench.mount.version("after", "added")).unwrap() == rows);
    fs::remove_file(ballast).unwrap();
}

#[test]
fn a_disk_that_became_read_only() {
    let disk = Disk::new(12);
    let mut bench = Bench::at(Interpreter::new(), disk.path.join("file.h5"));
    disk.make_read_only();
    let error = bench.mount.try_commit("r2").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    bench.assert_as_before();
    assert!(bench.mount.status().contains("Read-only"));
    disk.make_writable();
    bench.succeeds();
    // Mounted while it is so, there is no `staging/`.
    disk.make_read_only();
    let mount = Mount::new(&bench.file, &[]);
    assert_eq!(
        names_in(mount.path()),
        ["at", "current", "meta", "npy", "versions"]
    );
    drop(mount);
    disk.make_writable();
}

/// While one mount stages, another one shows the versions and refuses to stage.
#[test]
fn a_second_mount_of_the_file() {
    let mut bench = Bench::new();
    let second = Mount::new(&bench.file, &[]);
    let pid = bench.mount.pid().to_string();
    assert_eq!(names_in(&second.version("", "")), ["r0", "r1"]);
    let error = OpenOptions::new()
        .write(true)
        .open(second.staging("x"))
        .and_then(|file| file.write_at(b"abcd", 0))
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    let error = second.try_commit("r2").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    assert!(second.status().contains(&pid), "{}", second.status());
    bench.assert_as_before();
    bench.succeeds();
    // What the first one committed is there in the second.
    assert_eq!(names_in(&second.version("", "")), ["after", "r0", "r1"]);
    drop(second);
    assert!(names_in(bench.file.parent().unwrap()).contains(&"file.h5".to_owned()));
}

#[test]
fn create_refuses_a_file_that_is_there() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let output = vh5fs()
        .args(["mount", "--create"])
        .args([&bench.file, folder.path()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = words(&output);
    assert!(
        words.contains("file.h5") && words.matches('\n').count() == 1,
        "{words}"
    );
    bench.assert_as_before();
}

/// Where a commit left nothing staged, nothing is left beside the file.
#[test]
fn nothing_stays_beside_the_file() {
    let mut bench = Bench::new();
    assert!(sidecar(&bench.file).is_dir());
    let mode = fs::metadata(sidecar(&bench.file))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    bench.succeeds();
    drop(bench.mount);
    assert!(!sidecar(&bench.file).exists());
}
