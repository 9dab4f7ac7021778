//! Writing Blosc chunks (see [`super::blosc`] for the format).
//!
//! Blocks are not split into streams, and a flag tells readers so.

use super::blosc::{
    BIT_SHUFFLED, Compressor, LONG_HEADER_BYTES, MAX_VERSION, ONE_STREAM, SHUFFLED, Step,
    bit_shuffled_bytes,
};
use super::lz::encode_blosclz;
use super::shuffle::{bit_shuffle, shuffle};
use super::{CodecError, Workspace, engines, grown};

/// How to write chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blosc {
    element_bytes: u8,
    level: u32,
    step: Option<Step>,
    compressor: Option<Compressor>,
    /// Bytes of a block, or 0 for the default.
    block_bytes: usize,
}

impl Blosc {
    /// Parameters: versions (two numbers; in filter 32026 the second is bytes of a block), bytes of an element, bytes of the chunk, level, shuffle (0 none,
    /// 1 bytes, 2 bits), compressor (0 BloscLZ, 1 LZ4, 2 LZ4HC, 3 Snappy, 4 zlib, 5 Zstandard). Decoding needs none of them.
    pub(super) fn new(filter: &'static str, parameters: &[u32]) -> Self {
        let given = |i: usize| parameters.get(i).copied();
        // The codes of the two parameter lists: in version 2 there is no Snappy, but its number stays taken.
        let compressor = match given(6).unwrap_or(0) {
            0 => Some(Compressor::BloscLz),
            1 | 2 => Some(Compressor::Lz4),
            4 => Some(Compressor::Zlib),
            5 => Some(Compressor::Zstd),
            _ => None,
        };
        let step = match given(5).unwrap_or(1) {
            1 => Some(Step::Shuffle),
            2 => Some(Step::BitShuffle),
            _ => None,
        };
        Self {
            element_bytes: given(2)
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(1)
                .max(1),
            level: given(4).unwrap_or(5).min(9),
            step,
            compressor,
            block_bytes: given(1)
                .filter(|_| filter == "blosc2")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(0),
        }
    }

    /// Appends `input` as one chunk, in the short form (version 2 of the format) or the long one (version 5). `Ok(None)` where that is not
    /// shorter than the data.
    pub(super) fn encode_chunk(
        &self,
        filter: &'static str,
        is_long: bool,
        input: &[u8],
        output: &mut Vec<u8>,
        work: &mut Workspace,
    ) -> Result<Option<()>, CodecError> {
        /// The largest chunk of c-blosc.
        const MAX_BYTES: usize = 0x7fff_ffff - LONG_HEADER_BYTES;
        let refused = |what| CodecError::EncodeUnsupported { filter, what };
        let compressor = self.compressor.ok_or(refused("its compressor"))?;
        if input.len() > MAX_BYTES {
            return Err(refused("a chunk over 2 GiB"));
        }
        if self.level == 0 || input.is_empty() {
            return Ok(None);
        }
        let element_bytes = usize::from(self.element_bytes);
        let block_bytes = self.block_bytes(input.len());
        let version = if is_long { MAX_VERSION } else { 2 };
        let code = match compressor {
            Compressor::BloscLz => 0,
            Compressor::Lz4 => 1,
            Compressor::Zlib => 3,
            Compressor::Zstd => 4u8,
        };
        let short_flags = match self.step {
            _ if is_long => SHUFFLED | BIT_SHUFFLED,
            Some(Step::Shuffle) => SHUFFLED,
            Some(Step::BitShuffle) => BIT_SHUFFLED,
            _ => 0,
        };
        let start = output.len();
        output.extend([
            version,
            1,
            short_flags | ONE_STREAM | code << 5,
            self.element_bytes,
        ]);
        put_number(output, input.len());
        put_number(output, block_bytes);
        put_number(output, 0);
        if is_long {
            let step = match self.step {
                Some(Step::Shuffle) => 1,
                Some(Step::BitShuffle) => 2,
                _ => 0,
            };
            output.extend([0, 0, 0, 0, 0, step]);
            output.resize(start + LONG_HEADER_BYTES, 0);
        }
        let starts = output.len();
        output.resize(starts + input.len().div_ceil(block_bytes) * 4, 0);
        for (i, block) in input.chunks(block_bytes).enumerate() {
            let block_start = output.len() - start;
            set_number(output, starts + i * 4, block_start);
            let [first, second, _] = work
                .blocks
                .each_mut()
                .map(|buffer| grown(buffer, block.len()));
            let shuffled = match self.step {
                Some(Step::Shuffle) => {
                    shuffle(element_bytes, block, first);
                    &*first
                }
                Some(Step::BitShuffle) => {
                    let len = bit_shuffled_bytes(version, element_bytes, block.len());
                    first[len..].copy_from_slice(&block[len..]);
                    bit_shuffle(element_bytes, &block[..len], &mut first[..len], second);
                    &*first
                }
                _ => block,
            };
            self.encode_stream(compressor, shuffled, output)?;
        }
        let stored_bytes = output.len() - start;
        set_number(output, start + 12, stored_bytes);
        Ok((stored_bytes < input.len()).then_some(()))
    }

    fn encode_stream(
        &self,
        compressor: Compressor,
        block: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let head = output.len();
        put_number(output, 0);
        let shrunk = match compressor {
            Compressor::BloscLz => encode_blosclz(block, output).is_some(),
            Compressor::Lz4 => {
                engines::lz4(block, output)?;
                true
            }
            Compressor::Zlib => {
                engines::deflate(self.level, block, output)?;
                true
            }
            Compressor::Zstd => {
                // As c-blosc spreads its nine levels over those of Zstandard.
                let level = if self.level < 9 {
                    self.level * 2 - 1
                } else {
                    22
                };
                engines::zstd(level.cast_signed(), block, output)?;
                true
            }
        };
        if !shrunk || output.len() - head - 4 >= block.len() {
            output.truncate(head + 4);
            output.extend_from_slice(block);
        }
        let len = output.len() - head - 4;
        set_number(output, head, len);
        Ok(())
    }

    /// A multiple of the element where there is room for one.
    fn block_bytes(&self, data_bytes: usize) -> usize {
        /// What stays in a second-level cache.
        const DEFAULT: usize = 256 * 1024;
        let wanted = if self.block_bytes == 0 {
            DEFAULT
        } else {
            self.block_bytes
        };
        let element_bytes = usize::from(self.element_bytes);
        let block_bytes = wanted.min(data_bytes);
        if block_bytes > element_bytes {
            block_bytes / element_bytes * element_bytes
        } else {
            block_bytes.max(1)
        }
    }
}

/// Appends a number of four bytes. It was checked to fit.
fn put_number(output: &mut Vec<u8>, value: usize) {
    let [a, b, c, d, ..] = value.to_le_bytes();
    output.extend([a, b, c, d]);
}

/// Writes a number of four bytes at `at`. It was checked to fit.
fn set_number(output: &mut [u8], at: usize, value: usize) {
    output[at..at + 4].copy_from_slice(&value.to_le_bytes()[..4]);
}
