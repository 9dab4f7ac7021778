//! What one version contains: its groups and datasets, each with a signature by which two versions of a dataset are told
//! apart without reading data.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::attributes::{HeapValues, is_bookkeeping};
use super::json::{self, ValueError};
use super::{StoreError, names};
use crate::h5::mapping;
use crate::h5::{
    self, Address, Attribute, DatasetHeader, Dataspace, H5Error, Layout, LinkTarget, MetaReader,
    ObjectHeader, ObjectKind,
};

/// Deeper groups than any tool can walk are taken as damage.
const MAX_DEPTH: usize = 512;

/// The bytes of the file that one link needs at the very least, which bounds how many a file can hold.
const LEAST_LINK_BYTES: u64 = 16;

/// Mapping blocks up to this length are hashed when they are met; longer ones are compared where their checksums are equal.
const SHORT_BLOCK_BYTES: u64 = 64 << 10;

/// Paths of a walk may always be of this many bytes together.
const ALWAYS_FAIR_PATH_BYTES: u64 = 16 << 20;
/// And of this many for each byte of the file: a name is stored once, and comes in the path of everything below it.
const FAIR_PATH_RATIO: u64 = 8;

/// Bounds a walk over groups, which in a damaged file can reach the same objects by any number of paths.
#[derive(Debug)]
pub(super) struct WalkBudget {
    links: u64,
    path_bytes: u64,
}

impl WalkBudget {
    /// What a file of the length that `reader` knows can justify.
    pub(super) fn new(reader: &MetaReader) -> Self {
        Self {
            links: reader.len_bytes() / LEAST_LINK_BYTES,
            path_bytes: ALWAYS_FAIR_PATH_BYTES + FAIR_PATH_RATIO.saturating_mul(reader.len_bytes()),
        }
    }

    /// Takes a link in `group` whose object is at a path of `path_bytes`.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where nothing is left.
    pub(super) fn spend(&mut self, path_bytes: usize, group: Address) -> Result<(), H5Error> {
        let left = (
            self.links.checked_sub(1),
            self.path_bytes.checked_sub(path_bytes as u64),
        );
        let (Some(links), Some(path_bytes)) = left else {
            return Err(H5Error::Damaged {
                structure: "group",
                address: group,
                what: "more links than the file can hold",
            });
        };
        (self.links, self.path_bytes) = (links, path_bytes);
        Ok(())
    }
}

/// The groups from the first one of a walk down to one of them.
#[derive(Debug)]
pub(super) struct Line {
    group: Address,
    depth: usize,
    above: Option<Rc<Self>>,
}

impl Line {
    /// The line of a walk that begins at `group`.
    pub(super) fn begin(group: Address) -> Rc<Self> {
        Rc::new(Self {
            group,
            depth: 1,
            above: None,
        })
    }

    /// The line of the group `child` below this one.
    ///
    /// # Errors
    /// [`H5Error::Damaged`] where it is one of the line itself, which makes a path without end, or is nested too deeply.
    pub(super) fn down_to(self: &Rc<Self>, child: Address) -> Result<Rc<Self>, H5Error> {
        let mut at = Some(self);
        while let Some(line) = at {
            if line.group == child || line.depth >= MAX_DEPTH {
                return Err(H5Error::Damaged {
                    structure: "group",
                    address: child,
                    what: "it contains itself, or is nested too deeply",
                });
            }
            at = line.above.as_ref();
        }
        Ok(Rc::new(Self {
            group: child,
            depth: self.depth + 1,
            above: Some(self.clone()),
        }))
    }
}

/// A group or dataset below a version. Paths are HDF5 names joined by `/`, without one at the beginning; the version's own
/// group is the empty path.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its name as a path carries it.
    pub shown_name: Vec<u8>,
    /// Its path below the version.
    pub path: Arc<[u8]>,
    /// Its object header.
    pub header: Address,
    /// Group or dataset.
    pub kind: ChildKind,
}

/// What a child is.
#[derive(Debug, Clone)]
pub enum ChildKind {
    /// A group.
    Group,
    /// A dataset, with what it is told apart by; an error where its header is damaged.
    Dataset(Result<Signature, H5Error>),
    /// An object whose header cannot be read.
    Unreadable(H5Error),
}

/// All that one version contains.
#[derive(Debug, Default)]
pub struct VersionTree {
    /// Children of each group, in the byte order of their names.
    groups: BTreeMap<Arc<[u8]>, Vec<Child>>,
}

/// What a dataset of a version is, short of its mappings: two datasets are the same when their signatures are equal and
/// their mapping blocks hold the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Of type, shape, fill value, attributes and the kind of layout.
    pub described: [u8; 16],
    /// Where the mappings are.
    pub mapping: Option<MappingPlace>,
}

/// Where a dataset's mapping block is, with what is read of it cheaply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappingPlace {
    /// Heap collection.
    pub heap: Address,
    /// Object in it.
    pub index: u32,
    /// Length of the block in bytes.
    pub len_bytes: u64,
    /// The checksum that the block ends with.
    pub checksum: u32,
    /// The beginning of the block's SHA-256, where it is short enough to be read in passing.
    pub hash: Option<[u8; 16]>,
}

impl VersionTree {
    /// Walks the version's group at `group`. Damage of a single object stays with it.
    ///
    /// # Errors
    /// Where the version's own group cannot be listed.
    pub fn read(reader: &MetaReader, version: &[u8], group: Address) -> Result<Self, StoreError> {
        let root: Arc<[u8]> = Arc::from(&b""[..]);
        let heap = HeapValues::new(reader);
        let mut budget = WalkBudget::new(reader);
        let mut tree = Self::default();
        let mut pending = vec![(root, group, Line::begin(group))];
        while let Some((path, address, line)) = pending.pop() {
            let mut children = match read_children(reader, &heap, &path, address, &mut budget) {
                Ok(children) => children,
                Err(error) if path.is_empty() => {
                    return Err(StoreError::Object {
                        version: version.to_vec(),
                        object: Vec::new(),
                        error,
                    });
                }
                Err(error) => {
                    tree.mark_unreadable(&path, &error);
                    continue;
                }
            };
            for child in &mut children {
                if matches!(child.kind, ChildKind::Group) {
                    match line.down_to(child.header) {
                        Ok(line) => pending.push((child.path.clone(), child.header, line)),
                        Err(error) => child.kind = ChildKind::Unreadable(error),
                    }
                }
            }
            tree.groups.insert(path, children);
        }
        Ok(tree)
    }

    /// The children of the group at `path`, in the byte order of their names; `None` where there is no such group.
    #[must_use]
    pub fn children(&self, path: &[u8]) -> Option<&[Child]> {
        self.groups.get(path).map(Vec::as_slice)
    }

    /// The object at `path`, which is not the version's own group.
    #[must_use]
    pub fn child(&self, path: &[u8]) -> Option<&Child> {
        let children = self.children(parent_of(path))?;
        // All have the parent's path, so that the order of names is that of paths.
        let place = children
            .binary_search_by(|child| (*child.path).cmp(path))
            .ok()?;
        Some(&children[place])
    }

    /// The object in the group at `path` that is shown as `name`.
    #[must_use]
    pub fn child_shown_as(&self, path: &[u8], name: &[u8]) -> Option<&Child> {
        let true_path = if path.is_empty() {
            name.to_vec()
        } else {
            [path, name].join(&b'/')
        };
        match self.child(&true_path) {
            Some(child) if child.shown_name == name => Some(child),
            _ => self
                .children(path)?
                .iter()
                .find(|child| child.shown_name == name),
        }
    }

    /// All datasets whose header is readable.
    pub fn datasets(&self) -> impl Iterator<Item = (&Child, Signature)> {
        self.groups
            .values()
            .flatten()
            .filter_map(|child| match child.kind {
                ChildKind::Dataset(Ok(signature)) => Some((child, signature)),
                _ => None,
            })
    }

    /// All groups and datasets, but not the version's own group.
    pub fn objects(&self) -> impl Iterator<Item = &Child> {
        self.groups.values().flatten()
    }

    /// The path of the object at `path` as the mounted tree shows it.
    #[must_use]
    pub fn shown_path(&self, path: &[u8]) -> Vec<u8> {
        let ends = path
            .iter()
            .enumerate()
            .filter_map(|(at, &byte)| (byte == b'/').then_some(at))
            .chain([path.len()]);
        let shown: Vec<&[u8]> = ends
            .filter_map(|end| self.child(&path[..end]))
            .map(|child| &*child.shown_name)
            .collect();
        shown.join(&b'/')
    }

    /// How many objects it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.values().map(Vec::len).sum()
    }

    /// Whether the version holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn mark_unreadable(&mut self, path: &[u8], error: &H5Error) {
        if let Some(child) = self
            .groups
            .get_mut(parent_of(path))
            .and_then(|children| children.iter_mut().find(|child| &*child.path == path))
        {
            child.kind = ChildKind::Unreadable(error.clone());
        }
    }
}

fn parent_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => &path[..slash],
        None => &[],
    }
}

fn read_children(
    reader: &MetaReader,
    heap: &HeapValues<'_>,
    path: &[u8],
    group: Address,
    budget: &mut WalkBudget,
) -> Result<Vec<Child>, H5Error> {
    // Soft and external links are not made by the format's library, and would lead out of the version.
    let links: Vec<(Vec<u8>, Address)> = h5::links(reader, group)?
        .into_iter()
        .filter_map(|link| match link.target {
            LinkTarget::Hard(address) => Some((link.name, address)),
            _ => None,
        })
        .collect();
    for (name, _) in &links {
        budget.spend(path.len() + 1 + name.len(), group)?;
    }
    let shown = names::shown_names(links.iter().map(|(name, _)| name.as_slice()));
    Ok(links
        .into_iter()
        .zip(shown)
        .map(|((name, header), shown_name)| {
            let mut child_path = path.to_vec();
            if !path.is_empty() {
                child_path.push(b'/');
            }
            child_path.extend_from_slice(&name);
            Child {
                shown_name,
                path: child_path.into(),
                header,
                kind: read_kind(reader, heap, header),
            }
        })
        .collect())
}

fn read_kind(reader: &MetaReader, heap: &HeapValues<'_>, address: Address) -> ChildKind {
    let kind = ObjectHeader::read(reader, address).and_then(|header| Ok((header.kind()?, header)));
    match kind {
        Ok((ObjectKind::Dataset, header)) => {
            ChildKind::Dataset(read_signature(reader, heap, &header))
        }
        Ok((ObjectKind::Group, _)) => ChildKind::Group,
        Ok((ObjectKind::NamedDatatype, _)) => ChildKind::Unreadable(H5Error::Unsupported {
            structure: "object header",
            address,
            what: "a committed datatype among the datasets",
        }),
        Err(error) => ChildKind::Unreadable(error),
    }
}

fn read_signature(
    reader: &MetaReader,
    heap: &HeapValues<'_>,
    header: &ObjectHeader,
) -> Result<Signature, H5Error> {
    let dataset = DatasetHeader::read(reader, header)?;
    let mut attributes = h5::attributes(reader, header)?;
    attributes.retain(|attribute| !is_bookkeeping(&attribute.name));
    attributes.sort_by(|a, b| a.name.cmp(&b.name));

    let mut hash = Sha256::new();
    add(&mut hash, &dataset.datatype_bytes);
    add_extent(&mut hash, &dataset.dataspace);
    add(&mut hash, dataset.fill_value.as_deref().unwrap_or_default());
    for attribute in &attributes {
        add_attribute(&mut hash, heap, header.address(), attribute)?;
    }
    let mapping = if let Layout::Virtual {
        heap_address,
        heap_index,
    } = dataset.layout
    {
        add(&mut hash, b"virtual");
        read_place(reader, heap, heap_address, heap_index)?
    } else {
        // Not a form that the library makes. Its bytes lie with the object, so it is the same only as itself.
        add(&mut hash, &header.address().0.to_le_bytes());
        None
    };
    let digest = hash.finalize();
    Ok(Signature {
        described: *digest.first_chunk().expect("SHA-256 has 32 bytes"),
        mapping,
    })
}

fn read_place(
    reader: &MetaReader,
    values: &HeapValues<'_>,
    heap: Address,
    index: u32,
) -> Result<Option<MappingPlace>, H5Error> {
    if !heap.is_defined() {
        return Ok(None);
    }
    let (start, len_bytes) = values.find(heap, index)?;
    let (_, checksum) = mapping::block_digest(reader, heap, start, len_bytes)?;
    let hash = if len_bytes <= SHORT_BLOCK_BYTES {
        let digest = Sha256::digest(&*reader.read(start, len_bytes)?);
        digest.first_chunk().copied()
    } else {
        None
    };
    Ok(Some(MappingPlace {
        heap,
        index,
        len_bytes,
        checksum,
        hash,
    }))
}

fn add_attribute(
    hash: &mut Sha256,
    heap: &HeapValues<'_>,
    address: Address,
    attribute: &Attribute,
) -> Result<(), H5Error> {
    add(hash, &attribute.name);
    add(hash, &attribute.datatype_bytes);
    add_extent(hash, &attribute.dataspace);
    if attribute.datatype.contains_pointers() {
        // Two copies of the same text lie at different places.
        let text = json::attribute_text(
            &attribute.datatype,
            &attribute.dataspace,
            &attribute.data,
            heap,
        )
        .map_err(|error| match error {
            ValueError::Heap(error) => error,
            ValueError::Length { .. } | ValueError::TooDeep { .. } | ValueError::TooLong { .. } => {
                H5Error::Damaged {
                    structure: "attribute",
                    address,
                    what: "its value does not fit its type and shape",
                }
            }
        })?;
        add(hash, &text);
    } else {
        add(hash, &attribute.data);
    }
    Ok(())
}

/// Adds the shape, and whether there is one; how far an axis may grow is no part of the content.
fn add_extent(hash: &mut Sha256, extent: &Dataspace) {
    let kind: &[u8] = match extent {
        Dataspace::Null => b"null",
        Dataspace::Scalar => b"scalar",
        Dataspace::Simple { .. } => b"simple",
    };
    add(hash, kind);
    hash.update((extent.shape().len() as u64).to_le_bytes());
    for axis in extent.shape() {
        hash.update(axis.to_le_bytes());
    }
}

/// Adds a part with its length, so that no two lists of parts hash alike.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}
