//! The general-purpose compressors, each behind two functions: into a buffer of known length, and onto a vector.
//!
//! None of them can write beyond the buffer, and none allocates by what the compressed bytes claim.

use super::CodecError;

/// Decompressors that are costly to make and are kept between chunks.
#[derive(Default)]
pub(super) struct Engines {
    inflater: Option<libdeflater::Decompressor>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Engines {
    /// Inflates a zlib stream (RFC 1950), and verifies its Adler-32. Gives the number of bytes written.
    pub(super) fn inflate(
        &mut self,
        filter: &'static str,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, CodecError> {
        use libdeflater::DecompressionError::{BadData, InsufficientSpace};
        let inflater = self.inflater.get_or_insert_default();
        inflater
            .zlib_decompress(input, output)
            .map_err(|e| match e {
                BadData => CodecError::corrupt(filter, "not a whole zlib stream"),
                InsufficientSpace => CodecError::corrupt(filter, "inflates to more than the chunk"),
            })
    }

    /// Decompresses Zstandard frames (RFC 8878). Gives the number of bytes written.
    pub(super) fn unzstd(
        &mut self,
        filter: &'static str,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, CodecError> {
        let bad = |_| CodecError::corrupt(filter, "not a Zstandard frame of the chunk's length");
        let engine = match &mut self.zstd {
            Some(engine) => engine,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(bad)?),
        };
        engine.decompress_to_buffer(input, output).map_err(bad)
    }
}

/// Decompresses one LZ4 block. Gives the number of bytes written.
pub(super) fn unlz4(
    filter: &'static str,
    input: &[u8],
    output: &mut [u8],
) -> Result<usize, CodecError> {
    lz4_flex::block::decompress_into(input, output)
        .map_err(|_| CodecError::corrupt(filter, "not an LZ4 block of the expected length"))
}

/// Decompresses one bzip2 stream; what follows it is ignored. Gives the number of bytes written.
pub(super) fn unbzip2(input: &[u8], output: &mut [u8]) -> Result<usize, CodecError> {
    let mut engine = bzip2::Decompress::new(false);
    let taken = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    loop {
        let (read, written) = (engine.total_in(), engine.total_out());
        let status = engine.decompress(
            input.get(taken(read)..).unwrap_or_default(),
            output.get_mut(taken(written)..).unwrap_or_default(),
        );
        match status {
            Ok(bzip2::Status::StreamEnd) => return Ok(taken(engine.total_out())),
            Ok(_) if (engine.total_in(), engine.total_out()) != (read, written) => {}
            _ => {
                let what = "not a whole bzip2 stream of the chunk's length";
                return Err(CodecError::corrupt("bzip2", what));
            }
        }
    }
}

/// Appends `input` as a zlib stream of `level` 0 to 9.
pub(super) fn deflate(level: u32, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
    let failed = CodecError::EncodeUnsupported {
        filter: "gzip",
        what: "the compressor failed",
    };
    let level = i32::try_from(level)
        .ok()
        .and_then(|level| libdeflater::CompressionLvl::new(level).ok())
        .ok_or_else(|| failed.clone())?;
    let mut engine = libdeflater::Compressor::new(level);
    let start = output.len();
    output.resize(start + engine.zlib_compress_bound(input.len()), 0);
    let len = engine
        .zlib_compress(input, &mut output[start..])
        .map_err(|_| failed)?;
    output.truncate(start + len);
    Ok(())
}

/// Appends `input` as one Zstandard frame that states its length.
pub(super) fn zstd(level: i32, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
    let frame = zstd::bulk::compress(input, level).map_err(|_| CodecError::EncodeUnsupported {
        filter: "zstd",
        what: "the compressor failed",
    })?;
    output.extend_from_slice(&frame);
    Ok(())
}

/// Appends `input` as one LZ4 block.
pub(super) fn lz4(input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = output.len();
    output.resize(
        start + lz4_flex::block::get_maximum_output_size(input.len()),
        0,
    );
    let len = lz4_flex::block::compress_into(input, &mut output[start..]).map_err(|_| {
        CodecError::EncodeUnsupported {
            filter: "lz4",
            what: "the compressor failed",
        }
    })?;
    output.truncate(start + len);
    Ok(())
}

/// Appends `input` as one bzip2 stream with blocks of `block_100k` (1 to 9) times 100,000 bytes.
pub(super) fn bzip2(block_100k: u32, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut engine = bzip2::Compress::new(bzip2::Compression::new(block_100k), 0);
    // The most that bzip2 can need, by its manual.
    output.reserve(input.len() + input.len() / 100 + 600);
    let mut rest = input;
    loop {
        let before = engine.total_in();
        let status = engine.compress_vec(rest, output, bzip2::Action::Finish);
        let read = usize::try_from(engine.total_in() - before).unwrap_or(rest.len());
        rest = rest.get(read..).unwrap_or_default();
        match status {
            Ok(bzip2::Status::StreamEnd) => return Ok(()),
            Ok(_) if output.len() < output.capacity() => {}
            _ => {
                return Err(CodecError::EncodeUnsupported {
                    filter: "bzip2",
                    what: "the compressor failed",
                });
            }
        }
    }
}
