"""One study folder → one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from importlib.resources import files
from pathlib import Path, PurePath

import numpy as np

import neuroigc
from neuroigc._files import atomic_path
from neuroigc.reporting.figures import Figure, draw_decoding, draw_encoding
from neuroigc.reporting.methods import cite, methods_paragraphs
from neuroigc.reporting.numbers import (
    feature_name,
    format_duration,
    format_number,
    format_size,
    format_small,
    is_known,
    join_words,
    roi_table,
)
from neuroigc.reporting.study import Study, hash_file, read_study
from neuroigc.reporting.words import limitations, summary_sentences

__all__ = ["write_report"]

# Embedded pictures beyond the first subject's stop here, so that the page can be mailed.
_BUDGET_BYTES = 6_000_000

_FEATURE_COLUMNS = (
    (
        "r",
        "r",
        "correlation of decoded and true values on held-out images, mean over subjects",
        format_number,
    ),
    (
        "completeness_gap",
        "Completeness gap",
        "sum of all IGC values minus r, the largest of any subject; 0 is exact",
        format_small,
    ),
    (
        "numerical_error",
        "Numerical error",
        "relative error of the map from finitely many gradients, the largest of any subject",
        format_small,
    ),
    (
        "n_gradients",
        "Gradients per sample",
        "work done; more of it would lower the numerical error only",
        lambda value: format_number(value, 0 if is_known(value) and value == int(value) else 1),
    ),
)
_MEASURES = (
    # part of summary.json, key, name, decimals, meaning
    ("encoding", "median_r", "Encoder, median r", 2,
     "correlation of predicted and measured responses to held-out images"),
    ("encoding", "median_noise_ceiling_r", "Noise ceiling, median r", 2,
     "highest correlation that the noise in the responses allows"),
    ("prf", "n_vertices", "Receptive fields", 0,
     "vertices with a good fit, whose encoder reaches half its noise ceiling; those below"),
    ("prf", "median_centre_error_deg", "Centre error, median (°)", 2,
     "distance of the estimated centre from the {} one"),
    ("prf", "r_eccentricity", "Eccentricity, r", 3, "correlation with the {} eccentricity"),
    ("prf", "r_angle", "Polar angle, circular r", 3,
     "correlation with the {} angle, of the kind made for directions"),
    ("prf", "r_size", "Size, r", 3, "correlation with the {} size"),
    ("prf", "size_ratio", "Size ratio", 2, "estimated over {} size; 1 is unbiased"),
)  # fmt: skip
_COUNTS = {
    "space": "Surface",
    "n_images": "Images",
    "n_held_out_images": "Held-out images",
    "n_vertices": "Vertices decoded from",
    "n_dropped_vertices": "Vertices left out, not finite",
}
_FOLDERS = {"root", "truth"}


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
    shelf = _Shelf(study.folder)
    methods, references = cite(methods_paragraphs(study))
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
            ("decoding", "Decoding"),
            ("encoding", "Encoding and pRFs"),
            ("methods", "Methods"),
            ("limitations", "Limitations"),
            ("provenance", "Provenance"),
        ],
        "sentences": summary_sentences(study, tables),
        "feature_columns": [
            {"name": name, "meaning": meaning} for _, name, meaning, _ in _FEATURE_COLUMNS
        ],
        "features": [
            {
                "name": feature_name(name),
                "texts": [write(part.get(key)) for key, _, _, write in _FEATURE_COLUMNS],
            }
            for name, part in study.summary.get("decoding", {}).items()
        ],
        "measures": _measures(study),
        "decoding": decoding,
        "encoding": encoding,
        "methods": methods,
        "references": references,
        "limitations": limitations(study),
        "run": _run(study),
        "models": _models(study),
        "settings": list(_flatten(study.settings)),
        "tables": list(study.tables),
    }


def _render(context: dict) -> str:
    import jinja2

    room = files("neuroigc.reporting")
    style, script = (
        (room / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.tests["number_known"] = is_known
    template = environment.from_string((room / "report.html").read_text(encoding="utf-8"))
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


class _Shelf:
    """Numbers figures in the order they are shown, and embeds them within the budget."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.used, self.counts = folder, 0, {"Figure": 0, "Figure S": 0}

    def add(self, figure: Figure, *, supplement: bool = False) -> dict:
        kind = "Figure S" if supplement else "Figure"
        self.counts[kind] += 1
        number = self.counts[kind]
        uri, pixels = _data_uri(figure.path)
        if supplement and self.used + len(uri) > _BUDGET_BYTES:
            uri = ""
        self.used += len(uri)
        return {
            "label": f"{kind}{number}" if supplement else f"{kind} {number}",
            "anchor": f"figure-{'s' if supplement else ''}{number}",
            "title": figure.title,
            "caption": figure.caption,
            "alt": figure.alt,
            "width": figure.width,
            "file": figure.path.relative_to(self.folder).as_posix(),
            "uri": uri,
            "pixels": pixels,
        }


def _data_uri(path):
    """Return a picture as a data URI and the size in CSS pixels at which it is meant."""
    if path.suffix == ".svg":
        from xml.etree import ElementTree

        data, kind = path.read_bytes(), "svg+xml"
        root = ElementTree.fromstring(data)
        # Matplotlib states points, 72 to the inch; CSS has 96 pixels there.
        pixels = [
            round(float(root.get(side).removesuffix("pt")) * 96 / 72)
            for side in ("width", "height")
        ]
    else:
        from PIL import Image

        with Image.open(path) as image:
            pixels = [round(side * 96 / 200) for side in image.size]
            buffer = io.BytesIO()
            # A fifth of the PNG's size without a visible difference; the PNG stays in figures/.
            image.convert("RGB").save(buffer, "WEBP", quality=88, method=4)
        data, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", pixels


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


def _measures(study):
    against = "true" if study.simulated else "reference"
    return [
        {
            "name": name,
            "text": format_number(study.summary[part][key], digits),
            "meaning": meaning.format(against),
        }
        for part, key, name, digits, meaning in _MEASURES
        if is_known(study.summary.get(part, {}).get(key))
    ]


def _decoding(study, tables, shelf):
    section = {"notes": [], "maps": [], "bars": [], "tables": [], "subjects": []}
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
    section["bars"] = [shelf.add(figure) for figure in drawn.shared]
    section["tables"] = [_roi_view(table) for table in tables]
    section |= _subject_table(study)
    return section


def _roi_view(table):
    explanation = (
        "Mean and standard deviation (SD) are those between subjects; both hemispheres are "
        "summed except under Left and Right."
    )
    if not table.adds_up and table.correlations:
        explanation += " Regions of different atlases may overlap, so the rows do not add up to r."
    totals = list(table.totals.values())
    return {
        "name": feature_name(table.output),
        "explanation": explanation,
        "subjects": table.subjects,
        "rows": table.rows,
        "totals": table.totals,
        "total": sum(totals) / len(totals),
        "adds_up": table.adds_up,
        "shares": any(is_known(row["share"]) for row in table.rows),
    }


def _subject_table(study):
    table = study.tables.get("decoding.tsv")
    if table is None or not len(table):
        return {"subjects": [], "subject_columns": []}
    outputs = list(dict.fromkeys(table["output"]))
    wide = table.drop_duplicates(["subject", "output"]).set_index(["subject", "output"])
    rows = [
        {
            "name": subject,
            "n_test": _float(part["n_test"].max()),
            "correlations": [_float(wide["r"].get((subject, output))) for output in outputs],
        }
        for subject, part in table.groupby("subject", sort=False)
    ]
    return {"subjects": rows, "subject_columns": [feature_name(output) for output in outputs]}


def _encoding(study, shelf):
    section = {"notes": [], "figures": [], "others": [], "areas": []}
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
    columns = ("eccentricity_deg", "size_deg", "r2", "encoder_r", "noise_ceiling_r")
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
    return section


def _run(study):
    summary = study.summary
    rows = [
        ("neuroigc", summary.get("version", "not recorded")),
        *(summary.get("versions") or {}).items(),
        ("Seed", summary.get("seed", "not recorded")),
        ("Run time", format_duration(summary.get("seconds"))),
        ("Peak memory", format_size(summary.get("peak_rss_mb"))),
        ("Subjects", join_words(study.subjects)),
    ]
    counts = summary.get("study", {})
    for key, label in _COUNTS.items():
        if key in counts:
            rows.append((label, _counts(counts[key])))
    return [(str(name), str(text)) for name, text in rows]


def _counts(value):
    if isinstance(value, dict):
        counts = {key: count for key, count in value.items() if count != 0}
        return ", ".join(f"{_counts(count)} ({key})" for key, count in counts.items()) or "none"
    return format_number(value, 0) if is_known(value) else str(value)


def _models(study):
    rows = []
    for path in sorted((study.folder / "models").glob("*.safetensors")):
        sha256 = hash_file(path)
        told = study.models.get(path.stem, {}).get("weights", {}).get("sha256", sha256)
        rows.append({"file": path.name, "sha256": sha256, "changed": told != sha256})
    return rows


def _flatten(table, prefix=""):
    """Yield (dotted name, text) of all settings but folders, which belong to a machine."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        elif key not in _FOLDERS:
            values = value if isinstance(value, list) else [value]
            yield f"{prefix}{key}", ", ".join(_neutral(entry) for entry in values)


def _neutral(value):
    # A file given by its path keeps its name only.
    return PurePath(value.replace("\\", "/")).name if isinstance(value, str) else str(value)


def _float(value):
    return float(value) if value is not None and np.isfinite(value) else math.nan
