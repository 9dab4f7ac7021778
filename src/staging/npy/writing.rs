//! Writing .npy files: headers are taken at their word once they are whole, and data goes where it belongs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Given, NpyFile, conversion};
use crate::staging::change::Change;
use crate::staging::content::{Body, Content, Form};
use crate::staging::overlay::{NoBase, Overlay};
use crate::staging::state::State;
use crate::staging::{Allocate, NodeId, Staging, StagingError};
use crate::store::{Beginning, NpyError, NpyHeader};

/// What a .npy file begins with.
struct Front {
    /// Its header, as far as there is one.
    header: Arc<[u8]>,
    is_whole: bool,
}

impl Staging {
    /// A dataset is to be written as a .npy file, from nothing. It stays what it is until there is a whole header.
    pub(super) fn begin_npy(
        &self,
        node: NodeId,
        content: &Arc<Content>,
    ) -> Result<(), StagingError> {
        let _gate = self.pass()?;
        let datatype = self.read(|state| Ok(self.typed(state, node)?.0))?;
        if Form::of_type(&datatype) == Form::Json {
            return Err(StagingError::NotPermitted {
                what: "a dataset that is shown as JSON Lines cannot be written",
            });
        }
        let is_restorable = {
            let body = content.read();
            match &body.npy {
                Some(npy) => npy.is_restorable() || npy.is_done(&body)?,
                None => true,
            }
        };
        self.give(node, content, Given::begun(is_restorable))
    }

    /// Keeps what was written of a header.
    fn give(&self, node: NodeId, content: &Arc<Content>, given: Given) -> Result<(), StagingError> {
        self.change_state(|state| {
            let mut body = content.write();
            self.log_npy(state, node, Some(&given))?;
            state.keep(node, content.clone());
            if let Some(before) = &mut body.npy {
                // At once, as somebody may have cut it to nothing for want of room.
                before.clear()?;
                before.discard();
            }
            body.npy = Some(given);
            Ok(())
        })
    }

    /// From now on a dataset is what its bytes and attributes say.
    pub(in crate::staging) fn forget_npy(
        &self,
        state: &mut State,
        node: NodeId,
        body: &mut Body,
    ) -> Result<(), StagingError> {
        if body.npy.is_some() {
            self.log_npy(state, node, None)?;
        }
        if let Some(mut npy) = body.npy.take() {
            npy.discard();
        }
        Ok(())
    }

    pub(super) fn log_npy(
        &self,
        state: &mut State,
        node: NodeId,
        given: Option<&Given>,
    ) -> Result<(), StagingError> {
        let header = given.map(|given| &given.header()[..]);
        match npy_change(state, node, header, given.and_then(Given::draft)) {
            Some(change) => state.change(&self.path, &change).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Writes, and says how many bytes; fewer than all where room ended in between.
    ///
    /// # Errors
    /// [`StagingError::Npy`] for a header that the dataset cannot have, which is then what it was before; [`StagingError::NpyRefused`] for whatever
    /// comes behind that; otherwise as for [`Staging::write_at`].
    pub fn write_npy_at(
        &self,
        file: &NpyFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, StagingError> {
        if file.is_refused.load(Ordering::Acquire) {
            return Err(StagingError::NpyRefused);
        }
        let _gate = self.pass()?;
        let Front {
            mut header,
            is_whole,
        } = self.front_of(file)?;
        if !is_whole {
            return self.write_beginning(file, offset, bytes);
        }
        let in_header = u64::try_from(header.len())
            .unwrap_or(u64::MAX)
            .saturating_sub(offset);
        let in_header = usize::try_from(in_header)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (start, data) = bytes.split_at(in_header);
        if !start.is_empty() {
            let at = usize::try_from(offset).map_err(|_| StagingError::TooLong)?;
            if header[at..at + start.len()] != *start {
                let mut patched = header.to_vec();
                patched[at..at + start.len()].copy_from_slice(start);
                header = patched.into();
                self.replace_header(file, &header)?;
            }
        }
        if data.is_empty() {
            return Ok(start.len());
        }
        let data_offset = (offset + start.len() as u64) - header.len() as u64;
        Ok(start.len() + self.write_data(file, &header, data_offset, data)?)
    }

    /// Writes behind the last byte (`O_APPEND`).
    ///
    /// # Errors
    /// As for [`Staging::write_npy_at`].
    pub fn append_npy(&self, file: &NpyFile, bytes: &[u8]) -> Result<usize, StagingError> {
        let end = self.stat_npy(file.node)?.size_bytes;
        self.write_npy_at(file, end, bytes)
    }

    /// What an open file begins with.
    fn front_of(&self, file: &NpyFile) -> Result<Front, StagingError> {
        let given = {
            let body = file.content.read();
            if body.dropped_npys != file.dropped_npys {
                return Err(StagingError::NpyRefused);
            }
            let npy = body.npy.as_ref();
            npy.map(|npy| {
                let front = Front {
                    header: npy.header().clone(),
                    is_whole: npy.said().is_some(),
                };
                (front, npy.draft().is_some())
            })
        };
        let was_draft = file.is_draft.load(Ordering::Acquire);
        match given {
            Some((front, false)) if front.is_whole && was_draft => Err(StagingError::NpyRefused),
            Some((front, is_draft)) => {
                file.is_draft.fetch_or(is_draft, Ordering::AcqRel);
                Ok(front)
            }
            None if was_draft => Err(StagingError::NpyRefused),
            None => {
                self.check_npy_editable(file.node)?;
                Ok(Front {
                    header: self.face_of(file)?.header,
                    is_whole: true,
                })
            }
        }
    }

    /// Writes to a file whose header is not whole yet.
    fn write_beginning(
        &self,
        file: &NpyFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, StagingError> {
        let (mut all, is_restorable) = match &file.content.read().npy {
            Some(npy) => (npy.header().to_vec(), npy.is_restorable()),
            None => return Err(StagingError::NpyRefused),
        };
        let at = usize::try_from(offset).ok().filter(|&at| at <= all.len());
        // Nobody knows yet where the data begins.
        let at = at.ok_or_else(|| self.unfinished(file.node))?;
        let covered = (all.len() - at).min(bytes.len());
        all[at..at + covered].copy_from_slice(&bytes[..covered]);
        all.extend_from_slice(&bytes[covered..]);
        let accepted = match NpyHeader::parse(&all) {
            Ok(Beginning::Part) => {
                file.content.write().npy = Some(Given::part(all, is_restorable));
                return Ok(bytes.len());
            }
            Ok(Beginning::Whole(header)) => {
                let header_bytes = header.len_bytes;
                self.accept(file, &all[..header_bytes], header)
                    .map(|()| header_bytes)
            }
            Err(error) => Err(self.refused(file.node, error)),
        };
        let header_bytes = match accepted {
            Ok(header_bytes) => header_bytes,
            Err(error) => {
                if matches!(error, StagingError::Npy { .. }) {
                    self.refuse(file, &error)?;
                }
                return Err(error);
            }
        };
        let Some((_, data)) = bytes
            .split_at_checked(header_bytes - at)
            .filter(|(_, data)| !data.is_empty())
        else {
            return Ok(bytes.len());
        };
        let written = self.write_data(file, &all[..header_bytes], 0, data)?;
        Ok(header_bytes - at + written)
    }

    fn refused(&self, node: NodeId, error: NpyError) -> StagingError {
        StagingError::Npy {
            dataset: self.shown_path(node),
            error,
        }
    }

    fn unfinished(&self, node: NodeId) -> StagingError {
        StagingError::NpyUnfinished {
            dataset: self.shown_path(node),
        }
    }

    pub(super) fn shown_path(&self, node: NodeId) -> Vec<u8> {
        self.read(|state| state.tree.path(node, true))
            .unwrap_or_default()
    }

    /// No dataset can be made of what is written: it is what it was before, or not there. What was not whole before stays so, as nobody
    /// would know it from a dataset.
    fn refuse(&self, file: &NpyFile, error: &StagingError) -> Result<(), StagingError> {
        self.note_refusal(error);
        file.refuse();
        let is_restorable = match &file.content.read().npy {
            Some(npy) => npy.is_restorable(),
            None => true,
        };
        if !file.is_new || !(is_restorable || file.is_made) {
            return Ok(());
        }
        self.change_state(|state| {
            self.forget_npy(state, file.node, &mut file.content.write())?;
            match state.tree.path(file.node, true) {
                Ok(path) if file.is_made => state
                    .change(&self.path, &Change::Remove { path })
                    .map(|_| ()),
                _ => Ok(()),
            }
        })
    }

    /// A whole header was written: the dataset becomes what it says, without any bytes.
    fn accept(&self, file: &NpyFile, bytes: &[u8], header: NpyHeader) -> Result<(), StagingError> {
        conversion::check(&header).map_err(|error| self.refused(file.node, error))?;
        self.change_state(|state| {
            let outline = self.outline_of(state, file.node, &header)?;
            let mut body = file.content.write();
            // Until the header is logged, the log says that there is none: what was before is nobody's any more.
            self.give_overlay(state, file.node, &file.content, &mut body, (0, None))?;
            if let Some(before) = &mut body.npy {
                before.loses_bytes();
            }
            body.edit()?.1.truncate(0)?;
            let draft = if header.needs_conversion() {
                Some(state.new_overlay(&self.path, 0)?)
            } else {
                None
            };
            let mut given = Given::whole(bytes, header, draft);
            let npy = npy_change(state, file.node, Some(bytes), given.draft());
            if let Err(error) = self.shape_as(state, file.node, outline, npy) {
                given.discard();
                return Err(error);
            }
            file.is_draft
                .store(given.draft().is_some(), Ordering::Release);
            if state.tree.path(file.node, true).is_err() {
                given.discard();
            }
            if let Some(before) = &mut body.npy {
                before.discard();
            }
            body.npy = Some(given);
            Ok(())
        })
    }

    /// A header takes the place of another one, in front of the same data.
    fn replace_header(&self, file: &NpyFile, bytes: &[u8]) -> Result<(), StagingError> {
        let refused = |error| self.refused(file.node, error);
        let header = match NpyHeader::parse(bytes).map_err(refused)? {
            Beginning::Whole(header) if header.len_bytes == bytes.len() => header,
            _ => {
                return Err(refused(NpyError::Unreadable {
                    problem: "its length cannot change while there is data behind it",
                }));
            }
        };
        conversion::check(&header).map_err(refused)?;
        self.change_state(|state| {
            let outline = self.outline_of(state, file.node, &header)?;
            let mut body = file.content.write();
            let draft = body.npy.as_ref().and_then(Given::draft);
            if header.needs_conversion() != draft.is_some() {
                return Err(refused_in(
                    state,
                    file.node,
                    NpyError::Unreadable {
                        problem: "the order of its data cannot change while there is any",
                    },
                ));
            }
            let npy = npy_change(state, file.node, Some(bytes), draft);
            self.shape_as(state, file.node, outline, npy)?;
            state.keep(file.node, file.content.clone());
            match &mut body.npy {
                Some(npy) => npy.replace_header(bytes, header),
                none => *none = Some(Given::whole(bytes, header, None)),
            }
            Ok(())
        })
    }

    /// Writes behind a header, which must not have changed meanwhile.
    fn write_data(
        &self,
        file: &NpyFile,
        header: &[u8],
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, StagingError> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(StagingError::TooLong)?;
        self.prepare_data(file, header, Some(end))?;
        let mut body = file.content.write();
        if let Some(npy) = &mut body.npy {
            if npy.header_bytes() != header.len() as u64 || npy.said().is_none() {
                return Err(StagingError::NpyRefused);
            }
            if let Some(draft) = npy.edit_draft() {
                return draft.write_at(&NoBase, offset, bytes);
            }
        }
        let (base, overlay) = body.edit()?;
        overlay.write_at(base, offset, bytes)
    }

    /// Makes data ready to be written up to `end`. A dataset that gets longer by it keeps its header, until that is written too.
    fn prepare_data(
        &self,
        file: &NpyFile,
        header: &[u8],
        end: Option<u64>,
    ) -> Result<(), StagingError> {
        let (is_draft, must_freeze) = {
            let body = file.content.read();
            if let Some(npy) = &body.npy {
                (npy.draft().is_some(), false)
            } else {
                let len_bytes = body.len_bytes()?;
                (false, end.is_none_or(|end| end > len_bytes))
            }
        };
        if must_freeze {
            match NpyHeader::parse(header) {
                Ok(Beginning::Whole(said)) => {
                    self.give(file.node, &file.content, Given::whole(header, said, None))?;
                }
                Ok(Beginning::Part) => return Err(StagingError::NpyRefused),
                Err(error) => return Err(self.refused(file.node, error)),
            }
        }
        if is_draft {
            return Ok(());
        }
        self.stage(file.node, &file.content)
    }

    /// Sets the length of the file; what is new reads as zeros. What is shorter than its header has to be written anew.
    ///
    /// # Errors
    /// As for [`Staging::write_npy_at`].
    pub fn truncate_npy(&self, node: NodeId, len_bytes: u64) -> Result<(), StagingError> {
        if len_bytes == 0 {
            let content = self.read(|state| state.content(node))?;
            return self.begin_npy(node, &content);
        }
        let file = self.open_npy(node, true, false)?;
        let Front { header, is_whole } = self.front_of(&file)?;
        let header_bytes = header.len() as u64;
        let kept = usize::try_from(len_bytes)
            .ok()
            .and_then(|len| header.get(..len));
        match kept {
            Some(kept) if !is_whole || len_bytes < header_bytes => {
                let _gate = self.pass()?;
                return self.give(node, &file.content, Given::part(kept.to_vec(), false));
            }
            None if !is_whole => return Err(self.unfinished(node)),
            _ => {}
        }
        let data_bytes = len_bytes - header_bytes;
        let _gate = self.pass()?;
        let is_same = {
            let body = file.content.read();
            match &body.npy {
                Some(npy) => npy.data_bytes(&body)? == data_bytes,
                None => body.len_bytes()? == data_bytes,
            }
        };
        if is_same {
            return Ok(());
        }
        self.prepare_data(&file, &header, None)?;
        let mut body = file.content.write();
        match body.npy.as_mut().and_then(Given::edit_draft) {
            Some(draft) => draft.truncate(data_bytes),
            None => body.edit()?.1.truncate(data_bytes),
        }
    }

    /// `fallocate(2)`: behind a whole header.
    ///
    /// # Errors
    /// As for [`Staging::write_npy_at`]; [`StagingError::NotPermitted`] for zeros in place of a header.
    pub fn allocate_npy(
        &self,
        file: &NpyFile,
        mode: Allocate,
        offset: u64,
        len_bytes: u64,
    ) -> Result<(), StagingError> {
        let _gate = self.pass()?;
        let Front { header, is_whole } = self.front_of(file)?;
        if !is_whole {
            return Err(self.unfinished(file.node));
        }
        let header_bytes = header.len() as u64;
        let end = offset.checked_add(len_bytes).ok_or(StagingError::TooLong)?;
        if offset < header_bytes && matches!(mode, Allocate::PunchHole | Allocate::ZeroRange { .. })
        {
            return Err(StagingError::NotPermitted {
                what: "a .npy file without its header",
            });
        }
        let range = offset.saturating_sub(header_bytes)..end.saturating_sub(header_bytes);
        if range.is_empty() {
            return Ok(());
        }
        let grows = matches!(
            mode,
            Allocate::Extend | Allocate::ZeroRange { keep_size: false }
        );
        self.prepare_data(file, &header, Some(if grows { range.end } else { 0 }))?;
        let mut body = file.content.write();
        if let Some(draft) = body.npy.as_mut().and_then(Given::edit_draft) {
            return draft.allocate(&NoBase, mode, &range);
        }
        let (base, overlay) = body.edit()?;
        overlay.allocate(base, mode, &range)
    }
}

/// What is logged of a .npy file. Of what was removed and is still open nothing is kept.
fn npy_change(
    state: &State,
    node: NodeId,
    header: Option<&[u8]>,
    draft: Option<&Overlay>,
) -> Option<Change> {
    Some(Change::Npy {
        path: state.tree.path(node, true).ok()?,
        header: header.map(<[u8]>::to_vec),
        draft: draft.map(Overlay::number),
    })
}

fn refused_in(state: &State, node: NodeId, error: NpyError) -> StagingError {
    StagingError::Npy {
        dataset: state.tree.path(node, true).unwrap_or_default(),
        error,
    }
}
