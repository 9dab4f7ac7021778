//! One dataset of one version: its type and shape, and its bytes.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::attributes::HeapValues;
use super::by_library::ByLibrary;
use super::cache::ChunkCache;
use super::chunked::Chunked;
use super::file_state::FileState;
use super::history::{VersionIndex, VersionKey};
use super::map_cache::{MapCache, MapKey};
use super::raw_data::{
    FAIR_RATIO, Proof, RawData, dataset_of_raw_data, most_fair_bytes, raw_data_path,
};
use super::rendered::Rendered;
use super::snapshot::Snapshot;
use super::tree::{Child, ChildKind};
use super::{StoreError, json};
use crate::h5::heap;
use crate::h5::mapping::{self, ChunkMap, Mapping, MappingForm};
use crate::h5::{
    self, Address, Class, DatasetHeader, Dataspace, Datatype, Filter, H5Error, Layout, MetaReader,
    ObjectHeader,
};

/// So many elements of a variable-length type are never refused.
const ALWAYS_FAIR_POINTERS: u64 = 1 << 28;
/// Bytes of one such element.
const POINTER_BYTES: u64 = 16;
/// Lengths and the like of rendered parts that are kept.
const KEPT_MEASURES: usize = 1 << 18;

/// What all datasets of a mount share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Decoded chunks and rendered text.
    pub(crate) cache: ChunkCache,
    /// Chunk maps.
    pub(crate) maps: MapCache,
    /// Where chunks are decoded.
    pub(crate) workers: rayon::ThreadPool,
    /// What was found of rendered parts, such as their lengths, by the chunks that they come from.
    pub(crate) rendered_measures: Cache<Box<[u64]>, u64>,
}

impl Shared {
    pub(crate) fn new(cache_bytes: u64, workers: rayon::ThreadPool) -> Self {
        Self {
            cache: ChunkCache::new(cache_bytes),
            maps: MapCache::new(),
            workers,
            rendered_measures: Cache::new(KEPT_MEASURES),
        }
    }
}

/// A dataset, ready to be read in the state of the file in which it was opened.
#[derive(Debug)]
pub struct Dataset {
    /// The version that it was opened for; others may share it.
    pub version: VersionKey,
    /// Its path below the version.
    pub path: Arc<[u8]>,
    /// Its type, shape and fill value.
    pub header: DatasetHeader,
    /// The shape of its chunks, in elements; empty where it has none.
    pub chunk_shape: Vec<u64>,
    /// The filters that its chunks went through.
    pub filters: Vec<Filter>,
    pub(crate) file: Arc<FileState>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Elements as they are stored.
    Stored(Elements),
    /// Text made of elements that are pointers.
    Rendered(Box<Rendered>),
}

/// The elements of a dataset, as they are stored.
#[derive(Debug)]
pub(crate) enum Elements {
    /// In the chunks of raw data.
    Chunked(Box<Chunked>),
    /// In the object itself: not a form that versioned-hdf5 makes today, but a legal one for what is small or empty.
    Inline(Vec<u8>),
    /// In a form that only the C library reads.
    ByLibrary(ByLibrary),
}

/// The mappings of a dataset.
enum Mapped {
    Chunked(Arc<ChunkMap>),
    Irregular(Vec<Mapping>),
}

/// A dataset that is being opened.
struct Opening<'o> {
    snapshot: &'o Snapshot,
    shared: &'o Arc<Shared>,
    version: VersionIndex,
    key: VersionKey,
    child: &'o Child,
    reader: MetaReader,
}

impl Opening<'_> {
    fn header(&self) -> Result<DatasetHeader, StoreError> {
        ObjectHeader::read(&self.reader, self.child.header)
            .and_then(|object| DatasetHeader::read(&self.reader, &object))
            .map_err(|error| self.damaged(error))
    }

    /// The raw data of its own path, or, for a dataset that was given another name, that which its mappings name.
    fn raw_data(&self, header: &DatasetHeader) -> Result<Option<Arc<RawData>>, StoreError> {
        let own = self.snapshot.raw_data(self.version, &self.child.path)?;
        let Layout::Virtual {
            heap_address,
            heap_index,
        } = header.layout
        else {
            return Ok(own);
        };
        if own.is_some() || !heap_address.is_defined() {
            return Ok(own);
        }
        let mappings = heap::read_object(&self.reader, heap_address, heap_index)
            .and_then(|block| mapping::decode_mappings(&block, heap_address))
            .map_err(|error| self.damaged(error))?;
        let source = mappings.first().map(|mapping| &*mapping.source_dataset);
        let Some(path) = source.and_then(dataset_of_raw_data) else {
            return Ok(None);
        };
        self.snapshot.raw_data(self.version, &Arc::from(path))
    }

    /// Where the elements are, which take `len_bytes` in all.
    fn elements(
        &self,
        header: &DatasetHeader,
        raw_data: Option<Arc<RawData>>,
        len_bytes: u64,
    ) -> Result<Elements, StoreError> {
        match &header.layout {
            Layout::Virtual {
                heap_address,
                heap_index,
            } => self.mapped_elements(header, raw_data, (*heap_address, *heap_index), len_bytes),
            Layout::Compact(bytes) if bytes.len() as u64 == len_bytes => {
                Ok(Elements::Inline(bytes.clone()))
            }
            _ if len_bytes == 0 => Ok(Elements::Inline(Vec::new())),
            _ if raw_data.is_some() => {
                Err(self.inconsistent("it has raw_data, and does not map it"))
            }
            _ => {
                check_stored(&self.reader, header, len_bytes)
                    .map_err(|error| self.damaged(error))?;
                self.by_library(header, len_bytes)
            }
        }
    }

    fn mapped_elements(
        &self,
        header: &DatasetHeader,
        raw_data: Option<Arc<RawData>>,
        block: (Address, u32),
        len_bytes: u64,
    ) -> Result<Elements, StoreError> {
        let shape = header.dataspace.shape();
        let chunk_shape = match &raw_data {
            Some(raw_data) => raw_data.chunk_shape.clone(),
            // Nothing can be mapped, and all of it is fill value: one chunk will do.
            None => shape.iter().map(|&extent| extent.max(1)).collect(),
        };
        let source = raw_data_path(raw_data.as_ref().map_or(&self.child.path, |raw| &raw.path));
        let form = self.mapped(block, shape, &chunk_shape, raw_data.as_deref(), &source)?;
        let types_differ = raw_data
            .as_ref()
            .is_some_and(|raw| raw.header.datatype != header.datatype);
        if types_differ {
            return Err(self.inconsistent("its type is not that of its raw_data"));
        }
        match (form, raw_data) {
            (Mapped::Chunked(map), None) if map.len_mapped() > 0 => {
                Err(self.inconsistent("its raw_data is missing"))
            }
            (Mapped::Chunked(map), raw_data) => {
                let was_complete = self.snapshot.was_complete(self.version, &self.child.path);
                Chunked::new(
                    self.shared.clone(),
                    &self.key,
                    header,
                    &chunk_shape,
                    map,
                    raw_data,
                    was_complete,
                )
                .map(|chunked| Elements::Chunked(Box::new(chunked)))
                .ok_or_else(|| self.inconsistent("its shape and its chunks do not fit together"))
            }
            (Mapped::Irregular(_), None) => Err(self.inconsistent("its raw_data is missing")),
            (Mapped::Irregular(mappings), Some(raw_data)) => {
                // The C library takes `%` for a format, and `%%` for what it says.
                let escaped = source.split(|&byte| byte == b'%').collect::<Vec<_>>();
                let escaped = escaped.join(&b"%%"[..]);
                let is_own = |mapping: &Mapping| {
                    *mapping.source_file == *b"."
                        && (*mapping.source_dataset == *source
                            || *mapping.source_dataset == *escaped)
                };
                if !mappings.iter().all(is_own) {
                    return Err(self.inconsistent("it maps something that is not its raw_data"));
                }
                raw_data.check()?;
                self.by_library(header, len_bytes)
            }
        }
    }

    /// The mappings in `block`, out of memory where they were met before.
    fn mapped(
        &self,
        block: (Address, u32),
        shape: &[u64],
        chunk_shape: &[u64],
        raw_data: Option<&RawData>,
        source: &[u8],
    ) -> Result<Mapped, StoreError> {
        let place = match &self.child.kind {
            ChildKind::Dataset(Ok(signature)) => signature.mapping,
            _ => None,
        };
        let key = raw_data
            .zip(place)
            .filter(|(_, place)| (place.heap, place.index) == block)
            .map(|(raw_data, place)| MapKey::new(raw_data.epoch, &place, shape));
        let known = key.as_ref().and_then(|key| self.shared.maps.get(key));
        if let Some(map) = known {
            return Ok(Mapped::Chunked(map));
        }
        let form = self.snapshot.file.settled(|| {
            mapping::read_chunk_map(&self.reader, block, shape, chunk_shape, source)
                .map_err(|error| self.damaged(error))
        })?;
        Ok(match form {
            MappingForm::Chunked(map) => {
                let map = Arc::new(map);
                if let Some(key) = key {
                    self.shared.maps.insert(key, Arc::clone(&map));
                }
                Mapped::Chunked(map)
            }
            MappingForm::Irregular(mappings) => Mapped::Irregular(mappings),
        })
    }

    /// The text of pointers has to be made to know its length; of more than these, no file holds any.
    fn check_pointers(&self, header: &DatasetHeader, elements: u64) -> Result<(), StoreError> {
        let most = self.reader.len_bytes().saturating_mul(FAIR_RATIO) / POINTER_BYTES;
        if header.datatype.contains_pointers() && elements > most.max(ALWAYS_FAIR_POINTERS) {
            return Err(
                self.inconsistent("it has more variable-length elements than the file can hold")
            );
        }
        Ok(())
    }

    fn by_library(&self, header: &DatasetHeader, len_bytes: u64) -> Result<Elements, StoreError> {
        let file = self.snapshot.file.clone();
        ByLibrary::new(file, &self.key, &self.child.path, header, len_bytes)
            .map(Elements::ByLibrary)
    }

    fn damaged(&self, error: H5Error) -> StoreError {
        StoreError::Object {
            version: self.key.name.to_vec(),
            object: self.child.path.to_vec(),
            error,
        }
    }

    fn inconsistent(&self, what: &'static str) -> StoreError {
        StoreError::Inconsistent {
            version: self.key.name.to_vec(),
            dataset: self.child.path.to_vec(),
            what,
        }
    }
}

impl Dataset {
    /// Begins to read what the first edit of some of its bytes needs, beside its fingerprint, and to set up the C library for a commit.
    pub(crate) fn expect_edit(&self) {
        if let Some(chunked) = self.chunked() {
            chunked.expect_edit();
        }
    }

    pub(crate) fn open(
        snapshot: &Arc<Snapshot>,
        shared: &Arc<Shared>,
        version: VersionIndex,
        child: &Child,
    ) -> Result<Self, StoreError> {
        let opening = Opening {
            snapshot,
            shared,
            version,
            key: snapshot.history().version(version).key.clone(),
            child,
            reader: snapshot.file.h5.reader(),
        };
        let header = opening.header()?;
        let element_bytes = header.datatype.size as u64;
        let len_bytes = header
            .dataspace
            .len()
            .and_then(|elements| elements.checked_mul(element_bytes))
            .filter(|&bytes| element_bytes > 0 && i64::try_from(bytes).is_ok())
            .ok_or_else(|| opening.inconsistent("it is longer than a file can be"))?;
        if element_bytes > most_fair_bytes(&opening.reader) {
            return Err(opening.inconsistent("its elements are larger than the file can hold"));
        }
        opening.check_pointers(&header, len_bytes / element_bytes)?;
        let raw_data = opening.raw_data(&header)?;
        let (chunk_shape, filters) = match &raw_data {
            Some(raw_data) => (
                raw_data.chunk_shape.clone(),
                raw_data.header.filters.clone(),
            ),
            None => (Vec::new(), Vec::new()),
        };
        let elements = opening.elements(&header, raw_data, len_bytes)?;
        let content = if header.datatype.contains_pointers() {
            let (shared, file) = (shared.clone(), snapshot.file.clone());
            Content::Rendered(Box::new(Rendered::new(
                shared,
                file,
                child.path.clone(),
                &header,
                elements,
            )))
        } else {
            Content::Stored(elements)
        };
        Ok(Self {
            version: opening.key,
            path: child.path.clone(),
            header,
            chunk_shape,
            filters,
            file: snapshot.file.clone(),
            content,
        })
    }

    /// Its chunks; `None` for one that is not stored in chunks, or maps them in a form of its own.
    pub(crate) fn chunked(&self) -> Option<&Chunked> {
        let elements = match &self.content {
            Content::Stored(elements) => elements,
            Content::Rendered(rendered) => rendered.elements(),
        };
        match elements {
            Elements::Chunked(chunked) => Some(chunked),
            _ => None,
        }
    }

    /// The text that it is shown as; `None` where its elements are shown as they are stored.
    pub(super) fn rendered(&self) -> Option<&Rendered> {
        match &self.content {
            Content::Rendered(rendered) => Some(rendered),
            Content::Stored(_) => None,
        }
    }

    /// The type of its elements.
    #[must_use]
    pub fn datatype(&self) -> &Datatype {
        &self.header.datatype
    }

    /// The fill value as an attribute would show it.
    ///
    /// # Errors
    /// Damage of a variable-length fill value.
    pub fn fill_value_text(&self) -> Result<Vec<u8>, StoreError> {
        let zeros = vec![0; self.header.datatype.size];
        let fill = self.header.fill_value.as_deref().unwrap_or(&zeros);
        if matches!(self.header.datatype.class, Class::FixedString { .. }) && fill == zeros {
            // Whatever its padding, a string of nothing but NULs is empty.
            return Ok(Vec::new());
        }
        let reader = self.file.h5.reader();
        json::attribute_text(
            &self.header.datatype,
            &Dataspace::Scalar,
            fill,
            &HeapValues::new(&reader),
        )
        .map_err(|error| StoreError::Value {
            dataset: self.path.to_vec(),
            first_element: 0,
            error,
        })
    }

    /// Length of its file in bytes. Text has to be read for that the first time.
    ///
    /// # Errors
    /// Damage of the text.
    pub fn len_bytes(&self) -> Result<u64, StoreError> {
        match &self.content {
            Content::Stored(elements) => Ok(elements.len_bytes()),
            Content::Rendered(rendered) => rendered.len_bytes(),
        }
    }

    /// Bytes that its chunks take in the file, each counted once.
    ///
    /// # Errors
    /// Damage of the chunk index.
    pub fn stored_bytes(&self) -> Result<u64, StoreError> {
        match &self.content {
            Content::Stored(elements) => elements.stored_bytes(),
            Content::Rendered(rendered) => rendered.elements().stored_bytes(),
        }
    }

    /// Fills `buffer` with the file's bytes from `offset` on, as far as they go, and says how many there were.
    ///
    /// # Errors
    /// A chunk that is missing, damaged or unreadable.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let len_bytes = self.len_bytes()?;
        let left = usize::try_from(len_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let buffer = &mut buffer[..count];
        if count > 0 {
            match &self.content {
                Content::Stored(elements) => elements.read_exact_at(offset, buffer)?,
                Content::Rendered(rendered) => rendered.read_exact_at(offset, buffer)?,
            }
        }
        Ok(count)
    }

    /// The same from chunks whose hashes prove them right, while the file may be written to. Where this succeeds, the bytes are right.
    ///
    /// # Errors
    /// Where there is no proof.
    pub(crate) fn read_proven_at(
        &self,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StoreError> {
        let Content::Stored(Elements::Chunked(chunked)) = &self.content else {
            return Err(self.file.unsettled());
        };
        let left = usize::try_from(chunked.len_bytes().saturating_sub(offset));
        let count = left.unwrap_or(usize::MAX).min(buffer.len());
        if count > 0 {
            chunked.read_proven_at(offset, &mut buffer[..count], Proof::Hash)?;
        }
        Ok(count)
    }

    /// The first byte at `offset` or behind it that is data, or that is a hole; holes are unmapped chunks that read as
    /// zeros. There is a hole at the end. `None` where there is none.
    ///
    /// # Errors
    /// Damage.
    pub fn seek(&self, offset: u64, for_hole: bool) -> Result<Option<u64>, StoreError> {
        let len_bytes = self.len_bytes()?;
        if offset >= len_bytes {
            return Ok(None);
        }
        let found = match &self.content {
            Content::Stored(Elements::Chunked(chunked)) => chunked.seek(offset, for_hole),
            _ if for_hole => None,
            _ => Some(offset),
        };
        Ok(if for_hole {
            Some(found.unwrap_or(len_bytes))
        } else {
            found
        })
    }
}

/// Whether a dataset that is not virtual, and not stored in its header, lies in the file as its header says: the C library,
/// which is to read it, is not made for damaged files.
pub(super) fn check_stored(
    reader: &MetaReader,
    header: &DatasetHeader,
    len_bytes: u64,
) -> Result<(), H5Error> {
    match header.layout {
        Layout::Contiguous { address, .. } if address.is_defined() => {
            reader.file_offset(address, len_bytes).map(|_| ())
        }
        Layout::Chunked { .. } => h5::read_chunk_index(reader, header).map(|_| ()),
        _ => Ok(()),
    }
}

impl Elements {
    pub(crate) fn len_bytes(&self) -> u64 {
        match self {
            Self::Chunked(chunked) => chunked.len_bytes(),
            Self::Inline(bytes) => bytes.len() as u64,
            Self::ByLibrary(elements) => elements.len_bytes(),
        }
    }

    pub(crate) fn stored_bytes(&self) -> Result<u64, StoreError> {
        match self {
            Self::Chunked(chunked) => chunked.stored_bytes(),
            Self::Inline(bytes) => Ok(bytes.len() as u64),
            Self::ByLibrary(elements) => Ok(elements.len_bytes()),
        }
    }

    /// Fills `buffer` with bytes that must lie within the elements.
    pub(crate) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        match self {
            Self::Chunked(chunked) => chunked.read_exact_at(offset, buffer),
            Self::Inline(bytes) => {
                let start = usize::try_from(offset).expect("within a vector");
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            Self::ByLibrary(elements) => elements.read_exact_at(offset, buffer),
        }
    }
}
