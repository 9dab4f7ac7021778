//! `vh5fs history`

mod svg;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use clap::Args;

use super::graph::newest_first;
use super::report;
use crate::store::{Column, History, Rewrites, StoreError, VersionRewrites, VersionedFile};

/// Draw when which part of a dataset was rewritten: a line for each version, from the first chunk to the last
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HistoryArgs {
    /// The versioned HDF5 file
    file: PathBuf,
    /// The dataset's path, as in a version's directory
    dataset: String,
    /// Draw a picture into this file, which may be `-` for standard output
    #[arg(long, value_name = "OUT")]
    svg: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  vh5fs history data.h5 group/temperature
  vh5fs history data.h5 group/temperature --svg temperature.svg

In the terminal:  █▓▒ rewritten by this version, wholly or in part   ░ as in its parent   · fill value, not stored
Oldest version first, few chunks drawn wide. A picture shows the same in colours, and tells the versions' names and times.";

/// Columns where standard output is no terminal, or says nothing of its width.
const USUAL_COLUMNS: usize = 100;
/// The least that a bar is given beside long names.
const LEAST_BAR_COLUMNS: usize = 20;
/// Few chunks are drawn wide, each with so many characters at most.
const MOST_WIDENED: usize = 4;
/// Columns of a picture.
const SVG_COLUMNS: usize = 400;

const CHANGED: Style = AnsiColor::Yellow.on_default();
const KEPT: Style = AnsiColor::Blue.on_default();

/// Draws.
///
/// # Errors
/// FILE cannot be opened, no version has the dataset, or it is damaged.
pub(super) fn run(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let file = report::open(&args.file)?;
    let names_width = file
        .look()
        .history()
        .iter()
        .map(|(_, version)| String::from_utf8_lossy(&version.shown_name).chars().count())
        .max()
        .unwrap_or(0);
    let columns = if args.svg.is_some() {
        SVG_COLUMNS
    } else {
        let all = terminal_columns().unwrap_or(USUAL_COLUMNS);
        all.saturating_sub(names_width + 1).max(LEAST_BAR_COLUMNS)
    };
    let (mut rewrites, snapshot) = file.ask(|snapshot| {
        let rewrites = rewrites_of(&file, snapshot, args.dataset.as_bytes(), columns)?;
        Ok((rewrites, snapshot.clone()))
    })?;
    if rewrites.versions.is_empty() {
        bail!(
            "{}: no version has a dataset `{}`; `vh5fs log` lists what they have",
            args.file.display(),
            args.dataset
        );
    }
    let mut places = vec![0; snapshot.history().len()];
    for (place, index) in newest_first(snapshot.history())
        .into_iter()
        .rev()
        .enumerate()
    {
        places[index.0 as usize] = place;
    }
    rewrites
        .versions
        .sort_by_key(|row| places[row.version.0 as usize]);
    match &args.svg {
        None => {
            let widen = columns / rewrites.versions[0].columns.len().max(1);
            let look = Look {
                names_width,
                widen: widen.clamp(1, MOST_WIDENED),
            };
            let lines = text_lines(snapshot.history(), &rewrites, &look);
            report::print(|output| lines.iter().try_for_each(|line| writeln!(output, "{line}")))?;
        }
        Some(path) => {
            let picture = svg::picture(snapshot.history(), &args.dataset, &rewrites);
            if path.as_os_str() == "-" {
                report::print(|output| output.write_all(picture.as_bytes()))?;
            } else {
                std::fs::write(path, picture).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `path` is as versions show it; of those that show another object under it, the newest decides.
fn rewrites_of(
    file: &VersionedFile,
    snapshot: &std::sync::Arc<crate::store::Snapshot>,
    path: &[u8],
    columns: usize,
) -> Result<Rewrites, StoreError> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let mut true_path = None;
    for version in snapshot.history().parents_first().into_iter().rev() {
        let tree = snapshot.tree(version)?;
        let found = tree
            .objects()
            .find(|child| tree.shown_path(&child.path) == path)
            .map(|child| child.path.clone());
        if found.is_some() {
            true_path = found;
            break;
        }
    }
    file.rewrites(snapshot, true_path.as_deref().unwrap_or(path), columns)
}

/// `None` where standard output is no terminal.
fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// How the lines are laid out.
struct Look {
    names_width: usize,
    /// Characters for each column.
    widen: usize,
}

fn text_lines(history: &History, rewrites: &Rewrites, look: &Look) -> Vec<String> {
    rewrites
        .versions
        .iter()
        .map(|version| {
            let name = report::version_name(history, version.version);
            let width = look.names_width;
            format!("{name:width$} {}", bar(version, look.widen))
        })
        .collect()
}

fn bar(version: &VersionRewrites, widen: usize) -> String {
    let mut text = String::new();
    for run in version.columns.chunk_by(|a, b| mark(a) == mark(b)) {
        let (mark, style) = mark(&run[0]);
        let marks: String = std::iter::repeat_n(mark, run.len() * widen).collect();
        match style {
            Some(style) => write!(text, "{style}{marks}{style:#}").expect("writing to memory"),
            None => text.push_str(&marks),
        }
    }
    text.trim_end().to_owned()
}

fn mark(column: &Column) -> (char, Option<Style>) {
    let inside = column.unmapped + column.kept + column.changed;
    match column {
        _ if inside == 0 => (' ', None),
        Column { changed, .. } if *changed > 0 => {
            let mark = match changed * 3 / inside {
                3.. => '█',
                1 | 2 => '▓',
                _ => '▒',
            };
            (mark, Some(CHANGED))
        }
        Column { kept: 0, .. } => ('·', None),
        _ => ('░', Some(KEPT)),
    }
}
