"""A feature that is planted in some areas of an invented study, and nowhere else.

Methods that are to say which area carries what can be asked for it: it is a random number of
each image, and neither the pixels nor any other area know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._files import atomic_path
from neuroigc._validation import InputError, check_choice
from neuroigc.datasets.synthetic_responses import SeeingCortex
from neuroigc.datasets.synthetic_retinotopy import PRF_BY_AREA, VisualCortex, area_names

__all__ = ["NAME", "check_planted", "draw_feature", "plant", "write_feature"]

NAME = "planted"
STREAM = 5

FloatArray = npt.NDArray[np.float32]


def check_planted(planted: Mapping[str, float]) -> None:
    """Raise unless areas are ones that see, and shares lie between 0 and 1."""
    for area, share in planted.items():
        check_choice("planted", area, PRF_BY_AREA)
        if not 0 < share <= 1:
            raise InputError(
                f"planted[{area!r}]", expected="a share above 0, 1 at most", got=repr(share)
            )


def draw_feature(n_images: int, seed: int) -> FloatArray:
    """Return the feature's value of each image, standard normal."""
    rng = np.random.default_rng([seed, 0, 0, STREAM])
    return rng.standard_normal(n_images, dtype=np.float32)


def plant(
    signals: FloatArray,
    feature: FloatArray,
    planted: Mapping[str, float],
    cortex: VisualCortex,
    observer: SeeingCortex,
) -> None:
    """Make a feature a share of the signal's variance at the vertices of some areas, in place.

    Parameters
    ----------
    signals : array of shape (n_images, n_vertices)
        Responses of ``observer`` without noise.
    feature : array of shape (n_images,)
        Of the same images.
    planted : dict of str to float
        Share by area.
    cortex : VisualCortex
    observer : SeeingCortex
        Made from ``cortex``.
    """
    labels = cortex.labels["prf-visualrois"]
    areas = np.concatenate([area_names(labels[h])[own] for h, own in observer.vertices.items()])
    for area, share in planted.items():
        own = areas == area
        seen = signals[:, own]
        seen = (seen - seen.mean(axis=0)) / seen.std(axis=0)
        signals[:, own] = np.sqrt(1 - share) * seen + np.sqrt(share) * feature[:, None]


def write_feature(path: Path, feature: FloatArray) -> None:
    """Write the table that a study names as its ``features_file``."""
    rows = [f"{image}\t{value:.7g}" for image, value in enumerate(feature)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([f"image_id\t{NAME}", *rows]) + "\n", encoding="utf-8")
