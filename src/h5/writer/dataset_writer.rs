//! Datasets, made and filled by the C library.

// The library is C: every call of it is unsafe.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use hdf5_sys::h5d::H5D_layout_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::{h5, h5d, h5i, h5o, h5p, h5s, h5t};

use super::attribute_writer::up_to_nul;
use super::library_writer::{link_creation, path_name};
use super::spec::{NewChunked, NewVirtual, TypeSource};
use super::{LibraryWriter, WriteError, filters, types};
use crate::h5::Address;
use crate::h5::call::{Handle, done, failure, handle};
use crate::h5::library::holds_pointers;

unsafe extern "C" {
    /// Of the library's H5VLnative.h, which `hdf5_sys` leaves out.
    fn H5VLnative_token_to_addr(
        object: h5i::hid_t,
        token: h5o::H5O_token_t,
        address: *mut h5::haddr_t,
    ) -> h5::herr_t;
}

/// A dataset that the C library has open for writing.
#[derive(Debug)]
pub struct OpenDataset<'a> {
    file: &'a LibraryWriter,
    dataset: Handle,
    path: Vec<u8>,
    rank: usize,
}

impl LibraryWriter {
    /// Makes a chunked dataset (and the groups above it that are missing).
    ///
    /// # Errors
    /// [`WriteError::Exists`], [`WriteError::Datatype`], [`WriteError::Mismatch`], [`WriteError::FilterParameters`]; as for
    /// [`LibraryWriter::exists`].
    pub fn create_chunked(&mut self, path: &[u8], new: &NewChunked<'_>) -> Result<(), WriteError> {
        const ACTION: &str = "make a chunked dataset";
        self.ask(|| {
            if new.shape.is_empty() || new.shape.len() != new.chunk_shape.len() {
                return Err(mismatch(path, "its chunks have another number of axes"));
            }
            let element = self.element(new.datatype)?;
            let creation = dataset_creation(false)?;
            let rank = c_int::try_from(new.shape.len()).unwrap_or(c_int::MAX);
            done(ACTION, || {
                // SAFETY: `creation` is valid, and there are as many numbers as the rank says; the library checks them.
                unsafe { h5p::H5Pset_chunk(creation.0, rank, new.chunk_shape.as_ptr()) }
            })?;
            filters::set(&creation, new.filters)?;
            set_fill_value(&creation, &element, new.fill_value, path)?;
            let mut limits = new.shape.to_vec();
            limits[0] = h5s::H5S_UNLIMITED;
            let space = handle(ACTION, || {
                // SAFETY: there are as many numbers as the rank says in both lists.
                unsafe { h5s::H5Screate_simple(rank, new.shape.as_ptr(), limits.as_ptr()) }
            })?;
            let dataset = self.new_dataset(path, &element, &space, &creation)?;
            filters::check(&filters::creation_of(dataset.0)?, new.filters, path)
        })
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
        const ACTION: &str = "make a virtual dataset";
        self.ask(|| {
            let element = self.element(new.datatype)?;
            let creation = dataset_creation(true)?;
            done(ACTION, || {
                // SAFETY: `creation` is valid.
                unsafe { h5p::H5Pset_layout(creation.0, H5D_layout_t::H5D_VIRTUAL) }
            })?;
            set_fill_value(&creation, &element, new.fill_value, path)?;
            let rank = c_int::try_from(new.shape.len()).unwrap_or(c_int::MAX);
            let space = handle(ACTION, || {
                // SAFETY: there are as many numbers as the rank says; null stands for the same numbers.
                unsafe { h5s::H5Screate_simple(rank, new.shape.as_ptr(), ptr::null()) }
            })?;
            let dataset = self.new_dataset(path, &element, &space, &creation)?;
            header_of(&dataset)
        })
    }

    /// Opens a dataset that is not virtual: opening one that is costs as much as it has mappings.
    ///
    /// # Errors
    /// As for [`LibraryWriter::exists`].
    pub fn open_dataset(&mut self, path: &[u8]) -> Result<OpenDataset<'_>, WriteError> {
        const ACTION: &str = "open a dataset for writing";
        self.ask(|| {
            let dataset = self.dataset(path)?;
            let space = handle(ACTION, || {
                // SAFETY: `dataset` is valid.
                unsafe { h5d::H5Dget_space(dataset.0) }
            })?;
            // SAFETY: `space` is a valid dataspace.
            let rank = unsafe { h5s::H5Sget_simple_extent_ndims(space.0) };
            let rank = usize::try_from(rank).map_err(|_| failure(ACTION))?;
            Ok(OpenDataset {
                file: self,
                dataset,
                path: path.to_vec(),
                rank,
            })
        })
    }

    fn dataset(&self, path: &[u8]) -> Result<Handle, WriteError> {
        let name = path_name(path)?;
        Ok(handle("open a dataset for writing", || {
            // SAFETY: the file is open; the path ends with NUL and lives through the call.
            unsafe { h5d::H5Dopen2(self.file.0, name.as_ptr(), H5P_DEFAULT) }
        })?)
    }

    /// Whether the type of the dataset at `path` is, to the library, `datatype`.
    #[cfg(test)]
    pub(super) fn type_equals(
        &self,
        path: &[u8],
        datatype: &crate::h5::Datatype,
    ) -> Result<bool, WriteError> {
        let theirs = self.element(TypeSource::Of(path))?;
        let ours = types::make(datatype)?;
        // SAFETY: both types are valid.
        let equal = crate::h5::call::answer("compare types", || unsafe {
            h5t::H5Tequal(theirs.0, ours.0)
        });
        Ok(equal?)
    }

    fn element(&self, source: TypeSource<'_>) -> Result<Handle, WriteError> {
        match source {
            TypeSource::Datatype(datatype) => types::make(datatype),
            TypeSource::Of(path) => {
                let dataset = self.dataset(path)?;
                Ok(handle("ask for an element type", || {
                    // SAFETY: `dataset` is valid.
                    unsafe { h5d::H5Dget_type(dataset.0) }
                })?)
            }
        }
    }

    fn new_dataset(
        &self,
        path: &[u8],
        element: &Handle,
        space: &Handle,
        creation: &Handle,
    ) -> Result<Handle, WriteError> {
        let name = self.new_name(path)?;
        let links = link_creation(path)?;
        Ok(handle("make a dataset", || {
            // SAFETY: all identifiers are valid; the path ends with NUL and lives through the call.
            unsafe {
                h5d::H5Dcreate2(
                    self.file.0,
                    name.as_ptr(),
                    element.0,
                    space.0,
                    links.0,
                    creation.0,
                    H5P_DEFAULT,
                )
            }
        })?)
    }
}

impl OpenDataset<'_> {
    /// Changes the extent, which has as many axes as before.
    ///
    /// # Errors
    /// [`WriteError::Mismatch`]; as for [`LibraryWriter::exists`].
    pub fn set_shape(&mut self, shape: &[u64]) -> Result<(), WriteError> {
        self.check_rank(shape)?;
        self.file.ask(|| {
            done("change the extent of a dataset", || {
                // SAFETY: the dataset is valid, and there is a number for each of its axes.
                unsafe { h5d::H5Dset_extent(self.dataset.0, shape.as_ptr()) }
            })?;
            Ok(())
        })
    }

    /// Stores a chunk that is encoded already. `first_element` is where it begins, in elements, inside the extent; bit `n` of
    /// `filter_mask` is set where step `n` of the pipeline was left out.
    ///
    /// # Errors
    /// [`WriteError::Mismatch`]; as for [`LibraryWriter::exists`].
    pub fn write_chunk(
        &mut self,
        first_element: &[u64],
        filter_mask: u32,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        self.check_rank(first_element)?;
        self.file.ask(|| {
            done("write a chunk", || {
                // SAFETY: the dataset is valid; there is a number for each of its axes and as many bytes as is said.
                unsafe {
                    h5d::H5Dwrite_chunk(
                        self.dataset.0,
                        H5P_DEFAULT,
                        filter_mask,
                        first_element.as_ptr(),
                        bytes.len(),
                        bytes.as_ptr().cast(),
                    )
                }
            })?;
            Ok(())
        })
    }

    /// Writes elements of a one-dimensional dataset, as they are stored, from element `first` on; the library encodes them.
    ///
    /// # Errors
    /// [`WriteError::Mismatch`] where the bytes are not whole elements, or pointers, or lie outside the extent; as for
    /// [`LibraryWriter::exists`].
    pub fn write_rows(&mut self, first: u64, bytes: &[u8]) -> Result<(), WriteError> {
        const ACTION: &str = "write elements";
        self.check_rank(&[first])?;
        self.file.ask(|| {
            let element = handle(ACTION, || {
                // SAFETY: the dataset is valid.
                unsafe { h5d::H5Dget_type(self.dataset.0) }
            })?;
            // SAFETY: `element` is a valid type.
            let element_bytes = unsafe { h5t::H5Tget_size(element.0) };
            if holds_pointers(&element, ACTION)?
                || element_bytes == 0
                || !bytes.len().is_multiple_of(element_bytes)
            {
                return Err(mismatch(&self.path, "the bytes are not whole elements"));
            }
            let len = (bytes.len() / element_bytes) as u64;
            if len == 0 {
                return Ok(());
            }
            let space = handle(ACTION, || {
                // SAFETY: the dataset is valid.
                unsafe { h5d::H5Dget_space(self.dataset.0) }
            })?;
            done(ACTION, || {
                // SAFETY: the space is valid and has one axis; null stands for blocks of one element, one after the other.
                unsafe {
                    h5s::H5Sselect_hyperslab(
                        space.0,
                        h5s::H5S_SELECT_SET,
                        &raw const first,
                        ptr::null(),
                        &raw const len,
                        ptr::null(),
                    )
                }
            })?;
            // SAFETY: `space` is valid.
            if unsafe { h5s::H5Sselect_valid(space.0) } <= 0 {
                return Err(mismatch(&self.path, "the elements lie outside the extent"));
            }
            let memory = handle(ACTION, || {
                // SAFETY: there is one number.
                unsafe { h5s::H5Screate_simple(1, &raw const len, ptr::null()) }
            })?;
            done(ACTION, || {
                // SAFETY: all identifiers are valid; the bytes are as many elements of that type as both selections have.
                unsafe {
                    h5d::H5Dwrite(
                        self.dataset.0,
                        element.0,
                        memory.0,
                        space.0,
                        H5P_DEFAULT,
                        bytes.as_ptr().cast(),
                    )
                }
            })?;
            Ok(())
        })
    }

    fn check_rank(&self, numbers: &[u64]) -> Result<(), WriteError> {
        if numbers.len() == self.rank {
            Ok(())
        } else {
            Err(mismatch(&self.path, "it has another number of axes"))
        }
    }
}

/// A dataset creation list. The Python library keeps times of virtual datasets, which it makes itself, and h5py keeps none of others.
fn dataset_creation(keeps_times: bool) -> Result<Handle, WriteError> {
    const ACTION: &str = "prepare a dataset";
    let creation = handle(ACTION, || {
        // SAFETY: the class is a constant of the library.
        unsafe { h5p::H5Pcreate(*h5p::H5P_CLS_DATASET_CREATE) }
    })?;
    done(ACTION, || {
        // SAFETY: `creation` is a valid list.
        unsafe { h5p::H5Pset_obj_track_times(creation.0, u8::from(keeps_times)) }
    })?;
    Ok(creation)
}

fn set_fill_value(
    creation: &Handle,
    element: &Handle,
    fill_value: Option<&[u8]>,
    path: &[u8],
) -> Result<(), WriteError> {
    const ACTION: &str = "set a fill value";
    let Some(fill_value) = fill_value else {
        return Ok(());
    };
    let set = |value: *const c_void| {
        done(ACTION, || {
            // SAFETY: both identifiers are valid; the value is one element of that type and lives through the call.
            unsafe { h5p::H5Pset_fill_value(creation.0, element.0, value) }
        })
    };
    // SAFETY: `element` is a valid type, here and below.
    if unsafe { h5t::H5Tis_variable_str(element.0) } > 0 {
        let text = up_to_nul(fill_value);
        let pointer: *const c_char = text.as_ptr();
        set((&raw const pointer).cast())?;
        return Ok(());
    }
    // SAFETY: as above.
    let element_bytes = unsafe { h5t::H5Tget_size(element.0) };
    if fill_value.len() != element_bytes || holds_pointers(element, ACTION)? {
        return Err(mismatch(path, "its fill value is not one plain element"));
    }
    set(fill_value.as_ptr().cast())?;
    Ok(())
}

fn header_of(dataset: &Handle) -> Result<Address, WriteError> {
    const ACTION: &str = "ask where a dataset is";
    let mut info = MaybeUninit::<h5o::H5O_info2_t>::zeroed();
    done(ACTION, || {
        // SAFETY: the dataset is valid, and the answer is written within the call.
        unsafe { h5o::H5Oget_info3(dataset.0, info.as_mut_ptr(), h5o::H5O_INFO_BASIC) }
    })?;
    // SAFETY: the call succeeded, so the basic fields are filled in; zeros are values of the others.
    let token = unsafe { info.assume_init() }.token;
    let mut address: h5::haddr_t = 0;
    done(ACTION, || {
        // SAFETY: as above.
        unsafe { H5VLnative_token_to_addr(dataset.0, token, &raw mut address) }
    })?;
    Ok(Address(address))
}

fn mismatch(path: &[u8], what: &'static str) -> WriteError {
    WriteError::Mismatch {
        object: String::from_utf8_lossy(path).into_owned(),
        what,
    }
}
