"""Small versioned files to be damaged, each with what is known of its bytes.

NAME.json beside NAME.h5 says for ranges of bytes [start, end) what a changed bit in them may do unnoticed: `protected` ones have a checksum of their
own, whatever the rest of the file has; `open` ones have none: stored chunks without a filter that would tell, with the path of the dataset whose
bytes they are, and the heap of the file, whose strings nothing guards, with null. `checksummed` says whether all other metadata is guarded.
"""

import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

OUT = Path(sys.argv[1])
LIBVERS = {"earliest": "earliest", "v110": ("v110", "v110"), "latest": "latest"}
GUARDED = {"gzip": {"compression": "gzip"}, "fletcher": {"fletcher32": True}}
TEXT = h5py.string_dtype()


def fill(path, libver):
    rng = np.random.default_rng(7)
    moments = (datetime(2020, 1, 1, tzinfo=timezone.utc) + timedelta(days=day) for day in range(9))
    with h5py.File(path, "w", libver=libver) as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("r1", timestamp=next(moments)) as group:
            group.create_dataset("fletcher", data=np.arange(500, dtype="<i4"), chunks=(128,), **GUARDED["fletcher"])
            group.create_dataset("gzip", data=rng.integers(0, 9, (20, 18)), chunks=(8, 8), shuffle=True, **GUARDED["gzip"])
            group.create_dataset("plain", data=rng.standard_normal(120), chunks=(32,))
            group.create_dataset("sparse", shape=(1000,), dtype="f4", data=None, chunks=(100,), fillvalue=1.5)
            words = np.array([f"word {n}" * (n % 4) for n in range(40)], dtype=object)
            group.create_dataset("inner/text", data=words, dtype=TEXT, chunks=(16,), **GUARDED["gzip"])
            for number in range(12):
                group.create_dataset(f"crowd/member_{number:02}", data=np.arange(number + 1, dtype=">i2"), chunks=(8,), **GUARDED["fletcher"])
            for number in range(12):
                group["fletcher"].attrs[f"attribute_{number:02}"] = number / 4
            group["fletcher"].attrs["unit"] = "m"
        with versions.stage_version("r2", timestamp=next(moments)) as group:
            group["fletcher"][100] = -5
            group["gzip"].resize((25, 18))
            group["inner/text"][3] = "changed"
            group["sparse"][500:510] = 2
        with versions.stage_version("r3", timestamp=next(moments)) as group:
            group["plain"].resize((140,))
            del group["crowd/member_03"]
            group["fletcher"].resize((450,))


def describe(path, libver):
    """What is known of the ranges of the file's bytes."""
    guarded, unguarded = [], []

    def visit(name, dataset):
        if not isinstance(dataset, h5py.Dataset) or not name.endswith("/raw_data"):
            return
        where = guarded if dataset.fletcher32 or dataset.compression == "gzip" else unguarded
        for number in range(dataset.id.get_num_chunks()):
            chunk = dataset.id.get_chunk_info(number)
            owner = [] if where is guarded else [name.removeprefix("_version_data/").removesuffix("/raw_data")]
            where.append([chunk.byte_offset, chunk.byte_offset + chunk.size, *owner])

    with h5py.File(path) as file:
        file.visititems(visit)
    content = path.read_bytes()
    start = content.find(b"GCOL")
    while start >= 0:
        size = int.from_bytes(content[start + 8 : start + 16], "little")
        unguarded.append([start, start + size, None])
        at = start + 16
        while at + 16 <= start + size:
            index = int.from_bytes(content[at : at + 2], "little")
            length = int.from_bytes(content[at + 8 : at + 16], "little")
            if index == 0:
                break
            at += 16
            # The mappings of a virtual dataset end with a checksum.
            if b"/raw_data\0" in content[at : at + length]:
                guarded.append([at, at + length])
            at += -(-length // 8) * 8
        start = content.find(b"GCOL", start + size)
    return {"checksummed": libver != "earliest", "protected": guarded, "open": unguarded}


for name, libver in LIBVERS.items():
    path = OUT / f"{name}.h5"
    fill(path, libver)
    facts = describe(path, name)
    assert len(facts["protected"]) > 20 and len(facts["open"]) > 3, facts
    path.with_suffix(".json").write_text(json.dumps(facts))
