//! What is logged: the changes of the tree, by paths at the time of each, so that they can be made again over the same base.
//!
//! Paths are names as shown, joined by `/`; the root is the empty path.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::store::VersionKey;

/// What the log's records are written as; raised whenever their meaning changes.
pub(super) const FORMAT: u32 = 2;

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Record {
    /// The first record: what the changes are over.
    Begin(Begin),
    /// What comes behind was written after another start of the machine.
    Boot {
        /// See [`boot`](super::boot).
        boot: Option<String>,
    },
    /// The log was about to be synced, or had been.
    Synced {
        /// How much of the log was durable when this was written.
        durable_bytes: u64,
    },
    /// The commit that was begun before it made no version: all is still staged.
    CommitFailed,
    /// A change.
    #[serde(untagged)]
    Change(Change),
    /// A commit of all changes before it was begun. If the file has that version, made from the base, they are done with.
    #[serde(untagged)]
    Commit(CommitBegun),
}

/// What the changes of a log are over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// Device of the versioned file.
    pub(super) device: u64,
    /// Its inode.
    pub(super) inode: u64,
    /// The version that is edited; `None` where the file had none.
    pub(super) base: Option<BaseVersion>,
    /// Whether it was chosen, so that staging does not follow the current version.
    pub(super) pinned: bool,
    /// The start of the machine in which this was written; see [`boot`](super::boot).
    pub(super) boot: Option<String>,
}

/// A version, as a log names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BaseVersion {
    #[serde(with = "escaped")]
    name: Vec<u8>,
    timestamp_ns: i64,
}

impl From<&VersionKey> for BaseVersion {
    fn from(key: &VersionKey) -> Self {
        Self {
            name: key.name.to_vec(),
            timestamp_ns: key.timestamp_ns,
        }
    }
}

impl From<&BaseVersion> for VersionKey {
    fn from(base: &BaseVersion) -> Self {
        Self {
            name: Arc::from(&*base.name),
            timestamp_ns: base.timestamp_ns,
        }
    }
}

/// A commit that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommitBegun {
    /// The version that it makes.
    pub(super) commit: BaseVersion,
    /// Whether staging is to follow the current version after it.
    pub(super) make_current: bool,
}

impl Change {
    /// The overlay that it tells of.
    pub(super) fn overlay(&self) -> Option<u64> {
        match self {
            Self::Create { overlay, .. } | Self::Edit { overlay, .. } => Some(*overlay),
            Self::Npy { draft, .. } => *draft,
            _ => None,
        }
    }
}

/// A change of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Change {
    /// A new group.
    Mkdir {
        #[serde(with = "escaped")]
        path: Vec<u8>,
    },
    /// A new dataset, whose bytes are in an overlay.
    Create {
        #[serde(with = "escaped")]
        path: Vec<u8>,
        overlay: u64,
    },
    /// A dataset of the base gets an overlay.
    Edit {
        #[serde(with = "escaped")]
        path: Vec<u8>,
        overlay: u64,
        /// What the dataset is in the base, in hexadecimal digits, by which a file that only looks like the one that was edited is told from it;
        /// `None` where the file does not hold what is needed for that.
        digest: Option<String>,
    },
    /// A dataset or an empty group goes.
    Remove {
        #[serde(with = "escaped")]
        path: Vec<u8>,
    },
    /// A group or dataset moves, in place of what is there.
    Rename {
        #[serde(with = "escaped")]
        from: Vec<u8>,
        #[serde(with = "escaped")]
        to: Vec<u8>,
    },
    /// Two groups or datasets change places.
    Exchange {
        #[serde(with = "escaped")]
        from: Vec<u8>,
        #[serde(with = "escaped")]
        to: Vec<u8>,
    },
    /// A dataset is written as a .npy file; or it is what its bytes and attributes say.
    Npy {
        #[serde(with = "escaped")]
        path: Vec<u8>,
        /// As much of its header as there is.
        #[serde(with = "escaped_option")]
        header: Option<Vec<u8>>,
        /// The overlay of the data behind the header, where the dataset is yet to be made of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        draft: Option<u64>,
    },
    /// An attribute is set, or removed. Those that begin with `h5.` describe the array.
    Attribute {
        #[serde(with = "escaped")]
        path: Vec<u8>,
        #[serde(with = "escaped")]
        name: Vec<u8>,
        #[serde(with = "escaped_option")]
        value: Option<Vec<u8>>,
    },
}

/// Bytes as a JSON string: what is not printable ASCII, and `%`, as `%` and two hexadecimal digits.
mod escaped {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn to_text(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        for &byte in bytes {
            if matches!(byte, b' '..=b'~') && byte != b'%' {
                text.push(char::from(byte));
            } else {
                text.push('%');
                for digit in [byte >> 4, byte & 15] {
                    let digit = char::from_digit(u32::from(digit), 16).expect("below 16");
                    text.push(digit);
                }
            }
        }
        text
    }

    pub(super) fn from_text<E: Error>(text: &str) -> Result<Vec<u8>, E> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, behind @ ..] = rest {
            rest = behind;
            if *first != b'%' {
                bytes.push(*first);
                continue;
            }
            let digits = rest
                .split_at_checked(2)
                .and_then(|(digits, behind)| {
                    rest = behind;
                    std::str::from_utf8(digits).ok()
                })
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(digits.ok_or_else(|| E::custom("a % without two digits"))?);
        }
        Ok(bytes)
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_text(bytes))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        from_text(&String::deserialize(from)?)
    }
}

/// The same for bytes that may be missing.
mod escaped_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(super::escaped::to_text).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| super::escaped::from_text(&text))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        let records = [
            Record::Begin(Begin {
                format: FORMAT,
                device: u64::MAX,
                inode: 1,
                base: Some(BaseVersion {
                    name: all.clone(),
                    timestamp_ns: -1,
                }),
                pinned: true,
                boot: Some("b".to_owned()),
            }),
            Record::Boot { boot: None },
            Record::CommitFailed,
            Record::Synced {
                durable_bytes: u64::MAX,
            },
            Record::Change(Change::Edit {
                path: all.clone(),
                overlay: 1,
                digest: Some("00ff".to_owned()),
            }),
            Record::Change(Change::Rename {
                from: all.clone(),
                to: Vec::new(),
            }),
            Record::Change(Change::Attribute {
                path: b"a".to_vec(),
                name: all.clone(),
                value: Some(all.clone()),
            }),
            Record::Change(Change::Attribute {
                path: b"a".to_vec(),
                name: all.clone(),
                value: None,
            }),
            Record::Change(Change::Npy {
                path: b"a".to_vec(),
                header: Some(all.clone()),
                draft: Some(7),
            }),
            Record::Change(Change::Npy {
                path: b"a".to_vec(),
                header: None,
                draft: None,
            }),
            Record::Commit(CommitBegun {
                commit: BaseVersion {
                    name: all,
                    timestamp_ns: i64::MAX,
                },
                make_current: false,
            }),
        ];
        for record in records {
            let text = serde_json::to_vec(&record).unwrap();
            assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record);
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "%1", "%zz", "%\u{e9}"] {
            let json = serde_json::json!({ "op": "remove", "path": text });
            assert!(serde_json::from_value::<Record>(json).is_err(), "{text}");
        }
    }
}
