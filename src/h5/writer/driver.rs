//! A file driver for the C library that reads and writes through a [`Transaction`].
//!
//! The library is never told that a write failed: the transaction keeps the bytes in memory then and the failure for the caller to ask
//! after, so that the library can close the file in order. Only reading can fail.

// The functions are called by C, with pointers, and the library is told of them by a pointer.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::{Arc, Once, OnceLock};
use std::thread;

use std::os::unix::ffi::OsStrExt;

use hdf5::sync::sync;
use hdf5_sys::h5::{haddr_t, herr_t, hsize_t};
use hdf5_sys::h5f::{self, H5F_close_degree_t, H5F_libver_t};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::{h5fd, h5p};

use crate::h5::H5Error;
use crate::h5::call::{Handle, c_string, done, handle};
use crate::source::{Source, Transaction, TransactionError};

/// The driver's name, which the library shows.
const NAME: &CStr = c"vh5fs_transaction";
/// Of the numbers that are left to drivers which are not registered with The HDF Group (`H5FDpublic.h`).
const VALUE: c_int = 501;
/// `H5FD_CLASS_VERSION`.
const CLASS_VERSION: c_uint = 1;
/// The largest offset that the operating system knows.
const MAX_ADDRESS: haddr_t = i64::MAX.cast_unsigned();
const UNDEFINED: haddr_t = haddr_t::MAX;
const FAILURE: herr_t = -1;
const SUCCESS: herr_t = 0;

/// Which file is made of nothing, rather than opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// The file is there.
    Existing,
    /// The transaction is on an empty file.
    New,
}

thread_local! {
    /// What is being opened on this thread, for [`open`], which the library calls within `H5Fopen`.
    static OPENING: RefCell<Option<Arc<Transaction>>> = const { RefCell::new(None) };
}

/// Has the C library initialize itself and know the driver, which takes a millisecond or two: in a thread of its own, as its lock may be held
/// for long by who waits for other threads. An error comes again when a file is opened.
pub fn set_up_ahead() {
    static ASKED: Once = Once::new();
    ASKED.call_once(|| {
        let thread = thread::Builder::new().name("hdf5".to_owned());
        if let Err(error) = thread.spawn(|| sync(driver_id).map(|_| ())) {
            log::debug!("setting up the C library ahead: {error}");
        }
    });
}

/// Opens the file that `transaction` is on; `path` is what the library calls it. New objects are of no older format than `low`.
pub(super) fn open_file(
    transaction: &Arc<Transaction>,
    path: &Path,
    low: H5F_libver_t,
    opening: Opening,
) -> Result<Handle, H5Error> {
    const ACTION: &str = "open the file for writing";
    let name = c_string(path.as_os_str().as_bytes(), ACTION)?;
    sync(|| {
        let driver = driver_id()?;
        let access = handle(ACTION, || {
            // SAFETY: the class is a constant of the library, which `sync` has initialized.
            unsafe { h5p::H5Pcreate(*h5p::H5P_CLS_FILE_ACCESS) }
        })?;
        done(ACTION, || {
            // SAFETY: `access` is a valid file access list, here and below; the driver takes no information of its own.
            unsafe { h5p::H5Pset_driver(access.0, driver, ptr::null()) }
        })?;
        done(ACTION, || {
            // SAFETY: as above.
            unsafe { h5p::H5Pset_fclose_degree(access.0, H5F_close_degree_t::H5F_CLOSE_STRONG) }
        })?;
        done(ACTION, || {
            // SAFETY: as above.
            unsafe { h5p::H5Pset_libver_bounds(access.0, low, h5f::H5F_LIBVER_LATEST) }
        })?;
        // The transaction holds the lock.
        done(ACTION, || {
            // SAFETY: as above.
            unsafe { h5p::H5Pset_file_locking(access.0, 0, 1) }
        })?;
        OPENING.set(Some(Arc::clone(transaction)));
        let file = handle(ACTION, || {
            // SAFETY: `name` ends with NUL and lives through the call; `access` is valid.
            unsafe {
                match opening {
                    Opening::Existing => h5f::H5Fopen(name.as_ptr(), h5f::H5F_ACC_RDWR, access.0),
                    Opening::New => {
                        let creation = new_file_creation();
                        let file =
                            h5f::H5Fcreate(name.as_ptr(), h5f::H5F_ACC_TRUNC, creation, access.0);
                        h5p::H5Pclose(creation);
                        file
                    }
                }
            }
        });
        OPENING.set(None);
        file
    })
}

/// A file creation list as h5py makes it: the root group keeps no times.
///
/// # Safety
/// To be called under the library's lock; the result is to be closed.
unsafe fn new_file_creation() -> hid_t {
    // SAFETY: the class is a constant of the library; a list that could not be made is refused by the calls that get it.
    unsafe {
        let creation = h5p::H5Pcreate(*h5p::H5P_CLS_FILE_CREATE);
        h5p::H5Pset_obj_track_times(creation, 0);
        creation
    }
}

/// Closes a file that [`open_file`] opened, and everything in it.
pub(super) fn close_file(file: Handle) -> Result<(), H5Error> {
    let id = file.0;
    std::mem::forget(file);
    sync(|| {
        done("close the file", || {
            // SAFETY: the identifier is valid, and its owner is gone.
            unsafe { h5f::H5Fclose(id) }
        })
    })
}

/// The driver's identifier, which stays registered.
fn driver_id() -> Result<hid_t, H5Error> {
    static DRIVER: OnceLock<hid_t> = OnceLock::new();
    if let Some(&id) = DRIVER.get() {
        return Ok(id);
    }
    let registered = handle("register a file driver", || {
        // SAFETY: the class is laid out as the library's header says, and is copied; its name is a constant. The binding's type
        // lacks members, so only its pointer is of that type.
        unsafe { h5fd::H5FDregister((&raw const CLASS).cast()) }
    })?;
    let id = registered.0;
    std::mem::forget(registered);
    Ok(*DRIVER.get_or_init(|| id))
}

/// `H5FD_t` of H5FDdevelop.h: the beginning of each driver's own file.
#[repr(C)]
struct PublicFile {
    driver_id: hid_t,
    class: *const c_void,
    file_number: c_ulong,
    access_flags: c_uint,
    feature_flags: c_ulong,
    max_address: haddr_t,
    base_address: haddr_t,
    threshold: hsize_t,
    alignment: hsize_t,
    paged_aggregation: bool,
}

/// A file of this driver. Addresses are bytes from the beginning of the file.
#[repr(C)]
struct DriverFile {
    public: PublicFile,
    transaction: Arc<Transaction>,
    /// Where the space that the library has allocated ends.
    end_of_space: haddr_t,
}

type File = *mut DriverFile;
/// `H5F_mem_t`, which is not asked after.
type MemoryKind = c_int;

/// `H5FD_class_t` of H5FDdevelop.h, version 1 of the structure.
#[repr(C)]
struct Class {
    version: c_uint,
    value: c_int,
    name: *const c_char,
    max_address: haddr_t,
    close_degree: H5F_close_degree_t,
    terminate: Option<unsafe extern "C" fn() -> herr_t>,
    sb_size: Option<unsafe extern "C" fn(File) -> hsize_t>,
    sb_encode: Option<unsafe extern "C" fn(File, *mut c_char, *mut u8) -> herr_t>,
    sb_decode: Option<unsafe extern "C" fn(File, *const c_char, *const u8) -> herr_t>,
    fapl_size: usize,
    fapl_get: Option<unsafe extern "C" fn(File) -> *mut c_void>,
    fapl_copy: Option<unsafe extern "C" fn(*const c_void) -> *mut c_void>,
    fapl_free: Option<unsafe extern "C" fn(*mut c_void) -> herr_t>,
    dxpl_size: usize,
    dxpl_copy: Option<unsafe extern "C" fn(*const c_void) -> *mut c_void>,
    dxpl_free: Option<unsafe extern "C" fn(*mut c_void) -> herr_t>,
    open: Option<unsafe extern "C" fn(*const c_char, c_uint, hid_t, haddr_t) -> File>,
    close: Option<unsafe extern "C" fn(File) -> herr_t>,
    cmp: Option<unsafe extern "C" fn(*const DriverFile, *const DriverFile) -> c_int>,
    query: Option<unsafe extern "C" fn(*const DriverFile, *mut c_ulong) -> herr_t>,
    get_type_map: Option<unsafe extern "C" fn(*const DriverFile, *mut MemoryKind) -> herr_t>,
    alloc: Option<unsafe extern "C" fn(File, MemoryKind, hid_t, hsize_t) -> haddr_t>,
    free: Option<unsafe extern "C" fn(File, MemoryKind, hid_t, haddr_t, hsize_t) -> herr_t>,
    get_eoa: Option<unsafe extern "C" fn(*const DriverFile, MemoryKind) -> haddr_t>,
    set_eoa: Option<unsafe extern "C" fn(File, MemoryKind, haddr_t) -> herr_t>,
    get_eof: Option<unsafe extern "C" fn(*const DriverFile, MemoryKind) -> haddr_t>,
    get_handle: Option<unsafe extern "C" fn(File, hid_t, *mut *mut c_void) -> herr_t>,
    read: Option<
        unsafe extern "C" fn(File, MemoryKind, hid_t, haddr_t, usize, *mut c_void) -> herr_t,
    >,
    write: Option<
        unsafe extern "C" fn(File, MemoryKind, hid_t, haddr_t, usize, *const c_void) -> herr_t,
    >,
    /// `read_vector`, `write_vector`, `read_selection` and `write_selection`: the library does them by single reads and writes.
    vectors: [Option<unsafe extern "C" fn()>; 4],
    flush: Option<unsafe extern "C" fn(File, hid_t, bool) -> herr_t>,
    truncate: Option<unsafe extern "C" fn(File, hid_t, bool) -> herr_t>,
    lock: Option<unsafe extern "C" fn(File, bool) -> herr_t>,
    unlock: Option<unsafe extern "C" fn(File) -> herr_t>,
    del: Option<unsafe extern "C" fn(*const c_char, hid_t) -> herr_t>,
    ctl: Option<unsafe extern "C" fn(File, u64, u64, *const c_void, *mut *mut c_void) -> herr_t>,
    free_list_map: [c_int; 7],
}

// SAFETY: the only pointer in it is that of a constant name.
unsafe impl Sync for Class {}

static CLASS: Class = Class {
    version: CLASS_VERSION,
    value: VALUE,
    name: NAME.as_ptr(),
    max_address: MAX_ADDRESS,
    close_degree: H5F_close_degree_t::H5F_CLOSE_STRONG,
    terminate: None,
    sb_size: None,
    sb_encode: None,
    sb_decode: None,
    fapl_size: 0,
    fapl_get: None,
    fapl_copy: None,
    fapl_free: None,
    dxpl_size: 0,
    dxpl_copy: None,
    dxpl_free: None,
    open: Some(open),
    close: Some(close),
    cmp: Some(compare),
    query: Some(query),
    get_type_map: None,
    alloc: None,
    free: None,
    get_eoa: Some(end_of_space),
    set_eoa: Some(set_end_of_space),
    get_eof: Some(end_of_file),
    get_handle: None,
    read: Some(read),
    write: Some(write),
    vectors: [None; 4],
    flush: None,
    truncate: Some(truncate),
    lock: None,
    unlock: None,
    del: None,
    ctl: None,
    // `H5FD_FLMAP_DICHOTOMY`: metadata and raw data are allocated apart.
    free_list_map: [1, 1, 1, 3, 3, 1, 1],
};

/// What `call` returns, or `failed` where it panics: a panic must not go on in C.
fn guarded<T>(failed: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(failed)
}

/// # Safety
/// Called by the library within [`open_file`]; the pointers are not used.
unsafe extern "C" fn open(
    _name: *const c_char,
    _flags: c_uint,
    _access: hid_t,
    _max_address: haddr_t,
) -> File {
    guarded(ptr::null_mut(), || {
        // Another file that the library wants to open along with ours is none that this driver has.
        let Some(transaction) = OPENING.with_borrow(Option::clone) else {
            return ptr::null_mut();
        };
        Box::into_raw(Box::new(DriverFile {
            // The library fills it in.
            public: PublicFile {
                driver_id: 0,
                class: ptr::null(),
                file_number: 0,
                access_flags: 0,
                feature_flags: 0,
                max_address: 0,
                base_address: 0,
                threshold: 0,
                alignment: 0,
                paged_aggregation: false,
            },
            transaction,
            end_of_space: 0,
        }))
    })
}

/// # Safety
/// `file` came from [`open`] and is not used afterwards.
unsafe extern "C" fn close(file: File) -> herr_t {
    guarded(FAILURE, || {
        // SAFETY: this is what the caller guarantees.
        drop(unsafe { Box::from_raw(file) });
        SUCCESS
    })
}

/// Two openings are never one file: each has its transaction.
///
/// # Safety
/// The pointers are compared alone.
unsafe extern "C" fn compare(a: *const DriverFile, b: *const DriverFile) -> c_int {
    match a.cmp(&b) {
        std::cmp::Ordering::Less => -1,
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater => 1,
    }
}

/// # Safety
/// `flags` is null or can be written.
unsafe extern "C" fn query(_file: *const DriverFile, flags: *mut c_ulong) -> herr_t {
    let supported = h5fd::H5FD_FEAT_AGGREGATE_METADATA
        | h5fd::H5FD_FEAT_ACCUMULATE_METADATA
        | h5fd::H5FD_FEAT_DATA_SIEVE
        | h5fd::H5FD_FEAT_AGGREGATE_SMALLDATA
        | h5fd::H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    if !flags.is_null() {
        // SAFETY: this is what the caller guarantees.
        unsafe { *flags = c_ulong::from(supported) };
    }
    SUCCESS
}

/// # Safety
/// `file` came from [`open`], here and in the functions below.
unsafe extern "C" fn end_of_space(file: *const DriverFile, _kind: MemoryKind) -> haddr_t {
    // SAFETY: this is what the caller guarantees.
    unsafe { (*file).end_of_space }
}

/// # Safety
/// As for [`end_of_space`].
unsafe extern "C" fn set_end_of_space(file: File, _kind: MemoryKind, end: haddr_t) -> herr_t {
    // SAFETY: this is what the caller guarantees.
    unsafe { (*file).end_of_space = end };
    SUCCESS
}

/// # Safety
/// As for [`end_of_space`].
unsafe extern "C" fn end_of_file(file: *const DriverFile, _kind: MemoryKind) -> haddr_t {
    guarded(UNDEFINED, || {
        // SAFETY: this is what the caller guarantees.
        let file = unsafe { &*file };
        file.transaction.len_bytes().unwrap_or(UNDEFINED)
    })
}

/// # Safety
/// As for [`end_of_space`]; `buffer` has `size` bytes that can be written.
unsafe extern "C" fn read(
    file: File,
    _kind: MemoryKind,
    _transfer: hid_t,
    address: haddr_t,
    size: usize,
    buffer: *mut c_void,
) -> herr_t {
    guarded(FAILURE, || {
        // SAFETY: this is what the caller guarantees; bytes are set before anything reads them.
        let (file, buffer) = unsafe {
            ptr::write_bytes(buffer.cast::<u8>(), 0, size);
            (
                &*file,
                std::slice::from_raw_parts_mut(buffer.cast::<u8>(), size),
            )
        };
        match read_zero_filled(&file.transaction, address, buffer) {
            Ok(()) => SUCCESS,
            Err(failure) => {
                file.transaction.fail(failure);
                FAILURE
            }
        }
    })
}

/// Reads as far as the file goes. Space that was allocated behind its end holds nothing yet.
fn read_zero_filled(
    transaction: &Transaction,
    address: u64,
    buffer: &mut [u8],
) -> Result<(), TransactionError> {
    let there = transaction.len_bytes()?.saturating_sub(address);
    let there = usize::try_from(there).map_or(buffer.len(), |there| there.min(buffer.len()));
    Ok(transaction.read_exact_at(&mut buffer[..there], address)?)
}

/// # Safety
/// As for [`end_of_space`]; `buffer` has `size` bytes.
unsafe extern "C" fn write(
    file: File,
    _kind: MemoryKind,
    _transfer: hid_t,
    address: haddr_t,
    size: usize,
    buffer: *const c_void,
) -> herr_t {
    guarded(FAILURE, || {
        // SAFETY: this is what the caller guarantees.
        let (file, bytes) = unsafe {
            (
                &*file,
                std::slice::from_raw_parts(buffer.cast::<u8>(), size),
            )
        };
        // The transaction keeps its failure, and the bytes.
        let _kept = file.transaction.write_at(address, bytes);
        SUCCESS
    })
}

/// # Safety
/// As for [`end_of_space`].
unsafe extern "C" fn truncate(file: File, _transfer: hid_t, _closing: bool) -> herr_t {
    guarded(FAILURE, || {
        // SAFETY: this is what the caller guarantees.
        let file = unsafe { &*file };
        file.transaction.set_len(file.end_of_space);
        SUCCESS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets of the members as a C compiler gives them for H5FDdevelop.h of HDF5 2.x on a 64-bit machine.
    #[test]
    fn the_class_is_laid_out_as_the_library_expects() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(Class, name), 8);
        assert_eq!(offset_of!(Class, fapl_size), 64);
        assert_eq!(offset_of!(Class, open), 120);
        assert_eq!(offset_of!(Class, read), 208);
        assert_eq!(offset_of!(Class, flush), 256);
        assert_eq!(offset_of!(Class, free_list_map), 304);
        assert_eq!(size_of::<Class>(), 336);
        assert_eq!(offset_of!(PublicFile, feature_flags), 32);
        assert_eq!(size_of::<PublicFile>(), 80);
    }
}
