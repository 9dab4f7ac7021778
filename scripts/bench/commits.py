"""Cases that write: edits in `staging/` and their commits.

Each round edits fresh copies of a file. For vh5fs, a time goes from the first write into `staging/` until `.commit` has returned, with every fsync
that this makes, right after the mount; `commit` is the last call of it. For the library it goes from the file being open until the new version is
made, the file closed and synced.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contenders import PYTHON, VH5FS, timed
from data import BLOCK_BYTES, CHUNK, ITEM_BYTES
from measure import Bench, Samples
from reading import PARTS
from rows import Target

#: Which commits of one row of them are looked at; the last against the first is what must not grow.
MARKS = (10, 100, 1000)
#: Commits to each side of one that count with it, at most.
NEIGHBOURS = 25


@dataclass(frozen=True)
class Edit:
    """One edit, made by each contender its own way."""

    title: str
    base: Path
    #: Given `staging/`.
    ours: Callable[[Path], object]
    #: Command and arguments of library.py.
    theirs: tuple


def write_element(path: Path, at: int, value: float):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, np.array([value]).tobytes(), at * ITEM_BYTES)
    finally:
        os.close(descriptor)


def write_blocks(path: Path, size: int):
    """Writes a file from start to end in blocks that all differ, and makes it durable."""
    block = np.random.default_rng(1).integers(0, 2**63, BLOCK_BYTES // ITEM_BYTES, dtype=np.int64)
    with open(path, "wb", buffering=0) as file:
        for start in range(0, size, BLOCK_BYTES):
            block[::512] = start
            file.write(memoryview(block).cast("B")[: min(BLOCK_BYTES, size - start)])
        os.fsync(file.fileno())


def measure(bench: Bench, edit: Edit) -> Samples:
    """`total`, `commit`, `growth` and `memory` of an edit. Both contenders have to make the same of it."""
    found = Samples()
    for _ in bench.each_round():
        with bench.copy(edit.base) as file:
            before = file.stat().st_size
            with bench.vh5fs.mounted(file, writable=True) as mount:
                staged = timed(lambda: edit.ours(mount.staging))
                committed = timed(lambda: mount.commit("r2"))
                found.add("memory", vh5fs=mount.peak_kib())
            found.add("total", vh5fs=staged + committed)
            found.add("commit", vh5fs=committed)
            found.add("growth", vh5fs=file.stat().st_size - before)
            # A fast wrong commit is none.
            ours = bench.library.run("sum", file, "r2")["sums"]
        with bench.copy(edit.base) as file:
            before = file.stat().st_size
            python = bench.library.run(edit.theirs[0], file, *edit.theirs[1:])
            found.add("memory", python=python["peak_kib"])
            for what in ("total", "commit"):
                found.add(what, python=python["seconds"])
            found.add("growth", python=file.stat().st_size - before)
            theirs = bench.library.run("sum", file, "r2")["sums"]
        if ours != theirs:
            raise RuntimeError(f"{edit.title}: vh5fs and the library committed different data")
    return found


def rows(bench: Bench, edit: Edit, found: Samples, **total):
    """The lines of an edit; `total` is what is special about the first."""
    bench.row(edit.title, "edit and commit, durable", "s", found.of("total"), **total)
    bench.row(edit.title, "the commit alone (the library: with the edit)", "s", found.of("commit"))
    bench.row(edit.title, "growth of FILE", "bytes", found.of("growth"))
    bench.row(edit.title, "peak memory", "KiB", found.of("memory"), headline=total.get("headline", False))


def one_element(base: Path, elements: int, title: str) -> Edit:
    at = elements // 2
    return Edit(title, base, lambda staging: write_element(staging / "x", at, -1.0), ("change", at, 1))


def commit(bench: Bench):
    """One element of 12,000 chunks of 4096."""
    chunks = max(1, round(12_000 * bench.data.scale))
    edit = one_element(bench.data.to_commit(chunks * CHUNK), chunks * CHUNK, f"one element of {chunks:,} chunks of 4096")
    rows(bench, edit, measure(bench, edit), target=Target(20, PYTHON), headline=True)


def commit_chunks(bench: Bench):
    """One element, over the number of chunks."""
    for part in PARTS:
        chunks = bench.data.chunks_of("chunks-100k", part)
        array = bench.data.array("chunks-100k", part)
        edit = one_element(array.file, array.len_bytes // ITEM_BYTES, f"one element of {chunks:,} chunks of 256")
        found = measure(bench, edit)
        point = {"series": "commit-chunks", "at": chunks}
        if part == PARTS[-1]:
            rows(bench, edit, found, target=Target(50, PYTHON), headline=True, **point)
        else:
            rows(bench, edit, found, **point)


def bulk(bench: Bench):
    """Much data: appended, and as a new dataset."""
    elements = max(1, round(12_207 * bench.data.scale)) * CHUNK
    more = elements // 100

    def append(staging: Path):
        with open(staging / "x", "ab", buffering=0) as file:
            file.write(np.arange(more, dtype="<f8"))

    edit = Edit(f"1 % appended to {elements * ITEM_BYTES / 1e6:.0f} MB", bench.data.to_commit(elements), append, ("append", more))
    rows(bench, edit, measure(bench, edit), headline=True)

    data = np.random.default_rng(2).standard_normal(elements)

    def new(staging: Path):
        path = staging / "new"
        path.touch()
        os.setxattr(path, "user.h5.dtype", b"<f8")
        os.setxattr(path, "user.h5.chunks", f"[{CHUNK}]".encode())
        data.tofile(path)

    edit = Edit(f"a new dataset of {elements * ITEM_BYTES / 1e6:.0f} MB", bench.data.to_commit(CHUNK), new, ("new", elements))
    rows(bench, edit, measure(bench, edit), headline=True)


def stream(bench: Bench):
    """A plain sequential write, with its fsync, into `staging/` and beside the file."""
    size = max(1, round(1024 * bench.data.scale)) * BLOCK_BYTES
    found = Samples()
    for _ in bench.each_round():
        with bench.copy(bench.data.to_commit(CHUNK)) as file:
            beside = file.with_name("plain")
            found.add("write", plain=timed(lambda: write_blocks(beside, size)))
            beside.unlink()
            with bench.vh5fs.mounted(file, writable=True) as mount:
                found.add("write", vh5fs=timed(lambda: write_blocks(mount.staging / "new", size)))
                (mount.staging / ".reset").touch()
    bench.row(f"{size >> 20} MiB into `staging/`", "write in order and fsync", "GB/s", found.rates("write", size), headline=True)


def commit_versions(bench: Bench):
    """The same edit again and again, in one mount and in one open file: the library syncs after each commit too."""
    marks = [round(mark * bench.data.scale) for mark in MARKS if mark * bench.data.scale >= MARKS[0]] or [MARKS[0]]
    count = max(mark + reach(mark) for mark in marks)
    chunks = 1000
    base, at = bench.data.to_commit(chunks * CHUNK), chunks * CHUNK // 2

    def edit_and_commit(staging: Path, number: int):
        write_element(staging / "x", at, -float(number))
        (staging / ".commit").write_text(f"e{number}")

    with bench.copy(base) as file:
        with bench.vh5fs.mounted(file, writable=True) as mount:
            ours = [timed(lambda number=number: edit_and_commit(mount.staging, number)) for number in range(1, count + 1)]
        our_sums = bench.library.run("sum", file, f"e{count}")["sums"]
    with bench.copy(base) as file:
        theirs = bench.library.run("repeat", file, at, count)["commits"]
        their_sums = bench.library.run("sum", file, f"e{count}")["sums"]
    if our_sums != their_sums:
        raise RuntimeError("many commits: vh5fs and the library committed different data")

    title = f"one element of {chunks:,} chunks of 4096, again and again"
    found = {}
    for mark in marks:
        window = slice(mark - reach(mark) - 1, mark + reach(mark))
        found[mark] = {VH5FS: ours[window], PYTHON: theirs[window]}
        what = f"commit {mark:,} (median of {len(ours[window])} around it)"
        bench.row(title, what, "s", found[mark], series="commit-versions", at=mark)
    first, last = marks[0], marks[-1]
    if first == last:
        return
    growth = {who: [float(np.median(found[last][who]) / np.median(found[first][who]))] for who in (VH5FS, PYTHON)}
    bench.row(title, f"commit {last:,} against commit {first:,}", "times", growth, target=Target(1.2), headline=True)


def reach(mark: int) -> int:
    """How many commits on each side of one count with it."""
    return min(mark // 2, NEIGHBOURS)


def huge(bench: Bench, gib: int):
    """Peak memory of the commit of much new data, staging not counted; once."""
    with bench.copy(bench.data.to_commit(CHUNK)) as file, bench.vh5fs.mounted(file, writable=True) as mount:
        write_blocks(mount.staging / "new", gib << 30)
        mount.forget_peak()
        seconds = timed(lambda: mount.commit("r2"))
        title = f"a new dataset of {gib} GiB"
        bench.row(title, "the commit alone", "s", {VH5FS: [seconds]})
        bench.row(title, "its peak memory", "KiB", {VH5FS: [mount.peak_kib()]})
