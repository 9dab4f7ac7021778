//! From `vh5fs mount` to the last trace of it: starting, signals, dead daemons, unmounting, and what goes wrong.

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::{
    DEADLINE, Mount, MountPoint, daemons_of, is_running, mounts_at, need_root, run_python, send,
    vh5fs, wait_until, words,
};
use rustix::process::Signal;

/// Within this time nothing may be left of a mount that was told to end.
const GONE: Duration = Duration::from_secs(5);

/// A user who owns nothing.
const NOBODY: u32 = 65534;

const SCRIPT: &str = r#"
import sys, h5py, numpy as np
from versioned_hdf5 import VersionedHDF5File
with h5py.File(sys.argv[1], "w") as f:
    with VersionedHDF5File(f).stage_version("r0") as g:
        g.create_dataset("values", data=np.arange(100_000, dtype="<i4"), chunks=(4096,))
"#;

/// A versioned file with the version `r0`, in which the dataset `values` counts up from 0.
fn fixture() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mount_session.h5");
        let unfinished = file.with_extension(std::process::id().to_string());
        run_python(SCRIPT, &[&unfinished]);
        fs::rename(&unfinished, &file).unwrap();
        file
    })
}

fn values() -> Vec<u8> {
    (0..100_000_i32).flat_map(i32::to_le_bytes).collect()
}

fn values_in(mount_point: &Path) -> Vec<u8> {
    fs::read(mount_point.join("versions/r0/values")).unwrap()
}

/// Starts a daemon in the background.
fn mount(mount_point: &Path, arguments: &[&str]) -> Output {
    vh5fs()
        .arg("mount")
        .args(arguments)
        .args([fixture(), mount_point])
        .output()
        .unwrap()
}

fn umount(mount_point: &Path) -> Output {
    vh5fs().arg("umount").arg(mount_point).output().unwrap()
}

#[track_caller]
fn assert_done(output: &Output) {
    assert_eq!(
        (output.status.code(), words(output).as_str()),
        (Some(0), "")
    );
    assert!(output.stdout.is_empty());
}

/// Exit status 1 and exactly one line, which contains `expected`.
#[track_caller]
fn assert_failed(output: &Output, expected: &str) {
    let words = words(output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.starts_with("vh5fs: ") && words.contains(expected),
        "{words}"
    );
    assert_eq!(words.matches('\n').count(), 1, "{words}");
    assert!(output.stdout.is_empty());
}

#[track_caller]
fn wait_for_no_daemon(mount_point: &Path) {
    wait_until("the daemon's end", GONE, || {
        daemons_of(mount_point).is_empty()
    });
}

/// A process that stands in the mount, killed at the end.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(directory: &Path) -> Self {
        let child = Command::new("sleep")
            .arg("600")
            .current_dir(directory)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_background_start_returns_when_the_tree_is_usable() {
    let mount_point = MountPoint::new();
    // That `output` returns also shows that the daemon has let go of its standard streams.
    assert_done(&mount(mount_point.path(), &[]));
    assert_eq!(values_in(mount_point.path()), values());
    assert_eq!(daemons_of(mount_point.path()).len(), 1);
    assert_done(&umount(mount_point.path()));
    assert!(!mount_point.is_mounted());
    wait_for_no_daemon(mount_point.path());
}

#[test]
fn the_daemon_keeps_no_directory_and_no_terminal() {
    let mount_point = MountPoint::new();
    let folder = tempfile::tempdir().unwrap();
    let relative = folder.path().join("relative.h5");
    fs::copy(fixture(), &relative).unwrap();
    let output = vh5fs()
        .args(["mount", "relative.h5"])
        .arg(mount_point.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_done(&output);
    let [pid] = daemons_of(mount_point.path())[..] else {
        panic!("one daemon")
    };
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
    for stream in ["0", "1", "2"] {
        assert_eq!(
            fs::read_link(process.join("fd").join(stream)).unwrap(),
            Path::new("/dev/null")
        );
    }
    let stat = fs::read_to_string(process.join("stat")).unwrap();
    let session = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(3)
        .unwrap();
    assert_eq!(session, pid.to_string());
    assert_eq!(values_in(mount_point.path()), values());
    assert_done(&umount(mount_point.path()));
    wait_for_no_daemon(mount_point.path());
}

fn assert_ends_by(signal: Signal, busy: bool) {
    let mut mount = Mount::new(fixture(), &[]);
    let open = busy.then(|| {
        let inhabitant = Inhabitant::of(&mount.path().join("versions/r0"));
        let file = File::open(mount.path().join("versions/r0/values")).unwrap();
        (inhabitant, file)
    });
    send(mount.pid(), signal);
    assert_eq!(mount.wait(GONE), Some(0));
    assert!(!mount.is_mounted());
    if let Some((_inhabitant, file)) = open {
        // Never read before, so nothing but the daemon could have answered.
        let error = file.read_at(&mut [0; 8], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    }
}

#[test]
fn sigint_unmounts() {
    assert_ends_by(Signal::INT, false);
    assert_ends_by(Signal::INT, true);
}

#[test]
fn sigterm_unmounts() {
    assert_ends_by(Signal::TERM, false);
    assert_ends_by(Signal::TERM, true);
}

#[test]
fn sighup_unmounts() {
    assert_ends_by(Signal::HUP, false);
    assert_ends_by(Signal::HUP, true);
}

#[test]
fn a_signal_unmounts_in_the_background_too() {
    let mount_point = MountPoint::new();
    assert_done(&mount(mount_point.path(), &[]));
    let _inhabitant = Inhabitant::of(mount_point.path());
    let [pid] = daemons_of(mount_point.path())[..] else {
        panic!("one daemon")
    };
    send(pid, Signal::TERM);
    wait_until("the end", GONE, || !is_running(pid));
    assert!(!mount_point.is_mounted());
}

#[test]
fn further_signals_change_nothing() {
    let mut mount = Mount::new(fixture(), &[]);
    let _inhabitant = Inhabitant::of(mount.path());
    for signal in [Signal::TERM, Signal::INT, Signal::TERM, Signal::HUP] {
        send(mount.pid(), signal);
    }
    assert_eq!(mount.wait(GONE), Some(0));
    assert!(!mount.is_mounted());
}

#[test]
fn a_moved_mount_is_unmounted_where_it_is() {
    let mut mount = Mount::new(fixture(), &[]);
    let parent = mount.path().parent().unwrap().to_owned();
    let moved = parent.join("moved");
    fs::rename(mount.path(), &moved).unwrap_err();
    let renamed = parent.with_extension("renamed");
    fs::rename(&parent, &renamed).unwrap();
    assert_eq!(mounts_at(&renamed.join("mnt")).len(), 1);
    send(mount.pid(), Signal::TERM);
    assert_eq!(mount.wait(GONE), Some(0));
    assert!(mounts_at(&renamed.join("mnt")).is_empty());
    fs::rename(&renamed, &parent).unwrap();
}

#[test]
fn the_daemon_ends_when_somebody_else_unmounts() {
    let mut mount = Mount::new(fixture(), &[]);
    let status = Command::new("fusermount3")
        .arg("-u")
        .arg(mount.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(mount.wait(GONE), Some(0));
}

#[test]
fn a_dead_mount_is_healed() {
    for dead in 1..=2 {
        let mut mount_point = Mount::new(fixture(), &[]).kill();
        for _ in 1..dead {
            mount_point = Mount::on(mount_point, fixture(), &[]).kill();
        }
        let error = fs::read_dir(mount_point.path().join("versions")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        assert_done(&mount(mount_point.path(), &[]));
        assert_eq!(mounts_at(mount_point.path()).len(), 1);
        assert_eq!(values_in(mount_point.path()), values());
        assert_done(&umount(mount_point.path()));
        wait_for_no_daemon(mount_point.path());
    }
}

#[test]
fn a_dead_mount_can_be_unmounted() {
    let mount_point = Mount::new(fixture(), &[]).kill();
    assert!(mount_point.is_mounted());
    assert_done(&umount(mount_point.path()));
    assert!(!mount_point.is_mounted());
}

#[test]
fn a_second_mount_is_refused_and_says_how_to_unmount() {
    let first = Mount::new(fixture(), &[]);
    let expected = format!(
        "{mnt}: already shows {file}; unmount it first: vh5fs umount {mnt}",
        mnt = first.path().display(),
        file = fixture().canonicalize().unwrap().display(),
    );
    assert_failed(&mount(first.path(), &[]), &expected);
    assert_failed(&mount(first.path(), &["-f"]), &expected);
    assert_eq!(values_in(first.path()), values());
}

/// Whether the mount, as `options` made it, is as they say.
#[track_caller]
fn assert_mounted_with(mount_point: &Path, options: &str) {
    let [line] = &mounts_at(mount_point)[..] else {
        panic!("one mount")
    };
    let fields: Vec<_> = line.split(' ').collect();
    let file = fixture().canonicalize().unwrap();
    assert_eq!(
        (fields[0], fields[2]),
        (file.to_str().unwrap(), "fuse.vh5fs")
    );
    let shown: Vec<_> = fields[3].split(',').collect();
    assert!(
        shown.contains(&"nosuid") && shown.contains(&"nodev"),
        "{line}"
    );
    assert_eq!(shown.contains(&"ro"), options == "ro", "{line}");
    assert_eq!(
        shown.contains(&"noexec"),
        options.contains("noexec"),
        "{line}"
    );
    assert_eq!(values_in(mount_point), values());
    assert_done(&umount(mount_point));
    wait_for_no_daemon(mount_point);
}

const OPTIONS: [&str; 3] = [
    "ro",
    "rw,noatime,nofail,x-systemd.automount,threads=2,cache_size=64k",
    "defaults,noexec",
];

#[test]
fn the_helper_of_mount_8_finds_us_by_the_type() {
    let mount_point = MountPoint::new();
    let program = Path::new(env!("CARGO_BIN_EXE_vh5fs")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    for options in OPTIONS {
        let output = Command::new("mount.fuse3")
            .args([fixture(), mount_point.path()])
            .args(["-t", "fuse.vh5fs", "-o", options])
            .env("PATH", &path)
            .output()
            .unwrap();
        assert_done(&output);
        assert_mounted_with(mount_point.path(), options);
    }
}

#[test]
fn mount_8_and_fstab_start_us() {
    need_root("mount(8)");
    let mount_point = MountPoint::new();
    // mount(8) looks for `fuse.vh5fs` in the system's own folders only, so the program is named with the file.
    let source = format!("{}#{}", env!("CARGO_BIN_EXE_vh5fs"), fixture().display());
    for options in OPTIONS {
        let mut command = Command::new("mount");
        command
            .args(["-t", "fuse", "-o", options, &source])
            .arg(mount_point.path());
        assert_done(&command.output().unwrap());
        assert_mounted_with(mount_point.path(), options);

        let fstab = mount_point.path().with_extension("fstab");
        let line = format!(
            "{source} {} fuse {options} 0 0\n",
            mount_point.path().display()
        );
        fs::write(&fstab, line).unwrap();
        let mut command = Command::new("mount");
        command.arg("--fstab").arg(&fstab).arg(mount_point.path());
        assert_done(&command.output().unwrap());
        assert_mounted_with(mount_point.path(), options);
    }
}

#[test]
fn the_mount_table_shows_what_was_asked_for() {
    for (arguments, options) in [
        (&["--read-only"][..], "ro,"),
        (&["--allow-other"], "allow_other"),
        (&["--allow-other"], "default_permissions"),
        (&["-o", "default_permissions"], "default_permissions"),
    ] {
        let mount = Mount::new(fixture(), arguments);
        let [line] = &mounts_at(mount.path())[..] else {
            panic!("one mount")
        };
        assert!(line.contains(options), "{arguments:?}: {line}");
    }
    let plain = Mount::new(fixture(), &[]);
    let line = mounts_at(plain.path()).remove(0);
    assert!(
        !line.contains("allow_other") && !line.contains("default_permissions"),
        "{line}"
    );
}

#[test]
fn only_those_who_were_let_in_may_enter() {
    need_root("looking as another user");
    let look = |mount: &Mount| {
        let parent = mount.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
        let output = Command::new("ls")
            .arg(mount.path())
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        (output.status.success(), words(&output))
    };
    let (entered, words) = look(&Mount::new(fixture(), &[]));
    assert!(!entered && words.contains("Permission denied"), "{words}");
    let (entered, words) = look(&Mount::new(fixture(), &["--allow-other"]));
    assert!(entered, "{words}");
}

#[test]
fn everything_that_would_write_is_refused_as_read_only() {
    use rustix::fs::{CWD, XattrFlags};
    use rustix::io::Errno;
    // Without the kernel's own flag, so that each request reaches us.
    let mount = Mount::new(fixture(), &[]);
    let version = mount.path().join("versions/r0");
    let file = version.join("values");
    let new = version.join("new");
    let outcomes = [
        ("create", File::create(&new).err()),
        ("open", File::options().write(true).open(&file).err()),
        ("truncate", File::create(&file).err()),
        ("mkdir", fs::create_dir(&new).err()),
        ("unlink", fs::remove_file(&file).err()),
        ("rmdir", fs::remove_dir(&version).err()),
        ("rename", fs::rename(&file, &new).err()),
        ("link", fs::hard_link(&file, &new).err()),
        ("symlink", std::os::unix::fs::symlink("values", &new).err()),
        (
            "chmod",
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).err(),
        ),
        (
            "chown",
            std::os::unix::fs::chown(&file, Some(1), None).err(),
        ),
    ];
    for (what, outcome) in outcomes {
        assert_eq!(
            outcome.expect(what).raw_os_error(),
            Some(libc::EROFS),
            "{what}"
        );
    }
    let set = rustix::fs::setxattr(&file, "user.a", b"1", XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
    assert_eq!(
        rustix::fs::removexattr(&file, "user.h5.dtype"),
        Err(Errno::ROFS)
    );
    let fifo = rustix::fs::mknodat(CWD, &new, rustix::fs::FileType::Fifo, 0o600.into(), 0);
    assert_eq!(fifo, Err(Errno::ROFS));
    assert_eq!(
        rustix::fs::access(&file, rustix::fs::Access::WRITE_OK),
        Err(Errno::ROFS)
    );
    assert_eq!(
        rustix::fs::access(&file, rustix::fs::Access::READ_OK),
        Ok(())
    );
    // Asked twice: an answer that the kernel would remember changes the second.
    assert_eq!(
        fs::create_dir(&new).unwrap_err().raw_os_error(),
        Some(libc::EROFS)
    );
    File::open(&file).unwrap().sync_all().unwrap();
    assert_eq!(values_in(mount.path()), values());
}

#[test]
fn umount_of_a_busy_mount_names_who_uses_it() {
    let mut mount = Mount::new(fixture(), &[]);
    let inhabitant = Inhabitant::of(&mount.path().join("versions"));
    let expected = format!("busy, used by sleep ({})", inhabitant.0.id());
    assert_failed(&umount(mount.path()), &expected);
    assert!(mount.is_mounted());
    drop(inhabitant);
    assert_done(&umount(mount.path()));
    assert!(!mount.is_mounted());
    assert_eq!(mount.wait(GONE), Some(0));
}

#[test]
fn umount_says_what_is_not_ours() {
    let mount_point = MountPoint::new();
    assert_failed(&umount(mount_point.path()), "nothing is mounted there");
    assert_failed(&umount(Path::new("/proc")), "not a vh5fs mount but proc");
    assert_failed(
        &umount(&mount_point.path().join("none")),
        "no such directory",
    );
}

#[test]
fn a_bad_start_is_one_line_that_names_the_culprit() {
    let mount_point = MountPoint::new();
    let file = fixture();
    let missing = Path::new("/no/such/file.h5");
    let text = mount_point.path().with_extension("txt");
    fs::write(&text, "no HDF5 file\n").unwrap();
    for (file, directory, expected) in [
        (
            missing,
            mount_point.path(),
            "/no/such/file.h5: no such file",
        ),
        (mount_point.path(), mount_point.path(), ": is a directory"),
        (
            Path::new("/dev/null"),
            mount_point.path(),
            "/dev/null: not a regular file",
        ),
        (text.as_path(), mount_point.path(), "mnt.txt"),
        (
            file,
            Path::new("/no/such/place"),
            "/no/such/place: no such directory",
        ),
        (file, file, "mount_session.h5: not a directory"),
    ] {
        for arguments in [&["mount"][..], &["mount", "-f"], &[]] {
            let output = vh5fs()
                .args(arguments)
                .args([file, directory])
                .output()
                .unwrap();
            assert_failed(&output, expected);
            assert!(!mount_point.is_mounted());
        }
    }
}

#[test]
fn bad_usage_is_exit_status_2() {
    let file = fixture().to_str().unwrap();
    for arguments in [
        &["mount", file, "/mnt", "-o", "ro,frobnicate"][..],
        &[file, "/mnt", "-o", "frobnicate=3"],
        &["mount", file, "/mnt", "--threads", "0"],
        &["mount", file, "/mnt", "--cache-size", "lots"],
        &["mount", file],
        &["umount"],
        &["remount"],
        &[],
    ] {
        let output = vh5fs().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    let output = vh5fs()
        .args(["mount", file, "/mnt", "-o", "ro,frobnicate"])
        .output()
        .unwrap();
    assert!(words(&output).contains("unknown mount option `frobnicate`"));
}

#[test]
fn version_and_help_are_told() {
    let output = vh5fs().arg("--version").output().unwrap();
    assert_eq!(
        output.stdout,
        concat!("vh5fs ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()
    );
    for arguments in [&["--help"][..], &["mount", "--help"], &["help", "mount"]] {
        let output = vh5fs().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("vh5fs mount data.h5 /mnt")
        );
    }
}

#[test]
fn a_start_whose_caller_is_gone_leaves_no_mount() {
    let mount_point = MountPoint::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = vh5fs()
        .args(["mount", "--daemon"])
        .args([fixture(), mount_point.path()])
        .stdout(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(!mount_point.is_mounted());
}

#[test]
fn a_reader_of_a_pipe_sees_its_end() {
    // As `vh5fs mount ... | cat` in a script: the daemon must not hold the pipe.
    let mount_point = MountPoint::new();
    let mut starter = vh5fs()
        .arg("mount")
        .args([fixture(), mount_point.path()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut all = Vec::new();
    starter
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut all)
        .unwrap();
    starter
        .stderr
        .take()
        .unwrap()
        .read_to_end(&mut all)
        .unwrap();
    assert!(starter.wait().unwrap().success());
    assert!(all.is_empty());
    assert_done(&umount(mount_point.path()));
    wait_for_no_daemon(mount_point.path());
}

#[test]
fn a_service_manager_is_told_when_the_tree_is_usable() {
    let mount_point = MountPoint::new();
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut daemon = vh5fs()
        .args(["mount", "--foreground"])
        .args([fixture(), mount_point.path()])
        .env("NOTIFY_SOCKET", &address)
        .spawn()
        .unwrap();
    let mut message = [0; 64];
    let received = socket.recv(&mut message).map(|len| message[..len].to_vec());
    let listed = fs::read_dir(mount_point.path().join("versions")).map(Iterator::count);
    send(daemon.id(), Signal::TERM);
    assert!(daemon.wait().unwrap().success());
    assert_eq!(received.unwrap(), b"READY=1\n");
    assert!(listed.unwrap() > 0);
}
