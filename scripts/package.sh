#!/usr/bin/env bash
# Builds the Debian package, for the release of Debian or Ubuntu that runs here, and prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh

CARGO_DEB='3.8.0'

target=${CARGO_TARGET_DIR:-target}
cargo_deb=$target/tools/bin/cargo-deb
if [ "$("$cargo_deb" --version 2>/dev/null)" != "cargo-deb $CARGO_DEB" ]; then
    say "building cargo-deb"
    # Unoptimised: it takes a third of the time to build, and packs as fast.
    cargo install --quiet --locked --force --debug --root "$target/tools" --target-dir "$target/tools/build" "cargo-deb@$CARGO_DEB" >&2
    rm -rf "$target/tools/build"
fi

cargo build --release --locked >&2
vh5fs=$target/release/vh5fs

# What the program says of itself. The name of the folder is in Cargo.toml.
made=$target/release/package
rm -rf "$made"
mkdir -p "$made"
"$vh5fs" man "$made/man"
gzip -9n "$made"/man/*
for shell in bash zsh fish; do
    "$vh5fs" completions "$shell" >"$made/completions.$shell"
done
platform=$(rustc -vV | sed -n 's/^host: //p')
cargo metadata --format-version 1 --locked --filter-platform "$platform" | "$(find_python)" scripts/debian/licenses.py | gzip -9n >"$made/licenses.gz"

"$cargo_deb" --quiet --no-build --locked --no-dbgsym --strip
