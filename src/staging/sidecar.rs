//! The folder beside the file in which staged state is kept, and the lock by which one process at a time has it.
//!
//! The folder is made at the first change and never before. No symbolic link is followed in it, and it must belong to the user of this
//! process: in a directory that others may write to, somebody else's folder of that name is not believed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::StagingError;
use super::open_files::{OpenFiles, Part};
use crate::source::JournalFolder;

const LOCK: &str = "lock";
/// The lock can be removed by its holder between opening and locking it; more often than that in a row is no accident.
const LOCK_TRIES: usize = 100;
/// A removed file of no more blocks of 512 bytes takes no time to speak of to be freed.
const SOON_FREE_BLOCKS: i64 = (8 << 20) / 512;
/// So many longer ones may wait for that, open as they are.
const MAX_TO_FREE: usize = 16;
/// How many names are tried for a folder that is set aside.
const ASIDE_NAMES: u32 = 1000;

/// The folder, held by this process.
#[derive(Debug)]
pub(super) struct Sidecar {
    path: PathBuf,
    directory: OwnedFd,
    /// Locked as long as it is open.
    _lock: File,
    open_files: OpenFiles,
    /// Overlays whose files go once the log is durable.
    removed: Mutex<Vec<u64>>,
    freer: Freer,
}

/// Closes removed files, by which their room becomes free, in a thread that lives as long as this does.
#[derive(Debug, Default)]
struct Freer {
    files: Mutex<Option<SyncSender<OwnedFd>>>,
}

impl Freer {
    fn free(&self, file: OwnedFd) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.is_none() {
            let (sender, removed) = mpsc::sync_channel(MAX_TO_FREE);
            let thread = thread::Builder::new().name("free".into());
            let spawned = thread.spawn(move || removed.into_iter().for_each(drop::<OwnedFd>));
            *files = spawned.is_ok().then_some(sender);
        }
        // Where too many wait, or there is no thread, it is closed here.
        if let Some(sender) = &*files {
            let _ = sender.try_send(file);
        }
    }
}

/// Where the staged state of `file` is kept.
pub(super) fn path_for(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".vh5fs");
    file.with_file_name(name)
}

impl Sidecar {
    /// Takes the folder at `path` if there is one.
    ///
    /// # Errors
    /// [`StagingError::Held`], [`StagingError::SidecarForeign`], [`StagingError::Sidecar`].
    pub(super) fn take(path: &Path) -> Result<Option<Arc<Self>>, StagingError> {
        for _ in 0..LOCK_TRIES {
            let Some(directory) = open_directory(path)? else {
                return Ok(None);
            };
            if let Some(lock) = take_lock(path, &directory)? {
                return Ok(Some(Arc::new(Self {
                    path: path.to_owned(),
                    directory,
                    _lock: lock,
                    open_files: OpenFiles::new(),
                    removed: Mutex::default(),
                    freer: Freer::default(),
                })));
            }
        }
        Err(held(path, None))
    }

    /// Makes the folder at `path`, or takes the one that is there.
    ///
    /// # Errors
    /// As for [`Sidecar::take`].
    pub(super) fn make(path: &Path) -> Result<Arc<Self>, StagingError> {
        for _ in 0..LOCK_TRIES {
            let is_new = match rustix::fs::mkdir(path, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(failed(path, error)),
            };
            match Self::take(path) {
                Ok(Some(sidecar)) => return Ok(sidecar),
                Ok(None) => {}
                Err(error) => {
                    if is_new {
                        // Empty, it would only be in the way; if somebody else has it by now, it is not.
                        let _ = rustix::fs::rmdir(path);
                    }
                    return Err(error);
                }
            }
        }
        Err(held(path, None))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Those files of overlays that are open.
    pub(super) fn open_files(&self) -> &OpenFiles {
        &self.open_files
    }

    /// The folder itself, for the journal of the versioned file's changes.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn journal_folder(&self) -> Result<JournalFolder, StagingError> {
        let directory = self.directory.try_clone();
        let directory = directory.map_err(|error| failed_io(&self.path, error))?;
        Ok(JournalFolder::new(directory, self.path.clone()))
    }

    /// The folder at `path` for one who only looks, without its lock; `None` where there is none.
    ///
    /// # Errors
    /// [`StagingError::SidecarForeign`], [`StagingError::Sidecar`].
    pub(super) fn look_at(path: &Path) -> Result<Option<JournalFolder>, StagingError> {
        let directory = open_directory(path)?;
        Ok(directory.map(|directory| JournalFolder::new(directory, path.to_owned())))
    }

    /// Gives the folder another name, so that the state in it is not taken up, and says which.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn set_aside(self: Arc<Self>) -> Result<PathBuf, StagingError> {
        for number in 1..=ASIDE_NAMES {
            let mut name = self.path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".aside-{number}"));
            let aside = self.path.with_file_name(name);
            match rustix::fs::renameat_with(CWD, &self.path, CWD, &aside, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(aside),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(&self.path, error)),
            }
        }
        Err(failed(&self.path, Errno::EXIST))
    }

    /// Opens a file of it for reading and writing.
    pub(super) fn open(&self, name: &str) -> Result<File, StagingError> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty())
            .map_err(|error| self.failed(name, error))?;
        let file = File::from(file);
        let is_file = file
            .metadata()
            .map_err(|error| self.failed(name, error))?
            .is_file();
        if !is_file {
            return Err(StagingError::SidecarForeign {
                path: self.path.join(name),
                what: "it is not a regular file",
            });
        }
        Ok(file)
    }

    /// Makes an empty file in it, in place of any that is there.
    pub(super) fn create(&self, name: &str) -> Result<File, StagingError> {
        self.remove(name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|error| self.failed(name, error))
    }

    /// Notes that the files of an overlay are to go once the log is durable, which says that its dataset is gone. Before, a crash of the machine could
    /// take the files and leave a log that needs them.
    pub(super) fn remove_once_logged(&self, overlay: u64) {
        self.removed().push(overlay);
    }

    /// The overlays that were noted, to be removed when the log was made durable after this call.
    pub(super) fn take_removed(&self) -> Vec<u64> {
        std::mem::take(&mut self.removed())
    }

    /// Removes the files of an overlay.
    pub(super) fn remove_overlay(&self, number: u64) -> Result<(), StagingError> {
        self.remove(&Part::Data.name(number))?;
        self.remove(&Part::Blocks.name(number))
    }

    fn removed(&self) -> MutexGuard<'_, Vec<u64>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has a file of that name.
    pub(super) fn has(&self, name: &str) -> Result<bool, StagingError> {
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// Removes a file of it, if it is there. Nobody waits until the room of a long one is free.
    pub(super) fn remove(&self, name: &str) -> Result<(), StagingError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.directory, name, flags, Mode::empty());
        let long = opened.ok().filter(|file| {
            rustix::fs::fstat(file).is_ok_and(|stat| stat.st_blocks > SOON_FREE_BLOCKS)
        });
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(self.failed(name, error)),
        }
        if let Some(long) = long {
            self.freer.free(long);
        }
        Ok(())
    }

    /// Gives a file the name of another one, in its place.
    pub(super) fn replace(&self, from: &str, to: &str) -> Result<(), StagingError> {
        rustix::fs::renameat(&self.directory, from, &self.directory, to)
            .map_err(|error| self.failed(from, error))
    }

    /// Names of the files in it.
    pub(super) fn names(&self) -> Result<Vec<String>, StagingError> {
        let listed = Dir::read_from(&self.directory).and_then(|directory| {
            directory
                .map(|entry| Ok(entry?.file_name().to_str().ok().map(str::to_owned)))
                .collect::<Result<Vec<_>, Errno>>()
        });
        let names = listed.map_err(|error| failed(&self.path, error))?;
        Ok(names
            .into_iter()
            .flatten()
            .filter(|name| name != "." && name != "..")
            .collect())
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> Result<(), StagingError> {
        rustix::fs::fsync(&self.directory).map_err(|error| failed(&self.path, error))
    }

    /// Makes its own name durable.
    pub(super) fn sync_own_name(&self) -> Result<(), StagingError> {
        let above = self.path.parent().unwrap_or(Path::new("/"));
        File::open(above)
            .and_then(|above| above.sync_all())
            .map_err(|error| failed_io(above, error))
    }

    /// Removes it with all that this program puts there; what is not of this program stays, and so does the folder then.
    pub(super) fn remove_all(&self) -> Result<(), StagingError> {
        for name in self.names()? {
            if is_own_name(&name) {
                self.remove(&name)?;
            }
        }
        self.remove(LOCK)?;
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(&self.path, error)),
        }
    }

    /// What the operating system said of a file of it.
    pub(super) fn failed(&self, name: &str, error: impl Into<io::Error>) -> StagingError {
        failed_io(&self.path.join(name), error.into())
    }
}

/// Whether a file of that name is one that staging makes.
fn is_own_name(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    matches!(name, "changes" | "changes.new")
        || name
            .strip_suffix(".data")
            .or_else(|| name.strip_suffix(".blocks"))
            .is_some_and(is_number)
}

fn open_directory(path: &Path) -> Result<Option<OwnedFd>, StagingError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Err(StagingError::SidecarForeign {
                path: path.to_owned(),
                what: "it is not a directory",
            });
        }
        Err(error) => return Err(failed(path, error)),
    };
    let found = rustix::fs::fstat(&directory).map_err(|error| failed(path, error))?;
    if found.st_uid != rustix::process::geteuid().as_raw() {
        return Err(StagingError::SidecarForeign {
            path: path.to_owned(),
            what: "it belongs to another user",
        });
    }
    // One that was copied or unpacked may have become open to others.
    if found.st_mode & 0o077 != 0 {
        rustix::fs::fchmod(&directory, Mode::RWXU).map_err(|error| failed(path, error))?;
    }
    Ok(Some(directory))
}

/// Locks the folder; `None` where its lock was removed meanwhile.
fn take_lock(path: &Path, directory: &OwnedFd) -> Result<Option<File>, StagingError> {
    let lock_path = path.join(LOCK);
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let lock = match rustix::fs::openat(directory, LOCK, flags, Mode::RUSR | Mode::WUSR) {
        Ok(lock) => lock,
        // The folder itself was removed.
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(&lock_path, error)),
    };
    let mut lock = File::from(lock);
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = lock.take(32).read_to_string(&mut text);
            return Err(held(path, read.ok().and_then(|_| text.trim().parse().ok())));
        }
        Err(error) => return Err(failed(&lock_path, error)),
    }
    let links = rustix::fs::fstat(&lock)
        .map_err(|error| failed(&lock_path, error))?
        .st_nlink;
    if links == 0 {
        return Ok(None);
    }
    // Whom to name to the next one that wants it; the lock holds without it, on a full disk too.
    let told = lock
        .set_len(0)
        .and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()));
    if let Err(error) = told {
        log::debug!("{}: {error}", lock_path.display());
    }
    Ok(Some(lock))
}

fn held(path: &Path, pid: Option<u32>) -> StagingError {
    StagingError::Held {
        path: path.to_owned(),
        pid,
    }
}

fn failed(path: &Path, error: Errno) -> StagingError {
    failed_io(path, error.into())
}

fn failed_io(path: &Path, error: io::Error) -> StagingError {
    StagingError::Sidecar {
        path: path.to_owned(),
        error: Arc::new(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn lies_beside_the_file_under_a_hidden_name() {
        assert_eq!(path_for(Path::new("/a/b.h5")), Path::new("/a/.b.h5.vh5fs"));
    }

    #[test]
    fn one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        assert!(Sidecar::take(&path).unwrap().is_none());
        assert!(!path.exists());
        let first = Sidecar::make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            std::fs::metadata(path.join(LOCK)).unwrap().mode() & 0o777,
            0o600
        );
        // A second open file description is what another process would have.
        for taken in [Sidecar::make(&path).map(Some), Sidecar::take(&path)] {
            match taken {
                Err(StagingError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
                other => panic!("{other:?}"),
            }
        }
        drop(first);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let second = Sidecar::take(&path).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        second.create("changes").unwrap();
        second.create("1.data").unwrap();
        second.remove_all().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let sidecar = Sidecar::make(&path).unwrap();
        std::fs::write(path.join("notes"), "x").unwrap();
        sidecar.remove_all().unwrap();
        assert_eq!(std::fs::read(path.join("notes")).unwrap(), b"x");
    }

    #[test]
    fn no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let elsewhere = directory.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(matches!(
            Sidecar::make(&path),
            Err(StagingError::SidecarForeign { .. })
        ));
        std::fs::remove_file(&path).unwrap();

        let victim = directory.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::fs::create_dir(&path).unwrap();
        symlink(&victim, path.join(LOCK)).unwrap();
        assert!(matches!(
            Sidecar::take(&path),
            Err(StagingError::Sidecar { .. })
        ));
        std::fs::remove_file(path.join(LOCK)).unwrap();

        let sidecar = Sidecar::make(&path).unwrap();
        symlink(&victim, path.join("1.data")).unwrap();
        assert!(sidecar.open("1.data").is_err());
        sidecar.create("1.data").unwrap().set_len(3).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
