//! A dataset as a complete .npy file: a header, and behind it the elements as they are stored.
//!
//! The data is read as the raw file's is, from an offset that is smaller by the header's length; nothing is made ahead. Variable-length strings alone have no
//! stored form that NumPy knows: they become `<U` of the longest element, made as it is read.

mod given;
mod header;
mod wide_text;

use std::sync::Arc;

pub use given::{Beginning, NpyElement, NpyError, NpyHeader};
pub use wide_text::{WideTextError, count_chars, write_line_of_wide, write_wide};

use self::given::CHARACTER_BYTES;
use super::{Dataset, OpenDataset, Snapshot, StoreError, VersionIndex, VersionKey, VersionedFile};
use crate::h5::{DatasetHeader, Dataspace, Datatype, ObjectHeader};

/// The most axes that every NumPy knows.
const MAX_AXES: usize = 32;
/// Wide text may always be of this many bytes.
const ALWAYS_FAIR_WIDE_BYTES: u64 = 1 << 30;
/// And of this many for each byte of text: more is nearly all padding.
const FAIR_WIDE_RATIO: u64 = 64;

/// A dataset's .npy file: its header, and how the data behind it is made.
#[derive(Debug, Clone)]
pub struct Npy {
    header: Arc<[u8]>,
    data_bytes: u64,
    /// Bytes of an element where it is made of text; otherwise elements are as they are stored.
    wide_element_bytes: Option<u64>,
}

impl Npy {
    /// `None` where it is longer than a file can be.
    fn new(header: Vec<u8>, data_bytes: u64, wide_element_bytes: Option<u64>) -> Option<Self> {
        let len_bytes = data_bytes.checked_add(header.len() as u64)?;
        i64::try_from(len_bytes).is_ok().then(|| Self {
            header: header.into(),
            data_bytes,
            wide_element_bytes,
        })
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.header_bytes() + self.data_bytes
    }

    fn header_bytes(&self) -> u64 {
        self.header.len() as u64
    }
}

/// A .npy file that was opened for reading; it goes on being the same array whatever becomes of the versioned file.
#[derive(Debug)]
pub struct OpenNpy {
    dataset: Arc<OpenDataset>,
    npy: Npy,
}

impl OpenNpy {
    /// What its data is read from.
    pub(crate) fn dataset(&self) -> &Arc<OpenDataset> {
        &self.dataset
    }

    /// What comes before the data.
    #[must_use]
    pub fn header(&self) -> Arc<[u8]> {
        self.npy.header.clone()
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.npy.len_bytes()
    }
}

/// What of a .npy file follows from the type and the shape alone.
enum Form {
    /// The header; behind it, elements are as they are stored.
    Stored(Vec<u8>),
    /// Text, whose header names the longest element.
    Text,
}

/// `None` where NumPy has no such array.
fn form(dataset: &DatasetHeader) -> Option<Form> {
    if dataset.dataspace == Dataspace::Null {
        return None;
    }
    let shape = dataset.dataspace.shape();
    if dataset.datatype.is_vlen_string() {
        return (shape.len() <= MAX_AXES).then_some(Form::Text);
    }
    npy_header(&dataset.datatype, shape).map(Form::Stored)
}

/// The header of the .npy file of an array whose elements are as they are stored; `None` where NumPy has no such array.
#[must_use]
pub fn npy_header(datatype: &Datatype, shape: &[u64]) -> Option<Vec<u8>> {
    let (descr, inner_axes) = header::descr(datatype)?;
    let shape = [shape, &inner_axes].concat();
    if shape.len() > MAX_AXES {
        return None;
    }
    header::header(&descr, &shape)
}

/// The header of the .npy file of strings of up to so many characters, of which there is at least one, as NumPy has none of none.
#[must_use]
pub fn npy_text_header(chars: u64, shape: &[u64]) -> Option<Vec<u8>> {
    header::header(&format!("'<U{chars}'"), shape)
}

/// Bytes of an array of `elements` strings of up to `chars` characters; `None` where it would be nearly all padding to the `text_bytes` that
/// there are, or where NumPy has no such element.
#[must_use]
pub fn fair_wide_bytes(elements: u64, chars: u64, text_bytes: u64) -> Option<u64> {
    let element_bytes = chars.checked_mul(CHARACTER_BYTES)?;
    i32::try_from(element_bytes).ok()?;
    let data_bytes = elements.checked_mul(element_bytes)?;
    let is_fair =
        data_bytes <= ALWAYS_FAIR_WIDE_BYTES || data_bytes / FAIR_WIDE_RATIO <= text_bytes;
    is_fair.then_some(data_bytes)
}

impl Dataset {
    /// The dataset as a .npy file; `None` where NumPy has no such type. The longest of variable-length strings has to be found for that the
    /// first time, which reads them all.
    ///
    /// # Errors
    /// Damage of the text; [`StoreError::TooWide`].
    pub fn npy(&self) -> Result<Option<Npy>, StoreError> {
        let Some(form) = form(&self.header) else {
            return Ok(None);
        };
        match form {
            Form::Stored(header) => {
                let data_bytes = self.len_bytes()?;
                Ok(Npy::new(header, data_bytes, None))
            }
            Form::Text => self.wide_npy(),
        }
    }

    fn wide_npy(&self) -> Result<Option<Npy>, StoreError> {
        let Some(text) = self.rendered() else {
            return Ok(None);
        };
        // NumPy has no strings of no characters.
        let longest_chars = text.longest_chars()?.max(1);
        let elements = self.header.dataspace.len().unwrap_or(u64::MAX);
        let element_bytes = longest_chars.saturating_mul(CHARACTER_BYTES);
        let text_bytes = match elements.saturating_mul(element_bytes) {
            // Not to be known where it makes no difference.
            ..=ALWAYS_FAIR_WIDE_BYTES => 0,
            _ => text.len_bytes()?,
        };
        let Some(data_bytes) = fair_wide_bytes(elements, longest_chars, text_bytes) else {
            return Err(StoreError::TooWide {
                dataset: self.path.to_vec(),
                longest_chars,
                len_bytes: elements.saturating_mul(element_bytes),
            });
        };
        let header = npy_text_header(longest_chars, self.header.dataspace.shape());
        Ok(header.and_then(|header| Npy::new(header, data_bytes, Some(element_bytes))))
    }

    /// Fills `buffer` with the data behind the header, made of text, from `offset` on, as far as it goes, and says how many bytes
    /// there were.
    fn read_wide_at(
        &self,
        npy: &Npy,
        element_bytes: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StoreError> {
        let left = usize::try_from(npy.data_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        if let Some(text) = self.rendered()
            && count > 0
        {
            text.read_wide_exact_at(element_bytes, offset, &mut buffer[..count])?;
        }
        Ok(count)
    }
}

impl Snapshot {
    /// Whether the dataset at `path` of a version has a .npy file: NumPy knows its type. One whose header is damaged has one that cannot be
    /// read.
    ///
    /// # Errors
    /// Damage of the version's group.
    pub fn has_npy(&self, version: VersionIndex, path: &[u8]) -> Result<bool, StoreError> {
        let tree = self.tree(version)?;
        let Some(child) = tree.child(path) else {
            return Ok(false);
        };
        let header = self.file.settled(|| {
            let reader = self.file.h5.reader();
            Ok(ObjectHeader::read(&reader, child.header)
                .and_then(|object| DatasetHeader::read(&reader, &object)))
        })?;
        Ok(header.map_or(true, |header| form(&header).is_some()))
    }
}

impl VersionedFile {
    /// Opens the dataset at `path` of a version as a .npy file; `None` where NumPy does not know its type.
    ///
    /// # Errors
    /// [`StoreError::VersionGone`], [`StoreError::TooWide`], or damage of the dataset's metadata or text.
    pub fn open_npy(
        &self,
        version: &VersionKey,
        path: &Arc<[u8]>,
    ) -> Result<Option<OpenNpy>, StoreError> {
        let dataset = Arc::new(self.open_dataset(version, path)?);
        let npy = self.ask_dataset(&dataset, Dataset::npy)?;
        Ok(npy.map(|npy| OpenNpy { dataset, npy }))
    }

    /// Fills `buffer` with bytes of an open .npy file from `offset` on, as far as they go, and says how many there were.
    ///
    /// # Errors
    /// As for [`VersionedFile::read_dataset`].
    pub fn read_npy(
        &self,
        open: &OpenNpy,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StoreError> {
        let OpenNpy { dataset, npy } = open;
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let header = npy.header.get(skip..).unwrap_or_default();
        let (start, rest) = buffer.split_at_mut(header.len().min(buffer.len()));
        start.copy_from_slice(&header[..start.len()]);
        if rest.is_empty() {
            return Ok(start.len());
        }
        let offset = (offset + start.len() as u64).saturating_sub(npy.header_bytes());
        let count = match npy.wide_element_bytes {
            None => self.read_dataset(dataset, offset, rest)?,
            Some(element_bytes) => self.read_settled(
                dataset,
                rest,
                |dataset, rest| dataset.read_wide_at(npy, element_bytes, offset, rest),
                |dataset, _| Err(dataset.file.unsettled()),
            )?,
        };
        Ok(start.len() + count)
    }

    /// As [`Dataset::seek`] has it, for an open .npy file. The header is data.
    ///
    /// # Errors
    /// Damage.
    pub fn seek_npy(
        &self,
        open: &OpenNpy,
        offset: u64,
        for_hole: bool,
    ) -> Result<Option<u64>, StoreError> {
        let OpenNpy { dataset, npy } = open;
        let (header_bytes, len_bytes) = (npy.header_bytes(), npy.len_bytes());
        if offset >= len_bytes {
            return Ok(None);
        }
        if !for_hole && offset < header_bytes {
            return Ok(Some(offset));
        }
        if npy.wide_element_bytes.is_some() {
            return Ok(Some(if for_hole { len_bytes } else { offset }));
        }
        let in_data = offset.saturating_sub(header_bytes);
        let found = self.ask_dataset(dataset, |dataset| dataset.seek(in_data, for_hole))?;
        Ok(match found {
            Some(found) => Some(found + header_bytes),
            // Of an array without elements, what ends is the header.
            None => for_hole.then_some(len_bytes),
        })
    }
}
