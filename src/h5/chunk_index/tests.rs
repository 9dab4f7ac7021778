//! The library is the oracle: for files of every index and format bound, its list of chunks is ours.

use std::sync::Arc;

use super::*;
use crate::h5::fixture::{Fixture, dataset};
use crate::h5::library::{LibraryFile, ObjectName};
use crate::h5::{H5File, lookup3};

/// Makes `earliest.h5`, `v110.h5`, `v114.h5`, `latest.h5` and `userblock.h5`, and lists their datasets in `names`.
const INDEXES: &str = r#"
import h5py, numpy as np

def low(f, name, shape, chunks, maxshape=None, alloc=None):
    space = h5py.h5s.create_simple(shape, maxshape or shape)
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_chunk(chunks)
    if alloc is not None:
        dcpl.set_alloc_time(alloc)
    h5py.h5d.create(f.id, name, h5py.h5t.STD_I32LE, space, dcpl)
    return f[name.decode()]

def fill(d, step=1):
    d[...] = np.arange(d.size, dtype=d.dtype).reshape(d.shape)

def make(f):
    for suffix, extra in (("", {}), ("_gzip", {"compression": "gzip", "shuffle": True})):
        def new(name, shape, chunks, maxshape):
            return f.create_dataset(name + suffix, shape, "<i4", chunks=chunks, maxshape=maxshape, **extra)
        fill(new("stack", (3000, 3), (4, 3), (None, 3)))
        fill(new("deep", (3000, 2), (1, 2), (None, 2)))
        new("never", (100, 3), (4, 3), (None, 3))
        new("empty", (0, 3), (4, 3), (None, 3))
        holes = new("holes", (400000,), (2,), (None,))
        for at in (0, 1, 9, 5000, 262200, 262300, 300000, 399999):
            holes[at] = at
        fill(new("second_axis", (5, 40), (2, 3), (9, None)))
        fill(new("last_axis", (3, 5, 41), (2, 2, 3), (4, 7, None)))
        fill(new("fixed", (100, 30), (7, 4), None))
        fill(new("fixed_growing", (20, 30), (7, 4), (50, 60)))
        pages = new("pages", (6000,), (2,), None)
        pages[0:100] = 1
        pages[4500:] = 2
        new("fixed_never", (6000,), (2,), None)
        fill(new("plane", (150, 60), (3, 2), (None, None)))
        plane = new("plane_holes", (100, 100), (3, 2), (None, None))
        plane[50:60, 3] = 1
        new("plane_never", (10, 10), (3, 2), (None, None))
        fill(new("single", (5, 7), (5, 7), None))
        new("single_never", (5, 7), (5, 7), None)
    early = h5py.h5d.ALLOC_TIME_EARLY
    fill(low(f, b"implicit", (20, 30), (7, 4), None, early))
    fill(low(f, b"implicit_growing", (20, 30), (7, 4), (50, 60), early))
    low(f, b"early_stack", (40, 3), (4, 3), (h5py.h5s.UNLIMITED, 3), early)
    shrunk = f.create_dataset("shrunk", (90, 5), "<i4", chunks=(4, 5), maxshape=(None, 5))
    fill(shrunk)
    shrunk.resize((30, 5))

names = open("names", "w")
for name, libver, block in (("earliest", "earliest", 0), ("v110", ("v110", "v110"), 0), ("v114", ("v114", "v114"), 0),
                            ("latest", "latest", 0), ("userblock", "earliest", 1024), ("userblock_latest", "latest", 2048)):
    extra = {"userblock_size": block} if block else {}
    with h5py.File(name + ".h5", "w", libver=libver, **extra) as f:
        make(f)
        for dataset in f:
            print(name + ".h5", dataset, file=names)
"#;

/// Each chunk of the table as the library lists it: offset of its first element, and where it is.
fn listed(table: &ChunkTable, chunk_shape: &[u64]) -> Vec<(Vec<u64>, StoredChunk)> {
    let with_offset = |(cell, chunk)| {
        let mut rest: u64 = cell;
        let mut offset = vec![0; chunk_shape.len()];
        for axis in (0..chunk_shape.len()).rev() {
            offset[axis] = rest % table.grid()[axis] * chunk_shape[axis];
            rest /= table.grid()[axis];
        }
        (offset, chunk)
    };
    table.stored().map(with_offset).collect()
}

fn chunk_shape(header: &DatasetHeader) -> Vec<u64> {
    match &header.layout {
        Layout::Chunked { chunk_shape, .. } => chunk_shape.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_index_lists_the_chunks_that_the_library_lists() {
    let fixture = Fixture::make(INDEXES);
    let mut kinds = std::collections::BTreeSet::new();
    let mut chunks = 0;
    for line in fixture.lines("names") {
        let (name, path) = line.split_once(' ').unwrap();
        let file = fixture.open(name);
        let reader = file.reader();
        let header = dataset(&file, &reader, path);
        let table = read_chunk_index(&reader, &header).unwrap_or_else(|e| panic!("{line}: {e}"));
        let library = LibraryFile::open(&fixture.path(name)).unwrap();
        let mut want = library
            .stored_chunks(ObjectName::Path(path.as_bytes()))
            .unwrap();
        want.sort_by(|a, b| a.0.cmp(&b.0));
        if path.starts_with("last_axis") || path.starts_with("second_axis") {
            // The library's own list gives wrong offsets where the unlimited axis is not the first (it counts in C order);
            // which chunks there are is right, and the offsets are checked by the elements below.
            let mut ours: Vec<_> = table.stored().map(|(_, chunk)| chunk.address).collect();
            let mut theirs: Vec<_> = want.iter().map(|(_, chunk)| chunk.address).collect();
            ours.sort_unstable();
            theirs.sort_unstable();
            assert_eq!(ours, theirs, "{line}");
        } else {
            assert_eq!(listed(&table, &chunk_shape(&header)), want, "{line}");
        }
        if table.is_stacked() {
            check_extension(&reader, &header, &table, &line);
        }
        if header.filters.is_empty() {
            check_elements(&file, &header, &table, &library, path);
        }
        if let Layout::Chunked { index, .. } = &header.layout {
            kinds.insert(format!("{index:?}").split(' ').next().unwrap().to_owned());
        }
        chunks += table.len_stored();
    }
    let all = [
        "BTreeV1",
        "BTreeV2",
        "ExtensibleArray",
        "FixedArray",
        "Implicit",
        "SingleChunk",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    assert!(chunks > 50_000, "{chunks}");
}

/// The first element of each stored chunk is the one that the library reads there.
/// However many of its chunks were known before, the table is the one that is read at once.
fn check_extension(reader: &MetaReader, header: &DatasetHeader, table: &ChunkTable, line: &str) {
    for known in [0, 1, 2, 63, 64, 65, 700, 1500, 2999, 3000, 131_070, 200_000] {
        let earlier = read_part(reader, header, 0..known, BeyondEnd::Refused).unwrap();
        if let Layout::Chunked {
            index: ChunkIndexKind::BTreeV1 { .. },
            ..
        } = header.layout
        {
            let wanted = table.stored().filter(|(cell, _)| *cell < known);
            assert!(earlier.stored().eq(wanted), "{line} to {known}");
        }
        let extended = extend_chunk_index(reader, header, &earlier);
        let extended = extended.unwrap_or_else(|e| panic!("{line} from {known}: {e}"));
        assert_eq!(extended, *table, "{line} from {known}");
    }
}

fn check_elements(
    file: &H5File,
    header: &DatasetHeader,
    table: &ChunkTable,
    library: &LibraryFile,
    path: &str,
) {
    let shape = header.dataspace.shape();
    if table.len_stored() == 0 || table.len_cells() > 10_000 {
        return;
    }
    let start = vec![0; shape.len()];
    let elements = library
        .read_elements(ObjectName::Path(path.as_bytes()), &start, shape)
        .unwrap();
    let reader = file.reader();
    for (offset, chunk) in listed(table, &chunk_shape(header)) {
        let element = offset
            .iter()
            .zip(shape)
            .fold(0, |n, (at, len)| n * len + at);
        let at = usize::try_from(element).unwrap() * 4;
        let first = reader.read(chunk.address, 4).unwrap();
        assert_eq!(*first, elements[at..at + 4], "{path} {offset:?}");
    }
}

/// A file with one dataset for each index, small enough for thousands of damaged copies.
const SMALL: &str = r#"
import h5py, numpy as np
for name, libver in (("earliest", "earliest"), ("latest", "latest")):
    with h5py.File(name + ".h5", "w", libver=libver) as f:
        def new(name, shape, maxshape, **extra):
            d = f.create_dataset(name, shape, "u1", chunks=(1,) * len(shape), maxshape=maxshape, **extra)
            d[...] = 1
        new("stack", (300,), (None,))
        new("gzip", (150,), (None,), compression="gzip")
        new("plane", (10, 12), (None, None))
        new("fixed", (100,), None)
        new("pages", (1500,), None)
"#;

/// Whatever single bit is flipped, in metadata or elsewhere: an error, or chunks inside the grid and the file. Where the flipped
/// structure has a checksum, that is made right again for half of the flips, so that what lies behind it is tried too.
#[test]
fn flipped_bits_never_panic() {
    let fixture = Fixture::make(SMALL);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let high = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % below
    };
    let (mut refused, mut read) = (0, 0);
    for name in ["earliest.h5", "latest.h5"] {
        let sound = fixture.bytes(name);
        let file = fixture.open(name);
        let headers: Vec<_> = ["stack", "gzip", "plane", "fixed", "pages"]
            .map(|path| dataset(&file, &file.reader(), path))
            .into();
        let places: Vec<_> = structures(&sound);
        assert!(places.len() > 5, "{name}: {}", places.len());
        for round in 0..6000 {
            let mut bytes = sound.clone();
            let (start, len) = places[random(places.len())];
            let at = start + random(len);
            bytes[at] ^= 1 << random(8);
            if round % 2 == 0 {
                let end = start + len;
                let checksum = lookup3(&bytes[start..end]).to_le_bytes();
                bytes[end..end + 4].copy_from_slice(&checksum);
            }
            let len = bytes.len() as u64;
            let reader = MetaReader::new(Arc::new(bytes), 0, len);
            for header in &headers {
                match read_chunk_index(&reader, header) {
                    Err(_) => refused += 1,
                    Ok(table) => {
                        read += 1;
                        for (cell, chunk) in table.stored() {
                            assert!(cell < table.len_cells());
                            reader
                                .file_offset(chunk.address, chunk.stored_bytes)
                                .unwrap();
                        }
                    }
                }
            }
        }
    }
    assert!(
        refused > 1000 && read > 1000,
        "{refused} refused, {read} read"
    );
}

/// Where index structures begin, and how many bytes come before their checksum (for B-trees of version 1, which have none, some
/// that are in use).
fn structures(bytes: &[u8]) -> Vec<(usize, usize)> {
    let signatures: [&[u8]; 9] = [
        b"TREE\x01",
        b"FAHD",
        b"FADB",
        b"EAHD",
        b"EAIB",
        b"EASB",
        b"EADB",
        b"BTHD",
        b"BTLF",
    ];
    let mut places = Vec::new();
    for start in 0..bytes.len() - 8 {
        let rest = &bytes[start..];
        if !signatures
            .iter()
            .any(|signature| rest.starts_with(signature))
        {
            continue;
        }
        // The checksum is the first that fits.
        let fits = (8..rest.len() - 4)
            .take(20_000)
            .find(|&len| rest[len..len + 4] == lookup3(&rest[..len]).to_le_bytes());
        match fits {
            Some(len) => places.push((start, len)),
            None => places.push((start, 600.min(rest.len() - 4))),
        }
    }
    places
}

#[test]
fn a_dataset_without_chunks_has_no_table() {
    let fixture = Fixture::make(
        "import h5py\nwith h5py.File('f.h5', 'w') as f:\n    f['contiguous'] = [1, 2, 3]\n",
    );
    let file = fixture.open("f.h5");
    let reader = file.reader();
    let header = dataset(&file, &reader, "contiguous");
    assert!(matches!(
        read_chunk_index(&reader, &header),
        Err(H5Error::Unsupported { .. })
    ));
}

/// A version 1 B-tree has no checksum, so what contradicts itself must be found by looking.
#[test]
fn contradictions_of_a_tree_without_checksum() {
    let fixture = Fixture::make(SMALL);
    let sound = fixture.bytes("earliest.h5");
    let file = fixture.open("earliest.h5");
    let header = dataset(&file, &file.reader(), "stack");
    let Layout::Chunked {
        index: ChunkIndexKind::BTreeV1 { address },
        ..
    } = header.layout
    else {
        panic!("{header:?}")
    };
    let u64_at = |at: usize| u64::from_le_bytes(sound[at..at + 8].try_into().unwrap());
    // Keys of a stack with one axis have 24 bytes, and follow a header of 24 bytes.
    let root = usize::try_from(address.0).unwrap();
    let child = |node: usize, number: usize| node + 24 + 32 * number + 24;
    assert_eq!(sound[root + 5], 1, "the tree has two levels");
    let leaf = usize::try_from(u64_at(child(root, 0))).unwrap();
    let read = |at: usize, value: u64| {
        let mut bytes = sound.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let len = bytes.len() as u64;
        match read_chunk_index(&MetaReader::new(Arc::new(bytes), 0, len), &header) {
            Err(H5Error::Damaged { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    let neighbours = "its siblings are not its neighbours";
    assert_eq!(read(child(root, 1), leaf as u64), neighbours);
    assert_eq!(read(child(root, 1), u64_at(child(root, 2))), neighbours);
    assert_eq!(read(leaf + 8, root as u64), neighbours);
    assert_eq!(
        read(child(root, 0), address.0),
        "it is not one level below its parent"
    );
    assert_eq!(
        read(child(leaf, 1), u64_at(child(leaf, 0))),
        "two chunks share bytes"
    );
    // The offsets of the second chunk: that of the first again, beyond the dataset, and within an element.
    let offset = child(leaf, 1) - 16;
    assert_eq!(read(offset, 0), "its chunks do not ascend");
    assert_eq!(read(offset, 300), "a chunk is outside the dataset");
    assert_eq!(read(offset + 8, 1), "a chunk begins within an element");
    // Stored length and filter mask.
    assert_eq!(
        read(offset - 8, 2),
        "an unfiltered chunk is of another length"
    );
}

/// A tree of many leaves, which threads read in parts: what contradicts itself is found wherever it is, between two parts too.
#[test]
fn many_leaves_are_held_against_each_other() {
    let chunks = 40_000u64;
    let fixture = Fixture::make(
        "import h5py, numpy as np\nwith h5py.File('f.h5', 'w') as f:\n    \
         d = f.create_dataset('stack', (40000,), 'u1', chunks=(1,), maxshape=(None,))\n    \
         d[...] = np.arange(40000) % 251\n",
    );
    let sound = fixture.bytes("f.h5");
    let file = fixture.open("f.h5");
    let header = dataset(&file, &file.reader(), "stack");
    let read = |bytes: Vec<u8>| {
        let len = bytes.len() as u64;
        read_chunk_index(&MetaReader::new(Arc::new(bytes), 0, len), &header)
    };
    let byte = |address: Address| sound[usize::try_from(address.0).unwrap()];

    let table = read(sound.clone()).unwrap();
    assert_eq!(table.len_stored() as u64, chunks);
    for (number, (cell, chunk)) in table.stored().enumerate() {
        assert_eq!(cell, number as u64);
        assert_eq!(u64::from(byte(chunk.address)), cell % 251);
    }

    // Leaves are nodes of level 0; the first cell of each is behind a header of 24 bytes and a form of 8.
    let u64_at = |at: usize| u64::from_le_bytes(sound[at..at + 8].try_into().unwrap());
    let mut leaves: Vec<usize> = (0..sound.len() - 6)
        .filter(|&at| sound[at..].starts_with(b"TREE\x01\x00"))
        .collect();
    leaves.sort_by_key(|leaf| u64_at(leaf + 32));
    assert!(leaves.len() > 8 * 64, "{}", leaves.len());
    let mut tried: Vec<usize> = (2..=8)
        .flat_map(|parts| (1..parts).map(move |part| (part, parts)))
        .map(|(part, parts)| part * leaves.len().div_ceil(parts))
        .flat_map(|bound| [bound - 1, bound])
        .filter(|&leaf| leaf + 1 < leaves.len())
        .collect();
    tried.sort_unstable();
    tried.dedup();
    for number in tried {
        let (leaf, before) = (leaves[number], leaves[number - 1]);
        for (at, value, wanted) in [
            (leaf + 8, leaf as u64, "its siblings are not its neighbours"),
            (
                leaf + 16,
                leaf as u64,
                "its siblings are not its neighbours",
            ),
            (leaf + 32, u64_at(before + 32), "its chunks do not ascend"),
            (leaf + 32, chunks - 1, "its chunks do not ascend"),
            (leaf + 48, u64_at(before + 48), "two chunks share bytes"),
        ] {
            let mut bytes = sound.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            match read(bytes) {
                Err(H5Error::Damaged { what, .. }) => assert_eq!(what, wanted, "leaf {number}"),
                other => panic!("leaf {number}: {other:?}"),
            }
        }
    }
}
