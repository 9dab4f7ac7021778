//! The LZF filter for the C library, as h5py has it. The one that comes with the library's binding gives new datasets the number of a later
//! compressor, by which they could be told from those that h5py makes.

// The filter is a function that the C library calls, with buffers of the C library.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use hdf5_sys::h5::{H5allocate_memory, H5free_memory};
use hdf5_sys::h5z;

use super::WriteError;
use crate::codec::{FilterSpec, Pipeline, Scratch};
use crate::h5::call::done;

/// The registered number.
pub(super) const ID: u16 = 32000;
const NAME: &std::ffi::CStr = c"lzf";
/// Which of the parameters is the length of a chunk (`lzf_filter.c`).
const CHUNK_BYTES: usize = 2;

unsafe extern "C" {
    /// Of the library's H5Zprivate.h: as `H5Zregister`.
    fn H5Z_register(class: *const h5z::H5Z_class2_t) -> hdf5_sys::h5::herr_t;
}

/// Puts the filter in place of any other of its number. To be called under the library's lock.
///
/// # Errors
/// [`WriteError::H5`].
pub(super) fn register() -> Result<(), WriteError> {
    let class = h5z::H5Z_class2_t {
        version: c_int::try_from(h5z::H5Z_CLASS_T_VERS).unwrap_or(1),
        id: c_int::from(ID),
        encoder_present: 1,
        decoder_present: 1,
        name: NAME.as_ptr(),
        can_apply: None,
        // Parameters are given complete.
        set_local: None,
        filter: Some(lzf),
    };
    done("register the LZF filter", || {
        // SAFETY: the class is whole and copied; its name and its function live as long as the process.
        unsafe { H5Z_register(&raw const class) }
    })?;
    Ok(())
}

/// Encodes or decodes: the number of bytes that are in `*buffer` then, or 0 for a failure.
///
/// # Safety
/// As the library calls a filter: `values` has `parameters` numbers, `*buffer` is of the library's memory and has `*buffer_bytes` bytes, of
/// which `bytes` count.
unsafe extern "C" fn lzf(
    flags: c_uint,
    parameters: usize,
    values: *const c_uint,
    bytes: usize,
    buffer_bytes: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    // SAFETY: the library gives as many parameters as it says, and a buffer of at least `bytes` bytes.
    let (chunk_bytes, input) = unsafe {
        let chunk_bytes = if parameters > CHUNK_BYTES {
            *values.add(CHUNK_BYTES)
        } else {
            0
        };
        (
            chunk_bytes,
            std::slice::from_raw_parts((*buffer).cast::<u8>(), bytes),
        )
    };
    let is_decoding = flags & h5z::H5Z_FLAG_REVERSE != 0;
    let output = catch_unwind(AssertUnwindSafe(|| recode(is_decoding, input, chunk_bytes)));
    let Ok(Some(output)) = output else {
        return 0;
    };
    // SAFETY: the new buffer has room for the output, and takes the place of the old one, which the library allocated.
    unsafe {
        let new = H5allocate_memory(output.len(), 0);
        if new.is_null() {
            return 0;
        }
        std::ptr::copy_nonoverlapping(output.as_ptr(), new.cast::<u8>(), output.len());
        H5free_memory(*buffer);
        *buffer = new;
        *buffer_bytes = output.len();
    }
    output.len()
}

/// `None` where the bytes cannot be decoded, or do not become shorter.
fn recode(is_decoding: bool, input: &[u8], chunk_bytes: c_uint) -> Option<Vec<u8>> {
    let filter = FilterSpec {
        id: ID,
        flags: 0,
        parameters: Vec::new(),
    };
    if is_decoding {
        let chunk_bytes = usize::try_from(chunk_bytes).ok()?;
        let mut output = vec![0; chunk_bytes];
        Pipeline::new(&[filter], 1, chunk_bytes)
            .and_then(|lzf| lzf.decode_into(input, 0, &mut output, &mut Scratch::default()))
            .ok()?;
        Some(output)
    } else {
        let (output, _) = Pipeline::new(&[filter], 1, input.len())
            .and_then(|lzf| lzf.encode(input, &mut Scratch::default()))
            .ok()?;
        Some(output)
    }
}
