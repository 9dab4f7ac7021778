//! `vh5fs verify`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::mount_options::parse_threads;
use super::report::{self, counted};
use super::{default_threads, logging, one_line};
use crate::store::verify::{Fact, Finding, VerifyOptions, VerifyReport, verify};

/// The file is sound, damaged, or could not be checked.
const SOUND: u8 = 0;
const DAMAGED: u8 = 1;
const NOT_CHECKED: u8 = 2;

/// Check every stored chunk of FILE against its SHA-256, and all that leads to it
#[derive(Debug, Args)]
#[command(after_help = STATUS)]
pub(super) struct VerifyArgs {
    /// The versioned HDF5 file
    file: PathBuf,
    /// Check this version alone: its name, `NAME~N` for the N-th before it, `current`, or a time
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Check the dataset of this path alone
    #[arg(long, value_name = "PATH")]
    dataset: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,
}

const STATUS: &str = "\
Exit status: 0 sound, 1 damaged, 2 could not be checked.
Nothing is written. Damage names the versions, the dataset and the elements that are lost, as in
  damage: version r2, prices[4096:8192], stored chunk 1: ...";

/// Checks, and prints what was found.
pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    logging::to_stderr_if_asked();
    match check(args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vh5fs: {}", one_line(&error));
            ExitCode::from(NOT_CHECKED)
        }
    }
}

fn check(args: &VerifyArgs) -> anyhow::Result<u8> {
    let options = VerifyOptions {
        threads: args.threads.unwrap_or_else(default_threads),
        version: args.version.clone().map(String::into_bytes),
        dataset: args
            .dataset
            .as_ref()
            .map(|path| path.trim_matches('/').as_bytes().to_vec()),
    };
    // Drawn on stderr, and not at all where that is no terminal.
    let bar = ProgressBar::new(args.file.metadata().map_or(0, |metadata| metadata.len()));
    bar.set_style(ProgressStyle::with_template(
        "checking {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}",
    )?);
    let checked = verify(&args.file, &options, &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let found = checked?;
    let text = if args.json {
        as_json(args, &found).to_string() + "\n"
    } else {
        as_text(args, &found)
    };
    report::print(|output| output.write_all(text.as_bytes()))?;
    Ok(if found.damages == 0 { SOUND } else { DAMAGED })
}

fn as_text(args: &VerifyArgs, report: &VerifyReport) -> String {
    let mut lines = Vec::new();
    let mut advice: Vec<&str> = Vec::new();
    for finding in &report.findings {
        let severity = severity(finding);
        lines.push(format!("{severity}: {finding}"));
        if let Fact::Damage(damage) = &finding.fact
            && !advice.contains(&damage.advice())
        {
            advice.push(damage.advice());
        }
    }
    lines.extend(advice.iter().map(|advice| format!("what to do: {advice}")));
    let outcome = match report.damages {
        0 => "sound".to_owned(),
        1 => "1 damage".to_owned(),
        many => format!("{many} damages"),
    };
    let unverifiable = match report.chunks_unverifiable {
        0 => String::new(),
        chunks => format!(", {chunks} without a hash that can be checked"),
    };
    lines.push(format!(
        "{}: {outcome}; {} in {}, {} as their hashes say{unverifiable}",
        args.file.display(),
        counted(report.datasets, "dataset"),
        counted(report.versions, "version"),
        counted(report.chunks_right, "stored chunk"),
    ));
    lines.join("\n") + "\n"
}

fn severity(finding: &Finding) -> &'static str {
    if finding.is_damage() {
        "damage"
    } else {
        "note"
    }
}

/// The same for programs. Names are never changed or taken away, but others may be added.
fn as_json(args: &VerifyArgs, report: &VerifyReport) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let (message, advice) = match &finding.fact {
                Fact::Damage(damage) => (damage.to_string(), Some(damage.advice())),
                Fact::Note(note) => (note.to_string(), None),
            };
            let names = finding.versions.names.iter().map(|name| text(name));
            let axes = finding.elements.as_ref().map(|elements| &elements.axes);
            json!({
                "severity": severity(finding),
                "kind": finding.name(),
                "versions": names.collect::<Vec<_>>(),
                "version_count": finding.versions.count,
                "object": finding.object.as_ref().map(|path| text(path)),
                "start": axes.map(|axes| axes.iter().map(|axis| axis.0).collect::<Vec<_>>()),
                "stop": axes.map(|axes| axes.iter().map(|axis| axis.1).collect::<Vec<_>>()),
                "chunk": finding.chunk,
                "message": message,
                "advice": advice,
            })
        })
        .collect();
    json!({
        "file": args.file.to_string_lossy(),
        "sound": report.damages == 0,
        "damages": report.damages,
        "versions": report.versions,
        "datasets": report.datasets,
        "chunks_right": report.chunks_right,
        "chunks_unverifiable": report.chunks_unverifiable,
        "findings": findings,
    })
}
