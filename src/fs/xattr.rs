//! Attributes as extended attributes.

use serde_json::json;

use super::FsError;
use crate::staging::StagedAttributes;
use crate::store::{
    AttributeText, CommitState, Dataset, Snapshot, StoreError, Structure, VersionIndex, spaced_json,
};

/// The only namespace there is.
const NAMESPACE: &[u8] = b"user.";
/// Longest name, namespace included (`XATTR_NAME_MAX`).
const NAME_MAX_BYTES: usize = 255;
/// Longest value (`XATTR_SIZE_MAX`), and longest list of names (`XATTR_LIST_MAX`).
const VALUE_MAX_BYTES: usize = 64 << 10;
/// What starts with this describes the array.
const STRUCTURAL: &[u8] = b"h5.";
/// Names what does not fit Linux's limits.
const OMITTED: &[u8] = b"h5.omitted";

/// A value, or why it cannot be had.
type Value = Result<Vec<u8>, StoreError>;

/// The extended attributes of one file or directory.
#[derive(Debug)]
pub(crate) struct Xattrs {
    /// Names without the namespace, and values.
    entries: Vec<(Vec<u8>, Value)>,
    /// Names of attributes that cannot be listed, because they, their values or the list would be too long, or because a structural
    /// one has their name.
    omitted: Vec<Vec<u8>>,
}

impl Xattrs {
    /// Of what carries none.
    pub(crate) fn none() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    /// Of the file that commits are made with: how far the one is that runs.
    pub(crate) fn of_commit(progress: Option<CommitState>) -> Self {
        let progress = progress.map(|progress| {
            let text = json!({
                "step": progress.step.name(),
                "done": progress.done,
                "of": progress.of,
            });
            (b"progress".to_vec(), spaced_json(&text))
        });
        Self::new(progress.into_iter().collect(), Vec::new())
    }

    /// Of a group.
    pub(crate) fn of_group(attributes: Vec<AttributeText>) -> Self {
        Self::new(Vec::new(), attributes)
    }

    /// Of a version's own directory.
    pub(crate) fn of_version(
        snapshot: &Snapshot,
        version: VersionIndex,
        mut attributes: Vec<AttributeText>,
    ) -> Self {
        // First, so that there is room for it however many the user has.
        attributes.sort_by_key(|attribute| attribute.name != b"timestamp");
        let mut structural = Vec::new();
        if let Some(parent) = snapshot.history().version(version).parent {
            let name = snapshot.history().version(parent).key.name.to_vec();
            structural.push((b"prev_version".to_vec(), name));
        }
        Self::new(structural, attributes)
    }

    /// Of a dataset.
    pub(crate) fn of_dataset(
        dataset: &Dataset,
        attributes: Vec<AttributeText>,
    ) -> Result<Self, StoreError> {
        let structural = Structure::of_dataset(dataset)?.texts();
        Ok(Self::new(structural, attributes))
    }

    /// Of something in `staging/`.
    pub(crate) fn of_staged(staged: StagedAttributes) -> Self {
        Self::new(staged.structural, staged.attributes)
    }

    fn new(structural: Vec<(Vec<u8>, Vec<u8>)>, attributes: Vec<AttributeText>) -> Self {
        let mut xattrs = Self {
            entries: structural
                .into_iter()
                .map(|(name, value)| (name, Ok(value)))
                .collect(),
            omitted: Vec::new(),
        };
        // Room for the name of the list of what is left out is always kept.
        let mut list_bytes: usize = listed_bytes(OMITTED)
            + xattrs
                .entries
                .iter()
                .map(|(name, _)| listed_bytes(name))
                .sum::<usize>();
        for AttributeText { name, value } in attributes {
            let is_taken = name.starts_with(STRUCTURAL)
                || xattrs.entries.iter().any(|(other, _)| *other == name);
            let is_long = value
                .as_ref()
                .is_ok_and(|value| value.len() > VALUE_MAX_BYTES);
            let name_fits = NAMESPACE.len() + name.len() <= NAME_MAX_BYTES
                && !name.is_empty()
                && !name.contains(&0);
            let list_fits = list_bytes + listed_bytes(&name) <= VALUE_MAX_BYTES;
            if is_taken || is_long || !name_fits || !list_fits {
                xattrs.omitted.push(name);
                continue;
            }
            list_bytes += listed_bytes(&name);
            let value = value.map_err(|error| StoreError::Attribute {
                name: name.clone(),
                error,
            });
            xattrs.entries.push((name, value));
        }
        xattrs
    }

    /// The value of `name`, namespace included.
    pub(crate) fn value(&self, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let name = name.strip_prefix(NAMESPACE).ok_or(FsError::NotSupported)?;
        if name == OMITTED && !self.omitted.is_empty() {
            return Ok(self.omitted_text());
        }
        if self.omitted.iter().any(|other| other == name) && !name.starts_with(STRUCTURAL) {
            return Err(FsError::AttributeTooBig);
        }
        match self.entries.iter().find(|(other, _)| other == name) {
            Some((_, Ok(value))) => Ok(value.clone()),
            Some((_, Err(error))) => Err(FsError::Store(error.clone())),
            None => Err(FsError::NoAttribute),
        }
    }

    /// All names that can be listed, each followed by a NUL.
    pub(crate) fn list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        let mut add = |name: &[u8]| {
            list.extend_from_slice(NAMESPACE);
            list.extend_from_slice(name);
            list.push(0);
        };
        for (name, _) in &self.entries {
            add(name);
        }
        if !self.omitted.is_empty() {
            add(OMITTED);
        }
        list
    }

    /// A JSON list of the names that were left out, cut short where it would be too long itself.
    fn omitted_text(&self) -> Vec<u8> {
        let mut names: Vec<String> = self
            .omitted
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        loop {
            let text = spaced_json(&json!(names));
            if text.len() <= VALUE_MAX_BYTES {
                return text;
            }
            let half = names.len() / 2;
            names.truncate(half);
            names.push("...".to_owned());
        }
    }
}

fn listed_bytes(name: &[u8]) -> usize {
    NAMESPACE.len() + name.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &[u8], value: &[u8]) -> AttributeText {
        AttributeText {
            name: name.to_vec(),
            value: Ok(value.to_vec()),
        }
    }

    fn names(xattrs: &Xattrs) -> Vec<String> {
        let list = xattrs.list();
        let parts = list
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty());
        parts
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn what_is_there_is_listed_and_read() {
        let xattrs = Xattrs::of_group(vec![
            attribute(b"units", b"m"),
            attribute(b"x.y", b"[1, 2]"),
        ]);
        assert_eq!(names(&xattrs), ["user.units", "user.x.y"]);
        assert_eq!(xattrs.value(b"user.units").unwrap(), b"m");
        assert!(matches!(
            xattrs.value(b"user.other"),
            Err(FsError::NoAttribute)
        ));
        assert!(matches!(
            xattrs.value(b"user.h5.omitted"),
            Err(FsError::NoAttribute)
        ));
        assert!(matches!(
            xattrs.value(b"security.selinux"),
            Err(FsError::NotSupported)
        ));
    }

    #[test]
    fn a_value_that_is_too_long_is_named_and_not_listed() {
        let xattrs = Xattrs::of_group(vec![
            attribute(b"fits", &[b'x'; VALUE_MAX_BYTES]),
            attribute(b"long", &[b'x'; VALUE_MAX_BYTES + 1]),
        ]);
        assert_eq!(names(&xattrs), ["user.fits", "user.h5.omitted"]);
        assert_eq!(xattrs.value(b"user.fits").unwrap().len(), VALUE_MAX_BYTES);
        assert!(matches!(
            xattrs.value(b"user.long"),
            Err(FsError::AttributeTooBig)
        ));
        assert_eq!(xattrs.value(b"user.h5.omitted").unwrap(), b"[\"long\"]");
    }

    #[test]
    fn names_that_do_not_fit_are_named() {
        let long = [b'n'; 251];
        let xattrs = Xattrs::of_group(vec![
            attribute(&long, b"1"),
            attribute(b"h5.dtype", b"2"),
            attribute(&long[1..], b"3"),
        ]);
        assert_eq!(names(&xattrs).len(), 2);
        assert_eq!(xattrs.omitted, [long.to_vec(), b"h5.dtype".to_vec()]);
    }

    #[test]
    fn a_list_that_is_too_long_is_cut() {
        let attributes = (0..1000)
            .map(|i| attribute(format!("{i:0200}").as_bytes(), b"1"))
            .collect();
        let xattrs = Xattrs::of_group(attributes);
        assert!(xattrs.list().len() <= VALUE_MAX_BYTES);
        assert_eq!(names(&xattrs).len() - 1 + xattrs.omitted.len(), 1000);
        assert!(xattrs.value(b"user.h5.omitted").unwrap().len() <= VALUE_MAX_BYTES);
        let value_of = |i: usize| xattrs.value(format!("user.{i:0200}").as_bytes());
        assert_eq!(value_of(0).unwrap(), b"1");
        assert!(matches!(value_of(999), Err(FsError::AttributeTooBig)));
    }
}
