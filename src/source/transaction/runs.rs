//! The bytes that a change overwrites, with what was there before.

use std::io;

use super::storage::Storage;

/// Runs that are no further apart than this are one: a run's head in the journal takes as much.
const GAP_BYTES: usize = 16;

/// Bytes of the file that change. `old` and `new` are equally long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// First byte.
    pub(super) offset: u64,
    pub(super) old: Vec<u8>,
    pub(super) new: Vec<u8>,
}

/// What a file holds where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// What was there before the change. Also where that is the same.
    Old,
    /// What the change makes of it.
    New,
    /// Of each byte the old or the new one.
    Mixed,
    /// Something else.
    Other,
}

impl Run {
    /// What `storage` holds in its place.
    pub(super) fn find(&self, storage: &dyn Storage) -> io::Result<Found> {
        let mut now = vec![0; self.new.len()];
        if storage.read_up_to_at(&mut now, self.offset)? < now.len() {
            return Ok(Found::Other);
        }
        let pairs = || now.iter().zip(self.old.iter().zip(&self.new));
        Ok(if now == self.new {
            Found::New
        } else if now == self.old {
            Found::Old
        } else if pairs().all(|(now, (old, new))| now == old || now == new) {
            Found::Mixed
        } else {
            Found::Other
        })
    }
}

/// The runs in which `bytes`, which are to be written at `offset`, differ from what `storage` has there. What lies behind its end
/// counts as zeros.
pub(super) fn differences(
    storage: &dyn Storage,
    offset: u64,
    bytes: &[u8],
    into: &mut Vec<Run>,
) -> io::Result<()> {
    let mut old = vec![0; bytes.len()];
    storage.read_up_to_at(&mut old, offset)?;
    let mut at = 0;
    while let Some(start) = next_difference(&old, bytes, at) {
        let mut end = start + 1;
        while let Some(next) = next_difference(&old, bytes, end)
            && next - end <= GAP_BYTES
        {
            end = next + 1;
        }
        into.push(Run {
            offset: offset + start as u64,
            old: old[start..end].to_vec(),
            new: bytes[start..end].to_vec(),
        });
        at = end;
    }
    Ok(())
}

fn next_difference(old: &[u8], new: &[u8], from: usize) -> Option<usize> {
    let mut pairs = old[from..].iter().zip(&new[from..]);
    pairs.position(|(old, new)| old != new).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file_of(bytes: &[u8]) -> std::fs::File {
        let file = tempfile::tempfile().unwrap();
        Storage::write_all_at(&file, bytes, 0).unwrap();
        file
    }

    proptest! {
        #[test]
        fn runs_make_the_new_bytes_of_the_old_and_back(
            old in prop::collection::vec(0u8..3, 0..300),
            new in prop::collection::vec(0u8..3, 0..300),
            offset in 0usize..50,
        ) {
            let file = file_of(&old);
            let mut runs = Vec::new();
            differences(&file, offset as u64, &new, &mut runs).unwrap();
            let end = offset + new.len();
            let mut bytes = old.clone();
            bytes.resize(end.max(old.len()), 0);
            let before = bytes.clone();
            let mut last = None;
            for run in &runs {
                let at = usize::try_from(run.offset).unwrap();
                prop_assert!(last.is_none_or(|last| at > last + GAP_BYTES));
                prop_assert_eq!(&bytes[at..at + run.old.len()], &run.old);
                prop_assert!(run.old.first() != run.new.first() && run.old.last() != run.new.last());
                bytes[at..at + run.new.len()].copy_from_slice(&run.new);
                last = Some(at + run.new.len());
            }
            prop_assert_eq!(&bytes[offset..end], &new);
            bytes[offset..end].copy_from_slice(&before[offset..end]);
            prop_assert_eq!(bytes, before);
        }
    }

    #[test]
    fn what_a_file_holds_is_told_apart() {
        let run = Run {
            offset: 2,
            old: vec![1, 1, 1],
            new: vec![2, 2, 2],
        };
        for (bytes, found) in [
            (&[0, 0, 1, 1, 1][..], Found::Old),
            (&[0, 0, 2, 2, 2, 9], Found::New),
            (&[0, 0, 1, 2, 1], Found::Mixed),
            (&[0, 0, 1, 3, 1], Found::Other),
            (&[0, 0, 2, 2], Found::Other),
        ] {
            assert_eq!(run.find(&file_of(bytes)).unwrap(), found, "{bytes:?}");
        }
    }
}
