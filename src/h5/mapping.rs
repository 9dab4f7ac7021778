//! What a virtual dataset is made of: the "Global Heap Block for Virtual Datasets" (Specification III.F of version 3.0;
//! `H5D__virtual_load_layout` of the C library, which also has version 1 of the block), decoded into a [`ChunkMap`].
//!
//! A version of a large dataset has hundreds of thousands of mappings, nearly all of one form: one chunk of raw data is one chunk of
//! the array. The decoder checks that form and allocates nothing for each mapping; a block with any other mapping is decoded
//! again in full. Nothing is believed before the checksum at the block's end is right.

mod chunk_map;
mod selection;
mod stream;

use std::borrow::Cow;
use std::sync::Arc;

use super::decoder::Decoder;
use super::{Address, H5Error, MetaReader, checksum, heap, parallel};

pub use chunk_map::{ChunkMap, MappedCells};
pub use selection::{HyperslabAxis, MAX_RANK, Selection};

use chunk_map::ChunkMapBuilder;
use selection::{BoxBuffer, BoxForm};
use stream::{Pieces, Stretch, SummedPieces};

const BLOCK: &str = "global heap block for virtual datasets";
/// A block's version and number of entries.
const HEADER_BYTES: usize = 1 + 8;
const CHECKSUM_BYTES: u64 = 4;
/// No selection is shorter than type, version and 8 more bytes.
const MIN_SELECTION_BYTES: usize = 16;
/// No mapping is shorter than two selections and two bytes: of two empty names, or of flags and an empty name.
const MIN_MAPPING_BYTES: usize = 2 * MIN_SELECTION_BYTES + 1;
/// Everything below this path is the versioned file's own: a mapping to it means this file, whatever file name was stored.
const OWN_DATA: &[u8] = b"/_version_data/";
/// What a mapping says for "this file".
const THIS_FILE: &[u8] = b".";
/// Blocks up to this length are decoded in memory, longer ones piece by piece.
const IN_MEMORY_BYTES: u64 = 256 * 1024;
/// From this length on a block is read twice, by two threads at the same time: to decode it, and to make its checksum, which takes as long.
/// Below, starting the second one would take longer than it saves.
const TWO_THREADS_BYTES: u64 = 768 << 10;
/// No entry is longer: names are those of links, of 64 KiB at most, and the rest is a few hundred bytes.
const MAX_ENTRY_BYTES: usize = 160 * 1024;
/// How much of two blocks is compared at a time.
const COMPARE_BYTES: u64 = 64 * 1024;

/// Flags of an entry in a block of version 1 (`H5Oprivate.h`).
mod flag {
    pub(super) const FILE_SHARED: u8 = 1;
    pub(super) const DATASET_SHARED: u8 = 2;
    pub(super) const SAME_FILE: u8 = 4;
    pub(super) const ALL: u8 = 7;
}

/// A virtual dataset's mappings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingForm {
    /// Each mapping is one chunk of raw data in one cell of the chunk grid.
    Chunked(ChunkMap),
    /// At least one is something else.
    Irregular(Vec<Mapping>),
}

/// One mapping of a virtual dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Name of the file with the source, `.` for this one.
    pub source_file: Arc<[u8]>,
    /// Path of the source.
    pub source_dataset: Arc<[u8]>,
    /// Which of the source's elements.
    pub source_selection: Selection,
    /// Where they are in the virtual dataset.
    pub virtual_selection: Selection,
}

/// Reads and decodes the mappings of a virtual dataset, whose layout names the heap object; see [`decode_chunk_map`].
///
/// # Errors
/// As for [`decode_chunk_map`] and [`heap::read_object`].
pub fn read_chunk_map(
    reader: &MetaReader,
    (heap_address, heap_index): (Address, u32),
    shape: &[u64],
    chunk_shape: &[u64],
    expected_source: &[u8],
) -> Result<MappingForm, H5Error> {
    if !heap_address.is_defined() {
        return ChunkMap::empty(shape, chunk_shape)
            .map(MappingForm::Chunked)
            .ok_or(no_grid(heap_address));
    }
    let (start, len_bytes) = heap::find_object(reader, heap_address, heap_index)?;
    if len_bytes > IN_MEMORY_BYTES
        && let Some(map) = read_long(
            reader,
            (start, len_bytes),
            heap_address,
            shape,
            chunk_shape,
            expected_source,
        )?
    {
        return Ok(MappingForm::Chunked(map));
    }
    let block = reader.read(start, len_bytes)?;
    decode_chunk_map(&block, heap_address, shape, chunk_shape, expected_source)
}

/// Decodes a block of `len_bytes` at `start` as it is read; `None` where a mapping is not one chunk.
fn read_long(
    reader: &MetaReader,
    (start, len_bytes): (Address, u64),
    heap_address: Address,
    shape: &[u64],
    chunk_shape: &[u64],
    expected_source: &[u8],
) -> Result<Option<ChunkMap>, H5Error> {
    let body_bytes = len_bytes.saturating_sub(CHECKSUM_BYTES);
    let decode = |pieces: &mut dyn Stretch| {
        Entries::open(pieces, body_bytes, heap_address)
            .and_then(|entries| entries.chunk_map(shape, chunk_shape, expected_source))
    };
    let (found, sum) = if len_bytes < TWO_THREADS_BYTES {
        let mut pieces = SummedPieces::open(reader, start, body_bytes)?;
        (decode(&mut pieces), pieces.finish())
    } else {
        std::thread::scope(|scope| {
            let other = reader.again();
            let sum = parallel::spawn(scope, move || {
                SummedPieces::open(&other, start, body_bytes)?.finish()
            });
            let found =
                Pieces::open(reader, start, body_bytes).and_then(|mut pieces| decode(&mut pieces));
            let sum = sum.join();
            (
                found,
                sum.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            )
        })
    };
    let stored = reader.read(Address(start.0 + body_bytes), CHECKSUM_BYTES)?;
    if *stored == sum?.to_le_bytes() {
        found
    } else {
        Err(damaged(heap_address, "its checksum does not match"))
    }
}

/// Decodes the mappings of a virtual dataset from its heap `block`, which lies in the collection at `address`.
///
/// `shape` and `chunk_shape` are the dataset's, in elements; `expected_source` is the absolute path of its raw data. The form is
/// [`MappingForm::Chunked`] exactly where each mapping has that source in this file, covers one cell of the chunk grid (cut to the
/// shape) that no other one covers, and takes the leading part of that size of one stored chunk.
///
/// # Errors
/// [`H5Error::Damaged`] where the checksum does not match, an entry cannot be decoded, or there is no chunk grid (shapes of
/// different rank, a chunk axis of 0, more cells than 64 bits count); [`H5Error::Unsupported`] for an unknown version.
pub fn decode_chunk_map(
    block: &[u8],
    address: Address,
    shape: &[u64],
    chunk_shape: &[u64],
    expected_source: &[u8],
) -> Result<MappingForm, H5Error> {
    let body = checksum::verified(block, BLOCK, address)?;
    let entries = Entries::open(body, body.len() as u64, address)?;
    Ok(
        match entries.chunk_map(shape, chunk_shape, expected_source)? {
            Some(map) => MappingForm::Chunked(map),
            None => MappingForm::Irregular(decode_mappings(block, address)?),
        },
    )
}

/// Decodes every mapping of a heap `block`, whatever its form; see [`decode_chunk_map`].
///
/// # Errors
/// As for [`decode_chunk_map`].
pub fn decode_mappings(block: &[u8], address: Address) -> Result<Vec<Mapping>, H5Error> {
    let body = checksum::verified(block, BLOCK, address)?;
    Entries::open(body, body.len() as u64, address)?.mappings()
}

/// The length in bytes and the stored checksum of the mapping block that is `len_bytes` long from `start` on, of which no more is
/// read than that. Different digests mean different mappings; equal ones should be followed by [`blocks_equal`]. `heap_address` is
/// the collection that it lies in.
///
/// # Errors
/// [`H5Error::Damaged`] where it is too short for a block; whatever reading says.
pub fn block_digest(
    reader: &MetaReader,
    heap_address: Address,
    start: Address,
    len_bytes: u64,
) -> Result<(u64, u32), H5Error> {
    let Some(body_bytes) = len_bytes.checked_sub(CHECKSUM_BYTES) else {
        return Err(damaged(heap_address, "it has no checksum"));
    };
    let stored = reader.read(Address(start.0 + body_bytes), CHECKSUM_BYTES)?;
    let checksum = Decoder::new(&stored, BLOCK, heap_address).u32()?;
    Ok((len_bytes, checksum))
}

/// Whether two mapping blocks, each named by its heap collection and index, are the same bytes. An undefined address (a dataset without
/// mappings) equals an undefined address alone.
///
/// # Errors
/// As for [`block_digest`].
pub fn blocks_equal(
    reader: &MetaReader,
    a: (Address, u32),
    b: (Address, u32),
) -> Result<bool, H5Error> {
    if a == b {
        return Ok(true);
    }
    if !a.0.is_defined() || !b.0.is_defined() {
        return Ok(a.0 == b.0);
    }
    let (start_a, len_a) = heap::find_object(reader, a.0, a.1)?;
    let (start_b, len_b) = heap::find_object(reader, b.0, b.1)?;
    if len_a != len_b
        || block_digest(reader, a.0, start_a, len_a)? != block_digest(reader, b.0, start_b, len_b)?
    {
        return Ok(false);
    }
    let mut position = 0;
    while position < len_a {
        let piece_bytes = COMPARE_BYTES.min(len_a - position);
        let piece_a = reader.read(Address(start_a.0 + position), piece_bytes)?;
        let piece_b = reader.read(Address(start_b.0 + position), piece_bytes)?;
        if *piece_a != *piece_b {
            return Ok(false);
        }
        position += piece_bytes;
    }
    Ok(true)
}

/// The name of a source as it is stored: the C library takes `%b` for the number of a block, and `%%` for a percent sign.
pub(crate) fn escaped(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'%') {
        return Cow::Borrowed(name);
    }
    let parts: Vec<&[u8]> = name.split(|&byte| byte == b'%').collect();
    Cow::Owned(parts.join(&b"%%"[..]))
}

fn damaged(address: Address, what: &'static str) -> H5Error {
    H5Error::Damaged {
        structure: BLOCK,
        address,
        what,
    }
}

fn no_grid(address: Address) -> H5Error {
    damaged(address, "its dataset has no chunk grid that can be counted")
}

/// The entries of a block, none taken yet.
struct Entries<S> {
    body: S,
    /// How many; no more than there is room for.
    len: usize,
    /// Whether each has flags.
    flagged: bool,
    address: Address,
}

impl<S: Stretch> Entries<S> {
    /// The entries of a block of `body_bytes` bytes without its checksum.
    fn open(mut body: S, body_bytes: u64, address: Address) -> Result<Self, H5Error> {
        let mut decoder = Decoder::new(body.ahead(), BLOCK, address);
        let version = decoder.u8()?;
        if version > 1 {
            return Err(decoder.unsupported("its version is neither 0 nor 1"));
        }
        let len = decoder.length()?;
        let room = (body_bytes - HEADER_BYTES as u64) / MIN_MAPPING_BYTES as u64;
        match usize::try_from(len) {
            Ok(count) if len <= room => {
                body.pass(HEADER_BYTES)?;
                Ok(Self {
                    body,
                    len: count,
                    flagged: version == 1,
                    address,
                })
            }
            _ => Err(decoder.damaged("it claims more entries than there is room for")),
        }
    }

    /// The map, or `None` where a mapping is not one chunk, or damaged; decoding in full tells which.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where there is no chunk grid; what reading says.
    fn chunk_map(
        mut self,
        shape: &[u64],
        chunk_shape: &[u64],
        expected_source: &[u8],
    ) -> Result<Option<ChunkMap>, H5Error> {
        let map =
            ChunkMapBuilder::new(shape, chunk_shape, self.len).ok_or(no_grid(self.address))?;
        let expected_source = escaped(expected_source);
        let Some(mut cells) =
            CellDecoder::new(map, shape, chunk_shape, &expected_source, self.flagged)
        else {
            return Ok(None);
        };
        let mut left = self.len;
        loop {
            let mut decoder = Decoder::new(self.body.ahead(), BLOCK, self.address);
            let mut taken = 0;
            while left > 0 {
                match cells.take(&mut decoder) {
                    Taken::Chunk => {
                        taken = decoder.position();
                        left -= 1;
                    }
                    Taken::OtherForm => return Ok(None),
                    Taken::Nothing => break,
                }
            }
            // An entry that is all in memory, and was not taken, is of another form.
            let is_other = left > 0 && self.body.ahead().len() - taken >= MAX_ENTRY_BYTES;
            let goes_on = !is_other && self.body.pass(taken)?;
            if left == 0 && !goes_on && self.body.ahead().is_empty() {
                return Ok(cells.finish());
            }
            if left == 0 || !goes_on {
                return Ok(None);
            }
        }
    }
}

impl Entries<&[u8]> {
    /// Every mapping in full. Names are shared with the entry before, so that memory follows the block's length.
    fn mappings(self) -> Result<Vec<Mapping>, H5Error> {
        let mut mappings: Vec<Mapping> = Vec::with_capacity(self.len);
        let decoder = &mut Decoder::new(self.body, BLOCK, self.address);
        for _ in 0..self.len {
            let flags = decode_flags(decoder, self.flagged)?;
            let shared = |decoder: &mut Decoder<'_>| {
                let origin = usize::try_from(decoder.length()?).ok();
                origin
                    .and_then(|origin| mappings.get(origin))
                    .ok_or_else(|| decoder.damaged("an entry shares a name with a later one"))
            };
            let last = mappings.last();
            let named = |name: &[u8], last: Option<&Arc<[u8]>>| match last {
                Some(last) if **last == *name => Arc::clone(last),
                _ => Arc::from(name),
            };
            let source_file = if flags & flag::SAME_FILE != 0 {
                named(THIS_FILE, last.map(|last| &last.source_file))
            } else if flags & flag::FILE_SHARED != 0 {
                Arc::clone(&shared(decoder)?.source_file)
            } else {
                named(decoder.c_string()?, last.map(|last| &last.source_file))
            };
            let source_dataset = if flags & flag::DATASET_SHARED != 0 {
                Arc::clone(&shared(decoder)?.source_dataset)
            } else {
                named(decoder.c_string()?, last.map(|last| &last.source_dataset))
            };
            let source_selection = selection::decode(decoder)?;
            let virtual_selection = selection::decode(decoder)?;
            mappings.push(Mapping {
                source_file,
                source_dataset,
                source_selection,
                virtual_selection,
            });
        }
        match decoder.remaining() {
            0 => Ok(mappings),
            _ => Err(decoder.damaged("it is longer than its entries")),
        }
    }
}

/// What was found where the next entry begins.
enum Taken {
    /// A chunk of the raw data in a cell of the grid.
    Chunk,
    /// An entry, and it is something else.
    OtherForm,
    /// No entry, as far as the bytes go; or one of another form.
    Nothing,
}

/// Decodes entries into a chunk map, one after the other.
struct CellDecoder<'d> {
    map: ChunkMapBuilder,
    shape: &'d [u64],
    chunk_shape: &'d [u64],
    names: ExpectedNames<'d>,
    flagged: bool,
    pattern: Option<Pattern>,
    patterns: u32,
    source: BoxBuffer,
    target: BoxBuffer,
}

impl<'d> CellDecoder<'d> {
    /// `None` for a rank that no selection has.
    fn new(
        map: ChunkMapBuilder,
        shape: &'d [u64],
        chunk_shape: &'d [u64],
        expected_source: &'d [u8],
        flagged: bool,
    ) -> Option<Self> {
        (1..=MAX_RANK).contains(&shape.len()).then(|| Self {
            map,
            shape,
            chunk_shape,
            names: ExpectedNames::new(expected_source),
            flagged,
            pattern: None,
            patterns: 0,
            source: BoxBuffer::new(),
            target: BoxBuffer::new(),
        })
    }

    #[inline]
    fn take(&mut self, decoder: &mut Decoder<'_>) -> Taken {
        let rank = self.shape.len();
        let like_the_last = self.pattern.as_ref().and_then(|last| last.take(decoder));
        let numbers = like_the_last.or_else(|| {
            let found =
                Pattern::decode(decoder, self.flagged, rank, &self.names, &mut self.pattern);
            self.patterns = self.patterns.saturating_add(u32::from(found.is_some()));
            found
        });
        let (Some((source, target)), Some(forms)) = (numbers, &self.pattern) else {
            return Taken::Nothing;
        };
        let is_unpacked = forms
            .source
            .unpack(source, rank, &mut self.source)
            .is_some()
            && forms
                .target
                .unpack(target, rank, &mut self.target)
                .is_some();
        self.names.passed += 1;
        if is_unpacked && self.insert().is_some() {
            Taken::Chunk
        } else {
            Taken::OtherForm
        }
    }

    /// Puts the boxes that were decoded last into the map; `None` where they are not those of one chunk.
    #[inline]
    fn insert(&mut self) -> Option<()> {
        let (source, target) = (&self.source, &self.target);
        let mut cell = 0;
        for axis in 0..self.shape.len() {
            let (start, chunk) = (target.start[axis], self.chunk_shape[axis]);
            let number = start / chunk;
            // A start beyond the shape leaves no element, and no box has none.
            let extent = self.shape[axis].saturating_sub(start).min(chunk);
            if number * chunk != start
                || target.len[axis] != extent
                || source.len[axis] != extent
                || (axis > 0 && source.start[axis] != 0)
            {
                return None;
            }
            cell = cell * self.map.grid()[axis] + number;
        }
        let stored = source.start[0] / self.chunk_shape[0];
        (stored * self.chunk_shape[0] == source.start[0] && self.map.insert(cell, stored))
            .then_some(())
    }

    fn finish(mut self) -> Option<ChunkMap> {
        if let (1, true, false, Some(pattern)) = (
            self.patterns,
            self.map.is_in_order(),
            self.flagged,
            &self.pattern,
        ) {
            self.map.set_entry_bytes(pattern.len_bytes() as u64);
        }
        self.map.finish()
    }
}

fn decode_flags(decoder: &mut Decoder<'_>, flagged: bool) -> Result<u8, H5Error> {
    let flags = if flagged { decoder.u8()? } else { 0 };
    if flags & !flag::ALL != 0 {
        return Err(decoder.damaged("an entry has unknown flags"));
    }
    Ok(flags)
}

/// What an entry is but for its boxes' numbers: nearly always the next entry is the same, and then needs no decoding.
struct Pattern {
    /// Names and the header of the source selection.
    head: Vec<u8>,
    /// What follows that header.
    source: BoxForm,
    source_bytes: usize,
    /// The header of the virtual selection.
    middle: Vec<u8>,
    /// What follows that header.
    target: BoxForm,
    target_bytes: usize,
}

impl Pattern {
    /// Takes the next entry and keeps its pattern. The stored numbers of its source box and of its virtual box, or `None` where the
    /// names are not those expected or the selections, by their headers, not boxes.
    fn decode<'a>(
        decoder: &mut Decoder<'a>,
        flagged: bool,
        rank: usize,
        names: &ExpectedNames<'_>,
        keep: &mut Option<Self>,
    ) -> Option<(&'a [u8], &'a [u8])> {
        let taken =
            |before: &'a [u8], decoder: &Decoder<'a>| &before[..before.len() - decoder.remaining()];
        let before = decoder.rest();
        names.decode(decoder, flagged)?;
        let source = BoxForm::decode(decoder, rank)?;
        let head = taken(before, decoder);
        let source_numbers = decoder.take(source.len_bytes(rank)).ok()?;
        let before = decoder.rest();
        let target = BoxForm::decode(decoder, rank)?;
        let middle = taken(before, decoder);
        let target_numbers = decoder.take(target.len_bytes(rank)).ok()?;
        *keep = Some(Self {
            head: head.to_vec(),
            source,
            source_bytes: source_numbers.len(),
            middle: middle.to_vec(),
            target,
            target_bytes: target_numbers.len(),
        });
        Some((source_numbers, target_numbers))
    }

    /// Length of an entry like this one.
    fn len_bytes(&self) -> usize {
        self.head.len() + self.source_bytes + self.middle.len() + self.target_bytes
    }

    /// Takes the next entry if it is like this one: the stored numbers of its source box and of its virtual box.
    #[inline]
    fn take<'a>(&self, decoder: &mut Decoder<'a>) -> Option<(&'a [u8], &'a [u8])> {
        let rest = decoder.rest();
        let (source, behind) = rest
            .strip_prefix(&*self.head)?
            .split_at_checked(self.source_bytes)?;
        let (target, behind) = behind
            .strip_prefix(&*self.middle)?
            .split_at_checked(self.target_bytes)?;
        decoder.skip(rest.len() - behind.len()).ok()?;
        Some((source, target))
    }
}

/// Holds the names of each entry against those that a chunk of the expected source has.
struct ExpectedNames<'a> {
    source: &'a [u8],
    any_file: bool,
    /// How many entries went by, all of them with the expected names.
    passed: u64,
}

impl<'a> ExpectedNames<'a> {
    fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            any_file: source.starts_with(OWN_DATA),
            passed: 0,
        }
    }

    /// Takes the flags and names of the next entry; `None` where they are not the expected ones.
    fn decode(&self, decoder: &mut Decoder<'_>, flagged: bool) -> Option<()> {
        let flags = decode_flags(decoder, flagged).ok()?;
        if flags & flag::SAME_FILE == 0 {
            if flags & flag::FILE_SHARED != 0 {
                self.check_origin(decoder)?;
            } else if decoder.c_string().ok()? != THIS_FILE && !self.any_file {
                return None;
            }
        }
        if flags & flag::DATASET_SHARED != 0 {
            self.check_origin(decoder)
        } else {
            (decoder.c_string().ok()? == self.source).then_some(())
        }
    }

    /// Takes the number of the entry whose name is shared. Each one that went by has the expected names.
    fn check_origin(&self, decoder: &mut Decoder<'_>) -> Option<()> {
        (decoder.length().ok()? < self.passed).then_some(())
    }
}

#[cfg(test)]
mod tests;
