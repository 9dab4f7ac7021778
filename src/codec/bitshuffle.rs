//! Filter 32008: bits of equal significance together, block by block, and each block through LZ4 or Zstandard or neither
//! (`bshuf_h5filter.c`, `bitshuffle_core.c`).
//!
//! With a compressor there is a header (eight bytes: length of the data; four: length of a block; both big-endian), and each block is
//! preceded by its stored length in four big-endian bytes. What does not fill eight elements is copied at the end.

use super::engines::{self, Engines};
use super::shuffle::{bit_shuffle, bit_unshuffle};
use super::{CodecError, Workspace, grown};

const FILTER: &str = "bitshuffle";

/// What the parameters say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bitshuffle {
    element_bytes: usize,
    /// Elements of a block, a multiple of eight.
    block_elements: usize,
    inner: Inner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    Plain,
    Lz4,
    Zstd { level: i32 },
}

/// How many elements are shuffled together at the least.
const MULTIPLE: usize = 8;

impl Bitshuffle {
    /// Parameters: version (two numbers), bytes of an element, elements of a block (0: about 8 KiB), compressor (0 none, 2 LZ4, 3
    /// Zstandard), level.
    pub(super) fn new(parameters: &[u32]) -> Result<Self, CodecError> {
        let bad = |what| CodecError::BadParameters {
            filter: FILTER,
            what,
        };
        let size = |n: u32| usize::try_from(n).map_err(|_| bad("an absurd size"));
        let &[_, _, element_bytes, ref rest @ ..] = parameters else {
            return Err(bad("fewer than three"));
        };
        let element_bytes = size(element_bytes)?;
        if element_bytes == 0 {
            return Err(bad("elements of no bytes"));
        }
        let block_elements = match size(rest.first().copied().unwrap_or(0))? {
            0 => Self::default_block(element_bytes),
            n if n.is_multiple_of(MULTIPLE) => n,
            _ => return Err(bad("a block size that is not a multiple of eight")),
        };
        let inner = match rest.get(1) {
            None | Some(0) => Inner::Plain,
            Some(2) => Inner::Lz4,
            Some(3) => Inner::Zstd {
                level: rest.get(2).map_or(0, |level| level.cast_signed()),
            },
            Some(_) => return Err(bad("an unknown compressor")),
        };
        Ok(Self {
            element_bytes,
            block_elements,
            inner,
        })
    }

    /// Some 8 KiB in whole eights of elements, and 128 elements at the least.
    fn default_block(element_bytes: usize) -> usize {
        (8192 / element_bytes / MULTIPLE * MULTIPLE).max(128)
    }

    pub(super) fn decode(
        &self,
        input: &[u8],
        output: &mut [u8],
        work: &mut Workspace,
    ) -> Result<usize, CodecError> {
        let mut rest = input;
        let (output, block_elements) = if self.inner == Inner::Plain {
            let output = output
                .get_mut(..input.len())
                .ok_or(CodecError::corrupt(FILTER, "longer than the chunk"))?;
            (output, self.block_elements)
        } else {
            let total = u64::from_be_bytes(*split(&mut rest)?);
            let block_bytes = u32::from_be_bytes(*split(&mut rest)?);
            let output = usize::try_from(total)
                .ok()
                .and_then(|total| output.get_mut(..total))
                .ok_or(CodecError::corrupt(FILTER, "longer than the chunk"))?;
            let block_bytes = usize::try_from(block_bytes).unwrap_or(usize::MAX);
            (output, block_bytes / self.element_bytes)
        };
        if block_elements == 0 || !block_elements.is_multiple_of(MULTIPLE) {
            let what = "a block size that is not a multiple of eight";
            return Err(CodecError::corrupt(FILTER, what));
        }
        if !output.len().is_multiple_of(self.element_bytes) {
            return Err(CodecError::corrupt(FILTER, "not whole elements"));
        }
        let total = output.len();
        let (whole, tail) = output.split_at_mut(self.shuffled_bytes(total));
        let block_bytes = block_elements.saturating_mul(self.element_bytes);
        for block in whole.chunks_mut(block_bytes) {
            let [shuffled, planes, _] = work
                .blocks
                .each_mut()
                .map(|buffer| grown(buffer, block.len()));
            if let Inner::Plain = self.inner {
                let (bytes, after) = split_at(rest, block.len())?;
                rest = after;
                bit_unshuffle(self.element_bytes, bytes, block, planes);
                continue;
            }
            let stored_bytes = u32::from_be_bytes(*split(&mut rest)?);
            let (stored, after) =
                split_at(rest, usize::try_from(stored_bytes).unwrap_or(usize::MAX))?;
            rest = after;
            if self.inner.decompress(stored, shuffled, &mut work.engines)? != block.len() {
                return Err(CodecError::corrupt(FILTER, "a block is too short"));
            }
            bit_unshuffle(self.element_bytes, shuffled, block, planes);
        }
        tail.copy_from_slice(split_at(rest, tail.len())?.0);
        Ok(total)
    }

    pub(super) fn encode(
        &self,
        input: &[u8],
        output: &mut Vec<u8>,
        work: &mut Workspace,
    ) -> Result<(), CodecError> {
        if !input.len().is_multiple_of(self.element_bytes) {
            return Err(CodecError::EncodeUnsupported {
                filter: FILTER,
                what: "a part of an element",
            });
        }
        let block_bytes = self.block_elements.saturating_mul(self.element_bytes);
        if self.inner != Inner::Plain {
            let stated = u32::try_from(block_bytes).map_err(|_| CodecError::BadParameters {
                filter: FILTER,
                what: "an absurd size",
            })?;
            output.extend_from_slice(&(input.len() as u64).to_be_bytes());
            output.extend_from_slice(&stated.to_be_bytes());
        }
        let (whole, tail) = input.split_at(self.shuffled_bytes(input.len()));
        for block in whole.chunks(block_bytes) {
            let [shuffled, planes, _] = work
                .blocks
                .each_mut()
                .map(|buffer| grown(buffer, block.len()));
            bit_shuffle(self.element_bytes, block, shuffled, planes);
            let head = output.len();
            match self.inner {
                Inner::Plain => {
                    output.extend_from_slice(shuffled);
                    continue;
                }
                Inner::Lz4 => {
                    output.extend_from_slice(&[0; 4]);
                    engines::lz4(shuffled, output)?;
                }
                Inner::Zstd { level } => {
                    output.extend_from_slice(&[0; 4]);
                    engines::zstd(level, shuffled, output)?;
                }
            }
            let [a, b, c, d, ..] = (output.len() - head - 4).to_le_bytes();
            output[head..head + 4].copy_from_slice(&[d, c, b, a]);
        }
        output.extend_from_slice(tail);
        Ok(())
    }

    /// How many of `total` bytes are whole eights of elements.
    fn shuffled_bytes(&self, total: usize) -> usize {
        total - total % self.element_bytes.saturating_mul(MULTIPLE)
    }
}

impl Inner {
    fn decompress(
        self,
        stored: &[u8],
        block: &mut [u8],
        engines: &mut Engines,
    ) -> Result<usize, CodecError> {
        match self {
            Self::Zstd { .. } => engines.unzstd(FILTER, stored, block),
            Self::Plain | Self::Lz4 => engines::unlz4(FILTER, stored, block),
        }
    }
}

/// Splits `N` bytes off the front.
fn split<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], CodecError> {
    let (head, tail) = rest
        .split_first_chunk::<N>()
        .ok_or(CodecError::corrupt(FILTER, "it ends early"))?;
    *rest = tail;
    Ok(head)
}

fn split_at(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), CodecError> {
    bytes
        .split_at_checked(at)
        .ok_or(CodecError::corrupt(FILTER, "it ends early"))
}
