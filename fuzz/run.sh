#!/usr/bin/env bash
# Runs every fuzz target, one after the other, for SECONDS each: fuzz/run.sh SECONDS [TARGET...]. See fuzz/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
source scripts/setup.sh

corpus=fuzz/corpus
if [ ! -e "$corpus" ]; then
    files=$(mktemp -d)
    trap 'rm -rf "$files"' EXIT
    "$VH5FS_TEST_PYTHON" fuzz/small_files.py "$files"
    VH5FS_FUZZ_CORPUS=$PWD/$corpus VH5FS_FUZZ_FILES=$(printf '%s:' "$files"/*.h5 | sed 's/:$//') \
        cargo test --release --locked --lib -- --ignored --exact fuzzing::seeds::write_corpus
fi

# The C library is not instrumented, and no parser is unsafe code: without a sanitizer, inputs go through twice as fast.
flags=(--sanitizer none)
if [ -n "${VH5FS_FUZZ_TARGET_DIR:-}" ]; then
    flags+=(--target-dir "$VH5FS_FUZZ_TARGET_DIR")
fi
cargo +nightly fuzz build "${flags[@]}"
failed=()
for target in ${@:-$(cargo +nightly fuzz list)}; do
    printf '%s\n' "$target"
    mkdir -p "$corpus/$target"
    cargo +nightly fuzz run "${flags[@]}" "$target" "$corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -verbosity=0 ||
        failed+=("$target")
done
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\nthe inputs are in fuzz/artifacts/\n' "${failed[*]}"
    exit 1
fi
