//! Decoded chunks, shared by all versions and bounded in bytes.

use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::StoreError;

/// Which stored chunk, in which state of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkKey {
    /// The raw data, as long as none of its chunks can have moved ([`super::raw_data::RawData::epoch`]).
    pub(crate) epoch: u64,
    /// Number of the chunk in raw data.
    pub(crate) index: u64,
    /// Stands for the part of the chunk that its hash proved right; 0 for all of it, or where no proof was needed.
    pub(crate) proven_part: u64,
}

/// Bytes that an entry takes beside its content, roughly.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

#[derive(Debug, Clone)]
struct ByLength;

impl Weighter<ChunkKey, Arc<[u8]>> for ByLength {
    fn weight(&self, _key: &ChunkKey, chunk: &Arc<[u8]>) -> u64 {
        chunk.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// The cache. Who asks for a chunk that another thread is decoding waits for it.
#[derive(Debug)]
pub(crate) struct ChunkCache {
    chunks: Cache<ChunkKey, Arc<[u8]>, ByLength>,
}

impl ChunkCache {
    /// An empty cache for at most `capacity_bytes`.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        /// What a chunk is taken to be when the table is laid out; it grows as needed.
        const TYPICAL_CHUNK_BYTES: u64 = 1 << 18;
        /// No chunk is kept that is longer than a shard, so they are few: a lock is held for less than a microsecond, and
        /// decoding takes hundreds.
        const SHARDS: usize = 2;
        let entries = usize::try_from(capacity_bytes / TYPICAL_CHUNK_BYTES).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(entries.clamp(16, 1 << 20))
            .weight_capacity(capacity_bytes)
            .build()
            .expect("both capacities are given");
        Self {
            chunks: Cache::with_options(
                options,
                ByLength,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
        }
    }

    /// The chunk, if it is there.
    pub(crate) fn get(&self, key: ChunkKey) -> Option<Arc<[u8]>> {
        self.chunks.get(&key)
    }

    /// The chunk, decoded by `decode` where it is not there.
    pub(crate) fn get_or_decode(
        &self,
        key: ChunkKey,
        decode: impl FnOnce() -> Result<Arc<[u8]>, StoreError>,
    ) -> Result<Arc<[u8]>, StoreError> {
        self.chunks.get_or_insert_with(&key, decode)
    }
}
