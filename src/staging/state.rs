//! What is staged now: the tree, the bytes of its datasets, and the sidecar in which both are kept.
//!
//! # What a machine that went down leaves
//!
//! A sync makes the bytes of a dataset durable, and then the log, with all changes of the tree that were made until then. So after another start of the machine
//! the tree is at least what it was at the last sync. An overlay that was never synced, but is in the part of the log that was, begins anew: as the
//! dataset is in the base, or empty. Behind that part, the log is cut off before the first change that tells of such an overlay: whoever wrote a new file and moved it
//! over another one, without any sync, has the old one again. That anything was lost is said in the status and in the log of the program.
//!
//! # What is staged belongs to one file
//!
//! A file may be moved, copied back from a backup, repacked, or have versions added and removed, and what is staged stays good as long as the version is there
//! that it is based on. So the version's name and time must be found, and each edited dataset must be there what it was when it was edited: not by its
//! place, which those change, but by its type, shape and the hashes of its chunks ([`Dataset::fingerprint`](crate::store::Dataset)). A file in which it is not, is another one with the same
//! names, and the sidecar is set aside.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::boot::this_boot;
use super::change::{BaseVersion, Begin, Change, FORMAT, Record};
use super::change_log::{Log, Opened};
use super::content::{Base, Content};
use super::npy::Given;
use super::overlay::{Overlay, Since, number_of};
use super::recovery::{log_recovery, recover_in};
use super::sidecar::Sidecar;
use super::tree::{Applied, DatasetNode, Tree};
use super::{NodeId, StagingError};
use crate::source::{Identity, LocalFile, Recovery};
use crate::store::{Snapshot, StoreError, VersionKey, VersionTree, VersionedFile};

/// How long the file is given to be read after it was recovered.
const PATIENCE: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(2);
/// How many datasets are named of those that lost something.
const MAX_NAMED: usize = 5;

/// The bytes of a dataset of which somebody knows.
#[derive(Debug)]
struct Slot {
    weak: Weak<Content>,
    /// Kept as long as it is staged.
    staged: Option<Arc<Content>>,
}

/// The sidecar, once there is one.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) sidecar: Arc<Sidecar>,
    pub(super) log: Log,
}

/// Whether it must be made durable that nothing is staged any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    Yes,
    /// The file has the version that the log says was to be made, so that what is staged is not taken up again should the log come back.
    ByCommit,
}

/// Everything that is staged.
#[derive(Debug)]
pub(super) struct State {
    pub(super) tree: Tree,
    /// The version that is edited.
    pub(super) base: Option<VersionKey>,
    /// Whether it was chosen, so that the current version is not followed.
    pub(super) is_pinned: bool,
    /// Whether the base is not in the file any more, so that the tree could not be made.
    pub(super) is_base_gone: bool,
    /// The state of the file that the tree was made from.
    pub(super) identity: Identity,
    pub(super) kept: Option<Kept>,
    /// What has to be said of how this state came about.
    pub(super) note: Option<String>,
    /// The state of the file that is not followed, since the tree differs from the base; cleared by each change of it.
    not_followed: Mutex<Option<Identity>>,
    next_overlay: u64,
    file: Arc<VersionedFile>,
    /// Taken after the lock of the state, before that of a content.
    contents: Mutex<HashMap<NodeId, Slot>>,
}

/// What a version contains, and in which state of the file.
pub(super) fn base_tree(
    file: &VersionedFile,
    base: Option<&VersionKey>,
) -> Result<(Option<Arc<VersionTree>>, Identity), StoreError> {
    file.ask(|snapshot| {
        let tree = match base {
            None => None,
            Some(base) => {
                let index =
                    snapshot
                        .history()
                        .by_key(base)
                        .ok_or_else(|| StoreError::VersionGone {
                            version: base.name.to_vec(),
                        })?;
                Some(snapshot.tree(index)?)
            }
        };
        Ok((tree, snapshot.identity()))
    })
}

/// The version that is current in a state of the file.
pub(super) fn current(snapshot: &Snapshot) -> Option<VersionKey> {
    let index = snapshot.history().current()?;
    Some(snapshot.history().version(index).key.clone())
}

impl State {
    /// Nothing staged over a version. What `old` has at the same path keeps its number.
    pub(super) fn over(
        file: &Arc<VersionedFile>,
        base: Option<VersionKey>,
        is_pinned: bool,
        old: Option<&Tree>,
    ) -> Result<Self, StagingError> {
        let (tree, identity) = base_tree(file, base.as_ref())?;
        Ok(Self {
            tree: Tree::of_base(tree.as_deref(), old),
            base,
            is_pinned,
            is_base_gone: false,
            identity,
            kept: None,
            note: None,
            not_followed: Mutex::default(),
            next_overlay: 1,
            file: file.clone(),
            contents: Mutex::default(),
        })
    }

    /// What is staged in the sidecar at `path`, or nothing over the current version. It takes the place of `old`, which has no sidecar:
    /// numbers stay, and open files go on.
    ///
    /// # Errors
    /// [`StagingError::Held`], or what is wrong with the sidecar.
    pub(super) fn load(
        file: &Arc<VersionedFile>,
        path: &Path,
        old: Option<&Self>,
    ) -> Result<Self, StagingError> {
        let mut state = Self::load_over(file, path, old.map(|old| &old.tree))?;
        if let Some(old) = old {
            let slots = std::mem::take(&mut *old.contents());
            state.adopt(slots, &old.tree, false);
        }
        Ok(state)
    }

    fn load_over(
        file: &Arc<VersionedFile>,
        path: &Path,
        old: Option<&Tree>,
    ) -> Result<Self, StagingError> {
        let fresh = || Self::over(file, current(&file.look()), false, old);
        let Some(sidecar) = Sidecar::take(path)? else {
            return fresh();
        };
        let recovery = recover_in(file.path(), &sidecar)?;
        log_recovery(file.path(), &recovery);
        if matches!(recovery, Recovery::Finished { .. }) {
            wait_for_now(file)?;
        }
        let taken_up = Self::take_up(file, &sidecar, old);
        let Err(StagingError::SidecarDamaged { path, what }) = taken_up else {
            return taken_up;
        };
        let aside = sidecar.set_aside()?;
        let note = format!(
            "What was staged could not be taken up ({}: {what}). It was set aside as {}.",
            path.display(),
            aside.display()
        );
        log::error!("{}: {note}", file.path().display());
        let mut state = fresh()?;
        state.note = Some(note);
        Ok(state)
    }

    /// What is staged in a sidecar.
    fn take_up(
        file: &Arc<VersionedFile>,
        sidecar: &Arc<Sidecar>,
        old: Option<&Tree>,
    ) -> Result<Self, StagingError> {
        let fresh = || Self::over(file, current(&file.look()), false, old);
        let Some(opened) = Log::open(sidecar)? else {
            sidecar.remove_all()?;
            return fresh();
        };
        let sidecar = sidecar.clone();
        let snapshot = file.look();
        if let Some(Record::Commit(begun)) = last_change(&opened.records) {
            let version = VersionKey::from(&begun.commit);
            if snapshot.history().by_key(&version).is_some() {
                // The process ended between the commit and the new beginning.
                let is_pinned = !begun.make_current;
                let base = if is_pinned {
                    Some(version)
                } else {
                    current(&snapshot)
                };
                let mut state = Self::over(file, base, is_pinned, old)?;
                drop(opened);
                if is_pinned {
                    let log = Log::begin(&sidecar, &state.begin_record())?;
                    remove_overlays(&sidecar, |_| false)?;
                    state.kept = Some(Kept { sidecar, log });
                } else {
                    // If they come back, so does the log, which says the same again.
                    Log::remove(&sidecar)?;
                    sidecar.remove_all()?;
                }
                return Ok(state);
            }
        }
        Self::replay(file, sidecar, opened, old)
    }

    fn replay(
        file: &Arc<VersionedFile>,
        sidecar: Arc<Sidecar>,
        opened: Opened,
        old: Option<&Tree>,
    ) -> Result<Self, StagingError> {
        let Opened {
            log,
            begin,
            mut records,
            is_same_boot,
            is_cut,
        } = opened;
        let mut kept = Kept { sidecar, log };
        let mut is_cut = is_cut;
        let mut reborn = Vec::new();
        let mut state = loop {
            let mut state = Self::replay_tree(file, &kept.sidecar, &begin, &records, old)?;
            if state.is_base_gone {
                state.kept = Some(kept);
                return Ok(state);
            }
            if is_same_boot {
                break state;
            }
            let unborn = state.unborn_overlays(&kept.sidecar)?;
            let promised = records
                .iter()
                .rposition(|record| matches!(record, Record::Synced { .. }))
                .unwrap_or(0);
            let Some(record) = record_of(&records[promised..], &unborn) else {
                reborn = unborn;
                break state;
            };
            let record = promised + record;
            kept.log.cut(record)?;
            records.truncate(record);
            is_cut = true;
        };
        let since = if is_same_boot {
            Since::SameBoot
        } else {
            Since::OtherBoot
        };
        let mut lost = Vec::new();
        let mut numbers = Vec::new();
        for id in state.tree.datasets_within(NodeId::ROOT) {
            let node = state.tree.node(id)?;
            let Some(dataset) = node.dataset() else {
                continue;
            };
            if dataset.overlay.is_none() && dataset.npy.is_none() {
                continue;
            }
            numbers.extend(dataset.overlays());
            let base = Base::new(file, state.place_of(node.origin.as_ref()));
            let mut all_lost_blocks = 0;
            let mut open = |number, len_bytes: &dyn Fn() -> Result<u64, StoreError>| {
                let (overlay, lost_blocks) = if reborn.contains(&number) {
                    let overlay = Overlay::create(&kept.sidecar, number, len_bytes()?)?;
                    (overlay, 1)
                } else {
                    Overlay::open(&kept.sidecar, number, since)?
                };
                all_lost_blocks += lost_blocks;
                Ok::<_, StagingError>(overlay)
            };
            let overlay = match dataset.overlay {
                Some(number) => Some(open(number, &|| base.len_bytes())?),
                None => None,
            };
            let npy = match &dataset.npy {
                Some(npy) => {
                    let draft = npy.draft.map(|number| open(number, &|| Ok(0)));
                    Some(Given::taken_up(npy.header.clone(), draft.transpose()?))
                }
                None => None,
            };
            if all_lost_blocks > 0 {
                lost.push(state.tree.path(id, true)?);
            }
            let content = Content::new(base, overlay);
            content.write().npy = npy;
            state.keep(id, content);
        }
        remove_overlays(&kept.sidecar, |number| numbers.contains(&number))?;
        if !is_same_boot {
            kept.log.note_boot()?;
        }
        state.note = note_of_lost(is_cut, &lost);
        if let Some(note) = &state.note {
            log::warn!("{}: {note}", kept.sidecar.path().display());
        }
        state.kept = Some(kept);
        Ok(state)
    }

    /// The tree that a log describes, without the bytes of its datasets. Without changes where the base is gone.
    fn replay_tree(
        file: &Arc<VersionedFile>,
        sidecar: &Sidecar,
        begin: &Begin,
        records: &[Record],
        old: Option<&Tree>,
    ) -> Result<Self, StagingError> {
        let base = begin.base.as_ref().map(VersionKey::from);
        let mut state = match Self::over(file, base.clone(), begin.pinned, old) {
            Err(StagingError::Store(StoreError::VersionGone { .. })) => {
                let mut state = Self::over(file, None, begin.pinned, old)?;
                state.base = base;
                state.is_base_gone = true;
                return Ok(state);
            }
            state => state?,
        };
        let now = SystemTime::now();
        for record in records {
            if let Record::Change(change) = record {
                if let Some(overlay) = change.overlay() {
                    state.next_overlay = state.next_overlay.max(overlay.saturating_add(1));
                }
                if let Change::Edit {
                    path,
                    digest: Some(digest),
                    ..
                } = change
                {
                    state.check_edited(sidecar, path, digest)?;
                }
                state.tree.apply(change, Some(now)).map_err(|error| {
                    log::error!("{}: {change:?}: {error}", sidecar.path().display());
                    StagingError::SidecarDamaged {
                        path: sidecar.path().to_owned(),
                        what: "its changes do not fit the version that they are based on",
                    }
                })?;
            }
        }
        Ok(state)
    }

    /// Holds a dataset, before it is edited, to be what it was then.
    fn check_edited(
        &self,
        sidecar: &Sidecar,
        path: &[u8],
        digest: &str,
    ) -> Result<(), StagingError> {
        // What is not there does not fit, and that is found when the change is made.
        let Ok(node) = self.tree.find(path).and_then(|id| self.tree.node(id)) else {
            return Ok(());
        };
        let base = Base::new(&self.file, self.place_of(node.origin.as_ref()));
        match base.digest() {
            Ok(Some(now)) if now != digest => Err(StagingError::SidecarDamaged {
                path: sidecar.path().to_owned(),
                what: "it is of another file: a dataset is not what it was when it was edited",
            }),
            Ok(_) => Ok(()),
            Err(error) => {
                let path = String::from_utf8_lossy(path);
                log::warn!("whether {path} is what was edited cannot be known: {error}");
                Ok(())
            }
        }
    }

    /// Those overlays of the tree that never became durable.
    fn unborn_overlays(&self, sidecar: &Arc<Sidecar>) -> Result<Vec<u64>, StagingError> {
        let mut unborn = Vec::new();
        for id in self.tree.datasets_within(NodeId::ROOT) {
            let dataset = self.tree.node(id)?.dataset();
            for number in dataset.into_iter().flat_map(DatasetNode::overlays) {
                if Overlay::is_unborn(sidecar, number)? {
                    unborn.push(number);
                }
            }
        }
        Ok(unborn)
    }

    /// # Errors
    /// [`StagingError::BaseGone`].
    pub(super) fn usable(&self) -> Result<&Self, StagingError> {
        match &self.base {
            Some(base) if self.is_base_gone => Err(StagingError::BaseGone {
                version: base.name.to_vec(),
            }),
            _ => Ok(self),
        }
    }

    fn begin_record(&self) -> Begin {
        Begin {
            format: FORMAT,
            device: self.identity.device,
            inode: self.identity.inode,
            base: self.base.as_ref().map(BaseVersion::from),
            pinned: self.is_pinned,
            boot: this_boot().map(str::to_owned),
        }
    }

    /// Makes the sidecar, if there is none yet.
    ///
    /// # Errors
    /// [`StagingError::Held`], or what the operating system says; there is no sidecar then.
    pub(super) fn kept(&mut self, path: &Path) -> Result<&mut Kept, StagingError> {
        if self.kept.is_none() {
            let sidecar = Sidecar::make(path)?;
            if Log::is_in(&sidecar)? {
                // Another process has staged something and ended, since this one looked. It is taken up at the next look.
                return Err(StagingError::Held {
                    path: path.to_owned(),
                    pid: None,
                });
            }
            let log = match Log::begin(&sidecar, &self.begin_record()) {
                Ok(log) => log,
                Err(error) => {
                    if let Err(error) = sidecar.remove_all() {
                        log::warn!("{error}");
                    }
                    return Err(error);
                }
            };
            self.kept = Some(Kept { sidecar, log });
        }
        self.kept.as_mut().ok_or(StagingError::Stale)
    }

    /// Makes a change of the tree, and logs it.
    ///
    /// # Errors
    /// Why not; nothing is changed then.
    pub(super) fn change(&mut self, path: &Path, change: &Change) -> Result<Applied, StagingError> {
        self.tree.check(change)?;
        self.kept(path)?
            .log
            .append(&Record::Change(change.clone()))?;
        let applied = self.tree.apply(change, Some(SystemTime::now()))?;
        *self.not_followed() = None;
        if let Some(removed) = applied.removed {
            self.remove(removed);
        }
        Ok(applied)
    }

    /// Makes changes of the tree that neither depend on each other nor remove anything, and logs them: all of them, or none.
    ///
    /// # Errors
    /// Why not; nothing is changed then.
    pub(super) fn change_all(
        &mut self,
        path: &Path,
        changes: &[Change],
    ) -> Result<(), StagingError> {
        if changes.is_empty() {
            return Ok(());
        }
        for change in changes {
            self.tree.check(change)?;
        }
        let records: Vec<_> = changes.iter().cloned().map(Record::Change).collect();
        self.kept(path)?.log.append_all(&records)?;
        for change in changes {
            self.tree.apply(change, Some(SystemTime::now()))?;
        }
        *self.not_followed() = None;
        Ok(())
    }

    /// Makes a dataset's overlay over `len_bytes` of its base. The change that tells of it is made by `change`.
    pub(super) fn new_overlay(
        &mut self,
        path: &Path,
        len_bytes: u64,
    ) -> Result<Overlay, StagingError> {
        let number = self.next_overlay;
        let sidecar = self.kept(path)?.sidecar.clone();
        let overlay = Overlay::create(&sidecar, number, len_bytes)?;
        self.next_overlay = number + 1;
        Ok(overlay)
    }

    /// Where an object of the base is.
    pub(super) fn place_of(&self, origin: Option<&Arc<[u8]>>) -> Option<(VersionKey, Arc<[u8]>)> {
        Some((self.base.clone()?, origin?.clone()))
    }

    /// The bytes of a dataset.
    ///
    /// # Errors
    /// [`StagingError::IsADirectory`], [`StagingError::Stale`].
    pub(super) fn content(&self, id: NodeId) -> Result<Arc<Content>, StagingError> {
        let mut contents = self.contents();
        if let Some(content) = contents.get(&id).and_then(|slot| slot.weak.upgrade()) {
            return Ok(content);
        }
        let node = self.tree.node(id)?;
        let dataset = node.dataset().ok_or(StagingError::IsADirectory)?;
        if node.parent.is_none() || dataset.overlay.is_some() || dataset.npy.is_some() {
            return Err(StagingError::Stale);
        }
        let base = Base::new(&self.file, self.place_of(node.origin.as_ref()));
        let content = Content::new(base, None);
        let slot = Slot {
            weak: Arc::downgrade(&content),
            staged: None,
        };
        contents.insert(id, slot);
        Ok(content)
    }

    /// The bytes of a dataset, if they are staged or open.
    pub(super) fn known_content(&self, id: NodeId) -> Option<Arc<Content>> {
        self.contents().get(&id)?.weak.upgrade()
    }

    /// Keeps the bytes of a dataset, which are staged.
    pub(super) fn keep(&self, id: NodeId, content: Arc<Content>) {
        let slot = Slot {
            weak: Arc::downgrade(&content),
            staged: Some(content),
        };
        self.contents().insert(id, slot);
    }

    /// Whether anybody has a file open.
    pub(super) fn has_open_files(&self) -> bool {
        let contents = self.contents();
        let mut alive = contents.values().filter_map(|slot| slot.weak.upgrade());
        alive.any(|content| content.is_open())
    }

    /// All staged bytes.
    pub(super) fn staged_contents(&self) -> Vec<Arc<Content>> {
        let contents = self.contents();
        contents
            .values()
            .filter_map(|slot| slot.staged.clone())
            .collect()
    }

    /// Lets go of a dataset that was removed; its bytes stay as long as somebody has it open.
    fn remove(&mut self, id: NodeId) {
        let content = self.known_content(id);
        if let Some(content) = &content {
            content.write().discard();
        }
        let mut gone = Vec::new();
        {
            let mut contents = self.contents();
            if let Some(slot) = contents.get_mut(&id) {
                slot.staged = None;
            }
            drop(content);
            contents.retain(|id, slot| {
                let is_alive = slot.weak.strong_count() > 0;
                if !is_alive {
                    gone.push(*id);
                }
                is_alive
            });
        }
        gone.push(id);
        for id in gone {
            if self.known_content(id).is_none() {
                self.tree.forget(id);
            }
        }
    }

    /// Drops everything staged, and begins anew over `base`. Open files go on: against the new base where that has them.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub(super) fn start_over(
        &mut self,
        base: Option<VersionKey>,
        is_pinned: bool,
        durable: Durable,
    ) -> Result<(), StagingError> {
        let (tree, identity) = base_tree(&self.file, base.as_ref())?;
        let begin = Begin {
            format: FORMAT,
            device: identity.device,
            inode: identity.inode,
            base: base.as_ref().map(BaseVersion::from),
            pinned: is_pinned,
            boot: this_boot().map(str::to_owned),
        };
        if let Some(kept) = &mut self.kept {
            if is_pinned {
                kept.log = Log::begin(&kept.sidecar, &begin)?;
            } else {
                Log::remove(&kept.sidecar)?;
                if durable == Durable::Yes {
                    kept.sidecar.sync()?;
                }
            }
        }
        let new_tree = Tree::of_base(tree.as_deref(), Some(&self.tree));
        let old_tree = std::mem::replace(&mut self.tree, new_tree);
        (self.base, self.is_pinned, self.identity) = (base, is_pinned, identity);
        self.is_base_gone = false;
        *self.not_followed() = None;
        let slots = std::mem::take(&mut *self.contents());
        self.adopt(slots, &old_tree, durable == Durable::ByCommit);
        if !is_pinned
            && let Some(kept) = self.kept.take()
            && let Err(error) = kept.sidecar.remove_all()
        {
            log::warn!("{error}");
        }
        Ok(())
    }

    /// Lets the datasets that were open in an earlier state go on in this one: with what is staged of them here, or as if they had been
    /// removed. What was staged is in the base now if it was committed.
    fn adopt(&mut self, slots: HashMap<NodeId, Slot>, old_tree: &Tree, is_committed: bool) {
        for (id, slot) in slots {
            let Some(content) = slot.weak.upgrade() else {
                continue;
            };
            let loaded = self.contents().remove(&id).and_then(|slot| slot.staged);
            let mut body = content.write();
            body.discard();
            match self.tree.node(id) {
                Ok(node) if node.dataset().is_some() => {
                    body.base = Base::new(&self.file, self.place_of(node.origin.as_ref()));
                    (body.overlay, body.npy) = if let Some(loaded) = &loaded {
                        let mut loaded = loaded.write();
                        (loaded.overlay.take(), loaded.npy.take())
                    } else {
                        let npy = body.npy.take();
                        if npy.is_some() && !is_committed {
                            body.dropped_npys += 1;
                        }
                        // Who has the .npy file open knows its header, and where data begins behind it.
                        let npy = npy.filter(|_| is_committed && content.is_open_as(true));
                        (None, npy.and_then(Given::outliving))
                    };
                }
                _ => {
                    if let Ok(node) = old_tree.node(id) {
                        self.tree.keep_removed(id, node.clone());
                    }
                }
            }
            let is_staged = loaded.is_some();
            drop(body);
            let slot = Slot {
                weak: Arc::downgrade(&content),
                staged: is_staged.then_some(content),
            };
            self.contents().insert(id, slot);
        }
    }

    /// Whether the tree differs from the base, so that the file's state `now` is not followed. Cheap when it is asked again.
    pub(super) fn is_changed(&self, now: Identity) -> bool {
        let mut not_followed = self.not_followed();
        if *not_followed != Some(now) && !self.tree.is_pristine() {
            *not_followed = Some(now);
        }
        *not_followed == Some(now)
    }

    fn not_followed(&self) -> MutexGuard<'_, Option<Identity>> {
        self.not_followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn contents(&self) -> MutexGuard<'_, HashMap<NodeId, Slot>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last record but for those that the log is kept by.
fn last_change(records: &[Record]) -> Option<&Record> {
    let mut records = records.iter().rev();
    records.find(|record| !matches!(record, Record::Boot { .. } | Record::Synced { .. }))
}

/// What is said where the machine went down before all was durable; `lost` are paths.
fn note_of_lost(is_cut: bool, lost: &[Vec<u8>]) -> Option<String> {
    let words = "The machine went down before the last changes were durable: they are lost";
    if lost.is_empty() {
        return is_cut.then(|| format!("{words}."));
    }
    let named: Vec<_> = lost
        .iter()
        .take(MAX_NAMED)
        .map(|path| String::from_utf8_lossy(path))
        .collect();
    let more = match lost.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let others = if is_cut {
        ", and others as a whole"
    } else {
        ""
    };
    Some(format!("{words} in {}{more}{others}.", named.join(", ")))
}

/// Number of the first record that tells of one of these overlays.
fn record_of(records: &[Record], overlays: &[u64]) -> Option<usize> {
    records.iter().position(|record| {
        matches!(
            record,
            Record::Change(change)
                if change.overlay().is_some_and(|overlay| overlays.contains(&overlay))
        )
    })
}

/// Waits until the state that the file is in now is the one that is looked at.
fn wait_for_now(file: &VersionedFile) -> Result<(), StagingError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = LocalFile::identity_at_path(file.path());
        if now.is_ok_and(|now| now == file.look().identity()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(StoreError::Unsettled {
                path: file.path().to_owned(),
            }
            .into());
        }
        thread::sleep(INTERVAL);
    }
}

/// Removes the overlays that nothing speaks of.
fn remove_overlays(sidecar: &Sidecar, is_used: impl Fn(u64) -> bool) -> Result<(), StagingError> {
    for name in sidecar.names()? {
        if number_of(&name).is_some_and(|number| !is_used(number)) {
            sidecar.remove(&name)?;
        }
    }
    Ok(())
}
