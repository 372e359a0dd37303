"""What an attribution gives back, and how it is kept."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroigc._files import atomic_path, make_output_folder
from neuroigc._validation import InputError

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
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays: dict[str, Any] = {
            name: np.array(json.dumps(value)) if isinstance(value, dict) else np.asarray(value)
            for name, value in values.items()
            if value is not None
        }
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, kind=np.array(type(self).__name__), **arrays)

    @classmethod
    def load(cls: type[Result], path: str | os.PathLike[str]) -> Result:
        """Read a result that `save` has written.

        Raises
        ------
        InputError
            If the file is no result of this kind, or not a whole one.
        """
        try:
            # Opened here, because numpy leaves a damaged file open.
            with Path(path).open("rb") as stream:
                file = np.load(stream, allow_pickle=False)
                if isinstance(file, np.ndarray):
                    raise ValueError("a single array")
                arrays = {name: file[name] for name in file.files}
            settings = json.loads(str(arrays.get("settings", "{}")))
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                "path", expected=f"a saved {cls.__name__}", got=f"{path} ({error})"
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
        up to 128 random groups of the samples, so with a scatter of their own of 6 % or more (10 %
        if there are many outputs). Approximate where paths deviate from the trapezoid of their
        ends, that is, for strongly nonlinear models: what a component's value owes to a sample as
        the partner or baseline of others is then known by trapezoids alone, and errors may come
        out too small or too large. For the error of a component that matters, name it in a group.
    correlation : array of shape (n_outputs,)
        Pearson correlation of prediction and target; within conditions (or ``within`` labels)
        if there are several.
    completeness_gap : array of shape (n_outputs,)
        Attributions summed, minus the correlation. Numerical, like the next.
    numerical_error : array of shape (n_outputs,)
        Estimated error of the map from the finite number of pairs and points, relative to the
        map's norm; shrinks with more gradients.
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

    def to_frame(self) -> pandas.DataFrame:
        """Return a table with one row per output and group.

        Without groups there is one row per output, for the sum over all components.

        Returns
        -------
        pandas.DataFrame
            Columns output, group, igc, standard_error (missing for the sum over all),
            correlation, completeness_gap and numerical_error.
        """
        import pandas

        names = self.settings.get("groups", [])
        values, errors = self.group_values, self.group_standard_errors
        if values is None or errors is None:
            names = ["all"]
            values = self.attributions.reshape(len(self.correlation), -1).sum(1, keepdims=True)
            errors = np.full_like(values, np.nan)
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
