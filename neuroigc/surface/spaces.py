"""The surfaces that numbers live on: names, vertex counts, densities, meshes, nesting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroigc._validation import InputError, check_choice

__all__ = [
    "HEMISPHERES",
    "SPACES",
    "Space",
    "check_vertices",
    "fetch_meshes",
    "get_space",
    "load_background",
    "load_mesh",
    "mesh_at_hand",
    "nest",
    "space_of",
]

HEMISPHERES = ("left", "right")

_NILEARN_KINDS = {
    "inflated": "infl",
    "flat": "flat",
    "pial": "pial",
    "white": "white",
    "sphere": "sphere",
}


@dataclass(frozen=True)
class Space:
    """A standard surface.

    Attributes
    ----------
    name : str
        FreeSurfer's name.
    n_vertices : int
        Vertices of one hemisphere; both have equally many.
    density : str
        The label of the BIDS entity ``den``. The entity ``space`` is ``fsaverage`` for all of
        them, ``fsaverage5`` and its like being the deprecated spelling.
    """

    name: str
    n_vertices: int
    density: str

    @property
    def density_text(self) -> str:
        """What BIDS asks to be said of a density in a sidecar."""
        return f"{self.n_vertices} vertices per hemisphere ({self.name})"


SPACES = {
    space.name: space
    for space in (
        Space("fsaverage5", 10242, "10k"),
        Space("fsaverage6", 40962, "41k"),
        Space("fsaverage", 163842, "164k"),
    )
}


def get_space(name: str) -> Space:
    """Return the space called ``name``.

    Raises
    ------
    InputError
        If there is no such space.
    """
    check_choice("space", name, SPACES)
    return SPACES[name]


def space_of(counts: Mapping[str, int], argument: str = "data") -> Space:
    """Return the space that both hemispheres' vertex counts belong to.

    Parameters
    ----------
    counts : dict
        Number of vertices of "left" and of "right".
    argument : str
        What to call the data, or its file, in an error.

    Raises
    ------
    InputError
        If a count is no known space's, or the hemispheres' spaces differ.
    """
    by_count = {space.n_vertices: space for space in SPACES.values()}
    for hemisphere, count in counts.items():
        if count not in by_count:
            known = ", ".join(f"{n} ({space.name})" for n, space in by_count.items())
            raise InputError(
                argument,
                expected=f"one value for every vertex of a known surface: {known}",
                got=f"{count} in the {hemisphere} hemisphere",
                fix="Values of a vertex selection go through SurfaceMap.from_columns; "
                "individual surfaces must be resampled to fsaverage first.",
            )
    found = {hemisphere: by_count[count] for hemisphere, count in counts.items()}
    if len(set(found.values())) != 1:
        listed = ", ".join(f"{hemisphere}: {space.name}" for hemisphere, space in found.items())
        raise InputError(argument, expected="both hemispheres on the same surface", got=listed)
    return next(iter(found.values()))


def check_vertices(
    vertices: Mapping[str, NDArray[np.integer]], n_vertices: int
) -> dict[str, NDArray[np.int64]]:
    """Return both hemispheres' vertex indices after checking that they fit the surface.

    Raises
    ------
    InputError
        If a hemisphere is missing, or an index lies outside the surface or comes twice.
    """
    checked = {}
    for hemisphere in HEMISPHERES:
        if hemisphere not in vertices:
            raise InputError(
                "vertices", expected="the keys 'left' and 'right'", got=str(list(vertices))
            )
        indices = np.asarray(vertices[hemisphere])
        whole = np.issubdtype(indices.dtype, np.integer) or indices.size == 0
        if not whole or indices.ndim != 1:
            raise InputError(
                f"vertices[{hemisphere!r}]",
                expected="a list of vertex indices",
                got=f"{indices.dtype} values of shape {indices.shape}",
                fix="np.flatnonzero(mask) turns a mask into indices.",
            )
        indices = indices.astype(np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= n_vertices):
            raise InputError(
                f"vertices[{hemisphere!r}]",
                expected=f"indices from 0 to {n_vertices - 1}",
                got=f"{indices.min()} to {indices.max()}",
                fix="Are the vertices those of another surface?",
            )
        if np.unique(indices).size != indices.size:
            raise InputError(
                f"vertices[{hemisphere!r}]", expected="every vertex once", got="repeated indices"
            )
        checked[hemisphere] = indices
    return checked


def nest(values: NDArray[np.generic], space: str, to: str) -> NDArray[np.generic]:
    """Return the values at the vertices that a coarser fsaverage shares with a finer one.

    The meshes nest: the first 10,242 vertices of fsaverage are those of fsaverage5, so this is
    nearest-neighbour sampling without a search.

    Parameters
    ----------
    values : array (n_vertices, ...)
        One hemisphere's values.
    space, to : str
        The finer and the coarser surface.
    """
    fine, coarse = get_space(space), get_space(to)
    if len(values) != fine.n_vertices:
        raise InputError("values", expected=f"{fine.n_vertices} rows", got=str(len(values)))
    if coarse.n_vertices > fine.n_vertices:
        raise InputError(
            "to", expected=f"a surface no finer than {space}", got=to, fix="Nesting only thins."
        )
    return values[: coarse.n_vertices]


def load_mesh(
    space: str, kind: str, hemisphere: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Load one hemisphere's mesh, from disk only.

    fsaverage5 comes with nilearn; the others are read where :func:`fetch_meshes` put them.

    Parameters
    ----------
    space : str
        See :data:`SPACES`.
    kind : {"inflated", "flat", "pial", "white", "sphere"}
    hemisphere : {"left", "right"}

    Returns
    -------
    coordinates : array (n_vertices, 3)
        In mm; x to the right, y to the front, z up. Flat maps lie in x and y, seen from outside
        the brain. Vertices at the cuts of a flat map belong to no face.
    faces : array (n_faces, 3)
        Counter-clockwise seen from outside.

    Raises
    ------
    InputError
        If the mesh is not on this machine.
    """
    check_choice("kind", kind, _NILEARN_KINDS)
    coordinates, faces = _read(space, _NILEARN_KINDS[kind], hemisphere)
    return coordinates.astype(np.float64), faces.astype(np.int64)


def load_background(space: str, hemisphere: str) -> NDArray[np.float64]:
    """Load one hemisphere's sulcal depth (n_vertices,): positive in sulci."""
    return _read(space, "sulc", hemisphere)[0].astype(np.float64)


def fetch_meshes(space: str) -> None:
    """Fetch the meshes of ``space`` into nilearn's data folder, once, through the network."""
    from nilearn.datasets import fetch_surf_fsaverage

    fetch_surf_fsaverage(get_space(space).name)


def mesh_at_hand(space: str) -> str:
    """Return ``space`` if its meshes are on this machine, else fsaverage5, which always is."""
    return space if _folder(get_space(space).name) else "fsaverage5"


def _folder(space: str) -> Path | None:
    """Return the folder that holds the files of ``space``, if there is one."""
    from nilearn.datasets import fetch_surf_fsaverage, get_data_dirs

    if space == "fsaverage5":  # shipped with nilearn: nothing is fetched
        return Path(fetch_surf_fsaverage("fsaverage5").infl_left).parent
    folders = [Path(folder) / space for folder in get_data_dirs()]
    return next((folder for folder in folders if (folder / "infl_left.gii.gz").is_file()), None)


@lru_cache(maxsize=32)
def _read(space: str, part: str, hemisphere: str) -> tuple[NDArray[np.generic], ...]:
    import nibabel

    check_choice("hemisphere", hemisphere, HEMISPHERES)
    folder = _folder(get_space(space).name)
    if folder is None:
        raise InputError(
            "space",
            expected="a surface whose meshes are on this machine",
            got=space,
            fix=f"Call neuroigc.surface.fetch_meshes({space!r}) once, or nest() to fsaverage5.",
        )
    image: Any = nibabel.load(folder / f"{part}_{hemisphere}.gii.gz")
    arrays = tuple(np.asarray(array.data) for array in image.darrays)
    for array in arrays:
        array.setflags(write=False)  # shared by all callers through the cache
    return arrays
