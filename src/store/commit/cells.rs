//! The cells of a written array's chunk grid: which of them a commit has to look at, in what order, and their bytes.

use std::ops::Range;

use crate::h5::mapping::ChunkMap;
use crate::store::StagedBytes;
use crate::store::raw_data::extent_of;
use crate::store::region::ChunkGrid;

/// How much of the array is looked at together while the written cells are sought.
const SEEK_BYTES: u64 = 16 << 20;

/// Shorter rows are not read one by one where what lies between them is wanted too.
const SHORT_ROW_BYTES: u64 = 4096;

/// An array cut into chunks, and how to find the elements of one.
#[derive(Debug)]
pub(super) struct Cells {
    shape: Vec<u64>,
    chunk_shape: Vec<u64>,
    element_bytes: usize,
    grid: ChunkGrid,
    /// Cells along each axis.
    counts: Vec<u64>,
    /// Length of a chunk in bytes.
    pub(super) chunk_bytes: usize,
}

/// What of the base version still holds for an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct BaseCells<'b> {
    /// Its shape; all axes but the first are those of the new one.
    pub(super) shape: &'b [u64],
    /// Which stored chunk is in each of its cells.
    pub(super) map: &'b ChunkMap,
}

impl Cells {
    /// `None` where the numbers are not those of an array that can be stored.
    pub(super) fn new(shape: &[u64], chunk_shape: &[u64], element_bytes: usize) -> Option<Self> {
        let grid = ChunkGrid::new(shape, chunk_shape, element_bytes as u64)?;
        let chunk_bytes = usize::try_from(grid.chunk_bytes()).ok()?;
        let counts: Vec<u64> = shape
            .iter()
            .zip(chunk_shape)
            .map(|(&extent, &chunk)| extent.div_ceil(chunk))
            .collect();
        Some(Self {
            shape: shape.to_vec(),
            chunk_shape: chunk_shape.to_vec(),
            element_bytes,
            grid,
            counts,
            chunk_bytes,
        })
    }

    /// How many cells there are.
    pub(super) fn len(&self) -> u64 {
        self.grid.cell_count()
    }

    /// Cells in one row of chunks: those with one place along the first axis.
    pub(super) fn per_band(&self) -> u64 {
        self.counts[1..].iter().product()
    }

    /// The part of a cell's chunk that lies within the array, in elements.
    pub(super) fn extent(&self, cell: u64) -> Vec<u64> {
        extent_of(cell, &self.shape, &self.chunk_shape)
    }

    /// Whether a cell's chunk lies within the array as a whole.
    pub(super) fn is_whole(&self, cell: u64) -> bool {
        self.extent(cell) == self.chunk_shape
    }

    /// The number that a cell of an array with another extent along the first axis has here.
    ///
    /// Cells are numbered with the first axis slowest, so the number is the same.
    fn here(&self, cell: u64) -> Option<u64> {
        (cell < self.len()).then_some(cell)
    }

    /// The mapped cells of the base that are still there, in the order of cells.
    pub(super) fn kept<'b>(
        &'b self,
        base: Option<BaseCells<'b>>,
    ) -> impl Iterator<Item = (u64, u64)> + 'b {
        base.into_iter()
            .flat_map(|base| base.map.mapped())
            .map_while(|(cell, chunk)| Some((self.here(cell)?, chunk)))
    }

    /// The cells whose content may not be what the base has, sorted: those that were written; mapped ones whose extent changed; and
    /// where `zeros_are_data`, since unmapped cells would read as another value, all that were added or never written.
    pub(super) fn changed(
        &self,
        bytes: &dyn StagedBytes,
        base: Option<BaseCells<'_>>,
        zeros_are_data: bool,
    ) -> Vec<u64> {
        let Some(base) = base else {
            return if zeros_are_data {
                (0..self.len()).collect()
            } else {
                self.written(bytes)
            };
        };
        let mut cells = self.written(bytes);
        let (chunk_rows, per_band) = (self.chunk_shape[0], self.per_band());
        let (old, new) = (base.shape[0], self.shape[0]);
        let is_mapped = |cell: &u64| base.map.get(*cell).is_some();
        let band = |row: u64| {
            let first = row / chunk_rows * per_band;
            first..first + per_band
        };
        let edge = old.min(new);
        if old != new && !edge.is_multiple_of(chunk_rows) {
            // Unmapped ones are fill value all over, before and after, unless zeros that are not the fill value were added.
            let all = zeros_are_data && new > old;
            cells.extend(band(edge).filter(|cell| all || is_mapped(cell)));
        }
        if zeros_are_data && new > old {
            cells.extend(old.div_ceil(chunk_rows) * per_band..self.len());
        }
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    /// The cells that hold a byte of a written range, sorted.
    fn written(&self, bytes: &dyn StagedBytes) -> Vec<u64> {
        let len_bytes = self.grid.len_bytes();
        let band_bytes = self.grid.band_bytes().max(1);
        let mut cells = Vec::new();
        let mut at = 0;
        while at < len_bytes
            && let Some(Range { start, end }) = bytes.next_written(at)
        {
            let end = end.min(len_bytes);
            let mut start = start.max(at);
            while start < end {
                // Whole bands, so that a cell is met a few times at most.
                let bands = (SEEK_BYTES / band_bytes).max(1);
                let stop = (start / band_bytes)
                    .saturating_add(bands)
                    .saturating_mul(band_bytes)
                    .min(end);
                if self.grid.cells_per_band() == 1 {
                    // Many short ranges may lie in one cell.
                    let first = start / band_bytes;
                    let again = u64::from(cells.last() == Some(&first));
                    cells.extend(first + again..stop.div_ceil(band_bytes));
                } else {
                    let len = usize::try_from(stop - start).unwrap_or(usize::MAX);
                    let overlaps = self.grid.overlaps(start, len);
                    cells.extend(overlaps.iter().map(|overlap| overlap.cell));
                }
                start = stop;
            }
            // An empty range would be met again.
            at = end.max(at + 1);
        }
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    /// `cells`, which are sorted, in the order in which versioned-hdf5 stores what is new of them: chunks that lie behind each other along the
    /// first axis follow each other; of an edited array, chunks whose extent changed come before all others, axis by axis, as it loads
    /// them when it resizes.
    pub(super) fn storing_order(&self, cells: &[u64], base: Option<BaseCells<'_>>) -> Vec<u64> {
        let per_band = self.per_band();
        let is_resized = |cell: u64| {
            base.is_some_and(|base| {
                let (old, new) = (base.shape[0], self.shape[0]);
                old != new
                    && !old.min(new).is_multiple_of(self.chunk_shape[0])
                    && cell / per_band == old.min(new) / self.chunk_shape[0]
                    && base.map.get(cell).is_some()
            })
        };
        let mut order = cells.to_vec();
        order.sort_by_key(|&cell| (!is_resized(cell), cell % per_band, cell / per_band));
        order
    }

    /// How long the bytes of a cell are that lie side by side in the array, but for those of cells at its end; and the axis that they reach
    /// along: as far as both the array and the chunk go on without a gap.
    fn row(&self) -> (usize, u64) {
        let mut first = self.shape.len() - 1;
        while first > 0 && self.shape[first] == self.chunk_shape[first] {
            first -= 1;
        }
        let inner = self.shape[first + 1..].iter().product::<u64>() * self.element_bytes as u64;
        (first, inner)
    }

    /// Whether a cell's rows are so short that reading each for itself takes longer than reading all that lies between them.
    pub(super) fn has_short_rows(&self) -> bool {
        let (first, inner) = self.row();
        first > 0 && self.chunk_shape[first].saturating_mul(inner) < SHORT_ROW_BYTES
    }

    /// The part of the array, in bytes, that the rows of chunks of the cells `first..=last` take.
    pub(super) fn span(&self, first: u64, last: u64) -> Range<u64> {
        let per_band = self.per_band().max(1);
        let band_bytes = self.shape[1..].iter().product::<u64>()
            * self.element_bytes as u64
            * self.chunk_shape[0];
        let end = (last / per_band + 1).saturating_mul(band_bytes);
        first / per_band * band_bytes..end.min(self.grid.len_bytes())
    }

    /// Fills `chunk` with the elements of a cell, of which `read` gives the bytes from a place in the array on; what lies outside the array is
    /// `fill`.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn read<E>(
        &self,
        cell: u64,
        fill: &[u8],
        chunk: &mut [u8],
        read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let extent = self.extent(cell);
        if extent != self.chunk_shape {
            for element in chunk.chunks_exact_mut(fill.len()) {
                element.copy_from_slice(fill);
            }
        }
        let rank = extent.len();
        let (first, inner) = self.row();
        let row_bytes =
            usize::try_from(extent[first] * inner).expect("a part of a chunk in memory");
        let mut start = vec![0; rank];
        let mut rest = cell;
        for axis in (0..rank).rev() {
            start[axis] = rest % self.counts[axis] * self.chunk_shape[axis];
            rest /= self.counts[axis];
        }
        let mut at = vec![0; first];
        loop {
            let (mut in_array, mut in_chunk) = (0, 0);
            for axis in 0..first {
                in_array = in_array * self.shape[axis] + start[axis] + at[axis];
                in_chunk = in_chunk * self.chunk_shape[axis] + at[axis];
            }
            let in_array = (in_array * self.shape[first] + start[first]) * inner;
            let in_chunk = usize::try_from(in_chunk * self.chunk_shape[first] * inner)
                .expect("a part of a chunk in memory");
            read(in_array, &mut chunk[in_chunk..in_chunk + row_bytes])?;
            let Some(axis) = (0..first).rev().find(|&axis| at[axis] + 1 < extent[axis]) else {
                return Ok(());
            };
            at[axis] += 1;
            at[axis + 1..].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::StagedReadError;

    struct Written(u64, Vec<Range<u64>>);

    impl StagedBytes for Written {
        fn len_bytes(&self) -> u64 {
            self.0
        }

        fn read_exact_at(&self, _: u64, _: &mut [u8]) -> Result<(), StagedReadError> {
            Ok(())
        }

        fn next_written(&self, offset: u64) -> Option<Range<u64>> {
            self.1.iter().find(|range| range.end > offset).cloned()
        }
    }

    proptest! {
        /// The cells, put together again, are the array; and each byte of it makes its cell a written one.
        #[test]
        fn cells_hold_the_array(
            axes in prop::collection::vec((1u64..8, 1u64..6), 1..4),
            element_bytes in 1usize..4,
            place in 0.0f64..1.0,
        ) {
            let shape: Vec<u64> = axes.iter().map(|axis| axis.0).collect();
            let chunk_shape: Vec<u64> = axes.iter().map(|axis| axis.1).collect();
            let cells = Cells::new(&shape, &chunk_shape, element_bytes).unwrap();
            let len = shape.iter().product::<u64>() * element_bytes as u64;
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]
            let wanted = (place * len as f64) as u64;
            let written = cells.changed(&Written(len, std::iter::once(wanted..wanted + 1).collect()), None, false);
            prop_assert_eq!(written.len(), 1);
            let mut seen = vec![0; usize::try_from(len).unwrap()];
            for cell in 0..cells.len() {
                let mut chunk = vec![0; cells.chunk_bytes];
                let span = cells.span(cell, cell);
                let mut read = |offset: u64, buffer: &mut [u8]| {
                    assert!(span.start <= offset && offset + buffer.len() as u64 <= span.end);
                    for (at, byte) in (offset..).zip(buffer) {
                        seen[usize::try_from(at).unwrap()] += 1;
                        assert!(at != wanted || written == [cell]);
                        *byte = 1;
                    }
                    Ok::<(), ()>(())
                };
                cells.read(cell, &vec![0; element_bytes], &mut chunk, &mut read).unwrap();
                let inside = cells.extent(cell).iter().product::<u64>() * element_bytes as u64;
                prop_assert_eq!(chunk.iter().map(|byte| u64::from(*byte)).sum::<u64>(), inside);
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn what_grows_or_shrinks_changes_the_edge() {
        let unmapped = ChunkMap::empty(&[12], &[4]).unwrap();
        let base = |shape: &'static [u64]| {
            Some(BaseCells {
                shape,
                map: &unmapped,
            })
        };
        let none = |len| Written(len, Vec::new());
        let cells = |rows: u64| Cells::new(&[rows], &[4], 1).unwrap();
        // Nothing of a sparse dataset is mapped, and stays so.
        assert_eq!(cells(15).changed(&none(15), base(&[10]), false), [0u64; 0]);
        assert_eq!(cells(9).changed(&none(9), base(&[10]), false), [0u64; 0]);
        // Zeros that are not the fill value are data where the array grows.
        assert_eq!(cells(15).changed(&none(15), base(&[10]), true), [2, 3]);
        assert_eq!(cells(15).changed(&none(15), base(&[12]), true), [3]);
        assert_eq!(cells(9).changed(&none(9), base(&[10]), true), [0u64; 0]);
        assert_eq!(cells(9).changed(&none(9), None, true), [0, 1, 2]);
    }
}
