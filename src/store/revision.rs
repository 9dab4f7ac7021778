//! How people name a version: by its name, by steps back, by a time, or as the mounted tree does.

use super::history::{History, VersionIndex};
use super::time;

/// Why a text names no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// Neither a name nor anything else that is understood.
    #[error(
        "there is no version `{text}`, and it is not a time (such as 2020-06-29T23:58) or `NAME~N` either; `vh5fs log` lists the versions"
    )]
    Unknown {
        /// What was asked for, escaped.
        text: String,
    },
    /// Steps back that lead beyond the first version.
    #[error("`{text}` goes back beyond the first version")]
    TooFarBack {
        /// What was asked for, escaped.
        text: String,
    },
    /// A time before all versions.
    #[error("no version is as old as `{text}`")]
    TooEarly {
        /// What was asked for, escaped.
        text: String,
    },
    /// `current`, where the file has no version.
    #[error("the file has no version yet")]
    Empty,
}

/// The name of the current version, as the mounted tree has it.
const CURRENT: &[u8] = b"current";

impl History {
    /// The version that `text` names: its name as a path shows it, `current`, either of them with `~N` for N steps back along
    /// the parents, a time in ISO 8601 for the newest version at or before it, or `versions/NAME` and `at/TIME`, which
    /// leave no doubt. A name comes before `current`, and that before a time.
    ///
    /// # Errors
    /// [`RevisionError`].
    pub fn resolve(&self, text: &[u8]) -> Result<VersionIndex, RevisionError> {
        let shown = || text.escape_ascii().to_string();
        if let Some(time) = text.strip_prefix(b"at/") {
            return self
                .at_time(time, shown)
                .unwrap_or_else(|| Err(RevisionError::Unknown { text: shown() }));
        }
        let name = text.strip_prefix(b"versions/").unwrap_or(text);
        if let Some(found) = self.by_shown_name(name) {
            return Ok(found);
        }
        if let Some((name, steps)) = steps_back(name) {
            let start = match self.by_shown_name(name) {
                Some(start) => Some(start),
                None if name == CURRENT => Some(self.current().ok_or(RevisionError::Empty)?),
                None => None,
            };
            if let Some(start) = start {
                return self
                    .before(start, steps)
                    .ok_or_else(|| RevisionError::TooFarBack { text: shown() });
            }
        }
        self.at_time(name, shown)
            .unwrap_or_else(|| Err(RevisionError::Unknown { text: shown() }))
    }

    /// `None` where `text` is no time.
    fn at_time(
        &self,
        text: &[u8],
        shown: impl Fn() -> String,
    ) -> Option<Result<VersionIndex, RevisionError>> {
        let instant = time::parse_iso8601(std::str::from_utf8(text).ok()?)?;
        Some(
            self.at_or_before(instant)
                .ok_or_else(|| RevisionError::TooEarly { text: shown() }),
        )
    }
}

/// `NAME` is 0 steps back from it, `NAME~N` is N; more than fit a number are more than there are versions.
pub(crate) fn steps_back(text: &[u8]) -> Option<(&[u8], u64)> {
    let Some(tilde) = text.iter().rposition(|&byte| byte == b'~') else {
        return Some((text, 0));
    };
    let digits = std::str::from_utf8(&text[tilde + 1..]).ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| (&text[..tilde], digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::{name, sample};
    use super::*;

    #[test]
    fn a_version_has_many_names() {
        let history = sample();
        let found = |text: &str| {
            history
                .resolve(text.as_bytes())
                .map(|index| name(&history, Some(index)).to_owned())
        };
        for (text, version) in [
            ("r0", "r0"),
            ("current", "r1"),
            ("current~0", "r1"),
            ("current~1", "r0"),
            ("b~1", "r1"),
            ("b~2", "r0"),
            ("versions/a", "a"),
            ("versions/a~1", "r1"),
            ("2020-02-28", "r1"),
            ("at/2030", "a"),
        ] {
            assert_eq!(found(text).as_deref(), Ok(version), "{text}");
        }
        let text = |text: &str| text.to_owned();
        assert_eq!(
            found("b~3"),
            Err(RevisionError::TooFarBack { text: text("b~3") })
        );
        assert_eq!(
            found("2019"),
            Err(RevisionError::TooEarly { text: text("2019") })
        );
        for unknown in ["torn", "r0~x", "r0~", "at/r0", "", "~1"] {
            assert_eq!(
                found(unknown),
                Err(RevisionError::Unknown {
                    text: text(unknown)
                })
            );
        }
    }

    #[test]
    fn steps_behind_a_name() {
        assert_eq!(steps_back(b"current"), Some((&b"current"[..], 0)));
        assert_eq!(steps_back(b"a~b~12"), Some((&b"a~b"[..], 12)));
        assert_eq!(
            steps_back(b"current~99999999999999999999999"),
            Some((&b"current"[..], u64::MAX))
        );
        for text in [&b"current~"[..], b"current~x", b"current~-1"] {
            assert_eq!(steps_back(text), None);
        }
    }
}
