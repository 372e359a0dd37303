"""One study folder → one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib.resources import files
from pathlib import Path

import numpy as np

import neuroigc
from neuroigc._files import atomic_path
from neuroigc.reporting.brain import make_brain_view
from neuroigc.reporting.figures import draw_decoding
from neuroigc.reporting.key_figures import feature_table, measure_rows
from neuroigc.reporting.methods import cite, methods_paragraphs
from neuroigc.reporting.numbers import (
    feature_name,
    format_number,
    is_known,
    join_words,
    roi_table,
    size_lines,
)
from neuroigc.reporting.phantoms import error_rows, load_calibrations
from neuroigc.reporting.prf_figures import draw_encoding
from neuroigc.reporting.provenance import (
    describe_files,
    describe_models,
    describe_run,
    describe_settings,
)
from neuroigc.reporting.shelf import Shelf
from neuroigc.reporting.study import Study, read_study
from neuroigc.reporting.tables import area_tables, group_tables, sanity_table, score_table
from neuroigc.reporting.words import limitations, summary_sentences

__all__ = ["write_report"]


def write_report(study_folder: str | Path) -> Path:
    """Write ``report.html`` into a study folder, from nothing but the files in it.

    The page holds its styles, pictures and its one script in itself, allows no request to
    anywhere (a content security policy sees to that), and can be read without the script. All
    that comes from data, file names or settings is escaped. Parts of the study that were not run
    are left out, and the page says so. Its figures are also left in ``figures/``.

    Parameters
    ----------
    study_folder : path
        A folder as ``neuroigc run`` leaves it, with at least ``summary.json``.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If ``summary.json`` is missing, a file cannot be understood, or the folder cannot be
        written to.
    """
    study = read_study(study_folder)
    page = _render(_collect(study))
    path = study.folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _collect(study: Study) -> dict:
    """Gather all that the template shows."""
    tables = _roi_tables(study)
    shelf = Shelf(study.folder)
    columns, features = feature_table(study)
    methods, references = cite(methods_paragraphs(study))
    brain = make_brain_view(study)
    shown = shelf.add(brain.picture) | {"anchor": "brain"} if brain else None
    decoding = _decoding(study, tables, shelf)
    encoding = _encoding(study, shelf)
    return {
        "version": study.summary.get("version", neuroigc.__version__),
        "title": study.title,
        "simulated": study.simulated,
        "facts": _facts(study),
        "contents": [
            ("summary", "Summary"),
            ("key-figures", "Key figures"),
            *([("cortex", "Cortex")] if brain else []),
            ("decoding", "Decoding"),
            ("encoding", "Encoding and pRFs"),
            *([("sanity", "Sanity checks")] if "sanity.tsv" in study.tables else []),
            ("methods", "Methods"),
            ("limitations", "Limitations"),
            ("provenance", "Provenance"),
        ],
        "sentences": summary_sentences(study, tables),
        "feature_columns": columns,
        "features": features,
        "measures": measure_rows(study),
        "brain": brain,
        "brain_figure": shown,
        "decoding": decoding,
        "encoding": encoding,
        "sanity": sanity_table(study),
        "methods": methods,
        "references": references,
        "limitations": limitations(study),
        "run": describe_run(study),
        "models": describe_models(study),
        "files": describe_files(study),
        "settings": list(describe_settings(study.settings)),
        "tables": list(study.tables),
    }


def _render(context: dict) -> str:
    import jinja2

    room = files("neuroigc.reporting")

    def read(name):
        return (room / name).read_text(encoding="utf-8")

    style, script = read("report.css"), read("report.js") + read("brain.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.tests["number_known"] = is_known
    template = environment.get_template("report.html")
    return template.render(
        context,
        # Ours, from the package; everything else goes through the escaping.
        style=jinja2.utils.markupsafe.Markup(style),
        script=jinja2.utils.markupsafe.Markup(script),
        style_hash=_policy_hash(style),
        script_hash=_policy_hash(script),
    )


def _policy_hash(text):
    """Return the content security policy's name for an inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _roi_tables(study):
    table = study.tables.get("roi.tsv")
    if table is None:
        return []
    outputs = list(dict.fromkeys(table["output"]))
    return [roi_table(table, output, _correlations(study, output)) for output in outputs]


def _correlations(study, output):
    table = study.tables.get("decoding.tsv")
    if table is None:
        return {}
    rows = table[table["output"] == output]
    return dict(zip(rows["subject"], rows["r"].astype(float), strict=True))


def _facts(study):
    facts = ["simulated data"] if study.simulated else []
    n = len(study.subjects)
    facts += [f"{n} {'subject' if n == 1 else 'subjects'}"] if n else []
    facts.append(f"neuroigc {study.summary.get('version', neuroigc.__version__)}")
    return facts


def _decoding(study, tables, shelf):
    section = {"notes": [], "maps": [], "regions": [], "tables": [], "areas": [], "group": []}
    section["scores"] = None
    if not (study.summary.get("decoding") or tables):
        section["notes"].append("Left out: this study did not decode image features.")
        return section
    drawn = draw_decoding(study, tables)
    section["notes"] += drawn.notes
    for index, (subject, figures) in enumerate(drawn.by_subject.items()):
        rs = {table.output: table.correlations.get(subject) for table in tables}
        facts = [f"{feature_name(o)} r = {format_number(r)}" for o, r in rs.items() if is_known(r)]
        section["maps"].append(
            {
                "name": subject,
                "facts": ", ".join(facts),
                "figures": [shelf.add(figure, supplement=index > 0) for figure in figures],
            }
        )
    section["regions"] = [shelf.add(figure) for figure in drawn.shared]
    section["tables"] = [_roi_view(table) for table in tables]
    section["scores"] = score_table(study)
    section["areas"], section["group"] = area_tables(study), group_tables(study)
    return section


def _roi_view(table):
    explanation = (
        "Mean and standard deviation (SD) are those between subjects; both hemispheres are "
        "summed except under Left and Right."
    )
    empty = [row["name"] for row in table.rows if not row["vertices"]]
    if empty:
        explanation += f" Without a vertex in the mask: {join_words(empty)}."
    sums = [("Sum", table.totals)]
    if table.correlations:
        sums.append(("r", table.correlations))
        if not table.adds_up:
            explanation += " Some vertices lie in several regions, so the sum is not r."
    return {
        "name": feature_name(table.output),
        "explanation": explanation,
        "subjects": table.subjects,
        "rows": [row for row in table.rows if row["vertices"]],
        "sums": [
            (name, sum(values.values()) / len(values) if values else math.nan, values)
            for name, values in sums
        ],
        "shares": any(is_known(row["share"]) for row in table.rows),
    }


_HALF_INTERVALS = {"x_half": ("x_low", "x_high"), "size_half": ("size_low", "size_high")}


def _encoding(study, shelf):
    section = {"notes": [], "figures": [], "others": [], "areas": [], "sizes": [], "errors": []}
    prf = study.tables.get("prf.tsv")
    if prf is None:
        section["notes"].append(
            "Receptive fields are left out: there is no prf.tsv."
            if study.summary.get("encoding")
            else "Left out: this study trained no encoding models, so it has no receptive fields."
        )
        return section
    drawn = draw_encoding(study)
    section["notes"] += drawn.notes
    section["figures"] = [shelf.add(figure) for figure in drawn.shared]
    section["others"] = [
        {"name": subject, "figures": [shelf.add(figure, supplement=True) for figure in figures]}
        for subject, figures in drawn.by_subject.items()
    ]
    columns = ("eccentricity_deg", "size_deg", "r2", "ridge_r", "encoder_r", "noise_ceiling_r",
               "normalised_r")  # fmt: skip
    for area in study.areas:
        rows = prf[prf["roi"] == area]
        good = rows[rows["status"] == "ok"]
        section["areas"].append(
            {
                "name": area,
                "n": len(rows),
                "n_ok": len(good),
                "medians": [
                    _float(good[name].median()) if name in good else math.nan for name in columns
                ],
            }
        )
        for name, (low, high) in _HALF_INTERVALS.items():
            known = {low, high} <= set(good)
            half = (good[high] - good[low]).median() / 2 if known else math.nan
            section["areas"][-1][name] = _float(half)
    section["sizes"] = size_lines(prf, study.areas, literature=study.known_sizes[0])
    section["known_sizes"] = study.known_sizes[1]
    section["calibrated"] = "phantoms.tsv" in study.tables
    section["errors"] = error_rows(load_calibrations(study))
    return section


def _float(value):
    return float(value) if value is not None and np.isfinite(value) else math.nan
