//! A check of a whole file: everything that it says is held against everything else that it says, and every stored chunk against its
//! SHA-256.
//!
//! What one look can find is found in this order: what versions say of themselves; the groups and datasets of each version, where those that
//! a version has as its parent has them are looked at once; then, for one dataset path after the other, the rows of its hash table, the mappings of
//! all its versions, and the stored chunks, each read, decoded and hashed once. Damage never ends the check: it is a finding, and
//! what lies behind it is left out. Nothing is written.
//!
//! Memory does not grow with the data: some 200 bytes for each stored chunk of the one dataset path that is being checked, 4 to 8 for each
//! chunk of the versions that are compared with it at the same time (one for each thread), two chunks for each thread, and what a mount
//! keeps to know which versions share their datasets.

mod chunks;
mod finding;
mod findings;
mod mappings;
mod rows;
mod versions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

pub use finding::{AffectedVersions, Damage, Fact, Finding, Note, TableDamage};

use super::dataset::Shared;
use super::file_state::{SharedStates, new_epoch};
use super::raw_data::{Earlier, RawData};
use super::raw_places::RawPlace;
use super::tree::ChildKind;
use super::{
    ElementBox, RevisionError, Snapshot, StoreError, StoreOptions, Unverifiable, VersionIndex,
    VersionedFile,
};
use crate::codec::CodecError;
use crate::h5::{ChunkTable, H5Error};
use chunks::{Claims, LostChunk, StoredChunks, Tally};
use findings::Findings;
use mappings::{Checked, Entry, Stored};

/// What is to be checked, and with how much effort.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Threads that read, decode and hash.
    pub threads: usize,
    /// One version alone, as [`History::resolve`](super::History::resolve) takes it.
    pub version: Option<Vec<u8>>,
    /// One dataset path alone.
    pub dataset: Option<Vec<u8>>,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Damage first, then notes; some 20,000 at most.
    pub findings: Vec<Finding>,
    /// How many damages there are, with those that are not listed.
    pub damages: u64,
    /// Finished versions that were checked.
    pub versions: u64,
    /// Dataset paths that were checked.
    pub datasets: u64,
    /// Stored chunks that are what their hashes say.
    pub chunks_right: u64,
    /// Stored chunks that could not be held against a hash.
    pub chunks_unverifiable: u64,
}

/// Why a file could not be checked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be opened, or is not a versioned file.
    #[error(transparent)]
    Open(StoreError),
    /// Another program wrote to it meanwhile.
    #[error("{} was written to while it was checked: try again when nobody writes", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// There is no such version to be checked.
    #[error("{}: {error}", path.display())]
    NoSuchVersion {
        /// The file.
        path: PathBuf,
        /// What was asked for, and why it is none.
        error: RevisionError,
    },
    /// There is no such dataset to be checked.
    #[error("{} has no dataset {} in what is to be checked", path.display(), dataset.escape_ascii())]
    NoSuchDataset {
        /// The file.
        path: PathBuf,
        /// As it was asked for.
        dataset: Vec<u8>,
    },
}

/// A check that goes on.
struct Run<'r> {
    snapshot: &'r Snapshot,
    shared: &'r Shared,
    options: &'r VerifyOptions,
    progress: &'r (dyn Fn(u64) + Sync),
    found: Findings,
    report: VerifyReport,
}

/// Checks the file at `path`. `progress` is called, from any thread, with the number of bytes of the file that were just checked.
///
/// # Errors
/// [`VerifyError`]. Damage is no error.
pub fn verify(
    path: &Path,
    options: &VerifyOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VerifyReport, VerifyError> {
    let store_options = StoreOptions {
        cache_bytes: 0,
        decode_threads: options.threads,
        verify: false,
    };
    let opened = VersionedFile::open_with(
        path,
        &store_options,
        SharedStates {
            may_be_cut: true,
            ..SharedStates::default()
        },
    );
    let file = match opened {
        Ok(file) => file,
        Err(StoreError::Damaged { error, .. }) if !matches!(error, H5Error::Unsupported { .. }) => {
            // That it is cut short explains more than where that was noticed.
            let reason = match VersionedFile::open(path, &store_options) {
                Err(StoreError::Damaged { error, .. }) => error,
                _ => error,
            };
            return Ok(VerifyReport {
                findings: vec![Finding::new(Fact::Damage(Damage::File(reason)))],
                damages: 1,
                ..VerifyReport::default()
            });
        }
        Err(error) => return Err(VerifyError::Open(error)),
    };
    let snapshot = file.look();
    let run = Run {
        snapshot: &snapshot,
        shared: &file.shared,
        options,
        progress,
        found: Findings::default(),
        report: VerifyReport::default(),
    };
    let report = run.check(path);
    if snapshot.file.is_unchanged() {
        report
    } else {
        Err(VerifyError::Changed {
            path: path.to_owned(),
        })
    }
}

impl VerifyOptions {
    fn wants(&self, path: &[u8]) -> bool {
        self.dataset.as_ref().is_none_or(|wanted| wanted == path)
    }
}

impl Run<'_> {
    fn check(mut self, path: &Path) -> Result<VerifyReport, VerifyError> {
        if let Some(error) = self.snapshot.file.h5.missing_end() {
            self.found
                .push(Finding::new(Fact::Damage(Damage::File(error))));
        }
        let reader = self.snapshot.file.h5.reader();
        let history = self.snapshot.history();
        let only = match &self.options.version {
            None => None,
            Some(text) => {
                Some(
                    history
                        .resolve(text)
                        .map_err(|error| VerifyError::NoSuchVersion {
                            path: path.to_owned(),
                            error,
                        })?,
                )
            }
        };
        let versions = self.snapshot.versions_group();
        let only_name = only.map(|index| &*history.version(index).key.name);
        if let Err(error) = versions::check(&reader, versions, only_name, &mut self.found) {
            self.found
                .push(Finding::new(Fact::Damage(Damage::File(error))));
        }
        for (group, error) in &self.snapshot.raw_places().damaged {
            let group: Arc<[u8]> = [b"/_version_data/", &group[..]].concat().into();
            let fact = mappings::fact_of(error.clone());
            self.found.push(Finding::new(fact).of(&group));
        }
        let wanted: Vec<VersionIndex> = match only {
            Some(index) => vec![index],
            None => history.parents_first(),
        };
        self.report.versions = wanted.len() as u64;
        let mut by_source: BTreeMap<Arc<[u8]>, Vec<Entry>> = BTreeMap::new();
        for index in wanted {
            for entry in self.entries(index) {
                let source = entry.source(self.snapshot, &reader);
                by_source.entry(source).or_default().push(entry);
            }
        }
        if only.is_none() {
            // What versions left that are deleted is checked too.
            for source in self.snapshot.raw_places().found.keys() {
                if self.options.wants(source) {
                    by_source.entry(source.clone()).or_default();
                }
            }
        }
        if let (Some(dataset), true) = (&self.options.dataset, by_source.is_empty()) {
            return Err(VerifyError::NoSuchDataset {
                path: path.to_owned(),
                dataset: dataset.clone(),
            });
        }
        self.report.datasets = by_source.len() as u64;
        for (source, entries) in &by_source {
            if !self.snapshot.file.is_unchanged() {
                break;
            }
            self.check_path(source, entries);
        }
        (self.report.findings, self.report.damages) = self.found.finish();
        Ok(self.report)
    }

    /// The datasets of a version that are not those of its parent. Whatever else is wrong with the version's objects is found.
    fn entries(&mut self, index: VersionIndex) -> Vec<Entry> {
        let snapshot = self.snapshot;
        let version = snapshot.history().version(index);
        let name = &version.key.name;
        let tree = match snapshot.tree(index) {
            Ok(tree) => tree,
            Err(StoreError::Object { error, .. }) => {
                let fact = mappings::fact_of(error);
                self.found.push(Finding::new(fact).in_version(name));
                return Vec::new();
            }
            // The file was written to, which is looked at in the end.
            Err(_) => return Vec::new(),
        };
        let reader = snapshot.file.h5.reader();
        let mut entries = Vec::new();
        let mut groups = vec![(None, version.group)];
        let options = self.options;
        for child in tree.objects().filter(|child| options.wants(&child.path)) {
            match &child.kind {
                ChildKind::Group => groups.push((Some(&child.path), child.header)),
                ChildKind::Unreadable(error) | ChildKind::Dataset(Err(error)) => {
                    let fact = mappings::fact_of(error.clone());
                    self.found
                        .push(Finding::new(fact).of(&child.path).in_version(name));
                }
                ChildKind::Dataset(Ok(signature)) => {
                    let sharing = snapshot.sharing().ok();
                    let class = sharing.and_then(|sharing| {
                        let class = sharing.class_of(index, &child.path)?;
                        let is_own = self.options.version.is_some();
                        let is_same = sharing.maps_as_origin(class, signature);
                        (!is_own && is_same).then_some((class, sharing.class(class).origin))
                    });
                    if class.is_none_or(|(_, origin)| origin == index) {
                        let class = class.map(|(class, _)| class);
                        entries.push(Entry::new(index, &child.path, child.header, class));
                    }
                }
            }
        }
        for (path, group) in groups {
            for (_, fact) in mappings::check_group(snapshot, &reader, group) {
                let mut finding = Finding::new(fact).in_version(name);
                finding.object = path.cloned();
                self.found.push(finding);
            }
        }
        entries
    }

    /// All that is stored for one dataset path, and all that maps it.
    fn check_path(&mut self, source: &Arc<[u8]>, entries: &[Entry]) {
        let place = self.snapshot.raw_places().find(source).copied();
        let opened = place.map(|place| self.open(source, place));
        let raw_data = match opened {
            None => None,
            Some(Ok(raw_data)) => Some(raw_data),
            Some(Err(error)) => {
                self.raw_data_damaged(source, entries, error);
                return;
            }
        };
        let table = match raw_data.as_ref().map(RawData::table) {
            Some(Ok(table)) => Some(table),
            Some(Err(error)) => {
                self.raw_data_damaged(source, entries, error);
                None
            }
            None => None,
        };
        let with = raw_data.as_ref().map(|raw_data| (raw_data, table));
        let mut claims = match with {
            Some((raw_data, Some(table))) => Claims::new(&raw_data.chunk_shape, table.len_stored()),
            _ => Claims::new(&[], 0),
        };
        for batch in entries.chunks(self.options.threads.max(1)) {
            for (entry, checked) in batch.iter().zip(self.check_batch(batch, with)) {
                let (mapped, facts) = checked;
                self.found.extend(entry.findings(self.snapshot, facts));
                if let (Some(mapped), Some(table)) = (mapped, table) {
                    claims.add(&mapped, table);
                }
            }
        }
        if let (Some(place), Some((raw_data, Some(table)))) = (place, with) {
            self.check_stored(entries, place, raw_data, table, &claims);
        }
    }

    fn open(&self, source: &Arc<[u8]>, place: RawPlace) -> Result<RawData, StoreError> {
        let file = &self.snapshot.file;
        RawData::open(
            file,
            b"",
            source,
            place.raw_data,
            new_epoch(),
            None,
            Earlier::default(),
        )
        .map(RawData::keeping_lost_chunks)
    }

    fn raw_data_damaged(&mut self, source: &Arc<[u8]>, entries: &[Entry], error: StoreError) {
        let fact = match error {
            StoreError::Object { error, .. } | StoreError::RawData { error, .. } => match error {
                H5Error::Unsupported { .. } => Fact::Note(Note::UnsupportedForm(error)),
                error => Fact::Damage(Damage::RawData(error)),
            },
            StoreError::Inconsistent { what, .. } => Fact::Damage(Damage::Inconsistent { what }),
            StoreError::Filter { error, .. } => Fact::Note(Note::UnsupportedFilter(error)),
            // The file was written to, which is looked at in the end.
            _ => return,
        };
        let mut versions = AffectedVersions::default();
        for entry in entries {
            versions.extend(entry.versions(self.snapshot));
        }
        self.found
            .push(Finding::new(fact).of(source).in_versions(&versions));
    }

    /// What each of some datasets maps, and what is wrong with it. As many are to be given as there are threads.
    fn check_batch(&self, batch: &[Entry], raw_data: Option<Stored<'_>>) -> Vec<Checked> {
        let snapshot = self.snapshot;
        self.shared.workers.install(|| {
            batch
                .par_iter()
                .map(|entry| entry.check(snapshot, raw_data))
                .collect()
        })
    }

    fn check_stored(
        &mut self,
        entries: &[Entry],
        place: RawPlace,
        raw_data: &RawData,
        table: &ChunkTable,
        claims: &Claims,
    ) {
        let source = &raw_data.path;
        let hashes = rows::read(self.snapshot, raw_data, place, &mut self.found);
        match raw_data.pipeline() {
            Err(StoreError::Filter {
                error: error @ CodecError::BadParameters { .. },
                ..
            }) => {
                let damage = Damage::Filters(error);
                self.found
                    .push(Finding::new(Fact::Damage(damage)).of(source));
                return;
            }
            Err(StoreError::Filter { error, .. }) => {
                self.report.chunks_unverifiable += table.len_stored() as u64;
                let note = Note::UnsupportedFilter(error);
                self.found.push(Finding::new(Fact::Note(note)).of(source));
                return;
            }
            _ => {}
        }
        let stored = StoredChunks {
            raw_data,
            table,
            hashes: hashes.as_ref(),
            claims,
            mapped_only: self.options.version.is_some(),
            unverifiable: Unverifiable::of(&raw_data.header, self.snapshot.file.data_version),
        };
        let progress = self.progress;
        let tally = self.shared.workers.install(|| stored.check(progress));
        self.note(source, table, &tally);
        if !tally.damaged.is_empty() {
            self.locate(entries, raw_data, table, tally);
        }
    }

    /// What was found of chunks that are not damaged.
    fn note(&mut self, source: &Arc<[u8]>, table: &ChunkTable, tally: &Tally) {
        self.report.chunks_right += tally.right;
        self.report.chunks_unverifiable += tally.unmapped_unknown;
        let mut notes = Vec::new();
        if let Some((reason, chunks)) = tally.unverifiable {
            self.report.chunks_unverifiable += chunks;
            let of = table.len_stored() as u64;
            notes.push(Note::Unverifiable { chunks, of, reason });
        }
        if let Some(error) = &tally.unsupported {
            notes.push(Note::UnsupportedFilter(error.clone()));
        }
        let (chunks, bytes) = tally.garbage;
        let counted = [
            (
                tally.repeated,
                Note::Repeated {
                    chunks: tally.repeated,
                },
            ),
            (
                tally.unmapped,
                Note::Unmapped {
                    chunks: tally.unmapped,
                },
            ),
            (
                tally.unmapped_unknown,
                Note::UnmappedUnknown {
                    chunks: tally.unmapped_unknown,
                },
            ),
            (chunks, Note::Garbage { chunks, bytes }),
        ];
        notes.extend(
            counted
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(_, note)| note),
        );
        self.found.extend(
            notes
                .into_iter()
                .map(|note| Finding::new(Fact::Note(note)).of(source)),
        );
    }

    /// Names the versions and elements that are lost with damaged chunks.
    fn locate(&mut self, entries: &[Entry], raw_data: &RawData, table: &ChunkTable, tally: Tally) {
        self.found.omit(tally.omitted);
        let damaged: BTreeMap<u64, LostChunk> = tally.damaged.into_iter().collect();
        let mut places: BTreeMap<(u64, Arc<[u8]>, ElementBox), AffectedVersions> = BTreeMap::new();
        let with = Some((raw_data, Some(table)));
        for batch in entries.chunks(self.options.threads.max(1)) {
            for (entry, (mapped, _)) in batch.iter().zip(self.check_batch(batch, with)) {
                let Some(mapped) = mapped else {
                    continue;
                };
                for (cell, chunk) in mapped.cells() {
                    let Some(lost) = damaged.get(&chunk) else {
                        continue;
                    };
                    let elements = ElementBox::of_cell(cell, &mapped.shape, &raw_data.chunk_shape);
                    if !lost.spoils(&elements) {
                        continue;
                    }
                    let place = (chunk, entry.path.clone(), elements);
                    let versions = places.entry(place).or_default();
                    versions.extend(entry.versions(self.snapshot));
                }
            }
        }
        for (&chunk, lost) in &damaged {
            let is_mapped = places.range((chunk, Arc::default(), ElementBox::default())..);
            if is_mapped.take(1).any(|((first, ..), _)| *first == chunk) {
                continue;
            }
            let fact = Fact::Damage(lost.damage.clone());
            self.found
                .push(Finding::new(fact).of(&raw_data.path).with_chunk(chunk));
        }
        for ((chunk, path, elements), versions) in places {
            let fact = Fact::Damage(damaged[&chunk].damage.clone());
            let finding = Finding::new(fact).of(&path).at(elements);
            self.found
                .push(finding.with_chunk(chunk).in_versions(&versions));
        }
    }
}
