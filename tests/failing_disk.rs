//! A disk that fails, or is full, at each write, sync, length and name of a commit in turn: the commit says so, the file is as it was or can be recovered,
//! everything stays staged, and the next try works, or says that it takes a new mount.

mod common;
#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/staging.rs"]
mod staging;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use common::{Interpreter, Mount, literal};
use fuser::Errno;
use recorder::{Fault, Recorder};
use staging::{FIRST, bytes_of, numbers_of};

const FILE: &str = "file.h5";
const SIZE: i32 = 3000;

const JUDGE: &str = r#"
def judge(path, wanted):
    """Version rN has N in element N of x, and all that the versions before it had."""
    found = library.states(path)
    assert sorted(found) == sorted(wanted), sorted(found)
    with h5py.File(path) as file:
        versions = VersionedHDF5File(file)
        x = np.arange(3000)
        for number in range(1, len(wanted)):
            x[number] = -number
            assert (versions[f"r{number}"]["x"][()] == x).all(), number
            assert (versions[f"r{number}"]["grid"][()] == np.arange(1200).reshape(40, 30)).all(), number
    assert library.misplaced_hashes(path) == []
"#;

struct Bench {
    recorder: Recorder,
    mount: Option<Mount>,
    /// The last version.
    number: i32,
    /// What `staging/x` is to hold.
    wanted: Vec<i32>,
}

/// How a commit ended of which something failed.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// It had not come to what failed.
    Untouched,
    /// What failed did not matter.
    Succeeded,
    /// The next try worked.
    TriedAgain,
    /// The next mount worked: with the version as it was staged, or finished.
    MountedAgain { is_finished: bool },
}

impl Bench {
    fn mount(&mut self) -> &Mount {
        let file = self.recorder.path().join(FILE);
        self.mount.get_or_insert_with(|| Mount::new(&file, &[]))
    }

    fn assert_staged(&mut self) {
        let wanted = self.wanted.clone();
        let staged = fs::read(self.mount().staging("x")).unwrap();
        assert!(numbers_of(&staged) == wanted, "an edit is lost");
    }

    fn try_once(&mut self, fault: Fault) -> Ending {
        self.number += 1;
        let name = format!("r{}", self.number);
        let (at, value) = (u64::try_from(self.number).unwrap(), -self.number);
        self.wanted[usize::try_from(at).unwrap()] = value;
        let x = OpenOptions::new()
            .write(true)
            .open(self.mount().staging("x"))
            .unwrap();
        x.write_all_at(&bytes_of([value]), at * 4).unwrap();
        x.sync_all().unwrap();
        drop(x);
        self.recorder.fail(fault);
        let committed = self.mount().try_commit(&name);
        let failures = self.recorder.heal();
        let status = self.mount().status();
        if !status.contains("half changed") {
            self.assert_staged();
        }
        let Err(error) = committed else {
            assert!(self.mount().version(&name, "").is_dir(), "{fault:?}");
            return if failures == 0 {
                Ending::Untouched
            } else {
                Ending::Succeeded
            };
        };
        assert!(failures > 0, "{error}");
        assert_eq!(
            error.raw_os_error(),
            Some(fault.errno.into()),
            "{fault:?}: {status}"
        );
        assert!(
            status.contains("everything is still staged"),
            "{fault:?}: {status}"
        );
        assert!(!self.mount().version(&name, "").exists(), "{fault:?}");
        // What was committed before is there, also for this mount.
        let before = format!("r{}", self.number - 1);
        let read = fs::read(self.mount().version(&before, "grid"));
        if status.contains("half changed") {
            assert!(read.is_err() || read.unwrap().len() == 9600);
        } else {
            assert_eq!(read.unwrap().len(), 9600, "{fault:?}");
        }
        if !status.contains("mount again") {
            self.mount().commit(&name);
            return Ending::TriedAgain;
        }
        // Latched: nothing is staged or committed any more.
        let error = fs::write(self.mount().staging("new"), "x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let error = self.mount().try_commit(&name).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        self.mount = None;
        self.assert_staged();
        let is_finished = self.mount().version(&name, "").is_dir();
        if is_finished {
            assert!(self.mount().status().contains("Nothing is staged"));
        } else {
            self.mount().commit(&name);
        }
        Ending::MountedAgain { is_finished }
    }
}

#[test]
fn each_operation_of_a_commit_fails_in_turn() {
    let mut python = Interpreter::new();
    python.run(FIRST);
    python.run(JUDGE);
    let base = python.scratch().join("base.h5");
    python.run(&format!("first({})", literal(&base)));
    let mut endings = Vec::new();
    for (errno, count) in [
        (Errno::ENOSPC, 1),
        (Errno::EIO, 1),
        (Errno::ENOSPC, usize::MAX),
        (Errno::EIO, usize::MAX),
    ] {
        let recorder = Recorder::new(FILE, fs::read(&base).unwrap());
        let mut bench = Bench {
            recorder,
            mount: None,
            number: 0,
            wanted: (0..SIZE).collect(),
        };
        for after in 0.. {
            let ending = bench.try_once(Fault {
                after,
                count,
                errno,
            });
            if ending == Ending::Untouched {
                assert!(after > 12, "{after}");
                break;
            }
            endings.push((errno, count, after, ending));
        }
        bench.mount = None;
        let path = python.scratch().join("judged.h5");
        fs::write(&path, bench.recorder.bytes(FILE)).unwrap();
        let wanted: Vec<String> = (0..=bench.number).map(|n| format!("'r{n}'")).collect();
        python.run(&format!(
            "judge({}, [{}])",
            literal(&path),
            wanted.join(", ")
        ));
    }
    for ending in &endings {
        println!("{ending:?}");
    }
    let count = |which: fn(&Ending) -> bool| {
        let matching = endings.iter().filter(|(_, _, _, ending)| which(ending));
        matching.count()
    };
    assert!(count(|ending| *ending == Ending::TriedAgain) >= 20);
    assert!(count(|ending| matches!(ending, Ending::MountedAgain { is_finished: false })) >= 2);
    assert!(count(|ending| matches!(ending, Ending::MountedAgain { is_finished: true })) >= 2);
}
