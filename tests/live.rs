//! A mounted file that Python goes on writing to: what it commits appears, what it takes away disappears, and nobody who reads is ever
//! given a wrong byte.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{Contents, Interpreter, Mount, Random, literal, names_in, wait_until};
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;

/// Within this time whatever another program did has to be seen.
const SEEN: Duration = Duration::from_secs(1);

/// Three small datasets of different kinds, and what changes in each further version.
const SMALL: &str = r#"
def make(path, versions, sign=1):
    for number in range(versions):
        with version(path, f"r{number}", timestamp=when(number)) as group:
            if number == 0:
                group.create_dataset("x", data=sign * np.arange(50_000.0), chunks=(1000,))
                group.create_dataset("same", data=sign * np.arange(3000, dtype="<i4"), chunks=(256,), compression="gzip")
                group.create_dataset("deep/text", data=np.array([f"{sign} row {n}" for n in range(300)], dtype=object),
                                     dtype=h5py.string_dtype(), chunks=(64,))
            else:
                group["x"][number * 1000 % 50_000] = sign * -number
                group["deep/text"][number] = f"{sign} changed in\n{number}"
"#;

fn versions(mount: &Mount) -> PathBuf {
    mount.path().join("versions")
}

fn is_seen(mount: &Mount, version: &str) -> bool {
    fs::symlink_metadata(versions(mount).join(version)).is_ok()
}

fn current(mount: &Mount) -> String {
    let target = fs::read_link(mount.path().join("current")).unwrap();
    target
        .strip_prefix("versions")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

/// Makes the kernel drop what it has cached of a file, so that the next read is answered by the daemon.
fn drop_cached(file: &File) {
    fadvise(file, 0, None, Advice::DontNeed).unwrap();
}

/// All of a file, from its start.
fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap() + 1];
    let mut filled = 0;
    loop {
        let count = file.read_at(&mut bytes[filled..], filled as u64)?;
        if count == 0 {
            bytes.truncate(filled);
            return Ok(bytes);
        }
        filled += count;
        if filled == bytes.len() {
            bytes.resize(2 * filled, 0);
        }
    }
}

#[track_caller]
fn assert_shows(mount: &Mount, version: &str, contents: &Contents) {
    for (path, expected) in contents {
        let found = fs::read(versions(mount).join(version).join(path)).unwrap();
        assert!(found == *expected, "{version}/{path}: wrong bytes");
    }
}

/// Files that were opened before something happened.
struct Held {
    name: String,
    file: File,
    bytes: Vec<u8>,
}

/// Opens all datasets of a version. The kernel has every second one in its cache.
fn hold(mount: &Mount, version: &str, contents: &Contents) -> Vec<Held> {
    let open = |(number, (path, bytes)): (usize, (&String, &Vec<u8>))| {
        let file = File::open(versions(mount).join(version).join(path)).unwrap();
        assert!(read_all(&file).unwrap() == *bytes);
        if number % 2 == 0 {
            drop_cached(&file);
        }
        Held {
            name: format!("{version}/{path}"),
            file,
            bytes: bytes.clone(),
        }
    };
    contents.iter().enumerate().map(open).collect()
}

impl Held {
    #[track_caller]
    fn assert_is_as_before(&self) {
        let bytes = read_all(&self.file).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert!(bytes == self.bytes, "{}: wrong bytes", self.name);
        drop_cached(&self.file);
        assert!(
            read_all(&self.file).unwrap() == self.bytes,
            "{}: wrong bytes behind the cache",
            self.name
        );
    }

    /// What is no longer there is either read as it was, or not at all.
    #[track_caller]
    fn assert_is_as_before_or_stale(&self) {
        for _ in 0..2 {
            match read_all(&self.file) {
                Ok(bytes) => assert!(bytes == self.bytes, "{}: wrong bytes", self.name),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{}", self.name);
                }
            }
            drop_cached(&self.file);
        }
    }
}

/// Sets the flag whatever happens, so that other threads end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Reads datasets of versions that are known, in every way, until told to stop. What is wrong is added to `failures`.
struct Readers<'a> {
    root: &'a Path,
    known: &'a RwLock<Vec<(String, Contents)>>,
    stop: &'a AtomicBool,
    reads: &'a AtomicUsize,
    failures: &'a Mutex<Vec<String>>,
}

impl Readers<'_> {
    fn until_told(&self, mut once: impl FnMut() -> Result<(), String>) {
        while !self.stop.load(Ordering::SeqCst) {
            match once() {
                Ok(()) => self.reads.fetch_add(1, Ordering::SeqCst),
                Err(what) => {
                    self.failures.lock().unwrap().push(what);
                    return;
                }
            };
        }
    }

    fn read(&self, seed: u64) {
        let mut random = Random(seed);
        let pick = |random: &mut Random| {
            let known = self.known.read().unwrap();
            let (version, contents) = &known[random.below(known.len())];
            let (path, bytes) = contents.iter().nth(random.below(contents.len())).unwrap();
            (format!("versions/{version}/{path}"), bytes.clone())
        };
        let (held_path, held_bytes) = pick(&mut random);
        let held = File::open(self.root.join(held_path)).unwrap();
        self.until_told(|| {
            let (path, bytes) = pick(&mut random);
            let failed = |error: io::Error| format!("{path}: {error}");
            let file = File::open(self.root.join(&path)).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            if size != bytes.len() as u64 {
                return Err(format!("{path}: {size} bytes, not {}", bytes.len()));
            }
            if random.below(2) == 0 {
                drop_cached(&file);
            }
            let start = random.below(bytes.len());
            let count = 1 + random.below(bytes.len() - start);
            let mut piece = vec![0; count];
            file.read_exact_at(&mut piece, start as u64)
                .map_err(failed)?;
            if piece != bytes[start..start + count] {
                return Err(format!("{path}: wrong bytes within {count} at {start}"));
            }
            drop_cached(&held);
            match read_all(&held) {
                Ok(bytes) if bytes == held_bytes => Ok(()),
                other => Err(format!("an open file: {:?}", other.map(|b| b.len()))),
            }
        });
    }

    fn list(&self) {
        self.until_told(|| {
            let before: Vec<(String, BTreeSet<String>)> = {
                let known = self.known.read().unwrap();
                let top = |contents: &Contents| {
                    let first = |path: &String| path.split('/').next().unwrap().to_owned();
                    contents.keys().map(first).collect()
                };
                known
                    .iter()
                    .map(|(name, contents)| (name.clone(), top(contents)))
                    .collect()
            };
            let listed: BTreeSet<_> = names_in(&self.root.join("versions")).into_iter().collect();
            // One version may be in the making.
            if listed.len() < before.len() || listed.len() > before.len() + 2 {
                return Err(format!("{} of {} listed", listed.len(), before.len()));
            }
            if let Some((missing, _)) = before.iter().find(|(name, _)| !listed.contains(name)) {
                return Err(format!("{missing} is not listed"));
            }
            let (name, datasets) = &before[before.len() - 1];
            let found = names_in(&self.root.join("versions").join(name));
            if !found.iter().eq(datasets) {
                return Err(format!("{name}: {found:?}, not {datasets:?}"));
            }
            let current = fs::read_link(self.root.join("current")).map_err(|e| e.to_string())?;
            if current.strip_prefix("versions").unwrap() < Path::new(name) {
                return Err(format!("current is {}, after {name}", current.display()));
            }
            let at = names_in(&self.root.join("at")).len();
            if at < before.len() {
                return Err(format!("{at} of {} under at/", before.len()));
            }
            Ok(())
        });
    }
}

const COMMITS: &str = r#"
rng = np.random.default_rng(20261122)
alive = []

def first(path):
    with version(path, "v000", timestamp=when(0)) as group:
        group.create_dataset("numbers", data=rng.standard_normal(20_000), chunks=(1000,))
        group.create_dataset("grid", data=rng.integers(0, 9, (60, 50)).astype("<i4"), chunks=(16, 16), compression="gzip", shuffle=True)
        group.create_dataset("deep/text", data=np.array([f"row {n}" for n in range(200)], dtype=object),
                             dtype=h5py.string_dtype(), chunks=(50,))

def commit(path, number):
    with version(path, f"v{number:03}", timestamp=when(number)) as group:
        numbers, grid, text = group["numbers"], group["grid"], group["deep/text"]
        match number % 6:
            case 0:
                numbers[int(rng.integers(0, numbers.shape[0]))] = number
            case 1:
                size = numbers.shape[0]
                numbers.resize((size + 137,))
                numbers[size:] = number
            case 2:
                group.create_dataset(f"new/d{number}", data=rng.integers(0, 99, 500), chunks=(100,))
                alive.append(f"new/d{number}")
                if len(alive) > 3:
                    del group[alive.pop(0)]
            case 3:
                grid.attrs["number"] = number
            case 4:
                grid[number % 60] = number
                text[number % 200] = f"changed in\n{number}"
"#;

/// 200 versions by Python while everything is read.
#[test]
fn nobody_who_reads_notices_200_commits() {
    const COUNT: usize = 200;
    let mut python = Interpreter::new();
    let file = python.scratch().join("live.h5");
    python.run(COMMITS);
    python.run(&format!("first({})", literal(&file)));
    let known = RwLock::new(vec![("v000".to_owned(), python.contents(&file, "v000"))]);
    let mount = Mount::new(&file, &[]);

    let (stop, reads, failures) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        Mutex::default(),
    );
    let readers = Readers {
        root: mount.path(),
        known: &known,
        stop: &stop,
        reads: &reads,
        failures: &failures,
    };
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let readers = &readers;
        let _stop = Stop(&stop);
        for seed in 1..=3 {
            scope.spawn(move || readers.read(seed));
        }
        scope.spawn(|| readers.list());
        for number in 1..COUNT {
            let name = format!("v{number:03}");
            python.run(&format!("commit({}, {number})", literal(&file)));
            let committed = Instant::now();
            wait_until(&name, SEEN, || is_seen(&mount, &name));
            assert_eq!(current(&mount), name);
            let seen = committed.elapsed();
            assert!(seen < SEEN, "{name} seen after {seen:?}");
            slowest = slowest.max(seen);
            let contents = python.contents(&file, &name);
            assert_shows(&mount, &name, &contents);
            known.write().unwrap().push((name, contents));
            assert!(failures.lock().unwrap().is_empty());
        }
    });
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new());
    let reads = reads.into_inner();
    println!(
        "{COUNT} versions, each seen within {slowest:?}; {reads} reads and listings meanwhile"
    );
    assert!(reads > COUNT, "{reads} reads");
    for (name, contents) in &*known.read().unwrap() {
        assert_shows(&mount, name, contents);
    }
    python.judge(&file, &mount);
}

/// A mounted file of some versions as `SMALL` makes them, and their contents.
struct Live {
    mount: Mount,
    python: Interpreter,
    file: PathBuf,
    contents: Vec<(String, Contents)>,
}

impl Live {
    fn new(versions: usize) -> Self {
        let mut python = Interpreter::new();
        let file = python.scratch().join("live.h5");
        python.run(SMALL);
        python.run(&format!(
            "FILE = {}; make(FILE, {versions})",
            literal(&file)
        ));
        let contents = (0..versions)
            .map(|number| {
                let name = format!("r{number}");
                let contents = python.contents(&file, &name);
                (name, contents)
            })
            .collect();
        let mount = Mount::new(&file, &[]);
        Self {
            mount,
            python,
            file,
            contents,
        }
    }

    fn hold_all(&self) -> Vec<(String, Vec<Held>)> {
        self.contents
            .iter()
            .map(|(name, contents)| (name.clone(), hold(&self.mount, name, contents)))
            .collect()
    }

    /// Contents of the versions as the file has them now.
    fn refresh(&mut self) {
        for (name, contents) in &mut self.contents {
            *contents = self.python.contents(&self.file, name);
        }
    }

    /// Waits until every version shows its contents.
    #[track_caller]
    fn wait_for_contents(&self) {
        for (name, contents) in &self.contents {
            for (path, expected) in contents {
                let place = versions(&self.mount).join(name).join(path);
                wait_until(&format!("{name}/{path}"), SEEN, || {
                    fs::read(&place).is_ok_and(|found| found == *expected)
                });
            }
        }
    }

    fn judge(&mut self) {
        self.python.judge(&self.file, &self.mount);
    }
}

#[test]
fn deleted_versions_disappear_and_the_others_stay() {
    let mut live = Live::new(9);
    let held = live.hold_all();
    let mut deleted: Vec<&str> = Vec::new();
    // The first one too: what it shares with others lives on in them.
    for (step, expected_current) in [
        (&["r3", "r6"][..], "r8"),
        (&["r8"], "r7"),
        (&["r0"], "r7"),
        (&["r1"], "r7"),
    ] {
        live.python.run(&format!(
            "with opened(FILE) as v: delete_versions(v.f, {step:?})"
        ));
        deleted.extend(step);
        wait_until("the end of a version", SEEN, || {
            !is_seen(&live.mount, step[0])
        });
        live.contents
            .retain(|(name, _)| !deleted.contains(&name.as_str()));
        let left: Vec<_> = live.contents.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names_in(&versions(&live.mount)), left);
        assert_eq!(names_in(&live.mount.path().join("at")).len(), left.len());
        assert_eq!(current(&live.mount), expected_current);
        for name in &deleted {
            let path = versions(&live.mount).join(name).join("x");
            assert_eq!(
                fs::metadata(path).unwrap_err().kind(),
                io::ErrorKind::NotFound
            );
        }
        live.wait_for_contents();
        for file in held.iter().flat_map(|(_, files)| files) {
            let version = file.name.split('/').next().unwrap();
            // All versions share this one.
            if deleted.contains(&version) && !file.name.ends_with("/same") {
                file.assert_is_as_before_or_stale();
            } else {
                file.assert_is_as_before();
            }
        }
        live.judge();
    }
}

#[test]
fn a_version_deleted_without_its_data_disappears_too() {
    let mut live = Live::new(5);
    let held = live.hold_all();
    live.python.run("with opened(FILE) as v: del v['r4']");
    wait_until("no r4", SEEN, || !is_seen(&live.mount, "r4"));
    assert_eq!(current(&live.mount), "r3");
    live.contents.pop();
    live.wait_for_contents();
    for (name, files) in &held {
        for file in files {
            if name == "r4" {
                file.assert_is_as_before_or_stale();
            } else {
                file.assert_is_as_before();
            }
        }
    }
    live.judge();
}

#[test]
fn a_rewritten_dataset_is_read_as_it_is_now() {
    let mut live = Live::new(4);
    for (change, is_same) in [
        ("'x', chunks=(768,)", true),
        ("'x', compression='gzip', shuffle=True", true),
        ("'same', compression=None, chunks=(100,)", true),
        ("'x', dtype='<f4'", false),
        ("'same', fillvalue=9", false),
        ("'x', dtype='<f8'", false),
    ] {
        let held = live.hold_all();
        let code = format!("with opened(FILE) as v: modify_metadata(v.f, {change})");
        live.python.run(&code);
        live.refresh();
        live.wait_for_contents();
        for (_, files) in &held {
            for file in files {
                if is_same {
                    file.assert_is_as_before();
                } else {
                    file.assert_is_as_before_or_stale();
                }
            }
        }
        live.judge();
    }
}

/// Bytes that a rewrite leaves at their old place must not be taken for what was there.
#[test]
fn a_dataset_rewritten_several_times_at_once_is_read_as_it_is_now() {
    let mut live = Live::new(3);
    for round in 0..4 {
        let held = live.hold_all();
        live.python.run(
            "with opened(FILE) as v:
    modify_metadata(v.f, 'x', dtype='<f2')
    modify_metadata(v.f, 'x', dtype='<f8')
    modify_metadata(v.f, 'same', fillvalue=1)
    modify_metadata(v.f, 'same', fillvalue=0)",
        );
        live.refresh();
        live.wait_for_contents();
        if round == 0 {
            // Rounded.
            assert_ne!(live.contents[0].1["x"], held[0].1[2].bytes);
        }
        live.judge();
    }
}

/// Makes the last version anew, with the same name and other content.
fn top_component(path: &str) -> String {
    path.split('/').next().unwrap().to_owned()
}

/// The names in a directory, sorted.
fn listed(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_remade(session: &str, same_time: bool) {
    let mut live = Live::new(4);
    for round in 1..=6 {
        let held = live.hold_all();
        let number = if same_time { 3 } else { 100 + round };
        live.python.run(&format!(
            "
def remake(v):
    with v.stage_version('r3', timestamp=when({number})) as group:
        group['x'][7000:7100] = {round}
        group['same'][5] = {round}
        group.create_dataset('only{round}', data=[{round}])
{session}"
        ));
        live.refresh();
        live.wait_for_contents();
        // Again from what the kernel keeps of the listing.
        for _ in 0..2 {
            let mut datasets: Vec<_> = live.contents[3]
                .1
                .keys()
                .map(|path| top_component(path))
                .collect();
            datasets.dedup();
            assert_eq!(listed(&versions(&live.mount).join("r3")), datasets);
        }
        for (name, files) in &held {
            for file in files {
                // What is shared with another version, or has not changed, may be read on.
                if name != "r3" {
                    file.assert_is_as_before();
                }
            }
        }
        for file in &held[3].1 {
            let path = file.name.strip_prefix("r3/").unwrap();
            match read_all(&file.file) {
                Ok(bytes) => assert!(
                    bytes == file.bytes || live.contents[3].1.get(path) == Some(&bytes),
                    "{}: wrong bytes",
                    file.name
                ),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
            }
        }
        live.judge();
    }
}

const APART: &str = "
with opened(FILE) as v: delete_versions(v.f, ['r3'])
with opened(FILE) as v: remake(v)";

const AT_ONCE: &str = "
with opened(FILE) as v:
    del v['r3']
    remake(v)";

#[test]
fn a_version_made_anew_under_its_name_is_the_new_one() {
    assert_remade(APART, false);
}

#[test]
fn a_version_made_anew_with_its_old_time_is_the_new_one() {
    assert_remade(APART, true);
}

#[test]
fn a_version_made_anew_in_one_session_is_the_new_one() {
    assert_remade(AT_ONCE, true);
}

#[test]
fn a_file_that_is_replaced_is_never_mixed_with_the_new_one() {
    let mut live = Live::new(4);
    let other = live.python.scratch().join("other.h5");
    live.python
        .run(&format!("make({}, 4, sign=-1)", literal(&other)));
    let names = ["r0", "r1", "r2", "r3"];
    let contents_of_other: Vec<Contents> = names
        .iter()
        .map(|name| live.python.contents(&other, name))
        .collect();
    let originals = live.python.scratch().join("originals");
    fs::create_dir(&originals).unwrap();
    fs::copy(&live.file, originals.join("0")).unwrap();
    fs::copy(&other, originals.join("1")).unwrap();
    let sets: [Vec<Contents>; 2] = [
        live.contents.iter().map(|(_, c)| c.clone()).collect(),
        contents_of_other,
    ];
    for round in 1..=8 {
        let (before, after) = (&sets[(round + 1) % 2], &sets[round % 2]);
        let held = live.hold_all();
        // Half of a file is read before, the other half afterwards.
        let mut halves = Vec::new();
        for name in names {
            let mut file = File::open(versions(&live.mount).join(name).join("x")).unwrap();
            drop_cached(&file);
            let mut first = vec![0; before[0]["x"].len() / 2];
            file.read_exact(&mut first).unwrap();
            halves.push((file, first));
        }
        let next = live.python.scratch().join("next.h5");
        fs::copy(originals.join((round % 2).to_string()), &next).unwrap();
        fs::rename(&next, &live.file).unwrap();
        for ((_, contents), new) in live.contents.iter_mut().zip(after) {
            contents.clone_from(new);
        }
        live.wait_for_contents();
        for ((mut file, mut bytes), contents) in halves.into_iter().zip(before) {
            match file.read_to_end(&mut bytes) {
                Ok(_) => assert!(bytes == contents["x"], "a mix of two files"),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
            }
        }
        for (number, (_, files)) in held.iter().enumerate() {
            for file in files {
                let path = file.name.split_once('/').unwrap().1;
                match read_all(&file.file) {
                    Ok(bytes) => assert!(
                        bytes == file.bytes || bytes == after[number][path],
                        "{}: a mix of two files",
                        file.name
                    ),
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
                }
            }
        }
        live.judge();
    }
}

#[test]
fn a_file_that_python_holds_open_is_read_on() {
    let mut live = Live::new(4);
    let held = live.hold_all();
    let check = |live: &Live, what: &str| {
        let start = Instant::now();
        for (name, contents) in &live.contents {
            for path in contents.keys() {
                let file = File::open(versions(&live.mount).join(name).join(path)).unwrap();
                drop_cached(&file);
            }
            assert_shows(&live.mount, name, contents);
        }
        for file in held.iter().flat_map(|(_, files)| files) {
            file.assert_is_as_before();
        }
        println!("{what}: all read in {:?}", start.elapsed());
        assert_eq!(names_in(&versions(&live.mount)), ["r0", "r1", "r2", "r3"]);
        assert_eq!(current(&live.mount), "r3");
    };
    live.python.run("file = h5py.File(FILE, 'r+')");
    check(&live, "open");
    live.python.run(
        "versioned = VersionedHDF5File(file)
manager = versioned.stage_version('r4', timestamp=when(4))
group = manager.__enter__()
group['x'][:] = 3.0
group.create_dataset('new', data=np.arange(100_000), chunks=(1000,))",
    );
    check(&live, "staged");
    live.python.run("file.flush()");
    check(&live, "flushed");
    // The beginning of a commit, as far as the disk.
    live.python.run(
        "raw = file['_version_data/x/raw_data']
rows = raw.shape[0]
raw.resize(rows + 5000, axis=0)
raw[rows:] = 77.0
file.flush()
file.create_group('_version_data/versions/half').attrs['prev_version'] = 'r3'
file['_version_data/versions'].attrs['current_version'] = 'half'
file.flush()",
    );
    check(&live, "half committed");
    live.python.run(
        "file['_version_data/versions'].attrs['current_version'] = 'r3'
del file['_version_data/versions/half']
manager.__exit__(None, None, None)",
    );
    // Committed, but perhaps not all of it has left Python's memory: there or not there, but never wrong.
    for (name, contents) in &live.contents {
        assert_shows(&live.mount, name, contents);
    }
    live.python.run("versioned.close(); file.close()");
    wait_until("r4", SEEN, || is_seen(&live.mount, "r4"));
    assert_eq!(current(&live.mount), "r4");
    let contents = live.python.contents(&live.file, "r4");
    assert_eq!(contents["x"], 3.0_f64.to_le_bytes().repeat(50_000));
    live.contents.push(("r4".to_owned(), contents));
    live.wait_for_contents();
    for file in held.iter().flat_map(|(_, files)| files) {
        file.assert_is_as_before();
    }
    live.judge();
}

#[test]
fn a_commit_without_changes_adds_a_link() {
    let mut live = Live::new(2);
    let path = versions(&live.mount).join("r1/x");
    let held = File::open(&path).unwrap();
    let links = |file: &File| file.metadata().unwrap().nlink();
    assert_eq!(links(&held), 1);
    let inode = held.metadata().unwrap().ino();
    for number in 2..=5_u64 {
        live.python.run(&format!(
            "with version(FILE, 'r{number}', timestamp=when({number})): pass"
        ));
        let name = format!("r{number}");
        wait_until(&name, SEEN, || is_seen(&live.mount, &name));
        let new = fs::metadata(versions(&live.mount).join(&name).join("x")).unwrap();
        assert_eq!((new.ino(), new.nlink()), (inode, number));
        wait_until("the link count of an open file", SEEN, || {
            links(&held) == number
        });
    }
    live.judge();
}

#[test]
fn current_moves_when_python_sets_it() {
    let mut live = Live::new(4);
    for name in ["r1", "r3", "r0", "r2"] {
        live.python.run(&format!(
            "with opened(FILE) as v: v.current_version = {name:?}"
        ));
        wait_until(name, SEEN, || current(&live.mount) == name);
        live.judge();
    }
    assert_eq!(
        rustix::fs::readlink(live.mount.path().join("current~3"), Vec::new()),
        Err(Errno::NOENT)
    );
}

/// Older releases wrote wrong hashes, and some types have none. What was in the file before Python opened it needs none.
#[test]
fn what_no_hash_proves_is_read_on_while_python_holds_the_file() {
    let mut python = Interpreter::new();
    let file = python.scratch().join("unhashed.h5");
    let path = literal(&file);
    python.run(&format!(
        "
with version({path}, 'r0') as group:
    group.create_dataset('old', data=np.arange(5000), chunks=(100,))
    group.create_dataset('x', data=np.arange(10.0))
with h5py.File({path}, 'r+') as file:
    table = file['_version_data/old/hash_table']
    rows = table[()]
    rows['hash'] = 0
    table[()] = rows"
    ));
    let old = python.contents(&file, "r0");
    let mount = Mount::new(&file, &[]);
    // What the versions share must be known before Python opens the file: reading that ahead may be late on a busy machine.
    fs::metadata(versions(&mount).join("r0/old")).unwrap();
    python.run(&format!(
        "
file = h5py.File({path}, 'r+')
with VersionedHDF5File(file).stage_version('r1') as group:
    group['x'][0] = 5
file.flush()"
    ));
    wait_until("r1", Duration::from_secs(30), || {
        versions(&mount).join("r1").exists()
    });
    assert_shows(&mount, "r0", &old);
    python.run("file.close()");
}
