//! Chunk maps that were decoded, kept for whoever needs one again: the next look at a dataset, the commit that changes it, the version
//! that was just made of it.
//!
//! A map is known by the place, length and checksum of its block, together with the epoch of the raw data: states of the file share an
//! epoch only as long as versions are added alone ([`Snapshot::extends`](super::snapshot::Snapshot::extends)), and while a version is
//! there its block is not written over. A map is put here only once the file was found unchanged after it was read, or was locked while
//! its block was written.

use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::tree::MappingPlace;
use crate::h5::Address;
use crate::h5::mapping::ChunkMap;

/// Bytes of maps that are kept: four million cells of the usual form.
const CAPACITY_BYTES: u64 = 16 << 20;
/// Bytes that an entry takes beside its map, roughly.
const ENTRY_OVERHEAD_BYTES: u64 = 256;
/// What a map is taken to be when the table is laid out; it grows as needed.
const TYPICAL_MAP_BYTES: u64 = 16 << 10;

/// Which mappings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MapKey {
    /// Of the raw data ([`RawData::epoch`](super::raw_data::RawData::epoch)).
    epoch: u64,
    heap: Address,
    index: u32,
    len_bytes: u64,
    checksum: u32,
    /// Of the dataset, in elements.
    shape: Box<[u64]>,
}

impl MapKey {
    /// The mappings at `place` of a dataset of that shape, whose raw data has that epoch.
    pub(crate) fn new(epoch: u64, place: &MappingPlace, shape: &[u64]) -> Self {
        Self {
            epoch,
            heap: place.heap,
            index: place.index,
            len_bytes: place.len_bytes,
            checksum: place.checksum,
            shape: shape.into(),
        }
    }
}

#[derive(Debug, Clone)]
struct ByLength;

impl Weighter<MapKey, Arc<ChunkMap>> for ByLength {
    fn weight(&self, _key: &MapKey, map: &Arc<ChunkMap>) -> u64 {
        map.heap_bytes() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// The cache.
#[derive(Debug)]
pub(crate) struct MapCache {
    maps: Cache<MapKey, Arc<ChunkMap>, ByLength>,
}

impl MapCache {
    /// An empty cache.
    pub(crate) fn new() -> Self {
        let entries = usize::try_from(CAPACITY_BYTES / TYPICAL_MAP_BYTES).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            // Of several, each would hold no map that is larger than its part.
            .shards(1)
            .estimated_items_capacity(entries)
            .weight_capacity(CAPACITY_BYTES)
            .build()
            .expect("both capacities are given");
        Self {
            maps: Cache::with_options(
                options,
                ByLength,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
        }
    }

    pub(crate) fn get(&self, key: &MapKey) -> Option<Arc<ChunkMap>> {
        self.maps.get(key)
    }

    pub(crate) fn insert(&self, key: MapKey, map: Arc<ChunkMap>) {
        self.maps.insert(key, map);
    }
}
