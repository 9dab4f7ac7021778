//! Filter 32026: one Blosc chunk in a contiguous frame (c-blosc2, `README_CFRAME_FORMAT.rst`, `README_B2ND_METALAYER.rst`; the plugin's
//! `blosc2_filter.c`).
//!
//! Numbers of the frame are big-endian (MessagePack), those of the chunk little-endian. In more than one dimension the plugin stores the chunk block
//! by block, each block a small box, the boxes at the edges padded; a metalayer named `b2nd` says how.

use super::blosc;
use super::blosc_write::Blosc;
use super::{CodecError, Workspace, grown};

pub(super) const FILTER: &str = "blosc2";

/// Where the metalayers begin.
const METALAYERS: usize = 0x57;

/// The most dimensions of a box, as c-blosc2 is built.
const MAX_RANK: usize = 8;

fn corrupt(what: &'static str) -> CodecError {
    CodecError::corrupt(FILTER, what)
}

fn unsupported(what: &'static str) -> CodecError {
    CodecError::UnsupportedForm {
        filter: FILTER,
        what,
    }
}

/// Reads numbers of a frame.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn at(frame: &'a [u8], at: usize) -> Result<Self, CodecError> {
        let rest = frame.get(at..).ok_or(corrupt("a frame that ends early"))?;
        Ok(Self { rest })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let early = corrupt("a frame that ends early");
        let (head, rest) = self.rest.split_first_chunk().ok_or(early)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte that must be `marker`.
    fn expect(&mut self, marker: u8) -> Result<(), CodecError> {
        if self.take()? == [marker] {
            Ok(())
        } else {
            Err(corrupt("a frame without the expected marker"))
        }
    }

    fn size16(&mut self) -> Result<usize, CodecError> {
        Ok(usize::from(u16::from_be_bytes(self.take()?)))
    }

    fn size32(&mut self) -> Result<usize, CodecError> {
        let value = i32::from_be_bytes(self.take()?);
        usize::try_from(value).map_err(|_| corrupt("a frame with negative lengths"))
    }

    fn size64(&mut self) -> Result<usize, CodecError> {
        let value = i64::from_be_bytes(self.take()?);
        usize::try_from(value).map_err(|_| corrupt("a frame with negative lengths"))
    }
}

/// What a frame's header says.
struct Frame<'a> {
    /// The chunks, and then their index.
    body: &'a [u8],
    /// Length of the chunks.
    stored_bytes: usize,
    /// Length of the data.
    data_bytes: usize,
    element_bytes: usize,
    /// The content of the `b2nd` metalayer.
    boxes: Option<Boxes>,
}

/// How a chunk is cut into boxes, in elements along each axis.
struct Boxes {
    shape: Vec<usize>,
    block: Vec<usize>,
}

impl<'a> Frame<'a> {
    fn parse(frame: &'a [u8]) -> Result<Self, CodecError> {
        let mut cursor = Cursor::at(frame, 2)?;
        if cursor.take()? != *b"b2frame\0" {
            return Err(corrupt("not a frame"));
        }
        cursor.expect(0xd2)?;
        let header_bytes = cursor.size32()?;
        cursor.expect(0xcf)?;
        let frame_bytes = cursor.size64()?;
        let frame = frame
            .get(..frame_bytes)
            .ok_or(corrupt("a frame longer than what is stored"))?;
        cursor.expect(0xa4)?;
        let [_, kind, _, _] = cursor.take()?;
        if kind & 15 != 0 {
            return Err(unsupported("a frame in several files"));
        }
        cursor.expect(0xd3)?;
        let data_bytes = cursor.size64()?;
        cursor.expect(0xd3)?;
        let stored_bytes = cursor.size64()?;
        cursor.expect(0xd2)?;
        let element_bytes = cursor.size32()?;
        cursor.expect(0xd2)?;
        cursor.size32()?;
        cursor.expect(0xd2)?;
        let chunk_bytes = cursor.size32()?;
        if data_bytes > chunk_bytes {
            return Err(unsupported("a frame of several chunks"));
        }
        let boxes = match metalayer(frame, b"b2nd")? {
            Some(content) => Some(Boxes::parse(content)?),
            None if metalayer(frame, b"caterva")?.is_some() => {
                return Err(unsupported("the metalayer caterva"));
            }
            None => None,
        };
        Ok(Self {
            body: Cursor::at(frame, header_bytes)?.rest,
            stored_bytes,
            data_bytes,
            element_bytes,
            boxes,
        })
    }

    /// The one chunk of the frame into the front of `output`; gives the number of bytes written.
    fn decode_chunk(&self, output: &mut [u8], work: &mut Workspace) -> Result<usize, CodecError> {
        let index = Cursor::at(self.body, self.stored_bytes)?.rest;
        let mut offset = [0; 8];
        if blosc::decode_chunk(FILTER, index, &mut offset, work)? != offset.len() {
            return Err(corrupt("an index that is not one offset"));
        }
        if offset[7] & 0x80 == 0 {
            let offset = usize::try_from(u64::from_le_bytes(offset));
            let chunk = offset
                .ok()
                .and_then(|offset| self.body.get(offset..self.stored_bytes));
            let chunk = chunk.ok_or(corrupt("a chunk outside of the frame"))?;
            return blosc::decode_chunk(FILTER, chunk, output, work);
        }
        // The chunk is of one value, and not stored.
        let output = output.get_mut(..self.data_bytes);
        let output = output.ok_or(corrupt("longer than the chunk"))?;
        match offset[7] & 7 {
            1 => output.fill(0),
            2 if self.element_bytes == 4 => {
                for element in output.as_chunks_mut().0 {
                    *element = f32::NAN.to_le_bytes();
                }
            }
            2 if self.element_bytes == 8 => {
                for element in output.as_chunks_mut().0 {
                    *element = f64::NAN.to_le_bytes();
                }
            }
            _ => return Err(corrupt("a chunk of an unknown special value")),
        }
        Ok(output.len())
    }
}

/// The content of the metalayer of that name.
fn metalayer<'a>(frame: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, CodecError> {
    let mut cursor = Cursor::at(frame, METALAYERS)?;
    cursor.expect(0x93)?;
    cursor.expect(0xcd)?;
    cursor.size16()?;
    cursor.expect(0xde)?;
    for _ in 0..cursor.size16()? {
        let [text] = cursor.take()?;
        let split = cursor.rest.split_at_checked(usize::from(text & 31));
        let (key, rest) = split.ok_or(corrupt("a frame that ends early"))?;
        cursor.rest = rest;
        cursor.expect(0xd2)?;
        let at = cursor.size32()?;
        if key == name {
            let mut content = Cursor::at(frame, at)?;
            content.expect(0xc6)?;
            let len = content.size32()?;
            let content = content.rest.get(..len);
            return content.map(Some).ok_or(corrupt("a frame that ends early"));
        }
    }
    Ok(None)
}

impl Boxes {
    fn parse(content: &[u8]) -> Result<Self, CodecError> {
        let mut cursor = Cursor { rest: content };
        let [_, version, rank] = cursor.take()?;
        if version != 0 {
            return Err(unsupported("an unknown version of the metalayer b2nd"));
        }
        if !(1..=MAX_RANK).contains(&usize::from(rank)) {
            return Err(corrupt("boxes of an absurd rank"));
        }
        let mut sizes = |marker: u8| -> Result<Vec<usize>, CodecError> {
            cursor.expect(0x90 | rank)?;
            (0..rank)
                .map(|_| {
                    cursor.expect(marker)?;
                    if marker == 0xd3 {
                        cursor.size64()
                    } else {
                        cursor.size32()
                    }
                })
                .collect()
        };
        let shape = sizes(0xd3)?;
        let chunk = sizes(0xd2)?;
        let block = sizes(0xd2)?;
        if shape != chunk {
            return Err(unsupported("a frame of several chunks"));
        }
        if block
            .iter()
            .zip(&shape)
            .any(|(&block, &axis)| block == 0 || block > axis)
        {
            return Err(corrupt("boxes that do not fit the chunk"));
        }
        Ok(Self { shape, block })
    }

    /// Bytes of the chunk with the padding of its edges.
    fn padded_bytes(&self, element_bytes: usize) -> Option<usize> {
        let axes = self.shape.iter().zip(&self.block);
        axes.map(|(&axis, &block)| axis.checked_next_multiple_of(block))
            .try_fold(element_bytes, |bytes, axis| bytes.checked_mul(axis?))
    }

    /// Puts the boxes of `padded`, one after the other, in their places in `output`. Both have the lengths that the shape says.
    fn place(&self, element_bytes: usize, padded: &[u8], output: &mut [u8]) {
        let rank = self.shape.len();
        let (Some(&row), Some(&row_axis)) = (self.block.last(), self.shape.last()) else {
            return;
        };
        // Elements between neighbours along each axis of the chunk.
        let mut strides = vec![1; rank];
        for axis in (1..rank).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        let mut origin = vec![0; rank];
        let box_bytes = self.block.iter().product::<usize>() * element_bytes;
        for source in padded.chunks_exact(box_bytes) {
            let mut within = vec![0; rank];
            for line in source.chunks_exact(row * element_bytes) {
                let place = origin.iter().zip(&within).map(|(o, w)| o + w);
                if place.clone().zip(&self.shape).all(|(at, &axis)| at < axis) {
                    let at: usize = place.zip(&strides).map(|(at, stride)| at * stride).sum();
                    let len = row.min(row_axis - origin[rank - 1]) * element_bytes;
                    output[at * element_bytes..][..len].copy_from_slice(&line[..len]);
                }
                advance(&mut within, &self.block, |axis| {
                    if axis + 1 == rank { row } else { 1 }
                });
            }
            advance(&mut origin, &self.shape, |axis| self.block[axis]);
        }
    }
}

/// The next position in a box of `shape`, in C order, by `step` along each axis.
fn advance(position: &mut [usize], shape: &[usize], step: impl Fn(usize) -> usize) {
    for axis in (0..position.len()).rev() {
        position[axis] += step(axis);
        if position[axis] < shape[axis] {
            return;
        }
        position[axis] = 0;
    }
}

/// Decodes into the front of `output`, and gives the number of bytes written.
pub(super) fn decode(
    input: &[u8],
    output: &mut [u8],
    work: &mut Workspace,
) -> Result<usize, CodecError> {
    /// How much longer than the chunk its padded form may be: boxes of two in axes of three, at the highest rank, take ten times.
    const MAX_PADDING: usize = 16;
    let frame = Frame::parse(input)?;
    let Some(boxes) = &frame.boxes else {
        return frame.decode_chunk(output, work);
    };
    let len = boxes
        .shape
        .iter()
        .try_fold(frame.element_bytes, |n, &axis| n.checked_mul(axis));
    let output = len
        .and_then(|len| output.get_mut(..len))
        .filter(|output| !output.is_empty())
        .ok_or(corrupt("longer than the chunk, or empty"))?;
    let padded_bytes = boxes
        .padded_bytes(frame.element_bytes)
        .filter(|bytes| bytes / MAX_PADDING <= output.len())
        .ok_or(corrupt("boxes that are mostly padding"))?;
    let mut buffer = std::mem::take(&mut work.padded);
    let padded = grown(&mut buffer, padded_bytes);
    let result = frame.decode_chunk(padded, work);
    if result == Ok(padded_bytes) {
        boxes.place(frame.element_bytes, padded, output);
    }
    work.padded = buffer;
    if result? == padded_bytes {
        Ok(output.len())
    } else {
        Err(corrupt("a chunk shorter than its boxes"))
    }
}

/// Appends `input` as a frame of one chunk without boxes, which the plugin reads in any number of dimensions. `Ok(None)` where the chunk does not shrink.
pub(super) fn encode(
    settings: &Blosc,
    input: &[u8],
    output: &mut Vec<u8>,
    work: &mut Workspace,
) -> Result<Option<()>, CodecError> {
    /// A chunk index that says: one chunk, at the beginning.
    const INDEX: [u8; 40] = {
        let mut index = [0; 40];
        index[0] = 5;
        index[1] = 1;
        // A long header, and a copy of the data.
        index[2] = 7;
        index[3] = 8;
        index[4] = 8;
        index[8] = 8;
        index[12] = 40;
        index[21] = 1;
        index
    };
    const NO_METALAYERS: [u8; 10] = [0x93, 0xcd, 0, 7, 0xde, 0, 0, 0xdc, 0, 0];
    const TRAILER: [u8; 35] = {
        let mut trailer = [0; 35];
        let head = [
            0x94, 1, 0x93, 0xcd, 0, 6, 0xde, 0, 0, 0xdc, 0, 0, 0xce, 0, 0, 0, 35, 0xd8,
        ];
        let mut i = 0;
        while i < head.len() {
            trailer[i] = head[i];
            i += 1;
        }
        trailer
    };
    let mut chunk = Vec::with_capacity(input.len());
    if settings
        .encode_chunk(FILTER, true, input, &mut chunk, work)?
        .is_none()
    {
        return Ok(None);
    }
    let header_bytes = METALAYERS + NO_METALAYERS.len();
    let frame_bytes = header_bytes + chunk.len() + INDEX.len() + TRAILER.len();
    let size32 = |value: usize| i32::try_from(value).unwrap_or(i32::MAX).to_be_bytes();
    let size64 = |value: usize| (value as u64).to_be_bytes();
    let start = output.len();
    output.extend([0x9e, 0xa8]);
    output.extend(b"b2frame\0\xd2");
    output.extend(size32(header_bytes));
    output.push(0xcf);
    output.extend(size64(frame_bytes));
    // Format version 2 with 64-bit offsets; contiguous; the defaults of a compressor that is not used; forward-compatible splitting.
    output.extend([0xa4, 0x12, 0, 0x51, 0x03, 0xd3]);
    output.extend(size64(input.len()));
    output.push(0xd3);
    output.extend(size64(chunk.len()));
    output.push(0xd2);
    output.extend(size32(usize::from(chunk[3])));
    output.push(0xd2);
    output.extend(chunk[8..12].iter().rev());
    output.push(0xd2);
    output.extend(size32(input.len()));
    // One thread each way, no metalayers in the trailer, six filters of which the last one counts.
    output.extend([0xd1, 0, 1, 0xd1, 0, 1, 0xc2, 0xd8, 6]);
    output.extend(&chunk[16..22]);
    output.resize(start + METALAYERS, 0);
    output.extend(NO_METALAYERS);
    output.append(&mut chunk);
    output.extend(INDEX);
    output.extend(TRAILER);
    Ok(Some(()))
}
