//! Where a chunked dataset's chunks are: every index structure of the format, read into one [`ChunkTable`].
//!
//! An index of old files (version 1 B-tree) has no checksum, so what it says is held against everything that is known: chunks lie
//! inside the file and the grid, none is there twice, and no two share bytes.

mod btree1;
mod elements;
mod extensible_array;
mod fixed_array;
mod table;

use std::ops::Range;

use super::btree2::BTree2;
use super::decoder::Decoder;
use super::{
    Address, ChunkIndexKind, DatasetHeader, Dataspace, H5Error, Layout, MetaReader, StoredChunk,
};

pub use table::ChunkTable;

use elements::ArrayOrder;
use table::{BeyondEnd, Collector};

const LAYOUT: &str = "data layout message";
const BTREE2: &str = "version 2 B-tree header";

/// What every index needs to know of its dataset.
struct Extent<'a> {
    /// Elements along each axis.
    shape: &'a [u64],
    /// Cells along each axis that the dataset can ever have; `None` is without limit.
    max_grid: Vec<Option<u64>>,
    /// Whether chunks went through filters.
    filtered: bool,
}

/// Reads the index of a chunked dataset in full: every chunk that was ever written.
///
/// # Errors
/// [`H5Error::Damaged`] where the index is not sound, or a chunk has no place in the grid, is there twice, or shares bytes with
/// another; [`crate::source::SourceError::BeyondEnd`] where a chunk is not in the file; [`H5Error::Unsupported`] for a dataset that is
/// not chunked.
pub fn read_chunk_index(
    reader: &MetaReader,
    dataset: &DatasetHeader,
) -> Result<ChunkTable, H5Error> {
    read_part(reader, dataset, btree1::ALL, BeyondEnd::Refused)
}

/// The same, with chunks that are not in the file, which cannot be read.
///
/// # Errors
/// As for [`read_chunk_index`], but for those.
pub fn read_cut_chunk_index(
    reader: &MetaReader,
    dataset: &DatasetHeader,
) -> Result<ChunkTable, H5Error> {
    read_part(reader, dataset, btree1::ALL, BeyondEnd::Kept)
}

/// Reads on the index of a dataset of which `earlier` is all that it had before chunks were added behind the last one, and none was moved.
///
/// # Errors
/// As for [`read_chunk_index`].
pub fn extend_chunk_index(
    reader: &MetaReader,
    dataset: &DatasetHeader,
    earlier: &ChunkTable,
) -> Result<ChunkTable, H5Error> {
    let behind = earlier.stored_end();
    match dataset.layout {
        Layout::Chunked {
            index: ChunkIndexKind::BTreeV1 { .. },
            ..
        } if behind > 0 && earlier.is_stacked() => {
            let more = read_part(reader, dataset, behind..btree1::ALL.end, BeyondEnd::Refused)?;
            if more.is_stacked() {
                return earlier.extended(&more);
            }
        }
        _ => {}
    }
    read_chunk_index(reader, dataset)
}

/// Reads the chunks of the `wanted` cells, or more. See [`btree1::read`] for which can be wanted.
fn read_part(
    reader: &MetaReader,
    dataset: &DatasetHeader,
    wanted: Range<u64>,
    beyond_end: BeyondEnd,
) -> Result<ChunkTable, H5Error> {
    let layout_error = |what| H5Error::Damaged {
        structure: LAYOUT,
        address: Address::UNDEFINED,
        what,
    };
    let Layout::Chunked {
        chunk_shape,
        element_bytes,
        dont_filter_partial_edge_chunks,
        index,
        ..
    } = &dataset.layout
    else {
        return Err(H5Error::Unsupported {
            structure: LAYOUT,
            address: Address::UNDEFINED,
            what: "the dataset has no chunks",
        });
    };
    let Dataspace::Simple { shape, max_shape } = &dataset.dataspace else {
        return Err(layout_error("a dataset with chunks has no axes"));
    };
    let chunk_bytes = chunk_shape
        .iter()
        .try_fold(*element_bytes, |n, &axis| n.checked_mul(axis))
        .filter(|&n| n > 0)
        .ok_or_else(|| layout_error("a chunk has no bytes, or more than 64 bits count"))?;
    let filtered = !dataset.filters.is_empty();
    let unfiltered_edges =
        (filtered && *dont_filter_partial_edge_chunks).then_some((&**shape, &**chunk_shape));
    let mut found = Collector::new(
        reader.bounds(),
        shape,
        chunk_shape,
        chunk_bytes,
        filtered,
        unfiltered_edges,
    )
    .ok_or_else(|| layout_error("a dataset has more chunks than 64 bits count"))?
    .with_chunks_beyond_end(beyond_end);
    let extent = Extent {
        shape,
        max_grid: max_grid(shape, max_shape, chunk_shape),
        filtered,
    };
    match *index {
        ChunkIndexKind::BTreeV1 { address } if address.is_defined() => {
            btree1::read(reader, address, chunk_shape, wanted, &mut found)?;
        }
        ChunkIndexKind::SingleChunk { address, filtered } if address.is_defined() => {
            let (stored_bytes, filter_mask) = filtered.unwrap_or((chunk_bytes, 0));
            let chunk = StoredChunk {
                address,
                stored_bytes,
                filter_mask,
            };
            found.add(address, 0, chunk)?;
        }
        ChunkIndexKind::Implicit { address } if address.is_defined() => {
            read_implicit(reader, address, chunk_bytes, &extent, &mut found)?;
        }
        ChunkIndexKind::FixedArray { address } if address.is_defined() => {
            fixed_array::read(reader, address, &extent, &mut found)?;
        }
        ChunkIndexKind::ExtensibleArray { address } if address.is_defined() => {
            extensible_array::read(reader, address, &extent, &mut found)?;
        }
        ChunkIndexKind::BTreeV2 { address } if address.is_defined() => {
            read_btree2(reader, address, &extent, &mut found)?;
        }
        _ => {}
    }
    found.finish()
}

/// Cells along each axis at the dataset's largest extent.
fn max_grid(shape: &[u64], max_shape: &[Option<u64>], chunk_shape: &[u64]) -> Vec<Option<u64>> {
    let fixed: Vec<Option<u64>> = shape.iter().map(|&axis| Some(axis)).collect();
    let max_shape = match max_shape {
        [] => &fixed,
        stated => stated,
    };
    let axes = max_shape.iter().zip(chunk_shape);
    axes.map(|(axis, &chunk)| axis.map(|axis| axis.div_ceil(chunk.max(1))))
        .collect()
}

/// All chunks one behind the other, none of them filtered, none left out (`H5Dnone.c`).
fn read_implicit(
    reader: &MetaReader,
    address: Address,
    chunk_bytes: u64,
    extent: &Extent<'_>,
    found: &mut Collector<'_>,
) -> Result<(), H5Error> {
    let damaged = |what| H5Error::Damaged {
        structure: LAYOUT,
        address,
        what,
    };
    let order = ArrayOrder::new(extent, None)
        .ok_or_else(|| damaged("an implicit index needs a limited extent"))?;
    let len_bytes = order.len().and_then(|len| len.checked_mul(chunk_bytes));
    let len_bytes = len_bytes.ok_or_else(|| damaged("it has more chunks than 64 bits count"))?;
    // All of them are allocated at once, so their number is bounded by the file.
    reader.file_offset(address, len_bytes)?;
    for number in 0..len_bytes / chunk_bytes {
        if let Some(cell) = order.cell(number, found.grid()) {
            let chunk = StoredChunk {
                address: Address(address.0 + number * chunk_bytes),
                stored_bytes: chunk_bytes,
                filter_mask: 0,
            };
            found.add(address, cell, chunk)?;
        }
    }
    Ok(())
}

/// Records of type 10 (address, scaled coordinates) or 11 (with stored length and filter mask behind the address).
fn read_btree2(
    reader: &MetaReader,
    address: Address,
    extent: &Extent<'_>,
    found: &mut Collector<'_>,
) -> Result<(), H5Error> {
    let tree = BTree2::open(reader, address, if extent.filtered { 11 } else { 10 })?;
    let rank = extent.shape.len();
    let damaged = |what| H5Error::Damaged {
        structure: BTREE2,
        address,
        what,
    };
    // What the record's length leaves for the chunk's stored length.
    let chunk_record_bytes = tree.record_bytes().checked_sub(8 * rank);
    let width = chunk_record_bytes
        .and_then(|bytes| elements::size_width(bytes, extent.filtered))
        .ok_or_else(|| damaged("its records are of an impossible length"))?;
    tree.walk(reader, &mut |record| {
        let mut decoder = Decoder::new(record, BTREE2, address);
        let chunk = elements::decode_element(&mut decoder, width, found.chunk_bytes())?;
        let mut cell = 0u64;
        for axis in 0..rank {
            let (scaled, cells) = (decoder.u64()?, found.grid()[axis]);
            if scaled >= cells {
                return Err(damaged("a chunk is outside the dataset"));
            }
            // Below the number of cells of the grid, which 64 bits count.
            cell = cell * cells + scaled;
        }
        match chunk {
            Some(chunk) => found.add(address, cell, chunk),
            None => Err(damaged("a chunk has no address")),
        }
    })
}

#[cfg(test)]
mod tests;
