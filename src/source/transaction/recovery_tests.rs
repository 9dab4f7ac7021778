//! What a crash leaves, and what recovery makes of it: after each change of file and journal, and with each of them failing.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::testing::{Fail, begin_failing_with, journal_beside};
use super::*;

const OLD: u8 = 1;
const NEW: u8 = 2;
const BOUNDARY: u64 = 5000;

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// The change of a bench from `old` to `new`.
fn change(transaction: &Transaction) -> Result<(), TransactionError> {
    transaction.set_boundary(BOUNDARY, 0..8)?;
    transaction.write_at(4990, &[NEW; 1000])?;
    transaction.write_at(0, &[NEW; 8])?;
    transaction.write_at(5990, &[NEW; 3010])?;
    transaction.write_at(600, &[NEW; 1400])?;
    transaction.apply()
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let old = vec![OLD; 5000];
        std::fs::write(&path, &old).unwrap();
        let mut new = old.clone();
        new.resize(9000, NEW);
        for range in [0..8, 600..2000, 4990..5000] {
            new[range].fill(NEW);
        }
        Self {
            _folder: folder,
            path,
            old,
            new,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    fn journal(&self) -> PathBuf {
        journal_beside(&self.path).journal_path()
    }

    fn recover(&self) -> Recovery {
        let recovery = recover(&self.path, &journal_beside(&self.path)).unwrap();
        assert!(!self.journal().exists());
        recovery
    }

    /// A journal of the change, complete, and the file as it is before anything of it is overwritten.
    fn before_overwriting(&self) -> Vec<u8> {
        let mut whole = None;
        for number in 0.. {
            self.reset();
            let transaction =
                begin_failing_with(&self.path, Fail::From(number), Errno::IO).unwrap();
            let result = change(&transaction);
            let journal = std::fs::read(self.journal()).ok();
            if result.is_ok() {
                break;
            }
            drop(transaction);
            if let Some(journal) = journal
                && matches!(journal::decode(&journal), journal::Decoded::Whole(..))
            {
                whole.get_or_insert(journal);
            }
        }
        self.reset();
        let mut file = self.new.clone();
        file[..5000].copy_from_slice(&self.old);
        std::fs::write(&self.path, file).unwrap();
        let whole = whole.expect("there was a whole journal");
        std::fs::write(self.journal(), &whole).unwrap();
        whole
    }

    fn reset(&self) {
        std::fs::write(&self.path, &self.old).unwrap();
        let _ = std::fs::remove_file(self.journal());
    }

    fn aside(&self, number: u32) -> PathBuf {
        self.path
            .with_file_name(format!("file.journals.journal-{number}"))
    }
}

/// One failure, or all from one on, in each write, sync, length and name, with each kind of error: the file is as it was, or the journal is there by which
/// the change is finished; where nothing says otherwise the next try works.
#[test]
fn each_failure_leaves_the_old_file_or_one_that_can_be_recovered() {
    let bench = Bench::new();
    for errno in [Errno::NOSPC, Errno::IO] {
        for kind in [Fail::Only as fn(i64) -> Fail, Fail::From] {
            let (mut taken_back, mut restored, mut left, mut done) = (0, 0, 0, 0);
            for number in 0.. {
                bench.reset();
                let transaction = begin_failing_with(&bench.path, kind(number), errno).unwrap();
                let result = change(&transaction);
                let is_applying = transaction.is_applying();
                drop(transaction);
                match &result {
                    Ok(()) => {
                        assert!(bench.bytes() == bench.new, "{number}");
                        done += 1;
                        if !bench.journal().exists() && number > 30 {
                            break;
                        }
                        assert!(matches!(
                            bench.recover(),
                            Recovery::NothingToDo
                                | Recovery::Finished {
                                    overwritten_bytes: 0
                                }
                        ));
                        assert!(bench.bytes() == bench.new);
                        continue;
                    }
                    Err(error) => {
                        let said = error.io_error().unwrap().raw_os_error();
                        assert_eq!(said, Some(errno.raw_os_error()), "{number}: {error}");
                        assert_eq!(
                            matches!(
                                error,
                                TransactionError::Interrupted {
                                    left: Left::HalfChanged,
                                    ..
                                }
                            ),
                            is_applying
                        );
                    }
                }
                match result {
                    Err(TransactionError::Interrupted {
                        left: Left::Restored,
                        ..
                    }) => {
                        restored += 1;
                        assert!(bench.bytes() == bench.old, "{number}");
                        assert!(!bench.journal().exists());
                    }
                    Err(TransactionError::Interrupted { .. }) => {
                        left += 1;
                        // Of an undecided one the file is as it was.
                        assert!(is_applying || bench.bytes()[..5000] == bench.old);
                        let recovery = bench.recover();
                        let now = bench.bytes();
                        assert!(
                            now == bench.new || now == bench.old,
                            "{number}: {recovery:?}"
                        );
                    }
                    _ => {
                        taken_back += 1;
                        assert!(bench.bytes()[..5000] == bench.old, "{number}");
                        bench.recover();
                        assert!(bench.bytes() == bench.old, "{number}");
                    }
                }
                if bench.bytes() == bench.old {
                    let next =
                        Transaction::begin(&bench.path, journal_beside(&bench.path)).unwrap();
                    change(&next).unwrap();
                    drop(next);
                    assert!(bench.bytes() == bench.new);
                }
            }
            assert!(taken_back >= 5 && done >= 2, "{taken_back} {done}");
            let is_single = matches!(kind(0), Fail::Only(_));
            assert!(
                if is_single { restored } else { left } >= 4,
                "{restored} {left}"
            );
        }
    }
}

/// Every prefix of the bytes that overwriting writes, also within a sector, and every set of whole runs.
#[test]
fn a_file_that_is_half_changed_is_finished() {
    let bench = Bench::new();
    let journal = bench.before_overwriting();
    let before = bench.bytes();
    let changed: Vec<usize> = (0..5000)
        .filter(|&at| before[at] != bench.new[at])
        .collect();
    for step in (0..=changed.len()).step_by(7) {
        let mut file = before.clone();
        for &at in &changed[..step] {
            file[at] = NEW;
        }
        std::fs::write(&bench.path, &file).unwrap();
        std::fs::write(bench.journal(), &journal).unwrap();
        let expected = if step == 0 || step == changed.len() {
            Pending::Sound
        } else {
            Pending::HalfChanged
        };
        let folder = journal_beside(&bench.path);
        assert_eq!(pending(&bench.path, &folder).unwrap(), expected, "{step}");
        // Another change can begin only where nothing is left to be done of this one.
        let next = Transaction::begin(&bench.path, folder);
        if step == changed.len() {
            drop(next.unwrap());
        } else {
            assert!(matches!(next, Err(TransactionError::Pending { .. })));
            assert!(matches!(bench.recover(), Recovery::Finished { .. }));
        }
        assert!(!bench.journal().exists());
        assert!(bench.bytes() == bench.new, "{step}");
    }
}

/// A recovery that is itself interrupted, at each of its changes, is done again.
#[test]
fn recovery_can_be_interrupted() {
    let bench = Bench::new();
    let journal = bench.before_overwriting();
    let before = bench.bytes();
    let mut interrupted = 0;
    for number in 0.. {
        std::fs::write(&bench.path, &before).unwrap();
        std::fs::write(bench.journal(), &journal).unwrap();
        let (storage, folder) = testing::failing(&bench.path, Fail::From(number), Errno::IO);
        let result = recovery::recover_storage(&*storage, &folder);
        if result.is_ok() {
            break;
        }
        interrupted += 1;
        bench.recover();
        assert!(bench.bytes() == bench.new, "{number}");
    }
    assert!(interrupted >= 6, "{interrupted}");
}

/// A file that somebody else wrote to, or another one, is not touched; the journal is put out of the way, whatever is there already.
#[test]
fn a_journal_of_another_content_is_never_applied() {
    let bench = Bench::new();
    let journal = bench.before_overwriting();
    let before = bench.bytes();
    let restored = bench.old.clone();
    let mut longer = before.clone();
    longer.push(0);
    let mut in_run = before.clone();
    in_run[1000] = 77;
    let mut in_appended = before.clone();
    in_appended[7000] = 77;
    let mut half = bench.new.clone();
    half[..5000].copy_from_slice(&bench.old);
    half[0] = NEW;
    half.truncate(8999);
    for (number, file) in (1..).zip([restored, longer, in_run, in_appended, half]) {
        std::fs::write(&bench.path, &file).unwrap();
        std::fs::write(bench.journal(), &journal).unwrap();
        let recovery = bench.recover();
        let Recovery::SetAside { path, .. } = recovery else {
            panic!("{number}: {recovery:?}");
        };
        assert_eq!(path, bench.aside(number));
        assert!(std::fs::read(path).unwrap() == journal);
        assert!(bench.bytes() == file, "{number}");
    }
}

/// The same bytes under another inode are as half changed as the first ones.
#[test]
fn a_copy_that_was_put_back_is_recovered() {
    let bench = Bench::new();
    bench.before_overwriting();
    let copy = bench.path.with_file_name("copy");
    std::fs::copy(&bench.path, &copy).unwrap();
    std::fs::rename(&copy, &bench.path).unwrap();
    assert!(matches!(bench.recover(), Recovery::Finished { .. }));
    assert!(bench.bytes() == bench.new);
}

/// A finished change that another one followed.
#[test]
fn a_journal_that_came_back_is_dropped() {
    let bench = Bench::new();
    let journal = bench.before_overwriting();
    bench.recover();
    let mut later = bench.new.clone();
    later.extend([9; 100]);
    std::fs::write(&bench.path, &later).unwrap();
    std::fs::write(bench.journal(), &journal).unwrap();
    assert_eq!(
        bench.recover(),
        Recovery::Finished {
            overwritten_bytes: 0
        }
    );
    assert!(bench.bytes() == later);
}

/// Only what was provably appended by the change that the journal tells of is cut off.
#[test]
fn garbage_is_cut_off_only_where_it_is_ours() {
    let bench = Bench::new();
    let whole = bench.before_overwriting();
    let appended = bench.bytes();
    let head = &whole[..journal::HEAD_BYTES];
    for torn in [head, &whole[..whole.len() - 1]] {
        // The head names the inode of this very file.
        std::fs::write(&bench.path, &appended).unwrap();
        std::fs::write(bench.journal(), torn).unwrap();
        assert_eq!(bench.recover(), Recovery::TakenBack { cut_bytes: 4000 });
        assert!(bench.bytes() == bench.old);

        let mut guard_changed = appended.clone();
        guard_changed[7] = 3;
        std::fs::write(&bench.path, &guard_changed).unwrap();
        std::fs::write(bench.journal(), torn).unwrap();
        assert_eq!(bench.recover(), Recovery::TakenBack { cut_bytes: 0 });
        assert!(bench.bytes() == guard_changed);
    }
    std::fs::write(&bench.path, &appended).unwrap();
    std::fs::write(bench.journal(), &head[..50]).unwrap();
    assert_eq!(bench.recover(), Recovery::TakenBack { cut_bytes: 0 });
    assert!(bench.bytes() == appended);

    let copy = bench.path.with_file_name("copy");
    std::fs::copy(&bench.path, &copy).unwrap();
    std::fs::rename(&copy, &bench.path).unwrap();
    std::fs::write(bench.journal(), head).unwrap();
    assert_eq!(bench.recover(), Recovery::TakenBack { cut_bytes: 0 });
    assert!(bench.bytes() == appended);
}

#[test]
fn a_locked_file_is_not_recovered() {
    let bench = Bench::new();
    let journal = bench.before_overwriting();
    let before = bench.bytes();
    let other = std::fs::File::open(&bench.path).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockShared).unwrap();
    assert!(matches!(
        recover(&bench.path, &journal_beside(&bench.path)),
        Err(TransactionError::Busy)
    ));
    assert!(bench.bytes() == before);
    assert!(std::fs::read(bench.journal()).unwrap() == journal);
}

#[test]
fn a_journal_is_no_link_and_private() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let victim = bench.path.with_file_name("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, bench.journal()).unwrap();
    let folder = journal_beside(&bench.path);
    assert!(recover(&bench.path, &folder).is_err());
    assert!(Transaction::begin(&bench.path, folder).is_err());
    std::fs::remove_file(bench.journal()).unwrap();
    let transaction = Transaction::begin(&bench.path, journal_beside(&bench.path)).unwrap();
    transaction.write_at(5000, b"x").unwrap();
    let mode = std::fs::metadata(bench.journal()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(transaction);
    assert!(!bench.journal().exists());
    assert_eq!(std::fs::read(victim).unwrap(), b"precious");
}

#[test]
fn a_new_file_has_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    std::fs::write(&path, "").unwrap();
    let transaction = Transaction::begin_new(&path).unwrap();
    transaction.write_at(10, b"x").unwrap();
    transaction.write_at(0, b"yz").unwrap();
    transaction.apply().unwrap();
    drop(transaction);
    assert_eq!(std::fs::read(&path).unwrap(), b"yz\0\0\0\0\0\0\0\0x");
    let refused = Transaction::begin_new(Path::new(&path));
    assert!(matches!(
        refused,
        Err(TransactionError::NotNew { len_bytes: 11 })
    ));
}
