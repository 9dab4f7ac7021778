//! Filter 3: a checksum after the data.
//!
//! The sum is HDF5's own variant (`H5_checksum_fletcher32`): 16-bit words, most significant byte first, both sums begin at zero.

use super::CodecError;

/// Bytes of the checksum.
pub(super) const LEN_BYTES: usize = 4;

/// The data in front of the checksum, which is verified.
///
/// Releases before 1.6.3 summed little-endian words on little-endian machines; that sum, which is the right one with the
/// bytes of each half exchanged, is accepted too, as the C library does.
pub(super) fn verify(input: &[u8]) -> Result<&[u8], CodecError> {
    let (data, stored) = input
        .split_last_chunk::<LEN_BYTES>()
        .ok_or(CodecError::corrupt("fletcher32", "no room for a checksum"))?;
    let stored = u32::from_le_bytes(*stored);
    let computed = checksum(data);
    let [a, b, c, d] = computed.to_le_bytes();
    if stored == computed || stored == u32::from_le_bytes([b, a, d, c]) {
        Ok(data)
    } else {
        Err(CodecError::Checksum { stored, computed })
    }
}

/// Appends `input` and its checksum to `output`.
pub(super) fn encode(input: &[u8], output: &mut Vec<u8>) {
    output.extend_from_slice(input);
    output.extend_from_slice(&checksum(input).to_le_bytes());
}

/// The most words whose second sum cannot overflow 32 bits.
const WORDS_PER_REDUCTION: usize = 360;

fn checksum(data: &[u8]) -> u32 {
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let (words, odd) = data.as_chunks::<2>();
    let (mut sum1, mut sum2) = (0u32, 0u32);
    for run in words.chunks(WORDS_PER_REDUCTION) {
        for word in run {
            sum1 += u32::from(u16::from_be_bytes(*word));
            sum2 += sum1;
        }
        sum1 = fold(sum1);
        sum2 = fold(sum2);
    }
    if let [byte] = odd {
        sum1 += u32::from(*byte) << 8;
        sum2 += sum1;
        sum1 = fold(sum1);
        sum2 = fold(sum2);
    }
    (fold(sum2) << 16) | fold(sum1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_found() {
        let mut stored = Vec::new();
        encode(b"seven b", &mut stored);
        assert_eq!(verify(&stored), Ok(&b"seven b"[..]));
        stored[2] ^= 1;
        assert!(matches!(verify(&stored), Err(CodecError::Checksum { .. })));
        assert!(matches!(verify(b"abc"), Err(CodecError::Corrupt { .. })));
    }

    #[test]
    fn the_sum_of_old_releases_is_accepted() {
        let mut stored = Vec::new();
        encode(b"eight by", &mut stored);
        let [.., a, b, c, d] = &mut stored[..] else {
            unreachable!()
        };
        (*a, *b, *c, *d) = (*b, *a, *d, *c);
        assert_eq!(verify(&stored), Ok(&b"eight by"[..]));
    }

    /// Many maximal words: the sums are folded before they can overflow.
    #[test]
    fn long_runs_of_large_words_do_not_overflow() {
        assert_eq!(checksum(&vec![0xff; 100_001]) & 0xffff, 0xff00);
    }
}
