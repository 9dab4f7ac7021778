//! Selections as the format stores them (Specification III.G of version 4.0, "Dataspace Selections"; `H5Shyper.c`,
//! `H5Spoint.c`, `H5Sall.c` and `H5Snone.c` of the C library).

use crate::h5::H5Error;
use crate::h5::decoder::Decoder;

/// The most axes a dataspace has (`H5S_MAX_RANK`).
pub const MAX_RANK: usize = 32;

/// Which elements of a dataspace take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// No element.
    None,
    /// Every element of the extent.
    All,
    /// Single elements.
    Points {
        /// Number of axes.
        rank: usize,
        /// The points' coordinates one after the other, `rank` numbers each.
        coordinates: Vec<u64>,
    },
    /// A regular hyperslab, axis by axis, slowest first.
    Regular(Vec<HyperslabAxis>),
    /// A list of boxes.
    Blocks {
        /// Number of axes.
        rank: usize,
        /// Each box as its first corner and its opposite corner (inclusive), `rank` numbers each.
        corners: Vec<u64>,
    },
}

/// One axis of a regular hyperslab, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HyperslabAxis {
    /// First element.
    pub start: u64,
    /// From the beginning of one block to that of the next.
    pub stride: u64,
    /// Number of blocks; `None` is without limit.
    pub count: Option<u64>,
    /// Elements of a block; `None` is without limit.
    pub block: Option<u64>,
}

impl Selection {
    /// The selection as one box, `(start, length)` along each axis, where it is one.
    #[must_use]
    pub fn as_box(&self) -> Option<Vec<(u64, u64)>> {
        match self {
            Self::Regular(axes) => axes
                .iter()
                .map(|axis| {
                    Some((
                        axis.start,
                        run_length(axis.stride, axis.count?, axis.block?)?,
                    ))
                })
                .collect(),
            Self::Blocks { rank, corners } if *rank > 0 && corners.len() == 2 * rank => {
                let (first, last) = corners.split_at(*rank);
                let axes = first.iter().zip(last);
                axes.map(|(&first, &last)| Some((first, last.checked_sub(first)?.checked_add(1)?)))
                    .collect()
            }
            _ => None,
        }
    }
}

/// A box of up to [`MAX_RANK`] axes, in one place so that decoding many of them allocates nothing.
#[derive(Debug)]
pub(super) struct BoxBuffer {
    pub(super) start: [u64; MAX_RANK],
    pub(super) len: [u64; MAX_RANK],
}

impl BoxBuffer {
    pub(super) fn new() -> Self {
        Self {
            start: [0; MAX_RANK],
            len: [0; MAX_RANK],
        }
    }
}

const POINTS: u32 = 1;
const HYPERSLAB: u32 = 2;
/// Flag of a hyperslab: regular, rather than a list of blocks.
const REGULAR: u8 = 1;
const REVERSED: &str = "a block of a selection ends before it begins";

/// How the numbers of a single box are stored behind the header of its selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BoxForm {
    /// Start, stride, count and block of each axis, rather than all first and then all last elements.
    regular: bool,
    /// Bytes of a number.
    width: usize,
}

impl BoxForm {
    /// Takes the header of a selection that is a single box of `rank` axes, as far as that can say so; `None` for any other, sound or
    /// damaged.
    pub(super) fn decode(decoder: &mut Decoder<'_>, rank: usize) -> Option<Self> {
        if decoder.u32().ok()? != HYPERSLAB {
            return None;
        }
        let header = HyperslabHeader::decode(decoder).ok()?;
        let one_block = header.regular || decoder.uint(header.width).ok()? == 1;
        (header.rank == rank && one_block).then_some(Self {
            regular: header.regular,
            width: header.width,
        })
    }

    /// Bytes of the numbers of `rank` axes.
    pub(super) fn len_bytes(self, rank: usize) -> usize {
        rank * self.width * if self.regular { 4 } else { 2 }
    }

    /// Takes the numbers of `rank` axes (at most [`MAX_RANK`]) apart; `None` where they are not those of a box.
    #[inline]
    pub(super) fn unpack(self, numbers: &[u8], rank: usize, into: &mut BoxBuffer) -> Option<()> {
        match (self.regular, self.width) {
            (false, 4) => unpack_corners::<4>(numbers, rank, into),
            (false, 2) => unpack_corners::<2>(numbers, rank, into),
            (false, _) => unpack_corners::<8>(numbers, rank, into),
            (true, 2) => unpack_regular::<2>(numbers, rank, into),
            (true, 4) => unpack_regular::<4>(numbers, rank, into),
            (true, _) => unpack_regular::<8>(numbers, rank, into),
        }
    }
}

#[inline]
fn unpack_corners<const WIDTH: usize>(
    numbers: &[u8],
    rank: usize,
    into: &mut BoxBuffer,
) -> Option<()> {
    let (numbers, _) = numbers.as_chunks::<WIDTH>();
    let (first, last) = numbers.split_at_checked(rank)?;
    let axes = into.start[..rank].iter_mut().zip(&mut into.len[..rank]);
    for ((start, len), (first, last)) in axes.zip(first.iter().zip(last)) {
        *start = number(first);
        *len = number(last).checked_sub(*start)?.checked_add(1)?;
    }
    Some(())
}

#[inline]
fn unpack_regular<const WIDTH: usize>(
    numbers: &[u8],
    rank: usize,
    into: &mut BoxBuffer,
) -> Option<()> {
    let (numbers, _) = numbers.as_chunks::<WIDTH>();
    let (fields, _) = numbers.as_chunks::<4>();
    let axes = into.start[..rank].iter_mut().zip(&mut into.len[..rank]);
    for ((start, len), fields) in axes.zip(fields) {
        let [first, stride, count, block] = fields.each_ref().map(number);
        let unlimited = unlimited(WIDTH);
        if count == 0 || block == 0 || count == unlimited || block == unlimited {
            return None;
        }
        (*start, *len) = (first, run_length(stride, count, block)?);
    }
    Some(())
}

/// Decodes any selection. Memory is at most some 4 times the bytes read.
///
/// # Errors
/// [`H5Error::Damaged`]; [`H5Error::Unsupported`] for a kind or version that the C library does not know either.
pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Selection, H5Error> {
    match decoder.u32()? {
        kind @ (0 | 3) => {
            if decoder.u32()? != 1 {
                return Err(unknown(decoder));
            }
            decoder.skip(8)?;
            Ok(match kind {
                0 => Selection::None,
                _ => Selection::All,
            })
        }
        POINTS => {
            let width = match decoder.u32()? {
                1 => {
                    decoder.skip(8)?;
                    4
                }
                2 => decode_width(decoder)?,
                _ => return Err(unknown(decoder)),
            };
            let rank = decode_rank(decoder)?;
            let points = decoder.uint(width)?;
            let coordinates = decode_numbers(decoder, points, rank, width)?;
            Ok(Selection::Points { rank, coordinates })
        }
        HYPERSLAB => {
            let header = HyperslabHeader::decode(decoder)?;
            let rank = header.rank;
            if header.regular {
                let axes = (0..rank).map(|_| decode_axis(decoder, header.width));
                return Ok(Selection::Regular(axes.collect::<Result<_, _>>()?));
            }
            let blocks = decoder.uint(header.width)?;
            let corners = decode_numbers(decoder, blocks, 2 * rank, header.width)?;
            for corner in corners.chunks_exact(2 * rank) {
                let (first, last) = corner.split_at(rank);
                if first.iter().zip(last).any(|(first, last)| first > last) {
                    return Err(decoder.damaged(REVERSED));
                }
            }
            Ok(Selection::Blocks { rank, corners })
        }
        _ => Err(unknown(decoder)),
    }
}

/// What precedes the numbers of a hyperslab.
struct HyperslabHeader {
    regular: bool,
    /// Bytes of a number.
    width: usize,
    rank: usize,
}

impl HyperslabHeader {
    /// From the version on.
    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, H5Error> {
        let (flags, width) = match decoder.u32()? {
            1 => {
                decoder.skip(8)?;
                (0, 4)
            }
            2 => {
                let flags = decoder.u8()?;
                decoder.skip(4)?;
                (flags, 8)
            }
            3 => (decoder.u8()?, decode_width(decoder)?),
            _ => return Err(unknown(decoder)),
        };
        if flags & !REGULAR != 0 {
            return Err(decoder.damaged("a hyperslab has unknown flags"));
        }
        Ok(Self {
            regular: flags & REGULAR != 0,
            width,
            rank: decode_rank(decoder)?,
        })
    }
}

fn unknown(decoder: &Decoder<'_>) -> H5Error {
    decoder.unsupported("a selection of an unknown kind or version")
}

fn decode_width(decoder: &mut Decoder<'_>) -> Result<usize, H5Error> {
    match decoder.u8()? {
        width @ (2 | 4 | 8) => Ok(usize::from(width)),
        _ => Err(decoder.damaged("a selection's numbers are of no known size")),
    }
}

fn decode_rank(decoder: &mut Decoder<'_>) -> Result<usize, H5Error> {
    match decoder.u32()? as usize {
        rank @ 1..=MAX_RANK => Ok(rank),
        _ => Err(decoder.damaged("a selection has no axis, or more than 32")),
    }
}

fn decode_axis(decoder: &mut Decoder<'_>, width: usize) -> Result<HyperslabAxis, H5Error> {
    let (start, stride) = (decoder.uint(width)?, decoder.uint(width)?);
    let limited = |n| (n != unlimited(width)).then_some(n);
    let count = limited(decoder.uint(width)?);
    let block = limited(decoder.uint(width)?);
    if stride == 0 || count == Some(0) || block == Some(0) {
        return Err(decoder.damaged("a hyperslab selects nothing"));
    }
    if count != Some(1) && block.is_none_or(|block| block > stride) {
        return Err(decoder.damaged("the blocks of a hyperslab overlap"));
    }
    Ok(HyperslabAxis {
        start,
        stride,
        count,
        block,
    })
}

/// `groups * each` numbers of `width` bytes; nothing is allocated before it is known that they are there.
fn decode_numbers(
    decoder: &mut Decoder<'_>,
    groups: u64,
    each: usize,
    width: usize,
) -> Result<Vec<u64>, H5Error> {
    let len_bytes = usize::try_from(groups)
        .ok()
        .and_then(|groups| groups.checked_mul(each * width))
        .filter(|&len| len <= decoder.remaining())
        .ok_or_else(|| decoder.damaged("a selection ends early"))?;
    (0..len_bytes / width)
        .map(|_| decoder.uint(width))
        .collect()
}

/// The length of blocks that touch each other, or `None` where they do not.
#[inline]
fn run_length(stride: u64, count: u64, block: u64) -> Option<u64> {
    match count {
        1 => Some(block),
        _ if stride == block => count.checked_mul(block),
        _ => None,
    }
}

/// A little-endian number of at most 8 bytes.
#[inline]
fn number<const WIDTH: usize>(bytes: &[u8; WIDTH]) -> u64 {
    let mut wide = [0; 8];
    wide[..WIDTH].copy_from_slice(bytes);
    u64::from_le_bytes(wide)
}

/// The largest number of each width stands for "without limit".
#[inline]
fn unlimited(width: usize) -> u64 {
    u64::MAX >> (64 - 8 * width)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::h5::Address;

    /// A single box as the C library writes it for low format bounds.
    pub(in super::super) fn encode_v1(axes: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let rank = u32::try_from(axes.len()).unwrap();
        for word in [HYPERSLAB, 1, 0, 8 + 8 * rank, rank, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for &(start, _) in axes {
            bytes.extend(u32::try_from(start).unwrap().to_le_bytes());
        }
        for &(start, len) in axes {
            bytes.extend(u32::try_from(start + len - 1).unwrap().to_le_bytes());
        }
        bytes
    }

    /// A regular hyperslab; `version` 2 has 8-byte numbers whatever `width` says.
    pub(in super::super) fn encode_regular(version: u32, width: u8, axes: &[[u64; 4]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(HYPERSLAB.to_le_bytes());
        bytes.extend(version.to_le_bytes());
        bytes.push(REGULAR);
        if version == 2 {
            bytes.extend([0; 4]);
        } else {
            bytes.push(width);
        }
        bytes.extend(u32::try_from(axes.len()).unwrap().to_le_bytes());
        for number in axes.iter().flatten() {
            let width = if version == 2 { 8 } else { usize::from(width) };
            bytes.extend(&number.to_le_bytes()[..width]);
        }
        bytes
    }

    /// The box, or `None` where it is none.
    fn boxed(bytes: &[u8], rank: usize) -> Option<Vec<(u64, u64)>> {
        let mut decoder = Decoder::new(bytes, "selection", Address(0));
        let mut buffer = BoxBuffer::new();
        let form = BoxForm::decode(&mut decoder, rank)?;
        let numbers = decoder.take(form.len_bytes(rank)).ok()?;
        form.unpack(numbers, rank, &mut buffer)?;
        assert_eq!(decoder.remaining(), 0);
        Some(
            (0..rank)
                .map(|i| (buffer.start[i], buffer.len[i]))
                .collect(),
        )
    }

    fn decoded(bytes: &[u8]) -> Result<Selection, &'static str> {
        let mut decoder = Decoder::new(bytes, "selection", Address(0));
        let selection = decode(&mut decoder).map_err(what)?;
        assert_eq!(decoder.remaining(), 0);
        Ok(selection)
    }

    fn what(error: H5Error) -> &'static str {
        match error {
            H5Error::Damaged { what, .. } | H5Error::Unsupported { what, .. } => what,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_encoding_of_a_box_is_the_same_box() {
        let want = vec![(5, 10), (20, 1)];
        let blocks_v3 = |width: u8| {
            let mut bytes = Vec::new();
            bytes.extend(HYPERSLAB.to_le_bytes());
            bytes.extend(3u32.to_le_bytes());
            bytes.extend([0, width]);
            bytes.extend(2u32.to_le_bytes());
            for number in [1u64, 5, 20, 14, 20] {
                bytes.extend(&number.to_le_bytes()[..usize::from(width)]);
            }
            bytes
        };
        let regular = [[5, 1, 10, 1], [20, 9, 1, 1]];
        for bytes in [
            encode_v1(&want),
            encode_regular(2, 8, &regular),
            encode_regular(3, 2, &regular),
            encode_regular(3, 4, &[[5, 10, 1, 10], [20, 1, 1, 1]]),
            encode_regular(3, 8, &[[5, 5, 2, 5], [20, 1, 1, 1]]),
            blocks_v3(2),
            blocks_v3(4),
            blocks_v3(8),
        ] {
            assert_eq!(boxed(&bytes, 2), Some(want.clone()));
            assert_eq!(decoded(&bytes).unwrap().as_box(), Some(want.clone()));
            assert_eq!(boxed(&bytes, 3), None);
            for cut in 0..bytes.len() {
                assert_eq!(boxed(&bytes[..cut], 2), None);
                assert!(decoded(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn what_is_not_a_box() {
        let strided = encode_regular(3, 2, &[[0, 3, 4, 2]]);
        assert_eq!(boxed(&strided, 1), None);
        let axis = HyperslabAxis {
            start: 0,
            stride: 3,
            count: Some(4),
            block: Some(2),
        };
        assert_eq!(decoded(&strided), Ok(Selection::Regular(vec![axis])));
        assert_eq!(decoded(&strided).unwrap().as_box(), None);

        for (width, unlimited) in [(2, 0xffff), (4, 0xffff_ffff), (8, u64::MAX)] {
            let endless = encode_regular(3, width, &[[0, 8, unlimited, 8]]);
            assert_eq!(boxed(&endless, 1), None);
            let axis = HyperslabAxis {
                start: 0,
                stride: 8,
                count: None,
                block: Some(8),
            };
            assert_eq!(decoded(&endless), Ok(Selection::Regular(vec![axis])));
        }

        for (kind, want) in [(0u32, Selection::None), (3, Selection::All)] {
            let mut bytes = kind.to_le_bytes().to_vec();
            bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(decoded(&bytes), Ok(want));
            assert_eq!(boxed(&bytes, 1), None);
            bytes[4] = 2;
            assert!(decoded(&bytes).is_err());
        }

        let mut points = Vec::new();
        for word in [POINTS, 1, 0, 24, 2, 2, 1, 2, 3, 4] {
            points.extend(word.to_le_bytes());
        }
        let coordinates = vec![1, 2, 3, 4];
        assert_eq!(
            decoded(&points),
            Ok(Selection::Points {
                rank: 2,
                coordinates
            })
        );

        let mut two = encode_v1(&[(0, 4)]);
        two[20] = 2;
        two.extend([8, 0, 0, 0, 9, 0, 0, 0]);
        let corners = vec![0, 3, 8, 9];
        assert_eq!(decoded(&two), Ok(Selection::Blocks { rank: 1, corners }));
        assert_eq!(boxed(&two, 1), None);
    }

    #[test]
    fn damage_is_named() {
        let mut reversed = encode_v1(&[(9, 1)]);
        reversed[24] = 10;
        assert_eq!(boxed(&reversed, 1), None);
        assert_eq!(decoded(&reversed), Err(REVERSED));

        let mut endless = encode_v1(&[(0, 1)]);
        endless[20..24].copy_from_slice(&[0xff; 4]);
        assert_eq!(decoded(&endless), Err("a selection ends early"));

        let mut rank = encode_v1(&[(0, 1)]);
        rank[16] = 33;
        assert_eq!(
            decoded(&rank),
            Err("a selection has no axis, or more than 32")
        );
        let overlapping = encode_regular(3, 4, &[[0, 1, 2, 2]]);
        assert_eq!(
            decoded(&overlapping),
            Err("the blocks of a hyperslab overlap")
        );
        let nothing = encode_regular(3, 4, &[[0, 1, 0, 2]]);
        assert_eq!(decoded(&nothing), Err("a hyperslab selects nothing"));
    }
}
