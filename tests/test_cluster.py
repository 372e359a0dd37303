"""docs/cluster.md, run as written: on this machine, with processes for the jobs of a cluster."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuroigc.attribution import IGCResult
from neuroigc.cli import main
from neuroigc.datasets import make_study
from neuroigc.models import NeuralDecoder

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^```bash\n(.*?)^```", TEXT, re.M | re.S)
STUDY = """
[data]
root = "{root}"
space = "fsaverage5"
subjects = ["01", "02"]
test_fraction = 0.2
truth = true

[decoding]
tolerance = 0.001
max_gradients = 5

[decoding.network]
hidden = [16, 16]
max_epochs = {max_epochs}
patience = {max_epochs}
batch_size = 32
dropout = 0.0
accumulate = 2
n_workers = 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_study(
        tmp_path_factory.mktemp("data") / "nsd", n_subjects=2, n_sessions=2,
        trials_per_session=80, n_shared_images=12, image_size=48,
    )  # fmt: skip


def write_study(folder, data, max_epochs=3):
    (folder / "STUDY.toml").write_text(STUDY.format(root=data, max_epochs=max_epochs))


@pytest.fixture
def environment(tmp_path):
    """Return an environment in which the commands are those of this interpreter."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, module in (("neuroigc", "neuroigc"), ("torchrun", "torch.distributed.run")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (commands / name).chmod(0o755)
    path = os.pathsep.join([str(commands), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(script, folder, environment, **more):
    # As large a number of threads as the script asks for would only be slow here.
    script = script.replace("export OMP_NUM_THREADS=4\n", "")
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env={**environment, **more},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(*jobs):
    for job in jobs:
        errors = job.communicate(timeout=240)[1]
        assert job.returncode == 0, errors


@pytest.mark.slow
def test_the_recipes_run(data, tmp_path, environment):
    by_torchrun, as_job, array, rest = RECIPES
    write_study(tmp_path, data)
    finish(start(by_torchrun, tmp_path, environment))
    first = NeuralDecoder.load(tmp_path / "DIR" / "models" / "decoder")
    finish(start(as_job, tmp_path, environment))
    models = tmp_path / "DIR" / "models"
    assert {path.name for path in models.glob("decoder*")} == {
        "decoder.json",
        "decoder.safetensors",
    }
    again = NeuralDecoder.load(models / "decoder")
    assert again.history_["train_loss"] == first.history_["train_loss"]
    # What one process trains: parts of batches are normalised one by one.
    assert main(["prepare", str(tmp_path / "STUDY.toml"), "--out", str(tmp_path / "one")]) == 0
    assert main(["train", str(tmp_path / "one"), "--quiet"]) == 0
    alone = NeuralDecoder.load(tmp_path / "one" / "models" / "decoder")
    scores = [min(m.history_["validation_loss"]) for m in (first, alone)]
    assert scores[0] == pytest.approx(scores[1], rel=0.2)
    jobs = [
        start(
            array, tmp_path, environment,
            SLURM_ARRAY_TASK_ID=str(number), SLURM_ARRAY_TASK_COUNT="2",
        )
        for number in (1, 2)
    ]  # fmt: skip
    finish(*jobs)
    finish(start(rest, tmp_path, environment))
    result = IGCResult.load(tmp_path / "DIR" / "attributions" / "sub-01_decoding.npz")
    assert abs(result.completeness_gap).max() < 0.1
    assert json.loads((tmp_path / "DIR" / "summary.json").read_text())["decoding"]


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_within_it(data, tmp_path, environment):
    write_study(tmp_path, data, max_epochs=40)
    study = ["STUDY.toml", "--quiet", "--out"]
    finish(start(f"neuroigc prepare {' '.join(study)} straight", tmp_path, environment))
    shutil.copytree(tmp_path / "straight", tmp_path / "broken")
    finish(start("neuroigc train straight --quiet", tmp_path, environment))
    state = tmp_path / "broken" / "models" / "decoder_training.safetensors"
    job = start("exec neuroigc train broken --quiet", tmp_path, environment)
    while not state.exists() and job.poll() is None:
        time.sleep(0.001)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert job.returncode == -signal.SIGKILL
    assert state.exists()
    finish(start("neuroigc run STUDY.toml --out broken --resume", tmp_path, environment))
    weights = [
        (tmp_path / name / "models" / "decoder.safetensors").read_bytes()
        for name in ("straight", "broken")
    ]
    assert weights[0] == weights[1]
    assert not state.exists()
