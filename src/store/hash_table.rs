//! The hash table of a dataset path: what each stored chunk has to hash to.
//!
//! A table only grows while versions are added, by a commit of this process for sure: it writes rows behind those that count, and then how
//! many count ([`write_rows`](super::commit)). So what was read of it before such a commit is kept, in runs that the tables of several
//! states share, and only the rows behind are read. After a change by another program, which may have made the table anew in its old
//! place, all of it is read again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::StoreError;
use super::chunk_hash::ChunkHash;
use super::file_state::{FileState, new_epoch};
use super::history::integer_of;
use super::raw_data::{Earlier, RawData};
use crate::h5::{self, Address, ByteOrder, Class, Datatype, Member, ObjectHeader};

/// Stands, to the Python library too, for a stored chunk whose hash is not known.
pub(super) const NO_HASH: ChunkHash = [0; 32];

/// What the table says of one stored chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashedChunk {
    /// Of its elements within its extent ([`super::chunk_hash::hash_chunk`]).
    pub(crate) hash: ChunkHash,
    /// Its extent along axis 0; along the others it may be shorter than the chunk too, which the table does not say.
    pub(crate) rows: u64,
}

/// Chunks by their number, none twice.
type Run = Vec<(u64, HashedChunk)>;

/// `/_version_data/PATH/hash_table`, as one state of the file has it.
#[derive(Debug, Default)]
pub(crate) struct HashTable {
    /// No chunk is in two of them; each is longer than the next one, so that they are few.
    runs: Vec<Arc<Run>>,
    /// How many rows count (`largest_index`).
    pub(super) rows: u64,
    /// The hashes alone, sorted, once they were asked for.
    by_hash: OnceLock<Vec<ChunkHash>>,
}

/// Tells most chunks apart from the wanted ones by two bytes of their hash.
struct Sieve {
    bits: Vec<u64>,
}

impl Sieve {
    fn new<'h>(wanted: impl IntoIterator<Item = &'h ChunkHash>) -> Self {
        let mut bits = vec![0; (1 << 16) / 64];
        for hash in wanted {
            let (word, bit) = Self::place(hash);
            bits[word] |= bit;
        }
        Self { bits }
    }

    fn place(hash: &ChunkHash) -> (usize, u64) {
        let key = u16::from_le_bytes([hash[0], hash[1]]);
        (usize::from(key / 64), 1 << (key % 64))
    }

    fn may_hold(&self, hash: &ChunkHash) -> bool {
        let (word, bit) = Self::place(hash);
        self.bits[word] & bit != 0
    }
}

/// Where the two members of a row are.
#[derive(Debug)]
struct RowForm {
    hash: usize,
    shape: usize,
}

impl HashTable {
    /// Reads the table at `address` of the dataset at `path`, in whose raw data a chunk has `chunk_rows` rows. Rows beyond
    /// `largest_index` are of a commit that was never finished, and do not count. Those that `earlier` has, of a state to which this one only
    /// adds rows, are not read.
    ///
    /// # Errors
    /// Damage of the dataset or of a chunk of it; [`StoreError::HashTable`] where its type, its attribute or a row is not that of a hash
    /// table, or two rows contradict each other.
    pub(crate) fn read(
        file: &Arc<FileState>,
        version: &[u8],
        path: &[u8],
        address: Address,
        chunk_rows: u64,
        earlier: Option<&Self>,
    ) -> Result<Self, StoreError> {
        let rows = HashRows::open(file, version, path, address, chunk_rows)?;
        let earlier = earlier.filter(|earlier| earlier.rows <= rows.len);
        let rows_before = earlier.map_or(0, |earlier| earlier.rows);
        let mut chunks = Vec::new();
        for part in rows_before / rows.rows_per_part()..rows.parts() {
            for (number, entry) in rows.read_part(part)? {
                if number >= rows_before {
                    chunks.push(
                        entry.ok_or_else(|| wrong(path, "rows that are not those of one chunk"))?,
                    );
                }
            }
        }
        Self::of_rows(chunks, rows.len, earlier)
            .ok_or_else(|| wrong(path, "two hashes for one chunk"))
    }

    /// The table of `rows` rows that say this of stored chunks, by their numbers; `None` where two contradict each other.
    pub(super) fn from_rows(chunks: Vec<(u64, HashedChunk)>, rows: u64) -> Option<Self> {
        Self::of_rows(chunks, rows, None)
    }

    /// The same where `earlier` has the rows before.
    fn of_rows(mut chunks: Run, rows: u64, earlier: Option<&Self>) -> Option<Self> {
        chunks.retain(|(_, hashed)| hashed.hash != NO_HASH);
        chunks.sort_unstable_by_key(|entry| entry.0);
        chunks.dedup();
        if chunks.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let mut runs = Vec::new();
        if let Some(earlier) = earlier {
            chunks.retain(|&(number, hashed)| earlier.get(number) != Some(hashed));
            if chunks.iter().any(|entry| earlier.get(entry.0).is_some()) {
                return None;
            }
            runs.clone_from(&earlier.runs);
        }
        chunks.shrink_to_fit();
        add_run(&mut runs, chunks);
        Some(Self {
            runs,
            rows,
            by_hash: OnceLock::new(),
        })
    }

    /// What stored chunk `index` has to hash to; `None` where the table does not have it.
    pub(crate) fn get(&self, index: u64) -> Option<HashedChunk> {
        self.runs.iter().find_map(|run| {
            let place = run.binary_search_by_key(&index, |entry| entry.0);
            Some(run[place.ok()?].1)
        })
    }

    /// The highest number of a stored chunk that it has.
    pub(super) fn last(&self) -> Option<u64> {
        let last = |run: &Arc<Run>| run.last().map(|entry| entry.0);
        self.runs.iter().filter_map(last).max()
    }

    /// For each hash that is `wanted` and here, the first stored chunk that has it.
    pub(super) fn first_of(&self, wanted: &HashSet<ChunkHash>) -> HashMap<ChunkHash, u64> {
        let mut found = HashMap::new();
        if wanted.is_empty() {
            return found;
        }
        let sieve = Sieve::new(wanted);
        for (number, hashed) in self.runs.iter().flat_map(|run| run.iter()) {
            if sieve.may_hold(&hashed.hash) && wanted.contains(&hashed.hash) {
                let first = found.entry(hashed.hash).or_insert(*number);
                *first = (*number).min(*first);
            }
        }
        found
    }

    /// Whether a chunk of that hash is stored, under whatever number. A table that was rebuilt names one of several equal chunks.
    pub(crate) fn has(&self, hash: &ChunkHash) -> bool {
        let sorted = self.by_hash.get_or_init(|| {
            let mut hashes: Vec<_> = self
                .runs
                .iter()
                .flat_map(|run| run.iter().map(|entry| entry.1.hash))
                .collect();
            hashes.sort_unstable();
            hashes
        });
        sorted.binary_search(hash).is_ok()
    }

    /// All that it has, by number of the stored chunk.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> Vec<(u64, HashedChunk)> {
        let mut chunks: Vec<_> = self
            .runs
            .iter()
            .flat_map(|run| run.iter().copied())
            .collect();
        chunks.sort_unstable_by_key(|entry| entry.0);
        chunks
    }
}

/// Adds `chunks`, which are in none of the runs. Runs that are no longer than what comes behind them are made one with it, so that each
/// chunk is copied a few times at most however often a table grows.
fn add_run(runs: &mut Vec<Arc<Run>>, chunks: Run) {
    if chunks.is_empty() {
        return;
    }
    let mut last = chunks;
    while let Some(run) = runs.pop_if(|run| run.len() <= 2 * last.len()) {
        last.extend_from_slice(&run);
        last.sort_unstable_by_key(|entry| entry.0);
    }
    runs.push(Arc::new(last));
}

fn wrong(path: &[u8], what: &'static str) -> StoreError {
    StoreError::HashTable {
        dataset: path.to_vec(),
        what,
    }
}

/// The rows of a hash table as they are stored, a part at a time.
#[derive(Debug)]
pub(super) struct HashRows {
    table: RawData,
    form: RowForm,
    chunk_rows: u64,
    /// How many rows count.
    pub(super) len: u64,
}

impl HashRows {
    /// See [`HashTable::read`].
    ///
    /// # Errors
    /// Damage of the dataset; [`StoreError::HashTable`] where its type or its attribute is not that of a hash table.
    pub(super) fn open(
        file: &Arc<FileState>,
        version: &[u8],
        path: &[u8],
        address: Address,
        chunk_rows: u64,
    ) -> Result<Self, StoreError> {
        let own_path: Arc<[u8]> = [path, b"/hash_table"].concat().into();
        let table = RawData::open(
            file,
            version,
            &own_path,
            address,
            new_epoch(),
            None,
            Earlier::default(),
        )?;
        let form = RowForm::of(&table.header.datatype).ok_or_else(|| wrong(path, "its type"))?;
        let &[len] = table.header.dataspace.shape() else {
            return Err(wrong(path, "its number of axes"));
        };
        let len_used = largest_index(file, address)
            .map_err(|error| StoreError::RawData {
                dataset: own_path.to_vec(),
                error,
            })?
            .and_then(|index| u64::try_from(index).ok())
            .filter(|&index| index <= len)
            .ok_or_else(|| wrong(path, "its attribute largest_index"))?;
        Ok(Self {
            table,
            form,
            chunk_rows,
            len: len_used,
        })
    }

    /// In how many parts it is stored.
    pub(super) fn parts(&self) -> u64 {
        self.len.div_ceil(self.rows_per_part())
    }

    /// The parts that are in the file.
    ///
    /// # Errors
    /// Damage of the index of its chunks.
    pub(super) fn stored_parts(&self) -> Result<Vec<u64>, StoreError> {
        let parts = self.parts();
        let stored = self.table.table()?.stored().map(|(part, _)| part);
        Ok(stored.filter(|&part| part < parts).collect())
    }

    /// The rows of a part, each with its number; `None` for one that is not the row of a chunk.
    ///
    /// # Errors
    /// Damage of the part.
    pub(super) fn read_part(
        &self,
        part: u64,
    ) -> Result<impl Iterator<Item = (u64, Option<(u64, HashedChunk)>)>, StoreError> {
        let bytes = self.table.decode_unhashed(part)?;
        let row_bytes = self.table.header.datatype.size;
        let first = self.first_row(part);
        let rows = (first..self.len).take(bytes.len() / row_bytes);
        Ok(rows.enumerate().map(move |(at, number)| {
            let row = &bytes[at * row_bytes..(at + 1) * row_bytes];
            (number, self.form.decode(row, self.chunk_rows))
        }))
    }

    /// The first row of a part.
    pub(super) fn first_row(&self, part: u64) -> u64 {
        part.saturating_mul(self.rows_per_part())
    }

    fn rows_per_part(&self) -> u64 {
        self.table.chunk_shape[0]
    }
}

impl RowForm {
    /// `None` for a type that is not a compound of `hash` (32 numbers of a byte) and `shape` (2 little-endian ones of 8 bytes).
    fn of(datatype: &Datatype) -> Option<Self> {
        let Class::Compound { members } = &datatype.class else {
            return None;
        };
        let place = |name: &[u8], count: u64, size: usize| {
            let is_wanted = |member: &&Member| match &member.datatype.class {
                Class::Array { shape, base } => {
                    *shape == [count]
                        && base.size == size
                        && matches!(
                            base.class,
                            Class::Integer {
                                order: ByteOrder::Little,
                                ..
                            }
                        )
                }
                _ => false,
            };
            let member = members.iter().find(|member| member.name == name)?;
            Some(member).filter(is_wanted).map(|member| member.offset)
        };
        Some(Self {
            hash: place(b"hash", 32, 1)?,
            shape: place(b"shape", 2, 8)?,
        })
    }

    /// The number of a chunk and what is known of it; `None` where the rows are not the leading ones of one chunk.
    fn decode(&self, row: &[u8], chunk_rows: u64) -> Option<(u64, HashedChunk)> {
        let hash = row.get(self.hash..)?.first_chunk()?;
        let (ends, _) = row.get(self.shape..)?.as_chunks();
        let [start, stop] = [ends.first()?, ends.get(1)?].map(|end| u64::from_le_bytes(*end));
        let rows = stop.checked_sub(start)?;
        if start.checked_rem(chunk_rows)? != 0 || rows == 0 || rows > chunk_rows {
            return None;
        }
        Some((start / chunk_rows, HashedChunk { hash: *hash, rows }))
    }
}

/// The attribute that says how many rows count.
fn largest_index(file: &FileState, address: Address) -> Result<Option<i64>, h5::H5Error> {
    let reader = file.h5.reader();
    let header = ObjectHeader::read(&reader, address)?;
    let attribute = h5::attribute_named(&reader, &header, b"largest_index")?;
    Ok(attribute.as_ref().and_then(integer_of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::fixture::Fixture;
    use crate::store::dataset::Shared;
    use crate::store::file_state::SharedStates;
    use crate::store::raw_data::Proof;
    use crate::store::snapshot::Snapshot;
    use crate::store::tree::ChildKind;

    /// Files as versioned-hdf5 writes them.
    const PROGRAM: &str = r#"
import h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File

rng = np.random.default_rng(3)
for name in ("earliest", "latest"):
    with h5py.File(name + ".h5", "w", libver=name) as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("r1") as group:
            for code in ("<i4", ">i4", "<f8", ">f2", "?", "<c16", "S5", "u1"):
                data = rng.integers(0, 99, 1000).astype(code)
                group.create_dataset("types/" + np.dtype(code).name + code[0].replace("<", "l").replace(">", "b"), data=data, dtype=code, chunks=(128,))
            group.create_dataset("two", data=rng.standard_normal((30, 25)), chunks=(8, 7), compression="gzip")
            group.create_dataset("three", data=rng.integers(0, 9, (7, 8, 9)), chunks=(3, 3, 4), shuffle=True)
            words = np.array(["", "a", "\u017c\u00f3\u0142w", "x" * 5000] * 20, dtype=object)
            group.create_dataset("text", data=words, dtype=h5py.string_dtype(), chunks=(32,))
            pairs = np.zeros(10, dtype=[("a", "<i2"), ("b", "<f8")])
            pairs["a"] = np.arange(10)
            group.create_dataset("pairs", data=pairs, chunks=(4,))
        with versions.stage_version("r2") as group:
            group["two"][3, 4] = 7
            group["two"].resize((33, 25))
            group["text"][5] = "changed"
            group["three"].resize((7, 8, 5))
"#;

    /// Reads everything of the file by its hashes alone: how many datasets, and how many chunks their tables have.
    fn read_by_hashes(snapshot: Snapshot) -> (usize, usize) {
        let snapshot = Arc::new(snapshot);
        let workers = rayon::ThreadPoolBuilder::new().build().unwrap();
        let shared = Arc::new(Shared::new(1 << 12, workers));
        assert!(!snapshot.file.is_complete());
        let (mut datasets, mut chunks) = (0, 0);
        for (index, _) in snapshot.history().iter() {
            let tree = snapshot.tree(index).unwrap();
            for (child, _) in tree.datasets() {
                assert!(matches!(child.kind, ChildKind::Dataset(Ok(_))));
                let dataset = snapshot.dataset(&shared, index, &child.path).unwrap();
                let len_bytes = usize::try_from(dataset.len_bytes().unwrap()).unwrap();
                let mut bytes = vec![0; len_bytes];
                let count = dataset.read_at(0, &mut bytes).unwrap();
                assert_eq!(count, len_bytes);
                let raw_data = snapshot.raw_data(index, &child.path).unwrap().unwrap();
                chunks += raw_data.known_hashes().unwrap().chunks().len();
                datasets += 1;
            }
        }
        (datasets, chunks)
    }

    #[test]
    fn every_chunk_that_the_library_wrote_has_its_hash() {
        let files = Fixture::make(PROGRAM);
        for name in ["earliest.h5", "latest.h5"] {
            let (datasets, chunks) = read_by_hashes(
                Snapshot::read(&files.path(name), &SharedStates::default()).unwrap(),
            );
            assert_eq!(datasets, 24, "{name}");
            assert!(chunks > 200, "{name}: {chunks}");
        }
    }

    #[test]
    fn a_chunk_that_is_not_its_hash_is_an_error() {
        let files = Fixture::make(PROGRAM);
        let path = files.path("latest.h5");
        let snapshot = Arc::new(Snapshot::read(&path, &SharedStates::default()).unwrap());
        let (index, _) = snapshot.history().iter().next().unwrap();
        let name: Arc<[u8]> = Arc::from(&b"pairs"[..]);
        let raw_data = snapshot.raw_data(index, &name).unwrap().unwrap();
        let chunk = raw_data.chunk(1).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[usize::try_from(chunk.address.0).unwrap()] ^= 1;
        let damaged = files.path("damaged.h5");
        std::fs::write(&damaged, bytes).unwrap();
        let snapshot = Arc::new(Snapshot::read(&damaged, &SharedStates::default()).unwrap());
        let raw_data = snapshot.raw_data(index, &name).unwrap().unwrap();
        let decode = |number, rows| raw_data.decode(number, &[rows], Proof::Hash);
        assert!(decode(0, 4).is_ok());
        let error = decode(1, 4).unwrap_err().to_string();
        assert_eq!(error, "dataset pairs: chunk 1 is not what its hash says");
        // The last one has two rows.
        assert!(decode(2, 2).is_ok());
        assert!(matches!(decode(2, 4), Err(StoreError::ChunkHash { .. })));
        assert!(matches!(decode(3, 4), Err(StoreError::ChunkMissing { .. })));
        assert!(raw_data.decode(1, &[4], Proof::State).is_ok());
    }

    #[test]
    fn rows_are_those_of_one_chunk() {
        let form = RowForm { hash: 0, shape: 32 };
        let row = |start: u64, stop: u64| {
            let mut row = vec![7; 32];
            row.extend(start.to_le_bytes());
            row.extend(stop.to_le_bytes());
            form.decode(&row, 8)
        };
        let hashed = |rows| HashedChunk {
            hash: [7; 32],
            rows,
        };
        assert_eq!(row(0, 8), Some((0, hashed(8))));
        assert_eq!(row(16, 19), Some((2, hashed(3))));
        for (start, stop) in [(1, 8), (8, 8), (8, 7), (0, 9), (0, u64::MAX)] {
            assert_eq!(row(start, stop), None);
        }
        assert_eq!(form.decode(&[0; 47], 8), None);
        assert_eq!(form.decode(&[0; 48], 0), None);
    }
}
