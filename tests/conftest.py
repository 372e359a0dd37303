"""What every test may count on: offline, seeded, away from the user's home."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path_factory):
    """Give each test a home of its own and no way out to the network."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))

    def refuse(self, address):
        raise OSError(f"tests are offline: connection to {address} refused")

    original = socket.socket.connect

    def connect(self, address):
        local = not isinstance(address, tuple) or address[0] in {"127.0.0.1", "::1", "localhost"}
        return original(self, address) if local else refuse(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def rng():
    """Return a generator with a fixed seed."""
    return np.random.default_rng(20240413)


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of small real data sets, or skip and say so."""
    here = Path(__file__).resolve()
    candidates = [Path(os.environ["NEUROIGC_DATA"])] if "NEUROIGC_DATA" in os.environ else []
    candidates += [parent / "shared" / "data" for parent in here.parents[1:3]]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    pytest.skip("no real data: set NEUROIGC_DATA to the folder data_manifests/ describes")
