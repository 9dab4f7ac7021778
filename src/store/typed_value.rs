//! Values that users write as text, as the bytes of an HDF5 type: the inverse of [`super::json`].
//!
//! A text that is exactly what an attribute shows already changes nothing. Else an attribute that exists keeps the type of its elements where
//! the text is a value of that type: a number that the type holds (a fraction for a float, rounded as it would be read), a text that is
//! not too long for a fixed-length string, an object with the members of a compound. A list gives it that list's shape.
//!
//! A new attribute, or one whose type the text does not fit, is made by what the text is:
//!
//! | text | stored as |
//! | --- | --- |
//! | JSON integer | int64, or uint64 above that |
//! | any other JSON number | float64; `NaN`, `Infinity` and `-Infinity` too, as Python's `json` writes them |
//! | `true`, `false` | h5py's bool |
//! | JSON string | variable-length string, UTF-8 |
//! | JSON list of these, of one kind, rectangular | an array of them: integers among fractions are float64; an empty one is float64 |
//! | anything else, JSON objects and `null` among it | the text itself, as a variable-length string |
//! | text with a NUL in it, or that is not UTF-8 | a fixed-length string of its bytes, null-padded; opaque bytes where a NUL is the last |

use half::f16;

use super::description::{boolean, float, integer};
use super::dtype::{complex_parts, is_bool, is_numpy_float, time_order};
use super::json::without_padding;
use super::literal::{self, Literal};
use crate::h5::{ByteOrder, Class, Dataspace, Datatype, Member};

/// The longest element that is made of text. Types of files claim to be of any length, and padding is not justified by a text.
const MAX_ELEMENT_BYTES: usize = 1 << 24;
/// How deep types may nest.
const MAX_DEPTH: usize = 64;

/// A value with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedValue {
    /// The type of an element.
    pub datatype: Datatype,
    /// Its extent.
    pub extent: Extent,
    /// Its elements, in C order.
    pub data: TypedData,
}

/// The extent of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// One element.
    Scalar,
    /// Elements along each axis.
    Simple(Vec<u64>),
}

/// Elements of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypedData {
    /// As they are stored.
    Bytes(Vec<u8>),
    /// Of variable-length strings: the text of each.
    Texts(Vec<Vec<u8>>),
}

/// What `text` is as the value of an attribute that is now of type `existing`, if there is one.
#[must_use]
pub fn attribute_value(text: &[u8], existing: Option<(&Datatype, &Dataspace)>) -> TypedValue {
    existing
        .and_then(|(datatype, dataspace)| value_of_type(text, datatype, dataspace))
        .or_else(|| value_of_json(text))
        .unwrap_or_else(|| value_of_text(text))
}

/// The bytes of one element of `datatype`, which has no pointers, that is shown as `text`. `None` where it is not a value of that type.
#[must_use]
pub fn bytes_of_text(text: &[u8], datatype: &Datatype) -> Option<Vec<u8>> {
    if datatype.size > MAX_ELEMENT_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    if let Class::FixedString { padding, .. } = datatype.class {
        put_string(text, datatype.size, padding, &mut bytes)?;
    } else {
        let value = literal::parse_json(text).ok()?;
        put(&value, datatype, MAX_DEPTH, &mut bytes)?;
    }
    Some(bytes)
}

/// The value in the type and kind of extent that there is.
fn value_of_type(text: &[u8], datatype: &Datatype, dataspace: &Dataspace) -> Option<TypedValue> {
    let of = |extent, data| TypedValue {
        datatype: datatype.clone(),
        extent,
        data,
    };
    if datatype.size > MAX_ELEMENT_BYTES {
        return None;
    }
    if matches!(dataspace, Dataspace::Simple { .. })
        && let Ok(value @ Literal::List(_)) = literal::parse_json(text)
        && let Some((shape, elements)) = flattened(&value, rank_of(dataspace))
    {
        let data = if datatype.is_vlen_string() {
            TypedData::Texts(
                elements
                    .iter()
                    .map(|one| plain_text(one))
                    .collect::<Option<_>>()?,
            )
        } else {
            let mut bytes = Vec::new();
            for element in elements {
                put(element, datatype, MAX_DEPTH, &mut bytes)?;
            }
            TypedData::Bytes(bytes)
        };
        return Some(of(Extent::Simple(shape), data));
    }
    if datatype.is_vlen_string() {
        let is_storable = !text.contains(&0) && std::str::from_utf8(text).is_ok();
        return is_storable.then(|| of(Extent::Scalar, TypedData::Texts(vec![text.to_vec()])));
    }
    bytes_of_text(text, datatype).map(|bytes| of(Extent::Scalar, TypedData::Bytes(bytes)))
}

fn rank_of(dataspace: &Dataspace) -> Option<usize> {
    Some(dataspace.shape().len()).filter(|_| !dataspace.is_empty())
}

/// The text of a JSON string that a variable-length string can hold.
fn plain_text(value: &Literal) -> Option<Vec<u8>> {
    let text = value.as_str()?;
    (!text.contains('\0')).then(|| text.as_bytes().to_vec())
}

/// Shape and elements of lists within lists: `rank` deep, or as deep as they go. `None` where they are not rectangular.
fn flattened(value: &Literal, rank: Option<usize>) -> Option<(Vec<u64>, Vec<&Literal>)> {
    fn collect<'v>(
        value: &'v Literal,
        shape: &[u64],
        elements: &mut Vec<&'v Literal>,
    ) -> Option<()> {
        let Some((&count, inner)) = shape.split_first() else {
            elements.push(value);
            return Some(());
        };
        let Literal::List(items) = value else {
            return None;
        };
        if items.len() as u64 != count {
            return None;
        }
        items
            .iter()
            .try_for_each(|item| collect(item, inner, elements))
    }
    let mut shape = Vec::new();
    let mut at = Some(value);
    while let Some(Literal::List(items)) = at
        && rank.is_none_or(|rank| shape.len() < rank)
    {
        shape.push(items.len() as u64);
        at = items.first();
    }
    // As many axes as HDF5 knows.
    if shape.len() > 32 || rank.is_some_and(|rank| shape.len() != rank) {
        return None;
    }
    let mut elements = Vec::new();
    collect(value, &shape, &mut elements)?;
    // Of lists as deep as they go, none is an element.
    let is_rectangular =
        rank.is_some() || elements.iter().all(|one| !matches!(one, Literal::List(_)));
    is_rectangular.then_some((shape, elements))
}

/// The value by what it is in JSON.
fn value_of_json(text: &[u8]) -> Option<TypedValue> {
    let value = literal::parse_json(text).ok()?;
    let (extent, elements) = match &value {
        Literal::List(_) => {
            let (shape, elements) = flattened(&value, None)?;
            (Extent::Simple(shape), elements)
        }
        one => (Extent::Scalar, vec![one]),
    };
    let all = |is: fn(&Literal) -> bool| elements.iter().all(|one| is(one));
    let datatype = if all(|one| matches!(one, Literal::Number(_))) {
        number_type(&elements)
    } else if all(|one| matches!(one, Literal::Bool(_))) {
        boolean()
    } else if all(|one| matches!(one, Literal::Text(_))) {
        let texts = elements
            .iter()
            .map(|one| plain_text(one))
            .collect::<Option<Vec<_>>>();
        return match texts {
            Some(texts) => Some(TypedValue {
                datatype: vlen_string(),
                extent,
                data: TypedData::Texts(texts),
            }),
            // What a variable-length string cannot hold is kept as the text of one string is.
            None => match (extent, &elements[..]) {
                (Extent::Scalar, [Literal::Text(text)]) => Some(value_of_text(text)),
                _ => None,
            },
        };
    } else {
        return None;
    };
    let mut bytes = Vec::new();
    for element in elements {
        put(element, &datatype, MAX_DEPTH, &mut bytes)?;
    }
    Some(TypedValue {
        datatype,
        extent,
        data: TypedData::Bytes(bytes),
    })
}

/// The type that holds all of these numbers, as NumPy would choose it.
fn number_type(numbers: &[&Literal]) -> Datatype {
    let all = |holds: fn(&str) -> bool| {
        numbers
            .iter()
            .all(|number| matches!(number, Literal::Number(text) if holds(text)))
    };
    let order = ByteOrder::Little;
    if numbers.is_empty() {
        float(8, order)
    } else if all(|text| text.parse::<i64>().is_ok() && text != "-0") {
        integer(8, true, order)
    } else if all(|text| text.parse::<u64>().is_ok()) {
        integer(8, false, order)
    } else {
        float(8, order)
    }
}

/// A text that is nothing else.
fn value_of_text(text: &[u8]) -> TypedValue {
    let is_utf8 = std::str::from_utf8(text).is_ok();
    let (datatype, data) = if is_utf8 && !text.contains(&0) {
        (vlen_string(), TypedData::Texts(vec![text.to_vec()]))
    } else {
        let class = if text.last() == Some(&0) {
            Class::Opaque { tag: Vec::new() }
        } else {
            Class::FixedString {
                padding: 1,
                utf8: is_utf8,
            }
        };
        let size = text.len();
        (Datatype { size, class }, TypedData::Bytes(text.to_vec()))
    };
    TypedValue {
        datatype,
        extent: Extent::Scalar,
        data,
    }
}

fn vlen_string() -> Datatype {
    Datatype {
        size: 16,
        class: Class::VlenString {
            padding: 0,
            utf8: true,
        },
    }
}

/// Appends one element. `None` where `value` is not one of `datatype`; `out` is then undefined.
fn put(value: &Literal, datatype: &Datatype, depth: usize, out: &mut Vec<u8>) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match (&datatype.class, value) {
        (
            Class::Integer {
                signed,
                order,
                bit_offset: 0,
                bit_precision,
            },
            Literal::Number(text),
        ) if usize::from(*bit_precision) == datatype.size * 8 => {
            put_integer(text, *signed, *order, datatype.size, out)
        }
        (Class::Bitfield { order, .. }, Literal::Number(text)) => {
            put_integer(text, false, *order, datatype.size, out)
        }
        (Class::Float { order, .. }, Literal::Number(text)) => {
            put_float(text, datatype, *order, out)
        }
        (Class::FixedString { padding, .. }, Literal::Text(text)) => {
            put_string(text, datatype.size, *padding, out)
        }
        (Class::Enum { base, members }, Literal::Bool(truth)) if is_bool(base, members) => {
            out.push(u8::from(*truth));
            Some(())
        }
        (Class::Enum { base, members }, Literal::Number(_)) if !is_bool(base, members) => {
            put(value, base, depth, out)
        }
        (Class::Opaque { .. }, Literal::Number(text)) => {
            put_integer(text, true, time_order(datatype)?, datatype.size, out)
        }
        (Class::Opaque { .. }, Literal::Text(digits)) if time_order(datatype).is_none() => {
            put_hexadecimal(digits, datatype.size, out)
        }
        (Class::Array { shape, base }, _) => {
            let (given, elements) = flattened(value, Some(shape.len()))?;
            if given != *shape {
                return None;
            }
            elements
                .into_iter()
                .try_for_each(|element| put(element, base, depth, out))
        }
        (Class::Complex { base }, Literal::List(parts)) if parts.len() == 2 => parts
            .iter()
            .try_for_each(|part| put(part, base, depth, out)),
        (Class::Compound { .. }, Literal::List(parts)) if parts.len() == 2 => {
            let base = complex_parts(datatype)?;
            parts
                .iter()
                .try_for_each(|part| put(part, base, depth, out))
        }
        (Class::Compound { members }, Literal::Object(_)) => {
            put_members(value, members, datatype.size, depth, out)
        }
        _ => None,
    }
}

/// All members, and no others; gaps are zeros.
fn put_members(
    value: &Literal,
    members: &[Member],
    size: usize,
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    let Literal::Object(entries) = value else {
        return None;
    };
    if entries.len() != members.len() {
        return None;
    }
    let mut element = vec![0; size];
    for member in members {
        let mut part = Vec::with_capacity(member.datatype.size);
        put(value.get(&member.name)?, &member.datatype, depth, &mut part)?;
        let end = member.offset.checked_add(part.len())?;
        element.get_mut(member.offset..end)?.copy_from_slice(&part);
    }
    out.extend_from_slice(&element);
    Some(())
}

fn put_integer(
    text: &str,
    signed: bool,
    order: ByteOrder,
    size: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    let bits = u32::try_from(size.checked_mul(8)?)
        .ok()
        .filter(|bits| *bits <= 64)?;
    let number: i128 = text.parse().ok()?;
    let (least, most) = if signed {
        (-(1i128 << bits.checked_sub(1)?), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    if !(least..=most).contains(&number) {
        return None;
    }
    put_ordered(&number.to_le_bytes()[..size], order, out)
}

/// Appends bytes that are given with the lowest first.
fn put_ordered(bytes: &[u8], order: ByteOrder, out: &mut Vec<u8>) -> Option<()> {
    match order {
        ByteOrder::Little => out.extend_from_slice(bytes),
        ByteOrder::Big => out.extend(bytes.iter().rev()),
        ByteOrder::Vax => return None,
    }
    Some(())
}

/// A float rounded to the type; a number that it cannot hold is none of it.
fn put_float(text: &str, datatype: &Datatype, order: ByteOrder, out: &mut Vec<u8>) -> Option<()> {
    if !is_numpy_float(datatype) {
        return None;
    }
    let is_named = matches!(text, "NaN" | "Infinity" | "-Infinity");
    let wide: f64 = match text {
        "Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        text => text.parse().ok()?,
    };
    let holds = |is_finite: bool| is_named || is_finite;
    match datatype.size {
        2 => {
            let value = f16::from_f64(wide);
            holds(value.is_finite()).then(|| put_ordered(&value.to_le_bytes(), order, out))?
        }
        4 => {
            // Not by way of 64 bits, which would round twice.
            let value: f32 = match text {
                "Infinity" => f32::INFINITY,
                "-Infinity" => f32::NEG_INFINITY,
                text => text.parse().ok()?,
            };
            holds(value.is_finite()).then(|| put_ordered(&value.to_le_bytes(), order, out))?
        }
        8 => holds(wide.is_finite()).then(|| put_ordered(&wide.to_le_bytes(), order, out))?,
        16 => {
            let bits = wide_bits(wide, datatype)?;
            holds(wide.is_finite()).then(|| put_ordered(&bits.to_le_bytes(), order, out))?
        }
        _ => None,
    }
}

/// The bits of a 64-bit float in a format with 15 bits of exponent, in which all of them are normal numbers.
fn wide_bits(value: f64, datatype: &Datatype) -> Option<u128> {
    let Class::Float {
        exponent_location,
        sign_location,
        mantissa_normalization,
        ..
    } = datatype.class
    else {
        return None;
    };
    let is_implied = mantissa_normalization == 2;
    // Of the x87, the bit before the binary point is stored.
    let fraction_bits = u32::from(exponent_location) - u32::from(!is_implied);
    let leading = if is_implied {
        0
    } else {
        1u128 << fraction_bits
    };
    let bits = value.to_bits();
    let sign = u128::from(bits >> 63) << sign_location;
    let exponent = i32::try_from(bits >> 52 & 0x7ff).ok()?;
    let fraction = bits & ((1 << 52) - 1);
    let (exponent, fraction) = match (exponent, fraction) {
        (0x7ff, _) => (0x7fff, u128::from(fraction) << (fraction_bits - 52)),
        (0, 0) => return Some(sign),
        (0, _) => {
            let shift = fraction.leading_zeros() - 11;
            let normal = fraction << shift & ((1 << 52) - 1);
            let exponent = 1 - 1023 + 16383 - i32::try_from(shift).ok()?;
            (exponent, u128::from(normal) << (fraction_bits - 52))
        }
        (exponent, _) => (
            exponent - 1023 + 16383,
            u128::from(fraction) << (fraction_bits - 52),
        ),
    };
    let exponent = u128::try_from(exponent).ok()? << exponent_location;
    Some(sign | exponent | leading | fraction)
}

/// Text that reads back as it is when its padding is taken away.
fn put_string(text: &[u8], size: usize, padding: u8, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let fill = if padding == 2 { b' ' } else { 0 };
    out.extend_from_slice(text);
    out.extend(std::iter::repeat_n(fill, size.checked_sub(text.len())?));
    // A null-terminated string has room for the terminator.
    let has_room = padding != 0 || text.len() < size;
    (has_room && without_padding(&out[start..], padding) == text).then_some(())
}

fn put_hexadecimal(digits: &[u8], size: usize, out: &mut Vec<u8>) -> Option<()> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != size || !rest.is_empty() {
        return None;
    }
    for pair in pairs {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = digit(pair[0])? * 16 + digit(pair[1])?;
        out.push(u8::try_from(byte).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::h5::{EnumMember, H5Error};
    use crate::store::json::{HeapData, attribute_text};
    use crate::store::type_samples::{array, compound, fixed_string, opaque};
    use ByteOrder::{Big, Little};

    struct NoHeap;

    impl HeapData for NoHeap {
        fn read_vlen(&self, _: &[u8; 16], _: usize) -> Result<Vec<u8>, H5Error> {
            Err(H5Error::NotHdf5)
        }
    }

    fn shown(value: &TypedValue) -> Vec<u8> {
        let dataspace = match &value.extent {
            Extent::Scalar => Dataspace::Scalar,
            Extent::Simple(shape) => Dataspace::Simple {
                shape: shape.clone(),
                max_shape: Vec::new(),
            },
        };
        match &value.data {
            TypedData::Bytes(bytes) => {
                attribute_text(&value.datatype, &dataspace, bytes, &NoHeap).unwrap()
            }
            TypedData::Texts(texts) => texts.join(&b'|'),
        }
    }

    fn new_value(text: &str) -> TypedValue {
        attribute_value(text.as_bytes(), None)
    }

    fn simple(shape: &[u64]) -> Dataspace {
        Dataspace::Simple {
            shape: shape.to_vec(),
            max_shape: Vec::new(),
        }
    }

    #[test]
    fn no_padding_is_made_for_an_absurd_length() {
        let text = |size| Datatype {
            size,
            class: Class::FixedString {
                padding: 1,
                utf8: false,
            },
        };
        assert_eq!(bytes_of_text(b"a", &text(3)), Some(b"a\0\0".to_vec()));
        assert_eq!(bytes_of_text(b"a", &text(MAX_ELEMENT_BYTES + 1)), None);
        let there = text(0xffff_0000);
        let list = Dataspace::Simple {
            shape: vec![0],
            max_shape: Vec::new(),
        };
        assert_ne!(
            attribute_value(b"[\"a\"]", Some((&there, &list))).datatype,
            there
        );
    }

    #[test]
    fn new_attributes_are_what_their_json_is() {
        let of = |text: &str| {
            let value = new_value(text);
            (value.datatype.clone(), value.extent.clone(), value.data)
        };
        let bytes = |numbers: &[i64]| {
            TypedData::Bytes(numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
        };
        let scalar = || Extent::Scalar;
        assert_eq!(of("5"), (integer(8, true, Little), scalar(), bytes(&[5])));
        assert_eq!(of("-7"), (integer(8, true, Little), scalar(), bytes(&[-7])));
        assert_eq!(
            of("18446744073709551615"),
            (integer(8, false, Little), scalar(), bytes(&[-1]))
        );
        assert_eq!(of("0.5").0, float(8, Little));
        assert_eq!(of("1e3").0, float(8, Little));
        assert_eq!(of("NaN").0, float(8, Little));
        assert_eq!(of("true"), (boolean(), scalar(), TypedData::Bytes(vec![1])));
        assert_eq!(
            of("\"a\""),
            (
                vlen_string(),
                scalar(),
                TypedData::Texts(vec![b"a".to_vec()])
            )
        );
        assert_eq!(
            of("[1, 2]"),
            (
                integer(8, true, Little),
                Extent::Simple(vec![2]),
                bytes(&[1, 2])
            )
        );
        assert_eq!(of("[[1], [2]]").1, Extent::Simple(vec![2, 1]));
        assert_eq!(of("[1, 2.5]").0, float(8, Little));
        assert_eq!(of("[-1, 18446744073709551615]").0, float(8, Little));
        assert_eq!(
            of("[true, false]"),
            (
                boolean(),
                Extent::Simple(vec![2]),
                TypedData::Bytes(vec![1, 0])
            )
        );
        assert_eq!(
            of("[\"a\", \"\"]"),
            (
                vlen_string(),
                Extent::Simple(vec![2]),
                TypedData::Texts(vec![b"a".to_vec(), Vec::new()])
            )
        );
        assert_eq!(
            of("[]"),
            (
                float(8, Little),
                Extent::Simple(vec![0]),
                TypedData::Bytes(Vec::new())
            )
        );
    }

    #[test]
    fn anything_else_is_text() {
        for text in [
            "",
            "m/s",
            "null",
            "{\"a\": 1}",
            "[1, \"a\"]",
            "[[1], [2, 3]]",
            "[1, [2]]",
            "[null]",
            "[true, 1]",
            "nan",
            "1e400",
            "1 2",
            "'a'",
        ] {
            let value = new_value(text);
            assert_eq!(value.datatype, vlen_string(), "{text}");
            assert_eq!(value.data, TypedData::Texts(vec![text.as_bytes().to_vec()]));
        }
        for (bytes, datatype) in [
            (&b"\xff\xfe"[..], fixed_string(2, 1)),
            (
                b"a\0b",
                Datatype {
                    size: 3,
                    class: Class::FixedString {
                        padding: 1,
                        utf8: true,
                    },
                },
            ),
            (b"a\0", opaque(2, "")),
        ] {
            let value = attribute_value(bytes, None);
            assert_eq!(value.datatype, datatype);
            assert_eq!(value.data, TypedData::Bytes(bytes.to_vec()));
        }
        let nul = new_value("\"a\\u0000b\"");
        assert_eq!(nul.data, TypedData::Bytes(b"a\0b".to_vec()));
    }

    /// What is shown of a value, set again, is that value.
    #[test]
    fn an_attribute_that_exists_keeps_its_type() {
        let color = Datatype {
            size: 2,
            class: Class::Enum {
                base: Box::new(integer(2, false, Big)),
                members: vec![EnumMember {
                    name: b"RED".to_vec(),
                    value: vec![0, 1],
                }],
            },
        };
        let nested = compound(
            8,
            vec![("x", 0, integer(2, true, Big)), ("y", 4, float(4, Little))],
        );
        let pair = compound(
            16,
            vec![("r", 0, float(8, Little)), ("i", 8, float(8, Little))],
        );
        let point = pair.clone();
        for (datatype, text) in [
            (integer(1, true, Little), "-128"),
            (integer(2, false, Big), "65535"),
            (integer(8, false, Little), "18446744073709551615"),
            (float(2, Little), "0.1"),
            (float(4, Big), "0.1"),
            (float(4, Little), "3.4028235e38"),
            (float(8, Little), "-0.0"),
            (float(8, Little), "5e-324"),
            (float(16, Little), "0.1"),
            (float(16, Big), "-5e-324"),
            (float(16, Little), "-Infinity"),
            (float(16, Little), "NaN"),
            (float(16, Little), "0.0"),
            (float(2, Big), "NaN"),
            (boolean(), "true"),
            (color, "1"),
            (fixed_string(5, 1), "abcde"),
            (fixed_string(5, 0), "abcd"),
            (fixed_string(5, 2), "ab c"),
            (opaque(3, ""), "\"00ff10\""),
            (opaque(8, "NUMPY:>M8[ns]"), "-5"),
            (array(&[2, 2], integer(4, true, Little)), "[[1, 2], [3, 4]]"),
            (array(&[2], point), "[[1.0, 2.0], [3.0, 4.0]]"),
            (pair, "[1.5, -2.0]"),
            (nested, "{\"x\": 3, \"y\": 0.5}"),
        ] {
            let value = attribute_value(text.as_bytes(), Some((&datatype, &Dataspace::Scalar)));
            assert_eq!(
                (&value.datatype, &value.extent),
                (&datatype, &Extent::Scalar),
                "{text}"
            );
            assert_eq!(String::from_utf8(shown(&value)).unwrap(), text);
            // And in an array.
            let inner = match datatype.class {
                Class::FixedString { .. } => format!("\"{text}\""),
                _ => text.to_owned(),
            };
            let list = format!("[{inner}, {inner}]");
            let value = attribute_value(list.as_bytes(), Some((&datatype, &simple(&[1]))));
            assert_eq!(
                (&value.datatype, &value.extent),
                (&datatype, &Extent::Simple(vec![2])),
                "{list}"
            );
            assert_eq!(String::from_utf8(shown(&value)).unwrap(), list);
        }
        let text = attribute_value(b"5", Some((&vlen_string(), &Dataspace::Scalar)));
        assert_eq!(text.data, TypedData::Texts(vec![b"5".to_vec()]));
        let list = attribute_value(b"[\"5\"]", Some((&vlen_string(), &simple(&[2]))));
        assert_eq!(
            (list.extent, list.data),
            (
                Extent::Simple(vec![1]),
                TypedData::Texts(vec![b"5".to_vec()])
            )
        );
    }

    #[test]
    fn a_value_that_does_not_fit_makes_a_type_of_its_own() {
        for (datatype, text, now) in [
            (integer(1, true, Little), "128", integer(8, true, Little)),
            (integer(1, false, Little), "-1", integer(8, true, Little)),
            (integer(4, true, Little), "1.5", float(8, Little)),
            (integer(4, true, Little), "text", vlen_string()),
            (float(4, Little), "1e39", float(8, Little)),
            (float(2, Little), "70000", integer(8, true, Little)),
            (boolean(), "1", integer(8, true, Little)),
            (fixed_string(3, 1), "abcd", vlen_string()),
            (fixed_string(3, 0), "abc", vlen_string()),
            (fixed_string(4, 2), "abc ", vlen_string()),
            (opaque(2, ""), "\"0\"", vlen_string()),
            (
                array(&[2], integer(4, true, Little)),
                "[1]",
                integer(8, true, Little),
            ),
            (
                compound(4, vec![("x", 0, integer(4, true, Little))]),
                "{\"y\": 1}",
                vlen_string(),
            ),
            (
                compound(4, vec![("x", 0, integer(4, true, Little))]),
                "{\"x\": 1, \"y\": 1}",
                vlen_string(),
            ),
        ] {
            let value = attribute_value(text.as_bytes(), Some((&datatype, &Dataspace::Scalar)));
            assert_eq!(value.datatype, now, "{text}");
        }
        let bytes = attribute_value(b"\xff", Some((&vlen_string(), &Dataspace::Scalar)));
        assert_eq!(bytes.datatype, fixed_string(1, 1));
    }

    #[test]
    fn a_double_keeps_its_value_in_sixteen_bytes() {
        // numpy.longdouble(0.1).tobytes() on x86-64: the first ten bytes.
        let bytes = bytes_of_text(b"0.1", &float(16, Little)).unwrap();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(
                bytes[..10],
                [0, 0xd0, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xfb, 0x3f]
            );
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back_as_they_are(bits in any::<u64>(), narrow in any::<u32>(), half in any::<u16>()) {
            for (size, bytes) in [(8, bits.to_le_bytes().to_vec()), (4, narrow.to_le_bytes().to_vec()), (2, half.to_le_bytes().to_vec())] {
                let datatype = float(size, Little);
                let text = attribute_text(&datatype, &Dataspace::Scalar, &bytes, &NoHeap).unwrap();
                let read = bytes_of_text(&text, &datatype).unwrap();
                if text != b"NaN" {
                    prop_assert_eq!(&read, &bytes);
                }
                let datatype = integer(size, true, Big);
                let text = attribute_text(&datatype, &Dataspace::Scalar, &bytes, &NoHeap).unwrap();
                prop_assert_eq!(bytes_of_text(&text, &datatype).unwrap(), bytes);
            }
        }

        #[test]
        fn any_text_is_some_value(text in prop::collection::vec(any::<u8>(), 0..40)) {
            for existing in [None, Some((&integer(4, true, Little), &simple(&[2])))] {
                let value = attribute_value(&text, existing);
                let elements = match &value.extent {
                    Extent::Scalar => 1,
                    Extent::Simple(shape) => shape.iter().product::<u64>(),
                };
                let found = match &value.data {
                    TypedData::Bytes(bytes) => (bytes.len() / value.datatype.size.max(1)) as u64,
                    TypedData::Texts(texts) => texts.len() as u64,
                };
                prop_assert_eq!(found, elements);
            }
        }
    }
}
