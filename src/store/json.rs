//! Values as JSON, written straight from the stored bytes of an element.
//!
//! | type | JSON |
//! | --- | --- |
//! | integer, bitfield, enumeration | a number; a bool (h5py's enumeration of `FALSE` and `TRUE`) is `true` or `false` |
//! | float | the shortest number that reads back as the same float; `NaN`, `Infinity`, `-Infinity` as Python's `json` writes them |
//! | complex number | `[real, imaginary]` |
//! | string | a string without its padding; a byte that is not UTF-8 is `\udc80` to `\udcff`, Python's `surrogateescape` |
//! | compound | an object |
//! | array, sequence | a list |
//! | NumPy's date or time span in an opaque type | the count of its units, a number |
//! | object reference | the object's path where it is known, else its address (`"0x1f0"`); a null one is `null` |
//! | anything else | a string of hexadecimal digits |
//!
//! Lists and objects have `, ` and `: ` between their parts, as Python's `json` has.

use std::io::Write;

use half::f16;

use super::dtype::{complex_parts, is_bool, is_numpy_float, time_order};
use crate::h5::{Address, ByteOrder, Class, Dataspace, Datatype, H5Error, Member, ReferenceKind};

/// Where the data is that elements only point to.
pub trait HeapData {
    /// The bytes of a variable-length value: `element_bytes` times as many as `reference` says it has elements. `reference` is as the file
    /// stores it: 4 bytes number of elements, 8 bytes address of the heap collection, 4 bytes index in it. A value of no elements has no bytes.
    ///
    /// # Errors
    /// Whatever is wrong with the heap, or a value of another length there.
    fn read_vlen(&self, reference: &[u8; 16], element_bytes: usize) -> Result<Vec<u8>, H5Error>;

    /// The absolute path of the object at an address, where one is known.
    fn object_path(&self, address: Address) -> Option<Vec<u8>> {
        let _ = address;
        None
    }
}

/// For values that point to nothing.
#[derive(Debug)]
pub(super) struct NoHeap;

impl HeapData for NoHeap {
    fn read_vlen(&self, _: &[u8; 16], _: usize) -> Result<Vec<u8>, H5Error> {
        Ok(Vec::new())
    }
}

/// Why a value has no text.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ValueError {
    /// The data that it points to could not be had.
    #[error(transparent)]
    Heap(#[from] H5Error),
    /// There are more or fewer bytes than its type and shape say.
    #[error("a value of {got_bytes} bytes where its type and shape say {want_bytes:?}")]
    Length {
        /// By type and shape; `None` where that passes all bounds.
        want_bytes: Option<u64>,
        /// As given.
        got_bytes: usize,
    },
    /// Types within types, more than any real one has.
    #[error("types nested more than {limit} deep")]
    TooDeep {
        /// The most that is accepted.
        limit: usize,
    },
    /// Pointers to the same data over and over make even a small file's text long without bound.
    #[error("a text of more than {limit_bytes} bytes")]
    TooLong {
        /// The most that is accepted.
        limit_bytes: usize,
    },
}

/// How deep types may nest.
const MAX_DEPTH: usize = 64;

/// The longest text of one element or attribute.
const MAX_TEXT_BYTES: usize = 1 << 28;

/// Appends the JSON of one element to `out`.
///
/// # Errors
/// [`ValueError`]; `out` then holds the beginning of the text.
pub fn write_json(
    datatype: &Datatype,
    element: &[u8],
    heap: &dyn HeapData,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    Writer::new(heap, out).element(datatype, element, MAX_DEPTH)
}

/// The text of an attribute: a scalar string is its bytes without padding, an attribute without a value (a null dataspace) is `null`, one with an empty
/// shape `[]`, and any other is JSON, lists nested by shape. `data` are the elements in C order.
///
/// # Errors
/// [`ValueError`].
pub fn attribute_text(
    datatype: &Datatype,
    dataspace: &Dataspace,
    data: &[u8],
    heap: &dyn HeapData,
) -> Result<Vec<u8>, ValueError> {
    check_length(datatype, dataspace, data)?;
    match (dataspace, &datatype.class) {
        (Dataspace::Scalar, Class::FixedString { padding, .. }) => {
            Ok(without_padding(data, *padding).to_vec())
        }
        (Dataspace::Scalar, Class::VlenString { padding, .. }) => {
            let text = heap.read_vlen(exactly(data)?, 1)?;
            Ok(without_padding(&text, *padding).to_vec())
        }
        _ => attribute_json(datatype, dataspace, data, heap),
    }
}

/// The same as JSON throughout: a scalar string is one of JSON.
///
/// # Errors
/// [`ValueError`].
pub fn attribute_json(
    datatype: &Datatype,
    dataspace: &Dataspace,
    data: &[u8],
    heap: &dyn HeapData,
) -> Result<Vec<u8>, ValueError> {
    check_length(datatype, dataspace, data)?;
    let mut out = Vec::new();
    match dataspace {
        Dataspace::Null => out.extend_from_slice(b"null"),
        Dataspace::Scalar => write_json(datatype, data, heap, &mut out)?,
        Dataspace::Simple { .. } if dataspace.is_empty() => out.extend_from_slice(b"[]"),
        Dataspace::Simple { shape, .. } => {
            Writer::new(heap, &mut out).list(shape, datatype, data, MAX_DEPTH)?;
        }
    }
    Ok(out)
}

fn check_length(datatype: &Datatype, dataspace: &Dataspace, data: &[u8]) -> Result<(), ValueError> {
    let want_bytes = dataspace
        .len()
        .and_then(|n| n.checked_mul(datatype.size as u64));
    if want_bytes == Some(data.len() as u64) {
        return Ok(());
    }
    Err(ValueError::Length {
        want_bytes,
        got_bytes: data.len(),
    })
}

/// Appends text as a JSON string; a byte that is not UTF-8 is `\udc80` to `\udcff`.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    Writer::new(&NoHeap, out).string(text);
}

/// Text without its padding: 0 ends at the first NUL, 1 is filled with NULs, 2 with blanks (Specification IV.A.2.d, "String Bit Field").
#[must_use]
pub(super) fn without_padding(text: &[u8], padding: u8) -> &[u8] {
    let end = |fill: u8| {
        text.iter()
            .rposition(|&byte| byte != fill)
            .map_or(0, |last| last + 1)
    };
    let len = match padding {
        0 => text
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(text.len()),
        1 => end(0),
        2 => end(b' '),
        _ => text.len(),
    };
    &text[..len]
}

/// The bytes of an element whose type has a fixed size.
fn exactly<const N: usize>(element: &[u8]) -> Result<&[u8; N], ValueError> {
    element.try_into().map_err(|_| ValueError::Length {
        want_bytes: Some(N as u64),
        got_bytes: element.len(),
    })
}

/// Appends text to a vector, up to a limit.
struct Writer<'a> {
    heap: &'a dyn HeapData,
    out: &'a mut Vec<u8>,
    /// Where this text begins in it.
    start: usize,
    /// The longest that it may be, give or take one number or string.
    max_bytes: usize,
}

impl<'a> Writer<'a> {
    fn new(heap: &'a dyn HeapData, out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self {
            heap,
            out,
            start,
            max_bytes: MAX_TEXT_BYTES,
        }
    }

    /// Appends the JSON of one element.
    fn element(
        &mut self,
        datatype: &Datatype,
        data: &[u8],
        depth: usize,
    ) -> Result<(), ValueError> {
        let depth = depth
            .checked_sub(1)
            .ok_or(ValueError::TooDeep { limit: MAX_DEPTH })?;
        if self.out.len() - self.start > self.max_bytes {
            return Err(ValueError::TooLong {
                limit_bytes: self.max_bytes,
            });
        }
        if data.len() != datatype.size {
            return Err(ValueError::Length {
                want_bytes: Some(datatype.size as u64),
                got_bytes: data.len(),
            });
        }
        match &datatype.class {
            Class::Integer {
                signed,
                order,
                bit_offset,
                bit_precision,
            } => self.integer(data, *signed, *order, *bit_offset, *bit_precision),
            Class::Bitfield { order, .. } => {
                let bits = u16::try_from(data.len().saturating_mul(8)).unwrap_or(u16::MAX);
                self.integer(data, false, *order, 0, bits);
            }
            Class::Float { .. } => self.float(datatype, data),
            Class::FixedString { padding, .. } => self.string(without_padding(data, *padding)),
            Class::VlenString { padding, .. } => {
                let text = self.heap.read_vlen(exactly(data)?, 1)?;
                self.string(without_padding(&text, *padding));
            }
            Class::VlenSequence { base } => {
                let data = self.heap.read_vlen(exactly(data)?, base.size)?;
                let count = data.len().checked_div(base.size).unwrap_or(0) as u64;
                self.list(&[count], base, &data, depth)?;
            }
            Class::Array { shape, base } => self.list(shape, base, data, depth)?,
            Class::Enum { base, members } => match data {
                [0] if is_bool(base, members) => self.put(b"false"),
                [1] if is_bool(base, members) => self.put(b"true"),
                _ => self.element(base, data, depth)?,
            },
            Class::Complex { base } => self.list(&[2], base, data, depth)?,
            Class::Compound { members } => {
                if let Some(base) = complex_parts(datatype) {
                    self.list(&[2], base, data, depth)?;
                } else {
                    self.object(members, data, depth)?;
                }
            }
            Class::Reference {
                kind: ReferenceKind::Object,
            } => self.object_reference(data),
            Class::Opaque { .. } => match time_order(datatype) {
                Some(order) => self.integer(data, true, order, 0, 64),
                None => self.hexadecimal(data),
            },
            Class::Time { .. } | Class::Reference { .. } => self.hexadecimal(data),
        }
        Ok(())
    }

    /// Appends the members of a compound.
    fn object(&mut self, members: &[Member], data: &[u8], depth: usize) -> Result<(), ValueError> {
        self.put(b"{");
        for (i, member) in members.iter().enumerate() {
            if i > 0 {
                self.put(b", ");
            }
            self.string(&member.name);
            self.put(b": ");
            let end = member.offset.checked_add(member.datatype.size);
            let part = end.and_then(|end| data.get(member.offset..end));
            let part = part.ok_or(ValueError::Length {
                want_bytes: end.map(|end| end as u64),
                got_bytes: data.len(),
            })?;
            self.element(&member.datatype, part, depth)?;
        }
        self.put(b"}");
        Ok(())
    }

    /// Appends lists of elements, nested by `shape`.
    fn list(
        &mut self,
        shape: &[u64],
        base: &Datatype,
        data: &[u8],
        depth: usize,
    ) -> Result<(), ValueError> {
        let depth = depth
            .checked_sub(1)
            .ok_or(ValueError::TooDeep { limit: MAX_DEPTH })?;
        let Some((&count, inner)) = shape.split_first() else {
            return self.element(base, data, depth);
        };
        self.put(b"[");
        if !data.is_empty() {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let part_bytes = data.len().checked_div(count).unwrap_or(0);
            if part_bytes.checked_mul(count) != Some(data.len()) || part_bytes == 0 {
                return Err(ValueError::Length {
                    want_bytes: None,
                    got_bytes: data.len(),
                });
            }
            for (i, part) in data.chunks_exact(part_bytes).enumerate() {
                if i > 0 {
                    self.put(b", ");
                }
                self.list(inner, base, part, depth)?;
            }
        }
        self.put(b"]");
        Ok(())
    }

    fn put(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        write!(self.out, "{value}").expect("a vector takes any text");
    }

    /// The `precision` bits from `offset` on as a number; hexadecimal digits where it is wider than any machine's.
    fn integer(
        &mut self,
        data: &[u8],
        signed: bool,
        order: ByteOrder,
        offset: u16,
        precision: u16,
    ) {
        let Some(bits) = all_bits(data, order) else {
            return self.hexadecimal(data);
        };
        let precision = u32::from(precision).clamp(1, 128);
        let value = bits.checked_shr(offset.into()).unwrap_or(0);
        let spare = 128 - precision;
        if signed {
            self.display((value << spare).cast_signed() >> spare);
        } else {
            self.display((value << spare) >> spare);
        }
    }

    fn float(&mut self, datatype: &Datatype, data: &[u8]) {
        let Class::Float { order, .. } = datatype.class else {
            return self.hexadecimal(data);
        };
        let bits = all_bits(data, order);
        match (bits, data.len()) {
            (Some(bits), 2) if is_numpy_float(datatype) => {
                let value = f16::from_bits(u16::try_from(bits).unwrap_or(0));
                self.finite_or_name(value.to_f64(), |out| out.display(shortest_f16(value)));
            }
            (Some(bits), 4) if is_numpy_float(datatype) => {
                let value = f32::from_bits(u32::try_from(bits).unwrap_or(0));
                self.finite_or_name(value.into(), |out| out.display(format_args!("{value:?}")));
            }
            (Some(bits), _) => match general_float(&datatype.class, bits) {
                Some(value) => {
                    self.finite_or_name(value, |out| out.display(format_args!("{value:?}")));
                }
                None => self.hexadecimal(data),
            },
            (None, _) => self.hexadecimal(data),
        }
    }

    fn finite_or_name(&mut self, value: f64, write: impl FnOnce(&mut Self)) {
        if value.is_nan() {
            self.put(b"NaN");
        } else if value.is_infinite() {
            self.put(if value > 0.0 {
                b"Infinity"
            } else {
                b"-Infinity"
            });
        } else {
            write(self);
        }
    }

    fn string(&mut self, text: &[u8]) {
        self.put(b"\"");
        for piece in text.utf8_chunks() {
            for character in piece.valid().chars() {
                match character {
                    '"' => self.put(b"\\\""),
                    '\\' => self.put(b"\\\\"),
                    '\n' => self.put(b"\\n"),
                    '\r' => self.put(b"\\r"),
                    '\t' => self.put(b"\\t"),
                    '\0'..='\x1f' | '\x7f' => {
                        self.display(format_args!("\\u{:04x}", u32::from(character)));
                    }
                    _ => self.put(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            for byte in piece.invalid() {
                self.display(format_args!("\\udc{byte:02x}"));
            }
        }
        self.put(b"\"");
    }

    fn hexadecimal(&mut self, data: &[u8]) {
        self.put(b"\"");
        for byte in data {
            self.display(format_args!("{byte:02x}"));
        }
        self.put(b"\"");
    }

    fn object_reference(&mut self, data: &[u8]) {
        let Some(address) = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return self.hexadecimal(data);
        };
        // The library writes zero for a reference that was never set.
        if address == 0 || !Address(address).is_defined() {
            return self.put(b"null");
        }
        match self.heap.object_path(Address(address)) {
            Some(path) => self.string(&path),
            None => self.display(format_args!("\"{address:#x}\"")),
        }
    }
}

/// The bits of up to sixteen bytes as a number.
fn all_bits(data: &[u8], order: ByteOrder) -> Option<u128> {
    let mut bytes = [0; 16];
    let low = bytes.get_mut(..data.len())?;
    low.copy_from_slice(data);
    match order {
        ByteOrder::Little => {}
        ByteOrder::Big => low.reverse(),
        ByteOrder::Vax => return None,
    }
    Some(u128::from_le_bytes(bytes))
}

/// The shortest decimal number that reads back as `value`, which is finite.
fn shortest_f16(value: f16) -> String {
    let exact = value.to_f32();
    (0..8)
        .filter_map(|digits| format!("{exact:.digits$e}").parse::<f32>().ok())
        .find(|&short| f16::from_f32(short) == value)
        .map_or_else(|| format!("{exact:?}"), |short| format!("{short:?}"))
}

/// A float of any layout, rounded to 64 bits. `None` where the layout makes no sense.
fn general_float(class: &Class, bits: u128) -> Option<f64> {
    let &Class::Float {
        sign_location,
        exponent_location,
        exponent_size,
        mantissa_location,
        mantissa_size,
        exponent_bias,
        mantissa_normalization,
        ..
    } = class
    else {
        return None;
    };
    let field = |at: u8, size: u8| {
        let mask = 1u128.checked_shl(size.into())?.checked_sub(1)?;
        Some(bits.checked_shr(at.into())? & mask)
    };
    let sign = if field(sign_location, 1)? == 1 {
        -1.0
    } else {
        1.0
    };
    let exponent = i32::try_from(field(exponent_location, exponent_size)?).ok()?;
    let largest = i32::try_from((1i64 << exponent_size.min(31)) - 1).ok()?;
    let mantissa = field(mantissa_location, mantissa_size)?;
    let implied = mantissa_normalization == 2;
    // Of the x87 and its like, the bit before the binary point is stored.
    let fraction_bits = i32::from(mantissa_size) - i32::from(!implied);
    let fraction = mantissa & ((1u128 << fraction_bits.max(0)) - 1);
    if exponent == largest {
        return Some(if fraction == 0 {
            sign * f64::INFINITY
        } else {
            f64::NAN
        });
    }
    let (significand, exponent) = match (implied, exponent) {
        (true, 0) => (mantissa, 1),
        (true, _) => (
            mantissa | 1u128.checked_shl(mantissa_size.into())?,
            exponent,
        ),
        (false, _) => (mantissa, exponent.max(1)),
    };
    let scale = exponent
        .checked_sub_unsigned(exponent_bias)?
        .checked_sub(fraction_bits)?;
    Some(sign * scaled(significand, scale))
}

/// `significand * 2^scale`, in two steps so that neither power leaves the range.
#[expect(
    clippy::cast_precision_loss,
    reason = "the nearest 64-bit float is what is asked for"
)]
fn scaled(significand: u128, scale: i32) -> f64 {
    let half = (scale / 2).clamp(-1000, 1000);
    let rest = scale.saturating_sub(half).clamp(-1000, 1000);
    significand as f64 * 2f64.powi(half) * 2f64.powi(rest)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::store::type_samples::*;
    use ByteOrder::{Big, Little};

    /// A heap in memory; the index in a reference is the key.
    #[derive(Default)]
    pub(in crate::store) struct Heap(HashMap<u32, Vec<u8>>);

    impl Heap {
        /// Keeps `data`, and gives the reference to it.
        pub(in crate::store) fn keep(&mut self, elements: usize, data: &[u8]) -> Vec<u8> {
            let index = u32::try_from(self.0.len()).unwrap() + 1;
            self.0.insert(index, data.to_vec());
            let mut reference = u32::try_from(elements).unwrap().to_le_bytes().to_vec();
            reference.extend([0; 8]);
            reference.extend(index.to_le_bytes());
            reference
        }
    }

    impl HeapData for Heap {
        fn read_vlen(
            &self,
            reference: &[u8; 16],
            element_bytes: usize,
        ) -> Result<Vec<u8>, H5Error> {
            let count = u32::from_le_bytes(*reference.first_chunk().unwrap());
            let index = u32::from_le_bytes(*reference.last_chunk().unwrap());
            if count == 0 {
                return Ok(Vec::new());
            }
            let data = self
                .0
                .get(&index)
                .filter(|data| data.len() == count as usize * element_bytes);
            data.cloned().ok_or(H5Error::Damaged {
                structure: "global heap object",
                address: Address(index.into()),
                what: "missing",
            })
        }

        fn object_path(&self, address: Address) -> Option<Vec<u8>> {
            (address == Address(96)).then(|| b"/a \"b\"".to_vec())
        }
    }

    fn json(datatype: &Datatype, data: &[u8], heap: &Heap) -> String {
        let mut out = Vec::new();
        write_json(datatype, data, heap, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn plain(datatype: &Datatype, data: &[u8]) -> String {
        json(datatype, data, &Heap::default())
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(plain(&integer(1, true, Little), &[0x80]), "-128");
        assert_eq!(plain(&integer(2, true, Big), &[0x01, 0x02]), "258");
        assert_eq!(
            plain(&integer(8, true, Little), &i64::MIN.to_le_bytes()),
            "-9223372036854775808"
        );
        assert_eq!(
            plain(&integer(8, false, Big), &u64::MAX.to_be_bytes()),
            "18446744073709551615"
        );
        assert_eq!(plain(&integer(3, true, Little), &[0xff, 0xff, 0xff]), "-1");
        let twelve_bits = Datatype {
            size: 2,
            class: Class::Integer {
                signed: true,
                order: Little,
                bit_offset: 3,
                bit_precision: 12,
            },
        };
        assert_eq!(plain(&twelve_bits, &(0x7ff8u16).to_le_bytes()), "-1");
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        assert_eq!(plain(&float(8, Little), &0.1f64.to_le_bytes()), "0.1");
        assert_eq!(plain(&float(8, Big), &1e300f64.to_be_bytes()), "1e300");
        assert_eq!(plain(&float(8, Little), &5e-324f64.to_le_bytes()), "5e-324");
        assert_eq!(plain(&float(8, Little), &(-0.0f64).to_le_bytes()), "-0.0");
        assert_eq!(
            plain(&float(8, Little), &f64::MAX.to_le_bytes()),
            "1.7976931348623157e308"
        );
        assert_eq!(plain(&float(4, Little), &0.1f32.to_le_bytes()), "0.1");
        assert_eq!(
            plain(&float(2, Little), &f16::from_f32(0.1).to_le_bytes()),
            "0.1"
        );
        assert_eq!(plain(&float(2, Little), &f16::MAX.to_le_bytes()), "65500.0");
        assert_eq!(plain(&float(8, Little), &f64::NAN.to_le_bytes()), "NaN");
        assert_eq!(
            plain(&float(4, Big), &f32::NEG_INFINITY.to_be_bytes()),
            "-Infinity"
        );
        assert_eq!(
            plain(&float(2, Little), &f16::INFINITY.to_le_bytes()),
            "Infinity"
        );
        // 1.5 as the x87 stores it: exponent 16383, the two top bits of the mantissa.
        let x87 = (16383u128 << 64 | 3 << 62).to_le_bytes();
        assert_eq!(plain(&float(10, Little), &x87), "1.5");
        let quad = (16383u128 << 112 | 1 << 111).to_be_bytes();
        assert_eq!(plain(&float(16, Big), &quad), "1.5");
        let quad_infinity = (32767u128 << 112).to_be_bytes();
        assert_eq!(plain(&float(16, Big), &quad_infinity), "Infinity");
    }

    /// Every 16-bit float is read back from its text.
    #[test]
    fn half_floats_survive() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            let text = plain(&float(2, Little), &bits.to_le_bytes());
            match text.parse::<f32>() {
                Ok(read) => assert!(f16::from_f32(read) == value || value.is_nan(), "{text}"),
                Err(_) => assert!(value.is_infinite(), "{text}"),
            }
        }
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(
            plain(&fixed_string(8, 1), b"a\"\\\n\xc3\xa9\0\0"),
            "\"a\\\"\\\\\\n\u{e9}\""
        );
        assert_eq!(plain(&fixed_string(4, 0), b"a\0b\0"), "\"a\"");
        assert_eq!(plain(&fixed_string(4, 2), b" a  "), "\" a\"");
        assert_eq!(
            plain(&fixed_string(3, 1), b"a\xff\x01"),
            "\"a\\udcff\\u0001\""
        );
        let mut heap = Heap::default();
        let reference = heap.keep(5, b"na\xc3\xafv");
        assert_eq!(json(&vlen_string(), &reference, &heap), "\"na\u{ef}v\"");
        assert_eq!(json(&vlen_string(), &[0; 16], &heap), "\"\"");
    }

    #[test]
    fn compounds_are_objects() {
        let datatype = compound(
            24,
            vec![
                ("n", 0, integer(2, true, Little)),
                ("ok", 2, boolean()),
                (
                    "z",
                    4,
                    compound(
                        8,
                        vec![("r", 0, float(4, Little)), ("i", 4, float(4, Little))],
                    ),
                ),
                ("list", 12, array(&[2, 3], integer(1, false, Little))),
                ("raw", 18, opaque(2, "")),
            ],
        );
        let mut data = vec![7, 0, 1, 0];
        data.extend(1.5f32.to_le_bytes());
        data.extend((-2f32).to_le_bytes());
        data.extend([1, 2, 3, 4, 5, 6, 0xab, 0xcd, 0, 0, 0, 0]);
        assert_eq!(
            plain(&datatype, &data),
            r#"{"n": 7, "ok": true, "z": [1.5, -2.0], "list": [[1, 2, 3], [4, 5, 6]], "raw": "abcd"}"#
        );
    }

    #[test]
    fn references_and_times() {
        let reference = Datatype {
            size: 8,
            class: Class::Reference {
                kind: ReferenceKind::Object,
            },
        };
        assert_eq!(plain(&reference, &96u64.to_le_bytes()), r#""/a \"b\"""#);
        assert_eq!(plain(&reference, &496u64.to_le_bytes()), "\"0x1f0\"");
        assert_eq!(plain(&reference, &[0; 8]), "null");
        assert_eq!(
            plain(&opaque(8, "NUMPY:>M8[ns]"), &(-5i64).to_be_bytes()),
            "-5"
        );
    }

    #[test]
    fn sequences_follow_their_pointers() {
        let mut heap = Heap::default();
        let inner = heap.keep(2, &[1, 2]);
        let outer = heap.keep(2, &[inner, vec![0; 16]].concat());
        let datatype = sequence(sequence(integer(1, false, Little)));
        assert_eq!(json(&datatype, &outer, &heap), "[[1, 2], []]");
        let mut out = Vec::new();
        let dangling = [[1, 0, 0, 0], [0; 4], [0; 4], [9, 0, 0, 0]].concat();
        let result = write_json(&datatype, &dangling, &heap, &mut out);
        assert!(matches!(result, Err(ValueError::Heap(_))));
    }

    /// Eight levels of a thousand pointers each, all to one object.
    #[test]
    fn repeated_pointers_do_not_multiply_without_bound() {
        let mut heap = Heap::default();
        let mut datatype = integer(1, false, Little);
        let mut reference = heap.keep(1000, &[0; 1000]);
        datatype = sequence(datatype);
        for _ in 0..8 {
            datatype = sequence(datatype);
            reference = heap.keep(1000, &reference.repeat(1000));
        }
        let mut out = Vec::new();
        let mut writer = Writer::new(&heap, &mut out);
        writer.max_bytes = 10_000;
        let result = writer.element(&datatype, &reference, MAX_DEPTH);
        assert!(matches!(
            result,
            Err(ValueError::TooLong {
                limit_bytes: 10_000
            })
        ));
        assert!(out.len() < 10_100);
    }

    #[test]
    fn deep_and_ill_sized_types_are_refused() {
        let mut deep = integer(1, true, Little);
        for _ in 0..100 {
            deep = compound(1, vec![("a", 0, deep)]);
        }
        let heap = Heap::default();
        let result = write_json(&deep, &[1], &heap, &mut Vec::new());
        assert!(matches!(result, Err(ValueError::TooDeep { limit: 64 })));
        for (datatype, data) in [
            (integer(4, true, Little), &[1, 2, 3][..]),
            (
                compound(2, vec![("a", 1, integer(2, true, Little))]),
                &[1, 2],
            ),
            (array(&[2, 2], compound(0, vec![])), &[]),
        ] {
            let mut wrong = datatype.clone();
            if data.is_empty() {
                // Elements without bytes, in a box that has some.
                wrong.size = 3;
            }
            let data = if data.is_empty() { &[1, 2, 3] } else { data };
            let result = write_json(&wrong, data, &heap, &mut Vec::new());
            assert!(
                matches!(result, Err(ValueError::Length { .. })),
                "{wrong:?}"
            );
        }
    }

    fn attribute(datatype: &Datatype, dataspace: &Dataspace, data: &[u8], heap: &Heap) -> Vec<u8> {
        attribute_text(datatype, dataspace, data, heap).unwrap()
    }

    fn simple(shape: &[u64]) -> Dataspace {
        Dataspace::Simple {
            shape: shape.to_vec(),
            max_shape: Vec::new(),
        }
    }

    #[test]
    fn attributes_read_as_the_contract_says() {
        let mut heap = Heap::default();
        let text = heap.keep(3, b"\xffno");
        let scalar = Dataspace::Scalar;
        assert_eq!(attribute(&vlen_string(), &scalar, &text, &heap), b"\xffno");
        assert_eq!(
            attribute(&fixed_string(6, 1), &scalar, b"m/s\0\0\0", &heap),
            b"m/s"
        );
        assert_eq!(
            attribute(&float(8, Little), &scalar, &0.5f64.to_le_bytes(), &heap),
            b"0.5"
        );
        assert_eq!(attribute(&boolean(), &scalar, &[1], &heap), b"true");
        let bytes = integer(1, true, Little);
        assert_eq!(attribute(&bytes, &simple(&[2]), &[1, 2], &heap), b"[1, 2]");
        assert_eq!(
            attribute(&bytes, &simple(&[2, 2]), &[1, 2, 3, 4], &heap),
            b"[[1, 2], [3, 4]]"
        );
        assert_eq!(attribute(&bytes, &simple(&[1]), &[9], &heap), b"[9]");
        assert_eq!(
            attribute(&bytes, &simple(&[u64::MAX, 0]), &[], &heap),
            b"[]"
        );
        assert_eq!(attribute(&bytes, &Dataspace::Null, &[], &heap), b"null");
        assert_eq!(
            attribute(&fixed_string(2, 1), &simple(&[2]), b"a\0bc", &heap),
            br#"["a", "bc"]"#
        );
        let result = attribute_text(&bytes, &simple(&[3]), &[1, 2], &heap);
        assert!(matches!(
            result,
            Err(ValueError::Length {
                want_bytes: Some(3),
                got_bytes: 2
            })
        ));
    }
}
