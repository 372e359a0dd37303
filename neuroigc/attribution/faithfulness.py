"""Whether a map tells what the model uses: replace what it points at, and see.

Measures of single samples and of whole data sets, by component or by region, of maps of any
method. They judge a map against the *model*; whether a model is right about the brain is another
question. Sources: Samek et al. 2017 (deletion, most and least relevant first), Petsiuk, Das &
Saenko 2018 (insertion).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from torch import nn

from neuroigc._progress import track
from neuroigc._validation import InputError, check_choice, check_count
from neuroigc.attribution.baselines import MeanBaseline
from neuroigc.attribution.perturbation import (
    Elements,
    Perturbed,
    element_values,
    make_elements,
    open_perturbed,
)
from neuroigc.attribution.sensitivity import Drops, set_sizes

__all__ = ["PerturbationCurve", "compare_maps", "perturbation_curve"]


@dataclass
class PerturbationCurve:
    """What is left of predictions as elements are replaced, or comes back as they are inserted.

    Attributes
    ----------
    shares : array of shape (n_points,)
        Of the elements that were replaced (or inserted), from 0 to 1.
    values : array of shape (n_points,), or (n_samples, n_points)
        Covariances over the intact model's standard deviations (with targets; the correlation
        where all elements are there), or predictions.
    """

    shares: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def area(self) -> NDArray[np.float64]:
        """Return the area under the curve, () or (n_samples,), by trapezoids."""
        return np.asarray(trapezoid(self.values, self.shares, axis=-1))


def perturbation_curve(
    model: nn.Module,
    inputs: Any,
    maps: Any,
    *,
    targets: Any = None,
    mode: str = "deletion",
    first: str = "most",
    groups: Mapping[str, Any] | None = None,
    replacement: Any = MeanBaseline(),  # noqa: B008 - immutable
    output: int = 0,
    n_points: int = 20,
    conditions: Any = None,
    batch_size: int = 1024,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> PerturbationCurve:
    """Replace elements in the order of a map (deletion), or put them back (insertion).

    Parameters
    ----------
    model : torch.nn.Module
        As for `integrated_gradients`.
    inputs : array of shape (n_samples, *input_shape)
    maps : array of shape input_shape, or (n_samples, *input_shape)
        Attributions of the output. With targets the first, one order for all samples; without,
        either.
    targets : array of shape (n_samples,), optional
        True values of the output. With them, the curve is of the whole data set.
    mode : {"deletion", "insertion"}
        A map that tells what the model uses has a small area under the first, and a large one
        under the second.
    first : {"most", "least"}
        Elements of the largest values come first, or of the smallest (least relevant first).
    groups : dict of str to indices or boolean mask, optional
        Elements: regions, replaced as a whole in the order of their sums; what is in none stays as
        it is. By default components.
    replacement : MeanBaseline, ZeroBaseline, GivenBaseline, SampledBaseline, or array
        What elements are replaced by; predictions are averaged over several baselines. An array
        of the shape of ``inputs`` gives each sample its own.
    output : int
        Output of the model.
    n_points : int
        Steps of the curve; at most one for each element.
    conditions, batch_size, device, seed, progress
        As for `integrated_gradients`.

    Returns
    -------
    PerturbationCurve

    Raises
    ------
    InputError
        If maps, model and data do not fit each other.
    """
    check_choice("mode", mode, ("deletion", "insertion"))
    check_choice("first", first, ("most", "least"))
    n_points = check_count("n_points", n_points)
    with open_perturbed(
        model, inputs, targets, replacement=replacement, output=output, conditions=conditions,
        batch_size=batch_size, device=device, seed=seed,
    ) as perturbed:  # fmt: skip
        elements = make_elements(groups, perturbed.samples.shape)
        n_maps = None if targets is not None else len(perturbed)
        values = element_values(maps, elements, perturbed.samples.shape, n_maps)
        order = np.argsort(values if first == "least" else -values, axis=1, kind="stable")
        return _curve(perturbed, elements, order, mode, n_points, progress)


def _curve(
    perturbed: Perturbed,
    elements: Elements,
    order: NDArray[np.int64],
    mode: str,
    n_points: int,
    progress: bool = False,
) -> PerturbationCurve:
    """Replace elements in the order of each row."""
    n_elements = len(elements)
    counts = np.unique(
        np.linspace(0, n_elements, min(n_points, n_elements) + 1).round().astype(int)
    )
    members = np.concatenate(elements)
    owners = np.repeat(np.arange(n_elements), [len(element) for element in elements])
    # Components that stand in several groups are touched by the first of them; those in none stay.
    stays = np.ones(perturbed.samples.n_inputs, bool)
    stays[members] = False
    rank = np.full((len(order), perturbed.samples.n_inputs), n_elements)
    for row, places in zip(rank, np.argsort(order, axis=1), strict=True):
        np.minimum.at(row, members, places[owners])
    device = perturbed.bank.device
    outside = torch.from_numpy(stays).to(device)
    read = []
    for count in track(counts.tolist(), show=progress, label=mode):
        touched = torch.from_numpy(rank < count).to(device)
        keep = touched | outside if mode == "insertion" else ~touched
        read.append(perturbed.read(keep).cpu().numpy())
    values = np.stack(read, 1)
    if perturbed.weights is not None:
        values = values[0]
    return PerturbationCurve(counts / n_elements, values)


def compare_maps(
    model: nn.Module,
    inputs: Any,
    maps: Mapping[str, Any],
    *,
    targets: Any = None,
    groups: Mapping[str, Any] | None = None,
    replacement: Any = MeanBaseline(),  # noqa: B008 - immutable
    output: int = 0,
    n_points: int = 20,
    sizes: Sequence[int] | None = None,
    n_sets: int = 100,
    n_random: int = 10,
    conditions: Any = None,
    batch_size: int = 1024,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Measure several maps of one output with the same elements, sets and replacements.

    Parameters
    ----------
    model, inputs, targets, groups, replacement, output, n_points
        As for `perturbation_curve`.
    maps : dict of str to array
        As `perturbation_curve` takes them, by the name of their method.
    sizes, n_sets
        As for `sensitivity_n`.
    n_random : int
        Random orders, averaged, of a last row "random"; none for 0.
    conditions, batch_size, device, seed, progress
        As for `integrated_gradients`.

    Returns
    -------
    list of dict
        One row for each map, for `pandas.DataFrame`: method; deletion (area under the curve,
        largest values first; small is good) and insertion (large is good; the same as deletion of
        the smallest values first, unless groups overlap), each averaged over samples where there
        are no targets; sensitivity (mean over sizes and samples; 1 is best).

    Raises
    ------
    InputError
        As `perturbation_curve`.
    """
    n_points, n_sets = check_count("n_points", n_points), check_count("n_sets", n_sets, 3)
    n_random = check_count("n_random", n_random, 0)
    if not isinstance(maps, Mapping) or not maps:
        raise InputError("maps", expected="a dict of names to maps", got=type(maps).__name__)
    with open_perturbed(
        model, inputs, targets, replacement=replacement, output=output, conditions=conditions,
        batch_size=batch_size, device=device, seed=seed,
    ) as perturbed:  # fmt: skip
        shape = perturbed.samples.shape
        elements = make_elements(groups, shape)
        n_maps = None if targets is not None else len(perturbed)
        drops = Drops(perturbed, elements, set_sizes(sizes, len(elements)), n_sets, seed, progress)

        def measure(values: NDArray[np.float64]) -> dict[str, float]:
            order = np.argsort(-values, axis=1, kind="stable")
            areas = {
                mode: float(_curve(perturbed, elements, order, mode, n_points).area.mean())
                for mode in ("deletion", "insertion")
            }
            known = drops.correlate(values)
            known = known[np.isfinite(known)]
            return areas | {"sensitivity": float(known.mean()) if known.size else np.nan}

        rows: list[dict[str, Any]] = [
            {"method": name, **measure(element_values(values, elements, shape, n_maps))}
            for name, values in track(maps.items(), show=progress, label="maps", total=len(maps))
        ]
        random = np.random.default_rng(seed)
        drawn = [measure(random.standard_normal((1, len(elements)))) for _ in range(n_random)]
    if drawn:
        mean = {name: float(np.mean([one[name] for one in drawn])) for name in drawn[0]}
        rows.append({"method": "random", **mean})
    return rows
