//! The superblock (Specification II.A): where a file begins and ends, and where its root group is.

use std::sync::Arc;

use super::checksum;
use super::decoder::Decoder;
use super::{Address, H5Error, MetaReader};
use crate::source::Source;

const STRUCTURE: &str = "superblock";
const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
/// The longest superblock, version 1: 28 bytes of fields, four addresses, a symbol table entry of 40 bytes.
const MAX_BYTES: u64 = 28 + 4 * 8 + 40;

/// An opened HDF5 file: its bytes, and what its superblock says.
#[derive(Debug, Clone)]
pub struct H5File {
    source: Arc<dyn Source>,
    superblock: Superblock,
}

/// What a superblock says.
#[derive(Debug, Clone, Copy)]
struct Superblock {
    version: u8,
    base_address: u64,
    /// The base address that is written in it.
    stored_base: u64,
    /// Where more of it is.
    extension: Option<Address>,
    /// Where the file should end, in bytes from its very beginning.
    end_of_file: u64,
    /// How long the file was when it was opened.
    file_len_bytes: u64,
    root: Address,
    opened_for_writing: bool,
}

impl H5File {
    /// Finds and decodes the superblock.
    ///
    /// # Errors
    /// [`H5Error::NotHdf5`] without a signature at byte 0, 512, 1024, 2048 and so on; [`H5Error::Truncated`] where the file is
    /// shorter than it says; [`H5Error::Damaged`]; [`H5Error::Unsupported`] for a version above 3 or addresses of another
    /// width than 8 bytes; [`H5Error::Source`].
    pub fn open(source: Arc<dyn Source>) -> Result<Self, H5Error> {
        let file = Self::open_cut(source)?;
        match file.missing_end() {
            Some(error) => Err(error),
            None => Ok(file),
        }
    }

    /// The same for a file whose end may be missing.
    ///
    /// # Errors
    /// As for [`H5File::open`], but for [`H5Error::Truncated`].
    pub fn open_cut(source: Arc<dyn Source>) -> Result<Self, H5Error> {
        let file_len_bytes = source.len_bytes()?;
        let start = find_signature(&*source, file_len_bytes)?.ok_or(H5Error::NotHdf5)?;
        let reader = MetaReader::new(Arc::clone(&source), 0, file_len_bytes);
        let bytes = reader.read_up_to(Address(start), MAX_BYTES)?;
        let superblock = decode(&bytes, start, file_len_bytes)?;
        Ok(Self { source, superblock })
    }

    /// [`H5Error::Truncated`] where the file is shorter than it says.
    #[must_use]
    pub fn missing_end(&self) -> Option<H5Error> {
        let (want_bytes, got_bytes) = (self.end_of_file(), self.file_len_bytes());
        (got_bytes < want_bytes).then_some(H5Error::Truncated {
            want_bytes,
            got_bytes,
        })
    }

    /// The header of the root group.
    #[must_use]
    pub fn root(&self) -> Address {
        self.superblock.root
    }

    /// A new reader. What it reads it keeps, so it is for one look at the file.
    #[must_use]
    pub fn reader(&self) -> MetaReader {
        MetaReader::new(
            Arc::clone(&self.source),
            self.superblock.base_address,
            self.superblock.file_len_bytes,
        )
    }

    /// The file's bytes.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The byte of the file that is address 0; more than 0 where the file begins with a user block.
    #[must_use]
    pub fn base_address(&self) -> u64 {
        self.superblock.base_address
    }

    /// The base address that the superblock has, which is another one where a user block came or went later.
    pub(crate) fn stored_base_address(&self) -> u64 {
        self.superblock.stored_base
    }

    /// The header of the superblock's extension.
    pub(crate) fn superblock_extension(&self) -> Option<Address> {
        self.superblock.extension
    }

    /// Where the file's content ends, in bytes from its very beginning; no more than its length, unless its end is missing.
    #[must_use]
    pub fn end_of_file(&self) -> u64 {
        self.superblock.end_of_file
    }

    /// How long the file was when it was opened, in bytes.
    #[must_use]
    pub fn file_len_bytes(&self) -> u64 {
        self.superblock.file_len_bytes
    }

    /// Version of the superblock, 0 to 3.
    #[must_use]
    pub fn superblock_version(&self) -> u8 {
        self.superblock.version
    }

    /// Whether the file says that a program has it open for writing, or had and never closed it. Only a superblock of version
    /// 3 can say so.
    #[must_use]
    pub fn opened_for_writing(&self) -> bool {
        self.superblock.opened_for_writing
    }
}

/// The first place of those where a superblock may be that has the signature.
fn find_signature(source: &dyn Source, file_len_bytes: u64) -> Result<Option<u64>, H5Error> {
    let mut start = 0u64;
    loop {
        match start.checked_add(SIGNATURE.len() as u64) {
            Some(end) if end <= file_len_bytes => {}
            _ => return Ok(None),
        }
        let mut found = [0u8; SIGNATURE.len()];
        source.read_exact_at(&mut found, start)?;
        if &found == SIGNATURE {
            return Ok(Some(start));
        }
        start = match start {
            0 => 512,
            _ => start.saturating_mul(2),
        };
    }
}

/// Decodes the superblock that begins at byte `start` of the file; `bytes` may reach beyond its end.
fn decode(bytes: &[u8], start: u64, file_len_bytes: u64) -> Result<Superblock, H5Error> {
    let mut decoder = Decoder::new(bytes, STRUCTURE, Address(start));
    decoder.signature(SIGNATURE)?;
    let version = decoder.u8()?;
    let mut flags = 0;
    match version {
        0 | 1 => {
            // Versions of the free-space storage, the root entry and the shared header, all 0 until today.
            let versions = [decoder.u8()?, decoder.u8()?, decoder.u8()?, decoder.u8()?];
            if (versions[0], versions[1], versions[3]) != (0, 0, 0) {
                return Err(decoder.unsupported("one of its parts is of a later version"));
            }
            check_widths(&mut decoder)?;
            // Reserved, ranks of group nodes, consistency flags, which these versions do not use.
            decoder.skip(1 + 2 + 2 + 4)?;
            if version == 1 {
                decoder.skip(4)?;
            }
        }
        2 | 3 => {
            check_widths(&mut decoder)?;
            flags = decoder.u8()?;
        }
        _ => return Err(decoder.unsupported("its version is above 3")),
    }

    let stored_base = decoder.offset()?.0;
    // In the older versions, of the free-space storage, which there never was.
    let extension = Some(decoder.offset()?).filter(|place| version >= 2 && place.is_defined());
    let stored_end = decoder.offset()?.0;
    let root = if version < 2 {
        decoder.skip(8 + 8)?; // Driver information, and the name in the root's symbol table entry.
        decoder.offset()?
    } else {
        let root = decoder.offset()?;
        let end = decoder.position() + 4;
        decoder.skip(4)?;
        checksum::verified(&bytes[..end], STRUCTURE, Address(start))?;
        root
    };
    if !root.is_defined() {
        return Err(decoder.damaged("it has no root group"));
    }
    // A user block that was added or taken away later moves everything (`H5F__super_read`).
    let end_of_file = stored_end
        .checked_sub(stored_base)
        .and_then(|len| len.checked_add(start))
        .ok_or_else(|| decoder.damaged("its end-of-file address is impossible"))?;
    Ok(Superblock {
        version,
        base_address: start,
        stored_base,
        extension,
        end_of_file,
        file_len_bytes,
        root,
        // Bit 0: open for writing; bit 2: open for writing by one and reading by many.
        opened_for_writing: version == 3 && flags & 0b101 != 0,
    })
}

/// Passes over the widths of addresses and lengths.
fn check_widths(decoder: &mut Decoder<'_>) -> Result<(), H5Error> {
    if (decoder.u8()?, decoder.u8()?) == (8, 8) {
        Ok(())
    } else {
        Err(decoder.unsupported("its addresses or lengths are not of 8 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::lookup3;

    /// A superblock of version 3 for a file of `len` bytes in all.
    fn version_3(flags: u8, len: u64) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([3, 8, 8, flags]);
        for field in [0, u64::MAX, len, 48] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(lookup3(&bytes).to_le_bytes());
        bytes
    }

    fn open(bytes: Vec<u8>) -> Result<H5File, H5Error> {
        H5File::open(Arc::new(bytes))
    }

    #[test]
    fn says_whether_it_is_being_written() {
        for (flags, writing) in [(0, false), (1, true), (4, true), (5, true), (2, false)] {
            let file = open(version_3(flags, 48)).unwrap();
            assert_eq!(file.opened_for_writing(), writing);
            assert_eq!(file.root(), Address(48));
            assert_eq!(file.superblock_version(), 3);
        }
    }

    #[test]
    fn a_user_block_that_came_later_moves_everything() {
        let mut bytes = vec![7; 2048];
        bytes.extend(version_3(0, 48));
        let file = open(bytes.clone()).unwrap();
        assert_eq!((file.base_address(), file.file_len_bytes()), (2048, 2096));
        assert_eq!(&*file.reader().read(Address(1), 3).unwrap(), b"HDF");
        // Where no superblock may be, none is looked for.
        bytes.insert(0, 7);
        assert!(matches!(open(bytes), Err(H5Error::NotHdf5)));
    }

    #[test]
    fn what_is_not_sound_is_refused() {
        assert!(matches!(open(Vec::new()), Err(H5Error::NotHdf5)));
        assert!(matches!(open(vec![0; 5000]), Err(H5Error::NotHdf5)));
        assert!(matches!(
            open(version_3(0, 49)),
            Err(H5Error::Truncated {
                want_bytes: 49,
                got_bytes: 48
            })
        ));
        for (at, value) in [(8, 4), (9, 4), (10, 4)] {
            let mut bytes = version_3(0, 48);
            bytes[at] = value;
            assert!(matches!(open(bytes), Err(H5Error::Unsupported { .. })));
        }
        for at in 11..48 {
            let mut bytes = version_3(0, 48);
            bytes[at] ^= 1;
            assert!(matches!(open(bytes), Err(H5Error::Damaged { .. })), "{at}");
        }
        for len in 8..48 {
            assert!(open(version_3(0, 48)[..len].to_vec()).is_err());
        }
    }
}
