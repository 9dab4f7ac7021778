//! Files with a byte changed: every walk ends, without a panic, whatever it says.

use std::sync::Arc;

use super::{MadeFile, made_files};
use crate::h5::checksum::testing::with_all_matching;
use crate::h5::{
    Address, DatasetHeader, H5Error, H5File, LinkTarget, MetaReader, ObjectHeader, ObjectKind,
    attributes, find_link, links_of,
};

/// Looks at everything that is reached from `root`, and counts the objects and the errors.
fn walk(reader: &MetaReader, root: Address) -> (usize, usize) {
    let mut seen = std::collections::BTreeSet::from([root]);
    let mut waiting = vec![root];
    let mut errors = 0;
    while let Some(address) = waiting.pop() {
        match look(reader, address) {
            Ok(children) => {
                waiting.extend(children.into_iter().filter(|&child| seen.insert(child)));
            }
            Err(_) => errors += 1,
        }
    }
    (seen.len(), errors)
}

fn look(reader: &MetaReader, address: Address) -> Result<Vec<Address>, H5Error> {
    let header = ObjectHeader::read(reader, address)?;
    attributes(reader, &header)?;
    let mut children = Vec::new();
    match header.kind()? {
        ObjectKind::Group => {
            for link in links_of(reader, &header)? {
                if let LinkTarget::Hard(child) = link.target {
                    children.push(child);
                }
            }
            find_link(reader, address, b"link 0500")?;
        }
        ObjectKind::Dataset => {
            DatasetHeader::read(reader, &header)?;
        }
        ObjectKind::NamedDatatype => {}
    }
    Ok(children)
}

/// Changes single bytes of a copy of the file, `count` of them at places that a fixed seed gives, and walks each.
fn walk_damaged(file: &MadeFile, count: usize) -> (usize, usize) {
    let (sound, _) = walk(&file.open().reader(), file.open().root());
    let (mut opened, mut damaged) = (0, 0);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..count {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut bytes = file.bytes.clone();
        let at = usize::try_from(random >> 8).unwrap() % bytes.len();
        bytes[at] ^= match random & 0x0f {
            0..8 => 1 << (random & 0x07),
            8..12 => 0xff,
            _ => bytes[at].wrapping_add(1) ^ bytes[at],
        };
        if let Ok(file) = H5File::open(Arc::new(bytes)) {
            opened += 1;
            let (_, errors) = walk(&file.reader(), file.root());
            damaged += usize::from(errors > 0);
        }
    }
    assert!(sound > 90);
    (opened, damaged)
}

fn is_small(file: &MadeFile) -> bool {
    file.name.starts_with("small")
}

#[test]
fn one_changed_byte_anywhere() {
    for file in made_files() {
        let count = if is_small(file) { 1500 } else { 50 };
        let (opened, damaged) = walk_damaged(file, count);
        assert!(opened > count * 9 / 10, "{}: {opened}", file.name);
        assert!(damaged > 0, "{}", file.name);
    }
}

#[test]
fn one_changed_byte_behind_right_checksums() {
    for file in made_files().iter().filter(|file| is_small(file)) {
        let (opened, damaged) = with_all_matching(|| walk_damaged(file, 3000));
        assert!(opened > 2700, "{}: {opened}", file.name);
        assert!(damaged > 0, "{}", file.name);
    }
}

#[test]
fn each_byte_of_the_first_structures() {
    for file in made_files().iter().filter(|file| is_small(file)) {
        let start = usize::try_from(file.open().base_address()).unwrap();
        for at in start..start + 700 {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = file.bytes.clone();
                bytes[at] = value;
                with_all_matching(|| {
                    if let Ok(file) = H5File::open(Arc::new(bytes)) {
                        walk(&file.reader(), file.root());
                    }
                });
            }
        }
    }
}
