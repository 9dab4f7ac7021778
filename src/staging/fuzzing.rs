//! What the sidecar holds, as fuzz targets; see [`crate::fuzzing`].

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::block_set::{BlockSet, PAGE_BYTES};
use super::change::{Change, Record};
use super::change_log;
use super::overlay::{BaseBytes, Overlay, Since, blocks_name, data_name};
use super::sidecar::Sidecar;
use super::tree::Tree;
use crate::fuzzing::Input;
use crate::store::StoreError;

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

/// The number of the overlay that is made of the input.
const NUMBER: u64 = 1;
/// The longest `N.data`.
const MAX_DATA_BYTES: u64 = 1 << 20;

/// A sidecar of this thread's own, in a folder that is removed with it.
struct Bench {
    path: PathBuf,
    sidecar: Arc<Sidecar>,
}

impl Bench {
    fn new() -> Self {
        let thread = std::thread::current().id();
        let name = format!("vh5fs-fuzzing-{}-{thread:?}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let sidecar =
            Sidecar::make(&path).expect("the system's temporary folder can be written to");
        Self { path, sidecar }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path.join(name), bytes).expect("it can be written to");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A base that is as long as it is asked to be.
struct Sevens;

impl BaseBytes for Sevens {
    fn read_exact_at(&self, _: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        buffer.fill(7);
        Ok(())
    }

    fn seek(&self, offset: u64, for_hole: bool) -> Result<Option<u64>, StoreError> {
        Ok((!for_hole).then_some(offset))
    }
}

/// The two files of an overlay: what they are taken for is the same when they are taken up again, and can be edited.
pub(crate) fn overlay_files(bytes: &[u8]) {
    thread_local! {
        static BENCH: OnceCell<Bench> = const { OnceCell::new() };
    }
    BENCH.with(|bench| overlay_files_in(bench.get_or_init(Bench::new), bytes));
}

fn overlay_files_in(bench: &Bench, bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let since = if input.u8() & 1 == 0 {
        Since::SameBoot
    } else {
        Since::OtherBoot
    };
    let data_bytes = u64::from(input.u32()) % MAX_DATA_BYTES;
    let written = input.take(64);
    let is_framed = input.u8() & 1 == 0;
    let (limit, synced) = (input.u64(), u64::from(input.u8() % 3));
    let mut blocks = Vec::new();
    if is_framed {
        blocks.extend(b"vh5fsbl2");
        blocks.extend(limit.to_le_bytes());
        blocks.extend(synced.to_le_bytes());
        blocks.resize(4096, 0);
    }
    blocks.extend(input.rest());
    bench.write(&blocks_name(NUMBER), &blocks);
    bench.write(&data_name(NUMBER), written);
    let data = fs::File::options()
        .write(true)
        .open(bench.path.join(data_name(NUMBER)));
    let sized = data.and_then(|data| data.set_len(data_bytes));
    sized.expect("it can be written to");

    Overlay::is_unborn(&bench.sidecar, NUMBER).expect("nothing fails");
    let Ok((mut overlay, lost_blocks)) = Overlay::open(&bench.sidecar, NUMBER, since) else {
        return;
    };
    assert_eq!(overlay.len_bytes(), data_bytes);
    assert!(overlay.base_limit() <= data_bytes);
    assert!(lost_blocks <= data_bytes.div_ceil(4096));
    let all = |overlay: &Overlay| {
        let mut bytes = vec![0; usize::try_from(data_bytes).expect("a megabyte")];
        let count = overlay.read_at(&Sevens, 0, &mut bytes);
        assert_eq!(count.expect("nothing fails"), bytes.len());
        bytes
    };
    let found = all(&overlay);
    let (again, lost_again) =
        Overlay::open(&bench.sidecar, NUMBER, since).expect("it was there before");
    assert_eq!((all(&again), lost_again), (found.clone(), 0));
    let at = found.len() / 2;
    overlay
        .write_at(&Sevens, at as u64, b"edit")
        .expect("nothing fails");
    overlay.truncate(data_bytes).expect("nothing fails");
    let mut expected = found;
    expected.truncate(at);
    expected.extend(b"edit");
    let mut edited = all(&overlay);
    edited.truncate(at + 4);
    expected.truncate(edited.len());
    assert_eq!(edited, expected);
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
