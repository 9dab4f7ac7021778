//! The next version: a tree of changes over a version of the file, edited bytes in overlay files, and its durable state.
//!
//! [`Staging`] is the whole interface. It knows what is to be in the next version and gives that to
//! [`VersionedFile::commit`]; it does not know how a version is written, nor what asks for the changes.
//!
//! Everything staged is kept in a folder beside the file, the sidecar: a log of the changes of the tree, and for each edited dataset an overlay of
//! the bytes that were written. Both are written as the changes happen, and read again by the next mount.

mod attributes;
mod block_set;
mod boot;
mod change;
mod change_log;
mod commit;
mod content;
mod error;
mod files;
mod names;
mod npy;
mod open_files;
mod overlay;
mod recovery;
mod sidecar;
mod staged_bytes;
mod state;
mod status;
mod tree;
mod types;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use content::Content;
pub use error::StagingError;
pub use files::StagedFile;
pub use npy::{NpyEntry, NpyFile, is_temporary_name};
pub use recovery::{recover, settle};
use sidecar::Sidecar;
use state::{Durable, State};
use tree::Tree;
pub use types::{
    Allocate, CommitRequest, NodeId, RenameMode, SetMode, StagedAttributes, StagedEntry,
    StagedKind, StagedStat,
};

use crate::store::{CommitError, CommitProgress, Dataset, Snapshot, VersionIndex, VersionedFile};

/// How long a mount waits for an earlier one that still has what is staged, and how often it tries.
const HOLDER_PATIENCE: Duration = Duration::from_secs(1);
const HOLDER_INTERVAL: Duration = Duration::from_millis(20);

/// What changed under its observers' feet: content and attributes of these nodes, and names in them, may be others now.
pub type OnReplaced = Box<dyn Fn(&[NodeId]) + Send + Sync>;

/// The staged tree of one mount. All methods can be called from many threads.
pub struct Staging {
    file: Arc<VersionedFile>,
    /// Of the sidecar.
    path: PathBuf,
    /// Held for reading by whoever changes anything, and for writing by a commit and whatever else begins anew. Taken before `state`.
    gate: RwLock<()>,
    /// `None` until it is first looked at. Taken before the lock of any dataset's bytes.
    state: RwLock<Option<State>>,
    on_replaced: OnceLock<OnReplaced>,
    /// What became of the last commit.
    outcome: Mutex<Option<String>>,
    /// How far the commit is that runs, if one does.
    progress: CommitProgress,
    is_committing: AtomicBool,
    /// What was refused of .npy files since.
    refusal: Mutex<Option<String>>,
    /// The commit that failed when the file was being changed. It may be finished at the next mount, with what was staged then, so nothing is staged or
    /// committed any more.
    latch: OnceLock<Arc<CommitError>>,
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Staging {
    /// Staging of `file`, as yet without any change. Touches nothing on disk.
    #[must_use]
    pub fn new(file: Arc<VersionedFile>) -> Self {
        Self {
            path: sidecar::path_for(file.path()),
            file,
            gate: RwLock::default(),
            state: RwLock::default(),
            on_replaced: OnceLock::new(),
            outcome: Mutex::default(),
            refusal: Mutex::default(),
            progress: CommitProgress::default(),
            is_committing: AtomicBool::new(false),
            latch: OnceLock::new(),
        }
    }

    /// Takes up what an earlier mount left staged, if it did. That mount's process is given a moment to end: it goes on for a while after
    /// its tree is unmounted.
    ///
    /// # Errors
    /// [`StagingError::Held`], [`StagingError::BaseGone`], or what is wrong with the folder of staged state. Until that is resolved, all other
    /// methods fail with the same.
    pub fn recover(&self) -> Result<(), StagingError> {
        let deadline = Instant::now() + HOLDER_PATIENCE;
        loop {
            match self.refresh() {
                Err(StagingError::Held { .. }) if Instant::now() < deadline => {
                    thread::sleep(HOLDER_INTERVAL);
                }
                refreshed => break refreshed?,
            }
        }
        self.read(|_| Ok(()))
    }

    /// Makes everything durable and removes the folder of staged state if nothing is staged. To be called at unmount.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn close(&self) -> Result<(), StagingError> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state_mut();
        if let Some(state) = &mut *state
            && !state.is_base_gone
            && !state.is_pinned
            && state.tree.is_pristine()
            && let Some(kept) = state.kept.take()
        {
            return kept.sidecar.remove_all();
        }
        sync_all(state.as_ref())
    }

    /// Is told, after a commit, a reset, or another program's commit, which nodes to look at again.
    pub fn on_replaced(&self, on_replaced: OnReplaced) {
        // A second mount of one staging has no use.
        let _ = self.on_replaced.set(on_replaced);
    }

    /// The node that is shown as `name` in a group.
    ///
    /// # Errors
    /// [`StagingError::NotFound`], [`StagingError::NotADirectory`], [`StagingError::Stale`].
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<NodeId, StagingError> {
        self.refresh()?;
        self.read(|state| {
            let children = state.tree.children(parent)?;
            children.get(name).copied().ok_or(StagingError::NotFound)
        })
    }

    /// What a group contains, in the byte order of the names as shown.
    ///
    /// # Errors
    /// [`StagingError::NotADirectory`], [`StagingError::Stale`].
    pub fn list(&self, group: NodeId) -> Result<Vec<StagedEntry>, StagingError> {
        self.refresh()?;
        self.read(|state| {
            let children = state.tree.children(group)?.iter();
            children
                .map(|(name, &node)| {
                    Ok(StagedEntry {
                        name: name.clone(),
                        node,
                        kind: state.tree.node(node)?.kind(),
                    })
                })
                .collect()
        })
    }

    /// Everything but the root. Nothing where the state cannot be used.
    #[must_use]
    pub fn nodes(&self) -> Vec<(NodeId, StagedKind)> {
        let nodes = self.read(|state| {
            let ids = state.tree.objects().into_values();
            ids.map(|id| Ok((id, state.tree.node(id)?.kind())))
                .collect()
        });
        nodes.unwrap_or_default()
    }

    /// The group that holds a node; the root holds itself.
    ///
    /// # Errors
    /// [`StagingError::Stale`].
    pub fn parent(&self, node: NodeId) -> Result<NodeId, StagingError> {
        self.read(|state| match state.tree.node(node)?.parent {
            Some(parent) => Ok(parent),
            None if node == NodeId::ROOT => Ok(node),
            None => Err(StagingError::Stale),
        })
    }

    /// Group or dataset.
    ///
    /// # Errors
    /// [`StagingError::Stale`].
    pub fn kind(&self, node: NodeId) -> Result<StagedKind, StagingError> {
        self.read(|state| Ok(state.tree.node(node)?.kind()))
    }

    /// Kind, length, times. Also of a removed dataset that is still open.
    ///
    /// # Errors
    /// [`StagingError::Stale`], or what is wrong with the dataset.
    pub fn stat(&self, node: NodeId) -> Result<StagedStat, StagingError> {
        self.refresh()?;
        self.read(|state| self.stat_in(state, node))
    }

    fn stat_in(&self, state: &State, id: NodeId) -> Result<StagedStat, StagingError> {
        let node = state.tree.node(id)?;
        let content = node.dataset().and_then(|_| state.known_content(id));
        // What was removed and is still open may be of a version that is not the base any more.
        let is_removed = node.parent.is_none() && content.is_some();
        let mut stat = StagedStat {
            kind: node.kind(),
            size_bytes: 0,
            stored_bytes: 0,
            modified: UNIX_EPOCH,
            writable: true,
        };
        let of_base = match &node.origin {
            Some(path) if node.dataset().is_some() && !is_removed => {
                self.ask_base(state, |snapshot, index| {
                    let dataset = self.file.dataset_in(snapshot, index, path)?;
                    let class = snapshot.sharing()?.class_of(index, path);
                    let origin = class.map_or(index, |class| {
                        snapshot
                            .sharing()
                            .map_or(index, |sharing| sharing.class(class).origin)
                    });
                    Ok((
                        dataset.len_bytes()?,
                        dataset.stored_bytes()?,
                        snapshot.history().version(origin).system_time(),
                        content::Form::of(&dataset) != content::Form::Json,
                    ))
                })?
            }
            _ => self.ask_base(state, |snapshot, index| {
                Ok((0, 0, snapshot.history().version(index).system_time(), true))
            })?,
        };
        if let Some((size_bytes, stored_bytes, modified, writable)) = of_base {
            (stat.size_bytes, stat.stored_bytes) = (size_bytes, stored_bytes);
            (stat.modified, stat.writable) = (modified, writable);
        }
        stat.modified = node.modified.unwrap_or(stat.modified);
        if let Some(content) = content {
            let body = content.read();
            if is_removed {
                stat.size_bytes = body.len_bytes()?;
                stat.writable = body.base.form()? != content::Form::Json;
            }
            if let Some(overlay) = &body.overlay {
                stat.size_bytes = overlay.len_bytes();
                stat.stored_bytes = stat.stored_bytes.saturating_add(overlay.stored_bytes()?);
                stat.modified = overlay.modified();
            }
        }
        Ok(stat)
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn fsync_all(&self) -> Result<(), StagingError> {
        // Many bytes may have to be written: not under the lock of all.
        let contents = self
            .state()
            .as_ref()
            .map(State::staged_contents)
            .unwrap_or_default();
        sync_contents(&contents)?;
        sync_names(self.state().as_ref())
    }

    /// Drops what is staged and starts over: from the current version, or from the one that is shown as `version`.
    ///
    /// # Errors
    /// [`StagingError::NoSuchVersion`].
    pub fn reset(&self, version: Option<&[u8]>) -> Result<(), StagingError> {
        // What cannot be taken up for another reason can be dropped.
        if let Err(error @ StagingError::Held { .. }) = self.refresh() {
            return Err(error);
        }
        let replaced = {
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            self.check_latch()?;
            let snapshot = self.file.look();
            let current = state::current(&snapshot);
            let base = match version {
                None => current.clone(),
                Some(name) => {
                    let history = snapshot.history();
                    let index =
                        history
                            .by_shown_name(name)
                            .ok_or_else(|| StagingError::NoSuchVersion {
                                name: name.to_vec(),
                            })?;
                    Some(history.version(index).key.clone())
                }
            };
            let is_pinned = base != current;
            let mut state = self.state_mut();
            if state.is_none() {
                let fresh = State::over(&self.file, current, false, None)?;
                if let Some(sidecar) = Sidecar::take(&self.path)? {
                    sidecar.remove_all()?;
                }
                *state = Some(fresh);
            }
            self.start_over(&mut state, base, is_pinned, Durable::Yes)?
        };
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.tell(&replaced);
        Ok(())
    }

    /// Begins anew over a version, and says which nodes may have changed by it.
    fn start_over(
        &self,
        state: &mut Option<State>,
        base: Option<crate::store::VersionKey>,
        is_pinned: bool,
        durable: Durable,
    ) -> Result<Vec<NodeId>, StagingError> {
        let state = state.as_mut().ok_or(StagingError::Stale)?;
        let mut replaced: Vec<NodeId> = state.tree.objects().into_values().collect();
        if is_pinned {
            // The choice is kept beside the file, as the changes are.
            state.kept(&self.path)?;
        }
        state.start_over(base, is_pinned, durable)?;
        replaced.push(NodeId::ROOT);
        replaced.extend(state.tree.objects().into_values());
        replaced.sort_unstable();
        replaced.dedup();
        Ok(replaced)
    }

    /// Every node of a tree before and of the one now.
    fn nodes_of(&self, before: &Tree) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = before.objects().into_values().collect();
        nodes.push(NodeId::ROOT);
        if let Some(state) = &*self.state() {
            nodes.extend(state.tree.objects().into_values());
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn tell(&self, replaced: &[NodeId]) {
        if let Some(on_replaced) = self.on_replaced.get() {
            on_replaced(replaced);
        }
    }

    /// Looks whether there is anything new: takes up a sidecar, and follows the current version while nothing is staged. To be called
    /// without any lock.
    fn refresh(&self) -> Result<(), StagingError> {
        if self.is_fresh() {
            return Ok(());
        }
        let replaced = {
            let _gate = match self.gate.try_write() {
                Ok(gate) => gate,
                Err(TryLockError::Poisoned(gate)) => gate.into_inner(),
                // Somebody changes something or commits: then what is staged stays as it is for now.
                Err(TryLockError::WouldBlock) if self.state().is_some() => return Ok(()),
                Err(TryLockError::WouldBlock) => {
                    self.gate.write().unwrap_or_else(PoisonError::into_inner)
                }
            };
            let mut state = self.state_mut();
            let must_load = match &*state {
                None => true,
                Some(state) => state.kept.is_none() && self.path.symlink_metadata().is_ok(),
            };
            if must_load {
                let loaded = State::load(&self.file, &self.path, state.as_ref())?;
                let old = state.replace(loaded);
                drop(state);
                if let Some(old) = old {
                    self.tell(&self.nodes_of(&old.tree));
                }
                return Ok(());
            }
            let snapshot = self.file.look();
            let follows = state.as_ref().is_some_and(|state| {
                state.identity != snapshot.identity()
                    && !state.is_pinned
                    && !state.is_base_gone
                    && !state.has_open_files()
                    && state.tree.is_pristine()
            });
            if !follows {
                return Ok(());
            }
            self.start_over(&mut state, state::current(&snapshot), false, Durable::Yes)?
        };
        self.tell(&replaced);
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        let state = self.state();
        let Some(state) = &*state else {
            return false;
        };
        if state.kept.is_none() && self.path.symlink_metadata().is_ok() {
            return false;
        }
        if state.is_pinned || state.is_base_gone {
            return true;
        }
        let now = self.file.look().identity();
        now == state.identity || state.has_open_files() || state.is_changed(now)
    }

    fn state(&self) -> RwLockReadGuard<'_, Option<State>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, Option<State>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a commit out as long as it is held.
    ///
    /// # Errors
    /// [`StagingError::Latched`].
    fn pass(&self) -> Result<RwLockReadGuard<'_, ()>, StagingError> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.check_latch()?;
        Ok(gate)
    }

    /// To be called with the gate held.
    fn check_latch(&self) -> Result<(), StagingError> {
        match self.latch.get() {
            Some(error) => Err(StagingError::Latched {
                error: error.clone(),
            }),
            None => Ok(()),
        }
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&State) -> Result<T, StagingError>,
    ) -> Result<T, StagingError> {
        let state = self.state();
        read(state.as_ref().ok_or(StagingError::Stale)?.usable()?)
    }

    /// To be called with the gate held.
    fn change_state<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, StagingError>,
    ) -> Result<T, StagingError> {
        let mut state = self.state_mut();
        let state = state.as_mut().ok_or(StagingError::Stale)?;
        state.usable()?;
        change(state)
    }

    /// What is found in the base version; `None` where there is none.
    fn ask_base<T>(
        &self,
        state: &State,
        ask: impl Fn(&Arc<Snapshot>, VersionIndex) -> Result<T, crate::store::StoreError>,
    ) -> Result<Option<T>, StagingError> {
        let Some(base) = &state.base else {
            return Ok(None);
        };
        let found = self.file.ask(|snapshot| {
            let index = snapshot.history().by_key(base).ok_or_else(|| {
                crate::store::StoreError::VersionGone {
                    version: base.name.to_vec(),
                }
            })?;
            ask(snapshot, index)
        })?;
        Ok(Some(found))
    }

    /// A dataset of the base version.
    fn base_dataset(
        &self,
        state: &State,
        path: &[u8],
    ) -> Result<Option<Arc<Dataset>>, StagingError> {
        self.ask_base(state, |snapshot, index| {
            self.file.dataset_in(snapshot, index, path)
        })
    }
}

fn sync_all(state: Option<&State>) -> Result<(), StagingError> {
    sync_contents(&state.map(State::staged_contents).unwrap_or_default())?;
    sync_names(state)
}

fn sync_contents(contents: &[Arc<Content>]) -> Result<(), StagingError> {
    contents.iter().try_for_each(|content| content.sync())
}

fn sync_names(state: Option<&State>) -> Result<(), StagingError> {
    if let Some(kept) = state.and_then(|state| state.kept.as_ref()) {
        let removed = kept.sidecar.take_removed();
        let synced = kept.log.sync().and_then(|()| kept.sidecar.sync());
        for number in removed {
            match &synced {
                Ok(()) => kept.sidecar.remove_overlay(number)?,
                Err(_) => kept.sidecar.remove_once_logged(number),
            }
        }
        synced?;
    }
    Ok(())
}
