//! The parsers of everything that a user does not write himself, each as a function of bytes alone, for the fuzz targets in `fuzz/`.
//!
//! A target fails by a panic: of the parser, or of an assertion on what it returned (two decoders agree, what was decoded encodes to the same again).
//! Structures that refer to others by address are read from an image: the bytes of a file without its superblock, so that address 0 is
//! the image's first byte. Checksums are taken for right where they would keep the bytes behind them from being looked at.
//!
//! Compiled for fuzzing and for tests alone. Inputs that once failed are in `fuzz/regressions/TARGET/`, and a test here runs them all.

mod input;
#[cfg(test)]
mod seeds;
mod whole_file;

pub(crate) use input::Input;

use crate::h5::fuzzing::with_all_matching;
use crate::{codec, fs, h5, source, staging, store};

/// A parser to be fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What the target, its corpus and its regressions are called.
    pub name: &'static str,
    /// Parses the bytes, and panics where the parser is at fault.
    pub run: fn(&[u8]),
}

/// Defines each target as a function of its own, and the list of all.
macro_rules! targets {
    ($($name:ident = $parser:expr;)*) => {
        /// All targets, by name.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name }),*];

        $(
            #[doc = concat!("The target `", stringify!($name), "`.")]
            pub fn $name(bytes: &[u8]) {
                with_all_matching(|| $parser(bytes));
            }
        )*
    };
}

targets! {
    attribute_message = h5::fuzzing::attribute_message;
    block_set = staging::fuzzing::block_set;
    change_log = staging::fuzzing::change_log;
    change_replay = staging::fuzzing::change_replay;
    chunk_btree1 = h5::fuzzing::chunk_btree1;
    chunk_btree2 = h5::fuzzing::chunk_btree2;
    chunk_extensible_array = h5::fuzzing::chunk_extensible_array;
    chunk_fixed_array = h5::fuzzing::chunk_fixed_array;
    chunk_implicit = h5::fuzzing::chunk_implicit;
    chunk_single = h5::fuzzing::chunk_single;
    commit_request = fs::fuzzing::commit_request_text;
    dataspace_message = h5::fuzzing::dataspace_message;
    datatype_message = h5::fuzzing::datatype_message;
    datatype_text = store::fuzzing::datatype_text;
    fill_value_message = h5::fuzzing::fill_value_message;
    fill_value_text = store::fuzzing::fill_value_text;
    filter_bitshuffle = codec::fuzzing::bitshuffle;
    filter_blosc = codec::fuzzing::blosc;
    filter_blosc2 = codec::fuzzing::blosc2;
    filter_bzip2 = codec::fuzzing::bzip2;
    filter_fletcher32 = codec::fuzzing::fletcher32;
    filter_gzip = codec::fuzzing::gzip;
    filter_lz4 = codec::fuzzing::lz4;
    filter_lzf = codec::fuzzing::lzf;
    filter_message = h5::fuzzing::filter_message;
    filter_nbit = codec::fuzzing::nbit;
    filter_pipeline = codec::fuzzing::pipeline;
    filter_scaleoffset = codec::fuzzing::scaleoffset;
    filter_shuffle = codec::fuzzing::shuffle;
    filter_szip = codec::fuzzing::szip;
    filter_text = store::fuzzing::filter_text;
    filter_zstd = codec::fuzzing::zstd;
    fractal_heap = h5::fuzzing::fractal_heap;
    global_heap = h5::fuzzing::global_heap;
    journal = source::fuzzing::journal;
    layout_message = h5::fuzzing::layout_message;
    link_message = h5::fuzzing::link_message;
    mapping_block = h5::fuzzing::mapping_block;
    object = h5::fuzzing::object;
    object_header = h5::fuzzing::object_header;
    overlay_files = staging::fuzzing::overlay_files;
    record_btree2 = h5::fuzzing::record_btree2;
    selection = h5::fuzzing::selection;
    shape_text = store::fuzzing::shape_text;
    string_lines = store::fuzzing::string_lines;
    superblock = h5::fuzzing::superblock;
    symbol_table = h5::fuzzing::symbol_table;
    time_text = store::fuzzing::time_text;
    value_json = store::fuzzing::value_json;
    value_text = store::fuzzing::value_text;
    whole_file = whole_file::whole_file;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::h5::testing::made_files;

    fn folder() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
    }

    #[test]
    fn inputs_that_failed_once() {
        for target in TARGETS {
            let Ok(inputs) = std::fs::read_dir(folder().join("regressions").join(target.name))
            else {
                continue;
            };
            for input in inputs {
                (target.run)(&std::fs::read(input.unwrap().path()).unwrap());
            }
        }
    }

    #[test]
    fn every_regression_belongs_to_a_target() {
        for entry in std::fs::read_dir(folder().join("regressions")).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(TARGETS.iter().any(|target| name == target.name), "{name:?}");
        }
    }

    #[test]
    fn every_target_has_a_binary() {
        let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        for target in TARGETS {
            let source = folder().join(format!("fuzz_targets/{}.rs", target.name));
            let source = std::fs::read_to_string(&source).unwrap();
            assert!(source.contains(&format!("target!({});", target.name)));
            assert!(manifest.contains(&format!("name = \"{}\"\n", target.name)));
        }
    }

    #[test]
    fn sound_structures_pass() {
        let mut seeds = seeds::of_no_file();
        for file in made_files()
            .iter()
            .filter(|file| file.name.starts_with("small"))
        {
            seeds.extend(seeds::of_file(&file.bytes));
        }
        assert!(seeds.len() > 500, "{}", seeds.len());
        for (name, seed) in seeds {
            let target = TARGETS.iter().find(|target| target.name == name).unwrap();
            (target.run)(&seed);
        }
    }

    #[test]
    fn no_noise_is_too_much() {
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut byte = || {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Small numbers are what fields are mostly made of.
            let [value, kind, ..] = random.to_le_bytes();
            if kind < 128 { value } else { value % 8 }
        };
        for target in TARGETS {
            for len in (0..300).step_by(3) {
                let noise: Vec<u8> = (0..len).map(|_| byte()).collect();
                (target.run)(&noise);
            }
        }
    }
}
