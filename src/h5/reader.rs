//! Reading metadata: small pieces near each other, so a few blocks of the file are kept.
//!
//! What a reader keeps is what the file held when it was first read. A reader is therefore made anew for each look at a file
//! that other programs may change, and dropped after it.

use std::cell::RefCell;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::{Address, H5Error};
use crate::source::{Source, SourceError};

/// Bytes of a block; blocks lie at multiples of it.
const BLOCK_BYTES: u64 = 64 * 1024;
/// How many blocks a reader keeps: 4 MiB.
const MAX_BLOCKS: usize = 64;

/// Reads metadata at addresses of one file. Cheap to make; one for each thread.
#[derive(Debug)]
pub struct MetaReader {
    source: Arc<dyn Source>,
    bounds: FileBounds,
    blocks: RefCell<Vec<Block>>,
}

/// Where a file's addresses begin, and where it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileBounds {
    base_address: u64,
    len_bytes: u64,
}

impl FileBounds {
    /// See [`MetaReader::file_offset`].
    #[inline]
    pub(crate) fn offset(self, address: Address, len_bytes: u64) -> Result<u64, H5Error> {
        let offset = self.base_address.checked_add(address.0);
        let end = offset.and_then(|offset| offset.checked_add(len_bytes));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= self.len_bytes && address.is_defined() => {
                Ok(offset)
            }
            _ => Err(self.beyond(self.base_address.saturating_add(address.0), len_bytes)),
        }
    }

    #[cold]
    fn beyond(self, offset: u64, want_bytes: u64) -> H5Error {
        H5Error::Source(SourceError::BeyondEnd {
            offset,
            want_bytes,
            file_len_bytes: self.len_bytes,
        })
    }
}

/// A kept block, the most recently used one first.
#[derive(Debug)]
struct Block {
    number: u64,
    bytes: Arc<Vec<u8>>,
}

/// Bytes of a file, shared with the block that they lie in where that is possible.
#[derive(Debug, Clone)]
pub struct MetaBytes(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Shared(Arc<Vec<u8>>, Range<usize>),
    Owned(Vec<u8>),
}

impl Deref for MetaBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Shared(block, range) => &block[range.clone()],
            Repr::Owned(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for MetaBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Repr::Owned(bytes))
    }
}

impl MetaReader {
    /// A reader of `source`, which is `file_len_bytes` long and whose address 0 is its byte `base_address`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, base_address: u64, file_len_bytes: u64) -> Self {
        Self {
            source,
            bounds: FileBounds {
                base_address,
                len_bytes: file_len_bytes,
            },
            blocks: RefCell::new(Vec::new()),
        }
    }

    /// Another reader of the same file, for another thread.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            bounds: self.bounds,
            blocks: RefCell::default(),
        }
    }

    /// The bytes of the file itself, counted from its first byte and not from the base address.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The byte of the file that is address 0.
    #[must_use]
    pub fn base_address(&self) -> u64 {
        self.bounds.base_address
    }

    /// Bytes of the file from address 0 to its end. Nothing that the file describes can be larger.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.bounds
            .len_bytes
            .saturating_sub(self.bounds.base_address)
    }

    /// Where `len_bytes` bytes at `address` begin in the file.
    ///
    /// # Errors
    /// [`SourceError::BeyondEnd`] where they do not lie in the file, or the address is undefined.
    #[inline]
    pub fn file_offset(&self, address: Address, len_bytes: u64) -> Result<u64, H5Error> {
        self.bounds.offset(address, len_bytes)
    }

    /// The same for who reads nothing.
    pub(crate) fn bounds(&self) -> FileBounds {
        self.bounds
    }

    /// The `len_bytes` bytes at `address`. Nothing is allocated for what the file does not hold.
    ///
    /// # Errors
    /// [`SourceError::BeyondEnd`] where they do not lie in the file; [`SourceError::Io`].
    pub fn read(&self, address: Address, len_bytes: u64) -> Result<MetaBytes, H5Error> {
        let offset = self.file_offset(address, len_bytes)?;
        let number = offset / BLOCK_BYTES;
        let (Ok(start), Ok(len)) = (
            usize::try_from(offset % BLOCK_BYTES),
            usize::try_from(len_bytes),
        ) else {
            return Err(self.bounds.beyond(offset, len_bytes));
        };
        if len_bytes <= BLOCK_BYTES {
            let first = self.block(number)?;
            if let Some(end) = start.checked_add(len).filter(|&end| end <= first.len()) {
                return Ok(MetaBytes(Repr::Shared(first, start..end)));
            }
            let mut bytes = Vec::with_capacity(len);
            bytes.extend_from_slice(&first[start.min(first.len())..]);
            let missing = len - bytes.len();
            let second = self.block(number + 1)?;
            let Some(behind) = second.get(..missing) else {
                return Err(self.bounds.beyond(offset, len_bytes));
            };
            bytes.extend_from_slice(behind);
            return Ok(MetaBytes(Repr::Owned(bytes)));
        }
        let mut bytes = vec![0u8; len];
        self.source.read_exact_at(&mut bytes, offset)?;
        Ok(MetaBytes(Repr::Owned(bytes)))
    }

    /// Fills `buffer` with the bytes at `address`. None of them is kept.
    ///
    /// # Errors
    /// As for [`MetaReader::read`].
    pub fn read_into(&self, address: Address, buffer: &mut [u8]) -> Result<(), H5Error> {
        let offset = self.file_offset(address, buffer.len() as u64)?;
        Ok(self.source.read_exact_at(buffer, offset)?)
    }

    /// At most `len_bytes` bytes at `address`, fewer only where the file ends.
    ///
    /// # Errors
    /// As for [`MetaReader::read`], where `address` is not in the file.
    pub fn read_up_to(&self, address: Address, len_bytes: u64) -> Result<MetaBytes, H5Error> {
        let offset = self.file_offset(address, 0)?;
        self.read(address, len_bytes.min(self.bounds.len_bytes - offset))
    }

    /// A budget of as many bytes as the file has.
    pub(crate) fn budget(&self) -> Budget {
        Budget {
            left_bytes: self.len_bytes(),
        }
    }

    /// Block `number`, which reaches to the end of the file if it is the last one.
    fn block(&self, number: u64) -> Result<Arc<Vec<u8>>, H5Error> {
        let mut blocks = self.blocks.borrow_mut();
        if let Some(at) = blocks.iter().position(|block| block.number == number) {
            blocks[..=at].rotate_right(1);
            return Ok(Arc::clone(&blocks[0].bytes));
        }
        let offset = number.saturating_mul(BLOCK_BYTES);
        let len = self
            .bounds
            .len_bytes
            .saturating_sub(offset)
            .min(BLOCK_BYTES);
        // The buffer of the block that makes room is used again, unless someone still holds it.
        let mut bytes = match blocks.len() {
            MAX_BLOCKS => blocks.pop().map(|block| block.bytes).unwrap_or_default(),
            _ => Arc::default(),
        };
        if Arc::get_mut(&mut bytes).is_none() {
            bytes = Arc::default();
        }
        if let Some(buffer) = Arc::get_mut(&mut bytes) {
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            self.source.read_exact_at(buffer, offset)?;
        }
        blocks.insert(
            0,
            Block {
                number,
                bytes: Arc::clone(&bytes),
            },
        );
        Ok(bytes)
    }
}

/// Bounds what one walk over a structure may read and keep. The parts of a sound structure do not overlap, so together they are no
/// larger than the file; in a file that was made to keep a reader busy they may be, by pointing to one place many times.
#[derive(Debug)]
pub(crate) struct Budget {
    left_bytes: u64,
}

impl Budget {
    /// Takes `len_bytes` for a part of a `structure` at `address`.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where the file's length is used up.
    pub(crate) fn spend(
        &mut self,
        len_bytes: u64,
        structure: &'static str,
        address: Address,
    ) -> Result<(), H5Error> {
        match self.left_bytes.checked_sub(len_bytes) {
            Some(left_bytes) => {
                self.left_bytes = left_bytes;
                Ok(())
            }
            None => Err(H5Error::Damaged {
                structure,
                address,
                what: "its parts overlap or form a circle",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(len: usize, base_address: u64) -> (MetaReader, Vec<u8>) {
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        let source: Arc<dyn Source> = Arc::new(bytes.clone());
        (MetaReader::new(source, base_address, len as u64), bytes)
    }

    #[test]
    fn reads_within_across_and_beyond_blocks() {
        let (reader, bytes) = reader(300_000, 512);
        for (address, len) in [
            (0, 0),
            (0, 10),
            (65_000, 200),
            (65_024, 65_536),
            (100, 65_536),
            (10, 250_000),
            (299_488, 0),
            (299_400, 88),
        ] {
            let start = 512 + address;
            assert_eq!(
                &*reader.read(Address(address as u64), len as u64).unwrap(),
                &bytes[start..start + len]
            );
        }
    }

    #[test]
    fn what_the_file_does_not_hold_is_an_error_before_anything_is_allocated() {
        let (reader, _) = reader(1000, 512);
        for (address, len) in [
            (0, 489),
            (488, 1),
            (0, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX, 0),
            (u64::MAX - 600, 600),
        ] {
            assert!(matches!(
                reader.read(Address(address), len),
                Err(H5Error::Source(SourceError::BeyondEnd { .. }))
            ));
        }
        assert_eq!(reader.read_up_to(Address(480), 100).unwrap().len(), 8);
    }

    #[test]
    fn keeps_a_bounded_number_of_blocks() {
        let (reader, bytes) = reader(100 * 65_536, 0);
        for round in 0..2u64 {
            for block in 0..100u64 {
                let at = block * 65_536 + round;
                let read = reader.read(Address(at), 3).unwrap();
                let at = usize::try_from(at).unwrap();
                assert_eq!(&*read, &bytes[at..at + 3]);
            }
        }
        assert_eq!(reader.blocks.borrow().len(), MAX_BLOCKS);
    }
}
