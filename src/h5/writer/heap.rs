//! Encoding collections of the global heap (Specification III.E), as the C library lays them out (`H5HG.c`).

use super::WriteError;
use super::spec::HeapPlace;
use crate::h5::Address;

/// Signature, version, 3 reserved, size of the collection.
const COLLECTION_HEADER_BYTES: usize = 16;
/// Index, number of references, 4 reserved, size of the object.
const OBJECT_HEADER_BYTES: usize = 16;
/// No collection is smaller (`H5HG_MINSIZE`).
const MIN_COLLECTION_BYTES: usize = 4096;
/// Objects begin at multiples of this.
const ALIGNMENT: usize = 8;
/// Highest index of an object (`H5HG_MAXIDX`).
const MAX_INDEX: u16 = u16::MAX;
/// A collection that has reached this size takes no more objects: the library reads a collection as a whole.
pub(super) const FULL_BYTES: usize = 64 * 1024;

/// The beginning of a collection that holds one object of `len_bytes`, and what follows the object; for objects that are too long to share
/// a collection, which then need not be in memory as a whole.
pub(super) fn around_single(len_bytes: u64) -> Result<(Vec<u8>, Vec<u8>), WriteError> {
    let too_large = || WriteError::TooLarge {
        what: "an object of a heap",
        size: len_bytes,
    };
    let headers = (COLLECTION_HEADER_BYTES + OBJECT_HEADER_BYTES) as u64;
    let used = len_bytes
        .checked_add(headers)
        .and_then(|used| used.checked_next_multiple_of(ALIGNMENT as u64))
        .ok_or_else(too_large)?;
    if used < MIN_COLLECTION_BYTES as u64 {
        return Err(too_large());
    }
    let mut before = b"GCOL\x01\0\0\0".to_vec();
    before.extend(used.to_le_bytes());
    before.extend(1u16.to_le_bytes());
    before.extend([0; 6]);
    before.extend(len_bytes.to_le_bytes());
    let padding = usize::try_from(used - headers - len_bytes).map_err(|_| too_large())?;
    Ok((before, vec![0; padding]))
}

/// A collection that is being filled. Its place is known from the beginning, its size only at the end.
#[derive(Debug)]
pub(super) struct CollectionBuilder {
    address: Address,
    bytes: Vec<u8>,
    last_index: u16,
}

impl CollectionBuilder {
    /// An empty collection that will lie at `address`.
    pub(super) fn new(address: Address) -> Self {
        let mut bytes = b"GCOL\x01\0\0\0".to_vec();
        bytes.resize(COLLECTION_HEADER_BYTES, 0);
        Self {
            address,
            bytes,
            last_index: 0,
        }
    }

    /// Whether an object of `len_bytes` belongs into another collection.
    pub(super) fn is_full_for(&self, len_bytes: usize) -> bool {
        self.last_index == MAX_INDEX
            || self.last_index > 0 && self.bytes.len().saturating_add(len_bytes) > FULL_BYTES
    }

    /// Adds an object. There is room for one more (see [`CollectionBuilder::is_full_for`]).
    pub(super) fn add(&mut self, object: &[u8]) -> Result<HeapPlace, WriteError> {
        let index = self.last_index.checked_add(1).ok_or(WriteError::TooLarge {
            what: "the number of objects of a heap collection",
            size: u64::from(MAX_INDEX) + 1,
        })?;
        self.last_index = index;
        self.bytes
            .reserve(OBJECT_HEADER_BYTES + object.len() + ALIGNMENT);
        self.bytes.extend(index.to_le_bytes());
        // Nothing counts references; the library writes 0.
        self.bytes.extend([0; 6]);
        self.bytes.extend((object.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(object);
        let padded = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(padded, 0);
        Ok(HeapPlace {
            address: self.address,
            index: u32::from(index),
        })
    }

    /// The whole collection.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let used = self.bytes.len();
        let size = used.max(MIN_COLLECTION_BYTES);
        self.bytes.resize(size, 0);
        self.bytes[8..16].copy_from_slice(&(size as u64).to_le_bytes());
        let free = size - used;
        // Object 0 is the free space, its own header included; what is too small for one is free all the same.
        if free >= OBJECT_HEADER_BYTES {
            self.bytes[used + 8..used + 16].copy_from_slice(&(free as u64).to_le_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::h5::MetaReader;
    use crate::h5::heap::read_object;

    #[test]
    fn what_is_added_is_read() {
        for lens in [
            vec![],
            vec![0],
            vec![1, 7, 8, 9, 0, 300],
            vec![4096 - 32],
            vec![4096 - 32 - 16],
            vec![4096 - 32 - 8],
            vec![100_000],
            (0..3000).collect(),
        ] {
            let mut builder = CollectionBuilder::new(Address(24));
            let objects: Vec<Vec<u8>> = (1u8..=255)
                .cycle()
                .zip(&lens)
                .map(|(value, &len)| vec![value; len])
                .collect();
            let places: Vec<_> = objects
                .iter()
                .map(|object| builder.add(object).unwrap())
                .collect();
            let collection = builder.finish();
            assert!(collection.len() >= 4096 && collection.len().is_multiple_of(8));
            let file = [vec![0; 24], collection].concat();
            let len = file.len() as u64;
            let reader = MetaReader::new(Arc::new(file), 0, len);
            for (object, place) in objects.iter().zip(places) {
                let read = read_object(&reader, place.address, place.index).unwrap();
                assert_eq!(&*read, object.as_slice());
            }
        }
    }

    #[test]
    fn a_single_object_is_read() {
        for len in [4096 - 32, 4096, 4097, 100_003] {
            let object = vec![7; len];
            let (before, behind) = around_single(len as u64).unwrap();
            let mut builder = CollectionBuilder::new(Address(0));
            builder.add(&object).unwrap();
            assert_eq!([before, object, behind].concat(), builder.finish());
        }
        assert!(around_single(4000).is_err());
        assert!(around_single(u64::MAX - 3).is_err());
    }

    #[test]
    fn a_collection_ends_at_its_last_index() {
        let mut builder = CollectionBuilder::new(Address(0));
        for _ in 0..65_535 {
            builder.add(b"").unwrap();
        }
        assert!(builder.is_full_for(0));
        assert!(matches!(builder.add(b""), Err(WriteError::TooLarge { .. })));
    }
}
