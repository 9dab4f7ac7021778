"""Edits that are made by the Python library and through `staging/`, each to a copy of one file, so that the outcomes can be compared.

A case has `first`, which makes the first version by the library, and then for each further version what the library and what a user of
`staging/` does.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import hdf5plugin
import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

from vh5fix.truth import escape_text
from vh5fix.xattrs import descr

CASES: dict[str, type] = {}


def case(kind: type) -> type:
    CASES[kind.__name__] = kind
    return kind


def write(path: Path, first: int, values: np.ndarray):
    """Writes elements over those of a file from number `first` on."""
    data = np.ascontiguousarray(values).tobytes()
    descriptor = os.open(path, os.O_WRONLY)
    try:
        assert os.pwrite(descriptor, data, first * values.dtype.itemsize) == len(data)
    finally:
        os.close(descriptor)


def tell(path: Path, dtype, shape, chunks, **more):
    """Says of a new file what its array is; without a shape, that of one dimension."""
    text = dtype if dtype == "|O" else descr(np.dtype(dtype))
    settings = {"dtype": text, "chunks": chunks, **({"shape": shape} if shape is not None else {}), **more}
    for name, value in settings.items():
        os.setxattr(path, f"user.h5.{name}", (value if isinstance(value, str) else json.dumps(value)).encode())


def walk(rng, dtype, shape) -> np.ndarray:
    """Values that compress, none of them zero for long."""
    return (rng.integers(-3, 4, int(np.prod(shape))).cumsum().reshape(shape) % 120 + 1).astype(dtype)


class Case:
    #: How many versions follow the first one.
    steps = 1

    def __init__(self):
        self.rng = np.random.default_rng(20261122)

    def first(self, group):
        group.create_dataset("x", data=walk(self.rng, "<i8", (10_000,)), chunks=(1000,))


@case
class Elements(Case):
    """Single elements, the ends of chunks, and what was there before."""

    def library(self, group, step):
        group["x"][5] = 77
        group["x"][2999:3001] = 78
        group["x"][7000:7003] = group["x"][7000:7003]

    def staging(self, root, step):
        write(root / "x", 5, np.array([77]))
        write(root / "x", 2999, np.array([78, 78]))
        write(root / "x", 7000, np.fromfile(root / "x", "<i8")[7000:7003])


@case
class Repeated(Case):
    """Chunks that are equal to another one, to one of an earlier version, and to each other."""

    steps = 2

    def library(self, group, step):
        x = group["x"]
        if step == 0:
            x[1000:2000] = x[5000:6000]
            x[2000:4000] = 9
        else:
            x[2000:3000] = x[0:1000]
            x[0:1000] = 9

    def staging(self, root, step):
        x = np.fromfile(root / "x", "<i8")
        if step == 0:
            write(root / "x", 1000, x[5000:6000])
            write(root / "x", 2000, np.full(2000, 9))
        else:
            write(root / "x", 2000, x[:1000])
            write(root / "x", 0, np.full(1000, 9))


@case
class Appended(Case):
    """Growth within the last chunk, beyond it, and by rows that were never written."""

    steps = 3
    sizes = (10_400, 13_100, 17_000)

    def library(self, group, step):
        before = group["x"].shape[0]
        group["x"].resize((self.sizes[step],))
        if step < 2:
            group["x"][before:] = np.arange(before, self.sizes[step])

    def staging(self, root, step):
        before = os.stat(root / "x").st_size // 8
        os.truncate(root / "x", 8 * self.sizes[step])
        if step < 2:
            write(root / "x", before, np.arange(before, self.sizes[step]))


@case
class Shrunk(Case):
    """To the middle of a chunk, to a chunk's end, to nothing, and up again."""

    steps = 4
    sizes = (7777, 4000, 0, 2500)

    def library(self, group, step):
        group["x"].resize((self.sizes[step],))

    def staging(self, root, step):
        os.truncate(root / "x", 8 * self.sizes[step])


@case
class Zeros(Case):
    """Whole chunks and parts of some written as zeros, which are the fill value."""

    def first(self, group):
        super().first(group)
        group.create_dataset("edge", data=walk(self.rng, "<f4", (250,)), chunks=(100,))

    def library(self, group, step):
        group["x"][3000:5500] = 0
        group["edge"][150:] = 0

    def staging(self, root, step):
        write(root / "x", 3000, np.zeros(2500, "<i8"))
        write(root / "edge", 150, np.zeros(100, "<f4"))


@case
class Sparse(Case):
    """A dataset of which nothing but some elements was ever written, with a fill value that is not zero."""

    def first(self, group):
        group.create_dataset("s", shape=(5000,), dtype="<i4", data=None, chunks=(500,), fillvalue=7)
        group["s"][1200] = 1

    def library(self, group, step):
        group["s"][3333] = 2
        group["s"][1200] = 7

    def staging(self, root, step):
        write(root / "s", 3333, np.array([2], "<i4"))
        write(root / "s", 1200, np.array([7], "<i4"))


@case
class Dimensions(Case):
    """Edits, new rows and new columns in two and three dimensions, with chunks that do not divide the shape."""

    steps = 3

    def first(self, group):
        group.create_dataset("two", data=walk(self.rng, ">f4", (60, 45)), chunks=(16, 20))
        group.create_dataset("deep/three", data=walk(self.rng, "<i2", (9, 10, 11)), chunks=(4, 5, 6), compression="gzip")

    def library(self, group, step):
        two, three = group["two"], group["deep/three"]
        if step == 0:
            two[17, 21] = 500
            three[3:5, 4:6, 5:7] = 501
        elif step == 1:
            two.resize((71, 45))
            two[60:] = 3
            three.resize((7, 10, 11))
        else:
            two.resize((71, 50))
            two[:, 45:] = 4

    def staging(self, root, step):
        two, three = root / "two", root / "deep/three"
        if step == 0:
            write(two, 17 * 45 + 21, np.array([500], ">f4"))
            for i in (3, 4):
                for j in (4, 5):
                    write(three, (i * 10 + j) * 11 + 5, np.array([501, 501], "<i2"))
        elif step == 1:
            os.truncate(two, 71 * 45 * 4)
            write(two, 60 * 45, np.full(11 * 45, 3, ">f4"))
            os.truncate(three, 7 * 10 * 11 * 2)
        else:
            wide = np.full((71, 50), 4, ">f4")
            wide[:, :45] = np.fromfile(two, ">f4").reshape(71, 45)
            os.setxattr(two, "user.h5.shape", b"[71, 50]")
            write(two, 0, wide)


FILTERS = {
    "gzip": {"compression": "gzip", "compression_opts": 6},
    "gzip_shuffle": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "lzf_all": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "fletcher32": {"fletcher32": True},
    "scaleoffset": {"scaleoffset": 0},
    "szip": {"compression": "szip", "compression_opts": ("nn", 16)},
    "bzip2": {"compression": hdf5plugin.BZip2(5)},
    "lz4": {"compression": hdf5plugin.LZ4()},
    "zstd": {"compression": hdf5plugin.Zstd(3)},
    "blosc": {"compression": hdf5plugin.Blosc(cname="lz4")},
    "blosc2": {"compression": hdf5plugin.Blosc2(cname="zstd")},
    "bitshuffle": {"compression": hdf5plugin.Bitshuffle()},
}


@case
class Filters(Case):
    """Every filter: an edit and growth. And a chunk that no filter makes smaller."""

    def first(self, group):
        for name, options in FILTERS.items():
            group.create_dataset(name, data=walk(self.rng, "<i4", (1100,)), chunks=(400,), **options)

    def library(self, group, step):
        noise = np.random.default_rng(5).integers(0, 2**31, 400).astype("<i4")
        for name in FILTERS:
            group[name].resize((1500,))
            group[name][17] = 42
            if name != "scaleoffset":
                group[name][400:800] = noise

    def staging(self, root, step):
        noise = np.random.default_rng(5).integers(0, 2**31, 400).astype("<i4")
        for name in FILTERS:
            os.truncate(root / name, 6000)
            write(root / name, 17, np.array([42], "<i4"))
            if name != "scaleoffset":
                write(root / name, 400, noise)


@case
class Strings(Case):
    """Variable-length strings: elements, more of them, fewer of them."""

    steps = 3

    def first(self, group):
        text = np.array([f"row {n}\nof é" for n in range(50)], dtype=object)
        group.create_dataset("text", data=text, dtype=h5py.string_dtype(), chunks=(16,))
        group.create_dataset("grid", data=text[:12].reshape(4, 3), dtype=h5py.string_dtype(), chunks=(3, 2), compression="gzip")

    def library(self, group, step):
        if step == 0:
            group["text"][3] = "other\\one"
            group["grid"][1, 2] = ""
        elif step == 1:
            group["text"].resize((70,))
            group["text"][50:] = np.array(["x" * n for n in range(20)], dtype=object)
        else:
            group["text"].resize((10,))

    def staging(self, root, step):
        lines = (root / "text").read_bytes().splitlines(keepends=True)
        if step == 0:
            lines[3] = escape_text(["other\\one"])
            grid = (root / "grid").read_bytes().splitlines(keepends=True)
            grid[5] = b"\n"
            (root / "grid").write_bytes(b"".join(grid))
        elif step == 1:
            lines += [b"x" * n + b"\n" for n in range(20)]
        else:
            lines = lines[:10]
        (root / "text").write_bytes(b"".join(lines))


#: New datasets: type, shape, chunks, how the library is told and what `user.h5.filters` says.
NEW = {
    "plain": ("<f8", (2500,), (1000,), {}, None),
    "swapped": (">u2", (700,), (300,), {}, None),
    "bool": ("|b1", (90,), (40,), {}, None),
    "complex": ("<c8", (90,), (40,), {}, None),
    "half": ("<f2", (33,), (40,), {}, None),
    "fixed": ("|S6", (50,), (20,), {}, None),
    "pair": ([("a", "<i4"), ("b", ">f8"), ("c", "S3")], (50,), (20,), {}, None),
    "two": ("<i4", (30, 21), (8, 10), {}, None),
    "three": ("<i2", (5, 6, 7), (2, 4, 3), {}, None),
    "gzip": ("<i8", (900,), (256,), {"compression": "gzip"}, ["gzip"]),
    "both": ("<i8", (900,), (256,), {"compression": "gzip", "compression_opts": 7, "shuffle": True}, ["shuffle", {"name": "gzip", "parameters": [7]}]),
    "lzf": ("<i8", (900,), (256,), {"compression": "lzf"}, ["lzf"]),
    "filled": ("<i4", (300,), (100,), {"fillvalue": 3}, None),
    "empty": ("<f8", (0,), (100,), {}, None),
}


@case
class New(Case):
    """New datasets, told by attributes, in new groups."""

    def values(self, name):
        dtype, shape, *_ = NEW[name]
        rng = np.random.default_rng(3)
        if isinstance(dtype, list):
            out = np.zeros(shape, dtype)
            out["a"], out["b"], out["c"] = walk(rng, "<i4", shape), walk(rng, ">f8", shape), b"abc"
            return out
        return walk(rng, "<i4", shape).astype(dtype)

    def library(self, group, step):
        for name, (dtype, _, chunks, options, _) in NEW.items():
            group.create_dataset(f"new/{name}", data=self.values(name), dtype=np.dtype(dtype), chunks=chunks, **options)
        text = np.array(["a", "", "c\n"], dtype=object)
        group.create_dataset("new/text", data=text, dtype=h5py.string_dtype(), chunks=(2,))

    def staging(self, root, step):
        (root / "new").mkdir()
        for name, (dtype, shape, chunks, options, filters) in NEW.items():
            place = root / "new" / name
            self.values(name).tofile(place)
            more = {} if filters is None else {"filters": filters}
            if "fillvalue" in options:
                more["fillvalue"] = options["fillvalue"]
            tell(place, dtype, shape if len(shape) > 1 else None, chunks, **more)
        (root / "new/text").write_bytes(b"a\n\nc\\n\n")
        tell(root / "new/text", "|O", None, (2,))


@case
class Removed(Case):
    """A dataset that goes, and comes again with other values; a group that goes."""

    steps = 2

    def first(self, group):
        super().first(group)
        group.create_dataset("gone/a", data=np.arange(10), chunks=(4,))
        group.create_dataset("stays", data=np.arange(10), chunks=(4,))

    def library(self, group, step):
        if step == 0:
            del group["x"]
            del group["gone"]
        else:
            group.create_dataset("x", data=np.arange(1500), chunks=(1000,))

    def staging(self, root, step):
        if step == 0:
            os.unlink(root / "x")
            shutil.rmtree(root / "gone")
        else:
            np.arange(1500).tofile(root / "x")


@case
class Attributes(Case):
    """Attributes of datasets, groups and the version, new, changed and removed; of changed datasets and of others."""

    VALUES = {"count": 5, "scale": 0.25, "on": True, "note": "text é", "list": [1, 2, 3], "grid": [[0.5, 1.5], [2.5, 3.5]]}

    def first(self, group):
        super().first(group)
        group.create_dataset("g/y", data=np.arange(10), chunks=(4,))
        for item in (group["x"], group["g/y"], group["g"]):
            item.attrs["kept"] = np.array([1.5, 2.5], ">f4")
            item.attrs["number"] = np.int16(3)
            item.attrs["removed"] = 1

    def library(self, group, step):
        group["x"][0] = 1
        for item in (group["x"], group["g/y"], group["g"], group):
            for name, value in self.VALUES.items():
                item.attrs[name] = value
        for item in (group["x"], group["g/y"], group["g"]):
            item.attrs["number"] = np.int16(4)
            del item.attrs["removed"]

    def staging(self, root, step):
        write(root / "x", 0, np.array([1]))
        for place in (root / "x", root / "g/y", root / "g", root):
            for name, value in self.VALUES.items():
                os.setxattr(place, f"user.{name}", (value if isinstance(value, str) else json.dumps(value)).encode())
        for place in (root / "x", root / "g/y", root / "g"):
            os.setxattr(place, "user.number", b"4")
            os.removexattr(place, "user.removed")


@case
class Nothing(Case):
    """A version without any change."""

    def first(self, group):
        super().first(group)
        group.create_dataset("g/y", data=walk(self.rng, "<i4", (20, 20)), chunks=(8, 8))

    def library(self, group, step):
        pass

    def staging(self, root, step):
        pass


def prepare(name: str, directory: Path) -> tuple[str, str]:
    """Makes the two copies of a case's file."""
    ours, theirs = directory / f"{name}-staging.h5", directory / f"{name}-library.h5"
    with h5py.File(theirs, "w") as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("r0") as group:
            CASES[name]().first(group)
        versions.close()
    shutil.copy(theirs, ours)
    return str(ours), str(theirs)


def by_library(name: str, path: str, step: int):
    with h5py.File(path, "r+") as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version(f"r{step + 1}") as group:
            CASES[name]().library(group, step)
        versions.close()


def by_staging(name: str, root: str, step: int):
    CASES[name]().staging(Path(root), step)
