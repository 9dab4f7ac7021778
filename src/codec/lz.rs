//! LZF and BloscLZ: two byte-oriented members of one family, each a few dozen lines.
//!
//! Decoders write into the caller's buffer and nowhere else; every length and distance is checked against it.

use super::CodecError;

/// Appends a match: `len` bytes from `distance` back, which may overlap what is written. `None` where it lies outside of `output`.
#[inline]
fn copy_match(output: &mut [u8], at: usize, distance: usize, len: usize) -> Option<usize> {
    /// Short matches are copied by this many bytes, whatever their length, where there is room.
    const WIDE: usize = 16;
    let from = at.checked_sub(distance)?;
    let end = at.checked_add(len)?;
    if end > output.len() {
        return None;
    }
    if distance >= WIDE && end + WIDE <= output.len() {
        let mut done = 0;
        while done < len {
            let piece: [u8; WIDE] = *output.get(from + done..)?.first_chunk()?;
            *output.get_mut(at + done..)?.first_chunk_mut()? = piece;
            done += WIDE;
        }
    } else if distance >= len {
        output.copy_within(from..from + len, at);
    } else if distance == 1 {
        let byte = output[from];
        output[at..end].fill(byte);
    } else {
        for i in from..from + len {
            output[i + distance] = output[i];
        }
    }
    Some(end)
}

/// Appends `len` bytes of `input` from `next` on, and gives where the output ends. `None` where either is too short.
#[inline]
fn copy_literals(
    output: &mut [u8],
    at: usize,
    input: &[u8],
    next: usize,
    len: usize,
) -> Option<usize> {
    /// No run of either format is longer than this.
    const WIDE: usize = 32;
    if let (Some(from), Some(to)) = (
        input.get(next..).and_then(<[u8]>::first_chunk::<WIDE>),
        output
            .get_mut(at..)
            .and_then(<[u8]>::first_chunk_mut::<WIDE>),
    ) {
        *to = *from;
    } else {
        output
            .get_mut(at..at + len)?
            .copy_from_slice(input.get(next..next + len)?);
    }
    Some(at + len)
}

/// LZF, as `liblzf` 3 writes it (Marc Lehmann; `lzf_d.c`). Gives the number of bytes written.
pub(super) fn decode_lzf(input: &[u8], output: &mut [u8]) -> Result<usize, CodecError> {
    lzf_bytes(input, output).ok_or(CodecError::corrupt(
        "lzf",
        "a run or match lies outside of the chunk",
    ))
}

fn lzf_bytes(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let (mut next, mut at) = (0, 0);
    while let Some(&control) = input.get(next) {
        next += 1;
        let control = usize::from(control);
        if control < 32 {
            let len = control + 1;
            at = copy_literals(output, at, input, next, len)?;
            next += len;
        } else {
            let mut len = control >> 5;
            if len == 7 {
                len += usize::from(*input.get(next)?);
                next += 1;
            }
            let distance = ((control & 31) << 8) + usize::from(*input.get(next)?) + 1;
            next += 1;
            at = copy_match(output, at, distance, len + 2)?;
        }
    }
    (next <= input.len() && at <= output.len()).then_some(at)
}

/// BloscLZ, as c-blosc 1 and 2 write it (`blosclz.c`). Gives the number of bytes written.
pub(super) fn decode_blosclz(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let (mut next, mut at) = (1, 0);
    let mut control = usize::from(*input.first()?) & 31;
    loop {
        if control < 32 {
            let len = control + 1;
            at = copy_literals(output, at, input, next, len)?;
            next += len;
        } else {
            let mut len = (control >> 5) + 2;
            if control >> 5 == 7 {
                loop {
                    let more = *input.get(next)?;
                    next += 1;
                    len += usize::from(more);
                    if more != 255 {
                        break;
                    }
                }
            }
            let mut distance = ((control & 31) << 8) + usize::from(*input.get(next)?);
            next += 1;
            if distance == FAR {
                let [high, low] = *input.get(next..)?.first_chunk()?;
                next += 2;
                distance += usize::from(u16::from_be_bytes([high, low]));
            }
            at = copy_match(output, at, distance + 1, len)?;
        }
        match input.get(next) {
            Some(&byte) => control = usize::from(byte),
            None => return (next == input.len() && at <= output.len()).then_some(at),
        }
        next += 1;
    }
}

/// The distance (less one) from which on BloscLZ writes 16 more bits.
const FAR: usize = 8191;

/// How many bits of hash a match is looked up by.
const HASH_BITS: u32 = 14;

/// What differs between the two when they are written.
struct Dialect {
    /// The farthest distance.
    reach: usize,
    /// The longest match.
    longest: usize,
    /// How many bytes at the end must not be a match.
    tail: usize,
    /// Appends a match of `len` bytes (at least 3) from `distance` back.
    put_match: fn(output: &mut Vec<u8>, distance: usize, len: usize),
}

/// Encodes as LZF. `None` where that takes as many bytes as the input has, or more.
pub(super) fn encode_lzf(input: &[u8], output: &mut Vec<u8>) -> Option<()> {
    compress(
        input,
        output,
        &Dialect {
            reach: 1 << 13,
            longest: 7 + 255 + 2,
            tail: 0,
            put_match: |output, distance, len| {
                let [low, high, ..] = (distance - 1).to_le_bytes();
                let code = (len - 2).to_le_bytes()[0];
                if len - 2 < 7 {
                    output.extend([code << 5 | high, low]);
                } else {
                    output.extend([7 << 5 | high, (len - 9).to_le_bytes()[0], low]);
                }
            },
        },
    )
}

/// Encodes as BloscLZ. `None` where that takes as many bytes as the input has, or more.
pub(super) fn encode_blosclz(input: &[u8], output: &mut Vec<u8>) -> Option<()> {
    compress(
        input,
        output,
        &Dialect {
            // A distance of FAR + 1 would be read as a far one.
            reach: FAR,
            longest: usize::MAX,
            // c-blosc reads a match only where more bytes follow it.
            tail: 16,
            put_match: |output, distance, len| {
                let [low, high, ..] = (distance - 1).to_le_bytes();
                if len - 2 < 7 {
                    output.push((len - 2).to_le_bytes()[0] << 5 | high);
                } else {
                    output.push(7 << 5 | high);
                    let mut rest = len - 9;
                    while rest >= 255 {
                        output.push(255);
                        rest -= 255;
                    }
                    output.push(rest.to_le_bytes()[0]);
                }
                output.push(low);
            },
        },
    )
}

/// Greedy matching by a table of the last place of each hash of three bytes.
fn compress(input: &[u8], output: &mut Vec<u8>, dialect: &Dialect) -> Option<()> {
    let start = output.len();
    let limit = start.checked_add(input.len())?;
    // Places are kept plus one, so that zero is none.
    let mut last_place = vec![0u32; 1 << HASH_BITS];
    let matchable = input.len().saturating_sub(dialect.tail);
    let (mut at, mut literals) = (0, 0);
    while let Some(&[a, b, c]) = input[..matchable].get(at..).and_then(<[u8]>::first_chunk) {
        let hash = u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS);
        let slot = &mut last_place[usize::try_from(hash).ok()?];
        let candidate = usize::try_from(*slot).ok()?.checked_sub(1);
        *slot = u32::try_from(at + 1).ok()?;
        let found = candidate.filter(|&from| {
            at - from <= dialect.reach && input.get(from..from + 3) == Some(&[a, b, c])
        });
        let Some(from) = found else {
            at += 1;
            continue;
        };
        let most = dialect.longest.min(matchable - at);
        let len = input[from..]
            .iter()
            .zip(&input[at..at + most])
            .take_while(|(old, new)| old == new)
            .count();
        put_literals(output, &input[literals..at]);
        (dialect.put_match)(output, at - from, len);
        at += len;
        literals = at;
        if output.len() >= limit {
            return None;
        }
    }
    put_literals(output, &input[literals..]);
    (output.len() < limit).then_some(())
}

fn put_literals(output: &mut Vec<u8>, literals: &[u8]) {
    for run in literals.chunks(32) {
        output.push((run.len() - 1).to_le_bytes()[0]);
        output.extend_from_slice(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Vec<u8>> {
        let mut state = 1u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        };
        let mut all = vec![
            vec![0; 100_000],
            b"abcabcabcabcabcabcabcabcabcabcabcabc".to_vec(),
        ];
        all.push(
            (0..40_000)
                .map(|i: u32| (i / 3 % 251).to_le_bytes()[0])
                .collect(),
        );
        let word: Vec<u8> = (0..700).map(|_| noise()).collect();
        all.push((0..60_000).map(|i| word[(i * i / 900) % 700]).collect());
        all
    }

    #[test]
    fn what_is_written_is_read() {
        for input in samples() {
            for (encode, decode) in [
                (
                    encode_lzf as fn(&[u8], &mut Vec<u8>) -> Option<()>,
                    lzf_bytes as fn(&[u8], &mut [u8]) -> Option<usize>,
                ),
                (encode_blosclz, decode_blosclz),
            ] {
                let mut stored = Vec::new();
                encode(&input, &mut stored).unwrap();
                let mut output = vec![1; input.len()];
                assert_eq!(decode(&stored, &mut output), Some(input.len()));
                assert_eq!(output, input);
                let mut short = vec![1; input.len() - 1];
                assert_eq!(decode(&stored, &mut short), None);
            }
        }
    }

    #[test]
    fn noise_is_refused() {
        let mut state = 7u64;
        let input: Vec<u8> = (0..5000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state.to_le_bytes()[7]
            })
            .collect();
        assert_eq!(encode_lzf(&input, &mut Vec::new()), None);
        assert_eq!(encode_blosclz(&input, &mut Vec::new()), None);
    }

    #[test]
    fn lzf_by_hand() {
        let mut output = [0; 9];
        // A literal `ab`, then seven bytes from two back.
        assert_eq!(decode_lzf(&[1, b'a', b'b', 5 << 5, 1], &mut output), Ok(9));
        assert_eq!(&output, b"ababababa");
        for damaged in [
            &[1, b'a'][..],
            &[0, b'a', 5 << 5, 1],
            &[0, b'a', 7 << 5, 255, 0],
        ] {
            assert!(decode_lzf(damaged, &mut output).is_err());
        }
    }
}
