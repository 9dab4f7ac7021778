#!/usr/bin/env python3
"""Holds `npy/` and `meta/` of a mount against what h5py reads of its file: every dataset, group and attribute of every version.

    views.py MOUNT FILE

Prints each difference on a line of its own, then the numbers of arrays and of JSON files that were compared; exits 1 when there is any difference.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "fixtures"))
warnings.filterwarnings("ignore")

import h5py  # noqa: E402
import hdf5plugin  # noqa: E402, F401  (registers the filters)
import numpy as np  # noqa: E402
from judge import same_json  # noqa: E402
from vh5fix.truth import BOOKKEEPING, Describer, read_bytes  # noqa: E402
from vh5fix.xattrs import from_descr  # noqa: E402

#: Attributes of a version that are not shown as such.
VERSION_BOOKKEEPING = {"committed", "prev_version"}
LONG = re.compile(rb"(.*)%[0-9a-f]{16}", re.DOTALL)
#: Datasets that are larger than this are compared in part.
WHOLE_MAX_BYTES = 64 << 20


def shown(directory: bytes, name: bytes, suffix: bytes) -> bytes:
    """The name under which `name` is to be found in a directory."""
    plain = (name.replace(b".", b"%2E") if name in (b".", b"..") else name) + suffix
    if len(plain) <= 255:
        return plain
    for candidate in os.listdir(directory):
        match = LONG.fullmatch(candidate.removesuffix(suffix))
        if candidate.endswith(suffix) and match and name.startswith(match[1]):
            return candidate
    return plain


def plain_dtype(dtype: np.dtype) -> np.dtype:
    """A type without h5py's notes on it."""
    return np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype))


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two arrays hold the same bytes, but for what lies between fields."""
    if expected.dtype.names:
        return all(same(found[name], expected[name]) for name in expected.dtype.names)
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


def holds_objects(dtype: np.dtype) -> bool:
    if dtype.subdtype:
        return holds_objects(dtype.subdtype[0])
    if dtype.names:
        return any(holds_objects(dtype.fields[name][0]) for name in dtype.names)
    return dtype.kind == "O"


class Comparison:
    def __init__(self, mount: bytes, file: h5py.File):
        self.mount = mount
        self.describer = Describer(file, Path("/nonexistent"))
        self.arrays = self.texts = 0
        self.differences: list[str] = []

    def check(self, right: bool, where: bytes, what: str):
        if not right:
            self.differences.append(f"{where.decode('utf-8', 'backslashreplace')[-200:]}: {what}")

    def json(self, path: bytes) -> dict:
        text = Path(os.fsdecode(path)).read_bytes()
        self.check(text.endswith(b"\n}\n") and len(text) == os.stat(path).st_size, path, "its end or its size")
        self.texts += 1
        return json.loads(text.decode())

    def attributes(self, path: bytes, found: dict, expected: dict):
        # Names in the order of their bytes.
        names = sorted(expected, key=lambda name: name.encode("utf-8", "surrogateescape"))
        self.check(list(found) == names, path, f"attributes {list(found)[:9]}, not {names[:9]}")
        for name, value in expected.items():
            have = found.get(name)
            if "text" in value:
                right = have == value["text"]
            elif "hex" in value:
                right = isinstance(have, str) and have.encode("utf-8", "surrogateescape").hex() == value["hex"]
            elif "json" in value:
                right = same_json(value, json.dumps(have).encode())
            else:
                right = name in found
            self.check(right, path, f"attribute {name[:60]} is {str(have)[:80]}, not {str(value)[:80]}")

    def group(self, group: h5py.Group, below: dict[str, bytes], hidden=frozenset(), kind="group") -> dict:
        """A group in each view."""
        about = self.json(below["meta"] + b"/.json")
        self.check(about["kind"] == kind, below["meta"], f"is a {about['kind']}")
        self.attributes(below["meta"], about["attributes"], self.describer.attributes(group, hidden))
        expected = {"raw": set(), "npy": set(), "meta": {b".json"}}
        for name in sorted(group.id):
            member = h5py.h5o.open(group.id, name)
            suffixes = {"raw": b"", "npy": b".npy", "meta": b".json"}
            if isinstance(member, h5py.h5g.GroupID):
                suffixes = dict.fromkeys(suffixes, b"")
            names = {view: shown(below[view], name, suffix) for view, suffix in suffixes.items()}
            paths = {view: below[view] + b"/" + names[view] for view in names}
            if isinstance(member, h5py.h5g.GroupID):
                self.group(h5py.Group(member), paths)
            elif not self.dataset(h5py.Dataset(member), paths):
                del names["npy"]
            for view in names:
                expected[view].add(names[view])
        for view, names in expected.items():
            self.check(set(os.listdir(below[view])) == names, below[view], f"names {sorted(os.listdir(below[view]))[:9]}")
        return about

    def dataset(self, dataset: h5py.Dataset, paths: dict[str, bytes]) -> bool:
        """A dataset in each view; whether it has to have a .npy file."""
        self.described(dataset, paths)
        self.stat(paths, "meta")
        is_text = h5py.check_string_dtype(dataset.dtype) and h5py.check_string_dtype(dataset.dtype).length is None
        if dataset.shape is None or holds_objects(dataset.dtype) and not is_text:
            self.check(not os.path.lexists(paths["npy"]), paths["npy"], "is there")
            return False
        self.stat(paths, "npy")
        try:
            if is_text:
                expected = dataset.asstr(errors="surrogateescape")[()]
                longest = max([1, *map(len, expected.flat)])
                expected = expected.astype(f"<U{longest}")
            elif dataset.nbytes > WHOLE_MAX_BYTES:
                expected = None
            else:
                expected = self.stored(dataset, paths["npy"])
        except OSError:
            # Of a filter that nobody has.
            try:
                np.load(os.fsdecode(paths["npy"]))
                self.check(False, paths["npy"], "can be read")
            except OSError as error:
                self.check(error.errno == errno.EOPNOTSUPP, paths["npy"], str(error))
            return True
        self.array(dataset, paths["npy"], expected)
        return True

    def stored(self, dataset: h5py.Dataset, path: bytes) -> np.ndarray:
        """The elements as they are stored, which is what h5py gives where all of their bits count."""
        base, axes = dataset.dtype.subdtype or (dataset.dtype, ())
        stored = np.frombuffer(read_bytes(dataset.id), plain_dtype(base)).reshape(dataset.shape + axes)
        kind = dataset.id.get_type()
        if isinstance(kind, h5py.h5t.TypeIntegerID) and kind.get_precision() < 8 * kind.get_size() or kind.get_class() == h5py.h5t.OPAQUE:
            return stored
        converted = np.asarray(dataset[()])
        self.check(same(converted.astype(stored.dtype, copy=False), stored), path, "the test itself: h5py reads other elements")
        return stored

    def array(self, dataset: h5py.Dataset, path: bytes, expected: np.ndarray | None):
        self.arrays += 1
        name = os.fsdecode(path)
        with open(name, "rb") as file:
            self.check(np.lib.format.read_magic(file) == (1, 0), path, "its version")
        mapped = np.load(name, mmap_mode="r", max_header_size=1 << 20)
        if expected is None:
            self.check((mapped.dtype, mapped.shape) == (dataset.dtype, dataset.shape), path, f"{mapped.dtype} {mapped.shape}")
            for part in (slice(0, 1000), slice(-1000, None)):
                self.check(same(np.asarray(mapped[part]), dataset[part]), path, f"its part {part}")
            return
        as_saved = io.BytesIO()
        np.save(as_saved, expected)
        found = Path(name).read_bytes()
        self.check(len(found) == os.stat(path).st_size, path, "its size")
        header_bytes = len(as_saved.getvalue()) - expected.nbytes
        self.check(found[:header_bytes] == as_saved.getvalue()[:header_bytes], path, f"its header {found[:header_bytes]!r}")
        private = np.load(name, mmap_mode="c")
        for way, array in {"read": np.load(name), "mapped": mapped, "private": private}.items():
            self.check(array.dtype == expected.dtype, path, f"{way}: {array.dtype}, not {expected.dtype}")
            self.check(same(np.asarray(array), expected), path, f"{way}: other elements")
        # What is written to a private mapping stays there.
        if private.size and private.ndim:
            private.reshape(-1).view("u1")[0] ^= 255
            self.check(same(np.load(name), expected), path, "it was written to")

    def stat(self, paths: dict[str, bytes], view: str):
        """A file of a view has the times, links and owner of the raw one, and another inode."""
        raw, other = os.stat(paths["raw"]), os.stat(paths[view])
        for field in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_mtime_ns", "st_ctime_ns"):
            self.check(getattr(raw, field) == getattr(other, field), paths[view], field)
        self.check(raw.st_ino != other.st_ino, paths[view], "the inode is that of the raw file")

    def described(self, dataset: h5py.Dataset, paths: dict[str, bytes]):
        found = self.json(paths["meta"])
        where = paths["meta"]
        keys = ["kind", "dtype", "type", "shape", "chunks", "fillvalue", "filters", "attributes"]
        self.check(list(found) == keys, where, f"keys {list(found)}")
        self.check(found["kind"] == "dataset", where, f"is a {found['kind']}")
        shape = None if dataset.shape is None else list(dataset.shape)
        self.check(found["shape"] == shape, where, f"shape {found['shape']}")
        self.attributes(where, found["attributes"], self.describer.attributes(dataset, BOOKKEEPING))
        # The same words as in the extended attributes, which are judged by themselves.
        for name in ("chunks", "filters", "dtype", "fillvalue"):
            text = os.getxattr(paths["raw"], f"user.h5.{name}")
            have = found[name]
            if isinstance(have, str):
                right = text in (have.encode("utf-8", "surrogateescape"), json.dumps(have).encode())
                self.check(right, where, f"{name} is {have!r}, not {text!r}")
            else:
                self.check(json.dumps(have) == json.dumps(json.loads(text)), where, f"{name} is {have!r}, not {text!r}")
        size = dataset.id.get_type().get_size()
        # In memory, pointers are shorter than in the file.
        if not holds_objects(dataset.dtype):
            self.check(found["type"]["size"] == size, where, f"size {found['type']}")
            self.check(from_descr(found["dtype"]).itemsize == size, where, f"dtype {found['dtype']}")
        members = h5py.check_enum_dtype(dataset.dtype)
        if members:
            self.check(found["type"]["members"] == members, where, f"members {found['type']}")

    def version(self, name: bytes, group: h5py.Group):
        below = {}
        for view, top in {"raw": b"", "npy": b"/npy", "meta": b"/meta"}.items():
            directory = self.mount + top + b"/versions"
            below[view] = directory + b"/" + shown(directory, name, b"")
        about = self.group(group, below, VERSION_BOOKKEEPING, "version")
        self.check(about["name"].encode("utf-8", "surrogateescape") == name, name, f"name {about['name']}")
        times = {os.stat(path).st_mtime_ns for path in (*below.values(), below["meta"] + b"/.json")}
        self.check(len(times) == 1, name, f"times {times}")


def main() -> int:
    mount = os.fsencode(sys.argv[1])
    with h5py.File(sys.argv[2]) as file:
        comparison = Comparison(mount, file)
        versions = file["_version_data/versions"]
        for name in sorted(versions.id):
            group = h5py.Group(h5py.h5g.open(versions.id, name))
            if name != b"__first_version__" and group.attrs.get("committed", False):
                comparison.version(name, group)
    for view in (b"npy", b"meta"):
        same_link = os.path.lexists(mount + b"/current") == os.path.lexists(mount + b"/" + view + b"/current")
        comparison.check(same_link, view, "current")
        if os.path.lexists(mount + b"/current"):
            target = os.readlink(mount + b"/" + view + b"/current")
            comparison.check(target == os.readlink(mount + b"/current"), view, "where current leads")
        listed = set(os.listdir(mount + b"/" + view + b"/versions"))
        comparison.check(listed == set(os.listdir(mount + b"/versions")), view, "versions")
    for difference in comparison.differences[:40]:
        print(difference)
    print(f"{comparison.arrays} arrays, {comparison.texts} texts")
    return 1 if comparison.differences else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # versioned-hdf5 complains about its own objects while the interpreter shuts down.
    os._exit(code)
