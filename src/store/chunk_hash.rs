//! The hash by which versioned-hdf5 knows a chunk again (`Hashtable.hash` of its `hashtable.py`).
//!
//! A chunk that matches is right. One that does not may still be: the library hashes what it has in memory before it is stored, so
//! the hash of compounds with padding between their members covers bytes that nobody set, a filter that loses precision stores other
//! elements than those that were hashed, and layouts before 4 hashed strings otherwise.

use sha2::{Digest, Sha256};

use super::json::{HeapData, ValueError};
use super::region::ChunkGrid;
use crate::h5::{Class, Datatype};

/// SHA-256 of a chunk.
pub(crate) type ChunkHash = [u8; 32];

/// Why a chunk has no hash.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HashError {
    /// The library hashes what the elements are in memory, which nobody knows afterwards.
    #[error("chunks of its type have no hash that can be computed again")]
    Type,
    /// The extent is not within the chunk, or the chunk not of the length that its shape says.
    #[error("its extent is not within the chunk")]
    Extent,
    /// A string of it could not be had.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// The hash of the leading part of a chunk.
///
/// `chunk` holds all elements of the box `chunk_shape`, in C order, as they are stored; those within `extent`, which is no larger along any
/// axis, are hashed in C order, and after them the extent as Python prints a tuple: `(4096,)`, `(2, 4)`. Of a variable-length string,
/// which is read from `heap`, counts the length as 8 bytes and then the UTF-8 bytes.
///
/// # Errors
/// [`HashError`].
pub(crate) fn hash_chunk(
    datatype: &Datatype,
    chunk: &[u8],
    chunk_shape: &[u64],
    extent: &[u64],
    heap: &dyn HeapData,
) -> Result<ChunkHash, HashError> {
    let is_text = matches!(datatype.class, Class::VlenString { .. });
    if datatype.contains_pointers() && !is_text {
        return Err(HashError::Type);
    }
    let fits = extent.len() == chunk_shape.len()
        && extent
            .iter()
            .zip(chunk_shape)
            .all(|(part, all)| part <= all);
    // The part is an array of its own, whose only chunk is the whole box.
    let grid = ChunkGrid::new(extent, chunk_shape, datatype.size as u64)
        .filter(|grid| fits && grid.chunk_bytes() == chunk.len() as u64)
        .ok_or(HashError::Extent)?;
    let len_bytes = usize::try_from(grid.len_bytes()).map_err(|_| HashError::Extent)?;
    let mut hash = Sha256::new();
    let mut failed = None;
    for overlap in grid.overlaps(0, len_bytes) {
        overlap.for_each_row(&mut |in_chunk, _| {
            let row = usize::try_from(in_chunk)
                .ok()
                .and_then(|start| chunk.get(start..start.checked_add(overlap.row_bytes)?));
            let Some(row) = row else {
                failed = Some(HashError::Extent);
                return;
            };
            if is_text {
                if let Err(error) = add_texts(&mut hash, row, heap) {
                    failed = Some(error);
                }
            } else {
                hash.update(row);
            }
        });
    }
    if let Some(error) = failed {
        return Err(error);
    }
    hash.update(shape_text(extent));
    Ok(hash.finalize().into())
}

fn add_texts(hash: &mut Sha256, row: &[u8], heap: &dyn HeapData) -> Result<(), HashError> {
    let (references, rest) = row.as_chunks();
    if !rest.is_empty() {
        return Err(HashError::Extent);
    }
    for reference in references {
        let text = heap.read_vlen(reference, 1).map_err(ValueError::from)?;
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(&text);
    }
    Ok(())
}

/// The hash of a chunk of variable-length strings, of which `texts` are those within `extent`, in C order.
pub(crate) fn hash_texts<'t>(texts: impl Iterator<Item = &'t [u8]>, extent: &[u64]) -> ChunkHash {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(shape_text(extent));
    hash.finalize().into()
}

/// A shape as Python prints a tuple.
fn shape_text(shape: &[u64]) -> String {
    match shape {
        [one] => format!("({one},)"),
        shape => {
            let axes: Vec<String> = shape.iter().map(u64::to_string).collect();
            format!("({})", axes.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::{ByteOrder, H5Error};

    struct NoHeap;

    impl HeapData for NoHeap {
        fn read_vlen(&self, reference: &[u8; 16], _: usize) -> Result<Vec<u8>, H5Error> {
            Ok(vec![b'x'; usize::from(reference[0])])
        }
    }

    fn bytes_type() -> Datatype {
        Datatype {
            size: 1,
            class: Class::Integer {
                signed: false,
                order: ByteOrder::Little,
                bit_offset: 0,
                bit_precision: 8,
            },
        }
    }

    fn hex(hash: ChunkHash) -> String {
        let (first, last) = hash.split_at(16);
        let number = |half: &[u8]| u128::from_be_bytes(half.try_into().unwrap());
        format!("{:032x}{:032x}", number(first), number(last))
    }

    #[test]
    fn shapes_are_printed_as_python_does() {
        assert_eq!(shape_text(&[4096]), "(4096,)");
        assert_eq!(shape_text(&[2, 4]), "(2, 4)");
        assert_eq!(shape_text(&[1, 2, 3]), "(1, 2, 3)");
    }

    #[test]
    fn the_extent_alone_is_hashed() {
        // hashlib.sha256(bytes([0, 1, 4, 5]) + b"(2, 2)")
        let chunk: Vec<u8> = (0..16).collect();
        let hash = hash_chunk(&bytes_type(), &chunk, &[4, 4], &[2, 2], &NoHeap).unwrap();
        let mut wanted = Sha256::new();
        wanted.update([0, 1, 4, 5]);
        wanted.update("(2, 2)");
        assert_eq!(hash, <ChunkHash>::from(wanted.finalize()));
        let whole = hash_chunk(&bytes_type(), b"abc", &[3], &[3], &NoHeap).unwrap();
        // python3 -c 'import hashlib; print(hashlib.sha256(b"abc(3,)").hexdigest())'
        assert_eq!(hex(whole), ABC_3);
    }

    const ABC_3: &str = "0671c0fe7574b23296c2197648530f0b344261dd7c5dcf2c7e7d75862b5b9581";

    #[test]
    fn what_does_not_fit_has_no_hash() {
        let of = |shape: &[u64], extent: &[u64]| {
            hash_chunk(&bytes_type(), &[0; 16], shape, extent, &NoHeap)
        };
        assert!(matches!(of(&[4, 4], &[5, 1]), Err(HashError::Extent)));
        assert!(matches!(of(&[4, 4], &[4]), Err(HashError::Extent)));
        assert!(matches!(of(&[4, 5], &[4, 4]), Err(HashError::Extent)));
        assert!(matches!(
            of(&[u64::MAX, 4], &[4, 4]),
            Err(HashError::Extent)
        ));
        let ragged = Datatype {
            size: 16,
            class: Class::VlenSequence {
                base: Box::new(bytes_type()),
            },
        };
        assert!(matches!(
            hash_chunk(&ragged, &[0; 16], &[1], &[1], &NoHeap),
            Err(HashError::Type)
        ));
    }

    #[test]
    fn strings_count_with_their_lengths() {
        let text = Datatype {
            size: 16,
            class: Class::VlenString {
                padding: 0,
                utf8: true,
            },
        };
        let mut chunk = [0; 48];
        (chunk[0], chunk[16], chunk[32]) = (2, 0, 5);
        let hash = hash_chunk(&text, &chunk, &[3], &[2], &NoHeap).unwrap();
        let mut wanted = Sha256::new();
        wanted.update(b"\x02\0\0\0\0\0\0\0xx\0\0\0\0\0\0\0\0(2,)");
        assert_eq!(hash, <ChunkHash>::from(wanted.finalize()));
    }
}
