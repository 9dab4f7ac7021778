//! `vh5fs diff`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::report;

/// Tell what differs between two versions: datasets, index ranges, bytes. No data is read
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiffArgs {
    /// The versioned HDF5 file
    file: PathBuf,
    /// A version: its name, `current`, `NAME~N` for N steps back, or a time such as 2020-06-29T23:58
    before: String,
    /// The version that it is compared with
    #[arg(default_value = "current")]
    after: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print at most so many index ranges of each dataset
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_ranges: usize,
}

const EXAMPLES: &str = "\
Examples:
  vh5fs diff data.h5 current~1            the last version against the one before it
  vh5fs diff data.h5 2026-06 current      since the beginning of June
  vh5fs diff data.h5 r1 r2 --json         every range, for a program

A marks what was added, M what was modified, D what was removed. Ranges are those of whole chunks: at least one
element of each chunk differs.";

/// Prints what differs. 1 where something cannot be read.
///
/// # Errors
/// FILE cannot be opened, or has no such version.
pub(super) fn run(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let file = report::open(&args.file)?;
    let snapshot = file.look();
    let before = report::resolve(&args.file, snapshot.history(), &args.before)?;
    let after = report::resolve(&args.file, snapshot.history(), &args.after)?;
    let keys = [before, after].map(|index| snapshot.history().version(index).key.clone());
    let (comparison, versions) = file
        .ask(|snapshot| {
            let history = snapshot.history();
            let [Some(before), Some(after)] = [0, 1].map(|i| history.by_key(&keys[i])) else {
                return Ok(None);
            };
            let versions = [before, after].map(|index| report::version_json(history, index));
            let comparison = file.compare(snapshot, Some(before), after)?;
            Ok(Some((comparison, versions)))
        })?
        .ok_or_else(|| {
            anyhow::anyhow!("{}: a version was deleted meanwhile", args.file.display())
        })?;
    if args.json {
        let mut value = report::comparison_json(&comparison);
        if let Value::Object(fields) = &mut value {
            let [before, after] = versions;
            fields.insert("before".to_owned(), before);
            fields.insert("after".to_owned(), after);
        }
        report::print_json(&value)?;
    } else {
        report::print(|output| {
            report::difference_lines(&comparison, args.max_ranges)
                .iter()
                .try_for_each(|line| writeln!(output, "{line}"))
        })?;
    }
    Ok(if report::has_unreadable(&comparison) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
