//! [`ChunkTable`]: the stored chunks of a dataset, by number.

use std::iter;

use crate::h5::{Address, H5Error, MetaReader, StoredChunk};

const INDEX: &str = "chunk index";

/// Every stored chunk of a dataset, by the number of its cell in C order of the chunk grid. In raw data, whose chunks are stacked along axis
/// 0, that is the number of the stored chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTable {
    grid: Vec<u64>,
    len_cells: u64,
    /// The cell of each chunk, ascending; empty where chunk `i` is cell `i`.
    cells: Vec<u64>,
    chunks: Chunks,
    stored_bytes: u64,
}

/// Stored chunks in some order. Those of a dataset without filters differ in nothing but where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunks {
    addresses: Vec<Address>,
    forms: Forms,
}

/// Length and filter mask of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Forms {
    Same(Form),
    Each(Vec<Form>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    stored_bytes: u64,
    filter_mask: u32,
}

impl Chunks {
    const NONE: Self = Self {
        addresses: Vec::new(),
        forms: Forms::Same(Form {
            stored_bytes: 0,
            filter_mask: 0,
        }),
    };

    fn len(&self) -> usize {
        self.addresses.len()
    }

    fn get(&self, at: usize) -> Option<StoredChunk> {
        let address = *self.addresses.get(at)?;
        let form = match &self.forms {
            Forms::Same(form) => form,
            Forms::Each(forms) => forms.get(at)?,
        };
        Some(StoredChunk {
            address,
            stored_bytes: form.stored_bytes,
            filter_mask: form.filter_mask,
        })
    }

    fn iter(&self) -> impl Iterator<Item = StoredChunk> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    #[inline]
    fn push(&mut self, chunk: StoredChunk) {
        let form = Form {
            stored_bytes: chunk.stored_bytes,
            filter_mask: chunk.filter_mask,
        };
        match &mut self.forms {
            Forms::Same(same) if self.addresses.is_empty() => *same = form,
            Forms::Same(same) if *same == form => {}
            Forms::Same(same) => {
                let mut forms = vec![*same; self.addresses.len()];
                forms.push(form);
                self.forms = Forms::Each(forms);
            }
            Forms::Each(forms) => forms.push(form),
        }
        self.addresses.push(chunk.address);
    }

    fn reserve(&mut self, more: usize) {
        self.addresses.reserve_exact(more);
        if let Forms::Each(forms) = &mut self.forms {
            forms.reserve_exact(more);
        }
    }

    fn shrink_to_fit(&mut self) {
        self.addresses.shrink_to_fit();
        if let Forms::Each(forms) = &mut self.forms {
            forms.shrink_to_fit();
        }
    }

    fn heap_bytes(&self) -> usize {
        let forms = match &self.forms {
            Forms::Same(_) => 0,
            Forms::Each(forms) => size_of_val(forms.as_slice()),
        };
        size_of_val(self.addresses.as_slice()) + forms
    }
}

impl FromIterator<StoredChunk> for Chunks {
    fn from_iter<I: IntoIterator<Item = StoredChunk>>(chunks: I) -> Self {
        let mut found = Self::NONE;
        for chunk in chunks {
            found.push(chunk);
        }
        found
    }
}

impl ChunkTable {
    /// Where the chunk of `cell` is; `None` where it was never written, or there is no such cell.
    #[must_use]
    pub fn get(&self, cell: u64) -> Option<StoredChunk> {
        self.chunks.get(self.position(cell)?)
    }

    /// Which one of the stored chunks, in cell order, is that of `cell`.
    #[must_use]
    pub fn position(&self, cell: u64) -> Option<usize> {
        if self.cells.is_empty() {
            let at = usize::try_from(cell).ok()?;
            (at < self.chunks.len()).then_some(at)
        } else {
            self.cells.binary_search(&cell).ok()
        }
    }

    /// Cells along each axis, slowest first.
    #[must_use]
    pub fn grid(&self) -> &[u64] {
        &self.grid
    }

    /// How many cells the grid has, with a chunk or without.
    #[must_use]
    pub fn len_cells(&self) -> u64 {
        self.len_cells
    }

    /// How many chunks are stored.
    #[must_use]
    pub fn len_stored(&self) -> usize {
        self.chunks.len()
    }

    /// Whether the grid is one chunk wide on every axis but the first, as raw data is.
    #[must_use]
    pub fn is_stacked(&self) -> bool {
        self.grid.iter().skip(1).all(|&cells| cells == 1)
    }

    /// The number behind that of the last cell with a chunk.
    #[must_use]
    pub fn stored_end(&self) -> u64 {
        match self.cells.last() {
            Some(last) => last + 1,
            None => self.chunks.len() as u64,
        }
    }

    /// This table with the chunks of `more`, which are all behind its own, and whose grid holds both.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where two chunks share bytes.
    pub(super) fn extended(&self, more: Self) -> Result<Self, H5Error> {
        let in_order =
            |table: &Self| -> Vec<u64> { table.stored().map(|(cell, _)| cell).collect() };
        let mut chunks = self.chunks.clone();
        chunks.reserve(more.chunks.len());
        more.chunks.iter().for_each(|chunk| chunks.push(chunk));
        let mut table = Self {
            cells: Vec::new(),
            chunks,
            stored_bytes: self.stored_bytes.saturating_add(more.stored_bytes),
            ..more
        };
        let is_whole = self.cells.is_empty()
            && more
                .cells
                .iter()
                .copied()
                .eq(self.stored_end()..table.chunks.len() as u64);
        if !is_whole {
            table.cells = [in_order(self), more.cells].concat();
        }
        check_apart(&table.chunks)?;
        Ok(table)
    }

    /// Bytes that all chunks take in the file.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Bytes of memory that the table holds, for caches.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(self.grid.as_slice())
            + size_of_val(self.cells.as_slice())
            + self.chunks.heap_bytes()
    }

    /// Every stored chunk with its cell, in cell order.
    pub fn stored(&self) -> impl Iterator<Item = (u64, StoredChunk)> + '_ {
        let implied = if self.cells.is_empty() {
            0..self.chunks.len() as u64
        } else {
            0..0
        };
        let cells = self.cells.iter().copied().chain(implied);
        cells.zip(self.chunks.iter())
    }
}

/// What becomes of chunks that are not in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BeyondEnd {
    Refused,
    Kept,
}

/// Gathers chunks in any order, and refuses what cannot be.
pub(super) struct Collector<'a> {
    reader: &'a MetaReader,
    table: ChunkTable,
    chunk_bytes: u64,
    filtered: bool,
    beyond_end: BeyondEnd,
    /// Shape and chunk shape, where chunks that stick out of the shape are stored without the filters.
    unfiltered_edges: Option<(&'a [u64], &'a [u64])>,
}

impl<'a> Collector<'a> {
    /// Where chunks are `filtered`, their stored lengths may differ from `chunk_bytes`. `None` where the shapes make no grid that 64
    /// bits count.
    pub(super) fn new(
        reader: &'a MetaReader,
        shape: &[u64],
        chunk_shape: &[u64],
        chunk_bytes: u64,
        filtered: bool,
        unfiltered_edges: Option<(&'a [u64], &'a [u64])>,
    ) -> Option<Self> {
        if shape.len() != chunk_shape.len() || chunk_shape.contains(&0) {
            return None;
        }
        let axes = shape.iter().zip(chunk_shape);
        let grid: Vec<u64> = axes.map(|(&axis, &chunk)| axis.div_ceil(chunk)).collect();
        let len_cells = if grid.contains(&0) {
            0
        } else {
            grid.iter().try_fold(1u64, |n, &axis| n.checked_mul(axis))?
        };
        Some(Self {
            reader,
            table: ChunkTable {
                grid,
                len_cells,
                cells: Vec::new(),
                chunks: Chunks::NONE,
                stored_bytes: 0,
            },
            chunk_bytes,
            filtered,
            beyond_end: BeyondEnd::Refused,
            unfiltered_edges,
        })
    }

    /// The same with or without chunks that are not in the file.
    pub(super) fn with_chunks_beyond_end(self, beyond_end: BeyondEnd) -> Self {
        Self { beyond_end, ..self }
    }

    /// Cells along each axis.
    pub(super) fn grid(&self) -> &[u64] {
        &self.table.grid
    }

    /// Bytes of a chunk before the filters.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Adds the chunk of `cell`, which the structure at `address` names.
    #[inline]
    pub(super) fn add(
        &mut self,
        address: Address,
        cell: u64,
        mut chunk: StoredChunk,
    ) -> Result<(), H5Error> {
        if cell >= self.table.len_cells {
            return Err(damaged(address, "a chunk is outside the dataset"));
        }
        let mut filtered = self.filtered;
        if let Some((shape, chunk_shape)) = self.unfiltered_edges
            && is_partial(cell, &self.table.grid, shape, chunk_shape)
        {
            filtered = false;
            chunk.filter_mask = u32::MAX;
        }
        if !filtered && chunk.stored_bytes != self.chunk_bytes {
            return Err(damaged(address, "an unfiltered chunk is of another length"));
        }
        if chunk.stored_bytes == 0 {
            return Err(damaged(address, "a chunk has no bytes"));
        }
        if self.beyond_end == BeyondEnd::Refused {
            self.reader.file_offset(chunk.address, chunk.stored_bytes)?;
        }
        let ChunkTable { cells, chunks, .. } = &mut self.table;
        if cells.is_empty() && cell != chunks.len() as u64 {
            // The first cell that is not the next number: from here on cells are kept.
            cells.extend(0..chunks.len() as u64);
            cells.push(cell);
        } else if !cells.is_empty() {
            cells.push(cell);
        }
        chunks.push(chunk);
        Ok(())
    }

    /// The table of all that was added.
    pub(super) fn finish(self) -> Result<ChunkTable, H5Error> {
        let mut table = self.table;
        if !table.cells.is_empty() {
            if !table.cells.is_sorted() {
                let mut both: Vec<_> = iter::zip(table.cells, table.chunks.iter()).collect();
                both.sort_by_key(|(cell, _)| *cell);
                table.cells = both.iter().map(|(cell, _)| *cell).collect();
                table.chunks = both.into_iter().map(|(_, chunk)| chunk).collect();
            }
            if let Some(pair) = table.cells.windows(2).position(|two| two[0] == two[1]) {
                let address = table.chunks.addresses[pair];
                return Err(damaged(address, "a chunk is there twice"));
            }
            if table.cells.iter().copied().eq(0..table.cells.len() as u64) {
                table.cells = Vec::new();
            }
        }
        table.cells.shrink_to_fit();
        table.chunks.shrink_to_fit();
        check_apart(&table.chunks)?;
        let lengths = table.chunks.iter().map(|chunk| chunk.stored_bytes);
        // Chunks that share no byte are together no longer than the file.
        table.stored_bytes = lengths.fold(0, u64::saturating_add);
        Ok(table)
    }
}

/// No two chunks share bytes. Chunks written one after the other, as nearly all are, need no sorting.
fn check_apart(chunks: &Chunks) -> Result<(), H5Error> {
    let behind = |chunk: &StoredChunk| chunk.address.0.saturating_add(chunk.stored_bytes);
    let apart = |a: &StoredChunk, b: &StoredChunk| behind(a) <= b.address.0;
    if chunks.iter().is_sorted_by(apart) {
        return Ok(());
    }
    let mut by_address: Vec<StoredChunk> = chunks.iter().collect();
    by_address.sort_unstable_by_key(|chunk| chunk.address);
    match by_address.windows(2).find(|two| !apart(&two[0], &two[1])) {
        Some(two) => Err(damaged(two[1].address, "two chunks share bytes")),
        None => Ok(()),
    }
}

/// Whether the chunk of `cell` sticks out of the shape.
fn is_partial(cell: u64, grid: &[u64], shape: &[u64], chunk_shape: &[u64]) -> bool {
    let mut rest = cell;
    (0..grid.len()).rev().any(|axis| {
        let number = rest % grid[axis];
        rest /= grid[axis];
        shape[axis] - number * chunk_shape[axis] < chunk_shape[axis]
    })
}

fn damaged(address: Address, what: &'static str) -> H5Error {
    H5Error::Damaged {
        structure: INDEX,
        address,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn chunk(address: u64, stored_bytes: u64) -> StoredChunk {
        StoredChunk {
            address: Address(address),
            stored_bytes,
            filter_mask: 0,
        }
    }

    /// The table of these chunks in a file of 1000 bytes and a grid of 3 by 4 cells of 10 bytes.
    fn table(chunks: &[(u64, StoredChunk)], filtered: bool) -> Result<ChunkTable, H5Error> {
        let reader = MetaReader::new(Arc::new(vec![0u8; 1000]), 0, 1000);
        let mut found = Collector::new(&reader, &[6, 15], &[2, 4], 10, filtered, None).unwrap();
        for &(cell, chunk) in chunks {
            found.add(Address(1), cell, chunk)?;
        }
        found.finish()
    }

    fn what(result: Result<ChunkTable, H5Error>) -> &'static str {
        match result {
            Err(H5Error::Damaged { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn in_order_with_holes_and_shuffled() {
        let all: Vec<_> = (0..12).map(|i| (i, chunk(500 + i * 10, 10))).collect();
        let holes: Vec<_> = all.iter().copied().filter(|(i, _)| i % 5 != 1).collect();
        for chunks in [all, holes] {
            let mut shuffled = chunks.clone();
            shuffled.rotate_left(5);
            shuffled.swap(0, 3);
            for order in [&chunks, &shuffled] {
                let table = table(order, false).unwrap();
                assert_eq!(table.stored().collect::<Vec<_>>(), chunks);
                assert_eq!(table.len_stored(), chunks.len());
                assert_eq!(table.stored_bytes(), 10 * chunks.len() as u64);
                assert_eq!((table.grid(), table.len_cells()), (&[3, 4][..], 12));
                for cell in 0..14 {
                    let want = chunks.iter().find(|c| c.0 == cell).map(|c| c.1);
                    assert_eq!(table.get(cell), want);
                }
            }
        }
        assert_eq!(table(&[], false).unwrap().get(0), None);
    }

    #[test]
    fn what_cannot_be() {
        let twice = [(3, chunk(0, 10)), (1, chunk(20, 10)), (3, chunk(40, 10))];
        assert_eq!(what(table(&twice, false)), "a chunk is there twice");
        let shared = [(0, chunk(100, 9)), (1, chunk(20, 9)), (2, chunk(108, 9))];
        assert_eq!(what(table(&shared, true)), "two chunks share bytes");
        assert_eq!(
            what(table(&[(12, chunk(0, 10))], false)),
            "a chunk is outside the dataset"
        );
        assert_eq!(
            what(table(&[(0, chunk(0, 9))], false)),
            "an unfiltered chunk is of another length"
        );
        assert_eq!(
            what(table(&[(0, chunk(0, 0))], true)),
            "a chunk has no bytes"
        );
        for beyond in [chunk(991, 10), chunk(u64::MAX, 10), chunk(u64::MAX - 5, 10)] {
            assert!(matches!(
                table(&[(0, beyond)], true),
                Err(H5Error::Source(_))
            ));
        }
    }

    #[test]
    fn edge_chunks_without_filters() {
        let reader = MetaReader::new(Arc::new(vec![0u8; 1000]), 0, 1000);
        let (shape, chunk_shape) = ([6, 15], [2, 4]);
        let edges = Some((&shape[..], &chunk_shape[..]));
        let mut found = Collector::new(&reader, &shape, &chunk_shape, 10, true, edges).unwrap();
        found.add(Address(1), 2, chunk(0, 7)).unwrap();
        found.add(Address(1), 3, chunk(7, 10)).unwrap();
        assert!(found.add(Address(1), 7, chunk(17, 7)).is_err());
        let table = found.finish().unwrap();
        assert_eq!(table.get(2).unwrap().filter_mask, 0);
        assert_eq!(table.get(3).unwrap().filter_mask, u32::MAX);
    }
}
