"""A line of the table: samples of each contender, what they are compared by, and what was to be reached."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from contenders import NAMES, VH5FS

#: Units of which more is better; of the others less is.
RATES = {"GB/s", "entries/s"}


def figure(value: float, unit: str) -> str:
    """A value as it is printed, with its unit."""
    if unit == "s":
        if value < 0.9995e-3:
            return f"{value * 1e6:.3g} µs"
        return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 1e6:.3g} MB" if value < 1e9 else f"{value / 1e9:.3g} GB"
    if unit == "KiB":
        return f"{value / 1024:.3g} MiB" if value < 1000 * 1024 else f"{value / 1024**2:.3g} GiB"
    if unit == "entries/s":
        return f"{value:,.0f}/s"
    return f"{value:.3g} {unit}"


@dataclass(frozen=True)
class Target:
    """What vh5fs is to reach: at least so many times as good as `against`, or, without that, at most `bound` in the row's unit."""

    bound: float
    against: str | None = None

    def text(self, unit: str) -> str:
        return f"at most {figure(self.bound, unit)}" if self.against is None else f"{self.bound:g} × {NAMES[self.against]}"

    def reached(self, row: Row) -> bool:
        if self.against is None:
            return row.median(VH5FS) <= self.bound
        return row.times_better(self.against) >= self.bound


@dataclass(frozen=True)
class Row:
    """Samples of one thing. Those of the contenders are taken in turns, one of each in every round."""

    case: str
    what: str
    unit: str
    samples: dict[str, list[float]]
    target: Target | None = None
    #: Shown in the README too.
    headline: bool = False
    #: The curve that it is a point of, and where.
    series: str | None = None
    at: float | None = None

    def median(self, who: str) -> float:
        return median(self.samples[who])

    def times_better(self, who: str) -> float:
        """How many times as fast, or as small, vh5fs is."""
        ours, theirs = self.median(VH5FS), self.median(who)
        return ours / theirs if self.unit in RATES else theirs / ours

    def reached(self) -> bool | None:
        return None if self.target is None else self.target.reached(self)

    def to_json(self) -> dict:
        figures = {who: {"median": median(s), "min": min(s), "max": max(s), "samples": s} for who, s in self.samples.items()}
        row = {"case": self.case, "what": self.what, "unit": self.unit, "headline": self.headline, "contenders": figures}
        if self.series is not None:
            row |= {"series": self.series, "at": self.at}
        if self.target is not None:
            row["target"] = {"bound": self.target.bound, "against": self.target.against, "reached": self.reached()}
        return row

    @classmethod
    def from_json(cls, row: dict) -> Row:
        target = row.get("target")
        return cls(
            case=row["case"],
            what=row["what"],
            unit=row["unit"],
            samples={who: found["samples"] for who, found in row["contenders"].items()},
            target=None if target is None else Target(target["bound"], target["against"]),
            headline=row["headline"],
            series=row.get("series"),
            at=row.get("at"),
        )
