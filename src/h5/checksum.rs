//! The checksum of HDF5's metadata: Bob Jenkins' lookup3 (`hashlittle` with an initial value of zero), as
//! `H5_checksum_lookup3` computes it.

use super::{Address, H5Error};

/// The lookup3 hash of `bytes`. Also what orders the names in a dense group or a dense attribute index.
#[must_use]
pub fn lookup3(bytes: &[u8]) -> u32 {
    let mut hash = Lookup3::new(bytes.len() as u64);
    hash.update(bytes);
    hash.finish()
}

/// The lookup3 hash of bytes that come piece by piece, of which there will be as many as was said.
#[derive(Debug, Clone)]
pub(crate) struct Lookup3 {
    state: (u32, u32, u32),
    /// What was not mixed in yet: the last bytes of all, up to a whole block, are mixed in another way.
    held: [u8; BLOCK_BYTES],
    held_bytes: usize,
}

/// What is mixed in at once.
const BLOCK_BYTES: usize = 12;

impl Lookup3 {
    pub(crate) fn new(len_bytes: u64) -> Self {
        // The hash starts from the length modulo 2^32.
        #[allow(clippy::cast_possible_truncation)]
        let start = 0xdead_beef_u32.wrapping_add(len_bytes as u32);
        Self {
            state: (start, start, start),
            held: [0; BLOCK_BYTES],
            held_bytes: 0,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let mut rest = self.fill(bytes);
        while rest.len() > BLOCK_BYTES {
            rest = self.mix_first(rest);
        }
        self.hold(rest);
    }

    /// Updates two hashes, each with bytes of its own, in the time of one: a block has to wait for the one before it, but not for those
    /// of the other hash.
    pub(crate) fn update_both(a: &mut Self, bytes_a: &[u8], b: &mut Self, bytes_b: &[u8]) {
        let (mut rest_a, mut rest_b) = (a.fill(bytes_a), b.fill(bytes_b));
        while rest_a.len() > BLOCK_BYTES && rest_b.len() > BLOCK_BYTES {
            rest_a = a.mix_first(rest_a);
            rest_b = b.mix_first(rest_b);
        }
        a.update(rest_a);
        b.update(rest_b);
    }

    pub(crate) fn finish(self) -> u32 {
        let (a, b, c) = self.state;
        if self.held_bytes == 0 {
            return c;
        }
        let mut last = self.held;
        last[self.held_bytes..].fill(0);
        let (a, b, c) = added((a, b, c), &last);
        finish(a, b, c)
    }

    /// Makes a whole block of what is held and the first of `bytes`, if more come behind it. What is left of them.
    fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.held_bytes == 0 {
            return bytes;
        }
        let wanted = BLOCK_BYTES - self.held_bytes;
        let (first, rest) = bytes.split_at(wanted.min(bytes.len()));
        self.held[self.held_bytes..][..first.len()].copy_from_slice(first);
        self.held_bytes += first.len();
        if !rest.is_empty() {
            let held = self.held;
            self.mix_in(&held);
            self.held_bytes = 0;
        }
        rest
    }

    #[inline]
    fn mix_first<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match bytes.split_first_chunk() {
            Some((block, rest)) => {
                self.mix_in(block);
                rest
            }
            None => bytes,
        }
    }

    #[inline]
    fn mix_in(&mut self, block: &[u8; BLOCK_BYTES]) {
        let (a, b, c) = added(self.state, block);
        self.state = mix(a, b, c);
    }

    /// Keeps `bytes`, no more than a block, for which there is room unless there are none.
    fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.held[..bytes.len()].copy_from_slice(bytes);
            self.held_bytes = bytes.len();
        }
    }
}

/// A block added to the state, which is to be mixed then.
#[inline]
fn added((a, b, c): (u32, u32, u32), block: &[u8; BLOCK_BYTES]) -> (u32, u32, u32) {
    (
        a.wrapping_add(word(&block[0..4])),
        b.wrapping_add(word(&block[4..8])),
        c.wrapping_add(word(&block[8..12])),
    )
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_hash_like_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            others in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
        ) {
            let (whole, other) = (pieces.concat(), others.concat());
            let mut alone = Lookup3::new(whole.len() as u64);
            let mut together = (alone.clone(), Lookup3::new(other.len() as u64));
            for at in 0..pieces.len().max(others.len()) {
                let piece = pieces.get(at).map_or(&[][..], |piece| piece);
                let other = others.get(at).map_or(&[][..], |piece| piece);
                alone.update(piece);
                Lookup3::update_both(&mut together.0, piece, &mut together.1, other);
            }
            prop_assert_eq!(alone.finish(), lookup3(&whole));
            prop_assert_eq!(together.0.finish(), lookup3(&whole));
            prop_assert_eq!(together.1.finish(), lookup3(&other));
        }
    }

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
