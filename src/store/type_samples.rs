//! Element types for the tests of this layer.

use crate::h5::{ByteOrder, Class, Datatype, EnumMember, Member};

pub(super) fn integer(size: usize, signed: bool, order: ByteOrder) -> Datatype {
    Datatype {
        size,
        class: Class::Integer {
            signed,
            order,
            bit_offset: 0,
            bit_precision: u16::try_from(size * 8).unwrap(),
        },
    }
}

/// With the fields of IEEE 754 for sizes 2, 4, 8 and 16, and those of the x87 for 10 bytes in 16.
pub(super) fn float(size: usize, order: ByteOrder) -> Datatype {
    let (bits, exponent, exponent_bias): (u8, u8, u32) = match size {
        2 => (16, 5, 15),
        4 => (32, 8, 127),
        8 => (64, 11, 1023),
        10 => (80, 15, 16383),
        _ => (128, 15, 16383),
    };
    let is_x87 = size == 10;
    let mantissa = bits - exponent - 1;
    Datatype {
        size: if is_x87 { 16 } else { size },
        class: Class::Float {
            order,
            bit_offset: 0,
            bit_precision: u16::from(bits),
            sign_location: bits - 1,
            exponent_location: mantissa,
            exponent_size: exponent,
            mantissa_location: 0,
            mantissa_size: mantissa,
            exponent_bias,
            mantissa_normalization: if is_x87 { 0 } else { 2 },
        },
    }
}

pub(super) fn boolean() -> Datatype {
    let member = |name: &[u8], value| EnumMember {
        name: name.to_vec(),
        value: vec![value],
    };
    Datatype {
        size: 1,
        class: Class::Enum {
            base: Box::new(integer(1, true, ByteOrder::Little)),
            members: vec![member(b"FALSE", 0), member(b"TRUE", 1)],
        },
    }
}

pub(super) fn compound(size: usize, members: Vec<(&str, usize, Datatype)>) -> Datatype {
    let members = members.into_iter().map(|(name, offset, datatype)| Member {
        name: name.as_bytes().to_vec(),
        offset,
        datatype,
    });
    Datatype {
        size,
        class: Class::Compound {
            members: members.collect(),
        },
    }
}

pub(super) fn array(shape: &[u64], base: Datatype) -> Datatype {
    let count: u64 = shape.iter().product();
    Datatype {
        size: usize::try_from(count).unwrap() * base.size,
        class: Class::Array {
            shape: shape.to_vec(),
            base: Box::new(base),
        },
    }
}

pub(super) fn fixed_string(size: usize, padding: u8) -> Datatype {
    Datatype {
        size,
        class: Class::FixedString {
            padding,
            utf8: false,
        },
    }
}

pub(super) fn opaque(size: usize, tag: &str) -> Datatype {
    Datatype {
        size,
        class: Class::Opaque {
            tag: tag.as_bytes().to_vec(),
        },
    }
}

pub(super) fn vlen_string() -> Datatype {
    Datatype {
        size: 16,
        class: Class::VlenString {
            padding: 0,
            utf8: true,
        },
    }
}

pub(super) fn sequence(base: Datatype) -> Datatype {
    Datatype {
        size: 16,
        class: Class::VlenSequence {
            base: Box::new(base),
        },
    }
}
