//! The global heap (Specification III.E): collections of objects, to which variable-length elements and virtual datasets point.
//!
//! A collection is not checksummed, so an object is believed only as far as it lies inside its collection, and the collection inside
//! the file. Strings point here by the million, mostly into the same few collections; [`HeapReader`] keeps those.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use quick_cache::unsync::Cache;

use super::decoder::Decoder;
use super::{Address, H5Error, MetaBytes, MetaReader};

const COLLECTION: &str = "global heap collection";
/// Signature, version, 3 reserved, size of the collection.
const COLLECTION_HEADER_BYTES: u64 = 16;
/// Index, number of references, 4 reserved, size of the object.
const OBJECT_HEADER_BYTES: u64 = 16;
/// No collection is smaller (`H5HG_MINSIZE`).
const MIN_COLLECTION_BYTES: u64 = 4096;
/// Objects begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// An index has 16 bits, and 0 is the free space behind the objects.
const MAX_OBJECTS: usize = 65_535;
/// Up to this length, a collection is read as a whole by whoever asks where its objects are.
const SHORT_COLLECTION_BYTES: u64 = 64 << 10;
/// A collection of more than this part of a [`HeapReader`]'s capacity is not kept, only where its objects are.
const MAX_KEPT_PART: u64 = 4;

/// Where a variable-length element's bytes are (Specification IV.A.2.d, class 9), as it is stored in place of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlenReference {
    /// Number of elements of the base type; for a string, of bytes.
    pub length: u32,
    /// The heap collection; 0 or undefined where the element is empty.
    pub collection: Address,
    /// The object in that collection.
    pub index: u32,
}

impl VlenReference {
    /// Bytes of a stored reference.
    pub const STORED_BYTES: usize = 16;

    /// Takes a stored reference apart.
    #[must_use]
    pub fn decode(stored: &[u8; Self::STORED_BYTES]) -> Self {
        let [
            l0,
            l1,
            l2,
            l3,
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            i0,
            i1,
            i2,
            i3,
        ] = *stored;
        Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            collection: Address(u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7])),
            index: u32::from_le_bytes([i0, i1, i2, i3]),
        }
    }

    /// Whether it points to nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0 || self.collection.0 == 0 || !self.collection.is_defined()
    }
}

/// The bytes of object `index` of the collection at `collection`, without the rest of the collection.
///
/// # Errors
/// [`H5Error::Damaged`] where the collection is not sound as far as that object, or has no such object; whatever reading says.
pub fn read_object(
    reader: &MetaReader,
    collection: Address,
    index: u32,
) -> Result<MetaBytes, H5Error> {
    let (address, len_bytes) = find_object(reader, collection, index)?;
    reader.read(address, len_bytes)
}

/// Where object `index` of the collection at `collection` begins, and how many bytes it has; all of them are in the file.
///
/// # Errors
/// As for [`read_object`].
pub fn find_object(
    reader: &MetaReader,
    collection: Address,
    index: u32,
) -> Result<(Address, u64), H5Error> {
    let mut found = None;
    let mut is_twice = false;
    walk_objects(reader, collection, &mut |object| {
        if u32::from(object.index) == index {
            is_twice = found.replace((object.address, object.len_bytes)).is_some();
        }
        !is_twice
    })?;
    if is_twice {
        return Err(H5Error::Damaged {
            structure: COLLECTION,
            address: collection,
            what: "two of its objects have one index",
        });
    }
    found.ok_or_else(|| no_object(collection))
}

/// An object as the walk over a collection meets it.
struct Object {
    index: u16,
    address: Address,
    len_bytes: u64,
}

/// Calls `each` with every object of a collection until that says `false`, reading their headers alone.
fn walk_objects(
    reader: &MetaReader,
    collection: Address,
    each: &mut dyn FnMut(Object) -> bool,
) -> Result<(), H5Error> {
    let damaged = |what| H5Error::Damaged {
        structure: COLLECTION,
        address: collection,
        what,
    };
    let size_bytes = read_collection_size(reader, collection)?;
    let mut position = COLLECTION_HEADER_BYTES;
    for _ in 0..MAX_OBJECTS {
        if size_bytes - position < OBJECT_HEADER_BYTES {
            return Ok(());
        }
        // The collection lies in the file, so no sum of its address and a position in it overflows.
        let header = reader.read(Address(collection.0 + position), OBJECT_HEADER_BYTES)?;
        let mut decoder = Decoder::new(&header, COLLECTION, collection);
        let index = decoder.u16()?;
        decoder.skip(6)?;
        let len_bytes = decoder.length()?;
        if index == 0 {
            // The C library reads on behind free space that ends too early, and forever behind one of no length.
            return if len_bytes == size_bytes - position {
                Ok(())
            } else {
                Err(damaged("its free space does not reach to its end"))
            };
        }
        position += OBJECT_HEADER_BYTES;
        if len_bytes > size_bytes - position {
            return Err(damaged("an object does not fit into it"));
        }
        let object = Object {
            index,
            address: Address(collection.0 + position),
            len_bytes,
        };
        if !each(object) {
            return Ok(());
        }
        // The padding of the last object may be cut off.
        position = size_bytes.min(position + len_bytes.next_multiple_of(ALIGNMENT));
    }
    Err(damaged("it has more objects than there are indexes"))
}

/// Bytes of the collection, its header included; all of them are in the file.
fn read_collection_size(reader: &MetaReader, collection: Address) -> Result<u64, H5Error> {
    let header = reader.read(collection, COLLECTION_HEADER_BYTES)?;
    let mut decoder = Decoder::new(&header, COLLECTION, collection);
    decoder.signature(b"GCOL")?;
    if decoder.u8()? != 1 {
        return Err(decoder.unsupported("its version is not 1"));
    }
    decoder.skip(3)?;
    let size_bytes = decoder.length()?;
    if size_bytes < MIN_COLLECTION_BYTES {
        return Err(decoder.damaged("it is smaller than any collection"));
    }
    reader.file_offset(collection, size_bytes)?;
    Ok(size_bytes)
}

fn no_object(collection: Address) -> H5Error {
    H5Error::Damaged {
        structure: COLLECTION,
        address: collection,
        what: "an object that is pointed to is not in it",
    }
}

/// Reads many objects, keeping the collections that they are in.
///
/// What it keeps is what the file held then, as for [`MetaReader`].
#[derive(Debug)]
pub struct HeapReader<'a> {
    reader: &'a MetaReader,
    max_kept_bytes: u64,
    collections: Cache<Address, Arc<Collection>, CollectionWeight>,
    /// The one asked for last: neighbours in a dataset mostly share a collection.
    last: Option<(Address, Arc<Collection>)>,
}

/// A collection of which it is known where its objects are.
#[derive(Debug)]
struct Collection {
    /// Its length.
    size_bytes: u64,
    /// Its bytes; none where it is too large to be kept, or was not read from yet.
    bytes: Option<Box<[u8]>>,
    /// Sorted by index, no index twice.
    objects: Vec<ObjectPlace>,
}

#[derive(Debug, Clone, Copy)]
struct ObjectPlace {
    index: u16,
    /// First byte, from the beginning of the collection.
    start: u64,
    len_bytes: u64,
}

#[derive(Debug, Clone)]
struct CollectionWeight;

impl quick_cache::Weighter<Address, Arc<Collection>> for CollectionWeight {
    fn weight(&self, _: &Address, collection: &Arc<Collection>) -> u64 {
        let bytes = collection.bytes.as_ref().map_or(0, |bytes| bytes.len());
        (bytes + size_of_val(collection.objects.as_slice()) + size_of::<Collection>()) as u64
    }
}

impl<'a> HeapReader<'a> {
    /// Keeps at most `capacity_bytes` of collections.
    #[must_use]
    pub fn new(reader: &'a MetaReader, capacity_bytes: u64) -> Self {
        let typical = usize::try_from(capacity_bytes / MIN_COLLECTION_BYTES).unwrap_or(usize::MAX);
        Self {
            reader,
            max_kept_bytes: capacity_bytes / MAX_KEPT_PART,
            collections: Cache::with_weighter(
                typical.clamp(1, 4096),
                capacity_bytes,
                CollectionWeight,
            ),
            last: None,
        }
    }

    /// The bytes of object `index` of the collection at `address`.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where the collection is not sound or has no such object; whatever reading says.
    pub fn read(&mut self, address: Address, index: u32) -> Result<Cow<'_, [u8]>, H5Error> {
        let reader = self.reader;
        let collection = self.collection(address, self.max_kept_bytes)?;
        let place = collection.find(index).ok_or_else(|| no_object(address))?;
        if let (Some(bytes), Some(range)) = (&collection.bytes, place.range()) {
            let object = bytes.get(range).ok_or_else(|| no_object(address))?;
            return Ok(Cow::Borrowed(object));
        }
        let start = Address(address.0.saturating_add(place.start));
        let object = reader.read(start, place.len_bytes)?;
        Ok(Cow::Owned(object.to_vec()))
    }

    /// Where object `index` of the collection at `address` begins, and how many bytes it has, as [`find_object`] says it.
    ///
    /// # Errors
    /// As for [`HeapReader::read`].
    pub fn find(&mut self, address: Address, index: u32) -> Result<(Address, u64), H5Error> {
        // Where its headers lie in few blocks, all of it will hardly be longer than what is read of it.
        let place = self
            .collection(address, self.max_kept_bytes.min(SHORT_COLLECTION_BYTES))?
            .find(index)
            .ok_or_else(|| no_object(address))?;
        Ok((
            Address(address.0.saturating_add(place.start)),
            place.len_bytes,
        ))
    }

    /// The bytes that `reference` stands for: exactly its length times `element_bytes`, none where it is empty.
    ///
    /// # Errors
    /// As for [`HeapReader::read`]; [`H5Error::Damaged`] where the object is shorter than that.
    pub fn read_vlen(
        &mut self,
        reference: VlenReference,
        element_bytes: usize,
    ) -> Result<Cow<'_, [u8]>, H5Error> {
        if reference.is_empty() {
            return Ok(Cow::Borrowed(&[]));
        }
        let too_short = || H5Error::Damaged {
            structure: COLLECTION,
            address: reference.collection,
            what: "an object is shorter than the element that points to it",
        };
        let want_bytes = usize::try_from(reference.length)
            .ok()
            .and_then(|length| length.checked_mul(element_bytes))
            .ok_or_else(too_short)?;
        match self.read(reference.collection, reference.index)? {
            Cow::Borrowed(object) => object
                .get(..want_bytes)
                .map(Cow::Borrowed)
                .ok_or_else(too_short),
            Cow::Owned(mut object) => {
                if object.len() < want_bytes {
                    return Err(too_short());
                }
                object.truncate(want_bytes);
                Ok(Cow::Owned(object))
            }
        }
    }

    /// The collection at `address`, from what is kept or from the file; with its bytes where it has `max_bytes` at most.
    fn collection(&mut self, address: Address, max_bytes: u64) -> Result<&Collection, H5Error> {
        let is_enough = |collection: &Collection| {
            collection.bytes.is_some() || collection.size_bytes > max_bytes
        };
        let is_last = matches!(&self.last, Some((last, collection)) if *last == address && is_enough(collection));
        if !is_last {
            let kept = self.collections.get(&address);
            let collection = if let Some(kept) = kept.filter(|kept| is_enough(kept)) {
                Arc::clone(kept)
            } else {
                let read = Arc::new(Collection::read(self.reader, address, max_bytes)?);
                self.collections.insert(address, Arc::clone(&read));
                read
            };
            self.last = Some((address, collection));
        }
        match &self.last {
            Some((_, collection)) => Ok(collection),
            None => Err(no_object(address)),
        }
    }
}

impl ObjectPlace {
    fn range(&self) -> Option<Range<usize>> {
        let start = usize::try_from(self.start).ok()?;
        Some(start..start.checked_add(usize::try_from(self.len_bytes).ok()?)?)
    }
}

impl Collection {
    fn read(reader: &MetaReader, address: Address, max_kept_bytes: u64) -> Result<Self, H5Error> {
        let mut objects: Vec<ObjectPlace> = Vec::new();
        walk_objects(reader, address, &mut |object| {
            objects.push(ObjectPlace {
                index: object.index,
                start: object.address.0 - address.0,
                len_bytes: object.len_bytes,
            });
            true
        })?;
        objects.shrink_to_fit();
        objects.sort_by_key(|object| object.index);
        if objects
            .windows(2)
            .any(|pair| pair[0].index == pair[1].index)
        {
            return Err(H5Error::Damaged {
                structure: COLLECTION,
                address,
                what: "two of its objects have one index",
            });
        }
        let size_bytes = read_collection_size(reader, address)?;
        let bytes = if size_bytes <= max_kept_bytes {
            Some(Box::from(&*reader.read(address, size_bytes)?))
        } else {
            None
        };
        Ok(Self {
            size_bytes,
            bytes,
            objects,
        })
    }

    fn find(&self, index: u32) -> Option<ObjectPlace> {
        let index = u16::try_from(index).ok()?;
        // Nearly always the objects are 1, 2, 3 and so on.
        let guess = self.objects.get(usize::from(index).wrapping_sub(1));
        if let Some(object) = guess.filter(|object| object.index == index) {
            return Some(*object);
        }
        let at = self.objects.binary_search_by_key(&index, |o| o.index);
        Some(self.objects[at.ok()?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A collection of `size` bytes with these objects, as `H5HG.c` lays it out.
    fn collection(size: usize, objects: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = b"GCOL\x01\0\0\0".to_vec();
        bytes.extend((size as u64).to_le_bytes());
        for (index, object) in objects {
            bytes.extend(index.to_le_bytes());
            bytes.extend([1, 0, 0, 0, 0, 0]);
            bytes.extend((object.len() as u64).to_le_bytes());
            bytes.extend_from_slice(object);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        if size - bytes.len() >= 16 {
            let free = size - bytes.len();
            bytes.extend([0; 8]);
            bytes.extend((free as u64).to_le_bytes());
        }
        bytes.resize(size, 0);
        bytes
    }

    fn reader(bytes: Vec<u8>) -> MetaReader {
        let len = bytes.len() as u64;
        MetaReader::new(Arc::new(bytes), 0, len)
    }

    fn what(error: &H5Error) -> &'static str {
        match error {
            H5Error::Damaged { what, .. } => what,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn free_space_reaches_to_the_end() {
        let sound = collection(4096, &[(1, b"abc")]);
        // Behind the header, and the object with its own.
        let free = 16 + 16 + 8;
        for len in [0, 16, 4096 - free as u64 - 8, u64::MAX] {
            let mut bytes = sound.clone();
            bytes[free + 8..free + 16].copy_from_slice(&len.to_le_bytes());
            let error = read_object(&reader(bytes), Address(0), 1).unwrap_err();
            assert_eq!(what(&error), "its free space does not reach to its end");
        }
        assert_eq!(
            &*read_object(&reader(sound), Address(0), 1).unwrap(),
            b"abc"
        );
    }

    #[test]
    fn objects_by_index() {
        let full = vec![7u8; 4096 - 16 - 3 * 16 - 8 - 16];
        let mut file = vec![0; 24];
        file.extend(collection(
            4096,
            &[(1, b"one"), (9, b"nine nine"), (4, full.as_slice())],
        ));
        let reader = reader(file);
        let at = Address(24);
        assert_eq!(&*read_object(&reader, at, 1).unwrap(), b"one");
        assert_eq!(&*read_object(&reader, at, 9).unwrap(), b"nine nine");
        assert_eq!(&*read_object(&reader, at, 4).unwrap(), full);
        for missing in [0, 2, 65_537, u32::MAX] {
            let error = read_object(&reader, at, missing).unwrap_err();
            assert_eq!(what(&error), "an object that is pointed to is not in it");
        }
        // Kept whole, and with no more than the objects' places.
        for capacity in [1 << 20, 4096] {
            let mut heap = HeapReader::new(&reader, capacity);
            for _ in 0..2 {
                assert_eq!(&*heap.read(at, 9).unwrap(), b"nine nine");
                assert_eq!(&*heap.read(at, 4).unwrap(), full);
                assert_eq!(&*heap.read(at, 1).unwrap(), b"one");
                assert!(heap.read(at, 2).is_err());
                assert!(heap.read(at, 65_537).is_err());
            }
        }
    }

    #[test]
    fn variable_length_elements() {
        let reader = reader(collection(4096, &[(1, b"abcdefgh")]));
        let mut file = vec![0; 8];
        file.extend(&*reader.read(Address(0), 4096).unwrap());
        let reader = super::tests::reader(file);
        let mut heap = HeapReader::new(&reader, 1 << 20);
        let stored = |length: u32, address: u64, index: u32| {
            let mut stored = [0; 16];
            stored[..4].copy_from_slice(&length.to_le_bytes());
            stored[4..12].copy_from_slice(&address.to_le_bytes());
            stored[12..].copy_from_slice(&index.to_le_bytes());
            VlenReference::decode(&stored)
        };
        assert_eq!(&*heap.read_vlen(stored(5, 8, 1), 1).unwrap(), b"abcde");
        assert_eq!(&*heap.read_vlen(stored(2, 8, 1), 4).unwrap(), b"abcdefgh");
        for empty in [
            stored(0, 8, 1),
            stored(3, 0, 1),
            stored(3, u64::MAX, 1),
            stored(0, 0, 0),
        ] {
            assert_eq!(&*heap.read_vlen(empty, 4).unwrap(), b"");
        }
        for (length, element_bytes) in [(9, 1), (3, 4), (u32::MAX, usize::MAX)] {
            let error = heap
                .read_vlen(stored(length, 8, 1), element_bytes)
                .unwrap_err();
            assert_eq!(
                what(&error),
                "an object is shorter than the element that points to it"
            );
        }
    }

    #[test]
    fn keeps_no_more_than_its_capacity() {
        let mut file = Vec::new();
        for i in 0..200u32 {
            file.extend(collection(4096, &[(1, &i.to_le_bytes())]));
        }
        let reader = reader(file);
        let mut heap = HeapReader::new(&reader, 64 * 1024);
        for round in 0..2 {
            for i in 0..200u32 {
                let object = heap.read(Address(u64::from(i) * 4096), 1).unwrap();
                assert_eq!(&*object, &i.to_le_bytes(), "round {round}");
            }
        }
        assert!(heap.collections.weight() <= 64 * 1024);
        assert!(!heap.collections.is_empty());
    }

    #[test]
    fn damage_is_found() {
        let sound = collection(4096, &[(1, b"one"), (2, b"two")]);
        let change = |at: usize, bytes: &[u8]| {
            let mut file = sound.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            let reader = reader(file);
            let found = read_object(&reader, Address(0), 2).map(|bytes| bytes.to_vec());
            let mut heap = HeapReader::new(&reader, 1 << 20);
            assert!(heap.read(Address(0), 2).is_err());
            found
        };
        assert_eq!(
            what(&change(0, b"X").unwrap_err()),
            "its signature is missing"
        );
        assert!(matches!(change(4, &[2]), Err(H5Error::Unsupported { .. })));
        assert_eq!(
            what(&change(8, &[0, 8]).unwrap_err()),
            "it is smaller than any collection"
        );
        assert!(matches!(change(8, &[1, 16]), Err(H5Error::Source(_))));
        assert_eq!(
            what(&change(24, &[0xff; 8]).unwrap_err()),
            "an object does not fit into it"
        );
        assert_eq!(
            what(&change(16, &[0]).unwrap_err()),
            "its free space does not reach to its end"
        );
        assert_eq!(
            what(&change(40, &[3]).unwrap_err()),
            "an object that is pointed to is not in it"
        );
        assert_eq!(
            what(&change(16, &[2]).unwrap_err()),
            "two of its objects have one index"
        );
    }

    #[test]
    fn flipped_bits_never_panic() {
        let objects: Vec<Vec<u8>> = (1..40u8).map(|i| vec![i; usize::from(i) * 2]).collect();
        let objects: Vec<_> = (1u16..).zip(objects.iter().map(Vec::as_slice)).collect();
        let sound = collection(4096, &objects);
        let (mut refused, mut read) = (0, 0);
        for bit in 0..sound.len() * 8 {
            let mut file = sound.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            let reader = reader(file);
            let mut heap = HeapReader::new(&reader, 1 << 20);
            match heap.read(Address(0), 20) {
                Ok(object) => {
                    assert!(object.len() <= 4096);
                    read += 1;
                }
                Err(_) => refused += 1,
            }
            let alone = read_object(&reader, Address(0), 20);
            assert!(alone.is_err() || alone.unwrap().len() <= 4096);
        }
        assert!(
            refused > 100 && read > 100,
            "{refused} refused, {read} read"
        );
    }
}
