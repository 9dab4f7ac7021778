"""Cases that read: whole datasets, first bytes, hashes, trees of many versions, mounting."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from contenders import PASSTHROUGH, PLAIN, PYTHON, VH5FS, quiet, timed
from data import read_whole
from measure import Bench, Samples
from rows import Target

#: The layouts, and what the first read of each is to reach.
LAYOUTS = {
    "plain-4096": Target(2, PYTHON),
    "plain-65536": Target(0.8, PASSTHROUGH),
    "gzip-4096": Target(5, PYTHON),
    "lzf-65536": Target(5, PYTHON),
    "grid-500x200": Target(0.7, PASSTHROUGH),
    "grid-10x100": Target(4, PYTHON),
}

#: What parts of the array of 100,000 chunks the curves are drawn over.
PARTS = (0.01, 0.03, 0.1, 0.3, 1.0)
VERSIONS = (10, 100, 1000)
DATASETS = 50
#: So many versions of the tree the library looks at: it takes long, and its rate does not depend on it.
LIBRARY_VERSIONS = 20


def first_bytes(path: Path, offset: int, count: int):
    """Opens a file and reads a few bytes of it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if len(os.pread(descriptor, count, offset)) != count:
            raise RuntimeError(f"{path} is shorter than {offset + count} bytes")
    finally:
        os.close(descriptor)


def stat_and_first_byte(path: Path):
    os.stat(path)
    first_bytes(path, 0, 1)


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(root: Path) -> int:
    """Looks at every entry below a directory, as `find -ls` does; how many there are."""
    count = 0
    with os.scandir(root) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)
            count += 1
            if entry.is_dir(follow_symlinks=False):
                count += walk(root / entry.name)
    return count


def evict(path: Path):
    """Drops a file's pages from the kernel's cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def read(bench: Bench, layouts: list[str]):
    """Whole reads of each layout, the first after mounting and the one after it."""
    for name in layouts:
        array = bench.data.array(name)
        found = Samples()
        for _ in bench.each_round():
            with bench.vh5fs.mounted(array.file) as mount:
                path = mount.path / "versions/r1/x"
                found.add("first", vh5fs=timed(lambda: read_whole(path)))
                found.add("again", vh5fs=timed(lambda: read_whole(path)))
                found.add("memory", vh5fs=mount.peak_kib())
                # A fast wrong answer is no answer.
                quiet("cmp", path, array.plain)
            python = bench.library.run("read", array.file)
            found.add("first", python=python["seconds"])
            found.add("again", python=python["again"])
            found.add("memory", python=python["peak_kib"])
            with bench.passthrough.mounted(array.plain.parent) as mount:
                path = mount / array.plain.name
                found.add("first", passthrough=timed(lambda: read_whole(path)))
                found.add("again", passthrough=timed(lambda: read_whole(path)))
            for what in ("first", "again"):
                found.add(what, plain=timed(lambda: read_whole(array.plain)))
        rates = {what: found.rates(what, array.len_bytes) for what in ("first", "again")}
        bench.row(array.title, "whole read, first time", "GB/s", rates["first"], target=LAYOUTS[name], headline=True)
        bench.row(array.title, "whole read, second time", "GB/s", rates["again"], target=Target(0.9, PLAIN), headline=True)
        bench.row(array.title, "peak memory of both", "KiB", found.of("memory"))


def fromfile(bench: Bench):
    """The whole read once more, by `numpy.fromfile`, which allocates its array each time."""
    array = bench.data.array("plain-65536")
    found = Samples()

    def load(path: Path):
        np.fromfile(path, "<f8")

    for _ in bench.each_round():
        with bench.vh5fs.mounted(array.file) as mount:
            found.add("first", vh5fs=timed(lambda: load(mount.path / "versions/r1/x")))
        found.add("first", python=bench.library.run("read", array.file)["seconds"])
        with bench.passthrough.mounted(array.plain.parent) as mount:
            found.add("first", passthrough=timed(lambda: load(mount / array.plain.name)))
        found.add("first", plain=timed(lambda: load(array.plain)))
    bench.row(array.title, "`numpy.fromfile`, first time", "GB/s", found.rates("first", array.len_bytes))


def disk(bench: Bench):
    """The first read again, with nothing of the file in the kernel's cache."""
    array = bench.data.array("plain-65536")
    found = Samples()
    for _ in bench.each_round():
        with bench.vh5fs.mounted(array.file) as mount:
            evict(array.file)
            found.add("first", vh5fs=timed(lambda: read_whole(mount.path / "versions/r1/x")))
        evict(array.file)
        found.add("first", python=bench.library.run("read", array.file)["seconds"])
        with bench.passthrough.mounted(array.plain.parent) as mount:
            evict(array.plain)
            found.add("first", passthrough=timed(lambda: read_whole(mount / array.plain.name)))
        evict(array.plain)
        found.add("first", plain=timed(lambda: read_whole(array.plain)))
    bench.row(array.title, "whole read from the disk", "GB/s", found.rates("first", array.len_bytes))


def element(bench: Bench):
    """One element out of 10,000 chunks."""
    array = bench.data.array("chunks-10k")
    middle = array.len_bytes // 2 // 8 * 8
    found = Samples()
    for _ in bench.each_round():
        with bench.vh5fs.mounted(array.file) as mount:
            path = mount.path / "versions/r1/x"
            seconds = timed(lambda: first_bytes(path, middle, 8))
        python = bench.library.run("element", array.file, "middle")
        plain = timed(lambda: first_bytes(array.plain, middle, 8))
        found.add("opened", vh5fs=seconds, python=python["seconds"], plain=plain)
        found.add("open", vh5fs=seconds, python=python["open"] + python["seconds"], plain=plain)
        found.add("mount", vh5fs=mount.seconds + seconds, python=python["open"] + python["seconds"], plain=plain)
    title = array.title
    bench.row(title, "open and read one element (the library: with opening FILE)", "s", found.of("open"), target=Target(20, PYTHON), headline=True)
    bench.row(title, "the same, FILE being open or mounted", "s", found.of("opened"))
    bench.row(title, "the same, with opening or mounting FILE", "s", found.of("mount"))


def first(bench: Bench):
    """Stat and the first byte, over the number of chunks."""
    for part in PARTS:
        chunks = bench.data.chunks_of("chunks-100k", part)
        array = bench.data.array("chunks-100k", part)
        found = Samples()
        for _ in bench.each_round():
            with bench.vh5fs.mounted(array.file) as mount:
                found.add("first", vh5fs=timed(lambda: stat_and_first_byte(mount.path / "versions/r1/x")))
                found.add("memory", vh5fs=mount.peak_kib())
            python = bench.library.run("element", array.file, "first")
            found.add("first", python=python["open"] + python["seconds"], plain=timed(lambda: stat_and_first_byte(array.plain)))
            found.add("memory", python=python["peak_kib"])
            found.add("mount", vh5fs=mount.seconds, python=python["open"])
        title, last = f"{chunks:,} chunks", part == PARTS[-1]
        what = "stat and first byte (the library: with opening FILE)"
        limits = (Target(0.010), Target(50e6 / 1024)) if last else (None, None)
        bench.row(title, what, "s", found.of("first"), target=limits[0], headline=last, series="first", at=chunks)
        bench.row(title, "peak memory of that", "KiB", found.of("memory"), target=limits[1], headline=last)
        bench.row(title, "mount (the library: open, list the versions)", "s", found.of("mount"), series="mount-chunks", at=chunks)


def hashes(bench: Bench):
    """SHA-256 of version 2 after version 1, of which 1 % changed."""
    file, plain, changed_bytes = bench.data.changed("gzip-4096")
    found = Samples()
    for _ in bench.each_round():
        with bench.vh5fs.mounted(file) as mount:
            digests = []
            for what, version in (("first", "r1"), ("again", "r2")):
                before = mount.bytes_read()
                seconds = timed(lambda version=version: digests.append(digest(mount.path / "versions" / version / "x")))
                found.add(what, vh5fs=seconds)
                found.add(f"{what}-bytes", vh5fs=mount.bytes_read() - before)
        python = bench.library.run("hash", file)
        found.add("first", python=python["seconds"])
        found.add("again", python=python["again"])
        for what, count in zip(("first-bytes", "again-bytes"), python["read"], strict=True):
            found.add(what, python=count)
        plain_digests = []
        for what, path in zip(("first", "again"), plain, strict=True):
            found.add(what, plain=timed(lambda path=path: plain_digests.append(digest(path))))
        if not digests == python["digests"] == plain_digests:
            raise RuntimeError(f"{file}: the contenders read different data")
    title = f"SHA-256 of two versions, {changed_bytes / 1e6:.3g} MB (1 %) changed, gzip + shuffle"
    bench.row(title, "version 1", "s", found.of("first"))
    bench.row(title, "version 2 after it", "s", found.of("again"), headline=True)
    bench.row(title, "read from FILE for version 1", "bytes", found.of("first-bytes"))
    # That 1 % of the chunks, and as much again for the list of chunks that is version 2.
    most = 0.02 * min(found.of("first-bytes")[VH5FS])
    bench.row(title, "read from FILE for version 2 after it", "bytes", found.of("again-bytes"), target=Target(most), headline=True)


def storm(bench: Bench):
    """Every entry of every version, as `find -ls` asks for it."""
    versions = max(3, round(VERSIONS[-1] * bench.data.scale))
    file = bench.data.versions(versions, DATASETS)
    tree = bench.data.tree(versions, DATASETS)
    expected = walk(tree)
    found = Samples()

    def rate(root: Path) -> float:
        counts = []
        seconds = timed(lambda: counts.append(walk(root)))
        if counts != [expected]:
            raise RuntimeError(f"{root}: {counts[0]} entries, not {expected}")
        return expected / seconds

    for _ in bench.each_round():
        with bench.vh5fs.mounted(file) as mount:
            found.add("first", vh5fs=rate(mount.path / "versions"))
            found.add("again", vh5fs=rate(mount.path / "versions"))
            found.add("memory", vh5fs=mount.peak_kib())
        python = bench.library.run("tree", file, LIBRARY_VERSIONS)
        found.add("first", python=python["entries"] / python["seconds"])
        found.add("memory", python=python["peak_kib"])
        for what in ("first", "again"):
            found.add(what, plain=rate(tree))
    title = f"{versions:,} versions of {DATASETS} datasets"
    bench.row(title, f"stat of all {expected:,} entries, first time", "entries/s", found.of("first"), headline=True)
    bench.row(title, "the same, second time", "entries/s", found.of("again"))
    bench.row(title, f"peak memory (the library: of {LIBRARY_VERSIONS} versions)", "KiB", found.of("memory"))


def mounting(bench: Bench):
    """Mounting, over the number of versions."""
    for count in VERSIONS:
        versions = max(3, round(count * bench.data.scale))
        file = bench.data.versions(versions, DATASETS)
        found = Samples()
        for _ in bench.each_round():
            with bench.vh5fs.mounted(file) as mounted:
                found.add("mount", vh5fs=mounted.seconds)
                found.add("memory", vh5fs=mounted.peak_kib())
            python = bench.library.run("versions", file)
            found.add("mount", python=python["open"] + python["seconds"])
            found.add("memory", python=python["peak_kib"])
        title, last = f"{versions:,} versions of {DATASETS} datasets", count == VERSIONS[-1]
        what = "mount (the library: open, list the versions)"
        bench.row(title, what, "s", found.of("mount"), headline=last, series="mount-versions", at=versions)
        bench.row(title, "peak memory of that", "KiB", found.of("memory"))
