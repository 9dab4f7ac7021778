//! A versioned HDF5 file: its history, its datasets, their bytes.

pub mod dtype;
pub mod json;
pub mod text;

#[cfg(test)]
mod type_samples;
