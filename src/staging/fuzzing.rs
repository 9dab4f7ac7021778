//! What the sidecar holds, as fuzz targets; see [`crate::fuzzing`].

use std::collections::BTreeSet;

use super::block_set::{BlockSet, PAGE_BYTES};
use super::change::{Change, Record};
use super::change_log;
use super::tree::Tree;
use crate::fuzzing::Input;

/// Blocks that the model of a set has room for.
const MAX_BLOCKS: u64 = 1 << 17;

/// A log of changes.
pub(crate) fn change_log(bytes: &[u8]) {
    let (records, ends) = change_log::decode(bytes);
    let whole = usize::try_from(ends.last().copied().unwrap_or(0)).expect("within the bytes");
    let (again, all) = change_log::decode(&bytes[..whole]);
    assert_eq!((&again, &all), (&records, &ends));
    let found = change_log::read(bytes);
    assert_eq!((&found.records, &found.ends), (&records, &ends));
    assert!(whole < bytes.len() || !found.is_damaged);
}

/// Records, one a line, without lengths and checksums: each written and read again, and the changes made of an empty tree.
pub(crate) fn change_replay(bytes: &[u8]) {
    let mut tree = Tree::of_base(None, None);
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(record) = serde_json::from_slice::<Record>(line) else {
            continue;
        };
        let written = change_log::encode(&record);
        let (again, _) = change_log::decode(&written);
        assert_eq!(again, std::slice::from_ref(&record));
        if let Record::Change(change) = record {
            replay(&mut tree, &change);
        }
    }
    let objects = tree.objects();
    for (path, id) in &objects {
        assert_eq!(tree.find(path).expect("it is there"), *id);
    }
    let _ = tree.differences();
}

fn replay(tree: &mut Tree, change: &Change) {
    if tree.check(change).is_ok() {
        let _ = tree.apply(change, None);
    }
}

/// A page of the file that keeps a set of blocks, and operations on it, held against a plain set.
pub(crate) fn block_set(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut set, mut model) = (BlockSet::default(), BTreeSet::new());
    for _ in 0..8 {
        let start = u64::from(input.u32()) % MAX_BLOCKS;
        let blocks = start..start + u64::from(input.u16()) % 3000;
        if input.u8() & 1 == 0 {
            set.insert(blocks.clone());
            model.extend(blocks);
        } else {
            set.remove(blocks.clone());
            model.retain(|block| !blocks.contains(block));
        }
        let at = u64::from(input.u32()) % MAX_BLOCKS;
        assert_eq!(set.contains(at), model.contains(&at));
        assert_eq!(set.next_in(at), model.range(at..).next().copied());
        let mut free = at;
        while model.contains(&free) {
            free += 1;
        }
        assert_eq!(set.next_out(at), free);
    }
    let mut page = Box::new([0; PAGE_BYTES]);
    let stored = input.take(PAGE_BYTES);
    page[..stored.len()].copy_from_slice(stored);
    let number = stored.len() as u64 % 4;
    let mut loaded = BlockSet::default();
    loaded.load_page(number, &page);
    let per_page = PAGE_BYTES as u64 * 8;
    let (first, found) = loaded.bytes_of(&(number * per_page..(number + 1) * per_page));
    assert_eq!((first, &found[..]), (number * PAGE_BYTES as u64, &page[..]));
}
