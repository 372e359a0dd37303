"""The sanity checks of a study: each subject's maps beside those of models that know nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neuroigc.cli.columns import write_described_table
from neuroigc.cli.results import area_groups
from neuroigc.cli.study_data import decoding_samples

__all__ = ["write_sanity"]

N_DRAWS, N_ORDERS, N_PERMUTED, N_BASELINES = 8, 49, 999, 100
# Similarities need no more: maps are set beside each other, not shown.
EFFORT = {"tolerance": 0.1, "max_gradients": 33}
# Of shuffled labels, among a study's seeds.
SHUFFLES = 6


def write_sanity(folder, make_decoder, *, keep, progress) -> None:
    """Write sanity.tsv. Trains the decoder eight more times, on shuffled labels.

    Parameters
    ----------
    folder : StudyFolder
    make_decoder : callable
        Returns a decoder that is not fitted, for a study and options.
    keep : bool
        Use decoders of shuffled labels that an interrupted run has left.
    progress : bool
    """
    from neuroigc._team import working_alone

    with working_alone():
        shuffled = [_fit_shuffled(folder, make_decoder, k, keep, progress) for k in range(N_DRAWS)]
        tables = []
        for subject in folder.config.data.subjects:
            table = _check_subject(folder, subject, shuffled, progress)
            table.insert(0, "subject", subject)
            tables.append(table)
    write_described_table(folder.path / "sanity.tsv", pd.concat(tables))


def _fit_shuffled(folder, make_decoder, k, keep, progress):
    """Train on labels that were shuffled over each subject's images; return the network."""
    from neuroigc.models import NeuralDecoder

    path = folder.file("sanity", f"decoder_shuffled-{k}")
    if not (keep and path.with_suffix(".json").exists()):
        samples = decoding_samples(folder, held_out=False)
        rng = np.random.default_rng([folder.config.seed, k, SHUFFLES])
        labels = _shuffle(samples.features, samples.conditions, rng)
        decoder = make_decoder(folder.config, seed=folder.config.seed + 1 + k, progress=progress)
        decoder.fit(samples.responses, labels, conditions=samples.conditions).save(path)
    return NeuralDecoder.load(path).module_


def _shuffle(labels, conditions, rng):
    shuffled = labels.copy()
    for condition in np.unique(conditions):
        own = np.flatnonzero(conditions == condition)
        shuffled[own] = labels[rng.permutation(own)]
    return shuffled


def _check_subject(folder, subject, shuffled, progress):
    from neuroigc.attribution import (
        MeanBaseline,
        SampledBaseline,
        ZeroBaseline,
        integrated_gradient_correlation,
    )
    from neuroigc.models import NeuralDecoder, list_layers, randomise_layers
    from neuroigc.models.scaling import measure_scaling
    from neuroigc.stats import check_sanity, removal_test

    config = folder.config
    decoder = NeuralDecoder.load(folder.model("decoder"))
    samples = decoding_samples(folder, held_out=True, subject=subject)
    responses, features = samples.responses[:], samples.features
    seed, conditions = config.seed, samples.conditions
    options = {"conditions": conditions, "device": config.device, "seed": seed, **EFFORT}

    def attribute(model, **baseline):
        result = integrated_gradient_correlation(model, responses, features, **options, **baseline)
        return result.attributions

    groups = _apart(area_groups(folder, subject, samples.vertices))
    own = attribute(decoder.module_)
    values = np.stack([own[:, members].sum(1) for members in groups.values()], 1)
    predicted = decoder.predict(responses, conditions=conditions)
    removal = {
        replacement: removal_test(
            _areas_kept(decoder.module_, responses, conditions, groups, replacement, seed),
            values,
            features,
            n_orders=N_ORDERS,
            seed=seed,
            progress=progress,
        )
        for replacement in ("mean", "samples")
    }
    scaling = measure_scaling(responses, argument="responses")
    checks = check_sanity(
        attribute,
        decoder.module_,
        randomise=lambda n, k: randomise_layers(
            decoder.module_, n, seed=seed + k, input_scaling=scaling
        ),
        layers=[layer[0] for layer in reversed(list_layers(decoder.module_))],
        retrain=shuffled.__getitem__,
        baselines={
            "mean": MeanBaseline(),
            "zero": ZeroBaseline(),
            "sampled": SampledBaseline(min(N_BASELINES, len(features))),
        },
        null_maps=_null_sums(predicted, features, np.random.default_rng([seed, SHUFFLES])),
        removal=removal,
        outputs=config.decoding.features,
        n_draws=N_DRAWS,
        progress=progress,
    )
    return checks.to_frame()


def _null_sums(predicted, features, rng):
    """Return what maps of permuted features sum to, (n_outputs, n_permutations + 1, 1).

    Maps are complete: that is the correlation of predictions and features.
    """
    f, y = ((a - a.mean(0)) / (a.std(0) * np.sqrt(len(a))) for a in (predicted, features))
    orders = [np.arange(len(y)), *(rng.permutation(len(y)) for _ in range(N_PERMUTED))]
    return np.stack([(f * y[order]).sum(0) for order in orders], 1)[..., None]


def _apart(groups):
    """Return groups that do not overlap: a column is the first one's that has it."""
    taken: set[int] = set()
    apart = {}
    for name, members in groups.items():
        own = np.array([column for column in members.tolist() if column not in taken])
        if own.size:
            apart[name] = own
            taken.update(own.tolist())
    return apart


def _areas_kept(module, responses, conditions, groups, replacement, seed):
    """Return what `neuroigc.stats.replace_groups` does, for groups that do not overlap.

    The stem is affine, so that each area adds its own part to what follows: it is multiplied
    once and not for every order.
    """
    import torch

    x = np.asarray(responses, dtype=np.float32)
    stand_in = x.mean(0, keepdims=True)
    if replacement == "samples":
        circle = np.random.default_rng(seed).permutation(len(x))
        stand_in = np.empty_like(x)
        stand_in[circle] = x[np.roll(circle, 1)]
    weight = module.stem.weight.detach().numpy()
    parts = np.stack([(x - stand_in)[:, own] @ weight[:, own].T for own in groups.values()])
    given = torch.from_numpy(np.asarray(conditions))
    with torch.no_grad():
        without = module.stem(torch.from_numpy(stand_in))

    def predict(kept):
        with torch.no_grad():
            hidden = without + torch.from_numpy(parts[kept].sum(0))
            return module.head(module.body(hidden, given)).numpy()

    return predict
