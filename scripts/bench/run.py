#!/usr/bin/env python3
"""Measures a mount against the Python library and against a plain file, in one run, and writes a table.

    run.py --vh5fs PROGRAM [--data DIR] [--out DIR] [--scale 1.0] [--runs 5] [--only CASE,...]

The files are made once and kept in DIR (target/bench). Every file's own pages are in the kernel's cache, for all three: what differs is the work.
`cold` is the first access after a fresh mount, or in a fresh Python process; `warm` the second. The plain file holds the same bytes in the
same directory; it is read with the same calls as the mounted one. Each figure is the median of the runs, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fixtures"))

from big import CASES  # noqa: E402

BLOCK_BYTES = 1 << 20


def timed(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def read_all(path: Path):
    """Reads a file from end to end, as `cat` does, into a buffer that is there already."""
    buffer = bytearray(BLOCK_BYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def first_byte(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert len(os.pread(descriptor, 1, 0)) == 1
    finally:
        os.close(descriptor)


def quiet(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Bench:
    def __init__(self, program: Path, data: Path, runs: int):
        self.program = program
        self.data = data
        self.runs = runs
        self.rows: list[dict] = []

    @contextmanager
    def mounted(self, file: Path):
        """A fresh mount: (mount point, seconds until the command returned)."""
        with tempfile.TemporaryDirectory() as directory:
            command = [self.program, "mount", "--read-only", file, directory]
            seconds = timed(lambda: quiet(*command))
            try:
                yield Path(directory), seconds
            finally:
                quiet(self.program, "umount", directory)

    def daemon(self, mount: Path) -> str:
        """The process that serves a mount."""
        for process in Path("/proc").iterdir():
            try:
                arguments = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            program = os.fsencode(self.program.name)
            if os.fsencode(mount) in arguments and any(os.path.basename(a) == program for a in arguments[:2]):
                return process.name
        raise RuntimeError(f"no process serves {mount}")

    def daemon_kib(self, mount: Path, field: str) -> int:
        """Memory of the process that serves a mount, as /proc/PID/status has it (`VmRSS`, `VmHWM`)."""
        lines = (Path("/proc") / self.daemon(mount) / "status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(field)))

    def python(self, *arguments) -> dict:
        command = [sys.executable, Path(__file__).with_name("python_side.py"), *arguments]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)

    def row(self, case: str, what: str, unit: str, **samples: list[float]):
        """Adds a line of the table; `samples` are those of vh5fs, python and plain."""
        figures = {who: {"median": median(s), "min": min(s), "max": max(s), "samples": s} for who, s in samples.items() if s}
        self.rows.append({"case": case, "what": what, "unit": unit, **figures})
        print(line_of(self.rows[-1]), flush=True)

    def fixture(self, name: str, *arguments) -> Path:
        path = self.data / f"{name}.h5"
        if not path.exists():
            quiet(sys.executable, ROOT / "tests/fixtures/big.py", arguments[0], path, *arguments[1:])
        read_all(path)
        return path

    def versions(self, versions: int, datasets: int):
        """Mount, list, stat and memory over many versions."""
        file = self.fixture(f"versions-{versions}x{datasets}", "versions", "--versions", str(versions), "--datasets", str(datasets))
        title = f"{versions:,} versions of {datasets} datasets"
        name = f"version-{versions // 2:05}"
        samples = {key: [] for key in ("mount", "list", "tree", "tree_warm", "stat", "memory")}
        for _ in range(self.runs):
            with self.mounted(file) as (mount, seconds):
                samples["mount"].append(seconds)
                samples["list"].append(timed(lambda: quiet("ls", mount / "versions")))
                samples["tree"].append(timed(lambda: quiet("ls", "-lR", mount / "versions" / name)))
                samples["tree_warm"].append(timed(lambda: quiet("ls", "-lR", mount / "versions" / name)))
                other = mount / "versions" / f"version-{versions // 3:05}" / "group_0/dataset_000"
                samples["stat"].append(timed(lambda: os.stat(other)))
                samples["memory"].append(self.daemon_kib(mount, "VmHWM"))
        listing = [self.python("versions", file) for _ in range(self.runs)]
        tree = [self.python("tree", file, name) for _ in range(self.runs)]
        self.row(title, "mount", "s", vh5fs=samples["mount"])
        self.row(title, "list the versions (Python: open and list)", "s", vh5fs=samples["list"], python=[p["seconds"] for p in listing])
        self.row(title, "`ls -lR` of one version, cold", "s", vh5fs=samples["tree"], python=[p["seconds"] for p in tree])
        self.row(title, "`ls -lR` of one version, warm", "s", vh5fs=samples["tree_warm"])
        self.row(title, "stat in another version", "s", vh5fs=samples["stat"])
        self.row(title, "peak memory", "KiB", vh5fs=samples["memory"], python=[p["peak_kib"] for p in tree])

    def array(self, name: str, scale: float):
        """Stat, first byte and whole reads of one dataset."""
        case = CASES[name]
        file = self.fixture(f"{name}-{scale}", "array", name, "--scale", str(scale))
        title = case.title if scale == 1 else f"{case.title}, scaled to {scale}"
        plain = self.data / f"{name}-{scale}.raw"
        if not plain.exists():
            self.python("raw", file, plain)
        read_all(plain)
        samples = {key: [] for key in ("stat", "first", "cold", "warm", "memory", "plain", "plain_first")}
        for _ in range(self.runs):
            with self.mounted(file) as (mount, _):
                path = mount / "versions/r1/x"
                samples["stat"].append(timed(lambda: os.stat(path)))
                samples["first"].append(timed(lambda: first_byte(path)))
                samples["memory"].append(self.daemon_kib(mount, "VmHWM"))
            with self.mounted(file) as (mount, _):
                path = mount / "versions/r1/x"
                samples["cold"].append(timed(lambda: read_all(path)))
                samples["warm"].append(timed(lambda: read_all(path)))
                # A fast wrong answer is no answer.
                quiet("cmp", path, plain)
            samples["plain"].append(timed(lambda: read_all(plain)))
            samples["plain_first"].append(timed(lambda: first_byte(plain)))
        element = [self.python("element", file) for _ in range(self.runs)]
        whole = [self.python("read", file) for _ in range(self.runs)]
        size = plain.stat().st_size / 1e9

        def rates(seconds):
            return [size / s for s in seconds]

        self.row(title, "stat, cold", "s", vh5fs=samples["stat"], python=[p["seconds"] for p in element])
        elements = [p["seconds"] for p in element]
        self.row(title, "first byte, cold (Python: one element)", "s", vh5fs=samples["first"], python=elements, plain=samples["plain_first"])
        self.row(title, "whole read, cold", "GB/s", vh5fs=rates(samples["cold"]), python=rates([p["first"] for p in whole]), plain=rates(samples["plain"]))
        self.row(title, "whole read, warm", "GB/s", vh5fs=rates(samples["warm"]), python=rates([p["seconds"] for p in whole]), plain=rates(samples["plain"]))
        self.row(title, "peak memory after stat and first byte", "KiB", vh5fs=samples["memory"], python=[p["peak_kib"] for p in element])


def figure(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value:,.0f} bytes"
    return f"{value / 1024:.0f} MiB" if unit == "KiB" else f"{value:.3g} {unit}"


def cell(row: dict, who: str) -> str:
    if who not in row:
        return ""
    found = row[who]
    return f"{figure(found['median'], row['unit'])} ({figure(found['min'], row['unit'])} .. {figure(found['max'], row['unit'])})"


def ratio(row: dict, who: str) -> str:
    """How many times better vh5fs is: faster, or smaller."""
    if who not in row or not row["vh5fs"]["median"] or not row[who]["median"]:
        return ""
    ours, theirs = row["vh5fs"]["median"], row[who]["median"]
    return f"{(ours / theirs if row['unit'] == 'GB/s' else theirs / ours):.2g}"


def line_of(row: dict) -> str:
    cells = [row["case"], row["what"], cell(row, "vh5fs"), cell(row, "python"), cell(row, "plain"), ratio(row, "python"), ratio(row, "plain")]
    return "| " + " | ".join(cells) + " |"


HEADER = """\
| case | measured | vh5fs | Python library | plain file | times better than Python | than a plain file |
| --- | --- | --- | --- | --- | --- | --- |"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vh5fs", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--data", type=Path, default=ROOT / "target/bench")
    parser.add_argument("--out", type=Path, help="where results.json and results.md go; the same as --data unless given")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="versions, " + ", ".join(CASES))
    arguments = parser.parse_args()
    out = arguments.out or arguments.data
    for directory in (arguments.data, out):
        directory.mkdir(parents=True, exist_ok=True)
    wanted = arguments.only.split(",") if arguments.only else ["versions", *CASES]
    bench = Bench(arguments.vh5fs, arguments.data.resolve(), arguments.runs)
    print(HEADER, flush=True)
    for name in wanted:
        if name == "versions":
            bench.versions(max(3, round(1000 * arguments.scale)), 50)
        else:
            bench.array(name, arguments.scale)
    processors = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    about = {
        "machine": {"kernel": platform.release(), "cores": os.cpu_count(), "processor": processors[:1]},
        "versions": {"python": platform.python_version(), "vh5fs": subprocess.run([arguments.vh5fs, "--version"], capture_output=True, text=True).stdout.strip()},
        "scale": arguments.scale,
        "runs": arguments.runs,
    }
    (out / "results.json").write_text(json.dumps({**about, "rows": bench.rows}, indent=1))
    (out / "results.md").write_text("\n".join([HEADER, *map(line_of, bench.rows)]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
