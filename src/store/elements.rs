//! A box of elements of an array, as people write it.

use std::fmt;

/// A box of elements. Shown as NumPy would select it: `[4096:8192]`, `[0:10, 20:30]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementBox {
    /// First element and the one behind the last, along each axis, slowest first.
    pub axes: Vec<(u64, u64)>,
}

impl ElementBox {
    /// The elements of the chunk at `cell`, in C order of the grid of an array of `shape`, that lie within the array.
    #[must_use]
    pub fn of_cell(cell: u64, shape: &[u64], chunk_shape: &[u64]) -> Self {
        let mut rest = cell;
        let mut axes: Vec<(u64, u64)> = shape
            .iter()
            .zip(chunk_shape)
            .rev()
            .map(|(&all, &chunk)| {
                let chunk = chunk.max(1);
                let cells = all.div_ceil(chunk).max(1);
                let start = (rest % cells).saturating_mul(chunk).min(all);
                rest /= cells;
                (start, start.saturating_add(chunk).min(all))
            })
            .collect();
        axes.reverse();
        Self { axes }
    }

    /// How many elements it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.axes.iter().map(|(start, end)| end - start).product()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for ElementBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (number, (start, end)) in self.axes.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{start}:{end}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_boxes_cut_to_the_shape() {
        let of = |cell, shape: &[u64], chunk: &[u64]| {
            ElementBox::of_cell(cell, shape, chunk).to_string()
        };
        assert_eq!(of(0, &[10], &[4]), "[0:4]");
        assert_eq!(of(2, &[10], &[4]), "[8:10]");
        assert_eq!(of(5, &[10, 7], &[4, 3]), "[4:8, 6:7]");
        assert_eq!(of(8, &[10, 7], &[4, 3]), "[8:10, 6:7]");
    }
}
