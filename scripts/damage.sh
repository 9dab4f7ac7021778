#!/usr/bin/env bash
# Looks at damaged files, ten thousand or as many as is said, and commits to every fourth: scripts/damage.sh [CASES]. The cases are the same in each
# run, and CASES may be a range (5000..10000), for several runs to share them; what is wrong is printed as it is found. Takes about an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
VH5FS_DAMAGED_FILES=${1:-10000} cargo test --release --locked --test damaged_many -- --nocapture no_damage_is_fatal_or_passes_for_data
