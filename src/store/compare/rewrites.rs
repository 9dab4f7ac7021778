//! Which parts of a dataset each version rewrote, in columns of equal width: what a picture of its history is drawn from.

use std::sync::Arc;

use super::super::StoreError;
use super::super::chunked::Chunked;
use super::super::dataset::Dataset;
use super::super::history::VersionIndex;
use super::super::live::VersionedFile;
use super::super::snapshot::Snapshot;
use super::super::tree::ChildKind;
use super::changed_cells;

/// The versions that have a dataset, and what each did to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrites {
    /// Cells of the largest grid of chunks that it ever had.
    pub cells: u64,
    /// Parents first.
    pub versions: Vec<VersionRewrites>,
}

/// What one version did to a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRewrites {
    /// The version.
    pub version: VersionIndex,
    /// One for each column, from the first chunks in C order to the last.
    pub columns: Vec<Column>,
}

/// Some neighbouring chunks in one version: how many of them are what. Together they are all that the column stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Column {
    /// Beyond the dataset's shape.
    pub outside: u64,
    /// Fill value that is not stored.
    pub unmapped: u64,
    /// As in the parent version.
    pub kept: u64,
    /// Not as in the parent version, or there is none that has the dataset.
    pub changed: u64,
}

impl VersionedFile {
    /// What each version of `snapshot`, of this file, did to the dataset at `path`, in at most `max_columns` columns. No versions where
    /// none has it.
    ///
    /// # Errors
    /// Damage of a version's group, or of the dataset in one of them.
    pub fn rewrites(
        &self,
        snapshot: &Arc<Snapshot>,
        path: &[u8],
        max_columns: usize,
    ) -> Result<Rewrites, StoreError> {
        let history = snapshot.history();
        let mut found = Vec::new();
        let mut is_found = vec![false; history.len()];
        for version in history.parents_first() {
            let tree = snapshot.tree(version)?;
            let is_dataset = tree
                .child(path)
                .is_some_and(|child| !matches!(child.kind, ChildKind::Group));
            if is_dataset {
                found.push(version);
                is_found[version.0 as usize] = true;
            }
        }
        let open = |version| snapshot.dataset(&self.shared, version, path);
        let mut cells = 1;
        for &version in &found {
            cells = cells.max(cells_of(&*open(version)?));
        }
        let columns = Columns {
            cells,
            count: cells.min(max_columns.max(1) as u64),
        };
        let versions = found
            .iter()
            .map(|&version| {
                let parent = history
                    .version(version)
                    .parent
                    .filter(|parent| is_found[parent.0 as usize]);
                let before = parent.map(open).transpose()?;
                Ok(VersionRewrites {
                    version,
                    columns: columns.of(before.as_deref(), &*open(version)?),
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Rewrites { cells, versions })
    }
}

/// One that is not stored in chunks counts as one chunk.
fn cells_of(dataset: &Dataset) -> u64 {
    dataset
        .chunked()
        .map_or(1, |chunked| chunked.map().len_cells())
}

/// `cells` cells in `count` columns, as evenly as can be.
struct Columns {
    cells: u64,
    count: u64,
}

impl Columns {
    fn first_cell(&self, column: u64) -> u64 {
        let first = u128::from(column) * u128::from(self.cells) / u128::from(self.count);
        u64::try_from(first).expect("not more than all cells")
    }

    fn column_of(&self, cell: u64) -> usize {
        let column = ((u128::from(cell) + 1) * u128::from(self.count) - 1) / u128::from(self.cells);
        usize::try_from(column).expect("not more than all columns")
    }

    fn of(&self, before: Option<&Dataset>, after: &Dataset) -> Vec<Column> {
        let len = cells_of(after);
        let mut columns: Vec<Column> = (0..self.count)
            .map(|column| {
                let (first, end) = (self.first_cell(column), self.first_cell(column + 1));
                let inside = end.min(len).saturating_sub(first);
                Column {
                    outside: end - first - inside,
                    unmapped: inside,
                    ..Column::default()
                }
            })
            .collect();
        let Some(chunked) = after.chunked() else {
            // Nothing tells its one part in one version from that in another.
            columns[0].unmapped = 0;
            columns[0].changed = 1;
            return columns;
        };
        for (cell, _) in chunked.map().mapped() {
            let column = &mut columns[self.column_of(cell)];
            column.unmapped -= 1;
            column.kept += 1;
        }
        for cell in changed(before, after, chunked) {
            let column = &mut columns[self.column_of(cell)];
            match chunked.map().get(cell) {
                Some(_) => column.kept -= 1,
                None => column.unmapped -= 1,
            }
            column.changed += 1;
        }
        columns
    }
}

fn changed(before: Option<&Dataset>, after: &Dataset, chunked: &Chunked) -> Vec<u64> {
    let comparable = before.and_then(|before| {
        let is_alike =
            before.chunk_shape == after.chunk_shape && before.datatype() == after.datatype();
        before.chunked().filter(|_| is_alike).zip(Some(before))
    });
    match comparable {
        Some((old, before)) => {
            let shapes = (
                before.header.dataspace.shape(),
                after.header.dataspace.shape(),
            );
            changed_cells(old.map(), chunked.map(), shapes, &after.chunk_shape).changed
        }
        None => chunked.map().mapped().map(|(cell, _)| cell).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_in_the_column_that_begins_at_or_before_it() {
        for cells in 1..40 {
            for count in 1..=cells {
                let columns = Columns { cells, count };
                for cell in 0..cells {
                    let column = columns.column_of(cell) as u64;
                    assert!(columns.first_cell(column) <= cell);
                    assert!(cell < columns.first_cell(column + 1));
                }
                assert_eq!(columns.first_cell(count), cells);
            }
        }
    }
}
