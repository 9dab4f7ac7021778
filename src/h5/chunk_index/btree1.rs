//! Version 1 B-trees of type 1 (Specification III.A.1): the index of every chunked dataset in the earliest format.
//!
//! Nodes have no checksum. Each must be where its neighbours say, one level below its parent, and the chunks must ascend through
//! the whole tree: so no node is visited twice, and the walk ends. Of a tree whose chunks are stacked along the first axis, the part that
//! holds some cells can be read alone: an inner node says where each of its children begins.

use std::iter;
use std::ops::Range;
use std::sync::mpsc;
use std::thread;

use super::table::Collector;
use crate::h5::decoder::Decoder;
use crate::h5::{Address, H5Error, MetaReader, StoredChunk};

const NODE: &str = "version 1 B-tree node";
/// Signature, type, level, entries, left and right sibling.
const HEADER_BYTES: usize = 4 + 1 + 1 + 2 + 8 + 8;
/// Raw data chunks; groups are type 0.
const CHUNKS: u8 = 1;
/// Entries of a full node of the usual order, so that nearly every node is one read.
const USUAL_ENTRIES: usize = 64;
/// From this many leaves on, another thread reads them for the one that decodes them, which takes as long; below, starting it would take longer
/// than it saves.
const READ_AHEAD_LEAVES: usize = 256;
/// So many leaves are handed over at once, and so many times as many are read ahead at most.
const HANDED_OVER: usize = 16;
const HANDED_OVER_AHEAD: usize = 8;

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
    let mut walk = Walk {
        reader,
        chunk_shape,
        entry_bytes,
        wanted,
        entries_left: reader.len_bytes() / entry_bytes as u64,
        levels: Vec::new(),
        last_cell: None,
        buffer: Vec::new(),
    };
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

struct Walk<'a> {
    reader: &'a MetaReader,
    chunk_shape: &'a [u64],
    entry_bytes: usize,
    wanted: Range<u64>,
    /// How many more the file has room for.
    entries_left: u64,
    /// The node visited last on each level, leaves first.
    levels: Vec<Visited>,
    last_cell: Option<u64>,
    buffer: Vec<u8>,
}

struct Visited {
    address: Address,
    right: Address,
}

impl Walk<'_> {
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
        let node = read_node(self.reader, address, self.entry_bytes, buffer)?;
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

    /// Visits leaves, which are not the root.
    fn leaves(&mut self, leaves: &[Address], found: &mut Collector<'_>) -> Result<(), H5Error> {
        if leaves.len() < READ_AHEAD_LEAVES {
            return leaves
                .iter()
                .try_for_each(|&leaf| self.node(leaf, Some(0), &mut Vec::new(), found));
        }
        thread::scope(|scope| {
            let (hand_over, nodes) = mpsc::sync_channel(HANDED_OVER_AHEAD);
            let (reader, entry_bytes) = (self.reader.again(), self.entry_bytes);
            scope.spawn(move || {
                for part in leaves.chunks(HANDED_OVER) {
                    let read = |&leaf| read_usual_node(&reader, leaf, entry_bytes);
                    let nodes: Vec<_> = part.iter().map(read).collect();
                    // Behind damage, nobody takes them.
                    if hand_over.send(nodes).is_err() {
                        return;
                    }
                }
            });
            for (&leaf, node) in iter::zip(leaves, nodes.iter().flatten()) {
                match node? {
                    Some(node) => {
                        self.entries(leaf, Some(0), &node, found)?;
                    }
                    None => self.node(leaf, Some(0), &mut Vec::new(), found)?,
                }
            }
            Ok(())
        })
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
        self.entries_left = self
            .entries_left
            .checked_sub(u64::from(entries))
            .ok_or_else(|| {
                decoder.damaged("the tree has more entries than the file has room for")
            })?;
        let (left, right) = (decoder.offset()?, decoder.offset()?);
        self.check_siblings(address, own_level, left, right)?;

        let mut children: Vec<(u64, Address)> = Vec::new();
        for _ in 0..entries {
            if own_level == 0 {
                self.chunk(&mut decoder, address, found)?;
            } else {
                decoder.skip(4 + 4)?;
                let first_row = decoder.u64()?;
                decoder.skip(self.entry_bytes - 4 - 4 - 8 - 8)?;
                children.push((first_row / self.chunk_shape[0], decoder.offset()?));
            }
        }
        self.keep_wanted(&mut children);
        let children = children.into_iter().map(|(_, child)| child).collect();
        Ok((own_level, children))
    }

    /// Of the children of a node, each with the first cell of it, leaves those that may hold what is wanted.
    fn keep_wanted(&self, children: &mut Vec<(u64, Address)>) {
        let before = children.partition_point(|&(first, _)| first < self.wanted.end);
        children.truncate(before.max(1));
        // The last one that begins at the first wanted cell or before it, or else the first one of all.
        let behind = children.partition_point(|&(first, _)| first <= self.wanted.start);
        children.drain(..behind.saturating_sub(1));
    }

    /// One key and the address behind it.
    fn chunk(
        &mut self,
        decoder: &mut Decoder<'_>,
        node: Address,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        let stored_bytes = u64::from(decoder.u32()?);
        let filter_mask = decoder.u32()?;
        let mut cell = 0u64;
        for (axis, &chunk) in self.chunk_shape.iter().enumerate() {
            let (offset, cells) = (decoder.u64()?, found.grid()[axis]);
            let scaled = offset / chunk;
            if scaled * chunk != offset {
                return Err(decoder.damaged("a chunk does not begin where chunks do"));
            }
            if scaled >= cells {
                return Err(decoder.damaged("a chunk is outside the dataset"));
            }
            // Below the number of cells of the grid, which 64 bits count.
            cell = cell * cells + scaled;
        }
        if decoder.u64()? != 0 {
            return Err(decoder.damaged("a chunk begins within an element"));
        }
        if self.last_cell.is_some_and(|last| last >= cell) {
            return Err(decoder.damaged("its chunks do not ascend"));
        }
        self.last_cell = Some(cell);
        let chunk = StoredChunk {
            address: decoder.offset()?,
            stored_bytes,
            filter_mask,
        };
        if self.wanted.contains(&cell) {
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
        let may_begin = first && self.wanted.start > 0;
        if left != before.address && !may_begin || (!first && before.right != address) {
            return Err(damaged(address, "its siblings are not its neighbours"));
        }
        *before = Visited { address, right };
        Ok(())
    }
}

/// A node's header and entries, in `buffer`. It goes past the reader's blocks: nodes lie far apart between the chunks that they index.
fn read_node(
    reader: &MetaReader,
    address: Address,
    entry_bytes: usize,
    mut buffer: Vec<u8>,
) -> Result<Vec<u8>, H5Error> {
    let len = read_usual(reader, address, entry_bytes, &mut buffer)?;
    if len > buffer.len() {
        let offset = reader.file_offset(address, len as u64)?;
        buffer.resize(len, 0);
        reader.source().read_exact_at(&mut buffer, offset)?;
    }
    Ok(buffer)
}

/// The same for a node of the usual order; `None` for one that is longer, of which many at once might take more memory than the file justifies.
fn read_usual_node(
    reader: &MetaReader,
    address: Address,
    entry_bytes: usize,
) -> Result<Option<Vec<u8>>, H5Error> {
    let mut buffer = Vec::new();
    let len = read_usual(reader, address, entry_bytes, &mut buffer)?;
    Ok((len <= buffer.len()).then_some(buffer))
}

/// Reads as much as a node of the usual order has, and says how long this one is.
fn read_usual(
    reader: &MetaReader,
    address: Address,
    entry_bytes: usize,
    buffer: &mut Vec<u8>,
) -> Result<usize, H5Error> {
    let offset = reader.file_offset(address, HEADER_BYTES as u64)?;
    let usual = HEADER_BYTES + USUAL_ENTRIES * entry_bytes;
    let in_file = reader.len_bytes() - address.0;
    let len = usize::try_from(in_file).map_or(usual, |in_file| in_file.min(usual));
    buffer.resize(len, 0);
    reader.source().read_exact_at(buffer, offset)?;
    let entries = usize::from(u16::from_le_bytes([buffer[6], buffer[7]]));
    Ok(HEADER_BYTES + entries * entry_bytes)
}

fn damaged(address: Address, what: &'static str) -> H5Error {
    H5Error::Damaged {
        structure: NODE,
        address,
        what,
    }
}
