"""Small versioned files, each with one thing that contradicts another, and what a check has to say of each.

    make_contradictions.py FOLDER

`expected.json` is {NAME: [[KIND, OBJECT or null, ELEMENTS as [START, STOP] or null, [VERSION, ...]]]}, for NAME.h5, sorted.
"""

import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s
from versioned_hdf5 import VersionedHDF5File

folder = Path(sys.argv[1])
sound = folder / "sound.h5"
VERSIONS = "_version_data/versions"
RAW, TABLE = "_version_data/x/raw_data", "_version_data/x/hash_table"

with h5py.File(sound, "w") as file:
    versions = VersionedHDF5File(file)
    with versions.stage_version("r1") as group:
        group.create_dataset("x", data=np.arange(100.0), chunks=(16,))
        group.create_dataset("inside/y", data=np.arange(40), chunks=(8,), fletcher32=True)
        group["x"].attrs["unit"] = "meter"
    with versions.stage_version("r2") as group:
        group["x"][20] = -1
expected = {}


def case(name, *findings):
    """A copy of the sound file, changed by the function that this decorates."""

    def make(change):
        path = folder / f"{name}.h5"
        shutil.copyfile(sound, path)
        with h5py.File(path, "r+") as file:
            change(file)
        expected[name] = sorted([kind, thing, elements, list(versions)] for kind, thing, elements, versions in findings)

    return make


def in_bytes(name, *findings):
    """The same with a function that is given the bytes, and the closed sound file to look things up in."""

    def make(change):
        path = folder / f"{name}.h5"
        data = bytearray(sound.read_bytes())
        with h5py.File(sound) as file:
            data = change(data, file) or data
        path.write_bytes(data)
        expected[name] = sorted([kind, thing, elements, list(versions)] for kind, thing, elements, versions in findings)

    return make


BOTH = ("r1", "r2")


def change_row(file, number, *, hash_bit=None, rows=None):
    table = file[TABLE]
    row = table[number]
    if hash_bit is not None:
        row["hash"][hash_bit // 8] ^= 1 << hash_bit % 8
    if rows is not None:
        row["shape"] = rows
    table[number] = row


@case("row-hash", ("chunk-hash", "x", [[32], [48]], BOTH))
def _(file):
    change_row(file, 2, hash_bit=77)


@case("row-off-the-chunks", ("hash-row", "x", None, ()), ("chunk-unknown", "x", [[32], [48]], BOTH))
def _(file):
    change_row(file, 2, rows=(33, 48))


@case("row-too-long", ("hash-row", "x", None, ()), ("chunk-unknown", "x", [[32], [48]], BOTH))
def _(file):
    change_row(file, 2, rows=(32, 64))


@case("row-of-nothing", ("hash-row", "x", None, ()), ("chunk-unknown", "x", [[32], [48]], BOTH))
def _(file):
    change_row(file, 2, rows=(16 * 90, 16 * 91))


@case("row-of-another-chunk", ("hash-row", "x", None, ()), ("chunk-hash", "x", [[48], [64]], BOTH))
def _(file):
    # The row that comes later counts; the content of chunk 2 is still known.
    change_row(file, 2, rows=(48, 64))
    rows = file[TABLE][:]
    rows[[2, 3]] = rows[[3, 2]]
    file[TABLE][:] = rows


@case("row-of-fewer-rows", ("chunk-rows", "x", [[32], [48]], BOTH))
def _(file):
    change_row(file, 2, rows=(32, 47))


@case("largest-index", ("hash-table", "x", None, ()))
def _(file):
    file[TABLE].attrs["largest_index"] = 5000


@case("table-gone", ("inconsistent", "x", None, ()))
def _(file):
    del file[TABLE]


@case("raw-data-gone", ("mapping-source", "x", None, ("r1",)), ("mapping-source", "x", None, ("r2",)))
def _(file):
    del file[RAW]


@case("raw-data-shorter", ("mapping-outside", "x", [[16], [32]], ("r2",)), ("hash-row", "x", None, ()))
def _(file):
    file[RAW].resize(16 * 7, axis=0)


@case("attribute-raw-data", ("inconsistent", "x", None, ("r2",)))
def _(file):
    file[VERSIONS]["r2/x"].attrs["raw_data"] = "/_version_data/nowhere/raw_data"


@case("attribute-chunks", ("inconsistent", "x", None, ("r2",)))
def _(file):
    file[VERSIONS]["r2/x"].attrs["chunks"] = np.array([17])


@case("no-parent", ("version-attribute", None, None, ("r2",)))
def _(file):
    del file[VERSIONS]["r2"].attrs["prev_version"]


@case("no-time", ("version-attribute", None, None, ("r2",)))
def _(file):
    file[VERSIONS]["r2"].attrs["timestamp"] = "yesterday"


@case("half-committed", ("version-attribute", None, None, ("r1",)))
def _(file):
    del file[VERSIONS]["r1"].attrs["committed"]
    file[VERSIONS]["r1"].attrs["committed"] = np.int8(3)


@case("current-gone", ("current-version", None, None, ()))
def _(file):
    file[VERSIONS].attrs["current_version"] = "r9"


@case("own-parent", ("parent-circle", None, None, ("r1",)), ("parent-circle", None, None, ("r2",)))
def _(file):
    file[VERSIONS]["r1"].attrs["prev_version"] = "r2"


def remap(file, mappings, shape=(100,)):
    """Gives `x` of r2 other mappings: (first element, number of elements, first row, source)."""
    raw = file[RAW]
    old = file[VERSIONS]["r2/x"]
    attributes = dict(old.attrs)
    del file[VERSIONS]["r2/x"]
    creation = h5p.create(h5p.DATASET_CREATE)
    for start, count, row, source in mappings:
        target, where = h5s.create_simple(shape), h5s.create_simple(raw.shape)
        target.select_hyperslab((start,), (1,), None, (count,))
        where.select_hyperslab((row,), (1,), None, (count,))
        creation.set_virtual(target, b".", source, where)
    made = h5py.Dataset(h5d.create(file[VERSIONS]["r2"].id, b"x", raw.id.get_type(), h5s.create_simple(shape), creation))
    for name, value in attributes.items():
        made.attrs[name] = value


X = b"/_version_data/x/raw_data"


@case("mapping-overlaps", ("mapping-overlap", "x", [[16], [32]], ("r2",)))
def _(file):
    remap(file, [(0, 16, 0, X), (16, 16, 16, X), (16, 16, 32, X)])


@case("mapping-off-the-grid", ("mapping-form", "x", [[8], [24]], ("r2",)))
def _(file):
    remap(file, [(0, 16, 0, X), (8, 16, 16, X)])


@case("mapping-across-chunks", ("mapping-form", "x", [[16], [32]], ("r2",)))
def _(file):
    remap(file, [(0, 16, 0, X), (16, 16, 20, X)])


@case("mapping-of-another", ("mapping-foreign", "x", None, ("r2",)))
def _(file):
    remap(file, [(0, 16, 0, X), (16, 8, 0, b"/_version_data/inside/y/raw_data")])


@case("mapping-of-nothing", ("mapping-source", "x", None, ("r2",)))
def _(file):
    remap(file, [(0, 16, 0, X), (16, 16, 16, b"/_version_data/gone/raw_data")])


@case("edge-in-the-middle", ("chunk-rows", "x", [[96], [98]], ("r2",)))
def _(file):
    remap(file, [(0, 16, 0, X), (96, 2, 96, X)], shape=(98,))


def find_all(data, piece):
    at = data.find(piece)
    while at >= 0:
        yield at
        at = data.find(piece, at + 1)


@in_bytes("mapping-block", ("object", "x", None, ("r2",)))
def _(data, file):
    # The last mapping that was written is one of the last version.
    data[list(find_all(data, b".\0" + X + b"\0"))[-1] + len(X) + 20] ^= 1


@in_bytes("chunk-beyond-end", ("chunk-read", "x", [[32], [48]], BOTH))
def _(data, file):
    address = file[RAW].id.get_chunk_info(2).byte_offset.to_bytes(8, "little")
    (place,) = find_all(data, address)
    data[place : place + 8] = (1 << 50).to_bytes(8, "little")


@in_bytes("checksum", ("chunk-decode", "inside/y", [[8], [16]], BOTH))
def _(data, file):
    data[file["_version_data/inside/y/raw_data"].id.get_chunk_info(1).byte_offset + 9] ^= 16


@in_bytes("unit", ("chunk-hash", "x", [[64], [80]], BOTH))
def _(data, file):
    data[file[RAW].id.get_chunk_info(4).byte_offset] ^= 128


(folder / "expected.json").write_text(json.dumps(expected))
