//! [`FileWriter`]: one change of a file from its beginning to its end.

use std::path::Path;
use std::sync::Arc;

use super::WriteError;
use super::library_writer::LibraryWriter;
use super::spec::{HeapPlace, MappedShape};
use crate::h5::{Address, H5File};
use crate::source::Transaction;

/// A file that is being changed. Dropped without [`FileWriter::finish`], it leaves the file as it was.
#[derive(Debug)]
pub struct FileWriter {
    transaction: Arc<Transaction>,
    file: H5File,
}

impl FileWriter {
    /// Opens and locks the file at `path` and checks that it can be written.
    ///
    /// # Errors
    /// [`WriteError::Transaction`], with `Busy` where another program holds a lock on it for longer than a second;
    /// [`WriteError::MarkedOpen`]; [`WriteError::FileSpace`]; [`WriteError::H5`].
    pub fn begin(path: &Path) -> Result<Self, WriteError> {
        let transaction = Arc::new(Transaction::begin(path)?);
        let file = H5File::open(Arc::clone(&transaction) as Arc<_>)?;
        Ok(Self { transaction, file })
    }

    /// The file as it was when the lock was taken; its reader sees what was written since, if it was made since.
    #[must_use]
    pub fn file(&self) -> &H5File {
        &self.file
    }

    /// The bytes that are read and written.
    #[must_use]
    pub fn transaction(&self) -> &Arc<Transaction> {
        &self.transaction
    }

    /// Appends objects to the global heap: the texts of variable-length strings, or mapping blocks. Empty objects are stored too.
    ///
    /// # Errors
    /// [`WriteError::Transaction`]; [`WriteError::TooLarge`].
    pub fn append_heap_objects<'a>(
        &mut self,
        objects: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<HeapPlace>, WriteError> {
        let _ = objects;
        Err(unavailable())
    }

    /// Appends the mappings of a virtual dataset: for each `(cell, chunk)`, in cell order, the stored chunk that fills a cell of the chunk
    /// grid. `None` where there is no pair, for which nothing is stored.
    ///
    /// # Errors
    /// [`WriteError::Transaction`]; [`WriteError::Mismatch`] for a cell outside the grid; [`WriteError::TooLarge`].
    pub fn append_mapping_block(
        &mut self,
        mapped: &MappedShape<'_>,
        chunks: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<Option<HeapPlace>, WriteError> {
        let _ = (mapped, chunks.into_iter());
        Err(unavailable())
    }

    /// Opens the file in the C library, lets `change` work on it, and closes it.
    ///
    /// # Errors
    /// Those of `change`; [`WriteError::H5`] where opening or closing fails; [`WriteError::Transaction`] where reading or writing was
    /// the cause. After an error nothing more is written.
    pub fn edit<T>(
        &mut self,
        change: impl FnOnce(&mut LibraryWriter) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let _ = change;
        Err(unavailable())
    }

    /// Makes the heap object at `place` the mappings of the virtual dataset whose header is at `header`, and which has none yet.
    ///
    /// # Errors
    /// [`WriteError::NotVirtual`]; [`WriteError::H5`]; [`WriteError::Transaction`].
    pub fn set_virtual_mapping(
        &mut self,
        header: Address,
        place: HeapPlace,
    ) -> Result<(), WriteError> {
        let _ = (header, place);
        Err(unavailable())
    }

    /// Makes the changes durable and visible.
    ///
    /// # Errors
    /// [`WriteError::Transaction`].
    pub fn finish(self) -> Result<(), WriteError> {
        Err(unavailable())
    }
}

fn unavailable() -> WriteError {
    WriteError::FileSpace {
        what: "a writer that is not there yet",
    }
}

/// Makes a new versioned file without versions at `path`, where nothing may exist.
///
/// # Errors
/// [`WriteError::Create`]; [`WriteError::H5`].
pub fn create_versioned_file(path: &Path) -> Result<(), WriteError> {
    let _ = path;
    Err(unavailable())
}
