//! Datasets whose elements are pointers, as text: one line an element.
//!
//! A variable-length string is its own bytes, whatever they are, with `\` as `\\` and a newline as `\n`, and a newline after it. Any other such
//! element is JSON (see [`super::json`]), which has no newline in it.

use std::borrow::Cow;

use super::json::{HeapData, ValueError, without_padding, write_json};
use crate::h5::{Class, Datatype};

/// Why text does not stand for strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A backslash that is followed by neither a backslash nor an `n`.
    #[error("line {line}: a backslash must be followed by another one or by n")]
    BadEscape {
        /// Which line, counted from one.
        line: usize,
    },
    /// A NUL, at which a string of variable length would end.
    #[error("line {line}: a string cannot hold a NUL")]
    Nul {
        /// Which line, counted from one.
        line: usize,
    },
}

impl TextError {
    /// The same where so many lines come before the text that it was found in.
    #[must_use]
    pub fn behind(self, lines: u64) -> Self {
        let lines = usize::try_from(lines).unwrap_or(usize::MAX);
        match self {
            Self::BadEscape { line } => Self::BadEscape {
                line: line.saturating_add(lines),
            },
            Self::Nul { line } => Self::Nul {
                line: line.saturating_add(lines),
            },
        }
    }
}

/// Appends one element and the newline after it.
pub fn write_string_line(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 1);
    for piece in text.split_inclusive(|byte| matches!(byte, b'\\' | b'\n')) {
        match piece.split_last() {
            Some((b'\\', before)) => {
                out.extend_from_slice(before);
                out.extend_from_slice(b"\\\\");
            }
            Some((b'\n', before)) => {
                out.extend_from_slice(before);
                out.extend_from_slice(b"\\n");
            }
            _ => out.extend_from_slice(piece),
        }
    }
    out.push(b'\n');
}

/// Appends a line for each of the elements in `data`, which are of `datatype` and contain pointers: text for variable-length strings, JSON
/// for anything else.
///
/// # Errors
/// [`ValueError`]; `out` then holds the lines before the element at fault, and perhaps the beginning of its own.
pub fn write_lines(
    datatype: &Datatype,
    data: &[u8],
    heap: &dyn HeapData,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let wrong_length = ValueError::Length {
        want_bytes: None,
        got_bytes: data.len(),
    };
    if let Class::VlenString { padding, .. } = datatype.class {
        let (references, rest) = data.as_chunks();
        if !rest.is_empty() {
            return Err(wrong_length);
        }
        for reference in references {
            let text = heap.read_vlen(reference, 1)?;
            write_string_line(without_padding(&text, padding), out);
        }
        return Ok(());
    }
    if datatype.size == 0 || !data.len().is_multiple_of(datatype.size) {
        return Err(wrong_length);
    }
    for element in data.chunks_exact(datatype.size) {
        write_json(datatype, element, heap, out)?;
        out.push(b'\n');
    }
    Ok(())
}

/// The strings that `text` stands for. The last newline may be missing.
///
/// # Errors
/// [`TextError::BadEscape`].
pub fn parse_string_lines(text: &[u8]) -> Result<Vec<Cow<'_, [u8]>>, TextError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.strip_suffix(b"\n")
        .unwrap_or(text)
        .split(|&byte| byte == b'\n')
        .zip(1..)
        .map(|(line, number)| unescaped(line).ok_or(TextError::BadEscape { line: number }))
        .collect()
}

/// The strings that [`write_string_line`] made `text` of.
#[must_use]
pub(super) fn made_strings(text: &[u8]) -> Vec<Cow<'_, [u8]>> {
    parse_string_lines(text).expect("every backslash was escaped when the line was made")
}

/// A line without its escapes; `None` where one is unknown.
fn unescaped(line: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !line.contains(&b'\\') {
        return Some(Cow::Borrowed(line));
    }
    let mut text = Vec::with_capacity(line.len());
    let mut bytes = line.iter();
    while let Some(&byte) = bytes.next() {
        text.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                _ => return None,
            },
            other => other,
        });
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::h5::ByteOrder;
    use crate::store::json::tests::Heap;
    use crate::store::type_samples::*;

    #[test]
    fn backslashes_and_newlines_are_escaped() {
        let mut out = Vec::new();
        write_string_line(b"a\\b\nc\\n", &mut out);
        write_string_line(b"", &mut out);
        write_string_line(b"\xff\0", &mut out);
        assert_eq!(out, b"a\\\\b\\nc\\\\n\n\n\xff\0\n");
    }

    #[test]
    fn lines_are_read() {
        let read = |text: &'static [u8]| parse_string_lines(text);
        assert_eq!(read(b"").unwrap(), [&b""[..]; 0]);
        assert_eq!(read(b"\n").unwrap(), [&b""[..]]);
        assert_eq!(read(b"a\n\nb").unwrap(), [&b"a"[..], b"", b"b"]);
        assert_eq!(read(b"\\\\n\\n\n").unwrap(), [&b"\\n\n"[..]]);
        assert_eq!(read(b"a\nb\\\n"), Err(TextError::BadEscape { line: 2 }));
        assert_eq!(read(b"\\t"), Err(TextError::BadEscape { line: 1 }));
    }

    #[test]
    fn strings_come_from_the_heap() {
        let mut heap = Heap::default();
        let data = [heap.keep(3, b"a\nb"), vec![0; 16], heap.keep(4, b"nul\0")].concat();
        let mut out = Vec::new();
        write_lines(&vlen_string(), &data, &heap, &mut out).unwrap();
        assert_eq!(out, b"a\\nb\n\nnul\n");
        let result = write_lines(&vlen_string(), &data[1..], &heap, &mut out);
        assert!(matches!(result, Err(ValueError::Length { .. })));
    }

    #[test]
    fn other_pointers_are_json_lines() {
        let mut heap = Heap::default();
        let ragged = sequence(integer(2, true, ByteOrder::Little));
        let data = [heap.keep(2, &[1, 0, 255, 255]), vec![0; 16]].concat();
        let mut out = Vec::new();
        write_lines(&ragged, &data, &heap, &mut out).unwrap();
        assert_eq!(out, b"[1, -1]\n[]\n");

        let named = compound(
            20,
            vec![
                ("name", 0, vlen_string()),
                ("n", 16, integer(4, true, ByteOrder::Big)),
            ],
        );
        let mut data = heap.keep(2, b"x\n");
        data.extend([0, 0, 0, 5]);
        out.clear();
        write_lines(&named, &data, &heap, &mut out).unwrap();
        assert_eq!(out, b"{\"name\": \"x\\n\", \"n\": 5}\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            strings in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\\'), Just(b'\n'), Just(b'n'), any::<u8>()], 0..20), 0..20)
        ) {
            let mut out = Vec::new();
            for text in &strings {
                write_string_line(text, &mut out);
            }
            prop_assert_eq!(out.split(|&byte| byte == b'\n').count(), strings.len() + 1);
            prop_assert_eq!(parse_string_lines(&out).unwrap(), strings);
        }
    }
}
