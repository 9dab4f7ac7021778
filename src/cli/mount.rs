//! `vh5fs mount`

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use sd_notify::NotifyState;

use super::mount_options::{MountOption, MountOptionList, parse_threads};
use super::size::parse_size;
use super::{default_threads, logging, one_line};
use crate::fs::{Vfs, VfsOptions};
use crate::fuse::background::{self, Report};
use crate::fuse::mount_point;
use crate::fuse::session::{self, Access, Ending, MountConfig};
use crate::h5::writer::create_versioned_file;

const DEFAULT_CACHE_BYTES: u64 = 256 << 20;

/// Mount FILE on MOUNTPOINT; returns once the tree is usable
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(super) struct MountArgs {
    /// The versioned HDF5 file
    file: PathBuf,
    /// An existing directory
    mountpoint: PathBuf,
    /// Stay in the foreground; Ctrl-C or SIGTERM unmounts
    #[arg(short, long)]
    foreground: bool,
    /// No staging/; never open FILE for writing
    #[arg(long)]
    read_only: bool,
    /// FILE does not exist yet: make it an empty versioned file first
    #[arg(long)]
    create: bool,
    /// Let other users enter; the kernel then checks permissions
    #[arg(long)]
    allow_other: bool,
    /// Check each chunk against its stored SHA-256 as it is read; a mismatch is an I/O error
    #[arg(long)]
    verify: bool,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,
    /// Decoded data to keep in memory, as in 256MiB, 64k, 1G or bytes [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    cache_size: Option<u64>,
    #[arg(short = 'o', value_name = "OPT,...", help = OPTIONS_HELP)]
    options: Vec<MountOptionList>,
    /// This process is the daemon, and reports to the one that started it
    #[arg(long, hide = true)]
    daemon: bool,
}

const OPTIONS_HELP: &str = "Options as mount(8) has them: ro, allow_other, default_permissions, noexec, verify, \
    cache_size=SIZE, threads=N, and those that every file system has";

const EXAMPLES: &str = "\
Examples:
  vh5fs mount data.h5 /mnt
  vh5fs mount -f --cache-size 1G data.h5 /mnt
  vh5fs mount --create new.h5 /mnt
  mount -t fuse.vh5fs -o ro,allow_other data.h5 /mnt";

impl MountArgs {
    /// What mount(8) asks for: everything is in the options.
    pub(super) fn by_mount_8(
        file: PathBuf,
        mountpoint: PathBuf,
        options: Vec<MountOptionList>,
    ) -> Self {
        Self {
            file,
            mountpoint,
            foreground: false,
            read_only: false,
            create: false,
            allow_other: false,
            verify: false,
            threads: None,
            cache_size: None,
            options,
            daemon: false,
        }
    }
}

/// What the arguments mean, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    mount: MountConfig,
    cache_bytes: u64,
    verify: bool,
}

/// Mounts: here, or in a process of its own.
///
/// # Errors
/// The mount did not come about.
pub(super) fn run(args: &MountArgs) -> anyhow::Result<()> {
    if args.daemon {
        logging::to_syslog();
        return run_daemon(args);
    }
    logging::to_stderr();
    let plan = Plan::new(args)?;
    if !args.foreground {
        return Ok(background::start(
            plan.to_arguments(),
            &plan.mount.mount_point,
        )?);
    }
    leave(serve(&plan, || {
        tell_supervisor();
        Ok(())
    })?)
}

/// Tells systemd, or whatever else started us in the foreground and asked for it (`sd_notify(3)`), that the tree is usable.
fn tell_supervisor() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        log::warn!("the service manager could not be told that the mount is ready: {error}");
    }
}

fn run_daemon(args: &MountArgs) -> anyhow::Result<()> {
    let report = Report::new().context("becoming a daemon")?;
    match Plan::new(args).and_then(|plan| serve(&plan, || report.ready())) {
        Ok(ending) => leave(ending),
        Err(error) => {
            report.failed(&one_line(&error));
            // The line is told by the one who started us.
            signal_hook::low_level::exit(1)
        }
    }
}

fn serve(plan: &Plan, ready: impl FnOnce() -> io::Result<()>) -> anyhow::Result<Ending> {
    let vfs = Vfs::open(&plan.mount.file, &plan.vfs_options())?;
    Ok(session::serve(vfs, &plan.mount, ready)?)
}

fn leave(ending: Ending) -> anyhow::Result<()> {
    match ending {
        Ending::Closed => Ok(()),
        // Not by way of `exit`, which tears down libraries that other threads are in.
        Ending::InUse => {
            log::logger().flush();
            signal_hook::low_level::exit(0)
        }
    }
}

impl Plan {
    fn new(args: &MountArgs) -> anyhow::Result<Self> {
        let file = if args.create {
            args.file.clone()
        } else {
            absolute_file(&args.file)?
        };
        let mut plan = Self {
            mount: MountConfig {
                file,
                mount_point: mount_point::prepare(&args.mountpoint)?,
                read_only: false,
                no_exec: false,
                access: Access::Owner,
                decode_threads: default_threads(),
            },
            cache_bytes: DEFAULT_CACHE_BYTES,
            verify: false,
        };
        for option in args.options.iter().flat_map(|list| &list.0) {
            plan.apply(option);
        }
        plan.mount.read_only |= args.read_only;
        plan.verify |= args.verify;
        if args.allow_other {
            plan.mount.access = Access::Everyone;
        }
        plan.mount.decode_threads = args.threads.unwrap_or(plan.mount.decode_threads);
        plan.cache_bytes = args.cache_size.unwrap_or(plan.cache_bytes);
        // Last, when nothing else is wrong.
        if args.create {
            if plan.mount.read_only {
                bail!("--create makes a file, which a read-only mount does not");
            }
            create_file(&args.file)?;
            plan.mount.file = absolute_file(&args.file)?;
        }
        Ok(plan)
    }

    /// Of two that contradict each other the later counts, as with mount(8).
    fn apply(&mut self, option: &MountOption) {
        let mount = &mut self.mount;
        match *option {
            MountOption::ReadOnly => mount.read_only = true,
            MountOption::ReadWrite => mount.read_only = false,
            MountOption::NoExec => mount.no_exec = true,
            MountOption::Exec => mount.no_exec = false,
            MountOption::AllowOther => mount.access = Access::Everyone,
            MountOption::DefaultPermissions => {
                mount.access = mount.access.max(Access::OwnerChecked);
            }
            MountOption::Verify => self.verify = true,
            MountOption::CacheSize(bytes) => self.cache_bytes = bytes,
            MountOption::Threads(threads) => mount.decode_threads = threads,
            MountOption::Ignored => {}
        }
    }

    fn vfs_options(&self) -> VfsOptions {
        VfsOptions {
            read_only: self.mount.read_only,
            cache_bytes: self.cache_bytes,
            decode_threads: self.mount.decode_threads,
            verify: self.verify,
        }
    }

    /// The command line that means the same to the daemon.
    fn to_arguments(&self) -> Vec<OsString> {
        let mut options = vec![
            format!("threads={}", self.mount.decode_threads),
            format!("cache_size={}", self.cache_bytes),
        ];
        for (wanted, option) in [
            (self.mount.read_only, "ro"),
            (self.mount.no_exec, "noexec"),
            (self.verify, "verify"),
            (self.mount.access == Access::Everyone, "allow_other"),
            (
                self.mount.access == Access::OwnerChecked,
                "default_permissions",
            ),
        ] {
            if wanted {
                options.push(option.into());
            }
        }
        vec![
            "mount".into(),
            "--daemon".into(),
            "-o".into(),
            options.join(",").into(),
            "--".into(),
            self.mount.file.clone().into(),
            self.mount.mount_point.clone().into(),
        ]
    }
}

/// Makes an empty versioned file where there is none.
fn create_file(path: &Path) -> anyhow::Result<()> {
    // A link that leads nowhere is something too.
    if path.symlink_metadata().is_ok() {
        bail!(
            "{}: exists already; mount it without --create",
            path.display()
        );
    }
    Ok(create_versioned_file(path)?)
}

/// The file's absolute name, if it is one that can be read.
fn absolute_file(path: &Path) -> anyhow::Result<PathBuf> {
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let file = path.canonicalize().and_then(|absolute| {
        let metadata = absolute.metadata()?;
        if metadata.is_file() {
            File::open(&absolute)?;
        }
        Ok((metadata, absolute))
    });
    match file {
        Ok((metadata, absolute)) if metadata.is_file() => Ok(absolute),
        Ok((metadata, _)) if metadata.is_dir() => {
            bail!(
                "{}: is a directory; give a versioned HDF5 file",
                path.display()
            )
        }
        Ok(_) => bail!(
            "{}: not a regular file; give a versioned HDF5 file",
            path.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "{}: no such file; give a versioned HDF5 file",
                path.display()
            )
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!(
                "{}: permission denied; you need to be able to read it",
                path.display()
            )
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: MountArgs,
    }

    fn plan(dir: &Path, options: &[&str]) -> Plan {
        let file = dir.join("a.h5");
        std::fs::write(&file, b"x").unwrap();
        let paths = [Path::new("mount"), &file, dir].map(|path| path.as_os_str().to_owned());
        let line =
            Line::try_parse_from(paths.into_iter().chain(options.iter().map(OsString::from)))
                .unwrap();
        Plan::new(&line.args).unwrap()
    }

    #[test]
    fn flags_and_options_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let flags = [
            "--read-only",
            "--allow-other",
            "--threads=3",
            "--cache-size=64k",
            "--verify",
        ];
        let by_flags = plan(dir.path(), &flags);
        assert_eq!(
            by_flags,
            plan(
                dir.path(),
                &[
                    "-o",
                    "ro,allow_other,threads=3",
                    "-o",
                    "cache_size=64k,verify"
                ]
            )
        );
        assert_eq!(
            (by_flags.mount.decode_threads, by_flags.cache_bytes),
            (3, 65536)
        );
        assert!(by_flags.mount.read_only);
        assert_eq!(by_flags.mount.access, Access::Everyone);
    }

    #[test]
    fn the_later_option_counts_but_a_flag_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            !plan(dir.path(), &["-o", "ro,rw,noexec,exec"])
                .mount
                .read_only
        );
        assert!(
            plan(dir.path(), &["--read-only", "-o", "rw"])
                .mount
                .read_only
        );
        assert!(plan(dir.path(), &["-o", "rw,ro"]).mount.read_only);
        let defaults = plan(dir.path(), &[]);
        assert_eq!(
            (defaults.cache_bytes, defaults.mount.read_only),
            (268_435_456, false)
        );
        assert_eq!(defaults.mount.decode_threads, default_threads());
    }

    #[test]
    fn the_daemon_gets_the_same_plan() {
        let dir = tempfile::tempdir().unwrap();
        for options in [
            &["--read-only", "--threads=7", "--cache-size=1", "--verify"][..],
            &["-o", "allow_other,noexec,default_permissions"][..],
        ] {
            let plan = plan(dir.path(), options);
            let line = Line::try_parse_from(plan.to_arguments()).unwrap();
            assert!(line.args.daemon);
            assert_eq!(Plan::new(&line.args).unwrap(), plan);
        }
    }

    #[test]
    fn a_file_is_made_only_where_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        let dangling = dir.path().join("dangling.h5");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        let error = create_file(&dangling).unwrap_err().to_string();
        assert!(error.ends_with("dangling.h5: exists already; mount it without --create"));

        let new = dir.path().join("new.h5");
        let line = ["mount", "--create", "-o", "ro"].map(OsString::from);
        let paths = [new.clone(), dir.path().to_owned()].map(PathBuf::into_os_string);
        let line = Line::try_parse_from(line.into_iter().chain(paths)).unwrap();
        assert!(Plan::new(&line.args).is_err());
        assert!(!new.exists());
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let words = |path: &Path| absolute_file(path).unwrap_err().to_string();
        assert!(
            words(&dir.path().join("none"))
                .ends_with("none: no such file; give a versioned HDF5 file")
        );
        assert!(words(dir.path()).ends_with(": is a directory; give a versioned HDF5 file"));
        assert!(words(Path::new("/dev/null")).starts_with("/dev/null: not a regular file"));
    }
}
