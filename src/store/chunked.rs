//! Reading the elements of a dataset by its chunk map: which stored chunk, where in the file, read, decode, copy.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::sync::Arc;

use rayon::prelude::*;

use super::StoreError;
use super::cache::ChunkKey;
use super::dataset::Shared;
use super::elements::ElementBox;
use super::history::VersionKey;
use super::raw_data::{Proof, RawData, extent_of};
use super::region::{ChunkGrid, ChunkOverlap};
use crate::h5::DatasetHeader;
use crate::h5::mapping::ChunkMap;
use crate::h5::writer;

/// The most places that one system call fills (`IOV_MAX`).
const MOST_ROWS_AT_ONCE: usize = 1024;

/// A dataset as a map of chunks.
#[derive(Debug)]
pub(crate) struct Chunked {
    shared: Arc<Shared>,
    /// Name of the version that it was opened for.
    version: Arc<[u8]>,
    shape: Vec<u64>,
    grid: ChunkGrid,
    map: Arc<ChunkMap>,
    /// `None` where the file has no raw data, and so nothing is mapped.
    raw_data: Option<Arc<RawData>>,
    /// One element of fill value; `None` for zeros.
    fill: Option<Vec<u8>>,
    /// All that is mapped was in the file before a program that holds it for writing now opened it.
    was_complete: bool,
}

impl Chunked {
    /// `None` where shape, chunk shape and map do not fit together. `was_complete`: see [`Snapshot::was_complete`].
    ///
    /// [`Snapshot::was_complete`]: super::snapshot::Snapshot::was_complete
    pub(crate) fn new(
        shared: Arc<Shared>,
        version: &VersionKey,
        header: &DatasetHeader,
        chunk_shape: &[u64],
        map: Arc<ChunkMap>,
        raw_data: Option<Arc<RawData>>,
        was_complete: bool,
    ) -> Option<Self> {
        let grid = ChunkGrid::new(
            header.dataspace.shape(),
            chunk_shape,
            header.datatype.size as u64,
        )?;
        let fill = header
            .fill_value
            .clone()
            .filter(|fill| fill.iter().any(|&byte| byte != 0));
        let fits = grid.cell_count() == map.len_cells()
            && fill
                .as_ref()
                .is_none_or(|fill| fill.len() == header.datatype.size)
            && raw_data
                .as_ref()
                .is_none_or(|raw| raw.chunk_bytes as u64 == grid.chunk_bytes());
        fits.then_some(Self {
            shared,
            version: version.name.clone(),
            shape: header.dataspace.shape().to_vec(),
            grid,
            map,
            raw_data,
            fill,
            was_complete,
        })
    }

    /// Which stored chunk is in each cell.
    pub(crate) fn map(&self) -> &Arc<ChunkMap> {
        &self.map
    }

    /// What it maps; `None` where the file has none, and so nothing is mapped.
    pub(crate) fn raw_data(&self) -> Option<&Arc<RawData>> {
        self.raw_data.as_ref()
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.grid.len_bytes()
    }

    /// Bytes that the mapped chunks take in the file.
    pub(crate) fn stored_bytes(&self) -> Result<u64, StoreError> {
        let Some(raw_data) = &self.raw_data else {
            return Ok(0);
        };
        if raw_data.is_plain() {
            // Each takes as many bytes, whatever the index says of where.
            let chunk_bytes = raw_data.chunk_bytes as u64;
            return Ok(self.map.len_mapped().saturating_mul(chunk_bytes));
        }
        let table = raw_data.table()?;
        Ok(self
            .map
            .mapped()
            .filter_map(|(_, index)| table.get(index))
            .fold(0, |sum, chunk| sum.saturating_add(chunk.stored_bytes)))
    }

    /// What identifies the bytes `offset..offset + len_bytes`: two ranges with equal keys hold equal bytes, in whichever
    /// version.
    pub(crate) fn content_key(&self, offset: u64, len_bytes: usize) -> Box<[u64]> {
        let epoch = self.raw_data.as_ref().map_or(0, |raw| raw.epoch);
        let mut key = vec![epoch, len_bytes as u64];
        for overlap in self.grid.overlaps(offset, len_bytes) {
            let stored = self.map.get(overlap.cell).unwrap_or(u64::MAX);
            key.extend([stored, overlap.chunk_offset, overlap.row_bytes as u64]);
            key.extend(overlap.loops.iter().map(|level| level.count));
        }
        key.into()
    }

    /// See [`super::Dataset::expect_edit`].
    pub(crate) fn expect_edit(&self) {
        if let Some(raw_data) = &self.raw_data {
            raw_data.read_index_ahead(&self.shared.workers);
        }
        writer::set_up_ahead();
    }

    /// Fills `buffer` with bytes that must lie within the dataset.
    pub(crate) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let proof = match &self.raw_data {
            Some(raw_data) if self.was_complete => raw_data.proof_when_complete(),
            Some(raw_data) => raw_data.usual_proof(),
            None => Proof::State,
        };
        self.read_proven_at(offset, buffer, proof)?;
        // Behind the first bytes, so as not to be in their way.
        if let Some(raw_data) = &self.raw_data {
            raw_data.read_hashes_ahead(&self.shared.workers);
        }
        Ok(())
    }

    /// The same, with chunks that are believed by `proof`.
    pub(crate) fn read_proven_at(
        &self,
        offset: u64,
        buffer: &mut [u8],
        proof: Proof,
    ) -> Result<(), StoreError> {
        let overlaps = self.grid.overlaps(offset, buffer.len());
        let mut mapped = Vec::with_capacity(overlaps.len());
        for overlap in &overlaps {
            match (self.map.get(overlap.cell), &self.raw_data) {
                (Some(index), Some(_)) => mapped.push((index, overlap)),
                _ => self.fill_rows(overlap, offset, buffer),
            }
        }
        let Some(raw_data) = &self.raw_data else {
            return Ok(());
        };
        if raw_data.is_plain() && proof == Proof::State {
            read_plain(raw_data, &mapped, buffer)
        } else {
            self.copy_decoded(raw_data, &mapped, buffer, proof)
        }
    }

    /// The first byte at `offset` or behind it in a band of chunks of which some, or none (for a hole), is mapped.
    pub(crate) fn seek(&self, offset: u64, for_hole: bool) -> Option<u64> {
        // Fill value that is not zero is data: there is no hole, however many bands are not mapped.
        if self.fill.is_some() {
            return (!for_hole).then_some(offset);
        }
        let band_bytes = self.grid.band_bytes();
        let cells_per_band = self.grid.cells_per_band();
        let bands = self.grid.len_bytes().div_ceil(band_bytes);
        let is_hole = |band: u64| {
            self.map
                .next_mapped(band * cells_per_band)
                .is_none_or(|cell| cell / cells_per_band > band)
        };
        let mut band = offset / band_bytes;
        while band < bands {
            if is_hole(band) == for_hole {
                return Some(offset.max(band * band_bytes));
            }
            band = if for_hole {
                band + 1
            } else {
                self.map.next_mapped((band + 1) * cells_per_band)? / cells_per_band
            };
        }
        None
    }

    fn copy_decoded(
        &self,
        raw_data: &RawData,
        wanted: &[(u64, &ChunkOverlap)],
        buffer: &mut [u8],
        proof: Proof,
    ) -> Result<(), StoreError> {
        // A hash proves only what lies within the extent.
        let key_of = |index: u64, cell: u64| match proof {
            Proof::State => raw_data.key(index),
            Proof::Hash | Proof::Both => raw_data.proven_key(index, &self.extent(cell, raw_data)),
        };
        let cells: BTreeMap<ChunkKey, u64> = wanted
            .iter()
            .map(|&(index, overlap)| (key_of(index, overlap.cell), overlap.cell))
            .collect();
        let decode = |(&key, &cell): (&ChunkKey, &u64)| {
            let chunk = self.shared.cache.get_or_decode(key, || {
                raw_data
                    .decode(key.index, &self.extent(cell, raw_data), proof)
                    .map_err(|error| self.located(error, cell, proof))
            })?;
            Ok((key, chunk))
        };
        let cached: Option<Vec<(ChunkKey, Arc<[u8]>)>> = cells
            .keys()
            .map(|&key| Some((key, self.shared.cache.get(key)?)))
            .collect();
        let chunks: Vec<(ChunkKey, Arc<[u8]>)> = match cached {
            Some(chunks) => chunks,
            None => self.shared.workers.install(|| {
                cells
                    .par_iter()
                    .map(decode)
                    .collect::<Result<_, StoreError>>()
            })?,
        };
        for (index, overlap) in wanted {
            let key = key_of(*index, overlap.cell);
            let place = chunks
                .binary_search_by_key(&key, |entry| entry.0)
                .expect("every wanted chunk was decoded, in order");
            let chunk = &chunks[place].1;
            overlap.for_each_row(&mut |in_chunk, in_range| {
                let in_chunk = usize::try_from(in_chunk).expect("within a chunk in memory");
                buffer[in_range..in_range + overlap.row_bytes]
                    .copy_from_slice(&chunk[in_chunk..in_chunk + overlap.row_bytes]);
            });
        }
        Ok(())
    }

    /// The part of a cell's chunk that lies within the array.
    fn extent(&self, cell: u64, raw_data: &RawData) -> Vec<u64> {
        extent_of(cell, &self.shape, &raw_data.chunk_shape)
    }

    /// An error of the chunk at `cell`, with the elements that are lost by it where its hash is not the stored one.
    fn located(&self, error: StoreError, cell: u64, proof: Proof) -> StoreError {
        match (error, &self.raw_data) {
            (StoreError::ChunkHash { dataset, chunk }, Some(raw_data)) if proof == Proof::Both => {
                StoreError::ChunkDamaged {
                    version: self.version.to_vec(),
                    dataset,
                    chunk,
                    elements: ElementBox::of_cell(cell, &self.shape, &raw_data.chunk_shape),
                }
            }
            (error, _) => error,
        }
    }

    fn fill_rows(&self, overlap: &ChunkOverlap, offset: u64, buffer: &mut [u8]) {
        overlap.for_each_row(&mut |_, in_range| {
            let row = &mut buffer[in_range..in_range + overlap.row_bytes];
            match &self.fill {
                None => row.fill(0),
                Some(fill) => {
                    let phase = (offset + in_range as u64) % fill.len() as u64;
                    let phase = usize::try_from(phase).expect("less than an element");
                    for (byte, value) in row.iter_mut().zip(fill.iter().cycle().skip(phase)) {
                        *byte = *value;
                    }
                }
            }
        });
    }
}

/// Reads from chunks that are stored as their elements are, straight into the buffer: what lies side by side in the file with
/// one system call, wherever its rows go.
fn read_plain(
    raw_data: &RawData,
    wanted: &[(u64, &ChunkOverlap)],
    buffer: &mut [u8],
) -> Result<(), StoreError> {
    let mut run = PlainRun::default();
    for &(index, overlap) in wanted {
        let stored = raw_data.plain_chunk(index)?;
        let mut outcome = Ok(());
        overlap.for_each_row(&mut |in_chunk, in_range| {
            let row = PlainRow {
                address: stored.address.0 + in_chunk,
                in_range,
                len_bytes: overlap.row_bytes,
            };
            if outcome.is_ok() && !run.add(&row) {
                outcome = run.read(raw_data, buffer);
                run = PlainRun::starting_with(index, row);
            }
        });
        outcome?;
    }
    run.read(raw_data, buffer)
}

/// Bytes side by side in the file, and side by side in the buffer.
struct PlainRow {
    address: u64,
    in_range: usize,
    len_bytes: usize,
}

/// Rows that follow each other in the file, and in the buffer at some distance.
#[derive(Default)]
struct PlainRun {
    /// The chunk that it begins in.
    chunk: u64,
    rows: Vec<PlainRow>,
}

impl PlainRun {
    fn starting_with(chunk: u64, row: PlainRow) -> Self {
        Self {
            chunk,
            rows: vec![row],
        }
    }

    /// Takes `row` in, if it continues the run.
    fn add(&mut self, row: &PlainRow) -> bool {
        let Some(last) = self.rows.last_mut() else {
            return false;
        };
        let (end, in_range_end) = (
            last.address + last.len_bytes as u64,
            last.in_range + last.len_bytes,
        );
        if row.address != end || row.in_range < in_range_end {
            return false;
        }
        if row.in_range == in_range_end {
            last.len_bytes += row.len_bytes;
        } else if self.rows.len() < MOST_ROWS_AT_ONCE {
            self.rows.push(PlainRow { ..*row });
        } else {
            return false;
        }
        true
    }

    fn read(&self, raw_data: &RawData, buffer: &mut [u8]) -> Result<(), StoreError> {
        let Some(first) = self.rows.first() else {
            return Ok(());
        };
        let mut pieces = Vec::with_capacity(self.rows.len());
        let mut rest = buffer;
        let mut passed = 0;
        for row in &self.rows {
            let (piece, behind) = rest[row.in_range - passed..].split_at_mut(row.len_bytes);
            pieces.push(IoSliceMut::new(piece));
            rest = behind;
            passed = row.in_range + row.len_bytes;
        }
        raw_data.read_plain(self.chunk, first.address, &mut pieces)
    }
}
