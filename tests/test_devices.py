"""Devices that are there, and products by the fastest kernels of single precision."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from neuroigc import _devices
from neuroigc._devices import check_device, fast_products
from neuroigc._validation import InputError

CPU = torch.device("cpu")


@pytest.fixture
def precision():
    """Leave torch's settings as they were."""
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", None, 3.5])
def test_devices_that_are_not_there_are_refused(device):
    with pytest.raises(InputError, match="device"):
        check_device(device)


@pytest.mark.parametrize("shape", [(300, 20_000, 40), (512, 512, 512), (3, 70, 9)])
def test_fast_products_keep_single_precision(shape):
    n, k, m = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((n, k)), rng.standard_normal((k, m))
    with fast_products(CPU):
        product = torch.from_numpy(a).float() @ torch.from_numpy(b).float()
    a, b = (x.astype(np.float32).astype(float) for x in (a, b))
    error = np.linalg.norm(product.numpy() - a @ b) / np.linalg.norm(a @ b)
    assert error < 2e-6


def test_kernels_that_round_are_not_taken(monkeypatch, precision):
    precision("highest")
    monkeypatch.setattr(_devices, "_medium_is_single", lambda: False)
    with fast_products(CPU):
        assert torch.get_float32_matmul_precision() == "highest"


def test_rounding_is_noticed(monkeypatch):
    # The trial itself, on a machine whose products keep three digits.
    product = torch.Tensor.__matmul__

    def rounded(a, b):
        single = a.dtype == torch.float32
        return product(a.bfloat16(), b.bfloat16()).float() if single else product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not _devices._medium_is_single.__wrapped__()


@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
def test_the_callers_setting_comes_back(chosen, precision):
    precision(chosen)
    with pytest.raises(KeyError), fast_products(CPU):
        raise KeyError
    assert torch.get_float32_matmul_precision() == chosen


def test_settings_of_one_backend_alone_are_left_alone():
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has no precision of single backends")
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        with fast_products(CPU):
            assert matmul.fp32_precision == "bf16"
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


def test_gpus_are_not_touched(precision):
    precision("highest")
    with fast_products(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "highest"


def test_backends_follow_the_common_setting_afterwards():
    if not hasattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision"):
        pytest.skip("this torch has no precision of single backends")
    # In a process of its own, where nobody has set anything.
    code = """
import torch
from neuroigc._devices import fast_products
backends = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
before = [one.fp32_precision for one in backends]
with fast_products(torch.device("cpu")):
    pass
assert [one.fp32_precision for one in backends] == before, backends
assert torch.get_float32_matmul_precision() == "highest"
torch.backends.fp32_precision = "tf32"
assert torch.backends.mkldnn.matmul.fp32_precision == "tf32"
with fast_products(torch.device("cpu")):
    pass
assert torch.backends.mkldnn.matmul.fp32_precision == "tf32"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
