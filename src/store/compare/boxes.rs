//! Cells of a grid gathered into boxes, so that a change reads as a few ranges and not as a list of chunks.

use std::collections::HashMap;
use std::ops::Range;

/// One range of indexes along each axis, slowest first.
pub(super) type GridBox = Vec<Range<u64>>;

/// Gathers `cells`, which are numbers of cells in C order of `grid`, ascending, into boxes: runs along the fastest axis, then
/// equal runs along the next one, and so on. The boxes are disjoint and hold exactly these cells, in the order of their first ones.
pub(super) fn boxes_of(grid: &[u64], cells: impl Iterator<Item = u64>) -> Vec<GridBox> {
    let Some(&row) = grid.last() else {
        return Vec::new();
    };
    let mut boxes: Vec<GridBox> = Vec::new();
    let mut run: Option<Range<u64>> = None;
    for cell in cells {
        match &mut run {
            Some(run) if run.end == cell && cell % row != 0 => run.end += 1,
            _ => boxes.extend(run.replace(cell..cell + 1).map(|run| run_box(grid, &run))),
        }
    }
    boxes.extend(run.map(|run| run_box(grid, &run)));
    for axis in (0..grid.len() - 1).rev() {
        boxes = joined_along(axis, boxes);
    }
    boxes
}

/// The box of cells side by side in one row.
fn run_box(grid: &[u64], run: &Range<u64>) -> GridBox {
    let mut rest = run.start;
    let mut found: GridBox = grid
        .iter()
        .rev()
        .map(|&extent| {
            let at = rest % extent;
            rest /= extent;
            at..at + 1
        })
        .collect();
    found[0].end = found[0].start + (run.end - run.start);
    found.reverse();
    found
}

/// Joins boxes that are alike but for their place along `axis`, and continue each other there.
fn joined_along(axis: usize, boxes: Vec<GridBox>) -> Vec<GridBox> {
    let mut joined: Vec<GridBox> = Vec::with_capacity(boxes.len());
    let mut last_alike: HashMap<GridBox, usize> = HashMap::new();
    for found in boxes {
        let mut others = found.clone();
        others.remove(axis);
        match last_alike.get(&others) {
            Some(&at) if joined[at][axis].end == found[axis].start => {
                joined[at][axis].end = found[axis].end;
            }
            _ => {
                last_alike.insert(others, joined.len());
                joined.push(found);
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, for every set of cells of small grids: disjoint, complete, nothing else.
    #[test]
    fn boxes_hold_exactly_the_cells() {
        for grid in [&[9][..], &[3, 3], &[1, 4], &[4, 1, 2], &[2, 2, 2]] {
            let len: u64 = grid.iter().product();
            for set in 0u64..1 << len {
                let cells = || (0..len).filter(|cell| set >> cell & 1 == 1);
                let mut seen = 0u64;
                for found in boxes_of(grid, cells()) {
                    for cell in 0..len {
                        let mut rest = cell;
                        let is_inside = grid.iter().zip(&found).rev().all(|(&extent, range)| {
                            let at = rest % extent;
                            rest /= extent;
                            range.contains(&at)
                        });
                        if is_inside {
                            assert_eq!(seen >> cell & 1, 0, "no cell twice");
                            seen |= 1 << cell;
                        }
                    }
                }
                assert_eq!(seen, set, "{grid:?}");
            }
        }
    }

    #[test]
    fn whole_rows_and_planes_are_one_box() {
        assert_eq!(boxes_of(&[4, 3, 2], 0..24), [vec![0..4, 0..3, 0..2]]);
        assert_eq!(boxes_of(&[4, 3, 2], 6..18), [vec![1..3, 0..3, 0..2]]);
        let column = [1, 4, 7].into_iter();
        assert_eq!(boxes_of(&[3, 3], column), [vec![0..3, 1..2]]);
    }
}
