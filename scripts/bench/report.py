"""From rows to text: the table, the JSON, and the parts of pages that a run fills in."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import h5py

from contenders import NAMES, VH5FS
from rows import Row, figure

HEADER = [
    f"| case | measured | {' | '.join(NAMES.values())} | vh5fs is so many times as good as | to reach |",
    "|" + " --- |" * (len(NAMES) + 4),
]


def cell(row: Row, who: str) -> str:
    """The median, and from the least to the most."""
    if who not in row.samples:
        return ""
    samples = row.samples[who]
    middle = figure(row.median(who), row.unit)
    if len(samples) == 1:
        return middle
    # The unit once where all have the same one.
    low, high = (figure(end, row.unit) for end in (min(samples), max(samples)))
    unit = f" {middle.partition(' ')[2]}"
    if low.endswith(unit) and high.endswith(unit):
        low, high = low.removesuffix(unit), high.removesuffix(unit)
    return f"{middle} ({low} to {high})"


def verdict(row: Row) -> str:
    if row.target is None:
        return ""
    text = row.target.text(row.unit)
    return f"{text}: reached" if row.reached() else f"{text}: **missed**"


def line_of(row: Row) -> str:
    ratios = [f"{NAMES[who]} {row.times_better(who):.2g}" for who in NAMES if who != VH5FS and who in row.samples]
    cells = [row.case, row.what, *(cell(row, who) for who in NAMES), ", ".join(ratios), verdict(row)]
    return f"| {' | '.join(cells)} |"


def table(rows: list[Row]) -> str:
    """A Markdown table; a case is named on its first line."""
    lines, before = list(HEADER), None
    for row in rows:
        line = line_of(row)
        lines.append(line.replace(f"| {row.case} |", "| |", 1) if row.case == before else line)
        before = row.case
    return "\n".join(lines)


def output(*command) -> str:
    """What a command prints, or nothing where it cannot be run."""
    try:
        done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def proc_field(file: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", Path(file).read_text(), re.MULTILINE)
    return found.group(1).strip() if found else ""


def machine(data: Path) -> dict:
    """The facts of the machine that a run depends on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": proc_field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_kib": int(proc_field("/proc/meminfo", "MemTotal").split()[0]),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "disk": output("findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", "--target", data),
        "load_before": os.getloadavg()[0],
    }


def versions(vh5fs: Path, root: Path) -> dict:
    """The versions of all that takes part."""
    return {
        "vh5fs": output(vh5fs, "--version"),
        "commit": output("git", "-C", root, "describe", "--always", "--dirty"),
        "rustc": output("rustc", "--version"),
        "python": platform.python_version(),
        "hdf5": h5py.version.hdf5_version,
        **{name: version(name) for name in ("versioned-hdf5", "h5py", "hdf5plugin", "numpy")},
    }


def about(run: dict) -> str:
    """The machine and the versions, in words."""
    machine, versions = run["machine"], run["versions"]
    programs = ", ".join(f"{name} {versions[name]}" for name in ("versioned-hdf5", "h5py", "hdf5", "numpy", "python"))
    return (
        f"{machine['date'][:10]}, {run['rounds']} rounds; {machine['cpu']}, {machine['cores']} cores, {machine['memory_kib'] / 1024**2:.0f} GiB, "
        f"Linux {machine['kernel']}, {machine['disk'].split()[1] if machine['disk'] else 'unknown file system'}; "
        f"{versions['vh5fs']} ({versions['commit']}), {programs}."
    )


def ratios(run: dict) -> str:
    """How well the arrays are compressed that are, as a table."""
    lines = ["| data | bytes | stored bytes | ratio |", "| --- | --- | --- | --- |"]
    for array in run["data"]:
        if array["ratio"] < 1.01:
            continue
        lines.append(f"| {array['title']} | {array['bytes']:,} | {array['stored_bytes']:,} | {array['ratio']:.2f} |")
    return "\n".join(lines)


def fill_in(page: Path, parts: dict[str, str]):
    """Puts each part of a page between its markers, `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises ValueError where a page has not exactly one such pair.
    """
    text = page.read_text()
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ValueError(f"{page} has no single {begin} ... {end}")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"
    page.write_text(text)


def write_json(path: Path, run: dict):
    path.write_text(json.dumps(run, indent=1) + "\n")


def missed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.reached() is False]


