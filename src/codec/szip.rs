//! Filter 4: extended Rice coding as in CCSDS 121.0-B, behind four bytes (little-endian) that state the length of the data (`H5Zszip.c`, and
//! `sz_compat.c`, `decode.c` of libaec).
//!
//! Samples go by scan lines, each of them a whole number of blocks; where it is not, the last sample is repeated in storage. Samples of 32 and 64 bits
//! are coded as bytes, those of equal significance together.

use super::bits::{BitReader, BitWriter};
use super::shuffle::{shuffle, unshuffle};
use super::{CodecError, Workspace, grown};

const FILTER: &str = "szip";

/// The longest scan line that HDF5 makes.
const MAX_LINE: usize = 4096;

/// What the parameters say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Szip {
    /// Bits of a sample as it is coded.
    sample_bits: u32,
    /// Bytes of a sample as it is coded: 1, 2 or 4.
    sample_bytes: usize,
    /// Bytes of the numbers whose bytes are coded apart, 1 where they are not.
    interleave: usize,
    big_endian: bool,
    /// Differences between neighbours are coded, not the samples.
    nearest_neighbour: bool,
    /// Samples of a block.
    block: usize,
    /// Samples of a scan line, without padding.
    line: usize,
}

/// How a block is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// It is zero throughout.
    Zeros,
    /// The number above the low `k` bits in unary, then those bits.
    Split(u32),
    /// As it is.
    Plain,
}

fn early() -> CodecError {
    CodecError::corrupt(FILTER, "it ends early")
}

impl Szip {
    /// Parameters: options (16: big-endian, 32: nearest neighbour), samples of a block, bits of a sample, samples of a scan line.
    pub(super) fn new(parameters: &[u32]) -> Result<Self, CodecError> {
        let bad = |what| CodecError::BadParameters {
            filter: FILTER,
            what,
        };
        let &[options, block, bits, line] = parameters else {
            return Err(bad("not four"));
        };
        let size = |n: u32| usize::try_from(n).map_err(|_| bad("an absurd size"));
        let (block, line) = (size(block)?, size(line)?);
        if !(2..=32).contains(&block) || !block.is_multiple_of(2) {
            return Err(bad("the samples of a block"));
        }
        if !(block..=MAX_LINE).contains(&line) {
            return Err(bad("the samples of a scan line"));
        }
        let (sample_bits, interleave) = match bits {
            1..=24 => (bits, 1),
            32 => (8, 4),
            64 => (8, 8),
            _ => return Err(bad("the bits of a sample")),
        };
        Ok(Self {
            sample_bits,
            sample_bytes: match sample_bits {
                ..=8 => 1,
                9..=16 => 2,
                _ => 4,
            },
            interleave,
            big_endian: options & 16 != 0,
            nearest_neighbour: options & 32 != 0,
            block,
            line,
        })
    }

    /// Bits of a block's identifier.
    fn id_bits(&self) -> u32 {
        match self.sample_bits {
            ..=8 => 3,
            9..=16 => 4,
            _ => 5,
        }
    }

    /// The largest sample.
    fn most(&self) -> u32 {
        u32::MAX >> (32 - self.sample_bits)
    }

    /// Samples of a scan line with its padding.
    fn padded_line(&self) -> usize {
        self.line.next_multiple_of(self.block)
    }

    pub(super) fn decode(
        &self,
        input: &[u8],
        output: &mut [u8],
        work: &mut Workspace,
    ) -> Result<usize, CodecError> {
        let (stated, stream) = input.split_first_chunk::<4>().ok_or_else(early)?;
        let output = usize::try_from(u32::from_le_bytes(*stated))
            .ok()
            .and_then(|len| output.get_mut(..len))
            .ok_or(CodecError::corrupt(FILTER, "longer than the chunk"))?;
        if !output.len().is_multiple_of(self.sample_bytes) {
            return Err(CodecError::corrupt(FILTER, "not whole samples"));
        }
        let mut bits = BitReader::new(stream);
        if self.interleave == 1 {
            self.decode_samples(&mut bits, output)?;
        } else {
            let planes = grown(&mut work.blocks[0], output.len());
            self.decode_samples(&mut bits, planes)?;
            unshuffle(self.interleave, planes, output);
        }
        Ok(output.len())
    }

    fn decode_samples(&self, bits: &mut BitReader, output: &mut [u8]) -> Result<(), CodecError> {
        let mut samples = Vec::with_capacity(self.padded_line());
        for line in output.chunks_mut(self.line * self.sample_bytes) {
            // What pads an incomplete last line need not be there.
            let whole = line.len() == self.line * self.sample_bytes;
            let wanted = if whole {
                self.padded_line()
            } else {
                line.len() / self.sample_bytes
            };
            samples.clear();
            while samples.len() < wanted {
                self.decode_block(bits, &mut samples)
                    .ok_or(CodecError::corrupt(
                        FILTER,
                        "a block that is cut short or out of range",
                    ))?;
            }
            if self.nearest_neighbour {
                self.sum(&mut samples);
            }
            for (bytes, sample) in line.chunks_exact_mut(self.sample_bytes).zip(&samples) {
                if self.big_endian {
                    bytes.copy_from_slice(&sample.to_be_bytes()[4 - self.sample_bytes..]);
                } else {
                    bytes.copy_from_slice(&sample.to_le_bytes()[..self.sample_bytes]);
                }
            }
        }
        Ok(())
    }

    /// Appends one block, or a run of zero blocks, to the line. `None` where the bits end, or the run passes the line's end.
    fn decode_block(&self, bits: &mut BitReader, samples: &mut Vec<u32>) -> Option<()> {
        let first = samples.len();
        let has_reference = self.nearest_neighbour && first == 0;
        let id = bits.take(self.id_bits())?;
        if id == (1 << self.id_bits()) - 1 {
            for _ in 0..self.block {
                samples.push(bits.take(self.sample_bits)?);
            }
            return Some(());
        }
        let second_extension = id == 0 && bits.take(1)? == 1;
        if has_reference {
            samples.push(bits.take(self.sample_bits)?);
        }
        if second_extension {
            while samples.len() < first + self.block {
                let (sum, second) = unpair(bits.take_unary()?)?;
                if samples.len().is_multiple_of(2) {
                    samples.push(sum - second);
                }
                samples.push(second);
            }
        } else if id == 0 {
            let line_blocks = self.padded_line() / self.block;
            let index = first / self.block;
            let blocks = match usize::try_from(bits.take_unary()?).ok()? + 1 {
                // The rest of the segment of 64 blocks.
                5 => (line_blocks - index).min(64 - index % 64),
                n @ ..5 => n,
                n => n - 1,
            };
            if blocks > line_blocks - index {
                return None;
            }
            samples.resize(first + blocks * self.block, 0);
        } else {
            let k = id - 1;
            let start = samples.len();
            for _ in start..first + self.block {
                samples.push(bits.take_unary()?.wrapping_shl(k));
            }
            for sample in &mut samples[start..] {
                *sample |= bits.take(k)?;
            }
        }
        Some(())
    }

    /// Turns differences to the sample before into samples.
    fn sum(&self, samples: &mut [u32]) {
        let most = self.most();
        let middle = most / 2 + 1;
        let Some((&mut first, rest)) = samples.split_first_mut() else {
            return;
        };
        let mut value = first;
        for sample in rest {
            let d = *sample;
            let half = (d >> 1) + (d & 1);
            let mirror = if value & middle == 0 { 0 } else { most };
            value = if half <= mirror ^ value {
                value.wrapping_add(if d & 1 == 0 { d >> 1 } else { !(d >> 1) })
            } else {
                mirror ^ d
            };
            *sample = value;
        }
    }

    /// Turns samples into differences to the one before, the first excepted.
    fn differ(&self, samples: &mut [u32]) {
        let most = self.most();
        for i in (1..samples.len()).rev() {
            let (before, here) = (samples[i - 1], samples[i]);
            samples[i] = if here >= before {
                let d = here - before;
                if d <= before { 2 * d } else { here }
            } else {
                let d = before - here;
                if d <= most - before {
                    2 * d - 1
                } else {
                    most - here
                }
            };
        }
    }

    /// `None` where the result would be longer than the data.
    pub(super) fn encode(
        &self,
        input: &[u8],
        output: &mut Vec<u8>,
        work: &mut Workspace,
    ) -> Option<()> {
        if !input.len().is_multiple_of(self.sample_bytes) {
            return None;
        }
        output.extend_from_slice(&u32::try_from(input.len()).ok()?.to_le_bytes());
        let start = output.len();
        let planes = if self.interleave == 1 {
            input
        } else {
            let planes = grown(&mut work.blocks[0], input.len());
            shuffle(self.interleave, input, planes);
            planes
        };
        let mut bits = BitWriter::new(output);
        for line in planes.chunks(self.line * self.sample_bytes) {
            let mut samples: Vec<u32> = line
                .chunks_exact(self.sample_bytes)
                .map(|bytes| {
                    let fold = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
                    let value = if self.big_endian {
                        bytes.iter().fold(0, fold)
                    } else {
                        bytes.iter().rev().fold(0, fold)
                    };
                    value & self.most()
                })
                .collect();
            let last = if self.nearest_neighbour {
                samples.last().copied()
            } else {
                None
            };
            samples.resize(self.padded_line(), last.unwrap_or(0));
            if self.nearest_neighbour {
                self.differ(&mut samples);
            }
            self.encode_line(&mut bits, &samples);
        }
        bits.finish();
        (output.len() - start <= input.len()).then_some(())
    }

    fn encode_line(&self, bits: &mut BitWriter, samples: &[u32]) {
        let blocks: Vec<(&[u32], Option<u32>, Coding)> = samples
            .chunks_exact(self.block)
            .enumerate()
            .map(|(i, block)| match block {
                [reference, rest @ ..] if self.nearest_neighbour && i == 0 => {
                    (rest, Some(*reference), self.best_coding(rest))
                }
                _ => (block, None, self.best_coding(block)),
            })
            .collect();
        let mut i = 0;
        while let Some(&(block, reference, coding)) = blocks.get(i) {
            let put_reference = |bits: &mut BitWriter| {
                if let Some(reference) = reference {
                    bits.put(reference, self.sample_bits);
                }
            };
            match coding {
                Coding::Zeros => {
                    // A run stays within a segment of 64 blocks.
                    let segment = &blocks[i..blocks.len().min((i / 64 + 1) * 64)];
                    let run = segment.iter().take_while(|b| b.2 == Coding::Zeros).count();
                    bits.put(0, self.id_bits() + 1);
                    put_reference(bits);
                    let run_code = if run < 5 { run - 1 } else { run };
                    bits.put_unary(u32::try_from(run_code).unwrap_or(63));
                    i += run - 1;
                }
                Coding::Split(k) => {
                    bits.put(k + 1, self.id_bits());
                    put_reference(bits);
                    for sample in block {
                        bits.put_unary(sample >> k);
                    }
                    for sample in block {
                        bits.put(*sample, k);
                    }
                }
                Coding::Plain => {
                    bits.put((1 << self.id_bits()) - 1, self.id_bits());
                    put_reference(bits);
                    for sample in block {
                        bits.put(*sample, self.sample_bits);
                    }
                }
            }
            i += 1;
        }
    }

    /// The coding that takes the fewest bits.
    fn best_coding(&self, block: &[u32]) -> Coding {
        if block.iter().all(|&sample| sample == 0) {
            return Coding::Zeros;
        }
        let cost = |k: u32| {
            let unary: u64 = block.iter().map(|&sample| u64::from(sample >> k) + 1).sum();
            unary + u64::from(k) * block.len() as u64
        };
        let ks = 0..=((1 << self.id_bits()) - 3).min(self.sample_bits);
        match ks.map(|k| (cost(k), k)).min() {
            Some((cost, k)) if cost < u64::from(self.sample_bits) * block.len() as u64 => {
                Coding::Split(k)
            }
            _ => Coding::Plain,
        }
    }
}

/// The sum of two samples, and the second, from the number that stands for both (CCSDS 121.0-B, 3.4.3). `None` where it is too large.
fn unpair(code: u32) -> Option<(u32, u32)> {
    /// The largest code that libaec accepts.
    const LARGEST: u32 = 90;
    if code > LARGEST {
        return None;
    }
    let mut sum = 0;
    let mut first = 0;
    while first + sum < code {
        first += sum + 1;
        sum += 1;
    }
    Some((sum, code - first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_go_by_diagonals() {
        let expected = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0)];
        for (code, pair) in (0..).zip(expected) {
            assert_eq!(unpair(code), Some(pair));
        }
        assert_eq!(unpair(90), Some((12, 12)));
        assert_eq!(unpair(91), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let input: Vec<u8> = (0..3000u32)
            .map(|i| {
                if i % 1000 < 600 {
                    7
                } else {
                    (i * i / 50).to_le_bytes()[0]
                }
            })
            .collect();
        for (options, bits) in [
            (32, 8),
            (0, 8),
            (48, 16),
            (32, 16),
            (4, 12),
            (32, 32),
            (48, 64),
            (32, 24),
        ] {
            for (block, line) in [(16, 128), (8, 33), (32, 4096), (2, 2)] {
                let szip = Szip::new(&[options, block, bits, line]).unwrap();
                let mut input = input.clone();
                if bits == 12 {
                    input
                        .iter_mut()
                        .skip(1)
                        .step_by(2)
                        .for_each(|high| *high &= 15);
                } else if bits == 24 {
                    input
                        .iter_mut()
                        .skip(3)
                        .step_by(4)
                        .for_each(|high| *high = 0);
                }
                let mut work = Workspace::default();
                let mut stored = Vec::new();
                // Long enough even where it grows: only the stream matters here.
                let _shrinks = szip.encode(&input, &mut stored, &mut work);
                let mut output = vec![0; input.len()];
                assert_eq!(
                    szip.decode(&stored, &mut output, &mut work),
                    Ok(input.len())
                );
                assert_eq!(output, input, "{options} {bits} {block} {line}");
            }
        }
    }

    #[test]
    fn a_run_beyond_the_line_is_refused() {
        // One line of two blocks; a run of 40 zero blocks.
        let szip = Szip::new(&[0, 8, 8, 16]).unwrap();
        let mut stored = 16u32.to_le_bytes().to_vec();
        let mut bits = BitWriter::new(&mut stored);
        bits.put(0, 4);
        bits.put_unary(40);
        bits.finish();
        let result = szip.decode(&stored, &mut [0; 16], &mut Workspace::default());
        assert!(matches!(result, Err(CodecError::Corrupt { .. })));
    }
}
