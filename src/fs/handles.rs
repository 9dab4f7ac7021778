//! What is open, by the numbers that the kernel names it by.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::directory::OpenDirectory;
use super::staged::OpenControl;
use super::{FsError, HandleId, Ino};
use crate::staging::{NpyFile, StagedFile};
use crate::store::{OpenDataset, OpenNpy};

/// An open file or directory.
#[derive(Debug, Clone)]
pub(crate) enum Handle {
    /// A dataset of a version.
    File(Ino, Arc<OpenDataset>),
    /// The same as a .npy file.
    Npy(Ino, Arc<OpenNpy>),
    /// A text that was made when it was opened.
    Text(Arc<[u8]>),
    /// A staged dataset.
    Staged(Arc<StagedFile>),
    /// The same as a .npy file.
    StagedNpy(Arc<NpyFile>),
    /// A control file.
    Control(Arc<OpenControl>),
    /// A directory.
    Directory(Arc<OpenDirectory>),
}

/// All that is open.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    open: RwLock<HashMap<HandleId, Handle>>,
    /// How many were ever given out: no number is given out twice.
    count: AtomicU64,
}

impl Handles {
    pub(crate) fn add(&self, handle: Handle) -> HandleId {
        let id = HandleId(self.count.fetch_add(1, Ordering::Relaxed) + 1);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(id, handle);
        id
    }

    /// # Errors
    /// [`FsError::BadHandle`] for one that was never given out, or is closed.
    pub(crate) fn get(&self, id: HandleId) -> Result<Handle, FsError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&id).cloned().ok_or(FsError::BadHandle)
    }

    pub(crate) fn remove(&self, id: HandleId) -> Option<Handle> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(&id)
    }

    /// The open datasets of versions.
    pub(crate) fn files(&self) -> Vec<(Ino, Arc<OpenDataset>)> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values()
            .filter_map(|handle| match handle {
                Handle::File(ino, open) => Some((*ino, open.clone())),
                Handle::Npy(ino, open) => Some((*ino, open.dataset().clone())),
                _ => None,
            })
            .collect()
    }
}
