//! Answering soon although every core decodes.
//!
//! The kernel's scheduler (`EEVDF`, sched(7)) lets a thread that asks for a shorter time slice run sooner after it wakes, without a
//! larger share of the processor. Event loops need microseconds, decoding threads milliseconds: with equal slices a `stat`
//! would wait until one of those has used up its own.

// `sched_setattr` has no wrapper in libc or rustix.
#![allow(unsafe_code)]

use std::io;

/// The shortest slice that the kernel grants (`kernel/sched/syscalls.c`, since Linux 6.12).
const SLICE_NANOSECONDS: u64 = 100_000;

/// `struct sched_attr` in its first form (`sched_setattr(2)`).
#[repr(C)]
#[derive(Debug, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for the shortest slice for this thread, and those that it starts from now on. Kernels before 6.12 take the request
/// and do nothing.
pub(super) fn prefer_short_slices() {
    let attr = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).expect("some dozen bytes"),
        policy: libc::SCHED_OTHER.unsigned_abs(),
        nice: rustix::process::getpriority_process(None).unwrap_or(0),
        runtime: SLICE_NANOSECONDS,
        ..SchedAttr::default()
    };
    // SAFETY: `attr` is of the size that it says and lives through the call, which keeps no pointer to it; 0 is this thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if done != 0 {
        log::debug!("sched_setattr: {}", io::Error::last_os_error());
    }
}
