#!/usr/bin/env bash
# Measures vh5fs against the Python library and a plain file. Arguments go to run.py: `scripts/bench/bench.sh --scale 0.1`.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/setup.sh
cargo build --release --locked
exec "$VH5FS_TEST_PYTHON" scripts/bench/run.py --vh5fs "${CARGO_TARGET_DIR:-target}/release/vh5fs" "$@"
