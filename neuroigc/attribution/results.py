"""What an attribution gives back, and how it is kept."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroigc._array_files import read_npz
from neuroigc._files import atomic_path, make_output_folder, reading
from neuroigc._validation import InputError, check_choice, check_count
from neuroigc.attribution.intervals import (
    GroupData,
    bootstrap_intervals,
    jackknife,
    symmetric_intervals,
)
from neuroigc.attribution.result_folder import MAPS, REST, mapped

if TYPE_CHECKING:
    import pandas

__all__ = ["IGCResult", "IGResult"]

Result = TypeVar("Result", bound="_Result")


@dataclass
class _Result:
    """A dataclass of arrays, numbers and one dict, kept as .npz without pickle."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all fields to an .npz file; settings go as JSON text.

        Parameters
        ----------
        path : str or path
            Gets the ending .npz if it has none. Its folder is made if need be.

        Raises
        ------
        InputError
            If the folder cannot be written to.
        """
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
        make_output_folder(path.parent, "path")
        self._write(path, [f.name for f in fields(self)])

    def _write(self, path: Path, names: list[str]) -> None:
        values = {name: getattr(self, name) for name in names}
        arrays: dict[str, Any] = {
            name: np.array(json.dumps(value)) if isinstance(value, dict) else np.asarray(value)
            for name, value in values.items()
            if value is not None
        }
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, kind=np.array(type(self).__name__), **arrays)

    @classmethod
    def load(cls: type[Result], path: str | os.PathLike[str]) -> Result:
        """Read a result that `save` has written, or open a folder of one as memory maps.

        Parameters
        ----------
        path : str or path
            Of an .npz file, or of the folder that an attribution with ``results=`` has filled.

        Raises
        ------
        InputError
            If the file is no result of this kind, or not a whole one.
        """
        folder = Path(path) if Path(path).is_dir() else None
        try:
            arrays = read_npz(Path(path) if folder is None else folder / REST)
            if folder is not None:
                there = [name for name in MAPS if (folder / f"{name}.npy").exists()]
                arrays |= {name: mapped(folder, name) for name in there}
            with reading(path, "JSON"):
                settings = json.loads(str(arrays.get("settings", "{}")))
        except InputError as error:
            raise InputError(
                "path",
                expected=f"a saved {cls.__name__}",
                got=f"{path} ({error.got})",
                fix=error.fix,
            ) from error
        if str(arrays.pop("kind", "")) != cls.__name__:
            raise InputError(
                "path", expected=f"a saved {cls.__name__}", got=f"another file, {path}"
            )
        # What may be None is not in the file where it is.
        names = [f.name for f in fields(cls) if "None" not in str(f.type)]
        if missing := [name for name in names if name not in arrays]:
            raise InputError(
                "path",
                expected=f"a saved {cls.__name__}",
                got=f"{path}, which lacks {', '.join(missing)}",
            )
        values: dict[str, Any] = {}
        for f in fields(cls):
            array = arrays.get(f.name)
            if array is not None and array.ndim == 0:
                values[f.name] = settings if f.name == "settings" else array.item()
            else:
                values[f.name] = array
        return cls(**values)


@dataclass
class IGCResult(_Result):
    """Integrated gradient correlations of a data set.

    Attributes
    ----------
    attributions : array of shape (n_outputs, *input_shape)
        What each input component (or pooled pixel) carries of the correlation between prediction
        and target. Sums to ``correlation``, but for ``completeness_gap``.
    standard_errors : array of the same shape
        From the finite number of samples; shrink only with more data. Taken from the spread over
        64 random groups of the samples, so with a scatter of their own of 9 % or more (10 % if
        there are many outputs), or over the samples themselves if there are 128 or fewer.
        Approximate where paths deviate from the trapezoid of their ends, that is, for strongly
        nonlinear models: what a component's value owes to a sample as the partner or baseline of
        others is then known by trapezoids alone, and errors may come out too small or too large.
        For the error of a component that matters, name it in a group.
    correlation : array of shape (n_outputs,)
        Pearson correlation of prediction and target; within conditions (or ``within`` labels)
        if there are several.
    completeness_gap : array of shape (n_outputs,)
        Attributions summed, minus the correlation. Numerical, like the next.
    numerical_error : array of shape (n_outputs,)
        Estimated error of the map from the finite number of pairs and points, relative to the
        map's norm; shrinks with more gradients. How much of it goes as pairs are used up is not
        known before they come again, and taken to be half of the variance.
    group_values, group_standard_errors : arrays of shape (n_outputs, n_groups), or None
        Plain sums over the members of each group, in the order of ``settings["groups"]``. Their
        standard errors count every pair drawn in full for both its samples, so that a group of
        all components has the standard error of ``correlation``. What the finite number of pairs
        and points adds to them is estimated and taken off, but for half of the variance at most
        and not once all pairs were drawn less than twice: at few gradients errors scatter, and
        are rather too large. With many outputs they come from up to 48 random groups of the
        samples and scatter by another 10 %. Baselines count as given: that those of
        `MeanBaseline` and `SampledBaseline` are taken from the samples is left out (a group of
        all components does not depend on it).
    n_samples : int
    n_gradients : int
        Gradients taken per sample (and output, or latent).
    settings : dict
        How the result was made.
    p_values : array of shape (n_outputs, *input_shape), or None
        Of permutations of the targets, if there were any: the probability of a value so large
        (in relation to its standard deviation over permutations) anywhere in the map of an
        output whose targets have nothing to do with the inputs. The model stays as it is, so
        that the chance of its training is no part of it.
    group_p_values, group_p_values_fwe : arrays of shape (n_outputs, n_groups), or None
        Likewise of groups: of each by itself, and family-wise, anywhere among the groups.
    group_degrees_of_freedom : array of shape (n_outputs, n_groups), or None
        Of the groups' standard errors, by how far random groups of samples differ; with many
        outputs, else `group_intervals` takes them from the samples.
    group_influences : array of shape (n_samples, n_outputs, n_groups), or None
        Of each sample on the groups' covariances, in units of ``group_values``; None where there
        are many outputs, and only the influence of groups of samples is known.
    group_attributions : array of the same shape, or None
        Of each sample to the groups, meaned over its baselines, over the standard deviation of
        the predictions, less the mean over samples.
    scores : array of shape (2, n_samples, n_outputs), or None
        z-scores of predictions and targets, whose squares tell the influence on the standard
        deviations.
    strata : array of shape (n_samples,), or None
        Numbers of the conditions (or ``within`` labels) within which samples were compared.
    null_maps : array of shape (n_outputs, n_permutations + 1, *input_shape), or None
        Maps of permuted targets, in units of the attributions, where they were to be kept; the
        first is of the targets as they are. For tests of neighbouring components together. Of
        strongly nonlinear models they are known by trapezoids alone where outputs are few, so
        that the first is not quite ``attributions``.
    """

    attributions: NDArray[Any]
    standard_errors: NDArray[Any]
    correlation: NDArray[np.float64]
    completeness_gap: NDArray[np.float64]
    numerical_error: NDArray[np.float64]
    group_values: NDArray[Any] | None
    group_standard_errors: NDArray[Any] | None
    n_samples: int
    n_gradients: int
    settings: dict[str, Any] = field(default_factory=dict)
    p_values: NDArray[np.float64] | None = None
    group_p_values: NDArray[np.float64] | None = None
    group_p_values_fwe: NDArray[np.float64] | None = None
    group_degrees_of_freedom: NDArray[np.float64] | None = None
    group_influences: NDArray[np.float32] | None = None
    group_attributions: NDArray[np.float32] | None = None
    scores: NDArray[np.float64] | None = None
    strata: NDArray[np.int64] | None = None
    null_maps: NDArray[np.float32] | None = None

    def save_rest(self, folder: Path) -> None:
        """Write what is no map beside the maps' .npy files, which makes the folder whole."""
        self._write(folder / REST, [f.name for f in fields(self) if f.name not in MAPS])

    def group_intervals(
        self,
        level: float = 0.95,
        *,
        method: str = "jackknife",
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> NDArray[np.float64]:
        """Return confidence intervals of the groups' values.

        They say where the values would be with endlessly many stimuli, of the same model and
        the same conditions.

        Parameters
        ----------
        level : float
            Between 0 and 1.
        method : {"jackknife", "bootstrap"}
            Student's interval around the value, its error from leaving out each sample in turn;
            or the reach of values of samples drawn with replacement. Both are symmetric, done
            within conditions, and widened by what few pairs and points add, and where few samples
            make most of the error, which is then not well known. With many outputs there is the
            first only, with the standard errors of the result and their degrees of freedom from
            random groups of samples; such intervals leave out the numerical error, and are some
            percent too narrow with 100 samples or fewer.
        n_resamples, seed : int
            Of the bootstrap.

        Returns
        -------
        array of shape (n_outputs, n_groups, 2)

        Raises
        ------
        InputError
            If there are no groups, or the method cannot be.
        """
        if self.group_values is None or self.group_standard_errors is None:
            raise InputError(
                "groups", expected="a result with groups", got="none", fix="Attribute with groups=."
            )
        if not (isinstance(level, Real) and 0 < level < 1):
            raise InputError("level", expected="a number between 0 and 1", got=repr(level))
        check_choice("method", method, ("jackknife", "bootstrap"))
        n_resamples = check_count("n_resamples", n_resamples, 100)
        seed = check_count("seed", seed, 0)
        data = self.group_data()
        if data is None:
            if method == "bootstrap":
                raise InputError(
                    "method",
                    expected="jackknife where there are many outputs",
                    got="bootstrap",
                    fix="Or choose fewer outputs (outputs=), so that each sample is known.",
                )
            n_free = self.group_degrees_of_freedom
            return symmetric_intervals(
                self.group_values,
                self.group_standard_errors,
                self.n_samples - 1 if n_free is None else n_free,
                float(level),
            )
        if method == "bootstrap":
            return bootstrap_intervals(data, level=float(level), n_resamples=n_resamples, seed=seed)
        return symmetric_intervals(self.group_values, *jackknife(data), float(level))

    def group_data(self) -> GroupData | None:
        """Return what intervals are made of, or None if that is not known of each sample."""
        data = (
            self.group_values,
            self.group_influences,
            self.group_attributions,
            self.scores,
            self.strata,
        )
        arrays = [array for array in data if array is not None]
        return GroupData(*arrays) if len(arrays) == len(data) else None

    def to_frame(self) -> pandas.DataFrame:
        """Return a table with one row per output and group.

        Without groups there is one row per output, for the sum over all components.

        Returns
        -------
        pandas.DataFrame
            Columns output, group, igc, standard_error (missing for the sum over all),
            correlation, completeness_gap and numerical_error; of groups also low and high, the
            ends of their 95 % intervals (jackknife), and where targets were permuted p, of each
            group by itself, p_fwe, family-wise over the groups of an output, and p_fdr, adjusted
            for the rate of false discoveries among these (Benjamini & Hochberg 1995).
        """
        import pandas

        names = self.settings.get("groups", [])
        values, errors = self.group_values, self.group_standard_errors
        if values is None or errors is None:
            names = ["all"]
            values = self.attributions.reshape(len(self.correlation), -1).sum(1, keepdims=True)
            errors = np.full_like(values, np.nan)
            further: dict[str, NDArray[Any]] = {}
        else:
            intervals = self.group_intervals()
            further = {"low": intervals[..., 0], "high": intervals[..., 1]}
            tests = {"p": self.group_p_values, "p_fwe": self.group_p_values_fwe}
            further |= {name: test for name, test in tests.items() if test is not None}
            if self.group_p_values is not None:
                from scipy.stats import false_discovery_control

                further["p_fdr"] = false_discovery_control(self.group_p_values, axis=1)
        outputs = self.settings.get("outputs", list(range(len(self.correlation))))
        rows = [
            {
                "output": output,
                "group": name,
                "igc": values[v, g],
                "standard_error": errors[v, g],
                "correlation": self.correlation[v],
                "completeness_gap": self.completeness_gap[v],
                "numerical_error": self.numerical_error[v],
                **{name: column[v, g] for name, column in further.items()},
            }
            for v, output in enumerate(outputs)
            for g, name in enumerate(names)
        ]
        return pandas.DataFrame(rows)


@dataclass
class IGResult(_Result):
    """Attributions of single samples: integrated gradients and their relatives.

    Attributes
    ----------
    attributions : array of shape (n_samples, n_outputs, *input_shape)
        What each input component adds to the prediction, against the mean of the baselines'.
    predictions : array of shape (n_samples, n_outputs)
    baseline_predictions : array of shape (n_samples, n_outputs)
        Mean prediction over the baselines (in the sample's condition).
    completeness_gap : array of shape (n_samples, n_outputs)
        Attributions summed, minus the difference of predictions.
    settings : dict
        How the result was made.
    standard_errors : array of the shape of the attributions, or None
        From the finite number of random draws, where a method draws.
    """

    attributions: NDArray[Any]
    predictions: NDArray[Any]
    baseline_predictions: NDArray[Any]
    completeness_gap: NDArray[np.float64]
    settings: dict[str, Any] = field(default_factory=dict)
    standard_errors: NDArray[Any] | None = None
