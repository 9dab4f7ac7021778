//! The header of a .npy file, as `numpy.save` writes it (NEP 1; `numpy/lib/_format_impl.py`).

use std::collections::HashSet;

use serde_json::Value;

use crate::h5::{Class, Datatype};
use crate::store::dtype::{flat_array, numpy_descr};

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Data begins at a multiple of this, so that mapped elements are aligned.
const ALIGN_BYTES: usize = 64;
/// Room that `numpy.save` leaves for the first axis to grow (`GROWTH_AXIS_MAX_DIGITS`).
const GROWTH_DIGITS: usize = 21;
/// NumPy counts the bytes of an element in a C `int`.
const MAX_ELEMENT_BYTES: usize = i32::MAX as usize;

/// What NumPy calls an element, as Python writes it in a header (`'<f8'`, `[('a', '<i4'), ('', '|V4')]`), and the axes that each
/// element adds to the array. `None` for a type that NumPy does not have, or would not read back as these bytes.
pub(super) fn descr(datatype: &Datatype) -> Option<(String, Vec<u64>)> {
    if datatype.contains_pointers()
        || datatype.size > MAX_ELEMENT_BYTES
        || !has_readable_names(datatype)
    {
        return None;
    }
    // NumPy has no arrays of arrays: the inner axes are the array's last ones.
    let (axes, base) = flat_array(datatype);
    let count = axes
        .iter()
        .try_fold(1u64, |count, &extent| count.checked_mul(extent))?;
    if count.checked_mul(base.size as u64)? != datatype.size as u64 {
        return None;
    }
    let mut text = String::new();
    let len_bytes = write_descr(&numpy_descr(base), &mut text)?;
    (len_bytes == base.size as u64).then_some((text, axes))
}

/// The header of an array of `shape` whose elements are `descr`: magic, version, length, a Python dictionary, padded to 64 bytes.
/// Version 1.0 where it can hold it, 2.0 where it is too long for that, 3.0 where it is not Latin-1. `None` where it is too long for any.
pub(super) fn header(descr: &str, shape: &[u64]) -> Option<Vec<u8>> {
    let growth = shape.first().map_or(0, |extent| {
        GROWTH_DIGITS.saturating_sub(extent.to_string().len())
    });
    let shape = tuple(shape);
    let text = format!(
        "{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}{:growth$}",
        ""
    );
    let latin1: Option<Vec<u8>> = text
        .chars()
        .map(|character| u8::try_from(u32::from(character)).ok())
        .collect();
    match latin1 {
        Some(bytes) => wrapped(&bytes, 1).or_else(|| wrapped(&bytes, 2)),
        None => wrapped(text.as_bytes(), 3),
    }
}

/// The dictionary `text` with what comes before and behind it; `None` where it is too long for the version.
fn wrapped(text: &[u8], version: u8) -> Option<Vec<u8>> {
    let count_bytes = if version == 1 { 2 } else { 4 };
    let fixed_bytes = MAGIC.len() + 2 + count_bytes;
    // As NumPy does it: from 1 to 64 blanks.
    let blanks = ALIGN_BYTES - (fixed_bytes + text.len() + 1) % ALIGN_BYTES;
    let len = text.len() + blanks + 1;
    let mut header = Vec::with_capacity(fixed_bytes + len);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[version, 0]);
    if version == 1 {
        header.extend_from_slice(&u16::try_from(len).ok()?.to_le_bytes());
    } else {
        header.extend_from_slice(&u32::try_from(len).ok()?.to_le_bytes());
    }
    header.extend_from_slice(text);
    header.resize(fixed_bytes + len - 1, b' ');
    header.push(b'\n');
    Some(header)
}

/// Whether the names of all members are text.
fn has_readable_names(datatype: &Datatype) -> bool {
    match &datatype.class {
        Class::Compound { members } => members.iter().all(|member| {
            std::str::from_utf8(&member.name).is_ok() && has_readable_names(&member.datatype)
        }),
        Class::Array { base, .. } | Class::Enum { base, .. } => has_readable_names(base),
        _ => true,
    }
}

/// Appends a description as Python writes it, and says how many bytes an element has. `None` for one that NumPy refuses.
fn write_descr(descr: &Value, out: &mut String) -> Option<u64> {
    match descr {
        Value::String(text) => {
            let len_bytes = element_bytes(text)?;
            write_string(text, out);
            Some(len_bytes)
        }
        Value::Array(fields) => write_fields(fields, out),
        _ => None,
    }
}

/// Appends a list of `(name, descr)` and `(name, descr, shape)`.
fn write_fields(fields: &[Value], out: &mut String) -> Option<u64> {
    let mut names = HashSet::new();
    let mut total: u64 = 0;
    out.push('[');
    for (number, field) in fields.iter().enumerate() {
        let (name, descr, shape) = match field.as_array().map(Vec::as_slice)? {
            [Value::String(name), descr] => (name, descr, None),
            [Value::String(name), descr, Value::Array(shape)] => (name, descr, Some(shape)),
            _ => return None,
        };
        if !name.is_empty() && !names.insert(name) {
            return None;
        }
        out.push_str(if number == 0 { "(" } else { ", (" });
        write_string(name, out);
        out.push_str(", ");
        let mut len_bytes = write_descr(descr, out)?;
        if let Some(shape) = shape {
            let shape: Vec<u64> = shape.iter().map(Value::as_u64).collect::<Option<_>>()?;
            for extent in &shape {
                len_bytes = len_bytes.checked_mul(*extent)?;
            }
            out.push_str(", ");
            out.push_str(&tuple(&shape));
        }
        out.push(')');
        total = total.checked_add(len_bytes)?;
    }
    out.push(']');
    (!fields.is_empty()).then_some(total)
}

/// Bytes of one element of a simple type such as `<f8`, `|S5` or `<M8[ns]`; `None` where `numpy.dtype` would refuse it.
fn element_bytes(text: &str) -> Option<u64> {
    let mut letters = text.chars();
    let order = letters.next()?;
    let kind = letters.next()?;
    let rest = letters.as_str();
    let (digits, unit) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
    let count: u64 = digits.parse().ok()?;
    // Neither a sign nor zeros in front.
    if digits != count.to_string() || !unit.is_empty() && !matches!(kind, 'm' | 'M') {
        return None;
    }
    let is_ordered = matches!(order, '<' | '>');
    let is_number = |sizes: &[u64]| sizes.contains(&count) && (is_ordered || count == 1);
    let is_valid = match kind {
        'b' => count == 1,
        'i' | 'u' => is_number(&[1, 2, 4, 8]),
        'f' => is_number(&[2, 4, 8, 16]),
        'c' => is_number(&[8, 16, 32]),
        'm' | 'M' => is_number(&[8]) && is_time_unit(unit),
        'S' | 'V' => count > 0,
        'U' => count > 0 && is_ordered,
        _ => false,
    };
    let element_bytes = if kind == 'U' {
        count.checked_mul(4)?
    } else {
        count
    };
    is_valid.then_some(element_bytes)
}

/// Whether it is none, or one such as `[ns]` or `[25s]`.
fn is_time_unit(unit: &str) -> bool {
    const UNITS: [&str; 13] = [
        "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as",
    ];
    if unit.is_empty() {
        return true;
    }
    let inner = unit.strip_prefix('[').and_then(|u| u.strip_suffix(']'));
    inner.is_some_and(|inner| {
        let letters = inner.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &inner[..inner.len() - letters.len()];
        let count_is_sound = digits.is_empty()
            || !digits.starts_with('0') && digits.parse::<i32>().is_ok_and(|count| count > 0);
        UNITS.contains(&letters) && count_is_sound
    })
}

/// A shape as Python's `repr` writes it.
fn tuple(shape: &[u64]) -> String {
    let extents: Vec<String> = shape.iter().map(u64::to_string).collect();
    match &extents[..] {
        [one] => format!("({one},)"),
        all => format!("({})", all.join(", ")),
    }
}

/// Appends text as Python's `repr` writes it.
fn write_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => {
                out.push('\\');
                out.push(quote);
            }
            '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => {
                out.push_str("\\x");
                for shift in [4, 0] {
                    let digit = u32::from(character) >> shift & 0xf;
                    out.extend(char::from_digit(digit, 16));
                }
            }
            _ => out.push(character),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::ByteOrder::{Big, Little};
    use crate::store::type_samples::{
        array, boolean, compound, fixed_string, float, integer, opaque, vlen_string,
    };

    fn text(datatype: &Datatype) -> Option<String> {
        descr(datatype).map(|(text, _)| text)
    }

    #[test]
    fn headers_are_those_that_numpy_writes() {
        // numpy.save(file, numpy.zeros(5)), numpy.zeros((2, 3)), numpy.float64(1).
        let short = |shape: &str| {
            let text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
            let mut header = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
            header.extend_from_slice(text.as_bytes());
            header.resize(127, b' ');
            header.push(b'\n');
            header
        };
        assert_eq!(header("'<f8'", &[5]).unwrap(), short("(5,)"));
        assert_eq!(header("'<f8'", &[2, 3]).unwrap(), short("(2, 3)"));
        let scalar = header("'<f8'", &[]).unwrap();
        assert_eq!(scalar.len() % 64, 0);
        assert!(scalar.starts_with(b"\x93NUMPY\x01\x00"));
    }

    #[test]
    fn versions_follow_length_and_letters() {
        let version = |descr: &str| {
            let header = header(descr, &[1]).unwrap();
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.last(), Some(&b'\n'));
            header[6]
        };
        assert_eq!(version("[('\u{fc}', '<f8')]"), 1);
        assert_eq!(version(&format!("[('{}', '<f8')]", "x".repeat(65_000))), 1);
        assert_eq!(version(&format!("[('{}', '<f8')]", "x".repeat(66_000))), 2);
        assert_eq!(version("[('\u{17c}', '<f8')]"), 3);
    }

    #[test]
    fn strings_are_written_as_python_writes_them() {
        let repr = |text: &str| {
            let mut out = String::new();
            write_string(text, &mut out);
            out
        };
        assert_eq!(
            repr("a\\b\n\x01\x7f\u{a0}\u{17c}"),
            "'a\\\\b\\n\\x01\\x7f\\xa0\u{17c}'"
        );
        assert_eq!(repr("it's"), "\"it's\"");
        assert_eq!(repr("'\""), "'\\'\"'");
    }

    #[test]
    fn types_are_written_as_python_writes_them() {
        let nested = compound(
            24,
            vec![
                ("it's", 1, integer(1, true, Little)),
                ("box", 4, array(&[2, 3], integer(2, false, Big))),
                ("one", 16, array(&[1], boolean())),
            ],
        );
        assert_eq!(
            text(&nested).unwrap(),
            r#"[('', '|V1'), ("it's", '|i1'), ('', '|V2'), ('box', '>u2', (2, 3)), ('one', '|b1', (1,)), ('', '|V7')]"#
        );
        let inner = descr(&array(&[3], array(&[2], float(4, Little))));
        assert_eq!(inner, Some(("'<f4'".to_owned(), vec![3, 2])));
        assert_eq!(text(&fixed_string(5, 1)).unwrap(), "'|S5'");
        assert_eq!(text(&opaque(8, "NUMPY:<M8[ns]")).unwrap(), "'<M8[ns]'");
        assert_eq!(text(&opaque(7, "")).unwrap(), "'|V7'");
    }

    #[test]
    fn what_numpy_would_not_read_is_left_out() {
        let pointers = compound(16, vec![("text", 0, vlen_string())]);
        let twins = compound(
            2,
            vec![
                ("a", 0, integer(1, true, Little)),
                ("a", 1, integer(1, true, Little)),
            ],
        );
        let mut not_text = compound(1, vec![("a", 0, integer(1, true, Little))]);
        if let Class::Compound { members } = &mut not_text.class {
            members[0].name = vec![0xff];
        }
        let mut contradiction = array(&[2, 2], integer(4, true, Little));
        contradiction.size = 12;
        for datatype in [
            vlen_string(),
            pointers,
            twins,
            not_text,
            contradiction,
            opaque(8, "NUMPY:<M8[eon]"),
            opaque(3, "NUMPY:<f3"),
        ] {
            assert_eq!(descr(&datatype), None, "{datatype:?}");
        }
    }
}
