//! Attributes of versions, groups and datasets, as people read them.

use std::cell::RefCell;

use super::json::{self, HeapData, ValueError};
use crate::h5::heap::{HeapReader, VlenReference};
use crate::h5::{self, Address, Attribute, H5Error, MetaReader, ObjectHeader};

/// Attributes with which the format describes itself; they are not shown.
const BOOKKEEPING: [&[u8]; 2] = [b"raw_data", b"chunks"];
/// On a version's own group.
const VERSION_BOOKKEEPING: [&[u8]; 2] = [b"committed", b"prev_version"];

/// How much of the heap is kept while values are read from it.
const KEPT_HEAP_BYTES: u64 = 4 << 20;

/// Whether a dataset's attribute belongs to the format and not to the user.
#[must_use]
pub(super) fn is_bookkeeping(name: &[u8]) -> bool {
    BOOKKEEPING.contains(&name)
}

/// Whether an attribute of a version's own group belongs to the format and is not shown as it is.
#[must_use]
pub(super) fn is_version_bookkeeping(name: &[u8]) -> bool {
    VERSION_BOOKKEEPING.contains(&name)
}

/// One attribute.
#[derive(Debug, Clone)]
pub struct AttributeText {
    /// Its name, not necessarily UTF-8.
    pub name: Vec<u8>,
    /// A scalar string is its text unless JSON was asked for; anything else is JSON. An error where the value is damaged or not
    /// supported.
    pub value: Result<Vec<u8>, ValueError>,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A scalar string as its bytes, anything else as JSON.
    Text,
    /// Everything as JSON.
    Json,
}

/// All attributes of the object at `address`, in the byte order of their names.
///
/// # Errors
/// Where the object's header or its attributes as a whole are damaged.
pub(super) fn read_attributes(
    reader: &MetaReader,
    address: Address,
    form: Form,
) -> Result<Vec<AttributeText>, H5Error> {
    let write = match form {
        Form::Text => json::attribute_text,
        Form::Json => json::attribute_json,
    };
    let header = ObjectHeader::read(reader, address)?;
    let heap = HeapValues::new(reader);
    let mut texts: Vec<AttributeText> = h5::attributes(reader, &header)?
        .into_iter()
        .map(|attribute| AttributeText {
            value: write(
                &attribute.datatype,
                &attribute.dataspace,
                &attribute.data,
                &heap,
            ),
            name: attribute.name,
        })
        .collect();
    texts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(texts)
}

/// Reads every value of `attributes` that lies in the global heap, for its damage alone. The C library, which copies and overwrites attributes in
/// a commit, can hang on a heap collection that is not sound.
///
/// # Errors
/// What is wrong with the heap; [`H5Error::Unsupported`] for a value that cannot be read for another reason.
pub(super) fn check_values<'a>(
    reader: &MetaReader,
    attributes: impl Iterator<Item = &'a Attribute>,
) -> Result<(), H5Error> {
    let heap = HeapValues::new(reader);
    for attribute in attributes.filter(|attribute| attribute.datatype.contains_pointers()) {
        let value = json::attribute_text(
            &attribute.datatype,
            &attribute.dataspace,
            &attribute.data,
            &heap,
        );
        match value {
            Ok(_) => {}
            Err(ValueError::Heap(error)) => return Err(error),
            Err(_) => {
                return Err(H5Error::Unsupported {
                    structure: "attribute message",
                    address: Address::UNDEFINED,
                    what: "its value cannot be read, and so not be copied",
                });
            }
        }
    }
    Ok(())
}

/// Variable-length values from the file's global heap.
#[derive(Debug)]
pub(super) struct HeapValues<'r> {
    heap: RefCell<HeapReader<'r>>,
}

impl<'r> HeapValues<'r> {
    /// Values that `reader` can reach.
    #[must_use]
    pub(super) fn new(reader: &'r MetaReader) -> Self {
        Self {
            heap: RefCell::new(HeapReader::new(reader, KEPT_HEAP_BYTES)),
        }
    }
}

impl HeapValues<'_> {
    /// Where an object of the heap begins, and how many bytes it has.
    pub(super) fn find(&self, collection: Address, index: u32) -> Result<(Address, u64), H5Error> {
        self.heap.borrow_mut().find(collection, index)
    }
}

impl HeapData for HeapValues<'_> {
    fn read_vlen(&self, reference: &[u8; 16], element_bytes: usize) -> Result<Vec<u8>, H5Error> {
        let reference = VlenReference::decode(reference);
        let mut heap = self.heap.borrow_mut();
        Ok(heap.read_vlen(reference, element_bytes)?.into_owned())
    }
}
