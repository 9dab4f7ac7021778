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
        list: Vec::new(),
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
        pieces: pieces.list,
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
    list: Vec<Piece>,
    len_entries: u64,
    len_bytes: u64,
}

impl Pieces {
    fn keep(&mut self, entries: u64) {
        // As long as a part of the base.
        let bytes = entries * self.entry_bytes;
        self.len_entries += entries;
        self.len_bytes += bytes;
        match self.list.last_mut() {
            Some(Piece::Kept(kept)) => *kept += bytes,
            _ if bytes > 0 => self.list.push(Piece::Kept(bytes)),
            _ => {}
        }
    }

    fn leave_out(&mut self, entries: u64) {
        let bytes = entries * self.entry_bytes;
        match self.list.last_mut() {
            Some(Piece::LeftOut(left_out)) => *left_out += bytes,
            _ if bytes > 0 => self.list.push(Piece::LeftOut(bytes)),
            _ => {}
        }
    }

    /// Adds an entry, and says how long it is.
    fn add(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), WriteError>,
    ) -> Result<u64, WriteError> {
        if !matches!(self.list.last(), Some(Piece::New(_))) {
            self.list.push(Piece::New(Vec::new()));
        }
        let Some(Piece::New(bytes)) = self.list.last_mut() else {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::heap::CollectionBuilder;
    use super::super::mapping_block::{Encoded, encode};
    use super::super::spec::HeapPlace;
    use super::*;
    use crate::h5::mapping::{ChunkMap, MappingForm, decode_chunk_map};

    const SOURCE: &[u8] = b"/_version_data/50% off/raw_data";

    fn mapped<'m>(shape: &'m [u64], chunk_shape: &'m [u64]) -> MappedShape<'m> {
        MappedShape {
            source_dataset: SOURCE,
            shape,
            chunk_shape,
        }
    }

    /// A file with nothing but a block, and the block's map.
    fn file_of(
        block: &[u8],
        shape: &[u64],
        chunk_shape: &[u64],
    ) -> (MetaReader, HeapPlace, ChunkMap) {
        let mut heap = CollectionBuilder::new(Address(0));
        let place = heap.add(block).unwrap();
        let file = heap.finish();
        let len_bytes = file.len() as u64;
        let reader = MetaReader::new(Arc::new(file), 0, len_bytes);
        let form = decode_chunk_map(block, Address(0), shape, chunk_shape, SOURCE).unwrap();
        let MappingForm::Chunked(map) = form else {
            panic!("{form:?}");
        };
        (reader, place, map)
    }

    fn patched(
        reader: &MetaReader,
        mapped: &MappedShape<'_>,
        base: &MappingBase<'_>,
        changed: &[(u64, Option<u64>)],
    ) -> Result<Option<Encoded>, WriteError> {
        let Some(patch) = plan(reader, mapped, base, changed)? else {
            return Ok(None);
        };
        let mut block = Vec::new();
        let checksum = patch.write(reader, &mut |bytes| {
            block.extend_from_slice(bytes);
            Ok(())
        })?;
        assert_eq!(block.len() as u64, patch.len_bytes);
        Ok(Some(Encoded {
            block,
            checksum,
            entry_bytes: patch.entry_bytes,
        }))
    }

    proptest! {
        /// Whatever is changed, added, taken away, grown or cut: the block is the one that is encoded from the start.
        #[test]
        fn a_patched_block_is_the_encoded_one(
            axes in prop::collection::vec((1u64..30, 1u64..5), 1..4),
            rows in 0u64..40,
            base in prop::collection::vec(prop::option::weighted(0.8, 0u64..100), 200),
            edits in prop::collection::btree_map(0u64..200, prop::option::weighted(0.7, 0u64..100), 0..20),
            far in prop::option::weighted(0.2, (0u64..200, Just(1u64 << 33))),
        ) {
            let chunk_shape: Vec<u64> = axes.iter().map(|axis| axis.1).collect();
            let before: Vec<u64> = axes.iter().map(|axis| axis.0).collect();
            let now = [&[rows], &before[1..]].concat();
            let grid = |shape: &[u64]| -> Vec<u64> {
                shape.iter().zip(&chunk_shape).map(|(axis, chunk)| axis.div_ceil(*chunk)).collect()
            };
            let (cells_before, cells_now): (u64, u64) =
                (grid(&before).iter().product(), grid(&now).iter().product());
            let base: BTreeMap<u64, u64> = (0..cells_before)
                .zip(base)
                .filter_map(|(cell, chunk)| Some((cell, chunk?)))
                .collect();
            // A cell whose extent changed is one that was written.
            let per_band: u64 = grid(&before)[1..].iter().product();
            let edge = before[0].min(rows) / chunk_shape[0];
            let mut changed: BTreeMap<u64, Option<u64>> = base
                .iter()
                .filter(|(cell, _)| before[0] != rows && **cell / per_band == edge)
                .map(|(cell, chunk)| (*cell, Some(*chunk)))
                .collect();
            changed.extend(edits);
            changed.extend(far.map(|(cell, chunk)| (cell, Some(chunk))));
            let changed: Vec<_> = changed.into_iter().filter(|edit| edit.0 < cells_now).collect();
            let mut wanted: BTreeMap<u64, u64> = base.clone();
            wanted.retain(|cell, _| *cell < cells_now);
            for &(cell, chunk) in &changed {
                wanted.remove(&cell);
                wanted.extend(chunk.map(|chunk| (cell, chunk)));
            }

            let encoded = encode(&mapped(&before, &chunk_shape), base).unwrap();
            prop_assume!(encoded.is_some());
            let (reader, place, map) = file_of(&encoded.unwrap().block, &before, &chunk_shape);
            let now = mapped(&now, &chunk_shape);
            let found = patched(&reader, &now, &MappingBase { place, map: &map }, &changed).unwrap();
            if wanted.is_empty() {
                prop_assert!(found.is_none());
            } else {
                let (found, wanted) = (found.unwrap(), encode(&now, wanted).unwrap().unwrap());
                prop_assert_eq!(found.block, wanted.block);
                prop_assert_eq!(found.checksum, wanted.checksum);
                // Equal lengths may come of all entries being new.
                prop_assert!(found.entry_bytes.is_none() || found.entry_bytes == wanted.entry_bytes);
            }
        }
    }

    #[test]
    fn a_base_of_another_form_is_not_patched() {
        let (shape, chunk_shape) = ([100], [10]);
        let mapped = mapped(&shape, &chunk_shape);
        let is_patched = |block: &[u8]| {
            let (reader, place, map) = file_of(block, &shape, &chunk_shape);
            let base = MappingBase { place, map: &map };
            patched(&reader, &mapped, &base, &[(3, Some(4))])
                .unwrap()
                .is_some()
        };
        let sealed = |mut block: Vec<u8>| {
            let body = block.len() - 4;
            let checksum = crate::h5::lookup3(&block[..body]).to_le_bytes();
            block[body..].copy_from_slice(&checksum);
            block
        };
        let even = encode(&mapped, [(0, 1), (3, 2), (7, 3)])
            .unwrap()
            .unwrap()
            .block;
        assert!(is_patched(&even));
        // Numbers of another width.
        let uneven = encode(&mapped, [(0, 1), (3, 1 << 40)]).unwrap().unwrap();
        assert!(!is_patched(&uneven.block));
        // Another order of cells.
        let entry_bytes = (even.len() - 13) / 3;
        let mut shuffled = even.clone();
        shuffled[9..9 + 2 * entry_bytes].rotate_left(entry_bytes);
        assert!(!is_patched(&sealed(shuffled)));
        // The file's own name.
        let renamed: Vec<u8> = even[9..even.len() - 4]
            .chunks(entry_bytes)
            .flat_map(|entry| [b"a.h5", &entry[1..]].concat())
            .collect();
        assert!(!is_patched(&sealed(
            [&even[..9], &renamed, &[0; 4]].concat()
        )));
    }

    #[test]
    fn a_base_that_changed_since_it_was_decoded_is_refused() {
        let (shape, chunk_shape) = ([100], [10]);
        let mapped = mapped(&shape, &chunk_shape);
        let block = encode(&mapped, (0..10).map(|cell| (cell, cell)))
            .unwrap()
            .unwrap()
            .block;
        let (_, place, map) = file_of(&block, &shape, &chunk_shape);
        let mut heap = CollectionBuilder::new(Address(0));
        let mut block = block;
        let in_last_entry = block.len() - 10;
        block[in_last_entry] ^= 4;
        heap.add(&block).unwrap();
        let file = heap.finish();
        let reader = MetaReader::new(Arc::new(file.clone()), 0, file.len() as u64);
        let base = MappingBase { place, map: &map };
        let error = patched(&reader, &mapped, &base, &[(3, Some(4))]).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}
