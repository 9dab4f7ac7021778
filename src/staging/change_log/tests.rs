//! What is made of a log that is not whole.

use std::path::PathBuf;

use super::super::change::Change;
use super::*;

fn begin(boot: Option<&str>) -> Begin {
    Begin {
        format: FORMAT,
        device: 1,
        inode: 2,
        base: None,
        pinned: false,
        boot: boot.map(str::to_owned),
    }
}

fn change(name: &str) -> Record {
    Record::Change(Change::Mkdir {
        path: name.as_bytes().to_vec(),
    })
}

struct Bench {
    directory: tempfile::TempDir,
    sidecar: Arc<Sidecar>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::make(&directory.path().join("s")).unwrap();
        Self { directory, sidecar }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("s").join(NAME)
    }

    /// A log of which `synced` were made durable, and `unsynced` were not. Gives its bytes.
    fn log(&self, boot: Option<&str>, synced: &[&str], unsynced: &[&str]) -> Vec<u8> {
        let mut log = Log::begin(&self.sidecar, &begin(boot)).unwrap();
        for name in synced {
            log.append(&change(name)).unwrap();
        }
        log.sync().unwrap();
        for name in unsynced {
            log.append(&change(name)).unwrap();
        }
        std::fs::read(self.path()).unwrap()
    }

    /// What is found where the log is `bytes`: the changes, and whether any were lost.
    fn open(&self, bytes: &[u8]) -> Result<(Vec<Record>, bool), StagingError> {
        std::fs::write(self.path(), bytes).unwrap();
        let mut opened = Log::open(&self.sidecar)?.unwrap();
        let is_change = |record: &Record| matches!(record, Record::Change(_));
        opened.records.retain(is_change);
        Ok((opened.records, opened.is_cut))
    }
}

fn is_damaged<T>(opened: &Result<T, StagingError>) -> bool {
    matches!(opened, Err(StagingError::SidecarDamaged { .. }))
}

/// Where the record of that number begins and ends.
fn place(bytes: &[u8], record: usize) -> std::ops::Range<usize> {
    let ends = decode(bytes).1;
    let at = |end: u64| usize::try_from(end).unwrap();
    at(ends[record - 1])..at(ends[record])
}

#[test]
fn a_log_that_was_cut_anywhere_holds_what_was_whole() {
    let bench = Bench::new();
    let whole = bench.log(this_boot(), &[], &["a", "bb", "c"]);
    let (records, ends) = decode(&whole);
    for len in 0..=whole.len() {
        std::fs::write(bench.path(), &whole[..len]).unwrap();
        let complete = ends.iter().filter(|&&end| end <= len as u64).count();
        let opened = Log::open(&bench.sidecar);
        if complete == 0 {
            assert!(is_damaged(&opened), "{len}");
            continue;
        }
        let Opened {
            mut log,
            begin: found,
            records: opened,
            is_cut,
            ..
        } = opened.unwrap().unwrap();
        assert_eq!(found, begin(this_boot()));
        assert_eq!(opened, records[1..complete], "{len}");
        // The change that was about to be written was not reported as done.
        assert!(!is_cut);
        // What is added goes behind what is whole.
        log.append(&change("new")).unwrap();
        let opened = Log::open(&bench.sidecar).unwrap().unwrap();
        assert_eq!(opened.records.len(), complete, "{len}");
        assert_eq!(opened.records.last(), Some(&change("new")));
    }
}

#[test]
fn a_flipped_bit_anywhere_is_damage() {
    let bench = Bench::new();
    for unsynced in [&["c"][..], &[]] {
        let whole = bench.log(this_boot(), &["a", "b"], unsynced);
        let last = decode(&whole).1.len() - 1;
        let last = place(&whole, last);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let opened = bench.open(&damaged);
            // A length that goes beyond the end is all that a record has that was cut off.
            if (last.start..last.start + 4).contains(&(bit / 8)) && !is_damaged(&opened) {
                let (records, _) = opened.unwrap();
                assert_eq!(records, [change("a"), change("b")], "{bit}");
                continue;
            }
            assert!(is_damaged(&opened), "{bit}: {opened:?}");
        }
    }
}

#[test]
fn what_was_durable_when_the_machine_went_down_is_not_missing_without_notice() {
    let bench = Bench::new();
    let whole = bench.log(Some("another"), &["a", "b"], &["c", "d"]);
    let kinds = decode(&whole).0;
    assert!(matches!(kinds[3], Record::Synced { durable_bytes: 0 }));
    assert!(matches!(kinds[4], Record::Synced { durable_bytes: 1.. }));
    assert_eq!(kinds[5], change("c"));
    let opened = bench.open(&whole).unwrap();
    assert_eq!(opened, (["a", "b", "c", "d"].map(change).to_vec(), false));
    for record in 1..4 {
        let mut damaged = whole.clone();
        damaged[place(&whole, record)].fill(0);
        assert!(is_damaged(&bench.open(&damaged)), "{record}");
    }
    // Not durable yet: they never reached the disk, and what did behind them makes no sense without them.
    for (record, left) in [(5, 2), (6, 3)] {
        let mut torn = whole.clone();
        torn[place(&whole, record)].fill(0);
        let (records, is_cut) = bench.open(&torn).unwrap();
        assert_eq!(
            records,
            ["a", "b", "c"][..left]
                .iter()
                .map(|name| change(name))
                .collect::<Vec<_>>()
        );
        assert!(is_cut);
    }
}

#[test]
fn a_new_start_of_the_machine_is_noted() {
    let bench = Bench::new();
    let whole = bench.log(Some("another"), &["a"], &[]);
    std::fs::write(bench.path(), &whole).unwrap();
    let mut opened = Log::open(&bench.sidecar).unwrap().unwrap();
    assert!(!opened.is_same_boot);
    opened.log.note_boot().unwrap();
    opened.log.append(&change("b")).unwrap();
    let opened = Log::open(&bench.sidecar).unwrap().unwrap();
    assert!(opened.is_same_boot);
}

#[test]
fn nothing_is_synced_twice_and_what_a_failed_sync_lost_goes_on_failing() {
    let bench = Bench::new();
    let mut log = Log::begin(&bench.sidecar, &begin(this_boot())).unwrap();
    log.append(&change("a")).unwrap();
    log.sync().unwrap();
    let len_bytes = log.end().len_bytes;
    log.sync().unwrap();
    assert_eq!(log.end().len_bytes, len_bytes);
    log.append(&change("b")).unwrap();
    let failed = || Some(Arc::new(io::ErrorKind::Other.into()));
    log.end().failure = failed();
    log.sync().unwrap();
    let durable_bytes = log.end().durable_bytes;
    assert!(durable_bytes >= log.end().promised_bytes);
    log.sync().unwrap();

    // What the kernel did not keep.
    log.append(&change("c")).unwrap();
    let at = log.end().len_bytes - 3;
    log.end().failure = failed();
    log.file.write_all_at(&[0; 3], at).unwrap();
    for _ in 0..2 {
        assert!(log.sync().is_err());
        assert!(log.syncing().unwrap()().is_err());
    }
}

/// Whoever is told of a failure is told by the kernel once, for all who have the file open in common.
#[test]
fn a_sync_that_failed_for_a_commit_failed_for_everybody_until_it_is_made_good() {
    let bench = Bench::new();
    let mut log = Log::begin(&bench.sidecar, &begin(this_boot())).unwrap();
    log.append(&change("a")).unwrap();
    // No pipe can be synced.
    let (pipe, _other) = io::pipe().unwrap();
    let whole = std::mem::replace(&mut log.file, std::os::fd::OwnedFd::from(pipe).into());
    assert!(log.syncing().unwrap()().is_err());
    assert!(log.end().failure.is_some());
    assert!(log.sync().is_err());
    log.file = whole;
    log.sync().unwrap();
    assert!(log.end().failure.is_none());
}

#[test]
fn a_log_that_cannot_be_searched_in_fair_time_is_damaged() {
    let bench = Bench::new();
    let mut bytes = bench.log(Some("another"), &["a"], &[]);
    // Each fourth byte begins what may be a record of the rest.
    let count: u32 = 40_000;
    let mut rest = vec![b' '; count as usize * 16];
    for at in (0..count * 16).step_by(16) {
        let piece = &mut rest[at as usize..];
        let length = count * 16 - at - u32::try_from(HEAD_BYTES).unwrap();
        if let Some(head) = piece.get_mut(..16) {
            head[..4].copy_from_slice(&length.to_le_bytes());
            head[12..14].copy_from_slice(b"{\"");
        }
    }
    *rest.last_mut().unwrap() = b'}';
    bytes.extend(rest);
    assert!(is_damaged(&bench.open(&bytes)));
}

#[test]
fn another_format_is_refused() {
    let bench = Bench::new();
    assert!(Log::open(&bench.sidecar).unwrap().is_none());
    let other = Begin {
        format: FORMAT + 1,
        ..begin(this_boot())
    };
    Log::begin(&bench.sidecar, &other).unwrap();
    assert!(is_damaged(&Log::open(&bench.sidecar)));
}
