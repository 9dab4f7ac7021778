#!/usr/bin/env python3
"""Measures vh5fs against the Python library, a mount that only passes reads through, and plain files, in one run.

Prints a table as it goes, and leaves benchmark.json, benchmark.md and benchmark.svg in the folder of the data. docs/benchmark.md says what
is measured and how, and what the fields of the JSON are.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

import commits
import plot
import reading
import report
from contenders import Library, Passthrough, Vh5fs
from data import ROOT, Data
from measure import Bench
from rows import Row

#: What can be asked for by name, in the order in which it is measured.
CASES = {
    "read": lambda bench, arguments: reading.read(bench, arguments.layout or list(reading.LAYOUTS)),
    "fromfile": lambda bench, _: reading.fromfile(bench),
    "disk": lambda bench, _: reading.disk(bench),
    "element": lambda bench, _: reading.element(bench),
    "first": lambda bench, _: reading.first(bench),
    "hashes": lambda bench, _: reading.hashes(bench),
    "mount": lambda bench, _: reading.mounting(bench),
    "storm": lambda bench, _: reading.storm(bench),
    "commit": lambda bench, _: commits.commit(bench),
    "commit-chunks": lambda bench, _: commits.commit_chunks(bench),
    "commit-versions": lambda bench, _: commits.commit_versions(bench),
    "bulk": lambda bench, _: commits.bulk(bench),
    "stream": lambda bench, _: commits.stream(bench),
}

DOCS = ROOT / "docs"
FEWEST_ROUNDS = 5
#: What the load average may be before a run.
QUIET_LOAD = 0.5


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all unless given: {', '.join(CASES)}")
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, default=ROOT / "target/bench", help="where the files are made and kept (target/bench): on the disk to measure, with 8 GB free")
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS, help=f"how often each is measured ({FEWEST_ROUNDS})")
    parser.add_argument("--scale", type=float, default=1.0, help="stretches the data; at any other than 1 there is nothing to reach")
    parser.add_argument("--quick", action="store_true", help="three rounds at a scale of 0.1")
    parser.add_argument("--layout", action="append", choices=reading.LAYOUTS, help="whole reads of this layout alone")
    parser.add_argument("--huge", type=int, metavar="GIB", help="also commit so much new data, once, for its peak memory (needs three times the room)")
    parser.add_argument("--readme", action="store_true", help="put the results of a whole run into README.md and docs/")
    parser.add_argument("--again", type=Path, metavar="JSON", help="do not measure: take the results of that run")
    found = parser.parse_args(arguments)
    unknown = set(found.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if found.quick:
        found.rounds, found.scale = 3, 0.1
    if found.rounds < 1 or not found.scale > 0:
        parser.error("--rounds and --scale are more than 0")
    return found


def measure(arguments: argparse.Namespace) -> dict:
    """Runs the cases; the run as the JSON has it."""
    data = arguments.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    programs = arguments.programs.resolve()
    vh5fs, library = Vh5fs(programs / "vh5fs"), Library()
    about = {"machine": report.machine(data), "versions": report.versions(vh5fs.program, ROOT)}
    if about["machine"]["load_before"] > QUIET_LOAD:
        print(f"the machine is busy (load {about['machine']['load_before']:.2f}): these will not be its figures", file=sys.stderr)
    bench = Bench(vh5fs, Passthrough(programs / "examples/passthrough"), library, Data(data, library, arguments.scale), arguments.rounds)
    wanted = [name for name in CASES if name in arguments.cases or not arguments.cases]
    print("\n".join(report.HEADER), flush=True)
    for name in wanted:
        CASES[name](bench, arguments)
    if arguments.huge:
        commits.huge(bench, arguments.huge)
    arrays = [
        {"name": name, "title": array.title, "bytes": array.len_bytes, "stored_bytes": array.stored_bytes, "ratio": array.ratio}
        for name, array in bench.data.arrays.items()
    ]
    layouts = arguments.layout or list(reading.LAYOUTS)
    return {
        **about,
        "scale": arguments.scale,
        "rounds": arguments.rounds,
        "cases": wanted,
        "layouts": layouts,
        "data": arrays,
        "rows": [row.to_json() for row in bench.rows],
    }


def check_whole(run: dict):
    """Raises SystemExit for a run that the README must not show."""
    if run["scale"] != 1 or run["rounds"] < FEWEST_ROUNDS or run["cases"] != list(CASES) or run["layouts"] != list(reading.LAYOUTS):
        raise SystemExit(f"--readme wants a whole run: every case, every layout, a scale of 1, {FEWEST_ROUNDS} rounds or more")


def publish(run: dict, rows: list[Row]):
    """Puts a run into README.md and docs/."""
    report.write_json(DOCS / "benchmark.json", run)
    (DOCS / "benchmark.svg").write_text(plot.picture(rows, report.about(run)))
    headlines = [row for row in rows if row.headline]
    about, picture = report.about(run), "![Rates of reading and growth of costs]"
    report.fill_in(ROOT / "README.md", {"benchmark": f"{picture}(docs/benchmark.svg)\n\n{about}\n\n{report.table(headlines)}"})
    run_part = f"{about} [All samples](benchmark.json).\n\n{picture}(benchmark.svg)"
    report.fill_in(DOCS / "benchmark.md", {"run": run_part, "data": report.ratios(run), "table": report.table(rows)})


def main() -> int:
    arguments = parse(sys.argv[1:])
    # As an exception, on whose way out every mount is taken away.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    run = json.loads(arguments.again.read_text()) if arguments.again else None
    if arguments.readme:
        # What is asked for, before it takes its time.
        check_whole(run or {"scale": arguments.scale, "rounds": arguments.rounds, "cases": arguments.cases or list(CASES), "layouts": arguments.layout or list(reading.LAYOUTS)})
    if run is None:
        run = measure(arguments)
        report.write_json(arguments.data / "benchmark.json", run)
    rows = [Row.from_json(row) for row in run["rows"]]
    arguments.data.mkdir(parents=True, exist_ok=True)
    (arguments.data / "benchmark.md").write_text(f"{report.about(run)}\n\n{report.table(rows)}\n")
    if run["cases"] == list(CASES):
        (arguments.data / "benchmark.svg").write_text(plot.picture(rows, report.about(run)))
    for row in report.missed(rows):
        print(f"missed: {row.case}, {row.what}: {row.target.text(row.unit)}", file=sys.stderr)
    if arguments.readme:
        publish(run, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
