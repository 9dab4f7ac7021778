//! What the two array indexes share: their elements, and the order in which they count a grid's cells.

use super::Extent;
use super::table::Collector;
use crate::h5::decoder::Decoder;
use crate::h5::{Address, H5Error, StoredChunk};

/// Bytes of an element's address; all of it where there are no filters.
const ADDRESS_BYTES: usize = 8;
/// Bytes of a filter mask.
const MASK_BYTES: usize = 4;

/// How many bytes a chunk's stored length has in an element of `element_bytes` (from version 5 of the layout on it is 8, before
/// that as few as the chunk's size asks for and one more). 0 where there are no filters; `None` where no element is like that.
pub(super) fn size_width(element_bytes: usize, filtered: bool) -> Option<usize> {
    if !filtered {
        return (element_bytes == ADDRESS_BYTES).then_some(0);
    }
    let width = element_bytes.checked_sub(ADDRESS_BYTES + MASK_BYTES)?;
    (1..=8).contains(&width).then_some(width)
}

/// The next element, whose stored length has `width` bytes; `None` for a chunk that was never written.
pub(super) fn decode_element(
    decoder: &mut Decoder<'_>,
    width: usize,
    chunk_bytes: u64,
) -> Result<Option<StoredChunk>, H5Error> {
    let address = decoder.offset()?;
    let (stored_bytes, filter_mask) = match width {
        0 => (chunk_bytes, 0),
        _ => (decoder.uint(width)?, decoder.u32()?),
    };
    Ok(address.is_defined().then_some(StoredChunk {
        address,
        stored_bytes,
        filter_mask,
    }))
}

/// Reads elements into a table.
pub(super) struct Elements {
    /// Bytes of one.
    pub(super) element_bytes: usize,
    width: usize,
    order: ArrayOrder,
}

impl Elements {
    /// `None` where no element has `element_bytes` bytes.
    pub(super) fn new(element_bytes: usize, filtered: bool, order: ArrayOrder) -> Option<Self> {
        Some(Self {
            element_bytes,
            width: size_width(element_bytes, filtered)?,
            order,
        })
    }

    /// Takes `len` elements, the first of which has the number `first`, of the structure at `address`.
    pub(super) fn decode(
        &self,
        decoder: &mut Decoder<'_>,
        address: Address,
        first: u64,
        len: u64,
        found: &mut Collector<'_>,
    ) -> Result<(), H5Error> {
        for number in first..first.saturating_add(len) {
            if let Some(chunk) = decode_element(decoder, self.width, found.chunk_bytes())? {
                let cell = self.order.cell(number, found.grid());
                let cell = cell.ok_or_else(|| decoder.damaged("a chunk is outside the dataset"))?;
                found.add(address, cell, chunk)?;
            }
        }
        Ok(())
    }
}

/// The order in which an array counts the cells of a grid: C order of the largest grid that the dataset can have, with the unlimited
/// axis first wherever it is (`H5VM_swizzle_coords`).
pub(super) struct ArrayOrder {
    /// The axes, slowest first, with the cells that each can have; for the first one that is not used.
    axes: Vec<(usize, u64)>,
    /// Cells of the largest grid; `None` where there is no limit, or 64 bits do not count them.
    len: Option<u64>,
}

impl ArrayOrder {
    /// `None` where an axis other than `unlimited` has no limit, or there is no axis.
    pub(super) fn new(extent: &Extent<'_>, unlimited: Option<usize>) -> Option<Self> {
        let rank = extent.max_grid.len();
        let first = unlimited.unwrap_or(0);
        let rest = (0..rank).filter(|&axis| axis != first);
        let mut axes = Vec::with_capacity(rank);
        for axis in std::iter::once(first).chain(rest) {
            let cells = match *extent.max_grid.get(axis)? {
                Some(cells) => cells,
                None if unlimited == Some(axis) => u64::MAX,
                None => return None,
            };
            axes.push((axis, cells));
        }
        let len = match unlimited {
            Some(_) => None,
            None if axes.iter().any(|axis| axis.1 == 0) => Some(0),
            None => axes.iter().try_fold(1u64, |n, axis| n.checked_mul(axis.1)),
        };
        Some(Self { axes, len })
    }

    /// How many cells there can be, where that is limited.
    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    /// The cell of the present `grid` (in its own C order) that the array counts as `number`; `None` where it is outside.
    pub(super) fn cell(&self, number: u64, grid: &[u64]) -> Option<u64> {
        let mut rest = number;
        let mut cell = 0u64;
        let mut place = [0u64; crate::h5::mapping::MAX_RANK];
        for (position, &(axis, cells)) in self.axes.iter().enumerate().rev() {
            let coordinate = if position == 0 {
                rest
            } else {
                rest % cells.max(1)
            };
            rest /= cells.max(1);
            if coordinate >= grid[axis] {
                return None;
            }
            *place.get_mut(axis)? = coordinate;
        }
        for (&coordinate, &cells) in place.iter().zip(grid) {
            // Below the number of cells of the grid, which 64 bits count.
            cell = cell * cells + coordinate;
        }
        Some(cell)
    }
}

/// Whether page `number` was ever written: bit `number` of a bitmap, the highest of each byte first (`H5VM_bit_get`).
pub(super) fn is_page_written(bitmap: &[u8], number: u64) -> bool {
    usize::try_from(number / 8)
        .ok()
        .and_then(|at| bitmap.get(at))
        .is_some_and(|byte| byte & (0x80 >> (number % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(max_grid: &[Option<u64>], unlimited: Option<usize>) -> Option<ArrayOrder> {
        let shape = vec![1; max_grid.len()];
        let extent = Extent {
            shape: &shape,
            max_grid: max_grid.to_vec(),
            filtered: false,
        };
        ArrayOrder::new(&extent, unlimited)
    }

    #[test]
    fn cells_of_a_grid_that_can_still_grow() {
        let order = order(&[Some(5), Some(4)], None).unwrap();
        assert_eq!(order.len(), Some(20));
        let cells: Vec<_> = (0..9).map(|number| order.cell(number, &[2, 3])).collect();
        let want = [
            Some(0),
            Some(1),
            Some(2),
            None,
            Some(3),
            Some(4),
            Some(5),
            None,
            None,
        ];
        assert_eq!(cells, want);
    }

    #[test]
    fn the_unlimited_axis_comes_first() {
        let order = order(&[Some(3), None, Some(2)], Some(1)).unwrap();
        assert_eq!(order.len(), None);
        // Number 6 * j + 2 * i + k is the cell (i, j, k).
        let grid = [3, 4, 2];
        for (i, j, k) in [(0, 0, 0), (2, 3, 1), (1, 2, 0), (0, 1, 1)] {
            let cell = (i * 4 + j) * 2 + k;
            assert_eq!(order.cell(6 * j + 2 * i + k, &grid), Some(cell));
        }
        assert_eq!(order.cell(6 * 4, &grid), None);
        assert_eq!(order.cell(u64::MAX, &grid), None);
    }

    #[test]
    fn orders_that_are_none() {
        assert!(order(&[None, Some(1)], None).is_none());
        assert!(order(&[None, None], Some(0)).is_none());
        assert!(order(&[], None).is_none());
    }

    #[test]
    fn widths_of_stored_lengths() {
        assert_eq!(size_width(8, false), Some(0));
        assert_eq!(size_width(16, false), None);
        let widths: Vec<_> = [11, 12, 13, 20, 21].map(|n| size_width(n, true)).into();
        assert_eq!(widths, [None, None, Some(1), Some(8), None]);
    }

    #[test]
    fn bits_from_the_top() {
        let bitmap = [0b1000_0001, 0b0100_0000];
        let written: Vec<_> = (0..20).filter(|&n| is_page_written(&bitmap, n)).collect();
        assert_eq!(written, [0, 7, 9]);
    }
}
