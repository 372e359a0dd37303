"""Tables of what was tested: areas of each subject, the group, scores, and sanity checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neuroigc.reporting.numbers import feature_name, format_number, format_p, is_known
from neuroigc.reporting.study import Study

__all__ = ["Cell", "Table", "area_tables", "group_tables", "sanity_table", "score_table"]

# The colours that the words of sanity.tsv get; others have none.
_LIGHTS = {
    "green": "good", "ok": "good", "pass": "good", "passed": "good",
    "amber": "fair", "yellow": "fair", "warning": "fair", "unclear": "fair",
    "red": "bad", "fail": "bad", "failed": "bad",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What stands in a table: a text, the number to sort by, and how it looks.

    Attributes
    ----------
    text : str
        As shown.
    value : float or None
        To sort by; None for words, and where nothing is known.
    look : {"", "words", "good", "fair", "bad"}
        Class of the cell.
    """

    text: str
    value: float | None = None
    look: str = ""


@dataclass(frozen=True)
class Table:
    """A table that the page shows.

    Attributes
    ----------
    caption, explanation : str
        What it holds, and how to read it.
    columns : list of (str, str)
        Name and, if not empty, what it stands for.
    rows : list of list of Cell
        The first of each names the row.
    """

    caption: str
    explanation: str
    columns: list[tuple[str, str]]
    rows: list[list[Cell]]


def _number(value: Any, digits: int = 3, write: Callable | None = None) -> Cell:
    known = is_known(value)
    text = write(value) if write else format_number(value, digits)
    return Cell(text, float(value) if known else None)


def _words(text: object) -> Cell:
    return Cell(str(text), None, "words")


def area_tables(study: Study) -> list[Table]:
    """Return, for each output, the areas of all subjects with intervals and p-values."""
    table = study.tables.get("roi.tsv")
    if table is None or not {"low", "high"} <= set(table):
        return []
    tests = [name for name in ("p", "p_fwe", "p_fdr") if name in table]
    columns = [("Region", ""), ("Subject", ""), ("Side", ""), ("IGC", "")]
    columns += [("Low", "of the 95 % interval"), ("High", "of the 95 % interval")]
    columns += [_TESTS[name] for name in tests]
    return [
        Table(
            f"{_title(output)}: areas of every subject, by hemisphere",
            _AREAS_READ + (_TESTS_READ if tests else ""),
            columns,
            [
                [_words(row.roi), _words(row.subject), _words(row.hemisphere)]
                + [_number(getattr(row, name)) for name in ("igc", "low", "high")]
                + [_number(getattr(row, name), write=format_p) for name in tests]
                for row in own[own["n_vertices"] > 0].itertuples()
            ],
        )
        for output, own in table.groupby("output", sort=False)
    ]


_TESTS = {
    "p": ("p", "two-sided, of this area alone"),
    "p_fwe": ("p FWE", "family-wise, over all areas"),
    "p_fdr": ("p FDR", "false discovery rate, over all areas"),
}
_AREAS_READ = (
    "Intervals hold for other images of the same kind, with the model as it is: the jackknife over "
    "held-out images. "
)
_TESTS_READ = (
    "p: targets permuted over images, the model as it is; families are all areas of both "
    "hemispheres, of one subject and output."
)


def group_tables(study: Study) -> list[Table]:
    """Return, for each output, the statistics of the group."""
    table = study.tables.get("group.tsv")
    if table is None:
        return []
    replicated = "n_significant" in table
    columns = [("Region", ""), ("Side", ""), ("Mean", "")]
    columns += [("SD", "standard deviation between subjects"), ("t", "")]
    columns += list(_TESTS.values())
    if replicated:
        columns += [
            ("k of n", "subjects in whom p is 0.05 or less"),
            ("p k of n", "binomial, of so many by chance"),
            ("Prevalence", "least share of the population with the effect, with 95 % confidence"),
        ]
    tables = []
    for output, own in table.groupby("output", sort=False):
        rows = []
        # Both hemispheres together stand first.
        own = own[own["n_subjects"] > 0].sort_values(
            "hemisphere", key=lambda side: side != "both", kind="stable"
        )
        for row in own.to_dict("records"):
            cells = [_words(row["roi"]), _words(row["hemisphere"])]
            cells += [_number(row["mean"]), _number(row["sd"]), _number(row["t"], 1)]
            cells += [_number(row.get(name), write=format_p) for name in _TESTS]
            if replicated:
                share, known = row["n_significant"], is_known(row["n_significant"])
                text = f"{share:.0f} of {row['n_subjects']:.0f}" if known else "–"
                cells += [Cell(text, float(share) if known else None)]
                cells += [_number(row["p_replication"], write=format_p)]
                cells += [_number(row["prevalence_low"], 2)]
            rows.append(cells)
        tables.append(Table(f"{_title(output)}: the group", _GROUP_READ, columns, rows))
    return tables


_GROUP_READ = (
    "p: signs of whole subjects flipped, exact but no smaller than 2 / 2ⁿ for n subjects; families "
    "are all areas of an output, of single hemispheres or of both together."
)


def score_table(study: Study) -> Table | None:
    """Return correlations of the network, and of ridge regression beside it, with intervals."""
    table = study.tables.get("decoding.tsv")
    if table is None or not len(table):
        return None
    models = [("", "network")] + ([("ridge_", "ridge")] if "ridge_r" in table else [])
    columns = [("Output", ""), ("Subject", ""), ("Images", "")]
    for prefix, name in models:
        columns.append((f"r, {name}", ""))
        if f"{prefix}r_low" in table:
            columns += [("Low", f"of the 95 % interval, {name}"), ("High", f"of that, {name}")]
    columns += [("Gain", "r of the network less that of ridge regression")][: len(models) - 1]
    columns.append(("Noise ceiling", "of features, which are computed from images"))
    rows = []
    for row in table.to_dict("records"):
        cells = [_words(feature_name(row["output"])), _words(row["subject"])]
        cells.append(_number(row["n_test"], 0))
        for prefix, _ in models:
            names = [f"{prefix}{end}" for end in ("r", "r_low", "r_high")]
            cells += [_number(row[name]) for name in names if name in row]
        if len(models) > 1:
            cells.append(_number(row["r"] - row["ridge_r"]))
        cells.append(_number(1.0, 0))
        rows.append(cells)
    alone = "Ridge regression was fitted to each subject alone, the network to all. "
    return Table(
        "Correlation of decoded and true features on held-out images",
        (alone if len(models) > 1 else "")
        + "Features are computed from the images and free of noise, so that their noise ceiling is "
        "1; what limits r is the noise in the responses.",
        columns,
        rows,
    )


def sanity_table(study: Study) -> Table | None:
    """Return the sanity checks, each with its light as a word."""
    table = study.tables.get("sanity.tsv")
    if table is None or not len(table):
        return None
    columns = [("Check", ""), ("Light", ""), ("Output", ""), ("Subject", ""), ("Value", "")]
    columns += [("Low", "of 95 % of values by chance"), ("High", "of the same")]
    columns += [("Limit", "beyond which the light changes"), ("Meaning", "")]
    rows = []
    for row in table.to_dict("records"):
        light = row["light"].strip()
        rows.append(
            [
                _words(row["check"].replace("_", " ")),
                Cell(light, None, _LIGHTS.get(light.lower(), "words")),
                _words(feature_name(row["output"])),
                _words(row["subject"]),
                *(_number(row[name]) for name in ("value", "low", "high", "limit")),
                _words(row["meaning"]),
            ]
        )
    return Table("Sanity checks of the attributions", "", columns, rows)


def _title(output):
    name = feature_name(output)
    return name[:1].upper() + name[1:]
