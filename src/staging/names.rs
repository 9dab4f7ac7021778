//! Changes of the tree: what is made, removed and moved.

use super::change::Change;
use super::content::{Base, Content, Form};
use super::state::State;
use super::{NodeId, RenameMode, StagedKind, Staging, StagingError};

impl Staging {
    /// Makes an empty dataset.
    ///
    /// # Errors
    /// [`StagingError::Exists`], [`StagingError::BadName`], or those of the folder of staged state.
    pub fn create(&self, parent: NodeId, name: &[u8]) -> Result<NodeId, StagingError> {
        self.refresh()?;
        let _gate = self.pass()?;
        self.change_state(|state| {
            let path = state.tree.path_in(parent, name)?;
            state.tree.check(&Change::Create {
                path: path.clone(),
                overlay: 0,
            })?;
            let mut overlay = state.new_overlay(&self.path, 0)?;
            let created = Change::Create {
                path,
                overlay: overlay.number(),
            };
            let applied = state.change(&self.path, &created);
            let id = match applied.map(|applied| applied.node) {
                Ok(Some(id)) => id,
                other => {
                    overlay.discard();
                    return Err(other.err().unwrap_or(StagingError::Stale));
                }
            };
            let base = Base::new(&self.file, None);
            state.keep(id, Content::new(base, Some(overlay)));
            Ok(id)
        })
    }

    /// Makes an empty group.
    ///
    /// # Errors
    /// As for [`Staging::create`].
    pub fn mkdir(&self, parent: NodeId, name: &[u8]) -> Result<NodeId, StagingError> {
        self.refresh()?;
        let _gate = self.pass()?;
        self.change_state(|state| {
            let path = state.tree.path_in(parent, name)?;
            let applied = state.change(&self.path, &Change::Mkdir { path })?;
            applied.node.ok_or(StagingError::Stale)
        })
    }

    /// Removes a dataset; who has it open goes on with it.
    ///
    /// # Errors
    /// [`StagingError::NotFound`], [`StagingError::IsADirectory`].
    pub fn unlink(&self, parent: NodeId, name: &[u8]) -> Result<(), StagingError> {
        self.remove(parent, name, StagedKind::Dataset)
    }

    /// Removes an empty group.
    ///
    /// # Errors
    /// [`StagingError::NotFound`], [`StagingError::NotADirectory`], [`StagingError::NotEmpty`].
    pub fn rmdir(&self, parent: NodeId, name: &[u8]) -> Result<(), StagingError> {
        self.remove(parent, name, StagedKind::Group)
    }

    fn remove(&self, parent: NodeId, name: &[u8], kind: StagedKind) -> Result<(), StagingError> {
        self.refresh()?;
        let _gate = self.pass()?;
        self.change_state(|state| {
            let path = state.tree.path_in(parent, name)?;
            match (state.tree.node(state.tree.find(&path)?)?.kind(), kind) {
                (StagedKind::Group, StagedKind::Dataset) => Err(StagingError::IsADirectory),
                (StagedKind::Dataset, StagedKind::Group) => Err(StagingError::NotADirectory),
                _ => state
                    .change(&self.path, &Change::Remove { path })
                    .map(|_| ()),
            }
        })
    }

    /// Moves a node. A dataset that replaces another one keeps its own type and attributes, and takes what it does not have from that one.
    ///
    /// # Errors
    /// Those of `rename(2)`.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &[u8],
        new_parent: NodeId,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), StagingError> {
        self.refresh()?;
        let _gate = self.pass()?;
        self.change_state(|state| {
            let from = state.tree.path_in(parent, name)?;
            let to = state.tree.path_in(new_parent, new_name)?;
            let id = state.tree.find(&from)?;
            let target = match state.tree.find(&to) {
                Ok(target) => Some(target),
                Err(StagingError::NotFound) => None,
                Err(error) => return Err(error),
            };
            if target.is_some() && mode == RenameMode::NoReplace {
                return Err(StagingError::Exists);
            }
            if target == Some(id) {
                return Ok(());
            }
            let moved = match target {
                Some(target) if mode == RenameMode::Exchange => vec![id, target],
                _ => vec![id],
            };
            let change = if mode == RenameMode::Exchange {
                Change::Exchange { from, to }
            } else {
                Change::Rename { from, to }
            };
            state.tree.check(&change)?;
            for id in moved {
                self.check_movable(state, id)?;
            }
            state.change(&self.path, &change).map(|_| ())
        })
    }

    /// Whether everything at or below a node can be stored under another path: what has no bytes of its own can not.
    fn check_movable(&self, state: &State, id: NodeId) -> Result<(), StagingError> {
        for id in state.tree.datasets_within(id) {
            let Some(path) = state.tree.node(id)?.origin.clone() else {
                continue;
            };
            let form = self.ask_base(state, |snapshot, index| {
                Ok(Form::of(&*self.file.dataset_in(snapshot, index, &path)?))
            })?;
            if form == Some(Form::Json) {
                return Err(StagingError::NotPermitted {
                    what: "a dataset that is shown as JSON Lines cannot be given another name",
                });
            }
        }
        Ok(())
    }
}
