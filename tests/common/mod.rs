//! What every test over a real mount needs: a mount that is gone afterwards whatever happens, and the Python library.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How long anything may take before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What `statfs(2)` says of a FUSE mount.
const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;

/// The program under test.
pub fn vh5fs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vh5fs"))
}

/// Waits until `done`, and panics with `what` if that takes longer than `deadline`.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} in vain: {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// Lines of `/proc/self/mounts` for `mount_point`, which must be free of blanks.
pub fn mounts_at(mount_point: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(1).map(Path::new) == Some(mount_point))
        .map(str::to_owned)
        .collect()
}

/// Whether a process runs. One that has ended and was not waited for does not.
pub fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

/// Sends `signal` to a process that this test started.
pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Processes of ours that serve `mount_point`.
pub fn daemons_of(mount_point: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let serves = arguments
            .split(|&byte| byte == 0)
            .any(|argument| argument == mount_point.as_os_str().as_encoded_bytes());
        if name.trim_end() == "vh5fs" && serves && is_running(pid) {
            pids.push(pid);
        }
    }
    pids
}

/// An empty directory to mount on. What is mounted there at its end, or still serves it, is taken away, and fails the test.
#[derive(Debug)]
pub struct MountPoint {
    path: PathBuf,
    _parent: TempDir,
}

impl MountPoint {
    pub fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().canonicalize().unwrap().join("mnt");
        fs::create_dir(&path).unwrap();
        Self {
            path,
            _parent: parent,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_mounted(&self) -> bool {
        !mounts_at(&self.path).is_empty()
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        let mut left = mounts_at(&self.path);
        for pid in daemons_of(&self.path) {
            left.push(format!("process {pid}"));
            send(pid, Signal::KILL);
        }
        for _ in mounts_at(&self.path) {
            let detached = Command::new("fusermount3")
                .args(["-u", "-z", "--"])
                .arg(&self.path)
                .status();
            left.push(format!("{detached:?}"));
        }
        assert!(
            thread::panicking() || left.is_empty(),
            "left behind: {left:?}"
        );
        assert!(
            mounts_at(&self.path).is_empty(),
            "cannot be unmounted: {}",
            self.path.display()
        );
    }
}

/// A folder in memory where there is such a thing, for tests that sync often and need no disk for it.
pub fn fast_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A file, mounted by a process in the foreground, which ends with this value.
#[derive(Debug)]
pub struct Mount {
    daemon: Child,
    // Behind the daemon, so that it is looked at last.
    mount_point: MountPoint,
}

impl Mount {
    /// Mounts `file` with further arguments of `vh5fs mount`, and waits until the root answers.
    #[track_caller]
    pub fn new(file: &Path, arguments: &[&str]) -> Self {
        Self::on(MountPoint::new(), file, arguments)
    }

    /// The same on a directory that is there already.
    #[track_caller]
    pub fn on(mount_point: MountPoint, file: &Path, arguments: &[&str]) -> Self {
        let mut daemon = vh5fs();
        daemon.args(["mount", "-f"]).args(arguments).arg(file);
        Self::start(mount_point, daemon)
    }

    /// Mounts `file` with what the daemon logs, warnings and worse, going to `log`.
    #[track_caller]
    pub fn logging_to(log: &Path, file: &Path) -> Self {
        Self::logging_with(log, file, &[])
    }

    /// The same with further arguments of `vh5fs mount`.
    #[track_caller]
    pub fn logging_with(log: &Path, file: &Path, arguments: &[&str]) -> Self {
        let mut daemon = vh5fs();
        daemon
            .args(["mount", "-f"])
            .args(arguments)
            .arg(file)
            .env("RUST_LOG", "warn")
            .stderr(File::create(log).unwrap());
        Self::start(MountPoint::new(), daemon)
    }

    #[track_caller]
    fn start(mount_point: MountPoint, mut daemon: Command) -> Self {
        let daemon = daemon
            .arg(mount_point.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut mount = Self {
            daemon,
            mount_point,
        };
        wait_until("the mount", DEADLINE, || {
            if let Some(status) = mount.daemon.try_wait().unwrap() {
                panic!("vh5fs mount ended: {status}");
            }
            // A dead mount that lies there does not answer, and the directory below it is not FUSE.
            rustix::fs::statfs(mount.path()).is_ok_and(|stat| stat.f_type == FUSE_SUPER_MAGIC)
        });
        mount
    }

    /// Where the tree is.
    pub fn path(&self) -> &Path {
        self.mount_point.path()
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// Whether the mount table has it.
    pub fn is_mounted(&self) -> bool {
        self.mount_point.is_mounted()
    }

    /// Resident memory of the daemon.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// How many bytes the daemon has answered to the kernel: data that was read, and some 100 bytes for anything else.
    pub fn answered_bytes(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid())).unwrap();
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        written.unwrap().parse().unwrap()
    }

    /// Waits for the daemon's end and gives its exit code; `None` if a signal killed it.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> Option<i32> {
        let mut status = None;
        wait_until("the daemon's end", deadline, || {
            status = self.daemon.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Unmounts, and gives back the directory for another mount.
    #[track_caller]
    pub fn unmount(mut self) -> MountPoint {
        send(self.daemon.id(), Signal::TERM);
        assert_eq!(self.wait(DEADLINE), Some(0));
        std::mem::replace(&mut self.mount_point, MountPoint::new())
    }

    /// Kills the daemon, and leaves a dead mount behind.
    pub fn kill(mut self) -> MountPoint {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        std::mem::replace(&mut self.mount_point, MountPoint::new())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if matches!(self.daemon.try_wait(), Ok(None)) {
            send(self.daemon.id(), Signal::TERM);
            let start = Instant::now();
            while matches!(self.daemon.try_wait(), Ok(None)) {
                if start.elapsed() > DEADLINE {
                    // The mount point's own end says that something was left.
                    let _ = self.daemon.kill();
                    let _ = self.daemon.wait();
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// A Python that has versioned-hdf5, h5py and numpy: `VH5FS_TEST_PYTHON`, else the one of `.venv` in this folder.
pub fn python() -> PathBuf {
    let python = std::env::var_os("VH5FS_TEST_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"),
        PathBuf::from,
    );
    assert!(
        python.exists(),
        "{}: no such program; run scripts/test.sh, or set VH5FS_TEST_PYTHON to a Python with versioned-hdf5",
        python.display()
    );
    python
}

/// Runs a script and gives what it prints. Panics with what it said if it fails.
#[track_caller]
pub fn run_python(script: &str, arguments: &[&dyn AsRef<OsStr>]) -> String {
    let mut command = Command::new(python());
    command
        .arg("-c")
        .arg(script)
        .args(arguments.iter().map(AsRef::as_ref));
    run(&mut command)
}

/// A script of `tests/`, to be given its arguments.
pub fn script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(tests().join(name)).stdin(Stdio::null());
    command
}

/// Runs a program and gives what it prints. Panics with all that it said if it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        words(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The folder of the tests.
pub fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The fixtures and their manifest: `VH5FS_TEST_FIXTURES`, else made here.
pub fn fixtures() -> &'static Path {
    static FIXTURES: OnceLock<PathBuf> = OnceLock::new();
    FIXTURES.get_or_init(|| {
        std::env::var_os("VH5FS_TEST_FIXTURES").map_or_else(
            || {
                made("fixtures", &["fixtures"], |unfinished| {
                    run(script("fixtures/make.py").arg(unfinished));
                })
            },
            PathBuf::from,
        )
    })
}

/// Fails the test for others than root, whom it needs for `what`: nothing passes that was not run.
#[track_caller]
pub fn need_root(what: &str) {
    assert!(
        rustix::process::geteuid().is_root(),
        "{what} takes root: run the tests as root, or name this one behind `-- --skip`"
    );
}

/// The file that Python `code` of the test file `source` makes at `FILE`: kept as by [`made`].
pub fn made_by(code: &str, source: &str, name: &str) -> PathBuf {
    made(
        name,
        &[source, "interpreter.py", "fixtures/vh5fix"],
        |path| {
            Interpreter::new().run(&format!("FILE = {}\n{code}", literal(path)));
        },
    )
}

/// What `make` makes at the path that it is given: kept for all test processes, and made anew when one of `sources` has changed,
/// scripts below `tests/` or folders of them. No other `name` may end with `-` and this one.
pub fn made(name: &str, sources: &[&str], make: impl FnOnce(&Path)) -> PathBuf {
    let mut hash = Sha256::new();
    for source in sources {
        hash_scripts(&tests().join(source), &mut hash);
    }
    let digest = hash.finalize();
    let key = u64::from_le_bytes(*digest.first_chunk().unwrap());
    let key = format!("{key:016x}");

    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("made");
    fs::create_dir_all(&directory).unwrap();
    let finished = directory.join(format!("{key}-{name}"));
    let lock = File::create(directory.join(format!("{name}.lock"))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if !finished.exists() {
        let unfinished = directory.join(format!("unfinished-{name}"));
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().ends_with(&format!("-{name}")) {
                remove(&path);
            }
        }
        make(&unfinished);
        fs::rename(&unfinished, &finished).unwrap();
    }
    finished
}

/// Adds the name and content of a source, or of all below a folder, to `hash`.
fn hash_scripts(path: &Path, hash: &mut Sha256) {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for entry in entries {
            hash_scripts(&entry, hash);
        }
    } else if path
        .extension()
        .is_some_and(|e| e == "py" || e == "rs" || e == "gz")
    {
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update(fs::read(path).unwrap());
    }
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

/// A path as Python writes it.
pub fn literal(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

/// A Python with versioned-hdf5 that runs what it is told, until this value is dropped; `tests/interpreter.py` says what it offers.
#[derive(Debug)]
pub struct Interpreter {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    scratch: TempDir,
}

impl Interpreter {
    pub fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut process = script("interpreter.py")
            .arg(scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            requests: process.stdin.take(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
            scratch,
        }
    }

    /// A folder for files of the test.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Runs `code` and gives the value of its `result`.
    #[track_caller]
    pub fn run(&mut self, code: &str) -> Value {
        self.begin(code);
        self.end()
    }

    /// Sends `code` without waiting for its end.
    #[track_caller]
    pub fn begin(&mut self, code: &str) {
        let line = serde_json::to_string(code).unwrap();
        writeln!(self.requests.as_ref().unwrap(), "{line}").unwrap();
    }

    /// Waits for what [`Interpreter::begin`] sent.
    #[track_caller]
    pub fn end(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let mut answer: Value = serde_json::from_str(&line).expect("Python ended");
        if let Some(error) = answer.get("error") {
            panic!("{}", error.as_str().unwrap());
        }
        answer["result"].take()
    }

    /// The bytes of every dataset of a version, as h5py reads them.
    #[track_caller]
    pub fn contents(&mut self, file: &Path, version: &str) -> Contents {
        let code = format!("result = contents({}, {version:?})", literal(file));
        let hashes = self.run(&code);
        self.load(&hashes)
    }

    /// The bytes of the datasets whose paths and hashes Python's `contents` gave.
    #[track_caller]
    pub fn load(&self, hashes: &Value) -> Contents {
        let read = |hash: &Value| fs::read(self.scratch().join(hash.as_str().unwrap())).unwrap();
        hashes
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, hash)| (path.clone(), read(hash)))
            .collect()
    }

    /// Holds all that `mount` shows of `file` against the truth, as `tests/fixtures/judge.py` does.
    #[track_caller]
    pub fn judge(&mut self, file: &Path, mount: &Mount) {
        let manifest = self.run(&format!("result = write_manifest({})", literal(file)));
        let mut judge = script("fixtures/judge.py");
        judge
            .arg(mount.path())
            .arg(manifest.as_str().unwrap())
            .arg("live")
            .arg("--file")
            .arg(file);
        run(&mut judge);
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        // The end of its input is the interpreter's end.
        self.requests = None;
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if start.elapsed() > DEADLINE {
                let _ = self.process.kill();
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Datasets of a version by their paths, and their bytes.
pub type Contents = BTreeMap<String, Vec<u8>>;

/// All that a program said on stderr.
pub fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Random numbers, the same in every run.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        // xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// Names in a directory, sorted.
#[track_caller]
pub fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
