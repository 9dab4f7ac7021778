//! Changes of `npy/staging/` by name: which dataset a .npy file is, and what becomes of another one's name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::inode::{Node, View};
use super::{FsError, Stale, Vfs, staged, views};
use crate::staging::{NodeId, RenameMode};

impl Vfs {
    /// The name that something in a staged group has in `staging/`.
    pub(super) fn true_name(
        &self,
        view: View,
        group: NodeId,
        name: &OsStr,
    ) -> Result<Vec<u8>, FsError> {
        if view == View::Raw {
            return Ok(staged::not_control(group, name.as_bytes())?.to_vec());
        }
        let staging = self.staging()?;
        match staged::find(staging, view, group, name.as_bytes())? {
            Node::StagedGroup(_, id) | Node::StagedFile(_, id) => Ok(staging.shown_name(id)?),
            _ => Err(FsError::NotFound),
        }
    }

    /// The name in `staging/` of a .npy file that is to be made.
    pub(super) fn free_npy_name<'n>(
        &self,
        group: NodeId,
        name: &'n OsStr,
    ) -> Result<&'n [u8], FsError> {
        let name = staged::not_control(group, views::staged_name(name.as_bytes())?)?;
        match staged::find(self.staging()?, View::Raw, group, name) {
            Err(FsError::NotFound) => Ok(name),
            // There is something that cannot be shown as a .npy file, or not under that name.
            Ok(_) => Err(FsError::NotPermitted),
            Err(error) => Err(error),
        }
    }

    /// Renames within `npy/staging/`.
    pub(super) fn rename_npy(
        &self,
        from: (NodeId, &OsStr),
        to: (NodeId, &OsStr),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let staging = self.staging()?;
        let source = staged::find(staging, View::Npy, from.0, from.1.as_bytes())?;
        let target = match staged::find(staging, View::Npy, to.0, to.1.as_bytes()) {
            Ok(target) => Some(target),
            Err(FsError::NotFound) => None,
            Err(error) => return Err(error),
        };
        let from_name = self.true_name(View::Npy, from.0, from.1)?;
        let to_name = match (&source, &target) {
            (_, Some(_)) if mode == RenameMode::NoReplace => return Err(FsError::Exists),
            (_, Some(Node::StagedGroup(_, id) | Node::StagedFile(_, id))) => {
                staging.shown_name(*id)?
            }
            (Node::StagedFile(..), None) => self.free_npy_name(to.0, to.1)?.to_vec(),
            _ => staged::not_control(to.0, to.1.as_bytes())?.to_vec(),
        };
        if mode == RenameMode::Exchange {
            staging.rename(from.0, &from_name, to.0, &to_name, mode)?;
        } else {
            staging.rename_npy((from.0, &from_name), (to.0, &to_name), mode)?;
        }
        Ok(())
    }

    /// The bytes of a dataset were changed through `view`: who has it open in the other one sees that at his next read.
    pub(super) fn changed_as(&self, view: View, id: NodeId) {
        let (other, is_npy) = match view {
            View::Npy => (View::Raw, false),
            View::Raw | View::Meta => (View::Npy, true),
        };
        let is_open = self
            .staging
            .as_ref()
            .is_some_and(|staging| staging.is_open_as(id, is_npy));
        if is_open {
            let ino = self.inodes.ino(&Node::StagedFile(other, id));
            self.announcer.tell(vec![Stale::Content(ino)]);
            self.announcer.settle();
        }
    }
}
