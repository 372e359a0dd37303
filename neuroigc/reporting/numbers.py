"""The numbers of a study, arranged for reading."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from neuroigc.reporting.study import ELSEWHERE

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RoiTable",
    "feature_name",
    "format_duration",
    "format_number",
    "format_p",
    "format_size",
    "format_small",
    "group_intervals",
    "is_known",
    "join_words",
    "power_of_ten",
    "roi_table",
    "size_lines",
]

_UNKNOWN = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class RoiTable:
    """IGC of one output, by region and subject, both hemispheres summed.

    Attributes
    ----------
    output : str
        The decoded feature.
    subjects : list of str
        Columns of ``values``.
    rows : list of dict
        Per region: name, elsewhere (whether these are the vertices outside all regions),
        vertices (mean over subjects), mean, sd (between subjects), left, right (means over
        subjects), share (of the correlation decoded), values (by subject).
    totals : dict of str to float
        Sum over the rows, by subject.
    correlations : dict of str to float
        Correlation decoded, by subject; empty where it is not known.
    """

    output: str
    subjects: list[str]
    rows: list[dict]
    totals: dict[str, float]
    correlations: dict[str, float]

    @property
    def regions(self) -> list[dict]:
        """The rows that are named regions."""
        return [row for row in self.rows if not row["elsewhere"]]

    @property
    def adds_up(self) -> bool:
        """Whether the rows are a partition: in every subject they sum to the correlation."""
        return bool(self.correlations) and all(
            abs(total - self.correlations.get(subject, math.nan)) <= 0.01
            for subject, total in self.totals.items()
        )

    @property
    def top(self) -> dict | None:
        """The named region with the largest mean, and in how many subjects it is the largest."""
        regions = [row for row in self.regions if is_known(row["mean"])]
        if not regions:
            return None
        best = max(regions, key=lambda row: row["mean"])
        wins = 0
        for subject in self.subjects:
            there = [row for row in regions if is_known(row["values"].get(subject))]
            wins += bool(there) and max(there, key=lambda row: row["values"][subject]) is best
        return best | {"wins": wins}


def roi_table(
    table: pd.DataFrame, output: str, correlations: dict[str, float] | None = None
) -> RoiTable:
    """Arrange the rows of ``roi.tsv`` that belong to one output.

    A region that a subject does not have stays unknown there; it is not zero.
    """
    correlations = correlations or {}
    rows = table[table["output"] == output]
    subjects = list(dict.fromkeys(rows["subject"]))
    whole = [correlations.get(subject, math.nan) for subject in subjects]
    pairs = rows[["atlas", "roi"]].drop_duplicates()
    ambiguous = set(pairs["roi"][pairs["roi"].duplicated()])
    arranged = []
    for (atlas, roi), part in rows.groupby(["atlas", "roi"], sort=False):
        by_subject = part.groupby("subject")["igc"].sum(min_count=1)
        by_side = part.groupby(["hemisphere", "subject"])["igc"].sum(min_count=1)
        sides = by_side.groupby(level="hemisphere").mean()
        arranged.append(
            {
                "name": f"{roi} ({atlas})" if roi in ambiguous else roi,
                "elsewhere": roi == ELSEWHERE,
                "vertices": float(part.groupby("subject")["n_vertices"].sum().mean()),
                "mean": float(by_subject.mean()),
                "sd": float(by_subject.std()),  # NaN for a single subject
                "left": float(sides.get("left", math.nan)),
                "right": float(sides.get("right", math.nan)),
                "values": {str(key): float(value) for key, value in by_subject.items()},
            }
        )
    for row in arranged:
        row["share"] = row["mean"] * len(whole) / sum(whole) if sum(whole) > 0 else math.nan
    totals = {
        subject: sum(filter(is_known, (row["values"].get(subject) for row in arranged)))
        for subject in subjects
    }
    return RoiTable(output, subjects, arranged, totals, correlations)


def group_intervals(group: pd.DataFrame) -> pd.DataFrame:
    """Return ``group.tsv`` with igc, low and high: means and Student's 95 % intervals."""
    from scipy.stats import t

    n = group["n_subjects"]
    reach = t.ppf(0.975, (n - 1).where(n > 1)) * group["sd"] / n**0.5
    return group.assign(igc=group["mean"], low=group["mean"] - reach, high=group["mean"] + reach)


def feature_name(output: str) -> str:
    """Return an output's name as words."""
    return output.replace("one_over_f", "1/f").replace("_", " ")


def is_known(value: object) -> bool:
    """Return whether ``value`` is a number that can be shown."""
    # Numbers of numpy, too.
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def format_number(value: object, digits: int = 2) -> str:
    """Write a number with a fixed count of decimals and a true minus sign."""
    if not is_known(value):
        return _UNKNOWN
    text = f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    # What rounds to nothing has no sign.
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def format_small(value: object) -> str:
    """Write an error: two digits, as a power of ten where it is tiny."""
    if not is_known(value):
        return _UNKNOWN
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:#.2g}".rstrip(".").replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.replace('-', '−')} × {power_of_ten(int(exponent))}"


def format_p(value: object) -> str:
    """Write a p-value: to three decimals, or as smaller than what these can show."""
    return "< 0.001" if is_known(value) and value < 0.001 else format_number(value, 3)  # type: ignore[operator]


def power_of_ten(exponent: int) -> str:
    """Write a power of ten."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def format_duration(seconds: object) -> str:
    """Write a time span in the two units that matter."""
    if not is_known(seconds):
        return _UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def format_size(megabytes: object) -> str:
    """Write an amount of memory."""
    if not is_known(megabytes):
        return _UNKNOWN
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1024 else f"{megabytes:.0f} MB"


def join_words(words: list[str]) -> str:
    """Join as in prose: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def size_lines(prf: pd.DataFrame, areas: list[str], *, literature: str) -> list[dict]:
    """Return the lines of size against eccentricity as texts, a row for each area that has one.

    ``literature`` is a source of :data:`neuroigc.prf.LITERATURE_SIZES`. Keys: name, n, slope,
    intercept (each with its 95 % interval), known_slope, known_intercept.
    """
    from neuroigc.prf.sizes import size_eccentricity

    good = prf[(prf["status"] == "ok") & prf["roi"].isin(areas)]
    if not len(good):
        return []
    table = size_eccentricity(good, good["roi"].to_numpy(), literature=literature).set_index("area")
    rows = []
    for area in (area for area in areas if area in table.index):
        line = table.loc[area]
        if is_known(line["slope"]):
            rows.append(
                {
                    "name": area,
                    "n": int(line["n_vertices"]),
                    "slope": _with_interval(line, "slope"),
                    "intercept": _with_interval(line, "intercept"),
                    "known_slope": format_number(line["literature_slope"]),
                    "known_intercept": format_number(line["literature_intercept"]),
                }
            )
    return rows


def _with_interval(line, name):
    low, high = (format_number(line[f"{name}_{end}"]) for end in ("low", "high"))
    return f"{format_number(line[name])} ({low} to {high})"
