//! Files for tests, made by Python, with what the HDF5 library says about them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::H5File;

mod damage;
mod objects;

/// A file in memory and the facts about it.
pub(crate) struct MadeFile {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) facts: Value,
}

impl MadeFile {
    pub(crate) fn open(&self) -> H5File {
        H5File::open(Arc::new(self.bytes.clone())).unwrap()
    }
}

/// The Python that has h5py: `VH5FS_TEST_PYTHON`, else the one that `scripts/test.sh` sets up.
pub(crate) fn python() -> PathBuf {
    match std::env::var_os("VH5FS_TEST_PYTHON") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"),
    }
}

/// The files of `make_objects.py`, which are made once.
pub(crate) fn made_files() -> &'static [MadeFile] {
    static FILES: OnceLock<Vec<MadeFile>> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let python = python();
        let made = Command::new(&python)
            .args(["-c", include_str!("make_objects.py")])
            .arg(folder.path())
            .output()
            .unwrap_or_else(|error| panic!("{} cannot be run: {error}", python.display()));
        assert!(
            made.status.success(),
            "make_objects.py: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "h5") {
                let facts = std::fs::read(path.with_extension("json")).unwrap();
                files.push(MadeFile {
                    name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                    bytes: std::fs::read(&path).unwrap(),
                    facts: serde_json::from_slice(&facts).unwrap(),
                });
            }
        }
        assert_eq!(files.len(), 10);
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files
    })
}
