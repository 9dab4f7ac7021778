//! `staging/` over a real mount: what each operation does, what is refused and how, and the control files.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Mount, MountPoint, names_in, python, run_python, vh5fs, words};
use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, RenameFlags, Timespec,
    Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags, access, copy_file_range, fallocate, flock,
    mknodat, renameat_with, utimensat,
};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

const SCRIPT: &str = r#"
import sys, h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File
with h5py.File(sys.argv[1], "w") as f:
    file = VersionedHDF5File(f)
    with file.stage_version("r0") as g:
        g.create_dataset("values", data=np.arange(100_000, dtype="<i4"), chunks=(4096,))
        table = g.create_dataset("group/table", data=np.arange(600, dtype="<f8").reshape(20, 30), chunks=(8, 8))
        table.attrs["units"] = "m"
    with file.stage_version("r1") as g:
        g["values"][3] = 77
"#;

/// A versioned file of two versions, of which `r1` is current.
fn fixture() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("staging_basic.h5");
        let unfinished = file.with_extension(std::process::id().to_string());
        run_python(SCRIPT, &[&unfinished]);
        fs::rename(&unfinished, &file).unwrap();
        file
    })
}

/// A copy of the fixture in a folder of its own, mounted.
struct Staged {
    mount: Mount,
    folder: TempDir,
}

impl Staged {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.h5");
        fs::copy(fixture(), &file).unwrap();
        Self {
            mount: Mount::new(&file, arguments),
            folder,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("a.h5")
    }

    /// What lies beside the file.
    fn beside(&self) -> Vec<String> {
        let mut names = names_in(self.folder.path());
        names.retain(|name| name != "a.h5");
        names
    }

    fn path(&self, path: &str) -> PathBuf {
        self.mount.path().join(path)
    }

    /// Something in `staging/`.
    fn at(&self, path: &str) -> PathBuf {
        self.path("staging").join(path)
    }

    fn current(&self) -> String {
        let target = fs::read_link(self.path("current")).unwrap();
        target.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn versions(&self) -> Vec<String> {
        names_in(&self.path("versions"))
    }

    fn status(&self) -> String {
        fs::read_to_string(self.at(".status")).unwrap()
    }

    /// Writes `text` to a control file, as a shell's redirection does.
    fn order(&self, control: &str, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.at(control))?;
        file.write_all(text.as_bytes())
    }
}

/// The bytes of `values` in version `r1`.
fn values() -> Vec<u8> {
    let numbers = (0..100_000_i32).map(|i| if i == 3 { 77 } else { i });
    numbers.flat_map(i32::to_le_bytes).collect()
}

#[track_caller]
fn assert_errno<T: std::fmt::Debug>(result: io::Result<T>, errno: Errno) {
    let error = result.expect_err("this has to fail");
    assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
}

fn writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    options
}

#[track_caller]
fn run(program: &mut Command) {
    let output = program.output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", words(&output));
}

#[test]
fn it_starts_as_the_current_version_and_writes_nothing() {
    let staged = Staged::new();
    assert_eq!(
        names_in(staged.mount.path()),
        ["at", "current", "meta", "npy", "staging", "versions"]
    );
    assert_eq!(names_in(&staged.at("")), ["group", "values"]);
    assert_eq!(names_in(&staged.at("group")), ["table"]);
    assert_eq!(fs::read(staged.at("values")).unwrap(), values());
    let modes = |path| fs::metadata(staged.at(path)).unwrap().mode();
    assert_eq!(modes("values"), 0o100_644);
    assert_eq!(modes("group"), 0o40_755);
    assert_eq!(modes(".status"), 0o100_444);
    for control in [".commit", ".status", ".reset"] {
        assert!(staged.at(control).is_file());
        assert!(!staged.at("group").join(control).exists());
    }
    assert!(!staged.status().is_empty());
    assert_eq!(staged.beside(), Vec::<String>::new());
}

#[test]
fn bytes_are_edited_in_place() {
    let staged = Staged::new();
    let mut expected = values();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(staged.at("values"))
        .unwrap();
    file.write_all_at(b"edited", 5_001).unwrap();
    expected[5_001..5_007].copy_from_slice(b"edited");
    // Longer than a request, and across its end.
    let long: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    file.write_all_at(&long, 399_000).unwrap();
    expected.truncate(399_000);
    expected.extend_from_slice(&long);
    let mut found = Vec::new();
    (&file).read_to_end(&mut found).unwrap();
    assert!(found == expected);
    file.set_len(10).unwrap();
    file.set_len(20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20);
    expected.truncate(10);
    expected.extend_from_slice(&[0; 10]);
    assert_eq!(fs::read(staged.at("values")).unwrap(), expected);

    let mut appending = OpenOptions::new()
        .append(true)
        .open(staged.at("values"))
        .unwrap();
    appending.write_all(b"one").unwrap();
    file.write_all_at(b"far", 30).unwrap();
    appending.write_all(b"two").unwrap();
    expected.extend_from_slice(b"one\0\0\0\0\0\0\0fartwo");
    assert_eq!(fs::read(staged.at("values")).unwrap(), expected);

    drop(writing().truncate(true).open(staged.at("values")).unwrap());
    assert_eq!(fs::metadata(staged.at("values")).unwrap().len(), 0);
    file.sync_all().unwrap();
    File::open(staged.at("")).unwrap().sync_all().unwrap();
    assert_eq!(fs::read(staged.path("current/values")).unwrap(), values());
    assert_eq!(staged.beside(), [".a.h5.vh5fs"]);
}

#[test]
fn what_is_mapped_into_memory_is_edited() {
    let staged = Staged::new();
    let script = "
import mmap, sys
with open(sys.argv[1], 'r+b') as file, mmap.mmap(file.fileno(), 0) as memory:
    memory[100:106] = b'mapped'
    memory[-3:] = b'end'
    memory.flush()
";
    run(Command::new(python())
        .args(["-c", script])
        .arg(staged.at("values")));
    let mut expected = values();
    expected[100..106].copy_from_slice(b"mapped");
    let end = expected.len() - 3;
    expected[end..].copy_from_slice(b"end");
    assert!(fs::read(staged.at("values")).unwrap() == expected);
    staged.order(".commit", "mapped\n").unwrap();
    assert!(fs::read(staged.path("versions/mapped/values")).unwrap() == expected);
}

#[test]
fn room_holes_and_zeros() {
    let staged = Staged::new();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(staged.at("new"))
        .unwrap();
    file.write_all(&vec![7; 20_000]).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 30_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 30_000);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 90_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 30_000);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 4096, 8192).unwrap();
    fallocate(&file, FallocateFlags::ZERO_RANGE, 100, 10).unwrap();
    assert_eq!(
        fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096),
        Err(Errno::OPNOTSUPP)
    );
    let mut expected = vec![7; 20_000];
    expected.resize(30_000, 0);
    expected[4096..12_288].fill(0);
    expected[100..110].fill(0);
    assert!(fs::read(staged.at("new")).unwrap() == expected);

    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole)).unwrap();
    assert_eq!((hole, data), (4096, 12_288));
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(30_000)),
        Err(Errno::NXIO)
    );
    file.seek(SeekFrom::Start(0)).unwrap();
}

#[test]
fn bytes_are_copied_between_files() {
    let staged = Staged::new();
    let from = File::open(staged.path("versions/r1/values")).unwrap();
    let to = File::create(staged.at("copy")).unwrap();
    let mut copied = 0;
    while let count @ 1.. = copy_file_range(&from, None, &to, None, 1 << 20).unwrap() {
        copied += count;
    }
    assert_eq!(copied, values().len());
    assert!(fs::read(staged.at("copy")).unwrap() == values());
    let from = File::open(staged.at("copy")).unwrap();
    let (mut start, mut end) = (8, 0);
    let second = File::create(staged.at("second")).unwrap();
    let count = copy_file_range(&from, Some(&mut start), &second, Some(&mut end), 1000).unwrap();
    assert_eq!((count, start, end), (1000, 1008, 1000));
    assert!(fs::read(staged.at("second")).unwrap() == values()[8..1008]);
}

#[test]
fn names_come_go_and_move() {
    let staged = Staged::new();
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, staged.at(from), CWD, staged.at(to), flags)
    };
    fs::create_dir(staged.at("new")).unwrap();
    assert_errno(fs::create_dir(staged.at("new")), Errno::EXIST);
    fs::write(staged.at("new/x"), b"x").unwrap();
    assert_errno(fs::remove_dir(staged.at("new")), Errno::NOTEMPTY);
    assert_errno(fs::remove_file(staged.at("new")), Errno::ISDIR);
    assert_errno(fs::remove_dir(staged.at("values")), Errno::NOTDIR);
    assert_errno(fs::remove_file(staged.at("nothing")), Errno::NOENT);

    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(staged.at("values"))
        .unwrap();
    let ino = open.metadata().unwrap().ino();
    assert_eq!(
        rename("values", "new/x", RenameFlags::NOREPLACE),
        Err(Errno::EXIST)
    );
    rename("values", "new/moved", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::metadata(staged.at("new/moved")).unwrap().ino(), ino);
    rename("new/x", "new/moved", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(staged.at("new/moved")).unwrap(), b"x");
    assert_eq!(fs::metadata(staged.at("new/x")).unwrap().ino(), ino);
    rename("new/moved", "new/x", RenameFlags::empty()).unwrap();
    assert_eq!(names_in(&staged.at("new")), ["x"]);
    assert_eq!(fs::read(staged.at("new/x")).unwrap(), b"x");
    // What was replaced goes on for who has it open.
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    open.write_all_at(b"still", 0).unwrap();
    let mut first = [0; 5];
    open.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(&first, b"still");
    assert_eq!(
        rename("group", "group/inside", RenameFlags::empty()),
        Err(Errno::INVAL)
    );
    assert_eq!(
        rename("new", "other", RenameFlags::WHITEOUT),
        Err(Errno::INVAL)
    );

    fs::remove_file(staged.at("new/x")).unwrap();
    fs::remove_dir(staged.at("new")).unwrap();
    assert_eq!(names_in(&staged.at("")), ["group"]);
    assert_errno(fs::create_dir(staged.at("versions")), Errno::INVAL);
    assert_errno(
        fs::create_dir(staged.at(&"n".repeat(256))),
        Errno::NAMETOOLONG,
    );
}

#[test]
fn what_no_version_can_hold_is_not_permitted() {
    let staged = Staged::new();
    assert_errno(
        std::os::unix::fs::symlink("values", staged.at("link")),
        Errno::PERM,
    );
    assert_errno(
        fs::hard_link(staged.at("values"), staged.at("link")),
        Errno::PERM,
    );
    let make = |name: &str, kind| mknodat(CWD, staged.at(name), kind, Mode::RUSR, 0);
    assert_eq!(make("fifo", FileType::Fifo), Err(Errno::PERM));
    assert_eq!(make("socket", FileType::Socket), Err(Errno::PERM));
    make("regular", FileType::RegularFile).unwrap();
    assert_eq!(make("regular", FileType::RegularFile), Err(Errno::EXIST));
    assert_eq!(names_in(&staged.at("")), ["group", "regular", "values"]);
}

#[test]
fn modes_owners_and_times_are_accepted_and_forgotten() {
    let staged = Staged::new();
    for path in ["values", "group", ""] {
        let path = staged.at(path);
        let before = fs::metadata(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::chown(&path, Some(before.uid()), Some(before.gid())).unwrap();
        utimensat(CWD, &path, &at_second(5), AtFlags::empty()).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(
            (before.mode(), before.mtime()),
            (after.mode(), after.mtime())
        );
    }
    assert_eq!(staged.versions(), ["r0", "r1"]);
}

#[test]
fn outside_everything_is_read_only() {
    let staged = Staged::new();
    let version = |path: &str| staged.path("versions/r1").join(path);
    assert_errno(writing().open(version("values")), Errno::ROFS);
    assert_errno(File::create(version("new")), Errno::ROFS);
    assert_errno(fs::create_dir(version("new")), Errno::ROFS);
    assert_errno(fs::create_dir(staged.path("new")), Errno::ROFS);
    assert_errno(fs::remove_file(version("values")), Errno::ROFS);
    assert_errno(fs::remove_dir(version("group")), Errno::ROFS);
    assert_errno(fs::remove_dir(staged.path("staging")), Errno::ROFS);
    for (from, to) in [
        (version("values"), staged.at("values2")),
        (staged.at("values"), version("values2")),
        (version("values"), version("values2")),
        (staged.path("staging"), staged.path("other")),
    ] {
        assert_errno(fs::rename(from, to), Errno::ROFS);
    }
    assert_errno(
        std::os::unix::fs::symlink("x", version("link")),
        Errno::ROFS,
    );
    assert_errno(
        fs::set_permissions(version("values"), fs::Permissions::from_mode(0o600)),
        Errno::ROFS,
    );
    assert_eq!(
        utimensat(CWD, version("values"), &at_second(5), AtFlags::empty()),
        Err(Errno::ROFS)
    );
    let set = |path: &Path| rustix::fs::setxattr(path, "user.a", b"1", XattrFlags::empty());
    assert_eq!(set(&version("values")), Err(Errno::ROFS));
    assert_eq!(set(staged.mount.path()), Err(Errno::ROFS));
    assert_eq!(
        rustix::fs::removexattr(version("group/table"), "user.units"),
        Err(Errno::ROFS)
    );
    assert_eq!(
        access(version("values"), Access::WRITE_OK),
        Err(Errno::ROFS)
    );
    assert_eq!(access(staged.at("values"), Access::WRITE_OK), Ok(()));
    assert_eq!(
        access(staged.at(".status"), Access::WRITE_OK),
        Err(Errno::ACCESS)
    );
    assert_eq!(staged.beside(), Vec::<String>::new());
}

#[test]
fn attributes_are_set_and_removed() {
    let staged = Staged::new();
    let table = staged.at("group/table");
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&table, name, value, flags);
    let get = |name: &str| {
        let mut value = vec![0; 1000];
        rustix::fs::getxattr(&table, name, &mut value).map(|count| {
            value.truncate(count);
            value
        })
    };
    assert_eq!(get("user.units").unwrap(), b"m");
    set("user.units", b"km", XattrFlags::REPLACE).unwrap();
    set("user.scale", b" 0.5", XattrFlags::CREATE).unwrap();
    assert_eq!(get("user.units").unwrap(), b"km");
    // As it was set, until it is committed.
    assert_eq!(get("user.scale").unwrap(), b" 0.5");
    assert_eq!(
        set("user.scale", b"1", XattrFlags::CREATE),
        Err(Errno::EXIST)
    );
    assert_eq!(
        set("user.other", b"1", XattrFlags::REPLACE),
        Err(Errno::NODATA)
    );
    assert_eq!(
        set("trusted.other", b"1", XattrFlags::empty()),
        Err(Errno::NOTSUP)
    );
    assert_eq!(
        set("user.h5.dtype", b"<i8", XattrFlags::empty()),
        Err(Errno::PERM)
    );
    rustix::fs::removexattr(&table, "user.units").unwrap();
    assert_eq!(get("user.units"), Err(Errno::NODATA));
    assert_eq!(
        rustix::fs::removexattr(&table, "user.units"),
        Err(Errno::NODATA)
    );

    // The length follows the shape, for who has the file open too.
    let open = File::open(&table).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 4800);
    set("user.h5.shape", b"[2, 30]", XattrFlags::empty()).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 480);
    let mut appending = OpenOptions::new().append(true).open(&table).unwrap();
    appending.write_all(&[1; 8]).unwrap();
    set("user.h5.shape", b"[4, 30]", XattrFlags::empty()).unwrap();
    appending.write_all(&[2; 240]).unwrap();
    let bytes = fs::read(&table).unwrap();
    assert_eq!(bytes.len(), 5 * 240);
    assert_eq!(bytes[480..488], [1; 8]);
    assert_eq!(bytes[488..960], [0; 472]);
    assert_eq!(bytes[960..], [2; 240]);
}

fn at_second(second: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: second,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[test]
fn every_way_of_touching_commits_once() {
    let staged = Staged::new();
    let commit = staged.at(".commit");
    let touches: [(&str, &[&str]); 5] = [
        ("touch", &[]),
        ("busybox", &["touch"]),
        ("sh", &["-c", "echo > \"$0\""]),
        (
            "python",
            &[
                "-c",
                "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()",
            ],
        ),
        ("python", &["-c", "import os, sys; os.utime(sys.argv[1])"]),
    ];
    for (count, (program, arguments)) in touches.into_iter().enumerate() {
        fs::write(staged.at("new"), [u8::try_from(count).unwrap()]).unwrap();
        let mut command = match program {
            "python" => Command::new(python()),
            program => Command::new(program),
        };
        run(command.args(arguments).arg(&commit));
        assert_eq!(staged.versions().len(), 3 + count, "{program}");
        let name = staged.current();
        assert!(
            name.starts_with("20") && name.ends_with('Z'),
            "{program}: {name}"
        );
        assert_eq!(
            fs::read(staged.path("current/new")).unwrap(),
            [u8::try_from(count).unwrap()]
        );
    }
}

#[test]
fn a_commit_has_the_time_that_is_set() {
    let staged = Staged::new();
    run(Command::new("touch")
        .args(["-d", "2031-02-03T04:05:06.789012Z"])
        .arg(staged.at(".commit")));
    assert!(
        names_in(&staged.path("at")).contains(&"2031-02-03T04:05:06.789012Z".to_owned()),
        "{:?}",
        names_in(&staged.path("at"))
    );
    assert_eq!(staged.versions().len(), 3);
}

#[test]
fn what_does_not_set_the_modification_time_does_not_commit() {
    let staged = Staged::new();
    let commit = staged.at(".commit");
    drop(File::create(&commit).unwrap());
    drop(
        OpenOptions::new()
            .read(true)
            .append(true)
            .open(&commit)
            .unwrap(),
    );
    let file = writing().open(&commit).unwrap();
    file.set_len(0).unwrap();
    file.set_len(100).unwrap();
    file.sync_all().unwrap();
    drop(file.try_clone().unwrap());
    drop(file);
    assert_eq!(fs::read(&commit).unwrap(), b"");
    fs::set_permissions(&commit, fs::Permissions::from_mode(0o600)).unwrap();
    let omit = |nsec| Timespec {
        tv_sec: 0,
        tv_nsec: nsec,
    };
    let only_access = Timestamps {
        last_access: omit(UTIME_NOW),
        last_modification: omit(UTIME_OMIT),
    };
    utimensat(CWD, &commit, &only_access, AtFlags::empty()).unwrap();
    assert_errno(
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&commit),
        Errno::EXIST,
    );
    assert_eq!(staged.versions(), ["r0", "r1"]);
}

#[test]
fn a_commit_is_named_by_what_is_written() {
    let staged = Staged::new();
    fs::write(staged.at("new"), b"1").unwrap();
    let ino = fs::metadata(staged.at("new")).unwrap().ino();
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(staged.at("new"))
        .unwrap();
    staged.order(".commit", "r2\n").unwrap();
    assert_eq!(staged.current(), "r2");
    assert_eq!(fs::read(staged.path("versions/r2/new")).unwrap(), b"1");
    // It goes on as the next version, for who has it open too.
    assert_eq!(fs::metadata(staged.at("new")).unwrap().ino(), ino);
    open.write_all_at(b"23", 0).unwrap();
    staged
        .order(
            ".commit",
            "{\"name\": \"r3\", \"timestamp\": \"2031-01-01\", \"make_current\": false}",
        )
        .unwrap();
    assert_eq!(staged.versions(), ["r0", "r1", "r2", "r3"]);
    assert_eq!(staged.current(), "r2");
    assert_eq!(fs::read(staged.path("versions/r3/new")).unwrap(), b"23");
    assert_eq!(fs::read(staged.path("versions/r2/new")).unwrap(), b"1");
    assert!(names_in(&staged.path("at")).contains(&"2031-01-01T00:00:00.000000Z".to_owned()));

    assert_errno(staged.order(".commit", "r2\n"), Errno::EXIST);
    assert!(staged.status().contains("r2"), "{}", staged.status());
    assert_errno(staged.order(".commit", "a/b\n"), Errno::INVAL);
    assert_errno(staged.order(".commit", "{\"nam\": \"r4\"}"), Errno::INVAL);
    assert_errno(staged.order(".commit", "{\"name\": 4}"), Errno::INVAL);
    assert_eq!(staged.versions(), ["r0", "r1", "r2", "r3"]);
}

#[test]
fn a_reset_starts_over() {
    let staged = Staged::new();
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(staged.at("values"))
        .unwrap();
    open.write_all_at(b"edit", 12).unwrap();
    fs::write(staged.at("new"), b"1").unwrap();
    run(Command::new("touch").arg(staged.at(".reset")));
    assert_eq!(names_in(&staged.at("")), ["group", "values"]);
    let mut bytes = [0; 4];
    open.read_exact_at(&mut bytes, 12).unwrap();
    assert_eq!(bytes, 77_i32.to_le_bytes());

    staged.order(".reset", "r0\n").unwrap();
    open.read_exact_at(&mut bytes, 12).unwrap();
    assert_eq!(bytes, 3_i32.to_le_bytes());
    fs::write(staged.at("branch"), b"1").unwrap();
    staged.order(".commit", "r2\n").unwrap();
    assert_eq!(
        fs::read(staged.path("versions/r2/values")).unwrap(),
        fs::read(staged.path("versions/r0/values")).unwrap()
    );
    assert_errno(staged.order(".reset", "none\n"), Errno::NOENT);
    staged.order(".reset", "\n").unwrap();
    assert_eq!(names_in(&staged.at("")), ["branch", "group", "values"]);
}

#[test]
fn control_files_stay_where_they_are() {
    let staged = Staged::new();
    for control in [".commit", ".status", ".reset"] {
        assert_errno(fs::remove_file(staged.at(control)), Errno::PERM);
        assert_errno(fs::rename(staged.at(control), staged.at("x")), Errno::PERM);
        assert_errno(
            fs::rename(staged.at("values"), staged.at(control)),
            Errno::PERM,
        );
        assert_errno(fs::remove_dir(staged.at(control)), Errno::NOTDIR);
        assert_errno(fs::create_dir(staged.at(control)), Errno::EXIST);
        assert_eq!(
            rustix::fs::setxattr(staged.at(control), "user.a", b"1", XattrFlags::empty()),
            Err(Errno::PERM)
        );
        // In any other directory the name is one like others.
        fs::write(staged.at("group").join(control), b"1").unwrap();
    }
    assert_errno(writing().open(staged.at(".status")), Errno::PERM);
    assert_eq!(
        utimensat(CWD, staged.at(".status"), &at_second(5), AtFlags::empty()),
        Err(Errno::PERM)
    );
    assert_eq!(staged.versions(), ["r0", "r1"]);
}

#[test]
fn there_is_none_where_nothing_may_be_written() {
    let staged = Staged::with(&["--read-only"]);
    assert_eq!(
        names_in(staged.mount.path()),
        ["at", "current", "meta", "npy", "versions"]
    );
    assert_errno(fs::metadata(staged.at("")), Errno::NOENT);
    assert_errno(fs::create_dir(staged.path("staging")), Errno::ROFS);
    drop(staged);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.h5");
    fs::copy(fixture(), &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let mount = Mount::new(&file, &[]);
    assert_eq!(
        names_in(mount.path()),
        ["at", "current", "meta", "npy", "versions"]
    );
    assert_eq!(names_in(folder.path()), ["a.h5"]);
}

#[test]
fn what_is_staged_is_there_at_the_next_mount() {
    let staged = Staged::new();
    fs::write(staged.at("new"), b"1").unwrap();
    let Staged { mount, folder } = staged;
    drop(mount);
    let file = folder.path().join("a.h5");
    let staged = Staged {
        mount: Mount::new(&file, &[]),
        folder,
    };
    assert_eq!(fs::read(staged.at("new")).unwrap(), b"1");
    staged.order(".reset", "\n").unwrap();
    let Staged { mount, folder } = staged;
    drop(mount);
    assert_eq!(names_in(folder.path()), ["a.h5"]);
}

#[test]
fn more_files_are_staged_than_can_be_open() {
    let staged = Staged::new();
    let daemon = Pid::from_raw(staged.mount.pid().try_into().unwrap()).unwrap();
    let limit = Rlimit {
        current: Some(400),
        maximum: Some(400),
    };
    prlimit(Some(daemon), Resource::Nofile, limit).unwrap();
    let name = |number: usize| format!("new{number}");
    let removed = fs::File::open(staged.at("values")).unwrap();
    fs::remove_file(staged.at("values")).unwrap();
    for number in 0..500 {
        fs::write(staged.at(&name(number)), number.to_string()).unwrap();
    }
    for number in 0..500 {
        let bytes = fs::read(staged.at(&name(number))).unwrap();
        assert_eq!(bytes, number.to_string().as_bytes());
    }
    staged.order(".commit", "r2\n").unwrap();
    for number in [0, 250, 499] {
        let bytes = fs::read(staged.path("current").join(name(number))).unwrap();
        assert_eq!(bytes, number.to_string().as_bytes());
    }
    let mut bytes = vec![0; values().len()];
    removed.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, values());
}

#[test]
fn a_second_mount_reads_but_does_not_stage() {
    let staged = Staged::new();
    fs::write(staged.at("new"), b"1").unwrap();
    let log = staged.folder.path().join("log");
    let second = Mount::logging_to(&log, &staged.file());
    assert_eq!(
        fs::read(second.path().join("current/values")).unwrap(),
        values()
    );
    assert_errno(
        fs::write(second.path().join("staging/x"), b"1"),
        Errno::BUSY,
    );
    let pid = staged.mount.pid().to_string();
    assert!(fs::read_to_string(&log).unwrap().contains(&pid));
    let status = fs::read_to_string(second.path().join("staging/.status")).unwrap();
    assert!(status.contains(&pid), "{status}");
    drop(second);
    staged.order(".commit", "r2\n").unwrap();
    assert_eq!(staged.current(), "r2");
}

#[test]
fn a_file_is_made_for_the_mount() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.h5");
    let mount = Mount::new(&file, &["--create"]);
    assert_eq!(
        names_in(mount.path()),
        ["at", "meta", "npy", "staging", "versions"]
    );
    fs::write(mount.path().join("staging/x"), b"abc").unwrap();
    fs::write(mount.path().join("staging/.commit"), "first").unwrap();
    assert_eq!(fs::read(mount.path().join("current/x")).unwrap(), b"abc");
    drop(mount);

    let mount_point = MountPoint::new();
    let output = vh5fs()
        .args(["mount", "--create"])
        .args([&file, mount_point.path()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words(&output).contains("exists already; mount it without --create"),
        "{}",
        words(&output)
    );
    let check = "
import sys, h5py
from versioned_hdf5 import VersionedHDF5File
with h5py.File(sys.argv[1]) as f:
    file = VersionedHDF5File(f)
    print(file.current_version, bytes(file['first']['x'][:]))
";
    assert_eq!(run_python(check, &[&file]), "first b'abc'\n");
}

#[test]
fn a_commit_keeps_nobody_else_waiting() {
    let staged = Staged::new();
    fs::write(staged.at("new"), b"1").unwrap();
    // Another program holds the file, which a commit waits for before it gives up.
    let lock = File::open(staged.file()).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let is_over = AtomicBool::new(false);
    let mut looks = 0;
    thread::scope(|scope| {
        let (staged, is_over) = (&staged, &is_over);
        scope.spawn(move || {
            let result = staged.order(".commit", "r2\n");
            is_over.store(true, Ordering::Release);
            assert_errno(result, Errno::BUSY);
        });
        // More than there are threads for them.
        for i in 0..20 {
            scope.spawn(move || fs::write(staged.at(&format!("new{i}")), b"1").unwrap());
        }
        while !is_over.load(Ordering::Acquire) {
            assert_eq!(staged.versions(), ["r0", "r1"]);
            assert_eq!(fs::read(staged.path("current/values")).unwrap(), values());
            looks += 1;
        }
    });
    assert!(looks > 20, "{looks} looks in the time that a commit takes");
    assert_eq!(names_in(&staged.at("")).len(), 23);
    drop(lock);
    staged.order(".commit", "r2\n").unwrap();
    assert_eq!(names_in(&staged.path("versions/r2")).len(), 23);
}

#[test]
fn the_mount_is_writable_unless_it_is_told_not_to_be() {
    let options = |mount: &Mount| {
        let mounts = common::mounts_at(mount.path());
        let line = mounts.first().unwrap();
        line.split(' ').nth(3).unwrap().to_owned()
    };
    assert!(options(&Staged::new().mount).starts_with("rw"));
    let read_only = Staged::with(&["--read-only"]);
    assert!(options(&read_only.mount).starts_with("ro"));
    let error = writing()
        .custom_flags(libc::O_NOFOLLOW)
        .open(read_only.path("versions/r0/values"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
}
