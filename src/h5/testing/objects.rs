//! Objects as decoded here against what the HDF5 library says of them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{MadeFile, made_files};
use crate::h5::{
    Address, Attribute, ByteOrder, ChunkIndexKind, Class, DatasetHeader, Dataspace, Datatype,
    Layout, Link, LinkTarget, MetaReader, ObjectHeader, ObjectKind, attribute_named, attributes,
    find_link, find_path, links,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn order_number(order: ByteOrder) -> u8 {
    match order {
        ByteOrder::Little => 0,
        ByteOrder::Big => 1,
        ByteOrder::Vax => 2,
    }
}

fn has_variable_length(datatype: &Datatype) -> bool {
    match &datatype.class {
        Class::VlenString { .. } | Class::VlenSequence { .. } => true,
        Class::Compound { members } => members.iter().any(|m| has_variable_length(&m.datatype)),
        Class::Array { base, .. } => has_variable_length(base),
        _ => false,
    }
}

/// As `describe` of `make_objects.py` does it.
fn describe_type(datatype: &Datatype) -> Value {
    let size = (!has_variable_length(datatype)).then_some(datatype.size);
    match &datatype.class {
        Class::Integer {
            signed,
            order,
            bit_offset,
            bit_precision,
        } => json!([
            "integer",
            size,
            order_number(*order),
            signed,
            bit_offset,
            bit_precision
        ]),
        Class::Float {
            order,
            bit_offset,
            bit_precision,
            sign_location,
            exponent_location,
            exponent_size,
            mantissa_location,
            mantissa_size,
            exponent_bias,
            mantissa_normalization,
        } => json!([
            "float",
            size,
            order_number(*order),
            bit_offset,
            bit_precision,
            sign_location,
            exponent_location,
            exponent_size,
            mantissa_location,
            mantissa_size,
            exponent_bias,
            mantissa_normalization
        ]),
        Class::Time { .. } => json!(["time", size]),
        Class::FixedString { padding, utf8 } => {
            json!(["text", size, padding, u8::from(*utf8)])
        }
        Class::Bitfield { order, .. } => json!(["bits", size, order_number(*order)]),
        Class::Opaque { tag } => json!(["opaque", size, hex(tag)]),
        Class::Compound { members } => {
            let members: Vec<Value> = members
                .iter()
                .map(|member| {
                    json!([
                        hex(&member.name),
                        size.map(|_| member.offset),
                        describe_type(&member.datatype)
                    ])
                })
                .collect();
            json!(["compound", size, members])
        }
        Class::Reference { .. } => json!(["reference", size]),
        Class::Enum { base, members } => {
            let members: Vec<Value> = members
                .iter()
                .map(|member| json!([hex(&member.name), hex(&member.value)]))
                .collect();
            json!(["enum", size, describe_type(base), members])
        }
        Class::VlenString { padding, utf8 } => {
            json!(["variable text", padding, u8::from(*utf8)])
        }
        Class::VlenSequence { base } => json!(["variable", describe_type(base)]),
        Class::Array { shape, base } => json!(["array", size, shape, describe_type(base)]),
        Class::Complex { base } => json!(["complex", size, describe_type(base)]),
    }
}

fn describe_space(dataspace: &Dataspace) -> Value {
    match dataspace {
        Dataspace::Scalar => json!("scalar"),
        Dataspace::Null => json!("null"),
        Dataspace::Simple { shape, max_shape } => {
            let most: Vec<Option<u64>> = if max_shape.is_empty() {
                shape.iter().copied().map(Some).collect()
            } else {
                max_shape.clone()
            };
            json!([shape, most])
        }
    }
}

fn describe_link(link: &Link) -> Value {
    let name = hex(&link.name);
    match &link.target {
        LinkTarget::Hard(address) => json!([name, "hard", address.0]),
        LinkTarget::Soft(path) => json!([name, "soft", hex(path)]),
        LinkTarget::External { file, object } => {
            json!([name, "external", hex(file), hex(object)])
        }
        LinkTarget::UserDefined(number) => json!([name, "user-defined", number]),
    }
}

/// The elements are left out where they are pointers, as `make_objects.py` does.
fn describe_attribute(attribute: &Attribute) -> Value {
    let data = (!attribute.datatype.contains_pointers()).then(|| hex(&attribute.data));
    json!([
        hex(&attribute.name),
        describe_type(&attribute.datatype),
        describe_space(&attribute.dataspace),
        data
    ])
}

fn check_dataset(reader: &MetaReader, header: &ObjectHeader, facts: &Value, place: &str) {
    let dataset = DatasetHeader::read(reader, header).unwrap();
    assert_eq!(describe_type(&dataset.datatype), facts["type"], "{place}");
    assert_eq!(
        describe_space(&dataset.dataspace),
        facts["space"],
        "{place}"
    );
    if !dataset.datatype.contains_pointers() {
        let fill = dataset.fill_value.as_deref().map(hex);
        let zeros = "00".repeat(dataset.datatype.size);
        assert_eq!(
            fill.as_ref().unwrap_or(&zeros),
            facts["fill"].as_str().unwrap_or(&zeros),
            "{place}"
        );
    }
    let filters: Vec<Value> = dataset
        .filters
        .iter()
        .map(|filter| json!([filter.id, filter.flags, filter.parameters]))
        .collect();
    assert_eq!(json!(filters), facts["filters"], "{place}");
    let (bytes, used) = (&dataset.datatype_bytes, dataset.datatype_bytes.len());
    assert_eq!(
        Datatype::decode(bytes, Address(0)).unwrap(),
        (dataset.datatype.clone(), used)
    );
    match &dataset.layout {
        Layout::Compact(bytes) => {
            assert_eq!(facts["layout"], 0, "{place}");
            assert_eq!(hex(bytes), facts["compact"], "{place}");
        }
        Layout::Contiguous {
            address,
            size_bytes,
        } => {
            assert_eq!(facts["layout"], 1, "{place}");
            // The library adds the base address to an undefined one as well.
            let offset = match address.0.wrapping_add(reader.base_address()) {
                u64::MAX => Value::Null,
                offset => json!(offset),
            };
            assert_eq!(offset, facts["offset"], "{place}");
            assert_eq!(
                Some(*size_bytes),
                dataset
                    .dataspace
                    .len()
                    .map(|n| n * dataset.datatype.size as u64)
            );
        }
        Layout::Chunked {
            chunk_shape,
            element_bytes,
            ..
        } => {
            assert_eq!(facts["layout"], 2, "{place}");
            assert_eq!(json!(chunk_shape), facts["chunks"], "{place}");
            assert_eq!(*element_bytes, dataset.datatype.size as u64);
        }
        Layout::Virtual { .. } => assert_eq!(facts["layout"], 3, "{place}"),
    }
}

fn check_object(reader: &MetaReader, address: Address, facts: &Value, place: &str) {
    let header = ObjectHeader::read(reader, address).unwrap();
    let found: Vec<Attribute> = attributes(reader, &header).unwrap();
    let described: Vec<Value> = found.iter().map(describe_attribute).collect();
    assert_eq!(json!(described), facts["attributes"], "{place}");
    for attribute in &found {
        let one = attribute_named(reader, &header, &attribute.name).unwrap();
        assert_eq!(one.as_ref(), Some(attribute), "{place}");
    }
    assert_eq!(attribute_named(reader, &header, b"nobody").unwrap(), None);
    match header.kind().unwrap() {
        ObjectKind::Group => {
            assert_eq!(facts["kind"], "group", "{place}");
            let found = links(reader, address).unwrap();
            let described: Vec<Value> = found.iter().map(describe_link).collect();
            assert_eq!(json!(described), facts["links"], "{place}");
            for link in &found {
                let one = find_link(reader, address, &link.name).unwrap();
                assert_eq!(one.as_ref(), Some(link), "{place}");
            }
            for missing in [&b"\0"[..], b"nobody", b"\xff\xff\xff", b""] {
                assert_eq!(find_link(reader, address, missing).unwrap(), None);
            }
        }
        ObjectKind::Dataset => {
            assert_eq!(facts["kind"], "dataset", "{place}");
            check_dataset(reader, &header, &facts["dataset"], place);
        }
        ObjectKind::NamedDatatype => assert_eq!(facts["kind"], "type", "{place}"),
    }
}

#[test]
fn every_object_is_what_the_library_says() {
    for file in made_files() {
        let opened = file.open();
        assert_eq!(json!(opened.root().0), file.facts["root"], "{}", file.name);
        let reader = opened.reader();
        let objects = file.facts["objects"].as_object().unwrap();
        assert!(objects.len() > 90, "{}: {}", file.name, objects.len());
        for (address, facts) in objects {
            let place = format!("{} at {address}", file.name);
            let address = Address(address.parse().unwrap());
            check_object(&reader, address, facts, &place);
        }
    }
}

fn resolve(file: &MadeFile, path: &str) -> Result<Option<Address>, crate::h5::H5Error> {
    let opened = file.open();
    let path: Vec<&[u8]> = path.as_bytes().split(|&byte| byte == b'/').collect();
    find_path(&opened.reader(), opened.root(), opened.root(), &path)
}

#[test]
fn paths_follow_hard_and_soft_links() {
    for file in made_files() {
        let target = resolve(file, "many/link 0000 é").unwrap().unwrap();
        assert_eq!(resolve(file, "links/soft").unwrap(), Some(target));
        assert_eq!(resolve(file, "/./links//relative").unwrap(), Some(target));
        let nine = resolve(file, "nine").unwrap().unwrap();
        assert_eq!(resolve(file, "links/hard").unwrap(), Some(nine));
        assert_eq!(resolve(file, "links/dangling").unwrap(), None);
        assert_eq!(resolve(file, "no/such/thing").unwrap(), None);
        assert!(resolve(file, "links/loop").is_err());
        assert!(resolve(file, "links/outside").is_err());
        assert_eq!(resolve(file, "datasets/scalar/below").unwrap(), None);
    }
}

fn layout(file: &MadeFile, path: &str) -> Layout {
    let reader = file.open().reader();
    let address = resolve(file, path).unwrap().unwrap();
    let header = ObjectHeader::read(&reader, address).unwrap();
    DatasetHeader::read(&reader, &header).unwrap().layout
}

#[test]
fn indexes_are_told_apart() {
    type Kind = ChunkIndexKind;
    let files = made_files();
    let file = |name: &str| files.iter().find(|file| file.name == name).unwrap();
    let index = |name: &str, path: &str| match layout(file(name), path) {
        Layout::Chunked { index, .. } => index,
        other => panic!("{other:?}"),
    };
    for path in ["datasets/one chunk", "datasets/tree", "datasets/implicit"] {
        assert!(
            matches!(index("earliest", path), Kind::BTreeV1 { address } if address.is_defined())
        );
    }
    for name in ["v110", "latest"] {
        let kind = |path| index(name, path);
        assert!(matches!(
            kind("datasets/one chunk"),
            Kind::SingleChunk { filtered: None, .. }
        ));
        let Kind::SingleChunk {
            filtered: Some((stored_bytes, mask)),
            ..
        } = kind("datasets/one filtered chunk")
        else {
            panic!("not a single filtered chunk");
        };
        assert!(stored_bytes < 96 && mask == 0);
        assert!(matches!(kind("datasets/implicit"), Kind::Implicit { .. }));
        assert!(matches!(kind("datasets/fixed"), Kind::FixedArray { .. }));
        assert!(matches!(
            kind("datasets/extensible"),
            Kind::ExtensibleArray { .. }
        ));
        assert!(matches!(kind("datasets/tree"), Kind::BTreeV2 { .. }));
        assert!(matches!(
            kind("datasets/filtered tree"),
            Kind::BTreeV2 { .. }
        ));
    }
    assert!(matches!(
        layout(file("latest"), "datasets/virtual"),
        Layout::Virtual { heap_address, heap_index: 1.. } if heap_address.is_defined()
    ));
    assert!(matches!(
        layout(file("latest"), "datasets/virtual of nothing"),
        Layout::Virtual {
            heap_address: Address::UNDEFINED,
            ..
        }
    ));
}

#[test]
fn truncated_files_say_so() {
    for file in made_files() {
        let len = file.bytes.len();
        let error = crate::h5::H5File::open(std::sync::Arc::new(file.bytes[..len - 1].to_vec()));
        assert_eq!(
            error.unwrap_err().to_string(),
            format!(
                "the file is truncated: it should be {len} bytes long and is {}",
                len - 1
            )
        );
    }
}
