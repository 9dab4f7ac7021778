"""What every case is given: the contenders, the data, the number of rounds, and where its rows go."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from contenders import Library, Passthrough, Vh5fs
from data import Data, sync
from report import line_of
from rows import Row, Target


class Samples:
    """Samples by what was measured and of whom."""

    def __init__(self):
        self._found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, what: str, **values: float):
        for who, value in values.items():
            self._found[what][who].append(value)

    def of(self, what: str) -> dict[str, list[float]]:
        return {who: list(values) for who, values in self._found[what].items()}

    def rates(self, what: str, len_bytes: int) -> dict[str, list[float]]:
        """Seconds as GB/s."""
        return {who: [len_bytes / 1e9 / seconds for seconds in values] for who, values in self._found[what].items()}


@dataclass
class Bench:
    """A run."""

    vh5fs: Vh5fs
    passthrough: Passthrough
    library: Library
    data: Data
    rounds: int
    rows: list[Row] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether the sizes are those that the targets are meant for."""
        return self.data.scale == 1

    def each_round(self) -> Iterator[int]:
        return iter(range(self.rounds))

    def row(self, case: str, what: str, unit: str, samples: dict[str, list[float]], *, target: Target | None = None, **more):
        """Adds a line and prints it. A target counts at full size alone."""
        row = Row(case, what, unit, samples, target=target if self.is_full else None, **more)
        self.rows.append(row)
        print(line_of(row), flush=True)

    @contextmanager
    def copy(self, file: Path):
        """A copy of a file that is edited, on the disk of the data, with nothing of it left to be written."""
        with tempfile.TemporaryDirectory(dir=self.data.directory) as directory:
            path = Path(directory) / "file.h5"
            shutil.copyfile(file, path)
            sync(path)
            yield path
