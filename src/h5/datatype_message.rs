//! Decoding element types (Specification IV.A.2.d, "Datatype Message"; `H5O__dtype_decode_helper`), versions 1 to 5.

use super::dataspace::MAX_RANK;
use super::decoder::{Decoder, width_for_limit};
use super::{Address, ByteOrder, Class, Datatype, EnumMember, H5Error, Member, ReferenceKind};

/// How deep types may be nested. No type that anyone uses comes near it.
const MAX_DEPTH: usize = 32;

impl Datatype {
    /// Decodes the type that `bytes`, which lie at `address`, begin with. Also says how many bytes it took; what is behind is
    /// padding.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where it is not sound; [`H5Error::Unsupported`] for an unknown version or class, or more than 32
    /// levels.
    pub fn decode(bytes: &[u8], address: Address) -> Result<(Self, usize), H5Error> {
        let mut decoder = Decoder::new(bytes, "datatype message", address);
        let datatype = decode_nested(&mut decoder, 0)?;
        Ok((datatype, decoder.position()))
    }
}

/// The fields that every class has.
struct Head {
    version: u8,
    /// The class's 24 bits.
    bits: u32,
    size: usize,
}

impl Head {
    fn order(&self) -> ByteOrder {
        match self.bits & 0x01 {
            0 => ByteOrder::Little,
            _ => ByteOrder::Big,
        }
    }

    /// Names are padded to 8 bytes before version 3.
    fn name<'a>(&self, decoder: &mut Decoder<'a>) -> Result<&'a [u8], H5Error> {
        let name = decoder.c_string()?;
        if self.version < 3 {
            decoder.skip(7 - name.len() % 8)?;
        }
        Ok(name)
    }
}

fn decode_nested(decoder: &mut Decoder<'_>, depth: usize) -> Result<Datatype, H5Error> {
    if depth > MAX_DEPTH {
        return Err(decoder.unsupported("types are nested more than 32 levels deep"));
    }
    let start = decoder.u32()?;
    let size = decoder.u32()?;
    let head = Head {
        version: ((start >> 4) & 0x0f) as u8,
        bits: start >> 8,
        size: usize::try_from(size).map_err(|_| decoder.unsupported("its size"))?,
    };
    if !(1..=5).contains(&head.version) {
        return Err(decoder.unsupported("its version is not one of 1 to 5"));
    }
    if head.size == 0 {
        return Err(decoder.damaged("its elements have no bytes"));
    }
    let class = match start & 0x0f {
        0 => integer(decoder, &head)?,
        1 => float(decoder, &head)?,
        2 => {
            decoder.skip(2)?;
            Class::Time {
                order: head.order(),
            }
        }
        3 => Class::FixedString {
            padding: (head.bits & 0x0f) as u8,
            utf8: (head.bits >> 4) & 0x0f == 1,
        },
        4 => {
            let (bit_offset, bit_precision) = bits(decoder, &head)?;
            Class::Bitfield {
                order: head.order(),
                bit_offset,
                bit_precision,
            }
        }
        5 => opaque(decoder, &head)?,
        6 => compound(decoder, &head, depth)?,
        7 => reference(decoder, &head)?,
        8 => enumeration(decoder, &head, depth)?,
        9 => variable_length(decoder, &head, depth)?,
        10 => array(decoder, &head, depth)?,
        11 => complex(decoder, &head, depth)?,
        _ => return Err(decoder.unsupported("its class is unknown")),
    };
    Ok(Datatype {
        size: head.size,
        class,
    })
}

/// Offset and number of the bits that count, which must lie within the element.
fn bits(decoder: &mut Decoder<'_>, head: &Head) -> Result<(u16, u16), H5Error> {
    let offset = decoder.u16()?;
    let precision = decoder.u16()?;
    let end = usize::from(offset) + usize::from(precision);
    if precision == 0 || end > head.size.saturating_mul(8) {
        return Err(decoder.damaged("its bits do not lie within the element"));
    }
    Ok((offset, precision))
}

fn integer(decoder: &mut Decoder<'_>, head: &Head) -> Result<Class, H5Error> {
    let (bit_offset, bit_precision) = bits(decoder, head)?;
    Ok(Class::Integer {
        signed: head.bits & 0x08 != 0,
        order: head.order(),
        bit_offset,
        bit_precision,
    })
}

fn float(decoder: &mut Decoder<'_>, head: &Head) -> Result<Class, H5Error> {
    let order = match (head.version >= 3, head.bits & 0x41) {
        (true, 0x41) => ByteOrder::Vax,
        (true, 0x40) => return Err(decoder.damaged("its byte order is unknown")),
        _ => head.order(),
    };
    let mantissa_normalization = ((head.bits >> 4) & 0x03) as u8;
    if mantissa_normalization == 3 {
        return Err(decoder.damaged("its mantissa's normalization is unknown"));
    }
    let sign_location = ((head.bits >> 8) & 0xff) as u8;
    let (bit_offset, bit_precision) = bits(decoder, head)?;
    let exponent_location = decoder.u8()?;
    let exponent_size = decoder.u8()?;
    let mantissa_location = decoder.u8()?;
    let mantissa_size = decoder.u8()?;
    let exponent_bias = decoder.u32()?;
    let end = head.size.saturating_mul(8);
    for (location, size) in [
        (sign_location, 1),
        (exponent_location, exponent_size),
        (mantissa_location, mantissa_size),
    ] {
        if size == 0 || usize::from(location) + usize::from(size) > end {
            return Err(decoder.damaged("its fields do not lie within the element"));
        }
    }
    Ok(Class::Float {
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
    })
}

fn opaque(decoder: &mut Decoder<'_>, head: &Head) -> Result<Class, H5Error> {
    let tag = decoder.take((head.bits & 0xff) as usize)?;
    let len = tag.iter().position(|&byte| byte == 0);
    Ok(Class::Opaque {
        tag: tag[..len.unwrap_or(tag.len())].to_vec(),
    })
}

fn reference(decoder: &Decoder<'_>, head: &Head) -> Result<Class, H5Error> {
    let kind = match (head.bits & 0x0f) as u8 {
        0 => ReferenceKind::Object,
        1 => ReferenceKind::Region,
        kind @ 2..=4 => ReferenceKind::Revised(kind),
        _ => return Err(decoder.damaged("its kind of reference is unknown")),
    };
    Ok(Class::Reference { kind })
}

fn compound(decoder: &mut Decoder<'_>, head: &Head, depth: usize) -> Result<Class, H5Error> {
    let count = head.bits & 0xffff;
    if count == 0 {
        return Err(decoder.damaged("it has no members"));
    }
    let mut members = Vec::new();
    for _ in 0..count {
        let name = head.name(decoder)?.to_vec();
        let offset = match head.version {
            1 | 2 => decoder.u32()?.into(),
            _ => decoder.uint(width_for_limit(head.size as u64))?,
        };
        let shape = match head.version {
            1 => intrinsic_shape(decoder)?,
            _ => Vec::new(),
        };
        let mut datatype = decode_nested(decoder, depth + 1)?;
        if !shape.is_empty() {
            let size = array_size(&shape, datatype.size)
                .ok_or_else(|| decoder.damaged("a member's size is impossible"))?;
            datatype = Datatype {
                size,
                class: Class::Array {
                    shape,
                    base: Box::new(datatype),
                },
            };
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if offset
            .checked_add(datatype.size)
            .is_none_or(|end| end > head.size)
        {
            return Err(decoder.damaged("a member does not lie within the element"));
        }
        members.push(Member {
            name,
            offset,
            datatype,
        });
    }
    Ok(Class::Compound { members })
}

/// Members of version 1 may be arrays by themselves: up to four axes. Empty for those that are not.
fn intrinsic_shape(decoder: &mut Decoder<'_>) -> Result<Vec<u64>, H5Error> {
    let rank = usize::from(decoder.u8()?);
    if rank > 4 {
        return Err(decoder.damaged("a member has more than four axes"));
    }
    // Reserved, a permutation that was never used, reserved.
    decoder.skip(3 + 4 + 4)?;
    let mut shape = Vec::new();
    for _ in 0..4 {
        shape.push(u64::from(decoder.u32()?));
    }
    shape.truncate(rank);
    if shape.contains(&0) {
        return Err(decoder.damaged("a member has an axis of no length"));
    }
    Ok(shape)
}

fn array_size(shape: &[u64], element_size: usize) -> Option<usize> {
    shape.iter().try_fold(element_size, |size, &axis| {
        size.checked_mul(usize::try_from(axis).ok()?)
    })
}

fn enumeration(decoder: &mut Decoder<'_>, head: &Head, depth: usize) -> Result<Class, H5Error> {
    let base = decode_nested(decoder, depth + 1)?;
    if base.size != head.size {
        return Err(decoder.damaged("it differs in size from its base type"));
    }
    let mut names = Vec::new();
    for _ in 0..head.bits & 0xffff {
        names.push(head.name(decoder)?.to_vec());
    }
    let mut members = Vec::with_capacity(names.len());
    for name in names {
        members.push(EnumMember {
            name,
            value: decoder.take(base.size)?.to_vec(),
        });
    }
    Ok(Class::Enum {
        base: Box::new(base),
        members,
    })
}

fn variable_length(decoder: &mut Decoder<'_>, head: &Head, depth: usize) -> Result<Class, H5Error> {
    if head.size != 16 {
        return Err(decoder.damaged("its elements are not references of 16 bytes"));
    }
    let base = decode_nested(decoder, depth + 1)?;
    match head.bits & 0x0f {
        0 => Ok(Class::VlenSequence {
            base: Box::new(base),
        }),
        1 => Ok(Class::VlenString {
            padding: ((head.bits >> 4) & 0x0f) as u8,
            utf8: (head.bits >> 8) & 0x0f == 1,
        }),
        _ => Err(decoder.damaged("it is neither a sequence nor a string")),
    }
}

fn array(decoder: &mut Decoder<'_>, head: &Head, depth: usize) -> Result<Class, H5Error> {
    if head.version < 2 {
        return Err(decoder.damaged("an array type has a version below 2"));
    }
    let rank = decoder.u8()?;
    if rank > MAX_RANK {
        return Err(decoder.damaged("it has more than 32 axes"));
    }
    if head.version < 3 {
        decoder.skip(3)?;
    }
    let mut shape = Vec::with_capacity(usize::from(rank));
    for _ in 0..rank {
        shape.push(u64::from(decoder.u32()?));
    }
    if head.version < 3 {
        // A permutation that was never used.
        decoder.skip(4 * usize::from(rank))?;
    }
    let base = decode_nested(decoder, depth + 1)?;
    if array_size(&shape, base.size) != Some(head.size) {
        return Err(decoder.damaged("its size is not that of its elements"));
    }
    Ok(Class::Array {
        shape,
        base: Box::new(base),
    })
}

fn complex(decoder: &mut Decoder<'_>, head: &Head, depth: usize) -> Result<Class, H5Error> {
    // Bit 0: both parts are of one type; bits 1 and 2: the form, 0 for real and imaginary part.
    if head.bits != 1 {
        return Err(decoder.unsupported("it is a complex number of an unknown form"));
    }
    let base = decode_nested(decoder, depth + 1)?;
    if base.size.checked_mul(2) != Some(head.size) {
        return Err(decoder.damaged("its size is not that of its two parts"));
    }
    Ok(Class::Complex {
        base: Box::new(base),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Datatype, H5Error> {
        Datatype::decode(bytes, Address(0)).map(|(datatype, _)| datatype)
    }

    const SHORT: [u8; 12] = [0x10, 0x08, 0, 0, 2, 0, 0, 0, 0, 0, 16, 0];

    fn short() -> Datatype {
        Datatype {
            size: 2,
            class: Class::Integer {
                signed: true,
                order: ByteOrder::Little,
                bit_offset: 0,
                bit_precision: 16,
            },
        }
    }

    #[test]
    fn says_what_it_took() {
        let padded = [&SHORT[..], &[0; 4]].concat();
        assert_eq!(
            Datatype::decode(&padded, Address(0)).unwrap(),
            (short(), 12)
        );
    }

    #[test]
    fn a_compound_of_version_1_with_a_member_that_is_an_array() {
        let mut bytes = vec![0x16, 2, 0, 0, 20, 0, 0, 0];
        bytes.extend(b"eightlet\0\0\0\0\0\0\0\0");
        bytes.extend([4, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([3, 0, 0, 0, 2, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
        bytes.extend(SHORT);
        bytes.extend(b"b\0\0\0\0\0\0\0");
        bytes.extend([18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0; 16]);
        bytes.extend(SHORT);
        let (datatype, used) = Datatype::decode(&bytes, Address(0)).unwrap();
        assert_eq!(used, bytes.len());
        let Class::Compound { members } = datatype.class else {
            panic!("not a compound");
        };
        assert_eq!(members[0].name, b"eightlet");
        assert_eq!(members[0].offset, 4);
        assert_eq!(members[0].datatype.size, 12);
        assert_eq!(
            members[0].datatype.class,
            Class::Array {
                shape: vec![3, 2],
                base: Box::new(short())
            }
        );
        assert_eq!((&members[1].name[..], members[1].offset), (&b"b"[..], 18));
        bytes[8 + 16 + 16 + 16 + 12 + 8] = 19; // The last member would end behind the element.
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn orders_of_floats() {
        let float = |version: u8, bits: u8| -> Result<ByteOrder, H5Error> {
            let mut bytes = vec![version << 4 | 1, bits, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0];
            bytes.extend([23, 8, 0, 23, 127, 0, 0, 0]);
            match decode(&bytes)?.class {
                Class::Float { order, .. } => Ok(order),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(float(1, 0x20).unwrap(), ByteOrder::Little);
        assert_eq!(float(3, 0x21).unwrap(), ByteOrder::Big);
        assert_eq!(float(3, 0x61).unwrap(), ByteOrder::Vax);
        assert!(float(3, 0x60).is_err());
        assert!(float(3, 0x30).is_err());
    }

    #[test]
    fn references_of_all_kinds() {
        let kind = |bits| decode(&[0x47, bits, 0, 0, 8, 0, 0, 0]).map(|datatype| datatype.class);
        for (bits, wanted) in [
            (0, ReferenceKind::Object),
            (1, ReferenceKind::Region),
            (0x12, ReferenceKind::Revised(2)),
            (0x14, ReferenceKind::Revised(4)),
        ] {
            assert_eq!(kind(bits).unwrap(), Class::Reference { kind: wanted });
        }
        assert!(kind(5).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = Vec::new();
        for _ in 0..MAX_DEPTH {
            bytes.extend([0x39, 0, 0, 0, 16, 0, 0, 0]);
        }
        let deepest = [&bytes[..], &SHORT].concat();
        assert!(decode(&deepest).is_ok());
        let too_deep = [&bytes[..8], &deepest].concat();
        assert!(matches!(
            decode(&too_deep),
            Err(H5Error::Unsupported { .. })
        ));
    }

    #[test]
    fn what_is_not_sound_is_refused() {
        for (at, value) in [
            (0, 0x00), // Version 0.
            (0, 0x60), // Version 6.
            (0, 0x1c), // Class 12.
            (4, 0),    // No size.
            (8, 1),    // Bits behind the element's end.
            (10, 0),   // No bits.
        ] {
            let mut bytes = SHORT;
            bytes[at] = value;
            assert!(decode(&bytes).is_err(), "{at} {value}");
        }
        for len in 0..SHORT.len() {
            assert!(decode(&SHORT[..len]).is_err());
        }
        // Arrays whose size is not that of their elements, by a little or by an overflow.
        let array = |size: u32, axis: u32| {
            let mut bytes = vec![0x3a, 0, 0, 0];
            bytes.extend(size.to_le_bytes());
            bytes.push(3);
            bytes.extend([axis, axis, 1].into_iter().flat_map(u32::to_le_bytes));
            bytes.extend(SHORT);
            decode(&bytes)
        };
        assert_eq!(array(8, 2).unwrap().size, 8);
        assert!(array(10, 2).is_err());
        assert!(array(8, u32::MAX).is_err());
        // A compound that claims 65,535 members and has none.
        assert!(decode(&[0x36, 0xff, 0xff, 0, 8, 0, 0, 0]).is_err());
        // An enumeration without its values.
        let names = [&[0x38, 1, 0, 0, 2, 0, 0, 0][..], &SHORT, b"name\0\x01"].concat();
        assert!(decode(&names).is_err());
        assert!(decode(&[&names[..], &[0]].concat()).is_ok());
    }
}
