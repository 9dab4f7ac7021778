#!/usr/bin/env bash
# The benchmark: builds vh5fs, makes the data the first time, measures, and prints a table. `scripts/bench/bench.sh --help` lists what else
# it can do, docs/benchmark.md says what it measures.
#
#     scripts/bench/bench.sh                               everything, about half an hour
#     scripts/bench/bench.sh --quick                       everything, small, to see that it works
#     scripts/bench/bench.sh read --layout plain-65536     one case
#     scripts/bench/bench.sh --readme                      everything, and README.md and docs/ show it
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/setup.sh
cargo build --release --locked --bin vh5fs --example passthrough
exec "$VH5FS_TEST_PYTHON" scripts/bench/bench.py --programs "${CARGO_TARGET_DIR:-target}/release" "$@"
