//! Work of a few milliseconds in a second thread.

use std::thread::{self, Scope, ScopedJoinHandle};

use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Runs `body` in a thread of its own, on another processor than the caller's where there is one.
///
/// Linux may start a thread on its parent's processor, and move it only after milliseconds, in which the two take turns and another processor
/// idles: always where two processors share a cache of the last level.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let parent = sched_getcpu();
    let thread = scope.spawn(move || {
        if sched_getcpu() == parent {
            leave(parent);
        }
        body()
    });
    // A thread that waits behind its parent cannot leave.
    thread::yield_now();
    thread
}

/// Moves the calling thread to any other processor that it may run on.
fn leave(processor: usize) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let mut others = allowed;
    others.unset(processor);
    // Where that is refused, it stays.
    if others.count() > 0 && sched_setaffinity(None, &others).is_ok() {
        let _ = sched_setaffinity(None, &allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_left_a_processor_may_run_wherever_its_parent_may() {
        let allowed = sched_getaffinity(None).unwrap();
        thread::scope(|scope| {
            let thread = spawn(scope, || {
                leave(sched_getcpu());
                sched_getaffinity(None).unwrap()
            });
            assert_eq!(thread.join().unwrap(), allowed);
        });
    }
}
