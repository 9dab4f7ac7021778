#!/usr/bin/env bash
# Sets up what is missing and runs all tests. Arguments go to `cargo test`: `scripts/test.sh codec::`, `scripts/test.sh --test tree`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh

# The fixtures, made anew when their makers change.
fixtures=${CARGO_TARGET_DIR:-target}/fixtures
stamp=$(cat scripts/requirements.txt $(find tests/fixtures -type f -not -path '*__pycache__*' | LC_ALL=C sort) | sha256sum)
if [ "$(cat "$fixtures/stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$fixtures"
    "$VH5FS_TEST_PYTHON" tests/fixtures/make.py "$fixtures"
    printf '%s\n' "$stamp" >"$fixtures/stamp"
fi
VH5FS_TEST_FIXTURES=$(cd "$fixtures" && pwd)
export VH5FS_TEST_FIXTURES

if [ $# -eq 0 ]; then
    "$VH5FS_TEST_PYTHON" tests/fixtures/test_judge.py "$fixtures"
fi
cargo test --release --locked "$@"
