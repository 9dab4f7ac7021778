"""What is told of a commit while it is made: by `.status`, and by `vh5fs commit` on a terminal.

    commit_progress.py PROGRAM MOUNT
"""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

PROGRAM, MOUNT = sys.argv[1], Path(sys.argv[2])
CHUNKS = 150_000
STAGING = MOUNT / "staging"


def stage(name: str, first: int):
    """A dataset of so many chunks, each another one."""
    numbers = b"".join(number.to_bytes(8, "little") for number in range(first, first + CHUNKS))
    (STAGING / name).write_bytes(numbers)
    os.setxattr(STAGING / name, "user.h5.dtype", b"<u8")
    os.setxattr(STAGING / name, "user.h5.chunks", b"[1]")


def read_all(terminal: int) -> str:
    text = b""
    try:
        while part := os.read(terminal, 1 << 16):
            text += part
    except OSError:
        # What a terminal says when the last who had it open is gone.
        pass
    return text.decode()


# Somebody else looks on.
stage("a", 0)
commit = subprocess.Popen([PROGRAM, "commit", str(MOUNT), "r1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
told, steps = set(), {}
while commit.poll() is None:
    start = time.monotonic()
    status = (STAGING / ".status").read_text()
    assert time.monotonic() - start < 5, "reading .status waits for the commit"
    told.update(re.findall(r"A commit is being made: (?:\d+) of (?:\d+) (.+)\.", status))
    try:
        progress = os.getxattr(STAGING / ".commit", "user.progress").decode()
    except OSError:
        continue
    step, done, of = re.fullmatch(r'\{"step": "(\w+)", "done": (\d+), "of": (\d+)\}', progress).groups()
    assert int(done) <= int(of) <= CHUNKS, progress
    assert int(done) >= steps.get(step, 0), "it goes back"
    steps[step] = int(done)
output, words = commit.communicate()
assert commit.returncode == 0 and output.startswith("The last commit made version r1: "), (output, words)
# No terminal, no bar.
assert words == "", words
assert told == {"chunks are hashed", "new chunks are stored"}, told
assert steps.keys() == {"hashing", "storing"} and max(steps.values()) > 0, steps
assert "being made" not in (STAGING / ".status").read_text()
assert "user.progress" not in os.listxattr(STAGING / ".commit")

stage("b", CHUNKS)
ours, theirs = pty.openpty()
commit = subprocess.Popen([PROGRAM, "commit", str(MOUNT), "r2"], stdout=subprocess.PIPE, stderr=theirs, text=True, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"})
os.close(theirs)
drawn = read_all(ours)
output = commit.communicate()[0]
assert commit.returncode == 0 and output.startswith("The last commit made version r2: "), output
assert re.search(rf"storing .* \d+ of {CHUNKS} chunks", drawn), drawn[-2000:]
print(f"{CHUNKS} chunks twice")
