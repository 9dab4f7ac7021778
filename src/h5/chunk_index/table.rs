//! [`ChunkTable`]: the stored chunks of a dataset, by number.

use std::iter;

use crate::h5::reader::FileBounds;
use crate::h5::{Address, H5Error, StoredChunk};

const INDEX: &str = "chunk index";

/// Every stored chunk of a dataset, by the number of its cell in C order of the chunk grid. In raw data, whose chunks are stacked along axis
/// 0, that is the number of the stored chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTable {
    grid: Vec<u64>,
    len_cells: u64,
    cells: Cells,
    chunks: Chunks,
    stored_bytes: u64,
}

/// The cell of each chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cells {
    /// One behind the other from this one on.
    From(u64),
    Each(Vec<u64>),
}

impl Cells {
    /// Those of `len` chunks.
    fn iter(&self, len: usize) -> impl Iterator<Item = u64> + '_ {
        let (from, each): (_, &[u64]) = match self {
            Self::From(first) => (*first..*first + len as u64, &[]),
            Self::Each(cells) => (0..0, cells),
        };
        from.chain(each.iter().copied())
    }

    /// Adds `cell` to those of `len` chunks.
    #[inline]
    fn push(&mut self, len: usize, cell: u64) {
        match self {
            Self::From(first) if len == 0 => *first = cell,
            Self::From(first) if *first + len as u64 == cell => {}
            Self::From(_) => *self = Self::Each(self.iter(len).chain([cell]).collect()),
            Self::Each(cells) => cells.push(cell),
        }
    }

    /// Adds the `more` cells of `more_len` chunks to those of `len`.
    fn append(&mut self, len: usize, more: &Self, more_len: usize) {
        match (&mut *self, more) {
            (_, _) if more_len == 0 => {}
            (_, _) if len == 0 => *self = more.clone(),
            (Self::From(first), Self::From(next)) if *first + len as u64 == *next => {}
            (Self::From(_), _) => {
                *self = Self::Each(self.iter(len).chain(more.iter(more_len)).collect());
            }
            (Self::Each(cells), _) => cells.extend(more.iter(more_len)),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::From(_) => 0,
            Self::Each(cells) => size_of_val(cells.as_slice()),
        }
    }
}

/// Stored chunks in some order. Those of a dataset without filters differ in nothing but where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Form {
    stored_bytes: u64,
    filter_mask: u32,
}

impl Default for Forms {
    fn default() -> Self {
        Self::Same(Form::default())
    }
}

impl Chunks {
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

    fn append(&mut self, more: &Self) {
        match (&self.forms, &more.forms) {
            (Forms::Same(own), Forms::Same(other)) if own == other => {
                self.addresses.reserve_exact(more.len());
                self.addresses.extend_from_slice(&more.addresses);
            }
            _ => more.iter().for_each(|chunk| self.push(chunk)),
        }
    }

    /// Of all chunks together.
    fn stored_bytes(&self) -> u64 {
        match &self.forms {
            Forms::Same(form) => form.stored_bytes.saturating_mul(self.len() as u64),
            Forms::Each(forms) => forms
                .iter()
                .fold(0, |sum, form| sum.saturating_add(form.stored_bytes)),
        }
    }

    /// Makes room for so many more, of one form.
    fn reserve(&mut self, more: usize) {
        self.addresses.reserve_exact(more);
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

impl Extend<StoredChunk> for Chunks {
    fn extend<I: IntoIterator<Item = StoredChunk>>(&mut self, chunks: I) {
        chunks.into_iter().for_each(|chunk| self.push(chunk));
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
        match &self.cells {
            Cells::From(first) => {
                let at = usize::try_from(cell.checked_sub(*first)?).ok()?;
                (at < self.chunks.len()).then_some(at)
            }
            Cells::Each(cells) => cells.binary_search(&cell).ok(),
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
        match &self.cells {
            Cells::From(first) => first + self.chunks.len() as u64,
            Cells::Each(cells) => cells.last().map_or(0, |last| last + 1),
        }
    }

    /// This table with the chunks of `more`, which are all behind its own, and whose grid holds both.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where two chunks share bytes.
    pub(super) fn extended(&self, more: &Self) -> Result<Self, H5Error> {
        let mut table = Self {
            grid: more.grid.clone(),
            len_cells: more.len_cells,
            ..self.clone()
        };
        table.append(more);
        table.stored_bytes = self.stored_bytes.saturating_add(more.stored_bytes);
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
        size_of_val(self.grid.as_slice()) + self.cells.heap_bytes() + self.chunks.heap_bytes()
    }

    /// Every stored chunk with its cell, in cell order.
    pub fn stored(&self) -> impl Iterator<Item = (u64, StoredChunk)> + '_ {
        self.cells.iter(self.chunks.len()).zip(self.chunks.iter())
    }

    /// Adds the chunks of `more` behind its own, of whichever cells they are.
    fn append(&mut self, more: &Self) {
        let (known, added) = (self.chunks.len(), more.chunks.len());
        self.cells.append(known, &more.cells, added);
        self.chunks.append(&more.chunks);
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
    bounds: FileBounds,
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
        bounds: FileBounds,
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
            bounds,
            table: ChunkTable {
                grid,
                len_cells,
                cells: Cells::From(0),
                chunks: Chunks::default(),
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

    /// Makes room for `more` chunks, of which the file must have room for as many.
    pub(super) fn reserve(&mut self, more: usize) {
        self.table.chunks.reserve(more);
    }

    /// One of the same dataset that has nothing yet.
    pub(super) fn beside(&self) -> Self {
        Self {
            table: ChunkTable {
                grid: self.table.grid.clone(),
                len_cells: self.table.len_cells,
                cells: Cells::From(0),
                chunks: Chunks::default(),
                stored_bytes: 0,
            },
            ..*self
        }
    }

    /// Adds all that another one of the same dataset has gathered.
    pub(super) fn append(&mut self, more: &Self) {
        self.table.append(&more.table);
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
            self.bounds.offset(chunk.address, chunk.stored_bytes)?;
        }
        let ChunkTable { cells, chunks, .. } = &mut self.table;
        cells.push(chunks.len(), cell);
        chunks.push(chunk);
        Ok(())
    }

    /// The table of all that was added.
    pub(super) fn finish(self) -> Result<ChunkTable, H5Error> {
        let mut table = self.table;
        if let Cells::Each(cells) = &mut table.cells {
            if !cells.is_sorted() {
                let mut both: Vec<_> = iter::zip(&*cells, table.chunks.iter()).collect();
                both.sort_by_key(|(cell, _)| **cell);
                (*cells, table.chunks) = both.into_iter().unzip();
            }
            if let Some(pair) = cells.windows(2).position(|two| two[0] == two[1]) {
                let address = table.chunks.addresses[pair];
                return Err(damaged(address, "a chunk is there twice"));
            }
            match cells[..] {
                [first, .., last] if last - first == cells.len() as u64 - 1 => {
                    table.cells = Cells::From(first);
                }
                _ => cells.shrink_to_fit(),
            }
        }
        table.chunks.shrink_to_fit();
        check_apart(&table.chunks)?;
        // Chunks that share no byte are together no longer than the file.
        table.stored_bytes = table.chunks.stored_bytes();
        Ok(table)
    }
}

/// No two chunks share bytes. Chunks written one after the other, as nearly all are, need no sorting.
fn check_apart(chunks: &Chunks) -> Result<(), H5Error> {
    let behind = |chunk: &StoredChunk| chunk.address.0.saturating_add(chunk.stored_bytes);
    let apart = |a: &StoredChunk, b: &StoredChunk| behind(a) <= b.address.0;
    let in_order = match &chunks.forms {
        Forms::Same(form) => chunks
            .addresses
            .is_sorted_by(|a, b| a.0.saturating_add(form.stored_bytes) <= b.0),
        Forms::Each(_) => chunks.iter().is_sorted_by(apart),
    };
    if in_order {
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
    use std::sync::Arc;

    use super::*;
    use crate::h5::MetaReader;

    fn chunk(address: u64, stored_bytes: u64) -> StoredChunk {
        StoredChunk {
            address: Address(address),
            stored_bytes,
            filter_mask: 0,
        }
    }

    /// The table of these chunks in a file of 1000 bytes and a grid of 3 by 4 cells of 10 bytes.
    fn table(chunks: &[(u64, StoredChunk)], filtered: bool) -> Result<ChunkTable, H5Error> {
        let bounds = MetaReader::new(Arc::new(vec![0u8; 1000]), 0, 1000).bounds();
        let mut found = Collector::new(bounds, &[6, 15], &[2, 4], 10, filtered, None).unwrap();
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
        let bounds = MetaReader::new(Arc::new(vec![0u8; 1000]), 0, 1000).bounds();
        let (shape, chunk_shape) = ([6, 15], [2, 4]);
        let edges = Some((&shape[..], &chunk_shape[..]));
        let mut found = Collector::new(bounds, &shape, &chunk_shape, 10, true, edges).unwrap();
        found.add(Address(1), 2, chunk(0, 7)).unwrap();
        found.add(Address(1), 3, chunk(7, 10)).unwrap();
        assert!(found.add(Address(1), 7, chunk(17, 7)).is_err());
        let table = found.finish().unwrap();
        assert_eq!(table.get(2).unwrap().filter_mask, 0);
        assert_eq!(table.get(3).unwrap().filter_mask, u32::MAX);
    }
}
