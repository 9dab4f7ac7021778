//! Bit streams, most significant bit first, as szip, nbit and scale-offset write them.

/// Takes bits from a slice.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    next: usize,
    /// The low `held` bits are those that were fetched and not yet taken; those above are zero.
    window: u64,
    held: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            next: 0,
            window: 0,
            held: 0,
        }
    }

    /// Fetches whole bytes until at least 56 bits are held or the bytes end.
    fn refill(&mut self) {
        while self.held <= 55 {
            let Some(&byte) = self.bytes.get(self.next) else {
                break;
            };
            self.window = (self.window << 8) | u64::from(byte);
            self.held += 8;
            self.next += 1;
        }
    }

    /// The next `count` bits (at most 32) as a number, or `None` where the bytes end before.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32);
        if self.held < count {
            self.refill();
            if self.held < count {
                return None;
            }
        }
        self.held -= count;
        let value = self.window >> self.held;
        self.window &= (1u64 << self.held) - 1;
        u32::try_from(value).ok()
    }

    /// The next `count` bits (at most 64) as a number, or `None` where the bytes end before.
    pub(super) fn take_wide(&mut self, count: u32) -> Option<u64> {
        if count <= 32 {
            return self.take(count).map(u64::from);
        }
        let high = u64::from(self.take(count - 32)?);
        Some((high << 32) | u64::from(self.take(32)?))
    }

    /// Counts the zeros before the next one bit, and takes them all.
    pub(super) fn take_unary(&mut self) -> Option<u32> {
        let mut zeros = 0u32;
        loop {
            if self.window != 0 {
                let lead = self.window.leading_zeros() - (64 - self.held);
                self.held -= lead + 1;
                self.window &= (1u64 << self.held) - 1;
                return zeros.checked_add(lead);
            }
            zeros = zeros.checked_add(self.held)?;
            self.held = 0;
            self.refill();
            if self.held == 0 {
                return None;
            }
        }
    }
}

/// Appends bits to a vector.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    window: u64,
    held: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self {
            bytes,
            window: 0,
            held: 0,
        }
    }

    /// Appends the low `count` bits (at most 32) of `value`.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        debug_assert!(count <= 32);
        self.window = (self.window << count) | (u64::from(value) & ((1u64 << count) - 1));
        self.held += count;
        while self.held >= 8 {
            self.held -= 8;
            self.bytes.push((self.window >> self.held).to_le_bytes()[0]);
        }
        self.window &= (1u64 << self.held) - 1;
    }

    /// Appends the low `count` bits (at most 64) of `value`.
    pub(super) fn put_wide(&mut self, value: u64, count: u32) {
        if count > 32 {
            self.put(super::low_half(value >> 32), count - 32);
        }
        self.put(super::low_half(value), count.min(32));
    }

    /// Appends `zeros` zeros and a one.
    pub(super) fn put_unary(&mut self, mut zeros: u32) {
        while zeros > 31 {
            self.put(0, 31);
            zeros -= 31;
        }
        self.put(1, zeros + 1);
    }

    /// Fills the last byte with zeros.
    pub(super) fn finish(mut self) {
        if self.held > 0 {
            self.put(0, 8 - self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        writer.put(0b101, 3);
        writer.put_unary(70);
        writer.put_wide(0x0123_4567_89ab_cdef, 64);
        writer.put(u32::MAX, 32);
        writer.put(0, 0);
        writer.put_unary(0);
        writer.finish();
        assert_eq!(bytes.len(), (3usize + 71 + 64 + 32 + 1).div_ceil(8));

        let mut reader = BitReader::new(&bytes);
        assert_eq!(reader.take(3), Some(0b101));
        assert_eq!(reader.take_unary(), Some(70));
        assert_eq!(reader.take_wide(64), Some(0x0123_4567_89ab_cdef));
        assert_eq!(reader.take(32), Some(u32::MAX));
        assert_eq!(reader.take_unary(), Some(0));
        assert_eq!(reader.take(5), Some(0));
        assert_eq!(reader.take(1), None);
        assert_eq!(reader.take_unary(), None);
    }
}
