//! The HDF5 file format: what lies where in a file, and what it is called.
//!
//! Metadata (groups, attributes, types, chunk indexes, virtual mappings) is decoded here from the file's bytes, in safe code with bounds on
//! everything that a file can claim, since walking thousands of versions costs microseconds an object this way and a hundred
//! times that through the C library, and since a damaged file must not be able to crash a mount. The C library is the
//! authority for what is not decoded here (`library`), and the oracle in tests.
//!
//! "Specification" below means the HDF5 File Format Specification, version 3.0 or 4.0, by The HDF Group.

mod datatype;
mod error;

pub use datatype::{ByteOrder, Class, Datatype, EnumMember, Member, ReferenceKind};
pub use error::H5Error;

// Objects: groups, datasets, attributes.
mod attribute;
pub mod btree2;
mod checksum;
mod dataset;
mod dataspace;
mod datatype_message;
mod decoder;
mod fractal_heap;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod group;
mod layout_message;
mod object_header;
mod parallel;
mod reader;
mod superblock;
mod symbol_table;
#[cfg(test)]
pub(crate) mod testing;

pub use attribute::{Attribute, attribute_named, attributes};
pub use checksum::lookup3;
pub use dataset::DatasetHeader;
pub use group::{Link, LinkTarget, find_link, find_link_of, find_path, links, links_of};
pub use layout_message::{ChunkIndexKind, Layout};
pub use object_header::{Message, ObjectHeader, ObjectKind};
pub use reader::{MetaBytes, MetaReader};
pub use superblock::H5File;

// Where the bytes of datasets are, and the C library for what is not decoded here.
mod call;
mod chunk_index;
#[cfg(test)]
pub(crate) mod fixture;
pub mod heap;
pub mod library;
pub mod mapping;
pub mod writer;

pub use chunk_index::{ChunkTable, extend_chunk_index, read_chunk_index, read_cut_chunk_index};

/// A place in the file, in bytes from the superblock's base address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl Address {
    /// The value that the format writes for "nowhere".
    pub const UNDEFINED: Self = Self(u64::MAX);

    /// Whether it names a place.
    #[must_use]
    pub fn is_defined(self) -> bool {
        self != Self::UNDEFINED
    }
}

/// The extent of a dataset or attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dataspace {
    /// One element.
    Scalar,
    /// No element, and no shape.
    Null,
    /// A box of elements.
    Simple {
        /// Elements along each axis, slowest first.
        shape: Vec<u64>,
        /// How far each axis may grow; `None` is without limit. Empty where the file does not say, which means `shape`.
        max_shape: Vec<Option<u64>>,
    },
}

impl Dataspace {
    /// The number of elements, or `None` where it does not fit 64 bits.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Scalar => Some(1),
            Self::Null => Some(0),
            Self::Simple { shape, .. } => {
                shape.iter().try_fold(1u64, |n, &axis| n.checked_mul(axis))
            }
        }
    }

    /// Whether it has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Elements along each axis; empty for a scalar and for a null dataspace.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        match self {
            Self::Simple { shape, .. } => shape,
            _ => &[],
        }
    }
}

/// One step of a filter pipeline, as the dataset's header describes it (Specification IV.A.2.l, "Filter Pipeline Message").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The registered number of the filter.
    pub id: u16,
    /// Bit 0: the filter is optional, so a chunk may have been stored without it.
    pub flags: u16,
    /// The name that was stored with it, if any.
    pub name: Option<String>,
    /// The filter's own parameters.
    pub parameters: Vec<u32>,
}

/// Where the bytes of one stored chunk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoredChunk {
    /// First byte in the file.
    pub address: Address,
    /// Stored length in bytes, after the filters.
    pub stored_bytes: u64,
    /// Bit `n` set: step `n` of the pipeline was left out for this chunk.
    pub filter_mask: u32,
}
