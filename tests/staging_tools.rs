//! Ordinary programs edit `staging/`: each commits the right bytes, and what they left for a moment leaves no trace in the file.

mod common;
#[path = "common/staging.rs"]
mod staging;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Interpreter, Mount, literal, run};
use staging::{bytes_of, get, numbers_of, set};

const FIRST: &str = r#"
def first(path):
    with version(path, "r0") as group:
        group.create_dataset("x", data=np.arange(5000, dtype="<i4"), chunks=(512,), compression="gzip", shuffle=True)
        group.create_dataset("deep/grid", data=np.arange(1200, dtype=">f8").reshape(40, 30), chunks=(16, 8))
        text = np.array([f"row {n}" for n in range(40)], dtype=object)
        group.create_dataset("text", data=text, dtype=h5py.string_dtype(), chunks=(16,))
        group["x"].attrs["unit"] = "m"
        group["x"].attrs["scale"] = 0.5
        group["deep"].attrs["note"] = "a group"

def facts(path, name, place):
    """Type, shape, chunks, filters and attributes of a dataset."""
    with h5py.File(path) as file:
        dataset = VersionedHDF5File(file)[name][place]
        raw = library.creation(file["_version_data"][place]["raw_data"])
        return [library.plain_dtype(dataset.dtype), dataset.shape, raw["chunks"], str(raw["filters"]),
                str(library.attributes(dataset, library.BOOKKEEPING))]
"#;

/// A mounted file, and what it is to hold.
struct Bench {
    python: Interpreter,
    file: PathBuf,
    mount: Mount,
    /// Groups and datasets of the next version.
    groups: BTreeSet<String>,
    datasets: BTreeSet<String>,
    /// Every path that the file may have.
    paths: BTreeSet<String>,
}

impl Bench {
    fn new() -> Self {
        let mut python = Interpreter::new();
        let file = python.scratch().join("file.h5");
        python.run(FIRST);
        python.run(&format!("path = {}; first(path)", literal(&file)));
        let mount = Mount::new(&file, &[]);
        let set_of = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut bench = Self {
            python,
            file,
            mount,
            groups: set_of(&["deep"]),
            datasets: set_of(&["x", "deep/grid", "text"]),
            paths: BTreeSet::new(),
        };
        bench.paths = bench.paths_in_file();
        bench
    }

    fn paths_in_file(&mut self) -> BTreeSet<String> {
        let found = self.python.run("result = library.all_paths(path)");
        serde_json::from_value(found).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mount.staging(name)
    }

    /// A folder on an ordinary file system.
    fn outside(&self, name: &str) -> PathBuf {
        self.python.scratch().join(name)
    }

    /// Commits; afterwards the file has the version's objects, and nothing else that it did not have.
    #[track_caller]
    fn commit(&mut self, name: &str) {
        self.mount.commit(name);
        let mut wanted = std::mem::take(&mut self.paths);
        wanted.insert(format!("_version_data/versions/{name}"));
        for group in &self.groups {
            wanted.insert(format!("_version_data/versions/{name}/{group}"));
            wanted.insert(format!("_version_data/{group}"));
        }
        for dataset in &self.datasets {
            wanted.insert(format!("_version_data/versions/{name}/{dataset}"));
            for below in ["", "/raw_data", "/hash_table"] {
                wanted.insert(format!("_version_data/{dataset}{below}"));
            }
        }
        // A group without any dataset has no place beside the versions.
        for group in &self.groups {
            if !self
                .datasets
                .iter()
                .any(|d| d.starts_with(&format!("{group}/")))
            {
                wanted.remove(&format!("_version_data/{group}"));
            }
        }
        let found = self.paths_in_file();
        let odd: Vec<_> = found.symmetric_difference(&wanted).collect();
        assert!(odd.is_empty(), "not as wanted: {odd:?}");
        self.paths = found;
        self.python.run(
            "assert library.misplaced_hashes(path) == []; assert library.rebuilt_differences(path) == []",
        );
    }

    /// A dataset of a version, which Python and the mount have to read alike.
    #[track_caller]
    fn bytes(&mut self, version: &str, dataset: &str) -> Vec<u8> {
        let mut contents = self.python.contents(&self.file, version);
        let read = contents.remove(dataset).unwrap();
        let shown = fs::read(self.mount.version(version, dataset)).unwrap();
        assert!(read == shown, "{dataset}: Python and the mount differ");
        read
    }

    #[track_caller]
    fn facts(&mut self, version: &str, dataset: &str) -> serde_json::Value {
        self.python
            .run(&format!("result = facts(path, {version:?}, {dataset:?})"))
    }
}

fn tool(name: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    run(Command::new(name).args(arguments.iter().map(AsRef::as_ref)));
}

fn shell(script: &str, directory: &Path) {
    run(Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory));
}

#[test]
fn cp_makes_the_same_dataset_under_a_new_name() {
    for options in ["-a", "--preserve=xattr"] {
        let mut bench = Bench::new();
        let old = bench.mount.version("r0", "x");
        tool("cp", &[&options, &old, &bench.path("copy")]);
        tool(
            "cp",
            &[
                &options,
                &bench.mount.version("r0", "text"),
                &bench.path("text2"),
            ],
        );
        tool(
            "cp",
            &[
                &options,
                &bench.mount.version("r0", "deep/grid"),
                &bench.path("grid2"),
            ],
        );
        for name in ["copy", "text2", "grid2"] {
            bench.datasets.insert(name.to_owned());
        }
        bench.commit("r1");
        for (copy, original) in [("copy", "x"), ("text2", "text"), ("grid2", "deep/grid")] {
            assert_eq!(bench.bytes("r1", copy), bench.bytes("r0", original));
            assert_eq!(
                bench.facts("r1", copy),
                bench.facts("r0", original),
                "{options}"
            );
        }
    }
}

#[test]
fn cp_copies_a_whole_tree() {
    let mut bench = Bench::new();
    tool(
        "cp",
        &[
            &"-a",
            &bench.mount.version("r0", "deep"),
            &bench.path("again"),
        ],
    );
    bench.groups.insert("again".to_owned());
    bench.datasets.insert("again/grid".to_owned());
    bench.commit("r1");
    assert_eq!(get(&bench.mount.version("r1", "again"), "note"), "a group");
    assert_eq!(
        bench.bytes("r1", "again/grid"),
        bench.bytes("r0", "deep/grid")
    );
    assert_eq!(
        bench.facts("r1", "again/grid"),
        bench.facts("r0", "deep/grid")
    );
}

#[test]
fn cp_brings_an_older_state_back() {
    for options in ["-a", "--preserve=xattr", "--preserve=timestamps"] {
        let mut bench = Bench::new();
        fs::write(bench.path("x"), bytes_of(0..100)).unwrap();
        set(&bench.path("x"), "unit", "km");
        bench.commit("r1");
        tool(
            "cp",
            &[&options, &bench.mount.version("r0", "x"), &bench.path("x")],
        );
        bench.commit("r2");
        assert_eq!(bench.bytes("r2", "x"), bench.bytes("r0", "x"));
        let unit = if options == "--preserve=timestamps" {
            "km"
        } else {
            "m"
        };
        assert_eq!(get(&bench.mount.version("r2", "x"), "unit"), unit);
    }
}

#[test]
fn rsync_writes_in_place_and_beside() {
    for options in [
        &["-a", "--inplace"][..],
        &["-a"],
        &["-aX"],
        &["-a", "--inplace", "--no-whole-file"],
    ] {
        let mut bench = Bench::new();
        let source = bench.outside("source");
        fs::create_dir_all(source.join("deep")).unwrap();
        let x: Vec<i32> = (0..5000).map(|n| if n == 1234 { -1 } else { n }).collect();
        fs::write(source.join("x"), bytes_of(x.clone())).unwrap();
        fs::write(source.join("text"), "one\ntwo\n").unwrap();
        fs::write(source.join("deep/grid"), [0; 41 * 30 * 8]).unwrap();
        fs::write(source.join("added"), "bytes").unwrap();
        let mut rsync = Command::new("rsync");
        rsync
            .args(options)
            .arg("-I")
            .arg(source.join(""))
            .arg(bench.path(""));
        run(&mut rsync);
        bench.datasets.insert("added".to_owned());
        bench.commit("r1");
        assert_eq!(numbers_of(&bench.bytes("r1", "x")), x, "{options:?}");
        assert_eq!(bench.bytes("r1", "text"), b"one\ntwo\n");
        assert_eq!(bench.bytes("r1", "deep/grid"), [0; 41 * 30 * 8]);
        assert_eq!(bench.bytes("r1", "added"), b"bytes");
        // Types stay, and where rsync does not carry attributes those stay too.
        let (now, before) = (bench.facts("r1", "x"), bench.facts("r0", "x"));
        assert_eq!(
            [&now[0], &now[2], &now[3]],
            [&before[0], &before[2], &before[3]]
        );
        if !options.contains(&"-aX") {
            assert_eq!(now[4], before[4], "{options:?}");
        }
    }
}

/// From the mount itself, attributes and all.
#[test]
fn rsync_copies_a_version_with_its_attributes() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("copy")).unwrap();
    let mut rsync = Command::new("rsync");
    rsync.arg("-aX").arg(bench.mount.version("r0", "").join(""));
    run(rsync.arg(bench.path("copy").join("")));
    for group in ["copy", "copy/deep"] {
        bench.groups.insert(group.to_owned());
    }
    for dataset in ["copy/x", "copy/text", "copy/deep/grid"] {
        bench.datasets.insert(dataset.to_owned());
    }
    bench.commit("r1");
    for original in ["x", "text", "deep/grid"] {
        let copy = format!("copy/{original}");
        assert_eq!(bench.bytes("r1", &copy), bench.bytes("r0", original));
        assert_eq!(bench.facts("r1", &copy), bench.facts("r0", original));
    }
}

/// Onto the next version itself, whose timestamp and parent are not those that come along.
#[test]
fn rsync_goes_back_to_a_version_with_its_attributes() {
    let mut bench = Bench::new();
    fs::write(bench.path("x"), [0; 8]).unwrap();
    fs::remove_file(bench.path("text")).unwrap();
    bench.datasets.remove("text");
    bench.commit("r1");
    let mut rsync = Command::new("rsync");
    rsync
        .args(["-aXI", "--delete"])
        .arg(bench.mount.version("r0", "").join(""));
    run(rsync.arg(bench.path("")));
    bench.datasets.insert("text".to_owned());
    bench.commit("r2");
    for path in ["x", "text", "deep/grid"] {
        assert_eq!(bench.bytes("r2", path), bench.bytes("r0", path));
        assert_eq!(bench.facts("r2", path), bench.facts("r0", path));
    }
    let timestamp = |version| {
        let path = bench.mount.version(version, "");
        let mut value = [0; 64];
        let count = rustix::fs::getxattr(path, "user.timestamp", &mut value[..]).unwrap();
        value[..count].to_vec()
    };
    assert_ne!(timestamp("r2"), timestamp("r0"));
    let refused = rustix::fs::setxattr(
        bench.path(""),
        "user.timestamp",
        b"2001-01-01 00:00:00.000000+0000",
        rustix::fs::XattrFlags::empty(),
    );
    assert_eq!(refused, Err(rustix::io::Errno::PERM));
}

#[test]
fn sed_edits_text() {
    let mut bench = Bench::new();
    let before = bench.facts("r0", "text");
    tool(
        "sed",
        &[
            &"-i",
            &"-e",
            &"s/^row 7$/changed/;3d;$a last",
            &bench.path("text"),
        ],
    );
    bench.commit("r1");
    let mut wanted: Vec<String> = (0..40).map(|n| format!("row {n}")).collect();
    wanted[7] = "changed".to_owned();
    wanted.remove(2);
    wanted.push("last".to_owned());
    assert_eq!(
        bench.bytes("r1", "text"),
        (wanted.join("\n") + "\n").into_bytes()
    );
    assert_eq!(bench.facts("r1", "text"), before);
}

#[test]
fn editors_edit_text_and_leave_nothing() {
    let mut bench = Bench::new();
    let text = bench.path("text");
    run(Command::new("sh")
        .args([
            "-ec",
            "printf '2d\\n1s/row/line/\\nw\\nq\\n' | ed -s \"$0\"",
        ])
        .arg(&text));
    bench.commit("r1");
    assert!(bench.bytes("r1", "text").starts_with(b"line 0\nrow 2\n"));
    // With a swap file and a backup, both beside the file.
    run(Command::new("vim")
        .args([
            "-es",
            "-u",
            "NONE",
            "-N",
            "-c",
            "set swapfile updatecount=1 backup writebackup backupcopy=no backupskip=",
        ])
        .args(["-c", "1s/line/vim/", "-c", "wq"])
        .arg(&text));
    let mut left = common::names_in(&bench.path(""));
    left.retain(|name| !["deep", "text", "x"].contains(&name.as_str()));
    // The backup is what the user asked for; it goes before the commit.
    assert_eq!(left, ["text~"]);
    fs::remove_file(bench.path("text~")).unwrap();
    bench.commit("r2");
    assert!(bench.bytes("r2", "text").starts_with(b"vim 0\nrow 2\n"));
    for backupcopy in ["yes", "auto"] {
        let keep = format!("set nobackup writebackup backupcopy={backupcopy} backupskip=");
        run(Command::new("vim")
            .args([
                "-es",
                "-u",
                "NONE",
                "-N",
                "-c",
                &keep,
                "-c",
                "2s/row/vim/",
                "-c",
                "wq",
            ])
            .arg(&text));
        let name = format!("vim-{backupcopy}");
        bench.commit(&name);
        assert!(bench.bytes(&name, "text").starts_with(b"vim 0\nvim 2\n"));
        fs::copy(bench.mount.version("r2", "text"), &text).unwrap();
    }
    assert_eq!(
        bench.facts("vim-auto", "text")[0],
        bench.facts("r0", "text")[0]
    );
}

#[test]
fn mv_moves_within_and_into() {
    let mut bench = Bench::new();
    let before = bench.facts("r0", "x");
    shell(
        "mv x y && mkdir moved && mv deep moved/deep",
        &bench.path(""),
    );
    for name in ["x", "deep/grid"] {
        bench.datasets.remove(name);
    }
    for name in ["y", "moved/deep/grid"] {
        bench.datasets.insert(name.to_owned());
    }
    bench.groups.remove("deep");
    bench
        .groups
        .extend(["moved".to_owned(), "moved/deep".to_owned()]);
    bench.commit("r1");
    assert_eq!(bench.bytes("r1", "y"), bench.bytes("r0", "x"));
    assert_eq!(
        bench.bytes("r1", "moved/deep/grid"),
        bench.bytes("r0", "deep/grid")
    );
    assert_eq!(bench.facts("r1", "y"), before);
    assert_eq!(
        get(&bench.mount.version("r1", "moved/deep"), "note"),
        "a group"
    );
    // From another file system, over what is there, and over what was there.
    for (name, text) in [("y", 7), ("x", 8)] {
        let outside = bench.outside(name);
        fs::write(&outside, bytes_of([text; 10])).unwrap();
        tool("mv", &[&outside, &bench.path(name)]);
    }
    bench.datasets.insert("x".to_owned());
    bench.commit("r2");
    assert_eq!(numbers_of(&bench.bytes("r2", "y")), [7; 10]);
    assert_eq!(numbers_of(&bench.bytes("r2", "x")), [8; 10]);
    for name in ["x", "y"] {
        assert_eq!(bench.facts("r2", name)[0], before[0]);
    }
}

#[test]
fn tar_extracts_over_what_is_there() {
    let mut bench = Bench::new();
    let source = bench.outside("source");
    fs::create_dir_all(source.join("more")).unwrap();
    fs::write(source.join("x"), bytes_of(100..200)).unwrap();
    fs::write(source.join("more/numbers"), bytes_of(0..10)).unwrap();
    let archive = bench.outside("archive.tar");
    tool("tar", &[&"-cf", &archive, &"-C", &source, &"."]);
    tool("tar", &[&"-xf", &archive, &"-C", &bench.path("")]);
    bench.groups.insert("more".to_owned());
    bench.datasets.insert("more/numbers".to_owned());
    bench.commit("r1");
    assert_eq!(bench.bytes("r1", "x"), bytes_of(100..200));
    assert_eq!(bench.bytes("r1", "more/numbers"), bytes_of(0..10));
    assert_eq!(bench.facts("r1", "x")[0], bench.facts("r0", "x")[0]);
    assert_eq!(bench.facts("r1", "more/numbers")[0], "|u1 None");
    // With the mount's own attributes in the archive.
    let archive = bench.outside("version.tar");
    tool(
        "tar",
        &[
            &"--xattrs",
            &"-cf",
            &archive,
            &"-C",
            &bench.mount.version("r0", ""),
            &"x",
            &"deep",
        ],
    );
    fs::create_dir(bench.path("old")).unwrap();
    tool(
        "tar",
        &[&"--xattrs", &"-xf", &archive, &"-C", &bench.path("old")],
    );
    bench
        .groups
        .extend(["old".to_owned(), "old/deep".to_owned()]);
    bench
        .datasets
        .extend(["old/x".to_owned(), "old/deep/grid".to_owned()]);
    bench.commit("r2");
    assert_eq!(bench.facts("r2", "old/x"), bench.facts("r0", "x"));
    assert_eq!(
        bench.facts("r2", "old/deep/grid"),
        bench.facts("r0", "deep/grid")
    );
    assert_eq!(bench.bytes("r2", "old/x"), bench.bytes("r0", "x"));
}

#[test]
fn dd_truncate_and_fallocate_edit_in_place() {
    let mut bench = Bench::new();
    let root = bench.path("");
    shell(
        r"printf 'AAAABBBB' | dd of=x bs=4 seek=1000 conv=notrunc status=none
          dd if=/dev/zero of=x bs=512 seek=2 count=3 conv=notrunc,fsync status=none
          truncate -s 16000 x
          fallocate -p -o 8192 -l 400 x
          fallocate -l 20004 x
          truncate -r x made",
        &root,
    );
    bench.datasets.insert("made".to_owned());
    bench.commit("r1");
    let mut wanted = bytes_of(0..4000);
    wanted[4000..4008].copy_from_slice(b"AAAABBBB");
    wanted[1024..2560].fill(0);
    wanted[8192..8592].fill(0);
    wanted.resize(20004, 0);
    assert!(bench.bytes("r1", "x") == wanted);
    assert_eq!(bench.bytes("r1", "made"), vec![0; 20004]);
}

#[test]
fn numpy_writes_files_and_maps() {
    let mut bench = Bench::new();
    let root = literal(&bench.path(""));
    bench.python.run(&format!(
        r#"
root = Path({root})
mapped = np.memmap(root / "x", "<i4", "r+")
mapped[10:20] = -1
mapped[-1] = -2
mapped.flush()
del mapped
grid = np.memmap(root / "deep/grid", ">f8", "r+", shape=(40, 30))
grid[:, 7] *= 2
del grid
made = np.arange(24, dtype="<u2").reshape(2, 3, 4)
made.tofile(root / "made")
for name, value in {{"dtype": made.dtype.str, "shape": json.dumps(made.shape), "chunks": "[1, 2, 4]"}}.items():
    os.setxattr(root / "made", f"user.h5.{{name}}", value.encode())
with open(root / "text", "a") as file:
    file.write("appended\n")
"#
    ));
    bench.datasets.insert("made".to_owned());
    bench.commit("r1");
    bench.python.run(
        r#"
with h5py.File(path) as file:
    group = VersionedHDF5File(file)["r1"]
    x = np.arange(5000, dtype="<i4")
    x[10:20], x[-1] = -1, -2
    grid = np.arange(1200.0).reshape(40, 30)
    grid[:, 7] *= 2
    assert np.array_equal(group["x"][()], x) and np.array_equal(group["deep/grid"][()], grid)
    assert np.array_equal(group["made"][()], made) and group["made"].dtype == made.dtype and group["text"][40] == b"appended"
"#,
    );
    assert_eq!(bench.facts("r1", "made")[2].to_string(), "[1,2,4]");
}

/// A shell's redirection opens, duplicates and closes before it writes: one commit each time.
#[test]
fn a_shell_commits_names_and_resets() {
    let mut bench = Bench::new();
    shell(
        "printf changed | dd of=x conv=notrunc status=none; echo r1 > .commit",
        &bench.path(""),
    );
    shell(
        "rm x; echo r0 > .reset; cmp x ../versions/r0/x; echo '{\"name\": \"r2\", \"make_current\": false}' > .commit",
        &bench.path(""),
    );
    assert_eq!(
        common::names_in(&bench.mount.version("", "")),
        ["r0", "r1", "r2"]
    );
    assert_eq!(
        fs::read_link(bench.mount.path().join("current")).unwrap(),
        Path::new("versions/r1")
    );
    let parents = bench.python.run("result = library.parents(path)");
    assert_eq!(parents["r2"], "r0");
    assert_eq!(bench.bytes("r2", "x"), bench.bytes("r0", "x"));
}
