//! The header of a .npy file that somebody writes (NEP 1; `numpy/lib/_format_impl.py`): what it says of the array behind it.
//!
//! The bytes come from any program, a part at a time, and are believed nothing.

use super::header::{MAGIC, descr};
use crate::h5::{ByteOrder, Class, Datatype};
use crate::store::description::{
    DescriptionError, datatype_of, parse_datatype, parse_shape, vlen_string,
};
use crate::store::dtype::numpy_descr;
use crate::store::literal::{self, Literal};

/// The longest header: several times what the longest description of a type in HDF5 comes to.
const HEADER_LIMIT_BYTES: usize = 256 << 10;
/// Bytes of one character of NumPy's `<U`.
pub(crate) const CHARACTER_BYTES: u64 = 4;

/// Why the beginning of a .npy file is none that a dataset can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// Another magic number.
    #[error("it does not begin as a .npy file does")]
    NotNpy,
    /// A version that is not known.
    #[error("version {major}.{minor} of the .npy format is not known")]
    Version {
        /// The first number.
        major: u8,
        /// The second one.
        minor: u8,
    },
    /// A header longer than [`HEADER_LIMIT_BYTES`].
    #[error("its header of {len_bytes} bytes is longer than any that is needed")]
    TooLong {
        /// What it says of its length.
        len_bytes: u64,
    },
    /// Not a dictionary of `descr`, `fortran_order` and `shape`.
    #[error("its header cannot be read: {problem}")]
    Unreadable {
        /// What is wrong.
        problem: &'static str,
    },
    /// Python objects, which are pickled.
    #[error(
        "it holds Python objects: save an array of strings as str (<U), anything else as numbers"
    )]
    Objects,
    /// A type that cannot be stored.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// An array without axes.
    #[error("it has no axes, and a versioned file holds no such array: save numpy.atleast_1d(...)")]
    Scalar,
    /// Another type than the dataset has in all versions.
    #[error(
        "its type {given} is not that of the dataset, {stored}, which is the same in all versions"
    )]
    Differs {
        /// As the header has it.
        given: String,
        /// As it is stored.
        stored: String,
    },
    /// Another number of axes than the dataset has in all versions.
    #[error("it has {given} axes, and the dataset {stored}, as many as in all versions")]
    Axes {
        /// Of the header.
        given: usize,
        /// Of the dataset.
        stored: usize,
    },
}

/// What an element is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NpyElement {
    /// As it is stored.
    Stored(Datatype),
    /// A string of up to so many characters of four bytes each, filled up with zeros.
    Wide {
        /// How many.
        chars: u64,
        /// Of each character.
        order: ByteOrder,
    },
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpyHeader {
    /// Length of the header; behind it comes the data.
    pub len_bytes: usize,
    /// The type of an element.
    pub element: NpyElement,
    /// Elements along each axis.
    pub shape: Vec<u64>,
    /// Whether the first axis is the one whose elements lie side by side, which makes a difference.
    pub is_fortran: bool,
    /// How the type was written.
    descr: String,
}

/// What the first bytes of a .npy file hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// The beginning of a header.
    Part,
    /// All of it, and perhaps more.
    Whole(NpyHeader),
}

impl NpyHeader {
    /// Reads as much of a header as there is.
    ///
    /// # Errors
    /// [`NpyError`], as soon as it is clear that no dataset can come of it.
    pub fn parse(bytes: &[u8]) -> Result<Beginning, NpyError> {
        let count = bytes.len().min(MAGIC.len());
        if bytes[..count] != MAGIC[..count] {
            return Err(NpyError::NotNpy);
        }
        let Some((&[major, minor], rest)) =
            bytes.get(MAGIC.len()..).and_then(<[u8]>::split_first_chunk)
        else {
            return Ok(Beginning::Part);
        };
        if !matches!((major, minor), (1..=3, 0)) {
            return Err(NpyError::Version { major, minor });
        }
        let count_bytes = if major == 1 { 2 } else { 4 };
        let Some((count, rest)) = rest.split_at_checked(count_bytes) else {
            return Ok(Beginning::Part);
        };
        let text_bytes = count
            .iter()
            .rev()
            .fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        let text_bytes = usize::try_from(text_bytes)
            .ok()
            .filter(|&n| n <= HEADER_LIMIT_BYTES)
            .ok_or(NpyError::TooLong {
                len_bytes: text_bytes,
            })?;
        let Some(text) = rest.get(..text_bytes) else {
            return Ok(Beginning::Part);
        };
        let text = if major == 3 {
            String::from_utf8(text.to_vec()).map_err(|_| NpyError::Unreadable {
                problem: "it is not UTF-8",
            })?
        } else {
            // Latin-1, whose bytes are the first characters of Unicode.
            text.iter().map(|&byte| char::from(byte)).collect()
        };
        let len_bytes = MAGIC.len() + 2 + count_bytes + text_bytes;
        Self::of_dictionary(&text, len_bytes).map(Beginning::Whole)
    }

    fn of_dictionary(text: &str, len_bytes: usize) -> Result<Self, NpyError> {
        let unreadable = |problem| NpyError::Unreadable { problem };
        let value = literal::parse_python(text.as_bytes()).map_err(unreadable)?;
        let Literal::Object(entries) = &value else {
            return Err(unreadable("it is not a dictionary"));
        };
        let (Some(descr), Some(Literal::Bool(is_fortran)), Some(Literal::List(axes))) = (
            value.get(b"descr"),
            value.get(b"fortran_order"),
            value.get(b"shape"),
        ) else {
            return Err(unreadable(
                "descr, fortran_order or shape is missing, or not one",
            ));
        };
        if entries.len() != 3 {
            return Err(unreadable(
                "it has other keys than descr, fortran_order and shape",
            ));
        }
        let shape: Vec<u64> = axes
            .iter()
            .map(Literal::as_u64)
            .collect::<Option<_>>()
            .ok_or(unreadable("its shape is not one of whole numbers"))?;
        if shape.is_empty() {
            return Err(NpyError::Scalar);
        }
        parse_shape(format!("{shape:?}").as_bytes())?;
        let (element, descr) = element_of(descr)?;
        let header = Self {
            len_bytes,
            element,
            is_fortran: *is_fortran && shape.iter().filter(|&&extent| extent != 1).count() > 1,
            shape,
            descr,
        };
        match header.checked_data_bytes().map(i64::try_from) {
            Some(Ok(_)) => Ok(header),
            _ => Err(NpyError::Description(DescriptionError::Shape {
                what: "shape",
                shape: header.shape,
                problem: "no file is that long",
            })),
        }
    }

    /// Bytes of one element.
    #[must_use]
    pub fn element_bytes(&self) -> u64 {
        match &self.element {
            NpyElement::Stored(datatype) => datatype.size as u64,
            NpyElement::Wide { chars, .. } => chars.saturating_mul(CHARACTER_BYTES),
        }
    }

    /// Bytes of the data behind the header.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.checked_data_bytes().unwrap_or(u64::MAX)
    }

    fn checked_data_bytes(&self) -> Option<u64> {
        self.shape
            .iter()
            .try_fold(self.element_bytes(), |n, &extent| n.checked_mul(extent))
    }

    /// Whether the data has to be changed to be a dataset's: text, and what is in the order of Fortran.
    #[must_use]
    pub fn needs_conversion(&self) -> bool {
        self.is_fortran || matches!(self.element, NpyElement::Wide { .. })
    }

    /// The type of a dataset that is made of it.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        match &self.element {
            NpyElement::Stored(datatype) => datatype.clone(),
            NpyElement::Wide { .. } => vlen_string(),
        }
    }

    /// The shape that a dataset of `datatype` and so many axes has if it is given this content: without the axes that are within its elements.
    ///
    /// # Errors
    /// [`NpyError::Differs`], [`NpyError::Axes`].
    pub fn shape_for(&self, datatype: &Datatype, axes: usize) -> Result<Vec<u64>, NpyError> {
        let inner = match &self.element {
            NpyElement::Wide { .. } => datatype.is_vlen_string().then(Vec::new),
            NpyElement::Stored(given) => descr(datatype).and_then(|(text, inner)| {
                let stored = parse_datatype(text.as_bytes()).ok()?;
                (stored == *given).then_some(inner)
            }),
        };
        let inner = inner.filter(|inner| self.shape.ends_with(inner));
        let Some(inner) = inner else {
            return Err(NpyError::Differs {
                given: self.descr.clone(),
                stored: if datatype.is_vlen_string() {
                    "strings (<U)".to_owned()
                } else {
                    descr(datatype)
                        .map_or_else(|| numpy_descr(datatype).to_string(), |known| known.0)
                },
            });
        };
        let shape = self.shape[..self.shape.len() - inner.len()].to_vec();
        if shape.len() == axes {
            Ok(shape)
        } else {
            Err(NpyError::Axes {
                given: self.shape.len(),
                stored: axes + inner.len(),
            })
        }
    }
}

/// An element's type, and how it was written.
fn element_of(descr: &Literal) -> Result<(NpyElement, String), NpyError> {
    if let Some(text) = descr.as_str()
        && let Some((order, digits)) = wide(text)
    {
        let is_known = |chars: &u64| {
            let bytes = chars.checked_mul(CHARACTER_BYTES);
            bytes.is_some_and(|bytes| i32::try_from(bytes).is_ok())
        };
        let chars = digits.parse().ok().filter(is_known);
        let chars = chars.ok_or(NpyError::Unreadable {
            problem: "its strings have no length that NumPy knows",
        })?;
        return Ok((NpyElement::Wide { chars, order }, format!("'{text}'")));
    }
    let datatype = datatype_of(descr)?;
    if datatype.contains_pointers() {
        return Err(NpyError::Objects);
    }
    if matches!(datatype.class, Class::Array { .. }) {
        return Err(NpyError::Unreadable {
            problem: "its elements are arrays, whose axes NumPy writes as the array's own",
        });
    }
    let text = descr.as_str().map_or_else(
        || numpy_descr(&datatype).to_string(),
        |text| format!("'{text}'"),
    );
    Ok((NpyElement::Stored(datatype), text))
}

/// The byte order and the length of `<U5`.
fn wide(text: &str) -> Option<(ByteOrder, &str)> {
    let order = match text.as_bytes().first()? {
        b'>' => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    let rest = text.strip_prefix(['<', '>', '=', '|']).unwrap_or(text);
    Some((order, rest.strip_prefix('U')?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::npy::header::header;
    use crate::store::type_samples::{array, boolean, compound, float, integer};

    fn made(version: u8, dictionary: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        let len = u32::try_from(dictionary.len()).unwrap().to_le_bytes();
        bytes.extend(&len[..if version == 1 { 2 } else { 4 }]);
        bytes.extend(dictionary.as_bytes());
        bytes
    }

    fn whole(bytes: &[u8]) -> NpyHeader {
        match NpyHeader::parse(bytes).unwrap() {
            Beginning::Whole(header) => header,
            Beginning::Part => panic!("{} bytes are a part", bytes.len()),
        }
    }

    fn refused(dictionary: &str) -> NpyError {
        NpyHeader::parse(&made(1, dictionary)).unwrap_err()
    }

    #[test]
    fn a_header_is_read_once_it_is_whole() {
        let bytes = header("'<f8'", &[3, 4]).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(NpyHeader::parse(&bytes[..len]), Ok(Beginning::Part));
        }
        let read = whole(&[&bytes[..], b"data"].concat());
        assert_eq!(read.len_bytes, bytes.len());
        assert_eq!(
            read.element,
            NpyElement::Stored(float(8, ByteOrder::Little))
        );
        assert_eq!((&read.shape[..], read.is_fortran), (&[3, 4][..], false));
        assert_eq!(read.data_bytes(), 96);
        assert!(!read.needs_conversion());
    }

    #[test]
    fn any_version_and_order_is_read() {
        let dictionary = "{'shape': (2, 3), 'fortran_order': True, 'descr': '>U7', }  \n";
        for version in 1..=3 {
            let read = whole(&made(version, dictionary));
            let wide = NpyElement::Wide {
                chars: 7,
                order: ByteOrder::Big,
            };
            assert_eq!(read.element, wide);
            assert!(read.is_fortran && read.needs_conversion());
            assert_eq!(read.data_bytes(), 6 * 28);
        }
        // The same bytes in either order.
        let column = "{'descr': '<f8', 'fortran_order': True, 'shape': (7, 1)}";
        assert!(!whole(&made(1, column)).needs_conversion());
        let latin = b"{'descr': [('\xfc', '|i1')], 'fortran_order': False, 'shape': (1,)}";
        let mut bytes = made(1, &" ".repeat(latin.len()));
        let at = bytes.len() - latin.len();
        bytes[at..].copy_from_slice(latin);
        let named = compound(1, vec![("\u{fc}", 0, integer(1, true, ByteOrder::Little))]);
        assert_eq!(whole(&bytes).datatype(), named);
    }

    #[test]
    fn what_no_dataset_can_be_made_of_is_refused() {
        assert_eq!(NpyHeader::parse(b"PK\x03\x04"), Err(NpyError::NotNpy));
        let version = NpyHeader::parse(b"\x93NUMPY\x04\x00").unwrap_err();
        assert_eq!(version, NpyError::Version { major: 4, minor: 0 });
        let long = NpyHeader::parse(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").unwrap_err();
        assert_eq!(
            long,
            NpyError::TooLong {
                len_bytes: u64::from(u32::MAX)
            }
        );
        let rest = "'fortran_order': False, 'shape': (2,), }";
        assert_eq!(
            refused(&format!("{{'descr': '|O', {rest}")),
            NpyError::Objects
        );
        let nested = refused(&format!("{{'descr': [('a', '|O'), ('b', '<i4')], {rest}"));
        assert_eq!(nested, NpyError::Objects);
        let scalar = refused("{'descr': '<f8', 'fortran_order': False, 'shape': (), }");
        assert_eq!(scalar, NpyError::Scalar);
        for dictionary in [
            "[]",
            "{}",
            "{'descr': '<f8', 'fortran_order': 0, 'shape': (2,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': 2}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), 'more': 1}",
            "{'descr': '<U-1', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<U536870912', 'fortran_order': False, 'shape': (2,)}",
        ] {
            let error = refused(dictionary);
            assert!(
                matches!(error, NpyError::Unreadable { .. }),
                "{dictionary}: {error}"
            );
        }
        for dictionary in [
            "{'descr': '<f3', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 2)}",
            "{'descr': '|S2000000000', 'fortran_order': False, 'shape': (4611686018427387904,)}",
        ] {
            let error = refused(dictionary);
            assert!(
                matches!(error, NpyError::Description(_)),
                "{dictionary}: {error}"
            );
        }
    }

    #[test]
    fn what_npy_shows_of_a_dataset_can_be_given_back_to_it() {
        let record = compound(
            16,
            vec![
                ("it's", 1, boolean()),
                (
                    "\u{1}\u{17c}",
                    4,
                    array(&[2], integer(2, false, ByteOrder::Big)),
                ),
            ],
        );
        for (datatype, shape, axes) in [
            (float(4, ByteOrder::Big), vec![5], 1),
            (boolean(), vec![2, 2], 2),
            (record, vec![3], 1),
            (
                array(&[3, 2], float(4, ByteOrder::Little)),
                vec![9, 3, 2],
                1,
            ),
        ] {
            let (text, _) = descr(&datatype).unwrap();
            let read = whole(&header(&text, &shape).unwrap());
            assert_eq!(read.shape_for(&datatype, axes), Ok(shape[..axes].to_vec()));
            let more = read.shape_for(&datatype, axes + 1).unwrap_err();
            assert!(matches!(more, NpyError::Axes { .. }), "{more}");
            let other = read.shape_for(&integer(8, true, ByteOrder::Little), axes);
            assert!(matches!(other, Err(NpyError::Differs { .. })), "{other:?}");
        }
    }
}
