//! NumPy's descriptions of types, read: the inverse of [`crate::store::dtype::numpy_descr`].

use super::{DescriptionError, beginning, unreadable};
use crate::h5::{ByteOrder, Class, Datatype, EnumMember, Member};
use crate::store::literal::{self, Literal};

/// How deep compounds and arrays may nest.
const MAX_DEPTH: usize = 32;
/// The longest element that HDF5 can describe is shorter than this.
const SIZE_LIMIT: usize = 1 << 31;
/// As many axes as HDF5 knows.
const MAX_RANK: usize = 32;

/// Why a description is none that can be stored.
type Problem = &'static str;

/// The type that `text` describes, stored as h5py stores it: `<f8`, `|S5`, `float32`, a list of members as in `numpy.dtype.descr` (JSON or as
/// Python prints it), `[descr, shape]` for an array, a dictionary of `names`, `formats`, `offsets` and `itemsize`; `|O` is a
/// variable-length string in UTF-8.
///
/// # Errors
/// [`DescriptionError::Datatype`], [`DescriptionError::Unreadable`].
pub fn parse_datatype(text: &[u8]) -> Result<Datatype, DescriptionError> {
    let trimmed = text.trim_ascii();
    let is_literal = trimmed
        .first()
        .is_some_and(|byte| matches!(byte, b'[' | b'(' | b'{' | b'"' | b'\''));
    let value = if is_literal {
        literal::parse_python(trimmed).map_err(|problem| unreadable("type", text, problem))?
    } else {
        Literal::Text(trimmed.to_vec())
    };
    let datatype = described(&value, MAX_DEPTH).and_then(|datatype| {
        let has_text_inside = datatype.contains_pointers() && !datatype.is_vlen_string();
        if has_text_inside {
            return Err("strings of variable length cannot be written within another type");
        }
        Ok(datatype)
    });
    datatype.map_err(|problem| refused(trimmed, problem))
}

/// The same of a description that was read already. It may have strings of variable length within another type.
///
/// # Errors
/// [`DescriptionError::Datatype`].
pub(in crate::store) fn datatype_of(value: &Literal) -> Result<Datatype, DescriptionError> {
    described(value, MAX_DEPTH).map_err(|problem| {
        let text = value.as_str().unwrap_or("of a structured array");
        refused(text.as_bytes(), problem)
    })
}

fn refused(descr: &[u8], problem: Problem) -> DescriptionError {
    DescriptionError::Datatype {
        descr: beginning(descr).into_owned(),
        problem,
    }
}

/// A string of variable length in UTF-8.
pub(in crate::store) fn vlen_string() -> Datatype {
    Datatype {
        size: 16,
        class: Class::VlenString {
            padding: 0,
            utf8: true,
        },
    }
}

fn described(value: &Literal, depth: usize) -> Result<Datatype, Problem> {
    let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
    match value {
        Literal::Text(_) => named(value.as_str().ok_or("it is not UTF-8")?),
        Literal::List(items) => match &items[..] {
            [base @ Literal::Text(_), shape] if !is_member(base) || is_shape(shape) => {
                array_of(described(base, depth)?, shape)
            }
            [base @ (Literal::List(_) | Literal::Object(_)), shape]
                if !is_member(base) && is_shape(shape) =>
            {
                array_of(described(base, depth)?, shape)
            }
            members => compound(members, depth),
        },
        Literal::Object(_) => from_dictionary(value, depth),
        _ => Err("it is not a description of a type"),
    }
}

/// Whether `value` is a member of a compound: a list that begins with a name and then describes a type.
fn is_member(value: &Literal) -> bool {
    match value {
        Literal::List(items) => match &items[..] {
            [Literal::Text(_), second] => !is_shape(second),
            [Literal::Text(_), _, shape] => is_shape(shape),
            _ => false,
        },
        _ => false,
    }
}

fn is_shape(value: &Literal) -> bool {
    match value {
        Literal::List(axes) => axes.iter().all(|axis| axis.as_u64().is_some()),
        value => value.as_u64().is_some(),
    }
}

fn array_of(base: Datatype, shape: &Literal) -> Result<Datatype, Problem> {
    let axes: Option<Vec<u64>> = match shape {
        Literal::List(axes) => axes.iter().map(Literal::as_u64).collect(),
        axis => axis.as_u64().map(|axis| vec![axis]),
    };
    let shape = axes.ok_or("the shape of an array is not a list of whole numbers")?;
    if shape.is_empty() {
        return Ok(base);
    }
    // An array of arrays is one of more axes, as NumPy has it.
    let (inner, base) = match base.class {
        Class::Array { shape, base } => (shape, *base),
        _ => (Vec::new(), base),
    };
    let shape = [shape, inner].concat();
    if shape.len() > MAX_RANK {
        return Err("an array of more than 32 axes");
    }
    let size = shape
        .iter()
        .try_fold(base.size, |n, &axis| {
            n.checked_mul(usize::try_from(axis).ok()?)
        })
        .filter(|&size| size > 0 && size < SIZE_LIMIT)
        .ok_or("an array of a size that cannot be stored")?;
    Ok(Datatype {
        size,
        class: Class::Array {
            shape,
            base: Box::new(base),
        },
    })
}

/// A compound of members, each behind the one before; one without a name is a gap.
fn compound(items: &[Literal], depth: usize) -> Result<Datatype, Problem> {
    let mut members: Vec<Member> = Vec::with_capacity(items.len());
    let mut size = 0usize;
    for item in items {
        let Literal::List(parts) = item else {
            return Err("a member is not a list of its name and type");
        };
        let (name, descr, shape) = match &parts[..] {
            [Literal::Text(name), descr] => (name, descr, None),
            [Literal::Text(name), descr, shape] => (name, descr, Some(shape)),
            _ => return Err("a member is not a list of its name and type"),
        };
        let mut datatype = described(descr, depth)?;
        if let Some(shape) = shape {
            datatype = array_of(datatype, shape)?;
        }
        let offset = size;
        size = size
            .checked_add(datatype.size)
            .filter(|&size| size < SIZE_LIMIT)
            .ok_or("it is of a size that cannot be stored")?;
        if name.is_empty() {
            continue;
        }
        add_member(&mut members, name, offset, datatype)?;
    }
    finished(members, size)
}

fn add_member(
    members: &mut Vec<Member>,
    name: &[u8],
    offset: usize,
    datatype: Datatype,
) -> Result<(), Problem> {
    if name.contains(&0) {
        return Err("a member's name has a NUL");
    }
    if members.iter().any(|member| member.name == name) {
        return Err("two members have one name");
    }
    members.push(Member {
        name: name.to_vec(),
        offset,
        datatype,
    });
    Ok(())
}

fn finished(members: Vec<Member>, size: usize) -> Result<Datatype, Problem> {
    if members.is_empty() {
        return Err("it has no members");
    }
    Ok(Datatype {
        size,
        class: Class::Compound { members },
    })
}

/// A compound as NumPy prints one whose members are not simply one behind the other.
fn from_dictionary(value: &Literal, depth: usize) -> Result<Datatype, Problem> {
    let list = |key: &[u8]| match value.get(key) {
        Some(Literal::List(items)) => Some(&items[..]),
        _ => None,
    };
    let (Some(names), Some(formats)) = (list(b"names"), list(b"formats")) else {
        return Err("it has no lists of names and formats");
    };
    let offsets = list(b"offsets");
    if names.len() != formats.len() || offsets.is_some_and(|offsets| offsets.len() != names.len()) {
        return Err("its lists are of different lengths");
    }
    let mut members = Vec::with_capacity(names.len());
    let mut end = 0usize;
    for (i, (name, format)) in names.iter().zip(formats).enumerate() {
        let Literal::Text(name) = name else {
            return Err("a member's name is not a string");
        };
        let datatype = described(format, depth)?;
        let offset = match offsets {
            Some(offsets) => offsets[i]
                .as_u64()
                .and_then(|offset| usize::try_from(offset).ok())
                .ok_or("an offset is not a whole number")?,
            None => end,
        };
        let behind = offset
            .checked_add(datatype.size)
            .filter(|&size| size < SIZE_LIMIT)
            .ok_or("it is of a size that cannot be stored")?;
        let overlaps = members.iter().any(|other: &Member| {
            offset < other.offset + other.datatype.size && other.offset < behind
        });
        if overlaps {
            return Err("members overlap");
        }
        end = end.max(behind);
        add_member(&mut members, name, offset, datatype)?;
    }
    let size = match value.get(b"itemsize") {
        Some(size) => size
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .filter(|&size| size >= end && size < SIZE_LIMIT)
            .ok_or("its size is smaller than its members need")?,
        None => end,
    };
    finished(members, size)
}

/// A type by its code (`<f8`) or its name (`float64`).
fn named(text: &str) -> Result<Datatype, Problem> {
    const UNKNOWN: Problem = "NumPy has no such type";
    let code = match text {
        "bool" | "bool_" => "?",
        "int8" => "i1",
        "int16" => "i2",
        "int32" => "i4",
        "int64" | "int" => "i8",
        "uint8" => "u1",
        "uint16" => "u2",
        "uint32" => "u4",
        "uint64" | "uint" => "u8",
        "float16" => "f2",
        "float32" => "f4",
        "float64" | "float" => "f8",
        "float128" | "longdouble" => "f16",
        "complex64" => "c8",
        "complex128" | "complex" => "c16",
        "complex256" | "clongdouble" => "c32",
        "object" | "str" | "O" => "|O",
        text => text,
    };
    let (order, rest) = match code.strip_prefix(['<', '>', '|', '=']) {
        Some(rest) if code.starts_with('>') => (ByteOrder::Big, rest),
        Some(rest) => (ByteOrder::Little, rest),
        None => (ByteOrder::Little, code),
    };
    let kind = rest.chars().next().ok_or(UNKNOWN)?;
    let rest = &rest[kind.len_utf8()..];
    if matches!(kind, 'M' | 'm') {
        return time(kind, order, rest).ok_or(UNKNOWN);
    }
    let size: Option<usize> = match rest {
        "" => None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| UNKNOWN)?)
        }
        _ => return Err(UNKNOWN),
    };
    let long = |size: Option<usize>| {
        let size = size.unwrap_or(0);
        if size == 0 {
            return Err("its size is missing, or 0");
        }
        if size >= SIZE_LIMIT {
            return Err("it is of a size that cannot be stored");
        }
        Ok(size)
    };
    match (kind, size) {
        ('?', None) | ('b', Some(1)) => Ok(boolean()),
        ('i', Some(size @ (1 | 2 | 4 | 8))) => Ok(integer(size, true, order)),
        ('u', Some(size @ (1 | 2 | 4 | 8))) => Ok(integer(size, false, order)),
        ('f', Some(size @ (2 | 4 | 8 | 16))) => Ok(float(size, order)),
        ('c', Some(size @ (8 | 16 | 32))) => Ok(complex(size / 2, order)),
        ('S' | 'a', size) => Ok(Datatype {
            size: long(size)?,
            class: Class::FixedString {
                padding: 1,
                utf8: false,
            },
        }),
        ('V', size) => Ok(Datatype {
            size: long(size)?,
            class: Class::Opaque { tag: Vec::new() },
        }),
        ('O', None | Some(8)) => Ok(vlen_string()),
        ('U', _) => Err("HDF5 has no strings of 4 bytes a character: take |O or |S"),
        _ => Err(UNKNOWN),
    }
}

/// A date or time span, in an opaque type with the tag that h5py gives it.
fn time(kind: char, order: ByteOrder, rest: &str) -> Option<Datatype> {
    let unit = rest.strip_prefix('8')?;
    let inner = unit
        .strip_prefix('[')
        .and_then(|unit| unit.strip_suffix(']'));
    let is_sound = unit.is_empty()
        || inner.is_some_and(|unit| {
            !unit.is_empty() && unit.chars().all(|c| c.is_ascii_alphanumeric())
        });
    let sign = if order == ByteOrder::Big { '>' } else { '<' };
    is_sound.then(|| Datatype {
        size: 8,
        class: Class::Opaque {
            tag: format!("NUMPY:{sign}{kind}8{unit}").into_bytes(),
        },
    })
}

/// A whole number all of whose bits count.
pub(in crate::store) fn integer(size: usize, signed: bool, order: ByteOrder) -> Datatype {
    Datatype {
        size,
        class: Class::Integer {
            signed,
            // Of a single byte HDF5 says that it is little-endian.
            order: if size == 1 { ByteOrder::Little } else { order },
            bit_offset: 0,
            bit_precision: u16::try_from(size * 8).unwrap_or(u16::MAX),
        },
    }
}

/// A float as IEEE 754 has it for 2, 4 and 8 bytes; for 16 it is this machine's `long double`.
pub(in crate::store) fn float(size: usize, order: ByteOrder) -> Datatype {
    let is_x87 = size == 16 && cfg!(any(target_arch = "x86_64", target_arch = "x86"));
    let (bits, exponent_size, exponent_bias): (u8, u8, u32) = match size {
        2 => (16, 5, 15),
        4 => (32, 8, 127),
        8 => (64, 11, 1023),
        _ if is_x87 => (80, 15, 16383),
        _ => (128, 15, 16383),
    };
    let mantissa_size = bits - exponent_size - 1;
    Datatype {
        size,
        class: Class::Float {
            order,
            bit_offset: 0,
            bit_precision: u16::from(bits),
            sign_location: bits - 1,
            exponent_location: mantissa_size,
            exponent_size,
            mantissa_location: 0,
            mantissa_size,
            exponent_bias,
            mantissa_normalization: if is_x87 { 0 } else { 2 },
        },
    }
}

/// A complex number as h5py stores it: a compound of `r` and `i`.
fn complex(part_bytes: usize, order: ByteOrder) -> Datatype {
    let part = |name: &[u8], offset| Member {
        name: name.to_vec(),
        offset,
        datatype: float(part_bytes, order),
    };
    Datatype {
        size: part_bytes * 2,
        class: Class::Compound {
            members: vec![part(b"r", 0), part(b"i", part_bytes)],
        },
    }
}

/// A bool as h5py stores it: an enumeration of `FALSE` and `TRUE`.
pub(in crate::store) fn boolean() -> Datatype {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dtype::numpy_descr;
    use crate::store::type_samples::{array, compound, fixed_string, opaque, vlen_string};
    use ByteOrder::{Big, Little};

    fn parsed(text: &str) -> Datatype {
        parse_datatype(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_shown_is_read() {
        let nested = compound(
            6,
            vec![("x", 0, integer(2, true, Big)), ("y", 2, float(4, Little))],
        );
        let gaps = compound(
            32,
            vec![
                ("flag", 1, boolean()),
                ("box", 4, array(&[2, 2], integer(2, false, Little))),
                ("in", 14, nested.clone()),
                ("text", 20, fixed_string(3, 1)),
                ("one", 24, array(&[1], float(2, Big))),
            ],
        );
        for datatype in [
            integer(1, true, Little),
            integer(1, false, Little),
            integer(2, true, Big),
            integer(8, false, Little),
            float(2, Little),
            float(4, Big),
            float(8, Little),
            float(16, Little),
            boolean(),
            fixed_string(5, 1),
            opaque(7, ""),
            opaque(8, "NUMPY:<M8[ns]"),
            opaque(8, "NUMPY:>m8[3s]"),
            complex(4, Little),
            complex(8, Big),
            complex(16, Little),
            vlen_string(),
            array(&[2, 3], integer(4, true, Little)),
            array(&[2], nested.clone()),
            compound(18, vec![("list", 0, array(&[3], nested.clone()))]),
            compound(6, vec![("outer", 0, nested.clone())]),
            compound(1, vec![("b", 0, boolean())]),
            gaps,
            nested,
        ] {
            let descr = numpy_descr(&datatype);
            let text = descr
                .as_str()
                .map_or_else(|| descr.to_string(), str::to_owned);
            assert_eq!(parsed(&text), datatype, "{text}");
            // As Python prints it.
            let python = text.replace('[', "(").replace(']', ",)").replace('"', "'");
            if !python.starts_with("('") && descr.is_array() {
                let python = python.replace("(,)", "()");
                assert_eq!(parsed(&python), datatype, "{python}");
            }
        }
    }

    #[test]
    fn other_ways_to_write_it() {
        assert_eq!(parsed("float64"), float(8, Little));
        assert_eq!(parsed(" \"<f8\" "), float(8, Little));
        assert_eq!(parsed("'i4'"), integer(4, true, Little));
        assert_eq!(parsed("bool"), boolean());
        assert_eq!(parsed("?"), boolean());
        assert_eq!(parsed("object"), vlen_string());
        assert_eq!(parsed("('<f8', (2,))"), array(&[2], float(8, Little)));
        assert_eq!(
            parsed("[['a', '<i4', 3]]"),
            compound(12, vec![("a", 0, array(&[3], integer(4, true, Little)))])
        );
        assert_eq!(
            parsed(
                "{'names': ['a', 'b'], 'formats': ['u1', '<f4'], 'offsets': [0, 4], 'itemsize': 12}"
            ),
            compound(
                12,
                vec![
                    ("a", 0, integer(1, false, Little)),
                    ("b", 4, float(4, Little))
                ]
            )
        );
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        for text in [
            "",
            "<",
            "f3",
            "<i16",
            "<U5",
            "|S0",
            "|V",
            "<M8[",
            "<M8[]",
            "<M8[n s]",
            "|S99999999999999999999",
            "|S2147483648",
            "[]",
            "[[\"a\"]]",
            "[[\"\", \"|V4\"]]",
            "[[\"a\", \"<i4\"], [\"a\", \"<i4\"]]",
            "[\"<i4\", [0]]",
            "[\"<i4\", [4294967296, 4294967296]]",
            "[[\"a\", \"|O\"]]",
            "[\"|O\", [2]]",
            "12",
            "{\"names\": [\"a\", \"b\"], \"formats\": [\"<i4\", \"<i4\"], \"offsets\": [0, 2]}",
            "{\"names\": [\"a\"], \"formats\": [\"<i4\"], \"itemsize\": 3}",
            "\u{fc}4",
        ] {
            assert!(parse_datatype(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{}\"<i4\"{}", "[".repeat(60), ", [1]]".repeat(60));
        assert!(parse_datatype(deep.as_bytes()).is_err());
        assert!(parse_datatype(b"\xff").is_err());
        let error = parse_datatype(b"<U5").unwrap_err().to_string();
        assert_eq!(
            error,
            "the type <U5 cannot be stored: HDF5 has no strings of 4 bytes a character: take |O or |S"
        );
    }
}
