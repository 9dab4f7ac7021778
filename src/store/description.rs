//! What a user says of an array, as text: its type, shape, chunks, fill value and filters. The inverse of how these are shown.
//!
//! Everything here is a pure function of the text, so that it can be said early what is wrong with it.

mod dtype_text;
mod filter_text;

pub use dtype_text::parse_datatype;
pub(super) use dtype_text::{boolean, datatype_of, float, integer, vlen_string};
pub use filter_text::{complete_filters, parse_filters};

use std::borrow::Cow;

use super::literal::{self, Literal};
use super::typed_value::bytes_of_text;
use crate::h5::Datatype;

/// About how long a chunk is that nobody described, in several dimensions.
const USUAL_CHUNK_BYTES: u64 = 1 << 20;
/// How many elements it has in one dimension, as versioned-hdf5 has it.
const USUAL_CHUNK_LEN: u64 = 4096;
/// The longest chunk that HDF5 can store is one byte shorter than this.
const CHUNK_LIMIT_BYTES: u64 = 1 << 32;
/// As many axes as HDF5 knows.
const MAX_RANK: usize = 32;

/// Why text does not describe an array that can be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// Neither JSON nor a Python literal.
    #[error("the {what} \"{text}\" cannot be read: {problem}")]
    Unreadable {
        /// Type, shape, chunks or filters.
        what: &'static str,
        /// The text, or its beginning.
        text: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A type that NumPy does not have, or that cannot be stored.
    #[error("the type {descr} cannot be stored: {problem}")]
    Datatype {
        /// As it was given.
        descr: String,
        /// Why not.
        problem: &'static str,
    },
    /// A shape that no array has.
    #[error("the {what} {shape:?} cannot be: {problem}")]
    Shape {
        /// Shape or chunks.
        what: &'static str,
        /// As it was given.
        shape: Vec<u64>,
        /// Why not.
        problem: &'static str,
    },
    /// An array of several dimensions whose shape nobody said.
    #[error(
        "it has several dimensions: set user.h5.shape to say how long the axes behind the first are"
    )]
    ShapeMissing,
    /// A fill value that is no value of the type.
    #[error("the fill value \"{text}\" is not a value of its type")]
    FillValue {
        /// As it was given.
        text: String,
    },
    /// Strings of variable length have no fill value but the empty string.
    #[error("strings of variable length have no fill value but the empty one")]
    TextFillValue,
    /// A filter that is not known.
    #[error("there is no filter {filter}")]
    UnknownFilter {
        /// Its name or number.
        filter: String,
    },
    /// A filter whose parameters are not those of one.
    #[error("the filter {filter}: {problem}")]
    FilterParameters {
        /// Its name.
        filter: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Elements along each axis, slowest first: `[3, 4]`, `(3, 4)`, `(3,)` or `3`.
///
/// # Errors
/// [`DescriptionError::Unreadable`], [`DescriptionError::Shape`].
pub fn parse_shape(text: &[u8]) -> Result<Vec<u64>, DescriptionError> {
    let shape = parse_extents("shape", text)?;
    check_extents("shape", &shape)?;
    Ok(shape)
}

/// The shape of a chunk, in elements, none of which is 0.
///
/// # Errors
/// As for [`parse_shape`].
pub fn parse_chunk_shape(text: &[u8]) -> Result<Vec<u64>, DescriptionError> {
    let shape = parse_extents("chunk shape", text)?;
    check_extents("chunk shape", &shape)?;
    if shape.contains(&0) {
        return Err(DescriptionError::Shape {
            what: "chunk shape",
            shape,
            problem: "a chunk has at least one element",
        });
    }
    Ok(shape)
}

fn parse_extents(what: &'static str, text: &[u8]) -> Result<Vec<u64>, DescriptionError> {
    let value = literal::parse_python(text).map_err(|problem| unreadable(what, text, problem))?;
    let one = |value: &Literal| {
        value
            .as_u64()
            .ok_or_else(|| unreadable(what, text, "it is not a list of whole numbers"))
    };
    match &value {
        Literal::List(axes) => axes.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

fn check_extents(what: &'static str, shape: &[u64]) -> Result<(), DescriptionError> {
    let problem = if shape.is_empty() {
        "a versioned file holds no arrays without axes"
    } else if shape.len() > MAX_RANK {
        "it has more than 32 axes"
    } else if shape
        .iter()
        .try_fold(1u64, |n, &extent| n.checked_mul(extent))
        .is_none_or(|n| i64::try_from(n).is_err())
    {
        "no file is that long"
    } else {
        return Ok(());
    };
    Err(DescriptionError::Shape {
        what,
        shape: shape.to_vec(),
        problem,
    })
}

/// The bytes of one element of `datatype` that an attribute would show as `text`; `None` for a string of variable length, which
/// must be empty.
///
/// # Errors
/// [`DescriptionError::FillValue`], [`DescriptionError::TextFillValue`].
pub fn parse_fill_value(
    text: &[u8],
    datatype: &Datatype,
) -> Result<Option<Vec<u8>>, DescriptionError> {
    if datatype.contains_pointers() {
        return if matches!(text, b"" | b"0" | b"\"\"" | b"''") {
            Ok(None)
        } else {
            Err(DescriptionError::TextFillValue)
        };
    }
    bytes_of_text(text, datatype)
        .map(Some)
        .ok_or_else(|| DescriptionError::FillValue {
            text: beginning(text).into_owned(),
        })
}

/// The chunks of an array of `shape` whose elements have `element_bytes`, where nobody said: 4096 elements in one dimension; in
/// several, a box of about 1 MiB that has the proportions of the shape.
#[must_use]
pub fn default_chunk_shape(shape: &[u64], element_bytes: u64) -> Vec<u64> {
    if shape.len() <= 1 {
        return vec![
            USUAL_CHUNK_LEN
                .min((CHUNK_LIMIT_BYTES - 1) / element_bytes.max(1))
                .max(1),
        ];
    }
    let mut chunk: Vec<u64> = shape.iter().map(|&extent| extent.max(1)).collect();
    let len_bytes = |chunk: &[u64]| {
        chunk
            .iter()
            .fold(element_bytes.max(1), |n, &extent| n.saturating_mul(extent))
    };
    // Halving the longest axis keeps the proportions until they are nearly a cube.
    while len_bytes(&chunk) > USUAL_CHUNK_BYTES {
        let Some(longest) = chunk.iter_mut().max().filter(|extent| **extent > 1) else {
            break;
        };
        *longest = longest.div_ceil(2);
    }
    chunk
}

/// Whether chunks of `chunk_shape` can be stored.
///
/// # Errors
/// [`DescriptionError::Shape`].
pub fn check_chunks(
    shape: &[u64],
    chunk_shape: &[u64],
    element_bytes: u64,
) -> Result<(), DescriptionError> {
    let len_bytes = chunk_shape
        .iter()
        .try_fold(element_bytes, |n, &extent| n.checked_mul(extent));
    let problem = if shape.len() != chunk_shape.len() {
        "it has another number of axes than the array"
    } else if len_bytes.is_none_or(|n| n >= CHUNK_LIMIT_BYTES) {
        "HDF5 stores chunks of less than 4 GiB"
    } else {
        return Ok(());
    };
    Err(DescriptionError::Shape {
        what: "chunk shape",
        shape: chunk_shape.to_vec(),
        problem,
    })
}

fn unreadable(what: &'static str, text: &[u8], problem: &'static str) -> DescriptionError {
    DescriptionError::Unreadable {
        what,
        text: beginning(text).into_owned(),
        problem,
    }
}

/// As much of a text as a message can carry.
fn beginning(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&text[..text.len().min(80)])
}
