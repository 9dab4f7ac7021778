#!/usr/bin/env bash
# Installs the Debian package in a clean root, uses it as root and as an ordinary user, removes it, and looks for what was left.
# The clean root is made once, by debootstrap, and kept beside the program. Needs root for that, and for mounting.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "this needs root: a clean root is made, and mounted in"
    as_root=(sudo)
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mkdir -p "$target"
clean=$target/clean-root-$suite.tar
work=$(mktemp -d)
trap '"${as_root[@]}" rm -rf --one-file-system "$work"' EXIT

if [ ! -e "$clean" ]; then
    say "making a clean root of $suite"
    if [ ! -x /usr/sbin/debootstrap ]; then
        "${as_root[@]}" apt-get update -q </dev/null >&2
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap </dev/null >&2
    fi
    "${as_root[@]}" /usr/sbin/debootstrap --variant=minbase --include=bash-completion,man-db "$suite" "$work/new" >&2
    # Not installed yet: root does without.
    "${as_root[@]}" chroot "$work/new" apt-get install -q -y --download-only --no-install-recommends fuse3 >&2
    "${as_root[@]}" tar -C "$work/new" --one-file-system -cf "$clean.part" .
    mv "$clean.part" "$clean"
    "${as_root[@]}" rm -rf --one-file-system "$work/new"
fi

package=$(scripts/package.sh)
say "testing $package"
mkdir "$work/root" "$work/test"
"${as_root[@]}" tar -C "$work/root" -xf "$clean"
"${as_root[@]}" mkdir "$work/root/test"
cp "$package" "$work/test/vh5fs.deb"
cp tests/package.sh "$work/test/"
"$VH5FS_TEST_PYTHON" scripts/demo_data.py "$work/test/climate.h5" 2>/dev/null
"$VH5FS_TEST_PYTHON" - "$work/test/climate.h5" >"$work/test/temperature" <<'PYTHON'
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    sys.stdout.buffer.write(file["_version_data/versions/whole-year/grid/temperature"][()].tobytes())
PYTHON

# Processes and mounts end with the namespaces.
"${as_root[@]}" unshare --mount --pid --fork --kill-child bash -euc '
    mount -t proc proc "$1/proc"
    mount --bind "$2" "$1/test"
    mount --rbind --make-rslave /dev "$1/dev"
    # Machines without udev keep the device to root.
    if [ -z "$(find /dev/fuse -perm -666)" ]; then
        mknod -m 666 "$1/test/fuse" c 10 229
        mount --bind "$1/test/fuse" "$1/dev/fuse"
    fi
    exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive bash /test/package.sh
' - "$work/root" "$work/test"
say "the package does what it should"
