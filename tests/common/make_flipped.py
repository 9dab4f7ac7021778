"""Two files for checks of every byte: `sound.h5`, and `flipped.h5`, in which one bit is flipped in each of 1,000 stored chunks.

    make_flipped.py FOLDER

`truth.json` has, for each flipped chunk, the dataset, the number of the chunk, and each box of elements that versions map to it; and for
each version of each dataset where the chunk of every box is stored: {"flipped": [[DATASET, CHUNK, VERSIONS, START, STOP]],
"versions": {VERSION: {DATASET: [[CHUNK, START, STOP]]}}, "damaged": {DATASET: [CHUNK]}}. `raw/VERSION/DATASET` are the arrays' bytes.
"""

import json
import random
import sys
from pathlib import Path

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

FLIPS = 1000
folder = Path(sys.argv[1])
rng = np.random.default_rng(20)
choose = random.Random(20)


def make(path):
    with h5py.File(path, "w") as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("r1") as group:
            group.create_dataset("plain", data=rng.standard_normal(512 * 330 + 100), chunks=(512,))
            group.create_dataset("gzip", data=rng.integers(0, 1000, 512 * 180 + 7), chunks=(512,), compression="gzip", shuffle=True)
            group.create_dataset("lzf", data=rng.integers(0, 3, 512 * 150 + 300), chunks=(512,), compression="lzf")
            group.create_dataset("checksum", data=rng.integers(0, 9, 512 * 40), chunks=(512,), fletcher32=True)
            group.create_dataset("grid/plain", data=rng.standard_normal((100, 90)), chunks=(8, 11))
            group.create_dataset("grid/gzip", data=rng.integers(0, 99, (101, 90)), chunks=(8, 11), compression="gzip")
            words = np.array([f"word {n} {'x' * (n % 40)}" for n in range(64 * 60 + 5)], dtype=object)
            group.create_dataset("text", data=words, dtype=h5py.string_dtype(), chunks=(64,))
            group.create_dataset("kept", data=rng.standard_normal(5000), chunks=(512,))
            group.create_dataset("kept_text", data=words[:300], dtype=h5py.string_dtype(), chunks=(64,))
        with versions.stage_version("r2") as group:
            for number in range(0, 512 * 330, 512 * 33):
                group["plain"][number] = 0.5
            group["grid/plain"][50, :] = 3
            group["text"][100] = "another"
        with versions.stage_version("r3") as group:
            group["plain"].resize((512 * 333,))
            group["grid/gzip"].resize((120, 80))


def hyperslab(space):
    """Start and stop of the only block of a selection."""
    start, _, count, block = space.get_regular_hyperslab()
    return list(start), [s + c * b for s, c, b in zip(start, count, block)]


def describe(path):
    maps, arrays = {}, {}
    with h5py.File(path) as file:
        for version in ("r1", "r2", "r3"):
            group = file["_version_data/versions"][version]
            maps[version] = {}

            def visit(name, item):
                if not isinstance(item, h5py.Dataset):
                    return
                rows = file[f"_version_data/{name}/raw_data"].chunks[0]
                maps[version][name] = [
                    [hyperslab(source.src_space)[0][0] // rows, *hyperslab(source.vspace)] for source in item.virtual_sources()
                ]
                text = item.dtype == object
                arrays[version, name] = b"".join(line + b"\n" for line in item[:]) if text else item[:].tobytes()

            group.visititems(visit)
    return maps, arrays


def mapped_extents(maps):
    """For each stored chunk that a version maps: the smallest extent, within which every bit counts."""
    extents = {}
    for datasets in maps.values():
        for name, cells in datasets.items():
            for chunk, start, stop in cells:
                extent = [b - a for a, b in zip(start, stop)]
                known = extents.setdefault((name, chunk), extent)
                extents[name, chunk] = [min(a, b) for a, b in zip(known, extent)]
    return extents


def place_in(raw, chunk, extent):
    """Byte and bit of the file within a stored chunk, such that the flip is certain to matter."""
    info = raw.id.get_chunk_info(chunk if raw.ndim == 1 else chunk * (raw.shape[1] // raw.chunks[1] or 1))
    if raw.compression or raw.fletcher32:
        return info.byte_offset + choose.randrange(info.size), choose.randrange(8)
    element = [choose.randrange(n) for n in extent]
    at = int(np.ravel_multi_index(element, raw.chunks)) * raw.id.get_type().get_size()
    if raw.dtype == object:
        # The length of the string.
        return info.byte_offset + at, choose.randrange(4)
    return info.byte_offset + at + choose.randrange(raw.dtype.itemsize), choose.randrange(8)


def differs(path, name, chunk, extent, sound):
    """Whether the HDF5 library reads something else, or nothing."""
    with h5py.File(path) as file:
        raw = file[f"_version_data/{name}/raw_data"]
        box = (slice(chunk * raw.chunks[0], chunk * raw.chunks[0] + extent[0]), *(slice(0, n) for n in extent[1:]))
        try:
            return raw[box].tobytes() != sound[box].tobytes()
        except OSError:
            return True


sound, flipped = folder / "sound.h5", folder / "flipped.h5"
make(sound)
maps, arrays = describe(sound)
for (version, name), data in arrays.items():
    path = folder / "raw" / version / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
extents = mapped_extents(maps)
candidates = sorted(key for key in extents if not key[0].startswith("kept"))
chosen = sorted(choose.sample(candidates, FLIPS))
data = bytearray(sound.read_bytes())
trial = folder / "trial.h5"
trial.write_bytes(data)
with h5py.File(sound) as file:
    for name, chunk in chosen:
        raw = file[f"_version_data/{name}/raw_data"]
        while True:
            at, bit = place_in(raw, chunk, extents[name, chunk])
            data[at] ^= 1 << bit
            if not raw.compression:
                break
            # A compressed stream has bits that change nothing.
            with open(trial, "r+b") as changed:
                changed.seek(at)
                changed.write(data[at : at + 1])
            if differs(trial, name, chunk, extents[name, chunk], raw):
                break
            data[at] ^= 1 << bit
flipped.write_bytes(data)
trial.unlink()
places = {}
for version, datasets in maps.items():
    for name, cells in datasets.items():
        for chunk, start, stop in cells:
            places.setdefault((name, chunk, tuple(start), tuple(stop)), []).append(version)
wanted = set(chosen)
damaged = {}
for name, chunk in chosen:
    damaged.setdefault(name, []).append(chunk)
truth = {
    "flipped": [[name, chunk, versions, start, stop] for (name, chunk, start, stop), versions in places.items() if (name, chunk) in wanted],
    "versions": maps,
    "damaged": damaged,
}
(folder / "truth.json").write_text(json.dumps(truth))
