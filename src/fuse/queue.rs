//! How many requests of a kind run at a time, so that they never take every thread that answers the kernel.
//!
//! A read may decode for a long time, and a change waits where a commit is under way. Were each event loop free to take them, as many
//! as there are loops would leave nobody to answer a `stat`. Handing every one to other threads would cost a switch of threads each. So
//! a request runs in the loop that received it as long as fewer than `limit` do; otherwise it is left to those, which take what
//! waits before they return to the kernel.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// At most `limit` jobs at a time; the others wait in order of arrival.
#[derive(Debug)]
pub struct Queue<J> {
    limit: usize,
    state: Mutex<State<J>>,
}

#[derive(Debug)]
struct State<J> {
    running: usize,
    waiting: VecDeque<J>,
}

impl<J> Queue<J> {
    /// A queue that lets `limit` jobs run at a time, at least one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let state = State {
            running: 0,
            waiting: VecDeque::new(),
        };
        Self {
            limit: limit.max(1),
            state: Mutex::new(state),
        }
    }

    /// Does `job` with `work`, and then whatever else waits; or leaves it to those at work, if these are enough. The queue holds
    /// no more jobs than the kernel has requests. `work` must not panic.
    pub fn run(&self, job: J, work: impl Fn(J)) {
        self.run_or_keep(job, &work, std::convert::identity, &work);
    }

    /// The same for a job that borrows from its request: `first` does it at once, or else `keep` makes of it one that can wait.
    pub fn run_or_keep<B>(
        &self,
        job: B,
        first: impl FnOnce(B),
        keep: impl FnOnce(B) -> J,
        work: impl Fn(J),
    ) {
        {
            let mut state = self.lock();
            if state.running >= self.limit {
                state.waiting.push_back(keep(job));
                return;
            }
            state.running += 1;
        }
        first(job);
        loop {
            let mut state = self.lock();
            let Some(next) = state.waiting.pop_front() else {
                state.running -= 1;
                return;
            };
            drop(state);
            work(next);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // The lock is never held while a job runs, so the state is whole even after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_job_beyond_the_limit_is_left_to_those_at_work() {
        let queue = Queue::new(1);
        let (started, has_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let done = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let (queue, done) = (&queue, &done);
            let worker = scope.spawn(move || {
                queue.run(1, |job: u32| {
                    started.send(()).unwrap();
                    may_go.recv().unwrap();
                    done.lock().unwrap().push((job, thread::current().id()));
                });
            });
            let worker = worker.thread().id();
            has_started.recv().unwrap();
            // Returns at once, though the first is still at work.
            queue.run(2, |_| unreachable!("the limit is one"));
            assert!(done.lock().unwrap().is_empty());
            go.send(()).unwrap();
            has_started.recv().unwrap();
            go.send(()).unwrap();
            while queue.lock().running > 0 {
                thread::yield_now();
            }
            assert_eq!(*done.lock().unwrap(), [(1, worker), (2, worker)]);
        });
    }

    #[test]
    fn what_borrows_is_kept_only_if_it_has_to_wait() {
        let queue = Queue::new(1);
        let done = Mutex::new(Vec::new());
        let work = |job: String| done.lock().unwrap().push(job);
        let keep = |_: &str| -> String { unreachable!("nobody else is at work") };
        queue.run_or_keep(
            "first",
            |job| {
                let never = |_: &str| unreachable!("the limit is one");
                queue.run_or_keep("second", never, |job| format!("{job}, kept"), work);
                work(job.to_owned());
            },
            keep,
            work,
        );
        assert_eq!(*done.lock().unwrap(), ["first", "second, kept"]);
    }

    #[test]
    fn never_more_than_the_limit_at_a_time_and_none_is_lost() {
        let queue = Queue::new(3);
        let (now, most, sum) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for job in 1..=200 {
                        queue.run(job, |job| {
                            most.fetch_max(
                                now.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            thread::yield_now();
                            sum.fetch_add(job, Ordering::SeqCst);
                            now.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(sum.into_inner(), 8 * 200 * 201 / 2);
    }
}
