"""Volumes to surfaces, through nilearn."""

import os
import warnings
from pathlib import Path

import numpy as np

from neuroigc._files import reading
from neuroigc._validation import InputError, check_choice
from neuroigc.surface.spaces import HEMISPHERES, load_mesh

__all__ = ["vol_to_surface"]


def vol_to_surface(image, *, space="fsaverage5", interpolation="linear"):
    """Sample a volume between the white and the pial surface of a template.

    Parameters
    ----------
    image : path-like or nibabel image
        Three axes, or four with the volumes on the last; in the coordinates of the template (MNI),
        not of the subject. A subject's own volumes belong on the subject's own surface, from
        where FreeSurfer brings them to fsaverage.
    space : str
        A surface whose meshes are on this machine; fsaverage5 always is.
    interpolation : {"linear", "nearest_most_frequent"}
        The mean over the depths of cortex of the surrounding voxels, or, for labels, the most
        frequent of the nearest voxels.

    Returns
    -------
    dict of str to array (n_volumes, n_vertices), float32
        "left" and "right"; NaN at vertices outside the volume.

    Raises
    ------
    InputError
        If the file is damaged, is no volume, or no vertex lies in it.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

    check_choice("interpolation", interpolation, ("linear", "nearest_most_frequent"))
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        with reading(path, "a whole volume", also=(ImageFileError, HeaderDataError)):
            image = nibabel.load(path)
            image = type(image)(np.asarray(image.dataobj), image.affine, image.header)
    if len(getattr(image, "shape", ())) not in (3, 4):
        got = getattr(image, "shape", type(image).__name__)
        raise InputError("image", expected="a volume of three or four axes", got=str(got))
    pial, white = (
        PolyMesh(**{side: InMemoryMesh(*load_mesh(space, kind, side)) for side in HEMISPHERES})
        for kind in ("pial", "white")
    )
    with warnings.catch_warnings():
        # Of vertices outside, which are NaN.
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        sampled = SurfaceImage.from_volume(
            pial, image, inner_mesh=white, interpolation=interpolation
        ).data.parts
    data = {
        side: np.asarray(sampled[side], np.float32).reshape(len(sampled[side]), -1).T
        for side in HEMISPHERES
    }
    if all(np.isnan(values).all() for values in data.values()):
        raise InputError(
            "image",
            expected="a volume around the surface",
            got="one in which no vertex lies",
            fix="Is it in the coordinates of the template? See its affine.",
        )
    return data
