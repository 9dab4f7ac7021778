//! The lock that the HDF5 library takes on a file that it writes.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::error::{TransactionError, io_error};

/// How long a lock that another program holds is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Takes the lock, which is held until the file is closed.
///
/// # Errors
/// [`TransactionError::Busy`] where another program holds it for longer than a second; [`TransactionError::Io`].
pub(super) fn lock(file: &File) -> Result<(), TransactionError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_INTERVAL);
            }
            Err(Errno::WOULDBLOCK) => return Err(TransactionError::Busy),
            Err(error) => return Err(io_error("locking the file")(error.into())),
        }
    }
}
