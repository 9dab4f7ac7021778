//! What a commit reads of a staged dataset.

use std::ops::Range;
use std::sync::Arc;

use super::StagingError;
use super::content::Content;
use super::overlay::BaseBytes;
use crate::store::{StagedBytes, StagedReadError};

/// A dataset whose bytes nobody changes while this is used.
pub(super) struct CommittedBytes {
    content: Arc<Content>,
    len_bytes: u64,
    /// Length of the base, where only what differs from it is said to be written. Otherwise all data of the base counts as written.
    edits: Option<u64>,
}

impl CommittedBytes {
    /// All bytes of a dataset, or only an edit of its base.
    ///
    /// # Errors
    /// What is wrong with the base; of the overlay, that a sync of it failed.
    pub(super) fn new(content: Arc<Content>, is_edit: bool) -> Result<Self, StagingError> {
        let (len_bytes, base_len_bytes) = {
            let body = content.read();
            if let Some(overlay) = &body.overlay {
                overlay.check_synced()?;
            }
            (body.len_bytes()?, body.base.len_bytes()?)
        };
        Ok(Self {
            content,
            len_bytes,
            edits: is_edit.then_some(base_len_bytes),
        })
    }

    /// The first part of the base at `offset` or behind it that the other path does not have yet.
    fn next_of_base(&self, offset: u64) -> Option<Range<u64>> {
        let body = self.content.read();
        let limit = match &body.overlay {
            Some(overlay) => overlay.base_limit(),
            None => self.len_bytes,
        };
        if offset >= limit {
            return None;
        }
        // What cannot be found out now is read, and whatever is wrong is told then.
        let start = body.base.seek(offset, false).unwrap_or(Some(offset))?;
        let end = body.base.seek(start, true).ok().flatten().unwrap_or(limit);
        let range = start..end.min(limit);
        (!range.is_empty()).then_some(range)
    }

    /// What lay in the base and was cut off, as far as the dataset has grown again.
    fn next_cut_off(&self, offset: u64, base_len_bytes: u64) -> Option<Range<u64>> {
        let body = self.content.read();
        let limit = body.overlay.as_ref()?.base_limit();
        let range = limit.max(offset)..base_len_bytes.min(self.len_bytes);
        (!range.is_empty()).then_some(range)
    }
}

impl StagedBytes for CommittedBytes {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StagedReadError> {
        let overlay_error = |error: Arc<std::io::Error>| StagedReadError::Overlay { offset, error };
        match self.content.read().read_at(offset, buffer) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(_) => Err(overlay_error(Arc::new(
                std::io::ErrorKind::UnexpectedEof.into(),
            ))),
            Err(StagingError::Store(error)) => Err(StagedReadError::Base(error)),
            Err(StagingError::Sidecar { error, .. }) => Err(overlay_error(error)),
            Err(error) => Err(overlay_error(Arc::new(std::io::Error::other(error)))),
        }
    }

    fn next_written(&self, offset: u64) -> Option<Range<u64>> {
        let staged = {
            let body = self.content.read();
            let overlay = body.overlay.as_ref();
            overlay.and_then(|overlay| overlay.next_staged(offset))
        };
        let other = match self.edits {
            Some(base_len_bytes) => self.next_cut_off(offset, base_len_bytes),
            None => self.next_of_base(offset),
        };
        match (staged, other) {
            (Some(a), Some(b)) => Some(if b.start < a.start { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}
