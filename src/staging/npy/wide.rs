//! Staged lines of text as NumPy's `<U`: made as they are read, a part at a time.

use crate::staging::StagingError;
use crate::staging::content::Body;
use crate::store::text::parse_string_lines;
use crate::store::{count_chars, write_wide};

/// Bytes of one character.
pub(super) const CHARACTER_BYTES: u64 = 4;
/// Lines that are read together.
const PART_LINES: u64 = 4096;
/// How much text is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What has to be known of lines before any of them is shown.
#[derive(Debug)]
pub(in crate::staging) struct WideText {
    /// Last byte of each part, exclusive.
    ends: Vec<u64>,
    elements: u64,
    longest_chars: u64,
}

impl WideText {
    /// Reads all lines once.
    ///
    /// # Errors
    /// [`StagingError::Text`], without the dataset's name; what is wrong with the bytes.
    pub(in crate::staging) fn of(body: &Body) -> Result<Self, StagingError> {
        let mut wide = Self {
            ends: Vec::new(),
            elements: 0,
            longest_chars: 0,
        };
        let (mut part, mut lines, mut at) = (Vec::new(), 0, 0);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = body.read_at(at, &mut piece)?;
            if count == 0 {
                break;
            }
            let mut rest = &piece[..count];
            while let Some(newline) = rest.iter().position(|&byte| byte == b'\n') {
                let (line, behind) = rest.split_at(newline + 1);
                part.extend_from_slice(line);
                rest = behind;
                lines += 1;
                if lines == PART_LINES {
                    let end = at + (count - rest.len()) as u64;
                    wide.add(&part, end)?;
                    part.clear();
                    lines = 0;
                }
            }
            part.extend_from_slice(rest);
            at += count as u64;
        }
        if !part.is_empty() {
            wide.add(&part, at)?;
        }
        Ok(wide)
    }

    fn add(&mut self, part: &[u8], end: u64) -> Result<(), StagingError> {
        let strings = parse_string_lines(part).map_err(|error| StagingError::Text {
            dataset: Vec::new(),
            error: error.behind(self.elements),
        })?;
        self.elements += strings.len() as u64;
        self.ends.push(end);
        let longest = strings.iter().map(|string| count_chars(string)).max();
        self.longest_chars = self.longest_chars.max(longest.unwrap_or(0));
        Ok(())
    }

    /// How many strings there are.
    pub(super) fn elements(&self) -> u64 {
        self.elements
    }

    /// Characters of the longest string.
    pub(super) fn longest_chars(&self) -> u64 {
        self.longest_chars
    }

    /// Fills `buffer` with elements of `element_bytes` each, from `offset` on, as far as there are strings. `body` has the lines that this was made of.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn read_at(
        &self,
        body: &Body,
        element_bytes: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StagingError> {
        let mut done = 0;
        let mut wide = Vec::new();
        while done < buffer.len() {
            let first = (offset + done as u64) / element_bytes;
            if first >= self.elements {
                break;
            }
            let part = first / PART_LINES;
            let text = self.part(body, part)?;
            let strings = parse_string_lines(&text).map_err(|error| StagingError::Text {
                dataset: Vec::new(),
                error: error.behind(part * PART_LINES),
            })?;
            while done < buffer.len() {
                let at = offset + done as u64;
                let (element, skip) = (at / element_bytes, at % element_bytes);
                if element / PART_LINES != part || element >= self.elements {
                    break;
                }
                wide.clear();
                let string = usize::try_from(element % PART_LINES).ok();
                if let Some(string) = string.and_then(|number| strings.get(number)) {
                    write_wide(string, &mut wide);
                }
                let left = usize::try_from(element_bytes - skip).unwrap_or(usize::MAX);
                let left = left.min(buffer.len() - done);
                let rest = usize::try_from(skip).ok().and_then(|skip| wide.get(skip..));
                let rest = rest.unwrap_or_default();
                let count = rest.len().min(left);
                let piece = &mut buffer[done..done + left];
                piece[..count].copy_from_slice(&rest[..count]);
                piece[count..].fill(0);
                done += left;
            }
        }
        Ok(done)
    }

    fn part(&self, body: &Body, part: u64) -> Result<Vec<u8>, StagingError> {
        let index = usize::try_from(part).map_err(|_| StagingError::Stale)?;
        let end = *self.ends.get(index).ok_or(StagingError::Stale)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        // It was in memory as a whole when this was made.
        let len = usize::try_from(end - start).map_err(|_| StagingError::TooLong)?;
        let mut text = vec![0; len];
        let count = body.read_at(start, &mut text)?;
        text.truncate(count);
        Ok(text)
    }
}
