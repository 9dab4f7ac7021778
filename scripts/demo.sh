#!/usr/bin/env bash
# Shows what vh5fs does: makes a small versioned HDF5 file with Python, mounts it, looks around, edits and commits, unmounts.
# Sets up what is missing first, so that it is the only command needed on a fresh machine.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh

say "building vh5fs (the first time takes some minutes: HDF5 is built too)"
cargo build --release --locked
bin=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
export PATH="$bin:${VH5FS_TEST_PYTHON%/*}:$PATH"

work=$(mktemp -d)
cleanup() {
    local status=$?
    cd /
    if mountpoint -q "$work/mnt"; then
        vh5fs umount "$work/mnt" || fusermount3 -u -z "$work/mnt" || umount -l "$work/mnt"
    fi
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bold='' green='' plain=''
if [ -t 1 ]; then
    bold=$'\033[1m' green=$'\033[32m' plain=$'\033[0m'
fi
title() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
# Prints a command, then runs it.
run() {
    printf '%s$ %s%s\n' "$green" "$1" "$plain"
    eval "$1"
}

python "$PWD/scripts/demo_data.py" "$work/climate.h5" 2>/dev/null
cd "$work"
mkdir mnt

title "A versioned HDF5 file becomes a directory tree."
run 'vh5fs mount climate.h5 mnt'
run 'ls mnt'
run 'ls -l mnt/versions'
run 'cd mnt && find versions/new-station && cd ..'

title "A dataset is a file of raw bytes; strings are lines of text."
run 'cat mnt/current/stations'
run 'ls -l mnt/current/grid'

title "Extended attributes say what the bytes are, and carry the HDF5 attributes."
run 'getfattr -d mnt/current/grid/temperature'

title "So NumPy reads it, without h5py."
read_it="python -c '
import json, os, numpy
path = \"mnt/current/grid/temperature\"
dtype = os.getxattr(path, \"user.h5.dtype\").decode()
shape = json.loads(os.getxattr(path, \"user.h5.shape\"))
data = numpy.fromfile(path, dtype).reshape(shape)
print(data.shape, data.dtype, \"mean of January %.2f, of July %.2f\" % (data[:31].mean(), data[181:212].mean()))
'"
run "$read_it"

title "Time travel: any time leads to the version that was current then."
run 'readlink mnt/current mnt/current~1 mnt/at/2026-06 "mnt/at/2026-03-02 12:00"'
run 'ls mnt/at'
run 'cat mnt/at/2026-08/stations'

title "What did not change is one inode, so diff, rsync and backups read it once."
run 'stat -c "%i  %h links  %.10y  %n" mnt/versions/*/grid/*'
run 'diff -rq mnt/versions/whole-year mnt/versions/new-station' || [ $? -eq 1 ]

title "The bytes are those that h5py reads."
check="python -c '
import h5py
with h5py.File(\"climate.h5\") as file:
    for version in (\"first-half\", \"sensor-fixed\", \"whole-year\", \"new-station\"):
        expected = file[f\"_version_data/versions/{version}/grid/temperature\"][()].tobytes()
        assert open(f\"mnt/versions/{version}/grid/temperature\", \"rb\").read() == expected
        print(version, len(expected), \"bytes, equal\")
'"
run "$check"

title "staging/ is the next version: ordinary tools edit it, and nothing in the file changes until the commit."
run 'sed -i "s/Oslo/Bergen/" mnt/staging/stations'
run 'printf "Reykjavík\n" >> mnt/staging/stations'
run 'setfattr -n user.checked -v true mnt/staging/grid/elevation'
warm="python -c '
import numpy
data = numpy.memmap(\"mnt/staging/grid/temperature\", \"<f8\", \"r+\", shape=(365, 12, 16))
data[200:210] += 0.5
data.flush()
numpy.arange(12, dtype=\"<i2\").tofile(\"mnt/staging/grid/rows\")
'"
run "$warm"
run 'setfattr -n user.h5.dtype -v "<i2" mnt/staging/grid/rows'
run 'cat mnt/staging/.status'

title "touch staging/.commit makes it a version; echo gives it a name."
run 'echo edited-by-hand > mnt/staging/.commit'
run 'ls mnt/versions'
run 'readlink mnt/current mnt/current~1'
run 'diff mnt/current~1/stations mnt/current/stations' || [ $? -eq 1 ]

title "Python reads what was committed, and goes on from there."
go_on="python -c '
import h5py, numpy
from versioned_hdf5 import VersionedHDF5File
with h5py.File(\"climate.h5\", \"r+\") as file:
    versions = VersionedHDF5File(file)
    print(versions.current_version, [name.decode() for name in versions[\"edited-by-hand\"][\"stations\"][()]])
    with versions.stage_version(\"by-python\") as group:
        group[\"grid/rows\"][0] = -1
    versions.close()
' 2>/dev/null"
run "$go_on"
run 'readlink mnt/current'
run 'od -An -td2 mnt/current/grid/rows'

title "Done."
run 'vh5fs umount mnt'
mountpoint -q mnt && exit 1
run 'ls -A mnt | wc -l'
