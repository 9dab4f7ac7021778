//! Renaming .npy files: programs that replace a file write another one first.

use crate::staging::content::Content;
use crate::staging::state::State;
use crate::staging::tree::DatasetNode;
use crate::staging::{NodeId, RenameMode, Staging, StagingError};
use crate::store::{Beginning, NpyHeader, npy_header, npy_text_header};

impl Staging {
    /// The name that a node has in `staging/`.
    ///
    /// # Errors
    /// [`StagingError::Stale`].
    pub fn shown_name(&self, node: NodeId) -> Result<Vec<u8>, StagingError> {
        self.read(|state| Ok(state.tree.node(node)?.shown.clone()))
    }

    /// Moves a node as [`Staging::rename`] does. A dataset that was written as a .npy file becomes what its new path has, as if it had been written
    /// there.
    ///
    /// # Errors
    /// Those of `rename(2)`; [`StagingError::Npy`] where the path has another type or number of axes. Nothing is moved then.
    pub fn rename_npy(
        &self,
        (parent, name): (NodeId, &[u8]),
        (new_parent, new_name): (NodeId, &[u8]),
        mode: RenameMode,
    ) -> Result<(), StagingError> {
        self.refresh()?;
        let written = self.read(|state| {
            let id = state.tree.find(&state.tree.path_in(parent, name)?)?;
            let node = state.tree.node(id)?;
            let (Some(dataset), None) = (node.dataset(), &node.origin) else {
                return Ok(None);
            };
            let content = state.content(id)?;
            let Some(said) = self.said_of(state, id, dataset, &content)? else {
                return Ok(None);
            };
            let to = state.tree.path_in(new_parent, new_name)?;
            let described = if let Ok(target) = state.tree.find(&to) {
                match state.tree.node(target)?.dataset() {
                    Some(dataset) => self.described(state, target, dataset)?,
                    None => None,
                }
            } else {
                let group = state.tree.path(new_parent, false)?;
                let parts = [&group[..], new_name];
                let names = parts.into_iter().filter(|part| !part.is_empty());
                self.structure_at(state, names.collect::<Vec<_>>().join(&b'/'))?
            };
            if let Some(described) = described {
                let shape = said.shape_for(&described.datatype, described.shape.len());
                shape.map_err(|error| StagingError::Npy { dataset: to, error })?;
            }
            Ok(Some((id, content, said)))
        });
        let written = written.inspect_err(|error| {
            if matches!(error, StagingError::Npy { .. }) {
                self.note_refusal(error);
            }
        })?;
        self.rename(parent, name, new_parent, new_name, mode)?;
        if let Some((id, content, said)) = written {
            let _gate = self.pass()?;
            self.change_state(|state| {
                let outline = self.outline_of(state, id, &said)?;
                self.shape_as(state, id, outline, None)
            })?;
            if !content.is_open_as(true) {
                self.tidy_npy(id, &content)?;
            }
        }
        Ok(())
    }

    /// What the header of a dataset says, or would say; `None` where it is not whole yet.
    fn said_of(
        &self,
        state: &State,
        id: NodeId,
        dataset: &DatasetNode,
        content: &Content,
    ) -> Result<Option<NpyHeader>, StagingError> {
        if let Some(npy) = &content.read().npy {
            return Ok(npy.said().cloned());
        }
        let structure = self.structure(state, id, dataset)?;
        let header = if structure.datatype.is_vlen_string() {
            npy_text_header(1, &structure.shape)
        } else {
            npy_header(&structure.datatype, &structure.shape)
        };
        Ok(match header.map(|header| NpyHeader::parse(&header)) {
            Some(Ok(Beginning::Whole(said))) => Some(said),
            _ => None,
        })
    }
}
