//! A cursor over the bytes of one structure. Every step is checked; what does not fit is [`H5Error::Damaged`], with the
//! structure's name and place.

use super::{Address, H5Error};

/// Reads little-endian fields one after the other. Offsets and lengths are of 8 bytes, the only width that
/// [`super::H5File`] opens.
#[derive(Debug, Clone)]
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    position: usize,
    structure: &'static str,
    address: Address,
}

impl<'a> Decoder<'a> {
    /// Starts at the first of `bytes`, which lie at `address` and belong to a `structure` of that name in the specification.
    pub(crate) fn new(bytes: &'a [u8], structure: &'static str, address: Address) -> Self {
        Self {
            bytes,
            position: 0,
            structure,
            address,
        }
    }

    /// How many bytes were taken.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// All bytes that are left, without taking them.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// The error that says `what` is wrong with this structure.
    #[cold]
    pub(crate) fn damaged(&self, what: &'static str) -> H5Error {
        H5Error::Damaged {
            structure: self.structure,
            address: self.address,
            what,
        }
    }

    /// The error that says that this structure is of a form (`what`) that is not decoded.
    pub(crate) fn unsupported(&self, what: &'static str) -> H5Error {
        H5Error::Unsupported {
            structure: self.structure,
            address: self.address,
            what,
        }
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], H5Error> {
        let end = self.position.checked_add(len);
        match end.and_then(|end| self.bytes.get(self.position..end)) {
            Some(taken) => {
                self.position += len;
                Ok(taken)
            }
            None => Err(self.damaged("it ends too early")),
        }
    }

    /// Passes over `len` bytes.
    #[inline]
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), H5Error> {
        self.take(len).map(|_| ())
    }

    /// Passes over `signature`, which must come next.
    pub(crate) fn signature(&mut self, signature: &[u8]) -> Result<(), H5Error> {
        if self.take(signature.len())? == signature {
            Ok(())
        } else {
            Err(self.damaged("its signature is missing"))
        }
    }

    /// A number of `N` bytes.
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], H5Error> {
        let mut array = [0u8; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, H5Error> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, H5Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, H5Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, H5Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of `width` bytes, 0 to 8.
    pub(crate) fn uint(&mut self, width: usize) -> Result<u64, H5Error> {
        if width > 8 {
            return Err(self.damaged("it has a number of more than 8 bytes"));
        }
        let mut wide = [0u8; 8];
        wide[..width].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(wide))
    }

    /// An address, defined or not.
    #[inline]
    pub(crate) fn offset(&mut self) -> Result<Address, H5Error> {
        self.u64().map(Address)
    }

    /// A length in bytes, or another number that the format keeps in that width.
    #[inline]
    pub(crate) fn length(&mut self) -> Result<u64, H5Error> {
        self.u64()
    }

    /// The bytes up to the next NUL, which is passed over.
    pub(crate) fn c_string(&mut self) -> Result<&'a [u8], H5Error> {
        match self.rest().iter().position(|&byte| byte == 0) {
            Some(len) => {
                let text = self.take(len)?;
                self.position += 1;
                Ok(text)
            }
            None => Err(self.damaged("a text in it has no end")),
        }
    }
}

/// How many bytes the format spends on a number that is at most `limit` (`H5VM_limit_enc_size`).
pub(crate) fn width_for_limit(limit: u64) -> usize {
    (limit.max(1).ilog2() / 8 + 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_order() {
        let bytes = [1, 2, 0, 3, 0, 0, 0, 4, 5, 6, b'a', b'b', 0, 9];
        let mut decoder = Decoder::new(&bytes, "test", Address(7));
        assert_eq!(decoder.u8().unwrap(), 1);
        assert_eq!(decoder.u16().unwrap(), 2);
        assert_eq!(decoder.u32().unwrap(), 3);
        assert_eq!(decoder.uint(3).unwrap(), 0x06_0504);
        assert_eq!(decoder.c_string().unwrap(), b"ab");
        assert_eq!(decoder.remaining(), 1);
        let error = decoder.u16().unwrap_err().to_string();
        assert_eq!(error, "damaged test at byte 7: it ends too early");
        assert!(decoder.c_string().is_err());
        assert!(decoder.take(usize::MAX).is_err());
        assert_eq!(decoder.u8().unwrap(), 9);
    }

    #[test]
    fn widths() {
        let widths: Vec<usize> = [0, 1, 255, 256, 65_535, 65_536, u64::MAX]
            .map(width_for_limit)
            .to_vec();
        assert_eq!(widths, [1, 1, 1, 2, 2, 3, 8]);
    }
}
