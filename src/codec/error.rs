//! Why a chunk could not be decoded or encoded.

/// What is wrong with a pipeline, with a chunk's stored bytes, or with a request. `filter` is the filter's short name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The pipeline has a step that is not implemented.
    #[error("filter {id} ({name}) is not supported")]
    UnknownFilter {
        /// The registered number.
        id: u16,
        /// The registered name, or "unknown".
        name: &'static str,
    },
    /// A filter of this kind is known, but not with these parameters.
    #[error("filter {filter}: {what} is not supported")]
    UnsupportedForm {
        /// The filter.
        filter: &'static str,
        /// What it would have to do.
        what: &'static str,
    },
    /// The parameters that the dataset gives are impossible.
    #[error("filter {filter}: bad parameters: {what}")]
    BadParameters {
        /// The filter.
        filter: &'static str,
        /// Which, and why.
        what: &'static str,
    },
    /// More steps than a filter mask has bits.
    #[error("a pipeline of {steps} filters (32 is the most)")]
    TooManySteps {
        /// How many there are.
        steps: usize,
    },
    /// The stored bytes are not what the filter writes.
    #[error("filter {filter}: damaged data: {what}")]
    Corrupt {
        /// The filter.
        filter: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The checksum at the end of the stored bytes is another one.
    #[error("filter fletcher32: stored checksum {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// As stored.
        stored: u32,
        /// Of the bytes that are there.
        computed: u32,
    },
    /// A step, or the stored bytes without any step, gave another number of bytes than the chunk has.
    #[error("{filter} gave {got_bytes} bytes where the chunk needs {want_bytes}")]
    WrongLength {
        /// The filter; "no filter" where none was applied.
        filter: &'static str,
        /// What the chunk needs.
        want_bytes: usize,
        /// What came out.
        got_bytes: usize,
    },
    /// Fewer bytes than the filters can make so much of, or another number where nothing was done to a chunk.
    #[error("{stored_bytes} stored bytes cannot be a chunk of {chunk_bytes}")]
    StoredLength {
        /// How many are stored.
        stored_bytes: u64,
        /// The chunk's length.
        chunk_bytes: u64,
    },
    /// The caller's buffer is not one chunk long.
    #[error("a buffer of {got_bytes} bytes for a chunk of {want_bytes}")]
    BufferLength {
        /// The chunk's length.
        want_bytes: usize,
        /// The buffer's.
        got_bytes: usize,
    },
    /// The filter can be decoded but not encoded.
    #[error("filter {filter} cannot be written: {what}")]
    EncodeUnsupported {
        /// The filter.
        filter: &'static str,
        /// Which form of it.
        what: &'static str,
    },
    /// A filter that must be applied has no encoding of these bytes that is short enough to be stored.
    #[error("filter {filter} is not optional, and does not make this chunk smaller")]
    DoesNotShrink {
        /// The filter.
        filter: &'static str,
    },
}

impl CodecError {
    /// Shorthand for [`CodecError::Corrupt`], curried for `ok_or_else` and `map_err`.
    pub(super) fn corrupt(filter: &'static str, what: &'static str) -> Self {
        Self::Corrupt { filter, what }
    }
}
