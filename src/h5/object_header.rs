//! Object headers (Specification IV.A): the messages that say what an object is, in one block or several.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::ops::Range;

use super::checksum;
use super::decoder::Decoder;
use super::reader::Budget;
use super::{Address, H5Error, MetaReader};

const STRUCTURE: &str = "object header";
const CONTINUATION: &str = "object header continuation";
/// More than any real header has; one of this size holds a thousand messages of the largest size.
const MAX_HEADER_BYTES: usize = 64 << 20;
/// Signature, version, flags, four times, two attribute limits, size of the first block.
const MAX_PREFIX_BYTES_V2: u64 = 4 + 1 + 1 + 16 + 4 + 8;

/// Numbers of message types (Specification IV.A.2).
pub(crate) mod message_type {
    pub(crate) const NIL: u16 = 0x0000;
    pub(crate) const DATASPACE: u16 = 0x0001;
    pub(crate) const LINK_INFO: u16 = 0x0002;
    pub(crate) const DATATYPE: u16 = 0x0003;
    pub(crate) const FILL_VALUE_OLD: u16 = 0x0004;
    pub(crate) const FILL_VALUE: u16 = 0x0005;
    pub(crate) const LINK: u16 = 0x0006;
    pub(crate) const EXTERNAL_FILES: u16 = 0x0007;
    pub(crate) const LAYOUT: u16 = 0x0008;
    pub(crate) const FILTERS: u16 = 0x000b;
    pub(crate) const ATTRIBUTE: u16 = 0x000c;
    pub(crate) const CONTINUATION: u16 = 0x0010;
    pub(crate) const SYMBOL_TABLE: u16 = 0x0011;
    #[cfg(test)]
    pub(crate) const MODIFICATION_TIME: u16 = 0x0012;
    pub(crate) const ATTRIBUTE_INFO: u16 = 0x0015;
    pub(crate) const REFERENCE_COUNT: u16 = 0x0016;
    pub(crate) const FILE_SPACE: u16 = 0x0017;
    pub(crate) const CACHE_IMAGE: u16 = 0x0018;
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// Holds links.
    Group,
    /// Holds elements.
    Dataset,
    /// A type that was given a name.
    NamedDatatype,
}

/// An object's header, its messages not yet decoded.
#[derive(Debug, Clone)]
pub struct ObjectHeader {
    address: Address,
    version: u8,
    reference_count: u32,
    /// The blocks' messages, one block behind the other.
    bytes: Vec<u8>,
    messages: Vec<Entry>,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
struct Entry {
    message_type: u16,
    flags: u8,
    address: Address,
    range: Range<usize>,
}

/// One message of a header.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its type (Specification IV.A.2).
    pub message_type: u16,
    /// Bit 1 means that `body` only says where the message is (see [`Message::resolve`]).
    pub flags: u8,
    /// Where the body lies.
    pub address: Address,
    /// The body, in version 1 headers with padding behind it.
    pub body: &'a [u8],
}

impl ObjectHeader {
    /// Reads the header at `address` and all blocks that continue it.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where there is no sound header; [`H5Error::Unsupported`] for an unknown version or a header that
    /// demands to be understood in full; [`H5Error::Source`].
    pub fn read(reader: &MetaReader, address: Address) -> Result<Self, H5Error> {
        let start = reader.read_up_to(address, MAX_PREFIX_BYTES_V2)?;
        let mut header = Self {
            address,
            version: 0,
            reference_count: 1,
            bytes: Vec::new(),
            messages: Vec::new(),
            blocks: Vec::new(),
        };
        let mut continuations = Continuations {
            budget: reader.budget(),
            blocks: Vec::new(),
        };
        if start.starts_with(b"OHDR") {
            header.read_v2(reader, &start, &mut continuations)?;
        } else {
            header.read_v1(reader, &start, &mut continuations)?;
        }
        Ok(header)
    }

    /// Where the header lies.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// Version of the header, 1 or 2.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// How many hard links point to the object.
    #[must_use]
    pub fn reference_count(&self) -> u32 {
        self.reference_count
    }

    /// All messages, in the order of the file.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.messages.iter().map(|entry| self.message(entry))
    }

    /// The first message of a type.
    #[must_use]
    pub fn find(&self, message_type: u16) -> Option<Message<'_>> {
        self.messages
            .iter()
            .find(|entry| entry.message_type == message_type)
            .map(|entry| self.message(entry))
    }

    /// Where the block that `address` lies in begins, and its length in bytes: in version 2, with its signature and its checksum.
    pub(crate) fn block_around(&self, address: Address) -> Option<(Address, u64)> {
        let around = |block: &&Block| {
            let inside = address.0.checked_sub(block.address.0);
            inside.is_some_and(|inside| inside < block.len_bytes)
        };
        let block = self.blocks.iter().find(around)?;
        Some((block.address, block.len_bytes))
    }

    /// What the object is, by the messages that it has (`H5O_obj_class_real`).
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where the messages are those of no object.
    pub fn kind(&self) -> Result<ObjectKind, H5Error> {
        let has = |message_type| {
            self.messages
                .iter()
                .any(|entry| entry.message_type == message_type)
        };
        if has(message_type::SYMBOL_TABLE) || has(message_type::LINK_INFO) {
            Ok(ObjectKind::Group)
        } else if !has(message_type::DATATYPE) {
            Err(self.damaged("it belongs neither to a group nor to a dataset nor to a type"))
        } else if has(message_type::DATASPACE) {
            Ok(ObjectKind::Dataset)
        } else {
            Ok(ObjectKind::NamedDatatype)
        }
    }

    pub(crate) fn damaged(&self, what: &'static str) -> H5Error {
        H5Error::Damaged {
            structure: STRUCTURE,
            address: self.address,
            what,
        }
    }

    fn message(&self, entry: &Entry) -> Message<'_> {
        Message {
            message_type: entry.message_type,
            flags: entry.flags,
            address: entry.address,
            body: &self.bytes[entry.range.clone()],
        }
    }

    fn read_v1(
        &mut self,
        reader: &MetaReader,
        start: &[u8],
        continuations: &mut Continuations,
    ) -> Result<(), H5Error> {
        let mut prefix = Decoder::new(start, STRUCTURE, self.address);
        self.version = prefix.u8()?;
        if self.version != 1 {
            return Err(prefix.damaged("there is none"));
        }
        // Reserved, and the number of messages, which the blocks' lengths tell better.
        prefix.skip(1 + 2)?;
        self.reference_count = prefix.u32()?;
        let len_bytes = u64::from(prefix.u32()?);
        let first = Block {
            address: self.address.after(16, STRUCTURE)?,
            len_bytes,
        };
        let mut next = Some(first);
        while let Some(block) = next {
            let bytes = continuations.read(reader, block, self.bytes.len())?;
            self.blocks.push(block);
            self.add_block(&bytes, block.address, false, continuations)?;
            next = continuations.blocks.pop();
        }
        Ok(())
    }

    fn read_v2(
        &mut self,
        reader: &MetaReader,
        start: &[u8],
        continuations: &mut Continuations,
    ) -> Result<(), H5Error> {
        let mut prefix = Decoder::new(start, STRUCTURE, self.address);
        prefix.signature(b"OHDR")?;
        self.version = prefix.u8()?;
        if self.version != 2 {
            return Err(prefix.unsupported("its version is neither 1 nor 2"));
        }
        let flags = prefix.u8()?;
        if flags & 0xc0 != 0 {
            return Err(prefix.unsupported("it has unknown flags"));
        }
        if flags & 0x20 != 0 {
            prefix.skip(16)?;
        }
        if flags & 0x10 != 0 {
            prefix.skip(4)?;
        }
        let len_bytes = prefix.uint(1 << (flags & 0x03))?;
        let has_creation_order = flags & 0x04 != 0;
        let prefix_len = prefix.position();
        let first = Block {
            address: self.address,
            len_bytes: len_bytes
                .checked_add(prefix_len as u64 + 4)
                .ok_or_else(|| self.damaged("its length is impossible"))?,
        };
        let mut next = Some((first, STRUCTURE, prefix_len));
        while let Some((block, structure, overhead)) = next {
            let bytes = continuations.read(reader, block, self.bytes.len())?;
            self.blocks.push(block);
            let bytes = checksum::verified(&bytes, structure, block.address)?;
            let mut decoder = Decoder::new(bytes, structure, block.address);
            if structure == CONTINUATION {
                decoder.signature(b"OCHK")?;
            } else {
                decoder.skip(overhead)?;
            }
            let messages_address = block.address.after(overhead as u64, structure)?;
            self.add_block(
                decoder.rest(),
                messages_address,
                has_creation_order,
                continuations,
            )?;
            next = continuations
                .blocks
                .pop()
                .map(|block| (block, CONTINUATION, 4));
        }
        Ok(())
    }

    /// Takes the messages of one block, which lie at `address`.
    fn add_block(
        &mut self,
        block: &[u8],
        address: Address,
        has_creation_order: bool,
        continuations: &mut Continuations,
    ) -> Result<(), H5Error> {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(block);
        let message_header_len = match (self.version, has_creation_order) {
            (1, _) => 8,
            (_, false) => 4,
            (_, true) => 6,
        };
        let mut decoder = Decoder::new(block, STRUCTURE, address);
        // What is left and too short for a message is a gap, which only version 2 may have.
        while decoder.remaining() >= message_header_len
            || (self.version == 1 && decoder.remaining() > 0)
        {
            let message_type = match self.version {
                1 => decoder.u16()?,
                _ => u16::from(decoder.u8()?),
            };
            let len = usize::from(decoder.u16()?);
            let flags = decoder.u8()?;
            decoder.skip(message_header_len - if self.version == 1 { 5 } else { 4 })?;
            let at = decoder.position();
            let body = decoder.take(len)?;
            let body_address = address.after(at as u64, STRUCTURE)?;
            match message_type {
                message_type::NIL => continue,
                message_type::CONTINUATION => {
                    let mut body = Decoder::new(body, CONTINUATION, body_address);
                    continuations.blocks.push(Block {
                        address: body.offset()?,
                        len_bytes: body.length()?,
                    });
                    continue;
                }
                message_type::REFERENCE_COUNT => {
                    let mut body = Decoder::new(body, "reference count message", body_address);
                    if body.u8()? == 0 {
                        self.reference_count = body.u32()?;
                    }
                }
                // Bit 7: who does not know this message must not read the object. The last type known is 0x18.
                0x19.. if flags & 0x80 != 0 => {
                    return Err(H5Error::Unsupported {
                        structure: STRUCTURE,
                        address: self.address,
                        what: "it has an unknown message that must be understood",
                    });
                }
                _ => {}
            }
            self.messages.push(Entry {
                message_type,
                flags,
                address: body_address,
                range: before + at..before + at + len,
            });
        }
        Ok(())
    }
}

impl Address {
    /// The place `bytes` behind this one.
    pub(crate) fn after(self, bytes: u64, structure: &'static str) -> Result<Self, H5Error> {
        match self.0.checked_add(bytes) {
            Some(sum) => Ok(Self(sum)),
            None => Err(H5Error::Damaged {
                structure,
                address: self,
                what: "it lies at an impossible address",
            }),
        }
    }
}

/// A block of a header.
#[derive(Debug, Clone, Copy)]
struct Block {
    address: Address,
    len_bytes: u64,
}

/// The blocks still to read, and how much they may be together.
struct Continuations {
    budget: Budget,
    blocks: Vec<Block>,
}

impl Continuations {
    fn read(
        &mut self,
        reader: &MetaReader,
        block: Block,
        have_bytes: usize,
    ) -> Result<super::MetaBytes, H5Error> {
        // A block has at least the header of a message, so a circle of empty blocks ends too.
        let spent = block.len_bytes.max(8);
        self.budget.spend(spent, CONTINUATION, block.address)?;
        let limit = (MAX_HEADER_BYTES - have_bytes.min(MAX_HEADER_BYTES)) as u64;
        if block.len_bytes > limit {
            return Err(H5Error::Unsupported {
                structure: STRUCTURE,
                address: block.address,
                what: "it is larger than 64 MiB",
            });
        }
        reader.read(block.address, block.len_bytes)
    }
}

impl<'a> Message<'a> {
    /// The message itself: its body, or the message of another object that the body points to.
    ///
    /// # Errors
    /// [`H5Error::Unsupported`] for messages in the file's shared message heap; what is wrong with the other object.
    pub fn resolve(&self, reader: &MetaReader) -> Result<Cow<'a, [u8]>, H5Error> {
        if self.flags & 0x02 == 0 {
            return Ok(Cow::Borrowed(self.body));
        }
        SharedMessages::new(reader)
            .resolve(self.body, self.message_type, self.address)
            .map(|message| Cow::Owned(message.to_vec()))
    }

    /// A cursor over the body, for a structure of that name.
    pub(crate) fn decoder(&self, structure: &'static str) -> Decoder<'a> {
        Decoder::new(self.body, structure, self.address)
    }
}

/// Messages of other objects, each read once however many point to it.
pub(crate) struct SharedMessages<'r> {
    reader: &'r MetaReader,
    known: HashMap<(Address, u16), Vec<u8>>,
    budget: Budget,
}

impl<'r> SharedMessages<'r> {
    pub(crate) fn new(reader: &'r MetaReader) -> Self {
        Self {
            reader,
            known: HashMap::new(),
            budget: reader.budget(),
        }
    }

    /// The message of type `message_type` to which the "Shared Message" `body` (Specification IV.A.2, at its beginning) points.
    ///
    /// # Errors
    /// [`H5Error::Unsupported`] for messages in the file's shared message heap; [`H5Error::Damaged`] where the other object has
    /// no such message of its own.
    pub(crate) fn resolve(
        &mut self,
        body: &[u8],
        message_type: u16,
        address: Address,
    ) -> Result<&[u8], H5Error> {
        let mut decoder = Decoder::new(body, "shared message", address);
        let version = decoder.u8()?;
        let sharing = decoder.u8()?;
        match version {
            1 => decoder.skip(6 + 8)?,
            2 => {}
            3 if sharing == 2 => {}
            3 => return Err(decoder.unsupported("it lies in the shared message heap")),
            _ => return Err(decoder.unsupported("its version is above 3")),
        }
        match self.known.entry((decoder.offset()?, message_type)) {
            Occupied(known) => Ok(known.into_mut()),
            Vacant(place) => {
                let other = ObjectHeader::read(self.reader, place.key().0)?;
                self.budget
                    .spend(other.bytes.len() as u64, STRUCTURE, other.address)?;
                match other.find(message_type) {
                    Some(message) if message.flags & 0x02 == 0 => {
                        Ok(place.insert(message.body.to_vec()))
                    }
                    _ => Err(decoder.damaged("the object that it points to does not have it")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A header of version 1 with one block of messages, at address 0 of a file of 512 bytes.
    fn read_v1(messages: &[u8]) -> Result<ObjectHeader, H5Error> {
        let mut bytes = vec![1, 0, 1, 0, 1, 0, 0, 0];
        bytes.extend(u32::try_from(messages.len()).unwrap().to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(messages);
        bytes.resize(512, 0);
        ObjectHeader::read(&MetaReader::new(Arc::new(bytes), 0, 512), Address(0))
    }

    fn message(message_type: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![
            message_type,
            0,
            u8::try_from(body.len()).unwrap(),
            0,
            flags,
            0,
            0,
            0,
        ];
        message.extend(body);
        message
    }

    fn continuation(address: u64, len_bytes: u64) -> Vec<u8> {
        let body = [address.to_le_bytes(), len_bytes.to_le_bytes()].concat();
        message(0x10, 0, &body)
    }

    #[test]
    fn messages_are_found_with_their_places() {
        let messages = [message(0, 0, &[9; 8]), message(0x11, 0, &[7; 16])].concat();
        let header = read_v1(&messages).unwrap();
        assert_eq!(header.kind().unwrap(), ObjectKind::Group);
        let found: Vec<Message<'_>> = header.messages().collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].body, [7; 16]);
        assert_eq!(found[0].address, Address(16 + 8 + 8 + 8));
    }

    #[test]
    fn circles_of_continuations_end() {
        for (address, len_bytes) in [(16, 24), (0, u64::MAX), (u64::MAX, 8), (500, 24)] {
            assert!(read_v1(&continuation(address, len_bytes)).is_err());
        }
        // A block of its own that is not a circle, but empty.
        assert!(read_v1(&continuation(400, 0)).is_ok());
    }

    #[test]
    fn what_must_be_understood_is_refused() {
        assert!(read_v1(&message(0x40, 0x00, &[0; 8])).is_ok());
        assert!(matches!(
            read_v1(&message(0x40, 0x80, &[0; 8])),
            Err(H5Error::Unsupported { .. })
        ));
    }

    #[test]
    fn messages_that_do_not_fit_are_damage() {
        let mut messages = message(0x11, 0, &[7; 16]);
        messages[2] = 24;
        assert!(matches!(read_v1(&messages), Err(H5Error::Damaged { .. })));
        // Version 1 has no gaps.
        assert!(read_v1(&[0; 12]).is_err());
        assert!(read_v1(&[0; 16]).is_ok());
    }
}
