//! What describes an array, as text: the attributes `h5.*`.

use std::io;
use std::sync::Arc;

use serde_json::json;
use serde_json::ser::{Formatter, Serializer};

use super::attributes::HeapValues;
use super::{Dataset, Snapshot, StoreError, VersionIndex, dtype, json as values};
use crate::h5::{Dataspace, Datatype};

/// A type, a shape, and how the array is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// The type of an element.
    pub datatype: Datatype,
    /// Elements along each axis.
    pub shape: Vec<u64>,
    /// The same of a chunk.
    pub chunk_shape: Vec<u64>,
    /// Value of an element that was never written, as text.
    pub fill_value: Vec<u8>,
    /// Number and parameters of each filter.
    pub filters: Vec<(u16, Vec<u32>)>,
}

impl Structure {
    /// Of a dataset.
    ///
    /// # Errors
    /// Damage of its fill value.
    pub fn of_dataset(dataset: &Dataset) -> Result<Self, StoreError> {
        let filters = dataset.filters.iter();
        Ok(Self {
            datatype: dataset.datatype().clone(),
            shape: dataset.header.dataspace.shape().to_vec(),
            chunk_shape: dataset.chunk_shape.clone(),
            fill_value: dataset.fill_value_text()?,
            filters: filters
                .map(|filter| (filter.id, filter.parameters.clone()))
                .collect(),
        })
    }

    /// Names, without their namespace, and values.
    #[must_use]
    pub fn texts(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let filters = self.filters.iter();
        let filters = filters_json(filters.map(|(id, parameters)| (*id, parameters.as_slice())));
        let dtype = match dtype::numpy_descr(&self.datatype) {
            serde_json::Value::String(text) => text.into_bytes(),
            descr => spaced_json(&descr),
        };
        vec![
            (b"h5.dtype".to_vec(), dtype),
            (b"h5.shape".to_vec(), spaced_json(&json!(self.shape))),
            (b"h5.chunks".to_vec(), spaced_json(&json!(self.chunk_shape))),
            (b"h5.fillvalue".to_vec(), self.fill_value.clone()),
            (b"h5.filters".to_vec(), spaced_json(&filters)),
        ]
    }
}

/// Filters by number and parameters, as a list of objects that also have their names.
pub(super) fn filters_json<'f>(
    filters: impl Iterator<Item = (u16, &'f [u32])>,
) -> serde_json::Value {
    filters
        .map(|(id, parameters)| {
            json!({
                "id": id,
                "name": crate::codec::filter_name(id),
                "parameters": parameters,
            })
        })
        .collect()
}

impl Snapshot {
    /// What the file stores under a path in whichever version, as an empty array; `None` where it never had a dataset there. `version` is
    /// named where something is wrong with that.
    ///
    /// # Errors
    /// Damage.
    pub fn stored_structure(
        &self,
        version: VersionIndex,
        path: &Arc<[u8]>,
    ) -> Result<Option<Structure>, StoreError> {
        let Some(raw_data) = self.raw_data(version, path)? else {
            return Ok(None);
        };
        let header = &raw_data.header;
        let zero = || zero_text(&header.datatype);
        let fill_value = match &header.fill_value {
            Some(fill) if fill.iter().any(|&byte| byte != 0) => {
                let reader = self.file.h5.reader();
                let heap = HeapValues::new(&reader);
                values::attribute_text(&header.datatype, &Dataspace::Scalar, fill, &heap).map_err(
                    |error| StoreError::Value {
                        dataset: path.to_vec(),
                        first_element: 0,
                        error,
                    },
                )?
            }
            _ => zero(),
        };
        let filters = header.filters.iter();
        Ok(Some(Structure {
            datatype: header.datatype.clone(),
            shape: [&[0], raw_data.chunk_shape.get(1..).unwrap_or_default()].concat(),
            chunk_shape: raw_data.chunk_shape.clone(),
            fill_value,
            filters: filters
                .map(|filter| (filter.id, filter.parameters.clone()))
                .collect(),
        }))
    }
}

/// The zero of a type, as text: the fill value where none was given.
#[must_use]
pub fn zero_text(datatype: &Datatype) -> Vec<u8> {
    if matches!(datatype.class, crate::h5::Class::FixedString { .. }) {
        return Vec::new();
    }
    let zeros = vec![0; datatype.size];
    values::attribute_text(datatype, &Dataspace::Scalar, &zeros, &values::NoHeap)
        .unwrap_or_default()
}

/// JSON on one line with a blank behind each comma and colon, as Python's `json.dumps` writes it.
#[must_use]
pub fn spaced_json(value: &serde_json::Value) -> Vec<u8> {
    struct Spaced;

    impl Formatter for Spaced {
        fn begin_array_value<W: ?Sized + io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_key<W: ?Sized + io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
            writer.write_all(b": ")
        }
    }

    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, Spaced);
    let written = serde::Serialize::serialize(value, &mut serializer);
    debug_assert!(written.is_ok(), "JSON into memory");
    text
}
