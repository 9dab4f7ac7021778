"""Random arrays, saved into `npy/staging/`, loaded back, committed, and read by the Python library.

    npy_random.py MOUNT FILE SEED ROUNDS
"""

import os
import sys
from pathlib import Path

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

MOUNT, FILE = map(Path, sys.argv[1:3])
SEED, ROUNDS = map(int, sys.argv[3:5])
RAW, NPY = MOUNT / "staging", MOUNT / "npy/staging"
random = np.random.default_rng(SEED)

SIMPLE = ["|b1", "|i1", "|u1", "<i2", ">u2", "<i4", ">i4", "<i8", ">u8", "<f2", ">f4", "<f8", ">f8", "<f16", "<c8", ">c16", "|S1", "|S7", "|V3", "<M8[us]", ">m8[D]"]
LETTERS = list("ab\\\n\t\u00e9\u017c\U0001f422\udcff ")


def dtype_of() -> np.dtype:
    kind = random.integers(10)
    if kind < 6:
        return np.dtype(str(random.choice(SIMPLE)))
    if kind < 8:
        return np.dtype(f"{random.choice(['<', '>'])}U{random.integers(1, 12)}")
    numbers = [text for text in SIMPLE if text[1] not in "VMm"]
    fields = [(f"m{n}", str(random.choice(numbers)), tuple(random.integers(1, 4, size=random.integers(3)))) for n in range(random.integers(1, 5))]
    return np.dtype(fields, align=bool(random.integers(2)))


def shape_of(axes: int | None = None) -> tuple[int, ...]:
    axes = axes or int(random.integers(1, 5))
    most = {1: 3000, 2: 60, 3: 15, 4: 7}[axes]
    return tuple(int(n) for n in random.integers(0 if random.random() < 0.1 else 1, most + 1, size=axes))


def array_of(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    if dtype.kind == "U":
        words = ["".join(random.choice(LETTERS, size=random.integers(dtype.itemsize // 4 + 1))) for _ in range(count)]
        array = np.array(words, dtype=dtype).reshape(shape)
    elif dtype.kind == "b":
        array = random.integers(2, size=shape).astype(bool)
    else:
        data = random.integers(256, size=count * dtype.itemsize, dtype=np.uint8)
        array = np.frombuffer(data.tobytes(), dtype).reshape(shape)
        if dtype.names:
            array = array.copy()
            for name in dtype.names:
                if array[name].dtype.kind == "b":
                    array[name] = array[name].view("u1") % 2
    if random.random() < 0.3:
        array = np.asfortranarray(array)
    return array


def bytes_of(array: np.ndarray) -> bytes:
    """The elements in the order of C; strings at the width that they need."""
    if array.dtype.kind == "U":
        chars = max((len(word) for word in array.reshape(-1).tolist()), default=0)
        array = array.astype(f"<U{max(chars, 1)}")
    if array.dtype.names:
        # NumPy copies no gaps between members.
        return b"".join(np.ascontiguousarray(array[name]).tobytes() for name in array.dtype.names)
    return np.ascontiguousarray(array).tobytes()


def compare(path: str, found: np.ndarray, array: np.ndarray):
    assert found.shape == array.shape, (path, found.shape, array.shape)
    if array.dtype.kind != "U":
        assert found.dtype == array.dtype, (path, found.dtype, array.dtype)
    assert bytes_of(found) == bytes_of(array), (path, array.dtype, array.shape)


def judge(state: dict[str, np.ndarray], version: str):
    """What the Python library reads of a version."""
    with h5py.File(FILE, "r") as file:
        group = VersionedHDF5File(file)[version]
        for path, array in state.items():
            found = np.asarray(group[path][()])
            if array.dtype.kind == "U":
                found = np.array([word.decode("utf-8", "surrogateescape") for word in found.reshape(-1)], dtype=f"<U{array.dtype.itemsize // 4}").reshape(found.shape)
            assert found.shape == array.shape, (path, found.shape)
            assert bytes_of(found) == bytes_of(array), (path, array.dtype)


state: dict[str, np.ndarray] = {}
versions: dict[str, dict[str, np.ndarray]] = {}
count = 0
for number in range(ROUNDS):
    for _ in range(12):
        if state and random.random() < 0.3:
            path = str(random.choice(sorted(state)))
            dtype, axes = state[path].dtype, state[path].ndim
            array = array_of(dtype, shape_of(axes))
        else:
            path = f"{random.choice(['', 'g/', 'h/'])}a{count}"
            array = array_of(dtype_of(), shape_of())
        name = NPY / f"{path}.npy"
        name.parent.mkdir(exist_ok=True)
        if random.random() < 0.3:
            with open(f"{name}.part", "wb") as file:
                np.save(file, array)
            os.rename(f"{name}.part", name)
        else:
            np.save(name, array)
        state[path] = array
        compare(path, np.load(name), array)
        compare(path, np.load(name, mmap_mode="r"), array)
        count += 1
    (RAW / ".commit").write_text(f"v{number}")
    versions[f"v{number}"] = dict(state)
    judge(state, f"v{number}")
for version, arrays in versions.items():
    for path, array in arrays.items():
        compare(path, np.load(MOUNT / f"npy/versions/{version}/{path}.npy"), array)
print(f"{count} arrays as they were saved", flush=True)
# versioned-hdf5 complains about its own objects while the interpreter shuts down.
os._exit(0)
