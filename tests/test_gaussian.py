"""Gaussian fits: known fields, an independent optimiser, and everything that is no field."""

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit

from neuroigc._validation import InputError
from neuroigc.prf import PRFResult, fit_prf, pixel_centres
from neuroigc.prf._search import Field, evaluate, search

EXTENT = 8.4


def gaussians(x, y, size, *, amplitude=1.0, offset=0.0, shape=(32, 32), extent=EXTENT):
    """Pictures with row 0 at the top, written without the package's own axes."""
    width, height = np.broadcast_to(extent, 2)
    columns = (np.arange(shape[1]) + 0.5) / shape[1] * width - width / 2
    rows = height / 2 - (np.arange(shape[0]) + 0.5) / shape[0] * height
    x, y, size = (np.asarray(p, dtype=float)[:, None, None] for p in (x, y, size))
    squared = (columns[None, None] - x) ** 2 + (rows[None, :, None] - y) ** 2
    return amplitude * np.exp(-squared / (2 * size**2)) + offset


@pytest.fixture
def fields(rng):
    """Centres anywhere up to slightly outside, sizes from one pixel to a third of the field."""
    x, y = rng.uniform(-4.5, 4.5, (2, 300))
    return x, y, np.exp(rng.uniform(np.log(0.27), np.log(2.8), 300))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clean_gaussians_are_recovered_also_outside_the_picture(fields, dtype):
    x, y, size = fields
    maps = gaussians(x, y, size, amplitude=3e-4, offset=-2e-5).astype(dtype)
    fit = fit_prf(maps, extent_deg=EXTENT)
    assert (fit.status == "ok").all()
    for ours, true in ((fit.x_deg, x), (fit.y_deg, y), (fit.size_deg, size)):
        np.testing.assert_allclose(ours, true, atol=1e-3)
    np.testing.assert_allclose(fit.amplitude, 3e-4, rtol=1e-3)
    np.testing.assert_allclose(fit.offset, -2e-5, atol=1e-7)
    assert (fit.r2 > 0.99999).all()
    assert (fit.r2 <= 1).all()


def test_up_and_right_are_positive_and_axes_are_not_swapped():
    # A bright patch in the upper right: much to the right, a little up, taller than wide.
    picture = np.zeros((1, 20, 40))
    picture[0, 5:9, 30:33] = 1.0
    fit = fit_prf(picture, extent_deg=(20.0, 10.0))
    np.testing.assert_allclose([fit.x_deg[0], fit.y_deg[0]], [5.75, 1.5], atol=0.02)
    np.testing.assert_allclose(fit.angle_deg[0], np.degrees(np.arctan2(1.5, 5.75)), atol=0.3)
    x_deg, y_deg = pixel_centres(20, 40, (20.0, 10.0))
    assert (x_deg[0], x_deg[-1]) == (-9.75, 9.75)
    assert (y_deg[0], y_deg[-1]) == (4.75, -4.75)


def test_rectangular_pictures_with_oblong_pixels(rng):
    x, y = rng.uniform(-8, 8, 40), rng.uniform(-4, 4, 40)
    size = rng.uniform(0.5, 2, 40)
    maps = gaussians(x, y, size, shape=(25, 80), extent=(18.0, 10.0))
    fit = fit_prf(maps, extent_deg=(18.0, 10.0))
    np.testing.assert_allclose(fit.x_deg, x, atol=1e-3)
    np.testing.assert_allclose(fit.y_deg, y, atol=1e-3)
    np.testing.assert_allclose(fit.size_deg, size, atol=1e-3)


def test_noisy_maps_agree_with_scipy(rng):
    x, y = rng.uniform(-3.5, 3.5, (2, 30))
    size = rng.uniform(0.5, 1.5, 30)
    maps = gaussians(x, y, size, amplitude=2.0, offset=0.3, shape=(24, 24))
    maps += 0.5 * rng.standard_normal(maps.shape)
    fit = fit_prf(maps, extent_deg=EXTENT)
    columns, rows = np.meshgrid(*pixel_centres(24, 24, EXTENT))

    def model(_, amplitude, x0, y0, s, offset):
        squared = (columns - x0) ** 2 + (rows - y0) ** 2
        return (amplitude * np.exp(-squared / (2 * s**2)) + offset).ravel()

    for i, picture in enumerate(maps):
        start = [2.0, x[i], y[i], size[i], 0.3]
        theirs, _ = curve_fit(model, None, picture.ravel(), p0=start, xtol=1e-12, ftol=1e-12)
        theirs[3] = abs(theirs[3])
        ours = [getattr(fit, n)[i] for n in ("amplitude", "x_deg", "y_deg", "size_deg", "offset")]
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        residual = picture.ravel() - model(None, *theirs)
        np.testing.assert_allclose(fit.r2[i], 1 - residual.var() / picture.var(), atol=1e-7)


def test_derivatives_match_finite_differences(rng):
    maps = rng.standard_normal((5, 12, 17))
    maps -= maps.mean((1, 2), keepdims=True)
    maps = torch.from_numpy(maps / np.linalg.norm(maps, axis=(1, 2), keepdims=True))
    axes = pixel_centres(12, 17, (8.0, 6.0))
    field = Field.make(*axes, [-9.0] * 3, [9.0] * 3, "cpu")
    parameters = torch.from_numpy(rng.uniform(-1, 1, (5, 3)))
    scale = torch.cat((parameters[:, 2:].exp().expand(-1, 2), torch.ones(5, 1)), dim=1)

    def half_error(shift):
        return 0.5 * (1 - evaluate(maps, field, parameters + shift * scale).correlation ** 2)

    fit = evaluate(maps, field, parameters)
    units = 1e-5 * torch.eye(3, dtype=torch.float64)
    numeric = torch.stack([(half_error(u) - half_error(-u)) / 2e-5 for u in units], dim=1)
    torch.testing.assert_close(-fit.downhill, numeric, rtol=1e-6, atol=1e-9)


def test_hessian_is_exact_where_the_search_ends(rng):
    maps = gaussians([0.4], [-0.7], [1.1], shape=(16, 16))
    maps += 0.3 * rng.standard_normal(maps.shape)
    found = fit_prf(maps, extent_deg=EXTENT)
    maps = maps - maps.mean()
    maps = torch.from_numpy(maps / np.linalg.norm(maps))
    field = Field.make(*pixel_centres(16, 16, EXTENT), [-9.0] * 3, [9.0] * 3, "cpu")
    best = torch.tensor([[found.x_deg[0], found.y_deg[0], np.log(found.size_deg[0])]])
    fit = evaluate(maps, field, best)
    size = found.size_deg[0]
    per_size, step = torch.tensor([size, size, 1.0]), 1e-5

    def slope(shift):
        there = best + shift * per_size
        # In units of the size at the minimum, not of the size there.
        units = torch.tensor([size, size, 1.0]) / torch.stack(
            [there[0, 2].exp(), there[0, 2].exp(), torch.tensor(1.0)]
        )
        return -evaluate(maps, field, there).downhill[0] * units

    shifts = step * torch.eye(3, dtype=torch.float64)
    numeric = torch.stack([(slope(s) - slope(-s)) / (2 * step) for s in shifts], dim=1)
    torch.testing.assert_close((fit.normal + fit.curvature)[0], numeric, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_a_fit_depends_on_its_map_alone(fields, rng, noise):
    maps = gaussians(*fields).astype(np.float32)
    maps += noise * rng.standard_normal(maps.shape).astype(np.float32)
    together = fit_prf(maps, extent_deg=EXTENT)
    tiny = fit_prf(1e-30 * maps.astype(float), extent_deg=EXTENT)
    # Fields outside the picture can leave a valley without a minimum: those say so.
    settled = together.status == "ok"
    assert settled.mean() > 0.8
    for other in (
        fit_prf(maps, extent_deg=EXTENT, batch_size=7),
        fit_prf(maps[::-1], extent_deg=EXTENT)[::-1],
        fit_prf(torch.from_numpy(maps), extent_deg=EXTENT, batch_size=1000),
        tiny,
    ):
        np.testing.assert_array_equal(other.status[settled], "ok")
        for name in ("x_deg", "y_deg", "size_deg", "r2"):
            ours, theirs = getattr(together, name), getattr(other, name)
            np.testing.assert_allclose(theirs[settled], ours[settled], atol=2e-3)
    np.testing.assert_allclose(
        1e30 * tiny.amplitude[settled], together.amplitude[settled], rtol=1e-2
    )


def test_the_start_is_as_good_as_the_truth(rng):
    # The highest pixel is nearly always noise; the fields are far wider than a pixel.
    x, y = rng.uniform(-3.5, 3.5, (2, 300))
    maps = gaussians(x, y, np.full(300, 0.9)) + 0.8 * rng.standard_normal((300, 32, 32))
    fit = fit_prf(maps, extent_deg=EXTENT)
    assert (fit.status == "ok").mean() > 0.98
    assert np.median(np.hypot(fit.x_deg - x, fit.y_deg - y)) < 0.25
    unit = maps - maps.mean((1, 2), keepdims=True)
    unit = torch.from_numpy(unit / np.linalg.norm(unit, axis=(1, 2), keepdims=True))
    limits = [6.3, 6.3, np.log(8.4)]
    field = Field.make(
        *pixel_centres(32, 32, EXTENT), [-6.3, -6.3, np.log(8.4 / 64)], limits, "cpu"
    )
    truth = torch.from_numpy(np.stack([x, y, np.full(300, np.log(0.9))], axis=1))
    from_truth, _ = search(unit, field, truth, 100)
    assert (fit.r2 >= from_truth.correlation.numpy() ** 2 - 1e-6).mean() > 0.98


def test_what_is_no_field_says_so():
    good = gaussians([1.0], [1.0], [1.0])[0]
    with_nan, with_inf = good.copy(), good.copy()
    with_nan[3, 4], with_inf[5, 6] = np.nan, np.inf
    maps = np.stack(
        [
            good,
            np.zeros_like(good),
            np.full_like(good, 0.1),
            -np.full_like(good, 7),
            with_nan,
            with_inf,
        ]
    )
    for dtype in (np.float32, np.float64):
        fit = fit_prf(maps.astype(dtype), extent_deg=EXTENT)
        assert fit.status.tolist() == ["ok", "flat", "flat", "flat", "not_finite", "not_finite"]
        for name in ("x_deg", "y_deg", "size_deg", "amplitude", "offset", "r2"):
            np.testing.assert_array_equal(np.isnan(getattr(fit, name)), [False] + [True] * 5)
        np.testing.assert_allclose(fit.x_deg[0], 1.0, atol=1e-3)


def test_negative_values_are_no_obstacle_but_negative_lobes_are_not_fields():
    below_zero = gaussians([1.0], [-1.0], [0.8], offset=-5.0)
    trough = -gaussians([1.0], [-1.0], [0.8])
    fit = fit_prf(np.concatenate([below_zero, trough]), extent_deg=EXTENT)
    assert fit.status[0] == "ok"
    np.testing.assert_allclose(fit.offset[0], -5.0, atol=1e-3)
    assert fit.status[1] != "ok"
    assert fit.r2[1] < 0.2


def test_ends_at_a_bound_are_reported():
    maps = gaussians([6.9, 0.0, 1.0], [0.0, 0.0, 1.0], [2.0, 6.0, 1.0])
    fit = fit_prf(maps, extent_deg=EXTENT, margin_deg=1.0, size_limits_deg=(0.3, 3.0))
    assert fit.status.tolist() == ["at_bound", "at_bound", "ok"]
    np.testing.assert_allclose(fit.x_deg[0], 5.2, atol=1e-9)
    np.testing.assert_allclose(fit.size_deg[1], 3.0, atol=1e-9)


def test_a_bound_does_not_spoil_the_other_parameters(rng):
    maps = gaussians([5.5], [1.3], [1.5], amplitude=2.0)
    fit = fit_prf(maps, extent_deg=EXTENT, margin_deg=0.5)
    # The same problem with x fixed at the bound, by brute force.
    y, size = np.meshgrid(np.linspace(1, 1.6, 121), np.linspace(0.6, 1.6, 201), indexing="ij")
    trials = gaussians(np.full(y.size, 4.7), y.ravel(), size.ravel()).reshape(y.size, -1)
    trials -= trials.mean(1, keepdims=True)
    centred = maps.ravel() - maps.mean()
    best = np.argmax(trials @ centred / np.linalg.norm(trials, axis=1))
    assert fit.status[0] == "at_bound"
    np.testing.assert_allclose(fit.y_deg[0], y.ravel()[best], atol=0.01)
    np.testing.assert_allclose(fit.size_deg[0], size.ravel()[best], atol=0.01)


def test_too_few_iterations_are_reported(fields):
    fit = fit_prf(gaussians(*fields), extent_deg=EXTENT, max_iterations=1)
    assert (fit.status == "not_converged").mean() > 0.9
    assert np.isfinite(fit.x_deg).all()


def test_memory_maps_and_file_byte_order(tmp_path, fields):
    maps = gaussians(*fields).astype(">f4")
    np.save(tmp_path / "maps.npy", maps)
    from_disk = fit_prf(np.load(tmp_path / "maps.npy", mmap_mode="r"), extent_deg=EXTENT)
    np.testing.assert_array_equal(from_disk.x_deg, fit_prf(maps, extent_deg=EXTENT).x_deg)


def test_result_as_table_and_file(tmp_path, fields):
    maps = gaussians(*fields)
    maps[3] = np.nan
    fit = fit_prf(maps, extent_deg=(EXTENT, EXTENT))
    table = fit.to_frame()
    assert " ".join(table) == "x_deg y_deg eccentricity_deg angle_deg size_deg r2 status"
    np.testing.assert_allclose(
        table["eccentricity_deg"][4], np.hypot(fields[0][4], fields[1][4]), atol=1e-3
    )
    for result in (fit, fit.calibrated(1.2, 0.1)):
        result.save(tmp_path / "prf.npz")
        with np.load(tmp_path / "prf.npz", allow_pickle=False) as file:
            assert all(file[name].dtype != object for name in file.files)
        again = PRFResult.load(tmp_path / "prf.npz")
        for name in ("x_deg", "y_deg", "size_deg", "amplitude", "offset", "r2", "status"):
            np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
        assert (again.extent_deg, again.calibration) == (result.extent_deg, result.calibration)
    np.savez(tmp_path / "other.npz", x_deg=np.zeros(3))
    with pytest.raises(InputError, match=r"written by PRFResult\.save; got one without amplitude"):
        PRFResult.load(tmp_path / "other.npz")


@pytest.mark.parametrize("width", [0.0, 0.4])
def test_errors_are_those_of_repeated_fits(rng, width):
    x_deg, _ = pixel_centres(24, 24, EXTENT)
    root = np.eye(24)
    if width:
        distance = x_deg - x_deg[:, None]
        values, vectors = np.linalg.eigh(np.exp(-0.5 * (distance / width) ** 2))
        root = vectors * np.sqrt(np.maximum(values, 0))
    # Errors differ from pixel to pixel.
    spread = 0.02 + 0.08 * rng.uniform(size=(24, 24))
    for x, y, size in ((0.7, -1.2, 0.9), (3.6, 1.0, 1.4)):
        noise = spread * (root @ rng.standard_normal((600, 24, 24)) @ root.T)
        maps = gaussians([x], [y], [size], shape=(24, 24)) + noise
        errors = np.broadcast_to(spread, maps.shape)
        fit = fit_prf(maps, extent_deg=EXTENT, standard_errors=errors, error_width_deg=width)
        for name, values in (
            ("x_error_deg", fit.x_deg),
            ("y_error_deg", fit.y_deg),
            ("size_error_deg", fit.size_deg),
        ):
            np.testing.assert_allclose(np.median(getattr(fit, name)), values.std(), rtol=0.15)


def test_errors_do_not_change_the_fit_and_scale_with_the_maps(fields, rng):
    maps = gaussians(*fields) + 0.2 * rng.standard_normal((300, 32, 32))
    errors = np.full_like(maps, 0.2)
    alone = fit_prf(maps, extent_deg=EXTENT)
    fit = fit_prf(maps, extent_deg=EXTENT, standard_errors=errors)
    np.testing.assert_array_equal(fit.x_deg, alone.x_deg)
    assert not alone.has_errors
    ok = fit.status == "ok"
    assert ok.mean() > 0.8
    wider = fit_prf(maps, extent_deg=EXTENT, standard_errors=errors, error_width_deg=EXTENT / 32)
    tiny = fit_prf(
        torch.from_numpy(1e-12 * maps),
        extent_deg=EXTENT,
        standard_errors=torch.from_numpy(1e-12 * errors),
        batch_size=7,
    )
    for name in ("x_error_deg", "y_error_deg", "size_error_deg"):
        ours = getattr(fit, name)
        np.testing.assert_array_equal(np.isfinite(ours), ok)
        # One pixel is the default width.
        np.testing.assert_array_equal(getattr(wider, name), ours)
        np.testing.assert_allclose(getattr(tiny, name)[ok], ours[ok], rtol=0.02)
        assert (ours[ok] > 0).all()


def test_errors_travel_with_the_result(tmp_path, fields, rng):
    maps = gaussians(*fields)
    maps[3] = np.nan
    maps[4] = 0
    fit = fit_prf(maps, extent_deg=EXTENT, standard_errors=np.full_like(maps, 0.1))
    some = fit[[4, 3, 2]]
    np.testing.assert_array_equal(some.x_error_deg, fit.x_error_deg[[4, 3, 2]])
    assert np.isnan(some.size_error_deg).tolist() == [True, True, False]
    table = fit.to_frame()
    assert " ".join(table.columns[7:]) == "x_low x_high y_low y_high size_low size_high"
    assert table.iloc[3:5, 7:].isna().all(axis=None)
    compressed = fit.with_exponent(np.full(len(fit), 0.25))
    np.testing.assert_array_equal(compressed.size_deg, 2 * fit.size_deg)
    np.testing.assert_array_equal(compressed.size_error_deg, 2 * fit.size_error_deg)
    np.testing.assert_array_equal(compressed.x_error_deg, fit.x_error_deg)
    calibrated = fit.calibrated(2.0)
    np.testing.assert_array_equal(calibrated.size_error_deg, 2 * fit.size_error_deg)
    np.testing.assert_array_equal(calibrated.x_error_deg, fit.x_error_deg)
    calibrated.save(tmp_path / "prf.npz")
    again = PRFResult.load(tmp_path / "prf.npz")
    for name in ("x_error_deg", "y_error_deg", "size_error_deg"):
        np.testing.assert_array_equal(getattr(again, name), getattr(calibrated, name))


@pytest.mark.parametrize(
    ("coefficients", "expected"),
    [((np.nan, np.nan), None), ((1.5, -0.1), {"slope": 1.5, "intercept": -0.1})],
)
def test_files_from_before_there_were_errors_load(tmp_path, fields, coefficients, expected):
    fit = fit_prf(gaussians(*fields), extent_deg=EXTENT)
    names = ("x_deg", "y_deg", "size_deg", "amplitude", "offset", "r2", "status")
    arrays = {name: getattr(fit, name) for name in names}
    np.savez(tmp_path / "old.npz", **arrays, extent_deg=(8.4, 8.4), calibration=coefficients)
    old = PRFResult.load(tmp_path / "old.npz")
    assert old.calibration == expected
    assert not old.has_errors
    np.testing.assert_array_equal(old.x_deg, fit.x_deg)


def test_calibration_is_linear_recorded_and_done_once(fields):
    fit = fit_prf(gaussians(*fields), extent_deg=EXTENT)
    calibrated = fit.calibrated(1.5, -0.5)
    expected = 1.5 * fit.size_deg - 0.5
    np.testing.assert_allclose(calibrated.size_deg, np.where(expected > 0, expected, np.nan))
    np.testing.assert_array_equal(calibrated.x_deg, fit.x_deg)
    assert fit.calibration is None
    assert calibrated.calibration == {"slope": 1.5, "intercept": -0.5}
    with pytest.raises(InputError, match="sizes calibrated with"):
        calibrated.calibrated(1.0)
    with pytest.raises(InputError, match="a positive slope and a finite intercept"):
        fit.calibrated(0.0)


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (np.ones((4, 4)), {}, r"n_rows, n_columns\).*got shape \(4, 4\).*map\[None\]"),
        (np.ones((0, 8, 8)), {}, r"got shape \(0, 8, 8\)"),
        (np.ones((5, 8, 2)), {}, "at least 3 x 3 pixels"),
        (np.ones((5, 8, 8), dtype=complex), {}, "real numbers; got values of type complex128"),
        (torch.ones(5, 8, 8, dtype=torch.complex64), {}, "real numbers"),
        (np.ones((5, 8, 8)), {"extent_deg": 0}, r"extent_deg.*\(width, height\); got 0"),
        (np.ones((5, 8, 8)), {"extent_deg": (8, 6, 4)}, "extent_deg"),
        (np.ones((5, 8, 8)), {"extent_deg": (8, np.nan)}, "extent_deg"),
        (np.ones((5, 8, 8)), {"extent_deg": "wide"}, "extent_deg.*got 'wide'"),
        (np.ones((5, 8, 8)), {"margin_deg": -1}, "margin_deg: expected zero or a positive"),
        (np.ones((5, 8, 8)), {"size_limits_deg": (2, 1)}, "the smaller one first"),
        (np.ones((5, 8, 8)), {"standard_errors": np.ones((5, 8, 7))}, r"shape \(5, 8, 8\); got"),
        (np.eye(8)[None], {"standard_errors": -np.ones((1, 8, 8))}, "from 0 on; got -1"),
        (np.ones((5, 8, 8)), {"error_width_deg": -1}, "error_width_deg"),
        (np.ones((5, 8, 8)), {"batch_size": 0}, "batch_size: expected 1 or more"),
        (np.ones((5, 8, 8)), {"batch_size": 1.5}, "batch_size: expected 1 or more"),
        (np.ones((5, 8, 8)), {"max_iterations": 0}, "max_iterations: expected 1 or more"),
        (np.ones((5, 8, 8)), {"margin_deg": "wide"}, "margin_deg: .* got 'wide'"),
        (np.ones((5, 8, 8)), {"size_limits_deg": 2.0}, "the smaller one first; got 2.0"),
        (np.ones((5, 8, 8)), {"size_limits_deg": (1,)}, r"the smaller one first; got \(1,\)"),
        (np.ones((5, 8, 8)), {"device": "nowhere"}, "device: .* that is there; got 'nowhere'"),
        (np.ones((5, 8, 8)), {"device": "meta"}, "device: .* that is there; got 'meta'"),
    ],
)
def test_bad_input_is_named(maps, options, message):
    with pytest.raises(InputError, match=message):
        fit_prf(maps, **({"extent_deg": EXTENT} | options))


@pytest.mark.gpu
def test_cuda_agrees_with_cpu(fields, rng):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    maps = gaussians(*fields) + 0.3 * rng.standard_normal((300, 32, 32))
    on_cpu, on_cuda = (fit_prf(maps, extent_deg=EXTENT, device=d) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(on_cuda.x_deg, on_cpu.x_deg, atol=1e-6)
    np.testing.assert_array_equal(on_cuda.status, on_cpu.status)
