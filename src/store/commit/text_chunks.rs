//! New chunks of variable-length strings: the strings go to the global heap, and the chunks hold where they are.

use std::collections::HashMap;

use super::hashing::Hashed;
use super::plan::Plan;
use super::text_lines;
use super::writing::encode;
use crate::h5::writer::{FileWriter, WriteError};
use crate::store::CommitError;

/// New chunks of a dataset as they are to be stored.
#[derive(Debug, Default)]
pub(super) struct TextChunks {
    /// Bytes and filter mask of each, in the order of their numbers.
    pub(super) encoded: Vec<(Vec<u8>, u32)>,
}

/// Appends the strings of all new chunks to the heap.
///
/// # Errors
/// [`CommitError`].
pub(super) fn append_texts(
    writer: &mut FileWriter,
    plan: &Plan<'_>,
    hashed: &Hashed,
    failed: &dyn Fn(WriteError) -> CommitError,
) -> Result<TextChunks, CommitError> {
    let wanted: HashMap<u64, usize> = hashed
        .new_chunks
        .iter()
        .enumerate()
        .map(|(place, chunk)| (chunk.cell, place))
        .collect();
    let mut encoded = vec![(Vec::new(), 0); hashed.new_chunks.len()];
    text_lines::for_each_cell(
        &plan.path,
        plan.bytes,
        &plan.shape,
        &plan.chunk_shape,
        &plan.cells,
        |cell, texts| {
            let Some(&place) = wanted.get(&cell) else {
                return Ok(());
            };
            // An empty string is a reference to nothing.
            let stored = texts.iter().copied().filter(|text| !text.is_empty());
            let mut places = writer
                .append_heap_objects(stored)
                .map_err(failed)?
                .into_iter();
            let mut chunk = vec![0; plan.cells.chunk_bytes];
            let mut texts = texts.iter();
            let mut outcome = Ok(());
            text_lines::for_each_element(
                cell,
                &plan.shape,
                &plan.chunk_shape,
                &plan.cells,
                |_, in_chunk| {
                    let text = texts
                        .next()
                        .expect("one string for each element of the cell");
                    if text.is_empty() {
                        return;
                    }
                    let place = places
                        .next()
                        .expect("one place for each string that is not empty");
                    let reference = &mut chunk[in_chunk * 16..in_chunk * 16 + 16];
                    match u32::try_from(text.len()) {
                        Ok(len) => reference[..4].copy_from_slice(&len.to_le_bytes()),
                        Err(_) => {
                            outcome = Err(failed(WriteError::TooLarge {
                                what: "a string",
                                size: text.len() as u64,
                            }));
                        }
                    }
                    reference[4..12].copy_from_slice(&place.address.0.to_le_bytes());
                    reference[12..].copy_from_slice(&place.index.to_le_bytes());
                },
            );
            outcome?;
            encoded[place] = encode(plan, &chunk)?;
            Ok(())
        },
    )?;
    Ok(TextChunks { encoded })
}
