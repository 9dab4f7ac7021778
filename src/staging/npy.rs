//! Staged datasets as .npy files: a header, and behind it the elements as they are stored, or as they are to be stored.
//!
//! A dataset that nobody writes as a .npy file has the header that follows from its type and shape. Once somebody does, its header is what he
//! wrote, as long as that is what the dataset is ([`Given`]):
//!
//! 1. The file was cut to nothing, or made: the header is not whole yet. The dataset is still what it was.
//! 2. The header is whole: the dataset has its type and shape, and no bytes. What is written behind the header are its bytes.
//! 3. It has all bytes that the header tells of. Only then can it be committed.
//!
//! Data that is not as it is to be stored (text, and what is in the order of Fortran) is kept in an overlay of its own, the draft. The dataset is
//! made of it as a whole, when the file is closed or committed.
//!
//! A header that no dataset can be made of is refused when it is written, and the dataset goes on being what it was.

mod conversion;
mod given;
mod moving;
mod wide;
mod writing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

pub(super) use given::Given;
pub(super) use wide::WideText;

use super::content::{Content, Form};
use super::state::State;
use super::tree::DatasetNode;
use super::{NodeId, StagedKind, StagedStat, Staging, StagingError};
use crate::h5::Datatype;
use crate::store::{OpenNpy, fair_wide_bytes, npy_header, npy_text_header};

/// An open .npy file, closed when dropped. It goes on being the same dataset when it is renamed, removed or committed.
#[derive(Debug)]
pub struct NpyFile {
    node: NodeId,
    content: Arc<Content>,
    /// The header of a dataset as it was, so that data goes on beginning at one place.
    header: OnceLock<Arc<[u8]>>,
    /// The text of the base version.
    base_text: OnceLock<Option<Arc<OpenNpy>>>,
    /// How often what was written of it had been dropped when it was opened.
    dropped_npys: usize,
    /// Whether it was cut to nothing by whoever opened it.
    is_new: bool,
    /// Whether it was made by him.
    is_made: bool,
    is_refused: AtomicBool,
    /// Whether what is written goes into a draft.
    is_draft: AtomicBool,
}

impl NpyFile {
    /// Which dataset it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    fn refuse(&self) {
        self.is_refused.store(true, Ordering::Release);
    }
}

impl Drop for NpyFile {
    fn drop(&mut self) {
        self.content.closed_as_npy();
    }
}

/// One name of a group that is shown with .npy files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpyEntry {
    /// The name as a path carries it in `staging/`.
    pub shown: Vec<u8>,
    /// The name in the file.
    pub name: Vec<u8>,
    /// What it stands for.
    pub node: NodeId,
    /// What that is.
    pub kind: StagedKind,
    /// Whether it is a file that a program writes under another name first, shown under just that.
    pub is_temporary: bool,
}

/// What a dataset looks like as a .npy file while nobody writes it as one.
struct Face {
    header: Arc<[u8]>,
    data_bytes: u64,
    data: FaceData,
}

enum FaceData {
    /// As it is stored.
    Stored,
    /// The text of the base version, header and all.
    Base(Arc<OpenNpy>),
    /// Edited text, with so many bytes an element.
    Wide(Arc<WideText>, u64),
}

/// Whether a program may write a .npy file under that name before it renames it: rsync's `.x.npy.Gz4bQe`, others' `x.npy.part`.
#[must_use]
pub fn is_temporary_name(name: &[u8]) -> bool {
    const MIDDLE: &[u8] = b".npy.";
    !name.ends_with(b".npy") && name.windows(MIDDLE.len()).any(|part| part == MIDDLE)
}

impl Staging {
    /// What a group contains that NumPy has a type for.
    ///
    /// # Errors
    /// [`StagingError::NotADirectory`], [`StagingError::Stale`].
    pub fn list_npy(&self, group: NodeId) -> Result<Vec<NpyEntry>, StagingError> {
        self.refresh()?;
        self.read(|state| {
            let children = state.tree.children(group)?.iter();
            let entries = children
                .filter_map(|(shown, &node)| self.npy_entry(state, shown, node).transpose());
            entries.collect()
        })
    }

    fn npy_entry(
        &self,
        state: &State,
        shown: &[u8],
        id: NodeId,
    ) -> Result<Option<NpyEntry>, StagingError> {
        let node = state.tree.node(id)?;
        let is_shown = match node.dataset() {
            None => true,
            Some(dataset) if dataset.npy.is_some() => true,
            // What is damaged says so when it is opened.
            Some(dataset) => match self.type_and_inner_axes(state, id, dataset) {
                Ok((datatype, inner)) => has_npy(&datatype, &inner),
                Err(_) => true,
            },
        };
        Ok(is_shown.then(|| NpyEntry {
            shown: shown.to_vec(),
            name: node.name.clone(),
            node: id,
            kind: node.kind(),
            is_temporary: is_temporary_name(shown)
                && node.dataset().is_some_and(|dataset| dataset.npy.is_some()),
        }))
    }

    /// Opens a dataset as a .npy file, for writing too if `write`; cut to nothing first if `truncate`.
    ///
    /// # Errors
    /// [`StagingError::IsADirectory`], [`StagingError::NotPermitted`] for writing to what NumPy does not have, or for writing to text that
    /// is not replaced as a whole.
    pub fn open_npy(
        &self,
        node: NodeId,
        write: bool,
        truncate: bool,
    ) -> Result<NpyFile, StagingError> {
        self.refresh()?;
        self.open_npy_as(node, write, truncate, false)
    }

    /// Makes a .npy file and opens it for writing.
    ///
    /// # Errors
    /// As for [`Staging::create`].
    pub fn create_npy(&self, parent: NodeId, name: &[u8]) -> Result<NpyFile, StagingError> {
        let node = self.create(parent, name)?;
        self.open_npy_as(node, true, true, true)
    }

    fn open_npy_as(
        &self,
        node: NodeId,
        write: bool,
        truncate: bool,
        is_made: bool,
    ) -> Result<NpyFile, StagingError> {
        let content = self.read(|state| {
            let content = state.content(node)?;
            content.opened_as_npy();
            Ok(content)
        })?;
        let dropped_npys = content.read().dropped_npys;
        let file = NpyFile {
            node,
            content,
            dropped_npys,
            header: OnceLock::new(),
            base_text: OnceLock::new(),
            is_new: truncate,
            is_made,
            is_refused: AtomicBool::new(false),
            is_draft: AtomicBool::new(false),
        };
        if truncate {
            self.begin_npy(node, &file.content)?;
        } else if write {
            let is_written = {
                let body = file.content.read();
                match &body.npy {
                    Some(npy) => {
                        file.is_draft
                            .store(npy.draft().is_some(), Ordering::Release);
                        !npy.is_done(&body)?
                    }
                    None => false,
                }
            };
            if !is_written {
                self.check_npy_editable(node)?;
            }
        }
        Ok(file)
    }

    fn check_npy_editable(&self, node: NodeId) -> Result<(), StagingError> {
        let datatype = self.read(|state| Ok(self.typed(state, node)?.0))?;
        if datatype.contains_pointers() {
            return Err(StagingError::NotPermitted {
                what: "text cannot be changed within a .npy file, only be replaced as a whole",
            });
        }
        Ok(())
    }

    /// Kind, length, times of a dataset as a .npy file, or of a group.
    ///
    /// # Errors
    /// [`StagingError::Stale`], [`StagingError::NpyTooWide`], or what is wrong with the dataset.
    pub fn stat_npy(&self, node: NodeId) -> Result<StagedStat, StagingError> {
        self.refresh()?;
        self.read(|state| {
            let mut stat = self.stat_in(state, node)?;
            if stat.kind == StagedKind::Dataset {
                let content = state.known_content(node);
                let given = content.and_then(|content| {
                    let body = content.read();
                    let npy = body.npy.as_ref()?;
                    Some(npy.data_bytes(&body).map(|data| npy.header_bytes() + data))
                });
                stat.size_bytes = if let Some(given) = given {
                    given?
                } else {
                    let face = self.face(state, node, None)?;
                    face.header.len() as u64 + face.data_bytes
                };
            }
            Ok(stat)
        })
    }

    /// Whether anybody has a dataset open as a .npy file (`npy`), or as its bytes.
    #[must_use]
    pub fn is_open_as(&self, node: NodeId, npy: bool) -> bool {
        let known = self.read(|state| Ok(state.known_content(node)));
        known.is_ok_and(|content| content.is_some_and(|content| content.is_open_as(npy)))
    }

    /// Fills `buffer` from `offset` on as far as the file goes, and says how many bytes there were.
    ///
    /// # Errors
    /// What is wrong with the version or with what is staged.
    pub fn read_npy_at(
        &self,
        file: &NpyFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StagingError> {
        {
            let body = file.content.read();
            if let Some(npy) = &body.npy {
                return with_header(npy.header(), offset, buffer, |offset, rest| {
                    npy.read_data_at(&body, offset, rest)
                });
            }
        }
        let face = self.face_of(file)?;
        with_header(&face.header, offset, buffer, |offset, rest| {
            match &face.data {
                FaceData::Stored => file.content.read().read_at(offset, rest),
                FaceData::Base(open) => {
                    let offset = offset.saturating_add(face.header.len() as u64);
                    Ok(self.file.read_npy(open, offset, rest)?)
                }
                FaceData::Wide(wide, element_bytes) => {
                    let left = face.data_bytes.saturating_sub(offset);
                    let left = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let body = file.content.read();
                    wide.read_at(&body, *element_bytes, offset, &mut rest[..left])
                }
            }
        })
    }

    /// The first byte at `offset` or behind it that is data, or that is a hole (`for_hole`). The header is data.
    ///
    /// # Errors
    /// [`StagingError::NoSuchOffset`], or what is wrong with the version.
    pub fn seek_npy(
        &self,
        file: &NpyFile,
        offset: u64,
        for_hole: bool,
    ) -> Result<u64, StagingError> {
        let given = {
            let body = file.content.read();
            match &body.npy {
                Some(npy) => Some((
                    npy.header_bytes(),
                    npy.data_bytes(&body)?,
                    npy.draft().is_none(),
                )),
                None => None,
            }
        };
        let (header_bytes, data_bytes, is_stored) = if let Some(given) = given {
            given
        } else {
            let face = self.face_of(file)?;
            let is_stored = matches!(face.data, FaceData::Stored);
            (face.header.len() as u64, face.data_bytes, is_stored)
        };
        let len_bytes = header_bytes + data_bytes;
        if offset >= len_bytes {
            return Err(StagingError::NoSuchOffset);
        }
        if !is_stored || data_bytes == 0 {
            return Ok(if for_hole { len_bytes } else { offset });
        }
        if !for_hole && offset < header_bytes {
            return Ok(offset);
        }
        let in_data = offset.saturating_sub(header_bytes);
        Ok(file.content.read().seek(in_data, for_hole)? + header_bytes)
    }

    /// What an open file looks like while nobody writes it as a .npy file.
    fn face_of(&self, file: &NpyFile) -> Result<Face, StagingError> {
        let mut face = self.read(|state| self.face(state, file.node, Some(file)))?;
        if matches!(face.data, FaceData::Stored) {
            face.header = file.header.get_or_init(|| face.header).clone();
        }
        Ok(face)
    }

    fn face(
        &self,
        state: &State,
        id: NodeId,
        file: Option<&NpyFile>,
    ) -> Result<Face, StagingError> {
        let (datatype, inner) = self.typed(state, id)?;
        let content = match file {
            Some(file) => Some(file.content.clone()),
            None => state.known_content(id),
        };
        if datatype.is_vlen_string() {
            return self.text_face(state, id, content.as_deref(), file, &inner);
        }
        let content = match content {
            Some(content) => content,
            None => state.content(id)?,
        };
        let data_bytes = content.read().len_bytes()?;
        let dataset = state
            .tree
            .node(id)?
            .dataset()
            .ok_or(StagingError::IsADirectory)?;
        let shape = self.structure(state, id, dataset)?.shape;
        let header = npy_header(&datatype, &shape).ok_or(StagingError::NotPermitted {
            what: "NumPy has no array of that type",
        })?;
        Ok(Face {
            header: header.into(),
            data_bytes,
            data: FaceData::Stored,
        })
    }

    fn text_face(
        &self,
        state: &State,
        id: NodeId,
        content: Option<&Content>,
        file: Option<&NpyFile>,
        inner: &[u64],
    ) -> Result<Face, StagingError> {
        let of_base = || StagingError::NotPermitted {
            what: "NumPy has no array of that type",
        };
        let edited = content.map(|content| content.read());
        let Some(body) = edited.filter(|body| body.overlay.is_some()) else {
            let node = state.tree.node(id)?;
            let open = || -> Result<Option<Arc<OpenNpy>>, StagingError> {
                match state.place_of(node.origin.as_ref()) {
                    Some((version, path)) => Ok(self.file.open_npy(&version, &path)?.map(Arc::new)),
                    None => Ok(None),
                }
            };
            let kept = file.and_then(|file| file.base_text.get().cloned());
            let found = match kept {
                Some(kept) => kept,
                None => open()?,
            };
            if let Some(file) = file {
                // Whoever came first found the same.
                let _ = file.base_text.set(found.clone());
            }
            let found = found.ok_or_else(of_base)?;
            let header = found.header();
            return Ok(Face {
                data_bytes: found.len_bytes() - header.len() as u64,
                header,
                data: FaceData::Base(found),
            });
        };
        let wide = body.wide().map_err(|error| named(error, state, id))?;
        let chars = wide.longest_chars().max(1);
        let row = inner
            .iter()
            .try_fold(1u64, |n, &extent| n.checked_mul(extent));
        let rows = row
            .and_then(|row| wide.elements().checked_div(row))
            .unwrap_or(0);
        let elements = rows.saturating_mul(row.unwrap_or(0));
        let shape = [&[rows], inner].concat();
        let data_bytes = fair_wide_bytes(elements, chars, body.len_bytes()?);
        let (Some(data_bytes), Some(header)) = (data_bytes, npy_text_header(chars, &shape)) else {
            return Err(StagingError::NpyTooWide {
                dataset: state.tree.path(id, true).unwrap_or_default(),
                chars,
            });
        };
        Ok(Face {
            header: header.into(),
            data_bytes,
            data: FaceData::Wide(wide, chars * wide::CHARACTER_BYTES),
        })
    }

    fn typed(&self, state: &State, id: NodeId) -> Result<(Datatype, Vec<u64>), StagingError> {
        let node = state.tree.node(id)?;
        let dataset: &DatasetNode = node.dataset().ok_or(StagingError::IsADirectory)?;
        self.type_and_inner_axes(state, id, dataset)
    }
}

/// Whether NumPy has arrays of a type, with these axes behind the first.
fn has_npy(datatype: &Datatype, inner: &[u64]) -> bool {
    let shape = [&[0], inner].concat();
    match Form::of_type(datatype) {
        Form::Text => npy_text_header(1, &shape).is_some(),
        Form::Stored => npy_header(datatype, &shape).is_some(),
        Form::Json => false,
    }
}

/// An error of text with the name of the dataset that it is about.
fn named(error: StagingError, state: &State, id: NodeId) -> StagingError {
    match error {
        StagingError::Text { error, .. } => StagingError::Text {
            dataset: state.tree.path(id, true).unwrap_or_default(),
            error,
        },
        error => error,
    }
}

/// Fills `buffer` from `offset` on: with what is left of the header there, and behind it with what `data` gives from an offset of its own.
fn with_header(
    header: &[u8],
    offset: u64,
    buffer: &mut [u8],
    data: impl FnOnce(u64, &mut [u8]) -> Result<usize, StagingError>,
) -> Result<usize, StagingError> {
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let header_bytes = header.len() as u64;
    let header = header.get(skip..).unwrap_or_default();
    let (start, rest) = buffer.split_at_mut(header.len().min(buffer.len()));
    start.copy_from_slice(&header[..start.len()]);
    let count = start.len();
    if rest.is_empty() {
        return Ok(count);
    }
    let offset = (offset + count as u64).saturating_sub(header_bytes);
    Ok(count + data(offset, rest)?)
}
