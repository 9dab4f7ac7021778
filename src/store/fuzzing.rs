//! Descriptions and values as text, as fuzz targets; see [`crate::fuzzing`].

use super::description::{
    check_chunks, complete_filters, default_chunk_shape, parse_chunk_shape, parse_datatype,
    parse_fill_value, parse_filters, parse_shape,
};
use super::dtype::numpy_descr;
use super::json::{HeapData, attribute_text, write_json};
use super::text::{parse_string_lines, write_lines, write_string_line};
use super::time;
use super::typed_value::{Extent, TypedData, attribute_value, bytes_of_text};
use crate::fuzzing::Input;
use crate::h5::{Address, Dataspace, Datatype, H5Error};

/// A heap in which every value is the same few bytes over and over.
struct Repeated<'a>(&'a [u8]);

/// The longest value of that heap.
const MAX_VALUE_BYTES: usize = 4096;

impl HeapData for Repeated<'_> {
    fn read_vlen(&self, reference: &[u8; 16], element_bytes: usize) -> Result<Vec<u8>, H5Error> {
        let [a, b, c, d, ..] = *reference;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok();
        let len = length.and_then(|length| length.checked_mul(element_bytes));
        match len {
            Some(len) if len <= MAX_VALUE_BYTES => Ok(self
                .0
                .iter()
                .chain(&[0])
                .copied()
                .cycle()
                .take(len)
                .collect()),
            _ => Err(H5Error::NotHdf5),
        }
    }

    fn object_path(&self, address: Address) -> Option<Vec<u8>> {
        address.0.is_multiple_of(2).then(|| self.0.to_vec())
    }
}

/// A description of a type.
pub(crate) fn datatype_text(bytes: &[u8]) {
    let Ok(datatype) = parse_datatype(bytes) else {
        return;
    };
    let shown = numpy_descr(&datatype).to_string();
    let again = parse_datatype(shown.as_bytes()).expect("what is shown can be read");
    assert_eq!(numpy_descr(&again).to_string(), shown);
    assert_eq!(again.size, datatype.size, "{shown}");
}

/// A shape.
pub(crate) fn shape_text(bytes: &[u8]) {
    let _ = parse_shape(bytes);
    let Ok(chunk_shape) = parse_chunk_shape(bytes) else {
        return;
    };
    let usual = default_chunk_shape(&chunk_shape, 8);
    check_chunks(&chunk_shape, &usual, 8).expect("the usual chunks can be stored");
    let again = parse_shape(format!("{chunk_shape:?}").as_bytes());
    assert_eq!(again, Ok(chunk_shape));
}

/// Filters, completed for an array of integers.
pub(crate) fn filter_text(bytes: &[u8]) {
    let Ok(filters) = parse_filters(bytes) else {
        return;
    };
    let datatype = super::description::integer(4, true, crate::h5::ByteOrder::Little);
    if let Ok(filters) = complete_filters(&filters, &datatype, &[64, 8]) {
        let _ = crate::codec::Pipeline::new(&filters, 4, 64 * 8 * 4);
    }
}

/// The length of a description of a type, that, and a fill value.
pub(crate) fn fill_value_text(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let len = usize::from(input.u8());
    let Ok(datatype) = parse_datatype(input.take(len)) else {
        return;
    };
    if datatype.size > 1 << 16 {
        return;
    }
    if let Ok(Some(value)) = parse_fill_value(input.rest(), &datatype) {
        assert_eq!(value.len(), datatype.size);
    }
}

/// A value that a user gives to an attribute that there is not.
pub(crate) fn value_text(bytes: &[u8]) {
    check_value(&attribute_value(bytes, None));
}

fn check_value(value: &super::typed_value::TypedValue) {
    let count = match &value.extent {
        Extent::Scalar => 1,
        Extent::Simple(shape) => shape.iter().product::<u64>(),
    };
    match &value.data {
        TypedData::Bytes(data) => {
            assert_eq!(data.len() as u64, count * value.datatype.size as u64);
        }
        TypedData::Texts(texts) => assert_eq!(texts.len() as u64, count),
    }
}

/// The length of a datatype message, that, a rank, extents, and elements: shown, and what is shown read again as a value of the
/// same type.
pub(crate) fn value_json(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let len = usize::from(input.u8());
    let Ok((datatype, _)) = Datatype::decode(input.take(len), Address(0)) else {
        return;
    };
    let rank = input.u8() % 4;
    let shape: Vec<u64> = (0..rank).map(|_| u64::from(input.u8())).collect();
    let dataspace = match rank {
        0 => Dataspace::Scalar,
        _ => Dataspace::Simple {
            shape,
            max_shape: Vec::new(),
        },
    };
    let _ = numpy_descr(&datatype).to_string();
    let (data, heap) = (input.rest(), Repeated(b"a\\\n\xff\"1"));
    let _ = write_json(&datatype, data, &heap, &mut Vec::new());
    let _ = write_lines(&datatype, data, &heap, &mut Vec::new());
    let want = dataspace
        .len()
        .and_then(|n| n.checked_mul(datatype.size as u64));
    let all = want.and_then(|want| usize::try_from(want).ok());
    let Some(data) = all.and_then(|all| data.get(..all)) else {
        assert!(attribute_text(&datatype, &dataspace, data, &heap).is_err());
        return;
    };
    let Ok(text) = attribute_text(&datatype, &dataspace, data, &heap) else {
        return;
    };
    let value = attribute_value(&text, Some((&datatype, &dataspace)));
    check_value(&value);
    if let (TypedData::Bytes(bytes), true) = (&value.data, value.datatype == datatype) {
        let shown = attribute_text(&datatype, &dataspace, bytes, &heap);
        assert_eq!(shown.ok().as_ref(), Some(&text), "of {datatype:?}");
    }
    if !datatype.contains_pointers() {
        let _ = bytes_of_text(&text, &datatype);
    }
}

/// Strings, one a line.
pub(crate) fn string_lines(bytes: &[u8]) {
    let Ok(strings) = parse_string_lines(bytes) else {
        return;
    };
    let mut lines = Vec::new();
    for string in &strings {
        write_string_line(string, &mut lines);
    }
    assert_eq!(
        lines.strip_suffix(b"\n").unwrap_or(&lines),
        bytes.strip_suffix(b"\n").unwrap_or(bytes)
    );
}

/// A time, as users and as files write it.
pub(crate) fn time_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for time in [time::parse_iso8601(text), time::parse_stored(text)]
        .into_iter()
        .flatten()
    {
        let stored = time::stored(time);
        if let Some(again) = time::parse_stored(&stored) {
            assert_eq!(time::stored(again), stored);
            assert_eq!(time::parse_iso8601(&time::shown(again)), Some(again));
        }
    }
}

/// Texts as users write them, for the target of that name.
#[cfg(test)]
pub(crate) const SEEDS: &[(&str, &str)] = &[
    ("datatype_text", "<f8"),
    ("datatype_text", "|S5"),
    ("datatype_text", "|O"),
    ("datatype_text", "float32"),
    (
        "datatype_text",
        "[('a', '<i4'), ('', '|V4'), ('b', '>f2', (2, 3))]",
    ),
    (
        "datatype_text",
        "{'names': ['x'], 'formats': ['<c16'], 'offsets': [8], 'itemsize': 32}",
    ),
    ("datatype_text", "[[\"<u2\", [4]], [2, 2]]"),
    ("datatype_text", "|b1"),
    ("shape_text", "[3, 4]"),
    ("shape_text", "(3,)"),
    ("shape_text", "7"),
    ("fill_value_text", "\u{3}<f8-1.5e-3"),
    ("fill_value_text", "\u{3}|S4\"ab\""),
    (
        "fill_value_text",
        "\u{17}[('a','<i4'),('b','u1')]{\"a\": 1, \"b\": 2}",
    ),
    ("filter_text", "gzip"),
    (
        "filter_text",
        "[\"shuffle\", {\"name\": \"gzip\", \"parameters\": [9]}]",
    ),
    (
        "filter_text",
        "[{\"id\": 32001, \"parameters\": [2, 2, 4, 2048, 5, 1, 1]}, 'fletcher32']",
    ),
    (
        "filter_text",
        "['szip', 'lzf', 'bitshuffle', 'zstd', 32004, 307]",
    ),
    ("value_text", "[[1, 2.5], [NaN, -Infinity]]"),
    ("value_text", "\"\\udc80\\u00e9\""),
    ("value_text", "[true, false]"),
    ("value_text", "18446744073709551615"),
    ("string_lines", "a\\n\\\\b\nc\n\n"),
    ("time_text", "2020-06-29T23:58:21.116470Z"),
    ("time_text", "2020-06-29 23:58:21.116470+0000"),
    ("time_text", "2020-06-29 23+02:00"),
    ("commit_request", "r7"),
    (
        "commit_request",
        "{\"name\": \"r7\", \"timestamp\": \"2020-01-01T00:00:00Z\", \"make_current\": false}",
    ),
    (
        "change_replay",
        "{\"op\":\"mkdir\",\"path\":\"a\"}\n{\"op\":\"create\",\"path\":\"a/b\",\"overlay\":1}\n{\"op\":\"rename\",\"from\":\"a/b\",\"to\":\"c%25\"}\n{\"op\":\"exchange\",\"from\":\"a\",\"to\":\"c%25\"}\n{\"op\":\"remove\",\"path\":\"a\"}\n{\"op\":\"attribute\",\"path\":\"\",\"name\":\"u\",\"value\":null}",
    ),
];
