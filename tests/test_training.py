"""Training: every sample once, reproducible, stopped at the best, and nothing touched outside."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroigc._validation import InputError
from neuroigc.models import DecoderNetwork
from neuroigc.models.feeding import Samples
from neuroigc.models.training import learning_rate_cycle, seeded, train

SMALL = {"max_epochs": 3, "batch_size": 16, "device": "cpu"}


@pytest.fixture
def samples(rng):
    inputs = rng.normal(size=(100, 6)).astype(np.float32)
    return Samples(inputs, inputs[:, :2] + 0.1 * rng.normal(size=(100, 2)).astype(np.float32))


def make_network(**options):
    with seeded(0, "cpu"):
        return DecoderNetwork(6, 2, hidden=(8, 8), **options)


def test_same_seed_same_weights_and_another_seed_others(samples):
    def weights(seed):
        network = make_network(dropout=0.3)
        train(network, samples, seed=seed, **SMALL)
        return nn.utils.parameters_to_vector(network.parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_global_random_state_is_left_alone(samples):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    train(make_network(dropout=0.3), samples, seed=5, **SMALL)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_result_does_not_depend_on_the_global_random_state(samples):
    networks = []
    for state in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            networks.append(make_network(dropout=0.3))
            train(networks[-1], samples, seed=0, **SMALL)
    first, second = (nn.utils.parameters_to_vector(n.parameters()) for n in networks)
    assert torch.equal(first, second)


def test_best_weights_come_back_and_patience_ends(samples, rng):
    """On noise the validation loss soon rises: the network returned must be the best one."""
    noise = Samples(samples.inputs, rng.normal(size=(100, 2)).astype(np.float32))
    fit, validation = noise.split(0.3, rng)
    network = make_network()
    history = train(
        network, fit, validation=validation, max_epochs=200, patience=5, batch_size=16,
        learning_rate=1e-2, device="cpu",
    )  # fmt: skip
    losses = history["validation_loss"]
    assert len(losses) == int(np.argmin(losses)) + 6 < 200
    with torch.no_grad():
        inputs, targets, *_ = next(validation.batches(1000, "cpu"))
        loss = nn.functional.mse_loss(network(inputs), targets).item()
    assert loss == pytest.approx(min(losses), rel=1e-5)
    assert not network.training


def test_without_validation_every_sample_trains_for_all_epochs(samples):
    history = train(make_network(), samples, validation_fraction=0, **SMALL)
    assert history["validation_loss"] == [None] * 3
    assert {len(values) for values in history.values()} == {3}


class Plain(nn.Module):
    """A network without batch normalisation."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Mish(), nn.Linear(8, 2))

    def forward(self, inputs, _):
        return self.layers(inputs)


def test_parts_of_a_batch_take_the_step_of_the_whole(samples, rng):
    weighted = Samples(
        samples.inputs, samples.targets, weights=rng.random(100).astype(np.float32) * 2
    )

    def trained(make, accumulate):
        with seeded(0, "cpu"):
            network = make()
        options = {**SMALL, "batch_size": 31, "learning_rate": 1e-2}
        history = train(network, weighted, accumulate=accumulate, **options)
        return nn.utils.parameters_to_vector(network.parameters()), history

    (whole, history), (parts, same) = trained(Plain, 1), trained(Plain, 4)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(same["train_loss"], history["train_loss"], rtol=1e-5)
    # Batch normalisation goes by each part.
    (whole, _), (parts, _) = trained(make_network, 1), trained(make_network, 4)
    assert (parts - whole).abs().max() > 1e-3


def test_weight_decay_spares_biases_and_embeddings(samples):
    """Without a gradient, only weight decay moves a parameter."""
    c = np.zeros(100, dtype=np.int64)
    network = make_network(n_conditions=2)
    embedding = network.body.condition_term.embedding.weight
    before = embedding.detach().clone()
    samples = Samples(samples.inputs, samples.targets, c)
    train(network, samples, weight_decay=10.0, **SMALL)
    assert torch.equal(embedding[1], before[1])  # condition 1 was never met
    assert not torch.equal(embedding[0], before[0])


def test_bad_requests(samples):
    network = make_network()
    few = Samples(samples.inputs[:9], samples.targets[:9])
    with pytest.raises(InputError, match=r"inputs: expected at least 10 samples; got 8"):
        train(network, few)
    with pytest.raises(InputError, match=r"loss: expected one of 'squared_error', 'cross_entropy'"):
        train(network, samples, loss="hinge")
    with pytest.raises(
        InputError, match=r"same number of samples; got inputs has 100, targets has 9"
    ):
        Samples(samples.inputs, few.targets)
    with pytest.raises(InputError, match=r"batch_size: expected a whole number, 1 or more; got 0"):
        train(network, samples, batch_size=0)
    with pytest.raises(InputError, match=r"validation_fraction: expected .* 0 to 1, .*; got 1.5"):
        train(network, samples, validation_fraction=1.5)
    with pytest.raises(InputError, match=r"validation: expected at least 1 samples; got 0"):
        train(network, samples, validation_fraction=0.001)
    with pytest.raises(
        InputError, match=r"device: expected 'auto', 'cpu' or a GPU .* got 'cuda:99'"
    ):
        train(network, samples, device="cuda:99")
    with pytest.raises(InputError, match=r"learning_rate: expected one at which .* stays finite"):
        train(network, samples, learning_rate=1e30, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(max_epochs="2"), r"max_epochs: expected a whole number, 1 or more; got '2'"),
        (dict(max_epochs=2.0), r"max_epochs: .*got 2.0"),
        (dict(max_epochs=True), r"max_epochs: .*got True"),
        (dict(batch_size=None), r"batch_size: .*got None"),
        (dict(accumulate=0), r"accumulate: expected a whole number, 1 or more; got 0"),
        (
            dict(accumulate=8),
            r"batch_size: expected two samples for each of 8 parts",
        ),
        (dict(n_workers=-1), r"n_workers: expected a whole number, 0 or more; got -1"),
        (dict(patience=-1), r"patience: expected a whole number, 0 or more; got -1"),
        (dict(patience=1.5), r"patience: .*got 1.5"),
        (dict(seed=-1), r"seed: expected a whole number, 0 or more; got -1"),
        (dict(seed="a"), r"seed: .*got 'a'"),
        (dict(learning_rate="1e-3"), r"learning_rate: expected a number above 0; got '1e-3'"),
        (dict(learning_rate=0), r"learning_rate: .*got 0"),
        (dict(weight_decay=-1e-2), r"weight_decay: expected a number, 0 or more; got -0.01"),
        (dict(weight_decay=None), r"weight_decay: .*got None"),
        (dict(validation_fraction="0.1"), r"validation_fraction: .*got '0.1'"),
        (dict(progress="yes"), r"progress: expected True or False; got 'yes'"),
        (dict(progress=1), r"progress: .*got 1"),
        (dict(device="meta"), r"device: expected 'auto', .*; got 'meta'"),
        (dict(device=None), r"device: expected 'auto', .*; got None"),
        (dict(device=[]), r"device: expected 'auto', .*; got \[\]"),
    ],
)
def test_options_of_the_wrong_kind(samples, options, message):
    with pytest.raises(InputError, match=message):
        train(make_network(), samples, **{**SMALL, **options})


def test_numbers_of_numpy_are_numbers(samples):
    options = dict(max_epochs=np.int64(1), seed=np.uint8(3), learning_rate=np.float32(1e-3))
    assert len(train(make_network(), samples, **{**SMALL, **options})["seconds"]) == 1


def test_learning_rate_rises_and_falls():
    rates = [learning_rate_cycle(done) for done in np.linspace(0, 1, 101)]
    assert (rates[0], rates[20], rates[100]) == (0, 1, 0)
    assert (np.diff(rates[:21]) > 0).all()
    assert (np.diff(rates[20:]) < 0).all()


@pytest.mark.gpu
def test_trains_on_a_gpu_and_leaves_its_random_state(samples):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    state = torch.cuda.get_rng_state()
    network = make_network(dropout=0.2)
    history = train(network, samples, max_epochs=30, batch_size=16, device="cuda")
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert next(network.parameters()).dtype == torch.float32
