"""Writes the file of the demonstration: daily temperatures on a small grid, revised a few times over the year.

    demo_data.py FILE
"""

import sys
from datetime import datetime, timezone

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File

rng = np.random.default_rng(7)
days = np.arange(365)
season = 8.5 - 11.0 * np.cos(2 * np.pi * (days - 20) / 365)
temperature = season[:, None, None] + rng.normal(0, 2.5, (365, 12, 16))


def utc(month, day, hour=0, minute=0):
    return datetime(2026, month, day, hour, minute, tzinfo=timezone.utc)


with h5py.File(sys.argv[1], "w") as file:
    versioned = VersionedHDF5File(file)
    with versioned.stage_version("first-half", timestamp=utc(3, 2, 9, 30)) as group:
        data = group.create_dataset("grid/temperature", data=temperature[:180], chunks=(30, 6, 8), compression="gzip", shuffle=True)
        data.attrs["units"] = "degC"
        data.attrs["long_name"] = "daily mean air temperature"
        group.create_dataset("grid/elevation", data=rng.integers(90, 1200, (12, 16)).astype("<i2"), chunks=(12, 16)).attrs["units"] = "m"
        stations = np.array(["Oslo", "Kraków", "Évora"], dtype=object)
        group.create_dataset("stations", data=stations, dtype=h5py.string_dtype())
    with versioned.stage_version("sensor-fixed", timestamp=utc(5, 18, 16, 5)) as group:
        group["grid/temperature"][40:50, 3, 4] += 1.5
    with versioned.stage_version("whole-year", timestamp=utc(7, 1)) as group:
        group["grid/temperature"].resize((365, 12, 16))
        group["grid/temperature"][180:] = temperature[180:]
    with versioned.stage_version("new-station", timestamp=utc(11, 22, 21, 34)) as group:
        group["stations"].resize((4,))
        group["stations"][3] = "Žilina"
    versioned.close()
