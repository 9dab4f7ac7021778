//! Version 1 B-trees of type 1 (Specification III.A.1): the index of every chunked dataset in the earliest format.
//!
//! Nodes have no checksum. Each must be where its neighbours say, one level below its parent, and the chunks must ascend through
//! the whole tree: so no node is visited twice, and the walk ends. Of a tree whose chunks are stacked along the first axis, the part that
//! holds some cells can be read alone: an inner node says where each of its children begins.

use std::iter;
use std::ops::Range;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::table::Collector;
use crate::h5::decoder::Decoder;
use crate::h5::parallel;
use crate::h5::{Address, H5Error, MetaReader, StoredChunk};

const NODE: &str = "version 1 B-tree node";
const NOT_NEIGHBOURS: &str = "its siblings are not its neighbours";
const NOT_ASCENDING: &str = "its chunks do not ascend";
/// Signature, type, level, entries, left and right sibling.
const HEADER_BYTES: usize = 4 + 1 + 1 + 2 + 8 + 8;
/// Raw data chunks; groups are type 0.
const CHUNKS: u8 = 1;
/// Entries of a full node of the usual order, so that nearly every node is one read.
const USUAL_ENTRIES: usize = 64;
/// Each thread gets at least so many leaves; starting it for fewer would take longer than it saves.
const LEAVES_PER_THREAD: usize = 64;
/// So many threads read one index at most.
const MAX_THREADS: usize = 8;

/// All cells that there are.
pub(super) const ALL: Range<u64> = 0..u64::MAX;

/// Adds every chunk of the tree with this `root` whose cell is `wanted`. Where those are not [`ALL`], the grid must be one chunk wide on every
/// axis but the first.
pub(super) fn read(
    reader: &MetaReader,
    root: Address,
    chunk_shape: &[u64],
    wanted: Range<u64>,
    found: &mut Collector<'_>,
) -> Result<(), H5Error> {
    let ends_with_tree = wanted.end == ALL.end;
    // Stored length, filter mask, and an offset for each axis and one within the element.
    let key_bytes = 4 + 4 + 8 * (chunk_shape.len() + 1);
    let entry_bytes = key_bytes + 8;
    let tree = Tree {
        chunk_shape,
        entry_bytes,
        wanted,
        entries_left: AtomicU64::new(reader.len_bytes() / entry_bytes as u64),
    };
    let mut walk = Walk::new(&tree, reader.again());
    let mut leaves = Vec::new();
    walk.node(root, None, &mut leaves, found)?;
    walk.leaves(&leaves, found)?;
    match walk.levels.iter().find(|level| level.right.is_defined()) {
        Some(level) if ends_with_tree => {
            Err(damaged(level.address, "a sibling is not in the tree"))
        }
        _ => Ok(()),
    }
}

/// What all who walk over one tree have in common.
struct Tree<'a> {
    chunk_shape: &'a [u64],
    entry_bytes: usize,
    wanted: Range<u64>,
    /// How many more the file has room for.
    entries_left: AtomicU64,
}

struct Walk<'a> {
    tree: &'a Tree<'a>,
    reader: MetaReader,
    /// The node visited last on each level, leaves first.
    levels: Vec<Visited>,
    first_cell: Option<u64>,
    last_cell: Option<u64>,
    buffer: Vec<u8>,
}

struct Visited {
    address: Address,
    right: Address,
}

impl<'a> Walk<'a> {
    fn new(tree: &'a Tree<'a>, reader: MetaReader) -> Self {
        Self {
            tree,
            reader,
            levels: Vec::new(),
            first_cell: None,
            last_cell: None,
            buffer: Vec::new(),
        }
    }

    /// Visits the node at `address`, and those below it but for the leaves, which are added to `leaves` in their order. `level` is what its
    /// parent demands; a root may have any.
    fn node(
        &mut self,
        address: Address,
        level: Option<u8>,
        leaves: &mut Vec<Address>,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        let buffer = std::mem::take(&mut self.buffer);
        let node = read_node(&self.reader, address, self.tree.entry_bytes, buffer)?;
        let (own_level, children) = self.entries(address, level, &node, found)?;
        self.buffer = node;
        for child in children {
            if own_level == 1 {
                leaves.push(child);
            } else {
                self.node(child, Some(own_level - 1), leaves, found)?;
            }
        }
        Ok(())
    }

    /// Visits leaves, which are not the root: many of them in parts, each by a thread of its own.
    fn leaves(&mut self, leaves: &[Address], found: &mut Collector<'_>) -> Result<(), H5Error> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let parts = (leaves.len() / LEAVES_PER_THREAD).clamp(1, threads.min(MAX_THREADS));
        let part_len = leaves.len().div_ceil(parts).max(1);
        // Of what the file has room for.
        let most = self.tree.entries_left.load(Ordering::Relaxed);
        let usual = |leaves: &[Address]| {
            let usual = leaves.len().saturating_mul(USUAL_ENTRIES);
            usize::try_from(most).map_or(usual, |most| most.min(usual))
        };
        found.reserve(usual(leaves));
        thread::scope(|scope| {
            let mut parts = leaves.chunks(part_len);
            let own = parts.next().unwrap_or_default();
            let mut before = own.last();
            let mut others = Vec::new();
            for part in parts {
                let mut walk = Walk::new(self.tree, self.reader.again());
                walk.levels.extend(before.map(|&before| Visited {
                    address: before,
                    right: part[0],
                }));
                before = part.last();
                let mut found = found.beside();
                found.reserve(usual(part));
                let other = parallel::spawn(scope, move || {
                    walk.consecutive(part, &mut found).map(|()| (walk, found))
                });
                others.push((part[0], other));
            }
            self.consecutive(own, found)?;
            for (first, other) in others {
                let other = other.join();
                let (walk, more) = other.unwrap_or_else(|panic| panic::resume_unwind(panic))?;
                self.go_on_behind(first, walk)?;
                found.append(&more);
            }
            Ok(())
        })
    }

    fn consecutive(
        &mut self,
        leaves: &[Address],
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        leaves
            .iter()
            .try_for_each(|&leaf| self.node(leaf, Some(0), &mut Vec::new(), found))
    }

    /// Goes on behind the leaves from `first` on, which another walk visited.
    fn go_on_behind(&mut self, first: Address, other: Walk<'_>) -> Result<(), H5Error> {
        if self.levels.first().is_none_or(|leaf| leaf.right != first) {
            return Err(damaged(first, NOT_NEIGHBOURS));
        }
        if self.last_cell >= other.first_cell {
            return Err(damaged(first, NOT_ASCENDING));
        }
        self.last_cell = other.last_cell;
        for (own, other) in self.levels.iter_mut().zip(other.levels) {
            *own = other;
        }
        Ok(())
    }

    /// Adds the chunks of a leaf; of an inner node, gives the children that are wanted. Each with the node's level.
    fn entries(
        &mut self,
        address: Address,
        level: Option<u8>,
        node: &[u8],
        found: &mut Collector<'_>,
    ) -> Result<(u8, Vec<Address>), H5Error> {
        let mut decoder = Decoder::new(node, NODE, address);
        decoder.signature(b"TREE")?;
        if decoder.u8()? != CHUNKS {
            return Err(decoder.damaged("it is not one of a chunk index"));
        }
        let own_level = decoder.u8()?;
        if level.is_some_and(|level| level != own_level) {
            return Err(decoder.damaged("it is not one level below its parent"));
        }
        let entries = decoder.u16()?;
        if entries == 0 && level.is_some() {
            return Err(decoder.damaged("it is empty"));
        }
        let spend = |left: u64| left.checked_sub(u64::from(entries));
        let entries_left = &self.tree.entries_left;
        if entries_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_err()
        {
            return Err(decoder.damaged("the tree has more entries than the file has room for"));
        }
        let (left, right) = (decoder.offset()?, decoder.offset()?);
        self.check_siblings(address, own_level, left, right)?;

        let mut children: Vec<(u64, Address)> = Vec::new();
        let entries = decoder.take(usize::from(entries) * self.tree.entry_bytes)?;
        for entry in entries.chunks_exact(self.tree.entry_bytes) {
            let entry =
                Entry::new(entry).ok_or_else(|| decoder.damaged("an entry is too short"))?;
            if own_level == 0 {
                self.chunk(&entry, address, found)?;
            } else {
                let first_row = entry
                    .offsets
                    .first()
                    .map_or(0, |row| u64::from_le_bytes(*row));
                children.push((first_row / self.tree.chunk_shape[0], entry.address));
            }
        }
        self.keep_wanted(&mut children);
        let children = children.into_iter().map(|(_, child)| child).collect();
        Ok((own_level, children))
    }

    /// Of the children of a node, each with the first cell of it, leaves those that may hold what is wanted.
    fn keep_wanted(&self, children: &mut Vec<(u64, Address)>) {
        let before = children.partition_point(|&(first, _)| first < self.tree.wanted.end);
        children.truncate(before.max(1));
        // The last one that begins at the first wanted cell or before it, or else the first one of all.
        let behind = children.partition_point(|&(first, _)| first <= self.tree.wanted.start);
        children.drain(..behind.saturating_sub(1));
    }

    #[inline]
    fn chunk(
        &mut self,
        entry: &Entry<'_>,
        node: Address,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        let mut cell = 0u64;
        let axes = iter::zip(self.tree.chunk_shape, found.grid());
        for (offset, (&chunk, &cells)) in iter::zip(entry.offsets, axes) {
            let offset = u64::from_le_bytes(*offset);
            let scaled = offset / chunk;
            if scaled * chunk != offset {
                return Err(damaged(node, "a chunk does not begin where chunks do"));
            }
            if scaled >= cells {
                return Err(damaged(node, "a chunk is outside the dataset"));
            }
            // Below the number of cells of the grid, which 64 bits count.
            cell = cell * cells + scaled;
        }
        if entry.within_element != 0 {
            return Err(damaged(node, "a chunk begins within an element"));
        }
        if self.last_cell.is_some_and(|last| last >= cell) {
            return Err(damaged(node, NOT_ASCENDING));
        }
        self.first_cell = self.first_cell.or(Some(cell));
        self.last_cell = Some(cell);
        if self.tree.wanted.contains(&cell) {
            let chunk = StoredChunk {
                address: entry.address,
                stored_bytes: u64::from(entry.stored_bytes),
                filter_mask: entry.filter_mask,
            };
            found.add(node, cell, chunk)
        } else {
            Ok(())
        }
    }

    /// The node must follow the one visited before it on its level, as both say.
    fn check_siblings(
        &mut self,
        address: Address,
        level: u8,
        left: Address,
        right: Address,
    ) -> Result<(), H5Error> {
        let level = usize::from(level);
        while self.levels.len() <= level {
            self.levels.push(Visited {
                address: Address::UNDEFINED,
                right: Address::UNDEFINED,
            });
        }
        let before = &mut self.levels[level];
        let first = !before.address.is_defined();
        // What lies left of the first wanted cell is not looked at.
        let may_begin = first && self.tree.wanted.start > 0;
        if left != before.address && !may_begin || (!first && before.right != address) {
            return Err(damaged(address, NOT_NEIGHBOURS));
        }
        *before = Visited { address, right };
        Ok(())
    }
}

/// One key and the address behind it.
struct Entry<'a> {
    stored_bytes: u32,
    filter_mask: u32,
    /// First element of the chunk along each axis.
    offsets: &'a [[u8; 8]],
    within_element: u64,
    address: Address,
}

impl<'a> Entry<'a> {
    #[inline]
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let (words, _) = bytes.as_chunks();
        let [form, offsets @ .., within_element, address] = words else {
            return None;
        };
        let (stored_bytes, filter_mask) = (form.first_chunk()?, form.last_chunk()?);
        Some(Self {
            stored_bytes: u32::from_le_bytes(*stored_bytes),
            filter_mask: u32::from_le_bytes(*filter_mask),
            offsets,
            within_element: u64::from_le_bytes(*within_element),
            address: Address(u64::from_le_bytes(*address)),
        })
    }
}

/// A node's header and entries, in `buffer`. It goes past the reader's blocks: nodes lie far apart between the chunks that they index.
fn read_node(
    reader: &MetaReader,
    address: Address,
    entry_bytes: usize,
    mut buffer: Vec<u8>,
) -> Result<Vec<u8>, H5Error> {
    let offset = reader.file_offset(address, HEADER_BYTES as u64)?;
    let usual = HEADER_BYTES + USUAL_ENTRIES * entry_bytes;
    let in_file = reader.len_bytes() - address.0;
    let len = usize::try_from(in_file).map_or(usual, |in_file| in_file.min(usual));
    buffer.resize(len, 0);
    reader.source().read_exact_at(&mut buffer, offset)?;
    let entries = usize::from(u16::from_le_bytes([buffer[6], buffer[7]]));
    let len = HEADER_BYTES + entries * entry_bytes;
    if len > buffer.len() {
        let offset = reader.file_offset(address, len as u64)?;
        buffer.resize(len, 0);
        reader.source().read_exact_at(&mut buffer, offset)?;
    }
    Ok(buffer)
}

#[cold]
fn damaged(address: Address, what: &'static str) -> H5Error {
    H5Error::Damaged {
        structure: NODE,
        address,
        what,
    }
}
