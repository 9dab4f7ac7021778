//! Is another program writing to the file? Asked without taking a lock oneself, which could make that program's own fail.

use std::fs;

use crate::source::Identity;

/// Whether some process holds an exclusive `flock` (or POSIX lock) on the file, as the HDF5 library does while it has a file
/// open for writing.
///
/// Read from `/proc/locks` (proc(5)), which shows the locks of the own process-id namespace. The device is not compared: file
/// systems with several devices name another one there than `stat` does. A lock on another file with the same inode number
/// only makes the caller wait. The first to ask after a while waits for ten milliseconds or so: the kernel stops all locking for the list.
pub(crate) fn is_locked_for_writing(identity: &Identity) -> bool {
    // Where it cannot be read, the caller's check that the file does not change has to do.
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let own = std::process::id();
    locks
        .lines()
        .any(|line| is_write_lock_on(line, identity.inode, own))
}

/// A line such as `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`; one with `->` is still waiting.
fn is_write_lock_on(line: &str, inode: u64, own_process: u32) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let mut next = || fields.next().unwrap_or_default();
    let (kind, _, mode, process, place) = (next(), next(), next(), next(), next());
    matches!(kind, "FLOCK" | "POSIX" | "OFDLCK")
        && mode == "WRITE"
        && process != own_process.to_string()
        && place
            .rsplit(':')
            .next()
            .and_then(|number| number.parse().ok())
            == Some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_locks() {
        let locked = |line| is_write_lock_on(line, 5678, 1);
        assert!(locked("1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"));
        assert!(!locked("1: FLOCK  ADVISORY  READ  1234 08:01:5678 0 EOF"));
        assert!(!locked("1: FLOCK  ADVISORY  WRITE 1234 08:01:56789 0 EOF"));
        assert!(!locked(
            "1: -> FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"
        ));
        assert!(!locked("1: FLOCK  ADVISORY  WRITE 1 08:01:5678 0 EOF"));
        assert!(!locked("1: LEASE  ACTIVE    WRITE 1234 08:01:5678 0 EOF"));
        assert!(!locked(""));
    }
}
