"""Numbers do not depend on how the work was cut: into batches, blocks, processes, shards, runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cutting_cases import (
    BOUNDS,
    CASES,
    EQUAL,
    agree,
    attribute_and_die,
    attribute_cases,
    differences,
    fail_alone,
    run_processes,
)

from neuroigc._validation import InputError
from neuroigc.attribution import (
    IGCResult,
    attribute_shard,
    estimate,
    integrated_gradient_correlation,
    merge_shards,
    pairs,
    problem,
)
from neuroigc.attribution import engine as engine_module
from neuroigc.attribution.checkpoint import save_state

DTYPES = list(BOUNDS)
ONE_OF_EACH = ["few", "few, let go", "many", "many, let go"]

dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_case = pytest.mark.parametrize("name", CASES)
one_of_each = pytest.mark.parametrize("name", ONE_OF_EACH)

_wholes = {}


def whole(name, dtype):
    """Return the result of one run, uncut."""
    if (name, dtype) not in _wholes:
        _wholes[name, dtype] = CASES[name].run(dtype)
    return _wholes[name, dtype]


def test_cases_are_what_they_say():
    for name, case in CASES.items():
        result = whole(name, "float64")
        regime = result.settings["regime"]
        assert regime == ("CotangentEngine" if case.few else "LatentEngine"), name
        assert result.group_values is not None
        assert (result.settings["n_sweeps"] > 1) == (case.blocks or not case.held), name


@dtypes
@every_case
def test_batch_size_changes_nothing(name, dtype):
    for batch_size in (1, 7, 64) if name in ONE_OF_EACH else (7, 64):
        assert agree(CASES[name].run(dtype, batch_size=batch_size), whole(name, dtype), dtype)


@dtypes
@every_case
def test_order_of_samples_changes_nothing(name, dtype):
    model, x, y, options = CASES[name].made(dtype)
    order = np.random.default_rng(1).permutation(len(x))
    permute(options, order)
    with CASES[name].cut():
        result = integrated_gradient_correlation(
            model, x[order], None if y is None else y[order], **options
        )
    back = np.argsort(order)
    expected = whole(name, dtype)
    assert agree(in_order(result, back), in_order(expected, np.arange(len(x))), dtype)


def in_order(result, order):
    """Return a result whose samples stand in another order, equal ones being the same."""
    if result.group_influences is None:
        return result
    own = {"group_influences": result.group_influences[order], "strata": result.strata[order]}
    if result.group_attributions is not None:
        own["group_attributions"] = result.group_attributions[order]
    for name in set(own) - {"strata"}:
        # Equal samples may stand in for one another.
        own[name][EQUAL] = own[name][EQUAL].mean(0)
    return replace(result, scores=result.scores[:, order], **own)


def permute(options, order):
    """Bring what belongs to samples into another order."""
    if "conditions" in options:
        options["conditions"] = options["conditions"][order]
    within = getattr(options.get("baseline"), "within", None)
    if within is not None:
        options["baseline"] = type(options["baseline"])(within[order])


@dtypes
@every_case
def test_memory_changes_nothing(name, dtype):
    # Maps of permuted targets take memory that is not for the cutting.
    tiny = 1e-5 if whole(name, dtype).p_values is None else 2e-4
    assert agree(CASES[name].run(dtype, memory=tiny), whole(name, dtype), dtype)


@dtypes
@pytest.mark.parametrize("kind", ["memory map", "tensor", "strided", "big-endian", "lists"])
@pytest.mark.parametrize("name", ["few", "many, let go", "conditions"])
def test_kind_of_array_changes_nothing(name, dtype, kind, tmp_path):
    model, x, y, options = CASES[name].made(dtype)
    if kind == "memory map":
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "tensor":
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        if "conditions" in options:
            options["conditions"] = torch.from_numpy(options["conditions"])
    elif kind == "strided":
        wide = np.zeros((2 * len(x), *x.shape[1:-1], 3 * x.shape[-1]), dtype)
        wide[::2, ..., ::3] = x
        x, y = wide[::2, ..., ::3], np.asfortranarray(y)
    elif kind == "big-endian":
        x, y = x.astype(x.dtype.newbyteorder(">")), y.astype(">f8")
    else:
        x, y = x.tolist(), y.tolist()
    with CASES[name].cut():
        result = integrated_gradient_correlation(model, x, y, **options)
    assert agree(result, whole(name, dtype), dtype)


# The tests above can fail.


def test_choices_by_position_in_the_file_are_noticed(monkeypatch):
    def by_position(*parts, strata=None):
        return np.arange(len(parts[0]), dtype=np.uint64)

    monkeypatch.setattr(problem, "combine_keys", by_position)
    monkeypatch.setattr(f"{__name__}._wholes", {})
    with pytest.raises(AssertionError, match="attributions"):
        test_order_of_samples_changes_nothing("few", "float64")


def test_choices_of_partners_by_position_are_noticed(monkeypatch):
    uniform = pairs.uniform

    def by_position(seed, stream, counters, keys):
        return uniform(seed, stream, counters, np.arange(len(keys)))

    monkeypatch.setattr(pairs, "uniform", by_position)
    monkeypatch.setattr(f"{__name__}._wholes", {})
    with pytest.raises(AssertionError, match="attributions"):
        test_order_of_samples_changes_nothing("many", "float64")


def test_choices_by_the_number_of_the_batch_are_noticed(monkeypatch, tmp_path):
    draw = engine_module.draw_points

    def restart():
        batches = iter(range(10**6))

        def by_batch(keys, _, **options):
            return draw(keys, next(batches), **options)

        monkeypatch.setattr(engine_module, "draw_points", by_batch)

    restart()
    one = CASES["few"].run("float64")
    restart()
    # The check sees nothing but the choices.
    assert agree(CASES["few"].run("float64"), one, "float64")
    with pytest.raises(AssertionError, match="attributions"):
        agree(merged("few", "float64", 3, tmp_path, restart), one, "float64")


# Shards.


def shard(name, dtype, number, size, folder, **more):
    model, x, y, options = CASES[name].made(dtype)
    del options["tolerance"]
    path = folder / f"{number}of{size}.npz"
    with CASES[name].cut():
        attribute_shard(path, model, x, y, shard=(number, size), **{**options, **more})
    return path


def merged(name, dtype, size, folder, before=lambda: None):
    paths = []
    for number in range(size, 0, -1):
        before()
        paths.append(shard(name, dtype, number, size, folder))
    return merge_shards(paths)


@dtypes
@every_case
def test_shards_merged_are_a_whole_run(name, dtype, tmp_path):
    for size in (1, 3) if dtype == "float32" else (4, 10):
        result = merged(name, dtype, size, tmp_path)
        assert agree(result, whole(name, dtype), dtype)
        assert result.settings["n_shards"] == size
        left_out = {"tolerance", "n_shards"}
        expected = whole(name, dtype).settings
        assert {k: v for k, v in result.settings.items() if k not in left_out} == {
            k: v for k, v in expected.items() if k not in left_out
        }


def test_a_shard_is_killed_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "SECONDS_BETWEEN_SAVES", -1.0)
    saves = []

    def save_and_stop(*arguments):
        save_state(*arguments)
        saves.append(1)
        if len(saves) in (3, 9):
            raise KeyboardInterrupt

    monkeypatch.setattr(estimate, "save_state", save_and_stop)
    paths = [shard("few", "float64", 2, 2, tmp_path)]
    saves.clear()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            shard("few", "float64", 1, 2, tmp_path, checkpoint=tmp_path / "sums.npz")
    paths.append(shard("few", "float64", 1, 2, tmp_path, checkpoint=tmp_path / "sums.npz"))
    assert agree(merge_shards(paths), whole("few", "float64"), "float64")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return [shard("few", "float64", number, 3, folder) for number in (1, 2, 3)]


def test_shards_that_do_not_make_a_whole_are_refused(shards, tmp_path):
    one, two, three = shards
    for paths, message in (
        ([], r"^paths: expected files of shards; got none\.$"),
        ([one, three], r"^paths: expected all 3 shards; got none of number 2\. Run the missing"),
        (one, r"expected all 3 shards; got none of number 2, 3"),
        ([one, two, two, three], r"^paths: expected each shard once; got shard 2 in .* and"),
        ([one, two, tmp_path / "3of3.npz"], r"expected files of shards; got no file .*3of3\.npz"),
    ):
        with pytest.raises(InputError, match=message) as refusal:
            merge_shards(paths)
        assert "\n" not in str(refusal.value)


def test_shards_of_something_else_are_refused(shards, tmp_path):
    others = [
        shard("few, one block", "float64", 2, 3, tmp_path, **changed)
        for changed in ({"seed": 1}, {"max_gradients": 9}, {"n_permutations": 0})
    ]
    others.append(shard("few, let go", "float64", 2, 3, tmp_path / "other"))
    others.append(shard("few", "float64", 2, 4, tmp_path / "four"))
    for other in others:
        with pytest.raises(InputError, match=r"expected shards of one and the same attribution"):
            merge_shards([shards[0], other, shards[2]])


def test_files_that_are_no_whole_shards_are_refused(shards, tmp_path):
    whole("few", "float64").save(tmp_path / "result.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no sums")
    (tmp_path / "empty.npz").write_bytes(b"")
    content = shards[1].read_bytes()
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "tail.npz").write_bytes(content[:-9])
    bent = bytearray(content)
    # So many that not all of them are parts of a header that nothing checks.
    middle = len(bent) // 2
    bent[middle : middle + 64] = bytes(255 ^ byte for byte in bent[middle : middle + 64])
    (tmp_path / "bent.npz").write_bytes(bent)
    (tmp_path / "folder.npz").mkdir()
    for path in sorted(tmp_path.iterdir()):
        expected = "the file of a shard" if path.stem == "result" else "sums saved by neuroigc"
        with pytest.raises(InputError, match=rf"^paths: expected {expected}; got .*{path.name}"):
            merge_shards([shards[0], path, shards[2]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 3), "shard: expected 1 or more, a whole number; got 0"),
        ((4, 3), "shard: expected a number from 1 to 3; got 4"),
        ((1, 0), "shard: expected 1 or more"),
        ((1.0, 3), "shard: expected 1 or more"),
        (2, "shard: expected two numbers, i of n; got 2"),
        ((1, 2, 3), "shard: expected two numbers"),
    ],
)
def test_shards_that_are_none_are_refused(tmp_path, given, message):
    model, x, y, _ = CASES["few"].made("float64")
    with pytest.raises(InputError, match=message):
        attribute_shard(tmp_path / "s.npz", model, x, y, shard=given, max_gradients=4)
    assert not list(tmp_path.iterdir())


def test_unknown_options_of_a_shard_are_refused(tmp_path):
    model, x, y, _ = CASES["few"].made("float64")
    with pytest.raises(InputError, match=r"options: expected among baseline, .*; got grops"):
        attribute_shard(
            tmp_path / "s.npz", model, x, y, shard=(1, 1), max_gradients=4, grops={"a": [1]}
        )


# Processes.


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_change_nothing(size, tmp_path):
    # Of the cases with one block, three of four processes have nothing to do.
    names = ONE_OF_EACH if size == 1 else list(CASES)
    assert run_processes(size, attribute_cases, tmp_path, names) == [0] * size
    for name in names:
        for dtype in DTYPES:
            for rank in range(size):
                result = IGCResult.load(tmp_path / f"{name}-{dtype}-{rank}.npz")
                assert result.settings["n_processes"] == size
                assert agree(result, whole(name, dtype), dtype)


def test_all_processes_hear_of_what_is_wrong_in_one(tmp_path):
    assert run_processes(2, fail_alone, tmp_path) == [0, 0]
    for what, message in {
        "nan": "inputs: expected finite numbers",
        "seed": "model, data and options: expected the same in all processes",
        "samples": "inputs, outputs and memory: expected the same in all processes",
        "checkpoint": "checkpoint: expected sums saved by neuroigc",
    }.items():
        for rank in range(2):
            assert (tmp_path / f"{what}-{rank}").read_text().startswith(message), what


# Kills.


@one_of_each
def test_killed_twice_and_resumed_is_as_if_never_stopped(name, tmp_path):
    for attempt, times in enumerate([{"advance": 9}, {"advance": 25}, {"advance": -1}]):
        codes = run_processes(1, attribute_and_die, tmp_path, name, "float64", times, attempt)
        assert codes == [0 if attempt == 2 else -9]
        assert (tmp_path / "sums.npz").exists()
    result = IGCResult.load(tmp_path / "result-0.npz")
    assert set(differences(result, whole(name, "float64")).values()) == {0.0}


@pytest.mark.parametrize(
    ("name", "step"),
    [("few", 1), ("few", 2), ("many, let go", 1), ("many, let go", 2), ("many, let go", 3)],
)
def test_a_process_killed_a_step_behind_the_others_catches_up(name, step, tmp_path):
    # It dies before it keeps its sums; the other one has kept its own by then, or soon will.
    codes = run_processes(2, attribute_and_die, tmp_path, name, "float64", {"save": step}, 0, 1)
    assert codes[1] == -9
    assert codes[0] != 0
    assert run_processes(2, attribute_and_die, tmp_path, name, "float64", {}, 1) == [0, 0]
    for rank in range(2):
        result = IGCResult.load(tmp_path / f"result-{rank}.npz")
        assert agree(result, whole(name, "float64"), "float64")


def test_a_checkpoint_holds_nothing_that_runs(tmp_path):
    CASES["few"].run("float64", checkpoint=tmp_path / "sums.npz")
    with np.load(tmp_path / "sums.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fiuU" for name in file.files)
    header = np.load(shard("few", "float64", 1, 1, tmp_path), allow_pickle=False)["header"]
    assert set(json.loads(str(header))) == {"settings", "identity"}
