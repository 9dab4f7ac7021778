//! What `stat` and `statfs` say, and what the kernel must forget of it when the file has changed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::inode::{InodeTable, Node, View};
use super::{Attr, FsError, FsStat, Ino, Kind, Stale, VersionedFile, directory, version_index};
use crate::store::{Snapshot, Version};

/// What `stat` says of a node.
pub(crate) fn of_node(
    file: &VersionedFile,
    snapshot: &Arc<Snapshot>,
    node: &Node,
    ino: Ino,
) -> Result<Attr, FsError> {
    let owner = snapshot.metadata()?;
    let history = snapshot.history();
    let kind = directory::kind(node);
    let mut attr = Attr {
        ino,
        kind,
        size_bytes: 0,
        blocks: 0,
        mtime: UNIX_EPOCH,
        permissions: permissions(kind, owner.mode()),
        // 1 on a directory tells tools that it does not count its subdirectories.
        link_count: 1,
        uid: owner.uid(),
        gid: owner.gid(),
    };
    let newest = || history.current().map(|index| history.version(index));
    match node {
        Node::Top(_) | Node::Versions(_) | Node::At => {
            attr.mtime = newest().map_or(UNIX_EPOCH, Version::system_time);
        }
        Node::Current { .. } | Node::Time(_) => {
            attr.size_bytes = directory::link_target(snapshot, node)?.len() as u64;
            attr.mtime = history
                .version(directory::linked_version(snapshot, node)?)
                .system_time();
        }
        // Those of `staging/` are no part of a state of the file.
        Node::Retired(_) | Node::StagedGroup(..) | Node::StagedFile(..) | Node::Control(_) => {
            return Err(FsError::Stale);
        }
        Node::Group { version, .. } => {
            attr.mtime = history
                .version(version_index(snapshot, version)?)
                .system_time();
        }
        Node::About { version, path } => {
            let version = version_index(snapshot, version)?;
            attr.mtime = history.version(version).system_time();
            attr.size_bytes = snapshot.group_json(version, path)?.len() as u64;
            attr.blocks = attr.size_bytes.div_ceil(512);
        }
        Node::Dataset { view, origin, path } => {
            let origin = version_index(snapshot, origin)?;
            let dataset = file.dataset_in(snapshot, origin, path)?;
            attr.mtime = history.version(origin).system_time();
            let stored_bytes;
            (attr.size_bytes, stored_bytes) = match view {
                View::Raw => (dataset.len_bytes()?, dataset.stored_bytes()?),
                View::Npy => {
                    let npy = dataset.npy()?.ok_or(FsError::Stale)?;
                    (npy.len_bytes(), dataset.stored_bytes()?)
                }
                View::Meta => {
                    let len_bytes = snapshot.dataset_json(origin, &dataset)?.len() as u64;
                    (len_bytes, len_bytes)
                }
            };
            attr.blocks = stored_bytes.div_ceil(512);
            let sharing = snapshot.sharing()?;
            if let Some(class) = sharing.class_of(origin, path) {
                attr.link_count = sharing.class(class).versions;
            }
        }
    }
    Ok(attr)
}

/// For a directory entry whose attributes could not be had, and must not be believed.
pub(crate) fn unknown(ino: Ino, kind: Kind) -> Attr {
    Attr {
        ino,
        kind,
        size_bytes: 0,
        blocks: 0,
        mtime: UNIX_EPOCH,
        permissions: 0,
        link_count: 1,
        uid: 0,
        gid: 0,
    }
}

/// Room on the file system that holds the file.
pub(crate) fn of_file_system(path: &Path) -> Result<FsStat, FsError> {
    let found = rustix::fs::statvfs(path).map_err(|error| FsError::Io(error.into()))?;
    let small = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    Ok(FsStat {
        blocks: found.f_blocks,
        blocks_free: found.f_bfree,
        blocks_available: found.f_bavail,
        files: found.f_files,
        files_free: found.f_ffree,
        block_bytes: small(found.f_bsize),
        fragment_bytes: small(found.f_frsize),
        name_max: small(found.f_namemax),
    })
}

/// Finds what the kernel knows again after versions were deleted or rewritten: a dataset whose version of origin is gone, but which
/// other versions share, goes on under its number.
pub(crate) fn follow(inodes: &InodeTable, old: &Snapshot, new: &Snapshot) {
    for (ino, node) in inodes.known() {
        let Node::Dataset { view, origin, path } = node else {
            continue;
        };
        if new.history().by_key(&origin).is_some() {
            continue;
        }
        let heir = old
            .sharers(&origin, &path)
            .into_iter()
            .find_map(|version| new.history().by_key(&version));
        let Some(heir) = heir else {
            continue;
        };
        if let Ok(origin) = directory::origin(new, heir, &path) {
            inodes.become_node(ino, Node::Dataset { view, origin, path });
        }
    }
}

/// What the kernel has to forget when the file's state goes from `old` to `new`.
///
/// Where versions were only added, link counts of what they share have grown. Otherwise nothing that was told of the old state
/// is sure to hold: all names below versions and all content are dropped.
pub(crate) fn stale(
    inodes: &InodeTable,
    old: &Arc<Snapshot>,
    new: &Arc<Snapshot>,
    extends: bool,
) -> Vec<Stale> {
    inodes
        .known()
        .into_iter()
        .filter_map(|(ino, node)| match node {
            Node::Dataset { origin, path, .. } if extends => {
                let links = |snapshot: &Snapshot| {
                    let sharing = snapshot.sharing_if_known()?;
                    let class = sharing.class_of(snapshot.history().by_key(&origin)?, &path)?;
                    Some(sharing.class(class).versions)
                };
                (links(old) != links(new)).then_some(Stale::Attributes(ino))
            }
            Node::Dataset { .. } => Some(Stale::Content(ino)),
            Node::Group {
                view,
                version,
                path,
            } if !extends && path.is_empty() => {
                let index = old.history().by_key(&version)?;
                Some(Stale::Name {
                    parent: inodes.ino(&Node::Versions(view)),
                    name: old.history().version(index).shown_name.clone(),
                })
            }
            Node::Group { .. } | Node::About { .. } if !extends => Some(Stale::Attributes(ino)),
            _ => None,
        })
        .collect()
}

/// Whether a file may be written to: by this user, on a medium that can be written to, and by its own permissions, which root has to
/// heed like everybody else.
pub(crate) fn is_writable(path: &Path) -> Result<bool, FsError> {
    let metadata = std::fs::metadata(path).map_err(FsError::Io)?;
    Ok(metadata.mode() & 0o222 != 0
        && rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok())
}

/// In `staging/` the owner may write too, where the file lets him.
pub(crate) fn writable_permissions(kind: Kind, file_mode: u32) -> u16 {
    let owner = u16::try_from(file_mode & 0o200).expect("one bit");
    permissions(kind, file_mode) | owner
}

/// Read permission for whoever may read the file, and entry to directories with it.
fn permissions(kind: Kind, file_mode: u32) -> u16 {
    let readers = file_mode & 0o444;
    let bits = match kind {
        Kind::Directory => readers | readers >> 2,
        Kind::File => readers,
        Kind::Symlink => 0o777,
    };
    u16::try_from(bits).expect("nine bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_permission_that_the_file_does_not_give() {
        assert_eq!(permissions(Kind::File, 0o100_644), 0o444);
        assert_eq!(permissions(Kind::Directory, 0o100_644), 0o555);
        assert_eq!(permissions(Kind::File, 0o100_640), 0o440);
        assert_eq!(permissions(Kind::Directory, 0o100_600), 0o500);
        assert_eq!(permissions(Kind::Directory, 0o100_000), 0);
        assert_eq!(writable_permissions(Kind::File, 0o100_664), 0o644);
        assert_eq!(writable_permissions(Kind::File, 0o100_440), 0o440);
        assert_eq!(writable_permissions(Kind::Directory, 0o100_600), 0o700);
    }
}
