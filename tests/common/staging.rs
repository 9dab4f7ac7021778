//! The writable half of a mount, as a user's programs reach it.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags, utimensat,
};
use sha2::{Digest, Sha256};

use crate::common::Mount;

/// Makes a file of one version: 3000 numbers `x`, and a compressed `grid`.
pub const FIRST: &str = r#"
def first(path):
    with version(path, "r0") as group:
        group.create_dataset("x", data=np.arange(3000, dtype="<i4"), chunks=(512,))
        group.create_dataset("grid", data=np.arange(1200, dtype=">f8").reshape(40, 30), chunks=(16, 8), compression="gzip")
"#;

impl Mount {
    /// `staging/`, or something in it.
    pub fn staging(&self, path: &str) -> PathBuf {
        self.path().join("staging").join(path)
    }

    /// Something in a version.
    pub fn version(&self, name: &str, path: &str) -> PathBuf {
        self.path().join("versions").join(name).join(path)
    }

    /// Commits under a name, or with what a JSON object says, as `echo TEXT > staging/.commit` does.
    pub fn try_commit(&self, text: &str) -> io::Result<()> {
        write_control(&self.staging(".commit"), text)
    }

    /// The same, where it has to succeed. Afterwards the version is there.
    #[track_caller]
    pub fn commit(&self, name: &str) {
        if let Err(error) = self.try_commit(name) {
            panic!("commit {name}: {error}; {}", self.status());
        }
        assert!(self.version(name, "").is_dir(), "{name} is not there");
    }

    /// Commits, which has to fail with `errno` and a status that has each of `words`.
    #[track_caller]
    pub fn fail_to_commit(&self, text: &str, errno: i32, words: &[&str]) {
        let error = self.try_commit(text).expect_err("the commit succeeds");
        assert_eq!(
            error.raw_os_error(),
            Some(errno),
            "{error}; {}",
            self.status()
        );
        let status = self.status();
        for word in words {
            assert!(status.contains(word), "no {word:?} in {status}");
        }
    }

    /// Starts over, from a version or, with an empty text, from the current one.
    #[track_caller]
    pub fn reset(&self, text: &str) {
        write_control(&self.staging(".reset"), text).unwrap();
    }

    /// What `.status` says.
    #[track_caller]
    pub fn status(&self) -> String {
        fs::read_to_string(self.staging(".status")).unwrap()
    }
}

/// Writes a line as a shell's `echo` does.
fn write_control(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(format!("{text}\n").as_bytes())
}

/// Sets the modification time alone: to now, or to a moment in seconds since 1970.
pub fn touch(path: &Path, seconds: Option<i64>) -> io::Result<()> {
    let moment = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: moment(0, UTIME_OMIT),
        last_modification: seconds.map_or(moment(0, UTIME_NOW), |seconds| moment(seconds, 0)),
    };
    Ok(utimensat(CWD, path, &times, AtFlags::empty())?)
}

/// Sets an attribute of the `user` namespace.
#[track_caller]
pub fn set(path: &Path, name: &str, value: &str) {
    if let Err(error) = try_set(path, name, value) {
        panic!("{}: {name}: {error}", path.display());
    }
}

/// The same, where it may fail.
pub fn try_set(path: &Path, name: &str, value: &str) -> io::Result<()> {
    let name = format!("user.{name}");
    Ok(rustix::fs::setxattr(
        path,
        name,
        value.as_bytes(),
        XattrFlags::empty(),
    )?)
}

/// An attribute's text.
#[track_caller]
pub fn get(path: &Path, name: &str) -> String {
    let mut value = vec![0; 64 << 10];
    let len = rustix::fs::getxattr(path, format!("user.{name}"), &mut value[..])
        .unwrap_or_else(|error| panic!("{}: {name}: {error}", path.display()));
    value.truncate(len);
    String::from_utf8(value).unwrap()
}

/// The SHA-256 of a file.
#[track_caller]
pub fn hash_of(file: &Path) -> Vec<u8> {
    Sha256::digest(fs::read(file).unwrap()).to_vec()
}

/// The folder beside a file in which its staged state is kept.
pub fn sidecar(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap().to_str().unwrap();
    file.with_file_name(format!(".{name}.vh5fs"))
}

/// The bytes of numbers.
pub fn bytes_of(numbers: impl IntoIterator<Item = i32>) -> Vec<u8> {
    numbers.into_iter().flat_map(i32::to_le_bytes).collect()
}

/// The numbers of bytes.
#[track_caller]
pub fn numbers_of(bytes: &[u8]) -> Vec<i32> {
    let (numbers, rest) = bytes.as_chunks();
    assert!(rest.is_empty());
    numbers.iter().map(|&n| i32::from_le_bytes(n)).collect()
}
