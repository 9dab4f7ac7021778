//! Datasets whose elements are pointers, as text: rendered a part at a time, so that memory does not grow with the dataset.

use std::sync::Arc;

use rayon::prelude::*;

use super::StoreError;
use super::attributes::HeapValues;
use super::cache::ChunkKey;
use super::dataset::{Elements, Shared};
use super::file_state::{FileState, Kept, new_epoch};
use super::json::ValueError;
use super::npy::count_chars;
use super::text;
use crate::h5::{DatasetHeader, Datatype};

/// Elements that are rendered together.
pub(super) const PART_ELEMENTS: u64 = 4096;

/// A part's text may always be of this many bytes.
const ALWAYS_FAIR_TEXT_BYTES: u64 = 64 << 20;
/// And of this many for each byte of the file; a longer one comes of pointers to the same data over and over.
const FAIR_TEXT_RATIO: u64 = 32;

/// What is to be known of each part before any of it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Bytes of the text.
    LenBytes,
    /// Characters of the longest string.
    LongestChars,
}

impl Measure {
    fn of(self, text: &[u8]) -> u64 {
        match self {
            Self::LenBytes => text.len() as u64,
            Self::LongestChars => text::made_strings(text)
                .iter()
                .map(|string| count_chars(string))
                .max()
                .unwrap_or(0),
        }
    }
}

/// A dataset of variable-length strings or other pointers.
#[derive(Debug)]
pub(crate) struct Rendered {
    shared: Arc<Shared>,
    file: Arc<FileState>,
    path: Arc<[u8]>,
    datatype: Datatype,
    elements: Elements,
    element_count: u64,
    /// Under which its parts are cached.
    epoch: u64,
    /// First byte of each part, and the length of all.
    ends: Kept<Vec<u64>>,
    /// Characters of the longest string.
    longest_chars: Kept<u64>,
}

impl Rendered {
    pub(crate) fn new(
        shared: Arc<Shared>,
        file: Arc<FileState>,
        path: Arc<[u8]>,
        header: &DatasetHeader,
        elements: Elements,
    ) -> Self {
        Self {
            shared,
            file,
            path,
            datatype: header.datatype.clone(),
            element_count: elements.len_bytes() / header.datatype.size as u64,
            elements,
            epoch: new_epoch(),
            ends: Kept::default(),
            longest_chars: Kept::default(),
        }
    }

    /// The pointers themselves.
    pub(crate) fn elements(&self) -> &Elements {
        &self.elements
    }

    /// Length of all text. Renders everything once; what other versions share is not rendered again.
    pub(crate) fn len_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.ends()?.last().copied().unwrap_or(0))
    }

    /// Fills `buffer` with text that must lie within the whole.
    pub(crate) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let ends = self.ends()?;
        let mut done = 0;
        let mut part = ends.partition_point(|&end| end <= offset);
        while done < buffer.len() {
            let begin = if part == 0 { 0 } else { ends[part - 1] };
            let text = self.part(part as u64)?;
            let skip =
                usize::try_from(offset + done as u64 - begin).expect("within a part in memory");
            let piece = text
                .get(skip..)
                .filter(|piece| !piece.is_empty())
                .unwrap_or_default();
            let count = piece.len().min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&piece[..count]);
            done += count;
            part += 1;
        }
        Ok(())
    }

    fn ends(&self) -> Result<&[u64], StoreError> {
        self.ends
            .get_or_read(&self.file, || {
                Ok(self
                    .measures(Measure::LenBytes)?
                    .into_iter()
                    .scan(0u64, |end, length| {
                        *end = end.saturating_add(length);
                        Some(*end)
                    })
                    .collect())
            })
            .map(Vec::as_slice)
    }

    /// Characters of the longest string, a byte that is not UTF-8 counted as one. Renders everything once; what other versions share is not
    /// rendered again.
    pub(super) fn longest_chars(&self) -> Result<u64, StoreError> {
        self.longest_chars
            .get_or_read(&self.file, || {
                let longest = self.measures(Measure::LongestChars)?;
                Ok(longest.into_iter().max().unwrap_or(0))
            })
            .copied()
    }

    fn measures(&self, measure: Measure) -> Result<Vec<u64>, StoreError> {
        let parts = self.element_count.div_ceil(PART_ELEMENTS);
        self.shared.workers.install(|| {
            (0..parts)
                .into_par_iter()
                .map(|part| self.part_measure(part, measure))
                .collect()
        })
    }

    fn part_measure(&self, part: u64, measure: Measure) -> Result<u64, StoreError> {
        let Elements::Chunked(chunked) = &self.elements else {
            return Ok(measure.of(&self.file.settled(|| self.render(part))?));
        };
        let (offset, len_bytes) = self.elements_of(part);
        let mut key = chunked.content_key(offset, len_bytes);
        if measure == Measure::LongestChars {
            // No key of a length in bytes begins with this epoch.
            key = [&[u64::MAX], &*key].concat().into();
        }
        // Not under the cache's own guard: this runs on a worker, which may take up another part with the same key while
        // it waits for chunks.
        if let Some(known) = self.shared.rendered_measures.get(&key) {
            return Ok(known);
        }
        let found = measure.of(&self.file.settled(|| self.render(part))?);
        self.shared.rendered_measures.insert(key, found);
        Ok(found)
    }

    /// The text of a part.
    pub(super) fn part(&self, part: u64) -> Result<Arc<[u8]>, StoreError> {
        let key = ChunkKey {
            epoch: self.epoch,
            index: part,
            proven_part: 0,
        };
        self.shared.cache.get_or_decode(key, || {
            self.file.settled(|| self.render(part)).map(Arc::from)
        })
    }

    /// First byte and length of a part's elements, as they are stored.
    fn elements_of(&self, part: u64) -> (u64, usize) {
        let size = self.datatype.size as u64;
        let first = part * PART_ELEMENTS;
        let count = PART_ELEMENTS.min(self.element_count - first);
        let len_bytes = usize::try_from(count * size).expect("a part of some thousand elements");
        (first * size, len_bytes)
    }

    fn render(&self, part: u64) -> Result<Vec<u8>, StoreError> {
        let (offset, len_bytes) = self.elements_of(part);
        let mut elements = vec![0; len_bytes];
        self.elements.read_exact_at(offset, &mut elements)?;
        let reader = self.file.h5.reader();
        let heap = HeapValues::new(&reader);
        let limit_bytes =
            ALWAYS_FAIR_TEXT_BYTES + FAIR_TEXT_RATIO.saturating_mul(reader.len_bytes());
        let limit_bytes = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        let mut lines = Vec::new();
        for element in elements.chunks_exact(self.datatype.size) {
            let mut written = text::write_lines(&self.datatype, element, &heap, &mut lines);
            if written.is_ok() && lines.len() > limit_bytes {
                written = Err(ValueError::TooLong { limit_bytes });
            }
            written.map_err(|error| StoreError::Value {
                dataset: self.path.to_vec(),
                first_element: part * PART_ELEMENTS,
                error,
            })?;
        }
        Ok(lines)
    }
}
