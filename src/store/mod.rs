//! A versioned HDF5 file: its history, its datasets, their bytes.
