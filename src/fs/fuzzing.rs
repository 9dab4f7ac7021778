//! Orders to control files, as fuzz targets; see [`crate::fuzzing`].

use super::control::{commit_request, reset_target};

/// What is written to `.commit` or `.reset`.
pub(crate) fn commit_request_text(bytes: &[u8]) {
    let _ = commit_request(bytes);
    if let Some(name) = reset_target(bytes) {
        assert!(!name.is_empty());
    }
}
