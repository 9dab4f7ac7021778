//! The lines of a staged text, each an element of an array of variable-length strings, read from its beginning to its end.

use super::cells::Cells;
use crate::store::text::{TextError, parse_string_lines};
use crate::store::{CommitError, StagedBytes};

/// How much is read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// How many lines there are. The last newline may be missing.
///
/// # Errors
/// [`CommitError::Staged`].
pub(super) fn count(path: &[u8], bytes: &dyn StagedBytes) -> Result<u64, CommitError> {
    let mut lines = 0;
    let mut last = b'\n';
    let mut pieces = Pieces::new(path, bytes);
    while let Some(piece) = pieces.next()? {
        lines += newlines(piece);
        last = *piece.last().unwrap_or(&last);
    }
    Ok(lines + u64::from(last != b'\n'))
}

#[expect(
    clippy::naive_bytecount,
    reason = "reading takes longer than any way to count"
)]
fn newlines(piece: &[u8]) -> u64 {
    piece.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Calls `each` with the number of every cell, in order within a row of chunks, and the strings of the part of its chunk that lies within the
/// array, in C order.
///
/// # Errors
/// Those of `each`; [`CommitError::Staged`], [`CommitError::Text`].
pub(super) fn for_each_cell(
    path: &[u8],
    bytes: &dyn StagedBytes,
    shape: &[u64],
    chunk_shape: &[u64],
    cells: &Cells,
    mut each: impl FnMut(u64, Vec<&[u8]>) -> Result<(), CommitError>,
) -> Result<(), CommitError> {
    let mut lines = Lines {
        pieces: Pieces::new(path, bytes),
        pending: Vec::new(),
        number: 0,
    };
    let row_elements: u64 = shape[1..].iter().product();
    let per_band = cells.per_band();
    let bands = cells.len().checked_div(per_band).unwrap_or(0);
    for band in 0..bands {
        let rows = chunk_shape[0].min(shape[0] - band * chunk_shape[0]);
        let strings = lines.take(rows * row_elements)?;
        for cell in band * per_band..(band + 1) * per_band {
            let mut part = Vec::new();
            for_each_element(cell, shape, chunk_shape, cells, |in_array, _| {
                let place = in_array - band * chunk_shape[0] * row_elements;
                let place = usize::try_from(place).expect("within a band in memory");
                part.push(&strings[place][..]);
            });
            each(cell, part)?;
        }
    }
    Ok(())
}

/// Calls `each` with the place of every element of a cell in the array and in its chunk.
pub(super) fn for_each_element(
    cell: u64,
    shape: &[u64],
    chunk_shape: &[u64],
    cells: &Cells,
    mut each: impl FnMut(u64, usize),
) {
    let extent = cells.extent(cell);
    let rank = shape.len();
    let mut start = vec![0; rank];
    let mut rest = cell;
    for axis in (0..rank).rev() {
        let count = shape[axis].div_ceil(chunk_shape[axis]);
        start[axis] = rest % count * chunk_shape[axis];
        rest /= count;
    }
    let mut at = vec![0; rank];
    loop {
        let (mut in_array, mut in_chunk) = (0, 0);
        for axis in 0..rank {
            in_array = in_array * shape[axis] + start[axis] + at[axis];
            in_chunk = in_chunk * chunk_shape[axis] + at[axis];
        }
        each(
            in_array,
            usize::try_from(in_chunk).expect("within a chunk in memory"),
        );
        let Some(axis) = (0..rank).rev().find(|&axis| at[axis] + 1 < extent[axis]) else {
            return;
        };
        at[axis] += 1;
        at[axis + 1..].fill(0);
    }
}

/// The text, piece by piece.
struct Pieces<'b> {
    path: &'b [u8],
    bytes: &'b dyn StagedBytes,
    at: u64,
    piece: Vec<u8>,
}

impl<'b> Pieces<'b> {
    fn new(path: &'b [u8], bytes: &'b dyn StagedBytes) -> Self {
        Self {
            path,
            bytes,
            at: 0,
            piece: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<Option<&[u8]>, CommitError> {
        let len_bytes = (self.bytes.len_bytes() - self.at).min(PIECE_BYTES);
        if len_bytes == 0 {
            return Ok(None);
        }
        let len = usize::try_from(len_bytes).expect("a mebibyte");
        self.piece.resize(len, 0);
        self.bytes
            .read_exact_at(self.at, &mut self.piece)
            .map_err(|error| CommitError::Staged {
                dataset: self.path.to_vec(),
                error,
            })?;
        self.at += len_bytes;
        Ok(Some(&self.piece))
    }
}

/// The text, line by line.
struct Lines<'b> {
    pieces: Pieces<'b>,
    /// What was read and not yet taken.
    pending: Vec<u8>,
    /// Lines that were taken.
    number: usize,
}

impl Lines<'_> {
    /// The strings of the next `count` lines.
    fn take(&mut self, count: u64) -> Result<Vec<Vec<u8>>, CommitError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut strings = Vec::new();
        let mut start = 0;
        while strings.len() < count {
            let rest = &self.pending[start..];
            let end = rest.iter().position(|&byte| byte == b'\n');
            let line = if let Some(end) = end {
                &rest[..end]
            } else {
                self.pending.drain(..start);
                start = 0;
                if let Some(piece) = self.pieces.next()? {
                    self.pending.extend_from_slice(piece);
                    continue;
                }
                // They were counted, so there are as many, unless they are being changed.
                if self.pending.is_empty() {
                    return Err(CommitError::Length {
                        dataset: self.pieces.path.to_vec(),
                        len_bytes: self.pieces.at,
                        unit: "lines",
                        unit_bytes: 0,
                    });
                }
                &self.pending[..]
            };
            self.number += 1;
            let string = string_of(line, self.number).map_err(|error| CommitError::Text {
                dataset: self.pieces.path.to_vec(),
                error,
            })?;
            start += line.len() + usize::from(end.is_some());
            strings.push(string);
        }
        self.pending.drain(..start);
        Ok(strings)
    }
}

/// The string that one line stands for.
fn string_of(line: &[u8], number: usize) -> Result<Vec<u8>, TextError> {
    if line.contains(&0) {
        return Err(TextError::Nul { line: number });
    }
    let strings = parse_string_lines(line).map_err(|_| TextError::BadEscape { line: number })?;
    Ok(strings.into_iter().next().unwrap_or_default().into_owned())
}
