//! Variable-length strings as NumPy's `<U`: each element as many characters of four bytes as the longest one has.
//!
//! They are made of the text of the dataset's own file, a part at a time, so that memory follows what is read and not the array.

use crate::h5::ByteOrder;
use crate::store::StoreError;
use crate::store::rendered::{PART_ELEMENTS, Rendered};
use crate::store::text::{made_strings, write_string_line};

/// Why characters of NumPy's are no string that can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WideTextError {
    /// A number that is no character.
    #[error("0x{code:x} is no character")]
    NoCharacter {
        /// The number.
        code: u32,
    },
    /// A NUL before the end, where a string of variable length would end.
    #[error("a string cannot hold a NUL")]
    Nul,
}

impl Rendered {
    /// Fills `buffer` with bytes, which must lie within the whole, of elements that have `element_bytes` each.
    ///
    /// # Errors
    /// Damage of the text.
    pub(super) fn read_wide_exact_at(
        &self,
        element_bytes: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        let mut done = 0;
        while done < buffer.len() {
            let part = (offset + done as u64) / element_bytes / PART_ELEMENTS;
            let text = self.part(part)?;
            let strings = made_strings(&text);
            while done < buffer.len() {
                let at = offset + done as u64;
                let (element, skip) = (at / element_bytes, at % element_bytes);
                if element / PART_ELEMENTS != part {
                    break;
                }
                let string = usize::try_from(element % PART_ELEMENTS)
                    .ok()
                    .and_then(|number| strings.get(number));
                let mut wide = Vec::new();
                if let Some(string) = string {
                    write_wide(string, &mut wide);
                }
                let left = usize::try_from(element_bytes - skip)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len() - done);
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                let rest = wide.get(skip..).unwrap_or_default();
                let count = rest.len().min(left);
                let piece = &mut buffer[done..done + left];
                piece[..count].copy_from_slice(&rest[..count]);
                piece[count..].fill(0);
                done += left;
            }
        }
        Ok(())
    }
}

/// Characters of a string as NumPy has them; a byte that is not UTF-8 is one, as with Python's `surrogateescape`.
#[must_use]
pub fn count_chars(text: &[u8]) -> u64 {
    let chunks = text.utf8_chunks();
    chunks
        .map(|chunk| (chunk.valid().chars().count() + chunk.invalid().len()) as u64)
        .sum()
}

/// Appends a string as characters of four bytes.
pub fn write_wide(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            out.extend_from_slice(&u32::from(character).to_le_bytes());
        }
        for &byte in chunk.invalid() {
            out.extend_from_slice(&(0xdc00 + u32::from(byte)).to_le_bytes());
        }
    }
}

/// Appends the line of text for characters of four bytes; NULs at their end are no part of the string.
///
/// # Errors
/// [`WideTextError`]; nothing is appended then.
pub fn write_line_of_wide(
    wide: &[u8],
    order: ByteOrder,
    out: &mut Vec<u8>,
) -> Result<(), WideTextError> {
    let (characters, _) = wide.as_chunks();
    let code = |bytes: &[u8; 4]| match order {
        ByteOrder::Big => u32::from_be_bytes(*bytes),
        _ => u32::from_le_bytes(*bytes),
    };
    let len = characters.iter().rposition(|bytes| *bytes != [0; 4]);
    let characters = &characters[..len.map_or(0, |last| last + 1)];
    let mut text = Vec::with_capacity(characters.len());
    for code in characters.iter().map(code) {
        match (code, char::from_u32(code)) {
            (0, _) => return Err(WideTextError::Nul),
            (_, Some(character)) => {
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // A byte that is not UTF-8, as with Python's `surrogateescape`.
            (0xdc80..=0xdcff, None) => text.extend_from_slice(&code.to_le_bytes()[..1]),
            _ => return Err(WideTextError::NoCharacter { code }),
        }
    }
    write_string_line(&text, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_four_bytes() {
        assert_eq!(count_chars("a\u{17c}\u{1f422}".as_bytes()), 3);
        assert_eq!(count_chars(b"caf\xe9 \xe2\x82"), 7);
        let wide = |text: &[u8]| {
            let mut out = Vec::new();
            write_wide(text, &mut out);
            out
        };
        assert_eq!(wide("\u{1f422}".as_bytes()), [0x22, 0xf4, 0x01, 0]);
        assert_eq!(wide(b"a\xff"), [b'a', 0, 0, 0, 0xff, 0xdc, 0, 0]);
        for text in [&b""[..], b"caf\xe9", "\u{1f422}\\\n".as_bytes()] {
            let padded = [wide(text), vec![0; 8]].concat();
            let swapped: Vec<u8> = padded
                .chunks(4)
                .flat_map(|c| [c[3], c[2], c[1], c[0]])
                .collect();
            let mut want = Vec::new();
            write_string_line(text, &mut want);
            for (bytes, order) in [(padded, ByteOrder::Little), (swapped, ByteOrder::Big)] {
                let mut line = Vec::new();
                write_line_of_wide(&bytes, order, &mut line).unwrap();
                assert_eq!(line, want);
            }
        }
    }

    #[test]
    fn what_is_no_string_is_told() {
        let refused = |codes: &[u32]| {
            let wide: Vec<u8> = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
            let mut out = Vec::new();
            let error = write_line_of_wide(&wide, ByteOrder::Little, &mut out).unwrap_err();
            assert!(out.is_empty());
            error
        };
        assert_eq!(refused(&[97, 0, 97]), WideTextError::Nul);
        for code in [0xd800, 0xdc7f, 0xdd00, 0x11_0000] {
            assert_eq!(refused(&[97, code]), WideTextError::NoCharacter { code });
        }
    }
}
