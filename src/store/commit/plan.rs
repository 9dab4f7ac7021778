//! What is to become of one written dataset: everything that its user left open, settled; everything that can be wrong, found.

use std::sync::Arc;

use super::cells::{BaseCells, Cells};
use super::text_lines;
use crate::codec::{FilterSpec, Pipeline};
use crate::h5::{ByteOrder, Class, Datatype, Filter};
use crate::store::description::{
    DescriptionError, check_chunks, complete_filters, default_chunk_shape, integer,
    parse_fill_value,
};
use crate::store::dtype::numpy_descr;
use crate::store::hash_table::HashTable;
use crate::store::raw_data::{RawData, filter_specs};
use crate::store::{
    ChildKind, CommitError, Dataset, Snapshot, StagedBytes, StoreError, VersionIndex,
    VersionedFile, WrittenDataset, hexadecimal,
};

/// One written dataset.
pub(super) struct Plan<'n> {
    /// Its path below the version.
    pub(super) path: Arc<[u8]>,
    pub(super) bytes: &'n dyn StagedBytes,
    pub(super) datatype: Datatype,
    pub(super) shape: Vec<u64>,
    pub(super) chunk_shape: Vec<u64>,
    /// One element; `None` for strings of variable length, which have none.
    pub(super) fill: Option<Vec<u8>>,
    pub(super) filters: Vec<FilterSpec>,
    pub(super) pipeline: Pipeline,
    pub(super) cells: Cells,
    /// What the file stores under this path; `None`: nothing yet.
    pub(super) stored: Option<Stored>,
    base: Option<Arc<Dataset>>,
    /// Whether every cell has to be looked at, whatever was written.
    looks_at_all: bool,
}

/// What the file stores under a path.
pub(super) struct Stored {
    pub(super) raw_data: Arc<RawData>,
    pub(super) hashes: Arc<HashTable>,
    /// The number of the next stored chunk.
    pub(super) next_chunk: u64,
}

/// The version that is edited, in the state of the file in which the commit began.
#[derive(Clone, Copy)]
pub(super) struct Base<'s> {
    pub(super) file: &'s VersionedFile,
    pub(super) snapshot: &'s Arc<Snapshot>,
    /// `None` where the new version has no parent.
    pub(super) version: Option<VersionIndex>,
}

impl Base<'_> {
    /// The dataset at `path` of the version, if it has one.
    pub(super) fn dataset(&self, path: &[u8]) -> Result<Option<Arc<Dataset>>, StoreError> {
        let Some(version) = self.version else {
            return Ok(None);
        };
        // A group may have become a dataset.
        let tree = self.snapshot.tree(version)?;
        let child = tree.child(path);
        if child.is_none_or(|child| matches!(child.kind, ChildKind::Group)) {
            return Ok(None);
        }
        self.file
            .own_dataset_in(self.snapshot, version, path)
            .map(Some)
    }

    /// What the file stores under `path`, in any version.
    fn stored(&self, path: &Arc<[u8]>) -> Result<Option<Stored>, StoreError> {
        // The version is for messages alone.
        let version = self.version.unwrap_or(VersionIndex(0));
        if self.snapshot.raw_places().find(path).is_none() {
            return Ok(None);
        }
        let Some(raw_data) = self.snapshot.raw_data(version, path)? else {
            return Ok(None);
        };
        let hashes = raw_data.hashes()?.clone();
        // A table that was rebuilt leaves out chunks that are stored twice, though versions map them.
        let last = hashes.last().map_or(0, |number| number + 1);
        let counted = hashes.rows.max(last);
        let rows = raw_data.header.dataspace.shape().first().copied();
        let has_more = rows.is_some_and(|rows| rows.div_ceil(raw_data.chunk_shape[0]) > counted);
        let stored = if has_more {
            let numbers = raw_data.table()?.stored().map(|(number, _)| number + 1);
            numbers.max().unwrap_or(0)
        } else {
            0
        };
        Ok(Some(Stored {
            next_chunk: counted.max(stored),
            raw_data,
            hashes,
        }))
    }
}

impl<'n> Plan<'n> {
    /// Settles what is to become of the dataset at `path`.
    ///
    /// # Errors
    /// [`CommitError`]: the description contradicts itself or what the file stores under that path, the length is not that of an array, or the
    /// base cannot be read.
    pub(super) fn new(
        path: &Arc<[u8]>,
        written: &WrittenDataset<'n>,
        base: Base<'_>,
    ) -> Result<Self, CommitError> {
        let said = &written.description;
        let wrong = |error: DescriptionError| CommitError::Description {
            dataset: path.to_vec(),
            error,
        };
        let stored = base.stored(path)?;
        // What is replaced as a whole need not be readable.
        let needs_base = written.edits_base || said.shape.is_none();
        let before = if needs_base {
            base.dataset(path)?
        } else {
            None
        };
        let datatype = settle_datatype(path, said.datatype.as_ref(), stored.as_ref())?;
        let inner = inner_axes(path, written, stored.as_ref(), before.as_deref())?;
        let shape = settle_shape(
            path,
            written.bytes,
            &datatype,
            said.shape.as_deref(),
            &inner,
        )?;
        let element_bytes = datatype.size as u64;
        let chunk_shape = settle(
            path,
            "chunk shape",
            said.chunk_shape.clone(),
            stored
                .as_ref()
                .map(|stored| stored.raw_data.chunk_shape.clone()),
            |shape| format!("{shape:?}"),
        )?
        .unwrap_or_else(|| default_chunk_shape(&shape, element_bytes));
        check_chunks(&shape, &chunk_shape, element_bytes).map_err(wrong)?;
        let fill = settle_fill(path, said.fill_value.as_deref(), &datatype, stored.as_ref())?;
        let filters = match &said.filters {
            Some(filters) => {
                Some(complete_filters(filters, &datatype, &chunk_shape).map_err(wrong)?)
            }
            None => None,
        };
        let filters = settle_filters(path, filters, stored.as_ref())?;
        let impossible = || {
            wrong(DescriptionError::Shape {
                what: "shape",
                shape: shape.clone(),
                problem: "no file is that long",
            })
        };
        let cells = Cells::new(&shape, &chunk_shape, datatype.size).ok_or_else(impossible)?;
        let pipeline =
            Pipeline::new(&filters, datatype.size, cells.chunk_bytes).map_err(|error| {
                CommitError::Encode {
                    dataset: path.to_vec(),
                    error,
                }
            })?;
        // Edited bytes that were not written are the base's, which then lie where they lay, or have to be read.
        let is_same_grid = |dataset: &Dataset| {
            let shape_before = dataset.header.dataspace.shape();
            shape_before.get(1..) == shape.get(1..)
                && dataset.header.datatype == datatype
                && dataset.chunk_shape == chunk_shape
                && dataset.chunked().is_some_and(|chunked| {
                    chunked
                        .raw_data()
                        .is_none_or(|raw_data| raw_data.path == *path)
                })
        };
        let kept = before.filter(|dataset| written.edits_base && is_same_grid(dataset));
        let is_text = datatype.is_vlen_string();
        let fill_is_zero = fill
            .as_ref()
            .is_none_or(|fill| fill.iter().all(|&byte| byte == 0));
        Ok(Self {
            path: path.clone(),
            bytes: written.bytes,
            looks_at_all: is_text
                || !fill_is_zero && kept.is_none()
                || written.edits_base && kept.is_none(),
            datatype,
            shape,
            chunk_shape,
            fill,
            filters,
            pipeline,
            cells,
            stored,
            base: kept,
        })
    }

    /// The base version's dataset, where what it maps still holds.
    pub(super) fn base(&self) -> Option<&Dataset> {
        // Of text, which has to be read as a whole, each cell is looked at.
        self.base.as_deref().filter(|_| !self.looks_at_all)
    }

    /// What of the base version still holds.
    pub(super) fn base_cells(&self) -> Option<BaseCells<'_>> {
        let base = self.base()?;
        Some(BaseCells {
            shape: base.header.dataspace.shape(),
            map: base.chunked()?.map(),
        })
    }

    /// The cells that have to be hashed, sorted.
    pub(super) fn changed_cells(&self) -> Vec<u64> {
        if self.looks_at_all {
            return (0..self.cells.len()).collect();
        }
        let fill_is_zero = self.fill().iter().all(|&byte| byte == 0);
        self.cells
            .changed(self.bytes, self.base_cells(), !fill_is_zero)
    }

    /// One element of fill value.
    pub(super) fn fill(&self) -> Vec<u8> {
        self.fill
            .clone()
            .unwrap_or_else(|| vec![0; self.datatype.size])
    }

    /// The filters as a dataset's header has them.
    pub(super) fn header_filters(&self) -> Vec<Filter> {
        self.filters
            .iter()
            .map(|filter| Filter {
                id: filter.id,
                flags: filter.flags,
                name: None,
                parameters: filter.parameters.clone(),
            })
            .collect()
    }

    /// The first number that a new chunk gets.
    pub(super) fn next_chunk(&self) -> u64 {
        self.stored.as_ref().map_or(0, |stored| stored.next_chunk)
    }
}

/// What was said, which must be what is stored, if anything is.
fn settle<T: PartialEq>(
    path: &[u8],
    what: &'static str,
    said: Option<T>,
    stored: Option<T>,
    show: impl Fn(&T) -> String,
) -> Result<Option<T>, CommitError> {
    match (said, stored) {
        (Some(said), Some(stored)) if said != stored => Err(CommitError::Differs {
            dataset: path.to_vec(),
            what,
            given: show(&said),
            stored: show(&stored),
        }),
        (said, stored) => Ok(stored.or(said)),
    }
}

/// Types that have one description are one: it does not say, for one, how a string is padded.
fn settle_datatype(
    path: &[u8],
    said: Option<&Datatype>,
    stored: Option<&Stored>,
) -> Result<Datatype, CommitError> {
    let there = stored.map(|stored| &stored.raw_data.header.datatype);
    settle(
        path,
        "type",
        said.map(numpy_descr),
        there.map(numpy_descr),
        ToString::to_string,
    )?;
    let datatype = match there.or(said) {
        Some(datatype) => datatype.clone(),
        None => integer(1, false, ByteOrder::Little),
    };
    let is_writable = datatype.size > 0
        && (datatype.is_vlen_string() || !datatype.contains_pointers())
        && !matches!(datatype.class, Class::Time { .. });
    if is_writable {
        Ok(datatype)
    } else {
        Err(CommitError::Type {
            dataset: path.to_vec(),
        })
    }
}

/// The axes behind the first: as was said, else as the dataset had them before.
fn inner_axes(
    path: &[u8],
    written: &WrittenDataset<'_>,
    stored: Option<&Stored>,
    before: Option<&Dataset>,
) -> Result<Vec<u64>, CommitError> {
    let said = &written.description;
    let shape = said
        .shape
        .as_deref()
        .or_else(|| Some(before?.header.dataspace.shape()).filter(|shape| !shape.is_empty()));
    let chunk_rank = stored
        .map(|stored| stored.raw_data.chunk_shape.len())
        .or(said.chunk_shape.as_ref().map(Vec::len));
    match (shape, chunk_rank) {
        (Some(shape), Some(rank)) if shape.len() != rank => Err(CommitError::Differs {
            dataset: path.to_vec(),
            what: "number of axes",
            given: shape.len().to_string(),
            stored: rank.to_string(),
        }),
        (Some(shape), _) => Ok(shape.get(1..).unwrap_or_default().to_vec()),
        (None, None | Some(1)) => Ok(Vec::new()),
        (None, Some(_)) => Err(CommitError::Description {
            dataset: path.to_vec(),
            error: DescriptionError::ShapeMissing,
        }),
    }
}

/// The whole shape: the first axis follows the length of the bytes.
fn settle_shape(
    path: &[u8],
    bytes: &dyn StagedBytes,
    datatype: &Datatype,
    said: Option<&[u64]>,
    inner: &[u64],
) -> Result<Vec<u64>, CommitError> {
    let unit = if inner.is_empty() { "elements" } else { "rows" };
    let row_elements = inner
        .iter()
        .try_fold(1u64, |n, &extent| n.checked_mul(extent));
    let (len, row) = if datatype.is_vlen_string() {
        (text_lines::count(path, bytes)?, row_elements)
    } else {
        let row = row_elements.and_then(|n| n.checked_mul(datatype.size as u64));
        (bytes.len_bytes(), row)
    };
    let wrong = |unit_bytes| CommitError::Length {
        dataset: path.to_vec(),
        len_bytes: len,
        unit,
        unit_bytes,
    };
    let row = row.ok_or_else(|| wrong(u64::MAX))?;
    let rows = match len.checked_rem(row) {
        Some(0) => len / row,
        // Rows of nothing: how many there are is only in what was said.
        None if len == 0 => said.and_then(|shape| shape.first().copied()).unwrap_or(0),
        _ => return Err(wrong(row)),
    };
    Ok([&[rows], inner].concat())
}

fn settle_fill(
    path: &[u8],
    said: Option<&[u8]>,
    datatype: &Datatype,
    stored: Option<&Stored>,
) -> Result<Option<Vec<u8>>, CommitError> {
    let said = said
        .map(|text| parse_fill_value(text, datatype))
        .transpose()
        .map_err(|error| CommitError::Description {
            dataset: path.to_vec(),
            error,
        })?
        .flatten();
    if datatype.is_vlen_string() {
        return Ok(None);
    }
    let zeros = || vec![0; datatype.size];
    let there = stored.map(|stored| {
        stored
            .raw_data
            .header
            .fill_value
            .clone()
            .filter(|fill| fill.len() == datatype.size)
            .unwrap_or_else(zeros)
    });
    let fill = settle(path, "fill value", said, there, |fill| {
        format!("0x{}", hexadecimal(fill))
    })?;
    Ok(Some(fill.unwrap_or_else(zeros)))
}

/// How a filter was named, and whether it may be left out, is not compared.
fn settle_filters(
    path: &[u8],
    said: Option<Vec<FilterSpec>>,
    stored: Option<&Stored>,
) -> Result<Vec<FilterSpec>, CommitError> {
    let Some(stored) = stored else {
        return Ok(said.unwrap_or_default());
    };
    let there = filter_specs(&stored.raw_data.header.filters);
    let essence = |filters: &[FilterSpec]| -> Vec<(u16, Vec<u32>)> {
        filters
            .iter()
            .map(|filter| (filter.id, filter.parameters.clone()))
            .collect()
    };
    settle(
        path,
        "filter pipeline",
        said.as_deref().map(essence),
        Some(essence(&there)),
        |filters| format!("{filters:?}"),
    )?;
    Ok(there)
}
