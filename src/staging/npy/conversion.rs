//! From the data of a .npy file to the bytes of a dataset, where these are not the same: lines of text of strings, and arrays in the order of Fortran.

use super::{Given, NpyFile, is_temporary_name};
use crate::h5::ByteOrder;
use crate::staging::content::{Base, Body, Content};
use crate::staging::overlay::{NoBase, Overlay};
use crate::staging::{NodeId, Staging, StagingError, sync_names};
use crate::store::{
    NpyElement, NpyError, NpyHeader, WideTextError, npy_header, write_line_of_wide,
};

/// How much is in memory at a time, twice over. More where one slice of an array needs it.
const TILE_BYTES: u64 = 16 << 20;
/// The largest slice across the longest axis that may be in memory.
const SLICE_LIMIT_BYTES: u64 = 256 << 20;

/// Whether the data can be made a dataset's.
///
/// # Errors
/// [`NpyError::Unreadable`] for an array in the order of Fortran of which even a slice is too large.
pub(super) fn check(header: &NpyHeader) -> Result<(), NpyError> {
    let is_text = matches!(header.element, NpyElement::Wide { .. });
    if header.is_fortran && !is_text && slice_bytes(header) > SLICE_LIMIT_BYTES {
        return Err(NpyError::Unreadable {
            problem: "an array as large as that has to be in the order of C: numpy.ascontiguousarray",
        });
    }
    Ok(())
}

/// Bytes of a slice of one element across the longest axis.
fn slice_bytes(header: &NpyHeader) -> u64 {
    let longest = header.shape.iter().max().copied().unwrap_or(1);
    header.data_bytes() / longest.max(1)
}

impl Staging {
    /// A file was closed, by one of those who have it open: the dataset is made of what was written, if that is all.
    ///
    /// # Errors
    /// [`StagingError::NpyText`], or what the operating system says; the dataset then waits for what is written next.
    pub fn flush_npy(&self, file: &NpyFile) -> Result<(), StagingError> {
        let (is_part, waits) = match &file.content.read().npy {
            Some(npy) => (npy.said().is_none(), npy.waits_for_conversion()),
            None => return Ok(()),
        };
        let _gate = self.pass()?;
        if is_part {
            self.change_state(|state| {
                let body = file.content.read();
                let logged = state.tree.node(file.node)?.dataset();
                let logged = logged.and_then(|dataset| dataset.npy.as_ref());
                let is_logged = |npy: &Given| {
                    logged.is_some_and(|logged| logged.header[..] == npy.header()[..])
                };
                match &body.npy {
                    Some(npy) if !is_logged(npy) => self.log_npy(state, file.node, Some(npy)),
                    _ => Ok(()),
                }
            })?;
        } else if waits {
            let path = self.shown_path(file.node);
            file.content
                .convert(&path)
                .inspect_err(|error| self.note_refusal(error))?;
        }
        Ok(())
    }

    /// Makes what was written durable, as [`Staging::fsync`] does.
    ///
    /// # Errors
    /// As for [`Staging::flush_npy`].
    pub fn fsync_npy(&self, file: &NpyFile) -> Result<(), StagingError> {
        self.flush_npy(file)?;
        file.content.sync()?;
        sync_names(self.state().as_ref())
    }

    /// Whoever opened a file has no more use for it. What was written is then a dataset like any other, if it is all.
    ///
    /// # Errors
    /// As for [`Staging::flush_npy`].
    pub fn close_npy(&self, file: &NpyFile) -> Result<(), StagingError> {
        self.flush_npy(file)?;
        if file.content.read().npy.is_none() || file.content.is_open_by_others() {
            return Ok(());
        }
        let _gate = self.pass()?;
        self.tidy_npy(file.node, &file.content)
    }

    /// What was written as a .npy file is a dataset like any other from now on, if it is all and its header is the usual one: any other one is
    /// shown as it is until the commit. To be called with the gate held.
    pub(super) fn tidy_npy(&self, node: NodeId, content: &Content) -> Result<(), StagingError> {
        self.change_state(|state| {
            let (is_done, is_converted, header) = {
                let body = content.read();
                let Some(npy) = &body.npy else {
                    return Ok(());
                };
                (
                    npy.is_done(&body)?,
                    npy.draft().is_some(),
                    npy.header().clone(),
                )
            };
            let found = state.tree.node(node)?;
            let dataset = found.dataset().ok_or(StagingError::IsADirectory)?;
            if !is_done || is_temporary_name(&found.shown) {
                return Ok(());
            }
            let is_usual = is_converted || {
                let structure = self.structure(state, node, dataset)?;
                let usual = npy_header(&structure.datatype, &structure.shape);
                usual.is_some_and(|usual| usual[..] == header[..])
            };
            if is_usual {
                self.forget_npy(state, node, &mut content.write())?;
            }
            Ok(())
        })
    }
}

impl Content {
    /// Makes the dataset of what was written as a .npy file, for a commit.
    ///
    /// # Errors
    /// [`StagingError::NpyUnfinished`], [`StagingError::NpyLength`], [`StagingError::NpyText`]; `path` is the dataset's.
    pub(in crate::staging) fn settle_npy(&self, path: &[u8]) -> Result<(), StagingError> {
        self.convert(path)?;
        let body = self.read();
        let Some(npy) = &body.npy else {
            return Ok(());
        };
        let Some(said) = npy.said() else {
            return Err(StagingError::NpyUnfinished {
                dataset: path.to_vec(),
            });
        };
        let got_bytes = npy.data_bytes(&body)?;
        if got_bytes == said.data_bytes() {
            Ok(())
        } else {
            Err(StagingError::NpyLength {
                dataset: path.to_vec(),
                want_bytes: said.data_bytes(),
                got_bytes,
            })
        }
    }

    /// What is missing of a .npy file, in words.
    pub(in crate::staging) fn unfinished_npy(&self) -> Option<String> {
        let body = self.read();
        let npy = body.npy.as_ref()?;
        let Some(said) = npy.said() else {
            return Some("a .npy file without a whole header".to_owned());
        };
        let (want, got) = (said.data_bytes(), npy.data_bytes(&body).ok()?);
        (want != got).then(|| format!("a .npy file with {got} of {want} bytes of data"))
    }

    /// Makes the dataset of a draft that has all its data.
    fn convert(&self, path: &[u8]) -> Result<(), StagingError> {
        let mut body = self.write();
        let Body { npy: Some(npy), .. } = &*body else {
            return Ok(());
        };
        let (Some(said), Some(draft)) = (npy.said().cloned(), npy.draft()) else {
            return Ok(());
        };
        if !npy.waits_for_conversion() || draft.len_bytes() != said.data_bytes() {
            return Ok(());
        }
        body.edit()?.1.truncate(0)?;
        let (base, overlay, npy) = body.parts().ok_or(StagingError::Stale)?;
        let draft = npy.draft().ok_or(StagingError::Stale)?;
        let mut conversion = Conversion {
            said: &said,
            draft,
            base,
            overlay,
        };
        match said.element {
            NpyElement::Wide { order, .. } => conversion.write_lines(order, path)?,
            NpyElement::Stored(_) => conversion.transpose()?,
        }
        npy.is_converted();
        Ok(())
    }
}

struct Conversion<'c> {
    said: &'c NpyHeader,
    draft: &'c Overlay,
    base: &'c Base,
    overlay: &'c mut Overlay,
}

impl Conversion<'_> {
    /// A line for each string, in the order of C.
    fn write_lines(&mut self, order: ByteOrder, path: &[u8]) -> Result<(), StagingError> {
        let element_bytes =
            usize::try_from(self.said.element_bytes()).map_err(|_| StagingError::TooLong)?;
        let count = self.said.shape.iter().product::<u64>();
        let place = FortranPlaces::new(&self.said.shape);
        let at_once = if self.said.is_fortran {
            1
        } else {
            (TILE_BYTES / self.said.element_bytes().max(1)).max(1)
        };
        let mut lines = Vec::new();
        let mut first = 0;
        while first < count {
            let here = at_once.min(count - first);
            let place = if self.said.is_fortran {
                place.of(first)
            } else {
                first
            };
            let len = usize::try_from(here)
                .ok()
                .and_then(|n| n.checked_mul(element_bytes));
            let mut wide = vec![0; len.ok_or(StagingError::TooLong)?];
            read_exact(self.draft, place * element_bytes as u64, &mut wide)?;
            for number in 0..here {
                let at = usize::try_from(number).map_or(0, |number| number * element_bytes);
                let string = &wide[at..at + element_bytes];
                write_line_of_wide(string, order, &mut lines).map_err(|error: WideTextError| {
                    StagingError::NpyText {
                        dataset: path.to_vec(),
                        element: first + number,
                        error,
                    }
                })?;
            }
            first += here;
            if lines.len() as u64 >= TILE_BYTES || first == count {
                write_all(self.overlay, self.base, self.overlay.len_bytes(), &lines)?;
                lines.clear();
            }
        }
        Ok(())
    }

    /// All elements, in the order of C. Tiles are cut across the longest axis, so that both what is read and what is written of each are long
    /// runs.
    fn transpose(&mut self) -> Result<(), StagingError> {
        let shape = &self.said.shape;
        let element_bytes = self.said.element_bytes();
        self.overlay.truncate(self.said.data_bytes())?;
        if self.said.data_bytes() == 0 {
            return Ok(());
        }
        let longest = shape
            .iter()
            .copied()
            .zip(0..)
            .max()
            .map_or(0, |(_, axis)| axis);
        let (before, rest) = shape.split_at(longest);
        let (extent, behind) = (rest[0], &rest[1..]);
        let (before_count, behind_count): (u64, u64) =
            (before.iter().product(), behind.iter().product());
        let thickness = (TILE_BYTES / slice_bytes(self.said).max(1)).clamp(1, extent);
        let mut start = 0;
        while start < extent {
            let here = thickness.min(extent - start);
            let tile = [before, &[here], behind].concat();
            let len = here * slice_bytes(self.said);
            let len = usize::try_from(len).map_err(|_| StagingError::TooLong)?;
            let mut fortran = vec![0; len];
            let run_bytes = before_count * here * element_bytes;
            for (number, run) in (0..behind_count).zip(fortran.chunks_mut(in_memory(run_bytes)?)) {
                let place = (number * extent + start) * before_count * element_bytes;
                read_exact(self.draft, place, run)?;
            }
            let c_order = transposed(&fortran, &tile, in_memory(element_bytes)?);
            let run_bytes = here * behind_count * element_bytes;
            for (number, run) in (0..before_count).zip(c_order.chunks(in_memory(run_bytes)?)) {
                let place = (number * extent + start) * behind_count * element_bytes;
                write_all(self.overlay, self.base, place, run)?;
            }
            start += here;
        }
        Ok(())
    }
}

fn in_memory(len_bytes: u64) -> Result<usize, StagingError> {
    usize::try_from(len_bytes).map_err(|_| StagingError::TooLong)
}

/// An array in the order of C that is given in that of Fortran.
fn transposed(fortran: &[u8], shape: &[u64], element_bytes: usize) -> Vec<u8> {
    let places = FortranPlaces::new(shape);
    let last = shape.last().copied().unwrap_or(1).max(1);
    let stride = places.strides.last().copied().unwrap_or(1);
    let mut out = Vec::with_capacity(fortran.len());
    let elements = (fortran.len() / element_bytes.max(1)) as u64;
    for row in 0..elements / last {
        let first = places.of(row * last);
        for number in 0..last {
            // Within the tile, which is in memory.
            let at = usize::try_from((first + number * stride) * element_bytes as u64)
                .unwrap_or(usize::MAX);
            out.extend_from_slice(fortran.get(at..at + element_bytes).unwrap_or_default());
        }
    }
    out
}

/// Where elements lie in the order of Fortran.
struct FortranPlaces {
    shape: Vec<u64>,
    strides: Vec<u64>,
}

impl FortranPlaces {
    fn new(shape: &[u64]) -> Self {
        let strides = shape.iter().scan(1u64, |stride, &extent| {
            let here = *stride;
            *stride = stride.saturating_mul(extent);
            Some(here)
        });
        Self {
            shape: shape.to_vec(),
            strides: strides.collect(),
        }
    }

    /// Of the element that is number `number` in the order of C.
    fn of(&self, mut number: u64) -> u64 {
        let mut place = 0;
        for (extent, stride) in self.shape.iter().zip(&self.strides).rev() {
            place += number % extent.max(&1) * stride;
            number /= extent.max(&1);
        }
        place
    }
}

fn read_exact(draft: &Overlay, offset: u64, buffer: &mut [u8]) -> Result<(), StagingError> {
    let count = draft.read_at(&NoBase, offset, buffer)?;
    if count == buffer.len() {
        Ok(())
    } else {
        Err(StagingError::Stale)
    }
}

fn write_all(
    overlay: &mut Overlay,
    base: &Base,
    mut offset: u64,
    mut bytes: &[u8],
) -> Result<(), StagingError> {
    while !bytes.is_empty() {
        let count = overlay.write_at(base, offset, bytes)?;
        // Room ended in between: what it ended with is told by the next try.
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_order_of_fortran() {
        let places = FortranPlaces::new(&[2, 3]);
        let all: Vec<u64> = (0..6).map(|number| places.of(number)).collect();
        assert_eq!(all, [0, 2, 4, 1, 3, 5]);
        // Elements 0 to 5 of a 2 x 3 array, column by column.
        assert_eq!(
            transposed(&[0, 3, 1, 4, 2, 5], &[2, 3], 1),
            [0, 1, 2, 3, 4, 5]
        );
        let two = transposed(&[0, 0, 3, 3, 1, 1, 4, 4, 2, 2, 5, 5], &[2, 3], 2);
        assert_eq!(two, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    }
}
