//! What the stored hash of a chunk says of the chunk, and what a file's reader does about it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::shown_path;
use crate::h5::{Class, DatasetHeader, Datatype};

/// The number of the scale-offset filter, and that of the n-bit filter.
const SCALE_OFFSET: u16 = 6;
const N_BIT: u16 = 5;
/// Parameters of the scale-offset filter (`H5Zscaleoffset.c`): the first is the kind, of which this is that for whole numbers; the second is
/// the number of bits to keep, where 0 means as many as are needed.
const SCALE_OFFSET_INTEGER: u32 = 2;

/// Why a chunk that does not hash to what is stored may be right all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Unverifiable {
    /// What was hashed were addresses in the memory of the program that wrote it.
    #[error("chunks of its type have no hash that can be computed again")]
    Pointers,
    /// The layout's hash tables are known to be wrong.
    #[error("hash tables of data_version {data_version} are known to be wrong{}", if *.text_only { " for strings" } else { "" })]
    Layout {
        /// The layout's number.
        data_version: i64,
        /// Whether only those of strings are.
        text_only: bool,
    },
    /// There are bytes between the members of an element that the library hashes as they are in memory.
    #[error("its elements have unused bytes between their members, which are hashed and not kept")]
    Padding,
    /// The elements that were hashed are not those that were stored.
    #[error("its filter {filter} does not keep elements as they were when they were hashed")]
    LossyFilter {
        /// The filter.
        filter: &'static str,
    },
}

/// What the stored hash says of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The chunk is the one that was hashed.
    Right,
    /// It is not.
    Wrong,
    /// It is not, or has no hash, and that is no sign of damage.
    Unknown(Unverifiable),
}

impl Unverifiable {
    /// Why chunks of raw data with this header, in a file of layout `data_version`, may differ from their hashes; `None` where
    /// a difference is damage.
    pub(super) fn of(header: &DatasetHeader, data_version: i64) -> Option<Self> {
        let datatype = &header.datatype;
        let is_text = matches!(datatype.class, Class::VlenString { .. });
        if datatype.contains_pointers() && !is_text {
            return Some(Self::Pointers);
        }
        // Tables of layout 2 that its library rebuilt are wrong for any type.
        let text_only = data_version != 2;
        if matches!(data_version, 1..=3) && (is_text || !text_only) {
            return Some(Self::Layout {
                data_version,
                text_only,
            });
        }
        for filter in &header.filters {
            match (filter.id, &filter.parameters[..]) {
                (SCALE_OFFSET, [SCALE_OFFSET_INTEGER, 0, ..]) => {}
                (SCALE_OFFSET, _) => {
                    return Some(Self::LossyFilter {
                        filter: "scale-offset",
                    });
                }
                (N_BIT, _) if !uses_all_bits(datatype) => {
                    return Some(Self::LossyFilter { filter: "n-bit" });
                }
                _ => {}
            }
        }
        has_padding(datatype).then_some(Self::Padding)
    }
}

/// Whether the n-bit filter keeps each bit of an element.
fn uses_all_bits(datatype: &Datatype) -> bool {
    let all = 8 * datatype.size as u64;
    match &datatype.class {
        Class::Integer { bit_precision, .. }
        | Class::Float { bit_precision, .. }
        | Class::Bitfield { bit_precision, .. } => u64::from(*bit_precision) == all,
        Class::Enum { base, .. } | Class::Array { base, .. } => uses_all_bits(base),
        Class::Compound { members } => members.iter().all(|member| uses_all_bits(&member.datatype)),
        _ => true,
    }
}

/// Whether there are bytes in an element that belong to no member.
fn has_padding(datatype: &Datatype) -> bool {
    match &datatype.class {
        Class::Compound { members } => {
            let used = members.iter().fold(0usize, |sum, member| {
                sum.saturating_add(member.datatype.size)
            });
            used < datatype.size || members.iter().any(|member| has_padding(&member.datatype))
        }
        Class::Array { base, .. } => has_padding(base),
        _ => false,
    }
}

/// Whether all that is read of a file is held against its hashes.
#[derive(Debug, Default)]
pub(crate) struct Verification {
    is_wanted: bool,
    /// Datasets of which it was said that they cannot be checked.
    told: Mutex<HashSet<Arc<[u8]>>>,
}

impl Verification {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            told: Mutex::default(),
        }
    }

    /// Whether whoever opened the file asked for it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Says in the log, once for each dataset, that what is read of it was not checked.
    pub(crate) fn tell_unverifiable(&self, dataset: &Arc<[u8]>, reason: Unverifiable) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(dataset.clone()) {
            log::warn!(
                "dataset {}: what is read of it cannot be checked: {reason}",
                shown_path(dataset)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::{Dataspace, Filter, Layout};
    use crate::store::type_samples::{compound, integer, sequence, vlen_string};

    use crate::h5::ByteOrder::Little;

    fn reason(
        datatype: Datatype,
        filter: Option<(u16, &[u32])>,
        data_version: i64,
    ) -> Option<Unverifiable> {
        let filters = filter.map(|(id, parameters)| Filter {
            id,
            flags: 0,
            name: None,
            parameters: parameters.to_vec(),
        });
        let header = DatasetHeader {
            datatype,
            datatype_bytes: Vec::new(),
            dataspace: Dataspace::Scalar,
            fill_value: None,
            filters: filters.into_iter().collect(),
            layout: Layout::Compact(Vec::new()),
        };
        Unverifiable::of(&header, data_version)
    }

    #[test]
    fn plain_types_are_checked_but_in_layout_2() {
        for data_version in [1, 3, 4] {
            assert_eq!(reason(integer(4, true, Little), None, data_version), None);
        }
        assert!(matches!(
            reason(integer(4, true, Little), None, 2),
            Some(Unverifiable::Layout {
                text_only: false,
                ..
            })
        ));
    }

    #[test]
    fn strings_are_checked_in_layout_4_alone() {
        for data_version in 1..4 {
            let found = reason(vlen_string(), None, data_version);
            assert!(matches!(found, Some(Unverifiable::Layout { .. })));
        }
        assert_eq!(reason(vlen_string(), None, 4), None);
        let ragged = sequence(integer(2, true, Little));
        assert_eq!(reason(ragged, None, 4), Some(Unverifiable::Pointers));
    }

    #[test]
    fn bytes_that_no_member_has_are_padding() {
        let pair = |size, second| {
            compound(
                size,
                vec![
                    ("a", 0, integer(2, true, Little)),
                    ("b", second, integer(8, true, Little)),
                ],
            )
        };
        assert_eq!(reason(pair(10, 2), None, 4), None);
        assert_eq!(reason(pair(16, 8), None, 4), Some(Unverifiable::Padding));
        let nested = compound(16, vec![("x", 0, pair(16, 8))]);
        assert_eq!(reason(nested, None, 4), Some(Unverifiable::Padding));
    }

    #[test]
    fn filters_that_lose_something() {
        let whole = || integer(4, true, Little);
        let mut short = whole();
        if let Class::Integer { bit_precision, .. } = &mut short.class {
            *bit_precision = 11;
        }
        assert_eq!(reason(whole(), Some((SCALE_OFFSET, &[2, 0, 64])), 4), None);
        for lossy in [&[2, 5][..], &[0, 3], &[]] {
            let found = reason(whole(), Some((SCALE_OFFSET, lossy)), 4);
            assert!(matches!(found, Some(Unverifiable::LossyFilter { .. })));
        }
        assert_eq!(reason(whole(), Some((N_BIT, &[])), 4), None);
        assert!(reason(short, Some((N_BIT, &[])), 4).is_some());
        assert_eq!(reason(whole(), Some((1, &[6])), 4), None);
    }
}
