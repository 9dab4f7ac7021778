//! Files of versioned-hdf5 and of h5py: what the library says of them is what the native decoders say.

use std::collections::BTreeSet;

use super::*;
use crate::h5::fixture::{Fixture, address_of, dataset};
use crate::h5::mapping::{self, MappingForm};
use crate::h5::{DatasetHeader, H5File, Layout, MetaReader, read_chunk_index};

/// Makes `earliest.h5` and `latest.h5` with a few versions of a few datasets, lists them in `list` (file, path of the virtual dataset, path
/// of its raw data, file with its elements).
const VERSIONED: &str = r#"
import h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File

listed = open("list", "w")
for name, libver in (("earliest", "earliest"), ("latest", "latest")):
    with h5py.File(name + ".h5", "w", libver=libver) as f:
        vf = VersionedHDF5File(f)
        with vf.stage_version("first") as g:
            g.create_dataset("line", data=np.arange(1000, dtype="<i4"), chunks=(16,))
            g.create_dataset("sub/plane", data=np.arange(35 * 22, dtype="<f8").reshape(35, 22), chunks=(8, 5))
            g.create_dataset("cube", data=np.arange(7 * 6 * 5, dtype=">i2").reshape(7, 6, 5), chunks=(3, 2, 4))
            g.create_dataset("empty", shape=(0,), dtype="i8", data=None, chunks=(16,))
            g.create_dataset("constant", data=np.zeros(500, dtype="i8"), chunks=(16,))
            g.create_dataset("zipped", data=np.arange(400), chunks=(16,), compression="gzip")
        with vf.stage_version("second") as g:
            g["line"].resize((1111,))
            g["line"][500:520] = -1
            g["sub/plane"][3:5, 4:9] = 0.5
            g["cube"].resize((9, 4, 5))
            g["empty"].resize((40,))
        with vf.stage_version("third") as g:
            g["line"].resize((30,))
            g["cube"][...] = 0
            g["zipped"][7] = 100000
    with h5py.File(name + ".h5", "r") as f:
        vf = VersionedHDF5File(f)
        number = 0
        for version in ("first", "second", "third"):
            def visit(path, o):
                global number
                if isinstance(o, h5py.Dataset):
                    elements = f"{name}.{version}.{path.replace('/', '_')}"
                    np.asarray(vf[version][path][()]).tofile(elements)
                    print(name + ".h5", "/_version_data/versions/" + version + "/" + path,
                          "/_version_data/" + path + "/raw_data", elements, file=listed)
            f["_version_data/versions/" + version].visititems(visit)
"#;

fn virtual_place(header: &DatasetHeader) -> (Address, u32) {
    match header.layout {
        Layout::Virtual {
            heap_address,
            heap_index,
        } => (heap_address, heap_index),
        _ => panic!("not virtual: {header:?}"),
    }
}

/// Both lists with each selection in one form: there are several ways to write one.
fn comparable(mappings: &[Mapping]) -> Vec<String> {
    let one_form = |selection: &Selection| match (selection.as_box(), selection) {
        (Some(axes), _) => format!("{axes:?}"),
        (None, Selection::Regular(axes)) => match axes.iter().map(places).collect() {
            Some(places) => format!("{:?}", elements(places)),
            None => format!("{selection:?}"),
        },
        (None, Selection::Blocks { rank, corners }) => {
            let places = |corner: &[u64]| {
                let axes = corner[..*rank].iter().zip(&corner[*rank..]);
                elements(
                    axes.map(|(&first, &last)| (first..=last).collect())
                        .collect(),
                )
            };
            let all: BTreeSet<_> = corners.chunks(2 * rank).flat_map(places).collect();
            format!("{all:?}")
        }
        _ => format!("{selection:?}"),
    };
    mappings
        .iter()
        .map(|m| {
            format!(
                "{} {} {} {}",
                String::from_utf8_lossy(&m.source_file),
                String::from_utf8_lossy(&m.source_dataset),
                one_form(&m.source_selection),
                one_form(&m.virtual_selection)
            )
        })
        .collect()
}

/// The selected places along one axis, where they are limited.
fn places(axis: &HyperslabAxis) -> Option<Vec<u64>> {
    let block = axis.block?;
    let starts = (0..axis.count?).map(|n| axis.start + n * axis.stride);
    Some(starts.flat_map(|start| start..start + block).collect())
}

/// Every combination of places along the axes.
fn elements(axes: Vec<Vec<u64>>) -> BTreeSet<Vec<u64>> {
    let mut elements = BTreeSet::from([Vec::new()]);
    for places in axes {
        let longer = |element: &Vec<u64>| {
            let element = element.clone();
            let one = |&place: &u64| [element.as_slice(), &[place]].concat();
            places.iter().map(one).collect::<Vec<_>>()
        };
        elements = elements.iter().flat_map(longer).collect();
    }
    elements
}

fn native_mappings(reader: &MetaReader, header: &DatasetHeader) -> Vec<Mapping> {
    let (address, index) = virtual_place(header);
    if !address.is_defined() {
        return Vec::new();
    }
    let block = crate::h5::heap::read_object(reader, address, index).unwrap();
    mapping::decode_mappings(&block, address).unwrap()
}

#[test]
fn versions_of_the_real_library() {
    let fixture = Fixture::make(VERSIONED);
    let lines = fixture.lines("list");
    assert!(lines.len() >= 36, "{}", lines.len());
    let mut mapped = 0;
    for line in lines {
        let [name, path, raw_path, elements] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let file = fixture.open(name);
        let reader = file.reader();
        let header = dataset(&file, &reader, path);
        let raw = dataset(&file, &reader, raw_path);
        let library = LibraryFile::open(&fixture.path(name)).unwrap();
        let theirs = library
            .virtual_mappings(ObjectName::Path(path.as_bytes()))
            .unwrap();
        let ours = native_mappings(&reader, &header);
        assert_eq!(comparable(&ours), comparable(&theirs), "{line}");

        let Layout::Chunked { chunk_shape, .. } = &raw.layout else {
            panic!("{line}")
        };
        let shape = header.dataspace.shape();
        let place = virtual_place(&header);
        let form = mapping::read_chunk_map(&reader, place, shape, chunk_shape, raw_path.as_bytes())
            .unwrap();
        let MappingForm::Chunked(map) = form else {
            panic!("{line}: {form:?}")
        };
        assert_eq!(map.len_mapped(), theirs.len() as u64, "{line}");
        mapped += theirs.len();

        let by_header = ObjectName::Header(address_of(&file, &reader, path));
        let start = vec![0; shape.len()];
        let want = fixture.bytes(elements);
        let read = library.read_elements(by_header, &start, shape).unwrap();
        assert_eq!(read, want, "{line}");
        if raw.filters.is_empty() {
            let read = assemble(&file, &raw, shape, chunk_shape, &map);
            assert_eq!(read, want, "{line}");
        }
    }
    assert!(mapped > 300, "{mapped}");
}

/// The elements of a version, put together from its map and the unfiltered chunks.
fn assemble(
    file: &H5File,
    raw: &DatasetHeader,
    shape: &[u64],
    chunk_shape: &[u64],
    map: &mapping::ChunkMap,
) -> Vec<u8> {
    let reader = file.reader();
    let table = read_chunk_index(&reader, raw).unwrap();
    assert!(table.is_stacked());
    let size = raw.datatype.size;
    let len = |axes: &[u64]| usize::try_from(axes.iter().product::<u64>()).unwrap();
    let mut elements = vec![0u8; len(shape) * size];
    for (cell, stored) in map.mapped() {
        let chunk = table.get(stored).unwrap();
        let bytes = reader.read(chunk.address, chunk.stored_bytes).unwrap();
        for (number, element) in bytes.chunks_exact(size).enumerate() {
            let (mut in_chunk, mut in_grid) = (number as u64, cell);
            let (mut at, mut step) = (0, 1);
            let mut inside = true;
            for axis in (0..shape.len()).rev() {
                let grid = map.grid()[axis];
                let place = in_grid % grid * chunk_shape[axis] + in_chunk % chunk_shape[axis];
                inside &= place < shape[axis];
                at += place * step;
                step *= shape[axis];
                in_chunk /= chunk_shape[axis];
                in_grid /= grid;
            }
            if inside {
                let at = usize::try_from(at).unwrap() * size;
                elements[at..at + size].copy_from_slice(element);
            }
        }
    }
    elements
}

/// Virtual datasets that no version has, with every kind of selection, in every format.
const IRREGULAR: &str = r#"
import h5py, numpy as np
U = h5py.h5s.UNLIMITED

def virtual(f, name, shape, maps, maxshape=None):
    space = h5py.h5s.create_simple(shape, maxshape or shape)
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    for target, file, path, source in maps:
        dcpl.set_virtual(target, file, path, source)
    h5py.h5d.create(f.id, name, h5py.h5t.STD_I32LE, space, dcpl)

def slab(shape, start, count, stride=None, block=None, maxshape=None):
    s = h5py.h5s.create_simple(shape, maxshape or shape)
    s.select_hyperslab(start, count, stride, block)
    return s

def everything(shape):
    return h5py.h5s.create_simple(shape)

for name, libver in (("earliest", "earliest"), ("v110", ("v110", "v110")), ("v114", ("v114", "v114")), ("latest", "latest")):
    with h5py.File(name + ".h5", "w", libver=libver) as f:
        f["source"] = np.arange(100, dtype="<i4")
        f["other"] = np.arange(200, 300, dtype="<i4")
        virtual(f, b"strided", (100,), [(slab((100,), (1,), (20,), (5,), (2,)), b".", b"/source", slab((100,), (0,), (40,)))])
        virtual(f, b"all", (100,), [(everything((100,)), b".", b"/source", everything((100,)))])
        two = slab((100,), (0,), (1,), None, (10,))
        two.select_hyperslab((30,), (1,), None, (7,), op=h5py.h5s.SELECT_OR)
        virtual(f, b"blocks", (100,), [(two, b".", b"/source", slab((100,), (3,), (17,)))])
        virtual(f, b"many", (100,), [
            (slab((100,), (10 * i,), (1,), None, (10,)), b"." if i % 2 else b"away.h5", [b"/source", b"/other"][i % 3 == 0],
             slab((100,), (90 - 10 * i,), (1,), None, (10,))) for i in range(10)])
        virtual(f, b"plane", (10, 10), [(slab((10, 10), (0, 0), (10, 5), (1, 2), (1, 1)), b".", b"/source", slab((100,), (0,), (50,)))])
        virtual(f, b"unlimited", (50,), [(slab((50,), (0,), (U,), (2,), (1,), (U,)), b".", b"/grows", slab((25,), (0,), (U,), (1,), (1,), (U,)))], (U,))
        virtual(f, b"printf", (50,), [(slab((50,), (0,), (U,), (10,), (10,), (U,)), b"file%b.h5", b"/part", everything((10,)))], (U,))
        far = 1 << 40
        virtual(f, b"far", (far + 10,), [(slab((far + 10,), (far,), (1,), None, (10,)), b".", b"/source", slab((100,), (7,), (1,), None, (10,)))])
        virtual(f, b"without", (9,), [])
"#;

#[test]
fn mappings_of_every_kind_and_format() {
    let fixture = Fixture::make(IRREGULAR);
    let mut versions = Vec::new();
    for name in ["earliest.h5", "v110.h5", "v114.h5", "latest.h5"] {
        let file = fixture.open(name);
        let reader = file.reader();
        let library = LibraryFile::open(&fixture.path(name)).unwrap();
        for path in [
            "strided",
            "all",
            "blocks",
            "many",
            "plane",
            "unlimited",
            "printf",
            "far",
        ] {
            let header = dataset(&file, &reader, path);
            let theirs = library
                .virtual_mappings(ObjectName::Path(path.as_bytes()))
                .unwrap();
            assert!(!theirs.is_empty());
            let ours = native_mappings(&reader, &header);
            assert_eq!(comparable(&ours), comparable(&theirs), "{name} {path}");
            let (address, index) = virtual_place(&header);
            let block = crate::h5::heap::read_object(&reader, address, index).unwrap();
            versions.push(block[0]);
            let shape = header.dataspace.shape();
            let chunk = vec![10; shape.len()];
            let form =
                mapping::decode_chunk_map(&block, address, shape, &chunk, b"/other").unwrap();
            assert_eq!(form, MappingForm::Irregular(ours), "{name} {path}");
        }
    }
    assert!(
        versions.contains(&0) && versions.contains(&1),
        "{versions:?}"
    );
}

#[test]
fn elements_that_only_the_library_decodes() {
    let fixture = Fixture::make(
        r#"
import h5py, numpy as np
with h5py.File("f.h5", "w") as f:
    f.create_dataset("scaled", data=np.arange(70, 1070, dtype="<i4").reshape(50, 20), chunks=(8, 8), scaleoffset=0)
    f["scaled"][...].tofile("scaled")
    f.create_dataset("text", data=["a", "b"], dtype=h5py.string_dtype())
    f.create_dataset("nested", (3,), dtype=[("a", "i4"), ("b", h5py.string_dtype())])
    f["pointer"] = np.array([f["text"].ref], dtype=h5py.ref_dtype)
    f["scalar"] = np.float64(1.5)
    f["compound"] = np.array([(1, b"xy"), (2, b"z")], dtype=[("n", ">u2"), ("s", "S3")])
    f.create_group("group")
"#,
    );
    let library = LibraryFile::open(&fixture.path("f.h5")).unwrap();
    let path = ObjectName::Path;
    let whole = fixture.bytes("scaled");
    let read = |start, shape| library.read_elements(path(b"scaled"), start, shape);
    assert_eq!(read(&[0, 0], &[50, 20]).unwrap(), whole);
    let rows: Vec<u8> = (3..6)
        .flat_map(|row| whole[(row * 20 + 5) * 4..][..28].to_vec())
        .collect();
    assert_eq!(read(&[3, 5], &[3, 7]).unwrap(), rows);
    assert!(read(&[3, 5], &[0, 7]).unwrap().is_empty());
    assert_eq!(
        library.read_elements(path(b"scalar"), &[], &[]).unwrap(),
        1.5f64.to_le_bytes()
    );
    let compound = library
        .read_elements(path(b"compound"), &[0], &[2])
        .unwrap();
    assert_eq!(compound, b"\x00\x01xy\x00\x00\x02z\x00\x00");

    let why = |result: Result<Vec<u8>, H5Error>| match result {
        Err(H5Error::Library { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        why(read(&[0, 0], &[51, 20])),
        "the box is not inside the dataset"
    );
    assert_eq!(
        why(read(&[u64::MAX, 0], &[2, 1])),
        "the box is not inside the dataset"
    );
    assert_eq!(why(read(&[0], &[1])), "the box has another number of axes");
    assert_eq!(why(read(&[0, 0], &[u64::MAX, 9])), "the box is too large");
    for name in [b"text".as_slice(), b"nested", b"pointer"] {
        let read = library.read_elements(path(name), &[0], &[1]);
        assert_eq!(why(read), "the elements hold pointers");
    }
    let read = library.read_elements(path(b"group"), &[], &[]);
    assert_eq!(why(read), "the object is not a dataset");
    let read = library.read_elements(path(b"missing"), &[], &[]);
    assert!(why(read).contains("doesn't exist"));
    assert!(
        library
            .read_elements(ObjectName::Header(Address(3)), &[], &[])
            .is_err()
    );
    assert!(library.virtual_mappings(path(b"scaled")).is_err());
    assert!(library.stored_chunks(path(b"scalar")).is_err());
}

#[test]
fn files_that_do_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| match LibraryFile::open(&directory.path().join(name)) {
        Err(H5Error::Library { action, message }) => (action, message),
        other => panic!("{other:?}"),
    };
    let (action, message) = open("missing.h5");
    assert_eq!(action, "open the file");
    assert!(message.contains("No such file"), "{message}");
    std::fs::write(directory.path().join("text"), "no HDF5").unwrap();
    assert!(open("text").1.contains("signature"));
    assert_eq!(open("with\0nul").1, "a name with a NUL");
}
