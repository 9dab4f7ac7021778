//! The stored chunks of one dataset path: each is decoded and hashed once, however many versions map it.

use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;

use super::finding::Damage;
use super::mappings::Mapped;
use crate::codec::CodecError;
use crate::h5::{ChunkTable, StoredChunk};
use crate::store::chunk_hash::HashError;
use crate::store::hash_table::{HashTable, HashedChunk};
use crate::store::raw_data::{RawData, extent_of};
use crate::store::{ElementBox, StoreError, Unverifiable};

/// So many damaged chunks of a dataset are named; all are counted.
const MOST_DAMAGED: usize = 20_000;
/// Nobody maps the chunk.
const UNCLAIMED: u32 = u32::MAX;
/// All of the chunk is mapped.
const WHOLE: u32 = 0;

/// Which part of each stored chunk versions map.
#[derive(Debug)]
pub(super) struct Claims {
    /// Different extents, in elements; the first is that of a whole chunk.
    extents: Vec<Vec<u64>>,
    numbers: HashMap<Vec<u64>, u32>,
    /// By position of the chunk among those that are stored: the extent by which it was mapped first.
    first: Vec<u32>,
    /// Chunks that are mapped by other extents too.
    others: BTreeSet<(usize, u32)>,
}

impl Claims {
    /// No claim on any of `stored` chunks of `chunk_shape` elements.
    pub(super) fn new(chunk_shape: &[u64], stored: usize) -> Self {
        Self {
            extents: vec![chunk_shape.to_vec()],
            numbers: HashMap::from([(chunk_shape.to_vec(), WHOLE)]),
            first: vec![UNCLAIMED; stored],
            others: BTreeSet::new(),
        }
    }

    /// Adds what a dataset maps.
    pub(super) fn add(&mut self, mapped: &Mapped, table: &ChunkTable) {
        let shape = &mapped.shape;
        let has_edges = shape
            .iter()
            .zip(&self.extents[0])
            .any(|(all, chunk)| all % chunk != 0);
        for (cell, chunk) in mapped.cells() {
            let Some(position) = table.position(chunk) else {
                continue;
            };
            let number = if has_edges {
                let extent = extent_of(cell, shape, &self.extents[0]);
                self.number(extent)
            } else {
                WHOLE
            };
            match &mut self.first[position] {
                first if *first == UNCLAIMED => *first = number,
                first if *first != number => {
                    self.others.insert((position, number));
                }
                _ => {}
            }
        }
    }

    fn number(&mut self, extent: Vec<u64>) -> u32 {
        if let Some(&number) = self.numbers.get(&extent) {
            return number;
        }
        let number =
            u32::try_from(self.extents.len()).expect("fewer extents than edge cells in memory");
        self.extents.push(extent.clone());
        self.numbers.insert(extent, number);
        number
    }

    /// The extents by which the stored chunk at `position` is mapped.
    fn of(&self, position: usize) -> impl Iterator<Item = &[u64]> {
        let first = Some(self.first[position]).filter(|&number| number != UNCLAIMED);
        let others = self.others.range((position, 0)..=(position, u32::MAX));
        first
            .into_iter()
            .chain(others.map(|&(_, number)| number))
            .filter_map(|number| Some(self.extents.get(usize::try_from(number).ok()?)?.as_slice()))
    }
}

/// What was found of the chunks of one dataset path.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Chunks that are what their hashes say.
    pub(super) right: u64,
    /// Among them those whose hash is that of another stored chunk.
    pub(super) repeated: u64,
    /// Chunks that no version maps, among the right ones.
    pub(super) unmapped: u64,
    /// Chunks that no version maps, and of which it is not known how much was hashed.
    pub(super) unmapped_unknown: u64,
    /// Chunks that may differ from their hashes, and why.
    pub(super) unverifiable: Option<(Unverifiable, u64)>,
    /// A form of a filter that is not supported.
    pub(super) unsupported: Option<CodecError>,
    /// Chunks without version and hash, and their bytes.
    pub(super) garbage: (u64, u64),
    /// By number of the chunk.
    pub(super) damaged: Vec<(u64, LostChunk)>,
    /// Damaged chunks that are not among them.
    pub(super) omitted: u64,
}

/// What is wrong with a stored chunk.
#[derive(Debug, Clone)]
pub(super) struct LostChunk {
    pub(super) damage: Damage,
    /// The extents by which it is wrongly mapped, where it is sound by others; empty where all of it is lost.
    parts: Vec<Vec<u64>>,
}

impl From<Damage> for LostChunk {
    fn from(damage: Damage) -> Self {
        Self {
            damage,
            parts: Vec::new(),
        }
    }
}

impl LostChunk {
    /// Whether elements that are mapped to it are lost.
    pub(super) fn spoils(&self, elements: &ElementBox) -> bool {
        let is_like = |extent: &Vec<u64>| {
            let axes = elements.axes.iter().map(|(start, end)| end - start);
            axes.eq(extent.iter().copied())
        };
        self.parts.is_empty() || self.parts.iter().any(is_like)
    }
}

enum Outcome {
    Right,
    Repeated,
    Unverifiable(Unverifiable),
    /// There is no hash table that could be read.
    Unhashed,
    Unmapped,
    UnmappedUnknown,
    Unsupported(CodecError),
    Garbage(u64),
    Damaged(LostChunk),
}

impl Tally {
    fn add(mut self, index: u64, outcome: Outcome) -> Self {
        match outcome {
            Outcome::Right => self.right += 1,
            Outcome::Repeated => {
                self.right += 1;
                self.repeated += 1;
            }
            Outcome::Unmapped => {
                self.right += 1;
                self.unmapped += 1;
            }
            Outcome::UnmappedUnknown => self.unmapped_unknown += 1,
            Outcome::Unverifiable(reason) => {
                self.unverifiable.get_or_insert((reason, 0)).1 += 1;
            }
            Outcome::Unhashed => {}
            Outcome::Unsupported(error) => self.unsupported = Some(error),
            Outcome::Garbage(bytes) => {
                self.garbage = (self.garbage.0 + 1, self.garbage.1.saturating_add(bytes));
            }
            Outcome::Damaged(lost) if self.damaged.len() < MOST_DAMAGED => {
                self.damaged.push((index, lost));
            }
            Outcome::Damaged(_) => self.omitted += 1,
        }
        self
    }

    fn merge(mut self, other: Self) -> Self {
        self.right += other.right;
        self.repeated += other.repeated;
        self.unmapped += other.unmapped;
        self.unmapped_unknown += other.unmapped_unknown;
        if let Some((reason, chunks)) = other.unverifiable {
            self.unverifiable.get_or_insert((reason, 0)).1 += chunks;
        }
        self.unsupported = self.unsupported.or(other.unsupported);
        self.garbage = (
            self.garbage.0 + other.garbage.0,
            self.garbage.1.saturating_add(other.garbage.1),
        );
        let room = MOST_DAMAGED.saturating_sub(self.damaged.len());
        self.omitted += other.omitted + other.damaged.len().saturating_sub(room) as u64;
        self.damaged.extend(other.damaged.into_iter().take(room));
        self
    }
}

/// The stored chunks of one dataset path, and all that is said of them.
pub(super) struct StoredChunks<'c> {
    pub(super) raw_data: &'c RawData,
    pub(super) table: &'c ChunkTable,
    /// `None` where it cannot be read.
    pub(super) hashes: Option<&'c HashTable>,
    pub(super) claims: &'c Claims,
    /// Whether chunks that nobody maps are left out.
    pub(super) mapped_only: bool,
    /// Why chunks may differ from their hashes, if they may.
    pub(super) unverifiable: Option<Unverifiable>,
}

impl StoredChunks<'_> {
    /// Reads and hashes them all, in the order of their places in the file, on as many threads as the pool has that this is called
    /// in. `progress` is told of the stored bytes of each.
    pub(super) fn check(&self, progress: &(dyn Fn(u64) + Sync)) -> Tally {
        let mut chunks: Vec<(usize, u64, StoredChunk)> = self
            .table
            .stored()
            .enumerate()
            .map(|(position, (index, chunk))| (position, index, chunk))
            .filter(|(position, ..)| !self.mapped_only || self.claims.first[*position] != UNCLAIMED)
            .collect();
        chunks.sort_unstable_by_key(|(.., chunk)| chunk.address);
        let mut tally = chunks
            .par_iter()
            .fold(Tally::default, |tally, &(position, index, chunk)| {
                let outcome = self.check_one(position, index, chunk);
                progress(chunk.stored_bytes);
                tally.add(index, outcome)
            })
            .reduce(Tally::default, Tally::merge);
        tally.damaged.sort_unstable_by_key(|entry| entry.0);
        tally
    }

    fn check_one(&self, position: usize, index: u64, stored: StoredChunk) -> Outcome {
        let wanted = self.hashes.and_then(|table| table.get(index));
        let mut extents = self.claims.of(position).peekable();
        let is_mapped = extents.peek().is_some();
        if !is_mapped && wanted.is_none() {
            return Outcome::Garbage(stored.stored_bytes);
        }
        let chunk = match self.raw_data.decode_now(index) {
            Ok(chunk) => chunk,
            Err(StoreError::ChunkDecode {
                error: error @ CodecError::UnsupportedForm { .. },
                ..
            }) => return Outcome::Unsupported(error),
            Err(error) => return Outcome::Damaged(Damage::of_chunk(error).into()),
        };
        if !is_mapped && let Some(wanted) = wanted {
            return self.check_unmapped(&chunk, wanted);
        }
        let mut outcome = Outcome::Right;
        let (mut parts, mut damage, mut is_lost) = (Vec::new(), None, true);
        for extent in extents {
            match self.check_part(&chunk, extent, wanted) {
                Outcome::Damaged(lost) => {
                    damage.get_or_insert(lost.damage);
                    parts.push(extent.to_vec());
                    continue;
                }
                Outcome::Right => {}
                other => outcome = other,
            }
            is_lost = false;
        }
        match damage {
            Some(damage) if is_lost => Outcome::Damaged(damage.into()),
            Some(damage) => Outcome::Damaged(LostChunk { damage, parts }),
            None => outcome,
        }
    }

    /// A chunk of which the part within `extent` is mapped.
    fn check_part(&self, chunk: &[u8], extent: &[u64], wanted: Option<HashedChunk>) -> Outcome {
        let hash = match self.raw_data.hash(extent, chunk) {
            Ok(hash) => hash,
            Err(HashError::Type) => {
                let reason = self.unverifiable.unwrap_or(Unverifiable::Pointers);
                return Outcome::Unverifiable(reason);
            }
            Err(error) => return Outcome::Damaged(Damage::ChunkPointers(error).into()),
        };
        let mapped_rows = extent.first().copied().unwrap_or(0);
        let damage = match (wanted, self.hashes) {
            (_, None) => return Outcome::Unhashed,
            (Some(wanted), _) if wanted.hash == hash && wanted.rows == mapped_rows => {
                return Outcome::Right;
            }
            (None, Some(table)) if table.has(&hash) => return Outcome::Repeated,
            (Some(wanted), _) if wanted.rows != mapped_rows => Damage::ChunkRows {
                mapped_rows,
                hashed_rows: wanted.rows,
            },
            (Some(_), _) => Damage::ChunkHash,
            (None, _) => Damage::ChunkUnknown,
        };
        match self.unverifiable {
            Some(reason) => Outcome::Unverifiable(reason),
            None => Outcome::Damaged(damage.into()),
        }
    }

    /// A chunk that no version maps. How many of its rows were hashed is known, but not how much of the other axes.
    fn check_unmapped(&self, chunk: &[u8], wanted: HashedChunk) -> Outcome {
        let mut extent = self.raw_data.chunk_shape.clone();
        extent[0] = wanted.rows;
        match self.check_part(chunk, &extent, Some(wanted)) {
            Outcome::Right => Outcome::Unmapped,
            Outcome::Damaged(lost)
                if matches!(lost.damage, Damage::ChunkHash)
                    && extent[1..].iter().any(|&axis| axis > 1) =>
            {
                Outcome::UnmappedUnknown
            }
            other => other,
        }
    }
}
