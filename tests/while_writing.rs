//! Reading while another program holds the file and writes to it all the time.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use std::ffi::OsStr;

use vh5fs::fs::{HandleId, Ino, Vfs, VfsOptions};

/// A chunk hardly fits into this: nearly all that is read is read from the file.
const CACHE_BYTES: u64 = 64 << 10;
/// No read may take longer.
const LONGEST: Duration = Duration::from_secs(2);

/// Makes the file, says so, and goes on when told; then commits for as many seconds as the second argument says, without ever
/// closing the file, and prints how many versions it made.
const WRITER: &str = r#"
import sys, time
import h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File

path, seconds = sys.argv[1], float(sys.argv[2])
with h5py.File(path, "w", libver=sys.argv[3]) as file:
    versions = VersionedHDF5File(file)
    with versions.stage_version("r1") as group:
        group.create_dataset("plain", data=np.arange(400_000, dtype="<i8"), chunks=(4096,))
        group.create_dataset("packed", data=np.arange(400_000, dtype="<i8").reshape(400, 1000), chunks=(50, 80), compression="gzip")
with h5py.File(path, "r+") as file:
    versions = VersionedHDF5File(file)
    with versions.stage_version("r2") as group:
        group["plain"][:200_000] += 1
print("made", flush=True)
sys.stdin.readline()
with h5py.File(path, "r+") as file:
    versions = VersionedHDF5File(file)
    print("open", flush=True)
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        with versions.stage_version(f"w{number}") as group:
            group["plain"][number % 7 :: 5000] = -number
            group["packed"][number % 400] = -number
        if number % 3 == 0:
            file.flush()
        number += 1
    print(number, flush=True)
    sys.stdin.readline()
"#;

struct Writer {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(path: &Path, seconds: u32, libver: &str) -> Self {
        let mut child = Command::new(common::python())
            .args(["-c", WRITER])
            .arg(path)
            .arg(seconds.to_string())
            .arg(libver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn go_on(&mut self) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(b"\n").unwrap();
        input.flush().unwrap();
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.lines.read_to_end(&mut Vec::new()).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

fn find(vfs: &Vfs, path: &[&str]) -> Ino {
    path.iter().fold(Ino::ROOT, |ino, name| {
        vfs.lookup(ino, OsStr::new(name)).unwrap().attr.ino
    })
}

/// Reads all of an open file, in pieces, beginning somewhere: the bytes, and the longest time that a piece took.
fn read_all(vfs: &Vfs, handle: HandleId, len: usize, first: usize) -> (Vec<u8>, Duration) {
    const PIECE: usize = 128 << 10;
    let mut bytes = vec![0; len];
    let mut longest = Duration::ZERO;
    let pieces = len.div_ceil(PIECE);
    for number in 0..pieces {
        let start = (first + number) % pieces * PIECE;
        let end = len.min(start + PIECE);
        let begin = Instant::now();
        let count = vfs
            .read_into(handle, start as u64, &mut bytes[start..end])
            .unwrap();
        longest = longest.max(begin.elapsed());
        assert_eq!(count, end - start);
    }
    (bytes, longest)
}

fn numbers(bytes: &[u8]) -> Vec<i64> {
    let (numbers, rest) = bytes.as_chunks();
    assert!(rest.is_empty());
    numbers
        .iter()
        .map(|&number| i64::from_le_bytes(number))
        .collect()
}

fn reads_stay_right(libver: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.h5");
    let mut writer = Writer::start(&path, 5, libver);
    assert_eq!(writer.line(), "made");
    let options = VfsOptions {
        read_only: true,
        cache_bytes: CACHE_BYTES,
        decode_threads: 2,
        verify: false,
    };
    let vfs = Vfs::open(&path, &options).unwrap();
    let first: Vec<i64> = (0..400_000).collect();
    let second: Vec<i64> = (0..400_000).map(|n| n + i64::from(n < 200_000)).collect();
    let files = [
        (["versions", "r1", "plain"], &first),
        (["versions", "r2", "plain"], &second),
        (["versions", "r1", "packed"], &first),
    ];
    let open: Vec<(HandleId, &Vec<i64>)> = files
        .iter()
        .map(|(path, wanted)| {
            let opened = vfs.open_file(find(&vfs, path), libc::O_RDONLY).unwrap();
            // One byte of each, before the other program begins.
            let mut byte = [0];
            assert_eq!(vfs.read_into(opened.handle, 0, &mut byte).unwrap(), 1);
            (opened.handle, *wanted)
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    writer.go_on();
    assert_eq!(writer.line(), "open");
    let is_over = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    let versions: usize = thread::scope(|scope| {
        for reader in 0..2 {
            let (vfs, open, is_over, rounds) = (&vfs, &open, &is_over, &rounds);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    for &(handle, wanted) in open {
                        let len = wanted.len() * 8;
                        let round = rounds.fetch_add(1, Ordering::Relaxed);
                        let (bytes, longest) = read_all(vfs, handle, len, round * (reader + 1));
                        assert!(numbers(&bytes) == *wanted, "wrong bytes");
                        assert!(longest < LONGEST, "a read took {longest:?}");
                    }
                }
            });
        }
        let versions = writer.line().parse().unwrap();
        is_over.store(true, Ordering::Relaxed);
        versions
    });
    assert!(versions > 3, "{versions} versions");
    assert!(rounds.into_inner() > 5);
    writer.end();
    // And once it has let go, all that it wrote is there.
    let last = format!("w{}", versions - 1);
    let last_ino = || {
        vfs.lookup(find(&vfs, &["versions"]), OsStr::new(&last))
            .ok()
    };
    common::wait_until("the last version", common::DEADLINE, || {
        last_ino().is_some()
    });
    let plain = find(&vfs, &["versions", &last, "plain"]);
    let handle = vfs.open_file(plain, libc::O_RDONLY).unwrap().handle;
    let (bytes, _) = read_all(&vfs, handle, first.len() * 8, 0);
    let mut wanted = second.clone();
    for number in 0..versions {
        for at in (number % 7..wanted.len()).step_by(5000) {
            wanted[at] = -i64::try_from(number).unwrap();
        }
    }
    assert!(numbers(&bytes) == wanted);
}

#[test]
fn old_versions_stay_readable_while_a_program_writes_to_an_old_style_file() {
    reads_stay_right("earliest");
}

#[test]
fn old_versions_stay_readable_while_a_program_writes_to_a_new_style_file() {
    reads_stay_right("latest");
}
