//! Attributes of new objects: which are carried over as they are, and what is written.

use crate::h5::writer::{AttributeData, AttributeShape, LibraryWriter, NewAttribute, WriteError};
use crate::h5::{self, Address, Attribute, MetaReader, ObjectHeader};
use crate::store::attributes::{HeapValues, check_values, is_bookkeeping, is_version_bookkeeping};
use crate::store::json;
use crate::store::typed_value::{Extent, TypedData, TypedValue, attribute_value};
use crate::store::{AttributeChange, CommitError};

/// A message of an object header is shorter than 64 KiB, and has more in it than the value.
const MOST_VALUE_BYTES: usize = 64_000;
/// What a string of variable length takes there.
const TEXT_REFERENCE_BYTES: usize = 16;

/// What becomes of the attributes of one object.
#[derive(Debug, Default)]
pub(super) struct AttributePlan {
    /// Names that are not carried over.
    pub(super) dropped: Vec<Vec<u8>>,
    /// What is set.
    pub(super) set: Vec<(Vec<u8>, TypedValue)>,
    carried_over: Option<CarriedOver>,
}

/// Attributes that a new object gets as they are.
#[derive(Debug)]
struct CarriedOver {
    /// The object that has them, absolute.
    from: Vec<u8>,
    names: Vec<Vec<u8>>,
}

/// Whose attributes they are, which says which names are the format's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Version,
    Group,
    Dataset,
}

impl AttributePlan {
    /// Settles `changes` of the object at `path`, whose attributes are carried over from the object at `from`.
    ///
    /// # Errors
    /// [`CommitError::Attribute`]; damage of the attributes that are there.
    pub(super) fn new(
        path: &[u8],
        owner: Owner,
        changes: &[AttributeChange],
        from: Option<(&MetaReader, Address)>,
        damaged: &dyn Fn(h5::H5Error) -> CommitError,
    ) -> Result<Self, CommitError> {
        let mut plan = Self::default();
        if changes.is_empty() {
            return Ok(plan);
        }
        let bad = |change: &AttributeChange, what| CommitError::Attribute {
            object: path.to_vec(),
            name: change.name.clone(),
            what,
        };
        let header = match from {
            Some((reader, address)) => {
                let header = ObjectHeader::read(reader, address).map_err(damaged)?;
                Some((reader, header))
            }
            None => None,
        };
        for change in changes {
            let is_own = match owner {
                Owner::Version => {
                    is_version_bookkeeping(&change.name) || change.name == b"timestamp"
                }
                Owner::Group => false,
                Owner::Dataset => is_bookkeeping(&change.name),
            };
            if is_own {
                return Err(bad(
                    change,
                    "the format keeps something of its own under that name",
                ));
            }
            if change.name.is_empty() || change.name.contains(&0) {
                return Err(bad(change, "its name is empty, or has a NUL"));
            }
            let existing = match &header {
                Some((reader, header)) => {
                    h5::attribute_named(reader, header, &change.name).map_err(damaged)?
                }
                None => None,
            };
            let Some(text) = &change.value else {
                plan.dropped.push(change.name.clone());
                continue;
            };
            if let (Some((reader, _)), Some(existing)) = (&header, &existing)
                && shows(reader, existing, text)
            {
                continue;
            }
            let existing = existing
                .as_ref()
                .map(|there| (&there.datatype, &there.dataspace));
            let value = attribute_value(text, existing);
            let len_bytes = match &value.data {
                TypedData::Bytes(bytes) => bytes.len(),
                TypedData::Texts(texts) => texts.len() * TEXT_REFERENCE_BYTES,
            };
            if len_bytes > MOST_VALUE_BYTES {
                return Err(bad(
                    change,
                    "its value is longer than HDF5 can store (64 KiB)",
                ));
            }
            plan.dropped.push(change.name.clone());
            plan.set.push((change.name.clone(), value));
        }
        Ok(plan)
    }

    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.set.is_empty()
    }

    /// Lets the new object have what the one at `from` has, whose header is at `address`, but for what is dropped.
    ///
    /// # Errors
    /// Damage of the attributes that are there.
    pub(super) fn carry_over(
        &mut self,
        from: Vec<u8>,
        reader: &MetaReader,
        address: Address,
        owner: Owner,
    ) -> Result<(), h5::H5Error> {
        let header = ObjectHeader::read(reader, address)?;
        let mut attributes = h5::attributes(reader, &header)?;
        attributes.retain(|attribute| {
            let is_own = owner == Owner::Dataset && is_bookkeeping(&attribute.name);
            !is_own && !self.dropped.contains(&attribute.name)
        });
        check_values(reader, attributes.iter())?;
        let names = attributes.into_iter().map(|attribute| attribute.name);
        let names = names.collect();
        self.carried_over = Some(CarriedOver { from, names });
        Ok(())
    }

    /// Gives the object at `to` what is carried over, and sets the rest.
    ///
    /// # Errors
    /// [`WriteError`].
    pub(super) fn write(&self, library: &mut LibraryWriter, to: &[u8]) -> Result<(), WriteError> {
        if let Some(CarriedOver { from, names }) = &self.carried_over {
            library.copy_attributes(from, to, names)?;
        }
        for (name, value) in &self.set {
            set(library, to, name, value)?;
        }
        Ok(())
    }
}

/// Whether an attribute is shown as `text` already.
fn shows(reader: &MetaReader, attribute: &Attribute, text: &[u8]) -> bool {
    let heap = HeapValues::new(reader);
    json::attribute_text(
        &attribute.datatype,
        &attribute.dataspace,
        &attribute.data,
        &heap,
    )
    .is_ok_and(|shown| shown == text)
}

/// Sets one attribute.
///
/// # Errors
/// [`WriteError`].
pub(super) fn set(
    library: &mut LibraryWriter,
    path: &[u8],
    name: &[u8],
    value: &TypedValue,
) -> Result<(), WriteError> {
    let texts: Vec<&[u8]>;
    let data = match &value.data {
        TypedData::Bytes(bytes) => AttributeData::Bytes(bytes),
        TypedData::Texts(list) => {
            texts = list.iter().map(Vec::as_slice).collect();
            AttributeData::Strings(&texts)
        }
    };
    let shape = match &value.extent {
        Extent::Scalar => AttributeShape::Scalar,
        Extent::Simple(shape) => AttributeShape::Simple(shape),
    };
    library.set_attribute(
        path,
        &NewAttribute {
            name,
            datatype: &value.datatype,
            shape,
            data,
        },
    )
}
