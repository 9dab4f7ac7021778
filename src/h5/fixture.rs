//! Files for tests, made by Python programs with the real h5py and versioned-hdf5.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use super::testing::python;
use super::{Address, DatasetHeader, H5File, MetaReader, ObjectHeader, find_path};
use crate::source::LocalFile;

/// A directory of files that a Python program made; removed when dropped.
pub(crate) struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    /// Runs `program` in a new directory.
    pub(crate) fn make(program: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self { directory };
        fixture.run(program);
        fixture
    }

    /// Runs another program in the directory.
    pub(crate) fn run(&self, program: &str) {
        let python = python();
        let output = Command::new(&python)
            .args(["-c", program])
            .current_dir(self.directory.path())
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8(self.bytes(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn open(&self, name: &str) -> H5File {
        H5File::open(Arc::new(LocalFile::open(&self.path(name)).unwrap())).unwrap()
    }
}

/// Where the header of the object at `path` is.
pub(crate) fn address_of(file: &H5File, reader: &MetaReader, path: &str) -> Address {
    let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
    find_path(reader, file.root(), file.root(), &names)
        .unwrap()
        .unwrap_or_else(|| panic!("{path} is missing"))
}

/// The header of the dataset at `path`.
pub(crate) fn dataset(file: &H5File, reader: &MetaReader, path: &str) -> DatasetHeader {
    let header = ObjectHeader::read(reader, address_of(file, reader, path)).unwrap();
    DatasetHeader::read(reader, &header).unwrap()
}
