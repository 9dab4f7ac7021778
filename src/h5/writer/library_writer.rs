//! [`LibraryWriter`]: what the C library writes.

use super::WriteError;
use super::spec::{NewAttribute, NewChunked, NewVirtual};
use crate::h5::Address;

/// A file that the C library has open for writing. Paths are absolute.
#[derive(Debug)]
pub struct LibraryWriter {
    _private: (),
}

/// A dataset that the C library has open for writing.
#[derive(Debug)]
pub struct OpenDataset<'a> {
    _file: &'a LibraryWriter,
}

impl LibraryWriter {
    /// Whether there is an object at `path`.
    ///
    /// # Errors
    /// [`WriteError::H5`], [`WriteError::Transaction`].
    pub fn exists(&self, path: &[u8]) -> Result<bool, WriteError> {
        unavailable(path)
    }

    /// Makes a group, and those above it that are missing.
    ///
    /// # Errors
    /// [`WriteError::Exists`]; as for [`LibraryWriter::exists`].
    pub fn create_group(&mut self, path: &[u8]) -> Result<(), WriteError> {
        unavailable(path)
    }

    /// Gives the object at `existing` the name `new` too.
    ///
    /// # Errors
    /// [`WriteError::Exists`]; as for [`LibraryWriter::exists`].
    pub fn hard_link(&mut self, existing: &[u8], new: &[u8]) -> Result<(), WriteError> {
        let _ = existing;
        unavailable(new)
    }

    /// Makes a chunked dataset (and the groups above it that are missing).
    ///
    /// # Errors
    /// [`WriteError::Exists`], [`WriteError::Datatype`], [`WriteError::Mismatch`], [`WriteError::FilterParameters`]; as for
    /// [`LibraryWriter::exists`].
    pub fn create_chunked(&mut self, path: &[u8], new: &NewChunked<'_>) -> Result<(), WriteError> {
        let _ = new;
        unavailable(path)
    }

    /// Makes a virtual dataset without mappings (and the groups above it that are missing), and says where its header is.
    ///
    /// # Errors
    /// As for [`LibraryWriter::create_chunked`].
    pub fn create_virtual(
        &mut self,
        path: &[u8],
        new: &NewVirtual<'_>,
    ) -> Result<Address, WriteError> {
        let _ = new;
        unavailable(path)
    }

    /// Opens a dataset that is not virtual.
    ///
    /// # Errors
    /// As for [`LibraryWriter::exists`].
    pub fn open_dataset(&mut self, path: &[u8]) -> Result<OpenDataset<'_>, WriteError> {
        unavailable(path)
    }

    /// Copies the attributes of the object at `from`, but for those named in `except`, to the object at `to`, which has none of
    /// their names. Neither object is opened, so it costs nothing that a dataset is virtual.
    ///
    /// # Errors
    /// As for [`LibraryWriter::exists`].
    pub fn copy_attributes(
        &mut self,
        from: &[u8],
        to: &[u8],
        except: &[&[u8]],
    ) -> Result<(), WriteError> {
        let _ = (from, except);
        unavailable(to)
    }

    /// Gives the object at `path` an attribute, in place of the one of that name if there is one.
    ///
    /// # Errors
    /// [`WriteError::Datatype`], [`WriteError::Mismatch`]; as for [`LibraryWriter::exists`].
    pub fn set_attribute(
        &mut self,
        path: &[u8],
        attribute: &NewAttribute<'_>,
    ) -> Result<(), WriteError> {
        let _ = attribute;
        unavailable(path)
    }

    /// Takes an attribute away, if the object at `path` has it.
    ///
    /// # Errors
    /// As for [`LibraryWriter::exists`].
    pub fn remove_attribute(&mut self, path: &[u8], name: &[u8]) -> Result<(), WriteError> {
        let _ = name;
        unavailable(path)
    }
}

impl OpenDataset<'_> {
    /// Changes the extent.
    ///
    /// # Errors
    /// As for [`LibraryWriter::exists`].
    pub fn set_shape(&mut self, shape: &[u64]) -> Result<(), WriteError> {
        let _ = shape;
        unavailable(b"dataset")
    }

    /// Stores a chunk that is encoded already. `first_element` is where it begins, in elements; bit `n` of `filter_mask` is set where step
    /// `n` of the pipeline was left out.
    ///
    /// # Errors
    /// As for [`LibraryWriter::exists`].
    pub fn write_chunk(
        &mut self,
        first_element: &[u64],
        filter_mask: u32,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        let _ = (first_element, filter_mask, bytes);
        unavailable(b"dataset")
    }

    /// Writes elements of a one-dimensional dataset, as they are stored, from element `first` on; the library encodes them.
    ///
    /// # Errors
    /// [`WriteError::Mismatch`]; as for [`LibraryWriter::exists`].
    pub fn write_rows(&mut self, first: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let _ = (first, bytes);
        unavailable(b"dataset")
    }
}

fn unavailable<T>(path: &[u8]) -> Result<T, WriteError> {
    Err(WriteError::Mismatch {
        object: String::from_utf8_lossy(path).into_owned(),
        what: "a writer that is not there yet",
    })
}
