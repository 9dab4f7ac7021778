//! Random edits, commits, resets, mounts and killed daemons against a model, with the Python library as judge of every commit;
//! `tests/staging_model.py` is the model.

mod common;

use std::env;
use std::thread;

use common::{MountPoint, script, words};

/// What runs everywhere. `VH5FS_TEST_SEED` (a number) and `VH5FS_TEST_STEPS` take the place of these for long runs.
const SEEDS: [u64; 4] = [1, 2, 3, 4];
const STEPS: u32 = 150;

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: {text} is not a number")),
    )
}

/// Runs one seed, and gives what was said if something differs.
fn run(seed: u64, steps: u32) -> Result<(), String> {
    let mount_point = MountPoint::new();
    let output = script("staging_model.py")
        .arg(env!("CARGO_BIN_EXE_vh5fs"))
        .arg(mount_point.path().parent().unwrap())
        .args([seed.to_string(), steps.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{said}{}", words(&output)))
    }
}

#[test]
fn any_edits_are_committed_as_the_model_has_them() {
    let steps = setting("VH5FS_TEST_STEPS").unwrap_or(STEPS);
    let seeds = setting("VH5FS_TEST_SEED").map_or_else(|| SEEDS.to_vec(), |seed| vec![seed]);
    // Two at a time: a run waits for the disk most of the time.
    for pair in seeds.chunks(2) {
        thread::scope(|scope| {
            let runs: Vec<_> = pair
                .iter()
                .map(|&seed| scope.spawn(move || run(seed, steps)))
                .collect();
            for run in runs {
                if let Err(what) = run.join().unwrap() {
                    panic!("{what}");
                }
            }
        });
    }
}
