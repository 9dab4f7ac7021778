//! `vh5fs recover`, and mounts that cannot write, on what a killed daemon leaves of a commit at each of its operations.

mod common;
#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/staging.rs"]
mod staging;
#[path = "common/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::{Interpreter, Mount, literal, run, vh5fs, words};
use fuser::Errno;
use recorder::{Fault, Recorder};
use rustix::fs::FlockOperation;
use staging::{FIRST, bytes_of};
use tempfile::TempDir;

const FILE: &str = "file.h5";
const JOURNAL: &str = ".file.h5.vh5fs/journal";
/// Bytes of a journal's head, which it is made with.
const HEAD_BYTES: u64 = 96;

/// A file of one version.
fn first(python: &mut Interpreter) -> PathBuf {
    let file = python.scratch().join("first.h5");
    python.run(FIRST);
    python.run(&format!(
        "path = {0}; first(path); states = library.checked(path)",
        literal(&file)
    ));
    file
}

/// What a daemon leaves that is killed after so many operations of a commit that edits `x`; `None` where the commit was over by then.
fn interrupted(base: &Path, operations: usize) -> Option<Recorder> {
    let recorder = Recorder::new(FILE, fs::read(base).unwrap());
    let mount = Mount::new(&recorder.path().join(FILE), &[]);
    let x = OpenOptions::new()
        .write(true)
        .open(mount.staging("x"))
        .unwrap();
    x.write_all_at(&bytes_of([-1, -2]), 4000).unwrap();
    x.sync_all().unwrap();
    drop(x);
    recorder.fail(Fault {
        after: operations,
        count: usize::MAX,
        errno: Errno::EIO,
    });
    let _ = mount.try_commit("r1");
    let mount_point = mount.kill();
    run(Command::new("fusermount3")
        .arg("-u")
        .arg(mount_point.path()));
    (recorder.heal() > 0).then_some(recorder)
}

/// A copy of a file and its sidecar.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn of(folder: &Path) -> Self {
        let copy = common::fast_folder();
        run(Command::new("cp")
            .arg("-a")
            .arg(folder.join("."))
            .arg(copy.path()));
        Self { folder: copy }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join(JOURNAL)
    }

    /// All files, by name, that hold what is kept.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        [self.file(), self.journal()]
            .into_iter()
            .filter_map(|path| Some((path.clone(), fs::read(path).ok()?)))
            .collect()
    }
}

fn recover(file: &Path) -> Output {
    vh5fs().arg("recover").arg(file).output().unwrap()
}

/// What `recover` says, which succeeds.
#[track_caller]
fn recovered(file: &Path) -> String {
    let output = recover(file);
    assert!(output.status.success(), "{}", words(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    let prefix = format!("{}: ", file.display());
    said.strip_prefix(&prefix).expect(&said).trim().to_owned()
}

/// What `recover` says where it fails, in one line.
#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let said = words(output);
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    assert!(said.starts_with("vh5fs: "), "{said}");
    said
}

/// What is there of versions for one who only reads; `None` where that is refused.
fn read_only(file: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    match tree::open(file, true) {
        Ok(vfs) => Some(tree::datasets(&vfs, "versions")),
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains("run `vh5fs recover"), "{said}");
            None
        }
    }
}

/// Whether there is more of a journal than its head.
fn journal_has_body(folder: &Path) -> bool {
    fs::metadata(folder.join(JOURNAL)).is_ok_and(|journal| journal.len() > HEAD_BYTES)
}

#[test]
fn a_commit_that_was_interrupted_anywhere_is_recovered() {
    let mut python = Interpreter::new();
    let base = first(&mut python);
    let old = read_only(&base).unwrap();
    let mut new = old.clone();
    let mut x = old["r0/x"].clone();
    x[4000..4008].copy_from_slice(&bytes_of([-1, -2]));
    new.insert("r1/x".to_owned(), x);
    new.insert("r1/grid".to_owned(), old["r0/grid"].clone());

    let mut kinds = BTreeSet::new();
    let (mut seen_half_changed, mut operations) = (false, 0);
    while let Some(recorder) = interrupted(&base, operations) {
        let file = recorder.path().join(FILE);
        // Whoever cannot write sees the old versions or the new ones, or nothing; and changes nothing.
        let copy = Copy::of(recorder.path());
        let kept = copy.bytes();
        let seen = read_only(&copy.file());
        let is_right = seen
            .as_ref()
            .is_none_or(|seen| *seen == old || *seen == new);
        assert!(is_right, "{operations}");
        seen_half_changed |= seen.is_none();
        assert!(copy.bytes() == kept, "{operations}");

        let said = recovered(&file);
        kinds.insert(
            said.split(|character: char| character.is_ascii_digit())
                .next()
                .unwrap()
                .to_owned(),
        );
        assert!(!recorder.path().join(JOURNAL).exists());
        if said.contains("cut off") {
            assert!(recorder.bytes(FILE) == fs::read(&base).unwrap());
        }
        assert_eq!(recovered(&file), "nothing to recover");
        let copy = Copy::of(recorder.path());
        let vfs = tree::open(&copy.file(), false).unwrap();
        let found = tree::datasets(&vfs, "versions");
        let staged = tree::datasets(&vfs, "staging");
        let status = tree::status(&vfs);
        vfs.close();
        drop(vfs);
        let is_new = found == new;
        assert!(is_new || found == old, "{operations}: {said}");
        if said.contains("finished") || said.contains("was whole") {
            assert!(is_new, "{operations}: {said}");
        }
        // What was not committed is still staged.
        assert_eq!(staged["x"], new["r1/x"], "{operations}");
        assert_eq!(status.contains("Nothing is staged"), is_new, "{status}");
        let judged = python.scratch().join("judged.h5");
        fs::write(&judged, recorder.bytes(FILE)).unwrap();
        let versions = python.run(&format!(
            "result = sorted(library.checked({}, states))",
            literal(&judged)
        ));
        assert_eq!(versions.as_array().unwrap().len(), 1 + usize::from(is_new));
        operations += 1;
    }
    println!("{operations} operations: {kinds:?}");
    assert!(operations > 12);
    assert!(seen_half_changed);
    for kind in [
        "nothing to recover",
        "a commit had begun; the ",
        "a commit was interrupted, and is finished now",
        "the last commit was whole; what it left was removed",
    ] {
        assert!(kinds.contains(kind), "{kind}");
    }
}

/// The first interruption that is as it is wanted.
fn left(base: &Path, is_wanted: impl Fn(&Path) -> bool) -> Copy {
    let mut operations = 0;
    loop {
        let recorder = interrupted(base, operations).expect("there is such an interruption");
        let copy = Copy::of(recorder.path());
        if is_wanted(copy.folder.path()) {
            return copy;
        }
        operations += 1;
    }
}

fn is_half_changed(folder: &Path) -> bool {
    journal_has_body(folder) && read_only(&folder.join(FILE)).is_none()
}

#[test]
fn a_torn_journal_and_what_lies_past_the_end_are_removed() {
    let mut python = Interpreter::new();
    let base = first(&mut python);
    let whole = left(&base, |folder| {
        journal_has_body(folder)
            && fs::read(folder.join(FILE))
                .unwrap()
                .starts_with(&fs::read(&base).unwrap()[..8])
    });
    let before = fs::read(whole.file()).unwrap();
    let journal = fs::read(whole.journal()).unwrap();
    for len in [0, 1, 95, 96, 200, journal.len() - 1] {
        let copy = Copy::of(whole.folder.path());
        fs::write(copy.journal(), &journal[..len]).unwrap();
        let said = recovered(&copy.file());
        // In a copy, which is another inode, nobody knows what lies past the end.
        assert!(said.contains("changed nothing"), "{len}: {said}");
        assert!(fs::read(copy.file()).unwrap() == before);
        assert!(!copy.journal().exists());
        let old = read_only(&base).unwrap();
        assert_eq!(read_only(&copy.file()), Some(old));
        // What lies there does not matter to the next commit.
        let mount = Mount::new(&copy.file(), &[]);
        mount.commit("r1");
        drop(mount);
        python.run(&format!(
            "assert sorted(library.checked({}, states)) == ['r0', 'r1']",
            literal(&copy.file())
        ));
    }
}

#[test]
fn a_journal_of_another_content_is_set_aside() {
    let mut python = Interpreter::new();
    let base = first(&mut python);
    let copy = left(&base, is_half_changed);
    let journal = fs::read(copy.journal()).unwrap();
    // As it was in a backup.
    fs::copy(&base, copy.file()).unwrap();
    let said = refused(&recover(&copy.file()));
    let aside = copy.folder.path().join(".file.h5.vh5fs.journal-1");
    assert!(said.contains(&aside.display().to_string()), "{said}");
    assert!(said.contains("vh5fs verify"), "{said}");
    assert!(fs::read(copy.file()).unwrap() == fs::read(&base).unwrap());
    assert!(fs::read(aside).unwrap() == journal);
    assert_eq!(recovered(&copy.file()), "nothing to recover");
}

#[test]
fn nothing_is_recovered_of_a_file_that_somebody_uses() {
    let mut python = Interpreter::new();
    let base = first(&mut python);
    let copy = left(&base, is_half_changed);
    let before = copy.bytes();
    let other = File::open(copy.file()).unwrap();
    for lock in [
        FlockOperation::NonBlockingLockShared,
        FlockOperation::NonBlockingLockExclusive,
    ] {
        rustix::fs::flock(&other, lock).unwrap();
        let said = refused(&recover(&copy.file()));
        assert!(said.contains("another program"), "{said}");
        assert_eq!(copy.bytes(), before);
    }
    drop(other);
    let sidecar = copy.folder.path().join(".file.h5.vh5fs");
    let holder = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(sidecar.join("lock"))
        .unwrap();
    rustix::fs::flock(&holder, FlockOperation::NonBlockingLockExclusive).unwrap();
    let said = refused(&recover(&copy.file()));
    assert!(said.contains("another mount"), "{said}");
    assert_eq!(copy.bytes(), before);
    drop(holder);
    assert_eq!(
        recovered(&copy.file()),
        "a commit was interrupted, and is finished now"
    );
}

/// Runs `vh5fs` where `folder` cannot be written to.
fn on_read_only_medium(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script =
        "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && cd \"$0\" && exec \"$@\"";
    command.args(["sh", "-c", script]).arg(folder);
    command.arg(vh5fs().get_program()).args(arguments);
    command.output().unwrap()
}

#[test]
fn what_cannot_be_written_to_is_not_recovered_and_shown_where_it_is_sound() {
    let mut python = Interpreter::new();
    let base = first(&mut python);
    let half_changed = left(&base, is_half_changed);
    let before = half_changed.bytes();
    let folder = half_changed.folder.path();
    let said = refused(&on_read_only_medium(folder, &["recover", FILE]));
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(half_changed.bytes(), before);
    let mount_point = common::MountPoint::new();
    let at = mount_point.path().to_str().unwrap();
    let medium = on_read_only_medium(folder, &["mount", FILE, at]);
    let asked = vh5fs()
        .args(["mount", "--read-only"])
        .arg(half_changed.file())
        .arg(at)
        .output()
        .unwrap();
    for output in [medium, asked] {
        assert_eq!(output.status.code(), Some(1));
        let said = words(&output);
        assert!(said.contains("left half changed"), "{said}");
        assert!(said.contains("vh5fs recover"), "{said}");
        assert!(!mount_point.is_mounted());
    }
    assert_eq!(half_changed.bytes(), before);

    // Before the first byte is overwritten, it has the old versions.
    let untouched = left(&base, |folder| {
        journal_has_body(folder)
            && read_only(&folder.join(FILE)).is_some()
            && recovered(&Copy::of(folder).file()).contains("is finished now")
    });
    let before = untouched.bytes();
    let mount = Mount::new(&untouched.file(), &["--read-only"]);
    assert!(mount.version("r0", "x").is_file());
    assert!(!mount.version("r1", "x").exists());
    // Who can write finishes it, and whoever reads sees that.
    assert_eq!(untouched.bytes(), before);
    assert_eq!(
        recovered(&untouched.file()),
        "a commit was interrupted, and is finished now"
    );
    common::wait_until("r1 is seen", Duration::from_secs(5), || {
        mount.version("r1", "x").is_file()
    });
}
