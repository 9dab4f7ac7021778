//! Which chunks a range of a dataset's bytes touches, and which bytes of each.
//!
//! A dataset's file is its elements in C order. A range of that file is, in several dimensions, a handful of boxes; each box
//! cuts each chunk that it meets in a box again, which is rows of bytes at regular distances in the chunk and in the
//! range. Elements do not matter here: the fastest axis is counted in bytes.

/// How an array is cut into chunks. Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkGrid {
    /// Extent along each axis, slowest first; the last one in bytes. Axes that no chunk boundary crosses are merged.
    shape: Vec<u64>,
    /// The same for one chunk, as it is stored: an edge chunk too has the full extent.
    chunk: Vec<u64>,
    /// Chunks along each axis.
    cells: Vec<u64>,
}

/// The bytes that one chunk and one range have in common: rows of `row_bytes`, repeated as `loops` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkOverlap {
    /// Number of the chunk in C order of the grid.
    pub(crate) cell: u64,
    /// First byte within the stored chunk.
    pub(crate) chunk_offset: u64,
    /// First byte within the range.
    pub(crate) range_offset: usize,
    /// Bytes that lie side by side in both.
    pub(crate) row_bytes: usize,
    /// Slowest first: how often, and how far apart in the chunk and in the range.
    pub(crate) loops: Vec<Stride>,
}

/// One level of repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stride {
    /// How often; at least 2.
    pub(crate) count: u64,
    /// Distance in the chunk, in bytes.
    pub(crate) in_chunk: u64,
    /// Distance in the range, in bytes.
    pub(crate) in_range: usize,
}

impl ChunkGrid {
    /// The grid of an array of `shape` elements of `element_bytes` each in chunks of `chunk_shape` elements. `None` where the
    /// array's or a chunk's length does not fit 63 bits, a chunk is empty, or the numbers of axes differ or are 0.
    pub(crate) fn new(shape: &[u64], chunk_shape: &[u64], element_bytes: u64) -> Option<Self> {
        if shape.is_empty()
            || shape.len() != chunk_shape.len()
            || element_bytes == 0
            || chunk_shape.contains(&0)
        {
            return None;
        }
        let bytes = |extents: &[u64]| {
            extents
                .iter()
                .try_fold(element_bytes, |n, &extent| n.checked_mul(extent))
                .filter(|&n| i64::try_from(n).is_ok())
        };
        bytes(chunk_shape)?;
        bytes(shape)?;
        let mut merged = Self {
            shape: vec![element_bytes],
            chunk: vec![element_bytes],
            cells: Vec::new(),
        };
        // From the fastest axis on: where the chunk spans all that lies behind, the next axis only continues it.
        for (&extent, &chunk_extent) in shape.iter().zip(chunk_shape).rev() {
            if merged.shape[0] == merged.chunk[0] {
                merged.shape[0] = merged.shape[0].checked_mul(extent)?;
                merged.chunk[0] = merged.chunk[0].checked_mul(chunk_extent)?;
            } else {
                merged.shape.insert(0, extent);
                merged.chunk.insert(0, chunk_extent);
            }
        }
        merged.cells = merged
            .shape
            .iter()
            .zip(&merged.chunk)
            .map(|(&extent, &chunk_extent)| extent.div_ceil(chunk_extent))
            .collect();
        merged
            .cells
            .iter()
            .try_fold(1u64, |n, &cells| n.checked_mul(cells))?;
        Some(merged)
    }

    /// Length of the whole array in bytes.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Length of one stored chunk in bytes.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunk.iter().product()
    }

    /// Number of chunks.
    pub(crate) fn cell_count(&self) -> u64 {
        self.cells.iter().product()
    }

    /// Chunks in one band: those that share the place along the slowest axis. They are consecutive, and together hold a
    /// contiguous part of the array.
    pub(crate) fn cells_per_band(&self) -> u64 {
        self.cells[1..].iter().product()
    }

    /// Bytes of the array in one band, but for the last band, which may be shorter.
    pub(crate) fn band_bytes(&self) -> u64 {
        self.chunk[0].saturating_mul(self.shape[1..].iter().product())
    }

    /// What each chunk contributes to the bytes `offset..offset + len_bytes` of the array, which must lie within it. A chunk that
    /// meets several boxes of the range comes several times. The overlaps are disjoint and together cover the range.
    pub(crate) fn overlaps(&self, offset: u64, len_bytes: usize) -> Vec<ChunkOverlap> {
        let mut overlaps = Vec::new();
        let rank = self.shape.len();
        let mut done = 0usize;
        while done < len_bytes {
            // The largest box that begins here: whole slices along the slowest axis that is at its start, or else the
            // rest of the row.
            let mut start = vec![0; rank];
            let mut rest = offset + done as u64;
            for axis in (0..rank).rev() {
                start[axis] = rest % self.shape[axis];
                rest /= self.shape[axis];
            }
            let left = (len_bytes - done) as u64;
            let mut extent = vec![1; rank];
            let mut slice = 1u64;
            let mut axis = rank - 1;
            while axis > 0 && start[axis] == 0 && slice * self.shape[axis] <= left {
                extent[axis] = self.shape[axis];
                slice *= self.shape[axis];
                axis -= 1;
            }
            extent[axis] = (left / slice).min(self.shape[axis] - start[axis]);
            self.overlaps_of_box(&start, &extent, done, &mut overlaps);
            done += usize::try_from(slice * extent[axis])
                .expect("a part of a range that is a usize long");
        }
        overlaps
    }

    fn overlaps_of_box(
        &self,
        start: &[u64],
        extent: &[u64],
        range_offset: usize,
        overlaps: &mut Vec<ChunkOverlap>,
    ) {
        let rank = start.len();
        let first: Vec<u64> = (0..rank)
            .map(|axis| start[axis] / self.chunk[axis])
            .collect();
        let last: Vec<u64> = (0..rank)
            .map(|axis| (start[axis] + extent[axis] - 1) / self.chunk[axis])
            .collect();
        let mut at = first.clone();
        loop {
            overlaps.push(self.overlap(&at, start, extent, range_offset));
            // The next chunk in C order.
            let Some(axis) = (0..rank).rev().find(|&axis| at[axis] < last[axis]) else {
                return;
            };
            at[axis] += 1;
            at[axis + 1..].copy_from_slice(&first[axis + 1..]);
        }
    }

    fn overlap(
        &self,
        cell: &[u64],
        start: &[u64],
        extent: &[u64],
        range_offset: usize,
    ) -> ChunkOverlap {
        let rank = cell.len();
        let mut number = 0;
        for (&place, &cells) in cell.iter().zip(&self.cells) {
            number = number * cells + place;
        }
        let mut overlap = ChunkOverlap {
            cell: number,
            chunk_offset: 0,
            range_offset,
            row_bytes: 0,
            loops: Vec::new(),
        };
        let (mut chunk_stride, mut range_stride) = (1u64, 1u64);
        for axis in (0..rank).rev() {
            let origin = cell[axis] * self.chunk[axis];
            let low = start[axis].max(origin);
            let high = (start[axis] + extent[axis]).min(origin + self.chunk[axis]);
            overlap.chunk_offset += (low - origin) * chunk_stride;
            overlap.range_offset += to_usize((low - start[axis]) * range_stride);
            if axis == rank - 1 {
                overlap.row_bytes = to_usize(high - low);
            } else if high - low > 1 {
                overlap.loops.insert(
                    0,
                    Stride {
                        count: high - low,
                        in_chunk: chunk_stride,
                        in_range: to_usize(range_stride),
                    },
                );
            }
            chunk_stride *= self.chunk[axis];
            range_stride *= extent[axis];
        }
        overlap
    }
}

impl ChunkOverlap {
    /// Calls `each` with every row: its first byte in the chunk and in the range. Rows are `row_bytes` long.
    pub(crate) fn for_each_row(&self, each: &mut impl FnMut(u64, usize)) {
        fn walk(
            loops: &[Stride],
            in_chunk: u64,
            in_range: usize,
            each: &mut impl FnMut(u64, usize),
        ) {
            let Some((level, inner)) = loops.split_first() else {
                return each(in_chunk, in_range);
            };
            for step in 0..level.count {
                walk(
                    inner,
                    in_chunk + step * level.in_chunk,
                    in_range + to_usize(step) * level.in_range,
                    each,
                );
            }
        }
        walk(&self.loops, self.chunk_offset, self.range_offset, each);
    }
}

/// For distances within one request, whose length is a `usize`.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a distance within a buffer")
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "arrays of some hundred bytes"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The array whose byte at each place is a number of its own, as chunks in C order, edge chunks padded with 255.
    fn chunked(shape: &[u64], chunk: &[u64], element_bytes: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
        let elements: u64 = shape.iter().product();
        let plain: Vec<u8> = (0..elements * element_bytes)
            .map(|i| (i % 251) as u8)
            .collect();
        let cells: Vec<u64> = shape
            .iter()
            .zip(chunk)
            .map(|(s, c)| s.div_ceil(*c))
            .collect();
        let count: u64 = cells.iter().product();
        let chunk_elements: u64 = chunk.iter().product();
        let chunks = (0..count)
            .map(|cell| {
                let mut bytes = vec![255; (chunk_elements * element_bytes) as usize];
                for inner in 0..chunk_elements {
                    let (mut rest_cell, mut rest_inner, mut place, mut stride, mut inside) =
                        (cell, inner, 0, 1, true);
                    for axis in (0..shape.len()).rev() {
                        let index =
                            rest_cell % cells[axis] * chunk[axis] + rest_inner % chunk[axis];
                        rest_cell /= cells[axis];
                        rest_inner /= chunk[axis];
                        inside &= index < shape[axis];
                        place += index * stride;
                        stride *= shape[axis];
                    }
                    if inside {
                        let (from, to) = (
                            (place * element_bytes) as usize,
                            (inner * element_bytes) as usize,
                        );
                        let bytes_each = element_bytes as usize;
                        bytes[to..to + bytes_each].copy_from_slice(&plain[from..from + bytes_each]);
                    }
                }
                bytes
            })
            .collect();
        (plain, chunks)
    }

    fn read(grid: &ChunkGrid, chunks: &[Vec<u8>], offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let mut filled = vec![false; len];
        for overlap in grid.overlaps(offset, len) {
            let chunk = &chunks[overlap.cell as usize];
            overlap.for_each_row(&mut |from, to| {
                let from = from as usize;
                out[to..to + overlap.row_bytes]
                    .copy_from_slice(&chunk[from..from + overlap.row_bytes]);
                for mark in &mut filled[to..to + overlap.row_bytes] {
                    assert!(!*mark, "a byte was filled twice");
                    *mark = true;
                }
            });
        }
        assert!(filled.into_iter().all(|mark| mark), "a byte was not filled");
        out
    }

    #[test]
    fn neighbouring_chunks_of_a_line_are_single_rows() {
        let grid = ChunkGrid::new(&[10], &[4], 8).unwrap();
        let overlaps = grid.overlaps(8, 72);
        assert_eq!(overlaps.len(), 3);
        assert!(overlaps.iter().all(|overlap| overlap.loops.is_empty()));
        assert_eq!(
            (
                overlaps[1].cell,
                overlaps[1].range_offset,
                overlaps[1].row_bytes
            ),
            (1, 24, 32)
        );
    }

    #[test]
    fn axes_that_chunks_span_are_merged() {
        let grid = ChunkGrid::new(&[100, 7, 5], &[10, 7, 5], 4).unwrap();
        assert_eq!(grid.shape, [100 * 7 * 5 * 4]);
        assert_eq!(grid.overlaps(0, 14_000).len(), 10);
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert_eq!(ChunkGrid::new(&[1 << 40, 1 << 40], &[1, 1], 8), None);
        assert_eq!(ChunkGrid::new(&[4], &[0], 8), None);
        assert_eq!(ChunkGrid::new(&[4, 4], &[4], 8), None);
    }

    proptest! {
        #[test]
        fn any_range_of_any_grid_reads_as_the_plain_array(
            axes in prop::collection::vec((1u64..9, 1u64..7), 1..4),
            element_bytes in 1u64..5,
            from in 0.0f64..1.0,
            part in 0.0f64..1.0,
        ) {
            let shape: Vec<u64> = axes.iter().map(|axis| axis.0).collect();
            let chunk: Vec<u64> = axes.iter().map(|axis| axis.1).collect();
            let (plain, chunks) = chunked(&shape, &chunk, element_bytes);
            let grid = ChunkGrid::new(&shape, &chunk, element_bytes).unwrap();
            prop_assert_eq!(grid.len_bytes(), plain.len() as u64);
            let start = (from * plain.len() as f64) as usize;
            let len = (part * (plain.len() - start) as f64) as usize;
            prop_assert_eq!(read(&grid, &chunks, start as u64, len), &plain[start..start + len]);
            prop_assert_eq!(read(&grid, &chunks, 0, plain.len()), plain);
        }
    }
}
