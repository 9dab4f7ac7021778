"""The files that are measured, made once and kept.

Arrays and files of many versions come from tests/fixtures/big.py, which says what their contents are like. A file is complete when it has its
name: it is made under another one. `scale` stretches what is long (the arrays' first axis, the number of versions).
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py

from contenders import Library, quiet

ROOT = Path(__file__).resolve().parents[2]
BIG = ROOT / "tests/fixtures/big.py"
sys.path.insert(0, str(BIG.parent))

from big import CASES  # noqa: E402

ITEM_BYTES = 8
#: Elements in a chunk of the files that are committed to.
CHUNK = 4096
#: Bytes of a dataset in a file of many versions.
SMALL_BYTES = 3 * 300 * ITEM_BYTES
BLOCK_BYTES = 1 << 20
#: What a file in the making has after its name.
PART = ".part"


def sync(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_whole(path: Path):
    """Reads a file from end to end, as `cat` does: 1 MiB at a time into a buffer that is there already."""
    buffer = bytearray(BLOCK_BYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


@dataclass(frozen=True)
class ArrayFile:
    """A versioned file with one dataset `x` in version `r1`, and the same bytes as a plain file."""

    title: str
    file: Path
    plain: Path
    #: Of the array, and of its chunks as they are stored.
    len_bytes: int
    stored_bytes: int

    @property
    def ratio(self) -> float:
        return self.len_bytes / self.stored_bytes


class Data:
    """Where the files are. Each comes with its own pages in the kernel's cache."""

    def __init__(self, directory: Path, library: Library, scale: float):
        self.directory = directory
        self.library = library
        self.scale = scale
        #: What was handed out, for the report.
        self.arrays: dict[str, ArrayFile] = {}
        for part in [*directory.glob(f"*{PART}"), *directory.glob(f"*/*{PART}")]:
            shutil.rmtree(part) if part.is_dir() else part.unlink()

    def made(self, name: str, make) -> Path:
        """The file of that name; `make` makes it where it is missing."""
        path = self.directory / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            print(f"making {path}", file=sys.stderr)
            unfinished = path.with_name(path.name + PART)
            make(unfinished)
            unfinished.rename(path)
            os.sync()
        return path

    def array(self, name: str, part: float = 1.0) -> ArrayFile:
        """An array of big.py, or the first `part` of it."""
        scale = self.scale * part
        key = f"{name}-{scale:g}"
        file = self.made(f"{key}.h5", lambda path: quiet(sys.executable, BIG, "array", path, name, "--scale", str(scale)))
        plain = self.made(f"plain/{key}.raw", lambda path: self.library.run("raw", file, "r1", path))
        if key not in self.arrays:
            with h5py.File(file) as opened:
                stored = opened["_version_data/x/raw_data"].id.get_storage_size()
            title = CASES[name].title if scale == 1 else f"{CASES[name].title}, scaled to {scale:g}"
            self.arrays[key] = ArrayFile(title, file, plain, plain.stat().st_size, stored)
        read_whole(file)
        read_whole(plain)
        return self.arrays[key]

    def chunks_of(self, name: str, part: float = 1.0) -> int:
        """How many chunks such an array has."""
        case = CASES[name]
        shape = case.scaled(self.scale * part)
        count = 1
        for length, chunk in zip(shape, case.chunks, strict=True):
            count *= -(-length // chunk)
        return count

    def to_commit(self, elements: int) -> Path:
        """A file with so many float64 in r1/x, in chunks of 4096."""
        file = self.made(f"commit-{elements}.h5", lambda path: self.library.run("make", path, elements, CHUNK))
        read_whole(file)
        return file

    def changed(self, name: str) -> tuple[Path, list[Path], int]:
        """An array of big.py with a version r2, in which 1 % of x in the middle is other: the file, the plain files of both, and
        how many bytes of the array changed."""
        base = self.array(name)
        elements = base.len_bytes // ITEM_BYTES
        count = max(1, elements // 100)

        def make(path: Path):
            shutil.copyfile(base.file, path)
            self.library.run("change", path, elements // 2, count)

        key = f"{name}-{self.scale:g}"
        file = self.made(f"{key}-changed.h5", make)
        second = self.made(f"plain/{key}-changed.raw", lambda path: self.library.run("raw", file, "r2", path))
        for path in (file, second):
            read_whole(path)
        return file, [base.plain, second], count * ITEM_BYTES

    def versions(self, versions: int, datasets: int) -> Path:
        """A file of many versions of many small datasets, one of which is new in each."""
        name = f"versions-{versions}x{datasets}.h5"
        arguments = ["--versions", str(versions), "--datasets", str(datasets)]
        file = self.made(name, lambda path: quiet(sys.executable, BIG, "versions", path, *arguments))
        read_whole(file)
        return file

    def tree(self, versions: int, datasets: int) -> Path:
        """The same tree of plain files of the same lengths: what did not change from a version to the next is a hard link."""
        names = [f"group_{number % 5}/dataset_{number:03}" for number in range(datasets)]

        def make(root: Path):
            before = None
            for number in range(versions):
                version = root / f"version-{number:05}"
                for index, name in enumerate(names):
                    path = version / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if before is None or index == number % datasets:
                        path.write_bytes(bytes(SMALL_BYTES))
                    else:
                        path.hardlink_to(before / name)
                before = version

        return self.made(f"tree-{versions}x{datasets}", make)
