//! Commands, one file each: options are validated into a struct before any work, and every failure is one line on stderr.

mod commit;
mod diff;
mod generate;
mod graph;
mod history;
mod log;
mod logging;
mod mount;
mod mount_helper;
mod mount_options;
mod recover;
mod report;
mod size;
mod status;
mod umount;
mod verify;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Mount a versioned HDF5 file: every version a read-only directory, every dataset a file of raw bytes.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  vh5fs mount data.h5 /mnt            mount in the background
  ls /mnt/versions                    every version
  ls /mnt/current/                    the current one
  vh5fs log data.h5                   what each version changed
  vh5fs diff data.h5 2026-06 current  what changed since June
  vh5fs umount /mnt                   unmount
  vh5fs verify data.h5                check every stored chunk and all that leads to it

In /etc/fstab, or with mount -t fuse.vh5fs:
  /data/data.h5  /mnt  fuse.vh5fs  ro,allow_other,cache_size=1G  0 0

RUST_LOG=debug says more: on stderr with -f, else in the system's log.";

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::MountArgs),
    Umount(umount::UmountArgs),
    Recover(recover::RecoverArgs),
    Commit(commit::CommitArgs),
    Status(status::StatusArgs),
    Log(log::LogArgs),
    Diff(diff::DiffArgs),
    History(history::HistoryArgs),
    Verify(verify::VerifyArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// Runs the program: 0 done, 1 failed, 2 bad usage. A check that finds damage has failed; one that cannot be made is told apart by 2.
#[must_use]
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if mount_helper::is_meant(&arguments) {
        let args = mount_helper::HelperArgs::parse_from(arguments);
        return exit_code(mount_helper::run(args).map(|()| ExitCode::SUCCESS));
    }
    let cli = Cli::parse_from(with_implied_mount(arguments));
    exit_code(match cli.command {
        Command::Mount(args) => mount::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Umount(args) => umount::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Recover(args) => recover::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Commit(args) => commit::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Status(args) => status::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Log(args) => log::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::History(args) => history::run(&args),
        Command::Completions(args) => generate::completions(&args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => generate::man(&args).map(|()| ExitCode::SUCCESS),
        Command::Verify(args) => return verify::run(&args),
    })
}

/// 0 or what a command says, or 1 and a line.
fn exit_code(done: anyhow::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vh5fs: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, as a single line.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}")
        .split('\n')
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
}

/// One for each core.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// mount(8) runs `vh5fs FILE DIR -o ...`, without the word `mount`, which is put in here unless another command's name is there.
fn with_implied_mount(mut arguments: Vec<OsString>) -> Vec<OsString> {
    const OWN_WORDS: [&str; 5] = ["help", "-h", "--help", "-V", "--version"];
    // A single word is no mount, but may be a mistyped command: clap says so best.
    let [_, first, _, ..] = &arguments[..] else {
        return arguments;
    };
    let is_own_word = OWN_WORDS.iter().any(|word| first == OsStr::new(word));
    if !is_own_word && Cli::command().find_subcommand(first).is_none() {
        arguments.insert(1, "mount".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn implied(arguments: &[&str]) -> Vec<OsString> {
        with_implied_mount(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mount_may_be_left_out() {
        let full = ["vh5fs", "mount", "a.h5", "/mnt", "-o", "ro"].map(OsString::from);
        assert_eq!(implied(&["vh5fs", "a.h5", "/mnt", "-o", "ro"]), full);
        assert_eq!(
            implied(&["vh5fs", "mount", "a.h5", "/mnt", "-o", "ro"]),
            full
        );
        assert_eq!(implied(&["vh5fs", "-o", "ro", "a.h5", "/mnt"])[1], "mount");
    }

    #[test]
    fn other_commands_stay() {
        assert_eq!(implied(&["vh5fs", "umount", "/mnt"])[1], "umount");
        assert_eq!(implied(&["vh5fs", "--version"])[1], "--version");
        assert_eq!(implied(&["vh5fs", "help", "mount"])[1], "help");
        assert_eq!(
            implied(&["vh5fs", "mout"]),
            ["vh5fs", "mout"].map(OsString::from)
        );
        assert_eq!(implied(&["vh5fs"]), ["vh5fs"].map(OsString::from));
    }

    #[test]
    fn an_error_with_causes_is_one_line() {
        let error = anyhow::anyhow!("first\n  cause").context("what");
        assert_eq!(one_line(&error), "what: first cause");
    }
}
