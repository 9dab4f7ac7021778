//! Handles instead of names, as a server of NFS keeps them: they lead to the same thing when the kernel has forgotten it, and at the
//! next mount of the file; never to anything else.

mod common;
#[path = "common/recorder.rs"]
mod recorder;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Interpreter, Mount, literal, made_by, need_root, run, script, words};
use fuser::Errno;
use recorder::Recorder;
use tempfile::TempDir;

const FILE: &str = r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    group.create_dataset("same", data=np.arange(3000.0), chunks=(1000,))
    group.create_dataset("edited", data=np.arange(3000, dtype="<i4"), chunks=(1000,), compression="gzip")
    group.create_dataset("deep/er/same", data=np.arange(600).reshape(20, 30), chunks=(8, 8))
    group.create_dataset("text", data=np.array(["one", "two"], dtype=object), dtype=h5py.string_dtype(), chunks=(2,))
    group.create_group("empty")
with version(FILE, "r2", timestamp=when(2)) as group:
    group["edited"][5] = -1
with version(FILE, "r3", timestamp=when(3)) as group:
    group.create_dataset("deep/added", data=np.arange(10), chunks=(10,))
    del group["text"]
"#;

fn file() -> PathBuf {
    made_by(FILE, "handles.rs", "handles.h5")
}

/// The paths that `handles.py` prints.
fn handles(what: &str, mount: &Mount, kept: &Path) -> Vec<String> {
    let printed = run(script("handles.py").arg(what).arg(mount.path()).arg(kept));
    serde_json::from_str(&printed).unwrap()
}

/// Has the kernel forget each inode that nobody uses, and what it has of files.
fn drop_caches() {
    // Dirty inodes stay.
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Whether a path leads to `staging/`, or to what shows it in another form.
fn is_staged(path: &str) -> bool {
    path.trim_start_matches("npy/").starts_with("staging")
}

/// A copy of the file, what is known of handles, and where both are.
struct Bench {
    _scratch: TempDir,
    file: PathBuf,
    kept: PathBuf,
}

impl Bench {
    fn new() -> Self {
        need_root("opening by a handle, and emptying the kernel's caches,");
        let scratch = tempfile::tempdir().unwrap();
        let (copy, kept) = (scratch.path().join("a.h5"), scratch.path().join("kept"));
        fs::copy(file(), &copy).unwrap();
        Self {
            file: copy,
            kept,
            _scratch: scratch,
        }
    }
}

#[test]
fn handles_outlive_the_kernels_memory_and_the_daemon() {
    let bench = Bench::new();

    let mount = Mount::new(&bench.file, &[]);
    let paths = handles("keep", &mount, &bench.kept);
    for path in [
        ".",
        "versions/r2/deep/er/same",
        "npy/versions/r3/edited.npy",
        "meta/versions/r1/deep/.json",
        "current~1",
        "npy/current",
        "at/2026-03-01T01:00:00.000001Z",
        "staging/deep/er/same",
        "staging/.status",
    ] {
        assert!(paths.iter().any(|p| p == path), "{path} of {paths:?}");
    }
    let nothing: [&str; 0] = [];
    assert_eq!(handles("use", &mount, &bench.kept), nothing);
    drop_caches();
    assert_eq!(handles("use", &mount, &bench.kept), nothing);
    drop(mount);

    // Files of `staging/` have numbers of one mount alone; all else is found, in every order.
    let mount = Mount::new(&bench.file, &[]);
    let stale = handles("use", &mount, &bench.kept);
    let staged: Vec<_> = paths
        .iter()
        .filter(|path| is_staged(path) && !path.ends_with("staging") && !path.contains("/."))
        .collect();
    assert_eq!(stale.iter().collect::<Vec<_>>(), staged);
    assert!(staged.len() > 5, "{staged:?}");

    // Another mount that shows less.
    drop(mount);
    let mount = Mount::new(&bench.file, &["--read-only"]);
    let stale = handles("use", &mount, &bench.kept);
    let staging: Vec<_> = paths.iter().filter(|path| is_staged(path)).collect();
    assert_eq!(stale.iter().collect::<Vec<_>>(), staging);
}

#[test]
fn a_handle_of_what_is_gone_is_stale_and_others_go_on() {
    let bench = Bench::new();
    let mount = Mount::new(&bench.file, &["--read-only"]);
    let paths = handles("keep", &mount, &bench.kept);
    drop(mount);

    let mut python = Interpreter::new();
    python.run(&format!(
        r#"
with h5py.File({}, "r+") as file:
    delete_versions(file, ["r3"])
"#,
        literal(&bench.file)
    ));
    let mount = Mount::new(&bench.file, &["--read-only"]);
    let stale = handles_but_listings(&mount, &bench.kept);
    for path in &stale {
        assert!(
            path.contains("/r3") || path.contains("current") || path.starts_with("at/"),
            "{path} is stale"
        );
    }
    assert!(stale.iter().any(|path| path == "versions/r3"), "{stale:?}");
    // What it shared with others is theirs.
    assert!(!stale.iter().any(|path| path == "versions/r3/edited"));
    assert!(paths.len() > stale.len() + 20);
}

#[test]
fn a_handle_is_not_stale_because_the_file_could_not_be_read() {
    const NAME: &str = "a.h5";
    let bench = Bench::new();
    let recorder = Recorder::new(NAME, fs::read(&bench.file).unwrap());
    let file = recorder.path().join(NAME);
    let mount = Mount::new(&file, &["--read-only"]);
    handles("keep", &mount, &bench.kept);
    drop(mount);

    let mount = Mount::new(&file, &["--read-only"]);
    drop_caches();
    recorder.fail_reads(Some(Errno::EIO));
    let output = script("handles.py")
        .arg("use")
        .args([mount.path(), &bench.kept])
        .output()
        .unwrap();
    recorder.fail_reads(None);
    let said = words(&output);
    assert!(
        !output.status.success() && said.contains("[Errno 5]"),
        "{said}"
    );
    let nothing: [&str; 0] = [];
    assert_eq!(handles("use", &mount, &bench.kept), nothing);
}

/// The same for a mount in which folders have lost names: those are left out.
fn handles_but_listings(mount: &Mount, kept: &Path) -> Vec<String> {
    let mut all: serde_json::Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    let things = all.as_object_mut().unwrap();
    things.retain(|path, thing| {
        let shows_versions = path == "at" || path.ends_with("versions");
        let leads_to_r3 = thing["is"]["target"]
            .as_str()
            .is_some_and(|target| !target.ends_with("/r1") && !path.starts_with("at/"));
        !shows_versions && !leads_to_r3
    });
    fs::write(kept, serde_json::to_vec(&all).unwrap()).unwrap();
    handles("use", mount, kept)
}
