"""The methods paragraph, written from the parameters of the run, and the works it cites."""

from __future__ import annotations

import json
import re
from pathlib import PurePath

import numpy as np

from neuroigc._files import reading
from neuroigc.reporting.numbers import feature_name, format_number, is_known, join_words
from neuroigc.reporting.references import REFERENCES
from neuroigc.reporting.study import Study, read_attribution

__all__ = ["cite", "methods_paragraphs", "read_attribution_settings"]

_CITATION = re.compile(r"\[@(" + "|".join(REFERENCES) + r")\]")
_ABOUT_ATTRIBUTION = ("settings", "n_samples", "n_gradients", "numerical_error")
_ACTIVATIONS = {"mish": "Mish activations [@mish]", "relu": "ReLU activations"}


def cite(paragraphs: list[str]) -> tuple[list[list[tuple[str, int | None]]], list[str]]:
    """Replace the citations in paragraphs by numbers, in the order in which they come.

    Returns
    -------
    pieces : list of list of (str, int or None)
        Per paragraph its text in pieces, each with the number of the work cited behind it.
    references : list of str
        The works, in the order of their numbers.
    """
    order: list[str] = []
    paragraphs_in_pieces = []
    for paragraph in paragraphs:
        parts = _CITATION.split(paragraph)  # text, key, text, key, ..., text
        pieces = []
        for text, key in zip(parts[::2], [*parts[1::2], None], strict=True):
            text = text if key is None else text.removesuffix(" ")
            if key is not None and key not in order:
                order.append(key)
            pieces.append((text, None if key is None else order.index(key) + 1))
        paragraphs_in_pieces.append(pieces)
    return paragraphs_in_pieces, [REFERENCES[key] for key in order]


def methods_paragraphs(study: Study) -> list[str]:
    """Describe the run as a methods section would; what is not recorded is not mentioned."""
    paragraphs = [
        _data(study),
        _decoding(study) if study.summary.get("decoding") else "",
        _attribution(study),
        _statistics(study),
        _encoding(study) if study.summary.get("encoding") or study.summary.get("prf") else "",
    ]
    return [paragraph for paragraph in paragraphs if paragraph]


def read_attribution_settings(study: Study, kind: str) -> list[dict]:
    """Return how each attribution of one kind was made, its number of samples included."""
    found = []
    for (_, what), path in study.attributions.items():
        if what != kind:
            continue
        saved = read_attribution(path, _ABOUT_ATTRIBUTION)
        with reading(path, "a saved attribution (.npz)", fix="Run the stage attribute again."):
            settings = json.loads(str(saved["settings"]))
            numbers = {name: int(saved[name]) for name in ("n_samples", "n_gradients")}
            found.append({**settings, **numbers, "numerical_error": saved["numerical_error"]})
    return found


def _data(study):
    data, about = study.settings.get("data", {}), study.summary.get("study", {})
    layout, n = data.get("layout", ""), len(study.subjects)
    who = f"{n} {'subject' if n == 1 else 'subjects'}" if n else "all subjects"
    if study.simulated:
        text = (
            f"Data of {who} were simulated in the layout of the Natural Scenes Dataset [@nsd]: "
            "vertices respond to the local contrast energy of images through a population "
            "receptive field with compressive spatial summation [@css], plus noise."
        )
    elif layout == "nsd":
        text = f"We used 7T fMRI responses of {who} of the Natural Scenes Dataset [@nsd]."
    elif layout == "algonauts":
        text = (
            f"We used the responses of {who} in the Algonauts 2023 release [@algonauts] of the "
            "Natural Scenes Dataset [@nsd]."
        )
    else:
        text = f"We used the responses of {who}."
    if data.get("space", "").startswith("fsaverage"):
        text += f" Responses lie on the {data['space']} surface [@fsaverage]"
        text += f", within the mask {_base(data['mask'])}." if data.get("mask") else "."
    if layout == "nsd":
        text += (
            " They were z-scored within session and vertex and averaged over repetitions of an "
            "image."
        )
    n_images, n_held_out = about.get("n_images"), about.get("n_held_out_images")
    if is_known(n_images) and is_known(n_held_out):
        return (
            f"{text} Of {format_number(n_images, 0)} images, {format_number(n_held_out, 0)} were "
            "held out from all training, by image and not by trial; every correlation with "
            "measurements is from these."
        )
    return text + " Training and evaluation never shared an image."


def _network(model, settings):
    """Describe size and layers from what the model file, or else study.toml, says."""
    options = {**settings.get("network", {}), **model.get("parameters", {})}
    words = []
    if isinstance(options.get("hidden"), list):
        words.append(
            f"{len(options['hidden'])} hidden layers of {_numbers(options['hidden'])} units"
        )
    if isinstance(options.get("channels"), list):
        words.append(
            f"{len(options['channels'])} convolutions with {_numbers(options['channels'])} maps"
        )
    if is_known(options.get("n_latents")):
        words.append(f"{options['n_latents']} units before the output")
    if is_known(options.get("dropout")) and options["dropout"]:
        words.append(f"dropout {options['dropout']:g}")
    text = f" ({'; '.join(words)})" if words else ""
    activation = _ACTIVATIONS.get(str(options.get("activation", "mish")), "")
    return f"{text}, with batch normalisation [@batchnorm] and {activation}".removesuffix(" and ")


def _training(model, seed):
    options, words = model.get("parameters", {}), []
    for key, label in {
        "learning_rate": "peak learning rate",
        "weight_decay": "weight decay",
        "batch_size": "batches of",
    }.items():
        if is_known(options.get(key)):
            words.append(f"{label} {options[key]:g}")
    epochs = len(model.get("fitted", {}).get("history_", {}).get("train_loss", []))
    words += [f"{epochs} epochs"] if epochs else []
    words += [f"seed {seed}"] if is_known(seed) else []
    text = " It was trained with AdamW [@adamw], stopping early on a part of the training images"
    return text + (f" ({', '.join(words)})." if words else ".")


def _numbers(values):
    values = [str(value) for value in values]
    return values[0] if len(set(values)) == 1 else join_words(values)


def _decoding(study):
    settings = study.settings.get("decoding", {})
    features = join_words([feature_name(name) for name in study.summary["decoding"]])
    model = study.models.get("decoder", {})
    shared = (
        ", to which the subject's identity was given as well" if len(study.subjects) > 1 else ""
    )
    return (
        f"A multilayer perceptron{_network(model, settings)}, predicted {features} of the images "
        f"from the responses of all vertices at once{shared}."
        + _training(model, study.summary.get("seed"))
    )


def _attribution(study):
    made = {kind: read_attribution_settings(study, kind) for kind in ("decoding", "encoding")}
    baselines = {one.get("baseline") for settings in made.values() for one in settings}
    text = (
        "Integrated Gradient Correlation (IGC) [@igc] assigns to each input its share of the "
        "correlation r between prediction and truth: the integrated gradients [@ig] of the "
        "input, averaged over baselines, are correlated with the true values over the data set, "
        "so that all shares sum to r and the value of a region is the plain sum over its vertices."
    )
    if baselines == {"PairedBaseline"}:
        text += (
            " Baselines were other samples of the same data set"
            + (" and the same subject" if len(study.subjects) > 1 else "")
            + ", and every path between two samples served both of them."
        )
    return text + _effort("decoding", made) + _effort("encoding", made)


def _statistics(study):
    """Say where intervals and p-values of areas, scores and the group are from."""
    rois, scores = study.tables.get("roi.tsv"), study.tables.get("decoding.tsv")
    text = ""
    if rois is not None and {"low", "high"} <= set(rois):
        text += (
            "95 % intervals of regions are those of the jackknife [@jackknife] over held-out "
            "images, with the model as it is."
        )
    if rois is not None and "p" in rois:
        counts = {one.get("n_permutations") for one in read_attribution_settings(study, "decoding")}
        times = f" {_range(counts, 0)} times" if counts and all(map(is_known, counts)) else ""
        text += (
            f" For p-values the true values were permuted over images{times}, and IGC computed "
            "anew with the same model; p is the share of permutations, the data included, with a "
            "value as large to either side. Family-wise p-values are from the largest value of all "
            "regions of a subject and output [@permutation]; those of false discoveries are "
            "adjusted by the procedure of Benjamini and Hochberg [@fdr]."
        )
    if scores is not None and "ridge_r" in scores:
        text += (
            " Beside the network, ridge regression [@ridge] was fitted to each subject's training "
            "images, with a penalty for each feature chosen by cross-validation within them, and "
            "scored on the same held-out images"
        )
        text += ", both with 95 % intervals of the jackknife." if "r_low" in scores else "."
    group = study.tables.get("group.tsv")
    if group is not None:
        text += (
            " For the group, the signs of whole subjects were flipped [@permutation], and error "
            "bars are standard deviations between subjects."
        )
        if "n_significant" in group:
            text += (
                " The number of subjects in whom a region is significant was tested against the "
                "binomial distribution, and gives a bound for its prevalence [@prevalence]."
            )
    return text.strip()


def _effort(kind, made):
    """Say how much was computed and how exact it is, from the saved attributions."""
    if not made[kind]:
        return ""
    if made[kind][0].get("regime") == "windows":
        return _window_effort(made[kind])
    model = {"decoding": "decoder", "encoding": "encoder"}[kind]
    counts = _range({one["n_gradients"] for one in made[kind]}, 0)
    errors = np.concatenate([np.atleast_1d(one["numerical_error"]) for one in made[kind]])
    text = f" For the {model}, {counts} gradients per sample{_samples(made[kind])} were taken; "
    if kind == "decoding":
        return text + f"the estimated numerical error of a map is at most {errors.max():.1%}."
    return text + (
        "the estimated numerical error of the map is "
        f"{np.median(errors):.1%} for the median vertex of all that were encoded."
    )


def _window_effort(made):
    images = _range({one["n_samples"] for one in made}, 0)
    gaps = np.concatenate([np.atleast_1d(one["numerical_error"]) for one in made])
    return (
        " For the encoder, the inputs were the features that its windows look at and the truth was "
        f"its own prediction, so that maps are free of the noise in responses, over {images} "
        f"images{' per subject' if len(made) > 1 else ''}; the estimated numerical error of the "
        f"map is {np.median(gaps):.1%} for the median vertex."
    )


def _range(numbers, digits):
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return " to ".join(format_number(number, digits) for number in ends)


def _samples(made):
    counts = _range({one["n_samples"] for one in made}, 0)
    return f" at {counts} held-out images" + (" per subject" if len(made) > 1 else "")


def _encoding(study):
    settings, data = study.settings.get("encoding", {}), study.settings.get("data", {})
    model = next((study.models[name] for name in study.models if name.startswith("encoder")), {})
    size, extent, pool = settings.get("image_size"), data.get("extent_deg"), settings.get("pool")
    images = f" ({size} × {size} pixels" if is_known(size) else ""
    if images:
        images += f", {extent:g}° × {extent:g}° of visual angle)" if is_known(extent) else ")"
    text = (
        f"A convolutional encoder{_network(model, settings)}, predicted the responses of the "
        f"vertices from grey images{images}."
    )
    if study.has_windows:
        text += (
            " Every vertex pools the features over a Gaussian window of its own, divides by what "
            "the whole image holds, and compresses the result [@css]."
        )
    text += _training(model, study.summary.get("seed")) + _linear_encoder(study)
    if study.has_windows:
        return text + _window_fields(study)
    text += " Population receptive fields (pRFs) [@prf] were read off the IGC map of each vertex"
    text += f", summed over {pool} × {pool} pixels," if is_known(pool) and pool > 1 else ""
    text += " by fitting a two-dimensional Gaussian; size is its standard deviation."
    return text + _ANGLES


_ANGLES = (
    " Angles count counter-clockwise from the right horizontal meridian, and their agreement is "
    "measured by a circular correlation."
)


def _window_fields(study):
    """Say how receptive fields were read off maps on windows, and what phantoms did to them."""
    text = (
        " Population receptive fields (pRFs) [@prf] were read off the IGC map of each vertex, "
        "divided by the variance of local contrast at each place of the images, by fitting a "
        "two-dimensional Gaussian; size is its standard deviation over the root of the vertex's "
        "exponent."
    )
    phantoms = study.tables.get("phantoms.tsv")
    if phantoms is not None:
        n = format_number(phantoms.groupby("subject").size().median(), 0)
        text += (
            f" {n} phantoms per subject, units with known receptive fields that pool local "
            "contrast and compress it, made from the same images and given the noise of the "
            "vertices, were trained, mapped and fitted beside them: their estimates were regressed "
            "on the truth to calibrate centres and sizes, and their errors scale the 95 % "
            "intervals."
        )
    return text + _ANGLES


def _linear_encoder(study):
    """Say what ridge regression beside the encoder was given."""
    if "ridge_r" not in study.tables.get("prf.tsv", ()):
        return ""
    return (
        " Beside each encoder, ridge regression [@ridge] predicted the same vertices from local "
        "contrast, the standard deviation of luminance in tiles of the images, with a penalty for "
        "each vertex chosen by cross-validation."
    )


def _base(name):
    # Masks and atlases may be given as paths, which say more about a machine than about a study.
    return PurePath(str(name).replace("\\", "/")).name
