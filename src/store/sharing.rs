//! Which versions of a dataset are the same.
//!
//! Along each line of parents, a dataset that did not change (its bytes by their mappings, type, shape, fill value and
//! attributes) belongs to one class. A class has an origin, the version in which this content first appeared, and a number of
//! versions. From these come the inode, the times and the link count that `stat` reports, by which backup tools and the
//! kernel's page cache see that nothing changed. Nothing but metadata is read: microseconds a dataset and version.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::StoreError;
use super::history::{History, VersionIndex};
use super::raw_data::raw_data_path;
use super::snapshot::Snapshot;
use super::tree::{Child, Signature, VersionTree};
use crate::h5::mapping::{self, MappingForm};
use crate::h5::{Address, DatasetHeader, MetaReader, ObjectHeader};

/// How many versions are read before they are compared: bounds what is in memory at once.
const BATCH: usize = 256;

/// A set of equal datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(u32);

/// What is known of a class.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// The version in which this content first appeared.
    pub origin: VersionIndex,
    /// How many versions have it.
    pub versions: u32,
    signature: Signature,
}

/// The classes of all datasets of all versions.
#[derive(Debug)]
pub struct Sharing {
    classes: Vec<Class>,
    paths: HashMap<Arc<[u8]>, u32>,
    /// For each version, by its index: the class of each path, in the order of the paths' numbers.
    of_version: Vec<Arc<[(u32, ClassId)]>>,
}

impl Sharing {
    /// Compares all versions. A version or dataset that is damaged shares nothing.
    #[must_use]
    pub(crate) fn read(snapshot: &Snapshot) -> Self {
        let history = snapshot.history();
        let mut sharing = Self {
            classes: Vec::new(),
            paths: HashMap::new(),
            of_version: vec![Arc::default(); history.len()],
        };
        sharing.add_versions(snapshot, &history.parents_first());
        sharing
    }

    /// What `old` says of the versions of `old_history`, which are all in `snapshot` as they were, and what is found of the others.
    pub(crate) fn extended(snapshot: &Snapshot, old_history: &History, old: &Self) -> Self {
        let history = snapshot.history();
        let here = history.indexes_of(old_history);
        let mut of_version = vec![None; history.len()];
        for (index, classes) in here.iter().zip(&old.of_version) {
            if let Some(index) = index {
                of_version[index.0 as usize] = Some(Arc::clone(classes));
            }
        }
        let added: Vec<VersionIndex> = history
            .parents_first()
            .into_iter()
            .filter(|index| of_version[index.0 as usize].is_none())
            .collect();
        let in_history = |class: &Class| Class {
            origin: here[class.origin.0 as usize].expect("every old version is in the new state"),
            ..*class
        };
        let mut sharing = Self {
            classes: old.classes.iter().map(in_history).collect(),
            paths: old.paths.clone(),
            of_version: of_version
                .into_iter()
                .map(Option::unwrap_or_default)
                .collect(),
        };
        sharing.add_versions(snapshot, &added);
        sharing
    }

    /// Whether all that `old` knows is so here too. `index_here` gives the index here of a version there.
    #[must_use]
    pub(crate) fn agrees_with(
        &self,
        old: &Self,
        index_here: impl Fn(VersionIndex) -> Option<VersionIndex>,
    ) -> bool {
        let mut path_here = vec![None; old.paths.len()];
        for (path, &number) in &old.paths {
            path_here[number as usize] = self.paths.get(path).copied();
        }
        let mut class_here: Vec<Option<ClassId>> = vec![None; old.classes.len()];
        (0u32..)
            .map(VersionIndex)
            .zip(&old.of_version)
            .all(|(version, classes)| {
                let Some(version) = index_here(version) else {
                    return false;
                };
                let here = &self.of_version[version.0 as usize];
                here.len() == classes.len()
                    && classes.iter().all(|&(path, id)| {
                        let Some(found) = path_here[path as usize].and_then(|path| {
                            let place = here.binary_search_by_key(&path, |entry| entry.0).ok()?;
                            Some(here[place].1)
                        }) else {
                            return false;
                        };
                        let is_same = || {
                            let (before, now) = (old.class(id), self.class(found));
                            before.signature == now.signature
                                && index_here(before.origin) == Some(now.origin)
                        };
                        match class_here[id.0 as usize] {
                            Some(before) => before == found,
                            None if is_same() => {
                                class_here[id.0 as usize] = Some(found);
                                true
                            }
                            None => false,
                        }
                    })
            })
    }

    /// The class of the dataset `path` in a version; `None` where it is damaged or not there.
    #[must_use]
    pub fn class_of(&self, version: VersionIndex, path: &[u8]) -> Option<ClassId> {
        let number = *self.paths.get(path)?;
        let classes = &self.of_version[version.0 as usize];
        let place = classes
            .binary_search_by_key(&number, |entry| entry.0)
            .ok()?;
        Some(classes[place].1)
    }

    /// Whether a dataset of a class has the very mappings of the one that the class began with, and not those of chunks of fill value more or
    /// less.
    #[must_use]
    pub(crate) fn maps_as_origin(&self, id: ClassId, signature: &Signature) -> bool {
        !may_differ_in_fill(&self.class(id).signature, signature)
    }

    /// What is known of a class.
    #[must_use]
    pub fn class(&self, id: ClassId) -> &Class {
        &self.classes[id.0 as usize]
    }

    fn add_versions(&mut self, snapshot: &Snapshot, order: &[VersionIndex]) {
        let (file, history) = (&snapshot.file.h5, snapshot.history());
        for batch in order.chunks(BATCH) {
            let parts = batch.len().div_ceil(rayon::current_num_threads()).max(1);
            let trees: Vec<Option<VersionTree>> = batch
                .par_chunks(parts)
                .flat_map_iter(|part| {
                    let reader = file.reader();
                    part.iter().map(move |&index| {
                        let version = history.version(index);
                        VersionTree::read(&reader, &version.key.name, version.group).ok()
                    })
                })
                .collect();
            let reader = file.reader();
            for (&index, tree) in batch.iter().zip(&trees) {
                if let Some(tree) = tree {
                    self.add_version(&reader, snapshot, index, tree);
                }
            }
        }
    }

    fn add_version(
        &mut self,
        reader: &MetaReader,
        snapshot: &Snapshot,
        index: VersionIndex,
        tree: &VersionTree,
    ) {
        let parent = snapshot
            .history()
            .version(index)
            .parent
            .filter(|&parent| parent != index);
        let mut classes: Vec<(u32, ClassId)> = Vec::with_capacity(tree.len());
        for (child, signature) in tree.datasets() {
            let inherited = parent
                .and_then(|parent| self.class_of(parent, &child.path))
                .filter(|&class| {
                    let before = &self.class(class).signature;
                    same(reader, before, &signature)
                        || may_differ_in_fill(before, &signature)
                            && same_but_for_fill(reader, snapshot, index, child, before, &signature)
                                .unwrap_or(false)
                });
            let class = inherited.unwrap_or_else(|| {
                let id =
                    ClassId(u32::try_from(self.classes.len()).expect("fewer than 2^32 datasets"));
                self.classes.push(Class {
                    origin: index,
                    versions: 0,
                    signature,
                });
                id
            });
            self.classes[class.0 as usize].versions += 1;
            let next = u32::try_from(self.paths.len()).expect("fewer than 2^32 paths");
            let number = *self.paths.entry(child.path.clone()).or_insert(next);
            classes.push((number, class));
        }
        classes.sort_unstable();
        self.of_version[index.0 as usize] = classes.into();
    }
}

/// Whether two signatures stand for the same content; reads both mapping blocks where only they can tell.
pub(super) fn same(reader: &MetaReader, a: &Signature, b: &Signature) -> bool {
    if a.described != b.described {
        return false;
    }
    match (a.mapping, b.mapping) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let is_same_block = (a.heap, a.index) == (b.heap, b.index);
            let may_be_equal =
                a.len_bytes == b.len_bytes && a.checksum == b.checksum && a.hash == b.hash;
            let are_equal = || {
                a.hash.is_some()
                    || mapping::blocks_equal(reader, (a.heap, a.index), (b.heap, b.index))
                        .unwrap_or(false)
            };
            is_same_block || may_be_equal && are_equal()
        }
        _ => false,
    }
}

/// Whether one of two datasets maps more chunks than the other: those may hold nothing but fill value.
fn may_differ_in_fill(a: &Signature, b: &Signature) -> bool {
    let mapped_bytes = |signature: &Signature| signature.mapping.map(|place| place.len_bytes);
    a.described == b.described && mapped_bytes(a) != mapped_bytes(b)
}

/// Whether two datasets of the same type and shape map the same chunks, but for some that are mapped in one only and hold
/// nothing but fill value. `child` is the later one.
fn same_but_for_fill(
    reader: &MetaReader,
    snapshot: &Snapshot,
    version: VersionIndex,
    child: &Child,
    a: &Signature,
    b: &Signature,
) -> Result<bool, StoreError> {
    let Some(raw_data) = snapshot.raw_data(version, &child.path)? else {
        return Ok(false);
    };
    let object_error = |error| snapshot.object_error(version, &child.path, error);
    let object = ObjectHeader::read(reader, child.header).map_err(object_error)?;
    let header = DatasetHeader::read(reader, &object).map_err(object_error)?;
    let map_of = |signature: &Signature| {
        let place = signature
            .mapping
            .map_or((Address::UNDEFINED, 0), |place| (place.heap, place.index));
        let source = raw_data_path(&child.path);
        mapping::read_chunk_map(
            reader,
            place,
            header.dataspace.shape(),
            &raw_data.chunk_shape,
            &source,
        )
        .map_err(object_error)
    };
    let (MappingForm::Chunked(a), MappingForm::Chunked(b)) = (map_of(a)?, map_of(b)?) else {
        return Ok(false);
    };
    let cells: BTreeSet<u64> = a.mapped().chain(b.mapped()).map(|(cell, _)| cell).collect();
    for cell in cells {
        let mapped = match (a.get(cell), b.get(cell)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(_), Some(_)) | (None, None) => return Ok(false),
            (Some(index), None) | (None, Some(index)) => index,
        };
        if !raw_data.is_fill(mapped, &header, cell)? {
            return Ok(false);
        }
    }
    Ok(true)
}
