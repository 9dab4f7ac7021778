//! Writing a new version into the file.
//!
//! [`VersionedFile::commit`] is the list of its steps. What can be wrong is found first, with the file locked, so that nothing comes
//! between: names, descriptions, lengths, texts; the changed chunks are hashed, and those that the file does not have are numbered. Then
//! strings and mappings are appended to the file's heap, the C library writes everything else, and the virtual datasets are given their
//! mappings. Nothing that the file held is overwritten before the end, so until then old versions are read as ever, and an error
//! leaves the file as it was.
//!
//! The cost follows the change: of datasets that did not change nothing is read or written but the list of their chunks.

mod attributes;
mod cells;
mod checks;
mod hashing;
mod plan;
mod text_chunks;
mod text_lines;
mod writing;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::live::{PATIENCE, PAUSE};
use super::map_cache::MapKey;
use super::own_commit::{Added, RunningCommit};
use super::raw_data::raw_data_path;
use super::tree::MappingPlace;
use super::{
    CommitError, CommitProgress, CommitReport, Dataset, NewContent, NewObject, NewVersion,
    Snapshot, StoreError, VersionKey, VersionedFile,
};
use crate::h5::mapping::ChunkMap;
use crate::h5::writer::{
    FileWriter, HeapPlace, LibraryWriter, MappedShape, MappingBase, NewMappings, WriteError,
};
use crate::h5::{Address, H5Error, Layout, MetaReader};
use crate::source::{JournalFolder, Source, TransactionError};
use attributes::{AttributePlan, Owner};
use hashing::{Hashed, hash_cells};
use plan::{Base, Plan};
use text_chunks::{TextChunks, append_texts};
use writing::{EditError, Unmapped, VirtualSpec, object_path, whole_number};

/// What the parent of a version without one is called.
const FIRST_VERSION: &[u8] = b"__first_version__";

/// A version of which everything is settled that can be without writing.
struct Prepared<'n> {
    name: &'n [u8],
    timestamp: DateTime<Utc>,
    make_current: bool,
    parent: Vec<u8>,
    /// The layout number that the file is to be given.
    data_version: Option<i64>,
    attributes: AttributePlan,
    objects: Vec<PreparedObject<'n>>,
    progress: &'n CommitProgress,
}

struct PreparedObject<'n> {
    path: &'n [u8],
    attributes: AttributePlan,
    content: PreparedContent<'n>,
}

enum PreparedContent<'n> {
    Group,
    /// The object of the base version itself, absolute: of a form that cannot be made again.
    Link(Vec<u8>),
    /// The dataset of the base version, as an object of its own: versioned-hdf5's `modify_metadata` changes of several links to one object but
    /// the first, and leaves the others with mappings of what is no longer there.
    Again(Arc<Dataset>),
    Written(Box<(Plan<'n>, Hashed)>),
}

/// What is in the heap of a prepared object before the C library has its turn.
#[derive(Default)]
struct Appended {
    texts: Option<TextChunks>,
    mappings: Option<NewMappings>,
}

impl VersionedFile {
    /// Writes a version and returns once it is durable and [`VersionedFile::look`] gives a state that has it. The journal of that is in `folder`.
    ///
    /// # Errors
    /// [`CommitError`]; the file is then as it was. But see [`CommitError::Interrupted`].
    pub fn commit(
        &self,
        new: &NewVersion<'_>,
        folder: JournalFolder,
    ) -> Result<CommitReport, CommitError> {
        let _one_at_a_time = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let writer =
            FileWriter::begin(&self.path, folder).map_err(|error| self.write_error(error))?;
        let snapshot = self.locked_state(&writer)?;
        let prepared = self.prepare(new, &snapshot)?;
        let before = snapshot.identity();
        // Held until the new state was read: it is then known to differ from the one before by the new version alone.
        let locked = Arc::clone(writer.transaction());
        let running = self.states.own_commit.begin(before);
        let mappings = match self.write(writer, &prepared, &running) {
            Ok(mappings) => mappings,
            Err(error) => {
                if locked.is_applying() {
                    running.leave_half_changed();
                }
                // What was appended is taken back before anybody looks.
                drop(locked);
                return Err(error);
            }
        };
        running.publish(added_by(&prepared), snapshot.file.source.stamp());
        let version = VersionKey {
            name: new.name.as_slice().into(),
            timestamp_ns: prepared.timestamp.timestamp_nanos_opt().unwrap_or(0),
        };
        let snapshot = self.wait_for(&version);
        self.keep_maps(&prepared, &mappings, &snapshot, &version);
        drop(running);
        drop(locked);
        let (mut chunks_hashed, mut chunks_stored) = (0, 0);
        for object in &prepared.objects {
            if let PreparedContent::Written(written) = &object.content {
                chunks_hashed += written.1.cells.len() as u64;
                chunks_stored += written.1.new_chunks.len() as u64;
            }
        }
        Ok(CommitReport {
            grown_bytes: snapshot
                .identity()
                .len_bytes
                .saturating_sub(before.len_bytes),
            version,
            snapshot,
            chunks_hashed,
            chunks_stored,
        })
    }

    /// The state that the file is in now that nobody else can write to it.
    fn locked_state(&self, writer: &FileWriter) -> Result<Arc<Snapshot>, CommitError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let snapshot = self.look();
            let identity = writer
                .transaction()
                .identity()
                .map_err(|error| self.write_error(TransactionError::from(error).into()))?;
            if snapshot.identity() == identity {
                return Ok(snapshot);
            }
            if Instant::now() > deadline {
                return Err(CommitError::Read(StoreError::Unsettled {
                    path: self.path.clone(),
                }));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Finds everything that can be wrong, and hashes what changed.
    fn prepare<'n>(
        &self,
        new: &'n NewVersion<'n>,
        snapshot: &Arc<Snapshot>,
    ) -> Result<Prepared<'n>, CommitError> {
        checks::check_timestamp(new)?;
        checks::check_name(&new.name, snapshot, &self.path)?;
        let data_version = checks::check_layout(snapshot, &self.path)?;
        checks::check_versions_group(snapshot, &self.path)?;
        checks::check_paths(new, snapshot)?;
        let version = match &new.base {
            Some(key) => {
                let gone = || CommitError::BaseGone {
                    version: key.name.to_vec(),
                };
                Some(snapshot.history().by_key(key).ok_or_else(gone)?)
            }
            None => None,
        };
        let tree = version.map(|version| snapshot.tree(version)).transpose()?;
        checks::check_kinds(new, snapshot, tree.as_deref())?;
        let base = Base {
            file: self,
            snapshot,
            version,
        };
        let damaged = |error| checks::damaged(&self.path, error);
        let timestamp = new.timestamp;
        let in_microseconds = DateTime::from_timestamp_micros(timestamp.timestamp_micros())
            .ok_or(CommitError::Timestamp { timestamp })?;
        let parent = new.base.as_ref().map_or(FIRST_VERSION, |key| &key.name);
        let reader = snapshot.file.h5.reader();
        Ok(Prepared {
            name: &new.name,
            timestamp: in_microseconds,
            make_current: new.make_current,
            parent: parent.to_vec(),
            data_version,
            attributes: AttributePlan::new(b"", Owner::Version, &new.attributes, None, &damaged)?,
            objects: new
                .objects
                .iter()
                .map(|object| {
                    self.prepare_object(object, base, parent, &reader, &damaged, new.progress)
                })
                .collect::<Result<_, _>>()?,
            progress: new.progress,
        })
    }

    fn prepare_object<'n>(
        &self,
        object: &'n NewObject<'n>,
        base: Base<'_>,
        parent: &[u8],
        reader: &MetaReader,
        damaged: &dyn Fn(H5Error) -> CommitError,
        progress: &CommitProgress,
    ) -> Result<PreparedObject<'n>, CommitError> {
        let owner = match object.content {
            NewContent::Group => Owner::Group,
            _ => Owner::Dataset,
        };
        let from = object.attributes_from.as_deref();
        let header = match from {
            Some(from) => Some((reader, header_of(base, from, &object.path)?)),
            None => None,
        };
        let mut attributes =
            AttributePlan::new(&object.path, owner, &object.attributes, header, damaged)?;
        let content = match &object.content {
            NewContent::Group => PreparedContent::Group,
            NewContent::Unchanged => {
                header_of(base, &object.path, &object.path)?;
                let is_same = from == Some(&*object.path) && attributes.is_empty();
                match mapped_dataset(base, &object.path) {
                    Ok(Some(dataset)) => PreparedContent::Again(dataset),
                    // Damaged or of a form of its own, it stays what it is.
                    _ if is_same => PreparedContent::Link(object_path(parent, &object.path)),
                    Err(error) => return Err(error),
                    Ok(None) => {
                        return Err(CommitError::Unsupported {
                            object: object.path.to_vec(),
                            what: "its attributes cannot be changed, as it is not stored in the usual form",
                        });
                    }
                }
            }
            NewContent::Written(written) => {
                let plan = Plan::new(&object.path, written, base)?;
                let hashed = hash_cells(&plan, self.threads(), progress)?;
                PreparedContent::Written(Box::new((plan, hashed)))
            }
        };
        if !matches!(content, PreparedContent::Link(_))
            && let (Some(from), Some((reader, address))) = (from, header)
        {
            attributes
                .carry_over(object_path(parent, from), reader, address, owner)
                .map_err(damaged)?;
        }
        Ok(PreparedObject {
            path: &object.path,
            attributes,
            content,
        })
    }

    /// Keeps what the new version maps, which whoever looks at it next would have to decode otherwise. The file is still locked.
    fn keep_maps(
        &self,
        new: &Prepared<'_>,
        mappings: &[Option<NewMappings>],
        snapshot: &Snapshot,
        version: &VersionKey,
    ) {
        let Some(version) = snapshot.history().by_key(version) else {
            return;
        };
        for (object, mappings) in new.objects.iter().zip(mappings) {
            let Some(mappings) = mappings else {
                continue;
            };
            let (source, shape, map) = match &object.content {
                PreparedContent::Group | PreparedContent::Link(_) => continue,
                PreparedContent::Again(dataset) => {
                    let shape = dataset.header.dataspace.shape();
                    let map = dataset.chunked().and_then(|chunked| {
                        let chunk_shape = &dataset.chunk_shape;
                        chunked
                            .map()
                            .changed(shape, chunk_shape, &[], mappings.entry_bytes)
                    });
                    (Arc::from(source_of(dataset)), shape, map)
                }
                PreparedContent::Written(written) => {
                    let (plan, hashed) = &**written;
                    let map = mapped_by(plan, hashed, mappings.entry_bytes);
                    (plan.path.clone(), &*plan.shape, map)
                }
            };
            // Where there is none, the map is decoded when it is wanted; and so it is told what may be wrong with the raw data.
            if let (Some(map), Ok(Some(raw_data))) = (map, snapshot.raw_data(version, &source)) {
                let place = MappingPlace {
                    heap: mappings.place.address,
                    index: mappings.place.index,
                    len_bytes: mappings.len_bytes,
                    checksum: mappings.checksum,
                    hash: None,
                };
                let key = MapKey::new(raw_data.epoch, &place, shape);
                self.shared.maps.insert(key, Arc::new(map));
            }
        }
    }

    /// Writes all of it, and makes it durable. The mappings of each object, if it has any.
    fn write(
        &self,
        mut writer: FileWriter,
        new: &Prepared<'_>,
        running: &RunningCommit<'_>,
    ) -> Result<Vec<Option<NewMappings>>, CommitError> {
        let failed = |error| self.write_error(error);
        for object in &new.objects {
            if let PreparedContent::Written(written) = &object.content {
                new.progress.will_store(written.1.new_chunks.len() as u64);
            }
        }
        let mut appended = new
            .objects
            .iter()
            .map(|object| append(&mut writer, object, &failed))
            .collect::<Result<Vec<_>, _>>()?;
        // What the library is given may fail for a reason that is not the library's.
        let mut reason = None;
        let unmapped =
            writer.edit(
                |library| match self.write_by_library(library, new, &mut appended) {
                    Ok(unmapped) => Ok(unmapped),
                    Err(EditError::Write(error)) => Err(error),
                    Err(EditError::Commit(error)) => {
                        reason = Some(error);
                        Err(WriteError::Transaction(TransactionError::GivenUp))
                    }
                },
            );
        let unmapped = match (unmapped, reason) {
            (_, Some(reason)) => return Err(reason),
            (unmapped, None) => unmapped.map_err(failed)?,
        };
        for Unmapped { header, mappings } in unmapped {
            writer
                .set_virtual_mapping(header, mappings)
                .map_err(failed)?;
        }
        // What takes long is done while everything can still be read.
        writer
            .transaction()
            .sync_appended()
            .map_err(|error| failed(error.into()))?;
        running.apply();
        writer.finish().map_err(failed)?;
        Ok(appended
            .into_iter()
            .map(|appended| appended.mappings)
            .collect())
    }

    /// The part of the C library: everything but the mappings of virtual datasets.
    fn write_by_library(
        &self,
        library: &mut LibraryWriter,
        new: &Prepared<'_>,
        appended: &mut [Appended],
    ) -> Result<Vec<Unmapped>, EditError> {
        let mut unmapped = Vec::new();
        let group = writing::begin_version(library, new.name, &new.parent)?;
        for (object, appended) in new.objects.iter().zip(appended) {
            let path = [&group[..], object.path].join(&b'/');
            let header = match &object.content {
                PreparedContent::Group => {
                    library.create_group(&path)?;
                    None
                }
                PreparedContent::Link(existing) => {
                    library.hard_link(existing, &path)?;
                    continue;
                }
                PreparedContent::Again(dataset) => {
                    let spec = spec_of(&path, dataset);
                    Some(writing::create_virtual(library, &spec)?)
                }
                PreparedContent::Written(written) => {
                    let (plan, hashed) = &**written;
                    let texts = appended.texts.take();
                    let threads = self.threads();
                    writing::write_chunks(library, plan, hashed, texts, threads, new.progress)?;
                    let spec = VirtualSpec {
                        path: &path,
                        source: &plan.path,
                        shape: &plan.shape,
                        chunk_shape: &plan.chunk_shape,
                        fill: plan.fill.as_deref(),
                    };
                    Some(writing::create_virtual(library, &spec)?)
                }
            };
            object.attributes.write(library, &path)?;
            if let (Some(header), Some(mappings)) = (header, appended.mappings) {
                let mappings = mappings.place;
                unmapped.push(Unmapped { header, mappings });
            }
        }
        writing::finish_version(library, &group, new.timestamp, &new.attributes)?;
        if new.make_current {
            let name = writing::text(new.name);
            attributes::set(library, writing::VERSIONS, b"current_version", &name)?;
        }
        if let Some(number) = new.data_version {
            let number = whole_number(number);
            attributes::set(library, writing::VERSIONS, b"data_version", &number)?;
        }
        Ok(unmapped)
    }

    /// The state that has a version which was just written.
    fn wait_for(&self, version: &VersionKey) -> Arc<Snapshot> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let snapshot = self.look();
            if snapshot.history().by_key(version).is_some() {
                return snapshot;
            }
            if Instant::now() > deadline {
                // It is in the file; another program goes on writing, and so no state of the file can be read.
                log::warn!(
                    "version {} was written, but {} keeps changing",
                    version.name.escape_ascii(),
                    self.path.display()
                );
                return snapshot;
            }
            thread::sleep(PAUSE);
        }
    }

    fn threads(&self) -> usize {
        self.shared.workers.current_num_threads()
    }

    fn write_error(&self, error: WriteError) -> CommitError {
        write_error(&self.path, error)
    }
}

/// What an error of writing to the file at `path` means to a commit.
fn write_error(path: &Path, error: WriteError) -> CommitError {
    let path = path.to_owned();
    let reason = match &error {
        WriteError::Transaction(TransactionError::Busy) => return CommitError::Busy { path },
        WriteError::Transaction(TransactionError::Interrupted { error, left }) => {
            return CommitError::Interrupted {
                path,
                error: error.clone(),
                left: *left,
            };
        }
        WriteError::Transaction(error) => error.io_error().cloned(),
        _ => None,
    };
    let Some(reason) = reason else {
        return CommitError::Write { path, error };
    };
    match reason.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            CommitError::NoSpace {
                path,
                error: reason,
            }
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            CommitError::ReadOnly {
                path,
                error: reason,
            }
        }
        _ => CommitError::Write { path, error },
    }
}

/// The header of the object at `path` of the base version, for the new object at `object`.
fn header_of(base: Base<'_>, path: &[u8], object: &[u8]) -> Result<Address, CommitError> {
    let missing = || CommitError::BadPath {
        path: object.to_vec(),
        what: "the version that it is taken from has nothing there",
    };
    let version = base.version.ok_or_else(missing)?;
    let tree = base.snapshot.tree(version)?;
    tree.child(path)
        .map(|child| child.header)
        .ok_or_else(missing)
}

/// The dataset at `path` of the base version; `None` if its mappings cannot be written again.
fn mapped_dataset(base: Base<'_>, path: &[u8]) -> Result<Option<Arc<Dataset>>, CommitError> {
    let is_mapped = |dataset: &Arc<Dataset>| {
        dataset
            .chunked()
            .is_some_and(|chunked| chunked.raw_data().is_some())
    };
    Ok(base.dataset(path)?.filter(is_mapped))
}

/// What a dataset that is made again is made like.
fn spec_of<'d>(path: &'d [u8], dataset: &'d Dataset) -> VirtualSpec<'d> {
    VirtualSpec {
        path,
        source: source_of(dataset),
        shape: dataset.header.dataspace.shape(),
        chunk_shape: &dataset.chunk_shape,
        fill: dataset
            .header
            .fill_value
            .as_deref()
            .filter(|_| !dataset.header.datatype.contains_pointers()),
    }
}

/// The path of the dataset whose raw data a dataset maps.
fn source_of(dataset: &Dataset) -> &[u8] {
    dataset
        .chunked()
        .and_then(|chunked| chunked.raw_data())
        .map_or(&dataset.path, |raw_data| &raw_data.path)
}

/// Appends what an object has in the heap.
fn append(
    writer: &mut FileWriter,
    object: &PreparedObject<'_>,
    failed: &dyn Fn(WriteError) -> CommitError,
) -> Result<Appended, CommitError> {
    match &object.content {
        PreparedContent::Group | PreparedContent::Link(_) => Ok(Appended::default()),
        PreparedContent::Again(dataset) => {
            let source_dataset = raw_data_path(source_of(dataset));
            let mapped = MappedShape {
                source_dataset: &source_dataset,
                shape: dataset.header.dataspace.shape(),
                chunk_shape: &dataset.chunk_shape,
            };
            let mappings = append_mappings(writer, &mapped, Some(dataset), &[], || {
                let chunks = dataset.chunked().into_iter();
                chunks.flat_map(|chunked| chunked.map().mapped())
            });
            Ok(Appended {
                texts: None,
                mappings: mappings.map_err(failed)?,
            })
        }
        PreparedContent::Written(written) => {
            let (plan, hashed) = &**written;
            let texts = if plan.datatype.is_vlen_string() {
                Some(append_texts(writer, plan, hashed, failed)?)
            } else {
                None
            };
            let source_dataset = raw_data_path(&plan.path);
            let mapped = MappedShape {
                source_dataset: &source_dataset,
                shape: &plan.shape,
                chunk_shape: &plan.chunk_shape,
            };
            let mappings = append_mappings(writer, &mapped, plan.base(), &hashed.cells, || {
                hashed.mapped(plan)
            })
            .map_err(failed)?;
            Ok(Appended { texts, mappings })
        }
    }
}

/// Appends the mappings of a dataset: those of `base` but for the `changed` cells, which are `all` that it has.
fn append_mappings<I: Iterator<Item = (u64, u64)>>(
    writer: &mut FileWriter,
    mapped: &MappedShape<'_>,
    base: Option<&Dataset>,
    changed: &[(u64, Option<u64>)],
    all: impl FnOnce() -> I,
) -> Result<Option<NewMappings>, WriteError> {
    if let Some(base) = base
        && let Some(chunked) = base.chunked()
        && let Layout::Virtual {
            heap_address,
            heap_index,
        } = base.header.layout
    {
        let base = MappingBase {
            place: HeapPlace {
                address: heap_address,
                index: heap_index,
            },
            map: chunked.map(),
        };
        let patched = writer.append_patched_mapping_block(mapped, &base, changed)?;
        if patched.is_some() {
            return Ok(patched);
        }
    }
    writer.append_mapping_block(mapped, all())
}

/// What a written dataset maps; `None` where that is not worth keeping.
fn mapped_by(plan: &Plan<'_>, hashed: &Hashed, entry_bytes: Option<u64>) -> Option<ChunkMap> {
    let (shape, chunk_shape) = (&plan.shape, &plan.chunk_shape);
    match plan.base_cells() {
        Some(base) => base
            .map
            .changed(shape, chunk_shape, &hashed.cells, entry_bytes),
        None => ChunkMap::of(shape, chunk_shape, &hashed.cells, entry_bytes),
    }
}

/// What a version adds to the file.
fn added_by(new: &Prepared<'_>) -> Added {
    let is_new = |object: &&PreparedObject<'_>| match &object.content {
        PreparedContent::Written(written) => written.0.stored.is_none(),
        _ => false,
    };
    Added {
        version: new.name.into(),
        raw_data: new
            .objects
            .iter()
            .filter(is_new)
            .map(|object| Arc::from(object.path))
            .collect(),
    }
}
