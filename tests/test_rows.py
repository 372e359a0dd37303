"""Stacked rows: numpy's own stacking of the same rows and columns, without reading them all."""

import copy
import gc
import os
import pickle

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.datasets import StackedRows, rows


@pytest.fixture
def stores(rng, tmp_path):
    """Return two maps of float16, an array, and part of a map, with rows and columns of each."""
    arrays = [rng.normal(size=(n, m)).astype(np.float16) for n, m in [(40, 9), (30, 7), (5, 6)]]
    maps = []
    for k, array in enumerate(arrays[:2]):
        np.save(tmp_path / f"{k}.npy", array)
        maps.append(np.load(tmp_path / f"{k}.npy", mmap_mode="r"))
    return [
        (maps[0], np.flatnonzero(rng.random(40) < 0.6), np.sort(rng.permutation(9)[:6])),
        (maps[1], rng.permutation(30)[:11], [6, 0, 5, 1, 3, 2]),
        (arrays[2], None, None),
        (maps[0][7:20, :6], [12, 0, 3], None),
    ]


def stacked(parts):
    """Do it as numpy does, in memory."""
    return np.concatenate(
        [
            np.asarray(array)[slice(None) if rows is None else rows][
                :, slice(None) if columns is None else columns
            ]
            for array, rows, columns in parts
        ]
    )


def choices(n, rng):
    yield from (slice(None), slice(3, 9), slice(n, 2, -3), slice(5, 5), 0, -1)
    yield np.array([], dtype=int)
    yield from (rng.permutation(n), np.array([n - 1, 4, 4, 0]), rng.random(n) < 0.5)


@pytest.mark.parametrize("block_bytes", [1, 2**24])
def test_rows_are_those_of_numpy(stores, rng, block_bytes, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_BYTES", block_bytes)
    stack, expected = StackedRows(stores), stacked(stores)
    assert (stack.shape, stack.dtype, stack.ndim) == (expected.shape, expected.dtype, 2)
    assert (len(stack), stack.size) == (len(expected), expected.size)
    for choice in choices(len(stack), rng):
        np.testing.assert_array_equal(stack[choice], expected[choice], strict=True)
    np.testing.assert_array_equal(np.asarray(stack), expected)
    np.testing.assert_array_equal(np.asarray(stack, dtype=np.float64), expected)


def test_parts_of_other_dtypes_and_byte_orders(stores, tmp_path):
    np.save(tmp_path / "big.npy", stores[2][0].astype(">f4"))
    big = np.load(tmp_path / "big.npy", mmap_mode="r")
    parts = [*stores, (big, [4, 2], None)]
    stack = StackedRows(parts)
    assert stack.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(stack[:], stacked(parts))


def test_offsets_of_headerless_maps(rng, tmp_path):
    values = rng.normal(size=(6, 4))
    (tmp_path / "raw").write_bytes(b"x" * 4100 + values.tobytes())
    mapped = np.memmap(tmp_path / "raw", values.dtype, "r", 4100, values.shape)
    np.testing.assert_array_equal(StackedRows([(mapped, [5, 1], None)])[:], values[[5, 1]])


def test_changes_to_a_copy_on_write_map_count(rng, tmp_path):
    np.save(tmp_path / "x.npy", rng.normal(size=(6, 3)))
    array = np.load(tmp_path / "x.npy", mmap_mode="c")
    array *= 10
    np.testing.assert_array_equal(StackedRows([(array, None, None)])[:], array)


def test_neighbours_are_read_at_once_and_maps_not_touched(stores, monkeypatch):
    stack, reads, read = StackedRows(stores[:1]), [], os.preadv

    def counted(file, buffers, offset):
        reads.append(sum(map(len, buffers)))
        return read(file, buffers, min(offset, 10**9))

    monkeypatch.setattr(rows.os, "preadv", counted)
    own = stores[0][1]
    stack[np.random.default_rng(0).permutation(len(own))]
    n_runs = 1 + np.count_nonzero(np.diff(own) != 1)
    assert len(reads) == n_runs < len(own)
    assert sum(reads) == len(own) * 9 * 2


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise on this system")
@pytest.mark.parametrize("limit", [10**6, 10])
def test_places_of_short_requests_are_announced_before_they_are_read(stores, monkeypatch, limit):
    stack, calls, read = StackedRows(stores), [], os.preadv

    def noted(file, buffers, at):
        calls.append(("read", file, at, sum(map(len, buffers))))
        return read(file, buffers, at)

    monkeypatch.setattr(rows, "ANNOUNCED_BYTES", limit)
    monkeypatch.setattr(rows.os, "preadv", noted)
    monkeypatch.setattr(
        rows.os, "posix_fadvise", lambda file, at, n, _: calls.append(("told", file, at, n))
    )
    stack[:]
    reads = [place for what, *place in calls if what == "read"]
    assert [place for what, *place in calls if what == "told"] == (reads if limit > 10 else [])
    assert [what for what, *_ in calls] == sorted((what for what, *_ in calls), reverse=True)


def test_short_reads_are_completed_and_short_files_refused(stores, monkeypatch, tmp_path):
    read = os.preadv
    monkeypatch.setattr(
        rows.os, "preadv", lambda file, buffers, at: read(file, [buffers[0][:3]], at)
    )
    np.testing.assert_array_equal(StackedRows(stores[:2])[:], stacked(stores[:2]))
    stack = StackedRows(stores[:1])
    os.truncate(tmp_path / "0.npy", 500)
    with pytest.raises(OSError, match=r"0\.npy ends too early"):
        stack[:]


def test_files_are_closed(stores):
    stack = StackedRows(stores)
    files = [part.file for part in stack._parts if part.file is not None]
    assert len([os.fstat(file) for file in files]) == 2
    del stack
    gc.collect()
    for file in files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)


def pickled(values):
    return pickle.loads(pickle.dumps(values))  # noqa: S301 - made here


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_copies_read_when_what_they_were_made_of_is_gone(stores, tmp_path, again):
    stack = StackedRows(stores)
    copied = again(stack)
    del stack
    gc.collect()
    # Other files take the numbers of those that were closed.
    others = [(tmp_path / "0.npy").open("rb") for _ in range(4)]
    np.testing.assert_array_equal(copied[:], stacked(stores), strict=True)
    for file in others:
        file.close()


def test_refusals(stores):
    array = stores[2][0]
    with pytest.raises(InputError, match=r"parts: expected one array or more, .*; got none"):
        StackedRows([])
    with pytest.raises(InputError, match=r"the same number of columns; got 2 and 6 columns"):
        StackedRows([(array, None, None), (array, None, [0, 1])])
    with pytest.raises(InputError, match=r"rows of parts: expected indices from 0 to 4; .* 0 to 5"):
        StackedRows([(array, [0, 5], None)])
    with pytest.raises(InputError, match=r"columns of parts: expected indices .*, from -1 to 2"):
        StackedRows([(array, None, [2, -1])])
    for wrong in (np.arange(5) > 2, [0.5, 1.0]):
        with pytest.raises(InputError, match=r"rows of parts: .*, a mask or fractions"):
            StackedRows([(array, wrong, None)])
    with pytest.raises(InputError, match=r"parts: expected arrays \(n_rows, n_columns\)"):
        StackedRows([(array[0], None, None)])
    stack = StackedRows([(array, None, None)])
    for wrong in ((0, 1), [[0, 1], [2, 3]]):
        with pytest.raises(IndexError):
            stack[wrong]
    with pytest.raises(IndexError):
        stack[[5]]
