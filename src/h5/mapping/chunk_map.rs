//! [`ChunkMap`]: for each cell of a dataset's chunk grid, the number of the stored chunk that fills it, or none.

/// A cell that no stored chunk fills, in the 32-bit table.
const NONE_32: u32 = u32::MAX;
/// A cell that no stored chunk fills, in the 64-bit table.
const NONE_64: u64 = u64::MAX;
/// A grid of at most this many cells always gets a table: it is small whatever it maps.
const ALWAYS_DENSE_CELLS: u64 = 1024;
/// A table of 4 bytes a cell is preferred to a list of 16 bytes a mapping up to this many cells per mapping.
const DENSE_CELLS_PER_MAPPING: u64 = 8;

/// For each cell of a chunk grid, the number of the stored chunk in raw data, or none.
///
/// Cells are numbered in C order of the grid, whose axes are `ceil(shape / chunk_shape)`. A grid that is nearly full is kept as a
/// table of 4 bytes (8 where chunk numbers need them) a cell; one that is nearly empty as a sorted list, so that a huge
/// sparse dataset costs what it maps, not what it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkMap {
    grid: Vec<u64>,
    len_cells: u64,
    cells: Cells,
    len_mapped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cells {
    Dense32(Vec<u32>),
    Dense64(Vec<u64>),
    /// `(cell, chunk)`, sorted by cell, no cell twice.
    Sparse(Vec<(u64, u64)>),
}

impl ChunkMap {
    /// The map of a dataset of this shape and chunk shape (both in elements) that maps nothing.
    ///
    /// `None` where the ranks differ, a chunk axis is 0, or the cells are more than 64 bits count.
    #[must_use]
    pub fn empty(shape: &[u64], chunk_shape: &[u64]) -> Option<Self> {
        let (grid, len_cells) = grid_of(shape, chunk_shape)?;
        Some(Self {
            grid,
            len_cells,
            cells: Cells::Sparse(Vec::new()),
            len_mapped: 0,
        })
    }

    /// The number of the stored chunk that fills `cell`; `None` where there is none, or no such cell.
    #[must_use]
    pub fn get(&self, cell: u64) -> Option<u64> {
        let index = || usize::try_from(cell).ok();
        match &self.cells {
            Cells::Dense32(table) => mapped_32(*table.get(index()?)?),
            Cells::Dense64(table) => mapped_64(*table.get(index()?)?),
            Cells::Sparse(list) => {
                let at = list.binary_search_by_key(&cell, |entry| entry.0).ok()?;
                Some(list[at].1)
            }
        }
    }

    /// Cells along each axis, slowest first.
    #[must_use]
    pub fn grid(&self) -> &[u64] {
        &self.grid
    }

    /// How many cells the grid has.
    #[must_use]
    pub fn len_cells(&self) -> u64 {
        self.len_cells
    }

    /// How many cells are mapped.
    #[must_use]
    pub fn len_mapped(&self) -> u64 {
        self.len_mapped
    }

    /// Bytes of memory that the map holds, for caches.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let cells = match &self.cells {
            Cells::Dense32(table) => size_of_val(table.as_slice()),
            Cells::Dense64(table) => size_of_val(table.as_slice()),
            Cells::Sparse(list) => size_of_val(list.as_slice()),
        };
        cells + size_of_val(self.grid.as_slice())
    }

    /// Every mapped `(cell, chunk)`, in cell order.
    pub fn mapped(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.mapped_from(0)
    }

    /// Every mapped `(cell, chunk)` from `cell` on, in cell order.
    #[must_use]
    pub fn mapped_from(&self, cell: u64) -> MappedCells<'_> {
        let (at, cell) = match &self.cells {
            Cells::Sparse(list) => (list.partition_point(|entry| entry.0 < cell), cell),
            _ => (0, cell),
        };
        MappedCells {
            cells: &self.cells,
            cell,
            at,
        }
    }

    /// The first mapped cell at or behind `from`.
    #[must_use]
    pub fn next_mapped(&self, from: u64) -> Option<u64> {
        self.mapped_from(from).next().map(|(cell, _)| cell)
    }

    /// The first cell at or behind `from` that is not mapped.
    #[must_use]
    pub fn next_unmapped(&self, from: u64) -> Option<u64> {
        if from >= self.len_cells {
            return None;
        }
        let found = match &self.cells {
            Cells::Dense32(table) => first_at(table, from, |&chunk| chunk == NONE_32)?,
            Cells::Dense64(table) => first_at(table, from, |&chunk| chunk == NONE_64)?,
            Cells::Sparse(list) => {
                let start = list.partition_point(|entry| entry.0 < from);
                // The run of neighbours that begins at `from` ends at the first cell that is not the next number.
                let run = list[start..].iter().zip(from..);
                from + run.take_while(|(entry, cell)| entry.0 == *cell).count() as u64
            }
        };
        (found < self.len_cells).then_some(found)
    }
}

/// Iterator over the mapped `(cell, chunk)` of a [`ChunkMap`], in cell order.
#[derive(Debug, Clone)]
pub struct MappedCells<'a> {
    cells: &'a Cells,
    /// Tables: the next cell to look at.
    cell: u64,
    /// Lists: the next entry to give out.
    at: usize,
}

impl Iterator for MappedCells<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let found = match self.cells {
            Cells::Dense32(table) => {
                let cell = first_at(table, self.cell, |&chunk| chunk != NONE_32)?;
                (cell, u64::from(table[usize::try_from(cell).ok()?]))
            }
            Cells::Dense64(table) => {
                let cell = first_at(table, self.cell, |&chunk| chunk != NONE_64)?;
                (cell, table[usize::try_from(cell).ok()?])
            }
            Cells::Sparse(list) => {
                self.at += 1;
                *list.get(self.at - 1)?
            }
        };
        self.cell = found.0 + 1;
        Some(found)
    }
}

/// A [`ChunkMap`] that is being filled.
pub(super) struct ChunkMapBuilder {
    map: ChunkMap,
}

impl ChunkMapBuilder {
    /// For at most `len_mappings` mappings, which the caller's block justifies. `None` as for [`ChunkMap::empty`].
    pub(super) fn new(shape: &[u64], chunk_shape: &[u64], len_mappings: usize) -> Option<Self> {
        let mut map = ChunkMap::empty(shape, chunk_shape)?;
        let justified = (len_mappings as u64).saturating_mul(DENSE_CELLS_PER_MAPPING);
        if map.len_cells <= justified.max(ALWAYS_DENSE_CELLS) {
            let len = usize::try_from(map.len_cells).ok()?;
            map.cells = Cells::Dense32(vec![NONE_32; len]);
        } else {
            map.cells = Cells::Sparse(Vec::with_capacity(len_mappings));
        }
        Some(Self { map })
    }

    /// Cells along each axis.
    pub(super) fn grid(&self) -> &[u64] {
        &self.map.grid
    }

    /// Maps `cell`, which is inside the grid, to `chunk`. `false` where the cell is taken or the number is none that can be kept.
    #[inline]
    pub(super) fn insert(&mut self, cell: u64, chunk: u64) -> bool {
        self.map.len_mapped += 1;
        match &mut self.map.cells {
            Cells::Dense32(table) => {
                let Some(slot) = usize::try_from(cell).ok().and_then(|at| table.get_mut(at)) else {
                    return false;
                };
                if *slot != NONE_32 {
                    return false;
                }
                match u32::try_from(chunk) {
                    Ok(chunk) if chunk != NONE_32 => *slot = chunk,
                    _ => return self.insert_wide(cell, chunk),
                }
                true
            }
            Cells::Dense64(table) => {
                let Some(slot) = usize::try_from(cell).ok().and_then(|at| table.get_mut(at)) else {
                    return false;
                };
                if *slot != NONE_64 || chunk == NONE_64 {
                    return false;
                }
                *slot = chunk;
                true
            }
            // Duplicates are found when the list is sorted.
            Cells::Sparse(list) => {
                list.push((cell, chunk));
                true
            }
        }
    }

    /// Changes to the 64-bit table for a chunk number that does not fit 32 bits.
    #[cold]
    fn insert_wide(&mut self, cell: u64, chunk: u64) -> bool {
        if let Cells::Dense32(table) = &self.map.cells {
            let wide = table.iter().map(|&chunk| match chunk {
                NONE_32 => NONE_64,
                chunk => u64::from(chunk),
            });
            self.map.cells = Cells::Dense64(wide.collect());
        }
        self.map.len_mapped -= 1;
        self.insert(cell, chunk)
    }

    /// The filled map, or `None` where a cell was mapped twice.
    pub(super) fn finish(mut self) -> Option<ChunkMap> {
        if let Cells::Sparse(list) = &mut self.map.cells {
            if !list.is_sorted_by(|a, b| a.0 < b.0) {
                list.sort_unstable();
                if !list.is_sorted_by(|a, b| a.0 < b.0) {
                    return None;
                }
            }
            list.shrink_to_fit();
        }
        Some(self.map)
    }
}

/// Cells along each axis, and their product.
fn grid_of(shape: &[u64], chunk_shape: &[u64]) -> Option<(Vec<u64>, u64)> {
    if shape.len() != chunk_shape.len() || chunk_shape.contains(&0) {
        return None;
    }
    let grid: Vec<u64> = shape
        .iter()
        .zip(chunk_shape)
        .map(|(&axis, &chunk)| axis.div_ceil(chunk))
        .collect();
    // An axis without cells makes an empty grid, however long the others are.
    let len_cells = if grid.contains(&0) {
        0
    } else {
        grid.iter().try_fold(1u64, |n, &axis| n.checked_mul(axis))?
    };
    Some((grid, len_cells))
}

fn mapped_32(chunk: u32) -> Option<u64> {
    (chunk != NONE_32).then_some(u64::from(chunk))
}

fn mapped_64(chunk: u64) -> Option<u64> {
    (chunk != NONE_64).then_some(chunk)
}

/// The first cell at or behind `from` whose entry is wanted.
fn first_at<T>(table: &[T], from: u64, wanted: impl Fn(&T) -> bool) -> Option<u64> {
    let rest = table.get(usize::try_from(from).ok()?..)?;
    Some(from + rest.iter().position(wanted)? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(shape: &[u64], chunk: &[u64], mapped: &[(u64, u64)]) -> ChunkMap {
        let mut builder = ChunkMapBuilder::new(shape, chunk, mapped.len()).unwrap();
        for &(cell, chunk) in mapped {
            assert!(builder.insert(cell, chunk));
        }
        builder.finish().unwrap()
    }

    /// Every question that a map answers, against the list it was built from.
    fn check(map: &ChunkMap, mapped: &[(u64, u64)], probe_cells: u64) {
        assert_eq!(map.len_mapped(), mapped.len() as u64);
        assert_eq!(map.mapped().collect::<Vec<_>>(), mapped);
        for cell in 0..probe_cells {
            let want = mapped.iter().find(|m| m.0 == cell).map(|m| m.1);
            assert_eq!(map.get(cell), want);
            let next = mapped.iter().map(|m| m.0).find(|&c| c >= cell);
            assert_eq!(map.next_mapped(cell), next);
            let gap = (cell..map.len_cells()).find(|c| mapped.iter().all(|m| m.0 != *c));
            assert_eq!(map.next_unmapped(cell), gap, "from {cell}");
        }
    }

    #[test]
    fn table_list_and_wide_table_answer_alike() {
        let mapped = [(0, 7), (1, 0), (2, 7), (9, 3), (11, 1)];
        let dense = build(&[12], &[1], &mapped);
        assert!(matches!(dense.cells, Cells::Dense32(_)));
        check(&dense, &mapped, 14);
        let sparse = build(&[4_000_000], &[1000], &mapped);
        assert!(matches!(sparse.cells, Cells::Sparse(_)));
        check(&sparse, &mapped, 14);
        let wide_mapped = [(0, 7), (1, u64::from(NONE_32)), (11, 1 << 40)];
        let wide = build(&[12], &[1], &wide_mapped);
        assert!(matches!(wide.cells, Cells::Dense64(_)));
        check(&wide, &wide_mapped, 14);
    }

    #[test]
    fn a_huge_sparse_grid_costs_what_it_maps() {
        let far = 999_999_999_999;
        let map = build(
            &[1 << 20, 1_000_000_000_000],
            &[1 << 20, 1],
            &[(far, 2), (5, 1)],
        );
        assert_eq!(map.len_cells(), 1_000_000_000_000);
        assert!(map.heap_bytes() < 100);
        assert_eq!(map.mapped().collect::<Vec<_>>(), [(5, 1), (far, 2)]);
        assert_eq!(map.next_mapped(6), Some(far));
        assert_eq!(map.next_unmapped(far), None);
    }

    #[test]
    fn a_cell_is_mapped_once() {
        let mut dense = ChunkMapBuilder::new(&[4], &[1], 2).unwrap();
        assert!(dense.insert(2, 0));
        assert!(!dense.insert(2, 1));
        let mut sparse = ChunkMapBuilder::new(&[1 << 40], &[1], 2).unwrap();
        assert!(sparse.insert(2, 0));
        assert!(sparse.insert(2, 1));
        assert!(sparse.finish().is_none());
    }

    #[test]
    fn shapes_that_make_no_grid() {
        assert!(ChunkMap::empty(&[1], &[0]).is_none());
        assert!(ChunkMap::empty(&[1, 1], &[1]).is_none());
        assert!(ChunkMap::empty(&[1 << 40, 1 << 40], &[1, 1]).is_none());
        let none = ChunkMap::empty(&[0, u64::MAX], &[4, 1]).unwrap();
        assert_eq!((none.len_cells(), none.grid()), (0, &[0, u64::MAX][..]));
        assert_eq!(none.next_unmapped(0), None);
    }
}
