//! What tools that compare, copy and archive rely on: stable inodes, link counts, times and sizes; and that nothing can be changed.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mount, fixtures, made_by, run, run_python};
use rustix::fs::{SeekFrom, seek};

const FILE: &str = r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    group.create_dataset("same", data=np.arange(30_000.0), chunks=(1000,))
    group.create_dataset("edited", data=np.arange(30_000, dtype="<i4"), chunks=(1000,), compression="gzip")
    group.create_dataset("deep/same", data=np.arange(600).reshape(20, 30), chunks=(8, 8))
    group.create_dataset("deep/edited", data=np.arange(600).reshape(20, 30), chunks=(8, 8))
    group.create_dataset("attributes", data=np.arange(100), chunks=(10,))
    group.create_dataset("sparse", shape=(10_000_000,), dtype="<f8", chunks=(4096,))
    group.create_dataset("text", data=np.array(["one", "two"], dtype=object), dtype=h5py.string_dtype(), chunks=(2,))
    group.attrs["author"] = "me"
    group["same"].attrs["unit"] = "K"
    group["sparse"][4096 * 100] = 1.0
    group["sparse"][4096 * 2000 + 5] = 2.0
with version(FILE, "r2", timestamp=when(2)) as group:
    group["edited"][5] = -1
    group["deep/edited"][3, 3] = -1
    group["attributes"].attrs["new"] = 1
with version(FILE, "r3", timestamp=when(3)) as group:
    group.create_dataset("added", data=np.arange(10), chunks=(10,))
    del group["text"]
with version(FILE, "r4", timestamp=when(4)):
    pass
"#;

/// Datasets that differ between `r1` and `r2`.
const CHANGED: [&str; 3] = ["attributes", "deep/edited", "edited"];

fn file() -> PathBuf {
    made_by(FILE, "identity.rs", "identity.h5")
}

fn mount() -> Mount {
    Mount::new(&file(), &[])
}

fn sh(script: &str, directory: &Path, arguments: &[&Path]) -> String {
    run(Command::new("sh")
        .args(["-euc", script, "sh"])
        .args(arguments)
        .env("LC_ALL", "C")
        .current_dir(directory))
}

/// What `find` says of everything in a mount but what is staged, which has numbers of its own in each: inode, times, size, links, blocks, mode.
fn find(mount: &Mount) -> String {
    let found = sh(
        "find . -name staging -prune -o -printf '%p %i %T@ %C@ %s %n %b %m %y %l\\n' | sort",
        mount.path(),
        &[],
    );
    assert!(found.lines().count() > 30, "{found}");
    found
}

#[test]
fn a_second_mount_and_a_copy_of_the_file_show_the_same_identities() {
    let first = find(&mount());
    assert_eq!(find(&mount()), first);
    let scratch = tempfile::tempdir().unwrap();
    let copy = scratch.path().join("elsewhere");
    fs::copy(file(), &copy).unwrap();
    assert_eq!(find(&Mount::new(&copy, &[])), first);
}

#[test]
fn every_fixture_has_the_same_identities_in_every_mount() {
    for key in ["history", "history-many", "names", "shapes", "strings"] {
        let file = fixtures().join(format!("{key}.h5"));
        let first = find(&Mount::new(&file, &[]));
        // In another order of looking things up, which must make no difference.
        let second = Mount::new(&file, &[]);
        sh(
            "ls -lR --sort=none versions > /dev/null",
            second.path(),
            &[],
        );
        assert_eq!(find(&second), first, "{key}");
    }
}

#[test]
fn diff_finds_what_changed_and_nothing_else() {
    let mount = mount();
    let diff = |a: &str, b: &str| {
        let output = Command::new("diff")
            .args(["-rq", a, b])
            .current_dir(mount.path().join("versions"))
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(diff("r3", "r4"), "");
    assert_eq!(
        diff("r1", "r2"),
        "Files r1/deep/edited and r2/deep/edited differ\nFiles r1/edited and r2/edited differ\n"
    );
    assert_eq!(diff("r2", "r3"), "Only in r3: added\nOnly in r2: text\n");
    // The same inodes: not one byte of the sparse dataset's 80 MB was read for that.
    assert_eq!(diff("r1/sparse", "r4/sparse"), "");

    let scratch = tempfile::tempdir().unwrap();
    let copy = scratch.path().join("copy.h5");
    fs::copy(file(), &copy).unwrap();
    let other = Mount::new(&copy, &[]);
    sh(
        "diff -r \"$1/versions/r2\" \"$2/versions/r2\"",
        Path::new("/"),
        &[mount.path(), other.path()],
    );
}

#[test]
fn rsync_lists_exactly_what_changed() {
    let mount = mount();
    let versions = mount.path().join("versions");
    let listed = |a: &str, b: &str| -> Vec<String> {
        let lines = sh(
            "rsync -aHn --itemize-changes \"$1/\" \"$2/\"",
            &versions,
            &[Path::new(b), Path::new(a)],
        );
        let is_file = |line: &&str| line.as_bytes().get(1) == Some(&b'f');
        let path = |line: &str| line.split_once(' ').unwrap().1.to_owned();
        let mut paths: Vec<_> = lines.lines().filter(is_file).map(path).collect();
        paths.sort();
        paths
    };
    assert_eq!(listed("r1", "r2"), CHANGED);
    assert_eq!(listed("r2", "r3"), ["added"]);
    assert_eq!(listed("r3", "r4"), Vec::<String>::new());
}

/// Every file below a folder by its path, with its bytes, inode and number of links.
fn tree(root: &Path) -> BTreeMap<String, (Vec<u8>, u64, u64)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            if stat.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                let found_there = (fs::read(&path).unwrap(), stat.ino(), stat.nlink());
                found.insert(name.to_owned(), found_there);
            }
        }
    }
    found
}

/// A copy has the same bytes and names of the same inodes as the mount.
#[track_caller]
fn assert_is_copy(copy: &Path, original: &Path) {
    let (copy, original) = (tree(copy), tree(original));
    assert!(copy.keys().eq(original.keys()));
    assert_eq!(original.len(), 28);
    for (path, (bytes, ino, links)) in &original {
        let (copied, new_ino, new_links) = &copy[path];
        assert!(copied == bytes, "{path}: wrong bytes");
        assert_eq!(new_links, links, "{path}");
        for (other, (_, other_ino, _)) in &original {
            assert_eq!(
                ino == other_ino,
                *new_ino == copy[other].1,
                "{path} and {other}"
            );
        }
    }
}

#[test]
fn rsync_keeps_bytes_and_hard_links() {
    let mount = mount();
    let copy = tempfile::tempdir().unwrap();
    let versions = mount.path().join("versions");
    sh(
        "rsync -aHS \"$1/\" \"$2/\"",
        Path::new("/"),
        &[&versions, copy.path()],
    );
    assert_is_copy(copy.path(), &versions);
    // What was copied once is not looked at again.
    let again = sh(
        "rsync -aHSn --itemize-changes \"$1/\" \"$2/\"",
        Path::new("/"),
        &[&versions, copy.path()],
    );
    assert_eq!(again, "");
}

#[test]
fn tar_stores_what_is_shared_once() {
    let mount = mount();
    let scratch = tempfile::tempdir().unwrap();
    let archive = scratch.path().join("versions.tar");
    let versions = mount.path().join("versions");
    sh(
        "tar -c --sparse -f \"$2\" -C \"$1\" .",
        Path::new("/"),
        &[&versions, &archive],
    );
    let listing = sh("tar -tvf \"$1\"", Path::new("/"), &[&archive]);
    let links = listing.lines().filter(|line| line.starts_with('h')).count();
    let originals = tree(&versions);
    let mut inodes: Vec<_> = originals.values().map(|(_, ino, _)| ino).collect();
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(links, originals.len() - inodes.len(), "{listing}");

    let copy = scratch.path().join("copy");
    fs::create_dir(&copy).unwrap();
    sh(
        "tar -x -f \"$1\" -C \"$2\"",
        Path::new("/"),
        &[&archive, &copy],
    );
    assert_is_copy(&copy, &versions);
}

#[test]
fn du_counts_what_is_stored_and_what_is_shown() {
    let mount = mount();
    let du = |options: &str, path: &str| -> u64 {
        let said = sh(
            &format!("du -s {options} \"$1\""),
            mount.path(),
            &[Path::new(path)],
        );
        said.split_whitespace().next().unwrap().parse().unwrap()
    };
    let stat = |path: &str| fs::metadata(mount.path().join("versions").join(path)).unwrap();
    // Two chunks of 32 KiB in 80 MB.
    assert_eq!(stat("r1/sparse").len(), 80_000_000);
    assert_eq!(stat("r1/sparse").blocks(), 128);
    assert_eq!(du("--block-size=1", "versions/r1/sparse"), 65536);
    assert_eq!(
        du("--apparent-size --block-size=1", "versions/r1/sparse"),
        80_000_000
    );
    assert_eq!(stat("r1/same").blocks(), 240_000_u64.div_ceil(512));
    // Compressed: less than its 120,000 bytes.
    assert!((1..150).contains(&stat("r1/edited").blocks()));
    // Each inode once: a version that shares all with the one before adds nothing.
    let both = sh(
        "du -s --block-size=512 versions/r3 versions/r4",
        mount.path(),
        &[],
    );
    assert_eq!(both.lines().nth(1), Some("0\tversions/r4"), "{both}");
    let all: u64 = {
        let mut blocks = BTreeMap::new();
        for (path, (_, ino, _)) in tree(&mount.path().join("versions")) {
            blocks.insert(ino, stat(&path).blocks());
        }
        blocks.values().sum()
    };
    assert_eq!(du("--block-size=512", "versions"), all);
}

#[test]
fn inodes_are_shared_exactly_where_nothing_changed() {
    let mount = mount();
    let stat = |path: &str| fs::metadata(mount.path().join("versions").join(path)).unwrap();
    for (path, groups) in [
        ("same", &["r1 r2 r3 r4"][..]),
        ("deep/same", &["r1 r2 r3 r4"]),
        ("sparse", &["r1 r2 r3 r4"]),
        ("edited", &["r1", "r2 r3 r4"]),
        ("deep/edited", &["r1", "r2 r3 r4"]),
        ("attributes", &["r1", "r2 r3 r4"]),
        ("added", &["r3 r4"]),
        ("text", &["r1 r2"]),
    ] {
        let mut inodes = Vec::new();
        for group in groups {
            let versions: Vec<_> = group.split(' ').collect();
            let first = stat(&format!("{}/{path}", versions[0]));
            // 2026-03-01 and as many hours and microseconds as the version's number.
            let number: i64 = versions[0][1..].parse().unwrap();
            assert_eq!(first.mtime(), 1_772_323_200 + 3600 * number);
            assert_eq!(first.mtime_nsec(), 1000 * number);
            for version in &versions {
                let found = stat(&format!("{version}/{path}"));
                assert_eq!(found.ino(), first.ino(), "{version}/{path}");
                assert_eq!(found.nlink(), versions.len() as u64, "{version}/{path}");
                assert_eq!(
                    (found.mtime(), found.mtime_nsec()),
                    (first.mtime(), first.mtime_nsec())
                );
                assert_eq!(
                    (found.ctime(), found.ctime_nsec()),
                    (first.mtime(), first.mtime_nsec())
                );
            }
            inodes.push(first.ino());
        }
        inodes.sort_unstable();
        inodes.dedup();
        assert_eq!(inodes.len(), groups.len(), "{path}");
    }
}

#[test]
fn readdir_gives_the_inodes_and_types_that_stat_gives() {
    let mount = mount();
    let checked = run_python(
        r"
import os, stat, sys
count = 0
for fresh in range(2):
    for root, directories, files in os.walk(sys.argv[1]):
        with os.scandir(root) as entries:
            for entry in entries:
                found = os.lstat(entry.path)
                assert entry.inode() == found.st_ino, (entry.path, entry.inode(), found.st_ino)
                assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(found.st_mode), entry.path
                assert entry.is_symlink() == stat.S_ISLNK(found.st_mode), entry.path
                assert entry.is_file(follow_symlinks=False) == stat.S_ISREG(found.st_mode), entry.path
                count += 1
print(count)
",
        &[&mount.path()],
    );
    assert!(checked.trim().parse::<u32>().unwrap() > 60, "{checked}");
    // With `.` and `..`, which Python leaves out.
    let listed = sh("ls -aif versions/r1/deep", mount.path(), &[]);
    let ino = |path: &str| fs::metadata(mount.path().join(path)).unwrap().ino();
    for (name, expected) in [
        (".", ino("versions/r1/deep")),
        ("..", ino("versions/r1")),
        ("same", ino("versions/r1/deep/same")),
    ] {
        let found = listed.lines().any(|line| {
            let mut fields = line.split_whitespace();
            fields.next() == Some(&expected.to_string()) && fields.next() == Some(name)
        });
        assert!(found, "{name} {expected}: {listed}");
    }
}

#[test]
fn holes_are_found_and_stay_holes_in_a_copy() {
    let mount = mount();
    let path = mount.path().join("versions/r1/sparse");
    let file = File::open(&path).unwrap();
    let chunk = 4096 * 8;
    let (first, second, end) = (100 * chunk, 2000 * chunk, 80_000_000);
    for (at, data, hole) in [
        (0, Some(first), 0),
        (1, Some(first), 1),
        (first, Some(first), first + chunk),
        (first + 7, Some(first + 7), first + chunk),
        (first + chunk - 1, Some(first + chunk - 1), first + chunk),
        (first + chunk, Some(second), first + chunk),
        (second, Some(second), second + chunk),
        (second + chunk, None, second + chunk),
        (end - 1, None, end - 1),
    ] {
        let found = seek(&file, SeekFrom::Data(at)).ok();
        assert_eq!(found, data, "data from {at}");
        assert_eq!(seek(&file, SeekFrom::Hole(at)), Ok(hole), "hole from {at}");
    }
    for seek_from in [SeekFrom::Data(end), SeekFrom::Hole(end)] {
        assert_eq!(seek(&file, seek_from), Err(rustix::io::Errno::NXIO));
    }
    // Without a hole: one at the end.
    let full = File::open(mount.path().join("versions/r1/same")).unwrap();
    assert_eq!(seek(&full, SeekFrom::Data(5)), Ok(5));
    assert_eq!(seek(&full, SeekFrom::Hole(5)), Ok(240_000));

    let scratch = tempfile::tempdir().unwrap();
    for option in ["--sparse=auto", "--sparse=always", "--sparse=never"] {
        let copy = scratch.path().join(option);
        sh(
            "cp \"$1\" \"$2\" -- \"$3\"",
            scratch.path(),
            &[Path::new(option), &path, &copy],
        );
        let expected = {
            let mut bytes = vec![0; 80_000_000];
            for (at, value) in [(first, 1.0_f64), (second + 40, 2.0)] {
                let at = usize::try_from(at).unwrap();
                bytes[at..][..8].copy_from_slice(&value.to_le_bytes());
            }
            bytes
        };
        assert!(
            fs::read(&copy).unwrap() == expected,
            "{option}: wrong bytes"
        );
        if option != "--sparse=never" {
            let blocks = fs::metadata(&copy).unwrap().blocks();
            assert!(blocks <= 1024, "{option}: {blocks} blocks");
        }
        fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn statfs_reports_the_file_system_of_the_file() {
    let mount = mount();
    let file = file();
    let stat = |path: &Path, format: &str| {
        run(Command::new("stat")
            .args(["-f", "-c", format])
            .arg(path)
            .env("LC_ALL", "C"))
    };
    // Total blocks, their size, total inodes, longest name; what is free may change meanwhile.
    let format = "%b %S %c %l";
    assert_eq!(stat(mount.path(), format), stat(&file, format));
    assert_eq!(
        stat(&mount.path().join("versions/r1/same"), format),
        stat(&file, format)
    );
    // FUSE_SUPER_MAGIC.
    assert_eq!(stat(mount.path(), "%t"), "65735546\n");
    let free: u64 = stat(mount.path(), "%f").trim().parse().unwrap();
    assert!(free > 0);
}

#[test]
fn getfattr_shows_attributes_and_what_describes_the_array() {
    let mount = mount();
    let dump = |path: &str| {
        let said = sh(
            "getfattr -d -m - \"$1\"",
            &mount.path().join("versions"),
            &[Path::new(path)],
        );
        let mut lines: Vec<_> = said
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(
        dump("r2/same"),
        [
            "user.h5.chunks=\"[1000]\"",
            "user.h5.dtype=\"<f8\"",
            "user.h5.fillvalue=\"0.0\"",
            "user.h5.filters=\"[]\"",
            "user.h5.shape=\"[30000]\"",
            "user.unit=\"K\"",
        ]
    );
    assert_eq!(
        dump("r1"),
        [
            "user.author=\"me\"",
            "user.timestamp=\"2026-03-01 01:00:00.000001+0000\"",
        ]
    );
    // A version's own attributes are not handed on.
    assert_eq!(
        dump("r2"),
        [
            "user.prev_version=\"r1\"",
            "user.timestamp=\"2026-03-01 02:00:00.000002+0000\"",
        ]
    );
    assert!(dump("r2/attributes").contains(&"user.new=\"1\"".to_owned()));
    assert!(!dump("r1/attributes").contains(&"user.new=\"1\"".to_owned()));
    assert_eq!(dump("r2/deep"), Vec::<String>::new());
}

/// Every call that would change something, by the programs that people use.
#[test]
fn every_change_is_refused_as_read_only() {
    let mount = mount();
    let before = find(&mount);
    for attempt in [
        "touch versions/r1/new",
        "touch versions/r1/same",
        "touch new",
        "touch versions/new",
        "mkdir versions/new",
        "mkdir versions/r1/new",
        "rmdir versions/r1/deep",
        "rm -f versions/r1/same",
        "rm -f current",
        "mv versions/r1/same versions/r1/new",
        "mv versions/r1 versions/new",
        "ln versions/r1/same versions/r1/new",
        "ln -s same versions/r1/new",
        "chmod 600 versions/r1/same",
        "chmod 700 versions/r1",
        "truncate -s 0 versions/r1/same",
        "truncate -s 999999 versions/r1/same",
        "setfattr -n user.new -v 1 versions/r1/same",
        "setfattr -n user.new -v 1 versions/r1",
        "setfattr -x user.unit versions/r1/same",
        "dd if=/dev/zero of=versions/r1/same bs=1 count=1 conv=notrunc",
        "fallocate -l 999999 versions/r1/same",
        "mkfifo versions/r1/new",
        "cp versions/r1/edited versions/r1/same",
    ] {
        let output = Command::new("sh")
            .args(["-c", attempt])
            .env("LC_ALL", "C")
            .current_dir(mount.path())
            .output()
            .unwrap();
        let words = common::words(&output);
        assert!(!output.status.success(), "{attempt}");
        assert!(
            words.contains("Read-only file system"),
            "{attempt}: {words}"
        );
    }
    assert_eq!(find(&mount), before);
}
