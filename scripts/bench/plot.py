"""The picture of a run: bars of reading rates, and curves of how costs grow.

Plain SVG, drawn on a card of its own, so that it can be read on any page; the card follows the viewer's light or dark theme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from contenders import NAMES, PASSTHROUGH, PLAIN, PYTHON, VH5FS
from rows import Row, figure

WIDTH = 960
MARGIN = 28
GAP = 36
#: Room for a panel's title.
TITLE = 46
BAR = 13
BAR_GAP = 3
GROUP_GAP = 26
#: Right of the longest bar, for the longest label.
BAR_LABEL = 150
CURVE_HEIGHT = 180
#: Left of a curve, for the labels of its axis.
AXIS = 54

STYLE = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 14px; font-weight: 600 } .small { font-size: 11px; fill: #59636e }
.card { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #d1d9e0; stroke-width: 1; fill: none }
.vh5fs { fill: #0969da; stroke: #0969da } .python { fill: #d4760a; stroke: #d4760a }
.passthrough { fill: #8c959f; stroke: #8c959f } .plain { fill: #57ab5a; stroke: #57ab5a }
.line { fill: none; stroke-width: 2 } text.label { stroke: none; font-weight: 600 } .own { font-weight: 600; fill: #1f2328 } rect.bar { stroke: none }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .own { fill: #e6edf3 } .card { fill: #0d1117; stroke: #3d444d } .grid { stroke: #30363d }
.vh5fs { fill: #4493f8; stroke: #4493f8 } .python { fill: #e3942f; stroke: #e3942f }
}"""


@dataclass(frozen=True)
class Curves:
    """A panel of curves."""

    series: str
    title: str
    axis: str


CURVES = [
    Curves("first", "Stat and first byte", "chunks"),
    Curves("commit-chunks", "Edit one element and commit", "chunks"),
    Curves("mount-versions", "Mount (Python: open, list the versions)", "versions"),
    Curves("commit-versions", "Edit one element and commit, again and again", "number of the commit"),
]

#: Which reads are shown as bars, beside whom.
BARS = [
    ("whole read, first time", "First read after mounting", [VH5FS, PYTHON, PASSTHROUGH]),
    ("whole read, second time", "Second read", [VH5FS, PYTHON, PLAIN]),
]


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def bars(rows: list[Row], title: str, who: list[str], left: float, top: float, width: float) -> tuple[list[str], float]:
    """A panel of rates, a group of bars for each row: its parts, and where it ends. The scale is that of the largest."""
    parts = [text(left, top + 16, title, "title"), *legend(who, left, top + 34)]
    most = max((row.median(name) for row in rows for name in who), default=1)
    y = top + TITLE + 14
    for row in rows:
        parts.append(text(left, y, row.case, "small"))
        y += 6
        for name in who:
            rate = row.median(name)
            length = max(1, rate / most * (width - BAR_LABEL))
            words, kind = figure(rate, row.unit), "small"
            if name == VH5FS:
                kind = "small own"
            else:
                words += f" (vh5fs: {row.times_better(name):.2g} ×)"
            parts.append(f'<rect class="bar {name}" x="{left:.1f}" y="{y:.1f}" width="{length:.1f}" height="{BAR}" rx="2"/>')
            parts.append(text(left + length + 6, y + BAR - 2, words, kind))
            y += BAR + BAR_GAP
        y += GROUP_GAP - BAR_GAP
    return parts, y - GROUP_GAP + BAR_GAP


def legend(who: list[str], x: float, y: float) -> list[str]:
    parts = []
    for name in who:
        parts.append(f'<rect class="bar {name}" x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" rx="2"/>')
        parts.append(text(x + 15, y, NAMES[name], "small"))
        x += 30 + 6 * len(NAMES[name])
    return parts


def decades(low: float, high: float) -> list[int]:
    """The exponents of the powers of ten from the one at or below `low` to the one at or above `high`; two at least."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return list(range(first, max(last, first + 1) + 1))


def curves(panel: Curves, rows: list[Row], left: float, top: float, width: float) -> tuple[list[str], float]:
    """Medians over `at`, both axes logarithmic, with the least and the most as a bar at each point."""
    parts = [text(left, top + 16, panel.title, "title"), *legend([VH5FS, PYTHON], left, top + 34)]
    points = {name: [(row.at, row.median(name), min(row.samples[name]), max(row.samples[name])) for row in rows] for name in (VH5FS, PYTHON)}
    every = [point for found in points.values() for point in found]
    xs = decades(min(p[0] for p in every), max(p[0] for p in every))
    ys = decades(min(p[2] for p in every), max(p[3] for p in every))
    x0, y0, x1, y1 = left + AXIS, top + TITLE + CURVE_HEIGHT, left + width - 8, top + TITLE + 6

    def place_x(value: float) -> float:
        return x0 + (math.log10(value) - xs[0]) / (xs[-1] - xs[0]) * (x1 - x0)

    def place_y(value: float) -> float:
        return y0 + (math.log10(value) - ys[0]) / (ys[-1] - ys[0]) * (y1 - y0)

    for exponent in ys:
        y = place_y(10.0**exponent)
        parts.append(f'<path class="grid" d="M{x0:.1f} {y:.1f}H{x1:.1f}"/>')
        parts.append(text(x0 - 6, y + 4, power(exponent, "s"), "small", "end"))
    for exponent in xs:
        x = place_x(10.0**exponent)
        parts.append(f'<path class="grid" d="M{x:.1f} {y0:.1f}V{y1:.1f}"/>')
        parts.append(text(x, y0 + 16, power(exponent, ""), "small", "middle"))
    parts.append(text((x0 + x1) / 2, y0 + 32, panel.axis, "small", "middle"))
    for name, found in points.items():
        line = " ".join(f"{place_x(at):.1f},{place_y(middle):.1f}" for at, middle, _, _ in found)
        parts.append(f'<polyline class="line {name}" style="fill:none" points="{line}"/>')
        for at, middle, least, most in found:
            x = place_x(at)
            parts.append(f'<path class="{name}" d="M{x:.1f} {place_y(least):.1f}V{place_y(most):.1f}"/>')
            parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{place_y(middle):.1f}" r="3"/>')
        at, middle = found[-1][:2]
        parts.append(text(place_x(at) - 6, place_y(middle) - 8, figure(middle, "s"), f"label {name}", "end"))
    return parts, y0 + 36


def power(exponent: int, unit: str) -> str:
    """A power of ten, as on an axis."""
    if not unit:
        return f"{10**exponent:,}"
    for least, factor, name in ((0, 0, "s"), (-3, 3, "ms"), (-6, 6, "µs")):
        if exponent >= least:
            return f"{10 ** (exponent + factor):,} {name}"
    return f"1e{exponent} s"


def picture(rows: list[Row], about: str) -> str:
    """The whole picture. A panel without rows is left out."""
    width = (WIDTH - 2 * MARGIN - GAP) / 2
    lefts = (MARGIN, MARGIN + width + GAP)
    parts, bottom = [], MARGIN
    ends = []
    for (what, title, who), left in zip(BARS, lefts, strict=True):
        found = [row for row in rows if row.what == what]
        drawn, end = bars(found, title, who, left, bottom, width)
        parts += drawn
        ends.append(end)
    bottom = max(ends) + GAP
    shown = [(panel, [row for row in rows if row.series == panel.series]) for panel in CURVES]
    shown = [(panel, found) for panel, found in shown if found]
    for number in range(0, len(shown), 2):
        ends = []
        for (panel, found), left in zip(shown[number : number + 2], lefts, strict=False):
            drawn, end = curves(panel, found, left, bottom, width)
            parts += drawn
            ends.append(end)
        bottom = max(ends) + GAP
    middle = about.find(";", len(about) // 2 - 20) + 1
    for line in (about[:middle], about[middle:].strip()):
        parts.append(text(MARGIN, bottom, line, "small"))
        bottom += 16
    height = bottom + 4
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img" aria-label="Benchmark of vh5fs">',
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>',
            *parts,
            "</svg>\n",
        ]
    )
