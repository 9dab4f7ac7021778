//! Against chunks that the HDF5 library and its plugins made, and against damage.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;

/// A chunk as `tests/fixtures/codec_vectors.py` lists it.
struct Vector {
    name: String,
    specs: Vec<FilterSpec>,
    mask: u32,
    element_bytes: usize,
    stored: Vec<u8>,
    /// What the library reads from it.
    plain: Vec<u8>,
    /// What the library was given, which its filters may have rounded.
    given: Vec<u8>,
}

impl Vector {
    fn pipeline(&self) -> Pipeline {
        Pipeline::new(&self.specs, self.element_bytes, self.plain.len()).expect(&self.name)
    }
}

/// Runs the script with h5py and hdf5plugin.
fn script(mode: &str, directory: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("VH5FS_TEST_PYTHON")
        .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    let output = Command::new(&python)
        .arg(root.join("tests/fixtures/codec_vectors.py"))
        .arg(mode)
        .arg(directory)
        .output()
        .unwrap_or_else(|e| {
            panic!(
                "{} ({e}); VH5FS_TEST_PYTHON names another",
                python.display()
            )
        });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{mode}: {stderr}");
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

static VECTORS: LazyLock<(tempfile::TempDir, Vec<Vector>)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    script("write", directory.path());
    let blob = std::fs::read(directory.path().join("vectors.bin")).unwrap();
    let index = std::fs::read(directory.path().join("vectors.json")).unwrap();
    let index: Vec<Value> = serde_json::from_slice(&index).unwrap();
    let bytes = |place: &Value| blob[number(&place[0])..][..number(&place[1])].to_vec();
    let vectors = index
        .iter()
        .map(|case| Vector {
            name: case["name"].as_str().unwrap().to_owned(),
            specs: case["filters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|filter| FilterSpec {
                    id: number(&filter[0]).try_into().unwrap(),
                    flags: number(&filter[1]).try_into().unwrap(),
                    parameters: serde_json::from_value(filter[2].clone()).unwrap(),
                })
                .collect(),
            mask: number(&case["mask"]).try_into().unwrap(),
            element_bytes: number(&case["element_bytes"]),
            stored: bytes(&case["stored"]),
            plain: bytes(&case["plain"]),
            given: bytes(
                &case[if case["given"].is_null() {
                    "plain"
                } else {
                    "given"
                }],
            ),
        })
        .collect();
    (directory, vectors)
});

#[test]
fn chunks_of_the_library_decode_to_their_bytes() {
    let mut scratch = Scratch::default();
    let mut wrong = Vec::new();
    for vector in &VECTORS.1 {
        let mut out = vec![0xa5; vector.plain.len()];
        let result =
            vector
                .pipeline()
                .decode_into(&vector.stored, vector.mask, &mut out, &mut scratch);
        if result.is_err() || out != vector.plain {
            wrong.push(format!("{}: {result:?}", vector.name));
        }
    }
    assert!(VECTORS.1.len() > 2000);
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn encoded_chunks_are_read_by_the_library() {
    let (directory, vectors) = &*VECTORS;
    let mut scratch = Scratch::default();
    let (mut index, mut blob) = (Vec::new(), Vec::new());
    let mut put = |bytes: &[u8]| {
        blob.extend_from_slice(bytes);
        json!([blob.len() - bytes.len(), bytes.len()])
    };
    for vector in vectors {
        let pipeline = vector.pipeline();
        let (stored, mask) = pipeline
            .encode(&vector.given, &mut scratch)
            .expect(&vector.name);
        let mut out = vec![0; vector.plain.len()];
        pipeline
            .decode_into(&stored, mask, &mut out, &mut scratch)
            .expect(&vector.name);
        assert_eq!(out, vector.plain, "{}", vector.name);
        // What leaves no choice is written as the library writes it, but for a last byte that it counts and never reads.
        if let [
            FilterSpec {
                id: 2 | 3 | 5 | 6, ..
            },
        ] = vector.specs[..]
        {
            let is_same = vector
                .stored
                .strip_prefix(&stored[..])
                .is_some_and(|rest| rest.len() < 2);
            assert!(is_same, "{}", vector.name);
        }
        index.push(json!({
            "name": vector.name,
            "mask": mask,
            "stored": put(&stored),
            "plain": put(&vector.plain),
        }));
    }
    std::fs::write(directory.path().join("encoded.bin"), blob).unwrap();
    std::fs::write(
        directory.path().join("encoded.json"),
        json!(index).to_string(),
    )
    .unwrap();
    script("check", directory.path());
}

/// A small generator with a fixed seed.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 8).unwrap() % n
    }
}

/// Every kind of chunk with bits flipped, bytes overwritten by extreme values, cut short and lengthened: an error or some bytes, but no
/// panic, and no buffer beyond what the chunk's length justifies.
#[test]
fn damaged_chunks_are_errors() {
    let mut noise = Noise(0x5eed);
    let mut scratch = Scratch::default();
    let mut refused = 0;
    let mut tried = 0;
    for vector in VECTORS
        .1
        .iter()
        .filter(|vector| vector.plain.len() <= 20_000)
    {
        let pipeline = vector.pipeline();
        for _ in 0..40 {
            let mut stored = vector.stored.clone();
            let at = noise.below(stored.len());
            match noise.below(6) {
                0 => stored[at] ^= 1 << noise.below(8),
                1 => stored.truncate(at),
                2 => stored[at..]
                    .iter_mut()
                    .take(4)
                    .for_each(|byte| *byte = 0xff),
                3 => stored[at..].iter_mut().take(8).for_each(|byte| *byte = 0),
                4 => {
                    // The headers are in front.
                    let at = at % stored.len().min(120);
                    stored[at] = [0x7f, 0x80, 0xff, 1][noise.below(4)];
                }
                _ => stored.extend_from_within(..at),
            }
            let mut out = vec![0; vector.plain.len()];
            let result = pipeline.decode_into(&stored, vector.mask, &mut out, &mut scratch);
            refused += usize::from(result.is_err());
            tried += 1;
        }
        let Scratch { front, back, work } = &scratch;
        let held = [
            &front,
            &back,
            &&work.padded,
            &&work.blocks[0],
            &&work.blocks[1],
        ];
        for buffer in held.into_iter().chain([&&work.blocks[2]]) {
            assert!(
                buffer.capacity() <= 16 * 20_000 + (1 << 20),
                "{}",
                vector.name
            );
        }
    }
    // Damage to bytes without a checksum goes unseen; most other damage does not.
    assert!(refused > tried / 4, "{refused} of {tried}");
}

fn spec(id: u16, parameters: &[u32]) -> FilterSpec {
    FilterSpec {
        id,
        flags: 1,
        parameters: parameters.to_vec(),
    }
}

#[test]
fn unknown_filters_are_named() {
    assert_eq!(
        Pipeline::new(&[spec(2, &[4]), spec(32013, &[])], 4, 16),
        Err(CodecError::UnknownFilter {
            id: 32013,
            name: "zfp"
        })
    );
    assert_eq!(
        Pipeline::new(&[spec(999, &[])], 4, 16),
        Err(CodecError::UnknownFilter {
            id: 999,
            name: "unknown"
        })
    );
    assert_eq!(
        Pipeline::new(&vec![spec(3, &[]); 33], 4, 16),
        Err(CodecError::TooManySteps { steps: 33 })
    );
}

#[test]
fn lengths_that_do_not_match_are_errors() {
    let mut scratch = Scratch::default();
    let identity = Pipeline::new(&[], 4, 16).unwrap();
    assert!(identity.is_identity());
    assert_eq!(
        identity.decode_into(&[0; 12], 0, &mut [0; 16], &mut scratch),
        Err(CodecError::WrongLength {
            filter: "no filter",
            want_bytes: 16,
            got_bytes: 12
        })
    );
    assert_eq!(
        identity.decode_into(&[0; 16], 0, &mut [0; 12], &mut scratch),
        Err(CodecError::BufferLength {
            want_bytes: 16,
            got_bytes: 12
        })
    );
    let gzip = Pipeline::new(&[spec(1, &[6])], 4, 16).unwrap();
    let (short, _) = Pipeline::new(&[spec(1, &[6])], 4, 12)
        .unwrap()
        .encode(&[7; 12], &mut scratch)
        .unwrap();
    assert_eq!(
        gzip.decode_into(&short, 0, &mut [0; 16], &mut scratch),
        Err(CodecError::WrongLength {
            filter: "gzip",
            want_bytes: 16,
            got_bytes: 12
        })
    );
}

#[test]
fn a_mandatory_filter_that_does_not_shrink_is_an_error() {
    let mut lzf = spec(32000, &[4, 261, 8]);
    let raw = [3, 1, 4, 15, 92, 65, 35, 89];
    let mut scratch = Scratch::default();
    let optional = Pipeline::new(&[spec(2, &[1]), lzf.clone()], 1, 8).unwrap();
    assert_eq!(optional.encode(&raw, &mut scratch), Ok((raw.to_vec(), 2)));
    lzf.flags = 0;
    let mandatory = Pipeline::new(&[lzf], 1, 8).unwrap();
    assert_eq!(
        mandatory.encode(&raw, &mut scratch),
        Err(CodecError::DoesNotShrink { filter: "lzf" })
    );
}

#[test]
fn what_cannot_become_a_chunk_is_refused_before_there_is_room_for_it() {
    let pipeline = |ids: &[u16]| {
        let specs: Vec<FilterSpec> = ids
            .iter()
            .map(|&id| FilterSpec {
                id,
                parameters: Vec::new(),
                flags: 0,
            })
            .collect();
        Pipeline::new(&specs, 4, 1 << 30).unwrap()
    };
    let refused = |pipeline: &Pipeline, stored_bytes, mask| {
        matches!(
            pipeline.check_stored(stored_bytes, mask),
            Err(CodecError::StoredLength { .. })
        )
    };
    let plain = pipeline(&[]);
    assert!(refused(&plain, (1 << 30) - 1, 0) && refused(&plain, (1 << 30) + 1, 0));
    assert!(!refused(&plain, 1 << 30, 0));
    let gzip = pipeline(&[2, 1, 3]);
    assert!(refused(&gzip, 1_000_000, 0));
    assert!(!refused(&gzip, 1_100_000, 0));
    // Without gzip, and without any filter.
    assert!(refused(&gzip, 1_100_000, 0b010));
    assert!(refused(&gzip, (1 << 30) + 4, 0b111));
    assert!(!refused(&gzip, 1 << 30, 0b111));
}

/// The longest runs that there are.
#[test]
fn equal_bytes_are_not_refused_however_well_they_compress() {
    let raw = vec![7; 8 << 20];
    for id in [1, 307, 32000, 32001, 32004, 32015, 32026] {
        let spec = FilterSpec {
            id,
            parameters: Vec::new(),
            flags: 0,
        };
        let pipeline = Pipeline::new(&[spec], 1, raw.len()).unwrap();
        let mut scratch = Scratch::default();
        let (stored, mask) = match pipeline.encode(&raw, &mut scratch) {
            Ok(stored) => stored,
            Err(CodecError::EncodeUnsupported { .. }) => continue,
            Err(error) => panic!("{id}: {error}"),
        };
        pipeline.check_stored(stored.len() as u64, mask).unwrap();
    }
}
