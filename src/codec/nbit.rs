//! Filter 5: only the bits that count of each number, packed (`H5Znbit.c`).
//!
//! A chunk is a stream of bits, most significant first; each number contributes its significant bits from the highest to the lowest, and
//! types that are not numbers all of their bytes. The parameters describe the element's type.

use super::CodecError;
use super::bits::{BitReader, BitWriter};

const FILTER: &str = "nbit";

/// How deep the types of members and of array elements may nest.
const MAX_DEPTH: usize = 32;

/// What the parameters say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nbit {
    /// The type has no bits to spare: the data is stored as it is.
    Untouched,
    /// Each element is packed.
    Packed {
        /// Bytes of one element.
        element_bytes: usize,
        /// What lies in them.
        layout: Layout,
    },
}

/// Which bits of a type count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    Number {
        bytes: usize,
        big_endian: bool,
        /// The lowest bit that counts.
        low: usize,
        /// One more than the highest bit that counts.
        high: usize,
    },
    Array {
        bytes: usize,
        base_bytes: usize,
        base: Box<Layout>,
    },
    Compound {
        bytes: usize,
        /// First byte and layout of each member.
        members: Vec<(usize, Layout)>,
    },
    Bytes {
        bytes: usize,
    },
}

fn bad(what: &'static str) -> CodecError {
    CodecError::BadParameters {
        filter: FILTER,
        what,
    }
}

/// Takes one parameter.
fn next(parameters: &mut &[u32]) -> Result<usize, CodecError> {
    let (first, rest) = parameters.split_first().ok_or(bad("they end early"))?;
    *parameters = rest;
    usize::try_from(*first).map_err(|_| bad("an absurd size"))
}

impl Nbit {
    /// Parameters: their number; whether the type needs no packing; number of elements; and from there on the type.
    pub(super) fn new(parameters: &[u32]) -> Result<Self, CodecError> {
        let mut rest = parameters;
        if next(&mut rest)? != parameters.len() {
            return Err(bad("their number is not the stated one"));
        }
        if next(&mut rest)? != 0 {
            return Ok(Self::Untouched);
        }
        next(&mut rest)?;
        let class = next(&mut rest)?;
        let layout = Layout::parse(class, &mut rest, MAX_DEPTH)?;
        let element_bytes = layout.bytes();
        if element_bytes == 0 {
            return Err(bad("elements of no bytes"));
        }
        Ok(Self::Packed {
            element_bytes,
            layout,
        })
    }

    pub(super) fn decode(&self, input: &[u8], output: &mut [u8]) -> Result<usize, CodecError> {
        let Self::Packed {
            element_bytes,
            layout,
        } = self
        else {
            return super::copy(FILTER, input, output);
        };
        let mut bits = BitReader::new(input);
        let elements = output.chunks_exact_mut(*element_bytes);
        let len = elements.len() * element_bytes;
        for element in elements {
            element.fill(0);
            layout
                .unpack(&mut bits, element)
                .ok_or(CodecError::corrupt(FILTER, "it ends early"))?;
        }
        Ok(len)
    }

    /// `None` where the data are not whole elements, of which the last bytes would be lost.
    pub(super) fn encode(&self, input: &[u8], output: &mut Vec<u8>) -> Option<()> {
        let Self::Packed {
            element_bytes,
            layout,
        } = self
        else {
            output.extend_from_slice(input);
            return Some(());
        };
        if !input.len().is_multiple_of(*element_bytes) {
            return None;
        }
        let mut bits = BitWriter::new(output);
        for element in input.chunks_exact(*element_bytes) {
            layout.pack(&mut bits, element);
        }
        bits.finish();
        // The C library counts one byte more than it needs where the last one is full; it is never read.
        Some(())
    }
}

impl Layout {
    /// `class` 1 is a number, 2 an array, 3 a compound, 4 anything else.
    fn parse(class: usize, rest: &mut &[u32], depth: usize) -> Result<Self, CodecError> {
        let depth = depth.checked_sub(1).ok_or(bad("types nested too deep"))?;
        let bytes = next(rest)?;
        match class {
            1 => {
                let big_endian = match next(rest)? {
                    0 => false,
                    1 => true,
                    _ => return Err(bad("an unknown byte order")),
                };
                let precision = next(rest)?;
                let low = next(rest)?;
                let high = low.checked_add(precision);
                match high {
                    Some(high) if precision > 0 && high <= bytes.saturating_mul(8) => {
                        Ok(Self::Number {
                            bytes,
                            big_endian,
                            low,
                            high,
                        })
                    }
                    _ => Err(bad("a precision that the type has no room for")),
                }
            }
            2 => {
                let class = next(rest)?;
                if class == 4 {
                    next(rest)?;
                    return Ok(Self::Bytes { bytes });
                }
                let base = Self::parse(class, rest, depth)?;
                let base_bytes = base.bytes();
                if base_bytes == 0 || !bytes.is_multiple_of(base_bytes) {
                    return Err(bad("an array that is not whole elements"));
                }
                Ok(Self::Array {
                    bytes,
                    base_bytes,
                    base: Box::new(base),
                })
            }
            3 => {
                let count = next(rest)?;
                let mut members = Vec::new();
                let mut used = 0usize;
                for _ in 0..count {
                    let offset = next(rest)?;
                    let class = next(rest)?;
                    let member = Self::parse(class, rest, depth)?;
                    used = used.saturating_add(member.bytes());
                    let end = offset.checked_add(member.bytes());
                    if member.bytes() == 0 || used > bytes || end.is_none_or(|end| end > bytes) {
                        return Err(bad("a member outside of its compound"));
                    }
                    members.push((offset, member));
                }
                Ok(Self::Compound { bytes, members })
            }
            4 => Ok(Self::Bytes { bytes }),
            _ => Err(bad("an unknown class")),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Number { bytes, .. }
            | Self::Array { bytes, .. }
            | Self::Compound { bytes, .. }
            | Self::Bytes { bytes } => *bytes,
        }
    }

    /// Fills `element`, which is zero and has the layout's length. `None` where the bits end early.
    fn unpack(&self, bits: &mut BitReader, element: &mut [u8]) -> Option<()> {
        match self {
            Self::Number {
                bytes,
                big_endian,
                low,
                high,
            } => {
                for piece in pieces(*low, *high) {
                    let at = if *big_endian {
                        bytes - 1 - piece.byte
                    } else {
                        piece.byte
                    };
                    let [value, ..] = bits.take(piece.count)?.to_le_bytes();
                    *element.get_mut(at)? = value << piece.shift;
                }
            }
            Self::Array {
                base_bytes, base, ..
            } => {
                for part in element.chunks_exact_mut(*base_bytes) {
                    base.unpack(bits, part)?;
                }
            }
            Self::Compound { members, .. } => {
                for (offset, member) in members {
                    member.unpack(bits, element.get_mut(*offset..offset + member.bytes())?)?;
                }
            }
            Self::Bytes { .. } => {
                for byte in element {
                    [*byte, ..] = bits.take(8)?.to_le_bytes();
                }
            }
        }
        Some(())
    }

    /// Appends the bits of `element` that count.
    fn pack(&self, bits: &mut BitWriter, element: &[u8]) {
        match self {
            Self::Number {
                bytes,
                big_endian,
                low,
                high,
            } => {
                for piece in pieces(*low, *high) {
                    let at = if *big_endian {
                        bytes - 1 - piece.byte
                    } else {
                        piece.byte
                    };
                    bits.put(u32::from(element[at] >> piece.shift), piece.count);
                }
            }
            Self::Array {
                base_bytes, base, ..
            } => {
                for part in element.chunks_exact(*base_bytes) {
                    base.pack(bits, part);
                }
            }
            Self::Compound { members, .. } => {
                for (offset, member) in members {
                    member.pack(bits, &element[*offset..offset + member.bytes()]);
                }
            }
            Self::Bytes { .. } => {
                for &byte in element {
                    bits.put(u32::from(byte), 8);
                }
            }
        }
    }
}

/// The part of a number's significant bits that lies in one byte.
struct Piece {
    /// Which byte, from the least significant one.
    byte: usize,
    /// How many bits.
    count: u32,
    /// How far from the byte's lowest bit.
    shift: u32,
}

/// The bits `low..high` byte by byte, the most significant first.
fn pieces(low: usize, high: usize) -> impl Iterator<Item = Piece> {
    let within = |bit: usize| u32::try_from(bit).unwrap_or(8).min(8);
    (low / 8..high.div_ceil(8)).rev().map(move |byte| {
        let shift = within(low.saturating_sub(byte * 8));
        Piece {
            byte,
            count: within(high - byte * 8) - shift,
            shift,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_bits_at_offset_three() {
        // A 16-bit little-endian number whose bits 3 to 14 count.
        let nbit = Nbit::new(&[8, 0, 2, 1, 2, 0, 12, 3]).unwrap();
        let mut packed = Vec::new();
        nbit.encode(
            &[0b1010_1000, 0b0110_0011, 0b0000_1000, 0b0000_0000],
            &mut packed,
        )
        .unwrap();
        assert_eq!(packed, [0b1100_0111, 0b0101_0000, 0b0000_0001]);
        let mut output = [9; 4];
        assert_eq!(nbit.decode(&packed, &mut output), Ok(4));
        assert_eq!(output, [0b1010_1000, 0b0110_0011, 0b0000_1000, 0]);
        assert!(nbit.decode(&packed[..2], &mut output).is_err());
    }

    #[test]
    fn parts_of_elements_are_not_encoded() {
        let nbit = Nbit::new(&[8, 0, 2, 1, 2, 0, 12, 3]).unwrap();
        assert_eq!(nbit.encode(&[1, 2, 3], &mut Vec::new()), None);
    }

    #[test]
    fn hostile_parameters_are_refused() {
        for parameters in [
            &[][..],
            &[9, 0, 2, 1, 2, 0, 12, 3],
            &[8, 0, 2, 1, 2, 0, 12, 5],
            &[8, 0, 2, 1, 2, 0, 0, 5],
            &[8, 0, 2, 1, 2, 7, 12, 3],
            &[6, 0, 2, 2, 8, 3],
            &[11, 0, 2, 3, 4, 1, 2, 1, 4, 0, 32],
            &[6, 0, 2, 3, 4, u32::MAX],
        ] {
            assert!(
                matches!(Nbit::new(parameters), Err(CodecError::BadParameters { .. })),
                "{parameters:?}"
            );
        }
        let mut deep = vec![1000, 0, 1, 2];
        deep.extend((0..498).flat_map(|_| [4, 2]));
        assert_eq!(Nbit::new(&deep), Err(bad("types nested too deep")));
    }
}
