//! What all fuzz targets have in common: a target fails where its parser panics, and where the parser takes more memory than its input justifies.
//!
//! The parsers are in `vh5fs::fuzzing`, which is compiled with `--cfg fuzzing` alone, as cargo-fuzz sets it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub use libfuzzer_sys;
#[cfg(fuzzing)]
pub use vh5fs;

/// Memory that any input may take: a reader's blocks, caches, the decompressors' windows.
const ANY_BYTES: usize = 96 << 20;
/// What each byte of the input may take beyond that.
const BYTES_PER_BYTE: usize = 256;

/// Counts what is allocated in Rust.
struct Counting;

static NOW_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        NOW_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn count(bytes: usize) {
    let now = NOW_BYTES.fetch_add(bytes, Relaxed) + bytes;
    PEAK_BYTES.fetch_max(now, Relaxed);
}

/// Runs a parser, and panics where it took more memory than its input justifies.
pub fn run(parser: fn(&[u8]), bytes: &[u8]) {
    let before = NOW_BYTES.load(Relaxed);
    PEAK_BYTES.store(before, Relaxed);
    parser(bytes);
    let taken = PEAK_BYTES.load(Relaxed).saturating_sub(before);
    let allowed = ANY_BYTES + BYTES_PER_BYTE * bytes.len();
    assert!(
        taken <= allowed,
        "{taken} bytes of memory for an input of {} bytes",
        bytes.len()
    );
}

/// Defines the target of that name.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            $crate::run($crate::vh5fs::fuzzing::$name, bytes);
        });
    };
}
