//! [`LibraryWriter`]: groups and links, written by the C library.

// The library is C: every call of it is unsafe.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;

use hdf5::sync::sync;
use hdf5_sys::h5f::H5F_libver_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5t::H5T_cset_t;
use hdf5_sys::{h5, h5f, h5g, h5i, h5l, h5p};

use super::WriteError;
use super::driver::{self, Opening};
use crate::h5::H5Error;
use crate::h5::call::{Handle, answer, done, handle};
use crate::source::Transaction;

unsafe extern "C" {
    /// Of the library's H5Fpublic.h, which `hdf5_sys` leaves out.
    fn H5Fset_libver_bounds(file: h5i::hid_t, low: H5F_libver_t, high: H5F_libver_t) -> h5::herr_t;
}

/// A file that the C library has open for writing. Paths are absolute: HDF5 names joined by `/`.
#[derive(Debug)]
pub struct LibraryWriter {
    pub(super) file: Handle,
    pub(super) transaction: Arc<Transaction>,
    /// The oldest format of new objects, as the file has it.
    low: H5F_libver_t,
}

impl LibraryWriter {
    /// Opens the file that `transaction` is on, whose superblock is of that version.
    pub(super) fn open(
        transaction: &Arc<Transaction>,
        path: &Path,
        superblock_version: u8,
        opening: Opening,
    ) -> Result<Self, WriteError> {
        // What made a superblock of version 2 makes no objects of the formats before it. Readers of later superblocks read those too.
        let low = match superblock_version {
            0 | 1 => H5F_libver_t::H5F_LIBVER_EARLIEST,
            _ => H5F_libver_t::H5F_LIBVER_V18,
        };
        let file = driver::open_file(transaction, path, low, opening);
        let file = checked(transaction, file)?;
        Ok(Self {
            file,
            transaction: Arc::clone(transaction),
            low,
        })
    }

    /// Closes the file, which writes all that the library still has in memory.
    pub(super) fn close(self) -> Result<(), WriteError> {
        let Self {
            file, transaction, ..
        } = self;
        checked(&transaction, driver::close_file(file))
    }

    /// What `ask` gets from the library, under its lock; where a read or a write failed, that is the error.
    pub(super) fn ask<T>(
        &self,
        ask: impl FnOnce() -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let answer = sync(ask);
        match self.transaction.failure() {
            Some(failure) => Err(failure.into()),
            None => answer,
        }
    }

    /// Whether objects made from now on may have attributes of more than 64 KiB: in files of the oldest format they are then of the
    /// next one, which HDF5 1.8 and later read.
    ///
    /// # Errors
    /// [`WriteError::H5`].
    pub fn allow_large_attributes(&mut self, allow: bool) -> Result<(), WriteError> {
        let low = match self.low {
            H5F_libver_t::H5F_LIBVER_EARLIEST if allow => H5F_libver_t::H5F_LIBVER_V18,
            low => low,
        };
        self.ask(|| {
            done("choose the format of new objects", || {
                // SAFETY: the file is open.
                unsafe { H5Fset_libver_bounds(self.file.0, low, h5f::H5F_LIBVER_LATEST) }
            })?;
            Ok(())
        })
    }

    /// Whether there is an object at `path`.
    ///
    /// # Errors
    /// [`WriteError::Name`]; [`WriteError::H5`]; [`WriteError::Transaction`].
    pub fn exists(&self, path: &[u8]) -> Result<bool, WriteError> {
        self.ask(|| self.has_link(path))
    }

    /// Under the library's lock. The library wants every link of a path but the last one to be there.
    fn has_link(&self, path: &[u8]) -> Result<bool, WriteError> {
        let mut ends: Vec<usize> = (1..path.len()).filter(|&at| path[at] == b'/').collect();
        ends.push(path.len());
        for end in ends {
            let prefix = path_name(&path[..end])?;
            let is_there = answer("look for an object", || {
                // SAFETY: the file is open; the path ends with NUL and lives through the call.
                unsafe { h5l::H5Lexists(self.file.0, prefix.as_ptr(), H5P_DEFAULT) }
            })?;
            if !is_there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes a group, and those above it that are missing.
    ///
    /// # Errors
    /// [`WriteError::Exists`]; as for [`LibraryWriter::exists`].
    pub fn create_group(&mut self, path: &[u8]) -> Result<(), WriteError> {
        const ACTION: &str = "make a group";
        self.ask(|| {
            let name = self.new_name(path)?;
            let links = link_creation(path)?;
            let creation = handle(ACTION, || {
                // SAFETY: the class is a constant of the library.
                unsafe { h5p::H5Pcreate(*h5p::H5P_CLS_GROUP_CREATE) }
            })?;
            done(ACTION, || {
                // SAFETY: `creation` is a valid list.
                unsafe { h5p::H5Pset_obj_track_times(creation.0, 0) }
            })?;
            handle(ACTION, || {
                // SAFETY: the file and the lists are valid; the path ends with NUL and lives through the call.
                unsafe {
                    h5g::H5Gcreate2(self.file.0, name.as_ptr(), links.0, creation.0, H5P_DEFAULT)
                }
            })?;
            Ok(())
        })
    }

    /// Gives the object at `existing` the path `new` too (and makes the groups above that which are missing).
    ///
    /// # Errors
    /// [`WriteError::Exists`]; as for [`LibraryWriter::exists`].
    pub fn hard_link(&mut self, existing: &[u8], new: &[u8]) -> Result<(), WriteError> {
        self.ask(|| {
            let (existing, name) = (path_name(existing)?, self.new_name(new)?);
            let links = link_creation(new)?;
            done("link an object", || {
                // SAFETY: the file and the list are valid; both paths end with NUL and live through the call.
                unsafe {
                    h5l::H5Lcreate_hard(
                        self.file.0,
                        existing.as_ptr(),
                        self.file.0,
                        name.as_ptr(),
                        links.0,
                        H5P_DEFAULT,
                    )
                }
            })?;
            Ok(())
        })
    }

    /// The path of a new object, where there is none yet.
    pub(super) fn new_name(&self, path: &[u8]) -> Result<CString, WriteError> {
        let name = path_name(path)?;
        if self.has_link(path)? {
            return Err(WriteError::Exists {
                path: String::from_utf8_lossy(path).into_owned(),
            });
        }
        Ok(name)
    }
}

/// `result`, or the failure of the transaction that is behind it.
fn checked<T>(transaction: &Transaction, result: Result<T, H5Error>) -> Result<T, WriteError> {
    match transaction.failure() {
        Some(failure) => Err(failure.into()),
        None => Ok(result?),
    }
}

/// An absolute path for the library.
pub(super) fn path_name(path: &[u8]) -> Result<CString, WriteError> {
    let refused = |what| WriteError::Name {
        name: String::from_utf8_lossy(path).into_owned(),
        what,
    };
    if path.first() != Some(&b'/') {
        return Err(refused("it is not an absolute path"));
    }
    if path.len() > 1
        && path[1..]
            .split(|&b| b == b'/')
            .any(|name| matches!(name, b"" | b"."))
    {
        return Err(refused("one of its names is empty or a dot"));
    }
    CString::new(path).map_err(|_| refused("it has a NUL"))
}

/// A link creation list as h5py makes it: groups above are made, and the name is called ASCII where it is.
pub(super) fn link_creation(path: &[u8]) -> Result<Handle, WriteError> {
    const ACTION: &str = "prepare a link";
    let links = handle(ACTION, || {
        // SAFETY: the class is a constant of the library.
        unsafe { h5p::H5Pcreate(*h5p::H5P_CLS_LINK_CREATE) }
    })?;
    done(ACTION, || {
        // SAFETY: `links` is a valid link creation list, here and below.
        unsafe { h5p::H5Pset_create_intermediate_group(links.0, 1) }
    })?;
    let is_utf8 = !path.is_ascii() && std::str::from_utf8(path).is_ok();
    let characters = if is_utf8 {
        H5T_cset_t::H5T_CSET_UTF8
    } else {
        H5T_cset_t::H5T_CSET_ASCII
    };
    done(ACTION, || {
        // SAFETY: as above.
        unsafe { h5p::H5Pset_char_encoding(links.0, characters) }
    })?;
    Ok(links)
}
