//! What versions say of themselves: whether they were finished, when, and from which one each was made.

use std::collections::HashMap;
use std::sync::Arc;

use super::finding::{Damage, Fact, Finding, Note};
use super::findings::Findings;
use crate::h5::{
    self, Address, Attribute, H5Error, LinkTarget, MetaReader, ObjectHeader, ObjectKind,
};
use crate::store::history::{FIRST_VERSION, integer_of, string_of};
use crate::store::time;

/// The layout that versioned-hdf5 writes now, and those before whose hash tables are wrong.
const DATA_VERSION: i64 = 4;
const WRONG_LAYOUTS: [i64; 2] = [2, 3];

/// What one version says.
struct Stated {
    name: Arc<[u8]>,
    is_finished: bool,
    parent: Option<Vec<u8>>,
}

/// Checks all versions of the group at `versions`, or the one called `only`.
///
/// # Errors
/// Damage of that group, on which everything depends.
pub(super) fn check(
    reader: &MetaReader,
    versions: Address,
    only: Option<&[u8]>,
    found: &mut Findings,
) -> Result<(), H5Error> {
    let mut all = Vec::new();
    for link in h5::links(reader, versions)? {
        if let LinkTarget::Hard(group) = link.target
            && link.name != FIRST_VERSION
        {
            let name: Arc<[u8]> = link.name.into();
            let is_wanted = only.is_none_or(|only| only == &*name);
            let mut about = Vec::new();
            all.push(
                stated(reader, &name, group, &mut about).unwrap_or_else(|error| {
                    about = vec![Fact::Damage(Damage::Object(error))];
                    Stated {
                        name: name.clone(),
                        is_finished: true,
                        parent: None,
                    }
                }),
            );
            if is_wanted {
                found.extend(
                    about
                        .into_iter()
                        .map(|fact| Finding::new(fact).in_version(&name)),
                );
            }
        }
    }
    check_parents(&all, only, found);
    check_file(reader, versions, &all, found)
}

fn stated(
    reader: &MetaReader,
    name: &Arc<[u8]>,
    group: Address,
    about: &mut Vec<Fact>,
) -> Result<Stated, H5Error> {
    let header = ObjectHeader::read(reader, group)?;
    if header.kind()? != ObjectKind::Group {
        about.push(Fact::Damage(Damage::Inconsistent {
            what: "it is not a group",
        }));
    }
    let mut wrong = |attribute, what| {
        about.push(Fact::Damage(Damage::VersionAttribute { attribute, what }));
    };
    let committed = h5::attribute_named(reader, &header, b"committed")?;
    let is_finished = match committed.as_ref().map(|attribute| &attribute.data[..]) {
        Some([1]) => true,
        Some([0]) | None => false,
        Some(other) => {
            wrong("committed", "is neither true nor false");
            other.iter().any(|&byte| byte != 0)
        }
    };
    let text = |name: &[u8]| -> Result<Option<Option<Vec<u8>>>, H5Error> {
        let attribute = h5::attribute_named(reader, &header, name)?;
        attribute
            .map(|attribute: Attribute| string_of(reader, &attribute))
            .transpose()
    };
    let mut parent = None;
    match text(b"prev_version") {
        Ok(Some(Some(name))) => parent = Some(name),
        Ok(Some(None)) => wrong("prev_version", "is not a string"),
        Ok(None) => wrong("prev_version", "is missing"),
        Err(_) => wrong("prev_version", "cannot be read"),
    }
    // It is the last that is written.
    if is_finished {
        match text(b"timestamp") {
            Ok(Some(Some(stamp))) => {
                let stamp = String::from_utf8(stamp).ok();
                if stamp.is_none_or(|stamp| time::parse_stored(&stamp).is_none()) {
                    wrong("timestamp", "is not a time as the format has it");
                }
            }
            Ok(Some(None)) => wrong("timestamp", "is not a string"),
            Ok(None) => wrong("timestamp", "is missing"),
            Err(_) => wrong("timestamp", "cannot be read"),
        }
    } else {
        about.push(Fact::Note(Note::Unfinished));
    }
    Ok(Stated {
        name: name.clone(),
        is_finished,
        parent,
    })
}

fn check_parents(all: &[Stated], only: Option<&[u8]>, found: &mut Findings) {
    let place: HashMap<&[u8], usize> = all
        .iter()
        .enumerate()
        .map(|(at, version)| (&*version.name, at))
        .collect();
    let parent_of = |at: usize| place.get(all[at].parent.as_deref()?).copied();
    // 0: not seen yet; else the number of the walk that saw it.
    let mut seen_by = vec![0usize; all.len()];
    let mut on_circle = vec![false; all.len()];
    for start in 0..all.len() {
        let walk = start + 1;
        let mut at = Some(start);
        while let Some(here) = at.filter(|&here| seen_by[here] == 0) {
            seen_by[here] = walk;
            at = parent_of(here);
        }
        // Back where this same walk was: all from there on are on a circle.
        while let Some(here) = at.filter(|&here| seen_by[here] == walk && !on_circle[here]) {
            on_circle[here] = true;
            at = parent_of(here);
        }
    }
    for (at, version) in all.iter().enumerate() {
        if only.is_some_and(|only| only != &*version.name) {
            continue;
        }
        let fact = match &version.parent {
            _ if on_circle[at] => Fact::Damage(Damage::ParentCircle),
            Some(parent) if parent != FIRST_VERSION && !place.contains_key(&parent[..]) => {
                Fact::Note(Note::ParentDeleted {
                    parent: parent.clone(),
                })
            }
            _ => continue,
        };
        found.push(Finding::new(fact).in_version(&version.name));
    }
}

/// The attributes of the group of all versions.
fn check_file(
    reader: &MetaReader,
    versions: Address,
    all: &[Stated],
    found: &mut Findings,
) -> Result<(), H5Error> {
    let header = ObjectHeader::read(reader, versions)?;
    let mut wrong = |attribute, what| {
        let damage = Damage::VersionAttribute { attribute, what };
        found.push(Finding::new(Fact::Damage(damage)));
    };
    let current = match h5::attribute_named(reader, &header, b"current_version")? {
        Some(attribute) => string_of(reader, &attribute)?,
        None => None,
    };
    let data_version = h5::attribute_named(reader, &header, b"data_version")?;
    let number = data_version.as_ref().map(integer_of);
    if current.is_none() {
        wrong("current_version", "is missing, or not a string");
    }
    if number == Some(None) {
        wrong("data_version", "is not a number");
    }
    if let Some(name) = current.filter(|name| name != FIRST_VERSION) {
        match all.iter().find(|version| *version.name == *name) {
            None => found.push(Finding::new(Fact::Damage(Damage::CurrentVersion { name }))),
            Some(version) if !version.is_finished => {
                found.push(Finding::new(Fact::Note(Note::CurrentUnfinished { name })));
            }
            Some(_) => {}
        }
    }
    if let Some(Some(data_version)) = number {
        let note = if WRONG_LAYOUTS.contains(&data_version) {
            Some(Note::OldLayout { data_version })
        } else if (1..=DATA_VERSION).contains(&data_version) {
            None
        } else {
            Some(Note::UnknownLayout { data_version })
        };
        found.extend(note.map(|note| Finding::new(Fact::Note(note))));
    }
    Ok(())
}
