//! Writing a new version into the file.

use super::{CommitError, CommitReport, NewVersion, VersionedFile};

impl VersionedFile {
    /// Writes a version and returns once it is durable and [`VersionedFile::look`] gives a state that has it.
    ///
    /// # Errors
    /// [`CommitError`]; the file is then as it was.
    pub fn commit(&self, new: &NewVersion<'_>) -> Result<CommitReport, CommitError> {
        let object = new.objects.first().map_or(&b""[..], |first| &first.path);
        Err(CommitError::Unsupported {
            object: object.to_vec(),
            what: "new versions cannot be written yet",
        })
    }
}
