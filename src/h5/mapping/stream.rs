//! The bytes of a mapping block as they are decoded: all at once from memory, or piece by piece from the file, so that a block of many
//! megabytes needs no memory of its own.

use crate::h5::checksum::Lookup3;
use crate::h5::{Address, H5Error, MetaReader};

/// How much is read at a time: it stays in the second-level cache.
const PIECE_BYTES: usize = 256 << 10;

/// A stretch of bytes that lies ahead, and that can be had longer.
pub(super) trait Stretch {
    /// What lies ahead, as far as it is in memory.
    fn ahead(&self) -> &[u8];

    /// Passes over the first `taken` bytes of what lies ahead, and has more of it in memory, if there is more. Whether there is.
    ///
    /// # Errors
    /// What reading says.
    fn pass(&mut self, taken: usize) -> Result<bool, H5Error>;
}

impl<S: Stretch + ?Sized> Stretch for &mut S {
    fn ahead(&self) -> &[u8] {
        S::ahead(self)
    }

    fn pass(&mut self, taken: usize) -> Result<bool, H5Error> {
        S::pass(self, taken)
    }
}

/// A block in memory: nothing is to come.
impl Stretch for &[u8] {
    fn ahead(&self) -> &[u8] {
        self
    }

    fn pass(&mut self, taken: usize) -> Result<bool, H5Error> {
        *self = &self[taken..];
        Ok(false)
    }
}

/// A block in the file.
#[derive(Debug)]
pub(super) struct Pieces<'r> {
    reader: &'r MetaReader,
    /// What is not in memory yet.
    next: Address,
    left_bytes: u64,
    buffer: Vec<u8>,
}

impl<'r> Pieces<'r> {
    /// The `len_bytes` bytes at `start`, of which the first ones are read.
    pub(super) fn open(
        reader: &'r MetaReader,
        start: Address,
        len_bytes: u64,
    ) -> Result<Self, H5Error> {
        reader.file_offset(start, len_bytes)?;
        let mut pieces = Self {
            reader,
            next: start,
            left_bytes: len_bytes,
            buffer: Vec::new(),
        };
        pieces.pass(0)?;
        Ok(pieces)
    }
}

impl Stretch for Pieces<'_> {
    fn ahead(&self) -> &[u8] {
        &self.buffer
    }

    fn pass(&mut self, taken: usize) -> Result<bool, H5Error> {
        let kept = self.buffer.len() - taken;
        self.buffer.copy_within(taken.., 0);
        let piece = usize::try_from(self.left_bytes).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
        self.buffer.resize(kept + piece, 0);
        self.reader.read_into(self.next, &mut self.buffer[kept..])?;
        self.next = Address(self.next.0 + piece as u64);
        self.left_bytes -= piece as u64;
        Ok(piece > 0)
    }
}

/// A block in the file, of which the checksum is made as it is read.
#[derive(Debug)]
pub(super) struct SummedPieces<'r> {
    pieces: Pieces<'r>,
    /// Of all that was read.
    sum: Lookup3,
}

impl<'r> SummedPieces<'r> {
    /// See [`Pieces::open`].
    pub(super) fn open(
        reader: &'r MetaReader,
        start: Address,
        len_bytes: u64,
    ) -> Result<Self, H5Error> {
        let pieces = Pieces::open(reader, start, len_bytes)?;
        let mut sum = Lookup3::new(len_bytes);
        sum.update(pieces.ahead());
        Ok(Self { pieces, sum })
    }

    /// Passes over all that lies ahead: the checksum of the block.
    ///
    /// # Errors
    /// What reading says.
    pub(super) fn finish(mut self) -> Result<u32, H5Error> {
        while self.pass(self.ahead().len())? {}
        Ok(self.sum.finish())
    }
}

impl Stretch for SummedPieces<'_> {
    fn ahead(&self) -> &[u8] {
        self.pieces.ahead()
    }

    fn pass(&mut self, taken: usize) -> Result<bool, H5Error> {
        let kept = self.ahead().len() - taken;
        let goes_on = self.pieces.pass(taken)?;
        self.sum.update(&self.pieces.ahead()[kept..]);
        Ok(goes_on)
    }
}
