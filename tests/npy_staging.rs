//! `npy/staging/`: what NumPy and other programs write there, judged by NumPy and the Python library; what is left of it when the daemon is
//! killed, or there is no room.

mod common;
#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/staging.rs"]
mod staging;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::{Mount, fast_folder, names_in, run, run_python, script};
use recorder::{Fault, Recorder};
use rustix::io::Errno;

/// Runs Python that finds the mount in `M`.
fn numpy(mount: &Mount, code: &str) -> String {
    let code = format!("import os, sys, numpy as np\nM = sys.argv[1] + '/'\n{code}");
    run_python(&code, &[&mount.path()])
}

/// A .npy file of `shape`, of which all elements are `value`.
fn saved(folder: &Path, shape: &str, value: &str) -> Vec<u8> {
    let file = folder.join("saved.npy");
    let code = format!("import sys, numpy as np\nnp.save(sys.argv[1], np.full({shape}, {value}))");
    run_python(&code, &[&file]);
    fs::read(file).unwrap()
}

#[track_caller]
fn assert_errno<T: std::fmt::Debug>(result: std::io::Result<T>, errno: Errno) {
    let error = result.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
}

#[test]
fn numpy_saves_into_the_next_version() {
    let folder = fast_folder();
    let file = folder.path().join("file.h5");
    let mount = Mount::new(&file, &["--create"]);
    let said = run(script("npy_staging.py").arg(mount.path()).arg(&file));
    assert_eq!(said.lines().count(), 12, "{said}");
}

#[test]
fn random_arrays_come_back_and_are_committed() {
    let folder = fast_folder();
    let file = folder.path().join("file.h5");
    let mount = Mount::new(&file, &["--create"]);
    let said = run(script("npy_random.py")
        .arg(mount.path())
        .arg(&file)
        .args(["11", "6"]));
    assert!(said.ends_with("arrays as they were saved\n"), "{said}");
}

#[test]
fn what_was_saved_outlives_a_killed_daemon() {
    let folder = fast_folder();
    let file = folder.path().join("file.h5");
    let mut mount = Mount::new(&file, &["--create"]);
    numpy(
        &mount,
        r#"
S = M + "npy/staging/"
np.save(S + "kept.npy", np.arange(12.0).reshape(3, 4))
np.save(S + "words.npy", np.array(["a", "bcd"]))
np.save(S + "columns.npy", np.asfortranarray(np.arange(12).reshape(3, 4)))
open(M + "staging/.commit", "w").write("r1")
np.save(S + "kept.npy", np.zeros((5, 4)))
np.save(S + "new.npy", np.array(["x" * 50]))
np.save(S + "columns.npy", np.asfortranarray(np.ones((2, 4), dtype=int)))
"#,
    );
    let whole = saved(folder.path(), "(3, 4)", "2.0");
    let npy = |mount: &Mount, name: &str| mount.path().join("npy/staging").join(name);
    // Headers that are whole, and that are not.
    for (name, len) in [("half.npy", 200), ("headless.npy", 50), ("bare.npy", 0)] {
        fs::write(npy(&mount, name), &whole[..len]).unwrap();
    }
    fs::write(npy(&mount, ".later.npy.part"), &whole).unwrap();
    let strings = saved(folder.path(), "(3,)", "'text'");
    fs::write(npy(&mount, "strings.npy"), &strings[..strings.len() - 4]).unwrap();
    mount = Mount::on(mount.kill(), &file, &[]);
    for (name, len) in [("half.npy", 200), ("headless.npy", 50), ("bare.npy", 0)] {
        assert_eq!(
            fs::read(npy(&mount, name)).unwrap(),
            &whole[..len],
            "{name}"
        );
    }
    let cut = fs::read(npy(&mount, "strings.npy")).unwrap();
    assert_eq!(cut, strings[..strings.len() - 4]);
    assert_eq!(fs::read(npy(&mount, ".later.npy.part")).unwrap(), whole);
    fs::rename(npy(&mount, ".later.npy.part"), npy(&mount, "later.npy")).unwrap();
    for name in ["half", "headless", "bare", "strings"] {
        mount.fail_to_commit("r2", libc::EINVAL, &[".npy: "]);
        fs::remove_file(npy(&mount, &format!("{name}.npy"))).unwrap();
    }
    mount.commit("r2");
    let loaded = numpy(
        &mount,
        r#"
for name in sorted(os.listdir(M + "npy/versions/r2")):
    print(name, np.load(M + "npy/versions/r2/" + name).tolist())
"#,
    );
    let want = format!(
        "columns.npy [[1, 1, 1, 1], [1, 1, 1, 1]]\nkept.npy {0}\nlater.npy {1}\nnew.npy ['{2}']\nwords.npy ['a', 'bcd']\n",
        "[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]",
        "[[2.0, 2.0, 2.0, 2.0], [2.0, 2.0, 2.0, 2.0], [2.0, 2.0, 2.0, 2.0]]",
        "x".repeat(50),
    );
    assert_eq!(loaded, want);
    // Nothing is left beside the file.
    drop(mount);
    assert_eq!(names_in(folder.path()), ["file.h5", "saved.npy"]);
}

#[test]
fn a_mount_without_staging_has_none_in_npy_either() {
    let folder = fast_folder();
    let file = folder.path().join("file.h5");
    let mount = Mount::new(&file, &["--create"]);
    assert_eq!(names_in(&mount.path().join("npy")), ["staging", "versions"]);
    assert_errno(
        fs::metadata(mount.path().join("meta/staging")),
        Errno::NOENT,
    );
    assert_errno(
        fs::metadata(mount.path().join("npy/staging/.commit")),
        Errno::NOENT,
    );
    numpy(&mount, "np.save(M + 'npy/staging/x.npy', np.arange(5))");
    mount.commit("r1");
    drop(mount);
    let mount = Mount::new(&file, &["--read-only"]);
    assert_errno(fs::metadata(mount.path().join("npy/staging")), Errno::NOENT);
}

#[test]
fn a_save_that_finds_no_room_says_so_and_can_be_made_again() {
    common::need_root("a file system of its own");
    // The disk of the file and of what is staged beside it.
    let point = common::MountPoint::new();
    let disk = point.path().parent().unwrap().join("disk");
    fs::create_dir(&disk).unwrap();
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "vh5fs-test"])
        .arg(&disk));
    let ended = std::panic::catch_unwind(|| {
        let file = disk.join("file.h5");
        let mount = Mount::new(&file, &["--create"]);
        numpy(
            &mount,
            "np.save(M + 'npy/staging/x.npy', np.arange(1000.0))",
        );
        mount.commit("r1");
        let said = numpy(
            &mount,
            r#"
for array in (np.zeros(2_000_000), np.zeros((2000, 1000)).T, np.full(600_000, "text")):
    try:
        np.save(M + "npy/staging/y.npy", array)
        print("saved")
    except OSError as error:
        # NumPy writes large arrays itself, and says of them only how many elements were written.
        assert error.errno == 28 or "requested and" in str(error), error
"#,
        );
        assert_eq!(said, "");
        mount.fail_to_commit("r2", libc::EINVAL, &["y.npy: "]);
        numpy(
            &mount,
            "np.save(M + 'npy/staging/y.npy', np.array(['a', 'b']))",
        );
        mount.commit("r2");
        let words = fs::read_to_string(mount.version("r2", "y")).unwrap();
        assert_eq!(words, "a\nb\n");
    });
    run(Command::new("umount").arg(&disk));
    if let Err(panicked) = ended {
        std::panic::resume_unwind(panicked);
    }
}

#[test]
fn a_header_that_cannot_be_kept_changes_nothing() {
    const NAME: &str = "file.h5";
    let folder = fast_folder();
    let (file, array) = (folder.path().join(NAME), folder.path().join("array.npy"));
    let mount = Mount::new(&file, &["--create"]);
    mount.commit("r0");
    drop(mount);
    let recorder = Recorder::new(NAME, fs::read(&file).unwrap());
    let mount = Mount::new(&recorder.path().join(NAME), &[]);
    for (name, made, from, to) in [
        (
            "columns",
            "np.arange(12, dtype='<i4').reshape(3, 4).T",
            "<i4",
            "<f4",
        ),
        (
            "rows",
            "np.arange(12, dtype='<i4').reshape(4, 3)",
            "<i4",
            "<f4",
        ),
        (
            "words",
            "np.array(list('abcdefghijkl')).reshape(4, 3)",
            "<U1",
            "<U1",
        ),
    ] {
        let path = mount.path().join(format!("npy/staging/{name}.npy"));
        let code = format!("import sys, numpy as np\nnp.save(sys.argv[1], {made})");
        run_python(&code, &[&array]);
        let old = fs::read(&array).unwrap();
        let (header, data) = old.split_at(old.len() - 48);
        let new = String::from_utf8(header.to_vec().split_off(10)).unwrap();
        let new = new.replace(from, to).replace("(4, 3)", "(3, 4)");
        let new = [&header[..10], new.as_bytes()].concat();
        assert!(new.len() == header.len() && new != header);

        let half = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        half.write_all_at(&old[..old.len() - 4], 0).unwrap();
        let mut failures = 0;
        loop {
            recorder.fail(Fault {
                after: failures,
                count: usize::MAX,
                errno: fuser::Errno::ENOSPC,
            });
            let replaced = half.write_all_at(&new, 0);
            if recorder.heal() == 0 {
                replaced.unwrap();
                break;
            }
            assert_errno(replaced, Errno::NOSPC);
            assert_eq!(fs::read(&path).unwrap(), old[..old.len() - 4], "{made}");
            failures += 1;
        }
        assert!(failures > 0);
        half.write_all_at(&data[44..], old.len() as u64 - 4)
            .unwrap();
        drop(half);
        fs::write(&array, [&new[..], data].concat()).unwrap();
        let code = "import sys, numpy as np\na, b = map(np.load, sys.argv[1:])\n\
                    print(a.dtype == b.dtype, a.shape == b.shape, a.tolist() == b.tolist())";
        assert_eq!(run_python(code, &[&path, &array]), "True True True\n");
        mount.commit(name);
        let path = mount.path().join(format!("npy/versions/{name}/{name}.npy"));
        assert_eq!(run_python(code, &[&path, &array]), "True True True\n");
    }
}

#[test]
fn a_reset_ends_what_is_being_written() {
    let folder = fast_folder();
    let mount = Mount::new(&folder.path().join("file.h5"), &["--create"]);
    let said = numpy(
        &mount,
        r#"
import io
S = M + "npy/staging/x.npy"
base = np.arange(12.0).reshape(6, 2)
np.save(S, base)
open(M + "staging/.commit", "w").write("r0")
for shape in [(6, 2), (4, 2), (9, 2)]:
    for cut in (50, 128, 128 + 48):
        whole = io.BytesIO()
        np.save(whole, -np.ones(shape))
        with open(S, "wb", buffering=0) as half:
            half.write(whole.getvalue()[:cut])
            open(M + "staging/.reset", "w").write("\n")
            assert (np.load(S) == base).all(), np.load(S)
            try:
                half.write(whole.getvalue()[cut:])
                print("written", shape, cut)
            except OSError:
                pass
            assert (np.load(S) == base).all(), np.load(S)
        assert "Nothing is staged" in open(M + "staging/.status").read()
np.save(S, -base)
assert (np.load(S) == -base).all()
"#,
    );
    assert_eq!(said, "");
}

#[test]
fn half_an_array_is_none_though_the_next_one_is_refused() {
    let folder = fast_folder();
    let file = folder.path().join("file.h5");
    let mount = Mount::new(&file, &["--create"]);
    let code = r#"
S = M + "npy/staging/x.npy"
np.save(S, np.arange(12))
open(M + "staging/.commit", "w").write("r0")
whole = open(S, "rb").read()
try:
    np.save(S, np.zeros(3, dtype="<f4"))
    print("saved another type")
except OSError:
    assert (np.load(S) == np.arange(12)).all()
open(S, "wb").write(whole[:-48])
try:
    np.save(S, np.zeros(3, dtype="<f4"))
    print("saved another type")
except OSError:
    pass
"#;
    assert_eq!(numpy(&mount, code), "");
    mount.fail_to_commit("r1", libc::EINVAL, &["x.npy: "]);
    let mount = Mount::on(mount.kill(), &file, &[]);
    mount.fail_to_commit("r1", libc::EINVAL, &["x.npy: "]);
    numpy(&mount, "np.save(M + 'npy/staging/x.npy', np.arange(5))");
    mount.commit("r1");
}

#[test]
fn bytes_that_are_appended_go_behind_the_data() {
    let folder = fast_folder();
    let file = folder.path().join("file.h5");
    let mount = Mount::new(&file, &["--create"]);
    let whole = saved(folder.path(), "(100,)", "7.0");
    let path = mount.path().join("npy/staging/x.npy");
    for piece in whole.chunks(97) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        file.write_all(piece).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), whole);
    mount.commit("r1");
    assert_eq!(
        fs::read(mount.path().join("npy/versions/r1/x.npy")).unwrap(),
        whole
    );
}
