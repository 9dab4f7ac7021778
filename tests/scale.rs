//! Very many versions: everything is listed right, times are found, and memory stays bounded.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{Mount, Random, made, names_in, run, script};

/// The daemon's resident memory may grow to this.
const MEMORY_LIMIT: u64 = 100 << 20;

/// The first version's time, in seconds since 1970; each further one is a minute later.
const EPOCH: i64 = 1_577_836_800;

const CHUNKS: usize = 3;

/// A file as `tests/scale.py` makes it.
struct Large {
    file: PathBuf,
    versions: usize,
    datasets: usize,
}

impl Large {
    fn new(versions: usize, datasets: usize) -> Self {
        let sources = ["scale.py", "fixtures/vh5fix"];
        let file = made(&format!("scale{versions}.h5"), &sources, |path| {
            run(script("scale.py")
                .arg(path)
                .args([versions.to_string(), datasets.to_string()]));
        });
        Self {
            file,
            versions,
            datasets,
        }
    }

    fn name(version: usize) -> String {
        format!("version-{version:05}")
    }

    fn place(dataset: usize) -> String {
        format!("group_{}/dataset_{dataset:03}", dataset % 5)
    }

    /// The version that last changed a dataset.
    fn changed_in(&self, version: usize, dataset: usize) -> usize {
        // Version 0 made them all.
        (1..=version)
            .rev()
            .take(self.datasets)
            .find(|changed| changed % self.datasets == dataset)
            .unwrap_or(0)
    }

    /// The bytes of a dataset.
    fn bytes(&self, version: usize, dataset: usize) -> Vec<u8> {
        let exact = |number: usize| f64::from(u32::try_from(number).unwrap());
        let mut chunks = [exact(dataset) + 1.0; CHUNKS];
        for changed in (1..=version).filter(|v| v % self.datasets == dataset) {
            chunks[changed / self.datasets % CHUNKS] = -exact(changed);
        }
        chunks
            .iter()
            .flat_map(|value| value.to_le_bytes().repeat(10))
            .collect()
    }

    /// When a version was committed, in seconds since 1970.
    fn seconds(version: usize) -> i64 {
        EPOCH + 60 * i64::try_from(version).unwrap()
    }

    fn at_name(version: usize) -> String {
        let minutes = version % 60;
        let hours = version / 60 % 24;
        // January is long enough for 44,640 versions.
        let day = 1 + version / 1440;
        format!("2020-01-{day:02}T{hours:02}:{minutes:02}:00.000000Z")
    }
}

fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    println!("{what}: {:?}", start.elapsed());
    result
}

fn link(path: &Path) -> String {
    fs::read_link(path).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_thousand_versions_of_fifty_datasets() {
    let large = Large::new(1000, 50);
    let mount = timed("mount", || Mount::new(&large.file, &[]));
    let versions = mount.path().join("versions");
    let names: Vec<_> = (0..large.versions).map(Large::name).collect();
    assert_eq!(timed("ls versions", || names_in(&versions)), names);
    let mut command = std::process::Command::new("ls");
    command.arg("-lR").arg(versions.join("version-00500"));
    let listing = timed("cold ls -lR of one version", || run(&mut command));
    assert_eq!(listing.matches(" dataset_").count(), 50);

    // Every dataset of every version by the path and the version that it was last changed in.
    let mut inodes: HashMap<(usize, usize), u64> = HashMap::new();
    let mut links: BTreeMap<u64, u64> = BTreeMap::new();
    let mut told: HashMap<u64, u64> = HashMap::new();
    timed("stat of all", || {
        for (version, version_name) in names.iter().enumerate() {
            let mut found = 0;
            for group in names_in(&versions.join(version_name)) {
                let directory = versions.join(version_name).join(&group);
                for name in names_in(&directory) {
                    let dataset: usize = name.strip_prefix("dataset_").unwrap().parse().unwrap();
                    assert_eq!(format!("{group}/{name}"), Large::place(dataset));
                    let stat = fs::symlink_metadata(directory.join(&name)).unwrap();
                    let changed = large.changed_in(version, dataset);
                    assert_eq!(stat.len(), 240);
                    assert_eq!(stat.mtime(), Large::seconds(changed), "{version} {dataset}");
                    let ino = *inodes.entry((dataset, changed)).or_insert(stat.ino());
                    assert_eq!(stat.ino(), ino, "{version} {dataset}");
                    *links.entry(ino).or_default() += 1;
                    told.insert(ino, stat.nlink());
                    found += 1;
                }
            }
            assert_eq!(found, large.datasets);
        }
    });
    assert_eq!(inodes.len(), links.len(), "two contents have one inode");
    for (ino, count) in links {
        assert_eq!(told[&ino], count);
    }
    let resident = mount.resident_bytes();
    println!("resident: {} KiB", resident / 1024);
    assert!(resident < MEMORY_LIMIT, "{resident} bytes resident");

    let mut random = Random(1);
    for _ in 0..300 {
        let (version, dataset) = (random.below(large.versions), random.below(large.datasets));
        let path = versions.join(&names[version]).join(Large::place(dataset));
        assert!(fs::read(&path).unwrap() == large.bytes(version, dataset));
    }
    assert_eq!(
        link(&mount.path().join("current")),
        "versions/version-00999"
    );
    for steps in [1, 2, 500, 999] {
        assert_eq!(
            link(&mount.path().join(format!("current~{steps}"))),
            format!("versions/{}", names[999 - steps])
        );
    }
    fs::read_link(mount.path().join("current~1000")).unwrap_err();
    let resident = mount.resident_bytes();
    assert!(resident < MEMORY_LIMIT, "{resident} bytes resident");
}

#[test]
fn ten_thousand_versions() {
    let large = Large::new(10_000, 4);
    let mount = timed("mount", || Mount::new(&large.file, &[]));
    let names: Vec<_> = (0..large.versions).map(Large::name).collect();
    let listed = timed("ls versions", || names_in(&mount.path().join("versions")));
    assert_eq!(listed, names);
    let at = mount.path().join("at");
    let moments: Vec<_> = (0..large.versions).map(Large::at_name).collect();
    assert_eq!(timed("ls at", || names_in(&at)), moments);

    let version_at = |time: &str| link(&at.join(time));
    let mut random = Random(2);
    timed("2,000 times looked up", || {
        for _ in 0..1000 {
            let version = random.below(large.versions);
            let expected = format!("../versions/{}", names[version]);
            assert_eq!(version_at(&moments[version]), expected);
            // Any moment until the next version.
            let second = random.below(60);
            let time = moments[version].replace(":00.000000Z", &format!(":{second:02}.5+00:00"));
            assert_eq!(version_at(&time), expected, "{time}");
        }
    });
    for (time, version) in [
        ("2020", 0),
        ("2020-01", 0),
        ("2020-01-02", 1440),
        ("2020-01-02T10:17", 1440 + 617),
        ("2020-01-02 12:17+02:00", 1440 + 617),
        ("2020-02", 9999),
        ("2100", 9999),
    ] {
        assert_eq!(
            version_at(time),
            format!("../versions/{}", names[version]),
            "{time}"
        );
    }
    for time in ["2019", "2019-12-31T23:59:59.999999", "1970-01-01"] {
        let error = fs::read_link(at.join(time)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{time}");
    }
    for _ in 0..200 {
        let (version, dataset) = (random.below(large.versions), random.below(large.datasets));
        let path = mount
            .path()
            .join("versions")
            .join(&names[version])
            .join(Large::place(dataset));
        assert!(fs::read(&path).unwrap() == large.bytes(version, dataset));
        let changed = large.changed_in(version, dataset);
        assert_eq!(
            fs::metadata(&path).unwrap().mtime(),
            Large::seconds(changed)
        );
    }
    let resident = mount.resident_bytes();
    println!("resident: {} KiB", resident / 1024);
    assert!(resident < MEMORY_LIMIT, "{resident} bytes resident");
}
