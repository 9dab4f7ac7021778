//! Fractal heaps (Specification III.G): what dense groups and objects with many attributes keep their messages in.
//!
//! An object's id says where it is: in the id itself (tiny), in a block of the heap (managed), or in a place of its own (huge).
//! The heap's address space is covered by blocks whose sizes double from row to row of a table; a row beyond the largest
//! direct block holds tables of the same kind.

use std::collections::HashSet;

use super::btree2::BTree2;
use super::checksum;
use super::decoder::{Decoder, width_for_limit};
use super::reader::Budget;
use super::{Address, H5Error, MetaBytes, MetaReader};

const HEADER: &str = "fractal heap header";
const DIRECT: &str = "fractal heap direct block";
const INDIRECT: &str = "fractal heap indirect block";
const HEAP_ID: &str = "fractal heap id";
const HUGE: &str = "huge object of a fractal heap";
/// All of a header without filters.
const HEADER_BYTES: u64 = 146;
/// Type of the version 2 B-tree that finds huge objects by their number.
const HUGE_INDEX_TYPE: u8 = 1;

/// An opened heap. Blocks are checked when they are first used.
#[derive(Debug)]
pub(crate) struct FractalHeap<'r> {
    reader: &'r MetaReader,
    address: Address,
    id_len: usize,
    huge_index: Address,
    checksums_in_direct_blocks: bool,
    table: DoublingTable,
    /// Width of an offset and of a length in a managed object's id.
    offset_width: usize,
    length_width: usize,
    checked_blocks: HashSet<Address>,
    blocks_budget: Budget,
    objects_budget: Budget,
}

/// The shape of the doubling table. All sizes are powers of two.
#[derive(Debug, Clone)]
struct DoublingTable {
    width: u64,
    start_block_bytes: u64,
    max_direct_bytes: u64,
    /// `log2` of the width times the size of a block of the first row.
    first_row_bits: u32,
    /// The root block.
    root: Address,
    /// 0 where the root is a direct block.
    root_rows: u32,
}

impl DoublingTable {
    /// Size of the blocks of a row, as far as it fits 64 bits.
    fn block_bytes(&self, row: u32) -> Option<u64> {
        match row {
            0 => Some(self.start_block_bytes),
            _ => self
                .start_block_bytes
                .checked_mul(1u64.checked_shl(row - 1)?),
        }
    }

    /// How many rows of an indirect block are of direct blocks.
    fn direct_rows(&self) -> u32 {
        self.max_direct_bytes.ilog2() - self.start_block_bytes.ilog2() + 2
    }

    /// Row and column of the block that has byte `offset` of an indirect block's space, and where that block begins in it.
    fn locate(&self, offset: u64) -> Option<(u32, u64, u64)> {
        if offset < self.start_block_bytes << self.width.ilog2() {
            let column = offset / self.start_block_bytes;
            return Some((0, column, column * self.start_block_bytes));
        }
        let high = offset.ilog2();
        let row = high.checked_sub(self.first_row_bits)? + 1;
        let block_bytes = self.block_bytes(row)?;
        let column = (offset - (1 << high)) / block_bytes;
        Some((row, column, (1 << high) + column * block_bytes))
    }
}

impl<'r> FractalHeap<'r> {
    /// Reads the header at `address`.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where it is not sound; [`H5Error::Unsupported`] for a heap with filters.
    pub(crate) fn open(reader: &'r MetaReader, address: Address) -> Result<Self, H5Error> {
        let bytes = reader.read(address, HEADER_BYTES)?;
        let mut decoder = Decoder::new(&bytes, HEADER, address);
        decoder.signature(b"FRHP")?;
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        let id_len = usize::from(decoder.u16()?);
        if decoder.u16()? != 0 {
            return Err(decoder.unsupported("it has filters"));
        }
        checksum::verified(&bytes, HEADER, address)?;
        let flags = decoder.u8()?;
        let max_managed_bytes = decoder.u32()?;
        decoder.skip(8)?; // The next huge object's number.
        let huge_index = decoder.offset()?;
        decoder.skip(10 * 8)?; // Free space and statistics.

        let width = u64::from(decoder.u16()?);
        let start_block_bytes = decoder.length()?;
        let max_direct_bytes = decoder.length()?;
        let max_heap_bits = u32::from(decoder.u16()?);
        decoder.skip(2)?; // Rows that a root begins with.
        let root = decoder.offset()?;
        let root_rows = u32::from(decoder.u16()?);
        let sizes = [width, start_block_bytes, max_direct_bytes];
        if !sizes.iter().all(|size| size.is_power_of_two())
            || max_direct_bytes < start_block_bytes
            || max_direct_bytes > 1 << 31
        {
            return Err(decoder.damaged("its block sizes are impossible"));
        }
        let first_row_bits = start_block_bytes.ilog2() + width.ilog2();
        if max_heap_bits > 64
            || first_row_bits > max_heap_bits
            || root_rows > max_heap_bits - first_row_bits + 1
        {
            return Err(decoder.damaged("its address space is impossible"));
        }
        let max_direct_width = max_direct_bytes.ilog2().div_ceil(8) as usize;
        Ok(Self {
            reader,
            address,
            id_len,
            huge_index,
            checksums_in_direct_blocks: flags & 0x02 != 0,
            table: DoublingTable {
                width,
                start_block_bytes,
                max_direct_bytes,
                first_row_bits,
                root,
                root_rows,
            },
            offset_width: max_heap_bits.div_ceil(8) as usize,
            length_width: max_direct_width.min(width_for_limit(max_managed_bytes.into())),
            checked_blocks: HashSet::new(),
            blocks_budget: reader.budget(),
            objects_budget: reader.budget(),
        })
    }

    /// Reads the object with that id. All that one `FractalHeap` reads is bounded by the length of the file, so it is for one walk.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where the id, or a block on the way, is not sound.
    pub(crate) fn read(&mut self, id: &[u8]) -> Result<MetaBytes, H5Error> {
        if id.len() != self.id_len {
            return Err(self.damaged(HEAP_ID, "its length is not that of the heap's ids"));
        }
        let Some((&first, rest)) = id.split_first() else {
            return Err(self.damaged(HEAP_ID, "it has no bytes"));
        };
        if first & 0xc0 != 0 {
            return Err(H5Error::Unsupported {
                structure: HEAP_ID,
                address: self.address,
                what: "its version is not 0",
            });
        }
        let object = match first & 0x30 {
            0x00 => self.read_managed(rest)?,
            0x10 => self.read_huge(rest)?,
            0x20 => self.read_tiny(first, rest)?,
            _ => return Err(self.damaged(HEAP_ID, "its kind is unknown")),
        };
        self.objects_budget
            .spend(object.len() as u64, HEADER, self.address)?;
        Ok(object)
    }

    fn damaged(&self, structure: &'static str, what: &'static str) -> H5Error {
        H5Error::Damaged {
            structure,
            address: self.address,
            what,
        }
    }

    /// Specification III.G, "Fractal Heap ID for Tiny Objects": the length less one in 4 bits, or in 12 where the ids are long.
    fn read_tiny(&self, first: u8, rest: &[u8]) -> Result<MetaBytes, H5Error> {
        let high = usize::from(first & 0x0f);
        let found = if self.id_len <= 18 {
            rest.get(..=high)
        } else {
            rest.split_first()
                .and_then(|(&low, rest)| rest.get(..=(high << 8 | usize::from(low))))
        };
        found
            .map(|found| MetaBytes::from(found.to_vec()))
            .ok_or_else(|| self.damaged(HEAP_ID, "its object is longer than the id"))
    }

    /// The id has the object's place where it is wide enough, else its number in a B-tree.
    fn read_huge(&self, rest: &[u8]) -> Result<MetaBytes, H5Error> {
        let mut id = Decoder::new(rest, HEAP_ID, self.address);
        if rest.len() >= 16 {
            let address = id.offset()?;
            return self.reader.read(address, id.length()?);
        }
        let number = id.uint(rest.len().min(8))?;
        let index = BTree2::open(self.reader, self.huge_index, HUGE_INDEX_TYPE)?;
        if index.record_bytes() != 24 {
            return Err(self.damaged(HUGE, "its record is of an impossible length"));
        }
        let mut place = None;
        let decode = |record: &[u8]| -> Result<(Address, u64, u64), H5Error> {
            let mut record = Decoder::new(record, HUGE, self.huge_index);
            Ok((record.offset()?, record.length()?, record.u64()?))
        };
        index.search(
            self.reader,
            &mut |record| {
                decode(record).map_or(std::cmp::Ordering::Equal, |(_, _, found)| {
                    found.cmp(&number)
                })
            },
            &mut |record| {
                let (address, len_bytes, _) = decode(record)?;
                place = Some((address, len_bytes));
                Ok(())
            },
        )?;
        let (address, len_bytes) =
            place.ok_or_else(|| self.damaged(HUGE, "the index does not have it"))?;
        self.reader.read(address, len_bytes)
    }

    fn read_managed(&mut self, rest: &[u8]) -> Result<MetaBytes, H5Error> {
        let mut id = Decoder::new(rest, HEAP_ID, self.address);
        let offset = id.uint(self.offset_width)?;
        let len_bytes = id.uint(self.length_width)?;
        let (block, block_bytes, block_offset) = self.direct_block(offset)?;
        self.check_direct_block(block, block_bytes, block_offset)?;
        let within = offset - block_offset;
        let end = within.checked_add(len_bytes);
        if within < self.direct_overhead_bytes() || end.is_none_or(|end| end > block_bytes) {
            return Err(self.damaged(HEAP_ID, "its object does not lie within a block"));
        }
        self.reader.read(block.after(within, DIRECT)?, len_bytes)
    }

    /// Address and size of the direct block that has byte `offset` of the heap, and where in the heap it begins.
    fn direct_block(&mut self, offset: u64) -> Result<(Address, u64, u64), H5Error> {
        let table = self.table.clone();
        let outside = H5Error::Damaged {
            structure: HEAP_ID,
            address: self.address,
            what: "its object lies outside of the heap",
        };
        if table.root_rows == 0 {
            return if offset < table.start_block_bytes {
                Ok((table.root, table.start_block_bytes, 0))
            } else {
                Err(outside)
            };
        }
        let (mut block, mut rows, mut block_offset) = (table.root, table.root_rows, 0u64);
        let direct_rows = table.direct_rows();
        loop {
            self.check_indirect_block(block, rows, block_offset)?;
            let located = table.locate(offset - block_offset);
            let Some((row, column, within)) = located.filter(|&(row, _, _)| row < rows) else {
                return Err(outside);
            };
            // Rows are at most 64 and columns below 2^16.
            let entry = u64::from(row) * table.width + column;
            let entry_address =
                block.after(self.indirect_overhead_bytes() + 8 * entry, INDIRECT)?;
            let bytes = self.reader.read(entry_address, 8)?;
            let child = Decoder::new(&bytes, INDIRECT, block).offset()?;
            let child_bytes = table.block_bytes(row).ok_or_else(|| outside.clone())?;
            let child_offset = block_offset
                .checked_add(within)
                .ok_or_else(|| outside.clone())?;
            if row < direct_rows {
                return Ok((child, child_bytes, child_offset));
            }
            // That is `row - log2(width)`, so fewer rows from table to table, and this ends.
            let child_rows = child_bytes
                .ilog2()
                .checked_sub(table.first_row_bits)
                .ok_or_else(|| outside.clone())?
                + 1;
            (block, rows, block_offset) = (child, child_rows, child_offset);
        }
    }

    /// Signature, version, address of the heap, offset in the heap, checksum.
    fn direct_overhead_bytes(&self) -> u64 {
        let checksum = if self.checksums_in_direct_blocks {
            4
        } else {
            0
        };
        (4 + 1 + 8 + self.offset_width + checksum) as u64
    }

    /// Signature, version, address of the heap, offset in the heap.
    fn indirect_overhead_bytes(&self) -> u64 {
        (4 + 1 + 8 + self.offset_width) as u64
    }

    fn check_direct_block(
        &mut self,
        address: Address,
        block_bytes: u64,
        block_offset: u64,
    ) -> Result<(), H5Error> {
        if self.checked_blocks.contains(&address) {
            return Ok(());
        }
        self.blocks_budget.spend(block_bytes, DIRECT, address)?;
        let bytes = self.reader.read(address, block_bytes)?;
        let mut decoder = Decoder::new(&bytes, DIRECT, address);
        self.check_start(&mut decoder, b"FHDB", block_offset)?;
        if self.checksums_in_direct_blocks {
            // The checksum was computed with its own bytes as zeros.
            let at = decoder.position();
            let stored = decoder.u32()?;
            let mut bytes = bytes.to_vec();
            bytes[at..at + 4].fill(0);
            if !checksum::matches(&bytes, stored) {
                return Err(decoder.damaged("its checksum does not match"));
            }
        }
        self.checked_blocks.insert(address);
        Ok(())
    }

    fn check_indirect_block(
        &mut self,
        address: Address,
        rows: u32,
        block_offset: u64,
    ) -> Result<(), H5Error> {
        if self.checked_blocks.contains(&address) {
            return Ok(());
        }
        let len_bytes = self.indirect_overhead_bytes() + u64::from(rows) * self.table.width * 8 + 4;
        self.blocks_budget.spend(len_bytes, INDIRECT, address)?;
        let bytes = self.reader.read(address, len_bytes)?;
        checksum::verified(&bytes, INDIRECT, address)?;
        let mut decoder = Decoder::new(&bytes, INDIRECT, address);
        self.check_start(&mut decoder, b"FHIB", block_offset)?;
        self.checked_blocks.insert(address);
        Ok(())
    }

    fn check_start(
        &self,
        decoder: &mut Decoder<'_>,
        signature: &[u8],
        block_offset: u64,
    ) -> Result<(), H5Error> {
        decoder.signature(signature)?;
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        if decoder.offset()? != self.address {
            return Err(decoder.damaged("it belongs to another heap"));
        }
        if decoder.uint(self.offset_width)? != block_offset {
            return Err(decoder.damaged("it belongs to another place of the heap"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::object_header::{ObjectHeader, message_type};
    use crate::h5::testing::made_files;
    use crate::h5::{H5File, find_path};

    /// The heap of the group "deep" of the file made with `libver` v114, which has rows of indirect blocks.
    fn deep_heap() -> (H5File, Address) {
        let made = made_files().iter().find(|file| file.name == "v114");
        let file = made.unwrap().open();
        let reader = file.reader();
        let group = find_path(&reader, file.root(), file.root(), &[b"deep"]);
        let header = ObjectHeader::read(&reader, group.unwrap().unwrap()).unwrap();
        let message = header.find(message_type::LINK_INFO).unwrap();
        let mut heap = [0; 8];
        heap.copy_from_slice(&message.body[2..10]);
        (file, Address(u64::from_le_bytes(heap)))
    }

    #[test]
    fn tiny_objects_are_in_their_ids() {
        let (file, address) = deep_heap();
        let reader = file.reader();
        let mut heap = FractalHeap::open(&reader, address).unwrap();
        assert_eq!(&*heap.read(b"\x22abcdef").unwrap(), b"abc");
        assert_eq!(&*heap.read(b"\x25abcdef").unwrap(), b"abcdef");
        assert!(heap.read(b"\x26abcdef").is_err());
        heap.id_len = 20;
        assert_eq!(&*heap.read(b"\x20\x02abcdefghijklmnopqr").unwrap(), b"abc");
        assert!(heap.read(b"\x21\x02abcdefghijklmnopqr").is_err());
    }

    #[test]
    fn ids_that_lead_nowhere_are_damage() {
        let (file, address) = deep_heap();
        let reader = file.reader();
        let mut heap = FractalHeap::open(&reader, address).unwrap();
        assert!(heap.table.root_rows > heap.table.direct_rows());
        for id in [
            &b""[..],
            b"\x00\0\0\0\0\0",             // Too short.
            b"\x00\0\0\0\0\x01\0",         // The block's own head.
            b"\x00\xff\xff\xff\xff\x01\0", // Outside of the heap.
            b"\x00\x20\x00\0\0\xff\xff",   // Across the end of its block.
            b"\x40\x20\x00\0\0\x01\0",     // Another version.
            b"\x30\x20\x00\0\0\x01\0",     // Another kind.
            b"\x10\x01\x00\0\0\0\0",       // A huge object, of which there are none.
        ] {
            assert!(heap.read(id).is_err(), "{id:?}");
        }
        assert_eq!(heap.read(b"\x00\x20\x00\0\0\x05\0").unwrap().len(), 5);
    }
}
