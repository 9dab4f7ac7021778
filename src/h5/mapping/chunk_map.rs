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
#[derive(Debug, Clone)]
pub struct ChunkMap {
    grid: Vec<u64>,
    len_cells: u64,
    cells: Cells,
    len_mapped: u64,
    entry_bytes: Option<u64>,
}

/// Maps of the same cells are equal, however their blocks were laid out.
impl PartialEq for ChunkMap {
    fn eq(&self, other: &Self) -> bool {
        self.grid == other.grid && self.cells == other.cells
    }
}

impl Eq for ChunkMap {}

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
            entry_bytes: None,
        })
    }

    /// The map of a dataset of this shape and chunk shape (both in elements) that maps `cells`, which are sorted, each to its chunk, if it has
    /// one. Its block has entries of `entry_bytes`, as for [`ChunkMap::entry_bytes`].
    ///
    /// `None` as for [`ChunkMap::empty`], or where a cell is outside the grid.
    #[must_use]
    pub fn of(
        shape: &[u64],
        chunk_shape: &[u64],
        cells: &[(u64, Option<u64>)],
        entry_bytes: Option<u64>,
    ) -> Option<Self> {
        let mapped = || {
            cells
                .iter()
                .filter_map(|&(cell, chunk)| Some((cell, chunk?)))
        };
        let mut builder = ChunkMapBuilder::new(shape, chunk_shape, mapped().count())?;
        for (cell, chunk) in mapped() {
            if cell >= builder.map.len_cells || !builder.insert(cell, chunk) {
                return None;
            }
        }
        let mut map = builder.finish()?;
        map.entry_bytes = entry_bytes;
        Some(map)
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

    /// The length of an entry of the block that this map came from, where its entries differ in their numbers alone and are in the order of
    /// cells.
    #[must_use]
    pub fn entry_bytes(&self) -> Option<u64> {
        self.entry_bytes
    }

    /// How many of the cells `from..to` are mapped.
    #[must_use]
    pub fn count_mapped(&self, from: u64, to: u64) -> u64 {
        fn count<T>(table: &[T], from: u64, to: u64, is_mapped: impl Fn(&T) -> bool) -> u64 {
            let index =
                |cell: u64| usize::try_from(cell).map_or(table.len(), |at| at.min(table.len()));
            let cells = table.get(index(from)..index(to)).unwrap_or_default();
            cells.iter().filter(|chunk| is_mapped(chunk)).count() as u64
        }
        if self.len_mapped == self.len_cells {
            return to.min(self.len_cells).saturating_sub(from);
        }
        match &self.cells {
            Cells::Dense32(table) => count(table, from, to, |&chunk| chunk != NONE_32),
            Cells::Dense64(table) => count(table, from, to, |&chunk| chunk != NONE_64),
            Cells::Sparse(list) => {
                let before = |cell| list.partition_point(|entry| entry.0 < cell) as u64;
                before(to).saturating_sub(before(from))
            }
        }
    }

    /// The map of a dataset of this shape and chunk shape (both in elements) that maps what this one does, as far as its cells go, but for
    /// the `changed` ones, which are sorted. Its first axis alone may have another length, so that cells keep their numbers. Its block has
    /// entries of `entry_bytes`, as for [`ChunkMap::entry_bytes`].
    ///
    /// `None` where the other axes differ, or a number is none that can be kept.
    #[must_use]
    pub fn changed(
        &self,
        shape: &[u64],
        chunk_shape: &[u64],
        changed: &[(u64, Option<u64>)],
        entry_bytes: Option<u64>,
    ) -> Option<Self> {
        let (grid, len_cells) = grid_of(shape, chunk_shape)?;
        if grid.get(1..) != self.grid.get(1..)
            || changed.last().is_some_and(|&(cell, _)| cell >= len_cells)
        {
            return None;
        }
        let mut map = Self {
            grid,
            len_cells,
            cells: Cells::Sparse(Vec::new()),
            len_mapped: 0,
            entry_bytes,
        };
        map.cells = match &self.cells {
            Cells::Dense32(table) => Cells::Dense32(changed_table(
                table,
                len_cells,
                changed,
                NONE_32,
                |chunk| u32::try_from(chunk).ok(),
            )?),
            Cells::Dense64(table) => {
                Cells::Dense64(changed_table(table, len_cells, changed, NONE_64, Some)?)
            }
            Cells::Sparse(list) => {
                let kept = list.iter().filter(|(cell, _)| {
                    *cell < len_cells
                        && changed.binary_search_by_key(cell, |entry| entry.0).is_err()
                });
                let added = changed
                    .iter()
                    .filter_map(|&(cell, chunk)| Some((cell, chunk?)));
                let mut list: Vec<(u64, u64)> = kept.copied().chain(added).collect();
                list.sort_unstable();
                Cells::Sparse(list)
            }
        };
        map.len_mapped = if let Cells::Sparse(list) = &map.cells {
            list.len() as u64
        } else {
            let both = self.len_cells.min(len_cells);
            let was_mapped = |cell: u64| cell < both && self.get(cell).is_some();
            let were_mapped = changed.iter().filter(|entry| was_mapped(entry.0)).count();
            let are_mapped = changed.iter().filter(|entry| entry.1.is_some()).count();
            self.count_mapped(0, both) - were_mapped as u64 + are_mapped as u64
        };
        Some(map)
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
    /// The number behind that of the last cell; `None` once one came that is not behind the one before.
    in_order_to: Option<u64>,
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
        Some(Self {
            map,
            in_order_to: Some(0),
        })
    }

    /// Whether each cell came behind those before it.
    pub(super) fn is_in_order(&self) -> bool {
        self.in_order_to.is_some()
    }

    /// Says how long each entry is, where they are all alike and in order.
    pub(super) fn set_entry_bytes(&mut self, entry_bytes: u64) {
        self.map.entry_bytes = Some(entry_bytes);
    }

    /// Cells along each axis.
    pub(super) fn grid(&self) -> &[u64] {
        &self.map.grid
    }

    /// Maps `cell`, which is inside the grid, to `chunk`. `false` where the cell is taken or the number is none that can be kept.
    #[inline]
    pub(super) fn insert(&mut self, cell: u64, chunk: u64) -> bool {
        self.map.len_mapped += 1;
        self.in_order_to = match self.in_order_to {
            Some(end) if cell >= end => cell.checked_add(1),
            _ => None,
        };
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
        // It was found to be in order or not already.
        let in_order_to = self.in_order_to;
        self.in_order_to = Some(0);
        let is_new = self.insert(cell, chunk);
        self.in_order_to = in_order_to;
        is_new
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

/// `table` with another length and the `changed` cells. `None` where that would be much longer than what is mapped justifies, or a number does
/// not fit.
fn changed_table<T: Copy + PartialEq>(
    table: &[T],
    len_cells: u64,
    changed: &[(u64, Option<u64>)],
    none: T,
    narrow: impl Fn(u64) -> Option<T>,
) -> Option<Vec<T>> {
    let justified = (table.len() as u64)
        .saturating_add(changed.len() as u64)
        .saturating_mul(DENSE_CELLS_PER_MAPPING);
    let len = usize::try_from(len_cells).ok()?;
    if len_cells > justified.max(ALWAYS_DENSE_CELLS) {
        return None;
    }
    let mut cells = Vec::with_capacity(len);
    cells.extend_from_slice(&table[..table.len().min(len)]);
    cells.resize(len, none);
    for &(cell, chunk) in changed {
        let value = match chunk {
            Some(chunk) => narrow(chunk).filter(|value| *value != none)?,
            None => none,
        };
        *cells.get_mut(usize::try_from(cell).ok()?)? = value;
    }
    Some(cells)
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

    #[test]
    fn changed_maps_are_those_of_what_they_map() {
        let mapped = [(0, 7), (1, 0), (2, 7), (9, 3), (11, 1)];
        let wide = [(0, 7), (1, u64::from(NONE_32)), (11, 1 << 40)];
        for (shape, chunk, mapped) in [
            (12, 1, &mapped[..]),
            (4_000_000, 1000, &mapped),
            (12, 1, &wide),
        ] {
            let map = build(&[shape], &[chunk], mapped);
            for len in [0, 1, 2, 9, 11, 12, 13, 17] {
                let edits: Vec<(u64, Option<u64>)> = [
                    (1, None),
                    (2, Some(8)),
                    (5, Some(9)),
                    (len.max(1) - 1, Some(4)),
                ]
                .into_iter()
                .filter(|edit| edit.0 < len)
                .collect();
                for count in 0..=edits.len() {
                    let mut edits: Vec<_> = edits[..count].to_vec();
                    edits.sort_unstable();
                    edits.dedup_by_key(|edit| edit.0);
                    let mut wanted: std::collections::BTreeMap<u64, u64> = mapped
                        .iter()
                        .copied()
                        .filter(|entry| entry.0 < len)
                        .collect();
                    for &(cell, chunk) in &edits {
                        wanted.remove(&cell);
                        wanted.extend(chunk.map(|chunk| (cell, chunk)));
                    }
                    let wanted: Vec<_> = wanted.into_iter().collect();
                    let now = map.changed(&[len * chunk], &[chunk], &edits, None).unwrap();
                    check(&now, &wanted, len);
                    for from in 0..=len {
                        for to in from..=len + 1 {
                            let count = wanted
                                .iter()
                                .filter(|entry| (from..to).contains(&entry.0))
                                .count();
                            assert_eq!(now.count_mapped(from, to), count as u64);
                        }
                    }
                }
            }
        }
        let map = build(&[12], &[1], &mapped);
        assert!(map.changed(&[12], &[1], &[(12, Some(1))], None).is_none());
        assert!(
            map.changed(&[12], &[1], &[(2, Some(1 << 40))], None)
                .is_none()
        );
        assert!(map.changed(&[12, 3], &[1, 1], &[], None).is_none());
        assert!(map.changed(&[1 << 40], &[1], &[], None).is_none());
    }

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
