//! One state of the file, immutable: what is read of it is kept, and requests share it without a lock held between them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::attributes::Form;
use super::dataset::{Dataset, Shared};
use super::file_state::{FileState, Kept, SharedStates, new_epoch};
use super::hash_table::HashTable;
use super::history::{History, Version, VersionIndex, VersionKey};
use super::own_commit::Added;
use super::raw_data::{Earlier, OwnTables, RawData};
use super::raw_places::RawPlaces;
use super::sharing::{ClassId, Sharing};
use super::tree::{Child, ChildKind, VersionTree};
use super::{AttributeText, StoreError, attributes};
use crate::h5::{self, Address, H5Error, H5File, LinkTarget, MetaReader, ObjectHeader, ObjectKind};
use crate::source::{Identity, LocalFile, Source};

/// Objects of version trees that are kept.
const KEPT_TREE_OBJECTS: u64 = 100_000;
/// Datasets that are kept ready to be read.
const KEPT_DATASETS: usize = 1024;

#[derive(Debug, Clone)]
struct ByObjects;

impl Weighter<VersionIndex, Arc<VersionTree>> for ByObjects {
    fn weight(&self, _key: &VersionIndex, tree: &Arc<VersionTree>) -> u64 {
        tree.len() as u64 + 1
    }
}

/// One state of a versioned file.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) file: Arc<FileState>,
    history: Arc<History>,
    /// The group of all versions.
    versions: Address,
    raw_places: RawPlaces,
    /// Epochs of raw data that were valid in the state before and still are.
    epochs: Mutex<HashMap<Arc<[u8]>, u64>>,
    raw_data: Mutex<HashMap<Arc<[u8]>, Arc<RawData>>>,
    /// Versions of the last complete state before this one, if this one only adds to it.
    complete: OnceLock<Arc<History>>,
    /// Hash tables of the last complete state before, as far as they were read in it.
    hash_tables: Mutex<HashMap<Arc<[u8]>, Arc<HashTable>>>,
    /// What was read in states that nobody but this process has changed since.
    own_tables: Mutex<HashMap<Arc<[u8]>, OwnTables>>,
    trees: Cache<VersionIndex, Arc<VersionTree>, ByObjects>,
    sharing: Kept<Sharing>,
    datasets: Cache<ClassId, Arc<Dataset>>,
}

impl Snapshot {
    /// Reads the history and the places of raw data of the file at `path` as it is now.
    ///
    /// # Errors
    /// Whatever keeps it from being mounted.
    pub(crate) fn read(path: &Path, shared: &SharedStates) -> Result<Self, StoreError> {
        let opened = Opened::open(path, shared.may_be_cut)?;
        let Opened { h5, versions, .. } = &opened;
        let damaged = |error| damaged(path, error);
        let history = History::read(h5, *versions).map_err(damaged)?;
        let raw_places = RawPlaces::read(&h5.reader(), opened.data).map_err(damaged)?;
        Ok(Self::of(path, opened, history, raw_places, shared))
    }

    /// Reads the file at `path`, which is in the state `old` but for what a commit of this process `added`: that alone is looked at. Where it is not
    /// found as it should be, all is read.
    ///
    /// # Errors
    /// As for [`Snapshot::read`].
    pub(crate) fn read_added(path: &Path, old: &Self, added: &Added) -> Result<Self, StoreError> {
        let shared = old.file.shared();
        let opened = Opened::open(path, false)?;
        let reader = opened.h5.reader();
        let is_same_file = {
            let (now, before) = (&opened.identity, &old.file.identity);
            (now.device, now.inode) == (before.device, before.inode)
                && opened.versions == old.versions
        };
        let found = || -> Result<Option<(History, RawPlaces)>, H5Error> {
            let history = old
                .history
                .with_added(&reader, opened.versions, &added.version)?;
            let raw_places = old
                .raw_places
                .with_added(&reader, opened.data, &added.raw_data)?;
            Ok(history.zip(raw_places))
        };
        if is_same_file && let Ok(Some((history, raw_places))) = found() {
            return Ok(Self::of(path, opened, history, raw_places, &shared));
        }
        drop(opened);
        Self::read(path, &shared)
    }

    fn of(
        path: &Path,
        opened: Opened,
        history: History,
        raw_places: RawPlaces,
        shared: &SharedStates,
    ) -> Self {
        Self {
            file: Arc::new(FileState::new(
                path,
                opened.source,
                opened.h5,
                opened.identity,
                shared,
                history.data_version(),
            )),
            history: Arc::new(history),
            versions: opened.versions,
            raw_places,
            epochs: Mutex::default(),
            raw_data: Mutex::default(),
            complete: OnceLock::new(),
            hash_tables: Mutex::default(),
            own_tables: Mutex::default(),
            trees: Cache::with_weighter(1024, KEPT_TREE_OBJECTS, ByObjects),
            sharing: Kept::default(),
            datasets: Cache::new(KEPT_DATASETS),
        }
    }

    /// Whether this state only adds versions to `old`: whatever was read of the old versions still holds.
    ///
    /// `delete_versions` and `modify_metadata` of the library give the datasets new hash tables. But `del` takes away a version and
    /// nothing else, and one that is made anew under its name may come to lie at the same place, so all is compared.
    pub(crate) fn extends(&self, old: &Self) -> bool {
        let same_file = |a: &Identity, b: &Identity| (a.device, a.inode) == (b.device, b.inode);
        same_file(&self.file.identity, &old.file.identity)
            && self.has_versions_of(old)
            && old
                .raw_places
                .found
                .iter()
                .all(|(path, place)| self.raw_places.found.get(path) == Some(place))
            && self.has_content_of(old)
    }

    /// Whether each version of `old` is here, at its place, under its name and with its parent. A new version may be the parent of an
    /// old one, where it has the name of one that was deleted.
    pub(crate) fn has_versions_of(&self, old: &Self) -> bool {
        let parent = |history: &History, index: Option<VersionIndex>| {
            index.map(|index| history.version(index).key.clone())
        };
        let is_here = |version: &Version| {
            self.history.by_key(&version.key).is_some_and(|index| {
                let now = self.history.version(index);
                now.group == version.group
                    && now.shown_name == version.shown_name
                    && parent(&self.history, now.parent) == parent(&old.history, version.parent)
            })
        };
        self.history.adds_to(&old.history)
            || old.history.iter().all(|(_, version)| is_here(version))
    }

    /// Whether each dataset of each version of `old` is the same here. Not so where those of `old` were never asked for.
    fn has_content_of(&self, old: &Self) -> bool {
        let index_here = |index| self.history.by_key(&old.history.version(index).key);
        match (old.sharing_if_known(), self.sharing()) {
            (Some(before), Ok(now)) => now.agrees_with(before, index_here),
            _ => false,
        }
    }

    /// Takes over from `old`, which it [`extends`](Self::extends), what needs not be read again.
    pub(crate) fn inherit(&self, old: &Self) {
        let complete = if old.file.is_complete() {
            Some(&old.history)
        } else {
            old.complete.get()
        };
        if let Some(complete) = complete {
            self.complete.get_or_init(|| Arc::clone(complete));
        }
        let mut hash_tables = old
            .hash_tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut epochs = old
            .epochs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (path, raw_data) in old
            .raw_data
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            epochs.insert(path.clone(), raw_data.epoch);
            if let Some(table) = raw_data.lasting_hashes() {
                hash_tables.insert(path.clone(), table);
            }
        }
        *self
            .hash_tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = hash_tables;
        *self.epochs.lock().unwrap_or_else(PoisonError::into_inner) = epochs;
    }

    /// Takes over from `old` what only this process has changed since, by a commit that added a version: the tables of raw data; and which of
    /// its versions share what, which is found out for the others alone. Only where [`has_versions_of`](Self::has_versions_of) says so.
    pub(crate) fn inherit_own(&self, old: &Self) {
        let mut own_tables = old
            .own_tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let opened = old.raw_data.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, raw_data) in opened.iter() {
            own_tables.insert(path.clone(), raw_data.own_tables());
        }
        drop(opened);
        *self
            .own_tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = own_tables;
        let Some(known) = old.sharing_if_known() else {
            return;
        };
        // Whoever asks for it later finds out the same, or why not.
        let _ = self.sharing.get_or_read(&self.file, || {
            Ok(Sharing::extended(self, &old.history, known))
        });
    }

    /// Whether all that the dataset at `path` of a version maps was in the file before a program that holds it for writing
    /// in this state opened it: so it is where this content was already in a complete state which this one only adds to.
    pub(crate) fn was_complete(&self, version: VersionIndex, path: &[u8]) -> bool {
        let origin = self.sharing().ok().and_then(|sharing| {
            let class = sharing.class_of(version, path)?;
            Some(sharing.class(class).origin)
        });
        let key = &self.history.version(origin.unwrap_or(version)).key;
        self.complete
            .get()
            .is_some_and(|complete| complete.by_key(key).is_some())
    }

    /// The versions.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The group of all versions, finished or not.
    pub(super) fn versions_group(&self) -> Address {
        self.versions
    }

    /// Where the raw data of each dataset path is.
    pub(super) fn raw_places(&self) -> &RawPlaces {
        &self.raw_places
    }

    /// Which state of the file this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.file.identity
    }

    /// Which versions of each dataset are the same. The first call reads the metadata of all versions.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`].
    pub fn sharing(&self) -> Result<&Sharing, StoreError> {
        self.sharing
            .get_or_read(&self.file, || Ok(Sharing::read(self)))
    }

    /// The same, if it was read already.
    #[must_use]
    pub fn sharing_if_known(&self) -> Option<&Sharing> {
        self.sharing.get()
    }

    /// All versions that share the dataset at `path` of a version, that one among them, as far as it was found out already.
    #[must_use]
    pub fn sharers(&self, version: &VersionKey, path: &[u8]) -> Vec<VersionKey> {
        let class = |index| self.sharing_if_known()?.class_of(index, path);
        let Some(shared) = self.history.by_key(version).and_then(class) else {
            return vec![version.clone()];
        };
        self.history
            .iter()
            .filter(|&(index, _)| class(index) == Some(shared))
            .map(|(_, version)| version.key.clone())
            .collect()
    }

    /// Owner, group and permissions of the file.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn metadata(&self) -> Result<std::fs::Metadata, StoreError> {
        self.file
            .source
            .metadata()
            .map_err(|error| StoreError::Open {
                path: self.file.path.clone(),
                error: Arc::new(error),
            })
    }

    /// What a version contains.
    ///
    /// # Errors
    /// Damage of the version's group.
    pub fn tree(&self, version: VersionIndex) -> Result<Arc<VersionTree>, StoreError> {
        self.trees.get_or_insert_with(&version, || {
            let found = self.history.version(version);
            self.file.settled(|| {
                VersionTree::read(&self.file.h5.reader(), &found.key.name, found.group)
                    .map(Arc::new)
            })
        })
    }

    /// The dataset at `path` of a version.
    ///
    /// # Errors
    /// Damage of its header, or of its mappings.
    pub(crate) fn dataset(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        version: VersionIndex,
        path: &[u8],
    ) -> Result<Arc<Dataset>, StoreError> {
        let sharing = self.sharing()?;
        match sharing.class_of(version, path) {
            // Versions may map chunks of equal bytes in different places. Whoever asks first, all are shown those of the origin.
            Some(class) => self.datasets.get_or_insert_with(&class, || {
                self.own_dataset(shared, sharing.class(class).origin, path)
            }),
            None => self.own_dataset(shared, version, path),
        }
    }

    /// The same with the chunk map of this very version.
    ///
    /// # Errors
    /// As for [`Snapshot::dataset`].
    pub(crate) fn own_dataset(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        version: VersionIndex,
        path: &[u8],
    ) -> Result<Arc<Dataset>, StoreError> {
        let tree = self.tree(version)?;
        let child = self.child(&tree, version, path)?;
        if let ChildKind::Dataset(Err(error)) | ChildKind::Unreadable(error) = &child.kind {
            return Err(self.object_error(version, path, error.clone()));
        }
        self.file
            .settled(|| Dataset::open(self, shared, version, child).map(Arc::new))
    }

    /// The attributes of the object at `path` of a version; of the version's own group where `path` is empty. Those of the format
    /// itself are left out.
    ///
    /// # Errors
    /// Damage of its header.
    pub fn attributes(
        &self,
        version: VersionIndex,
        path: &[u8],
    ) -> Result<Vec<AttributeText>, StoreError> {
        self.attributes_in(version, path, Form::Text)
    }

    /// The same with every value as JSON.
    ///
    /// # Errors
    /// As for [`Snapshot::attributes`].
    pub(super) fn attributes_as_json(
        &self,
        version: VersionIndex,
        path: &[u8],
    ) -> Result<Vec<AttributeText>, StoreError> {
        self.attributes_in(version, path, Form::Json)
    }

    fn attributes_in(
        &self,
        version: VersionIndex,
        path: &[u8],
        form: Form,
    ) -> Result<Vec<AttributeText>, StoreError> {
        let (address, is_own): (Address, fn(&[u8]) -> bool) = if path.is_empty() {
            (
                self.history.version(version).group,
                attributes::is_version_bookkeeping,
            )
        } else {
            let tree = self.tree(version)?;
            let child = self.child(&tree, version, path)?;
            match child.kind {
                ChildKind::Group => (child.header, |_| false),
                _ => (child.header, attributes::is_bookkeeping),
            }
        };
        let mut found = attributes::read_attributes(&self.file.h5.reader(), address, form)
            .map_err(|error| self.object_error(version, path, error))?;
        found.retain(|attribute| !is_own(&attribute.name));
        Ok(found)
    }

    /// The raw data of the dataset at `path`; `None` where the file has none.
    ///
    /// # Errors
    /// Damage of its header, or of a group that leads to it.
    pub(crate) fn raw_data(
        &self,
        version: VersionIndex,
        path: &Arc<[u8]>,
    ) -> Result<Option<Arc<RawData>>, StoreError> {
        let Some(place) = self.raw_places.find(path) else {
            return match self.raw_places.damage_above(path) {
                Some(error) => Err(self.object_error(version, path, error.clone())),
                None => Ok(None),
            };
        };
        let mut opened = self.raw_data.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(raw_data) = opened.get(path) {
            return Ok(Some(raw_data.clone()));
        }
        let epoch = *self
            .epochs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(path.clone())
            .or_insert_with(new_epoch);
        let hashes = self
            .hash_tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned();
        let own = self
            .own_tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned()
            .unwrap_or_default();
        let earlier = Earlier { hashes, own };
        let version = &self.history.version(version).key.name;
        let raw_data = self
            .file
            .settled(|| {
                let (raw_data, hash_table) = (place.raw_data, place.hash_table);
                RawData::open(
                    &self.file, version, path, raw_data, epoch, hash_table, earlier,
                )
            })
            .map(Arc::new)?;
        opened.insert(path.clone(), raw_data.clone());
        Ok(Some(raw_data))
    }

    fn child<'t>(
        &self,
        tree: &'t VersionTree,
        version: VersionIndex,
        path: &[u8],
    ) -> Result<&'t Child, StoreError> {
        tree.child(path).ok_or_else(|| StoreError::ObjectGone {
            version: self.history.version(version).key.name.to_vec(),
            object: path.to_vec(),
        })
    }

    pub(crate) fn object_error(
        &self,
        version: VersionIndex,
        path: &[u8],
        error: H5Error,
    ) -> StoreError {
        StoreError::Object {
            version: self.history.version(version).key.name.to_vec(),
            object: path.to_vec(),
            error,
        }
    }
}

/// A file that was opened, and its two groups.
struct Opened {
    source: Arc<LocalFile>,
    identity: Identity,
    h5: H5File,
    /// `/_version_data`.
    data: Address,
    /// `/_version_data/versions`.
    versions: Address,
}

impl Opened {
    /// The end of the file may be missing where it `may_be_cut`.
    fn open(path: &Path, may_be_cut: bool) -> Result<Self, StoreError> {
        let open_error = |error: std::io::Error| StoreError::Open {
            path: path.to_owned(),
            error: Arc::new(error),
        };
        let source = Arc::new(LocalFile::open(path).map_err(open_error)?);
        if !source.metadata().map_err(open_error)?.is_file() {
            return Err(StoreError::NotAFile {
                path: path.to_owned(),
            });
        }
        let damaged = |error| damaged(path, error);
        let identity = source.identity().map_err(|error| damaged(error.into()))?;
        let h5 = if may_be_cut {
            H5File::open_cut(source.clone())
        } else {
            H5File::open(source.clone())
        };
        let h5 = h5.map_err(damaged)?;
        let reader = h5.reader();
        let not_versioned = || StoreError::NotVersioned {
            path: path.to_owned(),
        };
        let data = group_in(&reader, h5.root(), b"_version_data")
            .map_err(damaged)?
            .ok_or_else(not_versioned)?;
        let versions = group_in(&reader, data, b"versions")
            .map_err(damaged)?
            .ok_or_else(not_versioned)?;
        Ok(Self {
            source,
            identity,
            h5,
            data,
            versions,
        })
    }
}

/// What is wrong with the file as a whole.
fn damaged(path: &Path, error: H5Error) -> StoreError {
    match error {
        H5Error::NotHdf5 => StoreError::NotHdf5 {
            path: path.to_owned(),
        },
        error => StoreError::Damaged {
            path: path.to_owned(),
            error,
        },
    }
}

/// The group `name` in `group`; `None` where there is none.
fn group_in(reader: &MetaReader, group: Address, name: &[u8]) -> Result<Option<Address>, H5Error> {
    let Some(link) = h5::find_link(reader, group, name)? else {
        return Ok(None);
    };
    let LinkTarget::Hard(address) = link.target else {
        return Ok(None);
    };
    let header = ObjectHeader::read(reader, address)?;
    Ok((header.kind()? == ObjectKind::Group).then_some(address))
}
