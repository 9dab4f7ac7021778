//! Attributes of what is staged, and those of them that describe an array.

use std::sync::Arc;

use super::change::Change;
use super::state::State;
use super::tree::{DatasetNode, Node, STRUCTURAL};
use super::{NodeId, SetMode, StagedAttributes, StagedKind, Staging, StagingError};
use crate::h5::{Class, Datatype};
use crate::store::description::{
    DescriptionError, default_chunk_shape, parse_chunk_shape, parse_datatype, parse_fill_value,
    parse_filters, parse_shape,
};
use crate::store::dtype::numpy_descr;
use crate::store::{
    AttributeText, Description, NpyHeader, Structure, filter_specs, spaced_json, time, zero_text,
};

/// The longest name, without its namespace.
const NAME_MAX_BYTES: usize = 250;
/// The longest value.
const VALUE_MAX_BYTES: usize = 64 << 10;
/// What the length of text is counted in.
const PIECE_BYTES: usize = 1 << 20;

/// What describes an array, by the attribute that says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Datatype,
    Shape,
    Chunks,
    FillValue,
    Filters,
}

impl Field {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Datatype, "dtype"),
        (Self::Shape, "shape"),
        (Self::Chunks, "chunks"),
        (Self::FillValue, "fillvalue"),
        (Self::Filters, "filters"),
    ];

    /// Of an attribute's name without `h5.`.
    fn of_name(name: &[u8]) -> Option<(Self, &'static str)> {
        Self::ALL
            .into_iter()
            .find(|(_, text)| text.as_bytes() == name)
    }
}

/// What is to be declared of a dataset, and what no longer is.
#[derive(Debug)]
pub(super) struct Outline(Vec<(Field, Option<Vec<u8>>)>);

impl DatasetNode {
    fn declared(&self, field: Field) -> Option<&[u8]> {
        let (_, text) = Field::ALL.into_iter().find(|(other, _)| *other == field)?;
        let name = [STRUCTURAL, text.as_bytes()].concat();
        self.declared.get(&name).map(Vec::as_slice)
    }
}

/// Parses what was declared of a field, if it was.
fn declared<T>(
    dataset: &DatasetNode,
    field: Field,
    parse: impl FnOnce(&[u8]) -> Result<T, DescriptionError>,
) -> Result<Option<T>, StagingError> {
    let Some(text) = dataset.declared(field) else {
        return Ok(None);
    };
    parse(text)
        .map(Some)
        .map_err(|error| StagingError::Description {
            name: name_of(field),
            error,
        })
}

fn name_of(field: Field) -> &'static str {
    Field::ALL
        .into_iter()
        .find(|(other, _)| *other == field)
        .map_or("", |(_, name)| name)
}

impl Staging {
    /// All extended attributes of a node.
    ///
    /// # Errors
    /// [`StagingError::Stale`], or what is wrong with the object in the version.
    pub fn attributes(&self, node: NodeId) -> Result<StagedAttributes, StagingError> {
        self.refresh()?;
        self.read(|state| {
            let node_id = node;
            let node = state.tree.node(node_id)?;
            let mut structural = Vec::new();
            if let Some(dataset) = node.dataset() {
                let structure = self.structure(state, node_id, dataset)?;
                structural = structure.texts();
                for (name, value) in &mut structural {
                    let given = dataset.declared.get(name);
                    // A shape that was given says no more than how it was to be then.
                    let holds = |text: &&Vec<u8>| {
                        name != b"h5.shape"
                            || parse_shape(text).ok().as_ref() == Some(&structure.shape)
                    };
                    if let Some(given) = given.filter(holds) {
                        value.clone_from(given);
                    }
                }
            }
            Ok(StagedAttributes {
                structural,
                attributes: self.own_attributes(state, node)?,
            })
        })
    }

    /// The attributes of an object itself, without what describes an array.
    ///
    /// # Errors
    /// As for [`Staging::attributes`].
    pub fn own_attributes_of(&self, node: NodeId) -> Result<Vec<AttributeText>, StagingError> {
        self.refresh()?;
        self.read(|state| self.own_attributes(state, state.tree.node(node)?))
    }

    /// Attributes of the object itself.
    fn own_attributes(
        &self,
        state: &State,
        node: &Node,
    ) -> Result<Vec<AttributeText>, StagingError> {
        let mut attributes = match &node.attributes_from {
            Some(path) => self
                .ask_base(state, |snapshot, index| snapshot.attributes(index, path))?
                .unwrap_or_default(),
            None => Vec::new(),
        };
        attributes.retain(|attribute| !node.attributes.contains_key(&attribute.name));
        for (name, value) in &node.attributes {
            if let Some(value) = value {
                attributes.push(AttributeText {
                    name: name.clone(),
                    value: Ok(value.clone()),
                });
            }
        }
        attributes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(attributes)
    }

    /// Sets an attribute, `name` without its namespace.
    ///
    /// # Errors
    /// [`StagingError::AttributeExists`], [`StagingError::NoAttribute`], [`StagingError::NotPermitted`],
    /// [`StagingError::Description`], [`StagingError::Shape`].
    pub fn set_attribute(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
    ) -> Result<(), StagingError> {
        if value.len() > VALUE_MAX_BYTES {
            return Err(StagingError::AttributeTooBig);
        }
        if name.is_empty() || name.len() > NAME_MAX_BYTES {
            return Err(StagingError::AttributeName);
        }
        self.refresh()?;
        if let Some(field) = name.strip_prefix(STRUCTURAL) {
            if field == b"omitted" {
                return Ok(());
            }
            let Some((field, _)) = Field::of_name(field) else {
                return Err(StagingError::NotPermitted {
                    what: "attributes that begin with h5. describe the array",
                });
            };
            if mode == SetMode::Create {
                return Err(StagingError::AttributeExists);
            }
            return self.describe(node, field, name, value);
        }
        if node == NodeId::ROOT && self.is_of_a_version(name, value) {
            return Ok(());
        }
        let _gate = self.pass()?;
        self.change_state(|state| {
            self.check_attribute(state, node, name, mode)?;
            self.store_attribute(state, node, name, Some(value))
        })
    }

    /// Removes an attribute, `name` without its namespace.
    ///
    /// # Errors
    /// [`StagingError::NoAttribute`], [`StagingError::NotPermitted`].
    pub fn remove_attribute(&self, node: NodeId, name: &[u8]) -> Result<(), StagingError> {
        self.refresh()?;
        let _gate = self.pass()?;
        self.change_state(|state| {
            if name.starts_with(STRUCTURAL) {
                let found = state.tree.node(node)?;
                let Some(dataset) = found.dataset() else {
                    return Err(StagingError::NoAttribute);
                };
                if found.origin.is_some() {
                    return Err(StagingError::NotPermitted {
                        what: "what describes an array cannot be removed",
                    });
                }
                if !dataset.declared.contains_key(name) {
                    // What is shown was not set by anyone, as programs that copy all attributes find out by removing it.
                    return Ok(());
                }
            } else {
                self.check_attribute(state, node, name, SetMode::Replace)?;
            }
            self.store_attribute(state, node, name, None)
        })
    }

    /// Whether this is what the directory of a version says of that version: programs that copy such a directory with its attributes bring
    /// it along. It says nothing of the next version.
    fn is_of_a_version(&self, name: &[u8], value: &[u8]) -> bool {
        let snapshot = self.file.look();
        let mut versions = snapshot.history().iter().map(|(_, version)| version);
        match name {
            b"timestamp" => {
                let time = str::from_utf8(value).ok().and_then(time::parse_stored);
                time.is_some() && versions.any(|version| version.timestamp == time)
            }
            b"prev_version" => versions.any(|version| *version.key.name == *value),
            _ => false,
        }
    }

    fn check_attribute(
        &self,
        state: &State,
        id: NodeId,
        name: &[u8],
        mode: SetMode,
    ) -> Result<(), StagingError> {
        let node = state.tree.node(id)?;
        let reserved: &[&[u8]] = match node.dataset() {
            Some(_) => &[b"raw_data", b"chunks"],
            None if id == NodeId::ROOT => &[b"committed", b"prev_version", b"timestamp"],
            None => &[],
        };
        if reserved.contains(&name) {
            return Err(StagingError::NotPermitted {
                what: "the format keeps something of its own under that name",
            });
        }
        if mode == SetMode::Any {
            return Ok(());
        }
        let exists = match node.attributes.get(name) {
            Some(value) => value.is_some(),
            None => self
                .own_attributes(state, node)?
                .iter()
                .any(|attribute| attribute.name == name),
        };
        match mode {
            SetMode::Create if exists => Err(StagingError::AttributeExists),
            SetMode::Replace if !exists => Err(StagingError::NoAttribute),
            _ => Ok(()),
        }
    }

    fn store_attribute(
        &self,
        state: &mut State,
        id: NodeId,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StagingError> {
        match state.tree.path(id, true) {
            Ok(path) => {
                let change = Change::Attribute {
                    path,
                    name: name.to_vec(),
                    value: value.map(<[u8]>::to_vec),
                };
                state.change(&self.path, &change).map(|_| ())
            }
            // Removed and still open: there is nothing to be kept.
            Err(_) => state
                .tree
                .set_attribute(id, name, value.map(<[u8]>::to_vec), None),
        }
    }

    /// Sets what describes an array.
    fn describe(
        &self,
        id: NodeId,
        field: Field,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), StagingError> {
        let new_len_bytes = {
            let _gate = self.pass()?;
            self.change_state(|state| {
                let node = state.tree.node(id)?;
                let Some(dataset) = node.dataset().cloned() else {
                    return Err(StagingError::NotPermitted {
                        what: "only datasets have a type and a shape",
                    });
                };
                if node.origin.is_none() {
                    check_value(field, value, &dataset)?;
                    self.store_attribute(state, id, name, Some(value))?;
                    if matches!(field, Field::Datatype | Field::Shape)
                        && let Some(content) = state.known_content(id)
                    {
                        // No header of a .npy file says any more what it is.
                        self.forget_npy(state, id, &mut content.write())?;
                    }
                    return Ok(None);
                }
                let structure = self.structure(state, id, &dataset)?;
                if field != Field::Shape {
                    return if is_equal(field, value, &structure) {
                        Ok(None)
                    } else {
                        Err(StagingError::NotPermitted {
                            what: "the type of a dataset that was committed cannot be changed",
                        })
                    };
                }
                let shape = parse(field, parse_shape(value))?;
                if shape == structure.shape {
                    return Ok(None);
                }
                let len_bytes = new_len_bytes(&structure, &shape)?;
                if shape[1..] != structure.shape[1..] || dataset.declared(Field::Shape).is_some() {
                    self.store_attribute(state, id, name, Some(value))?;
                }
                Ok(Some(len_bytes))
            })?
        };
        match new_len_bytes {
            Some(len_bytes) => self.truncate(id, len_bytes),
            None => Ok(()),
        }
    }

    /// What a dataset would be if it were committed now.
    pub(super) fn structure(
        &self,
        state: &State,
        id: NodeId,
        dataset: &DatasetNode,
    ) -> Result<Structure, StagingError> {
        let base = self.described(state, id, dataset)?;
        let staged = state
            .known_content(id)
            .filter(|content| content.read().overlay.is_some());
        if let (Some(base), None) = (&base, &staged)
            && dataset.declared.is_empty()
        {
            return Ok(base.clone());
        }
        let declared_type = declared(dataset, Field::Datatype, parse_datatype)?;
        let has_own_type = declared_type.is_some();
        let datatype = match (declared_type, &base) {
            (Some(datatype), _) => datatype,
            (None, Some(base)) => base.datatype.clone(),
            (None, None) => parse(Field::Datatype, parse_datatype(b"|u1"))?,
        };
        let given = declared(dataset, Field::Shape, parse_shape)?
            .or_else(|| base.as_ref().map(|base| base.shape.clone()))
            .unwrap_or_default();
        let rest = given.get(1..).unwrap_or_default();
        let said = given.first().copied().unwrap_or(0);
        let rows = match &staged {
            Some(_) if rest.contains(&0) => said,
            Some(content) => count_rows(content, &datatype, rest)?,
            None => said,
        };
        let shape = [&[rows], rest].concat();
        let element_bytes = datatype.size as u64;
        let chunk_shape = match declared(dataset, Field::Chunks, parse_chunk_shape)? {
            Some(chunk_shape) => chunk_shape,
            None => base
                .as_ref()
                .map(|base| base.chunk_shape.clone())
                .filter(|chunk_shape| chunk_shape.len() == shape.len())
                .unwrap_or_else(|| default_chunk_shape(&shape, element_bytes)),
        };
        let fill_value = match (dataset.declared(Field::FillValue), &base) {
            (Some(text), _) => text.to_vec(),
            (None, Some(base)) if !has_own_type => base.fill_value.clone(),
            (None, _) => zero_text(&datatype),
        };
        let filters = match declared(dataset, Field::Filters, parse_filters)? {
            Some(filters) => filters
                .into_iter()
                .map(|filter| (filter.id, filter.parameters))
                .collect(),
            None => base.map(|base| base.filters).unwrap_or_default(),
        };
        Ok(Structure {
            datatype,
            shape,
            chunk_shape,
            fill_value,
            filters,
        })
    }

    /// What a dataset has of its base, of what it replaced, or of its path.
    pub(super) fn described(
        &self,
        state: &State,
        id: NodeId,
        dataset: &DatasetNode,
    ) -> Result<Option<Structure>, StagingError> {
        match &dataset.described_by {
            Some(path) => Ok(self
                .base_dataset(state, path)?
                .map(|dataset| Structure::of_dataset(&dataset))
                .transpose()?),
            None => self.structure_of_path(state, id),
        }
    }

    /// The type of a dataset, and the extents of its axes behind the first, without a look at its bytes.
    pub(super) fn type_and_inner_axes(
        &self,
        state: &State,
        id: NodeId,
        dataset: &DatasetNode,
    ) -> Result<(Datatype, Vec<u64>), StagingError> {
        let declared_type = declared(dataset, Field::Datatype, parse_datatype)?;
        let declared_shape = declared(dataset, Field::Shape, parse_shape)?;
        let base = if declared_type.is_some() && declared_shape.is_some() {
            None
        } else {
            self.described(state, id, dataset)?
        };
        let (datatype, shape) = match base {
            Some(base) => (Some(base.datatype), Some(base.shape)),
            None => (None, None),
        };
        let datatype = match declared_type.or(datatype) {
            Some(datatype) => datatype,
            None => parse(Field::Datatype, parse_datatype(b"|u1"))?,
        };
        let shape = declared_shape.or(shape).unwrap_or_default();
        Ok((datatype, shape.get(1..).unwrap_or_default().to_vec()))
    }

    /// What has to be declared of a dataset that is to become an array.
    ///
    /// # Errors
    /// [`StagingError::Npy`] where the format has another type or number of axes for it.
    pub(super) fn outline_of(
        &self,
        state: &State,
        id: NodeId,
        header: &NpyHeader,
    ) -> Result<Outline, StagingError> {
        let node = state.tree.node(id)?;
        let dataset = node.dataset().ok_or(StagingError::IsADirectory)?;
        let refused = |error| StagingError::Npy {
            dataset: state.tree.path(id, true).unwrap_or_default(),
            error,
        };
        let Some(base) = self.described(state, id, dataset)? else {
            let datatype = header.datatype();
            let mut outline = vec![
                (Field::Datatype, Some(type_text(&datatype))),
                (Field::Shape, Some(shape_text(&header.shape))),
            ];
            // What was said of another array may not hold for this one.
            let chunks = declared(dataset, Field::Chunks, parse_chunk_shape)?;
            if chunks.is_some_and(|chunks| chunks.len() != header.shape.len()) {
                outline.push((Field::Chunks, None));
            }
            let fill = dataset.declared(Field::FillValue);
            if fill.is_some_and(|fill| parse_fill_value(fill, &datatype).is_err()) {
                outline.push((Field::FillValue, None));
            }
            return Ok(Outline(outline));
        };
        let shape = header
            .shape_for(&base.datatype, base.shape.len())
            .map_err(refused)?;
        let inner = shape.get(1..).unwrap_or_default();
        // The bytes tell the first axis, unless there are none.
        let is_told =
            node.origin.is_some() && Some(inner) == base.shape.get(1..) && !inner.contains(&0);
        Ok(Outline(vec![
            (Field::Datatype, None),
            (Field::Shape, (!is_told).then(|| shape_text(&shape))),
        ]))
    }

    /// Declares it, together with `npy`, what its .npy file is.
    ///
    /// # Errors
    /// Those of the folder of staged state; nothing is changed then.
    pub(super) fn shape_as(
        &self,
        state: &mut State,
        id: NodeId,
        outline: Outline,
        npy: Option<Change>,
    ) -> Result<(), StagingError> {
        let dataset = state.tree.node(id)?.dataset();
        let dataset = dataset.ok_or(StagingError::IsADirectory)?;
        let declared: Vec<_> = outline
            .0
            .into_iter()
            .filter(|(field, value)| dataset.declared(*field) != value.as_deref())
            .map(|(field, value)| ([STRUCTURAL, name_of(field).as_bytes()].concat(), value))
            .collect();
        let Ok(path) = state.tree.path(id, true) else {
            // Removed and still open: there is nothing to be kept.
            return declared
                .into_iter()
                .try_for_each(|(name, value)| state.tree.set_attribute(id, &name, value, None));
        };
        let declared = declared.into_iter().map(|(name, value)| Change::Attribute {
            path: path.clone(),
            name,
            value,
        });
        let changes: Vec<_> = declared.chain(npy).collect();
        state.change_all(&self.path, &changes)
    }

    /// What a new dataset takes from its path, which has one type in all versions of a file.
    fn structure_of_path(
        &self,
        state: &State,
        id: NodeId,
    ) -> Result<Option<Structure>, StagingError> {
        let Ok(path) = state.tree.path(id, false) else {
            return Ok(None);
        };
        self.structure_at(state, path)
    }

    /// What the base version has at a true path, or what the file stores under it.
    pub(super) fn structure_at(
        &self,
        state: &State,
        path: Vec<u8>,
    ) -> Result<Option<Structure>, StagingError> {
        let path = Arc::from(path);
        if state.tree.base_kind(&path) == Some(StagedKind::Dataset) {
            let dataset = self.base_dataset(state, &path)?;
            return Ok(dataset
                .map(|dataset| Structure::of_dataset(&dataset))
                .transpose()?);
        }
        let stored = self.ask_base(state, |snapshot, index| {
            snapshot.stored_structure(index, &path)
        })?;
        Ok(stored.flatten())
    }

    /// What a commit is told of a dataset that was written: all that is known of it if it goes to another path than it came from.
    pub(super) fn description(
        &self,
        state: &State,
        dataset: &DatasetNode,
        is_edit: bool,
    ) -> Result<Description, StagingError> {
        let mut description = Description {
            datatype: declared(dataset, Field::Datatype, parse_datatype)?,
            shape: declared(dataset, Field::Shape, parse_shape)?,
            chunk_shape: declared(dataset, Field::Chunks, parse_chunk_shape)?,
            fill_value: dataset.declared(Field::FillValue).map(<[u8]>::to_vec),
            filters: declared(dataset, Field::Filters, parse_filters)?,
        };
        let Some(path) = &dataset.described_by else {
            return Ok(description);
        };
        let Some(base) = self.base_dataset(state, path)? else {
            return Ok(description);
        };
        let has_own_type = description.datatype.is_some();
        let shape = base.header.dataspace.shape().to_vec();
        description.shape.get_or_insert(shape);
        if is_edit {
            return Ok(description);
        }
        description
            .datatype
            .get_or_insert_with(|| base.datatype().clone());
        if description.chunk_shape.is_none() && !base.chunk_shape.is_empty() {
            description.chunk_shape = Some(base.chunk_shape.clone());
        }
        if description.fill_value.is_none() && !has_own_type {
            description.fill_value = Some(base.fill_value_text()?);
        }
        description
            .filters
            .get_or_insert_with(|| filter_specs(&base.filters));
        Ok(description)
    }
}

fn parse<T>(field: Field, parsed: Result<T, DescriptionError>) -> Result<T, StagingError> {
    parsed.map_err(|error| StagingError::Description {
        name: name_of(field),
        error,
    })
}

/// A type as its attribute says it.
fn type_text(datatype: &Datatype) -> Vec<u8> {
    match numpy_descr(datatype) {
        serde_json::Value::String(text) => text.into_bytes(),
        descr => spaced_json(&descr),
    }
}

fn shape_text(shape: &[u64]) -> Vec<u8> {
    spaced_json(&serde_json::json!(shape))
}

/// Whether a value can be said of a new dataset. How all that is said of it goes together is looked at when it is committed, since it
/// comes in any order.
fn check_value(field: Field, value: &[u8], dataset: &DatasetNode) -> Result<(), StagingError> {
    match field {
        Field::Datatype => parse(field, parse_datatype(value)).map(|_| ()),
        Field::Shape => parse(field, parse_shape(value)).map(|_| ()),
        Field::Chunks => parse(field, parse_chunk_shape(value)).map(|_| ()),
        Field::Filters => parse(field, parse_filters(value)).map(|_| ()),
        Field::FillValue => match declared(dataset, Field::Datatype, parse_datatype)? {
            Some(datatype) => parse(field, parse_fill_value(value, &datatype)).map(|_| ()),
            None => Ok(()),
        },
    }
}

/// Whether a value says of a dataset what it is already.
fn is_equal(field: Field, value: &[u8], structure: &Structure) -> bool {
    let shown = structure.texts().into_iter().any(|(name, text)| {
        name.strip_prefix(STRUCTURAL) == Some(name_of(field).as_bytes()) && text == value
    });
    shown
        || match field {
            Field::Datatype => {
                parse_datatype(value).is_ok_and(|datatype| datatype == structure.datatype)
            }
            Field::Shape => parse_shape(value).is_ok_and(|shape| shape == structure.shape),
            Field::Chunks => {
                parse_chunk_shape(value).is_ok_and(|shape| shape == structure.chunk_shape)
            }
            Field::FillValue => {
                let parse = |text: &[u8]| parse_fill_value(text, &structure.datatype).ok();
                parse(value).is_some_and(|value| Some(value) == parse(&structure.fill_value))
            }
            Field::Filters => parse_filters(value).is_ok_and(|filters| {
                let given = filters.iter().map(|filter| (filter.id, &filter.parameters));
                let has = structure.filters.iter();
                given.eq(has.map(|(id, parameters)| (*id, parameters)))
            }),
        }
}

/// The length of a dataset of the base, once it has another shape.
fn new_len_bytes(structure: &Structure, shape: &[u64]) -> Result<u64, StagingError> {
    let refused = |what| StagingError::Shape {
        shape: shape.to_vec(),
        what,
    };
    if shape.len() != structure.shape.len() {
        return Err(refused("it has another number of axes"));
    }
    if structure.datatype.contains_pointers() {
        return Err(refused("strings are as many as there are lines"));
    }
    shape
        .iter()
        .try_fold(structure.datatype.size as u64, |n, &extent| {
            n.checked_mul(extent)
        })
        .ok_or(StagingError::TooLong)
}

/// How many rows there are, of which the other axes are `rest`.
fn count_rows(
    content: &super::content::Content,
    datatype: &Datatype,
    rest: &[u64],
) -> Result<u64, StagingError> {
    let body = content.read();
    let row_elements = rest
        .iter()
        .try_fold(1u64, |n, &extent| n.checked_mul(extent));
    let elements = if matches!(datatype.class, Class::VlenString { .. }) {
        let mut lines = 0;
        let mut at = 0;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = body.read_at(at, &mut piece)?;
            if count == 0 {
                break lines;
            }
            let newlines = piece[..count].iter().filter(|&&byte| byte == b'\n');
            lines += newlines.count() as u64;
            at += count as u64;
        }
    } else {
        body.len_bytes()? / (datatype.size as u64).max(1)
    };
    Ok(match row_elements {
        Some(row_elements) if row_elements > 0 => elements / row_elements,
        _ => 0,
    })
}
