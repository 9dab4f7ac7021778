"""One measurement of the Python library, in a process of its own, so that nothing is warm but the page cache.

    python_side.py versions FILE         open, list the versions
    python_side.py tree FILE VERSION     open, shape and type of every dataset of a version
    python_side.py element FILE          open, read one element of r1/x
    python_side.py read FILE             open, read all of r1/x, and read it again
    python_side.py raw FILE OUT          write the bytes of r1/x into a plain file

Prints JSON: seconds, without the time that Python takes to import its modules, and the process's peak memory.
"""

import json
import os
import resource
import sys
import time

import h5py
import hdf5plugin  # noqa: F401
from versioned_hdf5 import VersionedHDF5File

what, path = sys.argv[1:3]
out = {}
started = time.perf_counter()
with h5py.File(path, "r") as file:
    versioned = VersionedHDF5File(file)
    if what == "versions":
        assert list(versioned)
    elif what == "tree":
        found = []
        versioned[sys.argv[3]].visititems(lambda name, item: found.append((name, getattr(item, "shape", None), getattr(item, "dtype", None))))
        assert found
    elif what == "element":
        item = versioned["r1"]["x"]
        item[tuple(n // 2 for n in item.shape)]
    elif what == "raw":
        versioned["r1"]["x"][()].tofile(sys.argv[3])
    elif what == "read":
        versioned["r1"]["x"][()]
        out["first"] = time.perf_counter() - started
        started = time.perf_counter()
        versioned["r1"]["x"][()]
    out["seconds"] = time.perf_counter() - started
out["peak_kib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(out))
sys.stdout.flush()
# versioned-hdf5 complains about its own objects while the interpreter shuts down.
os._exit(0)
