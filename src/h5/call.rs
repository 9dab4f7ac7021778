//! Calling the C library: identifiers, results and its error stack. All of it is done under the library's one lock.

// The library is C: every call of it is unsafe.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_uint, c_void};

use hdf5::sync::sync;
use hdf5_sys::{h5, h5e, h5i};

use super::H5Error;

/// An identifier of the library, given back when dropped.
#[derive(Debug)]
pub(super) struct Handle(pub(super) h5i::hid_t);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the identifier is valid and this is its only owner; the call is made under the library's lock.
        sync(|| unsafe { h5i::H5Idec_ref(self.0) });
    }
}

/// A string for the library.
pub(super) fn c_string(bytes: &[u8], action: &'static str) -> Result<CString, H5Error> {
    CString::new(bytes).map_err(|_| refused(action, "a name with a NUL"))
}

/// The new identifier that `call` makes.
pub(super) fn handle(
    action: &'static str,
    call: impl FnOnce() -> h5i::hid_t,
) -> Result<Handle, H5Error> {
    match call() {
        id if id >= 0 => Ok(Handle(id)),
        _ => Err(failure(action)),
    }
}

/// Whether `call` succeeded.
pub(super) fn done(action: &'static str, call: impl FnOnce() -> c_int) -> Result<(), H5Error> {
    if call() < 0 {
        Err(failure(action))
    } else {
        Ok(())
    }
}

/// The answer of a `call` that says yes, no or that it failed.
pub(super) fn answer(
    action: &'static str,
    call: impl FnOnce() -> h5::htri_t,
) -> Result<bool, H5Error> {
    match call() {
        negative if negative < 0 => Err(failure(action)),
        answer => Ok(answer > 0),
    }
}

/// The number that `call` returns.
pub(super) fn count(
    action: &'static str,
    call: impl FnOnce() -> h5::hssize_t,
) -> Result<usize, H5Error> {
    usize::try_from(call()).map_err(|_| failure(action))
}

/// An error that is found here, before the library is asked.
pub(super) fn refused(action: &'static str, message: &str) -> H5Error {
    H5Error::Library {
        action,
        message: message.to_owned(),
    }
}

/// The error that the library's stack describes, which is cleared.
pub(super) fn failure(action: &'static str) -> H5Error {
    let mut innermost: Option<String> = None;
    // SAFETY: called under the lock, before any other call changes the stack; the callback gets a pointer to `innermost`, which
    // lives through the call.
    unsafe {
        h5e::H5Ewalk2(
            h5e::H5E_DEFAULT,
            h5e::H5E_direction_t::H5E_WALK_UPWARD,
            Some(first_message),
            (&raw mut innermost).cast(),
        );
        h5e::H5Eclear2(h5e::H5E_DEFAULT);
    }
    H5Error::Library {
        action,
        message: innermost.unwrap_or_else(|| "it does not say why".to_owned()),
    }
}

/// Keeps the first message of a walk.
///
/// # Safety
/// `error` is an entry of the library's stack; `data` points to an `Option<String>` that nothing else uses.
unsafe extern "C" fn first_message(
    _number: c_uint,
    error: *const h5e::H5E_error2_t,
    data: *mut c_void,
) -> c_int {
    // SAFETY: this is what the caller guarantees; the description is null or ends with NUL.
    unsafe {
        let first = &mut *data.cast::<Option<String>>();
        let text = (*error).desc;
        if first.is_none() && !text.is_null() {
            *first = Some(CStr::from_ptr(text).to_string_lossy().into_owned());
        }
    }
    0
}
