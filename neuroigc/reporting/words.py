"""The findings and limits of a study, in sentences."""

from __future__ import annotations

from neuroigc.reporting.numbers import (
    RoiTable,
    feature_name,
    format_number,
    is_known,
    join_words,
)
from neuroigc.reporting.phantoms import error_sentence, load_calibrations
from neuroigc.reporting.study import Study

__all__ = ["limitations", "summary_sentences"]


def summary_sentences(study: Study, tables: list[RoiTable]) -> list[str]:
    """Say what was found, with the numbers."""
    sentences = [
        *_decoding_sentences(study),
        *(sentence for table in tables if (sentence := _roi_sentence(table))),
        *_prf_sentences(study),
        *_sanity_sentences(study),
    ]
    return [_keep_together(sentence) for sentence in sentences]


def limitations(study: Study) -> list[tuple[str, str]]:
    """List what the numbers of this study do not say, as (heading, text)."""
    texts = [
        (
            "Attribution is not causation",
            "IGC shows what the fitted model relies on. A region with a large value is a source "
            "of information for this model; whether the brain uses it needs an intervention.",
        ),
        (
            "Correlated vertices share credit",
            "Neighbouring vertices carry much of the same signal, and the model is free to use "
            "either. Sums over regions are therefore more stable than single vertices, and the "
            "values of neighbouring regions should be read together.",
        ),
    ]
    if study.summary.get("decoding"):
        texts.append(
            (
                "Negative values are balance, not noise",
                "A negative region lowers the covariance of prediction and truth as such, yet it "
                "may well correct what other regions overestimate: leaving it out need not raise "
                "the correlation.",
            )
        )
    if study.tables.get("phantoms.tsv") is not None:
        texts.append(
            (
                "Sizes are as good as their phantoms",
                "Sizes and intervals are calibrated with phantoms, and hold for vertices that are "
                "like them: one Gaussian, compressed, divided by a power of the scene's contrast. "
                "Compare sizes within an area rather than between areas, whose exponents differ. "
                "Fields at the edge of the images are cut, and beyond it nothing is measured.",
            )
        )
    elif study.tables.get("prf.tsv") is not None:
        texts.append(
            (
                "Sizes are biased unless calibrated",
                "The width of an IGC map depends on the statistics of the images and on the "
                "encoder, and may lie below or above that of the receptive field. Centres suffer "
                "less, except near the edge of the images, beyond which nothing is measured.",
            )
        )
    texts.append(
        (
            "The model is frozen",
            "Standard errors, intervals and p-values reflect the finite number of stimuli under "
            "this one fitted model; training again with another seed or other data adds variation "
            "that they leave out.",
        )
    )
    if study.simulated:
        texts.append(
            (
                "These data are simulated",
                "They show that the analysis recovers what was put in. They say nothing about "
                "real brains.",
            )
        )
    return texts


def _keep_together(sentence):
    """Let no line end inside of r = 0.50 or 0.50 ± 0.10."""
    for sign in ("=", "±", "%"):
        sentence = sentence.replace(f" {sign}", f"\N{NO-BREAK SPACE}{sign}")
    for sign in ("=", "±"):
        sentence = sentence.replace(f"{sign} ", f"{sign}\N{NO-BREAK SPACE}")
    return sentence


def _decoding_sentences(study):
    decoded = []
    for name, part in study.summary.get("decoding", {}).items():
        if not is_known(part.get("r")):
            continue
        ridge = part.get("ridge_r")
        beside = f" (ridge regression {format_number(ridge)})" if is_known(ridge) else ""
        decoded.append(f"{feature_name(name)} with r = {format_number(part['r'])}{beside}")
    if not decoded:
        return []
    n = len(study.subjects)
    who = f" of {n} {'subject' if n == 1 else 'subjects'}" if n else ""
    return [
        f"From the cortical responses{who} to images that it had not seen, the model decoded "
        f"{join_words(decoded)}."
    ]


def _roi_sentence(table):
    top = table.top
    if top is None:
        return None
    n = len(table.subjects)
    spread = f" ± {format_number(top['sd'])}" if is_known(top["sd"]) else ""
    share = f", {format_number(100 * top['share'], 0)} % of r" if is_known(top["share"]) else ""
    wins = f"; the largest region in {top['wins']} of {n} subjects" if n > 1 else ""
    others = sorted(
        (row for row in table.regions if row["name"] != top["name"] and is_known(row["mean"])),
        key=lambda row: row["mean"],
    )
    text = (
        f"{top['name']} carries the largest share of {feature_name(table.output)} "
        f"(IGC {format_number(top['mean'])}{spread}{share}{wins})"
    )
    if others:
        second = others[-1]
        text += f", followed by {second['name']} ({format_number(second['mean'])})"
        if others[0]["mean"] < -0.005 and others[0] is not second:
            lowest = others[0]
            text += f"; the most negative is {lowest['name']} ({format_number(lowest['mean'])})"
    return text + "."


def _prf_sentences(study):
    encoding, prf = study.summary.get("encoding", {}), study.summary.get("prf", {})
    sentences = []
    if is_known(encoding.get("median_r")):
        ceiling = encoding.get("median_noise_ceiling_r")
        where = f"of {join_words(study.areas)} " if study.areas else ""
        linear = encoding.get("median_ridge_r")
        beside = f" (ridge regression {format_number(linear)})" if is_known(linear) else ""
        limit = f", where noise allows {format_number(ceiling)}" if is_known(ceiling) else ""
        sentences.append(
            f"The encoder predicts the responses of the median vertex {where}with "
            f"r = {format_number(encoding['median_r'])}{beside}{limit}."
        )
    if not is_known(prf.get("n_vertices")):
        return sentences
    sentence = (
        "Population receptive fields were read off the encoder's IGC maps for "
        f"{format_number(prf['n_vertices'], 0)} vertices"
    )
    compared = [
        text.format(format_number(prf.get(key)))
        for key, text in {
            "median_centre_error_deg": "the median distance of the centres is {}°",
            "r_eccentricity": "eccentricity correlates with r = {}",
            "r_angle": "polar angle with circular r = {}",
            "r_size": "size with r = {}",
        }.items()
        if is_known(prf.get(key))
    ]
    if compared:
        against = "known truth of the simulation" if study.simulated else "reference maps"
        sentence += f"; against the {against}, {join_words(compared)}"
    expected = error_sentence(load_calibrations(study))
    return [*sentences, sentence + ".", *([expected] if expected else [])]


def _sanity_sentences(study):
    table = study.tables.get("sanity.tsv")
    if table is None or not len(table):
        return []
    counts = table["light"].value_counts(sort=False)
    told = join_words([f"{n} {light}" for light, n in counts.items()])
    return [f"Sanity checks of the attributions: {told}."]
