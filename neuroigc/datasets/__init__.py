"""Files to arrays."""

from typing import Any

from neuroigc.datasets.algonauts import load_algonauts, load_algonauts_images
from neuroigc.datasets.algonauts_rois import load_algonauts_rois
from neuroigc.datasets.algonauts_submission import write_algonauts_submission
from neuroigc.datasets.array_folder import save_arrays
from neuroigc.datasets.arrays import ArrayData, load_arrays
from neuroigc.datasets.image_cache import load_image_cache, prepare_nsd_images
from neuroigc.datasets.manifest import list_manifests, load_manifest, verify
from neuroigc.datasets.mnist import load_mnist
from neuroigc.datasets.nsd import load_nsd
from neuroigc.datasets.preparation import prepare_nsd
from neuroigc.datasets.rows import StackedRows
from neuroigc.datasets.stimuli import image_statistics, load_nsd_images, prepare_image
from neuroigc.datasets.subjects import SubjectData

__all__ = [
    "ArrayData",
    "StackedRows",
    "SubjectData",
    "image_statistics",
    "list_manifests",
    "load_algonauts",
    "load_algonauts_images",
    "load_algonauts_rois",
    "load_arrays",
    "load_image_cache",
    "load_manifest",
    "load_mnist",
    "load_nsd",
    "load_nsd_images",
    "make_localised_statistics",
    "make_study",
    "prepare_image",
    "prepare_nsd",
    "prepare_nsd_images",
    "save_arrays",
    "verify",
    "write_algonauts_submission",
]


def __getattr__(name: str) -> Any:
    # Only those who simulate need what simulating needs.
    if name == "make_study":
        from neuroigc.datasets.simulation import make_study

        return make_study
    if name == "make_localised_statistics":
        from neuroigc.datasets.localised_statistics import make_localised_statistics

        return make_localised_statistics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
