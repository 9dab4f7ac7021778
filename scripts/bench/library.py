"""One measurement of the Python library, in a process of its own, so that nothing is warm but the page cache.

    library.py versions FILE                 the list of versions
    library.py tree FILE COUNT               shape and type of every dataset of the first COUNT versions
    library.py element FILE first|middle     one element of r1/x
    library.py read FILE                     all of r1/x, and all of it again
    library.py hash FILE                     SHA-256 of r1/x, then of r2/x
    library.py raw FILE VERSION OUT          the bytes of a version's x, in a plain file

    library.py make FILE ELEMENTS CHUNK      a new file with ELEMENTS float64 in r1/x
    library.py change FILE FROM COUNT        version r2: COUNT elements of x, from FROM on
    library.py append FILE COUNT             version r2: COUNT elements after those of x
    library.py new FILE COUNT                version r2: a new dataset of COUNT elements
    library.py repeat FILE AT COUNT          COUNT versions, each with one element of x changed
    library.py sum FILE VERSION              checksums of a version's datasets

Every command does what the library's documentation does: `VersionedHDF5File(h5py.File(...))`, slices of datasets, `stage_version` as a
context. Prints JSON: `open`, the seconds until the file is open and its versions are known; `seconds`, those of the work after it, for edits with
the closing of the file and an fsync; the process's peak memory. The time that Python takes to start and to import its modules is in neither.
"""

import hashlib
import json
import os
import resource
import sys
import time
import zlib

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
from versioned_hdf5 import VersionedHDF5File

#: How each command opens the file, where it does not only read.
MODES = {"make": "w", "change": "r+", "append": "r+", "new": "r+", "repeat": "r+"}


def sync(path: str):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bytes_read() -> int:
    """What this process has read from files so far (proc_pid_io(5), `rchar`)."""
    with open("/proc/self/io") as file:
        return int(next(line.split()[1] for line in file if line.startswith("rchar")))


def timed(out: dict, key: str, call):
    started = time.perf_counter()
    result = call()
    out[key] = time.perf_counter() - started
    return result


def tree(versioned, count: int) -> int:
    """How many groups and datasets there are in the first `count` versions, each of them looked at."""
    found = []
    for name in sorted(versioned)[:count]:
        versioned[name].visititems(lambda path, item: found.append((path, getattr(item, "shape", None), getattr(item, "dtype", None))))
    return len(found)


def element(versioned, where: str):
    item = versioned["r1"]["x"]
    return item[tuple(0 if where == "first" else n // 2 for n in item.shape)]


def digest(versioned, name: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(versioned[name]["x"][()])).hexdigest()


def look(what: str, versioned, arguments: list[str], out: dict):
    """Commands that change nothing."""
    if what == "versions":
        assert timed(out, "seconds", lambda: list(versioned))
    elif what == "tree":
        out["entries"] = timed(out, "seconds", lambda: tree(versioned, int(arguments[0])))
    elif what == "element":
        timed(out, "seconds", lambda: element(versioned, arguments[0]))
    elif what == "read":
        timed(out, "seconds", lambda: versioned["r1"]["x"][()])
        timed(out, "again", lambda: versioned["r1"]["x"][()])
    elif what == "hash":
        out["read"] = []
        out["digests"] = []
        for name, key in (("r1", "seconds"), ("r2", "again")):
            before = bytes_read()
            out["digests"].append(timed(out, key, lambda name=name: digest(versioned, name)))
            out["read"].append(bytes_read() - before)
    elif what == "raw":
        versioned[arguments[0]]["x"][()].tofile(arguments[1])
    elif what == "sum":
        group = versioned[arguments[0]]
        out["sums"] = {name: [group[name].shape, zlib.crc32(group[name][()])] for name in sorted(group)}


def edit(what: str, group, arguments: list[str], data):
    """What becomes the next version."""
    if what == "make":
        walk = np.random.default_rng(1).normal(0, 0.05, int(arguments[0])).cumsum()
        group.create_dataset("x", data=walk, chunks=(int(arguments[1]),))
    elif what == "change":
        start, count = map(int, arguments)
        group["x"][start : start + count] = -1.0
    elif what == "append":
        x = group["x"]
        before = x.shape[0]
        x.resize((before + int(arguments[0]),))
        x[before:] = np.arange(int(arguments[0]), dtype="<f8")
    elif what == "new":
        group.create_dataset("new", data=data, chunks=(4096,))


def repeat(file, versioned, path: str, at: int, count: int) -> list[float]:
    """The seconds of each of many commits, on the disk each; the file stays open."""
    seconds = []
    for number in range(1, count + 1):
        started = time.perf_counter()
        with versioned.stage_version(f"e{number}") as group:
            group["x"][at] = -float(number)
        file.flush()
        sync(path)
        seconds.append(time.perf_counter() - started)
    return seconds


def main():
    what, path, *arguments = sys.argv[1:]
    out = {}
    data = np.random.default_rng(2).standard_normal(int(arguments[0])) if what == "new" else None
    started = time.perf_counter()
    with h5py.File(path, MODES.get(what, "r")) as file:
        versioned = VersionedHDF5File(file)
        out["open"] = time.perf_counter() - started
        if what not in MODES:
            look(what, versioned, arguments, out)
        elif what == "repeat":
            out["commits"] = repeat(file, versioned, path, *map(int, arguments))
        else:
            started = time.perf_counter()
            with versioned.stage_version("r1" if what == "make" else "r2") as group:
                edit(what, group, arguments, data)
        versioned.close()
    if what in MODES and what != "repeat":
        sync(path)
        out["seconds"] = time.perf_counter() - started
    out["peak_kib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(out))


main()
sys.stdout.flush()
# versioned-hdf5 complains about its own objects while the interpreter shuts down.
os._exit(0)
