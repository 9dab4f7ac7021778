"""One edit by the Python library, in a process of its own.

    python_commit.py make FILE ELEMENTS       a new file, with ELEMENTS float64 in r1/x
    python_commit.py element FILE AT          version r2: one element of x
    python_commit.py append FILE COUNT        version r2: COUNT elements after those of x
    python_commit.py new FILE COUNT           version r2: a new dataset of COUNT elements
    python_commit.py sum FILE VERSION         checksums of a version's datasets

Prints JSON: seconds from opening the file until it is closed and on the disk, without the time that Python takes to import its
modules, and the process's peak memory.
"""

import json
import os
import resource
import sys
import time
import zlib

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

CHUNKS = (4096,)

what, path, argument = sys.argv[1:4]
out = {}
data = None
if what == "new":
    data = np.random.default_rng(2).standard_normal(int(argument))
started = time.perf_counter()
with h5py.File(path, {"make": "w", "sum": "r"}.get(what, "r+")) as file:
    versioned = VersionedHDF5File(file)
    if what == "sum":
        group = versioned[argument]
        out["sums"] = {name: [group[name].shape, zlib.crc32(group[name][()])] for name in sorted(group)}
    else:
        with versioned.stage_version("r1" if what == "make" else "r2") as group:
            if what == "make":
                walk = np.random.default_rng(1).normal(0, 0.05, int(argument)).cumsum()
                group.create_dataset("x", data=walk, chunks=CHUNKS)
            elif what == "element":
                group["x"][int(argument)] = -1.0
            elif what == "append":
                x = group["x"]
                before = x.shape[0]
                x.resize((before + int(argument),))
                x[before:] = np.arange(int(argument), dtype="<f8")
            elif what == "new":
                group.create_dataset("new", data=data, chunks=CHUNKS)
    versioned.close()
descriptor = os.open(path, os.O_RDONLY)
os.fsync(descriptor)
out["seconds"] = time.perf_counter() - started
out["peak_kib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(out))
sys.stdout.flush()
# versioned-hdf5 complains about its own objects while the interpreter shuts down.
os._exit(0)
