//! The daemon is killed at any moment of staging and of commits, again and again: what was written is staged, or committed, and never both or neither.

mod common;
#[path = "common/staging.rs"]
mod staging;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Interpreter, Mount, Random, literal};
use staging::{bytes_of, numbers_of};

/// Kills in all.
const ROUNDS: usize = 200;
/// After so many a new file is taken, as judging one takes longer with each version.
const ROUNDS_OF_A_FILE: usize = 20;
const SIZE: usize = 4000;
const WRITES: usize = 12;

const PROGRAM: &str = r#"
def first(path):
    with version(path, "r0") as group:
        group.create_dataset("x", data=np.arange(4000, dtype="<i4"), chunks=(512,))
        group.create_dataset("text", data=np.array([f"row {n}" for n in range(40)], dtype=object), dtype=h5py.string_dtype(), chunks=(16,))
"#;

/// Kills a daemon while its tree is written to and committed. What became of the commit: it was not begun, was taken back, or is there.
struct Killed {
    file: PathBuf,
    mount: Option<Mount>,
    random: Random,
    /// What `x` is to hold.
    wanted: Vec<i32>,
    /// How long writing and committing takes when nobody interrupts it.
    whole: Duration,
    number: i32,
    committed: usize,
    interrupted: usize,
}

impl Killed {
    /// One round: writes and a commit on a thread, and a kill at some moment.
    fn round(&mut self, python: &mut Interpreter, is_killed: bool) {
        self.number += 1;
        let name = format!("r{}", self.number);
        let mount = self.mount.take().unwrap();
        let places: Vec<usize> = (0..WRITES).map(|_| self.random.below(SIZE)).collect();
        let value = -self.number;
        let (x, commit) = (mount.staging("x"), mount.staging(".commit"));
        let written = AtomicUsize::new(0);
        let start = Instant::now();
        let pause = self.whole * u32::try_from(self.random.below(1000)).unwrap() / 900;
        let (mount, answered) = thread::scope(|scope| {
            let work = scope.spawn(|| -> std::io::Result<()> {
                let file = OpenOptions::new().write(true).open(&x)?;
                for &place in &places {
                    file.write_all_at(&bytes_of([value]), place as u64 * 4)?;
                    written.fetch_add(1, Ordering::SeqCst);
                }
                drop(file);
                OpenOptions::new()
                    .write(true)
                    .open(&commit)?
                    .write_all_at(name.as_bytes(), 0)
            });
            if is_killed {
                thread::sleep(pause);
                let dead = mount.kill();
                let answered = work.join().unwrap();
                (Mount::on(dead, &self.file, &[]), answered)
            } else {
                let answered = work.join().unwrap();
                (mount, answered)
            }
        });
        if !is_killed {
            self.whole = start.elapsed();
        }
        let is_there = mount.version(&name, "").is_dir();
        assert!(
            is_there || answered.is_err(),
            "{name} was said to be committed"
        );
        let written = written.into_inner();
        for &place in &places[..written] {
            self.wanted[place] = value;
        }
        let staged = numbers_of(&fs::read(mount.staging("x")).unwrap());
        // The write that was under way may be there or not.
        if let Some(&place) = places.get(written)
            && staged[place] == value
        {
            self.wanted[place] = value;
        }
        assert!(staged == self.wanted, "{name}: {is_there}: an edit is lost");
        let status = mount.status();
        if is_there {
            assert!(status.contains("Nothing is staged"), "{name}: {status}");
            self.committed += 1;
        } else {
            self.interrupted += 1;
        }
        python.run("states = library.checked(path, states)");
        let versions = python.run("result = sorted(states)");
        assert_eq!(
            versions.as_array().unwrap().contains(&name.into()),
            is_there
        );
        self.mount = Some(mount);
    }
}

#[test]
fn a_daemon_that_is_killed_at_any_moment() {
    let mut python = Interpreter::new();
    python.run(PROGRAM);
    let (mut committed, mut interrupted) = (0, 0);
    let folder = common::fast_folder();
    for file in 0..ROUNDS / ROUNDS_OF_A_FILE {
        let path = folder.path().join(format!("{file}.h5"));
        python.run(&format!(
            "path = {}; first(path); states = library.checked(path)",
            literal(&path)
        ));
        let mut killed = Killed {
            mount: Some(Mount::new(&path, &[])),
            file: path,
            random: Random(77 + file as u64),
            wanted: (0..).take(SIZE).collect(),
            whole: Duration::ZERO,
            number: 0,
            committed: 0,
            interrupted: 0,
        };
        killed.round(&mut python, false);
        for _ in 0..ROUNDS_OF_A_FILE {
            killed.round(&mut python, true);
        }
        let mount = killed.mount.take().unwrap();
        mount.commit("last");
        python.run("states = library.checked(path, states)");
        let x = &python.contents(&killed.file, "last")["x"];
        assert!(numbers_of(x) == killed.wanted);
        python.judge(&killed.file, &mount);
        drop(mount);
        committed += killed.committed - 1;
        interrupted += killed.interrupted;
    }
    println!("{committed} commits were finished, {interrupted} were not");
    assert!(
        committed >= 10 && interrupted >= 10,
        "{committed} {interrupted}"
    );
}
