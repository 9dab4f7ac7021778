//! Fixed arrays (Specification VII.C, "The Fixed Array Index"; `H5FAcache.c`): the index of a dataset whose axes are all limited.

use super::Extent;
use super::elements::{ArrayOrder, Elements, is_page_written};
use super::table::Collector;
use crate::h5::decoder::Decoder;
use crate::h5::{Address, H5Error, MetaReader, checksum};

const HEADER: &str = "fixed array header";
const DATA_BLOCK: &str = "fixed array data block";
const PAGE: &str = "fixed array data block page";
/// Signature, version, client, element size, page bits, number of elements, data block, checksum.
const HEADER_BYTES: u64 = 4 + 1 + 1 + 1 + 1 + 8 + 8 + 4;
/// Signature, version, client, header.
const PREFIX_BYTES: u64 = 4 + 1 + 1 + 8;
const CHECKSUM_BYTES: u64 = 4;

/// Adds every chunk of the array whose header lies at `address`.
pub(super) fn read(
    reader: &MetaReader,
    address: Address,
    extent: &Extent<'_>,
    found: &mut Collector<'_>,
) -> Result<(), H5Error> {
    let header = reader.read(address, HEADER_BYTES)?;
    let mut decoder = Decoder::new(&header, HEADER, address);
    decoder.signature(b"FAHD")?;
    if decoder.u8()? != 0 {
        return Err(decoder.unsupported("its version is not 0"));
    }
    checksum::verified(&header, HEADER, address)?;
    let client = decoder.u8()?;
    if client != u8::from(extent.filtered) {
        return Err(decoder.damaged("it is for chunks with other filters"));
    }
    let element_bytes = decoder.u8()?;
    let page_bits = decoder.u8()?;
    let len = decoder.length()?;
    let block = decoder.offset()?;

    let order = ArrayOrder::new(extent, None);
    let order = order.ok_or_else(|| decoder.damaged("it indexes a dataset without limit"))?;
    if order.len() != Some(len) {
        return Err(decoder.damaged("it has another number of elements than the dataset"));
    }
    let elements = Elements::new(usize::from(element_bytes), extent.filtered, order)
        .ok_or_else(|| decoder.damaged("its elements are of an impossible length"))?;
    let page_len = 1u64
        .checked_shl(u32::from(page_bits))
        .ok_or_else(|| decoder.damaged("its pages are of an impossible length"))?;
    if !block.is_defined() || len == 0 {
        return Ok(());
    }
    let all_bytes = len
        .checked_mul(u64::from(element_bytes))
        .filter(|&bytes| bytes <= reader.len_bytes())
        .ok_or_else(|| decoder.damaged("it has more elements than the file has room for"))?;

    let pages = if len > page_len {
        len.div_ceil(page_len)
    } else {
        0
    };
    // Pages have a bitmap, and their elements lie behind the block's own checksum.
    let body_bytes = if pages > 0 {
        pages.div_ceil(8)
    } else {
        all_bytes
    };
    let block_bytes = PREFIX_BYTES + body_bytes + CHECKSUM_BYTES;
    let bytes = reader.read(block, block_bytes)?;
    let mut decoder = Decoder::new(
        checksum::verified(&bytes, DATA_BLOCK, block)?,
        DATA_BLOCK,
        block,
    );
    decoder.signature(b"FADB")?;
    if decoder.u8()? != 0 {
        return Err(decoder.unsupported("its version is not 0"));
    }
    if decoder.u8()? != client || decoder.offset()? != address {
        return Err(decoder.damaged("it belongs to another array"));
    }
    if pages == 0 {
        return elements.decode(&mut decoder, block, 0, len, found);
    }
    let bitmap = decoder.rest();
    // Neither overflows: all elements, and so all pages but for their checksums, are no longer than the file.
    let page_bytes = page_len * u64::from(element_bytes) + CHECKSUM_BYTES;
    for page in (0..pages).filter(|&page| is_page_written(bitmap, page)) {
        let first = page * page_len;
        let page_len = page_len.min(len - first);
        let place = block.0.checked_add(block_bytes + page * page_bytes);
        let place = Address(place.unwrap_or(u64::MAX));
        let bytes = reader.read(place, page_len * u64::from(element_bytes) + CHECKSUM_BYTES)?;
        let body = checksum::verified(&bytes, PAGE, place)?;
        let mut decoder = Decoder::new(body, PAGE, place);
        elements.decode(&mut decoder, place, first, page_len, found)?;
    }
    Ok(())
}
