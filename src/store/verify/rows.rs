//! Hash tables, row by row: each has to be that of a chunk that is there, and no two may contradict each other.

use std::collections::BTreeMap;

use super::finding::{Damage, Fact, Finding, TableDamage};
use super::findings::Findings;
use crate::store::Snapshot;
use crate::store::hash_table::{HashRows, HashTable};
use crate::store::raw_data::RawData;
use crate::store::raw_places::RawPlace;

/// The rows of a hash table that are sound; `None` where there is none.
pub(super) fn read(
    snapshot: &Snapshot,
    raw_data: &RawData,
    place: RawPlace,
    found: &mut Findings,
) -> Option<HashTable> {
    let source = &raw_data.path;
    let mut wrong = |damage| {
        found.push(Finding::new(Fact::Damage(damage)).of(source));
    };
    let Some(address) = place.hash_table else {
        wrong(Damage::Inconsistent {
            what: "its hash table is missing",
        });
        return None;
    };
    let chunk_rows = raw_data.chunk_shape[0];
    let file = &snapshot.file;
    let opened = HashRows::open(file, b"", source, address, chunk_rows)
        .and_then(|rows| Ok((rows.stored_parts()?, rows)));
    let (parts, rows) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            wrong(Damage::of_table(error));
            return None;
        }
    };
    if (parts.len() as u64) < rows.parts() {
        wrong(Damage::HashTable(TableDamage::RowsMissing));
    }
    let mut by_chunk = BTreeMap::new();
    let chunks_stored = raw_data.header.dataspace.shape()[0].div_ceil(chunk_rows);
    for part in parts {
        let decoded = match rows.read_part(part) {
            Ok(decoded) => decoded,
            Err(error) => {
                wrong(Damage::HashTable(TableDamage::Rows {
                    first_row: rows.first_row(part),
                    damage: Box::new(Damage::of_chunk(error)),
                }));
                continue;
            }
        };
        for (row, entry) in decoded {
            let what = match entry {
                None => "is not that of one chunk",
                Some((chunk, _)) if chunk >= chunks_stored => {
                    "is that of a chunk that is not there"
                }
                Some((chunk, hashed)) => match by_chunk.insert(chunk, hashed) {
                    Some(before) if before != hashed => "contradicts another row",
                    _ => continue,
                },
            };
            wrong(Damage::HashRow { row, what });
        }
    }
    HashTable::from_rows(by_chunk.into_iter().collect(), rows.len)
}
