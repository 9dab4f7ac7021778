//! What a transaction shows, what reaches the file and when.

use std::path::PathBuf;

use std::fs::File;
use std::io;

use rustix::fs::FlockOperation;

use super::testing::{Fail, begin_failing, journal_beside};
use super::*;

fn begin(path: &Path) -> Result<Transaction, TransactionError> {
    Transaction::begin(path, journal_beside(path))
}

/// A file of the bytes 0, 1, 2 ... in a folder of its own.
fn file(len: u8) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let bytes: Vec<u8> = (0..len).collect();
    std::fs::write(&path, &bytes).unwrap();
    (folder, path, bytes)
}

fn read(transaction: &Transaction) -> Vec<u8> {
    let len = usize::try_from(transaction.len_bytes().unwrap()).unwrap();
    let mut bytes = vec![0; len];
    transaction.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn what_lies_below_the_boundary_is_held_back() {
    let (_folder, path, before) = file(100);
    let transaction = begin(&path).unwrap();
    transaction.set_boundary(90, 0..8).unwrap();
    assert_eq!(read(&transaction), before[..90]);
    transaction.write_at(85, &[200; 20]).unwrap();
    transaction.write_at(3, &[201; 2]).unwrap();
    let mut want = before[..90].to_vec();
    want.resize(105, 0);
    want[85..105].fill(200);
    want[3..5].fill(201);
    assert_eq!(read(&transaction), want);
    let now = std::fs::read(&path).unwrap();
    assert_eq!(now[..90], before[..90]);
    assert_eq!(now[90..], [200; 15]);
    assert!(transaction.read_exact_at(&mut [0; 2], 104).is_err());
    transaction.apply().unwrap();
    drop(transaction);
    assert_eq!(std::fs::read(&path).unwrap(), want);
}

#[test]
fn without_apply_nothing_happened() {
    let (_folder, path, before) = file(100);
    for given_up in [false, true] {
        let transaction = begin(&path).unwrap();
        transaction.write_at(0, &[9; 300]).unwrap();
        if given_up {
            transaction.give_up();
            assert!(transaction.write_at(500, b"x").is_err());
            assert_eq!(read(&transaction)[500], b'x');
            assert!(transaction.apply().is_err());
        }
        drop(transaction);
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[test]
fn lengths_take_effect_when_they_are_applied() {
    let (_folder, path, before) = file(100);
    for (len, want) in [(40, 40), (100, 100), (150, 150)] {
        std::fs::write(&path, &before).unwrap();
        let transaction = begin(&path).unwrap();
        transaction.write_at(50, &[7]).unwrap();
        transaction.set_len(len);
        assert_eq!(transaction.len_bytes().unwrap(), len);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        transaction.apply().unwrap();
        let mut expected = before.clone();
        expected[50] = 7;
        expected.resize(want, 0);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }
}

#[test]
fn only_one_has_the_file() {
    let (_folder, path, _) = file(10);
    let first = begin(&path).unwrap();
    assert!(matches!(begin(&path), Err(TransactionError::Busy)));
    drop(first);
    // A reader's lock, which is given back in time.
    let reader = File::open(&path).unwrap();
    rustix::fs::flock(&reader, FlockOperation::LockShared).unwrap();
    let waiting = std::thread::scope(|scope| {
        let second = scope.spawn(|| begin(&path).map(drop));
        drop(reader);
        second.join().unwrap()
    });
    waiting.unwrap();
}

#[test]
fn a_failed_write_is_the_last_one() {
    let (_folder, path, before) = file(100);
    let transaction = begin_failing(&path, Fail::Only(3));
    transaction.write_at(100, &[1; 10]).unwrap();
    let failure = transaction.write_at(110, &[2; 10]).unwrap_err();
    let TransactionError::Write { offset, error, .. } = failure else {
        panic!("{failure:?}");
    };
    assert_eq!(offset, 110);
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    // Whoever writes may come to an end, and reads what was written.
    assert!(transaction.write_at(120, &[3; 10]).is_err());
    assert_eq!(
        read(&transaction)[100..],
        [[1; 10], [2; 10], [3; 10]].concat()
    );
    assert!(matches!(
        transaction.failure(),
        Some(TransactionError::Write { offset: 110, .. })
    ));
    assert!(transaction.apply().is_err());
    drop(transaction);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn impossible_offsets_are_refused() {
    let (_folder, path, before) = file(10);
    let transaction = begin(&path).unwrap();
    for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
        assert!(matches!(
            transaction.write_at(offset, b"xx"),
            Err(TransactionError::Offset { .. })
        ));
    }
    assert!(transaction.set_boundary(11, 0..0).is_err());
    drop(transaction);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// Much more than is synced early, in pieces as a commit has them.
fn append_much(transaction: &Transaction) -> Vec<u8> {
    let piece: Vec<u8> = (0..=250).cycle().take(1 << 15).collect();
    let pieces = 5 * usize::try_from(WORTH_A_SYNC_BYTES).unwrap() / 2 / piece.len();
    for number in 0..pieces {
        let offset = 100 + number * piece.len();
        if transaction.write_at(offset as u64, &piece).is_err() {
            break;
        }
    }
    piece.repeat(pieces)
}

#[test]
fn what_is_synced_early_is_all_there() {
    let (_folder, path, before) = file(100);
    let transaction = begin(&path).unwrap();
    let appended = append_much(&transaction);
    transaction.write_at(3, &[201; 2]).unwrap();
    transaction.apply().unwrap();
    drop(transaction);
    let now = std::fs::read(&path).unwrap();
    assert_eq!(now[..3], before[..3]);
    assert_eq!(now[3..5], [201; 2]);
    assert!(now[100..] == appended);

    // Whoever gives up waits for what was begun.
    let transaction = begin(&path).unwrap();
    transaction.set_boundary(100, 0..8).unwrap();
    append_much(&transaction);
    drop(transaction);
    begin(&path).unwrap();
}

#[test]
fn an_early_sync_that_fails_is_a_failure_of_all() {
    // One after the other: the head of the journal, the pieces, syncs among them, and what comes behind them.
    for number in 0..90 {
        let (_folder, path, before) = file(100);
        let transaction = begin_failing(&path, Fail::Only(number));
        let appended = append_much(&transaction);
        transaction.write_at(3, &[201; 2]).ok();
        let applied = transaction.apply();
        drop(transaction);
        let now = std::fs::read(&path).unwrap();
        if applied.is_ok() {
            assert!(now[100..] == appended, "{number}");
        } else {
            assert!(now == before, "{number}: {applied:?}");
        }
    }
    // However busy the machine is, the first sync of all is an early one, and the second an early one or that of all that was appended.
    for number in 0..2 {
        let (_folder, path, before) = file(100);
        let transaction = begin_failing(&path, Fail::Sync(number));
        append_much(&transaction);
        assert!(transaction.failure().is_none());
        assert!(transaction.state().early_sync.is_some());
        transaction.write_at(3, &[201; 2]).unwrap();
        let applied = format!("{:?}", transaction.apply());
        drop(transaction);
        assert!(
            applied.contains("making the appended part durable"),
            "{number}: {applied}"
        );
        assert!(std::fs::read(&path).unwrap() == before, "{number}");
    }
}
