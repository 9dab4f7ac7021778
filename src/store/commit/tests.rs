//! Versions that were committed here, held against those that the Python library makes of the same edits.

use std::fs::File;
use std::ops::Range;
use std::process::Command;

use super::*;
use crate::h5::fixture::Fixture;
use crate::h5::testing::python;
use crate::source::testing::journal_beside;
use crate::store::description::{parse_chunk_shape, parse_datatype, parse_filters, parse_shape};
use crate::store::{
    AttributeChange, CommitFailure, Description, History, Sharing, StagedBytes, StagedReadError,
    StoreOptions, WrittenDataset, time,
};

/// A staged file in memory.
struct Memory {
    bytes: Vec<u8>,
    written: Vec<Range<u64>>,
}

impl StagedBytes for Memory {
    fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StagedReadError> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }

    fn next_written(&self, offset: u64) -> Option<Range<u64>> {
        let ranges = self.written.iter().filter(|range| range.end > offset);
        ranges
            .map(|range| range.start.max(offset)..range.end)
            .min_by_key(|range| range.start)
    }
}

impl Memory {
    /// All of it was written.
    fn whole(bytes: Vec<u8>) -> Self {
        let written = std::iter::once(0..bytes.len() as u64).collect();
        Self { bytes, written }
    }
}

fn commit(file: &VersionedFile, new: &NewVersion<'_>) -> Result<CommitReport, CommitError> {
    file.commit(new, journal_beside(file.path()))
}

fn open(path: &Path) -> VersionedFile {
    let options = StoreOptions {
        cache_bytes: 1 << 20,
        decode_threads: 2,
        verify: false,
    };
    VersionedFile::open(path, &options).unwrap()
}

/// The current version's dataset as a staged file that was not touched.
fn read(file: &VersionedFile, path: &str) -> Memory {
    let snapshot = file.look();
    let current = snapshot.history().current().unwrap();
    let dataset = file
        .dataset_in(&snapshot, current, path.as_bytes())
        .unwrap();
    let mut bytes = vec![0; usize::try_from(dataset.len_bytes().unwrap()).unwrap()];
    dataset.read_at(0, &mut bytes).unwrap();
    Memory {
        bytes,
        written: Vec::new(),
    }
}

impl Memory {
    /// Writes over some of it, or behind its end.
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.written.push(offset as u64..end as u64);
    }
}

fn numbers(values: &[f64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn object<'a>(path: &str, content: NewContent<'a>) -> NewObject<'a> {
    NewObject {
        path: path.as_bytes().into(),
        attributes_from: None,
        attributes: Vec::new(),
        content,
    }
}

/// An object that is in the base version too, and has its attributes.
fn kept<'a>(path: &str, content: NewContent<'a>) -> NewObject<'a> {
    NewObject {
        attributes_from: Some(path.as_bytes().into()),
        ..object(path, content)
    }
}

fn edited(bytes: &Memory) -> NewContent<'_> {
    NewContent::Written(WrittenDataset {
        edits_base: true,
        description: Description::default(),
        bytes,
    })
}

fn fresh<'a>(
    bytes: &'a Memory,
    dtype: &str,
    shape: &str,
    chunks: &str,
    filters: &str,
) -> NewContent<'a> {
    NewContent::Written(WrittenDataset {
        edits_base: false,
        description: Description {
            datatype: Some(parse_datatype(dtype.as_bytes()).unwrap()),
            shape: Some(parse_shape(shape.as_bytes()).unwrap()),
            chunk_shape: Some(parse_chunk_shape(chunks.as_bytes()).unwrap()),
            fill_value: None,
            filters: Some(parse_filters(filters.as_bytes()).unwrap()),
        },
        bytes,
    })
}

fn set(name: &str, value: &str) -> AttributeChange {
    AttributeChange {
        name: name.as_bytes().to_vec(),
        value: Some(value.as_bytes().to_vec()),
    }
}

fn version<'a>(file: &VersionedFile, name: &str, objects: Vec<NewObject<'a>>) -> NewVersion<'a> {
    let snapshot = file.look();
    let history = snapshot.history();
    NewVersion {
        name: name.as_bytes().to_vec(),
        timestamp: time::parse_iso8601("2030-01-02T03:04:05.678901Z").unwrap(),
        make_current: true,
        base: history
            .current()
            .map(|index| history.version(index).key.clone()),
        attributes: Vec::new(),
        objects,
        progress: Box::leak(Box::default()),
    }
}

/// What the judge says of the two files of `files`.
fn judge(files: &Fixture, python_file: &str, our_file: &str) {
    let output = Command::new(python())
        .args(["-c", include_str!("judge.py")])
        .arg(files.path(python_file))
        .arg(files.path(our_file))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{our_file}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// For each format of files: one with a first version, and a copy of it in which the library made the second one.
const EDITS: &str = r#"
import h5py, numpy as np, shutil
from versioned_hdf5 import VersionedHDF5File
from datetime import datetime, timezone

when = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
for name in ("earliest", "latest"):
    with h5py.File(name + ".h5", "w", libver=name) as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("r1") as group:
            line = group.create_dataset("line", data=np.arange(100.0), chunks=(16,))
            line.attrs["units"] = "m"
            line.attrs["scale"] = np.float32(0.5)
            group.create_dataset("g/grid", data=np.arange(1.0, 36).reshape(5, 7), chunks=(2, 3), compression="gzip")
            group.create_dataset("g/same", data=np.arange(10), chunks=(4,))
            group.create_dataset("gone", data=np.arange(10), chunks=(4,))
            group.create_dataset("shrunk", data=np.arange(1.0, 51), chunks=(8,), compression="lzf", shuffle=True)
            group.create_dataset("text", data=np.array(["a", "", "ccc"] * 5, dtype=object), dtype=h5py.string_dtype(), chunks=(4,))
            group["g"].attrs["note"] = [1, 2]
    shutil.copy(name + ".h5", name + "_python.h5")
    with h5py.File(name + "_python.h5", "r+") as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("r2", timestamp=when) as group:
            group.attrs["comment"] = "second"
            group["line"].resize((120,))
            group["line"][3] = -1
            group["line"][32:48] = 0
            group["line"][100:120] = np.arange(20.0)
            group["line"].attrs["more"] = 5
            group["g/grid"].resize((7, 7))
            group["g/grid"][5:7] = 9.0
            group["shrunk"].resize((27,))
            del group["gone"]
            group["text"][5] = "changed"
            group.create_dataset("new/cube", data=np.arange(60, dtype=">i2").reshape(3, 4, 5), chunks=(2, 2, 3),
                                 compression="gzip", compression_opts=9, shuffle=True, fletcher32=True)
            group.create_dataset("new/empty", data=np.zeros(0, "u1"), dtype="u1", chunks=(4096,))
            group.create_dataset("new/words", data=np.array(["x", "y\n", ""], dtype=object), dtype=h5py.string_dtype(), chunks=(2,))
            group.create_dataset("new/zeros", data=np.zeros(20), chunks=(8,))
"#;

#[test]
fn the_same_edits_give_the_same_file() {
    let files = Fixture::make(EDITS);
    for format in ["earliest", "latest"] {
        let name = format!("{format}.h5");
        let file = open(&files.path(&name));
        let mut line = read(&file, "line");
        line.put(800, &numbers(&(0..20).map(f64::from).collect::<Vec<_>>()));
        line.put(24, &numbers(&[-1.0]));
        line.put(256, &[0; 128]);
        let mut grid = read(&file, "g/grid");
        grid.put(280, &numbers(&[9.0; 14]));
        let mut shrunk = read(&file, "shrunk");
        shrunk.bytes.truncate(27 * 8);
        let mut text = read(&file, "text");
        text.bytes = b"a\n\nccc\na\n\nchanged\na\n\nccc\na\n\nccc\na\n\nccc\n".to_vec();
        text.written.push(0..1);
        let cube: Vec<u8> = (0i16..60).flat_map(i16::to_be_bytes).collect();
        let (cube, empty) = (Memory::whole(cube), Memory::whole(Vec::new()));
        let words = Memory::whole(b"x\ny\\n\n\n".to_vec());
        let zeros = Memory::whole(vec![0; 160]);
        let mut line = kept("line", edited(&line));
        line.attributes = vec![set("more", "5")];
        let filters = r#"["shuffle", {"id": 1, "parameters": [9]}, "fletcher32"]"#;
        let objects = vec![
            kept("g", NewContent::Group),
            kept("g/grid", edited(&grid)),
            kept("g/same", NewContent::Unchanged),
            line,
            object("new", NewContent::Group),
            object(
                "new/cube",
                fresh(&cube, ">i2", "[3, 4, 5]", "[2, 2, 3]", filters),
            ),
            object("new/empty", fresh(&empty, "u1", "[0]", "[4096]", "[]")),
            object("new/words", fresh(&words, "O", "[3]", "[2]", "[]")),
            object("new/zeros", fresh(&zeros, "<f8", "[20]", "[8]", "[]")),
            kept("shrunk", edited(&shrunk)),
            kept("text", edited(&text)),
        ];
        let mut new = version(&file, "r2", objects);
        new.attributes = vec![set("comment", "second")];
        let report = commit(&file, &new).unwrap();
        let history = report.snapshot.history();
        let current = history.version(history.current().unwrap());
        assert_eq!(*current.key.name, *b"r2");
        assert_eq!(current.timestamp, Some(new.timestamp));
        judge(&files, &format!("{format}_python.h5"), &name);
    }
}

/// Arrays of every type, in one to three dimensions, with every filter that h5py has: a first version that is empty, and a copy of it in which the
/// library made the second one. What the arrays are is in `arrays.json`.
const TYPES: &str = r#"
import h5py, json, numpy as np, shutil
from versioned_hdf5 import VersionedHDF5File
from datetime import datetime, timezone

when = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
rng = np.random.default_rng(5)
nested = np.dtype([("x", ">i2"), ("y", "<f4", (2,))])
types = ["<i1", "u1", "<i2", ">i4", "<i8", ">u8", "<f2", ">f4", "<f8", "<c8", ">c16", "?", "S5", "V3", nested,
         np.dtype([("a", "u1"), ("b", nested, (2,)), ("c", "S3")])]
if np.dtype("g").itemsize == 16:
    types.append("<f16")
arrays = []
for i, code in enumerate(types):
    dtype = np.dtype(code)
    shape, chunks = [((50,), (16,)), ((9, 11), (4, 5)), ((5, 4, 7), (2, 4, 3)), ((6, 8), (4, 8))][i % 4]
    count = int(np.prod(shape))
    # Small numbers, whatever the type: no float that is a NaN of many forms.
    data = rng.integers(0, 2, count * dtype.itemsize, dtype="u1").tobytes()
    if dtype.kind in "iufc":
        data = rng.integers(0, 100, count).astype(dtype).tobytes()
    arrays.append(("t%d" % i, dtype, shape, chunks, {}, data))
filters = [dict(compression="gzip"), dict(compression="gzip", compression_opts=1, shuffle=True), dict(compression="lzf"),
           dict(fletcher32=True), dict(shuffle=True), dict(compression="lzf", shuffle=True, fletcher32=True)]
for i, kwargs in enumerate(filters):
    data = np.arange(500, dtype=["<i4", ">f8"][i % 2]).tobytes()
    arrays.append(("f%d" % i, np.dtype(["<i4", ">f8"][i % 2]), (20, 25), (8, 10), kwargs, data))

for name in ("earliest", "latest"):
    with h5py.File(name + ".h5", "w", libver=name) as file:
        with VersionedHDF5File(file).stage_version("r1"):
            pass
    shutil.copy(name + ".h5", name + "_python.h5")
    with h5py.File(name + "_python.h5", "r+") as file:
        with VersionedHDF5File(file).stage_version("r2", timestamp=when) as group:
            for path, dtype, shape, chunks, kwargs, data in arrays:
                values = np.frombuffer(data, dtype).reshape(shape)
                group.create_dataset(path, data=values, dtype=dtype, chunks=chunks, **kwargs)

described = []
for path, dtype, shape, chunks, kwargs, data in arrays:
    names = []
    if kwargs.get("shuffle"):
        names.append("shuffle")
    if "compression" in kwargs:
        names.append({"name": kwargs["compression"], "parameters": [kwargs["compression_opts"]] if "compression_opts" in kwargs else []})
    if kwargs.get("fletcher32"):
        names.append("fletcher32")
    if dtype.names is None:
        descr = dtype.str
    else:
        descr = str(dtype.descr)
    described.append([path, descr, list(shape), list(chunks), names, list(data)])
json.dump(described, open("arrays.json", "w"))
"#;

/// Path, type, shape, chunk shape, filters and bytes of an array.
type Described = (
    String,
    String,
    Vec<u64>,
    Vec<u64>,
    serde_json::Value,
    Vec<u8>,
);

#[test]
fn every_type_is_written_as_the_library_does() {
    let files = Fixture::make(TYPES);
    let mut arrays: Vec<Described> = serde_json::from_slice(&files.bytes("arrays.json")).unwrap();
    arrays.sort_by(|a, b| a.0.cmp(&b.0));
    let bytes: Vec<Memory> = arrays
        .iter()
        .map(|array| Memory::whole(array.5.clone()))
        .collect();
    for format in ["earliest", "latest"] {
        let name = format!("{format}.h5");
        let file = open(&files.path(&name));
        let objects = arrays.iter().zip(&bytes).map(|(array, bytes)| {
            let (path, dtype, shape, chunks, filters, _) = array;
            let (shape, chunks) = (format!("{shape:?}"), format!("{chunks:?}"));
            object(
                path,
                fresh(bytes, dtype, &shape, &chunks, &filters.to_string()),
            )
        });
        let new = version(&file, "r2", objects.collect());
        commit(&file, &new).unwrap();
        for (array, bytes) in arrays.iter().zip(&bytes) {
            assert_eq!(read(&file, &array.0).bytes, bytes.bytes, "{}", array.0);
        }
        judge(&files, &format!("{format}_python.h5"), &name);
    }
}

/// A file with one version of two datasets.
const SMALL: &str = r#"
import h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File

with h5py.File("small.h5", "w") as file:
    with VersionedHDF5File(file).stage_version("r1") as group:
        group.create_dataset("a", data=np.arange(100.0), chunks=(16,), compression="gzip").attrs["k"] = np.int8(1)
        group.create_dataset("b", data=np.arange(10), chunks=(4,))
        group.create_dataset("filled", shape=(10,), dtype="i2", data=None, chunks=(4,), fillvalue=7)
        group["filled"][1] = 5
        group.create_dataset("group/c", data=np.arange(3), chunks=(4,))
"#;

/// Python's assertions about a file.
fn assert_by_python(path: &Path, program: &str) {
    let program = format!(
        "import h5py, sys, numpy as np\nfrom versioned_hdf5 import VersionedHDF5File\n\
         file = h5py.File(sys.argv[1])\nversions = VersionedHDF5File(file)\n{program}"
    );
    let output = Command::new(python())
        .args(["-c", &program])
        .arg(path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
}

/// What a commit carries over of which versions share what is what a look at all of them finds.
fn assert_sharing_is_as_read(file: &VersionedFile) {
    let snapshot = file.look();
    let carried = snapshot.sharing_if_known().expect("it was carried over");
    let read = Sharing::read(&snapshot);
    assert!(read.agrees_with(carried, Some) && carried.agrees_with(&read, Some));
    for (index, version) in snapshot.history().iter() {
        for path in ["a", "b", "filled", "gaps"] {
            let count = |sharing: &Sharing| {
                let class = sharing.class_of(index, path.as_bytes())?;
                Some(sharing.class(class).versions)
            };
            assert_eq!(count(carried), count(&read), "{path} of {version:?}");
        }
    }
}

/// What commits carry over from state to state is what is found in the file by one who opens it now: its history, what its versions map,
/// where chunks are and what they hash to.
fn assert_state_is_as_read(file: &VersionedFile) {
    let now = open(file.path());
    let (ours, read) = (file.look(), now.look());
    // Indexes may differ: here they are in the order of the commits.
    let described = |history: &History| {
        let key = |index| history.version(index).key.clone();
        let versions = history.iter().map(|(index, version)| {
            let shown = history.by_shown_name(&version.shown_name);
            assert_eq!(shown, Some(index));
            let parent = version.parent.map(key);
            (
                version.key.clone(),
                version.timestamp,
                version.group,
                parent,
            )
        });
        let times = history.times().map(|(time, index)| (time, key(index)));
        (
            versions.collect::<Vec<_>>(),
            times.collect::<Vec<_>>(),
            history.current().map(key),
            history.data_version(),
        )
    };
    let (history, read_history) = (ours.history(), read.history());
    assert_eq!(described(history), described(read_history));
    assert_eq!(ours.raw_places().found, read.raw_places().found);
    for (index, version) in history.iter() {
        let read_index = read_history.by_key(&version.key).unwrap();
        let tree = ours.tree(index).unwrap();
        for (child, _) in tree.datasets() {
            let path = &child.path;
            let own = file.own_dataset_in(&ours, index, path).unwrap();
            let other = now.own_dataset_in(&read, read_index, path).unwrap();
            let map = |dataset: &Arc<Dataset>| {
                let map = dataset.chunked()?.map();
                Some((
                    map.mapped().collect::<Vec<_>>(),
                    map.len_mapped(),
                    map.len_cells(),
                ))
            };
            assert_eq!(map(&own), map(&other), "{index:?} {}", path.escape_ascii());
            let entry_bytes = |dataset: &Arc<Dataset>| dataset.chunked()?.map().entry_bytes();
            assert!(entry_bytes(&own).is_none() || entry_bytes(&own) == entry_bytes(&other));
            let raw = |snapshot: &Snapshot, index| snapshot.raw_data(index, path).unwrap().unwrap();
            let (own, other) = (raw(&ours, index), raw(&read, read_index));
            let (hashes, read_hashes) = (own.hashes().unwrap(), other.hashes().unwrap());
            assert_eq!(hashes.chunks(), read_hashes.chunks());
            assert_eq!(hashes.rows, read_hashes.rows);
            assert_eq!(own.table().unwrap(), other.table().unwrap());
        }
    }
}

/// Many small edits one after the other, of which each state is made of the one before.
#[test]
fn what_is_carried_from_commit_to_commit_is_what_the_file_holds() {
    let files = Fixture::make(SMALL);
    let path = files.path("small.h5");
    let file = open(&path);
    assert_state_is_as_read(&file);
    for step in 0..40u32 {
        let mut a = read(&file, "a");
        let at = usize::try_from(step * 37 % 90).unwrap() * 8;
        a.put(at, &numbers(&[f64::from(step) + 0.5]));
        match step % 5 {
            1 => a.put(a.bytes.len(), &numbers(&[f64::from(step); 9])),
            3 => a.bytes.truncate(a.bytes.len() - 40),
            4 => a.put(0, &numbers(&[0.0; 60])),
            _ => {}
        }
        let new = Memory::whole(numbers(&vec![f64::from(step); 30]));
        let name = format!("new{step}");
        let mut objects = vec![kept("a", edited(&a)), kept("b", NewContent::Unchanged)];
        if step % 7 == 0 {
            objects.push(object(&name, fresh(&new, "<f8", "[30]", "[8]", "[]")));
        }
        let mut next = version(&file, &format!("step{step}"), objects);
        next.timestamp += chrono::TimeDelta::seconds(i64::from(step));
        commit(&file, &next).unwrap();
        assert_eq!(read(&file, "a").bytes, a.bytes);
        if step % 3 != 1 {
            assert_state_is_as_read(&file);
        }
    }
    judge(&files, "small.h5", "small.h5");
}

#[test]
fn versions_follow_versions() {
    let files = Fixture::make(SMALL);
    let path = files.path("small.h5");
    let file = open(&path);
    file.look().sharing().unwrap();
    // Attributes alone; the dataset that did not change maps the same chunks.
    let mut a = kept("a", NewContent::Unchanged);
    a.attributes = vec![set("k", "3"), set("new", "[1.5, 2]")];
    let r2 = version(&file, "r2", vec![a, kept("b", NewContent::Unchanged)]);
    let report = commit(&file, &r2).unwrap();
    assert_sharing_is_as_read(&file);
    assert_eq!((report.chunks_hashed, report.chunks_stored), (0, 0));
    // Nothing at all, from the first version, and not the current one.
    let r1 = report.snapshot.history().by_shown_name(b"r1").unwrap();
    let r1 = report.snapshot.history().version(r1).key.clone();
    let mut r3 = version(&file, "r3", Vec::new());
    (r3.base, r3.make_current) = (Some(r1.clone()), false);
    commit(&file, &r3).unwrap();
    assert_sharing_is_as_read(&file);
    // A dataset under a path that was deleted takes its type from there; one that grows where zero is not the fill value.
    let back = Memory::whole(numbers(&[1.0, 2.0]));
    let bare = |bytes| {
        NewContent::Written(WrittenDataset {
            edits_base: false,
            description: Description::default(),
            bytes,
        })
    };
    let mut r4 = version(&file, "r4", vec![object("a", bare(&back))]);
    r4.base = None;
    commit(&file, &r4).unwrap();
    assert_sharing_is_as_read(&file);
    // What lies between the members of a compound is kept, though the library neither keeps nor compares it.
    let gaps = Memory::whole((0..64).collect());
    let descr =
        "{'names': ['a', 'b'], 'formats': ['u1', '<i4'], 'offsets': [0, 4], 'itemsize': 16}";
    let gaps_new = object("gaps", fresh(&gaps, descr, "[4]", "[3]", "[]"));
    let mut filled = Memory {
        bytes: [7i16, 5, 7, 7, 7, 7, 7, 7, 7, 7]
            .map(i16::to_le_bytes)
            .concat(),
        written: Vec::new(),
    };
    filled.bytes.extend([0; 12]);
    let mut r5 = version(&file, "r5", vec![kept("filled", edited(&filled)), gaps_new]);
    r5.base = Some(r1);
    commit(&file, &r5).unwrap();
    assert_sharing_is_as_read(&file);
    assert_state_is_as_read(&file);
    assert_eq!(read(&file, "filled").bytes, filled.bytes);
    assert_eq!(read(&file, "gaps").bytes, gaps.bytes);
    assert_by_python(
        &path,
        r#"
root = file["_version_data/versions"]
assert (versions["r2"]["a"][:] == np.arange(100.0)).all()
assert root["r2/a"].attrs["k"] == 3 and root["r2/a"].attrs["k"].dtype == "i1"
assert list(root["r2/a"].attrs["new"]) == [1.5, 2]
assert root["r2/b"] != root["r1/b"] and root["r2/a"] != root["r1/a"]
assert [source.src_space.get_select_bounds() for source in root["r2/b"].virtual_sources()] == \
    [source.src_space.get_select_bounds() for source in root["r1/b"].virtual_sources()]
assert "filled" not in root["r2"] and list(root["r3"]) == [] and root["r3"].attrs["prev_version"] == "r1"
assert list(versions["r4"]["a"][:]) == [1, 2] and root["r4"].attrs["prev_version"] == "__first_version__"
assert file["_version_data/a/raw_data"].compression == "gzip"
assert list(versions["r5"]["filled"][:]) == [7, 5] + [7] * 8 + [0] * 6
assert root.attrs["current_version"] == "r5"
assert list(versions["r5"]["gaps"]["a"]) == [0, 16, 32, 48] and versions["r5"]["gaps"]["b"][1] == 0x17161514
"#,
    );
    judge(&files, "small.h5", "small.h5");
}

fn assert_refused(file: &VersionedFile, new: &NewVersion<'_>, failure: CommitFailure, words: &str) {
    let error = commit(file, new).unwrap_err();
    assert_eq!(error.failure(), failure, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[expect(clippy::too_many_lines, reason = "a list of cases")]
#[test]
fn what_cannot_be_stored_changes_nothing() {
    let files = Fixture::make(SMALL);
    let path = files.path("small.h5");
    let file = open(&path);
    let before = std::fs::read(&path).unwrap();
    let odd = Memory::whole(vec![1; 13]);
    let good = Memory::whole(vec![1; 16]);
    let mut cases: Vec<(NewVersion<'_>, CommitFailure, &str)> = Vec::new();
    let mut add = |new, failure, words| cases.push((new, failure, words));
    for (name, words) in [
        ("", "empty"),
        ("a/b", "slash"),
        ("..", "directory"),
        ("a\nb", "control"),
    ] {
        add(
            version(&file, name, Vec::new()),
            CommitFailure::Invalid,
            words,
        );
    }
    add(
        version(&file, "r1", Vec::new()),
        CommitFailure::Exists,
        "there is a version r1",
    );
    add(
        version(&file, "__first_version__", Vec::new()),
        CommitFailure::Exists,
        "already",
    );
    let one = |path, content| version(&file, "r2", vec![object(path, content)]);
    add(
        one("a", edited(&odd)),
        CommitFailure::Invalid,
        "a: 13 bytes are not a whole number of elements of 8 bytes",
    );
    let rows = || fresh(&odd, "u1", "[3, 2]", "[3, 2]", "[]");
    add(
        one("n", rows()),
        CommitFailure::Invalid,
        "n: 13 bytes are not a whole number of rows of 2 bytes",
    );
    add(
        one("a", fresh(&good, "<i8", "[2]", "[16]", "gzip")),
        CommitFailure::Invalid,
        "its type is",
    );
    add(
        one("a", fresh(&good, "<f8", "[2]", "[8]", "gzip")),
        CommitFailure::Invalid,
        "its chunk shape is [8]",
    );
    add(
        one("a", fresh(&good, "<f8", "[2]", "[16]", "lzf")),
        CommitFailure::Invalid,
        "its filter pipeline is",
    );
    add(
        one("n", fresh(&good, "<f8", "[2]", "[2]", "zfp")),
        CommitFailure::Unsupported,
        "zfp",
    );
    add(
        one("versions", NewContent::Group),
        CommitFailure::Invalid,
        "under the name versions",
    );
    add(
        one("x/y", NewContent::Group),
        CommitFailure::Invalid,
        "behind a group",
    );
    add(
        one("50%", fresh(&good, "u1", "[16]", "[4]", "[]")),
        CommitFailure::Invalid,
        "with a %",
    );
    add(
        one("a", NewContent::Group),
        CommitFailure::Invalid,
        "there was a dataset of that path",
    );
    add(
        one("group", fresh(&good, "u1", "[16]", "[4]", "[]")),
        CommitFailure::Invalid,
        "there was a group of that path",
    );
    let inside = vec![
        object("new", NewContent::Group),
        object("new/raw_data", fresh(&good, "u1", "[16]", "[4]", "[]")),
    ];
    add(
        version(&file, "r2", inside),
        CommitFailure::Invalid,
        "a group that holds raw_data",
    );
    let inside = vec![
        object("a", NewContent::Group),
        object("a/hash_table", fresh(&good, "u1", "[16]", "[4]", "[]")),
    ];
    add(
        version(&file, "r2", inside),
        CommitFailure::Invalid,
        "raw_data and hash_table",
    );
    let mut late = version(&file, "r2", Vec::new());
    late.timestamp = DateTime::from_timestamp(1 << 39, 0).unwrap();
    add(late, CommitFailure::Invalid, "timestamp");
    let mut gone = version(&file, "r2", Vec::new());
    gone.base = Some(VersionKey {
        name: (*b"r9").into(),
        timestamp_ns: 1,
    });
    add(gone, CommitFailure::Stale, "r9");
    let mut own = version(&file, "r2", Vec::new());
    own.attributes = vec![set("committed", "true")];
    add(own, CommitFailure::Invalid, "attribute committed");
    let unbalanced = Memory::whole(b"a\nb\\\n".to_vec());
    add(
        one("t", fresh(&unbalanced, "O", "[2]", "[4]", "[]")),
        CommitFailure::Invalid,
        "line 2",
    );
    for (new, failure, words) in cases {
        assert_refused(&file, &new, failure, words);
        assert!(std::fs::read(&path).unwrap() == before, "{words}");
    }
}

#[test]
fn a_file_that_another_program_holds_is_busy() {
    let files = Fixture::make(SMALL);
    let path = files.path("small.h5");
    let file = open(&path);
    let other = File::open(&path).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockShared).unwrap();
    let error = commit(&file, &version(&file, "r2", Vec::new())).unwrap_err();
    assert!(matches!(error, CommitError::Busy { .. }), "{error}");
    drop(other);
    commit(&file, &version(&file, "r2", Vec::new())).unwrap();
}

/// Staged bytes that fail, or that look at the file, once the commit is under way.
struct Watching<'f> {
    memory: Memory,
    file: &'f VersionedFile,
    open: crate::store::OpenDataset,
    wanted: Vec<u8>,
    reads: std::sync::atomic::AtomicUsize,
    fails_at: usize,
}

impl StagedBytes for Watching<'_> {
    fn len_bytes(&self) -> u64 {
        self.memory.len_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StagedReadError> {
        let reads = self.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        if reads == self.fails_at {
            return Err(StagedReadError::Overlay {
                offset,
                error: Arc::new(io::ErrorKind::InvalidData.into()),
            });
        }
        // Old versions are read all the while, and nothing of the new one is to be seen.
        let mut bytes = vec![0; self.wanted.len()];
        let count = self.file.read_dataset(&self.open, 0, &mut bytes).unwrap();
        assert_eq!((count, &bytes), (bytes.len(), &self.wanted));
        assert!(self.file.look().history().by_shown_name(b"r2").is_none());
        self.memory.read_exact_at(offset, buffer)
    }

    fn next_written(&self, offset: u64) -> Option<Range<u64>> {
        self.memory.next_written(offset)
    }
}

#[test]
fn old_versions_are_read_during_a_commit_and_after_a_failure() {
    let files = Fixture::make(SMALL);
    let path = files.path("small.h5");
    let file = open(&path);
    let before = std::fs::read(&path).unwrap();
    let snapshot = file.look();
    let current = snapshot.history().current().unwrap();
    let r1 = snapshot.history().version(current).key.clone();
    let watching = |fails_at| Watching {
        memory: Memory::whole(numbers(&vec![3.0; 5000])),
        file: &file,
        open: file.open_dataset(&r1, &Arc::from(&b"a"[..])).unwrap(),
        wanted: numbers(&(0..100).map(f64::from).collect::<Vec<_>>()),
        reads: 0.into(),
        fails_at,
    };
    // 79 chunks; of the 10 chunks that are new, one is read again when it is written.
    let reads_of_hashing = 313;
    for fails_at in [reads_of_hashing + 1, 5] {
        let failing = watching(fails_at);
        let content = fresh(&failing.memory, "<f8", "[5000]", "[16]", "gzip");
        let NewContent::Written(written) = content else {
            unreachable!()
        };
        let written = WrittenDataset {
            bytes: &failing,
            ..written
        };
        let new = version(&file, "r2", vec![object("c", NewContent::Written(written))]);
        let error = commit(&file, &new).unwrap_err();
        assert!(matches!(error, CommitError::Staged { .. }), "{error}");
        assert!(std::fs::read(&path).unwrap() == before);
    }
    let whole = watching(0);
    let NewContent::Written(written) = fresh(&whole.memory, "<f8", "[5000]", "[16]", "gzip") else {
        unreachable!()
    };
    let written = WrittenDataset {
        bytes: &whole,
        ..written
    };
    let new = version(&file, "r2", vec![object("c", NewContent::Written(written))]);
    let report = commit(&file, &new).unwrap();
    assert_eq!((report.chunks_hashed, report.chunks_stored), (313, 2));
    assert!(whole.reads.load(std::sync::atomic::Ordering::SeqCst) > 313);
    assert!(report.snapshot.history().by_shown_name(b"r2").is_some());
    assert_eq!(read(&file, "c").bytes, whole.memory.bytes);
}

#[test]
fn layouts_with_wrong_hashes_are_refused() {
    let files = Fixture::make(&format!(
        "{SMALL}\n\
         import shutil\n\
         for number in (1, 2, 3, 5):\n    \
             shutil.copy('small.h5', f'v{{number}}.h5')\n    \
             with h5py.File(f'v{{number}}.h5', 'r+') as file:\n        \
                 file['_version_data/versions'].attrs['data_version'] = number\n"
    ));
    for (number, words) in [
        (2, "rebuild_hashtables"),
        (3, "rebuild_hashtables"),
        (5, "not known"),
    ] {
        let name = format!("v{number}.h5");
        let file = open(&files.path(&name));
        let error = commit(&file, &version(&file, "r2", Vec::new())).unwrap_err();
        assert_eq!(error.failure(), CommitFailure::ReadOnly);
        let error = error.to_string();
        assert!(error.contains(words), "{error}");
        // What it tells to do is all that has to be done.
        if let Some(program) = error.split('`').nth(1) {
            files.run(&program.replace("PATH", &format!("'{name}'")));
            commit(&file, &version(&file, "r2", Vec::new())).unwrap();
        }
    }
    let path = files.path("v1.h5");
    let file = open(&path);
    commit(&file, &version(&file, "r2", Vec::new())).unwrap();
    assert_by_python(&path, "assert versions.data_version_identifier == 4");
}

#[test]
fn chunks_that_a_rebuilt_table_leaves_out_stay() {
    // Old layouts stored some chunks twice, and a rebuilt table names each content once.
    let files = Fixture::make(
        r#"
import h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File
with h5py.File("twice.h5", "w") as file:
    versions = VersionedHDF5File(file)
    for name, last in (("r1", 3), ("r2", 7), ("r3", 9)):
        with versions.stage_version(name) as group:
            if name == "r1":
                group.create_dataset("x", data=np.arange(4, dtype="u1"), chunks=(4,))
            group["x"][3] = last
    file["_version_data/x/raw_data"][4:12] = [0, 1, 2, 3] * 2
    versions.rebuild_hashtables()
    assert file["_version_data/x/hash_table"].attrs["largest_index"] == 1
"#,
    );
    let path = files.path("twice.h5");
    let file = open(&path);
    let bytes = Memory::whole(vec![5; 4]);
    let new = version(&file, "r4", vec![kept("x", edited(&bytes))]);
    commit(&file, &new).unwrap();
    files.run(
        r#"
import h5py
from versioned_hdf5 import VersionedHDF5File
with h5py.File("twice.h5", "r+") as file:
    versions = VersionedHDF5File(file)
    with versions.stage_version("r5") as group:
        group["x"][0] = 8
    for name, values in (("r1", [0, 1, 2, 3]), ("r2", [0, 1, 2, 3]), ("r3", [0, 1, 2, 3]), ("r4", [5] * 4), ("r5", [8, 5, 5, 5])):
        assert list(file["_version_data/versions"][name]["x"]) == values, name
        assert list(versions[name]["x"][:]) == values, name
"#,
    );
    assert_eq!(read(&open(&path), "x").bytes, [8, 5, 5, 5]);
}

#[test]
fn a_name_that_is_used_again_may_change_the_parents_of_others() {
    let files = Fixture::make(SMALL);
    let path = files.path("small.h5");
    let file = open(&path);
    for name in ["r2", "r3"] {
        let mut new = version(&file, name, vec![kept("a", NewContent::Unchanged)]);
        new.timestamp += chrono::TimeDelta::seconds(i64::from(name == "r3"));
        commit(&file, &new).unwrap();
    }
    let program =
        "import h5py\nwith h5py.File('small.h5', 'r+') as f: del f['_version_data/versions/r2']";
    files.run(program);
    file.ask(|snapshot| snapshot.sharing().map(|_| ())).unwrap();
    let mut again = version(&file, "r2", vec![kept("a", NewContent::Unchanged)]);
    let r1 = file.look().history().by_shown_name(b"r1").unwrap();
    again.base = Some(file.look().history().version(r1).key.clone());
    commit(&file, &again).unwrap();
    let snapshot = file.look();
    let history = snapshot.history();
    let parent = |name: &[u8]| history.version(history.by_shown_name(name).unwrap()).parent;
    assert_eq!(parent(b"r3"), history.by_shown_name(b"r2"));
    // All was found out anew.
    assert!(snapshot.sharing_if_known().is_none());
    snapshot.sharing().unwrap();
    assert_sharing_is_as_read(&file);
    assert_state_is_as_read(&file);
}
