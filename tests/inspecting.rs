//! What the commands that look into a file say, against the arrays and on a terminal's lines.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Interpreter, Mount, literal, run, script, vh5fs, words};

/// Two lines of versions that come from the first.
const MAKE: &str = r#"
with h5py.File(FILE, "w") as file:
    versions = VersionedHDF5File(file)
    def stage(name, day, parent=None):
        return versions.stage_version(name, prev_version=parent, timestamp=when(day))
    with stage("r1", 1) as group:
        group.create_dataset("a/line", data=np.arange(10_000.0), chunks=(1000,))
        group.create_dataset("grid", data=np.arange(400.0).reshape(20, 20), chunks=(5, 5))
        group["grid"].attrs["unit"] = "K"
    with stage("r2", 2) as group:
        group["a/line"][2500:4100] = 7
        group["grid"][6:14, 6:9] = 1
        group["grid"].attrs["unit"] = "C"
    with stage("side", 3, "r1") as group:
        group["a/line"].resize((12_500,))
        group["a/line"][10_000:] = np.arange(2500)
    with stage("r3", 4, "r2") as group:
        del group["grid"]
        group["a/line"].resize((4000,))
    with stage("r4", 5, "r3") as group:
        pass
    versions.close()
"#;

fn sample(python: &mut Interpreter) -> PathBuf {
    let file = python.scratch().join("sample.h5");
    python.run(&format!("FILE = {}\n{MAKE}", literal(&file)));
    file
}

/// What the program prints, called with `arguments` and FILE behind the first.
fn told(file: &Path, arguments: &[&str]) -> String {
    run(vh5fs()
        .env("TZ", "UTC")
        .arg(arguments[0])
        .arg(file)
        .args(&arguments[1..]))
}

/// The one line that the program says when it fails.
fn refused(file: &Path, arguments: &[&str]) -> String {
    let output = vh5fs()
        .arg(arguments[0])
        .arg(file)
        .args(&arguments[1..])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    words(&output)
}

#[test]
fn differences_are_those_of_the_arrays() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 1..=3 {
        let pairs = run(script("inspecting.py")
            .arg(env!("CARGO_BIN_EXE_vh5fs"))
            .arg(folder.path())
            .arg(seed.to_string()));
        assert_eq!(pairs.trim(), "56");
    }
}

#[test]
fn a_difference_reads_at_a_glance() {
    let mut python = Interpreter::new();
    let file = sample(&mut python);
    assert_eq!(
        told(&file, &["diff", "r1", "r2"]),
        "M a/line  3 of 10 chunks changed, 3 new (23.4 KiB)\n    [2000:5000]\n\
         M grid  2 of 16 chunks changed, 2 new (400 B); attributes ~unit\n    [5:15, 5:10]\n"
    );
    assert_eq!(
        told(&file, &["diff", "current~2", "at/2030"]),
        "M a/line  <f8 (10000,) -> <f8 (4000,); 6 cut off\nD grid  <f8 (20, 20), 3.1 KiB in 16 chunks\n"
    );
    assert_eq!(told(&file, &["diff", "r4~1"]), "");
    let unknown = refused(&file, &["diff", "r9", "r1"]);
    assert!(
        unknown.contains("sample.h5: there is no version `r9`"),
        "{unknown}"
    );
    assert_eq!(unknown.lines().count(), 1);
}

#[test]
fn branches_are_drawn() {
    let mut python = Interpreter::new();
    let file = sample(&mut python);
    let drawn = told(&file, &["log", "--graph"]);
    let shape: Vec<&str> = drawn
        .lines()
        .filter(|line| {
            line.contains('*')
                || line.contains('/') && !line.contains("a/line") && !line.contains("a/")
        })
        .map(str::trim_end)
        .collect();
    assert_eq!(
        shape,
        ["* r4 (current)", "* r3", "| * side", "* | r2", "|/", "* r1"]
    );
    let last = told(&file, &["log", "-n", "1"]);
    let lines: Vec<&str> = last.lines().collect();
    assert_eq!(lines[0], "r4 (current)");
    assert!(lines[1].starts_with("Time:   ") && lines[1].ends_with(" UTC"));
    assert_eq!(lines[2..], ["Parent: r3"]);
}

#[test]
fn a_dataset_has_a_picture() {
    let mut python = Interpreter::new();
    let file = sample(&mut python);
    assert_eq!(
        told(&file, &["history", "a/line"]),
        "r1   ████████████████████████████████████████\n\
         r2   ░░░░░░░░████████████░░░░░░░░░░░░░░░░░░░░\n\
         side ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░████████████\n\
         r3   ░░░░░░░░░░░░░░░░\n\
         r4   ░░░░░░░░░░░░░░░░\n"
    );
    let picture = python.scratch().join("line.svg");
    told(
        &file,
        &["history", "a/line", "--svg", picture.to_str().unwrap()],
    );
    let parsed = python.run(&format!(
        "import xml.etree.ElementTree as tree\n\
         rows = tree.parse({}).getroot().findall('{{http://www.w3.org/2000/svg}}g')\n\
         result = [''.join(row.itertext()) for row in rows]",
        literal(&picture)
    ));
    let rows = parsed.as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert!(
        rows[1]
            .as_str()
            .unwrap()
            .contains("3 of 10 chunks rewritten")
    );
    let unknown = refused(&file, &["history", "nothing"]);
    assert!(unknown.contains("no version has a dataset `nothing`"));
}

#[test]
fn a_mount_tells_and_commits_by_command() {
    let mut python = Interpreter::new();
    let file = sample(&mut python);
    let mount = Mount::new(&file, &[]);
    let status = || run(vh5fs().arg("status").arg(mount.path()));
    let said = status();
    assert!(said.contains("sample.h5 on "), "{said}");
    assert!(said.contains("The current version is r4.\n") && said.contains("Nothing is staged.\n"));
    fs::write(mount.path().join("staging/new"), b"abc").unwrap();
    assert!(status().contains("A new (1 chunk)\n"));

    let taken = refused_commit(&mount, &["r1"]);
    assert!(taken.contains("there is a version r1 already"), "{taken}");
    let made = run(vh5fs().arg("commit").arg(mount.path()).args([
        "side-2",
        "--timestamp",
        "2027-01-01",
        "--no-current",
    ]));
    assert!(made.contains("made version side-2"), "{made}");
    assert_eq!(
        fs::read(mount.path().join("versions/side-2/new")).unwrap(),
        b"abc"
    );
    assert!(status().contains("The current version is r4.\n"));
    drop(mount);

    let mount = Mount::new(&file, &["--read-only"]);
    assert!(run(vh5fs().arg("status").arg(mount.path())).contains("read-only"));
    let refused = refused_commit(&mount, &[]);
    assert!(refused.contains("without --read-only"), "{refused}");
    let elsewhere = vh5fs().args(["status", "/"]).output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(1));
}

#[test]
fn a_commit_says_how_far_it_is() {
    let folder = common::fast_folder();
    let mount = Mount::new(&folder.path().join("file.h5"), &["--create"]);
    let said = run(script("commit_progress.py")
        .arg(env!("CARGO_BIN_EXE_vh5fs"))
        .arg(mount.path()));
    assert!(said.ends_with("chunks twice\n"), "{said}");
}

fn refused_commit(mount: &Mount, arguments: &[&str]) -> String {
    let output = vh5fs()
        .arg("commit")
        .arg(mount.path())
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    words(&output)
}
