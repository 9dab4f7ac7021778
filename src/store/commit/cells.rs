//! The cells of a written array's chunk grid: which of them a commit has to look at, in what order, and their bytes.

use std::ops::Range;

use crate::h5::mapping::ChunkMap;
use crate::store::raw_data::extent_of;
use crate::store::region::ChunkGrid;
use crate::store::{StagedBytes, StagedReadError};

/// How much of the array is looked at together while the written cells are sought.
const SEEK_BYTES: u64 = 16 << 20;

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
                    cells.extend(start / band_bytes..stop.div_ceil(band_bytes));
                } else {
                    let len = usize::try_from(stop - start).unwrap_or(usize::MAX);
                    let overlaps = self.grid.overlaps(start, len);
                    cells.extend(overlaps.iter().map(|overlap| overlap.cell));
                }
                start = stop;
            }
            // An empty range would be met again.
            at = end.max(at + 1);
            cells.sort_unstable();
            cells.dedup();
        }
        cells
    }

    /// `cells`, which are sorted, in the order in which versioned-hdf5 stores what is new of them: of a new array, the chunks that lie behind
    /// each other along the first axis follow each other; of an edited one, chunks whose extent changed come first, axis by
    /// axis, as it loads them when it resizes.
    pub(super) fn storing_order(&self, cells: &[u64], base: Option<BaseCells<'_>>) -> Vec<u64> {
        let per_band = self.per_band();
        let mut order = cells.to_vec();
        match base {
            None => order.sort_by_key(|cell| (cell % per_band, cell / per_band)),
            Some(base) => {
                let (old, new) = (base.shape[0], self.shape[0]);
                let edge = old.min(new) / self.chunk_shape[0];
                let is_resized = |cell: u64| {
                    old != new
                        && !old.min(new).is_multiple_of(self.chunk_shape[0])
                        && cell / per_band == edge
                        && base.map.get(cell).is_some()
                };
                order.sort_by_key(|&cell| !is_resized(cell));
            }
        }
        order
    }

    /// Fills `chunk` with the elements of a cell; what lies outside the array is `fill`.
    ///
    /// # Errors
    /// [`StagedReadError`].
    pub(super) fn read(
        &self,
        bytes: &dyn StagedBytes,
        cell: u64,
        fill: &[u8],
        chunk: &mut [u8],
    ) -> Result<(), StagedReadError> {
        let extent = self.extent(cell);
        if extent != self.chunk_shape {
            for element in chunk.chunks_exact_mut(fill.len()) {
                element.copy_from_slice(fill);
            }
        }
        // Rows reach as far as both the array and the chunk go on without a gap.
        let rank = extent.len();
        let mut first = rank - 1;
        while first > 0 && self.shape[first] == self.chunk_shape[first] {
            first -= 1;
        }
        let inner: u64 =
            self.shape[first + 1..].iter().product::<u64>() * self.element_bytes as u64;
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
            bytes.read_exact_at(in_array, &mut chunk[in_chunk..in_chunk + row_bytes])?;
            let Some(axis) = (0..first).rev().find(|&axis| at[axis] + 1 < extent[axis]) else {
                return Ok(());
            };
            at[axis] += 1;
            at[axis + 1..].fill(0);
        }
    }
}
