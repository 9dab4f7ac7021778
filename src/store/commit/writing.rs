//! Writing what was settled: chunks, hash tables, virtual datasets, groups, and the version's own attributes.

use chrono::{DateTime, Utc};

use super::attributes::{self, AttributePlan};
use super::hashing::{Hashed, for_each_batch};
use super::plan::Plan;
use super::text_chunks::TextChunks;
use crate::codec::Scratch;
use crate::h5::writer::{HeapPlace, LibraryWriter, NewChunked, NewVirtual, TypeSource, WriteError};
use crate::h5::{Address, ByteOrder, Class, Datatype, Filter, Member};
use crate::store::description::{boolean, integer};
use crate::store::hash_table::NO_HASH;
use crate::store::raw_data::raw_data_path;
use crate::store::typed_value::{Extent, TypedData, TypedValue};
use crate::store::{CommitError, CommitProgress, time};

/// Rows of a chunk of a hash table (`DEFAULT_CHUNK_SIZE` of the library's `backend.py`).
const TABLE_CHUNK_ROWS: u64 = 4096;
/// The LZF filter, and what h5py gives it for those chunks (`lzf_filter.h`).
const LZF: (u16, [u32; 3]) = (32000, [4, 0x105, 48 * 4096]);

/// Where all versions are.
pub(super) const VERSIONS: &[u8] = b"/_version_data/versions";

/// An error of the library's part, or of what it is given meanwhile.
#[derive(Debug)]
pub(super) enum EditError {
    Write(WriteError),
    Commit(CommitError),
}

/// Where the hash table of the dataset at `path` is.
fn hash_table_path(path: &[u8]) -> Vec<u8> {
    [b"/_version_data/", path, b"/hash_table"].concat()
}

/// Where the object at `path` of a version is.
pub(super) fn object_path(version: &[u8], path: &[u8]) -> Vec<u8> {
    [VERSIONS, version, path].join(&b'/')
}

pub(super) fn text(value: &[u8]) -> TypedValue {
    TypedValue {
        datatype: Datatype {
            size: 16,
            class: Class::VlenString {
                padding: 0,
                utf8: true,
            },
        },
        extent: Extent::Scalar,
        data: TypedData::Texts(vec![value.to_vec()]),
    }
}

pub(super) fn whole_number(value: i64) -> TypedValue {
    TypedValue {
        datatype: integer(8, true, ByteOrder::Little),
        extent: Extent::Scalar,
        data: TypedData::Bytes(value.to_le_bytes().to_vec()),
    }
}

fn truth(value: bool) -> TypedValue {
    TypedValue {
        datatype: boolean(),
        extent: Extent::Scalar,
        data: TypedData::Bytes(vec![u8::from(value)]),
    }
}

fn extents(shape: &[u64]) -> TypedValue {
    TypedValue {
        datatype: integer(8, true, ByteOrder::Little),
        extent: Extent::Simple(vec![shape.len() as u64]),
        data: TypedData::Bytes(shape.iter().flat_map(|axis| axis.to_le_bytes()).collect()),
    }
}

/// The type of a row of a hash table.
fn row_type() -> Datatype {
    let array = |count: u64, base: Datatype| Datatype {
        size: base.size * usize::try_from(count).expect("a small number"),
        class: Class::Array {
            shape: vec![count],
            base: Box::new(base),
        },
    };
    let member = |name: &[u8], offset, datatype| Member {
        name: name.to_vec(),
        offset,
        datatype,
    };
    Datatype {
        size: 48,
        class: Class::Compound {
            members: vec![
                member(b"hash", 0, array(32, integer(1, false, ByteOrder::Little))),
                member(b"shape", 32, array(2, integer(8, true, ByteOrder::Little))),
            ],
        },
    }
}

/// Makes the group of the version, not yet finished.
///
/// # Errors
/// [`WriteError`].
pub(super) fn begin_version(
    library: &mut LibraryWriter,
    name: &[u8],
    parent: &[u8],
) -> Result<Vec<u8>, WriteError> {
    let group = [VERSIONS, name].join(&b'/');
    library.create_group(&group)?;
    attributes::set(library, &group, b"prev_version", &text(parent))?;
    Ok(group)
}

/// Marks the version as finished.
///
/// # Errors
/// [`WriteError`].
pub(super) fn finish_version(
    library: &mut LibraryWriter,
    group: &[u8],
    timestamp: DateTime<Utc>,
    own: &AttributePlan,
) -> Result<(), WriteError> {
    attributes::set(library, group, b"committed", &truth(true))?;
    let timestamp = text(time::stored(timestamp).as_bytes());
    attributes::set(library, group, b"timestamp", &timestamp)?;
    own.write(library, group)
}

/// Stores the new chunks of a dataset and their hashes.
///
/// # Errors
/// [`EditError`].
pub(super) fn write_chunks(
    library: &mut LibraryWriter,
    plan: &Plan<'_>,
    hashed: &Hashed,
    texts: Option<TextChunks>,
    threads: usize,
    progress: &CommitProgress,
) -> Result<(), EditError> {
    let raw_path = raw_data_path(&plan.path);
    let table_path = hash_table_path(&plan.path);
    let filters = plan.header_filters();
    let (first, count) = (plan.next_chunk(), hashed.new_chunks.len() as u64);
    let rows_before = plan.stored.as_ref().map_or(0, |stored| stored.hashes.rows);
    let too_large = || {
        EditError::Write(WriteError::TooLarge {
            what: "the number of stored chunks",
            size: first.saturating_add(count),
        })
    };
    let mut shape = plan.chunk_shape.clone();
    shape[0] = first
        .checked_add(count)
        .and_then(|chunks| chunks.checked_mul(shape[0]))
        .filter(|&rows| i64::try_from(rows).is_ok())
        .ok_or_else(too_large)?;
    if plan.stored.is_none() {
        library.create_chunked(
            &raw_path,
            &NewChunked {
                datatype: TypeSource::Datatype(&plan.datatype),
                shape: &shape,
                chunk_shape: &plan.chunk_shape,
                fill_value: plan.fill.as_deref(),
                filters: &filters,
            },
        )?;
        attributes::set(library, &raw_path, b"chunks", &extents(&plan.chunk_shape))?;
        create_table(library, &table_path, count)?;
    }
    if count == 0 {
        return Ok(());
    }
    let mut raw_data = library.open_dataset(&raw_path)?;
    if plan.stored.is_some() {
        raw_data.set_shape(&shape)?;
    }
    let mut origin = vec![0; shape.len()];
    let mut write = |place: usize, (bytes, mask): &(Vec<u8>, u32)| -> Result<(), WriteError> {
        origin[0] = (first + place as u64) * plan.chunk_shape[0];
        raw_data.write_chunk(&origin, *mask, bytes)?;
        progress.has_stored(1);
        Ok(())
    };
    if let Some(texts) = texts {
        for (place, chunk) in texts.encoded.iter().enumerate() {
            write(place, chunk)?;
        }
    } else {
        // In the order of cells, in which they are read best.
        let mut places: Vec<usize> = (0..hashed.new_chunks.len()).collect();
        places.sort_unstable_by_key(|&place| hashed.new_chunks[place].cell);
        let cells: Vec<u64> = places
            .iter()
            .map(|&place| hashed.new_chunks[place].cell)
            .collect();
        let mut places = places.into_iter();
        for_each_batch(
            plan,
            &cells,
            threads,
            &|chunk, _| encode(plan, chunk),
            &mut |chunks| {
                let mut chunks = chunks.iter().zip(&mut places);
                chunks
                    .try_for_each(|(chunk, place)| write(place, chunk))
                    .map_err(EditError::Write)
            },
        )?;
    }
    write_rows(library, &table_path, plan, hashed, rows_before)?;
    Ok(())
}

/// Encodes a chunk for storing.
///
/// # Errors
/// [`CommitError::Encode`].
pub(super) fn encode(plan: &Plan<'_>, chunk: &[u8]) -> Result<(Vec<u8>, u32), CommitError> {
    thread_local! {
        static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
    }
    SCRATCH
        .with_borrow_mut(|scratch| plan.pipeline.encode(chunk, scratch))
        .map_err(|error| CommitError::Encode {
            dataset: plan.path.to_vec(),
            error,
        })
}

fn create_table(library: &mut LibraryWriter, path: &[u8], rows: u64) -> Result<(), WriteError> {
    let (id, parameters) = LZF;
    let lzf = Filter {
        id,
        flags: 1,
        name: None,
        parameters: parameters.to_vec(),
    };
    library.create_chunked(
        path,
        &NewChunked {
            datatype: TypeSource::Datatype(&row_type()),
            // The library makes it with one row before it knows of any.
            shape: &[rows.max(1)],
            chunk_shape: &[TABLE_CHUNK_ROWS],
            fill_value: None,
            filters: &[lzf],
        },
    )?;
    attributes::set(library, path, b"largest_index", &whole_number(0))
}

/// The stored chunks that the hash table does not have.
fn unlisted(plan: &Plan<'_>) -> impl Iterator<Item = u64> {
    let hashes = plan.stored.as_ref().map(|stored| &stored.hashes);
    (0..plan.next_chunk())
        .filter(move |&number| hashes.is_none_or(|hashes| hashes.get(number).is_none()))
}

fn write_rows(
    library: &mut LibraryWriter,
    path: &[u8],
    plan: &Plan<'_>,
    hashed: &Hashed,
    rows_before: u64,
) -> Result<(), WriteError> {
    let count = hashed.new_chunks.len() as u64;
    let first = plan.next_chunk().max(rows_before);
    let too_large = || WriteError::TooLarge {
        what: "the number of rows of a hash table",
        size: first.saturating_add(count),
    };
    let rows = first
        .checked_add(count)
        .and_then(|rows| i64::try_from(rows).ok())
        .ok_or_else(too_large)?;
    let mut bytes = Vec::with_capacity(hashed.new_chunks.len() * 48);
    // The library stores its next chunk under the number of rows, whatever is there: each stored chunk has to have one.
    for number in unlisted(plan).take(usize::try_from(first - rows_before).unwrap_or(usize::MAX)) {
        let start = number * plan.chunk_shape[0];
        bytes.extend_from_slice(&NO_HASH);
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&(start + plan.chunk_shape[0]).to_le_bytes());
    }
    for (number, chunk) in (plan.next_chunk()..).zip(&hashed.new_chunks) {
        let start = number * plan.chunk_shape[0];
        bytes.extend_from_slice(&chunk.hash);
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&(start + chunk.rows).to_le_bytes());
    }
    {
        let mut table = library.open_dataset(path)?;
        table.set_shape(&[rows.cast_unsigned()])?;
        table.write_rows(rows_before, &bytes)?;
    }
    attributes::set(library, path, b"largest_index", &whole_number(rows))
}

/// What a virtual dataset is made like.
pub(super) struct VirtualSpec<'v> {
    /// Path of its own, absolute.
    pub(super) path: &'v [u8],
    /// Path of the dataset whose raw data it maps, below a version.
    pub(super) source: &'v [u8],
    pub(super) shape: &'v [u64],
    pub(super) chunk_shape: &'v [u64],
    pub(super) fill: Option<&'v [u8]>,
}

/// Makes a virtual dataset, with the attributes of the format, but without its mappings: where its header is.
///
/// # Errors
/// [`WriteError`].
pub(super) fn create_virtual(
    library: &mut LibraryWriter,
    spec: &VirtualSpec<'_>,
) -> Result<Address, WriteError> {
    let raw_path = raw_data_path(spec.source);
    let header = library.create_virtual(
        spec.path,
        &NewVirtual {
            datatype: TypeSource::Of(&raw_path),
            shape: spec.shape,
            fill_value: spec.fill,
        },
    )?;
    attributes::set(library, spec.path, b"raw_data", &text(&raw_path))?;
    attributes::set(library, spec.path, b"chunks", &extents(spec.chunk_shape))?;
    Ok(header)
}

/// A virtual dataset that was made, and the mappings that it is still to be given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unmapped {
    pub(super) header: Address,
    pub(super) mappings: HeapPlace,
}

impl From<CommitError> for EditError {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}

impl From<WriteError> for EditError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}
