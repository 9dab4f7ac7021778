//! Filter pipelines as text, read; and the parameters that follow from type and chunk, filled in.

use super::{DescriptionError, unreadable};
use crate::codec::{FilterSpec, filter_name};
use crate::h5::{ByteOrder, Class, Datatype};
use crate::store::literal::{self, Literal};

/// Filters may be left out for a chunk that they do not make smaller; so h5py sets all but the checksum.
const OPTIONAL: u16 = 1;

const GZIP: u16 = 1;
const SHUFFLE: u16 = 2;
const FLETCHER32: u16 = 3;
const SZIP: u16 = 4;
const NBIT: u16 = 5;
const SCALEOFFSET: u16 = 6;
const LZF: u16 = 32000;
const BLOSC: u16 = 32001;
const BITSHUFFLE: u16 = 32008;
const BLOSC2: u16 = 32026;

/// The number of the LZF filter in h5py (`lzf_filter.h`), and of the library that it is made of (`lzf.h`).
const LZF_VERSIONS: [u32; 2] = [4, 0x105];
/// Parameters of scale-offset, of which only the first two are a user's (`H5Zscaleoffset.c`).
const SCALEOFFSET_PARAMETERS: usize = 20;
/// Of szip (`H5Zszip.c`, `szlib.h`).
const SZIP_LSB: u32 = 8;
const SZIP_MSB: u32 = 16;
const SZIP_RAW: u32 = 128;
const SZIP_CHIP: u32 = 2;
const SZIP_BLOCKS_PER_LINE: u32 = 128;
const SZIP_MOST_PER_LINE: u32 = 4096;

/// The filters that `text` names, in the order of encoding: a list of names (`"gzip"`), registered numbers, or objects of `name` or `id`, and
/// `parameters`, as they are shown. One filter needs no list, and its name no quotes.
///
/// Parameters that follow from type and chunk may be missing, or wrong: see [`complete_filters`].
///
/// # Errors
/// [`DescriptionError::Unreadable`], [`DescriptionError::UnknownFilter`], [`DescriptionError::FilterParameters`].
pub fn parse_filters(text: &[u8]) -> Result<Vec<FilterSpec>, DescriptionError> {
    let trimmed = text.trim_ascii();
    if trimmed.is_empty() {
        return Ok(Vec::new());
    }
    let is_name = trimmed
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let is_word = is_name && trimmed[0].is_ascii_alphabetic();
    let value = if is_word && !matches!(trimmed, b"None" | b"null") {
        Literal::Text(trimmed.to_vec())
    } else {
        literal::parse_python(trimmed).map_err(|problem| unreadable("filters", text, problem))?
    };
    match &value {
        Literal::Null => Ok(Vec::new()),
        Literal::List(filters) => filters.iter().map(|one| filter(one, text)).collect(),
        one => Ok(vec![filter(one, text)?]),
    }
}

fn filter(value: &Literal, text: &[u8]) -> Result<FilterSpec, DescriptionError> {
    let wrong = || {
        unreadable(
            "filters",
            text,
            "a filter is a name, a number, or an object of both",
        )
    };
    let (name, parameters) = match value {
        Literal::Object(_) => (
            value.get(b"id").or(value.get(b"name")).ok_or_else(wrong)?,
            value.get(b"parameters"),
        ),
        name => (name, None),
    };
    let id = match name {
        Literal::Text(_) => {
            let name = name.as_str().ok_or_else(wrong)?;
            id_of(name).ok_or_else(|| DescriptionError::UnknownFilter {
                filter: name.to_owned(),
            })?
        }
        number => number
            .as_u64()
            .and_then(|id| u16::try_from(id).ok())
            .filter(|&id| id > 0)
            .ok_or_else(wrong)?,
    };
    let parameters = match parameters {
        None | Some(Literal::Null) => Vec::new(),
        Some(Literal::List(list)) => list
            .iter()
            .map(parameter)
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        Some(one) => vec![parameter(one).ok_or_else(wrong)?],
    };
    let flags = if id == FLETCHER32 { 0 } else { OPTIONAL };
    Ok(FilterSpec {
        id,
        flags,
        parameters,
    })
}

/// A parameter; filters take some of them for numbers with a sign.
fn parameter(value: &Literal) -> Option<u32> {
    let Literal::Number(text) = value else {
        return None;
    };
    let number: i64 = text.parse().ok()?;
    u32::try_from(number)
        .ok()
        .or_else(|| i32::try_from(number).ok().map(i32::cast_unsigned))
}

/// The registered number of a name.
fn id_of(name: &str) -> Option<u16> {
    let name = name.to_ascii_lowercase();
    let name = match &name[..] {
        "deflate" | "zlib" => "gzip",
        "zstandard" => "zstd",
        name => name,
    };
    [1..=6, 305..=307, 32000..=32030]
        .into_iter()
        .flatten()
        .find(|&id| name != "unknown" && filter_name(id) == name)
}

/// The filters with all their parameters, as the C library and the plugins store them for chunks of `chunk_shape` elements of
/// `datatype`.
///
/// # Errors
/// [`DescriptionError::FilterParameters`].
pub fn complete_filters(
    filters: &[FilterSpec],
    datatype: &Datatype,
    chunk_shape: &[u64],
) -> Result<Vec<FilterSpec>, DescriptionError> {
    filters
        .iter()
        .map(|filter| {
            completed(filter, datatype, chunk_shape)
                .map(|parameters| FilterSpec {
                    parameters,
                    ..filter.clone()
                })
                .map_err(|problem| DescriptionError::FilterParameters {
                    filter: filter_name(filter.id),
                    problem,
                })
        })
        .collect()
}

fn completed(
    filter: &FilterSpec,
    datatype: &Datatype,
    chunk_shape: &[u64],
) -> Result<Vec<u32>, &'static str> {
    const TOO_LARGE: &str = "the chunk is too large for it";
    let element_bytes = u32::try_from(datatype.size).map_err(|_| TOO_LARGE)?;
    let chunk_bytes = chunk_shape
        .iter()
        .try_fold(datatype.size as u64, |n, &extent| n.checked_mul(extent))
        .and_then(|bytes| u32::try_from(bytes).ok())
        .ok_or(TOO_LARGE)?;
    let given = &filter.parameters[..];
    // What was given, and the usual for what was not.
    let with_defaults = |defaults: &[u32]| {
        let rest = defaults.get(given.len()..).unwrap_or_default();
        [given, rest].concat()
    };
    Ok(match filter.id {
        GZIP => match given {
            [] => vec![4],
            [level @ 0..=9] => vec![*level],
            _ => return Err("its level is a number from 0 to 9"),
        },
        SHUFFLE => vec![element_bytes],
        FLETCHER32 => Vec::new(),
        SZIP => szip(given, datatype, chunk_shape)?,
        NBIT | SCALEOFFSET => {
            let elements = u32::try_from(chunk_shape.iter().product::<u64>());
            let is_whole = match filter.id {
                NBIT => given.len() >= 4,
                _ => given.len() == SCALEOFFSET_PARAMETERS,
            };
            // The third parameter of both is the number of elements of a chunk.
            if !is_whole || elements != Ok(given[2]) {
                return Err(
                    "give all its parameters, as a dataset with this type and these chunks has them",
                );
            }
            given.to_vec()
        }
        LZF => vec![LZF_VERSIONS[0], LZF_VERSIONS[1], chunk_bytes],
        BLOSC | BLOSC2 => {
            let versions = if filter.id == BLOSC { [2, 2] } else { [1, 0] };
            let defaults = [versions[0], versions[1], 0, 0, 5, 1, 0];
            let mut parameters = with_defaults(&defaults);
            // The filter knows elements of up to 255 bytes.
            parameters[2] = if element_bytes > 255 {
                1
            } else {
                element_bytes
            };
            parameters[3] = chunk_bytes;
            parameters
        }
        BITSHUFFLE => {
            let mut parameters = with_defaults(&[0, 5, 0, 0, 2]);
            parameters[2] = element_bytes;
            parameters
        }
        307 if given.is_empty() => vec![9],
        32004 if given.is_empty() => vec![0],
        32015 if given.is_empty() => vec![3],
        _ => given.to_vec(),
    })
}

/// The four parameters of szip from a user's two, as `H5Z__set_local_szip` makes them.
fn szip(given: &[u32], datatype: &Datatype, chunk_shape: &[u64]) -> Result<Vec<u32>, &'static str> {
    const NN: u32 = 32;
    let (options, block) = match given {
        [] => (NN, 8),
        [options, block, ..] => (*options, *block),
        [_] => return Err("its parameters are options and the pixels of a block"),
    };
    if !(2..=32).contains(&block) || block % 2 != 0 {
        return Err("the pixels of a block are an even number up to 32");
    }
    let order = match &datatype.class {
        Class::Integer { order, .. }
        | Class::Float { order, .. }
        | Class::Bitfield { order, .. } => *order,
        Class::Enum { base, .. } => match base.class {
            Class::Integer { order, .. } => order,
            _ => return Err("it takes numbers only"),
        },
        _ => return Err("it takes numbers only"),
    };
    let order_flag = match order {
        ByteOrder::Little => SZIP_LSB,
        ByteOrder::Big => SZIP_MSB,
        ByteOrder::Vax => return Err("it takes numbers only"),
    };
    let options = options & !(SZIP_LSB | SZIP_MSB | SZIP_CHIP) | order_flag | SZIP_RAW;
    let bits = match datatype.size {
        1 => 8,
        2 => 16,
        4 => 32,
        8 => 64,
        _ => return Err("it takes numbers of up to 8 bytes only"),
    };
    let elements = u32::try_from(chunk_shape.iter().product::<u64>())
        .map_err(|_| "the chunk is too large for it")?;
    let last = u32::try_from(chunk_shape.last().copied().unwrap_or(1)).unwrap_or(u32::MAX);
    let longest = block * SZIP_BLOCKS_PER_LINE;
    let line = if last < block {
        if elements < block {
            return Err("a chunk has fewer elements than its block");
        }
        longest.min(elements)
    } else if last <= SZIP_MOST_PER_LINE {
        longest.min(last)
    } else {
        longest
    };
    Ok(vec![options, block, bits, line])
}

#[cfg(test)]
mod tests {
    use super::super::dtype_text::{float, integer};
    use super::*;

    fn parsed(text: &str) -> Vec<(u16, Vec<u32>)> {
        parse_filters(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|filter| (filter.id, filter.parameters))
            .collect()
    }

    #[test]
    fn filters_are_named_in_many_ways() {
        assert_eq!(parsed(""), []);
        assert_eq!(parsed("[]"), []);
        assert_eq!(parsed("null"), []);
        assert_eq!(parsed("gzip"), [(1, vec![])]);
        assert_eq!(parsed("\"lzf\""), [(32000, vec![])]);
        assert_eq!(
            parsed("[\"shuffle\", 'gzip', 32015]"),
            [(2, vec![]), (1, vec![]), (32015, vec![])]
        );
        assert_eq!(
            parsed("{\"name\": \"gzip\", \"parameters\": [7]}"),
            [(1, vec![7])]
        );
        assert_eq!(
            parsed(
                "[{\"id\": 2, \"name\": \"shuffle\", \"parameters\": [8]}, {\"id\": 32015, \"name\": \"zstd\", \"parameters\": [-5]}]"
            ),
            [(2, vec![8]), (32015, vec![u32::MAX - 4])]
        );
        let flags: Vec<u16> = parse_filters(b"['gzip', 'fletcher32']")
            .unwrap()
            .iter()
            .map(|filter| filter.flags)
            .collect();
        assert_eq!(flags, [1, 0]);
        for text in [
            "zip",
            "[1.5]",
            "0",
            "70000",
            "{}",
            "[[1]]",
            "{\"id\": 1, \"parameters\": [true]}",
            "unknown",
            "[",
        ] {
            assert!(parse_filters(text.as_bytes()).is_err(), "{text}");
        }
    }

    /// The numbers are those that h5py 3.16 stores.
    #[test]
    fn parameters_follow_from_type_and_chunk() {
        let whole = |text: &str, chunk: &[u64]| {
            let filters = parse_filters(text.as_bytes()).unwrap();
            complete_filters(&filters, &float(8, ByteOrder::Little), chunk)
                .map(|filters| filters[0].parameters.clone())
        };
        assert_eq!(whole("gzip", &[10]), Ok(vec![4]));
        assert_eq!(whole("{'id': 1, 'parameters': 9}", &[10]), Ok(vec![9]));
        assert!(whole("{'id': 1, 'parameters': 10}", &[10]).is_err());
        assert_eq!(whole("shuffle", &[10]), Ok(vec![8]));
        assert_eq!(whole("{'id': 2, 'parameters': [4]}", &[10]), Ok(vec![8]));
        assert_eq!(whole("lzf", &[10, 3]), Ok(vec![4, 261, 240]));
        assert_eq!(whole("blosc", &[10]), Ok(vec![2, 2, 8, 80, 5, 1, 0]));
        assert_eq!(
            whole("szip", &[10, 100]),
            Ok(vec![32 | 8 | 128, 8, 64, 100])
        );
        assert_eq!(whole("szip", &[100, 4]), Ok(vec![32 | 8 | 128, 8, 64, 400]));
        assert!(whole("szip", &[4]).is_err());
        assert!(whole("scaleoffset", &[4]).is_err());
        let wide = integer(4, true, ByteOrder::Big);
        let szip = parse_filters(b"szip").unwrap();
        let filters = complete_filters(&szip, &wide, &[100_000]).unwrap();
        assert_eq!(filters[0].parameters, [32 | 16 | 128, 8, 32, 1024]);
    }
}
