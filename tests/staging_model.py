#!/usr/bin/env python3
"""Drives random operations through a mount and holds what it shows, and what is committed, against a model in memory.

    staging_model.py VH5FS DIRECTORY SEED STEPS

DIRECTORY receives the file and has an empty `mnt`. After every commit the Python library opens the file: every version, old ones too, has
to have the values, types, shapes and attributes of the model. Prints the operations when something differs.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import mmap
import os
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).resolve().parent / "fixtures"))

import h5py  # noqa: E402
import hdf5plugin  # noqa: E402
import numpy as np  # noqa: E402
from versioned_hdf5 import VersionedHDF5File  # noqa: E402

import library  # noqa: E402
import mounted  # noqa: E402
from staging_tree import Array, Group, Kind, as_json, random_attribute, random_bytes, random_text  # noqa: E402
from vh5fix import truth  # noqa: E402

#: The types of the first version: type, shape, chunks, further properties.
FIRST = {
    "ints/i1": ("i1", (300,), (64,), {}),
    "ints/u2": (">u2", (900,), (200,), {"compression": "gzip"}),
    "ints/i4": ("<i4", (40, 25), (16, 10), {"compression": "gzip", "shuffle": True}),
    "ints/u8": ("<u8", (2000,), (4096,), {"fletcher32": True}),
    "floats/f2": ("<f2", (7, 9, 11), (3, 4, 5), {}),
    "floats/f4": (">f4", (50, 12), (8, 12), {"compression": "lzf"}),
    "floats/f8": ("<f8", (6000,), (1000,), {}),
    "floats/f16": ("<f16", (100,), (30,), {}),
    "other/bool": ("?", (500,), (128,), {}),
    "other/c16": ("<c16", (30, 8), (7, 8), {"compression": "gzip"}),
    "other/s5": ("S5", (64,), (20,), {}),
    "other/pair": ([("a", "i1"), ("b", ">f8"), ("c", "S3")], (90,), (25,), {"compression": "gzip"}),
    "other/filled": ("<i4", (100,), (32,), {"fillvalue": 7}),
    "other/zstd": ("<i8", (700,), (256,), {"compression": hdf5plugin.Zstd(3)}),
    "text/one": ("text", (80,), (16,), {}),
    "text/two": ("text", (12, 3), (5, 2), {"compression": "gzip"}),
}


class Wrong(AssertionError):
    """What the mount or the file shows is not what the model has."""


def check(right: bool, what: str):
    if not right:
        raise Wrong(what)


class Session:
    def __init__(self, mount: mounted.Mounted, seed: int):
        self.mount = mount
        self.file = mount.file
        self.rng = np.random.default_rng(seed)
        self.operations: list[str] = []
        self.number = 0
        #: What each path's raw data in the file is of; for ever.
        self.stored: dict[str, Kind] = {}
        #: The tree of each version, and what the library said of it when it was new.
        self.versions: dict[str, Group] = {}
        self.seen: dict[str, dict] = {}
        self.parents: dict[str, str] = {}
        self.current = "__first_version__"
        self.base = self.current
        self.tree = Group()

    # The file's first versions, by the library.

    def first_versions(self):
        with h5py.File(self.file, "w") as file:
            versions = VersionedHDF5File(file)
            with versions.stage_version("v0") as group:
                for path, (dtype, shape, chunks, options) in FIRST.items():
                    if dtype == "text":
                        data = np.array(random_text(self.rng, int(np.prod(shape))), dtype=object).reshape(shape)
                        made = group.create_dataset(path, data=data, dtype=h5py.string_dtype(), chunks=chunks, **options)
                    else:
                        kind = np.dtype(dtype)
                        data = np.frombuffer(random_bytes(self.rng, kind, int(np.prod(shape))), kind).reshape(shape)
                        made = group.create_dataset(path, data=data, dtype=kind, chunks=chunks, **options)
                    made.attrs["f_scale"] = np.float32(0.5)
                    made.attrs["i_count"] = np.int16(7)
                    made.attrs["kept"] = np.array([(1, b"x")], dtype=[("n", "<i4"), ("t", "S4")])
                group["ints"].attrs["s_note"] = "about the integers"
            with versions.stage_version("v1") as group:
                group["floats/f8"][::700] = -1
                group["ints/i4"].resize((45, 25))
            versions.close()
        self.current = self.base = "v1"

    def adopt(self):
        """Takes the file's versions into the model; what describes their types is taken from the mount, for new datasets of the same."""
        self.parents = library.parents(self.file)
        self.seen = library.states(self.file)
        for name, objects in self.seen.items():
            tree = Group.of_version(objects, self.stored, lambda path: self.described(name, path))
            self.versions[name] = tree
        self.start_over(self.base)

    def described(self, version: str, path: str) -> dict[str, bytes]:
        place = self.mount.versions / version / path
        return {name: os.getxattr(place, f"user.h5.{name}") for name in ("dtype", "chunks", "fillvalue", "filters")}

    def start_over(self, base: str):
        self.base = base
        self.tree = self.versions[base].copy() if base in self.versions else Group()
        # A version's own attributes are not carried over.
        self.tree.attributes = {}

    # What to operate on.

    def pick(self, items):
        items = list(items)
        return items[int(self.rng.integers(len(items)))] if items else None

    def array(self, text: bool | None = None) -> tuple[str, Array] | None:
        return self.pick((p, a) for p, a in self.tree.arrays() if text is None or a.kind.is_text == text)

    def group(self) -> str:
        return self.pick(["", *(p for p, _ in self.tree.groups())])

    def fresh(self, letter: str) -> str:
        """A path that nothing ever had, in some group."""
        self.number += 1
        group = self.group()
        return f"{group}/{letter}{self.number}" if group else f"{letter}{self.number}"

    def place(self, path: str) -> Path:
        return self.mount.staging / path if path else self.mount.staging

    def below(self, end: int) -> int:
        return int(self.rng.integers(end))

    def tell(self, *words):
        self.operations.append(" ".join(map(str, words)))

    # Operations on bytes.

    def write(self):
        """Writes some bytes, of whole elements or not, within or across the end."""
        path, array = self.array(text=False) or (None, None)
        if array is None or not array.kind.dtype.itemsize:
            return
        rows = max(1, array.rows())
        start = self.below(rows + 1) if rows < 2000 else self.below(rows)
        start, count = start * array.row_bytes(), 1 + self.below(min(300, rows) * array.row_bytes())
        if array.kind.whole_elements():
            item = array.kind.dtype.itemsize
            count = -(-count // item) * item
        skip = 0 if array.kind.whole_elements() else self.below(array.row_bytes())
        # The elements' own bytes, beginning within one of them.
        made = random_bytes(self.rng, array.kind.dtype, -(-(count + skip) // array.kind.dtype.itemsize) + 1)
        data = made[skip : skip + count]
        self.tell("write", path, start + skip, len(data))
        if self.below(5) == 0 and start + skip + len(data) <= len(array.data):
            self.write_mapped(path, start + skip, data)
        else:
            with open(self.place(path), "r+b", buffering=0) as file:
                check(os.pwrite(file.fileno(), data, start + skip) == len(data), "a short write")
        array.write(start + skip, data)
        self.round_up(path, array)

    def write_mapped(self, path: str, start: int, data: bytes):
        with open(self.place(path), "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as view:
            view[start : start + len(data)] = data
            view.flush()

    def round_up(self, path: str, array: Array):
        """Ends a file with a whole row, as a commit wants it, most of the time."""
        odd = len(array.data) % array.row_bytes()
        if odd and self.below(10):
            self.resize(path, array, len(array.data) + array.row_bytes() - odd)

    def resize(self, path: str, array: Array, size: int):
        self.tell("truncate", path, size)
        os.truncate(self.place(path), size)
        array.resize(size)

    def append(self):
        path, array = self.array(text=False) or (None, None)
        if array is None:
            return
        data = random_bytes(self.rng, array.kind.dtype, (1 + self.below(60)) * array.row_elements())
        self.tell("append", path, len(data))
        descriptor = os.open(self.place(path), os.O_WRONLY | os.O_APPEND)
        try:
            check(os.write(descriptor, data) == len(data), "a short append")
        finally:
            os.close(descriptor)
        array.write(len(array.data), data)
        self.round_up(path, array)

    def truncate(self):
        path, array = self.array(text=False) or (None, None)
        if array is not None:
            rows = self.below(array.rows() + 40)
            self.resize(path, array, rows * array.row_bytes())

    def punch(self):
        path, array = self.array(text=False) or (None, None)
        if array is None or not array.data:
            return
        start = self.below(len(array.data))
        count = 1 + self.below(9000)
        mode = self.pick([mounted.PUNCH_HOLE | mounted.KEEP_SIZE, mounted.ZERO_RANGE | mounted.KEEP_SIZE])
        self.tell("punch", path, start, count, mode)
        mounted.fallocate(self.place(path), mode, start, count)
        end = min(start + count, len(array.data))
        array.write(start, bytes(end - start))

    def edit_text(self):
        path, array = self.array(text=True) or (None, None)
        if array is None:
            return
        lines = array.lines()
        group = array.row_elements()
        match self.below(4):
            case 0:
                lines += random_text(self.rng, group * (1 + self.below(5)))
                added = as_json.escape(lines[array.elements() :])
                self.tell("append lines", path)
                with open(self.place(path), "ab", buffering=0) as file:
                    file.write(added)
            case 1 if lines:
                at = self.below(len(lines))
                old = as_json.escape(lines[at : at + 1])
                new = b"x" * (len(old) - 1) + b"\n"
                offset = len(as_json.escape(lines[:at]))
                lines[at] = "x" * (len(old) - 1)
                self.tell("write into line", path, at)
                with open(self.place(path), "r+b", buffering=0) as file:
                    os.pwrite(file.fileno(), new, offset)
            case 2:
                lines = lines[: self.below(array.rows() + 1) * group]
                self.tell("cut lines", path, len(lines))
                os.truncate(self.place(path), len(as_json.escape(lines)))
            case _:
                for _ in range(min(3, len(lines))):
                    lines[self.below(len(lines))] = random_text(self.rng, 1)[0]
                self.tell("write all lines", path)
                self.place(path).write_bytes(as_json.escape(lines))
        array.data = bytearray(as_json.escape(lines))

    def overwrite(self):
        """Opens with O_TRUNC and writes anew, as a shell's redirection does."""
        path, array = self.array(text=False) or (None, None)
        if array is not None:
            data = random_bytes(self.rng, array.kind.dtype, (1 + self.below(200)) * array.row_elements())
            self.tell("overwrite", path, len(data))
            self.place(path).write_bytes(data)
            array.data = bytearray(data)

    def reshape(self):
        """Sets the shape, which resizes the file."""
        path, array = self.array(text=False) or (None, None)
        if array is None or not array.tail:
            return
        tail = tuple(max(1, n + self.below(5) - 2) for n in array.tail)
        shape = (1 + self.below(30), *tail)
        self.tell("set the shape of", path, shape)
        os.setxattr(self.place(path), "user.h5.shape", json.dumps(shape).encode())
        array.tail = tail
        array.resize(shape[0] * array.row_bytes())

    # Operations on names.

    def create(self):
        """A new dataset, with its type told before or after the bytes, or not at all."""
        path = self.fresh("d")
        kind = self.pick([Kind.default(), *self.stored.values()])
        tail = tuple(1 + self.below(9) for _ in kind.chunks[1:])
        array = Array(kind, tail)
        count = self.below(120) * array.row_elements()
        data = as_json.escape(random_text(self.rng, count)) if kind.is_text else random_bytes(self.rng, kind.dtype, count)
        array.data = bytearray(data)
        settings = [] if kind.is_default else [(name, value) for name, value in kind.described.items()]
        if tail:
            shape = [count // array.row_elements(), *tail]
            settings.append(("shape", json.dumps(shape).encode()))
        self.rng.shuffle(settings)
        first = self.below(len(settings) + 1)
        self.tell("create", path, kind.name, len(data), "bytes,", first, "settings first:", [name for name, _ in settings])
        place = self.place(path)
        place.touch()
        for name, value in settings[:first]:
            os.setxattr(place, f"user.h5.{name}", bytes(value))
        with open(place, "r+b", buffering=0) as file:
            file.write(data)
        for name, value in settings[first:]:
            os.setxattr(place, f"user.h5.{name}", bytes(value))
        # Telling the shape resizes the file only where it is not new.
        self.tree.put(path, array)

    def create_again(self):
        """A new file where the file has raw data of a dataset that is gone: its type is that one's."""
        gone = [p for p, kind in self.stored.items() if self.tree.find(p) is None and len(kind.chunks) == 1]
        gone = [p for p in gone if isinstance(self.tree.find(p.rpartition("/")[0]), Group)]
        path = self.pick(gone)
        if path is None:
            return
        kind = self.stored[path]
        count = 1 + self.below(50)
        data = as_json.escape(random_text(self.rng, count)) if kind.is_text else random_bytes(self.rng, kind.dtype, count)
        self.tell("create again", path, kind.name)
        self.place(path).write_bytes(data)
        self.tree.put(path, Array(kind, (), bytearray(data)))

    def replace(self):
        """Writes a new file and renames it over a dataset, as editors do: type and attributes stay."""
        path, array = self.array() or (None, None)
        if array is None:
            return
        if array.kind.is_text:
            data = as_json.escape(random_text(self.rng, array.row_elements() * (1 + self.below(30))))
        else:
            data = random_bytes(self.rng, array.kind.dtype, array.row_elements() * (1 + self.below(100)))
        self.number += 1
        temporary = self.place(path).with_name(f"tmp{self.number}")
        self.tell("replace", path, len(data))
        temporary.write_bytes(data)
        os.rename(temporary, self.place(path))
        array.data = bytearray(data)

    def unlink(self):
        path, _ = self.array() or (None, None)
        if path is not None and self.below(3) == 0:
            self.tell("unlink", path)
            os.unlink(self.place(path))
            self.tree.take(path)

    def mkdir(self):
        path = self.fresh("g")
        self.tell("mkdir", path)
        os.mkdir(self.place(path))
        self.tree.put(path, Group())

    def rmdir(self):
        path = self.pick(p for p, group in self.tree.groups() if not group.children)
        if path is not None:
            self.tell("rmdir", path)
            os.rmdir(self.place(path))
            self.tree.take(path)
        full = self.pick(p for p, group in self.tree.groups() if group.children)
        if full is not None:
            self.fails(errno.ENOTEMPTY, os.rmdir, self.place(full))

    def rename(self):
        source = self.pick(p for p, _ in [*self.tree.arrays(), *self.tree.groups()])
        if source is None:
            return
        is_group = isinstance(self.tree.find(source), Group)
        target = self.fresh("g" if is_group else "d")
        if is_group and (target + "/").startswith(source + "/"):
            return
        self.tell("rename", source, target)
        os.rename(self.place(source), self.place(target))
        self.tree.put(target, self.tree.take(source))

    def exchange(self):
        """Swaps two datasets of one type."""
        first = self.array()
        if first is None:
            return
        alike = [(p, a) for p, a in self.tree.arrays() if a.kind is first[1].kind and p != first[0]]
        second = self.pick(alike)
        if second is None:
            return
        self.tell("exchange", first[0], second[0])
        mounted.rename(self.place(first[0]), self.place(second[0]), mounted.RENAME_EXCHANGE)
        self.tree.put(first[0], second[1])
        self.tree.put(second[0], first[1])

    # Attributes.

    def set_attribute(self):
        path = self.pick(["", *(p for p, _ in [*self.tree.arrays(), *self.tree.groups()])])
        item = self.tree.find(path)
        name, attribute = random_attribute(self.rng, item.attributes)
        self.tell("setxattr", path, name, attribute.text)
        os.setxattr(self.place(path), f"user.{name}", attribute.text)
        item.attributes[name] = attribute

    def remove_attribute(self):
        path, item = self.pick([("", self.tree), *self.tree.arrays(), *self.tree.groups()])
        name = self.pick(item.attributes)
        if name is not None:
            self.tell("removexattr", path, name)
            os.removexattr(self.place(path), f"user.{name}")
            del item.attributes[name]

    # The session as a whole.

    def fails(self, number: int, call, *arguments):
        try:
            call(*arguments)
        except OSError as error:
            check(error.errno == number, f"{arguments}: {errno.errorcode[error.errno]}, not {errno.errorcode[number]}")
        else:
            raise Wrong(f"{arguments}: succeeds, {errno.errorcode[number]} expected")

    def commit(self):
        odd = [(p, a) for p, a in self.tree.arrays() if len(a.data) % a.row_bytes()]
        if odd:
            self.tell("commit with odd sizes", [p for p, _ in odd])
            self.fails(errno.EINVAL, self.mount.commit, f"bad{len(self.operations)}")
            check(any(p in self.mount.status() for p, _ in odd), f"the status names no file of a bad size: {self.mount.status()}")
            self.check_staging()
            for path, array in odd:
                self.resize(path, array, len(array.data) // array.row_bytes() * array.row_bytes())
        name = f"v{len(self.versions)}"
        current = self.below(5) > 0
        self.tell("commit", name, "" if current else "not as the current one")
        if current:
            self.mount.commit(name)
        else:
            self.mount.commit(name, make_current=False)
        self.versions[name] = self.tree.copy()
        self.parents[name] = self.base
        if current:
            self.current = name
        for path, array in self.tree.arrays():
            self.stored.setdefault(path, array.kind)
        self.check_file(name)
        self.check_version(name, self.versions[name])
        old = self.pick(self.versions)
        self.check_version(old, self.versions[old])
        self.start_over(name)
        self.check_staging()
        if not current:
            self.tell("reset", self.current)
            self.mount.reset(self.current)
            self.start_over(self.current)

    def reset(self):
        if self.below(3):
            return
        name = self.pick(self.versions)
        self.tell("reset", name)
        self.mount.reset(name)
        self.start_over(name)

    def remount(self):
        self.tell("remount")
        self.mount.stop()
        self.mount.start()
        self.check_staging()

    def kill(self):
        self.tell("kill -9")
        self.mount.kill()
        self.mount.start()
        self.check_staging()

    # What is shown.

    def check_tree(self, directory: Path, path: str, group: Group):
        names = sorted(os.listdir(directory))
        check(names == sorted(group.children), f"{path}: {names}, not {sorted(group.children)}")
        for name, item in group.children.items():
            below = f"{path}/{name}" if path else name
            if isinstance(item, Group):
                self.check_tree(directory / name, below, item)
            else:
                found = (directory / name).read_bytes()
                check(found == item.data, f"{below}: {as_json.first_difference(found, item.data)}")
                check(os.stat(directory / name).st_size == len(item.data), f"{below}: wrong size")
                if not item.kind.is_text and len(item.data) % item.row_bytes() == 0:
                    shape = json.loads(os.getxattr(directory / name, "user.h5.shape"))
                    check(shape == [item.rows(), *item.tail], f"{below}: {shape}, not {[item.rows(), *item.tail]}")

    def check_attributes(self, path: str, item):
        place = self.place(path)
        found = {n.removeprefix("user.") for n in os.listxattr(place) if not n.startswith("user.h5.")}
        found -= {"timestamp", "prev_version"} if not path else set()
        check(found == set(item.attributes), f"{path}: attributes {sorted(found)}, not {sorted(item.attributes)}")
        for name, attribute in item.attributes.items():
            if attribute.text is not None:
                value = os.getxattr(place, f"user.{name}")
                check(value == attribute.text, f"{path}: {name} is {value}, not {attribute.text}")

    def check_staging(self):
        self.check_tree(self.mount.staging, "", self.tree)
        for path, item in [("", self.tree), *self.tree.arrays(), *self.tree.groups()]:
            self.check_attributes(path, item)

    def check_version(self, name: str, tree: Group):
        self.check_tree(self.mount.versions / name, "", tree)

    def check_file(self, new: str):
        """The library reads all versions: the new one as the model has it, the others as ever."""
        found = library.states(self.file)
        check(set(found) == set(self.versions), f"versions {sorted(found)}, not {sorted(self.versions)}")
        for name, state in self.seen.items():
            wrong = library.differences(state, found[name], name)
            check(not wrong, f"an old version changed: {wrong[:5]}")
        wrong = self.versions[new].differences(found[new])
        check(not wrong, f"{new} is wrong: {wrong[:5]}")
        parents = library.parents(self.file)
        wanted = {**self.parents, "": self.current}
        check(parents == wanted, f"parents {parents}, not {wanted}")
        wrong = library.misplaced_hashes(self.file)
        check(not wrong, f"hash tables: {wrong[:5]}")
        self.seen[new] = found[new]
        self.versions[new].settle(found[new])

    def judge(self, scratch: Path):
        """Everything that the mount shows, against the truth about the file."""
        manifest = scratch / "manifest.json"
        described = truth.describe(self.file, scratch / "raw")
        manifest.write_text(json.dumps({"files": {"model": {"path": str(self.file), **described}}}))
        judge = Path(__file__).with_name("fixtures") / "judge.py"
        done = subprocess.run([sys.executable, judge, self.mount.root, manifest, "model", "--file", self.file], capture_output=True, text=True)
        check(done.returncode == 0, f"the judge: {done.stdout[-3000:]}{done.stderr[-1000:]}")

    def step(self):
        common = [self.write] * 6 + [self.append] * 3 + [self.edit_text] * 3 + [self.create] * 2 + [self.set_attribute] * 3
        some = [self.truncate, self.punch, self.overwrite, self.replace, self.unlink, self.mkdir, self.rename, self.remove_attribute]
        few = [self.rmdir, self.exchange, self.create_again, self.reshape, self.commit, self.commit, self.reset, self.remount, self.kill]
        self.pick([*common, *some, *few])()


def run(program: Path, directory: Path, seed: int, steps: int):
    truth.RAW_MAX_BYTES = truth.WHOLE_MAX_BYTES
    file = directory / "model.h5"
    with mounted.Mounted(program, file, directory / "mnt") as mount:
        session = Session(mount, seed)
        try:
            session.first_versions()
            mount.start()
            session.adopt()
            session.check_staging()
            for number in range(steps):
                session.step()
                if number % 10 == 9:
                    session.check_staging()
            session.commit()
            session.remount()
            session.judge(directory)
            session.mount.stop()
            wrong = library.rebuilt_differences(file)
            # Rows of chunks that no version has any more cannot come back; here every version is still there.
            check(not wrong, f"rebuilding the hash tables changes them: {wrong[:5]}")
        except Exception:
            print(f"seed {seed}, {len(session.operations)} operations:", *session.operations, sep="\n  ")
            traceback.print_exc()
            return 1
    print(f"seed {seed}: {len(session.operations)} operations, {len(session.versions)} versions")
    return 0


if __name__ == "__main__":
    faulthandler.dump_traceback_later(600, exit=True)
    status = run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.flush()
    # versioned-hdf5 complains about its own objects while the interpreter shuts down.
    os._exit(status)
