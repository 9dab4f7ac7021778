#!/usr/bin/env python3
"""Measures commits and staging against the Python library and a plain file, in one run, and writes a table.

    commits.py --vh5fs PROGRAM [--data DIR] [--out DIR] [--scale 1.0] [--runs 5] [--only element,append,new,stream] [--huge GIB]

Each run edits a fresh copy of a file, made in DIR, which should be on a disk, not in memory. For vh5fs, `commit` is the time of the call that commits, with all
fsyncs that it makes; `edit and commit` is from the first byte that is written into `staging/`. For the library both are from opening the file
until it is closed and synced, as a program would do it. What the file has grown by is counted to the byte.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from run import HEADER, ROOT, Bench, line_of, quiet, read_all, timed

BLOCK_BYTES = 1 << 20
ITEM_BYTES = 8
CHUNK = 4096


def sync(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
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


class Commits(Bench):
    """The second table."""

    @contextmanager
    def copy(self, file: Path):
        """A copy of a file that is edited, with nothing of it left to be written to the disk."""
        with tempfile.TemporaryDirectory(dir=self.data) as directory:
            path = Path(directory) / "file.h5"
            shutil.copyfile(file, path)
            sync(path)
            yield path

    @contextmanager
    def writable(self, file: Path):
        with tempfile.TemporaryDirectory() as directory:
            quiet(self.program, "mount", file, directory)
            try:
                yield Path(directory)
            finally:
                quiet(self.program, "umount", directory)

    def library(self, what: str, file: Path, *arguments) -> dict:
        command = [sys.executable, Path(__file__).with_name("python_commit.py"), what, file, *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)

    def base(self, name: str, elements: int) -> Path:
        path = self.data / f"commit-{name}-{elements}.h5"
        if not path.exists():
            self.library("make", path, elements)
        read_all(path)
        return path

    def edit(self, title: str, name: str, base: Path, edit, *arguments):
        """Rows of one edit, which `edit` makes below a path and the library under its name."""
        samples = {key: [] for key in ("commit", "all", "growth", "memory", "python", "python_growth", "python_memory")}
        for _ in range(self.runs):
            with self.copy(base) as file:
                before = file.stat().st_size
                with self.writable(file) as mount:
                    staged = timed(lambda: edit(mount / "staging"))
                    seconds = timed(lambda: (mount / "staging/.commit").write_text("r2"))
                    samples["memory"].append(self.daemon_kib(mount, "VmHWM"))
                    samples["commit"].append(seconds)
                    samples["all"].append(staged + seconds)
                samples["growth"].append(file.stat().st_size - before)
                # A fast wrong commit is none.
                ours = self.library("sum", file, "r2")
            with self.copy(base) as file:
                before = file.stat().st_size
                found = self.library(name, file, *arguments)
                samples["python"].append(found["seconds"])
                samples["python_memory"].append(found["peak_kib"])
                samples["python_growth"].append(file.stat().st_size - before)
                theirs = self.library("sum", file, "r2")
            if ours["sums"] != theirs["sums"]:
                raise RuntimeError(f"{title}: vh5fs and the library committed different data")
        self.row(title, "commit", "s", vh5fs=samples["commit"], python=samples["python"])
        self.row(title, "edit and commit", "s", vh5fs=samples["all"], python=samples["python"])
        self.row(title, "growth of the file", "bytes", vh5fs=samples["growth"], python=samples["python_growth"])
        self.row(title, "peak memory", "KiB", vh5fs=samples["memory"], python=samples["python_memory"])

    def element(self, scale: float):
        elements = max(1, round(12_000 * scale)) * CHUNK
        at = elements // 2

        def edit(staging: Path):
            with open(staging / "x", "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), np.array([-1.0]).tobytes(), at * ITEM_BYTES)

        self.edit(f"one element of {elements // CHUNK:,} chunks", "element", self.base("x", elements), edit, at)

    def append(self, scale: float):
        elements = max(1, round(12_207 * scale)) * CHUNK
        more = elements // 100

        def edit(staging: Path):
            with open(staging / "x", "ab", buffering=0) as file:
                file.write(np.arange(more, dtype="<f8"))

        self.edit(f"1 % appended to {elements * ITEM_BYTES / 1e6:.0f} MB", "append", self.base("x", elements), edit, more)

    def new(self, scale: float):
        elements = max(1, round(12_207 * scale)) * CHUNK
        data = np.random.default_rng(2).standard_normal(elements)

        def edit(staging: Path):
            path = staging / "new"
            path.touch()
            os.setxattr(path, "user.h5.dtype", b"<f8")
            os.setxattr(path, "user.h5.chunks", f"[{CHUNK}]".encode())
            data.tofile(path)

        self.edit(f"a new dataset of {elements * ITEM_BYTES / 1e6:.0f} MB", "new", self.base("small", CHUNK), edit, elements)

    def stream(self, scale: float):
        """A plain sequential write, with its fsync, into `staging/` and beside the file."""
        size = max(1, round(1024 * scale)) * BLOCK_BYTES
        samples = {"staging": [], "plain": []}
        for _ in range(self.runs):
            with self.copy(self.base("small", CHUNK)) as file:
                beside = file.with_name("plain")
                samples["plain"].append(timed(lambda: write_blocks(beside, size)))
                beside.unlink()
                with self.writable(file) as mount:
                    samples["staging"].append(timed(lambda: write_blocks(mount / "staging/new", size)))
                    (mount / "staging/.reset").touch()

        def rates(seconds):
            return [size / 1e9 / s for s in seconds]

        self.row(f"{size >> 20} MiB written in order", "write and fsync", "GB/s", vh5fs=rates(samples["staging"]), plain=rates(samples["plain"]))

    def huge(self, gib: int):
        """Peak memory of the commit of much new data, staging not counted."""
        with self.copy(self.base("small", CHUNK)) as file, self.writable(file) as mount:
            write_blocks(mount / "staging/new", gib << 30)
            pid = self.daemon(mount)
            # Makes the peak what is resident now (proc_pid_clear_refs(5)).
            Path(f"/proc/{pid}/clear_refs").write_text("5")
            seconds = timed(lambda: (mount / "staging/.commit").write_text("r2"))
            title = f"a new dataset of {gib} GiB"
            self.row(title, "commit", "s", vh5fs=[seconds])
            self.row(title, "peak memory", "KiB", vh5fs=[self.daemon_kib(mount, "VmHWM")])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vh5fs", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--data", type=Path, default=ROOT / "target/bench")
    parser.add_argument("--out", type=Path, help="where commits.json and commits.md go; the same as --data unless given")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="element,append,new,stream")
    parser.add_argument("--huge", type=int, metavar="GIB", help="also commit so much new data, once, for its peak memory (needs three times the room)")
    arguments = parser.parse_args()
    out = arguments.out or arguments.data
    for directory in (arguments.data, out):
        directory.mkdir(parents=True, exist_ok=True)
    bench = Commits(arguments.vh5fs, arguments.data.resolve(), arguments.runs)
    print(HEADER, flush=True)
    for name in filter(None, arguments.only.split(",")):
        {"element": bench.element, "append": bench.append, "new": bench.new, "stream": bench.stream}[name](arguments.scale)
    if arguments.huge:
        bench.huge(arguments.huge)
    (out / "commits.json").write_text(json.dumps({"scale": arguments.scale, "runs": arguments.runs, "rows": bench.rows}, indent=1))
    (out / "commits.md").write_text("\n".join([HEADER, *map(line_of, bench.rows)]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
