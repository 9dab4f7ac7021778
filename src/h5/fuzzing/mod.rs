//! The parsers of file structures, as fuzz targets; see [`crate::fuzzing`].

#[cfg(test)]
mod seeds;

use std::collections::BTreeSet;

use crate::fuzzing::Input;
use crate::h5::attribute::RawAttribute;
use crate::h5::btree2::BTree2;
pub(crate) use crate::h5::checksum::testing::with_all_matching;
use crate::h5::chunk_index::read_chunk_index;
use crate::h5::dataset::{decode_fill_value, decode_filters, decode_old_fill_value};
use crate::h5::fractal_heap::FractalHeap;
use crate::h5::group::decode_link;
use crate::h5::heap::{self, HeapReader, VlenReference};
use crate::h5::mapping::{MappingForm, blocks_equal, decode_chunk_map, decode_mappings};
use crate::h5::object_header::SharedMessages;
use crate::h5::symbol_table::SymbolTable;
use crate::h5::writer::MappedShape;
use crate::h5::writer::encode_mapping_block;
use crate::h5::{
    Address, ByteOrder, ChunkIndexKind, Class, DatasetHeader, Dataspace, Datatype, Filter, H5File,
    Layout, Link, Message, MetaReader, ObjectHeader, ObjectKind, attribute_named, attributes,
    find_link_of, links_of, lookup3,
};
#[cfg(test)]
pub(crate) use seeds::{Seed, seeds_of_file};

/// The path of raw data that mappings are expected to lead to.
const SOURCE: &[u8] = b"/_version_data/x/raw_data";

fn message(body: &[u8]) -> Message<'_> {
    Message {
        message_type: 0,
        flags: 0,
        address: Address(0),
        body,
    }
}

/// A file from its first byte.
pub(crate) fn superblock(bytes: &[u8]) {
    let Ok(file) = H5File::open(std::sync::Arc::new(bytes.to_vec())) else {
        return;
    };
    assert!(file.end_of_file() <= file.file_len_bytes());
    assert!(file.base_address() < file.file_len_bytes());
    assert!(file.superblock_version() <= 3);
}

/// An image with a header at its beginning.
pub(crate) fn object_header(bytes: &[u8]) {
    let reader = Input::new(bytes).image();
    let Ok(header) = ObjectHeader::read(&reader, Address(0)) else {
        return;
    };
    for message in header.messages() {
        let _ = message.resolve(&reader);
        if message.body.is_empty() {
            continue;
        }
        // Each message lies in one of the blocks, where its address says.
        let (block, block_bytes) = header.block_around(message.address).expect("a block");
        let end = message.address.0 + message.body.len() as u64;
        assert!(message.address >= block && end <= block.0 + block_bytes);
        let found = reader.read(message.address, message.body.len() as u64);
        assert_eq!(&*found.expect("it was read"), message.body);
    }
    let _ = header.kind();
}

/// The body of a dataspace message.
pub(crate) fn dataspace_message(bytes: &[u8]) {
    if let Ok(dataspace) = Dataspace::decode(bytes, Address(0)) {
        assert!(dataspace.shape().len() <= 32);
        assert_eq!(dataspace.is_empty(), dataspace.len() == Some(0));
    }
}

/// The body of a datatype message.
pub(crate) fn datatype_message(bytes: &[u8]) {
    if let Ok((datatype, used)) = Datatype::decode(bytes, Address(0)) {
        // What it did not use does not matter.
        let again = Datatype::decode(&bytes[..used], Address(0)).expect("all that was used");
        assert_eq!(again, (datatype.clone(), used));
        let _ = datatype.contains_pointers();
    }
}

/// Element size, rank and extents, and then the body of a data layout message.
pub(crate) fn layout_message(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let datatype = Datatype {
        size: usize::from(input.u16()).max(1),
        class: Class::Bitfield {
            order: ByteOrder::Little,
            bit_offset: 0,
            bit_precision: 8,
        },
    };
    let rank = input.u8() % 5;
    let shape: Vec<u64> = (0..rank).map(|_| input.u64()).collect();
    let dataspace = Dataspace::Simple {
        shape: shape.clone(),
        max_shape: Vec::new(),
    };
    if let Ok(Layout::Chunked {
        chunk_shape,
        element_bytes,
        ..
    }) = Layout::decode(&message(input.rest()), &datatype, &dataspace)
    {
        assert_eq!(chunk_shape.len(), shape.len());
        assert_eq!(element_bytes, datatype.size as u64);
        assert!(!chunk_shape.contains(&0));
    }
}

/// The body of a filter pipeline message.
pub(crate) fn filter_message(bytes: &[u8]) {
    if let Ok(filters) = decode_filters(bytes, &message(bytes)) {
        assert!(filters.len() <= 32);
    }
}

/// The body of a fill value message, of either kind.
pub(crate) fn fill_value_message(bytes: &[u8]) {
    for value in [
        decode_fill_value(bytes, &message(bytes)),
        decode_old_fill_value(bytes, &message(bytes)),
    ] {
        if let Ok(Some(value)) = value {
            assert!(!value.is_empty() && value.len() < bytes.len());
        }
    }
}

/// The body of a link message.
pub(crate) fn link_message(bytes: &[u8]) {
    if let Ok(link) = decode_link(bytes, Address(0)) {
        assert!(!link.name.is_empty());
    }
}

/// The body of an attribute message, which is also an image for the headers that it may point to.
pub(crate) fn attribute_message(bytes: &[u8]) {
    let reader = Input::new(bytes).image();
    let Ok(raw) = RawAttribute::split(bytes, Address(0)) else {
        return;
    };
    if let Ok(attribute) = raw.decode(&mut SharedMessages::new(&reader)) {
        let want = attribute.dataspace.len().expect("counted");
        let size = attribute.datatype.size as u64;
        assert_eq!(attribute.data.len() as u64, want * size);
    }
}

/// The addresses of a tree and of a local heap, which begin an image.
pub(crate) fn symbol_table(bytes: &[u8]) {
    let reader = Input::new(bytes).image();
    let body = message(bytes);
    let open = || SymbolTable::open(&reader, &mut body.decoder("symbol table message"));
    let Ok(mut table) = open() else {
        return;
    };
    let mut links = Vec::new();
    let _ = table.walk(&mut |link: Link| links.push(link));
    for name in links
        .iter()
        .map(|link| &link.name[..])
        .take(8)
        .chain([&b"x"[..]])
    {
        if let Ok(Some(found)) = open().and_then(|mut table| table.find(name)) {
            assert_eq!(found.name, name);
        }
    }
}

/// Ids of two objects, the address of the heap, and its image.
pub(crate) fn fractal_heap(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let ids = input.take(16);
    let header = Address(input.u64());
    let reader = input.image();
    if let Ok(mut heap) = FractalHeap::open(&reader, header) {
        for id in [
            &ids[..ids.len().min(7)],
            &ids[..ids.len().min(8)],
            &ids[ids.len() / 2..],
            ids,
        ] {
            let _ = heap.read(id);
            let _ = heap.read(id);
        }
    }
}

/// A tree's type, a wanted byte, the address of the header, and an image.
pub(crate) fn record_btree2(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (tree_type, wanted) = (input.u8(), input.u8());
    let header = Address(input.u64());
    let reader = input.image();
    let Ok(tree) = BTree2::open(&reader, header, tree_type) else {
        return;
    };
    let mut seen = 0;
    let walked = tree.walk(&reader, &mut |record| {
        assert_eq!(record.len(), tree.record_bytes());
        seen += 1;
        Ok(())
    });
    assert!(seen <= tree.len());
    if walked.is_ok() {
        assert_eq!(seen, tree.len());
    }
    let _ = tree.search(
        &reader,
        &mut |record| record[0].cmp(&wanted),
        &mut |record| {
            assert_eq!(record[0], wanted);
            Ok(())
        },
    );
}

/// A stored reference, and an image with a collection at its beginning.
pub(crate) fn global_heap(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut stored = [0; VlenReference::STORED_BYTES];
    let taken = input.take(stored.len());
    stored[..taken.len()].copy_from_slice(taken);
    let reference = VlenReference::decode(&stored);
    let reader = input.image();
    let mut keeping = HeapReader::new(&reader, 1 << 20);
    let mut forgetting = HeapReader::new(&reader, 0);
    for (address, index) in (0..12)
        .map(|index| (Address(0), index))
        .chain([(reference.collection, reference.index)])
    {
        let alone = heap::read_object(&reader, address, index);
        let place = heap::find_object(&reader, address, index);
        assert_eq!(alone.is_ok(), place.is_ok());
        // Who reads a collection as a whole finds at least as much wrong with it.
        for all in [&mut keeping, &mut forgetting] {
            let found = all.find(address, index).ok();
            if let Ok(object) = all.read(address, index) {
                assert_eq!(*object, **alone.as_ref().expect("the same object"));
                assert_eq!(found, place.as_ref().ok().copied());
            }
        }
    }
    for element_bytes in [1, 8] {
        if let Ok(value) = keeping.read_vlen(reference, element_bytes) {
            let want = u64::from(reference.length) * element_bytes as u64;
            assert!(reference.is_empty() || value.len() as u64 == want);
        }
    }
    let _ = blocks_equal(&reader, (Address(0), 1), (Address(0), 2));
}

/// Rank, extents and chunk extents of a virtual dataset, and then its mapping block.
pub(crate) fn mapping_block(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let rank = 1 + usize::from(input.u8() % 3);
    let shape: Vec<u64> = (0..rank).map(|_| input.u64()).collect();
    let chunk_shape: Vec<u64> = (0..rank).map(|_| input.u64()).collect();
    let block = input.rest();
    let all = decode_mappings(block, Address(0));
    let map = match decode_chunk_map(block, Address(0), &shape, &chunk_shape, SOURCE) {
        Ok(MappingForm::Chunked(map)) => map,
        Ok(MappingForm::Irregular(mappings)) => {
            assert_eq!(mappings, all.expect("the same mappings"));
            return;
        }
        Err(_) => return,
    };
    let all = all.expect("every mapping is a chunk");
    assert_eq!(all.len() as u64, map.len_mapped());
    for mapping in &all {
        let target = mapping
            .virtual_selection
            .as_box()
            .expect("a chunk is a box");
        let source = mapping.source_selection.as_box().expect("a chunk is a box");
        let mut cell = 0;
        for axis in 0..rank {
            cell = cell * map.grid()[axis] + target[axis].0 / chunk_shape[axis];
            assert_eq!(target[axis].1, source[axis].1);
        }
        assert_eq!(map.get(cell), Some(source[0].0 / chunk_shape[0]));
    }
    let mapped = MappedShape {
        source_dataset: SOURCE,
        shape: &shape,
        chunk_shape: &chunk_shape,
    };
    let Ok(Some(encoded)) = encode_mapping_block(&mapped, map.mapped()) else {
        return;
    };
    let again = decode_chunk_map(&encoded.block, Address(0), &shape, &chunk_shape, SOURCE);
    let Ok(MappingForm::Chunked(again)) = again else {
        panic!("what was encoded is decoded: {again:?}");
    };
    assert!(again.mapped().eq(map.mapped()));
}

/// A selection, twice over: the source and the target of one mapping.
pub(crate) fn selection(bytes: &[u8]) {
    let mut block = vec![0];
    block.extend(1u64.to_le_bytes());
    block.extend(b".\0x\0");
    block.extend_from_slice(bytes);
    block.extend_from_slice(bytes);
    block.extend(lookup3(&block).to_le_bytes());
    if let Ok(mappings) = decode_mappings(&block, Address(0)) {
        let [mapping] = &mappings[..] else {
            panic!("one entry is one mapping");
        };
        let _ = mapping.source_selection.as_box();
        let _ = mapping.virtual_selection.as_box();
    }
}

/// What a chunk index needs to know of its dataset, the index's address, and an image.
fn chunk_index(bytes: &[u8], kind: impl Fn(Address, &mut Input<'_>) -> ChunkIndexKind) {
    let mut input = Input::new(bytes);
    let flags = input.u8();
    let rank = 1 + usize::from(flags % 4);
    let element_bytes = u64::from(input.u8()).max(1);
    let shape: Vec<u64> = (0..rank).map(|_| u64::from(input.u32())).collect();
    let chunk_shape: Vec<u64> = (0..rank).map(|_| u64::from(input.u16()).max(1)).collect();
    let unlimited = usize::from(flags >> 4 & 7);
    let max_shape = match unlimited {
        0 => Vec::new(),
        first => {
            let axes = shape.iter().enumerate();
            axes.map(|(axis, &extent)| (axis + 1 != first).then_some(extent))
                .collect()
        }
    };
    let filtered = flags & 0x80 != 0;
    let filters = vec![
        Filter {
            id: 1,
            flags: 1,
            name: None,
            parameters: vec![6],
        };
        usize::from(filtered)
    ];
    let index = kind(Address(input.u64()), &mut input);
    let reader = input.image();
    let dataset = DatasetHeader {
        datatype: Datatype {
            size: usize::try_from(element_bytes).expect("a byte"),
            class: Class::Opaque { tag: Vec::new() },
        },
        datatype_bytes: Vec::new(),
        dataspace: Dataspace::Simple { shape, max_shape },
        fill_value: None,
        filters,
        layout: Layout::Chunked {
            chunk_shape,
            element_bytes,
            layout_version: 4,
            dont_filter_partial_edge_chunks: flags & 0x08 != 0,
            index,
        },
    };
    check_chunk_index(&reader, &dataset);
}

/// Chunks are those that are found by their cells, in the file, and share no byte.
fn check_chunk_index(reader: &MetaReader, dataset: &DatasetHeader) {
    let Ok(table) = read_chunk_index(reader, dataset) else {
        return;
    };
    let (mut cells, mut sum) = (BTreeSet::new(), 0u64);
    for (cell, chunk) in table.stored() {
        assert_eq!(table.get(cell), Some(chunk));
        assert!(cell < table.len_cells() && cells.insert(cell));
        assert!(chunk.stored_bytes > 0);
        reader
            .file_offset(chunk.address, chunk.stored_bytes)
            .expect("inside the file");
        sum += chunk.stored_bytes;
    }
    assert_eq!(cells.len(), table.len_stored());
    assert_eq!(sum, table.stored_bytes());
    assert!(sum <= reader.len_bytes());
}

/// A version 1 B-tree of chunks.
pub(crate) fn chunk_btree1(bytes: &[u8]) {
    chunk_index(bytes, |address, _| ChunkIndexKind::BTreeV1 { address });
}

/// A version 2 B-tree of chunks.
pub(crate) fn chunk_btree2(bytes: &[u8]) {
    chunk_index(bytes, |address, _| ChunkIndexKind::BTreeV2 { address });
}

/// An extensible array.
pub(crate) fn chunk_extensible_array(bytes: &[u8]) {
    chunk_index(bytes, |address, _| ChunkIndexKind::ExtensibleArray {
        address,
    });
}

/// A fixed array.
pub(crate) fn chunk_fixed_array(bytes: &[u8]) {
    chunk_index(bytes, |address, _| ChunkIndexKind::FixedArray { address });
}

/// An implicit index.
pub(crate) fn chunk_implicit(bytes: &[u8]) {
    chunk_index(bytes, |address, _| ChunkIndexKind::Implicit { address });
}

/// A single chunk.
pub(crate) fn chunk_single(bytes: &[u8]) {
    chunk_index(bytes, |address, input| ChunkIndexKind::SingleChunk {
        address,
        filtered: (input.u8() & 1 != 0).then(|| (u64::from(input.u32()), input.u32())),
    });
}

/// The address of a header, and an image: all that is asked of an object.
pub(crate) fn object(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let address = Address(input.u64());
    let reader = input.image();
    let Ok(header) = ObjectHeader::read(&reader, address) else {
        return;
    };
    if let Ok(found) = attributes(&reader, &header) {
        for attribute in found.iter().take(8) {
            if let Ok(Some(one)) = attribute_named(&reader, &header, &attribute.name) {
                assert_eq!(one.name, attribute.name);
            }
        }
    }
    match header.kind() {
        Ok(ObjectKind::Group) => {
            if let Ok(links) = links_of(&reader, &header) {
                for link in links.iter().take(8) {
                    if let Ok(Some(found)) = find_link_of(&reader, &header, &link.name) {
                        assert_eq!(found.name, link.name);
                    }
                }
            }
        }
        Ok(ObjectKind::Dataset) => {
            if let Ok(dataset) = DatasetHeader::read(&reader, &header) {
                check_chunk_index(&reader, &dataset);
                if let Layout::Virtual {
                    heap_address,
                    heap_index,
                } = dataset.layout
                {
                    let shape = dataset.dataspace.shape();
                    let place = (heap_address, heap_index);
                    let chunk_shape = vec![16; shape.len()];
                    let _ = crate::h5::mapping::read_chunk_map(
                        &reader,
                        place,
                        shape,
                        &chunk_shape,
                        SOURCE,
                    );
                }
            }
        }
        _ => {}
    }
}
