"""Classical fits: known fields, an independent optimiser, real bars, and what cannot be fitted."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import least_squares
from scipy.stats import gamma

from neuroigc._validation import InputError
from neuroigc.prf import (
    ClassicalPRFResult,
    contrast_energy,
    double_gamma_hrf,
    fit_css,
    fit_timeseries_prf,
    simulate_bars,
)

EXTENT, TR = 8.4, 1.5


def unit_gaussians(x, y, sigma, *, shape=(20, 20), extent=EXTENT):
    """Gaussians that sum to one over the plane, row 0 at the top, without the package's axes."""
    width, height = np.broadcast_to(extent, 2)
    columns = (np.arange(shape[1]) + 0.5) / shape[1] * width - width / 2
    rows = height / 2 - (np.arange(shape[0]) + 0.5) / shape[0] * height
    x, y, sigma = (np.asarray(p, dtype=float)[:, None, None] for p in (x, y, sigma))
    squared = (columns[None, None] - x) ** 2 + (rows[None, :, None] - y) ** 2
    tile = width / shape[1] * height / shape[0]
    return np.exp(-squared / (2 * sigma**2)) / (2 * np.pi * sigma**2) * tile


def pool(frames, gaussians):
    return frames.reshape(len(frames), -1) @ gaussians.reshape(len(gaussians), -1).T


@pytest.fixture
def contrast(rng):
    return rng.gamma(1.0, 0.15, (300, 20, 20)).clip(0, 1)


@pytest.fixture
def truth(rng):
    n = 40
    x, y = rng.uniform(-3.5, 3.5, (2, n))
    return {
        "x": x,
        "y": y,
        "sigma": rng.uniform(0.4, 1.5, n),
        "exponent": rng.uniform(0.2, 1.2, n),
        "gain": rng.uniform(0.5, 3, n),
    }


def respond(frames, truth, extent=EXTENT):
    shape = frames.shape[1:]
    gaussians = unit_gaussians(truth["x"], truth["y"], truth["sigma"], shape=shape, extent=extent)
    return pool(frames, gaussians) ** truth["exponent"]


@pytest.fixture
def noisy(contrast, truth, rng):
    betas = respond(contrast, truth)
    betas = (betas - betas.mean(0)) / betas.std(0)
    return betas + rng.standard_normal(betas.shape)


def check(fit, truth, tolerance):
    assert (fit.status == "ok").all()
    size = truth["sigma"] / np.sqrt(truth["exponent"])
    np.testing.assert_allclose(fit.x_deg, truth["x"], atol=tolerance)
    np.testing.assert_allclose(fit.y_deg, truth["y"], atol=tolerance)
    np.testing.assert_allclose(fit.size_deg, size, rtol=5 * tolerance)
    np.testing.assert_allclose(fit.exponent, truth["exponent"], atol=5 * tolerance)
    np.testing.assert_allclose(fit.amplitude, truth["gain"], rtol=5 * tolerance)
    assert (fit.r2 > 1 - tolerance).all()
    assert (fit.r2 <= 1).all()


# ---------------------------------------------------------------- contrast


def direct_contrast(grey, n_tiles, border, tile):
    side = n_tiles * tile
    result = np.empty((len(grey), n_tiles, n_tiles))
    for i, image in enumerate(grey):
        screen = np.full((side, side), (127 / 255) ** 2)
        screen[border : side - border, border : side - border] = image**2
        for row in range(n_tiles):
            for column in range(n_tiles):
                part = screen[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
                result[i, row, column] = min(2 * part.std(ddof=1), 1)
    return result


@pytest.mark.parametrize(
    ("n_tiles", "surround", "tile"), [(9, 0.5, 4), (6, 0, 8), (5, 1, 16), (51, 0.5, 16)]
)
def test_contrast_is_the_formula(rng, n_tiles, surround, tile):
    border = int(surround * tile)
    side = n_tiles * tile - 2 * border
    grey = rng.uniform(0, 1, (2, side, side))
    grey[1] = rng.integers(0, 2, (side, side))
    options = {"n_tiles": n_tiles, "surround_tiles": surround, "tile_pixels": tile}
    ours = contrast_energy(grey, **options)
    assert ours.dtype == np.float32
    expected = direct_contrast(grey, n_tiles, border, tile)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_contrast_of_uint8_colour_and_coarser_tiles(rng):
    images = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    options = {"n_tiles": 9, "tile_pixels": 4}
    fine = contrast_energy(images, **options)
    luma = images / 255 @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(fine, contrast_energy(luma, **options), atol=1e-5)
    np.testing.assert_allclose(fine, contrast_energy(torch.from_numpy(images), **options))
    coarse = contrast_energy(images, pool=3, **options)
    np.testing.assert_allclose(coarse, fine.reshape(3, 3, 3, 3, 3).mean((2, 4)), atol=1e-6)


def test_images_of_any_size_are_resized_in_place():
    # A checked patch in the upper right of an oblong picture.
    image = np.full((1, 50, 100), 127, dtype=np.uint8)
    image[0, 5:15, 70:80] = 255 * (np.indices((10, 10)).sum(0) % 2)
    found = contrast_energy(image, n_tiles=11, tile_pixels=8)[0]
    row, column = np.unravel_index(found.argmax(), found.shape)
    # Centre of the patch: 20 % from the top, 75 % from the left; half a tile of surround.
    assert abs(row + 0.5 - (0.5 + 0.2 * 10)) <= 1
    assert abs(column + 0.5 - (0.5 + 0.75 * 10)) <= 1
    uniform = np.full((1, 40, 40), 127, dtype=np.uint8)
    np.testing.assert_allclose(contrast_energy(uniform), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((8, 8)), {}, "images: expected an array"),
        (np.zeros((2, 8, 8, 4)), {}, "images: expected an array"),
        (np.full((2, 8, 8), 2.0), {}, "numbers from 0 to 1"),
        (np.full((2, 8, 8), np.nan), {}, "numbers from 0 to 1"),
        (np.zeros((2, 8, 8)), {"pool": 2}, "pool: expected a divisor"),
        (np.zeros((2, 8, 8)), {"surround_tiles": 0.3}, "surround_tiles"),
        (np.zeros((2, 8, 8)), {"n_tiles": 2}, "n_tiles"),
    ],
)
def test_images_that_have_no_contrast(images, options, message):
    with pytest.raises(InputError, match=message):
        contrast_energy(images, **options)


# ---------------------------------------------------------------- betas


@pytest.mark.parametrize(("offset", "level"), [(True, -0.7), (False, 0.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 3e-3)])
def test_clean_betas_give_every_parameter(contrast, truth, offset, level, dtype, tolerance):
    betas = truth["gain"] * respond(contrast, truth) + level
    fit = fit_css(contrast.astype(dtype), betas, extent_deg=EXTENT, offset=offset)
    assert isinstance(fit, ClassicalPRFResult)
    check(fit, truth, tolerance)
    np.testing.assert_allclose(fit.offset, level, atol=5 * tolerance)


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_an_exponent_can_be_kept(contrast, truth, exponent):
    truth["exponent"] = np.full(len(truth["x"]), exponent)
    betas = truth["gain"] * respond(contrast, truth)
    check(fit_css(contrast, betas, extent_deg=EXTENT, exponent=exponent), truth, 1e-6)


def test_oblong_tiles_and_rectangular_fields(rng, truth):
    contrast = rng.gamma(1.0, 0.15, (300, 15, 30)).clip(0, 1)
    truth["x"] *= 2
    extent = (18.0, 8.0)
    betas = truth["gain"] * respond(contrast, truth, extent)
    check(fit_css(contrast, betas, extent_deg=extent), truth, 1e-6)


def test_up_and_right_are_positive_and_axes_are_not_swapped(rng):
    # Responses to a patch in the upper right: much to the right, a little up.
    contrast = rng.uniform(0, 1, (200, 20, 40))
    betas = contrast[:, 5:9, 30:33].mean((1, 2))[:, None]
    fit = fit_css(contrast, betas, extent_deg=(20.0, 10.0))
    np.testing.assert_allclose([fit.x_deg[0], fit.y_deg[0]], [5.75, 1.5], atol=0.05)
    fit = fit_timeseries_prf(contrast, betas, extent_deg=(20.0, 10.0), tr=1.0, hrf=[1.0])
    np.testing.assert_allclose([fit.x_deg[0], fit.y_deg[0]], [5.75, 1.5], atol=0.05)


def test_from_images_to_fields(rng):
    # Texture everywhere, at strengths that change from place to place and image to image.
    strength = rng.uniform(0, 1, (250, 8, 8)).repeat(8, axis=1).repeat(8, axis=2)
    images = 0.5 + 0.5 * strength * rng.choice([-1, 1], strength.shape)
    betas = strength[:, 8:24, 40:56].mean((1, 2))[:, None]
    contrast = contrast_energy(images, n_tiles=17, tile_pixels=4)
    fit = fit_css(contrast, betas, extent_deg=8.0 * 17 / 16)
    # Rows 1 and 2 from the top of 8, columns 5 and 6 from the left.
    np.testing.assert_allclose([fit.x_deg[0], fit.y_deg[0]], [2.0, 2.0], atol=0.15)
    betas = strength[:, 48:56, 24:32].mean((1, 2))[:, None]
    fit = fit_css(contrast, betas, extent_deg=8.0 * 17 / 16)
    np.testing.assert_allclose([fit.x_deg[0], fit.y_deg[0]], [-0.5, -2.5], atol=0.15)


@pytest.mark.parametrize(
    ("offset", "weighted"), [(True, False), (True, True), (False, False), (False, True)]
)
def test_noisy_betas_agree_with_scipy(contrast, truth, noisy, rng, offset, weighted):
    weights = rng.integers(1, 4, len(noisy)) if weighted else None
    betas = noisy[:, :8] + (0 if offset else 5)
    fit = fit_css(contrast, betas, extent_deg=EXTENT, weights=weights, offset=offset)
    root = np.sqrt(np.ones(len(betas)) if weights is None else weights)
    for i in np.flatnonzero(fit.status == "ok"):

        def residual(p, i=i):
            gaussian = unit_gaussians([p[0]], [p[1]], [np.exp(p[2])])
            predicted = p[4] * pool(contrast, gaussian)[:, 0] ** np.exp(p[3])
            return root * (predicted + (p[5] if offset else 0) - betas[:, i])

        sigma, n = fit.size_deg[i] * np.sqrt(fit.exponent[i]), fit.exponent[i]
        ours = [fit.x_deg[i], fit.y_deg[i], np.log(sigma), np.log(n), fit.amplitude[i]]
        ours = np.array([*ours, fit.offset[i]])
        # Start a little beside, so that the other optimiser has to find the way back.
        start = ours + np.array([0.05, -0.05, 0.05, 0.05, 0.0, 0.0])
        theirs = least_squares(residual, start, x_scale="jac", xtol=1e-13, ftol=1e-13, gtol=1e-13)
        assert np.sum(residual(ours) ** 2) <= 2 * theirs.cost * (1 + 1e-7)
        np.testing.assert_allclose(ours[:2], theirs.x[:2], atol=3e-3)
        total = root * (betas[:, i] - (np.average(betas[:, i], weights=root**2) if offset else 0))
        expected = 1 - 2 * theirs.cost / np.sum(total**2)
        np.testing.assert_allclose(fit.r2[i], expected, atol=1e-6)
    assert (fit.status == "ok").sum() >= 5


def test_integer_weights_are_repeats(contrast, noisy, rng):
    weights = rng.integers(0, 4, len(noisy))
    fit = fit_css(contrast, noisy, extent_deg=EXTENT, weights=weights)
    repeated = fit_css(
        np.repeat(contrast, weights, axis=0), np.repeat(noisy, weights, axis=0), extent_deg=EXTENT
    )
    settled = (fit.status == "ok") & (repeated.status == "ok")
    assert settled.mean() > 0.7
    np.testing.assert_allclose(fit.x_deg[settled], repeated.x_deg[settled], atol=1e-3)
    np.testing.assert_allclose(fit.r2[settled], repeated.r2[settled], atol=1e-6)


def in_another_order(contrast, betas):
    order = np.random.default_rng(1).permutation(len(betas))
    return fit_css(contrast[order], betas[order], extent_deg=EXTENT)


@pytest.mark.parametrize(
    "other",
    [
        lambda c, b: fit_css(c, b, extent_deg=EXTENT, batch_size=7),
        lambda c, b: fit_css(c, b[:, ::-1], extent_deg=EXTENT)[::-1],
        in_another_order,
        lambda c, b: fit_css(c, 1e-30 * b, extent_deg=EXTENT),
        lambda c, b: fit_css(c, 3 * b + 1e4, extent_deg=EXTENT),
        lambda c, b: fit_css(torch.from_numpy(c), torch.from_numpy(b), extent_deg=EXTENT),
        lambda c, b: fit_css(c / 10, b, extent_deg=EXTENT),
    ],
    ids=["batches", "vertices", "images", "tiny", "offset", "tensors", "contrast"],
)
def test_a_fit_depends_on_its_vertex_alone(contrast, noisy, other):
    together = fit_css(contrast, noisy, extent_deg=EXTENT)
    apart = other(contrast, noisy)
    settled = together.status == "ok"
    assert settled.mean() > 0.7
    np.testing.assert_array_equal(apart.status[settled], "ok")
    for name in ("x_deg", "y_deg", "size_deg", "exponent", "r2"):
        ours, theirs = getattr(together, name)[settled], getattr(apart, name)[settled]
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def test_scale_and_level_of_betas_pass_through(contrast, noisy):
    fit = fit_css(contrast, noisy, extent_deg=EXTENT)
    other = fit_css(contrast, 1e-3 * noisy + 5, extent_deg=EXTENT)
    settled = fit.status == "ok"
    np.testing.assert_allclose(other.amplitude[settled], 1e-3 * fit.amplitude[settled], rtol=0.02)
    np.testing.assert_allclose(other.offset[settled], 1e-3 * fit.offset[settled] + 5, rtol=1e-4)


def test_vertices_that_cannot_be_fitted_harm_no_other(contrast, noisy):
    alone = fit_css(contrast, noisy[:, :4], extent_deg=EXTENT)
    betas = noisy[:, :7].copy()
    betas[3, 4], betas[5, 5], betas[:, 6] = np.nan, np.inf, 0.1
    fit = fit_css(contrast, betas, extent_deg=EXTENT)
    assert fit.status[4:].tolist() == ["not_finite", "not_finite", "flat"]
    assert fit.to_frame().drop(columns="status")[4:].isna().all(axis=None)
    np.testing.assert_array_equal(fit.status[:4], alone.status)
    np.testing.assert_allclose(fit.x_deg[:4], alone.x_deg, atol=1e-3)
    assert np.isnan(fit_css(contrast, betas, extent_deg=EXTENT, offset=False).offset[4:]).all()


def test_limits_are_kept_and_reported(contrast, truth):
    betas = respond(contrast, truth)
    options = {"sigma_limits_deg": (0.9, 1.1), "exponent_limits": (0.5, 0.7)}
    fit = fit_css(contrast, betas, extent_deg=EXTENT, **options)
    sigma = fit.size_deg * np.sqrt(fit.exponent)
    assert ((sigma > 0.9 - 1e-9) & (sigma < 1.1 + 1e-9)).all()
    assert ((fit.exponent > 0.5 - 1e-9) & (fit.exponent < 0.7 + 1e-9)).all()
    outside = (truth["sigma"] < 0.9) | (truth["sigma"] > 1.1)
    assert (fit.status[outside] == "at_bound").mean() > 0.9
    short = fit_css(contrast, betas, extent_deg=EXTENT, max_iterations=1)
    assert (short.status == "not_converged").all()


def test_fields_far_outside_are_not_called_ok(contrast):
    outside = {"x": [5.0, 6.0], "y": [0.5, 0.5], "sigma": [0.4, 0.4], "exponent": [1.0, 1.0]}
    fit = fit_css(contrast, respond(contrast, outside), extent_deg=EXTENT, exponent=1.0)
    np.testing.assert_allclose(fit.x_deg, outside["x"], atol=1e-3)
    assert fit.status.tolist() == ["ok", "at_bound"]


def test_images_without_any_contrast_have_no_response(contrast, truth):
    # So small a power of the smallest float32 would be one percent of the largest response.
    contrast[::3] = 0
    truth["exponent"][:] = 0.05
    betas = truth["gain"] * respond(contrast, truth)
    options = {"extent_deg": EXTENT, "offset": False, "exponent": 0.05}
    fit = fit_css(contrast.astype(np.float32), betas, **options)
    np.testing.assert_allclose(fit.amplitude, truth["gain"], rtol=1e-3)
    assert (fit.r2 > 1 - 1e-6).all()


def test_results_are_cut_tabled_and_saved(contrast, noisy, tmp_path):
    fit = fit_css(contrast, noisy[:, :5], extent_deg=EXTENT)
    assert fit.to_frame().columns[-1] == "exponent"
    again = ClassicalPRFResult.load(fit[[2, 0]].save(tmp_path / "fit.npz"))
    np.testing.assert_array_equal(again.exponent, fit.exponent[[2, 0]])
    assert again.extent_deg == (EXTENT, EXTENT)


@pytest.mark.gpu
def test_cuda_agrees_with_cpu(contrast, noisy):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    on_cpu, on_cuda = (
        fit_css(contrast, noisy, extent_deg=EXTENT, device=d) for d in ("cpu", "cuda")
    )
    np.testing.assert_allclose(on_cuda.x_deg, on_cpu.x_deg, atol=1e-3)
    np.testing.assert_array_equal(on_cuda.status, on_cpu.status)


# ---------------------------------------------------------------- time series


def test_the_response_is_the_difference_of_gamma_densities():
    t = np.arange(0, 32.1, TR)
    expected = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    np.testing.assert_allclose(double_gamma_hrf(TR), expected / expected.sum(), atol=1e-12)
    fine = double_gamma_hrf(0.01)
    assert abs(fine.argmax() * 0.01 - 5) < 0.05
    assert fine.min() < 0


def test_bars_go_where_they_are_said_to_go():
    for direction, axis, sign in ((0, 1, 1), (90, 0, -1), (180, 1, -1), (270, 0, 1)):
        bars = simulate_bars(n_pixels=16, n_steps=8, directions_deg=[direction], n_blank=3)
        assert bars.shape == (14, 16, 16)
        assert not bars[:3].any()
        assert not bars[-3:].any()
        sweep = bars[3:-3]
        centre = (sweep * np.indices((16, 16))[axis]).sum((1, 2)) / sweep.sum((1, 2))
        assert (np.diff(centre) * sign >= 0).all()
        assert abs(centre[-1] - centre[0]) > 12
    whole = simulate_bars(n_pixels=16, circular=False)
    round_ = simulate_bars(n_pixels=16)
    assert whole.max(0).all()
    assert not round_[:, 0, 0].any()


@pytest.mark.parametrize("exponent", [1.0, 0.5, None])
@pytest.mark.parametrize("run_lengths", [None, [100, 88]])
def test_clean_bars_give_every_parameter(truth, exponent, run_lengths):
    bars = simulate_bars(n_pixels=24, n_steps=16).astype(float)
    n = len(bars)
    assert n == 188
    extent = 16.0
    truth["x"], truth["y"], truth["sigma"] = (2 * truth[p] for p in ("x", "y", "sigma"))
    if exponent is not None:
        truth["exponent"] = np.full(len(truth["x"]), exponent)
    neural = truth["gain"] * respond(bars, truth, extent)
    bold = np.empty_like(neural)
    ends = np.cumsum(run_lengths or [n])
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        for i in range(bold.shape[1]):
            delayed = np.convolve(neural[start:end, i], double_gamma_hrf(TR))[: end - start]
            bold[start:end, i] = delayed + 100 + start + np.linspace(-1, 1, end - start)
    fit = fit_timeseries_prf(
        bars, bold, extent_deg=extent, tr=TR, exponent=exponent, run_lengths=run_lengths
    )
    check(fit, truth, 3e-5)
    if run_lengths is None:
        np.testing.assert_allclose(fit.offset, 100, atol=1e-4)


def test_noise_as_large_as_the_signal_hardly_slows_the_search(truth, rng):
    # Gauss-Newton steps alone leave every fifth of these unsettled.
    bars = simulate_bars(n_pixels=24, n_steps=16).astype(float)
    truth["x"], truth["y"], truth["sigma"] = (2 * truth[p] for p in ("x", "y", "sigma"))
    neural = respond(bars, truth | {"exponent": np.ones(40)}, 16.0)
    bold = np.stack([np.convolve(s, double_gamma_hrf(TR))[: len(bars)] for s in neural.T], axis=1)
    bold = bold / bold.std(0) + rng.standard_normal(bold.shape)
    options = {"extent_deg": 16.0, "tr": TR, "exponent": None, "max_iterations": 40}
    fit = fit_timeseries_prf(bars, bold, **options)
    assert (fit.status == "not_converged").mean() <= 0.03


def test_drift_alone_is_flat():
    bars = simulate_bars(n_pixels=16)
    time = np.linspace(-1, 1, len(bars))
    bold = np.stack([50 + 3 * time, 50 + 3 * time**2, np.full(len(bars), 50.0)], axis=1)
    fit = fit_timeseries_prf(bars, bold, extent_deg=10.0, tr=TR, drift_order=2)
    assert (fit.status == "flat").all()


@pytest.mark.data
def test_real_v1_voxels_look_where_the_published_fit_says(real_data):
    folder = real_data / "prf_szinte2024"
    bold = pd.read_csv(folder / "bold.tsv.gz", sep="\t", index_col="time")
    published = pd.read_csv(folder / "gauss_parameters.tsv", sep="\t", index_col="source")
    grid = pd.read_csv(folder / "grid_coordinates.tsv", sep="\t")
    apertures = np.load(folder / "dm_gazecenter.npz")["arr_0"].transpose(0, 2, 1)
    # A suppressed voxel has no place in a model of positive gain.
    published = published[(published.r2 > 0.5) & (published.amplitude > 0)]
    assert len(published) == 127
    n_rows, n_columns = apertures.shape[1:]
    extent = (
        np.ptp(grid.x) * n_columns / (n_columns - 1),
        np.ptp(grid.y) * n_rows / (n_rows - 1),
    )
    series = bold[published.index.astype(str)].to_numpy()
    fit = fit_timeseries_prf(apertures, series, extent_deg=extent, tr=1.317025)
    x, y = published.x - grid.x.mean(), published.y - grid.y.mean()
    assert np.corrcoef(fit.x_deg, x)[0, 1] >= 0.97
    assert np.corrcoef(fit.y_deg, y)[0, 1] >= 0.97
    assert np.median(np.hypot(fit.x_deg - x, fit.y_deg - y)) <= 0.2
    assert (fit.status == "ok").mean() >= 0.95


# ---------------------------------------------------------------- bad input

FRAMES, SERIES = np.full((30, 5, 5), 0.5), np.zeros((30, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrast": FRAMES[0]}, r"contrast: .* got shape \(5, 5\)"),
        ({"contrast": FRAMES - 1}, "contrast: expected numbers from 0 on; got values down to -0.5"),
        ({"contrast": FRAMES * np.nan}, "contrast: expected finite numbers"),
        ({"contrast": FRAMES * 1j}, "contrast: expected real numbers"),
        ({"betas": SERIES[:, 0]}, r"betas: .* betas\[:, None\]"),
        ({"betas": SERIES.T}, "betas: expected one row for each of 30 images; got 2 rows"),
        ({"contrast": FRAMES[:5], "betas": SERIES[:5]}, "more samples than the 6 numbers"),
        ({"weights": np.ones(29)}, r"weights: .* got shape \(29,\)"),
        ({"weights": np.zeros(30)}, "weights: expected 30 finite numbers"),
        ({"weights": -np.ones(30)}, "weights: expected 30 finite numbers"),
        ({"extent_deg": -1}, "extent_deg"),
        ({"exponent": 0}, "exponent: expected a positive number, or None"),
        ({"exponent_limits": (2, 1)}, "exponent_limits"),
        ({"sigma_limits_deg": (0, 1)}, "sigma_limits_deg"),
        ({"sigma_limits_deg": 1.0}, "sigma_limits_deg: expected two positive numbers"),
        ({"device": "nowhere"}, "device: .* that is there; got 'nowhere'"),
        ({"margin_deg": -1}, "margin_deg"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_iterations": 0}, "max_iterations"),
    ],
)
def test_betas_that_cannot_be_fitted(change, message):
    options = {"contrast": FRAMES, "betas": SERIES, "extent_deg": EXTENT, **change}
    with pytest.raises(InputError, match=message):
        fit_css(options.pop("contrast"), options.pop("betas"), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stimulus": -FRAMES}, "stimulus: expected numbers from 0 on"),
        ({"bold": SERIES.T}, "bold: expected one row for each of 30 volumes"),
        ({"tr": 0}, "tr: expected a positive number of seconds"),
        ({"hrf": np.zeros(5)}, "hrf: .* got zeros"),
        ({"hrf": np.zeros((5, 2))}, r"hrf: .* got shape \(5, 2\)"),
        ({"drift_order": -1}, "drift_order"),
        ({"run_lengths": 20}, "run_lengths: expected numbers that add up to 30; got 20"),
        ({"run_lengths": [10, 10]}, "run_lengths: expected numbers that add up to 30; got 20"),
    ],
)
def test_series_that_cannot_be_fitted(change, message):
    options = {"stimulus": FRAMES, "bold": SERIES, "extent_deg": EXTENT, "tr": TR, **change}
    with pytest.raises(InputError, match=message):
        fit_timeseries_prf(options.pop("stimulus"), options.pop("bold"), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: double_gamma_hrf(0), "tr: expected a positive number"),
        (lambda: double_gamma_hrf(1, ratio=1), "ratio"),
        (lambda: double_gamma_hrf(1, peak=0.5), "peak and undershoot: expected delays"),
        (lambda: double_gamma_hrf(1, undershoot_dispersion=20), "peak and undershoot"),
        (lambda: double_gamma_hrf(1, duration=3), "tr and duration"),
        (lambda: double_gamma_hrf(40), "tr and duration"),
        (lambda: simulate_bars(bar_width=0), "bar_width"),
        (lambda: simulate_bars(directions_deg=[None]), "directions_deg"),
        (lambda: simulate_bars(n_steps=1), "n_steps"),
    ],
)
def test_experiments_that_make_no_sense(call, message):
    with pytest.raises(InputError, match=message):
        call()
