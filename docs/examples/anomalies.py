"""A notebook as a script: how far each day is from the mean of its place, worked out from the current version and committed as a new one.

anomalies.py MOUNTPOINT
"""

# %% What is there
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

tree = Path(sys.argv[1])
temperature = np.load(tree / "npy/current/grid/temperature.npy", mmap_mode="r")
about = json.loads((tree / "meta/current/grid/temperature.json").read_text())
stations = (tree / "current/stations").read_text().splitlines()
print(about["attributes"]["long_name"], temperature.shape, "of", len(stations), "stations")

# %% Months, as pandas sees them
days = pd.date_range("2026-01-01", periods=len(temperature), name="day")
monthly = pd.Series(temperature.mean(axis=(1, 2)), days).resample("MS").mean()
print(monthly.loc[["2026-01", "2026-07"]].round(1).to_string())

# %% What was revised since the first version
first = np.load(tree / "npy/versions/first-half/grid/temperature.npy", mmap_mode="r")
revised = np.argwhere((first != temperature[: len(first)]).any(axis=(1, 2))).ravel()
print("revised:", ", ".join(f"{days[day]:%d %B}" for day in revised[[0, -1]]))

# %% The result becomes a dataset of the next version
anomalies = (temperature - temperature.mean(axis=0)).astype("<f4")
out = tree / "staging/grid/anomalies"
anomalies.tofile(out)
for name, value in {
    "h5.dtype": anomalies.dtype.str,
    "h5.shape": json.dumps(anomalies.shape),
    "h5.chunks": json.dumps([30, *anomalies.shape[1:]]),
    "h5.filters": json.dumps(["shuffle", "gzip"]),
    "units": about["attributes"]["units"],
}.items():
    os.setxattr(out, f"user.{name}", value.encode())
(tree / "staging/.commit").write_text("anomalies\n")

# %% It is there
committed = np.load(tree / "npy/versions/anomalies/grid/anomalies.npy", mmap_mode="r")
assert np.array_equal(committed, anomalies)
print(committed.shape, committed.dtype, os.getxattr(tree / "current/grid/anomalies", "user.units").decode())
