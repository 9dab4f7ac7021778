//! Decoding where a dataset's elements are (Specification IV.A.2.i, "Data Layout Message"; `H5O__layout_decode`), versions 1 to 5.

use super::dataspace::MAX_RANK;
use super::decoder::Decoder;
use super::object_header::Message;
use super::{Address, Dataspace, Datatype, H5Error};

/// Where a dataset's elements are (Specification IV.A.2.i, "Data Layout Message").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// In the header itself.
    Compact(Vec<u8>),
    /// In one piece.
    Contiguous {
        /// First byte; undefined where nothing was written yet.
        address: Address,
        /// Length in bytes.
        size_bytes: u64,
    },
    /// In chunks.
    Chunked {
        /// Elements of a chunk along each axis, as many as the dataspace has.
        chunk_shape: Vec<u64>,
        /// Bytes of an element, as the layout message says it: the product of this and the chunk shape is the length of a chunk
        /// before the filters.
        element_bytes: u64,
        /// Version of the layout message, 1 to 5. From 5 on an index keeps stored sizes in 8 bytes, before that in as few as
        /// the length of a chunk asks for and one more.
        layout_version: u8,
        /// Chunks that stick out of the extent were stored without the filters.
        dont_filter_partial_edge_chunks: bool,
        /// How the chunks are found.
        index: ChunkIndexKind,
    },
    /// In other datasets, by a list of mappings in the global heap.
    Virtual {
        /// The heap collection; undefined where there is no mapping.
        heap_address: Address,
        /// The object in that collection.
        heap_index: u32,
    },
}

/// The structure that finds the chunks. An undefined address means that no chunk was written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkIndexKind {
    /// A version 1 B-tree of type 1.
    BTreeV1 {
        /// Its root node.
        address: Address,
    },
    /// The whole dataset is one chunk.
    SingleChunk {
        /// The chunk.
        address: Address,
        /// Where there are filters: its stored length in bytes, and its filter mask.
        filtered: Option<(u64, u32)>,
    },
    /// All chunks, in C order of the grid, one behind the other; none is filtered.
    Implicit {
        /// The first chunk.
        address: Address,
    },
    /// A fixed array.
    FixedArray {
        /// Its header.
        address: Address,
    },
    /// An extensible array.
    ExtensibleArray {
        /// Its header.
        address: Address,
    },
    /// A version 2 B-tree of type 10, or 11 where there are filters.
    BTreeV2 {
        /// Its header.
        address: Address,
    },
}

impl Layout {
    /// Decodes a layout message of a dataset with that type and extent.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where it is not sound or does not fit the type or the extent; [`H5Error::Unsupported`] for an
    /// unknown version or class.
    pub fn decode(
        message: &Message<'_>,
        datatype: &Datatype,
        dataspace: &Dataspace,
    ) -> Result<Self, H5Error> {
        let mut decoder = message.decoder("data layout message");
        match decoder.u8()? {
            1 | 2 => decode_old(&mut decoder, datatype, dataspace),
            version @ 3..=5 => decode_new(&mut decoder, version, datatype, dataspace),
            _ => Err(decoder.unsupported("its version is above 5")),
        }
    }
}

/// Versions 1 and 2: all classes have axes, each of 4 bytes.
fn decode_old(
    decoder: &mut Decoder<'_>,
    datatype: &Datatype,
    dataspace: &Dataspace,
) -> Result<Layout, H5Error> {
    let axes = decoder.u8()?;
    let class = decoder.u8()?;
    decoder.skip(5)?;
    match class {
        0 => {
            decoder.skip(4 * usize::from(axes))?;
            let len = decoder.u32()?;
            compact(decoder, len)
        }
        1 => {
            let address = decoder.offset()?;
            // The axes here lose their upper bits in large datasets, the dataspace has them all.
            let size_bytes = dataspace
                .len()
                .and_then(|len| len.checked_mul(datatype.size as u64))
                .ok_or_else(|| decoder.damaged("its size is impossible"))?;
            Ok(Layout::Contiguous {
                address,
                size_bytes,
            })
        }
        2 => {
            let address = decoder.offset()?;
            let index = ChunkIndexKind::BTreeV1 { address };
            let axes = chunk_axes(decoder, axes, 4)?;
            chunked(decoder, &axes, 1, false, index, datatype, dataspace)
        }
        _ => Err(decoder.damaged("its class is unknown")),
    }
}

fn decode_new(
    decoder: &mut Decoder<'_>,
    version: u8,
    datatype: &Datatype,
    dataspace: &Dataspace,
) -> Result<Layout, H5Error> {
    match decoder.u8()? {
        0 => {
            let len = decoder.u16()?.into();
            compact(decoder, len)
        }
        1 => Ok(Layout::Contiguous {
            address: decoder.offset()?,
            size_bytes: decoder.length()?,
        }),
        2 if version == 3 => {
            let axes = decoder.u8()?;
            let index = ChunkIndexKind::BTreeV1 {
                address: decoder.offset()?,
            };
            let axes = chunk_axes(decoder, axes, 4)?;
            chunked(decoder, &axes, version, false, index, datatype, dataspace)
        }
        2 => {
            let flags = decoder.u8()?;
            if flags & !0x03 != 0 {
                return Err(decoder.unsupported("it has unknown flags"));
            }
            let axes = decoder.u8()?;
            let width = usize::from(decoder.u8()?);
            let axes = chunk_axes(decoder, axes, width)?;
            let index = chunk_index(decoder, flags)?;
            let dont_filter = flags & 0x01 != 0;
            chunked(
                decoder,
                &axes,
                version,
                dont_filter,
                index,
                datatype,
                dataspace,
            )
        }
        3 if version >= 4 => Ok(Layout::Virtual {
            heap_address: decoder.offset()?,
            heap_index: decoder.u32()?,
        }),
        3 => Err(decoder.damaged("a virtual dataset has a version below 4")),
        _ => Err(decoder.damaged("its class is unknown")),
    }
}

fn compact(decoder: &mut Decoder<'_>, len: u32) -> Result<Layout, H5Error> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    Ok(Layout::Compact(decoder.take(len)?.to_vec()))
}

/// The lengths of a chunk's axes, of `width` bytes each; the last is the size of an element.
fn chunk_axes(decoder: &mut Decoder<'_>, axes: u8, width: usize) -> Result<Vec<u64>, H5Error> {
    if !(2..=MAX_RANK + 1).contains(&axes) || !(1..=8).contains(&width) {
        return Err(decoder.damaged("the number of its axes is impossible"));
    }
    let mut lengths = Vec::with_capacity(usize::from(axes));
    for _ in 0..axes {
        lengths.push(decoder.uint(width)?);
    }
    Ok(lengths)
}

fn chunked(
    decoder: &Decoder<'_>,
    axes: &[u64],
    layout_version: u8,
    dont_filter_partial_edge_chunks: bool,
    index: ChunkIndexKind,
    datatype: &Datatype,
    dataspace: &Dataspace,
) -> Result<Layout, H5Error> {
    let Some((&element_bytes, chunk_shape)) = axes.split_last() else {
        return Err(decoder.damaged("the number of its axes is impossible"));
    };
    if chunk_shape.len() != dataspace.shape().len() {
        return Err(decoder.damaged("its chunks have another number of axes than the dataset"));
    }
    if element_bytes != datatype.size as u64 {
        return Err(decoder.damaged("its elements are of another size than the dataset's"));
    }
    let chunk_bytes = axes.iter().try_fold(1u64, |n, &axis| n.checked_mul(axis));
    if chunk_bytes.is_none_or(|bytes| bytes == 0) {
        return Err(decoder.damaged("the size of its chunks is impossible"));
    }
    Ok(Layout::Chunked {
        chunk_shape: chunk_shape.to_vec(),
        element_bytes,
        layout_version,
        dont_filter_partial_edge_chunks,
        index,
    })
}

/// The index of a layout of version 4 or 5. The parameters of arrays and trees are passed over: their headers have them too.
fn chunk_index(decoder: &mut Decoder<'_>, flags: u8) -> Result<ChunkIndexKind, H5Error> {
    match decoder.u8()? {
        1 => {
            let filtered = match flags & 0x02 {
                0 => None,
                _ => Some((decoder.length()?, decoder.u32()?)),
            };
            Ok(ChunkIndexKind::SingleChunk {
                address: decoder.offset()?,
                filtered,
            })
        }
        2 => Ok(ChunkIndexKind::Implicit {
            address: decoder.offset()?,
        }),
        3 => {
            decoder.skip(1)?; // Bits of a page's number of elements.
            Ok(ChunkIndexKind::FixedArray {
                address: decoder.offset()?,
            })
        }
        4 => {
            decoder.skip(5)?; // Bits and numbers of elements of its blocks.
            Ok(ChunkIndexKind::ExtensibleArray {
                address: decoder.offset()?,
            })
        }
        5 => {
            decoder.skip(4 + 1 + 1)?; // Node size, split and merge percentages.
            Ok(ChunkIndexKind::BTreeV2 {
                address: decoder.offset()?,
            })
        }
        _ => Err(decoder.damaged("its index is of an unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::object_header::message_type;
    use crate::h5::{ByteOrder, Class};

    /// Decodes for a dataset of `shape` with elements of 2 bytes.
    fn decode(body: &[u8], shape: &[u64]) -> Result<Layout, H5Error> {
        let message = Message {
            message_type: message_type::LAYOUT,
            flags: 0,
            address: Address(0),
            body,
        };
        let datatype = Datatype {
            size: 2,
            class: Class::Bitfield {
                order: ByteOrder::Little,
                bit_offset: 0,
                bit_precision: 16,
            },
        };
        let dataspace = Dataspace::Simple {
            shape: shape.to_vec(),
            max_shape: Vec::new(),
        };
        Layout::decode(&message, &datatype, &dataspace)
    }

    const ADDRESS: [u8; 8] = [0x00, 0x10, 0, 0, 0, 0, 0, 0];

    #[test]
    fn the_oldest_versions() {
        for version in [1, 2] {
            let compact = [version, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0];
            let compact = [&compact[..], b"abcdef+padding"].concat();
            assert_eq!(
                decode(&compact, &[3]).unwrap(),
                Layout::Compact(b"abcdef".to_vec())
            );
            let contiguous = [&[version, 1, 1, 0, 0, 0, 0, 0][..], &ADDRESS, &[9; 4]].concat();
            assert_eq!(
                decode(&contiguous, &[1 << 33]).unwrap(),
                Layout::Contiguous {
                    address: Address(4096),
                    size_bytes: 1 << 34
                }
            );
            assert!(decode(&contiguous, &[1 << 63]).is_err());
            let axes = [8, 0, 0, 0, 2, 0, 0, 0];
            let chunked = [&[version, 2, 2, 0, 0, 0, 0, 0][..], &ADDRESS, &axes].concat();
            assert_eq!(
                decode(&chunked, &[100]).unwrap(),
                Layout::Chunked {
                    chunk_shape: vec![8],
                    element_bytes: 2,
                    layout_version: 1,
                    dont_filter_partial_edge_chunks: false,
                    index: ChunkIndexKind::BTreeV1 {
                        address: Address(4096)
                    },
                }
            );
        }
    }

    #[test]
    fn parameters_of_new_indexes_are_passed_over() {
        let chunked = |flags: u8, index: &[u8]| {
            let start = [5, 2, flags, 2, 3, 0, 0, 1, 2, 0, 0];
            decode(&[&start, index, &ADDRESS].concat(), &[100])
        };
        let address = Address(4096);
        for (flags, index, wanted) in [
            (
                0,
                &[1][..],
                ChunkIndexKind::SingleChunk {
                    address,
                    filtered: None,
                },
            ),
            (
                2,
                &[1, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0],
                ChunkIndexKind::SingleChunk {
                    address,
                    filtered: Some((7, 5)),
                },
            ),
            (0, &[2], ChunkIndexKind::Implicit { address }),
            (0, &[3, 9], ChunkIndexKind::FixedArray { address }),
            (
                1,
                &[4, 9, 9, 9, 9, 9],
                ChunkIndexKind::ExtensibleArray { address },
            ),
            (
                0,
                &[5, 9, 9, 9, 9, 9, 9],
                ChunkIndexKind::BTreeV2 { address },
            ),
        ] {
            assert_eq!(
                chunked(flags, index).unwrap(),
                Layout::Chunked {
                    chunk_shape: vec![65_536],
                    element_bytes: 2,
                    layout_version: 5,
                    dont_filter_partial_edge_chunks: flags & 1 != 0,
                    index: wanted,
                }
            );
        }
        assert!(chunked(0, &[0]).is_err());
        assert!(chunked(0, &[6]).is_err());
        assert!(chunked(4, &[2]).is_err());
    }

    #[test]
    fn what_is_not_sound_is_refused() {
        let chunked = |axes: u8, shape: &[u64], lengths: &[u32]| {
            let lengths: Vec<u8> = lengths.iter().flat_map(|n| n.to_le_bytes()).collect();
            decode(&[&[3, 2, axes][..], &ADDRESS, &lengths].concat(), shape)
        };
        assert!(chunked(2, &[5], &[4, 2]).is_ok());
        assert!(chunked(2, &[5], &[4, 4]).is_err()); // Another size of elements.
        assert!(chunked(2, &[5, 5], &[4, 2]).is_err()); // Another number of axes.
        assert!(chunked(2, &[5], &[0, 2]).is_err()); // Chunks without elements.
        assert!(chunked(1, &[], &[2]).is_err());
        assert!(chunked(34, &[5; 33], &[2; 34]).is_err());
        assert!(chunked(4, &[5; 3], &[u32::MAX, u32::MAX, 4, 2]).is_err()); // More than 2^64 bytes.
        assert!(decode(&[3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[5]).is_err());
        assert!(decode(&[4, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[5]).is_ok());
        assert!(decode(&[6, 1], &[5]).is_err());
        assert!(decode(&[3, 0, 9, 0, 1, 2], &[5]).is_err());
    }
}
