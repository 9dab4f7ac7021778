//! What the pages for users show is what comes out.

mod common;

use std::path::{Path, PathBuf};

use common::{made, python, run, script};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The file of the demonstration.
fn file() -> PathBuf {
    made("climate.h5", &["../scripts/demo_data.py"], |path| {
        run(std::process::Command::new(python())
            .arg(project().join("scripts/demo_data.py"))
            .arg(path));
    })
}

/// Runs all that a page shows: at least `least` commands.
#[track_caller]
fn check(page: &str, least: usize) {
    let folders = [Path::new(env!("CARGO_BIN_EXE_vh5fs")), &python()]
        .map(|program| program.parent().unwrap().to_str().unwrap().to_owned());
    let path = format!("{}:{}", folders.join(":"), std::env::var("PATH").unwrap());
    let printed = run(script("readme.py")
        .args([project().join(page), file()])
        .env("PATH", path));
    let count: usize = printed.split(' ').next().unwrap().parse().unwrap();
    assert!(count >= least, "{printed}");
}

#[test]
fn the_readme_is_true() {
    check("README.md", 40);
}

#[test]
fn the_contract_is_true() {
    check("docs/contract.md", 20);
}
