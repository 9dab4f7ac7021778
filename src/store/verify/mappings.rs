//! Datasets of versions: their headers and attributes, and each of their mappings held against the raw data.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use super::finding::{AffectedVersions, Damage, Fact, Finding, MOST_NAMES, Note};
use crate::h5::mapping::{self, ChunkMap, Mapping, MappingForm};
use crate::h5::{
    self, Address, ChunkTable, DatasetHeader, H5Error, Layout, MetaReader, ObjectHeader, heap,
};
use crate::store::attributes::{Form, read_attributes};
use crate::store::dataset::check_stored;
use crate::store::json::ValueError;
use crate::store::raw_data::{RawData, dataset_of_raw_data, raw_data_path};
use crate::store::sharing::ClassId;
use crate::store::{ElementBox, Snapshot, VersionIndex};

/// So many facts about one dataset are kept.
const MOST_FACTS: usize = 20_000;

/// A dataset that is unlike those of all versions before.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) version: VersionIndex,
    pub(super) path: Arc<[u8]>,
    pub(super) header: Address,
    /// Shared with later versions, whose mappings are the same.
    pub(super) class: Option<ClassId>,
    versions: OnceLock<AffectedVersions>,
}

/// What a dataset maps.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) shape: Vec<u64>,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Map(ChunkMap),
    /// Those mappings among others that are one chunk each.
    List(Vec<(u64, u64)>),
}

/// Raw data with the chunks that are stored, where they are known.
pub(super) type Stored<'s> = (&'s RawData, Option<&'s ChunkTable>);

/// What a dataset maps, and what was found about it.
pub(super) type Checked = (Option<Mapped>, Facts);

/// What was found about a dataset, and at which elements.
pub(super) type Facts = Vec<(Option<ElementBox>, Fact)>;

impl Mapped {
    /// Each mapped cell of the grid with the number of its stored chunk.
    pub(super) fn cells(&self) -> Box<dyn Iterator<Item = (u64, u64)> + '_> {
        match &self.cells {
            Cells::Map(map) => Box::new(map.mapped()),
            Cells::List(list) => Box::new(list.iter().copied()),
        }
    }
}

impl Entry {
    pub(super) fn new(
        version: VersionIndex,
        path: &Arc<[u8]>,
        header: Address,
        class: Option<ClassId>,
    ) -> Self {
        Self {
            version,
            path: path.clone(),
            header,
            class,
            versions: OnceLock::new(),
        }
    }

    /// The versions that have it.
    pub(super) fn versions(&self, snapshot: &Snapshot) -> &AffectedVersions {
        self.versions.get_or_init(|| {
            let history = snapshot.history();
            let class_of = |version| snapshot.sharing_if_known()?.class_of(version, &self.path);
            let has_it = |version: VersionIndex| {
                version == self.version || self.class.is_some() && class_of(version) == self.class
            };
            let mut versions = AffectedVersions::default();
            for (index, version) in history.iter().filter(|(index, _)| has_it(*index)) {
                let _ = index;
                if versions.names.len() < MOST_NAMES {
                    versions.names.push(version.key.name.clone());
                }
                versions.count += 1;
            }
            versions
        })
    }

    /// Findings of the facts about it.
    pub(super) fn findings(&self, snapshot: &Snapshot, facts: Facts) -> Vec<Finding> {
        facts
            .into_iter()
            .map(|(elements, fact)| Finding {
                elements,
                ..Finding::new(fact)
                    .of(&self.path)
                    .in_versions(self.versions(snapshot))
            })
            .collect()
    }

    /// The path of the dataset whose raw data it maps: its own, or else what its first mapping says.
    pub(super) fn source(&self, snapshot: &Snapshot, reader: &MetaReader) -> Arc<[u8]> {
        if snapshot.raw_places().find(&self.path).is_some() {
            return self.path.clone();
        }
        let first_source = || {
            let object = ObjectHeader::read(reader, self.header).ok()?;
            let header = DatasetHeader::read(reader, &object).ok()?;
            let mappings = mappings_of(reader, &header.layout).ok()?;
            let source = dataset_of_raw_data(&mappings.first()?.source_dataset)?;
            Some(Arc::from(source))
        };
        first_source().unwrap_or_else(|| self.path.clone())
    }

    /// What it maps, and what is wrong with it. `raw_data` is what it should map.
    pub(super) fn check(&self, snapshot: &Snapshot, raw_data: Option<Stored<'_>>) -> Checked {
        let reader = snapshot.file.h5.reader();
        let mut check = Check {
            snapshot,
            reader: &reader,
            facts: Facts::new(),
        };
        check.attributes(self.header, raw_data.map(|(raw_data, _)| raw_data));
        let header = ObjectHeader::read(&reader, self.header)
            .and_then(|object| DatasetHeader::read(&reader, &object));
        let mapped = match header {
            Ok(header) => check.dataset(&header, raw_data),
            Err(error) => {
                check.facts.push((None, fact_of(error)));
                None
            }
        };
        (mapped, check.facts)
    }
}

/// What is wrong with the attributes of a group.
pub(super) fn check_group(snapshot: &Snapshot, reader: &MetaReader, group: Address) -> Facts {
    let mut check = Check {
        snapshot,
        reader,
        facts: Facts::new(),
    };
    check.attributes(group, None);
    check.facts
}

/// Damage, unless the structure is only not supported.
pub(super) fn fact_of(error: H5Error) -> Fact {
    match error {
        H5Error::Unsupported { .. } => Fact::Note(Note::UnsupportedForm(error)),
        error => Fact::Damage(Damage::Object(error)),
    }
}

fn mappings_of(reader: &MetaReader, layout: &Layout) -> Result<Vec<Mapping>, H5Error> {
    match *layout {
        Layout::Virtual {
            heap_address,
            heap_index,
        } if heap_address.is_defined() => {
            let block = heap::read_object(reader, heap_address, heap_index)?;
            mapping::decode_mappings(&block, heap_address)
        }
        _ => Ok(Vec::new()),
    }
}

/// One object that is being checked.
struct Check<'c> {
    snapshot: &'c Snapshot,
    reader: &'c MetaReader,
    facts: Facts,
}

impl Check<'_> {
    fn damage(&mut self, elements: Option<ElementBox>, damage: Damage) {
        if self.facts.len() < MOST_FACTS {
            self.facts.push((elements, Fact::Damage(damage)));
        }
    }

    fn inconsistent(&mut self, what: &'static str) {
        self.damage(None, Damage::Inconsistent { what });
    }

    /// Each has to be readable; those of the format itself have to say what is so.
    fn attributes(&mut self, object: Address, raw_data: Option<&RawData>) {
        let attributes = match read_attributes(self.reader, object, Form::Text) {
            Ok(attributes) => attributes,
            Err(error) => {
                self.facts.push((None, fact_of(error)));
                return;
            }
        };
        for attribute in attributes {
            let value = match attribute.value {
                Ok(value) => value,
                Err(ValueError::Heap(error @ H5Error::Unsupported { .. })) => {
                    self.facts.push((None, fact_of(error)));
                    continue;
                }
                Err(error) => {
                    let name = attribute.name;
                    self.damage(None, Damage::AttributeValue { name, error });
                    continue;
                }
            };
            let Some(raw_data) = raw_data else {
                continue;
            };
            match &attribute.name[..] {
                b"raw_data" if value != raw_data_path(&raw_data.path) => {
                    let place = dataset_of_raw_data(&value)
                        .and_then(|path| self.snapshot.raw_places().find(path));
                    self.inconsistent(match place {
                        Some(_) => "its attribute raw_data names that of another dataset",
                        None => "its attribute raw_data names what is not in the file",
                    });
                }
                b"chunks" if value != list_text(&raw_data.chunk_shape) => {
                    self.inconsistent(
                        "its attribute chunks is not the chunk shape of its raw_data",
                    );
                }
                _ => {}
            }
        }
    }

    fn dataset(&mut self, header: &DatasetHeader, raw_data: Option<Stored<'_>>) -> Option<Mapped> {
        let len_bytes = header
            .dataspace
            .len()
            .and_then(|elements| elements.checked_mul(header.datatype.size as u64));
        let Layout::Virtual {
            heap_address,
            heap_index,
        } = header.layout
        else {
            let stored = match (len_bytes, raw_data) {
                (Some(0), _) => return None,
                (None, _) => {
                    self.inconsistent("it is longer than a file can be");
                    return None;
                }
                (_, Some(_)) => {
                    self.inconsistent("it has raw_data, and does not map it");
                    return None;
                }
                (Some(len_bytes), None) => check_stored(self.reader, header, len_bytes),
            };
            self.facts.push(match stored {
                Ok(()) => (None, Fact::Note(Note::NoChunks)),
                Err(error) => (None, fact_of(error)),
            });
            return None;
        };
        let Some((raw_data, table)) = raw_data else {
            self.orphan(header);
            return None;
        };
        let shape = header.dataspace.shape();
        if raw_data.header.datatype != header.datatype {
            self.inconsistent("its type is not that of its raw_data");
        }
        if shape.len() != raw_data.chunk_shape.len() {
            self.inconsistent("its number of axes is not that of its raw_data");
            return None;
        }
        let source = raw_data_path(&raw_data.path);
        let place = (heap_address, heap_index);
        let form =
            mapping::read_chunk_map(self.reader, place, shape, &raw_data.chunk_shape, &source);
        let cells = match form {
            Ok(MappingForm::Chunked(map)) => Cells::Map(map),
            Ok(MappingForm::Irregular(mappings)) => {
                Cells::List(self.irregular(&mappings, shape, raw_data, &source))
            }
            Err(error) => {
                self.facts.push((None, fact_of(error)));
                return None;
            }
        };
        let mapped = Mapped {
            shape: shape.to_vec(),
            cells,
        };
        self.places(&mapped, raw_data, table);
        Some(mapped)
    }

    /// A dataset of which there is no raw data may map nothing.
    fn orphan(&mut self, header: &DatasetHeader) {
        match mappings_of(self.reader, &header.layout) {
            Ok(mappings) => {
                let names: HashSet<_> = mappings.iter().map(|m| &m.source_dataset).collect();
                for name in names {
                    let damage = self.wrong_source(name);
                    self.damage(None, damage);
                }
            }
            Err(error) => self.facts.push((None, fact_of(error))),
        }
    }

    /// What it is to map something else than the dataset's own raw data.
    fn wrong_source(&self, name: &[u8]) -> Damage {
        let root = self.snapshot.file.h5.root();
        let names: Vec<&[u8]> = name.split(|&byte| byte == b'/').collect();
        let source_dataset = name.to_vec();
        match h5::find_path(self.reader, root, root, &names) {
            Ok(Some(_)) => Damage::MappingForeign { source_dataset },
            _ => Damage::MappingSource { source_dataset },
        }
    }

    /// Whether each mapped chunk is in the raw data.
    fn places(&mut self, mapped: &Mapped, raw_data: &RawData, table: Option<&ChunkTable>) {
        let chunk_rows = raw_data.chunk_shape[0];
        let rows_stored = raw_data.header.dataspace.shape()[0];
        let (shape, chunk_shape) = (&mapped.shape, &raw_data.chunk_shape);
        let cells_per_band: u64 = shape[1..]
            .iter()
            .zip(&chunk_shape[1..])
            .fold(1u64, |n, (&all, &chunk)| {
                n.saturating_mul(all.div_ceil(chunk))
            })
            .max(1);
        for (cell, chunk) in mapped.cells() {
            let first_row = (cell / cells_per_band).saturating_mul(chunk_rows);
            let rows = shape[0].saturating_sub(first_row).min(chunk_rows);
            let end = chunk
                .checked_mul(chunk_rows)
                .and_then(|n| n.checked_add(rows));
            let damage = if end.is_none_or(|end| end > rows_stored) {
                Damage::MappingOutside
            } else if table.is_some_and(|table| table.position(chunk).is_none()) {
                Damage::ChunkMissing
            } else {
                continue;
            };
            let elements = ElementBox::of_cell(cell, shape, chunk_shape);
            self.damage(Some(elements), damage);
        }
    }

    /// What is wrong with mappings that are not all one chunk each; those that are, as cells and numbers of stored chunks.
    fn irregular(
        &mut self,
        mappings: &[Mapping],
        shape: &[u64],
        raw_data: &RawData,
        source: &[u8],
    ) -> Vec<(u64, u64)> {
        let escaped = mapping::escaped(source);
        let mut cells = Vec::new();
        let mut seen = HashSet::new();
        for mapping in mappings {
            let name = &*mapping.source_dataset;
            if *name != *source && *name != *escaped {
                let damage = self.wrong_source(name);
                self.damage(None, damage);
                continue;
            }
            let target = mapping.virtual_selection.as_box();
            let elements = target.as_ref().map(|axes| ElementBox {
                axes: axes
                    .iter()
                    .map(|&(start, len)| (start, start.saturating_add(len)))
                    .collect(),
            });
            match one_chunk(mapping, target.as_deref(), shape, &raw_data.chunk_shape) {
                Ok((cell, _)) if !seen.insert(cell) => {
                    self.damage(elements, Damage::MappingOverlap);
                }
                Ok(pair) => cells.push(pair),
                Err(what) => self.damage(elements, Damage::MappingForm { what }),
            }
        }
        cells
    }
}

/// The cell that a mapping covers, and the stored chunk that it takes; otherwise what it is instead.
fn one_chunk(
    mapping: &Mapping,
    target: Option<&[(u64, u64)]>,
    shape: &[u64],
    chunk_shape: &[u64],
) -> Result<(u64, u64), &'static str> {
    let source = mapping.source_selection.as_box();
    let (Some(target), Some(source)) = (target, source) else {
        return Err("it is not one box");
    };
    if target.len() != shape.len() || source.len() != shape.len() {
        return Err("it is of another number of axes");
    }
    let mut cell = 0u64;
    for (axis, &(start, len)) in target.iter().enumerate() {
        let chunk = chunk_shape[axis];
        if start % chunk != 0 {
            return Err("it does not begin at a chunk of the array");
        }
        if len != shape[axis].saturating_sub(start).min(chunk) {
            return Err("it is longer or shorter than a chunk of the array");
        }
        // No more cells than the array has elements.
        cell = cell
            .wrapping_mul(shape[axis].div_ceil(chunk))
            .wrapping_add(start / chunk);
    }
    for (axis, (&(start, len), &(_, wanted))) in source.iter().zip(target).enumerate() {
        if len != wanted {
            return Err("it takes more or less than it covers");
        }
        if start % if axis == 0 { chunk_shape[0] } else { u64::MAX } != 0 {
            return Err("it does not take the beginning of a stored chunk");
        }
    }
    Ok((cell, source[0].0 / chunk_shape[0]))
}

/// Numbers as an attribute shows them.
fn list_text(numbers: &[u64]) -> Vec<u8> {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    format!("[{}]", numbers.join(", ")).into_bytes()
}
