//! `vh5fs completions` and `vh5fs man`: what shells and `man` are to know, from the definition of the commands themselves.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, report};

/// Print what a shell needs to complete the arguments of vh5fs
#[derive(Debug, Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

const COMPLETION_EXAMPLES: &str = "\
Examples:
  vh5fs completions bash > /etc/bash_completion.d/vh5fs
  vh5fs completions zsh > /usr/local/share/zsh/site-functions/_vh5fs
  vh5fs completions fish > ~/.config/fish/completions/vh5fs.fish";

/// Write the man pages into a directory
#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(super) struct ManArgs {
    /// The directory, which is made if it is missing
    directory: PathBuf,
}

const MAN_EXAMPLES: &str = "\
Example:
  vh5fs man /usr/local/share/man/man1";

/// Prints the completions.
///
/// # Errors
/// Standard output is closed.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vh5fs", &mut text);
    report::print(|output| output.write_all(&text))
}

/// Writes a page for the program and one for each command.
///
/// # Errors
/// The directory cannot be written to.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .with_context(|| directory.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let directory = tempfile::tempdir().unwrap();
        let args = ManArgs {
            directory: directory.path().join("man1"),
        };
        man(&args).unwrap();
        let page = |name: String| fs::read_to_string(args.directory.join(name)).unwrap();
        assert!(page("vh5fs.1".to_owned()).contains("versioned HDF5"));
        for command in Cli::command().get_subcommands() {
            let text = page(format!("vh5fs-{}.1", command.get_name()));
            assert!(text.contains(".SH SYNOPSIS"), "{}", command.get_name());
        }
    }
}
