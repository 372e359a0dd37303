"""Attribution: what cannot be used is told in one sentence, before any work is done."""

import numpy as np
import pytest
import torch
from attribution_models import Conditioned
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    IGCResult,
    IGResult,
    ZeroBaseline,
    integrated_gradient_correlation,
    integrated_gradients,
)

LINEAR = nn.Linear(6, 2).double()

BAD = {
    "meta device": (dict(device="meta"), r'device: expected "auto" or .*; got \'meta\''),
    "no device": (dict(device=None), r'device: expected "auto" or .*; got None'),
    "absent GPU": (dict(device="cuda:99"), r'device: expected "auto" or .*; got \'cuda:99\''),
    "device number": (dict(device=1.5), r'device: expected "auto" or .*; got 1.5'),
    "half a gradient": (dict(max_gradients=5.5), r"max_gradients: .* whole number; got 5.5"),
    "gradients as text": (dict(max_gradients="9"), r"max_gradients: .* whole number; got '9'"),
    "half a batch": (dict(batch_size=1.5), r"batch_size: .* whole number; got 1.5"),
    "a batch of True": (dict(batch_size=True), r"batch_size: .* whole number; got True"),
    "seed of True": (dict(seed=True), r"seed: expected 0 or more, a whole number; got True"),
    "tolerance as text": (dict(tolerance="5%"), r"tolerance: expected a number above 0"),
    "width": (
        dict(x=np.ones((30, 5))),
        r"inputs: expected samples .*shape \(4, 5\), .*RuntimeError: mat1 and mat2 .*4x5 and 6x2",
    ),
    "flat": (dict(x=np.ones(30)), r"inputs: expected samples .*shape \(4,\), at which"),
    "single number": (dict(x=5.0), r"inputs: expected shape .* got shape \(\)"),
    "no components": (dict(x=np.ones((30, 0))), r"inputs: expected shape .* got shape \(30, 0\)"),
    "text": (dict(x=np.full((30, 6), "a")), r"inputs: expected real numbers; got dtype <U1"),
    "one text": (dict(x="images.npy"), r"inputs: expected real numbers; got dtype <U10"),
    "complex": (dict(x=np.ones((30, 6), complex)), r"inputs: expected real numbers; .*complex128"),
    "complex tensor": (
        dict(x=torch.ones(30, 6, dtype=torch.complex64)),
        r"inputs: expected real numbers; got dtype torch.complex64",
    ),
    "ragged": (dict(x=[[1.0], [1.0, 2.0]]), r"inputs: expected an array of numbers; got .*shape"),
    "unasked conditions": (
        dict(conditions=[0, 1] * 15),
        r"conditions: expected what .*forward\(\) takes .*; got some .*too many positional",
    ),
    "missing conditions": (
        dict(model=Conditioned(6).double()),
        r"conditions: expected what .*; got none \(missing a required argument: 'conditions'\)",
    ),
    "unknown conditions": (
        dict(model=Conditioned(6).double(), conditions=[0, 7] * 15),
        r"inputs and conditions: expected samples .*conditions of shape \(4,\), .*IndexError",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(rng, name):
    options, message = BAD[name]
    options = {"model": LINEAR, "x": rng.standard_normal((30, 6)), **options}
    model, x = options.pop("model"), options.pop("x")
    with pytest.raises(InputError, match=message):
        integrated_gradient_correlation(model, x, rng.standard_normal((30, 2)), **options)


def test_complex_targets(rng):
    x = rng.standard_normal((30, 6))
    with pytest.raises(InputError, match=r"targets: expected numbers that are real; got complex"):
        integrated_gradient_correlation(LINEAR, x, x[:, :2] * 1j)


@pytest.mark.parametrize("name", ["meta device", "no device", "width", "text", "complex"])
def test_single_samples_are_checked_alike(rng, name):
    options, message = BAD[name]
    options = {"x": rng.standard_normal((30, 6)), **options}
    with pytest.raises(InputError, match=message):
        integrated_gradients(LINEAR, options.pop("x"), baseline=ZeroBaseline(), **options)


def test_an_input_error_of_the_model_comes_through(rng):
    class Picky(nn.Module):
        def forward(self, x):  # noqa: ARG002
            raise InputError("x", expected="another", got="this")

    with pytest.raises(InputError, match=r"^x: expected another; got this\.$"):
        integrated_gradient_correlation(Picky(), rng.standard_normal((30, 6)), np.arange(30.0))


def test_a_model_on_meta_has_no_numbers(rng):
    with torch.device("meta"):
        model = nn.Linear(6, 1)
    if torch.cuda.is_available():
        pytest.skip("'auto' is CUDA here")
    with pytest.raises(InputError, match=r"device: expected .*; got device\(type='meta'\)"):
        integrated_gradient_correlation(model, rng.standard_normal((30, 6)), np.arange(30.0))


@pytest.fixture
def results(rng):
    """Return a result of either kind."""
    x = rng.standard_normal((30, 6))
    y = x[:, :2] + rng.standard_normal((30, 2))
    return {
        IGCResult: integrated_gradient_correlation(LINEAR, x, y),
        IGResult: integrated_gradients(LINEAR, x, baseline=ZeroBaseline()),
    }


@pytest.mark.parametrize("kind", [IGCResult, IGResult])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("npy", r"a single .npy array"),
        ("truncated", r"zip"),
        ("empty", r"zip"),
        ("text", r"zip"),
        ("folder", r"No such file"),
        ("without a field", r"lacks attributions, completeness_gap"),
        ("settings", r"line 1"),
    ],
)
def test_a_file_that_is_no_whole_result(results, tmp_path, kind, damage, message):
    path = tmp_path / "map.npz"
    results[kind].save(path)
    with np.load(path) as file:
        fields = dict(file)
    match damage:
        case "npy":
            path = tmp_path / "map.npy"
            np.save(path, np.ones(3))
        case "truncated":
            path.write_bytes(path.read_bytes()[:-40])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("no result")
        case "folder":
            path = tmp_path
        case "without a field":
            del fields["attributions"], fields["completeness_gap"]
            np.savez(path, **fields)
        case "settings":
            np.savez(path, **{**fields, "settings": np.array("no JSON")})
    with pytest.raises(
        InputError, match=rf"path: expected a saved {kind.__name__}; got .*{message}"
    ):
        kind.load(path)


def test_folders_are_made(results, tmp_path, rng):
    results[IGCResult].save(tmp_path / "a" / "b" / "map.npz")
    assert IGCResult.load(tmp_path / "a" / "b" / "map.npz").n_samples == 30
    x = rng.standard_normal((30, 6))
    path = tmp_path / "c" / "sums.npz"
    integrated_gradient_correlation(LINEAR, x, x[:, :2], checkpoint=path)
    assert path.parent.is_dir()


def test_folders_that_cannot_be_made(results, tmp_path, rng):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "map.npz"
    with pytest.raises(InputError, match=r"path: expected a folder that can be written to"):
        results[IGResult].save(path)
    with pytest.raises(InputError, match=r"checkpoint: expected a folder that can be written to"):
        integrated_gradient_correlation(
            LINEAR, rng.standard_normal((30, 6)), np.ones((30, 2)), checkpoint=path
        )
