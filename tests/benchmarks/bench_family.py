"""What the relatives of IGC get right, and what they cost beside it.

    python tests/benchmarks/bench_family.py [completeness | frequency | cost | faithful]

Without a name, all four; one to two minutes on one thread. Ratios are of calls that took turns.
"""

import argparse
import json
import statistics
import sys
import time
import warnings

import numpy as np
import torch
from captum.attr import LayerConductance
from torch import nn

from neuroigc.attribution import (
    GivenBaseline,
    blur_correlation,
    blur_integrated_gradients,
    compare_maps,
    gradient_times_input,
    integrated_gradient_correlation,
    integrated_gradients,
    layer_correlation,
    layer_integrated_gradients,
)

SIDE = 16


def make_cnn(n_outputs, activation=nn.Mish, n_latents=12, *, maxima=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE)),
        nn.Conv2d(1, 6, 5, padding=2),
        activation(),
        nn.Conv2d(6, 6, 3, stride=1 if maxima else 2, padding=1),
        activation(),
        *[nn.MaxPool2d(2)] * maxima,
        nn.Flatten(),
        nn.Linear(6 * SIDE**2 // 4, n_latents),
        activation(),
        nn.Linear(n_latents, n_outputs),
    ).eval()


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.GELU())

    def forward(self, x):
        return x + self.inner(x)


def make_residual():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 16), Residual(16), Residual(16), nn.Linear(16, 2)).eval()


def make_perceptron(n_inputs=40, width=24):
    torch.manual_seed(0)
    layers = [nn.Linear(n_inputs, width), nn.Mish(), nn.Linear(width, width), nn.Mish()]
    return nn.Sequential(*layers, nn.Linear(width, 2)).eval()


def targets_of(model, x, rng, noise=0.7):
    with torch.no_grad():
        f = model(torch.from_numpy(x)).double().numpy()
    return (f - f.mean(0)) / f.std(0) + noise * rng.standard_normal(f.shape)


def pink(n, size, rng):
    """Return images whose amplitude falls with one over the frequency, of contrast 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((n, size, size))) / frequency
    images = np.fft.irfft2(spectrum, s=(size, size))
    return (images / images.std((1, 2), keepdims=True)).astype(np.float32)


def completeness():
    rng, rows = np.random.default_rng(0), {}
    images = pink(24, SIDE, rng).astype(float)
    networks = {
        "Mish": make_cnn(2),
        "ReLU": make_cnn(2, nn.ReLU),
        "ReLU and maxima": make_cnn(2, nn.ReLU, maxima=True),
    }
    for name, network in networks.items():
        model = network.double()
        y = targets_of(model, images, rng)
        found = {}
        for n_points in (17, 100):
            single = blur_integrated_gradients(model, images[:8], n_points=n_points)
            whole = blur_correlation(model, images, y, n_points=n_points)
            found[n_points] = single.attributions, whole.attributions
            n_scales = n_points * (len(single.scales) - 1)
            rows[f"blur {name}, {n_scales} scales: single, relative to the largest change"] = float(
                np.abs(single.completeness_gap).max()
                / np.abs(single.predictions - single.baseline_predictions).max()
            )
            rows[f"blur {name}, {n_scales} scales: data set"] = float(
                np.abs(whole.completeness_gap).max()
            )
        for what, few, many in zip(("single maps", "map"), *found.values(), strict=True):
            error = np.linalg.norm(few - many) / np.linalg.norm(many)
            rows[f"blur {name}: {what} of 102 scales against 600"] = float(error)
    sums = whole.scale_attributions.sum(1) - whole.attributions
    rows["blur: maps of scales against the map"] = float(np.abs(sums).max())
    sums = whole.scale_values.sum(1) + whole.remainder - whole.correlation
    rows["blur: scales and remainder against rho"] = float(np.abs(sums).max())
    architectures = {
        "perceptron": (make_perceptron(), rng.standard_normal((24, 40))),
        "convolutions": (make_cnn(2), images[:16]),
        "residual": (make_residual(), rng.standard_normal((24, 40))),
    }
    for name, (model, x) in architectures.items():
        model = model.double()
        y, gaps = targets_of(model, x, rng), []
        regions = {"a": np.arange(10), "b": np.arange(10, x[0].size)}
        for layer, _ in model.named_children():
            for path in ("inputs", "activities"):
                found = layer_correlation(
                    model, x, y, layer=layer, path=path, n_pairs=12,
                    regions=regions if path == "inputs" else None,
                )  # fmt: skip
                gaps.append(np.abs(found.completeness_gap).max())
                if path == "inputs":
                    flat = found.region_attributions.reshape(2, 2, -1)
                    both = [
                        flat.sum(1) - found.attributions.reshape(2, -1),
                        flat.sum(2) - found.group_values,
                    ]
                    table = max(float(np.abs(part).max()) for part in both)
        rows[f"layers of the {name}: largest gap to rho"] = float(max(gaps))
        rows[f"table of the {name}: largest gap to units and regions"] = table
    model, x = make_cnn(2).double(), images[:5]
    found = layer_integrated_gradients(
        model, x, layer="4", baseline=GivenBaseline(images[9]), n_steps=40
    )
    captum = LayerConductance(model, model[4]).attribute(
        torch.from_numpy(x), torch.from_numpy(images[[9]]), target=1, n_steps=1000
    )
    difference = np.abs(captum.detach().numpy() - found.attributions[:, 1]).max()
    rows["conductance against captum's of 1,000 steps"] = float(difference)
    return rows


class Gabors(nn.Module):
    """Contrast energy of four orientations at a place and a spatial frequency."""

    def __init__(self, size, frequencies, rng):
        super().__init__()
        rows, columns = np.mgrid[:size, :size]
        filters = []
        for frequency in frequencies:
            y, x = rng.uniform(size / 4, 3 * size / 4, 2)
            window = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) * 2 * frequency**2)
            for angle in np.pi / 4 * np.arange(4):
                along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
                wave = window * np.exp(2j * np.pi * frequency * along)
                wave -= window * wave.sum() / window.sum()
                filters += [wave.real.ravel(), wave.imag.ravel()]
        self.stem = nn.Linear(size**2, len(filters), bias=False)
        filters = np.array(filters)
        filters /= np.linalg.norm(filters, axis=1, keepdims=True)
        self.stem.weight = nn.Parameter(torch.tensor(filters, dtype=torch.float32))

    def forward(self, x):
        return (self.stem(x.flatten(1)).unflatten(1, (-1, 8)).square().sum(2) + 1e-3).sqrt()


def frequency():
    rng, size, n = np.random.default_rng(0), 32, 40
    images, rows = pink(200, size, rng), {}
    octave = np.where(np.arange(n) % 2, 0.08, 0.16)
    continuum = np.exp(rng.uniform(np.log(0.05), np.log(0.25), n))
    for name, truth in (("octave", octave), ("continuum", continuum)):
        model = Gabors(size, truth, rng)
        y = targets_of(model, images, rng, noise=1.0)
        found = blur_correlation(model, images, y, pool=2)
        preferred = found.preferred_frequencies()
        if name == "octave":
            right = (preferred > np.sqrt(0.08 * 0.16)) == (truth > 0.1)
            rows["two bands an octave apart: right"] = float(right.mean())
        else:
            logs = np.log(preferred), np.log(truth)
            rows["continuum: r of log frequency"] = float(np.corrcoef(*logs)[0, 1])
            rows["continuum: found / true, median"] = float(np.exp(np.median(logs[0] - logs[1])))
        rows[f"{name}: median r of vertices"] = float(np.median(found.correlation))
    return rows


def cost(n_repeats):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    decoder, x = make_perceptron(4000, 128), rng.standard_normal((200, 4000)).astype(np.float32)
    y = targets_of(decoder, x, rng)
    encoder, images = make_cnn(100), pink(200, SIDE, rng)
    responses = targets_of(encoder, images, rng)
    areas = {str(i): np.arange(400 * i, 400 * i + 400) for i in range(10)}
    calls = {
        "decoder: IGC, 10 regions": lambda: integrated_gradient_correlation(
            decoder, x, y, groups=areas
        ),
        "decoder: units, between inputs": lambda: layer_correlation(decoder, x, y, layer="3"),
        "decoder: units x 10 regions": lambda: layer_correlation(
            decoder, x, y, layer="3", regions=areas
        ),
        "decoder: units, between activities": lambda: layer_correlation(
            decoder, x, y, layer="3", path="activities"
        ),
        "encoder: IGC": lambda: integrated_gradient_correlation(encoder, images, responses),
        "encoder: by scale and place": lambda: blur_correlation(encoder, images, responses),
    }
    seconds = {name: [] for name in calls}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in range(n_repeats):
            for name, call in calls.items():
                start = time.process_time()
                call()
                seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = {"decoder": "decoder: IGC, 10 regions", "encoder": "encoder: IGC"}
    return {
        f"{name} (times IGC)": value / medians[reference[name.split(":")[0]]]
        for name, value in medians.items()
    } | {f"{name} (processor seconds)": value for name, value in medians.items()}


def faithful():
    rng = np.random.default_rng(0)
    model, images = make_cnn(1), pink(200, SIDE, rng)
    y = targets_of(model, images, rng)
    c = (y - y.mean(0)) / len(y)
    gradient = gradient_times_input(model, images).attributions[:, 0]
    maps = {
        "IGC": integrated_gradient_correlation(model, images, y, tolerance=0.05).attributions[0],
        "scale space": blur_correlation(model, images, y).attributions[0],
        "gradient x input": np.einsum("nv,nij->ij", c, gradient),
        "mean |pixel|": np.abs(images).mean(0),
    }
    blocks = np.arange(SIDE**2).reshape(SIDE // 4, 4, SIDE // 4, 4).swapaxes(1, 2).reshape(16, 16)
    regions = {str(i): members for i, members in enumerate(blocks)}
    rows = {}
    for level, groups in (("pixels", None), ("16 regions", regions)):
        table = compare_maps(model, images, maps, targets=y[:, 0], groups=groups, n_sets=50)
        for row in table:
            told = {k: round(v, 3) for k, v in row.items() if k != "method"}
            rows[f"{level}, {row['method']}"] = told
    # The baselines of the Blur IG paper's Table 1, for single images.
    some, (dark, light) = images[:30], (images.min(), images.max())
    black, white = (np.full((SIDE, SIDE), v, np.float32) for v in (dark, light))
    banks = {
        "black": black,
        "white": white,
        "black + white": np.stack([black, white]),
        "random-4": rng.uniform(dark, light, (4, SIDE, SIDE)).astype(np.float32),
    }
    single = {
        f"IG ({name})": integrated_gradients(
            model, some, baseline=GivenBaseline(bank), n_steps=20
        ).attributions[:, 0]
        for name, bank in banks.items()
    }
    single["blur IG"] = blur_integrated_gradients(model, some).attributions[:, 0]
    for row in compare_maps(model, some, single, n_sets=50):
        told = {k: round(v, 3) for k, v in row.items() if k != "method"}
        rows[f"single images, {row['method']}"] = told
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("completeness", "frequency", "cost", "faithful")
    parser.add_argument("parts", nargs="*", choices=[*names, []], default=[])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    measured = {}
    for name in options.parts or names:
        measured[name] = cost(options.repeats) if name == "cost" else globals()[name]()
        for what, value in measured[name].items():
            told = value if isinstance(value, dict) else f"{value:.3g}"
            print(f"{what:75s} {told}", flush=True)
    print(json.dumps(measured))


if __name__ == "__main__":
    sys.exit(main())
