"""A mount that a Python test drives: starting, ending and killing its daemon, its control files, and system calls that Python lacks."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from pathlib import Path

#: How long anything may take before a test gives up on it.
DEADLINE_S = 60

_LIBC = ctypes.CDLL(None, use_errno=True)

#: Flags of renameat2(2) and fallocate(2).
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16


def _call(function, *arguments):
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def rename(source: Path, target: Path, flags: int):
    """renameat2(2)."""
    _call(_LIBC.renameat2, -100, os.fsencode(source), -100, os.fsencode(target), ctypes.c_uint(flags))


def fallocate(path: Path, mode: int, offset: int, count: int):
    """fallocate(2)."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        _call(_LIBC.fallocate, descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(count))
    finally:
        os.close(descriptor)


class Mounted:
    """A file and the directory where it is mounted; use it as a context, so that nothing is left behind."""

    def __init__(self, program: Path, file: Path, root: Path):
        self.program, self.file, self.root = program, file, root
        self.staging = root / "staging"
        self.versions = root / "versions"
        self.daemon: subprocess.Popen | None = None

    def __enter__(self) -> Mounted:
        return self

    def __exit__(self, *_):
        if self.daemon is not None:
            self.stop()

    def start(self, *options: str):
        """Mounts, and waits until the tree is there."""
        command = [self.program, "mount", "-f", *options, self.file, self.root]
        self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            if self.daemon.poll() is not None:
                raise RuntimeError(f"vh5fs mount ended with {self.daemon.returncode}")
            try:
                if "versions" in os.listdir(self.root):
                    return
            except OSError:
                pass  # A dead mount that is about to be healed.
            if time.monotonic() > deadline:
                raise RuntimeError("the mount does not come up")
            time.sleep(0.002)

    def stop(self):
        """Unmounts, and waits for the daemon's end."""
        self.daemon.terminate()
        status = self.daemon.wait(DEADLINE_S)
        self.daemon = None
        if status != 0:
            raise RuntimeError(f"the daemon ended with {status}")

    def kill(self):
        """Kills the daemon, which leaves a dead mount behind."""
        self.daemon.kill()
        self.daemon.wait(DEADLINE_S)
        self.daemon = None

    def commit(self, name: str | None = None, **wanted):
        """Commits under a name, or with further settings as JSON."""
        text = name if not wanted else json.dumps({"name": name, **wanted} if name else wanted)
        control(self.staging / ".commit", text)

    def reset(self, name: str | None = None):
        """Starts over, from a version or the current one."""
        control(self.staging / ".reset", name)

    def status(self) -> str:
        return (self.staging / ".status").read_text()


def control(path: Path, text: str | None):
    """Touches a control file, or writes a text to it as `echo` does."""
    if text is None:
        os.utime(path)
    else:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.write(descriptor, text.encode() + b"\n")
        finally:
            os.close(descriptor)
