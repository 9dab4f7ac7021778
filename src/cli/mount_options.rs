//! Options as mount(8) and fstab(5) spell them.

use super::size::parse_size;

/// The most threads one may ask for.
pub(super) const MAX_THREADS: u64 = 1024;

/// One option of `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MountOption {
    /// `ro`
    ReadOnly,
    /// `rw`
    ReadWrite,
    /// `noexec`
    NoExec,
    /// `exec`
    Exec,
    /// `allow_other`
    AllowOther,
    /// `default_permissions`
    DefaultPermissions,
    /// `cache_size=SIZE`, in bytes
    CacheSize(u64),
    /// `threads=N`
    Threads(usize),
    /// `verify`
    Verify,
    /// Means something to mount(8) or the boot only, or what it asks for is so or makes no difference here.
    Ignored,
}

/// A list of options, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountOptionList(pub(super) Vec<MountOption>);

impl MountOptionList {
    /// The options that are understood, as `mount -s` wants it.
    pub(super) fn of_known(text: &str) -> Self {
        Self(parse_each(text).filter_map(Result::ok).collect())
    }
}

impl std::str::FromStr for MountOptionList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(parse_each(text).collect::<Result<_, _>>()?))
    }
}

fn parse_each(text: &str) -> impl Iterator<Item = Result<MountOption, String>> {
    text.split(',')
        .filter(|option| !option.is_empty())
        .map(parse_option)
}

fn parse_option(option: &str) -> Result<MountOption, String> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    match (name, value) {
        ("ro", None) => Ok(MountOption::ReadOnly),
        ("rw", None) => Ok(MountOption::ReadWrite),
        ("exec", None) => Ok(MountOption::Exec),
        ("noexec", None) => Ok(MountOption::NoExec),
        ("allow_other", None) => Ok(MountOption::AllowOther),
        ("default_permissions", None) => Ok(MountOption::DefaultPermissions),
        ("verify", None) => Ok(MountOption::Verify),
        ("cache_size", Some(size)) => Ok(MountOption::CacheSize(parse_size(size)?)),
        ("threads", Some(threads)) => Ok(MountOption::Threads(parse_threads(threads)?)),
        ("cache_size" | "threads", None) => Err(format!(
            "the mount option `{name}` needs a value, as in {name}=4"
        )),
        // Devices and set-user-id programs never work in a mount of ours, and no access time is kept.
        (
            "defaults" | "dev" | "nodev" | "suid" | "nosuid" | "async" | "sync" | "dirsync"
            | "atime" | "noatime" | "diratime" | "nodiratime" | "relatime" | "norelatime"
            | "strictatime" | "nostrictatime" | "lazytime" | "nolazytime" | "auto" | "noauto"
            | "user" | "nouser" | "users" | "nousers" | "owner" | "noowner" | "group" | "nogroup"
            | "_netdev" | "nofail",
            None,
        )
        | ("comment" | "user", Some(_)) => Ok(MountOption::Ignored),
        _ if name.starts_with("x-") || name.starts_with("X-") => Ok(MountOption::Ignored),
        _ => Err(format!("unknown mount option `{option}`")),
    }
}

/// A number of threads.
///
/// # Errors
/// A line that says what is wrong with it.
pub(super) fn parse_threads(text: &str) -> Result<usize, String> {
    text.parse::<u64>()
        .ok()
        .filter(|threads| (1..=MAX_THREADS).contains(threads))
        .and_then(|threads| usize::try_from(threads).ok())
        .ok_or_else(|| format!("`{text}` is not a number of threads from 1 to {MAX_THREADS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<MountOption>, String> {
        text.parse().map(|MountOptionList(options)| options)
    }

    #[test]
    fn what_mount_and_fstab_pass() {
        let options =
            parse("rw,dev,suid,,ro,user=anna,x-systemd.automount,x-a=b,comment=c d,_netdev,nofail")
                .unwrap();
        let meaningful: Vec<_> = options
            .into_iter()
            .filter(|option| *option != MountOption::Ignored)
            .collect();
        assert_eq!(meaningful, [MountOption::ReadWrite, MountOption::ReadOnly]);
    }

    #[test]
    fn options_of_our_own() {
        assert_eq!(
            parse("allow_other,cache_size=64k,threads=3,default_permissions,noexec,verify"),
            Ok(vec![
                MountOption::AllowOther,
                MountOption::CacheSize(65536),
                MountOption::Threads(3),
                MountOption::DefaultPermissions,
                MountOption::NoExec,
                MountOption::Verify,
            ])
        );
    }

    #[test]
    fn what_is_unknown_or_has_no_sense_is_refused() {
        for text in [
            "allow_root",
            "ro=1",
            "threads",
            "threads=0",
            "threads=1025",
            "threads=x",
            "cache_size=",
            "nodev=1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("foo=bar"),
            Err("unknown mount option `foo=bar`".into())
        );
    }
}
