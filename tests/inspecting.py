"""Random histories, and what `vh5fs diff` and `vh5fs log` say of them held against the arrays themselves.

    inspecting.py PROGRAM FOLDER SEED

Of each pair of versions and each dataset in both: outside of the ranges that are said to differ, all elements are equal; inside, each chunk
holds at least one that is not (none of the random values is the fill value, so that a chunk of fill value differs from a stored one).
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

KINDS = {
    "line": dict(shape=(50,), chunks=(8,), dtype="<i4"),
    "deep/grid": dict(shape=(13, 17), chunks=(4, 5), dtype="<f8"),
    "cube": dict(shape=(5, 6, 7), chunks=(2, 3, 7), dtype="<u2", compression="gzip"),
}


def told(program: str, *arguments: str):
    output = subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
    return json.loads(output)


class Histories:
    def __init__(self, path: Path, seed: int):
        self.path = path
        self.random = np.random.default_rng(seed)
        self.counter = 0
        self.parents: dict[str, str | None] = {}

    def values(self, shape, dtype):
        """Numbers that were never used before, and so chunks that are all different."""
        count = int(np.prod(shape))
        first = self.counter + 1
        self.counter = (self.counter + count) % 60000
        return (np.arange(first, first + count) % 60000 + 1).astype(dtype).reshape(shape)

    def edit(self, group):
        for path, kind in KINDS.items():
            choice = self.random.integers(0, 10)
            if path not in group:
                if choice < 6:
                    data = self.values(kind["shape"], kind["dtype"])
                    options = {key: kind[key] for key in ("chunks", "compression") if key in kind}
                    group.create_dataset(path, data=data, maxshape=(None,) * data.ndim, **options)
                continue
            dataset = group[path]
            if choice == 0:
                del group[path]
            elif choice in (1, 2):
                shape = tuple(int(max(1, n + self.random.integers(-6, 9))) for n in dataset.shape)
                dataset.resize(shape)
            elif choice in (3, 4, 5):
                box = []
                for n in dataset.shape:
                    start = int(self.random.integers(0, n))
                    box.append(slice(start, int(self.random.integers(start + 1, n + 1))))
                box = tuple(box)
                dataset[box] = self.values([axis.stop - axis.start for axis in box], dataset.dtype)
            elif choice == 6:
                dataset.attrs["note"] = int(self.random.integers(0, 1000))

    def make(self, versions: int):
        with h5py.File(self.path, "w") as file:
            versioned = VersionedHDF5File(file)
            for number in range(versions):
                names = list(self.parents)
                parent = names[self.random.integers(max(0, len(names) - 3), len(names))] if names else None
                name = f"v{number}"
                with versioned.stage_version(name, prev_version=parent) as group:
                    self.edit(group)
                self.parents[name] = parent
            versioned.close()

    def read(self) -> dict[str, dict]:
        """Each version: its datasets with their attributes."""
        found = {}
        with h5py.File(self.path, "r") as file:
            for name in self.parents:
                group = file["_version_data/versions"][name]
                found[name] = {
                    path: (group[path][()], {k: v for k, v in group[path].attrs.items() if k not in ("raw_data", "chunks")})
                    for path in KINDS
                    if path in group
                }
        return found


def chunk_boxes(shape, chunks):
    axes = [[(start, min(start + step, n)) for start in range(0, n, step)] for n, step in zip(shape, chunks)]
    return product(*axes)


def check_dataset(path: str, change: dict | None, before, after):
    (old, old_attributes), (new, new_attributes) = before, after
    if change is None:
        assert old.shape == new.shape and np.array_equal(old, new) and old_attributes == new_attributes, path
        return
    assert change["change"] == "modified", change
    names = {entry["name"] for entry in change["attributes"]}
    differing = {k for k in old_attributes.keys() | new_attributes.keys() if old_attributes.get(k) != new_attributes.get(k)}
    assert names == differing, (path, names, differing)
    assert (change["array_after"] is not None) == (old.shape != new.shape), change
    if change["array_after"] is not None:
        assert change["array_before"]["shape"] == list(old.shape) and change["array_after"]["shape"] == list(new.shape)
    told_ranges = change["chunks"]["ranges"] if change["chunks"] else []
    differs = np.zeros(new.shape, dtype=int)
    for ranges in told_ranges:
        differs[tuple(slice(start, end) for start, end in ranges)] += 1
    assert differs.max(initial=0) <= 1, "ranges are disjoint"
    common = tuple(slice(0, min(a, b)) for a, b in zip(old.shape, new.shape))
    truly = np.ones(new.shape, dtype=bool)
    truly[common] = old[common] != new[common]
    # What was added and never written is fill value, which is in no chunk.
    untold = truly & (differs == 0)
    assert not new[untold].any(), f"{path}: elements differ outside of the ranges"
    changed = 0
    for box in chunk_boxes(new.shape, KINDS[path]["chunks"]):
        place = tuple(slice(start, end) for start, end in box)
        told_here = differs[place]
        assert told_here.min() == told_here.max(), "ranges are whole chunks"
        if told_here.max():
            changed += 1
            old_box = tuple(slice(s.start, min(s.stop, n)) for s, n in zip(place, old.shape))
            # An edge chunk whose extent is another one counts, for it was hashed anew.
            same_extent = all(
                min(start // step * step + step, a) == min(start // step * step + step, b)
                for (start, _), step, a, b in zip(box, KINDS[path]["chunks"], old.shape, new.shape)
            )
            assert not same_extent or not np.array_equal(old[old_box], new[place]), f"{path}{box} is equal"
    if change["chunks"]:
        assert change["chunks"]["changed"] == changed
        assert change["chunks"]["changed_bytes"] == int(differs.sum()) * new.dtype.itemsize


def check_pair(objects: list[dict], before: dict, after: dict):
    changes = {entry["path"]: entry for entry in objects if entry["kind"] == "dataset"}
    assert set(changes) <= before.keys() | after.keys()
    for path in before.keys() | after.keys():
        change = changes.get(path)
        if path not in before:
            assert change["change"] == "added" and change["array"]["shape"] == list(after[path][0].shape), change
        elif path not in after:
            assert change["change"] == "removed", change
        else:
            check_dataset(path, change, before[path], after[path])


def main(program: str, folder: str, seed: int):
    histories = Histories(Path(folder) / f"{seed}.h5", seed)
    histories.make(8)
    truth = histories.read()
    pairs = 0
    for before, after in permutations(truth, 2):
        answer = told(program, "diff", str(histories.path), before, after, "--json")
        assert answer["before"]["name"] == before and answer["after"]["name"] == after
        check_pair(answer["objects"], truth[before], truth[after])
        pairs += 1
    log = told(program, "log", str(histories.path), "--json")
    assert {entry["name"] for entry in log} == truth.keys()
    times = [entry["timestamp"] for entry in log]
    assert times == sorted(times, reverse=True)
    for entry in log:
        parent = entry["parent"]
        assert parent == histories.parents[entry["name"]]
        check_pair(entry["objects"], truth[parent] if parent else {}, truth[entry["name"]])
        assert entry["is_current"] == (entry["name"] == "v7")
    print(pairs)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
