//! vh5fs mounts a versioned HDF5 file as a directory tree.
//!
//! Each module knows only those below it in this list: [`cli`], [`fuse`], [`fs`], [`staging`], [`store`], [`h5`], [`codec`], [`source`].

pub mod cli;
pub mod codec;
pub mod fs;
pub mod fuse;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod h5;
pub mod source;
pub mod staging;
pub mod store;
