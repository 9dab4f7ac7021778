//! The HDF5 C library, read-only: for what is not decoded natively, and to hold against it what is.
//!
//! All calls are made under the library's one lock, so none belongs where requests are served fast. The library is not made for
//! hostile files: it is asked only about files and objects whose headers were decoded here before. Of a damaged file it sees, when elements are
//! read that have no chunk map, the groups on the way, the dataset's header, its mappings and its stored chunks; and in a commit, the groups that get new
//! links, the attributes that are copied or overwritten with the heap collections that hold their values, and the chunk indexes that grow. It follows a heap
//! collection whose free space has no length, and a circle of free blocks in a local heap, forever: the decoders here refuse both. It reads what the file held
//! when it was opened; a [`LibraryFile`] is opened for one look and dropped after it.

// The library is C: every call of it is unsafe.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use hdf5::sync::sync;
use hdf5_sys::{h5, h5d, h5f, h5i, h5o, h5p, h5s, h5t};

use super::call::{Handle, c_string, count, done, failure, handle, refused};
use super::mapping::{HyperslabAxis, MAX_RANK, Mapping, Selection};
use super::{Address, H5Error, StoredChunk};

unsafe extern "C" {
    /// Of the library's H5VLnative.h, which `hdf5_sys` leaves out.
    fn H5VLnative_addr_to_token(
        file: h5i::hid_t,
        address: h5::haddr_t,
        token: *mut h5o::H5O_token_t,
    ) -> h5::herr_t;
}

/// An object of a file.
#[derive(Debug, Clone, Copy)]
pub enum ObjectName<'a> {
    /// By its absolute path.
    Path(&'a [u8]),
    /// By the place of its header.
    Header(Address),
}

/// A file that the library has open.
#[derive(Debug)]
pub struct LibraryFile {
    id: Handle,
    /// Bytes before the superblock, which the library counts into the places of chunks.
    base_address: u64,
}

impl LibraryFile {
    /// Opens `path` for reading, without a lock on it.
    ///
    /// # Errors
    /// [`H5Error::Library`].
    pub fn open(path: &Path) -> Result<Self, H5Error> {
        const ACTION: &str = "open the file";
        let name = c_string(path.as_os_str().as_bytes(), ACTION)?;
        sync(|| {
            let access = handle(ACTION, || {
                // SAFETY: the class is a constant of the library, which `sync` has initialized.
                unsafe { h5p::H5Pcreate(*h5p::H5P_CLS_FILE_ACCESS) }
            })?;
            done(ACTION, || {
                // SAFETY: `access` is a valid file access list.
                unsafe { h5p::H5Pset_file_locking(access.0, 0, 1) }
            })?;
            let id = handle(ACTION, || {
                // SAFETY: `name` ends with NUL and lives through the call; `access` is valid.
                unsafe { h5f::H5Fopen(name.as_ptr(), h5f::H5F_ACC_RDONLY, access.0) }
            })?;
            let creation = handle(ACTION, || {
                // SAFETY: `id` is a valid file.
                unsafe { h5f::H5Fget_create_plist(id.0) }
            })?;
            let mut base_address: h5::hsize_t = 0;
            done(ACTION, || {
                // SAFETY: `creation` is a valid file creation list, and the number is written within the call.
                unsafe { h5p::H5Pget_userblock(creation.0, &raw mut base_address) }
            })?;
            Ok(Self { id, base_address })
        })
    }

    /// Every mapping of a virtual dataset.
    ///
    /// # Errors
    /// [`H5Error::Library`], also for a dataset that is not virtual.
    pub fn virtual_mappings(&self, dataset: ObjectName<'_>) -> Result<Vec<Mapping>, H5Error> {
        const ACTION: &str = "list the mappings of a virtual dataset";
        sync(|| {
            let dataset = self.open_dataset(dataset, ACTION)?;
            let creation = handle(ACTION, || {
                // SAFETY: `dataset` is a valid dataset.
                unsafe { h5d::H5Dget_create_plist(dataset.0) }
            })?;
            let mut len = 0;
            done(ACTION, || {
                // SAFETY: `creation` is a valid dataset creation list, and the number is written within the call.
                unsafe { h5p::H5Pget_virtual_count(creation.0, &raw mut len) }
            })?;
            (0..len).map(|index| mapping(&creation, index)).collect()
        })
    }

    /// Every stored chunk of a chunked dataset: the offset of its first element, and where it is.
    ///
    /// # Errors
    /// [`H5Error::Library`].
    pub fn stored_chunks(
        &self,
        dataset: ObjectName<'_>,
    ) -> Result<Vec<(Vec<u64>, StoredChunk)>, H5Error> {
        const ACTION: &str = "list the chunks of a dataset";
        sync(|| {
            let dataset = self.open_dataset(dataset, ACTION)?;
            let space = dataspace(&dataset, ACTION)?;
            let mut found = FoundChunks {
                rank: rank(&space, ACTION)?,
                base_address: self.base_address,
                chunks: Vec::new(),
            };
            done(ACTION, || {
                // SAFETY: `dataset` is valid; the callback gets a pointer to `found`, which lives through the call and is not
                // touched by anything else during it.
                unsafe {
                    h5d::H5Dchunk_iter(
                        dataset.0,
                        h5p::H5P_DEFAULT,
                        Some(found_chunk),
                        (&raw mut found).cast(),
                    )
                }
            })?;
            Ok(found.chunks)
        })
    }

    /// The elements of a box, as they are stored, in C order. `start` and `shape` are in elements, one number for each axis, both
    /// empty for a scalar.
    ///
    /// # Errors
    /// [`H5Error::Library`], also where the box is not inside the dataset, and where elements hold pointers (variable-length data,
    /// references), whose bytes mean nothing outside the library.
    pub fn read_elements(
        &self,
        dataset: ObjectName<'_>,
        start: &[u64],
        shape: &[u64],
    ) -> Result<Vec<u8>, H5Error> {
        const ACTION: &str = "read elements";
        sync(|| {
            let dataset = self.open_dataset(dataset, ACTION)?;
            let element = handle(ACTION, || {
                // SAFETY: `dataset` is valid.
                unsafe { h5d::H5Dget_type(dataset.0) }
            })?;
            if holds_pointers(&element, ACTION)? {
                return Err(refused(ACTION, "the elements hold pointers"));
            }
            // SAFETY: `element` is a valid type.
            let element_bytes = unsafe { h5t::H5Tget_size(element.0) };
            let space = dataspace(&dataset, ACTION)?;
            let rank = rank(&space, ACTION)?;
            if start.len() != rank || shape.len() != rank {
                return Err(refused(ACTION, "the box has another number of axes"));
            }
            let len_bytes = shape
                .iter()
                .map(|&axis| usize::try_from(axis).ok())
                .try_fold(element_bytes, |n, axis| n.checked_mul(axis?))
                .ok_or_else(|| refused(ACTION, "the box is too large"))?;
            if len_bytes == 0 {
                return Ok(Vec::new());
            }
            if rank > 0 {
                done(ACTION, || {
                    // SAFETY: `space` is valid and has as many axes as the slices have numbers; null stands for blocks of
                    // one element, one after the other.
                    unsafe {
                        h5s::H5Sselect_hyperslab(
                            space.0,
                            h5s::H5S_SELECT_SET,
                            start.as_ptr(),
                            ptr::null(),
                            shape.as_ptr(),
                            ptr::null(),
                        )
                    }
                })?;
                // SAFETY: `space` is valid.
                if unsafe { h5s::H5Sselect_valid(space.0) } <= 0 {
                    return Err(refused(ACTION, "the box is not inside the dataset"));
                }
            }
            let memory = handle(ACTION, || {
                let rank = c_int::try_from(rank).unwrap_or(c_int::MAX);
                // SAFETY: `shape` has `rank` numbers, at most 32; null stands for the same numbers.
                unsafe { h5s::H5Screate_simple(rank, shape.as_ptr(), ptr::null()) }
            })?;
            let mut elements = Vec::new();
            elements
                .try_reserve_exact(len_bytes)
                .map_err(|_| refused(ACTION, "the box does not fit into memory"))?;
            elements.resize(len_bytes, 0u8);
            done(ACTION, || {
                // SAFETY: all identifiers are valid; the buffer has the bytes of as many elements as both selections have,
                // and elements without pointers are plain bytes.
                unsafe {
                    h5d::H5Dread(
                        dataset.0,
                        element.0,
                        memory.0,
                        space.0,
                        h5p::H5P_DEFAULT,
                        elements.as_mut_ptr().cast(),
                    )
                }
            })?;
            Ok(elements)
        })
    }

    fn open_dataset(&self, name: ObjectName<'_>, action: &'static str) -> Result<Handle, H5Error> {
        let object = match name {
            ObjectName::Path(path) => {
                let path = c_string(path, action)?;
                handle(action, || {
                    // SAFETY: the file is open; `path` ends with NUL and lives through the call.
                    unsafe { h5o::H5Oopen(self.id.0, path.as_ptr(), h5p::H5P_DEFAULT) }
                })?
            }
            ObjectName::Header(address) => {
                let mut token = h5o::H5O_token_t::default();
                done(action, || {
                    // SAFETY: the file is open, and the token is written within the call.
                    unsafe { H5VLnative_addr_to_token(self.id.0, address.0, &raw mut token) }
                })?;
                handle(action, || {
                    // SAFETY: the file is open; the library checks what lies at the address.
                    unsafe { h5o::H5Oopen_by_token(self.id.0, token) }
                })?
            }
        };
        // SAFETY: `object` is valid.
        match unsafe { h5i::H5Iget_type(object.0) } {
            h5i::H5I_type_t::H5I_DATASET => Ok(object),
            _ => Err(refused(action, "the object is not a dataset")),
        }
    }
}

/// What the callback of `H5Dchunk_iter` fills.
struct FoundChunks {
    rank: usize,
    base_address: u64,
    chunks: Vec<(Vec<u64>, StoredChunk)>,
}

/// One chunk of `H5Dchunk_iter`.
///
/// # Safety
/// `offset` points to as many numbers as the [`FoundChunks`] at `data` says, which nothing else uses.
unsafe extern "C" fn found_chunk(
    offset: *const h5::hsize_t,
    filter_mask: c_uint,
    address: h5::haddr_t,
    stored_bytes: h5::hsize_t,
    data: *mut c_void,
) -> c_int {
    // SAFETY: this is what the caller guarantees.
    let found = unsafe { &mut *data.cast::<FoundChunks>() };
    // SAFETY: as above.
    let offset = unsafe { std::slice::from_raw_parts(offset, found.rank) };
    let chunk = StoredChunk {
        address: Address(address.wrapping_sub(found.base_address)),
        stored_bytes,
        filter_mask,
    };
    found.chunks.push((offset.to_vec(), chunk));
    0
}

fn mapping(creation: &Handle, index: usize) -> Result<Mapping, H5Error> {
    const ACTION: &str = "read a mapping";
    let target = handle(ACTION, || {
        // SAFETY: `creation` is a valid dataset creation list; the library checks the index.
        unsafe { h5p::H5Pget_virtual_vspace(creation.0, index) }
    })?;
    let source = handle(ACTION, || {
        // SAFETY: as above.
        unsafe { h5p::H5Pget_virtual_srcspace(creation.0, index) }
    })?;
    let source_file = text(ACTION, |buffer, len| {
        // SAFETY: as above; the buffer has `len` bytes, or is null and 0.
        unsafe { h5p::H5Pget_virtual_filename(creation.0, index, buffer, len) }
    })?;
    let source_dataset = text(ACTION, |buffer, len| {
        // SAFETY: as above.
        unsafe { h5p::H5Pget_virtual_dsetname(creation.0, index, buffer, len) }
    })?;
    Ok(Mapping {
        source_file,
        source_dataset,
        source_selection: selection(&source)?,
        virtual_selection: selection(&target)?,
    })
}

fn selection(space: &Handle) -> Result<Selection, H5Error> {
    const ACTION: &str = "read a selection";
    let rank = rank(space, ACTION)?;
    // SAFETY: `space` is a valid dataspace.
    match unsafe { h5s::H5Sget_select_type(space.0) } {
        h5s::H5S_sel_type::H5S_SEL_NONE => Ok(Selection::None),
        h5s::H5S_sel_type::H5S_SEL_ALL => Ok(Selection::All),
        h5s::H5S_sel_type::H5S_SEL_POINTS => {
            // SAFETY: `space` is valid.
            let points = count(ACTION, || unsafe {
                h5s::H5Sget_select_elem_npoints(space.0)
            })?;
            let coordinates = numbers(ACTION, points, rank, |buffer| {
                // SAFETY: the buffer has `rank` numbers for each of the points.
                unsafe { h5s::H5Sget_select_elem_pointlist(space.0, 0, points as u64, buffer) }
            })?;
            Ok(Selection::Points { rank, coordinates })
        }
        h5s::H5S_sel_type::H5S_SEL_HYPERSLABS => {
            // SAFETY: `space` is valid.
            if unsafe { h5s::H5Sis_regular_hyperslab(space.0) } > 0 {
                return regular(space, rank);
            }
            // SAFETY: `space` is valid.
            let blocks = count(ACTION, || unsafe {
                h5s::H5Sget_select_hyper_nblocks(space.0)
            })?;
            let corners = numbers(ACTION, blocks, 2 * rank, |buffer| {
                // SAFETY: the buffer has two times `rank` numbers for each of the blocks.
                unsafe { h5s::H5Sget_select_hyper_blocklist(space.0, 0, blocks as u64, buffer) }
            })?;
            Ok(Selection::Blocks { rank, corners })
        }
        _ => Err(failure(ACTION)),
    }
}

fn regular(space: &Handle, rank: usize) -> Result<Selection, H5Error> {
    const ACTION: &str = "read a regular selection";
    let mut fields = [[0u64; MAX_RANK]; 4];
    let [start, stride, number, block] = &mut fields;
    done(ACTION, || {
        // SAFETY: `space` is valid, and each array has room for the most axes that a dataspace has.
        unsafe {
            h5s::H5Sget_regular_hyperslab(
                space.0,
                start.as_mut_ptr(),
                stride.as_mut_ptr(),
                number.as_mut_ptr(),
                block.as_mut_ptr(),
            )
        }
    })?;
    let limited = |n: u64| (n != h5s::H5S_UNLIMITED).then_some(n);
    let axis = |axis: usize| HyperslabAxis {
        start: start[axis],
        stride: stride[axis],
        count: limited(number[axis]),
        block: limited(block[axis]),
    };
    Ok(Selection::Regular((0..rank).map(axis).collect()))
}

/// A list that the library copies into a buffer of `groups * each` numbers.
fn numbers(
    action: &'static str,
    groups: usize,
    each: usize,
    copy: impl FnOnce(*mut u64) -> c_int,
) -> Result<Vec<u64>, H5Error> {
    let mut numbers = vec![0u64; groups.saturating_mul(each)];
    done(action, || copy(numbers.as_mut_ptr()))?;
    Ok(numbers)
}

/// A text whose length the library says when it is asked without a buffer.
fn text(
    action: &'static str,
    copy: impl Fn(*mut c_char, usize) -> isize,
) -> Result<Arc<[u8]>, H5Error> {
    let len = usize::try_from(copy(ptr::null_mut(), 0)).map_err(|_| failure(action))?;
    let mut buffer = vec![0u8; len + 1];
    if copy(buffer.as_mut_ptr().cast(), buffer.len()) < 0 {
        return Err(failure(action));
    }
    buffer.truncate(len);
    Ok(buffer.into())
}

fn dataspace(dataset: &Handle, action: &'static str) -> Result<Handle, H5Error> {
    // SAFETY: `dataset` is a valid dataset.
    handle(action, || unsafe { h5d::H5Dget_space(dataset.0) })
}

/// Number of axes; at most [`MAX_RANK`], which is the library's own limit.
fn rank(space: &Handle, action: &'static str) -> Result<usize, H5Error> {
    // SAFETY: `space` is a valid dataspace.
    let rank = unsafe { h5s::H5Sget_simple_extent_ndims(space.0) };
    usize::try_from(rank)
        .ok()
        .filter(|&rank| rank <= MAX_RANK)
        .ok_or_else(|| failure(action))
}

/// Whether elements of this type are, or contain, pointers.
pub(super) fn holds_pointers(element: &Handle, action: &'static str) -> Result<bool, H5Error> {
    use h5t::H5T_class_t as Class;
    // SAFETY: `element` is a valid type, here and in the calls below.
    match unsafe { h5t::H5Tget_class(element.0) } {
        Class::H5T_NO_CLASS => Err(failure(action)),
        Class::H5T_VLEN | Class::H5T_REFERENCE => Ok(true),
        // SAFETY: as above.
        Class::H5T_STRING => Ok(unsafe { h5t::H5Tis_variable_str(element.0) } != 0),
        Class::H5T_ARRAY => {
            // SAFETY: as above.
            let base = handle(action, || unsafe { h5t::H5Tget_super(element.0) })?;
            holds_pointers(&base, action)
        }
        Class::H5T_COMPOUND => {
            // SAFETY: as above.
            let members = unsafe { h5t::H5Tget_nmembers(element.0) };
            for member in 0..c_uint::try_from(members).map_err(|_| failure(action))? {
                let member = handle(action, || {
                    // SAFETY: as above, and the type has that many members.
                    unsafe { h5t::H5Tget_member_type(element.0, member) }
                })?;
                if holds_pointers(&member, action)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests;
