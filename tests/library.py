"""What a versioned file holds as the Python library and h5py see it: each version's contents, and the bookkeeping below `_version_data`
that a commit has to leave as the library itself would.
"""

from __future__ import annotations

import subprocess

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

from vh5fix.xattrs import descr

#: Attributes of a virtual dataset that are the format's own.
BOOKKEEPING = {"raw_data", "chunks"}
VERSION_BOOKKEEPING = {"committed", "prev_version", "timestamp"}

#: Numbers of filters from here on are those of plugins.
FIRST_PLUGIN = 256


def plain_dtype(dtype: np.dtype) -> str:
    """A type for comparing: with byte order and fields, and what h5py says of strings and enumerations."""
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return f"string {text.length} {text.encoding}"
    return f"{descr(dtype)} {h5py.check_enum_dtype(dtype)}"


def plain_bytes(array: np.ndarray) -> bytes:
    """The elements of an array for comparing; each string with its length before it."""
    if array.dtype == object:
        parts = [e.encode("utf-8", "surrogateescape") if isinstance(e, str) else bytes(e) for e in array.flat]
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return array.tobytes()


def attributes(obj, hidden=frozenset()) -> dict[str, tuple]:
    """Each attribute: its type, shape and value."""
    out = {}
    for name in obj.attrs:
        if name not in hidden:
            kind = obj.attrs.get_id(name)
            value = np.asarray(obj.attrs[name], dtype=object if kind.dtype == object else None)
            out[name] = (plain_dtype(kind.dtype), kind.shape, plain_bytes(value))
    return out


def walk(group: h5py.Group, prefix: str = ""):
    """Everything below a group, with its path; an object that is linked twice, twice."""
    for name in group:
        path = f"{prefix}{name}"
        yield path, group[name]
        if isinstance(group[name], h5py.Group):
            yield from walk(group[name], path + "/")


def dataset_state(dataset) -> tuple:
    """Type, shape, elements and attributes of a dataset of a version."""
    values = dataset[()]
    assert values.shape == dataset.shape, f"{dataset.name}: {values.shape} read of {dataset.shape}"
    return plain_dtype(dataset.dtype), dataset.shape, plain_bytes(values), attributes(dataset, BOOKKEEPING)


def states(path) -> dict[str, dict]:
    """Every version as the library opens it: its own attributes under the empty path, groups as their attributes, datasets as `dataset_state`."""
    out = {}
    with h5py.File(path, "r") as file:
        versions = VersionedHDF5File(file)
        for name in versions:
            group = versions[name]
            objects = {"": attributes(group, VERSION_BOOKKEEPING)}
            for place, item in walk(group):
                objects[place] = dataset_state(item) if isinstance(item, h5py.Dataset) else attributes(item)
            out[name] = objects
        versions.close()
    return out


def parents(path) -> dict[str, str]:
    """Each version's parent, and under the empty name the current version."""
    with h5py.File(path, "r") as file:
        versions = file["_version_data/versions"]
        out = {name: versions[name].attrs["prev_version"] for name in versions if name != "__first_version__"}
        out[""] = versions.attrs["current_version"]
    return out


def data_groups(file: h5py.File) -> list[str]:
    """Paths below `_version_data` of the groups with raw_data."""
    root = file["_version_data"]
    out = []
    for name in root:
        if name != "versions":
            inner = [(name, root[name]), *walk(root[name], name + "/")] if isinstance(root[name], h5py.Group) else []
            out += [path for path, item in inner if isinstance(item, h5py.Group) and "raw_data" in item]
    return sorted(out)


def hash_rows(group: h5py.Group) -> list[tuple[bytes, int, int]]:
    """The rows of a hash table that count, in their order."""
    table = group["hash_table"]
    rows = table[: int(table.attrs["largest_index"])]
    return [(bytes(row["hash"]), int(row["shape"][0]), int(row["shape"][1])) for row in rows]


def creation(dataset: h5py.Dataset) -> dict:
    """How a dataset was created: all that can be told of it but its address."""
    properties = dataset.id.get_create_plist()
    out = {
        "dtype": plain_dtype(dataset.dtype),
        "type": dataset.id.get_type().encode().hex(),
        "maxshape": dataset.maxshape,
        "layout": properties.get_layout(),
        "filters": [properties.get_filter(n) for n in range(properties.get_nfilters())],
        "fill_time": properties.get_fill_time(),
        "fill_defined": properties.fill_value_defined(),
        "fillvalue": None if dataset.fillvalue is None else plain_bytes(np.asarray(dataset.fillvalue, dtype=dataset.dtype)),
    }
    if out["layout"] == h5py.h5d.CHUNKED:
        out["chunks"] = dataset.chunks
    return out


def sources(dataset: h5py.Dataset) -> list[tuple]:
    """The mappings of a virtual dataset, in the order of the file: virtual box, source file, source dataset, source box."""
    def box(space):
        low, high = space.get_select_bounds()
        return tuple(map(int, low)), tuple(int(n) + 1 for n in high)

    return [(box(s.vspace), s.file_name, s.dset_name, box(s.src_space)) for s in dataset.virtual_sources()]


def internals(path) -> dict:
    """All bookkeeping of a file, for comparing it with that of another one. Timestamps are left out; what lies in raw_data outside an
    edge chunk's extent is undefined and left out."""
    out = {"groups": {}, "versions": {}}
    with h5py.File(path, "r") as file:
        for place in data_groups(file):
            group = file["_version_data"][place]
            raw, rows = group["raw_data"], hash_rows(group)
            # Which part of a chunk counts along the other axes is known from the mappings, so its first row is compared only.
            stored = [plain_bytes(raw[(slice(start, stop), *[slice(0, 1)] * (raw.ndim - 1))]) for _, start, stop in rows]
            out["groups"][place] = {
                "rows": rows,
                "stored": stored,
                "raw_shape": raw.shape,
                "raw": creation(raw),
                "raw_attributes": attributes(raw),
                "table_shape": group["hash_table"].shape,
                "table": creation(group["hash_table"]),
                "table_attributes": attributes(group["hash_table"]),
                "group_attributes": attributes(group),
            }
        versions = file["_version_data/versions"]
        out["attributes"] = attributes(versions)
        for name in versions:
            group = versions[name]
            objects = {"": attributes(group, {"timestamp"})}
            for place, item in walk(group):
                if isinstance(item, h5py.Dataset):
                    virtual = item.is_virtual
                    objects[place] = {
                        "virtual": virtual,
                        "shape": item.shape,
                        "creation": creation(item),
                        "sources": sources(item) if virtual else None,
                        "attributes": attributes(item),
                    }
                else:
                    objects[place] = attributes(item)
            timestamp = group.attrs.get_id("timestamp")
            objects["timestamp"] = (plain_dtype(timestamp.dtype), timestamp.shape)
            out["versions"][name] = objects
    return out


def differences(first, second, where: str = "") -> list[str]:
    """Where two values of nested dicts and lists differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        out = []
        for key in sorted({*first, *second}, key=str):
            if key not in first or key not in second:
                out.append(f"{where}/{key}: only in the {'second' if key not in first else 'first'}")
            else:
                out += differences(first[key], second[key], f"{where}/{key}")
        return out
    if first == second:
        return []
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)) and len(first) == len(second) and len(first) > 4:
        at = next(n for n, (a, b) in enumerate(zip(first, second)) if a != b)
        return [f"{where}[{at}]: {_short(first[at])} against {_short(second[at])}"]
    return [f"{where}: {_short(first)} against {_short(second)}"]


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:200] + "..." + text[-80:]


def rebuilt_differences(path) -> list[str]:
    """How the hash tables change when the library rebuilds them: rows as a set, since a rebuilt table has them in another order."""
    def rows(file):
        return {place: sorted(hash_rows(file["_version_data"][place])) for place in data_groups(file)}

    with h5py.File(path, "r") as file:
        before = rows(file)
    with h5py.File(path, "r+") as file:
        versions = VersionedHDF5File(file)
        versions.rebuild_hashtables()
        versions.close()
    with h5py.File(path, "r") as file:
        return differences(before, rows(file))


def misplaced_hashes(path) -> list[str]:
    """Chunks that a version maps and whose content has another hash than their row in the table, or no row; and rows that overlap."""
    from versioned_hdf5.hashtable import Hashtable

    out = []
    with h5py.File(path, "r") as file:
        tables = {}
        for place in data_groups(file):
            rows = hash_rows(file["_version_data"][place])
            tables[f"/_version_data/{place}/raw_data"] = {start: (digest, stop) for digest, start, stop in rows}
            if len({digest for digest, _, _ in rows}) != len(rows) or len({start for _, start, _ in rows}) != len(rows):
                out.append(f"{place}: the hash table has a row twice")
        hashes = {}
        for version in file["_version_data/versions"]:
            for place, item in walk(file["_version_data/versions"][version]):
                if not isinstance(item, h5py.Dataset) or not item.is_virtual:
                    continue
                table = Hashtable(file, place)
                for (low, high), _, name, (start, stop) in sources(item):
                    key = (name, start, stop)
                    if key not in hashes:
                        hashes[key] = table.hash(item[tuple(map(slice, low, high))])
                    if tables[name].get(start[0]) != (hashes[key], stop[0]):
                        out.append(f"{version}/{place}: the chunk at {low} is not what the table says of rows {start[0]} to {stop[0]}")
    return out


def all_paths(path) -> list[str]:
    """Every path of the file."""
    with h5py.File(path, "r") as file:
        return sorted(place for place, _ in walk(file))


def dump(path) -> None:
    """Runs h5dump over the whole file: all headers with their properties, and the data of everything but what needs a filter that is not part
    of HDF5, as hash tables do (lzf)."""
    with h5py.File(path, "r") as file:
        places = [place for place, item in walk(file) if isinstance(item, h5py.Dataset)]
        own = [place for place in places if all(number < FIRST_PLUGIN for number in _filters(file, place))]
    assert own or not places
    for options in (["-p", "-H"], [word for place in own for word in ("-d", "/" + place)]):
        done = subprocess.run(["h5dump", *options, str(path)], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, f"h5dump {options[:4]}: {done.returncode}, {done.stderr[:2000]}"
        assert "unable to" not in done.stdout, "h5dump cannot print something"


def _filters(file: h5py.File, place: str) -> set[int]:
    """Numbers of the filters that reading a dataset needs."""
    dataset = file[place]
    names = {name for _, _, name, _ in sources(dataset)} if dataset.is_virtual else {place}
    out = set()
    for name in names:
        properties = file[name].id.get_create_plist()
        out |= {properties.get_filter(n)[0] for n in range(properties.get_nfilters())}
    return out


def checked(path, before=None) -> dict[str, dict]:
    """What a file holds, where the versions of `before` are as they were, and the bookkeeping is right."""
    found = states(path)
    for name, state in (before or {}).items():
        assert name in found, f"{name} is gone"
        wrong = differences(state, found[name], name)
        assert not wrong, wrong
    wrong = misplaced_hashes(path)
    assert not wrong, wrong
    return found
