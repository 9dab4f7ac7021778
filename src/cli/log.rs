//! `vh5fs log`

use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde_json::{Value, json};

use super::graph::{Graph, newest_first};
use super::report::{self, counted};
use super::size::shown_size;
use crate::store::{Comparison, Difference, History, VersionIndex};

/// List the versions, newest first: name, time, parent, and what changed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogArgs {
    /// The versioned HDF5 file
    file: PathBuf,
    /// Draw how versions come from one another
    #[arg(long)]
    graph: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print so many versions at most
    #[arg(short = 'n', long, value_name = "N")]
    max_count: Option<usize>,
}

const EXAMPLES: &str = "\
Examples:
  vh5fs log data.h5 | less -R             everything
  vh5fs log -n 3 --graph data.h5          the newest three, with the lines of their parents
  vh5fs log --json data.h5 | jq -r '.[].name'

New chunks are those that the parent does not have; all others are shared with it.";

const NAME: Style = AnsiColor::Yellow.on_default().bold();
const CURRENT: Style = AnsiColor::Cyan.on_default().bold();
const LANES: Style = Style::new().dimmed();

/// A version and what it changed.
struct Entry {
    index: VersionIndex,
    comparison: Comparison,
}

/// Prints the versions. 1 where something cannot be read.
///
/// # Errors
/// FILE cannot be opened, or a version in it not be entered.
pub(super) fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    let file = report::open(&args.file)?;
    let (snapshot, entries) = file.ask(|snapshot| {
        // Finds at once which datasets of all versions are the same, so that only the others are looked at.
        snapshot.sharing()?;
        let history = snapshot.history();
        let order = newest_first(history);
        let most = args.max_count.unwrap_or(usize::MAX);
        let entries = order
            .into_iter()
            .take(most)
            .map(|index| {
                let parent = history.version(index).parent;
                let comparison = file.compare(snapshot, parent, index)?;
                Ok(Entry { index, comparison })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok((snapshot.clone(), entries))
    })?;
    let history = snapshot.history();
    if args.json {
        let all: Vec<Value> = entries
            .iter()
            .map(|entry| entry_json(history, entry))
            .collect();
        report::print_json(&Value::Array(all))?;
    } else {
        let lines = text_lines(history, &entries, args.graph);
        report::print(|output| lines.iter().try_for_each(|line| writeln!(output, "{line}")))?;
    }
    let is_damaged = entries
        .iter()
        .any(|entry| report::has_unreadable(&entry.comparison));
    Ok(if is_damaged {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn text_lines(history: &History, entries: &[Entry], is_graph: bool) -> Vec<String> {
    let mut graph = Graph::default();
    let mut lines = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let parent = history.version(entry.index).parent;
        let own_lines = entry_lines(history, entry);
        if is_graph {
            let margins = graph.place(entry.index, parent);
            let dimmed = |margin: &str| format!("{LANES}{margin}{LANES:#}");
            lines.extend(margins.joining.as_deref().map(dimmed));
            for (i, line) in own_lines.iter().enumerate() {
                let margin = if i == 0 {
                    &margins.first
                } else {
                    &margins.others
                };
                lines.push(format!("{}{line}", dimmed(margin)));
            }
            if place + 1 < entries.len() {
                lines.push(dimmed(margins.others.trim_end()));
            }
        } else {
            lines.extend(own_lines);
            if place + 1 < entries.len() {
                lines.push(String::new());
            }
        }
    }
    lines
}

fn entry_lines(history: &History, entry: &Entry) -> Vec<String> {
    let version = history.version(entry.index);
    let name = report::version_name(history, entry.index);
    let current = if history.current() == Some(entry.index) {
        format!(" {CURRENT}(current){CURRENT:#}")
    } else {
        String::new()
    };
    let mut lines = vec![format!("{NAME}{name}{NAME:#}{current}")];
    lines.push(match version.timestamp {
        Some(time) => format!("Time:   {}", report::both_times(time)),
        None => "Time:   unknown".to_owned(),
    });
    if let Some(parent) = version.parent {
        lines.push(format!("Parent: {}", report::version_name(history, parent)));
    }
    let (chunks, bytes) = added(&entry.comparison);
    if chunks > 0 {
        lines.push(format!(
            "New:    {} in {}",
            shown_size(bytes),
            counted(chunks, "chunk")
        ));
    }
    let changes = report::difference_lines(&entry.comparison, 0);
    lines.extend(changes.iter().map(|line| format!("    {line}")));
    lines
}

/// Chunks, and their bytes in the file, that the parent does not have.
fn added(comparison: &Comparison) -> (u64, u64) {
    comparison
        .objects
        .iter()
        .fold((0, 0), |(chunks, bytes), object| {
            let (more, size) = match &object.difference {
                Difference::Added(Some(facts)) => (facts.chunks, facts.stored_bytes),
                Difference::Modified(modification) => modification
                    .chunks
                    .as_ref()
                    .map_or((0, 0), |chunks| (chunks.new, chunks.new_stored_bytes)),
                _ => (0, 0),
            };
            (chunks + more, bytes + size)
        })
}

fn entry_json(history: &History, entry: &Entry) -> Value {
    let (chunks, bytes) = added(&entry.comparison);
    let mut value = report::version_json(history, entry.index);
    if let (Value::Object(fields), Value::Object(changes)) =
        (&mut value, report::comparison_json(&entry.comparison))
    {
        fields.insert("new_chunks".to_owned(), json!(chunks));
        fields.insert("new_stored_bytes".to_owned(), json!(bytes));
        fields.extend(changes);
    }
    value
}
