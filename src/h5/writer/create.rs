//! A new versioned file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustix::fs::{CWD, RenameFlags};

use super::driver::Opening;
use super::file_writer::edit_by_library;
use super::spec::{AttributeData, AttributeShape, NewAttribute};
use super::{LibraryWriter, WriteError};
use crate::h5::{ByteOrder, Class, Datatype};
use crate::source::Transaction;

/// What the format calls the parent of versions without one.
const FIRST_VERSION: &[u8] = b"__first_version__";
/// The layout of version data that is written (`backend.DATA_VERSION` of the Python library).
const DATA_VERSION: i64 = 4;

/// Makes a new versioned file without versions at `path`, where nothing may exist: as `h5py.File(path, "w")` and
/// `VersionedHDF5File` of 2.6 make it. It appears whole or not at all.
///
/// # Errors
/// [`WriteError::Create`], with `EEXIST` where there is something at the path; [`WriteError::H5`]; [`WriteError::Transaction`].
pub fn create_versioned_file(path: &Path) -> Result<(), WriteError> {
    let failed = |action, error: io::Error| WriteError::Create {
        action,
        path: path.display().to_string(),
        error: Arc::new(error),
    };
    if path.symlink_metadata().is_ok() {
        return Err(failed("creating", rustix::io::Errno::EXIST.into()));
    }
    let temporary = Temporary::new(path).map_err(|error| failed("creating", error))?;
    let transaction = Arc::new(Transaction::begin_new(&temporary.path)?);
    edit_by_library(&transaction, &temporary.path, 0, Opening::New, |library| {
        initialize(library, Utc::now())
    })?;
    transaction.apply()?;
    rustix::fs::renameat_with(CWD, &temporary.path, CWD, path, RenameFlags::NOREPLACE)
        .map_err(|error| failed("naming", error.into()))?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| failed("making durable the name of", error))
}

/// The groups and attributes of `backend.initialize` of the Python library, in its order.
fn initialize(library: &mut LibraryWriter, now: DateTime<Utc>) -> Result<(), WriteError> {
    const VERSIONS: &[u8] = b"/_version_data/versions";
    let first = [VERSIONS, b"/", FIRST_VERSION].concat();
    library.create_group(b"/_version_data")?;
    library.create_group(VERSIONS)?;
    library.create_group(&first)?;
    let string = Datatype {
        size: 16,
        class: Class::VlenString {
            padding: 0,
            utf8: true,
        },
    };
    let integer = Datatype {
        size: 8,
        class: Class::Integer {
            signed: true,
            order: ByteOrder::Little,
            bit_offset: 0,
            bit_precision: 64,
        },
    };
    let timestamp = now.format("%Y-%m-%d %H:%M:%S%.6f%z").to_string();
    let text = |name, text| NewAttribute {
        name,
        datatype: &string,
        shape: AttributeShape::Scalar,
        data: AttributeData::Strings(text),
    };
    library.set_attribute(VERSIONS, &text(b"current_version", &[FIRST_VERSION]))?;
    library.set_attribute(&first, &text(b"timestamp", &[timestamp.as_bytes()]))?;
    library.set_attribute(
        VERSIONS,
        &NewAttribute {
            name: b"data_version",
            datatype: &integer,
            shape: AttributeShape::Scalar,
            data: AttributeData::Bytes(&DATA_VERSION.to_le_bytes()),
        },
    )
}

/// A new empty file beside the one that is to be; removed when dropped, unless it has got its name.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn new(beside: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(beside.file_name().unwrap_or_default());
        name.push(format!(".{}.new", std::process::id()));
        let path = beside.with_file_name(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the renaming there is nothing of that name.
        let _gone = std::fs::remove_file(&self.path);
    }
}
