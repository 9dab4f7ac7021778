//! Version 2 B-trees (Specification III.A.2): records of one size in order, in nodes that know how many records lie below them.
//!
//! Only the used part of a node is read and checked. No walk visits more records than the file has room for, whatever the
//! nodes claim: every node but an empty root must hold a record, and the sum is held against the header's total.

use std::cmp::Ordering;

use super::checksum;
use super::decoder::{Decoder, width_for_limit};
use super::{Address, H5Error, MetaReader};

const HEADER: &str = "version 2 B-tree header";
const NODE: &str = "version 2 B-tree node";
/// Signature, version, type, node size, record size, depth, two percentages, root address, root's records, total, checksum.
const HEADER_BYTES: u64 = 4 + 1 + 1 + 4 + 2 + 2 + 1 + 1 + 8 + 2 + 8 + 4;
/// Signature, version, type, checksum.
const NODE_OVERHEAD_BYTES: u64 = 4 + 1 + 1 + 4;

/// The header of a tree.
#[derive(Debug, Clone)]
pub struct BTree2 {
    tree_type: u8,
    record_bytes: usize,
    /// For each depth, leaves first: the most records that a node and a subtree can hold.
    levels: Vec<Level>,
    /// Width of the number of records in a child pointer.
    count_width: usize,
    root: Child,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    max_records: u64,
    max_total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Child {
    address: Address,
    records: u64,
    /// Records in it and below it.
    total: u64,
}

/// Receives the records of a walk.
pub type EachRecord<'a> = dyn FnMut(&[u8]) -> Result<(), H5Error> + 'a;

/// Calls `each` with every record of the tree whose header lies at `header`, in the order of the tree.
///
/// # Errors
/// [`H5Error::Damaged`] where the tree is not of type `tree_type` or not sound; whatever `each` returns.
pub fn walk(
    reader: &MetaReader,
    header: Address,
    tree_type: u8,
    each: &mut EachRecord<'_>,
) -> Result<(), H5Error> {
    BTree2::open(reader, header, tree_type)?.walk(reader, each)
}

impl BTree2 {
    /// Reads the header at `address` of a tree that must be of type `tree_type`.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where it is not, where its checksum does not match, or where it claims more than the file holds.
    pub fn open(reader: &MetaReader, address: Address, tree_type: u8) -> Result<Self, H5Error> {
        let bytes = reader.read(address, HEADER_BYTES)?;
        let mut decoder = Decoder::new(&bytes, HEADER, address);
        decoder.signature(b"BTHD")?;
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        checksum::verified(&bytes, HEADER, address)?;
        if decoder.u8()? != tree_type {
            return Err(decoder.damaged("it is of another type than its place demands"));
        }
        let node_bytes = u64::from(decoder.u32()?);
        let record_bytes = decoder.u16()?;
        let depth = decoder.u16()?;
        decoder.skip(2)?;
        let root = Child {
            address: decoder.offset()?,
            records: u64::from(decoder.u16()?),
            total: decoder.length()?,
        };
        let wide = u64::from(record_bytes);
        if wide == 0 || node_bytes < NODE_OVERHEAD_BYTES + wide {
            return Err(decoder.damaged("a record does not fit into a node"));
        }
        if root.total > reader.len_bytes() / wide {
            return Err(decoder.damaged("it claims more records than the file has room for"));
        }
        let (levels, count_width) = levels(node_bytes, wide, depth)
            .ok_or_else(|| decoder.damaged("its depth is impossible"))?;
        Ok(Self {
            tree_type,
            record_bytes: usize::from(record_bytes),
            levels,
            count_width,
            root,
        })
    }

    /// The number of records, at most what the file has room for.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.root.total
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.total == 0
    }

    /// Bytes of a record.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Calls `each` with every record, in the order of the tree.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where the tree is not sound; whatever `each` returns.
    pub fn walk(&self, reader: &MetaReader, each: &mut EachRecord<'_>) -> Result<(), H5Error> {
        self.search(reader, &mut |_| Ordering::Equal, each)
    }

    /// Calls `each` with every record for which `order` says `Equal`, in the order of the tree. `order` says where a record
    /// lies relative to the wanted ones; only nodes that may hold those are read.
    ///
    /// # Errors
    /// As for [`BTree2::walk`].
    pub fn search(
        &self,
        reader: &MetaReader,
        order: &mut dyn FnMut(&[u8]) -> Ordering,
        each: &mut EachRecord<'_>,
    ) -> Result<(), H5Error> {
        if self.root.total == 0 {
            return Ok(());
        }
        self.search_node(reader, self.root, self.levels.len() - 1, order, each)
    }

    /// `node` is `height` levels above the leaves.
    fn search_node(
        &self,
        reader: &MetaReader,
        node: Child,
        height: usize,
        order: &mut dyn FnMut(&[u8]) -> Ordering,
        each: &mut EachRecord<'_>,
    ) -> Result<(), H5Error> {
        let damaged = |what| H5Error::Damaged {
            structure: NODE,
            address: node.address,
            what,
        };
        let level = self.levels[height];
        if node.records == 0 || node.records > level.max_records || node.total > level.max_total {
            return Err(damaged("its number of records is impossible"));
        }
        let pointer_bytes = match height {
            0 => 0,
            _ => pointer_bytes(&self.levels, self.count_width, height),
        };
        // Both factors are below 2^16 (records in a node) and 2^16 (bytes of a record), so this does not overflow.
        let records_bytes = node.records * self.record_bytes as u64;
        let all_pointers_bytes = match height {
            0 => 0,
            _ => (node.records + 1) * pointer_bytes,
        };
        let used_bytes = NODE_OVERHEAD_BYTES + records_bytes + all_pointers_bytes;
        let bytes = reader.read(node.address, used_bytes)?;
        let mut decoder = Decoder::new(&bytes, NODE, node.address);
        decoder.signature(if height == 0 { b"BTLF" } else { b"BTIN" })?;
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        checksum::verified(&bytes, NODE, node.address)?;
        if decoder.u8()? != self.tree_type {
            return Err(decoder.damaged("it belongs to a tree of another type"));
        }
        let records = usize::try_from(records_bytes)
            .map_err(|_| damaged("its number of records is impossible"))?;
        let records = decoder.take(records)?.chunks_exact(self.record_bytes);
        if height == 0 {
            if node.total != node.records {
                return Err(damaged(
                    "it has another number of records than its parent says",
                ));
            }
            for record in records {
                match order(record) {
                    Ordering::Less => {}
                    Ordering::Equal => each(record)?,
                    Ordering::Greater => break,
                }
            }
            return Ok(());
        }

        let children = self.children(&mut decoder, node, height)?;
        // The wanted records may begin in the child before the first that is not `Less`.
        let mut before = Ordering::Less;
        for (record, child) in records.zip(&children) {
            let here = order(record);
            if here != Ordering::Less && before != Ordering::Greater {
                self.search_node(reader, *child, height - 1, order, each)?;
            }
            if here == Ordering::Equal {
                each(record)?;
            }
            before = here;
            if here == Ordering::Greater {
                return Ok(());
            }
        }
        if let (Some(last), true) = (children.last(), before != Ordering::Greater) {
            self.search_node(reader, *last, height - 1, order, each)?;
        }
        Ok(())
    }

    /// The child pointers of an internal node, whose totals must add up to the node's own.
    fn children(
        &self,
        decoder: &mut Decoder<'_>,
        node: Child,
        height: usize,
    ) -> Result<Vec<Child>, H5Error> {
        let total_width = total_width(&self.levels, height);
        let mut children = Vec::new();
        let mut sum = node.records;
        for _ in 0..=node.records {
            let address = decoder.offset()?;
            let records = decoder.uint(self.count_width)?;
            let total = match height {
                1 => records,
                _ => decoder.uint(total_width)?,
            };
            sum = sum.saturating_add(total);
            children.push(Child {
                address,
                records,
                total,
            });
        }
        if sum != node.total {
            return Err(decoder.damaged("it has another number of records than its parent says"));
        }
        Ok(children)
    }
}

/// Bytes of a child pointer in a node `height` (at least 1) levels above the leaves (`H5B2_INT_POINTER_SIZE`).
fn pointer_bytes(levels: &[Level], count_width: usize, height: usize) -> u64 {
    (8 + count_width + total_width(levels, height)) as u64
}

/// Width of the total in a child pointer of a node at `height`; children that are leaves need none.
fn total_width(levels: &[Level], height: usize) -> usize {
    match height {
        0 | 1 => 0,
        _ => width_for_limit(levels[height - 1].max_total),
    }
}

/// Capacities from the leaves up (`H5B2__hdr_init`) and the width of a count, or `None` where no such tree can be.
fn levels(node_bytes: u64, record_bytes: u64, depth: u16) -> Option<(Vec<Level>, usize)> {
    let max_records = (node_bytes - NODE_OVERHEAD_BYTES) / record_bytes;
    let count_width = width_for_limit(max_records);
    let mut levels = vec![Level {
        max_records,
        max_total: max_records,
    }];
    for height in 1..=usize::from(depth) {
        let pointer_bytes = pointer_bytes(&levels, count_width, height);
        let max_records = node_bytes.checked_sub(NODE_OVERHEAD_BYTES + pointer_bytes)?
            / (record_bytes + pointer_bytes);
        let below = levels.last()?.max_total;
        // At least doubling with each level, this ends the loop after 64 rounds.
        let max_total = max_records
            .checked_add(1)?
            .checked_mul(below)?
            .checked_add(max_records)?;
        if max_records == 0 {
            return None;
        }
        levels.push(Level {
            max_records,
            max_total,
        });
    }
    Some((levels, count_width))
}
