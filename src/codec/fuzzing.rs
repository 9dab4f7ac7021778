//! The filters, as fuzz targets; see [`crate::fuzzing`].
//!
//! An input is the filter's parameters and the chunk's length, and then stored bytes, which are decoded, and taken for a chunk, which is
//! encoded and decoded again.

use super::{CodecError, FilterSpec, Pipeline, Scratch};
use crate::fuzzing::Input;

/// Parameters that a filter has at the most.
const MAX_PARAMETERS: u8 = 24;
/// Filters of a pipeline.
const MAX_STEPS: u8 = 4;
/// Those that decode to exactly what was encoded, whatever their parameters.
const LOSSLESS: [u16; 11] = [1, 2, 3, 4, 307, 32000, 32001, 32004, 32008, 32015, 32026];
/// Those that do not: bits beyond a precision, digits beyond a scale.
const LOSSY: [u16; 2] = [5, 6];

fn parameters(input: &mut Input<'_>) -> Vec<u32> {
    let count = input.u8() % (MAX_PARAMETERS + 1);
    (0..count).map(|_| input.u32()).collect()
}

fn check(specs: &[FilterSpec], mut input: Input<'_>) {
    let element_bytes = usize::from(input.u8()).max(1);
    let chunk_bytes = usize::from(input.u16());
    let mask = u32::from(input.u8());
    let Ok(pipeline) = Pipeline::new(specs, element_bytes, chunk_bytes) else {
        return;
    };
    let mut scratch = Scratch::default();
    let mut decoded = vec![0; chunk_bytes];
    let stored = input.rest();
    if pipeline
        .decode_into(stored, mask, &mut decoded, &mut scratch)
        .is_ok()
    {
        let is_fair = pipeline.check_stored(stored.len() as u64, mask);
        is_fair.expect("what can be decoded is not refused");
        encode_and_decode(&pipeline, specs, &decoded, &mut scratch);
    }
    let mut raw = stored.to_vec();
    raw.resize(chunk_bytes, 0);
    encode_and_decode(&pipeline, specs, &raw, &mut scratch);
}

fn encode_and_decode(pipeline: &Pipeline, specs: &[FilterSpec], raw: &[u8], scratch: &mut Scratch) {
    let (stored, mask) = match pipeline.encode(raw, scratch) {
        Ok(stored) => stored,
        Err(CodecError::BufferLength { .. }) => panic!("it is one chunk long"),
        Err(_) => return,
    };
    let is_fair = pipeline.check_stored(stored.len() as u64, mask);
    is_fair.expect("what was encoded is not refused");
    let mut again = vec![0; raw.len()];
    let decoded = pipeline.decode_into(&stored, mask, &mut again, scratch);
    decoded.expect("what was encoded is decoded");
    if specs.iter().all(is_lossless) {
        assert_eq!(again, raw);
    }
}

fn is_lossless(spec: &FilterSpec) -> bool {
    // Szip keeps as many bits of a sample as its third parameter says.
    let keeps_all = spec.id != 4 || matches!(spec.parameters.get(2), Some(8 | 16 | 32 | 64));
    LOSSLESS.contains(&spec.id) && keeps_all
}

fn one(id: u16, bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let spec = FilterSpec {
        id,
        flags: 1,
        parameters: parameters(&mut input),
    };
    check(&[spec], input);
}

pub(crate) fn gzip(bytes: &[u8]) {
    one(1, bytes);
}

pub(crate) fn shuffle(bytes: &[u8]) {
    one(2, bytes);
}

pub(crate) fn fletcher32(bytes: &[u8]) {
    one(3, bytes);
}

pub(crate) fn szip(bytes: &[u8]) {
    one(4, bytes);
}

pub(crate) fn nbit(bytes: &[u8]) {
    one(5, bytes);
}

pub(crate) fn scaleoffset(bytes: &[u8]) {
    one(6, bytes);
}

pub(crate) fn bzip2(bytes: &[u8]) {
    one(307, bytes);
}

pub(crate) fn lzf(bytes: &[u8]) {
    one(32000, bytes);
}

pub(crate) fn blosc(bytes: &[u8]) {
    one(32001, bytes);
}

pub(crate) fn lz4(bytes: &[u8]) {
    one(32004, bytes);
}

pub(crate) fn bitshuffle(bytes: &[u8]) {
    one(32008, bytes);
}

pub(crate) fn zstd(bytes: &[u8]) {
    one(32015, bytes);
}

pub(crate) fn blosc2(bytes: &[u8]) {
    one(32026, bytes);
}

/// Several filters: their number, and for each which one it is and its parameters.
pub(crate) fn pipeline(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let steps = input.u8() % (MAX_STEPS + 1);
    let known: Vec<u16> = LOSSLESS.iter().chain(&LOSSY).copied().collect();
    let specs: Vec<FilterSpec> = (0..steps)
        .map(|_| FilterSpec {
            id: known[usize::from(input.u8()) % known.len()],
            flags: u16::from(input.u8()),
            parameters: parameters(&mut input),
        })
        .collect();
    check(&specs, input);
}

/// For each filter, its number and parameters with which a chunk of 64 numbers of 8 bytes is stored.
#[cfg(test)]
const USUAL: [(&str, u16, &[u32]); 16] = [
    ("filter_gzip", 1, &[6]),
    ("filter_shuffle", 2, &[8]),
    ("filter_fletcher32", 3, &[]),
    ("filter_szip", 4, &[141, 16, 64, 256]),
    ("filter_szip", 4, &[133, 32, 64, 64]),
    ("filter_nbit", 5, &[8, 0, 64, 1, 8, 0, 40, 4]),
    (
        "filter_scaleoffset",
        6,
        &[2, 0, 64, 0, 8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    ("filter_bzip2", 307, &[9]),
    ("filter_lzf", 32000, &[4, 261, 512]),
    ("filter_blosc", 32001, &[2, 2, 8, 512, 5, 1, 0]),
    ("filter_blosc", 32001, &[2, 2, 8, 512, 5, 2, 1]),
    ("filter_lz4", 32004, &[0]),
    ("filter_bitshuffle", 32008, &[0, 4, 8, 0, 2]),
    ("filter_bitshuffle", 32008, &[0, 4, 8, 0, 0]),
    ("filter_zstd", 32015, &[3]),
    ("filter_blosc2", 32026, &[1, 1, 8, 512, 5, 1, 5]),
];

/// An input for each filter: 64 numbers of 8 bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let raw: Vec<u8> = (0..64u64)
        .flat_map(|n| (n * n % 97).to_le_bytes())
        .collect();
    let stored = |id, parameters: &[u32]| {
        let spec = FilterSpec {
            id,
            flags: 1,
            parameters: parameters.to_vec(),
        };
        let pipeline = Pipeline::new(&[spec], 8, raw.len()).ok()?;
        Some(pipeline.encode(&raw, &mut Scratch::default()).ok()?.0)
    };
    let mut seeds = Vec::new();
    for (target, id, parameters) in USUAL {
        let count = u8::try_from(parameters.len()).unwrap_or(MAX_PARAMETERS);
        let mut head = vec![count];
        head.extend(
            parameters
                .iter()
                .flat_map(|parameter| parameter.to_le_bytes()),
        );
        let chunk = [
            &[8, 0, 2, 0],
            &stored(id, parameters).unwrap_or_default()[..],
        ]
        .concat();
        seeds.push((target, [&head[..], &chunk].concat()));
        let number = LOSSLESS.iter().chain(&LOSSY).position(|known| *known == id);
        let number = u8::try_from(number.unwrap_or(0)).unwrap_or(0);
        seeds.push((
            "filter_pipeline",
            [&[1, number, 1], &head[..], &chunk].concat(),
        ));
    }
    seeds
}
