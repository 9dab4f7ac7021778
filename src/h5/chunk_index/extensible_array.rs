//! Extensible arrays (Specification VII.D, "The Extensible Array Index"; `H5EAcache.c`, `H5EAhdr.c`): the index of a dataset with one
//! unlimited axis, which raw data is.
//!
//! The first elements are in the index block itself, the next in data blocks that it points to, the rest in data blocks that super
//! blocks point to. Blocks grow with their super block's number; large ones are in pages, each with its checksum.

use super::Extent;
use super::elements::{ArrayOrder, Elements, is_page_written};
use super::table::Collector;
use crate::h5::decoder::Decoder;
use crate::h5::{Address, H5Error, MetaReader, checksum};

const HEADER: &str = "extensible array header";
const INDEX_BLOCK: &str = "extensible array index block";
const SUPER_BLOCK: &str = "extensible array super block";
const DATA_BLOCK: &str = "extensible array data block";
const PAGE: &str = "extensible array data block page";
/// Signature, version, client, six parameters, six statistics, index block, checksum.
const HEADER_BYTES: u64 = 4 + 1 + 1 + 6 + 6 * 8 + 8 + 4;
/// Signature, version, client, header: what every block begins with.
const PREFIX_BYTES: u64 = 4 + 1 + 1 + 8;
const CHECKSUM_BYTES: u64 = 4;
const ADDRESS_BYTES: u64 = 8;

/// Adds every chunk of the array whose header lies at `address`.
pub(super) fn read(
    reader: &MetaReader,
    address: Address,
    extent: &Extent<'_>,
    found: &mut Collector<'_>,
) -> Result<(), H5Error> {
    let array = Array::open(reader, address, extent)?;
    if !array.index_block.is_defined() {
        return Ok(());
    }
    array.read_index_block(reader, found)
}

/// The header, and what follows from it.
struct Array {
    address: Address,
    client: u8,
    elements: Elements,
    /// Elements in the index block.
    len_in_index: u8,
    /// Elements of the smallest data block.
    min_block_len: u64,
    /// Elements of a page.
    page_len: u64,
    /// Width of an element's number in a block.
    number_bytes: u8,
    /// How many super blocks there can be, and how many of them have no block of their own.
    super_blocks: u32,
    super_blocks_in_index: u32,
    /// One more than the highest element ever set.
    len: u64,
    index_block: Address,
}

/// The data blocks of one super block (table in `H5EA__hdr_init`).
#[derive(Clone, Copy)]
struct SuperBlock {
    /// Number of data blocks.
    blocks: u64,
    /// Elements of each.
    block_len: u64,
    /// Pages of each; 0 where it is not in pages.
    pages: u64,
    /// Number of its first element.
    first: u64,
}

impl Array {
    fn open(reader: &MetaReader, address: Address, extent: &Extent<'_>) -> Result<Self, H5Error> {
        let header = reader.read(address, HEADER_BYTES)?;
        let mut decoder = Decoder::new(&header, HEADER, address);
        decoder.signature(b"EAHD")?;
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        checksum::verified(&header, HEADER, address)?;
        let client = decoder.u8()?;
        if client != u8::from(extent.filtered) {
            return Err(decoder.damaged("it is for chunks with other filters"));
        }
        let element_bytes = usize::from(decoder.u8()?);
        let number_bits = decoder.u8()?;
        let len_in_index = decoder.u8()?;
        let min_block_len = u64::from(decoder.u8()?);
        let min_pointers = u64::from(decoder.u8()?);
        let page_bits = u32::from(decoder.u8()?);
        decoder.skip(4 * 8)?;
        let len = decoder.length()?;
        decoder.skip(8)?;
        let index_block = decoder.offset()?;

        let impossible = || decoder.damaged("its parameters are impossible");
        if !min_block_len.is_power_of_two() || !min_pointers.is_power_of_two() {
            return Err(impossible());
        }
        let super_blocks = u32::from(number_bits)
            .checked_sub(min_block_len.ilog2())
            .filter(|_| number_bits <= 64)
            .ok_or_else(impossible)?
            + 1;
        let super_blocks_in_index = 2 * min_pointers.ilog2();
        let page_len = 1u64.checked_shl(page_bits).ok_or_else(impossible)?;
        let unlimited = extent.max_grid.iter().position(Option::is_none);
        let order = ArrayOrder::new(extent, Some(unlimited.unwrap_or(0)));
        let order =
            order.ok_or_else(|| decoder.damaged("its dataset has two axes without limit"))?;
        let array = Self {
            address,
            client,
            elements: Elements::new(element_bytes, extent.filtered, order)
                .ok_or_else(|| decoder.damaged("its elements are of an impossible length"))?,
            len_in_index,
            min_block_len,
            page_len,
            number_bytes: number_bits.div_ceil(8),
            super_blocks,
            super_blocks_in_index,
            len,
            index_block,
        };
        // Only data blocks that have a super block of their own have a place for their pages' bitmap.
        let largest_in_index = 1u64 << (super_blocks_in_index / 2);
        if super_blocks < super_blocks_in_index || largest_in_index * min_block_len > page_len {
            return Err(impossible());
        }
        Ok(array)
    }

    fn super_block(&self, number: u32) -> Option<SuperBlock> {
        let blocks = 1u64.checked_shl(number / 2)?;
        let block_len = self
            .min_block_len
            .checked_mul(1u64.checked_shl(number.div_ceil(2))?)?;
        // Super block n begins at (2^n - 1) times the smallest data block.
        let before = 1u64.checked_shl(number)?.checked_sub(1)?;
        let first = before.checked_mul(self.min_block_len)?;
        Some(SuperBlock {
            blocks,
            block_len,
            pages: if block_len > self.page_len {
                block_len / self.page_len
            } else {
                0
            },
            first: first.checked_add(u64::from(self.len_in_index))?,
        })
    }

    /// Passes over what every block begins with.
    fn decode_prefix(&self, decoder: &mut Decoder<'_>, signature: &[u8]) -> Result<(), H5Error> {
        decoder.signature(signature)?;
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        if decoder.u8()? != self.client || decoder.offset()? != self.address {
            return Err(decoder.damaged("it belongs to another array"));
        }
        Ok(())
    }

    fn read_index_block(
        &self,
        reader: &MetaReader,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        let element_bytes = self.elements.element_bytes as u64;
        let block_pointers = 2 * ((1u64 << (self.super_blocks_in_index / 2)) - 1);
        let super_pointers = u64::from(self.super_blocks - self.super_blocks_in_index);
        let block_bytes = PREFIX_BYTES
            + u64::from(self.len_in_index) * element_bytes
            + (block_pointers + super_pointers) * ADDRESS_BYTES
            + CHECKSUM_BYTES;
        let bytes = reader.read(self.index_block, block_bytes)?;
        let body = checksum::verified(&bytes, INDEX_BLOCK, self.index_block)?;
        let mut decoder = Decoder::new(body, INDEX_BLOCK, self.index_block);
        self.decode_prefix(&mut decoder, b"EAIB")?;

        let mut own = decoder.clone();
        let len = self.len.min(u64::from(self.len_in_index));
        self.elements
            .decode(&mut own, self.index_block, 0, len, found)?;
        decoder.skip(usize::from(self.len_in_index) * self.elements.element_bytes)?;

        let mut room = Room(reader.len_bytes() / element_bytes);
        for number in 0..self.super_blocks {
            let place = self.super_block(number);
            let Some(place) = place.filter(|place| place.first < self.len) else {
                return Ok(());
            };
            if number < self.super_blocks_in_index {
                self.read_blocks(reader, &mut decoder, place, &[], &mut room, found)?;
            } else {
                let address = decoder.offset()?;
                if address.is_defined() {
                    self.read_super_block(reader, address, place, &mut room, found)?;
                }
            }
        }
        Ok(())
    }

    fn read_super_block(
        &self,
        reader: &MetaReader,
        address: Address,
        place: SuperBlock,
        room: &mut Room,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        let damaged = |what| H5Error::Damaged {
            structure: SUPER_BLOCK,
            address,
            what,
        };
        let bitmap_bytes = place.pages.div_ceil(8).checked_mul(place.blocks);
        let pointers_bytes = place.blocks.checked_mul(ADDRESS_BYTES);
        let (Some(bitmap_bytes), Some(pointers_bytes)) = (bitmap_bytes, pointers_bytes) else {
            return Err(damaged("it is longer than 64 bits count"));
        };
        let block_bytes = (PREFIX_BYTES + u64::from(self.number_bytes) + CHECKSUM_BYTES)
            .checked_add(bitmap_bytes)
            .and_then(|n| n.checked_add(pointers_bytes))
            .ok_or_else(|| damaged("it is longer than 64 bits count"))?;
        let bytes = reader.read(address, block_bytes)?;
        let body = checksum::verified(&bytes, SUPER_BLOCK, address)?;
        let mut decoder = Decoder::new(body, SUPER_BLOCK, address);
        self.decode_prefix(&mut decoder, b"EASB")?;
        if decoder.uint(usize::from(self.number_bytes))?
            != place.first - u64::from(self.len_in_index)
        {
            return Err(decoder.damaged("it is for other elements"));
        }
        let bitmap_len = usize::try_from(bitmap_bytes).map_err(|_| damaged("it is too long"))?;
        let bitmap = decoder.take(bitmap_len)?;
        self.read_blocks(reader, &mut decoder, place, bitmap, room, found)
    }

    /// Takes the addresses of a super block's data blocks and reads those.
    fn read_blocks(
        &self,
        reader: &MetaReader,
        addresses: &mut Decoder<'_>,
        place: SuperBlock,
        bitmap: &[u8],
        room: &mut Room,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        for block in 0..place.blocks {
            let address = addresses.offset()?;
            let before = block.saturating_mul(place.block_len);
            let first = place.first.saturating_add(before);
            if !address.is_defined() || first >= self.len {
                continue;
            }
            room.take(place.block_len).ok_or_else(|| {
                addresses.damaged("it has more elements than the file has room for")
            })?;
            if place.pages == 0 {
                self.read_block(reader, address, first, place.block_len, found)?;
            } else {
                let pages = (0..place.pages)
                    .filter(|page| is_page_written(bitmap, block * place.pages + page));
                for page in pages {
                    self.read_page(reader, address, first, page, found)?;
                }
            }
        }
        Ok(())
    }

    fn read_block(
        &self,
        reader: &MetaReader,
        address: Address,
        first: u64,
        len: u64,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        // The elements were found to have room in the file.
        let elements_bytes = len * self.elements.element_bytes as u64;
        let block_bytes =
            PREFIX_BYTES + u64::from(self.number_bytes) + elements_bytes + CHECKSUM_BYTES;
        let bytes = reader.read(address, block_bytes)?;
        let body = checksum::verified(&bytes, DATA_BLOCK, address)?;
        let mut decoder = Decoder::new(body, DATA_BLOCK, address);
        self.decode_prefix(&mut decoder, b"EADB")?;
        decoder.skip(usize::from(self.number_bytes))?;
        let len = len.min(self.len - first);
        self.elements
            .decode(&mut decoder, address, first, len, found)
    }

    /// Page `page` of the data block at `block`, whose first element has the number `first`.
    fn read_page(
        &self,
        reader: &MetaReader,
        block: Address,
        first: u64,
        page: u64,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        let first = first + page * self.page_len;
        if first >= self.len {
            return Ok(());
        }
        // All pages together, but for their checksums, have room in the file.
        let page_bytes = self.page_len * self.elements.element_bytes as u64 + CHECKSUM_BYTES;
        let prefix_bytes = PREFIX_BYTES + u64::from(self.number_bytes) + CHECKSUM_BYTES;
        let address = block.0.checked_add(prefix_bytes + page * page_bytes);
        let address = Address(address.unwrap_or(u64::MAX));
        let bytes = reader.read(address, page_bytes)?;
        let body = checksum::verified(&bytes, PAGE, address)?;
        let mut decoder = Decoder::new(body, PAGE, address);
        let len = self.page_len.min(self.len - first);
        self.elements
            .decode(&mut decoder, address, first, len, found)
    }
}

/// How many more elements the file has room for, so that no block is counted in many places.
struct Room(u64);

impl Room {
    fn take(&mut self, len: u64) -> Option<()> {
        self.0 = self.0.checked_sub(len)?;
        Some(())
    }
}
