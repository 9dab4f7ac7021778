#!/usr/bin/env python3
"""Runs what a page for users shows, and compares what comes out.

    readme.py PAGE FILE            runs everything; exits 1 where anything comes out differently, or is neither run nor known
    readme.py PAGE FILE --renew    writes what came out into PAGE instead

Each section of PAGE (a heading of the second level and all below it) has a folder of its own, with a copy of FILE as
`climate.h5`, which is mounted on `mnt` unless the section mounts it itself, and `docs/` of the project. Run are, in order:

    ```console    what follows `$ `, and `> ` on further lines, in one bash; the lines below are what it prints, on stdout and stderr
    ```python     a script; what it prints is in its comments `# -> `, a line each

Times after those of FILE, sizes and what ends with the folder's name are left out of the comparison. Any other block has to be in
NOT_RUN. `vh5fs` and `python` are found in PATH.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

#: Blocks that are shown and not run, by their first line.
NOT_RUN = {
    "cargo install --path . --locked": "builds for minutes; installing from a package is run by scripts/test_package.sh",
    "sudo apt install ./target/debian/vh5fs_*.deb": "changes the system; run by scripts/test_package.sh in a clean root",
    "scripts/demo.sh      builds vh5fs, makes a small file with Python, mounts it, looks around, edits and commits": "a list of commands",
    "/data/climate.h5  /mnt/climate  fuse.vh5fs  ro,allow_other                       0 0": "lines of fstab; such are run by tests/fstab.sh",
    "sudo systemctl enable --now \"$(systemd-escape --template vh5fs@.service --path /data/climate.h5)\"": "needs systemd as the first process; the unit is checked by tests/places.rs",
    "/mnt/climate  10.0.0.0/24(ro,no_subtree_check,fsid=8701)": "a line of /etc/exports; what a server of NFS does is done by tests/handles.rs",
    "MOUNTPOINT/": "a drawing",
    "vh5fs mount FILE MOUNTPOINT [options]": "a synopsis",
}
#: These say by their exit status what they found, or are to fail.
MAY_FAIL = ("diff ", "cmp ", "readlink mnt/at/2025", "getfattr -n user.none")

DEADLINE_S = 300
MARK = "\x1e"
FENCE = re.compile(r"^```(\S*)\s*$")
#: Times that are later than any in the file.
NOW = re.compile(r"2\d{3}-\d\d-\d\d[T ]\d\d[:-]\d\d([:-]\d\d(\.\d+)?)?( ?UTC|Z)?")
LAST_OF_FILE = "2026-11-22T21:34:00.000000Z"
SIZE = re.compile(r"\b\d[\d.,]* ?(bytes|B|[kKMGT]i?B)(?=\W|$)")


@dataclass
class Block:
    """A fenced block: where its lines are in the page, from the first behind the fence to the last one before its end."""

    language: str
    start: int
    lines: list[str]

    @property
    def place(self) -> str:
        return f"line {self.start + 1}"


@dataclass
class Section:
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Step:
    """A command, or a script, and what it is to print."""

    block: Block
    command: str
    shown: list[str]
    expected: list[str]


def sections_of(lines: list[str]) -> list[Section]:
    sections, block = [Section("the beginning")], None
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if block is not None:
            if line == "```":
                block = None
            else:
                block.lines.append(line)
        elif fence:
            block = Block(fence[1], number + 1, [])
            sections[-1].blocks.append(block)
        elif line.startswith("## "):
            sections.append(Section(line[3:]))
    assert block is None, "a block without an end"
    return sections


def steps_of(block: Block, folder: Path) -> list[Step]:
    if block.language == "python":
        script = folder / f".block-{block.start}.py"
        script.write_text("\n".join(block.lines) + "\n")
        expected = [line.split("# -> ", 1)[1] for line in block.lines if "# -> " in line]
        # What libraries say at their end is shown where something fails.
        command = f"python {script.name} 2>.words || {{ cat .words; false; }}"
        return [Step(block, command, [], expected)]
    steps: list[Step] = []
    for line in block.lines:
        if line.startswith("$ "):
            steps.append(Step(block, line[2:], [line], []))
        elif line.startswith("> ") and steps and not steps[-1].expected:
            steps[-1].command += "\n" + line[2:]
            steps[-1].shown.append(line)
        elif steps:
            steps[-1].expected.append(line)
        else:
            raise SystemExit(f"{block.place}: a console starts with `$ `")
    return steps


def masked(line: str) -> str:
    def time(found: re.Match) -> str:
        is_of_file = found[0].replace(" ", "T") <= LAST_OF_FILE
        return found[0] if is_of_file else "<time>"

    return SIZE.sub("<size>", NOW.sub(time, line.rstrip()))


def run(steps: list[Step], folder: Path, file: Path) -> list[tuple[int, list[str]]]:
    """Exit status and output of each step."""
    shutil.copy(file, folder / "climate.h5")
    (folder / "mnt").mkdir()
    (folder / "docs").symlink_to(Path(__file__).resolve().parent.parent / "docs")
    mounts = any("vh5fs mount climate.h5 mnt" in step.command for step in steps)
    script = ["exec 2>&1"] if mounts else ["exec 2>&1", "vh5fs mount climate.h5 mnt || exit"]
    for step in steps:
        script += [f"printf '{MARK}'", step.command, f"printf '{MARK}%s\\n' $?"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "PYTHONWARNINGS": "ignore",
    }
    try:
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=DEADLINE_S,
            check=False,
        )
    finally:
        subprocess.run(["fusermount3", "-u", "-z", folder / "mnt"], stderr=subprocess.DEVNULL, check=False)
    parts = done.stdout.decode(errors="replace").replace(str(folder), "/data").split(MARK)[1:]
    outcomes = []
    for output, status in zip(parts[::2], parts[1::2]):
        outcomes.append((int(status.split("\n")[0]), output.splitlines()))
    assert len(outcomes) == len(steps), f"the shell ended after {len(outcomes)} of {len(steps)} commands: {parts[-1:]}"
    return outcomes


def check(section: Section, file: Path) -> tuple[list[str], dict[int, list[str]], int]:
    """What is wrong with a section, what its consoles are to hold, and how many commands were run."""
    wrong, renewed = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "data"
        folder.mkdir()
        steps = []
        for block in section.blocks:
            if block.language in ("console", "python"):
                steps += steps_of(block, folder)
            elif block.lines[0] not in NOT_RUN:
                wrong.append(f"{block.place}: neither run nor known: {block.lines[0]}")
        outcomes = run(steps, folder, file) if steps else []
    for step, (status, printed) in zip(steps, outcomes):
        if step.block.language == "console":
            renewed.setdefault(step.block.start, []).extend(step.shown + printed)
        if status != 0 and not step.command.startswith(MAY_FAIL):
            wrong.append(f"{step.block.place}: {step.command}: exit status {status}: {printed}")
        difference = difflib.unified_diff(
            [masked(line) for line in step.expected],
            [masked(line) for line in printed],
            "shown",
            "printed",
            lineterm="",
        )
        difference = list(difference)
        if difference:
            wrong.append("\n".join([f"{step.block.place}: {step.command}", *difference]))
    return wrong, renewed, len(steps)


def main() -> None:
    page, file = Path(sys.argv[1]), Path(sys.argv[2])
    lines = page.read_text(encoding="utf-8").split("\n")
    all_wrong, all_renewed, count = [], {}, 0
    for section in sections_of(lines):
        wrong, renewed, steps = check(section, file)
        all_wrong += [f"## {section.title}: {words}" for words in wrong]
        all_renewed |= {block.start: (block, renewed[block.start]) for block in section.blocks if block.start in renewed}
        count += steps
    if sys.argv[3:] == ["--renew"]:
        for start, (block, new) in sorted(all_renewed.items(), reverse=True):
            lines[start : start + len(block.lines)] = new
        page.write_text("\n".join(lines), encoding="utf-8")
    if all_wrong:
        raise SystemExit("\n\n".join(all_wrong))
    print(f"{count} commands")


main()
