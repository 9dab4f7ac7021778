//! Findings as they come, bounded in number.

use super::finding::{Fact, Finding, Note};

/// So many findings are kept; of a file that is damaged all over, more say nothing new.
const MOST_FINDINGS: usize = 20_000;

/// A list of findings.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    omitted: u64,
    damages: u64,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.damages += u64::from(finding.is_damage());
        if self.kept.len() < MOST_FINDINGS {
            self.kept.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.push(finding);
        }
    }

    /// Counts damage that was not kept.
    pub(super) fn omit(&mut self, damages: u64) {
        self.omitted += damages;
        self.damages += damages;
    }

    /// What was kept, damage first, and how many damages there were.
    pub(super) fn finish(mut self) -> (Vec<Finding>, u64) {
        self.kept.sort_by_key(|finding| !finding.is_damage());
        if self.omitted > 0 {
            self.kept.push(Finding::new(Fact::Note(Note::Omitted {
                findings: self.omitted,
            })));
        }
        (self.kept, self.damages)
    }
}
