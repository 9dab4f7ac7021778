//! Filter pipelines: from the bytes of a stored chunk to its elements, and back.
//!
//! A chunk is stored after each filter of its dataset was applied in order; bit `n` of its filter mask says that filter `n` was left out. A
//! [`Pipeline`] is made, and its parameters checked, once per dataset, and then decodes chunks from any thread.
//!
//! Stored bytes are hostile: each decoder writes into a buffer of the length that the chunk has, and nothing that is
//! stored makes it take memory beyond that and a bounded overhead. What does not decode to exactly that length is an error.
//!
//! Filters and their parameters are those of the HDF Group's registry of filters and of the C library's and the plugins'
//! sources. Nothing here knows where chunks come from.

mod bits;
mod bitshuffle;
mod blosc;
mod blosc2;
mod blosc_write;
mod engines;
mod error;
mod fletcher32;
mod lz;
mod lz4;
mod nbit;
mod scaleoffset;
mod shuffle;
mod szip;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

pub use error::CodecError;

use bitshuffle::Bitshuffle;
use blosc_write::Blosc;
use engines::Engines;
use nbit::Nbit;
use scaleoffset::ScaleOffset;
use szip::Szip;

/// One filter as the dataset gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FilterSpec {
    /// The registered number.
    pub id: u16,
    /// Bit 0: the filter is optional, so a chunk may be stored without it.
    pub flags: u16,
    /// The filter's own parameters.
    pub parameters: Vec<u32>,
}

/// The filters of one dataset, ready to use.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    steps: Vec<Step>,
    chunk_bytes: usize,
}

/// One filter of a pipeline.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    kind: Kind,
    /// The filter's short name.
    name: &'static str,
    /// Whether a chunk that it does not make smaller is stored without it.
    is_optional: bool,
}

/// A filter with its parameters.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Gzip { level: u32 },
    Shuffle { element_bytes: usize },
    Fletcher32,
    Szip(Szip),
    Nbit(Nbit),
    ScaleOffset(ScaleOffset),
    Bzip2 { block_100k: u32 },
    Lzf,
    Blosc(Blosc),
    Lz4 { block_bytes: usize },
    Bitshuffle(Bitshuffle),
    Zstd { level: i32 },
    Blosc2(Blosc),
}

/// Buffers and decompressors that are kept from chunk to chunk. One per thread.
#[derive(Default)]
pub struct Scratch {
    /// What the last step gave.
    front: Vec<u8>,
    /// What the next one writes.
    back: Vec<u8>,
    work: Workspace,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch")
            .field("front_bytes", &self.front.len())
            .field("back_bytes", &self.back.len())
            .finish_non_exhaustive()
    }
}

/// What filters work with.
#[derive(Default)]
struct Workspace {
    engines: Engines,
    /// Blocks of a chunk between two transformations.
    blocks: [Vec<u8>; 3],
    /// A whole chunk with padding.
    padded: Vec<u8>,
}

/// How many bytes a step of decoding gives.
#[derive(Debug, Clone, Copy)]
enum Extent {
    Exactly(usize),
    /// A compressor's output, which is to be decompressed once more.
    AtMost(usize),
}

/// The most filters that a mask has bits for, which is also HDF5's limit.
const MAX_STEPS: usize = 32;

impl Pipeline {
    /// Checks `specs`, which are in the order of encoding, for chunks of `chunk_bytes` bytes whose elements have `element_bytes`.
    ///
    /// # Errors
    /// [`CodecError::UnknownFilter`], [`CodecError::UnsupportedForm`], [`CodecError::BadParameters`], [`CodecError::TooManySteps`].
    pub fn new(
        specs: &[FilterSpec],
        element_bytes: usize,
        chunk_bytes: usize,
    ) -> Result<Self, CodecError> {
        if specs.len() > MAX_STEPS {
            return Err(CodecError::TooManySteps { steps: specs.len() });
        }
        let steps = specs
            .iter()
            .map(|spec| {
                Ok(Step {
                    kind: Kind::new(spec, element_bytes)?,
                    name: filter_name(spec.id),
                    is_optional: spec.flags & 1 != 0,
                })
            })
            .collect::<Result<_, CodecError>>()?;
        Ok(Self { steps, chunk_bytes })
    }

    /// Whether there is no filter, so that a chunk is stored as it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.steps.is_empty()
    }

    /// The length of a chunk, in bytes.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Holds that `stored_bytes` bytes, through which the filters went that `filter_mask` leaves, can be a chunk: to be asked before room for one is made.
    ///
    /// # Errors
    /// [`CodecError::StoredLength`].
    pub fn check_stored(&self, stored_bytes: u64, filter_mask: u32) -> Result<(), CodecError> {
        let active = self.active(filter_mask);
        let chunk_bytes = self.chunk_bytes as u64;
        let is_fair = if active.is_empty() {
            stored_bytes == chunk_bytes
        } else {
            // Nothing can be said of a pipeline of which nothing can be said of one filter.
            let most = active.iter().try_fold(stored_bytes, |bytes, (step, _)| {
                Some(bytes.saturating_mul(step.kind.best_ratio()?))
            });
            most.is_none_or(|most| most >= chunk_bytes)
        };
        if is_fair {
            return Ok(());
        }
        Err(CodecError::StoredLength {
            stored_bytes,
            chunk_bytes,
        })
    }

    /// Decodes `stored` into `out`, which is exactly one chunk long. Filters whose bit in `filter_mask` is set are skipped.
    ///
    /// # Errors
    /// [`CodecError::BufferLength`] where `out` has another length; anything else where `stored` is damaged, and `out` is then undefined.
    pub fn decode_into(
        &self,
        stored: &[u8],
        filter_mask: u32,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), CodecError> {
        if out.len() != self.chunk_bytes {
            return Err(CodecError::BufferLength {
                want_bytes: self.chunk_bytes,
                got_bytes: out.len(),
            });
        }
        let Scratch { front, back, work } = scratch;
        let mut active = self.active(filter_mask);
        // What is still to be decoded: `stored`, or the front buffer up to a length.
        let mut stored = stored;
        let mut decoded: Option<usize> = None;
        while let Some((step, extent)) = active.pop() {
            let input = decoded.map_or(stored, |len| &front[..len]);
            if let (Kind::Fletcher32, false) = (&step.kind, active.is_empty()) {
                let len = fletcher32::verify(input)?.len();
                extent.check(step.name, len)?;
                match &mut decoded {
                    Some(decoded) => *decoded = len,
                    None => stored = &stored[..len],
                }
                continue;
            }
            if active.is_empty() {
                let len = step.kind.decode(input, out, work)?;
                return extent.check(step.name, len);
            }
            let (Extent::Exactly(most) | Extent::AtMost(most)) = extent;
            let len = step.kind.decode(input, grown(back, most), work)?;
            extent.check(step.name, len)?;
            std::mem::swap(front, back);
            decoded = Some(len);
        }
        let len = copy("no filter", stored, out)?;
        Extent::Exactly(self.chunk_bytes).check("no filter", len)
    }

    /// The filters that `mask` leaves, in the order of encoding, each with how many bytes it was given.
    fn active(&self, mask: u32) -> Vec<(&Step, Extent)> {
        let mut extent = Extent::Exactly(self.chunk_bytes);
        let mut active = Vec::with_capacity(self.steps.len());
        for (i, step) in self.steps.iter().enumerate() {
            if mask >> i & 1 == 0 {
                active.push((step, extent));
                extent = step.kind.encoded_extent(extent);
            }
        }
        active
    }

    /// Encodes one chunk. Gives the bytes to store, and the mask of the filters that were left out since they are optional and do
    /// not apply to these bytes or do not make them smaller.
    ///
    /// # Errors
    /// [`CodecError::BufferLength`] where `raw` is not one chunk; [`CodecError::EncodeUnsupported`], and
    /// [`CodecError::DoesNotShrink`] for a filter that is not optional.
    pub fn encode(&self, raw: &[u8], scratch: &mut Scratch) -> Result<(Vec<u8>, u32), CodecError> {
        if raw.len() != self.chunk_bytes {
            return Err(CodecError::BufferLength {
                want_bytes: self.chunk_bytes,
                got_bytes: raw.len(),
            });
        }
        let mut data = raw.to_vec();
        let mut mask = 0;
        for (i, step) in self.steps.iter().enumerate() {
            let mut encoded = Vec::with_capacity(data.len());
            let applied = step.kind.encode(&data, &mut encoded, &mut scratch.work)?;
            match applied {
                Some(()) => data = encoded,
                None if step.is_optional => mask |= 1 << i,
                None => return Err(CodecError::DoesNotShrink { filter: step.name }),
            }
        }
        Ok((data, mask))
    }
}

impl Extent {
    fn check(self, filter: &'static str, got_bytes: usize) -> Result<(), CodecError> {
        match self {
            Self::Exactly(want_bytes) if want_bytes != got_bytes => Err(CodecError::WrongLength {
                filter,
                want_bytes,
                got_bytes,
            }),
            _ => Ok(()),
        }
    }
}

impl Kind {
    fn new(spec: &FilterSpec, element_bytes: usize) -> Result<Self, CodecError> {
        let name = filter_name(spec.id);
        let parameters = &spec.parameters[..];
        let first = parameters.first().copied();
        let size = |n: u32| {
            usize::try_from(n).map_err(|_| CodecError::BadParameters {
                filter: name,
                what: "an absurd size",
            })
        };
        Ok(match spec.id {
            1 => Self::Gzip {
                level: first.unwrap_or(6).min(9),
            },
            2 => Self::Shuffle {
                element_bytes: first.map_or(Ok(element_bytes), size)?,
            },
            3 => Self::Fletcher32,
            4 => Self::Szip(Szip::new(parameters)?),
            5 => Self::Nbit(Nbit::new(parameters)?),
            6 => Self::ScaleOffset(ScaleOffset::new(parameters)?),
            307 => Self::Bzip2 {
                block_100k: first.unwrap_or(9).clamp(1, 9),
            },
            32000 => Self::Lzf,
            32001 => Self::Blosc(Blosc::new(name, parameters)),
            32004 => Self::Lz4 {
                block_bytes: size(first.unwrap_or(0))?,
            },
            32008 => Self::Bitshuffle(Bitshuffle::new(parameters)?),
            32015 => Self::Zstd {
                level: first.map_or(3, |level| level.cast_signed().clamp(1, 22)),
            },
            32026 => Self::Blosc2(Blosc::new(name, parameters)),
            id => return Err(CodecError::UnknownFilter { id, name }),
        })
    }

    /// How many bytes the filter makes of that many.
    fn encoded_extent(&self, given: Extent) -> Extent {
        let map = |change: fn(usize) -> usize| match given {
            Extent::Exactly(n) => Extent::Exactly(change(n)),
            Extent::AtMost(n) => Extent::AtMost(change(n)),
        };
        match self {
            Self::Shuffle { .. } => given,
            Self::Fletcher32 => map(|n| n.saturating_add(fletcher32::LEN_BYTES)),
            _ => {
                // No compressor makes its input this much longer.
                let (Extent::Exactly(n) | Extent::AtMost(n)) = given;
                Extent::AtMost(n.saturating_mul(2).saturating_add(1 << 16))
            }
        }
    }

    /// At most how many bytes one stored byte becomes; `None` where the filter stores one element for however many that are equal.
    fn best_ratio(&self) -> Option<u64> {
        match self {
            Self::Shuffle { .. } | Self::Fletcher32 => Some(1),
            // 258 bytes in 2 bits (RFC 1951).
            Self::Gzip { .. } => Some(1032),
            // 264 bytes in 3.
            Self::Lzf => Some(88),
            // 255 in each further byte of a length.
            Self::Lz4 { .. } => Some(255),
            // A block of 128 KiB in its header and one byte (RFC 8878); other formats that these can hold make less of a byte.
            Self::Zstd { .. } | Self::Bitshuffle(_) => Some(1 << 15),
            // 45.9 million equal bytes are a block, which takes more than 22.
            Self::Bzip2 { .. } => Some(1 << 21),
            // 64 blocks of 32 samples of 4 bytes in less than a byte.
            Self::Szip(_) => Some(1 << 14),
            Self::Nbit(_) | Self::ScaleOffset(_) | Self::Blosc(_) | Self::Blosc2(_) => None,
        }
    }

    /// Decodes `input` into the front of `output`, and gives the number of bytes written.
    fn decode(
        &self,
        input: &[u8],
        output: &mut [u8],
        work: &mut Workspace,
    ) -> Result<usize, CodecError> {
        match self {
            Self::Gzip { .. } => work.engines.inflate("gzip", input, output),
            Self::Shuffle { element_bytes } => {
                let output = output.get_mut(..input.len()).ok_or(too_long("shuffle"))?;
                shuffle::unshuffle(*element_bytes, input, output);
                Ok(input.len())
            }
            Self::Fletcher32 => copy("fletcher32", fletcher32::verify(input)?, output),
            Self::Szip(szip) => szip.decode(input, output, work),
            Self::Nbit(nbit) => nbit.decode(input, output),
            Self::ScaleOffset(scale) => scale.decode(input, output),
            Self::Bzip2 { .. } => engines::unbzip2(input, output),
            Self::Lzf => lz::decode_lzf(input, output),
            Self::Blosc(_) => blosc::decode_chunk("blosc", input, output, work),
            Self::Lz4 { .. } => lz4::decode(input, output),
            Self::Bitshuffle(bitshuffle) => bitshuffle.decode(input, output, work),
            Self::Zstd { .. } => work.engines.unzstd("zstd", input, output),
            Self::Blosc2(_) => blosc2::decode(input, output, work),
        }
    }

    /// Appends `input`, encoded, to `output`; `Ok(None)` where the filter does not apply to it, or not with profit.
    fn encode(
        &self,
        input: &[u8],
        output: &mut Vec<u8>,
        work: &mut Workspace,
    ) -> Result<Option<()>, CodecError> {
        match self {
            Self::Gzip { level } => engines::deflate(*level, input, output)?,
            Self::Shuffle { element_bytes } => {
                output.resize(input.len(), 0);
                shuffle::shuffle(*element_bytes, input, output);
            }
            Self::Fletcher32 => fletcher32::encode(input, output),
            Self::Szip(szip) => return Ok(szip.encode(input, output, work)),
            Self::Nbit(nbit) => return Ok(nbit.encode(input, output)),
            Self::ScaleOffset(scale) => return Ok(scale.encode(input, output)),
            Self::Bzip2 { block_100k } => engines::bzip2(*block_100k, input, output)?,
            Self::Lzf => return Ok(lz::encode_lzf(input, output)),
            Self::Blosc(blosc) => return blosc.encode_chunk("blosc", false, input, output, work),
            Self::Lz4 { block_bytes } => lz4::encode(*block_bytes, input, output)?,
            Self::Bitshuffle(bitshuffle) => bitshuffle.encode(input, output, work)?,
            Self::Zstd { level } => engines::zstd(*level, input, output)?,
            Self::Blosc2(blosc) => return blosc2::encode(blosc, input, output, work),
        }
        Ok(Some(()))
    }
}

fn too_long(filter: &'static str) -> CodecError {
    CodecError::corrupt(filter, "longer than the chunk")
}

/// Copies `input` to the front of `output`, and gives its length.
fn copy(filter: &'static str, input: &[u8], output: &mut [u8]) -> Result<usize, CodecError> {
    let output = output.get_mut(..input.len()).ok_or(too_long(filter))?;
    output.copy_from_slice(input);
    Ok(input.len())
}

/// The low half of a number.
fn low_half(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The first `len` bytes of a buffer that only grows; what was in it is gone then. Memory is taken as it is written to.
fn grown(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        *buffer = Vec::new();
        *buffer = vec![0; len];
    }
    &mut buffer[..len]
}

/// The short name of a registered filter (HDF Group, "Registered Filter Plugins"), or "unknown".
#[must_use]
pub fn filter_name(id: u16) -> &'static str {
    match id {
        1 => "gzip",
        2 => "shuffle",
        3 => "fletcher32",
        4 => "szip",
        5 => "nbit",
        6 => "scaleoffset",
        305 => "lzo",
        307 => "bzip2",
        32000 => "lzf",
        32001 => "blosc",
        32002 => "mafisc",
        32003 => "snappy",
        32004 => "lz4",
        32006 => "apax",
        32007 => "cbf",
        32008 => "bitshuffle",
        32009 => "spdp",
        32010 => "lpc-rice",
        32011 => "ccsds-123",
        32012 => "jpeg-ls",
        32013 => "zfp",
        32014 => "fpzip",
        32015 => "zstd",
        32016 => "b3d",
        32017 => "sz",
        32018 => "fcidecomp",
        32019 => "jpeg",
        32020 => "vbz",
        32021 => "fapec",
        32022 => "bitgroom",
        32023 => "granular-bitround",
        32024 => "sz3",
        32025 => "delta-rice",
        32026 => "blosc2",
        32027 => "flac",
        32028 => "sperr",
        32029 => "trace",
        32030 => "htj2k",
        _ => "unknown",
    }
}
