//! The .npy file that somebody wrote, as he wrote it.

use std::sync::Arc;

use crate::staging::StagingError;
use crate::staging::content::Body;
use crate::staging::overlay::{NoBase, Overlay};
use crate::store::{Beginning, NpyHeader};

/// A header that was written, and what of the data has to be kept beside the dataset.
#[derive(Debug)]
pub(in crate::staging) struct Given {
    /// As much of the header as was written, and nothing behind it.
    bytes: Arc<[u8]>,
    /// Once it is whole.
    header: Option<NpyHeader>,
    draft: Option<Draft>,
    /// Whether the dataset has all bytes that it had before.
    is_restorable: bool,
}

/// Data of which a dataset is yet to be made.
#[derive(Debug)]
struct Draft {
    overlay: Overlay,
    is_converted: bool,
}

impl Given {
    /// Nothing yet; `is_restorable` if the dataset has all bytes that it had before.
    pub(super) fn begun(is_restorable: bool) -> Self {
        Self {
            bytes: Arc::default(),
            header: None,
            draft: None,
            is_restorable,
        }
    }

    /// A part of a header.
    pub(super) fn part(bytes: Vec<u8>, is_restorable: bool) -> Self {
        Self {
            bytes: bytes.into(),
            ..Self::begun(is_restorable)
        }
    }

    /// A whole header, which `bytes` are, and the overlay for its data if that needs one.
    pub(super) fn whole(bytes: &[u8], header: NpyHeader, draft: Option<Overlay>) -> Self {
        Self {
            bytes: bytes.into(),
            header: Some(header),
            draft: draft.map(|overlay| Draft {
                overlay,
                is_converted: false,
            }),
            is_restorable: false,
        }
    }

    /// What an earlier mount left. A header that this program would refuse is not whole.
    pub(in crate::staging) fn taken_up(bytes: Vec<u8>, draft: Option<Overlay>) -> Self {
        match NpyHeader::parse(&bytes) {
            Ok(Beginning::Whole(header)) if header.needs_conversion() == draft.is_some() => {
                Self::whole(&bytes, header, draft)
            }
            // Whether it had been accepted, and the bytes of the dataset dropped, is not known.
            _ => Self::part(bytes, false),
        }
    }

    /// What remains of it once its dataset was committed, for those who have it open.
    pub(in crate::staging) fn outliving(mut self) -> Option<Self> {
        self.discard();
        (self.header.is_some() && self.draft.is_none()).then_some(self)
    }

    /// Removes the data that is kept beside the dataset, once nobody uses it.
    pub(in crate::staging) fn discard(&mut self) {
        if let Some(draft) = &mut self.draft {
            draft.overlay.discard();
        }
    }

    /// Drops the data that is kept beside the dataset.
    pub(super) fn clear(&mut self) -> Result<(), StagingError> {
        match &mut self.draft {
            Some(draft) => draft.overlay.truncate(0),
            None => Ok(()),
        }
    }

    /// The header, as far as it was written.
    pub(super) fn header(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Its length in bytes.
    pub(super) fn header_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What the header says, once it is whole.
    pub(super) fn said(&self) -> Option<&NpyHeader> {
        self.header.as_ref()
    }

    /// Data that is kept beside the dataset.
    pub(in crate::staging) fn draft(&self) -> Option<&Overlay> {
        self.draft.as_ref().map(|draft| &draft.overlay)
    }

    /// The same, to be changed: the dataset is then to be made of it anew.
    pub(super) fn edit_draft(&mut self) -> Option<&mut Overlay> {
        let draft = self.draft.as_mut()?;
        draft.is_converted = false;
        Some(&mut draft.overlay)
    }

    /// Puts another whole header, which `bytes` are, in front of the same data: the dataset is then to be made of a draft anew.
    pub(super) fn replace_header(&mut self, bytes: &[u8], header: NpyHeader) {
        self.bytes = bytes.into();
        self.header = Some(header);
        if let Some(draft) = &mut self.draft {
            draft.is_converted = false;
        }
    }

    /// Whether the dataset is all that the header says, and has all its bytes.
    pub(super) fn is_done(&self, body: &Body) -> Result<bool, StagingError> {
        Ok(match &self.header {
            Some(header) => {
                !self.waits_for_conversion() && self.data_bytes(body)? == header.data_bytes()
            }
            None => false,
        })
    }

    /// Whether the dataset is what it was before as soon as this is forgotten.
    pub(super) fn is_restorable(&self) -> bool {
        self.is_restorable
    }

    /// The bytes that the dataset had before go.
    pub(super) fn loses_bytes(&mut self) {
        self.is_restorable = false;
    }

    /// Whether the dataset is yet to be made of the draft.
    pub(super) fn waits_for_conversion(&self) -> bool {
        self.draft.as_ref().is_some_and(|draft| !draft.is_converted)
    }

    pub(super) fn is_converted(&mut self) {
        if let Some(draft) = &mut self.draft {
            draft.is_converted = true;
        }
    }

    /// Bytes behind the header, in a dataset whose bytes are `body`.
    pub(super) fn data_bytes(&self, body: &Body) -> Result<u64, StagingError> {
        match (&self.header, &self.draft) {
            (None, _) => Ok(0),
            (Some(_), Some(draft)) => Ok(draft.overlay.len_bytes()),
            (Some(_), None) => Ok(body.len_bytes()?),
        }
    }

    /// Fills `buffer` from an offset behind the header on, as far as the data goes, and says how many bytes there were.
    pub(super) fn read_data_at(
        &self,
        body: &Body,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StagingError> {
        match (&self.header, &self.draft) {
            (None, _) => Ok(0),
            (Some(_), Some(draft)) => draft.overlay.read_at(&NoBase, offset, buffer),
            (Some(_), None) => body.read_at(offset, buffer),
        }
    }
}
