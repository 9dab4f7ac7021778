//! Which stored chunk is to be in each changed cell: hashed, known again, or numbered as a new one.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;

use super::plan::Plan;
use super::text_lines;
use crate::h5::{Address, H5Error};
use crate::store::chunk_hash::{ChunkHash, hash_chunk, hash_texts};
use crate::store::json::HeapData;
use crate::store::{CommitError, CommitProgress};

/// Bytes of chunks that are worked on at once. What threads allocate stays with the allocator's arenas, of which there are several for each core,
/// so that many times this is taken for good.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes of the array that are read at once for chunks whose rows are short.
const WINDOW_BYTES: usize = 32 << 20;
/// What lies between short rows is read too where that is no more than so many times what is wanted.
const WORTH_READING: u64 = 8;

/// What is made of the chunk of a cell.
pub(super) type OfChunk<'f, T> = dyn Fn(&[u8], u64) -> Result<T, CommitError> + Sync + 'f;

/// What the changed cells of a dataset are to map.
pub(super) struct Hashed {
    /// By cell, sorted: the number of a stored chunk, or none for fill value.
    pub(super) cells: Vec<(u64, Option<u64>)>,
    /// Chunks that the file does not have. Their numbers follow each other from [`Plan::next_chunk`] on.
    pub(super) new_chunks: Vec<NewChunk>,
}

/// A chunk that is to be stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewChunk {
    /// A cell that has it.
    pub(super) cell: u64,
    pub(super) hash: ChunkHash,
    /// Its extent along the first axis.
    pub(super) rows: u64,
}

impl Hashed {
    /// Every mapped cell of the new dataset with its stored chunk, in the order of cells.
    pub(super) fn mapped<'h>(
        &'h self,
        plan: &'h Plan<'_>,
    ) -> impl Iterator<Item = (u64, u64)> + 'h {
        let mut kept = plan.cells.kept(plan.base_cells()).peekable();
        let mut changed = self.cells.iter().copied().peekable();
        std::iter::from_fn(move || {
            loop {
                let next_changed = changed.peek().map(|entry| entry.0);
                match kept.peek() {
                    Some(&(cell, chunk)) if next_changed.is_none_or(|next| cell < next) => {
                        kept.next();
                        return Some((cell, chunk));
                    }
                    Some(&(cell, _)) if next_changed == Some(cell) => {
                        kept.next();
                    }
                    _ => {
                        if let (cell, Some(chunk)) = changed.next()? {
                            return Some((cell, chunk));
                        }
                    }
                }
            }
        })
    }
}

/// Hashes the changed cells of a dataset.
///
/// # Errors
/// [`CommitError::Staged`], [`CommitError::Text`].
pub(super) fn hash_cells(
    plan: &Plan<'_>,
    threads: usize,
    progress: &CommitProgress,
) -> Result<Hashed, CommitError> {
    let changed = plan.changed_cells();
    progress.will_hash(changed.len() as u64);
    let hashes = if plan.datatype.is_vlen_string() {
        let hashes = hash_text(plan)?;
        progress.has_hashed(hashes.len() as u64);
        hashes
    } else {
        let mut hashes = Vec::with_capacity(changed.len());
        for_each_batch(
            plan,
            &changed,
            threads,
            &|chunk, cell| Ok(hash_of(plan, chunk, cell)),
            &mut |found: Vec<Option<ChunkHash>>| {
                progress.has_hashed(found.len() as u64);
                hashes.extend(found);
                Ok::<(), CommitError>(())
            },
        )?;
        hashes
    };
    Ok(number(plan, &changed, &hashes))
}

/// Calls `each`, in `threads` threads, with the chunk of every one of `cells`, which are sorted, and `take` with what it gave, batch by batch
/// in the order of `cells`. While `take` has one batch, the next one is made.
///
/// # Errors
/// Those of `each` and `take`; [`CommitError::Staged`].
pub(super) fn for_each_batch<T: Send, E: From<CommitError>>(
    plan: &Plan<'_>,
    cells: &[u64],
    threads: usize,
    each: &OfChunk<'_, T>,
    take: &mut dyn FnMut(Vec<T>) -> Result<(), E>,
) -> Result<(), E> {
    let maker = BatchMaker {
        plan,
        threads: threads.max(1),
        each,
    };
    if cells.len() <= maker.batch_len() {
        let mut taken = Ok(());
        maker.make_all(cells, &mut |found| {
            taken = found.map_err(E::from).and_then(&mut *take);
            taken.is_ok()
        });
        return taken;
    }
    thread::scope(|scope| {
        let (hand_over, batches) = mpsc::sync_channel(1);
        let maker = &maker;
        scope.spawn(move || maker.make_all(cells, &mut |found| hand_over.send(found).is_ok()));
        batches.iter().try_for_each(|found| take(found?))
    })
}

/// Makes something of chunks, a batch at a time.
struct BatchMaker<'m, T> {
    plan: &'m Plan<'m>,
    threads: usize,
    each: &'m OfChunk<'m, T>,
}

impl<T: Send> BatchMaker<'_, T> {
    /// Chunks of a batch: one for each thread at least, unless they are large.
    fn batch_len(&self) -> usize {
        let chunks_in = |bytes: usize| bytes / self.plan.cells.chunk_bytes.max(1);
        let one_each = self.threads.min(chunks_in(WINDOW_BYTES));
        chunks_in(BATCH_BYTES).max(one_each).max(1)
    }

    /// Calls `take` with each batch, in the order of `cells`, until that says `false`, or with why there is none.
    fn make_all(&self, cells: &[u64], take: &mut dyn FnMut(Result<Vec<T>, CommitError>) -> bool) {
        let mut rest = cells;
        while !rest.is_empty() {
            let (run, span) = next_run(self.plan, rest);
            rest = &rest[run.len()..];
            let window = match span.map(|span| Window::read(self.plan, span)).transpose() {
                Ok(window) => window,
                Err(error) => {
                    take(Err(error));
                    return;
                }
            };
            for batch in run.chunks(self.batch_len()) {
                let found = self.make(batch, window.as_ref());
                let is_last = found.is_err();
                if !take(found) || is_last {
                    return;
                }
            }
        }
    }

    /// One batch, in all threads. Not in the pool that decodes: who waits for a chunk there takes up other work, and would meet its own locks.
    fn make(&self, batch: &[u64], window: Option<&Window>) -> Result<Vec<T>, CommitError> {
        let part = batch.len().div_ceil(self.threads);
        thread::scope(|scope| {
            let (first, others) = batch.split_at(part);
            let running: Vec<_> = others
                .chunks(part)
                .map(|cells| scope.spawn(move || self.make_in_order(cells, window)))
                .collect();
            let mut found = self.make_in_order(first, window)?;
            for thread in running {
                let more = thread.join();
                found.extend(more.unwrap_or_else(|panic| resume_unwind(panic))?);
            }
            Ok(found)
        })
    }

    fn make_in_order(&self, cells: &[u64], window: Option<&Window>) -> Result<Vec<T>, CommitError> {
        let fill = self.plan.fill();
        let mut chunk = vec![0; self.plan.cells.chunk_bytes];
        let mut read = |offset: u64, buffer: &mut [u8]| match window {
            Some(window) => {
                window.copy(offset, buffer);
                Ok(())
            }
            None => read_staged(self.plan, offset, buffer),
        };
        let of_cell = |&cell: &u64| {
            let cells = &self.plan.cells;
            cells.read(cell, &fill, &mut chunk, &mut read)?;
            (self.each)(&chunk, cell)
        };
        cells.iter().map(of_cell).collect()
    }
}

/// The leading ones of `cells` that are read alike, and the part of the array to read at once for them, where that is better than
/// reading row by row.
fn next_run<'c>(plan: &Plan<'_>, cells: &'c [u64]) -> (&'c [u64], Option<Range<u64>>) {
    if !plan.cells.has_short_rows() {
        return (cells, None);
    }
    let chunk_bytes = plan.cells.chunk_bytes.max(1);
    let most = (WINDOW_BYTES / chunk_bytes).clamp(1, cells.len());
    let span = |count: usize| plan.cells.span(cells[0], cells[count - 1]);
    let len_of = |count: usize| {
        let span = span(count);
        span.end - span.start
    };
    let count = (1..=most).take_while(|&count| len_of(count) <= WINDOW_BYTES as u64);
    match count.last() {
        Some(count) if (count * chunk_bytes) as u64 >= len_of(count) / WORTH_READING => {
            (&cells[..count], Some(span(count)))
        }
        _ => (&cells[..most], None),
    }
}

/// A part of the array in memory.
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn read(plan: &Plan<'_>, span: Range<u64>) -> Result<Self, CommitError> {
        let len = usize::try_from(span.end - span.start).expect("no longer than a batch");
        let mut bytes = vec![0; len];
        read_staged(plan, span.start, &mut bytes)?;
        Ok(Self {
            start: span.start,
            bytes,
        })
    }

    fn copy(&self, offset: u64, buffer: &mut [u8]) {
        let start = usize::try_from(offset - self.start).expect("within a batch");
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
    }
}

fn read_staged(plan: &Plan<'_>, offset: u64, buffer: &mut [u8]) -> Result<(), CommitError> {
    plan.bytes
        .read_exact_at(offset, buffer)
        .map_err(|error| CommitError::Staged {
            dataset: plan.path.to_vec(),
            error,
        })
}

/// The hash of a chunk; `None` for a whole one that is nothing but fill value, which is not stored.
fn hash_of(plan: &Plan<'_>, chunk: &[u8], cell: u64) -> Option<ChunkHash> {
    struct NoPointers;

    impl HeapData for NoPointers {
        fn read_vlen(&self, _: &[u8; 16], _: usize) -> Result<Vec<u8>, H5Error> {
            Err(H5Error::Damaged {
                structure: "element",
                address: Address::UNDEFINED,
                what: "it has no pointer to follow",
            })
        }
    }

    let fill = plan.fill();
    if plan.cells.is_whole(cell)
        && chunk
            .chunks_exact(fill.len())
            .all(|element| element == fill)
    {
        return None;
    }
    let extent = plan.cells.extent(cell);
    let hash = hash_chunk(
        &plan.datatype,
        chunk,
        &plan.chunk_shape,
        &extent,
        &NoPointers,
    );
    Some(hash.expect("a chunk of its own length and extent, of a type without pointers"))
}

/// The hashes of all cells of a text.
fn hash_text(plan: &Plan<'_>) -> Result<Vec<Option<ChunkHash>>, CommitError> {
    let mut hashes = Vec::new();
    text_lines::for_each_cell(
        &plan.path,
        plan.bytes,
        &plan.shape,
        &plan.chunk_shape,
        &plan.cells,
        |cell, texts| {
            let is_fill = plan.cells.is_whole(cell) && texts.iter().all(|text| text.is_empty());
            let extent = plan.cells.extent(cell);
            hashes.push((!is_fill).then(|| hash_texts(texts.into_iter(), &extent)));
            Ok(())
        },
    )?;
    Ok(hashes)
}

/// Numbers the chunks that are new in the order in which the library stores them.
fn number(plan: &Plan<'_>, changed: &[u64], hashes: &[Option<ChunkHash>]) -> Hashed {
    let wanted: HashSet<ChunkHash> = hashes.iter().flatten().copied().collect();
    let mut known = match &plan.stored {
        Some(stored) => stored.hashes.first_of(&wanted),
        None => HashMap::new(),
    };
    let first = plan.next_chunk();
    let mut new_chunks: Vec<NewChunk> = Vec::new();
    let hash_at = |cell: u64| {
        let place = changed
            .binary_search(&cell)
            .expect("one of the changed cells");
        hashes[place]
    };
    for cell in plan.cells.storing_order(changed, plan.base_cells()) {
        if let Some(hash) = hash_at(cell) {
            known.entry(hash).or_insert_with(|| {
                new_chunks.push(NewChunk {
                    cell,
                    hash,
                    rows: plan.cells.extent(cell)[0],
                });
                first + new_chunks.len() as u64 - 1
            });
        }
    }
    let cells = changed
        .iter()
        .zip(hashes)
        .map(|(&cell, hash)| (cell, hash.map(|hash| known[&hash])))
        .collect();
    Hashed { cells, new_chunks }
}
