#!/usr/bin/env python3
"""Makes a file of very many versions, without the minutes that as many commits take.

    scale.py OUT.h5 VERSIONS DATASETS

The first version is the library's own. Each further one is what a commit makes of it: a group of its own with its parent, its time and its
mark, in it a copy of each of the parent's objects, except for one dataset that has a new chunk. Version `version-N` (five digits) is of
2020-01-01 and N minutes; dataset `group_G/dataset_D` (G = D mod 5, three digits) holds 30 float64 in chunks of 10, at first D + 1 at
each place; in version N the dataset N mod DATASETS gets the chunk (N div DATASETS) mod 3 full of -N.
"""

from __future__ import annotations

import datetime
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "fixtures"))
warnings.filterwarnings("ignore")

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from versioned_hdf5 import VersionedHDF5File  # noqa: E402

from vh5fix import craft  # noqa: E402

CHUNK = 10
EPOCH = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


def place_of(number: int) -> str:
    return f"group_{number % 5}/dataset_{number:03}"


def make(path: Path, versions: int, datasets: int):
    names = [place_of(number) for number in range(datasets)]
    with h5py.File(path, "w") as file:
        library = VersionedHDF5File(file)
        with library.stage_version("version-00000", timestamp=EPOCH) as group:
            for number, name in enumerate(names):
                group.create_dataset(name, data=np.full(3 * CHUNK, number + 1.0), chunks=(CHUNK,))
        library.close()
        # The library stores a chunk that is repeated within a dataset once.
        rows = {name: [0, 0, 0] for name in names}
        tree = file["_version_data/versions"]
        parent = "version-00000"
        for number in range(1, versions):
            name, dataset = f"version-{number:05}", names[number % datasets]
            version = craft.version(file, name, parent, EPOCH + datetime.timedelta(minutes=number), current=False)
            rows[dataset][number // datasets % 3] = craft.append_chunk(file, dataset, np.full(CHUNK, -float(number)))
            for group in tree[parent]:
                h5py.h5o.copy(tree[parent].id, group.encode(), version.id, group.encode())
            del version[dataset]
            placed = [((n * CHUNK,), (CHUNK,), row) for n, row in enumerate(rows[dataset])]
            craft.virtual(file, name, dataset, (3 * CHUNK,), None, placed)
            parent = name
        tree.attrs["current_version"] = parent


def check(path: Path, versions: int, datasets: int):
    """The library reads some versions as they are described above."""
    with h5py.File(path) as file:
        library = VersionedHDF5File(file)
        assert library.current_version == f"version-{versions - 1:05}"
        for number in (0, 1, datasets, versions // 2, versions - 1):
            group = library[f"version-{number:05}"]
            for dataset in (number % datasets, 0, datasets - 1):
                expected = np.full(3 * CHUNK, dataset + 1.0)
                for earlier in range(1, number + 1):
                    if earlier % datasets == dataset:
                        chunk = earlier // datasets % 3
                        expected[chunk * CHUNK : (chunk + 1) * CHUNK] = -earlier
                assert np.array_equal(group[place_of(dataset)][()], expected), (number, dataset)


if __name__ == "__main__":
    arguments = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    make(*arguments)
    check(*arguments)
    # versioned-hdf5 complains about its own objects while the interpreter shuts down.
    os._exit(0)
