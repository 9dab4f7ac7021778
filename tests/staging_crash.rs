//! What is staged outlives an unmount and a killed daemon, and a daemon that is killed while it commits leaves the file as it was or with
//! the whole new version.

mod common;
#[path = "common/staging.rs"]
mod staging;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Interpreter, Mount, Random, literal, names_in, send};
use rustix::process::Signal;
use staging::{bytes_of, get, numbers_of, set, sidecar, touch};

const FIRST: &str = r#"
def first(path, size=5000):
    with version(path, "r0") as group:
        group.create_dataset("x", data=np.arange(size, dtype="<i4"), chunks=(4096,))
        group.create_dataset("deep/grid", data=np.arange(1200, dtype=">f8").reshape(40, 30), chunks=(16, 8), compression="gzip")
        group.create_dataset("text", data=np.array([f"row {n}" for n in range(40)], dtype=object), dtype=h5py.string_dtype(), chunks=(16,))
        group["deep"].attrs["note"] = "a group"
"#;

fn start(python: &mut Interpreter, size: usize) -> PathBuf {
    let file = python.scratch().join("file.h5");
    python.run(FIRST);
    python.run(&format!(
        "path = {}; first(path, {size}); states = library.checked(path)",
        literal(&file)
    ));
    file
}

fn again(mount: Mount, file: &Path) -> Mount {
    Mount::on(mount.kill(), file, &[])
}

fn writable(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// One of every operation, none of it committed.
fn stage_everything(mount: &Mount) {
    let path = |name: &str| mount.staging(name);
    writable(&path("x"))
        .write_all_at(&bytes_of([-1, -2]), 4000)
        .unwrap();
    writable(&path("x")).set_len(4 * 7000).unwrap();
    fs::rename(path("deep/grid"), path("moved")).unwrap();
    fs::remove_file(path("text")).unwrap();
    fs::create_dir_all(path("new/inner")).unwrap();
    fs::write(path("new/inner/numbers"), bytes_of(0..100)).unwrap();
    set(&path("new/inner/numbers"), "h5.dtype", "<i4");
    set(&path("new/inner/numbers"), "h5.shape", "[20, 5]");
    set(&path("new/inner/numbers"), "unit", "s");
    set(&path("new"), "note", "[1, 2]");
    set(&path("x"), "note", "true");
    rustix::fs::removexattr(path("deep"), "user.note").unwrap();
    set(&path(""), "about", "the whole");
    fs::write(path("gone"), "for a moment").unwrap();
    fs::remove_file(path("gone")).unwrap();
    fs::remove_dir(path("deep")).unwrap();
}

#[track_caller]
fn assert_everything_is_staged(mount: &Mount) {
    let path = |name: &str| mount.staging(name);
    assert_eq!(names_in(&path("")), ["moved", "new", "x"]);
    assert_eq!(names_in(&path("new/inner")), ["numbers"]);
    let mut x: Vec<i32> = (0..5000).collect();
    x.resize(7000, 0);
    x[1000..1002].copy_from_slice(&[-1, -2]);
    assert_eq!(numbers_of(&fs::read(path("x")).unwrap()), x);
    let grid = fs::read(path("moved")).unwrap();
    assert!(grid == fs::read(mount.version("r0", "deep/grid")).unwrap());
    assert_eq!(get(&path("moved"), "h5.dtype"), ">f8");
    assert_eq!(
        fs::read(path("new/inner/numbers")).unwrap(),
        bytes_of(0..100)
    );
    for (name, attribute, value) in [
        ("new/inner/numbers", "h5.shape", "[20, 5]"),
        ("new/inner/numbers", "unit", "s"),
        ("new", "note", "[1, 2]"),
        ("x", "note", "true"),
        ("", "about", "the whole"),
    ] {
        assert_eq!(get(&path(name), attribute), value);
    }
}

#[test]
fn everything_staged_outlives_an_unmount_and_a_killed_daemon() {
    let mut python = Interpreter::new();
    let file = start(&mut python, 5000);
    let mut mount = Mount::new(&file, &[]);
    stage_everything(&mount);
    assert_everything_is_staged(&mount);
    let status = mount.status();
    mount = again(mount, &file);
    assert_everything_is_staged(&mount);
    assert_eq!(mount.status(), status);
    drop(mount);
    // The versions are what they were, to those who only read as well.
    let reading = Mount::new(&file, &["--read-only"]);
    assert_eq!(names_in(&reading.version("r0", "")), ["deep", "text", "x"]);
    drop(reading);
    let mount = Mount::new(&file, &[]);
    assert_everything_is_staged(&mount);
    mount.commit("r1");
    python.run(
        r#"
states = library.checked(path, states)
with h5py.File(path) as file:
    group = VersionedHDF5File(file)["r1"]
    assert sorted(group) == ["moved", "new", "x"]
    assert group["new/inner/numbers"].shape == (20, 5) and group["new/inner/numbers"].attrs["unit"] == "s"
    assert list(group["new"].attrs["note"]) == [1, 2] and group["x"].attrs["note"] == True and group.attrs["about"] == "the whole"
    assert group["x"].shape == (7000,) and group["moved"].shape == (40, 30)
"#,
    );
    python.judge(&file, &mount);
    // Nothing is staged any more, and a mount later it still is so.
    drop(mount);
    assert!(!sidecar(&file).exists());
    let mount = Mount::new(&file, &[]);
    assert!(fs::read(mount.staging("x")).unwrap() == fs::read(mount.version("r1", "x")).unwrap());
}

/// A reset is not undone by a crash either.
#[test]
fn a_branch_outlives_a_killed_daemon() {
    let mut python = Interpreter::new();
    let file = start(&mut python, 5000);
    let mut mount = Mount::new(&file, &[]);
    writable(&mount.staging("x"))
        .write_all_at(&bytes_of([5]), 0)
        .unwrap();
    mount.commit("r1");
    mount.reset("r0");
    writable(&mount.staging("x"))
        .write_all_at(&bytes_of([6]), 4)
        .unwrap();
    mount = again(mount, &file);
    assert_eq!(
        numbers_of(&fs::read(mount.staging("x")).unwrap())[..2],
        [0, 6]
    );
    mount.commit("r2");
    let parents =
        python.run("states = library.checked(path, states); result = library.parents(path)");
    assert_eq!(
        (&parents["r2"], &parents["r1"]),
        (&"r0".into(), &"r0".into())
    );
}

/// The daemon is killed while somebody writes all the time: what was written is there, and the rest as it was.
#[test]
fn a_daemon_that_is_killed_while_it_is_written_to() {
    const BLOCK: usize = 1000;
    const BLOCKS: usize = 2000;
    let mut python = Interpreter::new();
    let file = start(&mut python, BLOCK * BLOCKS / 4);
    for round in 1..=5_u8 {
        let mount = Mount::new(&file, &[]);
        let done = AtomicUsize::new(0);
        let x = writable(&mount.staging("x"));
        let before = fs::read(mount.staging("x")).unwrap();
        let mut mount = Some(mount);
        thread::scope(|scope| {
            let (done, x) = (&done, &x);
            scope.spawn(move || {
                for number in 0..BLOCKS {
                    if x.write_all_at(&[round; BLOCK], (number * BLOCK) as u64)
                        .is_err()
                    {
                        return;
                    }
                    done.store(number + 1, Ordering::SeqCst);
                }
            });
            common::wait_until("some blocks", common::DEADLINE, || {
                done.load(Ordering::SeqCst) >= 50 * usize::from(round)
            });
            mount = mount.take().map(|mount| again(mount, &file));
        });
        drop(x);
        let mount = mount.unwrap();
        let done = done.into_inner();
        let found = fs::read(mount.staging("x")).unwrap();
        assert_eq!(found.len(), before.len());
        assert!(
            found[..done * BLOCK].iter().all(|&byte| byte == round),
            "a write is lost"
        );
        // One that was under way may be there or not.
        let rest = (done + 1).min(BLOCKS) * BLOCK;
        assert!(
            found[rest..] == before[rest..],
            "written where nobody wrote"
        );
        if round % 2 == 0 {
            let name = format!("r{round}");
            mount.commit(&name);
            python.run("states = library.checked(path, states)");
            assert!(python.contents(&file, &name)["x"] == found);
        }
    }
}

/// Killed at some moment of a commit, again and again. Either the version is there and nothing is staged, or it is not there and the
/// edits are.
#[test]
fn a_daemon_that_is_killed_while_it_commits() {
    const SIZE: usize = 1 << 20;
    const ROUNDS: i32 = 24;
    let mut python = Interpreter::new();
    let file = start(&mut python, SIZE);
    let mut mount = Mount::new(&file, &[]);
    let mut wanted: Vec<i32> = (0..).take(SIZE).collect();
    let mut random = Random(7);
    // How long a whole commit takes here; the kills are spread over that.
    let mut whole = Duration::ZERO;
    let (mut finished, mut unfinished) = (0, 0);
    for round in 1..=ROUNDS {
        let x = writable(&mount.staging("x"));
        for _ in 0..200 {
            let at = random.below(SIZE);
            wanted[at] = -round;
            x.write_all_at(&bytes_of([-round]), at as u64 * 4).unwrap();
        }
        let appended = vec![round; 5000];
        wanted.extend(&appended);
        x.write_all_at(&bytes_of(appended), (wanted.len() as u64 - 5000) * 4)
            .unwrap();
        drop(x);
        let name = format!("r{round}");
        if round <= 2 {
            let start = Instant::now();
            mount.commit(&name);
            whole = start.elapsed();
            continue;
        }
        let commit = mount.staging(".commit");
        let text = name.clone();
        let committing = thread::spawn(move || -> io::Result<()> {
            OpenOptions::new()
                .write(true)
                .open(commit)?
                .write_all_at(text.as_bytes(), 0)
        });
        thread::sleep(whole * u32::try_from(round).unwrap() / 22);
        mount = again(mount, &file);
        let answered = committing.join().unwrap();
        let is_there = mount.version(&name, "").is_dir();
        assert!(
            is_there || answered.is_err(),
            "{name} was said to be committed"
        );
        let staged = fs::read(mount.staging("x")).unwrap();
        assert!(
            staged == bytes_of(wanted.iter().copied()),
            "{name}: {is_there}, an edit is lost"
        );
        python.run("states = library.checked(path, states)");
        if is_there {
            finished += 1;
        } else {
            unfinished += 1;
            mount.commit(&name);
            python.run("states = library.checked(path, states)");
        }
        let parents = python.run("result = library.parents(path)");
        assert_eq!(parents[&name], format!("r{}", round - 1));
        assert_eq!(parents[""], name.as_str());
        assert!(python.contents(&file, &name)["x"] == bytes_of(wanted.iter().copied()));
    }
    println!(
        "{finished} commits were finished, {unfinished} were not; a whole one takes {whole:?}"
    );
    assert!(unfinished > 0, "no commit was interrupted");
    python.judge(&file, &mount);
    drop(mount);
    assert_eq!(
        python.run("result = library.rebuilt_differences(path)"),
        serde_json::json!([])
    );
}

/// Once the daemon that staged is gone, another mount may, with all that was staged.
#[test]
fn another_mount_takes_over_from_a_killed_daemon() {
    let mut python = Interpreter::new();
    let file = start(&mut python, 5000);
    let first = Mount::new(&file, &[]);
    stage_everything(&first);
    let second = Mount::new(&file, &[]);
    let error = fs::write(second.staging("mine"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    let dead = first.kill();
    let third = Mount::on(dead, &file, &[]);
    assert_everything_is_staged(&third);
    drop(third);
    drop(second);
    let mount = Mount::new(&file, &[]);
    assert_everything_is_staged(&mount);
    mount.commit("r1");
    python.run("states = library.checked(path, states)");
}

/// Ends within seconds and keeps everything, also while a file in `staging/` is open.
#[test]
fn a_signal_ends_the_daemon_with_files_open_in_staging() {
    let mut python = Interpreter::new();
    let file = start(&mut python, 5000);
    let mut mount = Mount::new(&file, &[]);
    let open = writable(&mount.staging("x"));
    open.write_all_at(&bytes_of([-9]), 0).unwrap();
    send(mount.pid(), Signal::TERM);
    assert_eq!(mount.wait(common::DEADLINE), Some(0));
    assert!(open.write_all_at(&bytes_of([-8]), 0).is_err());
    drop((open, mount));
    let mount = Mount::new(&file, &[]);
    assert_eq!(numbers_of(&fs::read(mount.staging("x")).unwrap())[0], -9);
}

/// The version that the edits stand on is deleted by the library: there is nothing that they are edits of.
#[test]
fn a_base_that_vanished() {
    let mut python = Interpreter::new();
    let file = start(&mut python, 5000);
    python.run("with version(path, 'r1') as group:\n    group['x'][1] = 9");
    let mount = Mount::new(&file, &[]);
    writable(&mount.staging("x"))
        .write_all_at(&bytes_of([-9]), 0)
        .unwrap();
    python.run("with h5py.File(path, 'r+') as file:\n    delete_versions(file, ['r1'])");
    let error = fs::read(mount.staging("x")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    let error = mount.try_commit("r2").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    assert!(mount.status().contains("r1"), "{}", mount.status());
    touch(&mount.staging(".reset"), None).unwrap();
    assert_eq!(
        numbers_of(&fs::read(mount.staging("x")).unwrap())[..2],
        [0, 1]
    );
    writable(&mount.staging("x"))
        .write_all_at(&bytes_of([-9]), 0)
        .unwrap();
    mount.commit("r2");
    python.run("states = library.checked(path, {'r0': states['r0']}); assert sorted(states) == ['r0', 'r2']");
    python.judge(&file, &mount);
}

/// While nothing is staged, staging shows what is current, whoever made it so.
#[test]
fn staging_follows_the_current_version() {
    let mut python = Interpreter::new();
    let file = start(&mut python, 5000);
    let mount = Mount::new(&file, &[]);
    assert_eq!(numbers_of(&fs::read(mount.staging("x")).unwrap())[0], 0);
    for number in 1..4 {
        python.run(&format!(
            "with version(path, 'r{number}') as group:\n    group['x'][0] = {number}\n    group.create_dataset('new{number}', data=np.arange(5), chunks=(4,))"
        ));
        common::wait_until("the new version", common::DEADLINE, || {
            numbers_of(&fs::read(mount.staging("x")).unwrap())[0] == number
        });
        assert!(mount.staging(&format!("new{number}")).is_file());
    }
    writable(&mount.staging("x"))
        .write_all_at(&bytes_of([-1]), 4)
        .unwrap();
    python.run("with version(path, 'r4') as group:\n    group['x'][0] = 4");
    // Now it stands where the first edit was made.
    assert_eq!(
        numbers_of(&fs::read(mount.staging("x")).unwrap())[..2],
        [3, -1]
    );
    mount.commit("mine");
    let parents =
        python.run("states = library.checked(path, states); result = library.parents(path)");
    assert_eq!(
        (&parents["mine"], &parents["r4"]),
        (&"r3".into(), &"r3".into())
    );
}

/// A file that stays open goes on against the version that was just made of it.
#[test]
fn open_files_go_on_after_a_commit() {
    let mut python = Interpreter::new();
    let file = start(&mut python, 5000);
    let mount = Mount::new(&file, &[]);
    let x = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.staging("x"))
        .unwrap();
    let gone = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.staging("deep/grid"))
        .unwrap();
    fs::remove_file(mount.staging("deep/grid")).unwrap();
    for number in 1..=5 {
        x.write_all_at(&bytes_of([number]), u64::try_from(number).unwrap() * 4000)
            .unwrap();
        gone.write_all_at(&[7; 8], 0).unwrap();
        mount.commit(&format!("r{number}"));
        let mut bytes = [0; 4];
        x.read_exact_at(&mut bytes, u64::try_from(number).unwrap() * 4000)
            .unwrap();
        assert_eq!(i32::from_le_bytes(bytes), number);
        gone.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 4]);
        python.run("states = library.checked(path, states)");
    }
    let mut wanted: Vec<i32> = (0..5000).collect();
    for number in 1..=4 {
        wanted[usize::try_from(number).unwrap() * 1000] = number;
    }
    assert!(python.contents(&file, "r4")["x"] == bytes_of(wanted.iter().copied()));
    assert!(!python.contents(&file, "r4").contains_key("deep/grid"));
    drop((x, gone));
    python.judge(&file, &mount);
}
