"""What readers hand over: one subject's responses, with what is needed to know what they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neuroigc._files import make_output_folder, writing_alone
from neuroigc._validation import InputError, check_choice, check_same_length
from neuroigc.datasets import store
from neuroigc.datasets._paths import HEMISPHERES
from neuroigc.datasets.store import AGAIN

__all__ = ["SubjectData", "write_rest"]

KIND = "subject"
REQUIRED_ARRAYS = ("responses", "image_ids", "is_test")
OPTIONAL_ARRAYS = ("n_repeats", "noise_ceiling", "ncsnr")
COUNTS = ("n_surface_vertices", "n_dropped")
RESPONSE_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class SubjectData:
    """Responses of one subject to images, one row per image.

    Parameters
    ----------
    subject : str
        Two-digit label, as "01".
    responses : array of shape (n_images, n_vertices), float32 or float16
        z-scored per session and vertex, averaged over the repeats of an image. Columns are the
        left hemisphere's kept vertices, then the right's. May be a read-only memory map.
    image_ids : array of shape (n_images,), int64
        0-based numbers of the images, ascending and unique.
    n_repeats : array of shape (n_images,), int64, or None
        How often each image was shown; None if the release does not say.
    is_test : array of shape (n_images,), bool
        True for images kept for testing.
    vertices : dict of "left" and "right" to array of int
        Where the columns lie on the surface.
    space : str
        Name of the surface, as "fsaverage".
    n_surface_vertices, n_dropped : dict of "left" and "right" to int
        Vertices of the whole surface; vertices asked for that were invalid (not finite, or without
        variance) in any session and were kept out.
    noise_ceiling : array of shape (n_vertices,), float32, or None
        Share of variance (0 to 1) of the test images' averages that a perfect model can explain.
    ncsnr : array of shape (n_vertices,), float32, or None
        Signal SD over noise SD of single trials.
    provenance : dict, or None
        Where the responses come from and what was left out of them, as JSON has it.
    """

    subject: str
    responses: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.int64]
    n_repeats: npt.NDArray[np.int64] | None
    is_test: npt.NDArray[np.bool_]
    vertices: dict[str, npt.NDArray[np.int64]]
    space: str
    n_surface_vertices: dict[str, int]
    n_dropped: dict[str, int]
    noise_ceiling: npt.NDArray[np.float32] | None = None
    ncsnr: npt.NDArray[np.float32] | None = None
    provenance: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_same_length(
            responses=self.responses,
            image_ids=self.image_ids,
            n_repeats=self.n_repeats,
            is_test=self.is_test,
        )
        n_columns = sum(len(self.vertices[hemisphere]) for hemisphere in HEMISPHERES)
        for name in ("responses", "noise_ceiling", "ncsnr"):
            values = getattr(self, name)
            if values is not None and values.shape[-1] != n_columns:
                raise InputError(
                    name,
                    expected=f"{n_columns} columns, one for each of vertices",
                    got=f"{values.shape[-1]}",
                )

    def save(self, folder: str | os.PathLike[str], *, dtype: npt.DTypeLike = np.float32) -> Path:
        """Write a folder of ``.npy`` files and, once they are whole, their ``subject.json``.

        Parameters
        ----------
        folder : path
            Made if need be; what an earlier call wrote there is replaced.
        dtype : float32 or float16
            Of the responses on disk. Half precision takes half the space and keeps three
            significant digits.

        Returns
        -------
        Path
            ``folder``.
        """
        check_choice("dtype", np.dtype(dtype).name, RESPONSE_DTYPES)
        folder = make_output_folder(folder, "folder")
        with writing_alone(folder):
            store.reopen_store(folder, KIND)
            store.write_array(folder / "responses.npy", np.asarray(self.responses), dtype)
            write_rest(self, folder)
        return folder

    def description(self) -> dict[str, Any]:
        """Return everything that is not an array, as JSON has it."""
        values = {name: getattr(self, name) for name in ("subject", "space", *COUNTS)}
        for name in COUNTS:
            values[name] = {side: int(values[name][side]) for side in HEMISPHERES}
        return {**values, "provenance": self.provenance}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> SubjectData:
        """Read what :meth:`save` wrote; responses stay on disk, as a read-only memory map.

        Raises
        ------
        InputError
            If the folder is not whole, or an array in it is not what its description says.
        """
        folder = Path(folder)
        sided = {f"vertices_{side}" for side in HEMISPHERES}
        arrays, description = store.read_store(
            folder,
            KIND,
            mapped="responses",
            required={*REQUIRED_ARRAYS, *sided},
            optional={*OPTIONAL_ARRAYS},
        )
        _check_description(folder, description)
        vertices = {side: arrays.pop(f"vertices_{side}") for side in HEMISPHERES}
        for name, values in (("image_ids", arrays["image_ids"]), *vertices.items()):
            if not (np.diff(values) > 0).all():
                raise InputError(
                    str(folder), expected=f"ascending, different {name}", got="others", fix=AGAIN
                )
        kept = {name: description[name] for name in ("subject", "space", *COUNTS, "provenance")}
        with _naming(folder):
            return cls(**(dict.fromkeys(OPTIONAL_ARRAYS) | arrays | kept), vertices=vertices)


def write_rest(data: SubjectData, folder: Path, *, sha256_of_responses: str | None = None) -> None:
    """Write all but the responses, which are there, and declare the folder whole."""
    arrays = {name: getattr(data, name) for name in ("image_ids", "is_test", *OPTIONAL_ARRAYS)}
    arrays |= {f"vertices_{side}": data.vertices[side] for side in HEMISPHERES}
    for name, values in arrays.items():
        path = folder / f"{name}.npy"
        if values is None:
            path.unlink(missing_ok=True)
        else:
            store.write_array(path, np.asarray(values))
    there = ["responses", *(name for name, values in arrays.items() if values is not None)]
    known = {} if sha256_of_responses is None else {"responses": sha256_of_responses}
    store.close_store(folder, KIND, there, data.description(), hashes=known)


def _check_description(folder: Path, description: Mapping[str, Any]) -> None:
    kinds = {"subject": str, "space": str, "n_surface_vertices": dict, "n_dropped": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(description.get(name), kind)]
    wrong += [
        name
        for name in COUNTS
        if name not in wrong
        and not all(type(description[name].get(side)) is int for side in HEMISPHERES)
    ]
    if wrong or "provenance" not in description:
        raise InputError(
            str(folder / f"{KIND}.json"),
            expected=f"all of {[*kinds, 'provenance']}, with counts of both hemispheres",
            got=f"none or another kind of {wrong or ['provenance']}",
            fix=AGAIN,
        )


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Say which folder it is whose arrays do not fit each other."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{folder}, {error.argument}", expected=error.expected, got=error.got, fix=AGAIN
        ) from error
