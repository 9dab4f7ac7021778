//! Element types as the C library wants them, made of a [`Datatype`].

// Types are made by calls of the C library.
#![allow(unsafe_code)]

use std::ffi::CString;

use hdf5::sync::sync;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5t::{
    self, H5T_class_t, H5T_cset_t, H5T_norm_t, H5T_order_t, H5T_sign_t, H5T_str_t,
};

use super::WriteError;
use crate::h5::call::{Handle, done, handle};
use crate::h5::{ByteOrder, Class, Datatype, H5Error, Member, ReferenceKind};

const ACTION: &str = "make an element type";
/// A number is made of one with this many bytes, in which every field has room, and then cut.
const ROOMY_BYTES: usize = 64;
/// Deeper types are made by nobody; the recursion must end.
const MAX_DEPTH: usize = 32;

/// The library's type for `datatype`, as it is stored in a file.
///
/// # Errors
/// [`WriteError::Datatype`] for what no type of the library is; [`WriteError::H5`] where the library refuses it.
pub(super) fn make(datatype: &Datatype) -> Result<Handle, WriteError> {
    sync(|| make_at_depth(datatype, 0))
}

fn make_at_depth(datatype: &Datatype, depth: usize) -> Result<Handle, WriteError> {
    if depth > MAX_DEPTH {
        return Err(unsupported("it is nested too deeply"));
    }
    if datatype.size == 0 {
        return Err(unsupported("its size is 0"));
    }
    let size = datatype.size;
    let part = |part: &Datatype| make_at_depth(part, depth + 1);
    match &datatype.class {
        Class::Integer {
            signed,
            order,
            bit_offset,
            bit_precision,
        } => {
            let made = copy(*h5t::H5T_STD_I8LE)?;
            set_bits(&made, size, *bit_offset, *bit_precision, *order)?;
            let sign = if *signed {
                H5T_sign_t::H5T_SGN_2
            } else {
                H5T_sign_t::H5T_SGN_NONE
            };
            // SAFETY: `made` is a valid integer type.
            call(|| unsafe { h5t::H5Tset_sign(made.0, sign) })?;
            Ok(made)
        }
        Class::Bitfield {
            order,
            bit_offset,
            bit_precision,
        } => {
            let made = copy(*h5t::H5T_STD_B8LE)?;
            set_bits(&made, size, *bit_offset, *bit_precision, *order)?;
            Ok(made)
        }
        Class::Float { .. } => make_float(datatype),
        Class::Time { order } => {
            let made = copy(*h5t::H5T_UNIX_D32LE)?;
            // SAFETY: `made` is a valid type.
            call(|| unsafe { h5t::H5Tset_size(made.0, size) })?;
            // SAFETY: as above.
            call(|| unsafe { h5t::H5Tset_order(made.0, order_of(*order)) })?;
            Ok(made)
        }
        Class::FixedString { padding, utf8 } => make_string(size, *padding, *utf8),
        Class::VlenString { padding, utf8 } => make_string(h5t::H5T_VARIABLE, *padding, *utf8),
        Class::Opaque { tag } => {
            // SAFETY: the library checks the size.
            let made = new(|| unsafe { h5t::H5Tcreate(H5T_class_t::H5T_OPAQUE, size) })?;
            let tag = name(tag)?;
            // SAFETY: `made` is a valid opaque type; the tag ends with NUL and lives through the call.
            call(|| unsafe { h5t::H5Tset_tag(made.0, tag.as_ptr()) })?;
            Ok(made)
        }
        Class::Compound { members } => make_compound(size, members, depth),
        Class::Enum { base, members } => {
            let base_type = part(base)?;
            // SAFETY: the type is valid.
            let made = new(|| unsafe { h5t::H5Tenum_create(base_type.0) })?;
            for member in members {
                if member.value.len() != base.size {
                    return Err(unsupported("a value of an enumeration is of another size"));
                }
                let name = name(&member.name)?;
                // SAFETY: `made` is valid; the name ends with NUL; the value has the bytes of the base type.
                call(|| unsafe {
                    h5t::H5Tenum_insert(made.0, name.as_ptr(), member.value.as_ptr().cast())
                })?;
            }
            Ok(made)
        }
        Class::VlenSequence { base } => {
            let base = part(base)?;
            // SAFETY: the type is valid.
            new(|| unsafe { h5t::H5Tvlen_create(base.0) })
        }
        Class::Complex { base } => {
            let base = part(base)?;
            // SAFETY: the type is valid.
            new(|| unsafe { h5t::H5Tcomplex_create(base.0) })
        }
        Class::Array { shape, base } => {
            let base = part(base)?;
            let rank = u32::try_from(shape.len()).unwrap_or(u32::MAX);
            // SAFETY: the type is valid, and there are as many numbers as the rank says; the library checks them.
            new(|| unsafe { h5t::H5Tarray_create2(base.0, rank, shape.as_ptr()) })
        }
        Class::Reference { kind } => copy(match kind {
            ReferenceKind::Object => *h5t::H5T_STD_REF_OBJ,
            ReferenceKind::Region => *h5t::H5T_STD_REF_DSETREG,
            ReferenceKind::Revised(_) => *h5t::H5T_STD_REF,
        }),
    }
}

/// In memory, pointers are of another size than in a file, so what lies behind them has another place; the library moves it back when it
/// makes the type one of a file (`H5T_set_loc`).
fn make_compound(size: usize, members: &[Member], depth: usize) -> Result<Handle, WriteError> {
    let mut made_members = Vec::with_capacity(members.len());
    for member in members {
        made_members.push(make_at_depth(&member.datatype, depth + 1)?);
    }
    let mut by_offset: Vec<usize> = (0..members.len()).collect();
    by_offset.sort_by_key(|&number| members[number].offset);
    let mut offsets = vec![0; members.len()];
    let (mut stored_bytes, mut memory_bytes) = (0usize, 0usize);
    let moved = |place: usize, stored_bytes: usize, memory_bytes: usize| {
        let place = place.checked_add(memory_bytes);
        let place = place.and_then(|place| place.checked_sub(stored_bytes));
        place.ok_or_else(|| unsupported("its members overlap"))
    };
    for number in by_offset {
        offsets[number] = moved(members[number].offset, stored_bytes, memory_bytes)?;
        stored_bytes = stored_bytes.saturating_add(members[number].datatype.size);
        // SAFETY: the member's type is valid.
        let in_memory = unsafe { h5t::H5Tget_size(made_members[number].0) };
        memory_bytes = memory_bytes.saturating_add(in_memory);
    }
    let size = moved(size, stored_bytes, memory_bytes)?;
    // SAFETY: the library checks the size.
    let made = new(|| unsafe { h5t::H5Tcreate(H5T_class_t::H5T_COMPOUND, size) })?;
    for ((member, member_type), offset) in members.iter().zip(&made_members).zip(offsets) {
        let name = name(&member.name)?;
        // SAFETY: both types are valid; the name ends with NUL and lives through the call.
        call(|| unsafe { h5t::H5Tinsert(made.0, name.as_ptr(), offset, member_type.0) })?;
    }
    Ok(made)
}

fn make_float(datatype: &Datatype) -> Result<Handle, WriteError> {
    let Class::Float {
        order,
        bit_offset,
        bit_precision,
        sign_location,
        exponent_location,
        exponent_size,
        mantissa_location,
        mantissa_size,
        exponent_bias,
        mantissa_normalization,
    } = &datatype.class
    else {
        return Err(unsupported("it is not a float"));
    };
    let made = copy(*h5t::H5T_IEEE_F64LE)?;
    // The fields must fit the precision whenever they are set, so first there is room for any.
    // SAFETY: `made` is a valid floating-point type, here and below; the library checks the numbers.
    call(|| unsafe { h5t::H5Tset_size(made.0, ROOMY_BYTES) })?;
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_precision(made.0, 8 * ROOMY_BYTES) })?;
    // SAFETY: as above.
    call(|| unsafe {
        h5t::H5Tset_fields(
            made.0,
            usize::from(*sign_location),
            usize::from(*exponent_location),
            usize::from(*exponent_size),
            usize::from(*mantissa_location),
            usize::from(*mantissa_size),
        )
    })?;
    let bias = usize::try_from(*exponent_bias)
        .map_err(|_| unsupported("the bias of its exponent is too large"))?;
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_ebias(made.0, bias) })?;
    let norm = match mantissa_normalization {
        0 => H5T_norm_t::H5T_NORM_NONE,
        1 => H5T_norm_t::H5T_NORM_MSBSET,
        2 => H5T_norm_t::H5T_NORM_IMPLIED,
        _ => return Err(unsupported("the form of its mantissa is unknown")),
    };
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_norm(made.0, norm) })?;
    set_bits(&made, datatype.size, *bit_offset, *bit_precision, *order)?;
    Ok(made)
}

/// Gives a number its size, the bits of it that count, and its byte order.
fn set_bits(
    made: &Handle,
    size: usize,
    bit_offset: u16,
    bit_precision: u16,
    order: ByteOrder,
) -> Result<(), WriteError> {
    let (offset, precision) = (usize::from(bit_offset), usize::from(bit_precision));
    if offset + precision > size.saturating_mul(8) {
        return Err(unsupported("more bits count than it has"));
    }
    let room = size.max(ROOMY_BYTES);
    // SAFETY: `made` is a valid type of numbers, here and below; the library checks the numbers.
    call(|| unsafe { h5t::H5Tset_size(made.0, room) })?;
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_precision(made.0, precision) })?;
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_offset(made.0, offset) })?;
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_size(made.0, size) })?;
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_order(made.0, order_of(order)) })
}

fn make_string(size: usize, padding: u8, utf8: bool) -> Result<Handle, WriteError> {
    let made = copy(*h5t::H5T_C_S1)?;
    // SAFETY: `made` is a valid string type, here and below.
    call(|| unsafe { h5t::H5Tset_size(made.0, size) })?;
    let padding = match padding {
        0 => H5T_str_t::H5T_STR_NULLTERM,
        1 => H5T_str_t::H5T_STR_NULLPAD,
        2 => H5T_str_t::H5T_STR_SPACEPAD,
        _ => return Err(unsupported("the padding of its strings is unknown")),
    };
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_strpad(made.0, padding) })?;
    let characters = if utf8 {
        H5T_cset_t::H5T_CSET_UTF8
    } else {
        H5T_cset_t::H5T_CSET_ASCII
    };
    // SAFETY: as above.
    call(|| unsafe { h5t::H5Tset_cset(made.0, characters) })?;
    Ok(made)
}

fn order_of(order: ByteOrder) -> H5T_order_t {
    match order {
        ByteOrder::Little => H5T_order_t::H5T_ORDER_LE,
        ByteOrder::Big => H5T_order_t::H5T_ORDER_BE,
        ByteOrder::Vax => H5T_order_t::H5T_ORDER_VAX,
    }
}

fn copy(constant: hid_t) -> Result<Handle, WriteError> {
    // SAFETY: the constant is a type of the library.
    new(|| unsafe { h5t::H5Tcopy(constant) })
}

fn new(make: impl FnOnce() -> hid_t) -> Result<Handle, WriteError> {
    Ok(handle(ACTION, make)?)
}

fn call(change: impl FnOnce() -> std::ffi::c_int) -> Result<(), WriteError> {
    let done: Result<(), H5Error> = done(ACTION, change);
    Ok(done?)
}

fn name(name: &[u8]) -> Result<CString, WriteError> {
    CString::new(name).map_err(|_| unsupported("a name in it has a NUL"))
}

fn unsupported(what: &'static str) -> WriteError {
    WriteError::Datatype { what }
}
