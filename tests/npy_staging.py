"""`numpy.save` into `npy/staging/`, judged by NumPy and by the Python library. Arguments: the mount point, the file."""

import io
import json
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

MOUNT, FILE = map(Path, sys.argv[1:3])
RAW, NPY = MOUNT / "staging", MOUNT / "npy/staging"
commits = 0


def commit() -> str:
    global commits
    commits += 1
    name = f"c{commits}"
    (RAW / ".commit").write_text(name)
    return name


def committed(path: str, version: str) -> np.ndarray:
    """What the Python library reads."""
    with h5py.File(FILE, "r") as file:
        return np.asarray(VersionedHDF5File(file)[version][path][()])


def status() -> str:
    return (RAW / ".status").read_text()


def refused(error: int, words: str, action, *arguments, **more):
    """An action fails with an errno, and `.status` says why."""
    try:
        action(*arguments, **more)
    except OSError as raised:
        assert raised.errno == error, raised
        assert words in status(), (words, status())
        return
    raise AssertionError(f"{words}: was not refused")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def saved(path: str, array: np.ndarray, **more):
    """Saves an array, and loads it in every way."""
    name = NPY / f"{path}.npy"
    np.save(name, array, **more)
    for mode in (None, "r", "c"):
        loaded = np.load(name, mmap_mode=mode)
        assert same(np.asarray(loaded), array), (path, mode, loaded.dtype, loaded.shape)


ARRAYS = {
    "f8": np.arange(10_000.0),
    "f2": np.arange(77, dtype="<f2"),
    "big": np.arange(500, dtype=">i4").reshape(5, 100),
    "bool": np.arange(9) % 2 == 0,
    "complex": np.arange(30).reshape(5, 6) * (1 - 2j),
    "c8": np.arange(8).astype("<c8"),
    "fixed": np.array([b"a", b"bcd", b""], dtype="|S5"),
    "record": np.array([(1, 2.5, b"x"), (2, -1, b"yz")], dtype=[("a", "<i4"), ("it's", ">f8"), ("z", "|S3")]),
    "aligned": np.zeros(6, dtype=np.dtype([("a", "i1"), ("b", "<f8"), ("c", "<i2", (2, 3))], align=True)),
    "when": np.array(["2020-01-01", "NaT"], dtype="<M8[ns]"),
    "span": np.array([1, 2, 3], dtype="<m8[25s]"),
    "void": np.frombuffer(bytes(range(21)), dtype="|V7"),
    "long": np.linspace(0, 1, 5, dtype=np.longdouble),
    "empty": np.zeros((0,), dtype="<f8"),
    "rows_of_nothing": np.zeros((5, 0), dtype="<f4"),
    "no_rows": np.zeros((0, 3), dtype="<i2"),
    "one": np.array([7], dtype="<u8"),
    "deep": np.arange(2 * 3 * 4 * 5, dtype="|u1").reshape(2, 3, 4, 5),
    "large": np.random.default_rng(1).normal(size=(600, 700)),
}


def types():
    for name, array in ARRAYS.items():
        saved(name, array)
    (NPY / "g").mkdir()
    saved("g/inner", np.arange(3))
    assert set(os.listdir(NPY)) >= {f"{name}.npy" for name in ARRAYS} | {"g"}
    # The same bytes are in staging/, with a type.
    assert (RAW / "large").read_bytes() == ARRAYS["large"].tobytes()
    assert json.loads(os.getxattr(RAW / "large", "user.h5.shape")) == [600, 700]
    version = commit()
    for name, array in ARRAYS.items():
        found = committed(name, version)
        assert found.shape == array.shape, (name, found.shape)
        # h5py knows the tag of dates, and reads an opaque type as bytes.
        assert found.tobytes() == array.tobytes(), name
        loaded = np.load(MOUNT / f"npy/versions/{version}/{name}.npy")
        assert same(loaded, array), (name, loaded.dtype)
        assert same(np.load(NPY / f"{name}.npy"), array), name


def replacing():
    saved("f8", np.arange(5.0))
    assert (RAW / "f8").stat().st_size == 40
    saved("large", np.ones((3, 700)))
    saved("deep", np.full((1, 7, 2, 2), 3, dtype="|u1"))
    version = commit()
    assert same(committed("f8", version), np.arange(5.0))
    assert same(committed("deep", version), np.full((1, 7, 2, 2), 3, dtype="|u1"))
    # A new dataset may become anything until it is committed.
    saved("fresh", np.arange(6.0).reshape(2, 3))
    saved("fresh", np.array([b"text"]))
    saved("fresh", np.arange(12, dtype=">i2").reshape(1, 3, 4))
    assert os.getxattr(RAW / "fresh", "user.h5.dtype") == b">i2"
    assert same(committed("fresh", commit()), np.arange(12, dtype=">i2").reshape(1, 3, 4))
    # What it has in all versions cannot become something else, and it stays what it is.
    before = np.load(NPY / "f8.npy")
    for other in (np.arange(5), np.arange(5, dtype=">f8"), np.arange(4.0).reshape(2, 2), np.array(["a"])):
        refused(22, "npy/staging/f8.npy: ", np.save, NPY / "f8.npy", other)
        assert same(np.load(NPY / "f8.npy"), before)
    assert "Nothing is staged" in status()
    assert "in all versions" in status()
    # One that was removed is of that type too.
    (NPY / "f8.npy").unlink()
    commit()
    refused(22, "its type", np.save, NPY / "f8.npy", np.arange(5))
    assert not (NPY / "f8.npy").exists() and not (RAW / "f8").exists()
    saved("f8", np.arange(5.0))
    assert same(committed("f8", commit()), np.arange(5.0))


def not_arrays():
    refused(22, "Python objects", np.save, NPY / "new.npy", np.array([1, "a", None], dtype=object))
    refused(22, "no axes", np.save, NPY / "new.npy", np.float64(3))
    refused(22, "does not begin", (NPY / "new.npy").write_bytes, b"\0" * 200)
    refused(22, "version 9", (NPY / "new.npy").write_bytes, b"\x93NUMPY\x09\x00" + b"\0" * 200)
    refused(22, "cannot be read", (NPY / "new.npy").write_bytes, b"\x93NUMPY\x01\x00\x04\x00{]  ")
    assert not (NPY / "new.npy").exists() and not (RAW / "new").exists()
    for name in ("new", "new.txt", ".npy", "new.NPY"):
        try:
            (NPY / name).write_bytes(b"")
            raise AssertionError(name)
        except OSError as error:
            assert error.errno == 22, (name, error)
    for action in (lambda: os.symlink("a", NPY / "a.npy"), lambda: os.link(NPY / "one.npy", NPY / "a.npy")):
        try:
            action()
            raise AssertionError("a link")
        except PermissionError:
            pass


def unfinished():
    whole = io.BytesIO()
    np.save(whole, np.arange(100.0))
    whole = whole.getvalue()
    for cut, words in ((0, "header was not written"), (60, "header was not written"), (128, "says 800 bytes of data, and it has 0"), (300, "and it has 172")):
        (NPY / "cut.npy").write_bytes(whole[:cut])
        assert (NPY / "cut.npy").read_bytes() == whole[:cut]
        assert ("A cut (a .npy file with" if cut >= 128 else "A cut (a .npy file without a whole header)") in status(), status()
        refused(22, words, commit)
    (NPY / "cut.npy").write_bytes(whole + b"more")
    refused(22, "and it has 804", commit)
    # Byte by byte is as good as in one piece.
    with open(NPY / "cut.npy", "wb", buffering=0) as file:
        for at in range(len(whole)):
            file.write(whole[at : at + 1])
    assert (NPY / "cut.npy").read_bytes() == whole
    assert same(committed("cut", commit()), np.arange(100.0))
    # Appending, then the header of the longer array; as npy-append-array does.
    with open(NPY / "cut.npy", "ab") as file:
        file.write(np.arange(100.0, 150.0).tobytes())
    refused(22, "says 800 bytes of data, and it has 1200", commit)
    with open(NPY / "cut.npy", "r+b") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (150,)})
    assert same(np.load(NPY / "cut.npy"), np.arange(150.0))
    assert same(committed("cut", commit()), np.arange(150.0))
    # Cut through ftruncate, and written anew without O_TRUNC.
    os.truncate(NPY / "cut.npy", 0)
    refused(22, "header was not written", commit)
    with open(NPY / "cut.npy", "r+b") as file:
        file.write(whole)
    assert same(committed("cut", commit()), np.arange(100.0))
    # Whoever sets the length in staging/ decides.
    (NPY / "cut.npy").write_bytes(whole[:300])
    os.truncate(RAW / "cut", 80)
    assert same(committed("cut", commit()), np.arange(10.0))


def headers():
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    for version in ((1, 0), (2, 0), (3, 0)):
        with open(NPY / "headers.npy", "wb") as file:
            np.lib.format.write_array(file, array, version=version)
        assert same(np.load(NPY / "headers.npy"), array)
        with open(NPY / "headers.npy", "rb") as file:
            assert np.lib.format.read_magic(file) == version
    text = b"{'shape': (2, 3), 'descr': '<i4', 'fortran_order': False}"
    odd = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()
    (NPY / "headers.npy").write_bytes(odd)
    assert (NPY / "headers.npy").read_bytes() == odd
    assert same(np.load(NPY / "headers.npy"), array)
    with open(NPY / "headers.npy", "r+b") as held:
        assert same(committed("headers", commit()), array)
        # Who has it open goes on with the header that he knows.
        held.seek(len(odd) - 4)
        held.write(np.array([99], dtype="<i4").tobytes())
    array[1, 2] = 99
    assert same(np.load(NPY / "headers.npy"), array)
    assert same(committed("headers", commit()), array)


def mapped():
    made = np.lib.format.open_memmap(NPY / "mapped.npy", mode="w+", dtype="<f8", shape=(3000, 4))
    made[:] = np.arange(12_000.0).reshape(3000, 4)
    made.flush()
    del made
    want = np.arange(12_000.0).reshape(3000, 4)
    assert same(np.load(NPY / "mapped.npy"), want)
    os.setxattr(RAW / "mapped", "user.h5.chunks", b"[1000, 4]")
    commit()
    # Only what was touched is in the next version.
    part = np.load(NPY / "mapped.npy", mmap_mode="r+")
    part[1500] = -1
    part.flush()
    assert np.frombuffer((RAW / "mapped").read_bytes()).reshape(3000, 4)[1500, 2] == -1
    assert "M mapped (1 chunk)" in status(), status()
    del part
    version = commit()
    assert "1 of" in status().splitlines()[-1], status()
    want[1500] = -1
    assert same(committed("mapped", version), want)
    # Out of range of the mapping, in the order of Fortran, and through a mapping alone.
    made = np.lib.format.open_memmap(NPY / "columns.npy", mode="w+", dtype="<i4", shape=(50, 60), fortran_order=True)
    made[:] = np.arange(3000).reshape(50, 60)
    made.flush()
    made[7, 8] = -5
    del made
    want = np.arange(3000, dtype="<i4").reshape(50, 60)
    want[7, 8] = -5
    assert same(committed("columns", commit()), want)


def both_views():
    """What is written through one view is read through the other, by whoever has it open too."""
    saved("both", np.arange(2000, dtype="<i4"))
    raw, npy = open(RAW / "both", "r+b", buffering=0), open(NPY / "both.npy", "r+b", buffering=0)
    mapped_raw = mmap.mmap(raw.fileno(), 8000, access=mmap.ACCESS_READ)
    mapped_npy = mmap.mmap(npy.fileno(), 8128, access=mmap.ACCESS_READ)
    number = lambda bytes, at: int.from_bytes(bytes[at : at + 4], "little")
    for value in (5, 6, 7):
        assert number(os.pread(npy.fileno(), 4, 128 + 4000), 0) == number(os.pread(raw.fileno(), 4, 4000), 0)
        os.pwrite(raw.fileno(), value.to_bytes(4, "little"), 4000)
        assert number(os.pread(npy.fileno(), 4, 128 + 4000), 0) == value
        assert number(mapped_npy, 128 + 4000) == value
        os.pwrite(npy.fileno(), (value + 10).to_bytes(4, "little"), 128 + 4000)
        assert number(os.pread(raw.fileno(), 4, 4000), 0) == value + 10
        assert number(mapped_raw, 4000) == value + 10
    # Rows that are appended to the bytes are in the header.
    os.pwrite(raw.fileno(), np.arange(3, dtype="<i4").tobytes(), 8000)
    assert np.load(NPY / "both.npy").shape == (2003,)
    os.ftruncate(raw.fileno(), 40)
    assert np.load(NPY / "both.npy").shape == (10,)
    assert (NPY / "both.npy").stat().st_size == 168
    np.save(NPY / "both.npy", np.arange(4, dtype="<i4"))
    assert os.pread(raw.fileno(), 100, 0) == np.arange(4, dtype="<i4").tobytes()
    # A type that is set in staging/ is that of the .npy file.
    (RAW / "told").write_bytes(np.arange(6.0).tobytes())
    assert np.load(NPY / "told.npy").dtype == "|u1"
    os.setxattr(RAW / "told", "user.h5.dtype", b"<f8")
    os.setxattr(RAW / "told", "user.h5.shape", b"[2, 3]")
    assert same(np.load(NPY / "told.npy"), np.arange(6.0).reshape(2, 3))
    os.setxattr(NPY / "told.npy", "user.units", b"K")
    assert os.getxattr(RAW / "told", "user.units") == b"K"
    assert os.listxattr(NPY / "told.npy") == ["user.units"]
    try:
        os.setxattr(NPY / "told.npy", "user.h5.dtype", b"<i8")
        raise AssertionError("a type")
    except PermissionError:
        pass
    commit()


def text():
    words = np.array(["one", "", "two\nlines", "back\\slash", "\u017c\U0001f422", "x" * 300])
    saved("words", words)
    assert (RAW / "words").read_bytes() == "one\n\ntwo\\nlines\nback\\\\slash\n\u017c\U0001f422\n".encode() + b"x" * 300 + b"\n"
    version = commit()
    with h5py.File(FILE, "r") as file:
        found = VersionedHDF5File(file)[version]["words"].asstr()[()]
        assert list(found) == list(words), found
    assert same(np.load(NPY / "words.npy"), words)
    # Big-endian characters, other lengths, other shapes of the first axis.
    np.save(NPY / "words.npy", words[:3].astype(">U20"))
    assert (RAW / "words").read_bytes() == b"one\n\ntwo\\nlines\n"
    assert same(np.load(NPY / "words.npy"), words[:3].astype("<U9"))
    # Edited as lines, shown as an array.
    with open(RAW / "words", "a") as file:
        file.write("longer than the others\n")
    loaded = np.load(NPY / "words.npy", mmap_mode="r")
    assert loaded.dtype == "<U22" and loaded[3] == "longer than the others", loaded
    version = commit()
    assert [word.decode() for word in committed("words", version)] == ["one", "", "two\nlines", "longer than the others"]
    many = np.array([f"number {n}" for n in range(20_000)]).reshape(200, 100)
    saved("many", many)
    version = commit()
    with h5py.File(FILE, "r") as file:
        assert (VersionedHDF5File(file)[version]["many"].asstr()[()] == many).all()
    saved("many", np.zeros((0, 100), dtype="<U1"))
    np.save(NPY / "many.npy", np.asfortranarray(many[:50]))
    assert (np.load(NPY / "many.npy") == many[:50]).all()
    commit()
    # A byte that is not UTF-8 comes and goes as Python's surrogateescape.
    saved("bytes", np.array([b"caf\xe9".decode("utf-8", "surrogateescape")]))
    assert (RAW / "bytes").read_bytes() == b"caf\xe9\n"
    # What no string can be is told when the file is closed, and no commit takes it.
    for bad in ("a\0b", "\ud800"):
        array = np.array(["fine", bad])
        refused(22, "words.npy: string 1", np.save, NPY / "words.npy", array)
        refused(22, "string 1", commit)
    np.save(NPY / "words.npy", words)
    # Within a .npy file of text nothing can be changed.
    try:
        np.load(NPY / "words.npy", mmap_mode="r+")
        raise AssertionError("text was mapped for writing")
    except PermissionError:
        pass
    refused(22, "its type", np.save, NPY / "words.npy", np.array([b"bytes"]))
    refused(22, "its type", np.save, NPY / "fixed.npy", np.array(["text"]))
    commit()


def fortran():
    for shape in ((300, 200), (2, 5000), (5000, 2), (7, 8, 9), (1, 30, 40), (4, 1, 5), (3, 3, 3, 3)):
        name = "x".join(map(str, shape))
        array = np.arange(np.prod(shape)).astype("<i4").reshape(shape)
        np.save(NPY / f"{name}.npy", np.asfortranarray(array))
        assert (RAW / name).read_bytes() == array.tobytes(), shape
        assert same(np.ascontiguousarray(np.load(NPY / f"{name}.npy")), array)
    large = np.random.default_rng(2).normal(size=(3000, 2500))
    np.save(NPY / "large_columns.npy", large.T)
    record = np.zeros((40, 50), dtype=[("a", "<i2"), ("b", "<f8")])
    record["b"] = np.arange(2000).reshape(40, 50)
    np.save(NPY / "records.npy", np.asfortranarray(record))
    version = commit()
    assert same(committed("large_columns", version), np.ascontiguousarray(large.T))
    assert same(committed("records", version), record)
    assert same(committed("7x8x9", version), np.arange(504, dtype="<i4").reshape(7, 8, 9))
    np.save(NPY / "300x200.npy", np.asfortranarray(np.ones((20, 200), dtype="<i4")))
    assert same(np.load(NPY / "300x200.npy"), np.ones((20, 200), dtype="<i4"))
    commit()


def tools():
    """cp, rsync, mv, rm, mkdir."""
    folder = FILE.parent / "arrays"
    folder.mkdir()
    arrays = {"a": np.arange(50_000.0), "b": np.arange(10).astype(">i2"), "s": np.array(["x", "yy"])}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    run = lambda *command: subprocess.run(command, check=True, capture_output=True)
    run("cp", *map(str, folder.glob("*.npy")), NPY)
    for name, array in arrays.items():
        assert same(np.load(NPY / f"{name}.npy"), array), name
    version = commit()
    assert committed("a", version).tobytes() == arrays["a"].tobytes()
    arrays["a"][7] = -7
    np.save(folder / "a.npy", arrays["a"][:40_000])
    if shutil.which("rsync"):
        for options in (["-r"], ["-r", "--inplace", "--ignore-times", "--exclude=s.npy"], ["-a", "--ignore-times"]):
            run("rsync", *options, f"{folder}/", f"{NPY}/synced/")
            for name in arrays:
                assert same(np.load(NPY / f"synced/{name}.npy"), np.load(folder / f"{name}.npy")), (options, name)
            assert sorted(os.listdir(NPY / "synced")) == ["a.npy", "b.npy", "s.npy"], os.listdir(NPY / "synced")
            assert sorted(os.listdir(RAW / "synced")) == ["a", "b", "s"]
            version = commit()
            assert committed("synced/a", version).tobytes() == arrays["a"][:40_000].tobytes()
    # As a program does that replaces a file in one go.
    np.save(open(NPY / "b.npy.part", "wb"), np.arange(4).astype(">i2"))
    os.rename(NPY / "b.npy.part", NPY / "b.npy")
    assert same(np.load(NPY / "b.npy"), np.arange(4).astype(">i2"))
    np.save(open(NPY / "b.npy.part", "wb"), np.arange(4.0))
    refused(22, "its type", os.rename, NPY / "b.npy.part", NPY / "b.npy")
    assert same(np.load(NPY / "b.npy"), np.arange(4).astype(">i2"))
    os.unlink(NPY / "b.npy.part")
    np.save(NPY / "other.npy", np.arange(4.0))
    refused(22, "its type", os.rename, NPY / "other.npy", NPY / "b.npy")
    os.unlink(NPY / "other.npy")
    run("mv", NPY / "b.npy", NPY / "moved.npy")
    run("mkdir", "-p", NPY / "box/er")
    run("mv", NPY / "moved.npy", NPY / "box/er/b.npy")
    assert sorted(os.listdir(RAW / "box/er")) == ["b"]
    run("mv", NPY / "box", NPY / "renamed")
    for name in ("text", "text.npz"):
        try:
            os.rename(NPY / "renamed/er/b.npy", NPY / name)
            raise AssertionError(name)
        except OSError as error:
            assert error.errno == 22, error
    assert same(committed("renamed/er/b", commit()), np.arange(4).astype(">i2"))
    # Between the views a file is copied, as between file systems.
    run("mv", NPY / "renamed/er/b.npy", NPY / "a2.npy")
    run("rm", "-r", NPY / "renamed")
    assert not (RAW / "renamed").exists()
    assert same(committed("a2", commit()), np.arange(4).astype(">i2"))
    # A backup of the views is what it says.
    run("cp", "-r", NPY, folder / "copy")
    assert same(np.load(folder / "copy/a2.npy"), np.arange(4).astype(">i2"))


def concurrent():
    """Two writers of one file: whichever wins, it is a .npy file."""
    import threading

    wrong = []

    def write(value: float):
        for _ in range(20):
            try:
                np.save(NPY / "contended.npy", np.full(3000, value))
            except OSError as error:
                # NumPy says of large arrays only how many elements were written.
                if error.errno != 22 and "requested and" not in str(error):
                    wrong.append(error)

    writers = [threading.Thread(target=write, args=(value,)) for value in (1.0, 2.0)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert not wrong, wrong
    np.save(NPY / "contended.npy", np.full(3000, 3.0))
    assert same(committed("contended", commit()), np.full(3000, 3.0))
    # Held open while it is removed, and while it is committed.
    file = open(NPY / "held.npy", "wb", buffering=0)
    whole = io.BytesIO()
    np.save(whole, np.arange(9.0))
    whole = whole.getvalue()
    file.write(whole[:150])
    (NPY / "held.npy").unlink()
    file.write(whole[150:])
    file.close()
    assert not (NPY / "held.npy").exists()
    with open(NPY / "held.npy", "wb", buffering=0) as file:
        file.write(whole)
        os.fsync(file.fileno())
        assert same(committed("held", commit()), np.arange(9.0))
        os.pwrite(file.fileno(), np.float64(77).tobytes(), len(whole) - 8)
    assert np.load(NPY / "held.npy")[-1] == 77
    assert committed("held", commit())[-1] == 77


def frames():
    """pandas, xarray, numpy.memmap and jq on what was committed, and on what is staged."""
    import pandas as pd
    import xarray as xr

    table = np.arange(600.0).reshape(200, 3)
    np.save(NPY / "frame.npy", table)
    np.save(NPY / "time.npy", np.arange("2026-01-01", "2026-07-20", dtype="<M8[D]"))
    for folder in (NPY, MOUNT / "npy/versions" / commit()):
        mapped = np.load(folder / "frame.npy", mmap_mode="r")
        time = np.load(folder / "time.npy")
        frame = pd.DataFrame(mapped, columns=["a", "b", "c"], index=pd.DatetimeIndex(time))
        assert frame["b"].sum() == table[:, 1].sum() and frame.loc["2026-01-02", "c"] == 5
        array = xr.DataArray(mapped, dims=("time", "x"), coords={"time": time.astype("<M8[ns]")})
        assert float(array.sel(time="2026-07-19").sum()) == table[199].sum()
        everything = xr.Dataset({"frame": array, "first": ("x", mapped[0])})
        assert float((everything["frame"] - everything["first"]).isel(time=1).sum()) == 9
        for mode in ("r", "c"):
            raw = np.memmap(folder / "frame.npy", "<f8", mode, offset=128, shape=(200, 3))
            assert same(np.asarray(raw), table)
        raw[0] = -1
        assert np.load(folder / "frame.npy")[0, 1] == 1
    about = MOUNT / "meta/current/frame.json"
    said = subprocess.run(["jq", "-c", "[.dtype, .shape, .kind]", about], check=True, capture_output=True, text=True).stdout
    assert said == '["<f8",[200,3],"dataset"]\n', said
    # What is computed goes back the same way.
    np.save(NPY / "frame.npy", frame.rolling(2, min_periods=1).mean().to_numpy())
    assert committed("frame", commit())[1, 0] == 1.5


STEPS = [types, replacing, not_arrays, unfinished, headers, mapped, both_views, text, fortran, tools, concurrent, frames]
for step in STEPS:
    step()
    print(step.__name__, flush=True)
sys.stdout.flush()
# versioned-hdf5 complains about its own objects while the interpreter shuts down.
os._exit(0)
