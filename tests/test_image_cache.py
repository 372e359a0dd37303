"""Images kept on disk: whole or resumed, in blocks, as they would be loaded."""

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.datasets import image_cache, load_image_cache, load_nsd_images, prepare_nsd_images
from neuroigc.datasets.layouts import write_stimuli

N_IMAGES, IDS = 30, [21, 3, 3, 29, 0, 7, 12, 8, 11]


@pytest.fixture
def root(tmp_path, rng):
    write_stimuli(tmp_path / "nsd", rng.integers(0, 256, (N_IMAGES, 12, 12, 3), np.uint8))
    return tmp_path / "nsd"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(image_cache, "BLOCK_IMAGES", 3)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("gray", "shape"), [(True, (6, 6)), (False, (3, 6, 6))])
def test_images_are_those_that_would_be_loaded(root, tmp_path, gray, shape):
    images, ids = prepare_nsd_images(root, tmp_path / "x", IDS, size=6, gray=gray)
    np.testing.assert_array_equal(ids, sorted(set(IDS)))
    assert images.shape == (len(ids), *shape)
    np.testing.assert_array_equal(images, load_nsd_images(root, ids, size=6, gray=gray))
    assert isinstance(images, np.memmap)
    again, same = load_image_cache(tmp_path / "x")
    np.testing.assert_array_equal(again, images)
    np.testing.assert_array_equal(same, ids)
    assert set(content(tmp_path / "x")) == {"images.npy", "image_ids.npy", "images.json"}


def test_blocks_are_read_one_by_one_and_not_again(root, tmp_path, monkeypatch):
    prepare_nsd_images(root, tmp_path / "whole", IDS, size=6)
    calls = []

    def watched(root, ids, **options):
        calls.append(list(ids))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return load_nsd_images(root, ids, **options)

    monkeypatch.setattr(image_cache, "load_nsd_images", watched)
    with pytest.raises(KeyboardInterrupt):
        prepare_nsd_images(root, tmp_path / "cut", IDS, size=6)
    assert calls == [[0, 29], [0, 3, 7], [8, 11, 12], [21, 29]]
    with pytest.raises(InputError, match="not finished"):
        load_image_cache(tmp_path / "cut")
    calls.clear()
    prepare_nsd_images(root, tmp_path / "cut", IDS, size=6)
    assert calls == [[0, 29], [21, 29]]
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    calls.clear()
    prepare_nsd_images(root, tmp_path / "cut", IDS, size=6)
    assert calls == []


@pytest.mark.parametrize("left", [0, 1, 127, 128, 129, 128 + 144, 128 + 5 * 144 + 17])
def test_a_file_cut_anywhere_is_completed(root, tmp_path, monkeypatch, left):
    """As a process that is killed amid writing leaves it."""
    whole = tmp_path / "whole"
    prepare_nsd_images(root, whole, IDS, size=6)
    folder = tmp_path / "cut"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("neuroigc.datasets.store.write_array", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_nsd_images(root, folder, IDS, size=6)
    part = folder / ".work" / image_cache.PART
    assert part.read_bytes() == (whole / "images.npy").read_bytes()
    part.write_bytes(part.read_bytes()[:left])
    prepare_nsd_images(root, folder, IDS, size=6)
    assert content(folder) == content(whole)


def test_other_images_do_not_mix(root, tmp_path):
    folder = tmp_path / "x"
    prepare_nsd_images(root, folder, IDS, size=6)
    with pytest.raises(InputError, match="where size differ"):
        prepare_nsd_images(root, folder, IDS, size=4)
    with pytest.raises(InputError, match="where gray differ"):
        prepare_nsd_images(root, folder, IDS, size=6, gray=False)
    with pytest.raises(InputError, match="where sha256_of_image_ids differ"):
        prepare_nsd_images(root, folder, IDS[:-1], size=6)


def test_a_damaged_cache_is_told_and_made_again(root, tmp_path):
    folder = tmp_path / "x"
    prepare_nsd_images(root, folder, IDS, size=6)
    whole = content(folder)
    (folder / "images.npy").write_bytes(whole["images.npy"][:-1])
    with pytest.raises(InputError, match=r"images.npy: expected .* bytes"):
        load_image_cache(folder)
    prepare_nsd_images(root, folder, IDS, size=6)
    assert content(folder) == whole


def test_unknown_images_and_missing_files(root, tmp_path):
    with pytest.raises(InputError, match="image_ids: expected 0-based numbers of the 30 images"):
        prepare_nsd_images(root, tmp_path / "x", [99], size=6)
    with pytest.raises(InputError, match="image_ids: expected whole numbers"):
        prepare_nsd_images(root, tmp_path / "x", ["a"], size=6)
    with pytest.raises(InputError, match=r"a folder with .*nsd_stimuli.hdf5; got no such file"):
        prepare_nsd_images(tmp_path, tmp_path / "y", IDS, size=6)


@pytest.mark.parametrize("wrong", [dict(image_ids=[0, 99]), dict(size=60), dict(root="nowhere")])
def test_what_could_not_be_read_does_not_claim_the_folder(root, tmp_path, wrong):
    right = dict(root=root, folder=tmp_path / "x", image_ids=IDS, size=np.int64(6))
    with pytest.raises(InputError):
        prepare_nsd_images(**{**right, **wrong})
    images, _ = prepare_nsd_images(**right)
    np.testing.assert_array_equal(images, load_nsd_images(root, sorted(set(IDS)), size=6))
