//! Attributes, written by the C library. Objects are named and never opened: opening a virtual dataset costs as much as it has mappings.

// The library is C: every call of it is unsafe.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use hdf5_sys::h5a;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::{h5s, h5t};

use super::library_writer::path_name;
use super::spec::{AttributeData, AttributeShape, NewAttribute};
use super::{LibraryWriter, WriteError, types};
use crate::h5::call::{Handle, answer, count, done, handle};
use crate::h5::library::holds_pointers;

impl LibraryWriter {
    /// Copies the attributes `names` of the object at `from` to the object at `to`, which has none of them. Neither object is opened, so it
    /// costs nothing that a dataset is virtual; that is why the names are asked for, which the library lists of opened objects alone.
    ///
    /// # Errors
    /// As for [`LibraryWriter::exists`].
    pub fn copy_attributes<N: AsRef<[u8]>>(
        &mut self,
        from: &[u8],
        to: &[u8],
        names: &[N],
    ) -> Result<(), WriteError> {
        self.ask(|| {
            let (from, to) = (path_name(from)?, path_name(to)?);
            for name in names {
                self.copy_attribute(&from, &to, &attribute_name(name.as_ref())?)?;
            }
            Ok(())
        })
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
        const ACTION: &str = "set an attribute";
        self.ask(|| {
            let (object, name) = (path_name(path)?, attribute_name(attribute.name)?);
            let element = types::make(attribute.datatype)?;
            let space = dataspace(attribute.shape)?;
            let mismatch = |what| WriteError::Mismatch {
                object: String::from_utf8_lossy(path).into_owned(),
                what,
            };
            let len = points(&space, ACTION)?;
            let (texts, pointers): (Vec<CString>, Vec<*const c_char>);
            let data: *const c_void = match attribute.data {
                AttributeData::Bytes(bytes) => {
                    if attribute.datatype.contains_pointers() {
                        return Err(mismatch("an attribute's elements are not plain bytes"));
                    }
                    if len.checked_mul(attribute.datatype.size) != Some(bytes.len()) {
                        return Err(mismatch("an attribute's bytes do not fill its shape"));
                    }
                    bytes.as_ptr().cast()
                }
                AttributeData::Strings(strings) => {
                    if !attribute.datatype.is_vlen_string() || strings.len() != len {
                        return Err(mismatch("an attribute's strings do not fill its shape"));
                    }
                    texts = strings.iter().map(|text| up_to_nul(text)).collect();
                    pointers = texts.iter().map(|text| text.as_ptr()).collect();
                    pointers.as_ptr().cast()
                }
            };
            self.delete_attribute(&object, &name)?;
            let made = self.new_attribute(&object, &name, &element, &space, H5P_DEFAULT)?;
            if len > 0 {
                done(ACTION, || {
                    // SAFETY: the attribute and the type are valid; the data has an element of that type for each point of the space,
                    // bytes or pointers to texts that end with NUL, all of which live through the call.
                    unsafe { h5a::H5Awrite(made.0, element.0, data) }
                })?;
            }
            Ok(())
        })
    }

    /// Takes an attribute away, if the object at `path` has it.
    ///
    /// # Errors
    /// As for [`LibraryWriter::exists`].
    pub fn remove_attribute(&mut self, path: &[u8], name: &[u8]) -> Result<(), WriteError> {
        self.ask(|| self.delete_attribute(&path_name(path)?, &attribute_name(name)?))
    }

    fn delete_attribute(&self, object: &CStr, name: &CStr) -> Result<(), WriteError> {
        const ACTION: &str = "remove an attribute";
        let is_there = answer(ACTION, || {
            // SAFETY: the file is open; both names end with NUL and live through the call, here and below.
            unsafe {
                h5a::H5Aexists_by_name(self.file.0, object.as_ptr(), name.as_ptr(), H5P_DEFAULT)
            }
        })?;
        if is_there {
            done(ACTION, || {
                // SAFETY: as above.
                unsafe {
                    h5a::H5Adelete_by_name(self.file.0, object.as_ptr(), name.as_ptr(), H5P_DEFAULT)
                }
            })?;
        }
        Ok(())
    }

    fn new_attribute(
        &self,
        object: &CStr,
        name: &CStr,
        element: &Handle,
        space: &Handle,
        creation: hid_t,
    ) -> Result<Handle, WriteError> {
        Ok(handle("make an attribute", || {
            // SAFETY: all identifiers are valid; both names end with NUL and live through the call.
            unsafe {
                h5a::H5Acreate_by_name(
                    self.file.0,
                    object.as_ptr(),
                    name.as_ptr(),
                    element.0,
                    space.0,
                    creation,
                    H5P_DEFAULT,
                    H5P_DEFAULT,
                )
            }
        })?)
    }

    fn copy_attribute(&self, from: &CStr, to: &CStr, name: &CStr) -> Result<(), WriteError> {
        const ACTION: &str = "copy an attribute";
        let source = handle(ACTION, || {
            // SAFETY: the file is open; both names end with NUL and live through the call.
            unsafe {
                h5a::H5Aopen_by_name(
                    self.file.0,
                    from.as_ptr(),
                    name.as_ptr(),
                    H5P_DEFAULT,
                    H5P_DEFAULT,
                )
            }
        })?;
        // SAFETY: `source` is a valid attribute, here and below.
        let element = handle(ACTION, || unsafe { h5a::H5Aget_type(source.0) })?;
        // SAFETY: as above.
        let space = handle(ACTION, || unsafe { h5a::H5Aget_space(source.0) })?;
        // SAFETY: as above.
        let creation = handle(ACTION, || unsafe { h5a::H5Aget_create_plist(source.0) })?;
        let len = points(&space, ACTION)?;
        let made = self.new_attribute(to, name, &element, &space, creation.0)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: `element` is a valid type.
        let element_bytes = unsafe { h5t::H5Tget_size(element.0) };
        let too_large = WriteError::TooLarge {
            what: "an attribute",
            size: len as u64,
        };
        let len_bytes = len.checked_mul(element_bytes).ok_or(too_large)?;
        // Pointers of variable-length elements are written into it, so it is aligned for them.
        let mut elements = vec![0u64; len_bytes.div_ceil(size_of::<u64>())];
        let data: *mut c_void = elements.as_mut_ptr().cast();
        done(ACTION, || {
            // SAFETY: the buffer has room for as many elements of that type as the attribute has.
            unsafe { h5a::H5Aread(source.0, element.0, data) }
        })?;
        let written = done(ACTION, || {
            // SAFETY: the buffer holds what the library has just read with the same type.
            unsafe { h5a::H5Awrite(made.0, element.0, data) }
        });
        if holds_pointers(&element, ACTION)? {
            done(ACTION, || {
                // SAFETY: as above; the library allocated what the elements point to, and nothing else points to it.
                unsafe { h5t::H5Treclaim(element.0, space.0, H5P_DEFAULT, data) }
            })?;
        }
        Ok(written?)
    }
}

fn dataspace(shape: AttributeShape<'_>) -> Result<Handle, WriteError> {
    const ACTION: &str = "make a dataspace";
    let space = match shape {
        // SAFETY: the arguments are plain numbers.
        AttributeShape::Scalar => handle(ACTION, || unsafe {
            h5s::H5Screate(h5s::H5S_class_t::H5S_SCALAR)
        }),
        // SAFETY: as above.
        AttributeShape::Null => handle(ACTION, || unsafe {
            h5s::H5Screate(h5s::H5S_class_t::H5S_NULL)
        }),
        AttributeShape::Simple(shape) => handle(ACTION, || {
            let rank = c_int::try_from(shape.len()).unwrap_or(c_int::MAX);
            // SAFETY: there are as many numbers as the rank says; the library refuses ranks above 32.
            unsafe { h5s::H5Screate_simple(rank, shape.as_ptr(), ptr::null()) }
        }),
    };
    Ok(space?)
}

/// How many elements a dataspace has.
fn points(space: &Handle, action: &'static str) -> Result<usize, WriteError> {
    // SAFETY: `space` is a valid dataspace.
    Ok(count(action, || unsafe {
        h5s::H5Sget_simple_extent_npoints(space.0)
    })?)
}

fn attribute_name(name: &[u8]) -> Result<CString, WriteError> {
    let refused = |what| WriteError::Name {
        name: String::from_utf8_lossy(name).into_owned(),
        what,
    };
    if name.is_empty() {
        return Err(refused("it is empty"));
    }
    CString::new(name).map_err(|_| refused("it has a NUL"))
}

/// A text for the library, which takes it to end at its first NUL.
pub(super) fn up_to_nul(text: &[u8]) -> CString {
    let end = text.iter().position(|&byte| byte == 0);
    CString::new(&text[..end.unwrap_or(text.len())]).unwrap_or_default()
}
