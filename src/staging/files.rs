//! Open datasets: reading and writing their bytes.

use std::sync::Arc;

use super::change::Change;
use super::content::{Body, Content, Form};
use super::state::State;
use super::{Allocate, NodeId, Staging, StagingError, sync_names};

/// An open dataset, closed when dropped. It goes on being the same dataset when it is renamed, removed or committed.
#[derive(Debug)]
pub struct StagedFile {
    node: NodeId,
    content: Arc<Content>,
}

impl StagedFile {
    /// Which one it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        self.content.closed();
    }
}

impl Staging {
    /// Opens a dataset, for writing too if `write`; cut to nothing first if `truncate`.
    ///
    /// # Errors
    /// [`StagingError::IsADirectory`], [`StagingError::NotPermitted`] for writing to what can only be read.
    pub fn open(
        &self,
        node: NodeId,
        write: bool,
        truncate: bool,
    ) -> Result<StagedFile, StagingError> {
        self.refresh()?;
        let content = self.read(|state| {
            let content = state.content(node)?;
            content.opened();
            Ok(content)
        })?;
        let file = StagedFile { node, content };
        if write || truncate {
            check_editable(&file.content)?;
        }
        if truncate {
            self.truncate_content(node, &file.content, 0)?;
        }
        Ok(file)
    }

    /// Fills `buffer` from `offset` on as far as the bytes go, and says how many there were.
    ///
    /// # Errors
    /// What is wrong with the version or with what is staged.
    #[allow(clippy::unused_self, reason = "a file belongs to its staging")]
    pub fn read_at(
        &self,
        file: &StagedFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StagingError> {
        file.content.read().read_at(offset, buffer)
    }

    /// Writes, and says how many bytes; fewer than all where room ended in between.
    ///
    /// # Errors
    /// [`StagingError::Sidecar`], [`StagingError::TooLong`], or of the version, whose bytes around the written ones are copied. Nothing is
    /// changed then.
    pub fn write_at(
        &self,
        file: &StagedFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, StagingError> {
        let _gate = self.pass()?;
        self.stage(file.node, &file.content)?;
        self.resize(file.node, &file.content, |len| {
            offset.saturating_add(bytes.len() as u64).max(len)
        })?;
        let mut body = file.content.write();
        let (base, overlay) = body.edit()?;
        overlay.write_at(base, offset, bytes)
    }

    /// Writes behind the last byte (`O_APPEND`).
    ///
    /// # Errors
    /// As for [`Staging::write_at`].
    pub fn append(&self, file: &StagedFile, bytes: &[u8]) -> Result<usize, StagingError> {
        let _gate = self.pass()?;
        self.stage(file.node, &file.content)?;
        self.resize(file.node, &file.content, |len| {
            len.saturating_add(bytes.len() as u64)
        })?;
        let mut body = file.content.write();
        let (base, overlay) = body.edit()?;
        overlay.write_at(base, overlay.len_bytes(), bytes)
    }

    /// Sets the length; what is new reads as zeros.
    ///
    /// # Errors
    /// As for [`Staging::write_at`].
    pub fn truncate(&self, node: NodeId, len_bytes: u64) -> Result<(), StagingError> {
        self.refresh()?;
        let content = self.read(|state| state.content(node))?;
        check_editable(&content)?;
        self.truncate_content(node, &content, len_bytes)
    }

    fn truncate_content(
        &self,
        node: NodeId,
        content: &Arc<Content>,
        len_bytes: u64,
    ) -> Result<(), StagingError> {
        let _gate = self.pass()?;
        self.resize(node, content, |_| len_bytes)?;
        if content.read().len_bytes()? == len_bytes {
            return Ok(());
        }
        self.stage(node, content)?;
        let mut body = content.write();
        let (_, overlay) = body.edit()?;
        overlay.truncate(len_bytes)
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// As for [`Staging::write_at`].
    pub fn allocate(
        &self,
        file: &StagedFile,
        mode: Allocate,
        offset: u64,
        len_bytes: u64,
    ) -> Result<(), StagingError> {
        let end = offset.checked_add(len_bytes).ok_or(StagingError::TooLong)?;
        let range = offset..end;
        let _gate = self.pass()?;
        self.stage(file.node, &file.content)?;
        self.resize(file.node, &file.content, |len| match mode {
            Allocate::Extend | Allocate::ZeroRange { keep_size: false } => end.max(len),
            _ => len,
        })?;
        let mut body = file.content.write();
        let (base, overlay) = body.edit()?;
        overlay.allocate(base, mode, &range)
    }

    /// The first byte at `offset` or behind it that is data, or that is a hole (`for_hole`).
    ///
    /// # Errors
    /// [`StagingError::NoSuchOffset`], or what is wrong with the version.
    #[allow(clippy::unused_self, reason = "a file belongs to its staging")]
    pub fn seek(
        &self,
        file: &StagedFile,
        offset: u64,
        for_hole: bool,
    ) -> Result<u64, StagingError> {
        file.content.read().seek(offset, for_hole)
    }

    /// Makes a dataset's bytes and all names and attributes durable.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn fsync(&self, file: &StagedFile) -> Result<(), StagingError> {
        file.content.sync()?;
        sync_names(self.state().as_ref())
    }

    /// Its bytes get another length as such: then no header of a .npy file says any more what they are. To be called with the gate held.
    fn resize(
        &self,
        node: NodeId,
        content: &Content,
        new_len_bytes: impl FnOnce(u64) -> u64,
    ) -> Result<(), StagingError> {
        let resizes = {
            let body = content.read();
            body.npy.is_some() && {
                let len_bytes = body.len_bytes()?;
                new_len_bytes(len_bytes) != len_bytes
            }
        };
        if resizes {
            self.change_state(|state| self.forget_npy(state, node, &mut content.write()))?;
        }
        Ok(())
    }

    /// Gives a dataset its overlay, if it has none yet. To be called with the gate held, so that it stays.
    pub(super) fn stage(&self, node: NodeId, content: &Arc<Content>) -> Result<(), StagingError> {
        // Text has to be read for this, and hashes: not under the lock of all.
        let (len_bytes, digest) = {
            let body = content.read();
            if body.overlay.is_some() {
                return Ok(());
            }
            body.base.expect_edit();
            let digest = body.base.digest().unwrap_or_else(|error| {
                log::debug!("what is edited cannot be told from another file's: {error}");
                None
            });
            (body.base.len_bytes()?, digest)
        };
        self.change_state(|state| {
            let mut body = content.write();
            self.give_overlay(state, node, content, &mut body, (len_bytes, digest))
        })
    }

    /// Gives a dataset its overlay over so many bytes of its base, if it has none yet; the digest tells which bytes these are. `body` is that of
    /// `content`.
    pub(super) fn give_overlay(
        &self,
        state: &mut State,
        node: NodeId,
        content: &Arc<Content>,
        body: &mut Body,
        (len_bytes, digest): (u64, Option<String>),
    ) -> Result<(), StagingError> {
        if body.overlay.is_some() {
            return Ok(());
        }
        let mut overlay = state.new_overlay(&self.path, len_bytes)?;
        match state.tree.path(node, true) {
            Ok(path) => {
                let edited = Change::Edit {
                    path,
                    overlay: overlay.number(),
                    digest,
                };
                if let Err(error) = state.change(&self.path, &edited) {
                    overlay.discard();
                    return Err(error);
                }
                state.keep(node, content.clone());
            }
            // It was removed while it was open: its bytes go when it is closed.
            Err(_) => overlay.discard(),
        }
        body.overlay = Some(overlay);
        Ok(())
    }
}

fn check_editable(content: &Content) -> Result<(), StagingError> {
    if content.read().base.form()? == Form::Json {
        return Err(StagingError::NotPermitted {
            what: "a dataset that is shown as JSON Lines cannot be written",
        });
    }
    Ok(())
}
