"""What is measured against what: mounts of vh5fs, the Python library, and the mount that only passes reads through.

The fourth one, the plain file, needs nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VH5FS, PYTHON, PASSTHROUGH, PLAIN = "vh5fs", "python", "passthrough", "plain"

#: How reports call them, in their order.
NAMES = {VH5FS: "vh5fs", PYTHON: "Python library", PASSTHROUGH: "pass-through", PLAIN: "plain file"}


def timed(call) -> float:
    """The seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def quiet(*command):
    """Runs a command that has to succeed."""
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Mount:
    """A mount of vh5fs."""

    path: Path
    #: What `vh5fs mount` took.
    seconds: float
    pid: int

    def _field(self, file: str, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/{file}").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(name)))

    def peak_kib(self) -> int:
        """The daemon's peak memory (proc_pid_status(5), `VmHWM`)."""
        return self._field("status", "VmHWM")

    def bytes_read(self) -> int:
        """What the daemon has read so far: from FILE, and some 100 bytes for each request (proc_pid_io(5), `rchar`)."""
        return self._field("io", "rchar")

    def forget_peak(self):
        """Makes the peak what is resident now (proc_pid_clear_refs(5))."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def staging(self) -> Path:
        return self.path / "staging"

    def commit(self, name: str):
        (self.staging / ".commit").write_text(name)


@dataclass(frozen=True)
class Vh5fs:
    """The program, mounted anew for each measurement that is to be cold."""

    program: Path

    @contextmanager
    def mounted(self, file: Path, *, writable: bool = False):
        options = [] if writable else ["--read-only"]
        with tempfile.TemporaryDirectory(prefix="vh5fs-bench-") as directory:
            seconds = timed(lambda: quiet(self.program, "mount", *options, file, directory))
            try:
                yield Mount(Path(directory), seconds, self._daemon(directory))
            finally:
                quiet(self.program, "umount", directory)

    def _daemon(self, mount_point: str) -> int:
        """The process that serves a mount."""
        program, wanted = os.fsencode(self.program.name), os.fsencode(mount_point)
        for process in Path("/proc").iterdir():
            try:
                arguments = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in arguments and program in map(os.path.basename, arguments[:2]):
                return int(process.name)
        raise RuntimeError(f"no process serves {mount_point}")


@dataclass(frozen=True)
class Passthrough:
    """The mount of plain files that passthrough.rs is."""

    program: Path

    @contextmanager
    def mounted(self, folder: Path):
        with tempfile.TemporaryDirectory(prefix="vh5fs-bench-") as directory:
            with subprocess.Popen([self.program, folder, directory], stdout=subprocess.PIPE, text=True) as process:
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError(f"{self.program} did not mount {folder}")
                try:
                    yield Path(directory)
                finally:
                    quiet("fusermount3", "-u", directory)
            if process.returncode != 0:
                raise RuntimeError(f"{self.program} ended with {process.returncode}")


@dataclass(frozen=True)
class Library:
    """The Python library, in a new process for each measurement: see library.py."""

    script: Path = Path(__file__).with_name("library.py")

    def run(self, what: str, file: Path, *arguments) -> dict:
        command = [sys.executable, str(self.script), what, str(file), *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        return json.loads(done.stdout)
