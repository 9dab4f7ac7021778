"""The model that `staging_model.py` holds a mount against: groups and arrays in memory, random elements and attributes, and what the library
has to say of them once they are committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from library import plain_bytes, plain_dtype
from vh5fix.truth import escape_text
from vh5fix.xattrs import from_descr

ALPHABET = ["a", "b", " ", "\\", "\n", "é", "🐢", "\t"]
TEXT_DTYPE = "string None utf-8"


class as_json:
    """Texts of the contract."""

    escape = staticmethod(escape_text)

    @staticmethod
    def unescape(data: bytes) -> list[str]:
        """The inverse of `escape`."""
        lines = data.decode().split("\n")
        assert lines.pop() == "", "the last line does not end"
        return [line.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\") for line in lines]

    @staticmethod
    def first_difference(found: bytes, wanted: bytes) -> str:
        at = next((n for n, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))
        return f"{len(found)} bytes, not {len(wanted)}; from {at} on {bytes(found[at : at + 8]).hex()}, not {bytes(wanted[at : at + 8]).hex()}"


@dataclass(eq=False)
class Kind:
    """What a path's raw data is of, the same for ever: type (None: text), chunks, and all that `user.h5.*` say, as bytes."""

    name: str
    dtype: np.dtype | None
    chunks: tuple[int, ...]
    described: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        return self.dtype is None

    @property
    def is_default(self) -> bool:
        return not self.described

    def whole_elements(self) -> bool:
        """Whether only whole elements have a meaning: the padding of a long double, and the bytes of a bool, are not all free."""
        return self.dtype.kind == "b" or self.dtype.itemsize == 16 and self.dtype.kind == "f"

    @staticmethod
    def default() -> Kind:
        """That of a new file about which nothing is said."""
        return Kind("nothing said", np.dtype("u1"), (4096,))


@dataclass
class Attribute:
    """The text that was set and the value that it stands for, or what the library said of it."""

    text: bytes | None = None
    value: object = None
    state: tuple | None = None
    #: The type that it had before, which it has to keep.
    before: str | None = None

    def differs(self, found: tuple) -> bool:
        if self.text is None:
            return found != self.state
        dtype, shape, data = found
        if self.before is not None and dtype != self.before:
            return True
        if isinstance(self.value, str):
            return (dtype, shape, data) != (TEXT_DTYPE, (), plain_bytes(np.array([self.value], dtype=object)))
        kinds = {bool: "b", int: "iu", float: "f"}
        first = self.value[0] if isinstance(self.value, list) else self.value
        descr = np.dtype(dtype.split(" ")[0])
        wanted = np.asarray(self.value)
        values = np.frombuffer(data, descr)
        return descr.kind not in kinds[type(first)] or shape != wanted.shape or not np.array_equal(values.reshape(shape), wanted.astype(descr))


@dataclass
class Array:
    """A dataset: the bytes of its file, and the extents of all axes but the first."""

    kind: Kind
    tail: tuple[int, ...]
    data: bytearray = field(default_factory=bytearray)
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def copy(self) -> Array:
        return Array(self.kind, self.tail, bytearray(self.data), dict(self.attributes))

    def row_elements(self) -> int:
        return int(np.prod(self.tail, dtype=np.int64))

    def row_bytes(self) -> int:
        """Bytes of a row; of text any number will do."""
        return 1 if self.kind.is_text else self.row_elements() * self.kind.dtype.itemsize

    def lines(self) -> list[str]:
        return as_json.unescape(bytes(self.data))

    def elements(self) -> int:
        return len(self.lines()) if self.kind.is_text else len(self.data) // self.kind.dtype.itemsize

    def rows(self) -> int:
        return self.elements() // self.row_elements()

    def resize(self, size: int):
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))

    def write(self, start: int, data: bytes):
        self.resize(max(len(self.data), start + len(data)))
        self.data[start : start + len(data)] = data

    def state(self) -> tuple:
        """What `library.dataset_state` has to say, attributes apart."""
        shape = (self.rows(), *self.tail)
        if self.kind.is_text:
            return TEXT_DTYPE, shape, plain_bytes(np.array(self.lines(), dtype=object))
        return plain_dtype(self.kind.dtype), shape, bytes(self.data)


@dataclass
class Group:
    """A group, or the root of a version."""

    children: dict[str, Group | Array] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def copy(self) -> Group:
        return Group({name: item.copy() for name, item in self.children.items()}, dict(self.attributes))

    def find(self, path: str):
        """What is at a path, if anything."""
        item = self
        for name in path.split("/") if path else ():
            item = item.children.get(name) if isinstance(item, Group) else None
        return item

    def put(self, path: str, item: Group | Array):
        parent, _, name = path.rpartition("/")
        self.find(parent).children[name] = item

    def take(self, path: str) -> Group | Array:
        parent, _, name = path.rpartition("/")
        return self.find(parent).children.pop(name)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Group | Array]]:
        for name, item in list(self.children.items()):
            yield prefix + name, item
            if isinstance(item, Group):
                yield from item.walk(f"{prefix}{name}/")

    def arrays(self) -> list[tuple[str, Array]]:
        return [(path, item) for path, item in self.walk() if isinstance(item, Array)]

    def groups(self) -> list[tuple[str, Group]]:
        return [(path, item) for path, item in self.walk() if isinstance(item, Group)]

    @staticmethod
    def of_version(objects: dict, kinds: dict[str, Kind], describe: Callable[[str], dict[str, bytes]]) -> Group:
        """A version as the library said it is. `kinds` gains those of new paths."""
        root = Group(attributes=_settled(objects[""]))
        for path, state in sorted(objects.items()):
            if not path:
                continue
            if isinstance(state, dict):
                root.put(path, Group(attributes=_settled(state)))
                continue
            dtype, shape, data, attributes = state
            if path not in kinds:
                described = describe(path)
                chunks = tuple(json.loads(described["chunks"]))
                text = described["dtype"].decode()
                known = None if dtype == TEXT_DTYPE else np.dtype(from_descr(json.loads(text) if text.startswith("[") else text))
                kinds[path] = Kind(path, known, chunks, described)
            if kinds[path].is_text:
                data = escape_text(_strings(data))
            root.put(path, Array(kinds[path], shape[1:], bytearray(data), _settled(attributes)))
        return root

    def settle(self, objects: dict):
        """Takes over what the library says of the attributes, once that was found to be right."""
        for path, item in [("", self), *self.walk()]:
            state = objects[path]
            item.attributes = _settled(state if isinstance(item, Group) else state[3])

    def differences(self, objects: dict) -> list[str]:
        """Where the library sees something else."""
        wanted = {"": self, **dict(self.walk())}
        out = [f"{path}: there, but should not be" for path in sorted({*objects} - {*wanted})]
        for path, item in wanted.items():
            if path not in objects:
                out.append(f"{path}: not there")
                continue
            found = objects[path]
            if isinstance(item, Array) != isinstance(found, tuple):
                out.append(f"{path}: neither both groups nor both datasets")
                continue
            if isinstance(item, Array):
                for what, want, have in zip(("type", "shape", "elements"), item.state(), found):
                    if want != have:
                        shown = as_json.first_difference(have, want) if what == "elements" else f"{have}, not {want}"
                        out.append(f"{path}: {what}: {shown}")
            attributes = found[3] if isinstance(found, tuple) else found
            for name in sorted({*attributes, *item.attributes}):
                if name not in attributes or name not in item.attributes:
                    out.append(f"{path}: attribute {name} is {'missing' if name not in attributes else 'too many'}")
                elif item.attributes[name].differs(attributes[name]):
                    out.append(f"{path}: attribute {name} is {attributes[name]}, not {item.attributes[name]}")
        return out


def _settled(states: dict[str, tuple]) -> dict[str, Attribute]:
    return {name: Attribute(state=state) for name, state in states.items()}


def _strings(data: bytes) -> list[bytes]:
    """The inverse of `plain_bytes` for strings."""
    out, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        out.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return out


def random_bytes(rng, dtype: np.dtype, count: int) -> bytes:
    """Elements that compress a little, any of them valid."""
    if dtype.names:
        out = np.zeros(count, dtype)
        for name in dtype.names:
            out[name] = np.frombuffer(random_bytes(rng, dtype[name], count), dtype[name])
        return out.tobytes()
    if dtype.kind in "Sb" or rng.random() < 0.3:
        high = 2 if dtype.kind == "b" else 20
        return rng.integers(0, high, count).astype(dtype).tobytes()
    if dtype.kind in "fc":
        values = rng.standard_normal(count) + (1j * rng.standard_normal(count) if dtype.kind == "c" else 0)
        return values.astype(dtype).tobytes()
    return rng.bytes(count * dtype.itemsize)


def random_text(rng, count: int) -> list[str]:
    return ["".join(rng.choice(ALPHABET, rng.integers(0, 9))) for _ in range(count)]


def random_attribute(rng, existing: dict[str, Attribute]) -> tuple[str, Attribute]:
    """A name, whose first letter tells what kind of value it always has, and a value."""
    number = int(rng.integers(100))
    values = {
        "i": number,
        "f": number / 4 + 0.125,
        "s": f"text {number} é",
        "b": bool(number % 2),
        "a": [number, 2, 3],
    }
    letter = str(rng.choice(list(values)))
    name = {"f": "f_scale", "i": "i_count"}[letter] if letter in "fi" and rng.random() < 0.7 else f"{letter}_{number % 3}"
    value = values[letter]
    text = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    before = existing.get(name)
    kept = None
    if before is not None:
        kept = before.state[0] if before.state is not None else before.before
    return name, Attribute(text, value, None, kept)
