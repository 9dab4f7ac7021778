//! Filter 32004: LZ4 blocks behind a header of the plugin's own (`H5Zlz4.c`).
//!
//! Eight bytes: length of the data; four: length of a block; then for each block four bytes: its stored length, and that many bytes. All
//! numbers are big-endian. A block that is stored in as many bytes as it has is not compressed.

use super::{CodecError, engines};

const FILTER: &str = "lz4";

/// The block length where the parameters give none.
const DEFAULT_BLOCK_BYTES: usize = 1 << 30;

/// The plugin's limit on what it writes.
const MAX_BYTES: usize = 0x7fff_ffff;

/// Splits `N` bytes off the front.
fn split<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], CodecError> {
    let (head, tail) = rest
        .split_first_chunk::<N>()
        .ok_or(CodecError::corrupt(FILTER, "it ends early"))?;
    *rest = tail;
    Ok(head)
}

/// A big-endian length.
fn length(rest: &mut &[u8]) -> Result<usize, CodecError> {
    let value = u32::from_be_bytes(*split(rest)?);
    usize::try_from(value).map_err(|_| CodecError::corrupt(FILTER, "an absurd length"))
}

pub(super) fn decode(mut input: &[u8], output: &mut [u8]) -> Result<usize, CodecError> {
    let total = u64::from_be_bytes(*split(&mut input)?);
    let block_bytes = length(&mut input)?;
    let output = usize::try_from(total)
        .ok()
        .and_then(|total| output.get_mut(..total))
        .ok_or(CodecError::corrupt(FILTER, "longer than the chunk"))?;
    if block_bytes == 0 && !output.is_empty() {
        return Err(CodecError::corrupt(FILTER, "blocks of no bytes"));
    }
    for block in output.chunks_mut(block_bytes.max(1)) {
        let stored_bytes = length(&mut input)?;
        let (stored, rest) = input
            .split_at_checked(stored_bytes)
            .ok_or(CodecError::corrupt(FILTER, "it ends early"))?;
        input = rest;
        if stored.len() == block.len() {
            block.copy_from_slice(stored);
        } else if engines::unlz4(FILTER, stored, block)? != block.len() {
            return Err(CodecError::corrupt(FILTER, "a block is too short"));
        }
    }
    Ok(output.len())
}

/// `block_bytes` 0 is the plugin's default.
pub(super) fn encode(
    block_bytes: usize,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<(), CodecError> {
    if input.len() > MAX_BYTES {
        return Err(CodecError::EncodeUnsupported {
            filter: FILTER,
            what: "a chunk over 2 GiB",
        });
    }
    let block_bytes = match block_bytes {
        0 => DEFAULT_BLOCK_BYTES,
        given => given,
    }
    .min(input.len());
    let put = |output: &mut Vec<u8>, at: usize, len: usize| {
        let [a, b, c, d, ..] = len.to_le_bytes();
        output[at..at + 4].copy_from_slice(&[d, c, b, a]);
    };
    let start = output.len();
    output.extend_from_slice(&[0; 12]);
    put(output, start + 4, input.len());
    put(output, start + 8, block_bytes);
    for block in input.chunks(block_bytes.max(1)) {
        let head = output.len();
        output.extend_from_slice(&[0; 4]);
        engines::lz4(block, output)?;
        if output.len() - head - 4 >= block.len() {
            output.truncate(head + 4);
            output.extend_from_slice(block);
        }
        let stored_bytes = output.len() - head - 4;
        put(output, head, stored_bytes);
    }
    Ok(())
}
