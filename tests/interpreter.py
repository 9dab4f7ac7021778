#!/usr/bin/env python3
"""Runs what a test sends: on each line of stdin a JSON string of Python, answered by a line of JSON: {"result": ...} with what the code
left in `result`, or {"error": ...}.

    interpreter.py SCRATCH

What the code defines stays for the next. Contents of datasets are written to SCRATCH, named by their SHA-256.
"""

from __future__ import annotations

import datetime
import faulthandler
import json
import os
import sys
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).resolve().parent / "fixtures"))

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from versioned_hdf5 import VersionedHDF5File, delete_versions, modify_metadata  # noqa: E402, F401

import library  # noqa: E402, F401
import same_edits  # noqa: E402, F401
from vh5fix import truth  # noqa: E402

#: A call that takes longer than this hangs.
DEADLINE_S = 300

SCRATCH = Path(sys.argv[1])

# Everything is small here.
truth.RAW_MAX_BYTES = truth.WHOLE_MAX_BYTES


def when(number: int) -> datetime.datetime:
    """A timestamp for version `number`."""
    return datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(hours=number, microseconds=number)


@contextmanager
def opened(path):
    """The file, opened for writing."""
    with h5py.File(path, "r+" if os.path.exists(path) else "w") as file:
        versioned = VersionedHDF5File(file)
        yield versioned
        versioned.close()


@contextmanager
def version(path, name: str, **options):
    """One version, staged and committed by a session of its own."""
    with opened(path) as versioned, versioned.stage_version(name, **options) as group:
        yield group


def contents(path, name: str) -> dict[str, str]:
    """What the datasets of a version hold: each path with the SHA-256 of its file's bytes, which are kept in SCRATCH."""
    with h5py.File(path) as file:
        described = {"groups": {}, "datasets": {}}
        describer = truth.Describer(file, SCRATCH)
        describer.tree(h5py.h5g.open(file.id, b"/_version_data/versions/" + name.encode()), "", b"", described)
    return {path: dataset["sha256"] for path, dataset in described["datasets"].items()}


def write_manifest(path) -> str:
    """Writes the truth about the whole file, and says where it is."""
    file = SCRATCH / "manifest.json"
    described = truth.describe(Path(path), SCRATCH / "raw")
    file.write_text(json.dumps({"files": {"live": {"path": str(path), **described}}}))
    return str(file)


def main():
    answers = os.fdopen(os.dup(1), "w")
    # Nothing that a library prints may get between the answers.
    os.dup2(2, 1)
    names = globals()
    for line in sys.stdin:
        names["result"] = None
        faulthandler.dump_traceback_later(DEADLINE_S, exit=True)
        try:
            exec(json.loads(line), names)
            answer = {"result": names["result"]}
        except Exception:
            answer = {"error": traceback.format_exc()}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(answer), file=answers, flush=True)
    # versioned-hdf5 complains about its own objects while the interpreter shuts down.
    os._exit(0)


if __name__ == "__main__":
    main()
