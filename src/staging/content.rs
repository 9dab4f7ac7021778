//! The bytes of one staged dataset: those of the base version, under an overlay once they are edited.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::StagingError;
use super::npy::{Given, WideText};
use super::overlay::{BaseBytes, Overlay};
use crate::h5::{Class, Datatype};
use crate::store::{Dataset, OpenDataset, StoreError, VersionKey, VersionedFile, hexadecimal};

/// How the elements of a dataset are shown, which decides whether they can be edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are stored.
    Stored,
    /// Variable-length strings, as lines.
    Text,
    /// Anything else that has no bytes of its own, as JSON Lines.
    Json,
}

impl Form {
    pub(super) fn of(dataset: &Dataset) -> Self {
        Self::of_type(dataset.datatype())
    }

    pub(super) fn of_type(datatype: &Datatype) -> Self {
        match datatype.class {
            Class::VlenString { .. } => Self::Text,
            _ if datatype.contains_pointers() => Self::Json,
            _ => Self::Stored,
        }
    }
}

/// A dataset of the base version; or nothing, for a new one.
#[derive(Debug)]
pub(super) struct Base {
    file: Arc<VersionedFile>,
    place: Option<(VersionKey, Arc<[u8]>)>,
    open: OnceLock<OpenDataset>,
}

impl Base {
    pub(super) fn new(file: &Arc<VersionedFile>, place: Option<(VersionKey, Arc<[u8]>)>) -> Self {
        Self {
            file: file.clone(),
            place,
            open: OnceLock::new(),
        }
    }

    fn open(&self) -> Result<Option<&OpenDataset>, StoreError> {
        let Some((version, path)) = &self.place else {
            return Ok(None);
        };
        if let Some(open) = self.open.get() {
            return Ok(Some(open));
        }
        let opened = self.file.open_dataset(version, path)?;
        Ok(Some(self.open.get_or_init(|| opened)))
    }

    fn ask<T>(
        &self,
        of_none: T,
        ask: impl FnMut(&Dataset) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.open()? {
            Some(open) => self.file.ask_dataset(open, ask),
            None => Ok(of_none),
        }
    }

    pub(super) fn len_bytes(&self) -> Result<u64, StoreError> {
        self.ask(0, Dataset::len_bytes)
    }

    /// What the dataset is, in hexadecimal digits; `None` for a new one, and where the file has no hashes of its chunks that stay.
    ///
    /// # Errors
    /// What is wrong with the dataset, or with the hashes of its chunks.
    pub(super) fn digest(&self) -> Result<Option<String>, StoreError> {
        self.ask(None, |dataset| {
            let fingerprint = dataset.fingerprint()?;
            Ok(fingerprint.map(|bytes| hexadecimal(&bytes)))
        })
    }

    /// Begins to read what the first edit needs. An error comes again when it is needed.
    pub(super) fn expect_edit(&self) {
        let asked = self.ask((), |dataset| {
            dataset.expect_edit();
            Ok(())
        });
        if let Err(error) = asked {
            log::debug!("reading ahead: {error}");
        }
    }

    pub(super) fn form(&self) -> Result<Form, StoreError> {
        self.ask(Form::Stored, |dataset| Ok(Form::of(dataset)))
    }

    /// Fills `buffer` as far as the bytes go, and says how many there were.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        match self.open()? {
            Some(open) => self.file.read_dataset(open, offset, buffer),
            None => Ok(0),
        }
    }
}

impl BaseBytes for Base {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let count = self.read_at(offset, buffer)?;
        if count == buffer.len() {
            return Ok(());
        }
        let (version, dataset) = self.place.clone().map_or_else(Default::default, |place| {
            (place.0.name.to_vec(), place.1.to_vec())
        });
        Err(StoreError::Inconsistent {
            version,
            dataset,
            what: "it is shorter than it was when it was edited",
        })
    }

    fn seek(&self, offset: u64, for_hole: bool) -> Result<Option<u64>, StoreError> {
        self.ask(None, |dataset| dataset.seek(offset, for_hole))
    }
}

/// Base and overlay.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) base: Base,
    pub(super) overlay: Option<Overlay>,
    /// The .npy file that it is written as, if it is.
    pub(super) npy: Option<Given>,
    /// How often what was written as a .npy file was dropped: what somebody still writes of it is not for what is there then.
    pub(super) dropped_npys: usize,
    /// How the lines of text are shown as a .npy file; until they change.
    wide: OnceLock<Arc<WideText>>,
}

impl Body {
    /// Removes what is staged of a dataset that is no longer in the tree, once nobody uses it.
    pub(super) fn discard(&mut self) {
        if let Some(overlay) = &mut self.overlay {
            overlay.discard();
        }
        if let Some(npy) = &mut self.npy {
            npy.discard();
        }
    }

    /// How its lines of text are shown as a .npy file.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn wide(&self) -> Result<Arc<WideText>, StagingError> {
        if let Some(wide) = self.wide.get() {
            return Ok(wide.clone());
        }
        let wide = Arc::new(WideText::of(self)?);
        Ok(self.wide.get_or_init(|| wide).clone())
    }

    pub(super) fn len_bytes(&self) -> Result<u64, StoreError> {
        match &self.overlay {
            Some(overlay) => Ok(overlay.len_bytes()),
            None => self.base.len_bytes(),
        }
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StagingError> {
        match &self.overlay {
            Some(overlay) => overlay.read_at(&self.base, offset, buffer),
            None => Ok(self.base.read_at(offset, buffer)?),
        }
    }

    pub(super) fn seek(&self, offset: u64, for_hole: bool) -> Result<u64, StagingError> {
        match &self.overlay {
            Some(overlay) => overlay.seek(&self.base, offset, for_hole),
            None => self
                .base
                .seek(offset, for_hole)?
                .ok_or(StagingError::NoSuchOffset),
        }
    }

    /// Base, overlay and .npy file, where all are there.
    pub(super) fn parts(&mut self) -> Option<(&Base, &mut Overlay, &mut Given)> {
        self.wide.take();
        Some((&self.base, self.overlay.as_mut()?, self.npy.as_mut()?))
    }

    /// The overlay, which is there, and the base below it.
    pub(super) fn edit(&mut self) -> Result<(&Base, &mut Overlay), StagingError> {
        self.wide.take();
        match &mut self.overlay {
            Some(overlay) => Ok((&self.base, overlay)),
            None => Err(StagingError::Stale),
        }
    }
}

/// A staged dataset's bytes, shared by the tree and by all who have it open.
#[derive(Debug)]
pub(super) struct Content {
    /// Held for reading while bytes are read, so that readers do not wait for each other. Taken last of all locks of staging.
    body: RwLock<Body>,
    opens: AtomicUsize,
    /// How many of these see it as a .npy file.
    npy_opens: AtomicUsize,
}

impl Content {
    pub(super) fn new(base: Base, overlay: Option<Overlay>) -> Arc<Self> {
        Arc::new(Self {
            body: RwLock::new(Body {
                base,
                overlay,
                npy: None,
                dropped_npys: 0,
                wide: OnceLock::new(),
            }),
            opens: AtomicUsize::new(0),
            npy_opens: AtomicUsize::new(0),
        })
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Body> {
        self.body.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Body> {
        self.body.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes its bytes durable.
    pub(super) fn sync(&self) -> Result<(), StagingError> {
        let body = self.read();
        let draft = body.npy.as_ref().and_then(Given::draft);
        body.overlay.iter().chain(draft).try_for_each(Overlay::sync)
    }

    pub(super) fn is_open(&self) -> bool {
        self.opens.load(Ordering::Acquire) > 0
    }

    /// Whether somebody has it open as its bytes, or as a .npy file.
    pub(super) fn is_open_as(&self, npy: bool) -> bool {
        let npy_opens = self.npy_opens.load(Ordering::Acquire);
        if npy {
            npy_opens > 0
        } else {
            self.opens.load(Ordering::Acquire) > npy_opens
        }
    }

    /// The same of others than the one who asks.
    pub(super) fn is_open_by_others(&self) -> bool {
        self.npy_opens.load(Ordering::Acquire) > 1
    }

    pub(super) fn opened(&self) {
        self.opens.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn closed(&self) {
        self.opens.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn opened_as_npy(&self) {
        self.opened();
        self.npy_opens.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn closed_as_npy(&self) {
        self.npy_opens.fetch_sub(1, Ordering::AcqRel);
        self.closed();
    }
}
