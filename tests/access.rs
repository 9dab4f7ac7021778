//! Who may see what: nobody gets more through a mount than FILE's own permissions give.

mod common;
#[path = "common/staging.rs"]
mod staging;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mount, need_root, run_python};
use tempfile::TempDir;

/// A user and a group that own nothing.
const NOBODY: u32 = 65534;
/// Others that own FILE.
const OWNER: (u32, u32) = (54_321, 54_322);

const SCRIPT: &str = r#"
import sys, h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File
with h5py.File(sys.argv[1], "w") as f:
    with VersionedHDF5File(f).stage_version("r1") as g:
        g.create_dataset("group/values", data=np.arange(1000), chunks=(100,))
"#;

/// A versioned file with these permissions, in a folder that anybody may enter.
fn file_with(mode: u32, owner: Option<(u32, u32)>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("a.h5");
    run_python(SCRIPT, &[&file]);
    if let Some((user, group)) = owner {
        chown(&file, Some(user), Some(group)).unwrap();
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    (folder, file)
}

/// Mounts with `arguments` where anybody may go.
fn mount(file: &Path, arguments: &[&str]) -> Mount {
    let mount = Mount::new(file, arguments);
    let above = mount.path().parent().unwrap();
    fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
    mount
}

/// Whether a shell of another user, and of `group`, can do something in the mount.
fn can(mount: &Mount, group: u32, what: &str) -> bool {
    let output = Command::new("sh")
        .args([OsStr::new("-c"), OsStr::new(what)])
        .current_dir("/")
        .env("M", mount.path())
        .uid(NOBODY)
        .gid(group)
        .output()
        .unwrap();
    output.status.success()
}

/// Everything in a tree, with the control files that no listing shows.
fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            found.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
        }
    }
    let controls = [".commit", ".status", ".reset"];
    let controls = controls.map(|name| root.join("staging").join(name));
    found.extend(controls.into_iter().filter(|path| path.exists()));
    found
}

#[test]
fn nothing_shows_more_permission_than_the_file_gives_and_all_have_its_owner() {
    let is_root = rustix::process::geteuid().is_root();
    for mode in [0o600, 0o640, 0o604, 0o644, 0o664, 0o666, 0o444, 0o400] {
        let (_folder, file) = file_with(mode, is_root.then_some(OWNER));
        let owner = fs::metadata(&file).unwrap();
        let mount = mount(&file, &[]);
        let mut seen = 0;
        for path in walk(mount.path()) {
            let found = fs::symlink_metadata(&path).unwrap();
            assert_eq!(
                (found.uid(), found.gid()),
                (owner.uid(), owner.gid()),
                "{path:?}"
            );
            seen += 1;
            if found.is_symlink() {
                continue;
            }
            let shown = found.mode() & 0o7777;
            assert_eq!(shown & 0o444 & !mode, 0, "{path:?}: {shown:o} of {mode:o}");
            assert_eq!(shown & 0o222 & !mode, 0, "{path:?}: {shown:o} of {mode:o}");
            // Who may enter a directory may read the file.
            let readers = if found.is_dir() {
                (mode & 0o444) >> 2
            } else {
                0
            };
            assert_eq!(
                shown & 0o7111 & !readers,
                0,
                "{path:?}: {shown:o} of {mode:o}"
            );
        }
        // Without a writer there is no `staging/`, with a group, a dataset and three control files, nor `npy/staging/` with the first two.
        let wanted = if mode & 0o222 == 0 { 22 } else { 31 };
        assert_eq!(seen, wanted, "{mode:o}");
    }
}

/// What nobody but the owner may do, whoever may read.
const CHANGES: [&str; 9] = [
    "echo x > $M/staging/new",
    "echo x >> $M/staging/group/values",
    "rm $M/staging/group/values",
    "mkdir $M/staging/folder",
    "mv $M/staging/group $M/staging/moved",
    "truncate -s 8 $M/staging/group/values",
    "touch $M/staging/.commit",
    "echo r9 > $M/staging/.commit",
    "touch $M/staging/.reset",
];

#[test]
fn another_user_gets_what_the_file_gives() {
    need_root("looking as another user");
    let read = "head -c 8 $M/versions/r1/group/values > /dev/null";
    for (mode, group, reads) in [
        (0o600, NOBODY, false),
        (0o640, NOBODY, false),
        (0o640, OWNER.1, true),
        (0o604, OWNER.1, false),
        (0o644, NOBODY, true),
        (0o666, NOBODY, true),
    ] {
        let (_folder, file) = file_with(mode, Some(OWNER));
        let bytes = fs::read(&file).unwrap();
        let closed = mount(&file, &[]);
        for what in [read, "ls $M", "ls $M/versions"] {
            assert!(!can(&closed, group, what), "{mode:o}: {what}");
        }
        drop(closed);
        let open = mount(&file, &["--allow-other"]);
        for what in [
            read,
            "ls $M/",
            "ls $M/versions/r1/group",
            "cat $M/staging/.status",
            "cat $M/staging/group/values",
        ] {
            assert_eq!(can(&open, group, what), reads, "{mode:o}: {what}");
        }
        for what in CHANGES {
            assert!(!can(&open, group, what), "{mode:o}: {what}");
        }
        assert_eq!(
            fs::read_dir(open.path().join("versions")).unwrap().count(),
            1
        );
        assert!(open.staging("group/values").exists() && !open.staging("new").exists());
        drop(open);
        assert!(fs::read(&file).unwrap() == bytes, "{mode:o}");
    }
}

#[test]
fn staged_state_is_for_its_user_alone_whatever_the_umask() {
    let (folder, file) = file_with(0o644, None);
    // Of the daemon too, which inherits it.
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let mount = mount(&file, &["--allow-other"]);
    rustix::process::umask(before);
    fs::write(mount.staging("group/values"), [1; 800]).unwrap();
    fs::write(mount.staging("new"), b"secret").unwrap();
    let sidecar = folder.path().join(".a.h5.vh5fs");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&sidecar), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&sidecar).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        files += 1;
    }
    assert!(files > 2, "{files}");
    if rustix::process::geteuid().is_root() {
        let of_sidecar = format!("ls {}", sidecar.display());
        assert!(!can(&mount, NOBODY, &of_sidecar));
    }
    mount.reset("");
}
