//! What changes the tree: everything below `staging/`, and nothing else.
//!
//! What has its effect on a version is refused as read-only; what no version could hold, such as a symbolic link, is not permitted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::inode::{Node, View};
use super::{
    Attr, AttrChange, Created, Entry, FsError, Handle, HandleId, Ino, Kind, Opened, Vfs, entry,
    staged, user_attribute,
};
use crate::staging::{Allocate, NodeId, RenameMode, SetMode};

/// How much one request copies from file to file: enough that the request itself costs nothing, and little enough that nobody
/// waits long for a thread.
const COPY_MAX_BYTES: u64 = 64 << 20;
/// How much of it is in memory at a time.
const COPY_STEP_BYTES: usize = 1 << 20;

/// What describes an array begins with this.
const STRUCTURAL: &[u8] = b"h5.";
/// The attribute that sets a file's length.
const SHAPE: &[u8] = b"h5.shape";

/// Where a name is or is to be: a directory and the name in it.
pub type Place<'a> = (Ino, &'a OsStr);

impl Vfs {
    /// Sets the length or the modification time. Everything else that can be set is accepted and forgotten, as is the time, except
    /// that setting the time of `.commit` commits, and that of `.reset` resets.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`] outside `staging/`, [`FsError::NotPermitted`] for `.status`, what keeps a commit from being made, or what
    /// is wrong with the staged file.
    pub fn setattr(
        &self,
        ino: Ino,
        change: AttrChange,
    ) -> Result<(Attr, std::time::Duration), FsError> {
        match self.inodes.node(ino)? {
            Node::StagedFile(view, id) => {
                if let Some(size_bytes) = change.size_bytes {
                    match view {
                        View::Npy => self.staging()?.truncate_npy(id, size_bytes)?,
                        View::Raw | View::Meta => self.staging()?.truncate(id, size_bytes)?,
                    }
                    self.changed_as(view, id);
                }
            }
            Node::StagedGroup(..) => {
                if change.size_bytes.is_some() {
                    return Err(FsError::IsADirectory);
                }
            }
            Node::Control(control) => self.touch(control, change)?,
            _ => return Err(FsError::ReadOnly),
        }
        self.getattr(ino)
    }

    /// Makes a file without opening it; `mode` as `mknod(2)` has it.
    ///
    /// # Errors
    /// [`FsError::NotPermitted`] for anything but a regular file, otherwise as for [`Vfs::create`].
    pub fn mknod(&self, parent: Ino, name: &OsStr, mode: u32) -> Result<Entry, FsError> {
        let (view, group) = self.staged_group(parent)?;
        let kind = mode & libc::S_IFMT;
        if kind != libc::S_IFREG && kind != 0 {
            return Err(FsError::NotPermitted);
        }
        let staging = self.staging()?;
        let id = if view == View::Npy {
            let name = self.free_npy_name(group, name)?;
            staging.create_npy(group, name)?.node()
        } else {
            staging.create(group, free_name(group, name)?)?
        };
        self.new_entry(&Node::StagedFile(view, id))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`] outside `staging/`, [`FsError::Exists`], or what is wrong with the name or the staging.
    pub fn mkdir(&self, parent: Ino, name: &OsStr) -> Result<Entry, FsError> {
        let (view, group) = self.staged_group(parent)?;
        let staging = self.staging()?;
        // A dataset may be shown under that name without having it.
        if view != View::Raw && staged::find(staging, view, group, name.as_bytes()).is_ok() {
            return Err(FsError::Exists);
        }
        let id = staging.mkdir(group, free_name(group, name)?)?;
        self.new_entry(&Node::StagedGroup(view, id))
    }

    /// Makes a file and opens it with the flags of `open(2)`; one that is there already is just opened.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`] outside `staging/`, [`FsError::Exists`] with `O_EXCL`, or what is wrong with the name or the staging.
    pub fn create(&self, parent: Ino, name: &OsStr, flags: i32) -> Result<Created, FsError> {
        let (view, group) = self.staged_group(parent)?;
        let staging = self.staging()?;
        let node = match staged::find(staging, view, group, name.as_bytes()) {
            Ok(_) if flags & libc::O_EXCL != 0 => return Err(FsError::Exists),
            Err(FsError::NotFound) if view == View::Npy => {
                let name = self.free_npy_name(group, name)?;
                let open = staging.create_npy(group, name)?;
                let entry = self.new_entry(&Node::StagedFile(view, open.node()))?;
                let handle = self.handles.add(Handle::StagedNpy(Arc::new(open)));
                return Ok(Created {
                    entry,
                    opened: Opened {
                        handle,
                        keep_cache: false,
                        direct_io: false,
                    },
                });
            }
            Err(FsError::NotFound) => {
                Node::StagedFile(view, staging.create(group, name.as_bytes())?)
            }
            found => found?,
        };
        let entry = self.new_entry(&node)?;
        match self.open_file(entry.attr.ino, flags) {
            Ok(opened) => Ok(Created { entry, opened }),
            Err(error) => {
                // The kernel is told of the error only, and does not know the inode.
                self.inodes.forget(entry.attr.ino, 1);
                Err(error)
            }
        }
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`] outside `staging/`, [`FsError::NotPermitted`] for a control file, or what the staging says.
    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<(), FsError> {
        let (view, group) = self.staged_group(parent)?;
        let name = self.true_name(view, group, name)?;
        Ok(self.staging()?.unlink(group, &name)?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As for [`Vfs::unlink`], and [`FsError::NotADirectory`] for a control file.
    pub fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<(), FsError> {
        let (view, group) = self.staged_group(parent)?;
        if view == View::Raw {
            staged::not_control(group, name.as_bytes()).map_err(|_| FsError::NotADirectory)?;
        }
        let name = self.true_name(view, group, name)?;
        Ok(self.staging()?.rmdir(group, &name)?)
    }

    /// Why no symbolic or hard link can be made in a directory.
    #[must_use]
    pub fn no_link_in(&self, parent: Ino) -> FsError {
        match self.staged_group(parent) {
            Ok(_) => FsError::NotPermitted,
            Err(error) => error,
        }
    }

    /// Renames with the flags of `renameat2(2)`.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`] unless both places are in `staging/`, [`FsError::NotPermitted`] for a control file,
    /// [`FsError::Invalid`] for a flag that is not known, or what the staging says.
    pub fn rename(&self, from: Place<'_>, to: Place<'_>, flags: u32) -> Result<(), FsError> {
        let (view, from_group) = self.staged_group(from.0)?;
        let (to_view, to_group) = self.staged_group(to.0)?;
        if view != to_view {
            // As between two file systems, and with the same outcome: the bytes are others.
            return Err(FsError::OtherView);
        }
        let mode = match flags {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(FsError::Invalid),
        };
        if view == View::Npy {
            return self.rename_npy((from_group, from.1), (to_group, to.1), mode);
        }
        let from_name = staged::not_control(from_group, from.1.as_bytes())?;
        let to_name = if mode == RenameMode::NoReplace {
            free_name(to_group, to.1)?
        } else {
            staged::not_control(to_group, to.1.as_bytes())?
        };
        Ok(self
            .staging()?
            .rename(from_group, from_name, to_group, to_name, mode)?)
    }

    /// Writes `data` at `offset`, or behind the last byte if `appends`, and says how many bytes of it: fewer than all where there was no
    /// more room. What is written to a control file is an order, wherever in the file.
    ///
    /// # Errors
    /// [`FsError::BadHandle`] for what cannot be written to, what keeps a commit from being made, or what the staging says.
    pub fn write(
        &self,
        handle: HandleId,
        offset: u64,
        data: &[u8],
        appends: bool,
    ) -> Result<u32, FsError> {
        let count = match self.handle(handle)? {
            Handle::Staged(open) => {
                let staging = self.staging()?;
                if appends && staging.stat(open.node())?.size_bytes != offset {
                    // Another length was set since the kernel last looked, and what it keeps of the file is in the wrong place.
                    let count = staging.append(&open, data)?;
                    self.announcer
                        .tell(staged::replaced(&self.inodes, &[open.node()]));
                    count
                } else {
                    let count = staging.write_at(&open, offset, data)?;
                    self.changed_as(View::Raw, open.node());
                    count
                }
            }
            Handle::StagedNpy(open) => {
                let staging = self.staging()?;
                let count = if appends {
                    staging.append_npy(&open, data)?
                } else {
                    staging.write_npy_at(&open, offset, data)?
                };
                self.changed_as(View::Npy, open.node());
                count
            }
            Handle::Control(open) => {
                self.order(open.control, data)?;
                data.len()
            }
            Handle::File(..) | Handle::Npy(..) | Handle::Text(_) => {
                return Err(FsError::BadHandle);
            }
            Handle::Directory(_) => return Err(FsError::IsADirectory),
        };
        u32::try_from(count).map_err(|_| FsError::Invalid)
    }

    /// Sets an extended attribute; `flags` as `setxattr(2)` has them.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`] outside `staging/`, [`FsError::NotSupported`] for a namespace other than `user.`, or what the staging says.
    pub fn setxattr(
        &self,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<(), FsError> {
        let name = user_attribute(name)?;
        let (view, id) = self.with_xattrs(ino)?;
        if view != View::Raw && name.starts_with(STRUCTURAL) {
            // It is what its header says.
            return Err(FsError::NotPermitted);
        }
        let mode = match flags {
            0 => SetMode::Any,
            libc::XATTR_CREATE => SetMode::Create,
            libc::XATTR_REPLACE => SetMode::Replace,
            _ => return Err(FsError::Invalid),
        };
        self.staging()?.set_attribute(id, name, value, mode)?;
        if name == SHAPE {
            // The length follows it.
            self.announcer.tell(staged::replaced(&self.inodes, &[id]));
            self.announcer.settle();
        }
        Ok(())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As for [`Vfs::setxattr`].
    pub fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<(), FsError> {
        let (_, id) = self.with_xattrs(ino)?;
        Ok(self
            .staging()?
            .remove_attribute(id, user_attribute(name)?)?)
    }

    /// Makes room, a hole or zeros; `mode` as `fallocate(2)` has it.
    ///
    /// # Errors
    /// [`FsError::NotSupported`] for any other mode, [`FsError::BadHandle`] for what is not open for writing, or what the staging says.
    pub fn fallocate(
        &self,
        handle: HandleId,
        offset: u64,
        len_bytes: u64,
        mode: i32,
    ) -> Result<(), FsError> {
        let open = self.handle(handle)?;
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let mode = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 if keep_size => Allocate::Reserve,
            0 => Allocate::Extend,
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => Allocate::PunchHole,
            libc::FALLOC_FL_ZERO_RANGE => Allocate::ZeroRange { keep_size },
            _ => return Err(FsError::NotSupported),
        };
        let staging = self.staging()?;
        match open {
            Handle::Staged(open) => {
                staging.allocate(&open, mode, offset, len_bytes)?;
                self.changed_as(View::Raw, open.node());
            }
            Handle::StagedNpy(open) => {
                staging.allocate_npy(&open, mode, offset, len_bytes)?;
                self.changed_as(View::Npy, open.node());
            }
            _ => return Err(FsError::BadHandle),
        }
        Ok(())
    }

    /// Copies bytes of any file into a staged one and says how many: fewer at the end of the file, or where there are many.
    ///
    /// # Errors
    /// What is wrong with the first bytes of either file.
    pub fn copy_range(
        &self,
        (from, mut from_offset): (HandleId, u64),
        (to, mut to_offset): (HandleId, u64),
        len_bytes: u64,
    ) -> Result<u32, FsError> {
        if !matches!(self.handle(to)?, Handle::Staged(_) | Handle::StagedNpy(_)) {
            return Err(FsError::BadHandle);
        }
        let mut left = len_bytes.min(COPY_MAX_BYTES);
        let mut copied = 0;
        let mut buffer = vec![0; COPY_STEP_BYTES];
        while left > 0 {
            let step = usize::try_from(left).map_or(COPY_STEP_BYTES, |left| left.min(buffer.len()));
            let mut copy = || {
                let count = self.read_into(from, from_offset, &mut buffer[..step])?;
                if count == 0 {
                    return Ok(0);
                }
                let written = self.write(to, to_offset, &buffer[..count], false)?;
                Ok::<_, FsError>(u64::from(written))
            };
            match copy() {
                Ok(0) => break,
                Ok(count) => {
                    copied += count;
                    left -= count;
                    from_offset += count;
                    to_offset += count;
                }
                // What was copied is told first; the rest is asked for again, and fails then.
                Err(error) if copied > 0 => {
                    log::debug!("copying: {error}");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        u32::try_from(copied).map_err(|_| FsError::Invalid)
    }

    /// Makes what was written to a file durable, still staged.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn fsync(&self, handle: HandleId) -> Result<(), FsError> {
        match self.handle(handle)? {
            Handle::Staged(open) => Ok(self.staging()?.fsync(&open)?),
            Handle::StagedNpy(open) => Ok(self.staging()?.fsync_npy(&open)?),
            _ => Ok(()),
        }
    }

    /// Makes all that is staged durable, if the directory is of `staging/`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn fsync_directory(&self, ino: Ino) -> Result<(), FsError> {
        match self.inodes.node(ino)? {
            Node::StagedGroup(..) => Ok(self.staging()?.fsync_all()?),
            _ => Ok(()),
        }
    }

    /// `access(2)` with its `mask`. The kernel asks only where it does not check permissions itself: there is one user, who may do
    /// what the tree allows at all.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`], [`FsError::AccessDenied`], or what is wrong with the file.
    pub fn access(&self, ino: Ino, mask: i32) -> Result<(), FsError> {
        let (attr, _) = self.getattr(ino)?;
        if mask & libc::W_OK != 0 {
            match self.inodes.node(ino)? {
                Node::StagedGroup(..) | Node::StagedFile(..) => {}
                Node::Control(control) if control.is_writable() => {}
                Node::Control(_) => return Err(FsError::AccessDenied),
                _ => return Err(FsError::ReadOnly),
            }
        }
        if mask & libc::X_OK != 0 && attr.kind == Kind::File {
            return Err(FsError::AccessDenied);
        }
        Ok(())
    }

    fn new_entry(&self, node: &Node) -> Result<Entry, FsError> {
        let attr = self.staged_attr(node)?;
        self.inodes.look_up(node);
        Ok(entry(node, attr))
    }

    /// The staged group that `ino` is, in which alone names can be changed.
    fn staged_group(&self, ino: Ino) -> Result<(View, NodeId), FsError> {
        match self.inodes.node(ino)? {
            Node::StagedGroup(view, id) => Ok((view, id)),
            Node::StagedFile(..) | Node::Control(_) => Err(FsError::NotADirectory),
            _ => Err(FsError::ReadOnly),
        }
    }

    /// What in `staging/` has attributes that can be changed.
    fn with_xattrs(&self, ino: Ino) -> Result<(View, NodeId), FsError> {
        match self.inodes.node(ino)? {
            Node::StagedGroup(view, id) | Node::StagedFile(view, id) => Ok((view, id)),
            Node::Control(_) => Err(FsError::NotPermitted),
            _ => Err(FsError::ReadOnly),
        }
    }
}

/// A name that a file or directory is to be given anew.
fn free_name(group: NodeId, name: &OsStr) -> Result<&[u8], FsError> {
    staged::not_control(group, name.as_bytes()).map_err(|_| FsError::Exists)
}
