//! Changing single fields of metadata that is in the file: the superblock's end, and the heap object of a virtual dataset.

use std::sync::Arc;

use super::WriteError;
use super::spec::HeapPlace;
use crate::h5::object_header::message_type;
use crate::h5::{Address, H5Error, H5File, MetaReader, ObjectHeader, lookup3};
use crate::source::{Source, Transaction};

/// What precedes the addresses in a superblock of version 2 or 3, and the whole of it with its checksum.
const SUPERBLOCK_2_BYTES: usize = 48;
/// From the base address to the end-of-file address, in every version: one more address is between them.
const BASE_BEFORE_END: usize = 2 * 8;
const CHECKSUM_BYTES: usize = 4;
/// Version, class, heap collection, heap index (Specification IV.A.2.i, version 4, class 3).
const LAYOUT_BYTES: usize = 1 + 1 + 8 + 4;
const VIRTUAL: u8 = 3;

/// Where in a superblock of that version the end-of-file address is (Specification II.A).
fn end_field(version: u8) -> usize {
    match version {
        0 => 40,
        1 => 44,
        _ => 28,
    }
}

/// Writes into the superblock that the file ends at byte `end`, counted from its very beginning.
pub(super) fn set_end_of_file(
    transaction: &Transaction,
    file: &H5File,
    end: u64,
) -> Result<(), WriteError> {
    let start = file.base_address();
    let field = end_field(file.superblock_version());
    // As it is now: the library corrects a base address that a user block has moved since.
    let mut stored_base = [0; 8];
    transaction
        .read_exact_at(&mut stored_base, start + (field - BASE_BEFORE_END) as u64)
        .map_err(H5Error::from)?;
    let stored = end
        .checked_sub(start)
        .and_then(|len| len.checked_add(u64::from_le_bytes(stored_base)))
        .ok_or(WriteError::TooLarge {
            what: "the file",
            size: end,
        })?;
    if file.superblock_version() < 2 {
        transaction.write_at(start + field as u64, &stored.to_le_bytes())?;
        return Ok(());
    }
    let mut superblock = [0; SUPERBLOCK_2_BYTES];
    transaction
        .read_exact_at(&mut superblock, start)
        .map_err(H5Error::from)?;
    superblock[field..field + 8].copy_from_slice(&stored.to_le_bytes());
    let (body, checksum) = superblock.split_at_mut(SUPERBLOCK_2_BYTES - CHECKSUM_BYTES);
    checksum.copy_from_slice(&lookup3(body).to_le_bytes());
    transaction.write_at(start, &superblock)?;
    Ok(())
}

/// Makes the heap object at `place` the mappings of the virtual dataset whose header is at `header`, and which has none yet.
pub(super) fn set_virtual_mapping(
    transaction: &Arc<Transaction>,
    base_address: u64,
    header: Address,
    place: HeapPlace,
) -> Result<(), WriteError> {
    let len_bytes = transaction.len_bytes().map_err(H5Error::from)?;
    let source: Arc<dyn Source> = Arc::clone(transaction) as _;
    let reader = MetaReader::new(source, base_address, len_bytes);
    let object = ObjectHeader::read(&reader, header)?;
    let not_virtual = WriteError::NotVirtual { address: header };
    let layout = object
        .find(message_type::LAYOUT)
        .filter(|layout| layout.flags & 0x02 == 0 && layout.body.len() >= LAYOUT_BYTES)
        .ok_or_else(|| not_virtual.clone())?;
    let is_empty = layout.body[2..10] == u64::MAX.to_le_bytes();
    if !(4..=5).contains(&layout.body[0]) || layout.body[1] != VIRTUAL || !is_empty {
        return Err(not_virtual);
    }
    let mut field = [0; 8 + 4];
    field[..8].copy_from_slice(&place.address.0.to_le_bytes());
    field[8..].copy_from_slice(&place.index.to_le_bytes());
    let field_address = layout.address.after(2, "data layout message")?;
    if object.version() == 1 {
        let offset = reader.file_offset(field_address, field.len() as u64)?;
        transaction.write_at(offset, &field)?;
        return Ok(());
    }
    // The block with the message ends with a checksum of the whole of it.
    let (start, block_bytes) = object
        .block_around(field_address)
        .ok_or(WriteError::NotVirtual { address: header })?;
    let mut block = reader.read(start, block_bytes)?.to_vec();
    let at = usize::try_from(field_address.0 - start.0).unwrap_or(usize::MAX);
    let body_len = block.len() - CHECKSUM_BYTES;
    let (body, checksum) = block.split_at_mut(body_len);
    body.get_mut(at..at.saturating_add(field.len()))
        .ok_or(WriteError::NotVirtual { address: header })?
        .copy_from_slice(&field);
    checksum.copy_from_slice(&lookup3(body).to_le_bytes());
    let offset = reader.file_offset(start, block_bytes)?;
    transaction.write_at(offset, &block)?;
    Ok(())
}
