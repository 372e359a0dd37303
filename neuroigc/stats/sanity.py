"""What reviewers ask of an attribution: that it follow the model, the labels and the areas.

Maps are set beside those of models that have learned nothing (layers drawn anew from the head
down: Adebayo et al. 2018) or nothing true (shuffled labels), and beside those of other
baselines; groups are taken away in the order of their values. Each check is a number, beside
what chance makes of it and a limit that is stated, and a traffic light.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._progress import track
from neuroigc._validation import InputError, check_choice, check_count
from neuroigc.stats.group import flipped_means, sign_flip_test
from neuroigc.stats.inference import permutation_p_values
from neuroigc.stats.reliability import correlate_maps
from neuroigc.stats.removal import RemovalTest

if TYPE_CHECKING:
    import pandas

__all__ = ["SanityCheck", "SanityChecks", "check_sanity", "map_similarity"]

ALPHA = 0.05
# Similarity that no unrelated model's map should have in the mean, nor by chance (by its scatter).
MOST_SIMILAR = 0.5
# Correlation on held-out samples of models that have learned shuffled labels.
MOST_LEARNED = 0.2
# Similarity of maps by other baselines: good, and not quite bad.
BASELINES_AGREE, BASELINES_DIFFER = 0.9, 0.7
# Fewer have no pattern of signs with p of 0.05 or less.
FEWEST_DRAWS = 6

Map = Any
Attribute = Callable[..., ArrayLike]


@dataclass(frozen=True)
class SanityCheck:
    """One check of one output.

    Attributes
    ----------
    output, check : str
    value : float
    low, high : float
        Where 95 % of values lie by chance alone; NaN where there is no chance in it.
    limit : float
        On whose right side a value is good.
    light : {"green", "amber", "red"}
    meaning : str
        A sentence for readers.
    """

    output: str
    check: str
    value: float
    low: float
    high: float
    limit: float
    light: str
    meaning: str


@dataclass(frozen=True)
class SanityChecks:
    """All checks of a model's attributions.

    Attributes
    ----------
    checks : tuple of SanityCheck
        Output by output.
    """

    checks: tuple[SanityCheck, ...]

    def to_frame(self) -> pandas.DataFrame:
        """Return a table: output, check, value, low, high, limit, light, meaning."""
        import pandas

        return pandas.DataFrame([asdict(check) for check in self.checks])


def map_similarity(
    reference: ArrayLike, maps: ArrayLike, *, method: str = "spearman"
) -> np.ndarray:
    """Return the correlation of maps with one map, over their components.

    Parameters
    ----------
    reference : array of shape (n_outputs, ...)
    maps : array of shape (n_maps, n_outputs, ...)
    method : {"spearman", "pearson"}
        Of ranks, so that few large components do not decide; or of values.

    Returns
    -------
    array of shape (n_maps, n_outputs)
        0 for a map that does not vary: it has nothing in common with any.

    Raises
    ------
    InputError
        If shapes do not fit, or values are not finite.
    """
    check_choice("method", method, ("spearman", "pearson"))
    reference, maps = np.asarray(reference, dtype=float), np.asarray(maps, dtype=float)
    if reference.ndim < 2 or maps.shape[1:] != reference.shape:
        raise InputError(
            "maps",
            expected=f"maps of shape (n_maps, *{reference.shape}), as of the reference",
            got=f"shape {maps.shape}",
        )
    if not (np.isfinite(reference).all() and np.isfinite(maps).all()):
        raise InputError("reference and maps", expected="finite numbers", got="NaN or infinity")
    n_outputs = len(reference)
    first, others = reference.reshape(n_outputs, -1), maps.reshape(len(maps), n_outputs, -1)
    if method == "spearman":
        from scipy.stats import rankdata

        first, others = rankdata(first, axis=-1), rankdata(others, axis=-1)
    return np.nan_to_num(correlate_maps(first, others), nan=0.0)


def check_sanity(
    attribute: Attribute,
    model: Any,
    *,
    randomise: Callable[[int, int], Any] | None = None,
    layers: Sequence[str] = (),
    retrain: Callable[[int], Any] | None = None,
    baselines: Mapping[str, Any] | None = None,
    null_maps: ArrayLike | None = None,
    removal: Mapping[str, RemovalTest] | None = None,
    outputs: Sequence[str] | None = None,
    n_draws: int = 8,
    method: str = "spearman",
    progress: bool = False,
) -> SanityChecks:
    """Run whichever checks there is something to run with.

    Parameters
    ----------
    attribute : callable
        Maps a model, and ``baseline=`` for ``baselines``, to a map (n_outputs, *input_shape)
        whose sum is the model's correlation with the targets.
    model : object
        Whatever ``attribute`` takes.
    randomise : callable, optional
        Maps a number of layers, counted from the output, and a seed to a model whose layers
        these were drawn anew.
    layers : sequence of str
        Their names, from the output to the input: for how many to draw.
    retrain : callable, optional
        Maps a seed to a model that has learned labels shuffled by it, from other first weights
        than ``model``: wide layers stay near them, and maps alike.
    baselines : dict, optional
        Others to attribute with than the one that ``attribute`` takes by itself.
    null_maps : array of shape (n_outputs, n_permutations + 1, ...), optional
        Of the frozen model with permuted targets, the first of the targets as they are; or what
        they sum to.
    removal : dict of str to RemovalTest, optional
        By what stood in for the groups.
    outputs : sequence of str, optional
        Names; numbers by default.
    n_draws : int
        Models of each kind, six or more.
    method : {"spearman", "pearson"}
        Of `map_similarity`.
    progress : bool
        Show progress bars.

    Returns
    -------
    SanityChecks

    Raises
    ------
    InputError
        If there are too few draws, or maps differ in shape.

    Notes
    -----
    *Randomised layers* and *shuffled labels*: the mean similarity of ``n_draws`` models' maps
    with the model's. Chance is what it becomes if the sign of each similarity is flipped at
    random: a model whose head was drawn anew is as likely as the one of opposite sign, with the
    opposite map, so that similarities scatter around 0 unless maps are made of the data more
    than of the model (of shuffled labels nearly so). Green inside of chance, amber or red
    outside, by the limit. With all layers drawn or labels shuffled also amber where chance
    itself reaches beyond the limit: single maps then look alike but for their sign.

    *Permuted labels*: the sum of the map, against those of permuted targets; green outside.

    *Deletion* and *insertion*: mean of the curve, against random orders; green outside of them
    on the right side, amber on the right side of their median.

    *Baselines*: similarity of maps with another baseline; green from 0.9, red below 0.7.
    """
    if check_count("n_draws", n_draws) < FEWEST_DRAWS:
        raise InputError(
            "n_draws",
            expected=f"{FEWEST_DRAWS} or more, as fewer have no p of {ALPHA}",
            got=str(n_draws),
        )
    own = np.asarray(attribute(model))
    names = [str(v) for v in range(len(own))] if outputs is None else list(outputs)
    if len(names) != len(own):
        raise InputError("outputs", expected=f"{len(own)} names", got=str(len(names)))
    rows: list[SanityCheck] = []

    def maps_of(make, label):
        drawn = range(n_draws)
        return np.stack(
            [np.asarray(attribute(make(k))) for k in track(drawn, show=progress, label=label)]
        )

    for n, layer in enumerate(layers if randomise else (), start=1):
        whole = n == len(layers)
        maps = maps_of(lambda k, n=n: randomise(n, k), f"without {layer}")
        drawn = "all layers were" if whole else f"{n} of {len(layers)} layers were"
        rows += _unrelated(
            names,
            "randomised: all layers" if whole else f"randomised: down to {layer}",
            map_similarity(own, maps, method=method),
            MOST_SIMILAR,
            f"Map similarity with models in which {drawn} drawn anew",
            check_scatter=whole,
        )
    if retrain:
        maps = maps_of(retrain, "shuffled labels")
        rows += _unrelated(
            names,
            "shuffled labels: map",
            map_similarity(own, maps, method=method),
            MOST_SIMILAR,
            "Map similarity with models trained on shuffled labels",
            check_scatter=True,
        )
        rows += _unrelated(
            names,
            "shuffled labels: r",
            maps.reshape(*maps.shape[:2], -1).sum(-1),
            MOST_LEARNED,
            "Held-out correlation of models trained on shuffled labels",
            check_scatter=False,
        )
    if null_maps is not None:
        rows += _permuted(names, np.asarray(null_maps))
    for kind, test in (removal or {}).items():
        rows += _removed(names, kind, test)
    for name, baseline in (baselines or {}).items():
        maps = np.asarray(attribute(model, baseline=baseline))[None]
        rows += _baselines(names, name, map_similarity(own, maps, method=method)[0])
    return SanityChecks(tuple(sorted(rows, key=lambda row: names.index(row.output))))


def _unrelated(names, check, values, limit, what, *, check_scatter):
    """Check that values (n_draws, n_outputs) lie around 0."""
    mean, p_values = values.mean(0), sign_flip_test(values).p_values
    means = flipped_means(values)
    tail = (1 - ALPHA) / 2
    low = np.quantile(means, 0.5 - tail, axis=0, method="lower")
    high = np.quantile(means, 0.5 + tail, axis=0, method="higher")
    rows = []
    for v, name in enumerate(names):
        inside = p_values[v] > ALPHA
        wide = check_scatter and high[v] > limit
        if inside:
            light = "amber" if wide else "green"
            verdict = "inside of chance"
            verdict += ", which is wide: single maps look alike but for their sign" if wide else ""
        else:
            light = "red" if abs(mean[v]) > limit else "amber"
            verdict = "beyond chance: something is left"
        size = np.sqrt(np.mean(values[:, v] ** 2))
        meaning = f"{what}: {verdict} (p = {p_values[v]:.3g}; root mean square {size:.2f})."
        rows.append(SanityCheck(name, check, mean[v], low[v], high[v], limit, light, meaning))
    return rows


def _permuted(names, null):
    """Check that maps sum to more than those of permuted targets."""
    sums = null.reshape(*null.shape[:2], -1).sum(-1).T
    p_values, rows = permutation_p_values(sums, tail="upper"), []
    low, high = np.quantile(sums[1:], [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    for v, name in enumerate(names):
        found = p_values[v] <= ALPHA
        verdict = "more than chance" if found else "no more than chance: nothing to attribute"
        meaning = (
            f"Sum of the map, against permuted labels and the same model: {verdict} "
            f"(p = {p_values[v]:.3g})."
        )
        light = "green" if found else "red"
        numbers = sums[0, v], low[v], high[v], high[v]
        rows.append(SanityCheck(name, "permuted labels: r", *numbers, light, meaning))
    return rows


def _removed(names, kind, test):
    """Check that r falls, and rises, faster in the order of the values than in random ones."""
    low, median, high = np.quantile(test.random_mean, [ALPHA / 2, 0.5, 1 - ALPHA / 2], axis=0)
    rows = []
    for check, value, p, side in (
        ("deletion", test.deletion_mean, test.p_deletion, -1),
        ("insertion", test.insertion_mean, test.p_insertion, 1),
    ):
        limit, verb = (low, "falls") if side < 0 else (high, "rises")
        for v, name in enumerate(names):
            if p[v] <= ALPHA:
                light, verdict = "green", "faster than in random order"
            elif side * (value[v] - median[v]) > 0:
                light, verdict = "amber", "not clearly faster than in random order"
            else:
                light, verdict = "red", "no faster than in random order"
            meaning = f"By areas in order of IGC ({kind}), r {verb} {verdict} (p = {p[v]:.3g})."
            numbers = value[v], low[v], high[v], limit[v]
            rows.append(SanityCheck(name, f"{check}: {kind}", *numbers, light, meaning))
    return rows


def _baselines(names, baseline, similarity):
    """Check that the baseline does not decide."""
    rows = []
    for name, value in zip(names, similarity, strict=True):
        lights = ("green", "agrees"), ("amber", "agrees in part"), ("red", "is another one")
        light, verdict = lights[int(value < BASELINES_AGREE) + int(value < BASELINES_DIFFER)]
        meaning = f"The map with {baseline} as baseline {verdict}."
        numbers = value, np.nan, np.nan, BASELINES_AGREE
        rows.append(SanityCheck(name, f"baseline: {baseline}", *numbers, light, meaning))
    return rows
