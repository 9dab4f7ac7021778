//! Filter 2 and the transposition under bitshuffle, Blosc and Blosc2: bytes (or bits) of equal significance lie together.
//!
//! Decoding gathers up to eight planes at a time, by pairs: bytes to 16-bit, 16-bit to 32-bit, 32-bit to 64-bit words. Each
//! of these passes is a plain loop over a tile that stays in the first-level cache, which the compiler turns into vector
//! code on every architecture.

/// Elements per tile.
const TILE: usize = 256;

/// Undoes the byte shuffle of `input` into `output`, which are of one length. Bytes beyond a whole number of elements are copied.
pub(super) fn unshuffle(element_bytes: usize, input: &[u8], output: &mut [u8]) {
    assert_eq!(input.len(), output.len(), "a shuffle keeps the length");
    let count = input.len().checked_div(element_bytes).unwrap_or(0);
    if element_bytes <= 1 || count <= 1 {
        output.copy_from_slice(input);
        return;
    }
    let (planes, rest) = input.split_at(count * element_bytes);
    let (elements, tail) = output.split_at_mut(count * element_bytes);
    tail.copy_from_slice(rest);

    let mut first = 0;
    for tile in elements.chunks_mut(TILE * element_bytes) {
        let len = tile.len() / element_bytes;
        let plane = |p: usize| &planes[p * count + first..][..len];
        let mut p = 0;
        while p < element_bytes {
            p += match element_bytes - p {
                8.. => gather8(
                    std::array::from_fn(|i| plane(p + i)),
                    tile,
                    element_bytes,
                    p,
                ),
                4..8 => gather4(
                    std::array::from_fn(|i| plane(p + i)),
                    tile,
                    element_bytes,
                    p,
                ),
                2..4 => gather2(
                    std::array::from_fn(|i| plane(p + i)),
                    tile,
                    element_bytes,
                    p,
                ),
                _ => {
                    for (element, &byte) in tile.chunks_exact_mut(element_bytes).zip(plane(p)) {
                        element[p] = byte;
                    }
                    1
                }
            };
        }
        first += len;
    }
}

fn pair_bytes(low: &[u8], high: &[u8], words: &mut [u16; TILE]) {
    for ((word, &low), &high) in words.iter_mut().zip(low).zip(high) {
        *word = u16::from(low) | u16::from(high) << 8;
    }
}

fn pair_words(low: &[u16; TILE], high: &[u16; TILE], len: usize, words: &mut [u32; TILE]) {
    for ((word, &low), &high) in words[..len].iter_mut().zip(low).zip(high) {
        *word = u32::from(low) | u32::from(high) << 16;
    }
}

/// Writes word after word at byte `at` of element after element.
fn scatter<const N: usize>(
    words: impl Iterator<Item = [u8; N]>,
    tile: &mut [u8],
    element_bytes: usize,
    at: usize,
) -> usize {
    if element_bytes == N {
        for (element, word) in tile.as_chunks_mut::<N>().0.iter_mut().zip(words) {
            *element = word;
        }
    } else {
        for (element, word) in tile.chunks_exact_mut(element_bytes).zip(words) {
            element[at..at + N].copy_from_slice(&word);
        }
    }
    N
}

fn gather2(planes: [&[u8]; 2], tile: &mut [u8], element_bytes: usize, at: usize) -> usize {
    let mut words = [0u16; TILE];
    pair_bytes(planes[0], planes[1], &mut words);
    let words = words.iter().map(|word| word.to_le_bytes());
    scatter(words.take(planes[0].len()), tile, element_bytes, at)
}

fn words4(planes: [&[u8]; 4]) -> [u32; TILE] {
    let (mut low, mut high) = ([0u16; TILE], [0u16; TILE]);
    pair_bytes(planes[0], planes[1], &mut low);
    pair_bytes(planes[2], planes[3], &mut high);
    let mut words = [0u32; TILE];
    pair_words(&low, &high, planes[0].len(), &mut words);
    words
}

fn gather4(planes: [&[u8]; 4], tile: &mut [u8], element_bytes: usize, at: usize) -> usize {
    let words = words4(planes);
    let words = words.iter().map(|word| word.to_le_bytes());
    scatter(words.take(planes[0].len()), tile, element_bytes, at)
}

fn gather8(planes: [&[u8]; 8], tile: &mut [u8], element_bytes: usize, at: usize) -> usize {
    let half = |first: usize| words4(std::array::from_fn(|i| planes[first + i]));
    let (low, high) = (half(0), half(4));
    let words = low.iter().zip(&high);
    let words = words.map(|(&low, &high)| (u64::from(low) | u64::from(high) << 32).to_le_bytes());
    scatter(words.take(planes[0].len()), tile, element_bytes, at)
}

/// Shuffles the bytes of `input` into `output`, which are of one length.
pub(super) fn shuffle(element_bytes: usize, input: &[u8], output: &mut [u8]) {
    assert_eq!(input.len(), output.len(), "a shuffle keeps the length");
    let count = input.len().checked_div(element_bytes).unwrap_or(0);
    if element_bytes <= 1 || count <= 1 {
        output.copy_from_slice(input);
        return;
    }
    let (elements, rest) = input.split_at(count * element_bytes);
    let (planes, tail) = output.split_at_mut(count * element_bytes);
    tail.copy_from_slice(rest);

    let mut first = 0;
    for tile in elements.chunks(TILE * element_bytes) {
        let len = tile.len() / element_bytes;
        for p in 0..element_bytes {
            let plane = &mut planes[p * count + first..][..len];
            for (byte, element) in plane.iter_mut().zip(tile.chunks_exact(element_bytes)) {
                *byte = element[p];
            }
        }
        first += len;
    }
}

/// Undoes the bit shuffle of a whole multiple of eight elements: row `8 * byte + bit` holds that bit of element after element, the first
/// in the lowest bit of the row's first byte (`bshuf_untrans_bit_elem` of the bitshuffle library). `work` is as long as the other two.
pub(super) fn bit_unshuffle(
    element_bytes: usize,
    input: &[u8],
    output: &mut [u8],
    work: &mut [u8],
) {
    let count = input.len().checked_div(element_bytes).unwrap_or(0);
    assert_eq!(count % 8, 0, "bits are shuffled by eight elements");
    assert_eq!(count * element_bytes, input.len(), "whole elements");
    if count == 0 {
        return;
    }
    for (rows, plane) in input.chunks_exact(count).zip(work.chunks_exact_mut(count)) {
        unshuffle(8, rows, plane);
        for word in plane.as_chunks_mut::<8>().0 {
            *word = transpose_bits(u64::from_le_bytes(*word)).to_le_bytes();
        }
    }
    unshuffle(element_bytes, &work[..input.len()], output);
}

/// Shuffles the bits of a whole multiple of eight elements; see [`bit_unshuffle`].
pub(super) fn bit_shuffle(element_bytes: usize, input: &[u8], output: &mut [u8], work: &mut [u8]) {
    let count = input.len().checked_div(element_bytes).unwrap_or(0);
    assert_eq!(count % 8, 0, "bits are shuffled by eight elements");
    assert_eq!(count * element_bytes, input.len(), "whole elements");
    if count == 0 {
        return;
    }
    let work = &mut work[..input.len()];
    shuffle(element_bytes, input, work);
    for (plane, rows) in work
        .chunks_exact_mut(count)
        .zip(output.chunks_exact_mut(count))
    {
        for word in plane.as_chunks_mut::<8>().0 {
            *word = transpose_bits(u64::from_le_bytes(*word)).to_le_bytes();
        }
        shuffle(8, plane, rows);
    }
}

/// Transposes eight bytes as a matrix of bits (Warren, Hacker's Delight, 7-3). Its own inverse.
fn transpose_bits(mut x: u64) -> u64 {
    let swap = |x: u64, shift: u32, mask: u64| {
        let t = (x ^ (x >> shift)) & mask;
        x ^ t ^ (t << shift)
    };
    x = swap(x, 7, 0x00aa_00aa_00aa_00aa);
    x = swap(x, 14, 0x0000_cccc_0000_cccc);
    swap(x, 28, 0x0000_0000_f0f0_f0f0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| (i * 31 + i / 7).to_le_bytes()[0])
            .collect()
    }

    /// Against the definition, for every element size up to 33 and lengths around the tile's edge.
    #[test]
    fn bytes_of_equal_significance_lie_together() {
        for element in 1..=33 {
            for count in [0, 1, 2, 7, 255, 256, 257, 700] {
                let input = sample(element * count + element / 2);
                let mut shuffled = vec![0; input.len()];
                shuffle(element, &input, &mut shuffled);
                if count > 1 {
                    for i in 0..count {
                        for j in 0..element {
                            assert_eq!(shuffled[j * count + i], input[i * element + j]);
                        }
                    }
                }
                let mut back = vec![0; input.len()];
                unshuffle(element, &shuffled, &mut back);
                assert_eq!(back, input, "element of {element}, {count} of them");
            }
        }
    }

    #[test]
    fn bits_of_equal_significance_lie_together() {
        for element in [1, 2, 3, 4, 8, 12, 16] {
            for count in [0, 8, 256, 264] {
                let input = sample(element * count);
                let mut work = vec![0; input.len()];
                let mut shuffled = vec![0; input.len()];
                bit_shuffle(element, &input, &mut shuffled, &mut work);
                for i in 0..count {
                    for bit in 0..element * 8 {
                        let row = &shuffled[bit * count / 8..];
                        assert_eq!(
                            row[i / 8] >> (i % 8) & 1,
                            input[i * element + bit / 8] >> (bit % 8) & 1
                        );
                    }
                }
                let mut back = vec![0; input.len()];
                bit_unshuffle(element, &shuffled, &mut back, &mut work);
                assert_eq!(back, input);
            }
        }
    }
}
