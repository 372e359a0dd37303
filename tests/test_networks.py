"""Networks: three parts that compose exactly, affine ends, and standardisation folded in."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroigc._validation import InputError
from neuroigc.models.networks import (
    CategoricalNetwork,
    ConditionTerm,
    DecoderNetwork,
    EncoderNetwork,
    ImageConv,
    fold_scalings,
)

NETWORKS = {
    "decoder": lambda **options: (DecoderNetwork(12, 3, hidden=(8, 7, 6), **options), (12,)),
    "encoder": lambda **options: (EncoderNetwork(20, 5, n_latents=4, **options), (20, 20)),
    "encoder, oblong colour": lambda **options: (
        EncoderNetwork((18, 23), 5, n_channels=3, n_latents=4, **options),
        (3, 18, 23),
    ),
    "classifier": lambda **options: (CategoricalNetwork((12, 12), 4, **options), (12, 12)),
    "perceptron": lambda **options: (
        CategoricalNetwork((6, 5), 4, channels=(), **options),
        (6, 5),
    ),
}


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield


@pytest.fixture(params=NETWORKS)
def build(request):
    """Return a function making one of the networks, with running statistics that matter."""

    def make(**options):
        network, shape = NETWORKS[request.param](**options)
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        return network.double().eval(), shape

    return make


def test_forward_is_head_of_body_of_stem(build):
    network, shape = build(n_conditions=3)
    x, c = torch.randn(9, *shape, dtype=torch.float64), torch.arange(9) % 3
    expected = network.head(network.body(network.stem(x), c))
    assert torch.equal(network(x, c), expected)


def test_ends_are_affine(build):
    network, shape = build()
    a, b = torch.randn(2, 4, *shape, dtype=torch.float64)
    t = 0.3
    hidden = torch.lerp(network.stem(a), network.stem(b), t)
    torch.testing.assert_close(network.stem(torch.lerp(a, b, t)), hidden, rtol=0, atol=1e-12)
    assert isinstance(network.stem, (nn.Linear, nn.Conv2d))
    assert isinstance(network.head, (nn.Linear, nn.Identity))


def test_paper_counts_of_layers():
    def count(network, kind):
        return sum(isinstance(module, kind) for module in network.modules())

    decoder, encoder = DecoderNetwork(9, 2), EncoderNetwork(32, 7)
    convolutional, perceptron = (
        CategoricalNetwork((28, 28), 10),
        CategoricalNetwork((9,), 8, channels=()),
    )
    assert [count(network, nn.Linear) for network in (decoder, encoder)] == [6, 2]
    assert [count(network, nn.Linear) for network in (convolutional, perceptron)] == [5, 5]
    assert [count(network, nn.Conv2d) for network in (decoder, encoder)] == [0, 5]
    assert [count(network, nn.Conv2d) for network in (convolutional, perceptron)] == [2, 0]
    assert count(decoder, nn.Mish) == 5
    assert count(encoder, nn.BatchNorm2d) + count(encoder, nn.BatchNorm1d) == 6


def test_condition_term_is_concatenation():
    term, linear = ConditionTerm(4, 3, 6), nn.Linear(5, 6)
    x, c = torch.randn(8, 5), torch.arange(8) % 4
    joined = nn.functional.linear(
        torch.cat([x, term.embedding(c)], 1),
        torch.cat([linear.weight, term.linear.weight], 1),
        linear.bias,
    )
    torch.testing.assert_close(linear(x) + term(c), joined)


def test_conditions_matter_and_are_asked_for(build):
    network, shape = build(n_conditions=3)
    x = torch.randn(2, *shape, dtype=torch.float64)
    first, second = network(x, torch.tensor([0, 0])), network(x, torch.tensor([1, 1]))
    assert (first - second).abs().max() > 1e-6
    with pytest.raises(InputError, match=r"conditions: expected one for each sample; got none"):
        network(x)
    with pytest.raises(InputError, match=r"conditions: expected none; got 2 of them"):
        build()[0](x, torch.tensor([0, 1]))


def test_folding_both_scalings_changes_nothing(build):
    network, shape = build()
    x = 40 + 5 * torch.randn(6, *shape, dtype=torch.float64)
    per_feature = len(shape) == 1
    mean = 40 + torch.rand(shape[0] if per_feature else (), dtype=torch.float64)
    scale = 4 + torch.rand(shape[0] if per_feature else (), dtype=torch.float64)
    expected = network((x - mean) / scale)
    outputs = None
    if isinstance(network.head, nn.Linear):
        n_outputs = expected.shape[1]
        outputs = torch.randn(n_outputs), 1 + torch.rand(n_outputs)
        expected = expected * outputs[1] + outputs[0]
    fold_scalings(network, inputs=(mean, scale), outputs=outputs)
    torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)


def test_folding_cuts_off_inputs_that_never_varied():
    network = DecoderNetwork(2, 1, hidden=(4,)).eval()
    fold_scalings(network, inputs=(torch.zeros(2), torch.tensor([1.0, torch.inf])))
    assert (network.stem.weight[:, 1] == 0).all()


def test_edges_continue_an_even_image():
    conv = ImageConv(1, 2, 5)
    even = conv(torch.full((1, 9, 9), 3.0))
    torch.testing.assert_close(even, even[..., 4:5, 4:5].expand_as(even))


def test_encoder_takes_channels_or_none():
    network = EncoderNetwork(20, 5).eval()
    x = torch.randn(2, 20, 20)
    assert torch.equal(network(x), network(x[:, None]))


@pytest.mark.parametrize("size", [16, 31, 48, 64, 128])
def test_encoder_keeps_places(size):
    """Features are mirrored when the image is, if the kernels are: nothing is shifted."""
    network = EncoderNetwork(size, 2, channels=(2, 2, 2, 2, 2)).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            with torch.no_grad():
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
    grid = nn.Sequential(network.stem, network.body.features[:-3])  # all before flattening
    image = torch.zeros(1, size, size)
    image[:, size // 2, size // 3] = 1.0
    features, mirrored = grid(image), grid(image.flip(-1)).flip(-1)
    assert max(features.shape[-2:]) <= 16
    if size % 16 == 0:  # otherwise the last cell averages fewer pixels than the first
        torch.testing.assert_close(features, mirrored)
    centre = features.std(1)[0].flatten().argmax() % features.shape[-1]
    assert (
        abs((centre + 0.5) / features.shape[-1] - (size // 3 + 0.5) / size)
        <= 1.5 / features.shape[-1]
    )


def test_probabilities_and_logits_agree():
    network = CategoricalNetwork((12, 12), 4, n_conditions=2).eval()
    x, c = torch.randn(7, 12, 12), torch.arange(7) % 2
    probabilities = network(x, c)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(7))
    torch.testing.assert_close(network.logits(x, c).softmax(1), probabilities)


def test_relu_on_request_and_nothing_unknown():
    network = DecoderNetwork(4, 1, activation="relu")
    assert any(isinstance(module, nn.ReLU) for module in network.modules())
    with pytest.raises(InputError, match=r"activation: expected one of 'mish', 'relu'; got 'tanh'"):
        EncoderNetwork(16, 1, activation="tanh")


def test_convolutions_need_images():
    with pytest.raises(InputError, match=r"channels: expected none for inputs that are not images"):
        CategoricalNetwork((30,), 2, channels=(4, 4))


def test_kernels_that_would_shift_or_are_missing():
    with pytest.raises(InputError, match=r"kernel_size: expected an odd number; got 4"):
        ImageConv(1, 1, 4)
    with pytest.raises(InputError, match=r"channels and kernel_sizes: expected one .* got 2 and 5"):
        EncoderNetwork(16, 1, channels=(2, 2))


def test_no_pixel_is_left_out(build):
    network, shape = build()
    x = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    network(x)[:, 0].sum().backward()
    assert (x.grad.abs() > 0).any(0).all()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("decoder", dict(hidden=[]), r"hidden: .*at least 1 of them; got \[\]"),
        ("decoder", dict(hidden=["a"]), r"hidden: .*positive whole numbers.*got \['a'\]"),
        ("decoder", dict(hidden=[-4]), r"hidden: .*got \[-4\]"),
        ("decoder", dict(hidden=[True]), r"hidden: .*got \[True\]"),
        ("decoder", dict(hidden=8), r"hidden: .*got 8"),
        ("decoder", dict(dropout=1.5), r"dropout: expected a number from 0 to 1, .*; got 1.5"),
        ("decoder", dict(dropout="half"), r"dropout: .*got 'half'"),
        ("decoder", dict(n_conditions=-1), r"n_conditions: .*0 or more; got -1"),
        ("decoder", dict(n_conditions=2, condition_size=0), r"condition_size: .*1 or more; got 0"),
        ("encoder", dict(n_latents=0), r"n_latents: expected a whole number, 1 or more; got 0"),
        ("encoder", dict(n_latents=4.0), r"n_latents: .*got 4.0"),
        ("encoder", dict(channels=[]), r"channels: .*at least 1 of them; got \[\]"),
        ("encoder", dict(channels=(2, 2, 0, 2, 2)), r"channels: .*got \(2, 2, 0, 2, 2\)"),
        ("encoder", dict(channels=(2, 2.5, 2, 2, 2)), r"channels: .*got \(2, 2.5"),
        ("encoder", dict(kernel_sizes=(5, 3, 3, 1, "1")), r"kernel_sizes: .*'1'\)"),
        ("encoder", dict(dropout=-0.1), r"dropout: .*got -0.1"),
        ("encoder", dict(dropout=1), r"dropout: .*got 1"),
        ("classifier", dict(channels=None), r"channels: .*got None"),
        ("classifier", dict(channels=[-1]), r"channels: .*got \[-1\]"),
        ("classifier", dict(kernel_size=0), r"kernel_size: .*got 0"),
        ("classifier", dict(hidden=()), r"hidden: .*got \(\)"),
        ("classifier", dict(dropout=float("nan")), r"dropout: .*got nan"),
    ],
)
def test_sizes_and_shares_that_have_no_meaning(kind, options, message):
    make = {
        "decoder": lambda: DecoderNetwork(12, 3, **options),
        "encoder": lambda: EncoderNetwork(20, 5, **options),
        "classifier": lambda: CategoricalNetwork((12, 12), 4, **options),
    }[kind]
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("sequence", [list, tuple, torch.Size, np.array])
def test_sizes_come_in_any_sequence(sequence):
    assert DecoderNetwork(3, 2, hidden=sequence([4, 5])).head.in_features == 5
