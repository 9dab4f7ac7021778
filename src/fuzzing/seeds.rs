//! Inputs for the targets, taken out of sound files.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::h5::fuzzing::{Seed, seeds_of_file};
use crate::{codec, store};

/// Inputs that are longer are mutated too slowly to be of use.
const MAX_BYTES: usize = 48 << 10;

/// The names of targets, each with an input: the file as a whole, and every structure that is found in it. Nothing where it is not an
/// HDF5 file that can be read to the end.
pub(super) fn of_file(file: &[u8]) -> Vec<Seed> {
    let mut seeds = seeds_of_file(&Arc::new(file.to_vec())).unwrap_or_default();
    if !seeds.is_empty() {
        seeds.push(("whole_file", file.to_vec()));
    }
    seeds
}

/// The same for what is in no file: texts, and chunks of each filter.
pub(super) fn of_no_file() -> Vec<Seed> {
    let texts = store::fuzzing::SEEDS.iter();
    let texts = texts.map(|(target, text)| (*target, text.as_bytes().to_vec()));
    codec::fuzzing::seeds().into_iter().chain(texts).collect()
}

/// Adds to `folder/TARGET/` what is found in the files of `VH5FS_FUZZ_FILES`, a list like `PATH`, that are not too long.
#[test]
#[ignore = "makes the corpus: see fuzz/README.md"]
fn write_corpus() {
    let folder = PathBuf::from(std::env::var_os("VH5FS_FUZZ_CORPUS").unwrap());
    let files = std::env::var_os("VH5FS_FUZZ_FILES").unwrap();
    write(&folder, of_no_file());
    for file in std::env::split_paths(&files) {
        let bytes = std::fs::read(&file).unwrap();
        if bytes.len() <= MAX_BYTES {
            write(&folder, of_file(&bytes));
        }
    }
}

fn write(folder: &Path, seeds: Vec<Seed>) {
    for (target, seed) in seeds {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        let path = folder.join(target);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(format!("{:016x}", hasher.finish())), seed).unwrap();
    }
}
