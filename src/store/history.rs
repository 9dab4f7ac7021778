//! The versions of a file: their names, times and parents, and which one a name, a time or a number of steps back means.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::iter;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};

use super::{names, time};
use crate::h5::heap::{HeapReader, VlenReference};
use crate::h5::{
    self, Address, Attribute, Class, Dataspace, H5Error, H5File, Link, LinkTarget, MetaReader,
    ObjectHeader,
};

/// The format's own first version, which is never shown.
pub(super) const FIRST_VERSION: &[u8] = b"__first_version__";

/// What a version is known by across reloads of the file: a version that was deleted and made anew is another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionKey {
    /// Its name in the file.
    pub name: Arc<[u8]>,
    /// Its timestamp, nanoseconds since 1970, or 0 where it has none.
    pub timestamp_ns: i64,
}

/// Position of a version in one [`History`], and in those that were made of it by adding a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionIndex(pub u32);

/// A finished version.
#[derive(Debug, Clone)]
pub struct Version {
    /// Name and time.
    pub key: VersionKey,
    /// The name as a path carries it.
    pub shown_name: Vec<u8>,
    /// When it was committed; `None` where the file does not say it in a form that is understood.
    pub timestamp: Option<DateTime<Utc>>,
    /// The version's group.
    pub group: Address,
    /// The nearest finished version that it was made from.
    pub parent: Option<VersionIndex>,
}

impl Version {
    /// The timestamp as files have times; the epoch where there is none.
    #[must_use]
    pub fn system_time(&self) -> SystemTime {
        self.timestamp.map_or(UNIX_EPOCH, SystemTime::from)
    }

    /// Sorts the oldest first, and of equal times the one whose name sorts first last.
    fn time_order(&self) -> impl Ord + '_ {
        (self.timestamp, Reverse(&*self.key.name))
    }
}

/// All finished versions of a file.
#[derive(Debug, Clone)]
pub struct History {
    /// By their indexes. Shared with the history that this one adds to, so that a commit costs little however many there are.
    versions: Vec<Arc<Version>>,
    /// In the order of the names that they are shown by.
    by_shown_name: Vec<VersionIndex>,
    /// In the order of their names in the file.
    by_name: Vec<VersionIndex>,
    /// Oldest first; of equal times, the one whose name sorts first comes last, since it stands for them all.
    by_time: Vec<VersionIndex>,
    current: Option<VersionIndex>,
    /// As the file says; `None` where it does not.
    data_version: Option<i64>,
    /// Names of parents that are not there: a version of that name would become one.
    missing_parents: BTreeSet<Vec<u8>>,
}

/// A version as the file holds it, finished or not.
struct Found {
    name: Arc<[u8]>,
    group: Address,
    committed: bool,
    parent_name: Option<Vec<u8>>,
    timestamp: Option<DateTime<Utc>>,
}

impl Found {
    /// The version that it is, if it was finished.
    fn finished(&self, shown_name: Vec<u8>, parent: Option<VersionIndex>) -> Version {
        Version {
            key: VersionKey {
                name: self.name.clone(),
                timestamp_ns: self
                    .timestamp
                    .and_then(|time| time.timestamp_nanos_opt())
                    .unwrap_or(0),
            },
            shown_name,
            timestamp: self.timestamp,
            group: self.group,
            parent,
        }
    }
}

impl History {
    /// Reads the names and attributes of all versions below the group `versions`.
    ///
    /// # Errors
    /// Whatever is wrong with that group, or with a version's group.
    pub fn read(file: &H5File, versions: Address) -> Result<Self, H5Error> {
        let reader = file.reader();
        let (data_version, current_name) = read_own_attributes(&reader, versions)?;
        let mut found = Vec::new();
        for Link { name, target } in h5::links(&reader, versions)? {
            if let LinkTarget::Hard(group) = target
                && name != FIRST_VERSION
            {
                found.push(read_version(&reader, &name, group).unwrap_or_else(|error| {
                    // It is shown, and whoever enters it is told: hidden, it would seem never to have been.
                    log::error!("version {}: {error}", name.escape_ascii());
                    Found {
                        name: name.into(),
                        group,
                        committed: true,
                        parent_name: None,
                        timestamp: None,
                    }
                }));
            }
        }
        Ok(Self::build(&found, current_name.as_deref(), data_version))
    }

    /// This history with the version `name`, which was added to the group `versions` since; nothing else is read. `None` where it is not there, not
    /// finished, or the current version cannot be told so.
    ///
    /// # Errors
    /// Whatever is wrong with the version's group.
    pub(super) fn with_added(
        &self,
        reader: &MetaReader,
        versions: Address,
        name: &[u8],
    ) -> Result<Option<Self>, H5Error> {
        let (data_version, current_name) = read_own_attributes(reader, versions)?;
        let Some(LinkTarget::Hard(group)) =
            h5::find_link(reader, versions, name)?.map(|link| link.target)
        else {
            return Ok(None);
        };
        let added = read_version(reader, name, group)?;
        let shown_name = names::shown_name(&added.name);
        if !added.committed
            || self.by_name(&added.name).is_some()
            || self.missing_parents.contains(&*added.name)
            // How the others are shown depends on it.
            || *shown_name != *added.name
            || self.by_shown_name(&shown_name).is_some()
        {
            return Ok(None);
        }
        let parent = match added.parent_name.as_deref() {
            None | Some(FIRST_VERSION) => None,
            Some(parent) => match self.by_name(parent) {
                Some(index) => Some(index),
                None => return Ok(None),
            },
        };
        let index = index_at(self.versions.len());
        let current = match current_name.as_deref() {
            None => None,
            Some(name) if *name == *added.name => Some(index),
            Some(name) => match self.by_name(name) {
                Some(index) => Some(index),
                None => return Ok(None),
            },
        };
        let mut history = Self {
            current,
            data_version,
            ..self.clone()
        };
        let place = self.behind(&self.by_name, |version| version.key.name < added.name);
        history.by_name.insert(place, index);
        let place = self.behind(&self.by_shown_name, |version| {
            version.shown_name < shown_name
        });
        history.by_shown_name.insert(place, index);
        let version = added.finished(shown_name, parent);
        if version.timestamp.is_some() {
            let place = self.behind(&self.by_time, |other| {
                other.time_order() < version.time_order()
            });
            history.by_time.insert(place, index);
        }
        history.versions.push(Arc::new(version));
        Ok(Some(history))
    }

    fn build(found: &[Found], current_name: Option<&[u8]>, data_version: Option<i64>) -> Self {
        let all: HashMap<&[u8], usize> = found
            .iter()
            .enumerate()
            .map(|(i, f)| (&*f.name, i))
            .collect();
        let finished: Vec<usize> = (0..found.len()).filter(|&i| found[i].committed).collect();
        let index_of: HashMap<usize, VersionIndex> = finished
            .iter()
            .enumerate()
            .map(|(position, &i)| (i, index_at(position)))
            .collect();
        // The nearest finished version at `name` or before it. A file may claim a circle of parents: no more steps than versions.
        let nearest = |name: Option<&[u8]>| {
            let mut name = name;
            for _ in 0..=found.len() {
                let &i = all.get(name?)?;
                if let Some(&index) = index_of.get(&i) {
                    return Some(index);
                }
                name = found[i].parent_name.as_deref();
            }
            None
        };
        let shown = names::shown_names(finished.iter().map(|&i| &*found[i].name));
        let versions: Vec<Arc<Version>> = iter::zip(&finished, shown)
            .map(|(&i, shown_name)| {
                let parent = nearest(found[i].parent_name.as_deref());
                Arc::new(found[i].finished(shown_name, parent))
            })
            .collect();
        let version = |index: &VersionIndex| &*versions[index.0 as usize];
        let mut by_name: Vec<VersionIndex> = (0..versions.len()).map(index_at).collect();
        let mut by_shown_name = by_name.clone();
        let mut by_time = by_name.clone();
        by_name.sort_by_key(|index| &version(index).key.name);
        by_shown_name.sort_by_key(|index| &version(index).shown_name);
        by_time.retain(|index| version(index).timestamp.is_some());
        by_time.sort_by_key(|index| version(index).time_order());
        Self {
            by_shown_name,
            by_name,
            by_time,
            current: nearest(current_name),
            missing_parents: found
                .iter()
                .filter_map(|found| found.parent_name.as_deref())
                .filter(|&name| name != FIRST_VERSION && !all.contains_key(name))
                .map(<[u8]>::to_vec)
                .collect(),
            data_version,
            versions,
        }
    }

    /// The version at `index`, which must be of this history.
    #[must_use]
    pub fn version(&self, index: VersionIndex) -> &Version {
        &self.versions[index.0 as usize]
    }

    /// All versions, in the byte order of their names in the file.
    #[must_use = "an iterator does nothing by itself"]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (VersionIndex, &Version)> {
        self.by_name
            .iter()
            .map(|&index| (index, self.version(index)))
    }

    /// Whether this history was made of `old` by adding versions, so that those of `old` have the same indexes in both.
    pub(super) fn adds_to(&self, old: &Self) -> bool {
        self.versions.len() >= old.versions.len()
            && iter::zip(&self.versions, &old.versions)
                .all(|(now, before)| Arc::ptr_eq(now, before))
    }

    /// For each version of `old`, by its index there, the index here; `None` for one that is not here.
    pub(super) fn indexes_of(&self, old: &Self) -> Vec<Option<VersionIndex>> {
        if self.adds_to(old) {
            return (0..old.len()).map(|i| Some(index_at(i))).collect();
        }
        let versions = old.versions.iter();
        versions.map(|version| self.by_key(&version.key)).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// The version that is shown as `name`.
    #[must_use]
    pub fn by_shown_name(&self, name: &[u8]) -> Option<VersionIndex> {
        let order = &self.by_shown_name;
        let place = self.behind(order, |version| *version.shown_name < *name);
        let index = *order.get(place)?;
        (self.version(index).shown_name == name).then_some(index)
    }

    /// The version of that name in the file.
    fn by_name(&self, name: &[u8]) -> Option<VersionIndex> {
        let place = self.behind(&self.by_name, |version| *version.key.name < *name);
        let index = *self.by_name.get(place)?;
        (*self.version(index).key.name == *name).then_some(index)
    }

    /// How many of the sorted `order` are `before` something.
    fn behind(&self, order: &[VersionIndex], before: impl Fn(&Version) -> bool) -> usize {
        order.partition_point(|&index| before(self.version(index)))
    }

    /// The version of that name and time.
    #[must_use]
    pub fn by_key(&self, key: &VersionKey) -> Option<VersionIndex> {
        let index = self.by_name(&key.name)?;
        (self.version(index).key == *key).then_some(index)
    }

    /// The current version: the one that the file names, or its nearest finished ancestor.
    #[must_use]
    pub fn current(&self) -> Option<VersionIndex> {
        self.current
    }

    /// The version `steps` parents before the current one.
    #[must_use]
    pub fn before_current(&self, steps: u64) -> Option<VersionIndex> {
        self.before(self.current?, steps)
    }

    /// The version `steps` parents before `start`.
    #[must_use]
    pub fn before(&self, start: VersionIndex, steps: u64) -> Option<VersionIndex> {
        // A circle of parents is walked round: no need to go further than its length tells.
        let mut at = start;
        for _ in 0..steps.min(self.versions.len() as u64) {
            at = self.version(at).parent?;
        }
        (steps <= self.versions.len() as u64).then_some(at)
    }

    /// The newest version at `instant` or before it.
    #[must_use]
    pub fn at_or_before(&self, instant: DateTime<Utc>) -> Option<VersionIndex> {
        let behind = self.behind(&self.by_time, |version| version.timestamp <= Some(instant));
        self.by_time[..behind].last().copied()
    }

    /// Each distinct time with the version that stands for it, oldest first.
    pub fn times(&self) -> impl Iterator<Item = (DateTime<Utc>, VersionIndex)> {
        self.by_time.iter().enumerate().filter_map(|(i, &index)| {
            let time = self.version(index).timestamp?;
            let next = self
                .by_time
                .get(i + 1)
                .map(|&next| self.version(next).timestamp);
            (next != Some(Some(time))).then_some((time, index))
        })
    }

    /// The layout's number, 1 where the file does not say.
    #[must_use]
    pub fn data_version(&self) -> i64 {
        self.data_version.unwrap_or(1)
    }

    /// All versions, each behind its parent. A circle of parents, which only a damaged file has, is cut somewhere.
    #[must_use]
    pub fn parents_first(&self) -> Vec<VersionIndex> {
        let mut order = Vec::with_capacity(self.versions.len());
        let mut placed = vec![false; self.versions.len()];
        let mut line = Vec::new();
        for (index, _) in self.iter() {
            let mut at = Some(index);
            while let Some(next) = at.filter(|i| !placed[i.0 as usize]) {
                placed[next.0 as usize] = true;
                line.push(next);
                at = self.version(next).parent;
            }
            order.extend(line.drain(..).rev());
        }
        order
    }
}

fn index_at(position: usize) -> VersionIndex {
    VersionIndex(u32::try_from(position).expect("fewer than 2^32 versions"))
}

/// The layout's number and the name of the current version, as the group of all versions says them.
fn read_own_attributes(
    reader: &MetaReader,
    versions: Address,
) -> Result<(Option<i64>, Option<Vec<u8>>), H5Error> {
    let header = ObjectHeader::read(reader, versions)?;
    let data_version =
        h5::attribute_named(reader, &header, b"data_version")?.and_then(|a| integer_of(&a));
    let current_name = match h5::attribute_named(reader, &header, b"current_version")? {
        Some(attribute) => string_of(reader, &attribute)?,
        None => None,
    };
    Ok((data_version, current_name))
}

fn read_version(reader: &MetaReader, name: &[u8], group: Address) -> Result<Found, H5Error> {
    let header = ObjectHeader::read(reader, group)?;
    let committed = match h5::attribute_named(reader, &header, b"committed")? {
        Some(attribute) => attribute.data.iter().any(|&byte| byte != 0),
        None => false,
    };
    let text = |name: &[u8]| match h5::attribute_named(reader, &header, name)? {
        Some(attribute) => string_of(reader, &attribute),
        None => Ok(None),
    };
    let timestamp = text(b"timestamp")?
        .and_then(|text| String::from_utf8(text).ok())
        .and_then(|text| time::parse_stored(&text));
    let parent_name = text(b"prev_version")?;
    Ok(Found {
        name: name.into(),
        group,
        committed,
        parent_name,
        timestamp,
    })
}

/// The bytes of a scalar string attribute; `None` where it is something else.
pub(super) fn string_of(
    reader: &MetaReader,
    attribute: &Attribute,
) -> Result<Option<Vec<u8>>, H5Error> {
    if attribute.dataspace != Dataspace::Scalar && attribute.dataspace.len() != Some(1) {
        return Ok(None);
    }
    match &attribute.datatype.class {
        Class::VlenString { .. } => {
            let Some(reference) = attribute.data.first_chunk::<16>() else {
                return Ok(None);
            };
            let reference = VlenReference::decode(reference);
            let mut heap = HeapReader::new(reader, 0);
            Ok(Some(heap.read_vlen(reference, 1)?.into_owned()))
        }
        Class::FixedString { .. } => {
            let end = attribute.data.iter().position(|&byte| byte == 0);
            Ok(Some(
                attribute.data[..end.unwrap_or(attribute.data.len())].to_vec(),
            ))
        }
        _ => Ok(None),
    }
}

/// The value of a scalar little- or big-endian integer attribute.
pub(super) fn integer_of(attribute: &Attribute) -> Option<i64> {
    let Class::Integer { order, .. } = attribute.datatype.class else {
        return None;
    };
    let mut bytes = [0; 8];
    let data = attribute.data.get(..attribute.datatype.size.min(8))?;
    match order {
        h5::ByteOrder::Little => bytes[..data.len()].copy_from_slice(data),
        _ => data
            .iter()
            .rev()
            .zip(&mut bytes)
            .for_each(|(from, to)| *to = *from),
    }
    Some(i64::from_le_bytes(bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn found(name: &str, parent: &str, timestamp: &str, committed: bool) -> Found {
        Found {
            name: name.as_bytes().into(),
            group: Address(0),
            committed,
            parent_name: Some(parent.as_bytes().to_vec()),
            timestamp: timestamp.parse().ok(),
        }
    }

    pub(in super::super) fn name(history: &History, index: Option<VersionIndex>) -> &str {
        index.map_or("-", |i| {
            std::str::from_utf8(&history.version(i).key.name).unwrap()
        })
    }

    pub(in super::super) fn sample() -> History {
        let versions = [
            found("r0", "__first_version__", "2020-01-01T00:00:00Z", true),
            found("r1", "r0", "2020-02-01T00:00:00Z", true),
            found("torn", "r1", "2020-02-15T00:00:00Z", false),
            found("b", "torn", "2020-03-01T00:00:00Z", true),
            found("a", "r1", "2020-03-01T00:00:00Z", true),
            found("late", "b", "", true),
        ];
        History::build(&versions, Some(b"torn"), Some(4))
    }

    #[test]
    fn unfinished_versions_are_skipped() {
        let history = sample();
        assert_eq!(history.len(), 5);
        assert_eq!(history.by_shown_name(b"torn"), None);
        assert_eq!(name(&history, history.current()), "r1");
        let b = history.by_shown_name(b"b").unwrap();
        assert_eq!(name(&history, history.version(b).parent), "r1");
        assert_eq!(name(&history, history.before_current(1)), "r0");
        assert_eq!(history.before_current(2), None);
        assert_eq!(history.before_current(u64::MAX), None);
    }

    #[test]
    fn times_are_looked_up_at_or_before() {
        let history = sample();
        let at = |text| {
            name(
                &history,
                history.at_or_before(time::parse_iso8601(text).unwrap()),
            )
        };
        assert_eq!(at("2019"), "-");
        assert_eq!(at("2020"), "r0");
        assert_eq!(at("2020-02-28"), "r1");
        assert_eq!(
            at("2020-03-01"),
            "a",
            "of equal times the name that sorts first"
        );
        assert_eq!(at("2030"), "a");
        let listed: Vec<&str> = history
            .times()
            .map(|(_, index)| name(&history, Some(index)))
            .collect();
        assert_eq!(listed, ["r0", "r1", "a"]);
    }

    #[test]
    fn parents_come_first() {
        let history = sample();
        let order = history.parents_first();
        assert_eq!(order.len(), 5);
        let place = |index: VersionIndex| order.iter().position(|&i| i == index).unwrap();
        for (index, version) in history.iter() {
            if let Some(parent) = version.parent {
                assert!(place(parent) < place(index));
            }
        }
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let circle = [
            found("x", "y", "", false),
            found("y", "x", "", false),
            found("z", "z", "", true),
        ];
        let history = History::build(&circle, Some(b"x"), None);
        assert_eq!(history.current(), None);
        let history = History::build(&circle, Some(b"z"), None);
        assert_eq!(name(&history, history.before_current(1)), "z");
        assert_eq!(history.parents_first().len(), 1);
    }
}
