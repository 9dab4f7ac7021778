#!/usr/bin/env python3
"""Keeps handles of everything in a mount, as a server of NFS does, and comes back with them (name_to_handle_at(2)).

    handles.py keep MOUNT FILE      writes handles, and what each thing is, to FILE
    handles.py use MOUNT FILE       opens each by its handle alone: prints those that are stale, and fails for any that is not what it was

What is called `.status` changes by itself, and is only opened.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import stat
import sys
from pathlib import Path

MAX_HANDLE_BYTES = 128
AT_FDCWD = -100
LIBC = ctypes.CDLL(None, use_errno=True)
CONTROLS = ("staging/.commit", "staging/.status", "staging/.reset")


class Handle(ctypes.Structure):
    """`struct file_handle`."""

    _fields_ = [("len_bytes", ctypes.c_uint), ("kind", ctypes.c_int), ("bytes", ctypes.c_ubyte * MAX_HANDLE_BYTES)]


def handle_of(path: Path) -> dict:
    handle, mount_id = Handle(len_bytes=MAX_HANDLE_BYTES), ctypes.c_int()
    if LIBC.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return {"kind": handle.kind, "bytes": bytes(handle.bytes[: handle.len_bytes]).hex()}


def open_by(mount: int, kept: dict, flags: int) -> int:
    content = bytes.fromhex(kept["bytes"])
    handle = Handle(len(content), kept["kind"], (ctypes.c_ubyte * MAX_HANDLE_BYTES)(*content))
    descriptor = LIBC.open_by_handle_at(mount, ctypes.byref(handle), flags)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def described(descriptor: int, path: str) -> dict:
    """What an open thing is. A link is opened with O_PATH."""
    found = os.fstat(descriptor)
    what = {"ino": found.st_ino, "mode": found.st_mode, "size": found.st_size}
    if path.removeprefix("npy/").startswith("staging"):
        # Its files have numbers of one mount alone.
        del what["ino"]
    if stat.S_ISDIR(found.st_mode):
        # A mount that only reads has no `staging`.
        what["names"] = sorted(set(os.listdir(descriptor)) - {"staging"})
    elif stat.S_ISLNK(found.st_mode):
        what["target"] = os.readlink("", dir_fd=descriptor)
    elif path in CONTROLS:
        del what["size"]
    else:
        with open(descriptor, "rb", closefd=False) as file:
            what["sha256"] = hashlib.sha256(file.read()).hexdigest()
    return what


def flags_for(mode: int) -> int:
    return os.O_PATH | os.O_NOFOLLOW if stat.S_ISLNK(mode) else os.O_RDONLY


def everything(mount: Path) -> list[str]:
    paths = [".", *CONTROLS, "current~1", "npy/current~1"]
    for folder, folders, files in os.walk(mount):
        paths += [os.path.relpath(os.path.join(folder, name), mount) for name in folders + files]
    return [path for path in paths if os.path.lexists(mount / path)]


def keep(mount: Path, out: Path) -> None:
    kept = {}
    for path in everything(mount):
        mode = os.lstat(mount / path).st_mode
        descriptor = os.open(mount / path, flags_for(mode))
        kept[path] = {"handle": handle_of(mount / path), "mode": mode, "is": described(descriptor, path)}
        os.close(descriptor)
    out.write_text(json.dumps(kept))
    print(json.dumps(sorted(kept)))


def use(mount: Path, out: Path) -> None:
    stale = []
    root = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    for path, kept in json.loads(out.read_text()).items():
        try:
            descriptor = open_by(root, kept["handle"], flags_for(kept["mode"]))
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise OSError(error.errno, error.strerror, path) from None
            stale.append(path)
            continue
        found = described(descriptor, path)
        assert found == kept["is"], f"{path}: {found} instead of {kept['is']}"
        if stat.S_ISDIR(kept["mode"]):
            # The kernel found its way up to the mount point.
            shown = os.readlink(f"/proc/self/fd/{descriptor}")
            assert shown == str((mount / path).resolve()), f"{path} is taken for {shown}"
        os.close(descriptor)
    os.close(root)
    print(json.dumps(sorted(stale)))


if __name__ == "__main__":
    {"keep": keep, "use": use}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
