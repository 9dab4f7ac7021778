//! Inputs for the targets, taken out of a sound file: each structure with what its parser needs to know beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::h5::attribute::RawAttribute;
use crate::h5::heap::find_object;
use crate::h5::object_header::{SharedMessages, message_type};
use crate::h5::{
    Address, ChunkIndexKind, DatasetHeader, Dataspace, H5Error, H5File, Layout, LinkTarget,
    Message, MetaReader, ObjectHeader, ObjectKind, links_of,
};

/// The name of a target, and an input.
pub(crate) type Seed = (&'static str, Vec<u8>);

/// Types of version 2 B-trees that index links and attributes.
const INDEX_TYPES: [(u16, u8); 2] = [
    (message_type::LINK_INFO, 5),
    (message_type::ATTRIBUTE_INFO, 8),
];

/// All that is reached from the root.
pub(crate) fn seeds_of_file(bytes: &Arc<Vec<u8>>) -> Result<Vec<Seed>, H5Error> {
    let file = H5File::open(bytes.clone())?;
    let start = usize::try_from(file.base_address()).unwrap_or(usize::MAX);
    let mut found = Finder {
        image: bytes.get(start..).unwrap_or_default(),
        reader: file.reader(),
        seeds: vec![(
            "superblock",
            bytes[..bytes.len().min(start.saturating_add(96))].to_vec(),
        )],
    };
    let mut seen = BTreeSet::from([file.root()]);
    let mut waiting = vec![file.root()];
    while let Some(address) = waiting.pop() {
        for child in found.object(address)? {
            if seen.insert(child) {
                waiting.push(child);
            }
        }
    }
    Ok(found.seeds)
}

struct Finder<'a> {
    image: &'a [u8],
    reader: MetaReader,
    seeds: Vec<Seed>,
}

impl Finder<'_> {
    /// Parts, one behind the other, and then the whole image.
    fn with_image(&mut self, target: &'static str, parts: &[&[u8]]) {
        let mut seed = parts.concat();
        seed.extend_from_slice(self.image);
        self.seeds.push((target, seed));
    }

    fn object(&mut self, address: Address) -> Result<Vec<Address>, H5Error> {
        let header = ObjectHeader::read(&self.reader, address)?;
        self.with_image("object", &[&address.0.to_le_bytes()]);
        if let Some(header) = usize::try_from(address.0)
            .ok()
            .and_then(|at| self.image.get(at..))
        {
            self.seeds
                .push(("object_header", header[..header.len().min(2048)].to_vec()));
        }
        for message in header.messages() {
            self.message(&message);
        }
        let mut children = Vec::new();
        match header.kind()? {
            ObjectKind::Group => {
                for link in links_of(&self.reader, &header)? {
                    if let LinkTarget::Hard(child) = link.target {
                        children.push(child);
                    }
                }
            }
            ObjectKind::Dataset => {
                let dataset = DatasetHeader::read(&self.reader, &header)?;
                self.dataset(&dataset, &header)?;
            }
            ObjectKind::NamedDatatype => {}
        }
        Ok(children)
    }

    fn message(&mut self, message: &Message<'_>) {
        let body = message.body;
        let target = match message.message_type {
            message_type::DATASPACE => "dataspace_message",
            message_type::DATATYPE => "datatype_message",
            message_type::FILL_VALUE | message_type::FILL_VALUE_OLD => "fill_value_message",
            message_type::FILTERS => "filter_message",
            message_type::LINK => "link_message",
            message_type::ATTRIBUTE => {
                self.value(body);
                "attribute_message"
            }
            message_type::SYMBOL_TABLE => {
                // Addresses are from the image's beginning, where the message is put in place of the superblock.
                let mut image = self.image.to_vec();
                if let Some(start) = image.get_mut(..body.len()) {
                    start.copy_from_slice(body);
                    self.seeds.push(("symbol_table", image));
                }
                return;
            }
            _ => {
                self.indexed(message);
                return;
            }
        };
        self.seeds.push((target, body.to_vec()));
    }

    /// Type and elements of an attribute, as a scalar.
    fn value(&mut self, body: &[u8]) {
        let Ok(raw) = RawAttribute::split(body, Address(0)) else {
            return;
        };
        let attribute = raw.decode(&mut SharedMessages::new(&self.reader));
        if let Ok(attribute) = attribute
            && let Ok(len) = u8::try_from(attribute.datatype_bytes.len())
        {
            let seed = [&[len], &attribute.datatype_bytes[..], &[0], &attribute.data].concat();
            self.seeds.push(("value_json", seed));
        }
    }

    /// What a link info or attribute info message names.
    fn indexed(&mut self, message: &Message<'_>) {
        let Some((_, tree_type)) = INDEX_TYPES
            .iter()
            .find(|(of, _)| *of == message.message_type)
        else {
            return;
        };
        let has_order = message.body.get(1).is_some_and(|flags| flags & 1 != 0);
        let order_bytes = if message.message_type == message_type::LINK_INFO {
            8
        } else {
            2
        };
        let start = 2 + if has_order { order_bytes } else { 0 };
        let (Some(heap), Some(tree)) = (
            message.body.get(start..start + 8),
            message.body.get(start + 8..start + 16),
        ) else {
            return;
        };
        if heap != [0xff; 8] {
            let id: &[u8] = &[0, 0x20, 0, 0, 0, 0x10, 0, 0, 0, 0x40, 0, 0, 0, 8, 0, 0];
            self.with_image("fractal_heap", &[id, heap]);
            self.with_image("record_btree2", &[&[*tree_type, 0x40], tree]);
        }
    }

    fn dataset(&mut self, dataset: &DatasetHeader, header: &ObjectHeader) -> Result<(), H5Error> {
        let shape = dataset.dataspace.shape();
        let size = u16::try_from(dataset.datatype.size).unwrap_or(u16::MAX);
        if let Some(layout) = header.find(message_type::LAYOUT) {
            let mut seed = size.to_le_bytes().to_vec();
            seed.push(u8::try_from(shape.len()).unwrap_or(u8::MAX));
            seed.extend(shape.iter().flat_map(|extent| extent.to_le_bytes()));
            seed.extend_from_slice(layout.body);
            self.seeds.push(("layout_message", seed));
        }
        match &dataset.layout {
            Layout::Virtual {
                heap_address,
                heap_index,
            } if heap_address.is_defined() => self.mappings((*heap_address, *heap_index), shape)?,
            Layout::Chunked {
                chunk_shape, index, ..
            } => self.chunks(dataset, chunk_shape, index),
            _ => {}
        }
        Ok(())
    }

    fn mappings(&mut self, place: (Address, u32), shape: &[u64]) -> Result<(), H5Error> {
        let (start, len_bytes) = find_object(&self.reader, place.0, place.1)?;
        let block = self.reader.read(start, len_bytes)?;
        // Chunks of 4 on each axis, of which a real block has some edge.
        for chunk in [4u64, 8, 16, 32, 100, 128] {
            let mut seed = vec![u8::try_from(shape.len().saturating_sub(1)).unwrap_or(u8::MAX)];
            seed.extend(shape.iter().flat_map(|extent| extent.to_le_bytes()));
            seed.extend(shape.iter().flat_map(|_| chunk.to_le_bytes()));
            seed.extend_from_slice(&block);
            self.seeds.push(("mapping_block", seed));
        }
        // Behind the header and the names is the first selection.
        let names = block.get(9..).unwrap_or_default();
        let source = names
            .splitn(3, |&byte| byte == 0)
            .nth(2)
            .unwrap_or_default();
        self.seeds
            .push(("selection", source[..source.len().min(64)].to_vec()));
        let collection = self.reader.read_up_to(place.0, 4096)?;
        let stored = [&[1, 0, 0, 0][..], &[0; 8], &place.1.to_le_bytes()].concat();
        self.seeds
            .push(("global_heap", [&stored, &*collection].concat()));
        Ok(())
    }

    fn chunks(&mut self, dataset: &DatasetHeader, chunk_shape: &[u64], index: &ChunkIndexKind) {
        let (target, address) = match index {
            ChunkIndexKind::BTreeV1 { address } => ("chunk_btree1", address),
            ChunkIndexKind::SingleChunk { address, .. } => ("chunk_single", address),
            ChunkIndexKind::Implicit { address } => ("chunk_implicit", address),
            ChunkIndexKind::FixedArray { address } => ("chunk_fixed_array", address),
            ChunkIndexKind::ExtensibleArray { address } => ("chunk_extensible_array", address),
            ChunkIndexKind::BTreeV2 { address } => ("chunk_btree2", address),
        };
        let Dataspace::Simple { shape, max_shape } = &dataset.dataspace else {
            return;
        };
        let first_unlimited = max_shape
            .iter()
            .position(Option::is_none)
            .map_or(0, |axis| axis + 1);
        let rank = shape.len().saturating_sub(1);
        let flags = [
            rank & 3,
            (first_unlimited & 7) << 4,
            usize::from(!dataset.filters.is_empty()) << 7,
        ];
        let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        let mut seed = vec![
            flags.iter().fold(0, |all, &flag| all | byte(flag)),
            byte(dataset.datatype.size),
        ];
        for &extent in shape {
            seed.extend(u32::try_from(extent).unwrap_or(u32::MAX).to_le_bytes());
        }
        for &extent in chunk_shape {
            seed.extend(u16::try_from(extent).unwrap_or(u16::MAX).to_le_bytes());
        }
        seed.extend(address.0.to_le_bytes());
        if let ChunkIndexKind::SingleChunk { filtered, .. } = index {
            seed.push(u8::from(filtered.is_some()));
            if let Some((len, mask)) = filtered {
                seed.extend(u32::try_from(*len).unwrap_or(u32::MAX).to_le_bytes());
                seed.extend(mask.to_le_bytes());
            }
        }
        self.with_image(target, &[&seed]);
    }
}
