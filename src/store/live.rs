//! A file that other programs go on writing to.
//!
//! No lock is held: another program may open the file for writing at any time. Instead, every answer is given from one settled
//! state of the file, a [`Snapshot`]:
//!
//! - A look compares the file's identity with the snapshot's. Where it differs, a new snapshot is read, and is taken only if
//!   the file was not written to meanwhile, nor so shortly before that its timestamp could not tell a further write.
//! - What needs bytes of the file is checked afterwards: if the file was written to while they were read, the answer
//!   is thrown away and sought anew in the state that follows. What came from memory alone needs no check.
//! - While another program holds the file for writing, the last settled state is kept until the file has been
//!   at rest for a moment. The state that is read then is not complete: that program may have in its memory what the metadata speaks of
//!   already. Until it lets go of the file, chunks that are not in memory are believed by their hashes alone.
//! - By its hash a chunk is also believed where the file goes on changing: bytes from the place that a settled state gave, if they
//!   hash to what that state's hash table says, are the chunk, whatever was written elsewhere. The table is read when the
//!   first bytes of a dataset are, since later may be too late.
//!
//! The check is sound because a file system sets a file's modification time before it changes its bytes, in steps of a
//! timer tick at most (10 ms with the slowest one, `CONFIG_HZ=100`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use super::dataset::{Dataset, Shared};
use super::file_state::{FileState, SharedStates};
use super::history::{VersionIndex, VersionKey};
use super::own_commit::OwnCommit;
use super::snapshot::Snapshot;
use super::verification::Verification;
use super::{StoreError, writers};
use crate::source::{Identity, LocalFile};

/// A timestamp that is older than this tells any later write apart.
const TIMESTAMP_STEP: Duration = Duration::from_millis(11);
/// How long a file that another program holds for writing must be at rest before its state is read.
const REST: Duration = Duration::from_millis(50);
/// How long an answer is sought in a file that keeps changing.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

/// Choices of the one who opens a file.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Bytes of decoded chunks to keep.
    pub cache_bytes: u64,
    /// Threads that decode.
    pub decode_threads: usize,
    /// Whether each chunk is held against its stored SHA-256 as it is read.
    pub verify: bool,
}

/// Is told of the state before, the state after, and whether the one only adds versions to the other.
pub(crate) type OnChange =
    Box<dyn Fn(&VersionedFile, &Arc<Snapshot>, &Arc<Snapshot>, bool) + Send + Sync>;

/// A versioned file, followed through its changes.
pub struct VersionedFile {
    pub(super) path: PathBuf,
    pub(super) shared: Arc<Shared>,
    current: ArcSwap<Snapshot>,
    pub(super) states: SharedStates,
    /// Held by the one commit that goes on.
    pub(super) commits: Mutex<()>,
    on_change: OnceLock<OnChange>,
    /// Held while a new state is read, with the last one that could not be.
    reload: Mutex<Option<Identity>>,
}

impl std::fmt::Debug for VersionedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VersionedFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A dataset that was opened for reading; it goes on being the same array whatever becomes of the file.
#[derive(Debug)]
pub struct OpenDataset {
    path: Arc<[u8]>,
    found: ArcSwap<Found>,
}

/// A dataset in one state of the file.
#[derive(Debug)]
struct Found {
    snapshot: Arc<Snapshot>,
    /// The one that it was found by.
    version: VersionKey,
    dataset: Arc<Dataset>,
}

impl OpenDataset {
    /// The dataset in the state of the file that was last read from.
    #[must_use]
    pub fn dataset(&self) -> Arc<Dataset> {
        self.found.load().dataset.clone()
    }
}

impl VersionedFile {
    /// Opens the file at `path` and reads its history.
    ///
    /// # Errors
    /// Whatever keeps it from being read: [`StoreError::Open`], [`StoreError::NotAFile`], [`StoreError::NotHdf5`],
    /// [`StoreError::NotVersioned`], [`StoreError::Busy`] or [`StoreError::Damaged`].
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let states = SharedStates {
            verification: Arc::new(Verification::new(options.verify)),
            ..SharedStates::default()
        };
        Self::open_with(path, options, states)
    }

    /// The same with what all its states are to have in common.
    ///
    /// # Errors
    /// As for [`VersionedFile::open`].
    pub(super) fn open_with(
        path: &Path,
        options: &StoreOptions,
        states: SharedStates,
    ) -> Result<Self, StoreError> {
        let open_error = |error: std::io::Error| StoreError::Open {
            path: path.to_owned(),
            error: Arc::new(error),
        };
        let path = path.canonicalize().map_err(open_error)?;
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(options.decode_threads)
            .thread_name(|i| format!("decode-{i}"))
            .build()
            .map_err(|error| open_error(std::io::Error::other(error)))?;
        let snapshot = first_snapshot(&path, &states)?;
        Ok(Self {
            path,
            shared: Arc::new(Shared::new(options.cache_bytes, workers)),
            current: ArcSwap::from_pointee(snapshot),
            states,
            commits: Mutex::default(),
            on_change: OnceLock::new(),
            reload: Mutex::default(),
        })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `on_change` whenever a new state is about to be taken, which it must not look for. Only the first caller is heard.
    pub(crate) fn on_change(&self, on_change: OnChange) {
        // A second listener has no use.
        let _ = self.on_change.set(on_change);
    }

    /// The state of the file now, or the last settled one while another program is writing.
    #[must_use]
    pub fn look(&self) -> Arc<Snapshot> {
        let current = self.current.load_full();
        // Nothing is to be seen before the version is there as a whole.
        if self.states.own_commit.is_running() {
            return current;
        }
        match LocalFile::identity_at_path(&self.path) {
            Ok(identity) if identity != current.identity() => self.reload(),
            Ok(identity) => {
                // In this order: who lets go of the file has written everything before.
                if !current.file.is_complete()
                    && !writers::is_locked_for_writing(&identity)
                    && current.file.is_unchanged()
                {
                    current.file.set_complete();
                }
                current
            }
            // A file that was deleted is still open here.
            Err(_) => current,
        }
    }

    /// What `ask` finds in a settled state of the file.
    ///
    /// # Errors
    /// Those of `ask`; [`StoreError::Unsettled`] where the file keeps changing.
    pub fn ask<T>(
        &self,
        ask: impl Fn(&Arc<Snapshot>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.persist(|| {
            let snapshot = self.look();
            checked(&snapshot.file, || ask(&snapshot))
        })
    }

    /// Opens the dataset at `path` of a version.
    ///
    /// # Errors
    /// [`StoreError::VersionGone`], or damage of the dataset's metadata.
    pub fn open_dataset(
        &self,
        version: &VersionKey,
        path: &Arc<[u8]>,
    ) -> Result<OpenDataset, StoreError> {
        Ok(OpenDataset {
            path: path.clone(),
            found: ArcSwap::from_pointee(self.find(version, path)?),
        })
    }

    /// The dataset at `path` of a version in one state of the file: to be called within [`VersionedFile::ask`].
    ///
    /// # Errors
    /// Damage of the dataset's metadata.
    pub fn dataset_in(
        &self,
        snapshot: &Arc<Snapshot>,
        version: VersionIndex,
        path: &[u8],
    ) -> Result<Arc<Dataset>, StoreError> {
        snapshot.dataset(&self.shared, version, path)
    }

    /// The same with the chunk map of this very version, where others map chunks of equal bytes in other places.
    ///
    /// # Errors
    /// Damage of the dataset's metadata.
    pub(crate) fn own_dataset_in(
        &self,
        snapshot: &Arc<Snapshot>,
        version: VersionIndex,
        path: &[u8],
    ) -> Result<Arc<Dataset>, StoreError> {
        snapshot.own_dataset(&self.shared, version, path)
    }

    /// Whatever `ask` finds in an open dataset, in a state of the file that did not change meanwhile.
    ///
    /// # Errors
    /// Those of `ask`; [`StoreError::VersionGone`] where the version was deleted, or the dataset rewritten with another type,
    /// shape or fill value; [`StoreError::Unsettled`].
    pub fn ask_dataset<T>(
        &self,
        open: &OpenDataset,
        mut ask: impl FnMut(&Dataset) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.persist(|| {
            let dataset = open.dataset();
            if let Some(answer) = checked(&dataset.file, || ask(&dataset)) {
                return Some(answer);
            }
            self.follow(open).err().map(Err)
        })
    }

    /// Fills `buffer` with bytes of an open dataset from `offset` on, as far as they go, and says how many there were. Does not
    /// wait for a program that goes on writing where the bytes can be proven right.
    ///
    /// # Errors
    /// As for [`VersionedFile::ask_dataset`]; a chunk that is missing, damaged or unreadable.
    pub fn read_dataset(
        &self,
        open: &OpenDataset,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StoreError> {
        self.read_settled(
            open,
            buffer,
            |dataset, buffer| dataset.read_at(offset, buffer),
            |dataset, buffer| dataset.read_proven_at(offset, buffer),
        )
    }

    /// What `read` reads of an open dataset, or `read_proven` where the file goes on changing: bytes that this one gives are right.
    ///
    /// # Errors
    /// As for [`VersionedFile::read_dataset`].
    pub(super) fn read_settled(
        &self,
        open: &OpenDataset,
        buffer: &mut [u8],
        read: impl Fn(&Dataset, &mut [u8]) -> Result<usize, StoreError>,
        read_proven: impl Fn(&Dataset, &mut [u8]) -> Result<usize, StoreError>,
    ) -> Result<usize, StoreError> {
        self.persist(|| {
            let dataset = open.dataset();
            let file = &dataset.file;
            if !file.is_complete() {
                // It may be complete by now.
                let _ = self.look();
            }
            if let Some(answer) = checked(file, || read(&dataset, buffer)) {
                return match answer {
                    // It may not be written yet.
                    Err(StoreError::ChunkHash { .. } | StoreError::HashTable { .. })
                        if !file.is_complete() =>
                    {
                        self.follow(open).err().map(Err)
                    }
                    answer => Some(answer),
                };
            }
            if writers::is_locked_for_writing(&file.identity)
                && let Ok(count) = read_proven(&dataset, buffer)
            {
                return Some(Ok(count));
            }
            self.follow(open).err().map(Err)
        })
    }

    /// Whether an open dataset can be read on in the state `new`. Where only damage keeps that from being known, it is the
    /// reader who is told.
    pub(crate) fn goes_on(&self, open: &OpenDataset, new: &Arc<Snapshot>) -> bool {
        let find = |version: &VersionKey| self.find_in(new, version, &open.path);
        !successor(open, find).is_err_and(|error| is_gone(&error))
    }

    fn find(&self, version: &VersionKey, path: &[u8]) -> Result<Found, StoreError> {
        self.ask(|snapshot| self.find_in(snapshot, version, path))
    }

    fn find_in(
        &self,
        snapshot: &Arc<Snapshot>,
        version: &VersionKey,
        path: &[u8],
    ) -> Result<Found, StoreError> {
        let index = snapshot
            .history()
            .by_key(version)
            .ok_or_else(|| gone(version))?;
        Ok(Found {
            snapshot: snapshot.clone(),
            version: version.clone(),
            dataset: self.dataset_in(snapshot, index, path)?,
        })
    }

    /// Finds an open dataset again in the state that the file is in now.
    fn follow(&self, open: &OpenDataset) -> Result<(), StoreError> {
        let new = successor(open, |version| self.find(version, &open.path))?;
        open.found.store(Arc::new(new));
        Ok(())
    }

    /// Tries until there is an answer or patience ends.
    fn persist<T>(
        &self,
        mut attempt: impl FnMut() -> Option<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = attempt() {
                return answer;
            }
            if self.states.own_commit.is_half_changed() {
                return Err(StoreError::HalfChanged {
                    path: self.path.clone(),
                });
            }
            if Instant::now() > deadline {
                return Err(StoreError::Unsettled {
                    path: self.path.clone(),
                });
            }
            thread::sleep(PAUSE);
        }
    }

    /// Reads the file's new state, if it is settled.
    fn reload(&self) -> Arc<Snapshot> {
        let mut failed = self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load_full();
        let Ok(Some(identity)) = settled_identity(&self.path, &self.states.own_commit) else {
            return current;
        };
        if identity == current.identity() || *failed == Some(identity) {
            return current;
        }
        let added = self.states.own_commit.added_to(&current.identity());
        // Then this process itself holds the lock, and nobody else need be looked for.
        let is_ours = added.is_some();
        if !is_ours && is_in_use(&identity) {
            return current;
        }
        let is_complete = is_ours || !writers::is_locked_for_writing(&identity);
        let read = match &added {
            Some(added) => Snapshot::read_added(&self.path, &current, added),
            None => Snapshot::read(&self.path, &self.states),
        };
        let new = match read {
            Ok(new) if new.identity() == identity && new.file.is_unchanged() => Arc::new(new),
            Ok(_) => return current,
            Err(error) => {
                if LocalFile::identity_at_path(&self.path).is_ok_and(|now| now == identity) {
                    log::error!("{error}; the state before is kept");
                    *failed = Some(identity);
                }
                return current;
            }
        };
        if is_complete {
            new.file.set_complete();
        }
        let is_own = added.is_some()
            && self.states.own_commit.added_to(&current.identity()) == added
            && new.has_versions_of(&current);
        let extends = is_own || new.extends(&current);
        if extends {
            new.inherit(&current);
            if is_own {
                new.inherit_own(&current);
            }
            if !new.file.is_unchanged() {
                return current;
            }
        }
        *failed = None;
        // First, so that nobody is told of the new state by what stands for the old one.
        if let Some(on_change) = self.on_change.get() {
            on_change(self, &current, &new, extends);
        }
        self.current.store(new.clone());
        new
    }
}

/// What an open dataset is in another state of the file, in which `find` finds the dataset of a version.
fn successor(
    open: &OpenDataset,
    find: impl Fn(&VersionKey) -> Result<Found, StoreError>,
) -> Result<Found, StoreError> {
    let old = open.found.load_full();
    // Where the version was deleted, any other with the same content will do.
    let mut versions = vec![old.version.clone()];
    versions.extend(old.snapshot.sharers(&old.version, &open.path));
    for version in &versions {
        let new = match find(version) {
            Err(error) if is_gone(&error) => continue,
            found => found?,
        };
        let file = |found: &Found| {
            let identity = found.snapshot.identity();
            (identity.device, identity.inode)
        };
        let (header, old_header) = (&new.dataset.header, &old.dataset.header);
        // The library gives all elements that equal the old fill value the new one.
        if file(&new) == file(&old)
            && header.datatype == old_header.datatype
            && header.dataspace == old_header.dataspace
            && header.fill_value == old_header.fill_value
            && (is_origin(&new, &open.path) || !is_origin(&old, &open.path))
        {
            return Ok(new);
        }
    }
    Err(gone(&old.version))
}

/// Whether the content of a dataset first appeared in the version that it was found by, or is shared with no other. One that was of
/// its version alone and now equals its parent's has changed.
fn is_origin(found: &Found, path: &[u8]) -> bool {
    let history = found.snapshot.history();
    let origin = || {
        let sharing = found.snapshot.sharing_if_known()?;
        let class = sharing.class_of(history.by_key(&found.version)?, path)?;
        Some(sharing.class(class).origin)
    };
    origin().is_none_or(|origin| history.version(origin).key == found.version)
}

/// What `ask` returns, if it came from memory alone or the file did not change while it was asked.
fn checked<T>(
    file: &FileState,
    ask: impl FnOnce() -> Result<T, StoreError>,
) -> Option<Result<T, StoreError>> {
    let reads = file.source.read_count();
    let before = file.is_unchanged();
    let answer = ask();
    let from_memory = answer.is_ok() && file.source.read_count() == reads;
    (from_memory || before && file.is_unchanged()).then_some(answer)
}

fn first_snapshot(path: &Path, states: &SharedStates) -> Result<Snapshot, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open_error = |error| StoreError::Open {
            path: path.to_owned(),
            error: Arc::new(error),
        };
        if let Some(identity) = settled_identity(path, &states.own_commit).map_err(open_error)? {
            if writers::is_locked_for_writing(&identity) {
                return Err(StoreError::Busy {
                    path: path.to_owned(),
                });
            }
            let snapshot = Snapshot::read(path, states);
            let is_still_so = || LocalFile::identity_at_path(path).is_ok_and(|now| now == identity);
            match &snapshot {
                Ok(read) if read.identity() == identity && read.file.is_unchanged() => {
                    read.file.set_complete();
                    return snapshot;
                }
                Err(_) if is_still_so() => return snapshot,
                _ => {}
            }
        }
        if Instant::now() > deadline {
            return Err(StoreError::Busy {
                path: path.to_owned(),
            });
        }
        thread::sleep(PAUSE);
    }
}

/// The file's identity once its timestamp is old enough to tell any further write; `None` where it is being written to.
fn settled_identity(path: &Path, own_commit: &OwnCommit) -> std::io::Result<Option<Identity>> {
    let identity = LocalFile::identity_at_path(path)?;
    if own_commit.is_stamped(&identity) {
        return Ok(Some(identity));
    }
    if let Some(rest) = age(&identity).and_then(|age| TIMESTAMP_STEP.checked_sub(age)) {
        thread::sleep(rest);
        let later = LocalFile::identity_at_path(path)?;
        return Ok((later == identity).then_some(identity));
    }
    Ok(Some(identity))
}

/// Whether another program holds the file for writing and was active only just now.
fn is_in_use(identity: &Identity) -> bool {
    age(identity).is_some_and(|age| age < REST) && writers::is_locked_for_writing(identity)
}

/// How long ago the file was last written to; `None` for a time in the future, which any later write differs from.
fn age(identity: &Identity) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let written = u64::try_from(identity.mtime_ns)
        .ok()
        .map(Duration::from_nanos)?;
    now.checked_sub(written)
}

fn is_gone(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::VersionGone { .. } | StoreError::ObjectGone { .. }
    )
}

fn gone(version: &VersionKey) -> StoreError {
    StoreError::VersionGone {
        version: version.name.to_vec(),
    }
}
