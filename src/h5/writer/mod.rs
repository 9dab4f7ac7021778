//! Writing to an HDF5 file, all or nothing.
//!
//! A [`FileWriter`] owns a [`Transaction`](crate::source::Transaction). What is written often and in bulk is encoded here (global heap
//! collections, mapping blocks); groups, attributes, datasets and chunk indexes are written by the C library, which reads and writes
//! through the transaction by a file driver. Nothing that the file held before changes until [`FileWriter::finish`].
//!
//! The order is: [`append_heap_objects`](FileWriter::append_heap_objects) as often as is wanted, then [`edit`](FileWriter::edit), then
//! [`set_virtual_mapping`](FileWriter::set_virtual_mapping), then `finish`.

mod attribute_writer;
mod create;
mod dataset_writer;
mod driver;
mod error;
mod file_writer;
mod filters;
mod heap;
mod library_writer;
mod mapping_block;
mod mapping_patch;
mod patch;
mod spec;
mod types;

pub use create::create_versioned_file;
pub use dataset_writer::OpenDataset;
pub use driver::set_up_ahead;
pub use error::WriteError;
pub use file_writer::FileWriter;
pub use library_writer::LibraryWriter;
#[cfg(any(test, fuzzing))]
pub(in crate::h5) use mapping_block::encode as encode_mapping_block;
pub use spec::{
    AttributeData, AttributeShape, HeapPlace, MappedShape, MappingBase, NewAttribute, NewChunked,
    NewMappings, NewVirtual, TypeSource,
};

#[cfg(test)]
mod tests;
