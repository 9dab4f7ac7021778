//! What differs between two versions, by their chunk maps: no data is read.
//!
//! Equal chunks of a dataset have equal numbers in its raw data, since the library stores no bytes twice. So a chunk whose number
//! differs has changed, if only in one element, and one whose number is the same has not. What is said of ranges is therefore true to the chunk. The
//! one exception is a chunk of nothing but fill value, which may be mapped in one version and left out in the other.

mod boxes;
mod rewrites;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::StoreError;
use super::attributes::AttributeText;
use super::chunked::Chunked;
use super::dataset::Dataset;
use super::dtype;
use super::elements::ElementBox;
use super::history::VersionIndex;
use super::live::VersionedFile;
use super::raw_data::extent_of;
use super::sharing::same;
use super::snapshot::Snapshot;
use super::tree::{Child, ChildKind, VersionTree};
use crate::h5::mapping::ChunkMap;
use boxes::boxes_of;
pub use rewrites::{Column, Rewrites, VersionRewrites};

/// What differs between two versions.
#[derive(Debug)]
pub struct Comparison {
    /// The attributes of the version itself.
    pub attributes: Vec<AttributeDifference>,
    /// Groups and datasets that differ, in the byte order of their paths.
    pub objects: Vec<ObjectChange>,
}

/// A group or dataset that differs.
#[derive(Debug)]
pub struct ObjectChange {
    /// Its path as the mounted tree shows it.
    pub shown_path: Vec<u8>,
    /// Its path in the file.
    pub path: Arc<[u8]>,
    /// Whether it is a group in the later version, or, if it is not there any more, was one.
    pub is_group: bool,
    /// How it differs.
    pub difference: Difference,
}

/// How an object differs.
#[derive(Debug)]
pub enum Difference {
    /// It is in the later version alone.
    Added(Option<ArrayFacts>),
    /// It is in the earlier version alone.
    Removed(Option<ArrayFacts>),
    /// It is in both.
    Modified(Box<Modification>),
    /// It cannot be compared.
    Unreadable(StoreError),
}

/// How an object that both versions have differs.
#[derive(Debug)]
pub struct Modification {
    /// Another type, shape or fill value, or a group that became a dataset, or the reverse.
    pub description: Option<TypeChange>,
    /// Which of its chunks differ; `None` for a group, or where none does.
    pub chunks: Option<ChunkChange>,
    /// Attributes that differ.
    pub attributes: Vec<AttributeDifference>,
}

/// What an array is.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrayFacts {
    /// NumPy's `descr`.
    pub dtype: serde_json::Value,
    /// In elements, slowest axis first.
    pub shape: Vec<u64>,
    /// Chunks that it maps, each counted once; 0 for one that is not stored in chunks.
    pub chunks: u64,
    /// Bytes that these take in the file.
    pub stored_bytes: u64,
    /// Bytes of all its elements.
    pub len_bytes: u64,
    fill_value: Option<Vec<u8>>,
}

/// The array before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeChange {
    /// `None` for a group.
    pub before: Option<ArrayFacts>,
    /// `None` for a group.
    pub after: Option<ArrayFacts>,
}

/// Which chunks of a dataset differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkChange {
    /// Chunks of the later version that differ from what was in their place.
    pub changed: u64,
    /// Chunks in the grid of the later version.
    pub of: u64,
    /// Chunks of the later version that the earlier one of this dataset did not map anywhere.
    pub new: u64,
    /// Bytes that the new ones take in the file.
    pub new_stored_bytes: u64,
    /// Chunks of the earlier version that lie outside of the later one's shape.
    pub cut_off: u64,
    /// Bytes of the elements in `ranges`.
    pub changed_bytes: u64,
    /// The elements of the changed chunks, in the later version's shape. Disjoint.
    pub ranges: Vec<ElementBox>,
}

/// An attribute that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeDifference {
    /// Its name, not necessarily UTF-8.
    pub name: Vec<u8>,
    /// Its text before; `None` where it was not there.
    pub before: Option<AttributeState>,
    /// Its text after; `None` where it is not there.
    pub after: Option<AttributeState>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeState {
    /// Its text.
    Text(Vec<u8>),
    /// Why there is none.
    Unreadable(String),
}

/// Two versions of one state of a file, or nothing and a version.
struct Pair<'p> {
    file: &'p VersionedFile,
    snapshot: &'p Arc<Snapshot>,
    before: Option<(VersionIndex, Arc<VersionTree>)>,
    after: (VersionIndex, Arc<VersionTree>),
}

impl VersionedFile {
    /// What differs in the version `after` from `before`; from an empty version if that is `None`. Both are versions of `snapshot`, of this
    /// file.
    ///
    /// # Errors
    /// Damage of a version's group. That of a single object is told of that one.
    pub fn compare(
        &self,
        snapshot: &Arc<Snapshot>,
        before: Option<VersionIndex>,
        after: VersionIndex,
    ) -> Result<Comparison, StoreError> {
        let tree = |version| snapshot.tree(version).map(|tree| (version, tree));
        let pair = Pair {
            file: self,
            snapshot,
            before: before.map(tree).transpose()?,
            after: tree(after)?,
        };
        let attributes = pair.attribute_differences(Some(&[]), Some(&[]))?;
        let (old, new) = (
            pair.before
                .as_ref()
                .map(|(_, tree)| objects_by_path(tree))
                .unwrap_or_default(),
            objects_by_path(&pair.after.1),
        );
        let paths: BTreeSet<&[u8]> = old.keys().chain(new.keys()).copied().collect();
        let objects = paths
            .into_iter()
            .filter_map(|path| pair.change(old.get(path).copied(), new.get(path).copied()))
            .collect();
        Ok(Comparison {
            attributes,
            objects,
        })
    }
}

fn objects_by_path(tree: &VersionTree) -> BTreeMap<&[u8], &Child> {
    tree.objects().map(|child| (&*child.path, child)).collect()
}

impl Pair<'_> {
    fn change(&self, old: Option<&Child>, new: Option<&Child>) -> Option<ObjectChange> {
        let shown = new.or(old)?;
        let tree = match (&self.before, new) {
            (Some((_, before)), None) => before,
            _ => &self.after.1,
        };
        let difference = self
            .difference(old, new)
            .unwrap_or_else(|error| Some(Difference::Unreadable(error)))?;
        Some(ObjectChange {
            shown_path: tree.shown_path(&shown.path),
            path: shown.path.clone(),
            is_group: matches!(shown.kind, ChildKind::Group),
            difference,
        })
    }

    fn difference(
        &self,
        old: Option<&Child>,
        new: Option<&Child>,
    ) -> Result<Option<Difference>, StoreError> {
        if self.is_same(old, new) {
            return Ok(None);
        }
        let before = match (old, &self.before) {
            (Some(child), Some((version, _))) => self.dataset(*version, child)?,
            _ => None,
        };
        let after = match new {
            Some(child) => self.dataset(self.after.0, child)?,
            None => None,
        };
        let facts = |dataset: &Option<Arc<Dataset>>| dataset.as_deref().map(facts_of).transpose();
        let (old_facts, new_facts) = (facts(&before)?, facts(&after)?);
        match (old, new) {
            (None, _) => return Ok(Some(Difference::Added(new_facts))),
            (_, None) => return Ok(Some(Difference::Removed(old_facts))),
            _ => {}
        }
        let attributes = self
            .attribute_differences(old.map(|child| &*child.path), new.map(|child| &*child.path))?;
        let chunks = match (&before, &after) {
            (Some(before), Some(after)) => chunk_change(before, after)?,
            _ => None,
        };
        let described = |facts: &Option<ArrayFacts>| {
            facts.as_ref().map(|facts| {
                (
                    facts.dtype.clone(),
                    facts.shape.clone(),
                    facts.fill_value.clone(),
                )
            })
        };
        let description = (described(&old_facts) != described(&new_facts)).then_some(TypeChange {
            before: old_facts,
            after: new_facts,
        });
        let is_equal = description.is_none() && chunks.is_none() && attributes.is_empty();
        Ok((!is_equal).then(|| {
            Difference::Modified(Box::new(Modification {
                description,
                chunks,
                attributes,
            }))
        }))
    }

    /// Whether two datasets are known to be equal without a look at their maps.
    fn is_same(&self, old: Option<&Child>, new: Option<&Child>) -> bool {
        let (Some(old), Some(new), Some((before, _))) = (old, new, &self.before) else {
            return false;
        };
        let (ChildKind::Dataset(Ok(a)), ChildKind::Dataset(Ok(b))) = (&old.kind, &new.kind) else {
            return false;
        };
        let class = |version, child: &Child| {
            self.snapshot
                .sharing_if_known()?
                .class_of(version, &child.path)
        };
        let (class_before, class_after) = (class(*before, old), class(self.after.0, new));
        class_before.is_some() && class_before == class_after
            || same(&self.snapshot.file.h5.reader(), a, b)
    }

    /// `None` for a group.
    fn dataset(
        &self,
        version: VersionIndex,
        child: &Child,
    ) -> Result<Option<Arc<Dataset>>, StoreError> {
        if matches!(child.kind, ChildKind::Group) {
            return Ok(None);
        }
        self.snapshot
            .own_dataset(&self.file.shared, version, &child.path)
            .map(Some)
    }

    /// `None` for an object that is not there; the version itself at the empty path.
    fn attribute_differences(
        &self,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Vec<AttributeDifference>, StoreError> {
        let read = |version, path: &[u8]| {
            let mut found = self.snapshot.attributes(version, path)?;
            // A version's time is told of it already.
            found.retain(|attribute| !path.is_empty() || attribute.name != b"timestamp");
            Ok::<_, StoreError>(found.into_iter().map(state_of).collect::<BTreeMap<_, _>>())
        };
        let mut before = match (old, &self.before) {
            (Some(path), Some((version, _))) => read(*version, path)?,
            _ => BTreeMap::new(),
        };
        let after = match new {
            Some(path) => read(self.after.0, path)?,
            None => BTreeMap::new(),
        };
        let mut differences: Vec<AttributeDifference> = after
            .into_iter()
            .filter_map(|(name, after)| {
                let before = before.remove(&name);
                (before.as_ref() != Some(&after)).then_some(AttributeDifference {
                    name,
                    before,
                    after: Some(after),
                })
            })
            .collect();
        differences.extend(
            before
                .into_iter()
                .map(|(name, before)| AttributeDifference {
                    name,
                    before: Some(before),
                    after: None,
                }),
        );
        differences.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(differences)
    }
}

fn state_of(attribute: AttributeText) -> (Vec<u8>, AttributeState) {
    let state = match attribute.value {
        Ok(text) => AttributeState::Text(text),
        Err(error) => AttributeState::Unreadable(error.to_string()),
    };
    (attribute.name, state)
}

fn facts_of(dataset: &Dataset) -> Result<ArrayFacts, StoreError> {
    let elements = dataset.header.dataspace.len().unwrap_or(0);
    Ok(ArrayFacts {
        dtype: dtype::numpy_descr(dataset.datatype()),
        shape: dataset.header.dataspace.shape().to_vec(),
        chunks: dataset
            .chunked()
            .map_or(0, |chunked| stored_chunks(chunked.map()).len() as u64),
        stored_bytes: dataset.stored_bytes()?,
        len_bytes: elements.saturating_mul(dataset.datatype().size as u64),
        fill_value: dataset.header.fill_value.clone(),
    })
}

fn stored_chunks(map: &ChunkMap) -> HashSet<u64> {
    map.mapped().map(|(_, index)| index).collect()
}

/// `None` where no chunk differs.
fn chunk_change(before: &Dataset, after: &Dataset) -> Result<Option<ChunkChange>, StoreError> {
    let whole = |dataset: &Dataset| {
        let shape = dataset.header.dataspace.shape();
        ElementBox {
            axes: shape.iter().map(|&extent| (0, extent)).collect(),
        }
    };
    let element_bytes = after.datatype().size as u64;
    let comparable = before.chunked().zip(after.chunked()).filter(|_| {
        before.chunk_shape == after.chunk_shape && before.datatype() == after.datatype()
    });
    let Some((old, new)) = comparable else {
        // Not two arrays of one type in chunks: whatever they hold, it counts as another.
        let new_chunks = after
            .chunked()
            .map_or(0, |chunked| chunked.map().len_mapped());
        return Ok(Some(ChunkChange {
            changed: new_chunks,
            of: after
                .chunked()
                .map_or(0, |chunked| chunked.map().len_cells()),
            new: new_chunks,
            new_stored_bytes: after.stored_bytes()?,
            cut_off: 0,
            changed_bytes: after
                .header
                .dataspace
                .len()
                .unwrap_or(0)
                .saturating_mul(element_bytes),
            ranges: vec![whole(after)],
        }));
    };
    let shapes = (
        before.header.dataspace.shape(),
        after.header.dataspace.shape(),
    );
    let cells = changed_cells(old.map(), new.map(), shapes, &after.chunk_shape);
    if cells.changed.is_empty() && cells.cut_off == 0 {
        return Ok(None);
    }
    let ranges: Vec<ElementBox> = boxes_of(new.map().grid(), cells.changed.iter().copied())
        .into_iter()
        .map(|cells| elements_of(&cells, shapes.1, &after.chunk_shape))
        .collect();
    let elements: u64 = ranges.iter().map(ElementBox::len).sum();
    let (new_chunks, new_stored_bytes) = new_chunks(old, new, &cells.changed)?;
    Ok(Some(ChunkChange {
        changed: cells.changed.len() as u64,
        of: new.map().len_cells(),
        new: new_chunks,
        new_stored_bytes,
        cut_off: cells.cut_off,
        changed_bytes: elements.saturating_mul(element_bytes),
        ranges,
    }))
}

/// Of the stored chunks in `changed` cells, those that the old map has nowhere: how many, and their stored bytes.
fn new_chunks(old: &Chunked, new: &Chunked, changed: &[u64]) -> Result<(u64, u64), StoreError> {
    let Some(raw_data) = new.raw_data() else {
        return Ok((0, 0));
    };
    let known = stored_chunks(old.map());
    let added: HashSet<u64> = changed
        .iter()
        .filter_map(|&cell| new.map().get(cell))
        .filter(|index| !known.contains(index))
        .collect();
    let table = raw_data.table()?;
    let bytes = added
        .iter()
        .filter_map(|&index| table.get(index))
        .fold(0u64, |sum, chunk| sum.saturating_add(chunk.stored_bytes));
    Ok((added.len() as u64, bytes))
}

struct ChangedCells {
    /// Numbers in the later grid, ascending.
    changed: Vec<u64>,
    /// Mapped cells of the earlier grid that the later one does not have.
    cut_off: u64,
}

/// The cells of two arrays of one chunk shape that differ. Costs what is mapped, not what the shapes claim.
fn changed_cells(
    old: &ChunkMap,
    new: &ChunkMap,
    (old_shape, new_shape): (&[u64], &[u64]),
    chunk_shape: &[u64],
) -> ChangedCells {
    if old_shape == new_shape {
        let came = new
            .mapped()
            .filter(|&(cell, index)| old.get(cell) != Some(index))
            .map(|(cell, _)| cell);
        let went = old
            .mapped()
            .map(|(cell, _)| cell)
            .filter(|&cell| new.get(cell).is_none());
        let mut changed: Vec<u64> = came.chain(went).collect();
        changed.sort_unstable();
        return ChangedCells {
            changed,
            cut_off: 0,
        };
    }
    let is_same_part = |in_old: u64, in_new: u64| {
        extent_of(in_old, old_shape, chunk_shape) == extent_of(in_new, new_shape, chunk_shape)
    };
    let came = new.mapped().filter(|&(cell, index)| {
        cell_in(cell, new.grid(), old.grid())
            .is_none_or(|there| old.get(there) != Some(index) || !is_same_part(there, cell))
    });
    let mut changed: Vec<u64> = came.map(|(cell, _)| cell).collect();
    let mut cut_off = 0;
    for (cell, _) in old.mapped() {
        match cell_in(cell, old.grid(), new.grid()) {
            Some(here) if new.get(here).is_none() => changed.push(here),
            Some(_) => {}
            None => cut_off += 1,
        }
    }
    changed.sort_unstable();
    ChangedCells { changed, cut_off }
}

/// The number in the grid `to` of the cell that has the number `cell` in the grid `from`; `None` where it is outside. Both have one
/// number of axes.
fn cell_in(cell: u64, from: &[u64], to: &[u64]) -> Option<u64> {
    let (mut rest, mut number, mut stride) = (cell, 0u64, 1u64);
    for (&from, &to) in from.iter().zip(to).rev() {
        let at = rest % from;
        rest /= from;
        if at >= to {
            return None;
        }
        number += at * stride;
        stride *= to;
    }
    Some(number)
}

fn elements_of(cells: &[Range<u64>], shape: &[u64], chunk_shape: &[u64]) -> ElementBox {
    let axes = cells.iter().zip(shape.iter().zip(chunk_shape));
    ElementBox {
        axes: axes
            .map(|(range, (&extent, &chunk))| {
                (
                    range.start * chunk,
                    range.end.saturating_mul(chunk).min(extent),
                )
            })
            .collect(),
    }
}
