//! What the header of a dataset says: element type, extent, fill value, filters, and where its bytes are.

use super::{Address, Dataspace, Datatype, Filter};

/// A dataset's header, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetHeader {
    /// The type of one element.
    pub datatype: Datatype,
    /// The datatype message as stored, without padding behind it: equal bytes mean an equal type.
    pub datatype_bytes: Vec<u8>,
    /// The extent.
    pub dataspace: Dataspace,
    /// One element that stands for those never written; `None` means zeros.
    pub fill_value: Option<Vec<u8>>,
    /// The steps that a chunk went through when it was written, in that order.
    pub filters: Vec<Filter>,
    /// Where the elements are.
    pub layout: Layout,
}

/// Where a dataset's elements are (Specification IV.A.2.i, "Data Layout Message").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// In the header itself.
    Compact(Vec<u8>),
    /// In one piece.
    Contiguous {
        /// First byte; undefined where nothing was written yet.
        address: Address,
        /// Length in bytes.
        size_bytes: u64,
    },
    /// In chunks.
    Chunked {
        /// Elements of a chunk along each axis, as many as the dataspace has.
        chunk_shape: Vec<u64>,
        /// Bytes of an element, as the layout message says it: the product of this and the chunk shape is the length of a chunk
        /// before the filters.
        element_bytes: u64,
        /// Version of the layout message, 1 to 5. From 5 on an index keeps stored sizes in 8 bytes, before that in as few as
        /// the length of a chunk asks for and one more.
        layout_version: u8,
        /// Chunks that stick out of the extent were stored without the filters.
        dont_filter_partial_edge_chunks: bool,
        /// How the chunks are found.
        index: ChunkIndexKind,
    },
    /// In other datasets, by a list of mappings in the global heap.
    Virtual {
        /// The heap collection; undefined where there is no mapping.
        heap_address: Address,
        /// The object in that collection.
        heap_index: u32,
    },
}

/// The structure that finds the chunks. An undefined address means that no chunk was written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkIndexKind {
    /// A version 1 B-tree of type 1.
    BTreeV1 {
        /// Its root node.
        address: Address,
    },
    /// The whole dataset is one chunk.
    SingleChunk {
        /// The chunk.
        address: Address,
        /// Where there are filters: its stored length in bytes, and its filter mask.
        filtered: Option<(u64, u32)>,
    },
    /// All chunks, in C order of the grid, one behind the other; none is filtered.
    Implicit {
        /// The first chunk.
        address: Address,
    },
    /// A fixed array.
    FixedArray {
        /// Its header.
        address: Address,
    },
    /// An extensible array.
    ExtensibleArray {
        /// Its header.
        address: Address,
    },
    /// A version 2 B-tree of type 10, or 11 where there are filters.
    BTreeV2 {
        /// Its header.
        address: Address,
    },
}
