//! What describes an array, as text: the attributes `h5.*`.

use std::io;
use std::sync::Arc;

use serde_json::json;
use serde_json::ser::{Formatter, Serializer};

use super::dataset::fill_value_text;
use super::{Dataset, Snapshot, StoreError, VersionIndex, dtype, json as values};
use crate::h5::{Dataspace, Datatype, H5Error};

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

    /// Of what the file stores under a path, in whatever version, with a shape without any axis; `None` if there is nothing. `version` is for messages alone.
    ///
    /// # Errors
    /// Damage of its header or of its fill value.
    pub(crate) fn of_raw_data(
        snapshot: &Snapshot,
        version: VersionIndex,
        path: &Arc<[u8]>,
    ) -> Result<Option<Self>, StoreError> {
        let Some(raw_data) = snapshot.raw_data(version, path)? else {
            return Ok(None);
        };
        let filters = raw_data.header.filters.iter();
        Ok(Some(Self {
            datatype: raw_data.header.datatype.clone(),
            shape: Vec::new(),
            chunk_shape: raw_data.chunk_shape.clone(),
            fill_value: fill_value_text(&raw_data.header, &snapshot.file.h5.reader(), path)?,
            filters: filters
                .map(|filter| (filter.id, filter.parameters.clone()))
                .collect(),
        }))
    }

    /// Names, without their namespace, and values.
    #[must_use]
    pub fn texts(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let filters: Vec<serde_json::Value> = self
            .filters
            .iter()
            .map(|(id, parameters)| {
                json!({
                    "id": id,
                    "name": crate::codec::filter_name(*id),
                    "parameters": parameters,
                })
            })
            .collect();
        let dtype = match dtype::numpy_descr(&self.datatype) {
            serde_json::Value::String(text) => text.into_bytes(),
            descr => spaced_json(&descr),
        };
        vec![
            (b"h5.dtype".to_vec(), dtype),
            (b"h5.shape".to_vec(), spaced_json(&json!(self.shape))),
            (b"h5.chunks".to_vec(), spaced_json(&json!(self.chunk_shape))),
            (b"h5.fillvalue".to_vec(), self.fill_value.clone()),
            (b"h5.filters".to_vec(), spaced_json(&json!(filters))),
        ]
    }
}

/// The zero of a type, as text: the fill value where none was given.
#[must_use]
pub fn zero_text(datatype: &Datatype) -> Vec<u8> {
    /// There is nothing to be read.
    struct NoHeap;

    impl values::HeapData for NoHeap {
        fn read_vlen(&self, _: &[u8; 16], _: usize) -> Result<Vec<u8>, H5Error> {
            Ok(Vec::new())
        }
    }

    if matches!(datatype.class, crate::h5::Class::FixedString { .. }) {
        return Vec::new();
    }
    let zeros = vec![0; datatype.size];
    values::attribute_text(datatype, &Dataspace::Scalar, &zeros, &NoHeap).unwrap_or_default()
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
    serde::Serialize::serialize(value, &mut serializer).expect("JSON into memory");
    text
}
