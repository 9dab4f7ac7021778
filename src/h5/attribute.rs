//! Attributes of an object: in its header, or, where they are many, in a fractal heap with an index of their names' hashes.

use std::borrow::Cow;

use super::btree2::{self, BTree2};
use super::checksum::lookup3;
use super::decoder::Decoder;
use super::fractal_heap::FractalHeap;
use super::object_header::{ObjectHeader, SharedMessages, message_type};
use super::{Address, Dataspace, Datatype, H5Error, MetaReader};

const STRUCTURE: &str = "attribute message";
/// Type of the version 2 B-tree that finds attributes by the hash of their names.
const NAME_INDEX_TYPE: u8 = 8;
/// Records of that tree: a heap id of 8 bytes, flags, creation order of 4, hash of 4.
const NAME_RECORD_BYTES: usize = 17;

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name, not necessarily UTF-8.
    pub name: Vec<u8>,
    /// The type of one element.
    pub datatype: Datatype,
    /// The datatype message as stored, without padding behind it: equal bytes mean an equal type.
    pub datatype_bytes: Vec<u8>,
    /// The extent.
    pub dataspace: Dataspace,
    /// The elements in C order, as stored; variable-length ones are references into the global heap.
    pub data: Vec<u8>,
}

/// All attributes of an object, in the order of their names' bytes.
///
/// # Errors
/// [`H5Error::Damaged`] where one is not sound; [`H5Error::Unsupported`]; [`H5Error::Source`].
pub fn attributes(reader: &MetaReader, header: &ObjectHeader) -> Result<Vec<Attribute>, H5Error> {
    let mut attributes = Vec::new();
    let mut shared = SharedMessages::new(reader);
    for message in header.messages() {
        if message.message_type == message_type::ATTRIBUTE {
            let body = message.resolve(reader)?;
            attributes.push(RawAttribute::split(&body, message.address)?.decode(&mut shared)?);
        }
    }
    if let Some(dense) = Dense::of(header)? {
        let mut heap = FractalHeap::open(reader, dense.heap)?;
        btree2::walk(reader, dense.name_index, NAME_INDEX_TYPE, &mut |record| {
            let body = heap.read(dense.heap_id(record)?)?;
            attributes.push(RawAttribute::split(&body, dense.heap)?.decode(&mut shared)?);
            Ok(())
        })?;
    }
    attributes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(attributes)
}

/// The attribute called `name`, without decoding the others.
///
/// # Errors
/// As for [`attributes`].
pub fn attribute_named(
    reader: &MetaReader,
    header: &ObjectHeader,
    name: &[u8],
) -> Result<Option<Attribute>, H5Error> {
    for message in header.messages() {
        if message.message_type == message_type::ATTRIBUTE {
            let body = message.resolve(reader)?;
            let raw = RawAttribute::split(&body, message.address)?;
            if raw.name == name {
                return raw.decode(&mut SharedMessages::new(reader)).map(Some);
            }
        }
    }
    let Some(dense) = Dense::of(header)? else {
        return Ok(None);
    };
    let hash = lookup3(name);
    let mut heap = FractalHeap::open(reader, dense.heap)?;
    let mut found = None;
    BTree2::open(reader, dense.name_index, NAME_INDEX_TYPE)?.search(
        reader,
        &mut |record| record_hash(record).cmp(&hash),
        &mut |record| {
            let body = heap.read(dense.heap_id(record)?)?;
            let raw = RawAttribute::split(&body, dense.heap)?;
            if raw.name == name {
                found = Some(raw.decode(&mut SharedMessages::new(reader))?);
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// Where an object's attributes are that are not in its header.
struct Dense {
    heap: Address,
    name_index: Address,
}

impl Dense {
    /// From the attribute info message (Specification IV.A.2.v), if there is one and it names a heap.
    fn of(header: &ObjectHeader) -> Result<Option<Self>, H5Error> {
        let Some(message) = header.find(message_type::ATTRIBUTE_INFO) else {
            return Ok(None);
        };
        let mut decoder = message.decoder("attribute info message");
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        // Bit 0: the next creation order follows.
        if decoder.u8()? & 0x01 != 0 {
            decoder.skip(2)?;
        }
        let heap = decoder.offset()?;
        let name_index = decoder.offset()?;
        Ok(heap.is_defined().then_some(Self { heap, name_index }))
    }

    fn heap_id<'a>(&self, record: &'a [u8]) -> Result<&'a [u8], H5Error> {
        let mut decoder = Decoder::new(record, "attribute name index record", self.name_index);
        if record.len() != NAME_RECORD_BYTES {
            return Err(decoder.damaged("its length is impossible"));
        }
        let id = decoder.take(8)?;
        if decoder.u8()? & 0x02 != 0 {
            return Err(decoder.unsupported("its attribute lies in the shared message heap"));
        }
        Ok(id)
    }
}

/// The hash in a record of the name index, which is its last 4 bytes.
fn record_hash(record: &[u8]) -> u32 {
    record
        .last_chunk::<4>()
        .map_or(0, |hash| u32::from_le_bytes(*hash))
}

/// An attribute message, cut into its parts.
pub(super) struct RawAttribute<'a> {
    address: Address,
    name: &'a [u8],
    datatype: &'a [u8],
    datatype_is_shared: bool,
    dataspace: &'a [u8],
    dataspace_is_shared: bool,
    data: &'a [u8],
}

impl<'a> RawAttribute<'a> {
    /// Cuts a message (Specification IV.A.2.m) of version 1 to 3.
    pub(super) fn split(bytes: &'a [u8], address: Address) -> Result<Self, H5Error> {
        let mut decoder = Decoder::new(bytes, STRUCTURE, address);
        let version = decoder.u8()?;
        let flags = match (version, decoder.u8()?) {
            (1, _) => 0,
            (2 | 3, flags) => flags,
            _ => return Err(decoder.unsupported("its version is not one of 1 to 3")),
        };
        let name_len = usize::from(decoder.u16()?);
        let datatype_len = usize::from(decoder.u16()?);
        let dataspace_len = usize::from(decoder.u16()?);
        if version == 3 {
            decoder.skip(1)?; // Character set of the name.
        }
        let mut part = |len: usize| -> Result<&'a [u8], H5Error> {
            let part = decoder.take(len)?;
            if version == 1 {
                decoder.skip(len.next_multiple_of(8) - len)?;
            }
            Ok(part)
        };
        let name = part(name_len)?;
        let datatype = part(datatype_len)?;
        let dataspace = part(dataspace_len)?;
        match name.split_last() {
            Some((0, name)) if !name.is_empty() && !name.contains(&0) => Ok(Self {
                address,
                name,
                datatype,
                datatype_is_shared: flags & 0x01 != 0,
                dataspace,
                dataspace_is_shared: flags & 0x02 != 0,
                data: decoder.rest(),
            }),
            _ => Err(decoder.damaged("its name does not end where it should")),
        }
    }

    pub(super) fn decode(&self, shared: &mut SharedMessages<'_>) -> Result<Attribute, H5Error> {
        let mut part =
            |bytes: &'a [u8], is_shared, message_type| -> Result<Cow<'a, [u8]>, H5Error> {
                if is_shared {
                    let message = shared.resolve(bytes, message_type, self.address)?;
                    Ok(Cow::Owned(message.to_vec()))
                } else {
                    Ok(Cow::Borrowed(bytes))
                }
            };
        let datatype_bytes = part(
            self.datatype,
            self.datatype_is_shared,
            message_type::DATATYPE,
        )?;
        let dataspace_bytes = part(
            self.dataspace,
            self.dataspace_is_shared,
            message_type::DATASPACE,
        )?;
        let (datatype, used) = Datatype::decode(&datatype_bytes, self.address)?;
        let dataspace = Dataspace::decode(&dataspace_bytes, self.address)?;
        let damaged = |what| H5Error::Damaged {
            structure: STRUCTURE,
            address: self.address,
            what,
        };
        let data = dataspace
            .len()
            .and_then(|len| usize::try_from(len).ok())
            .and_then(|len| len.checked_mul(datatype.size))
            .and_then(|len_bytes| self.data.get(..len_bytes))
            .ok_or_else(|| damaged("its elements are not all there"))?;
        Ok(Attribute {
            name: self.name.to_vec(),
            datatype,
            datatype_bytes: datatype_bytes[..used].to_vec(),
            dataspace,
            data: data.to_vec(),
        })
    }
}
