"""How long the maps of all vertices take in one pass, and of what that time consists."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from benchmark_output import print_table
from benchmark_resources import MIB, anonymous_bytes
from torch import Tensor, nn

from neuroigc.attribution import integrated_gradient_correlation
from neuroigc.attribution.latents import LatentEngine
from neuroigc.models.networks import EncoderNetwork

# 39,548 vertices of fsaverage; images, and the network that encodes them.
SIZES = {"vertices": 39_548, "latents": 128, "pixels": 64, "pool": 2, "images": 200}
SMALL = {"vertices": 40, "latents": 6, "pixels": 16, "pool": 2, "images": 24}
# The paper's setting.
N_BASELINES = N_STEPS = 32
# Of so many products, one is followed by a plain one.
EVERY = 8


def add_speed(commands: Any) -> None:
    """Add the subcommand."""
    sub = commands.add_parser("speed", help=speed.__doc__)
    sub.set_defaults(run=speed)
    sub.add_argument("--memory", type=float, default=1.5, help="budget in GiB")
    sub.add_argument("--folder", type=Path, help="for some 3 GB of maps and their sums")
    sub.add_argument("--captum-vertices", type=int, default=2)
    sub.add_argument("--captum-images", type=int, default=2)
    for name, size in SIZES.items():
        sub.add_argument(f"--{name}", type=int, help=f"{size:,} if not given")


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Time all vertices' maps in one pass, their dense product, and captum's vertex by vertex."""
    sizes = SMALL if options.small else SIZES
    sizes = {name: getattr(options, name) or size for name, size in sizes.items()}
    model, images, targets = make_problem(sizes)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        call = {"pool": sizes["pool"], "memory": options.memory, "results": Path(folder) / "maps"}
        with _watched() as peak, _timed() as parts:
            start = time.perf_counter()
            result = integrated_gradient_correlation(model, images, targets, device="cpu", **call)
            seconds = time.perf_counter() - start - parts["plain"]
    one = captum_seconds(model, images, options.captum_vertices, options.captum_images)
    scaled = one * sizes["vertices"] * sizes["images"]
    rate, plain = (parts[f"{of}_flop"] / parts[of] / 1e9 for of in ("product", "plain"))
    row = {
        **sizes,
        "seconds": seconds,
        "gradients_per_image": result.n_gradients,
        "sweeps": result.settings["n_sweeps"],
        "numerical_error": float(torch.from_numpy(result.numerical_error).median()),
        "seconds_of_gradients": parts["gradients"],
        "seconds_of_product": parts["product"],
        "product_gflop_s": rate,
        "plain_gflop_s": plain,
        "share_of_plain": rate / plain,
        "captum_seconds": scaled,
        "captum_over_neuroigc": scaled / seconds,
        "peak_mib": peak[0] / MIB,
        "budget_mib": options.memory * 1024,
    }
    print_table([{"": name.replace("_", " "), "measured": value} for name, value in row.items()])
    print(f"captum: {N_BASELINES} baselines x {N_STEPS} steps, timed on {options.captum_vertices} ")
    print(
        f"vertices and {options.captum_images} images, each vertex by a network of its own; scaled"
    )
    return {"rows": [row]}


def make_problem(sizes: dict[str, int]) -> tuple[nn.Module, Tensor, Tensor]:
    """Invent an encoder, images of 1/f spectrum and noisy responses."""
    torch.manual_seed(0)
    side = sizes["pixels"]
    model = EncoderNetwork(side, sizes["vertices"], n_latents=sizes["latents"]).eval()
    down, across = torch.fft.fftfreq(side)[:, None].abs(), torch.fft.rfftfreq(side)
    spectrum = torch.fft.rfft2(torch.randn(sizes["images"], side, side))
    images = torch.fft.irfft2(spectrum / (1 + side * (down + across)), s=(side, side))
    images /= images.std()
    with torch.no_grad():
        targets = model(images)
    targets /= targets.std(0)
    return model, images, targets.add_(torch.randn(targets.shape))


def captum_seconds(model: nn.Module, images: Tensor, n_vertices: int, n_images: int) -> float:
    """Return seconds that captum takes for one vertex and image, at the paper's setting."""
    from captum.attr import IntegratedGradients

    seconds = 0.0
    for vertex in range(n_vertices + 1):
        head = nn.Linear(model.head.in_features, 1)
        head.weight.data, head.bias.data = (
            tensor.data[vertex : vertex + 1] for tensor in (model.head.weight, model.head.bias)
        )
        explainer = IntegratedGradients(_OneVertex(model.stem, model.body, head))
        start = time.perf_counter()
        for image in images[:n_images]:
            bank = images[-N_BASELINES:]
            explainer.attribute(image.expand_as(bank), bank, target=0, n_steps=N_STEPS)
        # The first warms up.
        seconds += (time.perf_counter() - start) * (vertex > 0)
    return seconds / (n_vertices * n_images)


class _OneVertex(nn.Module):
    """An encoder of one vertex alone, which spares captum the head of all others."""

    def __init__(self, stem: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.head = stem, body, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images), None))


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    """Take the time of gradients and of the dense product, and count its operations.

    Now and then a plain product of the same shapes is timed beside it, so that both meet the same
    busy moments.
    """
    names = ("gradients", "product", "product_flop", "plain", "plain_flop", "calls")
    parts = dict.fromkeys(names, 0.0)
    differentiate, contract = LatentEngine._differentiate, LatentEngine.contract_latents

    def timed_gradients(self: LatentEngine, *arguments: Any) -> Tensor:
        start = time.perf_counter()
        gradients = differentiate(self, *arguments)
        parts["gradients"] += time.perf_counter() - start
        return gradients

    def timed_product(
        self: LatentEngine, targets: Tensor, maps: Tensor, outputs: slice, out: Any = None
    ) -> Tensor:
        start = time.perf_counter()
        summed = contract(self, targets, maps, outputs, out)
        # The probe has few columns, and is no part of the map.
        if maps.shape[-1] == self.problem.columns.n_columns:
            parts["product"] += time.perf_counter() - start
            parts["product_flop"] += 2 * summed.shape[0] * maps.numel()
            if parts["calls"] % EVERY == 0:
                one, other = torch.ones(len(summed), maps[..., 0].numel()), maps.flatten(0, 1)
                there = torch.empty_like(summed)
                start = time.perf_counter()
                torch.mm(one, other, out=there)
                parts["plain"] += time.perf_counter() - start
                parts["plain_flop"] += 2 * summed.shape[0] * maps.numel()
            parts["calls"] += 1
        return summed

    LatentEngine._differentiate, LatentEngine.contract_latents = timed_gradients, timed_product
    try:
        yield parts
    finally:
        LatentEngine._differentiate, LatentEngine.contract_latents = differentiate, contract


@contextmanager
def _watched() -> Iterator[list[int]]:
    """Watch the peak of memory above that at the start, in bytes."""
    start, peak, over = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], anonymous_bytes() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
