"""Every tutorial runs, says what it needs, and reaches the figures that it stands for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
TUTORIALS = sorted(FOLDER.glob("plot_*.py"))

# Runs a tutorial and reports the numbers among its variables on the last line.
RUNNER = """
import json, numbers, runpy, sys
values = runpy.run_path(sys.argv[1])
print(json.dumps({k: float(v) for k, v in values.items() if isinstance(v, numbers.Real)}))
"""


def needs_data(path):
    return "NEUROIGC_DATA" in path.read_text(encoding="utf-8")


def run(path, folder, **environment):
    """Run a tutorial in its short version, in an empty working directory."""
    working, figures = folder / "working", folder / "figures"
    working.mkdir(), figures.mkdir()
    environment = os.environ | {
        "MPLBACKEND": "agg",
        "NEUROIGC_FAST": "1",
        "NEUROIGC_FIGURES": str(figures),
        **environment,
    }
    command = [sys.executable, "-W", "error", "-c", RUNNER, str(path)]
    return subprocess.run(
        command, cwd=working, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return a function that runs a tutorial once and gives its numbers."""
    done = {}

    def numbers(name, **environment):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            outcome = run(FOLDER / f"{name}.py", folder, **environment)
            assert outcome.returncode == 0, outcome.stderr
            assert list((folder / "figures").glob("*.png")), "no figure was saved"
            assert not list((folder / "working").iterdir()), "files left where it was started"
            done[name] = json.loads(outcome.stdout.splitlines()[-1])
        return done[name]

    return numbers


def test_tutorials_are_found():
    names = {path.stem for path in TUTORIALS}
    assert names >= {"plot_digits", "plot_haxby_decoding", "plot_szinte_prf"}
    assert names >= {"plot_any_torch_model", "plot_accuracy_against_cost"}
    assert "plot_nsd_download_to_maps" in names


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=pytest.mark.data if needs_data(path) else ())
        for path in TUTORIALS
    ],
)
def test_runs_and_draws(name, results, request):
    environment = {}
    if needs_data(FOLDER / f"{name}.py"):
        environment["NEUROIGC_DATA"] = str(request.getfixturevalue("real_data"))
    results(name, **environment)


@pytest.mark.slow
def test_v1_carries_contrast_and_areas_add_up(results):
    found = results("plot_which_area")
    assert found["lowest_r"] >= 0.5
    assert found["v1_leads"]
    assert found["largest_gap"] <= 0.01
    assert found["partition_error"] <= 1e-5


@pytest.mark.slow
def test_commands_lead_from_a_download_to_maps(results):
    found = results("plot_nsd_download_to_maps")
    assert found["kept_on"]
    assert found["n_dropped"] == 40
    assert found["shard_gap"] <= 1e-4
    assert found["sum_gap"] <= 1e-6
    assert found["lowest_r"] >= 0.3  # the short version has 480 images a subject
    assert found["least_p"] == 0.25
    assert found["native_gap"] <= 0.02
    assert found["v1_leads"]


@pytest.mark.slow
def test_receptive_fields_come_out_of_natural_images(results):
    found = results("plot_prf_natural_images")
    assert found["share_good"] >= 0.8
    assert found["median_centre_error"] <= 0.4  # the short version has 1,800 images
    assert found["r_eccentricity"] >= 0.9
    assert found["r_angle"] >= 0.9


@pytest.mark.slow
def test_more_images_make_better_receptive_fields(results):
    found = results("plot_how_many_images")
    assert found["better"] > 1.1
    assert found["last_error"] < 0.7  # the short version has 300 images


@pytest.mark.slow
def test_spatial_frequency_and_place_come_out_of_one_encoder(results):
    found = results("plot_spatial_frequency")
    assert found["r_frequency"] >= 0.85  # the short version has 20 vertices and 800 images
    assert found["median_distance"] <= 0.4
    assert found["largest_gap"] <= 0.01


@pytest.mark.slow
def test_units_and_areas_add_up(results):
    found = results("plot_layers_and_neurons")
    assert found["lowest_r"] >= 0.4  # the short version has 400 images to learn from
    assert found["unit_gap"] <= 1e-6
    assert found["area_gap"] <= 1e-6
    assert found["layer_gap"] <= 1e-4
    assert found["largest_gap"] <= 0.05  # of 8 pairs a sample
    assert found["faithful"]
    assert found["sensitivity"] >= 0.9


@pytest.mark.slow
def test_any_torch_model_is_attributed_and_noise_refused(results):
    found = results("plot_any_torch_model")
    assert found["r"] >= 0.65
    assert found["table_gap"] <= 0.01
    assert found["levels_gap"] <= 1e-5
    assert abs(found["auto_sum"] - 1) <= 0.01
    assert found["refused"]
    assert found["accuracy"] >= 0.9
    assert found["digits_gap"] <= 0.06  # a fifth of the short version's tolerance


@pytest.mark.slow
def test_accuracy_is_bought_until_the_samples_limit_it(results):
    found = results("plot_accuracy_against_cost")
    assert found["worst_first"] > found["worst_last"]
    assert 0.5 <= found["reported_ratio"] <= 2
    assert found["worst_share"] <= 1 / 3


@pytest.mark.slow
def test_contact_sheet_holds_all_figures(results):
    found = results("plot_contact_sheet")
    assert found["n_figures"] >= 15
    assert found["n_vector"] == found["n_figures"]
    assert found["round_trip"]
    assert found["width_cm"] <= 8.6


@pytest.mark.slow
@pytest.mark.data
def test_digits_are_read_by_ink_and_by_paper(results, real_data):
    found = results("plot_digits", NEUROIGC_DATA=str(real_data))
    assert found["accuracy"] >= 0.97
    # The short version takes few digits and gradients.
    assert found["largest_gap"] <= 0.25
    assert 0.3 <= found["outside_share"] <= 0.7


@pytest.mark.slow
@pytest.mark.data
def test_maps_of_digits_agree_between_networks_and_methods(results, real_data):
    found = results("plot_digits_agreement", NEUROIGC_DATA=str(real_data))
    # The short version takes 120 digits, and Shapley values of squares of 4 x 4 pixels.
    assert found["lowest_of_networks"] >= 0.55
    assert found["shapley_r"] >= 0.75


@pytest.mark.slow
def test_the_method_that_knows_the_targets_finds_what_they_depend_on(results):
    found = results("plot_which_method")
    assert found["alone_igc"] == pytest.approx(0.28, abs=0.05)
    assert found["chance_igc"] / found["chance_igac"] == pytest.approx(0.56, abs=0.12)
    assert found["squares_igc"] < 0.8 * found["squares_igac"]
    assert found["igc_over_r"] > 0.25


@pytest.mark.slow
def test_maps_depend_little_on_baselines_from_the_data_and_on_networks(results):
    found = results("plot_igc_choices")
    assert found["least_usual_r"] >= 0.97
    assert found["least_natural_r"] < found["least_usual_r"]
    assert found["error_at_17"] <= 0.02
    assert found["last_repeat_r"] >= 0.85
    # Of few noisy images, networks learn different maps that predict the same.
    assert found["accuracy_range"] < 0.03
    assert 0 < found["lowest_network_r"] < found["last_repeat_r"]


@pytest.mark.slow
@pytest.mark.data
def test_haxby_categories_are_decoded_by_maps_that_repeat(results, real_data):
    found = results("plot_haxby_decoding", NEUROIGC_DATA=str(real_data))
    assert found["accuracy"] >= 0.40
    assert found["largest_gap"] <= 0.01
    assert found["map_agreement"] > found["null_95"]


@pytest.mark.slow
@pytest.mark.data
def test_szinte_centres_are_the_published_ones(results, real_data):
    found = results("plot_szinte_prf", NEUROIGC_DATA=str(real_data))
    assert found["n_voxels"] == 130
    assert found["r_x"] >= 0.95
    assert found["r_y"] >= 0.95
    assert found["median_distance"] <= 0.4
    assert found["largest_gap"] <= 1e-6


@pytest.mark.parametrize(
    "path", [path for path in TUTORIALS if needs_data(path)], ids=lambda path: path.stem
)
def test_says_how_to_obtain_missing_data(path, tmp_path):
    outcome = run(path, tmp_path, NEUROIGC_DATA=str(tmp_path / "nowhere"))
    assert outcome.returncode == 1
    assert "set the environment variable NEUROIGC_DATA" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "https://" in outcome.stderr or "mirror" in outcome.stderr
