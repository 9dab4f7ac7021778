//! [`FileWriter`]: one change of a file from its beginning to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::driver::Opening;
use super::heap::{self, CollectionBuilder};
use super::mapping_patch::{self, Patch};
use super::spec::{HeapPlace, MappedShape, MappingBase, NewMappings};
use super::{LibraryWriter, WriteError, mapping_block, patch};
use crate::h5::object_header::message_type;
use crate::h5::{Address, H5Error, H5File, MetaReader, ObjectHeader};
use crate::source::{JournalFolder, Source, Transaction};

/// What every superblock has its end-of-file address in, and no more than the shortest file has.
const SUPERBLOCK_BYTES: u64 = 96;

/// A file that is being changed. Dropped without [`FileWriter::finish`], it leaves the file as it was.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    transaction: Arc<Transaction>,
    file: H5File,
    /// The heap collection that is being filled; what comes next in the file.
    collection: Option<CollectionBuilder>,
}

impl FileWriter {
    /// Opens and locks the file at `path` and checks that it can be written. What will be overwritten goes to a journal in `folder` first.
    ///
    /// # Errors
    /// [`WriteError::Transaction`], with `Busy` where another program holds a lock on it for longer than a second;
    /// [`WriteError::MarkedOpen`]; [`WriteError::FileSpace`]; [`WriteError::H5`].
    pub fn begin(path: &Path, folder: JournalFolder) -> Result<Self, WriteError> {
        let transaction = Arc::new(Transaction::begin(path, folder)?);
        Self::on(path, transaction)
    }

    pub(super) fn on(path: &Path, transaction: Arc<Transaction>) -> Result<Self, WriteError> {
        let file = H5File::open(Arc::clone(&transaction) as _)?;
        if file.opened_for_writing() {
            return Err(WriteError::MarkedOpen);
        }
        // By such a base address the file ends earlier than it did: where a flipped bit made it, what a write would take for garbage is data.
        if file.stored_base_address() > file.base_address() {
            return Err(WriteError::H5(H5Error::Unsupported {
                structure: "superblock",
                address: Address(file.base_address()),
                what: "bytes before it were taken away since it was written; `h5repack` makes a file that can be written",
            }));
        }
        check_space(&file)?;
        let end = file.end_of_file();
        let superblock = file.base_address()..end.min(file.base_address() + SUPERBLOCK_BYTES);
        transaction.set_boundary(end, superblock)?;
        // What an interrupted commit left behind its end is not in it any more.
        let file = if file.file_len_bytes() > end {
            H5File::open(Arc::clone(&transaction) as _)?
        } else {
            file
        };
        Ok(Self {
            path: path.to_owned(),
            transaction,
            file,
            collection: None,
        })
    }

    /// The superblock as it was when the lock was taken. A reader that is made of it sees what it reads first: the file as it was, if
    /// nothing was written yet.
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
    /// [`WriteError::Transaction`]; [`WriteError::TooLarge`]. After an error nothing more is written.
    pub fn append_heap_objects<'a>(
        &mut self,
        objects: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<HeapPlace>, WriteError> {
        let objects = objects.into_iter();
        let mut places = Vec::with_capacity(objects.size_hint().0);
        for object in objects {
            places.push(self.append_heap_object(object)?);
        }
        Ok(places)
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
    ) -> Result<Option<NewMappings>, WriteError> {
        let Some(encoded) = mapping_block::encode(mapped, chunks)? else {
            return Ok(None);
        };
        Ok(Some(NewMappings {
            place: self.append_heap_object(&encoded.block)?,
            len_bytes: encoded.block.len() as u64,
            checksum: encoded.checksum,
            entry_bytes: encoded.entry_bytes,
        }))
    }

    /// Appends the mappings of a virtual dataset that are those of `base`, as far as its cells go, but for the `changed` cells, which are
    /// sorted: each with its stored chunk, or none. Its shape is the base's but for the first axis. What did not change is copied as it is.
    ///
    /// `None` where the block of the base is of a form that this cannot be done with, or nothing is mapped: see
    /// [`FileWriter::append_mapping_block`] then.
    ///
    /// # Errors
    /// As there; [`WriteError::H5`] where the block of the base is damaged.
    pub fn append_patched_mapping_block(
        &mut self,
        mapped: &MappedShape<'_>,
        base: &MappingBase<'_>,
        changed: &[(u64, Option<u64>)],
    ) -> Result<Option<NewMappings>, WriteError> {
        let reader = self.file.reader();
        let Some(patch) = mapping_patch::plan(&reader, mapped, base, changed)? else {
            return Ok(None);
        };
        let (place, checksum) = if patch.len_bytes < heap::FULL_BYTES as u64 {
            let mut block = Vec::new();
            let checksum = patch.write(&reader, &mut |bytes| {
                block.extend_from_slice(bytes);
                Ok(())
            })?;
            (self.append_heap_object(&block)?, checksum)
        } else {
            self.append_single(&reader, &patch)?
        };
        Ok(Some(NewMappings {
            place,
            len_bytes: patch.len_bytes,
            checksum,
            entry_bytes: patch.entry_bytes,
        }))
    }

    /// Writes a block to a collection of its own.
    fn append_single(
        &mut self,
        reader: &MetaReader,
        patch: &Patch,
    ) -> Result<(HeapPlace, u32), WriteError> {
        self.write_collection()?;
        let start = self.len_bytes()?;
        let (before, behind) = heap::around_single(patch.len_bytes)?;
        let mut at = start;
        let mut append = |bytes: &[u8]| -> Result<(), WriteError> {
            self.transaction.write_at(at, bytes)?;
            at += bytes.len() as u64;
            Ok(())
        };
        append(&before)?;
        let checksum = patch.write(reader, &mut append)?;
        append(&behind)?;
        let place = HeapPlace {
            address: Address(start - self.file.base_address()),
            index: 1,
        };
        Ok((place, checksum))
    }

    fn append_heap_object(&mut self, object: &[u8]) -> Result<HeapPlace, WriteError> {
        let full = self
            .collection
            .as_ref()
            .is_some_and(|collection| collection.is_full_for(object.len()));
        if full {
            self.write_collection()?;
        }
        let address = Address(self.len_bytes()? - self.file.base_address());
        let collection = &mut self.collection;
        collection
            .get_or_insert_with(|| CollectionBuilder::new(address))
            .add(object)
    }

    /// Writes the collection that is being filled to where its objects were promised to be: the end of the file.
    fn write_collection(&mut self) -> Result<(), WriteError> {
        if let Some(collection) = self.collection.take() {
            let end = self.len_bytes()?;
            self.transaction.write_at(end, &collection.finish())?;
        }
        Ok(())
    }

    /// Brings the superblock up to what was appended.
    fn settle(&mut self) -> Result<(), WriteError> {
        self.write_collection()?;
        let end = self.len_bytes()?;
        patch::set_end_of_file(&self.transaction, &self.file, end)
    }

    fn len_bytes(&self) -> Result<u64, WriteError> {
        Ok(self.transaction.len_bytes().map_err(H5Error::from)?)
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
        self.settle()?;
        edit_by_library(
            &self.transaction,
            &self.path,
            self.file.superblock_version(),
            Opening::Existing,
            change,
        )
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
        patch::set_virtual_mapping(&self.transaction, self.file.base_address(), header, place)
    }

    /// Makes the changes durable and visible.
    ///
    /// # Errors
    /// [`WriteError::Transaction`]. Whether the file was touched says [`Transaction::is_applying`], of which the caller may keep the
    /// `Arc`.
    pub fn finish(mut self) -> Result<(), WriteError> {
        self.settle()?;
        self.transaction.apply()?;
        Ok(())
    }
}

/// Opens the file that `transaction` is on in the C library, lets `change` work on it, and closes it. After an error the transaction is
/// given up.
pub(super) fn edit_by_library<T>(
    transaction: &Arc<Transaction>,
    path: &Path,
    superblock_version: u8,
    opening: Opening,
    change: impl FnOnce(&mut LibraryWriter) -> Result<T, WriteError>,
) -> Result<T, WriteError> {
    let given_up = GiveUpUnlessDone(transaction);
    let mut library = LibraryWriter::open(transaction, path, superblock_version, opening)?;
    let changed = change(&mut library);
    if changed.is_err() {
        // What the library still writes when it closes the file stays in memory.
        transaction.give_up();
    }
    let closed = library.close();
    let result = changed.and_then(|result| closed.map(|()| result))?;
    std::mem::forget(given_up);
    Ok(result)
}

/// Gives the transaction up when dropped, also by a panic.
struct GiveUpUnlessDone<'a>(&'a Transaction);

impl Drop for GiveUpUnlessDone<'_> {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Refuses files whose free space only the library may manage: what is appended past its back would be given away again.
fn check_space(file: &H5File) -> Result<(), WriteError> {
    let Some(extension) = file.superblock_extension() else {
        return Ok(());
    };
    let extension = ObjectHeader::read(&file.reader(), extension)?;
    if extension.find(message_type::CACHE_IMAGE).is_some() {
        return Err(WriteError::FileSpace {
            what: "a metadata cache image",
        });
    }
    let Some(message) = extension.find(message_type::FILE_SPACE) else {
        return Ok(());
    };
    // Version, strategy, and in version 1 whether free space is kept (Specification IV.A.2.x; `H5Ofsinfo.c`).
    let what = match *message.body {
        [1, 1, ..] => Some("pages"),
        [0, 2..=4, ..] | [1, 0 | 2 | 3, 0, ..] => None,
        [0, 1, ..] | [1, 0 | 2 | 3, 1, ..] => Some("persistent free-space managers"),
        _ => Some("an unknown strategy"),
    };
    match what {
        Some(what) => Err(WriteError::FileSpace { what }),
        None => Ok(()),
    }
}
