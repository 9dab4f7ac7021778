//! The checksum of HDF5's metadata: Bob Jenkins' lookup3 (`hashlittle` with an initial value of zero), as
//! `H5_checksum_lookup3` computes it.

use super::{Address, H5Error};

/// The lookup3 hash of `bytes`. Also what orders the names in a dense group or a dense attribute index.
#[must_use]
pub fn lookup3(bytes: &[u8]) -> u32 {
    // The hash starts from the length modulo 2^32.
    #[allow(clippy::cast_possible_truncation)]
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = bytes;
    while rest.len() > 12 {
        let (block, behind) = rest.split_at(12);
        a = a.wrapping_add(word(&block[0..4]));
        b = b.wrapping_add(word(&block[4..8]));
        c = c.wrapping_add(word(&block[8..12]));
        (a, b, c) = mix(a, b, c);
        rest = behind;
    }
    if rest.is_empty() {
        return c;
    }
    let mut last = [0u8; 12];
    last[..rest.len()].copy_from_slice(rest);
    a = a.wrapping_add(word(&last[0..4]));
    b = b.wrapping_add(word(&last[4..8]));
    c = c.wrapping_add(word(&last[8..12]));
    finish(a, b, c)
}

/// Takes off the checksum that `bytes` end with and holds it against what comes before it.
///
/// # Errors
/// [`H5Error::Damaged`] where the two differ or the bytes are fewer than four.
pub(crate) fn verified<'a>(
    bytes: &'a [u8],
    structure: &'static str,
    address: Address,
) -> Result<&'a [u8], H5Error> {
    let split = bytes.len().checked_sub(4).map(|at| bytes.split_at(at));
    match split {
        Some((body, stored)) if matches(body, word(stored)) => Ok(body),
        _ => Err(H5Error::Damaged {
            structure,
            address,
            what: "its checksum does not match",
        }),
    }
}

/// Whether `stored` is the checksum of `bytes`.
pub(crate) fn matches(bytes: &[u8], stored: u32) -> bool {
    #[cfg(any(test, fuzzing))]
    if testing::ALL_MATCH.get() {
        return true;
    }
    lookup3(bytes) == stored
}

fn word(bytes: &[u8]) -> u32 {
    let mut word = [0u8; 4];
    word.copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn finish(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// For tests of what lies behind the checksums: who damages a file on purpose makes them match.
#[cfg(any(test, fuzzing))]
pub(crate) mod testing {
    use std::cell::Cell;

    thread_local! {
        pub(super) static ALL_MATCH: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `body` with every checksum taken for right.
    pub(crate) fn with_all_matching<T>(body: impl FnOnce() -> T) -> T {
        ALL_MATCH.set(true);
        let result = body();
        ALL_MATCH.set(false);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        // From `driver5` of Jenkins' lookup3.c, and the vectors of HDF5's test/tchecksum.c.
        assert_eq!(lookup3(b""), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
        assert_eq!(lookup3(&[0]), 0x8ba9_414b);
        assert_eq!(lookup3(&[23]), 0xa209_c931);
    }

    #[test]
    fn a_wrong_checksum_is_damage() {
        let mut block = b"some metadata".to_vec();
        let sum = lookup3(&block);
        block.extend(sum.to_le_bytes());
        assert_eq!(
            verified(&block, "block", Address(0)).unwrap(),
            b"some metadata"
        );
        block[3] ^= 0x10;
        assert!(verified(&block, "block", Address(0)).is_err());
        assert!(verified(b"abc", "block", Address(0)).is_err());
    }
}
