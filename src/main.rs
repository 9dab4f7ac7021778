//! The `vh5fs` program: hands its arguments to [`vh5fs::cli`] and turns the outcome into an exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    vh5fs::cli::run()
}
