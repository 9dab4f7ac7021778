//! The overlay against bytes in memory.

use proptest::prelude::*;

use super::*;

/// A base in memory, with a hole wherever a block of 1000 is all zeros.
struct Model(Vec<u8>);

impl BaseBytes for Model {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let offset = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0[offset..offset + buffer.len()]);
        Ok(())
    }

    fn seek(&self, offset: u64, for_hole: bool) -> Result<Option<u64>, StoreError> {
        let len = self.0.len() as u64;
        Ok((offset < len).then_some(if for_hole { len } else { offset }))
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// Some byte for each offset.
fn byte_of(i: usize) -> u8 {
    u8::try_from(i % 251).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, usize, u8),
    Truncate(u64),
    Punch(u64, u64),
    Reserve(u64, u64, bool),
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    const END: u64 = 60_000;
    let step = prop_oneof![
        5 => (0..END, 0..20_000usize, 1..=255u8).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
        2 => (0..END).prop_map(Step::Truncate),
        2 => (0..END, 0..30_000u64).prop_map(|(at, len)| Step::Punch(at, at + len)),
        1 => (0..END, 1..9_000u64, any::<bool>()).prop_map(|(at, len, keep)| Step::Reserve(at, at + len, keep)),
        2 => Just(Step::Sync),
    ];
    prop::collection::vec(step, 1..25)
}

fn all(overlay: &Overlay, base: &Model) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(overlay.len_bytes()).unwrap() + 10];
    let count = overlay.read_at(base, 0, &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

/// What differs from the base is said to be staged, or lies behind the limit.
fn assert_covered(overlay: &Overlay, base: &Model, expected: &[u8]) {
    let mut staged = vec![false; expected.len()];
    let mut at = 0;
    while let Some(range) = overlay.next_staged(at) {
        assert!(range.start >= at && range.end <= overlay.len_bytes());
        for flag in &mut staged[index(range.start)..index(range.end)] {
            *flag = true;
        }
        at = range.end;
    }
    for (i, &byte) in expected.iter().enumerate() {
        let unstaged = if (i as u64) < overlay.base_limit() {
            base.0[i]
        } else {
            0
        };
        assert!(staged[i] || byte == unstaged, "byte {i}");
    }
}

fn assert_seeks(overlay: &Overlay, base: &Model, expected: &[u8], from: u64) {
    let len = expected.len() as u64;
    if from >= len {
        assert!(overlay.seek(base, from, false).is_err());
        assert!(overlay.seek(base, from, true).is_err());
        return;
    }
    let hole = overlay.seek(base, from, true).unwrap();
    assert!(hole >= from && hole <= len);
    let data = overlay.seek(base, from, false).unwrap_or(len);
    assert!(data >= from && data <= len);
    assert!(
        expected[index(from)..index(data)]
            .iter()
            .all(|&byte| byte == 0)
    );
    assert!(
        hole == from || data == from,
        "{from} is neither data nor hole"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn reads_what_was_written(base_len in 0usize..50_000, steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::make(&directory.path().join("s")).unwrap();
        let base = Model((0..base_len).map(|i| byte_of(i) + 1).collect());
        let mut expected = base.0.clone();
        let mut overlay = Overlay::create(&sidecar, 1, base_len as u64).unwrap();
        for step in steps {
            match step {
                Step::Write(at, len, byte) => {
                    let bytes = vec![byte; len];
                    prop_assert_eq!(overlay.write_at(&base, at, &bytes).unwrap(), len);
                    let at = index(at);
                    if len > 0 {
                        expected.resize(expected.len().max(at + len), 0);
                        expected[at..at + len].fill(byte);
                    }
                }
                Step::Truncate(len) => {
                    overlay.truncate(len).unwrap();
                    expected.resize(index(len), 0);
                }
                Step::Punch(start, end) => {
                    overlay.punch(&base, &(start..end)).unwrap();
                    let end = index(end).min(expected.len());
                    if index(start) < end {
                        expected[index(start)..end].fill(0);
                    }
                }
                Step::Reserve(start, end, keep_size) => {
                    overlay.reserve(&(start..end), keep_size).unwrap();
                    if !keep_size {
                        expected.resize(expected.len().max(index(end)), 0);
                    }
                }
                Step::Sync => {
                    overlay.sync().unwrap();
                    // After another start of the machine too.
                    let (reopened, lost) = Overlay::open(&sidecar, 1, Since::OtherBoot).unwrap();
                    prop_assert_eq!(&all(&reopened, &base), &expected);
                    prop_assert_eq!(lost, 0);
                }
            }
            // As after the process was killed: nothing but the files is left.
            let (reopened, _) = Overlay::open(&sidecar, 1, Since::SameBoot).unwrap();
            prop_assert_eq!(&all(&reopened, &base), &expected);
            prop_assert_eq!(&all(&overlay, &base), &expected);
            assert_covered(&reopened, &base, &expected);
            for from in [0, 5_000, 4_096, 30_000, expected.len() as u64] {
                assert_seeks(&overlay, &base, &expected, from);
            }
            overlay = reopened;
        }
    }
}

fn new_overlay(base: &Model) -> (tempfile::TempDir, Arc<Sidecar>, Overlay) {
    let directory = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::make(&directory.path().join("s")).unwrap();
    let overlay = Overlay::create(&sidecar, 7, base.0.len() as u64).unwrap();
    (directory, sidecar, overlay)
}

fn reopened(sidecar: &Arc<Sidecar>) -> Overlay {
    Overlay::open(sidecar, 7, Since::SameBoot).unwrap().0
}

/// Blocks whose bits reached the disk, and whose bytes did not.
#[test]
fn what_was_lost_with_the_machine_is_as_in_the_base() {
    let base = Model((0..40_000).map(|i| byte_of(i) | 1).collect());
    let (_directory, sidecar, mut overlay) = new_overlay(&base);
    let block = |number: usize| number * 4096..(number + 1) * 4096;
    overlay.write_at(&base, 0, &[9; 4096]).unwrap();
    overlay.punch(&base, &(4096..8192)).unwrap();
    overlay.sync().unwrap();
    overlay.write_at(&base, 8192, &[8; 3 * 4096]).unwrap();
    // The two last ones never were written.
    let data = overlay.data.get().unwrap();
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&*data, flags, 12_288, 8192).unwrap();
    drop((data, overlay));
    let mut expected = base.0.clone();
    expected[block(0)].fill(9);
    expected[block(1)].fill(0);
    expected[block(2)].fill(8);
    let (overlay, lost) = Overlay::open(&sidecar, 7, Since::OtherBoot).unwrap();
    assert_eq!(lost, 2);
    assert_eq!(all(&overlay, &base), expected);
    // They are not back after the next end of the process.
    drop(overlay);
    assert_eq!(all(&reopened(&sidecar), &base), expected);
    // What was found is durable when it is synced.
    let overlay = reopened(&sidecar);
    overlay.sync().unwrap();
    let (overlay, lost) = Overlay::open(&sidecar, 7, Since::OtherBoot).unwrap();
    assert_eq!((lost, all(&overlay, &base)), (0, expected));
}

#[test]
fn a_failed_sync_goes_on_failing() {
    let base = Model(vec![1; 10_000]);
    let (_directory, sidecar, mut overlay) = new_overlay(&base);
    overlay.write_at(&base, 0, &[9; 10]).unwrap();
    // No file can be synced here.
    let (pipe, _other) = std::io::pipe().unwrap();
    overlay
        .data
        .replace(Some(File::from(std::os::fd::OwnedFd::from(pipe))));
    assert!(overlay.sync().is_err());
    overlay.data.replace(None);
    assert!(overlay.sync().is_err());
    assert!(overlay.check_synced().is_err());
    assert!(Overlay::is_unborn(&sidecar, 8).unwrap());
}

#[test]
fn a_sync_for_which_there_was_no_room_is_made_again() {
    let base = Model(vec![1; 10_000]);
    let (_directory, sidecar, mut overlay) = new_overlay(&base);
    overlay.write_at(&base, 0, &[9; 10]).unwrap();
    // Nothing can be written here, and what was written before is none the worse for it.
    let full = File::options().write(true).open("/dev/full").unwrap();
    overlay.blocks.replace(Some(full));
    match overlay.sync() {
        Err(StagingError::Sidecar { error, .. }) => {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        other => panic!("{other:?}"),
    }
    overlay.check_synced().unwrap();
    overlay.blocks.replace(None);
    overlay.sync().unwrap();
    let expected = all(&overlay, &base);
    drop(overlay);
    let (overlay, lost) = Overlay::open(&sidecar, 7, Since::OtherBoot).unwrap();
    assert_eq!((lost, all(&overlay, &base)), (0, expected));
}

#[test]
fn an_overlay_that_was_never_synced_may_be_unborn() {
    let base = Model(vec![1; 10_000]);
    let (directory, sidecar, overlay) = new_overlay(&base);
    assert!(!Overlay::is_unborn(&sidecar, 7).unwrap());
    let data = directory.path().join("s/7.data");
    let cut = |len_bytes| {
        let file = File::options().write(true).open(&data).unwrap();
        file.set_len(len_bytes).unwrap();
    };
    cut(0);
    assert!(Overlay::is_unborn(&sidecar, 7).unwrap());
    cut(10_000);
    overlay.sync().unwrap();
    // Somebody cut it off.
    cut(0);
    assert!(!Overlay::is_unborn(&sidecar, 7).unwrap());
    std::fs::write(directory.path().join("s/7.blocks"), "").unwrap();
    assert!(Overlay::is_unborn(&sidecar, 7).unwrap());
    std::fs::remove_file(&data).unwrap();
    assert!(Overlay::is_unborn(&sidecar, 7).unwrap());
    assert!(matches!(
        Overlay::open(&sidecar, 7, Since::SameBoot),
        Err(StagingError::SidecarDamaged { .. })
    ));
}

#[test]
fn no_more_of_the_base_is_copied_than_the_rest_of_a_block() {
    let base = Model(vec![1; 1 << 20]);
    let (_directory, _sidecar, mut overlay) = new_overlay(&base);
    overlay.write_at(&base, 500_000, b"x").unwrap();
    assert_eq!(overlay.next_staged(0), Some(499_712..503_808));
    assert_eq!(overlay.next_staged(503_808), None);
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let base = Model(vec![1; 10_000]);
    let (_directory, sidecar, mut overlay) = new_overlay(&base);
    overlay.truncate(5_000).unwrap();
    overlay.truncate(10_000).unwrap();
    let expected = [vec![1; 5_000], vec![0; 5_000]].concat();
    assert_eq!(all(&overlay, &base), expected);
    assert_eq!(all(&reopened(&sidecar), &base), expected);
}

#[test]
fn a_process_that_ended_while_it_cut_a_file_had_cut_it() {
    let base = Model(vec![1; 10_000]);
    let (_directory, sidecar, overlay) = new_overlay(&base);
    // The first of the steps of a truncation.
    overlay.data.get().unwrap().set_len(5_000).unwrap();
    drop(overlay);
    let mut overlay = reopened(&sidecar);
    overlay.truncate(6_000).unwrap();
    assert_eq!(
        all(&overlay, &base),
        [vec![1; 5_000], vec![0; 1_000]].concat()
    );
}

#[test]
fn bytes_without_their_bit_are_not_seen() {
    let base = Model(vec![1; 10_000]);
    let (_directory, sidecar, overlay) = new_overlay(&base);
    // The first of the steps of a write.
    overlay
        .data
        .get()
        .unwrap()
        .write_all_at(&[9; 8_192], 0)
        .unwrap();
    drop(overlay);
    let mut overlay = reopened(&sidecar);
    assert_eq!(all(&overlay, &base), base.0);
    overlay.write_at(&base, 4_000, &[2; 200]).unwrap();
    let mut expected = base.0.clone();
    expected[4_000..4_200].fill(2);
    assert_eq!(all(&overlay, &base), expected);
}

#[test]
fn a_byte_far_out_takes_little_room() {
    let base = Model(Vec::new());
    let (_directory, sidecar, mut overlay) = new_overlay(&base);
    let far = 1 << 40;
    overlay.write_at(&base, far, b"x").unwrap();
    assert!(overlay.stored_bytes().unwrap() < 1 << 20);
    let overlay = reopened(&sidecar);
    assert_eq!(overlay.next_staged(0), Some(far..far + 1));
    assert_eq!(overlay.len_bytes(), far + 1);
}

#[test]
fn lengths_that_no_file_has_are_refused() {
    let base = Model(Vec::new());
    let (_directory, _sidecar, mut overlay) = new_overlay(&base);
    assert!(matches!(
        overlay.write_at(&base, u64::MAX, b"x"),
        Err(StagingError::TooLong)
    ));
    assert!(matches!(
        overlay.truncate(1 << 63),
        Err(StagingError::TooLong)
    ));
    assert_eq!(overlay.len_bytes(), 0);
}

#[test]
fn what_is_no_overlay_is_refused() {
    let base = Model(Vec::new());
    let (_directory, sidecar, overlay) = new_overlay(&base);
    drop(overlay);
    sidecar.create(&blocks_name(7)).unwrap();
    assert!(matches!(
        Overlay::open(&sidecar, 7, Since::SameBoot),
        Err(StagingError::SidecarDamaged { .. })
    ));
}

#[test]
fn a_discarded_overlay_leaves_nothing() {
    let base = Model(Vec::new());
    let (_directory, sidecar, mut overlay) = new_overlay(&base);
    overlay.discard();
    drop(overlay);
    // Its files stay until the log says durably that it is gone.
    assert_eq!(sidecar.names().unwrap().len(), 3);
    assert_eq!(sidecar.take_removed(), [7]);
    sidecar.remove_overlay(7).unwrap();
    assert_eq!(sidecar.names().unwrap(), ["lock"]);
}

/// The same file, which can be read but not written: each write fails.
fn read_only(directory: &tempfile::TempDir, name: &str) -> File {
    File::open(directory.path().join("s").join(name)).unwrap()
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let base = Model((0..20_000).map(byte_of).collect());
    let (directory, sidecar, mut overlay) = new_overlay(&base);
    overlay.write_at(&base, 100, &[3; 50]).unwrap();
    let expected = all(&overlay, &base);
    for name in [data_name(7), blocks_name(7)] {
        let broken = read_only(&directory, &name);
        let file = if name == data_name(7) {
            &mut overlay.data
        } else {
            &mut overlay.blocks
        };
        file.replace(Some(broken));
        for (offset, len) in [(5_000, 10), (4_096, 4_096), (19_000, 9_000), (30_000, 1)] {
            assert!(
                overlay.write_at(&base, offset, &vec![9; len]).is_err(),
                "{name} {offset}"
            );
            if name == blocks_name(7) {
                // The length is put back too.
                assert_eq!(
                    overlay.data.get().unwrap().metadata().unwrap().len(),
                    20_000
                );
            }
            assert_eq!(overlay.len_bytes(), 20_000);
            assert_eq!(all(&overlay, &base), expected, "{name} {offset}");
        }
        let file = if name == data_name(7) {
            &mut overlay.data
        } else {
            &mut overlay.blocks
        };
        file.replace(None);
        assert_eq!(all(&reopened(&sidecar), &base), expected);
    }
    overlay.write_at(&base, 5_000, &[9; 10]).unwrap();
    assert_eq!(all(&overlay, &base)[5_000..5_010], [9; 10]);
}
