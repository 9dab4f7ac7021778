"""Files whose every checksum is right, and whose numbers are absurd: what a damaged file may say at worst."""

import sys
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

sys.path.insert(0, sys.argv[2])
from vh5fix import craft

OUT = Path(sys.argv[1])
WHEN = "2020-01-01 00:00:00.000000+0000"


def new(name, libver="latest"):
    file = h5py.File(OUT / f"{name}.h5", "w", libver=libver)
    craft.initialize(file)
    return file


def virtual(group, name, kind, shape, fill=None):
    """A virtual dataset without any mapping."""
    creation = h5p.create(h5p.DATASET_CREATE)
    if fill is not None:
        creation.set_fill_value(fill)
    creation.set_layout(h5d.VIRTUAL)
    h5d.create(group.id, name.encode(), kind, h5s.create_simple(shape), creation)


with new("shapes") as file:
    group = craft.version(file, "r1", "", WHEN)
    virtual(group, "all_holes", h5t.STD_I8LE, (2**62,))
    virtual(group, "all_fill", h5t.STD_I8LE, (2**62,), fill=np.array(7, dtype="i1"))
    virtual(group, "too_long", h5t.IEEE_F64LE, (2**62,))
    virtual(group, "product_overflows", h5t.STD_I8LE, (2**40, 2**40))
    virtual(group, "empty_times_much", h5t.STD_I8LE, (0, 2**62, 2**62))
    virtual(group, "texts", h5t.py_create(h5py.string_dtype(), logical=True), (2**58,))
    placed = craft.raw_data(file, "small_chunks", np.arange(4, dtype="i1"), None, (1,))
    craft.virtual(file, "r1", "small_chunks", (2**60,), None, placed)
    placed = craft.raw_data(file, "small_chunks_fill", np.arange(4, dtype="i1"), None, (1,), fill=np.array(7, dtype="i1"))
    craft.virtual(file, "r1", "small_chunks_fill", (2**60,), None, placed, fill=np.array(7, dtype="i1"))
    placed = craft.raw_data(file, "fine", np.arange(10, dtype="<i4"), None, (4,))
    craft.virtual(file, "r1", "fine", (10,), None, placed)

with new("chunks") as file:
    craft.version(file, "r1", "", WHEN)
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_chunk((2**31,))
    creation.set_deflate(9)
    group = file.create_group("_version_data/huge_chunks")
    raw = h5d.create(group.id, b"raw_data", h5t.STD_I8LE, h5s.create_simple((2**31,), (h5s.UNLIMITED,)), creation)
    raw.write_direct_chunk((0,), b"not deflated", 0)
    craft.virtual(file, "r1", "huge_chunks", (10,), None, [((0,), (10,), 0)])
    # Hardly any bytes for each of very many chunks.
    placed = craft.raw_data(file, "many", np.zeros(8, dtype="i1"), None, (8,))
    craft.virtual(file, "r1", "many", (8,), None, placed)
    file["_version_data/many/raw_data"].resize(2**62, axis=0)
    placed = craft.raw_data(file, "fine", np.arange(10, dtype="<i4"), None, (4,))
    craft.virtual(file, "r1", "fine", (10,), None, placed)

for libver in ("earliest", "latest"):
    with new(f"circles_{libver}", libver) as file:
        group = craft.version(file, "r1", "", WHEN)
        placed = craft.raw_data(file, "fine", np.arange(10, dtype="<i4"), None, (4,))
        craft.virtual(file, "r1", "fine", (10,), None, placed)
        group["itself"] = group
        inner = group.create_group("a/b/c")
        inner["up"] = group["a"]
        data = file["_version_data"]
        data["itself"] = data
        data["versions_again"] = data["versions"]
        data.create_group("fine/loop")["fine"] = data["fine"]

    # 2^40 paths lead down.
    with new(f"lattice_{libver}", libver) as file:
        for top in (craft.version(file, "r1", "", WHEN), file["_version_data"]):
            at = top.create_group("lattice")
            for _ in range(40):
                below = at.create_group("l" * 200)
                at["r" * 200] = below
                at = below
        placed = craft.raw_data(file, "fine", np.arange(10, dtype="<i4"), None, (4,))
        craft.virtual(file, "r1", "fine", (10,), None, placed)

    with new(f"deep_{libver}", libver) as file:
        for top in (craft.version(file, "r1", "", WHEN), file["_version_data"]):
            at = top
            for _ in range(10_000):
                at = at.create_group("d")
        placed = craft.raw_data(file, "fine", np.arange(10, dtype="<i4"), None, (4,))
        craft.virtual(file, "r1", "fine", (10,), None, placed)

with new("parents") as file:
    names = [f"v{number:04}" for number in range(3000)]
    for number, name in enumerate(names):
        # Circles of finished and of unfinished versions, and chains that end in one.
        craft.version(file, name, names[(number * 7 + 1) % len(names)], WHEN, committed=number % 5 == 0)
    craft.version(file, "own", "own", WHEN)
    placed = craft.raw_data(file, "fine", np.arange(10, dtype="<i4"), None, (4,))
    craft.virtual(file, "own", "fine", (10,), None, placed)

with new("texts") as file:
    craft.version(file, "r1", "", WHEN)

    def repeated(name, kind, element, count=4096 * 8):
        """Every element points to the same data."""
        data = np.empty(4, dtype=object)
        data[:] = [element] * 4
        craft.raw_data(file, name, data, kind, (4,))
        stored = file[f"_version_data/{name}/raw_data"].id
        _, first = stored.read_direct_chunk((0,))
        del file[f"_version_data/{name}"]
        craft.raw_data(file, name, data[:0], kind, (4096,))
        raw = file[f"_version_data/{name}/raw_data"]
        raw.resize(count, axis=0)
        for number in range(count // 4096):
            raw.id.write_direct_chunk((number * 4096,), first[:16] * 4096, 0)
        craft.virtual(file, "r1", name, (count,), None, [((k,), (4096,), k) for k in range(0, count, 4096)])

    repeated("same_string", h5t.py_create(h5py.string_dtype(), logical=True), "x" * 1_000_000)
    repeated("same_list", h5t.py_create(h5py.vlen_dtype(np.dtype("u1")), logical=True), np.zeros(100_000, dtype="u1"))
    placed = craft.raw_data(file, "fine", np.arange(10, dtype="<i4"), None, (4,))
    craft.virtual(file, "r1", "fine", (10,), None, placed)
