"""Compares two files that ought to hold the same versions: what their raw data, hash tables, virtual datasets and attributes are.

    judge.py PYTHON_FILE OUR_FILE

The second is then rebuilt, continued and pruned by versioned-hdf5, and must go on reading the same.
"""

import logging
import shutil
import sys

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File, delete_versions

logging.disable(logging.CRITICAL)


def same(what, a, b):
    equal = np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
    if isinstance(a, np.ndarray) and not equal and a.dtype == b.dtype and a.dtype.kind in "fcV":
        equal = a.shape == b.shape and a.tobytes() == b.tobytes()
    assert equal, f"{what}: {a!r} here, {b!r} there"


def attributes(what, a, b):
    same(f"{what}: attributes", sorted(a.attrs), sorted(b.attrs))
    for name in a.attrs:
        ours, theirs = (h5py.h5a.open(x.id, name.encode()) for x in (a, b))
        assert ours.get_type().equal(theirs.get_type()), f"{what}: type of {name}"
        same(f"{what}: extent of {name}", ours.get_space().get_simple_extent_type(), theirs.get_space().get_simple_extent_type())
        if not (name == "timestamp"):
            same(f"{what}: {name}", a.attrs[name], b.attrs[name])


def mappings(dataset):
    if not dataset.is_virtual:
        return None
    return [
        (s.file_name, s.dset_name, s.vspace.get_regular_hyperslab(), s.src_space.get_regular_hyperslab())
        for s in dataset.virtual_sources()
    ]


def created(dataset):
    p = dataset.id.get_create_plist()
    filters = [p.get_filter(i) for i in range(p.get_nfilters())]
    chunk = p.get_chunk() if p.get_layout() == h5py.h5d.CHUNKED else None
    return (p.get_layout(), chunk, filters, p.fill_value_defined(), p.get_fill_time(), p.get_alloc_time(), dataset.maxshape)


def objects(group):
    found = {}
    group.visititems(lambda name, item: found.__setitem__(name, item) and None)
    return found


def visit(group, prefix=""):
    """Like visititems, but an object under two names comes twice."""
    found = {}
    for name, item in group.items():
        found[prefix + name] = item
        if isinstance(item, h5py.Group):
            found.update(visit(item, prefix + name + "/"))
    return found


def compare(a, b):
    left, right = visit(a["_version_data"]), visit(b["_version_data"])
    same("objects", sorted(left), sorted(right))
    attributes("versions", a["_version_data/versions"], b["_version_data/versions"])
    for path, ours in left.items():
        theirs = right[path]
        same(f"{path}: kind", type(ours), type(theirs))
        attributes(path, ours, theirs)
        if isinstance(ours, h5py.Dataset):
            assert ours.id.get_type().equal(theirs.id.get_type()), f"{path}: type"
            same(f"{path}: shape", ours.shape, theirs.shape)
            same(f"{path}: made", created(ours), created(theirs))
            same(f"{path}: mappings", mappings(ours), mappings(theirs))
            same(f"{path}: values", ours[()], theirs[()])
            if path.endswith("/raw_data"):
                same(f"{path}: chunks", ours.id.get_num_chunks(), theirs.id.get_num_chunks())


def contents(path):
    found = {}
    with h5py.File(path, "r") as file:
        for version, group in file["_version_data/versions"].items():
            for name, item in visit(group).items():
                if isinstance(item, h5py.Dataset):
                    found[version, name] = item[()]
    return found


def tables(path):
    found = {}
    with h5py.File(path, "r") as file:
        for name, item in visit(file["_version_data"]).items():
            if name.endswith("/hash_table"):
                rows = item[: item.attrs["largest_index"]]
                found[name] = {row["hash"].tobytes(): tuple(row["shape"]) for row in rows}
    return found


def check(path):
    """The library goes on from the file."""
    before, known = contents(path), tables(path)
    copy = path + ".copy"
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        VersionedHDF5File(file).rebuild_hashtables()
    rebuilt = tables(copy)
    for name, rows in rebuilt.items():
        for digest, shape in rows.items():
            same(f"{name}: rebuilt", known[name].get(digest), shape)
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        versions = VersionedHDF5File(file)
        with versions.stage_version("judge") as group:
            for name, item in visit(group).items():
                if isinstance(item, h5py.Group) or not hasattr(item, "resize"):
                    continue
                if item.shape[0] and item.dtype.kind in "iuf":
                    item[0] = 7
        names = [v for v in versions.versions if v not in ("judge", "__first_version__")]
        delete_versions(file, names[:1])
    after = contents(copy)
    for (version, name), value in after.items():
        if version != "judge" and (version, name) in before:
            same(f"{version}/{name} after deleting", before[version, name], value)


if __name__ == "__main__":
    with h5py.File(sys.argv[1], "r") as a, h5py.File(sys.argv[2], "r") as b:
        compare(a, b)
    check(sys.argv[2])
