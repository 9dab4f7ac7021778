//! What a dataset of a version is, in a few bytes: the same in any file that holds the same version, wherever its chunks lie in it.
//!
//! Raw data is repacked, versions are deleted, and hash tables are made anew; the numbers and places of chunks are then others, and their
//! hashes are the same. So a dataset's fingerprint is made of its type, shape and fill value, of how many chunks it maps, and of their hashes: all of
//! them, or a thousand and some spread evenly over one that maps more, as an edit of one element is not to wait for the rest.

use sha2::{Digest, Sha256};

use super::StoreError;
use super::chunked::Chunked;
use super::dataset::Dataset;
use super::dtype;
use super::raw_data::{RawData, extent_of};
use super::verification::Unverifiable;

/// Of how many chunks the hashes are taken at least, where there are as many.
const SAMPLED_CHUNKS: u64 = 1024;

/// A SHA-256.
pub(crate) type Fingerprint = [u8; 32];

impl Dataset {
    /// The dataset's fingerprint. Without its chunks where it has none, or where their hashes are of no use in any file. `None` where the file's layout has
    /// wrong ones: its tables are rebuilt before anything is committed, with another `data_version`, by which the hashes become of use.
    ///
    /// # Errors
    /// Damage of the hash table, or of a chunk that has no row in it.
    pub(crate) fn fingerprint(&self) -> Result<Option<Fingerprint>, StoreError> {
        let chunks = self
            .chunked()
            .and_then(|chunked| Some((chunked, chunked.raw_data()?)));
        let unverifiable = chunks
            .and_then(|(_, raw_data)| Unverifiable::of(&raw_data.header, self.file.data_version));
        if matches!(unverifiable, Some(Unverifiable::Layout { .. })) {
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        // Each of the parts says itself how long it is.
        hasher.update(dtype::numpy_descr(self.datatype()).to_string());
        let shape = self.header.dataspace.shape();
        hasher.update((shape.len() as u64).to_le_bytes());
        for extent in shape {
            hasher.update(extent.to_le_bytes());
        }
        // Nobody says whether a fill value of zeros is stored.
        let fill = self.header.fill_value.as_deref().unwrap_or_default();
        if fill.iter().any(|&byte| byte != 0) {
            hasher.update((fill.len() as u64).to_le_bytes());
            hasher.update(fill);
        }
        if let Some((chunked, raw_data)) = chunks
            && unverifiable.is_none()
        {
            self.add_chunks(&mut hasher, chunked, raw_data)?;
        }
        Ok(Some(hasher.finalize().into()))
    }

    fn add_chunks(
        &self,
        hasher: &mut Sha256,
        chunked: &Chunked,
        raw_data: &RawData,
    ) -> Result<(), StoreError> {
        let shape = self.header.dataspace.shape();
        let mapped = chunked.map().len_mapped();
        hasher.update(mapped.to_le_bytes());
        let step = usize::try_from(mapped / SAMPLED_CHUNKS).unwrap_or(usize::MAX);
        for (cell, index) in chunked.map().mapped().step_by(step.max(1)) {
            let hash = if let Some(hash) = raw_data.hash_of_stored(index)? {
                hash
            } else {
                // Of several equal chunks, a table that was rebuilt has one.
                let extent = extent_of(cell, shape, &raw_data.chunk_shape);
                let chunk = raw_data.decode_now(index)?;
                raw_data
                    .hash(&extent, &chunk)
                    .map_err(|error| raw_data.unhashable(index, error))?
            };
            hasher.update(cell.to_le_bytes());
            hasher.update(hash);
        }
        Ok(())
    }
}
