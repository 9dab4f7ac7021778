#!/usr/bin/env bash
# Sets up everything that the other scripts need, and says what it cannot set up. Quick when all is there.
#
# Run it, or source it: afterwards VH5FS_TEST_PYTHON names a Python that has versioned-hdf5 and h5py, and CMAKE a cmake that can build
# HDF5 (left alone where it was set). Debian 12, Ubuntu 24.04 and later are served by apt; elsewhere the missing programs are named.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CMAKE_WHEEL='cmake==3.31.10'
RUST_MIN=1.88

say() { if [ -t 2 ]; then printf '\033[2m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi >&2; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# version_at_least FOUND WANTED
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# The first Python that versioned-hdf5 runs on, or nothing.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# Installs what apt has and the machine lacks: each line is a test and the package that makes it pass.
install_packages() {
    local wanted=()
    command -v fusermount3 >/dev/null || wanted+=(fuse3)
    command -v getfattr >/dev/null || wanted+=(attr)
    command -v busybox >/dev/null || wanted+=(busybox)
    command -v rsync >/dev/null || wanted+=(rsync)
    command -v h5dump >/dev/null || wanted+=(hdf5-tools)
    command -v ed >/dev/null || wanted+=(ed)
    command -v jq >/dev/null || wanted+=(jq)
    command -v borg >/dev/null || wanted+=(borgbackup)
    command -v restic >/dev/null || wanted+=(restic)
    command -v systemd-analyze >/dev/null || wanted+=(systemd)
    command -v vim >/dev/null || wanted+=(vim)
    { command -v cc && command -v c++ && command -v make; } >/dev/null || wanted+=(build-essential)
    local python
    python=$(find_python)
    [ -n "$python" ] || wanted+=(python3)
    [ -n "$python" ] && "$python" -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
    [ ${#wanted[@]} -gt 0 ] || return 0

    command -v apt-get >/dev/null || die "please install what these Debian packages hold: ${wanted[*]}"
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "please install, as root: apt-get install ${wanted[*]}"
        as_root=(sudo)
    fi
    say "installing ${wanted[*]}"
    "${as_root[@]}" apt-get update -q </dev/null >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${wanted[@]}" </dev/null >&2
    [ -n "$(find_python)" ] || die "versioned-hdf5 needs Python 3.11 or newer; $(python3 --version 2>&1) is too old"
}

check_rust() {
    [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$PATH:$HOME/.cargo/bin"
    command -v cargo >/dev/null || die "no cargo: install Rust from https://rustup.rs and run this again
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
    local found
    found=$(rustc --version | cut -d ' ' -f 2)
    version_at_least "$found" "$RUST_MIN" || die "Rust $found is too old, $RUST_MIN is needed: rustup update stable"
}

check_fuse() {
    if [ ! -e /dev/fuse ] && [ "$(id -u)" = 0 ] && command -v modprobe >/dev/null; then
        modprobe fuse 2>/dev/null || true
    fi
    [ -e /dev/fuse ] || die "no /dev/fuse: load the kernel's module (modprobe fuse), or give the container --device /dev/fuse --cap-add SYS_ADMIN"
    [ -r /dev/fuse ] && [ -w /dev/fuse ] || die "/dev/fuse cannot be opened by $(id -un)"
}

# .venv with the pinned packages, made anew whenever what it is made from changes.
make_venv() {
    local packages=(-r "$ROOT/scripts/requirements.txt") own_cmake=
    # The one in .venv was put there by a script that called this one.
    if [ "${CMAKE:-$ROOT/.venv/bin/cmake}" = "$ROOT/.venv/bin/cmake" ]; then
        local found
        found=$(cmake --version 2>/dev/null | head -n 1 | cut -d ' ' -f 3 || true)
        if ! version_at_least "${found:-0}" 3.26; then
            packages+=("$CMAKE_WHEEL")
            own_cmake=1
        fi
    fi
    local python stamp
    python=$(find_python)
    stamp=$({ cat "$ROOT/scripts/requirements.txt"; printf '%s\n' "${packages[@]}" "$("$python" --version)"; } | sha256sum | cut -d ' ' -f 1)
    if [ "$(cat "$ROOT/.venv/stamp" 2>/dev/null)" != "$stamp" ]; then
        say "making .venv with versioned-hdf5, h5py and hdf5plugin"
        rm -rf "$ROOT/.venv"
        "$python" -m venv "$ROOT/.venv"
        "$ROOT/.venv/bin/python" -m pip install -q --disable-pip-version-check "${packages[@]}" </dev/null >&2 ||
            die "pip could not install the packages of scripts/requirements.txt"
        "$ROOT/.venv/bin/python" -c 'import h5py, hdf5plugin, numpy' || die "the packages in .venv do not work"
        printf '%s\n' "$stamp" >"$ROOT/.venv/stamp"
    fi
    if [ -n "$own_cmake" ]; then
        export CMAKE="$ROOT/.venv/bin/cmake"
    fi
    export VH5FS_TEST_PYTHON="$ROOT/.venv/bin/python"
}

install_packages
check_rust
check_fuse
make_venv
