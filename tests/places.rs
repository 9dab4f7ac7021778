//! Where a mount is asked for by others: lines of fstab, by mount(8), and systemd's units.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{made_by, need_root, run, tests};

const FILE: &str = r#"
with version(FILE, "r1", timestamp=when(1)) as group:
    group.create_dataset("values", data=np.arange(1000, dtype="<i4"), chunks=(100,))
"#;

fn file() -> PathBuf {
    made_by(FILE, "places.rs", "places.h5")
}

#[test]
fn lines_of_fstab_do_what_mount_8_says() {
    need_root("mount(8)");
    let scratch = tempfile::tempdir().unwrap();
    // Another user looks in here.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file_there = scratch.path().join("a.h5");
    fs::copy(file(), &file_there).unwrap();
    let folder = scratch.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let script = tests().join("fstab.sh");
    run(Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "bash"])
        .args([&script, Path::new(env!("CARGO_BIN_EXE_vh5fs"))])
        .args([&file_there, &folder]));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/systemd/vh5fs@.service");
    let text = fs::read_to_string(unit).unwrap();
    // The program is not where systemd looks for it.
    let here = format!("ExecStart={} mount", env!("CARGO_BIN_EXE_vh5fs"));
    let text = text.replace("ExecStart=vh5fs mount", &here);
    assert!(text.contains(&here));
    let verify = |text: &str| {
        let unit = folder.path().join("vh5fs@data-climate.h5.service");
        fs::write(&unit, text).unwrap();
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&unit)
            .output()
            .unwrap();
        // Its exit status says less: what is passed over is told only.
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(verify(&text), "");
    // It does look.
    let broken = verify(&text.replace("Type=notify", "Type=notfy"));
    assert!(broken.contains("notfy"), "{broken}");
}
