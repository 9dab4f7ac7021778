//! What can be wrong with a new version before its datasets are looked at.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use chrono::Datelike;

use crate::h5::{self, MetaReader};
use crate::store::attributes::check_values;
use crate::store::{
    ChildKind, CommitError, NAME_MAX_BYTES, NewContent, NewVersion, Snapshot, StoreError,
    VersionTree,
};

/// The layout that the library writes.
const DATA_VERSION: i64 = 4;
/// Layouts whose hash tables are wrong.
const WRONG_HASHES: [i64; 2] = [2, 3];
/// What lies beside a dataset's path in the place where the format keeps its chunks.
const OWN_NAMES: [&[u8]; 2] = [RAW_DATA, b"hash_table"];
const RAW_DATA: &[u8] = b"raw_data";

/// Whether the format can hold a version of that name, and the file has none.
///
/// # Errors
/// [`CommitError::BadVersionName`], [`CommitError::NameTaken`]; damage of the group of all versions.
pub(super) fn check_name(name: &[u8], snapshot: &Snapshot, path: &Path) -> Result<(), CommitError> {
    let what = if name.is_empty() {
        "it is empty"
    } else if name.contains(&b'/') {
        "it has a slash"
    } else if name.iter().any(u8::is_ascii_control) {
        "it has a control character"
    } else if matches!(name, b"." | b"..") {
        "it stands for a directory"
    } else if name.len() > NAME_MAX_BYTES {
        "it is longer than 255 bytes"
    } else if std::str::from_utf8(name).is_err() {
        "it is not UTF-8"
    } else {
        let reader = snapshot.file.h5.reader();
        // Versions that were never finished have a name too.
        let link = h5::find_link(&reader, snapshot.versions_group(), name)
            .map_err(|error| damaged(path, error))?;
        return match link {
            None => Ok(()),
            Some(_) => Err(CommitError::NameTaken {
                name: name.to_vec(),
            }),
        };
    };
    Err(CommitError::BadVersionName {
        name: name.to_vec(),
        what,
    })
}

pub(super) fn damaged(path: &Path, error: h5::H5Error) -> CommitError {
    CommitError::Read(StoreError::Damaged {
        path: path.to_owned(),
        error,
    })
}

/// Whether the time can be written in the format's way, with a year of four digits.
///
/// # Errors
/// [`CommitError::Timestamp`].
pub(super) fn check_timestamp(new: &NewVersion<'_>) -> Result<(), CommitError> {
    if (1000..=9999).contains(&new.timestamp.year()) {
        Ok(())
    } else {
        Err(CommitError::Timestamp {
            timestamp: new.timestamp,
        })
    }
}

/// Whether the file's layout is one that can be written to. `Some` is the number that it has to be given.
///
/// # Errors
/// [`CommitError::Layout`], [`CommitError::UnknownLayout`]; damage that keeps it from being told.
pub(super) fn check_layout(snapshot: &Snapshot, path: &Path) -> Result<Option<i64>, CommitError> {
    let data_version = snapshot.history().data_version();
    let refused = |has_strings| CommitError::Layout {
        path: path.to_owned(),
        data_version,
        has_strings,
    };
    match data_version {
        DATA_VERSION => Ok(None),
        1 => {
            let reader = snapshot.file.h5.reader();
            if has_strings(snapshot, &reader).map_err(|error| damaged(path, error))? {
                return Err(refused(true));
            }
            Ok(Some(DATA_VERSION))
        }
        number if WRONG_HASHES.contains(&number) => Err(refused(false)),
        data_version => Err(CommitError::UnknownLayout {
            path: path.to_owned(),
            data_version,
        }),
    }
}

/// Whether the C library can be asked to change the attributes of the group of all versions.
///
/// # Errors
/// Their damage.
pub(super) fn check_versions_group(snapshot: &Snapshot, path: &Path) -> Result<(), CommitError> {
    let file = &snapshot.file.h5;
    let reader = file.reader();
    let names: [&[u8]; 2] = [b"_version_data", b"versions"];
    let check = || {
        let Some(group) = h5::find_path(&reader, file.root(), file.root(), &names)? else {
            return Ok(());
        };
        let header = h5::ObjectHeader::read(&reader, group)?;
        check_values(&reader, h5::attributes(&reader, &header)?.iter())
    };
    check().map_err(|error| damaged(path, error))
}

/// Whether any raw data holds strings of variable length.
fn has_strings(snapshot: &Snapshot, reader: &MetaReader) -> Result<bool, h5::H5Error> {
    for place in snapshot.raw_places().found.values() {
        let header = h5::ObjectHeader::read(reader, place.raw_data)?;
        if h5::DatasetHeader::read(reader, &header)?
            .datatype
            .contains_pointers()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the format can hold objects at all these paths, each behind its parent.
///
/// # Errors
/// [`CommitError::BadPath`].
pub(super) fn check_paths(new: &NewVersion<'_>, snapshot: &Snapshot) -> Result<(), CommitError> {
    let bad = |path: &[u8], what| CommitError::BadPath {
        path: path.to_vec(),
        what,
    };
    let mut seen: BTreeSet<&[u8]> = BTreeSet::new();
    let mut groups: BTreeSet<&[u8]> = BTreeSet::from([&b""[..]]);
    let mut stored: BTreeSet<&[u8]> = snapshot
        .raw_places()
        .found
        .keys()
        .map(AsRef::as_ref)
        .collect();
    for object in &new.objects {
        let path = &*object.path;
        let parts = || path.split(|&byte| byte == b'/');
        if parts().any(|part| part.is_empty() || part.contains(&0)) {
            return Err(bad(path, "a name is empty, or has a NUL"));
        }
        if parts().any(|part| matches!(part, b"." | b"..")) {
            return Err(bad(path, "HDF5 has no objects named . or .."));
        }
        if parts().next() == Some(b"versions") {
            return Err(bad(
                path,
                "the format keeps the versions themselves under the name versions",
            ));
        }
        let parent = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        if !groups.contains(&path[..parent]) {
            return Err(bad(path, "it is not behind a group that holds it"));
        }
        if !seen.insert(path) {
            return Err(bad(path, "there are two objects of that path"));
        }
        match object.content {
            NewContent::Group => {
                groups.insert(path);
            }
            NewContent::Unchanged => {}
            NewContent::Written(_) if path.contains(&b'%') => {
                return Err(bad(
                    path,
                    "the Python library cannot edit a version with a % in the path of a dataset",
                ));
            }
            NewContent::Written(_) if parts().skip(1).any(|part| part == RAW_DATA) => {
                return Err(bad(
                    path,
                    "the Python library takes a group that holds raw_data for a dataset",
                ));
            }
            NewContent::Written(_) => {
                stored.insert(path);
            }
        }
    }
    for object in &new.objects {
        if matches!(object.content, NewContent::Written(_)) && collides(&object.path, &stored) {
            return Err(bad(
                &object.path,
                "the format keeps chunks of another dataset under the names raw_data and hash_table there",
            ));
        }
    }
    Ok(())
}

/// Whether each path keeps its kind: the Python library rebuilds hash tables and deletes versions on the assumption that what a path with raw
/// data names is a dataset in every version. `base` is the version that the new one is made from, whose own objects are not questioned.
///
/// # Errors
/// [`CommitError::BadPath`].
pub(super) fn check_kinds(
    new: &NewVersion<'_>,
    snapshot: &Snapshot,
    base: Option<&VersionTree>,
) -> Result<(), CommitError> {
    let stored = &snapshot.raw_places().found;
    let is_group = |path: &[u8]| {
        let there = base.and_then(|tree| tree.child(path));
        there.is_some_and(|child| matches!(child.kind, ChildKind::Group))
    };
    for object in &new.objects {
        let path = &object.path;
        let what = match object.content {
            NewContent::Group if stored.contains_key(path) && !is_group(path) => {
                "there was a dataset of that path, which the Python library does not let become a group"
            }
            NewContent::Written(_) if !stored.contains_key(path) => {
                let below = [path, &b"/"[..]].concat();
                let from = (Bound::Included(&below[..]), Bound::Unbounded);
                let next = stored.range::<[u8], _>(from).next();
                let had_datasets = next.is_some_and(|(other, _)| other.starts_with(&below));
                if !had_datasets && !is_group(path) {
                    continue;
                }
                "there was a group of that path, which the Python library does not let become a dataset"
            }
            _ => continue,
        };
        return Err(CommitError::BadPath {
            path: path.to_vec(),
            what,
        });
    }
    Ok(())
}

/// Whether what the format keeps for the dataset at `path` would lie where it keeps that of another one of `stored`.
fn collides(path: &Arc<[u8]>, stored: &BTreeSet<&[u8]>) -> bool {
    OWN_NAMES.iter().any(|own| {
        let here = [path, *own].join(&b'/');
        let below = [&here[..], b"/"].concat();
        let is_below = stored
            .range::<[u8], _>((Bound::Included(&below[..]), Bound::Unbounded))
            .next()
            .is_some_and(|other| other.starts_with(&below));
        let is_within = path.iter().enumerate().any(|(at, &byte)| {
            let rest = &path[at..];
            byte == b'/'
                && rest[1..]
                    .strip_prefix(*own)
                    .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
                && stored.contains(&path[..at])
        });
        stored.contains(&here[..]) || is_below || is_within
    })
}
