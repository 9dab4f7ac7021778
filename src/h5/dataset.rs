//! What the header of a dataset says: element type, extent, fill value, filters, and where its bytes are.

use super::decoder::Decoder;
use super::object_header::{Message, ObjectHeader, message_type};
use super::{Dataspace, Datatype, Filter, H5Error, Layout, MetaReader};

/// The most steps that HDF5 allows (`H5Z_MAX_NFILTERS`).
const MAX_FILTERS: u8 = 32;

/// A dataset's header, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetHeader {
    /// The type of one element.
    pub datatype: Datatype,
    /// The datatype message as stored, without padding behind it: equal bytes mean an equal type.
    pub datatype_bytes: Vec<u8>,
    /// The extent.
    pub dataspace: Dataspace,
    /// One element that stands for those never written; `None` means zeros.
    pub fill_value: Option<Vec<u8>>,
    /// The steps that a chunk went through when it was written, in that order.
    pub filters: Vec<Filter>,
    /// Where the elements are.
    pub layout: Layout,
}

impl DatasetHeader {
    /// Decodes the messages of a dataset's header.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where one is missing or not sound; [`H5Error::Unsupported`] for an unknown form, or elements that lie
    /// in other files.
    pub fn read(reader: &MetaReader, header: &ObjectHeader) -> Result<Self, H5Error> {
        let message = |message_type, missing| {
            header
                .find(message_type)
                .ok_or_else(|| header.damaged(missing))
        };
        let message_bytes = message(message_type::DATATYPE, "it has no type")?;
        let datatype_bytes = message_bytes.resolve(reader)?;
        let (datatype, used) = Datatype::decode(&datatype_bytes, message_bytes.address)?;
        let extent = message(message_type::DATASPACE, "it has no extent")?;
        let dataspace = Dataspace::decode(&extent.resolve(reader)?, extent.address)?;
        if let Some(files) = header.find(message_type::EXTERNAL_FILES) {
            let decoder = files.decoder("external file list message");
            return Err(decoder.unsupported("the elements lie in other files"));
        }
        let layout = message(message_type::LAYOUT, "it has no layout")?;
        let layout = Layout::decode(&layout, &datatype, &dataspace)?;
        let filters = match header.find(message_type::FILTERS) {
            Some(message) => decode_filters(&message.resolve(reader)?, &message)?,
            None => Vec::new(),
        };
        let fill_value = match (
            header.find(message_type::FILL_VALUE),
            header.find(message_type::FILL_VALUE_OLD),
        ) {
            (Some(message), _) => decode_fill_value(&message.resolve(reader)?, &message)?,
            (None, Some(message)) => decode_old_fill_value(&message.resolve(reader)?, &message)?,
            (None, None) => None,
        };
        if fill_value
            .as_ref()
            .is_some_and(|value| value.len() != datatype.size)
        {
            return Err(header.damaged("its fill value is not of the size of an element"));
        }
        Ok(Self {
            datatype,
            datatype_bytes: datatype_bytes[..used].to_vec(),
            dataspace,
            fill_value,
            filters,
            layout,
        })
    }
}

/// Decodes a fill value message (Specification IV.A.2.f). `None` where it is undefined or the default.
pub(super) fn decode_fill_value(
    bytes: &[u8],
    message: &Message<'_>,
) -> Result<Option<Vec<u8>>, H5Error> {
    let mut decoder = Decoder::new(bytes, "fill value message", message.address);
    let has_value = match decoder.u8()? {
        1 | 2 => {
            decoder.skip(2)?; // When space is allocated, when the value is written.
            decoder.u8()? != 0
        }
        3 => match decoder.u8()? & 0x30 {
            0x30 => return Err(decoder.damaged("it is both defined and undefined")),
            bits => bits == 0x20,
        },
        _ => return Err(decoder.unsupported("its version is not one of 1 to 3")),
    };
    if has_value {
        sized_value(&mut decoder)
    } else {
        Ok(None)
    }
}

/// Decodes a message of the kind before that one (Specification IV.A.2.e), which is nothing but the value.
pub(super) fn decode_old_fill_value(
    bytes: &[u8],
    message: &Message<'_>,
) -> Result<Option<Vec<u8>>, H5Error> {
    sized_value(&mut Decoder::new(
        bytes,
        "old fill value message",
        message.address,
    ))
}

/// A value behind its length; without a length, or with one of -1, there is none.
fn sized_value(decoder: &mut Decoder<'_>) -> Result<Option<Vec<u8>>, H5Error> {
    match decoder.u32()? {
        0 | u32::MAX => Ok(None),
        len => {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            Ok(Some(decoder.take(len)?.to_vec()))
        }
    }
}

/// Decodes a filter pipeline message (Specification IV.A.2.l) of version 1 or 2.
pub(super) fn decode_filters(bytes: &[u8], message: &Message<'_>) -> Result<Vec<Filter>, H5Error> {
    let mut decoder = Decoder::new(bytes, "filter pipeline message", message.address);
    let version = decoder.u8()?;
    let count = decoder.u8()?;
    match version {
        1 => decoder.skip(6)?,
        2 => {}
        _ => return Err(decoder.unsupported("its version is neither 1 nor 2")),
    }
    if count > MAX_FILTERS {
        return Err(decoder.damaged("it has more than 32 steps"));
    }
    let mut filters = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let id = decoder.u16()?;
        // From version 2 on, the library's own filters have no name.
        let name_len = match (version, id) {
            (2, 0..=255) => 0,
            _ => usize::from(decoder.u16()?),
        };
        let flags = decoder.u16()?;
        let parameter_count = decoder.u16()?;
        let stored_len = match version {
            1 => name_len.next_multiple_of(8),
            _ => name_len,
        };
        let name = decoder.take(stored_len)?;
        let text = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let mut parameters = Vec::new();
        for _ in 0..parameter_count {
            parameters.push(decoder.u32()?);
        }
        // Padded to 8 bytes.
        if version == 1 && parameter_count % 2 == 1 {
            decoder.skip(4)?;
        }
        filters.push(Filter {
            id,
            flags,
            name: (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned()),
            parameters,
        });
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::Address;

    const MESSAGE: Message<'static> = Message {
        message_type: 0,
        flags: 0,
        address: Address(0),
        body: &[],
    };

    #[test]
    fn fill_values_of_all_versions() {
        let fill = |bytes: &[u8]| decode_fill_value(bytes, &MESSAGE);
        for version in [1, 2] {
            assert_eq!(
                fill(&[version, 1, 2, 1, 2, 0, 0, 0, 7, 8, 0]).unwrap(),
                Some(vec![7, 8])
            );
            assert_eq!(fill(&[version, 1, 2, 0]).unwrap(), None);
            assert_eq!(fill(&[version, 1, 2, 1, 0, 0, 0, 0]).unwrap(), None);
            assert!(fill(&[version, 1, 2, 1, 2, 0, 0, 0, 7]).is_err());
        }
        assert_eq!(
            fill(&[3, 0x2a, 2, 0, 0, 0, 7, 8]).unwrap(),
            Some(vec![7, 8])
        );
        assert_eq!(fill(&[3, 0x1a]).unwrap(), None);
        assert_eq!(fill(&[3, 0x0a]).unwrap(), None);
        assert!(fill(&[3, 0x3a]).is_err());
        assert!(fill(&[4, 0x0a]).is_err());
        let old = |bytes: &[u8]| decode_old_fill_value(bytes, &MESSAGE);
        assert_eq!(old(&[2, 0, 0, 0, 7, 8]).unwrap(), Some(vec![7, 8]));
        assert_eq!(old(&[0, 0, 0, 0]).unwrap(), None);
        assert!(old(&[0xff, 0xff, 0xff, 0x7f]).is_err());
    }

    #[test]
    fn pipelines_of_both_versions() {
        let wanted = |name: Option<&str>| {
            vec![
                Filter {
                    id: 2,
                    flags: 1,
                    name: name.map(str::to_owned),
                    parameters: vec![4],
                },
                Filter {
                    id: 32_001,
                    flags: 0,
                    name: Some("blosc".to_owned()),
                    parameters: vec![2, 2],
                },
            ]
        };
        let mut first = vec![1, 2, 0, 0, 0, 0, 0, 0];
        first.extend([2, 0, 8, 0, 1, 0, 1, 0]);
        first.extend(b"shuffle\0");
        first.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        first.extend([0x01, 0x7d, 8, 0, 0, 0, 2, 0]);
        first.extend(b"blosc\0\0\0");
        first.extend([2, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(
            decode_filters(&first, &MESSAGE).unwrap(),
            wanted(Some("shuffle"))
        );
        let mut second = vec![2, 2];
        second.extend([2, 0, 1, 0, 1, 0, 4, 0, 0, 0]);
        second.extend([0x01, 0x7d, 6, 0, 0, 0, 2, 0]);
        second.extend(b"blosc\0");
        second.extend([2, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(decode_filters(&second, &MESSAGE).unwrap(), wanted(None));
        for len in 0..second.len() {
            assert!(decode_filters(&second[..len], &MESSAGE).is_err());
        }
        assert!(decode_filters(&[2, 33], &MESSAGE).is_err());
        assert!(decode_filters(&[3, 0], &MESSAGE).is_err());
    }
}
