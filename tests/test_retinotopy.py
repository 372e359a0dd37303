"""Angle conventions, circular statistics and comparison of fits."""

import numpy as np
import pandas as pd
import pytest

from neuroigc._validation import InputError
from neuroigc.prf import (
    ANGLE_CONVENTIONS,
    circular_correlation,
    circular_difference,
    circular_mean,
    compare_prfs,
    convert_angle,
    to_cartesian,
    to_polar,
)


def test_polar_coordinates_of_known_points():
    x, y = [1, 0, -1, 0, 1, 1, 0], [0, 2, 0, -3, 1, -1, 0]
    eccentricity, angle = to_polar(x, y)
    np.testing.assert_allclose(eccentricity, [1, 2, 1, 3, 2**0.5, 2**0.5, 0])
    np.testing.assert_allclose(angle, [0, 90, 180, 270, 45, 315, np.nan])
    assert to_polar(1.0, -1e-18)[1] < 360


def test_polar_and_cartesian_are_inverse(rng):
    x, y = rng.uniform(-5, 5, (2, 100))
    x[0] = y[0] = 0.0
    np.testing.assert_allclose(to_cartesian(*to_polar(x, y)), [x, y], atol=1e-12)


# Right, upper right, up, lower right; then left, upper left, lower left.
@pytest.mark.parametrize(
    ("hemisphere", "nsd", "benson", "hcp"),
    [
        ("left", 0, 90, 180),
        ("left", 45, 45, 225),
        ("left", 90, 0, 270),
        ("left", 315, 135, 135),
        ("left", 270, 180, 90),
        ("left", 135, -45, 315),
        ("right", 180, 90, 180),
        ("right", 135, 45, 135),
        ("right", 90, 0, 90),
        ("right", 225, 135, 225),
        ("right", 270, 180, 270),
        ("right", 45, -45, 45),
    ],
)
def test_conventions_at_known_points(hemisphere, nsd, benson, hcp):
    angles = {"nsd": nsd, "benson": benson, "hcp": hcp}
    for source in ANGLE_CONVENTIONS:
        for target in ANGLE_CONVENTIONS:
            converted = convert_angle(
                angles[source], source=source, target=target, hemisphere=hemisphere
            )
            assert converted == pytest.approx(angles[target])


@pytest.mark.parametrize("hemisphere", ["left", "right"])
@pytest.mark.parametrize("other", ANGLE_CONVENTIONS)
def test_conventions_round_trip(hemisphere, other):
    angle = np.append(np.arange(0, 360, 7.5), np.nan)
    there = convert_angle(angle, source="nsd", target=other, hemisphere=hemisphere)
    back = convert_angle(there, source=other, target="nsd", hemisphere=hemisphere)
    np.testing.assert_allclose(back, angle)


def test_benson_angles_are_0_to_180_in_the_contralateral_field():
    up_to_down = np.linspace(0, 180, 13)
    right_field = convert_angle(up_to_down, source="benson", target="nsd", hemisphere="left")
    left_field = convert_angle(up_to_down, source="benson", target="nsd", hemisphere="right")
    assert (to_cartesian(1, right_field)[0] > -1e-12).all()
    assert (to_cartesian(1, left_field)[0] < 1e-12).all()
    # Both go from the upper to the lower vertical meridian.
    for angle in (right_field, left_field):
        assert (np.diff(to_cartesian(1, angle)[1]) < 0).all()


def test_unknown_conventions_and_hemispheres_are_named():
    with pytest.raises(InputError, match="source: expected one of 'nsd', 'benson', 'hcp'; got"):
        convert_angle(0, source="prf", target="nsd", hemisphere="left")
    with pytest.raises(InputError, match="target: expected one of"):
        convert_angle(0, source="nsd", target="deg", hemisphere="left")
    with pytest.raises(InputError, match="hemisphere: expected one of 'left', 'right'; got 'lh'"):
        convert_angle(0, source="nsd", target="hcp", hemisphere="lh")


def test_differences_go_the_short_way_round():
    np.testing.assert_allclose(
        circular_difference([10, 350, 180, 0, 90], [350, 10, 0, 180, 90]), [20, -20, 180, 180, 0]
    )


def test_means_are_of_directions_not_of_numbers():
    assert circular_mean([350, 20]) == pytest.approx(5)
    assert circular_mean([0, 90], weights=[1, 0]) == pytest.approx(0)
    assert circular_mean([0, 90], weights=[1, 3**0.5]) == pytest.approx(60)
    assert np.isnan(circular_mean([0, 180]))
    assert np.isnan(circular_mean([]))


def test_circular_correlation_is_the_published_formula(rng):
    a = rng.vonmises(1.0, 1.5, 50)
    b = a + 0.5 * rng.standard_normal(50)
    mean_a = np.arctan2(np.sin(a).sum(), np.cos(a).sum())
    mean_b = np.arctan2(np.sin(b).sum(), np.cos(b).sum())
    top = sum(np.sin(p - mean_a) * np.sin(q - mean_b) for p, q in zip(a, b, strict=True))
    below = sum(np.sin(p - mean_a) ** 2 for p in a) * sum(np.sin(q - mean_b) ** 2 for q in b)
    ours = circular_correlation(np.degrees(a), np.degrees(b))
    assert ours == pytest.approx(top / below**0.5, rel=1e-12)
    # Directions have neither origin nor turn.
    turned = circular_correlation(np.degrees(a) + 200, np.degrees(b) - 360)
    assert turned == pytest.approx(ours, rel=1e-9)
    assert circular_correlation(np.degrees(a), -np.degrees(b)) == pytest.approx(-ours, rel=1e-9)


def test_paired_references_hold_where_means_are_undefined(rng):
    # Both hemispheres' vertices: angles around the right and the left horizontal meridian.
    a = np.append(rng.uniform(-70, 70, 100), rng.uniform(110, 250, 100))
    worst_means, worst_paired = 1.0, 1.0
    for _ in range(200):
        a_now = a + rng.uniform(0, 5, 200)
        b_now = a_now + 10 * rng.standard_normal(200)
        paired = circular_correlation(a_now, b_now, references="paired")
        worst_paired = min(worst_paired, paired)
        worst_means = min(worst_means, circular_correlation(a_now, b_now))
    assert worst_paired > 0.95
    assert worst_means < worst_paired
    assert abs(circular_correlation(a, rng.permutation(a), references="paired")) < 0.3
    assert circular_correlation(a, a, references="paired") == pytest.approx(1)


def test_paired_and_mean_references_agree_where_both_are_defined(rng):
    a = np.degrees(rng.vonmises(0.3, 4, 2000))
    b = a + 15 * rng.standard_normal(2000)
    assert circular_correlation(a, b, references="paired") == pytest.approx(
        circular_correlation(a, b), abs=0.01
    )


def test_angles_without_spread_have_no_correlation():
    assert np.isnan(circular_correlation([0, 0, 0], [10, 20, 30]))


def test_circular_correlation_names_bad_input():
    with pytest.raises(InputError, match="paired angles, at least two pairs; got shapes"):
        circular_correlation([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="got NaN or infinity"):
        circular_correlation([1, 2, np.nan], [1, 2, 3])
    with pytest.raises(InputError, match="references: expected one of"):
        circular_correlation([1, 2], [1, 2], references="medians")


@pytest.fixture
def truth(rng):
    x, y = rng.uniform(-4, 4, (2, 200))
    return {"x_deg": x, "y_deg": y, "size_deg": 0.2 * np.hypot(x, y) + 0.3}


def test_comparison_of_a_shifted_and_scaled_copy(truth):
    estimate = pd.DataFrame(truth | {"x_deg": truth["x_deg"] + 0.3})
    estimate["y_deg"] += 0.4
    estimate["size_deg"] *= 1.3
    summary = compare_prfs(estimate, truth)
    assert summary["median_centre_error_deg"] == pytest.approx(0.5)
    assert summary["size_ratio"] == pytest.approx(1.3)
    assert summary["r_size"] == pytest.approx(1.0)
    eccentricity = np.hypot(truth["x_deg"], truth["y_deg"])
    shifted = np.hypot(truth["x_deg"] + 0.3, truth["y_deg"] + 0.4)
    assert summary["r_eccentricity"] == pytest.approx(np.corrcoef(eccentricity, shifted)[0, 1])
    assert 0.9 < summary["r_angle"] < 1
    assert (summary["n_vertices"], summary["n_not_finite"]) == (200, 0)
    assert all(type(value) in (int, float) for value in summary.values())


def test_comparison_counts_what_it_leaves_out(truth):
    estimate = {name: values.copy() for name, values in truth.items()}
    estimate["x_deg"][:20] = np.nan
    estimate["size_deg"][30] = np.nan
    where = np.ones(200, dtype=bool)
    where[:10] = False
    summary = compare_prfs(estimate, truth, where=where)
    assert (summary["n_vertices"], summary["n_not_finite"]) == (179, 11)
    assert summary["median_centre_error_deg"] == 0


def test_mirrored_fields_are_noticed(truth):
    mirrored = truth | {"y_deg": -truth["y_deg"]}
    assert compare_prfs(mirrored, truth)["r_angle"] < 0.5


def test_comparison_names_bad_input(truth):
    half = {name: values[:100] for name, values in truth.items()}
    with pytest.raises(InputError, match="the same vertices; got 100 and 200"):
        compare_prfs(half, truth)
    with pytest.raises(InputError, match="a boolean mask over the 200"):
        compare_prfs(truth, truth, where=np.arange(200))
    with pytest.raises(InputError, match=r"at least three vertices.*got 2 of 2"):
        compare_prfs(truth, truth, where=np.arange(200) < 2)


def test_slope_and_bias_are_reported(truth):
    eccentricity, angle = to_polar(truth["x_deg"], truth["y_deg"])
    x, y = to_cartesian(0.8 * eccentricity + 0.1, angle)
    estimate = {"x_deg": x, "y_deg": y, "size_deg": 1.5 * truth["size_deg"] - 0.2}
    summary = compare_prfs(estimate, truth)
    assert summary["slope_eccentricity"] == pytest.approx(0.8)
    assert summary["slope_size"] == pytest.approx(1.5)
    bias = np.median(0.1 - 0.2 * eccentricity)
    assert summary["bias_eccentricity_deg"] == pytest.approx(bias)
    assert summary["bias_size_deg"] == pytest.approx(np.median(0.5 * truth["size_deg"] - 0.2))
    assert summary["r_eccentricity"] == pytest.approx(1)
    assert summary["median_angle_error_deg"] == pytest.approx(0, abs=1e-9)


def test_angle_errors_near_fixation_do_not_count():
    # Turned by 10 degrees where it counts, the short way round; by 180 at 0.4 deg.
    x_ref, y_ref = to_cartesian([1, 2, 3, 0.4, 0.4, 0.4, 0.4], [5, 355, 100, 0, 0, 0, 0])
    x, y = to_cartesian([1, 2, 3, 0.4, 0.4, 0.4, 0.4], [355, 5, 110, 180, 180, 180, 180])
    sizes = np.linspace(1, 2, 7)
    fields = {"x_deg": x, "y_deg": y, "size_deg": sizes}
    reference = {"x_deg": x_ref, "y_deg": y_ref, "size_deg": sizes}
    assert compare_prfs(fields, reference)["median_angle_error_deg"] == pytest.approx(10)
    near = np.arange(7) > 2
    assert np.isnan(compare_prfs(fields, reference, where=near)["median_angle_error_deg"])


def test_only_the_stimulated_field_is_compared(truth):
    inside = np.hypot(truth["x_deg"], truth["y_deg"]) <= 3
    estimate = {name: values.copy() for name, values in truth.items()}
    estimate["x_deg"][~inside] = 99.0
    estimate["y_deg"][np.flatnonzero(inside)[0]] = 99.0
    summary = compare_prfs(estimate, truth, within_deg=3)
    # Wrong estimates beyond the field are left out, those within it are not.
    assert summary["n_vertices"] == inside.sum() < 200
    assert summary["r_eccentricity"] < 0.9
    reference = {name: values.copy() for name, values in truth.items()}
    reference["x_deg"][:2] = np.nan
    assert compare_prfs(truth, reference, within_deg=3)["n_not_finite"] == 2


def test_equal_sizes_have_neither_r_nor_slope(truth):
    equal = truth | {"size_deg": np.ones(200)}
    summary = compare_prfs(truth, equal)
    assert np.isnan(summary["r_size"])
    assert np.isnan(summary["slope_size"])


@pytest.mark.parametrize("within", [0, -1, np.nan])
def test_a_field_without_extent_is_refused(truth, within):
    with pytest.raises(InputError, match="within_deg: expected a positive number"):
        compare_prfs(truth, truth, within_deg=within)
