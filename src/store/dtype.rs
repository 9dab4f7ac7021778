//! What NumPy calls an element type, so that `numpy.dtype(descr)` reads the stored bytes.

use serde_json::{Value, json};

use crate::h5::{ByteOrder, Class, Datatype, EnumMember, Member};

/// How deep compounds and arrays may nest; what lies deeper is plain bytes.
const MAX_DEPTH: usize = 32;

/// NumPy's description of the stored bytes of one element: a string as in `numpy.dtype.str` (`"<f8"`, `"|S5"`), a list as in
/// `numpy.dtype.descr` for a compound (`[["a", "<i4"], ["", "|V4"], ["b", ">f8", [2, 3]]]`, each gap an entry without a
/// name), or `[descr, shape]` for an array that is not a member. As h5py maps types, with these differences, which keep the bytes whole:
///
/// - Members are in the order of their offsets. Where they overlap, or have no name, the compound is plain bytes.
/// - What NumPy has no type for is plain bytes: `"|V3"` for a 24-bit integer, `"|V2"` for a bfloat16.
/// - A 16-byte float is `"<f16"` only where it is this machine's `long double`, as NumPy knows no other.
///
/// Types whose elements are pointers have no bytes of their own; as in h5py they are `"|O"`, and compounds with such members have no entries for gaps.
/// A member's name that is not UTF-8 has U+FFFD in place of what cannot be read.
#[must_use]
pub fn numpy_descr(datatype: &Datatype) -> Value {
    describe(datatype, MAX_DEPTH)
}

fn describe(datatype: &Datatype, depth: usize) -> Value {
    let size = datatype.size;
    let bytes = || json!(format!("|V{size}"));
    let Some(depth) = depth.checked_sub(1) else {
        return bytes();
    };
    match &datatype.class {
        Class::Integer { signed, order, .. } => {
            number(if *signed { 'i' } else { 'u' }, *order, size)
        }
        Class::Bitfield { order, .. } => number('u', *order, size),
        Class::Float { order, .. } if is_numpy_float(datatype) => {
            Some(json!(format!("{}f{size}", order_sign(*order))))
        }
        Class::FixedString { .. } => Some(json!(format!("|S{size}"))),
        Class::Opaque { tag } => numpy_tag(tag, size).map(Value::String),
        Class::Enum { base, members } if is_bool(base, members) => Some(json!("|b1")),
        Class::Enum { base, .. } => Some(describe(base, depth)),
        Class::Complex { base } => describe_complex(base, size),
        Class::Compound { members } => match complex_parts(datatype) {
            Some(base) => describe_complex(base, size),
            None => describe_members(members, size, datatype.contains_pointers(), depth),
        },
        Class::Array { .. } => {
            let (shape, base) = flat_array(datatype);
            Some(json!([describe(base, depth), shape]))
        }
        Class::VlenString { .. } | Class::VlenSequence { .. } | Class::Reference { .. } => {
            Some(json!("|O"))
        }
        Class::Float { .. } | Class::Time { .. } => None,
    }
    .unwrap_or_else(bytes)
}

/// `<` or `>`; callers exclude the VAX.
fn order_sign(order: ByteOrder) -> char {
    if order == ByteOrder::Big { '>' } else { '<' }
}

fn number(kind: char, order: ByteOrder, size: usize) -> Option<Value> {
    match (size, order) {
        (1, _) => Some(json!(format!("|{kind}1"))),
        (2 | 4 | 8, ByteOrder::Little | ByteOrder::Big) => {
            Some(json!(format!("{}{kind}{size}", order_sign(order))))
        }
        _ => None,
    }
}

/// Whether the type is the IEEE 754 format of its size, or this machine's `long double`.
pub(super) fn is_numpy_float(datatype: &Datatype) -> bool {
    let &Datatype {
        size,
        class:
            Class::Float {
                order,
                bit_offset: 0,
                bit_precision,
                sign_location,
                exponent_location,
                exponent_size,
                mantissa_location: 0,
                mantissa_size,
                exponent_bias,
                mantissa_normalization,
            },
    } = datatype
    else {
        return false;
    };
    let layout = (
        size,
        bit_precision,
        sign_location,
        (exponent_location, exponent_size, exponent_bias),
        (mantissa_size, mantissa_normalization),
    );
    let long_double_is_x87 = cfg!(any(target_arch = "x86_64", target_arch = "x86"));
    order != ByteOrder::Vax
        && match layout {
            (2, 16, 15, (10, 5, 15), (10, 2))
            | (4, 32, 31, (23, 8, 127), (23, 2))
            | (8, 64, 63, (52, 11, 1023), (52, 2)) => true,
            (16, 80, 79, (64, 15, 16383), (64, _)) => long_double_is_x87,
            (16, 128, 127, (112, 15, 16383), (112, 2)) => !long_double_is_x87,
            _ => false,
        }
}

/// Whether an enumeration is what h5py makes of a bool: `FALSE` and `TRUE` over one byte.
pub(super) fn is_bool(base: &Datatype, members: &[EnumMember]) -> bool {
    let has = |name: &[u8], value: u8| members.iter().any(|m| m.name == name && m.value == [value]);
    base.size == 1
        && matches!(base.class, Class::Integer { .. })
        && members.len() == 2
        && has(b"FALSE", 0)
        && has(b"TRUE", 1)
}

/// The type of the parts where a compound is what h5py makes of a complex number: `r` and then `i`, the same float, and nothing between.
pub(super) fn complex_parts(datatype: &Datatype) -> Option<&Datatype> {
    let Class::Compound { members } = &datatype.class else {
        return None;
    };
    let [real, imaginary] = &members[..] else {
        return None;
    };
    let base = &real.datatype;
    let is_complex = matches!(base.class, Class::Float { .. })
        && imaginary.datatype == *base
        && (&real.name[..], real.offset) == (b"r", 0)
        && (&imaginary.name[..], imaginary.offset) == (b"i", base.size)
        && base.size.checked_mul(2) == Some(datatype.size);
    is_complex.then_some(base)
}

fn describe_complex(base: &Datatype, size: usize) -> Option<Value> {
    match base.class {
        Class::Float { order, .. } if is_numpy_float(base) && matches!(base.size, 4 | 8 | 16) => {
            Some(json!(format!("{}c{size}", order_sign(order))))
        }
        _ => None,
    }
}

/// The shape of an array whose elements may be arrays again, and what they are in the end.
pub(super) fn flat_array(datatype: &Datatype) -> (Vec<u64>, &Datatype) {
    let mut shape = Vec::new();
    let mut inner = datatype;
    while let Class::Array { shape: more, base } = &inner.class {
        shape.extend_from_slice(more);
        inner = base;
    }
    (shape, inner)
}

fn describe_members(
    members: &[Member],
    size: usize,
    has_pointers: bool,
    depth: usize,
) -> Option<Value> {
    let mut ordered: Vec<&Member> = members.iter().collect();
    ordered.sort_by_key(|member| member.offset);
    let mut fields = Vec::with_capacity(members.len());
    let mut at = 0;
    let pad = |fields: &mut Vec<Value>, gap: usize| {
        if gap > 0 && !has_pointers {
            fields.push(json!(["", format!("|V{gap}")]));
        }
    };
    for member in ordered {
        if member.name.is_empty() {
            return None;
        }
        pad(&mut fields, member.offset.checked_sub(at)?);
        at = member.offset.checked_add(member.datatype.size)?;
        let name = String::from_utf8_lossy(&member.name);
        let (shape, base) = flat_array(&member.datatype);
        let descr = describe(base, depth);
        fields.push(if shape.is_empty() {
            json!([name, descr])
        } else {
            json!([name, descr, shape])
        });
    }
    pad(&mut fields, size.checked_sub(at)?);
    (!fields.is_empty()).then_some(Value::Array(fields))
}

/// The NumPy type in an opaque type's tag, as h5py's `opaque_dtype` writes it (`NUMPY:<M8[ns]`), where it has that size.
fn numpy_tag(tag: &[u8], size: usize) -> Option<String> {
    let text = std::str::from_utf8(tag).ok()?.strip_prefix("NUMPY:")?;
    let text = match (
        text.strip_prefix("datetime64"),
        text.strip_prefix("timedelta64"),
    ) {
        (Some(unit), _) => format!("<M8{unit}"),
        (_, Some(unit)) => format!("<m8{unit}"),
        _ => text.to_owned(),
    };
    let mut letters = text.chars();
    let order = letters.next()?;
    let kind = letters.next()?;
    let rest = letters.as_str();
    let (count, unit) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
    let count: usize = count.parse().ok()?;
    let bytes = if kind == 'U' {
        count.checked_mul(4)?
    } else {
        count
    };
    let unit_is_sound = match kind {
        'm' | 'M' => {
            let inner = unit
                .strip_prefix('[')
                .and_then(|unit| unit.strip_suffix(']'));
            unit.is_empty()
                || inner.is_some_and(|unit| unit.chars().all(|c| c.is_ascii_alphanumeric()))
        }
        'b' | 'i' | 'u' | 'f' | 'c' | 'S' | 'U' | 'V' => unit.is_empty(),
        _ => false,
    };
    (matches!(order, '<' | '>' | '|') && unit_is_sound && bytes == size).then_some(text)
}

/// The byte order of a count of time units, where an opaque type is one of NumPy's.
pub(super) fn time_order(datatype: &Datatype) -> Option<ByteOrder> {
    let Class::Opaque { tag } = &datatype.class else {
        return None;
    };
    let text = numpy_tag(tag, datatype.size)?;
    match text.get(..2)? {
        "<M" | "<m" => Some(ByteOrder::Little),
        ">M" | ">m" => Some(ByteOrder::Big),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::store::type_samples::*;
    use ByteOrder::{Big, Little};

    /// Types, and the expression for which h5py makes them.
    fn pairs() -> Vec<(Datatype, &'static str)> {
        let nested = compound(
            6,
            vec![("x", 0, integer(2, true, Big)), ("y", 2, float(4, Little))],
        );
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
        let pair = |size: usize, order| {
            let parts = vec![
                ("r", 0, float(size, order)),
                ("i", size, float(size, order)),
            ];
            compound(size * 2, parts)
        };
        vec![
            (integer(1, true, Little), "'i1'"),
            (integer(1, false, Big), "'u1'"),
            (integer(2, true, Big), "'>i2'"),
            (integer(8, false, Little), "'<u8'"),
            (float(2, Little), "'<f2'"),
            (float(4, Big), "'>f4'"),
            (float(8, Little), "'<f8'"),
            (boolean(), "'?'"),
            (color, "h5py.enum_dtype({'RED': 1}, '>u2')"),
            (fixed_string(5, 1), "'S5'"),
            (opaque(7, ""), "'V7'"),
            (opaque(8, "NUMPY:<M8[ns]"), "h5py.opaque_dtype(numpy.dtype('<M8[ns]'))"),
            (opaque(8, "NUMPY:>m8[3s]"), "h5py.opaque_dtype(numpy.dtype('>m8[3s]'))"),
            (opaque(12, "NUMPY:<U3"), "h5py.opaque_dtype(numpy.dtype('<U3'))"),
            (pair(4, Little), "'<c8'"),
            (pair(8, Big), "'>c16'"),
            (array(&[2, 3], integer(4, true, Little)), "('<i4', (2, 3))"),
            (
                array(&[3], array(&[2], integer(4, true, Little))),
                "('<i4', (3, 2))",
            ),
            (nested.clone(), "[('x', '>i2'), ('y', '<f4')]"),
            (
                compound(
                    32,
                    vec![
                        ("flag", 1, boolean()),
                        ("box", 4, array(&[2, 2], integer(2, false, Little))),
                        ("in", 14, nested.clone()),
                        ("text", 20, fixed_string(3, 1)),
                    ],
                ),
                "{'names': ['flag', 'box', 'in', 'text'], 'offsets': [1, 4, 14, 20], 'itemsize': 32,
                  'formats': ['?', ('<u2', (2, 2)), [('x', '>i2'), ('y', '<f4')], 'S3']}",
            ),
            (
                compound(18, vec![("list", 0, array(&[3], nested))]),
                "[('list', [('x', '>i2'), ('y', '<f4')], (3,))]",
            ),
        ]
    }

    /// NumPy makes of each description the type that h5py makes for the same HDF5 type, sizes and offsets included.
    #[test]
    fn numpy_and_h5py_agree() {
        let pairs = pairs();
        let cases: Vec<Value> = pairs
            .iter()
            .map(|(datatype, expression)| json!([numpy_descr(datatype), expression, datatype.size]))
            .collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("VH5FS_TEST_PYTHON")
            .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
        let mut child = Command::new(&python)
            .arg(root.join("tests/fixtures/numpy_dtypes.py"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| {
                panic!(
                    "{} ({e}); VH5FS_TEST_PYTHON names another",
                    python.display()
                )
            });
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(json!(cases).to_string().as_bytes())
            .unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn gaps_have_entries() {
        let datatype = compound(
            16,
            vec![
                ("late", 9, integer(1, false, Little)),
                ("early", 4, integer(4, true, Little)),
            ],
        );
        assert_eq!(
            numpy_descr(&datatype),
            json!([
                ["", "|V4"],
                ["early", "<i4"],
                ["", "|V1"],
                ["late", "|u1"],
                ["", "|V6"]
            ])
        );
    }

    #[test]
    fn what_numpy_lacks_is_bytes() {
        let overlapping = compound(
            8,
            vec![
                ("a", 0, float(8, Little)),
                ("b", 4, integer(4, true, Little)),
            ],
        );
        assert_eq!(numpy_descr(&overlapping), json!("|V8"));
        assert_eq!(numpy_descr(&integer(3, true, Little)), json!("|V3"));
        let mut bfloat = float(2, Little);
        if let Class::Float {
            exponent_size,
            exponent_location,
            exponent_bias,
            mantissa_size,
            ..
        } = &mut bfloat.class
        {
            (
                *exponent_size,
                *exponent_location,
                *exponent_bias,
                *mantissa_size,
            ) = (8, 7, 127, 7);
        }
        assert_eq!(numpy_descr(&bfloat), json!("|V2"));
        assert_eq!(
            numpy_descr(&opaque(8, "NUMPY:<M8[ns]; import os")),
            json!("|V8")
        );
        assert_eq!(numpy_descr(&opaque(4, "NUMPY:<M8[ns]")), json!("|V4"));
        assert_eq!(numpy_descr(&compound(4, vec![])), json!([["", "|V4"]]));
        let mut deep = integer(1, true, Little);
        for _ in 0..40 {
            deep = compound(1, vec![("a", 0, deep)]);
        }
        assert!(numpy_descr(&deep).to_string().contains("|V1"));
    }

    #[test]
    fn the_long_double_is_this_machines() {
        let (x87, quad) = (
            numpy_descr(&float(10, Little)),
            numpy_descr(&float(16, Little)),
        );
        let expected = if cfg!(target_arch = "x86_64") {
            (json!("<f16"), json!("|V16"))
        } else {
            (json!("|V16"), json!("<f16"))
        };
        assert_eq!((x87, quad), expected);
    }

    #[test]
    fn pointers_are_objects() {
        let datatype = compound(
            24,
            vec![
                ("name", 0, vlen_string()),
                ("n", 16, integer(4, true, Little)),
            ],
        );
        assert_eq!(
            numpy_descr(&datatype),
            json!([["name", "|O"], ["n", "<i4"]])
        );
        assert_eq!(numpy_descr(&sequence(float(8, Little))), json!("|O"));
    }
}
