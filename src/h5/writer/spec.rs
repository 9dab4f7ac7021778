//! What is to be made: values that a caller fills in.

use crate::h5::mapping::ChunkMap;
use crate::h5::{Address, Datatype, Filter};

/// Where an object of the global heap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapPlace {
    /// The collection, from the base address.
    pub address: Address,
    /// The object in it, 1 to 65535.
    pub index: u32,
}

/// The element type of something new.
#[derive(Debug, Clone, Copy)]
pub enum TypeSource<'a> {
    /// The type of the dataset at this absolute path.
    Of(&'a [u8]),
    /// This type.
    Datatype(&'a Datatype),
}

/// A new chunked dataset without elements that were written.
#[derive(Debug, Clone, Copy)]
pub struct NewChunked<'a> {
    /// Its element type.
    pub datatype: TypeSource<'a>,
    /// Elements along each axis. The first axis may grow without limit, the others may not.
    pub shape: &'a [u64],
    /// Elements of a chunk along each axis.
    pub chunk_shape: &'a [u64],
    /// One element as it is stored; for variable-length strings the text. `None`: not set, which is zeros.
    pub fill_value: Option<&'a [u8]>,
    /// The filters with all their parameters.
    pub filters: &'a [Filter],
}

/// A new virtual dataset without mappings.
#[derive(Debug, Clone, Copy)]
pub struct NewVirtual<'a> {
    /// Its element type.
    pub datatype: TypeSource<'a>,
    /// Elements along each axis, fixed.
    pub shape: &'a [u64],
    /// As for [`NewChunked::fill_value`].
    pub fill_value: Option<&'a [u8]>,
}

/// What the mappings of a virtual dataset have in common.
#[derive(Debug, Clone, Copy)]
pub struct MappedShape<'a> {
    /// Absolute path of the raw data, in the same file.
    pub source_dataset: &'a [u8],
    /// Elements of the virtual dataset along each axis.
    pub shape: &'a [u64],
    /// Elements of a chunk along each axis.
    pub chunk_shape: &'a [u64],
}

/// The mappings that others are made from.
#[derive(Debug, Clone, Copy)]
pub struct MappingBase<'a> {
    /// Where their block is; an undefined address where there are none.
    pub place: HeapPlace,
    /// What they map, as it was decoded from that block.
    pub map: &'a ChunkMap,
}

/// A mapping block that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMappings {
    /// Where it is.
    pub place: HeapPlace,
    /// Its length.
    pub len_bytes: u64,
    /// The checksum that it ends with.
    pub checksum: u32,
    /// As for [`ChunkMap::entry_bytes`].
    pub entry_bytes: Option<u64>,
}

/// A new attribute.
#[derive(Debug, Clone, Copy)]
pub struct NewAttribute<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The type of an element.
    pub datatype: &'a Datatype,
    /// Its extent.
    pub shape: AttributeShape<'a>,
    /// Its elements.
    pub data: AttributeData<'a>,
}

/// The extent of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeShape<'a> {
    /// One element.
    Scalar,
    /// No element, and no shape; the data is empty.
    Null,
    /// Elements along each axis.
    Simple(&'a [u64]),
}

/// The elements of an attribute, in C order.
#[derive(Debug, Clone, Copy)]
pub enum AttributeData<'a> {
    /// As they are stored, for a type without variable-length parts.
    Bytes(&'a [u8]),
    /// One text for each element, for variable-length strings. A text ends at its first NUL.
    Strings(&'a [&'a [u8]]),
}
