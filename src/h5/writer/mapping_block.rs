//! Encoding the mappings of a virtual dataset: version 0 of the "Global Heap Block for Virtual Datasets", as the C library writes it for
//! files of the oldest format that can hold it. See [`mapping`](crate::h5::mapping) for the other direction.

use std::borrow::Cow;

use super::WriteError;
use super::spec::MappedShape;
use crate::h5::lookup3;
use crate::h5::mapping::escaped;

/// The source of every mapping is in the same file.
const THIS_FILE: &[u8] = b".\0";
/// Selection of type 2, a hyperslab.
const HYPERSLAB: u32 = 2;
/// Version 1 of a hyperslab, a list of blocks in 32-bit numbers; and its bytes before the numbers.
const BLOCK_LIST: u32 = 1;
/// Version 2 of a hyperslab, start, stride, count and block of each axis in 64-bit numbers.
const REGULAR: u32 = 2;
/// The most axes that a dataspace has.
const MAX_RANK: usize = 32;

/// A block that was encoded.
#[derive(Debug)]
pub(in crate::h5) struct Encoded {
    pub(in crate::h5) block: Vec<u8>,
    pub(super) checksum: u32,
    /// As for [`ChunkMap::entry_bytes`](crate::h5::mapping::ChunkMap::entry_bytes).
    pub(super) entry_bytes: Option<u64>,
}

/// The block with a mapping for each `(cell, chunk)`, which are in the order of cells; `None` where there is none.
pub(in crate::h5) fn encode(
    mapped: &MappedShape<'_>,
    chunks: impl IntoIterator<Item = (u64, u64)>,
) -> Result<Option<Encoded>, WriteError> {
    let mut encoder = Encoder::new(mapped)?;
    let mut block = vec![0; 1 + 8];
    let mut len = 0u64;
    let (mut shortest, mut longest) = (usize::MAX, 0);
    for (cell, chunk) in chunks {
        let before = block.len();
        encoder.entry(cell, chunk, &mut block)?;
        let entry_bytes = block.len() - before;
        (shortest, longest) = (shortest.min(entry_bytes), longest.max(entry_bytes));
        len += 1;
    }
    if len == 0 {
        return Ok(None);
    }
    block[1..9].copy_from_slice(&len.to_le_bytes());
    let checksum = lookup3(&block);
    block.extend(checksum.to_le_bytes());
    Ok(Some(Encoded {
        block,
        checksum,
        entry_bytes: (shortest == longest).then_some(longest as u64),
    }))
}

/// Encodes the entries of one dataset.
pub(super) struct Encoder<'a> {
    grid: Grid<'a>,
    source_dataset: Cow<'a, [u8]>,
    source: BoxOf,
    target: BoxOf,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(mapped: &'a MappedShape<'a>) -> Result<Self, WriteError> {
        Ok(Self {
            grid: Grid::new(mapped)?,
            source_dataset: escaped(mapped.source_dataset),
            source: BoxOf::default(),
            target: BoxOf::default(),
        })
    }

    /// How many cells there are.
    pub(super) fn len_cells(&self) -> u64 {
        self.grid.len_cells
    }

    /// Adds the entry of `cell`, which the stored `chunk` fills.
    pub(super) fn entry(
        &mut self,
        cell: u64,
        chunk: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        self.grid
            .place(cell, chunk, &mut self.source, &mut self.target)?;
        into.extend_from_slice(THIS_FILE);
        into.extend_from_slice(&self.source_dataset);
        into.push(0);
        encode_box(&self.source, into);
        encode_box(&self.target, into);
        Ok(())
    }
}

/// First element and length along each axis.
#[derive(Debug, Default)]
struct BoxOf {
    axes: Vec<(u64, u64)>,
}

struct Grid<'a> {
    mapped: &'a MappedShape<'a>,
    cells: Vec<u64>,
    len_cells: u64,
}

impl<'a> Grid<'a> {
    fn new(mapped: &'a MappedShape<'a>) -> Result<Self, WriteError> {
        let (shape, chunk_shape) = (mapped.shape, mapped.chunk_shape);
        let is_sound = !shape.is_empty()
            && shape.len() == chunk_shape.len()
            && shape.len() <= MAX_RANK
            && !chunk_shape.contains(&0);
        let cells: Vec<u64> = if is_sound {
            let axes = shape.iter().zip(chunk_shape);
            axes.map(|(&extent, &chunk)| extent.div_ceil(chunk))
                .collect()
        } else {
            Vec::new()
        };
        let len_cells = cells.iter().try_fold(1u64, |n, &axis| n.checked_mul(axis));
        match len_cells {
            Some(len_cells) if is_sound => Ok(Self {
                mapped,
                cells,
                len_cells,
            }),
            _ => Err(mismatch(mapped, "there is no grid of such chunks")),
        }
    }

    /// Where the elements of `cell` are, and where in the stored chunk they come from.
    fn place(
        &self,
        cell: u64,
        chunk: u64,
        source: &mut BoxOf,
        target: &mut BoxOf,
    ) -> Result<(), WriteError> {
        if cell >= self.len_cells {
            return Err(mismatch(self.mapped, "a mapped cell is outside the grid"));
        }
        let rank = self.cells.len();
        source.axes.resize(rank, (0, 0));
        target.axes.resize(rank, (0, 0));
        let mut rest = cell;
        for axis in (0..rank).rev() {
            let (extent, chunk_len) = (self.mapped.shape[axis], self.mapped.chunk_shape[axis]);
            // Inside the extent, since the cell is inside the grid.
            let start = rest % self.cells[axis] * chunk_len;
            rest /= self.cells[axis];
            let len = chunk_len.min(extent - start);
            target.axes[axis] = (start, len);
            source.axes[axis] = (0, len);
        }
        let first = chunk
            .checked_mul(self.mapped.chunk_shape[0])
            .filter(|first| first.checked_add(self.mapped.chunk_shape[0]).is_some());
        source.axes[0].0 = first.ok_or(WriteError::TooLarge {
            what: "the number of a stored chunk",
            size: chunk,
        })?;
        Ok(())
    }
}

fn mismatch(mapped: &MappedShape<'_>, what: &'static str) -> WriteError {
    WriteError::Mismatch {
        object: String::from_utf8_lossy(mapped.source_dataset).into_owned(),
        what,
    }
}

/// A box as the library stores a hyperslab of one block: with 32-bit numbers where they do, else with 64-bit ones.
fn encode_box(of: &BoxOf, into: &mut Vec<u8>) {
    let narrow = |number: u64| u32::try_from(number).ok();
    let is_narrow = of
        .axes
        .iter()
        .all(|&(start, len)| narrow(start + (len - 1)).is_some());
    // A rank is at most 32, so no length below is near the end of 32 bits.
    let rank = u32::try_from(of.axes.len()).unwrap_or(u32::MAX);
    into.extend(HYPERSLAB.to_le_bytes());
    if is_narrow {
        into.extend(BLOCK_LIST.to_le_bytes());
        into.extend([0; 4]);
        into.extend((8 + 8 * rank).to_le_bytes());
        into.extend(rank.to_le_bytes());
        into.extend(1u32.to_le_bytes());
        let first = of.axes.iter().map(|&(start, _)| start);
        let last = of.axes.iter().map(|&(start, len)| start + (len - 1));
        for number in first.chain(last) {
            into.extend(narrow(number).unwrap_or(u32::MAX).to_le_bytes());
        }
    } else {
        into.extend(REGULAR.to_le_bytes());
        into.push(1);
        into.extend((4 + 32 * rank).to_le_bytes());
        into.extend(rank.to_le_bytes());
        for &(start, len) in &of.axes {
            for number in [start, len, 1, len] {
                into.extend(number.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::Address;
    use crate::h5::mapping::{MappingForm, decode_chunk_map, decode_mappings};

    fn decoded(source: &[u8], shape: &[u64], chunk_shape: &[u64], chunks: &[(u64, u64)]) {
        let mapped = MappedShape {
            source_dataset: source,
            shape,
            chunk_shape,
        };
        let Encoded {
            block, entry_bytes, ..
        } = encode(&mapped, chunks.iter().copied()).unwrap().unwrap();
        let form = decode_chunk_map(&block, Address(0), shape, chunk_shape, source).unwrap();
        let MappingForm::Chunked(map) = form else {
            panic!("{form:?}");
        };
        assert_eq!(map.mapped().collect::<Vec<_>>(), chunks);
        assert_eq!(map.entry_bytes(), entry_bytes);
        assert_eq!(
            decode_mappings(&block, Address(0)).unwrap().len(),
            chunks.len()
        );
    }

    #[test]
    fn are_decoded_as_they_were() {
        let raw = b"/_version_data/x/raw_data";
        decoded(raw, &[10], &[4], &[(0, 5), (1, 0), (2, 7)]);
        decoded(raw, &[10], &[4], &[(2, 7)]);
        decoded(raw, &[5, 7], &[2, 3], &[(0, 0), (2, 9), (8, 1)]);
        decoded(raw, &[3, 4, 5], &[2, 2, 2], &[(0, 1), (11, 4)]);
        decoded(b"/_version_data/50% off/%b/raw_data", &[9], &[4], &[(1, 1)]);
        // Numbers of more than 32 bits on either side.
        decoded(raw, &[1 << 34], &[1 << 20], &[(0, 0), (16_383, 9)]);
        decoded(raw, &[100], &[1 << 20], &[(0, 1 << 20)]);
        decoded(raw, &[(1 << 33) + 1, 3], &[1 << 16, 2], &[(5, 1 << 18)]);
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let encode = |shape: &[u64], chunk_shape: &[u64], cell, chunk| {
            let mapped = MappedShape {
                source_dataset: b"/x",
                shape,
                chunk_shape,
            };
            super::encode(&mapped, [(cell, chunk)])
        };
        assert!(encode(&[10], &[4], 2, 0).is_ok());
        assert!(encode(&[10], &[4], 3, 0).is_err());
        assert!(encode(&[0], &[4], 0, 0).is_err());
        assert!(encode(&[10], &[0], 0, 0).is_err());
        assert!(encode(&[10], &[4, 4], 0, 0).is_err());
        assert!(encode(&[], &[], 0, 0).is_err());
        assert!(encode(&[10], &[4], 0, u64::MAX / 2).is_err());
        let none = MappedShape {
            source_dataset: b"/x",
            shape: &[0],
            chunk_shape: &[4],
        };
        assert!(super::encode(&none, []).unwrap().is_none());
    }
}
