"""What data of this field can fool one with, and which test would notice.

`PINNED` lists the tests in other modules; those of traps that no other module is about are here.
"""

import ast
from pathlib import Path

import nibabel
import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.cli.config import parse_config
from neuroigc.cli.sources import NsdSource
from neuroigc.datasets.layouts import write_labels
from neuroigc.prf import load_reference_prfs

HERE = Path(__file__).resolve().parent
PINNED = {
    "1 betas on fsaverage are percent already, not to be divided by 300": [
        "test_nsd::test_no_scaling_by_300",
    ],
    "2 ids of images are 0-based in tables of pixels and 1-based in the design": [
        "test_nsd::test_image_ids_are_zero_based",
        "test_algonauts::test_same_responses_as_nsd",
    ],
    "3 vertices are NaN for whole sessions": [
        "test_nsd::test_invalid_vertices_are_kept_out_and_counted",
        "test_algonauts::test_invalid_vertices_are_counted",
        "test_verification::test_deep_checks_count_what_is_no_number",
    ],
    "4 MGH files have their axes in several orders": [
        "test_nsd::test_mgh_axes_and_byte_order",
        "test_surface_readers::test_mgh_in_every_order_of_axes",
    ],
    "5 angles have several conventions": [
        "test_retinotopy::test_conventions_at_known_points",
        "test_references::test_nsd_maps_are_in_the_convention_of_the_house",
        "test_references::test_benson_angles_point_to_the_field_across",
    ],
    "6 angles are averaged as directions": [
        "test_retinotopy::test_means_are_of_directions_not_of_numbers",
    ],
    "7 rows of images run down, the visual field runs up": [
        "test_gaussian::test_up_and_right_are_positive_and_axes_are_not_swapped",
        "test_classical::test_up_and_right_are_positive_and_axes_are_not_swapped",
        "test_visual_field::test_a_fit_finds_right_up_and_degrees",
    ],
    "8 areas and maps of single subjects do not lie on fsaverage": [
        "test_traps::test_areas_on_the_subjects_own_surface_are_not_taken_for_fsaverage",
    ],
    "9 NSD's size is sigma over the root of the exponent already": [
        "test_traps::test_sizes_of_nsd_are_not_divided_again",
        "test_classical::test_clean_betas_give_every_parameter",
    ],
    "10 two subjects of Algonauts have fewer vertices": [
        "test_algonauts::test_numbers_of_vertices_of_the_release",
    ],
    "11 areas may be empty": [
        "test_algonauts::test_empty_regions_are_normal",
    ],
    "12 axes of HDF5 files come reversed from MATLAB": [
        "test_array_folder::test_axes_of_hdf5_that_matlab_wrote_come_reversed",
    ],
    "13 receptive fields may lie outside the stimulus": [
        "test_gaussian::test_clean_gaussians_are_recovered_also_outside_the_picture",
        "test_classical::test_fields_far_outside_are_not_called_ok",
        "test_retinotopy::test_only_the_stimulated_field_is_compared",
    ],
    "14 repeats of an image must not be on both sides of a split": [
        "test_cli::test_no_image_is_both_trained_on_and_held_out",
        "test_arrays::test_what_does_not_fit",
        "test_cli_arrays::test_what_no_study_can_be_made_of",
    ],
}


@pytest.mark.parametrize("trap", PINNED)
def test_every_trap_has_a_test(trap):
    for place in PINNED[trap]:
        module, name = place.split("::")
        tree = ast.parse((HERE / f"{module}.py").read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_areas_on_the_subjects_own_surface_are_not_taken_for_fsaverage(tmp_path):
    text = '[data]\nroot = "."\nspace = "fsaverage5"\nsubjects = ["01"]\nmask = "all"\n[decoding]\n'
    source = NsdSource(parse_config(text, base=tmp_path))
    own = {"left": np.arange(227) % 2, "right": np.arange(226) % 2}
    write_labels(tmp_path, "subj01", "prf-visualrois", own, {1: "V1v"})
    rois = parse_config(text).rois
    with pytest.raises(InputError, match=r"labels on fsaverage5, 10242 a hemisphere; got 227 in"):
        source.atlas("01", rois)
    # The group's are taken where there are any.
    group = {side: np.arange(10242) % 3 for side in ("left", "right")}
    write_labels(tmp_path, "fsaverage5", "prf-visualrois", group, {1: "V1v", 2: "V1d"})
    assert source.atlas("01", rois).names == ["V1v", "V1d"]


def test_sizes_of_nsd_are_not_divided_again(tmp_path, rng):
    n, values = 9, {}
    for name, low, high in (
        ("prfangle", 0, 360),
        ("prfeccentricity", 0.5, 4),
        ("prfsize", 0.2, 3),
        ("prfexponent", 0.1, 0.9),
        ("prfR2", 10, 90),
    ):
        for prefix in ("lh", "rh"):
            values[prefix, name] = rng.uniform(low, high, n).astype(np.float32)
            image = nibabel.MGHImage(values[prefix, name].reshape(n, 1, 1), np.eye(4))
            nibabel.save(image, tmp_path / f"{prefix}.{name}.mgz")
    sizes = load_reference_prfs(tmp_path)["size_deg"]
    np.testing.assert_array_equal(sizes, np.r_[values["lh", "prfsize"], values["rh", "prfsize"]])
