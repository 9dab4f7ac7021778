//! The filters of new datasets, whose parameters are stored as they are given.
//!
//! Filters that the C library does not have are made known to it by name, so that datasets that use them can be made; their chunks are
//! always written encoded. From those that it has it is taken to set parameters of their own, as they do when a dataset is made: chunks are
//! decoded by what is stored, and other releases of a filter would store something else.

// Filters are registered by calls of the C library.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::sync::{Mutex, PoisonError};

use hdf5_sys::h5::herr_t;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::{h5p, h5z};

use super::WriteError;
use crate::h5::Filter;
use crate::h5::call::{Handle, answer, done};

const ACTION: &str = "set the filters of a dataset";
/// The most parameters that the library gives out; only n-bit can have more.
const MAX_PARAMETERS: usize = 256;

unsafe extern "C" {
    /// Of the library's H5Zprivate.h: as `H5Zregister`, which refuses the numbers of the library's own filters, even those that it
    /// was built without.
    fn H5Z_register(class: *const h5z::H5Z_class2_t) -> herr_t;
    /// Of the same header: where the library keeps the class of a filter.
    fn H5Z_find(attempt: bool, id: h5z::H5Z_filter_t, class: *mut *mut h5z::H5Z_class2_t)
    -> herr_t;
}

/// Puts `filters` into a dataset creation list. To be called under the library's lock.
pub(super) fn set(creation: &Handle, filters: &[Filter]) -> Result<(), WriteError> {
    for filter in filters {
        make_known(filter)?;
        keep_parameters(filter.id)?;
        let parameters = &filter.parameters;
        done(ACTION, || {
            // SAFETY: `creation` is a valid dataset creation list, and there are as many parameters as is said.
            unsafe {
                h5p::H5Pset_filter(
                    creation.0,
                    c_int::from(filter.id),
                    c_uint::from(filter.flags),
                    parameters.len(),
                    parameters.as_ptr(),
                )
            }
        })?;
    }
    Ok(())
}

/// Checks that a dataset with this creation list has exactly `filters`: chunks are decoded by what is stored.
pub(super) fn check(
    creation: &Handle,
    filters: &[Filter],
    object: &[u8],
) -> Result<(), WriteError> {
    for (number, filter) in (0..).zip(filters) {
        let (mut flags, mut len, mut config) = (0, MAX_PARAMETERS, 0);
        let mut parameters = vec![0; MAX_PARAMETERS];
        // SAFETY: `creation` is a valid dataset creation list; the buffer has as many numbers as is said; no name is asked for.
        let id = unsafe {
            h5p::H5Pget_filter2(
                creation.0,
                number,
                &raw mut flags,
                &raw mut len,
                parameters.as_mut_ptr(),
                0,
                std::ptr::null_mut(),
                &raw mut config,
            )
        };
        parameters.truncate(len);
        if id != c_int::from(filter.id)
            || len != filter.parameters.len()
            || !filter.parameters.starts_with(&parameters)
        {
            return Err(WriteError::FilterParameters {
                object: String::from_utf8_lossy(object).into_owned(),
                filter: filter.id,
            });
        }
    }
    Ok(())
}

/// Tells the library of a filter that it does not have.
fn make_known(filter: &Filter) -> Result<(), WriteError> {
    /// The names, which the library keeps pointers to.
    static NAMES: Mutex<Option<HashMap<u16, CString>>> = Mutex::new(None);
    let id = c_int::from(filter.id);
    // SAFETY: any number may be asked after.
    if answer(ACTION, || unsafe { h5z::H5Zfilter_avail(id) })? {
        return Ok(());
    }
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let name = filter.name.as_deref().unwrap_or("filter");
    // A name is never replaced, so the pointer to it stays good.
    let name = names
        .get_or_insert_default()
        .entry(filter.id)
        .or_insert_with(|| CString::new(name).unwrap_or_default());
    let class = h5z::H5Z_class2_t {
        version: c_int::try_from(h5z::H5Z_CLASS_T_VERS).unwrap_or(1),
        id,
        encoder_present: 1,
        decoder_present: 1,
        name: name.as_ptr(),
        can_apply: None,
        set_local: None,
        filter: Some(no_filter),
    };
    // SAFETY: the class is whole and copied; its name and its function live as long as the process.
    done(ACTION, || unsafe { H5Z_register(&raw const class) })?;
    Ok(())
}

/// Lets a filter that is known take the parameters that it is given.
fn keep_parameters(id: u16) -> Result<(), WriteError> {
    let mut found: *mut h5z::H5Z_class2_t = std::ptr::null_mut();
    done(ACTION, || {
        // SAFETY: the pointer is written within the call.
        unsafe { H5Z_find(false, c_int::from(id), &raw mut found) }
    })?;
    // SAFETY: the filter was found, so this points into the library's table, which nothing changes under the library's lock.
    let mut class = unsafe { found.read() };
    if class.set_local.take().is_some() {
        // SAFETY: the class is whole, and takes the place of the one that it is a copy of.
        done(ACTION, || unsafe { H5Z_register(&raw const class) })?;
    }
    Ok(())
}

/// Neither encodes nor decodes: 0 is a failure.
///
/// # Safety
/// None of the pointers is used.
unsafe extern "C" fn no_filter(
    _flags: c_uint,
    _parameters: usize,
    _values: *const c_uint,
    _bytes: usize,
    _buffer_bytes: *mut usize,
    _buffer: *mut *mut c_void,
) -> usize {
    0
}

/// The creation list of an open dataset.
pub(super) fn creation_of(dataset: hid_t) -> Result<Handle, WriteError> {
    Ok(crate::h5::call::handle(ACTION, || {
        // SAFETY: the caller has the dataset open.
        unsafe { hdf5_sys::h5d::H5Dget_create_plist(dataset) }
    })?)
}
