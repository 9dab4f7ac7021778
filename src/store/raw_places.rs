//! Where the raw data and the hash table of each dataset path are, below `/_version_data`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::tree::{Line, WalkBudget};
use crate::h5::{self, Address, H5Error, LinkTarget, MetaReader, ObjectHeader, ObjectKind};

/// Where the raw data of a dataset path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawPlace {
    pub(super) raw_data: Address,
    pub(super) hash_table: Option<Address>,
}

/// Where all raw data is.
#[derive(Debug, Default, Clone)]
pub(super) struct RawPlaces {
    pub(super) found: BTreeMap<Arc<[u8]>, RawPlace>,
    /// Below these paths there may be more: what leads there is damaged.
    pub(super) damaged: BTreeMap<Vec<u8>, H5Error>,
}

impl RawPlaces {
    /// Every `PATH/raw_data` below `/_version_data`, but for `versions`.
    ///
    /// # Errors
    /// Where `/_version_data` itself cannot be listed, or more links are met than the file can hold.
    pub(super) fn read(reader: &MetaReader, data: Address) -> Result<Self, H5Error> {
        let mut places = Self::default();
        let mut budget = WalkBudget::new(reader);
        let mut pending: Vec<(Vec<u8>, Address, Rc<Line>)> =
            vec![(Vec::new(), data, Line::begin(data))];
        while let Some((path, group, line)) = pending.pop() {
            let links = match h5::links(reader, group) {
                Ok(links) => links,
                Err(error) if path.is_empty() => return Err(error),
                Err(error) => {
                    places.damaged.insert(path, error);
                    continue;
                }
            };
            let hard = |wanted: &[u8]| {
                links.iter().find_map(|link| match link.target {
                    LinkTarget::Hard(address) if link.name == wanted => Some(address),
                    _ => None,
                })
            };
            if let Some(raw_data) = hard(b"raw_data").filter(|_| !path.is_empty()) {
                let hash_table = hard(b"hash_table");
                places.found.insert(
                    Arc::from(path.as_slice()),
                    RawPlace {
                        raw_data,
                        hash_table,
                    },
                );
            }
            for link in &links {
                let LinkTarget::Hard(address) = link.target else {
                    continue;
                };
                if path.is_empty() && link.name == b"versions" {
                    continue;
                }
                let mut child = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(&link.name);
                budget.spend(child.len(), group)?;
                let below = ObjectHeader::read(reader, address)
                    .and_then(|header| header.kind())
                    .and_then(|kind| {
                        let is_group = kind == ObjectKind::Group;
                        is_group.then(|| line.down_to(address)).transpose()
                    });
                match below {
                    Ok(Some(line)) => pending.push((child, address, line)),
                    Ok(None) => {}
                    Err(error) => {
                        places.damaged.insert(child, error);
                    }
                }
            }
        }
        for (path, error) in &places.damaged {
            log::error!("/_version_data/{}: {error}", path.escape_ascii());
        }
        Ok(places)
    }

    /// These places and those of `added` datasets, which are looked for below `/_version_data` at `data`; nothing else is read. `None` where one is
    /// not there.
    ///
    /// # Errors
    /// Damage of a group that leads to one.
    pub(super) fn with_added(
        &self,
        reader: &MetaReader,
        data: Address,
        added: &[Arc<[u8]>],
    ) -> Result<Option<Self>, H5Error> {
        let mut places = self.clone();
        for path in added {
            let mut group = data;
            let mut names = path.split(|&byte| byte == b'/');
            let hard = |group, name: &[u8]| -> Result<Option<Address>, H5Error> {
                Ok(
                    match h5::find_link(reader, group, name)?.map(|link| link.target) {
                        Some(LinkTarget::Hard(address)) => Some(address),
                        _ => None,
                    },
                )
            };
            let there = names.try_fold(true, |there, name| -> Result<bool, H5Error> {
                let next = if there { hard(group, name)? } else { None };
                group = next.unwrap_or(group);
                Ok(next.is_some())
            })?;
            let Some(raw_data) = there
                .then(|| hard(group, b"raw_data"))
                .transpose()?
                .flatten()
            else {
                return Ok(None);
            };
            let hash_table = hard(group, b"hash_table")?;
            let place = RawPlace {
                raw_data,
                hash_table,
            };
            places.found.insert(path.clone(), place);
        }
        Ok(Some(places))
    }

    pub(super) fn find(&self, path: &[u8]) -> Option<&RawPlace> {
        self.found.get(path)
    }

    /// What is wrong with the group at `path`, or with one that leads to it.
    pub(super) fn damage_above(&self, path: &[u8]) -> Option<&H5Error> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends = slashes.map(|(end, _)| end).chain([path.len()]);
        ends.into_iter()
            .find_map(|end| self.damaged.get(&path[..end]))
    }
}
