//! Staging over files that the Python library made.

use super::*;
use crate::h5::fixture::Fixture;
use crate::store::{CommitError, StoreOptions, VersionKey};

const PROGRAM: &str = r#"
import h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File
with h5py.File("f.h5", "w") as f:
    v = VersionedHDF5File(f)
    with v.stage_version("r1") as g:
        g.create_dataset("x", data=np.arange(10000, dtype="<f8"), chunks=(1000,))
        g["x"].attrs["units"] = "m"
        g.create_dataset("grp/y", data=np.arange(24, dtype="<i4").reshape(6, 4), chunks=(2, 4))
        g.create_dataset("s", data=np.array(["one", "two"], dtype=object), dtype=h5py.string_dtype(), chunks=(100,))
    with v.stage_version("r2") as g:
        g["x"][0] = 5
"#;

struct Set {
    fixture: Fixture,
}

impl Set {
    fn new() -> Self {
        Self {
            fixture: Fixture::make(PROGRAM),
        }
    }

    fn staging(&self) -> Staging {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            decode_threads: 1,
            verify: false,
        };
        let file = VersionedFile::open(&self.fixture.path("f.h5"), &options).unwrap();
        Staging::new(Arc::new(file))
    }

    fn sidecar(&self) -> PathBuf {
        self.fixture.path(".f.h5.vh5fs")
    }
}

fn find(staging: &Staging, path: &str) -> Result<NodeId, StagingError> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .try_fold(NodeId::ROOT, |group, name| {
            staging.lookup(group, name.as_bytes())
        })
}

fn read(staging: &Staging, path: &str) -> Vec<u8> {
    let file = staging
        .open(find(staging, path).unwrap(), false, false)
        .unwrap();
    read_file(staging, &file)
}

fn read_file(staging: &Staging, file: &StagedFile) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let count = staging.read_at(file, 0, &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

fn write(staging: &Staging, path: &str, offset: u64, bytes: &[u8]) {
    let file = staging
        .open(find(staging, path).unwrap(), true, false)
        .unwrap();
    assert_eq!(staging.write_at(&file, offset, bytes).unwrap(), bytes.len());
}

fn create(staging: &Staging, name: &str, bytes: &[u8]) -> NodeId {
    let id = staging.create(NodeId::ROOT, name.as_bytes()).unwrap();
    write(staging, name, 0, bytes);
    id
}

fn rename(staging: &Staging, from: &str, to: &str, mode: RenameMode) -> Result<(), StagingError> {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    staging.rename(NodeId::ROOT, from, NodeId::ROOT, to, mode)
}

fn attribute(staging: &Staging, path: &str, name: &str) -> Option<String> {
    let all = staging.attributes(find(staging, path).unwrap()).unwrap();
    let own = all.attributes.into_iter();
    own.map(|attribute| (attribute.name, attribute.value.unwrap()))
        .chain(all.structural)
        .find(|(other, _)| other == name.as_bytes())
        .map(|(_, value)| String::from_utf8(value).unwrap())
}

fn set(staging: &Staging, path: &str, name: &str, value: &str) -> Result<(), StagingError> {
    let id = find(staging, path).unwrap();
    staging.set_attribute(id, name.as_bytes(), value.as_bytes(), SetMode::Any)
}

fn status(staging: &Staging) -> String {
    String::from_utf8(staging.status()).unwrap()
}

fn names(staging: &Staging) -> Vec<String> {
    let entries = staging.list(NodeId::ROOT).unwrap().into_iter();
    entries
        .map(|entry| String::from_utf8(entry.name).unwrap())
        .collect()
}

fn numbers(range: std::ops::Range<i32>) -> Vec<u8> {
    range.flat_map(|n| f64::from(n).to_le_bytes()).collect()
}

fn append_version(set: &Set, name: &str) {
    set.fixture.run(&format!(
        "import h5py\nfrom versioned_hdf5 import VersionedHDF5File\n\
         with h5py.File('f.h5', 'r+') as f:\n    \
         with VersionedHDF5File(f).stage_version('{name}') as g:\n        g['x'][1] = 77\n"
    ));
}

#[test]
fn looking_leaves_no_trace() {
    let set = Set::new();
    let staging = set.staging();
    staging.recover().unwrap();
    assert_eq!(names(&staging), ["grp", "s", "x"]);
    assert_eq!(read(&staging, "x")[..8], 5f64.to_le_bytes());
    assert_eq!(read(&staging, "s"), b"one\ntwo\n");
    let stat = staging.stat(find(&staging, "x").unwrap()).unwrap();
    assert_eq!((stat.size_bytes, stat.writable), (80_000, true));
    assert_eq!(attribute(&staging, "x", "units").as_deref(), Some("m"));
    assert_eq!(
        attribute(&staging, "grp/y", "h5.shape").as_deref(),
        Some("[6, 4]")
    );
    assert!(matches!(
        find(&staging, "nothing"),
        Err(StagingError::NotFound)
    ));
    assert!(matches!(
        find(&staging, "x/y"),
        Err(StagingError::NotADirectory)
    ));
    assert!(status(&staging).contains("based on r2"));
    assert!(status(&staging).contains("Nothing is staged"));
    staging.close().unwrap();
    assert!(!set.sidecar().exists());
}

#[test]
fn what_is_staged_is_there_after_the_process_ended() {
    let set = Set::new();
    let mut expected = numbers(0..10_000);
    expected[..8].copy_from_slice(&5f64.to_le_bytes());
    {
        let staging = set.staging();
        write(&staging, "x", 8_000, &[1; 16]);
        expected[8_000..8_016].fill(1);
        create(&staging, "new", b"hello");
        staging.mkdir(NodeId::ROOT, b"d").unwrap();
        rename(&staging, "new", "renamed", RenameMode::NoReplace).unwrap();
        staging.unlink(NodeId::ROOT, b"s").unwrap();
        self::set(&staging, "x", "scale", "2.5").unwrap();
        staging
            .remove_attribute(find(&staging, "x").unwrap(), b"units")
            .unwrap();
        self::set(&staging, "renamed", "h5.dtype", "<i2").unwrap();
        // Without any farewell, as after a kill.
    }
    let staging = set.staging();
    assert_eq!(names(&staging), ["d", "grp", "renamed", "x"]);
    assert_eq!(read(&staging, "x"), expected);
    assert_eq!(read(&staging, "renamed"), b"hello");
    assert_eq!(attribute(&staging, "x", "scale").as_deref(), Some("2.5"));
    assert_eq!(attribute(&staging, "x", "units"), None);
    assert_eq!(
        attribute(&staging, "renamed", "h5.dtype").as_deref(),
        Some("<i2")
    );
    assert_eq!(
        attribute(&staging, "renamed", "h5.shape").as_deref(),
        Some("[2]")
    );
    let status = status(&staging);
    for line in [
        "A d\n",
        "A renamed (1 chunk)\n",
        "M x (2 chunks)\n",
        "D s\n",
    ] {
        assert!(status.contains(line), "{status}");
    }
    staging.close().unwrap();
    assert!(set.sidecar().join("changes").exists());
}

#[test]
fn a_second_holder_is_refused_and_told_who_the_first_is() {
    let set = Set::new();
    let (first, second) = (set.staging(), set.staging());
    second.recover().unwrap();
    create(&first, "a", b"1");
    for refused in [
        second.create(NodeId::ROOT, b"b").map(|_| ()),
        second.list(NodeId::ROOT).map(|_| ()),
        second.reset(None),
    ] {
        match refused {
            Err(StagingError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
    }
    drop(first);
    // What the first one left is taken up.
    assert_eq!(read(&second, "a"), b"1");
}

#[test]
fn open_files_go_on_with_what_another_holder_left() {
    let set = Set::new();
    let mine = set.staging();
    let before = ["x", "s", "grp/y"].map(|path| find(&mine, path).unwrap());
    let edited = mine.open(before[0], true, false).unwrap();
    let removed = mine.open(before[1], false, false).unwrap();
    let other = set.staging();
    write(&other, "x", 0, &[9; 8]);
    rename(&other, "x", "z", RenameMode::Replace).unwrap();
    other.unlink(NodeId::ROOT, b"s").unwrap();
    create(&other, "new", b"new");
    other.close().unwrap();
    drop(other);

    // Numbers that were told stay with their objects, and none is given again.
    assert_eq!(find(&mine, "z").unwrap(), before[0]);
    assert_eq!(find(&mine, "grp/y").unwrap(), before[2]);
    assert!(!before.contains(&find(&mine, "new").unwrap()));
    assert_eq!(read_file(&mine, &edited)[..8], [9; 8]);
    assert_eq!(read_file(&mine, &removed), b"one\ntwo\n");
    assert_eq!(mine.write_at(&edited, 8, &[7; 8]).unwrap(), 8);
    let expected = [[9; 8], [7; 8]].concat();
    assert_eq!(read(&mine, "z")[..16], expected);
    drop((edited, removed));
    drop(mine);
    assert_eq!(read(&set.staging(), "z")[..16], expected);
}

#[test]
fn a_holder_that_is_about_to_end_is_waited_for() {
    let set = Set::new();
    let (first, second) = (set.staging(), set.staging());
    create(&first, "a", b"1");
    std::thread::scope(|scope| {
        let recovered = scope.spawn(|| second.recover());
        // It cannot have succeeded, and is seen to be at it at the first failure at the latest.
        std::thread::sleep(2 * HOLDER_INTERVAL);
        assert!(!recovered.is_finished());
        drop(first);
        recovered.join().unwrap().unwrap();
    });
    assert_eq!(read(&second, "a"), b"1");
}

#[test]
fn a_reset_drops_everything() {
    let set = Set::new();
    let staging = set.staging();
    let x = find(&staging, "x").unwrap();
    let open = staging.open(x, true, false).unwrap();
    staging.write_at(&open, 0, &[9; 8]).unwrap();
    let new = create(&staging, "new", b"n");
    let open_new = staging.open(new, true, false).unwrap();
    staging.reset(None).unwrap();
    assert_eq!(names(&staging), ["grp", "s", "x"]);
    assert_eq!(find(&staging, "x").unwrap(), x);
    assert_eq!(read_file(&staging, &open)[..8], 5f64.to_le_bytes());
    // As after an unlink.
    assert_eq!(read_file(&staging, &open_new), b"n");
    assert_eq!(staging.stat(new).unwrap().size_bytes, 1);
    assert!(!set.sidecar().exists());
    drop((open, open_new));
    staging
        .write_at(&staging.open(x, true, false).unwrap(), 0, &[8; 8])
        .unwrap();
    assert_eq!(read(&staging, "x")[..8], [8; 8]);
}

#[test]
fn a_branch_begins_where_it_is_told_to_and_stays_there() {
    let set = Set::new();
    let staging = set.staging();
    assert!(matches!(
        staging.reset(Some(b"r9")),
        Err(StagingError::NoSuchVersion { .. })
    ));
    staging.reset(Some(b"r1")).unwrap();
    assert_eq!(read(&staging, "x"), numbers(0..10_000));
    append_version(&set, "r3");
    assert!(status(&staging).contains("based on r1"));
    drop(staging);
    let staging = set.staging();
    assert!(status(&staging).contains("based on r1"));
    staging.reset(None).unwrap();
    assert!(status(&staging).contains("based on r3"));
    assert_eq!(read(&staging, "x")[8..16], 77f64.to_le_bytes());
}

#[test]
fn the_current_version_is_followed_as_long_as_nothing_is_staged() {
    let set = Set::new();
    let staging = set.staging();
    let x = find(&staging, "x").unwrap();
    append_version(&set, "r3");
    assert_eq!(read(&staging, "x")[8..16], 77f64.to_le_bytes());
    assert_eq!(find(&staging, "x").unwrap(), x);
    create(&staging, "new", b"n");
    append_version(&set, "r4");
    assert!(status(&staging).contains("based on r3"));
    // What came and went leaves nothing.
    staging.unlink(NodeId::ROOT, b"new").unwrap();
    assert!(status(&staging).contains("based on r4"));
}

#[test]
fn an_open_file_outlives_its_name() {
    let set = Set::new();
    let staging = set.staging();
    let id = create(&staging, "new", b"abc");
    let open = staging.open(id, true, false).unwrap();
    staging.unlink(NodeId::ROOT, b"new").unwrap();
    staging.append(&open, b"def").unwrap();
    assert_eq!(read_file(&staging, &open), b"abcdef");
    let x = staging
        .open(find(&staging, "x").unwrap(), true, false)
        .unwrap();
    staging.unlink(NodeId::ROOT, b"x").unwrap();
    staging.write_at(&x, 0, b"12345678").unwrap();
    assert_eq!(read_file(&staging, &x)[..8], *b"12345678");
    drop((open, x));
    staging.fsync_all().unwrap();
    let left: Vec<_> = std::fs::read_dir(set.sidecar()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn what_was_removed_can_be_asked_for_after_a_commit() {
    let set = Set::new();
    let staging = set.staging();
    let ids = ["x", "s", "grp/y"].map(|path| find(&staging, path).unwrap());
    let open = ids.map(|id| staging.open(id, true, false).unwrap());
    let before = ids.map(|id| staging.stat(id).unwrap().size_bytes);
    assert_eq!(staging.write_at(&open[0], 0, &[1; 8]).unwrap(), 8);
    staging.unlink(NodeId::ROOT, b"x").unwrap();
    staging.unlink(NodeId::ROOT, b"s").unwrap();
    staging
        .unlink(staging.parent(ids[2]).unwrap(), b"y")
        .unwrap();
    staging.commit(&request("r3")).unwrap();
    assert_eq!(ids.map(|id| staging.stat(id).unwrap().size_bytes), before);
    for id in ids {
        assert!(staging.attributes(id).unwrap().attributes.is_empty());
    }
    assert_eq!(read_file(&staging, &open[0])[..8], [1; 8]);
    assert_eq!(read_file(&staging, &open[1]), b"one\ntwo\n");
    assert_eq!(staging.write_at(&open[2], 96, &[2; 4]).unwrap(), 4);
    assert_eq!(staging.stat(ids[2]).unwrap().size_bytes, 100);
}

#[test]
fn a_file_that_replaces_a_dataset_has_its_type_and_attributes() {
    let set = Set::new();
    let staging = set.staging();
    create(&staging, "tmp", &numbers(0..8));
    rename(&staging, "tmp", "x", RenameMode::Replace).unwrap();
    assert_eq!(attribute(&staging, "x", "h5.dtype").as_deref(), Some("<f8"));
    assert_eq!(
        attribute(&staging, "x", "h5.chunks").as_deref(),
        Some("[1000]")
    );
    assert_eq!(attribute(&staging, "x", "h5.shape").as_deref(), Some("[8]"));
    assert_eq!(attribute(&staging, "x", "units").as_deref(), Some("m"));
    assert_eq!(read(&staging, "x"), numbers(0..8));
    drop(staging);
    let staging = set.staging();
    assert_eq!(attribute(&staging, "x", "h5.dtype").as_deref(), Some("<f8"));
    assert_eq!(read(&staging, "x"), numbers(0..8));
}

#[test]
fn what_describes_an_array() {
    let set = Set::new();
    let staging = set.staging();
    create(&staging, "new", &[0; 96]);
    assert_eq!(
        attribute(&staging, "new", "h5.dtype").as_deref(),
        Some("|u1")
    );
    assert_eq!(
        attribute(&staging, "new", "h5.shape").as_deref(),
        Some("[96]")
    );
    assert_eq!(
        attribute(&staging, "new", "h5.chunks").as_deref(),
        Some("[4096]")
    );
    assert_eq!(
        attribute(&staging, "new", "h5.fillvalue").as_deref(),
        Some("0")
    );
    assert_eq!(
        attribute(&staging, "new", "h5.filters").as_deref(),
        Some("[]")
    );
    self::set(&staging, "new", "h5.shape", "(2,4)").unwrap();
    self::set(&staging, "new", "h5.dtype", "<f8").unwrap();
    assert_eq!(
        attribute(&staging, "new", "h5.shape").as_deref(),
        Some("[3, 4]")
    );
    self::set(&staging, "new", "h5.shape", "(3,4)").unwrap();
    assert_eq!(
        attribute(&staging, "new", "h5.shape").as_deref(),
        Some("(3,4)")
    );
    assert!(matches!(
        self::set(&staging, "new", "h5.dtype", "nonsense"),
        Err(StagingError::Description { .. })
    ));

    // What is in the file already keeps its type, and can be told it again.
    for (name, value) in [
        ("h5.dtype", "<f8"),
        ("h5.chunks", "(1000,)"),
        ("h5.filters", "[]"),
        ("h5.omitted", "x"),
    ] {
        self::set(&staging, "x", name, value).unwrap();
    }
    for (name, value) in [
        ("h5.dtype", "<f4"),
        ("h5.chunks", "[7]"),
        ("h5.fillvalue", "3"),
        ("h5.other", ""),
    ] {
        let refused = self::set(&staging, "x", name, value);
        assert!(
            matches!(refused, Err(StagingError::NotPermitted { .. })),
            "{name} {refused:?}"
        );
    }
    self::set(&staging, "grp/y", "h5.shape", "[3, 4]").unwrap();
    assert_eq!(read(&staging, "grp/y").len(), 48);
    assert!(matches!(
        self::set(&staging, "grp/y", "h5.shape", "[3]"),
        Err(StagingError::Shape { .. })
    ));
    for name in ["raw_data", "chunks"] {
        let refused = self::set(&staging, "x", name, "1");
        assert!(matches!(refused, Err(StagingError::NotPermitted { .. })));
    }
    let refused = self::set(&staging, "", "timestamp", "1");
    assert!(matches!(refused, Err(StagingError::NotPermitted { .. })));
}

#[test]
fn attributes_are_made_or_replaced_as_asked() {
    let set = Set::new();
    let staging = set.staging();
    let x = find(&staging, "x").unwrap();
    let set_in = |name: &str, mode| staging.set_attribute(x, name.as_bytes(), b"1", mode);
    assert!(matches!(
        set_in("units", SetMode::Create),
        Err(StagingError::AttributeExists)
    ));
    assert!(matches!(
        set_in("other", SetMode::Replace),
        Err(StagingError::NoAttribute)
    ));
    set_in("units", SetMode::Replace).unwrap();
    set_in("other", SetMode::Create).unwrap();
    staging.remove_attribute(x, b"units").unwrap();
    assert!(matches!(
        staging.remove_attribute(x, b"units"),
        Err(StagingError::NoAttribute)
    ));
    set_in("units", SetMode::Create).unwrap();
    assert!(matches!(
        staging.set_attribute(x, b"big", &vec![0; (64 << 10) + 1], SetMode::Any),
        Err(StagingError::AttributeTooBig)
    ));
}

#[test]
fn a_base_that_is_gone_is_told_of_until_a_reset() {
    let set = Set::new();
    let staging = set.staging();
    create(&staging, "new", b"n");
    drop(staging);
    let program = "import h5py\nfrom versioned_hdf5 import VersionedHDF5File, delete_versions\n\
                   with h5py.File('f.h5', 'r+') as f:\n    delete_versions(f, ['r2'])\n";
    set.fixture.run(program);
    let staging = set.staging();
    assert!(matches!(
        staging.recover(),
        Err(StagingError::BaseGone { .. })
    ));
    assert!(matches!(
        staging.list(NodeId::ROOT),
        Err(StagingError::BaseGone { .. })
    ));
    assert!(status(&staging).contains("no longer in the file"));
    assert!(set.sidecar().exists());
    staging.reset(None).unwrap();
    assert_eq!(names(&staging), ["grp", "s", "x"]);
    assert!(!set.sidecar().exists());
}

fn request(name: &str) -> CommitRequest {
    CommitRequest {
        name: Some(name.as_bytes().to_vec()),
        ..CommitRequest::default()
    }
}

#[test]
fn a_commit_makes_the_version_and_starts_over() {
    let set = Set::new();
    let staging = set.staging();
    let x = find(&staging, "x").unwrap();
    let open = staging.open(x, true, false).unwrap();
    staging.write_at(&open, 16, &7f64.to_le_bytes()).unwrap();
    let new = create(&staging, "new", &[1, 0, 2, 0]);
    self::set(&staging, "new", "h5.dtype", "<i2").unwrap();
    self::set(&staging, "new", "title", "t").unwrap();
    staging.mkdir(NodeId::ROOT, b"d").unwrap();
    staging.unlink(NodeId::ROOT, b"s").unwrap();
    rename(&staging, "grp", "moved", RenameMode::Replace).unwrap();
    let report = staging.commit(&request("r3")).unwrap();
    assert_eq!(&*report.version.name, b"r3");
    assert!(!set.sidecar().exists());
    assert!(status(&staging).contains("based on r3"));
    assert!(status(&staging).contains("Nothing is staged"));
    assert!(status(&staging).contains("made version r3"));
    assert_eq!(names(&staging), ["d", "moved", "new", "x"]);
    assert_eq!(find(&staging, "x").unwrap(), x);
    assert_eq!(find(&staging, "new").unwrap(), new);
    assert_eq!(attribute(&staging, "new", "title").as_deref(), Some("t"));

    // The file that is open goes on against the version that was made.
    assert_eq!(read_file(&staging, &open)[16..24], 7f64.to_le_bytes());
    staging.write_at(&open, 0, &8f64.to_le_bytes()).unwrap();
    staging.truncate(x, 80).unwrap();
    staging.commit(&request("r4")).unwrap();
    set.fixture.run(
        "import h5py, numpy as np\n\
         from versioned_hdf5 import VersionedHDF5File\n\
         with h5py.File('f.h5', 'r') as f:\n    \
             v = VersionedHDF5File(f)\n    \
             old = np.arange(10000.); old[0] = 5\n    \
             assert (v['r2']['x'][:] == old).all()\n    \
             assert (v['r2']['grp/y'][:] == np.arange(24).reshape(6, 4)).all()\n    \
             old[2] = 7\n    \
             r3 = v['r3']\n    \
             assert sorted(r3) == ['d', 'moved', 'new', 'x'], sorted(r3)\n    \
             assert (r3['x'][:] == old).all()\n    \
             assert r3['x'].attrs['units'] == 'm'\n    \
             assert r3['new'].dtype == '<i2' and list(r3['new'][:]) == [1, 2]\n    \
             assert r3['new'].attrs['title'] == 't'\n    \
             y = r3['moved/y']\n    \
             assert y.dtype == '<i4' and (y[:] == np.arange(24).reshape(6, 4)).all()\n    \
             assert tuple(y.attrs['chunks']) == (2, 4)\n    \
             old[0] = 8\n    \
             assert (v['r4']['x'][:] == old[:10]).all()\n    \
             assert f['_version_data/versions'].attrs['current_version'] == 'r4'\n",
    );
}

#[test]
fn a_group_that_became_a_dataset_is_refused_as_that() {
    let set = Set::new();
    let staging = set.staging();
    let group = find(&staging, "grp").unwrap();
    staging.unlink(group, b"y").unwrap();
    staging.rmdir(NodeId::ROOT, b"grp").unwrap();
    create(&staging, "grp", b"bytes");
    assert!(matches!(
        staging.commit(&request("r3")),
        Err(StagingError::Commit(CommitError::BadPath { .. }))
    ));
    assert_eq!(read(&staging, "grp"), b"bytes");
}

#[test]
fn a_commit_that_fails_leaves_everything_staged() {
    let set = Set::new();
    let staging = set.staging();
    create(&staging, "new", b"abc");
    self::set(&staging, "new", "h5.dtype", "<i2").unwrap();
    let before = set.fixture.bytes("f.h5");
    for refused in [
        staging.commit(&request("r1")),
        staging.commit(&request("r3")),
    ] {
        assert!(
            matches!(refused, Err(StagingError::Commit(_))),
            "{refused:?}"
        );
    }
    assert_eq!(set.fixture.bytes("f.h5"), before);
    assert!(status(&staging).contains("failed"));
    assert!(
        status(&staging).contains("new: 3 bytes"),
        "{}",
        status(&staging)
    );
    assert_eq!(read(&staging, "new"), b"abc");
    staging.truncate(find(&staging, "new").unwrap(), 4).unwrap();
    staging.commit(&request("r3")).unwrap();
    assert_eq!(read(&staging, "new"), b"abc\0");
}

#[test]
fn a_commit_that_is_not_to_be_current_is_built_upon_all_the_same() {
    let set = Set::new();
    let staging = set.staging();
    write(&staging, "x", 0, &[1; 8]);
    staging
        .commit(&CommitRequest {
            make_current: false,
            ..request("side")
        })
        .unwrap();
    assert!(status(&staging).contains("based on side"));
    drop(staging);
    let staging = set.staging();
    assert!(status(&staging).contains("based on side"));
    assert_eq!(read(&staging, "x")[..8], [1; 8]);
}

#[test]
fn edits_that_were_committed_are_not_taken_up_again() {
    let set = Set::new();
    let staging = set.staging();
    write(&staging, "x", 0, &[1; 8]);
    // As it is when the process ends between the commit and the new beginning.
    let copy = set.fixture.path("copy");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([set.sidecar(), copy.clone()])
        .status()
        .unwrap();
    assert!(copied.success());
    let report = staging.commit(&request("r3")).unwrap();
    drop(staging);
    std::fs::rename(&copy, set.sidecar()).unwrap();
    {
        let sidecar = Sidecar::take(&set.sidecar()).unwrap().unwrap();
        let opened = change_log::Log::open(&sidecar).unwrap().unwrap();
        let mut log = opened.log;
        log.append(&change::Record::Commit(change::CommitBegun {
            commit: change::BaseVersion::from(&report.version),
            make_current: true,
        }))
        .unwrap();
    }
    let staging = set.staging();
    staging.recover().unwrap();
    assert!(status(&staging).contains("based on r3"));
    assert!(status(&staging).contains("Nothing is staged"));
    assert!(!set.sidecar().exists());
}

/// The version that was refused is there, under the same name and time.
#[test]
fn a_refused_commit_is_not_taken_for_made_by_the_next_mount() {
    let at = |name: &str| CommitRequest {
        timestamp: Some("2027-01-02T03:04:05Z".parse().unwrap()),
        ..request(name)
    };
    let set = Set::new();
    let staging = set.staging();
    write(&staging, "x", 0, &[1; 8]);
    staging.commit(&at("r3")).unwrap();
    write(&staging, "x", 8, &[2; 8]);
    let refused = staging.commit(&at("r3"));
    assert!(
        matches!(refused, Err(StagingError::Commit(_))),
        "{refused:?}"
    );
    drop(staging);
    let staging = set.staging();
    staging.recover().unwrap();
    assert_eq!(read(&staging, "x")[8..16], [2; 8]);

    // Even if the log said that it was begun, so long as it says that it failed.
    drop(staging);
    {
        let sidecar = Sidecar::take(&set.sidecar()).unwrap().unwrap();
        let mut log = change_log::Log::open(&sidecar).unwrap().unwrap().log;
        let version = VersionKey {
            name: Arc::from(&b"r3"[..]),
            timestamp_ns: at("r3").timestamp.unwrap().timestamp_nanos_opt().unwrap(),
        };
        log.append(&change::Record::Commit(change::CommitBegun {
            commit: change::BaseVersion::from(&version),
            make_current: true,
        }))
        .unwrap();
        log.append(&change::Record::CommitFailed).unwrap();
    }
    let staging = set.staging();
    staging.recover().unwrap();
    assert_eq!(read(&staging, "x")[8..16], [2; 8]);
}

/// What another program made meanwhile does not keep what is staged from being taken up, whatever was tried before.
#[test]
fn a_failed_commit_is_noted() {
    let set = Set::new();
    let staging = set.staging();
    write(&staging, "x", 0, &[1; 8]);
    staging.commit(&request("r1")).unwrap_err();
    drop(staging);
    let sidecar = Sidecar::take(&set.sidecar()).unwrap().unwrap();
    let records = change_log::Log::open(&sidecar).unwrap().unwrap().records;
    assert!(
        records.contains(&change::Record::CommitFailed),
        "{records:?}"
    );
}

#[test]
fn a_new_dataset_of_a_known_path_has_its_type() {
    let set = Set::new();
    let staging = set.staging();
    staging.unlink(NodeId::ROOT, b"x").unwrap();
    create(&staging, "x", &numbers(0..3));
    assert_eq!(attribute(&staging, "x", "h5.dtype").as_deref(), Some("<f8"));
    assert_eq!(
        attribute(&staging, "x", "h5.chunks").as_deref(),
        Some("[1000]")
    );
    assert_eq!(attribute(&staging, "x", "h5.shape").as_deref(), Some("[3]"));
    assert_eq!(attribute(&staging, "x", "units"), None);
}

/// What is left of staged state when the machine was started anew.
fn start_anew(set: &Set) {
    let path = set.sidecar().join("changes");
    let (records, _) = change_log::decode(&std::fs::read(&path).unwrap());
    let bytes: Vec<u8> = records
        .into_iter()
        .flat_map(|record| {
            change_log::encode(&match record {
                change::Record::Begin(begin) => change::Record::Begin(change::Begin {
                    boot: Some("another".to_owned()),
                    ..begin
                }),
                record => record,
            })
        })
        .collect();
    std::fs::write(path, bytes).unwrap();
}

fn fsync(staging: &Staging, path: &str) {
    let file = staging
        .open(find(staging, path).unwrap(), false, false)
        .unwrap();
    staging.fsync(&file).unwrap();
}

#[test]
fn what_was_synced_outlives_the_machine_whatever_was_not() {
    let set = Set::new();
    let staging = set.staging();
    write(&staging, "grp/y", 0, &[1; 8]);
    create(&staging, "new", b"lost");
    write(&staging, "x", 16, &[2; 8]);
    fsync(&staging, "x");
    let x = read(&staging, "x");
    create(&staging, "later", b"lost");
    create(&staging, "latest", b"lost");
    rename(&staging, "latest", "s", RenameMode::Replace).unwrap();
    drop(staging);
    start_anew(&set);
    // Overlays 1 and 2 were made before the sync, 4 and 5 after it; nothing of them reached the disk.
    for name in ["1.data", "1.blocks", "2.blocks", "4.data", "5.data"] {
        std::fs::write(set.sidecar().join(name), "").unwrap();
    }
    for _ in 0..2 {
        let staging = set.staging();
        staging.recover().unwrap();
        assert_eq!(read(&staging, "x"), x);
        assert_eq!(read(&staging, "grp/y")[..8], [0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(read(&staging, "new"), b"");
        assert!(find(&staging, "later").is_err());
        assert_eq!(read(&staging, "s"), b"one\ntwo\n");
    }
    let staging = set.staging();
    write(&staging, "grp/y", 0, &[3; 8]);
    staging.commit(&request("r3")).unwrap();
    assert_eq!(read(&staging, "x"), x);
}

#[test]
fn whoever_takes_up_what_was_not_synced_is_told() {
    let set = Set::new();
    let staging = set.staging();
    write(&staging, "grp/y", 0, &[1; 8]);
    fsync(&staging, "grp/y");
    write(&staging, "x", 16, &[2; 8]);
    drop(staging);
    start_anew(&set);
    std::fs::write(set.sidecar().join("2.blocks"), "").unwrap();
    let staging = set.staging();
    let told = status(&staging);
    assert!(told.contains("The machine went down"), "{told}");
    assert_eq!(read(&staging, "x")[16..24], 2f64.to_le_bytes());
    assert_eq!(read(&staging, "grp/y")[..8], [1; 8]);
    drop(staging);
    assert!(!status(&set.staging()).contains("went down"));
}

#[test]
fn a_damaged_log_is_set_aside_and_never_taken_up_in_part() {
    let set = Set::new();
    let staging = set.staging();
    create(&staging, "a", b"1");
    create(&staging, "b", b"2");
    drop(staging);
    let path = set.sidecar().join("changes.new");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(4)
        .position(|found| found == b"\"a\",")
        .expect("the record of a");
    bytes[at + 1] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let staging = set.staging();
    let told = status(&staging);
    assert!(told.contains("set aside"), "{told}");
    assert!(told.contains("Nothing is staged"), "{told}");
    assert!(find(&staging, "b").is_err());
    let aside = set.fixture.path(".f.h5.vh5fs.aside-1");
    assert_eq!(std::fs::read(aside.join("changes.new")).unwrap(), bytes);
    assert_eq!(std::fs::read(aside.join("2.data")).unwrap(), b"2");
}

const TWINS: &str = r#"
import sys
import h5py, numpy as np
from datetime import datetime, timezone
from versioned_hdf5 import VersionedHDF5File
for name, last in ("f.h5", 1), ("g.h5", 2):
    with h5py.File(name, "w") as f:
        v = VersionedHDF5File(f)
        for day in 1, 2, 3:
            when = datetime(2020, 1, day, tzinfo=timezone.utc)
            with v.stage_version(f"r{day}", timestamp=when) as g:
                if day == 1:
                    g.create_dataset("x", data=np.arange(10000, dtype="<f8"), chunks=(1000,))
                    g.create_dataset("y", data=np.arange(10000, dtype="<f8"), chunks=(1000,))
                else:
                    g["x"][9500] = day + (last if day == 3 else 0)
"#;

#[test]
fn what_was_staged_over_another_file_is_set_aside() {
    let set = Set {
        fixture: Fixture::make(TWINS),
    };
    let open = |name: &str| {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            decode_threads: 1,
            verify: false,
        };
        let file = VersionedFile::open(&set.fixture.path(name), &options).unwrap();
        Staging::new(Arc::new(file))
    };
    // What is the same in both files can be edited in either.
    for (edited, is_taken_up) in [("y", true), ("x", false)] {
        let staging = open("f.h5");
        write(&staging, edited, 0, &[1; 8]);
        staging.close().unwrap();
        drop(staging);
        let other = set.fixture.path(".g.h5.vh5fs");
        std::fs::rename(set.sidecar(), &other).unwrap();
        let staging = open("g.h5");
        let told = status(&staging);
        assert_eq!(told.contains("set aside"), !is_taken_up, "{told}");
        assert_eq!(told.contains("another file"), !is_taken_up, "{told}");
        assert_eq!(told.contains("Nothing is staged"), !is_taken_up, "{told}");
        assert_eq!(read(&staging, edited)[..8] == [1; 8], is_taken_up);
        staging.reset(None).unwrap();
        assert!(!other.exists());
        let aside = set.fixture.path(".g.h5.vh5fs.aside-1");
        assert_eq!(aside.join("1.data").exists(), !is_taken_up);
    }
}

/// Its chunks lie elsewhere afterwards, under other numbers.
#[test]
fn what_is_staged_stays_when_other_versions_are_deleted() {
    let set = Set {
        fixture: Fixture::make(TWINS),
    };
    let staging = set.staging();
    write(&staging, "x", 0, &[1; 8]);
    staging.close().unwrap();
    drop(staging);
    set.fixture.run(
        r#"
import h5py
from versioned_hdf5 import delete_versions
with h5py.File("f.h5", "r+") as f:
    delete_versions(f, ["r1", "r2"])
"#,
    );
    let staging = set.staging();
    let told = status(&staging);
    assert!(told.contains("M x (1 chunk)"), "{told}");
    assert_eq!(read(&staging, "x")[..8], [1; 8]);
    staging.commit(&request("r4")).unwrap();
}

/// As the message says that refuses a commit to such a file. Its library needs the number that says that they are right to open it at all.
#[test]
fn what_is_staged_stays_when_wrong_hash_tables_are_rebuilt() {
    for data_version in 1..=3 {
        let set = Set::new();
        let layout = |data_version: i32| {
            format!(
                "import h5py\nfrom versioned_hdf5 import VersionedHDF5File\n\
                 with h5py.File('f.h5', 'r+') as f:\n    \
                 f['_version_data/versions'].attrs['data_version'] = {data_version}\n"
            )
        };
        set.fixture.run(&layout(data_version));
        let staging = set.staging();
        write(&staging, "x", 0, &[1; 8]);
        write(&staging, "s", 0, b"ONE");
        let error = staging.commit(&request("r3")).unwrap_err().to_string();
        assert!(error.contains("data_version"), "{error}");
        staging.close().unwrap();
        drop(staging);
        let rebuild = "    VersionedHDF5File(f).rebuild_hashtables()\n";
        set.fixture.run(&(layout(4) + rebuild));
        let staging = set.staging();
        let told = status(&staging);
        assert!(!told.contains("set aside"), "{told}");
        assert_eq!(read(&staging, "x")[..8], [1; 8]);
        staging.commit(&request("r3")).unwrap();
        assert_eq!(read(&staging, "s"), b"ONE\ntwo\n");
    }
}
