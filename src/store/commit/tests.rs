//! Versions that were committed here, held against those that the Python library makes of the same edits.

use std::ops::Range;
use std::process::Command;

use super::*;
use crate::h5::fixture::Fixture;
use crate::h5::testing::python;
use crate::store::description::{parse_chunk_shape, parse_datatype, parse_filters, parse_shape};
use crate::store::{
    AttributeChange, Description, StagedBytes, StagedReadError, StoreOptions, WrittenDataset, time,
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
        let written = vec![0..bytes.len() as u64];
        Self { bytes, written }
    }
}

fn open(path: &Path) -> VersionedFile {
    let options = StoreOptions {
        cache_bytes: 1 << 20,
        decode_threads: 2,
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
        let report = file.commit(&new).unwrap();
        let history = report.snapshot.history();
        let current = history.version(history.current().unwrap());
        assert_eq!(*current.key.name, *b"r2");
        assert_eq!(current.timestamp, Some(new.timestamp));
        judge(&files, &format!("{format}_python.h5"), &name);
    }
}
