//! From what is staged to a new version.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use chrono::{DateTime, TimeDelta, Timelike, Utc};

use super::change::{BaseVersion, CommitBegun, Record};
use super::staged_bytes::CommittedBytes;
use super::state::{Durable, State};
use super::tree::{Node, NodeContent};
use super::{CommitRequest, NodeId, Staging, StagingError};
use crate::source::JournalFolder;
use crate::store::{
    AttributeChange, CommitError, CommitReport, CommitState, Description, NewContent, NewObject,
    NewVersion, VersionKey, WrittenDataset,
};

/// What becomes of a dataset.
struct Written {
    is_edit: bool,
    description: Description,
    bytes: CommittedBytes,
}

/// An object of the next version.
struct Planned {
    path: Arc<[u8]>,
    node: Node,
    /// `None` for groups and for what is as in the base.
    written: Option<Written>,
}

impl Staging {
    /// Makes a version of what is staged, and starts over from it.
    ///
    /// # Errors
    /// [`StagingError::Commit`]; everything is then still staged.
    pub fn commit(&self, request: &CommitRequest) -> Result<CommitReport, StagingError> {
        self.refresh()?;
        let committed = {
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            self.progress.begin();
            self.is_committing.store(true, Ordering::Release);
            let committed = self
                .check_latch()
                .and_then(|()| self.commit_and_start_over(request));
            self.is_committing.store(false, Ordering::Release);
            committed
        };
        let outcome = match &committed {
            Ok((report, _)) => format!(
                "The last commit made version {}: {} of {} changed chunks were new to the file, which grew by {} bytes.",
                report.version.name.escape_ascii(),
                report.chunks_stored,
                report.chunks_hashed,
                report.grown_bytes
            ),
            Err(error) => failed(error),
        };
        self.set_outcome(outcome);
        let (report, replaced) = committed?;
        self.tell(&replaced);
        Ok(report)
    }

    /// How far the commit is that runs now; `None` where none does.
    #[must_use]
    pub fn progress(&self) -> Option<CommitState> {
        let is_committing = self.is_committing.load(Ordering::Acquire);
        is_committing.then(|| self.progress.state())
    }

    /// Says in the status that what was asked for is no commit at all.
    pub fn refuse_commit(&self, error: &dyn Display) {
        self.set_outcome(failed(error));
    }

    fn set_outcome(&self, outcome: String) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    fn commit_and_start_over(
        &self,
        request: &CommitRequest,
    ) -> Result<(CommitReport, Vec<NodeId>), StagingError> {
        let timestamp = in_microseconds(request.timestamp.unwrap_or_else(Utc::now));
        let name = request
            .name
            .clone()
            .unwrap_or_else(|| default_name(timestamp));
        let (base, attributes, planned) = self.read(|state| {
            let root = state.tree.node(NodeId::ROOT)?;
            Ok((
                state.base.clone(),
                attribute_changes(root),
                self.plan(state)?,
            ))
        })?;
        let new = NewVersion {
            name,
            timestamp,
            make_current: request.make_current,
            base,
            attributes,
            objects: planned.iter().map(new_object).collect(),
            progress: &self.progress,
        };
        // A version outside the range of 64-bit nanoseconds cannot be recognised afterwards, but neither can it be stored.
        let key = timestamp
            .timestamp_nanos_opt()
            .map(|timestamp_ns| VersionKey {
                name: Arc::from(&*new.name),
                timestamp_ns,
            });
        if let Some(key) = &key
            && self.file.look().history().by_key(key).is_some()
        {
            // The log must not say that this very version is being made: at the next mount it would be taken for what was staged.
            let name = new.name.clone();
            return Err(CommitError::NameTaken { name }.into());
        }
        let begun = key.map(|key| CommitBegun {
            commit: BaseVersion::from(&key),
            make_current: request.make_current,
        });
        let folder = self.log_commit(begun)?;
        let report = self
            .file
            .commit(&new, folder)
            .inspect_err(|error| self.note_failed_commit(error))?;
        drop(new);
        drop(planned);
        let mut state = self.state_mut();
        let is_pinned = !request.make_current;
        let started = self.start_over(
            &mut state,
            Some(report.version.clone()),
            is_pinned,
            Durable::ByCommit,
        );
        match started {
            Ok(replaced) => Ok((report, replaced)),
            Err(error) => {
                // The version is in the file. The log says that it was to be made, so that what it holds is not taken up again.
                log::error!("after the commit: {error}");
                *state = None;
                Ok((report, Vec::new()))
            }
        }
    }

    /// Notes that a version is about to be made of what is staged, so that it is not taken up again once the file has that version. Gives the
    /// folder for the journal of the file's change, with which the note becomes durable.
    fn log_commit(&self, begun: Option<CommitBegun>) -> Result<JournalFolder, StagingError> {
        self.change_state(|state| {
            let kept = state.kept(&self.path)?;
            if let Some(begun) = begun {
                kept.log.append(&Record::Commit(begun))?;
            }
            let folder = kept.sidecar.journal_folder()?;
            Ok(folder.with_companion(kept.log.syncing()?))
        })
    }

    /// A commit that was begun made no version, or it is not known whether it did.
    fn note_failed_commit(&self, error: &CommitError) {
        if matches!(error, CommitError::Interrupted { .. }) {
            // A second one cannot come here.
            let _ = self.latch.set(Arc::new(error.clone()));
            return;
        }
        let noted = self.change_state(|state| {
            let kept = state.kept(&self.path)?;
            kept.log.append(&Record::CommitFailed)
        });
        if let Err(error) = noted {
            // The log goes on saying that a version was begun, which the file does not have.
            log::warn!("after the failed commit: {error}");
        }
    }

    fn plan(&self, state: &State) -> Result<Vec<Planned>, StagingError> {
        let objects: BTreeMap<Arc<[u8]>, NodeId> = state.tree.objects();
        objects
            .into_iter()
            .map(|(path, id)| {
                let node = state.tree.node(id)?.clone();
                let written = self.written(state, &path, id, &node)?;
                Ok(Planned {
                    path,
                    node,
                    written,
                })
            })
            .collect()
    }

    fn written(
        &self,
        state: &State,
        path: &Arc<[u8]>,
        id: NodeId,
        node: &Node,
    ) -> Result<Option<Written>, StagingError> {
        let NodeContent::Dataset(dataset) = &node.content else {
            return Ok(None);
        };
        if let Some(content) = state.known_content(id) {
            content.settle_npy(&state.tree.path(id, true)?)?;
        }
        let stays = node.origin.as_ref() == Some(path);
        if stays && dataset.overlay.is_none() && dataset.declared.is_empty() {
            return Ok(None);
        }
        // With other axes behind the first one, every byte belongs to another element.
        let is_edit = stays && dataset.declared.is_empty();
        Ok(Some(Written {
            is_edit,
            description: self.description(state, dataset, stays)?,
            bytes: CommittedBytes::new(state.content(id)?, is_edit)?,
        }))
    }
}

fn failed(error: &dyn Display) -> String {
    log::error!("commit: {error}");
    format!("The last commit failed, and everything is still staged: {error}")
}

fn new_object(planned: &Planned) -> NewObject<'_> {
    let content = match (&planned.node.content, &planned.written) {
        (NodeContent::Group(_), _) => NewContent::Group,
        (NodeContent::Dataset(_), None) => NewContent::Unchanged,
        (NodeContent::Dataset(_), Some(written)) => NewContent::Written(WrittenDataset {
            edits_base: written.is_edit,
            description: written.description.clone(),
            bytes: &written.bytes,
        }),
    };
    NewObject {
        path: planned.path.clone(),
        attributes_from: planned.node.attributes_from.clone(),
        attributes: attribute_changes(&planned.node),
        content,
    }
}

fn attribute_changes(node: &Node) -> Vec<AttributeChange> {
    node.attributes
        .iter()
        .map(|(name, value)| AttributeChange {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

/// The format stores no finer times.
fn in_microseconds(time: DateTime<Utc>) -> DateTime<Utc> {
    let rest = time.nanosecond() % 1000;
    time - TimeDelta::nanoseconds(i64::from(rest))
}

/// The name of a version that was given none. It has no colon, which some systems do not have in names.
fn default_name(time: DateTime<Utc>) -> Vec<u8> {
    time.format("%Y-%m-%dT%H-%M-%S%.6fZ")
        .to_string()
        .into_bytes()
}
