//! What is mounted where, from `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::FS_TYPE;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountEntry {
    /// `major:minor`, as `st_dev` has it; of its own for each FUSE connection.
    pub(super) device: String,
    /// Where it is mounted.
    pub(super) mount_point: PathBuf,
    /// Type with its subtype.
    pub(super) fs_type: OsString,
    /// What is mounted: for a mount of ours the file.
    pub(super) source: PathBuf,
}

impl MountEntry {
    /// Whether `vh5fs` mounted it.
    pub(super) fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// The mounts that this process sees, the later on top of the earlier.
///
/// # Errors
/// `/proc` is not there.
pub(super) fn read_mounts() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mount that one sees at `mount_point`: the last, if several are stacked there.
///
/// # Errors
/// `/proc` is not there.
pub(super) fn mount_at(mount_point: &Path) -> io::Result<Option<MountEntry>> {
    Ok(read_mounts()?
        .into_iter()
        .rfind(|entry| entry.mount_point == mount_point))
}

fn parse(mountinfo: &[u8]) -> Vec<MountEntry> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `36 35 98:0 /root /mnt/point rw,noatime master:1 - ext4 /dev/root rw`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = fields.nth(2)?;
    let mount_point = fields.nth(1)?;
    fields.by_ref().find(|&field| field == b"-")?;
    let fs_type = fields.next()?;
    let source = fields.next()?;
    Some(MountEntry {
        device: String::from_utf8(device.to_vec()).ok()?,
        mount_point: unescape(mount_point).into(),
        fs_type: unescape(fs_type),
        source: unescape(source).into(),
    })
}

/// Blank, tab, newline and backslash stand there as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        match behind {
            [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                behind @ ..,
            ] if byte == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields() {
        let table = b"22 1 254:1 / / rw - ext4 /dev/vda rw\n\
            90 22 0:47 / /mnt/a\\040b\\134c rw,nosuid shared:5 master:1 - fuse.vh5fs /data/my\\040file.h5 ro,user_id=0\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].mount_point, Path::new("/"));
        assert!(!mounts[0].is_ours());
        assert_eq!(
            mounts[1],
            MountEntry {
                device: "0:47".into(),
                mount_point: "/mnt/a b\\c".into(),
                fs_type: "fuse.vh5fs".into(),
                source: "/data/my file.h5".into(),
            }
        );
        assert!(mounts[1].is_ours());
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape(b"a\\9\\04"), "a\\9\\04");
        assert_eq!(unescape(b"\\"), "\\");
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mount_at(Path::new("/")).unwrap().is_some());
        assert_eq!(mount_at(Path::new("/no/such/mount")).unwrap(), None);
    }
}
