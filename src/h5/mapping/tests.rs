use proptest::prelude::*;

use super::selection::tests::{encode_regular, encode_v1};
use super::*;
use crate::h5::lookup3;

const SOURCE: &[u8] = b"/_version_data/group/values/raw_data";

/// How the two selections of a mapping are written.
type Encode = fn(&[(u64, u64)]) -> Vec<u8>;

fn encode_v3(axes: &[(u64, u64)]) -> Vec<u8> {
    let axes: Vec<_> = axes
        .iter()
        .map(|&(start, len)| [start, len, 1, len])
        .collect();
    encode_regular(3, 8, &axes)
}

/// A block around its entries, with the right checksum.
fn seal(version: u8, len: usize, entries: &[u8]) -> Vec<u8> {
    let mut block = vec![version];
    block.extend((len as u64).to_le_bytes());
    block.extend_from_slice(entries);
    reseal(block)
}

fn reseal(mut body: Vec<u8>) -> Vec<u8> {
    body.extend(lookup3(&body).to_le_bytes());
    body
}

/// `(source box, virtual box)`.
type Boxes = (Vec<(u64, u64)>, Vec<(u64, u64)>);

fn block_v0(file: &[u8], dataset: &[u8], mappings: &[Boxes], encode: Encode) -> Vec<u8> {
    let mut entries = Vec::new();
    for (source, target) in mappings {
        for name in [file, dataset] {
            entries.extend_from_slice(name);
            entries.push(0);
        }
        entries.extend(encode(source));
        entries.extend(encode(target));
    }
    seal(0, mappings.len(), &entries)
}

/// The boxes that versioned-hdf5 would write for these cells of the grid.
fn boxes(shape: &[u64], chunk: &[u64], mapped: &[(u64, u64)]) -> Vec<Boxes> {
    let grid: Vec<u64> = shape
        .iter()
        .zip(chunk)
        .map(|(s, c)| s.div_ceil(*c))
        .collect();
    let mut boxes = Vec::new();
    for &(cell, stored) in mapped {
        let mut rest = cell;
        let mut target = vec![(0, 0); shape.len()];
        for axis in (0..shape.len()).rev() {
            let start = rest % grid[axis] * chunk[axis];
            rest /= grid[axis];
            target[axis] = (start, chunk[axis].min(shape[axis] - start));
        }
        let mut source: Vec<_> = target.iter().map(|&(_, len)| (0, len)).collect();
        source[0].0 = stored * chunk[0];
        boxes.push((source, target));
    }
    boxes
}

fn decode(block: &[u8], shape: &[u64], chunk: &[u64]) -> Result<MappingForm, H5Error> {
    decode_chunk_map(block, Address(4096), shape, chunk, SOURCE)
}

fn what(result: Result<MappingForm, H5Error>) -> &'static str {
    match result {
        Err(H5Error::Damaged { what, .. } | H5Error::Unsupported { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

fn mapped(form: &MappingForm) -> Vec<(u64, u64)> {
    match form {
        MappingForm::Chunked(map) => map.mapped().collect(),
        MappingForm::Irregular(mappings) => panic!("irregular: {mappings:?}"),
    }
}

fn irregular(form: MappingForm) -> Vec<Mapping> {
    match form {
        MappingForm::Irregular(mappings) => mappings,
        MappingForm::Chunked(map) => panic!("chunked: {map:?}"),
    }
}

#[test]
fn chunks_of_an_array_with_edges() {
    let (shape, chunk) = ([10, 7], [4, 3]);
    let cells = [(0, 5), (1, 0), (2, 6), (4, 2), (8, 3)];
    for encode in [encode_v1 as Encode, encode_v3] {
        for file in [b".".as_slice(), b"", b"some/old name.h5"] {
            let block = block_v0(file, SOURCE, &boxes(&shape, &chunk, &cells), encode);
            let form = decode(&block, &shape, &chunk).unwrap();
            assert_eq!(mapped(&form), cells);
        }
    }
}

#[test]
fn a_block_without_entries() {
    let block = seal(0, 0, &[]);
    assert_eq!(mapped(&decode(&block, &[5], &[2]).unwrap()), []);
    assert_eq!(mapped(&decode(&block, &[0], &[2]).unwrap()), []);
}

#[test]
fn outside_the_version_data_the_file_name_counts() {
    let boxes = boxes(&[10], &[4], &[(0, 1), (2, 0)]);
    let map = |file: &[u8]| {
        let block = block_v0(file, b"/other", &boxes, encode_v1);
        decode_chunk_map(&block, Address(0), &[10], &[4], b"/other").unwrap()
    };
    assert_eq!(mapped(&map(b".")), [(0, 1), (2, 0)]);
    let mappings = irregular(map(b"elsewhere.h5"));
    assert_eq!(mappings.len(), 2);
    assert_eq!(&*mappings[1].source_file, b"elsewhere.h5");
    assert_eq!(&*mappings[1].source_dataset, b"/other");
    assert_eq!(mappings[1].source_selection.as_box(), Some(vec![(0, 2)]));
    assert_eq!(mappings[1].virtual_selection.as_box(), Some(vec![(8, 2)]));
}

/// What makes the boxes of one mapping something else than one chunk.
type Change = fn(&mut Boxes);

#[test]
fn whatever_is_not_one_chunk_is_irregular() {
    let (shape, chunk) = ([10, 6], [4, 3]);
    let sound = boxes(&shape, &chunk, &[(0, 0), (5, 1)]);
    let changes: [Change; 8] = [
        |(_, target)| target[0].0 = 4,
        |(_, target)| target[0].0 = 9,
        |(_, target)| target[1].0 = 6,
        |(_, target)| target[1].1 = 2,
        |(source, _)| source[0].0 = 2,
        |(source, _)| source[0].1 = 4,
        |(source, _)| source[1].0 = 1,
        |(source, target)| {
            source[1] = (0, 1);
            target[1] = (3, 1);
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut altered = sound.clone();
        change(&mut altered[1]);
        let block = block_v0(b".", SOURCE, &altered, encode_v1);
        let mappings = irregular(decode(&block, &shape, &chunk).unwrap());
        let decoded: Vec<Boxes> = mappings
            .iter()
            .map(|m| {
                (
                    m.source_selection.as_box().unwrap(),
                    m.virtual_selection.as_box().unwrap(),
                )
            })
            .collect();
        assert_eq!(decoded, altered, "change {number}");
    }
    // One cell twice, another source, another rank.
    let twice = boxes(&shape, &chunk, &[(3, 0), (3, 1)]);
    let block = block_v0(b".", SOURCE, &twice, encode_v1);
    assert_eq!(irregular(decode(&block, &shape, &chunk).unwrap()).len(), 2);
    let block = block_v0(b".", b"/_version_data/b/raw_data", &sound, encode_v1);
    assert_eq!(irregular(decode(&block, &shape, &chunk).unwrap()).len(), 2);
    let block = block_v0(b".", SOURCE, &boxes(&[4], &[4], &[(0, 0)]), encode_v1);
    assert_eq!(irregular(decode(&block, &shape, &chunk).unwrap()).len(), 1);
}

#[test]
fn a_huge_sparse_array_costs_what_it_maps() {
    let (shape, chunk) = ([4_000_000_000_000, 10], [4, 10]);
    let cells = [(3, 0), (500_000_000_000, 2), (999_999_999_999, 1)];
    let block = block_v0(b".", SOURCE, &boxes(&shape, &chunk, &cells), encode_v3);
    match decode(&block, &shape, &chunk).unwrap() {
        MappingForm::Chunked(map) => {
            assert_eq!(map.mapped().collect::<Vec<_>>(), cells);
            assert!(map.heap_bytes() < 256);
        }
        MappingForm::Irregular(_) => panic!("irregular"),
    }
}

/// Entries of version 1: flags, then what the flags leave to be written.
fn entry_v1(flags: u8, file: &[u8], dataset: &[u8], boxes: &Boxes) -> Vec<u8> {
    let mut entry = vec![flags];
    entry.extend_from_slice(file);
    entry.extend_from_slice(dataset);
    entry.extend(encode_v3(&boxes.0));
    entry.extend(encode_v3(&boxes.1));
    entry
}

#[test]
fn shared_names_of_version_1() {
    let boxes = boxes(&[12], &[4], &[(0, 2), (1, 0), (2, 1)]);
    let source = [SOURCE, &[0]].concat();
    let origin = 0u64.to_le_bytes();
    let entries = |second: Vec<u8>| {
        [
            entry_v1(flag::SAME_FILE, &[], &source, &boxes[0]),
            second,
            entry_v1(
                flag::SAME_FILE | flag::DATASET_SHARED,
                &[],
                &origin,
                &boxes[2],
            ),
        ]
        .concat()
    };
    let shared = entry_v1(
        flag::FILE_SHARED | flag::DATASET_SHARED,
        &origin,
        &origin,
        &boxes[1],
    );
    let block = seal(1, 3, &entries(shared));
    let form = decode(&block, &[12], &[4]).unwrap();
    assert_eq!(mapped(&form), [(0, 2), (1, 0), (2, 1)]);
    let in_full = decode_mappings(&block, Address(0)).unwrap();
    assert!(
        in_full
            .iter()
            .all(|m| *m.source_file == *b"." && *m.source_dataset == *SOURCE)
    );

    let other = entry_v1(0, b"f\0", b"/other\0", &boxes[1]);
    let mappings = irregular(decode(&seal(1, 3, &entries(other)), &[12], &[4]).unwrap());
    assert_eq!(&*mappings[1].source_file, b"f");
    assert_eq!(&*mappings[1].source_dataset, b"/other");
    assert_eq!(&*mappings[2].source_dataset, SOURCE);

    let later = 1u64.to_le_bytes();
    let own = entry_v1(flag::FILE_SHARED, &later, &source, &boxes[1]);
    let block = seal(1, 3, &entries(own));
    let expected = "an entry shares a name with a later one";
    assert_eq!(what(decode(&block, &[12], &[4])), expected);
    assert!(decode_mappings(&block, Address(0)).is_err());
    let unknown = entry_v1(8, b".\0", &source, &boxes[1]);
    let block = seal(1, 3, &entries(unknown));
    assert_eq!(
        what(decode(&block, &[12], &[4])),
        "an entry has unknown flags"
    );
}

#[test]
fn damage_is_named() {
    let cells: Vec<(u64, u64)> = (0..3).map(|i| (i, i)).collect();
    let block = block_v0(b".", SOURCE, &boxes(&[12], &[4], &cells), encode_v1);
    let body = &block[..block.len() - 4];
    assert_eq!(mapped(&decode(&block, &[12], &[4]).unwrap()), cells);
    for at in 0..block.len() {
        let mut flipped = block.clone();
        flipped[at] ^= 1 << (at % 8);
        let expected = "its checksum does not match";
        assert_eq!(what(decode(&flipped, &[12], &[4])), expected);
    }
    for cut in 0..body.len() {
        assert!(decode(&reseal(body[..cut].to_vec()), &[12], &[4]).is_err());
    }
    let longer = reseal([body, &[0]].concat());
    assert_eq!(
        what(decode(&longer, &[12], &[4])),
        "it is longer than its entries"
    );
    let mut claims = body.to_vec();
    claims[1..9].fill(0xff);
    assert_eq!(
        what(decode(&reseal(claims), &[12], &[4])),
        "it claims more entries than there is room for"
    );
    let mut version = body.to_vec();
    version[0] = 2;
    assert_eq!(
        what(decode(&reseal(version), &[12], &[4])),
        "its version is neither 0 nor 1"
    );
    let no_grid = "its dataset has no chunk grid that can be counted";
    assert_eq!(what(decode(&block, &[12, 1], &[4])), no_grid);
    assert_eq!(what(decode(&block, &[12], &[0])), no_grid);
}

proptest! {
    /// Whatever a block says under a right checksum, decoding it ends, and what it takes for chunks is inside the grid.
    #[test]
    fn flipped_bytes_never_panic(
        changes in prop::collection::vec((0..400usize, any::<u8>()), 1..6),
        version_1 in any::<bool>(),
    ) {
        let cells = [(0, 3), (1, 0), (2, 2), (3, 1)];
        let sound = boxes(&[7, 5], &[4, 3], &cells);
        let mut block = if version_1 {
            let source = [SOURCE, &[0]].concat();
            let shared = flag::SAME_FILE | flag::DATASET_SHARED;
            let mut entries = entry_v1(flag::SAME_FILE, &[], &source, &sound[0]);
            for boxes in &sound[1..] {
                entries.extend(entry_v1(shared, &[], &0u64.to_le_bytes(), boxes));
            }
            seal(1, sound.len(), &entries)
        } else {
            block_v0(b".", SOURCE, &sound, encode_v1)
        };
        block.truncate(block.len() - 4);
        for (at, byte) in changes {
            let at = at % block.len();
            block[at] ^= byte;
        }
        if let Ok(MappingForm::Chunked(map)) = decode(&reseal(block), &[7, 5], &[4, 3]) {
            prop_assert!(map.mapped().all(|(cell, _)| cell < 4));
        }
    }

    /// Any subset of the cells of any grid comes back as it was written.
    #[test]
    fn round_trip(
        axes in prop::collection::vec((1u64..40, 1u64..12), 1..4),
        keep in prop::collection::vec(any::<bool>(), 1..64),
    ) {
        let (shape, chunk): (Vec<u64>, Vec<u64>) = axes.into_iter().unzip();
        let cells: u64 = shape.iter().zip(&chunk).map(|(s, c)| s.div_ceil(*c)).product();
        let mut kept = keep.iter().cycle();
        let written: Vec<(u64, u64)> = (0..cells)
            .filter(|_| *kept.next().unwrap())
            .map(|cell| (cell, cell * 7 % 31))
            .collect();
        let block = block_v0(b".", SOURCE, &boxes(&shape, &chunk, &written), encode_v1);
        prop_assert_eq!(mapped(&decode(&block, &shape, &chunk).unwrap()), written);
    }
}

#[test]
fn digests_and_comparison_of_stored_blocks() {
    let cells: Vec<(u64, u64)> = (0..3000).map(|i| (i, i)).collect();
    let same = block_v0(b".", SOURCE, &boxes(&[12_000], &[4], &cells), encode_v1);
    let mut other = same[..same.len() - 4].to_vec();
    other[150_000] ^= 1;
    let other = reseal(other);
    let short = seal(0, 0, &[]);

    // Collections at 0, 1, 2 and 3 times this, each with one block as object 1.
    let collection_bytes = 400_000;
    let mut file = Vec::new();
    for block in [&same, &same, &other, &short] {
        let start = file.len();
        file.extend(b"GCOL\x01\0\0\0");
        file.extend((collection_bytes as u64).to_le_bytes());
        file.extend([1, 0, 1, 0, 0, 0, 0, 0]);
        file.extend((block.len() as u64).to_le_bytes());
        file.extend_from_slice(block);
        file.resize(file.len().next_multiple_of(8), 0);
        let free_bytes = start + collection_bytes - file.len();
        file.extend([0; 8]);
        file.extend((free_bytes as u64).to_le_bytes());
        file.resize(start + collection_bytes, 0);
    }
    let len = file.len() as u64;
    let reader = MetaReader::new(Arc::new(file), 0, len);
    let at = |number: u64| (Address(number * collection_bytes as u64), 1);

    let checksum = u32::from_le_bytes(*same.last_chunk().unwrap());
    let digest = {
        let (start, len_bytes) = heap::find_object(&reader, at(1).0, 1).unwrap();
        block_digest(&reader, at(1).0, start, len_bytes).unwrap()
    };
    assert_eq!(digest, (same.len() as u64, checksum));
    let equal = |a, b| blocks_equal(&reader, a, b).unwrap();
    assert!(equal(at(0), at(0)));
    assert!(equal(at(0), at(1)));
    assert!(!equal(at(0), at(2)));
    assert!(!equal(at(0), at(3)));
    let none = (Address::UNDEFINED, 0);
    assert!(equal(none, (Address::UNDEFINED, 3)));
    assert!(!equal(none, at(0)));
    assert!(blocks_equal(&reader, at(0), (Address(0), 2)).is_err());

    let map = read_chunk_map(&reader, at(1), &[12_000], &[4], SOURCE).unwrap();
    assert_eq!(mapped(&map), cells);
    let map = read_chunk_map(&reader, none, &[12_000], &[4], SOURCE).unwrap();
    assert_eq!(mapped(&map), []);
}

/// What a block of hundreds of kilobytes, read from a file piece by piece, is decoded to.
fn read_from_file(block: &[u8], shape: &[u64], chunk: &[u64]) -> Result<Option<ChunkMap>, H5Error> {
    let bytes = [b"before it", block, b"behind it"].concat();
    let len_bytes = bytes.len() as u64;
    let reader = MetaReader::new(Arc::new(bytes), 0, len_bytes);
    let place = (Address(9), block.len() as u64);
    read_long(&reader, place, Address(9), shape, chunk, SOURCE)
}

#[test]
fn a_long_block_is_decoded_as_it_is_read() {
    let (shape, chunk) = ([60_000, 3], [10, 3]);
    let cells: Vec<(u64, u64)> = (0..6000).map(|cell| (cell, cell * 7 % 6000)).collect();
    let other = boxes(&[70_000, 3], &chunk, &cells);
    for (encode, file) in [(encode_v1 as Encode, &b"."[..]), (encode_v3, b"old.h5")] {
        let block = block_v0(file, SOURCE, &boxes(&shape, &chunk, &cells), encode);
        assert!(block.len() > 2 * 256 * 1024, "several pieces");
        let map = read_from_file(&block, &shape, &chunk).unwrap().unwrap();
        assert_eq!(
            MappingForm::Chunked(map),
            decode(&block, &shape, &chunk).unwrap()
        );

        // Entries of two kinds in turn, so that none is like the one before it.
        let mut mixed = Vec::new();
        for (at, pair) in boxes(&shape, &chunk, &cells).iter().enumerate() {
            let encode = if at % 2 == 0 { encode_v1 } else { encode_v3 };
            let single = block_v0(file, SOURCE, std::slice::from_ref(pair), encode);
            mixed.extend_from_slice(&single[HEADER_BYTES..single.len() - 4]);
        }
        let mixed = seal(0, cells.len(), &mixed);
        let map = read_from_file(&mixed, &shape, &chunk).unwrap().unwrap();
        assert_eq!(
            MappingForm::Chunked(map),
            decode(&mixed, &shape, &chunk).unwrap()
        );

        let mut wrong = block.clone();
        wrong[block.len() / 2] ^= 1;
        let found =
            read_from_file(&wrong, &shape, &chunk).map(|_| MappingForm::Irregular(Vec::new()));
        assert_eq!(what(found), "its checksum does not match");
        let body = &block[..block.len() - 4];
        let long = reseal([body, b"more"].concat());
        let short = reseal(body[..body.len() - 1].to_vec());
        let elsewhere = block_v0(file, SOURCE, &other, encode);
        for not_chunks in [long, short, elsewhere] {
            let narrow = [59_990, 3];
            assert!(
                read_from_file(&not_chunks, &narrow, &chunk)
                    .unwrap()
                    .is_none()
            );
        }
    }
}
