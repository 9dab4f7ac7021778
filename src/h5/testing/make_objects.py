"""Makes small HDF5 files of every form in which objects can be written, and says what h5py finds in them.

    python make_objects.py FOLDER

Each file FOLDER/NAME.h5 comes with FOLDER/NAME.json: an object for each address, with its links, attributes and
header as the HDF5 library reports them. Bytes are in hexadecimal.
"""

import json
import pathlib
import sys

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5i, h5l, h5o, h5p, h5r, h5s, h5t


def data_types():
    """Name and low-level type of everything that HDF5 has."""
    for kind in ["i1", "u1", "<i2", ">i2", "<u4", ">u4", "<i8", ">u8", "<f2", ">f4", "<f8", ">f8", "<f16"]:
        yield kind, h5t.py_create(np.dtype(kind))
    yield "unusual integer", unusual_integer()
    yield "vax", h5t.VAX_F32 if hasattr(h5t, "VAX_F32") else h5t.IEEE_F32BE.copy()
    yield "bfloat", bfloat()
    yield "time", h5t.UNIX_D32LE
    yield "bits", h5t.STD_B16BE
    for length, padding, charset in [(1, 0, 0), (7, 1, 1), (300, 2, 0)]:
        text = h5t.C_S1.copy()
        text.set_size(length)
        text.set_strpad(padding)
        text.set_cset(charset)
        yield f"text {length}", text
    yield "bool", h5t.py_create(np.dtype("bool"), logical=True)
    yield "enum", colours()
    yield "opaque", h5t.py_create(h5py.opaque_dtype(np.dtype("M8[ns]")), logical=True)
    yield "plain opaque", h5t.py_create(np.dtype("V5"))
    yield "array", h5t.array_create(h5t.STD_I16BE, (3, 2))
    yield "vlen text", h5t.py_create(h5py.string_dtype(), logical=True)
    yield "vlen ascii", h5t.py_create(h5py.string_dtype("ascii"), logical=True)
    yield "ragged", h5t.vlen_create(h5t.IEEE_F32LE)
    yield "ragged ragged", h5t.vlen_create(h5t.vlen_create(h5t.STD_U8LE))
    yield "reference", h5t.STD_REF_OBJ
    yield "region", h5t.STD_REF_DSETREG
    yield "compound", compound()
    yield "packed", h5t.py_create(np.dtype([("a", "i1"), ("bb", "<f8"), ("a name of some length", ">i4", (2, 3))]))
    yield "wide", h5t.py_create(np.dtype([(f"field {i}", "<i4") for i in range(300)]))


def unusual_integer():
    kind = h5t.STD_I32BE.copy()
    kind.set_precision(17)
    kind.set_offset(3)
    return kind


def bfloat():
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def colours():
    kind = h5t.enum_create(h5t.STD_I16BE)
    for name, value in [(b"RED", 1), (b"GREEN", -2), (b"eight888", 300), ("bleu foncé".encode(), 0)]:
        kind.enum_insert(name, value)
    return kind


def compound():
    inner = h5t.create(h5t.COMPOUND, 16)
    inner.insert(b"x", 0, h5t.IEEE_F64BE)
    inner.insert(b"y", 9, h5t.STD_U16LE)
    outer = h5t.create(h5t.COMPOUND, 400)
    outer.insert(b"in", 8, inner)
    outer.insert("größe".encode(), 40, h5t.array_create(inner, (4,)))
    outer.insert(b"text", 200, h5t.py_create(h5py.string_dtype(), logical=True))
    outer.insert(b"colour", 350, colours())
    return outer


def complex_types():
    yield "complex", h5t.COMPLEX_IEEE_F32BE
    yield "complex array", h5t.array_create(h5t.COMPLEX_IEEE_F64LE, (2,))


def fill(file, low, track_order):

    small = name_of(file).startswith("small")
    for count, name in [(0, "none"), (1, "one"), (8, "eight"), (9, "nine"), (10 if small else 300, "many")]:
        group = file.create_group(name, track_order=track_order)
        for i in range(count):
            group.create_group(f"link {i * 7919 % 1000:04} é")
            group.attrs[f"attribute {i * 7919 % 1000:04} ü"] = np.arange(i % 5 + 1, dtype=">i4")
    group = file.create_group("links", track_order=track_order)
    group["soft"] = h5py.SoftLink("/many/link 0000 é")
    group["relative"] = h5py.SoftLink("soft")
    group["loop"] = h5py.SoftLink("loop")
    group["dangling"] = h5py.SoftLink("nowhere/at/all")
    group["outside"] = h5py.ExternalLink("other file.h5", "/some/where")
    group["hard"] = file["nine"]
    group["x" * 300] = h5py.SoftLink("y" * 5000)
    group.id.links.create_soft(b"\xff not utf-8 \xfe", b"\xfd")
    if name_of(file) in ["earliest", "v114"]:
        deep = file.create_group("deep")
        for i in range(5000):
            deep[f"{i * 7919 % 5000:04} of many"] = h5py.SoftLink(f"{i}" * 40)
    if not small and (track_order or low != "earliest"):
        large = file.create_group("large", track_order=track_order)
        for i in range(20):
            large.attrs[f"array {i}"] = np.arange(3000 * i, dtype="<f4") + i
        large.attrs["tiny"] = 1
    types = file.create_group("types", track_order=track_order)
    kinds = list(data_types()) + (list(complex_types()) if low == "latest" else [])
    for number, (name, kind) in enumerate(kinds):
        spaces = [h5s.create(h5s.SCALAR), h5s.create(h5s.NULL), h5s.create_simple((2, 3))]
        for space in spaces[number % 3 :][:1] if small else spaces:
            label = f"{name} {space.get_simple_extent_dims()} {space.get_simple_extent_type()}".encode()
            attribute = h5a.create(types.id, label, kind, space)
            if not has_pointers(kind) and space.get_simple_extent_npoints():
                bytes_ = np.arange(kind.get_size() * space.get_simple_extent_npoints()) * 7 + number
                attribute.write(bytes_.astype("u1"), mtype=kind)
        h5d.create(types.id, name.encode(), kind, h5s.create_simple((5,), (h5s.UNLIMITED,)), chunked((3,)))
    named = file.create_group("named", track_order=track_order)
    named["type"] = np.dtype([("a", "<i4"), ("b", ">f8")])
    named.create_dataset("uses it", (4,), named["type"])
    named.attrs.create("uses it", np.zeros(3, named["type"].dtype), dtype=named["type"])
    named["type"].attrs["of a type"] = "text"
    datasets(file.create_group("datasets", track_order=track_order))


def name_of(file):
    return pathlib.Path(file.filename).stem


def chunked(shape):
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk(shape)
    return properties


def datasets(group):
    group.create_dataset("scalar", data=7, track_times=True)
    group.create_dataset("null", data=h5py.Empty("f4"))
    group.create_dataset("contiguous", data=np.arange(12, dtype="<i8").reshape(3, 4))
    group.create_dataset("unwritten", (3, 4), "i4")
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.COMPACT)
    compact = h5d.create(group.id, b"compact", h5t.STD_I32BE, h5s.create_simple((5,)), properties)
    compact.write(h5s.ALL, h5s.ALL, np.arange(5, dtype=">i4"))
    for name, options in {
        "chunks": {},
        "filters": {"compression": 9, "shuffle": True, "fletcher32": True},
        "lzf": {"compression": "lzf"},
        "scale": {"scaleoffset": 3},
        "one chunk": {"chunks": (4, 6), "maxshape": (4, 6)},
        "one filtered chunk": {"chunks": (4, 6), "maxshape": (4, 6), "compression": "gzip"},
        "fixed": {"maxshape": (40, 60)},
        "extensible": {"maxshape": (None, 6)},
        "tree": {"maxshape": (None, None)},
        "filtered tree": {"maxshape": (None, None), "compression": "gzip"},
        "filled": {"fillvalue": -3},
        "empty": {"shape": (0, 6), "maxshape": (None, 6)},
    }.items():
        options = {"shape": (4, 6), "dtype": ">i4", "chunks": (2, 3), **options}
        dataset = group.create_dataset(name, **options)
        dataset[...] = 1
    for name, value in [("undefined", None), ("zero", 0), ("big", 258)]:
        properties = chunked((2,))
        if value is None:
            properties.set_fill_value(np.array(0, "<u2"))
            properties.set_fill_time(h5d.FILL_TIME_NEVER)
        else:
            properties.set_fill_value(np.array(value, "<u2"))
        h5d.create(group.id, f"fill {name}".encode(), h5t.STD_U16BE, h5s.create_simple((6,)), properties)
    properties = chunked((2, 2))
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    h5d.create(group.id, b"implicit", h5t.STD_U16BE, h5s.create_simple((6, 6)), properties)
    properties = chunked((4,))
    properties.set_filter(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FLAG_OPTIONAL, (6,))
    properties.set_chunk_opts(h5d.CHUNK_DONT_FILTER_PARTIAL_CHUNKS) if hasattr(properties, "set_chunk_opts") else None
    h5d.create(group.id, b"edge", h5t.STD_U16BE, h5s.create_simple((6,), (h5s.UNLIMITED,)), properties)
    layout = h5py.VirtualLayout((4, 6), ">i4", maxshape=(None, 6))
    layout[:2] = h5py.VirtualSource(".", group.name + "/chunks", (4, 6))[:2]
    group.create_virtual_dataset("virtual", layout, fillvalue=5)
    group.create_virtual_dataset("virtual of nothing", h5py.VirtualLayout((4, 6), ">i4"))
    strings = group.create_dataset("strings", (6,), h5py.string_dtype(), chunks=(4,), maxshape=(None,), fillvalue="nil")
    strings[0] = "something"
    group.create_dataset("long" * 20, (2,) * 32, "u1", chunks=(1,) * 32)


def has_pointers(kind):
    return kind.detect_class(h5t.REFERENCE) or has_variable_length(kind)


def has_variable_length(kind):
    return kind.detect_class(h5t.VLEN) or (
        isinstance(kind, h5t.TypeStringID) and kind.is_variable_str()
    ) or (isinstance(kind, h5t.TypeCompoundID) and any(
        has_variable_length(kind.get_member_type(i)) for i in range(kind.get_nmembers())
    ))


NORMALIZATION = {h5t.NORM_NONE: 0, h5t.NORM_MSBSET: 1, h5t.NORM_IMPLIED: 2}


def describe(kind):
    """Types with pointers in them are reported as they are in memory, so their sizes and offsets are left out."""
    size = None if has_variable_length(kind) else kind.get_size()
    match kind.get_class():
        case h5t.INTEGER:
            return ["integer", size, kind.get_order(), bool(kind.get_sign()), kind.get_offset(), kind.get_precision()]
        case h5t.FLOAT:
            sign, exponent, exponent_size, mantissa, mantissa_size = kind.get_fields()
            return [
                "float", size, kind.get_order(), kind.get_offset(), kind.get_precision(), sign, exponent, exponent_size,
                mantissa, mantissa_size, kind.get_ebias(), NORMALIZATION[kind.get_norm()],
            ]
        case h5t.TIME:
            return ["time", size]
        case h5t.STRING if kind.is_variable_str():
            return ["variable text", kind.get_strpad(), kind.get_cset()]
        case h5t.STRING:
            return ["text", size, kind.get_strpad(), kind.get_cset()]
        case h5t.BITFIELD:
            return ["bits", size, kind.get_order()]
        case h5t.OPAQUE:
            return ["opaque", size, kind.get_tag().hex()]
        case h5t.COMPOUND:
            return ["compound", size, [
                [kind.get_member_name(i).hex(), size and kind.get_member_offset(i), describe(kind.get_member_type(i))]
                for i in range(kind.get_nmembers())
            ]]
        case h5t.REFERENCE:
            return ["reference", size]
        case h5t.ENUM:
            base = describe(kind.get_super())
            order = "big" if base[2] else "little"
            return ["enum", size, base, [
                [kind.get_member_name(i).hex(),
                 int(kind.get_member_value(i)).to_bytes(size, order, signed=base[3]).hex()]
                for i in range(kind.get_nmembers())
            ]]
        case h5t.VLEN:
            return ["variable", describe(kind.get_super())]
        case h5t.ARRAY:
            return ["array", size, list(kind.get_array_dims()), describe(kind.get_super())]
        case h5t.COMPLEX:
            return ["complex", size, describe(kind.get_super())]
    raise ValueError(kind)


def describe_space(space):
    match space.get_simple_extent_type():
        case h5s.SCALAR:
            return "scalar"
        case h5s.NULL:
            return "null"
    shape, most = space.get_simple_extent_dims(), space.get_simple_extent_dims(True)
    return [list(shape), [None if n == h5s.UNLIMITED else n for n in most]]


def describe_attribute(attribute):
    kind, space = attribute.get_type(), attribute.get_space()
    count = 0 if space.get_simple_extent_type() == h5s.NULL else space.get_simple_extent_npoints()
    data = None
    if not has_pointers(kind):
        data = np.zeros(count * kind.get_size(), "u1")
        if data.size:
            attribute.read(data, mtype=kind)
        data = data.tobytes().hex()
    return [attribute.name.hex(), describe(kind), describe_space(space), data]


def describe_dataset(dataset):
    kind, properties = dataset.get_type(), dataset.get_create_plist()
    fill = None
    if properties.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED and not has_pointers(kind):
        fill = np.zeros(kind.get_size(), "u1")
        h5py_fill = np.zeros((), dataset.dtype)
        properties.get_fill_value(h5py_fill)
        fill = h5py_fill.tobytes().hex()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    layout = properties.get_layout()
    return {
        "type": describe(kind),
        "space": describe_space(dataset.get_space()),
        "fill": fill,
        "filters": [[id, flags, list(values)] for id, flags, values, _ in filters],
        "layout": layout,
        "chunks": list(properties.get_chunk()) if layout == h5d.CHUNKED else None,
        "offset": dataset.get_offset() if layout == h5d.CONTIGUOUS else None,
        "compact": np.asarray(h5py.Dataset(dataset)[...]).tobytes().hex() if layout == h5d.COMPACT else None,
    }


def describe_link(group, name):
    info = group.links.get_info(name)
    match info.type:
        case h5l.TYPE_HARD:
            return [name.hex(), "hard", h5o.get_info(group, name).addr]
        case h5l.TYPE_SOFT:
            return [name.hex(), "soft", group.links.get_val(name).hex()]
        case h5l.TYPE_EXTERNAL:
            file, path = group.links.get_val(name)
            return [name.hex(), "external", file.hex(), path.hex()]
    raise ValueError(name)


def describe_object(found, objects):
    address = h5o.get_info(found).addr
    if str(address) in objects:
        return
    described = objects[str(address)] = {
        "attributes": sorted(
            describe_attribute(h5a.open(found, index=i)) for i in range(h5a.get_num_attrs(found))
        ),
    }
    if isinstance(found, h5g.GroupID):
        described["kind"] = "group"
        names = list(found)
        described["links"] = sorted(describe_link(found, name) for name in names)
        for name in names:
            if found.links.get_info(name).type == h5l.TYPE_HARD:
                describe_object(h5o.open(found, name), objects)
    elif isinstance(found, h5d.DatasetID):
        described["kind"] = "dataset"
        described["dataset"] = describe_dataset(found)
    else:
        described["kind"] = "type"


def main(folder):
    for name, low, track_order, user_block in [
        ("earliest", "earliest", False, 0),
        ("ordered", "earliest", True, 1024),
        ("v108", "v108", False, 0),
        ("v110", "v110", True, 512),
        ("v114", "v114", False, 0),
        ("latest", "latest", False, 4096),
        ("latest ordered", "latest", True, 0),
        ("small earliest", "earliest", False, 0),
        ("small ordered", "earliest", True, 0),
        ("small latest", "latest", False, 512),
    ]:
        path = folder / f"{name}.h5"
        with h5py.File(path, "w", libver=(low, "latest"), userblock_size=user_block) as file:
            fill(file, low, track_order)
        with h5py.File(path, "r") as file:
            objects = {}
            describe_object(h5o.open(file.id, b"/"), objects)
            root = h5o.get_info(file.id).addr
        (folder / f"{name}.json").write_text(json.dumps({"root": root, "objects": objects}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
