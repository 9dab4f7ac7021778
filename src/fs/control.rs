//! The control files of `staging/`: their names, and what is written to them.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::staging::CommitRequest;
use crate::store::time;

/// A file in `staging/` that does something when it is written to or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Control {
    /// `.commit`: makes the next version.
    Commit,
    /// `.status`: says what that would be.
    Status,
    /// `.reset`: drops what is staged.
    Reset,
}

impl Control {
    pub(crate) const ALL: [Self; 3] = [Self::Commit, Self::Status, Self::Reset];

    /// The control file that `name` means in the root of `staging/`.
    pub(crate) fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|control| control.name() == name)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static [u8] {
        match self {
            Self::Commit => b".commit",
            Self::Status => b".status",
            Self::Reset => b".reset",
        }
    }

    /// Whether it may be opened for writing and its times may be set.
    pub(crate) fn is_writable(self) -> bool {
        self != Self::Status
    }
}

/// Why what was written to a control file is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It starts as a JSON object does and is none.
    #[error("what was written to .commit starts with `{{` but is not a JSON object: {0}")]
    NotJson(String),
    /// A key that nothing is known of.
    #[error(
        "what was written to .commit has the unknown key {0:?}; known are \"name\", \"timestamp\" and \"make_current\""
    )]
    UnknownKey(String),
    /// A value of the wrong type.
    #[error("what was written to .commit has a {key:?} that is not {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What its value has to be.
        expected: &'static str,
    },
    /// Not a time.
    #[error("the timestamp {0:?} is not a time in ISO 8601, such as 2026-11-22T21:34:00Z")]
    BadTimestamp(String),
    /// A time that is set on `.commit` and that no calendar has.
    #[error("the time that was set on .commit is too far from now for a timestamp")]
    TimeOutOfRange,
}

/// What a write to `.commit` asks for: a name, or all that can be said in a JSON object. A version without a name gets one made from
/// the time.
///
/// # Errors
/// Any [`ControlError`] but [`ControlError::TimeOutOfRange`].
pub(crate) fn commit_request(text: &[u8]) -> Result<CommitRequest, ControlError> {
    if text.trim_ascii_start().first() == Some(&b'{') {
        return described_commit(text);
    }
    let name = one_line(text);
    Ok(CommitRequest {
        name: (!name.is_empty()).then(|| name.to_vec()),
        timestamp: None,
        make_current: true,
    })
}

/// The commit that setting the modification time of `.commit` asks for; `None` is "now".
pub(crate) fn commit_at(timestamp: Option<DateTime<Utc>>) -> CommitRequest {
    CommitRequest {
        name: None,
        timestamp,
        make_current: true,
    }
}

/// The version that a write to `.reset` starts over from; `None` where it is the current one.
pub(crate) fn reset_target(text: &[u8]) -> Option<&[u8]> {
    let name = one_line(text);
    (!name.is_empty()).then_some(name)
}

fn described_commit(text: &[u8]) -> Result<CommitRequest, ControlError> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| ControlError::NotJson(error.to_string()))?;
    let mut request = commit_at(None);
    for (key, value) in object {
        match (key.as_str(), value) {
            // As if the key were not there.
            ("name" | "timestamp" | "make_current", Value::Null) => {}
            ("name", Value::String(name)) => {
                request.name = (!name.is_empty()).then(|| name.into_bytes());
            }
            ("timestamp", Value::String(text)) => {
                let instant = time::parse_iso8601(&text);
                request.timestamp = Some(instant.ok_or(ControlError::BadTimestamp(text))?);
            }
            ("make_current", Value::Bool(make_current)) => request.make_current = make_current,
            ("name", _) => {
                return Err(ControlError::WrongType {
                    key: "name",
                    expected: "a string",
                });
            }
            ("timestamp", _) => {
                return Err(ControlError::WrongType {
                    key: "timestamp",
                    expected: "a string",
                });
            }
            ("make_current", _) => {
                return Err(ControlError::WrongType {
                    key: "make_current",
                    expected: "true or false",
                });
            }
            (_, _) => return Err(ControlError::UnknownKey(key)),
        }
    }
    Ok(request)
}

/// Without the newline that `echo` puts behind what it writes.
fn one_line(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_one_newline_and_nothing_else() {
        let name = |text: &[u8]| commit_request(text).unwrap().name;
        assert_eq!(name(b"r7\n"), Some(b"r7".to_vec()));
        assert_eq!(name(b"r7"), Some(b"r7".to_vec()));
        assert_eq!(name(b" r 7 \n\n"), Some(b" r 7 \n".to_vec()));
        assert_eq!(name(b"\xff"), Some(b"\xff".to_vec()));
        assert_eq!(name(b"\n"), None);
        assert_eq!(name(b""), None);
    }

    #[test]
    fn an_object_sets_all_three() {
        let request = commit_request(
            b" {\"name\": \"r7\", \"timestamp\": \"2020-06-29T23:58+02:00\", \"make_current\": false}\n",
        )
        .unwrap();
        assert_eq!(request.name, Some(b"r7".to_vec()));
        assert_eq!(
            request.timestamp,
            Some("2020-06-29T21:58:00Z".parse().unwrap())
        );
        assert!(!request.make_current);
        let request = commit_request(b"{}").unwrap();
        assert_eq!((request.name, request.timestamp), (None, None));
        assert!(request.make_current);
        let request = commit_request(b"{\"name\": null, \"timestamp\": null}").unwrap();
        assert_eq!((request.name, request.timestamp), (None, None));
    }

    #[test]
    fn an_object_that_says_something_else_is_refused() {
        let error = |text: &[u8]| commit_request(text).unwrap_err();
        assert_eq!(
            error(b"{\"nam\": \"r7\"}"),
            ControlError::UnknownKey("nam".into())
        );
        assert!(matches!(
            error(b"{\"name\": \"r7\""),
            ControlError::NotJson(_)
        ));
        assert!(matches!(error(b"{} {}"), ControlError::NotJson(_)));
        for text in [
            &b"{\"name\": 7}"[..],
            b"{\"timestamp\": 7}",
            b"{\"make_current\": 1}",
        ] {
            assert!(matches!(error(text), ControlError::WrongType { .. }));
        }
        assert_eq!(
            error(b"{\"timestamp\": \"yesterday\"}"),
            ControlError::BadTimestamp("yesterday".into())
        );
    }

    #[test]
    fn a_reset_names_a_version_or_none() {
        assert_eq!(reset_target(b"r1\n"), Some(&b"r1"[..]));
        assert_eq!(reset_target(b"\n"), None);
    }

    #[test]
    fn names_and_files_belong_together() {
        for control in Control::ALL {
            assert_eq!(Control::of_name(control.name()), Some(control));
        }
        assert_eq!(Control::of_name(b".commit2"), None);
    }
}
