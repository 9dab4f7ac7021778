//! All that describes a version, a group or a dataset, as JSON for people and programs: whatever its size and name.
//!
//! One key a line, one attribute a line, each value on one line as [`super::json`] writes it; what is not UTF-8 is escaped as Python's
//! `surrogateescape`. Only what all versions that share a dataset agree on is told of it, since they share the text.

use std::sync::Arc;

use super::attributes::HeapValues;
use super::{
    AttributeText, Dataset, Snapshot, StoreError, VersionIndex, dtype, json, structure, time,
    type_text,
};
use crate::h5::{Class, Dataspace};

impl Snapshot {
    /// What describes a dataset, which is at its path in `version`: type, shape, chunks, fill value, filters and attributes.
    ///
    /// # Errors
    /// Damage of its header, its fill value or an attribute.
    pub fn dataset_json(
        &self,
        version: VersionIndex,
        dataset: &Dataset,
    ) -> Result<Vec<u8>, StoreError> {
        let header = &dataset.header;
        let mut object = Object::new("dataset");
        object.json("dtype", &dtype::numpy_descr(&header.datatype));
        object.put("type", |out| type_text::write(&header.datatype, out));
        match &header.dataspace {
            Dataspace::Null => object.put("shape", |out| out.extend_from_slice(b"null")),
            other => object.json("shape", &other.shape().into()),
        }
        object.json("chunks", &dataset.chunk_shape.clone().into());
        let fill_value = dataset.fill_value_json()?;
        object.put("fillvalue", |out| out.extend_from_slice(&fill_value));
        let filters = dataset.filters.iter();
        let filters = filters.map(|filter| (filter.id, filter.parameters.as_slice()));
        object.json("filters", &structure::filters_json(filters));
        object.attributes(self.attributes_as_json(version, &dataset.path)?)?;
        Ok(object.end())
    }

    /// What describes the group at `path` of a version, or the version where the path is empty: its attributes; of a version also name, time
    /// and parent.
    ///
    /// # Errors
    /// Damage of its header or an attribute.
    pub fn group_json(
        &self,
        version: VersionIndex,
        path: &Arc<[u8]>,
    ) -> Result<Vec<u8>, StoreError> {
        let mut object = if path.is_empty() {
            let history = self.history();
            let found = history.version(version);
            let mut object = Object::new("version");
            object.text("name", Some(&found.key.name));
            let timestamp = found.timestamp.map(time::shown);
            object.text("timestamp", timestamp.as_deref().map(str::as_bytes));
            let parent = found
                .parent
                .map(|parent| &*history.version(parent).key.name);
            object.text("parent", parent);
            object
        } else {
            Object::new("group")
        };
        object.attributes(self.attributes_as_json(version, path)?)?;
        Ok(object.end())
    }
}

/// A JSON object in the making, each of its keys on a line.
struct Object {
    out: Vec<u8>,
}

impl Object {
    /// One that says first what it describes.
    fn new(kind: &str) -> Self {
        let mut object = Self { out: b"{".to_vec() };
        object.text("kind", Some(kind.as_bytes()));
        object
    }

    fn put(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
        let is_first = self.out.len() == 1;
        let start = if is_first { "" } else { "," };
        self.out
            .extend_from_slice(format!("{start}\n  \"{key}\": ").as_bytes());
        value(&mut self.out);
    }

    fn text(&mut self, key: &str, text: Option<&[u8]>) {
        self.put(key, |out| match text {
            Some(text) => json::write_string(text, out),
            None => out.extend_from_slice(b"null"),
        });
    }

    fn json(&mut self, key: &str, value: &serde_json::Value) {
        self.put(key, |out| {
            out.extend_from_slice(&structure::spaced_json(value));
        });
    }

    /// All attributes, or why one of them cannot be had.
    fn attributes(&mut self, attributes: Vec<AttributeText>) -> Result<(), StoreError> {
        let mut members = Vec::new();
        for (number, AttributeText { name, value }) in attributes.into_iter().enumerate() {
            members.extend_from_slice(if number == 0 { b"\n    " } else { b",\n    " });
            json::write_string(&name, &mut members);
            members.extend_from_slice(b": ");
            let value = value.map_err(|error| StoreError::Attribute { name, error })?;
            members.extend_from_slice(&value);
        }
        let end: &[u8] = if members.is_empty() { b"}" } else { b"\n  }" };
        self.put("attributes", |out| {
            out.push(b'{');
            out.extend_from_slice(&members);
            out.extend_from_slice(end);
        });
        Ok(())
    }

    fn end(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"\n}\n");
        self.out
    }
}

impl Dataset {
    /// The fill value as JSON.
    fn fill_value_json(&self) -> Result<Vec<u8>, StoreError> {
        let datatype = &self.header.datatype;
        let zeros = vec![0; datatype.size];
        let fill = self.header.fill_value.as_deref().unwrap_or(&zeros);
        if matches!(datatype.class, Class::FixedString { .. }) && fill == zeros {
            // Whatever its padding, a string of nothing but NULs is empty.
            return Ok(b"\"\"".to_vec());
        }
        let reader = self.file.h5.reader();
        let mut text = Vec::new();
        json::write_json(datatype, fill, &HeapValues::new(&reader), &mut text).map_err(
            |error| StoreError::Value {
                dataset: self.path.to_vec(),
                first_element: 0,
                error,
            },
        )?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::json::ValueError;

    fn attribute(name: &[u8], value: &str) -> AttributeText {
        AttributeText {
            name: name.to_vec(),
            value: Ok(value.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_key_and_an_attribute_have_a_line_each() {
        let mut object = Object::new("group");
        object
            .attributes(vec![
                attribute(b"a\xff", "[1, 2]"),
                attribute(b"b", "\"x\""),
            ])
            .unwrap();
        let text = String::from_utf8(object.end()).unwrap();
        assert_eq!(
            text,
            "{\n  \"kind\": \"group\",\n  \"attributes\": {\n    \"a\\udcff\": [1, 2],\n    \"b\": \"x\"\n  }\n}\n"
        );
        let mut object = Object::new("group");
        object.attributes(Vec::new()).unwrap();
        let text = String::from_utf8(object.end()).unwrap();
        assert_eq!(text, "{\n  \"kind\": \"group\",\n  \"attributes\": {}\n}\n");
    }

    #[test]
    fn an_attribute_that_cannot_be_read_is_an_error() {
        let broken = AttributeText {
            name: b"a".to_vec(),
            value: Err(ValueError::TooDeep { limit: 64 }),
        };
        let error = Object::new("group").attributes(vec![broken]).unwrap_err();
        assert!(matches!(error, StoreError::Attribute { name, .. } if name == b"a"));
    }
}
