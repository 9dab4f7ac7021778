//! Lines of versions drawn with characters, as `git log --graph` does it.

use crate::store::{History, VersionIndex};

/// The versions from the newest to the oldest, no parent before its children.
pub(super) fn newest_first(history: &History) -> Vec<VersionIndex> {
    let mut children = vec![0usize; history.len()];
    let parent_of = |index: VersionIndex| {
        history
            .version(index)
            .parent
            .filter(|&parent| parent != index)
    };
    for (index, _) in history.iter() {
        if let Some(parent) = parent_of(index) {
            children[parent.0 as usize] += 1;
        }
    }
    let time = |index: VersionIndex| (history.version(index).timestamp, index);
    let mut ready: std::collections::BTreeSet<_> = history
        .iter()
        .filter(|(index, _)| children[index.0 as usize] == 0)
        .map(|(index, _)| time(index))
        .collect();
    let mut order = Vec::with_capacity(history.len());
    while let Some((_, index)) = ready.pop_last() {
        order.push(index);
        if let Some(parent) = parent_of(index) {
            let left = &mut children[parent.0 as usize];
            *left -= 1;
            if *left == 0 {
                ready.insert(time(parent));
            }
        }
    }
    // Parents in a circle, which only a damaged file has, are nobody's end.
    let missing: Vec<VersionIndex> = {
        let mut seen = vec![false; history.len()];
        for index in &order {
            seen[index.0 as usize] = true;
        }
        history
            .iter()
            .map(|(index, _)| index)
            .filter(|index| !seen[index.0 as usize])
            .collect()
    };
    order.extend(missing);
    order
}

/// Lanes of lines that go down to parents which are still to come.
#[derive(Debug, Default)]
pub(super) struct Graph {
    lanes: Vec<Option<VersionIndex>>,
}

/// What stands left of a version's lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Margins {
    /// A line of its own, where lanes join above the version.
    pub(super) joining: Option<String>,
    /// Of the version's first line.
    pub(super) first: String,
    /// Of its other lines.
    pub(super) others: String,
}

impl Graph {
    /// Places the next version, whose children were all placed before.
    pub(super) fn place(&mut self, version: VersionIndex, parent: Option<VersionIndex>) -> Margins {
        let waiting: Vec<usize> = (0..self.lanes.len())
            .filter(|&lane| self.lanes[lane] == Some(version))
            .collect();
        let own = match waiting.first() {
            Some(&lane) => lane,
            None => self.free_lane(),
        };
        let joining = (waiting.len() > 1).then(|| self.joining_line(&waiting));
        for &lane in waiting.iter().skip(1) {
            self.lanes[lane] = None;
        }
        self.lanes[own] = Some(version);
        self.drop_free_ends();
        let first = self.margin(|lane| if lane == own { '*' } else { '|' });
        self.lanes[own] = parent;
        self.drop_free_ends();
        let mut others = self.margin(|_| '|');
        while others.len() < first.len() {
            others.push(' ');
        }
        Margins {
            joining,
            first,
            others,
        }
    }

    fn drop_free_ends(&mut self) {
        while self.lanes.last() == Some(&None) {
            self.lanes.pop();
        }
    }

    fn free_lane(&mut self) -> usize {
        if let Some(lane) = self.lanes.iter().position(Option::is_none) {
            return lane;
        }
        self.lanes.push(None);
        self.lanes.len() - 1
    }

    fn margin(&self, mark: impl Fn(usize) -> char) -> String {
        (0..self.lanes.len())
            .flat_map(|lane| {
                [
                    if self.lanes[lane].is_some() {
                        mark(lane)
                    } else {
                        ' '
                    },
                    ' ',
                ]
            })
            .collect()
    }

    /// `|/`, or `|_|/` where lanes lie between.
    fn joining_line(&self, waiting: &[usize]) -> String {
        let mut line: Vec<char> = self.margin(|_| '|').chars().collect();
        let own = waiting[0];
        for &lane in &waiting[1..] {
            line[2 * lane] = ' ';
            line[2 * lane - 1] = '/';
            for between in &mut line[2 * own + 1..2 * lane - 1] {
                if *between == ' ' {
                    *between = '_';
                }
            }
        }
        String::from_iter(line).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The drawing of versions, each with its parent.
    fn drawn(versions: &[(u32, Option<u32>)]) -> Vec<String> {
        let mut graph = Graph::default();
        let mut lines = Vec::new();
        for &(version, parent) in versions {
            let margins = graph.place(VersionIndex(version), parent.map(VersionIndex));
            lines.extend(margins.joining);
            lines.push(format!("{}{version}", margins.first));
        }
        lines
    }

    #[test]
    fn a_line_is_a_line() {
        assert_eq!(
            drawn(&[(3, Some(2)), (2, Some(1)), (1, None)]),
            ["* 3", "* 2", "* 1"]
        );
    }

    #[test]
    fn branches_join_above_their_origin() {
        assert_eq!(
            drawn(&[
                (5, Some(2)),
                (4, Some(3)),
                (3, Some(1)),
                (2, Some(1)),
                (1, None)
            ]),
            ["* 5", "| * 4", "| * 3", "* | 2", "|/", "* 1"]
        );
    }

    #[test]
    fn lanes_between_are_crossed_and_freed_lanes_used_again() {
        assert_eq!(
            drawn(&[
                (9, Some(1)),
                (8, Some(2)),
                (7, Some(1)),
                (6, Some(1)),
                (1, None),
                (5, Some(2)),
                (2, None),
                (4, None)
            ]),
            [
                "* 9",
                "| * 8",
                "| | * 7",
                "| | | * 6",
                "|_|/_/",
                "* | 1",
                "* | 5",
                "|/",
                "* 2",
                "* 4"
            ]
        );
    }
}
