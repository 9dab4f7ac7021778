//! What is written is read by h5py and by the native decoders; what fails leaves the file as it was.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::h5::fixture::{Fixture, address_of, dataset};
use crate::h5::heap::read_object;
use crate::h5::library::{LibraryFile, ObjectName};
use crate::h5::mapping::{MappingForm, read_chunk_map};
use crate::h5::testing::{made_files, python};
use crate::h5::{ByteOrder, Class, Datatype, Filter, Layout, ObjectHeader, links};
use crate::source::testing::{Fail, begin_failing, journal_beside};
use crate::source::{TransactionError, recover};

/// Makes versioned files of the older and of the newer format, with and without a user block, one that came later, and with bytes of a crashed writer at the
/// end; their names.
const VERSIONED: &str = r#"
import h5py, numpy as np, shutil
from versioned_hdf5 import VersionedHDF5File

for name, options in (("earliest", dict(libver="earliest")), ("v108", dict(libver=("v108", "latest"))),
                      ("latest", dict(libver="latest")), ("block", dict(userblock_size=2048))):
    with h5py.File(name + ".h5", "w", **options) as f:
        vf = VersionedHDF5File(f)
        with vf.stage_version("first") as g:
            g.create_dataset("line", data=np.arange(100, dtype="<i4"), chunks=(16,), compression="gzip")
            g.create_dataset("sub/plane", data=np.arange(35 * 22, dtype="<f8").reshape(35, 22), chunks=(8, 5), fillvalue=2.5)
            g.create_dataset("text", data=np.array(["a", "bc", "äöü"] * 5, dtype=object), dtype=h5py.string_dtype(), chunks=(4,))
            a = g["line"].attrs
            a["number"] = np.float32(1.5)
            a["words"] = np.array(["one", "zwei", "три"], dtype=object)
            a["empty"] = h5py.Empty("i4")
            a["flags"] = np.array([True, False])
            a["names"] = np.array([(1, b"x")], dtype=[("n", ">i2"), ("s", "S3")])
            a["ragged"] = np.array([np.arange(3), np.arange(1)], dtype=h5py.vlen_dtype("i4"))
shutil.copy("earliest.h5", "garbage.h5")
with open("garbage.h5", "ab") as f:
    f.write(b"\xff" * 10000)
# A user block that came later: the superblocks have another base address than they lie at.
for name in ("earliest", "latest"):
    with open(name + ".h5", "rb") as f, open(name + "_moved.h5", "wb") as moved:
        moved.write(bytes(512) + f.read())
"#;

const NAMES: [&str; 7] = [
    "earliest",
    "v108",
    "latest",
    "block",
    "garbage",
    "earliest_moved",
    "latest_moved",
];

/// Runs a Python program that looks at what was written.
fn judge(fixture: &Fixture, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(python())
        .args(["-c", program])
        .args(arguments)
        .current_dir(fixture.path(""))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn integer(size: usize) -> Datatype {
    Datatype {
        size,
        class: Class::Integer {
            signed: true,
            order: ByteOrder::Little,
            bit_offset: 0,
            bit_precision: u16::try_from(8 * size).unwrap(),
        },
    }
}

fn string() -> Datatype {
    Datatype {
        size: 16,
        class: Class::VlenString {
            padding: 0,
            utf8: true,
        },
    }
}

/// Writes a version "second" by hand: a group, a link, attributes, raw data that is longer, a virtual dataset with mappings.
fn write_second(writer: &mut FileWriter) -> Result<(), WriteError> {
    let texts: Vec<Vec<u8>> = (0..3000)
        .map(|n| format!("text {n}").into_bytes())
        .collect();
    let places = writer.append_heap_objects(texts.iter().map(Vec::as_slice))?;
    assert_eq!(places.len(), texts.len());
    let mapped = MappedShape {
        source_dataset: b"/_version_data/new/raw_data",
        shape: &[10, 3],
        chunk_shape: &[4, 2],
    };
    let block = writer.append_mapping_block(&mapped, [(0, 0), (1, 1), (5, 2)])?;
    let block = block.expect("there are mappings").place;
    let (string, size) = (string(), ["größe".as_bytes()]);
    let header = writer.edit(|library| {
        let second = b"/_version_data/versions/second";
        assert!(!library.exists(second)?);
        assert!(!library.exists(b"/nothing/at/all")?);
        library.create_group(second)?;
        assert!(library.exists(second)?);
        assert!(matches!(
            library.create_group(second),
            Err(WriteError::Exists { .. })
        ));
        library.hard_link(
            b"/_version_data/versions/first/sub/plane",
            b"/_version_data/versions/second/sub/plane",
        )?;
        let text = |name, text| NewAttribute {
            name,
            datatype: &string,
            shape: AttributeShape::Scalar,
            data: AttributeData::Strings(text),
        };
        library.set_attribute(second, &text(b"prev_version", &[b"first"]))?;
        library.set_attribute(second, &text("wört".as_bytes(), &size))?;
        library.set_attribute(second, &text(b"gone", &[b""]))?;
        library.remove_attribute(second, b"gone")?;
        library.remove_attribute(second, b"never there")?;
        library.create_chunked(
            b"/_version_data/new/raw_data",
            &NewChunked {
                datatype: TypeSource::Datatype(&integer(2)),
                shape: &[0, 2],
                chunk_shape: &[4, 2],
                fill_value: Some(&[7, 0]),
                filters: &[],
            },
        )?;
        let mut raw = library.open_dataset(b"/_version_data/new/raw_data")?;
        raw.set_shape(&[12, 2])?;
        for chunk in 0..3u8 {
            raw.write_chunk(&[4 * u64::from(chunk), 0], 0, &[chunk + 1; 16])?;
        }
        assert!(raw.write_chunk(&[0], 0, &[0; 16]).is_err());
        let mut table = library.open_dataset(b"/_version_data/line/hash_table")?;
        table.set_shape(&[8])?;
        table.write_rows(7, &[9; 48])?;
        assert!(table.write_rows(7, &[9; 47]).is_err());
        assert!(table.write_rows(8, &[9; 48]).is_err());
        let largest = NewAttribute {
            name: b"largest_index",
            datatype: &integer(8),
            shape: AttributeShape::Scalar,
            data: AttributeData::Bytes(&8i64.to_le_bytes()),
        };
        library.set_attribute(b"/_version_data/line/hash_table", &largest)?;
        let new = b"/_version_data/versions/second/new";
        let header = library.create_virtual(
            new,
            &NewVirtual {
                datatype: TypeSource::Of(b"/_version_data/new/raw_data"),
                shape: &[10, 3],
                fill_value: Some(&[7, 0]),
            },
        )?;
        library.copy_attributes(
            b"/_version_data/versions/first/line",
            new,
            &["empty", "flags", "names", "number", "ragged", "words"],
        )?;
        library.set_attribute(
            new,
            &NewAttribute {
                name: b"box",
                datatype: &integer(4),
                shape: AttributeShape::Simple(&[2, 1]),
                data: AttributeData::Bytes(&[1, 0, 0, 0, 2, 0, 0, 0]),
            },
        )?;
        Ok(header)
    })?;
    writer.set_virtual_mapping(header, block)?;
    // There are mappings now.
    assert!(matches!(
        writer.set_virtual_mapping(header, block),
        Err(WriteError::NotVirtual { .. })
    ));
    Ok(())
}

const JUDGE_SECOND: &str = r#"
import sys, h5py, numpy as np
name = sys.argv[1]
with h5py.File(name, "r") as f:
    v = f["_version_data/versions"]
    first, second = v["first"], v["second"]
    assert set(second.attrs) == {"prev_version", "wört"} and second.attrs["prev_version"] == "first", list(second.attrs)
    assert second.attrs["wört"] == "größe"
    assert second["sub/plane"] == first["sub/plane"]
    assert (second["sub/plane"][()] == np.arange(35 * 22).reshape(35, 22)).all()
    assert (first["line"][()] == np.arange(100)).all()
    assert [x.decode() for x in first["text"][()]] == ["a", "bc", "äöü"] * 5
    new = second["new"]
    want = np.full((10, 3), 7, dtype="<i2")
    want[0:4, 0:2] = 0x0101
    want[0:4, 2:3] = 0x0202
    want[8:10, 2:3] = 0x0303
    assert new.dtype == "<i2" and new.fillvalue == 7 and (new[()] == want).all(), new[()]
    assert len(new.virtual_sources()) == 3
    a, b = first["line"].attrs, new.attrs
    assert set(b) == (set(a) - {"raw_data", "chunks"}) | {"box"}, list(b)
    assert b["box"].tolist() == [[1], [2]] and b["box"].dtype == "i4"
    for key in set(a) - {"raw_data", "chunks"}:
        assert a.get_id(key).get_type().equal(b.get_id(key).get_type()), key
        assert a.get_id(key).shape == b.get_id(key).shape, key
        if key == "ragged":
            assert [x.tolist() for x in b[key]] == [[0, 1, 2], [0]]
        elif key == "empty":
            assert isinstance(b[key], h5py.Empty)
        else:
            assert np.array_equal(a[key], b[key]), key
    table = f["_version_data/line/hash_table"]
    assert table.attrs["largest_index"] == 8 and table.attrs["largest_index"].dtype == "i8"
    assert bytes(table[7]["hash"]) == b"\x09" * 32 and table.shape == (8,)
    raw = f["_version_data/new/raw_data"]
    assert raw.maxshape == (None, 2) and raw.chunks == (4, 2) and raw.fillvalue == 7
# Another program goes on.
with h5py.File(name, "r+") as f:
    f["_version_data/versions/second/later"] = np.arange(1000)
    f["_version_data/versions/second/words"] = np.array(["x" * n for n in range(50)], dtype=object)
    del f["_version_data/versions/first/line"]
with h5py.File(name, "r") as f:
    assert (f["_version_data/versions/second/later"][()] == np.arange(1000)).all()
    assert (f["_version_data/versions/second/new"][()] == want).all()
"#;

#[test]
fn a_version_written_by_hand_is_read_by_h5py() {
    let fixture = Fixture::make(VERSIONED);
    for name in NAMES {
        let name = format!("{name}.h5");
        let path = fixture.path(&name);
        let mut writer = begin(&path).unwrap();
        write_second(&mut writer).unwrap();
        writer.finish().unwrap();

        let file = fixture.open(&name);
        let reader = file.reader();
        assert_eq!(file.end_of_file(), file.file_len_bytes(), "{name}");
        let new = "_version_data/versions/second/new";
        let header = dataset(&file, &reader, new);
        let Layout::Virtual {
            heap_address,
            heap_index,
        } = header.layout
        else {
            panic!("{header:?}");
        };
        let raw_data = b"/_version_data/new/raw_data";
        let place = (heap_address, heap_index);
        let form = read_chunk_map(&reader, place, &[10, 3], &[4, 2], raw_data).unwrap();
        let MappingForm::Chunked(map) = form else {
            panic!("{form:?}");
        };
        assert_eq!(map.mapped().collect::<Vec<_>>(), [(0, 0), (1, 1), (5, 2)]);
        let library = LibraryFile::open(&path).unwrap();
        let by_header = ObjectName::Header(address_of(&file, &reader, new));
        assert_eq!(library.virtual_mappings(by_header).unwrap().len(), 3);
        drop(library);
        judge(&fixture, JUDGE_SECOND, &[&name]);
    }
}

/// A block that is too long to be held in memory, patched within a file: what is made of it is what would have been encoded.
#[test]
fn a_long_block_is_patched_in_the_file() {
    const SHAPE: &[u64] = &[49_995];
    const NOW: &[u64] = &[51_234];
    let fixture = Fixture::make(VERSIONED);
    let chunks = |count: u64| (0..count).map(|cell| (cell, cell * 7 % 1000));
    let source = b"/_version_data/new/raw_data";
    let mapped = |shape: &'static [u64]| MappedShape {
        source_dataset: source,
        shape,
        chunk_shape: &[10],
    };
    for name in NAMES {
        let name = format!("{name}.h5");
        let path = fixture.path(&name);
        let mut writer = begin(&path).unwrap();
        let block = writer.append_mapping_block(&mapped(SHAPE), chunks(5000));
        let block = block.unwrap().unwrap();
        writer.finish().unwrap();

        let read = |block: &NewMappings, shape: &[u64]| {
            let file = fixture.open(&name);
            let place = (block.place.address, block.place.index);
            match read_chunk_map(&file.reader(), place, shape, &[10], source).unwrap() {
                MappingForm::Chunked(map) => map,
                form @ MappingForm::Irregular(_) => panic!("{form:?}"),
            }
        };
        let map = read(&block, SHAPE);
        let base = MappingBase {
            place: block.place,
            map: &map,
        };
        let mut changed = vec![(17, Some(3)), (4000, None), (4999, Some(1 << 20))];
        changed.extend((5000..5124).map(|cell| (cell, Some(cell))));
        let wanted = map.changed(NOW, &[10], &changed, None).unwrap();
        let mut writer = begin(&path).unwrap();
        // What is in memory of the heap goes before it.
        let places = writer.append_heap_objects([&b"before"[..]]).unwrap();
        let patched = writer.append_patched_mapping_block(&mapped(NOW), &base, &changed);
        let patched = patched.unwrap().unwrap();
        let encoded = writer.append_mapping_block(&mapped(NOW), wanted.mapped());
        let encoded = encoded.unwrap().unwrap();
        writer.finish().unwrap();

        assert_ne!(places[0].address, patched.place.address);
        assert_eq!(patched.len_bytes, encoded.len_bytes);
        assert_eq!(patched.checksum, encoded.checksum);
        assert_eq!(patched.entry_bytes, encoded.entry_bytes);
        assert_eq!(read(&patched, NOW), wanted);
        assert_eq!(read(&patched, NOW).entry_bytes(), patched.entry_bytes);
        let reader = fixture.open(&name).reader();
        let block = |place: HeapPlace| read_object(&reader, place.address, place.index).unwrap();
        assert_eq!(*block(patched.place), *block(encoded.place));
    }
}

#[test]
fn what_is_not_finished_leaves_no_trace() {
    let fixture = Fixture::make(VERSIONED);
    for name in NAMES {
        let path = fixture.path(&format!("{name}.h5"));
        let before = std::fs::read(&path).unwrap();
        let mut writer = begin(&path).unwrap();
        write_second(&mut writer).unwrap();
        let content = usize::try_from(writer.file().end_of_file()).unwrap();
        drop(writer);
        let after = std::fs::read(&path).unwrap();
        // Of the bytes that a crashed writer left only their number is kept.
        assert_eq!(after.len(), before.len(), "{name}");
        assert!(after[..content] == before[..content], "{name}");

        // An error within the change.
        let mut writer = begin(&path).unwrap();
        let error = writer.edit(|library| {
            library.create_group(b"/a/b/c")?;
            library.create_group(b"not/absolute")
        });
        assert!(matches!(error, Err(WriteError::Name { .. })), "{error:?}");
        assert!(matches!(
            writer.finish(),
            Err(WriteError::Transaction(TransactionError::GivenUp))
        ));
        let after = std::fs::read(&path).unwrap();
        assert!(after[..content] == before[..content], "{name}");
    }
}

fn begin(path: &Path) -> Result<FileWriter, WriteError> {
    FileWriter::begin(path, journal_beside(path))
}

/// The disk is full at each change of the file in turn.
#[test]
fn every_failure_before_the_last_step_leaves_the_file_as_it_was() {
    let fixture = Fixture::make(VERSIONED);
    for name in ["earliest", "latest"] {
        let path = fixture.path(&format!("{name}.h5"));
        let before = std::fs::read(&path).unwrap();
        let (mut failures, mut finished) = (0, false);
        for number in 0.. {
            for fail in [Fail::Only(number), Fail::From(number)] {
                let transaction = Arc::new(begin_failing(&path, fail));
                let result =
                    FileWriter::on(&path, Arc::clone(&transaction)).and_then(|mut writer| {
                        write_second(&mut writer)?;
                        writer.finish()
                    });
                let is_interrupted = matches!(
                    result,
                    Err(WriteError::Transaction(
                        TransactionError::Interrupted { .. }
                    ))
                );
                if transaction.is_applying() || is_interrupted {
                    finished |= result.is_ok();
                    drop(transaction);
                    recover(&path, &journal_beside(&path)).unwrap();
                    let program =
                        "import h5py, sys; h5py.File(sys.argv[1])['_version_data/versions/second']";
                    if result.is_ok() {
                        judge(&fixture, program, &[&format!("{name}.h5")]);
                    }
                    std::fs::write(&path, &before).unwrap();
                    continue;
                }
                failures += 1;
                let error = match result.unwrap_err() {
                    WriteError::Transaction(error) => error.io_error().unwrap().clone(),
                    other => panic!("{fail:?}: {other}"),
                };
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{fail:?}");
                drop(transaction);
                // Where nothing works any more, what was appended cannot be cut off at once.
                if matches!(fail, Fail::From(_)) {
                    recover(&path, &journal_beside(&path)).unwrap();
                }
                let after = std::fs::read(&path).unwrap();
                assert!(after == before, "{fail:?}");
                std::fs::write(&path, &before).unwrap();
            }
            if finished {
                break;
            }
        }
        assert!(failures > 10, "{failures}");
    }
}

#[test]
fn files_that_others_have_or_manage_are_refused() {
    let fixture = Fixture::make(
        r#"
import h5py
for name, options in (("persist", dict(fs_strategy="fsm", fs_persist=True)), ("page", dict(fs_strategy="page")),
                      ("none", dict(fs_strategy="none")), ("aggregate", dict(fs_strategy="aggregate")), ("plain", dict(libver="latest"))):
    with h5py.File(name + ".h5", "w", **options) as f:
        f["x"] = 1
"#,
    );
    for name in ["persist", "page"] {
        let error = begin(&fixture.path(&format!("{name}.h5"))).unwrap_err();
        assert!(matches!(error, WriteError::FileSpace { .. }), "{error}");
    }
    for name in ["none", "aggregate", "plain"] {
        let path = fixture.path(&format!("{name}.h5"));
        let mut writer = begin(&path).unwrap();
        writer.append_heap_objects([&b"text"[..]]).unwrap();
        writer
            .edit(|library| library.create_group(b"/new"))
            .unwrap();
        writer.finish().unwrap();
        let program = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); assert f['x'][()] == 1 and len(f['new']) == 0; f['y'] = 2";
        judge(&fixture, program, &[&format!("{name}.h5")]);
    }

    // One whose base address says that 512 bytes before it were taken away.
    let mut shortened = std::fs::read(fixture.path("plain.h5")).unwrap();
    assert_eq!(shortened[8], 3, "version of the superblock");
    shortened[13] = 2;
    let checksum = crate::h5::lookup3(&shortened[..44]).to_le_bytes();
    shortened[44..48].copy_from_slice(&checksum);
    std::fs::write(fixture.path("shortened.h5"), shortened).unwrap();
    let error = begin(&fixture.path("shortened.h5")).unwrap_err();
    assert!(error.to_string().contains("taken away"), "{error}");

    let path = fixture.path("plain.h5");
    let first = begin(&path).unwrap();
    assert!(matches!(
        begin(&path),
        Err(WriteError::Transaction(TransactionError::Busy))
    ));
    drop(first);
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[8], 3, "version of the superblock");
    bytes[11] = 1;
    let checksum = crate::h5::lookup3(&bytes[..44]).to_le_bytes();
    bytes[44..48].copy_from_slice(&checksum);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(begin(&path), Err(WriteError::MarkedOpen)));
}

/// Every type that is in the files of the tests.
#[test]
fn types_are_made_as_they_were_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for made in made_files() {
        let path = folder.path().join("made.h5");
        std::fs::write(&path, &made.bytes).unwrap();
        let file = made.open();
        let reader = file.reader();
        let mut groups = vec![(file.root(), Vec::new())];
        let mut paths = Vec::new();
        while let Some((address, at)) = groups.pop() {
            for link in links(&reader, address).unwrap() {
                let crate::h5::LinkTarget::Hard(target) = link.target else {
                    continue;
                };
                let path = [&at[..], b"/", &link.name].concat();
                let header = ObjectHeader::read(&reader, target).unwrap();
                match header.kind().unwrap() {
                    crate::h5::ObjectKind::Group if path.split(|&b| b == b'/').count() < 7 => {
                        groups.push((target, path));
                    }
                    crate::h5::ObjectKind::Dataset => paths.push((path, target)),
                    _ => {}
                }
            }
        }
        let Ok(mut writer) = begin(&path) else {
            continue;
        };
        writer
            .edit(|library| {
                for (path, target) in &paths {
                    let header = ObjectHeader::read(&reader, *target)?;
                    let Ok(header) = crate::h5::DatasetHeader::read(&reader, &header) else {
                        continue;
                    };
                    let same = library.type_equals(path, &header.datatype)?;
                    let name = String::from_utf8_lossy(path);
                    assert!(same, "{} {name}: {:?}", made.name, header.datatype);
                    compared += 1;
                }
                Ok(())
            })
            .unwrap();
    }
    assert!(compared > 60, "{compared}");
}

#[test]
fn datasets_with_filters_that_the_library_lacks() {
    let fixture = Fixture::make("import h5py; h5py.File('x.h5', 'w').close()");
    let filter = |id, flags, name: Option<&str>, parameters: &[u32]| Filter {
        id,
        flags,
        name: name.map(str::to_owned),
        parameters: parameters.to_vec(),
    };
    let pipelines = [
        (
            "gzip",
            vec![filter(2, 1, None, &[4]), filter(1, 1, None, &[4])],
        ),
        ("checked", vec![filter(3, 0, None, &[])]),
        ("lzf", vec![filter(32000, 1, None, &[4, 261, 64])]),
        ("szip", vec![filter(4, 1, None, &[141, 8, 32, 16])]),
        (
            "blosc",
            vec![filter(32001, 1, Some("blosc"), &[2, 2, 4, 64, 5, 1, 0])],
        ),
        (
            "zstd",
            vec![filter(
                32015,
                1,
                Some("Zstandard compression: http://www.zstd.net"),
                &[3],
            )],
        ),
    ];
    let path = fixture.path("x.h5");
    let mut writer = begin(&path).unwrap();
    writer
        .edit(|library| {
            for (name, filters) in &pipelines {
                let path = format!("/{name}");
                let new = NewChunked {
                    datatype: TypeSource::Datatype(&integer(4)),
                    shape: &[16],
                    chunk_shape: &[16],
                    fill_value: None,
                    filters,
                };
                library.create_chunked(path.as_bytes(), &new)?;
                // Stored without any of the filters.
                let mut dataset = library.open_dataset(path.as_bytes())?;
                dataset.write_chunk(&[0], u32::MAX, &[3; 64])?;
            }
            Ok(())
        })
        .unwrap();
    writer.finish().unwrap();
    let file = fixture.open("x.h5");
    let reader = file.reader();
    for (name, filters) in &pipelines {
        let stored = dataset(&file, &reader, name).filters;
        let numbers = |filters: &[Filter]| -> Vec<_> {
            filters
                .iter()
                .map(|filter| (filter.id, filter.flags, filter.parameters.clone()))
                .collect()
        };
        assert_eq!(numbers(&stored), numbers(filters), "{name}");
    }
    judge(
        &fixture,
        r#"
import h5py
with h5py.File("x.h5", "r") as f:
    for name in f:
        mask, chunk = f[name].id.read_direct_chunk((0,))
        assert chunk == b"\x03" * 64, name
    assert f["gzip"].compression == "gzip" and f["gzip"].shuffle and f["lzf"].compression == "lzf"
    assert (f["lzf"][()] == 0x03030303).all() and (f["gzip"][()] == 0x03030303).all()
"#,
        &[],
    );
}

/// What the header of a dataset holds, without what is different in every object: places and attributes.
fn messages(
    reader: &crate::h5::MetaReader,
    address: crate::h5::Address,
) -> Vec<(u16, u8, Vec<u8>)> {
    use crate::h5::object_header::message_type;
    let header = ObjectHeader::read(reader, address).unwrap();
    let mut found: Vec<_> = header
        .messages()
        .filter(|message| {
            let of_attributes = [message_type::ATTRIBUTE, message_type::ATTRIBUTE_INFO];
            !of_attributes.contains(&message.message_type)
        })
        .map(|message| {
            let mut body = message.body.to_vec();
            match (message.message_type, &body[..]) {
                // The place of the chunks is behind the rest in version 4, and near the beginning in version 3.
                (message_type::LAYOUT, [4, 3, ..]) => body[2..14].fill(0),
                (message_type::LAYOUT, [4, 2, ..]) => body.truncate(body.len() - 8),
                (message_type::LAYOUT, [3, 2, ..]) => body[3..11].fill(0),
                (message_type::MODIFICATION_TIME, _) => body[4..8].fill(0),
                _ => {}
            }
            (message.message_type, message.flags, body)
        })
        .collect();
    found.sort();
    found.push((u16::from(header.version()), 0, Vec::new()));
    found
}

#[test]
fn datasets_are_as_the_python_library_makes_them() {
    let fixture = Fixture::make(VERSIONED);
    // A superblock of version 3 does not say for which of the later formats its objects were made.
    for name in ["earliest", "v108"] {
        let name = format!("{name}.h5");
        let path = fixture.path(&name);
        let before = fixture.open(&name);
        let reader = before.reader();
        let mut writer = begin(&path).unwrap();
        let sources = ["line", "sub/plane", "text"];
        writer
            .edit(|library| {
                for source in sources {
                    for dataset_name in ["raw_data", "hash_table"] {
                        let theirs = format!("_version_data/{source}/{dataset_name}");
                        let header = dataset(&before, &reader, &theirs);
                        let Layout::Chunked { chunk_shape, .. } = &header.layout else {
                            panic!("{header:?}");
                        };
                        let is_text = header.datatype.is_vlen_string();
                        let fill_value = header.fill_value.as_deref().filter(|_| !is_text);
                        library.create_chunked(
                            format!("/ours/{source}/{dataset_name}").as_bytes(),
                            &NewChunked {
                                datatype: TypeSource::Datatype(&header.datatype),
                                shape: header.dataspace.shape(),
                                chunk_shape,
                                fill_value,
                                filters: &header.filters,
                            },
                        )?;
                    }
                    let theirs = format!("_version_data/versions/first/{source}");
                    let header = dataset(&before, &reader, &theirs);
                    library.create_virtual(
                        format!("/ours/{source}/virtual").as_bytes(),
                        &NewVirtual {
                            datatype: TypeSource::Of(
                                format!("/_version_data/{source}/raw_data").as_bytes(),
                            ),
                            shape: header.dataspace.shape(),
                            fill_value: header
                                .fill_value
                                .as_deref()
                                .filter(|_| !header.datatype.is_vlen_string()),
                        },
                    )?;
                }
                Ok(())
            })
            .unwrap();
        writer.finish().unwrap();
        let after = fixture.open(&name);
        let reader = after.reader();
        for source in sources {
            for (theirs, ours) in [
                (format!("_version_data/{source}/raw_data"), "raw_data"),
                (format!("_version_data/{source}/hash_table"), "hash_table"),
                (format!("_version_data/versions/first/{source}"), "virtual"),
            ] {
                let ours = format!("ours/{source}/{ours}");
                assert_eq!(
                    messages(&reader, address_of(&after, &reader, &ours)),
                    messages(&reader, address_of(&after, &reader, &theirs)),
                    "{name} {theirs}"
                );
            }
        }
    }
}

#[test]
fn attributes_of_more_than_64_kib() {
    let fixture = Fixture::make("import h5py; f = h5py.File('x.h5', 'w'); f['x'] = 1; f.close()");
    let path = fixture.path("x.h5");
    let bytes = vec![5; 1 << 20];
    let attribute = NewAttribute {
        name: b"large",
        datatype: &integer(8),
        shape: AttributeShape::Simple(&[1 << 17]),
        data: AttributeData::Bytes(&bytes),
    };
    let mut writer = begin(&path).unwrap();
    writer
        .edit(|library| {
            library.create_group(b"/old")?;
            assert!(library.set_attribute(b"/old", &attribute).is_err());
            library.allow_large_attributes(true)?;
            library.create_group(b"/new")?;
            library.set_attribute(b"/new", &attribute)?;
            library.allow_large_attributes(false)?;
            library.create_group(b"/later")
        })
        .unwrap();
    writer.finish().unwrap();
    let program = "import h5py; a = h5py.File('x.h5')['new'].attrs; assert a['large'].tobytes() == b'\\x05' * (1 << 20)";
    judge(&fixture, program, &[]);
}

#[test]
fn a_new_file_is_one_of_the_python_library() {
    let fixture = Fixture::make(
        r#"
import h5py
from versioned_hdf5 import VersionedHDF5File
with h5py.File("theirs.h5", "w") as f:
    VersionedHDF5File(f)
"#,
    );
    let path = fixture.path("ours.h5");
    create_versioned_file(&path).unwrap();
    let error = create_versioned_file(&path).unwrap_err();
    assert!(
        matches!(&error, WriteError::Create { error, .. } if error.kind() == std::io::ErrorKind::AlreadyExists),
        "{error}"
    );
    let listed: Vec<_> = std::fs::read_dir(fixture.path("")).unwrap().collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(
        std::fs::metadata(&path).unwrap().len(),
        std::fs::metadata(fixture.path("theirs.h5")).unwrap().len()
    );
    judge(
        &fixture,
        r#"
import h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File
def facts(name):
    with h5py.File(name, "r") as f:
        found = []
        def visit(path, o):
            for key, value in o.attrs.items():
                t = o.attrs.get_id(key).get_type()
                found.append((path, key, None if key == "timestamp" else value, t.encode(), o.attrs.get_id(key).shape))
        f.visititems(visit)
        return found, sorted(f["_version_data/versions"])
assert facts("ours.h5") == facts("theirs.h5"), (facts("ours.h5"), facts("theirs.h5"))
with h5py.File("ours.h5", "r+") as f:
    vf = VersionedHDF5File(f)
    assert vf.current_version == "__first_version__"
    with vf.stage_version("r1") as g:
        g.create_dataset("x", data=np.arange(10000))
with h5py.File("ours.h5", "r") as f:
    assert (VersionedHDF5File(f)["r1"]["x"][()] == np.arange(10000)).all()
"#,
        &[],
    );
}

/// Commits of both kinds in turn.
#[test]
fn python_and_this_writer_take_turns() {
    let fixture = Fixture::make(VERSIONED);
    for name in NAMES {
        let path = fixture.path(&format!("{name}.h5"));
        for turn in 0..5 {
            append(&path, turn);
            judge(
                &fixture,
                r#"
import sys, h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File
name, turn = sys.argv[1], int(sys.argv[2])
with h5py.File(name, "r+") as f:
    for i in range(turn + 1):
        assert f[f"turns/{i}"].attrs["text"] == f"turn {i}", i
    with VersionedHDF5File(f).stage_version(f"turn {turn}") as g:
        g["line"].resize((100 + turn,))
        g["line"][turn] = -turn
        g["text"][turn] = f"turn {turn}"
with h5py.File(name, "r") as f:
    vf = VersionedHDF5File(f)
    for i in range(turn + 1):
        version = vf[f"turn {i}"]
        assert version["line"].shape == (100 + i,) and version["line"][i] == -i
        assert version["text"][i] == f"turn {i}".encode()
"#,
                &[&format!("{name}.h5"), &turn.to_string()],
            );
        }
    }
}

fn append(path: &Path, turn: u8) {
    let mut writer = begin(path).unwrap();
    writer.append_heap_objects([&[turn; 5000][..]]).unwrap();
    let text = format!("turn {turn}");
    writer
        .edit(|library| {
            let group = format!("/turns/{turn}");
            library.create_group(group.as_bytes())?;
            let attribute = NewAttribute {
                name: b"text",
                datatype: &string(),
                shape: AttributeShape::Scalar,
                data: AttributeData::Strings(&[text.as_bytes()]),
            };
            library.set_attribute(group.as_bytes(), &attribute)
        })
        .unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_read_only_file_or_none_is_an_error_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.h5");
    assert!(matches!(
        begin(&missing),
        Err(WriteError::Transaction(TransactionError::Io { .. }))
    ));
    let other = folder.path().join("other.h5");
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(&other)
        .unwrap();
    file.write_all(b"not HDF5").unwrap();
    assert!(matches!(begin(&other), Err(WriteError::H5(_))));
}

#[test]
fn attributes_are_copied_without_opening_what_has_them() {
    let fixture = Fixture::make(VERSIONED);
    let path = fixture.path("earliest.h5");
    let line = b"/_version_data/versions/first/line";
    let mut bytes = std::fs::read(&path).unwrap();
    {
        let file = fixture.open("earliest.h5");
        let name = std::str::from_utf8(&line[1..]).unwrap();
        let header = dataset(&file, &file.reader(), name);
        let Layout::Virtual { heap_address, .. } = header.layout else {
            panic!("a version's dataset is virtual");
        };
        // Without its mappings the dataset cannot be opened.
        let at = usize::try_from(heap_address.0).unwrap();
        assert_eq!(&bytes[at..at + 4], b"GCOL");
        bytes[at..at + 4].fill(0);
    }
    std::fs::write(&path, &bytes).unwrap();
    let mut writer = begin(&path).unwrap();
    let copied = writer.edit(|library| {
        library.create_group(b"/copy")?;
        library.copy_attributes(line, b"/copy", &["number", "flags"])
    });
    copied.unwrap();
    writer.finish().unwrap();
    let program = "import h5py; a = h5py.File('earliest.h5')['copy'].attrs; \
                   assert a['number'] == 1.5 and a['flags'].tolist() == [True, False], dict(a)";
    judge(&fixture, program, &[]);
}
