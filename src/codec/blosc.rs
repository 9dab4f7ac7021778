//! Filter 32001, and the chunks inside of filter 32026: Blosc, versions 1 and 2 of the chunk format (c-blosc2,
//! `README_CHUNK_FORMAT.rst`, `blosc2.c`).
//!
//! A chunk is a header, the start of each block, and the blocks; a block is one compressed stream, or one for each byte of the
//! element type, which were shuffled before. Decoded here, and not by the C library, so that damaged bytes cannot harm anything.

use super::engines::{self, Engines};
use super::lz::decode_blosclz;
use super::shuffle::{bit_unshuffle, unshuffle};
use super::{CodecError, Workspace, grown};

/// The header of version 1, and with it that of version 2.
const HEADER_BYTES: usize = 16;
pub(super) const LONG_HEADER_BYTES: usize = 32;

/// The largest version of the chunk format that is known.
pub(super) const MAX_VERSION: u8 = 5;

// Bits of the header's flags.
pub(super) const SHUFFLED: u8 = 1;
const COPIED: u8 = 2;
pub(super) const BIT_SHUFFLED: u8 = 4;
pub(super) const ONE_STREAM: u8 = 16;

/// What is done to a block before it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Shuffle,
    BitShuffle,
    Delta,
}

/// The compressor of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressor {
    BloscLz,
    Lz4,
    Zlib,
    Zstd,
}

/// What a chunk consists of, if it is not its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    Zeros,
    Nans,
    Repeated,
}

/// A chunk's header, checked.
#[derive(Debug)]
struct Header {
    version: u8,
    element_bytes: usize,
    /// Length of the data.
    data_bytes: usize,
    block_bytes: usize,
    /// Where the data begins.
    body_start: usize,
    is_copied: bool,
    one_stream: bool,
    compressor_code: u8,
    special: Option<Special>,
    /// In the order of encoding.
    steps: Vec<Step>,
}

/// The four bytes at `at` as a little-endian number.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(i32::from_le_bytes(*bytes)).ok()
}

impl Header {
    fn parse(filter: &'static str, chunk: &[u8]) -> Result<Self, CodecError> {
        let corrupt = |what| CodecError::corrupt(filter, what);
        let unsupported = |what| CodecError::UnsupportedForm { filter, what };
        let short = corrupt("a chunk without a header");
        let &[version, _, flags, element_bytes] = chunk.first_chunk().ok_or(short.clone())?;
        let (Some(data_bytes), Some(block_bytes), Some(stored_bytes)) =
            (number(chunk, 4), number(chunk, 8), number(chunk, 12))
        else {
            return Err(corrupt(
                "a header that is cut short or has negative lengths",
            ));
        };
        if version == 0 || version > MAX_VERSION {
            return Err(unsupported("a chunk of an unknown version"));
        }
        if element_bytes == 0 || stored_bytes > chunk.len() {
            return Err(corrupt("a header with absurd lengths"));
        }
        if block_bytes == 0 || block_bytes > data_bytes {
            return Err(corrupt("a header with an absurd block length"));
        }
        let mut header = Self {
            version,
            element_bytes: usize::from(element_bytes),
            data_bytes,
            block_bytes,
            body_start: HEADER_BYTES,
            is_copied: flags & COPIED != 0,
            one_stream: flags & ONE_STREAM != 0,
            compressor_code: flags >> 5,
            special: None,
            steps: Vec::new(),
        };
        if flags & (SHUFFLED | BIT_SHUFFLED) != SHUFFLED | BIT_SHUFFLED {
            if version > 2 && flags & 8 != 0 {
                header.steps.push(Step::Delta);
            }
            if flags & SHUFFLED != 0 {
                header.steps.push(Step::Shuffle);
            }
            if flags & BIT_SHUFFLED != 0 {
                header.steps.push(Step::BitShuffle);
            }
            return Ok(header);
        }
        let long: &[u8; LONG_HEADER_BYTES] = chunk.first_chunk().ok_or(short)?;
        header.body_start = LONG_HEADER_BYTES;
        // Version 3 left the last slot uninitialized.
        let slots = if version == 3 { 5 } else { 6 };
        for &step in &long[16..16 + slots] {
            match step {
                // Truncated precision is not undone.
                0 | 4 => {}
                1 => header.steps.push(Step::Shuffle),
                2 => header.steps.push(Step::BitShuffle),
                3 => header.steps.push(Step::Delta),
                _ => return Err(unsupported("a filter of Blosc's registry")),
            }
        }
        let more_flags = long[31];
        if more_flags & 1 != 0 {
            return Err(unsupported("a dictionary"));
        }
        if more_flags & 8 != 0 {
            return Err(corrupt("a lazy chunk"));
        }
        if more_flags & 0x80 != 0 {
            return Err(unsupported("an instrumented chunk"));
        }
        header.special = match more_flags >> 4 & 7 {
            0 => None,
            1 => Some(Special::Zeros),
            2 => Some(Special::Nans),
            3 => Some(Special::Repeated),
            4 => return Err(corrupt("values that were never set")),
            _ => return Err(unsupported("an unknown special value")),
        };
        Ok(header)
    }

    fn compressor(&self, filter: &'static str) -> Result<Compressor, CodecError> {
        match self.compressor_code {
            0 => Ok(Compressor::BloscLz),
            1 => Ok(Compressor::Lz4),
            3 => Ok(Compressor::Zlib),
            4 => Ok(Compressor::Zstd),
            2 => Err(CodecError::UnsupportedForm {
                filter,
                what: "the compressor Snappy",
            }),
            _ => Err(CodecError::UnsupportedForm {
                filter,
                what: "a compressor of Blosc's registry",
            }),
        }
    }

    /// How many streams a block has.
    fn streams(&self, is_last_and_short: bool) -> usize {
        let splits = !self.one_stream && !is_last_and_short;
        // Before chunks had the flag, whether to split followed from the sizes.
        let classic = self.version > 2
            || (self.element_bytes <= 16 && self.block_bytes / self.element_bytes >= 128);
        if splits && classic {
            self.element_bytes
        } else {
            1
        }
    }
}

/// Decodes one chunk into the front of `output`, and gives the number of bytes written.
pub(super) fn decode_chunk(
    filter: &'static str,
    chunk: &[u8],
    output: &mut [u8],
    work: &mut Workspace,
) -> Result<usize, CodecError> {
    let corrupt = |what| CodecError::corrupt(filter, what);
    let header = Header::parse(filter, chunk)?;
    let output = output
        .get_mut(..header.data_bytes)
        .ok_or(corrupt("longer than the chunk"))?;
    let body = chunk.get(header.body_start..).unwrap_or_default();
    if let Some(special) = header.special {
        fill_special(special, &header, body, output)
            .ok_or(corrupt("a special value that does not fit the elements"))?;
        return Ok(output.len());
    }
    if header.is_copied {
        let data = body.get(..output.len()).ok_or(corrupt("it ends early"))?;
        output.copy_from_slice(data);
        return Ok(output.len());
    }
    let compressor = header.compressor(filter)?;
    let blocks = output.len().div_ceil(header.block_bytes);
    if body.len() / 4 < blocks {
        return Err(corrupt("fewer block starts than blocks"));
    }
    for i in 0..blocks {
        let start = number(body, i * 4).and_then(|start| chunk.get(start..));
        let stored = start.ok_or(corrupt("a block outside of the chunk"))?;
        let (before, rest) = output.split_at_mut(i * header.block_bytes);
        let len = rest.len().min(header.block_bytes);
        let block = &mut rest[..len];
        let streams = header.streams(len < header.block_bytes);
        if header.steps.is_empty() {
            decode_streams(
                filter,
                compressor,
                streams,
                stored,
                block,
                &mut work.engines,
            )?;
            continue;
        }
        let [first, second, planes] = work.blocks.each_mut().map(|buffer| grown(buffer, len));
        decode_streams(
            filter,
            compressor,
            streams,
            stored,
            first,
            &mut work.engines,
        )?;
        undo_steps(&header, before, first, second, planes, block);
    }
    Ok(output.len())
}

/// Decodes the streams of one block.
fn decode_streams(
    filter: &'static str,
    compressor: Compressor,
    streams: usize,
    mut stored: &[u8],
    block: &mut [u8],
    engines: &mut Engines,
) -> Result<(), CodecError> {
    let corrupt = |what| CodecError::corrupt(filter, what);
    let early = || corrupt("a block that ends early");
    let stream_bytes = block.len() / streams;
    if stream_bytes == 0 || stream_bytes * streams != block.len() {
        return Err(corrupt("a block that is not whole elements"));
    }
    for part in block.chunks_exact_mut(stream_bytes) {
        let (len, rest) = stored.split_first_chunk().ok_or_else(early)?;
        let len = i32::from_le_bytes(*len);
        stored = rest;
        let Ok(len) = usize::try_from(len) else {
            // A run of one byte, behind a token that says so.
            let (&token, rest) = stored.split_first().ok_or_else(early)?;
            stored = rest;
            let byte = len.checked_neg().and_then(|byte| u8::try_from(byte).ok());
            match byte {
                Some(byte) if token & 1 == 1 => part.fill(byte),
                _ => return Err(corrupt("a stream of an unknown kind")),
            }
            continue;
        };
        let (stream, rest) = stored.split_at_checked(len).ok_or_else(early)?;
        stored = rest;
        let got = if len == 0 {
            part.fill(0);
            part.len()
        } else if len == part.len() {
            part.copy_from_slice(stream);
            part.len()
        } else {
            match compressor {
                Compressor::BloscLz => {
                    decode_blosclz(stream, part).ok_or(corrupt("not a BloscLZ stream"))?
                }
                Compressor::Lz4 => engines::unlz4(filter, stream, part)?,
                Compressor::Zlib => engines.inflate(filter, stream, part)?,
                Compressor::Zstd => engines.unzstd(filter, stream, part)?,
            }
        };
        if got != part.len() {
            return Err(corrupt("a stream that is too short"));
        }
    }
    Ok(())
}

/// Undoes into `block` what was done to the bytes in `first`. `before` is what precedes the block; the other slices are of its length.
fn undo_steps<'a>(
    header: &Header,
    before: &[u8],
    mut first: &'a mut [u8],
    mut second: &'a mut [u8],
    planes: &mut [u8],
    block: &mut [u8],
) {
    let Some((last, earlier)) = header.steps.split_first() else {
        return;
    };
    for step in earlier.iter().rev() {
        undo_step(*step, header, before, first, second, planes);
        std::mem::swap(&mut first, &mut second);
    }
    undo_step(*last, header, before, first, block, planes);
}

/// Undoes one step from `from` into `to`.
fn undo_step(
    step: Step,
    header: &Header,
    before: &[u8],
    from: &[u8],
    to: &mut [u8],
    planes: &mut [u8],
) {
    let element_bytes = header.element_bytes;
    match step {
        Step::Shuffle => unshuffle(element_bytes, from, to),
        Step::BitShuffle => {
            let shuffled = bit_shuffled_bytes(header.version, element_bytes, from.len());
            let (whole, rest) = from.split_at(shuffled);
            to[shuffled..].copy_from_slice(rest);
            bit_unshuffle(element_bytes, whole, &mut to[..shuffled], planes);
        }
        Step::Delta => {
            let word = match element_bytes {
                1 | 2 | 4 => element_bytes,
                n if n.is_multiple_of(8) => 8,
                _ => 1,
            };
            let len = from.len() / word * word;
            to.copy_from_slice(from);
            if before.is_empty() {
                // The first block is relative to itself, one word back.
                for i in word..len {
                    to[i] ^= to[i - word];
                }
            } else {
                for (byte, reference) in to[..len].iter_mut().zip(before) {
                    *byte ^= reference;
                }
            }
        }
    }
}

/// How many bytes of a block are bit-shuffled; the rest is copied. Version 2 shuffled a block only where its elements are whole eights.
pub(super) fn bit_shuffled_bytes(version: u8, element_bytes: usize, len: usize) -> usize {
    let elements = len / element_bytes;
    match version {
        2 if !elements.is_multiple_of(8) => 0,
        _ => elements / 8 * 8 * element_bytes,
    }
}

/// Fills a chunk that holds one value throughout.
fn fill_special(special: Special, header: &Header, body: &[u8], output: &mut [u8]) -> Option<()> {
    let mut fill = |value: &[u8]| {
        let elements = output.chunks_exact_mut(value.len());
        elements.for_each(|element| element.copy_from_slice(value));
    };
    if !header.data_bytes.is_multiple_of(header.element_bytes) {
        return None;
    }
    match (special, header.element_bytes) {
        (Special::Zeros, _) => fill(&[0]),
        (Special::Nans, 4) => fill(&f32::NAN.to_le_bytes()),
        (Special::Nans, 8) => fill(&f64::NAN.to_le_bytes()),
        (Special::Nans, _) => return None,
        (Special::Repeated, n) => fill(body.get(..n)?),
    }
    Some(())
}
