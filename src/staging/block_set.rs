//! A sparse set of block numbers, kept as pages of bits, and stored as a file of bits.

use std::collections::BTreeMap;
use std::ops::Range;

/// Blocks of one page.
const PAGE_BLOCKS: u64 = 1 << 15;
const PAGE_WORDS: usize = (PAGE_BLOCKS / 64) as usize;
/// Bytes of one page: bit `n % 8` of byte `n / 8` of the file stands for block `n`.
pub(super) const PAGE_BYTES: usize = PAGE_WORDS * 8;

/// Which blocks of a file are staged.
#[derive(Debug, Default, Clone)]
pub(super) struct BlockSet {
    pages: BTreeMap<u64, Box<[u64; PAGE_WORDS]>>,
}

/// Page, word and bit of a block.
fn place(block: u64) -> (u64, usize, u32) {
    let in_page = block % PAGE_BLOCKS;
    let word = usize::try_from(in_page / 64).expect("below the words of a page");
    (block / PAGE_BLOCKS, word, (in_page % 64) as u32)
}

impl BlockSet {
    /// Whether `block` is in the set.
    pub(super) fn contains(&self, block: u64) -> bool {
        let (page, word, bit) = place(block);
        self.pages
            .get(&page)
            .is_some_and(|words| words[word] >> bit & 1 == 1)
    }

    /// Adds `blocks`. The blocks that were not in the set all lie in the range that is returned.
    pub(super) fn insert(&mut self, blocks: Range<u64>) -> Option<Range<u64>> {
        self.update(blocks, true)
    }

    /// Removes `blocks`. The blocks that were in the set all lie in the range that is returned.
    pub(super) fn remove(&mut self, blocks: Range<u64>) -> Option<Range<u64>> {
        if blocks.is_empty() {
            return None;
        }
        // Beyond the last page there is nothing to be removed, however far the range goes.
        let last = *self.pages.keys().next_back()?;
        let end = blocks.end.min((last + 1).saturating_mul(PAGE_BLOCKS));
        self.update(blocks.start..end, false)
    }

    fn update(&mut self, blocks: Range<u64>, to: bool) -> Option<Range<u64>> {
        let mut changed: Option<Range<u64>> = None;
        let mut block = blocks.start;
        while block < blocks.end {
            let (page, word, bit) = place(block);
            let count = (blocks.end - block).min(64 - u64::from(bit));
            let mask = (u64::MAX >> (64 - count)) << bit;
            if !to && !self.pages.contains_key(&page) {
                match self.pages.range(page..).next() {
                    Some((&next, _)) => block = next * PAGE_BLOCKS,
                    None => break,
                }
                continue;
            }
            let known = self.pages.get_mut(&page);
            let old = known.as_ref().map_or(0, |words| words[word]);
            let new = if to { old | mask } else { old & !mask };
            if new != old {
                let words = match known {
                    Some(words) => words,
                    None => self
                        .pages
                        .entry(page)
                        .or_insert_with(|| Box::new([0; PAGE_WORDS])),
                };
                words[word] = new;
                let start = changed.map_or(block, |range| range.start);
                changed = Some(start..block + count);
            }
            block += count;
        }
        changed
    }

    /// Adds all of `other`.
    pub(super) fn unite(&mut self, other: &Self) {
        for (page, words) in &other.pages {
            let own = self.pages.entry(*page);
            let own = own.or_insert_with(|| Box::new([0; PAGE_WORDS]));
            for (word, other) in own.iter_mut().zip(&**words) {
                *word |= other;
            }
        }
    }

    /// Removes all of `other`.
    pub(super) fn subtract(&mut self, other: &Self) {
        for (page, words) in &other.pages {
            if let Some(own) = self.pages.get_mut(page) {
                for (word, other) in own.iter_mut().zip(&**words) {
                    *word &= !other;
                }
            }
        }
    }

    /// The first block of the set at `block` or behind it.
    pub(super) fn next_in(&self, block: u64) -> Option<u64> {
        let (first_page, first_word, bit) = place(block);
        for (&page, words) in self.pages.range(first_page..) {
            let (mut word, mut mask) = if page == first_page {
                (first_word, u64::MAX << bit)
            } else {
                (0, u64::MAX)
            };
            while word < PAGE_WORDS {
                let found = words[word] & mask;
                if found != 0 {
                    return Some(
                        page * PAGE_BLOCKS + word as u64 * 64 + u64::from(found.trailing_zeros()),
                    );
                }
                (word, mask) = (word + 1, u64::MAX);
            }
        }
        None
    }

    /// The first block at `block` or behind it that is not in the set.
    pub(super) fn next_out(&self, block: u64) -> u64 {
        let mut block = block;
        loop {
            let (page, word, bit) = place(block);
            let Some(words) = self.pages.get(&page) else {
                return block;
            };
            let found = !words[word] & (u64::MAX << bit);
            let first = block - u64::from(bit);
            if found != 0 {
                return first + u64::from(found.trailing_zeros());
            }
            block = first + 64;
        }
    }

    /// The bytes of the file that stand for `blocks`, and the number of the first of them.
    pub(super) fn bytes_of(&self, blocks: &Range<u64>) -> (u64, Vec<u8>) {
        let first = blocks.start / 8;
        let bytes = (first..blocks.end.div_ceil(8)).map(|byte| {
            let (page, word, bit) = place(byte * 8);
            let words = self.pages.get(&page);
            words.map_or(0, |words| (words[word] >> bit & 0xff) as u8)
        });
        (first, bytes.collect())
    }

    /// Takes a page of the file; `page` counts pages.
    pub(super) fn load_page(&mut self, page: u64, bytes: &[u8; PAGE_BYTES]) {
        let mut words = Box::new([0; PAGE_WORDS]);
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        if words.iter().any(|&word| word != 0) {
            self.pages.insert(page, words);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_set(operations in prop::collection::vec((any::<bool>(), 0u64..80_000, 0u64..40_000), 1..20)) {
            let mut set = BlockSet::default();
            let mut model = BTreeSet::new();
            for (to, start, count) in operations {
                let blocks = start..start + count;
                let differing: Vec<u64> = blocks.clone().filter(|block| model.contains(block) != to).collect();
                let changed = if to { set.insert(blocks.clone()) } else { set.remove(blocks.clone()) };
                prop_assert_eq!(changed.is_some(), !differing.is_empty());
                if let Some(changed) = changed {
                    prop_assert!(differing.iter().all(|block| changed.contains(block)));
                }
                if to { model.extend(blocks) } else { model.retain(|block| !blocks.contains(block)) }
                for probe in [0, start, start + count, start + count / 2, 70_000] {
                    prop_assert_eq!(set.contains(probe), model.contains(&probe));
                    prop_assert_eq!(set.next_in(probe), model.range(probe..).next().copied());
                    prop_assert_eq!(set.next_out(probe), (probe..200_000).find(|block| !model.contains(block)).unwrap());
                }
            }
            let (first, bytes) = set.bytes_of(&(0..3 * PAGE_BLOCKS));
            prop_assert_eq!(first, 0);
            let mut loaded = BlockSet::default();
            for (page, bytes) in (0..).zip(bytes.as_chunks::<PAGE_BYTES>().0) {
                loaded.load_page(page, bytes);
            }
            prop_assert_eq!(loaded.bytes_of(&(0..3 * PAGE_BLOCKS)), set.bytes_of(&(0..3 * PAGE_BLOCKS)));
        }
    }

    proptest! {
        #[test]
        fn sets_are_united_and_subtracted(
            a in prop::collection::vec((0u64..80_000, 0u64..20_000), 0..5),
            b in prop::collection::vec((0u64..80_000, 0u64..20_000), 0..5),
        ) {
            let of = |ranges: &[(u64, u64)]| {
                let (mut set, mut model) = (BlockSet::default(), BTreeSet::new());
                for &(start, count) in ranges {
                    set.insert(start..start + count);
                    model.extend(start..start + count);
                }
                (set, model)
            };
            let ((mut united, a), (b_set, b)) = (of(&a), of(&b));
            let mut left = united.clone();
            united.unite(&b_set);
            left.subtract(&b_set);
            for block in 0..101_000 {
                prop_assert_eq!(united.contains(block), a.contains(&block) || b.contains(&block));
                prop_assert_eq!(left.contains(block), a.contains(&block) && !b.contains(&block));
            }
        }
    }

    #[test]
    fn far_blocks_take_little_room() {
        let mut set = BlockSet::default();
        set.insert(1 << 50..(1 << 50) + 1);
        assert_eq!(set.pages.len(), 1);
        assert_eq!(set.next_in(0), Some(1 << 50));
        assert_eq!(set.remove(5..u64::MAX), Some((1 << 50)..(1 << 50) + 64));
        assert_eq!(set.next_in(0), None);
    }
}
