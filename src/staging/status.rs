//! What is staged, in words.

use std::fmt::Write;
use std::sync::PoisonError;

use super::state::State;
use super::tree::Difference;
use super::{NodeId, Staging, StagingError};
use crate::store::time;

impl Staging {
    /// What the next version is based on, each change, and what became of the last commit, as text.
    #[must_use]
    pub fn status(&self) -> Vec<u8> {
        let described = self
            .refresh()
            .and_then(|()| self.read(|state| self.describe_state(state)));
        let mut text =
            described.unwrap_or_else(|error| format!("Nothing can be staged: {error}\n"));
        if let Some(progress) = self.progress() {
            writeln!(text, "A commit is being made: {progress}.").expect("writing to memory");
        }
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refusal) = &*refusal {
            text.push_str(refusal);
            text.push('\n');
        }
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = &*outcome {
            text.push_str(outcome);
            text.push('\n');
        }
        text.into_bytes()
    }

    /// Says from now on why something that was written as a .npy file was refused.
    pub(super) fn note_refusal(&self, error: &StagingError) {
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        *refusal = Some(format!("What was last refused: npy/staging/{error}."));
    }

    fn describe_state(&self, state: &State) -> Result<String, StagingError> {
        let mut text = String::new();
        if let Some(note) = &state.note {
            text.push_str(note);
            text.push('\n');
        }
        let written = match &state.base {
            None => writeln!(text, "The next version is the first one."),
            Some(base) => {
                let when = self.ask_base(state, |snapshot, index| {
                    Ok(snapshot.history().version(index).timestamp)
                })?;
                let when = when
                    .flatten()
                    .map_or_else(String::new, |when| format!(" ({})", time::shown(when)));
                writeln!(
                    text,
                    "The next version is based on {}{when}.",
                    base.name.escape_ascii()
                )
            }
        };
        written.expect("writing to memory");
        if state.tree.is_pristine() {
            text.push_str("Nothing is staged.\n");
        }
        if !state.tree.node(NodeId::ROOT)?.attributes.is_empty() {
            text.push_str("M . (attributes of the version)\n");
        }
        let differences = state.tree.differences();
        for (path, difference, id) in differences {
            let letter = match difference {
                Difference::Added => 'A',
                Difference::Modified => 'M',
                Difference::Deleted => 'D',
            };
            let chunks = match id.map(|id| self.chunk_count(state, id, difference)) {
                Some(Ok(Some(1))) => " (1 chunk)".to_owned(),
                Some(Ok(Some(count))) => format!(" ({count} chunks)"),
                Some(Err(error)) => format!(" ({error})"),
                Some(Ok(None)) | None => String::new(),
            };
            let unfinished = id
                .and_then(|id| state.known_content(id))
                .and_then(|content| content.unfinished_npy());
            let chunks = match unfinished {
                Some(words) => format!(" ({words})"),
                None => chunks,
            };
            let shown = id.map_or_else(|| Ok(path.to_vec()), |id| state.tree.path(id, true))?;
            writeln!(text, "{letter} {}{chunks}", String::from_utf8_lossy(&shown))
                .expect("writing to memory");
        }
        Ok(text)
    }

    /// How many cells of its chunk grid a dataset has, or how many of them were written to; `None` for a group.
    fn chunk_count(
        &self,
        state: &State,
        id: NodeId,
        difference: Difference,
    ) -> Result<Option<u64>, StagingError> {
        let Some(dataset) = state.tree.node(id)?.dataset() else {
            return Ok(None);
        };
        let structure = self.structure(state, id, dataset)?;
        let cells = |extent: u64, chunk: u64| extent.div_ceil(chunk.max(1));
        let grid: Vec<u64> = structure
            .shape
            .iter()
            .zip(&structure.chunk_shape)
            .map(|(&extent, &chunk)| cells(extent, chunk))
            .collect();
        let all = grid.iter().fold(1u64, |n, &count| n.saturating_mul(count));
        let Some(content) = state.known_content(id) else {
            return Ok(Some(if difference == Difference::Added {
                all
            } else {
                0
            }));
        };
        let body = content.read();
        let overlay = match &body.overlay {
            Some(overlay) if difference == Difference::Modified => overlay,
            Some(_) => return Ok(Some(all)),
            None => return Ok(Some(0)),
        };
        // Rows of chunks that were written to; within a row, all of its cells count unless there is only one axis.
        let per_row = grid
            .iter()
            .skip(1)
            .fold(1u64, |n, &count| n.saturating_mul(count));
        let row_bytes = structure
            .shape
            .iter()
            .skip(1)
            .chain(structure.chunk_shape.first())
            .fold(structure.datatype.size as u64, |n, &extent| {
                n.saturating_mul(extent)
            })
            .max(1);
        let (mut rows, mut next_row, mut at) = (0u64, 0, 0);
        while let Some(range) = overlay.next_staged(at) {
            let last = (range.end - 1) / row_bytes;
            let first = (range.start / row_bytes).max(next_row);
            rows += (last + 1).saturating_sub(first);
            next_row = last + 1;
            // On to the next row: how many bytes of one were written does not matter.
            at = range
                .end
                .max(next_row.saturating_mul(row_bytes).min(overlay.len_bytes()));
        }
        Ok(Some(rows.saturating_mul(per_row).min(all)))
    }
}
