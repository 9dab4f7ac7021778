//! The stored chunks of one dataset path: where each is, and its bytes.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::StoreError;
use super::attributes::HeapValues;
use super::cache::ChunkKey;
use super::chunk_hash::{ChunkHash, HashError, hash_chunk};
use super::file_state::{FileState, Kept};
use super::hash_table::{HashTable, HashedChunk};
use super::region::ChunkGrid;
use super::verification::{Unverifiable, Verdict};
use crate::codec::{CodecError, FilterSpec, Pipeline, Scratch};
use crate::h5::{
    self, ChunkTable, DatasetHeader, Dataspace, Filter, Layout, MetaReader, ObjectHeader,
    StoredChunk,
};
use crate::source::Source;

/// A chunk that the whole file could not fill even if it were compressed a thousandfold is damage, not data; below this size
/// none is refused.
const ALWAYS_FAIR_CHUNK_BYTES: u64 = 64 << 20;
/// The best that deflate can do is 1032 to 1.
pub(super) const FAIR_RATIO: u64 = 1100;
/// The most bytes of a chunk, or of an element that is in none, in the file of `reader`.
pub(super) fn most_fair_bytes(reader: &MetaReader) -> u64 {
    ALWAYS_FAIR_CHUNK_BYTES.max(reader.len_bytes().saturating_mul(FAIR_RATIO))
}

/// What filters may add to incompressible bytes, beside a sixteenth of them.
const FILTER_OVERHEAD_BYTES: u64 = 4096;

thread_local! {
    static SCRATCH: RefCell<(Vec<u8>, Scratch)> = RefCell::default();
}

/// `/_version_data/PATH/raw_data`, as one state of the file has it.
#[derive(Debug)]
pub(crate) struct RawData {
    /// The dataset's path below a version.
    pub(crate) path: Arc<[u8]>,
    /// Its header.
    pub(crate) header: DatasetHeader,
    /// Shape of one chunk, in elements.
    pub(crate) chunk_shape: Vec<u64>,
    /// Bytes of one decoded chunk.
    pub(crate) chunk_bytes: usize,
    /// How chunks are decoded; an error where a filter is not known.
    pipeline: Result<Pipeline, CodecError>,
    /// Two raw data with the same epoch have the same chunks under the same numbers.
    pub(crate) epoch: u64,
    file: Arc<FileState>,
    table: Kept<Arc<ChunkTable>>,
    version: Arc<[u8]>,
    hash_table: Option<h5::Address>,
    hashes: Kept<Arc<HashTable>>,
    earlier: Earlier,
    /// Whether hashes were asked for ahead.
    asked_ahead: AtomicBool,
    /// Whether chunks that are not in the file spoil only themselves.
    keeps_lost_chunks: bool,
}

/// What is known of raw data from states of the file before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Earlier {
    /// The hash table of a complete state to which versions were only added since.
    pub(crate) hashes: Option<Arc<HashTable>>,
    /// Of a state that nobody but this process has changed since.
    pub(crate) own: OwnTables,
}

/// Tables of a state after which this process alone wrote to the file. Its commits put chunks and rows behind those that are there and move
/// none, so that what lies behind is all that has to be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnTables {
    pub(crate) hashes: Option<Arc<HashTable>>,
    pub(crate) chunks: Option<Arc<ChunkTable>>,
}

/// By what a decoded chunk is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The file is still in the state that the chunk's place was read from, and the state is complete.
    State,
    /// It hashes to what the hash table says, whatever became of the file meanwhile.
    Hash,
    /// Both; only where it is known why a chunk that is right may differ from its hash is the state enough.
    Both,
}

/// The filters of a dataset's header, for a pipeline.
pub(crate) fn filter_specs(filters: &[Filter]) -> Vec<FilterSpec> {
    filters
        .iter()
        .map(|filter| FilterSpec {
            id: filter.id,
            flags: filter.flags,
            parameters: filter.parameters.clone(),
        })
        .collect()
}

impl RawData {
    /// Reads the header of `/_version_data/PATH/raw_data`, but not yet where its chunks are, nor the hash table of this state.
    ///
    /// # Errors
    /// Damage, or a header that is not that of raw data.
    pub(crate) fn open(
        file: &Arc<FileState>,
        version: &[u8],
        path: &Arc<[u8]>,
        address: h5::Address,
        epoch: u64,
        hash_table: Option<h5::Address>,
        earlier: Earlier,
    ) -> Result<Self, StoreError> {
        let damaged = |error| StoreError::Object {
            version: version.to_vec(),
            object: path.to_vec(),
            error,
        };
        let inconsistent = |what| StoreError::Inconsistent {
            version: version.to_vec(),
            dataset: path.to_vec(),
            what,
        };
        let reader = file.h5.reader();
        let object = ObjectHeader::read(&reader, address).map_err(damaged)?;
        let header = DatasetHeader::read(&reader, &object).map_err(damaged)?;
        let Layout::Chunked { chunk_shape, .. } = &header.layout else {
            return Err(inconsistent("its raw_data is not stored in chunks"));
        };
        let chunk_shape = chunk_shape.clone();
        if !matches!(header.dataspace, Dataspace::Simple { .. }) || header.datatype.size == 0 {
            return Err(inconsistent("its raw_data has no shape"));
        }
        let chunk_bytes = chunk_shape
            .iter()
            .try_fold(header.datatype.size as u64, |n, &extent| {
                n.checked_mul(extent)
            })
            .filter(|&bytes| bytes <= most_fair_bytes(&reader))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|&bytes| bytes > 0)
            .ok_or_else(|| inconsistent("its chunks are of a size that the file cannot hold"))?;
        let filters = filter_specs(&header.filters);
        let pipeline = Pipeline::new(&filters, header.datatype.size, chunk_bytes);
        Ok(Self {
            path: path.clone(),
            header,
            chunk_shape,
            chunk_bytes,
            pipeline,
            epoch,
            file: file.clone(),
            table: Kept::default(),
            version: version.into(),
            hash_table,
            hashes: Kept::default(),
            earlier,
            asked_ahead: AtomicBool::new(false),
            keeps_lost_chunks: false,
        })
    }

    /// The same where chunks that are not in the file spoil only themselves, and not the index of all.
    pub(super) fn keeping_lost_chunks(self) -> Self {
        Self {
            keeps_lost_chunks: true,
            ..self
        }
    }

    /// Where every chunk is.
    ///
    /// # Errors
    /// Damage of the chunk index.
    pub(crate) fn table(&self) -> Result<&ChunkTable, StoreError> {
        let table = self.table.get_or_read(&self.file, || {
            let reader = self.file.h5.reader();
            let table = match &self.earlier.own.chunks {
                Some(earlier) => h5::extend_chunk_index(&reader, &self.header, earlier),
                None if self.keeps_lost_chunks => h5::read_cut_chunk_index(&reader, &self.header),
                None => h5::read_chunk_index(&reader, &self.header),
            };
            table.map(Arc::new).map_err(|error| StoreError::RawData {
                dataset: self.path.to_vec(),
                error,
            })
        })?;
        Ok(table)
    }

    /// Whether all of it is sound as far as can be told without reading chunks.
    ///
    /// # Errors
    /// A filter that is not known, or damage of the chunk index.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.pipeline()?;
        self.table().map(|_| ())
    }

    /// Where chunk `index` is.
    ///
    /// # Errors
    /// [`StoreError::ChunkMissing`], or damage of the chunk index.
    pub(crate) fn chunk(&self, index: u64) -> Result<StoredChunk, StoreError> {
        self.table()?
            .get(index)
            .ok_or_else(|| StoreError::ChunkMissing {
                dataset: self.path.to_vec(),
                chunk: index,
            })
    }

    /// Whether chunks lie in the file as their elements are.
    pub(crate) fn is_plain(&self) -> bool {
        self.pipeline.as_ref().is_ok_and(Pipeline::is_identity)
    }

    /// How its chunks are decoded.
    ///
    /// # Errors
    /// A filter that is not known, or not with these parameters.
    pub(super) fn pipeline(&self) -> Result<&Pipeline, StoreError> {
        self.pipeline.as_ref().map_err(|error| StoreError::Filter {
            dataset: self.path.to_vec(),
            error: error.clone(),
        })
    }

    /// What the decoded chunk `index` is cached under.
    pub(crate) fn key(&self, index: u64) -> ChunkKey {
        ChunkKey {
            epoch: self.epoch,
            index,
            proven_part: 0,
        }
    }

    /// The same where a hash proved the part within `extent`, and nothing beyond it.
    pub(crate) fn proven_key(&self, index: u64, extent: &[u64]) -> ChunkKey {
        let mut key = self.key(index);
        if extent != self.chunk_shape {
            // No more than 36 axes of more than one element make a chunk that fits into memory, so the number fits 64 bits.
            key.proven_part = extent
                .iter()
                .zip(&self.chunk_shape)
                .filter(|(_, all)| **all > 1)
                .fold(0u64, |number, (&part, &all)| {
                    number.wrapping_mul(all + 1).wrapping_add(part)
                });
        }
        key
    }

    /// Where chunk `index` is, whose elements lie in the file as they are: the raw data must be [`RawData::is_plain`].
    ///
    /// # Errors
    /// As for [`RawData::chunk`]; [`StoreError::ChunkLength`] where it is not as long as its elements.
    pub(crate) fn plain_chunk(&self, index: u64) -> Result<StoredChunk, StoreError> {
        let chunk = self.chunk(index)?;
        if chunk.stored_bytes != self.chunk_bytes as u64 {
            return Err(self.wrong_length(index, chunk.stored_bytes));
        }
        Ok(chunk)
    }

    /// Fills `pieces`, one behind the other, with the bytes at `address` on of plain chunks, of which `index` is the first.
    ///
    /// # Errors
    /// [`StoreError::ChunkRead`].
    pub(crate) fn read_plain(
        &self,
        index: u64,
        address: u64,
        pieces: &mut [IoSliceMut<'_>],
    ) -> Result<(), StoreError> {
        self.file
            .source
            .read_exact_vectored_at(pieces, self.file.h5.base_address().saturating_add(address))
            .map_err(|error| self.unreadable(index, error))
    }

    /// Reads and decodes chunk `index`: all its elements, in C order, of which those within `extent` are the array's.
    ///
    /// # Errors
    /// Where it is missing, of the wrong length, unreadable or damaged; [`StoreError::Unsettled`] or, by its hash,
    /// [`StoreError::ChunkHash`] where there is no proof that it is right.
    pub(crate) fn decode(
        &self,
        index: u64,
        extent: &[u64],
        proof: Proof,
    ) -> Result<Arc<[u8]>, StoreError> {
        match proof {
            Proof::State => self.decode_unhashed(index),
            Proof::Hash => {
                let chunk = self.decode_now(index)?;
                self.check_hash(index, extent, &chunk)?;
                Ok(chunk)
            }
            Proof::Both => self.file.settled(|| {
                let chunk = self.decode_now(index)?;
                match self.judge(index, extent, &chunk)? {
                    Verdict::Right => {}
                    Verdict::Wrong => return Err(self.wrong_hash(index)),
                    Verdict::Unknown(reason) => {
                        let verification = &self.file.verification;
                        verification.tell_unverifiable(&self.path, reason);
                    }
                }
                Ok(chunk)
            }),
        }
    }

    /// The same for what has no hashes.
    ///
    /// # Errors
    /// Where it is missing, of the wrong length, unreadable or damaged.
    pub(crate) fn decode_unhashed(&self, index: u64) -> Result<Arc<[u8]>, StoreError> {
        self.file.settled(|| self.decode_now(index))
    }

    /// What proves a chunk right in the state that the file is thought to be in.
    pub(crate) fn usual_proof(&self) -> Proof {
        if self.file.is_complete() {
            self.proof_when_complete()
        } else {
            Proof::Hash
        }
    }

    /// What proves a chunk right that was in the file before anybody who writes to it now.
    pub(crate) fn proof_when_complete(&self) -> Proof {
        if self.file.verification.is_wanted() {
            Proof::Both
        } else {
            Proof::State
        }
    }

    /// The hash table in this state of the file.
    ///
    /// # Errors
    /// Damage of it; [`StoreError::Unsettled`].
    pub(super) fn hashes(&self) -> Result<&Arc<HashTable>, StoreError> {
        self.hashes.get_or_read(&self.file, || {
            let address = self.hash_table.ok_or_else(|| StoreError::HashTable {
                dataset: self.path.to_vec(),
                what: "it is missing",
            })?;
            let chunk_rows = self.chunk_shape[0];
            HashTable::read(
                &self.file,
                &self.version,
                &self.path,
                address,
                chunk_rows,
                self.earlier.own.hashes.as_deref(),
            )
            .map(Arc::new)
            .map_err(|error| match error {
                StoreError::HashTable { .. } | StoreError::Unsettled { .. } => error,
                error => {
                    log::debug!("{error}");
                    StoreError::HashTable {
                        dataset: self.path.to_vec(),
                        what: "it cannot be read",
                    }
                }
            })
        })
    }

    /// Reads the hash table, if that was not done before and the state is complete: once another program writes, it is
    /// too late.
    pub(crate) fn read_hashes_ahead(self: &Arc<Self>, workers: &rayon::ThreadPool) {
        if self.file.is_complete() && !self.asked_ahead.swap(true, Ordering::Relaxed) {
            let raw_data = self.clone();
            workers.spawn(move || {
                if let Err(error) = raw_data.hashes() {
                    log::debug!("reading ahead: {error}");
                    let is_lasting = !matches!(error, StoreError::Unsettled { .. });
                    raw_data.asked_ahead.store(is_lasting, Ordering::Relaxed);
                }
            });
        }
    }

    /// Reads where the chunks are, if that was not done before and the state is complete.
    pub(crate) fn read_index_ahead(self: &Arc<Self>, workers: &rayon::ThreadPool) {
        if self.file.is_complete() && self.table.get().is_none() {
            let raw_data = self.clone();
            workers.spawn(move || {
                if let Err(error) = raw_data.table() {
                    log::debug!("reading ahead: {error}");
                }
            });
        }
    }

    /// The hash table of this state, if it was read.
    #[cfg(test)]
    pub(super) fn known_hashes(&self) -> Option<&HashTable> {
        self.hashes.get().map(|table| &**table)
    }

    /// Hashes that hold for this raw data as long as it is only added to: those of a complete state.
    pub(crate) fn lasting_hashes(&self) -> Option<Arc<HashTable>> {
        let own = self.hashes.get().filter(|_| self.file.is_complete());
        own.or(self.earlier.hashes.as_ref()).cloned()
    }

    /// What a state to which this one is extended by this process itself need not read again.
    pub(crate) fn own_tables(&self) -> OwnTables {
        let read_or = |read: Option<&Arc<HashTable>>, earlier: &Option<Arc<HashTable>>| {
            read.or(earlier.as_ref()).cloned()
        };
        OwnTables {
            hashes: read_or(self.hashes.get(), &self.earlier.own.hashes),
            chunks: self
                .table
                .get()
                .or(self.earlier.own.chunks.as_ref())
                .cloned(),
        }
    }

    fn check_hash(&self, index: u64, extent: &[u64], chunk: &[u8]) -> Result<(), StoreError> {
        let wanted = self.stored_hash(index)?;
        let wanted = wanted.ok_or_else(|| self.wrong_hash(index))?;
        if extent.first() != Some(&wanted.rows) {
            return Err(self.wrong_hash(index));
        }
        let hash = self.hash(extent, chunk);
        match hash.map_err(|error| self.unhashable(index, error))? {
            hash if hash == wanted.hash => Ok(()),
            _ => Err(self.wrong_hash(index)),
        }
    }

    /// What the hash table says of the decoded chunk `index`, of which the part within `extent` is the array's.
    ///
    /// # Errors
    /// Damage of the hash table, or of what the chunk's elements point to.
    pub(super) fn judge(
        &self,
        index: u64,
        extent: &[u64],
        chunk: &[u8],
    ) -> Result<Verdict, StoreError> {
        let unverifiable = Unverifiable::of(&self.header, self.file.data_version);
        let hash = match self.hash(extent, chunk) {
            Ok(hash) => hash,
            Err(HashError::Type) => {
                return Ok(Verdict::Unknown(
                    unverifiable.unwrap_or(Unverifiable::Pointers),
                ));
            }
            Err(error) => return Err(self.unhashable(index, error)),
        };
        let is_right = match self.stored_hash(index)? {
            Some(wanted) => wanted.hash == hash && extent.first() == Some(&wanted.rows),
            None => self.hashes()?.has(&hash),
        };
        Ok(match unverifiable {
            _ if is_right => Verdict::Right,
            Some(reason) => Verdict::Unknown(reason),
            None => Verdict::Wrong,
        })
    }

    /// What the hash table says that stored chunk `index` hashes to; `None` where it says nothing of it.
    ///
    /// # Errors
    /// Damage of the hash table.
    pub(super) fn hash_of_stored(&self, index: u64) -> Result<Option<ChunkHash>, StoreError> {
        Ok(self.stored_hash(index)?.map(|hashed| hashed.hash))
    }

    fn stored_hash(&self, index: u64) -> Result<Option<HashedChunk>, StoreError> {
        let earlier = self.earlier.hashes.as_ref();
        match earlier.and_then(|table| table.get(index)) {
            Some(hashed) => Ok(Some(hashed)),
            None => Ok(self.hashes()?.get(index)),
        }
    }

    /// The hash of the part within `extent` of a decoded chunk.
    ///
    /// # Errors
    /// [`HashError`].
    pub(super) fn hash(&self, extent: &[u64], chunk: &[u8]) -> Result<ChunkHash, HashError> {
        let reader = self.file.h5.reader();
        let heap = HeapValues::new(&reader);
        let datatype = &self.header.datatype;
        hash_chunk(datatype, chunk, &self.chunk_shape, extent, &heap)
    }

    fn wrong_hash(&self, index: u64) -> StoreError {
        StoreError::ChunkHash {
            dataset: self.path.to_vec(),
            chunk: index,
        }
    }

    pub(super) fn unhashable(&self, index: u64, error: HashError) -> StoreError {
        StoreError::Unhashable {
            dataset: self.path.to_vec(),
            chunk: index,
            error,
        }
    }

    /// Reads and decodes chunk `index`, whatever became of the file meanwhile.
    ///
    /// # Errors
    /// Where it is missing, of the wrong length, unreadable or damaged.
    pub(super) fn decode_now(&self, index: u64) -> Result<Arc<[u8]>, StoreError> {
        if self.is_plain() {
            let chunk = self.plain_chunk(index)?;
            let mut bytes = zeroed(self.chunk_bytes);
            let out = Arc::get_mut(&mut bytes).expect("just made");
            self.read_plain(index, chunk.address.0, &mut [IoSliceMut::new(out)])?;
            return Ok(bytes);
        }
        let pipeline = self.pipeline()?;
        let chunk = self.chunk(index)?;
        let most = self.chunk_bytes as u64 + self.chunk_bytes as u64 / 16 + FILTER_OVERHEAD_BYTES;
        if chunk.stored_bytes > most {
            return Err(self.wrong_length(index, chunk.stored_bytes));
        }
        let undecodable = |error| StoreError::ChunkDecode {
            dataset: self.path.to_vec(),
            chunk: index,
            error,
        };
        pipeline
            .check_stored(chunk.stored_bytes, chunk.filter_mask)
            .map_err(undecodable)?;
        let stored_bytes =
            usize::try_from(chunk.stored_bytes).expect("not much more than a chunk's length");
        SCRATCH.with_borrow_mut(|(stored, scratch)| {
            stored.resize(stored_bytes, 0);
            self.file
                .source
                .read_exact_at(
                    stored,
                    self.file.h5.base_address().saturating_add(chunk.address.0),
                )
                .map_err(|error| self.unreadable(index, error))?;
            let mut bytes = zeroed(self.chunk_bytes);
            let out = Arc::get_mut(&mut bytes).expect("just made");
            pipeline
                .decode_into(stored, chunk.filter_mask, out, scratch)
                .map_err(undecodable)?;
            Ok(bytes)
        })
    }

    /// Whether the part of chunk `index` that lies within the shape of `dataset`, when it is at `cell` of its grid, is nothing
    /// but fill value.
    ///
    /// # Errors
    /// As for [`RawData::decode`].
    pub(crate) fn is_fill(
        &self,
        index: u64,
        dataset: &DatasetHeader,
        cell: u64,
    ) -> Result<bool, StoreError> {
        let extent = extent_of(cell, dataset.dataspace.shape(), &self.chunk_shape);
        let zeros = vec![0; self.header.datatype.size];
        let fill = dataset.fill_value.as_deref().unwrap_or(&zeros);
        // The part is an array of its own, whose only chunk is the stored one; its rows are whole elements.
        let Some(grid) = ChunkGrid::new(&extent, &self.chunk_shape, fill.len() as u64) else {
            return Ok(false);
        };
        let chunk = self.decode(index, &extent, self.usual_proof())?;
        let mut all_fill = true;
        for overlap in grid.overlaps(
            0,
            usize::try_from(grid.len_bytes()).expect("no longer than a chunk"),
        ) {
            overlap.for_each_row(&mut |in_chunk, _| {
                let start = usize::try_from(in_chunk).expect("within a chunk in memory");
                let row = &chunk[start..start + overlap.row_bytes];
                all_fill &= row.chunks_exact(fill.len()).all(|element| element == fill);
            });
        }
        Ok(all_fill)
    }

    fn wrong_length(&self, index: u64, got_bytes: u64) -> StoreError {
        StoreError::ChunkLength {
            dataset: self.path.to_vec(),
            chunk: index,
            want_bytes: self.chunk_bytes as u64,
            got_bytes,
        }
    }

    fn unreadable(&self, index: u64, error: crate::source::SourceError) -> StoreError {
        StoreError::ChunkRead {
            dataset: self.path.to_vec(),
            chunk: index,
            error,
        }
    }
}

/// The part, in elements, of the chunk at `cell` of an array's grid that lies within the array. The cell must be one of the grid.
pub(crate) fn extent_of(cell: u64, shape: &[u64], chunk_shape: &[u64]) -> Vec<u64> {
    let mut rest = cell;
    let mut extent = shape.to_vec();
    for (extent, &chunk) in extent.iter_mut().zip(chunk_shape).rev() {
        let cells = extent.div_ceil(chunk);
        *extent = chunk.min(*extent - rest % cells * chunk);
        rest /= cells;
    }
    extent
}

/// Where raw data of the dataset at `path` is in the file.
pub(crate) fn raw_data_path(path: &[u8]) -> Vec<u8> {
    [b"/_version_data/", path, b"/raw_data"].concat()
}

/// The dataset whose raw data is at `path` in the file.
pub(crate) fn dataset_of_raw_data(path: &[u8]) -> Option<&[u8]> {
    path.strip_prefix(b"/_version_data/")?
        .strip_suffix(b"/raw_data")
}

fn zeroed(len_bytes: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, len_bytes).collect()
}
