//! Groups of the old style (Specification III.A.1, III.B to III.D): a version 1 B-tree of names, leaves with an entry for each
//! link, and a local heap that has the names.

use super::decoder::Decoder;
use super::group::{Link, LinkTarget};
use super::reader::Budget;
use super::{Address, H5Error, MetaReader};

const TREE: &str = "version 1 B-tree node";
const LEAF: &str = "symbol table node";
const HEAP: &str = "local heap";
/// Signature, type, level, number of entries, two siblings.
const TREE_HEAD_BYTES: u64 = 4 + 1 + 1 + 2 + 8 + 8;
/// Signature, version, reserved, number of entries.
const LEAF_HEAD_BYTES: u64 = 4 + 1 + 1 + 2;
/// Name, header, kind of cache, reserved, scratch-pad.
const ENTRY_BYTES: usize = 8 + 8 + 4 + 4 + 16;
/// Of a free block: offset of the next one, length.
const FREE_BLOCK_BYTES: u64 = 8 + 8;
/// In place of an offset: there is no further free block (`H5HL_FREE_NULL`).
const NO_FREE_BLOCK: u64 = 1;
/// How much of the heap is looked at first for the end of a name.
const NAME_GUESS_BYTES: u64 = 128;

/// A group's tree and heap.
#[derive(Debug)]
pub(crate) struct SymbolTable<'r> {
    reader: &'r MetaReader,
    root: Address,
    heap: LocalHeap,
    budget: Budget,
}

#[derive(Debug, Clone, Copy)]
struct LocalHeap {
    data: Address,
    len_bytes: u64,
}

impl LocalHeap {
    /// Follows the list of free blocks (Specification III.D), which the C library follows wherever it leads, a circle included.
    fn check_free_list(&self, reader: &MetaReader, first: u64) -> Result<(), H5Error> {
        let damaged = || H5Error::Damaged {
            structure: HEAP,
            address: self.data,
            what: "its list of free blocks leads astray",
        };
        let mut room_bytes = self.len_bytes;
        let mut offset = first;
        while !matches!(offset, NO_FREE_BLOCK | u64::MAX) {
            let behind = offset.checked_add(FREE_BLOCK_BYTES);
            if behind.is_none_or(|behind| behind > self.len_bytes) {
                return Err(damaged());
            }
            let block = reader.read(self.data.after(offset, HEAP)?, FREE_BLOCK_BYTES)?;
            let mut decoder = Decoder::new(&block, HEAP, self.data);
            let (next, len_bytes) = (decoder.length()?, decoder.length()?);
            // No block is shorter than its own head, so blocks that do not overlap come to an end.
            room_bytes = room_bytes
                .checked_sub(len_bytes.max(FREE_BLOCK_BYTES))
                .ok_or_else(damaged)?;
            if len_bytes > self.len_bytes - offset {
                return Err(damaged());
            }
            offset = next;
        }
        Ok(())
    }
}

/// A node of the tree: where each child is, and the heap offsets of the names between which they lie.
struct Node {
    level: u8,
    names: Vec<u64>,
    children: Vec<Address>,
}

impl<'r> SymbolTable<'r> {
    /// Opens what the symbol table message (Specification IV.A.2.r) in `message` names.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where the message or the heap is not sound.
    pub(crate) fn open(reader: &'r MetaReader, message: &mut Decoder<'_>) -> Result<Self, H5Error> {
        let root = message.offset()?;
        let address = message.offset()?;
        let bytes = reader.read(address, 4 + 4 + 8 + 8 + 8)?;
        let mut decoder = Decoder::new(&bytes, HEAP, address);
        decoder.signature(b"HEAP")?;
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        decoder.skip(3)?;
        let len_bytes = decoder.length()?;
        let first_free = decoder.length()?;
        let data = decoder.offset()?;
        reader.file_offset(data, len_bytes)?;
        let heap = LocalHeap { data, len_bytes };
        heap.check_free_list(reader, first_free)?;
        Ok(Self {
            reader,
            root,
            heap,
            budget: reader.budget(),
        })
    }

    /// Calls `each` with every link, in the order of the names.
    pub(crate) fn walk(&mut self, each: &mut dyn FnMut(Link)) -> Result<(), H5Error> {
        let root = self.read_node(self.root)?;
        self.walk_node(&root, each)
    }

    /// The levels below a node are counted down, so the recursion is at most 255 deep; the budget bounds how often.
    fn walk_node(&mut self, node: &Node, each: &mut dyn FnMut(Link)) -> Result<(), H5Error> {
        for &child in &node.children {
            if node.level > 0 {
                let child = self.read_child(node, child)?;
                self.walk_node(&child, each)?;
                continue;
            }
            for entry in self.read_leaf(child)? {
                let link = Link {
                    name: self.name(entry.name)?,
                    target: self.target(&entry)?,
                };
                self.budget.spend(link.name.len() as u64, HEAP, child)?;
                each(link);
            }
        }
        Ok(())
    }

    /// The link of that name: one node of each level is read.
    pub(crate) fn find(&mut self, name: &[u8]) -> Result<Option<Link>, H5Error> {
        let mut node = self.read_node(self.root)?;
        loop {
            // A child's names are above the name before it and at most the name behind it.
            let behind = node.names.get(1..).unwrap_or_default();
            let at = self.partition(behind, |found| found < name)?;
            let Some(&child) = node.children.get(at) else {
                return Ok(None);
            };
            if node.level > 0 {
                node = self.read_child(&node, child)?;
                continue;
            }
            let entries = self.read_leaf(child)?;
            let names: Vec<u64> = entries.iter().map(|entry| entry.name).collect();
            let at = self.partition(&names, |found| found < name)?;
            let Some(entry) = entries.get(at) else {
                return Ok(None);
            };
            if self.name(entry.name)? != name {
                return Ok(None);
            }
            let target = self.target(entry)?;
            return Ok(Some(Link {
                name: name.to_vec(),
                target,
            }));
        }
    }

    /// Index of the first of `names` (heap offsets, in order) of which `is_before` does not hold.
    fn partition(
        &self,
        names: &[u64],
        is_before: impl Fn(&[u8]) -> bool,
    ) -> Result<usize, H5Error> {
        let (mut low, mut high) = (0, names.len());
        while low < high {
            let middle = low.midpoint(high);
            if is_before(&self.name(names[middle])?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn read_child(&mut self, parent: &Node, address: Address) -> Result<Node, H5Error> {
        let child = self.read_node(address)?;
        if child.level.checked_add(1) == Some(parent.level) {
            return Ok(child);
        }
        Err(H5Error::Damaged {
            structure: TREE,
            address,
            what: "its level is not one below its parent's",
        })
    }

    fn read_node(&mut self, address: Address) -> Result<Node, H5Error> {
        let head = self.reader.read(address, TREE_HEAD_BYTES)?;
        let mut decoder = Decoder::new(&head, TREE, address);
        decoder.signature(b"TREE")?;
        if decoder.u8()? != 0 {
            return Err(decoder.damaged("it does not belong to a group"));
        }
        let level = decoder.u8()?;
        let count = u64::from(decoder.u16()?);
        let body_bytes = (2 * count + 1) * 8;
        self.budget
            .spend(TREE_HEAD_BYTES + body_bytes, TREE, address)?;
        let body_address = address.after(TREE_HEAD_BYTES, TREE)?;
        let body = self.reader.read(body_address, body_bytes)?;
        let mut decoder = Decoder::new(&body, TREE, address);
        let mut names = vec![decoder.length()?];
        let mut children = Vec::new();
        for _ in 0..count {
            children.push(decoder.offset()?);
            names.push(decoder.length()?);
        }
        Ok(Node {
            level,
            names,
            children,
        })
    }

    fn read_leaf(&mut self, address: Address) -> Result<Vec<Entry>, H5Error> {
        let head = self.reader.read(address, LEAF_HEAD_BYTES)?;
        let mut decoder = Decoder::new(&head, LEAF, address);
        decoder.signature(b"SNOD")?;
        if decoder.u8()? != 1 {
            return Err(decoder.unsupported("its version is not 1"));
        }
        decoder.skip(1)?;
        let count = u64::from(decoder.u16()?);
        let body_bytes = count * ENTRY_BYTES as u64;
        self.budget
            .spend(LEAF_HEAD_BYTES + body_bytes, LEAF, address)?;
        let body_address = address.after(LEAF_HEAD_BYTES, LEAF)?;
        let body = self.reader.read(body_address, body_bytes)?;
        body.chunks_exact(ENTRY_BYTES)
            .map(|entry| {
                let mut decoder = Decoder::new(entry, LEAF, address);
                let name = decoder.length()?;
                let header = decoder.offset()?;
                let cache_type = decoder.u32()?;
                decoder.skip(4)?;
                Ok(Entry {
                    name,
                    header,
                    cache_type,
                    scratch: decoder.u32()?,
                })
            })
            .collect()
    }

    /// Where an entry leads: kind of cache 2 is a soft link, whose path is in the heap at the offset in the scratch-pad.
    fn target(&self, entry: &Entry) -> Result<LinkTarget, H5Error> {
        match entry.cache_type {
            2 => self.name(entry.scratch.into()).map(LinkTarget::Soft),
            _ => Ok(LinkTarget::Hard(entry.header)),
        }
    }

    /// The text at `offset` of the heap, up to its NUL.
    fn name(&self, offset: u64) -> Result<Vec<u8>, H5Error> {
        let address = self.heap.data.after(offset, HEAP)?;
        let damaged = |what| H5Error::Damaged {
            structure: HEAP,
            address,
            what,
        };
        let room_bytes = self
            .heap
            .len_bytes
            .checked_sub(offset)
            .ok_or_else(|| damaged("a name begins behind its end"))?;
        let mut look_bytes = NAME_GUESS_BYTES;
        loop {
            let bytes = self.reader.read(address, look_bytes.min(room_bytes))?;
            if let Some(len) = bytes.iter().position(|&byte| byte == 0) {
                return Ok(bytes[..len].to_vec());
            }
            if look_bytes >= room_bytes {
                return Err(damaged("a name in it has no end"));
            }
            look_bytes = look_bytes.saturating_mul(4);
        }
    }
}

/// One link.
struct Entry {
    /// Offset of the name in the heap.
    name: u64,
    header: Address,
    cache_type: u32,
    /// The first number of the scratch-pad.
    scratch: u32,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A heap of 64 bytes whose free blocks are at these offsets, each with the next one's and its own length.
    fn free_list(first: u64, blocks: &[(usize, u64, u64)]) -> Result<(), H5Error> {
        let mut bytes = vec![0; 64];
        for (at, next, len) in blocks {
            bytes[*at..at + 8].copy_from_slice(&next.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
        }
        let reader = MetaReader::new(Arc::new(bytes), 0, 64);
        let heap = LocalHeap {
            data: Address(0),
            len_bytes: 64,
        };
        heap.check_free_list(&reader, first)
    }

    #[test]
    fn lists_of_free_blocks_end() {
        assert!(free_list(1, &[]).is_ok());
        assert!(free_list(u64::MAX, &[]).is_ok());
        assert!(free_list(16, &[(16, 40, 16), (40, 1, 24)]).is_ok());
        // To itself, to each other, behind the end.
        assert!(free_list(16, &[(16, 16, 16)]).is_err());
        assert!(free_list(16, &[(16, 40, 0), (40, 16, 0)]).is_err());
        assert!(free_list(16, &[(16, 56, 16)]).is_err());
        assert!(free_list(16, &[(16, 1, 56)]).is_err());
        assert!(free_list(u64::MAX - 3, &[]).is_err());
    }
}
