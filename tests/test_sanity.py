"""Sanity checks: of attributions that are right, and of such as follow the data alone."""

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from neuroigc._validation import InputError
from neuroigc.attribution import (
    MeanBaseline,
    SampledBaseline,
    ZeroBaseline,
    integrated_gradient_correlation,
)
from neuroigc.models import NeuralDecoder, list_layers, randomise_layers
from neuroigc.models.scaling import measure_scaling
from neuroigc.stats import (
    check_sanity,
    map_similarity,
    removal_test,
    replace_groups,
)

N_DRAWS = 8
COLUMNS = ["output", "check", "value", "low", "high", "limit", "light", "meaning"]
GROUPS = {f"area {k}": np.arange(6 * k, 6 * k + 6) for k in range(10)}


@pytest.fixture(scope="module")
def study():
    """Return a decoder of two features from areas, and its training and held-out samples."""
    rng = np.random.default_rng(7)
    features = rng.standard_normal((1500, 2))
    x = rng.standard_normal((1500, 60))
    # Areas carry less and less of the first feature; two at the end carry the second.
    for k, strength in enumerate((1.0, 0.8, 0.6, 0.4, 0.2)):
        x[:, GROUPS[f"area {k}"]] += strength * features[:, :1]
    x[:, 48:] += 0.6 * np.tanh(features[:, 1:])
    train, test = slice(0, 1100), slice(1100, None)
    decoder = make_decoder(0).fit(x[train], features[train])
    return decoder, (x[train], features[train]), (x[test], features[test])


def make_decoder(seed):
    return NeuralDecoder(hidden=(24, 24), max_epochs=15, dropout=0.1, batch_size=64, seed=seed)


def attribute_with(x, y):
    def attribute(model, **options):
        result = integrated_gradient_correlation(model, x, y, max_gradients=13, **options)
        return result.attributions

    return attribute


def from_scratch(study):
    """Return the checks' callables: layers drawn anew, labels shuffled."""
    decoder, (x, y), _ = study
    scaling = measure_scaling(x, argument="x")

    def retrain(seed):
        shuffled = np.random.default_rng([seed, 5]).permutation(len(y))
        return make_decoder(seed).fit(x, y[shuffled]).module_

    return {
        "randomise": lambda n, seed: randomise_layers(
            decoder.module_, n, seed=seed, input_scaling=scaling
        ),
        "layers": [layer[0] for layer in reversed(list_layers(decoder.module_))],
        "retrain": retrain,
        "n_draws": N_DRAWS,
    }


@pytest.fixture(scope="module")
def table(study):
    decoder, _, (x, y) = study
    whole = integrated_gradient_correlation(
        decoder.module_, x, y, max_gradients=9, groups=GROUPS, n_permutations=99, keep_null=True
    )
    removal = {
        replacement: removal_test(
            replace_groups(decoder.predict, x.astype("f4"), GROUPS, replacement=replacement),
            whole.group_values,
            y,
        )
        for replacement in ("mean", "samples")
    }
    checks = check_sanity(
        attribute_with(x, y),
        decoder.module_,
        **from_scratch(study),
        baselines={"mean": MeanBaseline(), "zero": ZeroBaseline(), "sampled": SampledBaseline(200)},
        null_maps=whole.null_maps,
        removal=removal,
        outputs=["first", "second"],
    )
    return checks.to_frame().set_index(["output", "check"])


def test_there_is_one_row_for_each_check_and_output(table):
    assert list(table.reset_index()) == COLUMNS
    checks = [
        "randomised: down to head",
        "randomised: down to body.layers.3",
        "randomised: all layers",
        "shuffled labels: map",
        "shuffled labels: r",
        "permuted labels: r",
        "deletion: mean",
        "insertion: mean",
        "deletion: samples",
        "insertion: samples",
        "baseline: mean",
        "baseline: zero",
        "baseline: sampled",
    ]
    expected = list(itertools.product(("first", "second"), checks))
    assert list(table.index) == expected


@pytest.mark.parametrize("output", ["first", "second"])
@pytest.mark.parametrize(
    "check", ["randomised: all layers", "shuffled labels: map", "shuffled labels: r"]
)
def test_models_that_know_nothing_are_inside_of_chance(table, output, check):
    row = table.loc[(output, check)]
    assert row.low <= row.value <= row.high
    assert row.light == "green"
    assert row.high == pytest.approx(-row.low)


@pytest.mark.parametrize("output", ["first", "second"])
def test_areas_go_faster_in_the_order_of_their_values(table, output):
    for kind in ("mean", "samples"):
        deletion, insertion = (
            table.loc[(output, f"deletion: {kind}")],
            table.loc[(output, f"insertion: {kind}")],
        )
        assert deletion.value < deletion.low
        assert insertion.value > insertion.high
        assert deletion.light == insertion.light == "green"


def test_labels_matter_and_baselines_do_not(table):
    for output in ("first", "second"):
        row = table.loc[(output, "permuted labels: r")]
        assert row.value > row.high > 0 > row.low
        assert row.light == "green"
        for baseline in ("mean", "zero", "sampled"):
            row = table.loc[(output, f"baseline: {baseline}")]
            assert row.value > 0.9
            assert row.light == "green"
            assert np.isnan([row.low, row.high]).all()


def test_a_map_of_the_data_alone_is_found_out(study):
    _, _, (x, y) = study

    def of_the_data(model):
        z = (x - x.mean(0)) * (y - y.mean(0))[:, :1]
        return np.stack([z.mean(0), z.mean(0)])

    checks = check_sanity(of_the_data, study[0].module_, **from_scratch(study))
    rows = checks.to_frame()
    similar = rows[rows["check"] != "shuffled labels: r"]
    np.testing.assert_allclose(similar["value"], 1)
    assert set(similar["light"]) == {"red"}
    assert similar["meaning"].str.contains("something is left").all()


def test_a_model_that_has_seen_the_labels_is_found_out(study):
    decoder, _, (x, y) = study
    # Leakage: "shuffled" training gives the true model.
    options = from_scratch(study) | {"randomise": None, "retrain": lambda _: decoder.module_}
    rows = check_sanity(attribute_with(x, y), decoder.module_, **options).to_frame()
    assert set(rows["light"]) == {"red"}


def drawn(values):
    """Return checks of maps that are similar to the model's by given values."""
    rng = np.random.default_rng(0)
    own, other = rng.standard_normal((2, 500))
    own, other = own - own.mean(), other - other.mean()
    other -= own * (other @ own) / (own @ own)
    own, other = own / np.linalg.norm(own), other / np.linalg.norm(other)
    maps = {k: r * own + np.sqrt(1 - r**2) * other for k, r in enumerate(values)}
    return check_sanity(
        lambda model: (own if model is None else maps[model])[None],
        None,
        randomise=lambda _, seed: seed,
        layers=["head"],
        n_draws=len(values),
        method="pearson",
    ).checks[0]


@pytest.mark.parametrize(
    ("values", "light"),
    [
        ([0.1, -0.1, 0.2, -0.2, 0.1, -0.1], "green"),
        ([0.1, 0.1, 0.2, 0.2, 0.1, 0.1], "amber"),  # small, but there
        ([0.8, -0.8, 0.8, -0.8, 0.9, -0.8], "amber"),  # alike but for the sign
        ([0.8, 0.8, 0.8, 0.7, 0.9, 0.8], "red"),
        ([-0.8, -0.8, -0.8, -0.7, -0.9, -0.8], "red"),
    ],
)
def test_lights_follow_the_signs_and_the_limit(values, light):
    check = drawn(values)
    assert check.light == light
    assert check.value == pytest.approx(np.mean(values))
    flips = [np.mean(np.multiply(s, values)) for s in itertools.product([1, -1], repeat=6)]
    # Of 64 patterns the second largest and smallest.
    assert (check.low, check.high) == pytest.approx((sorted(flips)[1], sorted(flips)[-2]))


def test_chance_is_left_as_often_as_promised():
    rng = np.random.default_rng(3)
    lights = [drawn(rng.uniform(-0.4, 0.4, 8)).light for _ in range(300)]
    # 0.05 of 300; patterns of 8 signs make p come in steps of 1/128.
    assert 5 <= lights.count("amber") <= 27
    assert lights.count("red") == 0


def test_similarity_is_that_of_ranks_or_values(rng):
    own, maps = rng.standard_normal((2, 30)), rng.standard_normal((3, 2, 30))
    found = map_similarity(own, maps)
    for k, v in itertools.product(range(3), range(2)):
        assert found[k, v] == pytest.approx(spearmanr(own[v], maps[k, v])[0])
    values = map_similarity(own.reshape(2, 5, 6), maps.reshape(3, 2, 5, 6), method="pearson")
    assert values[1, 0] == pytest.approx(np.corrcoef(own[0], maps[1, 0])[0, 1])
    np.testing.assert_allclose(map_similarity(own, np.stack([own, -own, 3 * own])).T[0], [1, -1, 1])
    for flat, method in itertools.product((2, 0.1, 0.7), ("spearman", "pearson")):
        maps[0, 1] = flat
        assert map_similarity(own, maps, method=method)[0, 1] == 0
        assert map_similarity(maps[0], maps, method=method)[:, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_draws": 5}, "n_draws: expected 6 or more"),
        ({"outputs": ["a"]}, "outputs: expected 2 names; got 1"),
        (
            {"baselines": {"none": None}},
            r"maps: expected maps of shape \(n_maps, \*\(2, 4\)\), .* got shape \(1, 2, 3\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    def attribute(model, baseline="own"):
        return np.ones((2, 4 if baseline == "own" else 3))

    with pytest.raises(InputError, match=message):
        check_sanity(attribute, None, **options)


def test_maps_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="reference and maps: expected finite numbers"):
        map_similarity(np.array([[1.0, np.nan]]), np.ones((1, 1, 2)))
