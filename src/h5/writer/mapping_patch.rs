//! The mapping block of a dataset made from that of its base: what did not change is copied as it is, a buffer at a time, and costs neither
//! decoding nor encoding.
//!
//! This wants a base whose entries are alike but for their numbers and in the order of cells ([`ChunkMap::entry_bytes`](crate::h5::mapping::ChunkMap::entry_bytes)): then the entry
//! of a cell is where the number of mapped cells before it says. The base's own checksum is computed along with the new one, so that no
//! byte is carried on that is not what was once decoded.

use super::WriteError;
use super::mapping_block::Encoder;
use super::spec::{MappedShape, MappingBase};
use crate::h5::checksum::Lookup3;
use crate::h5::mapping::escaped;
use crate::h5::{Address, H5Error, MetaReader, heap};

/// Version and number of entries.
const HEADER_BYTES: u64 = 1 + 8;
const CHECKSUM_BYTES: u64 = 4;
/// How much is copied at a time: it stays in the processor's cache from the reading to the writing.
const BUFFER_BYTES: usize = 256 * 1024;

/// A block that is to be made of another one.
#[derive(Debug)]
pub(super) struct Patch {
    /// The base: first byte, and length.
    base: (Address, u64),
    /// The collection that the base lies in.
    collection: Address,
    /// What the new block is made of behind its header, in order.
    pieces: Vec<Piece>,
    len_entries: u64,
    /// Length of the new block.
    pub(super) len_bytes: u64,
    /// As for [`MappingBase::map`]'s `entry_bytes`.
    pub(super) entry_bytes: Option<u64>,
}

#[derive(Debug)]
enum Piece {
    /// So many bytes of the base.
    Kept(u64),
    /// So many bytes of the base are left out.
    LeftOut(u64),
    /// New entries.
    New(Vec<u8>),
}

/// What is made of the base with the `changed` cells, which are sorted. `None` where the base is not of a form that can be patched, or
/// nothing is mapped any more.
pub(super) fn plan(
    reader: &MetaReader,
    mapped: &MappedShape<'_>,
    base: &MappingBase<'_>,
    changed: &[(u64, Option<u64>)],
) -> Result<Option<Patch>, WriteError> {
    let Some(entry_bytes) = base
        .map
        .entry_bytes()
        .filter(|_| base.place.address.is_defined())
    else {
        return Ok(None);
    };
    let (start, len_bytes) = heap::find_object(reader, base.place.address, base.place.index)?;
    let len_entries = base.map.len_mapped();
    let is_even = entry_bytes
        .checked_mul(len_entries)
        .and_then(|bytes| bytes.checked_add(HEADER_BYTES + CHECKSUM_BYTES))
        == Some(len_bytes);
    if !is_even || !begins_as_written_here(reader, mapped, (start, len_bytes))? {
        return Ok(None);
    }
    let mut encoder = Encoder::new(mapped)?;
    let mut pieces = Pieces {
        entry_bytes,
        pieces: Vec::new(),
        len_entries: 0,
        len_bytes: HEADER_BYTES + CHECKSUM_BYTES,
    };
    let mut are_alike = true;
    // Cells of the base up to this one are dealt with.
    let mut passed = 0;
    for &(cell, chunk) in changed {
        pieces.keep(base.map.count_mapped(passed, cell));
        if base.map.get(cell).is_some() {
            pieces.leave_out(1);
        }
        if let Some(chunk) = chunk {
            let added = pieces.add(|into| encoder.entry(cell, chunk, into))?;
            are_alike &= added == entry_bytes;
        }
        passed = cell + 1;
    }
    let end = encoder.len_cells();
    pieces.keep(base.map.count_mapped(passed, end));
    pieces.leave_out(base.map.count_mapped(end.max(passed), u64::MAX));
    if pieces.len_entries == 0 {
        return Ok(None);
    }
    Ok(Some(Patch {
        base: (start, len_bytes),
        collection: base.place.address,
        pieces: pieces.pieces,
        len_entries: pieces.len_entries,
        len_bytes: pieces.len_bytes,
        entry_bytes: are_alike.then_some(entry_bytes),
    }))
}

/// Whether the block is of the version, and its entries have the names, that are written here: the earliest releases of the Python library
/// named the file itself, under which it is not found again when it was renamed.
fn begins_as_written_here(
    reader: &MetaReader,
    mapped: &MappedShape<'_>,
    (start, len_bytes): (Address, u64),
) -> Result<bool, WriteError> {
    let names = [b".\0", &*escaped(mapped.source_dataset), b"\0"].concat();
    let wanted = HEADER_BYTES + names.len() as u64;
    if len_bytes < wanted + CHECKSUM_BYTES {
        return Ok(false);
    }
    let head = reader.read(start, wanted)?;
    Ok(head[0] == 0 && head.ends_with(&names))
}

/// The pieces of a block, while they are found.
struct Pieces {
    entry_bytes: u64,
    pieces: Vec<Piece>,
    len_entries: u64,
    len_bytes: u64,
}

impl Pieces {
    fn keep(&mut self, entries: u64) {
        // As long as a part of the base.
        let bytes = entries * self.entry_bytes;
        self.len_entries += entries;
        self.len_bytes += bytes;
        match self.pieces.last_mut() {
            Some(Piece::Kept(kept)) => *kept += bytes,
            _ if bytes > 0 => self.pieces.push(Piece::Kept(bytes)),
            _ => {}
        }
    }

    fn leave_out(&mut self, entries: u64) {
        let bytes = entries * self.entry_bytes;
        match self.pieces.last_mut() {
            Some(Piece::LeftOut(left_out)) => *left_out += bytes,
            _ if bytes > 0 => self.pieces.push(Piece::LeftOut(bytes)),
            _ => {}
        }
    }

    /// Adds an entry, and says how long it is.
    fn add(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), WriteError>,
    ) -> Result<u64, WriteError> {
        if !matches!(self.pieces.last(), Some(Piece::New(_))) {
            self.pieces.push(Piece::New(Vec::new()));
        }
        let Some(Piece::New(bytes)) = self.pieces.last_mut() else {
            return Ok(0);
        };
        let before = bytes.len();
        encode(bytes)?;
        let added = (bytes.len() - before) as u64;
        self.len_entries += 1;
        self.len_bytes += added;
        Ok(added)
    }
}

impl Patch {
    /// Gives the new block to `sink`, piece by piece, and says what checksum it ends with.
    ///
    /// # Errors
    /// Those of `sink`; [`WriteError::H5`] where the base cannot be read, or is no longer what its checksum says.
    pub(super) fn write(
        &self,
        reader: &MetaReader,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), WriteError>,
    ) -> Result<u32, WriteError> {
        let (start, base_bytes) = self.base;
        let mut old = Lookup3::new(base_bytes - CHECKSUM_BYTES);
        let mut new = Lookup3::new(self.len_bytes - CHECKSUM_BYTES);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = start.0;
        let mut header = [0; 9];
        reader.read_into(Address(at), &mut header)?;
        at += HEADER_BYTES;
        old.update(&header);
        header[1..].copy_from_slice(&self.len_entries.to_le_bytes());
        new.update(&header);
        sink(&header)?;
        for piece in &self.pieces {
            match piece {
                Piece::Kept(len_bytes) => {
                    read_pieces(reader, &mut at, *len_bytes, &mut buffer, &mut |bytes| {
                        Lookup3::update_both(&mut old, bytes, &mut new, bytes);
                        sink(bytes)
                    })?;
                }
                Piece::LeftOut(len_bytes) => {
                    read_pieces(reader, &mut at, *len_bytes, &mut buffer, &mut |bytes| {
                        old.update(bytes);
                        Ok(())
                    })?;
                }
                Piece::New(bytes) => {
                    new.update(bytes);
                    sink(bytes)?;
                }
            }
        }
        let mut stored = [0; 4];
        reader.read_into(Address(at), &mut stored)?;
        if old.finish() != u32::from_le_bytes(stored) {
            return Err(H5Error::Damaged {
                structure: "global heap block for virtual datasets",
                address: self.collection,
                what: "its checksum does not match",
            }
            .into());
        }
        let checksum = new.finish();
        sink(&checksum.to_le_bytes())?;
        Ok(checksum)
    }
}

/// Gives `len_bytes` from `at` on to `take`, as much at a time as `buffer` holds, and moves `at` behind them.
fn read_pieces(
    reader: &MetaReader,
    at: &mut u64,
    len_bytes: u64,
    buffer: &mut [u8],
    take: &mut dyn FnMut(&[u8]) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut left = len_bytes;
    while left > 0 {
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let bytes = &mut buffer[..count];
        reader.read_into(Address(*at), bytes)?;
        take(bytes)?;
        *at += count as u64;
        left -= count as u64;
    }
    Ok(())
}
