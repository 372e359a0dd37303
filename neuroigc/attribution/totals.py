"""From sums to a result: the same for one run, for several processes, and for merged shards."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._validation import InputError
from neuroigc.attribution.accumulators import Sums, power_sum
from neuroigc.attribution.checkpoint import load_state, save_state
from neuroigc.attribution.estimate import Estimate, is_same, numerical_errors
from neuroigc.attribution.permutations import (
    component_p_values,
    draw_permutations,
    group_p_values,
    permuted_groups,
)
from neuroigc.attribution.problem import Problem
from neuroigc.attribution.result_folder import Maps, ResultFolder
from neuroigc.attribution.results import IGCResult

__all__ = ["Totals", "merge_shards"]

# The most of a variance over samples that is taken for noise of the pairs drawn, lest a poor
# estimate of the noise take everything.
MOST_NOISE = 0.5
# Numbers of maps that are finished at once.
OUTPUT_NUMBERS = 2**20
# Of what all members know alike, and of what each adds to.
_COMMON = ("strata", "keys", "targets", "predictions", "scale", "correlation")
_IDENTITY = "shard of an attribution"


@dataclass
class Totals:
    """All that a result is made of.

    Attributes
    ----------
    settings : dict
        How the sums were made.
    common : dict of arrays
        What is known of all samples without a gradient: strata, keys, centred targets and
        predictions (n_samples, n_outputs), scale and correlation (n_outputs,).
    sums : Sums
        What samples and rounds add.
    """

    settings: dict[str, Any]
    common: dict[str, np.ndarray]
    sums: Sums

    @classmethod
    def of(cls, problem: Problem, estimate: Estimate, settings: dict[str, Any]) -> Totals:
        """Gather what was found."""
        columns = problem.columns
        counts = {
            "n_rounds": estimate.n_rounds,
            "n_sweeps": estimate.n_sweeps,
            "n_gradients": estimate.n_gradients,
            "shape": list(columns.shape),
            "n_components": columns.n_components,
        }
        common = {name: getattr(problem, name) for name in _COMMON}
        arrays = {k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in common.items()}
        return cls({**settings, **counts}, arrays, estimate.sums)

    def save(self, path: Path, identity: str) -> None:
        """Write a shard's totals to a file."""
        header = json.dumps({"settings": self.settings, "identity": identity})
        arrays = {f"common/{name}": array for name, array in self.common.items()}
        arrays |= {f"sums/{name}": array for name, array in self.sums.to_arrays().items()}
        save_state(path, _IDENTITY, {"header": np.array(header), **arrays})

    @classmethod
    def load(cls, path: Path) -> tuple[Totals, str]:
        """Read a shard's totals, and the digest of what they are of."""
        arrays = load_state(
            path,
            _IDENTITY,
            "paths",
            expected="the file of a shard",
            other="something else",
            fix="Run that shard again, then merge.",
        )
        if arrays is None:
            raise InputError("paths", expected="files of shards", got=f"no file {path}")
        header = json.loads(str(arrays.pop("header")))
        parts: dict[str, dict[str, np.ndarray]] = {"common": {}, "sums": {}}
        for name, array in arrays.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = array
        sums = Sums.from_arrays(parts["sums"], torch.device("cpu"))
        return cls(header["settings"], parts["common"], sums), str(header["identity"])

    def is_of(self, other: Totals) -> bool:
        """Tell whether predictions are those of other totals."""
        names = ("correlation", "scale")
        return all(is_same(self.common[name], other.common[name]) for name in names)

    def result(self, folder: ResultFolder | None = None) -> IGCResult:
        """Divide covariances by standard deviations, and put everything in its place.

        With a folder, maps are written there, block of outputs by block.
        """
        settings, sums = dict(self.settings), self.sums
        n_rounds, n_gradients = settings["n_rounds"], settings.pop("n_gradients")
        shape, n_components = settings.pop("shape"), settings.pop("n_components")
        dtype, n = settings["dtype"].removeprefix("torch."), len(self.common["strata"])
        correlation = self.common["correlation"]
        scale = torch.from_numpy(self.common["scale"])[:, None]
        maps = Maps(None if folder is None else folder.path)
        kinds: dict[str, Any] = dict.fromkeys(("attributions", "standard_errors"), dtype)
        kinds |= {"p_values": np.float64} if "null" in sums else {}
        kinds = {name: ((len(scale), *shape), kind) for name, kind in kinds.items()}
        total, group_covariances = np.zeros(len(scale)), []
        tests: dict[str, Any] = {}
        step = max(1, OUTPUT_NUMBERS // n_components)
        with maps.filling(**kinds):
            for start in range(0, len(scale), step):
                rows = slice(start, min(start + step, len(scale)))
                summed = sums.rows("map", rows).cpu()
                covariance = summed[:, :n_components] / n_rounds / n
                group_covariances.append(summed[:, n_components:] / n_rounds / n)
                errors = self._errors(covariance, rows=rows) / n / scale[rows]
                values = covariance / scale[rows]
                total[rows] = values.sum(1).numpy()
                maps.put("attributions", rows, values.numpy().astype(dtype))
                maps.put("standard_errors", rows, errors.numpy().astype(dtype))
                if "null" in sums:
                    null = sums.rows("null", rows)[..., :n_components].cpu().numpy()
                    maps.put("p_values", rows, component_p_values(null))
        if settings.get("keep_null") and "null" in sums:
            null = sums["null"][..., :n_components].cpu() / n_rounds / n / scale[:, None]
            tests["null_maps"] = null.float().numpy().reshape(*null.shape[:2], *shape)
        group_covariance = torch.cat(group_covariances)
        on_groups = group_covariance / scale
        group_errors, influences, degrees = None, None, None
        if on_groups.shape[1]:
            if "group_influences" in sums:
                influence, group_variance = self._group_influences(on_groups)
                influences = influence.numpy().astype(np.float32)
                group_errors = group_variance.clamp(min=0).sqrt() / n
            else:
                group_errors = self._errors(group_covariance, "group_") / n / scale
                degrees = self._degrees_of_freedom(group_covariance)
            if "null" in sums:
                null = sums["null"][..., n_components:].cpu().numpy()
                tests |= group_p_values(self._group_null(null))

        def numpy(tensor: Tensor) -> Any:
            return tensor.numpy().astype(dtype)

        result = IGCResult(
            **maps.arrays,
            correlation=correlation,
            completeness_gap=total - correlation,
            numerical_error=numerical_errors(sums, n_rounds).cpu().numpy(),
            group_values=numpy(on_groups) if on_groups.shape[1] else None,
            group_standard_errors=None if group_errors is None else numpy(group_errors),
            n_samples=n,
            n_gradients=n_gradients,
            settings=settings,
            group_degrees_of_freedom=degrees,
            group_influences=influences,
            scores=None if influences is None else self._scores(),
            group_attributions=None if influences is None else self._group_attributions(),
            strata=None if influences is None else self.common["strata"],
            **tests,
        )
        if folder is not None:
            result.save_rest(folder.path)
            folder.close()
        return result

    def _group_null(self, null: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return groups' values for permuted targets, exactly where samples' are known."""
        if "group_attributions" not in self.sums:
            return null
        attributions = (self.sums["group_attributions"] / self.settings["n_rounds"]).cpu().numpy()
        common, settings = self.common, self.settings
        given = draw_permutations(
            common["strata"], common["keys"], settings["n_permutations"], settings["seed"]
        )
        return permuted_groups(attributions, common["targets"], given)

    def _errors(self, covariance: Tensor, prefix: str = "", rows: slice = slice(None)) -> Tensor:
        """Return sums over samples' standard deviations of some outputs, from their groups."""
        sums = self.sums
        spread, by_influence, influence = (
            sums.rows(f"{prefix}{name}", rows).cpu()
            for name in ("spread", "spread_influence", "influence")
        )
        variance = spread - 2 * covariance * by_influence + covariance**2 * influence[:, None]
        if f"{prefix}noise" in sums:
            variance -= torch.minimum(sums[f"{prefix}noise"].cpu(), MOST_NOISE * variance.clamp(0))
        n_rounds = self.settings["n_rounds"]
        if "spread_rounds" in sums and not prefix:
            # Of those that told the variance.
            n_rounds = sums["spread_rounds"].cpu()
        errors: Tensor = (variance / n_rounds).clamp(min=0).sqrt()
        return errors

    def _degrees_of_freedom(self, covariance: Tensor) -> NDArray[np.float64]:
        """Return those of groups' errors from groups of samples, as of `intervals.jackknife`."""
        n_rounds, n_strata = self.settings["n_rounds"], int(self.common["strata"].max()) + 1
        powers = [(self.sums[f"group_powers{p}"] / n_rounds).cpu() for p in (2, 4)]
        squares, fourth = (power_sum(mixed, covariance) for mixed in powers)
        n_groups = float(self.sums["n_sample_groups"]) / n_rounds
        doubt = (fourth - squares**2 / n_groups).clamp(min=torch.finfo(torch.float64).tiny)
        most = max(n_groups - n_strata, 1.0)
        degrees: NDArray[np.float64] = (2 * squares**2 / doubt).clamp(1.0, most).numpy()
        return degrees

    def _group_influences(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return samples' influence on groups' covariances over the scale, and the variance.

        Shapes (n_samples, n_outputs, n_groups), of mean 0 in each stratum, and
        (n_outputs, n_groups): of the sum over samples of the influence on IGC itself.
        """
        scale, n_rounds = torch.from_numpy(self.common["scale"])[:, None], self.settings["n_rounds"]
        influence = (self.sums["group_influences"] / n_rounds).cpu() / scale
        strata, scores = self.common["strata"], torch.from_numpy(self._scores())
        lever = (scores**2).mean(0) - 1
        variance = torch.zeros_like(values)
        for stratum in range(int(strata.max()) + 1):
            member = torch.from_numpy(strata == stratum)
            influence[member] -= influence[member].mean(0)
            h = lever[member] - lever[member].mean(0)
            own = influence[member] - values * h[:, :, None]
            variance += (own**2).sum(0) * len(own) / max(len(own) - 1, 1)
        noise = (self.sums["group_noise"] / n_rounds**2).cpu() / scale**2
        return influence, variance - torch.minimum(noise, MOST_NOISE * variance)

    def _group_attributions(self) -> NDArray[np.float32]:
        """Return samples' mean attributions to groups, over predictions' standard deviations."""
        attributions = (self.sums["group_attributions"] / self.settings["n_rounds"]).cpu().numpy()
        strata = self.common["strata"]
        for stratum in range(int(strata.max()) + 1):
            attributions[strata == stratum] -= attributions[strata == stratum].mean(0)
        deviation = np.sqrt((self.common["predictions"] ** 2).mean(0))
        scaled: NDArray[np.float32] = (attributions / deviation[:, None]).astype(np.float32)
        return scaled

    def _scores(self) -> Any:
        """Return z-scores of predictions and targets, (2, n_samples, n_outputs)."""
        both = np.stack([self.common["predictions"], self.common["targets"]])
        return both / np.sqrt((both**2).mean(1, keepdims=True))


def merge_shards(paths: Sequence[str | os.PathLike[str]]) -> IGCResult:
    """Merge the files of all shards of an attribution into its result.

    Parameters
    ----------
    paths : sequence of paths
        What `attribute_shard` wrote for shards 1 to n, in any order.

    Returns
    -------
    IGCResult
        As if one process had taken as many gradients. Among its ``settings``, ``n_shards``.

    Raises
    ------
    InputError
        If a file is damaged or no shard, or a shard is missing, came twice or belongs to another
        attribution.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise InputError("paths", expected="files of shards", got="none")
    merged: Totals | None = None
    identity, seen = "", dict[int, Path]()
    for path in map(Path, paths):
        totals, mine = Totals.load(path)
        number, size = totals.settings.pop("shard")
        if merged is None:
            merged, identity, n_shards = totals, mine, size
        elif mine != identity or size != n_shards or not totals.is_of(merged):
            raise InputError(
                "paths",
                expected="shards of one and the same attribution",
                got=f"{path} with one of another model, data, options or number of shards",
            )
        elif number in seen:
            raise InputError(
                "paths",
                expected="each shard once",
                got=f"shard {number} in {seen[number]} and {path}",
            )
        else:
            merged.sums.merge(totals.sums)
        seen[number] = path
    missing = [str(number) for number in range(1, n_shards + 1) if number not in seen]
    if merged is None or missing:
        raise InputError(
            "paths",
            expected=f"all {n_shards} shards",
            got=f"none of number {', '.join(missing)}",
            fix="Run the missing shards, then merge again.",
        )
    merged.settings["n_shards"] = n_shards
    return merged.result()
