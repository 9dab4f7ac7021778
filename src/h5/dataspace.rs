//! Decoding extents (Specification IV.A.2.b, "Dataspace Message").

use super::decoder::Decoder;
use super::{Address, Dataspace, H5Error};

/// The most axes that HDF5 allows (`H5S_MAX_RANK`).
pub(crate) const MAX_RANK: u8 = 32;

impl Dataspace {
    /// Decodes a dataspace message that lies at `address`. Bytes behind it are padding.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where it is not sound; [`H5Error::Unsupported`] for a version above 2.
    pub fn decode(bytes: &[u8], address: Address) -> Result<Self, H5Error> {
        let mut decoder = Decoder::new(bytes, "dataspace message", address);
        let version = decoder.u8()?;
        let rank = decoder.u8()?;
        let flags = decoder.u8()?;
        let class = decoder.u8()?;
        if rank > MAX_RANK {
            return Err(decoder.damaged("it has more than 32 axes"));
        }
        match (version, class) {
            (1, _) => {
                decoder.skip(4)?;
                if rank == 0 {
                    return Ok(Self::Scalar);
                }
            }
            (2, 0 | 2) if rank != 0 => {
                return Err(decoder.damaged("it has axes although it has no shape"));
            }
            (2, 0) => return Ok(Self::Scalar),
            (2, 2) => return Ok(Self::Null),
            (2, 1) => {}
            (2, _) => return Err(decoder.damaged("its class is unknown")),
            _ => return Err(decoder.unsupported("its version is neither 1 nor 2")),
        }
        let mut shape = Vec::with_capacity(usize::from(rank));
        for _ in 0..rank {
            shape.push(decoder.length()?);
        }
        let mut max_shape = Vec::new();
        if flags & 0x01 != 0 {
            for &extent in &shape {
                let max = decoder.length()?;
                if max < extent {
                    return Err(decoder.damaged("an axis is longer than it may grow"));
                }
                max_shape.push((max != u64::MAX).then_some(max));
            }
        }
        Ok(Self::Simple { shape, max_shape })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Dataspace, H5Error> {
        Dataspace::decode(bytes, Address(0))
    }

    fn with_axes(start: &[u8], axes: &[u64]) -> Vec<u8> {
        let mut bytes = start.to_vec();
        bytes.extend(axes.iter().flat_map(|axis| axis.to_le_bytes()));
        bytes
    }

    #[test]
    fn classes_of_both_versions() {
        assert_eq!(
            decode(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap(),
            Dataspace::Scalar
        );
        assert_eq!(decode(&[2, 0, 0, 0]).unwrap(), Dataspace::Scalar);
        assert_eq!(decode(&[2, 0, 0, 2]).unwrap(), Dataspace::Null);
        let simple = Dataspace::Simple {
            shape: vec![3, 4],
            max_shape: vec![None, Some(4)],
        };
        let axes = [3, 4, u64::MAX, 4];
        let bytes = with_axes(&[1, 2, 1, 0, 0, 0, 0, 0], &axes);
        assert_eq!(decode(&bytes).unwrap(), simple);
        assert_eq!(decode(&with_axes(&[2, 2, 1, 1], &axes)).unwrap(), simple);
        let fixed = decode(&with_axes(&[2, 1, 0, 1], &[7])).unwrap();
        assert_eq!((fixed.shape(), fixed.len()), (&[7u64][..], Some(7)));
    }

    #[test]
    fn what_is_not_sound_is_refused() {
        assert!(decode(&[2, 33, 0, 1]).is_err());
        assert!(decode(&[2, 1, 0, 0]).is_err());
        assert!(decode(&[3, 0, 0, 0]).is_err());
        assert!(decode(&with_axes(&[2, 2, 0, 1], &[7])).is_err());
        assert!(decode(&with_axes(&[2, 1, 1, 1], &[7, 6])).is_err());
        assert!(decode(&[]).is_err());
    }
}
