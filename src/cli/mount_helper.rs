//! The program under the name `mount.fuse.vh5fs`: what mount(8) runs for the type `fuse.vh5fs` where it finds that name in `/sbin`
//! (mount(8), "External helpers"). Its options are those of all such programs, and partly mean something else than ours.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::mount::{self, MountArgs};
use super::mount_options::MountOptionList;

/// The name in `/sbin`.
const NAME: &str = "mount.fuse.vh5fs";

/// Mount a versioned HDF5 file, as mount(8) asks for it.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(super) struct HelperArgs {
    /// The versioned HDF5 file
    file: PathBuf,
    /// An existing directory
    mountpoint: PathBuf,
    /// Options, separated by commas
    #[arg(short = 'o', value_name = "OPT,...")]
    options: Vec<String>,
    /// Pass over options that are not known
    #[arg(short = 's')]
    sloppy: bool,
    /// Do everything but mount
    #[arg(short = 'f')]
    fake: bool,
    /// There is no table of mounts but the kernel's
    #[arg(short = 'n')]
    no_table: bool,
    /// Nothing more is said than without
    #[arg(short = 'v')]
    verbose: bool,
    /// fuse.vh5fs
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

/// Whether the program was started under the name that mount(8) knows.
pub(super) fn is_meant(arguments: &[OsString]) -> bool {
    let name = arguments
        .first()
        .and_then(|name| Path::new(name).file_name());
    name.is_some_and(|name| name == NAME)
}

/// Mounts in the background.
///
/// # Errors
/// An option makes no sense, or the mount did not come about.
pub(super) fn run(args: HelperArgs) -> anyhow::Result<()> {
    let options = args.options.iter().map(|text| {
        if args.sloppy {
            Ok(MountOptionList::of_known(text))
        } else {
            text.parse().map_err(anyhow::Error::msg)
        }
    });
    let options = options.collect::<anyhow::Result<_>>()?;
    if args.fake {
        return Ok(());
    }
    mount::run(&MountArgs::by_mount_8(args.file, args.mountpoint, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Vec<OsString> {
        arguments.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_name_alone_says_who_is_meant() {
        assert!(is_meant(&line(&["/sbin/mount.fuse.vh5fs", "a.h5", "/mnt"])));
        assert!(is_meant(&line(&["mount.fuse.vh5fs"])));
        assert!(!is_meant(&line(&["vh5fs", "mount.fuse.vh5fs", "/mnt"])));
        assert!(!is_meant(&[]));
    }

    #[test]
    fn nothing_is_mounted_by_a_fake_call_but_options_are_checked() {
        let run = |options: &[&str]| {
            let all = [&["mount.fuse.vh5fs", "none.h5", "/none"], options].concat();
            run(HelperArgs::try_parse_from(line(&all)).unwrap()).map_err(|e| e.to_string())
        };
        assert_eq!(
            run(&["-fnv", "-o", "ro,threads=2", "-t", "fuse.vh5fs"]),
            Ok(())
        );
        let unknown = Err("unknown mount option `colour`".to_owned());
        assert_eq!(run(&["-f", "-o", "ro,colour"]), unknown);
        assert_eq!(run(&["-sf", "-o", "ro,colour"]), Ok(()));
        assert!(run(&["-o", "ro"]).is_err());
    }
}
