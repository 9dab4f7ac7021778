//! Bytes that were written but are not in the file yet.

use std::collections::BTreeMap;

/// Ranges of bytes by their first offset. No two of them overlap or touch.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    ranges: BTreeMap<u64, Vec<u8>>,
}

impl HeldBack {
    /// Takes `bytes` at `offset`, over what was taken there before. The caller has checked that the end fits 64 bits.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        let before = self.ranges.range_mut(..=offset).next_back();
        let (start, mut merged) = match before {
            Some((&start, range)) if start + range.len() as u64 >= offset => {
                (start, std::mem::take(range))
            }
            _ => (offset, Vec::with_capacity(bytes.len())),
        };
        overwrite(&mut merged, index(offset - start), bytes);
        // What lies behind and is reached becomes part of the merged range, as far as it sticks out.
        while let Some((&next, _)) = self.ranges.range(start + 1..=end).next() {
            let Some(range) = self.ranges.remove(&next) else {
                break;
            };
            let covered = index((end - next).min(range.len() as u64));
            let rest_at = index(next - start) + covered;
            if rest_at >= merged.len() {
                merged.extend_from_slice(&range[covered..]);
            }
        }
        self.ranges.insert(start, merged);
    }

    /// Puts what was taken over the bytes of `buffer`, which begin at `offset`.
    pub(super) fn overlay(&self, offset: u64, buffer: &mut [u8]) {
        let end = offset.saturating_add(buffer.len() as u64);
        let first = match self.ranges.range(..=offset).next_back() {
            Some((&start, _)) => start,
            None => offset,
        };
        for (&start, range) in self.ranges.range(first..end) {
            let range_end = start + range.len() as u64;
            let (from, to) = (start.max(offset), range_end.min(end));
            if from < to {
                buffer[index(from - offset)..index(to - offset)]
                    .copy_from_slice(&range[index(from - start)..index(to - start)]);
            }
        }
    }

    /// Forgets what lies at or behind `len_bytes`.
    pub(super) fn truncate(&mut self, len_bytes: u64) {
        self.ranges.split_off(&len_bytes);
        if let Some((&start, range)) = self.ranges.iter_mut().next_back() {
            range.truncate(index((len_bytes - start).min(range.len() as u64)));
        }
    }

    /// All ranges, by offset.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.ranges
            .iter()
            .map(|(&start, range)| (start, range.as_slice()))
    }
}

/// A distance within bytes that are in memory.
fn index(distance: u64) -> usize {
    usize::try_from(distance).expect("no longer than a buffer in memory")
}

/// Writes `bytes` at `at`, which is at most the length, and makes `into` longer where they stick out.
fn overwrite(into: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let inside = bytes.len().min(into.len() - at);
    into[at..at + inside].copy_from_slice(&bytes[..inside]);
    into.extend_from_slice(&bytes[inside..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_an_array(
            writes in prop::collection::vec((0u64..200, prop::collection::vec(1u8.., 0..60)), 0..40),
            cut in prop::option::of(0u64..260),
        ) {
            let mut held = HeldBack::default();
            let mut model = vec![0u8; 300];
            for (offset, bytes) in &writes {
                held.write(*offset, bytes);
                let at = index(*offset);
                model[at..at + bytes.len()].copy_from_slice(bytes);
            }
            if let Some(cut) = cut {
                held.truncate(cut);
                model[index(cut)..].fill(0);
            }
            let mut end = None;
            for (start, range) in held.iter() {
                prop_assert!(end.is_none_or(|end| start > end));
                end = Some(start + range.len() as u64);
            }
            for start in [0, 1, 50, 199, 299] {
                let mut read = vec![0u8; 300 - start];
                held.overlay(start as u64, &mut read);
                prop_assert_eq!(&read, &model[start..]);
            }
        }
    }
}
