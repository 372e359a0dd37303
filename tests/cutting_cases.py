"""Attributions to be cut in every way, and processes to do so; a module of its own, for these."""

import multiprocessing
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from unittest import mock

import numpy as np
import torch
from attribution_models import Conditioned, cnn, make_targets, mlp, shake

from neuroigc.attribution import (
    GivenBaseline,
    IGCResult,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    estimate,
    integrated_gradient_correlation,
)
from neuroigc.attribution.cotangents import CotangentEngine
from neuroigc.attribution.latents import LatentEngine

BOUNDS = {"float32": 1e-5, "float64": 1e-10}
# Errors are small differences of large sums, and so lose digits; influences are kept in float32.
LOOSER = {"standard_errors": 100, "group_standard_errors": 100, "numerical_error": 100}
BLOCK = 16
EXACT = ("p_values", "group_p_values", "group_p_values_fwe", "strata")
EQUAL = [3, 40]


@dataclass
class Case:
    """One attribution: of data and model, in several blocks, which are held or not."""

    few: bool
    held: bool = True
    blocks: bool = True
    conditions: bool = False
    targets: bool = True
    options: dict = field(default_factory=dict)

    def made(self, dtype):
        """Return model, inputs, targets and options."""
        rng = np.random.default_rng(5)
        n = 70
        options = dict(tolerance=1e-12, max_gradients=18, groups={"a": [0, 3, 4], "b": [1, 2]})
        if self.conditions:
            options["conditions"] = rng.permutation(n) % 3
            options["conditions"][EQUAL] = 0
            model, x = Conditioned(), rng.standard_normal((n, 5))
            model = shake(model)
        elif self.few:
            model, x = mlp(n_inputs=20, width=8), rng.standard_normal((n, 20))
        else:
            model, x = cnn(n_outputs=7, n_latents=3), 3 * rng.standard_normal((n, 1, 8, 8))
        # Equal samples must not upset the order.
        x[EQUAL] = x[EQUAL[0]]
        y = make_targets(model.double(), x, rng, options.get("conditions"))
        y[EQUAL] = y[EQUAL[0]]
        model = model.to(getattr(torch, dtype))
        given = {k: v(x) if callable(v) else v for k, v in self.options.items()}
        return model, x.astype(dtype), y if self.targets else None, {**options, **given}

    @contextmanager
    def cut(self):
        """Make blocks small, so that there are several, and several sweeps."""
        with mock.patch.multiple(
            estimate,
            LARGEST_BLOCK=BLOCK if self.blocks else estimate.LARGEST_BLOCK,
            HELD_BYTES=estimate.HELD_BYTES if self.held else 0,
        ):
            yield

    def run(self, dtype, **more):
        """Return the result."""
        model, x, y, options = self.made(dtype)
        with self.cut():
            return integrated_gradient_correlation(model, x, y, **{**options, **more})


def labels(x):
    """Return labels that are no part of what the model sees, equal samples under different ones."""
    return PairedBaseline(within=np.arange(len(x)) % 2)


CASES = {
    "few": Case(few=True, options=dict(n_permutations=19)),
    "few, let go": Case(few=True, held=False),
    "few, one block": Case(few=True, blocks=False, options=dict(n_permutations=19)),
    "many": Case(few=False, options=dict(n_permutations=19)),
    "many, let go": Case(few=False, held=False, options=dict(n_permutations=9)),
    "many, pooled": Case(few=False, blocks=False, options=dict(pool=2)),
    "conditions": Case(few=True, conditions=True, options=dict(n_permutations=9)),
    "conditions, let go": Case(few=True, held=False, conditions=True),
    "within": Case(few=True, options=dict(baseline=labels)),
    "given": Case(few=True, options=dict(baseline=lambda x: GivenBaseline(x[:3] / 2))),
    "mean": Case(few=True, held=False, options=dict(baseline=MeanBaseline(), n_permutations=9)),
    "zero": Case(few=False, options=dict(baseline=ZeroBaseline(), n_permutations=9)),
    "sampled": Case(few=True, options=dict(baseline=SampledBaseline(5))),
    "sampled, many": Case(few=False, held=False, options=dict(baseline=SampledBaseline(5))),
    "auto": Case(few=True, targets=False, options=dict(n_permutations=9)),
    "auto, many": Case(few=False, targets=False, held=False),
}


def differences(result, whole):
    """Return how far two results are apart, by field: relative to the norm, or 0 and 1."""
    apart = {"n_gradients": float(result.n_gradients != whole.n_gradients)}
    for f in fields(IGCResult):
        one, other = getattr(result, f.name), getattr(whole, f.name)
        if (one is None) != (other is None):
            apart[f.name] = 1.0
        elif isinstance(other, np.ndarray):
            if one.shape != other.shape or one.dtype != other.dtype:
                apart[f.name] = 1.0
            elif f.name in EXACT:
                apart[f.name] = float((one != other).any())
            elif f.name == "completeness_gap":
                apart[f.name] = float(np.abs(one - other).max())
            else:
                apart[f.name] = float(np.linalg.norm(one - other) / np.linalg.norm(other))
    return apart


def agree(result, whole, dtype):
    """Tell whether two results are the same but for rounding, or say where they are not."""
    bound = BOUNDS[dtype]
    too_far = {}
    for name, apart in differences(result, whole).items():
        allowed = bound * LOOSER.get(name, 1)
        if name in ("group_influences", "group_attributions"):
            # Kept in single precision.
            allowed = max(allowed, 1e-5 if dtype == "float32" else 1e-7)
        if not apart <= allowed:
            too_far[name] = apart
    assert not too_far, too_far
    return True


# Processes.


def run_processes(size, job, *arguments, seconds=120):
    """Run ``job(rank, size, *arguments)`` in fresh processes; return their exit codes."""
    context = multiprocessing.get_context("forkserver")
    # What optimizers load must be there before processes talk, see neuroigc.cli.processes.
    context.set_forkserver_preload(["torch", "torch._dynamo", "neuroigc.attribution"])
    workers = [context.Process(target=job, args=(rank, size, *arguments)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(seconds)
    late = [worker for worker in workers if worker.is_alive()]
    for worker in late:
        worker.kill()
        worker.join()
    assert not late, f"{len(late)} of {size} processes hang"
    return [worker.exitcode for worker in workers]


@contextmanager
def team_of(rank, size, meeting):
    """Be one of several processes that talk, if there are several."""
    torch.set_num_threads(1)
    if size == 1:
        yield
        return
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size
    )
    yield
    torch.distributed.destroy_process_group()


def attribute_cases(rank, size, folder, names):
    """Do attributions, and save what this process got."""
    with team_of(rank, size, folder / "meeting"):
        for name in names:
            for dtype in BOUNDS:
                CASES[name].run(dtype).save(folder / f"{name}-{dtype}-{rank}.npz")


def die():
    """End without a word, as by a kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def attribute_and_die(rank, size, folder, name, dtype, times, attempt, victim=0):
    """Go on from checkpoints, be killed after some rounds or saves, and save what came of it."""
    calls = {"advance": 0, "save": 0}
    engine = CotangentEngine if CASES[name].few else LatentEngine
    advance, save = engine.advance, estimate.save_state

    def counted(what):
        calls[what] += 1
        if rank == victim and times.get(what) == calls[what]:
            die()

    def advance_or_die(*arguments):
        counted("advance")
        advance(*arguments)

    def save_or_die(*arguments):
        counted("save")
        save(*arguments)

    engine.advance, estimate.save_state = advance_or_die, save_or_die
    if "advance" in times:
        estimate.SECONDS_BETWEEN_SAVES = -1.0
    with team_of(rank, size, folder / f"meeting{attempt}"):
        result = CASES[name].run(dtype, checkpoint=folder / "sums.npz")
        result.save(folder / f"result-{rank}.npz")


def fail_alone(rank, size, folder):
    """Have data that only the second process finds to be wrong; all must hear of it."""
    from neuroigc._validation import InputError

    model, x, y, options = CASES["few"].made("float64")
    with team_of(rank, size, folder / "meeting"):
        for what in ("nan", "seed", "samples", "checkpoint"):
            own, target, more = x.copy(), y, dict(options)
            if what == "nan":
                # Read by the second process alone.
                own[45], more["memory"] = np.nan, 20 * 40 * 8 * 32 / 2**30
            elif what == "seed":
                more["seed"] = rank
            elif what == "samples":
                own, target = own[rank:], y[rank:]
            elif what == "checkpoint":
                more["checkpoint"] = folder / "sums.npz"
                (folder / "sums-2of2.npz").write_bytes(b"no sums")
            try:
                integrated_gradient_correlation(model, own, target, **more)
            except InputError as error:
                (folder / f"{what}-{rank}").write_text(str(error))
