//! Filter 6: the difference to the chunk's least value, in as few bits as the largest difference needs; floats are first scaled by a power
//! of ten and rounded (`H5Zscaleoffset.c`).
//!
//! Stored: four bytes: how many bits a value has; one: the length of what follows that counts; sixteen: the least value; all little-endian. From
//! byte 21 on a stream of bits, most significant first. As many bits as the type has means that the data follows as it is.

use super::bits::{BitReader, BitWriter};
use super::{CodecError, low_half};

const FILTER: &str = "scaleoffset";

/// Bytes before the stream of bits.
const HEADER_BYTES: usize = 21;

/// What the parameters say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScaleOffset {
    kind: Kind,
    /// 1, 2, 4 or 8; for floats 4 or 8.
    bytes: usize,
    big_endian: bool,
    /// The bits of the fill value, where the dataset has one.
    fill: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Integer {
        signed: bool,
        /// How many bits to keep; 0: as many as are needed.
        keep_bits: u32,
    },
    Float {
        /// How many decimal places to keep.
        places: i32,
    },
}

fn corrupt(what: &'static str) -> CodecError {
    CodecError::corrupt(FILTER, what)
}

impl ScaleOffset {
    /// Parameters: scale type (0 decimal, 2 integer), scale factor, number of elements, class (0 integer, 1 float), bytes, signed, big-endian,
    /// has a fill value, and the fill value in twelve words.
    pub(super) fn new(parameters: &[u32]) -> Result<Self, CodecError> {
        let bad = |what| CodecError::BadParameters {
            filter: FILTER,
            what,
        };
        let parameters: &[u32; 20] = parameters.try_into().map_err(|_| bad("not twenty"))?;
        let &[
            scale,
            factor,
            _,
            class,
            size,
            sign,
            order,
            has_fill,
            fill0,
            fill1,
            ..,
        ] = parameters;
        let factor = factor.cast_signed();
        let kind = match (class, scale, size) {
            (0, 2, 1 | 2 | 4 | 8) => Kind::Integer {
                signed: sign == 1,
                keep_bits: factor.max(0).cast_unsigned(),
            },
            (1, 0, 4 | 8) => Kind::Float { places: factor },
            (1, 1, _) => {
                return Err(CodecError::UnsupportedForm {
                    filter: FILTER,
                    what: "scaling by a power of two",
                });
            }
            _ => return Err(bad("class, size and scale type do not go together")),
        };
        if let Kind::Integer { keep_bits, .. } = kind
            && keep_bits > size * 8
        {
            return Err(bad("more bits than the type has"));
        }
        let bytes = usize::try_from(size).map_err(|_| bad("an absurd size"))?;
        let fill = u64::from(fill0) | u64::from(fill1) << 32;
        Ok(Self {
            kind,
            bytes,
            big_endian: match order {
                0 => false,
                1 => true,
                _ => return Err(bad("an unknown byte order")),
            },
            fill: (has_fill == 1).then_some(fill & mask(size * 8)),
        })
    }

    fn bits(&self) -> u32 {
        u32::try_from(self.bytes * 8).unwrap_or(64)
    }

    /// Whether as many bits are kept as there are, so that nothing is done at all.
    fn is_untouched(&self) -> bool {
        matches!(self.kind, Kind::Integer { keep_bits, .. } if keep_bits == self.bits())
    }

    pub(super) fn decode(&self, input: &[u8], output: &mut [u8]) -> Result<usize, CodecError> {
        if self.is_untouched() {
            return super::copy(FILTER, input, output);
        }
        let (header, data) = input
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(corrupt("it ends early"))?;
        let (bits, header) = header
            .split_first_chunk::<4>()
            .ok_or(corrupt("it ends early"))?;
        let bits = u32::from_le_bytes(*bits);
        let full_bits = self.bits();
        if bits > full_bits {
            return Err(corrupt("more bits than the type has"));
        }
        let mut least = [0; 8];
        let least_bytes = usize::from(header[0]).min(8);
        least[..least_bytes].copy_from_slice(&header[1..=least_bytes]);
        let least = u64::from_le_bytes(least);

        let len = output.len() / self.bytes * self.bytes;
        let output = &mut output[..len];
        if bits == full_bits {
            // Stored in the writer's byte order, which is taken to be little-endian.
            let data = data.get(..len).ok_or(corrupt("it ends early"))?;
            for (to, from) in output
                .chunks_exact_mut(self.bytes)
                .zip(data.chunks_exact(self.bytes))
            {
                self.put(to, load(from));
            }
            return Ok(len);
        }
        let fill = self.fill.map(|fill| (mask(bits), fill));
        let mut reader = BitReader::new(data);
        for element in output.chunks_exact_mut(self.bytes) {
            let value = reader.take_wide(bits).ok_or(corrupt("it ends early"))?;
            let value = match fill {
                Some((marker, fill)) if value == marker => fill,
                _ => self.restore(value, least),
            };
            self.put(element, value);
        }
        Ok(len)
    }

    /// The bits of an element from its difference to the least one.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the C library converts the difference to the element's type just so"
    )]
    fn restore(&self, difference: u64, least: u64) -> u64 {
        match (self.kind, self.bytes) {
            (Kind::Integer { .. }, _) => difference.wrapping_add(least),
            (Kind::Float { places }, 4) => {
                let scale = 10f32.powf(places as f32);
                let least = f32::from_bits(low_half(least));
                let difference = low_half(difference).cast_signed();
                u64::from((difference as f32 / scale + least).to_bits())
            }
            (Kind::Float { places }, _) => {
                let scale = 10f64.powf(f64::from(places));
                (difference.cast_signed() as f64 / scale + f64::from_bits(least)).to_bits()
            }
        }
    }

    /// Writes the low bytes of `value` in the dataset's byte order.
    fn put(&self, element: &mut [u8], value: u64) {
        element.copy_from_slice(&value.to_le_bytes()[..self.bytes]);
        if self.big_endian {
            element.reverse();
        }
    }

    /// `None` where the values cannot be scaled (a NaN, an infinity), or the data are not whole elements: the caller's to store unfiltered.
    pub(super) fn encode(&self, input: &[u8], output: &mut Vec<u8>) -> Option<()> {
        if self.is_untouched() {
            output.extend_from_slice(input);
            return Some(());
        }
        if !input.len().is_multiple_of(self.bytes) {
            return None;
        }
        let values: Vec<u64> = input
            .chunks_exact(self.bytes)
            .map(|element| {
                let mut bytes = [0; 8];
                bytes[..self.bytes].copy_from_slice(element);
                if self.big_endian {
                    bytes[..self.bytes].reverse();
                }
                u64::from_le_bytes(bytes)
            })
            .collect();
        let Scaled {
            bits,
            least,
            values,
        } = match (self.kind, self.bytes) {
            (Kind::Integer { signed, keep_bits }, _) => {
                self.scale_integers(values, signed, keep_bits)
            }
            (Kind::Float { places }, 4) => scale_f32(values, self.fill, places)?,
            (Kind::Float { places }, _) => scale_f64(values, self.fill, places)?,
        };
        let start = output.len();
        output.extend_from_slice(&bits.to_le_bytes());
        output.push(8);
        output.extend_from_slice(&least.to_le_bytes());
        output.resize(start + HEADER_BYTES, 0);
        if bits == self.bits() {
            for value in &values {
                output.extend_from_slice(&value.to_le_bytes()[..self.bytes]);
            }
            return Some(());
        }
        let mut writer = BitWriter::new(output);
        for &value in &values {
            writer.put_wide(value, bits);
        }
        writer.finish();
        // The C library counts one byte more where the last one is full.
        let stated = input.len().checked_mul(usize::try_from(bits).ok()?)? / (self.bytes * 8) + 1;
        output.resize(start + HEADER_BYTES + stated, 0);
        Some(())
    }

    /// Differences of integers, which may be cut to `keep_bits`.
    fn scale_integers(&self, mut values: Vec<u64>, signed: bool, keep_bits: u32) -> Scaled {
        let full_bits = self.bits();
        // Signed numbers order as unsigned ones do once their sign bit is flipped.
        let flip = if signed { 1u64 << (full_bits - 1) } else { 0 };
        let real = values
            .iter()
            .copied()
            .filter(|&value| Some(value) != self.fill);
        let range = real.map(|value| value ^ flip).fold(None, |range, value| {
            let (least, most) = range.unwrap_or((value, value));
            Some((least.min(value), most.max(value)))
        });
        let (least, most) = range.map_or((0, 0), |(least, most)| (least ^ flip, most ^ flip));
        let difference = most.wrapping_sub(least) & mask(full_bits);
        let bits = if keep_bits != 0 {
            keep_bits
        } else if difference > mask(full_bits) - 2 {
            full_bits
        } else {
            // One value more is the marker for the fill value.
            ceil_log2(difference + 1 + u64::from(self.fill.is_some()))
        };
        if bits != full_bits {
            for value in &mut values {
                *value = if Some(*value) == self.fill {
                    mask(bits)
                } else {
                    value.wrapping_sub(least) & mask(bits)
                };
            }
        }
        // Sign-extended, as the C library stores it.
        let spare = 64 - full_bits;
        let least = if keep_bits == 0 && difference > mask(full_bits) - 2 {
            0
        } else if signed {
            ((least << spare).cast_signed() >> spare).cast_unsigned()
        } else {
            least
        };
        Scaled {
            bits,
            least,
            values,
        }
    }
}

/// A chunk ready to be packed.
struct Scaled {
    bits: u32,
    least: u64,
    /// Differences; where `bits` is all that the type has, the values themselves.
    values: Vec<u64>,
}

macro_rules! scale_floats {
    ($name:ident, $float:ty, $int:ty, $uint:ty, $full_bits:literal) => {
        /// Scaled and rounded differences of floats; `None` where a number is not finite.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "the values are checked to fit; the arithmetic is that of the C library, in the element's own type"
        )]
        fn $name(values: Vec<u64>, fill: Option<u64>, places: i32) -> Option<Scaled> {
            let float = |bits: u64| <$float>::from_bits(bits as $uint);
            let fill = fill.map(float);
            let near = (10 as $float).powf(-places as $float);
            let scale = (10 as $float).powf(places as $float);
            let is_fill = |value: $float| fill.is_some_and(|fill| (value - fill).abs() < near);
            if !values.iter().all(|&value| float(value).is_finite()) {
                return None;
            }
            let real = || values.iter().map(|&value| float(value)).filter(|&value| !is_fill(value));
            let least = real().reduce(<$float>::min).unwrap_or(0.0);
            let most = real().reduce(<$float>::max).unwrap_or(0.0);
            let span = (most * scale - least * scale).round();
            if !span.is_finite() {
                return None;
            }
            let raw = || Scaled {
                bits: $full_bits,
                least: 0,
                values: values.clone(),
            };
            if span >= (2 as $float).powi($full_bits - 1) {
                return Some(raw());
            }
            let bits = ceil_log2((span as u64) + 1 + u64::from(fill.is_some()));
            if bits >= $full_bits {
                return Some(raw());
            }
            let scaled = values.iter().map(|&value| {
                let value = float(value);
                if is_fill(value) {
                    mask(bits)
                } else {
                    ((value * scale - least * scale).round() as $int) as u64 & mask(bits)
                }
            });
            Some(Scaled {
                bits,
                least: u64::from(least.to_bits()),
                values: scaled.collect(),
            })
        }
    };
}

scale_floats!(scale_f32, f32, i32, u32, 32);
scale_floats!(scale_f64, f64, i64, u64, 64);

/// The low `bits` ones.
fn mask(bits: u32) -> u64 {
    u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(0)
}

/// The number of bits that tell `count` values apart.
fn ceil_log2(count: u64) -> u32 {
    count
        .checked_sub(1)
        .map_or(0, |most| 64 - most.leading_zeros())
}

/// A little-endian number of up to eight bytes.
fn load(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(head: [u32; 10]) -> [u32; 20] {
        let mut all = [0; 20];
        all[..10].copy_from_slice(&head);
        all
    }

    #[test]
    fn small_differences_take_few_bits() {
        // Signed 16-bit, big-endian, fill value -1.
        let filter = ScaleOffset::new(&parameters([2, 0, 4, 0, 2, 1, 1, 1, 0xffff, 0])).unwrap();
        let input: Vec<u8> = [-300i16, -1, -298, -300]
            .iter()
            .flat_map(|n| n.to_be_bytes())
            .collect();
        let mut stored = Vec::new();
        filter.encode(&input, &mut stored).unwrap();
        assert_eq!(stored[..5], [2, 0, 0, 0, 8]);
        assert_eq!(stored[5..13], (-300i64).to_le_bytes());
        assert_eq!(stored[21..], [0b0011_1000, 0]);
        let mut output = vec![0; 8];
        assert_eq!(filter.decode(&stored, &mut output), Ok(8));
        assert_eq!(output, input);
        assert!(filter.decode(&stored[..21], &mut output).is_err());
        stored[0] = 17;
        assert!(filter.decode(&stored, &mut output).is_err());
    }

    #[test]
    fn the_whole_range_is_stored_as_it_is() {
        let filter = ScaleOffset::new(&parameters([2, 0, 2, 0, 8, 0, 0, 0, 0, 0])).unwrap();
        let input: Vec<u8> = [u64::MAX, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut stored = Vec::new();
        filter.encode(&input, &mut stored).unwrap();
        assert_eq!(stored[0], 64);
        let mut output = vec![0; 16];
        assert_eq!(filter.decode(&stored, &mut output), Ok(16));
        assert_eq!(output, input);
    }

    #[test]
    fn parts_of_elements_are_not_encoded() {
        let scale = ScaleOffset::new(&parameters([2, 0, 2, 0, 4, 1, 0, 0, 0, 0])).unwrap();
        assert_eq!(scale.encode(&[1; 7], &mut Vec::new()), None);
    }

    #[test]
    fn a_nan_is_not_scaled() {
        let filter = ScaleOffset::new(&parameters([0, 2, 1, 1, 4, 0, 0, 0, 0, 0])).unwrap();
        assert_eq!(
            filter.encode(&f32::NAN.to_le_bytes(), &mut Vec::new()),
            None
        );
    }
}
