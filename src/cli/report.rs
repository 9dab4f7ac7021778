//! What the commands that look into a file have in common: opening it, naming its versions, printing what differs.

use std::io::{self, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use chrono::{DateTime, Local, Offset, Utc};
use serde_json::{Value, json};

use super::default_threads;
use super::size::shown_size;
use crate::store::time;
use crate::store::{
    ArrayFacts, AttributeDifference, AttributeState, ChunkChange, Comparison, Difference, History,
    Modification, ObjectChange, StoreOptions, VersionIndex, VersionedFile,
};

/// Nothing but metadata is read, which is not kept here.
const CACHE_BYTES: u64 = 16 << 20;

/// How an object that came, changed, went or cannot be read is marked.
const ADDED: Style = AnsiColor::Green.on_default();
const MODIFIED: Style = AnsiColor::Yellow.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();
const UNREADABLE: Style = AnsiColor::Red.on_default().bold();

/// Opens FILE for a look at its versions.
pub(super) fn open(path: &Path) -> anyhow::Result<VersionedFile> {
    let options = StoreOptions {
        cache_bytes: CACHE_BYTES,
        decode_threads: default_threads(),
        verify: false,
    };
    Ok(VersionedFile::open(path, &options)?)
}

/// The version of FILE that a person means by `text`.
pub(super) fn resolve(path: &Path, history: &History, text: &str) -> anyhow::Result<VersionIndex> {
    history
        .resolve(text.as_bytes())
        .with_context(|| path.display().to_string())
}

/// The name of a version for a person.
pub(super) fn version_name(history: &History, index: VersionIndex) -> String {
    String::from_utf8_lossy(&history.version(index).shown_name).into_owned()
}

/// A time in UTC, and in the local time zone where that is another one.
pub(super) fn both_times(instant: DateTime<Utc>) -> String {
    let local = instant.with_timezone(&Local);
    let utc = instant.format("%Y-%m-%d %H:%M:%S%.6f UTC");
    if local.offset().fix().local_minus_utc() == 0 {
        utc.to_string()
    } else {
        format!("{utc} ({})", local.format("%Y-%m-%d %H:%M:%S %z"))
    }
}

/// Prints what a command found, for the pager or the pipe that reads it; that it does not read on is no error.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut output = io::BufWriter::new(anstream::stdout());
    match write(&mut output).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

/// Prints `value` on lines of its own.
pub(super) fn print_json(value: &Value) -> anyhow::Result<()> {
    print(|output| {
        serde_json::to_writer_pretty(&mut *output, value)?;
        writeln!(output)
    })
}

/// Whether something could not be compared.
pub(super) fn has_unreadable(comparison: &Comparison) -> bool {
    comparison
        .objects
        .iter()
        .any(|object| matches!(object.difference, Difference::Unreadable(_)))
}

/// The lines that say what differs, each object with at most `max_ranges` of its changed ranges.
pub(super) fn difference_lines(comparison: &Comparison, max_ranges: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if !comparison.attributes.is_empty() {
        lines.push(format!(
            "{MODIFIED}M{MODIFIED:#} .  {}",
            attributes_text(&comparison.attributes)
        ));
    }
    for object in &comparison.objects {
        let path = String::from_utf8_lossy(&object.shown_path);
        let slash = if object.is_group { "/" } else { "" };
        let (style, letter) = match &object.difference {
            Difference::Added(_) => (ADDED, 'A'),
            Difference::Removed(_) => (REMOVED, 'D'),
            Difference::Modified(_) => (MODIFIED, 'M'),
            Difference::Unreadable(_) => (UNREADABLE, '!'),
        };
        let mut line = format!("{style}{letter}{style:#} {path}{slash}");
        let told = object_text(&object.difference);
        if !told.is_empty() {
            line.push_str("  ");
            line.push_str(&told);
        }
        lines.push(line);
        if let Difference::Modified(modification) = &object.difference
            && let Some(chunks) = &modification.chunks
        {
            lines.extend(range_lines(chunks, max_ranges));
        }
    }
    lines
}

fn object_text(difference: &Difference) -> String {
    match difference {
        Difference::Added(facts) | Difference::Removed(facts) => {
            facts.as_ref().map(array_text).unwrap_or_default()
        }
        Difference::Unreadable(error) => error.to_string(),
        Difference::Modified(modification) => {
            let Modification {
                description,
                chunks,
                attributes,
            } = &**modification;
            let mut parts = Vec::new();
            if let Some(change) = description {
                let short = |facts: &Option<ArrayFacts>| {
                    facts
                        .as_ref()
                        .map_or_else(|| "group".to_owned(), short_text)
                };
                let (before, after) = (short(&change.before), short(&change.after));
                parts.push(if before == after {
                    "another fill value".to_owned()
                } else {
                    format!("{before} -> {after}")
                });
            }
            if let Some(chunks) = chunks {
                parts.push(chunks_text(chunks));
            }
            if !attributes.is_empty() {
                parts.push(attributes_text(attributes));
            }
            parts.join("; ")
        }
    }
}

fn dtype_text(dtype: &Value) -> String {
    match dtype {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// As Python writes a tuple.
fn shape_text(shape: &[u64]) -> String {
    let extents: Vec<String> = shape.iter().map(u64::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    format!("({}{comma})", extents.join(", "))
}

fn short_text(facts: &ArrayFacts) -> String {
    format!("{} {}", dtype_text(&facts.dtype), shape_text(&facts.shape))
}

fn array_text(facts: &ArrayFacts) -> String {
    format!(
        "{}, {} in {}",
        short_text(facts),
        shown_size(facts.stored_bytes),
        counted(facts.chunks, "chunk")
    )
}

fn chunks_text(chunks: &ChunkChange) -> String {
    let changed = (chunks.changed > 0).then(|| {
        let all = counted(chunks.of, "chunk");
        format!("{} of {all} changed", chunks.changed)
    });
    let cut_off = (chunks.cut_off > 0).then(|| format!("{} cut off", chunks.cut_off));
    let new = (chunks.new > 0).then(|| {
        let size = shown_size(chunks.new_stored_bytes);
        format!("{} new ({size})", chunks.new)
    });
    let parts: Vec<String> = [changed, cut_off, new].into_iter().flatten().collect();
    parts.join(", ")
}

/// `1 chunk`, `2 chunks`.
pub(super) fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn attributes_text(attributes: &[AttributeDifference]) -> String {
    let names: Vec<String> = attributes
        .iter()
        .map(|attribute| {
            let sign = match (&attribute.before, &attribute.after) {
                (None, _) => '+',
                (_, None) => '-',
                _ => '~',
            };
            format!("{sign}{}", String::from_utf8_lossy(&attribute.name))
        })
        .collect();
    format!("attributes {}", names.join(" "))
}

fn range_lines(chunks: &ChunkChange, most: usize) -> impl Iterator<Item = String> + '_ {
    let left = chunks.ranges.len().saturating_sub(most);
    let more =
        (left > 0 && most > 0).then(|| format!("    and {}", counted(left as u64, "more range")));
    chunks
        .ranges
        .iter()
        .take(most)
        .map(|range| format!("    {range}"))
        .chain(more)
}

/// What differs, as the documented JSON has it.
pub(super) fn comparison_json(comparison: &Comparison) -> Value {
    json!({
        "attributes": attributes_json(&comparison.attributes),
        "objects": comparison.objects.iter().map(object_json).collect::<Vec<_>>(),
    })
}

fn object_json(object: &ObjectChange) -> Value {
    let mut fields = json!({
        "path": String::from_utf8_lossy(&object.shown_path),
        "kind": if object.is_group { "group" } else { "dataset" },
    });
    let more = match &object.difference {
        Difference::Added(facts) => json!({"change": "added", "array": array_json(facts.as_ref())}),
        Difference::Removed(facts) => {
            json!({"change": "removed", "array": array_json(facts.as_ref())})
        }
        Difference::Unreadable(error) => {
            json!({"change": "unreadable", "error": error.to_string()})
        }
        Difference::Modified(modification) => {
            let change = modification.description.as_ref();
            json!({
                "change": "modified",
                "array_before": change.map(|change| array_json(change.before.as_ref())),
                "array_after": change.map(|change| array_json(change.after.as_ref())),
                "chunks": modification.chunks.as_ref().map(chunks_json),
                "attributes": attributes_json(&modification.attributes),
            })
        }
    };
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    fields
}

fn array_json(facts: Option<&ArrayFacts>) -> Value {
    facts.map_or(Value::Null, |facts| {
        json!({
            "dtype": facts.dtype,
            "shape": facts.shape,
            "chunks": facts.chunks,
            "stored_bytes": facts.stored_bytes,
            "bytes": facts.len_bytes,
        })
    })
}

fn chunks_json(chunks: &ChunkChange) -> Value {
    let ranges: Vec<&[(u64, u64)]> = chunks.ranges.iter().map(|range| &range.axes[..]).collect();
    json!({
        "changed": chunks.changed,
        "of": chunks.of,
        "new": chunks.new,
        "new_stored_bytes": chunks.new_stored_bytes,
        "cut_off": chunks.cut_off,
        "changed_bytes": chunks.changed_bytes,
        "ranges": ranges,
    })
}

fn attributes_json(attributes: &[AttributeDifference]) -> Value {
    let text = |state: &Option<AttributeState>| match state {
        Some(AttributeState::Text(text)) => json!(String::from_utf8_lossy(text)),
        Some(AttributeState::Unreadable(error)) => json!({"error": error}),
        None => Value::Null,
    };
    attributes
        .iter()
        .map(|attribute| {
            json!({
                "name": String::from_utf8_lossy(&attribute.name),
                "before": text(&attribute.before),
                "after": text(&attribute.after),
            })
        })
        .collect()
}

/// A version of a file, as the documented JSON has it.
pub(super) fn version_json(history: &History, index: VersionIndex) -> Value {
    let version = history.version(index);
    json!({
        "name": version_name(history, index),
        "timestamp": version.timestamp.map(time::shown),
        "parent": version.parent.map(|parent| version_name(history, parent)),
        "is_current": history.current() == Some(index),
    })
}
