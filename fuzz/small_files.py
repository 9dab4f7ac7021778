"""Files of a few kilobytes, each with some structure of the format: what the corpora are made of. Usage: small_files.py FOLDER"""

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t
from versioned_hdf5 import VersionedHDF5File

OUT = Path(sys.argv[1])
OUT.mkdir(parents=True, exist_ok=True)
TEXT = h5py.string_dtype()

# Name, shape, largest shape, chunk shape, options: an index of each kind, small enough and large enough for blocks and pages of their own.
INDEXES = [
    ("single", (8,), (8,), (8,), {}),
    ("single_filtered", (64,), (64,), (64,), {"compression": "gzip"}),
    ("implicit", (8, 8), (8, 8), (4, 4), {"early": True}),
    ("fixed", (10, 3), (10, 3), (2, 2), {}),
    ("fixed_filtered", (40,), (40,), (4,), {"compression": "gzip"}),
    ("fixed_pages", (3000,), (3000,), (1,), {"sparse": True}),
    ("extensible", (6,), (None,), (2,), {}),
    ("extensible_blocks", (60,), (None,), (1,), {}),
    ("extensible_filtered", (60,), (None,), (2,), {"compression": "lzf"}),
    ("extensible_edges", (61, 3), (None, 3), (2, 2), {}),
    ("extensible_far", (20000,), (None,), (1,), {"sparse": True}),
    ("tree", (6, 6), (None, None), (2, 2), {}),
    ("tree_filtered", (12, 12), (None, None), (2, 2), {"compression": "gzip", "shuffle": True}),
    ("tree_deep", (16, 16), (None, None), (1, 1), {}),
]


def chunked(file, shape, largest, chunk, options):
    options = dict(options)
    early, sparse = options.pop("early", False), options.pop("sparse", False)
    if early:
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_chunk(chunk)
        creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        space = h5s.create_simple(shape, largest)
        h5d.create(file.id, b"d", h5t.STD_I8LE, space, creation)
        return
    data = file.create_dataset("d", shape, "i1", maxshape=largest, chunks=chunk, **options)
    if sparse:
        data[0], data[1100], data[-1] = 1, 2, 3
    else:
        data[...] = np.arange(np.prod(shape), dtype="i1").reshape(shape) % 5


for libver in ("earliest", "v110", "latest"):
    bounds = ("v110", "v110") if libver == "v110" else libver
    for name, shape, largest, chunk, options in INDEXES:
        path = OUT / f"index_{name}_{libver}.h5"
        with h5py.File(path, "w", libver=bounds, meta_block_size=64) as file:
            chunked(file, shape, largest, chunk, options)
    for count in (2, 12, 60):
        with h5py.File(OUT / f"links_{count}_{libver}.h5", "w", libver=bounds, meta_block_size=64) as file:
            for number in range(count):
                file[f"soft {number}"] = h5py.SoftLink(f"/target/{number}")
            file["outside"] = h5py.ExternalLink("other.h5", "/x")
            file.create_group("g")
        with h5py.File(OUT / f"attributes_{count}_{libver}.h5", "w", libver=bounds, meta_block_size=64) as file:
            file["type"] = np.dtype("<f4")
            for number in range(count):
                file.attrs[f"a{number}"] = np.arange(number % 5, dtype="<i2")
            file.attrs.create("shared", 1.5, dtype=file["type"])
            file.attrs["text"] = "µ"
            file.attrs["texts"] = np.array(["a", "bb"], dtype=TEXT)
            file.attrs["yes"] = True
            file.attrs["complex"] = 1 + 2j
            file.attrs["void"] = np.void(b"\x01\x02")
            file.attrs["enum"] = np.array([0, 1], dtype=h5py.enum_dtype({"a": 0, "b": 1}))
            file.attrs["ragged"] = np.array([[1], [2, 3]][1], dtype="<u8")
            pair = np.dtype([("x", "<i4"), ("y", ">f8", (2,)), ("s", "S3")])
            file.attrs.create("pair", np.zeros(2, pair), dtype=pair)
            file.attrs["half"] = np.float16(0.1)
            file.attrs["reference"] = file["type"].ref
    with h5py.File(OUT / f"kinds_{libver}.h5", "w", libver=bounds, meta_block_size=64) as file:
        file["contiguous"] = np.arange(4)
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_layout(h5d.COMPACT)
        creation.set_fill_value(np.array(7, "i2"))
        h5d.create(file.id, b"compact", h5t.STD_I16BE, h5s.create_simple((3,)), creation)
        file.create_dataset("none", dtype="i4", data=h5py.Empty("i4"))
        layout = h5py.VirtualLayout((10, 4), "<i4")
        for number in range(5):
            source = h5py.VirtualSource(".", "/_version_data/x/raw_data", (20, 4), "<i4")
            layout[number * 2 : number * 2 + 2] = source[number * 4 : number * 4 + 2]
        file.create_virtual_dataset("virtual", layout)
    start = datetime(2020, 1, 1, tzinfo=timezone.utc)
    for kind in ("plain", "packed"):
        options = {"compression": "gzip", "shuffle": True} if kind == "packed" else {}
        with h5py.File(OUT / f"versions_{kind}_{libver}.h5", "w", libver=bounds, meta_block_size=64) as file:
            versions = VersionedHDF5File(file)
            with versions.stage_version("r1", timestamp=start) as group:
                group.create_dataset("a", data=np.arange(10, dtype="<i4"), chunks=(4,), **options)
                group["a"].attrs["unit"] = "m"
            with versions.stage_version("r2", timestamp=start + timedelta(days=1)) as group:
                group["a"][5] = 7
                if kind == "plain":
                    words = np.array(["x", "yy"], dtype=object)
                    group.create_dataset("g/t", data=words, dtype=TEXT, chunks=(2,))
