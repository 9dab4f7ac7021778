//! The links of a group, in whichever of the three forms it has them: a symbol table (old style), link messages in its header
//! (compact), or link messages in a fractal heap with an index of their names' hashes (dense).

use super::btree2::{self, BTree2};
use super::checksum::lookup3;
use super::decoder::Decoder;
use super::fractal_heap::FractalHeap;
use super::object_header::{ObjectHeader, ObjectKind, message_type};
use super::symbol_table::SymbolTable;
use super::{Address, H5Error, MetaReader};

const LINK: &str = "link message";
/// Type of the version 2 B-tree that finds links by the hash of their names.
const NAME_INDEX_TYPE: u8 = 5;
/// Records of that tree: a hash of 4 bytes and an id of 7.
const NAME_RECORD_BYTES: usize = 11;
/// How many soft links a path may go through (`H5L_NUM_LINKS`).
const MAX_SOFT_LINKS: u32 = 16;

/// A name in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The name, not necessarily UTF-8.
    pub name: Vec<u8>,
    /// Where it leads.
    pub target: LinkTarget,
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkTarget {
    /// To the object with its header there.
    Hard(Address),
    /// To whatever is found under this path, from the root if it begins with `/`, else from the link's group.
    Soft(Vec<u8>),
    /// To an object of another file.
    External {
        /// The file's name.
        file: Vec<u8>,
        /// The object's path in it.
        object: Vec<u8>,
    },
    /// Known only to the program that made it, by that number.
    UserDefined(u8),
}

/// All links of the group with its header at `group`, in the order of their names' bytes.
///
/// # Errors
/// [`H5Error::Damaged`] where there is no sound group; [`H5Error::Unsupported`]; [`H5Error::Source`].
pub fn links(reader: &MetaReader, group: Address) -> Result<Vec<Link>, H5Error> {
    links_of(reader, &ObjectHeader::read(reader, group)?)
}

/// The same for a header that was read already.
///
/// # Errors
/// As for [`links`].
pub fn links_of(reader: &MetaReader, header: &ObjectHeader) -> Result<Vec<Link>, H5Error> {
    let mut links = Vec::new();
    match Form::of(header)? {
        Form::SymbolTable(mut message) => {
            SymbolTable::open(reader, &mut message)?.walk(&mut |link| links.push(link))?;
        }
        Form::Compact => {
            for message in header.messages() {
                if message.message_type == message_type::LINK {
                    links.push(decode_link(message.body, message.address)?);
                }
            }
        }
        Form::Dense { heap, name_index } => {
            let mut heap = FractalHeap::open(reader, heap)?;
            btree2::walk(reader, name_index, NAME_INDEX_TYPE, &mut |record| {
                let (_, id) = decode_record(record, name_index)?;
                let link = decode_link(&heap.read(id)?, name_index)?;
                links.push(link);
                Ok(())
            })?;
        }
    }
    links.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}

/// The link called `name` of the group with its header at `group`, without reading all others where the form allows.
///
/// # Errors
/// As for [`links`].
pub fn find_link(
    reader: &MetaReader,
    group: Address,
    name: &[u8],
) -> Result<Option<Link>, H5Error> {
    find_link_of(reader, &ObjectHeader::read(reader, group)?, name)
}

/// The same for a header that was read already.
///
/// # Errors
/// As for [`links`].
pub fn find_link_of(
    reader: &MetaReader,
    header: &ObjectHeader,
    name: &[u8],
) -> Result<Option<Link>, H5Error> {
    match Form::of(header)? {
        Form::SymbolTable(mut message) => SymbolTable::open(reader, &mut message)?.find(name),
        Form::Compact => {
            for message in header.messages() {
                if message.message_type == message_type::LINK {
                    let link = decode_link(message.body, message.address)?;
                    if link.name == name {
                        return Ok(Some(link));
                    }
                }
            }
            Ok(None)
        }
        Form::Dense { heap, name_index } => {
            let hash = lookup3(name);
            let mut heap = FractalHeap::open(reader, heap)?;
            let mut found = None;
            BTree2::open(reader, name_index, NAME_INDEX_TYPE)?.search(
                reader,
                &mut |record| record_hash(record).cmp(&hash),
                &mut |record| {
                    let (_, id) = decode_record(record, name_index)?;
                    let link = decode_link(&heap.read(id)?, name_index)?;
                    if link.name == name {
                        found = Some(link);
                    }
                    Ok(())
                },
            )?;
            Ok(found)
        }
    }
}

/// The object found by following `path`, name by name, from the group at `from`. Soft links are followed, at most 16; those
/// that begin with `/` start at `root`. Empty names and `.` stand for the group itself, as in the C library.
///
/// # Errors
/// As for [`links`], and [`H5Error::Unsupported`] for a link to another file or of a user's own kind, or more than 16 soft
/// links. A name that is not there, or that is looked for in something other than a group, is `None`.
pub fn find_path(
    reader: &MetaReader,
    root: Address,
    from: Address,
    path: &[&[u8]],
) -> Result<Option<Address>, H5Error> {
    let mut at = from;
    // The names still to follow, the next one last.
    let mut names: Vec<Vec<u8>> = path.iter().rev().map(|name| name.to_vec()).collect();
    let mut soft_links = 0;
    while let Some(name) = names.pop() {
        if name.is_empty() || name == b"." {
            continue;
        }
        let unsupported = |what| H5Error::Unsupported {
            structure: "path",
            address: at,
            what,
        };
        let header = ObjectHeader::read(reader, at)?;
        if header.kind()? != ObjectKind::Group {
            return Ok(None);
        }
        match find_link_of(reader, &header, &name)?.map(|link| link.target) {
            None => return Ok(None),
            Some(LinkTarget::Hard(address)) => at = address,
            Some(LinkTarget::Soft(target)) => {
                soft_links += 1;
                if soft_links > MAX_SOFT_LINKS {
                    return Err(unsupported("it goes through more than 16 soft links"));
                }
                if target.starts_with(b"/") {
                    at = root;
                }
                names.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
            }
            Some(LinkTarget::External { .. } | LinkTarget::UserDefined(_)) => {
                return Err(unsupported("it leads out of the file"));
            }
        }
    }
    Ok(Some(at))
}

/// How a group keeps its links.
enum Form<'a> {
    /// A cursor over the symbol table message.
    SymbolTable(Decoder<'a>),
    Compact,
    Dense {
        heap: Address,
        name_index: Address,
    },
}

impl<'a> Form<'a> {
    fn of(header: &'a ObjectHeader) -> Result<Self, H5Error> {
        if let Some(message) = header.find(message_type::SYMBOL_TABLE) {
            return Ok(Self::SymbolTable(message.decoder("symbol table message")));
        }
        let Some(message) = header.find(message_type::LINK_INFO) else {
            return Err(header.damaged("it is not a group's"));
        };
        let mut decoder = message.decoder("link info message");
        if decoder.u8()? != 0 {
            return Err(decoder.unsupported("its version is not 0"));
        }
        // Bit 0: the next creation order follows.
        if decoder.u8()? & 0x01 != 0 {
            decoder.skip(8)?;
        }
        let heap = decoder.offset()?;
        let name_index = decoder.offset()?;
        if heap.is_defined() {
            Ok(Self::Dense { heap, name_index })
        } else {
            Ok(Self::Compact)
        }
    }
}

fn record_hash(record: &[u8]) -> u32 {
    let mut hash = [0u8; 4];
    for (to, from) in hash.iter_mut().zip(record) {
        *to = *from;
    }
    u32::from_le_bytes(hash)
}

/// Hash and heap id of a record of the name index.
fn decode_record(record: &[u8], index: Address) -> Result<(u32, &[u8]), H5Error> {
    let mut decoder = Decoder::new(record, "link name index record", index);
    if record.len() != NAME_RECORD_BYTES {
        return Err(decoder.damaged("its length is impossible"));
    }
    Ok((decoder.u32()?, decoder.rest()))
}

/// Decodes a link message (Specification IV.A.2.g).
pub(super) fn decode_link(bytes: &[u8], address: Address) -> Result<Link, H5Error> {
    let mut decoder = Decoder::new(bytes, LINK, address);
    if decoder.u8()? != 1 {
        return Err(decoder.unsupported("its version is not 1"));
    }
    let flags = decoder.u8()?;
    let link_type = match flags & 0x08 {
        0 => 0,
        _ => decoder.u8()?,
    };
    if flags & 0x04 != 0 {
        decoder.skip(8)?; // Creation order.
    }
    if flags & 0x10 != 0 {
        decoder.skip(1)?; // Character set of the name.
    }
    let name_len = decoder.uint(1 << (flags & 0x03))?;
    let name = match usize::try_from(name_len) {
        Ok(len) if len > 0 => decoder.take(len)?.to_vec(),
        _ => return Err(decoder.damaged("the length of its name is impossible")),
    };
    let target = match link_type {
        0 => LinkTarget::Hard(decoder.offset()?),
        1 => {
            let len = usize::from(decoder.u16()?);
            LinkTarget::Soft(decoder.take(len)?.to_vec())
        }
        64 => {
            let len = usize::from(decoder.u16()?);
            let mut value = Decoder::new(decoder.take(len)?, LINK, address);
            value.skip(1)?; // Version and flags.
            LinkTarget::External {
                file: value.c_string()?.to_vec(),
                object: value.c_string()?.to_vec(),
            }
        }
        65.. => LinkTarget::UserDefined(link_type),
        _ => return Err(decoder.damaged("its kind is unknown")),
    };
    Ok(Link { name, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_messages_with_every_field() {
        let start = [1, 0x1d, 64, 9, 9, 9, 9, 9, 9, 9, 9, 1, 2, 0];
        let external = [&start[..], b"ab", &[7, 0], b"\0fi\0pa\0"].concat();
        assert_eq!(
            decode_link(&external, Address(0)).unwrap(),
            Link {
                name: b"ab".to_vec(),
                target: LinkTarget::External {
                    file: b"fi".to_vec(),
                    object: b"pa".to_vec()
                }
            }
        );
        for len in 0..external.len() {
            assert!(decode_link(&external[..len], Address(0)).is_err());
        }
        let own = decode_link(&[1, 0x08, 200, 1, b'x', 0, 0], Address(0)).unwrap();
        assert_eq!(own.target, LinkTarget::UserDefined(200));
        assert!(decode_link(&[1, 0x08, 2, 1, b'x', 0, 0], Address(0)).is_err());
        let hard = [1, 0x00, 1, b'x', 1, 2, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            decode_link(&hard, Address(0)).unwrap().target,
            LinkTarget::Hard(Address(0x201))
        );
        assert!(decode_link(&[1, 0x00, 0], Address(0)).is_err());
        let endless = [&[1, 0x03][..], &[0xff; 8], b"x"].concat();
        assert!(decode_link(&endless, Address(0)).is_err());
    }
}
