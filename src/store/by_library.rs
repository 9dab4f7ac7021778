//! Elements that only the C library can deliver: virtual datasets whose mappings are not those of whole chunks, and layouts
//! that versioned-hdf5 does not make. Slow, and right.
//!
//! The C library is not made for hostile files. So whoever makes a [`ByLibrary`] has decoded everything that the library will look at,
//! but for the chunks themselves: the groups above the dataset, its header, every mapping (whose block has a checksum), that
//! each maps the dataset's own raw data, and the header, filters and chunk index of that. Whatever is damaged or strange there
//! is an error, not a question to the library.

use std::sync::Arc;

use super::StoreError;
use super::file_state::FileState;
use super::history::VersionKey;
use super::region::ChunkGrid;
use crate::h5::library::ObjectName;
use crate::h5::{DatasetHeader, H5Error};

/// The most that is asked of the library at once.
const PIECE_BYTES: u64 = 1 << 20;

/// A dataset that is read through the library, in pieces.
#[derive(Debug)]
pub(crate) struct ByLibrary {
    file: Arc<FileState>,
    /// The dataset's path in the file.
    object: Vec<u8>,
    version: Arc<[u8]>,
    path: Arc<[u8]>,
    len_bytes: u64,
    shape: Vec<u64>,
    piece_shape: Vec<u64>,
    /// `None` for a scalar.
    grid: Option<ChunkGrid>,
}

impl ByLibrary {
    pub(crate) fn new(
        file: Arc<FileState>,
        version: &VersionKey,
        path: &Arc<[u8]>,
        header: &DatasetHeader,
        len_bytes: u64,
    ) -> Result<Self, StoreError> {
        if header.datatype.contains_pointers() {
            return Err(StoreError::Inconsistent {
                version: version.name.to_vec(),
                dataset: path.to_vec(),
                what: "variable-length values that are not mapped chunk by chunk are not supported",
            });
        }
        let shape = header.dataspace.shape().to_vec();
        // From the fastest axis on, as many whole slices as one piece may hold.
        let mut room = (PIECE_BYTES / header.datatype.size as u64).max(1);
        let mut piece_shape = vec![1; shape.len()];
        for (piece, &extent) in piece_shape.iter_mut().zip(&shape).rev() {
            *piece = extent.clamp(1, room);
            room /= *piece;
        }
        Ok(Self {
            file,
            object: [b"/_version_data/versions/", &*version.name, b"/", path].concat(),
            version: version.name.clone(),
            path: path.clone(),
            len_bytes,
            grid: ChunkGrid::new(&shape, &piece_shape, header.datatype.size as u64),
            shape,
            piece_shape,
        })
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    pub(crate) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let Some(grid) = &self.grid else {
            let bytes = self.read_box(&[], &[])?;
            let start = usize::try_from(offset).expect("within one element");
            let piece = bytes
                .get(start..start + buffer.len())
                .ok_or_else(|| self.too_short())?;
            buffer.copy_from_slice(piece);
            return Ok(());
        };
        for overlap in grid.overlaps(offset, buffer.len()) {
            let (start, extent) = self.piece(overlap.cell);
            let bytes = self.read_box(&start, &extent)?;
            // The library returns an edge piece cut to the shape; in the grid it has the full extent.
            let cut = ChunkGrid::new(&extent, &extent, self.element_bytes())
                .ok_or_else(|| self.too_short())?;
            if bytes.len() as u64 != cut.len_bytes() {
                return Err(self.too_short());
            }
            let padded = self.pad(&bytes, &extent);
            overlap.for_each_row(&mut |in_chunk, in_range| {
                let in_chunk = usize::try_from(in_chunk).expect("within a piece in memory");
                buffer[in_range..in_range + overlap.row_bytes]
                    .copy_from_slice(&padded[in_chunk..in_chunk + overlap.row_bytes]);
            });
        }
        Ok(())
    }

    fn element_bytes(&self) -> u64 {
        self.len_bytes / self.shape.iter().product::<u64>().max(1)
    }

    /// Start and extent of a piece, cut to the shape.
    fn piece(&self, cell: u64) -> (Vec<u64>, Vec<u64>) {
        let mut rest = cell;
        let mut start = vec![0; self.shape.len()];
        for axis in (0..self.shape.len()).rev() {
            let cells = self.shape[axis].div_ceil(self.piece_shape[axis]);
            start[axis] = rest % cells * self.piece_shape[axis];
            rest /= cells;
        }
        let extent = start
            .iter()
            .zip(&self.shape)
            .zip(&self.piece_shape)
            .map(|((&start, &extent), &piece)| piece.min(extent - start))
            .collect();
        (start, extent)
    }

    /// The elements of a cut piece at their places in a full one.
    fn pad(&self, bytes: &[u8], extent: &[u64]) -> Vec<u8> {
        if extent == self.piece_shape {
            return bytes.to_vec();
        }
        let element_bytes = self.element_bytes();
        let full: u64 = self.piece_shape.iter().product::<u64>() * element_bytes;
        let mut padded = vec![0; usize::try_from(full).expect("a piece of a megabyte")];
        // The cut piece is an array whose only chunk is the full one.
        if let Some(grid) = ChunkGrid::new(extent, &self.piece_shape, element_bytes) {
            for overlap in grid.overlaps(0, bytes.len()) {
                overlap.for_each_row(&mut |in_chunk, in_range| {
                    let in_chunk = usize::try_from(in_chunk).expect("within a piece in memory");
                    padded[in_chunk..in_chunk + overlap.row_bytes]
                        .copy_from_slice(&bytes[in_range..in_range + overlap.row_bytes]);
                });
            }
        }
        padded
    }

    fn read_box(&self, start: &[u64], extent: &[u64]) -> Result<Vec<u8>, StoreError> {
        self.file
            .ask_library(|file| file.read_elements(ObjectName::Path(&self.object), start, extent))
            .map_err(|error: H5Error| StoreError::Object {
                version: self.version.to_vec(),
                object: self.path.to_vec(),
                error,
            })
    }

    fn too_short(&self) -> StoreError {
        StoreError::Inconsistent {
            version: self.version.to_vec(),
            dataset: self.path.to_vec(),
            what: "the HDF5 library returned fewer elements than its shape has",
        }
    }
}
