//! Which start of the machine this is: what was written and not synced outlives the end of a process, but not that of the machine.

use std::fs;
use std::sync::OnceLock;

/// Its kernel gives each start of the machine another one (`random(4)`).
const PATH: &str = "/proc/sys/kernel/random/boot_id";

/// What is told of a start of the machine, as text; `None` where the system does not tell.
pub(super) fn this_boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    BOOT.get_or_init(|| {
        let read = fs::read_to_string(PATH);
        let id = read.inspect_err(|error| log::debug!("{PATH}: {error}"));
        id.ok()
            .map(|id| id.trim().to_owned())
            .filter(|id| !id.is_empty())
    })
    .as_deref()
}

/// Whether the machine has run without a break since `boot` was this boot. Where nobody knows, it has not.
pub(super) fn is_this_boot(boot: Option<&str>) -> bool {
    boot.is_some() && boot == this_boot()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_itself_and_no_other() {
        let boot = this_boot().unwrap();
        assert!(is_this_boot(Some(boot)));
        assert!(!is_this_boot(Some("another")));
        assert!(!is_this_boot(None));
    }
}
