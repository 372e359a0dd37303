"""Sums over areas: from vertices to a table, and from subjects to a summary."""

from collections import defaultdict

import numpy as np
import pandas as pd
from scipy import sparse

from neuroigc._validation import InputError
from neuroigc.surface.atlas import ELSEWHERE
from neuroigc.surface.spaces import HEMISPHERES

__all__ = ["aggregate_rois", "summarise_rois"]

_KEYS = ["subject", "hemisphere", "atlas", "roi", "output"]


def aggregate_rois(
    values, atlas, vertices, *, subject, outputs, standard_errors=None, elsewhere=True
):
    """Sum attributions over areas, hemisphere by hemisphere.

    IGC is additive: the value of an area is the plain sum over its vertices (paper, equation 4).
    Where no two areas overlap, the rows of one output, "elsewhere" included, sum to the output's
    total.

    Parameters
    ----------
    values : array (n_outputs, n_vertices)
        The left hemisphere's vertices, then the right's.
    atlas : Atlas or CombinedAtlas
        Areas of a combined atlas may overlap; "elsewhere" is then what lies in none of them.
    vertices : dict of str to int array
        The columns' vertices on the surface, for "left" and "right".
    subject : str
        For the table.
    outputs : sequence of str
        Names of the outputs.
    standard_errors : dict of str to array (n_outputs,), optional
        Standard errors of the sums, by the names that
        ``atlas.groups(vertices, by_hemisphere=True, elsewhere=True)`` gives. Those of single
        vertices do not serve: neighbours share their noise, so only the attribution, given these
        groups, can tell how uncertain their sums are.
    elsewhere : bool
        Add one row per hemisphere for the vertices in no area.

    Returns
    -------
    pandas.DataFrame
        ``subject, hemisphere, atlas, roi, output, igc, standard_error, n_vertices``. An area
        without a vertex among the columns has ``n_vertices`` 0 and ``igc`` NaN: nothing was
        measured there. ``standard_error`` is NaN where none was given.

    Raises
    ------
    InputError
        If shapes disagree, values are not finite, or a standard error's name or length is wrong.
    """
    values = np.asarray(values)
    n_columns = sum(
        len(vertices[hemisphere]) for hemisphere in HEMISPHERES if hemisphere in vertices
    )
    if values.shape != (len(outputs), n_columns):
        raise InputError(
            "values",
            expected=f"{len(outputs)} outputs x {n_columns} vertices",
            got=f"shape {values.shape}",
        )
    unusable = int((~np.isfinite(values)).any(axis=0).sum())
    if unusable:
        raise InputError(
            "values",
            expected="finite numbers",
            got=f"NaN or infinity at {unusable} vertices",
            fix="Leave those vertices out of values and vertices, so that no sum hides them.",
        )
    groups = atlas.groups(vertices, by_hemisphere=True, elsewhere=elsewhere)
    errors = _check_errors(standard_errors or {}, groups, len(outputs))

    rois = [*atlas.names, ELSEWHERE] if elsewhere else atlas.names
    rows = [(hemisphere, roi) for hemisphere in HEMISPHERES for roi in rois]
    columns = [groups.get(f"{hemisphere} {roi}", np.empty(0, int)) for hemisphere, roi in rows]
    counts = np.array([len(column) for column in columns])
    # One row of ones per area: all sums of all outputs in one sparse product.
    membership = sparse.csr_array(
        (np.ones(counts.sum()), np.concatenate(columns), np.r_[0, np.cumsum(counts)]),
        shape=(len(rows), n_columns),
    )
    sums = membership @ values.T.astype(np.float64)
    sums[counts == 0] = np.nan

    return pd.DataFrame(
        [
            {
                "subject": subject,
                "hemisphere": hemisphere,
                "atlas": atlas.name if roi == ELSEWHERE else atlas.atlas_of(roi),
                "roi": roi,
                "output": output,
                "igc": sums[row, k],
                "standard_error": errors[f"{hemisphere} {roi}"][k],
                "n_vertices": counts[row],
            }
            for k, output in enumerate(outputs)
            for row, (hemisphere, roi) in enumerate(rows)
        ]
    )


def _check_errors(standard_errors, groups, n_outputs):
    checked = defaultdict(lambda: np.full(n_outputs, np.nan))
    for name, error in standard_errors.items():
        error = checked[name] = np.asarray(error, float)
        if name not in groups:
            raise InputError(
                "standard_errors",
                expected=f"names such as {next(iter(groups), 'left V1')!r}",
                got=repr(name),
                fix="They are those of atlas.groups(vertices, by_hemisphere=True).",
            )
        if error.shape != (n_outputs,):
            raise InputError(
                f"standard_errors[{name!r}]",
                expected=f"one number for each of the {n_outputs} outputs",
                got=f"shape {error.shape}",
            )
    return checked


def summarise_rois(table, *, pool_hemispheres=True):
    """Summarise a table of areas over subjects, as in the paper's Figure 3.

    Parameters
    ----------
    table : pandas.DataFrame
        Of one or more subjects, as :func:`aggregate_rois` makes it.
    pool_hemispheres : bool
        Sum the hemispheres of each subject first; otherwise keep them apart.

    Returns
    -------
    pandas.DataFrame
        ``[hemisphere,] atlas, roi, output, mean, sd, n_subjects``, in the order of the table.
        ``sd`` is the inter-subject standard deviation (n - 1), NaN for a single subject; subjects
        in whom the area is empty are left out of its mean and its ``n_subjects``.

    Raises
    ------
    InputError
        If a row comes twice, which would count an area double.
    """
    missing = [column for column in [*_KEYS, "igc"] if column not in table.columns]
    if missing:
        raise InputError("table", expected="the columns of aggregate_rois", got=f"no {missing}")
    doubled = table[table.duplicated(_KEYS)]
    if len(doubled):
        first = ", ".join(map(str, doubled.iloc[0][_KEYS]))
        raise InputError(
            "table",
            expected="one row per subject, hemisphere, area and output",
            got=f"{len(doubled)} repeated rows, the first for {first}",
        )
    keys = [
        key for key in _KEYS if key != "subject" and not (pool_hemispheres and key == "hemisphere")
    ]
    # min_count: an area that is empty in both hemispheres stays NaN instead of becoming 0.
    values = table.groupby(["subject", *keys], sort=False)["igc"].sum(min_count=1)
    groups = values.groupby(level=keys, sort=False)
    summary = pd.DataFrame(
        {"mean": groups.mean(), "sd": groups.std(), "n_subjects": groups.count()}
    )
    return summary.reset_index()
