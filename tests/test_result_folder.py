"""Maps in files: the same numbers, whole after a kill, and read back as memory maps."""

import numpy as np
import pytest
import torch
from cutting_cases import CASES, agree, attribute_and_die, run_processes

from neuroigc._validation import InputError
from neuroigc.attribution import IGCResult, attribute_shard, estimate
from neuroigc.attribution.rows import FileSums, RowFile

MAPS = ("attributions", "standard_errors")
NAMES = ["few", "few, let go", "many", "many, let go", "many, pooled", "conditions", "zero"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_changes_nothing(name, dtype, tmp_path):
    tiny = 2e-4 if "n_permutations" in CASES[name].options else 1e-5
    whole = CASES[name].run(dtype)
    for memory in (1.0, tiny):
        folder = tmp_path / str(memory)
        result = CASES[name].run(dtype, results=folder, memory=memory)
        for field in MAPS:
            array = getattr(result, field)
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable
        assert agree(result, whole, dtype)
        expected = {"attributions.npy", "standard_errors.npy", "result.npz"}
        expected |= {"p_values.npy"} if whole.p_values is not None else set()
        assert {path.name for path in folder.iterdir()} == expected


def test_a_folder_is_opened_as_memory_maps_and_saved_in_one_file(tmp_path):
    result = CASES["many"].run("float32", results=tmp_path / "maps")
    opened = IGCResult.load(tmp_path / "maps")
    assert isinstance(opened.attributions, np.memmap)
    assert opened.settings["n_rounds"] == result.settings["n_rounds"]
    opened.save(tmp_path / "one.npz")
    loaded = IGCResult.load(tmp_path / "one.npz")
    assert not isinstance(loaded.attributions, np.memmap)
    for found in (opened, loaded):
        assert agree(found, result, "float64")
    assert list(opened.to_frame()) == list(result.to_frame())


def test_a_folder_that_is_not_finished_is_no_result(tmp_path):
    folder = tmp_path / "maps"
    CASES["few"].run("float32", results=folder)
    (folder / "result.npz").unlink()
    with pytest.raises(InputError, match="path: expected a saved IGCResult"):
        IGCResult.load(folder)


def attribute_in_a_folder_and_die(rank, size, folder, name, times, attempt):
    """Be killed while sums are in files, or after some saves."""
    case, run = CASES[name], type(CASES[name]).run

    def into_folder(self, dtype, **more):
        return run(self, dtype, results=folder / "maps", **more)

    type(case).run = into_folder
    attribute_and_die(rank, size, folder, name, "float64", times, attempt)


@pytest.mark.parametrize("name", ["many", "many, let go", "few, let go"])
@pytest.mark.parametrize("what", ["advance", "save"])
def test_a_run_that_is_killed_goes_on_from_whole_sums(name, what, tmp_path):
    for attempt, count in enumerate((1, 7)):
        count = min(count, 2) if what == "save" else count
        code = run_processes(
            1, attribute_in_a_folder_and_die, tmp_path, name, {what: count}, attempt
        )
        assert code == [-9]
    assert run_processes(1, attribute_in_a_folder_and_die, tmp_path, name, {}, 2) == [0]
    result = IGCResult.load(tmp_path / "maps")
    assert agree(result, CASES[name].run("float64"), "float64")
    assert not (tmp_path / "maps" / ".sums").exists()


def stop_at_save(monkeypatch, number):
    """Interrupt a run as it is about to write a checkpoint."""
    save, saves = estimate.save_state, []

    def interrupted(*arguments):
        saves.append(arguments)
        if len(saves) == number:
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(estimate, "save_state", interrupted)
    monkeypatch.setattr(estimate, "SECONDS_BETWEEN_SAVES", -1.0)


@pytest.mark.parametrize("first", [True, False])
def test_a_checkpoint_and_a_folder_belong_together(first, tmp_path, monkeypatch):
    case, path = CASES["many, let go"], tmp_path / "sums.npz"
    where = {"results": tmp_path / "maps"} if first else {}
    with monkeypatch.context() as patch:
        stop_at_save(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            case.run("float64", checkpoint=path, **where)
    if first:
        for other in ({}, {"results": tmp_path / "elsewhere"}):
            with pytest.raises(InputError, match="results: expected the folder that the check"):
                case.run("float64", checkpoint=path, **other)
    # What began in memory may go on in files.
    result = case.run("float64", checkpoint=path, results=tmp_path / "maps")
    assert agree(result, case.run("float64"), "float64")


def test_what_an_interruption_left_is_taken_over_without_a_checkpoint(tmp_path, monkeypatch):
    gone = tmp_path.parent / "gone.npz"
    with monkeypatch.context() as patch:
        stop_at_save(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            CASES["many"].run("float64", results=tmp_path, checkpoint=gone)
    (tmp_path / ".attributions-left.npy").write_bytes(b"half")
    result = CASES["many"].run("float64", results=tmp_path)
    assert agree(result, CASES["many"].run("float64"), "float64")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    full = tmp_path / "full"
    CASES["few"].run("float32", results=full)
    with pytest.raises(InputError, match=r"results: expected an empty folder.*attributions\.npy"):
        CASES["few"].run("float32", results=full)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="results: expected a folder that can be written to"):
        CASES["few"].run("float32", results=tmp_path / "file")


def test_shards_take_no_folder(tmp_path):
    model, x, y, options = CASES["many"].made("float32")
    options |= {"shard": (1, 2), "results": tmp_path / "maps"}
    options.pop("tolerance")
    with pytest.raises(InputError, match="options: expected among"):
        attribute_shard(tmp_path / "one.npz", model, x, y, **options)


def test_rows_of_files_grow_by_addition(tmp_path):
    file = RowFile(tmp_path / "rows", (5, 2, 3), torch.float64)
    assert not file.read(slice(None)).any()
    file.add(slice(1, 3), torch.ones(2, 2, 3))
    file.add(slice(2, 5), 2 * torch.ones(3, 2, 3))
    assert file.read(slice(None))[:, 0, 0].tolist() == [0, 1, 3, 2, 2]
    (tmp_path / "rows").write_bytes(b"short")
    with pytest.raises(OSError, match="ends too early"):
        file.read(slice(0, 1))


def test_sums_in_files_and_in_memory_are_told_by_the_same_names(tmp_path):
    sums = FileSums(tmp_path)
    sums.add("map", torch.ones(2, 3), slice(1, 3), 4)
    sums.add("probe", torch.ones(2))
    assert "map" in sums
    assert list(sums.to_arrays()) == ["probe"]
    assert sums.rows("map", slice(0, 2)).tolist() == [[0, 0, 0], [1, 1, 1]]
