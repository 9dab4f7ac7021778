#!/usr/bin/env bash
# Measures vh5fs against the Python library and a plain file: reading (run.py), then staging and commits (commits.py). Arguments go to both,
# or, after `read` or `commit`, to that one alone: `scripts/bench/bench.sh --scale 0.1`, `scripts/bench/bench.sh commit --huge 4`.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/setup.sh
cargo build --release --locked
case "${1:-}" in
    read) scripts=(run.py) && shift ;;
    commit) scripts=(commits.py) && shift ;;
    *) scripts=(run.py commits.py) ;;
esac
for script in "${scripts[@]}"; do
    "$VH5FS_TEST_PYTHON" "scripts/bench/$script" --vh5fs "${CARGO_TARGET_DIR:-target}/release/vh5fs" "$@"
done
