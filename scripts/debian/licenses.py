"""Prints the terms of everything that the program contains: for each crate that is linked, its licence, and each licence text
that it or what it bundles comes with.

    cargo metadata --format-version 1 --locked --filter-platform TARGET | licenses.py
"""

import json
import re
import sys
from pathlib import Path

#: Files that hold terms, in a crate or in what it bundles.
TERMS = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE)([-._].*)?$", re.IGNORECASE)
#: What lies deeper belongs to tests and tools of what is bundled.
MAX_DEPTH = 4


def linked(metadata: dict) -> list[dict]:
    """The packages that the program is linked from, itself not among them."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    pending, seen = [root], {root}
    while pending:
        for dependency in nodes[pending.pop()]["deps"]:
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            # The sources of HDF5 are a dependency of the build.
            is_linked |= dependency["pkg"].partition("#")[2].startswith("hdf5-metno-src@")
            if is_linked and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                pending.append(dependency["pkg"])
    packages = [package for package in metadata["packages"] if package["id"] in seen - {root}]
    return sorted(packages, key=lambda package: package["name"])


def main() -> None:
    printed: dict[str, str] = {}
    for package in linked(json.load(sys.stdin)):
        folder = Path(package["manifest_path"]).parent
        name = f"{package['name']} {package['version']}"
        print(f"==== {name}: {package['license'] or 'see below'}\n")
        files = sorted(path for path in folder.rglob("*") if path.is_file() and TERMS.match(path.name))
        for path in files:
            place = path.relative_to(folder)
            if len(place.parts) > MAX_DEPTH or path.suffix in (".rs", ".py", ".h", ".c"):
                continue
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            before = printed.setdefault(text, f"{place} of {name}")
            print(f"---- {place}\n")
            print(text if before == f"{place} of {name}" else f"The same as {before}.")
            print()


main()
