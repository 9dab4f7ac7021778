//! Bytes by every way in which people read them: NumPy, cat, dd, random reads of many threads, mapped memory of many processes.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use common::{Interpreter, Mount, Random, literal, made, run, run_python};
use rustix::fs::{Advice, fadvise};
use serde_json::Value;

/// Some 20 MB in several layouts, in two versions.
const MAKE: &str = r#"
rng = np.random.default_rng(20261122)
with version(FILE, "r1", timestamp=when(1)) as group:
    group.create_dataset("line", data=rng.standard_normal(700_000), chunks=(1024,))
    group.create_dataset("line_be", data=rng.integers(0, 1 << 40, 100_003).astype(">i8"), chunks=(4096,))
    group.create_dataset("grid", data=rng.integers(0, 1000, (1501, 999)).astype("<i4"), chunks=(100, 128))
    cube = rng.integers(0, 50, (61, 120, 130)).astype("<i4")
    group.create_dataset("cube", data=cube, chunks=(16, 32, 48), compression="gzip", shuffle=True)
    words = np.array([f"line {n} " + "ż" * (n % 50) for n in range(20_011)], dtype=object)
    group.create_dataset("text", data=words, dtype=h5py.string_dtype(), chunks=(1000,))
    group.create_dataset("bytes", data=rng.integers(0, 256, 99_991, dtype="u1"), chunks=(777,))
with version(FILE, "r2", timestamp=when(2)) as group:
    group["line"][1000:2000] = 0.25
    group["grid"][700, :] = -1
    group["cube"].resize((61, 100, 150))
    group["text"][20_000] = "another\nline"
result = {name: contents(FILE, name) for name in ("r1", "r2")}
"#;

/// The file, and for each version and dataset its bytes as h5py reads them.
struct Truth {
    file: PathBuf,
    bytes: BTreeMap<String, Vec<u8>>,
}

/// Made once: a folder with the file, the bytes, and which are whose.
fn truth() -> &'static Truth {
    static TRUTH: OnceLock<Truth> = OnceLock::new();
    TRUTH.get_or_init(|| {
        let sources = ["reading.rs", "interpreter.py", "fixtures/vh5fix"];
        let folder = made("reading", &sources, |folder| {
            fs::create_dir(folder).unwrap();
            let file = folder.join("reading.h5");
            let mut python = Interpreter::new();
            let hashes = python.run(&format!("FILE = {}\n{MAKE}", literal(&file)));
            for (version, datasets) in hashes.as_object().unwrap() {
                for (path, bytes) in python.load(datasets) {
                    fs::write(folder.join(format!("{version}-{path}")), bytes).unwrap();
                }
            }
            fs::write(folder.join("datasets"), hashes.to_string()).unwrap();
        });
        let datasets: Value =
            serde_json::from_slice(&fs::read(folder.join("datasets")).unwrap()).unwrap();
        let mut bytes = BTreeMap::new();
        for (version, paths) in datasets.as_object().unwrap() {
            for path in paths.as_object().unwrap().keys() {
                let read = fs::read(folder.join(format!("{version}-{path}"))).unwrap();
                bytes.insert(format!("{version}/{path}"), read);
            }
        }
        assert_eq!(bytes.len(), 12);
        Truth {
            file: folder.join("reading.h5"),
            bytes,
        }
    })
}

fn mount() -> Mount {
    Mount::new(&truth().file, &[])
}

fn dataset(mount: &Mount, name: &str) -> PathBuf {
    mount.path().join("versions").join(name)
}

#[test]
fn cat_and_sha256sum_read_what_h5py_reads() {
    let mount = mount();
    for (name, bytes) in &truth().bytes {
        let output = Command::new("cat")
            .arg(dataset(&mount, name))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(output.stdout == *bytes, "{name}: wrong bytes");
        let size = fs::metadata(dataset(&mount, name)).unwrap().len();
        assert_eq!(size, bytes.len() as u64, "{name}");
    }
}

#[test]
fn dd_reads_odd_blocks_from_odd_places() {
    let mount = mount();
    for (name, bytes) in &truth().bytes {
        for (block, skip, count) in [
            (1, 12_345, 7),
            (13, 0, 100),
            (511, 17, 33),
            (4097, 3, 11),
            (65_537, 1, 2),
            (99_991, 0, 1000),
            (1_000_003, 0, 1000),
        ] {
            let read = Command::new("dd")
                .arg(format!("if={}", dataset(&mount, name).display()))
                .arg(format!("bs={block}"))
                .arg(format!("skip={skip}"))
                .arg(format!("count={count}"))
                .stderr(Stdio::null())
                .output()
                .unwrap();
            assert!(read.status.success());
            let start = (block * skip).min(bytes.len());
            let end = (start + block * count).min(bytes.len());
            assert!(
                read.stdout == bytes[start..end],
                "{name}: bs={block} skip={skip} count={count}"
            );
        }
    }
}

#[test]
fn dd_reads_past_the_page_cache_too() {
    let mount = mount();
    for (name, bytes) in &truth().bytes {
        let read = Command::new("dd")
            .arg(format!("if={}", dataset(&mount, name).display()))
            .args(["bs=61440", "iflag=direct"])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(read.status.success());
        assert!(read.stdout == *bytes, "{name}: wrong bytes");
    }
}

/// `numpy.fromfile` and `numpy.memmap` by the type and shape that the xattrs name, against what h5py reads of the version.
const NUMPY: &str = r#"
import json, os, sys, warnings
import h5py, numpy as np
count = 0
with h5py.File(sys.argv[1]) as file:
    for name in ("r1", "r2"):
        for path, dataset in file["_version_data/versions"][name].items():
            if path == "text":
                continue
            place = f"{sys.argv[2]}/versions/{name}/{path}"
            dtype = np.dtype(os.getxattr(place, "user.h5.dtype").decode())
            shape = tuple(json.loads(os.getxattr(place, "user.h5.shape")))
            truth = dataset[()]
            assert (dtype, shape) == (dataset.dtype, dataset.shape), place
            read = np.fromfile(place, dtype).reshape(shape)
            assert np.array_equal(read, truth), place
            part = np.fromfile(place, dtype, count=1000, offset=dtype.itemsize * 333)
            assert np.array_equal(part, truth.reshape(-1)[333:1333]), place
            mapped = np.memmap(place, dtype, mode="r", shape=shape)
            assert np.array_equal(mapped, truth), place
            assert np.array_equal(mapped[..., ::7], truth[..., ::7]), place
            # Copy on write: the process sees its own change, the file does not change.
            mapped = np.memmap(place, dtype, mode="c", shape=shape)
            mapped.reshape(-1)[::1000] = 1
            assert (mapped.reshape(-1)[::1000] == 1).all()
            assert np.array_equal(mapped.reshape(-1)[1:1000], truth.reshape(-1)[1:1000]), place
            del mapped
            assert np.array_equal(np.fromfile(place, dtype).reshape(shape), truth), place
            try:
                np.memmap(place, dtype, mode="r+", shape=shape)
            except OSError as error:
                assert error.errno == 30, error
            else:
                raise AssertionError("opened for writing")
            count += 1
print(count)
"#;

#[test]
fn numpy_reads_and_maps_arrays() {
    let mount = mount();
    let count = run_python(NUMPY, &[&truth().file, &mount.path()]);
    assert_eq!(count, "10\n");
}

/// Several processes that map the same files at once and read them in their own order.
const MAPPED: &str = r#"
import hashlib, mmap, os, random, sys
chooser = random.Random(int(sys.argv[1]))
names = sys.argv[3:]
for name in chooser.sample(names, len(names)):
    place, truth = f"{sys.argv[2]}/versions/{name}", open(os.environ["TRUTH"] + "/" + name.replace("/", "-"), "rb").read()
    with open(place, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        pages = list(range(0, len(mapped), 4096))
        chooser.shuffle(pages)
        for page in pages:
            assert mapped[page : page + 4096] == truth[page : page + 4096], (name, page)
        assert mapped[:] == truth, name
"#;

#[test]
fn several_processes_map_the_same_files() {
    let mount = mount();
    thread::scope(|scope| {
        for seed in 0..4 {
            let mount = &mount;
            scope.spawn(move || {
                let mut command = Command::new(common::python());
                command
                    .args(["-c", MAPPED])
                    .arg(seed.to_string())
                    .arg(mount.path())
                    .args(truth().bytes.keys())
                    .env("TRUTH", truth().file.parent().unwrap());
                run(&mut command);
            });
        }
    });
}

/// Reads at random places, now from the kernel's cache and now from the daemon.
fn read_randomly(mount: &Mount, seed: u64, times: usize) {
    let mut random = Random(seed);
    let files: Vec<_> = truth()
        .bytes
        .iter()
        .map(|(name, bytes)| (name, bytes, File::open(dataset(mount, name)).unwrap()))
        .collect();
    for _ in 0..times {
        let (name, bytes, file) = &files[random.below(files.len())];
        let start = random.below(bytes.len());
        let largest = [9, 5000, 300_000][random.below(3)];
        let mut piece = vec![0; 1 + random.below(largest)];
        if random.below(8) == 0 {
            fadvise(file, 0, None, Advice::DontNeed).unwrap();
        }
        let mut filled = 0;
        while filled < piece.len() {
            let count = file
                .read_at(&mut piece[filled..], (start + filled) as u64)
                .unwrap();
            if count == 0 {
                break;
            }
            filled += count;
        }
        let end = (start + piece.len()).min(bytes.len());
        assert_eq!(filled, end - start, "{name}: length at {start}");
        assert!(
            piece[..filled] == bytes[start..end],
            "{name}: wrong bytes from {start} to {end}"
        );
    }
}

#[test]
fn eight_threads_read_at_random() {
    let mount = mount();
    thread::scope(|scope| {
        for seed in 1..=8 {
            let mount = &mount;
            scope.spawn(move || read_randomly(mount, seed, 400));
        }
    });
}

/// With a cache that holds next to nothing, and one thread, everything is decoded again and again, and is the same.
#[test]
fn a_tiny_cache_and_one_thread_change_no_byte() {
    let mount = Mount::new(&truth().file, &["--cache-size", "64k", "--threads", "1"]);
    thread::scope(|scope| {
        for seed in 11..=14 {
            let mount = &mount;
            scope.spawn(move || read_randomly(mount, seed, 60));
        }
    });
    for (name, bytes) in &truth().bytes {
        assert!(
            fs::read(dataset(&mount, name)).unwrap() == *bytes,
            "{name}: wrong bytes"
        );
    }
}

#[test]
fn reading_at_and_beyond_the_end() {
    let mount = mount();
    for (name, bytes) in &truth().bytes {
        let file = File::open(dataset(&mount, name)).unwrap();
        let size = bytes.len() as u64;
        let mut piece = [1; 100];
        assert_eq!(file.read_at(&mut piece, size - 10).unwrap(), 10);
        assert_eq!(piece[..10], bytes[bytes.len() - 10..], "{name}");
        for beyond in [size, size + 1, size + 123_456, i64::MAX as u64 - 100] {
            assert_eq!(file.read_at(&mut piece, beyond).unwrap(), 0, "{name}");
        }
    }
}

/// Text that other programs take for text.
#[test]
fn strings_are_lines() {
    let mount = mount();
    let lines = |name: &str| {
        let path = dataset(&mount, name);
        let count = run(Command::new("wc").arg("-l").arg(&path));
        count.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(lines("r1/text"), "20011");
    assert_eq!(lines("r2/text"), "20011");
    let last = run(Command::new("tail")
        .args(["-n", "11"])
        .arg(dataset(&mount, "r2/text")));
    assert_eq!(last.lines().next(), Some("another\\nline"));
}
