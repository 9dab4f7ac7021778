//! Variable-length strings as NumPy's `<U`: each element as many characters of four bytes as the longest one has.
//!
//! They are made of the text of the dataset's own file, a part at a time, so that memory follows what is read and not the array.

use crate::store::StoreError;
use crate::store::rendered::{PART_ELEMENTS, Rendered};
use crate::store::text::made_strings;

/// Bytes of one character.
pub(super) const CHARACTER_BYTES: u64 = 4;

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
                let wide = string.map(|string| wide(string)).unwrap_or_default();
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
pub(in crate::store) fn count_chars(text: &[u8]) -> u64 {
    let chunks = text.utf8_chunks();
    chunks
        .map(|chunk| (chunk.valid().chars().count() + chunk.invalid().len()) as u64)
        .sum()
}

fn wide(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 4);
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            out.extend_from_slice(&u32::from(character).to_le_bytes());
        }
        for &byte in chunk.invalid() {
            out.extend_from_slice(&(0xdc00 + u32::from(byte)).to_le_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_four_bytes() {
        assert_eq!(count_chars("a\u{17c}\u{1f422}".as_bytes()), 3);
        assert_eq!(count_chars(b"caf\xe9 \xe2\x82"), 7);
        assert_eq!(wide("\u{1f422}".as_bytes()), [0x22, 0xf4, 0x01, 0]);
        assert_eq!(wide(b"a\xff"), [b'a', 0, 0, 0, 0xff, 0xdc, 0, 0]);
    }
}
