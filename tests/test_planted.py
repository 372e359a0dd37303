"""What was put into an invented study comes out of it: network, attribution and inference."""

import numpy as np
import pandas as pd
import pytest
from planted_study import AREA, SHARE, largest_areas, read_areas, run_planted

from neuroigc._validation import InputError
from neuroigc.attribution import IGCResult
from neuroigc.cli.results import area_groups
from neuroigc.cli.study_data import common_vertices
from neuroigc.datasets import make_study
from neuroigc.datasets.synthetic_plant import draw_feature, plant
from neuroigc.datasets.synthetic_responses import SeeingCortex
from neuroigc.datasets.synthetic_retinotopy import area_names, make_visual_cortex

SIZES = dict(n_subjects=1, n_sessions=1, trials_per_session=40, n_shared_images=5, image_size=32)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return run_planted(tmp_path_factory.mktemp("planted"))


@pytest.mark.slow
def test_the_planted_feature_is_found_in_its_area_and_nowhere_else(study):
    areas = read_areas(study)
    own = areas[(areas["output"] == "planted") & (areas["n_vertices"] > 0)]
    assert len(own) == 2 * 2 * 9
    found = own["p_fwe"] <= 0.05
    assert (found == (own["roi"] == AREA)).all()
    assert (own["igc"][found] > 0.2).all()
    assert (own["igc"][~found].abs() < 0.03).all()
    # What the area carries is nearly all of r.
    scores = pd.read_csv(study.path / "decoding.tsv", sep="\t", dtype={"subject": str})
    r = scores[scores["output"] == "planted"].set_index("subject")["r"]
    inside = own[found].groupby("subject")["igc"].sum()
    np.testing.assert_allclose(inside, r, atol=0.1)


@pytest.mark.slow
def test_vertices_of_no_other_area_are_found(study):
    for subject in ("01", "02"):
        groups = area_groups(study, subject, common_vertices(study))
        inside = np.concatenate([groups[f"{side} {AREA}"] for side in ("left", "right")])
        found = IGCResult.load(study.attribution(subject, "decoding")).p_values[2] <= 0.05
        assert found[inside].mean() > 0.3
        # Family-wise at 0.05: how often is what the benchmark says.
        assert np.delete(found, inside).sum() <= 1


@pytest.mark.slow
def test_what_else_was_put_in_comes_out(study):
    areas = read_areas(study)
    # V1 follows contrast, which others divide out; places prefer fine detail, faces and bodies
    # coarse, so that the slope of the spectrum stands in what lies between them.
    assert set(largest_areas(areas, "luminance_contrast")) == {"V1"}
    assert set(largest_areas(areas, "one_over_f_slope")) == {"places"}
    assert set(largest_areas(areas, "planted")) == {AREA}


@pytest.fixture(scope="module")
def cortex():
    cortex = make_visual_cortex(np.random.default_rng(0))
    return cortex, SeeingCortex.of(cortex, image_size=32)


def test_planting_changes_the_share_of_one_area_alone(cortex, rng):
    cortex, observer = cortex
    labels = cortex.labels["prf-visualrois"]
    areas = np.concatenate([area_names(labels[h])[own] for h, own in observer.vertices.items()])
    before = rng.standard_normal((4000, len(areas))).astype("f4")
    signals, feature = before.copy(), draw_feature(4000, 3)
    plant(signals, feature, {AREA: SHARE}, cortex, observer)
    np.testing.assert_array_equal(signals[:, areas != AREA], before[:, areas != AREA])
    z = (feature - feature.mean()) / feature.std()
    r = z @ signals[:, areas == AREA] / len(z)
    np.testing.assert_allclose(r**2, SHARE, atol=0.05)
    np.testing.assert_allclose(signals[:, areas == AREA].std(0), 1, atol=0.05)
    assert abs(feature.mean()) < 0.05
    assert feature.std() == pytest.approx(1, abs=0.05)


def test_the_rest_of_a_study_is_as_without(tmp_path):
    plain = make_study(tmp_path / "plain", seed=4, **SIZES)
    planted = make_study(tmp_path / "planted", seed=4, planted={"V2": 0.5}, **SIZES)
    files = {path.relative_to(plain) for path in plain.rglob("*") if path.is_file()}
    more = {path.relative_to(planted) for path in planted.rglob("*") if path.is_file()} - files
    assert [str(path) for path in more] == ["truth/planted.tsv"]
    # MATLAB's files say when they were written.
    files = {path for path in files if path.suffix != ".mat"}
    changed = {p.parts for p in files if (plain / p).read_bytes() != (planted / p).read_bytes()}
    assert {parts[0] for parts in changed} == {"nsddata_betas", "truth"}
    assert ("truth", "images.npz") not in changed
    table = pd.read_csv(planted / "truth" / "planted.tsv", sep="\t")
    assert list(table) == ["image_id", "planted"]
    np.testing.assert_array_equal(table["image_id"], np.arange(len(table)))
    np.testing.assert_allclose(table["planted"], draw_feature(len(table), 4), rtol=1e-5)


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        ({"V5": 0.5}, "planted: expected one of 'V1', 'V2', 'V3', 'hV4'; got 'V5'"),
        ({"V1": 0}, r"planted\['V1'\]: expected a share above 0, 1 at most; got 0"),
    ],
)
def test_what_cannot_be_planted_is_refused(planted, message, tmp_path):
    with pytest.raises(InputError, match=message):
        make_study(tmp_path / "study", planted=planted, **SIZES)
    assert not (tmp_path / "study").exists()
