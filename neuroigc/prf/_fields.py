"""Columns of receptive fields, however the caller holds them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError

CENTRE_AND_SIZE = ("x_deg", "y_deg", "size_deg")


def read_fields(
    fields: object, argument: str = "fields", names: tuple[str, ...] = CENTRE_AND_SIZE
) -> np.ndarray:
    """Return columns of a PRFResult, DataFrame or dict as one array (n_names, n_vertices).

    Raises
    ------
    InputError
        If a column is missing, is no list of numbers, or has another length than the others.
    """
    columns = []
    for name in names:
        try:
            values = getattr(fields, name) if hasattr(fields, name) else fields[name]
            columns.append(np.asarray(values, dtype=float))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise InputError(
                argument,
                expected=f"numbers in {', '.join(names)}: a PRFResult, DataFrame or dict",
                got=f"no usable {name} in a {type(fields).__name__}",
            ) from error
    shapes = {column.shape for column in columns}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        listed = ", ".join(f"{n} {c.shape}" for n, c in zip(names, columns, strict=True))
        raise InputError(argument, expected="one number per vertex in each column", got=listed)
    return np.stack(columns)


def vertex_mask(where: ArrayLike | None, n_vertices: int, argument: str = "where") -> np.ndarray:
    """Return a boolean mask over the vertices, all of them for None.

    Raises
    ------
    InputError
        If it is no boolean mask of that length.
    """
    mask = np.ones(n_vertices, dtype=bool) if where is None else np.asarray(where)
    if mask.shape != (n_vertices,) or mask.dtype != bool:
        raise InputError(
            argument,
            expected=f"a boolean mask over the {n_vertices} vertices",
            got=f"{mask.dtype} values of shape {mask.shape}",
        )
    return mask


def area_names(areas: ArrayLike, n_vertices: int) -> np.ndarray:
    """Return one name per vertex.

    Raises
    ------
    InputError
        If there are more or fewer.
    """
    areas = np.asarray(areas)
    if areas.shape != (n_vertices,):
        raise InputError(
            "areas", expected=f"one name per vertex, {n_vertices}", got=f"{areas.size} names"
        )
    return areas
