"""Calibration with phantoms: known distortions, intervals that cover, what cannot be learned."""

import json
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from neuroigc._validation import InputError
from neuroigc.prf import (
    Phantoms,
    PRFResult,
    calibrate_prfs,
    fit_prf,
    learn_calibration,
    make_phantoms,
    phantom_table,
    pixel_centres,
    plot_calibration,
    read_phantom_table,
)
from neuroigc.prf._calibration import learn

matplotlib.use("Agg")

EXTENT = (8.4, 8.4)
# Intercepts and slopes of x, y and log size.
LINES = ((0.1, 0.9), (-0.05, 1.1), (0.2, 0.7))


def make_truth(rng, n, margin=0.0):
    x, y = rng.uniform(-4.2 - margin, 4.2 + margin, (2, n))
    size = np.exp(rng.uniform(np.log(0.3), np.log(2.5), n))
    ncsnr = rng.uniform(0.1, 1.0, n)
    return Phantoms(np.zeros((2, n), np.float32), x, y, size, np.full(n, 0.5), ncsnr)


def estimate(truth, rng=None, *, lines=LINES, errors=False, understated=1.0, tail=np.inf):
    """Distorted truth; with ``rng`` plus errors that grow with the noise and with the size."""
    n = len(truth)
    sd = np.zeros((3, n))
    noise = np.zeros((3, n))
    if rng is not None:
        sd = np.stack([0.1 * truth.size_deg, 0.1 * truth.size_deg, np.full(n, 0.1)]) / truth.ncsnr
        noise = sd * (
            rng.standard_normal((3, n)) if tail == np.inf else rng.standard_t(tail, (3, n))
        )
    true = np.stack([truth.x_deg, truth.y_deg, np.log(truth.size_deg)])
    (x, y, log_size) = (a + b * (t + e) for (a, b), t, e in zip(lines, true, noise, strict=True))
    size = np.exp(log_size)
    known = {}
    if errors:
        slopes = np.array([b for _, b in lines])[:, None]
        reported = sd * slopes / understated
        names = ("x_error_deg", "y_error_deg", "size_error_deg")
        known = dict(zip(names, (*reported[:2], reported[2] * size), strict=True))
    return PRFResult(
        x, y, size, np.ones(n), np.zeros(n), truth.ncsnr**2 / (1 + truth.ncsnr**2),
        np.full(n, "ok", dtype="<U13"), EXTENT, **known,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize(("shift", "moved"), [(0.02, False), (0.3, True)])
def test_centres_are_left_where_lines_are_little_beside_errors(rng, shift, moved):
    truth = make_truth(rng, 400)
    found = estimate(truth, rng, lines=((shift, 1.0), (-shift, 1.0), LINES[2]), errors=True)
    calibration = learn_calibration(found, truth)
    for line in (calibration.x, calibration.y):
        assert (line != (0.0, 1.0)) is moved


def test_errors_make_lines_of_centres_sharper(rng):
    off = {False: [], True: []}
    for _ in range(20):
        truth = make_truth(rng, 200)
        found = estimate(truth, rng, errors=True)
        bare = replace(found, x_error_deg=None, y_error_deg=None, size_error_deg=None)
        for known, fields in ((True, found), (False, bare)):
            x = learn_calibration(fields, truth, errors="neighbours").x
            # Of the distortion at 2 degrees.
            off[known].append(x.intercept + 2 * x.slope - LINES[0][0] - 2 * LINES[0][1])
    assert np.std(off[True]) < 0.75 * np.std(off[False])


@pytest.mark.parametrize("lines", [LINES, ((0.0, 1.0),) * 3])
def test_known_distortions_are_undone_exactly(rng, lines):
    phantoms, truth = make_truth(rng, 60), make_truth(rng, 200, margin=1.0)
    fields = estimate(truth, lines=lines)
    found, calibration = calibrate_prfs(fields, estimate(phantoms, lines=lines), phantoms)
    for name in ("x_deg", "y_deg", "size_deg"):
        np.testing.assert_allclose(getattr(found, name), getattr(truth, name), rtol=1e-9)
    for name, line in zip(("x", "y", "size"), lines, strict=True):
        np.testing.assert_allclose(getattr(calibration, name), line, atol=1e-9)
    np.testing.assert_array_equal(found.amplitude, fields.amplitude)
    assert found.calibration == calibration.coefficients
    assert fields.calibration is None


def test_outliers_and_fields_beyond_the_image_do_not_teach(rng):
    phantoms = make_truth(rng, 600, margin=1.0)
    estimates = estimate(phantoms)
    outside = np.maximum(np.abs(phantoms.x_deg), np.abs(phantoms.y_deg)) > 4.2
    bad = rng.permutation(600)[:90]
    x, size, status = (a.copy() for a in (estimates.x_deg, estimates.size_deg, estimates.status))
    x[outside], size[outside] = 0.0, 9.0
    x[bad], size[bad] = rng.uniform(-4, 4, 90), 0.2
    status[:5] = ["flat", "not_finite", "at_bound", "not_converged", "flat"]
    x[:5] = [np.nan, np.nan, 5, 5, np.nan]
    estimates = replace(estimates, x_deg=x, size_deg=size, status=status)
    calibration = learn_calibration(estimates, phantoms)
    np.testing.assert_allclose(calibration.x, LINES[0], atol=1e-6)
    np.testing.assert_allclose(calibration.size, LINES[2], atol=1e-6)
    assert not calibration.used[outside].any()
    assert not calibration.used[:5].any()
    assert calibration.used.sum() == (~outside[5:]).sum()


def test_noise_does_not_shrink_sizes(rng):
    phantoms, truth = make_truth(rng, 1000), make_truth(rng, 2000)
    found, _ = calibrate_prfs(estimate(truth, rng), estimate(phantoms, rng), phantoms)
    slope = np.polyfit(np.log(truth.size_deg), np.log(found.size_deg), 1)[0]
    np.testing.assert_allclose(slope, 1, atol=0.05)


@pytest.mark.parametrize("tail", [np.inf, 3.0])
@pytest.mark.parametrize("errors", ["reported", "neighbours"])
def test_intervals_cover(rng, errors, tail):
    phantoms, truth = make_truth(rng, 3000), make_truth(rng, 4000)
    options = {"errors": True, "understated": 2.5, "tail": tail}
    found, calibration = calibrate_prfs(
        estimate(truth, rng, **options), estimate(phantoms, rng, **options), phantoms, errors=errors
    )
    assert calibration.error_source == errors
    for name, (low, high) in found.intervals().items():
        true = getattr(truth, name)
        covered = (low <= true) & (true <= high)
        assert 0.93 <= covered.mean() <= 0.97
        # Also where it is hard, and where it is easy.
        for half in (truth.ncsnr < 0.4, truth.ncsnr > 0.7):
            assert 0.88 <= covered[half].mean() <= 0.995
    if errors == "reported" and tail == np.inf:
        np.testing.assert_allclose(calibration.error_scale, 2.5, rtol=0.1)
    held_out = calibration.coverage((0.5, 0.95))
    assert held_out["level"].tolist() == [0.5, 0.95]
    assert held_out.loc[1, ["x", "y", "size"]].between(0.93, 0.97).all()


@pytest.mark.parametrize("errors", ["reported", "neighbours"])
def test_intervals_are_those_of_vertices_like_the_real_ones(rng, errors):
    # Fields far from fixation are far off, now and then, which standard errors do not tell.
    def far_off(truth):
        fields = estimate(truth, rng, errors=True)
        gone = (np.hypot(truth.x_deg, truth.y_deg) > 3.4) & (rng.random(len(truth)) < 0.2)
        return replace(fields, x_deg=fields.x_deg + np.where(gone, 4 * fields.x_error_deg, 0))

    phantoms = make_truth(rng, 3000)
    truth = make_truth(rng, 20_000)
    truth = truth[np.hypot(truth.x_deg, truth.y_deg) < 1.5]
    fields, phantom_fields = far_off(truth), far_off(phantoms)

    def coverage(found):
        low, high = found.intervals()["x_deg"]
        return ((low <= truth.x_deg) & (truth.x_deg <= high)).mean()

    found, _ = calibrate_prfs(fields, phantom_fields, phantoms, errors=errors)
    assert 0.93 <= coverage(found) <= 0.97
    # Unless it is known which phantoms they are like.
    plain = learn_calibration(phantom_fields, phantoms, errors=errors)
    assert coverage(plain.apply(fields)) > 0.975
    # Vertices without a usable map have no say.
    status = np.where(np.arange(len(fields)) % 2, "flat", fields.status)
    quality = np.full(len(fields), np.nan)
    quality[::2] = fields.r2[::2]
    half = plain.for_vertices(replace(fields, status=status))
    np.testing.assert_array_equal(
        half.error_scale, plain.for_vertices(fields, quality=quality).error_scale
    )
    none = plain.for_vertices(replace(fields, status=np.full(len(fields), "flat")))
    np.testing.assert_array_equal(none.error_scale, plain.error_scale)


def test_coverage_is_unknown_where_a_part_of_the_phantoms_teaches_nothing(rng):
    phantoms = make_truth(rng, 40)
    # A few small and large fields carry the whole line; without them nothing follows the truth.
    order = np.argsort(phantoms.size_deg)
    size = np.full(40, 1.0)
    size[order[1:-1]] = np.exp(
        0.05 * rng.standard_normal(38) - 0.1 * np.log(phantoms.size_deg[order[1:-1]])
    )
    estimates = replace(estimate(phantoms), size_deg=size)
    options = {"n_neighbours": 10, "source": "neighbours"}
    with pytest.raises(InputError, match="estimates of size that follow the truth"):
        learn(estimates, phantoms, np.ones(40), **options)
    known = replace(learn_calibration(estimate(phantoms), phantoms), estimates=estimates)
    assert known.coverage((0.5, 0.95))[["x", "y", "size"]].isna().all(axis=None)


def test_the_narrower_errors_are_taken(rng):
    phantoms = make_truth(rng, 800)
    good = estimate(phantoms, rng, errors=True)
    assert learn_calibration(good, phantoms).error_source == "reported"
    # Errors that say nothing about the map they belong to.
    mixed = rng.permutation(800)
    useless = replace(good, x_error_deg=good.x_error_deg[mixed] ** 3, y_error_deg=good.y_deg**2)
    assert learn_calibration(useless, phantoms).error_source == "neighbours"
    _, calibration = calibrate_prfs(estimate(phantoms, rng), good, phantoms)
    assert calibration.error_source == "neighbours"


def test_quality_tells_good_from_bad_maps(rng):
    phantoms, truth = make_truth(rng, 1000), make_truth(rng, 1000)
    useless = {"r2": np.full(1000, 0.5)}
    fields = replace(estimate(truth, rng), **useless)
    phantom_fields = replace(estimate(phantoms, rng), **useless)
    found, _ = calibrate_prfs(
        fields, phantom_fields, phantoms, quality=truth.ncsnr, phantom_quality=phantoms.ncsnr
    )
    poor, rich = truth.ncsnr < 0.3, truth.ncsnr > 0.7
    ratio = np.median(found.x_error_deg[poor]) / np.median(found.x_error_deg[rich])
    assert ratio > 2.5
    # Any increasing scale is the same.
    again, _ = calibrate_prfs(
        fields, phantom_fields, phantoms,
        quality=np.log(truth.ncsnr), phantom_quality=np.log(phantoms.ncsnr),
    )  # fmt: skip
    np.testing.assert_allclose(again.x_error_deg, found.x_error_deg)


def test_fits_that_failed_have_no_errors(rng):
    phantoms, truth = make_truth(rng, 100), make_truth(rng, 5)
    fields = estimate(truth, rng)
    status = np.array(["ok", "at_bound", "not_converged", "flat", "not_finite"])
    gone = np.isin(status, ["flat", "not_finite"])
    columns = {
        name: np.where(gone, np.nan, getattr(fields, name))
        for name in ("x_deg", "y_deg", "size_deg", "amplitude", "offset", "r2")
    }
    fields = replace(fields, status=status, **columns)
    found, _ = calibrate_prfs(fields, estimate(phantoms, rng), phantoms)
    np.testing.assert_array_equal(np.isnan(found.x_deg), gone)
    for name in ("x_error_deg", "y_error_deg", "size_error_deg"):
        np.testing.assert_array_equal(np.isnan(getattr(found, name)), status != "ok")


def test_tables_and_report(rng, tmp_path):
    phantoms = make_truth(rng, 500)
    found, calibration = calibrate_prfs(estimate(phantoms, rng), estimate(phantoms, rng), phantoms)
    table = calibration.expected_errors(n_bins=5)
    assert table.groupby("by", sort=False).size().to_dict() == {"ncsnr": 5, "eccentricity_deg": 5}
    by_noise = table[table["by"] == "ncsnr"]
    assert (by_noise["low"].to_numpy()[1:] >= by_noise["high"].to_numpy()[:-1]).all()
    assert by_noise["n_phantoms"].sum() == 500
    # Less noise, smaller errors.
    names = ("median_centre_error_deg", "median_angle_error_deg", "median_size_error_deg")
    for name in names:
        assert by_noise[name].iloc[0] > 2 * by_noise[name].iloc[-1]
    x, y, log_size = (
        (values - a) / b
        for values, (a, b) in zip(
            (calibration.estimates.x_deg, calibration.estimates.y_deg,
             np.log(calibration.estimates.size_deg)),
            (calibration.x, calibration.y, calibration.size),
            strict=True,
        )
    )  # fmt: skip
    errors = calibration.errors()
    np.testing.assert_allclose(
        errors["centre_error_deg"], np.hypot(x - phantoms.x_deg, y - phantoms.y_deg)
    )
    np.testing.assert_allclose(
        errors["size_error_deg"], np.abs(np.exp(log_size) - phantoms.size_deg)
    )
    near = np.hypot(phantoms.x_deg, phantoms.y_deg) <= 0.5
    np.testing.assert_array_equal(np.isnan(errors["angle_error_deg"]), near)
    report = json.loads(json.dumps(calibration.to_dict()))
    assert report["n_phantoms"] == report["n_phantoms_used"] == 500
    assert 0.92 < report["coverage_size"] < 0.98
    np.testing.assert_allclose(
        report["median_centre_error_deg"], errors["centre_error_deg"].median()
    )
    found.save(tmp_path / "prf.npz")
    again = PRFResult.load(tmp_path / "prf.npz")
    assert again.calibration == found.calibration == calibration.coefficients
    np.testing.assert_array_equal(again.x_error_deg, found.x_error_deg)


def test_from_images_to_intervals(rng):
    """Units pool contrast; maps are their covariance with it: no encoder, but the whole way."""
    strength = np.kron(rng.uniform(0, 1, (1500, 8, 8)), np.ones((1, 3, 3)))
    images = np.clip(0.5 + strength * rng.standard_normal(strength.shape) / 3, 0, 1)
    given = {"extent_deg": 8.4, "n_repeats": 2, "ncsnr": [0.5, 1.0]}
    options = {"normalisation": (0.0, 0.0), "sizes_deg": (0.6, 1.8)}
    phantoms = make_phantoms(images, n_phantoms=300, seed=1, **given, **options)
    others = make_phantoms(images, n_phantoms=300, seed=2, **given, **options)
    local = images.reshape(1500, 12, 2, 12, 2).std((2, 4)).reshape(1500, -1)
    local = (local - local.mean(0)) / local.std(0)

    def fit(responses):
        maps = (responses.T @ local / 1500).reshape(-1, 12, 12)
        return fit_prf(maps, extent_deg=8.4, standard_errors=np.full_like(maps, 1500**-0.5))

    found, calibration = calibrate_prfs(fit(others.responses), fit(phantoms.responses), phantoms)
    assert np.isfinite(calibration.error_scale).all()
    ok = found.status == "ok"
    assert ok.mean() > 0.6
    assert np.median(np.hypot(found.x_deg - others.x_deg, found.y_deg - others.y_deg)[ok]) < 0.2
    for name, (low, high) in found.intervals().items():
        true = getattr(others, name)
        assert 0.9 < ((low <= true) & (true <= high))[ok].mean() < 0.99


def test_plot_shows_lines_errors_and_coverage(rng):
    phantoms = make_truth(rng, 300, margin=0.5)
    calibration = learn_calibration(estimate(phantoms, rng), phantoms)
    figure = plot_calibration(calibration)
    raw, sizes, centres, shares = figure.axes
    assert raw.get_title() == f"{calibration.used.sum()} of 300 phantoms"
    assert len(raw.collections[0].get_offsets()) == calibration.used.sum()
    ends, fitted = raw.lines[0].get_data()
    np.testing.assert_allclose(
        np.log(fitted), calibration.size[0] + calibration.size[1] * np.log(ends)
    )
    truth, found = np.array(sizes.collections[0].get_offsets()).T
    np.testing.assert_allclose(truth, phantoms.size_deg[calibration.used])
    assert sizes.get_title() == f"median error {100 * np.median(np.abs(found / truth - 1)):.1f} %"
    median, high = (line.get_ydata() for line in centres.lines)
    assert (high > median).all()
    assert median[0] > median[-1]
    assert [line.get_label() for line in shares.lines[:3]] == ["x", "y", "size"]
    # Perfect estimates can be drawn, too.
    plot_calibration(learn_calibration(estimate(phantoms), phantoms)).canvas.draw()


def test_plot_has_a_curve_for_each_exponent_where_size_comes_from_both(rng):
    phantoms = make_truth(rng, 300)
    exponent = rng.uniform(0.3, 0.9, 300)
    phantoms = replace(phantoms, exponent=exponent)
    # Widths of what pools, exactly.
    pooled = replace(estimate(phantoms), size_deg=phantoms.size_deg * np.sqrt(exponent))
    calibration = learn_calibration(pooled.with_exponent(exponent), phantoms)
    figure = plot_calibration(calibration)
    raw = figure.axes[0]
    for line, share in zip(raw.lines, (0.1, 0.5, 0.9), strict=True):
        size, width = line.get_data()
        # Of a surface of the second order, which the root of the exponent is not.
        expected = size * np.sqrt(np.quantile(exponent[calibration.used], share))
        np.testing.assert_allclose(width, expected, rtol=0.02)
    assert raw.get_ylabel() == "estimated width (deg)"
    figure.canvas.draw()


@pytest.mark.parametrize("exponents", [False, True])
def test_a_table_of_phantoms_teaches_the_same_again(rng, tmp_path, exponents):
    phantoms = make_truth(rng, 100)
    estimates = estimate(phantoms, rng, errors=True)
    if exponents:
        estimates = estimates.with_exponent(rng.uniform(0.3, 0.9, 100))
    calibration = learn_calibration(estimates, phantoms, quality=phantoms.ncsnr)
    phantom_table(calibration).to_csv(tmp_path / "phantoms.tsv", sep="\t", index=False)
    table = pd.read_csv(tmp_path / "phantoms.tsv", sep="\t")
    again = read_phantom_table(table, extent_deg=8.4)
    assert again.to_dict() == pytest.approx(calibration.to_dict())
    pd.testing.assert_frame_equal(again.expected_errors(), calibration.expected_errors())
    with pytest.raises(InputError, match=r"table: expected columns .* got no quality, r2"):
        read_phantom_table(table.drop(columns=["quality", "r2"]), extent_deg=8.4)


def shortened(fields):
    return fields[:-1]


def with_status(status):
    def change(fields):
        return replace(fields, status=np.full(len(fields), status))

    return change


def shuffled(fields):
    return fields[np.random.default_rng(0).permutation(len(fields))]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (shortened, {}, "the same phantoms; got 99 and 100"),
        (with_status("flat"), {}, "at least 30 phantoms with status 'ok'.*got 0 of 100"),
        (with_status("not_finite"), {}, "got 0 of 100"),
        (shuffled, {}, "that follow the truth; got a slope of"),
        (lambda f: replace(f, size_deg=0 * f.x_deg + 0.5), {}, "estimates of size that follow"),
        (lambda f: f.calibrated(1.0), {}, "phantom_fields: expected fields of maps"),
        (None, {"quality": np.ones(3)}, r"one number for each of 100 fields; got shape \(3,\)"),
        (None, {"quality": np.full(100, np.nan)}, "got 0 of 100"),
        (None, {"errors": "reported"}, "standard errors of centre and size; got none"),
        (None, {"errors": "bootstrap"}, "errors: expected one of 'auto'"),
        (None, {"n_neighbours": 1}, "n_neighbours: expected 5 or more"),
    ],
)
def test_what_cannot_be_learned_from_is_named(rng, change, options, message):
    phantoms = make_truth(rng, 100)
    estimates = estimate(phantoms, rng)
    with pytest.raises(InputError, match=message):
        learn_calibration(estimates if change is None else change(estimates), phantoms, **options)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.calibrated(1.2), {}, "fields: expected fields of maps"),
        (lambda f: replace(f, extent_deg=(8.4, 6.0)), {}, "maps of the same extent"),
        (lambda f: f.with_exponent(np.full(100, 0.5)), {}, "the phantoms' fields exponents, too"),
        (None, {"quality": np.ones(100)}, "neither; got one of them"),
        (None, {"errors": "reported"}, "fields: expected standard errors, as the phantoms"),
        (None, {"errors": "own"}, "errors: expected one of"),
    ],
)
def test_fields_that_cannot_be_calibrated_are_named(rng, change, options, message):
    phantoms = make_truth(rng, 100)
    fields = estimate(phantoms, rng)
    with pytest.raises(InputError, match=message):
        calibrate_prfs(
            fields if change is None else change(fields),
            estimate(phantoms, rng, errors=True),
            phantoms,
            **options,
        )


def test_intervals_of_fits(rng):
    x_deg, y_deg = pixel_centres(16, 16, 8.4)
    maps = np.exp(-((x_deg - 1) ** 2 + (y_deg[:, None] + 0.5) ** 2) / 2)[None]
    fit = fit_prf(maps, extent_deg=8.4, standard_errors=np.full_like(maps, 0.05))
    wide, narrow = fit.intervals(0.95), fit.intervals(0.5)
    for name, (low, high) in wide.items():
        value = getattr(fit, name)
        assert (low < narrow[name][0]) & (narrow[name][0] < value)
        assert (value < narrow[name][1]) & (narrow[name][1] < high)
    np.testing.assert_allclose(wide["x_deg"][1] - fit.x_deg, 1.959964 * fit.x_error_deg, rtol=1e-6)
    low, high = wide["size_deg"]
    np.testing.assert_allclose(low * high, fit.size_deg**2)
    with pytest.raises(InputError, match="standard errors of centre and size; got none"):
        fit_prf(maps, extent_deg=8.4).intervals()
    for level in (0, 1, 95):
        with pytest.raises(InputError, match="level"):
            fit.intervals(level)


def test_width_and_exponent_are_undone_together(rng):
    """Sizes come back although width and exponent are distorted each in its own way."""
    n = 400
    exponent, size = rng.uniform(0.25, 1, n), np.exp(rng.uniform(-1, 1, n))
    x, y = rng.uniform(-3, 3, (2, n))
    sigma = size * np.sqrt(exponent)
    seen = 0.1 + 0.9 * exponent + 0.02 * rng.standard_normal(n)
    width = 1.1 * sigma**1.2 * np.exp(0.02 * rng.standard_normal(n))
    fields = PRFResult(
        x_deg=x,
        y_deg=y,
        size_deg=width,
        amplitude=np.ones(n),
        offset=np.zeros(n),
        r2=np.full(n, 0.9),
        status=np.full(n, "ok"),
        extent_deg=(8.0, 8.0),
    ).with_exponent(seen)
    phantoms = Phantoms(np.zeros((2, n), np.float32), x, y, size, exponent, np.ones(n))
    known, new = np.arange(n) < 250, np.arange(n) >= 250
    found, calibration = calibrate_prfs(fields[new], fields[known], phantoms[known])
    ratio = found.size_deg / size[new]
    assert np.median(np.abs(ratio - 1)) < 0.05
    assert np.corrcoef(found.size_deg, size[new])[0, 1] > 0.99
    np.testing.assert_allclose(found.exponent, exponent[new], atol=0.1)
    assert calibration.coefficients["exponent_slope"] == pytest.approx(0.9, abs=0.02)
    plain = PRFResult(**{f: getattr(fields, f) for f in PRFResult.__match_args__})
    with pytest.raises(InputError, match="fields with exponents"):
        calibration.apply(plain)
